//! How many alerts a rule may raise, and which of them are one.
//!
//! Owns `max_signals` within `interval` and `alert_suppression`, as rule files
//! write them, and the state between alerts: windows and groups. Must not look
//! at a clock: the time is given, and may also go backwards, as it does in
//! exports that begin with the latest event. Cannot fail; what is suppressed is
//! counted, and told once when its window has ended ([`Suppressor::ended`]).
//! Memory is bounded by [`MAX_GROUPS`] for each rule, of groups and of homes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use super::Rule;
use crate::eql::{self, Field, Value};

/// So many groups of a rule are kept apart; further ones are not suppressed,
/// only counted against `max_signals`.
pub const MAX_GROUPS: usize = 1000;
/// Longer values of a group are kept by their beginning and their hash.
const MAX_VALUE: usize = 256;

/// What a rule allows itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// At most so many alerts in an interval.
    pub max_signals: u64,
    /// The interval that `max_signals` counts in.
    pub interval: Duration,
    /// Which alerts are told as one.
    pub suppression: Option<Suppression>,
}

impl Default for Limits {
    /// Elastic's defaults.
    fn default() -> Self {
        Self {
            max_signals: 100,
            interval: Duration::from_secs(300),
            suppression: None,
        }
    }
}

/// `alert_suppression`: only the first of alike alerts is raised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suppression {
    /// Alerts are alike if these fields have the same values.
    pub group_by: Vec<Field>,
    /// For how long after the first; the rule's interval if it does not say.
    pub duration: Option<Duration>,
    /// Whether alerts that lack one of the fields are alike in that.
    pub missing_are_alike: bool,
}

/// What becomes of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is raised.
    Raise,
    /// It is counted, and told of later: with this window ([`Suppressed::window`]).
    Suppress(u64),
}

/// Why alerts were suppressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// There were more than this in an interval (`max_signals`), in this home if
    /// homes are told apart.
    MaxSignals(u64, Option<PathBuf>),
    /// They were like one that was raised: names and values of the fields.
    Alike(Vec<(String, Vec<String>)>),
}

/// What was suppressed in one window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suppressed {
    /// The rule's id.
    pub rule_id: String,
    /// The rule's name.
    pub rule_name: String,
    /// Why.
    pub cause: Cause,
    /// How many alerts, at least one.
    pub count: u64,
    /// When the window began, which is when an alert was raised.
    pub start: SystemTime,
    /// When it ends.
    pub end: SystemTime,
    /// Which window it was; each has a number of its own.
    pub window: u64,
}

/// The state between alerts, of all rules. Outlives a reload of them.
#[derive(Debug, Default)]
pub struct Suppressor {
    /// By the rule's id.
    rules: HashMap<String, State>,
    /// Of windows that ended.
    told: Vec<Suppressed>,
    total: u64,
}

#[derive(Debug, Default)]
struct State {
    name: String,
    /// By home: one that floods leaves the others theirs.
    raised: HashMap<Option<PathBuf>, Raised>,
    max_signals: u64,
    group_by: Vec<Field>,
    groups: HashMap<Group, Window>,
}

#[derive(Clone, Copy, Debug)]
struct Raised {
    window: Window,
    /// How many alerts it counts, those suppressed not among them.
    count: u64,
}

/// The values of the fields that alerts are grouped by; none where one is missing.
type Group = Vec<Vec<String>>;

#[derive(Clone, Copy, Debug)]
struct Window {
    start: SystemTime,
    length: Duration,
    suppressed: u64,
    /// How many had been suppressed in all when the first of these was.
    number: u64,
}

impl Window {
    fn new(start: SystemTime, length: Duration) -> Self {
        Self {
            start,
            length,
            suppressed: 0,
            number: 0,
        }
    }

    /// One more is suppressed, of so many in `total`.
    fn suppress(&mut self, total: &mut u64) -> Verdict {
        *total += 1;
        if self.suppressed == 0 {
            self.number = *total;
        }
        self.suppressed += 1;
        Verdict::Suppress(self.number)
    }

    /// Also of a time before its start: events need not come in order.
    fn holds(&self, time: SystemTime) -> bool {
        let distance = match time.duration_since(self.start) {
            Ok(after) => after,
            Err(before) => before.duration(),
        };
        distance < self.length
    }
}

