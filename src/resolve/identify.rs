//! Identifies a thread while the kernel holds it, and what a record names.
//!
//! Owns the order of reads that makes an identification certain. Runs on the
//! answering thread: everything here is bounded, and arguments, whose reading
//! can block, come from the [`Pool`] or not at all.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::clients::Clients;
use super::proc::{Entry, Proc, image, place_image};
use super::program::{ImageFile, ImageFiles};
use super::slow::{Answer, Pool, Size};
use super::{Credentials, Image, Process};
use crate::proctable::{self, Time};
use crate::sys::PidFd;
use crate::sys::stat::{FileIdentity, identity_of, opened_identity, opened_path};
use crate::watch::berth::Berth;
use crate::watch::hold::{Executor, Identify};

/// How long the answering thread waits for arguments.
const ARGS_TIME: Duration = Duration::from_millis(5);
/// How long an exec may take until the new image runs.
const EXEC_TIME: Duration = Duration::from_millis(200);

/// A process that was identified while one of its threads was held.
#[derive(Debug)]
pub struct Identity {
    /// The process; at exec with the image it is about to run.
    pub process: Process,
    /// Its parent and its control groups, which are read as it goes on; not of a
    /// key tool that opens, for they are known since its exec.
    pub around: Option<Answer<Around>>,
    /// The inode of its mount namespace.
    pub namespace: Option<u64>,
    /// The process itself, if it runs a key tool.
    pub pidfd: Option<PidFd>,
    /// What it ran before the exec.
    pub before: Option<Image>,
    /// Its name and arguments, which it has only after the exec.
    pub late: Late,
    /// Nothing could have changed between the act and the reading.
    pub verified: bool,
    /// The held thread, until that is sure.
    held: Option<Entry>,
    /// At exec: it had one thread, nobody else can have acted under its pid.
    pub alone: bool,
    /// Its executable, kept open.
    pub file: Option<Arc<ImageFile>>,
    /// When it had been read.
    pub read: Time,
}

/// How a process was called.
#[derive(Clone, Debug)]
pub struct Called {
    /// Its `comm`.
    pub name: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Its control groups.
    pub cgroup: Option<Vec<u8>>,
}

/// How a process was called, once that has been read.
pub type Late = Arc<OnceLock<Called>>;

/// A key tool as it was at its exec, to be known again when it opens.
#[derive(Debug)]
pub struct Known {
    process: Process,
    /// The file it runs.
    file: FileIdentity,
    namespace: Option<u64>,
    late: Late,
}

