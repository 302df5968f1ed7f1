//! Watching with inotify, through the `notify` crate: the fallback where
//! fanotify is missing or not permitted.
//!
//! Owns the watcher. inotify never says who did something: every change comes
//! without a writer, and without the object's identity, which is read by name.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Mutex, PoisonError};

use nix::sys::eventfd::EventFd;
use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RemoveKind, RenameMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};

use super::tree::{Held, Interest, Marker, Scope, Tree};
use super::{Evidence, Notice, Problem, What};
use crate::sys::handle::FileSystem;

/// How many events wait at most; beyond it everything is scanned again.
const BACKLOG: usize = 16 * 1024;

type Shared = Arc<Mutex<RecommendedWatcher>>;

struct Marks {
    watcher: Shared,
}

impl Marks {
    fn with<T>(&self, act: impl FnOnce(&mut RecommendedWatcher) -> T) -> T {
        act(&mut self.watcher.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn to_io(error: notify::Error) -> io::Error {
    match error.kind {
        notify::ErrorKind::Io(error) => error,
        notify::ErrorKind::MaxFilesWatch => io::Error::other(
            "the limit of inotify watches is reached (sysctl fs.inotify.max_user_watches)",
        ),
        kind => io::Error::other(format!("{kind:?}")),
    }
}

impl Marker for Marks {
    fn mark(
        &mut self,
        _dir: BorrowedFd<'_>,
        _ground: FileSystem,
        path: &Path,
        _interest: Interest,
    ) -> io::Result<Held> {
        self.with(|watcher| watcher.watch(path, RecursiveMode::NonRecursive))
            .map(|()| Held::No)
            .map_err(to_io)
    }

    fn unmark(&mut self, _dir: Option<BorrowedFd<'_>>, path: &Path) {
        // One that was deleted has no watch left.
        let _ = self.with(|watcher| watcher.unwatch(path));
    }

    fn no_opens(&mut self, _dir: BorrowedFd<'_>) {}

    fn moved(&mut self, from: &Path, to: &Path, _watched: bool) {
        let _ = self.with(|watcher| {
            let _ = watcher.unwatch(from);
            watcher.watch(to, RecursiveMode::NonRecursive)
        });
    }

    fn follow(&mut self, _dir: BorrowedFd<'_>, _name: &std::ffi::OsStr) -> io::Result<()> {
        // A watch on the file as well would tell what its directory's does once more.
        Err(io::ErrorKind::Unsupported.into())
    }

    fn unfollow(&mut self, _file: BorrowedFd<'_>) {}

    fn settle(&mut self, _dir: BorrowedFd<'_>, _name: &std::ffi::OsStr) {}

    fn evidence(&self) -> Evidence {
        Evidence::Inotify
    }
}

/// Watches with inotify.
pub struct InotifyWatch {
    tree: Tree,
    events: Receiver<notify::Result<Event>>,
    overrun: Arc<std::sync::atomic::AtomicBool>,
    /// The first half of a rename, until its second comes.
    moving: Option<(usize, PathBuf)>,
}

impl InotifyWatch {
    /// Makes a watch for `scope`; `wake` is written when there is something to
    /// read. Nothing is watched yet. Opens are not told: inotify does not say
    /// who opened a file, so not even that it was not us.
    ///
    /// # Errors
    /// inotify cannot be used: `EMFILE` beyond `fs.inotify.max_user_instances`.
    pub fn new(scope: Scope, wake: Arc<EventFd>) -> io::Result<Self> {
        use std::sync::atomic::{AtomicBool, Ordering};

        let (sender, events) = sync_channel(BACKLOG);
        let overrun = Arc::new(AtomicBool::new(false));
        let late = Arc::clone(&overrun);
        let watcher = notify::recommended_watcher(move |event| {
            if sender.try_send(event).is_err() {
                late.store(true, Ordering::Relaxed);
            }
            let _ = wake.write(1);
        })
        .map_err(to_io)?;
        let marks = Marks {
            watcher: Arc::new(Mutex::new(watcher)),
        };
        Ok(Self {
            tree: Tree::new(scope, Box::new(marks)),
            events,
            overrun,
            moving: None,
        })
    }

    /// Marks all that exists.
    ///
    /// # Errors
    /// Not even `/` can be watched.
    pub fn start(&mut self, out: &mut Vec<Notice>) -> io::Result<()> {
        self.tree.start(out)
    }

    /// The tree of directories.
    #[must_use]
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The tree of directories.
    pub fn tree_mut(&mut self) -> &mut Tree {
        &mut self.tree
    }

    /// Takes what is there; returns how many events there were.
    pub fn read(&mut self, out: &mut Vec<Notice>) -> usize {
        let mut count = 0;
        while let Ok(event) = self.events.try_recv() {
            count += 1;
            match event {
                Ok(event) => self.take(&event, out),
                Err(error) => tracing::warn!("inotify: {error}"),
            }
        }
        // inotify gives both halves of a rename in one piece: the second would be here.
        self.moved_away(out);
        if self
            .overrun
            .swap(false, std::sync::atomic::Ordering::Relaxed)
        {
            self.overflow(out);
        }
        count
    }

    fn overflow(&mut self, out: &mut Vec<Notice>) {
        out.push(Notice::Problem(Problem::Overflow));
        self.tree.rescan(out);
    }

    fn take(&mut self, event: &Event, out: &mut Vec<Notice>) {
        if event.need_rescan() {
            self.overflow(out);
            return;
        }
        let Some(path) = event.paths.first() else {
            return;
        };
        let Some(name) = path.file_name() else { return };
        let Some(node) = path.parent().and_then(|parent| self.tree.by_path(parent)) else {
            return;
        };
        match event.kind {
            EventKind::Create(kind) => {
                let directory = kind == CreateKind::Folder;
                self.tree.created(node, name, None, directory, None, out);
            }
            EventKind::Modify(ModifyKind::Data(_)) => {
                self.tree
                    .touched(What::Modified, node, name, None, None, out);
            }
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => {
                self.tree.touched(What::Closed, node, name, None, None, out);
            }
            EventKind::Remove(kind) => {
                let directory = kind == RemoveKind::Folder;
                self.tree.deleted(node, name, None, directory, None, out);
            }
            EventKind::Modify(ModifyKind::Name(RenameMode::From)) => {
                // A former one whose second half did not come was moved away.
                self.moved_away(out);
                self.moving = event.tracker().map(|cookie| (cookie, path.clone()));
            }
            EventKind::Modify(ModifyKind::Name(RenameMode::To)) => {
                let from = self
                    .moving
                    .take_if(|(cookie, _)| Some(*cookie) == event.tracker())
                    .map(|(_, path)| path);
                let from = from.as_deref().and_then(|from| {
                    let node = self.tree.by_path(from.parent()?)?;
                    Some((node, from.file_name()?))
                });
                let directory = path.symlink_metadata().is_ok_and(|found| found.is_dir());
                let to = Some((node, name));
                self.tree.renamed(from, to, None, directory, None, out);
            }
            _ => {}
        }
    }

    /// Finishes a rename whose second half lies outside.
    fn moved_away(&mut self, out: &mut Vec<Notice>) {
        let Some((_, path)) = self.moving.take() else {
            return;
        };
        if let (Some(parent), Some(name)) = (path.parent(), path.file_name())
            && let Some(node) = self.tree.by_path(parent)
        {
            let directory = self.tree.by_path(&path).is_some();
            self.tree.deleted(node, name, None, directory, None, out);
        }
    }
}
