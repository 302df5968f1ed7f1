//! Identities of files, read so that no file server can make us wait.

use std::ffi::{CStr, CString, OsString};
use std::hash::{Hash, Hasher};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// What is at a name, as far as that is known without asking its file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glance {
    /// The type bits of `st_mode` (`S_IFMT`, inode(7)).
    pub kind: u32,
    /// `st_uid`.
    pub uid: u32,
    /// `st_nlink`.
    pub links: u32,
    /// The mount it lies on (`proc_pid_mountinfo(5)`); `None` before Linux 5.8.
    pub mount: Option<u64>,
    /// The device of its file system, major and minor; on btrfs that of its subvolume.
    pub device: (u32, u32),
    /// If it was asked for ([`look`]).
    pub version: Option<Version>,
}

/// What does not stay the same when a file is written or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// `st_ino`.
    pub inode: u64,
    /// The type bits of `st_mode` (`S_IFMT`, inode(7)).
    pub kind: u32,
    /// `st_size`, in bytes.
    pub size: u64,
    /// `st_mtim`: seconds since the epoch, and nanoseconds.
    pub modified: (i64, u32),
    /// `st_ctim`, in the same way.
    pub changed: (i64, u32),
}

impl Hash for Version {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // In one piece: there are many of them.
        let mut bytes = [0; 44];
        bytes[..8].copy_from_slice(&self.inode.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.kind.to_ne_bytes());
        bytes[12..20].copy_from_slice(&self.size.to_ne_bytes());
        for (at, (seconds, nanoseconds)) in [(20, self.modified), (32, self.changed)] {
            bytes[at..at + 8].copy_from_slice(&seconds.to_ne_bytes());
            bytes[at + 8..at + 12].copy_from_slice(&nanoseconds.to_ne_bytes());
        }
        state.write(&bytes);
    }
}

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
    let buffer = statx(dir, name, 0, libc::STATX_INO | libc::STATX_NLINK)?;
    Ok(FileIdentity {
        device: libc::makedev(buffer.stx_dev_major, buffer.stx_dev_minor),
        inode: buffer.stx_ino,
        links: buffer.stx_nlink,
    })
}

/// Looks at `name` in `dir`, or at `dir` itself if it is empty; a symbolic link
/// is not followed and nothing is mounted. Asks for no attribute, so that no
/// server has to answer: what is told is what the kernel remembers. Of a FUSE
/// file system of another user that is its mount alone.
///
/// # Errors
/// The errno of `statx(2)`.
pub fn glance(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<Glance> {
    // The mount is told unasked; asked for anything, FUSE refuses whom its user
    // does not let in.
    glance_for(dir, name, 0)
}

/// The same with [`Glance::version`], for what is known to lie on a file system
/// without a server.
///
/// # Errors
/// The errno of `statx(2)`.
pub fn look(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<Glance> {
    glance_for(dir, name, VERSION | libc::STATX_NLINK)
}

/// What [`Version`] is made of.
const VERSION: u32 =
    libc::STATX_TYPE | libc::STATX_INO | libc::STATX_SIZE | libc::STATX_MTIME | libc::STATX_CTIME;

fn glance_for(dir: BorrowedFd<'_>, name: &CStr, mask: u32) -> io::Result<Glance> {
    let flags = libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH;
    let buffer = statx(dir, name, flags, mask)?;
    let kind = u32::from(buffer.stx_mode) & libc::S_IFMT;
    let time = |time: libc::statx_timestamp| (time.tv_sec, time.tv_nsec);
    let version = Version {
        inode: buffer.stx_ino,
        kind,
        size: buffer.stx_size,
        modified: time(buffer.stx_mtime),
        changed: time(buffer.stx_ctime),
    };
    let has = |bits| buffer.stx_mask & bits == bits;
    Ok(Glance {
        kind,
        uid: buffer.stx_uid,
        links: buffer.stx_nlink,
        mount: has(libc::STATX_MNT_ID).then_some(buffer.stx_mnt_id),
        device: (buffer.stx_dev_major, buffer.stx_dev_minor),
        version: (mask != 0 && has(VERSION)).then_some(version),
    })
}

fn statx(dir: BorrowedFd<'_>, name: &CStr, flags: i32, mask: u32) -> io::Result<libc::statx> {
    let mut buffer = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the name is NUL-terminated, and the buffer has the size of struct
    // statx, which statx(2) fills.
    let result = unsafe {
        libc::statx(
            dir.as_raw_fd(),
            name.as_ptr(),
            flags | libc::AT_STATX_DONT_SYNC | libc::AT_NO_AUTOMOUNT,
            mask,
            buffer.as_mut_ptr(),
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed is a valid struct statx, and statx(2) succeeded.
    Ok(unsafe { buffer.assume_init() })
}

/// The identity of an open file, `O_PATH` or not, in the way of [`identity_of`].
///
/// # Errors
/// The errno of `statx(2)`.
pub fn opened_identity(file: BorrowedFd<'_>) -> io::Result<FileIdentity> {
    identity_of(nix::fcntl::AT_FDCWD, &link_to(file)?)
}

/// By which path an open file was come to (`proc_pid_fd(5)`).
///
/// # Errors
/// The errno of `readlinkat(2)`.
pub fn opened_path(file: BorrowedFd<'_>) -> io::Result<PathBuf> {
    link_of(nix::fcntl::AT_FDCWD, &link_to(file)?).map(PathBuf::from)
}

fn link_to(file: BorrowedFd<'_>) -> io::Result<CString> {
    Ok(CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?)
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
            let name = CString::new(length.to_string()).unwrap();
            assert_eq!(link(&name).unwrap(), *target);
        }
        let error = link(c"absent").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    }
}
