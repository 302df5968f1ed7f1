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
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;
use nix::sys::stat::fstat;

use super::berth::Berth;
use super::deadline::{Deadline, FLIGHTS, Since};
use super::fanotify::FIRST_KEY;
use super::fence::Fence;
use super::loud::{Crowd, Loud};
use super::tree::Ground;
use crate::queue;
use crate::sys::fanotify::{NotificationGroup, PermissionGroup, Record, mask, refused_one};
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
/// How often those that are kept are looked at while others come.
const LOOK: Duration = Duration::from_millis(1);
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

    /// Whether [`Identify::look_back`] is to be asked before an identity is handed on.
    fn looks_back(&self) -> bool {
        false
    }

    /// Its opener has been let go. If who was read waits still it is in another hold, and
    /// has taken the place of the opener, whom its exec had ended: it is not sure.
    fn look_back(&mut self, _identity: &mut Self::Identity) {}
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

/// What an object was like while its opener waited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// How many names it had: one that this very open(2) makes has one, or none yet
    /// (`O_TMPFILE`).
    pub links: u64,
    /// It can have been made just now (`st_ctime`, which its owner cannot set).
    pub is_new: bool,
    /// Nothing was in it.
    pub is_empty: bool,
    /// By which path it was opened, as it is seen from here; of what can have been made by
    /// the open.
    pub path: Option<PathBuf>,
}

impl Found {
    /// How far the clock and a new file's time may be apart: they tick in milliseconds,
    /// and the opener may have had to wait for a processor.
    const NEW: Duration = Duration::from_secs(1);

    /// Of an opened object.
    ///
    /// # Errors
    /// The errno of fstat(2).
    pub fn of(object: BorrowedFd<'_>) -> io::Result<Self> {
        let found = fstat(object)?;
        let changed = UNIX_EPOCH + Duration::from_secs(u64::try_from(found.st_ctime).unwrap_or(0));
        let age = SystemTime::now().duration_since(changed);
        let apart = age.unwrap_or_else(|error| error.duration());
        // The seconds alone are looked at.
        let is_new = apart < Self::NEW * 2;
        let can_be_made = is_new && found.st_nlink == 1;
        Ok(Self {
            links: found.st_nlink,
            is_new,
            is_empty: found.st_size == 0,
            path: can_be_made.then(|| opened_path(object).ok()).flatten(),
        })
    }
}

