//! The lists that are there at the start.
//!
//! Owns which are looked for, and how many. What a server keeps is not asked for.

use std::ffi::OsStr;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use nix::sys::stat::fstat;

use super::{role_of, since_epoch};
use crate::key::{self, List, Role};
use crate::sys::open::open_place;
use crate::watch::mounts::Mounts;
use crate::watch::pattern::Pattern;

/// How many lists are read before watching begins.
const LISTS: usize = 4096;
/// How many names of a directory are looked at for that.
const NAMES: usize = 1024;

/// Who might log in by this file at a time: what was written since is told by a
/// record, and must not be taken for what was there before.
pub(super) fn logins(path: &Path, at: SystemTime) -> Option<List> {
    let file = open_place(path).ok()?;
    let stat = fstat(&file).ok()?;
    let at = since_epoch(at)?;
    let changed = (stat.st_ctime, u32::try_from(stat.st_ctime_nsec).ok()?);
    // Some file systems keep whole seconds.
    if changed > at || (changed.1 == 0 && changed.0 == at.0) {
        return None;
    }
    let inspection = key::inspect(file.as_fd(), role_of(path), None).ok()?;
    let facts = inspection.facts.filter(|_| inspection.whole)?;
    facts.list
}

/// Lists of logins in the directories that `patterns` name.
pub(super) fn lists_below(patterns: &[Pattern], deadline: Instant) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for pattern in patterns {
        let mut directories = vec![PathBuf::from("/")];
        for depth in 0..pattern.depth() {
            directories = match pattern.name(depth) {
                Some(name) => directories.iter().map(|path| path.join(name)).collect(),
                None => below(&directories, |name| pattern.matches(depth, name), deadline),
            };
        }
        found.extend(below(
            &directories,
            |name| Role::of(name) == Role::AuthorizedKeys,
            deadline,
        ));
    }
    found.sort();
    found.dedup();
    found.truncate(LISTS);
    found
}

fn below(
    directories: &[PathBuf],
    wanted: impl Fn(&OsStr) -> bool,
    deadline: Instant,
) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut mounts = Mounts::new();
    for directory in directories {
        if found.len() >= LISTS || Instant::now() >= deadline {
            break;
        }
        // What a server keeps is not asked for, nor an automount done.
        if mounts.walk(None, directory, true).is_err() {
            continue;
        }
        let Ok(entries) = directory.read_dir() else {
            continue;
        };
        for entry in entries.flatten().take(NAMES) {
            if wanted(&entry.file_name()) {
                found.push(entry.path());
            }
        }
    }
    found
}
