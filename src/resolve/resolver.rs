//! From what a record or a hold names to an [`Attribution`].
//!
//! Owns the exec records, the process table and the lineage. Certain is only what could not have
//! been otherwise; a late reading of `/proc` never is, for the process may have
//! run another program when it acted.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::time::{Duration, Instant};

use super::identify::{Identifier, Identity};
use super::slow::Answer;
use super::{Attribution, Image, ImageState, Method, Process, ProgramFacts, tabled};
use crate::proctable::{self, ProcTable};
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
/// How long it is waited for what is around a process, whose reading began in
/// the hold.
const AROUND_TIME: Duration = Duration::from_millis(2);
/// How long in all it is waited for what is slow to read of one user's processes, until
/// nothing waits in the kernel's queue: whoever does a great deal must not keep others
/// waiting for theirs.
const PATIENCE: Duration = Duration::from_millis(20);
/// A reading that takes no longer is not slow.
const QUICK: Duration = Duration::from_micros(300);
/// Of how many parents it is remembered that their session was looked into,
/// and for how long.
const MAX_FORESEEN: usize = 64;
const FORESEEN_TIME: Duration = Duration::from_secs(1);
/// Longest lineage.
const MAX_ANCESTORS: usize = 32;
/// Snapshots of ancestors kept for the next event.
const MAX_CACHED: usize = 512;
/// So long one is as good as new if its process has run no other program since.
const FRESH: Duration = Duration::from_secs(1);

/// A process that was held at the exec of a key tool.
struct Recorded {
    identity: Identity,
    /// Its parent at its exec.
    parent: Option<Process>,
    parent_args: Option<Answer<Option<Vec<OsString>>>>,
    /// The fence before which it had not run the tool yet.
    from: Option<u64>,
    /// The fence behind which its pid may be another's.
    until: Option<u64>,
    /// Its end will be told, with a fence.
    followed: bool,
    last_alive: Instant,
}

/// An ancestor as it was found last.
struct Snapshot {
    process: Process,
    checked: Instant,
}

impl Snapshot {
    fn is_fresh(&self) -> bool {
        self.checked.elapsed() < FRESH
    }
}

/// Resolves writers.
pub struct Resolver {
    identifier: Identifier,
    recorded: HashMap<i32, Recorded>,
    ancestors: HashMap<(i32, u64), Snapshot>,
    table: Option<ProcTable>,
    /// Parents of writers whose sessions were looked into, and when.
    foreseen: VecDeque<(i32, Instant)>,
    /// The highest fence that has been passed; its process may be heard of later.
    passed: u64,
    /// How long each user's processes were waited for ([`PATIENCE`]).
    waited: HashMap<Option<u32>, Duration>,
}

/// Whose a process is, as far as patience with it is concerned.
fn user(process: &Process) -> Option<u32> {
    let credentials = process.credentials.as_ref();
    credentials.map(|credentials| credentials.real_user.id)
}

impl Attribution {
    /// Nothing is known but, perhaps, a pid.
    #[must_use]
    pub fn none() -> Self {
        Self {
            method: Method::None,
            certain: false,
            process: None,
            ancestors: Vec::new(),
            candidates: Vec::new(),
            program: ProgramFacts::default(),
        }
    }
}

impl Attribution {
    /// Of a file that nobody saw being made, while `maker` made its directory,
    /// this is who wrote to it: most probably its maker, but not for certain.
    #[must_use]
    pub fn having_written(mut self, maker: &Self) -> Self {
        let mut images: Vec<Image> = self.images().cloned().collect();
        let Some(process) = self.process.as_mut().filter(|_| !images.is_empty()) else {
            return maker.clone();
        };
        let maker_process = maker.process.as_ref();
        let is_maker = maker_process.is_some_and(|maker| is_same_process(maker, process));
        // The same process ran one program when it made the directory, and
        // perhaps another when it wrote: either can have made the file.
        if is_maker {
            for image in maker.images() {
                if !images.iter().any(|other| other.is_same_file(image)) {
                    images.push(image.clone());
                }
            }
            if images.len() > 1 {
                process.image = None;
                self.candidates = images;
            }
        }
        self.method = Method::Inferred;
        self.certain = false;
        self
    }

