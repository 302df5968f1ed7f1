//! `/proc`, read exactly: bytes of names and arguments as they are.
//!
//! Owns the parsing of `proc_pid_stat(5)` and `proc_pid_status(5)`. The root is
//! given, so that tests can use a tree of files. A process's directory is
//! opened once and everything is read through that descriptor: it cannot turn
//! into another process of the same pid.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, readlinkat};
use nix::sys::stat::Mode;

use super::{Credentials, Image, ImageState, Process};
use crate::proctable;
use crate::sys::stat::{FileIdentity, identity_of, link_of, opened_identity};

/// How much of a small file of `/proc` is read.
const SMALL: usize = 4096;
/// How many bytes of arguments are kept, and how many arguments.
const MAX_ARGS_BYTES: usize = 32 * 1024;
const MAX_ARGS: usize = 512;

/// A `/proc`.
#[derive(Debug)]
pub struct Proc {
    root: OwnedFd,
    /// When another host than this one booted; `start_ticks` count from here.
    boot: Option<SystemTime>,
}

/// A process's or thread's directory, opened.
#[derive(Debug)]
pub struct Entry {
    dir: OwnedFd,
}

/// What `proc_pid_stat(5)` says, as far as we use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// `comm`.
    pub name: OsString,
    /// State letter; `Z` is a zombie.
    pub state: u8,
    /// Parent's pid.
    pub parent: i32,
    /// Process group.
    pub process_group: i32,
    /// Session.
    pub session: i32,
    /// Controlling terminal as a device number, 0 without one.
    pub tty: u32,
    /// Threads of the process.
    pub threads: u32,
    /// Start time in clock ticks since boot.
    pub start_ticks: u64,
    /// The processor it ran on last.
    pub processor: Option<u32>,
}

/// What `proc_pid_status(5)` says, as far as we use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Thread group: the pid of the process.
    pub process: i32,
    /// Real, effective user ids.
    pub users: [u32; 2],
    /// Real, effective group ids.
    pub groups: [u32; 2],
}

impl Proc {
    /// Opens the `/proc` at `root`.
    ///
    /// # Errors
    /// It cannot be opened, or, where it is not this host's own, its `stat` has no
    /// boot time.
    pub fn open(root: &Path) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let boot = if root == Path::new("/proc") {
            None
        } else {
            Some(booted(&std::fs::read_to_string(root.join("stat"))?)?)
        };
        Ok(Self {
            root: open(root, flags, Mode::empty())?,
            boot,
        })
    }

    /// Opens the entry of process or thread `id`.
    ///
    /// # Errors
    /// `ENOENT` when there is none.
    pub fn entry(&self, id: i32) -> io::Result<Entry> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut name = [0u8; 12];
        let dir = openat(&self.root, decimal(id, &mut name), flags, Mode::empty())?;
        Ok(Entry { dir })
    }

    fn start(&self, ticks: u64) -> SystemTime {
        match self.boot {
            Some(boot) => boot + proctable::ticks_time(ticks),
            None => proctable::start_time(ticks),
        }
    }

    /// A snapshot of what `entry` is now, without its arguments. A field that
    /// cannot be read is `None`.
    ///
    /// # Errors
    /// Not even `stat` and `status` can be read: it is gone.
    pub fn snapshot(&self, entry: &Entry) -> io::Result<Process> {
        let mut process = self.core(entry, entry.stat()?)?;
        process.login_uid = entry.login_uid();
        process.audit_session = entry.audit_session();
        Ok(process)
    }

    /// The part of a snapshot that says who and what it is; `stat` is its own.
    ///
    /// # Errors
    /// Its `status` cannot be read: it is gone.
    pub fn core(&self, entry: &Entry, stat: Stat) -> io::Result<Process> {
        let status = entry.status()?;
        Ok(self.process(entry, stat, status.process, status.users, status.groups))
    }

    /// The same where the ids are known from elsewhere.
    #[must_use]
    pub fn process(
        &self,
        entry: &Entry,
        stat: Stat,
        pid: i32,
        users: [u32; 2],
        groups: [u32; 2],
    ) -> Process {
        Process {
            pid,
            parent_pid: Some(stat.parent),
            start: Some(self.start(stat.start_ticks)),
            start_ticks: Some(stat.start_ticks),
            image: entry.image(),
            name: Some(stat.name),
            args: None,
            working_directory: entry.link(c"cwd"),
            credentials: Some(Credentials::of(users, groups)),
            session: Some(stat.session),
            process_group: Some(stat.process_group),
            tty: (stat.tty != 0).then(|| {
                let device = u64::from(stat.tty);
                (libc::major(device), libc::minor(device))
            }),
            login_uid: None,
            audit_session: None,
            cgroup: None,
        }
    }
}

