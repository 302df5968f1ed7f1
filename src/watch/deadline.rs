//! The bound on how long an opener waits for us.
//!
//! Owns the deadline of the record that is being answered. A supervising
//! thread sleeps until it passes: then it lets the opener and all that are
//! queued behind it go on, unidentified and counted; if that happens again and
//! again, or the answering thread is stuck, it closes the group. It never
//! wakes up while nobody is held.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, TimerSetTimeFlags};
use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};

use super::beat::Beat;
use crate::sys::fanotify::PermissionGroup;

/// The longest that an opener waits.
pub const LIMIT: Duration = Duration::from_millis(50);
/// How many openers can be kept besides the one at hand, until they are sure.
pub const FLIGHTS: usize = 64;
/// So many deadlines missed in a row close the group.
const MISSES: u32 = 3;

/// What the answering thread is at; written by it, read by the supervisor.
#[derive(Debug)]
pub struct Deadline {
    timer: TimerFd,
    base: Instant,
    /// The timer runs.
    armed: AtomicBool,
    /// When the record at hand was taken up, in microseconds since `base`; 0
    /// when there is none.
    began: AtomicU64,
    /// The descriptor its answer names.
    fd: AtomicI32,
    /// The descriptors of those that are kept besides; -1 is a free place.
    kept: [AtomicI32; FLIGHTS],
    /// Records answered in time.
    served: AtomicU64,
    /// Whether the answering thread gets on.
    pub answering: Arc<Beat>,
    /// Whether the supervisor does.
    pub supervising: Arc<Beat>,
    stop: AtomicBool,
}

/// What the supervisor has to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// So many openers were let go unidentified, for they had waited too long.
    Overdue(u64),
    /// The group is closed: nobody is held any more.
    Closed,
}

impl Deadline {
    /// # Errors
    /// `EMFILE`.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            timer: TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC)?,
            base: Instant::now(),
            armed: AtomicBool::new(false),
            began: AtomicU64::new(0),
            fd: AtomicI32::new(-1),
            kept: [const { AtomicI32::new(-1) }; FLIGHTS],
            served: AtomicU64::new(0),
            answering: Arc::default(),
            supervising: Arc::default(),
            stop: AtomicBool::new(false),
        })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.base.elapsed().as_micros())
            .unwrap_or(u64::MAX)
            .max(1)
    }

    /// The answering thread takes up the record whose answer names `fd`.
    pub fn begin(&self, fd: RawFd) {
        self.fd.store(fd, Ordering::Relaxed);
        self.began.store(self.now(), Ordering::SeqCst);
        // Set at most once in LIMIT, so that it costs nothing a record.
        if !self.armed.swap(true, Ordering::SeqCst) {
            self.arm(LIMIT);
        }
    }

    /// The answering thread has answered it.
    pub fn end(&self) {
        self.began.store(0, Ordering::SeqCst);
        self.served.fetch_add(1, Ordering::Relaxed);
        self.answering.tick();
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

    /// Ends the supervisor.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.arm(Duration::from_nanos(1));
    }

    /// Makes the supervisor look, which sets its timer by what it finds.
    pub fn poke(&self) {
        self.arm(Duration::from_nanos(1));
    }

    fn arm(&self, after: Duration) {
        let expiration = Expiration::OneShot(TimeSpec::from_duration(after));
        // Fails only for a time that is none (timerfd_settime(2)).
        let _ = self.timer.set(expiration, TimerSetTimeFlags::empty());
    }

    /// Supervises until it is stopped, or has closed the group.
    pub fn supervise(&self, group: &Arc<PermissionGroup>, tell: impl FnMut(Miss)) {
        self.look_after(group, tell);
        self.supervising.retire();
    }

    fn look_after(&self, group: &Arc<PermissionGroup>, mut tell: impl FnMut(Miss)) {
        let mut misses = 0;
        let mut served = 0;
        loop {
            // EINTR: the deadline is looked at all the same.
            let _ = self.timer.wait();
            self.supervising.tick();
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            let began = self.began.load(Ordering::SeqCst);
            if began == 0 {
                misses = 0;
                self.armed.store(false, Ordering::SeqCst);
                // Taken up between the two: nobody else will set the timer.
                if self.began.load(Ordering::SeqCst) != 0
                    && !self.armed.swap(true, Ordering::SeqCst)
                {
                    self.arm(LIMIT);
                }
                continue;
            }
            let elapsed = Duration::from_micros(self.now().saturating_sub(began));
            if elapsed < LIMIT {
                self.arm(
                    LIMIT
                        .saturating_sub(elapsed)
                        .max(Duration::from_micros(100)),
                );
                continue;
            }
            let before = std::mem::replace(&mut served, self.served.load(Ordering::Relaxed));
            misses = if before + 1 < served { 1 } else { misses + 1 };
            if misses >= MISSES {
                // Whatever it was at, it is not getting anywhere.
                let _ = group.close();
                tell(Miss::Closed);
                return;
            }
            tell(Miss::Overdue(self.let_go(group)));
            self.arm(LIMIT);
        }
    }

    /// Lets the opener at hand go on, and all that wait behind it.
    fn let_go(&self, group: &PermissionGroup) -> u64 {
        let mut count = 0;
        // Should the answering thread answer at this very moment, one of the two
        // answers finds nobody waiting; should the number have been given to the
        // next opener already, that one goes on unidentified.
        if group.allow_raw(self.fd.load(Ordering::Relaxed)).is_ok() {
            count += 1;
        }
        for place in &self.kept {
            let fd = place.swap(-1, Ordering::SeqCst);
            if fd >= 0 && group.allow_raw(fd).is_ok() {
                count += 1;
            }
        }
        let mut buffer = [0u8; 4096];
        while let Ok(1..) = group.read(&mut buffer, |record| {
            if let Some(fd) = &record.fd {
                let fd: BorrowedFd<'_> = std::os::fd::AsFd::as_fd(fd);
                if group.allow(fd).is_ok() {
                    count += 1;
                }
            }
        }) {}
        count
    }
}
