//! The walk over the watched places, by descriptors.
//!
//! Owns what is opened and how: no component that is a link is followed, unless
//! the link is root's and stands above a watched directory; a file is opened as
//! a place (`O_PATH`) first, and read only if it is a regular one. Says where it
//! is before whatever can take for ever.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant, SystemTime};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};

use super::{Gap, Item, Limits, Message, What};
use crate::key::{self, Kind, Role};
use crate::watch::folded::{folds, is_one, may_be};
use crate::watch::home::LOOKED_FOR;
use crate::watch::pattern::Pattern;

/// So many names of one directory are looked at.
const NAMES: usize = 16_384;
/// So many levels below a watched directory are looked at.
const DEPTH: usize = 64;

/// Nobody listens any more.
pub(super) struct Ended;

type Result = std::result::Result<(), Ended>;

pub(super) struct Walk {
    out: SyncSender<Message>,
    /// Directories that are done, or do not answer.
    skip: HashSet<PathBuf>,
    limits: Limits,
}

/// A watched directory that is being walked.
struct Root {
    path: PathBuf,
    until: Instant,
    items: usize,
    /// The rest of it is left out, which has been said.
    full: bool,
    /// Whose files sshd takes there, besides root's: the owner of the home.
    owner: Option<u32>,
    /// Why sshd refuses each list of logins here, whatever the list is like.
    refused: Vec<String>,
}

impl Root {
    /// Whether sshd reads it by default (`AuthorizedKeysFile` in `sshd_config(5)`).
    fn logs_in(&self, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default();
        let list = name == "authorized_keys" || name == "authorized_keys2";
        list && self.owner.is_some() && path.parent() == Some(&self.path)
    }
}

impl Walk {
    pub(super) fn new(out: SyncSender<Message>, skip: HashSet<PathBuf>, limits: Limits) -> Self {
        Self { out, skip, limits }
    }

    pub(super) fn run(mut self, patterns: &[Pattern]) {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let start = match nix::fcntl::open("/", flags, Mode::empty()) {
            Ok(start) => start,
            Err(error) => {
                let _ = self.failed(Path::new("/"), "cannot be opened", error);
                return;
            }
        };
        for pattern in patterns {
            if self.expand(pattern, 0, &start, Path::new("/")).is_err() {
                return;
            }
        }
    }

    fn send(&self, message: Message) -> Result {
        self.out.send(message).map_err(|_| Ended)
    }

    fn gap(&self, path: &Path, reason: impl Into<String>) -> Result {
        self.send(Message::Gap(Gap::new(path, reason)))
    }

    fn failed(&self, path: &Path, what: &str, error: impl Into<io::Error>) -> Result {
        self.send(Message::Gap(Gap::failed(path, what, &error.into())))
    }

    /// Looks for what component `depth` of the pattern names in `dir`.
    fn expand(&mut self, pattern: &Pattern, depth: usize, dir: &OwnedFd, path: &Path) -> Result {
        if depth == pattern.depth() {
            return self.root(dir, path);
        }
        let names = if let Some(name) = pattern.name(depth) {
            vec![name.to_owned()]
        } else {
            self.names(dir, path, |name| pattern.matches(depth, name))?
        };
        for name in names {
            let below = path.join(&name);
            if self.skip.contains(&below) {
                continue;
            }
            self.send(Message::At(below.clone()))?;
            match enter(dir, &name) {
                Ok(next) => self.expand(pattern, depth + 1, &next, &below)?,
                // What is not there, or no directory, need not be watched.
                Err(Errno::ENOENT | Errno::ENOTDIR) => {}
                Err(Errno::ELOOP) => self.gap(
                    &below,
                    "it is a symbolic link that is not root's; not followed".to_owned(),
                )?,
                Err(error) => self.failed(&below, "cannot be opened", error)?,
            }
        }
        Ok(())
    }

    fn root(&mut self, dir: &OwnedFd, path: &Path) -> Result {
        if self.skip.contains(path) {
            return Ok(());
        }
        self.send(Message::At(path.to_owned()))?;
        let (owner, refused) = strict(dir, path);
        let mut root = Root {
            path: path.to_owned(),
            until: Instant::now() + self.limits.root_time,
            items: 0,
            full: false,
            owner,
            refused,
        };
        self.directory(dir, path, 0, &mut root)?;
        // Two patterns may name it.
        self.skip.insert(path.to_owned());
        self.send(Message::Done(path.to_owned()))
    }

