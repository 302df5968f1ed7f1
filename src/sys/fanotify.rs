//! fanotify groups and their records (fanotify(7), include/uapi/linux/fanotify.h).
//!
//! A notification group tells of directory entries with file handles and
//! pidfds; a permission group holds the opener until it is answered. The two
//! cannot be one group: handles need `FAN_CLASS_NOTIF`, holds `FAN_CLASS_CONTENT`.
//! There is no order between the records of two groups.

mod record;

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicU8, Ordering};

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::fanotify::{EventFFlags, Fanotify, InitFlags, MarkFlags, MaskFlags};

pub use self::record::{Entry, Malformed, Record, count_records};
use self::record::{METADATA_LENGTH, own, parse};

/// The bits of a record's or a mark's mask that we use. A record's mask is a
/// set: one record can carry several.
pub mod mask {
    /// A file was opened.
    pub const OPEN: u64 = libc::FAN_OPEN;
    /// A file was opened for execution.
    pub const OPEN_EXEC: u64 = libc::FAN_OPEN_EXEC;
    /// Content was changed.
    pub const MODIFY: u64 = libc::FAN_MODIFY;
    /// A descriptor open for writing was closed.
    pub const CLOSE_WRITE: u64 = libc::FAN_CLOSE_WRITE;
    /// A name was made in the directory.
    pub const CREATE: u64 = libc::FAN_CREATE;
    /// A name went from the directory.
    pub const DELETE: u64 = libc::FAN_DELETE;
    /// A name was moved away (before Linux 5.17).
    pub const MOVED_FROM: u64 = libc::FAN_MOVED_FROM;
    /// A name was moved in (before Linux 5.17).
    pub const MOVED_TO: u64 = libc::FAN_MOVED_TO;
    /// A name was moved: both ends in one record.
    pub const RENAME: u64 = libc::FAN_RENAME;
    /// The marked object itself was deleted.
    pub const DELETE_SELF: u64 = libc::FAN_DELETE_SELF;
    /// The marked object itself was moved.
    pub const MOVE_SELF: u64 = libc::FAN_MOVE_SELF;
    /// The object is a directory; in a mark, directories are reported too.
    pub const ONDIR: u64 = libc::FAN_ONDIR;
    /// Report what happens to a marked directory's children.
    pub const EVENT_ON_CHILD: u64 = libc::FAN_EVENT_ON_CHILD;
    /// Hold an open until it is answered.
    pub const OPEN_PERM: u64 = libc::FAN_OPEN_PERM;
    /// Hold an open for execution until it is answered.
    pub const OPEN_EXEC_PERM: u64 = libc::FAN_OPEN_EXEC_PERM;
    /// The queue overflowed: records were lost.
    pub const OVERFLOW: u64 = libc::FAN_Q_OVERFLOW;
}

/// What the notification group of this kernel can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Records carry a pidfd (Linux 5.15).
    pub pidfd: bool,
    /// Records of directory entries carry the target's identity (Linux 5.17).
    pub target: bool,
}

/// A group that tells what happened, after it happened.
#[derive(Debug)]
pub struct NotificationGroup {
    group: Fanotify,
    features: Features,
}

