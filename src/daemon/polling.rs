//! Looks again and again at watched places on file systems of a server: network
//! and FUSE. What the server's side changes there no kernel tells.
//!
//! Owns when which place is looked at, and who waits: each look is a job of its
//! own pool, so that a server that hangs costs its own places and no more. What
//! this kernel does there inotify tells, which makes the look come sooner. What a
//! look finds goes to the baseline, which tells the differences. Must not touch
//! such a place on its own thread.

mod pass;

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;
use nix::sys::inotify::{InitFlags, Inotify, WatchDescriptor};

use self::pass::Found;
use super::Message;
use super::baseline::{Ledger, Polled, Since};
use super::source::CoveredRoot;
use crate::queue;
use crate::resolve::slow::{Answer, Pool, Size};
use crate::watch::tree::Place;

/// Places whose servers can hang at once before others are not looked at.
const THREADS: usize = 4;
/// How long a place is waited for before it is said that it does not answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How soon after a change that this kernel made a place is looked at.
const SOON: Duration = Duration::from_millis(50);
/// How often at most.
const LOCAL: Duration = Duration::from_secs(1);
/// How often it is looked whether a job is done.
const STEP: Duration = Duration::from_millis(20);

/// The way to the thread.
pub(super) struct Poller {
    orders: Sender<Vec<Place>>,
    wake: Arc<EventFd>,
    covered: Arc<Mutex<Vec<CoveredRoot>>>,
}

impl Poller {
    /// Starts the thread, which looks at each place at least this often.
    ///
    /// # Errors
    /// Threads cannot be started, or inotify cannot be used.
    pub(super) fn start(
        interval: Duration,
        ledger: Ledger,
        messages: queue::Sender<Message>,
        wake: Arc<EventFd>,
    ) -> io::Result<Self> {
        let size = Size {
            threads: THREADS,
            backlog: 0,
            urgent: false,
            movable: false,
        };
        let (orders, inbox) = channel();
        let covered = Arc::<Mutex<Vec<CoveredRoot>>>::default();
        let rounds = Rounds {
            interval,
            ledger,
            messages,
            pool: Pool::start(size)?,
            inotify: Arc::new(Inotify::init(
                InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK,
            )?),
            inbox,
            wake: Arc::clone(&wake),
            watched: Vec::new(),
            is_first: true,
            covered: Arc::clone(&covered),
        };
        std::thread::Builder::new()
            .name("poll".to_owned())
            .spawn(move || rounds.run())?;
        Ok(Self {
            orders,
            wake,
            covered,
        })
    }

    /// These are the places from now on.
    pub(super) fn watch(&self, places: Vec<Place>) {
        // The thread ends with this.
        let _ = self.orders.send(places);
        let _ = self.wake.write(1);
    }

