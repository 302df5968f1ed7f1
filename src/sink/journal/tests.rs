//! Documents as journal fields.

use super::*;
use serde_json::json;

const CATALOG: &str = include_str!("../../../packaging/ssh-keywatch.catalog");

fn line(document: &Value) -> Line {
    Line::new(document.as_object().unwrap().clone())
}

fn get<'a>(fields: &'a [(&str, String)], name: &str) -> Vec<&'a str> {
    fields
        .iter()
        .filter(|(key, _)| *key == name)
        .map(|(_, value)| value.as_str())
        .collect()
}

#[test]
fn an_alert_has_its_fields() {
    let line = line(&json!({
        "message": "SSH key made", "event": {"kind": "alert", "action": "creation", "id": "e1", "severity": 73},
        "rule": {"id": "r1", "name": "R"}, "file": {"path": "/root/.ssh/id"}, "user": {"id": "0", "name": "root"},
        "process": {"pid": 42, "executable": "/usr/bin/ssh-keygen", "args": ["ssh-keygen", "-f", "a b"]},
        "ssh_keywatch": {"file": {"final": {"path": "/x"}}, "attribution": {"certain": true},
            "key": {"fingerprint": "SHA256:a", "added": [{"fingerprint": "SHA256:b"}, {}]}}
    }));
    let fields = fields(&line);
    assert_eq!(get(&fields, "MESSAGE"), ["SSH key made"]);
    assert_eq!(get(&fields, "PRIORITY"), ["3"]);
    assert_eq!(get(&fields, "MESSAGE_ID"), [MessageId::Creation.as_str()]);
    assert_eq!(get(&fields, "SYSLOG_IDENTIFIER"), ["ssh-keywatch"]);
    assert_eq!(get(&fields, "EVENT_ID"), ["e1"]);
    assert_eq!(get(&fields, "RULE_ID"), ["r1"]);
    assert_eq!(get(&fields, "RULE_NAME"), ["R"]);
    assert_eq!(get(&fields, "FILE_PATH"), ["/root/.ssh/id"]);
    assert_eq!(get(&fields, "FILE_FINAL_PATH"), ["/x"]);
    assert_eq!(get(&fields, "PROCESS_PID"), ["42"]);
    assert_eq!(get(&fields, "PROCESS_ARGS"), ["ssh-keygen", "-f", "a b"]);
    assert_eq!(get(&fields, "USER_ID"), ["0"]);
    assert_eq!(get(&fields, "ATTRIBUTION_CERTAIN"), ["true"]);
    assert_eq!(get(&fields, "KEY_FINGERPRINT"), ["SHA256:a", "SHA256:b"]);
    assert_eq!(get(&fields, "SSH_KEYWATCH_EVENT"), [&*line.json]);
}

#[test]
fn a_newline_in_an_argument_stays_inside_its_field() {
    let line = line(
        &json!({"message": "a\nPRIORITY=0", "process": {"args": ["x\nRULE_ID=forged", "\u{1b}[2J"]}}),
    );
    let fields = fields(&line);
    assert_eq!(get(&fields, "MESSAGE"), ["a\\nPRIORITY=0"]);
    assert_eq!(
        get(&fields, "PROCESS_ARGS"),
        ["x\\nRULE_ID=forged", "\\x1b[2J"]
    );
    assert!(fields.iter().all(|(_, value)| !value.contains('\n')));
}

#[test]
fn journald_would_take_every_field_name() {
    // systemd's journal_field_valid(): at most 64 of A-Z 0-9 _, no digit or
    // underscore first.
    for (name, _) in SINGLE {
        assert!(
            name.len() <= 64 && name.starts_with(|c: char| c.is_ascii_uppercase()),
            "{name}"
        );
        assert!(
            name.chars()
                .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'),
            "{name}"
        );
    }
}

#[test]
fn priorities_follow_severity_and_kind() {
    for (kind, severity, expected) in [
        ("alert", 21, 5),
        ("alert", 47, 4),
        ("alert", 73, 3),
        ("alert", 99, 2),
        ("state", 99, 6),
        ("pipeline_error", 21, 4),
    ] {
        let line = line(&json!({"event": {"kind": kind, "severity": severity}}));
        assert_eq!(priority(&line.document), expected, "{kind} {severity}");
    }
    assert_eq!(priority(&Map::new()), 5);
}

#[test]
fn every_message_id_is_explained_and_no_other() {
    let explained: Vec<&str> = CATALOG
        .lines()
        .filter_map(|line| line.strip_prefix("-- "))
        .collect();
    let ours: Vec<&str> = MessageId::ALL.iter().map(|id| id.as_str()).collect();
    assert_eq!(explained, ours);
    for id in ours {
        assert!(
            id.len() == 32 && u128::from_str_radix(id, 16).is_ok(),
            "{id}"
        );
    }
}

#[test]
fn the_catalogue_asks_only_for_fields_that_are_always_there() {
    let always = ["MESSAGE", "RULE_ID", "RULE_NAME", "FILE_PATH"];
    let mut entry = "";
    let mut asked = 0;
    for line in CATALOG.lines().filter(|line| !line.starts_with('#')) {
        entry = line.strip_prefix("-- ").unwrap_or(entry);
        for name in line.split('@').skip(1).step_by(2) {
            asked += 1;
            let of_state = entry == MessageId::State.as_str() && name == "EVENT_ACTION";
            assert!(always.contains(&name) || of_state, "{name} in {entry}");
        }
    }
    assert!(asked > 0);
}
