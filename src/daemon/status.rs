//! How the daemon fares, gathered from its threads.
//!
//! Owns the questions to the watching and the deciding thread, how long an
//! answer is waited for, and the form of `ssh-keywatch status --json`. A thread
//! that does not answer is itself part of the answer.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};

use super::Message;
use super::build::Orders;
use super::source::{Coverage, Mode};
use super::standing::{Decided, Trouble};
use super::watching::Command;
use crate::config::{Backend, Config, Hold};
use crate::queue;
use crate::sink::{Fanout, SinkState};
use crate::text::escape_path;
use crate::watch::hold;

/// How long each thread has to answer.
const ANSWER_TIME: Duration = Duration::from_secs(1);
/// Of many roots only the first are named.
const NAMED: usize = 1000;

/// A moment as RFC 3339, in UTC.
pub(super) fn time(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map_or_else(|_| String::new(), |time| time.to_string())
}

/// What a reload changes.
#[derive(Debug)]
pub(super) struct Asked {
    /// The configuration of the start, by which all runs that no reload changes.
    pub(super) config: Config,
    /// All that is watched, as text in which `*` is a wildcard.
    pub(super) watched: Vec<String>,
    /// The last reload: when, whether it worked, and what it said.
    pub(super) reload: Option<(SystemTime, bool, String)>,
}

/// Everything that can be read of the running daemon, by any thread.
#[derive(Clone)]
pub(super) struct Gauges {
    pub(super) started: SystemTime,
    pub(super) mode: Mode,
    pub(super) hold: Option<Arc<hold::Counters>>,
    pub(super) fanout: Arc<Fanout>,
    pub(super) orders: Orders,
    pub(super) messages: queue::Sender<Message>,
    /// Only ever held for a moment.
    pub(super) asked: Arc<Mutex<Asked>>,
}

impl Gauges {
    /// What is watched, unless the watching thread does not answer in time.
    pub(super) fn coverage(&self, bound: Duration) -> Option<Coverage> {
        let (reply, answer) = sync_channel(1);
        self.orders.give(Command::Coverage(reply));
        answer.recv_timeout(bound).ok()
    }

    /// What the main thread was asked to do.
    pub(super) fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn decided(&self) -> Option<Decided> {
        let (reply, answer) = sync_channel(1);
        self.messages.try_send(Message::Status(reply)).ok()?;
        answer.recv_timeout(ANSWER_TIME).ok()
    }

    /// What was counted, as `ssh_keywatch.counters` of a state document.
    pub(super) fn counters(&self) -> Value {
        let sinks: Map<String, Value> = self
            .fanout
            .counters()
            .into_iter()
            .map(|sink| {
                let state = json!({
                    "state": sink.state.as_str(),
                    "written": sink.written,
                    "failed": sink.failed,
                    "dropped": sink.dropped,
                    "waiting": sink.waiting,
                });
                (sink.name.to_owned(), state)
            })
            .collect();
        json!({ "hold": self.held(), "sinks": sinks })
    }

    fn held(&self) -> Option<Value> {
        self.hold.as_ref().map(|counters| {
            json!({
                "answered": counters.answered.load(Relaxed),
                "late": counters.late.load(Relaxed),
                "unidentified": counters.unidentified.load(Relaxed),
                "dropped": counters.dropped.load(Relaxed),
            })
        })
    }

