//! One look at a place on a file system whose server may not answer.
//!
//! Runs on a thread that may be made to wait for ever. Owns the walk, by
//! descriptors: no link in it is followed, so it never leaves the mounts that
//! lie at the place, and it ends when its time or its number of files is over.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::dir::{Dir, Type};
use nix::fcntl::{OFlag, openat};
use nix::sys::inotify::{AddWatchFlags, Inotify, WatchDescriptor};
use nix::sys::stat::{Mode, fstat};

use crate::baseline::Stat;
use crate::sys::stat::glance;
use crate::watch::mounts::{Mounts, Unreached};
use crate::watch::pattern::Pattern;
use crate::watch::tree::Place;

/// How many files are looked at in one pass; the next one goes on behind them.
const FILES: usize = 10_000;
/// How many names of one directory are looked at.
const NAMES: usize = 16_384;
/// How many directories of a place are watched with inotify.
const WATCHES: usize = 1024;
/// How many directories that cannot be listed are named.
const FAILED: usize = 100;
/// How many levels below a watched directory are looked at.
const DEPTH: usize = 64;
/// How long a server that answers is asked.
const TIME: Duration = Duration::from_secs(3);

/// What this kernel does there is told at once; the rest is found by looking.
const LOCAL: AddWatchFlags = AddWatchFlags::IN_CREATE
    .union(AddWatchFlags::IN_MODIFY)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_MOVE);

/// What a pass has found.
#[derive(Default)]
pub(super) struct Found {
    /// The watched directories that it came to.
    pub(super) roots: Vec<PathBuf>,
    /// What is there that is no directory.
    pub(super) files: Vec<(PathBuf, Stat)>,
    /// Directories whose names are all known.
    pub(super) listed: Vec<PathBuf>,
    /// What could not be looked at, or not in this pass.
    pub(super) missed: Vec<PathBuf>,
    /// Directories that could not be listed, and why.
    pub(super) failed: Vec<(PathBuf, String)>,
    /// Where the next pass begins: behind this watched directory.
    pub(super) next: Option<PathBuf>,
    /// A watched directory that is too large for a pass of its own.
    pub(super) cut: Option<PathBuf>,
    /// What is watched with inotify.
    pub(super) watches: Vec<WatchDescriptor>,
}

pub(super) struct Pass {
    inotify: Arc<Inotify>,
    /// Watched directories up to this one were looked at before.
    behind: Option<PathBuf>,
    until: Instant,
    found: Found,
}

/// Looks at a place.
///
/// # Errors
/// Nothing can be said of it: it is not mounted any more, its server fails, or it
/// does not belong to whose link leads there.
pub(super) fn look(
    place: &Place,
    behind: Option<PathBuf>,
    inotify: Arc<Inotify>,
) -> io::Result<Found> {
    let mut pass = Pass {
        inotify,
        behind,
        until: Instant::now() + TIME,
        found: Found::default(),
    };
    let dir = enter(place)?;
    pass.directory(&dir, &place.path, place.watched, &place.patterns, 0);
    // All of it is done, or else the rest comes with the next pass.
    Ok(pass.found)
}

/// Opens the place, and makes sure that it still lies where its server is.
fn enter(place: &Place) -> io::Result<OwnedFd> {
    let mut mounts = Mounts::new();
    if let Ok(_) | Err(Unreached::Failed(_)) = mounts.walk(None, &place.path, true) {
        return Err(io::Error::other("it is not mounted"));
    }
    // Without O_DIRECTORY, which would have an automount done.
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let dir = nix::fcntl::open(&place.path, flags, Mode::empty())?;
    let (_, stalls) = mounts.glance(dir.as_fd(), OsStr::new(""))?;
    if stalls.is_none() {
        return Err(io::Error::other("it is not mounted"));
    }
    if place
        .owner
        .is_some_and(|owner| fstat(&dir).is_ok_and(|stat| stat.st_uid != owner))
    {
        return Err(io::Error::other("a link of another user leads there"));
    }
    Ok(dir)
}

impl Pass {
    fn is_full(&self) -> bool {
        self.found.files.len() >= FILES || Instant::now() >= self.until
    }

