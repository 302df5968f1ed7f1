//! What is refused, in which words, and where.

use crate::eql::{Condition, Query};

/// Each broken query, the part that the error points at, its words, its help.
const INVALID: &[(&str, &str, &str, Option<&str>)] = &[
    (
        "",
        "",
        "expected an event category, found the end",
        Some("a query begins with `file where`, or `any where` for all events"),
    ),
    (
        "process.name == \"x\"",
        ".",
        "expected `where` after the event category, found `.`",
        Some("a query begins with `file where`, or `any where` for all events"),
    ),
    (
        "file WHERE true",
        "WHERE",
        "`WHERE` is not a keyword",
        Some("keywords are lower case: write `where`"),
    ),
    (
        "`file` where true",
        "`file`",
        "an event category is not quoted with backticks",
        Some("write it in double quotes"),
    ),
    (
        "file where",
        "",
        "expected a field, a value, a function, `not` or `(`, found the end",
        None,
    ),
    (
        "file where a == \"x\" AND b",
        "AND",
        "`AND` is not a keyword",
        Some("keywords are lower case: write `and`"),
    ),
    (
        "file where (a == \"x\" Or b)",
        "Or",
        "`Or` is not a keyword",
        Some("keywords are lower case: write `or`"),
    ),
    (
        "file where NOT a",
        "NOT",
        "`NOT` is not a keyword",
        Some("keywords are lower case: write `not`"),
    ),
    (
        "file where a == NULL",
        "NULL",
        "`NULL` is not a keyword",
        Some("keywords are lower case: write `null`"),
    ),
    (
        "file where a LIKE~ \"x\"",
        "LIKE~",
        "`LIKE~` is not a keyword",
        Some("keywords are lower case: write `like`"),
    ),
    (
        "file where a == 'x'",
        "'",
        "a string in single quotes is not EQL",
        Some("write it in double quotes"),
    ),
    (
        "file where a = \"x\"",
        "=",
        "`=` is not an operator",
        Some("write `==` for the same text, `:` for text with wildcards in any case"),
    ),
    (
        "file where a && b",
        "&&",
        "`&&` is not an operator",
        Some("write `and`"),
    ),
    (
        "file where a || b",
        "|",
        "expected the name of a pipe, found `|`",
        Some("for alternatives write `or`"),
    ),
    (
        "file where !a",
        "!",
        "`!` is not an operator",
        Some("write `not`"),
    ),
    (
        "file where a : ?\"x\"",
        "?\"",
        "`?` before a string is not EQL",
        Some("write a raw string between `\"\"\"`"),
    ),
    (
        "file where a == \"x",
        "\"",
        "this string is not closed on its line",
        Some("end it with `\"`; a string over several lines stands between `\"\"\"`"),
    ),
    (
        "file where a == \"\"\"x\"",
        "\"\"\"",
        "this raw string is not closed",
        Some("end it with `\"\"\"`"),
    ),
    (
        "file where a : \"C:\\Windows\"",
        "\\W",
        "`\\W` is not an escape",
        Some(
            "write a backslash as `\\\\`, or the whole string between `\"\"\"`, where nothing is escaped",
        ),
    ),
    (
        "file where a : \"\\u{d800}\"",
        "\\u{d800}",
        "there is no Unicode character d800",
        None,
    ),
    (
        "file where a : \"\\u{1}\"",
        "\\u{1}",
        "this is not a Unicode escape",
        Some("write `\\u{…}` with two to eight hexadecimal digits, as in `\\u{200f}`"),
    ),
    (
        "file where a /* b",
        "/*",
        "this comment is not closed",
        Some("end it with `*/`"),
    ),
    (
        "file where `a == 1",
        "`",
        "this name in backticks is not closed",
        Some("end it with a backtick; a backtick in a name is written twice"),
    ),
    (
        "file where 6a == 1",
        "6a",
        "`6a` is neither a number nor a name",
        Some("a part of a field's name that starts with a digit stands in backticks"),
    ),
    (
        "file where a == 1e999",
        "1e999",
        "this number is too large",
        None,
    ),
    (
        "file where a == \u{a0}1",
        "\u{a0}",
        "U+00A0 has no meaning here",
        None,
    ),
    (
        "file where a. == 1",
        "==",
        "expected a part of a field's name, found `==`",
        None,
    ),
    (
        "file where `` == 1",
        "``",
        "a part of this field's name is empty",
        None,
    ),
    (
        "file where by == 1",
        "by",
        "expected a field, a value, a function, `not` or `(`, found `by`",
        Some("`by` is a keyword; a field of that name stands in backticks"),
    ),
    ("file where (a == 1", "(", "this `(` is not closed", None),
    ("file where a == 1)", ")", "this `)` closes nothing", None),
    (
        "file where (a b)",
        "b",
        "expected an operator, `and`, `or` or `)`, found `b`",
        None,
    ),
    (
        "file where a b",
        "b",
        "expected an operator, `and`, `or` or the end, found `b`",
        None,
    ),
    (
        "file where 1 < a <= 3",
        "<=",
        "comparisons do not chain",
        Some("join two comparisons with `and`"),
    ),
    (
        "file where a == b in (1)",
        "in",
        "comparisons do not chain",
        Some("join two comparisons with `and`"),
    ),
    (
        "file where a == b",
        "a == b",
        "a field cannot be compared with a field",
        Some("compare each of them with a value"),
    ),
    (
        "file where length(a) > b + 1",
        "length(a) > b + 1",
        "a field cannot be compared with a field",
        Some("compare each of them with a value"),
    ),
    (
        "file where a in (1, b)",
        "b",
        "a field cannot be compared with a field",
        Some("a list holds values"),
    ),
    (
        "file where a in (1, null)",
        "null",
        "`null` cannot stand in a list",
        Some("write `field == null or field in (…)`"),
    ),
    (
        "file where a in \"x\"",
        "\"x\"",
        "expected a list in parentheses after `in`, found `\"x\"`",
        None,
    ),
    (
        "file where a in ()",
        ")",
        "expected a field, a value, a function, `not` or `(`, found `)`",
        None,
    ),
    (
        "file where a : (\"x\" \"y\")",
        "\"y\"",
        "expected `,` or `)`, found `\"y\"`",
        None,
    ),
    (
        "file where a : 4",
        "4",
        "`:` compares text, not numbers",
        Some("write `==` or `in`"),
    ),
    (
        "file where a like~ b",
        "b",
        "expected a string, or strings in parentheses, after `like~`, found `b`",
        None,
    ),
    (
        "file where a not like \"x\"",
        "like",
        "expected `in` or `in~` after `not`, found `like`",
        Some("put `not` before the field for other operators: `not field like …`"),
    ),
    (
        "file where a == not b",
        "not",
        "expected a value, found `not`",
        Some("put a negated condition in parentheses"),
    ),
    (
        "file where \"x\"",
        "\"x\"",
        "expected a condition, found text",
        Some("compare it with something, as in `field == \"value\"`"),
    ),
    (
        "file where a + 1",
        "a + 1",
        "expected a condition, found a number",
        Some("compare it with something, as in `field == \"value\"`"),
    ),
    (
        "file where length(a) == \"x\"",
        "length(a) == \"x\"",
        "a number is never equal to text",
        None,
    ),
    (
        "file where a < true",
        "true",
        "true or false is neither less nor greater than anything",
        Some("only `==` and `!=` can be used here"),
    ),
    (
        "file where a + \"x\" == 1",
        "\"x\"",
        "`+` takes a number, found text",
        None,
    ),
    (
        "file where length(5) == 1",
        "5",
        "`length` takes text, found a number",
        None,
    ),
    (
        "file where length() == 1",
        "length()",
        "`length` takes 1 argument, not 0",
        None,
    ),
    (
        "file where between(a, \"x\") == \"\"",
        "between(a, \"x\")",
        "`between` takes 3 to 4 arguments, not 2",
        None,
    ),
    (
        "file where cidrMatch(a)",
        "cidrMatch(a)",
        "`cidrMatch` takes at least 2 arguments, not 1",
        None,
    ),
    (
        "file where cidrMatch(a, \"10.0.0.0/40\")",
        "\"10.0.0.0/40\"",
        "this is not a block of IP addresses",
        Some("write an address and a prefix length, as in `10.0.0.0/8`"),
    ),
    (
        "file where startWith(a, \"x\")",
        "startWith",
        "there is no function `startWith`",
        Some("did you mean `startsWith`?"),
    ),
    (
        "file where wildcard(a, \"x\")",
        "wildcard",
        "there is no function `wildcard`",
        Some("write `field : (\"…\", \"…\")`"),
    ),
    (
        "file where frobnicate(a)",
        "frobnicate",
        "there is no function `frobnicate`",
        None,
    ),
    (
        "file where length~(a) == 1",
        "length~",
        "`length` has no `~`, since it compares no letters",
        Some("write `length(…)`"),
    ),
    (
        "file where a regex \"a&b\"",
        "\"a&b\"",
        "`&` (both at once) in a regular expression is not supported",
        Some("write two conditions joined by `and`, or `\\&` for the character"),
    ),
    (
        "file where a regex (\"x\", \"((a{999}){999}){999}\")",
        "\"x\", \"((a{999}){999}){999}\"",
        "this regular expression is too large or too deeply nested",
        Some("use smaller repetitions, or split it into several rules"),
    ),
    (
        "file where true | head",
        "",
        "expected a whole number of events, found the end",
        None,
    ),
    (
        "file where a == ~ 1",
        "~",
        "`~` stands right behind an operator or a function",
        Some("write `in~`, `like~`, `regex~` or `function~(…)`, without a blank"),
    ),
];