impl NotificationGroup {
    /// Makes one with all that this kernel offers of it; what it offers is
    /// found by trying, not by the kernel's version.
    ///
    /// # Errors
    /// The errno of `fanotify_init(2)`: `EPERM` without `CAP_SYS_ADMIN`,
    /// `ENOSYS` without fanotify, `EINVAL` before Linux 5.9, `EMFILE` beyond
    /// the limit of groups.
    pub fn new() -> io::Result<Self> {
        let tries = [(true, true), (true, false), (false, true), (false, false)];
        let mut last = io::Error::from_raw_os_error(libc::EINVAL);
        for (target, pidfd) in tries {
            let report = if target {
                libc::FAN_REPORT_DFID_NAME_TARGET
            } else {
                libc::FAN_REPORT_DFID_NAME | libc::FAN_REPORT_FID
            };
            let flags = libc::FAN_CLASS_NOTIF
                | libc::FAN_CLOEXEC
                | libc::FAN_NONBLOCK
                | libc::FAN_UNLIMITED_QUEUE
                | libc::FAN_UNLIMITED_MARKS
                | report
                | if pidfd { libc::FAN_REPORT_PIDFD } else { 0 };
            match init(flags) {
                Ok(group) => {
                    return Ok(Self {
                        group,
                        features: Features { pidfd, target },
                    });
                }
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// What its records carry.
    #[must_use]
    pub fn features(&self) -> Features {
        self.features
    }

    /// Marks the directory `dir` (an `O_PATH` descriptor will do).
    ///
    /// # Errors
    /// The errno of `fanotify_mark(2)`: `ENOSPC` beyond the limit of marks,
    /// `EXDEV`, `EOPNOTSUPP` or `ENODEV` where the file system has no handles.
    pub fn mark_directory(&self, dir: BorrowedFd<'_>, mask: u64) -> io::Result<()> {
        mark_directory(&self.group, MarkFlags::FAN_MARK_ADD, dir, mask)
    }

    /// Takes the mark off the directory `dir`.
    ///
    /// # Errors
    /// The errno of `fanotify_mark(2)`: `ENOENT` when there is none.
    pub fn unmark_directory(&self, dir: BorrowedFd<'_>, mask: u64) -> io::Result<()> {
        mark_directory(&self.group, MarkFlags::FAN_MARK_REMOVE, dir, mask)
    }

    /// Marks the file `name` in `dir`, whatever it is opened by; a symbolic link is
    /// not followed.
    ///
    /// # Errors
    /// As [`NotificationGroup::mark_directory`].
    pub fn mark_file(&self, dir: BorrowedFd<'_>, name: &OsStr, mask: u64) -> io::Result<()> {
        let flags = MarkFlags::FAN_MARK_ADD | MarkFlags::FAN_MARK_DONT_FOLLOW;
        mark(&self.group, flags, mask, dir, name)
    }

    /// Takes the mark off the file that is open as a place (`O_PATH`).
    ///
    /// # Errors
    /// As [`NotificationGroup::unmark_directory`].
    pub fn unmark_place(&self, file: BorrowedFd<'_>, mask: u64) -> io::Result<()> {
        unmark_place(&self.group, MarkFlags::empty(), mask, file)
    }

    /// Marks the whole file system that `dir` lies on.
    ///
    /// # Errors
    /// As [`NotificationGroup::mark_directory`].
    pub fn mark_file_system(&self, dir: BorrowedFd<'_>, mask: u64) -> io::Result<()> {
        let flags = MarkFlags::FAN_MARK_ADD | MarkFlags::FAN_MARK_FILESYSTEM;
        mark(&self.group, flags, mask, dir, OsStr::new("."))
    }

    /// Takes the mark off the file system that `dir` lies on.
    ///
    /// # Errors
    /// As [`NotificationGroup::unmark_directory`].
    pub fn unmark_file_system(&self, dir: BorrowedFd<'_>, mask: u64) -> io::Result<()> {
        let flags = MarkFlags::FAN_MARK_REMOVE | MarkFlags::FAN_MARK_FILESYSTEM;
        mark(&self.group, flags, mask, dir, OsStr::new("."))
    }

    /// Takes the marks off all file systems, whether they can be reached or not; those of
    /// directories and files stay. Takes time in proportion to these.
    ///
    /// # Errors
    /// The errno of `fanotify_mark(2)`.
    pub fn unmark_all_file_systems(&self) -> io::Result<()> {
        let flags = MarkFlags::FAN_MARK_FLUSH | MarkFlags::FAN_MARK_FILESYSTEM;
        // No place is looked at.
        mark(&self.group, flags, 0, self.group.as_fd(), OsStr::new("."))
    }

    /// How many records wait in the queue: for each, `FIONREAD` counts the bytes of
    /// its fixed part (`fanotify_ioctl` in `fs/notify/fanotify/fanotify_user.c`). Takes time
    /// in proportion.
    ///
    /// # Errors
    /// The errno of ioctl(2).
    pub fn waiting(&self) -> io::Result<u64> {
        Ok(rustix::io::ioctl_fionread(&self.group)? / METADATA_LENGTH as u64)
    }

    /// Reads what is queued, as much as fits into `buffer`, and hands each
    /// record to `take`. Returns how many; 0 means the queue was empty.
    ///
    /// # Errors
    /// The errno of read(2), or `InvalidData` for a record that cannot be read.
    pub fn read(&self, buffer: &mut [u8], take: impl FnMut(Record)) -> io::Result<usize> {
        read(self.group.as_fd(), buffer, take)
    }
}

impl AsFd for NotificationGroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.group.as_fd()
    }
}

/// A group that holds openers until they are answered. Closing it lets all of
/// them go on (fanotify(7)).
#[derive(Debug)]
pub struct PermissionGroup {
    group: Fanotify,
    state: AtomicU8,
    /// `/dev/null`, to close the group when there is no descriptor left.
    null: File,
}

impl PermissionGroup {
    /// Makes one that reports thread ids (`FAN_REPORT_TID`).
    ///
    /// # Errors
    /// The errno of `fanotify_init(2)`; `EPERM` without `CAP_SYS_ADMIN`.
    pub fn new() -> io::Result<Self> {
        Self::made(init(Self::FLAGS)?)
    }

