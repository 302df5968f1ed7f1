//! From what a record or a hold names to an [`Attribution`].
//!
//! Owns the exec records and the lineage. Certain is only what could not have
//! been otherwise; a late reading of `/proc` never is, for the process may have
//! run another program when it acted.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::identify::{Identifier, Identity};
use super::{Attribution, Method, Process};
use crate::sys::PidFd;
use crate::watch::Writer;

/// How many running key tools are remembered.
const MAX_RECORDED: usize = 4096;
/// How long after a process was last seen alive a record may still be its: far
/// less than it takes for a pid to come round.
const AFTERLIFE: Duration = Duration::from_millis(300);
/// How long an ended process is remembered for records that are still queued.
const FORGET: Duration = Duration::from_secs(5);
/// Longest lineage.
const MAX_ANCESTORS: usize = 32;
/// Snapshots of ancestors kept for the next event.
const MAX_CACHED: usize = 512;

/// A process that was held at the exec of a key tool.
struct Recorded {
    identity: Identity,
    /// The fence before which it had not run the tool yet.
    fence: Option<u64>,
    passed: bool,
    last_alive: Instant,
}

/// Resolves writers.
pub struct Resolver {
    identifier: Identifier,
    recorded: HashMap<i32, Recorded>,
    ancestors: HashMap<(i32, u64), Process>,
    /// The highest fence that has been passed; its process may be heard of later.
    passed: u64,
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
        }
    }
}

