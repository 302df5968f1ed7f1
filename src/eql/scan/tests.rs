//! A document read from text says what the same document says as a tree.

use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};

use super::*;
use crate::eql::Query;

fn wanted(names: &[&str]) -> Wanted {
    let mut wanted = Wanted::new();
    for name in names {
        wanted.add(name);
    }
    wanted
}

fn values(document: &impl Document, name: &str) -> Vec<String> {
    let field = Field::new(name).unwrap();
    let mut values: Vec<_> = document
        .get(&field)
        .into_iter()
        .map(|value| format!("{value:?}"))
        .collect();
    values.sort();
    values
}

#[test]
fn fields_are_found_however_they_are_nested() {
    let wanted = wanted(&["a.b.c", "a", "x"]);
    for (text, expected) in [
        (r#"{"a":{"b":{"c":"v"}}}"#, vec!["Text(\"v\")"]),
        (r#"{"a.b.c":"v"}"#, vec!["Text(\"v\")"]),
        (
            r#"{"a":{"b.c":"v"},"a.b":{"c":["w",1]}}"#,
            vec!["Int(1)", "Text(\"v\")", "Text(\"w\")"],
        ),
        (
            r#" { "a" : [ { "b" : [ ] } , { "b" : { "c" : true } } ] } "#,
            vec!["Bool(true)"],
        ),
        (
            r#"{"a":{"b":{"c":[["x"],{"d":1},null,-0.5e1]}}}"#,
            vec!["Float(-5.0)", "Text(\"x\")"],
        ),
        (
            r#"{"\u0061":{"b":{"c":"\n\u00e4"}}}"#,
            vec!["Text(\"\\nä\")"],
        ),
        (
            r#"{"a":{"b":{"c":18446744073709551615}}}"#,
            vec!["Float(1.8446744073709552e19)"],
        ),
        (r#"{"a":"plain"}"#, vec![]),
        ("{}", vec![]),
    ] {
        let scan = Scan::read(text, &wanted).unwrap();
        assert_eq!(values(&scan, "a.b.c"), expected, "{text}");
        let tree: Map<String, Json> = serde_json::from_str(text).unwrap();
        for name in ["a.b.c", "a", "x"] {
            assert_eq!(values(&scan, name), values(&tree, name), "{text} {name}");
        }
    }
}

#[test]
fn an_envelope_is_taken_off() {
    let mut wanted = wanted(&["a"]);
    wanted.unwrap_key("_source");
    wanted.mark_key("hits");
    for (text, expected, marked) in [
        (
            r#"{"_id":"1","_source":{"a":"v"}}"#,
            vec!["Text(\"v\")"],
            false,
        ),
        (
            r#"{"a":"w","_source":{"a":"v"},"a":"x"}"#,
            vec!["Text(\"v\")"],
            false,
        ),
        (r#"{"_source":"none","a":"w"}"#, vec!["Text(\"w\")"], false),
        (r#"{"hits":{"hits":[]},"a":"w"}"#, vec!["Text(\"w\")"], true),
        (r#"{"b":{"hits":1,"_source":{"a":"no"}}}"#, vec![], false),
    ] {
        let scan = Scan::read(text, &wanted).unwrap();
        assert_eq!(values(&scan, "a"), expected, "{text}");
        assert_eq!(scan.is_marked(), marked, "{text}");
    }
}

#[test]
fn what_is_no_json_is_refused_where_it_is_wrong() {
    let wanted = wanted(&["a.b"]);
    for (text, offset, expected) in [
        ("", 0, "an object"),
        ("[1]", 0, "an object"),
        ("{\"a\"", 4, "`:`"),
        ("{\"a\":", 5, "a value"),
        ("{\"a\":{\"b\":\"x", 12, "the end of a text"),
        ("{\"z\":{\"b\":\"x\"}", 14, "`,` or `}`"),
        ("{\"z\":[1 2]}", 8, "`,` or `]`"),
        ("{\"z\":[1}}", 7, "`,` or `]`"),
        ("{\"z\":1,}", 7, "a key in double quotes"),
        ("{\"z\":01}", 7, "a number without leading zeros"),
        ("{\"z\":1.}", 7, "a digit"),
        ("{\"z\":1e}", 7, "a digit"),
        ("{\"z\":nul}", 5, "a value"),
        ("{\"z\":\"\t\"}", 6, "no control character in a text"),
        ("{\"z\":\"\\x\"}", 6, "an escape such as `\\n` or `\\u000a`"),
        ("{} {}", 3, "the end of the line"),
        (
            r#"{"a":{"b":"\ud800"}}"#,
            11,
            "a text without lone surrogates",
        ),
        (r#"{"a":{"b":1e999}}"#, 10, "a number that is not too large"),
    ] {
        let error = Scan::read(text, &wanted).unwrap_err();
        assert_eq!((error.offset, error.expected), (offset, expected), "{text}");
        assert!(
            serde_json::from_str::<Map<String, Json>>(text).is_err(),
            "{text}"
        );
    }
}

#[test]
fn nesting_is_bounded_as_it_is_for_trees() {
    let wanted = wanted(&["a"]);
    for depth in [125, 126, 127, 128, 100_000] {
        for key in ["a", "z"] {
            let text = format!("{{\"{key}\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
            assert_eq!(
                Scan::read(&text, &wanted).is_ok(),
                serde_json::from_str::<Json>(&text).is_ok(),
                "{key} {depth}"
            );
        }
    }
}

#[test]
fn every_place_in_a_block_is_seen() {
    for length in 0..40 {
        for special in [b'"', b'\\', 0x1f, 0] {
            let mut bytes = vec![0xe9; 40];
            bytes[length] = special;
            bytes[39] = special;
            assert_eq!(
                plain_end(&bytes, 0),
                length.min(39),
                "{special} at {length}"
            );
        }
    }
    assert_eq!(
        plain_end("plain text, longer than a block: ä ü".as_bytes(), 0),
        38
    );
}

/// Documents with the few keys that are asked for, at any depth, and others.
fn tree() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        (-1000i32..1000).prop_map(|n| json!(f64::from(n) / 8.0)),
        "[a-z\"\\\\\u{1}äé𝄞/*]{0,20}".prop_map(Json::from),
    ];
    let key = prop_oneof![
        Just("a"),
        Just("b"),
        Just("c"),
        Just("a.b"),
        Just("b.c"),
        Just("zz")
    ];
    leaf.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::btree_map(key.clone().prop_map(str::to_owned), inner, 0..5)
                .prop_map(|map| Json::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn a_scan_says_what_the_tree_says(tree in tree(), pretty in any::<bool>()) {
        let names = ["a", "b", "a.b", "a.b.c", "b.c", "c.c"];
        let wanted = wanted(&names);
        let text = if pretty { serde_json::to_string_pretty(&tree) } else { serde_json::to_string(&tree) }.unwrap();
        match Scan::read(&text, &wanted) {
            Ok(scan) => for name in names {
                prop_assert_eq!(values(&scan, name), values(&tree, name));
            },
            Err(error) => {
                prop_assert!(!tree.is_object());
                prop_assert_eq!(error.expected, "an object");
            }
        }
    }

    #[test]
    fn damaged_text_is_taken_only_where_it_is_json(
        tree in tree(), at in any::<prop::sample::Index>(), byte in 0u8..0x7f,
    ) {
        let mut text = json!({"zz": tree}).to_string();
        let place = at.index(text.len());
        if text.is_char_boundary(place) && text.is_char_boundary(place + 1) {
            text.replace_range(place..=place, std::str::from_utf8(&[byte]).unwrap());
        }
        let scanned = Scan::read(&text, &Wanted::new()).is_ok();
        let parsed = serde_json::from_str::<Map<String, Json>>(&text);
        match parsed {
            Ok(_) => prop_assert!(scanned, "{}", text),
            // What is passed over is not decoded.
            Err(error) => prop_assert!(
                !scanned || ["surrogate", "number out of range"].iter().any(|why| error.to_string().contains(why)),
                "{} {}", text, error
            ),
        }
    }
}

#[test]
fn numbered_queries_decide_the_same() {
    let mut query = Query::parse(
        "file where a.b : (\"x*\", \"y\") and not a.c in (1, 2) and length(`a`.d) > 1 and -a.e < 0 \
         and cidrMatch(a.f, \"10.0.0.0/8\") and ?a.g == null and a.h regex \"[a-z]+\"",
    )
    .unwrap();
    let text = r#"{"event":{"category":["file","x"]},"a":{"b":"xyz","c":3,"d":"dd","e":5,"f":"10.1.1.1","h":["1","abc"]}}"#;
    let tree: Json = serde_json::from_str(text).unwrap();
    assert!(query.matches(&tree));
    let mut wanted = Wanted::new();
    query.number_fields(&mut wanted);
    assert!(query.matches(&Scan::read(text, &wanted).unwrap()));
    assert!(query.matches(&tree), "numbers mean nothing to a tree");
    for (from, to) in [
        ("xyz", "zzz"),
        ("\"c\":3", "\"c\":2"),
        ("\"dd\"", "\"d\""),
        ("10.1", "11.1"),
        ("abc", "ABC"),
    ] {
        let other = text.replace(from, to);
        assert!(
            !query.matches(&Scan::read(&other, &wanted).unwrap()),
            "{other}"
        );
    }
}
