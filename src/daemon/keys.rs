//! Key facts for the deciding thread: which descriptor is read, for how long it
//! is waited, and what lists of keys held before.
//!
//! Owns the threads that read, since a file server of a user's own (FUSE) can
//! make a reader wait for ever. Must not know formats ([`crate::key`]).

mod start;

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::alert::{self, Document, KeyReport};
use crate::event::assemble::{Content, SETTLE};
use crate::event::{Action, Event, FinalPath};
use crate::key::{self, Change, Entry, Inspection, Kind, Known, List, Look, Role};
use crate::resolve::slow::{Answer, Pool, Size};
use crate::sys::open::open_place;
use crate::sys::stat::{Version, look};
use crate::watch::home;
use crate::watch::pattern::Pattern;

/// How long a file is waited for.
const READ_TIME: Duration = Duration::from_millis(250);
/// How long reading all lists may take before watching begins.
const START_TIME: Duration = Duration::from_secs(2);

/// Reads key files, and remembers lists of keys.
pub struct Keys {
    pool: Pool,
    known: Known,
    looking: Option<Looking>,
}

/// On which occasion a file is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Occasion<'a> {
    /// What was done.
    pub action: Action,
    /// When the record of it was read.
    pub time: SystemTime,
    /// The former path of a rename.
    pub original: Option<&'a Path>,
    /// The event of the rename that brought the file to this place is still to come,
    /// and has the last word on what is there: it must find what was there before.
    pub is_passing: bool,
    /// How the event left the file, if it was seen.
    pub left: Option<&'a Left>,
}

impl<'a> Occasion<'a> {
    /// That of an event which left a file so.
    pub fn of<W>(event: &'a Event<W>, left: Option<&'a Left>) -> Self {
        Self {
            action: event.action,
            time: event.time,
            original: event.original_path.as_deref(),
            is_passing: matches!(event.final_path, Some(FinalPath::Renamed(_))),
            left,
        }
    }
}

/// How an event left a file.
#[derive(Clone, Debug)]
pub struct Left {
    /// What it was when the event was finished.
    pub version: Option<Version>,
    /// Somebody was at it again by then.
    pub goes_on: bool,
    /// Whose what it held was.
    pub content: Content,
}

impl Left {
    /// Whether the file that is `now` was written to since. New permissions or another
    /// owner are not it; where nobody knows, any change after the event must do.
    fn is_past(&self, now: Option<&Version>, time: SystemTime) -> bool {
        let content = |version: &Version| (version.inode, version.size, version.modified);
        let later = match (&self.version, now) {
            (Some(then), Some(now)) => content(then) != content(now),
            (None, Some(now)) => since_epoch(time + SETTLE).is_some_and(|end| now.changed > end),
            (_, None) => false,
        };
        self.goes_on || self.content == Content::Overwritten || later
    }
}

/// Whether this is a list of keys, of which it is to be known how it was left.
#[must_use]
pub fn is_list(path: &Path) -> bool {
    role_of(path).is_list()
}

