//! The hold: openers wait in the kernel while they are identified.
//!
//! ```text
//! kernel ─ permission record ─► answering thread ─ Held ─► watching thread
//!    ▲                              │
//!    └───────────── ALLOW ──────────┘
//! ```
//!
//! Owns the reading and answering of the permission group, and the temporary
//! file-system marks that catch the first key of a fresh account while a key
//! tool lives. Must not own policy or decide anything but ALLOW. The answering
//! thread never logs, never opens a file of a watched directory, never waits
//! for a lock or for another thread beyond a deadline: whoever is slower than
//! it would make a login wait.
//!
//! If it fails or the daemon ends, the group is closed and the kernel lets
//! every opener go on.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;

use super::berth::Berth;
use super::deadline::{Deadline, FLIGHTS};
use super::fanotify::FIRST_KEY;
use super::fence::Fence;
use super::loud::{Crowd, Loud};
use super::tree::Ground;
use crate::queue;
use crate::sys::fanotify::{NotificationGroup, PermissionGroup, Record, mask};
use crate::sys::stat::opened_path;
use crate::sys::{ObjectId, PidFd, thread};

/// How many identified openers may wait for the watching thread.
pub const BACKLOG: usize = 8192;
/// How long a key tool keeps the temporary file-system mark: one that waits at
/// a prompt is not worth slowing every creation on the file system.
const FIRST_KEY_TIME: Duration = Duration::from_secs(10);
/// How many running key tools are followed to their end; one more is known, but
/// not for certain.
const MAX_TOOLS: usize = 1024;
/// How long the thread sleeps at most while a key tool keeps the mark.
const TICK_MS: u16 = 1000;

/// Size of a permission record, which carries no information besides its
/// metadata (`FAN_EVENT_METADATA_LEN`).
const RECORD: usize = 24;

/// What woke the thread; a tool's token is its number.
const PERMISSION: u64 = u64::MAX;
const CONTROL: u64 = u64::MAX - 1;

/// How long an opener is kept at most to make sure of its identity; well below
/// [`super::deadline::LIMIT`].
const SURE_TIME: Duration = Duration::from_millis(40);
/// How many times it is looked at again at once, each time a little later.
const SURE_TRIES: u32 = 5;

/// Says who a held thread is. Called on the answering thread: must not block
/// beyond some milliseconds, log, or open files in watched directories.
pub trait Identify: Send {
    /// What is known of a process.
    type Identity: Send + 'static;
    /// What is remembered of a running key tool.
    type Known: Send;

    /// Who holds thread id `tid`, which waits in open(2).
    fn opener(&mut self, tid: i32) -> Option<Self::Identity>;

    /// Who the first thread of a key tool is, which waits in open(2); `None` unless
    /// it is what it was at its exec. Holds if `pidfd`, which is the tool, is still alive
    /// afterwards.
    fn known(&mut self, known: &Self::Known, pidfd: &PidFd) -> Option<Self::Identity>;

    /// Who thread id `tid` is, which waits in execve(2) for `program`.
    fn executor(
        &mut self,
        tid: i32,
        program: BorrowedFd<'_>,
    ) -> Option<Executor<Self::Identity, Self::Known>>;

    /// Whether the identity is sure; asked again until it is, or time is up.
    fn is_sure(&mut self, identity: &mut Self::Identity) -> bool;
}

/// What the opener does not wait for.
pub type Aside = Box<dyn FnOnce() + Send>;

/// A process that waits in execve(2).
pub struct Executor<I, K> {
    /// Who it is.
    pub identity: I,
    /// What is remembered of it.
    pub known: Option<K>,
    /// Its process id.
    pub pid: i32,
    /// The process, to see its end.
    pub pidfd: Option<PidFd>,
    /// What is done when it goes on.
    pub aside: Aside,
}

/// An opener that was identified while it was held. Identities are large, and
/// room for [`BACKLOG`] of them would be used up in time.
#[derive(Debug)]
pub enum Held<I> {
    /// It opened an object in a watched directory.
    Opening {
        /// Which.
        object: ObjectId,
        /// Who.
        identity: Box<I>,
    },
    /// It was about to run a key tool.
    Executing {
        /// Who.
        identity: Box<I>,
        /// The fence that separates what it did before and after.
        fence: Option<u64>,
        /// Its end will be told.
        followed: bool,
    },
    /// A key tool that was followed has ended.
    Ended {
        /// Its process id, free for another from now on.
        pid: i32,
        /// The fence behind all that it did.
        fence: Option<u64>,
    },
}

