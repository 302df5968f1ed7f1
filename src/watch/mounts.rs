//! What is mounted where, and ways through it on which nobody can make us wait.
//!
//! Owns the table of mounts (`proc_pid_mountinfo(5)`), read again only when the
//! kernel says that it changed: on a host with containers it is long. Owns the
//! walk along a path by descriptors, which stops before the first directory
//! whose file system has a server ([`Mount::may_stall`]): a server that hangs, or
//! a user's own, would keep the watching thread waiting for ever. Must not know
//! what is watched.

use std::collections::{HashMap, HashSet};
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;

use crate::sys::ObjectId;
use crate::sys::stat::{Glance, glance, look};

/// How much of the table is read.
const MAX_TABLE: u64 = 16 << 20;
const AUTOFS: &str = "autofs";
/// How many links one path may lead through (`path_resolution(7)`).
const MAX_LINKS: usize = 40;

/// A mount (`proc_pid_mountinfo(5)`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where.
    pub point: PathBuf,
    /// Which kind of file system.
    pub kind: OsString,
    /// What is mounted: a device, a server's export.
    pub source: OsString,
    /// Whether the file system is read-only. That of the mount says nothing: under
    /// its unit the daemon sees all but its own directories read-only.
    pub read_only: bool,
}

impl Mount {
    /// Whether whoever looks at a file there may wait for a server or for a
    /// user's program, and whether files there may change without a word of
    /// this kernel: network, cluster and FUSE file systems, and what mounts one.
    #[must_use]
    pub fn may_stall(&self) -> bool {
        /// As `/proc/filesystems` names them; `fuse.sshfs` is a kind of `fuse`.
        const KINDS: [&str; 19] = [
            "9p",
            "afs",
            "autofs",
            "beegfs",
            "ceph",
            "cifs",
            "coda",
            "fuse",
            "fuseblk",
            "gfs2",
            "glusterfs",
            "gpfs",
            "lustre",
            "nfs",
            "nfs4",
            "ocfs2",
            "orangefs",
            "smb3",
            "virtiofs",
        ];
        let kind = self.kind.to_string_lossy();
        let family = kind.split('.').next().unwrap_or_default();
        KINDS.contains(&family)
    }
}

/// Why a path could not be walked to its end.
#[derive(Debug)]
pub enum Unreached {
    /// It leads to a file system whose server may not answer.
    Stalls {
        /// Which kind of file system.
        kind: OsString,
        /// The owners of the links that led there.
        links: Vec<u32>,
    },
    /// The errno of the step that failed.
    Failed(io::Error),
}

