//! The watching thread: records become events with a writer.
//!
//! Owns the loop around the source, the assembler and the resolver. It never
//! writes a log line of alerts, resolves a name or evaluates a rule: it must be
//! back at the kernel's queue while the writers still live.

mod commands;
mod handing;
mod subject;
mod upkeep;

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TrySendError};
use std::time::{Duration, Instant, SystemTime};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::EventFd;
use nix::sys::time::TimeSpec;

use super::baseline::{Cause, Ledger};
use super::clock::ClockWatch;
use super::deciding::Message;
use super::losses::Counter;
use super::mutes::Mutes;
use super::polling::Poller;
use super::source::Source;
use crate::alert::Unseen;
use crate::event::Evidence;
use crate::event::assemble::{Act, Assembler, Opening};
use crate::event::flood::at_once;
use crate::queue;
use crate::resolve::Attribution;
use crate::resolve::identify::Identity;
use crate::resolve::resolver::Resolver;
use crate::watch::beat::Beat;
use crate::watch::hold;
use crate::watch::home::Home;
use crate::watch::loud::Loud;
use crate::watch::{Change, Notice, Problem, What, Writer};

pub use commands::{Command, FileSystems};
use handing::Handing;
use upkeep::{PRUNE, RELINK, REMOUNT};

/// How soon a hold is heard of after the record of its creation. Whoever is
/// not held is read then: sooner would be in the way of whoever is.
const HELD_TIME: Duration = Duration::from_micros(500);
/// How often the queue is read before what was read is worked off.
const READS: usize = 16;
/// So many records are worked off before more is read, once that takes longer than [`BRIEF`].
/// With fewer the queue is read to its end: when something was done is known of those only.
const BULK: usize = 1024;
/// How often the answering thread is told in which homes a flood goes on.
const TELL_LOUD: Duration = Duration::from_millis(20);
/// What takes no longer keeps nobody waiting.
const BRIEF: Duration = Duration::from_millis(5);
/// After so many of them it is looked whether events are finished.
const PORTION: usize = 64;

/// What the thread hears from.
pub struct Inputs {
    /// Where records come from.
    pub source: Source,
    /// Whom the answering thread identified, if openers are held.
    pub held: Option<queue::Receiver<Box<hold::Held<Identity>>>>,
    /// Tells the answering thread on which file systems homes lie.
    pub file_systems: Option<FileSystems>,
    /// What the main thread asks.
    pub commands: Receiver<Command>,
    /// Readable when there is something from them.
    pub wake: Arc<EventFd>,
    /// Tells the answering thread in which homes a flood goes on.
    pub loud: Arc<Loud>,
    /// What the source has told already.
    pub notices: Vec<Notice>,
    /// When marking began.
    pub begun: SystemTime,
}

/// The thread.
pub struct Watching {
    inputs: Inputs,
    resolver: Resolver,
    messages: queue::Sender<Message>,
    assembler: Assembler<Attribution>,
    /// Events that are finished and wait for their turn to be handed on.
    handing: Handing,
    /// Events whose writer is to be read unless its hold is heard of until then.
    unheld: VecDeque<(Instant, PathBuf)>,
    dropped: u64,
    /// Of those, how many the deciding thread has not been told of, and since when.
    untold: u64,
    untold_since: Option<SystemTime>,
    stopping: bool,
    beat: Arc<Beat>,
    /// Where the baseline is kept.
    ledger: Option<Ledger>,
    /// The moves that the baseline has followed, and when it follows the next ones.
    moves: u64,
    follow: Option<Instant>,
    followed: Instant,
    /// When the queue was last known to be empty.
    emptied: SystemTime,
    /// Since when nobody is held.
    released: Option<SystemTime>,
    /// When it was last looked what is mounted, and where links lead.
    mounted: Instant,
    linked: Instant,
    /// Looks at what is kept apart; what it was told of that.
    poller: Option<Poller>,
    apart: Option<u64>,
    clock: Option<ClockWatch>,
    mutes: Mutes,
    /// When the answering thread was last told of floods.
    told_loud: Instant,
    /// When a flood was last looked into that is over, and the one that is still to be.
    sifted: Option<Instant>,
    flooded: Option<SystemTime>,
    /// Since when there has been a flood in some home.
    flood_since: Option<SystemTime>,
    hold: Option<Arc<hold::Counters>>,
    /// Identities that came too fast, and records of processes that were lost.
    unheard: Counter,
    unrecorded: Counter,
    /// When processes that have ended were last forgotten.
    pruned: Instant,
    /// When to end, whatever is still queued.
    end: Option<Instant>,
}