impl Identity {
    /// What a hold at open tells.
    #[must_use]
    pub fn into_attribution(mut self) -> Attribution {
        let candidates = if self.verified {
            Vec::new()
        } else {
            self.process.image.take().into_iter().collect()
        };
        Attribution {
            method: Method::Held,
            certain: self.verified,
            process: Some(self.process),
            ancestors: self.parent.into_iter().collect(),
            candidates,
        }
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
            passed: 0,
        }
    }

    /// A process was held at the exec of a key tool.
    pub fn executing(&mut self, identity: Identity, fence: Option<u64>) {
        self.prune();
        if self.recorded.len() >= MAX_RECORDED {
            // Without its record the process is read live, and said to be so.
            return;
        }
        self.recorded.insert(
            identity.process.pid,
            Recorded {
                identity,
                fence,
                passed: fence.is_some_and(|fence| fence <= self.passed),
                last_alive: Instant::now(),
            },
        );
    }

    /// Everything before the fence has been read.
    pub fn fence(&mut self, number: u64) {
        self.passed = self.passed.max(number);
        let mut passed = None;
        for (pid, recorded) in &mut self.recorded {
            if recorded.fence == Some(number) {
                recorded.passed = true;
                passed = Some(*pid);
            }
        }
        // Early, while it surely lives: it may be gone when its file is reported.
        if let Some(pid) = passed {
            self.complete(pid);
        }
    }

    /// An opener was identified: a key tool's arguments are known now.
    pub fn opening(&mut self, identity: &Identity) {
        if let Some(recorded) = self.recorded.get_mut(&identity.process.pid)
            && recorded.identity.process.args.is_none()
            && recorded.identity.process.start_ticks == identity.process.start_ticks
        {
            recorded
                .identity
                .process
                .args
                .clone_from(&identity.process.args);
            recorded
                .identity
                .process
                .name
                .clone_from(&identity.process.name);
        }
    }

    /// Reads what a process has only after its exec: name and arguments.
    fn complete(&mut self, pid: i32) {
        let Some(recorded) = self.recorded.get_mut(&pid) else {
            return;
        };
        let process = &mut recorded.identity.process;
        if process.args.is_some() {
            return;
        }
        // Only once the exec is done, and of this very process.
        let same = |image: Option<super::Image>| {
            image.is_some_and(|image| {
                process.image.as_ref().is_some_and(|recorded| {
                    (recorded.device, recorded.inode) == (image.device, image.inode)
                })
            })
        };
        if !same(self.identifier.image(pid)) {
            return;
        }
        if let Ok(now) = self.identifier.snapshot(pid)
            && now.start_ticks == process.start_ticks
        {
            process.args = now.args;
            process.name = now.name;
        }
    }

    /// Who a record names.
    pub fn attribute(&mut self, writer: &Writer) -> Attribution {
        if writer.pid <= 0 {
            return Attribution::none();
        }
        let mut attribution = self.recorded(writer).unwrap_or_else(|| self.live(writer));
        self.complete_lineage(&mut attribution);
        attribution
    }

    /// Who made the directory in which a scan found a file.
    pub fn infer(&mut self, maker: Option<&Writer>) -> Attribution {
        let Some(maker) = maker else {
            return Attribution::none();
        };
        let mut attribution = self.attribute(maker);
        if attribution.process.is_some() {
            attribution.method = Method::Inferred;
            attribution.certain = false;
        }
        attribution
    }

    fn recorded(&mut self, writer: &Writer) -> Option<Attribution> {
        self.complete(writer.pid);
        let now = Instant::now();
        let recorded = self.recorded.get_mut(&writer.pid)?;
        let own = recorded.identity.pidfd.as_ref()?;
        let alive = own.is_alive();
        if alive {
            recorded.last_alive = now;
        }
        let is_it = match &writer.pidfd {
            // On a kernel that cannot compare them, the pid of a living
            // process is its own.
            Some(theirs) => theirs.is_same(own).unwrap_or(alive),
            None => alive || now.duration_since(recorded.last_alive) < AFTERLIFE,
        };
        if !is_it {
            return None;
        }
        let mut process = recorded.identity.process.clone();
        let mut candidates = Vec::new();
        let mut certain = recorded.passed && recorded.identity.verified;
        if !recorded.passed && recorded.fence.is_some() {
            // It acted before its exec, with the image it had then or one before.
            candidates.extend(recorded.identity.before.clone());
            process.args = None;
            process.name = None;
        } else if alive
            && let Some(image) = self.identifier.image(writer.pid)
            && process.image.as_ref().is_some_and(|recorded| {
                (recorded.device, recorded.inode) != (image.device, image.inode)
            })
            && recorded.passed
        {
            // It has run another program since, or not begun this one.
            candidates.extend(process.image.clone());
            if recorded
                .identity
                .before
                .as_ref()
                .is_none_or(|before| (before.device, before.inode) != (image.device, image.inode))
            {
                candidates.push(image);
            } else {
                candidates.clear();
            }
        }
        if !candidates.is_empty() {
            process.image = None;
            certain = false;
        }
        Some(Attribution {
            method: Method::Recorded,
            certain,
            process: Some(process),
            ancestors: recorded.identity.parent.clone().into_iter().collect(),
            candidates,
        })
    }

    fn live(&mut self, writer: &Writer) -> Attribution {
        let mut attribution = Attribution::none();
        let read = self.identifier.snapshot(writer.pid);
        let Ok(mut process) = read else {
            return attribution;
        };
        match &writer.pidfd {
            // The pid was its own all the while.
            Some(pidfd) if pidfd.is_alive() => attribution.method = Method::Live,
            // A zombie keeps its pid and its ids.
            Some(_) => attribution.method = Method::Partial,
            // Gone when the record was read: what runs under its pid now is another.
            None => return attribution,
        }
        if attribution.method == Method::Partial || process.image.is_none() {
            attribution.method = Method::Partial;
            process.image = None;
            process.args = None;
        }
        attribution.process = Some(process);
        attribution
    }

    /// Follows the parents up to init, as far as they live.
    pub fn complete_lineage(&mut self, attribution: &mut Attribution) {
        let Some(process) = &attribution.process else {
            return;
        };
        // The parent that was read during the hold has no arguments yet.
        if let Some(parent) = attribution.ancestors.first_mut()
            && parent.args.is_none()
            && let Some(start) = parent.start_ticks
            && let Some(now) = self.ancestor(parent.pid, start)
            && now.image == parent.image
        {
            parent.args = now.args;
        }
        loop {
            let child = attribution.ancestors.last().unwrap_or(process);
            let (Some(pid), Some(child_start)) = (child.parent_pid, child.start_ticks) else {
                return;
            };
            if pid <= 0 || attribution.ancestors.len() >= MAX_ANCESTORS {
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

    /// A snapshot of the living process `pid` that started at `start`.
    fn ancestor(&mut self, pid: i32, start: u64) -> Option<Process> {
        if let Some(known) = self.ancestors.get(&(pid, start))
            && known.image == self.identifier.image(pid)
        {
            return Some(known.clone());
        }
        let new = self.identifier.snapshot(pid).ok()?;
        if new.start_ticks != Some(start) {
            return None;
        }
        if self.ancestors.len() >= MAX_CACHED {
            self.ancestors.clear();
        }
        self.ancestors.insert((pid, start), new.clone());
        Some(new)
    }

    /// Forgets processes that ended a while ago.
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
            now.duration_since(recorded.last_alive) < FORGET
        });
    }
}
