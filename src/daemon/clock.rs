//! Notices that somebody set the clock.
//!
//! Owns the timer that the kernel cancels then (`TFD_TIMER_CANCEL_ON_SET`,
//! `timerfd_create(2)`), and how far the clock went: by how much `CLOCK_REALTIME`
//! moved against `CLOCK_BOOTTIME`, which goes on while the machine sleeps and which
//! nobody can set. Slewing (adjtimex(2)) is no jump.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::sys::time::{TimeSpec, TimeValLike as _};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::{ClockId as Clock, clock_gettime};

/// What is less is no jump: file times and records are not that exact.
const LEAST: Duration = Duration::from_secs(1);
/// How far ahead the timer is that is never to expire.
const FAR: i64 = 100 * 365 * 24 * 60 * 60;

/// A jump of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Jump {
    /// Whether it went forwards.
    pub(super) forwards: bool,
    /// How far.
    pub(super) by: Duration,
    /// What time it was before.
    pub(super) from: SystemTime,
}

/// The offset between the two clocks.
#[derive(Clone, Copy, Debug)]
struct Offset {
    /// Nanoseconds of `CLOCK_REALTIME` minus `CLOCK_BOOTTIME`.
    nanos: i128,
}

impl Offset {
    fn new(real: Duration, boot: Duration) -> Self {
        let nanos = |time: Duration| i128::try_from(time.as_nanos()).unwrap_or(i128::MAX);
        Self {
            nanos: nanos(real) - nanos(boot),
        }
    }

    fn now() -> io::Result<Self> {
        // Between two readings of the one that nobody sets: a pause in between is no jump.
        let before = Duration::from(clock_gettime(Clock::CLOCK_BOOTTIME)?);
        let real = Duration::from(clock_gettime(Clock::CLOCK_REALTIME)?);
        let after = Duration::from(clock_gettime(Clock::CLOCK_BOOTTIME)?);
        Ok(Self::new(real, before + after.saturating_sub(before) / 2))
    }

    /// The jump that leads from here to `now`, at the time `real`.
    fn jump(self, now: Self, real: SystemTime) -> Option<Jump> {
        let difference = now.nanos - self.nanos;
        let by =
            u64::try_from(difference.unsigned_abs()).map_or(Duration::MAX, Duration::from_nanos);
        let forwards = difference > 0;
        let from = if forwards {
            real.checked_sub(by)
        } else {
            real.checked_add(by)
        };
        (by >= LEAST).then(|| Jump {
            forwards,
            by,
            from: from.unwrap_or(SystemTime::UNIX_EPOCH),
        })
    }
}

/// Watches the clock.
pub(super) struct ClockWatch {
    timer: TimerFd,
    offset: Offset,
}

impl ClockWatch {
    /// Begins.
    ///
    /// # Errors
    /// The errno of `timerfd_create(2)` or `timerfd_settime(2)`.
    pub(super) fn start() -> io::Result<Self> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let watch = Self {
            timer: TimerFd::new(ClockId::CLOCK_REALTIME, flags)?,
            offset: Offset::now()?,
        };
        watch.arm()?;
        Ok(watch)
    }

    fn arm(&self) -> io::Result<()> {
        let now = clock_gettime(Clock::CLOCK_REALTIME)?;
        let far = Expiration::OneShot(now + TimeSpec::seconds(FAR));
        let flags =
            TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
        Ok(self.timer.set(far, flags)?)
    }

    /// Whether the clock was set since this was last asked, and how far.
    pub(super) fn jumped(&mut self) -> Option<Jump> {
        // Anything else than ECANCELED: nobody set it.
        if nix::unistd::read(&self.timer, &mut [0; 8]) != Err(Errno::ECANCELED) {
            return None;
        }
        // Armed first: what is set from now on cancels it again.
        let _ = self.arm();
        let now = Offset::now().ok()?;
        let former = std::mem::replace(&mut self.offset, now);
        former.jump(now, SystemTime::now())
    }
}

impl AsFd for ClockWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_has_jumped_and_one_that_goes_on_has_not() {
        let at = |real: f64, boot: f64| {
            Offset::new(Duration::from_secs_f64(real), Duration::from_secs_f64(boot))
        };
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(10_000);
        let start = at(5000.0, 100.0);
        // A night of sleep, which both clocks count.
        assert_eq!(start.jump(at(35_000.0, 30_100.0), time), None);
        assert_eq!(start.jump(at(5010.4, 110.0), time), None, "slewed");
        let jump = start.jump(at(10_000.0, 110.0), time).unwrap();
        assert!(jump.forwards);
        assert_eq!(jump.by, Duration::from_secs(4990));
        assert_eq!(jump.from, time - Duration::from_secs(4990));
        let jump = start.jump(at(1000.0, 110.0), time).unwrap();
        assert!(!jump.forwards);
        assert_eq!(jump.by, Duration::from_secs(4010));
        assert_eq!(jump.from, time + Duration::from_secs(4010));
    }

    #[test]
    fn nobody_set_the_clock() {
        let mut watch = ClockWatch::start().unwrap();
        assert_eq!(watch.jumped(), None);
    }
}
