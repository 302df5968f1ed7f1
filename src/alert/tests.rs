use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::*;
use crate::event::{Action, Event, Evidence, FileFacts, FileKind, FinalPath};
use crate::resolve::{Account, Attribution, Credentials, Image, ImageState, Method, Process};
use crate::rule::{Severity, Technique, Threat};

fn at(micros: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000) + Duration::from_micros(micros)
}

fn origin() -> Origin {
    Origin {
        host: Host {
            id: "4c4c4544".into(),
            name: "web1.example.org".into(),
            hostname: "web1".into(),
            architecture: Some("x86_64".into()),
            os_kernel: Some("6.1.0-18-amd64".into()),
            os_name: Some("Debian GNU/Linux".into()),
            os_version: Some("12".into()),
            os_platform: Some("debian".into()),
        },
        version: "0.1.0".into(),
        mode: "fanotify+hold".into(),
        boot_id: "b0071d".into(),
    }
}

fn account(id: u32, name: &str) -> Account {
    Account {
        id,
        name: (!name.is_empty()).then(|| name.to_owned()),
    }
}

fn image(path: &str) -> Image {
    Image {
        path: path.into(),
        device: Some(64_768),
        inode: Some(1_311),
        state: Some(ImageState::Same),
    }
}

fn process(pid: i32, parent: i32, path: &str, args: &[&str], uid: u32, user: &str) -> Process {
    Process {
        pid,
        parent_pid: Some(parent),
        start: Some(at(u64::from(pid.unsigned_abs()))),
        start_ticks: Some(u64::from(pid.unsigned_abs()) * 10),
        image: Some(image(path)),
        name: Some("comm".into()),
        args: Some(args.iter().map(OsString::from).collect()),
        working_directory: Some("/home/alice".into()),
        credentials: Some(Credentials {
            real_user: account(uid, user),
            effective_user: account(uid, user),
            real_group: account(uid, user),
            effective_group: account(uid, user),
        }),
        session: Some(900),
        process_group: Some(pid),
        tty: Some((136, 3)),
        login_uid: Some(1000),
        audit_session: Some(7),
    }
}

fn writer() -> Attribution {
    Attribution {
        method: Method::Held,
        certain: true,
        process: Some(process(
            1200,
            900,
            "/usr/bin/ssh-keygen",
            &["ssh-keygen", "-t", "ed25519"],
            1000,
            "alice",
        )),
        ancestors: vec![
            process(900, 1, "/usr/bin/bash", &["-bash"], 1000, "alice"),
            process(1, 0, "/usr/lib/systemd/systemd", &["/sbin/init"], 0, "root"),
        ],
        candidates: vec![],
    }
}

fn facts() -> FileFacts {
    FileFacts {
        kind: FileKind::File,
        device: 64_769,
        inode: 4_711,
        mode: 0o600,
        uid: 1000,
        gid: 1000,
        owner: Some("alice".into()),
        group: Some("alice".into()),
        size: 411,
        links: 1,
        modified: at(2_000),
        changed: at(3_000),
        created: Some(at(1_000)),
        target: None,
    }
}

fn event() -> Event<Attribution> {
    Event {
        sequence: 17,
        time: at(1_500),
        action: Action::Creation,
        path: "/home/alice/.ssh/id_ed25519.pub".into(),
        original_path: None,
        final_path: None,
        facts: Some(facts()),
        object_id: "fe01.81a2".into(),
        evidence: Evidence::Fanotify,
        writer: writer(),
    }
}

fn nobody() -> Attribution {
    Attribution {
        method: Method::None,
        certain: false,
        process: None,
        ancestors: vec![],
        candidates: vec![],
    }
}

fn entry(id: &str, name: &str) -> Reference {
    Reference {
        id: id.into(),
        name: name.into(),
        reference: format!("https://example.org/{id}"),
    }
}

