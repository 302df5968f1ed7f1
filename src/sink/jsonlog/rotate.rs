//! Rotation of the alert log by size and by age, and the names of rotated logs.
//!
//! `log` becomes `log.1`, that `log.2`, and so on, as logrotate(8) numbers them;
//! from the second on they are compressed ([`super::archive`]), so that whoever
//! follows the newest has it as it was.
//!
//! Owns the names and the order of renaming. Must not open or write a log. A
//! crash at any moment loses nothing: files move from the highest number down,
//! each into a name that is free, so that all it leaves is a number without a
//! file, and the next rotation moves only what lies below that. No rename
//! replaces a file, for logrotate may be at work here too.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::archive::Archive;
use super::is_absence;

/// Rotated logs have numbers up to here.
pub(crate) const LAST_NUMBER: u32 = 256;

/// After a rotation that failed the next is tried so much later.
const TRY_AGAIN: Duration = Duration::from_secs(60);

/// When the log is rotated, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Before it grows beyond so many bytes.
    pub max_size: Option<u64>,
    /// When its first line is older.
    pub max_age: Option<Duration>,
    /// At most so many rotated files stay; at least 1.
    pub keep: u32,
    /// Whether all but the newest are compressed.
    pub compress: bool,
}

impl Rotation {
    /// Somebody else rotates the log.
    pub const OFF: Self = Self {
        max_size: None,
        max_age: None,
        keep: 1,
        compress: false,
    };

    fn is_on(&self) -> bool {
        self.max_size.is_some() || self.max_age.is_some()
    }
}

/// `log.N`, or `log.N.gz`.
pub(crate) fn rotated(log: &Path, number: u32, compressed: bool) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(format!(".{number}{}", if compressed { ".gz" } else { "" }));
    name.into()
}

/// Rotates one log.
#[derive(Debug)]
pub(super) struct Rotator {
    log: PathBuf,
    rotation: Rotation,
    archive: Archive,
    /// After a failure, when to try again.
    not_before: Option<Instant>,
}

impl Rotator {
    /// Resumes compressing where a crash interrupted it.
    pub(super) fn new(log: &Path, rotation: &Rotation) -> Self {
        let rotator = Self {
            log: log.to_owned(),
            rotation: rotation.clone(),
            archive: Archive::new(log),
            not_before: None,
        };
        // Only there: plain files may be plain by the wish of logrotate's user.
        if rotator.archive.was_interrupted() {
            rotator.compress();
        }
        rotator
    }

    /// Whether the age of a log's first line matters.
    pub(super) fn asks_for_age(&self) -> bool {
        self.rotation.max_age.is_some()
    }

    /// Whether a log of `len` bytes, whose first line is of `since`, is to be
    /// rotated before it takes `need` more.
    pub(super) fn is_due(&self, len: u64, need: u64, since: Option<SystemTime>) -> bool {
        if len == 0 || self.not_before.is_some_and(|at| Instant::now() < at) {
            return false;
        }
        let too_large = self.rotation.max_size.is_some_and(|max| len + need > max);
        let too_old = || {
            let max = self.rotation.max_age?;
            // A clock that was set back makes no log old.
            let age = SystemTime::now().duration_since(since?).ok()?;
            Some(age >= max)
        };
        too_large || too_old().unwrap_or(false)
    }

    /// Moves the log to `.1`, and what stands there out of the way. On error
    /// the log is where it was, and it is not due for a while.
    pub(super) fn rotate(&mut self) -> io::Result<()> {
        let result = self.shift();
        self.not_before = result.is_err().then(|| Instant::now() + TRY_AGAIN);
        result
    }

    fn shift(&self) -> io::Result<()> {
        let _names = self.archive.lock();
        let free = (1..=LAST_NUMBER).find(|number| !self.is_taken(*number));
        let mut free = free.unwrap_or(LAST_NUMBER + 1);
        // The oldest goes when there are enough; a second one where there are
        // more, so that a smaller `keep` comes about in time.
        for _ in 0..2 {
            if free > self.rotation.keep {
                self.remove(free - 1)?;
                free -= 1;
            }
        }
        for number in (1..free).rev() {
            for compressed in [false, true] {
                let old = rotated(&self.log, number, compressed);
                let new = rotated(&self.log, number + 1, compressed);
                match rename(&old, &new) {
                    Err(error) if is_absence(&error) => {}
                    other => other?,
                }
            }
        }
        rename(&self.log, &rotated(&self.log, 1, false))
    }

    fn is_taken(&self, number: u32) -> bool {
        [false, true]
            .iter()
            .any(|gz| fs::symlink_metadata(rotated(&self.log, number, *gz)).is_ok())
    }

    fn remove(&self, number: u32) -> io::Result<()> {
        for compressed in [false, true] {
            match fs::remove_file(rotated(&self.log, number, compressed)) {
                Err(error) if is_absence(&error) => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Compresses in the background what is to be.
    pub(super) fn compress(&self) {
        if self.rotation.is_on() && self.rotation.compress {
            self.archive.wake();
        }
    }

    /// What went wrong in the background since the last call.
    pub(super) fn notes(&self) -> Vec<String> {
        self.archive.notes()
    }

    #[cfg(test)]
    pub(super) fn wait_until_compressed(&self) {
        self.archive.wait();
    }
}

/// Renames where nothing is; rename(2) alone would replace it.
pub(super) fn rename(old: &Path, new: &Path) -> io::Result<()> {
    match renameat2(AT_FDCWD, old, AT_FDCWD, new, RenameFlags::RENAME_NOREPLACE) {
        // File systems that do not know the flag.
        Err(Errno::EINVAL | Errno::ENOSYS) => match fs::symlink_metadata(new) {
            Err(error) if is_absence(&error) => fs::rename(old, new),
            Err(error) => Err(error),
            Ok(_) => Err(Errno::EEXIST.into()),
        },
        other => Ok(other?),
    }
}