impl Entry {
    fn read(&self, name: &CStr, buffer: &mut [u8]) -> io::Result<usize> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let file = openat(&self.dir, name, flags, Mode::empty())?;
        let mut length = 0;
        while length < buffer.len() {
            let (_, room) = buffer.split_at_mut(length);
            match nix::unistd::read(&file, room)? {
                0 => break,
                count => length += count,
            }
            // A small file of /proc comes in one piece, if there is room for it.
            if length < buffer.len() {
                break;
            }
        }
        Ok(length)
    }

    /// Reads `stat`.
    ///
    /// # Errors
    /// The process is gone, or the file is not as `proc_pid_stat(5)` says.
    pub fn stat(&self) -> io::Result<Stat> {
        let mut buffer = [0u8; SMALL];
        let length = self.read(c"stat", &mut buffer)?;
        parse_stat(&buffer[..length]).ok_or_else(|| malformed("stat"))
    }

    /// Reads `status`.
    ///
    /// # Errors
    /// The process is gone, or the file is not as `proc_pid_status(5)` says.
    pub fn status(&self) -> io::Result<Status> {
        let mut buffer = [0u8; SMALL];
        let length = self.read(c"status", &mut buffer)?;
        parse_status(&buffer[..length]).ok_or_else(|| malformed("status"))
    }

    /// Whether the thread waits in the hold: by the function that it sleeps in
    /// (`proc_pid_wchan(5)`), or else by where it has stopped (`proc_pid_stack(5)`).
    ///
    /// Since Linux 6.12 a thread that has just gone to sleep can stand in the
    /// run queue for as long as others run there (`DELAY_DEQUEUE`), and has no
    /// such function until then. To ask which call it is in (`proc_pid_syscall(5)`)
    /// takes it off (`wait_task_inactive` in `kernel/sched/core.c`), sooner than
    /// its stack is unwound.
    #[must_use]
    pub fn waits_for_fanotify(&self) -> bool {
        let mut buffer = [0u8; 64];
        self.sleeps_in_fanotify()
            .or_else(|| {
                // It is the asking that counts.
                let _ = self.read(c"syscall", &mut buffer);
                self.sleeps_in_fanotify()
            })
            .unwrap_or_else(|| {
                // The innermost function first: `[<0>] fanotify_handle_event+0x1f/0x2a`.
                self.read(c"stack", &mut buffer)
                    .is_ok_and(|length| buffer[..length].starts_with(b"[<0>] fanotify"))
            })
    }

    /// Whether that is the function it sleeps in; `None` if it has none.
    pub(super) fn sleeps_in_fanotify(&self) -> Option<bool> {
        let mut buffer = [0u8; 64];
        match self
            .read(c"wchan", &mut buffer)
            .map(|length| &buffer[..length])
        {
            Ok(b"0") => None,
            Ok(function) => Some(function.starts_with(b"fanotify")),
            Err(_) => Some(false),
        }
    }

    /// Where a link of the entry leads.
    #[must_use]
    pub fn link(&self, name: &CStr) -> Option<PathBuf> {
        link_of(self.dir.as_fd(), name).ok().map(PathBuf::from)
    }

    /// The image that runs; `None` for a zombie or a kernel thread.
    #[must_use]
    pub fn image(&self) -> Option<Image> {
        let path = self.link(c"exe")?;
        let identity = identity_of(self.dir.as_fd(), c"exe").ok();
        Some(image(path, identity))
    }

    /// Opens the image that runs (`O_PATH`).
    ///
    /// # Errors
    /// The errno of openat(2): `ENOENT` for a zombie or a kernel thread.
    pub fn executable(&self) -> io::Result<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        Ok(openat(&self.dir, c"exe", flags, Mode::empty())?)
    }

    /// Opens the mount namespace (`O_PATH`).
    ///
    /// # Errors
    /// The errno of openat(2): `EACCES` without the right to trace the process.
    pub fn open_mount_namespace(&self) -> io::Result<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        Ok(openat(&self.dir, c"ns/mnt", flags, Mode::empty())?)
    }

    /// The inode of the mount namespace.
    #[must_use]
    pub fn mount_namespace(&self) -> Option<u64> {
        identity_of(self.dir.as_fd(), c"ns/mnt")
            .ok()
            .map(|identity| identity.inode)
    }

    /// The login uid of the audit system, if one is set.
    #[must_use]
    pub fn login_uid(&self) -> Option<u32> {
        self.number(c"loginuid")
    }

    /// The session id of the audit system, if one is set.
    #[must_use]
    pub fn audit_session(&self) -> Option<u32> {
        self.number(c"sessionid")
    }

    /// The control groups (`proc_pid_cgroup(5)`), of which a deep one may be cut.
    #[must_use]
    pub fn cgroup(&self) -> Option<Vec<u8>> {
        let mut buffer = [0u8; SMALL];
        let length = self.read(c"cgroup", &mut buffer).ok()?;
        Some(buffer[..length].to_vec())
    }

    /// A decimal number that is not the kernel's "unset" (4294967295).
    fn number(&self, name: &CStr) -> Option<u32> {
        let mut buffer = [0u8; 16];
        let length = self.read(name, &mut buffer).ok()?;
        let number = std::str::from_utf8(&buffer[..length])
            .ok()?
            .trim()
            .parse()
            .ok()?;
        (number != u32::MAX).then_some(number)
    }

    /// The arguments. Reads the memory of the process, which may block for
    /// ever: call it on a [`super::slow::Pool`].
    #[must_use]
    pub fn args(&self) -> Option<Vec<OsString>> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let file = openat(&self.dir, c"cmdline", flags, Mode::empty()).ok()?;
        let mut buffer = [0u8; SMALL];
        let first = nix::unistd::read(&file, &mut buffer).ok()?;
        // A zombie and a kernel thread have none.
        if first == 0 {
            return None;
        }
        // It comes as long as there is room (fs/proc/base.c).
        if first < buffer.len() {
            return Some(split_args(&buffer[..first]));
        }
        let mut long = buffer.to_vec();
        long.resize(MAX_ARGS_BYTES, 0);
        let mut length = first;
        while length < long.len() {
            match nix::unistd::read(&file, &mut long[length..]).ok()? {
                0 => break,
                count => length += count,
            }
        }
        Some(split_args(&long[..length]))
    }

    /// Another descriptor for the same entry.
    ///
    /// # Errors
    /// `EMFILE`.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            dir: self.dir.try_clone()?,
        })
    }
}