    /// Together with a `record` that is certain: what was read during a hold that
    /// could not be made sure holds if it is of the same process and program.
    #[must_use]
    pub fn confirmed_by(mut self, record: Self) -> Self {
        let (Some(process), Some(known)) = (&mut self.process, &record.process) else {
            return record;
        };
        let mut images = process.image.iter().chain(&self.candidates);
        let known_image = known.image.as_ref();
        let image = images.find(|image| same_file(Some(image), known_image));
        let (Some(image), true) = (image.cloned(), is_same_process(process, known)) else {
            return record;
        };
        process.image = Some(image);
        self.candidates.clear();
        self.method = record.method;
        self.certain = true;
        self
    }

    /// The programs that are possible.
    fn images(&self) -> impl Iterator<Item = &Image> {
        let image = self.process.iter().filter_map(|it| it.image.as_ref());
        image.chain(&self.candidates)
    }
}

/// Whether both can be the same process.
fn is_same_process(one: &Process, other: &Process) -> bool {
    // The table and `/proc` round differently.
    let starts = one.start_ticks.zip(other.start_ticks);
    one.pid == other.pid && starts.is_none_or(|(one, other)| one.abs_diff(other) < 5)
}

pub(super) fn same_file(one: Option<&Image>, other: Option<&Image>) -> bool {
    one.zip(other)
        .is_some_and(|(one, other)| one.is_same_file(other))
}

impl Image {
    /// Whether both are known to be the same file.
    fn is_same_file(&self, other: &Self) -> bool {
        self.inode.is_some() && (self.device, self.inode) == (other.device, other.inode)
    }
}

impl Resolver {
    /// Resolves through `identifier`.
    #[must_use]
    pub fn new(identifier: Identifier) -> Self {
        Self {
            identifier,
            recorded: HashMap::new(),
            ancestors: HashMap::new(),
            table: None,
            foreseen: VecDeque::with_capacity(MAX_FORESEEN),
            passed: 0,
            waited: HashMap::new(),
        }
    }

    /// Asks `table`, too.
    #[must_use]
    pub fn with_table(mut self, table: Option<ProcTable>) -> Self {
        self.table = table;
        self
    }

    /// The process table, if there is one.
    #[must_use]
    pub fn table(&self) -> Option<&ProcTable> {
        self.table.as_ref()
    }

    /// The process table, if there is one: who reads the records tells it when.
    pub fn table_mut(&mut self) -> Option<&mut ProcTable> {
        self.table.as_mut()
    }

    /// Nothing waits in the kernel's queue any more.
    pub fn caught_up(&mut self) {
        self.waited.clear();
    }

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
        let (parent, parent_args) = around.map_or((None, None), |it| (it.parent, it.parent_args));
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