fn rule() -> Rule {
    Rule {
        id: "rule-1".into(),
        name: "A key was made".into(),
        description: "Somebody made a key.".into(),
        severity: Severity::Low,
        risk_score: 21,
        threat: vec![
            Threat {
                framework: "MITRE ATT&CK".into(),
                tactic: entry("TA0003", "Persistence"),
                techniques: vec![Technique {
                    technique: entry("T1098", "Account Manipulation"),
                    subtechniques: vec![entry("T1098.004", "SSH Authorized Keys")],
                }],
            },
            Threat {
                framework: "MITRE ATT&CK".into(),
                tactic: entry("TA0008", "Lateral Movement"),
                techniques: vec![
                    Technique {
                        technique: entry("T1098", "Account Manipulation"),
                        subtechniques: vec![],
                    },
                    Technique {
                        technique: entry("T1021", "Remote Services"),
                        subtechniques: vec![entry("T1021.004", "SSH")],
                    },
                ],
            },
        ],
        tags: vec!["OS: Linux".into()],
        references: vec![
            "https://example.org/a".into(),
            "https://example.org/b".into(),
        ],
        author: vec!["The authors".into()],
        license: Some("MIT".into()),
        version: None,
        false_positives: vec![],
        note: None,
        query: "file where true".into(),
        file: PathBuf::from("/usr/share/r.toml"),
        ruleset: "ssh-keywatch".into(),
    }
}

fn document() -> Document {
    event_document(&event(), &origin())
}

fn message(event: &Event<Attribution>) -> String {
    let alert = alert(&event_document(event, &origin()), &rule());
    alert.str("message").unwrap().to_owned()
}

#[test]
fn an_event_in_full() {
    let entity = |pid: u64| value::digest(["b0071d", &pid.to_string(), &(pid * 10).to_string()]);
    let alice = json!({"id": "1000", "name": "alice"});
    let expected = json!({
        "@timestamp": "2026-09-21T14:13:20.001500Z",
        "event": {
            "kind": "event",
            "category": ["file"],
            "type": ["creation"],
            "action": "creation",
            "outcome": "success",
            "module": "ssh_keywatch",
            "dataset": "ssh_keywatch.alerts",
            "created": "2026-09-21T14:13:20.001500Z",
            "sequence": 17
        },
        "file": {
            "path": "/home/alice/.ssh/id_ed25519.pub",
            "name": "id_ed25519.pub",
            "extension": "pub",
            "directory": "/home/alice/.ssh",
            "type": "file",
            "size": 411,
            "mode": "0600",
            "uid": "1000",
            "gid": "1000",
            "owner": "alice",
            "group": "alice",
            "inode": "4711",
            "mtime": "2026-09-21T14:13:20.002000Z",
            "ctime": "2026-09-21T14:13:20.003000Z",
            "created": "2026-09-21T14:13:20.001000Z"
        },
        "process": {
            "pid": 1200,
            "entity_id": entity(1200),
            "executable": "/usr/bin/ssh-keygen",
            "name": "ssh-keygen",
            "args_count": 3,
            "command_line": "ssh-keygen -t ed25519",
            "args": ["ssh-keygen", "-t", "ed25519"],
            "working_directory": "/home/alice",
            "start": "2026-09-21T14:13:20.001200Z",
            "user": alice,
            "group": alice,
            "real_user": alice,
            "real_group": alice,
            "thread": {"name": "comm"},
            "interactive": true,
            "tty": {"char_device": {"major": 136, "minor": 3}},
            "parent": {
                "pid": 900,
                "entity_id": entity(900),
                "executable": "/usr/bin/bash",
                "name": "bash",
                "args_count": 1,
                "command_line": "-bash",
                "args": ["-bash"],
                "working_directory": "/home/alice",
                "start": "2026-09-21T14:13:20.000900Z",
                "user": alice,
                "group": alice
            },
            "group_leader": {
                "pid": 1200,
                "entity_id": entity(1200),
                "executable": "/usr/bin/ssh-keygen",
                "name": "ssh-keygen",
                "start": "2026-09-21T14:13:20.001200Z",
                "same_as_process": true
            },
            "session_leader": {
                "pid": 900,
                "entity_id": entity(900),
                "executable": "/usr/bin/bash",
                "name": "bash",
                "start": "2026-09-21T14:13:20.000900Z",
                "same_as_process": false
            }
        },
        "user": alice,
        "group": alice,
        "host": {
            "id": "4c4c4544",
            "name": "web1.example.org",
            "hostname": "web1",
            "architecture": "x86_64",
            "boot": {"id": "b0071d"},
            "os": {
                "type": "linux",
                "kernel": "6.1.0-18-amd64",
                "name": "Debian GNU/Linux",
                "version": "12",
                "platform": "debian"
            }
        },
        "agent": {"type": "ssh-keywatch", "version": "0.1.0"},
        "ecs": {"version": "9.4.0"},
        "related": {"user": ["alice"], "hosts": ["web1.example.org", "web1"]},
        "ssh_keywatch": {
            "file": {"object_id": "fe01.81a2", "device": "64769", "links": 1},
            "session": {"tty": "pts/3", "login_uid": "1000", "audit_id": "7"},
            "mode": "fanotify+hold",
            "evidence": "fanotify",
            "attribution": {
                "method": "held",
                "certain": true,
                "image": "same",
                "device": "64768",
                "inode": "1311"
            },
            "ancestors": [
                {
                    "pid": 900,
                    "executable": "/usr/bin/bash",
                    "name": "bash",
                    "args": ["-bash"],
                    "user": alice,
                    "start": "2026-09-21T14:13:20.000900Z",
                    "entity_id": entity(900)
                },
                {
                    "pid": 1,
                    "executable": "/usr/lib/systemd/systemd",
                    "name": "systemd",
                    "args": ["/sbin/init"],
                    "user": {"id": "0", "name": "root"},
                    "start": "2026-09-21T14:13:20.000001Z",
                    "entity_id": entity(1)
                }
            ]
        }
    });
    let found = document();
    let keys: Vec<_> = found.as_map().keys().collect();
    assert_eq!(
        keys,
        expected.as_object().unwrap().keys().collect::<Vec<_>>()
    );
    assert_eq!(Value::Object(found.into_map()), expected);
}

