//! Where alert lines go: the JSON log, journald, a terminal.
//!
//! ```text
//! daemon ─► Fanout ─┬─► queue ─► thread "sink-log"      ─► JsonLog
//!           (never  ├─► queue ─► thread "sink-journal"  ─► Journal
//!            waits) └─► queue ─► thread "sink-terminal" ─► Terminal
//! ```
//!
//! Owns the descriptors it writes to, one thread and one bounded queue a sink.
//! Must not know rules, nor change a document. Fails by sink: one that hangs or
//! errs keeps a bounded number of lines for later, counts what it loses, says so
//! once per outage ([`Report`]), and never stops another sink or the sender.

mod fanout;
mod field;
mod journal;
mod jsonlog;
mod receipt;
mod report;
mod terminal;
mod worker;

use std::io;
use std::sync::Arc;

use serde_json::{Map, Value};

pub use fanout::Fanout;
pub use field::{field, number, strings, text};
pub use journal::{Journal, MessageId, fields, priority};
pub use jsonlog::{Flaw, JsonLog, Link, Options, Rotation, Verifier, last_written};
pub(crate) use jsonlog::{LAST_NUMBER, is_absence, line_start, rotated};
pub use receipt::{Fate, Promise, Receipt};
pub use report::{Report, ReportKind, SinkState, SinkStatus};
pub use terminal::{Format, Renderer, Terminal, TerminalStyle};

/// From this `event.severity` on (high, critical) a line is forced to the disk
/// before the next one is taken; below, within [`SETTLE_AFTER`].
pub const URGENT_SEVERITY: u64 = 73;

/// How long a line of lesser severity may wait for its fdatasync(2).
pub const SETTLE_AFTER: std::time::Duration = std::time::Duration::from_secs(1);

/// One document on its way out, rendered once for all sinks. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Line {
    /// The ECS document (nested objects).
    pub document: Arc<Map<String, Value>>,
    /// The same as one line of JSON, without the newline.
    pub json: Arc<str>,
}

impl Line {
    /// Renders a document.
    #[must_use]
    pub fn new(document: Map<String, Value>) -> Self {
        let json = crate::text::json_line(&document).into();
        Self {
            document: Arc::new(document),
            json,
        }
    }

    /// Whether it is an alert that only means something together with others
    /// (`building_block_type`): it stands in the log, and calls nobody.
    #[must_use]
    pub fn is_building_block(&self) -> bool {
        is_building_block(&self.document)
    }

    /// Whether the line must be on disk before anything else happens.
    #[must_use]
    pub fn is_urgent(&self) -> bool {
        number(&self.document, "event.severity").is_some_and(|severity| severity >= URGENT_SEVERITY)
    }
}

/// As [`Line::is_building_block`].
#[must_use]
pub fn is_building_block(document: &Map<String, Value>) -> bool {
    field(document, "ssh_keywatch.rule.building_block") == Some(&Value::Bool(true))
}

/// How much a sink keeps in memory while it cannot write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spool {
    /// At most so many lines.
    pub lines: usize,
    /// At most so many bytes of JSON.
    pub bytes: usize,
}

impl Spool {
    /// Nothing is kept: a line that cannot be written now is lost.
    pub const NONE: Self = Self { lines: 0, bytes: 0 };
}

/// A place that takes lines. Each runs on a thread of its own, so it may block.
pub trait Sink: Send {
    /// A short stable name: `log`, `journal`, `terminal`.
    fn name(&self) -> &'static str;

    /// Writes the whole line or nothing of it: after an error the same line is
    /// offered again, as far as [`Sink::spool`] allows.
    ///
    /// [`io::ErrorKind::BrokenPipe`] means that nobody will ever read again:
    /// the sink is stopped for good and the rest goes on.
    fn write(&mut self, line: &Line) -> io::Result<()>;

    /// Makes what was written durable. Called at once after an urgent line, and
    /// within [`SETTLE_AFTER`] after any other.
    fn settle(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Whether what it has written and settled is kept for good: receipts are
    /// given for it.
    fn is_record(&self) -> bool {
        false
    }

    /// Opens its file anew (SIGHUP, after a rotation).
    fn reopen(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// How much is kept for later while writing fails.
    fn spool(&self) -> Spool {
        Spool::NONE
    }

    /// Things worth a report that happened since the last call, though nothing
    /// failed: a torn line was found, the file was made anew.
    fn notes(&mut self) -> Vec<String> {
        Vec::new()
    }
}