    /// The same, to be used together with `other`. Its descriptor has a higher number:
    /// whoever waits in this group keeps the other from being released as well, where
    /// both have a mark (`fsnotify_prepare_user_wait`), and when the
    /// process is killed the kernel releases higher numbers first (`kernel/task_work.c`).
    /// The other way round it would wait for them for ever, and they for this one.
    ///
    /// # Errors
    /// As [`PermissionGroup::new`], and that of `fcntl(2)`.
    pub fn above(other: &NotificationGroup) -> io::Result<Self> {
        let mut group = init(Self::FLAGS)?;
        let least = other.as_fd().as_raw_fd() + 1;
        if group.as_fd().as_raw_fd() < least {
            let moved = fcntl(&group, FcntlArg::F_DUPFD_CLOEXEC(least))?;
            // SAFETY: the descriptor is new, and nobody else's.
            group = unsafe { Fanotify::from_raw_fd(moved) };
        }
        Self::made(group)
    }

    fn made(group: Fanotify) -> io::Result<Self> {
        Ok(Self {
            group,
            state: AtomicU8::new(Self::OPEN),
            null: File::open("/dev/null")?,
        })
    }

    const FLAGS: u32 = libc::FAN_CLASS_CONTENT
        | libc::FAN_CLOEXEC
        | libc::FAN_NONBLOCK
        | libc::FAN_UNLIMITED_QUEUE
        | libc::FAN_UNLIMITED_MARKS
        | libc::FAN_REPORT_TID;

    /// What it is: closed, opened again but not answered yet, or open.
    const CLOSED: u8 = 0;
    const UNANSWERED: u8 = 1;
    const OPEN: u8 = 2;

    /// Whether it has not been closed: openers can be held.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state.load(Ordering::Acquire) == Self::OPEN
    }

    /// Opens a closed group again, without its marks, for all who refer to it. It is not
    /// said to be open before [`PermissionGroup::answered`]: nobody shall be held whom nobody
    /// answers yet.
    ///
    /// An answer to a record of the former group finds nobody waiting: the
    /// record's descriptor is still open, so no new record has its number.
    ///
    /// # Errors
    /// As [`PermissionGroup::new`].
    pub fn reopen(&self) -> io::Result<()> {
        let new = init(Self::FLAGS)?;
        self.state.store(Self::UNANSWERED, Ordering::Release);
        self.replace(new.as_fd())
    }

