//! From one sender to all sinks, without ever waiting for one.
//!
//! Owns one thread and one bounded queue a sink, the spool of lines that a sink
//! could not take, and the counters. Must not look into a document beyond its
//! urgency. Fails by sink:
//!
//! | what | then | counted as |
//! |---|---|---|
//! | the queue is full (the sink hangs) | the line passes this sink by | dropped |
//! | a write errs | spooled, offered again with each line and each second | failed |
//! | the spool is full | the newest line passes by: the first ones show how it began | dropped |
//! | `BrokenPipe` | the sink is stopped for good | – |
//!
//! Each change of state is said once, through tracing on a thread of its own
//! (standard error may be the very thing that hangs), and kept for the daemon,
//! which makes `pipeline_error` lines of it ([`Fanout::take_reports`]).

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::{Line, SETTLE_AFTER, Sink, Spool};

/// Lines that may wait for one sink's thread.
const QUEUE: usize = 4096;

/// Reports kept for the daemon; older ones go first.
const REPORTS: usize = 256;

/// Whether a sink does its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinkState {
    /// The last thing it was asked to do, it did.
    Ok,
    /// It errs, or its queue is full.
    Failing,
    /// Its reader has gone; nothing is sent to it any more.
    Stopped,
}

impl SinkState {
    /// `ok`, `failing` or `stopped`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failing => "failing",
            Self::Stopped => "stopped",
        }
    }
}

/// One sink's counters since the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkStatus {
    /// The sink's name.
    pub name: &'static str,
    /// Whether it works.
    pub state: SinkState,
    /// Lines written.
    pub written: u64,
    /// Lines that could not be written when they came; some were, later.
    pub failed: u64,
    /// Lines that this sink will never have.
    pub dropped: u64,
    /// Lines that wait: in its queue, or in its spool for a better time.
    pub waiting: u64,
    /// The last error, if there ever was one.
    pub last_error: Option<String>,
}

/// Something a sink has to tell, at most once a change of state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// When.
    pub time: SystemTime,
    /// Which sink.
    pub sink: &'static str,
    /// What.
    pub kind: ReportKind,
}

/// What a [`Report`] tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReportKind {
    /// It cannot write; lines are kept as far as the spool goes.
    Failing {
        /// Why.
        error: String,
    },
    /// Its queue is full: it hangs, or too much comes at once.
    Overrun,
    /// It works again.
    Recovered {
        /// Lines dropped since it failed, gone for this sink.
        dropped: u64,
        /// When it had failed.
        since: SystemTime,
    },
    /// Its reader has gone; it will not be asked again.
    Stopped,
    /// Something to know, with nothing failing: a torn line was repaired.
    Note {
        /// What.
        text: String,
    },
}

impl Report {
    /// The report as a sentence.
    #[must_use]
    pub fn message(&self) -> String {
        let sink = self.sink;
        match &self.kind {
            ReportKind::Failing { error } => format!("sink {sink} cannot write: {error}"),
            ReportKind::Overrun => {
                format!("sink {sink} hangs or is too slow: its queue is full, lines are dropped")
            }
            ReportKind::Recovered { dropped, .. } => {
                format!("sink {sink} writes again; lines lost: {dropped}")
            }
            ReportKind::Stopped => format!("sink {sink} is closed: nobody reads it any more"),
            ReportKind::Note { text } => format!("sink {sink}: {text}"),
        }
    }
}

/// All sinks, each on its own thread.
#[derive(Debug)]
pub struct Fanout {
    lanes: Vec<Lane>,
    reports: Reports,
}

#[derive(Debug)]
struct Lane {
    queue: SyncSender<Order>,
    shared: Arc<Shared>,
    /// Disconnects when the thread has ended.
    done: Mutex<Receiver<()>>,
}

#[derive(Debug)]
enum Order {
    Line(Line),
    /// Look at the flags.
    Wake,
}