impl Watching {
    /// Puts it together.
    #[must_use]
    pub fn new(inputs: Inputs, resolver: Resolver, messages: queue::Sender<Message>) -> Self {
        Self {
            beat: inputs.source.tree().beat(),
            inputs,
            resolver,
            messages,
            assembler: Assembler::default(),
            handing: Handing::default(),
            unheld: VecDeque::new(),
            dropped: 0,
            untold: 0,
            untold_since: None,
            stopping: false,
            ledger: None,
            moves: 0,
            follow: None,
            followed: Instant::now(),
            emptied: SystemTime::now(),
            released: None,
            mounted: Instant::now(),
            linked: Instant::now(),
            poller: None,
            apart: None,
            clock: clock(),
            mutes: Mutes::default(),
            told_loud: Instant::now(),
            sifted: None,
            flooded: None,
            flood_since: None,
            hold: None,
            unheard: Counter::default(),
            unrecorded: Counter::default(),
            pruned: Instant::now(),
            end: None,
        }
    }

    /// What the hold counts.
    pub(super) fn count(&mut self, hold: Option<Arc<hold::Counters>>) {
        self.hold = hold;
    }

    /// Has the baseline compared with what is found.
    pub(super) fn keep(&mut self, ledger: Option<Ledger>) {
        self.ledger = ledger;
    }

    /// Has what is kept apart looked at.
    pub(super) fn poll_apart(&mut self, poller: Poller) {
        self.poller = Some(poller);
    }

    /// How many events of each home are told one by one in five minutes.
    pub(super) fn limit(&mut self, events: u32) {
        self.assembler.limit(events);
        self.inputs.loud.limit(at_once(events) as usize);
    }

    /// Ticks while the thread gets on.
    #[must_use]
    pub fn beat(&self) -> Arc<Beat> {
        Arc::clone(&self.beat)
    }

    /// Runs until it is told to stop, or the source fails.
    pub fn run(mut self) {
        if let Some(table) = self.resolver.table_mut() {
            table.attach(self.inputs.source.queue());
        }
        self.moves = self.inputs.source.tree().moves();
        self.compare_stock();
        self.follow_mounts();
        self.turn();
        while !self.stopping {
            if let Err(error) = self.wait() {
                self.send(Message::WatchEnded(error.to_string()));
                return;
            }
            self.obey();
            if let Err(error) = self.work() {
                self.send(Message::WatchEnded(error.to_string()));
                return;
            }
            self.settle();
        }
        self.assembler.flush();
        self.hand_on_kept(true);
        self.hand_on(None, false);
        if self.follow.is_some() || self.inputs.source.tree().moves() != self.moves {
            self.compare_all(Cause::Moved);
        }
    }

    /// Reads and works off all that is queued. In a flood that may never be all: what
    /// else is to be done is done meanwhile.
    fn work(&mut self) -> io::Result<()> {
        loop {
            let began = Instant::now();
            let (count, empty) = self.read()?;
            self.turn();
            self.keep_house();
            if empty {
                self.emptied = SystemTime::now();
                // Whatever has come meanwhile has not waited for long.
                if count == 0 || began.elapsed() < BRIEF {
                    self.mutes.empty();
                    self.assembler.caught_up();
                    self.resolver.caught_up();
                    self.inputs.source.tree_mut().caught_up();
                    return Ok(());
                }
            }
            self.quieten();
            self.obey();
            if self.end.is_some_and(|end| end <= Instant::now()) {
                tracing::error!("the kernel's queue could not be read to its end in time");
                return Ok(());
            }
        }
    }

    /// Mutes the loudest home if the queue is filled faster than it is read.
    fn quieten(&mut self) {
        let Source::Fanotify(watch) = &mut self.inputs.source else {
            return;
        };
        let now = Instant::now();
        if let Some(busy) = watch.tree().busy_since()
            && let Some(look) = self.mutes.more(busy, now)
            && let Some((home, heard)) = watch.tree_mut().loudest()
            && let is_spent = self.assembler.is_spent(&home, now)
            && look.is_flood(heard, is_spent || watch.tree().must_wait(&home))
        {
            watch.mute(home);
        }
    }

    fn muted(&mut self, home: &Home, writer: Option<&Writer>, time: SystemTime, now: Instant) {
        let length = self.mutes.mute(home, now, time);
        tracing::warn!(
            "{} is not looked at for {} seconds: what happens there comes faster than it can be read",
            crate::text::escape_path(home),
            length.as_secs()
        );
        let writer =
            writer.map_or_else(Attribution::none, |writer| self.resolver.attribute(writer));
        self.assembler.muted(home, time, now, writer);
    }

