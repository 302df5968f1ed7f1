//! EQL, Elastic's event query language, for single events.
//!
//! Owns the language: text to tokens (`lexer`), to a tree ([`ast`], `parser`,
//! `print`), to a checked and prepared program (`compile`), which decides a
//! [`Document`] (`eval`). Must not own what fields mean, which of them exist,
//! or where documents come from: no input, no output, no clock.
//!
//! Fails only when a query is parsed, with an [`Error`] that points at the
//! offending part. Deciding cannot fail: what cannot be calculated is null.
//! Neither can it be made slow by an event: wildcards and regular expressions
//! do not backtrack exponentially, and nesting is bounded by
//! [`ast::MAX_DEPTH`].
//!
//! A missing field makes any comparison false and its negation true; of a
//! list, one element is enough to satisfy a comparison. `head` and `tail` are
//! accepted and ignored, for they only limit what a search returns. Sequences,
//! samples, joins and other pipes are refused as unsupported
//! ([`Error::is_unsupported`]).

pub mod ast;
mod cidr;
mod compile;
mod document;
mod error;
mod eval;
mod functions;
mod lexer;
mod lucene;
mod parser;
mod pattern;
mod print;
mod scan;
#[cfg(test)]
mod tests;
mod value;

use std::fmt::{self, Display, Formatter};

use ast::{Category, Expr, ExprKind, Literal, MatchOp, Pipe, Truth};

pub use document::{Document, Field, IntoIter, Values};
pub use error::{Error, ErrorKind};
pub use functions::Function;
pub use pattern::Pattern;
pub use scan::{NotJson, Scan, Wanted};
pub use value::Value;

/// A condition alone, as it stands behind `where`.
#[derive(Clone, Debug)]
pub struct Condition {
    expr: Expr,
    program: eval::Predicate,
}

impl Condition {
    /// Parses a condition.
    pub fn parse(source: &str) -> Result<Self, Error> {
        Self::new(parser::parse_condition(source)?)
    }

    fn new(expr: Expr) -> Result<Self, Error> {
        let program = compile::condition(&expr)?;
        Ok(Self { expr, program })
    }

    /// Has documents read for it ([`Scan`]) keep the fields it asks for.
    pub fn number_fields(&mut self, wanted: &mut Wanted) {
        self.program.number_fields(wanted);
    }

    /// True if the event satisfies the condition.
    #[must_use]
    pub fn matches(&self, event: &impl Document) -> bool {
        self.program.holds(event)
    }

    /// Whether it holds, if it is the same for every event.
    #[must_use]
    pub fn constant(&self) -> Option<bool> {
        match self.program {
            eval::Predicate::Constant(value) => Some(value),
            _ => None,
        }
    }

    /// Conditions that all hold where this one does, and only there: the parts
    /// that `and` joins, or the condition itself.
    #[must_use]
    pub fn conjuncts(&self) -> Vec<Self> {
        fn collect(expr: &Expr, out: &mut Vec<Condition>) -> Result<(), Error> {
            if let ExprKind::And(parts) = &expr.kind {
                return parts.iter().try_for_each(|part| collect(part, out));
            }
            out.push(Condition::new(expr.clone())?);
            Ok(())
        }
        let mut parts = Vec::new();
        match collect(&self.expr, &mut parts) {
            Ok(()) => parts,
            // What holds together has been compiled before.
            Err(_) => vec![self.clone()],
        }
    }

    /// The condition as a tree.
    #[must_use]
    pub fn expr(&self) -> &Expr {
        &self.expr
    }

    /// All fields, from left to right, as often as they are named.
    pub fn fields(&self) -> impl Iterator<Item = &Field> {
        self.expr.fields()
    }

    /// False only if the condition cannot hold for any event in which every
    /// field that `is_path` picks has one value, and that starts with `prefix`
    /// (a directory with its final `/`). May be true of a condition that
    /// nothing satisfies for other reasons.
    #[must_use]
    pub fn could_match_below(&self, is_path: impl Fn(&Field) -> bool, prefix: &str) -> bool {
        let truth = self.expr.truth(&mut |leaf| below(leaf, &is_path, prefix));
        truth != Truth::False
    }
}

