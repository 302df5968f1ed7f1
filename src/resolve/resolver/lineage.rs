//! The parents of a writer, up to init.
//!
//! Owns the snapshots of ancestors, which the next event may want again. Must not
//! name a writer.

use std::time::{Duration, Instant};

use super::Resolver;
use crate::proctable::{self, Known, Time};
use crate::resolve::attribution::same_file;
use crate::resolve::{Attribution, Image, Process, tabled};

/// Longest lineage.
const MAX_ANCESTORS: usize = 32;
/// Snapshots of ancestors kept for the next event.
const MAX_CACHED: usize = 512;
/// So long one is as good as new if its process has run no other program since.
const FRESH: Duration = Duration::from_secs(1);

/// An ancestor as it was found last.
pub(super) struct Snapshot {
    process: Process,
    /// Since when it ran that, as far as the table knows.
    since: Option<Time>,
    checked: Instant,
}

impl Snapshot {
    fn is_fresh(&self) -> bool {
        self.checked.elapsed() < FRESH
    }

    /// The process, called what the table has seen it run.
    fn told_as(&self, known: &Known) -> Process {
        Process {
            parent_pid: Some(known.parent_pid),
            image: tabled::vetted(self.process.image.clone(), known),
            ..self.process.clone()
        }
    }
}