    /// Somebody answers from now on. False if it has been closed since it was opened again.
    #[must_use]
    pub fn answered(&self) -> bool {
        let (from, to) = (Self::UNANSWERED, Self::OPEN);
        let set = self
            .state
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed);
        set.is_ok()
    }

    /// Marks the directory `dir`.
    ///
    /// # Errors
    /// As [`NotificationGroup::mark_directory`]; `EINVAL` on a kernel without
    /// `CONFIG_FANOTIFY_ACCESS_PERMISSIONS`.
    pub fn mark_directory(&self, dir: BorrowedFd<'_>, mask: u64) -> io::Result<()> {
        mark_directory(&self.group, MarkFlags::FAN_MARK_ADD, dir, mask)
    }

    /// Takes the mark off the directory `dir`.
    ///
    /// # Errors
    /// As [`NotificationGroup::unmark_directory`].
    pub fn unmark_directory(&self, dir: BorrowedFd<'_>, mask: u64) -> io::Result<()> {
        mark_directory(&self.group, MarkFlags::FAN_MARK_REMOVE, dir, mask)
    }

    /// Marks the single object `fd` (not `O_PATH`).
    ///
    /// # Errors
    /// As [`NotificationGroup::mark_directory`].
    pub fn mark_object(&self, fd: BorrowedFd<'_>, mask: u64) -> io::Result<()> {
        self.group
            .mark::<_, OsStr>(
                MarkFlags::FAN_MARK_ADD,
                MaskFlags::from_bits_retain(mask),
                fd,
                None,
            )
            .map_err(io::Error::from)
    }

    /// Takes the mark off the object `fd`.
    ///
    /// # Errors
    /// As [`NotificationGroup::unmark_directory`].
    pub fn unmark_object(&self, fd: BorrowedFd<'_>, mask: u64) -> io::Result<()> {
        self.group
            .mark::<_, OsStr>(
                MarkFlags::FAN_MARK_REMOVE,
                MaskFlags::from_bits_retain(mask),
                fd,
                None,
            )
            .map_err(io::Error::from)
    }

    /// Never holds opens of the object `name` in `dir` again, whatever its
    /// content becomes; a symbolic link is not followed.
    ///
    /// # Errors
    /// As [`NotificationGroup::mark_directory`].
    pub fn ignore(&self, dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
        let flags = MarkFlags::FAN_MARK_ADD | MarkFlags::FAN_MARK_DONT_FOLLOW;
        ignoring(|how| mark(&self.group, flags | how, mask::OPEN_PERM, dir, name))
    }

    /// Holds opens again of the file that is open as a place (`O_PATH`).
    ///
    /// # Errors
    /// As [`NotificationGroup::unmark_directory`].
    pub fn ignore_no_longer(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        ignoring(|how| unmark_place(&self.group, how, mask::OPEN_PERM, file))
    }

    /// Closes the group, whoever else refers to it: every opener that waits
    /// goes on. The descriptor's number stays taken, by `/dev/null`.
    ///
    /// # Errors
    /// The errno of dup3(2).
    pub fn close(&self) -> io::Result<()> {
        self.state.store(Self::CLOSED, Ordering::Release);
        self.replace(self.null.as_fd())
    }

    fn replace(&self, with: BorrowedFd<'_>) -> io::Result<()> {
        // SAFETY: dup3(2) replaces what our descriptor refers to in one step;
        // the number stays valid and owned by `self.group`.
        let result = unsafe {
            libc::dup3(
                with.as_raw_fd(),
                self.group.as_fd().as_raw_fd(),
                libc::O_CLOEXEC,
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Reads what is queued, as [`NotificationGroup::read`]. Each record with
    /// an open must be answered.
    ///
    /// # Errors
    /// As [`NotificationGroup::read`]; of one record alone if [`refused_one`] says so.
    pub fn read(&self, buffer: &mut [u8], take: impl FnMut(Record)) -> io::Result<usize> {
        read(self.group.as_fd(), buffer, take)
    }

    /// Lets the opener whose record carried `fd` go on.
    ///
    /// # Errors
    /// `ENOENT` when nobody waits for this answer any more.
    pub fn allow(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.allow_raw(fd.as_raw_fd())
    }

    /// As [`PermissionGroup::allow`], by the number that the record carried;
    /// the descriptor itself is not used.
    ///
    /// # Errors
    /// `ENOENT` when nobody waits for this answer any more.
    pub fn allow_raw(&self, fd: i32) -> io::Result<()> {
        let mut response = [0u8; 8];
        response[..4].copy_from_slice(&fd.to_ne_bytes());
        response[4..].copy_from_slice(&libc::FAN_ALLOW.to_ne_bytes());
        nix::unistd::write(self.group.as_fd(), &response)?;
        Ok(())
    }
}

impl AsFd for PermissionGroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.group.as_fd()
    }
}

