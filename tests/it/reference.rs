//! The example of the reference page is what a real alert looks like.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::attribution::overdue;
use crate::document::{Document, SEED};
use crate::host::{ANN, Host};

const PAGE: &str = include_str!("../../docs/alert.md");

/// What depends on how the test itself was started, and where.
const VARIES: [&str; 12] = [
    "container.",
    "related.ip",
    "process.entry_leader.",
    "host.os.",
    "process.group_leader.",
    "process.parent.",
    "process.session_leader.",
    "process.tty.",
    "ssh_keywatch.ancestors.",
    "ssh_keywatch.degraded",
    "ssh_keywatch.session.",
    "source.",
];

/// The dotted name of every field and what kind of value it has.
fn shape(prefix: &str, value: &Value, out: &mut BTreeMap<String, &'static str>) {
    let kind = match value {
        Value::Object(map) => {
            for (key, value) in map {
                let dot = if prefix.is_empty() { "" } else { "." };
                shape(&format!("{prefix}{dot}{key}"), value, out);
            }
            return;
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for item in items {
                shape(prefix, item, out);
            }
            return;
        }
        Value::Array(_) => "list",
        Value::String(_) => "text",
        Value::Number(_) => "number",
        Value::Bool(_) => "boolean",
        Value::Null => "null",
    };
    if !VARIES.iter().any(|varies| prefix.starts_with(varies)) {
        out.insert(prefix.to_owned(), kind);
    }
}

/// An alert, unless its maker was let go, as somebody on a busy machine may have to be.
fn a_real_one() -> Option<Document> {
    let host = Host::new();
    host.sh(ANN, "mkdir -m 700 .ssh").ok();
    let daemon = host.daemon().start();
    let path = ANN.ssh("id_ed25519");
    let made = host.command("ssh-keygen").user(ANN);
    made.args([
        "-q", "-t", "ed25519", "-N", "", "-C", "ann@web1", "-f", &path,
    ])
    .ok();
    let alert = daemon.alert(SEED, &path);
    let is_held = overdue(&daemon.stop()) == 0;
    is_held.then_some(alert)
}

#[test]
fn the_example_of_the_reference_is_what_an_alert_looks_like() {
    let (_, rest) = PAGE.split_once("```json\n").expect("an example");
    let (example, _) = rest.split_once("```").expect("its end");
    let example = Document(serde_json::from_str(example).unwrap());
    let (mut expected, mut found) = (BTreeMap::new(), BTreeMap::new());
    shape("", &example.0, &mut expected);
    let mut tries = (0..5).filter_map(|_| a_real_one());
    let mut alert = tries.next().expect("one that was held");
    shape("", &alert.0, &mut found);
    // What could not be read at once is not there: then the next one has it.
    while !expected.keys().all(|field| found.contains_key(field))
        && let Some(next) = tries.next()
    {
        alert = next;
        found.clear();
        shape("", &alert.0, &mut found);
    }
    assert_eq!(found, expected, "a real one: {:#}", alert.0);
    // What does not vary is the same to the letter.
    for field in [
        "event.action",
        "event.code",
        "event.kind",
        "event.severity",
        "file.path",
        "process.args",
        "process.executable",
        "rule.name",
        "threat.technique.id",
        "user.name",
        "ssh_keywatch.attribution.certain",
        "ssh_keywatch.attribution.method",
        "ssh_keywatch.key.comment",
        "ssh_keywatch.key.encrypted",
        "ssh_keywatch.key.kind",
        "ssh_keywatch.key.type",
    ] {
        assert_eq!(alert.get(field), example.get(field), "{field}");
    }
}
