//! Operators.

use serde_json::{Value as Json, json};

use crate::eql::ast::{Pipe, Truth};
use crate::eql::{Condition, Field, Query};

/// The rule that the project exists for.
const SSH_KEYGEN: &str = r#"
file where host.os.type == "linux" and event.action in ("creation", "file_create_event") and
process.executable == "/usr/bin/ssh-keygen" and file.path : ("/home/*/.ssh/*", "/root/.ssh/*", "/etc/ssh/*") and
not file.name : "known_hosts.*"
"#;

#[track_caller]
fn decides(event: &Json, cases: &[(&str, bool)]) {
    for (source, expected) in cases {
        let condition = Condition::parse(source)
            .unwrap_or_else(|error| panic!("{}", error.render(source, "test")));
        assert_eq!(condition.matches(event), *expected, "{source}");
    }
}

fn event() -> Json {
    json!({
        "@timestamp": "2026-01-01T00:00:00Z",
        "event": { "category": ["file"], "type": ["creation", "change"], "action": "creation" },
        "process": {
            "pid": 4711, "name": "Ssh-Keygen", "args": ["ssh-keygen", "-t", "ed25519"],
            "args_count": 3, "interactive": true, "parent": { "args_count": 2 }
        },
        "file": { "path": "/home/a/.ssh/id_rsa", "name": "id_rsa", "size": 411, "extension": null },
        "user": { "id": "0", "groups": [] },
        "ratio": 2.5,
        "empty": "",
        "my-field": { "6th part": "x" },
        "win": r"*\red\x.exe",
    })
}

fn creation() -> Json {
    json!({
        "event": { "category": ["file"], "action": "creation" },
        "host": { "os": { "type": "linux" } },
        "process": { "executable": "/usr/bin/ssh-keygen" },
        "file": { "path": "/home/a/.ssh/id_ed25519", "name": "id_ed25519" },
    })
}

#[test]
fn the_seed_rule_matches_what_it_must() {
    let query = Query::parse(SSH_KEYGEN).unwrap();
    assert_eq!(query.category(), Some("file"));
    assert!(query.matches(&creation()));
    let changes = [
        ("/file/path", json!("/root/.ssh/id_rsa")),
        ("/file/path", json!("/etc/ssh/ssh_host_rsa_key")),
        ("/file/path", json!("/home/a/b/.ssh/c/d")),
        ("/file/path", json!("/HOME/a/.SSH/x")),
        ("/file/name", json!("known_hosts")),
        ("/file/name", Json::Null),
        ("/event/action", json!("file_create_event")),
        ("/event/action", json!(["creation"])),
        ("/event/category", json!("file")),
        ("/event/category", json!(["iam", "file"])),
    ];
    for (pointer, value) in changes {
        let mut event = creation();
        *event.pointer_mut(pointer).unwrap() = value;
        assert!(query.matches(&event), "{event}");
    }
}

#[test]
fn the_seed_rule_leaves_alone_what_it_must() {
    let query = Query::parse(SSH_KEYGEN).unwrap();
    let changes = [
        ("/host/os/type", json!("windows")),
        ("/host/os/type", json!("Linux")),
        ("/host/os/type", Json::Null),
        ("/event/action", json!("modification")),
        ("/event/action", json!([])),
        ("/event/category", json!(["process"])),
        ("/event/category", json!("File")),
        ("/event/category", Json::Null),
        ("/process/executable", json!("/usr/bin/ssh")),
        ("/process/executable", json!("/USR/bin/ssh-keygen")),
        ("/process/executable", Json::Null),
        ("/file/path", json!("/home/a/ssh/id_rsa")),
        ("/file/path", json!("/tmp/home/a/.ssh/id_rsa")),
        ("/file/path", Json::Null),
        ("/file/name", json!("known_hosts.old")),
        ("/file/name", json!("KNOWN_HOSTS.x")),
    ];
    for (pointer, value) in changes {
        let mut event = creation();
        *event.pointer_mut(pointer).unwrap() = value;
        assert!(!query.matches(&event), "{event}");
    }
}

