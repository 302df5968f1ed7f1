//! Values, and how values of different types compare.
//!
//! Elasticsearch turns what a JSON document says into the type that the
//! field's mapping gives it: a keyword field holds `"0"` whether the document
//! said `0` or `"0"`. This engine has no mapping, so the *constant* of a
//! comparison decides: compared with text a number is its text, compared with
//! a number a text is the number it spells. Wherever Elasticsearch answers
//! rather than raising an error, the answer is the same.

use std::borrow::Cow;
use std::cmp::Ordering;

/// One value of a field, or one result of an expression. `null` is not a
/// value: it is the absence of any.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// Text.
    Text(Cow<'a, str>),
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<bool> for Value<'_> {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Value<'_> {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<u32> for Value<'_> {
    fn from(value: u32) -> Self {
        Self::Int(i64::from(value))
    }
}

impl From<u64> for Value<'_> {
    fn from(value: u64) -> Self {
        i64::try_from(value).map_or_else(|_| Self::Float(to_float(value)), Self::Int)
    }
}

impl From<f64> for Value<'_> {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "numbers beyond i64 are kept approximately, as Elasticsearch keeps them"
)]
pub(super) fn to_float(value: u64) -> f64 {
    value as f64
}

impl Value<'_> {
    /// The value as text. Allocates for anything but text.
    pub(super) fn as_text(&self) -> Cow<'_, str> {
        match self {
            Self::Bool(true) => Cow::Borrowed("true"),
            Self::Bool(false) => Cow::Borrowed("false"),
            Self::Int(value) => Cow::Owned(value.to_string()),
            // `{:?}` keeps the ".0" of a whole float, as Elasticsearch does.
            Self::Float(value) => Cow::Owned(format!("{value:?}")),
            Self::Text(text) => Cow::Borrowed(text),
        }
    }

    pub(super) fn as_number(&self) -> Option<Number> {
        match self {
            Self::Bool(_) => None,
            Self::Int(value) => Some(Number::Int(*value)),
            Self::Float(value) => Some(Number::Float(*value)),
            Self::Text(text) => Number::parse(text),
        }
    }

    pub(super) fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            Self::Text(text) if text == "true" => Some(true),
            Self::Text(text) if text == "false" => Some(false),
            _ => None,
        }
    }

    /// Compares a document's value with a constant, whose type decides.
    pub(super) fn compare(&self, constant: &Value<'_>) -> Option<Ordering> {
        match constant {
            Value::Bool(constant) => Some(self.as_bool()?.cmp(constant)),
            Value::Int(constant) => self.as_number()?.compare(Number::Int(*constant)),
            Value::Float(constant) => self.as_number()?.compare(Number::Float(*constant)),
            Value::Text(constant) => Some(self.as_text().as_bytes().cmp(constant.as_bytes())),
        }
    }

    /// The same value, borrowed.
    pub(super) fn borrow(&self) -> Value<'_> {
        match self {
            Self::Bool(value) => Value::Bool(*value),
            Self::Int(value) => Value::Int(*value),
            Self::Float(value) => Value::Float(*value),
            Self::Text(text) => Value::Text(Cow::Borrowed(text)),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    Int(i64),
    Float(f64),
}

impl From<Number> for Value<'_> {
    fn from(number: Number) -> Self {
        match number {
            Number::Int(value) => Self::Int(value),
            Number::Float(value) => Self::Float(value),
        }
    }
}

impl Number {
    /// A decimal number and nothing else: no "inf", "nan" or spaces.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if let Ok(value) = text.parse() {
            return Some(Self::Int(value));
        }
        let plain = |byte: u8| byte.is_ascii_digit() || b"+-.eE".contains(&byte);
        if !text.bytes().all(plain) {
            return None;
        }
        text.parse()
            .ok()
            .filter(|value: &f64| value.is_finite())
            .map(Self::Float)
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "arithmetic with a float is float arithmetic"
    )]
    pub(super) fn to_float(self) -> f64 {
        match self {
            Self::Int(value) => value as f64,
            Self::Float(value) => value,
        }
    }

    /// Exact, also where an integer has no float of its own.
    pub(super) fn compare(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Int(left), Self::Int(right)) => Some(left.cmp(&right)),
            (Self::Float(left), Self::Float(right)) => left.partial_cmp(&right),
            (Self::Int(left), Self::Float(right)) => compare_mixed(left, right),
            (Self::Float(left), Self::Int(right)) => {
                compare_mixed(right, left).map(Ordering::reverse)
            }
        }
    }
}

fn compare_mixed(int: i64, float: f64) -> Option<Ordering> {
    /// 2 to the 63rd, the first float above every i64.
    const ABOVE: f64 = 9_223_372_036_854_775_808.0;
    if float.is_nan() {
        None
    } else if float >= ABOVE {
        Some(Ordering::Less)
    } else if float < -ABOVE {
        Some(Ordering::Greater)
    } else {
        #[expect(clippy::cast_possible_truncation, reason = "the range was checked")]
        let whole = float.trunc() as i64;
        Some(
            int.cmp(&whole)
                .then_with(|| 0.0_f64.total_cmp(&(float.fract() + 0.0))),
        )
    }
}
