//! Reading a document by dotted field names.
//!
//! Owns the walk, nested or flattened (`{"file":{"path":…}}`, `{"file.path":…}`,
//! as foreign lines in a log may have it). Pure. A field of another type than
//! asked for is as absent as one that is not there.

use serde_json::{Map, Value};

/// The value at a dotted name.
#[must_use]
pub fn field<'a>(document: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    if let Some(value) = document.get(name) {
        return Some(value);
    }
    name.match_indices('.').find_map(|(dot, _)| {
        let inner = document.get(&name[..dot])?.as_object()?;
        field(inner, &name[dot + 1..])
    })
}

/// The text at a dotted name; of an array, its first text.
#[must_use]
pub fn text<'a>(document: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    match field(document, name)? {
        Value::String(text) => Some(text),
        Value::Array(values) => values.iter().find_map(Value::as_str),
        _ => None,
    }
}

/// The texts at a dotted name, whether it holds one or an array of them.
#[must_use]
pub fn strings<'a>(document: &'a Map<String, Value>, name: &str) -> Vec<&'a str> {
    match field(document, name) {
        Some(Value::String(text)) => vec![text],
        Some(Value::Array(values)) => values.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// The whole number at a dotted name.
#[must_use]
pub fn number(document: &Map<String, Value>, name: &str) -> Option<u64> {
    field(document, name)?.as_u64()
}

/// A text, number or truth value as text (ids are strings in ECS, pids numbers).
pub(super) fn scalar(document: &Map<String, Value>, name: &str) -> Option<String> {
    match field(document, name)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn finds_nested_flattened_and_mixed_names() {
        let document =
            json!({"a": {"b": {"c": "1"}, "d.e": 2}, "f.g": {"h": ["x", "y"]}, "n": null});
        let document = document.as_object().unwrap();
        assert_eq!(text(document, "a.b.c"), Some("1"));
        assert_eq!(number(document, "a.d.e"), Some(2));
        assert_eq!(strings(document, "f.g.h"), ["x", "y"]);
        assert_eq!(text(document, "f.g.h"), Some("x"));
        assert_eq!(field(document, "a.b.x"), None);
        assert_eq!(text(document, "a.b"), None);
        assert_eq!(scalar(document, "a.d.e").as_deref(), Some("2"));
        assert_eq!(scalar(document, "n"), None);
    }
}
