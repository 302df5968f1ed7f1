//! What is done with hostile bytes, and what must hold of it.
//!
//! Owns one function for each fuzz target, given to libFuzzer by the programs
//! in `fuzz_targets` and to a bounded run with the committed corpus by
//! `tests/fuzz.rs`. A target fails by a panic.

use std::path::Path;

use serde_json::{Value, json};
use ssh_keywatch::cli::replay;
use ssh_keywatch::eql::{Pattern, Query, Scan, Wanted};
use ssh_keywatch::rule::{Fields, RuleSet};

/// Target of texts.
pub type Target = fn(&[u8]);

/// All targets, by the name of their corpus.
pub const ALL: [(&str, Target); 5] = [
    ("query", query),
    ("decide", decide),
    ("pattern", pattern),
    ("rule", rule),
    ("replay", replay),
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
    let lines = data.iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
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