/// An opener that was identified while it was held. Identities are large, and
/// room for [`BACKLOG`] of them would be used up in time.
#[derive(Debug)]
pub enum Held<I> {
    /// It opened an object in a watched directory.
    Opening {
        /// Which.
        object: ObjectId,
        /// What that was like meanwhile.
        found: Found,
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

/// An opener that was identified; kept until its identity is sure.
struct Flight<I> {
    record: Record,
    since: Since,
    held: Held<I>,
    /// The token of the key tool that it is followed as.
    tool: Option<u64>,
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
    /// Something was mounted over a file system that may carry the mark.
    astray: bool,
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
        // A thread that was stuck while a key tool ran has left its marks.
        let _ = self.notification.unmark_all_file_systems();
        let mut round = Round {
            epoll,
            tools: Vec::with_capacity(MAX_TOOLS),
            next: 0,
            file_systems: Vec::new(),
            marked: false,
            astray: false,
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
            let mut looked = Instant::now();
            while !self.is_over() {
                let since = self.deadline.reading();
                match self
                    .permission
                    .read(&mut buffer, |record| records.push(record))
                {
                    Ok(_) => {}
                    // Others may wait behind.
                    Err(error) if refused_one(&error) => {
                        self.counters.unidentified.fetch_add(1, Ordering::Relaxed);
                        continue;
                    }
                    Err(error) => return Err(error),
                }
                // One at most: the buffer has no room for more. None also where a file is
                // leased: if somebody waits behind, that wakes us at once.
                let Some(record) = records.pop() else { break };
                self.take_up(record, since, &mut round, &mut flights);
                // However many come: those that are kept wait as well.
                if !flights.is_empty() && looked.elapsed() >= LOOK {
                    self.land(&mut round, &mut flights);
                    looked = Instant::now();
                }
            }
            self.deadline.idle();
            self.land(&mut round, &mut flights);
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
        since: Since,
        round: &mut Round<I::Known>,
        flights: &mut Vec<Flight<I::Identity>>,
    ) {
        self.deadline
            .begin(record.fd.as_ref().map_or(-1, AsRawFd::as_raw_fd));
        let (held, tool, aside) = if record.is(mask::OPEN_EXEC_PERM) {
            let found = self.executing(&record, round);
            found.map_or((None, None, None), |(held, tool, aside)| {
                (Some(held), tool, Some(aside))
            })
        } else {
            (self.opening(&record, round), None, None)
        };
        let mut wakes = false;
        match held {
            None => self.answer(&record),
            Some(held) => {
                let mut flight = Flight {
                    record,
                    since,
                    held,
                    tool,
                    until: Instant::now() + SURE_TIME,
                };
                if self.make_sure(&mut flight.held) || flights.len() >= FLIGHTS {
                    wakes = self.let_go(flight, round);
                } else {
                    self.deadline.keep(flight.record.fd.as_ref());
                    flights.push(flight);
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
    fn land(&mut self, round: &mut Round<I::Known>, flights: &mut Vec<Flight<I::Identity>>) {
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
                if self.let_go(flight, round) {
                    let _ = self.wake.write(1);
                }
            } else {
                index += 1;
            }
        }
    }

    /// Homes lie elsewhere by now. A key tool may run meanwhile: what it makes where
    /// something has just been mounted is seen, too, and where nothing has changed no moment
    /// is without the mark.
    fn new_file_systems(&self, round: &mut Round<I::Known>) {
        let _ = self.control.read();
        let Some(new) = self.file_systems.try_iter().last() else {
            return;
        };
        let old = std::mem::replace(&mut round.file_systems, new);
        if !round.marked {
            return;
        }
        let gone = old.iter().filter(|old| !round.file_systems.contains(old));
        round.astray |= !self.mark(gone, false);
        if round.has_young(Instant::now()) {
            self.mark(&round.file_systems, true);
        }
    }

    /// A key tool has ended: the fence stands behind all that it did, and long
    /// before its pid can come round.
    fn ended(&self, token: u64, round: &mut Round<I::Known>) {
        let Some(tool) = round.forget(token) else {
            return;
        };
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
        let object = ObjectId::of(fd.as_fd()).and_then(|id| Ok((id, Found::of(fd.as_fd())?)));
        if let (Some(identity), Ok((object, found))) = (identity, object) {
            let identity = Box::new(identity);
            Some(Held::Opening {
                object,
                found,
                identity,
            })
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
    ) -> Option<(Held<I::Identity>, Option<u64>, Aside)> {
        let fd = record.fd.as_ref()?;
        let Some(executor) = self.identify.executor(record.pid, fd.as_fd()) else {
            self.counters.unidentified.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        // Marked before the answer: what the tool makes from here on is seen.
        self.first_key(round, true);
        let tool = executor
            .pidfd
            .and_then(|pidfd| round.follow(executor.pid, pidfd, executor.known));
        self.berth.count(round.tools.len());
        let fence = self.raise();
        let held = Held::Executing {
            identity: Box::new(executor.identity),
            fence,
            followed: tool.is_some(),
        };
        Some((held, tool, executor.aside))
    }

    /// Hands on who it is, and lets it go on. Returns whether the watching thread has
    /// to be woken for it: the records of an opening do so, before and after.
    fn let_go(&mut self, mut flight: Flight<I::Identity>, round: &mut Round<I::Known>) -> bool {
        let wakes = !matches!(flight.held, Held::Opening { .. });
        if self.has_waited(flight.since) {
            if let Held::Opening { identity, .. } = &mut flight.held
                && self.identify.looks_back()
            {
                self.answer(&flight.record);
                self.identify.look_back(identity);
                self.hand_on(flight.held);
                return wakes;
            }
            self.hand_on(flight.held);
        } else {
            // It may have been read while it ran another program, and waited again. Like
            // whoever nobody read it is named by its records and the process table.
            self.counters.unidentified.fetch_add(1, Ordering::Relaxed);
            if let Some(token) = flight.tool {
                round.forget(token);
                self.berth.count(round.tools.len());
            }
        }
        self.answer(&flight.record);
        wakes
    }

    fn hand_on(&self, held: Held<I::Identity>) {
        if self.held.try_send(Box::new(held)).is_err() {
            self.counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether who was read of since then has been waiting until now. Whoever else lets
    /// openers go closes the group, and ends this thread before it is opened again.
    fn has_waited(&self, since: Since) -> bool {
        self.deadline.is_unbroken(since) && self.permission.is_open() && !self.is_over()
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
        round.astray |= !self.mark(&round.file_systems, wanted);
        if !wanted && std::mem::take(&mut round.astray) {
            // A mark that stays behind would wake us at every creation there, for ever.
            // There are no others on file systems.
            let _ = self.notification.unmark_all_file_systems();
        }
    }

    /// Sets or takes off the temporary marks on these; whether all could be reached.
    fn mark<'a>(&self, grounds: impl IntoIterator<Item = &'a Ground>, wanted: bool) -> bool {
        let mut all_reached = true;
        for ground in grounds {
            let Some(dir) = ground.open() else {
                all_reached = false;
                continue;
            };
            // Where it cannot be set, the scan of the new directory is what there is.
            let _ = if wanted {
                self.notification.mark_file_system(dir.as_fd(), FIRST_KEY)
            } else {
                self.notification.unmark_file_system(dir.as_fd(), FIRST_KEY)
            };
        }
        all_reached
    }
}

impl<K> Round<K> {
    /// Whether a key tool runs that has not been waiting for somebody for long.
    fn has_young(&self, now: Instant) -> bool {
        self.tools.iter().any(|tool| now < tool.until)
    }

    /// Follows a key tool to its end, if there is room; returns its token.
    fn follow(&mut self, pid: i32, pidfd: PidFd, known: Option<K>) -> Option<u64> {
        if self.tools.len() + self.untold.len() >= MAX_TOOLS {
            // What it was at an exec before it is no more.
            while let Some(former) = self.tools.iter().find(|tool| tool.pid == pid) {
                self.forget(former.token);
            }
            return None;
        }
        let token = self.next;
        self.next += 1;
        let event = EpollEvent::new(EpollFlags::EPOLLIN, token);
        self.epoll.add(&pidfd, event).ok()?;
        self.tools.push(Tool {
            known,
            token,
            pid,
            pidfd,
            until: Instant::now() + FIRST_KEY_TIME,
        });
        Some(token)
    }

    /// Follows it no longer.
    fn forget(&mut self, token: u64) -> Option<Tool<K>> {
        let index = self.tools.iter().position(|tool| tool.token == token)?;
        let tool = self.tools.swap_remove(index);
        let _ = self.epoll.delete(&tool.pidfd);
        Some(tool)
    }
}
