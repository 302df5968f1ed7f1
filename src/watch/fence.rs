//! A mark in the stream of records that says "before" and "after".
//!
//! A permission record and the notification records have no order between
//! them. While a process is held at exec, the answering thread raises a fence with
//! a new number: it stands behind all that the process did before the exec, and in front
//! of all it does after it.
//!
//! While the watching thread sleeps, a fence is a place in the queue: as many
//! records have been read, and as many wait (`FIONREAD`). That is not known while it
//! reads, and takes long while many wait: then a directory is made in a private, marked
//! one, and its record is the fence.
//!
//! Owns the private directory, and the count of what was read. Fails with the error of
//! mkdir(2); without a fence an exec record is never certain.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// So many fences stand as places at once; further ones are directories.
const MAX_PLACES: usize = 1024;

/// The private directory, and the places in the queue.
#[derive(Debug)]
pub struct Fence {
    path: PathBuf,
    dir: OwnedFd,
    next: AtomicU64,
    /// Whether the watching thread sleeps, so that hardly anything waits.
    at_rest: AtomicBool,
    queue: Mutex<Queue>,
}

/// What is known of the queue while nobody reads it.
#[derive(Debug, Default)]
struct Queue {
    /// Records that were read.
    read: u64,
    /// Numbers of fences, and how many records are in front of each.
    places: VecDeque<(u64, u64)>,
}

impl Fence {
    /// Makes the directory `path` (mode 0700); one that a killed daemon left is
    /// used again.
    ///
    /// # Errors
    /// The errno of mkdir(2) or open(2).
    pub fn new(path: &Path) -> io::Result<Self> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)?;
        for left in std::fs::read_dir(path)? {
            // Empty directories of ours; whatever else stands there stays.
            let _ = std::fs::remove_dir(left?.path());
        }
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok(Self {
            dir: open(path, flags, Mode::empty())?,
            path: path.to_owned(),
            next: AtomicU64::new(1),
            at_rest: AtomicBool::new(false),
            queue: Mutex::default(),
        })
    }

    /// Raises the next fence and returns its number. `waiting` counts the records that
    /// wait in the queue.
    ///
    /// # Errors
    /// The errno of mkdirat(2).
    pub fn raise(&self, waiting: impl FnOnce() -> io::Result<u64>) -> io::Result<u64> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if self.at_rest.load(Ordering::Acquire)
            // Whoever is held does not wait for a reading.
            && let Ok(mut queue) = self.queue.try_lock()
            && queue.places.len() < MAX_PLACES
            && let Ok(waiting) = waiting()
        {
            let place = queue.read + waiting;
            queue.places.push_back((number, place));
            return Ok(number);
        }
        mkdirat(&self.dir, number.to_string().as_str(), Mode::S_IRWXU)?;
        Ok(number)
    }

    /// The watching thread goes to sleep, or has been woken.
    pub fn rests(&self, at_rest: bool) {
        self.at_rest.store(at_rest, Ordering::Release);
    }

    /// Reads the queue by `read`, which returns how many records it has taken.
    /// Returns the fences that are passed with them, each with the number of these
    /// records that are in front of it; they stand no more.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn reading(
        &self,
        read: impl FnOnce() -> io::Result<usize>,
    ) -> io::Result<VecDeque<(u64, usize)>> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let first = queue.read;
        queue.read += read()? as u64;
        let end = queue.read;
        let passed = queue.places.partition_point(|(_, place)| *place <= end);
        let passed = queue.places.drain(..passed);
        // No more than were read now.
        let in_front = |place: u64| usize::try_from(place - first).unwrap_or(usize::MAX);
        Ok(passed
            .map(|(number, place)| (number, in_front(place)))
            .collect())
    }

    /// Takes away the directory of a fence that has been passed.
    pub fn clear(&self, number: u64) {
        // One that cannot be removed is removed at the next start.
        let _ = unlinkat(
            &self.dir,
            number.to_string().as_str(),
            UnlinkatFlags::RemoveDir,
        );
    }

    /// The number that a name in the directory stands for.
    #[must_use]
    pub fn number(name: &OsStr) -> Option<u64> {
        name.to_str()?.parse().ok()
    }
}

impl AsFd for Fence {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A fence in a directory of its own, and a queue in which `waiting` records wait.
    fn fence() -> (Fence, Cell<u64>, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let fence = Fence::new(&dir.path().join("fence")).unwrap();
        (fence, Cell::new(0), dir)
    }

    #[test]
    fn stands_where_it_was_raised() {
        let (fence, waiting, _dir) = fence();
        let raise = || fence.raise(|| Ok(waiting.get())).unwrap();
        let read = |count| fence.reading(|| Ok(count)).unwrap();
        assert_eq!(read(5), []);
        fence.rests(true);
        waiting.set(2);
        let first = raise();
        waiting.set(3);
        let second = raise();
        assert_eq!(read(1), []);
        // The one behind the first record of three, the other behind the second.
        assert_eq!(read(3), [(first, 1), (second, 2)]);
        assert_eq!(read(9), []);
        waiting.set(0);
        let third = raise();
        assert_eq!(read(0), [(third, 0)]);
    }

    #[test]
    fn is_a_directory_while_the_queue_is_read_or_cannot_be_counted() {
        let (fence, waiting, _dir) = fence();
        let directory = |number: u64| fence.path.join(number.to_string());
        let awake = fence.raise(|| Ok(0)).unwrap();
        assert!(directory(awake).is_dir());
        fence.rests(true);
        let counted = fence.raise(|| Ok(waiting.get())).unwrap();
        assert!(!directory(counted).exists());
        let refused = fence.raise(|| Err(io::ErrorKind::Unsupported.into()));
        assert!(directory(refused.unwrap()).is_dir());
        let reading = fence.reading(|| {
            let raised = fence.raise(|| Ok(waiting.get())).unwrap();
            assert!(directory(raised).is_dir());
            fence.clear(raised);
            assert!(!directory(raised).exists());
            Ok(0)
        });
        assert_eq!(reading.unwrap(), [(counted, 0)]);
        fence.rests(false);
        assert!(directory(fence.raise(|| Ok(0)).unwrap()).is_dir());
    }

    #[test]
    fn no_more_places_than_are_kept() {
        let (fence, _, _dir) = fence();
        fence.rests(true);
        for _ in 0..MAX_PLACES {
            fence.raise(|| Ok(0)).unwrap();
        }
        let next = fence.raise(|| Ok(0)).unwrap();
        assert!(fence.path.join(next.to_string()).is_dir());
    }
}
