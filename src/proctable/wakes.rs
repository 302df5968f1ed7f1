//! The moments of acts on a kernel without kprobes, from who wakes a thread.
//!
//! Some threads, the sentinels, do nothing but sleep on the queue of records,
//! edge-triggered: whoever puts a record there wakes one of them, in the very
//! system call that is the act, and the kernel samples by whom and when. An act
//! that comes while all of them are awake, or wait for a processor, is not sampled.
//! Hence the counts decide: where a process has put as many records into the queue
//! as it woke sentinels, between two moments at which the queue was found empty,
//! these are the moments of its acts. Where the counts differ nothing is known of it.
//!
//! Owns the sentinels and the counting; the counting is pure.

use std::collections::HashMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread::JoinHandle;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::record::Time;
use crate::sys::affinity::Movable;
use crate::sys::thread;

/// How many samples, and how many distrusted processes, are kept.
const MAX_KEPT: usize = 16 * 1024;
/// How many sentinels there are. One that was waked may have to wait for its
/// processor, in a virtual machine for some milliseconds.
const SENTINELS: usize = 4;
/// How long a process is distrusted whose counts differed: a waking that was
/// sampled late must not stand for another that was not sampled at all.
const DISTRUST: Time = 10_000_000_000;

/// The counting.
#[derive(Debug, Default)]
pub struct Wakes {
    samples: Vec<(Time, i32)>,
    /// How many records of each process were read since the queue was empty.
    read: HashMap<i32, usize>,
    /// First and last act of those whose counts agree.
    known: HashMap<i32, [Time; 2]>,
    distrusted: HashMap<i32, Time>,
    /// Nobody is trusted until then: too much had to be forgotten.
    blind: Time,
}

impl Wakes {
    /// Process `pid` woke a sentinel.
    pub fn sampled(&mut self, time: Time, pid: i32) {
        self.samples.push((time, pid));
    }

    /// A record of process `pid` was read.
    pub fn read(&mut self, pid: i32) {
        *self.read.entry(pid).or_default() += 1;
    }

    /// The queue was found empty by a reading that began at `end`: every
    /// record that was put there before has been read, and every sample is here.
    pub fn close(&mut self, end: Time) {
        self.known.clear();
        let mut counted: HashMap<i32, (usize, [Time; 2])> = HashMap::new();
        self.samples.retain(|(time, pid)| {
            if *time > end {
                return true;
            }
            let (count, [first, last]) = counted.entry(*pid).or_insert((0, [*time; 2]));
            *count += 1;
            *first = (*first).min(*time);
            *last = (*last).max(*time);
            false
        });
        self.distrusted
            .retain(|_, since| since.saturating_add(DISTRUST) > end);
        for (pid, read) in self.read.drain() {
            match counted.remove(&pid) {
                Some((count, moments)) if count == read => {
                    if !self.distrusted.contains_key(&pid) && end >= self.blind {
                        self.known.insert(pid, moments);
                    }
                }
                _ => {
                    self.distrusted.insert(pid, end);
                }
            }
        }
        for pid in counted.into_keys() {
            self.distrusted.insert(pid, end);
        }
        if self.samples.len() > MAX_KEPT || self.distrusted.len() > MAX_KEPT {
            self.samples.clear();
            self.distrusted.clear();
            self.known.clear();
            self.blind = end.saturating_add(DISTRUST);
        }
    }

    /// The queue was not read to its end: which wakings belong to the records that were
    /// read, and which to those that still wait, is not known, and of former records
    /// nothing holds for these.
    pub fn leave_open(&mut self) {
        self.known.clear();
    }

    /// The first and the last act of process `pid`, if all of them are known.
    #[must_use]
    pub fn moments(&self, pid: i32) -> Option<&[Time; 2]> {
        self.known.get(&pid)
    }
}

/// The threads that are waked.
#[derive(Debug)]
pub struct Sentinels {
    tids: Vec<i32>,
    stop: Arc<AtomicBool>,
    control: Arc<EventFd>,
    threads: Vec<JoinHandle<()>>,
}

impl Sentinels {
    /// Starts them on `queue`.
    ///
    /// # Errors
    /// The errno of epoll(7), eventfd(2) or clone(2).
    pub fn start(queue: BorrowedFd<'_>) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0);
        epoll.add(queue, event)?;
        let control = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        epoll.add(&control, event)?;
        let epoll = Arc::new(epoll);
        // What ends those that have been started, should the next one fail.
        let mut sentinels = Self {
            tids: Vec::new(),
            stop: Arc::default(),
            control: Arc::new(control),
            threads: Vec::new(),
        };
        let (tell, told) = channel();
        for _ in 0..SENTINELS {
            let (epoll, tell) = (Arc::clone(&epoll), tell.clone());
            let stop = Arc::clone(&sentinels.stop);
            let control = Arc::clone(&sentinels.control);
            let thread = std::thread::Builder::new()
                .name("sentinel".to_owned())
                .spawn(move || {
                    // It must be asleep again before the next act. Refused without
                    // CAP_SYS_NICE: then fewer acts are sampled.
                    let _ = thread::real_time(3);
                    let _movable = Movable::new();
                    let _ = tell.send(thread::current_id());
                    let mut events = [EpollEvent::empty(); 2];
                    while !stop.load(Ordering::Acquire) {
                        // Each event wakes one of those that sleep here.
                        match epoll.wait(&mut events, EpollTimeout::NONE) {
                            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                            Err(_) => break,
                        }
                    }
                    let _ = control.write(1);
                })?;
            sentinels.threads.push(thread);
            sentinels.tids.push(told.recv().map_err(io::Error::other)?);
        }
        Ok(sentinels)
    }

