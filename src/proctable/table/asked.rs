//! What the table answers.
//!
//! Owns when an answer is certain. Must not change the table.

use std::ffi::OsString;
use std::sync::Arc;

use super::{Generation, Id, Phase, Running, SKEW, TICK, Table};
use crate::proctable::record::{Program, Time};

/// What is known, besides its pid, of the process that a record names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It lives: it is the newest of its pid.
    Alive,
    /// It had not been reaped when the record was read.
    Ended {
        /// The moment before the reading.
        read: Time,
    },
    /// It had been reaped when the record was read.
    Reaped,
}

/// When the act may have happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Not before.
    pub from: Time,
    /// Not after.
    pub until: Time,
}

/// Who it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The table does not say.
    Unknown,
    /// No other process and no other program is possible; since when it ran that, unless
    /// it may have been run again meanwhile.
    One(Id, Arc<Program>, Option<Time>),
    /// Several programs are possible, or one that is known and others that are
    /// not; the process, if it is only one.
    Several(Option<Id>, Vec<Arc<Program>>),
}

/// What the table knows of one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its pid.
    pub pid: i32,
    /// The pid of who made it.
    pub parent_pid: i32,
    /// When it was made.
    pub birth: Time,
    /// Whether it has ended.
    pub ended: bool,
    /// Its `comm`.
    pub name: OsString,
    /// What it ran at the time asked for.
    pub program: Option<Arc<Program>>,
}

impl Generation {
    /// What it ran at `time`.
    fn phase(&self, time: Time) -> Option<&Phase> {
        let mut phases = self.phases.iter().rev();
        phases
            .find(|phase| phase.from <= time)
            .or(self.phases.first())
    }
}

impl Table {
    /// Says who did, in `window`, what a record with `pid` tells. `moments` are
    /// the moments at which that pid's records were made in the window, where the
    /// kernel says them; later acts may be part of them, unless the record tells of
    /// what was done `once`.
    #[must_use]
    pub fn who(
        &self,
        pid: i32,
        fate: Fate,
        window: Window,
        moments: Option<&[Time]>,
        once: bool,
    ) -> Verdict {
        let read = window.until.saturating_add(SKEW);
        let mut window = window;
        if let Some(moments) = moments {
            let within: Vec<Time> = moments
                .iter()
                .copied()
                .filter(|moment| (window.from..=window.until).contains(moment))
                .collect();
            if let (Some(first), Some(last)) = (within.iter().min(), within.iter().max()) {
                window.from = *first;
                if once {
                    window.until = *last;
                }
            }
        }
        let from = window.from.saturating_sub(SKEW);
        let until = window.until.saturating_add(SKEW);
        let Some(ids) = self.by_pid.get(&pid) else {
            return Verdict::Unknown;
        };
        let all: Vec<(Id, &Generation)> = ids
            .iter()
            .filter_map(|id| Some((*id, &**self.generations.get(id)?)))
            .collect();
        let possible = all.iter().enumerate().filter(|(index, (_, known))| {
            // A process can act until its pid is given to another: closing its
            // files comes after the record of its end.
            let next = all.get(index + 1).map(|(_, next)| next.birth);
            let overlaps = known.birth <= until && next.is_none_or(|next| next >= from);
            overlaps
                && match fate {
                    Fate::Alive => next.is_none(),
                    Fate::Ended { read } => {
                        next.is_none_or(|next| next >= read.saturating_sub(SKEW))
                    }
                    Fate::Reaped => known.exit.is_some_and(|exit| exit <= read),
                }
        });
        let possible: Vec<&(Id, &Generation)> = possible.map(|(_, it)| it).collect();
        let mut complete = from >= self.complete_since;
        // A record has no pidfd either where the kernel could not make one.
        if fate == Fate::Reaped
            && let Some((_, newest)) = all.last()
        {
            complete &= newest.exit.is_some() || newest.birth > until;
        }
        let mut programs: Vec<Arc<Program>> = Vec::new();
        let mut begun: Vec<Time> = Vec::new();
        for (_, known) in &possible {
            complete &= known.known_since <= from;
            for (index, phase) in known.phases.iter().enumerate() {
                let next = known.phases.get(index + 1).map(|next| next.from);
                if phase.from > until || next.is_some_and(|next| next < from) {
                    continue;
                }
                match &phase.running {
                    Running::Known(program) => {
                        begun.push(self.known_from(known, phase));
                        if !programs.contains(program) {
                            programs.push(Arc::clone(program));
                        }
                    }
                    Running::Starting => {}
                    Running::Unfiled | Running::Unknown => complete = false,
                }
            }
        }
        let only = match possible.as_slice() {
            [] => return Verdict::Unknown,
            [(id, _)] => Some(*id),
            _ => None,
        };
        match (only, programs.as_slice()) {
            (_, []) => Verdict::Unknown,
            (Some(id), [program]) if complete => {
                let since = begun.pop().filter(|_| begun.is_empty());
                Verdict::One(id, Arc::clone(program), since)
            }
            _ => Verdict::Several(only, programs),
        }
    }

