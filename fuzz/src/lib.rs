//! What is done with hostile bytes, and what must hold of it.
//!
//! Owns one function for each fuzz target, given to libFuzzer by the programs
//! in `fuzz_targets` and to a bounded run with the committed corpus by
//! `tests/fuzz.rs`. A target fails by a panic.

use std::path::Path;

use serde_json::{Map, Value, json};
use ssh_keywatch::cli::replay;
use ssh_keywatch::config::Config;
use ssh_keywatch::eql::{Pattern, Query, Scan, Wanted};
use ssh_keywatch::key::{self, Role};
use ssh_keywatch::proctable::record;
use ssh_keywatch::rule::{Fields, RuleSet};
use ssh_keywatch::sink::{JsonLog, Line, Options, Renderer, Sink as _, TerminalStyle};
use ssh_keywatch::sys::fanotify;
use ssh_keywatch::text::is_unsafe;
use ssh_keywatch::{daemon, resolve};

/// Target of texts.
pub type Target = fn(&[u8]);

/// All targets, by the name of their corpus.
pub const ALL: [(&str, Target); 12] = [
    ("query", query),
    ("decide", decide),
    ("pattern", pattern),
    ("rule", rule),
    ("replay", replay),
    ("config", config),
    ("key", key),
    ("fanotify", fanotify),
    ("perf", perf),
    ("proc", resolve::read_hostile),
    ("request", daemon::read_hostile),
    ("log", log),
];

/// Parses a query; what parses is printed as what parses to the same, and can
/// be asked about documents.
pub fn query(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match Query::parse(text) {
        Ok(query) => {
            let printed = query.to_string();
            let again = Query::parse(&printed);
            assert!(
                again.as_ref() == Ok(&query),
                "{text:?} is printed as {printed:?}, which is {again:?}"
            );
            for document in documents() {
                let _ = query.matches(&document);
            }
        }
        Err(error) => {
            assert!(error.span.start <= error.span.end, "{error:?}");
            assert!(text.get(error.span.clone()).is_some(), "{error:?}");
            assert!(!error.message.is_empty());
        }
    }
}

fn documents() -> [Value; 3] {
    [
        json!({}),
        json!({"event": {"category": ["file"], "action": "creation"}, "a": "x", "b": 1, "c": [true, null, "y"]}),
        json!({"event.category": "file", "file": [{"path": "/a/b"}, {"path": ["\u{e4}", ""]}], "process.pid": -1.5}),
    ]
}

/// A query on the first line, a document below it: it is decided alike whether
/// the document was read whole or only as far as the query asks.
pub fn decide(data: &[u8]) {
    let Some((Ok(query), Ok(document))) = std::str::from_utf8(data)
        .ok()
        .and_then(|text| text.split_once('\n'))
        .map(|(query, document)| (Query::parse(query), serde_json::from_str::<Value>(document)))
    else {
        return;
    };
    // Written anew, so that no key stands twice in an object, of which the one
    // reader would take the last value and the other one both.
    let text = document.to_string();
    let Ok(document) = serde_json::from_str::<Value>(&text) else {
        return;
    };
    // The two readers may differ in the last bit of a fraction.
    if !document.is_object() || has_fractions(&document) {
        return;
    }
    let whole = query.matches(&document);
    let mut numbered = query.clone();
    let mut wanted = Wanted::new();
    numbered.number_fields(&mut wanted);
    let scan = Scan::read(&text, &wanted).expect("what serde_json wrote is JSON");
    assert_eq!(numbered.matches(&scan), whole, "{query} about {text}");
    let negated = format!(
        "{} where not ({})",
        query
            .category()
            .map_or("any".to_owned(), |name| format!("{name:?}")),
        query.condition()
    );
    if let Ok(negated) = Query::parse(&negated)
        && negated.category() == query.category()
    {
        let in_category = whole || negated.matches(&document);
        assert_eq!(
            negated.matches(&document),
            in_category && !whole,
            "{negated} about {text}"
        );
    }
}

fn has_fractions(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(list) => list.iter().any(has_fractions),
        Value::Object(object) => object.values().any(has_fractions),
        _ => false,
    }
}

/// A pattern on the first line, a text below it: they match if they do by the
/// definition, tried out position by position.
pub fn pattern(data: &[u8]) {
    let Some((pattern, text)) = std::str::from_utf8(data)
        .ok()
        .and_then(|text| text.split_once('\n'))
    else {
        return;
    };
    for fold in [false, true] {
        let matches = Pattern::new(pattern, fold).matches(text);
        // The definition takes the product of both lengths.
        if pattern.len() * text.len() < 1 << 16 {
            assert_eq!(
                matches,
                by_definition(pattern, text, fold),
                "{pattern:?} {text:?}"
            );
        }
        if matches {
            for (end, _) in text.char_indices() {
                assert!(Pattern::new(pattern, fold).could_start_with(&text[..end]));
            }
        }
    }
}

fn by_definition(pattern: &str, text: &str, fold: bool) -> bool {
    let text: Vec<char> = text.chars().collect();
    // Whether the pattern so far matches the first n characters.
    let mut matching = vec![false; text.len() + 1];
    matching[0] = true;
    for wanted in pattern.chars() {
        let mut next = vec![false; text.len() + 1];
        for end in 0..=text.len() {
            let before = end.checked_sub(1);
            next[end] = match wanted {
                '*' => matching[end] || before.is_some_and(|before| next[before]),
                '?' => before.is_some_and(|before| matching[before]),
                _ => before.is_some_and(|before| {
                    let found = text[before];
                    matching[before]
                        && (found == wanted || fold && found.eq_ignore_ascii_case(&wanted))
                }),
            };
        }
        matching = next;
    }
    matching[text.len()]
}

