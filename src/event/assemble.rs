//! From changes to events: the join of a file's creation with its hold, and
//! the wait until the file has settled.
//!
//! ```text
//! Created ──► pending ──(closed after writing, another writes, renamed, ─────► Event creation
//!                        deleted, or 100 ms)
//! Modified ─► pending ──(closed, another writes, or 100 ms)──────────────────► Event modification
//! Renamed, Deleted ──────────────────────────────────────────────────────────► Event at once
//! Opened ────(not by who makes the file, nor told before)─────────────────────► Event at once
//! ```
//!
//! Pure: the clock is given, and who a writer is is asked of the caller at the
//! moment the record is taken. Everything kept is bounded; at the bound the
//! oldest is finished early, never dropped.

mod join;

use std::collections::hash_map::{Entry, HashMap};
use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsStr;
use std::hash::Hash;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

pub use self::join::{Act, Opening};
use self::join::{Joined, surest};
use super::flood::{self, Flood, Floods, Present, Ticket};
use super::opens::{Opens, Verdict};
use super::{Action, Event, Evidence, FinalPath};
use crate::sys::ObjectId;
use crate::watch::home::{Home, is_looked_for};
use crate::watch::{Change, What};

/// The longest an event waits for its file to settle.
pub const SETTLE: Duration = Duration::from_millis(100);
/// How long an identified opener waits for the record of its creation.
const HOLD_KEPT: Duration = Duration::from_secs(5);
/// How many files can be unsettled at once.
const MAX_PENDING: usize = 16 * 1024;
/// How many identified openers can wait at once.
const MAX_HOLDS: usize = 16 * 1024;

/// How many files of one home can wait at once for a look whether they were written
/// to through a mapping.
const MAX_CLOSED: usize = 1024;

/// What is known of a writer, as far as the assembly has to ask.
pub trait Subject: Clone {
    /// What tells one program of one process from others.
    type Actor: Clone + Eq + Hash;

    /// Nothing is known.
    fn unknown() -> Self;
    /// The program that acted, as far as it is known.
    fn actor(&self) -> Self::Actor;
    /// Its process id, if it is known.
    fn pid(&self) -> Option<i32>;
    /// It was held while it acted: nothing better can come.
    fn is_held(&self) -> bool;
    /// No other program is possible.
    fn is_certain(&self) -> bool;
    /// It is a guess from who made the directory, or nothing at all.
    fn is_weak(&self) -> bool;
    /// What a hold that could not be made sure and the certain `record` say
    /// together.
    #[must_use]
    fn confirmed(self, record: Self) -> Self;
    /// What a hold and the uncertain `record` say together, if the one may be of another
    /// program than the other.
    #[must_use]
    fn doubted(self, record: Self) -> Self;
    /// The same, as what is most probable.
    #[must_use]
    fn unsure(self) -> Self;
    /// What is known of who made a file when nobody saw that: it wrote to the
    /// file, or closed it, and `maker` made the directory.
    #[must_use]
    fn inferred(self, maker: &Self) -> Self;
    /// How much memory it takes (bytes), besides its own fixed size.
    fn weight(&self) -> usize {
        0
    }
    /// It is ssh-keygen, whose temporary host keys get their final names by rename.
    fn is_key_generator(&self) -> bool;
}

/// An event and the object it is about.
#[derive(Clone, Debug)]
pub struct Assembled<W> {
    /// The event; facts are to be filled in.
    pub event: Event<W>,
    /// Its object.
    pub object: Option<ObjectId>,
    /// The home that it happened in, as far as events of one home wait for each other.
    pub home: Option<Home>,
    /// Its room on the way.
    pub ticket: Option<Arc<Ticket>>,
    /// Whose what the file holds by now is.
    pub content: Content,
}

/// Whose the content of a file is, once it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Nobody else has been seen writing.
    Own,
    /// Another process has written since, and this one had not: it made an empty file.
    Others,
    /// Another has written since, to what this one wrote or brought there.
    Overwritten,
    /// Another had just done that before.
    Shared,
}

struct Pending<W> {
    sequence: u64,
    action: Action,
    object: Option<ObjectId>,
    time: SystemTime,
    evidence: Evidence,
    /// The pid that the record of the creation names.
    pid: Option<i32>,
    act: Option<Act>,
    writer: W,
    /// The file was made by open(2): nothing was in it.
    was_empty: bool,
    written: bool,
    /// Since when its process ran what it wrote with, as far as that is known.
    wrote_since: Option<u64>,
    content: Content,
    /// Of a file that a scan found, the first process that wrote to it.
    wrote: Option<i32>,
    home: Home,
    ticket: Arc<Ticket>,
}