/// What the hold did so far; read by other threads.
#[derive(Debug, Default)]
pub struct Counters {
    /// Openers that were held and answered.
    pub answered: AtomicU64,
    /// Answers the kernel did not want any more: the opener was killed.
    pub late: AtomicU64,
    /// Openers that could not be identified.
    pub unidentified: AtomicU64,
    /// Identities dropped because the watching thread was too far behind.
    pub dropped: AtomicU64,
}

/// What the answering thread is made of.
pub struct Hold<I: Identify> {
    /// The group it answers.
    pub permission: Arc<PermissionGroup>,
    /// The group that gets the temporary file-system marks.
    pub notification: Arc<NotificationGroup>,
    /// Says who a held thread is.
    pub identify: I,
    /// Separates before and after an exec.
    pub fence: Option<Arc<Fence>>,
    /// Where identities go.
    pub held: queue::Sender<Box<Held<I::Identity>>>,
    /// Wakes the watching thread.
    pub wake: Arc<EventFd>,
    /// Readable when the thread shall end, or look at `file_systems`.
    pub control: Arc<EventFd>,
    /// Set when the thread shall end.
    pub stop: Arc<AtomicBool>,
    /// A directory of each file system that homes lie on.
    pub file_systems: Receiver<Vec<Ground>>,
    /// What it did so far.
    pub counters: Arc<Counters>,
    /// The bound on how long an opener waits.
    pub deadline: Arc<Deadline>,
    /// Which processor is left to a key tool.
    pub berth: Arc<Berth>,
    /// Where nobody is identified for a while.
    pub loud: Arc<Loud>,
    /// Where too many are identified.
    pub crowd: Crowd,
}

/// A running key tool.
struct Tool<K> {
    known: Option<K>,
    token: u64,
    pid: i32,
    pidfd: PidFd,
    /// How long it keeps the temporary mark.
    until: Instant,
}

/// An opener whose identity is not sure yet.
struct Flight<I> {
    record: Record,
    held: Held<I>,
    until: Instant,
}

impl<I> Held<I> {
    fn identity(&mut self) -> Option<&mut I> {
        match self {
            Self::Opening { identity, .. } | Self::Executing { identity, .. } => Some(identity),
            Self::Ended { .. } => None,
        }
    }
}

/// What the thread keeps between two rounds.
struct Round<K> {
    epoll: Epoll,
    tools: Vec<Tool<K>>,
    next: u64,
    file_systems: Vec<Ground>,
    marked: bool,
    /// Ends (pid, fence) that the watching thread was too far behind to hear.
    untold: Vec<(i32, Option<u64>)>,
}