#[test]
fn what_is_unknown_is_left_out() {
    let event = Event {
        facts: None,
        object_id: String::new(),
        evidence: Evidence::Scan,
        writer: nobody(),
        path: "/etc/ssh/x".into(),
        ..event()
    };
    let document = event_document(&event, &Origin::default());
    let expected = json!({
        "@timestamp": "2026-09-21T14:13:20.001500Z",
        "event": {
            "kind": "event",
            "category": ["file"],
            "type": ["creation"],
            "action": "creation",
            "outcome": "success",
            "module": "ssh_keywatch",
            "dataset": "ssh_keywatch.alerts",
            "created": "2026-09-21T14:13:20.001500Z",
            "sequence": 17
        },
        "file": {"path": "/etc/ssh/x", "name": "x", "directory": "/etc/ssh"},
        "host": {"os": {"type": "linux"}},
        "agent": {"type": "ssh-keywatch", "version": ""},
        "ecs": {"version": "9.4.0"},
        "ssh_keywatch": {
            "mode": "",
            "evidence": "scan",
            "attribution": {"method": "none", "certain": false}
        }
    });
    assert_eq!(Value::Object(document.into_map()), expected);
}

#[test]
fn a_rename_carries_both_names() {
    let document = event_document(
        &Event {
            action: Action::Rename,
            path: "/root/.ssh/known_hosts".into(),
            original_path: Some("/root/.ssh/known_hosts.Ab3".into()),
            ..event()
        },
        &origin(),
    );
    assert_eq!(document.get("event.type"), Some(&json!(["change"])));
    assert_eq!(
        document.get("file.Ext.original"),
        Some(&json!({
            "path": "/root/.ssh/known_hosts.Ab3",
            "name": "known_hosts.Ab3",
            "extension": "Ab3"
        }))
    );
    assert_eq!(document.get("file.extension"), None);
}

