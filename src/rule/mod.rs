//! Rules: which there are, which of them a document matches, and which matches
//! are excepted.
//!
//! Owns rule files (the TOML of Elastic's detection-rules repository), the
//! schema of fields, the shipped set, exceptions and their counters. Must not
//! know sinks or make alerts. Loading is all or nothing and fails with every
//! mistake in every file; a rule that is merely not for us (another type,
//! language or event category) is listed with its reason. Deciding cannot fail.

mod cases;
mod exception;
mod facts;
mod file;
mod inert;
mod limits;
mod load;
mod opens;
mod overrides;
mod plan;
mod roots;
mod schema;
mod settings;
pub mod shipped;
mod types;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use jiff::civil::Date;

pub use cases::{Case, Cases, Trial, Untried, load_cases, parse as parse_cases};
pub use exception::{Exception, Standing as ExceptionStanding, Weakness};
pub use facts::{Reference, Rule, Severity, Tactic, Technique, Threat};
pub use file::Fields;
pub use inert::{Inert, known_values};
pub use limits::{Cause, Limits, MAX_GROUPS, Suppressed, Suppression, Suppressor, Verdict};
pub use opens::AskedOpens;
pub use overrides::{Overrides, SeverityMapping};
pub use roots::{MAX_ROOTS, Roots};
pub use schema::{knows as knows_field, nearest_field};

use self::file::Compiled;
use self::plan::{Answers, Plan};
use crate::config;
use crate::config::snippet::{self, Fault};
use crate::eql;

/// Why there are no rules.
#[derive(Debug)]
pub enum Error {
    /// A directory or file could not be read.
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is named like a rule but cannot be one.
    NoRule {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: &'static str,
    },
    /// Something is wrong in the text of a rule or an exception.
    Invalid(Fault),
}

impl Error {
    /// The report, with terminal colours if `styled`.
    #[must_use]
    pub fn render(&self, styled: bool) -> String {
        match self {
            Self::Read { path, source } => {
                format!("cannot read rules from {}: {source}", snippet::shown(path))
            }
            Self::NoRule { path, reason } => {
                format!("{} is no rule file: {reason}", snippet::shown(path))
            }
            Self::Invalid(fault) => fault.render(styled),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.render(false))
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read { source, .. } => Some(source),
            Self::NoRule { .. } | Self::Invalid(_) => None,
        }
    }
}

/// What became of a rule file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It runs.
    Active,
    /// It says `enabled = false`.
    Disabled,
    /// It is not for us, and why.
    Skipped(String),
    /// This file of a later directory has the same `rule_id`.
    Overridden(PathBuf),
}

/// A rule file and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its `rule_id`.
    pub id: String,
    /// Its title.
    pub name: String,
    /// The file; for a rule carried in the binary, where it would be installed.
    pub file: PathBuf,
    /// What became of it.
    pub standing: Standing,
}

/// What was decided on one document.
#[derive(Debug, Default)]
pub struct Decision<'a> {
    /// The rules that it matches and that nothing excepts, in loading order.
    pub matches: Vec<&'a Rule>,
    /// The rules that it matches and the exception that keeps each quiet.
    pub excepted: Vec<(&'a Rule, &'a Exception)>,
}

/// All loaded rules and exceptions. Shared between threads as it is; a reload
/// makes a new one.
#[derive(Debug)]
pub struct RuleSet {
    rules: Vec<Compiled>,
    plan: Plan,
    entries: Vec<Entry>,
    exceptions: Vec<Exception>,
    fields: Fields,
}

impl RuleSet {
    /// Loads the rules of these directories, a later one's in place of an
    /// earlier one's of the same `rule_id`. With `builtin`, the rules carried
    /// in the binary stand in for [`shipped::DIRECTORY`] where that is listed
    /// but does not exist. Of the default directories any may be missing; one
    /// that was named must exist.
    pub fn load(directories: &[PathBuf], builtin: bool) -> Result<Self, Vec<Error>> {
        Self::load_with(directories, builtin, Fields::Known)
    }

    /// As [`load`](Self::load), with a choice of what an unknown field means.
    pub fn load_with(
        directories: &[PathBuf],
        builtin: bool,
        fields: Fields,
    ) -> Result<Self, Vec<Error>> {
        let loaded = load::load(directories, builtin, fields)?;
        Ok(Self::of(loaded, fields))
    }

    /// As [`load_with`](Self::load_with), from the texts of files instead of
    /// directories.
    pub fn from_texts(texts: &[(&Path, &str)], fields: Fields) -> Result<Self, Vec<Error>> {
        let loaded = load::of_texts(texts, fields)?;
        Ok(Self::of(loaded, fields))
    }

