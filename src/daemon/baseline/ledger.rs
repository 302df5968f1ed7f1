//! The way to the baseline's thread: what it is told, and what it tells.
//!
//! Owns the queue, which never makes anybody wait: what does not fit is counted.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::TrySendError;
use std::time::SystemTime;

use crate::alert::{Gap, Unseen};
use crate::baseline::{Made, Record, Stat};
use crate::event::assemble::Assembled;
use crate::key::Entry;
use crate::queue;
use crate::resolve::Attribution;
use crate::sink::Receipt;
use crate::watch::pattern::Pattern;
use crate::watch::tree::Listing;

/// How many updates may wait for the thread.
pub(super) const QUEUE: usize = 16 * 1024;

/// Why it is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::daemon) enum Cause {
    /// The daemon has started.
    Start,
    /// Records may be missing since then.
    Lost(Unseen, SystemTime),
    /// Directories got other names, which says nothing of the files in them; or
    /// something else is watched.
    Moved,
    /// Something else is mounted there now.
    Remounted,
    /// Files were closed after writing, and no writing was told of.
    Closed,
}

/// What is watched at a moment.
pub(in crate::daemon) struct Snapshot {
    /// Why it was taken.
    pub(in crate::daemon) cause: Cause,
    /// When the watching of these files began, or the records were lost.
    pub(in crate::daemon) until: SystemTime,
    /// What is there that is no directory. At the start with the versions that were
    /// found, if the thread has been given the key.
    pub(in crate::daemon) files: Listing,
    /// Nothing but what lies in these places is compared; none of them: all is.
    pub(in crate::daemon) places: Vec<PathBuf>,
    /// What lies in these is not looked at: its server may not answer.
    pub(in crate::daemon) apart: Vec<PathBuf>,
    /// What they were found by.
    pub(in crate::daemon) patterns: Vec<Pattern>,
}

/// Since when what a look at a place finds may be so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::daemon) enum Since {
    /// The first look since the daemon started.
    Start,
    /// The first since it was mounted.
    Mounted,
    /// The first since it is watched.
    New,
    /// Since the one that began then.
    Look(SystemTime),
}

/// What was found at a place whose server may not answer (`super::polling`).
pub(in crate::daemon) struct Polled {
    /// The place.
    pub(in crate::daemon) place: PathBuf,
    /// Since when.
    pub(in crate::daemon) since: Since,
    /// When the look began.
    pub(in crate::daemon) until: SystemTime,
    /// What is there that is no directory.
    pub(in crate::daemon) files: Vec<(PathBuf, Stat)>,
    /// Directories whose names are all known: what is not there is gone.
    pub(in crate::daemon) listed: HashSet<PathBuf>,
    /// What was not looked at.
    pub(in crate::daemon) missed: HashSet<PathBuf>,
}

impl Polled {
    /// Whether a file that was there is gone for sure.
    pub(super) fn is_gone(&self, path: &Path) -> bool {
        for at in path.ancestors() {
            if at == self.place || self.missed.contains(at) {
                return false;
            }
            if at.parent().is_some_and(|above| self.listed.contains(above)) {
                // Were it a directory that is there, it would be listed or missed.
                return at == path || !self.listed.contains(at);
            }
        }
        false
    }
}

/// What became of a file.
pub(in crate::daemon) struct Update {
    /// Its path.
    pub(in crate::daemon) path: PathBuf,
    /// Where it was before a rename.
    pub(in crate::daemon) from: Option<PathBuf>,
    /// What is known of it; `None`: it is gone.
    pub(in crate::daemon) record: Option<Record>,
    /// It is the file that was there before, changed: who made it stays true.
    pub(in crate::daemon) is_change: bool,
    /// When it was born, where the file system knows that.
    pub(in crate::daemon) born: Option<SystemTime>,
    /// Of the alerts about it, and of the word about those that were suppressed,
    /// before which it must not be stored.
    pub(in crate::daemon) receipts: Vec<Receipt>,
}

/// What the log says of a file as it is.
#[derive(Clone, Debug)]
pub(in crate::daemon) struct Told {
    /// The last alert was about its creation.
    pub(super) is_creation: bool,
    /// `ssh_keywatch.evidence`.
    pub(super) evidence: String,
    /// `event.id` of its alerts.
    pub(super) ids: Vec<String>,
    /// Who made it.
    pub(super) made: Made,
}

/// Something that nobody saw, or of which not every alert was written.
pub struct Missed {
    /// The event.
    pub(in crate::daemon) assembled: Assembled<Attribution>,
    /// When it may have been, and why it was not seen; `None`: it was, and the
    /// end of the daemon came between its alerts.
    pub(in crate::daemon) gap: Option<Gap>,
    /// What stands in the log of it.
    pub(in crate::daemon) told: Option<Told>,
    /// What a list held before, if that is known.
    pub(in crate::daemon) before: Option<Vec<Entry>>,
    /// What was found of it, where a server may not answer again.
    pub(in crate::daemon) record: Option<Record>,
    /// Shared by all that wait to be decided.
    pub(in crate::daemon) waiting: Arc<()>,
}

/// What the thread is to do.
pub(super) enum Task {
    /// Keep this.
    Update(Box<Update>),
    /// Compare this.
    Snapshot(Box<Snapshot>),
    /// Compare what a look found.
    Polled(Box<Polled>),
    /// Write what can be written, and end.
    End,
}

/// The way to the thread.
#[derive(Clone)]
pub struct Ledger {
    tasks: queue::Sender<Task>,
    dropped: Arc<AtomicU64>,
}

impl Ledger {
    /// The way, the end of it, and the count of what did not fit.
    pub(super) fn new() -> (Self, queue::Receiver<Task>, Arc<AtomicU64>) {
        let (tasks, inbox) = queue::bounded(QUEUE);
        let dropped = Arc::<AtomicU64>::default();
        let ledger = Self {
            tasks,
            dropped: Arc::clone(&dropped),
        };
        (ledger, inbox, dropped)
    }

    /// Ends the thread when it has done all before.
    pub(super) fn end(&self) {
        let _ = self.tasks.send(Task::End);
    }

    /// Tells what became of a file. Never waits: what does not fit is counted,
    /// and found at the next start.
    pub(in crate::daemon) fn update(&self, update: Update) {
        self.give(Task::Update(Box::new(update)));
    }

    /// Has `snapshot` compared.
    pub(in crate::daemon) fn compare(&self, snapshot: Snapshot) {
        self.give(Task::Snapshot(Box::new(snapshot)));
    }

    /// Has what a look found compared.
    pub(in crate::daemon) fn polled(&self, polled: Polled) {
        self.give(Task::Polled(Box::new(polled)));
    }

    fn give(&self, task: Task) {
        if let Err(TrySendError::Full(_)) = self.tasks.try_send(task) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}