/// Reads processes for the hold and for the resolver.
#[derive(Clone)]
pub struct Identifier {
    proc: Arc<Proc>,
    pool: Pool,
    execs: Pool,
    /// For control groups: a thread may be stuck with them for a while.
    placements: Pool,
    clients: Clients,
    namespace: Option<u64>,
    files: ImageFiles,
    /// Where a key tool runs is told to it.
    berth: Arc<Berth>,
    /// A process table tells when who was read began to run that.
    is_tabled: Arc<AtomicBool>,
    /// Of the service manager whose service we are. A unit's sandbox is a
    /// mount namespace of its own, in which the host's paths mean the same files.
    manager: Option<u64>,
    /// The two are kept open: to look at a namespace that nobody has open the
    /// kernel makes an inode each time (fs/libfs.c, `path_from_stashed`).
    _namespaces: Arc<Vec<OwnedFd>>,
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
            movable: false,
        })?;
        let execs = Pool::start(Size {
            threads: 8,
            backlog: 256,
            urgent: true,
            movable: true,
        })?;
        let manager = nix::unistd::getppid().as_raw() == 1;
        let [namespace, manager] = [Some(nix::unistd::getpid().as_raw()), manager.then_some(1)]
            .map(|pid| {
                let entry = proc.entry(pid?).ok()?;
                Some((entry.mount_namespace()?, entry.open_mount_namespace().ok()))
            });
        let (namespace, own) = namespace.unzip();
        let (manager, other) = manager.unzip();
        let kept = [own, other].into_iter().flatten().flatten().collect();
        Ok(Self {
            placements: Pool::start(Size {
                threads: 2,
                backlog: 14,
                urgent: true,
                movable: false,
            })?,
            clients: Clients::start(Arc::clone(&proc))?,
            proc,
            pool,
            execs,
            namespace,
            files: ImageFiles::default(),
            berth: Arc::default(),
            is_tabled: Arc::default(),
            manager,
            _namespaces: Arc::new(kept),
        })
    }

    /// Who is connected to the sshds of this host.
    #[must_use]
    pub fn clients(&self) -> &Clients {
        &self.clients
    }

    /// There is a process table, with which the identities are compared.
    pub fn with_table(&self) {
        self.is_tabled.store(true, Ordering::Relaxed);
    }

    /// The processor that is left to a key tool.
    #[must_use]
    pub fn berth(&self) -> &Arc<Berth> {
        &self.berth
    }

    /// The namespace as far as paths are concerned: the host's is as good as ours.
    fn ours(&self, namespace: Option<u64>) -> Option<u64> {
        if namespace.is_some() && namespace == self.manager {
            self.namespace
        } else {
            namespace
        }
    }

    /// A snapshot of process or thread `id` with its arguments, if they can be
    /// read within a few milliseconds.
    ///
    /// # Errors
    /// It is gone.
    pub fn snapshot(&self, id: i32) -> io::Result<Process> {
        let entry = self.proc.entry(id)?;
        let args = self.ask_args(&entry);
        let mut process = self.read(&entry)?;
        process.args = args.and_then(|args| args.until(Instant::now() + ARGS_TIME)?);
        Ok(process)
    }

    /// A snapshot of process `id` without its arguments.
    ///
    /// # Errors
    /// It is gone.
    pub fn brief(&self, id: i32) -> io::Result<Process> {
        let entry = self.proc.entry(id)?;
        let mut process = self.read(&entry)?;
        process.cgroup = entry.cgroup();
        Ok(process)
    }

    /// The same without its control groups, which are slow to read.
    ///
    /// # Errors
    /// It is gone.
    pub fn glance(&self, id: i32) -> io::Result<Process> {
        self.read(&self.proc.entry(id)?)
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
        place_image(
            &mut image,
            || self.ours(entry.mount_namespace()),
            self.namespace,
        );
        Some(image)
    }

    /// Says whether the path of an image of a process in mount namespace
    /// `namespace` means the same file on this host.
    pub fn place(&self, image: &mut Image, namespace: Option<u64>) {
        place_image(image, || self.ours(namespace), self.namespace);
    }

    fn ask_args(&self, entry: &Entry) -> Option<Answer<Option<Vec<OsString>>>> {
        let entry = entry.try_clone().ok()?;
        self.pool.ask(move || entry.args())
    }

    fn read(&self, entry: &Entry) -> io::Result<Process> {
        let mut process = self.proc.snapshot(entry)?;
        if let Some(image) = &mut process.image {
            place_image(image, || self.ours(entry.mount_namespace()), self.namespace);
        }
        Ok(process)
    }

    /// Reads a thread that is held.
    fn held(&self, tid: i32, entry: &Entry) -> Option<Held> {
        let stat = entry.stat().ok()?;
        let alone = stat.threads == 1;
        // A thread that a pidfd can be had for leads its process, whose ids
        // one call tells; else they are in the text of `status`.
        let pidfd = PidFd::open(tid).ok();
        let info = pidfd.as_ref().and_then(|pidfd| pidfd.info().ok());
        let mut process = if let Some(info) = info {
            let (users, groups) = (info.users, info.groups);
            self.proc.process(entry, stat, tid, users, groups)
        } else {
            self.proc.core(entry, stat).ok()?
        };
        if process.pid != tid {
            // A thread's stat gives the thread's start, not the process's.
            process.start_ticks = self.start_ticks(process.pid).ok();
        }
        process.login_uid = entry.login_uid();
        Some(Held {
            process,
            alone,
            pidfd,
        })
    }

    /// What is wanted of the parent of a process at exec, and how it is come by.
    fn around(&self, process: &Process) -> (Answer<Around>, impl FnOnce() + Send + 'static) {
        let (pid, start) = (process.parent_pid, process.start_ticks);
        let proc = Arc::clone(&self.proc);
        let (around, answer) = Answer::promised();
        let read = move || {
            let (reply, args) = Answer::promised();
            let found = parent(&proc, pid, start);
            let known = found.as_ref().map(|(_, it)| it.start_ticks);
            let (entry, parent) = found.unzip();
            let _ = around.send(Around {
                parent,
                read: proctable::now(),
                parent_args: Some(args),
                cgroup: None,
            });
            let args = entry.and_then(|entry| {
                let args = entry.args()?;
                let start = entry.stat().ok().map(|stat| stat.start_ticks);
                (Some(start) == known).then_some(args)
            });
            let _ = reply.send(args);
        };
        (answer, read)
    }

    /// Has read aside what else is wanted of a held process: in parallel, for
    /// the opener waits.
    fn ask_aside(&self, entry: &Entry) -> Option<Answer<Aside>> {
        let entry = entry.try_clone().ok()?;
        let proc = Arc::clone(&self.proc);
        let files = self.files.clone();
        let placements = self.placements.clone();
        let (reply, aside) = Answer::promised();
        let is_taken = self.pool.run(move || {
            let (around, answer) = Answer::promised();
            let _ = reply.send(Aside {
                file: files.keep(&entry).ok(),
                audit_session: entry.audit_session(),
                args: entry.args(),
                around: answer,
            });
            let cgroup = ask_cgroup(&placements, &entry);
            let stat = entry.stat().ok();
            let parent =
                stat.and_then(|stat| parent(&proc, Some(stat.parent), Some(stat.start_ticks)));
            let _ = around.send(Around {
                parent: parent.map(|(_, parent)| parent),
                read: proctable::now(),
                parent_args: None,
                cgroup,
            });
        });
        is_taken.then_some(aside)
    }
}

