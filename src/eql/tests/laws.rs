//! Laws that hold for all conditions and all events.

use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};

use crate::eql::{Condition, Pattern, Query};

const FIELDS: [&str; 5] = ["a", "b.c", "?b.d", "`e f`.g", "`in`"];

/// Few and similar texts, so that comparisons do hold now and then.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[abAB*?/.]{0,4}",
        1 => any::<String>(),
    ]
}

fn quoted(text: &str) -> String {
    let escaped: String = text
        .chars()
        .map(|c| match c {
            '"' | '\\' => format!("\\{c}"),
            c if c.is_control() => format!("\\u{{{:04x}}}", u32::from(c)),
            c => c.to_string(),
        })
        .collect();
    format!("\"{escaped}\"")
}

fn string() -> impl Strategy<Value = String> {
    text().prop_map(|text| quoted(&text))
}

fn field() -> impl Strategy<Value = String> {
    prop::sample::select(&FIELDS[..]).prop_map(str::to_owned)
}

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        (-3_i64..4).prop_map(|n| n.to_string()),
        any::<i64>().prop_map(|n| n.to_string()),
        (-9_i32..9).prop_map(|n| format!("{:?}", f64::from(n) / 4.0)),
        any::<f64>()
            .prop_filter("finite", |n| n.is_finite())
            .prop_map(|n| format!("{n:?}")),
    ]
}

fn scalar() -> impl Strategy<Value = String> {
    prop_oneof![string(), number(), Just("true".to_owned())]
}

fn list(item: impl Strategy<Value = String>) -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(item, 1..4)
}

fn calculation() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        2 => number(),
        2 => field(),
        1 => (field(), string()).prop_map(|(f, s)| format!("indexOf~({f}, {s}, 1)")),
        1 => field().prop_map(|f| format!("length({f})")),
    ];
    leaf.prop_recursive(4, 16, 2, |inner| {
        prop_oneof![
            (
                inner.clone(),
                prop::sample::select(&["+", "-", "*", "/", "%"][..]),
                inner.clone()
            )
                .prop_map(|(l, op, r)| format!("({l} {op} {r})")),
            inner.clone().prop_map(|x| format!("-({x})")),
            inner.prop_map(|x| format!("-{x}")),
        ]
    })
}

fn leaf() -> impl Strategy<Value = String> {
    prop_oneof![
        (field(), prop::sample::select(&["==", "!="][..]), scalar())
            .prop_map(|(f, op, s)| format!("{f} {op} {s}")),
        (
            field(),
            prop::sample::select(&["<", "<=", ">", ">="][..]),
            string()
        )
            .prop_map(|(f, op, s)| format!("{s} {op} {f}")),
        (calculation(), number()).prop_map(|(c, n)| format!("{c} >= {n}")),
        (field(), prop::sample::select(&["==", "!="][..]))
            .prop_map(|(f, op)| format!("{f} {op} null")),
        (
            field(),
            prop::sample::select(&["in", "in~", "not in"][..]),
            list(scalar())
        )
            .prop_map(|(f, op, l)| format!("{f} {op} ({})", l.join(", "))),
        (
            field(),
            prop::sample::select(&[":", "like", "like~"][..]),
            list(string())
        )
            .prop_map(|(f, op, l)| format!("{f} {op} ({})", l.join(", "))),
        (field(), "[abAB.*]{0,1}a[bB]?").prop_filter_map("repeats nothing", |(f, r)| {
            let source = format!("{f} regex~ \"{r}\"");
            Condition::parse(&source).is_ok().then_some(source)
        }),
        (field(), string()).prop_map(|(f, s)| format!("startsWith~({f}, {s})")),
        (field(), string()).prop_map(|(f, s)| format!("concat({f}, {s}) : {s}")),
        field(),
        Just("true".to_owned()),
    ]
}