struct Hold<W> {
    writer: W,
    opening: Opening,
    until: Instant,
}

impl<W> Pending<W> {
    /// Whether another process than that of the event writes now, or the same one with
    /// another program than it wrote with before; `since` when it began to run that.
    fn is_of_another(&self, change: &Change, since: Option<u64>) -> bool {
        // Of a file that a scan found nobody knows whose it is.
        let known = self.pid.filter(|_| self.evidence != Evidence::Scan);
        let (Some(pid), Some(writer)) = (known, &change.writer) else {
            return false;
        };
        let before = self.wrote_since.filter(|_| self.written);
        pid != writer.pid
            || before
                .zip(since)
                .is_some_and(|(before, since)| before < since)
    }
}

/// Puts events together.
pub struct Assembler<W: Subject> {
    pending: HashMap<PathBuf, Pending<W>>,
    /// Which pending paths an object has.
    paths: HashMap<ObjectId, PathBuf>,
    /// Pending paths in the order they fall due.
    order: VecDeque<(Instant, u64, PathBuf)>,
    holds: HashMap<ObjectId, Hold<W>>,
    hold_order: VecDeque<(Instant, ObjectId)>,
    opens: Opens<W::Actor>,
    /// Who made which file: that open(2) with `O_CREAT` opens it is no news.
    makers: Opens<i32>,
    untold_opens: u64,
    /// See [`Assembler::has_closed`].
    closed: HashMap<Home, BTreeSet<PathBuf>>,
    sequence: u64,
    out: Vec<Assembled<W>>,
    floods: Floods<W>,
    counted: Vec<Flood<W>>,
}

impl<W: Subject> Default for Assembler<W> {
    fn default() -> Self {
        Self {
            pending: HashMap::new(),
            paths: HashMap::new(),
            order: VecDeque::new(),
            holds: HashMap::new(),
            hold_order: VecDeque::new(),
            opens: Opens::default(),
            makers: Opens::default(),
            untold_opens: 0,
            closed: HashMap::new(),
            sequence: 0,
            out: Vec::new(),
            floods: Floods::default(),
            counted: Vec::new(),
        }
    }
}