impl From<io::Error> for Unreached {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<Errno> for Unreached {
    fn from(error: Errno) -> Self {
        Self::Failed(error.into())
    }
}

/// What a look at a name has shown.
#[derive(Debug)]
pub struct Sight {
    /// What it is.
    pub glance: Glance,
    /// Its identity, where its file system has handles.
    pub object: Option<ObjectId>,
}

/// What a walk came to.
#[derive(Debug)]
pub struct Reached {
    /// The place (`O_PATH`).
    pub fd: OwnedFd,
    /// What it is.
    pub glance: Glance,
    /// The owners of the links that led there.
    pub links: Vec<u32>,
}

/// A mount of the table, and the device of its file system as `major:minor`.
type Row = (Mount, Vec<u8>);

/// The mounts of the daemon's mount namespace.
#[derive(Debug)]
pub struct Mounts {
    table: Option<File>,
    known: HashMap<u64, Row>,
    /// The device that `/` lies on.
    root: Vec<u8>,
    /// Where something will be mounted once somebody goes there (autofs). Not even
    /// a place can be opened there while its daemon is asked.
    triggers: HashSet<PathBuf>,
    /// Directories in which something is mounted.
    crowded: HashSet<PathBuf>,
    is_read: bool,
    /// They have changed since this was last asked.
    news: bool,
}

impl Mounts {
    /// Nothing is read yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            table: File::open("/proc/self/mountinfo").ok(),
            known: HashMap::new(),
            root: Vec::new(),
            triggers: HashSet::new(),
            crowded: HashSet::new(),
            is_read: false,
            news: false,
        }
    }

    /// The mount that an open file lies on, if it is one of our namespace.
    pub fn of(&mut self, file: &File) -> Option<Mount> {
        let id = mount_id(file)?;
        self.refresh();
        self.known.get(&id).map(|(mount, _)| mount.clone())
    }

    /// What says by `POLLPRI` that the mounts have changed.
    #[must_use]
    pub fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.table.as_ref().map(AsFd::as_fd)
    }

    /// The descriptor has said so, which it does once for each change.
    pub fn noticed(&mut self) {
        self.is_read = false;
        self.news = true;
    }

    /// Whether they have changed since this was last asked.
    pub fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    /// Whether they have changed since [`Mounts::take_news`] was last asked.
    #[must_use]
    pub fn has_news(&self) -> bool {
        self.news
    }

    /// Where something is mounted, each place once, from the root down.
    pub fn points(&mut self) -> Vec<PathBuf> {
        self.refresh();
        let points = self.known.values().map(|(mount, _)| mount.point.clone());
        let mut points: Vec<PathBuf> = points.collect();
        points.sort();
        points.dedup();
        points
    }

    /// Whether nothing was mounted on a name in the directory with this path, on which
    /// there is no symbolic link, when somebody last went anywhere.
    #[must_use]
    pub fn is_plain(&self, directory: &Path) -> bool {
        self.is_read && !self.known.is_empty() && !self.crowded.contains(directory)
    }

    /// Looks at `name` in `dir`, and says as what kind of file system it may stall.
    ///
    /// # Errors
    /// As [`glance`].
    pub fn glance(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
    ) -> io::Result<(Glance, Option<OsString>)> {
        let name = CString::new(name.as_bytes())?;
        let glance = glance(dir, &name)?;
        let kind = glance.mount.and_then(|id| self.stalls(id));
        Ok((glance, kind))
    }

    /// Looks at `name` in `dir`, which lies on this mount and on the file system with
    /// this id; `None`: what is there lies on a file system that may stall.
    ///
    /// # Errors
    /// As [`glance`].
    pub fn sight(
        &mut self,
        dir: BorrowedFd<'_>,
        mount: Option<u64>,
        name: &OsStr,
        fsid: [u8; 8],
    ) -> io::Result<Option<Sight>> {
        let name = CString::new(name.as_bytes())?;
        let object = ObjectId::with_mount(dir, &name, fsid).ok();
        // On the directory's own mount, which is known, and stays as long as it is open.
        let (object, glance) = match object {
            Some((object, at)) if mount == Some(at) => (Some(object), look(dir, &name)?),
            other => (other.map(|(object, _)| object), glance(dir, &name)?),
        };
        let is_own = glance.mount.is_some() && glance.mount == mount;
        let stalls = glance.mount.filter(|_| !is_own);
        if stalls.is_some_and(|id| self.stalls(id).is_some()) {
            return Ok(None);
        }
        Ok(Some(Sight { glance, object }))
    }

    /// Goes to `name` in `dir`, without following a link.
    ///
    /// # Errors
    /// [`Unreached`].
    pub fn step(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
    ) -> Result<(OwnedFd, Glance), Unreached> {
        self.refresh();
        self.one_step(dir, name, &mut Vec::new())
    }

    /// Goes to the directory `name` in `dir`, whose file system has this id, and says
    /// what it is if it lies on this very mount; `None`: it has to be looked at.
    ///
    /// # Errors
    /// `ENOENT`: there is no such name.
    pub fn step_down(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        (mount, fsid): (u64, [u8; 8]),
    ) -> io::Result<Option<(OwnedFd, ObjectId)>> {
        self.refresh();
        if self.is_trigger(dir, name) {
            return Ok(None);
        }
        let flags = PLACE | OFlag::O_NOFOLLOW | OFlag::O_DIRECTORY;
        let next = match openat(dir, name, flags, Mode::empty()) {
            Ok(next) => next,
            Err(Errno::ENOENT) => return Err(Errno::ENOENT.into()),
            Err(_) => return Ok(None),
        };
        let seen = ObjectId::with_mount(next.as_fd(), c"", fsid).ok();
        Ok(seen.and_then(|(id, at)| (at == mount).then_some((next, id))))
    }

    fn one_step(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        links: &mut Vec<u32>,
    ) -> Result<(OwnedFd, Glance), Unreached> {
        let mut stalls = |kind| Unreached::Stalls {
            kind,
            links: std::mem::take(links),
        };
        if self.is_trigger(dir, name) {
            return Err(stalls(AUTOFS.into()));
        }
        let next = openat(dir, name, PLACE | OFlag::O_NOFOLLOW, Mode::empty())?;
        let here = glance(next.as_fd(), c"")?;
        match here.mount.and_then(|id| self.known_to_stall(id)) {
            Some(kind) => Err(stalls(kind)),
            None => Ok((next, here)),
        }
    }

    /// Walks along `path`, which is absolute or begins at `start`. Links on the way
    /// are followed by what they say, and so never to what only the kernel knows
    /// of (`/proc/PID/fd`); one at the end, if that is wanted.
    ///
    /// # Errors
    /// [`Unreached`].
    pub fn walk(
        &mut self,
        start: Option<BorrowedFd<'_>>,
        path: &Path,
        follow: bool,
    ) -> Result<Reached, Unreached> {
        let root = || nix::fcntl::open("/", PLACE | OFlag::O_DIRECTORY, Mode::empty());
        self.refresh();
        // Nothing is opened for where it begins, if that is given.
        let mut at = match start.filter(|_| !path.is_absolute()) {
            Some(start) => At::Start(start),
            None => At::Own(root()?),
        };
        let mut seen = None;
        let mut links = Vec::new();
        let mut left = Vec::new();
        push(&mut left, path);
        while let Some(name) = left.pop() {
            let (next, here) = self.one_step(at.as_fd(), &name, &mut links)?;
            seen = Some(here);
            if here.kind != libc::S_IFLNK || (left.is_empty() && !follow) {
                at = At::Own(next);
                continue;
            }
            links.push(here.uid);
            if links.len() > MAX_LINKS {
                return Err(io::Error::from_raw_os_error(libc::ELOOP).into());
            }
            let target = PathBuf::from(readlinkat(&next, "")?);
            if target.is_absolute() {
                at = At::Own(root()?);
            }
            // Should it lead nowhere else, it is what it begins at.
            seen = None;
            push(&mut left, &target);
        }
        let fd = match at {
            At::Start(start) => start.try_clone_to_owned()?,
            At::Own(fd) => fd,
        };
        let glance = seen.map_or_else(|| glance(fd.as_fd(), c""), Ok)?;
        Ok(Reached { fd, glance, links })
    }

    fn is_trigger(&self, dir: BorrowedFd<'_>, name: &OsStr) -> bool {
        !self.triggers.is_empty()
            && readlinkat(
                nix::fcntl::AT_FDCWD,
                format!("/proc/self/fd/{}", dir.as_raw_fd()).as_str(),
            )
            .is_ok_and(|place| self.triggers.contains(&Path::new(&place).join(name)))
    }

    /// As what kind of file system this mount may stall. Where `/` itself lies on
    /// such a one, nothing works without its server anyway.
    fn stalls(&mut self, id: u64) -> Option<OsString> {
        self.refresh();
        self.known_to_stall(id)
    }

    fn known_to_stall(&self, id: u64) -> Option<OsString> {
        let (mount, device) = self.known.get(&id)?;
        (mount.may_stall() && *device != self.root).then(|| mount.kind.clone())
    }

    /// "After a change … poll(2) marks the descriptor as having a priority
    /// event" (`proc_pid_mounts(5)`).
    fn refresh(&mut self) {
        let Some(table) = &self.table else { return };
        let mut fds = [PollFd::new(table.as_fd(), PollFlags::POLLPRI)];
        if !matches!(poll(&mut fds, PollTimeout::ZERO), Ok(0)) {
            self.noticed();
        }
        if !std::mem::replace(&mut self.is_read, true) {
            self.known = self.read().unwrap_or_default();
            self.triggers = self
                .known
                .values()
                .filter(|(mount, _)| mount.kind == AUTOFS)
                .map(|(mount, _)| mount.point.clone())
                .collect();
            let others = self
                .known
                .values()
                .filter(|(mount, _)| mount.kind != AUTOFS);
            for (mount, _) in others {
                self.triggers.remove(&mount.point);
            }
            let above = self.known.values();
            let above = above.filter_map(|(mount, _)| mount.point.parent());
            self.crowded = above.map(Path::to_owned).collect();
            let mut roots = self
                .known
                .values()
                .filter(|(mount, _)| mount.point == Path::new("/"));
            self.root = roots
                .next()
                .map_or_else(Vec::new, |(_, device)| device.clone());
        }
    }

    fn read(&mut self) -> io::Result<HashMap<u64, Row>> {
        let Some(table) = &mut self.table else {
            return Ok(HashMap::new());
        };
        table.seek(SeekFrom::Start(0))?;
        let mut bytes = Vec::new();
        table.take(MAX_TABLE).read_to_end(&mut bytes)?;
        Ok(bytes
            .split(|byte| *byte == b'\n')
            .filter_map(parse)
            .collect())
    }
}

