//! journald, by its native protocol.
//!
//! Owns which journal field holds which part of a document, and the message ids
//! that `packaging/ssh-keywatch.catalog` explains (`journalctl -x`). Must not
//! shorten anything. Values go through [`crate::text::printable`], because
//! journalctl shows a field with control characters as `[blob data]`; the exact
//! document is in `SSH_KEYWATCH_EVENT` (`journalctl -o json` leaves fields of more
//! than 4 KiB out unless it is given `--all`). Fails by error while journald's socket
//! is missing or full up; the next line tries anew.

use std::io;

use libsystemd::logging::{Priority, journal_send};
use serde_json::{Map, Value};

use super::field::{field, number, scalar, strings, text};
use super::{Line, Sink, Spool};
use crate::text::printable;

/// The catalogue entries, systemd.journal-fields(7) `MESSAGE_ID=`. They never
/// change: admins write them into filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageId {
    /// An alert whose action is `creation`.
    Creation,
    /// An alert whose action is `modification`.
    Modification,
    /// An alert whose action is `rename`.
    Rename,
    /// An alert whose action is `deletion`.
    Deletion,
    /// An alert whose action is `open`.
    Open,
    /// Any other alert.
    Alert,
    /// A line about the daemon itself.
    State,
    /// Events were lost or dropped.
    PipelineError,
}

impl MessageId {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Creation,
        Self::Modification,
        Self::Rename,
        Self::Deletion,
        Self::Open,
        Self::Alert,
        Self::State,
        Self::PipelineError,
    ];

    /// The id as journald writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creation => "4437a206c5b74011bb17dde3764781b4",
            Self::Modification => "44041155ebea487f804a1c215cbf9508",
            Self::Rename => "b673c181e67f4a9bb49b87089f656884",
            Self::Deletion => "1c5a54d4a5a4452980ecfbf629aae0b1",
            Self::Open => "5d3e8a1b7c0f4e26a94b60d2f81c37e5",
            Self::Alert => "28fff234ff0c4c1f9ac5dec409b03aef",
            Self::State => "ab857351b97546239830e8f219a845db",
            Self::PipelineError => "971d588ae9284fc08105c87464a1e100",
        }
    }

    /// The entry that explains a document.
    #[must_use]
    pub fn of(document: &Map<String, Value>) -> Self {
        match (text(document, "event.kind"), text(document, "event.action")) {
            (Some("state"), _) => Self::State,
            (Some("pipeline_error"), _) => Self::PipelineError,
            (_, Some("creation")) => Self::Creation,
            (_, Some("modification")) => Self::Modification,
            (_, Some("rename")) => Self::Rename,
            (_, Some("deletion")) => Self::Deletion,
            (_, Some("open")) => Self::Open,
            _ => Self::Alert,
        }
    }
}

/// syslog(3) priority: an alert's by its severity (low is notice, then warning,
/// err, crit), `state` is info, `pipeline_error` is warning.
#[must_use]
pub fn priority(document: &Map<String, Value>) -> u8 {
    match text(document, "event.kind") {
        Some("state") => 6,
        Some("pipeline_error") => 4,
        _ => match number(document, "event.severity").unwrap_or_default() {
            99.. => 2,
            73.. => 3,
            47.. => 4,
            _ => 5,
        },
    }
}

/// Journal fields that hold one ECS field each.
const SINGLE: [(&str, &str); 25] = [
    ("EVENT_ID", "event.id"),
    ("EVENT_KIND", "event.kind"),
    ("EVENT_ACTION", "event.action"),
    ("EVENT_SEVERITY", "event.severity"),
    ("RULE_ID", "rule.id"),
    ("RULE_NAME", "rule.name"),
    ("FILE_PATH", "file.path"),
    ("FILE_FINAL_PATH", "ssh_keywatch.file.final.path"),
    ("PROCESS_PID", "process.pid"),
    ("PROCESS_EXECUTABLE", "process.executable"),
    ("PROCESS_NAME", "process.name"),
    ("PROCESS_COMMAND_LINE", "process.command_line"),
    ("PROCESS_PARENT_PID", "process.parent.pid"),
    ("PROCESS_PARENT_EXECUTABLE", "process.parent.executable"),
    ("USER_ID", "user.id"),
    ("USER_NAME", "user.name"),
    ("KEY_KIND", "ssh_keywatch.key.kind"),
    ("KEY_TYPE", "ssh_keywatch.key.type"),
    ("KEY_BITS", "ssh_keywatch.key.bits"),
    ("KEY_COMMENT", "ssh_keywatch.key.comment"),
    ("KEY_ENCRYPTED", "ssh_keywatch.key.encrypted"),
    ("SOURCE_IP", "source.ip"),
    ("SOURCE_PORT", "source.port"),
    ("ATTRIBUTION_METHOD", "ssh_keywatch.attribution.method"),
    ("ATTRIBUTION_CERTAIN", "ssh_keywatch.attribution.certain"),
];