/// Conditions as text, with more parentheses than needed.
fn condition() -> impl Strategy<Value = String> {
    leaf()
        .prop_recursive(4, 24, 3, |inner| {
            prop_oneof![
                inner.clone().prop_map(|x| format!("not ({x})")),
                inner.clone().prop_map(|x| format!("not {x}")),
                inner.clone().prop_map(|x| format!("({x}) == true")),
                (inner.clone(), inner.clone()).prop_map(|(l, r)| format!("({l}) and ({r})")),
                (inner.clone(), inner.clone()).prop_map(|(l, r)| format!("{l} and {r}")),
                (inner.clone(), inner.clone(), inner)
                    .prop_map(|(a, b, c)| format!("{a} or {b} or ({c})")),
            ]
        })
        .prop_filter("comparisons do not chain", |source| {
            Condition::parse(source).is_ok()
        })
}

fn json_scalar() -> impl Strategy<Value = Json> {
    prop_oneof![
        4 => text().prop_map(Json::from),
        2 => (-3_i64..4).prop_map(Json::from),
        1 => (-9_i32..9).prop_map(|n| Json::from(f64::from(n) / 4.0)),
        1 => any::<bool>().prop_map(Json::from),
        1 => Just(Json::Null),
    ]
}

fn json_value() -> impl Strategy<Value = Json> {
    prop_oneof![
        2 => json_scalar(),
        1 => prop::collection::vec(json_scalar(), 0..4).prop_map(Json::from),
    ]
}

fn event() -> impl Strategy<Value = Json> {
    let names = prop::sample::select(&["a", "b.c", "b.d", "e f.g", "in", "b", "e f"][..]);
    prop::collection::vec((names, json_value()), 0..6).prop_map(|entries| {
        let mut event = Map::new();
        for (name, value) in entries {
            let value = match name {
                "b" => json!([{ "c": value }, { "d": 1 }]),
                "e f" => json!({ "g": value }),
                _ => value,
            };
            event.insert(name.to_owned(), value);
        }
        Json::Object(event)
    })
}

fn holds(source: &str, event: &Json) -> bool {
    Condition::parse(source)
        .unwrap_or_else(|error| panic!("{}", error.render(source, "law")))
        .matches(event)
}

/// What a pattern means, by definition.
fn like(pattern: &[char], text: &[char]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some(('*', rest)) => (0..=text.len()).any(|skip| like(rest, &text[skip..])),
        Some(('?', rest)) => !text.is_empty() && like(rest, &text[1..]),
        Some((c, rest)) => text.first() == Some(c) && like(rest, &text[1..]),
    }
}

