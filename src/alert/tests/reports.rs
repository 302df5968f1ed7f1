//! States and losses.

use std::collections::BTreeSet;

use super::*;
use crate::rule::{Cause, Suppressed};

#[test]
fn a_state_document() {
    let document = started();
    assert_eq!(
        document.str("message"),
        Some("ssh-keywatch started: 3 rules, 5 directories")
    );
    assert_eq!(
        document.get("event"),
        Some(&json!({
            "kind": "state",
            "id": document.str("event.id").unwrap(),
            "module": "ssh_keywatch",
            "dataset": "ssh_keywatch.alerts",
            "created": "2026-09-21T14:13:20.000000Z",
            "reason": "3 rules, 5 directories",
            "category": ["process"],
            "type": ["start"],
            "action": "start",
            "outcome": "success"
        }))
    );
    assert_eq!(
        document.get("ssh_keywatch"),
        Some(&json!({
            "mode": "fanotify+hold",
            "coverage": {"directories": 5},
            "counters": {"events": 0}
        }))
    );
    assert_eq!(document.str("host.name"), Some("web1.example.org"));

    let refused = state(
        &State {
            time: at(0),
            change: Change::Reload,
            outcome: Outcome::Failure,
            reason: "",
            coverage: Value::Null,
            counters: Value::Null,
            changes: Value::Null,
        },
        &origin(),
    );
    assert_eq!(
        refused.str("message"),
        Some("ssh-keywatch reloaded without success")
    );
    assert_eq!(refused.get("event.reason"), None);
    assert_eq!(refused.get("ssh_keywatch.coverage"), None);
}

#[test]
fn a_flood_document() {
    let document = flood(&flooded(), at(9), &origin());
    assert_eq!(
        document.str("message"),
        Some(
            "a flood in /home/alice: 7000 creations, 2 renames, 3 modifications, 4 deletions, \
             1 open, 9 records were counted and not told one by one; it is over"
        )
    );
    assert_eq!(document.str("event.kind"), Some("pipeline_error"));
    assert_eq!(document.str("event.code"), Some("flood"));
    assert_eq!(document.str("file.path"), Some("/home/alice"));
    assert_eq!(document.number("ssh_keywatch.loss.count"), Some(7019));
    assert_eq!(document.number("ssh_keywatch.flood.creations"), Some(7000));
    assert!(document.str("process.executable").is_some(), "who began it");
}

#[test]
fn a_loss_document() {
    let document = lost();
    assert_eq!(
        document.str("message"),
        Some("12 events were lost: the kernel's queue was full")
    );
    assert_eq!(
        document.get("event"),
        Some(&json!({
            "kind": "pipeline_error",
            "id": document.str("event.id").unwrap(),
            "module": "ssh_keywatch",
            "dataset": "ssh_keywatch.alerts",
            "created": "2026-09-21T14:13:20.000005Z",
            "reason": "the kernel's queue was full",
            "action": "lost",
            "code": "queue_overflow",
            "outcome": "failure",
            "start": "2026-09-21T14:13:20.000001Z",
            "end": "2026-09-21T14:13:20.000005Z"
        }))
    );
    assert_eq!(document.number("ssh_keywatch.loss.count"), Some(12));
}

#[test]
fn the_same_word_has_the_same_id_and_no_other_has() {
    let id = |document: &Document| document.str("event.id").unwrap().to_owned();
    // Pinned, as the ids of alerts are.
    assert_eq!(id(&started()), "a445063fa638896d1258f412ffb10e33");
    assert_eq!(id(&lost()), "a30fafbd51ee2dffad85fcdc9b9ba4b4");
    let loss = |time, code, count, reason| {
        let loss = Loss {
            time: at(time),
            since: None,
            kind: LossKind::Lost,
            code,
            count,
            reason,
        };
        id(&pipeline_error(&loss, &origin()))
    };
    let others = [
        loss(0, "a", None, "x"),
        loss(1, "a", None, "x"),
        loss(0, "b", None, "x"),
        loss(0, "a", Some(1), "x"),
        loss(0, "a", None, "y"),
    ];
    let different: BTreeSet<_> = others.iter().collect();
    assert_eq!(different.len(), others.len());
    let mut elsewhere = origin();
    elsewhere.host.id = "another".into();
    let of = |rule: &str, origin: &Origin| {
        let told = Suppressed {
            rule_id: rule.into(),
            rule_name: "One name".into(),
            cause: Cause::MaxSignals(100, None),
            count: 12,
            start: at(0),
            end: at(1),
            window: 1,
        };
        id(&suppressed(&told, at(2), origin))
    };
    assert_eq!(of("r", &origin()), of("r", &origin()));
    assert_ne!(of("r", &origin()), of("s", &origin()));
    assert_ne!(of("r", &origin()), of("r", &elsewhere));
}

#[test]
fn suppressed_alerts_are_told_with_their_reason() {
    let mut told = Suppressed {
        rule_id: "r".into(),
        rule_name: "A key was made".into(),
        cause: Cause::MaxSignals(100, None),
        count: 12,
        start: at(0),
        end: at(300_000_000),
        window: 1,
    };
    let document = suppressed(&told, at(301_000_000), &origin());
    for (name, expected) in [
        ("event.kind", "state"),
        ("event.action", "suppressed"),
        ("event.code", "max_signals"),
        ("event.outcome", "success"),
        ("rule.id", "r"),
        (
            "message",
            "12 alerts were suppressed of the rule A key was made: the rule raises at most 100 in its interval",
        ),
    ] {
        assert_eq!(document.str(name), Some(expected), "{name}");
    }
    assert_eq!(document.number("ssh_keywatch.suppressed.count"), Some(12));
    told.cause = Cause::Alike(vec![
        ("user.name".into(), vec!["al\nice".into()]),
        ("container.id".into(), vec![]),
    ]);
    told.count = 1;
    let document = suppressed(&told, at(1), &origin());
    assert_eq!(
        document.str("message"),
        Some(
            "1 alert was suppressed of the rule A key was made: alike to one that was raised (user.name al\\nice; no container.id)"
        )
    );
    assert_eq!(document.str("event.code"), Some("alert_suppression"));
    assert_eq!(
        document.str("ssh_keywatch.suppressed.values"),
        Some("al\nice")
    );
}
