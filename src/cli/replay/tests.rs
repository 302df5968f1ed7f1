//! Every shape of recorded event, from file to alert.

use std::fs;

use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::config;

struct Replayed {
    exit: Exit,
    counts: Counts,
    alerts: Vec<Value>,
    summary: String,
}

impl Replayed {
    /// The lines of the alerts.
    fn lines(&self) -> Vec<u64> {
        let line = |alert: &Value| alert["ssh_keywatch"]["replay"]["line"].as_u64().unwrap();
        self.alerts.iter().map(line).collect()
    }
}

fn replay_with(rules: RuleSet, source: Option<Source>, files: &[(&str, &[u8])]) -> Replayed {
    replay_as(rules, source, files, false)
}

fn replay_as(
    rules: RuleSet,
    source: Option<Source>,
    files: &[(&str, &[u8])],
    suppress: bool,
) -> Replayed {
    let directory = TempDir::new().unwrap();
    let mut paths = Vec::new();
    for (name, bytes) in files {
        let path = directory.path().join(name);
        fs::write(&path, bytes).unwrap();
        paths.push(path);
    }
    let args = ReplayArgs {
        files: paths.clone(),
        source,
        suppress,
    };
    let progress = Progress::new(None, false);
    let today = jiff::civil::date(2027, 3, 31);
    let mut out = Vec::new();
    let mut replay = Replay::new(rules, today, &args, &mut out, progress);
    for path in &paths {
        replay.file(path).unwrap();
    }
    replay.out.flush().unwrap();
    let (exit, summary) = (replay.exit(), replay.summary());
    let counts = std::mem::take(&mut replay.counts);
    drop(replay);
    let alerts = std::str::from_utf8(&out).unwrap().lines();
    Replayed {
        exit,
        counts,
        alerts: alerts
            .map(|line| serde_json::from_str(line).unwrap())
            .collect(),
        summary,
    }
}

fn rules() -> RuleSet {
    RuleSet::load_with(&config::Rules::default().directories, true, Fields::Any).unwrap()
}

fn replay(text: &str) -> Replayed {
    replay_with(rules(), None, &[("events.json", text.as_bytes())])
}

/// As Elastic Defend records ssh-keygen.
fn defend() -> Value {
    json!({
        "@timestamp": "2026-11-03T10:11:12.123Z",
        "data_stream": {"dataset": "endpoint.events.file"},
        "event": {"module": "endpoint", "category": ["file"], "type": ["creation"], "action": "creation", "id": "Nf+1"},
        "host": {"id": "h1", "os": {"type": "linux"}},
        "file": {"path": "/home/a/.ssh/id_ed25519", "name": "id_ed25519"},
        "process": {"executable": "/usr/bin/ssh-keygen", "name": "ssh-keygen", "pid": 7},
        "user": {"name": "a"}
    })
}

fn other() -> Value {
    let mut other = defend();
    other["process"]["executable"] = json!("/usr/bin/cp");
    other
}

#[test]
fn what_the_answers_leave_out_is_told() {
    let directory = TempDir::new().unwrap();
    let rule =
        "[rule]\nrule_id = 'k'\nname = 'Mine'\ntype = 'query'\nseverity = 'low'\nquery = 'x'\n";
    fs::write(directory.path().join("mine.toml"), rule).unwrap();
    let directories = [directory.path().to_owned()];
    let rules = RuleSet::load_with(&directories, false, Fields::Any).unwrap();
    let exception = |rule: &str, more: &str| {
        format!(
            "[[exception]]\nrule = \"{rule}\"\nwhen = 'user.id == \"0\"'\nreason = \"r\"\n{more}"
        )
    };
    let text = exception("nobody's", "") + &exception("*", "expires = 2020-01-01\n");
    let config = config::Config::parse(&text, Path::new("c.toml")).unwrap();
    let rules = rules.with_exceptions(&config.exceptions).unwrap();
    let told = unasked(&rules, jiff::civil::date(2027, 3, 31));
    let file = directory.path().join("mine.toml").display().to_string();
    assert_eq!(
        told,
        [
            format!("the rule Mine ({file}) is skipped: of type query; only eql rules run here"),
            "the exception for nobody's does nothing: there is no such rule".to_owned(),
            "the exception for * expired on 2020-01-01, and is ignored".to_owned(),
        ]
    );
}

