//! What the deciding thread has counted since the start, for a status.
//!
//! Owns counters by rule and what went wrong with which directory. Bounded: by
//! the rules in force, and by a number of troubles.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use crate::rule::{ExceptionStanding, RuleSet};
use crate::watch::Problem;

/// How many troubles are kept; further ones are counted.
const TROUBLES: usize = 100;
/// How many of one kind: whoever makes many of one leaves room for others.
const ALIKE: usize = 25;
/// How many problems of one kind are told in [`WINDOW`]; further ones are counted.
const PROBLEMS: u64 = 20;
const WINDOW: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug)]
struct Raised {
    alerts: u64,
    last: SystemTime,
}

/// Something that the daemon sees or knows less by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    /// Since when.
    pub(super) since: SystemTime,
    /// Its stable name, such as `directory_unwatched`.
    pub(super) code: &'static str,
    /// The directory, if it is one's.
    pub(super) path: Option<PathBuf>,
    /// As a sentence.
    pub(super) message: String,
}

/// The counters.
#[derive(Debug, Default)]
pub(super) struct Standing {
    rules: BTreeMap<String, Raised>,
    last_alert: Option<SystemTime>,
    /// How often the kernel's queue overflowed.
    overflows: u64,
    /// Openers that were let go unidentified.
    overdue: u64,
    troubles: Vec<Trouble>,
    more_troubles: u64,
    /// Problems that were told of late, by kind.
    problems: HashMap<&'static str, Told>,
    /// What was lost, by kind.
    losses: BTreeMap<&'static str, u64>,
}

/// Problems of one kind.
#[derive(Debug)]
struct Told {
    begun: Instant,
    since: SystemTime,
    count: u64,
}

/// The deciding thread's answer to a question for the status.
#[derive(Clone, Debug)]
pub struct Decided {
    /// How it is watched now: `ssh_keywatch.mode`.
    pub(super) mode: String,
    pub(super) troubles: Vec<Trouble>,
    pub(super) more_troubles: u64,
    pub(super) overflows: u64,
    pub(super) overdue: u64,
    pub(super) losses: BTreeMap<&'static str, u64>,
    pub(super) alerts: u64,
    pub(super) suppressed: u64,
    pub(super) last_alert: Option<SystemTime>,
    pub(super) rules: Value,
    pub(super) exceptions: Value,
}

impl Standing {
    /// A rule has raised an alert.
    pub(super) fn raised(&mut self, rule: &str, time: SystemTime) {
        self.last_alert = Some(time);
        if let Some(raised) = self.rules.get_mut(rule) {
            raised.alerts += 1;
            raised.last = time;
        } else {
            let raised = Raised {
                alerts: 1,
                last: time,
            };
            self.rules.insert(rule.to_owned(), raised);
        }
    }

    /// These rules are in force now; the counters of others go.
    pub(super) fn rules(&mut self, rules: &RuleSet) {
        self.rules
            .retain(|id, _| rules.rules().any(|rule| rule.id == *id));
    }

    /// Watching had a problem.
    pub(super) fn problem(&mut self, problem: &Problem, time: SystemTime) {
        let path = match problem {
            Problem::Overflow => {
                self.overflows += 1;
                return;
            }
            Problem::Unwatched { path, .. }
            | Problem::Unheld { path, .. }
            | Problem::TooMany { path, .. }
            | Problem::TooDeep { path, .. }
            | Problem::Unlisted { path, .. } => Some(path.clone()),
            Problem::HomeDirectories { home, .. }
            | Problem::HomeFiles { home, .. }
            | Problem::Unscanned { home } => Some(home.clone()),
        };
        self.trouble(problem.name(), path, problem.to_string(), time);
    }

    /// Something was lost.
    pub(super) fn lost(&mut self, code: &'static str, count: u64) {
        *self.losses.entry(code).or_default() += count;
    }

    /// Whether a problem of this kind is told by itself; else it is counted.
    pub(super) fn may_say(&mut self, code: &'static str, now: Instant, time: SystemTime) -> bool {
        let told = self.problems.entry(code).or_insert(Told {
            begun: now,
            since: time,
            count: 0,
        });
        told.count += 1;
        told.count <= PROBLEMS
    }

    /// How many of each kind were only counted, and since when, in windows that
    /// have ended, or in `all`.
    pub(super) fn untold(
        &mut self,
        now: Instant,
        all: bool,
    ) -> Vec<(&'static str, u64, SystemTime)> {
        let ended = self
            .problems
            .extract_if(|_, told| all || now.saturating_duration_since(told.begun) >= WINDOW)
            .filter(|(_, told)| told.count > PROBLEMS);
        ended
            .map(|(code, told)| (code, told.count - PROBLEMS, told.since))
            .collect()
    }

