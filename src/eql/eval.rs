//! Deciding: a compiled condition against a document.
//!
//! An operand has a *set* of values: one for a plain field, several for a
//! list, none for null. A comparison holds if one of them satisfies it, which
//! is all there is to lists and to null; `not` is plain negation of that.
//! Values are handed on one by one, so nothing is collected.
//!
//! In a function or calculation over several fields the first of them ranges
//! over all its values and the others stand for their first value: the cost is
//! linear in the length of lists that the watched user controls.

use std::borrow::Cow;
use std::cmp::Ordering;

use regex::Regex;

use super::ast::CompareOp;
use super::cidr::Block;
use super::document::{Document, Field, Values};
use super::functions::Function;
use super::pattern::Pattern;
use super::scan::Wanted;
use super::value::{Number, Value};

/// A condition, prepared for deciding.
#[derive(Clone, Debug)]
pub(super) enum Predicate {
    Constant(bool),
    Not(Box<Predicate>),
    All(Vec<Predicate>),
    Any(Vec<Predicate>),
    /// The operand is true.
    True(Operand),
    /// The operand is null.
    Absent(Operand),
    /// Never `!=`, which is compiled to a negation.
    Compare(Operand, CompareOp, Value<'static>),
    In(Operand, Set),
    Like(Operand, Vec<Pattern>),
    Regex(Operand, Regex),
}

/// Something with values.
#[derive(Clone, Debug)]
pub(super) enum Operand {
    Null,
    Constant(Value<'static>),
    Field(Field),
    Negate(Box<Operand>),
    Condition(Box<Predicate>),
    Call {
        function: Function,
        fold: bool,
        args: Vec<Operand>,
        /// The first argument that depends on the document.
        ranging: usize,
    },
    Cidr(Box<Operand>, Vec<Block>),
}

/// More alternatives than this are searched by halves.
const MANY: usize = 8;

/// Most functions have no more arguments than this; they need no memory.
const FEW: usize = 4;

type Visit<'v, 'd> = &'v mut dyn FnMut(Value<'d>) -> bool;

impl Predicate {
    pub(super) fn number_fields(&mut self, wanted: &mut Wanted) {
        match self {
            Self::Constant(_) => {}
            Self::Not(inner) => inner.number_fields(wanted),
            Self::All(parts) | Self::Any(parts) => {
                for part in parts {
                    part.number_fields(wanted);
                }
            }
            Self::True(operand)
            | Self::Absent(operand)
            | Self::Compare(operand, ..)
            | Self::In(operand, _)
            | Self::Like(operand, _)
            | Self::Regex(operand, _) => operand.number_fields(wanted),
        }
    }

    pub(super) fn holds<D: Document + ?Sized>(&self, event: &D) -> bool {
        match self {
            Self::Constant(value) => *value,
            Self::Not(inner) => !inner.holds(event),
            Self::All(all) => all.iter().all(|part| part.holds(event)),
            Self::Any(any) => any.iter().any(|part| part.holds(event)),
            Self::True(operand) => operand.any(event, &mut |v| v.as_bool() == Some(true)),
            Self::Absent(operand) => !operand.any(event, &mut |_| true),
            Self::Compare(operand, op, constant) => {
                operand.any(event, &mut |value| satisfies(&value, *op, constant))
            }
            Self::In(operand, set) => operand.any(event, &mut |value| set.contains(&value)),
            Self::Like(operand, patterns) => operand.any(event, &mut |value| {
                let text = value.as_text();
                patterns.iter().any(|pattern| pattern.matches(&text))
            }),
            Self::Regex(operand, regex) => {
                operand.any(event, &mut |value| regex.is_match(&value.as_text()))
            }
        }
    }
}

pub(super) fn satisfies(value: &Value<'_>, op: CompareOp, constant: &Value<'_>) -> bool {
    // What nearly every rule asks, without finding out which is the greater.
    if let (CompareOp::Equal, Value::Text(value), Value::Text(constant)) = (op, value, constant) {
        return value == constant;
    }
    let Some(ordering) = value.compare(constant) else {
        return false;
    };
    match op {
        CompareOp::Equal => ordering == Ordering::Equal,
        CompareOp::NotEqual => ordering != Ordering::Equal,
        CompareOp::Less => ordering == Ordering::Less,
        CompareOp::LessEqual => ordering != Ordering::Greater,
        CompareOp::Greater => ordering == Ordering::Greater,
        CompareOp::GreaterEqual => ordering != Ordering::Less,
    }
}

impl Operand {
    fn number_fields(&mut self, wanted: &mut Wanted) {
        match self {
            Self::Null | Self::Constant(_) => {}
            Self::Field(field) => field.number(wanted),
            Self::Negate(inner) | Self::Cidr(inner, _) => inner.number_fields(wanted),
            Self::Condition(condition) => condition.number_fields(wanted),
            Self::Call { args, .. } => {
                for arg in args {
                    arg.number_fields(wanted);
                }
            }
        }
    }

