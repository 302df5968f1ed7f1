//! The hold: openers wait in the kernel while they are identified.
//!
//! ```text
//! kernel ─ permission record ─► answering thread ─ Held ─► watching thread
//!    ▲                              │
//!    └───────────── ALLOW ──────────┘
//! ```
//!
//! Owns the reading and answering of the permission group, and the temporary
//! file-system marks that catch the first key of a fresh account while a key
//! tool lives. Must not own policy or decide anything but ALLOW. The answering
//! thread never logs, never opens a file of a watched directory, never waits
//! for a lock or for another thread beyond a deadline: whoever is slower than
//! it would make a login wait.
//!
//! If it fails or the daemon ends, the group is closed and the kernel lets
//! every opener go on.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;

use super::fanotify::FIRST_KEY;
use super::fence::Fence;
use crate::sys::fanotify::{NotificationGroup, PermissionGroup, Record, mask};
use crate::sys::{ObjectId, PidFd, thread};

/// How many identified openers may wait for the watching thread.
pub const BACKLOG: usize = 8192;
/// How long a key tool keeps the temporary file-system mark: one that waits at
/// a prompt is not worth slowing every creation on the file system.
const FIRST_KEY_TIME: Duration = Duration::from_secs(10);
/// How many key tools can keep it at once; one more is followed by the scan only.
const FIRST_KEY_TOOLS: usize = 64;

/// Says who a held thread is. Called on the answering thread: must not block
/// beyond some milliseconds, log, or open files in watched directories.
pub trait Identify: Send {
    /// What is known of a process.
    type Identity: Send + 'static;

    /// Who holds thread id `tid`, which waits in open(2).
    fn opener(&mut self, tid: i32) -> Option<Self::Identity>;

    /// Who thread id `tid` is, which waits in execve(2) for `program`; its
    /// pidfd besides, to see its end.
    fn executor(
        &mut self,
        tid: i32,
        program: BorrowedFd<'_>,
    ) -> Option<(Self::Identity, Option<PidFd>)>;
}

/// An opener that was identified while it was held.
#[derive(Debug)]
pub enum Held<I> {
    /// It opened an object in a watched directory.
    Opening {
        /// Which.
        object: ObjectId,
        /// Who.
        identity: I,
    },
    /// It was about to run a key tool.
    Executing {
        /// Who.
        identity: I,
        /// The fence that separates what it did before and after.
        fence: Option<u64>,
    },
}

/// What the hold did so far; read by other threads.
#[derive(Debug, Default)]
pub struct Counters {
    /// Openers that were held and answered.
    pub answered: AtomicU64,
    /// Answers the kernel did not want any more: the opener was killed.
    pub late: AtomicU64,
    /// Openers that could not be identified.
    pub unidentified: AtomicU64,
    /// Identities dropped because the watching thread was too far behind.
    pub dropped: AtomicU64,
}

/// What the answering thread is made of.
pub struct Hold<I: Identify> {
    /// The group it answers.
    pub permission: Arc<PermissionGroup>,
    /// The group that gets the temporary file-system marks.
    pub notification: Arc<NotificationGroup>,
    /// Says who a held thread is.
    pub identify: I,
    /// Separates before and after an exec.
    pub fence: Option<Arc<Fence>>,
    /// Where identities go.
    pub held: SyncSender<Held<I::Identity>>,
    /// Wakes the watching thread.
    pub wake: Arc<EventFd>,
    /// Readable when the thread shall end, or look at `file_systems`.
    pub control: Arc<EventFd>,
    /// Set when the thread shall end.
    pub stop: Arc<AtomicBool>,
    /// A directory of each file system that homes lie on.
    pub file_systems: Receiver<Vec<OwnedFd>>,
    /// What it did so far.
    pub counters: Arc<Counters>,
}

/// A key tool that keeps the temporary mark.
struct Tool {
    pidfd: PidFd,
    until: Instant,
}

