//! Rules that run but that nothing seen here can match.
//!
//! Owns what is known of every document beforehand: the few values that some
//! fields can have, and the directories that paths lie in. Never calls a rule
//! inert that could match; may fail to see that one cannot. Pure.

use super::file::Compiled;
use super::{Rule, opens};
use crate::eql::ast::{CompareOp, Expr, ExprKind, Literal, MatchOp, Truth};
use crate::eql::{Field, Pattern};

pub(super) const PATH: &str = "file.path";

/// The fields that every event's document has, and all values that they take
/// there (the `alert` module's tests hold documents against this).
const VALUES: [(&str, &[&str]); 6] = [
    (
        "event.action",
        &[
            "creation",
            "rename",
            "modification",
            "deletion",
            "open",
            "flood",
        ],
    ),
    ("event.category", &["file"]),
    ("event.module", &["ssh_keywatch"]),
    ("event.outcome", &["success"]),
    (
        "event.type",
        &["creation", "change", "deletion", "access", "info"],
    ),
    ("host.os.type", &["linux"]),
];

/// A rule that nothing can match, and what it would need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inert<'a> {
    /// The rule.
    pub rule: &'a Rule,
    /// The field that never has a value that the rule asks for.
    pub field: &'static str,
    /// The values that it asks for, as far as it spells them out.
    pub needs: Vec<String>,
}

/// All values that a field can have, if they are few and known.
#[must_use]
pub fn known_values(field: &str) -> Option<&'static [&'static str]> {
    let (_, values) = VALUES.iter().find(|(name, _)| *name == field)?;
    Some(values)
}

/// What keeps the rule from matching anything below these directories, each
/// given with its final slash.
pub(super) fn inert<'a>(compiled: &'a Compiled, prefixes: &[String]) -> Option<Inert<'a>> {
    let expr = compiled.query().expr();
    let found = |field: &'static str| {
        let mut needs = Vec::new();
        asked(expr, field, &mut needs);
        Some(Inert {
            rule: &compiled.rule,
            field,
            needs,
        })
    };
    let impossible = VALUES.iter().find(|(name, values)| {
        let mut values = values
            .iter()
            .filter(|value| compiled.asks_for_opens || !opens::is_word(value));
        values.all(|value| !possible(expr, name, value))
    });
    if let Some((field, _)) = impossible {
        return found(field);
    }
    let is_path = |field: &Field| field.name() == PATH;
    let elsewhere = !prefixes
        .iter()
        .any(|prefix| compiled.query().could_match_below(is_path, prefix));
    if elsewhere { found(PATH) } else { None }
}

/// A comparison of a field with texts: whether one of them is the value.
struct Test<'a> {
    field: &'a Field,
    op: MatchOp,
    fold: bool,
    texts: Vec<&'a str>,
    /// `!=`
    negated: bool,
}

impl<'a> Test<'a> {
    /// `None` for a comparison of another kind.
    fn of(leaf: &'a Expr) -> Option<Self> {
        let field = |expr: &'a Expr| match &expr.kind {
            ExprKind::Field(field) => Some(field),
            _ => None,
        };
        let text = |expr: &'a Expr| match &expr.kind {
            ExprKind::Literal(Literal::Text(text)) => Some(text.as_str()),
            _ => None,
        };
        match &leaf.kind {
            ExprKind::Compare {
                op: op @ (CompareOp::Equal | CompareOp::NotEqual),
                left,
                right,
            } => {
                let either = [(left, right), (right, left)];
                let (field, text) = either
                    .into_iter()
                    .find_map(|(one, other)| Some((field(one)?, text(other)?)))?;
                Some(Self {
                    field,
                    op: MatchOp::In,
                    fold: false,
                    texts: vec![text],
                    negated: *op == CompareOp::NotEqual,
                })
            }
            ExprKind::Match {
                op: op @ (MatchOp::In | MatchOp::Like),
                fold,
                subject,
                items,
            } => Some(Self {
                field: field(subject)?,
                op: *op,
                fold: *fold,
                texts: items.iter().map(text).collect::<Option<_>>()?,
                negated: false,
            }),
            _ => None,
        }
    }

    fn holds(&self, value: &str) -> bool {
        let any = self.texts.iter().any(|text| match (self.op, self.fold) {
            (MatchOp::Like, fold) => Pattern::new(text, fold).matches(value),
            (_, true) => text.eq_ignore_ascii_case(value),
            (_, false) => *text == value,
        });
        any != self.negated
    }
}

/// What is known of a comparison if `field` has this value.
fn truth(leaf: &Expr, field: &str, value: &str) -> Truth {
    match Test::of(leaf).filter(|test| test.field.name() == field) {
        Some(test) if test.holds(value) => Truth::True,
        Some(_) => Truth::False,
        None => Truth::Unknown,
    }
}

/// Whether the query may hold where `field` has this value.
pub(super) fn possible(expr: &Expr, field: &str, value: &str) -> bool {
    expr.truth(&mut |leaf| truth(leaf, field, value)) != Truth::False
}

/// Whether the query compares `field` with something that this value is.
pub(super) fn names(expr: &Expr, field: &str, value: &str) -> bool {
    expr.walk().any(|part| {
        let test = Test::of(part).filter(|test| test.field.name() == field);
        test.is_some_and(|test| test.holds(value) != test.negated)
    })
}

/// Collects the texts that the query wants a field to be.
pub(super) fn asked(expr: &Expr, field: &str, texts: &mut Vec<String>) {
    match &expr.kind {
        ExprKind::And(parts) | ExprKind::Or(parts) => {
            for part in parts {
                asked(part, field, texts);
            }
        }
        _ => {
            let test = Test::of(expr).filter(|test| test.field.name() == field && !test.negated);
            texts.extend(
                test.into_iter()
                    .flat_map(|test| test.texts)
                    .map(str::to_owned),
            );
        }
    }
}