    /// An opener was identified while it was held.
    pub fn opening(&mut self, identity: Identity) -> Attribution {
        let Identity {
            mut process,
            mut verified,
            namespace,
            around,
            file,
            read,
            ..
        } = identity;
        let begun = Instant::now();
        let waited = self.waited.entry(user(&process)).or_default();
        let due = begun + AROUND_TIME.min(PATIENCE.saturating_sub(*waited));
        let around = around.and_then(|answer| answer.until(due));
        let (mut parent, cgroup) = around.map_or((None, None), |it| (it.parent, it.cgroup));
        if let Some(answer) = cgroup {
            process.cgroup = answer.until(due).flatten();
        }
        *waited += begun.elapsed().saturating_sub(QUICK);
        self.foresee(&process);
        if let Some(image) = &mut process.image {
            self.identifier.place(image, namespace);
        }
        if let Some(recorded) = self.recorded.get_mut(&process.pid)
            && recorded.identity.process.start_ticks == process.start_ticks
        {
            recorded.complete();
            // A key tool that opens is known with its parent.
            parent = parent.or_else(|| recorded.parent.clone());
            if let (Some(parent), Some(known)) = (&mut parent, &recorded.parent)
                && (parent.pid, parent.start_ticks) == (known.pid, known.start_ticks)
                && parent.args.is_none()
                && same_file(parent.image.as_ref(), known.image.as_ref())
            {
                parent.args.clone_from(&known.args);
            }
            let known = &mut recorded.identity.process;
            if same_file(known.image.as_ref(), process.image.as_ref()) {
                if known.args.is_none() {
                    known.args.clone_from(&process.args);
                    known.name.clone_from(&process.name);
                }
                // What it runs was certain before this hold.
                verified |= recorded.is_verified();
            }
        }
        if !verified && let Some(table) = &mut self.table {
            // On a busy machine the opener may not have fallen asleep in the hold
            // for as long as it could be kept.
            table.drain();
            verified = tabled::is_alone(table, &process);
        }
        // Where its path leads to it, it can be opened there.
        let image = process.image.as_ref();
        let elsewhere = image.is_some_and(|image| image.state != Some(ImageState::Same));
        let program = ProgramFacts {
            file: file.filter(|_| elsewhere),
            seen: verified.then_some(read),
            ..ProgramFacts::default()
        };
        let candidates = if verified {
            Vec::new()
        } else {
            process.image.take().into_iter().collect()
        };
        Attribution {
            method: Method::Held,
            certain: verified,
            program,
            process: Some(process),
            ancestors: parent.into_iter().collect(),
            candidates,
        }
    }

    /// Who a record names. Reads no more than what a moment later may be gone;
    /// [`Resolver::finish`] adds the rest.
    pub fn attribute(&mut self, writer: &Writer) -> Attribution {
        if writer.pid <= 0 {
            return Attribution::none();
        }
        let mut recorded = self.recorded(writer);
        if recorded.as_ref().is_none_or(|recorded| !recorded.certain)
            && let Some(table) = &self.table
            && let Some(tabled) = tabled::attribute(table, writer)
            && (tabled.certain || recorded.is_none())
        {
            recorded = Some(tabled);
        }
        let attribution = recorded.unwrap_or_else(|| self.live(writer));
        if let Some(process) = &attribution.process {
            self.foresee(process);
        }
        attribution
    }

    /// Reads the lineage of a key tool, unless that of its parent is known, while
    /// it is there: of what has ended no more than the program is known.
    fn foresee_lineage(&mut self, process: &Process, parent: &Process) {
        let key = parent.start_ticks.map(|start| (parent.pid, start));
        if key.is_some_and(|key| self.ancestors.contains_key(&key)) {
            return;
        }
        self.complete_lineage(&mut Attribution {
            process: Some(process.clone()),
            ancestors: vec![parent.clone()],
            ..Attribution::none()
        });
    }

    /// Has read what may be gone with the writer's session, once for all
    /// children of a process.
    fn foresee(&mut self, process: &Process) {
        let parent = process.parent_pid.filter(|pid| *pid > 1);
        let key = parent.unwrap_or(process.pid);
        let now = Instant::now();
        // A pid does not come round sooner.
        let is_recent = |since: Instant| now.duration_since(since) < FORESEEN_TIME;
        let mut known = self.foreseen.iter();
        if known.any(|(pid, since)| *pid == key && is_recent(*since)) {
            return;
        }
        if self.foreseen.len() >= MAX_FORESEEN {
            self.foreseen.pop_front();
        }
        self.foreseen.push_back((key, now));
        self.identifier.clients().foresee(process);
    }

    /// Who made or `moved` the directory in which a scan found a file.
    pub fn infer(&mut self, maker: Option<&Writer>, moved: bool) -> Attribution {
        let Some(maker) = maker else {
            return Attribution::none();
        };
        let mut attribution = self.attribute(maker);
        let Some(process) = &mut attribution.process else {
            return attribution;
        };
        attribution.method = Method::Inferred;
        attribution.certain = false;
        // Whoever moved a directory moved what is in it. One that made it and is
        // gone may have left the rest to another: mkdir(1) makes no files.
        let alive = maker.pidfd.as_ref().is_some_and(PidFd::is_alive);
        if !moved && !alive {
            attribution.candidates.extend(process.image.take());
        }
        attribution
    }

