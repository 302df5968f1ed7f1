//! EQL's functions: what they are called, what they take, what they give.
//!
//! Positions and lengths count characters. A function that cannot answer (a
//! null argument, text that is no number, a division by zero, an overflow)
//! gives null, where Elasticsearch would give null or fail the whole search.

use std::borrow::Cow;
use std::ops::Range;

use super::error::Error;
use super::value::{Number, Value};

/// A function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are EQL's own")]
pub enum Function {
    Add,
    Between,
    CidrMatch,
    Concat,
    Divide,
    EndsWith,
    IndexOf,
    Length,
    Modulo,
    Multiply,
    Number,
    StartsWith,
    String,
    StringContains,
    Substring,
    Subtract,
}

/// What is known about a value before any event is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Bool,
    Number,
    Text,
    Null,
    Any,
}

impl Type {
    pub(super) fn describe(self) -> &'static str {
        match self {
            Self::Bool => "true or false",
            Self::Number => "a number",
            Self::Text => "text",
            Self::Null => "null",
            Self::Any => "a value",
        }
    }

    /// False if no value of this type can stand where `wanted` is wanted.
    pub(super) fn fits(self, wanted: Self) -> bool {
        self == wanted || matches!(self, Self::Any | Self::Null) || wanted == Self::Any
    }
}

struct Signature {
    name: &'static str,
    /// The least number of arguments.
    least: usize,
    /// The most; `None` for any number of the last parameter's type.
    most: Option<usize>,
    params: &'static [Type],
    returns: Type,
    /// Has a twin with `~`.
    folds: bool,
}

const fn arithmetic(name: &'static str) -> Signature {
    Signature {
        name,
        least: 2,
        most: Some(2),
        params: &[Type::Number, Type::Number],
        returns: Type::Number,
        folds: false,
    }
}

const fn test(name: &'static str) -> Signature {
    Signature {
        name,
        least: 2,
        most: Some(2),
        params: &[Type::Text, Type::Text],
        returns: Type::Bool,
        folds: true,
    }
}

impl Function {
    const ALL: [Self; 16] = [
        Self::Add,
        Self::Between,
        Self::CidrMatch,
        Self::Concat,
        Self::Divide,
        Self::EndsWith,
        Self::IndexOf,
        Self::Length,
        Self::Modulo,
        Self::Multiply,
        Self::Number,
        Self::StartsWith,
        Self::String,
        Self::StringContains,
        Self::Substring,
        Self::Subtract,
    ];

    fn signature(self) -> Signature {
        let function = |name, least, most, params, returns| Signature {
            name,
            least,
            most,
            params,
            returns,
            folds: matches!(self, Self::Between | Self::IndexOf),
        };
        match self {
            Self::Add => arithmetic("add"),
            Self::Between => function(
                "between",
                3,
                Some(4),
                &[Type::Text, Type::Text, Type::Text, Type::Bool],
                Type::Text,
            ),
            Self::CidrMatch => function("cidrMatch", 2, None, &[Type::Text], Type::Bool),
            Self::Concat => function("concat", 1, None, &[Type::Any], Type::Text),
            Self::Divide => arithmetic("divide"),
            Self::EndsWith => test("endsWith"),
            Self::IndexOf => function(
                "indexOf",
                2,
                Some(3),
                &[Type::Text, Type::Text, Type::Number],
                Type::Number,
            ),
            Self::Length => function("length", 1, Some(1), &[Type::Text], Type::Number),
            Self::Modulo => arithmetic("modulo"),
            Self::Multiply => arithmetic("multiply"),
            Self::Number => function(
                "number",
                1,
                Some(2),
                &[Type::Text, Type::Number],
                Type::Number,
            ),
            Self::StartsWith => test("startsWith"),
            Self::String => function("string", 1, Some(1), &[Type::Any], Type::Text),
            Self::StringContains => test("stringContains"),
            Self::Substring => function(
                "substring",
                2,
                Some(3),
                &[Type::Text, Type::Number, Type::Number],
                Type::Text,
            ),
            Self::Subtract => arithmetic("subtract"),
        }
    }

