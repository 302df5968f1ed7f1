//! fanotify groups and their records (fanotify(7), include/uapi/linux/fanotify.h).
//!
//! A notification group tells of directory entries with file handles and
//! pidfds; a permission group holds the opener until it is answered. The two
//! cannot be one group: handles need `FAN_CLASS_NOTIF`, holds `FAN_CLASS_CONTENT`.
//! There is no order between the records of two groups.
//!
//! Records are parsed here and not by `nix`, whose reader drops the
//! information records and leaks the pidfds in them.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::fanotify::{EventFFlags, Fanotify, InitFlags, MarkFlags, MaskFlags};

use super::{ObjectId, PidFd};

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

/// A directory entry in a record: the directory's identity and the name in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The directory.
    pub directory: ObjectId,
    /// The name; `.` for the directory itself.
    pub name: OsString,
}

/// One record, its descriptors owned.
#[derive(Debug)]
pub struct Record {
    /// What happened: bits of [`mask`].
    pub mask: u64,
    /// Who did it: a process (thread-group) id, or a thread id in a group made
    /// so; 0 when it is outside our pid namespace.
    pub pid: i32,
    /// The opened object, in a permission group.
    pub fd: Option<OwnedFd>,
    /// The process, unless it was gone when the record was read.
    pub pidfd: Option<PidFd>,
    /// The entry the record is about.
    pub entry: Option<Entry>,
    /// The object the entry leads to.
    pub target: Option<ObjectId>,
    /// The former entry of a rename, if its directory is marked.
    pub from: Option<Entry>,
    /// The new entry of a rename, if its directory is marked.
    pub to: Option<Entry>,
}

impl Record {
    /// Whether any of `bits` is set.
    #[must_use]
    pub fn is(&self, bits: u64) -> bool {
        self.mask & bits != 0
    }
}