    /// Whether the process that had `pid` and was born at `birth`, to a tick, has
    /// had one thread all its life, and nobody else had the pid as far back as is
    /// known. While that thread waits in the kernel nobody can change what it is.
    #[must_use]
    pub fn is_alone(&self, pid: i32, birth: Time) -> bool {
        let Some([id]) = self.by_pid.get(&pid).map(Vec::as_slice) else {
            return false;
        };
        self.generations.get(id).is_some_and(|known| {
            known.birth.abs_diff(birth) <= TICK
                && !known.threads
                && self.complete_since <= known.birth
        })
    }

    /// The process that had `pid` and was born at `birth`, to a tick; `None`, too, where
    /// another had that pid so shortly before or after it that it may be meant.
    #[must_use]
    pub fn find(&self, pid: i32, birth: Time) -> Option<Id> {
        let mut born = self.born(pid, birth);
        let id = born.next()?;
        born.next().is_none().then_some(id)
    }

    /// Whether several processes that had `pid` were born at `birth`, to a tick.
    #[must_use]
    pub fn is_reused(&self, pid: i32, birth: Time) -> bool {
        self.born(pid, birth).nth(1).is_some()
    }

    /// The process that had `pid` at `time` and was born at `birth`, to a tick.
    #[must_use]
    pub fn find_at(&self, pid: i32, birth: Time, time: Time) -> Option<Id> {
        let last = self.last_by(pid, time)?;
        self.born(pid, birth).find(|id| *id == last)
    }

    /// The last process that had `pid` by `time`.
    fn last_by(&self, pid: i32, time: Time) -> Option<Id> {
        let until = time.saturating_add(SKEW);
        let had = |id: &&Id| self.generations.get(id).is_some_and(|it| it.birth <= until);
        self.by_pid.get(&pid)?.iter().rev().find(had).copied()
    }

    /// The processes with `pid` that may have been born at `birth`, which is known to a
    /// tick.
    fn born(&self, pid: i32, birth: Time) -> impl Iterator<Item = Id> {
        let ids = self.by_pid.get(&pid).into_iter().flatten().copied();
        ids.filter(move |id| {
            let known = self.generations.get(id);
            known.is_some_and(|known| known.birth.abs_diff(birth) <= TICK)
        })
    }

    /// Whether process `id` ran at `time` what no file stands for.
    #[must_use]
    pub fn is_unfiled(&self, id: Id, time: Time) -> bool {
        let known = self.generations.get(&id);
        let phase = known.and_then(|known| known.phase(time));
        phase.is_some_and(|phase| phase.running == Running::Unfiled)
    }