    /// Its name in a query, without `~`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.signature().name
    }

    pub(super) fn folds(self) -> bool {
        self.signature().folds
    }

    pub(super) fn returns(self) -> Type {
        self.signature().returns
    }

    pub(super) fn param(self, index: usize) -> Type {
        let params = self.signature().params;
        params[index.min(params.len() - 1)]
    }

    pub(super) fn check_count(self, count: usize, span: Range<usize>) -> Result<(), Error> {
        let Signature {
            name, least, most, ..
        } = self.signature();
        if count >= least && most.is_none_or(|most| count <= most) {
            return Ok(());
        }
        let wanted = match most {
            None => format!("at least {least}"),
            Some(most) if most == least => least.to_string(),
            Some(most) => format!("{least} to {most}"),
        };
        let noun = if least == 1 && most.is_none_or(|most| most == 1) {
            "argument"
        } else {
            "arguments"
        };
        Err(Error::new(
            span,
            format!("`{name}` takes {wanted} {noun}, not {count}"),
        ))
    }

    /// The result for one value of each argument; `None` is null.
    pub(super) fn apply(self, fold: bool, args: &[Option<&Value<'_>>]) -> Option<Value<'static>> {
        if self == Self::Number {
            return number((*args.first()?)?, args.get(1).copied().flatten());
        }
        if args.iter().any(Option::is_none) {
            return None;
        }
        let arg = |index: usize| args.get(index).copied().flatten();
        let text = |index| arg(index).map(Value::as_text);
        let int = |index| arg(index).and_then(whole);
        Some(match self {
            Self::Add | Self::Subtract | Self::Multiply | Self::Divide | Self::Modulo => {
                let (left, right) = (arg(0)?.as_number()?, arg(1)?.as_number()?);
                calculate(self, left, right)?.into()
            }
            Self::StartsWith => {
                let (text, start) = (text(0)?, text(1)?);
                let (text, start) = (text.as_bytes(), start.as_bytes());
                let head = text.get(..start.len());
                Value::Bool(head.is_some_and(|head| same(head, start, fold)))
            }
            Self::EndsWith => {
                let (text, end) = (text(0)?, text(1)?);
                let (text, end) = (text.as_bytes(), end.as_bytes());
                let tail = text.len().checked_sub(end.len()).map(|at| &text[at..]);
                Value::Bool(tail.is_some_and(|tail| same(tail, end, fold)))
            }
            Self::StringContains => {
                let (text, part) = (text(0)?, text(1)?);
                // Documented: nothing contains an empty string, not even itself.
                Value::Bool(!part.is_empty() && find(&text, &part, fold).is_some())
            }
            Self::IndexOf => {
                let start = match args.len() {
                    3 => int(2)?,
                    _ => 0,
                };
                index_of(&text(0)?, &text(1)?, start, fold)?
            }
            Self::Length => count(&text(0)?),
            Self::Between => {
                let greedy = match arg(3) {
                    Some(greedy) => greedy.as_bool()?,
                    None => false,
                };
                between(&text(0)?, &text(1)?, &text(2)?, greedy, fold)
                    .to_owned()
                    .into()
            }
            Self::Substring => {
                let end = match args.len() {
                    3 => Some(int(2)?),
                    _ => None,
                };
                substring(&text(0)?, int(1)?, end).to_owned().into()
            }
            Self::Concat => {
                let mut joined = String::new();
                for arg in args.iter().flatten() {
                    joined.push_str(&arg.as_text());
                }
                joined.into()
            }
            Self::String => arg(0)?.as_text().into_owned().into(),
            // Compiled to prepared blocks; see `compile`.
            Self::CidrMatch | Self::Number => return None,
        })
    }
}

/// The function of that name, or an error with the one that was meant. Case
/// does not count, as in Elasticsearch: Elastic's own rules rely on it.
pub(super) fn named(name: &str, span: Range<usize>) -> Result<Function, Error> {
    let known = |function: &Function| function.name().eq_ignore_ascii_case(name);
    if let Some(function) = Function::ALL.into_iter().find(known) {
        return Ok(function);
    }
    let help = match name {
        "wildcard" => Some("write `field : (\"…\", \"…\")`".to_owned()),
        "match" | "matchLite" => Some("write `field regex (\"…\", \"…\")`".to_owned()),
        "arrayContains" | "arraySearch" => Some(
            "compare the field itself: it holds if one element of the list satisfies it".to_owned(),
        ),
        _ => Function::ALL
            .into_iter()
            .map(|function| {
                let known = function.name();
                let distance = strsim::damerau_levenshtein(
                    &name.to_ascii_lowercase(),
                    &known.to_ascii_lowercase(),
                );
                (distance, known)
            })
            .min()
            .filter(|(distance, known)| *distance <= known.len() / 3)
            .map(|(_, known)| format!("did you mean `{known}`?")),
    };
    let mut error = Error::new(span, format!("there is no function `{name}`"));
    error.help = help;
    Err(error)
}

/// `left op right`. Whole numbers stay whole, and what does not fit is null.
fn calculate(op: Function, left: Number, right: Number) -> Option<Number> {
    if let (Number::Int(left), Number::Int(right)) = (left, right) {
        let result = match op {
            Function::Add => left.checked_add(right),
            Function::Subtract => left.checked_sub(right),
            Function::Multiply => left.checked_mul(right),
            Function::Divide => left.checked_div(right),
            _ => left.checked_rem(right),
        };
        return result.map(Number::Int);
    }
    let (left, right) = (left.to_float(), right.to_float());
    let result = match op {
        Function::Add => left + right,
        Function::Subtract => left - right,
        Function::Multiply => left * right,
        Function::Divide => left / right,
        _ => left % right,
    };
    result.is_finite().then_some(Number::Float(result))
}

fn same(left: &[u8], right: &[u8], fold: bool) -> bool {
    if fold {
        left.eq_ignore_ascii_case(right)
    } else {
        left == right
    }
}

/// The byte offset of the first `part`.
fn find(text: &str, part: &str, fold: bool) -> Option<usize> {
    /// Up to here a copy costs more than it saves.
    const SHORT: usize = 64;
    if !fold || part.is_empty() {
        text.find(part)
    } else if part.len() <= SHORT {
        text.as_bytes()
            .windows(part.len())
            .position(|window| window.eq_ignore_ascii_case(part.as_bytes()))
    } else {
        // Both may come from the event: the search must not be quadratic.
        text.to_ascii_lowercase().find(&part.to_ascii_lowercase())
    }
}

/// The byte offset of the last `part`.
fn find_last(text: &str, part: &str, fold: bool) -> Option<usize> {
    if fold {
        text.to_ascii_lowercase().rfind(&part.to_ascii_lowercase())
    } else {
        text.rfind(part)
    }
}

fn count(text: &str) -> Value<'static> {
    size(text.chars().count())
}