/// Why bytes could not be read as records: the kernel speaks another version
/// of the protocol, or a length points outside the buffer.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("fanotify gave a record that cannot be read: {0}")]
pub struct Malformed(&'static str);

/// `FAN_EVENT_METADATA_LEN` and the field offsets of `struct fanotify_event_metadata`.
const METADATA_LENGTH: usize = 24;
const METADATA_VERSION: u8 = 3;

const INFO_FID: u8 = 1;
const INFO_DFID_NAME: u8 = 2;
const INFO_DFID: u8 = 3;
const INFO_PIDFD: u8 = 4;
const INFO_OLD_DFID_NAME: u8 = 10;
const INFO_NEW_DFID_NAME: u8 = 12;

/// A record before its descriptors are owned: plain data, so that parsing can
/// be tested on bytes.
#[derive(Debug, PartialEq, Eq)]
struct RawRecord {
    mask: u64,
    pid: i32,
    fd: i32,
    pidfd: i32,
    entry: Option<Entry>,
    target: Option<ObjectId>,
    from: Option<Entry>,
    to: Option<Entry>,
}

fn bytes<const N: usize>(buffer: &[u8], at: usize) -> Result<[u8; N], Malformed> {
    buffer
        .get(at..at + N)
        .and_then(|slice| slice.try_into().ok())
        .ok_or(Malformed("it is cut short"))
}

/// Parses the record at the start of `buffer`; returns it and its length.
fn parse_record(buffer: &[u8]) -> Result<(RawRecord, usize), Malformed> {
    let length = u32::from_ne_bytes(bytes(buffer, 0)?) as usize;
    let version = bytes::<1>(buffer, 4)?[0];
    let metadata_length = usize::from(u16::from_ne_bytes(bytes(buffer, 6)?));
    if version != METADATA_VERSION {
        return Err(Malformed("its version is not 3"));
    }
    if metadata_length < METADATA_LENGTH || length < metadata_length || length > buffer.len() {
        return Err(Malformed("its length is wrong"));
    }
    let mut record = RawRecord {
        mask: u64::from_ne_bytes(bytes(buffer, 8)?),
        fd: i32::from_ne_bytes(bytes(buffer, 16)?),
        pid: i32::from_ne_bytes(bytes(buffer, 20)?),
        pidfd: libc::FAN_NOPIDFD,
        entry: None,
        target: None,
        from: None,
        to: None,
    };
    let mut rest = &buffer[metadata_length..length];
    while !rest.is_empty() {
        let kind = bytes::<1>(rest, 0)?[0];
        let info_length = usize::from(u16::from_ne_bytes(bytes(rest, 2)?));
        if info_length < 4 || info_length > rest.len() {
            return Err(Malformed("the length of its information is wrong"));
        }
        let info = &rest[..info_length];
        match kind {
            INFO_FID => record.target = Some(parse_fid(info)?.0),
            INFO_DFID | INFO_DFID_NAME => record.entry = Some(parse_entry(info)?),
            INFO_OLD_DFID_NAME => record.from = Some(parse_entry(info)?),
            INFO_NEW_DFID_NAME => record.to = Some(parse_entry(info)?),
            INFO_PIDFD => record.pidfd = i32::from_ne_bytes(bytes(info, 4)?),
            // Others, such as FAN_EVENT_INFO_TYPE_ERROR, are not asked for.
            _ => {}
        }
        rest = &rest[info_length..];
    }
    Ok((record, length))
}

/// Parses `struct fanotify_event_info_fid`; returns the identity and what
/// follows the handle.
fn parse_fid(info: &[u8]) -> Result<(ObjectId, &[u8]), Malformed> {
    let fsid = bytes(info, 4)?;
    let handle_length = u32::from_ne_bytes(bytes(info, 12)?) as usize;
    let handle_type = i32::from_ne_bytes(bytes(info, 16)?);
    let end = 20usize
        .checked_add(handle_length)
        .filter(|end| *end <= info.len())
        .ok_or(Malformed("a file handle is cut short"))?;
    let id = ObjectId::from_parts(fsid, handle_type, &info[20..end]);
    Ok((id, &info[end..]))
}

fn parse_entry(info: &[u8]) -> Result<Entry, Malformed> {
    let (directory, rest) = parse_fid(info)?;
    let end = rest
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(rest.len());
    let name = if end == 0 { b"." } else { &rest[..end] };
    Ok(Entry {
        directory,
        name: OsString::from_vec(name.to_vec()),
    })
}

/// Takes over the descriptors of a parsed record.
fn own(raw: RawRecord) -> Record {
    let owned = |fd: i32| {
        // SAFETY: the kernel opened this descriptor for us while it copied
        // the record, and nothing else knows it (fanotify(7)).
        (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
    };
    Record {
        mask: raw.mask,
        pid: raw.pid,
        fd: owned(raw.fd),
        pidfd: owned(raw.pidfd).map(PidFd::from_fd),
        entry: raw.entry,
        target: raw.target,
        from: raw.from,
        to: raw.to,
    }
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
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let flags = MarkFlags::FAN_MARK_REMOVE;
        mark(&self.group, flags, mask, file, OsStr::new(&path))
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
    open: AtomicBool,
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
            open: AtomicBool::new(true),
            null: File::open("/dev/null")?,
        })
    }

    const FLAGS: u32 = libc::FAN_CLASS_CONTENT
        | libc::FAN_CLOEXEC
        | libc::FAN_NONBLOCK
        | libc::FAN_UNLIMITED_QUEUE
        | libc::FAN_UNLIMITED_MARKS
        | libc::FAN_REPORT_TID;

    /// Whether it has not been closed.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Opens a closed group again, without its marks, for all who refer to it.
    /// An answer to a record of the former group finds nobody waiting: the
    /// record's descriptor is still open, so no new record has its number.
    ///
    /// # Errors
    /// As [`PermissionGroup::new`].
    pub fn reopen(&self) -> io::Result<()> {
        let new = init(Self::FLAGS)?;
        self.replace(new.as_fd())?;
        self.open.store(true, Ordering::Release);
        Ok(())
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
        /// `FAN_MARK_IGNORE_SURV` (Linux 6.0) and its elder form.
        const IGNORE: [u32; 2] = [
            libc::FAN_MARK_IGNORE | libc::FAN_MARK_IGNORED_SURV_MODIFY,
            libc::FAN_MARK_IGNORED_MASK | libc::FAN_MARK_IGNORED_SURV_MODIFY,
        ];
        let mut last = io::Error::from_raw_os_error(libc::EINVAL);
        for flags in IGNORE {
            let flags = MarkFlags::from_bits_retain(
                libc::FAN_MARK_ADD | libc::FAN_MARK_DONT_FOLLOW | flags,
            );
            match mark(&self.group, flags, mask::OPEN_PERM, dir, name) {
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => last = error,
                other => return other,
            }
        }
        Err(last)
    }

    /// Closes the group, whoever else refers to it: every opener that waits
    /// goes on. The descriptor's number stays taken, by `/dev/null`.
    ///
    /// # Errors
    /// The errno of dup3(2).
    pub fn close(&self) -> io::Result<()> {
        self.open.store(false, Ordering::Release);
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
    /// As [`NotificationGroup::read`].
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

fn init(flags: u32) -> io::Result<Fanotify> {
    Fanotify::init(
        InitFlags::from_bits_retain(flags),
        EventFFlags::O_RDONLY | EventFFlags::O_LARGEFILE | EventFFlags::O_CLOEXEC,
    )
    .map_err(io::Error::from)
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

/// Parses all records in `bytes`; returns how many there are.
fn parse(mut bytes: &[u8], mut take: impl FnMut(RawRecord)) -> Result<usize, Malformed> {
    let mut count = 0;
    while !bytes.is_empty() {
        let (record, used) = parse_record(bytes)?;
        take(record);
        count += 1;
        bytes = &bytes[used..];
    }
    Ok(count)
}

/// How many records `bytes` are; the descriptors in them are nobody's. For fuzzing.
///
/// # Errors
/// They are no records.
#[doc(hidden)]
pub fn count_records(bytes: &[u8]) -> Result<usize, Malformed> {
    parse(bytes, drop)
}