#[test]
fn documents_of_elastic_defend_one_a_line() {
    let replayed = replay(&format!("{}\n\n{}\n{}\n", other(), defend(), other()));
    assert_eq!(replayed.exit, Exit::Ok);
    assert_eq!(
        (
            replayed.counts.events,
            replayed.counts.sources[&Source::Defend]
        ),
        (3, 3)
    );
    let [alert] = replayed.alerts.as_slice() else {
        panic!("{:?}", replayed.alerts);
    };
    assert_eq!(alert["ssh_keywatch"]["replay"]["line"], 3);
    let file = alert["ssh_keywatch"]["replay"]["file"].as_str().unwrap();
    assert!(file.ends_with("/events.json"), "{file}");
    assert_eq!(alert["ssh_keywatch"]["replay"]["event_id"], "Nf+1");
    assert_eq!(alert["event"]["kind"], "alert");
    assert_eq!(alert["event"]["severity"], 21);
    assert_eq!(alert["rule"]["name"], "SSH Key Generated via ssh-keygen");
    assert_eq!(
        alert["message"],
        "/usr/bin/ssh-keygen created /home/a/.ssh/id_ed25519 as a (pid 7)"
    );
    // The recorded event is all there.
    for pointer in [
        "/@timestamp",
        "/event/module",
        "/file/name",
        "/process/pid",
        "/host/id",
    ] {
        assert_eq!(
            alert.pointer(pointer),
            defend().pointer(pointer),
            "{pointer}"
        );
    }
    assert!(
        replayed.summary.starts_with("3 events in "),
        "{}",
        replayed.summary
    );
    assert!(
        replayed.summary.contains(": 1 alert\n"),
        "{}",
        replayed.summary
    );
    assert!(
        replayed.summary.ends_with("from 3 Elastic Defend\n"),
        "{}",
        replayed.summary
    );
}

#[test]
fn documents_of_elastic_endgame_and_dotted_ones() {
    let endgame = json!({
        "event.module": "endgame", "event.category": "file", "event.type": ["creation"], "event.action": "file_create_event",
        "host.os.type": "linux", "file.path": "/root/.ssh/id_rsa", "file.name": "id_rsa",
        "process": {"executable": "/usr/bin/ssh-keygen"}
    });
    let replayed = replay(&format!("{endgame}\n"));
    assert_eq!(replayed.counts.sources[&Source::Endgame], 1);
    let alert = &replayed.alerts[0];
    // Nested, as every alert is.
    assert_eq!(alert["file"]["path"], "/root/.ssh/id_rsa");
    assert_eq!(
        alert["message"],
        "/usr/bin/ssh-keygen created /root/.ssh/id_rsa"
    );
    assert_eq!(alert["event"]["action"], "file_create_event");
}

#[test]
fn both_words_for_creation_are_understood_as_the_rule_writes_them() {
    let mut lines = String::new();
    for action in [
        json!("creation"),
        json!("file_create_event"),
        json!(["creation"]),
        json!("rename"),
        json!("Creation"),
    ] {
        let mut event = defend();
        event["event"]["action"] = action;
        lines.extend([event.to_string().as_str(), "\n"]);
    }
    assert_eq!(replay(&lines).lines(), [1, 2, 3]);
}

#[test]
fn hits_of_every_export() {
    let hit = |id: u32, source: &Value| json!({"_index": "logs-endpoint.events.file-default", "_id": id.to_string(), "_source": source});
    let response = json!({
        "took": 1, "timed_out": false,
        "hits": {"total": {"value": 3}, "hits": [hit(1, &other()), hit(2, &defend()), hit(3, &defend())]}
    });
    let fields = json!({"_index": "i", "_id": "1", "fields": {
        "event.category": ["file"], "event.action": ["creation"], "host.os.type": ["linux"],
        "process.executable": ["/usr/bin/ssh-keygen"], "file.path": ["/etc/ssh/ssh_host_rsa_key"], "file.name": ["ssh_host_rsa_key"]
    }});
    let bulk = format!(
        "{}\n{}\n{}\n{}\n{}\n{}\n{}\n",
        json!({"index": {"_index": "i", "_id": "1"}}),
        defend(),
        json!({"create": {}}),
        other(),
        json!({"delete": {"_index": "i", "_id": "2"}}),
        json!({"update": {"_id": "3", "retry_on_conflict": 3}}),
        json!({"doc": defend()}),
    );
    let pretty = serde_json::to_string_pretty(&response).unwrap();
    let path = pretty
        .lines()
        .enumerate()
        .filter(|(_, line)| line.trim_start() == "{");
    // The braces of the three hits follow those of the response itself.
    let begin: Vec<u64> = path.map(|(index, _)| index as u64 + 1).skip(1).collect();
    for (what, text, events, lines) in [
        (
            "elasticdump",
            format!("{}\n{}\n", hit(1, &other()), hit(2, &defend())),
            2,
            vec![2],
        ),
        (
            "a response on one line",
            format!("{response}\n"),
            3,
            vec![1, 1],
        ),
        (
            "scroll pages",
            format!("{response}\n{response}\n"),
            6,
            vec![1, 1, 2, 2],
        ),
        (
            "a response, pretty-printed",
            pretty.clone(),
            3,
            begin[1..].to_vec(),
        ),
        ("two of them", format!("{pretty}\n{pretty}\n"), 6, {
            let second = pretty.lines().count() as u64;
            let again = begin[1..].iter().map(|line| line + second);
            begin[1..].iter().copied().chain(again).collect()
        }),
        (
            "a list",
            format!("[{},\n{}]\n", other(), defend()),
            2,
            vec![2],
        ),
        ("bulk", bulk, 3, vec![2, 7]),
        (
            "fields instead of a source",
            format!("{fields}\n"),
            1,
            vec![1],
        ),
    ] {
        let replayed = replay(&text);
        assert_eq!(replayed.lines(), lines, "{what}");
        assert_eq!(replayed.counts.events, events, "{what}");
        assert_eq!(replayed.exit, Exit::Ok, "{what}");
    }
}

