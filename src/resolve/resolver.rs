//! From what a record or a hold names to an [`Attribution`].
//!
//! Owns the exec records, the process table and the lineage. Certain is only what could not have
//! been otherwise; a late reading of `/proc` never is, for the process may have
//! run another program when it acted.

mod lineage;
mod recorded;

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use self::lineage::Snapshot;
use self::recorded::Recorded;
use super::attribution::same_file;
use super::identify::{Identifier, Identity};
use super::tabled::Claim;
use super::{Attribution, ImageState, Method, Process, ProgramFacts, tabled};
use crate::proctable::{self, ProcTable, Time};
use crate::sys::PidFd;
use crate::watch::Writer;

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
        if table.is_some() {
            self.identifier.with_table();
        }
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

    /// Since when a held opener ran what it ran when it was read (nanoseconds of
    /// `CLOCK_MONOTONIC`); `None` if that is not known.
    fn runs_since(&mut self, identity: &Identity) -> Option<Time> {
        let table = self.table.as_mut()?;
        table.catch_up(identity.read);
        tabled::runs_since(table, &identity.process, identity.read)
    }

    /// An opener was identified while it was held.
    pub fn opening(&mut self, identity: Identity) -> Attribution {
        let since = self.runs_since(&identity);
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
        let mut parent = None;
        let mut parent_read = read;
        if let Some(around) = around {
            (parent, parent_read) = (around.parent, around.read);
            process.cgroup = around.cgroup.and_then(|answer| answer.until(due)?);
        }
        *waited += begun.elapsed().saturating_sub(QUICK);
        parent = self.as_maker(&mut process, parent, parent_read);
        self.foresee(&process);
        if let Some(image) = &mut process.image {
            self.identifier.place(image, namespace);
        }
        if let Some(recorded) = self.recorded_as(&process) {
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
            table.catch_up(proctable::now());
            verified = tabled::is_alone(table, &process);
        }
        // Where its path leads to it, it can be opened there.
        let image = process.image.as_ref();
        let elsewhere = image.is_some_and(|image| image.state != Some(ImageState::Same));
        let program = ProgramFacts {
            changed: file.as_ref().and_then(|file| file.changed()),
            file: file.filter(|_| elsewhere),
            seen: verified.then_some(read),
            since,
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
    pub fn enrich(&mut self, attribution: &mut Attribution) {
        if attribution.method == Method::Recorded
            && let (Some(table), Some(process)) = (&mut self.table, &mut attribution.process)
        {
            tabled::complete(process, attribution.program.since, &self.identifier, table);
        }
    }

    /// Adds what has become known since the record was read.
    pub fn finish(&mut self, attribution: &mut Attribution) {
        self.enrich(attribution);
        if let Some(process) = &mut attribution.process
            && process.args.is_none()
            && process.image.is_some()
        {
            let since = attribution.program.since;
            let recorded = self.recorded_as(process).filter(|recorded| {
                let known = recorded.identity.process.image.as_ref();
                // It may have been held again, at another exec, since it acted.
                same_file(known, process.image.as_ref())
                    && since.is_none_or(|since| recorded.identity.read <= since)
            });
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
                {
                    let is_same_exec = match since.zip(self.table.as_mut()) {
                        Some((since, table)) => {
                            tabled::runs_now_since(table, process) == Some(since)
                        }
                        None => same_file(now.image.as_ref(), process.image.as_ref()),
                    };
                    process.args = now.args.filter(|_| is_same_exec);
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

    /// Puts what a process was seen to run in the place of what it says it runs, which is
    /// for it to choose (`PR_SET_MM_MAP`); leaves open what is not sure, or what no file
    /// stands for.
    fn expose(&self, attribution: &mut Attribution) {
        let (Some(table), Some(process)) = (&self.table, &mut attribution.process) else {
            return;
        };
        let seen = attribution.program.seen;
        if seen.is_some_and(|seen| tabled::is_unfiled(table, process, seen)) {
            attribution.candidates.extend(process.image.take());
            attribution.certain = false;
            return;
        }
        match tabled::claim(table, process, seen) {
            Claim::Stands => {}
            Claim::False(mut images) if images.len() == 1 => {
                let claimed = process.image.take().map(|image| image.path);
                process.image = images.pop();
                if let (Some(image), Some(claimed)) = (&mut process.image, claimed)
                    && image.path != claimed
                {
                    // Not what `/proc/PID/exe` leads to.
                    image.state = Some(ImageState::Replaced);
                    attribution.program.claimed = Some(claimed);
                }
            }
            // Which one it was then is not known.
            Claim::False(images) => {
                let claimed = process.image.take();
                attribution.program.claimed = claimed.as_ref().map(|image| image.path.clone());
                attribution.candidates = images;
                attribution.candidates.extend(claimed);
                attribution.certain = false;
            }
            Claim::Open(images) => {
                attribution.candidates = images;
                attribution.candidates.extend(process.image.take());
                attribution.certain = false;
            }
        }
    }
}
