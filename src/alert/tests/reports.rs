//! States and losses.

use super::*;

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