impl Default for Mounts {
    fn default() -> Self {
        Self::new()
    }
}

/// How far a walk has come.
enum At<'a> {
    Start(BorrowedFd<'a>),
    Own(OwnedFd),
}

impl AsFd for At<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Start(fd) => *fd,
            Self::Own(fd) => fd.as_fd(),
        }
    }
}

/// A place, of which nothing is opened.
const PLACE: OFlag = OFlag::O_PATH.union(OFlag::O_CLOEXEC);

/// Puts the components of a path on a stack, the first on top.
fn push(left: &mut Vec<OsString>, path: &Path) {
    let names = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    let names: Vec<OsString> = names.collect();
    left.extend(names.into_iter().rev());
}

/// The id of the mount that an open file lies on (`proc_pid_fdinfo(5)`).
fn mount_id(file: &File) -> Option<u64> {
    let path = format!("/proc/self/fdinfo/{}", file.as_raw_fd());
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("mnt_id:"))?;
    line.trim().parse().ok()
}

/// One line: `36 35 98:0 /root /point rw,noatime shared:1 - ext4 /dev/sda rw`.
fn parse(line: &[u8]) -> Option<(u64, Row)> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let device = fields.nth(1)?;
    let point = fields.nth(1)?;
    fields.find(|field| *field == b"-")?;
    let kind = unescape(fields.next()?);
    let source = unescape(fields.next()?);
    let super_options = fields.next()?;
    let mount = Mount {
        point: unescape(point).into(),
        kind,
        source,
        read_only: super_options
            .split(|byte| *byte == b',')
            .any(|it| it == b"ro"),
    };
    Some((id, (mount, device.to_vec())))
}

