//! Which losses have been told, of those that are only counted where they happen.
//!
//! Owns what is new about counters that only grow, and how often that is said:
//! at once, then once in a while. Pure: the clock is given.

use std::time::{Duration, Instant, SystemTime};

/// How often a counter that goes on growing is told.
const AGAIN: Duration = Duration::from_secs(10);

/// One counter.
#[derive(Debug, Default)]
pub(super) struct Counter {
    told: u64,
    /// When it was last told, and when it was last known to have been told in full.
    last: Option<Instant>,
    since: Option<SystemTime>,
}

impl Counter {
    /// How much was lost, and since when, if that is to be told now.
    pub(super) fn news(
        &mut self,
        count: u64,
        now: Instant,
        time: SystemTime,
    ) -> Option<(u64, SystemTime)> {
        let since = self.since.replace(time).unwrap_or(time);
        if count <= self.told {
            return None;
        }
        let soon = |last| now.saturating_duration_since(last) < AGAIN;
        if self.last.is_some_and(soon) {
            self.since = Some(since);
            return None;
        }
        let lost = count - self.told;
        self.told = count;
        self.last = Some(now);
        Some((lost, since))
    }

    /// When there is something to tell, though nothing new happens.
    pub(super) fn due(&self, count: u64) -> Option<Instant> {
        self.last
            .filter(|_| count > self.told)
            .map(|last| last + AGAIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_loss_is_told_once_and_not_too_often() {
        let mut counter = Counter::default();
        let (now, time) = (Instant::now(), SystemTime::UNIX_EPOCH);
        let second = Duration::from_secs(1);
        assert_eq!(counter.news(0, now, time), None);
        assert_eq!(
            counter.news(5, now + second, time + second),
            Some((5, time))
        );
        let began = time + second;
        assert_eq!(counter.news(7, now + 2 * second, time + 2 * second), None);
        assert_eq!(counter.due(7), Some(now + second + AGAIN));
        let later = second + AGAIN;
        assert_eq!(counter.news(9, now + later, time + later), Some((4, began)));
        assert_eq!(counter.due(9), None);
        assert_eq!(counter.news(9, now + 2 * later, time + 2 * later), None);
    }
}
