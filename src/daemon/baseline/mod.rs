//! The baseline's thread: keeps the store up to date, and compares what is there
//! with it, at the start and whenever something may have been missed.
//!
//! Owns the store, when it is written, and which differences are told. A
//! difference becomes a [`Missed`] event, which the deciding thread takes like
//! any other and answers with an [`Update`] when its alerts are out: so a file
//! that was told and not stored is found once more, and then known by its alert
//! in the log. Must not decide what is an alert, nor wait for a file server
//! longer than a moment ([`look`]).

mod alerted;
mod look;

#[cfg(test)]
mod tests;

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::ffi::OsString;
use std::fs::Metadata;
use std::hash::BuildHasher as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

pub(super) use self::alerted::read_hostile;

use self::alerted::Alerted;
use self::look::{Looker, Seen};
use super::Message;
use super::deciding::Lost;
use crate::alert::{Document, Gap, LossKind, Unseen};
use crate::baseline::{Made, Meta, Moment, Opened, Record, Stat, Store};
use crate::event::assemble::Assembled;
use crate::event::flood::Budgets;
use crate::event::{Action, Event, Evidence, FinalPath};
use crate::key::{Entry, Inspection};
use crate::resolve::Attribution;
use crate::sys::ObjectId;
use crate::watch::home;
use crate::watch::pattern::Pattern;

/// The store's name in the state directory.
const FILE: &str = "baseline.redb";
/// How many updates may wait for the thread.
const QUEUE: usize = 16 * 1024;
/// How long an update waits for others to be written with.
const BATCH_TIME: Duration = Duration::from_millis(500);
/// How long what was told waits at least: its alert shall be in the log before.
const LOG_TIME: Duration = Duration::from_millis(300);
/// How many make a batch at once.
const BATCH: usize = 4096;
/// How many may wait while the store cannot be written.
const MOST_PENDING: usize = 64 * 1024;
/// How often the store says that the daemon lives.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// When a difference is looked at again that a record on its way may explain.
const SECOND_LOOK: Duration = Duration::from_secs(3);
/// How many differences may wait for that.
const MOST_DEFERRED: usize = 64 * 1024;
/// How many looks at places may wait.
const MOST_POLLED: usize = 64;
/// Change times are as coarse as the kernel's clock tick.
const TICK: Duration = Duration::from_millis(20);
/// How many differences may wait to be decided.
const MOST_TOLD: usize = 1024;
/// How many names are looked at in one go.
const CHUNK: usize = 256;

/// Why it is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The daemon has started.
    Start,
    /// Records may be missing since then.
    Lost(Unseen, SystemTime),
    /// Directories got other names, which says nothing of the files in them; or
    /// something else is watched.
    Moved,
    /// Something else is mounted there now.
    Remounted,
}

/// What is watched at a moment.
pub(super) struct Snapshot {
    /// Why it was taken.
    pub(super) cause: Cause,
    /// When the watching of these files began, or the records were lost.
    pub(super) until: SystemTime,
    /// Directories, and the names of what is in them that is no directory.
    pub(super) files: Vec<(PathBuf, Vec<OsString>)>,
    /// Nothing but what lies in these places is compared; none of them: all is.
    pub(super) places: Vec<PathBuf>,
    /// What lies in these is not looked at: its server may not answer.
    pub(super) apart: Vec<PathBuf>,
    /// What they were found by.
    pub(super) patterns: Vec<Pattern>,
}

/// Since when what a look at a place finds may be so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Since {
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
pub(super) struct Polled {
    /// The place.
    pub(super) place: PathBuf,
    /// Since when.
    pub(super) since: Since,
    /// When the look began.
    pub(super) until: SystemTime,
    /// What is there that is no directory.
    pub(super) files: Vec<(PathBuf, Stat)>,
    /// Directories whose names are all known: what is not there is gone.
    pub(super) listed: HashSet<PathBuf>,
    /// What was not looked at.
    pub(super) missed: HashSet<PathBuf>,
}

