//! One sink's thread.
//!
//! Owns the sink, the spool of lines that it could not take, and the judgement
//! whether it is well. May block as long as its sink does. Fails as the table in
//! [`super::fanout`] says.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Instant, SystemTime};

use super::fanout::{Order, Shared, lock};
use super::receipt::Slip;
use super::report::{ReportKind, Reports};
use super::{Line, SETTLE_AFTER, Sink, Spool};
use crate::queue::Receiver;

/// So many lines at most are written, some tenths of a second, before the first urgent
/// one of them is settled.
const TOGETHER: usize = 512;

/// The thread's state.
pub(super) struct Worker {
    sink: Box<dyn Sink>,
    orders: Receiver<Order>,
    shared: Arc<Shared>,
    reports: Reports,
    limit: Spool,
    /// Lines that the sink could not take yet, oldest first.
    spool: VecDeque<(Line, Option<Slip>)>,
    spool_bytes: usize,
    /// Of lines that are written, and not settled yet.
    unsettled: Vec<Slip>,
    /// When the present failure began, and what had been dropped before.
    failing_since: Option<(SystemTime, u64)>,
    /// When the sink wants to be settled, or the spool to be tried again.
    settle_at: Option<Instant>,
    /// Urgent lines that are not settled yet, and lines since the first of them.
    urgent: usize,
}

impl Worker {
    pub(super) fn new(
        sink: Box<dyn Sink>,
        orders: Receiver<Order>,
        shared: Arc<Shared>,
        reports: Reports,
    ) -> Self {
        let limit = sink.spool();
        Self {
            sink,
            orders,
            shared,
            reports,
            limit,
            spool: VecDeque::new(),
            spool_bytes: 0,
            unsettled: Vec::new(),
            failing_since: None,
            settle_at: None,
            urgent: 0,
        }
    }

    pub(super) fn run(mut self) {
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
            lock(&self.shared.outage).busy_since = Some(Instant::now());
            match order {
                Ok(Order::Line(line, slip)) => self.take(line, slip),
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
            lock(&self.shared.outage).busy_since = None;
            self.end_overrun();
            if self.shared.closing.load(SeqCst) {
                break;
            }
        }
        while let Ok(order) = self.orders.try_recv() {
            if let Order::Line(line, slip) = order {
                self.take(line, slip);
            }
        }
        self.settle();
        self.end_overrun();
    }

    /// A line from the queue: written, or spooled, or dropped.
    fn take(&mut self, line: Line, slip: Option<Slip>) {
        let urgent = line.is_urgent();
        let bytes = line.json.len() as u64;
        if !self.shared.stopped.load(SeqCst) {
            // The spool first, or the order of the log would not be that of events.
            if !self.flush_spool() {
                self.keep(line, slip);
            } else if let Err(error) = self.sink.write(&line) {
                self.fail(&error);
                self.keep(line, slip);
            } else {
                self.unsettled.extend(slip);
                self.shared.written.fetch_add(1, SeqCst);
            }
            self.tell_notes();
            if urgent || self.urgent > 0 {
                self.urgent += 1;
            }
            // A disk takes its time for each: who comes next waits for one, and not for
            // as many as there are lines of a flood before it.
            let others = self.shared.queued.load(SeqCst) > 1;
            // While it fails, the next try is due by the clock and the next line.
            let is_due = self.urgent > 0 && (!others || self.urgent >= TOGETHER);
            if is_due && self.failing_since.is_none() {
                self.settle();
            } else {
                self.settle_soon();
            }
        }
        // Last, so that no line is ever in no count.
        self.shared.queued_bytes.fetch_sub(bytes, SeqCst);
        self.shared.queued.fetch_sub(1, SeqCst);
    }

    /// Puts a line by that cannot be written now.
    fn keep(&mut self, line: Line, slip: Option<Slip>) {
        if self.shared.stopped.load(SeqCst) {
            return;
        }
        self.shared.failed.fetch_add(1, SeqCst);
        let bytes = self.spool_bytes + line.json.len();
        if self.spool.len() < self.limit.lines && bytes <= self.limit.bytes {
            self.spool_bytes = bytes;
            self.spool.push_back((line, slip));
            self.shared.spooled.fetch_add(1, SeqCst);
        } else {
            self.shared.dropped.fetch_add(1, SeqCst);
        }
    }

    /// Offers the spooled lines again; true if none is left.
    fn flush_spool(&mut self) -> bool {
        while let Some((line, _)) = self.spool.front() {
            if let Err(error) = self.sink.write(line) {
                self.fail(&error);
                return false;
            }
            self.spool_bytes -= line.json.len();
            let slip = self.spool.pop_front().and_then(|(_, slip)| slip);
            self.unsettled.extend(slip);
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
        self.urgent = 0;
        if self.shared.stopped.load(SeqCst) {
            return;
        }
        let flushed = self.flush_spool();
        if let Err(error) = self.sink.settle() {
            // What is not settled waits for the next time.
            self.fail(&error);
        } else {
            self.unsettled.drain(..).for_each(Slip::keep);
            if flushed {
                self.recover();
            }
        }
        self.tell_notes();
        // Also where all is written, and the disk has refused it.
        if !self.spool.is_empty() || self.failing_since.is_some() {
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
            self.unsettled.clear();
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

    /// The queue has been emptied after it had been full, or had hung.
    fn end_overrun(&self) {
        if self.shared.queued.load(SeqCst) > 0 {
            return;
        }
        let mut outage = lock(&self.shared.outage);
        let begun = outage.hang.take();
        let begun = outage.overrun.take().or(begun);
        drop(outage);
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
