//! The supervisor lets openers go when the answering thread does not.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::Signal;
use ssh_keywatch::queue;
use ssh_keywatch::sys::fanotify::{NotificationGroup, PermissionGroup, Record, mask};
use ssh_keywatch::sys::{PidFd, thread};
use ssh_keywatch::watch::deadline::{Deadline, LIMIT, Overdue};
use ssh_keywatch::watch::hold::{Counters, Executor, Held, Hold, Identify};
use ssh_keywatch::watch::loud::Crowd;

use crate::process::Process;

/// A bound against hanging, far above the limit.
const BOUND: Duration = Duration::from_secs(20);

/// A permission group on a directory of its own, and its supervisor, if it has one yet.
struct Bench {
    dir: tempfile::TempDir,
    group: Arc<PermissionGroup>,
    deadline: Arc<Deadline>,
    misses: Receiver<Overdue>,
}

impl Bench {
    fn new() -> Self {
        let mut bench = Self::unsupervised();
        bench.supervise();
        bench
    }

    fn unsupervised() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let group = Arc::new(PermissionGroup::new().expect("needs root and fanotify"));
        let marked = File::open(dir.path()).unwrap();
        group
            .mark_directory(marked.as_fd(), mask::OPEN_PERM | mask::EVENT_ON_CHILD)
            .unwrap();
        Self {
            dir,
            group,
            deadline: Arc::new(Deadline::new().unwrap()),
            misses: channel().1,
        }
    }

    fn supervise(&mut self) {
        let (tell, misses) = channel();
        self.misses = misses;
        let (supervisor, supervised) = (Arc::clone(&self.deadline), Arc::clone(&self.group));
        let watch = self.deadline.watch(&self.group).unwrap();
        std::thread::spawn(move || {
            supervisor
                .supervise(&supervised, &watch, |miss| {
                    let _ = tell.send(miss);
                })
                .unwrap();
        });
    }

    /// Makes a file on another thread; the channel says when that was allowed.
    fn opener(&self, name: &str) -> Receiver<()> {
        let path: PathBuf = self.dir.path().join(name);
        let (done, opened) = channel();
        std::thread::spawn(move || {
            File::create(path).unwrap();
            done.send(()).unwrap();
        });
        opened
    }

    /// Takes up the next record, as an answering thread does.
    fn take_up(&self) -> Record {
        self.take_up_within(BOUND).expect("nobody was held")
    }

    fn take_up_within(&self, bound: Duration) -> Option<Record> {
        let mut fds = [PollFd::new(self.group.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::try_from(bound).unwrap()).unwrap();
        let mut taken = None;
        let _ = self.deadline.reading();
        self.group
            .read(&mut [0; 24], |record| taken = Some(record))
            .unwrap();
        let record = taken?;
        self.deadline.begin(record.fd.as_ref().unwrap().as_raw_fd());
        Some(record)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // Nobody may be left waiting when an assertion fails.
        let _ = self.group.close();
        self.deadline.stop();
    }
}

#[test]
fn an_opener_and_those_behind_it_are_let_go_when_nobody_answers() {
    let mut bench = Bench::unsupervised();
    let first = bench.opener("first");
    let record = bench.take_up();
    // Nobody lets it go before it is taken up.
    bench.supervise();
    let second = bench.opener("second");
    // The second is queued behind the first once its thread is held.
    let mut fds = [PollFd::new(bench.group.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::try_from(LIMIT).unwrap()).unwrap();
    first.recv_timeout(BOUND).expect("the first still waits");
    second.recv_timeout(BOUND).expect("the second still waits");
    assert!(matches!(
        bench.misses.recv_timeout(BOUND),
        Ok(Overdue(1..=2))
    ));
    drop(record);
}

#[test]
fn a_thread_that_is_stuck_loses_the_group() {
    let mut bench = Bench::unsupervised();
    let opened = bench.opener("first");
    let record = bench.take_up();
    bench.supervise();
    opened.recv_timeout(BOUND).expect("it still waits");
    // The supervisor ends when it has closed the group.
    let misses: Vec<Overdue> =
        std::iter::from_fn(|| bench.misses.recv_timeout(BOUND).ok()).collect();
    assert_eq!(misses.len(), 2, "{misses:?}");
    assert_eq!(misses[0], Overdue(1));
    assert!(!bench.group.is_open());
    // From now on nobody is held.
    let next = bench.opener("second");
    next.recv_timeout(BOUND).expect("held by a closed group");
    drop(record);
}

#[test]
fn whoever_is_answered_in_time_is_no_miss() {
    let until = Instant::now() + BOUND;
    let mut bench = Bench::new();
    let mut number = 0;
    while number < 50 {
        let began = Instant::now();
        let opened = bench.opener(&format!("file{number}"));
        let record = bench.take_up_within(LIMIT);
        let allowed = record.map(|record| bench.group.allow(record.fd.as_ref().unwrap().as_fd()));
        bench.deadline.end();
        opened.recv_timeout(BOUND).expect("it still waits");
        if began.elapsed() < LIMIT * 4 / 5 {
            allowed.expect("nobody was held").unwrap();
            assert!(bench.misses.try_recv().is_err(), "{number}");
            number += 1;
        } else {
            // It was not in time itself: another supervisor has to judge.
            bench = Bench::new();
        }
        assert!(Instant::now() < until, "it is never in time");
    }
    bench.deadline.stop();
    // The supervisor ends without having told anything.
    assert!(bench.misses.recv_timeout(BOUND).is_err());
}

/// Where the answering thread stalls until whoever it is at has gone on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stall {
    /// Before it reads who that is.
    Reading,
    /// When it asks again whether that is sure.
    Landing,
    /// A while over each, and of touch(1) it is never sure.
    Doubt,
}

