//! Where in a document a field's values are found.

use serde_json::{Value as Json, json};

use crate::eql::{Document, Field, Value, Values};

#[track_caller]
fn finds(document: &Json, name: &str, expected: &[Value<'_>]) {
    let field = Field::new(name).unwrap();
    let values: Vec<_> = Document::get(document, &field).into_iter().collect();
    assert_eq!(values, expected, "{name} in {document}");
    assert_eq!(
        Document::get(document, &field).is_empty(),
        expected.is_empty()
    );
}

#[test]
fn nested_dotted_and_mixed_names_are_the_same_field() {
    for document in [
        json!({ "process": { "parent": { "pid": 7 } } }),
        json!({ "process.parent.pid": 7 }),
        json!({ "process": { "parent.pid": 7 } }),
        json!({ "process.parent": { "pid": 7 } }),
        json!({ "process": [{ "parent": [{ "pid": [7] }] }] }),
    ] {
        finds(&document, "process.parent.pid", &[Value::Int(7)]);
    }
}

#[test]
fn several_places_and_lists_add_up() {
    let document = json!({
        "a": { "b": [1, [2, null]], "c": "x" },
        "a.b": 3,
        "list": [{ "executable": "/bin/sh" }, { "executable": "/sbin/init" }, { "pid": 1 }, 5],
        "nulls": [null, null],
        "none": [],
        "nothing": null,
        "mixed": [null, true, 1.5, "t"],
        "object": { "x": 1 },
    });
    finds(
        &document,
        "a.b",
        &[Value::Int(1), Value::Int(2), Value::Int(3)],
    );
    finds(
        &document,
        "list.executable",
        &["/bin/sh".into(), "/sbin/init".into()],
    );
    finds(
        &document,
        "mixed",
        &[Value::Bool(true), Value::Float(1.5), "t".into()],
    );
    for missing in [
        "nulls", "none", "nothing", "object", "a", "a.c.d", "A.b", "absent",
    ] {
        finds(&document, missing, &[]);
    }
    finds(&json!("text"), "a", &[]);
}

#[test]
fn names_have_no_empty_parts() {
    for name in ["", ".", "a.", ".a", "a..b"] {
        assert_eq!(Field::new(name), None, "{name}");
    }
}

#[test]
fn other_documents_hand_out_their_own_values() {
    struct Own;
    impl Document for Own {
        fn get<'a>(&'a self, field: &Field) -> Values<'a> {
            match field.name() {
                "one" => Values::one("x"),
                "many" => ["x", "y"].into_iter().collect(),
                _ => Values::none(),
            }
        }
    }
    let holds = |source| crate::eql::Condition::parse(source).unwrap().matches(&Own);
    assert!(holds(r#"one == "x" and many == "y" and none == null"#));
    let mut values = Values::one(1_i64);
    values.push(Value::Int(2));
    values.push(Value::Int(3));
    assert_eq!(values.into_iter().count(), 3);
}