    fn directory(&self, dir: &OwnedFd, path: &Path, depth: usize, root: &mut Root) -> Result {
        if depth > DEPTH {
            return self.gap(path, format!("it lies more than {DEPTH} directories deep"));
        }
        for name in self.names(dir, path, |_| true)? {
            if root.full {
                return Ok(());
            }
            if Instant::now() >= root.until {
                root.full = true;
                let seconds = self.limits.root_time.as_secs();
                let reason = format!("it takes longer than {seconds} s; the rest is left out");
                return self.gap(&root.path, reason);
            }
            // A sign of life; what hangs is the root, which is left alone then.
            self.send(Message::At(root.path.clone()))?;
            let below = path.join(sought(dir, &name).unwrap_or(&name));
            let place = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let file = match openat(dir, name.as_os_str(), place, Mode::empty()) {
                Ok(file) => file,
                Err(Errno::ENOENT) => continue,
                Err(error) => {
                    self.failed(&below, "cannot be opened", error)?;
                    continue;
                }
            };
            let stat = match fstat(&file) {
                Ok(stat) => stat,
                Err(error) => {
                    self.failed(&below, "cannot be looked at", error)?;
                    continue;
                }
            };
            match SFlag::from_bits_truncate(stat.st_mode & libc::S_IFMT) {
                SFlag::S_IFDIR => self.directory(&file, &below, depth + 1, root)?,
                SFlag::S_IFREG => self.file(dir, &file, &below, &stat, root)?,
                SFlag::S_IFLNK => {
                    if let Ok(target) = readlinkat(&file, "") {
                        let what = What::Link(target.into());
                        self.item(&below, &stat, what, Vec::new(), root)?;
                    }
                }
                // A FIFO, a socket, a device: no key, and nothing to open.
                _ => {}
            }
        }
        Ok(())
    }

    fn file(
        &self,
        dir: &OwnedFd,
        file: &OwnedFd,
        path: &Path,
        stat: &FileStat,
        root: &mut Root,
    ) -> Result {
        let name = path.file_name().unwrap_or_default();
        let role = Role::of(name);
        if role == Role::KnownHosts {
            return Ok(());
        }
        let beside = key::pair_name(name);
        let place = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let other = (!role.is_list())
            .then(|| openat(dir, beside.as_os_str(), place, Mode::empty()).ok())
            .flatten();
        let inspection = match key::inspect(file.as_fd(), role, other.as_ref().map(AsFd::as_fd)) {
            Ok(inspection) => inspection,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return self.failed(path, "cannot be read", error),
        };
        let Some(mut facts) = inspection.facts else {
            return Ok(());
        };
        let mut refused = Vec::new();
        if inspection.refused == Some(true) {
            refused.push(format!("its mode is {:04o}", stat.st_mode & 0o7777));
        }
        if facts.kind == Kind::KnownHosts {
            return Ok(());
        }
        if let Some(list) = facts.list.take() {
            let active = root.logs_in(path);
            if active {
                if stat.st_uid != 0 && root.owner.is_some_and(|owner| owner != stat.st_uid) {
                    refused.push(format!("it belongs to user {}", stat.st_uid));
                }
                refused.extend(root.refused.iter().cloned());
            }
            let left = list.dropped;
            for (number, entry) in list.entries.into_iter().enumerate() {
                let what = What::Login {
                    entry: Box::new(entry),
                    number: number + 1,
                    active,
                };
                self.item(path, stat, what, refused.clone(), root)?;
                if root.full {
                    return Ok(());
                }
            }
            if !inspection.whole || left > 0 {
                let reason = "it is too long to be read whole; some of its keys are left out";
                self.gap(path, reason.to_owned())?;
            }
            return Ok(());
        }
        let what = What::Key {
            pair: inspection
                .pair
                .map(|pair| (path.with_file_name(&beside), pair)),
            borrowed: inspection.borrowed,
            facts: Box::new(facts),
        };
        self.item(path, stat, what, refused, root)
    }