/// Takes whoever it is asked for, for sure, whoever that is by now.
struct Stalled {
    /// The stall that is to come.
    stall: Arc<Mutex<Option<Stall>>>,
    /// Somebody was let go.
    misses: Receiver<Overdue>,
    asked: u32,
}

impl Stalled {
    fn is_next(&self, at: Stall) -> bool {
        *self.stall.lock().unwrap() == Some(at)
    }

    fn stall(&self, at: Stall) {
        if self.is_next(at) {
            *self.stall.lock().unwrap() = None;
            while self.misses.try_recv().is_ok() {}
            let miss = self.misses.recv_timeout(BOUND);
            miss.expect("whoever it was at was not let go");
        }
    }
}

impl Identify for Stalled {
    type Identity = i32;
    type Known = ();

    fn opener(&mut self, tid: i32) -> Option<i32> {
        self.stall(Stall::Reading);
        if self.is_next(Stall::Doubt) {
            std::thread::sleep(Duration::from_millis(1));
        }
        Some(tid)
    }

    fn known(&mut self, (): &(), _: &PidFd) -> Option<i32> {
        None
    }

    fn executor(&mut self, tid: i32, _: BorrowedFd<'_>) -> Option<Executor<i32, ()>> {
        let pidfd = PidFd::open(tid).ok();
        Some(Executor {
            identity: self.opener(tid)?,
            known: Some(()),
            pid: tid,
            pidfd,
            aside: Box::new(|| {}),
        })
    }

    fn is_sure(&mut self, tid: &mut i32) -> bool {
        self.asked += 1;
        if self.is_next(Stall::Doubt) {
            let name = std::fs::read_to_string(format!("/proc/{tid}/comm"));
            return !name.is_ok_and(|name| name == "touch\n");
        }
        // So many times it is asked at once; then it lands, be its time up or not.
        if self.is_next(Stall::Landing) && self.asked <= 6 {
            return false;
        }
        self.stall(Stall::Landing);
        true
    }
}