/// What a sink's thread and everybody else look at together.
#[derive(Debug)]
struct Shared {
    name: &'static str,
    /// Lines in the queue.
    queued: AtomicU64,
    spooled: AtomicU64,
    written: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
    failing: AtomicBool,
    stopped: AtomicBool,
    reopen: AtomicBool,
    closing: AtomicBool,
    /// Only ever held for a moment.
    outage: Mutex<Outage>,
}

#[derive(Debug, Default)]
struct Outage {
    last_error: Option<String>,
    /// The queue was full and has not been empty since: when that began, and
    /// what had been dropped before.
    overrun: Option<(SystemTime, u64)>,
}

#[derive(Clone, Debug)]
struct Reports {
    kept: Arc<Mutex<VecDeque<Report>>>,
    voice: SyncSender<Report>,
}

impl Reports {
    /// Never waits.
    fn push(&self, sink: &'static str, kind: ReportKind) {
        let report = Report {
            time: SystemTime::now(),
            sink,
            kind,
        };
        // Where the voice is stuck, the report is still kept below.
        let _ = self.voice.try_send(report.clone());
        let mut kept = lock(&self.kept);
        if kept.len() == REPORTS {
            kept.pop_front();
        }
        kept.push_back(report);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fanout {
    /// Starts a thread for each sink.
    pub fn start(sinks: Vec<Box<dyn Sink>>) -> io::Result<Self> {
        Self::with_queue(sinks, QUEUE)
    }

    fn with_queue(sinks: Vec<Box<dyn Sink>>, capacity: usize) -> io::Result<Self> {
        let (voice, said) = mpsc::sync_channel::<Report>(REPORTS);
        // Ends when the fan-out and every sink's thread have gone.
        thread::Builder::new()
            .name("sink-voice".to_owned())
            .spawn(move || {
                for report in said {
                    let message = report.message();
                    match report.kind {
                        ReportKind::Failing { .. } | ReportKind::Overrun => {
                            tracing::error!("{message}")
                        }
                        ReportKind::Note { .. } => tracing::warn!("{message}"),
                        ReportKind::Recovered { .. } | ReportKind::Stopped => {
                            tracing::info!("{message}")
                        }
                    }
                }
            })?;
        let reports = Reports {
            kept: Arc::default(),
            voice,
        };
        let mut lanes = Vec::with_capacity(sinks.len());
        for sink in sinks {
            let (queue, orders) = mpsc::sync_channel(capacity);
            let (ended, done) = mpsc::channel::<()>();
            let shared = Arc::new(Shared {
                name: sink.name(),
                queued: AtomicU64::new(0),
                spooled: AtomicU64::new(0),
                written: AtomicU64::new(0),
                failed: AtomicU64::new(0),
                dropped: AtomicU64::new(0),
                failing: AtomicBool::new(false),
                stopped: AtomicBool::new(false),
                reopen: AtomicBool::new(false),
                closing: AtomicBool::new(false),
                outage: Mutex::default(),
            });
            let limit = sink.spool();
            let worker = Worker {
                sink,
                orders,
                shared: Arc::clone(&shared),
                reports: reports.clone(),
                limit,
                spool: VecDeque::new(),
                spool_bytes: 0,
                failing_since: None,
                settle_at: None,
            };
            thread::Builder::new()
                .name(format!("sink-{}", shared.name))
                .spawn(move || {
                    worker.run();
                    drop(ended);
                })?;
            lanes.push(Lane {
                queue,
                shared,
                done: Mutex::new(done),
            });
        }
        Ok(Self { lanes, reports })
    }

    /// Hands a line to every sink. Never blocks, writes, or allocates by the
    /// length of the line.
    pub fn send(&self, line: &Line) {
        for lane in &self.lanes {
            let shared = &lane.shared;
            if shared.stopped.load(SeqCst) {
                continue;
            }
            shared.queued.fetch_add(1, SeqCst);
            let sent = if shared.closing.load(SeqCst) {
                Err(TrySendError::Disconnected(Order::Wake))
            } else {
                lane.queue.try_send(Order::Line(line.clone()))
            };
            let Err(refused) = sent else { continue };
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

    /// What the sinks had to tell since the last call, oldest first.
    #[must_use]
    pub fn take_reports(&self) -> Vec<Report> {
        lock(&self.reports.kept).drain(..).collect()
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
        } else if self.failing.load(SeqCst) || outage.overrun.is_some() {
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

/// One sink's thread.
struct Worker {
    sink: Box<dyn Sink>,
    orders: Receiver<Order>,
    shared: Arc<Shared>,
    reports: Reports,
    limit: Spool,
    /// Lines that the sink could not take yet, oldest first.
    spool: VecDeque<Line>,
    spool_bytes: usize,
    /// When the present failure began, and what had been dropped before.
    failing_since: Option<(SystemTime, u64)>,
    /// When the sink wants to be settled, or the spool to be tried again.
    settle_at: Option<Instant>,
}

impl Worker {
    fn run(mut self) {
        self.tell_notes();
        loop {
            let order = match self.settle_at {
                None => self
                    .orders
                    .recv()
                    .map_err(|_| RecvTimeoutError::Disconnected),
                Some(at) => self
                    .orders
                    .recv_timeout(at.saturating_duration_since(Instant::now())),
            };
            match order {
                Ok(Order::Line(line)) => self.take(line),
                Ok(Order::Wake) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if self.shared.reopen.swap(false, SeqCst) {
                if let Err(error) = self.sink.reopen() {
                    self.fail(&error);
                    self.settle_soon();
                }
                self.tell_notes();
            }
            if self.settle_at.is_some_and(|at| at <= Instant::now()) {
                self.settle();
            }
            self.end_overrun();
            if self.shared.closing.load(SeqCst) {
                break;
            }
        }
        while let Ok(order) = self.orders.try_recv() {
            if let Order::Line(line) = order {
                self.take(line);
            }
        }
        self.settle();
        self.end_overrun();
    }

    /// A line from the queue: written, or spooled, or dropped.
    fn take(&mut self, line: Line) {
        let urgent = line.is_urgent();
        if !self.shared.stopped.load(SeqCst) {
            // The spool first, or the order of the log would not be that of events.
            if !self.flush_spool() {
                self.keep(line);
            } else if let Err(error) = self.sink.write(&line) {
                self.fail(&error);
                self.keep(line);
            } else {
                self.shared.written.fetch_add(1, SeqCst);
            }
            self.tell_notes();
            // While it fails, the next try is due by the clock and the next line.
            if urgent && self.failing_since.is_none() {
                self.settle();
            } else {
                self.settle_soon();
            }
        }
        // Last, so that no line is ever in no count.
        self.shared.queued.fetch_sub(1, SeqCst);
    }

    /// Puts a line by that cannot be written now.
    fn keep(&mut self, line: Line) {
        if self.shared.stopped.load(SeqCst) {
            return;
        }
        self.shared.failed.fetch_add(1, SeqCst);
        let bytes = self.spool_bytes + line.json.len();
        if self.spool.len() < self.limit.lines && bytes <= self.limit.bytes {
            self.spool_bytes = bytes;
            self.spool.push_back(line);
            self.shared.spooled.fetch_add(1, SeqCst);
        } else {
            self.shared.dropped.fetch_add(1, SeqCst);
        }
    }

    /// Offers the spooled lines again; true if none is left.
    fn flush_spool(&mut self) -> bool {
        while let Some(line) = self.spool.front() {
            if let Err(error) = self.sink.write(line) {
                self.fail(&error);
                return false;
            }
            self.spool_bytes -= line.json.len();
            self.spool.pop_front();
            self.shared.written.fetch_add(1, SeqCst);
            self.shared.spooled.fetch_sub(1, SeqCst);
        }
        true
    }

    fn settle_soon(&mut self) {
        if self.settle_at.is_none() {
            self.settle_at = Some(Instant::now() + SETTLE_AFTER);
        }
    }

    /// Tries the spool and makes durable what was written. Only here is a sink
    /// found well again: a write that the disk then refuses is no recovery.
    fn settle(&mut self) {
        self.settle_at = None;
        if self.shared.stopped.load(SeqCst) {
            return;
        }
        let flushed = self.flush_spool();
        match self.sink.settle() {
            Err(error) => self.fail(&error),
            Ok(()) if flushed => self.recover(),
            Ok(()) => {}
        }
        self.tell_notes();
        if !self.spool.is_empty() {
            self.settle_soon();
        }
    }

    /// Notes an error, and tells it if the sink was well before.
    fn fail(&mut self, error: &io::Error) {
        let shared = &self.shared;
        if error.kind() == io::ErrorKind::BrokenPipe {
            shared.stopped.store(true, SeqCst);
            shared.spooled.store(0, SeqCst);
            self.spool.clear();
            self.reports.push(shared.name, ReportKind::Stopped);
            return;
        }
        let error = error.to_string();
        lock(&shared.outage).last_error = Some(error.clone());
        if self.failing_since.is_none() {
            self.failing_since = Some((SystemTime::now(), shared.dropped.load(SeqCst)));
            shared.failing.store(true, SeqCst);
            self.reports
                .push(shared.name, ReportKind::Failing { error });
        }
    }

    /// Tells that the sink is well, if it was not.
    fn recover(&mut self) {
        if let Some((since, before)) = self.failing_since.take() {
            self.shared.failing.store(false, SeqCst);
            let dropped = self.shared.dropped.load(SeqCst).saturating_sub(before);
            self.reports
                .push(self.shared.name, ReportKind::Recovered { dropped, since });
        }
    }

    /// The queue has been emptied after it had been full.
    fn end_overrun(&self) {
        if self.shared.queued.load(SeqCst) > 0 {
            return;
        }
        let begun = lock(&self.shared.outage).overrun.take();
        if let Some((since, before)) = begun {
            let dropped = self.shared.dropped.load(SeqCst).saturating_sub(before);
            self.reports
                .push(self.shared.name, ReportKind::Recovered { dropped, since });
        }
    }

    fn tell_notes(&mut self) {
        for text in self.sink.notes() {
            self.reports
                .push(self.shared.name, ReportKind::Note { text });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const LONG: Duration = Duration::from_secs(60);

    fn line(n: u64, severity: u64) -> Line {
        Line::new(
            json!({"n": n, "event": {"severity": severity}})
                .as_object()
                .unwrap()
                .clone(),
        )
    }

    fn n(line: &Line) -> u64 {
        super::super::number(&line.document, "n").unwrap()
    }

    fn wait_until(mut condition: impl FnMut() -> bool) {
        let end = Instant::now() + LONG;
        while !condition() {
            assert!(Instant::now() < end, "it never came about");
            thread::yield_now();
        }
    }

    #[derive(Debug, PartialEq)]
    enum Call {
        Wrote(u64),
        Refused(u64),
        Settled,
        Reopened,
    }

    /// Does what it is told and tells what it did.
    struct Fake {
        calls: mpsc::Sender<Call>,
        error: Arc<Mutex<Option<io::ErrorKind>>>,
        /// Each write waits for one permit, if there is a gate.
        gate: Option<Receiver<()>>,
        spool: Spool,
    }

    struct Remote {
        calls: Receiver<Call>,
        error: Arc<Mutex<Option<io::ErrorKind>>>,
    }

    impl Remote {
        fn next(&self) -> Call {
            self.calls.recv_timeout(LONG).unwrap()
        }

        /// The next call that is not a settling by the clock.
        fn next_write(&self) -> Call {
            loop {
                let call = self.next();
                if call != Call::Settled {
                    return call;
                }
            }
        }

        fn set(&self, error: Option<io::ErrorKind>) {
            *self.error.lock().unwrap() = error;
        }
    }

    fn fake(gate: Option<Receiver<()>>, spool: Spool) -> (Box<dyn Sink>, Remote) {
        let (sender, calls) = mpsc::channel();
        let error = Arc::new(Mutex::new(None));
        let sink = Fake {
            calls: sender,
            error: Arc::clone(&error),
            gate,
            spool,
        };
        (Box::new(sink), Remote { calls, error })
    }

    impl Fake {
        fn tell(&self, call: Call) {
            let _ = self.calls.send(call);
        }
    }

    impl Sink for Fake {
        fn name(&self) -> &'static str {
            "fake"
        }
        fn write(&mut self, line: &Line) -> io::Result<()> {
            let error = *self.error.lock().unwrap();
            self.tell(if error.is_some() {
                Call::Refused(n(line))
            } else {
                Call::Wrote(n(line))
            });
            if let Some(gate) = &self.gate {
                let _ = gate.recv();
            }
            error.map_or(Ok(()), |kind| Err(kind.into()))
        }
        fn settle(&mut self) -> io::Result<()> {
            self.tell(Call::Settled);
            Ok(())
        }
        fn reopen(&mut self) -> io::Result<()> {
            self.tell(Call::Reopened);
            Ok(())
        }
        fn spool(&self) -> Spool {
            self.spool
        }
    }

    const ROOMY: Spool = Spool {
        lines: 3,
        bytes: 1 << 20,
    };

    #[test]
    fn a_hung_sink_stops_neither_the_sender_nor_another_sink() {
        let (permit, gate) = mpsc::channel();
        let (hung, at_hung) = fake(Some(gate), Spool::NONE);
        let (good, at_good) = fake(None, Spool::NONE);
        let fanout = Fanout::with_queue(vec![hung, good], 2).unwrap();
        fanout.send(&line(0, 21));
        assert_eq!(at_hung.next(), Call::Wrote(0)); // It hangs inside the write.
        for turn in 1..=9 {
            assert_eq!(at_good.next_write(), Call::Wrote(turn - 1));
            fanout.send(&line(turn, 21));
        }
        assert_eq!(at_good.next_write(), Call::Wrote(9));

        let status = &fanout.counters()[0];
        assert_eq!(
            (status.state, status.dropped, status.waiting),
            (SinkState::Failing, 7, 3)
        );
        let kinds: Vec<_> = fanout
            .take_reports()
            .into_iter()
            .map(|report| report.kind)
            .collect();
        assert_eq!(kinds, [ReportKind::Overrun]);

        drop(permit); // It moves again.
        let status = fanout.shutdown(LONG);
        assert_eq!(
            (status[0].written, status[0].dropped, status[0].waiting),
            (3, 7, 0)
        );
        assert_eq!((status[1].written, status[1].dropped), (10, 0));
        let reports = fanout.take_reports();
        assert!(
            matches!(
                reports[..],
                [Report {
                    kind: ReportKind::Recovered { dropped: 7, .. },
                    ..
                }]
            ),
            "{reports:?}"
        );
    }

    #[test]
    fn shutdown_leaves_a_hung_sink_behind() {
        let (_permit, gate) = mpsc::channel();
        let (hung, at_hung) = fake(Some(gate), Spool::NONE);
        let fanout = Fanout::with_queue(vec![hung], 8).unwrap();
        fanout.send(&line(1, 21));
        fanout.send(&line(2, 21));
        assert_eq!(at_hung.next(), Call::Wrote(1));
        assert_eq!(fanout.shutdown(Duration::ZERO)[0].waiting, 2);
        fanout.send(&line(3, 21));
        assert_eq!(fanout.counters()[0].dropped, 1);
    }

    #[test]
    fn lines_of_an_outage_come_later_in_order_and_the_outage_is_told_once() {
        let (sink, remote) = fake(None, ROOMY);
        remote.set(Some(io::ErrorKind::StorageFull));
        let fanout = Fanout::start(vec![sink]).unwrap();
        for turn in 1..=4 {
            fanout.send(&line(turn, 99));
        }
        // The spool takes three; beyond it the newest is lost.
        wait_until(|| fanout.counters()[0].failed == 4);
        remote.set(None);
        fanout.send(&line(5, 99));
        let status = fanout.shutdown(LONG);
        let rest: Vec<Call> = remote
            .calls
            .try_iter()
            .filter(|call| matches!(call, Call::Wrote(_)))
            .collect();
        assert_eq!(
            rest,
            [
                Call::Wrote(1),
                Call::Wrote(2),
                Call::Wrote(3),
                Call::Wrote(5)
            ]
        );
        assert_eq!(
            (status[0].state, status[0].written, status[0].failed),
            (SinkState::Ok, 4, 4)
        );
        assert_eq!((status[0].dropped, status[0].waiting), (1, 0));
        assert!(status[0].last_error.is_some());
        let reports = fanout.take_reports();
        assert!(
            matches!(
                reports[..],
                [
                    Report {
                        kind: ReportKind::Failing { .. },
                        ..
                    },
                    Report {
                        kind: ReportKind::Recovered { dropped: 1, .. },
                        ..
                    }
                ]
            ),
            "{reports:?}"
        );
    }

    #[test]
    fn the_spool_is_tried_again_without_a_new_line() {
        let (sink, remote) = fake(None, ROOMY);
        remote.set(Some(io::ErrorKind::Other));
        let fanout = Fanout::start(vec![sink]).unwrap();
        fanout.send(&line(1, 21));
        assert_eq!(remote.next(), Call::Refused(1));
        remote.set(None);
        loop {
            if remote.next_write() == Call::Wrote(1) {
                break;
            }
        }
        assert_eq!(fanout.shutdown(LONG)[0].written, 1);
    }

    #[test]
    fn a_closed_reader_stops_its_sink_only() {
        let (closed, at_closed) = fake(None, ROOMY);
        let (good, at_good) = fake(None, ROOMY);
        at_closed.set(Some(io::ErrorKind::BrokenPipe));
        let fanout = Fanout::start(vec![closed, good]).unwrap();
        fanout.send(&line(1, 21));
        fanout.send(&line(2, 21));
        assert_eq!(at_good.next_write(), Call::Wrote(1));
        assert_eq!(at_good.next_write(), Call::Wrote(2));
        let status = fanout.shutdown(LONG);
        assert_eq!(
            (status[0].state, status[0].dropped, status[0].waiting),
            (SinkState::Stopped, 0, 0)
        );
        assert_eq!(
            at_closed.calls.try_iter().collect::<Vec<_>>(),
            [Call::Refused(1)]
        );
        let reports = fanout.take_reports();
        assert_eq!(reports.len(), 1);
        assert_eq!(reports[0].kind, ReportKind::Stopped);
    }

    #[test]
    fn urgent_lines_are_settled_before_the_next_and_all_at_the_end() {
        let (sink, remote) = fake(None, ROOMY);
        let fanout = Fanout::start(vec![sink]).unwrap();
        fanout.send(&line(1, 73));
        fanout.send(&line(2, 99));
        assert_eq!(
            [remote.next(), remote.next()],
            [Call::Wrote(1), Call::Settled]
        );
        assert_eq!(
            [remote.next(), remote.next()],
            [Call::Wrote(2), Call::Settled]
        );
        fanout.send(&line(3, 47));
        assert_eq!(fanout.shutdown(LONG)[0].written, 3);
        assert_eq!(
            [remote.next(), remote.next()],
            [Call::Wrote(3), Call::Settled]
        );
    }

    #[test]
    fn a_lesser_line_is_settled_by_the_clock() {
        let (sink, remote) = fake(None, ROOMY);
        let fanout = Fanout::start(vec![sink]).unwrap();
        fanout.send(&line(1, 21));
        assert_eq!(
            [remote.next(), remote.next()],
            [Call::Wrote(1), Call::Settled]
        );
        assert_eq!(fanout.counters()[0].state, SinkState::Ok);
    }

    #[test]
    fn reopens_when_asked() {
        let (sink, remote) = fake(None, ROOMY);
        let fanout = Fanout::start(vec![sink]).unwrap();
        fanout.reopen();
        assert_eq!(remote.next(), Call::Reopened);
    }

    #[test]
    fn reports_are_bounded() {
        let (voice, _said) = mpsc::sync_channel(1);
        let reports = Reports {
            kept: Arc::default(),
            voice,
        };
        for _ in 0..2 * REPORTS {
            reports.push("x", ReportKind::Stopped);
        }
        assert_eq!(lock(&reports.kept).len(), REPORTS);
    }
}
