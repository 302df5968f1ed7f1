//! What a rule lets the event decide: its severity, its score, its name.
//!
//! Owns `severity_mapping`, `risk_score_mapping` and `rule_name_override` as
//! Kibana's detection engine applies them. Pure, and cannot fail: where the
//! event does not say, the rule does.

use super::Severity;
use crate::eql::{self, Field, Value};

/// What a rule lets the event decide.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Of the entries that hold the gravest one counts.
    pub severity: Vec<SeverityMapping>,
    /// The field that has the score.
    pub risk_score: Option<Field>,
    /// The field that has the name.
    pub name: Option<Field>,
}

/// A severity for events that have this value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeverityMapping {
    /// The field.
    pub field: Field,
    /// Its value; of a list one is enough.
    pub value: String,
    /// The severity then.
    pub severity: Severity,
}

impl Overrides {
    /// The severity that the event asks for.
    #[must_use]
    pub fn severity(&self, document: &impl eql::Document) -> Option<Severity> {
        let holds = |mapping: &&SeverityMapping| {
            let mut values = document.get(&mapping.field).into_iter();
            values.any(|value| match &value {
                Value::Text(text) => *text == mapping.value,
                Value::Bool(value) => value.to_string() == mapping.value,
                Value::Int(value) => mapping.value.parse() == Ok(*value),
                Value::Float(value) => mapping.value.parse() == Ok(*value),
            })
        };
        let holding = self.severity.iter().filter(holds);
        holding.map(|mapping| mapping.severity).max()
    }

    /// The score that the event carries: the greatest one from 0 to 100.
    #[must_use]
    pub fn risk_score(&self, document: &impl eql::Document) -> Option<u8> {
        let values = document.get(self.risk_score.as_ref()?).into_iter();
        let scores = values.filter_map(|value| match value {
            Value::Int(value) => u8::try_from(value).ok(),
            Value::Float(value) => whole(value),
            Value::Text(text) => whole(text.trim().parse().ok()?),
            Value::Bool(_) => None,
        });
        scores.filter(|score| *score <= 100).max()
    }

    /// The name that the event carries.
    #[must_use]
    pub fn name(&self, document: &impl eql::Document) -> Option<String> {
        let mut values = document.get(self.name.as_ref()?).into_iter();
        values.find_map(|value| match value {
            Value::Text(text) if !text.trim().is_empty() => Some(text.into_owned()),
            _ => None,
        })
    }
}

/// A score without its fraction, for ours have none.
fn whole(score: f64) -> Option<u8> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the range was checked"
    )]
    (0.0..=100.0).contains(&score).then_some(score as u8)
}