impl AsFd for Entry {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

/// The boot time in `proc_stat(5)`, whole seconds.
fn booted(stat: &str) -> io::Result<SystemTime> {
    let mut lines = stat.lines();
    let seconds = lines.find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok());
    let seconds = seconds.ok_or_else(|| io::Error::other("/proc/stat has no btime"))?;
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

fn malformed(name: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("a /proc/PID/{name} is not as documented"),
    )
}

fn decimal(number: i32, buffer: &mut [u8; 12]) -> &CStr {
    use std::io::Write;
    let length = buffer.len();
    let mut rest = &mut buffer[..length - 1];
    // Eleven characters are enough for every i32; the rest stays NUL.
    let _ = write!(rest, "{number}");
    CStr::from_bytes_until_nul(buffer).unwrap_or(c"")
}

/// An image from the link `exe` and the identity of the file behind it.
#[must_use]
pub fn image(path: PathBuf, identity: Option<FileIdentity>) -> Image {
    const DELETED: &[u8] = b" (deleted)";
    let mut bytes = path.into_os_string().into_vec();
    let mut state = None;
    if identity.is_some_and(|identity| identity.links == 0) {
        if bytes.starts_with(b"/memfd:") {
            state = Some(ImageState::Memfd);
        } else {
            state = Some(ImageState::Deleted);
        }
        if bytes.ends_with(DELETED) {
            bytes.truncate(bytes.len() - DELETED.len());
        }
    }
    Image {
        path: PathBuf::from(OsString::from_vec(bytes)),
        device: identity.map(|identity| identity.device),
        inode: identity.map(|identity| identity.inode),
        generation: None,
        state,
    }
}

