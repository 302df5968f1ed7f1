//! Homes in which a flood goes on, for the answering thread: whoever opens a file
//! there goes on without being identified, for nobody is told of the file one by
//! one, and to be identified takes a processor from all others. Names that sshd and
//! ssh look for are excepted.
//!
//! Owns the list alone. Must not own when a flood begins or ends.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::home::{Home, is_looked_for};

/// The list; shared by the thread that watches and the one that answers.
#[derive(Debug, Default)]
pub struct Loud {
    homes: Mutex<Vec<Home>>,
    /// There are any: most of the time nobody looks for the path of what is opened.
    any: AtomicBool,
}

impl Loud {
    /// These are loud now.
    pub fn set(&self, loud: Vec<Home>) {
        self.any.store(!loud.is_empty(), Ordering::Release);
        if let Ok(mut homes) = self.homes.lock() {
            *homes = loud;
        }
    }

    /// Whether the opener of `path` may go on unidentified. Waits for no lock.
    pub fn is_in(&self, path: impl FnOnce() -> Option<std::path::PathBuf>) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

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
