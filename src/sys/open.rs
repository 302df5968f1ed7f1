//! Opening what a user may have put there.
//!
//! Owns the flags with which nothing happens but that it is open. Fails with the
//! errno of open(2).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

/// Opens `path` as a place (`O_PATH`), a symbolic link itself: no device is
/// woken, and no FIFO waited for.
///
/// # Errors
/// The errno of open(2).
pub fn open_place(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(open(path, flags, Mode::empty())?)
}

/// Opens `path` for reading, following links, if it is a regular file: a FIFO is
/// refused, not waited for, and no terminal becomes ours.
///
/// # Errors
/// The errno of open(2); [`io::ErrorKind::InvalidInput`] for anything else.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        let refused = "it is not a regular file";
        Err(io::Error::new(io::ErrorKind::InvalidInput, refused))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifo_is_refused_and_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
        for path in [path.as_path(), dir.path(), Path::new("/dev/null")] {
            let refused = open_regular(path).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
        }
        let path = dir.path().join("file");
        std::fs::write(&path, "").unwrap();
        open_regular(&path).unwrap();
    }
}
