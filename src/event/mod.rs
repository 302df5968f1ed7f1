//! What happened: which action, on which object, when, noticed how.
//!
//! Owns the vocabulary of actions and the state between a file's creation and
//! the moment it has settled. Must not do I/O: clocks and facts are given.

pub mod assemble;
pub mod flood;
mod opens;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::SystemTime;

pub use crate::watch::Evidence;

/// What was done to the object, in the words of `event.action` as Elastic
/// Defend uses them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A name that was not there before: made or linked, or found below a
    /// directory that had just become watched.
    Creation,
    /// A name came by rename(2); the former path is known if it was watched.
    Rename,
    /// The content of an existing file changed.
    Modification,
    /// A name went away.
    Deletion,
    /// The file was opened; told where a rule asks for it.
    Open,
    /// So much happened in a home that it is no longer told one by one.
    Flood,
}

impl Action {
    /// The value of `event.action`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creation => "creation",
            Self::Rename => "rename",
            Self::Modification => "modification",
            Self::Deletion => "deletion",
            Self::Open => "open",
            Self::Flood => "flood",
        }
    }

    /// The value of `event.type` (ECS allowed values for category `file`).
    #[must_use]
    pub fn event_type(self) -> &'static str {
        match self {
            Self::Creation => "creation",
            Self::Rename | Self::Modification => "change",
            Self::Deletion => "deletion",
            Self::Open => "access",
            Self::Flood => "info",
        }
    }
}

/// The type of an object, as `file.type` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A FIFO.
    Fifo,
    /// A socket.
    Socket,
    /// A character or block device.
    Device,
}

impl FileKind {
    /// The value of `file.type` (ECS: file, dir, symlink; others by their name).
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Dir => "dir",
            Self::Symlink => "symlink",
            Self::Fifo => "fifo",
            Self::Socket => "socket",
            Self::Device => "device",
        }
    }
}

/// What lstat(2)/statx(2) told of an object when its event was finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileFacts {
    /// Type of the object.
    pub kind: FileKind,
    /// `st_dev`.
    pub device: u64,
    /// `st_ino`.
    pub inode: u64,
    /// Permission bits, `0o7777` at most.
    pub mode: u32,
    /// Owner's numeric id.
    pub uid: u32,
    /// Group's numeric id.
    pub gid: u32,
    /// Owner's name, where NSS knows one.
    pub owner: Option<String>,
    /// Group's name, where NSS knows one.
    pub group: Option<String>,
    /// Size in bytes.
    pub size: u64,
    /// Number of hard links.
    pub links: u64,
    /// Last reading, as far as the mount records it.
    pub accessed: SystemTime,
    /// Last change of content.
    pub modified: SystemTime,
    /// Last change of the inode.
    pub changed: SystemTime,
    /// Birth, where the file system records it (`STATX_BTIME`).
    pub created: Option<SystemTime>,
    /// Where a symbolic link points.
    pub target: Option<PathBuf>,
    /// The mount it lies on.
    pub mount: Option<Mount>,
}

/// A mount (`proc_pid_mountinfo(5)`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where.
    pub point: PathBuf,
    /// Which kind of file system.
    pub kind: OsString,
    /// What is mounted: a device, a server's export.
    pub source: OsString,
    /// Whether it is read-only, here or everywhere.
    pub read_only: bool,
}

/// The name a temporary file ends up with (`ssh-keygen -A`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FinalPath {
    /// The rename was seen.
    Renamed(PathBuf),
    /// The rename had not come when the alert was due; ssh-keygen's template
    /// says which name it will have.
    Expected(PathBuf),
}

/// One thing that happened to one object below a watched directory; `W` is
/// what is known of who did it.
#[derive(Clone, Debug)]
pub struct Event<W> {
    /// Counts from 1 with each start of the daemon.
    pub sequence: u64,
    /// When the record of it was read.
    pub time: SystemTime,
    /// What was done.
    pub action: Action,
    /// The object's path as the watched directory's path and the entry's name
    /// give it; not necessarily UTF-8.
    pub path: PathBuf,
    /// The former path of a rename.
    pub original_path: Option<PathBuf>,
    /// Where a temporary file went.
    pub final_path: Option<FinalPath>,
    /// Facts of the object, unless it was gone.
    pub facts: Option<FileFacts>,
    /// A stable identity of the object: file-system id and file handle, hex.
    pub object_id: String,
    /// How it was noticed.
    pub evidence: Evidence,
    /// What is known of the writer.
    pub writer: W,
}
