//! The supervisor lets openers go when the answering thread does not.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ssh_keywatch::sys::fanotify::{PermissionGroup, Record, mask};
use ssh_keywatch::watch::deadline::{Deadline, LIMIT, Overdue};

/// A bound against hanging, far above the limit.
const BOUND: Duration = Duration::from_secs(20);

/// A permission group on a directory of its own, and a supervisor.
struct Bench {
    dir: tempfile::TempDir,
    group: Arc<PermissionGroup>,
    deadline: Arc<Deadline>,
    misses: Receiver<Overdue>,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let group = Arc::new(PermissionGroup::new().expect("needs root and fanotify"));
        let marked = File::open(dir.path()).unwrap();
        group
            .mark_directory(marked.as_fd(), mask::OPEN_PERM | mask::EVENT_ON_CHILD)
            .unwrap();
        let deadline = Arc::new(Deadline::new().unwrap());
        let (tell, misses) = channel();
        let (supervisor, supervised) = (Arc::clone(&deadline), Arc::clone(&group));
        let watch = deadline.watch(&group).unwrap();
        std::thread::spawn(move || {
            supervisor
                .supervise(&supervised, &watch, |miss| tell.send(miss).unwrap())
                .unwrap();
        });
        Self {
            dir,
            group,
            deadline,
            misses,
        }
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
        let mut fds = [PollFd::new(self.group.as_fd(), PollFlags::POLLIN)];
        let seconds = PollTimeout::try_from(BOUND).unwrap();
        assert_eq!(poll(&mut fds, seconds), Ok(1), "nobody was held");
        let mut taken = None;
        self.deadline.reading();
        self.group
            .read(&mut [0; 24], |record| taken = Some(record))
            .unwrap();
        let record = taken.unwrap();
        self.deadline.begin(record.fd.as_ref().unwrap().as_raw_fd());
        record
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
    let bench = Bench::new();
    let first = bench.opener("first");
    let record = bench.take_up();
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
    let bench = Bench::new();
    let opened = bench.opener("first");
    let record = bench.take_up();
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
    let bench = Bench::new();
    for number in 0..50 {
        let opened = bench.opener(&format!("file{number}"));
        let record = bench.take_up();
        bench
            .group
            .allow(record.fd.as_ref().unwrap().as_fd())
            .unwrap();
        bench.deadline.end();
        opened.recv_timeout(BOUND).expect("it still waits");
    }
    bench.deadline.stop();
    // The supervisor ends without having told anything.
    assert!(bench.misses.recv_timeout(BOUND).is_err());
}