    /// How well the watched directories in them are watched.
    pub(super) fn covered(&self) -> Vec<CoveredRoot> {
        let covered = self.covered.lock();
        covered.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct Watched {
    place: Place,
    /// When it is looked at next.
    due: Instant,
    /// The look that is under way, and when it began.
    look: Option<(Answer<io::Result<Found>>, Instant, SystemTime)>,
    /// When it was last looked at to its end.
    looked: Option<Instant>,
    since: Since,
    /// Watched directories up to this one were looked at by the last pass.
    behind: Option<PathBuf>,
    /// Those that are known.
    roots: Vec<PathBuf>,
    watches: Watches,
    /// Directories with more files than are looked at, which has been said.
    cut: HashSet<PathBuf>,
    /// Directories that could not be listed, and why.
    failed: Vec<(PathBuf, String)>,
    /// Why it is not looked at.
    trouble: Option<String>,
}

/// What is watched with inotify.
#[derive(Default)]
struct Watches {
    all: HashSet<WatchDescriptor>,
    /// Of these, what was come to since the last round through the place.
    round: HashSet<WatchDescriptor>,
}

impl Watches {
    /// Takes what a pass has come to. Gives those that a whole round did not come to.
    fn take(&mut self, found: Vec<WatchDescriptor>, whole: bool) -> Vec<WatchDescriptor> {
        self.all.extend(found.iter().copied());
        self.round.extend(found);
        if !whole {
            return Vec::new();
        }
        let round = std::mem::take(&mut self.round);
        let all = std::mem::replace(&mut self.all, round);
        all.difference(&self.all).copied().collect()
    }
}

struct Rounds {
    interval: Duration,
    ledger: Ledger,
    messages: queue::Sender<Message>,
    pool: Pool,
    inotify: Arc<Inotify>,
    inbox: Receiver<Vec<Place>>,
    wake: Arc<EventFd>,
    watched: Vec<Watched>,
    /// No places have been told yet.
    is_first: bool,
    covered: Arc<Mutex<Vec<CoveredRoot>>>,
}

impl Rounds {
    fn run(mut self) {
        loop {
            self.wait();
            let _ = self.wake.read();
            loop {
                match self.inbox.try_recv() {
                    Ok(places) => self.take(places),
                    Err(std::sync::mpsc::TryRecvError::Empty) => break,
                    Err(std::sync::mpsc::TryRecvError::Disconnected) => return,
                }
            }
            self.local();
            let now = Instant::now();
            let mut watched = std::mem::take(&mut self.watched);
            let mut changed = false;
            for place in &mut watched {
                changed |= self.turn(place, now);
            }
            self.watched = watched;
            if changed {
                self.cover();
            }
        }
    }

    fn wait(&self) {
        let now = Instant::now();
        let due = self.watched.iter().map(|watched| match &watched.look {
            Some((_, begun, _)) if now < *begun + PATIENCE => now + STEP,
            Some(_) => now + LOCAL,
            None => watched.due,
        });
        let left = due.min().map(|due| due.saturating_duration_since(now));
        let timeout = left.map_or(PollTimeout::NONE, |left| {
            // A millisecond more: never too early.
            let millis = u32::try_from(left.as_millis() + 1).unwrap_or(u32::MAX >> 1);
            PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
        });
        let mut fds = [
            PollFd::new(self.wake.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN),
        ];
        // EINTR: one turn more.
        let _ = poll(&mut fds, timeout);
    }

    fn take(&mut self, places: Vec<Place>) {
        let first = std::mem::replace(&mut self.is_first, false);
        let mut known: HashMap<PathBuf, Watched> = self
            .watched
            .drain(..)
            .map(|watched| (watched.place.path.clone(), watched))
            .collect();
        for place in places {
            let since = match (first, place.mounted) {
                (true, _) => Since::Start,
                (false, true) => Since::Mounted,
                (false, false) => Since::New,
            };
            let watched = match known.remove(&place.path) {
                Some(watched) => Watched { place, ..watched },
                None => Watched {
                    place,
                    due: Instant::now(),
                    look: None,
                    looked: None,
                    since,
                    behind: None,
                    roots: Vec::new(),
                    watches: Watches::default(),
                    cut: HashSet::new(),
                    failed: Vec::new(),
                    trouble: None,
                },
            };
            self.watched.push(watched);
        }
        for watch in known.into_values().flat_map(|watched| watched.watches.all) {
            self.unwatch(watch);
        }
        self.cover();
    }

    fn unwatch(&self, watch: WatchDescriptor) {
        // EINVAL: it went with its directory.
        let _ = self.inotify.rm_watch(watch);
    }

    /// What this kernel did there is looked at soon.
    fn local(&mut self) {
        while let Ok(events) = self.inotify.read_events() {
            let now = Instant::now();
            for watched in &mut self.watched {
                let is_here = events.iter().any(|event| {
                    watched.watches.all.contains(&event.wd)
                        || event
                            .mask
                            .contains(nix::sys::inotify::AddWatchFlags::IN_Q_OVERFLOW)
                });
                if is_here {
                    let soon = (now + SOON).max(watched.looked.map_or(now, |at| at + LOCAL));
                    watched.due = watched.due.min(soon);
                }
            }
        }
    }

    /// Begins or ends a look; says whether something else is known of coverage.
    fn turn(&mut self, watched: &mut Watched, now: Instant) -> bool {
        if let Some((answer, begun, time)) = watched.look.take() {
            // What comes in time, or late: the server has come round.
            match answer.wait(now) {
                Ok(found) => return self.looked(watched, found, time),
                Err(answer) => {
                    watched.look = Some((answer, begun, time));
                    let silent = now >= begun + PATIENCE && watched.trouble.is_none();
                    if silent {
                        self.trouble(watched, "its server does not answer".to_owned());
                    }
                    return silent;
                }
            }
        }
        if now < watched.due {
            return false;
        }
        watched.due = now + self.interval;
        let place = watched.place.clone();
        let (behind, inotify) = (watched.behind.clone(), Arc::clone(&self.inotify));
        let answer = self.pool.ask(move || pass::look(&place, behind, inotify));
        if let Some(answer) = answer {
            watched.look = Some((answer, now, SystemTime::now()));
            return false;
        }
        watched.due = now + LOCAL.min(self.interval);
        let silent = watched
            .looked
            .is_none_or(|at| now > at + self.interval + PATIENCE);
        if silent && watched.trouble.is_none() {
            let reason = format!("the servers of {THREADS} other places do not answer");
            self.trouble(watched, reason);
            return true;
        }
        false
    }

    fn looked(
        &mut self,
        watched: &mut Watched,
        found: io::Result<Found>,
        time: SystemTime,
    ) -> bool {
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                let is_new = watched.trouble.is_none();
                if is_new {
                    self.trouble(watched, error.to_string());
                }
                return is_new;
            }
        };
        let path = watched.place.path.display();
        if watched.trouble.take().is_some() {
            tracing::info!("{path} can be looked at again");
        }
        watched.looked = Some(Instant::now());
        let whole = found.next.is_none();
        let began = std::mem::replace(&mut watched.behind, found.next);
        if !whole {
            watched.due = watched.due.min(Instant::now() + LOCAL);
        }
        for watch in watched.watches.take(found.watches, whole) {
            self.unwatch(watch);
        }
        if let Some(root) = found.cut
            && watched.cut.insert(root.clone())
        {
            let message = format!(
                "{} has more files than are looked at in one pass: what happens to the rest of \
                 them is not seen",
                crate::text::escape_path(&root)
            );
            self.fault(message);
        }
        let had_failed = std::mem::replace(&mut watched.failed, found.failed);
        let mut changed = had_failed != watched.failed;
        for failed in &watched.failed {
            if !had_failed.contains(failed) {
                let (path, reason) = failed;
                let path = crate::text::escape_path(path);
                self.fault(format!(
                    "{path} cannot be listed: {reason}; what happens there is not seen"
                ));
            }
        }
        let mut roots = found.roots;
        roots.extend(watched.failed.iter().map(|(path, _)| path.clone()));
        if !whole || began.is_some() {
            // Of the others it has not come to all.
            roots.extend(watched.roots.iter().cloned());
        }
        roots.sort();
        roots.dedup();
        changed |= watched.roots != roots;
        watched.roots = roots;
        self.ledger.polled(Polled {
            place: watched.place.path.clone(),
            since: watched.since,
            until: time,
            files: found.files,
            listed: found.listed.into_iter().collect(),
            missed: found.missed.into_iter().collect(),
        });
        if whole {
            watched.since = Since::Look(time);
        }
        changed || whole
    }

