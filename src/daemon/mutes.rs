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
/// How often it is looked who is loud while it is not empty. Of a home that has used
/// up what is told of it in a while, nothing but the flood is told anyhow: it need
/// not make others wait until [`BEHIND`].
const WINDOW: Duration = Duration::from_millis(20);
/// Fewer records than this a second are no flood.
const LOUD: f64 = 5000.0;
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
    all: Vec<Mute>,
    /// Since when the queue has not been empty, or when [`BEHIND`] last went by since.
    busy: Option<Instant>,
    /// When it was last looked who is loud, since then.
    looked: Option<Instant>,
}

/// What the records of a home come to since it was last looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    /// How long that is.
    window: Duration,
    /// Whether a home is muted that has not used up what is told of it.
    any: bool,
}

impl Look {
    /// Whether a home of which so many records came is to be muted.
    pub(super) fn is_flood(self, records: u64, is_spent: bool) -> bool {
        // Exact up to 2^53.
        #[expect(clippy::cast_precision_loss, reason = "no queue holds as many")]
        let records = records as f64;
        (self.any || is_spent) && records >= LOUD * self.window.as_secs_f64()
    }
}

impl Mutes {
    /// Nothing has come while what was in the queue was worked off.
    pub(super) fn empty(&mut self) {
        (self.busy, self.looked) = (None, None);
    }

    /// There is more in the queue, and has been something since `busy`; says whether it is
    /// time to look who is loud.
    pub(super) fn more(&mut self, busy: Instant, now: Instant) -> Option<Look> {
        let since = *self.busy.get_or_insert(busy);
        let window = now.saturating_duration_since(self.looked.unwrap_or(busy));
        if window < WINDOW {
            return None;
        }
        self.looked = Some(now);
        let any = now.saturating_duration_since(since) >= BEHIND;
        if any {
            self.busy = Some(now);
        }
        Some(Look { window, any })
    }

    /// Mutes `home`; says for how long.
    pub(super) fn mute(&mut self, home: &Home, now: Instant, time: SystemTime) -> Duration {
        let known = self.all.iter().position(|mute| mute.home == *home);
        let former = known.map(|at| self.all.swap_remove(at));
        let former = former.filter(|former| now < former.until + CALM);
        let length = former.map_or(FIRST, |former| (former.length * 2).min(LONGEST));
        if self.all.len() >= REMEMBERED
            && let Some(oldest) = self.all.iter().position(|mute| mute.is_over)
        {
            self.all.swap_remove(oldest);
        }
        self.all.push(Mute {
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
        let muted = self.all.iter().filter(|mute| !mute.is_over);
        muted.map(|mute| &mute.home)
    }

    /// The homes whose time is over, and since when they were muted.
    pub(super) fn over(&mut self, now: Instant) -> Vec<(Home, SystemTime)> {
        self.all
            .retain(|mute| !mute.is_over || now < mute.until + CALM);
        let mut over = Vec::new();
        for mute in &mut self.all {
            if !mute.is_over && mute.until <= now {
                mute.is_over = true;
                over.push((mute.home.clone(), mute.since));
            }
        }
        over
    }

    /// When the next one's time is over.
    pub(super) fn due(&self) -> Option<Instant> {
        let muted = self.all.iter().filter(|mute| !mute.is_over);
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
        let mut now = Instant::now();
        assert_eq!(mutes.more(now, now), None);
        mutes.empty();
        now += BEHIND;
        assert_eq!(mutes.more(now, now), None);
        let mut muted = Vec::new();
        let begun = now;
        while now < begun + 2 * BEHIND {
            now += WINDOW / 2;
            let Some(look) = mutes.more(begun, now) else {
                continue;
            };
            // Twice as many as are a flood.
            let records = 200;
            assert!(!look.is_flood(records / 4, true), "{look:?}");
            if look.is_flood(records, false) {
                muted.push(now - begun);
            }
            assert!(look.is_flood(records, true), "{look:?}");
        }
        assert_eq!(muted, [BEHIND, 2 * BEHIND]);
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
