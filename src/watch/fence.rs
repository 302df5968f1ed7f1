//! A mark in the stream of records that says "before" and "after".
//!
//! A permission record and the notification records have no order between
//! them. While a process is held at exec, the answering thread makes a directory with
//! a new number in a private, marked directory; the kernel queues that record behind all
//! that the process did before the exec, and in front of all it does after it.
//!
//! Owns the private directory. Fails with the error of mkdir(2); without a
//! fence an exec record is never certain.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// The private directory.
#[derive(Debug)]
pub struct Fence {
    path: PathBuf,
    dir: OwnedFd,
    next: AtomicU64,
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
        })
    }

    /// Raises the next fence and returns its number.
    ///
    /// # Errors
    /// The errno of mkdirat(2).
    pub fn raise(&self) -> io::Result<u64> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        mkdirat(&self.dir, number.to_string().as_str(), Mode::S_IRWXU)?;
        Ok(number)
    }

    /// Takes away a fence that has been passed.
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