    /// Reads what is queued; says how much that was, and whether it was all. The process
    /// table must know when, and know of all that led to the records before they are
    /// interpreted: best when the queue has been emptied.
    fn read(&mut self) -> io::Result<(usize, bool)> {
        self.beat.tick();
        let (begun, mut all, mut empty) = (Instant::now(), 0, false);
        for _ in 0..READS {
            if let Some(table) = self.resolver.table_mut() {
                table.reading();
            }
            let count = self.inputs.source.read(&mut self.inputs.notices)?;
            self.handing.has_read();
            if let Some(table) = self.resolver.table_mut() {
                table.has_read(count, self.inputs.source.pids());
            }
            all += count;
            if count == 0 {
                empty = true;
                break;
            }
            if all >= BULK && begun.elapsed() >= BRIEF {
                break;
            }
        }
        if let Some(table) = self.resolver.table_mut() {
            table.drain();
        }
        Ok((all, empty))
    }

    fn wait(&mut self) -> io::Result<()> {
        if let Some(table) = self.resolver.table_mut() {
            table.waiting();
        }
        let result = self.poll();
        if let Some(table) = self.resolver.table_mut() {
            table.waked();
        }
        result
    }

    fn poll(&mut self) -> io::Result<()> {
        let mut fds = Vec::with_capacity(4);
        // First, for the process table: from where poll(2) has looked at the
        // queue, each record wakes us.
        if let Source::Fanotify(watch) = &self.inputs.source {
            fds.push(PollFd::new(watch.as_fd(), PollFlags::POLLIN));
        }
        fds.push(PollFd::new(self.inputs.wake.as_fd(), PollFlags::POLLIN));
        if let Some(table) = self.resolver.table() {
            fds.push(PollFd::new(table.as_fd(), PollFlags::POLLIN));
        }
        if let Some(clock) = &self.clock {
            fds.push(PollFd::new(clock.as_fd(), PollFlags::POLLIN));
        }
        // Last: it is looked for there.
        let tree = self.inputs.source.tree();
        if let Some(mounts) = tree.mounts_fd() {
            fds.push(PollFd::new(mounts, PollFlags::POLLPRI));
        }
        let read = self.unheld.front().map(|(due, _)| *due);
        let due = self.assembler.next_due().into_iter();
        let (unheard, unrecorded) = self.counted();
        let untold = [self.unheard.due(unheard), self.unrecorded.due(unrecorded)];
        let owes = tree.owes()
            || self.flooded.is_some()
            || self.assembler.has_closed()
            || self.mutes.due().is_some()
            || untold.iter().any(Option::is_some);
        let owed = owes.then(|| Instant::now() + PRUNE);
        let remount = tree.has_remounted().then_some(self.mounted + REMOUNT);
        let due = due
            .chain(read)
            .chain(self.follow)
            .chain(owed)
            .chain(remount);
        let due = due.chain([self.linked + RELINK]).min();
        let due = if tree.is_settling() || tree.has_looks() || !self.handing.is_empty() {
            Some(Instant::now())
        } else {
            due
        };
        let left = due.map(|due| {
            let left = due.saturating_duration_since(Instant::now());
            TimeSpec::from_duration(left)
        });
        self.inputs.source.rests(true);
        let polled = ppoll(&mut fds, left, None);
        self.inputs.source.rests(false);
        let mounted = match polled {
            Ok(_) => fds.last().and_then(PollFd::revents),
            Err(nix::errno::Errno::EINTR) => None,
            Err(error) => return Err(error.into()),
        };
        let bits = PollFlags::POLLPRI | PollFlags::POLLERR;
        if mounted.is_some_and(|bit| bit.intersects(bits)) {
            self.inputs.source.tree_mut().mounts_noticed();
        }
        Ok(())
    }