impl Resolver {
    /// Reads the lineage of a key tool, unless that of its parent is known, while
    /// it is there: of what has ended no more than the program is known.
    pub(super) fn foresee_lineage(&mut self, process: &Process, parent: &Process) {
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

    /// Follows the parents up to init, as far as they live or the table knows them.
    pub(super) fn complete_lineage(&mut self, attribution: &mut Attribution) {
        let Some(process) = &attribution.process else {
            return;
        };
        // At an exec its arguments are read a moment later than all else of it.
        if let Some(parent) = attribution.ancestors.first_mut()
            && parent.args.is_some()
            && !self.is_as_it_was(process)
        {
            parent.args = None;
        }
        // The parent that was read during the hold has no arguments yet.
        if let Some(parent) = attribution.ancestors.first_mut()
            && parent.args.is_none()
            && let Some(start) = parent.start_ticks
            && let Some(now) = self
                .fresh_ancestor(parent.pid, start, parent.image.as_ref())
                .or_else(|| self.ancestor(parent.pid, start))
            && same_file(now.image.as_ref(), parent.image.as_ref())
            && self.is_as_it_was(process)
        {
            // Whose it is was read at the time.
            parent.args = now.args;
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

    /// The `parent` of a process as it had been read by then, during a hold: if it is who made
    /// it, not who has adopted it, and ran what it ran then. It is called what it ran,
    /// not what it says it runs.
    pub(super) fn as_maker(
        &mut self,
        process: &mut Process,
        parent: Option<Process>,
        read: Time,
    ) -> Option<Process> {
        let Some(table) = &mut self.table else {
            return parent;
        };
        table.catch_up(read);
        let Some(maker) = tabled::parent(table, process) else {
            return parent;
        };
        process.parent_pid = Some(maker.known.pid);
        let mut parent = parent?;
        let is_it = parent.pid == maker.known.pid
            && tabled::is_start(&maker.known, parent.start_ticks?)
            && maker.ran_that(table, read);
        parent.image = tabled::vetted(parent.image.take(), &maker.known);
        is_it.then_some(parent)
    }

    /// Who made `child`, whether it lives or not.
    fn ancestor_in_table(&mut self, child: &Process) -> Option<Process> {
        let table = self.table.as_ref()?;
        let maker = tabled::parent(table, child)?;
        let (known, began) = (&maker.known, maker.began);
        let ticks = proctable::to_ticks(known.birth);
        if !maker.ran_that(table, Time::MAX) {
            // It has run another program since, perhaps as another user.
            let before = self.kept(known.pid, ticks).next();
            let before = before.filter(|before| before.since == began);
            return Some(before.map_or_else(
                || Process {
                    name: None,
                    ..tabled::from_table(known)
                },
                |before| before.told_as(known),
            ));
        }
        let running = tabled::running(table, maker.id);
        let fresh = around(ticks)
            .into_iter()
            .find_map(|start| self.fresh_ancestor(known.pid, start, running.as_ref()));
        if let Some(fresh) = fresh {
            return Some(Process {
                parent_pid: Some(known.parent_pid),
                ..fresh
            });
        }
        let ended = tabled::from_table(known);
        if !known.ended
            && let Ok(start) = self.identifier.start_ticks(known.pid)
            && tabled::is_start(known, start)
            && let Some(mut ancestor) = self.ancestor(known.pid, start)
            && self.is_as_it_was(child)
        {
            ancestor.parent_pid = ended.parent_pid;
            // A zombie has its ids, and no program any more.
            ancestor.image = tabled::vetted(ancestor.image, known);
            return Some(ancestor);
        }
        // What an earlier event told of it, as what it was then.
        let mut before = self.kept(known.pid, ticks);
        let before = before.find(|before| began.is_some() && before.since == began);
        Some(before.map_or(ended, |before| before.told_as(known)))
    }

    /// What was found of the process that had `pid` and started about then.
    fn kept(&self, pid: i32, ticks: u64) -> impl Iterator<Item = &Snapshot> {
        let starts = around(ticks).into_iter();
        starts.filter_map(move |start| self.ancestors.get(&(pid, start)))
    }

    /// Whether the parent of `child` has run no other program since it made it, as far as the
    /// table knows.
    fn is_as_it_was(&mut self, child: &Process) -> bool {
        let Some(table) = &mut self.table else {
            return true;
        };
        table.catch_up(proctable::now());
        tabled::parent(table, child).is_none_or(|maker| maker.ran_that(table, Time::MAX))
    }

    /// What was found of process `pid` a moment ago, if it runs `image` now as it
    /// did then: in a burst the same few ancestors are asked for each time.
    fn fresh_ancestor(&self, pid: i32, start: u64, image: Option<&Image>) -> Option<Process> {
        let known = self.ancestors.get(&(pid, start))?;
        let is_it = known.is_fresh()
            && same_file(known.process.image.as_ref(), image)
            && known.since == self.ran_since(&known.process);
        is_it.then(|| known.process.clone())
    }

    /// The same file may be run again by another user: what a process that lives has run
    /// since when is compared, too.
    fn ran_since(&self, process: &Process) -> Option<Time> {
        tabled::runs_since(self.table.as_ref()?, process, Time::MAX)
    }

    /// A snapshot of the living process `pid` that started at `start`.
    fn ancestor(&mut self, pid: i32, start: u64) -> Option<Process> {
        let since = self.runs_since_now(pid, start);
        // Arguments that could not be read in time are asked for again, but not with
        // each event: to wait for them takes longer than all else.
        let known = self.ancestors.get(&(pid, start));
        let known = known.filter(|known| known.since == since);
        if let Some(known) = known.filter(|known| known.process.args.is_some() || known.is_fresh())
            && let Ok(now) = self.identifier.glance(pid)
            && now.start_ticks == Some(start)
            && now.image == known.process.image
        {
            let process = Process {
                args: known.process.args.clone(),
                ..now
            };
            if process.args.is_some()
                && self.runs_since_now(pid, start) == since
                && let Some(known) = self.ancestors.get_mut(&(pid, start))
            {
                known.process = process.clone();
                known.checked = Instant::now();
            }
            return Some(process);
        }
        let new = self.identifier.snapshot(pid).ok()?;
        if new.start_ticks != Some(start) {
            return None;
        }
        // Kept as what it ran: it has run nothing else while it was read.
        if self.runs_since_now(pid, start) == since {
            if self.ancestors.len() >= MAX_CACHED {
                self.ancestors.clear();
            }
            let snapshot = Snapshot {
                process: new.clone(),
                since,
                checked: Instant::now(),
            };
            self.ancestors.insert((pid, start), snapshot);
        }
        Some(new)
    }

    /// Since when the process runs what it runs at this moment.
    fn runs_since_now(&mut self, pid: i32, start: u64) -> Option<Time> {
        let process = Process {
            start_ticks: Some(start),
            ..Process::unknown(pid)
        };
        tabled::runs_now_since(self.table.as_mut()?, &process)
    }
}

/// The starts that a process of the table can have in `/proc`: they round differently.
fn around(ticks: u64) -> [u64; 3] {
    [ticks, ticks.saturating_sub(1), ticks + 1]
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::resolve::identify::Identifier;
    use crate::resolve::proc::Proc;

    #[test]
    fn arguments_that_were_not_read_in_time_are_read_later() {
        let proc = Arc::new(Proc::open(Path::new("/proc")).unwrap());
        let identifier = Identifier::new(proc).unwrap();
        let mut resolver = Resolver::new(identifier.clone());
        let pid = nix::unistd::getpid().as_raw();
        let process = identifier.brief(pid).unwrap();
        assert_eq!(process.args, None);
        let start = process.start_ticks.unwrap();
        let checked = Instant::now();
        let snapshot = Snapshot {
            process,
            since: None,
            checked,
        };
        resolver.ancestors.insert((pid, start), snapshot);
        // Nor is it certain on a busy machine that they are read in time now.
        let until = Instant::now() + Duration::from_secs(60);
        let args = loop {
            let known = resolver.ancestor(pid, start).unwrap();
            if known.args.is_some() || Instant::now() > until {
                break known.args;
            }
        };
        assert_eq!(args, Some(std::env::args_os().collect::<Vec<_>>()));
    }
}
