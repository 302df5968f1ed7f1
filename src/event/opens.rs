//! Which opens are told: of those that are alike the first in a while.
//!
//! Owns how many that are at most, in all and in one home, which may have as many as
//! are free besides: the next one finds room. An open is like another if the same program
//! of the same process opened the same file. Pure: the clock is given.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::watch::home::Home;

/// How long an open stands for all that are like it.
const INTERVAL: Duration = Duration::from_secs(10);
/// How many different ones are told in that time.
const MAX_TOLD: usize = 4096;

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
    order: VecDeque<(Instant, Home, (PathBuf, A))>,
    homes: HashMap<Home, usize>,
}

impl<A> Default for Opens<A> {
    fn default() -> Self {
        Self {
            told: HashSet::new(),
            order: VecDeque::new(),
            homes: HashMap::new(),
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
        while let Some((until, ..)) = self.order.front()
            && *until <= now
            && let Some((_, home, key)) = self.order.pop_front()
        {
            self.told.remove(&key);
            if let Some(count) = self.homes.get_mut(&home) {
                *count -= 1;
                if *count == 0 {
                    self.homes.remove(&home);
                }
            }
        }
    }

    pub(super) fn admit(&mut self, home: &Home, path: &Path, actor: A, now: Instant) -> Verdict {
        self.expire(now);
        let key = (path.to_owned(), actor);
        if self.told.contains(&key) {
            return Verdict::Told;
        }
        let of_home = self.homes.get(home).copied().unwrap_or_default();
        if of_home >= MAX_TOLD - self.told.len() {
            return Verdict::TooMany;
        }
        *self.homes.entry(home.clone()).or_default() += 1;
        self.order
            .push_back((now + INTERVAL, home.clone(), key.clone()));
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
        let home: Home = Path::new("/root").into();
        let start = Instant::now();
        let key = Path::new("/root/.ssh/id");
        assert_eq!(opens.admit(&home, key, (7, "cat"), start), Verdict::Tell);
        let later = start + INTERVAL / 2;
        assert_eq!(opens.admit(&home, key, (7, "cat"), later), Verdict::Told);
        // The same process runs another program; another process; another file.
        assert_eq!(opens.admit(&home, key, (7, "cp"), later), Verdict::Tell);
        assert_eq!(opens.admit(&home, key, (8, "cat"), later), Verdict::Tell);
        let other = Path::new("/root/.ssh/other");
        assert_eq!(opens.admit(&home, other, (7, "cat"), later), Verdict::Tell);
        // What is told again does not last longer by being repeated.
        let after = start + INTERVAL;
        assert_eq!(opens.admit(&home, key, (7, "cat"), after), Verdict::Tell);
        assert_eq!(opens.admit(&home, key, (7, "cp"), after), Verdict::Told);
    }

    #[test]
    fn a_flood_of_different_ones_is_bounded() {
        let mut opens = Opens::default();
        let start = Instant::now();
        let key = Path::new("/root/.ssh/id");
        let home: Home = Path::new("/root").into();
        for pid in 0..MAX_TOLD / 2 {
            assert_eq!(opens.admit(&home, key, pid, start), Verdict::Tell);
        }
        let more = MAX_TOLD;
        assert_eq!(opens.admit(&home, key, more, start), Verdict::TooMany);
        assert_eq!(opens.admit(&home, key, 0, start), Verdict::Told);
        assert_eq!(opens.order.len(), MAX_TOLD / 2);
        let other: Home = Path::new("/home/ann").into();
        assert_eq!(opens.admit(&other, key, more, start), Verdict::Tell);
        let after = start + INTERVAL;
        assert_eq!(opens.admit(&home, key, more, after), Verdict::Tell);
        assert_eq!((opens.told.len(), opens.homes.len()), (1, 1));
    }
}
