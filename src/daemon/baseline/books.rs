//! The thread's books: what is known, and what is to be stored.

mod comparing;

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant, SystemTime};

use super::alerted::{Alerted, MARGIN};
use super::ledger::{Cause, Polled, QUEUE, Snapshot, Task, Update};
use super::look::Looker;
use super::pending::Pending;
use super::versions::Versions;
use crate::alert::Unseen;
use crate::baseline::{Meta, Moment, Record, Store};
use crate::daemon::Message;
use crate::event::Action;
use crate::event::flood::Budgets;
use crate::key::Role;
use crate::queue;
use crate::sink::{Promise, Receipt};
use crate::watch::home::{self, is_looked_for};

/// How often the store says that the daemon lives.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// When a difference is looked at again that a record on its way may explain.
const SECOND_LOOK: Duration = Duration::from_secs(3);
/// The same where nothing went wrong, and records are only waited for. Those of a large
/// directory that moved are many.
const UNHEARD_LOOK: Duration = Duration::from_secs(10);
/// How many differences may wait for that.
const MOST_DEFERRED: usize = 64 * 1024;
/// Of more files that are owed than these it is not asked what they are called.
const MOST_NAMED: usize = 1024;
/// How many snapshots may wait, of all that is watched each.
const MOST_LATER: usize = 8;
/// How many looks at places may wait.
const MOST_POLLED: usize = 64;

/// Says whether the log takes what it is given.
pub(in crate::daemon) type IsLogWell = Box<dyn Fn() -> bool + Send>;

/// What a difference is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Difference {
    Appeared,
    Changed,
    Gone,
}

impl Difference {
    fn action(self) -> Action {
        match self {
            Self::Appeared => Action::Creation,
            Self::Changed => Action::Modification,
            Self::Gone => Action::Deletion,
        }
    }
}

/// What the comparison knows of the gap.
#[derive(Clone, Copy)]
pub(super) struct Window {
    unseen: Unseen,
    since: Option<SystemTime>,
    until: SystemTime,
    /// Whether it is looked at again before it is told.
    twice: bool,
}

impl Window {
    /// Whether a file is read though its times are what they were. A page that is mapped
    /// and was written to before takes stores that move none (mmap(2)), which shows when
    /// the file is closed. Where that may have gone unheard, what lets somebody in is
    /// read; at the start, of many homes, its lists alone.
    fn reads(&self, path: &Path) -> bool {
        let is_looked_for = || is_looked_for(&home::of(path), path);
        match self.unseen {
            Unseen::Mapped => true,
            Unseen::Lost | Unseen::Flood | Unseen::Released => is_looked_for(),
            Unseen::NotRunning => {
                let role = path.file_name().map(Role::of);
                role == Some(Role::AuthorizedKeys) && is_looked_for()
            }
            Unseen::Unmounted
            | Unseen::Polled
            | Unseen::Unlogged
            | Unseen::ClockSet
            | Unseen::Unheard => false,
        }
    }
}

pub(super) struct Deferred {
    due: Instant,
    path: PathBuf,
    window: Window,
    /// How often it was put off since its second look.
    looks: u8,
}

/// Why a gap that was looked into stays open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Unfinished {
    /// It does not.
    #[default]
    No,
    /// That it was could not be written.
    Unwritten,
    /// Something could not be compared: the next start makes up for it.
    Cut,
}

/// What was told in vain, or could not be told yet: nothing of it is stored before it
/// has been looked at again and told.
#[derive(Default)]
pub(super) struct Owed {
    paths: BTreeSet<PathBuf>,
    /// Since when the log could not be written.
    since: Option<SystemTime>,
    /// More is owed than can be kept: nothing is stored before the next start.
    all: bool,
}

impl Owed {
    fn has(&self, path: &Path) -> bool {
        self.all || self.paths.contains(path)
    }

    /// Whether a file that appeared where nothing was seen of it may be one of them that
    /// went with its directory.
    fn has_moved_to(&self, path: &Path) -> bool {
        let name = path.file_name();
        let is_named_so = |owed: &PathBuf| owed.file_name() == name;
        self.paths.len() > MOST_NAMED || self.paths.iter().any(is_named_so)
    }
}