impl Polled {
    /// Whether a file that was there is gone for sure.
    fn is_gone(&self, path: &Path) -> bool {
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
pub(super) struct Update {
    /// Its path.
    pub(super) path: PathBuf,
    /// Where it was before a rename.
    pub(super) from: Option<PathBuf>,
    /// What is known of it; `None`: it is gone.
    pub(super) record: Option<Record>,
    /// It is the file that was there before, changed: who made it stays true.
    pub(super) is_change: bool,
}

/// Something that nobody saw.
pub struct Missed {
    /// The event.
    pub(super) assembled: Assembled<Attribution>,
    /// When it may have been, and why it was not seen.
    pub(super) gap: Gap,
    /// What a list held before, if that is known.
    pub(super) before: Option<Vec<Entry>>,
    /// What was found of it, where a server may not answer again.
    pub(super) record: Option<Record>,
    /// Shared by all that wait to be decided.
    pub(super) waiting: Arc<()>,
}

enum Task {
    Update(Box<Update>),
    Snapshot(Box<Snapshot>),
    Polled(Box<Polled>),
    End,
}

/// The way to the thread.
#[derive(Clone)]
pub struct Ledger {
    tasks: SyncSender<Task>,
    dropped: Arc<AtomicU64>,
}

impl Ledger {
    /// Tells what became of a file. Never waits: what does not fit is counted,
    /// and found at the next start.
    pub(super) fn update(&self, update: Update) {
        self.give(Task::Update(Box::new(update)));
    }

    /// Has `snapshot` compared.
    pub(super) fn compare(&self, snapshot: Snapshot) {
        self.give(Task::Snapshot(Box::new(snapshot)));
    }

    /// Has what a look found compared.
    pub(super) fn polled(&self, polled: Polled) {
        self.give(Task::Polled(Box::new(polled)));
    }

    fn give(&self, task: Task) {
        if let Err(TrySendError::Full(_)) = self.tasks.try_send(task) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The thread, as the composition root has it.
pub(super) struct Keeper {
    ledger: Ledger,
    thread: JoinHandle<()>,
}

impl Keeper {
    /// Opens the store in `directory` and starts the thread. What it finds goes
    /// to `messages`; `log` says what was alerted before a crash.
    ///
    /// # Errors
    /// The store cannot be used, or a thread not be started.
    pub(super) fn start(
        directory: &Path,
        log: &Path,
        messages: SyncSender<Message>,
    ) -> Result<Self, String> {
        let (store, opened) =
            Store::open(&directory.join(FILE)).map_err(|error| error.to_string())?;
        if let Opened::SetAside(aside, reason) = &opened {
            let reason = format!(
                "the baseline could not be read ({reason}) and lies in {} now: what happened \
                 while ssh-keywatch was not running is not known, and stock is taken anew",
                aside.display()
            );
            // The deciding thread's queue was made just now.
            let _ = messages.try_send(Message::Fault("baseline_unreadable", reason));
        }
        let mut meta = store.meta().map_err(|error| error.to_string())?;
        let (tasks, inbox) = sync_channel(QUEUE);
        let dropped = Arc::<AtomicU64>::default();
        let looker = Looker::start().map_err(|error| error.to_string())?;
        let patient = Looker::start().map_err(|error| error.to_string())?;
        let is_new = matches!(opened, Opened::New | Opened::SetAside(..));
        let alive = match opened {
            Opened::Known(alive) => Some(alive),
            Opened::New | Opened::SetAside(..) => None,
        };
        // Kept until the gap has been looked at, whatever ends us before.
        if meta.watched.is_some() && meta.since.is_none() {
            meta.since = alive.map(Moment::from);
            let kept = store.set_meta(meta.clone());
            kept.map_err(|error| error.to_string())?;
        }
        let books = Books {
            since: meta.since.map(SystemTime::from),
            is_new: is_new || meta.watched.is_none(),
            down_since: meta.since.map(SystemTime::from),
            store,
            meta,
            pending: BTreeMap::new(),
            oldest: None,
            inbox,
            later: VecDeque::new(),
            polled: VecDeque::new(),
            deferred: VecDeque::new(),
            deferred_paths: HashSet::new(),
            log: log.to_owned(),
            alerted: None,
            looker,
            patient,
            messages,
            waiting: Arc::default(),
            budgets: Budgets::default(),
            untold: 0,
            dropped: Arc::clone(&dropped),
            told_dropped: 0,
            failing: false,
            ending: false,
            touched: Instant::now(),
        };
        let thread = std::thread::Builder::new()
            .name("baseline".to_owned())
            .spawn(move || books.run())
            .map_err(|error| error.to_string())?;
        Ok(Self {
            ledger: Ledger { tasks, dropped },
            thread,
        })
    }

    /// A way to it.
    pub(super) fn ledger(&self) -> Ledger {
        self.ledger.clone()
    }

    /// Has all written that was told, and ends the thread.
    pub(super) fn end(self) {
        let _ = self.ledger.tasks.send(Task::End);
        let _ = self.thread.join();
    }
}

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
struct Window {
    unseen: Unseen,
    since: Option<SystemTime>,
    until: SystemTime,
    /// Whether it is looked at again before it is told.
    twice: bool,
}

struct Deferred {
    due: Instant,
    path: PathBuf,
    window: Window,
}

/// A record that is not written yet.
struct Pending {
    /// `None` takes the file out.
    record: Option<Record>,
    /// When its alert was handed to the sinks.
    told: Option<Instant>,
}

impl Pending {
    fn is_ripe(&self, now: Instant) -> bool {
        self.told
            .is_none_or(|told| now.saturating_duration_since(told) >= LOG_TIME)
    }
}

struct Books {
    store: Store,
    meta: Meta,
    /// Since when what happened is not known.
    since: Option<SystemTime>,
    /// There was no store, or nothing in it, when the daemon started.
    is_new: bool,
    /// Since when the daemon did not run.
    down_since: Option<SystemTime>,
    /// Not written yet.
    pending: BTreeMap<PathBuf, Pending>,
    /// Since when the oldest of them waits.
    oldest: Option<Instant>,
    inbox: Receiver<Task>,
    later: VecDeque<Box<Snapshot>>,
    polled: VecDeque<Box<Polled>>,
    deferred: VecDeque<Deferred>,
    /// The paths of these.
    deferred_paths: HashSet<PathBuf>,
    log: PathBuf,
    /// What the log says of the time before the start; read when it is needed.
    alerted: Option<Alerted>,
    looker: Looker,
    /// For file systems whose server may not answer: that keeps nobody else waiting.
    patient: Looker,
    messages: SyncSender<Message>,
    /// As many as wait to be decided, and one more, refer to it.
    waiting: Arc<()>,
    /// What one home may have told of it.
    budgets: Budgets,
    /// How many differences were too many for that.
    untold: u64,
    dropped: Arc<AtomicU64>,
    told_dropped: u64,
    failing: bool,
    ending: bool,
    touched: Instant,
}

impl Books {
    fn run(mut self) {
        while !self.ending {
            self.drain(self.patience());
            if let Some(snapshot) = self.later.pop_front() {
                self.compare(*snapshot);
            } else if let Some(polled) = self.polled.pop_front() {
                self.compare_polled(&polled);
            }
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
        self.heartbeat();
    }

    fn patience(&self) -> Duration {
        if !self.later.is_empty() || !self.polled.is_empty() {
            return Duration::ZERO;
        }
        let now = Instant::now();
        let due = self.deferred.front().map(|deferred| deferred.due);
        let write = self.oldest.map(|oldest| oldest + BATCH_TIME);
        let next = [due, write].into_iter().flatten().min();
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
            Task::Snapshot(snapshot) => self.later.push_back(snapshot),
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
        } = update;
        if let Some(record) = &mut record
            && is_change
            && let Some(known) = self.known(&path)
            && known.made.is_some()
        {
            record.made = known.made;
        }
        let told = Some(Instant::now());
        if let Some(from) = from {
            self.pend(from, None, told);
        }
        self.pend(path, record, told);
    }

    /// Stores what nobody is told of.
    fn note(&mut self, path: PathBuf, record: Option<Record>) {
        self.pend(path, record, None);
    }

    fn pend(&mut self, path: PathBuf, record: Option<Record>, told: Option<Instant>) {
        if self.pending.len() >= MOST_PENDING && !self.pending.contains_key(&path) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.pending.insert(path, Pending { record, told });
        self.oldest.get_or_insert_with(Instant::now);
    }

    fn known(&mut self, path: &Path) -> Option<Record> {
        if let Some(pending) = self.pending.get(path) {
            return pending.record.clone();
        }
        match self.store.get(path) {
            Ok(record) => record,
            Err(error) => {
                self.failed(&error.to_string());
                None
            }
        }
    }

    /// What is due by the clock.
    fn tick(&mut self) {
        let due = self
            .oldest
            .is_some_and(|oldest| oldest.elapsed() >= BATCH_TIME);
        if due || self.pending.len() >= BATCH {
            self.write();
        }
        if self.touched.elapsed() >= HEARTBEAT {
            self.touched = Instant::now();
            self.heartbeat();
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

    /// Writes what is ripe; at the end, when the log has been given its time, all.
    fn write(&mut self) {
        let (now, ending) = (Instant::now(), self.ending);
        let ripe = |pending: &Pending| ending || pending.is_ripe(now);
        let batch = self.pending.iter().filter(|(_, pending)| ripe(pending));
        let mut batch = batch
            .map(|(path, pending)| (path.as_path(), pending.record.as_ref()))
            .peekable();
        if batch.peek().is_none() {
            self.oldest = (!self.pending.is_empty()).then(Instant::now);
            return;
        }
        let written = self.store.apply(batch);
        match written {
            Ok(()) => {
                self.pending.retain(|_, pending| !ripe(pending));
                self.oldest = (!self.pending.is_empty()).then(Instant::now);
                if std::mem::take(&mut self.failing) {
                    tracing::info!("the baseline is written again");
                }
            }
            Err(error) => {
                // Tried again with the next batch.
                self.oldest = Some(Instant::now());
                self.failed(&error.to_string());
            }
        }
    }

    fn failed(&mut self, error: &str) {
        if !std::mem::replace(&mut self.failing, true) {
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

    fn set_meta(&mut self) {
        if let Err(error) = self.store.set_meta(self.meta.clone()) {
            self.failed(&error.to_string());
        }
    }

    /// Compares what is watched with what is known.
    fn compare(&mut self, snapshot: Snapshot) {
        let Snapshot {
            cause,
            until,
            files,
            places,
            apart,
            patterns,
        } = snapshot;
        let watched: Vec<String> = patterns.iter().map(ToString::to_string).collect();
        let before = self.meta.watched.as_deref().map(|watched| {
            let parsed = watched.iter().map(|text| Pattern::parse(Path::new(text)));
            parsed.flatten().collect::<Vec<Pattern>>()
        });
        // `None`: stock is taken without a word.
        let window = match cause {
            Cause::Start => before.as_ref().map(|_| Window {
                unseen: Unseen::NotRunning,
                since: self.since,
                until,
                twice: true,
            }),
            Cause::Lost(unseen, since) => Some(Window {
                unseen,
                since: Some(since),
                until,
                twice: true,
            }),
            Cause::Remounted => Some(Window {
                unseen: Unseen::Unmounted,
                since: None,
                until,
                twice: true,
            }),
            Cause::Moved => None,
        };
        let hasher = RandomState::new();
        let mut seen: HashSet<u64> = HashSet::new();
        let (mut count, mut told) = (0_u64, 0_u64);
        for (directory, names) in files {
            for names in names.chunks(CHUNK) {
                let paths: Vec<PathBuf> = names.iter().map(|name| directory.join(name)).collect();
                seen.extend(paths.iter().map(|path| hasher.hash_one(path)));
                count += paths.len() as u64;
                for (path, difference, now) in self.look_at(paths) {
                    let covered = before
                        .as_ref()
                        .is_none_or(|before| before.iter().any(|old| old.covers(&path)));
                    let window = window.filter(|_| covered);
                    told += u64::from(self.differs(path, difference, Some(now), window));
                }
                self.drain(Duration::ZERO);
                self.tick_writes();
                if self.ending && cause != Cause::Moved {
                    return;
                }
            }
        }
        let below =
            |places: &[PathBuf], path: &Path| places.iter().any(|place| path.starts_with(place));
        let asked =
            |path: &Path| !below(&apart, path) && (places.is_empty() || below(&places, path));
        let unseen = |path: &Path| asked(path) && !seen.contains(&hasher.hash_one(path));
        told += self.look_for_gone(unseen, &patterns, window);
        if self.ending && cause != Cause::Moved {
            return;
        }
        self.write();
        match (cause, window) {
            (Cause::Start, None) => {
                tracing::info!("took stock of {count} files: changes are told from now on");
            }
            (Cause::Moved, _) => tracing::debug!("the baseline has {count} files"),
            _ => tracing::info!("compared {count} files with the baseline: {told} differences"),
        }
        self.meta.watched = Some(watched);
        self.finish();
    }

    /// The gap is over once nothing of it is left to be looked at.
    fn finish(&mut self) {
        let untold = std::mem::take(&mut self.untold);
        if untold > 0 {
            let reason = format!(
                "{untold} files in homes with a great many differ from what was known of them, \
                 and are not told one by one"
            );
            let lost = Lost {
                code: "baseline_flood",
                kind: LossKind::Dropped,
                count: Some(untold),
                since: None,
                reason,
            };
            if self.messages.try_send(Message::Lost(lost)).is_err() {
                self.untold = untold;
            }
        }
        if self.deferred.is_empty() && !self.failing {
            self.meta.since = None;
            self.since = None;
            self.alerted = None;
        }
        self.set_meta();
    }

    fn tick_writes(&mut self) {
        if self.pending.len() >= BATCH {
            self.write();
        }
    }

    /// Compares what a look at a place has found. Asks its server for nothing
    /// but the content of what has changed.
    fn compare_polled(&mut self, polled: &Polled) {
        let since = match polled.since {
            Since::New => None,
            Since::Start if self.is_new => None,
            Since::Start => Some((Unseen::NotRunning, self.down_since)),
            Since::Mounted => Some((Unseen::Unmounted, None)),
            Since::Look(time) => Some((Unseen::Polled, Some(time))),
        };
        let window = since.map(|(unseen, since)| Window {
            unseen,
            since,
            until: polled.until,
            twice: false,
        });
        for files in polled.files.chunks(CHUNK) {
            for (path, difference, now) in self.differences(files.to_vec(), true) {
                self.differs(path, difference, Some(now), window);
            }
            self.drain(Duration::ZERO);
            self.tick_writes();
            if self.ending {
                return;
            }
        }
        let seen: HashSet<&Path> = polled
            .files
            .iter()
            .map(|(path, _)| path.as_path())
            .collect();
        let is_gone = |path: &Path| {
            path.starts_with(&polled.place) && !seen.contains(path) && polled.is_gone(path)
        };
        let gone = match self.unseen(is_gone) {
            Ok(gone) => gone,
            Err(error) => return self.failed(&error),
        };
        for path in gone {
            if self.known(&path).is_some() {
                self.differs(path, Difference::Gone, None, window);
            }
            self.drain(Duration::ZERO);
        }
        if self.untold > 0 {
            self.finish();
        }
    }

    /// Which of these files differ from what is known of them.
    fn look_at(&mut self, paths: Vec<PathBuf>) -> Vec<(PathBuf, Difference, Seen)> {
        let stats = self.looker.stat(paths);
        self.differences(stats, false)
    }

    fn differences(
        &mut self,
        stats: Vec<(PathBuf, Stat)>,
        patient: bool,
    ) -> Vec<(PathBuf, Difference, Seen)> {
        let mut unread = Vec::new();
        let mut known = BTreeMap::new();
        for (path, stat) in stats {
            let record = self.known(&path);
            if !record
                .as_ref()
                .is_some_and(|record| record.is_unread(&stat))
            {
                known.insert(path.clone(), record);
                unread.push(path);
            }
        }
        let mut differences = Vec::new();
        let looker = if patient { &self.patient } else { &self.looker };
        for (path, now) in looker.read(unread) {
            match known.remove(&path).flatten() {
                None => differences.push((path, Difference::Appeared, now)),
                Some(then) if then.differs(&now.record) => {
                    differences.push((path, Difference::Changed, now));
                }
                // The same with other times: it need not be read again.
                Some(then) => {
                    let made = then.made;
                    self.note(path, Some(Record { made, ..now.record }));
                }
            }
        }
        differences
    }

    /// Which files are known and were not seen.
    fn unseen(&self, is_unseen: impl Fn(&Path) -> bool) -> Result<Vec<PathBuf>, String> {
        let unseen = self.store.paths(&is_unseen);
        let mut unseen = unseen.map_err(|error| error.to_string())?;
        let pending = self.pending.iter();
        let pending = pending.filter(|(_, pending)| pending.record.is_some());
        let pending = pending.map(|(path, _)| path.clone());
        unseen.extend(pending.filter(|path| is_unseen(path)));
        unseen.sort();
        unseen.dedup();
        Ok(unseen)
    }

    /// What is known and is there no more.
    fn look_for_gone(
        &mut self,
        is_unseen: impl Fn(&Path) -> bool,
        patterns: &[Pattern],
        window: Option<Window>,
    ) -> u64 {
        let unseen = match self.unseen(is_unseen) {
            Ok(unseen) => unseen,
            Err(error) => {
                self.failed(&error);
                return 0;
            }
        };
        let mut told = 0;
        for paths in unseen.chunks(CHUNK) {
            let mut known = |path: &PathBuf| Some((path.clone(), self.known(path)?));
            let asked = paths.iter().filter_map(&mut known).collect();
            for path in self.looker.gone(asked) {
                let watched = patterns.iter().any(|pattern| pattern.covers(&path));
                let window = window.filter(|_| watched);
                told += u64::from(self.differs(path, Difference::Gone, None, window));
            }
            self.drain(Duration::ZERO);
            if self.ending && window.is_some() {
                break;
            }
        }
        told
    }

    /// Tells a difference, or keeps it for a second look, or only stores it; says
    /// whether it is told.
    fn differs(
        &mut self,
        path: PathBuf,
        difference: Difference,
        now: Option<Seen>,
        window: Option<Window>,
    ) -> bool {
        let Some(window) = window else {
            if !self.deferred_paths.contains(&path) {
                self.note(path, now.map(|now| now.record));
            }
            return false;
        };
        if self.is_alerted(&path, difference, now.as_ref()) {
            return false;
        }
        // Its record may be on the way: then it will be known soon.
        let changed = now.as_ref().map(|now| now.record.stat.changed);
        let is_young = changed.is_some_and(|changed| {
            SystemTime::from(changed)
                .checked_add(TICK)
                .is_some_and(|changed| changed >= window.until)
        });
        let waits = window.twice && (is_young || window.unseen != Unseen::NotRunning);
        if waits && self.deferred.len() < MOST_DEFERRED {
            if !self.deferred_paths.insert(path.clone()) {
                return false;
            }
            let due = Instant::now() + SECOND_LOOK;
            self.deferred.push_back(Deferred { due, path, window });
            return false;
        }
        self.tell(path, difference, now, window);
        true
    }

    /// Whether the log says that it was told before the last end; then it is
    /// stored, which it was not.
    fn is_alerted(&mut self, path: &Path, difference: Difference, now: Option<&Seen>) -> bool {
        let Some(since) = self.since else {
            return false;
        };
        let alerted = self
            .alerted
            .get_or_insert_with(|| Alerted::read(&self.log, since));
        let Some(made) = alerted.find(path, now.map(|now| &now.record)) else {
            return false;
        };
        tracing::debug!(path = %crate::text::escape_path(path), "alerted before the last end");
        let record = now.map(|now| Record {
            made: (difference == Difference::Appeared).then_some(made),
            ..now.record.clone()
        });
        self.update(Update {
            path: path.to_owned(),
            from: None,
            record,
            is_change: difference == Difference::Changed,
        });
        true
    }

    fn second_looks(&mut self) {
        let mut looked = false;
        while self
            .deferred
            .front()
            .is_some_and(|deferred| deferred.due <= Instant::now())
            && let Some(deferred) = self.deferred.pop_front()
        {
            looked = true;
            let Deferred { path, window, .. } = deferred;
            self.deferred_paths.remove(&path);
            self.drain(Duration::ZERO);
            let there = self.look_at(vec![path.clone()]).pop();
            if let Some((path, difference, now)) = there {
                self.tell(path, difference, Some(now), window);
            } else if let Some(known) = self.known(&path)
                && let Some(path) = self.looker.gone(vec![(path, known)]).pop()
            {
                self.tell(path, Difference::Gone, None, window);
            }
            if self.ending {
                return;
            }
        }
        if looked && self.deferred.is_empty() {
            self.finish();
        }
    }

    /// Hands an event to the deciding thread, whose answer is an [`Update`].
    fn tell(&mut self, path: PathBuf, difference: Difference, now: Option<Seen>, window: Window) {
        let home = home::of(&path);
        if !self.budgets.take(&home, &path, Instant::now()) {
            self.untold += 1;
            self.note(path, now.map(|now| now.record));
            return;
        }
        let known = self.known(&path);
        let before = match difference {
            Difference::Appeared => Some(Vec::new()),
            Difference::Changed | Difference::Gone => {
                let list = known.as_ref().and_then(|known| known.list.clone());
                list.map(|list| list.into_iter().map(Entry::from).collect())
            }
        };
        let record = now.as_ref().map(|now| &now.record).or(known.as_ref());
        let object_id = record
            .and_then(|record| record.object.clone())
            .unwrap_or_default();
        let found = now.as_ref().filter(|_| !window.twice);
        let found = found.map(|now| now.record.clone());
        while Arc::strong_count(&self.waiting) > MOST_TOLD {
            self.drain(Duration::from_millis(5));
            if self.ending {
                return;
            }
        }
        let missed = Missed {
            record: found,
            waiting: Arc::clone(&self.waiting),
            gap: Gap {
                unseen: window.unseen,
                since: window.since,
                until: window.until,
            },
            before,
            assembled: Assembled {
                home: Some(home),
                ticket: None,
                object: now.and_then(|now| now.object),
                event: Event {
                    sequence: 0,
                    time: SystemTime::now(),
                    action: difference.action(),
                    path,
                    original_path: None,
                    final_path: None,
                    facts: None,
                    object_id,
                    evidence: Evidence::Baseline,
                    writer: Attribution::none(),
                },
            },
        };
        let mut message = Message::Missed(Box::new(missed));
        loop {
            match self.messages.try_send(message) {
                Ok(()) | Err(TrySendError::Disconnected(_)) => return,
                Err(TrySendError::Full(full)) => message = full,
            }
            // It may be waiting for room in our own queue.
            self.drain(Duration::from_millis(5));
            if self.ending {
                return;
            }
        }
    }
}

/// What the deciding thread found of an event's file.
pub(super) struct Found {
    /// What lstat(2) said.
    pub(super) metadata: Option<Metadata>,
    /// Its identity.
    pub(super) object: Option<ObjectId>,
    /// What is in it.
    pub(super) inspection: Option<Inspection>,
    /// It lies on a file system whose server may not answer.
    pub(super) is_apart: bool,
}

/// What an event says of a file; `None` if that is nothing.
pub(super) fn update(event: &Event<Attribution>, found: &Found, made: Made) -> Option<Update> {
    let path = match &event.final_path {
        Some(FinalPath::Renamed(path)) => path,
        _ => &event.path,
    };
    // Another file may have taken the name meanwhile, whose event is to come.
    let is_free = |path: &Path| found.is_apart || path.symlink_metadata().is_err();
    let from = [event.original_path.as_deref(), Some(event.path.as_path())];
    let from = from.into_iter().flatten().find(|from| *from != path);
    let record = match (event.action, &found.metadata, &event.facts) {
        (Action::Deletion, ..) => {
            if !is_free(path) {
                return None;
            }
            None
        }
        (_, Some(metadata), Some(facts)) if !metadata.is_dir() => {
            let mut record = look::record(Stat::from(metadata), found.object.as_ref());
            if let Some(target) = &facts.target {
                record.content = look::link(target.as_os_str());
            }
            if let Some(inspection) = &found.inspection {
                look::fill(&mut record, inspection);
            }
            record.made = Some(made);
            Some(record)
        }
        // It was gone again, or replaced: that has an event of its own.
        _ => return None,
    };
    Some(Update {
        path: path.clone(),
        from: from.filter(|from| is_free(from)).map(Path::to_owned),
        record,
        is_change: event.action == Action::Modification,
    })
}

/// The same of a file that was compared, and cannot be looked at again.
pub(super) fn told(event: &Event<Attribution>, record: Record, made: Made) -> Update {
    Update {
        path: event.path.clone(),
        from: None,
        record: Some(Record {
            made: Some(made),
            ..record
        }),
        is_change: event.action == Action::Modification,
    }
}

/// Who made a file, as its event's document or an alert about it says.
pub(super) fn made(document: &Document) -> Made {
    let text = |name: &str| document.str(name).map(str::to_owned);
    let certain = document.get("ssh_keywatch.attribution.certain");
    Made {
        time: text("@timestamp").unwrap_or_default(),
        executable: text("process.executable"),
        pid: document.number("process.pid"),
        user: text("user.name").or_else(|| text("user.id")),
        method: text("ssh_keywatch.attribution.method"),
        certain: certain == Some(&serde_json::Value::Bool(true)),
        alert: text("event.id"),
    }
}