    fn trouble(&self, watched: &mut Watched, reason: String) {
        let message = format!(
            "{} lies on a file system of the kind {} and cannot be looked at ({reason}): what \
             happens there is not seen until it can be",
            crate::text::escape_path(&watched.place.path),
            watched.place.kind.display(),
        );
        self.fault(message);
        watched.trouble = Some(reason);
    }

    fn fault(&self, message: String) {
        let fault = Message::Fault("place_unseen", message);
        if self.messages.try_send(fault).is_err() {
            tracing::error!("the deciding thread is too far behind to be told of a place");
        }
    }

    fn cover(&self) {
        let mut covered = Vec::new();
        for watched in &self.watched {
            let kind = watched.place.kind.display();
            let (how, reason) = match &watched.trouble {
                Some(reason) => ("none", format!("it lies on {kind}, and {reason}")),
                None => (
                    "polled",
                    format!(
                        "it lies on {kind}: it is looked at every {} s, and who does something \
                         there is not known",
                        self.interval.as_secs()
                    ),
                ),
            };
            let roots = if watched.roots.is_empty() && watched.trouble.is_some() {
                std::slice::from_ref(&watched.place.path)
            } else {
                &watched.roots
            };
            covered.extend(roots.iter().map(|path| {
                let failed = watched.failed.iter().find(|(failed, _)| failed == path);
                let (how, reason) = match failed {
                    Some((_, reason)) => ("none", format!("it cannot be listed: {reason}")),
                    None => (how, reason.clone()),
                };
                CoveredRoot {
                    path: path.clone(),
                    how,
                    reason: Some(reason),
                }
            }));
        }
        *self.covered.lock().unwrap_or_else(PoisonError::into_inner) = covered;
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::inotify::AddWatchFlags;

    use super::*;

    #[test]
    fn what_a_whole_round_did_not_come_to_is_watched_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC).unwrap();
        let watch = |name: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir(&path).unwrap();
            inotify.add_watch(&path, AddWatchFlags::IN_CREATE).unwrap()
        };
        let [one, two, three] = ["one", "two", "three"].map(watch);
        let mut watches = Watches::default();
        assert_eq!(watches.take(vec![one, two], true), []);
        // In two passes, of which the second comes to the rest.
        assert_eq!(watches.take(vec![three], false), []);
        assert_eq!(watches.all, HashSet::from([one, two, three]));
        assert_eq!(watches.take(vec![two], true), [one]);
        assert_eq!(watches.take(Vec::new(), true).len(), 2);
        assert!(watches.all.is_empty());
    }
}
