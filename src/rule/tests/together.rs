//! That all rules are asked together changes nothing.

use super::*;

/// Parts that rules have in common, in every manner of being written.
const PARTS: [&str; 9] = [
    r#"host.os.type == "linux""#,
    r#"event.action in ("creation", "rename")"#,
    r#"event.action != "deletion""#,
    r#"file.path : ("/home/*", "/root/*")"#,
    r#"not file.name : "known_hosts*""#,
    r#"process.executable == "/usr/bin/ssh-keygen""#,
    "process.args_count > 2",
    r#"(user.name == "a" or file.name like "id_*")"#,
    "(process.pid == 7 and not user.name == null)",
];

fn documents() -> Vec<Value> {
    let mut documents = vec![json!({}), keygen()];
    for (pointer, value) in [
        ("/host/os/type", json!("macos")),
        ("/event/action", json!(["rename", "x"])),
        ("/event/action", json!("deletion")),
        ("/event/category", json!("process")),
        ("/event/category", json!(["x", "file"])),
        ("/file/path", json!("/etc/ssh/x")),
        ("/file/name", json!("known_hosts.old")),
        ("/process", json!({"args_count": 3, "pid": [1, 7]})),
        ("/user", json!(null)),
    ] {
        documents.push(changed(pointer, value));
    }
    documents
}

/// As many rules as there are pairs and triples of parts, in both orders.
fn queries() -> Vec<String> {
    let mut queries = Vec::new();
    for (one, first) in PARTS.iter().enumerate() {
        for (two, second) in PARTS.iter().enumerate() {
            let category = ["file", "any"][(one + two) % 2];
            let third = PARTS[(one * 3 + two) % PARTS.len()];
            queries.push(format!("{category} where {first} and {second}"));
            queries.push(format!(
                "{category} where {second} and ({third} and {first})"
            ));
            queries.push(format!("{category} where {first} or {second} and {third}"));
        }
    }
    queries
}

fn set(queries: &[String]) -> RuleSet {
    let texts: Vec<_> = queries
        .iter()
        .enumerate()
        .map(|(index, query)| {
            let text = file(&format!("'''{query}'''"));
            let text = text.replace("\"id\"", &format!("\"{index}\""));
            (format!("{index:05}.toml"), text)
        })
        .collect();
    let texts: Vec<_> = texts
        .iter()
        .map(|(name, text)| (Path::new(name.as_str()), text.as_str()))
        .collect();
    RuleSet::from_texts(&texts, Fields::Known).unwrap()
}

#[test]
fn rules_decide_together_as_each_does_alone() {
    let queries = queries();
    let mut set = set(&queries);
    let alone: Vec<eql::Query> = queries.iter().map(|query| query.parse().unwrap()).collect();
    let expected = |document: &Value| -> Vec<String> {
        let matches = alone.iter().enumerate();
        let matches = matches.filter(|(_, query)| query.matches(document));
        matches.map(|(index, _)| index.to_string()).collect()
    };
    let mut matched = 0;
    for document in documents() {
        let found = ids(&set.decide(&document, today()));
        assert_eq!(found, expected(&document), "{document}");
        assert_eq!(set.any_matches(&document), !found.is_empty());
        matched += found.len();
    }
    assert!(matched > 100, "{matched}");

    // The same of a text that is read for the rules alone.
    let mut wanted = eql::Wanted::new();
    set.number_fields(&mut wanted);
    for document in documents() {
        let text = document.to_string();
        let scan = eql::Scan::read(&text, &wanted).unwrap();
        let found = ids(&set.decide(&scan, today()));
        assert_eq!(found, expected(&document), "{document}");
    }
}

#[test]
fn more_parts_than_answers_are_kept_of_are_decided_all_the_same() {
    let queries: Vec<_> = (0..700)
        .map(|index| format!(r#"file where file.name == "{index}" and process.pid == 7"#))
        .collect();
    let set = set(&queries);
    for name in ["0", "511", "512", "699"] {
        let document = changed("/file/name", json!(name));
        assert_eq!(ids(&set.decide(&document, today())), [name]);
    }
    assert!(!set.any_matches(&keygen()));
}

#[test]
fn the_same_condition_in_different_fields_of_the_category_is_two() {
    let text = |id: &str, more: &str| {
        file("'file where true'").replace("\"id\"", &format!("\"{id}\"")) + more
    };
    let other = text("b", "event_category_override = \"event.kind\"\n");
    let set = load(&directory(&[
        ("a.toml", &text("a", "")),
        ("b.toml", &other),
    ]))
    .unwrap();
    let mut document = json!({"event": {"category": "file"}});
    assert_eq!(ids(&set.decide(&document, today())), ["a"]);
    document["event"] = json!({"kind": "file"});
    assert_eq!(ids(&set.decide(&document, today())), ["b"]);
}
