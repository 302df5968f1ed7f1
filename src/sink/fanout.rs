//! From one sender to all sinks, without ever waiting for one.
//!
//! Owns one thread and one bounded queue a sink, the spool of lines that a sink
//! could not take, and the counters. Must not look into a document beyond its
//! urgency. Fails by sink:
//!
//! | what | then | counted as |
//! |---|---|---|
//! | one call takes longer than [`HANG_AFTER`] | lines wait in the queue | – |
//! | the queue is full, in lines or bytes | the line passes this sink by | dropped |
//! | a write errs | spooled, offered again with each line and each second | failed |
//! | the spool is full | the newest line passes by: the first ones show how it began | dropped |
//! | `BrokenPipe` | the sink is stopped for good | – |
//!
//! Each change of state is said once, through tracing on a thread of its own
//! (standard error may be the very thing that hangs), and kept for the daemon,
//! which makes `pipeline_error` lines of it ([`Fanout::take_reports`]).

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{self, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::receipt::{Receipt, Slip};
use super::report::{Report, ReportKind, Reports, SinkState, SinkStatus};
use super::worker::Worker;
use super::{Line, Sink};
use crate::queue;
use crate::sys::affinity::Movable;

/// Lines that may wait for one sink's thread, and bytes of JSON: users make
/// documents as long as their arguments and names are.
const QUEUE: usize = 4096;
const QUEUE_BYTES: u64 = 16 << 20;

/// A sink that is at one call for so long hangs, as a disk does that does not
/// answer, or a terminal that is stopped (`Ctrl-S`).
const HANG_AFTER: Duration = Duration::from_secs(10);

/// All sinks, each on its own thread.
#[derive(Debug)]
pub struct Fanout {
    lanes: Vec<Lane>,
    reports: Reports,
    /// So many bytes may wait for each.
    bytes: u64,
}

#[derive(Debug)]
struct Lane {
    queue: queue::Sender<Order>,
    is_record: bool,
    shared: Arc<Shared>,
    /// Disconnects when the thread has ended.
    done: Mutex<mpsc::Receiver<()>>,
}

#[derive(Debug)]
pub(super) enum Order {
    Line(Line, Option<Slip>),
    /// Look at the flags.
    Wake,
}

/// What a sink's thread and everybody else look at together.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) name: &'static str,
    /// Lines in the queue.
    pub(super) queued: AtomicU64,
    /// Bytes of these.
    pub(super) queued_bytes: AtomicU64,
    pub(super) spooled: AtomicU64,
    pub(super) written: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) failing: AtomicBool,
    pub(super) stopped: AtomicBool,
    pub(super) reopen: AtomicBool,
    pub(super) closing: AtomicBool,
    /// Only ever held for a moment.
    pub(super) outage: Mutex<Outage>,
}

#[derive(Debug, Default)]
pub(super) struct Outage {
    pub(super) last_error: Option<String>,
    /// The queue was full and has not been empty since: when that began, and
    /// what had been dropped before.
    pub(super) overrun: Option<(SystemTime, u64)>,
    /// Since when the thread is at its present work.
    pub(super) busy_since: Option<Instant>,
    /// That is too long, and has been told; as in `overrun`.
    pub(super) hang: Option<(SystemTime, u64)>,
}

