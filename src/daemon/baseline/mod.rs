//! The baseline's thread: keeps the store up to date, and compares what is there
//! with it, at the start and whenever something may have been missed.
//!
//! Owns the store, when it is written, and which differences are told. A
//! difference becomes a [`Missed`] event, which the deciding thread takes like
//! any other and answers with an [`ledger::Update`] when its alerts are out: so a file
//! that was told and not stored is found once more, and then known by its alert
//! in the log. Must not decide what is an alert, nor wait for a file server
//! longer than a moment ([`look`]).

mod alerted;
mod books;
mod found;
mod ledger;
mod look;
mod pending;
mod probe;
mod versions;

#[cfg(test)]
mod tests;

use std::collections::hash_map::RandomState;
use std::collections::{HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use self::books::Books;
use self::ledger::Task;
use self::look::Looker;
use self::versions::Versions;
use super::Message;
use crate::alert::timestamp;
use crate::baseline::{Error as StoreError, Moment, Opened, Record, Store};
use crate::event::flood::Budgets;
use crate::queue;
use crate::sys::affinity::Movable;

pub(super) use self::alerted::read_hostile;
pub(super) use self::books::IsLogWell;
pub(super) use self::found::{Found, made, told, update};
pub(super) use self::ledger::{Cause, Ledger, Missed, Polled, Since, Snapshot, Told};
pub(super) use self::probe::Probe;
pub use self::probe::{COMMAND as CHECK_STORE, check as check_store};

/// The store's name in the state directory.
const FILE: &str = "baseline.redb";

/// How soon it is tried again to open a store that could not be.
const AGAIN: Duration = Duration::from_secs(5);

/// What the thread is made of.
pub(super) struct Parts {
    /// Looks at the store.
    pub(super) probe: Probe,
    /// By it versions of files are told apart ([`crate::watch::tree::digest`]).
    pub(super) key: RandomState,
    /// Where the store is.
    pub(super) directory: PathBuf,
    /// The alert log, which says what was told before a crash.
    pub(super) log: PathBuf,
    /// Whether it takes what it is given.
    pub(super) is_log_well: IsLogWell,
    /// Where goes what is found.
    pub(super) messages: queue::Sender<Message>,
    /// How many differences of one home are told (`watch.home_events`).
    pub(super) home_events: Arc<AtomicU32>,
}

/// The thread, as the composition root has it.
pub(super) struct Keeper {
    ledger: Ledger,
    home_events: Arc<AtomicU32>,
    ending: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Keeper {
    /// The process that looks at the store in `directory`.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn probe(directory: &Path) -> std::io::Result<Probe> {
        Probe::start(&directory.join(FILE))
    }

    /// Starts the thread, which opens the store: the watching does not wait for
    /// its disk.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub(super) fn start(parts: Parts) -> std::io::Result<Self> {
        let (ledger, inbox, dropped) = Ledger::new();
        let (looker, patient) = (Looker::start()?, Looker::start()?);
        let ending = Arc::<AtomicBool>::default();
        let is_ending = Arc::clone(&ending);
        let home_events = Arc::clone(&parts.home_events);
        let run = move || {
            let _movable = Movable::new();
            if let Some(books) = open(parts, [looker, patient], inbox, dropped, &is_ending) {
                books.run();
            }
        };
        let thread = std::thread::Builder::new()
            .name("baseline".to_owned())
            .spawn(run)?;
        Ok(Self {
            ledger,
            home_events,
            ending,
            thread,
        })
    }

    /// A way to it.
    pub(super) fn ledger(&self) -> Ledger {
        self.ledger.clone()
    }

    /// So many differences of one home are told from now on.
    pub(super) fn limit(&self, home_events: u32) {
        self.home_events.store(home_events, Ordering::Relaxed);
    }

    /// Has all written that was told, and ends the thread.
    pub(super) fn end(self) {
        self.ending.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        self.ledger.end();
        let _ = self.thread.join();
    }
}