fn size(count: usize) -> Value<'static> {
    // No text has more characters than an i64 can count.
    Value::Int(i64::try_from(count).unwrap_or(i64::MAX))
}

/// A number as a whole number.
fn whole(value: &Value<'_>) -> Option<i64> {
    match value.as_number()? {
        Number::Int(value) => Some(value),
        #[expect(
            clippy::cast_possible_truncation,
            reason = "positions beyond any text saturate, which means the same"
        )]
        Number::Float(value) => Some(value as i64),
    }
}

/// The byte offset of the character at `index`, if there is one or it is the end.
fn offset(text: &str, index: usize) -> Option<usize> {
    text.char_indices()
        .map(|(offset, _)| offset)
        .chain([text.len()])
        .nth(index)
}

fn index_of(text: &str, part: &str, start: i64, fold: bool) -> Option<Value<'static>> {
    let start = usize::try_from(start.max(0)).ok()?;
    let from = offset(text, start)?;
    let found = find(&text[from..], part, fold)?;
    Some(size(start + text[from..from + found].chars().count()))
}

fn between<'t>(text: &'t str, left: &str, right: &str, greedy: bool, fold: bool) -> &'t str {
    let Some(found) = find(text, left, fold) else {
        return "";
    };
    let rest = &text[found + left.len()..];
    let end = if greedy {
        find_last(rest, right, fold)
    } else {
        find(rest, right, fold)
    };
    end.map_or("", |end| &rest[..end])
}

/// As Python slices: negative positions count from the end.
fn substring(text: &str, start: i64, end: Option<i64>) -> &str {
    let length = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
    let absolute = |position: i64| {
        let position = if position < 0 {
            position.saturating_add(length)
        } else {
            position
        };
        usize::try_from(position.clamp(0, length)).unwrap_or(0)
    };
    let (start, end) = (absolute(start), absolute(end.unwrap_or(length)));
    if start >= end {
        return "";
    }
    let bound = |index| offset(text, index).unwrap_or(text.len());
    &text[bound(start)..bound(end)]
}

/// Text to a number. "0x" announces base 16, also with a sign before it.
fn number(value: &Value<'_>, base: Option<&Value<'_>>) -> Option<Value<'static>> {
    let Value::Text(text) = value else {
        return value.as_number().map(Value::from);
    };
    let text = text.trim();
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let hex = digits.strip_prefix("0x").or(digits.strip_prefix("0X"));
    let base = match base {
        Some(base) => Some(u32::try_from(whole(base)?).ok()?),
        None => hex.map(|_| 16),
    };
    let digits = match (hex, base) {
        (Some(hex), Some(16)) => hex,
        _ => digits,
    };
    match base {
        None | Some(10) => Number::parse(text).map(Value::from),
        // A second sign is no digit.
        Some(2..=36) if digits.starts_with(['+', '-']) => None,
        Some(base @ 2..=36) => {
            let digits = if negative {
                Cow::Owned(format!("-{digits}"))
            } else {
                Cow::Borrowed(digits)
            };
            i64::from_str_radix(&digits, base).ok().map(Value::Int)
        }
        Some(_) => None,
    }
}
