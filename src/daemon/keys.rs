//! Key facts for the deciding thread: which descriptor is read, for how long it
//! is waited, and what lists of keys held before.
//!
//! Owns the threads that read, since a file server of a user's own (FUSE) can
//! make a reader wait for ever. Must not know formats ([`crate::key`]).

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::stat::fstat;

use crate::alert::{self, Document, KeyReport};
use crate::event::Action;
use crate::key::{self, Change, Entry, Inspection, Kind, Known, Role};
use crate::resolve::slow::{Answer, Pool, Size};
use crate::sys::open::open_place;
use crate::watch::mounts::Mounts;
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
    looking: Option<Looking>,
}

/// The look around at the start.
struct Looking {
    walk: Option<Answer<()>>,
    deadline: Instant,
    /// What it has found so far; `None`: nobody asks any more.
    found: Arc<Mutex<Option<Known>>>,
}

impl Keys {
    /// Starts the threads, and has the lists read that are there already, so that
    /// the first change to one of them can be told ([`Keys::await_lists`]).
    ///
    /// # Errors
    /// Threads cannot be started.
    pub fn start(patterns: &[Pattern]) -> io::Result<Self> {
        let size = Size {
            threads: 4,
            backlog: 4,
            urgent: false,
            movable: true,
        };
        let mut keys = Self {
            pool: Pool::start(size)?,
            known: Known::default(),
            looking: None,
        };
        keys.look_around(patterns);
        Ok(keys)
    }

    /// Lists are read while directories are marked.
    fn look_around(&mut self, patterns: &[Pattern]) {
        let deadline = Instant::now() + START_TIME;
        let begun = SystemTime::now();
        let found = Arc::new(Mutex::new(Some(Known::default())));
        let filled = Arc::clone(&found);
        let patterns = patterns.to_vec();
        let walk = self.pool.ask(move || {
            for path in lists_below(&patterns, deadline) {
                let Some(entries) = logins(&path, begun) else {
                    continue;
                };
                let mut filled = filled.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(known) = &mut *filled else { break };
                known.learn(&path, &entries);
            }
        });
        self.looking = Some(Looking {
            walk,
            deadline,
            found,
        });
    }

    /// Waits until the lists have been read, or for as long as that may take: a home
    /// on a file server that hangs costs no more. To be called before the first report.
    pub fn await_lists(&mut self) {
        let Some(looking) = self.looking.take() else {
            return;
        };
        let walked = looking.walk.and_then(|walk| walk.until(looking.deadline));
        let mut found = looking.found.lock().unwrap_or_else(PoisonError::into_inner);
        self.known = found.take().unwrap_or_default();
        if walked.is_none() {
            tracing::warn!(
                "reading every authorized_keys took too long: the first change to one that was \
                 not read is told without what was added"
            );
        }
    }