#[test]
fn the_final_name_of_a_temporary_file_is_told() {
    for (path, state) in [
        (FinalPath::Renamed("/etc/ssh/k".into()), "renamed"),
        (FinalPath::Expected("/etc/ssh/k".into()), "expected"),
    ] {
        let event = Event {
            final_path: Some(path),
            ..event()
        };
        assert_eq!(
            event_document(&event, &origin()).get("ssh_keywatch.file.final"),
            Some(&json!({"path": "/etc/ssh/k", "state": state}))
        );
    }
}

#[test]
fn a_path_that_is_not_utf8_is_kept_exactly() {
    let mut event = event();
    event.path = OsString::from_vec(b"/home/a/.ssh/k\xff.\xfe".to_vec()).into();
    event.original_path = Some(OsString::from_vec(b"/home/a/.ssh/o\xff".to_vec()).into());
    let process = event.writer.process.as_mut().unwrap();
    process.image.as_mut().unwrap().path = OsString::from_vec(b"/tmp/\xff".to_vec()).into();
    let document = event_document(&event, &origin());
    assert_eq!(document.str("file.path"), Some(r"/home/a/.ssh/k\xff.\xfe"));
    assert_eq!(document.str("file.extension"), Some(r"\xfe"));
    for (field, bytes) in [
        ("path_raw", &b"/home/a/.ssh/k\xff.\xfe"[..]),
        ("original_path_raw", b"/home/a/.ssh/o\xff"),
        ("executable_raw", b"/tmp/\xff"),
    ] {
        let raw = document.str(&format!("ssh_keywatch.{field}")).unwrap();
        let decoded = data_encoding::BASE64.decode(raw.as_bytes()).unwrap();
        assert_eq!(decoded, bytes, "{field}");
    }
    assert_eq!(self::document().get("ssh_keywatch.path_raw"), None);
}

#[test]
fn an_uncertain_writer_has_candidates_and_no_executable() {
    let mut event = event();
    event.writer.certain = false;
    event.writer.method = Method::Recorded;
    event.writer.process.as_mut().unwrap().image = None;
    event.writer.candidates = vec![
        image("/usr/bin/ssh-keygen"),
        Image {
            device: None,
            inode: None,
            state: Some(ImageState::Deleted),
            path: "/tmp/x".into(),
        },
    ];
    let document = event_document(&event, &origin());
    assert_eq!(document.get("process.executable"), None);
    assert_eq!(document.get("process.name"), None);
    assert_eq!(
        document.get("ssh_keywatch.attribution"),
        Some(&json!({
            "method": "recorded",
            "certain": false,
            "candidates": [
                {"executable": "/usr/bin/ssh-keygen", "image": "same", "device": "64768", "inode": "1311"},
                {"executable": "/tmp/x", "image": "deleted"}
            ]
        }))
    );
}

#[test]
fn a_parent_that_is_not_in_the_lineage_is_a_pid() {
    let mut event = event();
    event.writer.ancestors.remove(0);
    let document = event_document(&event, &origin());
    assert_eq!(document.get("process.parent"), Some(&json!({"pid": 900})));
    assert_eq!(
        document.get("process.session_leader"),
        Some(&json!({"pid": 900, "same_as_process": false}))
    );
}