/// The fields of one entry, `MESSAGE` and `PRIORITY` among them. A journal field
/// may come more than once: `PROCESS_ARGS` once an argument, `KEY_FINGERPRINT`
/// once a key.
#[must_use]
pub fn fields(line: &Line) -> Vec<(&'static str, String)> {
    let document = &*line.document;
    let mut out = vec![
        ("MESSAGE", message(document)),
        ("PRIORITY", priority(document).to_string()),
        ("MESSAGE_ID", MessageId::of(document).as_str().to_owned()),
        ("SYSLOG_IDENTIFIER", "ssh-keywatch".to_owned()),
    ];
    for (name, ecs) in SINGLE {
        if let Some(value) = scalar(document, ecs) {
            out.push((name, printable(&value).into_owned()));
        }
    }
    for arg in strings(document, "process.args") {
        out.push(("PROCESS_ARGS", printable(arg).into_owned()));
    }
    for technique in ["threat.technique.id", "threat.technique.subtechnique.id"] {
        for id in strings(document, technique) {
            out.push(("THREAT_TECHNIQUE_ID", printable(id).into_owned()));
        }
    }
    for fingerprint in fingerprints(document) {
        out.push(("KEY_FINGERPRINT", printable(fingerprint).into_owned()));
    }
    out.push(("SSH_KEYWATCH_EVENT", line.json.to_string()));
    out
}

fn message(document: &Map<String, Value>) -> String {
    let message = text(document, "message").or_else(|| text(document, "rule.name"));
    printable(message.unwrap_or("ssh-keywatch event without a message")).into_owned()
}

/// The key's own fingerprint, and those of the entries that an
/// `authorized_keys` gained or lost.
fn fingerprints(document: &Map<String, Value>) -> Vec<&str> {
    let mut out = strings(document, "ssh_keywatch.key.fingerprint");
    for list in ["ssh_keywatch.key.added", "ssh_keywatch.key.removed"] {
        let entries = field(document, list)
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        out.extend(entries.filter_map(|entry| text(entry.as_object()?, "fingerprint")));
    }
    out
}

/// journald as a sink.
#[derive(Debug, Default)]
pub struct Journal(());

impl Journal {
    /// Nothing is opened yet: a journald that comes later is found later.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Sink for Journal {
    fn name(&self) -> &'static str {
        "journal"
    }

    fn write(&mut self, line: &Line) -> io::Result<()> {
        if line.is_building_block() {
            return Ok(());
        }
        let priority = match priority(&line.document) {
            ..=2 => Priority::Critical,
            3 => Priority::Error,
            4 => Priority::Warning,
            5 => Priority::Notice,
            6.. => Priority::Info,
        };
        let fields = fields(line);
        let message = fields
            .iter()
            .find(|(name, _)| *name == "MESSAGE")
            .map_or("", |(_, value)| value);
        // Takes its own PRIORITY and MESSAGE and skips those among the fields.
        journal_send(
            priority,
            message,
            fields.iter().map(|(name, value)| (*name, value)),
        )
        .map_err(|error| io::Error::other(format!("journald did not take the entry: {error}")))
    }

    fn spool(&self) -> Spool {
        // Enough for a restart of journald; a host without one keeps little.
        Spool {
            lines: 512,
            bytes: 1 << 20,
        }
    }
}

#[cfg(test)]
mod tests;
