//! Key tools that were held at their exec.
//!
//! Owns their records, from the exec until nothing that they did can still be read. Must not read
//! more of a process than what it runs now.

use std::ffi::OsString;
use std::time::{Duration, Instant};

use super::{AROUND_TIME, Resolver};
use crate::resolve::attribution::same_file;
use crate::resolve::identify::Identity;
use crate::resolve::slow::Answer;
use crate::resolve::{Attribution, Method, Process, ProgramFacts, tabled};
use crate::sys::PidFd;
use crate::watch::Writer;

/// How many running key tools are remembered.
const MAX_RECORDED: usize = 4096;
/// How long after a process that nobody follows was last seen alive a record may
/// still be its: far less than it takes for a pid to come round.
const AFTERLIFE: Duration = Duration::from_millis(300);
/// How long an ended process is remembered for records that are still queued.
const FORGET: Duration = Duration::from_secs(5);
/// How long one is remembered whose end was not told though it should have been.
const LOST: Duration = Duration::from_secs(30);

/// A process that was held at the exec of a key tool.
pub(super) struct Recorded {
    pub(super) identity: Identity,
    /// Its parent at its exec.
    pub(super) parent: Option<Process>,
    parent_args: Option<Answer<Option<Vec<OsString>>>>,
    /// The fence before which it had not run the tool yet.
    from: Option<u64>,
    /// The fence behind which its pid may be another's.
    until: Option<u64>,
    /// Its end will be told, with a fence.
    followed: bool,
    last_alive: Instant,
}

impl Recorded {
    /// Either it slept in the hold to the end, or it had one thread and has
    /// been seen to run the tool: no other thread ran another program instead.
    pub(super) fn is_verified(&self) -> bool {
        self.identity.verified || (self.identity.alone && self.identity.process.name.is_some())
    }

    /// Takes the name and the arguments that were read after the exec.
    pub(super) fn complete(&mut self) {
        if let Some(parent) = &mut self.parent
            && parent.args.is_none()
        {
            let args = self.parent_args.as_ref();
            parent.args = args.and_then(|args| args.now()?);
        }
        if self.identity.process.args.is_none()
            && let Some(called) = self.identity.late.get()
        {
            self.identity.process.cgroup.clone_from(&called.cgroup);
            self.identity.process.name = Some(called.name.clone());
            self.identity.process.args = Some(called.args.clone());
        }
    }
}

impl Resolver {
    /// A process was held at the exec of a key tool.
    pub fn executing(&mut self, mut identity: Identity, fence: Option<u64>, followed: bool) {
        self.prune();
        self.foresee(&identity.process);
        let images = [&mut identity.process.image, &mut identity.before];
        for image in images.into_iter().flatten() {
            self.identifier.place(image, identity.namespace);
        }
        let due = Instant::now() + AROUND_TIME;
        let around = identity.around.take().and_then(|answer| answer.until(due));
        let (mut parent, mut parent_args) = (None, None);
        let mut read = identity.read;
        if let Some(around) = around {
            (parent, parent_args, read) = (around.parent, around.parent_args, around.read);
        }
        let parent = self.as_maker(&mut identity.process, parent, read);
        if let Some(parent) = &parent {
            self.foresee_lineage(&identity.process, parent);
        }
        if self.recorded.len() >= MAX_RECORDED {
            // Without its record the process is read live, and said to be so.
            return;
        }
        self.recorded.insert(
            identity.process.pid,
            Recorded {
                identity,
                parent,
                parent_args,
                from: fence,
                until: None,
                followed,
                last_alive: Instant::now(),
            },
        );
    }

    /// A key tool that was followed has ended.
    pub fn ended(&mut self, pid: i32, fence: Option<u64>) {
        let Some(recorded) = self.recorded.get_mut(&pid) else {
            return;
        };
        recorded.last_alive = Instant::now();
        match fence {
            Some(fence) if fence > self.passed => recorded.until = Some(fence),
            // All that it did has been read.
            Some(_) => {
                self.recorded.remove(&pid);
            }
            None => recorded.followed = false,
        }
    }