#[test]
fn sentinel_one_through_the_integration() {
    let mut event = json!({
        "data_stream": {"dataset": "sentinel_one_cloud_funnel.event"},
        "event": {"category": ["file"], "type": ["creation"], "action": ["creation"]},
        "host": {"os": {"type": "linux"}},
        "file": {"path": "/home/a/.ssh/id_rsa", "name": "id_rsa"},
        "process": {"executable": "/usr/bin/ssh-keygen"},
        "sentinel_one_cloud_funnel": {"event": {"type": "File Creation", "endpoint": {"os": "linux"}}}
    });
    let with_type = event.to_string();
    event["host"]["os"] = json!({"platform": "Linux"});
    let with_platform = event.to_string();
    event.as_object_mut().unwrap().remove("host");
    event.as_object_mut().unwrap().remove("data_stream");
    let native_only = event.to_string();
    event["sentinel_one_cloud_funnel"]["event"]["endpoint"]["os"] = json!("windows");
    let replayed = replay(&format!(
        "{with_type}\n{with_platform}\n{native_only}\n{event}\n"
    ));
    assert_eq!(replayed.lines(), [1, 2, 3]);
    assert_eq!(replayed.counts.sources[&Source::SentinelOne], 4);
    assert_eq!(
        replayed.alerts[0]["message"],
        "/usr/bin/ssh-keygen created /home/a/.ssh/id_rsa"
    );
}

fn raw() -> Value {
    json!({
        "event.category": "file", "event.type": "File Creation", "meta.event.name": "FILECREATION",
        "event.time": 1_762_164_672_123_i64, "event.id": "01J_1", "endpoint.os": "linux", "endpoint.name": "web-17",
        "tgt.file.path": "/home/a/.ssh/id_rsa.pub", "tgt.file.size": "566", "tgt.file.sha256": "ab",
        "src.process.image.path": "/usr/bin/ssh-keygen", "src.process.name": "ssh-keygen",
        "src.process.cmdline": "ssh-keygen -t rsa", "src.process.pid": 4711, "src.process.user": "a",
        "src.process.startTime": 1_762_164_672_000_i64,
        "src.process.parent.image.path": "/usr/bin/bash", "src.process.parent.pid": 4700
    })
}

