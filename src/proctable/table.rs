//! Generations of pids: who had a pid when, and which programs it ran when.
//!
//! ```text
//! fork ──► image of the parent ──exec──► image ──exec──► image ──exit──► (kept a while)
//! ```
//!
//! Pure: records and times are given. Everything kept is bounded, and what is
//! dropped for a bound makes the answers about that time uncertain, never wrong.
//!
//! What is called a program here is the file of the first executable mapping
//! after an exec: the code that runs, whatever `/proc/PID/exe` was made to say.
//! The kernel makes that mapping. What has none when its `[vdso]` is mapped, code on
//! a stack that can be executed, could map whichever file it likes to be called by:
//! it has no program here.

mod asked;

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

pub use self::asked::{Fate, Known, Verdict, Window};
use super::record::{Program, Record, Time, What};

/// How long a process that ended is kept for the lineage of others.
const KEPT: Time = 30_000_000_000;
/// How many processes that ended are kept at most.
const MAX_ENDED: usize = 16 * 1024;
/// How many processes are kept at all.
const MAX_GENERATIONS: usize = 128 * 1024;
/// How many images of one process are kept.
const MAX_PHASES: usize = 32;
/// How many ancestors that ended a process keeps alive here.
const MAX_ANCESTORS: usize = 32;
/// How many bytes of paths are kept.
const MAX_PATHS: usize = 16 * 1024 * 1024;
/// By how much two clocks that are both called `CLOCK_MONOTONIC` may differ:
/// perf reads it in a way that is safe in an NMI, and may be off by some
/// nanoseconds while the clock is being updated (kernel/time/timekeeping.c).
pub(super) const SKEW: Time = 2_000;
/// How far a start in clock ticks may lie from the fork's time stamp.
const TICK: Time = 25_000_000;

/// A process that had a pid.
pub type Id = u64;

/// What a process runs.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Running {
    /// This file.
    Known(Arc<Program>),
    /// An exec has begun; until its file is mapped, none of it has run.
    Starting,
    /// It runs, and no file was mapped by its exec.
    Unfiled,
    /// Nobody saw.
    Unknown,
}

#[derive(Clone, Debug)]
struct Phase {
    from: Time,
    running: Running,
    /// The next other file that it mapped to be executed: its dynamic loader,
    /// or, of a loader that was called as a program, the program it runs.
    second: Option<Arc<Program>>,
}

#[derive(Debug)]
struct Generation {
    pid: i32,
    parent: Option<Id>,
    parent_pid: i32,
    birth: Time,
    exit: Option<Time>,
    /// Read from `/proc` at this time; its fork was not seen.
    seeded: Option<Time>,
    /// What it did before is not known in full.
    known_since: Time,
    phases: Vec<Phase>,
    name: OsString,
    /// It has, or had, more than one thread.
    threads: bool,
    /// How many children here refer to it.
    children: u32,
}

/// A process as `/proc` shows it when the table is filled.
#[derive(Clone, Debug)]
pub struct Seed {
    /// Its pid.
    pub pid: i32,
    /// Its parent's pid.
    pub parent: i32,
    /// When it started.
    pub birth: Time,
    /// What it runs.
    pub program: Option<Program>,
    /// Its real and effective user is root of the host: nobody else can have made it be
    /// shown as what it does not run.
    pub is_roots: bool,
    /// Its `comm`.
    pub name: OsString,
}

/// The process table.
#[derive(Debug, Default)]
pub struct Table {
    /// Each by itself: the table grows and shrinks with the host's load.
    generations: HashMap<Id, Box<Generation>>,
    by_pid: HashMap<i32, Vec<Id>>,
    /// Processes that ended and that no child refers to, oldest first.
    ended: VecDeque<Id>,
    programs: HashSet<Arc<Program>>,
    path_bytes: usize,
    next: Id,
    /// Since when the records are complete.
    complete_since: Time,
}