    /// The ends of key tools will not be told any more.
    pub fn unfollow(&mut self) {
        let now = Instant::now();
        for recorded in self.recorded.values_mut() {
            recorded.followed = false;
            recorded.last_alive = now;
        }
    }

    /// Everything before the fence has been read.
    pub fn fence(&mut self, number: u64) {
        self.passed = self.passed.max(number);
        let passed = self.passed;
        self.recorded
            .retain(|_, recorded| recorded.until.is_none_or(|until| until > passed));
    }

    /// What was recorded of `process` at its exec; `None`, too, where another had its pid in
    /// the same tick, whose record it may be.
    pub(super) fn recorded_as(&mut self, process: &Process) -> Option<&mut Recorded> {
        let table = self.table.as_ref();
        if table.is_some_and(|table| tabled::is_reused(table, process)) {
            return None;
        }
        let recorded = self.recorded.get_mut(&process.pid)?;
        let start = recorded.identity.process.start_ticks;
        (start == process.start_ticks).then_some(recorded)
    }

    pub(super) fn recorded(&mut self, writer: &Writer) -> Option<Attribution> {
        let passed = self.passed;
        let recorded = self.recorded.get_mut(&writer.pid)?;
        recorded.complete();
        let own = recorded.identity.pidfd.as_ref()?;
        let alive = own.is_alive();
        let now = Instant::now();
        if alive {
            recorded.last_alive = now;
        }
        let is_it = match &writer.pidfd {
            // On a kernel that cannot compare them, the pid of a living
            // process is its own.
            Some(theirs) => theirs.is_same(own).unwrap_or(alive),
            // Until the fence behind its end has been passed the pid was its own.
            None => {
                alive || recorded.followed || now.duration_since(recorded.last_alive) < AFTERLIFE
            }
        };
        if !is_it {
            return None;
        }
        let mut process = recorded.identity.process.clone();
        let mut candidates = Vec::new();
        let began = recorded.from.is_some_and(|fence| fence <= passed);
        // Behind the fence another of its threads can still have acted, until the exec
        // has ended them all.
        let alone = recorded.identity.alone;
        if recorded.from.is_some() && !(began && alone) {
            // It acted before its exec, with the image it had then or one before.
            candidates.extend(recorded.identity.before.clone());
            process.args = None;
            process.name = None;
        }
        let since = (alive && (began || recorded.from.is_none()))
            .then(|| self.identifier.image(writer.pid))
            .flatten()
            // A process that is just ending has a path and no more.
            .filter(|image| image.inode.is_some())
            .filter(|image| !same_file(process.image.as_ref(), Some(image)));
        if (began && !alone) || since.is_some() {
            candidates.extend(process.image.clone());
        }
        // It has run another program since.
        candidates.extend(since);
        // That it was held at the exec does not say that the exec succeeded, nor that it
        // was the last. Without the table that is seen as long as the process lives.
        let besides = self.table.as_ref().map(|table| {
            let held = recorded.identity.read;
            tabled::besides(table, &process, held)
        });
        let (has_begun, others) = match besides {
            Some(Some(besides)) => (besides.began, besides.others),
            Some(None) => (false, Vec::new()),
            None => (alive, Vec::new()),
        };
        if candidates.is_empty() && !(has_begun && others.is_empty()) {
            candidates.extend(recorded.identity.before.clone().filter(|_| !has_begun));
            candidates.extend(process.image.clone());
            candidates.extend(others);
            process.args = None;
            process.name = None;
        }
        if !candidates.is_empty() {
            process.image = None;
        }
        Some(Attribution {
            method: Method::Recorded,
            certain: began && recorded.is_verified() && candidates.is_empty(),
            process: Some(process),
            ancestors: recorded.parent.clone().into_iter().collect(),
            candidates,
            program: ProgramFacts::default(),
        })
    }

    /// Forgets processes that nobody follows and that ended a while ago.
    pub fn prune(&mut self) {
        let now = Instant::now();
        self.recorded.retain(|_, recorded| {
            if recorded
                .identity
                .pidfd
                .as_ref()
                .is_some_and(PidFd::is_alive)
            {
                recorded.last_alive = now;
            }
            let kept = if recorded.followed { LOST } else { FORGET };
            now.duration_since(recorded.last_alive) < kept
        });
    }
}
