//! Matches that raise no alert, by the administrator's wish.
//!
//! Owns the compiled exceptions, their expiry and their counters. Must not look
//! at a clock: the day is given.

use std::sync::atomic::{AtomicU64, Ordering};

use jiff::civil::Date;

use super::file::unknown_field;
use super::types;
use super::{Error, Fields, Rule};
use crate::config;
use crate::config::snippet::{Fault, Source};
use crate::eql;
use crate::eql::ast::{Expr, ExprKind, Literal};

/// One exception, ready to be asked.
#[derive(Debug)]
pub struct Exception {
    target: String,
    when: String,
    reason: String,
    expires: Option<Date>,
    place: Option<String>,
    condition: eql::Condition,
    hits: AtomicU64,
}

/// Whether an exception can have an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It can.
    Active,
    /// Its last day is over.
    Expired,
    /// It names a rule that does not run.
    NoRule,
}

/// What is dangerous or useless about an exception's condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weakness {
    /// It holds for every event.
    Always,
    /// It holds for no event.
    Never,
    /// Whoever chooses a program's path, name and arguments satisfies it: in a
    /// mount namespace of one's own that is everybody.
    Forgeable,
}

/// What a process is called, which any user can choose.
const FORGEABLE: [&str; 5] = ["executable", "name", "args", "args_count", "command_line"];
/// Whose names can be forged alone. A parent or leader has to be another
/// process that goes along, which is some assurance.
const FORGERS: [&str; 2] = ["process", "ssh_keywatch.ancestors"];

fn is_forgeable(field: &eql::Field) -> bool {
    let below = field.name().rsplit_once('.');
    below.is_some_and(|(object, name)| FORGERS.contains(&object) && FORGEABLE.contains(&name))
}

/// Whether an expression can be given this value by forging names alone.
fn can_be_forged(expr: &Expr, value: bool) -> bool {
    match (&expr.kind, value) {
        (ExprKind::Literal(Literal::Bool(literal)), _) => *literal == value,
        (ExprKind::Not(inner), _) => can_be_forged(inner, !value),
        (ExprKind::And(parts), true) | (ExprKind::Or(parts), false) => {
            parts.iter().all(|part| can_be_forged(part, value))
        }
        (ExprKind::And(parts), false) | (ExprKind::Or(parts), true) => {
            parts.iter().any(|part| can_be_forged(part, value))
        }
        _ => expr.fields().next().is_some() && expr.fields().all(is_forgeable),
    }
}

impl Exception {
    /// Compiles an exception of the configuration.
    pub(super) fn compile(
        exception: &config::Exception,
        fields: Fields,
    ) -> Result<Self, Vec<Error>> {
        let fault = |span: std::ops::Range<usize>, message: String| -> Fault {
            match &exception.when_site {
                Some(site) => site.fault(span, message),
                // Not from a file, so the condition alone has to do.
                None => Source::new("exception".as_ref(), &exception.when).fault(span, message),
            }
        };
        let condition = eql::Condition::parse(&exception.when).map_err(|error| {
            vec![Error::Invalid(
                fault(error.span, error.message).maybe_help(error.help),
            )]
        })?;
        if fields == Fields::Known {
            let unknown = condition
                .fields()
                .filter_map(|field| unknown_field(field, fault));
            let mistyped = types::faults(condition.expr(), fault);
            let faults: Vec<_> = unknown.chain(mistyped).map(Error::Invalid).collect();
            if !faults.is_empty() {
                return Err(faults);
            }
        }
        Ok(Self {
            target: exception.rule.clone(),
            when: exception.when.clone(),
            reason: exception.reason.clone(),
            expires: exception.expires,
            place: exception.rule_site.as_ref().map(|site| {
                let (line, _) = site.position();
                format!("{}:{line}", site.origin())
            }),
            condition,
            hits: AtomicU64::new(0),
        })
    }

    /// The `rule_id` or name of the rule it is for, or `*`.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Its condition's text.
    #[must_use]
    pub fn when(&self) -> &str {
        &self.when
    }

    /// Why it is there.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// The last day on which it holds.
    #[must_use]
    pub fn expires(&self) -> Option<Date> {
        self.expires
    }

    /// Where it stands in the configuration, as `file:line`.
    #[must_use]
    pub fn place(&self) -> Option<&str> {
        self.place.as_deref()
    }

    /// How many matches it has kept from being alerts.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// Whether both are for the same rule under the same condition.
    pub(super) fn says_what(&self, other: &Self) -> bool {
        self.target == other.target && self.when == other.when
    }

    /// Counts on from where `former` has stopped.
    pub(super) fn go_on(&self, former: &Self) {
        self.hits.fetch_add(former.hits(), Ordering::Relaxed);
    }

    /// What is wrong with its condition, though it is valid.
    #[must_use]
    pub fn weakness(&self) -> Option<Weakness> {
        match self.condition.constant() {
            Some(true) => Some(Weakness::Always),
            Some(false) => Some(Weakness::Never),
            None => can_be_forged(self.condition.expr(), true).then_some(Weakness::Forgeable),
        }
    }

    /// Whether its last day is over.
    #[must_use]
    pub fn is_expired(&self, today: Date) -> bool {
        self.expires.is_some_and(|last| today > last)
    }

    /// Whether it is for this rule.
    #[must_use]
    pub fn names(&self, rule: &Rule) -> bool {
        self.target == "*" || self.target == rule.id || self.target == rule.name
    }

    /// Whether it holds for a match of this rule, which it then counts.
    pub(super) fn takes(&self, rule: &Rule, document: &impl eql::Document, today: Date) -> bool {
        let takes = self.names(rule) && !self.is_expired(today) && self.condition.matches(document);
        if takes {
            self.hits.fetch_add(1, Ordering::Relaxed);
        }
        takes
    }
}
