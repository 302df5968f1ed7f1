//! Identities of files, read so that no file server can make us wait.

use std::ffi::{CStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;

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
    let mut buffer = MaybeUninit::<libc::statx>::zeroed();
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

/// Where the symbolic link `name` in `dir` leads (`readlinkat(2)`), for threads
/// that somebody waits for: allocates no more than the answer.
///
/// # Errors
/// The errno of `readlinkat(2)`; `ENAMETOOLONG` for an answer of `PATH_MAX` bytes
/// or more, which the kernel does not give for a link of `/proc`.
pub fn link_of(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<OsString> {
    const SIZE: usize = libc::PATH_MAX as usize;
    let mut buffer = [0u8; SIZE];
    // SAFETY: the name is NUL-terminated, and the buffer has SIZE bytes for the
    // call to write to.
    let result = unsafe {
        libc::readlinkat(
            dir.as_raw_fd(),
            name.as_ptr(),
            buffer.as_mut_ptr().cast(),
            SIZE,
        )
    };
    let Ok(length) = usize::try_from(result) else {
        return Err(io::Error::last_os_error());
    };
    match buffer.get(..length) {
        Some(target) if length < SIZE => Ok(OsString::from_vec(target.to_vec())),
        _ => Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_link_is_read_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let open = std::fs::File::open(dir.path()).unwrap();
        let link = |name: &CStr| link_of(open.as_fd(), name);
        for length in [1, 255, 4095] {
            let target = "x".repeat(length);
            let path = dir.path().join(length.to_string());
            symlink(&target, &path).unwrap();
            let name = std::ffi::CString::new(length.to_string()).unwrap();
            assert_eq!(link(&name).unwrap(), *target);
        }
        let error = link(c"absent").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    }
}