impl<W: Subject> Assembler<W> {
    /// Takes the events that are finished.
    pub fn finished(&mut self) -> std::vec::Drain<'_, Assembled<W>> {
        self.out.drain(..)
    }

    /// How many opens were not told since this was last asked, for there were
    /// too many different ones.
    pub fn untold_opens(&mut self) -> u64 {
        std::mem::take(&mut self.untold_opens)
    }

    /// How many events of each home are told one by one in [`flood::WINDOW`].
    pub fn limit(&mut self, events: u32) {
        self.floods.limit(events);
    }

    /// Whether others wait in the kernel's queue: then a home that has filled it has
    /// less told one by one.
    pub fn mind_others(&mut self, are_waiting: bool) {
        self.floods.mind_others(are_waiting);
    }

    /// Nobody waits in the kernel's queue any more.
    pub fn caught_up(&mut self) {
        self.floods.caught_up();
    }

    /// Whether a flood goes on in this home, of which no single event is told any more.
    pub fn is_spent(&mut self, home: &Home, now: Instant) -> bool {
        self.floods.is_spent(home, now)
    }

    /// The kernel is not asked about this home any more, for a while: what `writer`
    /// does there is too much to be looked at.
    pub fn muted(&mut self, home: &Home, time: SystemTime, now: Instant, writer: W) {
        if !self.floods.is_flooded(home) {
            self.floods.began(home, None, time, now, writer.clone());
            self.tell(Action::Flood, home, home.to_path_buf(), time, writer);
        }
        self.floods.spend(home);
    }

    /// So many records of a muted home were not looked at.
    pub fn unread(&mut self, home: &Home, records: u64, time: SystemTime, now: Instant) {
        self.floods.unread(home, records, time, now);
    }

    /// Takes the counts of floods that are to be told.
    pub fn floods(&mut self) -> std::vec::Drain<'_, Flood<W>> {
        self.counted.drain(..)
    }

    /// The homes in which a flood goes on.
    #[must_use]
    pub fn loud(&self) -> Vec<Home> {
        self.floods.loud()
    }

    /// The floods that go on, and how many events were counted instead of told in all.
    #[must_use]
    pub fn flooded(&self) -> (Vec<Present>, u64) {
        (self.floods.present(), self.floods.total())
    }

    /// Whether files have been closed after writing of which no writing was told, as
    /// happens through a shared mapping (mmap(2)).
    #[must_use]
    pub fn has_closed(&self) -> bool {
        !self.closed.is_empty()
    }

    /// Takes some of them, of each home at most `most`, and what lets somebody in: other
    /// names do not keep that waiting.
    pub fn closed_unwritten(&mut self, most: usize) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        self.closed.retain(|home, closed| {
            let all = std::mem::take(closed).into_iter();
            let (first, others): (_, BTreeSet<_>) = all.partition(|path| is_looked_for(home, path));
            *closed = others;
            paths.extend::<BTreeSet<_>>(first);
            let later = closed.iter().nth(most).cloned();
            let rest = later.map(|later| closed.split_off(&later));
            paths.extend(std::mem::replace(closed, rest.unwrap_or_default()));
            !closed.is_empty()
        });
        paths
    }

    /// When [`Assembler::expire`] has something to do next.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        let pending = self.order.front().map(|(due, _, _)| *due);
        pending.into_iter().chain(self.floods.next_due()).min()
    }

    /// The writer of the event that waits at `path`, if it was not held.
    pub fn unheld(&mut self, path: &Path) -> Option<&mut W> {
        let pending = self.pending.get_mut(path)?;
        (!pending.writer.is_held()).then_some(&mut pending.writer)
    }

    /// An opener was identified while it was held.
    pub fn held(&mut self, object: ObjectId, opening: Opening, writer: W, now: Instant) {
        if let Some(path) = self.paths.get(&object)
            && let Some(pending) = self.pending.get_mut(path)
            && pending.action == Action::Creation
            && pending.evidence != Evidence::Scan
        {
            if pending.pid == writer.pid() && !pending.writer.is_held() {
                let hold = Joined::new(opening, path, pending.act.as_ref(), writer);
                let record = pending.writer.clone();
                pending.was_empty |= hold.is_empty();
                pending.writer = surest(Some(hold), || record);
            }
            return;
        }
        let until = now + HOLD_KEPT;
        // The first opener of a new file is its maker.
        if let Entry::Vacant(hold) = self.holds.entry(object) {
            self.hold_order.push_back((until, hold.key().clone()));
            hold.insert(Hold {
                writer,
                opening,
                until,
            });
        }
        while self.holds.len() > MAX_HOLDS {
            let Some((_, oldest)) = self.hold_order.pop_front() else {
                break;
            };
            self.holds.remove(&oldest);
        }
    }

    /// Takes a change; `act` is when it was made, `attribute` says who its writer is and
    /// is asked at most once.
    pub fn take(
        &mut self,
        change: Change,
        act: Option<Act>,
        time: SystemTime,
        now: Instant,
        attribute: impl FnOnce(&Change) -> W,
    ) {
        match &change.what {
            What::Created { again: true } => self.created_again(&change, act, attribute),
            What::Created { again: false } => self.created(change, act, time, now, attribute),
            What::Modified => self.modified(change, act, time, now, attribute),
            What::Closed => self.closed(&change, attribute),
            What::Opened => self.opened(change, time, now, attribute),
            What::Renamed { from } => {
                let from = from.clone();
                self.name_is_gone(&change);
                if let Some(from) = &from {
                    let to = change.path.clone();
                    self.finish(from, Some(FinalPath::Renamed(to)));
                }
                self.finish(&change.path, None);
                let admitted = self.admit(Action::Rename, &change, time, now, attribute);
                if let Some((ticket, attribute)) = admitted {
                    let writer = attribute(&change);
                    self.push(Action::Rename, change, from, time, writer, ticket);
                }
            }
            What::Deleted => {
                self.name_is_gone(&change);
                self.finish(&change.path, None);
                let admitted = self.admit(Action::Deletion, &change, time, now, attribute);
                if let Some((ticket, attribute)) = admitted {
                    let writer = attribute(&change);
                    self.push(Action::Deletion, change, None, time, writer, ticket);
                }
            }
        }
    }

    /// Room for the event that a change makes, and `attribute` back; without room it
    /// is counted.
    fn admit<F: FnOnce(&Change) -> W>(
        &mut self,
        action: Action,
        change: &Change,
        time: SystemTime,
        now: Instant,
        attribute: F,
    ) -> Option<(Arc<Ticket>, F)> {
        let verdict = self
            .floods
            .admit(&change.home, &change.path, action, time, now);
        match verdict {
            flood::Verdict::Tell(ticket) => return Some((Arc::new(ticket), attribute)),
            flood::Verdict::Begin => {
                let writer = attribute(change);
                let home = &change.home;
                self.floods
                    .began(home, Some(action), time, now, writer.clone());
                self.tell(Action::Flood, home, home.to_path_buf(), time, writer);
            }
            flood::Verdict::Count => {}
        }
        // Its hold is of no use any more.
        if let Some(object) = &change.object {
            self.holds.remove(object);
        }
        None
    }

    /// Tells what is told in any case.
    fn tell(&mut self, action: Action, home: &Home, path: PathBuf, time: SystemTime, writer: W) {
        self.sequence += 1;
        self.out.push(Assembled {
            ticket: self.floods.ticket(home).map(Arc::new),
            home: Some(Arc::clone(home)),
            object: None,
            content: Content::Own,
            event: Event {
                sequence: self.sequence,
                time,
                action,
                path,
                original_path: None,
                final_path: None,
                facts: None,
                object_id: String::new(),
                evidence: Evidence::Fanotify,
                writer,
            },
        });
    }

    /// Tells the counts of floods, and what became of names that are looked for.
    fn tell_floods(&mut self, now: Instant, end: bool) {
        let (floods, owed) = self.floods.due(now, end);
        self.counted.extend(floods);
        for owed in owed {
            let (action, time) = (owed.action, owed.time);
            self.tell(action, &owed.home, owed.path, time, W::unknown());
        }
    }

    /// Finishes what has waited long enough.
    pub fn expire(&mut self, now: Instant) {
        self.tell_floods(now, false);
        while let Some((due, sequence, path)) = self.order.front() {
            let waits = self
                .pending
                .get(path)
                .is_some_and(|pending| pending.sequence == *sequence);
            if waits && *due > now && self.pending.len() <= MAX_PENDING {
                break;
            }
            let Some((_, _, path)) = self.order.pop_front() else {
                break;
            };
            if waits {
                self.finish(&path, None);
            }
        }
        while let Some((until, object)) = self.hold_order.front() {
            if *until > now {
                break;
            }
            if self.holds.get(object).is_some_and(|hold| hold.until <= now) {
                self.holds.remove(object);
            }
            self.hold_order.pop_front();
        }
    }

    /// Finishes everything: the daemon ends.
    pub fn flush(&mut self) {
        self.tell_floods(Instant::now(), true);
        while let Some((_, sequence, path)) = self.order.pop_front() {
            if self
                .pending
                .get(&path)
                .is_some_and(|pending| pending.sequence == sequence)
            {
                self.finish(&path, None);
            }
        }
    }

    fn created(
        &mut self,
        change: Change,
        act: Option<Act>,
        time: SystemTime,
        now: Instant,
        attribute: impl FnOnce(&Change) -> W,
    ) {
        self.finish(&change.path, None);
        let pid = change
            .writer
            .as_ref()
            .filter(|_| change.evidence == Evidence::Fanotify)
            .map(|writer| writer.pid);
        if let Some(pid) = pid {
            // At the bound an open more is told, and nothing is lost.
            self.makers.admit(&change.home, &change.path, pid, now);
        }
        let admitted = self.admit(Action::Creation, &change, time, now, attribute);
        let Some((ticket, attribute)) = admitted else {
            return;
        };
        let hold = self.matching_hold(&change, pid, act.as_ref());
        let was_empty = hold.as_ref().is_some_and(Joined::is_empty);
        let writer = surest(hold, || attribute(&change));
        let pending = self.wait(Action::Creation, change, time, now, pid, writer, ticket);
        pending.act = act;
        pending.was_empty = was_empty;
    }

    /// The object has lost a name.
    fn name_is_gone(&mut self, change: &Change) {
        let hold = change.object.as_ref().and_then(|it| self.holds.get_mut(it));
        if let Some(hold) = hold {
            hold.opening.is_gone = true;
        }
    }

    /// The hold of the object, if its opener is who the record names.
    fn matching_hold(
        &mut self,
        change: &Change,
        pid: Option<i32>,
        act: Option<&Act>,
    ) -> Option<Joined<W>> {
        let object = change.object.as_ref()?;
        let matches = pid.is_some() && self.holds.get(object)?.writer.pid() == pid;
        let hold = matches.then(|| self.holds.remove(object)).flatten()?;
        Some(Joined::new(hold.opening, &change.path, act, hold.writer))
    }

    /// The record of a file that the scan had found before: it names the writer.
    fn created_again(
        &mut self,
        change: &Change,
        act: Option<Act>,
        attribute: impl FnOnce(&Change) -> W,
    ) {
        let Some(pid) = change.writer.as_ref().map(|writer| writer.pid) else {
            return;
        };
        let scanned = self.pending.get(&change.path).is_some_and(|pending| {
            pending.evidence == Evidence::Scan && pending.object == change.object
        });
        if !scanned {
            return;
        }
        let hold = self.matching_hold(change, Some(pid), act.as_ref());
        let writer = surest(hold, || attribute(change));
        if let Some(pending) = self.pending.get_mut(&change.path) {
            pending.evidence = change.evidence;
            pending.act = act;
            pending.pid = Some(pid);
            pending.writer = writer;
        }
    }

    fn modified(
        &mut self,
        change: Change,
        act: Option<Act>,
        time: SystemTime,
        now: Instant,
        attribute: impl FnOnce(&Change) -> W,
    ) {
        let since = act.and_then(|act| act.since);
        let mut content = Content::Own;
        if let Some(pending) = self.pending.get_mut(&change.path) {
            if !pending.is_of_another(&change, since) {
                if !pending.written {
                    pending.wrote_since = since;
                }
                pending.written = true;
                improve(pending, &change, attribute);
                return;
            }
            // What one writes must not be laid to another who had the file before.
            if pending.was_empty && !pending.written {
                pending.content = Content::Others;
            } else {
                pending.content = Content::Overwritten;
                content = Content::Shared;
            }
            let path = change.path.clone();
            self.finish(&path, None);
        }
        let admitted = self.admit(Action::Modification, &change, time, now, attribute);
        let Some((ticket, attribute)) = admitted else {
            return;
        };
        let pid = change.writer.as_ref().map(|writer| writer.pid);
        let writer = attribute(&change);
        let pending = self.wait(Action::Modification, change, time, now, pid, writer, ticket);
        pending.wrote_since = since;
        pending.content = content;
    }

    fn closed(&mut self, change: &Change, attribute: impl FnOnce(&Change) -> W) {
        let Some(pending) = self.pending.get_mut(&change.path) else {
            // What is not told in a flood is compared when it is over, by its times: what
            // lets somebody in is read in any case.
            let is_looked_for = is_looked_for(&change.home, &change.path);
            if is_looked_for || !self.floods.is_flooded(&change.home) {
                let closed = self.closed.entry(Arc::clone(&change.home)).or_default();
                if is_looked_for || closed.len() < MAX_CLOSED {
                    closed.insert(change.path.clone());
                }
            }
            return;
        };
        improve(pending, change, attribute);
        // A file that was closed empty has not got its content yet: mkstemp(3)
        // and touch(1) leave it so, and the first writes it later. One that the
        // scan found may be missing the record that names its maker.
        if !pending.written || pending.evidence == Evidence::Scan {
            return;
        }
        // A temporary name is about to get its final one.
        if pending.action == Action::Creation
            && pending.writer.is_key_generator()
            && final_name(&change.path).is_some()
        {
            return;
        }
        let path = change.path.clone();
        self.finish(&path, None);
    }

    fn opened(
        &mut self,
        change: Change,
        time: SystemTime,
        now: Instant,
        attribute: impl FnOnce(&Change) -> W,
    ) {
        let pid = change.writer.as_ref().map(|writer| writer.pid);
        if pid.is_some_and(|pid| self.makers.knows(&change.path, pid, now)) {
            return;
        }
        if self.floods.is_spent(&change.home, now) {
            // Not even who it was is looked up.
            let home = &change.home;
            self.floods.count(home, Action::Open, time, now);
            return;
        }
        let writer = attribute(&change);
        let home = &change.home;
        match self.opens.admit(home, &change.path, writer.actor(), now) {
            Verdict::Tell => {
                let admitted = self.admit(Action::Open, &change, time, now, |_| writer.clone());
                if let Some((ticket, _)) = admitted {
                    self.push(Action::Open, change, None, time, writer, ticket);
                }
            }
            Verdict::Told => {}
            Verdict::TooMany => self.untold_opens += 1,
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "all of what a pending event is made of"
    )]
    fn wait(
        &mut self,
        action: Action,
        change: Change,
        time: SystemTime,
        now: Instant,
        pid: Option<i32>,
        writer: W,
        ticket: Arc<Ticket>,
    ) -> &mut Pending<W> {
        self.sequence += 1;
        ticket.weigh(writer.weight());
        let due = now + SETTLE;
        self.order
            .push_back((due, self.sequence, change.path.clone()));
        if let Some(object) = &change.object {
            self.paths.insert(object.clone(), change.path.clone());
        }
        let pending = Pending {
            sequence: self.sequence,
            action,
            object: change.object,
            time,
            evidence: change.evidence,
            pid,
            act: None,
            writer,
            was_empty: false,
            written: action == Action::Modification,
            wrote_since: None,
            content: Content::Own,
            wrote: None,
            home: change.home,
            ticket,
        };
        let entry = self.pending.entry(change.path);
        entry.insert_entry(pending).into_mut()
    }

    /// Finishes the event that waits at `path`, if there is one.
    fn finish(&mut self, path: &Path, renamed: Option<FinalPath>) {
        let Some((path, pending)) = self.pending.remove_entry(path) else {
            return;
        };
        if let Some(object) = &pending.object
            && self.paths.get(object) == Some(&path)
        {
            self.paths.remove(object);
        }
        let final_path = renamed
            .filter(|_| pending.action == Action::Creation)
            .or_else(|| {
                let expected =
                    pending.action == Action::Creation && pending.writer.is_key_generator();
                let name = final_name(&path).filter(|_| expected)?;
                Some(FinalPath::Expected(path.with_file_name(name)))
            });
        self.out.push(Assembled {
            event: Event {
                sequence: pending.sequence,
                time: pending.time,
                action: pending.action,
                path,
                original_path: None,
                final_path,
                facts: None,
                object_id: identity(pending.object.as_ref()),
                evidence: pending.evidence,
                writer: pending.writer,
            },
            object: pending.object,
            home: Some(pending.home),
            ticket: Some(pending.ticket),
            content: pending.content,
        });
    }

    fn push(
        &mut self,
        action: Action,
        change: Change,
        original_path: Option<PathBuf>,
        time: SystemTime,
        writer: W,
        ticket: Arc<Ticket>,
    ) {
        self.sequence += 1;
        ticket.weigh(writer.weight());
        self.out.push(Assembled {
            event: Event {
                sequence: self.sequence,
                time,
                action,
                path: change.path,
                original_path,
                final_path: None,
                facts: None,
                object_id: identity(change.object.as_ref()),
                evidence: change.evidence,
                writer,
            },
            object: change.object,
            home: Some(change.home),
            ticket: Some(ticket),
            content: Content::Own,
        });
    }
}