    /// Works off what has been read.
    fn turn(&mut self) {
        // Holds first: an opener was identified before it could act any further. Those
        // that come meanwhile have their records still to come.
        if let Some(held) = &self.inputs.held {
            for _ in 0..held.waiting() {
                let Ok(held) = held.try_recv() else { break };
                match *held {
                    hold::Held::Opening {
                        object,
                        found,
                        identity,
                    } => {
                        let read = identity.read;
                        let writer = self.resolver.opening(*identity);
                        let opening = Opening {
                            found,
                            read,
                            since: writer.program.since,
                            is_gone: false,
                        };
                        self.assembler.held(object, opening, writer, Instant::now());
                    }
                    hold::Held::Executing {
                        identity,
                        fence,
                        followed,
                    } => self.resolver.executing(*identity, fence, followed),
                    hold::Held::Ended { pid, fence } => self.resolver.ended(pid, fence),
                }
            }
        }
        let time = SystemTime::now();
        let now = Instant::now();
        let mut notices = std::mem::take(&mut self.inputs.notices);
        let mut overflow = false;
        for (number, notice) in notices.drain(..).enumerate() {
            // Whoever is done does not wait for all that was read with it.
            if number % PORTION == PORTION - 1 {
                self.hand_on(Some(BRIEF), true);
                self.mind_others();
            }
            match notice {
                Notice::Change(change) => {
                    if matches!(change.what, What::Created { .. } | What::Modified) {
                        self.unheld
                            .push_back((now + HELD_TIME, change.path.clone()));
                    }
                    let resolver = &mut self.resolver;
                    let act = act(resolver, &change);
                    self.assembler
                        .take(change, act, time, now, |change| attribute(resolver, change));
                }
                Notice::Problem(problem) => {
                    let lost = problem == Problem::Overflow;
                    overflow |= lost;
                    let since = lost.then_some(self.emptied);
                    self.send(Message::Problem(time, since, Box::new(problem)));
                }
                Notice::Muted(home, writer) => self.muted(&home, writer.as_deref(), time, now),
                Notice::Fence(number) => self.resolver.fence(number),
            }
        }
        // To hand on may have found more.
        notices.append(&mut self.inputs.notices);
        self.inputs.notices = notices;
        if overflow {
            self.compare_all(Cause::Lost(Unseen::Lost, self.emptied));
        }
        let begun = Instant::now();
        while begun.elapsed() < BRIEF
            && self.unheld.front().is_some_and(|(due, _)| *due <= now)
            && let Some((_, path)) = self.unheld.pop_front()
        {
            if let Some(writer) = self.assembler.unheld(&path) {
                self.resolver.enrich(writer);
            }
        }
        self.assembler.expire(now);
        self.mind_others();
        if now.saturating_duration_since(self.told_loud) >= TELL_LOUD {
            self.told_loud = now;
            self.inputs.loud.set(self.assembler.loud());
        }
        let untold = self.assembler.untold_opens();
        self.dropped += untold;
        self.untold += untold;
        self.hand_on_kept(false);
        self.hand_on(Some(BRIEF), false);
        if let Some(file_systems) = &mut self.inputs.file_systems {
            file_systems.update(self.inputs.source.tree_mut());
        }
    }

    /// What is told of one home one by one must not keep others waiting in the queue.
    fn mind_others(&mut self) {
        self.assembler
            .mind_others(self.inputs.source.tree().is_behind());
    }

    fn send(&mut self, message: Message) {
        if self.untold > 0
            && self
                .messages
                .try_send(Message::Dropped(
                    self.untold,
                    self.untold_since.unwrap_or_else(SystemTime::now),
                ))
                .is_ok()
        {
            self.untold = 0;
            self.untold_since = None;
            self.compare_all(Cause::Lost(Unseen::Lost, self.emptied));
        }
        if let Err(TrySendError::Full(_)) = self.messages.try_send(message) {
            self.dropped += 1;
            self.untold += 1;
            self.untold_since.get_or_insert_with(SystemTime::now);
        }
    }
}

fn clock() -> Option<ClockWatch> {
    ClockWatch::start()
        .map_err(|error| tracing::warn!("that the clock is set will go unnoticed: {error}"))
        .ok()
}

/// When a name was made or a file written, as far as the process table knows.
fn act(resolver: &Resolver, change: &Change) -> Option<Act> {
    let is_asked = matches!(change.what, What::Created { .. } | What::Modified);
    let writer = change.writer.as_ref().filter(|_| is_asked)?;
    let act = resolver.table()?.act(writer.pid);
    Some(Act {
        from: act.from,
        is_moment: act.is_moment,
        since: act.since,
    })
}

fn attribute(resolver: &mut Resolver, change: &Change) -> Attribution {
    let writer: Option<&Writer> = change.writer.as_deref();
    match (change.evidence, writer) {
        (Evidence::Scan, maker) => resolver.infer(maker, change.moved),
        (_, Some(writer)) => {
            let mut attribution = resolver.attribute(writer);
            if change.what == What::Opened {
                // It is not held, and may be gone when it has read the file.
                resolver.enrich(&mut attribution);
            }
            attribution
        }
        (_, None) => Attribution::none(),
    }
}
