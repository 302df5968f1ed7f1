//! Keeps openers held: the answering thread, its supervisor, and their return.
//!
//! ```text
//! hold ──answers──► permission group ◄──closes, opens again── supervise
//! ```
//!
//! Owns the two threads. When the answering thread is stuck or fails, the group
//! is closed, everybody goes on, and after a pause a new thread answers a new
//! group. Must not answer or identify anybody itself. A thread that is stuck
//! for good stays behind; it ends if it ever comes round.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::epoll::Epoll;
use nix::sys::eventfd::EventFd;

use super::build::{Orders, event_fd, spawn};
use super::watchdog::Part;
use super::watching::{Command, FileSystems};
use super::{Fatal, Message};
use crate::queue;
use crate::resolve::identify::{Identifier, Identity};
use crate::sys::affinity::Movable;
use crate::sys::fanotify::{NotificationGroup, PermissionGroup};
use crate::sys::thread;
use crate::watch::deadline::Deadline;
use crate::watch::fence::Fence;
use crate::watch::hold::{Counters, Held, Hold};
use crate::watch::loud::Crowd;

/// How long the answering thread has to end.
const END_TIME: Duration = Duration::from_secs(1);
/// How long nobody is held after the group had to be closed; doubled each time
/// that it happens again soon.
const PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// So long without trouble, and the pause is the first again.
const CALM: Duration = Duration::from_secs(600);

/// What holding is made of.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) permission: Arc<PermissionGroup>,
    pub(super) notification: Arc<NotificationGroup>,
    pub(super) identifier: Identifier,
    pub(super) fence: Option<Arc<Fence>>,
    pub(super) held: queue::Sender<Box<Held<Identity>>>,
    pub(super) wake: Arc<EventFd>,
    pub(super) messages: queue::Sender<Message>,
    pub(super) orders: Orders,
}

/// The two threads, and what is needed to end them.
pub(super) struct Holding {
    permission: Arc<PermissionGroup>,
    turn: Arc<Mutex<Turn>>,
    /// Dropped to end the supervisor.
    end: SyncSender<()>,
    pub(super) counters: Arc<Counters>,
}

/// One answering thread, from its start to its end.
struct Turn {
    stop: Arc<AtomicBool>,
    control: Arc<EventFd>,
    deadline: Arc<Deadline>,
    /// What wakes the supervisor.
    watch: Arc<Epoll>,
    /// Disconnected when the thread has ended.
    ended: Receiver<()>,
    /// Why it ended, if it was an error.
    error: Arc<Mutex<Option<String>>>,
}

impl Holding {
    /// Starts the threads; the group has no marks yet.
    pub(super) fn start(parts: Parts) -> Result<(Self, FileSystems), Fatal> {
        let counters = Arc::new(Counters::default());
        let (turn, file_systems) = Turn::start(&parts, &counters)?;
        let permission = Arc::clone(&parts.permission);
        let turn = Arc::new(Mutex::new(turn));
        let (end, ending) = sync_channel(0);
        let keeper = Keeper {
            parts,
            counters: Arc::clone(&counters),
            turn: Arc::clone(&turn),
            ending,
        };
        spawn("supervise", move || {
            // It must get its turn when the answering thread does not.
            let _ = thread::real_time(2);
            keeper.run();
        })?;
        let holding = Self {
            permission,
            turn,
            end,
            counters,
        };
        Ok((holding, file_systems))
    }

    /// The answering thread, for the watchdog: it need not get on while nobody is
    /// held. That the supervisor sees to it shows in the same.
    pub(super) fn part(&self) -> Part {
        let (awake, living) = (Arc::clone(&self.turn), Arc::clone(&self.turn));
        Part {
            name: "hold",
            wake: Box::new(move || {
                let turn = awake.lock().unwrap_or_else(PoisonError::into_inner);
                let _ = turn.control.write(1);
            }),
            count: Box::new(move || {
                let turn = living.lock().unwrap_or_else(PoisonError::into_inner);
                (!turn.stop.load(Ordering::Acquire)).then(|| turn.deadline.beats())
            }),
        }
    }

    /// Closes the group, then ends the threads.
    pub(super) fn end(self) {
        if let Err(error) = self.permission.close() {
            tracing::error!("cannot close the permission group: {error}");
        }
        drop(self.end);
        self.turn
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .end();
        // Opened again by the supervisor just now: it has no marks.
        let _ = self.permission.close();
    }
}

