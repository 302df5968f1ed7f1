//! The clocks: perf's `CLOCK_MONOTONIC`, and the clock ticks since boot of `/proc`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use nix::time::{ClockId, clock_gettime};

use super::Time;

/// The time of `CLOCK_MONOTONIC`.
#[must_use]
pub fn now() -> Time {
    clock(ClockId::CLOCK_MONOTONIC)
}

fn clock(id: ClockId) -> Time {
    // It fails for no clock that is there.
    let time = clock_gettime(id).map(Duration::from).unwrap_or_default();
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// How long the host has been suspended since it was booted.
pub(super) fn suspended() -> Time {
    /// A thread that loses its processor between the two clocks reads them again.
    const TRIES: usize = 8;
    const CLOSE: Time = 100_000;
    let mut nearest = (Time::MAX, 0);
    for _ in 0..TRIES {
        let before = now();
        let since_boot = clock(ClockId::CLOCK_BOOTTIME);
        let apart = now().saturating_sub(before);
        nearest = nearest.min((apart, since_boot.saturating_sub(before)));
        if apart <= CLOSE {
            break;
        }
    }
    nearest.1
}

/// The wall-clock time of a start in clock ticks since boot (`proc_pid_stat(5)`, field 22).
#[must_use]
pub fn start_time(ticks: u64) -> SystemTime {
    booted() + ticks_time(ticks)
}

/// When the host was booted, by the clock as it is set now: `btime` of
/// `proc_stat(5)` leaves out the fraction of its second.
fn booted() -> SystemTime {
    // The same for all, until somebody sets the clock.
    static KNOWN: AtomicU64 = AtomicU64::new(0);
    const SET: Time = 100_000_000;
    let now = booted_now();
    let mut booted = KNOWN.load(Ordering::Relaxed);
    if booted.abs_diff(now) > SET {
        booted = now;
        KNOWN.store(now, Ordering::Relaxed);
    }
    SystemTime::UNIX_EPOCH + Duration::from_nanos(booted)
}

/// The difference of the two clocks; a thread that is kept from running between
/// the readings reads again.
fn booted_now() -> Time {
    const CLOSE: Time = 1_000_000;
    let mut tries = 0;
    loop {
        let before = clock(ClockId::CLOCK_BOOTTIME);
        let wall = clock(ClockId::CLOCK_REALTIME);
        let after = clock(ClockId::CLOCK_BOOTTIME);
        tries += 1;
        if after.saturating_sub(before) < CLOSE || tries == 8 {
            return wall.saturating_sub(before);
        }
    }
}

/// How long so many clock ticks are.
#[must_use]
pub fn ticks_time(ticks: u64) -> Duration {
    let per_second = u128::from(procfs::ticks_per_second().max(1));
    let nanos = u128::from(ticks) * 1_000_000_000 / per_second;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// The moment of a start in clock ticks since boot (`proc_pid_stat(5)`, field 22).
#[must_use]
pub fn from_ticks(ticks: u64) -> Time {
    let booted = u64::try_from(ticks_time(ticks).as_nanos()).unwrap_or(u64::MAX);
    booted.saturating_sub(suspended())
}

/// The clock ticks since boot of `time`.
#[must_use]
pub fn to_ticks(time: Time) -> u64 {
    let per_second = u128::from(procfs::ticks_per_second().max(1));
    let ticks = u128::from(time.saturating_add(suspended())) * per_second / 1_000_000_000;
    u64::try_from(ticks).unwrap_or(u64::MAX)
}