/// An object's identity as documents have it; empty where there is none.
fn identity(object: Option<&ObjectId>) -> String {
    object.map(ToString::to_string).unwrap_or_default()
}

/// Who writes a file that a scan found says more about who made it than who
/// made its directory, but is no proof: it can have run another program since.
fn improve<W: Subject>(
    pending: &mut Pending<W>,
    change: &Change,
    attribute: impl FnOnce(&Change) -> W,
) {
    let Some(writer) = change.writer.as_ref() else {
        return;
    };
    let first = *pending.wrote.get_or_insert(writer.pid);
    if pending.evidence == Evidence::Scan && pending.writer.is_weak() && first == writer.pid {
        pending.writer = attribute(change).inferred(&pending.writer);
    }
}

/// The final name of ssh-keygen's temporary one: `ssh_host_X_key.XXXXXXXXXX`
/// and `ssh_host_X_key.pub.XXXXXXXXXX` lose their last part (`ssh-keygen.c`,
/// `do_gen_all_hostkeys`).
fn final_name(path: &Path) -> Option<&OsStr> {
    let name = path.file_name()?.to_str()?;
    let (stem, random) = name.rsplit_once('.')?;
    let key = stem.strip_suffix(".pub").unwrap_or(stem);
    let temporary = random.len() == 10 && random.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (temporary && key.starts_with("ssh_host_") && key.ends_with("_key")).then(|| OsStr::new(stem))
}

#[cfg(test)]
mod tests;
