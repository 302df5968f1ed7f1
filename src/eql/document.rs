//! What a query is asked about: documents, the names of their fields, and the
//! values found below a name.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde_json::{Map, Value as Json};

use super::value::Value;

/// A field's name, split at its dots once, when the query is parsed.
#[derive(Clone, Debug)]
pub struct Field {
    name: Box<str>,
    /// Where each part ends in `name`.
    ends: Box<[usize]>,
    optional: bool,
    span: Range<usize>,
    /// Its number among the fields that documents are read for (`Wanted`).
    slot: Option<u32>,
}

/// Equal if they name the same field in the same way, wherever they stand.
impl PartialEq for Field {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.optional == other.optional
    }
}

impl Eq for Field {}

impl Field {
    /// A field by its dotted name, for fields that no query names
    /// (`event_category_override`). `None` if a part of the name is empty.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        Self::spanning(name, false, 0..0)
    }

    pub(super) fn spanning(name: &str, optional: bool, span: Range<usize>) -> Option<Self> {
        if name.split('.').any(str::is_empty) {
            return None;
        }
        Some(Self::split(name, optional, span))
    }

    /// A name from this program, known to have no empty part.
    pub(super) fn well_known(name: &'static str) -> Self {
        Self::split(name, false, 0..0)
    }

    fn split(name: &str, optional: bool, span: Range<usize>) -> Self {
        let dots = name.match_indices('.').map(|(dot, _)| dot);
        Self {
            name: name.into(),
            ends: dots.chain([name.len()]).collect(),
            optional,
            span,
            slot: None,
        }
    }

    /// The number under which [`Wanted`](super::Wanted) keeps it, once it has one.
    pub(super) fn slot(&self) -> Option<u32> {
        self.slot
    }

    /// Has documents read for it ([`Scan`](super::Scan)) keep this field.
    pub fn number(&mut self, wanted: &mut super::Wanted) {
        self.slot = Some(wanted.add(&self.name));
    }

    /// The whole name, parts joined by dots, without backticks.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The parts between the dots.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.name.split('.')
    }

    /// How many parts there are, at least one.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.ends.len()
    }

    /// The parts from `range.start` up to but without `range.end`, dots between them.
    /// Panics, as a slice does, where the range is not within [`depth`](Self::depth).
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> &str {
        let start = match range.start {
            0 => 0,
            part => self.ends[part - 1] + 1,
        };
        match range.end {
            end if end > range.start => &self.name[start..self.ends[end - 1]],
            _ => "",
        }
    }

    /// Written `?field`: known to be absent from some schemas.
    #[must_use]
    pub fn is_optional(&self) -> bool {
        self.optional
    }

    /// Where the name stands in the query, in bytes.
    #[must_use]
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }
}

/// As the query must write it: `?` if optional, backticks where needed.
impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        super::print::field(self, f)
    }
}

/// Something that has fields. A missing field, a null and an empty list are
/// the same: no values.
pub trait Document {
    /// All values of `field`: several where it is a list.
    fn get<'a>(&'a self, field: &Field) -> Values<'a>;

    /// Whether one of the values satisfies `test`, which is asked no more then.
    fn visit<'a>(&'a self, field: &Field, test: &mut dyn FnMut(Value<'a>) -> bool) -> bool {
        self.get(field).into_iter().any(test)
    }
}

impl<D: Document + ?Sized> Document for &D {
    fn get<'a>(&'a self, field: &Field) -> Values<'a> {
        (**self).get(field)
    }

    fn visit<'a>(&'a self, field: &Field, test: &mut dyn FnMut(Value<'a>) -> bool) -> bool {
        (**self).visit(field, test)
    }
}

/// Objects, dotted keys and mixtures of both; lists of objects are flattened,
/// as Elasticsearch does.
impl Document for Map<String, Json> {
    fn get<'a>(&'a self, field: &Field) -> Values<'a> {
        let mut values = Values::none();
        collect(self, field, 0, &mut values);
        values
    }
}

/// As its object; anything but an object has no fields.
impl Document for Json {
    fn get<'a>(&'a self, field: &Field) -> Values<'a> {
        match self {
            Json::Object(object) => Document::get(object, field),
            _ => Values::none(),
        }
    }
}

/// Tries every way to cut the rest of the name into a key and a remainder.
/// One position in the document is reached by one cut only, so that the work
/// is bounded by the document's size.
fn collect<'a>(object: &'a Map<String, Json>, field: &Field, from: usize, values: &mut Values<'a>) {
    for to in from + 1..=field.depth() {
        if let Some(found) = object.get(field.slice(from..to)) {
            if to == field.depth() {
                values.push_json(found);
            } else {
                descend(found, field, to, values);
            }
        }
    }
}

fn descend<'a>(json: &'a Json, field: &Field, from: usize, values: &mut Values<'a>) {
    match json {
        Json::Object(object) => collect(object, field, from, values),
        Json::Array(items) => {
            for item in items {
                descend(item, field, from, values);
            }
        }
        _ => {}
    }
}