/// What is known of a comparison of a path that starts with `prefix`.
fn below(leaf: &Expr, is_path: &impl Fn(&Field) -> bool, prefix: &str) -> Truth {
    let path = |expr: &Expr| matches!(&expr.kind, ExprKind::Field(field) if is_path(field));
    let starts = |text: &str, fold: bool| {
        let head = text.as_bytes().get(..prefix.len());
        head.is_some_and(|head| {
            head == prefix.as_bytes() || fold && head.eq_ignore_ascii_case(prefix.as_bytes())
        })
    };
    let possible = match &leaf.kind {
        ExprKind::Compare { op, left, right } => {
            let other = if path(left) {
                right
            } else if path(right) {
                left
            } else {
                return Truth::Unknown;
            };
            match (op, &other.kind) {
                (ast::CompareOp::Equal, ExprKind::Literal(Literal::Text(text))) => {
                    starts(text, false)
                }
                (ast::CompareOp::Equal, ExprKind::Literal(Literal::Null)) => false,
                (ast::CompareOp::NotEqual, ExprKind::Literal(Literal::Null)) => return Truth::True,
                _ => true,
            }
        }
        ExprKind::Match {
            op,
            fold,
            subject,
            items,
        } if path(subject) => items.iter().any(|item| match (&item.kind, op) {
            (ExprKind::Literal(Literal::Text(text)), MatchOp::In) => starts(text, *fold),
            (ExprKind::Literal(Literal::Text(text)), MatchOp::Like) => {
                Pattern::new(text, *fold).could_start_with(prefix)
            }
            _ => true,
        }),
        ExprKind::Call {
            function: Function::StartsWith,
            fold,
            args,
        } => match args.as_slice() {
            [subject, text] if path(subject) => match &text.kind {
                // One must be the beginning of the other.
                ExprKind::Literal(Literal::Text(text)) => {
                    let length = text.len().min(prefix.len());
                    let (text, prefix) = (&text.as_bytes()[..length], &prefix.as_bytes()[..length]);
                    text == prefix || *fold && text.eq_ignore_ascii_case(prefix)
                }
                _ => true,
            },
            _ => true,
        },
        _ => true,
    };
    if possible {
        Truth::Unknown
    } else {
        Truth::False
    }
}

impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        self.expr == other.expr
    }
}

/// Canonical EQL.
impl Display for Condition {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.expr.fmt(f)
    }
}

impl std::str::FromStr for Condition {
    type Err = Error;

    fn from_str(source: &str) -> Result<Self, Error> {
        Self::parse(source)
    }
}

/// A query: an event category and a condition.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    category: Category,
    condition: Condition,
    pipes: Vec<Pipe>,
    category_field: Field,
}

impl Query {
    /// Parses a query.
    pub fn parse(source: &str) -> Result<Self, Error> {
        let (category, expr, pipes) = parser::parse_query(source)?;
        Ok(Self {
            category,
            condition: Condition::new(expr)?,
            pipes,
            category_field: Field::well_known("event.category"),
        })
    }

    /// The event category, or `None` for `any where …`.
    #[must_use]
    pub fn category(&self) -> Option<&str> {
        match &self.category {
            Category::Any => None,
            Category::Named(name) => Some(name),
        }
    }

    /// What stands behind `where`.
    #[must_use]
    pub fn condition(&self) -> &Condition {
        &self.condition
    }

    /// The condition as a tree.
    #[must_use]
    pub fn expr(&self) -> &Expr {
        &self.condition.expr
    }

    /// The pipes, which do not take part in [`matches`](Self::matches).
    #[must_use]
    pub fn pipes(&self) -> &[Pipe] {
        &self.pipes
    }

    /// All fields of the condition, from left to right, as often as they are
    /// named.
    pub fn fields(&self) -> impl Iterator<Item = &Field> {
        self.condition.fields()
    }

    /// The field that the event category is held against.
    #[must_use]
    pub fn category_field(&self) -> &Field {
        &self.category_field
    }

    /// Has documents read for it ([`Scan`]) keep the fields it asks for.
    pub fn number_fields(&mut self, wanted: &mut Wanted) {
        self.category_field.number(wanted);
        self.condition.number_fields(wanted);
    }

    /// True if `event.category` is, or contains, the query's category and the
    /// event satisfies the condition.
    #[must_use]
    pub fn matches(&self, event: &impl Document) -> bool {
        self.matches_with_category_field(event, &self.category_field)
    }

    /// The same, with the category in another field (`event_category_override`).
    #[must_use]
    pub fn matches_with_category_field(&self, event: &impl Document, field: &Field) -> bool {
        let in_category = match &self.category {
            Category::Any => true,
            Category::Named(name) => event
                .get(field)
                .into_iter()
                .any(|value| matches!(&value, Value::Text(text) if text == name)),
        };
        in_category && self.condition.matches(event)
    }

    /// As [`Condition::could_match_below`].
    #[must_use]
    pub fn could_match_below(&self, is_path: impl Fn(&Field) -> bool, prefix: &str) -> bool {
        self.condition.could_match_below(is_path, prefix)
    }
}

/// Canonical EQL.
impl Display for Query {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} where {}", self.category, self.condition)?;
        for pipe in &self.pipes {
            write!(f, " | {pipe}")?;
        }
        Ok(())
    }
}

impl std::str::FromStr for Query {
    type Err = Error;

    fn from_str(source: &str) -> Result<Self, Error> {
        Self::parse(source)
    }
}
