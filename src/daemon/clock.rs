//! Notices that somebody set the clock, or made it go at another pace.
//!
//! Owns the timer that the kernel cancels when it is set (`TFD_TIMER_CANCEL_ON_SET`,
//! `timerfd_create(2)`), and how far the clock went: by how much `CLOCK_REALTIME`
//! moved against `CLOCK_BOOTTIME`, which goes on while the machine sleeps and which
//! nobody can set. Steps that are none by themselves add up: a clock that is put
//! back again and again stands still. Slewing (adjtimex(2)) is no jump, but a pace,
//! of which `CLOCK_MONOTONIC` has its part and `CLOCK_MONOTONIC_RAW` none.
//!
//! A machine whose clocks all stand still does not notice it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::sys::time::{TimeSpec, TimeValLike as _};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::{ClockId as Clock, clock_gettime};

/// What is less is no jump: file times and records are not that exact.
const LEAST: Duration = Duration::from_secs(1);
/// By such a part a clock that is corrected (NTP: 0.0005 at most) is not too fast or
/// too slow; root can make it 0.1.
const ODD: f64 = 0.01;
/// The pace is taken over so long at least.
const SPAN: Duration = Duration::from_secs(60);
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

/// The pace of the clock, measured by one that cannot be corrected.
#[derive(Debug)]
struct Pace {
    /// `CLOCK_MONOTONIC` and `CLOCK_MONOTONIC_RAW` when it was last taken.
    ours: Duration,
    raw: Duration,
    /// It was too fast or too slow then.
    odd: bool,
}

impl Pace {
    fn new(ours: Duration, raw: Duration) -> Self {
        let odd = false;
        Self { ours, raw, odd }
    }

    fn clocks() -> io::Result<(Duration, Duration)> {
        let ours = Duration::from(clock_gettime(Clock::CLOCK_MONOTONIC)?);
        let raw = Duration::from(clock_gettime(Clock::CLOCK_MONOTONIC_RAW)?);
        Ok((ours, raw))
    }

    /// The pace until now, 1 being right, if it has become odd or right again.
    fn changed(&mut self, ours: Duration, raw: Duration) -> Option<f64> {
        let span = raw.saturating_sub(self.raw);
        if span < SPAN {
            return None;
        }
        let pace = ours.saturating_sub(self.ours).as_secs_f64() / span.as_secs_f64();
        let odd = (pace - 1.0).abs() >= ODD;
        (self.ours, self.raw) = (ours, raw);
        (std::mem::replace(&mut self.odd, odd) != odd).then_some(pace)
    }
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

    /// The jump since this was last told, at the time `real`.
    fn moved(&mut self, now: Self, real: SystemTime) -> Option<Jump> {
        let jump = self.jump(now, real)?;
        *self = now;
        Some(jump)
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
    pace: Pace,
}

impl ClockWatch {
    /// Begins.
    ///
    /// # Errors
    /// The errno of `timerfd_create(2)` or `timerfd_settime(2)`.
    pub(super) fn start() -> io::Result<Self> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let (ours, raw) = Pace::clocks()?;
        let watch = Self {
            pace: Pace::new(ours, raw),
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
        self.offset.moved(Offset::now().ok()?, SystemTime::now())
    }

    /// The pace of the clock, 1 being right, if it has become odd or right again.
    pub(super) fn paced(&mut self) -> Option<f64> {
        let (ours, raw) = Pace::clocks().ok()?;
        self.pace.changed(ours, raw)
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
    fn a_clock_that_is_put_back_again_and_again_has_jumped() {
        let at = |real: f64, boot: f64| {
            Offset::new(Duration::from_secs_f64(real), Duration::from_secs_f64(boot))
        };
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(10_000);
        let mut offset = at(5000.0, 100.0);
        // It stands still: each time it is put back by what has passed.
        let jumps: Vec<Option<Jump>> = (1..=8)
            .map(|turn| offset.moved(at(5000.0, 100.0 + f64::from(turn) / 4.0), time))
            .collect();
        for (turn, jump) in (1..).zip(&jumps) {
            let told = jump.map(|jump| (jump.forwards, jump.by));
            let expected = (turn % 4 == 0).then_some((false, LEAST));
            assert_eq!(told, expected, "{turn}");
        }
    }

    #[test]
    fn a_clock_that_goes_too_slow_is_told_once_and_when_it_is_right_again() {
        let secs = Duration::from_secs_f64;
        let mut pace = Pace::new(secs(100.0), secs(50.0));
        assert_eq!(pace.changed(secs(101.0), secs(59.0)), None, "too soon");
        // As fast as NTP may make it.
        assert_eq!(pace.changed(secs(160.03), secs(110.0)), None);
        let slow = pace.changed(secs(214.03), secs(170.0)).unwrap();
        assert!((slow - 0.9).abs() < 1e-6, "{slow}");
        assert_eq!(pace.changed(secs(268.03), secs(230.0)), None, "told");
        let right = pace.changed(secs(328.03), secs(290.0)).unwrap();
        assert!((right - 1.0).abs() < 1e-6, "{right}");
        // It stands still.
        assert_eq!(pace.changed(secs(328.03), secs(350.0)), Some(0.0));
    }

    #[test]
    fn nobody_set_the_clock() {
        let mut watch = ClockWatch::start().unwrap();
        assert_eq!(watch.jumped(), None);
        assert_eq!(watch.paced(), None);
    }
}