/// Valid EQL that needs more than one event.
const UNSUPPORTED: &[(&str, &str, &str)] = &[
    (
        "sequence by a [file where true] [process where true]",
        "sequence",
        "`sequence` is not supported",
    ),
    (
        "sample by a [file where true] [process where true]",
        "sample",
        "`sample` is not supported",
    ),
    (
        "join by a [file where true] [process where true]",
        "join",
        "`join` is not supported",
    ),
    ("file where true by a", "by", "`by` is not supported"),
    (
        "file where a == 1 until [x where true]",
        "until",
        "`until` is not supported",
    ),
    (
        "file where a with maxspan=1m",
        "with",
        "`with` is not supported",
    ),
    (
        "process where child of [process where true]",
        "child",
        "`child of` is not supported",
    ),
    (
        "file where a[0] == 1",
        "[",
        "`[…]` is not supported: a comparison with a list holds if one of its elements satisfies it",
    ),
    (
        "file where length(a[0]) == 1",
        "[",
        "`[…]` is not supported: a comparison with a list holds if one of its elements satisfies it",
    ),
    (
        "file where true | count",
        "count",
        "the pipe `count` is not supported",
    ),
    (
        "file where true | head 5 | unique a",
        "unique",
        "the pipe `unique` is not supported",
    ),
];

