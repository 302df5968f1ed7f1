//! Sinks that hang, err and end, and what others notice of it.

use super::*;
use crate::sink::Spool;
use serde_json::json;
use std::sync::mpsc::Receiver;

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
    crate::sink::number(&line.document, "n").unwrap()
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
fn urgent_lines_that_come_together_are_settled_together() {
    const LINES: u64 = 200;
    let (permit, gate) = mpsc::channel();
    let (sink, remote) = fake(Some(gate), Spool::NONE);
    let fanout = Fanout::start(vec![sink]).unwrap();
    for number in 0..LINES {
        fanout.send(&line(number, 99));
    }
    // Without a permit it goes on, too.
    drop(permit);
    let mut settled = 0;
    let mut written = 0;
    while written < LINES {
        match remote.next() {
            Call::Settled => settled += 1,
            call => {
                assert_eq!(call, Call::Wrote(written));
                written += 1;
            }
        }
    }
    // By the clock, should it take seconds.
    assert!(settled < LINES / 4, "{settled}");
    assert_eq!(
        remote.next(),
        Call::Settled,
        "at once when there are no more"
    );
    fanout.send(&line(LINES, 99));
    assert_eq!(remote.next_write(), Call::Wrote(LINES));
    assert_eq!(remote.next(), Call::Settled);
}

#[test]
fn a_hung_sink_stops_neither_the_sender_nor_another_sink() {
    let (permit, gate) = mpsc::channel();
    let (hung, at_hung) = fake(Some(gate), Spool::NONE);
    let (good, at_good) = fake(None, Spool::NONE);
    let fanout = Fanout::with_queue(vec![hung, good], 2, QUEUE_BYTES).unwrap();
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
    // Not take_reports, which would tell of a hang on a slow machine.
    let reports = fanout.reports.take();
    let kinds: Vec<_> = reports.into_iter().map(|report| report.kind).collect();
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
fn a_queue_is_bounded_in_bytes_and_one_line_always_fits() {
    let (permit, gate) = mpsc::channel();
    let (hung, at_hung) = fake(Some(gate), Spool::NONE);
    let long = |n: u64| {
        let document = json!({"n": n, "process": {"args": ["x".repeat(1000)]}});
        Line::new(document.as_object().unwrap().clone())
    };
    let fanout = Fanout::with_queue(vec![hung], 100, 3000).unwrap();
    fanout.send(&long(0));
    assert_eq!(at_hung.next(), Call::Wrote(0));
    for n in 1..6 {
        fanout.send(&long(n));
    }
    // What fits still does.
    fanout.send(&line(6, 21));
    let status = &fanout.counters()[0];
    assert_eq!((status.dropped, status.waiting), (4, 3));
    let told = fanout.reports.take();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].kind, ReportKind::Overrun);
    drop(permit);
    wait_until(|| fanout.counters()[0].waiting == 0);
    let shared = &fanout.lanes[0].shared;
    assert_eq!(shared.queued_bytes.load(SeqCst), 0);
    // However long it is.
    let document = json!({"n": 7, "process": {"args": ["x".repeat(5000)]}});
    fanout.send(&Line::new(document.as_object().unwrap().clone()));
    let status = fanout.shutdown(LONG);
    assert_eq!((status[0].written, status[0].dropped), (4, 4));
}

#[test]
fn a_sink_that_does_not_come_back_is_told_before_its_queue_is_full() {
    let (permit, gate) = mpsc::channel();
    let (hung, at_hung) = fake(Some(gate), Spool::NONE);
    let fanout = Fanout::with_queue(vec![hung], 8, QUEUE_BYTES).unwrap();
    fanout.look_for_hangs(Duration::ZERO);
    assert_eq!(fanout.reports.take(), [], "it has nothing to do");
    fanout.send(&line(1, 21));
    fanout.send(&line(2, 21));
    assert_eq!(at_hung.next(), Call::Wrote(1));
    fanout.look_for_hangs(LONG);
    assert_eq!(fanout.reports.take(), [], "not yet");
    for _ in 0..2 {
        fanout.look_for_hangs(Duration::ZERO);
    }
    let told = fanout.reports.take();
    let is = |kind: &ReportKind| matches!(kind, ReportKind::Hanging { .. });
    assert!(told.len() == 1 && is(&told[0].kind), "{told:?}");
    let status = &fanout.counters()[0];
    assert_eq!((status.state, status.waiting), (SinkState::Failing, 2));
    drop(permit);
    let mut told = Vec::new();
    wait_until(|| {
        told.extend(fanout.reports.take());
        !told.is_empty()
    });
    assert_eq!(fanout.counters()[0].state, SinkState::Ok);
    let is = |kind: &ReportKind| matches!(kind, ReportKind::Recovered { dropped: 0, .. });
    assert!(told.len() == 1 && is(&told[0].kind), "{told:?}");
}

#[test]
fn shutdown_leaves_a_hung_sink_behind() {
    let (_permit, gate) = mpsc::channel();
    let (hung, at_hung) = fake(Some(gate), Spool::NONE);
    let fanout = Fanout::with_queue(vec![hung], 8, QUEUE_BYTES).unwrap();
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
fn an_urgent_line_is_settled_at_once_and_all_at_the_end() {
    let (sink, remote) = fake(None, ROOMY);
    let fanout = Fanout::start(vec![sink]).unwrap();
    fanout.send(&line(1, 73));
    assert_eq!(
        [remote.next(), remote.next()],
        [Call::Wrote(1), Call::Settled]
    );
    fanout.send(&line(2, 99));
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