/// Opens what a path leads to on this host (`O_PATH`), if the kernel knows
/// without asking a file server (`RESOLVE_CACHED`).
#[must_use]
pub fn open_cached(path: &Path) -> Option<OwnedFd> {
    use nix::fcntl::{OpenHow, ResolveFlag, openat2};
    use std::os::unix::ffi::OsStrExt;

    let name = CString::new(path.as_os_str().as_bytes()).ok()?;
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::from_bits_retain(libc::RESOLVE_CACHED));
    match openat2(nix::fcntl::AT_FDCWD, name.as_c_str(), how) {
        Ok(file) => Some(file),
        // Linux before 5.12; or refused, as `RestrictSUIDSGID=` of systemd does
        // because a filter cannot look into its arguments.
        Err(Errno::EINVAL | Errno::ENOSYS | Errno::EPERM) => open_local(path),
        Err(_) => None,
    }
}

/// The identity of what [`open_cached`] opens.
pub(super) fn cached_identity(path: &Path) -> Option<FileIdentity> {
    opened_identity(open_cached(path)?.as_fd()).ok()
}

/// By which numbers the kernel calls a file where that is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Numbers {
    /// Device and inode.
    pub(super) file: (u64, u64),
    /// On btrfs, where they do not tell files apart.
    pub(super) generation: Option<u32>,
}

/// The numbers of `image` where it is mapped, if its path leads to it here, and no file
/// server has it.
pub(super) fn numbers_of_mappings(image: &Image) -> Option<Numbers> {
    /// So many are remembered.
    const MOST: usize = 256;
    static KNOWN: Mutex<BTreeMap<(u64, u64), Numbers>> = Mutex::new(BTreeMap::new());
    let file = (image.device?, image.inode?);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(numbers) = known.get(&file) {
        return Some(*numbers);
    }
    let opened = open_local(&image.path)?;
    let found = opened_identity(opened.as_fd()).ok()?;
    if (found.device, found.inode) != file || !is_local(found.device) {
        return None;
    }
    let opened = File::open(format!("/proc/self/fd/{}", opened.as_raw_fd())).ok()?;
    let numbers = Numbers {
        file: crate::sys::mapped::numbers(opened.as_fd()).ok()?,
        generation: crate::sys::mapped::generation(opened.as_fd()).ok()?,
    };
    if known.len() >= MOST {
        known.clear();
    }
    known.insert(file, numbers);
    Some(numbers)
}

/// The same for a path without symbolic links, as `/proc/PID/exe` gives it: a
/// directory is looked into only if no server stands behind its file system.
fn open_local(path: &Path) -> Option<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut file = open("/", flags, Mode::empty()).ok()?;
    for component in path.strip_prefix("/").ok()? {
        if !is_local(opened_identity(file.as_fd()).ok()?.device) {
            return None;
        }
        file = openat(&file, component, flags, Mode::empty()).ok()?;
    }
    // Of a symbolic link at the end this is the link itself.
    readlinkat(&file, c"").is_err().then_some(file)
}

/// Whether a file system lies on a block device, or is one of the host's own in
/// memory. Others have no device by whose number they could be told apart.
fn is_local(device: u64) -> bool {
    static OWN: OnceLock<Vec<u64>> = OnceLock::new();
    libc::major(device) != 0
        || OWN
            .get_or_init(|| {
                [c"/", c"/usr", c"/tmp", c"/var/tmp", c"/run", c"/dev/shm"]
                    .into_iter()
                    .filter_map(|place| identity_of(nix::fcntl::AT_FDCWD, place).ok())
                    .map(|identity| identity.device)
                    .collect()
            })
            .contains(&device)
}