    /// Looks into a directory: a watched one, or one on the way there.
    fn directory(
        &mut self,
        dir: &OwnedFd,
        path: &Path,
        watched: bool,
        patterns: &[(Pattern, usize)],
        depth: usize,
    ) {
        if watched && depth == 0 && !self.begin(path) {
            return;
        }
        let before = self.found.files.len();
        self.watch(dir);
        let mut failed = depth > DEPTH;
        let is_named = !watched && patterns.iter().all(|(at, done)| at.name(*done).is_some());
        let names = if failed {
            Vec::new()
        } else if is_named {
            let names = patterns.iter().filter_map(|(at, done)| at.name(*done));
            names.map(|name| (name.to_owned(), None)).collect()
        } else {
            list(dir).unwrap_or_else(|error| {
                failed = true;
                if self.found.failed.len() < FAILED {
                    let error = io::Error::from(error).to_string();
                    self.found.failed.push((path.to_owned(), error));
                }
                Vec::new()
            })
        };
        failed |= names.len() >= NAMES;
        for (name, kind) in names {
            let below = path.join(&name);
            let next: Vec<(Pattern, usize)> = patterns
                .iter()
                .filter(|(at, done)| at.matches(*done, &name))
                .map(|(at, done)| (at.clone(), done + 1))
                .collect();
            let is_root = next.iter().any(|(at, done)| *done == at.depth());
            let inside = watched || is_root;
            if !inside && next.is_empty() {
                continue;
            }
            if self.is_full() {
                self.found.missed.push(below);
                continue;
            }
            match entry(dir, &name, kind) {
                Ok(Some(child)) => {
                    let depth = if watched { depth + 1 } else { 0 };
                    let next: Vec<_> = next
                        .into_iter()
                        .filter(|(at, done)| *done < at.depth())
                        .collect();
                    self.directory(&child, &below, inside, &next, depth);
                }
                Ok(None) if watched => match stat(dir, &name) {
                    Ok(stat) => self.found.files.push((below, stat)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(_) => self.found.missed.push(below),
                },
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(_) => self.found.missed.push(below),
            }
        }
        if failed {
            self.found.missed.push(path.to_owned());
        } else {
            self.found.listed.push(path.to_owned());
        }
        if watched && depth == 0 && self.found.next.is_none() && self.is_full() {
            self.found.next = Some(path.to_owned());
            if before == 0 && self.found.files.len() >= FILES {
                self.found.cut = Some(path.to_owned());
            }
        }
    }

    /// Whether a watched directory's turn has come.
    fn begin(&mut self, path: &Path) -> bool {
        self.found.roots.push(path.to_owned());
        let done = self.behind.as_deref().is_some_and(|behind| path <= behind);
        if done {
            self.found.missed.push(path.to_owned());
        }
        !done
    }

    fn watch(&mut self, dir: &OwnedFd) {
        if self.found.watches.len() < WATCHES {
            let path = format!("/proc/self/fd/{}", dir.as_raw_fd());
            // Without it the change is found by the next pass.
            let watch = self.inotify.add_watch(path.as_str(), LOCAL);
            self.found.watches.extend(watch);
        }
    }
}

/// Opens `name` if it is a directory.
fn entry(dir: &OwnedFd, name: &OsStr, kind: Option<Type>) -> io::Result<Option<OwnedFd>> {
    if kind.is_some_and(|kind| kind != Type::Directory) {
        return Ok(None);
    }
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let child = openat(dir, name, flags, Mode::empty())?;
    Ok((glance(child.as_fd(), c"")?.kind == libc::S_IFDIR).then_some(child))
}

fn stat(dir: &OwnedFd, name: &OsStr) -> io::Result<Stat> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = openat(dir, name, flags, Mode::empty())?;
    Ok(Stat::from(&File::from(file).metadata()?))
}

/// The names in a directory, sorted; at most [`NAMES`].
fn list(dir: &OwnedFd) -> nix::Result<Vec<(OsString, Option<Type>)>> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let mut dir = Dir::openat(dir, ".", flags, Mode::empty())?;
    let mut names = Vec::new();
    for entry in dir.iter() {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            names.push((name.to_owned(), entry.file_type()));
        }
        if names.len() >= NAMES {
            break;
        }
    }
    names.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(names)
}