/// A panic of another holder is no reason not to go on: nothing is left half done.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fanout {
    /// Starts a thread for each sink.
    pub fn start(sinks: Vec<Box<dyn Sink>>) -> io::Result<Self> {
        Self::with_queue(sinks, QUEUE, QUEUE_BYTES)
    }

    fn with_queue(sinks: Vec<Box<dyn Sink>>, capacity: usize, bytes: u64) -> io::Result<Self> {
        let reports = Reports::start()?;
        let mut lanes = Vec::with_capacity(sinks.len());
        for sink in sinks {
            let (queue, orders) = queue::bounded(capacity);
            let (ended, done) = mpsc::channel::<()>();
            let shared = Arc::new(Shared {
                name: sink.name(),
                ..Shared::default()
            });
            let is_record = sink.is_record();
            let worker = Worker::new(sink, orders, Arc::clone(&shared), reports.clone());
            thread::Builder::new()
                .name(format!("sink-{}", shared.name))
                .spawn(move || {
                    let _movable = Movable::new();
                    worker.run();
                    drop(ended);
                })?;
            lanes.push(Lane {
                queue,
                is_record,
                shared,
                done: Mutex::new(done),
            });
        }
        Ok(Self {
            lanes,
            reports,
            bytes,
        })
    }

    /// Hands a line to every sink. Never blocks, writes, or allocates by the
    /// length of the line.
    pub fn send(&self, line: &Line) {
        self.send_with(line, None);
    }

    /// The same; `receipt` tells whether the log has the line for good. Without
    /// a log it is lost.
    pub fn send_for(&self, line: &Line, receipt: &Receipt) {
        self.send_with(line, Some(receipt.slip()));
    }

    fn send_with(&self, line: &Line, mut slip: Option<Slip>) {
        for lane in &self.lanes {
            let shared = &lane.shared;
            if shared.stopped.load(SeqCst) {
                continue;
            }
            shared.queued.fetch_add(1, SeqCst);
            let bytes = line.json.len() as u64;
            let before = shared.queued_bytes.fetch_add(bytes, SeqCst);
            let sent = if shared.closing.load(SeqCst) {
                Err(TrySendError::Disconnected(Order::Wake))
            } else if before > 0 && before + bytes > self.bytes {
                Err(TrySendError::Full(Order::Wake))
            } else {
                let slip = slip.take_if(|_| lane.is_record);
                lane.queue.try_send(Order::Line(line.clone(), slip))
            };
            let Err(refused) = sent else { continue };
            shared.queued_bytes.fetch_sub(bytes, SeqCst);
            shared.queued.fetch_sub(1, SeqCst);
            let before = shared.dropped.fetch_add(1, SeqCst);
            if matches!(refused, TrySendError::Full(_)) {
                let mut outage = lock(&shared.outage);
                if outage.overrun.is_none() {
                    outage.overrun = Some((SystemTime::now(), before));
                    self.reports.push(shared.name, ReportKind::Overrun);
                }
            }
        }
    }

    /// Asks every sink to open its file anew, as soon as it gets to it.
    pub fn reopen(&self) {
        for lane in &self.lanes {
            lane.shared.reopen.store(true, SeqCst);
            lane.wake();
        }
    }

    /// How every sink fares.
    #[must_use]
    pub fn counters(&self) -> Vec<SinkStatus> {
        self.lanes.iter().map(|lane| lane.shared.status()).collect()
    }

    /// Whether the sink that receipts are given for takes what it is sent.
    #[must_use]
    pub fn is_record_well(&self) -> bool {
        let mut records = self.lanes.iter().filter(|lane| lane.is_record);
        records.all(|lane| {
            let status = lane.shared.status();
            status.state == SinkState::Ok && status.waiting == 0
        })
    }

    /// What the sinks had to tell since the last call, oldest first.
    #[must_use]
    pub fn take_reports(&self) -> Vec<Report> {
        self.look_for_hangs(HANG_AFTER);
        self.reports.take()
    }

    fn look_for_hangs(&self, after: Duration) {
        for Lane { shared, .. } in &self.lanes {
            let mut outage = lock(&shared.outage);
            let busy = outage.busy_since.map(|since| since.elapsed());
            let Some(busy) = busy.filter(|busy| *busy >= after && outage.hang.is_none()) else {
                continue;
            };
            let since = SystemTime::now().checked_sub(busy);
            let since = since.unwrap_or(SystemTime::UNIX_EPOCH);
            outage.hang = Some((since, shared.dropped.load(SeqCst)));
            outage.last_error = Some("it hangs".to_owned());
            drop(outage);
            self.reports.push(shared.name, ReportKind::Hanging { busy });
        }
    }

    /// Lets every sink write what waits for it and ends their threads. What is
    /// not done by the deadline is left behind, and stands under `waiting` in
    /// the result. Lines sent from now on are dropped.
    #[must_use = "it tells what was left behind"]
    pub fn shutdown(&self, deadline: Duration) -> Vec<SinkStatus> {
        let end = Instant::now() + deadline;
        for lane in &self.lanes {
            lane.shared.closing.store(true, SeqCst);
            lane.wake();
        }
        for lane in &self.lanes {
            let left = end.saturating_duration_since(Instant::now());
            // Nothing is ever sent: it times out, or the thread has ended.
            let _ = lock(&lane.done).recv_timeout(left);
        }
        self.counters()
    }
}

impl Lane {
    fn wake(&self) {
        // A full queue means that the thread will look by itself.
        let _ = self.queue.try_send(Order::Wake);
    }
}

impl Shared {
    fn status(&self) -> SinkStatus {
        let outage = lock(&self.outage);
        let state = if self.stopped.load(SeqCst) {
            SinkState::Stopped
        } else if self.failing.load(SeqCst) || outage.overrun.is_some() || outage.hang.is_some() {
            SinkState::Failing
        } else {
            SinkState::Ok
        };
        SinkStatus {
            name: self.name,
            state,
            written: self.written.load(SeqCst),
            failed: self.failed.load(SeqCst),
            dropped: self.dropped.load(SeqCst),
            waiting: self.queued.load(SeqCst) + self.spooled.load(SeqCst),
            last_error: outage.last_error.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