    fn of(loaded: load::Loaded, fields: Fields) -> Self {
        Self {
            plan: Plan::new(&loaded.rules),
            rules: loaded.rules,
            entries: loaded.entries,
            exceptions: Vec::new(),
            fields,
        }
    }

    /// The same rules with these exceptions.
    pub fn with_exceptions(self, exceptions: &[config::Exception]) -> Result<Self, Vec<Error>> {
        let mut compiled = Vec::new();
        let mut errors = Vec::new();
        for exception in exceptions {
            match Exception::compile(exception, self.fields) {
                Ok(exception) => compiled.push(exception),
                Err(more) => errors.extend(more),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Self {
            exceptions: compiled,
            ..self
        })
    }

    /// Asks every rule, and every exception about those that match. The first
    /// exception that holds counts the match. `today`, the local date, is what
    /// exceptions expire by.
    #[must_use]
    pub fn decide(&self, document: &impl eql::Document, today: Date) -> Decision<'_> {
        self.decide_by(document, today, |_| true)
    }

    /// As [`decide`](Self::decide), of an open that was noticed because some
    /// rules ask for opens: the others are not asked, as if it had not been.
    #[must_use]
    pub fn decide_open(&self, document: &impl eql::Document, today: Date) -> Decision<'_> {
        self.decide_by(document, today, |rule| rule.asks_for_opens)
    }

    fn decide_by(
        &self,
        document: &impl eql::Document,
        today: Date,
        asked: impl Fn(&Compiled) -> bool,
    ) -> Decision<'_> {
        let mut decision = Decision::default();
        let mut answers = Answers::default();
        for (index, compiled) in self.rules.iter().enumerate() {
            if !asked(compiled) || !self.plan.matches(index, document, &mut answers) {
                continue;
            }
            let rule = &compiled.rule;
            let exception = self
                .exceptions
                .iter()
                .find(|exception| exception.takes(rule, document, today));
            match exception {
                Some(exception) => decision.excepted.push((rule, exception)),
                None => decision.matches.push(rule),
            }
        }
        decision
    }

    /// Has documents read for it ([`eql::Scan`]) keep the fields that the rules
    /// ask for. Those of exceptions are not among them: what matches a rule is
    /// rare, and is read whole.
    pub fn number_fields(&mut self, wanted: &mut eql::Wanted) {
        self.plan.number_fields(wanted);
    }

    /// Whether there is a rule that the document matches, excepted or not.
    #[must_use]
    pub fn any_matches(&self, document: &impl eql::Document) -> bool {
        let mut answers = Answers::default();
        (0..self.rules.len()).any(|index| self.plan.matches(index, document, &mut answers))
    }

    /// Whether the document matches the rule with this id, excepted or not;
    /// `None` if no such rule runs.
    #[must_use]
    pub fn matches(&self, id: &str, document: &impl eql::Document) -> Option<bool> {
        let mut rules = self.rules.iter();
        let index = rules.position(|compiled| compiled.rule.id == id)?;
        let mut answers = Answers::default();
        Some(self.plan.matches(index, document, &mut answers))
    }

    /// The rules that run, in loading order.
    #[must_use]
    pub fn rules(&self) -> impl ExactSizeIterator<Item = &Rule> {
        self.rules.iter().map(|compiled| &compiled.rule)
    }

    /// Every rule file and what became of it.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The exceptions and what each can do on this day.
    #[must_use]
    pub fn exceptions(
        &self,
        today: Date,
    ) -> impl ExactSizeIterator<Item = (&Exception, ExceptionStanding)> {
        self.exceptions.iter().map(move |exception| {
            let standing = if exception.is_expired(today) {
                ExceptionStanding::Expired
            } else if self.rules().any(|rule| exception.names(rule)) {
                ExceptionStanding::Active
            } else {
                ExceptionStanding::NoRule
            };
            (exception, standing)
        })
    }

    /// Goes on counting where exceptions of `former` that say the same have stopped.
    pub fn inherit(&self, former: &Self) {
        for exception in &self.exceptions {
            let mut old = former.exceptions.iter();
            if let Some(old) = old.find(|old| exception.says_what(old)) {
                exception.go_on(old);
            }
        }
    }

    /// The rules that run but that nothing below these directories can match.
    #[must_use]
    pub fn inert(&self, directories: &[&str]) -> Vec<Inert<'_>> {
        let prefixes: Vec<_> = directories
            .iter()
            .map(|directory| format!("{}/", directory.trim_end_matches('/')))
            .collect();
        let inert = self.rules.iter();
        inert
            .filter_map(|compiled| inert::inert(compiled, &prefixes))
            .collect()
    }
}
