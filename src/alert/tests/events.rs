//! Events, before any rule.

use super::*;

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
fn a_broken_clock_breaks_nothing() {
    let far = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 50);
    assert_eq!(value::time(far), "9999-12-30T22:00:00.999999Z");
    let early = SystemTime::UNIX_EPOCH - Duration::from_secs(1 << 50);
    assert!(value::time(early).starts_with("-009999-01-"));
}