    /// True if its value is known without a document.
    pub(super) fn is_constant(&self) -> bool {
        matches!(self, Self::Null | Self::Constant(_))
    }

    pub(super) fn constant(&self) -> Option<&Value<'static>> {
        match self {
            Self::Constant(value) => Some(value),
            _ => None,
        }
    }

    /// True if one of the values satisfies `test`; asks no further then.
    fn any<'d, D: Document + ?Sized>(&'d self, event: &'d D, test: Visit<'_, 'd>) -> bool {
        match self {
            Self::Null => false,
            Self::Constant(value) => test(value.borrow()),
            Self::Field(field) => event.visit(field, test),
            Self::Negate(inner) => {
                inner.any(event, &mut |value| negate(&value).is_some_and(&mut *test))
            }
            Self::Condition(condition) => test(Value::Bool(condition.holds(event))),
            Self::Call {
                function,
                fold,
                args,
                ranging,
            } => call(*function, *fold, args, *ranging, event, test),
            Self::Cidr(inner, blocks) => inner.any(event, &mut |value| {
                super::cidr::address(&value.as_text()).is_some_and(|address| {
                    test(Value::Bool(blocks.iter().any(|b| b.contains(address))))
                })
            }),
        }
    }

    fn first<'d, D: Document + ?Sized>(&'d self, event: &'d D) -> Option<Value<'d>> {
        let mut first = None;
        self.any(event, &mut |value| {
            first = Some(value);
            true
        });
        first
    }
}

pub(super) fn negate(value: &Value<'_>) -> Option<Value<'static>> {
    match value.as_number()? {
        Number::Int(value) => value.checked_neg().map(Value::Int),
        Number::Float(value) => Some(Value::Float(-value)),
    }
}

fn call<'d, D: Document + ?Sized>(
    function: Function,
    fold: bool,
    args: &'d [Operand],
    ranging: usize,
    event: &'d D,
    test: Visit<'_, 'd>,
) -> bool {
    let fixed = |index: usize| match args.get(index) {
        Some(arg) if index != ranging => arg.first(event),
        _ => None,
    };
    if args.len() <= FEW {
        let fixed: [Option<Value<'d>>; FEW] = std::array::from_fn(fixed);
        args[ranging].any(event, &mut |value| {
            let mut values = fixed.each_ref().map(Option::as_ref);
            values[ranging] = Some(&value);
            function
                .apply(fold, &values[..args.len()])
                .is_some_and(&mut *test)
        })
    } else {
        let fixed: Vec<Option<Value<'d>>> = (0..args.len()).map(fixed).collect();
        args[ranging].any(event, &mut |value| {
            let mut values: Vec<_> = fixed.iter().map(Option::as_ref).collect();
            values[ranging] = Some(&value);
            function.apply(fold, &values).is_some_and(&mut *test)
        })
    }
}

/// The alternatives of `in` and `in~`.
#[derive(Clone, Debug)]
pub(super) struct Set {
    /// Sorted, by folded bytes if `fold`.
    texts: Vec<Box<str>>,
    fold: bool,
    others: Vec<Value<'static>>,
}

impl Set {
    pub(super) fn new(values: Vec<Value<'static>>, fold: bool) -> Self {
        let mut set = Self {
            texts: Vec::new(),
            fold,
            others: Vec::new(),
        };
        for value in values {
            match value {
                Value::Text(text) => set.texts.push(Cow::into_owned(text).into()),
                other => set.others.push(other),
            }
        }
        set.texts.sort_by(|left, right| order(left, right, fold));
        set
    }

    fn contains(&self, value: &Value<'_>) -> bool {
        let among_texts = || {
            let text = value.as_text();
            // Few are found fastest by their lengths.
            if !self.fold && self.texts.len() <= MANY {
                return self.texts.iter().any(|known| **known == *text);
            }
            self.texts
                .binary_search_by(|known| order(known, &text, self.fold))
                .is_ok()
        };
        (!self.texts.is_empty() && among_texts())
            || self
                .others
                .iter()
                .any(|other| satisfies(value, CompareOp::Equal, other))
    }
}

fn order(left: &str, right: &str, fold: bool) -> Ordering {
    if fold {
        let lower = |byte: u8| byte.to_ascii_lowercase();
        left.bytes().map(lower).cmp(right.bytes().map(lower))
    } else {
        left.cmp(right)
    }
}

/// The document without fields, against which constants are decided.
pub(super) struct Nothing;

impl Document for Nothing {
    fn get<'a>(&'a self, _: &Field) -> Values<'a> {
        Values::none()
    }
}