#[test]
fn broken_queries() {
    for (source, part, message, help) in INVALID {
        let error = Query::parse(source).expect_err(source);
        assert_eq!(error.message, *message, "{source}");
        assert_eq!(&source[error.span.clone()], *part, "{source}");
        assert_eq!(error.help.as_deref(), *help, "{source}");
        assert!(!error.is_unsupported(), "{source}");
    }
}

#[test]
fn unsupported_queries() {
    for (source, part, message) in UNSUPPORTED {
        let error = Query::parse(source).expect_err(source);
        assert_eq!(error.message, *message, "{source}");
        assert_eq!(&source[error.span.clone()], *part, "{source}");
        assert!(error.is_unsupported(), "{source}");
    }
}

#[test]
fn a_condition_has_no_category() {
    let source = "file where true";
    let error = Condition::parse(source).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a condition alone is wanted here, without an event category \
         (leave out everything up to `where`)"
    );
    assert_eq!(&source[error.span], "file where");
}

#[test]
fn a_condition_has_no_pipes() {
    let error = Condition::parse("true | head 1").unwrap_err();
    assert_eq!(
        error.message,
        "expected an operator, `and`, `or` or the end, found `|`"
    );
}

#[test]
fn lines_and_columns_count_characters_from_one() {
    let source = "file where\n  a == \"üü\" and\n  \"üü\" = b";
    let error = Query::parse(source).unwrap_err();
    assert_eq!(error.position(source), (3, 8));
    assert_eq!((error.line(source), error.column(source)), (3, 8));
    // A span of another text does not panic.
    assert_eq!(error.position("ü"), (1, 2));
}