    fn recorded(&mut self, writer: &Writer) -> Option<Attribution> {
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

    fn live(&mut self, writer: &Writer) -> Attribution {
        let mut attribution = Attribution::none();
        if writer.pidfd.is_none() {
            // Gone when the record was read: what runs under its pid now is another.
            return attribution;
        }
        let Ok(mut process) = self.identifier.brief(writer.pid) else {
            return attribution;
        };
        match &writer.pidfd {
            // The pid was its own all the while.
            Some(pidfd) if pidfd.is_alive() => attribution.method = Method::Live,
            // A zombie keeps its pid and its ids.
            Some(_) => attribution.method = Method::Partial,
            None => return attribution,
        }
        if attribution.method == Method::Partial || process.image.is_none() {
            attribution.method = Method::Partial;
            process.image = None;
        }
        attribution.process = Some(process);
        attribution
    }

    /// Reads what a moment later may be gone: for a writer that nobody holds.
    pub fn enrich(&self, attribution: &mut Attribution) {
        if attribution.method == Method::Recorded
            && self.table.is_some()
            && let Some(process) = &mut attribution.process
        {
            tabled::complete(process, &self.identifier);
        }
    }

    /// Adds what has become known since the record was read.
    pub fn finish(&mut self, attribution: &mut Attribution) {
        self.enrich(attribution);
        if let Some(process) = &mut attribution.process
            && process.args.is_none()
            && process.image.is_some()
        {
            let recorded = self
                .recorded
                .get_mut(&process.pid)
                .filter(|recorded| recorded.identity.process.start_ticks == process.start_ticks);
            if let Some(recorded) = recorded {
                recorded.complete();
                process.args.clone_from(&recorded.identity.process.args);
                process.name.clone_from(&recorded.identity.process.name);
            } else if matches!(attribution.method, Method::Live | Method::Recorded)
                && process.credentials.is_some()
            {
                let waited = self.waited.entry(user(process)).or_default();
                let begun = Instant::now();
                if *waited < PATIENCE
                    && let Ok(now) = self.identifier.snapshot(process.pid)
                    && now.start_ticks == process.start_ticks
                    && same_file(now.image.as_ref(), process.image.as_ref())
                {
                    process.args = now.args;
                }
                *waited += begun.elapsed().saturating_sub(QUICK);
            }
        }
        self.expose(attribution);
        if let (Some(table), Some(process)) = (&self.table, &attribution.process) {
            attribution.program.loaded = tabled::loaded(table, process);
        }
        self.complete_lineage(attribution);
    }

    /// Puts what a process really runs in the place of what it says it runs.
    fn expose(&self, attribution: &mut Attribution) {
        let (Some(table), Some(process)) = (&self.table, &mut attribution.process) else {
            return;
        };
        let seen = attribution.program.seen;
        let Some(mut images) = tabled::real_programs(table, process, seen) else {
            return;
        };
        attribution.program.claimed = process.image.take().map(|image| image.path);
        if images.len() == 1 {
            process.image = images.pop().map(|image| Image {
                // Not what `/proc/PID/exe` leads to.
                state: Some(ImageState::Replaced),
                ..image
            });
        } else {
            // It has run several: which one it was then is not known.
            attribution.certain = false;
            attribution.candidates = images;
        }
    }

    /// Follows the parents up to init, as far as they live or the table knows them.
    fn complete_lineage(&mut self, attribution: &mut Attribution) {
        let Some(process) = &attribution.process else {
            return;
        };
        // The parent that was read during the hold has no arguments yet.
        if let Some(parent) = attribution.ancestors.first_mut()
            && parent.args.is_none()
            && let Some(start) = parent.start_ticks
            && let Some(now) = self
                .fresh_ancestor(parent.pid, start, parent.image.as_ref())
                .or_else(|| self.ancestor(parent.pid, start))
            && same_file(now.image.as_ref(), parent.image.as_ref())
        {
            *parent = now;
        }
        loop {
            let child = attribution.ancestors.last().unwrap_or(process);
            if attribution.ancestors.len() >= MAX_ANCESTORS {
                return;
            }
            if let Some(ancestor) = self.ancestor_in_table(child) {
                attribution.ancestors.push(ancestor);
                continue;
            }
            let (Some(pid), Some(child_start)) = (child.parent_pid, child.start_ticks) else {
                return;
            };
            if pid <= 0 {
                return;
            }
            let Ok(start) = self.identifier.start_ticks(pid) else {
                return;
            };
            // One that is younger than its child took over the pid.
            if start > child_start {
                return;
            }
            let Some(ancestor) = self.ancestor(pid, start) else {
                return;
            };
            attribution.ancestors.push(ancestor);
        }
    }

    /// Who made `child`, whether it lives or not.
    fn ancestor_in_table(&mut self, child: &Process) -> Option<Process> {
        let table = self.table.as_ref()?;
        let (id, known) = tabled::parent(table, child)?;
        let ticks = proctable::to_ticks(known.birth);
        let running = tabled::running(table, id);
        let fresh = [ticks, ticks.saturating_sub(1), ticks + 1]
            .into_iter()
            .find_map(|start| self.fresh_ancestor(known.pid, start, running.as_ref()));
        if let Some(fresh) = fresh {
            return Some(Process {
                parent_pid: Some(known.parent_pid),
                ..fresh
            });
        }
        let ended = tabled::from_table(&known);
        if !known.ended
            && let Ok(start) = self.identifier.start_ticks(known.pid)
            && tabled::is_start(&known, start)
            && let Some(mut ancestor) = self.ancestor(known.pid, start)
        {
            ancestor.parent_pid = ended.parent_pid;
            // A zombie has its ids, and no program any more.
            ancestor.image = ancestor.image.or(ended.image);
            return Some(ancestor);
        }
        // What an earlier event told of it, if it ran the same program then.
        let before = [ticks, ticks.saturating_sub(1), ticks + 1]
            .into_iter()
            .find_map(|start| Some(&self.ancestors.get(&(known.pid, start))?.process))
            .filter(|before| same_file(before.image.as_ref(), ended.image.as_ref()));
        Some(before.map_or(ended.clone(), |before| Process {
            parent_pid: ended.parent_pid,
            ..before.clone()
        }))
    }

    /// What was found of process `pid` a moment ago, if it runs `image` now as it
    /// did then: in a burst the same few ancestors are asked for each time.
    fn fresh_ancestor(&self, pid: i32, start: u64, image: Option<&Image>) -> Option<Process> {
        let known = self.ancestors.get(&(pid, start))?;
        let is_it = known.is_fresh() && same_file(known.process.image.as_ref(), image);
        is_it.then(|| known.process.clone())
    }

    /// A snapshot of the living process `pid` that started at `start`.
    fn ancestor(&mut self, pid: i32, start: u64) -> Option<Process> {
        // Arguments that could not be read in time are asked for again, but not with
        // each event: to wait for them takes longer than all else.
        if let Some(known) = self.ancestors.get_mut(&(pid, start))
            && (known.process.args.is_some() || known.is_fresh())
            && known.process.image == self.identifier.image(pid)
        {
            if known.process.args.is_some() {
                known.checked = Instant::now();
            }
            return Some(known.process.clone());
        }
        let new = self.identifier.snapshot(pid).ok()?;
        if new.start_ticks != Some(start) {
            return None;
        }
        if self.ancestors.len() >= MAX_CACHED {
            self.ancestors.clear();
        }
        let checked = Instant::now();
        let process = new.clone();
        let snapshot = Snapshot { process, checked };
        self.ancestors.insert((pid, start), snapshot);
        Some(new)
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

impl Recorded {
    /// Either it slept in the hold to the end, or it had one thread and has
    /// been seen to run the tool: no other thread ran another program instead.
    fn is_verified(&self) -> bool {
        self.identity.verified || (self.identity.alone && self.identity.process.name.is_some())
    }

    /// Takes the name and the arguments that were read after the exec.
    fn complete(&mut self) {
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

#[cfg(test)]
mod tests;