impl<I: Identify> Hold<I> {
    /// A thread that was stuck finds that another has taken its place.
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Answers until it is told to end.
    ///
    /// # Errors
    /// The group cannot be read or polled; it should be closed then.
    pub fn run(mut self) -> io::Result<()> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(
            self.permission.as_fd(),
            EpollEvent::new(EpollFlags::EPOLLIN, PERMISSION),
        )?;
        epoll.add(
            self.control.as_fd(),
            EpollEvent::new(EpollFlags::EPOLLIN, CONTROL),
        )?;
        let mut round = Round {
            epoll,
            tools: Vec::with_capacity(MAX_TOOLS),
            next: 0,
            file_systems: Vec::new(),
            marked: false,
            untold: Vec::with_capacity(MAX_TOOLS),
        };
        // Room for one record: what is queued behind the one at hand can be let
        // go by the supervisor.
        let mut buffer = vec![0u8; 2 * RECORD - 1];
        let mut records: Vec<Record> = Vec::new();
        let mut events = [EpollEvent::empty(); 32];
        let mut flights: Vec<Flight<I::Identity>> = Vec::with_capacity(FLIGHTS);
        loop {
            let timeout = if !flights.is_empty() || !round.untold.is_empty() {
                EpollTimeout::from(1u8)
            } else if round.marked || self.berth.is_left() {
                EpollTimeout::from(TICK_MS)
            } else {
                EpollTimeout::NONE
            };
            let count = match round.epoll.wait(&mut events, timeout) {
                Ok(count) => count,
                Err(nix::errno::Errno::EINTR) => 0,
                Err(error) => return Err(error.into()),
            };
            if self.is_over() {
                return Ok(());
            }
            self.tell_again(&mut round);
            // Whoever waits comes first.
            while !self.is_over() {
                self.deadline.reading();
                self.permission
                    .read(&mut buffer, |record| records.push(record))?;
                // One at most: the buffer has no room for more.
                let Some(record) = records.pop() else { break };
                self.take_up(record, &mut round, &mut flights);
            }
            self.deadline.idle();
            self.land(&mut flights);
            for event in &events[..count] {
                match event.data() {
                    PERMISSION => {}
                    CONTROL => self.new_file_systems(&mut round),
                    token => self.ended(token, &mut round),
                }
            }
            let now = Instant::now();
            if round.marked && !round.has_young(now) {
                self.first_key(&mut round, false);
            }
            if count == 0 && !round.has_young(now) {
                self.berth.free();
            }
        }
    }

    /// Identifies an opener and answers it, unless it takes a moment more to be sure.
    fn take_up(
        &mut self,
        record: Record,
        round: &mut Round<I::Known>,
        flights: &mut Vec<Flight<I::Identity>>,
    ) {
        self.deadline
            .begin(record.fd.as_ref().map_or(-1, AsRawFd::as_raw_fd));
        let (held, aside) = if record.is(mask::OPEN_EXEC_PERM) {
            self.executing(&record, round).unzip()
        } else {
            (self.opening(&record, round), None)
        };
        let mut wakes = false;
        match held {
            None => self.answer(&record),
            Some(mut held) => {
                if self.make_sure(&mut held) || flights.len() >= FLIGHTS {
                    wakes = self.let_go(held, &record);
                } else {
                    self.deadline.keep(record.fd.as_ref());
                    flights.push(Flight {
                        record,
                        held,
                        until: Instant::now() + SURE_TIME,
                    });
                }
            }
        }
        self.deadline.end();
        if let Some(aside) = aside {
            aside();
        }
        if wakes {
            let _ = self.wake.write(1);
        }
    }

    /// The opener may need the very processor that this thread runs on: yielding
    /// is not enough with real-time priority.
    fn make_sure(&mut self, held: &mut Held<I::Identity>) -> bool {
        let Some(identity) = held.identity() else {
            return true;
        };
        for number in 0..SURE_TRIES {
            if self.identify.is_sure(identity) {
                return true;
            }
            std::thread::sleep(Duration::from_micros(10 << number));
        }
        self.identify.is_sure(identity)
    }

    /// Answers those that are sure now, or have waited for it long enough.
    fn land(&mut self, flights: &mut Vec<Flight<I::Identity>>) {
        if flights.is_empty() {
            return;
        }
        self.deadline.beat();
        let now = Instant::now();
        let mut index = 0;
        while let Some(flight) = flights.get_mut(index) {
            let sure = flight
                .held
                .identity()
                .is_none_or(|identity| self.identify.is_sure(identity));
            if sure || flight.until <= now {
                let flight = flights.swap_remove(index);
                self.deadline.release(flight.record.fd.as_ref());
                if self.let_go(flight.held, &flight.record) {
                    let _ = self.wake.write(1);
                }
            } else {
                index += 1;
            }
        }
    }

    fn new_file_systems(&self, round: &mut Round<I::Known>) {
        let _ = self.control.read();
        while let Ok(new) = self.file_systems.try_recv() {
            self.first_key(round, false);
            round.file_systems = new;
        }
    }

    /// A key tool has ended: the fence stands behind all that it did, and long
    /// before its pid can come round.
    fn ended(&self, token: u64, round: &mut Round<I::Known>) {
        let Some(index) = round.tools.iter().position(|tool| tool.token == token) else {
            return;
        };
        let tool = round.tools.swap_remove(index);
        let _ = round.epoll.delete(&tool.pidfd);
        self.berth.count(round.tools.len());
        let fence = self.raise();
        round.untold.push((tool.pid, fence));
        self.tell_again(round);
    }

    /// Raises a fence, where there can be one.
    fn raise(&self) -> Option<u64> {
        let fence = self.fence.as_ref()?;
        fence.raise(|| self.notification.waiting()).ok()
    }

    /// An end must be heard of, or the pid of the next process is taken for this one.
    fn tell_again(&self, round: &mut Round<I::Known>) {
        if round.untold.is_empty() {
            return;
        }
        round.untold.retain(|(pid, fence)| {
            let (pid, fence) = (*pid, *fence);
            self.held
                .try_send(Box::new(Held::Ended { pid, fence }))
                .is_err()
        });
        let _ = self.wake.write(1);
    }

    fn opening(&mut self, record: &Record, round: &Round<I::Known>) -> Option<Held<I::Identity>> {
        let fd = record.fd.as_ref()?;
        let path = || opened_path(fd.as_fd()).ok();
        let waiting = self.held.waiting();
        if self.loud.is_in(path) || self.crowd.is_too_large(&self.loud, waiting, path) {
            return None;
        }
        let mut identity = self.tool(record.pid, round);
        if identity.is_none() {
            // Never asks of itself what it is waiting for itself.
            if thread::is_own(record.pid) {
                return None;
            }
            identity = self.identify.opener(record.pid);
        }
        if let (Some(identity), Ok(object)) = (identity, ObjectId::of(fd.as_fd())) {
            let identity = Box::new(identity);
            Some(Held::Opening { object, identity })
        } else {
            self.counters.unidentified.fetch_add(1, Ordering::Relaxed);
            None
        }
    }

    /// A key tool that is followed is known already. One that runs another by
    /// now is there twice.
    fn tool(&mut self, tid: i32, round: &Round<I::Known>) -> Option<I::Identity> {
        let tool = round.tools.iter().rev().find(|tool| tool.pid == tid)?;
        let identity = self.identify.known(tool.known.as_ref()?, &tool.pidfd)?;
        tool.pidfd.is_alive().then_some(identity)
    }

    fn executing(
        &mut self,
        record: &Record,
        round: &mut Round<I::Known>,
    ) -> Option<(Held<I::Identity>, Aside)> {
        let fd = record.fd.as_ref()?;
        let Some(executor) = self.identify.executor(record.pid, fd.as_fd()) else {
            self.counters.unidentified.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        // Marked before the answer: what the tool makes from here on is seen.
        self.first_key(round, true);
        let followed = executor
            .pidfd
            .is_some_and(|pidfd| round.follow(executor.pid, pidfd, executor.known));
        self.berth.count(round.tools.len());
        let fence = self.raise();
        let held = Held::Executing {
            identity: Box::new(executor.identity),
            fence,
            followed,
        };
        Some((held, executor.aside))
    }

    /// Hands on who it is, and lets it go on. Returns whether the watching thread has
    /// to be woken for it: the records of an opening do so, before and after.
    fn let_go(&self, held: Held<I::Identity>, record: &Record) -> bool {
        let wakes = !matches!(held, Held::Opening { .. });
        if self.held.try_send(Box::new(held)).is_err() {
            self.counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
        self.answer(record);
        wakes
    }

    fn answer(&self, record: &Record) {
        let Some(fd) = &record.fd else { return };
        match self.permission.allow(fd.as_fd()) {
            Ok(()) => self.counters.answered.fetch_add(1, Ordering::Relaxed),
            // Killed while it waited.
            Err(_) => self.counters.late.fetch_add(1, Ordering::Relaxed),
        };
    }

    /// Sets or takes off the temporary marks on the file systems of homes.
    fn first_key(&self, round: &mut Round<I::Known>, wanted: bool) {
        if round.marked == wanted {
            return;
        }
        round.marked = wanted;
        for dir in round.file_systems.iter().filter_map(Ground::open) {
            // Where it cannot be set, the scan of the new directory is what there is.
            let _ = if wanted {
                self.notification.mark_file_system(dir.as_fd(), FIRST_KEY)
            } else {
                self.notification.unmark_file_system(dir.as_fd(), FIRST_KEY)
            };
        }
    }
}

impl<K> Round<K> {
    /// Whether a key tool runs that has not been waiting for somebody for long.
    fn has_young(&self, now: Instant) -> bool {
        self.tools.iter().any(|tool| now < tool.until)
    }

    /// Follows a key tool to its end, if there is room.
    fn follow(&mut self, pid: i32, pidfd: PidFd, known: Option<K>) -> bool {
        if self.tools.len() + self.untold.len() >= MAX_TOOLS {
            return false;
        }
        let token = self.next;
        self.next += 1;
        let event = EpollEvent::new(EpollFlags::EPOLLIN, token);
        if self.epoll.add(&pidfd, event).is_err() {
            return false;
        }
        self.tools.push(Tool {
            known,
            token,
            pid,
            pidfd,
            until: Instant::now() + FIRST_KEY_TIME,
        });
        true
    }
}
