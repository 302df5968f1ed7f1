//! What the watching thread reads records from, and how well it watches by that.
//!
//! Owns the words for it: the source, the mode that it makes, and the coverage of each
//! directory that the configuration names. Must not own when anything is read.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use rustix::io::ioctl_fionread;
use serde_json::json;

use crate::event::flood::Present;
use crate::proctable::{Counters, Moments};
use crate::watch::Notice;
use crate::watch::fanotify::FanotifyWatch;
use crate::watch::inotify::InotifyWatch;
use crate::watch::tree::{Held, Place, Tree};

/// Where records come from.
pub enum Source {
    /// fanotify.
    Fanotify(Box<FanotifyWatch>),
    /// The fallback.
    Inotify(Box<InotifyWatch>),
}

impl Source {
    /// Marks all that exists.
    ///
    /// # Errors
    /// Nothing can be watched.
    pub fn start(&mut self, out: &mut Vec<Notice>) -> io::Result<()> {
        match self {
            Self::Fanotify(watch) => watch.start(out),
            Self::Inotify(watch) => watch.start(out),
        }
    }

    pub(super) fn read(&mut self, out: &mut Vec<Notice>) -> io::Result<usize> {
        match self {
            Self::Fanotify(watch) => watch.read(out),
            Self::Inotify(watch) => Ok(watch.read(out)),
        }
    }

    /// How well each directory is watched that the configuration names.
    pub(super) fn roots(&self) -> Vec<CoveredRoot> {
        let holding = match self {
            Self::Fanotify(watch) => Some(watch.is_holding()),
            Self::Inotify(_) => None,
        };
        let roots = self.tree().roots().into_iter();
        roots
            .map(|root| {
                let (how, reason) = match (holding, root.held) {
                    _ if root.muted => (
                        "none",
                        Some("a flood: it is looked at again after a while".to_owned()),
                    ),
                    (None, _) => ("inotify", Some("fanotify is not in use".to_owned())),
                    (Some(true), Held::Yes) => ("held", None),
                    (_, Held::Refused(reason)) => ("fanotify", Some(reason.to_string())),
                    (Some(_), _) => ("fanotify", Some("nobody is held at present".to_owned())),
                };
                CoveredRoot {
                    path: root.path.to_owned(),
                    how,
                    reason,
                }
            })
            .collect()
    }

    /// The processes that the records of the last reading are of.
    pub(super) fn pids(&self) -> &[i32] {
        match self {
            Self::Fanotify(watch) => watch.pids(),
            Self::Inotify(_) => &[],
        }
    }

    /// The kernel's queue of records.
    pub(super) fn queue(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Fanotify(watch) => Some(watch.as_fd()),
            Self::Inotify(_) => None,
        }
    }

    /// Whether there is something in the kernel's queue, as far as that can be told.
    pub(super) fn has_more(&self) -> bool {
        let queue = self.queue();
        queue.is_some_and(|queue| ioctl_fionread(queue).is_ok_and(|bytes| bytes > 0))
    }

    /// Notes whether the watching thread sleeps.
    pub(super) fn rests(&self, at_rest: bool) {
        if let Self::Fanotify(watch) = self {
            watch.rests(at_rest);
        }
    }

    pub(super) fn tree(&self) -> &Tree {
        match self {
            Self::Fanotify(watch) => watch.tree(),
            Self::Inotify(watch) => watch.tree(),
        }
    }

    pub(super) fn tree_mut(&mut self) -> &mut Tree {
        match self {
            Self::Fanotify(watch) => watch.tree_mut(),
            Self::Inotify(watch) => watch.tree_mut(),
        }
    }
}

/// How it is watched: `ssh_keywatch.mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// fanotify, and writers are held while they are identified.
    Held,
    /// The same, with the process table.
    HeldTable,
    /// fanotify without the hold.
    Fanotify,
    /// The same, with the process table.
    FanotifyTable,
    /// inotify: no writer is known.
    Inotify,
}

impl Mode {
    /// The mode that `source` makes, with or without the hold and the process table.
    #[must_use]
    pub fn of(source: &Source, held: bool, table: bool) -> Self {
        match (source, held, table) {
            (Source::Inotify(_), ..) => Self::Inotify,
            (Source::Fanotify(_), true, true) => Self::HeldTable,
            (Source::Fanotify(_), true, false) => Self::Held,
            (Source::Fanotify(_), false, true) => Self::FanotifyTable,
            (Source::Fanotify(_), false, false) => Self::Fanotify,
        }
    }

    /// Its name in documents.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Held => "fanotify+hold",
            Self::HeldTable => "fanotify+hold+table",
            Self::Fanotify => "fanotify",
            Self::FanotifyTable => "fanotify+table",
            Self::Inotify => "inotify",
        }
    }
}

/// A directory that the configuration names, and how well it is watched.
#[derive(Clone, Debug)]
pub struct CoveredRoot {
    /// Its path.
    pub path: PathBuf,
    /// How: `held` (fanotify, and the making of files is held), `fanotify`, `inotify`,
    /// `polled` (looked at now and then), or `none`, such as for as long as a flood there
    /// is not looked at.
    pub how: &'static str,
    /// Why not better.
    pub reason: Option<String>,
}

impl CoveredRoot {
    /// One that nobody looks at.
    pub(super) fn apart(place: Place) -> Self {
        let kind = place.kind.display();
        let reason = format!("it lies on {kind}, which is looked at with a baseline alone");
        Self {
            path: place.path,
            how: "none",
            reason: Some(reason),
        }
    }
}

/// What is watched.
#[derive(Clone, Debug)]
pub struct Coverage {
    /// The directories that the configuration names, as far as they exist.
    pub roots: Vec<CoveredRoot>,
    /// All watched directories.
    pub directories: usize,
    /// Events that could not be handed on.
    pub dropped: u64,
    /// Floods that go on.
    pub floods: Vec<Present>,
    /// Events that were counted in floods instead of told.
    pub flooded: u64,
    /// The process table: how exact it is, and what it has lost.
    pub table: Option<(Moments, Counters)>,
}

impl Coverage {
    /// As `ssh_keywatch.coverage`. Of many roots only the first are named.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        const NAMED: usize = 100;
        let roots: Vec<serde_json::Value> = self
            .roots
            .iter()
            .take(NAMED)
            .map(|root| {
                let mut value = json!({
                    "path": crate::text::escape_path(&root.path),
                    "how": root.how,
                });
                if let Some(reason) = &root.reason {
                    value["reason"] = json!(reason);
                }
                value
            })
            .collect();
        json!({
            "root_count": self.roots.len(),
            "roots": roots,
            "directories": self.directories,
            "events_dropped": self.dropped,
            "events_flooded": self.flooded,
            "process_table": self.table.map(|(moments, counters)| json!({
                "moments": moments.as_str(),
                "lost": counters.lost,
                "repaired": counters.repaired,
            })),
        })
    }
}