/// Differences that were too many for their home: how many, and the line that will say
/// so, before which they are not stored.
#[derive(Default)]
pub(super) struct Untold {
    count: u64,
    promise: Promise,
}

/// All that the thread has.
pub(super) struct Books {
    pub(super) store: Store,
    pub(super) meta: Meta,
    /// Since when what happened is not known.
    pub(super) since: Option<SystemTime>,
    /// There was no store, or nothing in it, when the daemon started.
    pub(super) is_new: bool,
    /// Since when the daemon did not run.
    pub(super) down_since: Option<SystemTime>,
    /// The gap that is being looked into.
    pub(super) gap: Option<Window>,
    /// What was known at the start; until the comparison with that.
    pub(super) versions: Option<Versions>,
    /// Stock is being taken.
    pub(super) is_stock: bool,
    pub(super) pending: Pending,
    pub(super) owed: Owed,
    pub(super) is_log_well: IsLogWell,
    pub(super) inbox: queue::Receiver<Task>,
    pub(super) later: VecDeque<Box<Snapshot>>,
    pub(super) polled: VecDeque<Box<Polled>>,
    pub(super) deferred: VecDeque<Deferred>,
    /// The paths of these.
    pub(super) deferred_paths: HashSet<PathBuf>,
    pub(super) log: PathBuf,
    /// What the log says of the time before the start; read when it is needed.
    pub(super) alerted: Option<Alerted>,
    pub(super) looker: Looker,
    /// For file systems whose server may not answer: that keeps nobody else waiting.
    pub(super) patient: Looker,
    pub(super) messages: queue::Sender<Message>,
    /// As many as wait to be decided, and one more, refer to it.
    pub(super) waiting: Arc<()>,
    /// What one home may have told of it.
    pub(super) budgets: Budgets,
    pub(super) home_events: Arc<AtomicU32>,
    pub(super) untold: Untold,
    pub(super) dropped: Arc<AtomicU64>,
    pub(super) told_dropped: u64,
    /// The store cannot be written at present: when that was last tried.
    pub(super) failing: Option<Instant>,
    pub(super) unfinished: Unfinished,
    pub(super) ending: bool,
    pub(super) touched: Instant,
}

impl Books {
    pub(super) fn run(mut self) {
        while !self.ending {
            self.drain(self.patience());
            self.compare_next();
            self.second_looks();
            self.tick();
        }
        while let Ok(task) = self.inbox.try_recv() {
            self.take(task);
        }
        // What was moved is followed to the end; a gap is looked at again.
        while let Some(snapshot) = self.later.pop_front() {
            if snapshot.cause == Cause::Moved {
                self.compare(*snapshot);
            }
        }
        self.write();
        self.meta.ended = Some(true);
        self.set_meta();
        self.heartbeat();
    }

    /// Compares what has waited longest, once there is something to compare it with.
    fn compare_next(&mut self) {
        // On a full disk it can still be read.
        if self.failing.is_some() && self.store.meta().is_err() {
            return;
        }
        if let Some(snapshot) = self.later.pop_front() {
            self.compare(*snapshot);
        } else if let Some(polled) = self.polled.pop_front() {
            self.compare_polled(&polled);
        }
    }

    fn patience(&self) -> Duration {
        let waits = !self.later.is_empty() || !self.polled.is_empty();
        if waits && self.failing.is_none() {
            return Duration::ZERO;
        }
        let now = Instant::now();
        let due = self.deferred.front().map(|deferred| deferred.due);
        let next = [due, self.pending.due()].into_iter().flatten().min();
        next.map_or(HEARTBEAT, |next| next.saturating_duration_since(now))
    }

    /// Takes what there is; waits for the first so long.
    fn drain(&mut self, patience: Duration) {
        match self.inbox.recv_timeout(patience) {
            Ok(task) => self.take(task),
            Err(RecvTimeoutError::Timeout) => return,
            Err(RecvTimeoutError::Disconnected) => {
                self.ending = true;
                return;
            }
        }
        for _ in 0..QUEUE {
            let Ok(task) = self.inbox.try_recv() else {
                return;
            };
            self.take(task);
        }
    }