impl<I: Identify> Hold<I> {
    /// Answers until it is told to end.
    ///
    /// # Errors
    /// The group cannot be read or polled; it should be closed then.
    pub fn run(mut self) -> io::Result<()> {
        let mut buffer = vec![0u8; 4096];
        let mut records: Vec<Record> = Vec::new();
        let mut file_systems: Vec<OwnedFd> = Vec::new();
        let mut tools: Vec<Tool> = Vec::with_capacity(FIRST_KEY_TOOLS);
        let mut marked = false;
        loop {
            self.wait(&tools)?;
            if self.stop.load(Ordering::Acquire) {
                return Ok(());
            }
            if self.control.read().is_ok() {
                while let Ok(new) = self.file_systems.try_recv() {
                    self.first_key(&file_systems, &mut marked, false);
                    file_systems = new;
                }
            }
            while self
                .permission
                .read(&mut buffer, |record| records.push(record))?
                > 0
            {
                for record in records.drain(..) {
                    if record.is(mask::OPEN_EXEC_PERM) {
                        // Marked before the answer: what the tool makes from here on is seen.
                        if tools.len() < FIRST_KEY_TOOLS {
                            self.first_key(&file_systems, &mut marked, true);
                        }
                        if let Some(pidfd) = self.executing(&record)
                            && tools.len() < FIRST_KEY_TOOLS
                        {
                            tools.push(Tool {
                                pidfd,
                                until: Instant::now() + FIRST_KEY_TIME,
                            });
                        }
                    } else {
                        self.opening(&record);
                    }
                    self.answer(&record);
                }
            }
            let now = Instant::now();
            tools.retain(|tool| now < tool.until && tool.pidfd.is_alive());
            if tools.is_empty() {
                self.first_key(&file_systems, &mut marked, false);
            }
        }
    }

    fn wait(&self, tools: &[Tool]) -> io::Result<()> {
        let mut fds = Vec::with_capacity(2 + tools.len());
        fds.push(PollFd::new(self.permission.as_fd(), PollFlags::POLLIN));
        fds.push(PollFd::new(self.control.as_fd(), PollFlags::POLLIN));
        for tool in tools {
            fds.push(PollFd::new(tool.pidfd.as_fd(), PollFlags::POLLIN));
        }
        let timeout = if tools.is_empty() {
            PollTimeout::NONE
        } else {
            PollTimeout::from(1000u16)
        };
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn opening(&mut self, record: &Record) {
        let Some(fd) = &record.fd else { return };
        if thread::is_own(record.pid) {
            return;
        }
        let identity = self.identify.opener(record.pid);
        match (identity, ObjectId::of(fd.as_fd())) {
            (Some(identity), Ok(object)) => self.send(Held::Opening { object, identity }),
            _ => {
                self.counters.unidentified.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn executing(&mut self, record: &Record) -> Option<PidFd> {
        let fd = record.fd.as_ref()?;
        let Some((identity, pidfd)) = self.identify.executor(record.pid, fd.as_fd()) else {
            self.counters.unidentified.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        let fence = self.fence.as_ref().and_then(|fence| fence.raise().ok());
        self.send(Held::Executing { identity, fence });
        pidfd
    }

    fn send(&self, held: Held<I::Identity>) {
        if self.held.try_send(held).is_err() {
            self.counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
        let _ = self.wake.write(1);
    }

    fn answer(&self, record: &Record) {
        let Some(fd) = &record.fd else { return };
        match self.permission.allow(fd.as_fd()) {
            Ok(()) => self.counters.answered.fetch_add(1, Ordering::Relaxed),
            // Killed while it waited.
            Err(_) => self.counters.late.fetch_add(1, Ordering::Relaxed),
        };
    }

    /// Sets or takes off the temporary marks on the file systems of homes.
    fn first_key(&self, file_systems: &[OwnedFd], marked: &mut bool, wanted: bool) {
        if *marked == wanted {
            return;
        }
        *marked = wanted;
        for dir in file_systems {
            // Where it cannot be set, the scan of the new directory is what there is.
            let _ = if wanted {
                self.notification.mark_file_system(dir.as_fd(), FIRST_KEY)
            } else {
                self.notification.unmark_file_system(dir.as_fd(), FIRST_KEY)
            };
        }
    }
}