/// A bench with an answering thread.
struct Answered {
    bench: Bench,
    held: queue::Receiver<Box<Held<i32>>>,
    counters: Arc<Counters>,
    stall: Arc<Mutex<Option<Stall>>>,
    stop: Arc<AtomicBool>,
    control: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl Answered {
    fn new() -> Self {
        let mut bench = Bench::new();
        let misses = std::mem::replace(&mut bench.misses, channel().1);
        let (sender, held) = queue::bounded(100);
        let wake = || {
            let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
            Arc::new(EventFd::from_flags(flags).unwrap())
        };
        let (control, stop, stall) = (wake(), Arc::default(), Arc::default());
        let counters = Arc::<Counters>::default();
        let hold = Hold {
            permission: Arc::clone(&bench.group),
            notification: Arc::new(NotificationGroup::new().unwrap()),
            identify: Stalled {
                stall: Arc::clone(&stall),
                misses,
                asked: 0,
            },
            fence: None,
            held: sender,
            wake: wake(),
            control: Arc::clone(&control),
            stop: Arc::clone(&stop),
            file_systems: channel().1,
            counters: Arc::clone(&counters),
            deadline: Arc::clone(&bench.deadline),
            berth: Arc::default(),
            loud: Arc::default(),
            crowd: Crowd::default(),
        };
        let thread = Some(std::thread::spawn(move || {
            // As in the daemon: else it is late on a busy host.
            let _ = thread::real_time(1);
            hold.run().unwrap();
        }));
        Self {
            bench,
            held,
            counters,
            stall,
            stop,
            control,
            thread,
        }
    }

    /// The answering thread stalls there, when `act` is held; says how often it was done
    /// until then, for on a busy host it may be let go before anybody read who it is.
    fn stalls(&self, at: Stall, act: impl Fn()) -> u64 {
        *self.stall.lock().unwrap() = Some(at);
        for acts in 1..=10 {
            act();
            if !self.is_to_stall() {
                return acts;
            }
        }
        panic!("nobody was held");
    }

    fn is_to_stall(&self) -> bool {
        self.stall.lock().unwrap().is_some()
    }

    /// Makes a file, and says who did. The daemon's own threads are not asked for.
    fn touch(&self, name: &str) -> i32 {
        let path = self.bench.dir.path().join(name);
        let mut toucher = Process::spawn(Command::new("touch").arg(path));
        assert!(toucher.end(BOUND).success());
        i32::try_from(toucher.pid()).unwrap()
    }

    /// What it has handed on before the next opener that it has answered itself: whoever
    /// that is has been handed on by then. Says, too, how many it has not answered before.
    fn told(&self) -> (Vec<Held<i32>>, u64) {
        let mut told = Vec::new();
        for overdue in 0..100 {
            let last = self.touch("last");
            let is_last = |held: &Held<i32>| matches!(held, Held::Opening { identity, .. } if **identity == last);
            while let Ok(held) = self.held.try_recv() {
                if is_last(&held) {
                    return (told, overdue);
                }
                told.push(*held);
            }
        }
        panic!("it answers nobody; before that: {told:?}");
    }
}

impl Drop for Answered {
    fn drop(&mut self) {
        let _ = self.bench.group.close();
        self.stop.store(true, Ordering::Release);
        let _ = self.control.write(1);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// It goes on, runs another program, and that waits in its turn: whoever reads it then finds
/// it asleep where it should be, and takes the one for the other.
#[test]
fn who_was_let_go_meanwhile_is_not_named() {
    for at in [Stall::Reading, Stall::Landing] {
        let answered = Answered::new();
        let acts = answered.stalls(at, || {
            answered.touch("first");
        });
        let (told, overdue) = answered.told();
        assert!(told.is_empty(), "{at:?}: {told:?}");
        let unidentified = answered.counters.unidentified.load(Ordering::Relaxed);
        // Whom nobody had read when they were let go are not counted here.
        let all = acts + overdue;
        assert!((1..=all).contains(&unidentified), "{at:?}: {unidentified}");
    }
}

/// However many others keep the answering thread busy.
#[test]
fn who_is_not_sure_does_not_wait_as_long_as_others_come() {
    let answered = Answered::new();
    *answered.stall.lock().unwrap() = Some(Stall::Doubt);
    let dir = answered.bench.dir.path();
    let mut others: Vec<Process> = (0..8)
        .map(|number| {
            let path = dir.join(number.to_string());
            let mut other = Command::new("sh");
            other.args(["-c", "while :; do : > $0; done"]).arg(path);
            Process::spawn(&mut other)
        })
        .collect();
    let path = dir.join("doubtful");
    let mut toucher = Process::spawn(Command::new("touch").arg(path));
    let status = toucher.end(BOUND);
    for other in &mut others {
        other.signal(Signal::SIGKILL);
        other.end(BOUND);
    }
    assert!(status.success(), "it waited");
}

#[test]
fn a_key_tool_that_was_let_go_meanwhile_is_not_followed() {
    for at in [Stall::Reading, Stall::Landing] {
        let answered = Answered::new();
        let program = answered.bench.dir.path().join("tool");
        // Not by this process: what other threads start may keep it open for writing.
        let mut copy = Process::spawn(Command::new("cp").arg("/bin/true").arg(&program));
        assert!(copy.end(BOUND).success());
        let marked = File::open(&program).unwrap();
        let group = &answered.bench.group;
        group
            .mark_object(marked.as_fd(), mask::OPEN_EXEC_PERM)
            .unwrap();
        drop(marked);
        answered.stalls(at, || {
            let mut tool = Process::spawn(&mut Command::new(&program));
            assert!(tool.end(BOUND).success());
        });
        let (told, _) = answered.told();
        // As any file in the directory it can be held when it is opened, too.
        let is_opening = |held: &Held<i32>| matches!(held, Held::Opening { .. });
        assert!(told.iter().all(is_opening), "{at:?}: {told:?}");
    }
}
