//! A line of the alert log, or of journalctl, as a test asks it.

use serde_json::Value;

/// The rule this program exists for.
pub const SEED: &str = "7df3cb8b-5c0c-4228-b772-bb6cd619053c";
/// The `rule_id` of [`any_creation`].
pub const ANY: &str = "11111111-2222-4333-8444-555555555555";

/// A rule for every event but opens.
pub fn anything() -> String {
    rule(
        ANY,
        "Anything",
        r#"file where event.action in ("creation", "modification", "rename", "deletion")"#,
    )
}

/// A rule that matches every creation, whoever the writer is.
pub fn any_creation() -> String {
    rule(
        ANY,
        "Any creation",
        r#"file where event.action == "creation""#,
    )
}

/// A rule file in the form of Elastic's detection-rules repository.
pub fn rule(id: &str, name: &str, query: &str) -> String {
    format!(
        "[metadata]\n\
         creation_date = \"2026/01/01\"\n\
         maturity = \"production\"\n\
         \n\
         [rule]\n\
         author = [\"a test\"]\n\
         description = \"A rule of a test.\"\n\
         language = \"eql\"\n\
         max_signals = 100000\n\
         name = \"{name}\"\n\
         risk_score = 21\n\
         rule_id = \"{id}\"\n\
         severity = \"low\"\n\
         type = \"eql\"\n\
         query = '''\n{query}\n'''\n"
    )
}

#[derive(Clone, Debug)]
pub struct Document(pub Value);

impl Document {
    #[track_caller]
    pub fn parse(line: &str) -> Self {
        match serde_json::from_str(line) {
            Ok(mut value @ Value::Object(_)) => {
                // Its place in the log, which the same document elsewhere has not.
                if let Some(Value::Object(ours)) = value.get_mut("ssh_keywatch") {
                    ours.shift_remove("log");
                }
                Self(value)
            }
            other => panic!("not a JSON object: {other:?} in {line:?}"),
        }
    }

    /// The value of a field such as `file.path`, [`Value::Null`] if absent.
    pub fn get(&self, field: &str) -> &Value {
        field.split('.').fold(&self.0, |value, part| &value[part])
    }

    /// The text of a field, empty if absent.
    pub fn text(&self, field: &str) -> &str {
        self.get(field).as_str().unwrap_or_default()
    }

    pub fn number(&self, field: &str) -> Option<u64> {
        self.get(field).as_u64()
    }

    pub fn is(&self, field: &str, text: &str) -> bool {
        self.get(field) == text
    }

    pub fn is_alert(&self) -> bool {
        self.is("event.kind", "alert")
    }

    pub fn is_alert_of(&self, rule: &str) -> bool {
        self.is_alert() && self.is("rule.id", rule)
    }

    pub fn is_state(&self, action: &str) -> bool {
        self.is("event.kind", "state") && self.is("event.action", action)
    }

    /// One line for a panic's message.
    pub fn brief(&self) -> String {
        format!(
            "{} {} {}: {} ({} by {}, {})",
            self.text("event.kind"),
            self.text("event.action"),
            self.text("rule.name"),
            self.text("message"),
            self.text("ssh_keywatch.evidence"),
            self.text("process.executable"),
            self.text("ssh_keywatch.attribution.method"),
        )
    }
}

/// Documents for a panic's message.
pub fn brief(documents: &[Document]) -> String {
    let lines: Vec<String> = documents.iter().map(Document::brief).collect();
    format!("\n  {}", lines.join("\n  "))
}