/// Says whether the image's path means the same file on this host; `namespace`
/// is asked for the mount namespace of the process if that matters.
pub fn place_image(
    image: &mut Image,
    namespace: impl Fn() -> Option<u64>,
    own_namespace: Option<u64>,
) {
    if image.state.is_some() {
        return;
    }
    let (Some(device), Some(inode)) = (image.device, image.inode) else {
        return;
    };
    let Some(here) = cached_identity(&image.path) else {
        // Not there, or only a file server knows: say so only for a namespace
        // that explains it.
        if namespace() != own_namespace && own_namespace.is_some() {
            image.state = Some(ImageState::Foreign);
        }
        return;
    };
    image.state = Some(if (here.device, here.inode) == (device, inode) {
        ImageState::Same
    } else if namespace() == own_namespace {
        ImageState::Replaced
    } else {
        ImageState::Foreign
    });
}

fn parse_stat(bytes: &[u8]) -> Option<Stat> {
    // The name is in parentheses and may contain any byte, `)` too: the last
    // one closes it.
    let open = bytes.iter().position(|byte| *byte == b'(')?;
    let close = bytes.iter().rposition(|byte| *byte == b')')?;
    let name = OsString::from_vec(bytes.get(open + 1..close)?.to_vec());
    let rest = std::str::from_utf8(bytes.get(close + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    // The next field, and the one behind so many others.
    let mut after = |others: usize| fields.nth(others);
    Some(Stat {
        name,
        state: *after(0)?.as_bytes().first()?,
        parent: after(0)?.parse().ok()?,
        process_group: after(0)?.parse().ok()?,
        session: after(0)?.parse().ok()?,
        tty: after(0)?.parse::<i32>().ok()?.cast_unsigned(),
        // Fields 20, 22 and 39.
        threads: after(12)?.parse().ok()?,
        start_ticks: after(1)?.parse().ok()?,
        processor: after(16).and_then(|number| number.parse().ok()),
    })
}

fn parse_status(bytes: &[u8]) -> Option<Status> {
    let mut process = None;
    let mut users = None;
    let mut groups = None;
    // The name stands first and is escaped by the kernel: it has no newline.
    for line in bytes.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let (key, value) = line.split_at(colon);
        match key {
            b"Tgid" => process = numbers::<i32, 1>(value),
            b"Uid" => users = numbers::<u32, 2>(value),
            b"Gid" => {
                groups = numbers::<u32, 2>(value);
                // The last of them; behind it the list of groups may be long.
                break;
            }
            _ => {}
        }
    }
    // While a process is being reaped it has no pid any more: 0 is nobody's.
    let [process] = process.filter(|[pid]| *pid > 0)?;
    Some(Status {
        process,
        users: users?,
        groups: groups?,
    })
}

fn numbers<T: std::str::FromStr + Copy + Default, const N: usize>(value: &[u8]) -> Option<[T; N]> {
    let text = std::str::from_utf8(value.get(1..)?).ok()?;
    let mut found = [T::default(); N];
    let mut fields = text.split_ascii_whitespace();
    for slot in &mut found {
        *slot = fields.next()?.parse().ok()?;
    }
    Some(found)
}

fn split_args(bytes: &[u8]) -> Vec<OsString> {
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    // A title in the place of longer arguments is filled up with NULs, which are none.
    let end = bytes.iter().rposition(|byte| *byte != 0);
    let text = &bytes[..end.map_or(0, |end| end + 1)];
    let is_title = !text.contains(&0) && text.windows(2).any(|pair| pair == b": ");
    let bytes = if is_title { text } else { bytes };
    bytes
        .split(|byte| *byte == 0)
        .take(MAX_ARGS)
        .map(|arg| OsString::from_vec(arg.to_vec()))
        .collect()
}

pub(super) fn read_hostile(bytes: &[u8]) {
    let stat = parse_stat(bytes);
    assert!(stat.is_none_or(|stat| stat.name.len() < bytes.len()));
    let status = parse_status(bytes);
    assert!(status.is_none_or(|status| status.process > 0));
    let args = split_args(bytes);
    let length: usize = args.iter().map(|arg| arg.len()).sum();
    assert!(length <= bytes.len());
}

#[cfg(test)]
mod tests;
