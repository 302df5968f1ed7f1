//! What the modules' tests share, alerts, and the vocabulary of all documents.

mod events;
mod keys;
mod reference;
mod reports;
mod sentences;
mod sessions;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::*;
use crate::event::flood::{Counts, Flood};
use crate::event::{Action, Event, Evidence, FileFacts, FileKind, FinalPath, Mount};
use crate::resolve::{
    Account, Attribution, Credentials, Image, ImageState, KnownAs, KnownBy, Method, Process,
    ProgramFacts,
};
use crate::rule::{Limits, Overrides, Severity, Technique, Threat};

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
        degraded: Vec::new(),
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
        generation: None,
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
        cgroup: None,
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
        program: ProgramFacts::default(),
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
        accessed: at(2_500),
        modified: at(2_000),
        changed: at(3_000),
        created: Some(at(1_000)),
        target: None,
        mount: Some(Mount {
            point: "/home".into(),
            kind: "ext4".into(),
            source: "/dev/sda2".into(),
            read_only: false,
        }),
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
        program: ProgramFacts::default(),
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
        setup: None,
        investigation_fields: Vec::new(),
        building_block: false,
        overrides: Overrides::default(),
        limits: Limits::default(),
        query: "file where true".into(),
        file: PathBuf::from("/usr/share/r.toml"),
        ruleset: "ssh-keywatch".into(),
    }
}

fn document() -> Document {
    event_document(&event(), &origin())
}

#[test]
fn an_alert_adds_what_the_rule_says() {
    let document = document();
    let alert = alert(document.clone(), &rule());
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
    expected["ssh_keywatch"]["rule"] = json!({"references": ["https://example.org/b"]});
    assert_eq!(Value::Object(alert.into_map()), expected);
}

#[test]
fn the_same_creation_has_the_same_id_and_no_other_has() {
    let id = |event: &Event<Attribution>, rule: &Rule| {
        let alert = alert(event_document(event, &origin()), rule);
        alert.str("event.id").unwrap().to_owned()
    };
    let first = id(&event(), &rule());
    // Pinned: an id that changes with a version would double every alert.
    assert_eq!(first, "5abc23a4e87a4029e9cd020c098de959");

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

fn started() -> Document {
    state(
        &State {
            time: at(0),
            change: Change::Start,
            outcome: Outcome::Success,
            reason: "3 rules, 5 directories",
            coverage: json!({"directories": 5}),
            counters: json!({"events": 0}),
            changes: Value::Null,
        },
        &origin(),
    )
}

fn lost() -> Document {
    pipeline_error(
        &Loss {
            time: at(5),
            since: Some(at(1)),
            kind: LossKind::Lost,
            code: "queue_overflow",
            count: Some(12),
            reason: "the kernel's queue was full",
        },
        &origin(),
    )
}

fn flooded() -> Flood<Attribution> {
    Flood {
        home: Path::new("/home/alice").into(),
        since: at(1),
        until: at(5),
        counts: Counts {
            creations: 7000,
            renames: 2,
            modifications: 3,
            deletions: 4,
            opens: 1,
            records: 9,
        },
        over: true,
        writer: writer(),
    }
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
    let schema = include_str!("../../rule/ecs-9.4.0.txt");
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
    let mut rename = event_document(&rename, &origin());
    set_session(&mut rename, &sessions::session(), &origin());
    let mut seen = 0;
    for document in [alert(rename, &rule()), started(), lost()] {
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
                        "ip" => item.as_str().unwrap().parse::<std::net::IpAddr>().is_ok(),
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

/// What an event's document carries, rules and exceptions may ask for.
#[test]
fn rules_may_ask_for_every_field() {
    let mut full = event();
    full.original_path = Some("/a/b.c".into());
    full.final_path = Some(FinalPath::Renamed("/a/d".into()));
    full.writer.candidates = vec![image("/x")];
    let mut document = event_document(&full, &origin());
    set_session(&mut document, &sessions::session(), &origin());
    sessions::add_what_alerts_have(&mut document);
    let mut seen = 0;
    leaves(
        "",
        &Value::Object(document.into_map()),
        &mut |name, value| {
            let items = match value {
                Value::Array(items) => items.clone(),
                other => vec![other.clone()],
            };
            for item in items {
                leaves(name, &item, &mut |name, _| {
                    assert!(crate::rule::knows_field(name), "{name}");
                    seen += 1;
                });
            }
        },
    );
    assert!(seen > 80, "{seen} fields were checked");
}

/// What rules take for granted of some fields is so in every document.
#[test]
fn fields_with_few_values_have_no_others() {
    let actions = [
        Action::Creation,
        Action::Rename,
        Action::Modification,
        Action::Deletion,
    ];
    for action in actions {
        let document = event_document(&Event { action, ..event() }, &origin());
        let mut seen = 0;
        leaves(
            "",
            &Value::Object(document.into_map()),
            &mut |name, value| {
                if let Some(values) = crate::rule::known_values(name) {
                    let text = value.as_str().or_else(|| value[0].as_str()).unwrap();
                    assert!(values.contains(&text), "{name} is {text}");
                    seen += 1;
                }
            },
        );
        assert_eq!(seen, 6);
    }
}

/// From an event to an alert, through the shipped rules.
#[test]
fn the_seed_rule_alerts_on_what_ssh_keygen_makes() {
    let directories = crate::config::Rules::default().directories;
    let rules = crate::rule::RuleSet::load(&directories, true).unwrap();
    let alerts = |event: &Event<Attribution>| -> Vec<Document> {
        let document = event_document(event, &origin());
        let decision = rules.decide(&document, jiff::civil::date(2027, 1, 1));
        let matches = decision.matches.into_iter();
        matches.map(|rule| alert(document.clone(), rule)).collect()
    };
    let made = alerts(&event());
    assert_eq!(made.len(), 1);
    assert_eq!(
        made[0].str("rule.name"),
        Some("SSH Key Generated via ssh-keygen")
    );
    assert_eq!(
        made[0].get("threat.technique.subtechnique.id"),
        Some(&json!(["T1098.004", "T1021.004", "T1563.001"]))
    );

    for change in [
        |event: &mut Event<_>| event.path = "/home/a/.ssh/known_hosts.Xa12bc34de".into(),
        |event: &mut Event<_>| event.action = Action::Rename,
        |event: &mut Event<_>| event.writer = nobody(),
        |event: &mut Event<Attribution>| {
            let process = event.writer.process.as_mut().unwrap();
            process.image = Some(image("/usr/bin/cp"));
        },
        |event: &mut Event<Attribution>| event.writer.process.as_mut().unwrap().image = None,
    ] {
        let mut event = event();
        change(&mut event);
        assert!(alerts(&event).is_empty(), "{event:?}");
    }
}
