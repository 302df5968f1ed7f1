//! Waiting for the log to change, without asking again and again.
//!
//! Owns the inotify watch (through `notify`) on the log's directory. Watching
//! the directory and not the file is what makes rotation visible. Must not read
//! the log. Fails soft: where nothing can tell of a change it looks once a
//! second. That is so while inotify has no watch to spare (said once), and while
//! the log is not there: a directory that was removed with the log in it sends
//! no word, because the open log keeps its inode alive.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

use crate::text::escape_path;

/// How often to look where nothing can tell.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

pub(super) struct Waiter {
    log: PathBuf,
    watch: Result<Watch, String>,
    /// That it must look by the clock has been said.
    said: bool,
}

impl Waiter {
    /// From here on no change goes unnoticed.
    pub(super) fn new(log: &Path) -> Self {
        Self {
            log: log.to_owned(),
            watch: Watch::new(log),
            said: false,
        }
    }

    /// Returns when something may have changed since the last call; with a word
    /// for the user where it has to look by the clock, once an outage.
    pub(super) fn wait(&mut self, log_is_there: bool) -> Option<String> {
        match &self.watch {
            Ok(watch) if watch.is_good() => {
                self.said = false;
                // The sender lives in the watcher, which is ours: no hanging up.
                if log_is_there {
                    let _ = watch.changes.recv();
                } else {
                    let _ = watch.changes.recv_timeout(LOOK_AGAIN);
                }
                return None;
            }
            Ok(_) => {}
            Err(_) => thread::sleep(LOOK_AGAIN),
        }
        // After this there is no waiting: what came before the watch was on is
        // yet to be looked at. A new watcher, because notify knows its watches by
        // path, and late news of the old directory would take the new one's watch.
        self.watch = Watch::new(&self.log);
        let why = self.watch.as_ref().err()?;
        // While the log is missing so may be its directory; that has been said.
        let say = log_is_there && !std::mem::replace(&mut self.said, log_is_there);
        say.then(|| {
            format!("looking at the log once a second, because inotify does not serve: {why}")
        })
    }
}

struct Watch {
    changes: Receiver<()>,
    /// A watched directory has been removed or renamed.
    lost: Arc<AtomicBool>,
    /// The directories, and which (device, inode) they were.
    dirs: Vec<(PathBuf, (u64, u64))>,
    /// Watches as long as it lives.
    _watcher: RecommendedWatcher,
}

impl Watch {
    fn new(log: &Path) -> Result<Self, String> {
        // Where the log is a link, the writing happens in another directory.
        let target = fs::canonicalize(log).ok().filter(|target| target != log);
        let paths: Vec<&Path> = [Some(log), target.as_deref()]
            .into_iter()
            .flatten()
            .collect();
        let names: Vec<OsString> = paths
            .iter()
            .filter_map(|path| path.file_name())
            .map(OsString::from)
            .collect();
        let mut dirs: Vec<PathBuf> = paths.iter().map(|path| directory(path)).collect();
        dirs.dedup();

        // One token is enough: it says "look again", not how often.
        let (sender, changes) = mpsc::sync_channel(1);
        let lost = Arc::new(AtomicBool::new(false));
        let (flag, own_dirs) = (Arc::clone(&lost), dirs.clone());
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            let wakes = event.map_or(true, |event| {
                if is_loss(&event, &own_dirs) {
                    flag.store(true, SeqCst);
                }
                concerns(&event, &names, &own_dirs)
            });
            if wakes {
                // Full: it will look anyway. Disconnected: nobody waits.
                let _ = sender.try_send(());
            }
        })
        .map_err(|error| error.to_string())?;
        let mut known = Vec::with_capacity(dirs.len());
        for dir in dirs {
            let identity =
                identity(&dir).map_err(|error| format!("{}: {error}", escape_path(&dir)))?;
            watcher
                .watch(&dir, RecursiveMode::NonRecursive)
                .map_err(|error| error.to_string())?;
            known.push((dir, identity));
        }
        Ok(Self {
            changes,
            lost,
            dirs: known,
            _watcher: watcher,
        })
    }

    fn is_good(&self) -> bool {
        !self.lost.load(SeqCst)
            && self
                .dirs
                .iter()
                .all(|(dir, was)| identity(dir).is_ok_and(|is| is == *was))
    }
}

fn identity(dir: &Path) -> io::Result<(u64, u64)> {
    fs::metadata(dir).map(|meta| (meta.dev(), meta.ino()))
}

fn directory(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Whether an event takes the watch of a directory away, or its meaning.
fn is_loss(event: &Event, dirs: &[PathBuf]) -> bool {
    matches!(
        event.kind,
        EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_))
    ) && event.paths.iter().any(|path| dirs.contains(path))
}

/// Whether an event can mean news: of the log, of a rotated sibling whose name
/// starts like the log's, or of the directory itself. Reading is no news.
fn concerns(event: &Event, names: &[OsString], dirs: &[PathBuf]) -> bool {
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => {}
        EventKind::Access(_) => return false,
        _ => {}
    }
    event.need_rescan()
        || event.paths.is_empty()
        || event.paths.iter().any(|path| {
            dirs.contains(path)
                || path.file_name().is_some_and(|name| {
                    names
                        .iter()
                        .any(|own| name.as_bytes().starts_with(own.as_bytes()))
                })
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use notify::event::{CreateKind, Flag, RemoveKind, RenameMode};

    #[test]
    fn only_news_of_the_log_wakes() {
        let names = [OsString::from("alerts.json")];
        let dirs = [PathBuf::from("/l")];
        let event = |kind: EventKind, path: &str| Event::new(kind).add_path(path.into());
        let modify = EventKind::Modify(ModifyKind::Any);
        for (event, wakes) in [
            (event(modify, "/l/alerts.json"), true),
            (event(modify, "/l/alerts.json.1"), true),
            (
                event(EventKind::Create(CreateKind::File), "/l/alerts.json"),
                true,
            ),
            (
                event(
                    EventKind::Access(AccessKind::Close(AccessMode::Write)),
                    "/l/alerts.json",
                ),
                true,
            ),
            (
                event(
                    EventKind::Access(AccessKind::Open(AccessMode::Any)),
                    "/l/alerts.json",
                ),
                false,
            ),
            (event(modify, "/l/other.log"), false),
            (event(EventKind::Any, "/l"), true),
            (Event::new(EventKind::Other).set_flag(Flag::Rescan), true),
        ] {
            assert_eq!(concerns(&event, &names, &dirs), wakes, "{event:?}");
        }
    }

    #[test]
    fn a_directory_that_goes_away_takes_its_watch_with_it() {
        let dirs = [PathBuf::from("/l")];
        for (kind, path, lost) in [
            (EventKind::Remove(RemoveKind::Folder), "/l", true),
            (
                EventKind::Modify(ModifyKind::Name(RenameMode::From)),
                "/l",
                true,
            ),
            (EventKind::Remove(RemoveKind::File), "/l/alerts.json", false),
            (EventKind::Modify(ModifyKind::Any), "/l", false),
        ] {
            assert_eq!(
                is_loss(&Event::new(kind).add_path(path.into()), &dirs),
                lost,
                "{kind:?} {path}"
            );
        }
    }
}