    /// Openers were let go unidentified.
    pub(super) fn overdue(&mut self, count: u64) {
        self.overdue += count;
    }

    /// The daemon sees or knows less from now on.
    pub(super) fn trouble(
        &mut self,
        code: &'static str,
        path: Option<PathBuf>,
        message: String,
        since: SystemTime,
    ) {
        let known = |trouble: &&mut Trouble| trouble.code == code && trouble.path == path;
        let alike = self.troubles.iter().filter(|trouble| trouble.code == code);
        let room = self.troubles.len() < TROUBLES && alike.count() < ALIKE;
        if let Some(trouble) = self.troubles.iter_mut().find(known) {
            trouble.message = message;
        } else if room {
            self.troubles.push(Trouble {
                since,
                code,
                path,
                message,
            });
        } else {
            self.more_troubles += 1;
        }
    }

    /// This trouble is over.
    pub(super) fn over(&mut self, code: &str) {
        self.troubles.retain(|trouble| trouble.code != code);
    }

    /// All of it.
    pub(super) fn told(
        &self,
        mode: &str,
        rules: &RuleSet,
        alerts: u64,
        suppressed: u64,
        today: jiff::civil::Date,
    ) -> Decided {
        Decided {
            mode: mode.to_owned(),
            troubles: self.troubles.clone(),
            more_troubles: self.more_troubles,
            overflows: self.overflows,
            overdue: self.overdue,
            losses: self.losses.clone(),
            alerts,
            suppressed,
            last_alert: self.last_alert,
            rules: self.by_rule(rules),
            exceptions: exceptions(rules, today),
        }
    }

    fn by_rule(&self, rules: &RuleSet) -> Value {
        let each = rules.rules().map(|rule| {
            let raised = self.rules.get(&rule.id);
            json!({
                "id": rule.id,
                "name": rule.name,
                "severity": rule.severity.as_str(),
                "alerts": raised.map_or(0, |raised| raised.alerts),
                "last_alert": raised.map(|raised| super::status::time(raised.last)),
            })
        });
        each.collect()
    }
}

fn exceptions(rules: &RuleSet, today: jiff::civil::Date) -> Value {
    let each = rules.exceptions(today).map(|(exception, standing)| {
        json!({
            "rule": exception.target(),
            "when": exception.when(),
            "reason": exception.reason(),
            "expires": exception.expires().map(|day| day.to_string()),
            "standing": match standing {
                ExceptionStanding::Active => "active",
                ExceptionStanding::Expired => "expired",
                ExceptionStanding::NoRule => "no_rule",
            },
            "matches": exception.hits(),
        })
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn troubles_are_bounded_and_each_stands_once() {
        let mut standing = Standing::default();
        let problem = |number: usize| Problem::Unwatched {
            path: format!("/home/u{number}/.ssh").into(),
            reason: "no space".to_owned(),
        };
        for number in 0..TROUBLES + 5 {
            for _ in 0..2 {
                standing.problem(&problem(number), SystemTime::UNIX_EPOCH);
            }
        }
        assert_eq!(standing.troubles.len(), ALIKE);
        assert_eq!(standing.more_troubles, 2 * (TROUBLES + 5 - ALIKE) as u64);
        for number in 0..TROUBLES {
            let problem = Problem::Unlisted {
                path: format!("/home/u{number}/.ssh").into(),
                reason: "no space".to_owned(),
            };
            standing.problem(&problem, SystemTime::UNIX_EPOCH);
        }
        assert_eq!(standing.troubles.len(), 2 * ALIKE, "room for other kinds");
        let (first, second) = (&standing.troubles[0], &standing.troubles[1]);
        assert_eq!(first.code, "directory_unwatched");
        assert_ne!(first.path, second.path);
    }

    #[test]
    fn problems_without_end_are_told_at_first_and_counted_then() {
        let mut standing = Standing::default();
        let (now, time) = (Instant::now(), SystemTime::UNIX_EPOCH);
        let mut say = |count, now| {
            (0..count)
                .filter(|_| standing.may_say("depth_limit", now, time))
                .count() as u64
        };
        assert_eq!(say(1000, now), PROBLEMS);
        assert!(standing.may_say("other", now, time));
        assert_eq!(standing.untold(now, false), []);
        let told = standing.untold(now + WINDOW, false);
        assert_eq!(told, [("depth_limit", 1000 - PROBLEMS, time)]);
        assert_eq!(standing.untold(now + WINDOW, true), []);
        assert!(standing.may_say("depth_limit", now + WINDOW, time));
    }

    #[test]
    fn an_overflow_is_counted_and_is_no_lasting_trouble() {
        let mut standing = Standing::default();
        standing.problem(&Problem::Overflow, SystemTime::UNIX_EPOCH);
        assert_eq!((standing.overflows, standing.troubles.len()), (1, 0));
    }
}
