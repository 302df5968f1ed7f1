//! Opening what a user may have put there.
//!
//! Owns the flags with which nothing happens but that it is open. Fails with the
//! errno of open(2).

use std::io;
use std::os::fd::OwnedFd;
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
