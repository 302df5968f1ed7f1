//! The watching thread: records become events with a writer.
//!
//! Owns the loop around the source, the assembler and the resolver. It never
//! writes a log line of alerts, resolves a name or evaluates a rule: it must be
//! back at the kernel's queue while the writers still live.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError};
use std::time::{Duration, Instant, SystemTime};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::EventFd;
use nix::sys::time::TimeSpec;

use super::baseline::{Cause, Ledger, Snapshot};
use super::clock::ClockWatch;
use super::deciding::{Lost, Message};
use super::losses::Counter;
use super::mutes::Mutes;
use super::polling::Poller;
use super::source::{Coverage, CoveredRoot, Source};
use super::turns::Turns;
use crate::alert::{LossKind, Unseen};
use crate::event::assemble::{Assembled, Assembler, Subject};
use crate::event::flood::{Flood, at_once};
use crate::event::{Action, Evidence, FinalPath};
use crate::queue;
use crate::resolve::identify::Identity;
use crate::resolve::resolver::Resolver;
use crate::resolve::{Attribution, Method};
use crate::watch::beat::Beat;
use crate::watch::hold;
use crate::watch::home::Home;
use crate::watch::loud::Loud;
use crate::watch::tree::{Ground, Listing, Scope, Tree};
use crate::watch::{Change, Notice, Problem, What, Writer};

/// How soon a hold is heard of after the record of its creation. Whoever is
/// not held is read then: sooner would be in the way of whoever is.
const HELD_TIME: Duration = Duration::from_micros(500);
/// How often the queue is read before what was read is worked off.
const READS: usize = 16;
/// So many records are worked off before more is read, once that takes longer than [`BRIEF`].
/// With fewer the queue is read to its end: when something was done is known of those only.
const BULK: usize = 1024;
/// So many files of the start are identified before the queue is looked at again.
const SETTLED: usize = 256;
/// How often the answering thread is told in which homes a flood goes on.
const TELL_LOUD: Duration = Duration::from_millis(20);
/// What takes no longer keeps nobody waiting.
const BRIEF: Duration = Duration::from_millis(5);
/// After so many of them it is looked whether events are finished.
const PORTION: usize = 64;
/// How long what is queued is still read at the end.
const END_TIME: Duration = Duration::from_secs(3);
/// How often at most what came in floods is looked into.
const SIFT_AGAIN: Duration = Duration::from_secs(60);
/// How often ended processes are forgotten.
const PRUNE: Duration = Duration::from_secs(1);
/// How soon after a directory was moved the baseline follows, and how often at most.
const FOLLOW: Duration = Duration::from_millis(200);
const FOLLOW_AGAIN: Duration = Duration::from_secs(10);
/// How often at most changed mounts are followed: the table of them is long on a
/// host with containers, which come and go.
const REMOUNT: Duration = Duration::from_millis(100);
/// How often it is looked where links lead: of a change in the middle of a chain
/// of links, or of a target that comes, nothing is told.
const RELINK: Duration = Duration::from_secs(60);

/// What the main thread asks of the watching thread.
pub enum Command {
    /// Watch this from now on.
    Scope(Scope),
    /// Say how many directories are watched.
    Directories(SyncSender<usize>),
    /// So many events of each home are told one by one from now on.
    Events(u32),
    /// Say what is watched.
    Coverage(SyncSender<Coverage>),
    /// Nobody is held any more.
    Released,
    /// Openers are held again; the answering thread hears through these where homes lie.
    HoldAgain(FileSystems),
    /// Read what is queued, finish it and end.
    Stop,
}

/// Tells the answering thread on which file systems homes lie.
pub struct FileSystems {
    sender: Sender<Vec<Ground>>,
    control: Arc<EventFd>,
    known: u64,
}

impl FileSystems {
    /// Through these the answering thread hears of it.
    #[must_use]
    pub fn new(sender: Sender<Vec<Ground>>, control: Arc<EventFd>) -> Self {
        Self {
            sender,
            control,
            known: 0,
        }
    }

    fn update(&mut self, tree: &mut Tree) {
        if self.known == tree.file_system_changes() {
            return;
        }
        self.known = tree.file_system_changes();
        // The answering thread ended: so does the use of this.
        let _ = self.sender.send(tree.grounds());
        let _ = self.control.write(1);
    }
}

impl Subject for Attribution {
    /// Pid and start of the process; device and inode of what it runs.
    type Actor = [Option<u64>; 4];

    fn unknown() -> Self {
        Self::none()
    }

