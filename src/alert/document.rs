//! One ECS document: a tree of JSON with dotted names.
//!
//! Owns the shape (nested objects, no empty values) and its one-line form. Must
//! not know which fields there are. Cannot fail.

use std::fmt;

use serde_json::{Map, Value};

use crate::{eql, text};

/// An ECS document. `Display` gives one line of JSON, without a newline.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Document(Map<String, Value>);

impl Document {
    /// An empty document.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The value at a dotted path such as `file.path`.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Value> {
        let mut parts = path.split('.');
        let first = self.0.get(parts.next()?)?;
        parts.try_fold(first, |value, part| value.get(part))
    }

    /// The text at a dotted path, also if it is a list with one text in it,
    /// which means the same in Elasticsearch.
    #[must_use]
    pub fn str(&self, path: &str) -> Option<&str> {
        match self.get(path)? {
            Value::Array(list) => match list.as_slice() {
                [one] => one.as_str(),
                _ => None,
            },
            value => value.as_str(),
        }
    }

    /// The whole number at a dotted path.
    #[must_use]
    pub fn number(&self, path: &str) -> Option<u64> {
        self.get(path)?.as_u64()
    }

    /// Sets the value at a dotted path and makes the objects on the way. What
    /// is null or an empty list is left out: in ECS absence is the only way to
    /// say that something is unknown.
    pub fn set(&mut self, path: &str, value: impl Into<Value>) {
        let value = value.into();
        if value.is_null() || value.as_array().is_some_and(Vec::is_empty) {
            return;
        }
        let (parents, name) = match path.rsplit_once('.') {
            Some((parents, name)) => (Some(parents), name),
            None => (None, path),
        };
        let mut object = &mut self.0;
        for part in parents.into_iter().flat_map(|parents| parents.split('.')) {
            // `entry` would want a key of its own even where there is one.
            if !object.get(part).is_some_and(Value::is_object) {
                object.insert(part.to_owned(), Value::Object(Map::new()));
            }
            let Some(Value::Object(inner)) = object.get_mut(part) else {
                return;
            };
            object = inner;
        }
        object.insert(name.to_owned(), value);
    }

    /// Appends texts to the list at a dotted path, each only once.
    pub fn add<I>(&mut self, path: &str, texts: I)
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        let mut list = match self.get(path) {
            Some(Value::Array(list)) => list.clone(),
            _ => Vec::new(),
        };
        for text in texts {
            let text = Value::String(text.into());
            if !list.contains(&text) {
                list.push(text);
            }
        }
        self.set(path, list);
    }

    /// Moves a top-level object to the end.
    pub(super) fn move_last(&mut self, key: &str) {
        if let Some((key, value)) = self.0.shift_remove_entry(key) {
            self.0.insert(key, value);
        }
    }

    /// Appends the parts of another document that this one does not have.
    pub(super) fn fill_from(&mut self, other: Self) {
        fill(&mut self.0, other.0);
    }

    /// The document as a JSON object.
    #[must_use]
    pub fn as_map(&self) -> &Map<String, Value> {
        &self.0
    }

    /// The document as a JSON object.
    #[must_use]
    pub fn into_map(self) -> Map<String, Value> {
        self.0
    }

    /// One line of JSON, without a newline.
    #[must_use]
    pub fn to_line(&self) -> String {
        self.to_string()
    }
}

impl From<Map<String, Value>> for Document {
    fn from(map: Map<String, Value>) -> Self {
        Self(map)
    }
}

/// As its JSON object.
impl eql::Document for Document {
    fn get<'a>(&'a self, field: &eql::Field) -> eql::Values<'a> {
        eql::Document::get(&self.0, field)
    }
}

impl fmt::Display for Document {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&text::json_line(&self.0))
    }
}

fn fill(target: &mut Map<String, Value>, source: Map<String, Value>) {
    for (key, value) in source {
        match (target.get_mut(&key), value) {
            (None, value) => {
                target.insert(key, value);
            }
            (Some(Value::Object(inner)), Value::Object(more)) => fill(inner, more),
            (Some(_), _) => {}
        }
    }
}