/// The values of one field in one document.
#[derive(Clone, Debug, Default)]
pub struct Values<'a>(Repr<'a>);

#[derive(Clone, Debug, Default)]
enum Repr<'a> {
    #[default]
    None,
    One(Value<'a>),
    /// A list of scalars as it stands in the document, with a value in it.
    List(&'a [Json]),
    Many(Vec<Value<'a>>),
    /// Several, kept elsewhere.
    Borrowed(&'a [Value<'a>]),
}

impl<'a> Values<'a> {
    /// The field is missing.
    #[must_use]
    pub fn none() -> Self {
        Self(Repr::None)
    }

    /// The field has one value.
    #[must_use]
    pub fn one(value: impl Into<Value<'a>>) -> Self {
        Self(Repr::One(value.into()))
    }

    /// True if the field is missing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self.0, Repr::None)
    }

    /// The text, if there is one value and it is text.
    pub(super) fn as_single_text(&self) -> Option<&str> {
        match &self.0 {
            Repr::One(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// As [`Document::visit`], without a copy.
    pub(super) fn visit<'v>(&'v self, test: &mut dyn FnMut(Value<'v>) -> bool) -> bool {
        match &self.0 {
            Repr::None => false,
            Repr::One(value) => test(value.borrow()),
            Repr::List(list) => list.iter().filter_map(scalar).any(test),
            Repr::Many(values) => values.iter().map(Value::borrow).any(test),
            Repr::Borrowed(values) => values.iter().map(Value::borrow).any(test),
        }
    }

    /// The same values, borrowed.
    pub(super) fn borrowed(&self) -> Values<'_> {
        Values(match &self.0 {
            Repr::None => Repr::None,
            Repr::One(value) => Repr::One(value.borrow()),
            Repr::List(list) => Repr::List(list),
            Repr::Many(values) => Repr::Borrowed(values),
            Repr::Borrowed(values) => Repr::Borrowed(values),
        })
    }

    /// Adds a value.
    pub fn push(&mut self, value: Value<'a>) {
        self.0 = match std::mem::take(&mut self.0) {
            Repr::None => Repr::One(value),
            Repr::One(first) => Repr::Many(vec![first, value]),
            Repr::List(list) => Repr::Many(list.iter().filter_map(scalar).chain([value]).collect()),
            Repr::Borrowed(list) => Repr::Many(list.iter().cloned().chain([value]).collect()),
            Repr::Many(mut values) => {
                values.push(value);
                Repr::Many(values)
            }
        };
    }

    fn push_json(&mut self, json: &'a Json) {
        let Json::Array(items) = json else {
            if let Some(value) = scalar(json) {
                self.push(value);
            }
            return;
        };
        let nested = |item: &Json| item.is_array() || item.is_object();
        if self.is_empty() && !items.iter().any(nested) {
            if !items.iter().all(Json::is_null) {
                self.0 = Repr::List(items);
            }
        } else {
            for item in items {
                self.push_json(item);
            }
        }
    }
}

impl<'a, V: Into<Value<'a>>> FromIterator<V> for Values<'a> {
    fn from_iter<I: IntoIterator<Item = V>>(values: I) -> Self {
        let mut all = Self::none();
        for value in values {
            all.push(value.into());
        }
        all
    }
}

impl<'a> IntoIterator for Values<'a> {
    type Item = Value<'a>;
    type IntoIter = IntoIter<'a>;

    fn into_iter(self) -> IntoIter<'a> {
        IntoIter(match self.0 {
            Repr::None => Iter::One(None),
            Repr::One(value) => Iter::One(Some(value)),
            Repr::List(list) => Iter::List(list.iter()),
            Repr::Many(values) => Iter::Many(values.into_iter()),
            Repr::Borrowed(values) => Iter::Borrowed(values.iter()),
        })
    }
}

/// Iterates over [`Values`].
#[derive(Debug)]
pub struct IntoIter<'a>(Iter<'a>);

#[derive(Debug)]
enum Iter<'a> {
    One(Option<Value<'a>>),
    List(std::slice::Iter<'a, Json>),
    Many(std::vec::IntoIter<Value<'a>>),
    Borrowed(std::slice::Iter<'a, Value<'a>>),
}

impl<'a> Iterator for IntoIter<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        match &mut self.0 {
            Iter::One(value) => value.take(),
            Iter::List(list) => list.find_map(scalar),
            Iter::Many(values) => values.next(),
            Iter::Borrowed(values) => values.next().map(Value::borrow),
        }
    }
}

fn scalar(json: &Json) -> Option<Value<'_>> {
    match json {
        Json::Bool(value) => Some(Value::Bool(*value)),
        Json::Number(number) => number
            .as_i64()
            .map(Value::Int)
            .or_else(|| number.as_f64().map(Value::Float)),
        Json::String(text) => Some(Value::Text(Cow::Borrowed(text))),
        Json::Null | Json::Array(_) | Json::Object(_) => None,
    }
}
