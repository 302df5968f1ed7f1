//! The daemon's word about itself: its state, and what it may have missed.

use std::time::SystemTime;

use serde_json::Value;

use super::process::{attribution, process};
use super::{DATASET, Document, MODULE, Origin, occurrence, value};
use crate::event::flood::Flood;
use crate::resolve::Attribution;
use crate::rule::{Cause, Suppressed};
use crate::text;

/// What became of the daemon (`event.action` of a state document).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It watches.
    Start,
    /// It watches no longer.
    Stop,
    /// It took, or refused, a new configuration or new rules.
    Reload,
    /// It sees or knows less than it should.
    Degraded,
    /// That is over.
    Recovered,
    /// Nothing; somebody asked.
    Status,
}

impl Change {
    /// The value of `event.action`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Reload => "reload",
            Self::Degraded => "degraded",
            Self::Recovered => "recovered",
            Self::Status => "status",
        }
    }

    /// The value of `event.type` (ECS allowed values for category `process`).
    fn event_type(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "end",
            Self::Reload | Self::Degraded | Self::Recovered => "change",
            Self::Status => "info",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Start => "ssh-keywatch started",
            Self::Stop => "ssh-keywatch stopped",
            Self::Reload => "ssh-keywatch reloaded",
            Self::Degraded => "ssh-keywatch is degraded",
            Self::Recovered => "ssh-keywatch has recovered",
            Self::Status => "ssh-keywatch status",
        }
    }
}

/// Whether it worked (`event.outcome`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It did.
    Success,
    /// It did not, and the state before it remains.
    Failure,
}

impl Outcome {
    /// The value of `event.outcome`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
        }
    }
}

/// A change of the daemon's state.
#[derive(Clone, Debug)]
pub struct State<'a> {
    /// When.
    pub time: SystemTime,
    /// What changed.
    pub change: Change,
    /// Whether that worked.
    pub outcome: Outcome,
    /// Why, for a person; may be empty.
    pub reason: &'a str,
    /// `ssh_keywatch.coverage`: what is watched. Null if there is nothing to say.
    pub coverage: Value,
    /// `ssh_keywatch.counters`. Null if there is nothing to say.
    pub counters: Value,
    /// `ssh_keywatch.reload`: what a reload changed. Null if it was none.
    pub changes: Value,
}

/// Who failed to pass events on (`event.action` of a loss).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossKind {
    /// The kernel could not tell us.
    Lost,
    /// We could not take, or not keep, what it told us.
    Dropped,
    /// Nothing is lost yet, or nobody knows: something failed.
    Fault,
}

impl LossKind {
    /// The value of `event.action`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Dropped => "dropped",
            Self::Fault => "fault",
        }
    }
}

/// What was missed.
#[derive(Clone, Debug)]
pub struct Loss<'a> {
    /// When it was noticed.
    pub time: SystemTime,
    /// Since when it may have happened, if that is known.
    pub since: Option<SystemTime>,
    /// Who failed.
    pub kind: LossKind,
    /// `event.code`: a stable name of what happened, such as `queue_overflow`.
    pub code: &'a str,
    /// How many, if that is known.
    pub count: Option<u64>,
    /// Why, for a person.
    pub reason: &'a str,
}

/// The document of a change of the daemon's state.
#[must_use]
pub fn state(state: &State<'_>, origin: &Origin) -> Document {
    let what = [state.change.as_str()];
    let mut document = head(state.time, "state", &what, &said(state), origin);
    set_reason(&mut document, state.reason);
    document.set("event.category", vec!["process"]);
    document.set("event.type", vec![state.change.event_type()]);
    document.set("event.action", state.change.as_str());
    document.set("event.outcome", state.outcome.as_str());
    document.set("ssh_keywatch.coverage", state.coverage.clone());
    document.set("ssh_keywatch.counters", state.counters.clone());
    document.set("ssh_keywatch.reload", state.changes.clone());
    document
}

/// The document of what was missed.
#[must_use]
pub fn pipeline_error(loss: &Loss<'_>, origin: &Origin) -> Document {
    let events = match loss.count {
        Some(1) => "1 event was".to_owned(),
        Some(count) => format!("{count} events were"),
        None => "events were".to_owned(),
    };
    let message = match loss.kind {
        LossKind::Fault => loss.reason.to_owned(),
        kind => format!("{events} {}: {}", kind.as_str(), loss.reason),
    };
    let what = [loss.kind.as_str(), loss.code];
    let mut document = head(loss.time, "pipeline_error", &what, &message, origin);
    set_reason(&mut document, loss.reason);
    document.set("event.action", loss.kind.as_str());
    document.set("event.code", loss.code);
    document.set("event.outcome", "failure");
    document.set("event.start", loss.since.map(value::time));
    document.set("event.end", value::time(loss.time));
    document.set("ssh_keywatch.loss.count", loss.count);
    document
}