proptest! {
    #[test]
    fn double_negation(c in condition(), e in event()) {
        prop_assert_eq!(holds(&c, &e), holds(&format!("not not ({c})"), &e));
        prop_assert_eq!(holds(&c, &e), !holds(&format!("not ({c})"), &e));
    }

    #[test]
    fn de_morgan(l in condition(), r in condition(), e in event()) {
        prop_assert_eq!(
            holds(&format!("not (({l}) and ({r}))"), &e),
            holds(&format!("not ({l}) or not ({r})"), &e)
        );
        prop_assert_eq!(
            holds(&format!("not (({l}) or ({r}))"), &e),
            holds(&format!("not ({l}) and not ({r})"), &e)
        );
    }

    #[test]
    fn inequality_is_negated_equality(f in field(), s in scalar(), e in event()) {
        prop_assert_eq!(
            holds(&format!("{f} != {s}"), &e),
            holds(&format!("not {f} == {s}"), &e)
        );
    }

    #[test]
    fn a_list_is_the_alternative_of_its_scalars(f in field(), l in list(scalar()), e in event()) {
        let any: Vec<_> = l.iter().map(|s| format!("{f} == {s}")).collect();
        prop_assert_eq!(
            holds(&format!("{f} in ({})", l.join(", ")), &e),
            holds(&any.join(" or "), &e)
        );
        prop_assert_eq!(
            holds(&format!("{f} not in ({})", l.join(", ")), &e),
            !holds(&any.join(" or "), &e)
        );
    }

    #[test]
    fn a_list_of_patterns_too(f in field(), l in list(string()), e in event()) {
        let any: Vec<_> = l.iter().map(|s| format!("{f} : {s}")).collect();
        prop_assert_eq!(
            holds(&format!("{f} : ({})", l.join(", ")), &e),
            holds(&any.join(" or "), &e)
        );
    }

    #[test]
    fn colon_is_like_without_case(f in field(), l in list(string()), e in event()) {
        let l = l.join(", ");
        let (colon, like) = (format!("{f} : ({l})"), format!("{f} like~ ({l})"));
        prop_assert_eq!(Condition::parse(&colon), Condition::parse(&like));
        prop_assert_eq!(holds(&colon, &e), holds(&like, &e));
    }

    #[test]
    fn folding_is_ascii_folding(s in "[a-cA-Cäß]{0,3}", t in "[a-cA-Cäß]{0,3}") {
        let event = json!({ "a": s });
        let expected = s.eq_ignore_ascii_case(&t);
        prop_assert_eq!(holds(&format!("a in~ (\"{t}\")"), &event), expected);
        prop_assert_eq!(holds(&format!("a : \"{t}\""), &event), expected);
        prop_assert_eq!(holds(&format!("a regex~ \"{t}\""), &event), expected);
        prop_assert_eq!(holds(&format!("a == \"{t}\""), &event), s == t);
    }

    #[test]
    fn patterns_mean_what_they_say(p in "[ab*?ü]{0,6}", t in "[abü]{0,8}") {
        let (pattern, text): (Vec<_>, Vec<_>) = (p.chars().collect(), t.chars().collect());
        let expected = like(&pattern, &text);
        prop_assert_eq!(Pattern::new(&p, false).matches(&t), expected);
        for (split, _) in t.char_indices() {
            if expected {
                prop_assert!(Pattern::new(&p, false).could_start_with(&t[..split]));
            }
        }
    }

    #[test]
    fn printing_keeps_the_meaning(c in condition(), e in event()) {
        let query = Query::parse(&format!("file where {c}")).unwrap();
        let printed = query.to_string();
        let again = Query::parse(&printed)
            .unwrap_or_else(|error| panic!("{}", error.render(&printed, &c)));
        prop_assert_eq!(&again, &query);
        prop_assert_eq!(again.to_string(), printed);
        prop_assert_eq!(
            again.condition().matches(&e),
            query.condition().matches(&e)
        );
    }

    #[test]
    fn what_could_not_match_below_a_directory_does_not(c in condition(), t in text()) {
        let prefix = "a/";
        let condition = Condition::parse(&c).unwrap();
        let event = json!({ "a": format!("{prefix}{t}") });
        if condition.matches(&event) {
            prop_assert!(condition.could_match_below(|field| field.name() == "a", prefix));
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic(source in any::<String>()) {
        if let Err(error) = Query::parse(&source) {
            let (line, column) = error.position(&source);
            prop_assert!(line > 0 && column > 0);
            prop_assert!(source.get(error.span.clone()).is_some());
            let _ = error.render(&source, "arbitrary");
        }
    }

    #[test]
    fn nor_does_any_row_of_words(words in prop::collection::vec(prop::sample::select(&[
        "file", "where", "any", "a", "b.c", ".", "?", "(", ")", ",", "[", "==", "!=", "<", ":",
        "in", "in~", "like", "regex~", "not", "and", "or", "null", "true", "1", "-", "+", "*",
        ".5", "\"x*\"", "\"\"\"", "\"", "`", "length", "cidrMatch", "number", "between~", "|",
        "head", "sequence", "by", "/*", "//", "\n", "'", "~", "ü",
    ][..]), 0..24), e in event()) {
        let source = format!("file where {}", words.join(" "));
        match Query::parse(&source) {
            Ok(query) => {
                let _ = query.matches(&e);
                prop_assert_eq!(Query::parse(&query.to_string()), Ok(query));
            }
            Err(error) => {
                prop_assert!(source.get(error.span.clone()).is_some());
                let _ = error.render(&source, "arbitrary");
            }
        }
    }
}
