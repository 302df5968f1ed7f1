//! Identifies a thread while the kernel holds it, and what a record names.
//!
//! Owns the order of reads that makes an identification certain. Runs on the
//! answering thread: everything here is bounded, and arguments, whose reading
//! can block, come from the [`Pool`] or not at all.

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::proc::{Entry, Proc, image, place_image};
use super::slow::{Answer, Pool, Size};
use super::{Image, Process};
use crate::sys::PidFd;
use crate::sys::stat::{FileIdentity, identity_of};
use crate::watch::hold::{Executor, Identify};

/// How long the answering thread waits for arguments.
const ARGS_TIME: Duration = Duration::from_millis(5);
/// How long an exec may take until the new image runs.
const EXEC_TIME: Duration = Duration::from_millis(200);
/// How long it waits at most for the held thread to fall asleep. The record is
/// queued a moment before: on a busy machine the opener needs the processor once more.
const ASLEEP_TIME: Duration = Duration::from_millis(30);
/// How often it looks again at once before it makes room for the opener.
const ASLEEP_SPINS: usize = 5;

/// A process that was identified while one of its threads was held.
#[derive(Debug)]
pub struct Identity {
    /// The process; at exec with the image it is about to run.
    pub process: Process,
    /// Its parent at that moment.
    pub parent: Option<Process>,
    /// The process itself.
    pub pidfd: Option<PidFd>,
    /// What it ran before the exec.
    pub before: Option<Image>,
    /// Its name and arguments, which it has only after the exec.
    pub late: Option<Answer<Option<Called>>>,
    /// Nothing could have changed between the act and the reading.
    pub verified: bool,
    /// It had one thread: nobody else can have acted under its pid.
    pub alone: bool,
}

/// How a process was called.
#[derive(Clone, Debug)]
pub struct Called {
    /// Its `comm`.
    pub name: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
}

/// Reads processes for the hold and for the resolver.
#[derive(Clone)]
pub struct Identifier {
    proc: Arc<Proc>,
    pool: Pool,
    execs: Pool,
    namespace: Option<u64>,
}

impl Identifier {
    /// Reads through `proc`.
    ///
    /// # Errors
    /// The threads for slow reads cannot be started.
    pub fn new(proc: Arc<Proc>) -> io::Result<Self> {
        let pool = Pool::start(Size {
            threads: 4,
            backlog: 0,
            urgent: true,
        })?;
        let execs = Pool::start(Size {
            threads: 8,
            backlog: 256,
            urgent: true,
        })?;
        let namespace = proc
            .entry(nix::unistd::getpid().as_raw())
            .ok()
            .and_then(|entry| entry.mount_namespace());
        Ok(Self {
            proc,
            pool,
            execs,
            namespace,
        })
    }

    /// A snapshot of process or thread `id` with its arguments, if they can be
    /// read within a few milliseconds.
    ///
    /// # Errors
    /// It is gone.
    pub fn snapshot(&self, id: i32) -> io::Result<Process> {
        let entry = self.proc.entry(id)?;
        let args = self.ask_args(&entry);
        let mut process = self.read(&entry)?.0;
        process.args = args.and_then(|args| args.until(Instant::now() + ARGS_TIME)?);
        Ok(process)
    }

    /// A snapshot of process `id` without its arguments.
    ///
    /// # Errors
    /// It is gone.
    pub fn brief(&self, id: i32) -> io::Result<Process> {
        Ok(self.read(&self.proc.entry(id)?)?.0)
    }

    /// Start time only: enough to tell whether a known snapshot is
    /// still of the same process.
    ///
    /// # Errors
    /// It is gone.
    pub fn start_ticks(&self, id: i32) -> io::Result<u64> {
        Ok(self.proc.entry(id)?.stat()?.start_ticks)
    }

    /// The image of process `id` now.
    #[must_use]
    pub fn image(&self, id: i32) -> Option<Image> {
        let entry = self.proc.entry(id).ok()?;
        let mut image = entry.image()?;
        place_image(&mut image, &entry, self.namespace);
        Some(image)
    }

    /// The arguments of process `id`, within a few milliseconds or not at all.
    #[must_use]
    pub fn args(&self, id: i32) -> Option<Vec<OsString>> {
        let entry = self.proc.entry(id).ok()?;
        self.ask_args(&entry)?.until(Instant::now() + ARGS_TIME)?
    }

    fn ask_args(&self, entry: &Entry) -> Option<Answer<Option<Vec<OsString>>>> {
        let entry = entry.try_clone().ok()?;
        self.pool.ask(move || entry.args())
    }

