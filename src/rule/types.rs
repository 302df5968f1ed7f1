//! Comparisons that can never be what was meant, by the type of the field.
//!
//! Owns the few that are certain: a number or a truth value held against text
//! that spells none. Must not refuse what could match. Pure.

use super::schema;
use crate::config::snippet::Fault;
use crate::eql::Field;
use crate::eql::ast::{Expr, ExprKind, Literal, MatchOp};

/// A fault for each text that the field beside it can never be.
pub(super) fn faults(
    expr: &Expr,
    fault: impl Fn(std::ops::Range<usize>, String) -> Fault,
) -> Vec<Fault> {
    let mut faults = Vec::new();
    for part in expr.walk() {
        let (field, texts): (_, Vec<&Expr>) = match &part.kind {
            ExprKind::Compare { left, right, .. } => match (&left.kind, &right.kind) {
                (ExprKind::Field(field), _) => (field, vec![&**right]),
                (_, ExprKind::Field(field)) => (field, vec![&**left]),
                _ => continue,
            },
            ExprKind::Match {
                op: MatchOp::In,
                subject,
                items,
                ..
            } => match &subject.kind {
                ExprKind::Field(field) => (field, items.iter().collect()),
                _ => continue,
            },
            _ => continue,
        };
        for text in texts {
            if let ExprKind::Literal(Literal::Text(literal)) = &text.kind
                && let Some((kind, example)) = mismatch(field, literal)
            {
                let message = format!("`{}` is {kind}, which this text is not", field.name());
                let help = format!("write it as in `{} == {example}`", field.name());
                faults.push(fault(text.span.clone(), message).help(help));
            }
        }
    }
    faults
}

/// What the field is, with an example, if that is not what the text spells.
fn mismatch(field: &Field, text: &str) -> Option<(&'static str, &'static str)> {
    match schema::kind(field.name())? {
        "long" | "float" | "scaled_float" if text.parse::<f64>().is_err() => {
            Some(("a number", "1"))
        }
        "boolean" if !matches!(text, "true" | "false") => Some(("true or false", "true")),
        _ => None,
    }
}
