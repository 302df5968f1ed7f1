//! What describes the documents agrees with them: the reference page, and the
//! mapping for Elasticsearch.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::rule::{Cause, Suppressed};

const PAGE: &str = include_str!("../../../docs/alert.md");
const TEMPLATE: &str = include_str!("../../../packaging/elastic/index-template.json");
const ECS: &str = include_str!("../../rule/ecs-9.4.0.txt");
const OWN: &str = include_str!("../../rule/ssh_keywatch.txt");

/// Objects whose fields are not described one by one.
const OPEN: [&str; 3] = [
    "ssh_keywatch.counters",
    "ssh_keywatch.coverage",
    "ssh_keywatch.reload",
];

/// Documents that together have every field.
fn examples() -> Vec<Document> {
    let mut full = event();
    full.action = Action::Rename;
    full.original_path = Some(PathBuf::from(OsString::from_vec(b"/a/\xff.c".to_vec())));
    full.path = PathBuf::from(OsString::from_vec(b"/b/\xff.c".to_vec()));
    full.final_path = Some(FinalPath::Renamed("/a/d".into()));
    full.facts.as_mut().unwrap().target = Some("/t".into());
    full.writer.candidates = vec![Image {
        path: PathBuf::from(OsString::from_vec(b"/\xff".to_vec())),
        ..image("/x")
    }];
    full.writer.program = ProgramFacts {
        sha256: Some("ab".repeat(32)),
        known: Some(KnownAs {
            path: "/usr/bin/ssh-keygen".into(),
            by: KnownBy::Content,
        }),
        ..ProgramFacts::default()
    };
    let mut rule = rule();
    rule.building_block = true;
    rule.version = Some("3".into());
    rule.investigation_fields = vec!["file.path".into()];
    let mut document = event_document(&full, &origin());
    set_session(&mut document, &sessions::session(), &origin());
    sessions::add_what_alerts_have(&mut document);
    let mut out = vec![alert(document.clone(), &rule)];
    out.extend(keys::full());
    let told = Suppressed {
        rule_id: "r".into(),
        rule_name: "A key was made".into(),
        cause: Cause::Alike(vec![("user.name".into(), vec!["ann".into()])]),
        count: 12,
        start: at(0),
        end: at(300_000_000),
        window: 1,
    };
    let mut degraded = origin();
    degraded.degraded = vec!["no holds".into()];
    out.push(alert(event_document(&event(), &degraded), &super::rule()));
    let reload = State {
        time: at(0),
        change: Change::Reload,
        outcome: Outcome::Success,
        reason: "3 rules",
        coverage: Value::Null,
        counters: Value::Null,
        changes: json!({"rules": {"added": ["r"]}}),
    };
    out.push(state(&reload, &origin()));
    out.extend([
        started(),
        lost(),
        suppressed(&told, at(301_000_000), &origin()),
        flood(&flooded(), at(9), &origin()),
    ]);
    out
}

fn fields() -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    for document in examples() {
        below("", &Value::Object(document.into_map()), &mut out);
    }
    // The log's own, which comes to a line when it is written.
    for place in ["sequence", "previous"] {
        out.insert(format!("ssh_keywatch.log.{place}"));
    }
    out
}

/// The dotted names of all leaves, of those in lists too.
fn below(prefix: &str, value: &Value, out: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let dot = if prefix.is_empty() { "" } else { "." };
                below(&format!("{prefix}{dot}{key}"), value, out);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for item in items {
                below(prefix, item, out);
            }
        }
        _ => {
            let open = OPEN.iter().find(|open| prefix.starts_with(*open));
            out.insert(open.map_or(prefix, |open| *open).to_owned());
        }
    }
}

/// Name and type of every field that ECS or we define.
fn types() -> BTreeMap<&'static str, &'static str> {
    let lines = ECS.lines().chain(OWN.lines());
    let words = lines.filter_map(|line| line.split_once(' '));
    words
        .map(|(name, rest)| (name, rest.split(' ').next().unwrap()))
        .collect()
}