#[test]
fn an_alert_adds_what_the_rule_says() {
    let document = document();
    let alert = alert(&document, &rule());
    let mut expected = json!({
        "@timestamp": "2026-09-21T14:13:20.001500Z",
        "message": "/usr/bin/ssh-keygen created /home/alice/.ssh/id_ed25519.pub as alice \
                    (pid 1200, parent /usr/bin/bash pid 900)",
        "event": {
            "kind": "alert",
            "id": alert.str("event.id").unwrap(),
            "code": "rule-1",
            "severity": 21,
            "risk_score": 21
        },
        "rule": {
            "id": "rule-1",
            "uuid": "rule-1",
            "name": "A key was made",
            "description": "Somebody made a key.",
            "author": ["The authors"],
            "license": "MIT",
            "ruleset": "ssh-keywatch",
            "reference": "https://example.org/a"
        },
        "threat": {
            "framework": "MITRE ATT&CK",
            "tactic": {
                "id": ["TA0003", "TA0008"],
                "name": ["Persistence", "Lateral Movement"],
                "reference": ["https://example.org/TA0003", "https://example.org/TA0008"]
            },
            "technique": {
                "id": ["T1098", "T1021"],
                "name": ["Account Manipulation", "Remote Services"],
                "reference": ["https://example.org/T1098", "https://example.org/T1021"],
                "subtechnique": {
                    "id": ["T1098.004", "T1021.004"],
                    "name": ["SSH Authorized Keys", "SSH"],
                    "reference": ["https://example.org/T1098.004", "https://example.org/T1021.004"]
                }
            }
        },
        "tags": ["OS: Linux"]
    });
    for (key, value) in document.as_map() {
        match (expected.get_mut(key).and_then(Value::as_object_mut), value) {
            (Some(inner), Value::Object(more)) => {
                for (key, value) in more.iter().filter(|(key, _)| *key != "kind") {
                    inner.insert(key.clone(), value.clone());
                }
            }
            _ => expected[key] = value.clone(),
        }
    }
    let keys: Vec<_> = alert.as_map().keys().collect();
    assert_eq!(
        keys[..6],
        ["@timestamp", "message", "event", "rule", "threat", "tags"]
    );
    assert_eq!(Value::Object(alert.into_map()), expected);
}

#[test]
fn the_same_creation_has_the_same_id_and_no_other_has() {
    let id = |event: &Event<Attribution>, rule: &Rule| {
        let alert = alert(&event_document(event, &origin()), rule);
        alert.str("event.id").unwrap().to_owned()
    };
    let first = id(&event(), &rule());
    assert_eq!(first.len(), 32);

    // Found again after a restart: another sequence, time, evidence, writer,
    // and the inode has changed since.
    let mut again = event();
    again.sequence = 1;
    again.time = at(9_999_999);
    again.evidence = Evidence::Scan;
    again.writer = nobody();
    again.facts.as_mut().unwrap().changed = at(5_000_000);
    assert_eq!(id(&again, &rule()), first);

    let mut others = Vec::new();
    for change in [
        |event: &mut Event<_>| event.path = "/home/alice/.ssh/id_ed25519".into(),
        |event: &mut Event<_>| event.action = Action::Modification,
        |event: &mut Event<_>| event.object_id = "fe01.81a3".into(),
        |event: &mut Event<_>| event.facts.as_mut().unwrap().created = Some(at(1_001)),
    ] {
        let mut event = event();
        change(&mut event);
        others.push(id(&event, &rule()));
    }
    let mut other_rule = rule();
    other_rule.id = "rule-2".into();
    others.push(id(&event(), &other_rule));
    others.push(first);
    let count = others.len();
    others.sort();
    others.dedup();
    assert_eq!(others.len(), count, "{others:?}");
}

#[test]
fn entity_ids_tell_processes_and_boots_apart() {
    let id = |pid: i32, ticks: u64, boot: &str| {
        let mut event = event();
        let process = event.writer.process.as_mut().unwrap();
        process.pid = pid;
        process.start_ticks = Some(ticks);
        let origin = Origin {
            boot_id: boot.into(),
            ..origin()
        };
        let document = event_document(&event, &origin);
        document.str("process.entity_id").unwrap().to_owned()
    };
    assert_eq!(id(1, 23, "b"), id(1, 23, "b"));
    assert_ne!(id(1, 23, "b"), id(12, 3, "b"));
    assert_ne!(id(1, 23, "b"), id(1, 24, "b"));
    assert_ne!(id(1, 23, "b"), id(1, 23, "c"));
}