#[test]
fn raw_lines_of_sentinel_one_are_mapped() {
    let replayed = replay(&format!("{}\n", raw()));
    assert_eq!(replayed.counts.sources[&Source::SentinelOneRaw], 1);
    let alert = &replayed.alerts[0];
    for (pointer, value) in [
        ("/@timestamp", json!("2025-11-03T10:11:12.123Z")),
        ("/event/category", json!(["file"])),
        ("/event/action", json!(["creation"])),
        ("/event/type", json!(["creation"])),
        ("/host/os/type", json!("linux")),
        ("/host/name", json!("web-17")),
        ("/file/path", json!("/home/a/.ssh/id_rsa.pub")),
        ("/file/directory", json!("/home/a/.ssh")),
        ("/file/name", json!("id_rsa.pub")),
        ("/file/extension", json!("pub")),
        ("/file/size", json!(566)),
        ("/file/hash/sha256", json!("ab")),
        ("/process/executable", json!("/usr/bin/ssh-keygen")),
        ("/process/command_line", json!("ssh-keygen -t rsa")),
        ("/process/pid", json!(4711)),
        ("/process/start", json!("2025-11-03T10:11:12.000Z")),
        ("/process/parent/executable", json!("/usr/bin/bash")),
        ("/process/parent/pid", json!(4700)),
        ("/user/name", json!("a")),
        ("/ssh_keywatch/replay/event_id", json!("01J_1")),
        (
            "/message",
            json!(
                "/usr/bin/ssh-keygen created /home/a/.ssh/id_rsa.pub as a (pid 4711, parent /usr/bin/bash pid 4700)"
            ),
        ),
    ] {
        assert_eq!(alert.pointer(pointer), Some(&value), "{pointer}");
    }
    let original: Value =
        serde_json::from_str(alert["event"]["original"].as_str().unwrap()).unwrap();
    assert_eq!(original, raw());
}

#[test]
fn raw_actions_have_ecs_names() {
    for (name, action, kind) in [
        ("File Modification", "modification", "change"),
        ("File Deletion", "deletion", "deletion"),
        ("FILERENAME", "rename", "change"),
    ] {
        let mut line = raw();
        line["event.type"] = json!(name);
        line["tgt.file.oldPath"] = json!("/tmp/.x");
        let event =
            source::event(line.as_object().unwrap().clone(), Source::SentinelOneRaw).unwrap();
        assert_eq!(
            (event.str("event.action"), event.str("event.type")),
            (Some(action), Some(kind))
        );
        assert_eq!(event.str("file.Ext.original.path"), Some("/tmp/.x"));
        assert_eq!(event.str("file.Ext.original.name"), Some(".x"));
        assert_eq!(event.get("file.Ext.original.extension"), None);
    }
    let process = json!({"event.category": "process", "event.type": "Process Creation", "src.process.image.path": "/bin/x"});
    let event =
        source::event(process.as_object().unwrap().clone(), Source::SentinelOneRaw).unwrap();
    assert_eq!(
        (event.str("event.category"), event.str("event.action")),
        (Some("process"), Some("process creation"))
    );
}

#[test]
fn a_source_that_is_named_is_taken_at_its_word() {
    // Nested, and without the fields by which raw lines are recognised.
    let line = json!({
        "event": {"type": "File Creation"}, "endpoint": {"os": "linux"},
        "tgt": {"file": {"path": "/root/.ssh/id_rsa"}}, "src": {"process": {"image": {"path": "/usr/bin/ssh-keygen"}}}
    });
    let file = [("e", line.to_string().into_bytes())];
    let files: Vec<(&str, &[u8])> = file
        .iter()
        .map(|(name, bytes)| (*name, bytes.as_slice()))
        .collect();
    assert_eq!(
        replay_with(rules(), Some(Source::SentinelOneRaw), &files).lines(),
        [1]
    );
    let unnamed = replay_with(rules(), None, &files);
    assert_eq!((unnamed.alerts.len(), unnamed.exit), (0, Exit::Found));
}

#[test]
fn our_own_log_gives_the_same_alerts_again() {
    let mut event = defend();
    event["event"]["module"] = json!("ssh_keywatch");
    event["event"]["created"] = json!("2026-11-03T10:11:12.123456Z");
    event["event"]["sequence"] = json!(9);
    event["event"].as_object_mut().unwrap().remove("id");
    event.as_object_mut().unwrap().remove("data_stream");
    let event: Document = event.as_object().unwrap().clone().into();
    let set = rules();
    let rule = set
        .rules()
        .find(|rule| rule.name == "SSH Key Generated via ssh-keygen")
        .unwrap();
    let logged = alert::alert(event.clone(), rule);
    let mut by_another = logged.clone();
    by_another.set("rule.id", "another");
    by_another.set("threat.tactic.id", vec!["TA0001"]);
    let state = json!({"event": {"kind": "state", "module": "ssh_keywatch", "category": ["file"], "action": "start"}});
    let replayed = replay(&format!("{state}\n{logged}\n{by_another}\n"));
    assert_eq!(replayed.lines(), [2]);
    assert_eq!((replayed.counts.events, replayed.counts.flawed), (1, 0));
    let mut again = replayed.alerts[0].clone();
    again["ssh_keywatch"]
        .as_object_mut()
        .unwrap()
        .remove("replay");
    assert_eq!(again, Value::Object(logged.into_map()));
}