/// What the baseline in `state` knows of the files that `wanted` accepts; nothing
/// where there is none.
///
/// # Errors
/// It cannot be read.
pub fn stored(
    state: &Path,
    wanted: impl FnMut(&Path) -> bool,
) -> Result<Vec<(PathBuf, Record)>, StoreError> {
    match Store::look(&state.join(FILE), wanted) {
        Err(StoreError::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            Ok(Vec::new())
        }
        other => other,
    }
}

/// What it means that there is no baseline.
pub(super) fn unusable(directory: &Path, error: &str) -> String {
    format!(
        "no baseline can be kept in {} ({error}): what happens while ssh-keywatch does not run \
         will go unseen; look at the space and the health of its disk",
        directory.display()
    )
}

/// Opens the store, and tries again for as long as its disk does not let it be
/// opened; what comes meanwhile waits in the queue.
fn open(
    parts: Parts,
    [looker, patient]: [Looker; 2],
    inbox: queue::Receiver<Task>,
    dropped: Arc<AtomicU64>,
    ending: &AtomicBool,
) -> Option<Books> {
    let tell = |error: &str| {
        let reason = unusable(&parts.directory, error);
        let message = Message::Fault("baseline_unusable", reason);
        if parts.messages.try_send(message).is_err() {
            tracing::error!("{error}");
        }
    };
    let health = match parts.probe.wait(ending) {
        Ok(health) => health,
        Err(_) if ending.load(Ordering::Relaxed) => return None,
        Err(error) => {
            tell(&error.to_string());
            return None;
        }
    };
    let path = parts.directory.join(FILE);
    let mut told = false;
    let (store, opened, mut meta) = loop {
        let opened = Store::open(&path, health.clone());
        match opened.and_then(|(store, opened)| Ok((store.meta()?, store, opened))) {
            Ok((meta, store, opened)) => break (store, opened, meta),
            Err(_) if ending.load(Ordering::Relaxed) => return None,
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    tell(&error.to_string());
                }
                std::thread::park_timeout(AGAIN);
            }
        }
    };
    if told {
        tracing::info!("the baseline can be used now");
    }
    if let Opened::SetAside(aside, reason) = &opened {
        let reason = format!(
            "the baseline could not be read ({reason}) and lies in {} now: what happened while \
             ssh-keywatch was not running is not known, and stock is taken anew",
            aside.display()
        );
        // Full only if the deciding thread hangs.
        let _ = parts
            .messages
            .try_send(Message::Fault("baseline_unreadable", reason));
    }
    let is_new = matches!(opened, Opened::New | Opened::SetAside(..));
    let alive = match opened {
        Opened::Known(alive) => Some(alive),
        Opened::New | Opened::SetAside(..) => None,
    };
    if meta.ended == Some(false)
        && let Some(alive) = alive
    {
        let reason = format!(
            "the run before ended without a word after {}: it was killed, it crashed, or the \
             power failed. Nothing was watched until now",
            timestamp(alive)
        );
        let _ = parts
            .messages
            .try_send(Message::Fault("run_cut_short", reason));
    }
    // While the directories are marked. Without them every file is looked at.
    let versions = Versions::read(&store, parts.key).ok();
    meta.ended = Some(false);
    // Kept until the gap has been looked at, whatever ends us before.
    if meta.watched.is_some() && meta.since.is_none() {
        meta.since = alive.map(Moment::from);
    }
    let mut books = Books {
        since: meta.since.map(Into::into),
        is_new: is_new || meta.watched.is_none(),
        down_since: meta.since.map(Into::into),
        gap: None,
        versions,
        is_stock: false,
        store,
        meta,
        pending: pending::Pending::default(),
        owed: books::Owed::default(),
        is_log_well: parts.is_log_well,
        inbox,
        later: VecDeque::new(),
        polled: VecDeque::new(),
        deferred: VecDeque::new(),
        deferred_paths: HashSet::new(),
        log: parts.log,
        alerted: None,
        looker,
        patient,
        messages: parts.messages,
        waiting: Arc::default(),
        budgets: Budgets::new(parts.home_events.load(Ordering::Relaxed)),
        home_events: parts.home_events,
        untold: books::Untold::default(),
        dropped,
        told_dropped: 0,
        failing: None,
        unfinished: books::Unfinished::default(),
        ending: false,
        touched: Instant::now(),
    };
    books.set_meta();
    Some(books)
}
