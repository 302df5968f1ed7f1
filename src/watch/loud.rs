//! Homes in which a flood goes on, for the answering thread: whoever opens a file
//! there goes on without being identified, for nobody is told of the file one by
//! one, and to be identified takes a processor from all others. Names that sshd and
//! ssh look for are excepted. So it is with the home of a crowd of openers who are
//! identified faster than that is taken down: to identify them takes the processor from who
//! takes it down.
//!
//! Owns the list, and the count of the crowd. Must not own when a flood begins or ends.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::home::{Home, is_looked_for, of};

/// So many homes are counted in a crowd.
const MOST_HOMES: usize = 1024;

/// The list; shared by the thread that watches and the one that answers.
#[derive(Debug, Default)]
pub struct Loud {
    homes: Mutex<Vec<Home>>,
    /// There are any: most of the time nobody looks for the path of what is opened.
    any: AtomicBool,
    /// How many openers may wait to be taken down before they are a crowd; 0: any number.
    crowd: AtomicUsize,
}

impl Loud {
    /// These are loud now.
    pub fn set(&self, loud: Vec<Home>) {
        self.any.store(!loud.is_empty(), Ordering::Release);
        if let Ok(mut homes) = self.homes.lock() {
            *homes = loud;
        }
    }

    /// So many events of a home are told at once: more openers are a crowd.
    pub fn limit(&self, events: usize) {
        self.crowd.store(events, Ordering::Release);
    }

    /// Whether the opener of `path` may go on unidentified. Waits for no lock.
    pub fn is_in(&self, path: impl FnOnce() -> Option<PathBuf>) -> bool {
        self.any.load(Ordering::Acquire) && path().is_some_and(|path| self.has(&path))
    }

    fn has(&self, path: &Path) -> bool {
        let Ok(homes) = self.homes.try_lock() else {
            return false;
        };
        let mut homes = homes.iter();
        homes.any(|home| path.starts_with(home) && !is_looked_for(home, path))
    }
}

/// Openers of each home who were identified while many waited to be taken down.
#[derive(Debug, Default)]
pub struct Crowd {
    homes: HashMap<Home, usize>,
}

impl Crowd {
    /// Whether the opener of `path` is one too many, while so many wait. Each home has
    /// half of what makes a crowd once the other half waits.
    pub fn is_too_large(
        &mut self,
        loud: &Loud,
        waiting: usize,
        path: impl FnOnce() -> Option<PathBuf>,
    ) -> bool {
        let half = loud.crowd.load(Ordering::Acquire) / 2;
        if waiting <= half || half == 0 {
            self.homes.clear();
            return false;
        }
        let Some(path) = path() else { return false };
        let home = of(&path);
        if is_looked_for(&home, &path)
            || self.homes.len() >= MOST_HOMES && !self.homes.contains_key(&home)
        {
            return false;
        }
        let openers = self.homes.entry(home).or_default();
        *openers += 1;
        *openers > half
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_crowd_each_home_has_its_part() {
        let (loud, mut crowd) = (Loud::default(), Crowd::default());
        loud.limit(10);
        let mut is_too_large =
            |waiting, path: &str| crowd.is_too_large(&loud, waiting, || Some(path.into()));
        assert!((0..100).all(|_| !is_too_large(5, "/home/ann/.ssh/a")));
        assert!((0..5).all(|_| !is_too_large(6, "/home/ann/.ssh/a")));
        assert!(is_too_large(6, "/home/ann/.ssh/deep/a"));
        assert!(
            !is_too_large(6, "/home/ann/.ssh/id_rsa"),
            "it is looked for"
        );
        assert!(!is_too_large(6, "/home/bob/.ssh/a"));
        assert!(is_too_large(6, "/home/ann/.ssh/b"));
        assert!(
            !is_too_large(5, "/home/ann/.ssh/a"),
            "nobody waits for long"
        );
        assert!(!is_too_large(6, "/home/ann/.ssh/a"));
    }

    #[test]
    fn only_files_of_loud_homes_are_let_go_and_never_those_that_are_looked_for() {
        let loud = Loud::default();
        let is_in = |path: &str| loud.is_in(|| Some(path.into()));
        assert!(!loud.is_in(|| panic!("nobody is loud: it is not asked for")));
        loud.set(vec![Path::new("/home/ann").into()]);
        assert!(is_in("/home/ann/.ssh/a"));
        assert!(is_in("/home/ann/.ssh/deep/authorized_keys"));
        assert!(!is_in("/home/ann/.ssh/authorized_keys"));
        assert!(!is_in("/home/ann/.ssh/id_rsa.pub"));
        assert!(!is_in("/home/anna/.ssh/a"));
        assert!(!loud.is_in(|| None));
        loud.set(Vec::new());
        assert!(!is_in("/home/ann/.ssh/a"));
    }
}
