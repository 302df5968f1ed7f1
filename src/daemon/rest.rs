//! When free memory is given back: a while after the last work, and now and then
//! while there is none.
//!
//! What was decided, and what the process table remembered of it for a while,
//! leaves holes in the heaps, which the allocator keeps. Closing them takes its
//! locks for a moment: not while there is work.
//!
//! Owns the times alone. Pure: the clock is given.

use std::time::{Duration, Instant};

/// How long there was no work before memory is given back.
const FIRST: Duration = Duration::from_secs(10);
/// The longest pause before it is given back again, doubled up to it from
/// [`FIRST`]: other threads free memory later, or work of their own accord.
const LONGEST: Duration = Duration::from_secs(600);

/// When it is time.
#[derive(Debug)]
pub(super) struct Rest {
    due: Instant,
    pause: Duration,
}

impl Rest {
    /// There was work until `now`.
    pub(super) fn since(now: Instant) -> Self {
        Self {
            due: now + FIRST,
            pause: FIRST,
        }
    }

    /// Whether it is time; to be asked now and then while there is no work.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        if now < self.due {
            return false;
        }
        self.due = now + self.pause;
        self.pause = (self.pause * 2).min(LONGEST);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_after_the_work_and_ever_more_rarely() {
        let begun = Instant::now();
        let mut rest = Rest::since(begun);
        let seconds = (0..3600).filter(|second| {
            let now = begun + Duration::from_secs(*second);
            rest.is_due(now)
        });
        let due: Vec<u64> = seconds.collect();
        assert_eq!(due[..5], [10, 20, 40, 80, 160]);
        assert!(due.windows(2).all(|pair| pair[1] - pair[0] <= 600));
        assert_eq!(due[due.len() - 1] - due[due.len() - 2], 600);
    }
}
