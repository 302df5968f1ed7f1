//! What the deciding thread tells of the daemon itself: its states, what it lost,
//! floods, and what sinks have to say.
//!
//! Owns the form of these reports and how the condition stands in every document.
//! Must not decide about events.

use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use super::{Deciding, Lost, Said};
use crate::alert::{self, Change, Loss, LossKind, Outcome, State};
use crate::daemon::standing::Decided;
use crate::event::flood::Flood;
use crate::resolve::Attribution;
use crate::rule::Suppressor;
use crate::sink::{Line, ReportKind};
use crate::watch::Problem;

/// The trouble that openers are not held.
const NOT_HELD: &str = "hold_ended";

impl Deciding {
    pub(super) fn problem(
        &mut self,
        time: SystemTime,
        since: Option<SystemTime>,
        problem: &Problem,
    ) {
        self.standing.problem(problem, time);
        if !self.standing.may_say(problem.name(), Instant::now(), time) {
            return;
        }
        tracing::warn!("{problem}");
        let lost = matches!(problem, Problem::Overflow);
        self.loss(&Loss {
            time,
            since,
            kind: if lost {
                LossKind::Lost
            } else {
                LossKind::Fault
            },
            code: problem.name(),
            count: None,
            reason: &problem.to_string(),
        });
    }

    /// Tells how many problems were not told one by one.
    pub(super) fn untold_problems(&mut self, all: bool) {
        let time = SystemTime::now();
        for (code, count, since) in self.standing.untold(Instant::now(), all) {
            let reason =
                format!("{count} further problems of the kind {code} were not told one by one");
            self.loss(&Loss {
                time,
                since: Some(since),
                kind: LossKind::Fault,
                code,
                count: Some(count),
                reason: &reason,
            });
        }
    }

    pub(super) fn say(&mut self, said: Said) {
        let mut counters = said.counters;
        if said.change == Change::Stop {
            self.untold_problems(true);
            // What was suppressed until now is told before the last word.
            self.suppressed(Suppressor::finish);
        }
        if let Value::Object(counters) = &mut counters {
            counters.insert("rules".to_owned(), self.counters());
        }
        let state = State {
            time: said.time,
            change: said.change,
            outcome: if said.success {
                Outcome::Success
            } else {
                Outcome::Failure
            },
            reason: &said.reason,
            coverage: said.coverage,
            counters,
            changes: said.changes,
        };
        self.out(alert::state(&state, &self.origin));
    }

    /// Tells how much was counted, and whether it is over.
    pub(super) fn flood(&mut self, mut flood: Flood<Attribution>) {
        self.name(&mut flood.writer);
        if flood.counts.total() == 0 {
            return;
        }
        let document = alert::flood(&flood, SystemTime::now(), &self.origin);
        tracing::warn!("{}", document.str("message").unwrap_or_default());
        self.out(document);
    }

    pub(super) fn fault(&self, code: &str, count: Option<u64>, reason: &str) {
        self.loss(&Loss {
            time: SystemTime::now(),
            since: None,
            kind: LossKind::Fault,
            code,
            count,
            reason,
        });
    }

    pub(super) fn released(&mut self, why: &str, pause: Duration) {
        self.released = Some(format!("openers are not held: {why}"));
        self.update_condition();
        self.degraded(
            NOT_HELD,
            &format!(
                "openers are not held any more ({why}): one that exits at once may go unnamed; \
                 it is tried again in {} seconds",
                pause.as_secs()
            ),
        );
    }

    /// What every document says of how it is watched, from what is known of it.
    pub(super) fn update_condition(&mut self) {
        self.origin.mode = match &self.released {
            Some(_) => self.mode.replace("+hold", ""),
            None => self.mode.clone(),
        };
        let tried = self.tried.iter();
        let tried = tried.map(|problem| format!("self-test: {problem}"));
        let released = self.released.iter().cloned();
        self.origin.degraded = released.chain(tried).collect();
    }

    pub(super) fn held_again(&mut self) {
        self.released = None;
        self.update_condition();
        self.standing.over(NOT_HELD);
        let reason = "openers are held again";
        tracing::info!("{reason}");
        self.condition(Change::Recovered, Outcome::Success, reason);
    }

    pub(super) fn degraded(&mut self, code: &'static str, reason: &str) {
        tracing::error!("{reason}");
        let now = SystemTime::now();
        self.standing.trouble(code, None, reason.to_owned(), now);
        self.condition(Change::Degraded, Outcome::Failure, reason);
    }

    pub(super) fn condition(&self, change: Change, outcome: Outcome, reason: &str) {
        let state = State {
            time: SystemTime::now(),
            change,
            outcome,
            reason,
            coverage: Value::Null,
            counters: Value::Null,
            changes: Value::Null,
        };
        self.out(alert::state(&state, &self.origin));
    }

    /// What was decided so far, for a status.
    pub(super) fn told(&self) -> Decided {
        let today = jiff::ZonedDateTime::now().date();
        let (raised, suppressed) = (self.raised, self.suppressor.total());
        let mode = &self.origin.mode;
        self.standing
            .told(mode, &self.rules, raised, suppressed, today)
    }

    /// What was decided so far, for a state.
    pub(super) fn counters(&self) -> Value {
        let today = jiff::ZonedDateTime::now().date();
        let exceptions: Vec<Value> = self
            .rules
            .exceptions(today)
            .map(|(exception, _)| {
                json!({
                    "rule": exception.target(),
                    "reason": exception.reason(),
                    "matches": exception.hits(),
                })
            })
            .collect();
        json!({
            "alerts": self.raised,
            "suppressed": self.suppressor.total(),
            "exceptions": exceptions,
        })
    }

    /// What the sinks had to tell stands in the log too, if that can be written.
    pub(super) fn sink_reports(&self) {
        for report in self.fanout.take_reports() {
            let (code, count, since) = match &report.kind {
                ReportKind::Failing { .. } => ("sink_failing", None, None),
                ReportKind::Hanging { .. } => ("sink_hanging", None, None),
                ReportKind::Overrun => ("sink_overrun", None, None),
                ReportKind::Recovered { dropped, since } => {
                    ("sink_recovered", Some(*dropped), Some(*since))
                }
                ReportKind::Stopped => ("sink_stopped", None, None),
                ReportKind::Note { .. } => ("sink_note", None, None),
            };
            self.loss(&Loss {
                time: report.time,
                since,
                kind: match count {
                    Some(1..) => LossKind::Dropped,
                    _ => LossKind::Fault,
                },
                code,
                count,
                reason: &report.message(),
            });
        }
    }

    /// Tells what another thread noticed.
    pub(super) fn lost(&mut self, lost: Lost) {
        tracing::warn!("{}", lost.reason);
        self.standing.lost(lost.code, lost.count.unwrap_or(1));
        let loss = Loss {
            time: SystemTime::now(),
            since: lost.since,
            kind: lost.kind,
            code: lost.code,
            count: lost.count,
            reason: &lost.reason,
        };
        let line = Line::new(alert::pipeline_error(&loss, &self.origin).into_map());
        let promise = lost.promise.unwrap_or_default();
        promise.keep(|receipt| self.fanout.send_for(&line, receipt));
    }

    pub(super) fn loss(&self, loss: &Loss<'_>) {
        self.out(alert::pipeline_error(loss, &self.origin));
    }
}