/// What is to be remembered of a list once it is known what was told of it.
#[derive(Clone, Copy, Debug)]
pub enum Lesson {
    /// Nothing: another event has the last word.
    Nothing,
    /// What it holds.
    Learn(Look),
    /// That it is to be compared again, for others may have written to it.
    Note(Look),
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
            known: Known::new(home::of),
            looking: None,
        };
        keys.look_around(patterns);
        Ok(keys)
    }

    /// Lists are read while directories are marked.
    fn look_around(&mut self, patterns: &[Pattern]) {
        let deadline = Instant::now() + START_TIME;
        let begun = SystemTime::now();
        let found = Arc::new(Mutex::new(Some(Known::new(home::of))));
        let filled = Arc::clone(&found);
        let patterns = patterns.to_vec();
        let walk = self.pool.ask(move || {
            for path in start::lists_below(&patterns, deadline) {
                let Some(list) = start::logins(&path, begun) else {
                    continue;
                };
                let mut filled = filled.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(known) = &mut *filled else { break };
                known.learn(&path, &list, None);
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
        self.known = found.take().unwrap_or_else(|| Known::new(home::of));
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
                Some(before) => {
                    let list = List {
                        entries: before.to_vec(),
                        ..List::default()
                    };
                    self.known.learn(place, &list, None);
                }
                None => drop(self.known.forget(place)),
            }
        }
    }

    /// What is in `file`, which was found at `place` and verified there, and what of
    /// it is to be remembered when it is told ([`Keys::remember`]).
    pub fn report(
        &mut self,
        file: OwnedFd,
        place: &Path,
        occasion: Occasion<'_>,
    ) -> (KeyReport, Lesson) {
        let (inspection, version) = match self.read(file, place, Instant::now() + READ_TIME) {
            Ok((inspection, version)) => (Ok(inspection), version),
            Err(reason) => (Err(reason), None),
        };
        let mut report = KeyReport {
            inspection,
            beside: None,
            change: None,
            others_wrote: false,
            authorized_in: Vec::new(),
        };
        let moved = occasion.original.and_then(|original| {
            let entries = self.known.forget(original)?;
            (logs_in(original) && !logs_in(place)).then_some(entries)
        });
        let mut lesson = Lesson::Nothing;
        if let Ok(inspection) = &report.inspection {
            let facts = inspection.facts.as_ref();
            if let Some(list) = facts.and_then(|facts| facts.list.as_ref()) {
                // Who opens a list does not change it.
                if occasion.action != Action::Open {
                    let (change, others_wrote);
                    (change, others_wrote, lesson) =
                        self.change(place, list, inspection.whole, version, occasion);
                    report.change = change;
                    report.others_wrote = others_wrote;
                }
                // Who put it out of sshd's sight removed what was in it.
                if let Some(removed) = moved {
                    report.change = Some(Change {
                        added: Vec::new(),
                        removed,
                    });
                }
                // Of a list that was not read to its end, nobody knows what is gone.
                if !inspection.whole
                    && let Some(change) = &mut report.change
                {
                    change.removed.clear();
                }
            } else if !occasion.is_passing && occasion.action != Action::Open {
                report.others_wrote = occasion.left.is_some_and(|left| {
                    left.content != Content::Own || left.is_past(version.as_ref(), occasion.time)
                });
                self.known.forget(place);
            }
            let fingerprint = facts.and_then(|facts| facts.identity.fingerprint.as_deref());
            if let Some(fingerprint) = fingerprint {
                report.authorized_in = self.authorized_in(fingerprint);
            }
            if inspection.pair.is_some() {
                report.beside = beside(place);
            }
        }
        (report, lesson)
    }

    /// What changed in a list, whether that may be the work of others too, and what is
    /// to be remembered. A list is read when its event is decided, and what is in it by
    /// then can be what another one wrote.
    fn change(
        &mut self,
        place: &Path,
        list: &List,
        whole: bool,
        version: Option<Version>,
        occasion: Occasion<'_>,
    ) -> (Option<Change>, bool, Lesson) {
        let mut change = self.known.compare(place, list);
        // Who reads a list as sshd does may find more in it than we do.
        let is_part = !whole || list.dropped > 0 || self.known.has_other_rest(place, list);
        let is_known = |change: &Change| !change.added.is_empty();
        // A name that is new held nothing before.
        if change.is_none() && occasion.action != Action::Modification {
            change = Some(Change::between(&[], &list.entries));
            if !occasion.is_passing {
                self.known.learn(place, &List::default(), None);
            }
        }
        if occasion.is_passing {
            change = change.filter(|change| !is_part || is_known(change));
            return (change, false, Lesson::Nothing);
        }
        let left = occasion.left;
        let content = left.map(|left| left.content);
        if content == Some(Content::Others) {
            return (Some(Change::between(&[], &[])), false, Lesson::Nothing);
        }
        let look = Look {
            time: SystemTime::now(),
            stamp: version.map(|version| (version.inode, version.size, version.changed)),
        };
        // What an event before it was told with may have been this one's work.
        let is_told = self.known.looked(place).is_some_and(|last| {
            occasion.time <= last.time || (last.stamp.is_some() && last.stamp == look.stamp)
        });
        let is_past = left.is_some_and(|left| left.is_past(version.as_ref(), occasion.time));
        let is_shared = content == Some(Content::Shared);
        let others_wrote = is_told || is_past || is_shared || self.known.is_noted(place);
        // That nothing was added is only known where all was read, and is this event's.
        if is_part || is_told || is_past {
            change = change.filter(is_known);
        }
        let lesson = if is_past {
            Lesson::Note(look)
        } else {
            Lesson::Learn(look)
        };
        (change, others_wrote, lesson)
    }

    /// Remembers what was found. Behind an exception, too: what another one wrote
    /// meanwhile has an event of its own, which does not say that nothing was added.
    pub fn remember(&mut self, place: &Path, report: &KeyReport, lesson: Lesson) {
        let inspection = report.inspection.as_ref().ok();
        let facts = inspection.and_then(|inspection| inspection.facts.as_ref());
        let Some(list) = facts.and_then(|facts| facts.list.as_ref()) else {
            return;
        };
        match lesson {
            Lesson::Nothing => {}
            Lesson::Learn(look) => self.known.learn(place, list, Some(look)),
            Lesson::Note(look) => self.known.note(place, list, Some(look)),
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
    ) -> Result<(Inspection, Option<Version>), &'static str> {
        let role = role_of(place);
        let beside = beside(place);
        let answer = self.pool.ask(move || {
            let beside = beside.filter(|_| !role.is_list());
            let beside = beside.and_then(|path| open_place(&path).ok());
            let beside = beside.as_ref().map(OwnedFd::as_fd);
            let inspection = key::inspect(file.as_fd(), role, beside)?;
            // Not sooner: it must not be older than what was read.
            let version = look(file.as_fd(), c"").ok().and_then(|seen| seen.version);
            io::Result::Ok((inspection, version))
        });
        let answer = answer.ok_or("busy")?;
        match answer.until(deadline).ok_or("timeout")? {
            Ok(found) => Ok(found),
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

/// As stat(2) gives a time.
fn since_epoch(time: SystemTime) -> Option<(i64, u32)> {
    let time = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some((i64::try_from(time.as_secs()).ok()?, time.subsec_nanos()))
}

fn beside(path: &Path) -> Option<PathBuf> {
    Some(path.with_file_name(key::pair_name(path.file_name()?)))
}

#[cfg(test)]
mod tests;