impl Suppressor {
    /// Nothing was raised yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Decides on an alert of this rule on this document, about something in `home`.
    /// One that is alike to another does not count against `max_signals`. Each home has
    /// its own, up to [`MAX_GROUPS`] of them; further ones share one.
    pub fn admit(
        &mut self,
        rule: &Rule,
        home: Option<&Path>,
        document: &impl eql::Document,
        now: SystemTime,
    ) -> Verdict {
        let limits = &rule.limits;
        if !self.rules.contains_key(&rule.id) {
            self.rules.insert(rule.id.clone(), State::default());
        }
        let Some(state) = self.rules.get_mut(&rule.id) else {
            return Verdict::Raise;
        };
        state.take_over(rule, &mut self.told);
        let group = limits.suppression.as_ref().and_then(|suppression| {
            let group = group(suppression, document)?;
            let length = suppression.duration.unwrap_or(limits.interval);
            Some((group, length))
        });
        if let Some((group, _)) = &group
            && let Some(window) = state.groups.get_mut(group)
        {
            if window.holds(now) {
                return window.suppress(&mut self.total);
            }
            let window = state.groups.remove_entry(group);
            self.told.extend(
                window.and_then(|(group, window)| state.told_group(&rule.id, group, window)),
            );
        }
        let mut home = home.map(Path::to_owned);
        if state.raised.len() >= MAX_GROUPS && !state.raised.contains_key(&home) {
            state.end_raised(&rule.id, &mut self.told, |window| !window.holds(now));
            home = home.filter(|_| state.raised.len() < MAX_GROUPS);
        }
        let new = Raised {
            window: Window::new(now, limits.interval),
            count: 0,
        };
        let raised = state.raised.entry(home.clone()).or_insert(new);
        if raised.window.holds(now) {
            if raised.count >= limits.max_signals {
                return raised.window.suppress(&mut self.total);
            }
            raised.count += 1;
        } else {
            let ended = std::mem::replace(raised, Raised { count: 1, ..new });
            self.told
                .extend(state.told_raised(&rule.id, home, ended.window));
        }
        if let Some((group, length)) = group {
            if state.groups.len() >= MAX_GROUPS {
                state.end_groups(&rule.id, &mut self.told, |window| !window.holds(now));
            }
            if state.groups.len() < MAX_GROUPS {
                state.groups.insert(group, Window::new(now, length));
            }
        }
        Verdict::Raise
    }

    /// What was suppressed in windows that have ended by now, each told once.
    pub fn ended(&mut self, now: SystemTime) -> Vec<Suppressed> {
        self.end(|window| !window.holds(now))
    }

    /// What was suppressed in all windows, for nothing comes after.
    pub fn finish(&mut self) -> Vec<Suppressed> {
        self.end(|_| true)
    }

    /// How many alerts were suppressed, in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    fn end(&mut self, ends: impl Fn(&Window) -> bool) -> Vec<Suppressed> {
        let mut told = std::mem::take(&mut self.told);
        self.rules.retain(|id, state| {
            state.end_groups(id, &mut told, &ends);
            state.end_raised(id, &mut told, &ends);
            !state.raised.is_empty() || !state.groups.is_empty()
        });
        told.sort_by(|left, right| (left.start, &left.rule_id).cmp(&(right.start, &right.rule_id)));
        told
    }
}

impl State {
    /// The rule as it is now; groups by other fields than before are ended.
    fn take_over(&mut self, rule: &Rule, told: &mut Vec<Suppressed>) {
        self.name.clone_from(&rule.name);
        self.max_signals = rule.limits.max_signals;
        let group_by = rule.limits.suppression.as_ref();
        let group_by = group_by.map_or(&[][..], |suppression| &suppression.group_by);
        if self.group_by != group_by {
            self.end_groups(&rule.id, told, |_| true);
            self.group_by = group_by.to_vec();
        }
    }

    fn end_groups(&mut self, id: &str, told: &mut Vec<Suppressed>, ends: impl Fn(&Window) -> bool) {
        let ended: Vec<_> = self.groups.extract_if(|_, window| ends(window)).collect();
        for (group, window) in ended {
            told.extend(self.told_group(id, group, window));
        }
    }

    fn end_raised(&mut self, id: &str, told: &mut Vec<Suppressed>, ends: impl Fn(&Window) -> bool) {
        let ended = self.raised.extract_if(|_, raised| ends(&raised.window));
        let ended: Vec<_> = ended.collect();
        for (home, raised) in ended {
            told.extend(self.told_raised(id, home, raised.window));
        }
    }

    fn told_raised(&self, id: &str, home: Option<PathBuf>, window: Window) -> Option<Suppressed> {
        self.told(id, Cause::MaxSignals(self.max_signals, home), window)
    }

    fn told_group(&self, id: &str, group: Group, window: Window) -> Option<Suppressed> {
        let names = self.group_by.iter().map(|field| field.name().to_owned());
        self.told(id, Cause::Alike(names.zip(group).collect()), window)
    }

    fn told(&self, id: &str, cause: Cause, window: Window) -> Option<Suppressed> {
        (window.suppressed > 0).then(|| Suppressed {
            rule_id: id.to_owned(),
            rule_name: self.name.clone(),
            cause,
            count: window.suppressed,
            start: window.start,
            end: window
                .start
                .checked_add(window.length)
                .unwrap_or(window.start),
            window: window.number,
        })
    }
}

/// The group of a document, or `None` if it is alike to no other.
fn group(suppression: &Suppression, document: &impl eql::Document) -> Option<Group> {
    let mut group = Vec::with_capacity(suppression.group_by.len());
    for field in &suppression.group_by {
        let values: Vec<String> = document.get(field).into_iter().map(shown).collect();
        if values.is_empty() && !suppression.missing_are_alike {
            return None;
        }
        group.push(values);
    }
    Some(group)
}

fn shown(value: Value<'_>) -> String {
    let text = match value {
        Value::Text(text) => text.into_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Float(value) => value.to_string(),
    };
    if text.len() <= MAX_VALUE {
        return text;
    }
    let cut = (0..=MAX_VALUE).rfind(|end| text.is_char_boundary(*end));
    let hash = HEXLOWER.encode(&Sha256::digest(&text));
    format!("{}… (sha256 {hash})", &text[..cut.unwrap_or(0)])
}