    fn take(&mut self, task: Task) {
        match task {
            Task::Update(update) => self.update(*update),
            Task::Snapshot(snapshot) => {
                // What moved says nothing of a gap in what was heard.
                if snapshot.cause != Cause::Moved {
                    self.gap = self.window(snapshot.cause, snapshot.until).or(self.gap);
                }
                if self.later.len() < MOST_LATER {
                    self.later.push_back(snapshot);
                } else {
                    self.unfinished = Unfinished::Cut;
                    self.dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
            // What does not fit is found by the next look.
            Task::Polled(polled) if self.polled.len() < MOST_POLLED => {
                self.polled.push_back(polled);
            }
            Task::Polled(polled) => tracing::debug!("{} waits", polled.place.display()),
            Task::End => self.ending = true,
        }
    }

    fn update(&mut self, update: Update) {
        let Update {
            path,
            from,
            mut record,
            is_change,
            born,
            receipts,
        } = update;
        let is_owed = self.owed.has(&path);
        if let Some(from) = from {
            if !self.owed.has(&from) {
                self.pend(from, None, receipts.clone());
            } else if !is_owed {
                // It is looked for under the name that it has now.
                return self.owe(path);
            }
        }
        if is_owed {
            return;
        }
        if is_change && record.is_some() && self.is_unseen(&path, born) {
            return;
        }
        if let Some(record) = &mut record
            && is_change
            && let Some(known) = self.known(&path)
            && known.made.is_some()
        {
            record.made = known.made;
        }
        self.pend(path, record, receipts);
    }

    /// Has nothing of it stored before it is told.
    fn owe(&mut self, path: PathBuf) {
        if self.owed.paths.len() < MOST_DEFERRED {
            self.owed.paths.insert(path);
            return;
        }
        self.dropped.fetch_add(1, Ordering::Relaxed);
        if !std::mem::replace(&mut self.owed.all, true) {
            let since = self.owed.since.map(Moment::from);
            self.meta.since = self.meta.since.take().or(since);
            self.unfinished = Unfinished::Cut;
            self.set_meta();
        }
    }

    /// Whether a file of which a change was seen was made in the gap, and nobody
    /// was told of that. Then it is not stored: the comparison will find it.
    fn is_unseen(&mut self, path: &Path, born: Option<SystemTime>) -> bool {
        let Some(gap) = self.gap else { return false };
        let is_old = born
            .zip(gap.since)
            .is_some_and(|(born, since)| is_before(born, since));
        if is_old || self.known(path).is_some() {
            return false;
        }
        if self.deferred.len() < MOST_DEFERRED && !self.deferred_paths.contains(path) {
            self.defer(path.to_owned(), gap, 0);
        }
        true
    }

    /// Has it looked at again when its record must have come.
    fn defer(&mut self, path: PathBuf, window: Window, looks: u8) {
        let is_unheard = window.unseen == Unseen::Unheard;
        let wait = if is_unheard {
            UNHEARD_LOOK
        } else {
            SECOND_LOOK
        };
        let due = Instant::now() + wait;
        self.deferred_paths.insert(path.clone());
        // They are sorted by when they are due.
        let at = self.deferred.partition_point(|it| it.due <= due);
        let deferred = Deferred {
            due,
            path,
            window,
            looks,
        };
        self.deferred.insert(at, deferred);
    }

    /// Stores what nobody is told of.
    fn note(&mut self, path: PathBuf, record: Option<Record>) {
        self.pend(path, record, Vec::new());
    }

    fn pend(&mut self, path: PathBuf, record: Option<Record>, receipts: Vec<Receipt>) {
        let owed = (!receipts.is_empty()).then(|| path.clone());
        if !self.pending.put(path, record, receipts) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            // What becomes of its alerts is not known any more.
            if let Some(path) = owed {
                self.owe(path);
            }
        }
    }

    fn known(&mut self, path: &Path) -> Option<Record> {
        self.read(path).ok().flatten()
    }

    /// The same; fails, and says so, if the store cannot be read.
    fn read(&mut self, path: &Path) -> Result<Option<Record>, ()> {
        if let Some(pending) = self.pending.get(path) {
            return Ok(pending.record.clone());
        }
        let read = self.store.get(path);
        read.map_err(|error| self.failed(&error.to_string()))
    }

    /// What is due by the clock.
    fn tick(&mut self) {
        self.tick_writes();
        if self.touched.elapsed() >= HEARTBEAT {
            self.touched = Instant::now();
            self.heartbeat();
            if self.failing.is_some() {
                self.set_meta();
            }
            self.tell_unlogged();
            let dropped = self.dropped.load(Ordering::Relaxed);
            if dropped > self.told_dropped {
                let reason = format!(
                    "{} changes came faster than the baseline could be written: they are \
                     compared again at the next start",
                    dropped - self.told_dropped
                );
                self.told_dropped = dropped;
                self.fault("baseline_overrun", reason);
            }
        }
    }

    fn heartbeat(&self) {
        if let Err(error) = self.store.touch(SystemTime::now()) {
            tracing::debug!("the baseline's heartbeat: {error}");
        }
    }

    /// Writes what is ripe.
    fn write(&mut self) {
        let lost = self.pending.ask();
        if !lost.is_empty() {
            self.owed.since.get_or_insert_with(SystemTime::now);
        }
        for path in lost {
            self.owe(path);
        }
        let mut batch = self.pending.ripe().peekable();
        if batch.peek().is_none() {
            drop(batch);
            self.pending.again();
            return;
        }
        // Stock that was not taken to its end is taken again.
        let written = self.store.apply(batch, !self.is_stock);
        match written {
            Ok(()) => {
                self.pending.stored();
                self.works();
            }
            Err(error) => {
                self.pending.again();
                self.failed(&error.to_string());
            }
        }
    }

    /// Has what was told in vain told again, once the log can be written.
    fn tell_unlogged(&mut self) {
        if self.owed.paths.is_empty() {
            self.owed.since = None;
            return;
        }
        if !self.pending.has_room() || !(self.is_log_well)() {
            return;
        }
        let window = Window {
            unseen: Unseen::Unlogged,
            since: self.owed.since,
            until: SystemTime::now(),
            twice: true,
        };
        let (due, mut count) = (Instant::now(), 0);
        for path in &self.owed.paths {
            if self.deferred_paths.insert(path.clone()) {
                count += 1;
                let path = path.clone();
                // First: they are sorted by when they are due.
                self.deferred.push_front(Deferred {
                    due,
                    path,
                    window,
                    looks: 0,
                });
            }
        }
        if count > 0 {
            tracing::info!(
                "{count} files are looked at again: the log had no room for what was told of them"
            );
        }
    }

    fn works(&mut self) {
        if self.failing.take().is_some() {
            tracing::info!("the baseline is written again");
            if self.unfinished == Unfinished::Unwritten {
                self.unfinished = Unfinished::No;
                self.finish();
            }
        }
    }

    fn failed(&mut self, error: &str) {
        if self.failing.replace(Instant::now()).is_none() {
            let reason = format!(
                "the baseline cannot be kept ({error}): what happens while ssh-keywatch does \
                 not run may go unseen; look at the space and the health of its disk"
            );
            self.fault("baseline_unwritten", reason);
        }
    }

    fn fault(&self, code: &'static str, reason: String) {
        if self
            .messages
            .try_send(Message::Fault(code, reason))
            .is_err()
        {
            tracing::error!("{code}: the deciding thread is too far behind to be told");
        }
    }

    /// Writes what the store says of itself.
    pub(super) fn set_meta(&mut self) {
        match self.store.set_meta(self.meta.clone()) {
            Ok(()) => self.works(),
            Err(error) => self.failed(&error.to_string()),
        }
    }
}

/// Whether a file of this birth is older than a gap for sure. A file system that
/// somebody made may say any time, and one beyond all others is never before it.
fn is_before(born: SystemTime, since: SystemTime) -> bool {
    born.checked_add(MARGIN).is_some_and(|born| born < since)
}

#[cfg(test)]
mod tests;