    /// Their thread ids.
    #[must_use]
    pub fn tids(&self) -> &[i32] {
        &self.tids
    }
}

impl Drop for Sentinels {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Each that ends wakes the next one.
        let _ = self.control.write(1);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acts_are_known_where_the_counts_agree() {
        let mut wakes = Wakes::default();
        for (time, pid) in [(10, 1), (20, 1), (15, 2), (17, 3)] {
            wakes.sampled(time, pid);
        }
        // The second act of process 2 was not sampled, of 3 no record was read.
        for pid in [1, 1, 2, 2, 4] {
            wakes.read(pid);
        }
        wakes.close(100);
        assert_eq!(wakes.moments(1), Some(&[10, 20]));
        for pid in 2..=4 {
            assert_eq!(wakes.moments(pid), None);
        }
        wakes.close(200);
        assert_eq!(wakes.moments(1), None);
    }

    #[test]
    fn a_former_act_says_nothing_of_a_record_behind_which_more_wait() {
        let mut wakes = Wakes::default();
        wakes.sampled(10, 1);
        wakes.read(1);
        wakes.close(100);
        assert_eq!(wakes.moments(1), Some(&[10, 10]));
        // Another process has the number by now; of its two records one was read.
        wakes.sampled(110, 1);
        wakes.sampled(120, 1);
        wakes.read(1);
        wakes.leave_open();
        assert_eq!(wakes.moments(1), None);
        wakes.read(1);
        wakes.close(200);
        assert_eq!(wakes.moments(1), Some(&[110, 120]));
    }

    #[test]
    fn a_late_sample_does_not_stand_for_one_that_is_missing() {
        let mut wakes = Wakes::default();
        wakes.read(1);
        wakes.sampled(101, 1);
        wakes.close(100);
        assert_eq!(wakes.moments(1), None);
        // Its second act, at 150, was not sampled; the sample is of the first.
        wakes.read(1);
        wakes.close(200);
        assert_eq!(wakes.moments(1), None);
        wakes.read(1);
        wakes.sampled(DISTRUST + 300, 1);
        wakes.close(DISTRUST + 400);
        assert!(wakes.moments(1).is_some());
    }

    #[test]
    fn nobody_is_trusted_after_too_much() {
        let mut wakes = Wakes::default();
        for pid in 0..=i32::try_from(MAX_KEPT).unwrap() {
            wakes.read(pid + 10);
        }
        wakes.close(100);
        let agree = |wakes: &mut Wakes, time| {
            wakes.sampled(time, 1);
            wakes.read(1);
            wakes.close(time);
            wakes.moments(1).is_some()
        };
        assert!(!agree(&mut wakes, 200));
        assert!(agree(&mut wakes, DISTRUST + 200));
    }

    /// How often the thread went to sleep by itself (`proc_pid_status(5)`).
    fn sleeps(tid: i32) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/self/task/{tid}/status")).unwrap();
        let line = |line: &str| Some(line.strip_prefix("voluntary_ctxt_switches:")?.to_owned());
        let count = status.lines().find_map(line).unwrap();
        count.trim().parse().unwrap()
    }

    #[test]
    fn each_act_wakes_one_sentinel() {
        let queue = EventFd::new().unwrap();
        let sentinels = Sentinels::start(std::os::fd::AsFd::as_fd(&queue)).unwrap();
        let all = || -> Vec<u64> { sentinels.tids().iter().map(|tid| sleeps(*tid)).collect() };
        let sum = |counts: &[u64]| counts.iter().sum::<u64>();
        let begun = std::time::Instant::now();
        let wait = |what, is_so: &dyn Fn() -> bool| {
            while !is_so() {
                assert!(begun.elapsed().as_secs() < 20, "{what}");
                std::thread::yield_now();
            }
        };
        let are_asleep = || sentinels.tids().iter().all(|tid| is_asleep(*tid));
        // They sleep a moment after they have said who they are.
        wait("they do not go to sleep", &are_asleep);
        let before = sum(&all());
        for number in 1..=20 {
            queue.write(1).unwrap();
            wait("none was waked", &|| sum(&all()) >= before + number);
            wait("it does not go to sleep again", &are_asleep);
            assert_eq!(sum(&all()), before + number);
        }
    }

    fn is_asleep(tid: i32) -> bool {
        let wchan = std::fs::read_to_string(format!("/proc/self/task/{tid}/wchan"));
        wchan.is_ok_and(|name| name.contains("poll"))
    }

    #[test]
    fn sentinels_end_when_they_are_dropped() {
        let queue = EventFd::new().unwrap();
        let sentinels = Sentinels::start(std::os::fd::AsFd::as_fd(&queue)).unwrap();
        let tids = sentinels.tids().to_vec();
        assert_eq!(tids.len(), SENTINELS);
        assert!(tids.iter().all(|tid| thread::is_own(*tid)));
        let begun = std::time::Instant::now();
        drop(sentinels);
        // The kernel takes a thread off its list a moment after it was joined.
        while tids.iter().any(|tid| thread::is_own(*tid)) {
            assert!(begun.elapsed().as_secs() < 20, "one goes on");
            std::thread::yield_now();
        }
    }
}
