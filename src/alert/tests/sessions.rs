//! Sessions in a document and in the sentence.

use super::*;
use crate::resolve::entry::Kind;
use crate::resolve::logins::{Login, RememberedBy};
use crate::resolve::session::{LoginFrom, Session, Source, SourceFrom};
use crate::resolve::unit::{Container, Placement};

/// alice, by sudo, in an SSH session of bob, in a container.
pub(super) fn session() -> Session {
    Session {
        kind: Some(Kind::Ssh),
        leader: Some(process(800, 700, "/usr/bin/bash", &["-bash"], 1001, "bob")),
        through: vec!["sudo".into()],
        placement: Placement {
            unit: Some("session-4.scope".into()),
            slice: Some("user-1001.slice".into()),
            user_unit: Some("x.service".into()),
            logind: Some("4".into()),
            container: Some(Container {
                id: "0123456789abcdef".repeat(4),
                runtime: Some("docker"),
            }),
        },
        login: Some((account(1001, "bob"), LoginFrom::Audit)),
        source: Some(Source {
            ip: [10, 1, 2, 3].into(),
            port: Some(50_000),
            from: SourceFrom::Socket,
        }),
    }
}

/// What rules cannot ask for, because it is added to alerts only; but
/// exceptions and others may know it by its name.
pub(super) fn add_what_alerts_have(document: &mut Document) {
    set_logins(
        document,
        &[Login {
            time: at(0),
            line: Some("pts/0".into()),
            ip: Some([10, 1, 2, 3].into()),
            host: Some("client".into()),
            from: RememberedBy::Wtmp,
        }],
    );
    document.set("event.id", "1");
    let mut acts = Acts::default();
    acts.join(document);
    document.set("event.id", "2");
    acts.join(document);
    assert_eq!(document.str("ssh_keywatch.act.events"), Some("1"));
    document.set("ssh_keywatch.response.commands", vec!["true"]);
}

fn with(session: &Session) -> Document {
    let mut document = document();
    set_session(&mut document, session, &origin());
    document
}

#[test]
fn a_session_in_full() {
    let mut session = session();
    // The terminal of the login; what sudo gave to the writer is pts/3.
    session.leader.as_mut().unwrap().tty = Some((136, 1));
    let mut document = with(&session);
    add_what_alerts_have(&mut document);
    let leader = document.get("process.entry_leader").unwrap();
    assert_eq!(
        *leader,
        json!({
            "pid": 800,
            "entity_id": leader["entity_id"],
            "executable": "/usr/bin/bash",
            "name": "bash",
            "args_count": 1,
            "command_line": "-bash",
            "args": ["-bash"],
            "working_directory": "/home/alice",
            "start": "2026-09-21T14:13:20.000800Z",
            "user": {"id": "1001", "name": "bob"},
            "real_user": {"id": "1001", "name": "bob"},
            "interactive": true,
            "tty": {"char_device": {"major": 136, "minor": 1}},
            "entry_meta": {"type": "sshd", "source": {"ip": "10.1.2.3"}},
            "same_as_process": false
        })
    );
    let own = document.get("ssh_keywatch.session").unwrap();
    assert_eq!(
        *own,
        json!({
            "tty": "pts/1",
            "login_uid": "1000",
            "audit_id": "7",
            "kind": "ssh",
            "user": {"id": "1001", "name": "bob"},
            "user_from": "audit",
            "through": ["sudo"],
            "unit": "session-4.scope",
            "user_unit": "x.service",
            "slice": "user-1001.slice",
            "logind_id": "4",
            "source_from": "socket",
            "entity_id": own["entity_id"],
            "recent_logins": [{
                "time": "2026-09-21T14:13:20.000000Z",
                "tty": "pts/0",
                "ip": "10.1.2.3",
                "host": "client",
                "from": "wtmp"
            }]
        })
    );
    assert_eq!(
        document.get("source"),
        Some(&json!({"ip": "10.1.2.3", "port": 50_000}))
    );
    assert_eq!(document.str("container.runtime"), Some("docker"));
    assert_eq!(document.get("related.user"), Some(&json!(["alice", "bob"])));
    assert_eq!(document.get("related.ip"), Some(&json!(["10.1.2.3"])));
    assert_eq!(
        document.as_map().keys().next_back().unwrap(),
        "ssh_keywatch"
    );
}

#[test]
fn a_login_without_a_terminal_has_the_writers() {
    let mut session = session();
    session.leader.as_mut().unwrap().tty = None;
    let document = with(&session);
    assert_eq!(document.str("ssh_keywatch.session.tty"), Some("pts/3"));
}

#[test]
fn a_terminal_has_the_name_that_people_know_it_by() {
    for (device, name) in [
        ((4, 1), Some("tty1")),
        ((4, 64), Some("ttyS0")),
        ((5, 1), Some("console")),
        ((136, 3), Some("pts/3")),
        ((137, 0), Some("pts/256")),
        ((204, 65), Some("ttyAMA1")),
        ((229, 0), Some("hvc0")),
        ((188, 0), None),
    ] {
        let mut event = event();
        event.writer.process.as_mut().unwrap().tty = Some(device);
        let document = event_document(&event, &origin());
        assert_eq!(document.str("ssh_keywatch.session.tty"), name, "{device:?}");
    }
}