/// The kernel opens the file of a permission record while that is read. Non-blocking: a
/// lease (`F_SETLEASE` in fcntl(2)) would be waited for, up to `fs.lease-break-time`, and
/// on kernels that hold the openers of FIFOs a writer. A notification group opens none.
fn init(flags: u32) -> io::Result<Fanotify> {
    Fanotify::init(
        InitFlags::from_bits_retain(flags),
        EventFFlags::O_RDONLY
            | EventFFlags::O_LARGEFILE
            | EventFFlags::O_CLOEXEC
            | EventFFlags::O_NONBLOCK,
    )
    .map_err(io::Error::from)
}

/// Whether a reading failed with `error` because the kernel could not open the file of one
/// record, whose opener it has refused (`copy_event_to_user` in
/// `fs/notify/fanotify/fanotify_user.c`): the next can be read. `EAGAIN` is not told from an
/// empty queue; that it is not empty shows by poll(2). Where there are no descriptors or
/// there is no memory, the next would be refused as well.
#[must_use]
pub fn refused_one(error: &io::Error) -> bool {
    const OF_ALL: [i32; 6] = [
        libc::EBADF,
        libc::EFAULT,
        libc::EINVAL,
        libc::EMFILE,
        libc::ENFILE,
        libc::ENOMEM,
    ];
    let errno = error.raw_os_error();
    errno.is_some_and(|errno| !OF_ALL.contains(&errno))
}

/// Does `act` with the flags of an ignore mark that this kernel knows.
fn ignoring(act: impl Fn(MarkFlags) -> io::Result<()>) -> io::Result<()> {
    /// `FAN_MARK_IGNORE_SURV` (Linux 6.0) and its elder form.
    const IGNORE: [u32; 2] = [
        libc::FAN_MARK_IGNORE | libc::FAN_MARK_IGNORED_SURV_MODIFY,
        libc::FAN_MARK_IGNORED_MASK | libc::FAN_MARK_IGNORED_SURV_MODIFY,
    ];
    let mut last = io::Error::from_raw_os_error(libc::EINVAL);
    for flags in IGNORE {
        match act(MarkFlags::from_bits_retain(flags)) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => last = error,
            other => return other,
        }
    }
    Err(last)
}

fn unmark_place(
    group: &Fanotify,
    flags: MarkFlags,
    mask: u64,
    file: BorrowedFd<'_>,
) -> io::Result<()> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let flags = flags | MarkFlags::FAN_MARK_REMOVE;
    mark(group, flags, mask, file, OsStr::new(&path))
}

fn mark_directory(
    group: &Fanotify,
    flags: MarkFlags,
    dir: BorrowedFd<'_>,
    mask: u64,
) -> io::Result<()> {
    // "." and not a null path, which an O_PATH descriptor does not allow.
    let flags = flags | MarkFlags::FAN_MARK_ONLYDIR;
    mark(group, flags, mask, dir, OsStr::new("."))
}

fn mark(
    group: &Fanotify,
    flags: MarkFlags,
    mask: u64,
    dir: BorrowedFd<'_>,
    name: &OsStr,
) -> io::Result<()> {
    group
        .mark(
            flags,
            MaskFlags::from_bits_retain(mask),
            dir,
            Some(OsStr::from_bytes(name.as_bytes())),
        )
        .map_err(io::Error::from)
}

fn read(
    group: BorrowedFd<'_>,
    buffer: &mut [u8],
    mut take: impl FnMut(Record),
) -> io::Result<usize> {
    let length = match nix::unistd::read(group, buffer) {
        Ok(length) => length,
        Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => return Ok(0),
        Err(error) => return Err(error.into()),
    };
    parse(&buffer[..length], |record| take(own(record)))
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_file_cannot_be_opened_for_is_told_from_what_concerns_all() {
        // A security module, a file without its key, a device, a disk that errs.
        for errno in [
            libc::EACCES,
            libc::EPERM,
            libc::ENOKEY,
            libc::ENXIO,
            libc::EIO,
        ] {
            assert!(refused_one(&io::Error::from_raw_os_error(errno)), "{errno}");
        }
        for errno in [libc::EMFILE, libc::ENOMEM, libc::EBADF, libc::EINVAL] {
            assert!(
                !refused_one(&io::Error::from_raw_os_error(errno)),
                "{errno}"
            );
        }
        assert!(
            !refused_one(&io::ErrorKind::InvalidData.into()),
            "malformed"
        );
    }
}