#[test]
fn equality_is_exact() {
    decides(
        &event(),
        &[
            (r#"file.name == "id_rsa""#, true),
            (r#"file.name == "ID_RSA""#, false),
            (r#"file.name == "id_*""#, false),
            (r#"file.name != "id_*""#, true),
            (r#""id_rsa" == file.name"#, true),
            ("process.pid == 4711", true),
            ("process.pid == 4711.0", true),
            ("process.pid != 4711", false),
            ("4711 == process.pid", true),
            ("process.interactive == true", true),
            ("process.interactive == false", false),
            ("process.interactive", true),
            ("not process.interactive", false),
            (r#"empty == """#, true),
            (r#"`my-field`.`6th part` == "x""#, true),
            (r#"@timestamp : "2026-*""#, true),
            (r#"win : "*\\red\\x.*""#, true),
            (r#"win : """*\red\x.*""""#, true),
            ("1 == 1", true),
            (r#""a" == "b""#, false),
            ("true", true),
            ("false or true", true),
        ],
    );
}

#[test]
fn the_constant_decides_the_type() {
    decides(
        &json!({ "id": 0, "pid": "17", "flag": "true", "real": 42.5, "big": u64::MAX, "word": "x" }),
        &[
            (r#"id == "0""#, true),
            (r#"id in ("0", "1")"#, true),
            (r#"id : "?""#, true),
            ("pid == 17", true),
            ("pid in (16, 17)", true),
            ("pid > 9", true),
            (r#"pid > "9""#, false),
            ("flag", true),
            ("flag == true", true),
            (r#"real == "42.5""#, true),
            ("big > 9223372036854775807", true),
            ("big == 18446744073709551615", true),
            ("word == 1", false),
            ("word != 1", true),
            ("word", false),
        ],
    );
}

#[test]
fn ordering() {
    decides(
        &event(),
        &[
            ("process.pid < 4711", false),
            ("process.pid <= 4711", true),
            ("process.pid > 4710.5", true),
            ("process.pid >= 4711.5", false),
            ("4710 < process.pid", true),
            ("4711 > process.pid", false),
            (r#"file.name < "id_rsb""#, true),
            (r#"file.name < "ID""#, false),
            ("ratio > 2", true),
            ("ratio < 3", true),
            ("process.pid > -1", true),
            ("9007199254740993 > 9007199254740992.0", true),
        ],
    );
}

#[test]
fn lists_and_wildcards() {
    decides(
        &event(),
        &[
            (r#"file.name in ("id_dsa", "id_rsa")"#, true),
            (r#"file.name in ("id_*")"#, false),
            (r#"file.name in ("ID_RSA")"#, false),
            (r#"file.name in~ ("ID_RSA")"#, true),
            (r#"file.name in~ ("ID_*")"#, false),
            (r#"file.name not in ("id_rsa")"#, false),
            (r#"file.name not in~ ("ID_RSA")"#, false),
            (r#"file.name not in ("ID_RSA")"#, true),
            ("process.pid in (1, 4711)", true),
            ("process.pid in (1, 4710 + 1)", true),
            ("process.pid not in (1, 2)", true),
            ("process.interactive in (true)", true),
            (r#"file.name : "ID_?SA""#, true),
            (r#"file.name : ("x", "ID*")"#, true),
            (r#"file.name like "id_*""#, true),
            (r#"file.name like "ID_*""#, false),
            (r#"file.name like~ "ID_*""#, true),
            (r#"file.name like ("x", "*rsa")"#, true),
            (r#"file.path : "/home/*/.ssh/*""#, true),
            (r#"file.name regex "id_[dr]sa""#, true),
            (r#"file.name regex "id_""#, false),
            (r#"file.name regex "ID_.*""#, false),
            (r#"file.name regex~ "ID_.*""#, true),
            (r#"file.name regex ("x", "id.{4}")"#, true),
            (r#"file.name regex ("id", "rsa")"#, false),
        ],
    );
}

#[test]
fn a_missing_field_is_false_and_its_negation_true() {
    decides(
        &event(),
        &[
            (r#"gone == "x""#, false),
            (r#"gone != "x""#, true),
            (r#"not gone == "x""#, true),
            (r#"not gone != "x""#, false),
            (r#"gone in ("x")"#, false),
            (r#"gone not in ("x")"#, true),
            (r#"gone : "*""#, false),
            (r#"not gone : "*""#, true),
            ("gone < 1", false),
            ("not gone < 1", true),
            ("gone", false),
            ("not gone", true),
            ("gone == null", true),
            ("gone != null", false),
            ("null == gone", true),
            ("file.name == null", false),
            ("file.name != null", true),
            ("file.extension == null", true),
            ("user.groups == null", true),
            ("empty == null", false),
            ("file == null", true),
            ("?gone == null", true),
            (r#"?gone.further : "x" or ?file.name : "id_rsa""#, true),
            (r#"startsWith(gone, "x")"#, false),
            (r#"not startsWith(gone, "x")"#, true),
            (r#"startsWith(gone, "x") == null"#, true),
            (r#"startsWith(gone, "x") == false"#, false),
            ("length(gone) != 3", true),
            ("gone + 1 == null", true),
            ("null == null", true),
            ("null != null", false),
            ("3 == null", false),
        ],
    );
}

#[test]
fn one_element_of_a_list_is_enough() {
    decides(
        &event(),
        &[
            (r#"event.type == "change""#, true),
            (r#"event.type != "change""#, false),
            (r#"event.type != "deletion""#, true),
            (r#"event.type not in ("change")"#, false),
            (r#"not event.type : "del*""#, true),
            (
                r#"process.args == "-t" and process.args == "ed25519""#,
                true,
            ),
            (r#"process.args : ("-T")"#, true),
            (r#"process.args regex "ed[0-9]+""#, true),
            ("process.args != null", true),
            ("length(process.args) == 2", true),
            ("length(process.args) == 10", true),
            ("length(process.args) > 10", false),
            (r#"endsWith(process.args, "19")"#, true),
            (r#"concat(process.args, "!") == "ed25519!""#, true),
            // Of several fields the first ranges, the others stand for their first value.
            (r#"concat(process.args, event.type) == "-tcreation""#, true),
            (r#"concat(process.args, event.type) == "-tchange""#, false),
            (r#"stringContains("x -t y", process.args)"#, true),
        ],
    );
}

#[test]
fn precedence() {
    decides(
        &event(),
        &[
            ("true or false and false", true),
            ("(true or false) and false", false),
            ("not false and false", false),
            ("not (false and false)", true),
            ("not false or true", true),
            ("not not true", true),
            (r#"not file.name == "id_rsa" or true"#, true),
            ("1 + 2 * 3 == 7", true),
            ("(1 + 2) * 3 == 9", true),
            ("10 - 4 - 3 == 3", true),
            ("10 / 4 * 2 == 4", true),
            ("10 / 4.0 == 2.5", true),
            ("-7 / 2 == -3", true),
            ("-7 % 3 == -1", true),
            ("2 - -2 == 4", true),
            ("-process.args_count + 3 == 0", true),
            ("process.args_count * 2 in (6)", true),
            ("4 / process.args_count == 1", true),
            ("4.0 / process.args_count == 1", false),
            (
                "process.pid/1 == 4711 // a comment\n and /* another */ true",
                true,
            ),
            (r#"(file.name == "id_rsa") == true"#, true),
            (r#"(file.name == "x") == false"#, true),
            ("process.args_count - process.parent.args_count == 1", true),
        ],
    );
}

#[test]
fn categories() {
    let event = json!({ "event": { "category": ["file", "my event"] }, "kind": "other" });
    let cases = [
        ("file where true", Some("file"), true),
        ("\"file\" where true", Some("file"), true),
        ("\"\"\"my event\"\"\" where true", Some("my event"), true),
        ("process where true", Some("process"), false),
        ("any where true", None, true),
        ("\"any\" where true", Some("any"), false),
        ("file where false", Some("file"), false),
    ];
    for (source, category, expected) in cases {
        let query = Query::parse(source).unwrap();
        assert_eq!(query.category(), category, "{source}");
        assert_eq!(query.matches(&event), expected, "{source}");
    }
    let query = Query::parse("other where true").unwrap();
    let field = Field::new("kind").unwrap();
    assert!(query.matches_with_category_field(&event, &field));
    assert!(!query.matches(&event));
    assert!(Query::parse("any where true").unwrap().matches(&json!({})));
}

#[test]
fn head_and_tail_are_accepted_and_ignored() {
    let query = Query::parse("file where true | head 5\n| tail 0").unwrap();
    assert_eq!(query.pipes(), [Pipe::Head(5), Pipe::Tail(0)]);
    assert!(query.matches(&creation()));
}

#[test]
fn fields_come_with_name_mark_and_place() {
    let source = "file where ?a.b == 1 and length(`c-d`.e) > 2 or a.b == null";
    let query = Query::parse(source).unwrap();
    let fields: Vec<_> = query
        .fields()
        .map(|field| (field.name(), field.is_optional(), &source[field.span()]))
        .collect();
    assert_eq!(
        fields,
        [
            ("a.b", true, "?a.b"),
            ("c-d.e", false, "`c-d`.e"),
            ("a.b", false, "a.b")
        ]
    );
    let field = query.fields().nth(1).unwrap();
    assert_eq!(field.parts().collect::<Vec<_>>(), ["c-d", "e"]);
    assert_eq!(field.slice(0..1), "c-d");
    assert_eq!(field.slice(1..2), "e");
    assert_eq!(field.slice(0..2), "c-d.e");
}

#[test]
fn canonical_form() {
    let cases = [
        (
            SSH_KEYGEN,
            r#"file where host.os.type == "linux" and event.action in ("creation", "file_create_event") and process.executable == "/usr/bin/ssh-keygen" and file.path : ("/home/*/.ssh/*", "/root/.ssh/*", "/etc/ssh/*") and not file.name : "known_hosts.*""#,
        ),
        (
            r#"any where ((a like~ ("x"))) and not (b in~ ("y"))|head 3"#,
            r#"any where a : "x" and b not in~ ("y") | head 3"#,
        ),
        (
            "\"my kind\" where (a or (b and c)) and -(-(x - (1 - 2))) == +.5",
            "\"my kind\" where (a or b and c) and --(x - (1 - 2)) == 0.5",
        ),
        (
            r#"file where startswith~(a, "x") and CIDRMATCH(b, "::/0")"#,
            r#"file where startsWith~(a, "x") and cidrMatch(b, "::/0")"#,
        ),
        (
            r#"file where `any`.`a b` == """C:\t""" and not not not (a == 1)"#,
            r#"file where `any`.`a b` == "C:\\t" and not not not a == 1"#,
        ),
    ];
    for (source, expected) in cases {
        let query = Query::parse(source).unwrap();
        assert_eq!(query.to_string(), expected);
        assert_eq!(Query::parse(expected).unwrap(), query);
    }
}

#[test]
fn conditions_that_no_watched_path_satisfies() {
    let is_path = |field: &Field| field.name() == "file.path";
    let cases = [
        (r#"file.path : "/home/*/.ssh/*""#, true),
        (r#"file.path : ("/etc/cron*", "/home/*")"#, true),
        (r#"file.path : ("/etc/cron*", "/usr/*")"#, false),
        (r#"file.path : "*.service""#, true),
        (r#"file.path == "/etc/passwd""#, false),
        (r#"file.path in ("/etc/passwd", "/home/a/.ssh/x")"#, true),
        (r#"file.path in~ ("/HOME/A/.ssh/x")"#, true),
        (r#"file.path like "/Home/*""#, false),
        (r#"not file.path : "/usr/*""#, true),
        ("not file.path != null", false),
        ("file.path == null", false),
        (r#"file.name == "x" and file.path : "/etc/*""#, false),
        (r#"file.name == "x" or file.path : "/etc/*""#, true),
        (r#"startsWith(file.path, "/etc")"#, false),
        (r#"startsWith(file.path, "/home/a/.ssh/id")"#, true),
        (r#"startsWith~(file.path, "/HOME")"#, true),
        (r#"file.path regex "/etc/.*""#, true),
        ("false", false),
        ("length(file.path) > 3", true),
    ];
    for (source, expected) in cases {
        let condition = Condition::parse(source).unwrap();
        assert_eq!(
            condition.could_match_below(is_path, "/home/a/.ssh/"),
            expected,
            "{source}"
        );
    }
}

#[test]
fn truth_follows_from_what_is_known() {
    let condition = Condition::parse("a and (b or not c)").unwrap();
    let cases = [
        (["T", "T", "T"], Truth::True),
        (["T", "F", "T"], Truth::False),
        (["T", "F", "F"], Truth::True),
        (["T", "F", "?"], Truth::Unknown),
        (["F", "?", "?"], Truth::False),
        (["?", "T", "T"], Truth::Unknown),
        (["?", "F", "T"], Truth::False),
    ];
    for (known, expected) in cases {
        let truth = condition.expr().truth(&mut |leaf| {
            let index = ["a", "b", "c"]
                .iter()
                .position(|name| leaf.to_string() == *name)
                .unwrap();
            match known[index] {
                "T" => Truth::True,
                "F" => Truth::False,
                _ => Truth::Unknown,
            }
        });
        assert_eq!(truth, expected, "{known:?}");
    }
}