/// Loads a rule file; what is wrong with it can be shown.
pub fn rule(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let path = Path::new("rule.toml");
    for fields in [Fields::Known, Fields::Any] {
        match RuleSet::from_texts(&[(path, text)], fields) {
            Ok(set) => {
                let _ = set.inert(&["/root/.ssh"]);
                let _ = set.roots(&["/root/.ssh"]);
                for document in documents() {
                    let _ = set.any_matches(&document);
                }
            }
            Err(errors) => {
                assert!(!errors.is_empty());
                for error in errors {
                    assert!(!error.render(true).is_empty());
                }
            }
        }
    }
    let _ = ssh_keywatch::rule::parse_cases(path, text);
}

/// Replays a file: every alert is a line of JSON with its place.
pub fn replay(data: &[u8]) {
    let path = Path::new("rule.toml");
    let text = "[rule]\nrule_id = 'r'\nname = 'R'\ntype = 'eql'\nseverity = 'low'\n\
                query = 'any where host.os.type != \"windows\"'\n";
    let rules = RuleSet::from_texts(&[(path, text)], Fields::Any).expect("the rule is valid");
    let mut alerts = Vec::new();
    let counted = replay::stream(rules, std::io::Cursor::new(data.to_vec()), &mut alerts)
        .expect("a vector takes everything");
    let alerts = String::from_utf8(alerts).expect("alerts are text");
    assert_eq!(alerts.lines().count() as u64, counted.alerts);
    let lines = data.split(|byte| *byte == b'\n').count() as u64;
    let packed = data.starts_with(&[0x1f, 0x8b]);
    for alert in alerts.lines() {
        let alert: Value = serde_json::from_str(alert).expect("an alert is JSON");
        let line = alert["ssh_keywatch"]["replay"]["line"].as_u64();
        assert!(
            line.is_some_and(|line| line > 0 && (packed || line <= lines)),
            "{alert}"
        );
    }
}

/// Reads a configuration; what is wrong with it can be shown.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Err(error) = Config::parse(text, Path::new("config.toml")) {
        for styled in [false, true] {
            let shown = error.render(styled);
            assert!(!shown.is_empty());
            // Its own colours apart, nothing of the file reaches a terminal raw.
            let raw =
                |c: char| is_unsafe(c) && !matches!(c, '\n' | '\u{1b}' if styled || c == '\n');
            assert!(!shown.contains(raw), "{shown:?}");
        }
    }
}

/// Looks at a key file under every kind of name.
pub fn key(data: &[u8]) {
    for role in [
        Role::AuthorizedKeys,
        Role::KnownHosts,
        Role::HostKey,
        Role::Other,
    ] {
        let facts = key::examine(data, role);
        assert_eq!(facts, key::examine(data, role), "it says the same again");
        if role.is_list() {
            assert!(facts.is_some(), "a list is one also when it is empty");
        }
    }
}

/// Reads records of fanotify, of which each takes its room.
pub fn fanotify(data: &[u8]) {
    if let Ok(count) = fanotify::count_records(data) {
        assert!(count * 24 <= data.len());
    }
}

/// Reads records of a perf ring.
pub fn perf(data: &[u8]) {
    let mut count = 0;
    record::parse(data, |_| count += 1);
    assert!(count * 8 <= data.len());
}

/// Opens a log of these bytes and goes on with it: what was there stays, save a
/// torn line, every line of ours parses, and whatever parses can be shown.
pub fn log(data: &[u8]) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("log");
    std::fs::write(&path, data).expect("a file");
    let mut log = JsonLog::open(&path, &Options::default()).expect("it is a file");
    let mut own = Map::new();
    own.insert("own".into(), json!(1));
    log.write(&Line::new(own)).expect("there is room");
    let after = std::fs::read(&path).expect("it is there");
    let whole = data
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    assert!(after.starts_with(&data[..whole]));
    let lines: Vec<&[u8]> = after.split(|byte| *byte == b'\n').collect();
    assert_eq!(lines.last(), Some(&&b""[..]), "it ends with a newline");
    let ours = lines.iter().rev().nth(1).expect("a line is there");
    let before = after.len() - ours.len() - 1;
    let ours: Map<String, Value> = serde_json::from_slice(ours).expect("it is ours");
    assert_eq!(ours.get("own"), Some(&json!(1)));
    let last = lines.iter().rev().nth(2);
    if let Some(last) = last.filter(|_| whole < data.len() && before > whole) {
        let parsed = serde_json::from_slice::<Map<String, Value>>(last);
        assert!(parsed.is_ok(), "{:?}", String::from_utf8_lossy(last));
    }
    let mut renderer = Renderer::new(TerminalStyle::new(false));
    for line in after.split(|byte| *byte == b'\n') {
        if let Ok(document) = serde_json::from_slice::<Map<String, Value>>(line) {
            let shown = renderer.render(&document);
            assert!(!shown.contains(|c| c != '\n' && is_unsafe(c)), "{shown:?}");
        }
    }
}
