//! Cases: what a rule must catch and what it must leave alone.
//!
//! Owns the files of cases, which stand in a directory `tests` beside the
//! rules, and the trial of rules against them. Must not know exceptions: a case
//! is about the rule alone. Fails as the loading of rules does, with every
//! mistake in every file.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};
use toml::Spanned;

use super::{Error, Rule, RuleSet, Standing, load, shipped};
use crate::config::snippet::Source;

/// The directory beside rule files that has their cases, and no rules.
pub(super) const DIRECTORY: &str = "tests";

/// One event and what the rule must say of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// What it is, for a person.
    pub name: String,
    /// Whether the rule must match.
    pub caught: bool,
    /// The event.
    pub event: Value,
}

/// The cases of a rule, from one file.
#[derive(Clone, Debug, PartialEq)]
pub struct Cases {
    /// The file.
    pub file: PathBuf,
    /// The rule's id.
    pub rule: String,
    /// At least one.
    pub cases: Vec<Case>,
}

/// What came of a rule's trial.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trial {
    /// How many cases were caught that must be.
    pub caught: usize,
    /// How many were left alone that must be.
    pub left: usize,
    /// The cases that went wrong, with their files.
    pub failed: Vec<(PathBuf, Case)>,
    /// Why the trial says too little, if it does.
    pub lacking: Option<&'static str>,
}

impl Trial {
    /// Whether nothing went wrong and nothing is lacking that must be there.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.failed.is_empty() && self.lacking.is_none()
    }

    /// Whether there was no case at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.caught + self.left + self.failed.len() == 0
    }
}

/// Why cases are not tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untried<'a> {
    /// Their rule does not run.
    NotRunning(&'a Standing),
    /// There is no rule with this id.
    NoRule,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    rule: Spanned<String>,
    #[serde(default)]
    event: toml::Table,
    #[serde(default)]
    catch: Vec<RawCase>,
    #[serde(default)]
    leave: Vec<RawCase>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCase {
    name: String,
    #[serde(default)]
    set: toml::Table,
    #[serde(default)]
    unset: Vec<String>,
}

/// Loads the cases that stand beside the rules of these directories; `builtin`
/// as for [`RuleSet::load`].
pub fn load_cases(directories: &[PathBuf], builtin: bool) -> Result<Vec<Cases>, Vec<Error>> {
    let (mut all, mut errors) = (Vec::new(), Vec::new());
    for directory in directories {
        match load::texts(directory, builtin, load::Kind::Cases) {
            Ok(texts) => {
                for (path, text) in texts {
                    match parse(&path, &text) {
                        Ok(cases) => all.push(cases),
                        Err(error) => errors.push(error),
                    }
                }
            }
            Err(more) => errors.extend(more),
        }
    }
    if errors.is_empty() {
        Ok(all)
    } else {
        Err(errors)
    }
}

/// Reads a file of cases.
pub fn parse(path: &Path, text: &str) -> Result<Cases, Error> {
    let source = Source::new(path, text);
    let raw: RawFile = toml::from_str(text).map_err(|error| {
        let message = error.message().lines().collect::<Vec<_>>().join("; ");
        Error::Invalid(source.fault(error.span().unwrap_or(0..0), message))
    })?;
    let base = object(raw.event);
    let case = |raw: RawCase, caught| {
        let mut event = base.clone();
        for name in &raw.unset {
            remove(&mut event, name);
        }
        merge(&mut event, object(raw.set));
        Case {
            name: raw.name,
            caught,
            event: Value::Object(event),
        }
    };
    let catch = raw.catch.into_iter().map(|raw| (raw, true));
    let leave = raw.leave.into_iter().map(|raw| (raw, false));
    let cases: Vec<_> = catch
        .chain(leave)
        .map(|(raw, caught)| case(raw, caught))
        .collect();
    if cases.is_empty() {
        let fault = source.fault(raw.rule.span(), "there are no cases for this rule");
        return Err(Error::Invalid(
            fault.help("write [[catch]] and [[leave]] tables"),
        ));
    }
    Ok(Cases {
        file: path.to_owned(),
        rule: raw.rule.into_inner(),
        cases,
    })
}

/// No field's name has so many parts; objects are not nested for more.
const MAX_PARTS: usize = 20;

fn object(table: toml::Table) -> Map<String, Value> {
    let mut object = Map::new();
    for (key, value) in table {
        let value = json(value);
        // A quoted name with dots is the same as nested tables, within reason.
        if key.split('.').count() > MAX_PARTS {
            object.insert(key, value);
            continue;
        }
        let nested = key.rsplit('.').fold(value, |value, part| {
            Value::Object(Map::from_iter([(part.to_owned(), value)]))
        });
        if let Value::Object(nested) = nested {
            merge(&mut object, nested);
        }
    }
    object
}

fn json(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) => number.into(),
        toml::Value::Boolean(value) => value.into(),
        toml::Value::Datetime(time) => time.to_string().into(),
        toml::Value::Array(list) => list.into_iter().map(json).collect(),
        toml::Value::Table(table) => Value::Object(object(table)),
    }
}

fn merge(into: &mut Map<String, Value>, from: Map<String, Value>) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Object(inner)), Value::Object(more)) => merge(inner, more),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

fn remove(object: &mut Map<String, Value>, name: &str) {
    match name.split_once('.') {
        None => {
            object.remove(name);
        }
        Some((first, rest)) => {
            if let Some(Value::Object(inner)) = object.get_mut(first) {
                remove(inner, rest);
            }
        }
    }
}

impl RuleSet {
    /// Tries a rule of this set against its cases. One that comes with the
    /// program must have a case that it catches and one that it leaves alone.
    #[must_use]
    pub fn try_cases(&self, rule: &Rule, all: &[Cases]) -> Trial {
        let mut trial = Trial::default();
        let of_rule = all.iter().filter(|cases| cases.rule == rule.id);
        for (file, case) in
            of_rule.flat_map(|cases| cases.cases.iter().map(|case| (&cases.file, case)))
        {
            if self.matches(&rule.id, &case.event) != Some(case.caught) {
                trial.failed.push((file.clone(), case.clone()));
            } else if case.caught {
                trial.caught += 1;
            } else {
                trial.left += 1;
            }
        }
        if rule.ruleset == shipped::RULESET && trial.failed.is_empty() {
            trial.lacking = match (trial.caught, trial.left) {
                (0, _) => Some("there is no case that it must catch"),
                (_, 0) => Some("there is no case that it must leave alone"),
                _ => None,
            };
        }
        trial
    }

    /// Why cases are not tried, if they are not.
    #[must_use]
    pub fn not_tried(&self, cases: &Cases) -> Option<Untried<'_>> {
        if self.rules().any(|rule| rule.id == cases.rule) {
            return None;
        }
        let mut entries = self.entries().iter().rev();
        let entry = entries.find(|entry| entry.id == cases.rule);
        Some(entry.map_or(Untried::NoRule, |entry| {
            Untried::NotRunning(&entry.standing)
        }))
    }
}