#[test]
fn the_sentence_names_what_was_done() {
    let mut event = event();
    event.path = "/etc/ssh/ssh_host_rsa_key.Ab3dE5gH1j".into();
    event.final_path = Some(FinalPath::Expected("/etc/ssh/ssh_host_rsa_key".into()));
    assert_eq!(
        message(&event),
        "/usr/bin/ssh-keygen created /etc/ssh/ssh_host_rsa_key.Ab3dE5gH1j (to become \
         /etc/ssh/ssh_host_rsa_key) as alice (pid 1200, parent /usr/bin/bash pid 900)"
    );
    event.final_path = Some(FinalPath::Renamed("/etc/ssh/ssh_host_rsa_key".into()));
    assert!(message(&event).contains("(now /etc/ssh/ssh_host_rsa_key)"));

    event.final_path = None;
    event.path = "/root/.ssh/b".into();
    event.original_path = Some("/root/.ssh/a".into());
    event.action = Action::Rename;
    assert!(message(&event).contains(" renamed /root/.ssh/a to /root/.ssh/b as"));
    event.action = Action::Modification;
    assert!(message(&event).contains(" changed /root/.ssh/b as"));
    event.action = Action::Deletion;
    event.facts.as_mut().unwrap().kind = FileKind::Dir;
    assert!(message(&event).contains(" deleted the directory /root/.ssh/b as"));

    event.action = Action::Creation;
    let facts = event.facts.as_mut().unwrap();
    facts.kind = FileKind::Symlink;
    facts.target = Some("/tmp/k".into());
    assert!(
        message(&event).contains("created the symbolic link /root/.ssh/b that points to /tmp/k")
    );
}

#[test]
fn the_sentence_names_the_kind_of_key_where_it_is_known() {
    let mut document = document();
    document.set("ssh_keywatch.key.kind", "public");
    assert!(
        alert(&document, &rule())
            .str("message")
            .unwrap()
            .contains("created the public key /home/alice/.ssh/id_ed25519.pub as")
    );
}

#[test]
fn the_sentence_is_honest_about_the_writer() {
    let mut event = event();
    event.writer = nobody();
    assert_eq!(
        message(&event),
        "unknown program created /home/alice/.ssh/id_ed25519.pub"
    );

    event.writer = writer();
    event.writer.certain = false;
    assert!(message(&event).starts_with("probably /usr/bin/ssh-keygen created"));

    event.writer.process.as_mut().unwrap().image = None;
    assert!(message(&event).starts_with("unknown program created"));
    for (candidates, start) in [
        (vec!["/a"], "probably /a created"),
        (vec!["/a", "/a"], "probably /a created"),
        (vec!["/a", "/b"], "/a or /b created"),
        (vec!["/a", "/b", "/c"], "/a, /b or /c created"),
        (
            vec!["/a", "/b", "/c", "/d", "/e"],
            "/a, /b, /c or one of 2 other programs created",
        ),
    ] {
        event.writer.candidates = candidates.into_iter().map(image).collect();
        let message = message(&event);
        assert!(message.starts_with(start), "{message}");
    }

    event.writer = writer();
    for (state, words) in [
        (ImageState::Replaced, " (replaced since it started) created"),
        (ImageState::Foreign, " (of another mount namespace) created"),
        (ImageState::Deleted, " (deleted since it started) created"),
        (ImageState::Memfd, " (a program without a file) created"),
    ] {
        let process = event.writer.process.as_mut().unwrap();
        process.image.as_mut().unwrap().state = Some(state);
        assert!(message(&event).contains(words), "{}", message(&event));
    }
}

#[test]
fn the_sentence_says_as_whom() {
    let mut event = event();
    let process = event.writer.process.as_mut().unwrap();
    process.credentials.as_mut().unwrap().effective_user = account(0, "");
    assert!(message(&event).contains(" as uid 0, logged in as uid 1000 (pid 1200"));
    event.writer.ancestors.clear();
    assert!(message(&event).ends_with(" (pid 1200, parent pid 900)"));
    event.writer.process.as_mut().unwrap().parent_pid = None;
    assert!(message(&event).ends_with(" (pid 1200)"));
}

