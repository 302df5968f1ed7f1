//! Who did it: processes, their lineage and accounts, read through `/proc`.
//!
//! Owns process snapshots, guarded against pid reuse by a pidfd or the start
//! time. Must not look at files' content or know rules. "Unknown" is an
//! ordinary value: a field that could not be read is `None`, never a guess.

mod attribution;
pub mod clients;
pub mod entry;
pub mod identify;
pub mod logins;
pub mod proc;
pub mod program;
mod remote;
pub mod resolver;
pub mod secrets;
pub mod session;
pub mod slow;
mod tabled;
pub mod unit;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::SystemTime;

pub use attribution::{Attribution, Method};
pub use program::{KnownAs, KnownBy, ProgramFacts};

/// A numeric id and the name NSS has for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// uid or gid.
    pub id: u32,
    /// Its name; filled in away from the hot path.
    pub name: Option<String>,
}

/// A process's credentials (`proc_pid_status(5)`, `Uid:` and `Gid:`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Real user.
    pub real_user: Account,
    /// Effective user.
    pub effective_user: Account,
    /// Real group.
    pub real_group: Account,
    /// Effective group.
    pub effective_group: Account,
}

impl Credentials {
    /// Of real and effective ids, without names.
    #[must_use]
    pub fn of(users: [u32; 2], groups: [u32; 2]) -> Self {
        let account = |id| Account { id, name: None };
        let ([real_user, effective_user], [real_group, effective_group]) =
            (users.map(account), groups.map(account));
        Self {
            real_user,
            effective_user,
            real_group,
            effective_group,
        }
    }
}

/// Whether the path of a running image names, on this host and in our mount
/// namespace, the very file that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageState {
    /// Same device and inode.
    Same,
    /// The path now names another file (an upgrade replaced it, or a mount hides it).
    Replaced,
    /// The process lives in another mount namespace and the path differs here.
    Foreign,
    /// Unlinked while it ran.
    Deleted,
    /// An anonymous memory file.
    Memfd,
}

impl ImageState {
    /// The value of `ssh_keywatch.attribution.image`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Replaced => "replaced",
            Self::Foreign => "foreign",
            Self::Deleted => "deleted",
            Self::Memfd => "memfd",
        }
    }
}

/// The executable file a process runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its path, without the kernel's " (deleted)".
    pub path: PathBuf,
    /// `st_dev`, where it could be told.
    pub device: Option<u64>,
    /// `st_ino`, where it could be told.
    pub inode: Option<u64>,
    /// Of what was mapped from a file system without a device: the inode's generation.
    pub generation: Option<u32>,
    /// What the path means on this host, where it could be told.
    pub state: Option<ImageState>,
}

/// A snapshot of one process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Process id (thread group id) in the daemon's pid namespace.
    pub pid: i32,
    /// Parent's pid.
    pub parent_pid: Option<i32>,
    /// When it started.
    pub start: Option<SystemTime>,
    /// Start in clock ticks since boot (field 22 of `proc_pid_stat(5)`), which
    /// with the pid identifies the process.
    pub start_ticks: Option<u64>,
    /// What it runs.
    pub image: Option<Image>,
    /// Its `comm`, at most 15 bytes, settable by the process itself.
    pub name: Option<OsString>,
    /// Its arguments, bounded in number and length.
    pub args: Option<Vec<OsString>>,
    /// Its working directory.
    pub working_directory: Option<PathBuf>,
    /// Its users and groups.
    pub credentials: Option<Credentials>,
    /// Session id (pid of the session leader).
    pub session: Option<i32>,
    /// Process group id.
    pub process_group: Option<i32>,
    /// Controlling terminal as (major, minor), if it has one.
    pub tty: Option<(u32, u32)>,
    /// Audit login uid, if one is set (`proc_pid_loginuid(5)`).
    pub login_uid: Option<u32>,
    /// Audit session id, if one is set.
    pub audit_session: Option<u32>,
    /// Its control groups: the text of `proc_pid_cgroup(5)`.
    pub cgroup: Option<Vec<u8>>,
}

impl Process {
    fn weight(&self) -> usize {
        let text = |text: usize| text + size_of::<OsString>();
        let args = self.args.iter().flatten();
        let args: usize = args.map(|arg| text(arg.len())).sum();
        let image = self.image.as_ref();
        let image = image.map_or(0, |image| image.path.as_os_str().len());
        let directory = self.working_directory.as_ref();
        let directory = directory.map_or(0, |path| path.as_os_str().len());
        let cgroup = self.cgroup.as_ref().map_or(0, Vec::len);
        size_of::<Self>() + args + image + directory + cgroup
    }

    /// One of which no more than its pid is known.
    #[must_use]
    pub fn unknown(pid: i32) -> Self {
        Self {
            pid,
            parent_pid: None,
            start: None,
            start_ticks: None,
            image: None,
            name: None,
            args: None,
            working_directory: None,
            credentials: None,
            session: None,
            process_group: None,
            tty: None,
            login_uid: None,
            audit_session: None,
            cgroup: None,
        }
    }
}

/// Reads `bytes` as all that this part reads of `/proc`, logind and wtmp, where
/// much is written by users. For fuzzing.
#[doc(hidden)]
pub fn read_hostile(bytes: &[u8]) {
    proc::read_hostile(bytes);
    remote::read_hostile(bytes);
    logins::read_hostile(bytes);
    let _ = unit::Placement::parse(bytes);
}