    /// The whole status.
    pub(super) fn status(&self) -> Value {
        let coverage = self.coverage(ANSWER_TIME);
        let decided = self.decided();
        let asked = self.asked();
        let mode = decided
            .as_ref()
            .map_or(self.mode.as_str(), |decided| decided.mode.as_str());
        let degraded = self.degraded(&asked.config, coverage.as_ref(), decided.as_ref());
        let now = SystemTime::now();
        let mut status = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "started": time(self.started),
            "uptime": now.duration_since(self.started).unwrap_or_default().as_secs(),
            "mode": mode,
            "degraded": degraded,
            "coverage": cover(&asked, coverage.as_ref(), decided.as_ref()),
            "counters": self.counted(coverage.as_ref(), decided.as_ref()),
            "sinks": self.sinks(),
            "log": escape_path(&asked.config.log.file),
            "last_reload": asked.reload.as_ref().map(|(when, success, said)| json!({
                "time": time(*when),
                "outcome": if *success { "success" } else { "failure" },
                "reason": said,
            })),
        });
        if let (Value::Object(status), Some(decided)) = (&mut status, decided) {
            status.insert("last_alert".to_owned(), decided.last_alert.map(time).into());
            status.insert("rules".to_owned(), decided.rules);
            status.insert("exceptions".to_owned(), decided.exceptions);
        }
        status
    }

    fn sinks(&self) -> Vec<Value> {
        let each = self.fanout.counters().into_iter().map(|sink| {
            json!({
                "name": sink.name,
                "state": sink.state.as_str(),
                "written": sink.written,
                "failed": sink.failed,
                "dropped": sink.dropped,
                "waiting": sink.waiting,
                "last_error": sink.last_error,
            })
        });
        each.collect()
    }

    fn counted(&self, coverage: Option<&Coverage>, decided: Option<&Decided>) -> Value {
        json!({
            "hold": self.held(),
            "hold_overdue": decided.map(|decided| decided.overdue),
            "losses": decided.map(|decided| &decided.losses),
            "queue_overflows": decided.map(|decided| decided.overflows),
            "events_dropped": coverage.map(|coverage| coverage.dropped),
            "events_flooded": coverage.map(|coverage| coverage.flooded),
            "process_table": coverage.and_then(|coverage| coverage.table).map(|(moments, counters)| json!({
                "moments": moments.as_str(),
                "processes": counters.processes,
                "records": counters.records,
                "lost": counters.lost,
                "repaired": counters.repaired,
            })),
            "alerts": decided.map(|decided| decided.alerts),
            "suppressed": decided.map(|decided| decided.suppressed),
        })
    }

    /// Each reason why it sees or knows less than it was asked to.
    fn degraded(
        &self,
        config: &Config,
        coverage: Option<&Coverage>,
        decided: Option<&Decided>,
    ) -> Vec<Value> {
        let mut reasons = Vec::new();
        let mut say = |code: &str, reason: String, since: Option<SystemTime>| {
            reasons.push(json!({
                "code": code,
                "reason": reason,
                "since": since.map(time),
            }));
        };
        if coverage.is_none() {
            let reason = "the watching thread does not answer: what happens now may go unseen";
            say("watch_silent", reason.to_owned(), None);
        }
        if decided.is_none() {
            let reason = "the deciding thread does not answer: alerts are late";
            say("decide_silent", reason.to_owned(), None);
        }
        let watch = &config.watch;
        if self.mode == Mode::Inotify {
            if watch.backend != Backend::Inotify {
                let reason = "fanotify cannot be used here; inotify cannot name who makes a file";
                say("inotify", reason.to_owned(), Some(self.started));
            }
        } else {
            if watch.hold != Hold::Off && self.hold.is_none() {
                let reason = "this kernel does not let writers be held: one that exits at once may go unnamed";
                say("not_held", reason.to_owned(), Some(self.started));
            }
            if watch.process_table && !self.mode.as_str().contains("+table") {
                let reason = "forks and execs cannot be followed: who renames or links a file and exits at once may go unnamed";
                say("no_process_table", reason.to_owned(), Some(self.started));
            }
        }
        let floods = coverage.map_or(&[][..], |coverage| &coverage.floods);
        for flood in floods.iter().take(NAMED) {
            let reason = format!(
                "a flood in {}: {} events were counted and not told one by one",
                escape_path(&flood.home),
                flood.count
            );
            say("flood", reason, Some(flood.since));
        }
        if let Some(decided) = decided {
            for trouble in &decided.troubles {
                if !is_over(trouble, coverage) {
                    let message = crate::text::printable(&trouble.message).into_owned();
                    say(trouble.code, message, Some(trouble.since));
                }
            }
            if decided.more_troubles > 0 {
                let reason = format!(
                    "{} further problems; the log has them",
                    decided.more_troubles
                );
                say("more", reason, None);
            }
        }
        for sink in self.fanout.counters() {
            // A terminal that has gone is no loss to anybody.
            if sink.state == SinkState::Failing
                || sink.state == SinkState::Stopped && sink.name != "terminal"
            {
                let error = sink.last_error.unwrap_or_default();
                let reason = format!("alerts do not reach the {}: {error}", sink.name);
                say("sink_failing", reason, None);
            }
        }
        reasons
    }
}

/// Whether a directory that could not be watched, or not be held, is so by now.
fn is_over(trouble: &Trouble, coverage: Option<&Coverage>) -> bool {
    let now = coverage
        .zip(trouble.path.as_ref())
        .and_then(|(coverage, path)| {
            let mut roots = coverage.roots.iter();
            roots.find(|root| root.path == *path)
        });
    match trouble.code {
        "directory_unwatched" => now.is_some(),
        "directory_unheld" => now.is_some_and(|root| root.how == "held"),
        _ => false,
    }
}

/// What is watched, each root with how well and why not better.
fn cover(asked: &Asked, coverage: Option<&Coverage>, decided: Option<&Decided>) -> Value {
    let Some(coverage) = coverage else {
        return json!({ "watched": asked.watched });
    };
    let roots = coverage.roots.iter().take(NAMED).map(|root| {
        json!({
            "path": escape_path(&root.path),
            "how": root.how,
            "reason": root.reason,
        })
    });
    let roots: Vec<Value> = roots.collect();
    let troubles = decided.map_or(&[][..], |decided| &decided.troubles);
    let unwatched = troubles.iter().filter(|trouble| {
        matches!(
            trouble.code,
            "directory_unwatched" | "directory_limit" | "depth_limit"
        ) && !is_over(trouble, Some(coverage))
    });
    let unwatched: Vec<Value> = unwatched
        .filter_map(|trouble| {
            let message = crate::text::printable(&trouble.message).into_owned();
            let path = escape_path(trouble.path.as_ref()?);
            Some(json!({ "path": path, "how": "none", "reason": message }))
        })
        .collect();
    json!({
        "watched": asked.watched,
        "directories": coverage.directories,
        "root_count": coverage.roots.len(),
        "roots": roots,
        "unwatched": unwatched,
    })
}
