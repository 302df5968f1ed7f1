//! Events, before any rule.

use super::*;

/// The file also pins the ids of processes, which must not change from one
/// version to the next.
#[test]
fn an_event_in_full() {
    let expected: Value = serde_json::from_str(include_str!("event.json")).unwrap();
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
            generation: None,
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
fn a_program_that_is_known_by_another_name_keeps_its_own() {
    let mut event = event();
    let process = event.writer.process.as_mut().unwrap();
    process.image = Some(image("/tmp/vim"));
    event.writer.program.sha256 = Some("00ff".into());
    event.writer.program.known = Some(KnownAs {
        path: "/usr/bin/ssh-keygen".into(),
        by: KnownBy::Content,
    });
    let document = event_document(&event, &origin());
    assert_eq!(document.str("process.executable"), Some("/tmp/vim"));
    assert_eq!(document.str("process.hash.sha256"), Some("00ff"));
    let below = |name: &str| document.str(&format!("ssh_keywatch.attribution.{name}"));
    assert_eq!(below("known_as"), Some("/usr/bin/ssh-keygen"));
    assert_eq!(below("known_by"), Some("content"));
    let alert = alert(document.clone(), &rule());
    let sentence = alert.str("message").unwrap();
    let copy = "/tmp/vim (a copy of /usr/bin/ssh-keygen) created";
    assert!(sentence.starts_with(copy), "{sentence}");
}

#[test]
fn a_program_that_poses_as_another_is_told_by_its_own_name() {
    let mut event = event();
    let process = event.writer.process.as_mut().unwrap();
    process.image.as_mut().unwrap().path = "/tmp/evil".into();
    process.image.as_mut().unwrap().state = Some(ImageState::Replaced);
    event.writer.program.claimed = Some("/usr/bin/ssh-keygen".into());
    let document = event_document(&event, &origin());
    assert_eq!(document.str("process.executable"), Some("/tmp/evil"));
    let claimed = document.str("ssh_keywatch.attribution.claimed_executable");
    assert_eq!(claimed, Some("/usr/bin/ssh-keygen"));
    let alert = alert(document.clone(), &rule());
    let sentence = alert.str("message").unwrap();
    let posing = "/tmp/evil (posing as /usr/bin/ssh-keygen) created";
    assert!(sentence.starts_with(posing), "{sentence}");
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

#[test]
fn an_event_decides_what_its_rule_lets_it_decide() {
    let field = |name: &str| crate::eql::Field::new(name);
    let mut rule = rule();
    rule.building_block = true;
    rule.investigation_fields = vec!["user.name".into()];
    rule.overrides = Overrides {
        severity: vec![crate::rule::SeverityMapping {
            field: field("event.action").unwrap(),
            value: "creation".into(),
            severity: Severity::Critical,
        }],
        risk_score: field("process.args_count"),
        name: field("file.name"),
    };
    let document = event_document(&event(), &origin());
    let alert = alert(document.clone(), &rule);
    assert_eq!(alert.number("event.severity"), Some(99));
    assert_eq!(
        alert.number("event.risk_score"),
        document.number("process.args_count")
    );
    assert_eq!(alert.str("rule.name"), document.str("file.name"));
    assert_eq!(
        alert.get("ssh_keywatch.rule.building_block"),
        Some(&json!(true))
    );
    assert_eq!(
        alert.str("ssh_keywatch.rule.investigation_fields"),
        Some("user.name")
    );
}

#[test]
fn of_the_arguments_of_others_than_the_writer_only_the_first_are_told() {
    let script = "ä".repeat(40_000);
    let args = vec!["sh".into(), "-c".into(), script.into(), "last".into()];
    let mut event = event();
    let all: usize = event
        .writer
        .ancestors
        .iter_mut()
        .chain(event.writer.process.as_mut())
        .map(|process| process.args = Some(args.clone()))
        .count();
    let document = event_document(&event, &origin());
    let of_the_writer = document.get("process.args").unwrap().as_array().unwrap();
    assert_eq!(of_the_writer.len(), 4);
    assert_eq!(of_the_writer[2].as_str().unwrap().len(), 80_000);
    let check = |args: &Value| {
        let args = args.as_array().unwrap();
        assert_eq!(args.len(), 3, "{args:?}");
        let cut = args[2].as_str().unwrap();
        assert!(cut.ends_with("ä…"), "{cut}");
        assert!((1000..1050).contains(&cut.len()), "{}", cut.len());
    };
    check(document.get("process.parent.args").unwrap());
    assert_eq!(document.number("process.parent.args_count"), Some(4));
    let ancestors = document.get("ssh_keywatch.ancestors").unwrap();
    let ancestors = ancestors.as_array().unwrap();
    assert_eq!(ancestors.len() + 1, all);
    for ancestor in ancestors {
        check(&ancestor["args"]);
    }
}