    /// What a list held before a change that nobody saw; `None`: nobody knows.
    pub fn recall(&mut self, place: &Path, before: Option<&[Entry]>) {
        if role_of(place).is_list() {
            match before {
                Some(before) => drop(self.known.learn(place, before)),
                None => drop(self.known.forget(place)),
            }
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
        let moved = original.and_then(|original| {
            let entries = self.known.forget(original)?;
            (logs_in(original) && !logs_in(place)).then_some(entries)
        });
        if let Ok(inspection) = &inspection {
            let facts = inspection.facts.as_ref();
            if let Some(list) = facts.and_then(|facts| facts.list.as_ref()) {
                change = self.known.learn(place, &list.entries);
                // A name that is new held nothing before.
                if change.is_none() && !matches!(action, Action::Modification | Action::Open) {
                    change = Some(Change::between(&[], &list.entries));
                }
                // Who put it out of sshd's sight removed what was in it.
                if let Some(removed) = moved {
                    change = Some(Change {
                        added: Vec::new(),
                        removed,
                    });
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

    /// Has something done by one of the threads, as long as it takes no longer
    /// than a file may.
    pub fn wait_for<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        self.pool.ask(job)?.until(Instant::now() + READ_TIME)
    }

    /// Adds to a deletion's document what a list held that is gone. Where a server
    /// may not answer it is gone for sure (`is_apart`).
    pub fn deleted(&mut self, path: &Path, is_apart: bool, document: &mut Document) {
        // Another file may have taken the name meanwhile.
        if !is_apart && path.symlink_metadata().is_ok() {
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

    /// The lists of logins that have the key.
    fn authorized_in(&self, fingerprint: &str) -> Vec<PathBuf> {
        let holders = self.known.holders(fingerprint).into_iter();
        holders
            .filter(|path| logs_in(path))
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
            let beside = beside.and_then(|path| open_place(&path).ok());
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

/// Whether sshd reads it by default (`AuthorizedKeysFile` in `sshd_config(5)`).
fn logs_in(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    name == "authorized_keys" || name == "authorized_keys2"
}

fn beside(path: &Path) -> Option<PathBuf> {
    Some(path.with_file_name(key::pair_name(path.file_name()?)))
}

/// Who might log in by this file at a time: what was written since is told by a
/// record, and must not be taken for what was there before.
fn logins(path: &Path, at: SystemTime) -> Option<Vec<Entry>> {
    let file = open_place(path).ok()?;
    let stat = fstat(&file).ok()?;
    let at = at.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let at = (
        i64::try_from(at.as_secs()).ok()?,
        i64::from(at.subsec_nanos()),
    );
    let changed = (stat.st_ctime, stat.st_ctime_nsec);
    // Some file systems keep whole seconds.
    if changed > at || (changed.1 == 0 && changed.0 == at.0) {
        return None;
    }
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
    let mut mounts = Mounts::new();
    for directory in directories {
        if found.len() >= START_LISTS || Instant::now() >= deadline {
            break;
        }
        // What a server keeps is not asked for, nor an automount done.
        if mounts.walk(None, directory, true).is_err() {
            continue;
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

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::tempdir;

    use super::*;

    const ANN: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDN10vUUA50jhaILXX640/rWaCKUnA11AsVZpZtbB9Nk ann\n";
    const BOB: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA bob\n";

    fn comments(entries: &[Entry]) -> Vec<&str> {
        entries
            .iter()
            .map(|entry| entry.comment.as_deref().unwrap())
            .collect()
    }

    fn report(keys: &mut Keys, path: &Path, action: Action) -> KeyReport {
        keys.report(open_place(path).unwrap(), path, action, None)
    }

    #[test]
    fn what_was_there_at_the_start_is_not_what_was_added() {
        let dir = tempdir().unwrap();
        let list = dir.path().join("ann/.ssh/authorized_keys");
        fs::create_dir_all(list.parent().unwrap()).unwrap();
        fs::write(&list, ANN).unwrap();
        let pattern = Pattern::parse(&dir.path().join("*")).unwrap().join(".ssh");
        let mut keys = Keys::start(&[pattern]).unwrap();
        keys.await_lists();

        fs::write(&list, format!("{BOB}{ANN}")).unwrap();
        let change = report(&mut keys, &list, Action::Modification)
            .change
            .unwrap();
        assert_eq!(comments(&change.added), ["bob"]);
        assert!(change.removed.is_empty());

        // By an editor: another file is renamed over it.
        fs::write(&list, BOB).unwrap();
        let change = report(&mut keys, &list, Action::Rename).change.unwrap();
        assert_eq!(comments(&change.removed), ["ann"]);

        let public = list.with_file_name("id.pub");
        fs::write(&public, BOB).unwrap();
        let found = report(&mut keys, &public, Action::Creation);
        assert_eq!(found.authorized_in, [list.as_path()]);

        let mut document = Document::new();
        keys.deleted(&list, false, &mut document);
        assert_eq!(document.get("ssh_keywatch.key"), None, "it is still there");
        fs::remove_file(&list).unwrap();
        keys.deleted(&list, false, &mut document);
        assert_eq!(document.number("ssh_keywatch.key.removed_count"), Some(1));
        let found = report(&mut keys, &public, Action::Creation);
        assert!(found.authorized_in.is_empty());
    }

    #[test]
    fn what_is_written_while_the_start_goes_on_is_not_what_was_there_before() {
        let dir = tempdir().unwrap();
        let list = dir.path().join("authorized_keys");
        fs::write(&list, ANN).unwrap();
        let second = Duration::from_secs(1);
        let (before, after) = (SystemTime::now() - second, SystemTime::now() + second);
        assert_eq!(logins(&list, before), None);
        assert_eq!(comments(&logins(&list, after).unwrap()), ["ann"]);
    }

    #[test]
    fn a_new_list_adds_all_and_an_unknown_one_is_not_compared() {
        let dir = tempdir().unwrap();
        let list = dir.path().join("authorized_keys");
        fs::write(&list, ANN).unwrap();
        let mut keys = Keys::start(&[]).unwrap();
        let found = report(&mut keys, &list, Action::Modification);
        assert_eq!(found.change, None);
        let mut rename = |from: &Path, to: &str| {
            let to = from.with_file_name(to);
            fs::rename(from, &to).unwrap();
            let file = open_place(&to).unwrap();
            let found = keys.report(file, &to, Action::Rename, Some(from));
            assert!(keys.known.forget(from).is_none(), "it is there no more");
            (to, found.change.unwrap())
        };
        let (moved, change) = rename(&list, "authorized_keys2");
        assert_eq!(comments(&change.added), ["ann"]);
        // What sshd does not look at lets nobody in.
        let (backup, change) = rename(&moved, "authorized_keys.bak");
        assert_eq!(comments(&change.removed), ["ann"]);
        assert!(change.added.is_empty());
        let (_, change) = rename(&backup, "authorized_keys");
        assert_eq!(comments(&change.added), ["ann"]);
    }

    #[test]
    fn a_key_that_cannot_be_read_in_time_is_reported_without_facts() {
        let mut keys = Keys::start(&[]).unwrap();
        let mut blockers = Vec::new();
        // The walk that came first may not have left its place yet.
        while blockers.len() < 8 {
            let (release, blocked) = std::sync::mpsc::sync_channel::<()>(0);
            if keys.pool.ask(move || blocked.recv()).is_some() {
                blockers.push(release);
            }
            std::thread::yield_now();
        }
        let dir = tempdir().unwrap();
        let path = dir.path().join("id.pub");
        fs::write(&path, ANN).unwrap();
        let found = report(&mut keys, &path, Action::Creation);
        assert_eq!(found.inspection, Err("busy"));
        drop(blockers);
    }
}