    /// What is known of process `id`, with what it ran at `time`.
    #[must_use]
    pub fn get(&self, id: Id, time: Time) -> Option<Known> {
        let known = self.generations.get(&id)?;
        let phase = known.phase(time);
        Some(Known {
            pid: known.pid,
            parent_pid: known.parent_pid,
            birth: known.birth,
            ended: known.exit.is_some(),
            name: known.name.clone(),
            program: phase.and_then(|phase| match &phase.running {
                Running::Known(program) => Some(Arc::clone(program)),
                Running::Starting | Running::Unfiled | Running::Unknown => None,
            }),
        })
    }

    /// What process `id` mapped to be executed besides the file that `is_it`,
    /// which it ran; `None` if that is not known, or was not always the same.
    #[must_use]
    pub fn second(&self, id: Id, is_it: impl Fn(&Program) -> bool) -> Option<Arc<Program>> {
        let known = self.generations.get(&id)?;
        let mut phases = known
            .phases
            .iter()
            .filter(|phase| matches!(&phase.running, Running::Known(program) if is_it(program)));
        let second = phases.next()?.second.as_ref()?;
        phases
            .all(|phase| phase.second.as_ref() == Some(second))
            .then(|| Arc::clone(second))
    }

    /// All programs that process `id` has run, the first of them that of its
    /// maker; `None` if they are not all known.
    #[must_use]
    pub fn programs(&self, id: Id) -> Option<Vec<Arc<Program>>> {
        let known = self.generations.get(&id)?;
        if self.complete_since > known.birth.max(known.known_since) {
            return None;
        }
        all_of(known.phases.iter())
    }

    /// The programs that process `id` has begun to run since `time`; `None` if they are
    /// not all known.
    #[must_use]
    pub fn begun(&self, id: Id, time: Time) -> Option<Vec<Arc<Program>>> {
        let known = self.generations.get(&id)?;
        if self.complete_since.max(known.known_since) > time {
            return None;
        }
        all_of(known.phases.iter().filter(|phase| phase.from > time))
    }

    /// Since when, at the latest, process `id` ran what it ran at `time`; `None` if that
    /// is not known.
    #[must_use]
    pub fn since(&self, id: Id, time: Time) -> Option<Time> {
        let known = self.generations.get(&id)?;
        let phase = known.phases.iter().rev().find(|phase| phase.from <= time)?;
        let since = self.known_from(known, phase);
        (since <= time).then_some(since)
    }

    /// Since when it is known of a process that it ran this: what was lost before may have
    /// been an exec.
    fn known_from(&self, known: &Generation, phase: &Phase) -> Time {
        self.complete_since.max(known.known_since).max(phase.from)
    }

    /// When the last process that had `pid` by `time` began to run what it ran then;
    /// `None` if that is not known.
    #[must_use]
    pub fn began(&self, pid: i32, time: Time) -> Option<Time> {
        self.since(self.last_by(pid, time)?, time.saturating_add(SKEW))
    }

    /// What process `id` runs now; `None` if it has ended, or its last exec may be
    /// among what was lost.
    #[must_use]
    pub fn runs(&self, id: Id) -> Option<Arc<Program>> {
        let known = self.generations.get(&id)?;
        if known.exit.is_some() || self.complete_since > known.birth.max(known.known_since) {
            return None;
        }
        match &known.phases.last()?.running {
            Running::Known(program) => Some(Arc::clone(program)),
            Running::Starting | Running::Unfiled | Running::Unknown => None,
        }
    }

    /// Who made process `id`, with what it ran when it did.
    #[must_use]
    pub fn parent(&self, id: Id) -> Option<(Id, Known)> {
        let child = self.generations.get(&id)?;
        let parent = child.parent?;
        Some((parent, self.get(parent, child.birth)?))
    }
}

/// The programs of these phases, if all are known.
fn all_of<'p>(phases: impl Iterator<Item = &'p Phase>) -> Option<Vec<Arc<Program>>> {
    let mut programs = Vec::new();
    for phase in phases {
        match &phase.running {
            Running::Known(program) => programs.push(Arc::clone(program)),
            Running::Starting => {}
            Running::Unfiled | Running::Unknown => return None,
        }
    }
    Some(programs)
}
