//! pidfds: a process that cannot be mistaken for a later one of the same pid.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// A process, referred to by `pidfd_open(2)` or a fanotify record.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl PidFd {
    /// Opens the process (thread-group leader) `pid`.
    ///
    /// # Errors
    /// The errno of `pidfd_open(2)`: `ESRCH` when it is gone, `EINVAL` when
    /// `pid` is a thread.
    pub fn open(pid: i32) -> io::Result<Self> {
        // SAFETY: no pointers are passed; the kernel returns a new descriptor or -1.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = i32::try_from(fd).map_err(io::Error::other)?;
        // SAFETY: `fd` was just returned as a new descriptor that nobody else owns.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Takes a descriptor that is known to be a pidfd.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Another descriptor for the same process.
    ///
    /// # Errors
    /// `EMFILE`.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Whether the process has not exited: a zombie has. A pidfd becomes
    /// readable at exit (`pidfd_open(2)`).
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        matches!(poll(&mut fds, PollTimeout::ZERO), Ok(0))
    }

    /// Who it is, asked in one call (`PIDFD_GET_INFO`, Linux 6.13).
    ///
    /// # Errors
    /// `ENOTTY` on an older kernel, `ESRCH` when it has been reaped.
    pub fn info(&self) -> io::Result<Info> {
        let mut info = RawInfo {
            mask: PIDFD_INFO_PID | PIDFD_INFO_CREDS,
            ..RawInfo::default()
        };
        // SAFETY: the request carries the size of the structure, which is the
        // first published version of struct pidfd_info (uapi/linux/pidfd.h);
        // the kernel writes no more than that.
        let result = unsafe { libc::ioctl(self.as_raw_fd(), PIDFD_GET_INFO, &raw mut info) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        if info.mask & PIDFD_INFO_CREDS == 0 {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        Ok(Info {
            users: [info.ruid, info.euid],
            groups: [info.rgid, info.egid],
        })
    }

    /// A copy of the process's descriptor `number` (`pidfd_getfd(2)`).
    ///
    /// # Errors
    /// `EBADF` when there is none, `EPERM` without the right to trace it.
    pub fn descriptor(&self, number: i32) -> io::Result<OwnedFd> {
        // SAFETY: no pointers are passed; the kernel returns a new descriptor or -1.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, self.as_raw_fd(), number, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = i32::try_from(fd).map_err(io::Error::other)?;
        // SAFETY: `fd` was just returned as a new descriptor that nobody else owns.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// The inode of the pidfd. On pidfs (Linux 6.9) it is unique to the
    /// process for as long as the host runs; before, all pidfds share one.
    #[must_use]
    pub fn inode(&self) -> Option<u64> {
        nix::sys::stat::fstat(&self.0).ok().map(|stat| stat.st_ino)
    }

    /// Whether both refer to one process; `None` where the kernel cannot tell.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> Option<bool> {
        if pidfs() {
            Some(self.inode()? == other.inode()?)
        } else {
            None
        }
    }
}

/// What [`PidFd::info`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// Real and effective user ids.
    pub users: [u32; 2],
    /// Real and effective group ids.
    pub groups: [u32; 2],
}

/// `struct pidfd_info` as first published (`PIDFD_INFO_SIZE_VER0`, 64 bytes).
#[repr(C)]
#[derive(Default)]
struct RawInfo {
    mask: u64,
    cgroup: u64,
    pid: u32,
    process: u32,
    parent: u32,
    ruid: u32,
    rgid: u32,
    euid: u32,
    egid: u32,
    suid: u32,
    sgid: u32,
    fsuid: u32,
    fsgid: u32,
    exit_code: i32,
}

const PIDFD_INFO_PID: u64 = 1;
const PIDFD_INFO_CREDS: u64 = 2;
/// `_IOWR(0xFF, 11, struct pidfd_info)`.
const PIDFD_GET_INFO: libc::c_ulong = (3 << 30) | (64 << 16) | (0xFF << 8) | 0x0B;

/// Whether pidfds lie on pidfs (magic from linux/magic.h).
fn pidfs() -> bool {
    const PID_FS_MAGIC: i64 = 0x5049_4446;
    static PIDFS: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *PIDFS.get_or_init(|| {
        PidFd::open(nix::unistd::getpid().as_raw())
            .and_then(|fd| super::handle::FileSystem::of(&fd))
            .is_ok_and(|fs| fs.magic == PID_FS_MAGIC)
    })
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for PidFd {
    fn as_raw_fd(&self) -> i32 {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_alive_until_it_exits() {
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let fd = PidFd::open(pid).unwrap();
        assert!(fd.is_alive());
        // Where the kernel is too old there is /proc/PID/status.
        if let Ok(info) = fd.info() {
            assert_eq!(info.users[1], nix::unistd::geteuid().as_raw());
            assert_eq!(info.groups[0], nix::unistd::getgid().as_raw());
        }
        let again = PidFd::open(pid).unwrap();
        assert_ne!(fd.is_same(&again), Some(false));
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(!fd.is_alive());
        assert!(PidFd::open(pid).is_err());
    }
}
