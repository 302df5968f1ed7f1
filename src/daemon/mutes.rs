//! When a home is so loud that the kernel is not asked about it for a while.
//!
//! Owns when that is done and for how long. The kernel's queue is one for all: who
//! fills it faster than it is read lets everybody else wait, and takes memory without
//! a bound. So the marks of the loudest home are taken off, and what happened there
//! is found by looking when they are set again. Pure: the clock is given.

use std::time::{Duration, Instant, SystemTime};

use crate::watch::home::Home;

/// The queue has not been empty for so long: it is filled faster than it is read.
const BEHIND: Duration = Duration::from_secs(1);
/// Fewer records than this in that time are no flood.
pub(super) const LOUD: u64 = 5000;
/// How long a home is muted at first, and at most.
const FIRST: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(300);
/// Whoever is loud again so soon is muted for twice as long as before.
const CALM: Duration = Duration::from_secs(600);
/// Of how many homes it is remembered that they were muted.
const REMEMBERED: usize = 1024;

/// A home that is or was muted.
#[derive(Clone, Debug)]
struct Mute {
    home: Home,
    since: SystemTime,
    until: Instant,
    length: Duration,
    is_over: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Mutes {
    mutes: Vec<Mute>,
    /// Since when the queue has not been empty.
    busy: Option<Instant>,
}

impl Mutes {
    /// The queue was read to its end.
    pub(super) fn empty(&mut self) {
        self.busy = None;
    }

    /// There is more in the queue; says whether it is time to mute somebody.
    pub(super) fn more(&mut self, now: Instant) -> bool {
        let since = *self.busy.get_or_insert(now);
        let behind = now.saturating_duration_since(since) >= BEHIND;
        if behind {
            self.busy = Some(now);
        }
        behind
    }

    /// Mutes `home`; says for how long.
    pub(super) fn mute(&mut self, home: &Home, now: Instant, time: SystemTime) -> Duration {
        let known = self.mutes.iter().position(|mute| mute.home == *home);
        let former = known.map(|at| self.mutes.swap_remove(at));
        let former = former.filter(|former| now < former.until + CALM);
        let length = former.map_or(FIRST, |former| (former.length * 2).min(LONGEST));
        if self.mutes.len() >= REMEMBERED
            && let Some(oldest) = self.mutes.iter().position(|mute| mute.is_over)
        {
            self.mutes.swap_remove(oldest);
        }
        self.mutes.push(Mute {
            home: home.clone(),
            since: time,
            until: now + length,
            length,
            is_over: false,
        });
        length
    }

    /// The homes that are muted.
    pub(super) fn muted(&self) -> impl Iterator<Item = &Home> {
        let muted = self.mutes.iter().filter(|mute| !mute.is_over);
        muted.map(|mute| &mute.home)
    }

    /// The homes whose time is over, and since when they were muted.
    pub(super) fn over(&mut self, now: Instant) -> Vec<(Home, SystemTime)> {
        self.mutes
            .retain(|mute| !mute.is_over || now < mute.until + CALM);
        let mut over = Vec::new();
        for mute in &mut self.mutes {
            if !mute.is_over && mute.until <= now {
                mute.is_over = true;
                over.push((mute.home.clone(), mute.since));
            }
        }
        over
    }

    /// When the next one's time is over.
    pub(super) fn due(&self) -> Option<Instant> {
        let muted = self.mutes.iter().filter(|mute| !mute.is_over);
        muted.map(|mute| mute.until).min()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn only_a_queue_that_is_never_empty_is_behind() {
        let mut mutes = Mutes::default();
        let now = Instant::now();
        assert!(!mutes.more(now));
        mutes.empty();
        assert!(!mutes.more(now + BEHIND));
        assert!(mutes.more(now + 2 * BEHIND));
        assert!(!mutes.more(now + 2 * BEHIND), "not at once again");
    }

    #[test]
    fn whoever_goes_on_is_muted_longer_each_time() {
        let mut mutes = Mutes::default();
        let home: Home = Path::new("/home/ann").into();
        let mut now = Instant::now();
        let time = SystemTime::UNIX_EPOCH;
        let mut lengths = Vec::new();
        for _ in 0..9 {
            lengths.push(mutes.mute(&home, now, time).as_secs());
            assert_eq!(mutes.muted().count(), 1);
            assert_eq!(mutes.over(now), []);
            now = mutes.due().unwrap();
            assert_eq!(mutes.over(now), [(home.clone(), time)]);
            assert_eq!((mutes.muted().count(), mutes.due()), (0, None));
        }
        assert_eq!(lengths, [2, 4, 8, 16, 32, 64, 128, 256, 300]);
        now += CALM;
        assert_eq!(mutes.mute(&home, now, time), FIRST);
    }
}