impl Table {
    /// How many processes are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.generations.len()
    }

    /// Whether none is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.generations.is_empty()
    }

    /// What happened before `time` may not be known: records were lost.
    pub fn incomplete_before(&mut self, time: Time) {
        self.complete_since = self.complete_since.max(time);
    }

    /// Takes what `/proc` shows at first, which is believed; read between `began` and
    /// `done`.
    pub fn seed(&mut self, seeds: Vec<Seed>, began: Time, done: Time) {
        self.take_stock(seeds, true, began, done);
    }

    /// Takes what `/proc` shows after a loss. What is not among the seeds has ended. What
    /// `/proc` calls a program by is for that program to choose (`PR_SET_MM_MAP`), in a
    /// user namespace of its user's or by sharing its memory with a process in one, and
    /// anybody can make records be lost: of root's it confirms what was seen, and tells
    /// nothing new. What others run is open until their next exec.
    pub fn repair(&mut self, seeds: Vec<Seed>, began: Time, done: Time) {
        self.take_stock(seeds, false, began, done);
    }

    fn take_stock(&mut self, seeds: Vec<Seed>, believed: bool, began: Time, done: Time) {
        let mut parents = Vec::new();
        let mut living: HashSet<i32> = HashSet::with_capacity(seeds.len());
        for seed in seeds {
            living.insert(seed.pid);
            if let Some(id) = self.newest(seed.pid)
                && let Some(known) = self.generations.get_mut(&id)
                && known.exit.is_none()
                && known.birth.abs_diff(seed.birth) <= TICK
            {
                let is_over = match known.phases.last().map(|phase| &phase.running) {
                    Some(Running::Known(known)) => {
                        let shown = seed.program.as_ref().filter(|_| seed.is_roots);
                        !shown.is_some_and(|shown| known.is_shown_as(shown))
                    }
                    Some(Running::Unfiled | Running::Unknown) => false,
                    Some(Running::Starting) | None => true,
                };
                if is_over {
                    known.phases.push(Phase {
                        from: began,
                        running: Running::Unknown,
                        second: None,
                    });
                }
                continue;
            }
            let running = self.running(seed.program.filter(|_| believed));
            if let Some(former) = self.newest(seed.pid) {
                self.end(former, began);
            }
            let id = self.insert(Generation {
                pid: seed.pid,
                parent: None,
                parent_pid: seed.parent,
                birth: seed.birth,
                exit: None,
                seeded: Some(done),
                known_since: done,
                phases: vec![Phase {
                    from: 0,
                    running,
                    second: None,
                }],
                name: seed.name,
                threads: true,
                children: 0,
            });
            parents.extend(id);
        }
        for id in parents {
            let Some(parent_pid) = self.generations.get(&id).map(|it| it.parent_pid) else {
                continue;
            };
            let parent = self.newest(parent_pid).filter(|parent| *parent != id);
            self.adopt(id, parent);
        }
        // Its end was among what was lost.
        let gone: Vec<Id> = self
            .generations
            .iter()
            .filter(|(_, known)| {
                known.exit.is_none() && known.birth < began && !living.contains(&known.pid)
            })
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            self.end(id, done);
        }
        self.incomplete_before(done);
    }

    /// Takes one record; records come in the order of their time.
    pub fn take(&mut self, record: Record) {
        let Record { time, pid, what } = record;
        match what {
            What::Fork { parent } => self.fork(pid, parent, time),
            What::Exec { name } => {
                if let Some(id) = self.newest(pid)
                    && let Some(known) = self.generations.get_mut(&id)
                {
                    known.phases.push(Phase {
                        from: time,
                        running: Running::Starting,
                        second: None,
                    });
                    known.name = name;
                    // A thread that is not the first runs on as the first.
                    self.revive(id);
                    self.trim(pid);
                }
            }
            What::Map(program) => self.map(pid, program),
            What::Unfiled => self.unfiled(pid),
            What::Thread => {
                if let Some(known) = self.newest_mut(pid) {
                    known.threads = true;
                }
            }
            What::Rename { name } => {
                if let Some(known) = self.newest_mut(pid) {
                    known.name = name;
                }
            }
            What::Exit => {
                if let Some(id) = self.newest(pid) {
                    self.end(id, time);
                }
            }
            What::Moment { .. } => {}
            What::Lost(_) => self.incomplete_before(time),
        }
    }

    /// The first mapping after an exec is what runs, the next other file its second.
    fn map(&mut self, pid: i32, program: Program) {
        let Some(id) = self.newest(pid) else { return };
        self.undo_end_in_exec(id);
        let phase = |table: &Self| {
            let known = table.generations.get(&id)?;
            let phase = known.phases.last()?;
            match &phase.running {
                Running::Starting => Some(false),
                Running::Known(first) if phase.second.is_none() && **first != program => Some(true),
                Running::Known(_) | Running::Unfiled | Running::Unknown => None,
            }
        };
        let Some(second) = phase(self) else { return };
        let running = self.running(Some(program));
        let known = self.generations.get_mut(&id);
        let Some(phase) = known.and_then(|known| known.phases.last_mut()) else {
            return;
        };
        match running {
            Running::Known(program) if second => phase.second = Some(program),
            _ if second => {}
            running => phase.running = running,
        }
    }

    /// Its exec has mapped all its files.
    fn unfiled(&mut self, pid: i32) {
        let Some(id) = self.newest(pid) else { return };
        self.undo_end_in_exec(id);
        let known = self.generations.get_mut(&id);
        if let Some(phase) = known.and_then(|known| known.phases.last_mut())
            && phase.running == Running::Starting
        {
            phase.running = Running::Unfiled;
        }
    }

    fn fork(&mut self, pid: i32, parent_pid: i32, time: Time) {
        if pid <= 0 {
            return;
        }
        let parent = self.newest(parent_pid);
        let maker = parent.and_then(|id| self.generations.get(&id));
        // The child is made by the thread that runs: not by one that waits in exec.
        let phase = maker.and_then(|known| known.phases.last());
        let running = phase.map_or(Running::Unknown, |phase| phase.running.clone());
        let second = phase.and_then(|phase| phase.second.clone());
        let (known_since, name) = maker.map_or((0, OsString::new()), |known| {
            (known.known_since, known.name.clone())
        });
        // `/proc` showed it already; now its fork is known too.
        if let Some(id) = self.newest(pid)
            && let Some(known) = self.generations.get_mut(&id)
            && known.exit.is_none()
            && known.seeded.is_some_and(|read| time <= read)
            && known.birth.abs_diff(time) <= TICK
        {
            known.birth = time;
            known.parent_pid = parent_pid;
            // After a loss: it began as its maker's program; what it ran after that is in the
            // ring, too. At the start the maker is known no better than itself.
            if let [
                Phase {
                    running: Running::Unknown,
                    ..
                },
            ] = known.phases.as_slice()
            {
                known.phases = vec![Phase {
                    from: time,
                    running,
                    second,
                }];
            }
            self.adopt(id, parent);
            return;
        }
        // Whoever had the pid before has ended, even if that was lost.
        if let Some(id) = self.newest(pid) {
            self.end(id, time);
        }
        let id = self.insert(Generation {
            pid,
            parent: None,
            parent_pid,
            birth: time,
            exit: None,
            seeded: None,
            // With an uncertain parent, so is what the child began as.
            known_since: if known_since <= time { 0 } else { known_since },
            phases: vec![Phase {
                from: time,
                running,
                second,
            }],
            name,
            threads: false,
            children: 0,
        });
        if let Some(id) = id {
            self.adopt(id, parent);
            self.bound_ancestors(id);
        }
    }

    /// Forgets what cannot be asked for any more: no window begins before
    /// `floor` from now on.
    pub fn prune(&mut self, now: Time, floor: Time) {
        while let Some(id) = self.ended.front().copied() {
            let Some(known) = self.generations.get(&id) else {
                self.ended.pop_front();
                continue;
            };
            let exit = known.exit.unwrap_or(now);
            let old = exit < floor && exit.saturating_add(KEPT) < now;
            let crowded = self.ended.len() > MAX_ENDED || self.generations.len() > MAX_GENERATIONS;
            if !old && !crowded {
                break;
            }
            self.ended.pop_front();
            if exit >= floor {
                self.incomplete_before(now);
            }
            self.remove(id);
        }
        if self.path_bytes > MAX_PATHS {
            self.forget_programs();
        }
    }

    fn running(&mut self, program: Option<Program>) -> Running {
        let Some(program) = program else {
            return Running::Unknown;
        };
        if let Some(known) = self.programs.get(&program) {
            return Running::Known(Arc::clone(known));
        }
        let bytes = program.path.as_os_str().as_bytes().len();
        if self.path_bytes + bytes > MAX_PATHS {
            self.forget_programs();
            if self.path_bytes + bytes > MAX_PATHS {
                return Running::Unknown;
            }
        }
        let program = Arc::new(program);
        self.path_bytes += bytes;
        self.programs.insert(Arc::clone(&program));
        Running::Known(program)
    }

    fn forget_programs(&mut self) {
        self.programs
            .retain(|program| Arc::strong_count(program) > 1);
        self.path_bytes = self
            .programs
            .iter()
            .map(|program| program.path.as_os_str().as_bytes().len())
            .sum();
    }

    fn newest(&self, pid: i32) -> Option<Id> {
        self.by_pid.get(&pid)?.last().copied()
    }

    fn newest_mut(&mut self, pid: i32) -> Option<&mut Generation> {
        let id = self.newest(pid)?;
        self.generations.get_mut(&id).map(|known| &mut **known)
    }

    /// `None`: there is no room, and the answers are uncertain until there is.
    fn insert(&mut self, generation: Generation) -> Option<Id> {
        if self.generations.len() >= MAX_GENERATIONS {
            let now = generation.birth;
            self.prune(now, 0);
            if self.generations.len() >= MAX_GENERATIONS {
                self.incomplete_before(now);
                return None;
            }
        }
        let id = self.next;
        self.next += 1;
        self.by_pid.entry(generation.pid).or_default().push(id);
        self.generations.insert(id, Box::new(generation));
        Some(id)
    }

    fn adopt(&mut self, id: Id, parent: Option<Id>) {
        let Some(child) = self.generations.get_mut(&id) else {
            return;
        };
        let former = std::mem::replace(&mut child.parent, parent);
        if let Some(parent) = parent.and_then(|id| self.generations.get_mut(&id)) {
            parent.children += 1;
        }
        if let Some(former) = former {
            self.release(former);
        }
    }

    /// A child of `id` is gone from the table, or has another parent.
    fn release(&mut self, id: Id) {
        if let Some(known) = self.generations.get_mut(&id) {
            known.children = known.children.saturating_sub(1);
            if known.children == 0 && known.exit.is_some() {
                self.ended.push_back(id);
            }
        }
    }

    fn end(&mut self, id: Id, time: Time) {
        if let Some(known) = self.generations.get_mut(&id)
            && known.exit.is_none()
        {
            known.exit = Some(time);
            if known.children == 0 {
                self.ended.push_back(id);
            }
        }
    }

    /// While a process runs a program with more rights than its user has, or one
    /// that its user cannot read, the kernel says that it ends, though no more ends
    /// than what its user can observe (`begin_new_exec`, fs/exec.c). What maps a
    /// program has not ended.
    fn undo_end_in_exec(&mut self, id: Id) {
        let known = self.generations.get(&id);
        let phase = known.and_then(|known| known.phases.last());
        if phase.map(|phase| &phase.running) == Some(&Running::Starting) {
            self.revive(id);
        }
    }

    /// It has not ended, if it was taken for that a moment ago.
    fn revive(&mut self, id: Id) {
        let known = self.generations.get_mut(&id);
        if known.and_then(|known| known.exit.take()).is_some()
            && let Some(at) = self.ended.iter().rposition(|ended| *ended == id)
        {
            self.ended.remove(at);
        }
    }

    fn trim(&mut self, pid: i32) {
        if let Some(known) = self.newest_mut(pid)
            && known.phases.len() > MAX_PHASES
        {
            known.phases.remove(0);
            known.known_since = known.known_since.max(known.phases[0].from);
        }
    }

    /// A chain of processes that each make the next and end would grow for ever.
    fn bound_ancestors(&mut self, id: Id) {
        let mut at = id;
        for _ in 0..MAX_ANCESTORS {
            match self.generations.get(&at).and_then(|known| known.parent) {
                Some(parent) => at = parent,
                None => return,
            }
        }
        self.adopt(at, None);
    }

    fn remove(&mut self, id: Id) {
        let Some(known) = self.generations.remove(&id) else {
            return;
        };
        if let Some(ids) = self.by_pid.get_mut(&known.pid) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_pid.remove(&known.pid);
            }
        }
        if let Some(parent) = known.parent {
            self.release(parent);
        }
    }
}