#[test]
fn bad_lines_are_counted_and_skipped() {
    let torn = &defend().to_string()[..100];
    let text = format!("{}\nno json\n{torn}\n\u{0}\n{}\n[]\n", other(), defend());
    let mut bytes = text.into_bytes();
    bytes.extend(b"{\"a\":\"\xff\"}\n");
    let replayed = replay_with(rules(), None, &[("e", &bytes)]);
    assert_eq!(replayed.lines(), [5]);
    assert_eq!((replayed.counts.events, replayed.counts.flawed), (2, 5));
    assert_eq!(replayed.exit, Exit::Found);
    assert!(
        replayed.summary.contains("1 alert, 5 not readable\n"),
        "{}",
        replayed.summary
    );
}

#[test]
fn a_file_that_cannot_be_read_stops_no_other() {
    let directory = TempDir::new().unwrap();
    let files = vec![
        directory.path().join("missing"),
        directory.path().to_owned(),
        directory.path().join("e"),
    ];
    fs::write(&files[2], defend().to_string()).unwrap();
    let args = ReplayArgs {
        files: files.clone(),
        source: None,
        suppress: false,
    };
    let mut out = Vec::new();
    let mut replay = Replay::new(
        rules(),
        super::super::today(),
        &args,
        &mut out,
        Progress::new(None, false),
    );
    for file in &files {
        replay.file(file).unwrap();
    }
    assert_eq!(
        (
            replay.counts.unreadable,
            replay.counts.alerts,
            replay.exit()
        ),
        (2, 1, Exit::Found)
    );
}

#[test]
fn nothing_found_says_so() {
    let replayed = replay(&format!("{}\n", other()));
    assert_eq!((replayed.exit, replayed.alerts.len()), (Exit::Found, 0));
}

#[test]
fn exceptions_hold_as_they_do_in_the_daemon() {
    let config = config::Config::parse(
        "[[exception]]\nrule = '*'\nwhen = 'user.name == \"a\"'\nreason = 'r'\n",
        Path::new("c.toml"),
    )
    .unwrap();
    let set = rules().with_exceptions(&config.exceptions).unwrap();
    let replayed = replay_with(set, None, &[("e", defend().to_string().as_bytes())]);
    assert_eq!((replayed.counts.excepted, replayed.alerts.len()), (1, 0));
}

#[test]
fn alerts_that_cannot_be_written_end_it() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("e");
    fs::write(&file, format!("{}\n", defend()).repeat(50)).unwrap();
    let args = ReplayArgs {
        files: vec![file.clone()],
        source: None,
        suppress: false,
    };
    let mut replay = Replay::new(
        rules(),
        super::super::today(),
        &args,
        Full,
        Progress::new(None, false),
    );
    let error = replay
        .file(&file)
        .and_then(|()| replay.out.flush())
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn suppression_is_off_unless_asked_for() {
    let mut text = String::new();
    for number in 0..150 {
        let mut event = defend();
        event["@timestamp"] = json!(format!(
            "2026-11-03T10:00:{:02}.{:03}Z",
            number / 1000,
            number % 1000
        ));
        text.extend([event.to_string().as_str(), "\n"]);
    }
    let file: [(&str, &[u8]); 1] = [("e", text.as_bytes())];
    // The shipped rule with Elastic's own cap.
    let shipped = include_str!("../../../packaging/rules/ssh_key_generated_via_ssh_keygen.toml");
    let dir = tempfile::tempdir().unwrap();
    let capped = shipped.replace("max_signals = 10000", "max_signals = 100");
    fs::write(dir.path().join("capped.toml"), capped).unwrap();
    let rules = || RuleSet::load(&[dir.path().to_owned()], false).unwrap();
    assert_eq!(replay_as(rules(), None, &file, false).alerts.len(), 150);
    let suppressed = replay_as(rules(), None, &file, true);
    assert_eq!(suppressed.alerts.len(), 100, "max_signals");
    assert!(
        suppressed.summary.contains("100 alerts, 50 suppressed\n"),
        "{}",
        suppressed.summary
    );
}

/// Found by fuzzing: objects for each dot of a name could not be read again,
/// and with some more dots would have been too deep for the stack.
#[test]
fn names_with_any_number_of_dots_are_left_as_they_are() {
    for dots in [200, 200_000] {
        let mut event = defend();
        event["x".to_owned() + &".".repeat(dots)] = json!(1);
        let replayed = replay(&format!("{event}\n"));
        assert_eq!((replayed.lines(), replayed.exit), (vec![1], Exit::Ok));
    }
}
