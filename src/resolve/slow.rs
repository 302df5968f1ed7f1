//! Reads that a hostile process can make wait for ever, each with a deadline.
//!
//! `/proc/PID/cmdline` reads the memory of the process: a page that lies on
//! its own FUSE file system or userfaultfd answers when it likes. Such reads
//! happen on threads of this pool; a caller waits for its deadline and goes on
//! without the answer. A stuck thread comes back when its process ends.
//!
//! Owns the threads and the queue in front of them, both bounded. A thread takes
//! memory also while it waits, and most of them are never needed: the last that waits
//! starts another before it reads.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::sys::affinity::Movable;

/// About how long it takes until a thread that is woken runs.
const WAKE_TIME: Duration = Duration::from_micros(50);

type Job = Box<dyn FnOnce() + Send>;

/// The pool.
#[derive(Clone)]
pub struct Pool(Arc<Owner>);

/// Ends the threads when the last who may ask is gone.
struct Owner(Arc<Queue>);

/// What waits for a thread. A channel would be shared behind a lock that its
/// threads hand to each other, which wakes one more of them for each job.
struct Queue {
    jobs: Mutex<Jobs>,
    more: Condvar,
    /// Jobs that nobody has finished yet.
    pending: AtomicUsize,
    most: usize,
    size: Size,
}

struct Jobs {
    waiting: VecDeque<Job>,
    /// Threads that there are, and how many of them wait for a job.
    threads: usize,
    idle: usize,
    is_over: bool,
}

/// How a pool is made.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// At most so many threads, and so hostile processes that can be stuck at once
    /// before others go unread.
    pub threads: usize,
    /// Jobs that may wait for a thread besides.
    pub backlog: usize,
    /// Asks for real-time priority: the jobs are short and urgent.
    pub urgent: bool,
    /// What a key tool does wakes its threads: they make room for it.
    pub movable: bool,
}

/// An answer that may come.
#[derive(Debug)]
pub struct Answer<T>(std::sync::mpsc::Receiver<T>);

impl<T> Answer<T> {
    /// One that a job gives besides its own.
    #[must_use]
    pub fn promised() -> (SyncSender<T>, Self) {
        let (reply, answer) = sync_channel(1);
        (reply, Self(answer))
    }

    /// Takes it if it is there.
    #[must_use]
    pub fn now(&self) -> Option<T> {
        self.0.try_recv().ok()
    }

    /// Waits for it until `deadline`; gives itself back if it does not come.
    ///
    /// # Errors
    /// It may still come. An answer that never will is still waited for.
    pub fn wait(self, deadline: Instant) -> Result<T, Self> {
        let left = deadline.saturating_duration_since(Instant::now());
        self.0.recv_timeout(left).map_err(|_| self)
    }

    /// Waits for it until `deadline`; at first without sleep, for where somebody
    /// waits and to be woken takes longer than the job.
    #[must_use]
    pub fn soon(self, deadline: Instant) -> Option<T> {
        let sleep = Instant::now() + WAKE_TIME;
        while Instant::now() < sleep {
            match self.0.try_recv() {
                Ok(answer) => return Some(answer),
                Err(TryRecvError::Empty) => std::hint::spin_loop(),
                Err(TryRecvError::Disconnected) => return None,
            }
        }
        self.until(deadline)
    }

    /// Waits for it until `deadline`.
    #[must_use]
    pub fn until(self, deadline: Instant) -> Option<T> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left == Duration::ZERO {
            return self.0.try_recv().ok();
        }
        self.0.recv_timeout(left).ok()
    }
}

impl Pool {
    /// Starts it, with as many threads as a job is not to wait for. The others come
    /// from these: they may do what these may.
    ///
    /// # Errors
    /// A thread could not be started.
    pub fn start(size: Size) -> io::Result<Self> {
        let most = size.threads + size.backlog;
        let queue = Arc::new(Queue {
            jobs: Mutex::new(Jobs {
                waiting: VecDeque::new(),
                threads: 0,
                idle: 0,
                is_over: false,
            }),
            more: Condvar::new(),
            pending: AtomicUsize::new(0),
            most,
            size,
        });
        let pool = Self(Arc::new(Owner(Arc::clone(&queue))));
        // To start a thread takes as long as a short job.
        let ready = if size.urgent { 2 } else { 1 };
        for number in 0..ready.min(size.threads) {
            queue.lock().count_one_more();
            queue.start(number)?;
        }
        Ok(pool)
    }

    /// Has `read` done by one of the threads; `None` when all are stuck.
    pub fn ask<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Option<Answer<T>> {
        let (reply, answer) = Answer::promised();
        let is_taken = self.run(move || {
            // The caller may have gone on without it.
            let _ = reply.send(read());
        });
        is_taken.then_some(answer)
    }