#[test]
fn rendered_with_a_caret() {
    let source = "file where\n  a == \"x\" AND b";
    let error = Query::parse(source).unwrap_err();
    assert_eq!(
        error.render(source, "rules/x.toml"),
        "\
error: `AND` is not a keyword
 --> rules/x.toml:2:12
  |
2 |   a == \"x\" AND b
  |            ^^^
  |
  = help: keywords are lower case: write `and`"
    );
    let empty = Query::parse("").unwrap_err().render("", "x");
    assert!(
        empty.starts_with("error: expected an event category"),
        "{empty}"
    );
}

#[test]
fn control_characters_are_not_repeated() {
    let error = Query::parse("file where a \"\u{1b}[31m\u{7}\"").unwrap_err();
    assert!(!error.to_string().contains(char::is_control), "{error:?}");
    let error = Query::parse("file where \u{1b}").unwrap_err();
    assert_eq!(error.message, "U+001B has no meaning here");
    let error = Query::parse("file where \"\\\u{7}\"").unwrap_err();
    assert!(!error.to_string().contains(char::is_control), "{error:?}");
}

#[test]
fn nesting_is_bounded() {
    let deep = |open: &str, close: &str, count: usize| {
        let source = format!("{}a{}", open.repeat(count), close.repeat(count));
        Condition::parse(&source)
    };
    for (open, close) in [
        ("(", ")"),
        ("not ", ""),
        ("(not ", ")"),
        ("not (1 == 1 and ", ")"),
    ] {
        assert!(deep(open, close, 60).is_ok(), "{open}");
        for count in [201, 100_000] {
            let error = deep(open, close, count).expect_err(open);
            assert_eq!(
                error.message,
                "the query is nested more than 200 levels deep"
            );
        }
    }
    let sums = |count: usize| Condition::parse(&format!("a{} == 1", " + 1".repeat(count)));
    assert!(sums(190).is_ok());
    assert!(sums(100_000).is_err());
    let calls = |count: usize| {
        Condition::parse(&format!(
            "{}a{} == \"1\"",
            "string(".repeat(count),
            ")".repeat(count)
        ))
    };
    assert!(calls(190).is_ok());
    assert!(calls(100_000).is_err());
    assert!(Condition::parse(&format!("{}1 == 1", "-".repeat(100_000))).is_err());
    // Chains are not nested.
    let chain = vec!["a == 1"; 20_000].join(" or ");
    assert!(
        Condition::parse(&chain)
            .unwrap()
            .matches(&serde_json::json!({ "a": 1 }))
    );
}

/// Within the stack that a thread has by default, even in a debug build.
#[test]
fn the_deepest_queries_are_handled_within_a_thread_s_stack() {
    const DEFAULT_STACK: usize = 2 << 20;
    let wrapped = |open: &str, count: usize, close: &str| {
        format!("{}a{}", open.repeat(count), close.repeat(count))
    };
    let deepest = [
        wrapped("(", 199, ")"),
        wrapped("(not ", 99, ")"),
        wrapped("not (b and ", 66, ")"),
        wrapped("string(", 197, ")") + " == \"1\"",
        format!("a{} == 198", " + 1".repeat(197)),
    ];
    std::thread::Builder::new()
        .stack_size(DEFAULT_STACK)
        .spawn(move || {
            let event = serde_json::json!({ "a": 1, "b": false });
            for source in deepest {
                let condition = Condition::parse(&source).expect(&source);
                let printed = condition.to_string();
                assert_eq!(Condition::parse(&printed).expect(&printed), condition);
                let twin = condition.clone();
                drop(condition);
                assert_eq!(twin.fields().next().map(|f| f.name().len()), Some(1));
                let _decided = twin.matches(&event);
            }
        })
        .expect("a thread")
        .join()
        .expect("no panic");
}
