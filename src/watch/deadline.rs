//! The bound on how long an opener waits for us.
//!
//! Owns the deadline of the record that is being answered, and of those that
//! nobody has taken up. The supervising thread wakes when somebody is held,
//! then looks again and again until nobody is. Whoever waits too long goes on,
//! unidentified and counted, with all that are queued behind it; if that happens
//! again and again, the answering thread is stuck and the group is closed.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::beat::Beat;
use crate::sys::fanotify::{PermissionGroup, refused_one};

/// The longest that an opener waits.
pub const LIMIT: Duration = Duration::from_millis(50);
/// How often the supervisor looks while somebody is held.
const TICK_MS: u8 = 10;
/// So many looks in a row at which somebody waits and the thread does nothing are
/// too many: the first of them may have come up to one tick late.
const IDLE_TICKS: u32 = 4;
/// So many looks in a row at which nobody waits, and the supervisor sleeps until
/// somebody does: of several openers each would wake it anew, and wait for that.
const CALM_TICKS: u32 = 20;
/// How many openers can be kept besides the one at hand, until they are sure.
pub const FLIGHTS: usize = 64;
/// So many deadlines missed in a row close the group.
const MISSES: u32 = 3;

/// What the answering thread is at; written by it, read by the supervisor.
#[derive(Debug)]
pub struct Deadline {
    base: Instant,
    /// When the answering thread set about reading the record at hand, in
    /// microseconds since `base`; 0 when it is at none.
    began: AtomicU64,
    /// The descriptor its answer names.
    fd: AtomicI32,
    /// The descriptors of those that are kept besides; -1 is a free place.
    kept: [AtomicI32; FLIGHTS],
    /// How often openers were let go, twice; odd while they are.
    releases: AtomicU64,
    /// Signs of life while somebody waits, and records done with.
    beats: Beat,
    served: AtomicU64,
    stop: AtomicBool,
    wake: EventFd,
}

/// A moment at which the answering thread was about to read a record.
#[derive(Clone, Copy, Debug)]
pub struct Since(u64);

/// So many openers were let go unidentified, for they had waited too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overdue(pub u64);