    /// Has `job` done, whose answers, if any, were promised; says whether a thread
    /// will: none does when all are stuck.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) -> bool {
        let queue = &self.0.0;
        // Full of stuck jobs: do not even queue, the caller would wait in vain.
        if queue.pending.fetch_add(1, Ordering::Acquire) >= queue.most {
            queue.pending.fetch_sub(1, Ordering::Release);
            return false;
        }
        queue.lock().waiting.push_back(Box::new(job));
        queue.more.notify_one();
        true
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a thread, which is counted already.
    fn start(self: &Arc<Self>, number: usize) -> io::Result<()> {
        let queue = Arc::clone(self);
        std::thread::Builder::new()
            .name(format!("slow-{number}"))
            .spawn(move || queue.work())?;
        Ok(())
    }

    /// What a thread does.
    fn work(self: &Arc<Self>) {
        let _movable = self.size.movable.then(Movable::new);
        if self.size.urgent {
            // Refused without CAP_SYS_NICE: then it takes longer.
            let _ = crate::sys::thread::real_time(1);
        }
        while let Some((job, another)) = self.next() {
            if let Some(number) = another
                && self.start(number).is_err()
            {
                // Who takes the next job tries again.
                self.lock().count_one_less();
            }
            job();
            self.pending.fetch_sub(1, Ordering::Release);
            self.lock().idle += 1;
        }
    }

    /// Waits for a job, to be done by a thread that counts as idle, and says which
    /// thread is to be started first, if any; `None` when there will be no more.
    fn next(&self) -> Option<(Job, Option<usize>)> {
        let mut jobs = self.lock();
        loop {
            if let Some(job) = jobs.waiting.pop_front() {
                jobs.idle -= 1;
                let another = jobs.idle == 0 && jobs.threads < self.size.threads;
                return Some((job, another.then(|| jobs.count_one_more())));
            }
            if jobs.is_over {
                return None;
            }
            jobs = self.more.wait(jobs).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Jobs {
    /// Counts a thread that is about to be started; its number.
    fn count_one_more(&mut self) -> usize {
        self.idle += 1;
        self.threads += 1;
        self.threads - 1
    }

    /// It could not be.
    fn count_one_less(&mut self) {
        self.idle -= 1;
        self.threads -= 1;
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.lock().is_over = true;
        self.0.more.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pool of at most `threads`, with nobody waiting in front of them.
    fn pool(threads: usize, urgent: bool) -> Pool {
        let size = Size {
            threads,
            backlog: 0,
            urgent,
            movable: false,
        };
        Pool::start(size).unwrap()
    }

    fn threads(pool: &Pool) -> usize {
        pool.0.0.lock().threads
    }

    /// Occupies a thread until what it gives back is dropped.
    fn stick(pool: &Pool) -> SyncSender<()> {
        let (release, blocked) = sync_channel::<()>(0);
        let (begin, begun) = sync_channel(0);
        let answer = pool.ask(move || {
            begin.send(()).unwrap();
            blocked.recv()
        });
        begun.recv().unwrap();
        let deadline = Instant::now() + Duration::from_millis(1);
        assert!(answer.unwrap().until(deadline).is_none());
        release
    }

    #[test]
    fn a_stuck_read_costs_its_deadline_and_no_more_than_its_thread() {
        let pool = pool(4, false);
        let stuck: Vec<_> = (0..4).map(|_| stick(&pool)).collect();
        assert!(pool.ask(|| ()).is_none(), "all threads are stuck");
        drop(stuck);
        while pool.0.0.pending.load(Ordering::Acquire) > 0 {
            std::thread::yield_now();
        }
        let answer = pool.ask(|| 7).unwrap();
        assert_eq!(
            answer.until(Instant::now() + Duration::from_secs(10)),
            Some(7)
        );
    }

    #[test]
    fn threads_are_started_when_they_are_needed() {
        for (urgent, ready) in [(false, 1), (true, 2)] {
            let pool = pool(4, urgent);
            assert_eq!(threads(&pool), ready);
            let mut stuck = Vec::new();
            // One always waits, as long as there may be one more.
            for expected in [2, 3, 4, 4] {
                stuck.push(stick(&pool));
                assert_eq!(threads(&pool), expected);
            }
            assert!(pool.ask(|| ()).is_none(), "all threads are stuck");
        }
        // Those that are there do what comes one after the other.
        let pool = pool(4, true);
        for number in 0..100 {
            let answer = pool.ask(move || number).unwrap();
            let deadline = Instant::now() + Duration::from_secs(60);
            assert_eq!(answer.until(deadline), Some(number));
            // The answer comes before its thread waits again.
            while pool.0.0.lock().idle < 2 {
                std::thread::yield_now();
            }
        }
        assert_eq!(threads(&pool), 2);
    }
}
