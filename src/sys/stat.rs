//! Identities of files, read so that no file server can make us wait.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Device, inode and link count of a file (`statx(2)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileIdentity {
    /// `st_dev`.
    pub device: u64,
    /// `st_ino`.
    pub inode: u64,
    /// Number of names; 0 once it is unlinked.
    pub links: u32,
}

/// Reads it for `name` in `dir`, following a (magic) link in the last
/// component. Answers from what the kernel has (`AT_STATX_DONT_SYNC`), so
/// that a network or FUSE server is not asked.
///
/// # Errors
/// The errno of `statx(2)`.
pub fn identity_of(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<FileIdentity> {
    let mut buffer = std::mem::MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the name is NUL-terminated, and the buffer has the size of struct
    // statx, which statx(2) fills.
    let result = unsafe {
        libc::statx(
            dir.as_raw_fd(),
            name.as_ptr(),
            libc::AT_STATX_DONT_SYNC | libc::AT_NO_AUTOMOUNT,
            libc::STATX_INO | libc::STATX_NLINK,
            buffer.as_mut_ptr(),
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed is a valid struct statx, and statx(2) succeeded.
    let buffer = unsafe { buffer.assume_init() };
    Ok(FileIdentity {
        device: libc::makedev(buffer.stx_dev_major, buffer.stx_dev_minor),
        inode: buffer.stx_ino,
        links: buffer.stx_nlink,
    })
}