/// What is read of every held thread.
struct Held {
    process: Process,
    /// It is the only one of its process.
    alone: bool,
    /// The process, if it could be opened on the way.
    pidfd: Option<PidFd>,
}

/// Reading it takes the kernel's lock of all control groups, which may be held
/// for a while: nobody waits for it here.
fn ask_cgroup(pool: &Pool, entry: &Entry) -> Option<Answer<Option<Vec<u8>>>> {
    let entry = entry.try_clone().ok()?;
    pool.ask(move || entry.cgroup())
}

/// What is read aside of a held process: what its end would take away.
struct Aside {
    audit_session: Option<u32>,
    args: Option<Vec<OsString>>,
    file: Option<Arc<ImageFile>>,
    around: Answer<Around>,
}

/// What is read a moment later, when the process may go on already.
#[derive(Debug)]
pub struct Around {
    /// Its parent.
    pub parent: Option<Process>,
    /// When that had been read.
    pub read: Time,
    /// At exec: the arguments of its parent.
    pub parent_args: Option<Answer<Option<Vec<OsString>>>>,
    /// At open: its control groups.
    pub cgroup: Option<Answer<Option<Vec<u8>>>>,
}

/// The parent `pid` of a process that started at `child_start`.
fn parent(proc: &Proc, pid: Option<i32>, child_start: Option<u64>) -> Option<(Entry, Process)> {
    let entry = proc.entry(pid.filter(|pid| *pid > 0)?).ok()?;
    let parent = proc.core(&entry, entry.stat().ok()?).ok()?;
    // One that is younger than its child took over the pid.
    (parent.start_ticks <= child_start).then_some((entry, parent))
}

impl Identify for Identifier {
    type Identity = Identity;
    type Known = Known;

    fn opener(&mut self, tid: i32) -> Option<Identity> {
        let entry = self.proc.entry(tid).ok()?;
        let aside = self.ask_aside(&entry);
        let Held {
            mut process, alone, ..
        } = self.held(tid, &entry)?;
        let namespace = entry.mount_namespace();
        let (mut file, mut around) = (None, None);
        if let Some(aside) = aside.and_then(|aside| aside.soon(Instant::now() + ARGS_TIME)) {
            process.args = aside.args;
            process.audit_session = aside.audit_session;
            file = aside.file;
            around = Some(aside.around);
        }
        Some(Identity {
            alone,
            verified: false,
            held: process.image.is_some().then_some(entry),
            process,
            around,
            namespace,
            pidfd: None,
            before: None,
            late: Late::default(),
            file,
            read: proctable::now(),
        })
    }

