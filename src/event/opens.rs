//! Which opens are told: of those that are alike the first in a while.
//!
//! Owns how many that are at most. An open is like another if the same program
//! of the same process opened the same file. Pure: the clock is given.

use std::collections::{HashSet, VecDeque};
use std::hash::Hash;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long an open stands for all that are like it.
const INTERVAL: Duration = Duration::from_secs(10);
/// How many different ones are told in that time.
const MAX_TOLD: usize = 2048;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is to be told.
    Tell,
    /// One like it has been told.
    Told,
    /// Too many have been told.
    TooMany,
}

/// The opens that were told of late; `A` tells one program of one process from
/// others.
#[derive(Debug)]
pub(super) struct Opens<A> {
    told: HashSet<(PathBuf, A)>,
    order: VecDeque<(Instant, (PathBuf, A))>,
}

impl<A> Default for Opens<A> {
    fn default() -> Self {
        Self {
            told: HashSet::new(),
            order: VecDeque::new(),
        }
    }
}

impl<A: Clone + Eq + Hash> Opens<A> {
    /// Whether one like it was admitted.
    pub(super) fn knows(&mut self, path: &Path, actor: A, now: Instant) -> bool {
        self.expire(now);
        self.told.contains(&(path.to_owned(), actor))
    }

    fn expire(&mut self, now: Instant) {
        while let Some((until, _)) = self.order.front()
            && *until <= now
            && let Some((_, key)) = self.order.pop_front()
        {
            self.told.remove(&key);
        }
    }

    pub(super) fn admit(&mut self, path: &Path, actor: A, now: Instant) -> Verdict {
        self.expire(now);
        let key = (path.to_owned(), actor);
        if self.told.contains(&key) {
            return Verdict::Told;
        }
        if self.told.len() >= MAX_TOLD {
            return Verdict::TooMany;
        }
        self.order.push_back((now + INTERVAL, key.clone()));
        self.told.insert(key);
        Verdict::Tell
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_those_that_are_alike_is_told_in_each_interval() {
        let mut opens = Opens::default();
        let start = Instant::now();
        let key = Path::new("/root/.ssh/id");
        assert_eq!(opens.admit(key, (7, "cat"), start), Verdict::Tell);
        let later = start + INTERVAL / 2;
        assert_eq!(opens.admit(key, (7, "cat"), later), Verdict::Told);
        // The same process runs another program; another process; another file.
        assert_eq!(opens.admit(key, (7, "cp"), later), Verdict::Tell);
        assert_eq!(opens.admit(key, (8, "cat"), later), Verdict::Tell);
        let other = Path::new("/root/.ssh/other");
        assert_eq!(opens.admit(other, (7, "cat"), later), Verdict::Tell);
        // What is told again does not last longer by being repeated.
        let after = start + INTERVAL;
        assert_eq!(opens.admit(key, (7, "cat"), after), Verdict::Tell);
        assert_eq!(opens.admit(key, (7, "cp"), after), Verdict::Told);
    }

    #[test]
    fn a_flood_of_different_ones_is_bounded() {
        let mut opens = Opens::default();
        let start = Instant::now();
        let key = Path::new("/root/.ssh/id");
        for pid in 0..MAX_TOLD {
            assert_eq!(opens.admit(key, pid, start), Verdict::Tell);
        }
        assert_eq!(opens.admit(key, MAX_TOLD, start), Verdict::TooMany);
        assert_eq!(opens.admit(key, 0, start), Verdict::Told);
        assert_eq!(opens.order.len(), MAX_TOLD);
        let after = start + INTERVAL;
        assert_eq!(opens.admit(key, MAX_TOLD, after), Verdict::Tell);
        assert_eq!(opens.told.len(), 1);
    }
}