    fn item(
        &self,
        path: &Path,
        stat: &FileStat,
        what: What,
        refused: Vec<String>,
        root: &mut Root,
    ) -> Result {
        if root.items >= self.limits.items {
            root.full = true;
            let reason = format!(
                "there are more than {} keys in it; the rest is left out",
                self.limits.items
            );
            return self.gap(&root.path, reason);
        }
        root.items += 1;
        self.send(Message::Item(Box::new(Item {
            path: path.to_owned(),
            what,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mode: stat.st_mode & 0o7777,
            modified: modified(stat),
            refused,
            authorized_in: Vec::new(),
        })))
    }

    /// The names in a directory that are wanted, sorted.
    fn names(
        &self,
        dir: &OwnedFd,
        path: &Path,
        wanted: impl Fn(&OsStr) -> bool,
    ) -> std::result::Result<Vec<OsString>, Ended> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let opened = openat(dir, ".", flags, Mode::empty()).and_then(Dir::from_fd);
        let mut opened = match opened {
            Ok(opened) => opened,
            Err(error) => {
                self.failed(path, "cannot be listed", error)?;
                return Ok(Vec::new());
            }
        };
        let mut names = Vec::new();
        for (count, entry) in opened.iter().enumerate() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    self.failed(path, "cannot be listed to its end", error)?;
                    break;
                }
            };
            if count >= NAMES {
                self.gap(
                    path,
                    format!("it has more than {NAMES} names; some are left out"),
                )?;
                break;
            }
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." && wanted(name) {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }
}

/// The name that sshd or ssh looks for, for which the directory takes `name`.
fn sought(dir: &OwnedFd, name: &OsStr) -> Option<&'static OsStr> {
    let names = LOOKED_FOR.iter().map(OsStr::new);
    let mut alike = names.filter(|wanted| may_be(name, wanted)).peekable();
    alike.peek()?;
    let dir = folds(dir.as_fd()).then_some(dir.as_fd())?;
    alike.find(|wanted| is_one(dir, name, wanted) == Some(true))
}

/// Opens a directory on the way to a watched one. A link there is followed only
/// if it is root's.
fn enter(dir: &OwnedFd, name: &OsStr) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let opened = openat(dir, name, flags | OFlag::O_NOFOLLOW, Mode::empty());
    // With O_DIRECTORY and O_NOFOLLOW a link is ENOTDIR (open(2)).
    let Err(Errno::ENOTDIR | Errno::ELOOP) = opened else {
        return opened;
    };
    let place = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let stat = fstat(openat(dir, name, place, Mode::empty())?)?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFLNK {
        return Err(Errno::ENOTDIR);
    }
    if stat.st_uid != 0 {
        return Err(Errno::ELOOP);
    }
    openat(dir, name, flags, Mode::empty())
}

/// Whose files sshd takes in a watched directory, and why it takes none: with
/// `StrictModes`, the directory and the home above it must belong to the user or
/// to root, and nobody else may write to them (`safe_path` of OpenSSH).
fn strict(dir: &OwnedFd, path: &Path) -> (Option<u32>, Vec<String>) {
    if path.file_name() != Some(OsStr::new(".ssh")) {
        return (None, Vec::new());
    }
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let home = openat(dir, "..", flags, Mode::empty()).and_then(fstat);
    let (Ok(own), Ok(home)) = (fstat(dir), home) else {
        return (None, Vec::new());
    };
    let mut refused = Vec::new();
    let above = path.parent().unwrap_or(path);
    for (path, stat) in [(path, &own), (above, &home)] {
        let shown = path.display();
        if stat.st_mode & 0o022 != 0 {
            refused.push(format!(
                "the mode of {shown} is {:04o}",
                stat.st_mode & 0o7777
            ));
        }
        if stat.st_uid != 0 && stat.st_uid != home.st_uid {
            refused.push(format!("{shown} belongs to user {}", stat.st_uid));
        }
    }
    (Some(home.st_uid), refused)
}

fn modified(stat: &FileStat) -> SystemTime {
    let seconds = u64::try_from(stat.st_mtime).ok();
    let nanos = u32::try_from(stat.st_mtime_nsec).ok();
    seconds
        .zip(nanos)
        .map_or(SystemTime::UNIX_EPOCH, |(seconds, nanos)| {
            SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos)
        })
}