    /// What cannot have changed since its exec is not read again. How it was
    /// called must be known: it may end before that is read.
    fn known(&mut self, known: &Known, pidfd: &PidFd) -> Option<Identity> {
        let called = known.late.get()?;
        let entry = self.proc.entry(known.process.pid).ok()?;
        if identity_of(entry.as_fd(), c"exe").ok()? != known.file {
            return None;
        }
        let info = pidfd.info().ok()?;
        Some(Identity {
            process: Process {
                name: Some(called.name.clone()),
                args: Some(called.args.clone()),
                cgroup: called.cgroup.clone(),
                working_directory: entry.link(c"cwd"),
                credentials: Some(Credentials::of(info.users, info.groups)),
                ..known.process.clone()
            },
            around: None,
            namespace: known.namespace,
            pidfd: None,
            before: None,
            late: Late::default(),
            verified: false,
            alone: false,
            file: self.files.keep(&entry).ok(),
            held: Some(entry),
            read: proctable::now(),
        })
    }

    fn executor(&mut self, tid: i32, program: BorrowedFd<'_>) -> Option<Executor<Identity, Known>> {
        let entry = self.proc.entry(tid).ok()?;
        let Held {
            mut process,
            alone,
            pidfd,
        } = self.held(tid, &entry)?;
        process.audit_session = entry.audit_session();
        let path = opened_path(program).ok()?;
        let file = opened_identity(program).ok();
        // The name a process has after exec is that of the path it was called
        // by, and its arguments are not there yet.
        process.name = None;
        let before = process.image.replace(image(path, file));
        let namespace = entry.mount_namespace();
        let late = Late::default();
        let (around, read_around) = self.around(&process);
        let pidfd = pidfd.or_else(|| PidFd::open(process.pid).ok());
        let leader = if process.pid == tid {
            entry.try_clone().ok()
        } else {
            self.proc.entry(process.pid).ok()
        };
        let aside = {
            let (execs, late) = (self.execs.clone(), Arc::clone(&late));
            let berth = Arc::clone(&self.berth);
            move || {
                if let (Some(file), Some(entry)) = (file, leader) {
                    // First of all, for what follows wakes threads.
                    berth.seen(entry.stat().ok().and_then(|stat| stat.processor));
                    execs.run(move || {
                        if let Some((called, processor)) = called(&entry, file) {
                            let _ = late.set(called);
                            berth.seen(processor);
                        }
                    });
                }
                execs.run(read_around);
            }
        };
        let known = file.map(|file| Known {
            process: process.clone(),
            file,
            namespace,
            late: Arc::clone(&late),
        });
        Some(Executor {
            pid: process.pid,
            pidfd: pidfd.as_ref().and_then(|pidfd| pidfd.try_clone().ok()),
            known,
            aside: Box::new(aside),
            identity: Identity {
                around: Some(around),
                namespace,
                pidfd,
                // The only thread is the one that is held: nobody else can act
                // under this pid until the exec is done.
                alone,
                verified: false,
                held: alone.then_some(entry),
                process,
                before,
                late,
                file: None,
                read: proctable::now(),
            },
        })
    }

    /// If the thread is asleep in the hold after everything was read, it was so
    /// all the time: only the answer could have woken it. The record can be
    /// read a moment before it falls asleep.
    fn is_sure(&mut self, identity: &mut Identity) -> bool {
        match &identity.held {
            None => true,
            Some(entry) if entry.waits_for_fanotify() => {
                identity.verified = true;
                if !self.looks_back() {
                    identity.held = None;
                }
                true
            }
            Some(_) => false,
        }
    }

    fn looks_back(&self) -> bool {
        !self.is_tabled.load(Ordering::Relaxed)
    }

    fn look_back(&mut self, identity: &mut Identity) {
        let held = identity.held.take();
        identity.verified &= held.is_none_or(|entry| entry.sleeps_in_fanotify() != Some(true));
    }
}

/// Waits until the process runs `file`, and reads how it was called, and which
/// processor it runs on: at exec the kernel may give it another.
fn called(entry: &Entry, file: FileIdentity) -> Option<(Called, Option<u32>)> {
    let deadline = Instant::now() + EXEC_TIME;
    // About what an exec takes; to look earlier would only take the processor from it.
    let mut pause = Duration::from_micros(250);
    while Instant::now() < deadline {
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(1));
        let image = entry.image()?;
        // The arguments come a moment after the image (fs/binfmt_elf.c).
        if (image.device, image.inode) == (Some(file.device), Some(file.inode))
            && let Some(args) = entry.args()
        {
            let stat = entry.stat().ok()?;
            let called = Called {
                name: stat.name,
                args,
                cgroup: entry.cgroup(),
            };
            return Some((called, stat.processor));
        }
    }
    None
}
