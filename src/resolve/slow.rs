//! Reads that a hostile process can make wait for ever, each with a deadline.
//!
//! `/proc/PID/cmdline` reads the memory of the process: a page that lies on
//! its own FUSE file system or userfaultfd answers when it likes. Such reads
//! happen on threads of this pool; a caller waits for its deadline and goes on
//! without the answer. A stuck thread comes back when its process ends.
//!
//! Owns the threads and the queue in front of them, both bounded.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TryRecvError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// About how long it takes until a thread that is woken runs.
const WAKE_TIME: Duration = Duration::from_micros(50);

type Job = Box<dyn FnOnce() + Send>;

/// The pool.
#[derive(Clone)]
pub struct Pool {
    jobs: SyncSender<Job>,
    /// Jobs that nobody has finished yet.
    pending: Arc<AtomicUsize>,
    most: usize,
}

/// How a pool is made.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Threads, and so hostile processes that can be stuck at once before
    /// others go unread.
    pub threads: usize,
    /// Jobs that may wait for a thread besides.
    pub backlog: usize,
    /// Asks for real-time priority: the jobs are short and urgent.
    pub urgent: bool,
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
    /// Starts the threads.
    ///
    /// # Errors
    /// A thread could not be started.
    pub fn start(size: Size) -> io::Result<Self> {
        let most = size.threads + size.backlog;
        let (jobs, queue) = sync_channel::<Job>(most);
        let queue = Arc::new(Mutex::new(queue));
        let pending = Arc::new(AtomicUsize::new(0));
        for number in 0..size.threads {
            let queue = Arc::clone(&queue);
            let pending = Arc::clone(&pending);
            std::thread::Builder::new()
                .name(format!("slow-{number}"))
                .spawn(move || {
                    if size.urgent {
                        // Refused without CAP_SYS_NICE: then it takes longer.
                        let _ = crate::sys::thread::real_time(1);
                    }
                    loop {
                        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                        let Ok(job) = job else { return };
                        job();
                        pending.fetch_sub(1, Ordering::Release);
                    }
                })?;
        }
        Ok(Self {
            jobs,
            pending,
            most,
        })
    }

    /// Has `read` done by one of the threads; `None` when all are stuck.
    pub fn ask<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Option<Answer<T>> {
        // Full of stuck jobs: do not even queue, the caller would wait in vain.
        if self.pending.fetch_add(1, Ordering::Acquire) >= self.most {
            self.pending.fetch_sub(1, Ordering::Release);
            return None;
        }
        let (reply, answer) = Answer::promised();
        let job: Job = Box::new(move || {
            // The caller may have gone on without it.
            let _ = reply.send(read());
        });
        if self.jobs.try_send(job).is_err() {
            self.pending.fetch_sub(1, Ordering::Release);
            return None;
        }
        Some(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stuck_read_costs_its_deadline_and_no_more_than_its_thread() {
        let pool = Pool::start(Size {
            threads: 4,
            backlog: 0,
            urgent: false,
        })
        .unwrap();
        let mut stuck = Vec::new();
        for _ in 0..4 {
            let (release, blocked) = sync_channel::<()>(0);
            let answer = pool.ask(move || blocked.recv()).unwrap();
            let deadline = Instant::now() + Duration::from_millis(1);
            assert!(answer.until(deadline).is_none());
            stuck.push(release);
        }
        assert!(pool.ask(|| ()).is_none(), "all threads are stuck");
        drop(stuck);
        while pool.pending.load(Ordering::Acquire) > 0 {
            std::thread::yield_now();
        }
        let answer = pool.ask(|| 7).unwrap();
        assert_eq!(
            answer.until(Instant::now() + Duration::from_secs(10)),
            Some(7)
        );
    }
}