#[test]
fn a_name_cannot_forge_a_sentence_or_a_line() {
    let mut event = event();
    event.path = "/root/.ssh/x\n\u{1b}[2Jall is well\u{202e}".into();
    let alert = alert(&event_document(&event, &origin()), &rule());
    assert!(
        !alert
            .str("message")
            .unwrap()
            .contains(crate::text::is_unsafe)
    );
    // The value itself is exact; only its spelling in the line is safe.
    assert_eq!(alert.str("file.path"), event.path.to_str());
    let line = alert.to_line();
    assert!(!line.contains(crate::text::is_unsafe));
    assert_eq!(line, alert.to_string());
    let back: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(back, Value::Object(alert.into_map()));
}

#[test]
fn a_broken_clock_breaks_nothing() {
    let far = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 50);
    assert_eq!(value::time(far), "9999-12-30T22:00:00.999999Z");
    let early = SystemTime::UNIX_EPOCH - Duration::from_secs(1 << 50);
    assert!(value::time(early).starts_with("-009999-01-"));
}

fn started() -> Document {
    state(
        &State {
            time: at(0),
            change: Change::Start,
            outcome: Outcome::Success,
            reason: "3 rules, 5 directories",
            coverage: json!({"directories": 5}),
            counters: json!({"events": 0}),
        },
        &origin(),
    )
}

fn lost() -> Document {
    pipeline_error(
        &Loss {
            time: at(5),
            since: Some(at(1)),
            action: "lost",
            code: "queue_overflow",
            count: Some(12),
            reason: "the kernel's queue was full",
        },
        &origin(),
    )
}

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

/// Calls `check` with every leaf of a document: its dotted name, its value.
fn leaves(prefix: &str, value: &Value, check: &mut dyn FnMut(&str, &Value)) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let name = if prefix.is_empty() {
                    key.clone()
                } else {
                    format!("{prefix}.{key}")
                };
                leaves(&name, value, check);
            }
        }
        other => check(prefix, other),
    }
}

/// Every field that is not below `ssh_keywatch` or Elastic Defend's own
/// `file.Ext` is one of ECS, with its type, and a list where ECS says so.
#[test]
fn every_field_is_one_of_ecs() {
    let schema = include_str!("../rule/ecs-9.4.0.txt");
    let field = |name: &str| {
        let line = schema
            .lines()
            .find(|line| line.split(' ').next() == Some(name))?;
        let mut words = line.split(' ').skip(1);
        Some((words.next()?, words.next() == Some("array")))
    };
    let mut rename = event();
    rename.action = Action::Rename;
    rename.original_path = Some("/a/b.c".into());
    rename.facts.as_mut().unwrap().target = Some("/t".into());
    let rename = event_document(&rename, &origin());
    let mut seen = 0;
    for document in [alert(&rename, &rule()), started(), lost()] {
        leaves(
            "",
            &Value::Object(document.into_map()),
            &mut |name, value| {
                if name.starts_with("ssh_keywatch.") || name.starts_with("file.Ext.") {
                    return;
                }
                let (kind, list) = field(name).unwrap_or_else(|| panic!("{name} is not in ECS"));
                assert_eq!(value.is_array(), list, "{name} is a list in one of the two");
                let items = value.as_array().cloned().unwrap_or(vec![value.clone()]);
                for item in items {
                    let fits = match kind {
                        "keyword" | "wildcard" | "match_only_text" => item.is_string(),
                        "date" => item.as_str().unwrap().parse::<jiff::Timestamp>().is_ok(),
                        "long" => item.is_i64() || item.is_u64(),
                        "float" => item.is_number(),
                        "boolean" => item.is_boolean(),
                        other => panic!("{name} has the type {other}"),
                    };
                    assert!(fits, "{name} is {kind}, not {item}");
                }
                seen += 1;
            },
        );
    }
    assert!(seen > 100, "{seen} fields were checked");
}