#[test]
fn who_logged_in_is_told_where_the_acting_user_is_not_known() {
    let mut event = event();
    event.writer.process.as_mut().unwrap().credentials = None;
    let mut document = event_document(&event, &origin());
    set_session(&mut document, &session(), &origin());
    let alert = alert(document, &rule());
    let message = alert.str("message").unwrap();
    assert!(
        message.contains(", from an SSH session of bob at 10.1.2.3"),
        "{message}"
    );
}

#[test]
fn an_unknown_session_says_nothing() {
    let before = document();
    let mut document = before.clone();
    set_session(&mut document, &Session::default(), &origin());
    let id = document.get("ssh_keywatch.session.entity_id").cloned();
    let mut expected = before;
    // By the audit session, which the process itself has.
    expected.set("ssh_keywatch.session.entity_id", id.unwrap());
    assert_eq!(document, expected);
}

/// Pinned: alerts of two versions in one session belong together, too.
#[test]
fn ids_of_acts_and_sessions() {
    let ids = |event: &Event<Attribution>, session: &Session| {
        let mut document = event_document(event, &origin());
        set_session(&mut document, session, &origin());
        ["act.id", "session.entity_id"].map(|id| {
            let id = document.str(&format!("ssh_keywatch.{id}"));
            id.map(str::to_owned)
        })
    };
    let [act, by_audit] = ids(&event(), &session()).map(Option::unwrap);
    assert_eq!(act, "e7edac3e706748ff2f9ed02f8c87dadd");

    // Another file, another process of the same session.
    let mut other = event();
    other.path = "/home/alice/.ssh/id_ed25519".into();
    other.object_id = "fe01.81a3".into();
    assert_eq!(
        ids(&other, &session()),
        [Some(act.clone()), Some(by_audit.clone())]
    );
    other.writer.process.as_mut().unwrap().pid = 1201;
    let [other_act, session_of_other] = ids(&other, &session()).map(Option::unwrap);
    assert_ne!(other_act, act);
    assert_eq!(session_of_other, by_audit);

    // Without the audit system the entry leader stands for it, then the
    // session leader, then nobody.
    let process = other.writer.process.as_mut().unwrap();
    process.audit_session = None;
    let [_, by_entry] = ids(&other, &session()).map(Option::unwrap);
    let [_, by_leader] = ids(&other, &Session::default()).map(Option::unwrap);
    other.writer.ancestors.clear();
    let [_, unknown] = ids(&other, &Session::default());
    assert_eq!(unknown, None);
    let all = std::collections::BTreeSet::from([by_audit, by_entry, by_leader]);
    assert_eq!(all.len(), 3);
    other.writer = nobody();
    assert_eq!(ids(&other, &Session::default()), [None, None]);
}

#[test]
fn the_sentence_says_from_where() {
    let sentence = |change: &dyn Fn(&mut Session)| {
        let mut session = Session {
            placement: Placement::default(),
            ..session()
        };
        change(&mut session);
        let alert = alert(with(&session), &rule());
        let message = alert.str("message").unwrap();
        let (_, rest) = message.split_once(" as alice").unwrap();
        rest.split_once(" (pid").unwrap().0.to_owned()
    };
    let kind = |kind| move |session: &mut Session| session.kind = Some(kind);
    assert_eq!(
        sentence(&|_| {}),
        ", from an SSH session of bob at 10.1.2.3 through sudo"
    );
    assert_eq!(
        sentence(&|session| {
            session.login.as_mut().unwrap().0 = account(1000, "alice");
            session.through = vec!["su".into(), "sudo".into()];
        }),
        ", from an SSH session at 10.1.2.3 through su, sudo"
    );
    assert_eq!(
        sentence(&|session| {
            session.login.as_mut().unwrap().0 = account(1001, "");
            session.source = None;
            session.through.clear();
        }),
        ", from an SSH session of uid 1001"
    );
    for (of, words) in [
        (Kind::Console, ", from a login of bob at pts/3 through sudo"),
        (
            Kind::Terminal,
            ", from a login of bob at pts/3 through sudo",
        ),
        (Kind::Cron, ", from a cron job of bob through sudo"),
        (Kind::At, ", from an at job of bob through sudo"),
        (Kind::Ssm, ", from an SSM session of bob through sudo"),
        (
            Kind::Teleport,
            ", from a Teleport session of bob through sudo",
        ),
        (Kind::Kubelet, ", from kubelet through sudo"),
        (Kind::Init, ", logged in as bob through sudo"),
        (Kind::Unit, ", logged in as bob through sudo"),
    ] {
        assert_eq!(sentence(&kind(of)), words);
    }
    let bare = |session: &mut Session| {
        session.login = Some((account(1000, "alice"), LoginFrom::Audit));
        session.through.clear();
    };
    assert_eq!(
        sentence(&|session| {
            bare(session);
            session.kind = Some(Kind::Unit);
            session.placement.unit = Some("backup.service".into());
        }),
        ", from the unit backup.service"
    );
    assert_eq!(
        sentence(&|session| {
            bare(session);
            session.kind = None;
        }),
        ""
    );
    for (id, shown) in [
        ("0123456789abcdef".repeat(4), "0123456789ab".to_owned()),
        ("web1".to_owned(), "web1".to_owned()),
        // 64 bytes, no place to cut at.
        ("€".repeat(21) + "x", "€".repeat(4)),
    ] {
        let words = sentence(&|session| {
            bare(session);
            session.kind = Some(Kind::Container);
            session.placement.container = Some(Container {
                id: id.clone(),
                runtime: Some("docker"),
            });
        });
        assert_eq!(words, format!(", in the docker container {shown}"));
    }
}