/// Blanks and backslashes stand there as three octal digits.
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, more)) = rest.split_first() {
        let digits = more
            .get(..3)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if let Some(byte) = escaped.filter(|_| *first == b'\\') {
            bytes.push(byte);
            rest = &more[3..];
        } else {
            bytes.push(*first);
            rest = more;
        }
    }
    OsString::from_vec(bytes)
}

/// Reads a table of mounts from bytes that anybody may have written. For fuzzing.
///
/// # Panics
/// If what was read is not what the bytes say.
#[doc(hidden)]
pub fn read_hostile(bytes: &[u8]) {
    for line in bytes.split(|byte| *byte == b'\n') {
        if let Some((_, (mount, _))) = parse(line) {
            assert!(mount.point.as_os_str().len() <= line.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_table() {
        let line = b"36 35 98:0 /mnt1 /mnt/my\\040disk\\134 rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue";
        let expected = Mount {
            point: "/mnt/my disk\\".into(),
            kind: "ext3".into(),
            source: "/dev/root".into(),
            read_only: false,
        };
        assert_eq!(parse(line), Some((36, (expected, b"98:0".to_vec()))));
        let read_only = |line: &[u8]| parse(line).unwrap().1.0.read_only;
        assert!(read_only(b"9 1 0:5 / /x ro - tmpfs none ro"));
        assert!(!read_only(b"9 1 0:5 / /x ro - tmpfs none rw"));
        for end in 0..line.len() - 30 {
            assert_eq!(parse(&line[..end]), None);
        }
    }

    #[test]
    fn the_mount_of_a_real_file() {
        let mut mounts = Mounts::new();
        let mount = mounts.of(&File::open("/proc/self/stat").unwrap()).unwrap();
        assert_eq!(mount.point, Path::new("/proc"));
        assert_eq!(mount.kind, "proc");
        let again = mounts.of(&File::open("/proc/version").unwrap());
        assert_eq!(again, Some(mount));
    }

    #[test]
    fn file_systems_with_a_server_are_known_by_their_kind() {
        let kind = |kind: &str| Mount {
            point: "/home".into(),
            kind: kind.into(),
            source: "x".into(),
            read_only: false,
        };
        for stalling in [
            "nfs4",
            "fuse.sshfs",
            "fuse",
            "fuseblk",
            "cifs",
            "autofs",
            "9p",
        ] {
            assert!(kind(stalling).may_stall(), "{stalling}");
        }
        for own in [
            "ext4", "tmpfs", "fusectl", "nfsd", "overlay", "zfs", "btrfs",
        ] {
            assert!(!kind(own).may_stall(), "{own}");
        }
    }

    #[test]
    fn a_walk_follows_links_by_what_they_say() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        std::fs::create_dir_all(dir.join("a/b")).unwrap();
        for (link, target) in [("up", "a/b/../.."), ("to", "up/a/b"), ("loop", "loop")] {
            std::os::unix::fs::symlink(target, dir.join(link)).unwrap();
        }
        let held = File::open(dir.join("a")).unwrap();
        let magic = format!("/proc/self/fd/{}", held.as_raw_fd());
        std::os::unix::fs::symlink(magic, dir.join("magic")).unwrap();
        let mut mounts = Mounts::new();
        let mut walk = |path: &str, follow| mounts.walk(None, &dir.join(path), follow);
        let inode = |fd: &OwnedFd| nix::sys::stat::fstat(fd).unwrap().st_ino;

        let reached = walk("to", true).unwrap();
        let there = open_place(&dir.join("a/b"));
        assert_eq!(inode(&reached.fd), inode(&there));
        assert_eq!(reached.links.len(), 2);
        let link = walk("to", false).unwrap();
        assert_eq!((link.glance.kind, link.links.len()), (libc::S_IFLNK, 0));
        let through = walk("up/a", false).unwrap();
        assert_eq!(through.glance.kind, libc::S_IFDIR);
        for (path, errno) in [("loop", libc::ELOOP), ("gone/x", libc::ENOENT)] {
            let Err(Unreached::Failed(error)) = walk(path, true) else {
                panic!("{path} leads somewhere");
            };
            assert_eq!(error.raw_os_error(), Some(errno), "{path}");
        }
        // To the link's text, which is the same directory by its own name.
        let own = walk("magic", true).unwrap();
        assert_eq!(inode(&own.fd), inode(&open_place(&dir.join("a"))));
    }

    fn open_place(path: &Path) -> OwnedFd {
        nix::fcntl::open(path, PLACE, Mode::empty()).unwrap()
    }
}
