//! Which directories exist and are watched, and what the kernel tells of them.
//!
//! Owns the groups, the marks, the discovery of directories that come later,
//! the scan of a directory that has just been marked, the hold and the inotify
//! fallback. Must not know rules, nor read `/proc`: who an opener is is asked
//! of an [`hold::Identify`] that the composition root gives.
//!
//! A directory that cannot be marked, a limit that is reached and records that
//! the kernel lost are [`Problem`]s in the same stream as the changes: they are
//! never silent.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use self::home::Home;
use crate::sys::{ObjectId, PidFd};

pub mod beat;
pub mod berth;
pub mod deadline;
pub mod fanotify;
pub mod fence;
pub mod folded;
pub mod hold;
pub mod home;
pub mod inotify;
pub mod loud;
pub mod mounts;
pub mod pattern;
pub mod repeats;
pub mod tree;

/// How an event came to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// A fanotify record.
    Fanotify,
    /// An inotify record (no writer's pid).
    Inotify,
    /// Found by the scan of a directory that had just become watched.
    Scan,
    /// Found by comparing what is there with what was known before.
    Baseline,
}

impl Evidence {
    /// The value of `ssh_keywatch.evidence`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fanotify => "fanotify",
            Self::Inotify => "inotify",
            Self::Scan => "scan",
            Self::Baseline => "baseline",
        }
    }
}

/// Who a record names.
#[derive(Debug)]
pub struct Writer {
    /// Process id; 0 when it is outside our pid namespace.
    pub pid: i32,
    /// The process itself, unless it was gone when the record was read.
    pub pidfd: Option<PidFd>,
    /// The record tells of one act alone ([`repeats`]).
    pub once: Arc<AtomicBool>,
}

impl Writer {
    /// Whether no later act of the process can be part of its record. Not known before
    /// the queue has been read to its end.
    #[must_use]
    pub fn acted_once(&self) -> bool {
        self.once.load(Ordering::Relaxed)
    }
}

/// What was done to an entry of a watched directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The name was made. `again` when it had been reported before, by the
    /// scan of its directory.
    Created {
        /// Reported before.
        again: bool,
    },
    /// The name came by a rename, from `from` if that was below a watched
    /// directory too.
    Renamed {
        /// The former path.
        from: Option<PathBuf>,
    },
    /// The content changed.
    Modified,
    /// A descriptor open for writing was closed.
    Closed,
    /// It was opened. Told only where opens are asked for ([`tree::Scope::opens`]).
    Opened,
    /// The name went away.
    Deleted,
}

/// Something that happened to a file below a watched directory.
#[derive(Clone, Debug)]
pub struct Change {
    /// What.
    pub what: What,
    /// Its path, below the path its directory is watched under.
    pub path: PathBuf,
    /// The home that it lies in.
    pub home: Home,
    /// Which object it is; `None` where the file system or the fallback gives no identity.
    pub object: Option<ObjectId>,
    /// A scan found it in a directory that was moved there, with all in it.
    pub moved: bool,
    /// Who the record names; for a scan, who made or moved the directory.
    pub writer: Option<Arc<Writer>>,
    /// How it is known.
    pub evidence: Evidence,
}

/// Something that went wrong while watching; the daemon goes on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A directory could not be marked.
    #[error("cannot watch {}: {reason}; files made in it go unseen", path.display())]
    Unwatched {
        /// Which.
        path: PathBuf,
        /// The error.
        reason: String,
    },
    /// A directory is watched but new files in it are not held.
    #[error("cannot hold the making of files in {}: {reason}; writers that exit at once may go unnamed", path.display())]
    Unheld {
        /// Which.
        path: PathBuf,
        /// The error.
        reason: String,
    },
    /// The limit of watched directories is reached.
    #[error("{} is not watched: the limit of {limit} directories is reached (watch.max_directories)", path.display())]
    TooMany {
        /// The first that was left out.
        path: PathBuf,
        /// The limit.
        limit: usize,
    },
    /// A home has more directories than one may have.
    #[error("{} has more than {limit} directories: what happens in further ones goes unseen (watch.home_directories)", home.display())]
    HomeDirectories {
        /// Which.
        home: PathBuf,
        /// The limit.
        limit: usize,
    },
    /// A home has more files than are remembered of one.
    #[error("{} has more than {limit} files: further ones are told when they change, but not remembered, and not compared after a gap (watch.home_files)", home.display())]
    HomeFiles {
        /// Which.
        home: PathBuf,
        /// The limit.
        limit: usize,
    },
    /// Somebody moves directories so fast that they cannot be looked into each time.
    #[error("directories in {} come and go faster than they can be looked into: it is made up for within seconds", home.display())]
    Unscanned {
        /// Where.
        home: PathBuf,
    },
    /// A tree is nested too deeply.
    #[error("{} is not watched: it is nested more than {limit} directories deep", path.display())]
    TooDeep {
        /// The first that was left out.
        path: PathBuf,
        /// The limit.
        limit: usize,
    },
    /// So many files have names elsewhere that not all of them can be followed.
    #[error("what is written to {} through another of its names goes unseen: too many files have several", path.display())]
    TooManyLinks {
        /// The first that was left out.
        path: PathBuf,
    },
    /// A directory could not be listed.
    #[error("cannot list {}: {reason}; what it holds already is unknown", path.display())]
    Unlisted {
        /// Which.
        path: PathBuf,
        /// The error.
        reason: String,
    },
    /// The kernel lost records.
    #[error("the kernel's event queue overflowed; every watched directory is scanned again")]
    Overflow,
}

impl Problem {
    /// A stable name, for counters and `event.reason`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unwatched { .. } => "directory_unwatched",
            Self::Unheld { .. } => "directory_unheld",
            Self::TooMany { .. } => "directory_limit",
            Self::HomeDirectories { .. } => "home_directory_limit",
            Self::HomeFiles { .. } => "home_file_limit",
            Self::Unscanned { .. } => "home_unscanned",
            Self::TooDeep { .. } => "depth_limit",
            Self::TooManyLinks { .. } => "link_limit",
            Self::Unlisted { .. } => "directory_unlisted",
            Self::Overflow => "queue_overflow",
        }
    }
}

/// One item of the stream that watching gives, in the kernel's order.
#[derive(Debug)]
pub enum Notice {
    /// Something happened to a file.
    Change(Change),
    /// Watching itself had a problem.
    Problem(Problem),
    /// The fence with this number has been passed ([`fence`]).
    Fence(u64),
    /// The marks of a home were taken off, as had been asked for; who was there.
    Muted(Home, Option<Arc<Writer>>),
}
