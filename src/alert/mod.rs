//! The documents that leave the daemon, in the words of ECS 9.4.0.
//!
//! Owns which field says what, and the ids that are stable across restarts.
//! Must not look at a clock, a file, the environment or a name service: all
//! facts are given. Cannot fail; what is unknown is left out.
//!
//! Two steps, because rules are asked in between: [`event_document`] writes all
//! that is known of an event, a rule decides on it, and [`alert`] adds what the
//! rule says. [`state`] (and [`suppressed`]) and [`pipeline_error`] are the other
//! two kinds of line.

mod act;
mod document;
mod gap;
mod key;
mod message;
mod occurrence;
mod process;
mod report;
mod response;
mod session;
mod value;

#[cfg(test)]
mod tests;

use serde_json::Value;

pub use act::Acts;
pub use document::Document;
pub use gap::{Gap, Unseen, path_text, set_gap, timestamp};
pub use key::{KeyReport, set_key, set_removed_list};
pub use occurrence::event_document;
pub use report::{
    Change, Loss, LossKind, Outcome, State, flood, pipeline_error, state, suppressed,
};
pub use response::set_response;
pub use session::{set_logins, set_session};

use crate::rule::{Reference, Rule};

/// The value of `ecs.version`.
pub const ECS_VERSION: &str = "9.4.0";
/// The value of `event.module`.
pub const MODULE: &str = "ssh_keywatch";
/// The value of `event.dataset`.
pub const DATASET: &str = "ssh_keywatch.alerts";

/// The host that documents speak of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// `host.id`: machine-id(5).
    pub id: String,
    /// `host.name`: the fully qualified name where there is one.
    pub name: String,
    /// `host.hostname`: what hostname(1) says.
    pub hostname: String,
    /// `host.architecture`: such as `x86_64`.
    pub architecture: Option<String>,
    /// `host.os.kernel`: the release of uname(2).
    pub os_kernel: Option<String>,
    /// `host.os.name`: `NAME` of os-release(5).
    pub os_name: Option<String>,
    /// `host.os.version`: `VERSION_ID` of os-release(5).
    pub os_version: Option<String>,
    /// `host.os.platform`: `ID` of os-release(5).
    pub os_platform: Option<String>,
}

/// Who speaks: this host and this run of the daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The host.
    pub host: Host,
    /// The daemon's version.
    pub version: String,
    /// How it watches (`ssh_keywatch.mode`), such as `fanotify+hold`.
    pub mode: String,
    /// What does not work as it should (`ssh_keywatch.degraded`).
    pub degraded: Vec<String>,
    /// The kernel's boot id (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
}

/// The alert that a rule raises on an event's document.
///
/// Its `event.id` is derived from the host, the object, what was done to it and
/// when the file system says it was, so that the same creation, found twice,
/// has the same id.
#[must_use]
pub fn alert(document: Document, rule: &Rule) -> Document {
    let mut alert = Document::new();
    alert.set(
        "@timestamp",
        document.get("@timestamp").cloned().unwrap_or_default(),
    );
    alert.set("message", message::sentence(&document));
    alert.set("event.kind", "alert");
    alert.set("event.id", event_id(&document, rule));
    alert.set("event.code", rule.id.as_str());
    let severity = rule.overrides.severity(&document).unwrap_or(rule.severity);
    let risk_score = rule.overrides.risk_score(&document);
    alert.set("event.severity", severity.number());
    alert.set("event.risk_score", risk_score.unwrap_or(rule.risk_score));
    set_rule(&mut alert, rule);
    if let Some(name) = rule.overrides.name(&document) {
        alert.set("rule.name", name);
    }
    set_threat(&mut alert, rule);
    alert.set("tags", rule.tags.clone());
    alert.fill_from(document);
    // Ours comes last, and is no field of ECS.
    let below = "ssh_keywatch.rule";
    alert.set(
        &format!("{below}.building_block"),
        rule.building_block.then_some(true),
    );
    alert.set(
        &format!("{below}.investigation_fields"),
        rule.investigation_fields.clone(),
    );
    // The first is rule.reference.
    let further = rule.references.get(1..).unwrap_or_default();
    alert.set(&format!("{below}.references"), further);
    alert
}

/// The `event.id` of the alert that a rule raises on an event's document.
#[must_use]
pub fn event_id(document: &Document, rule: &Rule) -> String {
    let action = document.str("event.action").unwrap_or_default();
    let moments: &[&str] = match action {
        // The inode may have changed since it was born, its birth not.
        "creation" => &["file.created", "file.ctime", "@timestamp"],
        // It leaves no trace in the file system.
        "open" | "flood" => &["@timestamp"],
        _ => &["file.ctime", "@timestamp"],
    };
    let moment = moments.iter().find_map(|field| document.str(field));
    let moment = moment.unwrap_or_default();
    let moment = match document.number("process.pid") {
        // Records that are read together have one time.
        Some(pid) if action == "open" => format!("{moment} {pid}"),
        _ => moment.to_owned(),
    };
    value::digest([
        document.str("host.id").unwrap_or_default(),
        document
            .str("ssh_keywatch.file.object_id")
            .unwrap_or_default(),
        document.str("file.path").unwrap_or_default(),
        document.str("ssh_keywatch.path_raw").unwrap_or_default(),
        action,
        &moment,
        &rule.id,
    ])
}

fn set_rule(alert: &mut Document, rule: &Rule) {
    alert.set("rule.id", rule.id.as_str());
    alert.set("rule.uuid", rule.id.as_str());
    alert.set("rule.name", rule.name.as_str());
    alert.set("rule.description", rule.description.as_str());
    alert.set("rule.author", rule.author.clone());
    alert.set("rule.license", rule.license.clone());
    alert.set("rule.ruleset", rule.ruleset.as_str());
    alert.set("rule.version", rule.version.clone());
    // ECS knows one reference of a rule. That of a shipped rule is its guide.
    alert.set("rule.reference", rule.references.first().cloned());
}

fn set_threat(alert: &mut Document, rule: &Rule) {
    for threat in &rule.threat {
        if alert.get("threat.framework").is_none() {
            alert.set("threat.framework", threat.framework.as_str());
        }
        add_reference(alert, "threat.tactic", &threat.tactic);
        for technique in &threat.techniques {
            add_reference(alert, "threat.technique", &technique.technique);
            for subtechnique in &technique.subtechniques {
                add_reference(alert, "threat.technique.subtechnique", subtechnique);
            }
        }
    }
}

/// Adds one entry to three parallel lists, unless its id is there already.
fn add_reference(alert: &mut Document, path: &str, entry: &Reference) {
    let known = alert.get(&format!("{path}.id")).and_then(Value::as_array);
    if known.is_some_and(|ids| ids.iter().any(|id| *id == *entry.id)) {
        return;
    }
    for (name, text) in [
        ("id", &entry.id),
        ("name", &entry.name),
        ("reference", &entry.reference),
    ] {
        let path = format!("{path}.{name}");
        let mut list = alert
            .get(&path)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        list.push(text.as_str().into());
        alert.set(&path, list);
    }
}