impl Turn {
    fn start(parts: &Parts, counters: &Arc<Counters>) -> Result<(Self, FileSystems), Fatal> {
        let (sender, receiver) = channel();
        let control = event_fd()?;
        let stop = Arc::new(AtomicBool::new(false));
        let deadline = Arc::new(Deadline::new().map_err(Fatal::system("cannot make a timer"))?);
        let watch = deadline
            .watch(&parts.permission)
            .map_err(Fatal::system("cannot supervise the permission group"))?;
        let hold = Hold {
            permission: Arc::clone(&parts.permission),
            notification: Arc::clone(&parts.notification),
            identify: parts.identifier.clone(),
            fence: parts.fence.clone(),
            held: parts.held.clone(),
            wake: Arc::clone(&parts.wake),
            stop: Arc::clone(&stop),
            control: Arc::clone(&control),
            file_systems: receiver,
            counters: Arc::clone(counters),
            deadline: Arc::clone(&deadline),
            berth: Arc::clone(parts.identifier.berth()),
            loud: parts.orders.loud(),
            crowd: Crowd::default(),
        };
        let error = Arc::new(Mutex::new(None));
        let (alive, ended) = sync_channel(0);
        let permission = Arc::clone(&parts.permission);
        let (failed, supervised) = (Arc::clone(&error), Arc::clone(&deadline));
        spawn("hold", move || {
            let _alive: SyncSender<()> = alive;
            // Refused without CAP_SYS_NICE: then openers wait a little longer.
            let _ = thread::real_time(1);
            let _movable = Movable::new();
            if let Err(error) = hold.run() {
                // Closed before anything is said: nobody may wait for a dead thread.
                let _ = permission.close();
                *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
                supervised.stop();
            }
        })?;
        let file_systems = FileSystems::new(sender, Arc::clone(&control));
        let turn = Self {
            stop,
            control,
            deadline,
            watch: Arc::new(watch),
            ended,
            error,
        };
        Ok((turn, file_systems))
    }

    fn end(&self) {
        self.stop.store(true, Ordering::Release);
        self.deadline.stop();
        let _ = self.control.write(1);
        // Nothing is ever sent: the thread ends, or it is stuck and ends with us.
        let _ = self.ended.recv_timeout(END_TIME);
    }
}

/// The supervisor's thread.
struct Keeper {
    parts: Parts,
    counters: Arc<Counters>,
    turn: Arc<Mutex<Turn>>,
    ending: Receiver<()>,
}

impl Keeper {
    fn run(self) {
        let mut pause = PAUSE;
        loop {
            let (deadline, watch, stop, error) = {
                let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
                (
                    Arc::clone(&turn.deadline),
                    Arc::clone(&turn.watch),
                    Arc::clone(&turn.stop),
                    Arc::clone(&turn.error),
                )
            };
            let began = Instant::now();
            let supervised = deadline.supervise(&self.parts.permission, &watch, |overdue| {
                // Full only if the deciding thread hangs; the counters tell it later.
                let _ = self.parts.messages.try_send(Message::Overdue(overdue));
            });
            if supervised.is_err() {
                // Without a bound on the wait nobody may wait.
                let _ = self.parts.permission.close();
            }
            if self.is_ending(Duration::ZERO) {
                return;
            }
            // A stuck thread that comes round shall not go on.
            stop.store(true, Ordering::Release);
            let why = error
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take()
                .unwrap_or_else(|| "openers were not answered in time".to_owned());
            self.parts.orders.give(Command::Released);
            if began.elapsed() > CALM {
                pause = PAUSE;
            }
            let _ = self.parts.messages.try_send(Message::Released(why, pause));
            loop {
                if self.is_ending(pause) {
                    return;
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
                match self.again() {
                    Ok(()) => break,
                    Err(error) => tracing::warn!("openers cannot be held again yet: {error}"),
                }
            }
            let _ = self.parts.messages.try_send(Message::HeldAgain);
        }
    }

    /// Whether the daemon ends within `time`.
    fn is_ending(&self, time: Duration) -> bool {
        self.ending.recv_timeout(time) == Err(RecvTimeoutError::Disconnected)
    }

    fn again(&self) -> Result<(), Fatal> {
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.parts
            .permission
            .reopen()
            .map_err(Fatal::system("cannot open a permission group"))?;
        let (new, file_systems) = Turn::start(&self.parts, &self.counters).inspect_err(|_| {
            let _ = self.parts.permission.close();
        })?;
        // Only now are there marks, and only now can somebody wait.
        if !self.parts.permission.answered() {
            new.end();
            let why = io::Error::other("the group was closed at once");
            return Err(Fatal::system("cannot answer a permission group")(why));
        }
        *turn = new;
        self.parts.orders.give(Command::HoldAgain(file_systems));
        Ok(())
    }
}