impl Deadline {
    /// # Errors
    /// `EMFILE`.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            base: Instant::now(),
            began: AtomicU64::new(0),
            fd: AtomicI32::new(-1),
            kept: [const { AtomicI32::new(-1) }; FLIGHTS],
            releases: AtomicU64::new(0),
            beats: Beat::default(),
            served: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            wake: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
        })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.base.elapsed().as_micros())
            .unwrap_or(u64::MAX)
            .max(1)
    }

    /// The answering thread is about to read a record: from then on nobody else
    /// can tell that somebody waits.
    pub fn reading(&self) -> Since {
        self.beat();
        self.began.store(self.now(), Ordering::SeqCst);
        // Before the record is read: a number that the supervisor took for the record
        // before may be this one's by then.
        Since(self.releases.load(Ordering::SeqCst))
    }

    /// Whether nobody has been let go since: whose record was read since then has been
    /// waiting until now, and what was read of them before this was asked is true.
    #[must_use]
    pub fn is_unbroken(&self, since: Since) -> bool {
        let releases = self.releases.load(Ordering::SeqCst);
        releases.is_multiple_of(2) && releases == since.0
    }

    /// It has read a record, whose answer names `fd`.
    pub fn begin(&self, fd: RawFd) {
        self.fd.store(fd, Ordering::SeqCst);
    }

    /// The answering thread looks after those that it keeps.
    pub fn beat(&self) {
        self.beats.tick();
    }

    /// How many signs of life it has given.
    #[must_use]
    pub fn beats(&self) -> u64 {
        self.beats.count()
    }

    /// It has answered it.
    pub fn end(&self) {
        self.idle();
        self.served.fetch_add(1, Ordering::Relaxed);
    }

    /// There was none to read.
    pub fn idle(&self) {
        self.fd.store(-1, Ordering::SeqCst);
        self.began.store(0, Ordering::SeqCst);
    }

    /// The answering thread keeps the opener at hand a moment longer.
    pub fn keep(&self, fd: Option<&OwnedFd>) {
        self.replace(-1, fd.map_or(-1, AsRawFd::as_raw_fd));
    }

    /// It answers one that it kept.
    pub fn release(&self, fd: Option<&OwnedFd>) {
        self.replace(fd.map_or(-1, AsRawFd::as_raw_fd), -1);
    }

    fn replace(&self, old: RawFd, new: RawFd) {
        for place in &self.kept {
            let done = place.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst);
            if done.is_ok() {
                return;
            }
        }
    }

    fn keeps(&self) -> bool {
        let mut places = self.kept.iter();
        places.any(|place| place.load(Ordering::Relaxed) >= 0)
    }

    /// Ends the supervisor.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = self.wake.write(1);
    }

    /// What wakes the supervisor; made before the answering thread looks at the
    /// group, since the kernel wakes whoever came last first.
    ///
    /// # Errors
    /// The errno of epoll(7): the group cannot be supervised.
    pub fn watch(&self, group: &PermissionGroup) -> io::Result<Epoll> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(group.as_fd(), once())?;
        epoll.add(&self.wake, EpollEvent::new(EpollFlags::EPOLLIN, 1))?;
        Ok(epoll)
    }

    /// Supervises `group`, which `epoll` watches, until it is stopped, or the
    /// answering thread is stuck: then it closes the group. Tells of each time
    /// that it let openers go.
    ///
    /// # Errors
    /// The errno of epoll(7): the group cannot be supervised.
    pub fn supervise(
        &self,
        group: &PermissionGroup,
        epoll: &Epoll,
        mut tell: impl FnMut(Overdue),
    ) -> io::Result<()> {
        let (mut misses, mut served, mut calm) = (0, 0, 0);
        // The beat at which somebody was first seen waiting, and how many looks
        // ago that was.
        let mut still = (0, 0);
        // The thread may have begun before the group was looked at.
        let mut timeout = EpollTimeout::from(TICK_MS);
        loop {
            let mut events = [EpollEvent::empty()];
            let woken = match epoll.wait(&mut events, timeout) {
                Ok(count) => count > 0,
                Err(nix::errno::Errno::EINTR) => false,
                Err(error) => return Err(error.into()),
            };
            if self.stop.load(Ordering::SeqCst) {
                return Ok(());
            }
            let beat = self.beats.count();
            // Before it is looked since when: this thread may lose its processor in between.
            let now = self.now();
            let began = self.began.load(Ordering::SeqCst);
            let waiting = woken || self.keeps() || is_readable(group);
            still = if waiting && still.0 == beat {
                (beat, still.1 + 1)
            } else {
                (beat, 0)
            };
            let overdue = if began == 0 {
                still.1 > IDLE_TICKS
            } else {
                now.saturating_sub(began) >= micros(LIMIT)
            };
            timeout = EpollTimeout::from(TICK_MS);
            if overdue {
                let before = std::mem::replace(&mut served, self.served.load(Ordering::Relaxed));
                misses = if before + 1 < served { 1 } else { misses + 1 };
                if misses >= MISSES {
                    // Whatever it was at, it is not getting anywhere.
                    return group.close();
                }
                tell(Overdue(self.let_go(group)));
                still = (beat, 0);
                timeout = EpollTimeout::from(4 * TICK_MS);
            } else if began != 0 || waiting {
                calm = 0;
            } else if calm < CALM_TICKS {
                calm += 1;
            } else {
                calm = 0;
                epoll.modify(group.as_fd(), &mut once())?;
                // Read before that was done: nothing will wake us, but it shows.
                if self.began.load(Ordering::SeqCst) == 0 && !self.keeps() {
                    timeout = EpollTimeout::NONE;
                }
            }
        }
    }

    /// Lets the opener at hand go on, and all that wait behind it.
    fn let_go(&self, group: &PermissionGroup) -> u64 {
        let mut count = 0;
        // Before anybody is: who goes on may run another program, and wait again.
        self.releases.fetch_add(1, Ordering::SeqCst);
        // Should the answering thread answer at this very moment, one of the two
        // answers finds nobody waiting; should the number have been given to the
        // next opener already, that one goes on unidentified.
        let fd = self.fd.load(Ordering::SeqCst);
        if fd >= 0 && group.allow_raw(fd).is_ok() {
            count += 1;
        }
        for place in &self.kept {
            let fd = place.swap(-1, Ordering::SeqCst);
            if fd >= 0 && group.allow_raw(fd).is_ok() {
                count += 1;
            }
        }
        let mut buffer = [0u8; 4096];
        // Not until nothing is read: nothing is of a leased file, behind which others wait.
        while group.is_open() && is_readable(group) {
            let read = group.read(&mut buffer, |record| {
                if let Some(fd) = &record.fd {
                    let fd: BorrowedFd<'_> = fd.as_fd();
                    if group.allow(fd).is_ok() {
                        count += 1;
                    }
                }
            });
            if read.is_err_and(|error| !refused_one(&error)) {
                break;
            }
        }
        self.releases.fetch_add(1, Ordering::SeqCst);
        count
    }
}

/// Woken once, then it looks by the clock: a record must not cost a wake-up of
/// the supervisor as well.
fn once() -> EpollEvent {
    EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT, 0)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Whether a record is queued that nobody has read.
fn is_readable(group: &PermissionGroup) -> bool {
    let mut fds = [PollFd::new(group.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|count| count > 0)
}