    fn actor(&self) -> Self::Actor {
        let Some(process) = &self.process else {
            return [None; 4];
        };
        let image = process.image.as_ref();
        [
            u64::try_from(process.pid).ok(),
            process.start_ticks,
            image.and_then(|image| image.device),
            image.and_then(|image| image.inode),
        ]
    }

    fn pid(&self) -> Option<i32> {
        self.process.as_ref().map(|process| process.pid)
    }

    fn is_held(&self) -> bool {
        self.method == Method::Held
    }

    fn is_certain(&self) -> bool {
        self.certain
    }

    fn is_weak(&self) -> bool {
        matches!(
            self.method,
            Method::Inferred | Method::Partial | Method::None
        )
    }

    fn weight(&self) -> usize {
        self.weight()
    }

    fn confirmed(self, record: Self) -> Self {
        self.confirmed_by(record)
    }

    fn inferred(self, maker: &Self) -> Self {
        self.having_written(maker)
    }

    fn is_key_generator(&self) -> bool {
        let image = self
            .process
            .as_ref()
            .and_then(|process| process.image.as_ref());
        image.is_some_and(|image| {
            image
                .path
                .file_name()
                .is_some_and(|name| name == "ssh-keygen")
        })
    }
}

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
    finished: Turns<Assembled<Attribution>>,
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
            finished: Turns::default(),
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
        self.hand_on(None);
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

    /// Does some of what has been put off.
    fn settle(&mut self) {
        self.look_on();
        let tree = self.inputs.source.tree_mut();
        if tree.is_settling() {
            tree.settle_more(SETTLED);
            if !tree.is_settling() {
                tracing::info!("every file that was there is identified");
            }
        }
    }

    /// Goes on with looks that wait.
    fn look_on(&mut self) {
        let tree = self.inputs.source.tree_mut();
        if tree.has_looks() {
            tree.look_on(&mut self.inputs.notices);
            self.turn();
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

    /// Looks again at homes whose time is over.
    fn unmute(&mut self) {
        let (now, time) = (Instant::now(), SystemTime::now());
        let Source::Fanotify(watch) = &mut self.inputs.source else {
            return;
        };
        for home in self.mutes.muted() {
            let records = watch.unread(home);
            self.assembler.unread(home, records, time, now);
        }
        for (home, since) in self.mutes.over(now) {
            watch.tree_mut().unmute(&home);
            let first = self.flooded.get_or_insert(since);
            *first = since.min(*first);
        }
    }

    /// What came in a flood and was not told is found by a comparison.
    fn sift(&mut self) {
        let now = Instant::now();
        let soon = |last| now.saturating_duration_since(last) < SIFT_AGAIN;
        if self.sifted.is_some_and(soon) {
            return;
        }
        // What has not been looked at yet would be told as it was.
        if !self.inputs.source.tree().has_looks()
            && let Some(since) = self.flooded.take()
        {
            self.sifted = Some(now);
            self.compare_all(Cause::Lost(Unseen::Flood, since));
        }
    }

    /// What has to be done now and then.
    fn keep_house(&mut self) {
        self.follow_mounts();
        self.follow_moves();
        self.look_at_clock();
        if self.pruned.elapsed() <= PRUNE {
            return;
        }
        self.pruned = Instant::now();
        self.resolver.prune();
        let tree = self.inputs.source.tree_mut();
        tree.catch_up(self.pruned, &mut self.inputs.notices);
        self.unmute();
        self.turn();
        // In a flood the queue may never be empty.
        self.look_on();
        self.sift();
        self.tell_losses();
    }

    /// Times before and after a jump cannot be compared.
    fn look_at_clock(&mut self) {
        if let Some(pace) = self.clock.as_mut().and_then(ClockWatch::paced) {
            let reason = format!(
                "the clock goes {:.1} % as fast as it should: what times say is that much wrong",
                pace * 100.0
            );
            self.lost("clock_pace", None, reason);
        }
        let Some(jump) = self.clock.as_mut().and_then(ClockWatch::jumped) else {
            return;
        };
        let direction = if jump.forwards {
            "forwards"
        } else {
            "backwards"
        };
        let reason = format!(
            "the clock was set {direction} by {} seconds: times before and after do not fit \
             together, and every file is compared with what was known of it",
            jump.by.as_secs()
        );
        self.lost("clock_jumped", Some(jump.from), reason);
        let since = self.emptied.min(SystemTime::now());
        self.compare_all(Cause::Lost(Unseen::ClockSet, since));
    }

    fn lost(&mut self, code: &'static str, since: Option<SystemTime>, reason: String) {
        self.send(Message::Lost(Lost {
            code,
            kind: LossKind::Fault,
            count: None,
            since,
            reason,
        }));
    }

    /// What is counted elsewhere is told, too.
    fn tell_losses(&mut self) {
        let (now, time) = (Instant::now(), SystemTime::now());
        let (unheard, unrecorded) = self.counted();
        let identities = self.unheard.news(unheard, now, time);
        let records = self.unrecorded.news(unrecorded, now, time);
        let losses = [
            (
                "identities_dropped",
                LossKind::Dropped,
                identities,
                "openers were identified faster than it could be taken down: what they made \
                 may be laid to nobody",
            ),
            (
                "process_records_lost",
                LossKind::Lost,
                records,
                "records of forks and execs: who renames or links may go unnamed for a moment",
            ),
        ];
        for (code, kind, news, reason) in losses {
            let Some((count, since)) = news else { continue };
            self.send(Message::Lost(Lost {
                code,
                kind,
                count: Some(count),
                since: Some(since),
                reason: reason.to_owned(),
            }));
        }
    }

    /// Identities that came too fast, and records of processes that were lost.
    fn counted(&self) -> (u64, u64) {
        let dropped = |hold: &Arc<hold::Counters>| hold.dropped.load(Relaxed);
        let table = self.resolver.table();
        (
            self.hold.as_ref().map_or(0, dropped),
            table.map_or(0, |table| table.counters().lost),
        )
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
        let due = if tree.is_settling() || tree.has_looks() || !self.finished.is_empty() {
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

    fn obey(&mut self) {
        // EAGAIN: it was a record that woke us.
        let _ = self.inputs.wake.read();
        while let Ok(command) = self.inputs.commands.try_recv() {
            match command {
                Command::Scope(scope) => {
                    let notices = &mut self.inputs.notices;
                    self.inputs.source.tree_mut().set_scope(scope, notices);
                    self.compare_all(Cause::Moved);
                }
                Command::Directories(reply) => {
                    let _ = reply.try_send(self.inputs.source.tree().watched());
                }
                Command::Events(events) => self.limit(events),
                Command::Coverage(reply) => {
                    let (floods, flooded) = self.assembler.flooded();
                    let mut roots = self.inputs.source.roots();
                    let tree = self.inputs.source.tree();
                    match &self.poller {
                        Some(poller) => roots.extend(poller.covered()),
                        None => roots.extend(tree.apart().into_iter().map(CoveredRoot::apart)),
                    }
                    roots.sort_by(|one, other| one.path.cmp(&other.path));
                    let _ = reply.try_send(Coverage {
                        roots,
                        directories: tree.watched(),
                        dropped: self.dropped,
                        floods,
                        flooded,
                        table: self
                            .resolver
                            .table()
                            .map(|table| (table.moments(), table.counters())),
                    });
                }
                Command::Released => {
                    self.released.get_or_insert_with(SystemTime::now);
                    self.resolver.unfollow();
                }
                Command::HoldAgain(file_systems) => {
                    if let Source::Fanotify(watch) = &mut self.inputs.source {
                        watch.hold_again(&mut self.inputs.notices);
                    }
                    self.inputs.file_systems = Some(file_systems);
                    if let Some(since) = self.released.take() {
                        self.compare_all(Cause::Lost(Unseen::Released, since));
                    }
                }
                Command::Stop => {
                    self.stopping = true;
                    self.end.get_or_insert(Instant::now() + END_TIME);
                }
            }
        }
    }

    /// Works off what has been read.
    fn turn(&mut self) {
        // Holds first: an opener was identified before it could act any further. Those
        // that come meanwhile have their records still to come.
        if let Some(held) = &self.inputs.held {
            for _ in 0..held.waiting() {
                let Ok(held) = held.try_recv() else { break };
                match *held {
                    hold::Held::Opening { object, identity } => {
                        let attribution = self.resolver.opening(*identity);
                        self.assembler.held(object, attribution, Instant::now());
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
                self.hand_on(Some(BRIEF));
                self.mind_others();
            }
            match notice {
                Notice::Change(change) => {
                    if matches!(change.what, What::Created { .. } | What::Modified) {
                        self.unheld
                            .push_back((now + HELD_TIME, change.path.clone()));
                    }
                    let resolver = &mut self.resolver;
                    self.assembler
                        .take(change, time, now, |change| attribute(resolver, change));
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
        self.hand_on(Some(BRIEF));
        if let Some(file_systems) = &mut self.inputs.file_systems {
            file_systems.update(self.inputs.source.tree_mut());
        }
    }

    /// What is told of one home one by one must not keep others waiting in the queue.
    fn mind_others(&mut self) {
        self.assembler
            .mind_others(self.inputs.source.tree().is_behind());
    }

    /// Hands finished events to the deciding thread, all or as far as it goes in so much
    /// time: who waits in the kernel's queue must not wait for all that many have left.
    fn hand_on(&mut self, time: Option<Duration>) {
        for assembled in self.assembler.finished() {
            self.finished.push(assembled.home.clone(), assembled);
        }
        let begun = Instant::now();
        while time.is_none_or(|time| begun.elapsed() < time)
            && let Some(mut assembled) = self.finished.pop()
        {
            self.resolver.finish(&mut assembled.event.writer);
            if let Some(ticket) = &assembled.ticket {
                ticket.weigh(assembled.event.writer.weight());
            }
            let event = &assembled.event;
            let settled = match &event.final_path {
                Some(FinalPath::Renamed(path)) => path,
                _ => &event.path,
            };
            if !matches!(
                event.action,
                Action::Deletion | Action::Open | Action::Flood
            ) {
                let notices = &mut self.inputs.notices;
                self.inputs.source.tree_mut().settle(settled, notices);
            }
            self.send(Message::Event(Box::new(assembled)));
        }
        let floods: Vec<Flood<Attribution>> = self.assembler.floods().collect();
        for flood in floods {
            let first = self.flood_since.get_or_insert(flood.since);
            *first = flood.since.min(*first);
            if flood.over {
                self.flooded = self.flood_since;
            }
            if self.assembler.flooded().0.is_empty() {
                self.flood_since = None;
            }
            self.send(Message::Flood(Box::new(flood)));
        }
    }

    /// Has the baseline compared with what the start has found.
    fn compare_stock(&mut self) {
        if let Some((files, _)) = self.inputs.source.tree_mut().take_stock() {
            let until = self.inputs.begun;
            self.have_compared(Cause::Start, until, files, Vec::new());
        }
    }

    /// Has the baseline compared with what is known to be there.
    fn compare_all(&self, cause: Cause) {
        self.compare(cause, Vec::new());
    }

    /// The same, of what lies in these places.
    fn compare(&self, cause: Cause, places: Vec<PathBuf>) {
        if self.ledger.is_none() {
            return;
        }
        let wanted = |directory: &Path| {
            places.is_empty() || places.iter().any(|place| directory.starts_with(place))
        };
        let files = self.inputs.source.tree().files(wanted);
        self.have_compared(cause, SystemTime::now(), files, places);
    }

    fn have_compared(&self, cause: Cause, until: SystemTime, files: Listing, places: Vec<PathBuf>) {
        let Some(ledger) = &self.ledger else { return };
        let tree = self.inputs.source.tree();
        ledger.compare(Snapshot {
            cause,
            until,
            files,
            places,
            apart: tree.apart().into_iter().map(|place| place.path).collect(),
            patterns: tree.patterns().to_vec(),
        });
    }

    /// Watches what is mounted at watched paths now, and what links lead to.
    fn follow_mounts(&mut self) {
        let now = Instant::now();
        let tree = self.inputs.source.tree_mut();
        let notices = &mut self.inputs.notices;
        let mut places = Vec::new();
        let moves = tree.moves();
        if tree.has_remounted() && now >= self.mounted + REMOUNT {
            places = tree.remounted(notices);
            self.mounted = Instant::now();
        }
        if now >= self.linked + RELINK {
            places.extend(tree.follow_links(notices));
            self.linked = Instant::now();
        }
        // These are compared at once, and nothing of them is taken for known.
        self.moves += tree.moves() - moves;
        let apart = tree.apart_changes();
        if self.apart != Some(apart)
            && let Some(poller) = &self.poller
        {
            self.apart = Some(apart);
            poller.watch(tree.apart());
        }
        if !places.is_empty() {
            self.compare(Cause::Remounted, places);
        }
    }

    /// Where a directory was moved, nothing is told of each file in it.
    fn follow_moves(&mut self) {
        let moves = self.inputs.source.tree().moves();
        let now = Instant::now();
        if moves != self.moves && self.ledger.is_some() {
            self.moves = moves;
            let due = (now + FOLLOW).max(self.followed + FOLLOW_AGAIN);
            self.follow.get_or_insert(due);
        }
        if self.follow.is_some_and(|due| due <= now) && !self.inputs.source.tree().has_looks() {
            self.follow = None;
            self.followed = now;
            self.compare_all(Cause::Moved);
        }
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