/// The document of events that were counted instead of told, for they were a flood.
#[must_use]
pub fn flood(flood: &Flood<Attribution>, time: SystemTime, origin: &Origin) -> Document {
    let counts = &flood.counts;
    let kinds = [
        ("creation", counts.creations),
        ("rename", counts.renames),
        ("modification", counts.modifications),
        ("deletion", counts.deletions),
        ("open", counts.opens),
    ];
    let kinds = kinds.into_iter().filter(|(_, count)| *count > 0);
    let named = kinds.clone().map(|(kind, count)| match count {
        1 => format!("1 {kind}"),
        count => format!("{count} {kind}s"),
    });
    let named: Vec<String> = named.collect();
    let place = value::exact(flood.home.as_os_str());
    let over = if flood.over {
        "it is over"
    } else {
        "it goes on"
    };
    let reason = format!(
        "a flood in {place}: {} were counted and not told one by one; {over}",
        named.join(", ")
    );
    let loss = Loss {
        time,
        since: Some(flood.since),
        kind: LossKind::Dropped,
        code: "flood",
        count: Some(counts.total()),
        reason: &reason,
    };
    let mut document = pipeline_error(&loss, origin);
    document.set("message", text::printable(&reason).into_owned());
    document.set("event.end", value::time(flood.until));
    document.set("file.path", place);
    document.set("ssh_keywatch.path_raw", value::raw(&flood.home));
    process(&mut document, &flood.writer, origin);
    attribution(&mut document, &flood.writer, origin);
    for (kind, count) in kinds {
        document.set(&format!("ssh_keywatch.flood.{kind}s"), count);
    }
    document.set("ssh_keywatch.flood.over", flood.over);
    document.move_last("ssh_keywatch");
    document
}

/// The document of alerts that were not raised because their rule says so: no
/// loss, and no error, but not silence either.
#[must_use]
pub fn suppressed(suppressed: &Suppressed, time: SystemTime, origin: &Origin) -> Document {
    let alerts = match suppressed.count {
        1 => "1 alert was".to_owned(),
        count => format!("{count} alerts were"),
    };
    let (code, reason) = match &suppressed.cause {
        Cause::MaxSignals(most, None) => (
            "max_signals",
            format!("the rule raises at most {most} in its interval"),
        ),
        Cause::MaxSignals(most, Some(home)) => (
            "max_signals",
            format!(
                "the rule raises at most {most} of one home in its interval ({})",
                value::exact(home.as_os_str())
            ),
        ),
        Cause::Alike(group) => {
            let fields: Vec<_> = group
                .iter()
                .map(|(name, values)| match values.as_slice() {
                    [] => format!("no {name}"),
                    values => format!("{name} {}", values.join(", ")),
                })
                .collect();
            let reason = format!("alike to one that was raised ({})", fields.join("; "));
            ("alert_suppression", reason)
        }
    };
    let rule = &suppressed.rule_name;
    let message = format!("{alerts} suppressed of the rule {rule}: {reason}");
    let what = ["suppressed", code, &suppressed.rule_id];
    let mut document = head(time, "state", &what, &message, origin);
    set_reason(&mut document, &reason);
    document.set("event.category", vec!["process"]);
    document.set("event.type", vec!["info"]);
    document.set("event.action", "suppressed");
    document.set("event.code", code);
    document.set("event.outcome", "success");
    document.set("event.start", value::time(suppressed.start));
    document.set("event.end", value::time(suppressed.end));
    document.set("rule.id", suppressed.rule_id.as_str());
    document.set("rule.name", suppressed.rule_name.as_str());
    document.set("ssh_keywatch.suppressed.count", suppressed.count);
    if let Cause::Alike(group) = &suppressed.cause {
        let names: Vec<_> = group.iter().map(|(name, _)| name.as_str()).collect();
        let values: Vec<_> = group
            .iter()
            .flat_map(|(_, values)| values.clone())
            .collect();
        document.set("ssh_keywatch.suppressed.fields", names);
        document.set("ssh_keywatch.suppressed.values", values);
    }
    document
}

fn set_reason(document: &mut Document, reason: &str) {
    if !reason.is_empty() {
        document.set("event.reason", reason);
    }
}

fn said(state: &State<'_>) -> String {
    let failed = match state.outcome {
        Outcome::Success => "",
        Outcome::Failure => " without success",
    };
    let words = state.change.words();
    if state.reason.is_empty() {
        format!("{words}{failed}")
    } else {
        format!("{words}{failed}: {}", state.reason)
    }
}

/// What every word of the daemon about itself begins with. Its `event.id` is
/// derived from the host, `what` it is about, when, and what is said: who gets
/// the same document twice can tell.
fn head(time: SystemTime, kind: &str, what: &[&str], message: &str, origin: &Origin) -> Document {
    let mut document = Document::new();
    let time = value::time(time);
    let message = text::printable(message).into_owned();
    let host = origin.host.id.as_str();
    let said = [host, kind, &time, &message];
    let id = value::digest(said.into_iter().chain(what.iter().copied()));
    document.set("@timestamp", time.as_str());
    document.set("message", message);
    document.set("event.kind", kind);
    document.set("event.id", id);
    document.set("event.module", MODULE);
    document.set("event.dataset", DATASET);
    document.set("event.created", time);
    occurrence::host(&mut document, &origin.host, origin);
    occurrence::mode(&mut document, origin);
    document
}