    fn read(&self, entry: &Entry) -> io::Result<(Process, super::proc::Status)> {
        let (mut process, status) = self.proc.snapshot(entry)?;
        if let Some(image) = &mut process.image {
            place_image(image, entry, self.namespace);
        }
        Ok((process, status))
    }

    /// Reads a held thread, and its process's start and parent.
    fn held(&self, tid: i32, entry: &Entry) -> Option<(Process, super::proc::Status)> {
        let (mut process, status) = self.read(entry).ok()?;
        if process.pid != tid {
            // A thread's stat gives the thread's start, not the process's.
            if let Ok(ticks) = self.start_ticks(process.pid) {
                process.start_ticks = Some(ticks);
            }
        }
        Some((process, status))
    }

    fn parent(&self, process: &Process) -> Option<Process> {
        let entry = self
            .proc
            .entry(process.parent_pid.filter(|pid| *pid > 0)?)
            .ok()?;
        let parent = self.read(&entry).ok()?.0;
        // One that is younger than its child took over the pid.
        (parent.start_ticks <= process.start_ticks).then_some(parent)
    }
}

/// Whether the thread is asleep in the hold. If it is so after everything was
/// read, it was so all the time: only the answer could have woken it.
fn still_held(entry: &Entry) -> bool {
    for _ in 0..ASLEEP_SPINS {
        if entry.waits_for_fanotify() {
            return true;
        }
    }
    // Yielding is not enough: this thread has real-time priority, and the
    // opener may want the very processor it runs on.
    let deadline = Instant::now() + ASLEEP_TIME;
    let mut pause = Duration::from_micros(10);
    while Instant::now() < deadline {
        std::thread::sleep(pause);
        if entry.waits_for_fanotify() {
            return true;
        }
        pause = (pause * 2).min(Duration::from_millis(1));
    }
    false
}

impl Identify for Identifier {
    type Identity = Identity;

    fn opener(&mut self, tid: i32) -> Option<Identity> {
        let entry = self.proc.entry(tid).ok()?;
        let args = self.ask_args(&entry);
        let (mut process, status) = self.held(tid, &entry)?;
        let pidfd = PidFd::open(process.pid).ok();
        let parent = self.parent(&process);
        process.args = args.and_then(|args| args.until(Instant::now() + ARGS_TIME)?);
        Some(Identity {
            alone: status.threads == Some(1),
            verified: process.image.is_some() && still_held(&entry),
            process,
            parent,
            pidfd,
            before: None,
            late: None,
        })
    }

    fn executor(&mut self, tid: i32, program: BorrowedFd<'_>) -> Option<Executor<Identity>> {
        let entry = self.proc.entry(tid).ok()?;
        let (mut process, status) = self.held(tid, &entry)?;
        let link = CString::new(format!("/proc/self/fd/{}", program.as_raw_fd())).ok()?;
        let path = nix::fcntl::readlink(link.as_c_str()).ok()?;
        let file = identity_of(nix::fcntl::AT_FDCWD, &link).ok();
        let mut new = image(path.into(), file);
        place_image(&mut new, &entry, self.namespace);
        // The name a process has after exec is that of the path it was called
        // by, and its arguments are not there yet.
        process.name = None;
        let before = process.image.replace(new);
        let late = self.proc.entry(process.pid).ok().and_then(|entry| {
            self.execs
                .ask(move || file.and_then(|file| called(&entry, file)))
        });
        Some(Executor {
            pid: process.pid,
            pidfd: PidFd::open(process.pid).ok(),
            identity: Identity {
                parent: self.parent(&process),
                pidfd: PidFd::open(process.pid).ok(),
                // The only thread is the one that is held: nobody else can act
                // under this pid until the exec is done.
                alone: status.threads == Some(1),
                verified: status.threads == Some(1) && still_held(&entry),
                process,
                before,
                late,
            },
        })
    }
}

/// Waits until the process runs `file`, and reads how it was called.
fn called(entry: &Entry, file: FileIdentity) -> Option<Called> {
    let deadline = Instant::now() + EXEC_TIME;
    let mut pause = Duration::from_micros(50);
    while Instant::now() < deadline {
        let image = entry.image()?;
        // The arguments come a moment after the image (fs/binfmt_elf.c).
        if (image.device, image.inode) == (Some(file.device), Some(file.inode))
            && let Some(args) = entry.args()
        {
            return Some(Called {
                name: entry.stat().ok()?.name,
                args,
            });
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(1));
    }
    None
}
