//! What a sink has to tell: how it fares, and each change of that once.
//!
//! Owns the words for it and the bounded store from which the daemon takes them.
//! Must not decide what failing means ([`super::Fanout`] does). Never waits:
//! where nobody listens, the oldest report goes.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime};

use super::fanout::lock;

/// Reports kept for the daemon; older ones go first.
const KEPT: usize = 256;

/// Whether a sink does its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinkState {
    /// The last thing it was asked to do, it did.
    Ok,
    /// It errs, or its queue is full.
    Failing,
    /// Its reader has gone; nothing is sent to it any more.
    Stopped,
}

impl SinkState {
    /// `ok`, `failing` or `stopped`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failing => "failing",
            Self::Stopped => "stopped",
        }
    }
}

/// One sink's counters since the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkStatus {
    /// The sink's name.
    pub name: &'static str,
    /// Whether it works.
    pub state: SinkState,
    /// Lines written.
    pub written: u64,
    /// Lines that could not be written when they came; some were, later.
    pub failed: u64,
    /// Lines that this sink will never have.
    pub dropped: u64,
    /// Lines that wait: in its queue, or in its spool for a better time.
    pub waiting: u64,
    /// The last error, if there ever was one.
    pub last_error: Option<String>,
}

/// Something a sink has to tell, at most once a change of state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// When.
    pub time: SystemTime,
    /// Which sink.
    pub sink: &'static str,
    /// What.
    pub kind: ReportKind,
}

/// What a [`Report`] tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReportKind {
    /// It cannot write; lines are kept as far as the spool goes.
    Failing {
        /// Why.
        error: String,
    },
    /// It does not come back from one call; lines wait in its queue.
    Hanging {
        /// How long it has been at that.
        busy: Duration,
    },
    /// Its queue is full: it hangs, or too much comes at once.
    Overrun,
    /// It works again.
    Recovered {
        /// Lines dropped since it failed, gone for this sink.
        dropped: u64,
        /// When it had failed.
        since: SystemTime,
    },
    /// Its reader has gone; it will not be asked again.
    Stopped,
    /// Something to know, with nothing failing: a torn line was repaired.
    Note {
        /// What.
        text: String,
    },
}

impl Report {
    fn say(&self) {
        let message = self.message();
        match self.kind {
            ReportKind::Failing { .. } | ReportKind::Hanging { .. } | ReportKind::Overrun => {
                tracing::error!("{message}");
            }
            ReportKind::Note { .. } => tracing::warn!("{message}"),
            ReportKind::Recovered { .. } | ReportKind::Stopped => tracing::info!("{message}"),
        }
    }

    /// The report as a sentence.
    #[must_use]
    pub fn message(&self) -> String {
        let sink = self.sink;
        match &self.kind {
            ReportKind::Failing { error } => format!("sink {sink} cannot write: {error}"),
            ReportKind::Hanging { busy } => format!(
                "sink {sink} hangs: it has been writing for {} s; lines wait for it in memory",
                busy.as_secs()
            ),
            ReportKind::Overrun => {
                format!("sink {sink} hangs or is too slow: its queue is full, lines are dropped")
            }
            ReportKind::Recovered { dropped, .. } => {
                format!("sink {sink} writes again; lines lost: {dropped}")
            }
            ReportKind::Stopped => format!("sink {sink} is closed: nobody reads it any more"),
            ReportKind::Note { text } => format!("sink {sink}: {text}"),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Reports {
    kept: Arc<Mutex<VecDeque<Report>>>,
    voice: SyncSender<Report>,
}

impl Reports {
    /// Starts the thread that says reports through tracing. It ends when the
    /// last clone has gone.
    pub(super) fn start() -> io::Result<Self> {
        let (voice, said) = mpsc::sync_channel::<Report>(KEPT);
        thread::Builder::new()
            .name("sink-voice".to_owned())
            .spawn(move || {
                for report in said {
                    report.say();
                }
            })?;
        Ok(Self {
            kept: Arc::default(),
            voice,
        })
    }

    /// All that has been kept, oldest first.
    pub(super) fn take(&self) -> Vec<Report> {
        lock(&self.kept).drain(..).collect()
    }

    /// Never waits.
    pub(super) fn push(&self, sink: &'static str, kind: ReportKind) {
        let report = Report {
            time: SystemTime::now(),
            sink,
            kind,
        };
        // Where the voice is stuck, the report is still kept below.
        let _ = self.voice.try_send(report.clone());
        let mut kept = lock(&self.kept);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(report);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_bounded_though_nobody_takes_or_says_them() {
        let (voice, _said) = mpsc::sync_channel(1);
        let reports = Reports {
            kept: Arc::default(),
            voice,
        };
        for turn in 0..2 * KEPT {
            reports.push(
                "x",
                ReportKind::Note {
                    text: turn.to_string(),
                },
            );
        }
        let kept = reports.take();
        assert_eq!(kept.len(), KEPT);
        assert_eq!(
            kept[0].kind,
            ReportKind::Note {
                text: KEPT.to_string()
            }
        );
        assert!(reports.take().is_empty());
    }
}
