//! What is known of a program besides its path, which is anybody's to choose.
//!
//! Owns the types, and the bound on executables that are kept open. Reads
//! nothing of a file: the deciding thread does.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Image;
use super::proc::Entry;
use crate::proctable::Time;
use crate::sys::stat::look;

/// How many executables are kept open at once: far below any limit of
/// descriptors, of which the answering thread must never run out.
const MAX_KEPT: usize = 256;

/// What else is known of a program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProgramFacts {
    /// The executable itself, where its path on this host does not lead to it.
    pub file: Option<Arc<ImageFile>>,
    /// `st_ctim` of the executable while its process was held: nobody can write to it then
    /// (`ETXTBSY`), and later everybody who owns it.
    pub changed: Option<(i64, u32)>,
    /// When it was seen to run, while it was held for certain.
    pub seen: Option<Time>,
    /// When the process began to run what it ran as it acted.
    pub since: Option<Time>,
    /// What the process mapped to be executed besides its image: of a dynamic
    /// loader that was called as a program, the program it runs.
    pub loaded: Option<Image>,
    /// What `/proc/PID/exe` says that it runs, where it has never run that.
    pub claimed: Option<PathBuf>,
    /// SHA-256 of the executable, in hexadecimal digits.
    pub sha256: Option<String>,
    /// It is an installed key tool under another name.
    pub known: Option<KnownAs>,
}

/// Which installed program it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownAs {
    /// Where that is installed (`ssh_keywatch.attribution.known_as`).
    pub path: PathBuf,
    /// By what it was recognised.
    pub by: KnownBy,
}

/// By what a program was recognised (`ssh_keywatch.attribution.known_by`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnownBy {
    /// It is the same file: a hard link, or a mount elsewhere.
    Inode,
    /// It is a copy: same content.
    Content,
    /// A loader has mapped it to be executed.
    Loaded,
    /// The arguments of a loader name it, which they may do falsely.
    Arguments,
}

impl KnownBy {
    /// Its name in documents.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inode => "inode",
            Self::Content => "content",
            Self::Loaded => "loaded",
            Self::Arguments => "arguments",
        }
    }
}

/// Counts the executables that are kept open.
#[derive(Clone, Debug, Default)]
pub struct ImageFiles(Arc<AtomicUsize>);

/// An executable that is kept open (`O_PATH`), whatever becomes of its process.
#[derive(Debug)]
pub struct ImageFile {
    file: OwnedFd,
    /// See [`ProgramFacts::changed`].
    changed: Option<(i64, u32)>,
    kept: ImageFiles,
}

impl ImageFiles {
    /// Keeps the executable of `entry` open.
    ///
    /// # Errors
    /// `ENFILE` where too many are kept already; otherwise the errno of openat(2).
    pub fn keep(&self, entry: &Entry) -> io::Result<Arc<ImageFile>> {
        // Counted first: dropping it takes it off again.
        let kept = self.clone();
        let before = self.0.fetch_add(1, Ordering::Relaxed);
        let file = if before < MAX_KEPT {
            entry.executable()
        } else {
            Err(io::Error::from_raw_os_error(libc::ENFILE))
        };
        match file {
            Ok(file) => {
                let glance = look(file.as_fd(), c"").ok();
                let changed = glance.and_then(|glance| Some(glance.version?.changed));
                Ok(Arc::new(ImageFile {
                    file,
                    changed,
                    kept,
                }))
            }
            Err(error) => {
                self.0.fetch_sub(1, Ordering::Relaxed);
                Err(error)
            }
        }
    }
}

impl ImageFile {
    /// `st_ctim` when it began to be kept.
    #[must_use]
    pub fn changed(&self) -> Option<(i64, u32)> {
        self.changed
    }
}

impl AsFd for ImageFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl PartialEq for ImageFile {
    fn eq(&self, other: &Self) -> bool {
        self.file.as_raw_fd() == other.file.as_raw_fd()
    }
}

impl Eq for ImageFile {}

impl Drop for ImageFile {
    fn drop(&mut self) {
        self.kept.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolve::proc::Proc;

    #[test]
    fn no_more_executables_are_kept_open_than_the_bound() {
        let proc = Proc::open(std::path::Path::new("/proc")).unwrap();
        let own = proc.entry(nix::unistd::getpid().as_raw()).unwrap();
        let files = ImageFiles::default();
        let mut kept: Vec<_> = (0..MAX_KEPT).map(|_| files.keep(&own).unwrap()).collect();
        let error = files.keep(&own).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENFILE));
        kept.pop();
        kept.push(files.keep(&own).unwrap());
        assert!(files.keep(&own).is_err());
    }
}