/// The rows of the page's tables: field, type.
fn described() -> BTreeMap<&'static str, &'static str> {
    let mut out = BTreeMap::new();
    for line in PAGE.lines() {
        let Some((name, rest)) = line
            .strip_prefix("| `")
            .and_then(|line| line.split_once("` | "))
        else {
            continue;
        };
        let (kind, what) = rest.split_once(" | ").expect(line);
        assert!(what.trim_end_matches('|').trim().len() > 3, "{line}");
        assert!(
            out.insert(name, kind).is_none(),
            "{name} stands there twice"
        );
    }
    out
}

#[test]
fn the_reference_describes_every_field_and_no_other() {
    let (fields, types, described) = (fields(), types(), described());
    let own = types
        .keys()
        .filter(|name| name.starts_with("ssh_keywatch."))
        .map(|name| (*name).to_owned());
    let all: BTreeSet<String> = fields.into_iter().chain(own).collect();
    let missing: Vec<_> = all
        .iter()
        .filter(|name| !described.contains_key(name.as_str()))
        .collect();
    assert!(missing.is_empty(), "docs/alert.md lacks {missing:#?}");
    for (name, kind) in described {
        assert!(
            all.contains(name),
            "docs/alert.md describes {name}, which no document has"
        );
        if let Some(expected) = types.get(name) {
            assert_eq!(kind, *expected, "the type of {name} in docs/alert.md");
        }
    }
}

/// The mapping of one field, as ECS's own templates have it.
fn mapping(kind: &str) -> Value {
    match kind {
        "keyword" => json!({"type": "keyword", "ignore_above": 1024}),
        "wildcard" | "match_only_text" | "date" | "long" | "float" | "boolean" | "ip" => {
            json!({"type": kind})
        }
        other => panic!("no mapping for {other}"),
    }
}

fn template() -> Value {
    let types = types();
    let mut properties = json!({});
    for (name, kind) in described() {
        // What is open is dynamic, as everything unknown is.
        if kind == "object" {
            continue;
        }
        let mut place = &mut properties;
        let (above, leaf) = name.rsplit_once('.').unwrap_or(("", name));
        for part in above.split('.').filter(|part| !part.is_empty()) {
            place = &mut place[part]["properties"];
        }
        place[leaf] = mapping(kind);
        let text = format!("{name}.text");
        if types.get(text.as_str()) == Some(&"match_only_text") {
            place[leaf]["fields"] = json!({"text": {"type": "match_only_text"}});
        }
    }
    json!({
        "index_patterns": ["logs-ssh_keywatch.alerts-*"],
        "data_stream": {},
        "priority": 500,
        "template": {
            "settings": {"index": {"mapping": {"total_fields": {"limit": 2000}}}},
            "mappings": {
                "date_detection": false,
                "dynamic_templates": [
                    {"strings_as_keyword": {
                        "match_mapping_type": "string",
                        "mapping": {"type": "keyword", "ignore_above": 1024}
                    }}
                ],
                "properties": properties,
            }
        },
        "_meta": {
            "description": "Alerts of ssh-keywatch: the fields of ECS that they use, and ssh_keywatch.*",
            "ecs_version": ECS_VERSION,
        }
    })
}

#[test]
fn the_index_template_maps_every_field() {
    let expected = template();
    if std::env::var_os("UPDATE_INDEX_TEMPLATE").is_some() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/packaging/elastic/index-template.json"
        );
        std::fs::write(path, format!("{expected:#}\n")).unwrap();
        return;
    }
    let found: Value = serde_json::from_str(TEMPLATE).unwrap();
    // Not assert_eq, whose two pages nobody reads.
    assert!(
        found == expected,
        "packaging/elastic/index-template.json is not up to date; UPDATE_INDEX_TEMPLATE=1 with this test writes it anew"
    );
}
