//! Key facts for the deciding thread: which descriptor is read, for how long it
//! is waited, and what lists of keys held before.
//!
//! Owns the threads that read, since a file server of a user's own (FUSE) can
//! make a reader wait for ever. Must not know formats ([`crate::key`]).

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use crate::alert::{self, Document, KeyReport};
use crate::event::Action;
use crate::key::{self, Change, Entry, Inspection, Kind, Known, Role};
use crate::resolve::slow::{Pool, Size};
use crate::watch::pattern::Pattern;

/// How long a file is waited for.
const READ_TIME: Duration = Duration::from_millis(250);
/// How long reading all lists may take before watching begins.
const START_TIME: Duration = Duration::from_secs(2);
/// How many lists are read before watching begins.
const START_LISTS: usize = 4096;
/// How many names of a directory are looked at for that.
const START_NAMES: usize = 1024;

/// Reads key files, and remembers lists of keys.
pub struct Keys {
    pool: Pool,
    known: Known,
}

impl Keys {
    /// Starts the threads, and reads the lists that are there already, so that
    /// the first change to one of them can be told.
    ///
    /// # Errors
    /// Threads cannot be started.
    pub fn start(patterns: &[Pattern]) -> io::Result<Self> {
        let size = Size {
            threads: 4,
            backlog: 4,
            urgent: false,
        };
        let mut keys = Self {
            pool: Pool::start(size)?,
            known: Known::default(),
        };
        keys.look_around(patterns);
        Ok(keys)
    }

    /// Takes what comes in time: a home on a file server that hangs costs no more.
    fn look_around(&mut self, patterns: &[Pattern]) {
        let deadline = Instant::now() + START_TIME;
        let (sender, lists) = std::sync::mpsc::channel();
        let patterns = patterns.to_vec();
        let walk = self.pool.ask(move || {
            for path in lists_below(&patterns, deadline) {
                if let Some(entries) = logins(&path)
                    && sender.send((path, entries)).is_err()
                {
                    break;
                }
            }
        });
        let left = || deadline.saturating_duration_since(Instant::now());
        while let Ok((path, entries)) = lists.recv_timeout(left()) {
            self.known.learn(&path, &entries);
        }
        if walk.is_none_or(|walk| walk.until(deadline).is_none()) {
            tracing::warn!(
                "reading every authorized_keys took too long: the first change to one that was \
                 not read is told without what was added"
            );
        }
    }

    /// What is in `file`, which was found at `place` and verified there.
    pub fn report(
        &mut self,
        file: OwnedFd,
        place: &Path,
        action: Action,
        original: Option<&Path>,
    ) -> KeyReport {
        let inspection = self.read(file, place, Instant::now() + READ_TIME);
        let mut change = None;
        let mut authorized_in = Vec::new();
        if let Some(original) = original {
            self.known.forget(original);
        }
        if let Ok(inspection) = &inspection {
            let facts = inspection.facts.as_ref();
            if let Some(list) = facts.and_then(|facts| facts.list.as_ref()) {
                change = self.known.learn(place, &list.entries);
                // A name that is new held nothing before.
                if change.is_none() && action != Action::Modification {
                    change = Some(Change::between(&[], &list.entries));
                }
                // Of a list that was not read to its end, nobody knows what is gone.
                if !inspection.whole
                    && let Some(change) = &mut change
                {
                    change.removed.clear();
                }
            } else {
                self.known.forget(place);
            }
            let fingerprint = facts.and_then(|facts| facts.identity.fingerprint.as_deref());
            if let Some(fingerprint) = fingerprint {
                authorized_in = self.authorized_in(fingerprint);
            }
        }
        let has_pair = matches!(&inspection, Ok(inspection) if inspection.pair.is_some());
        KeyReport {
            inspection,
            beside: has_pair.then(|| beside(place)).flatten(),
            change,
            authorized_in,
        }
    }

    /// Adds to a deletion's document what a list held that is gone.
    pub fn deleted(&mut self, path: &Path, document: &mut Document) {
        // Another file may have taken the name meanwhile.
        if path.symlink_metadata().is_ok() {
            return;
        }
        if let Some(entries) = self.known.forget(path) {
            let kind = match role_of(path) {
                Role::KnownHosts => Kind::KnownHosts,
                _ => Kind::AuthorizedKeys,
            };
            alert::set_removed_list(document, kind, &entries);
        }
    }

    /// The files of logins that have the key, by the names that sshd looks for.
    fn authorized_in(&self, fingerprint: &str) -> Vec<PathBuf> {
        let holders = self.known.holders(fingerprint).into_iter();
        holders
            .filter(|path| role_of(path) == Role::AuthorizedKeys)
            .map(Path::to_owned)
            .collect()
    }

    fn read(
        &self,
        file: OwnedFd,
        place: &Path,
        deadline: Instant,
    ) -> Result<Inspection, &'static str> {
        let role = role_of(place);
        let beside = beside(place);
        let answer = self.pool.ask(move || {
            let beside = beside.filter(|_| !role.is_list());
            let beside = beside.and_then(|path| open_path(&path).ok());
            key::inspect(file.as_fd(), role, beside.as_ref().map(OwnedFd::as_fd))
        });
        let answer = answer.ok_or("busy")?;
        match answer.until(deadline).ok_or("timeout")? {
            Ok(inspection) => Ok(inspection),
            Err(error) => {
                tracing::debug!("cannot read {}: {error}", crate::text::escape_path(place));
                Err(match error.kind() {
                    io::ErrorKind::PermissionDenied => "permission_denied",
                    io::ErrorKind::WouldBlock => "leased",
                    io::ErrorKind::NotFound => "gone",
                    _ => "error",
                })
            }
        }
    }
}

fn role_of(path: &Path) -> Role {
    path.file_name().map_or(Role::Other, Role::of)
}

fn beside(path: &Path) -> Option<PathBuf> {
    Some(path.with_file_name(key::pair_name(path.file_name()?)))
}

fn open_path(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(open(path, flags, Mode::empty())?)
}

/// Who may log in by this file.
fn logins(path: &Path) -> Option<Vec<Entry>> {
    let file = open_path(path).ok()?;
    let inspection = key::inspect(file.as_fd(), role_of(path), None).ok()?;
    let facts = inspection.facts.filter(|_| inspection.whole)?;
    Some(facts.list?.entries)
}

/// Lists of logins in the directories that `patterns` name.
fn lists_below(patterns: &[Pattern], deadline: Instant) -> Vec<PathBuf> {
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
    found.truncate(START_LISTS);
    found
}

fn below(
    directories: &[PathBuf],
    wanted: impl Fn(&OsStr) -> bool,
    deadline: Instant,
) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for directory in directories {
        if found.len() >= START_LISTS || Instant::now() >= deadline {
            break;
        }
        let Ok(entries) = directory.read_dir() else {
            continue;
        };
        for entry in entries.flatten().take(START_NAMES) {
            if wanted(&entry.file_name()) {
                found.push(entry.path());
            }
        }
    }
    found
}
