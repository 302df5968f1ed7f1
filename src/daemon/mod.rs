//! The composition root: builds the parts, wires them, and ends them in order.
//!
//! ```text
//! kernel ─► hold thread ──Held──► watch thread ──Finding──► decide thread ──Line──► sink threads
//!    └────────records───────────────►┘                          ▲
//!                                                  main thread ─┘ (signals, reload, state)
//! ```
//!
//! Owns threads, channels and signals, and the order of their end: the
//! permission group is closed first, so that nobody waits for us; then what was read
//! is decided and written. Must not decide anything: what is watched, who is
//! who and what is an alert is the business of the parts.

mod access;
mod accounts;
mod baseline;
mod build;
mod clock;
mod confine;
pub mod control;
mod deciding;
mod fatal;
mod guard;
mod holding;
mod host;
mod keys;
mod lock;
mod losses;
mod mutes;
pub mod places;
mod plan;
mod polling;
mod privilege;
mod programs;
mod reload;
mod rest;
pub mod selftest;
mod source;
mod standing;
mod status;
mod turns;
mod watchdog;
mod watching;

use std::collections::hash_map::RandomState;
use std::io;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU32;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use libsystemd::daemon::{NotifyState, notify};
use serde_json::json;

use crate::alert::Change;
use crate::config::{self, Config};
use crate::queue;
use crate::resolve::identify::Identifier;
use crate::resolve::proc::Proc;
use crate::sink::{Fanout, Sink};

pub use accounts::Accounts;
pub use baseline::{CHECK_STORE, check_store, stored};
pub use deciding::{Deciding, Message, Said};
pub use fatal::Fatal;
pub use plan::{Plan, patterns};
pub use privilege::missing as missing_capabilities;
pub use reload::RELOADED;
pub use source::{Coverage, Mode};

use control::Control;
use reload::InForce;
use status::{Asked, Gauges};
use watching::Command;

/// How many findings may wait to be decided.
const FINDINGS: usize = 16 * 1024;
/// How long the sinks have to write what is left when the daemon ends.
const SINK_TIME: Duration = Duration::from_secs(5);
/// How long the daemon waits for an answer of its own threads.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// The file that says where the alert log ends, apart from it.
#[must_use]
pub fn log_head(state: &Path) -> PathBuf {
    state.join(build::LOG_HEAD)
}

/// Makes the sinks that a configuration asks for.
pub type MakeSinks = Box<dyn Fn(&Config) -> Vec<Box<dyn Sink>>>;

/// Where alerts go besides the log.
pub struct Outlets {
    /// The sinks that the command wants besides: a terminal.
    pub sinks: MakeSinks,
    /// Says what the configuration asks for now; called again for a reload.
    pub plan: Box<dyn Fn() -> Result<Plan, Fatal>>,
    /// Beside a daemon that runs: no lock, log, journal, state or control socket.
    pub dry: bool,
}

/// Runs until a signal ends it.
///
/// # Errors
/// [`Fatal`] says what keeps it from watching.
pub fn run(outlets: &Outlets) -> Result<(), Fatal> {
    let plan = (outlets.plan)()?;
    let signals = Signals::new().map_err(Fatal::system("cannot set up signals"))?;
    if plan.config.watch.backend != config::Backend::Inotify {
        privilege::require_fanotify()?;
    }
    privilege::raise_descriptors();
    privilege::be_prompt();
    privilege::give_up(&plan.config, outlets.dry);
    crate::sys::memory::keep_heaps();
    let _lock = if outlets.dry {
        None
    } else {
        Some(lock::take(&plan.config.state.directory)?)
    };
    let sinks = (outlets.sinks)(&plan.config);
    let actor = selftest::Actor::start();
    let mut config = plan.config.clone();
    if outlets.dry {
        // The trial makes a directory of its own, but not in there.
        config.state.directory = "/run".into();
    }
    let mut trial = None;
    let try_it = || {
        let run = move || selftest::run(&config, actor);
        let thread = std::thread::Builder::new().name("trial".to_owned());
        trial = Some(thread.spawn(run));
    };
    let daemon = Daemon::start(plan, sinks, outlets.dry, try_it);
    // It watches already; what it says of itself waits for the trial.
    let tried = trial.map(|trial| match trial.map(std::thread::JoinHandle::join) {
        Ok(Ok(problems)) => problems,
        Ok(Err(_)) => vec!["the trial ended in a panic".to_owned()],
        Err(error) => vec![format!("no trial was possible: {error}")],
    });
    let daemon = daemon?;
    daemon.tried(tried.unwrap_or_default());
    // The trial was the last that runs a program.
    if let Err(error) = confine::forbid_calls() {
        tracing::warn!("system calls that are not needed stay possible: {error}");
    }
    daemon.serve(signals, &*outlets.plan)
}

/// The signals that are waited for.
struct Signals(signal_hook::iterator::Signals);

impl Signals {
    fn new() -> io::Result<Self> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
        signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGTERM, SIGUSR1]).map(Self)
    }
}

struct Daemon {
    hold: Option<holding::Holding>,
    gauges: Gauges,
    watching: std::thread::JoinHandle<()>,
    deciding: std::thread::JoinHandle<()>,
    baseline: Option<baseline::Keeper>,
    guard: Option<guard::Guard>,
    in_force: InForce,
    control: Option<Control>,
}

impl Daemon {
    /// Starts all parts; `try_it` begins the trial, once no other program is run any more.
    fn start(
        plan: Plan,
        extra: Vec<Box<dyn Sink>>,
        dry: bool,
        try_it: impl FnOnce(),
    ) -> Result<Self, Fatal> {
        let in_force = InForce::of(&plan);
        let watched = plan.watched();
        let mut scope = plan.scope();
        let Plan {
            config,
            rules,
            patterns,
            derived: _,
        } = plan;
        let proc = Proc::open(Path::new("/proc")).map_err(Fatal::system("cannot read /proc"))?;
        let identifier =
            Identifier::new(Arc::new(proc)).map_err(Fatal::system("cannot start threads"))?;
        let sinks = build::sinks(&config, extra, dry)?;
        let fanout = Arc::new(
            confine::within(&confine::log_places(&config.log.file), || {
                Fanout::start(sinks)
            })
            .flatten()
            .map_err(Fatal::system("cannot start the sinks"))?,
        );
        let (messages, inbox) = queue::bounded(FINDINGS);
        let key = RandomState::new();
        let baseline = (!dry).then(|| keep_baseline(&config, key.clone(), &messages, &fanout));
        let baseline = baseline.flatten();
        scope.stock = baseline.is_some().then_some(key);
        let ledger = baseline.as_ref().map(baseline::Keeper::ledger);
        tell_missing(&messages);
        try_it();

        // They are read meanwhile: what changes from now on does not count as known.
        let mut keys = confine::within(&[], || keys::Keys::start(&patterns))
            .flatten()
            .map_err(Fatal::system("cannot start threads"))?;
        let build::Pipeline {
            mut watching,
            hold,
            group,
            mode,
            orders,
        } = build::pipeline(
            &config,
            scope,
            &identifier,
            &messages,
            &build::fence_places(&config.state.directory, dry),
        )?;
        watching.keep(ledger.clone());
        if let Some(ledger) = &ledger {
            watching.poll_apart(poller(&config, ledger, &messages)?);
        }
        watching.limit(config.watch.home_events);
        watching.count(hold.as_ref().map(|hold| Arc::clone(&hold.counters)));
        if mode == Mode::Inotify && !rules.asked_opens().is_empty() {
            tracing::warn!("rules ask who opens files, which inotify does not tell");
        }
        let origin = host::origin(mode.as_str());
        let clients = identifier.clients().clone();
        keys.await_lists();
        let deciding = programs::Programs::new(config.watch.key_tools.clone())
            .and_then(|programs| {
                Deciding::new(
                    rules,
                    origin,
                    Arc::clone(&fanout),
                    keys,
                    clients,
                    programs,
                    ledger,
                )
            })
            .map_err(Fatal::system("cannot start threads"))?;
        let mut parts = vec![watchdog::Part::deciding(deciding.beat())];
        let deciding = build::spawn_movable("decide", move || deciding.run(&inbox))?;
        parts.push(watchdog::Part::watching(watching.beat(), orders.wake()));
        let watching = build::spawn_movable("watch", move || watching.run())?;
        parts.extend(hold.as_ref().map(holding::Holding::part));
        watchdog::start(parts).map_err(Fatal::system("cannot start the watchdog thread"))?;
        let gauges = Gauges {
            started: SystemTime::now(),
            mode,
            hold: hold.as_ref().map(|hold| Arc::clone(&hold.counters)),
            fanout,
            orders,
            messages,
            asked: Arc::new(Mutex::new(Asked {
                config: config.clone(),
                watched,
                reload: None,
            })),
        };
        let guard = (!dry).then(|| guard(group, &gauges)).flatten();
        let control = (!dry).then(|| control(&config.control, &gauges)).flatten();
        Ok(Self {
            hold,
            gauges,
            watching,
            deciding,
            baseline,
            guard,
            in_force,
            control,
        })
    }

    fn serve(
        mut self,
        mut signals: Signals,
        plan: &dyn Fn() -> Result<Plan, Fatal>,
    ) -> Result<(), Fatal> {
        use signal_hook::consts::{SIGHUP, SIGUSR1};
        self.say(Change::Start, true, String::new(), json!(null));
        tell_systemd(&[NotifyState::Ready, NotifyState::Status("watching".into())]);
        tracing::info!("watching");
        for signal in signals.0.forever() {
            match signal {
                SIGHUP => self.reload(plan),
                SIGUSR1 => self.say(Change::Status, true, String::new(), json!(null)),
                _ => {
                    let name = signal_hook::low_level::signal_name(signal).unwrap_or("a signal");
                    tracing::info!("{name}: ending");
                    return self.stop(name);
                }
            }
        }
        self.stop("no more signals")
    }

    /// What the trial has shown.
    fn tried(&self, problems: Vec<String>) {
        for problem in &problems {
            tracing::error!("self-test: {problem}");
        }
        // The deciding thread lives as long as this.
        let _ = self.gauges.messages.send(Message::Tried(problems));
    }

    /// Tells what the daemon does now, with coverage and counters.
    fn say(&self, change: Change, success: bool, reason: String, changes: serde_json::Value) {
        let coverage = self.gauges.coverage(ANSWER_TIME);
        let said = Said {
            time: SystemTime::now(),
            change,
            success,
            reason,
            coverage: coverage.map_or_else(|| json!(null), |coverage| coverage.to_json()),
            counters: self.gauges.counters(),
            changes,
        };
        // Full only if the deciding thread hangs; then there is nobody to tell.
        let message = Message::State(Box::new(said));
        if self.gauges.messages.try_send(message).is_err() {
            tracing::warn!("the deciding thread is too far behind to log a state");
        }
    }

    /// All or nothing: a plan with an error leaves everything as it was.
    fn reload(&mut self, plan: &dyn Fn() -> Result<Plan, Fatal>) {
        // Type=notify-reload pairs the two, and READY=1 after them (sd_notify(3)).
        tell_systemd(&[NotifyState::Reloading, monotonic()]);
        self.gauges.fanout.reopen();
        let (success, reason, changes) = match plan() {
            Ok(plan) => {
                let changes = self.in_force.reload(&plan);
                let watched = plan.watched();
                let scope = plan.scope();
                let events = plan.config.watch.home_events;
                let rules = Message::Rules(Box::new(plan.rules));
                if self.gauges.messages.send(rules).is_err() {
                    tracing::error!("the deciding thread is gone");
                }
                self.gauges.orders.give(Command::Scope(scope));
                self.gauges.orders.give(Command::Events(events));
                if let Some(baseline) = &self.baseline {
                    baseline.limit(events);
                }
                self.gauges.asked().watched = watched;
                let reason = changes.sentence();
                if changes.is_pending() {
                    tracing::warn!("reloaded: {reason}");
                } else {
                    tracing::info!("reloaded: {reason}");
                }
                (true, reason, changes.to_json())
            }
            Err(error) => {
                let reason = error.to_string();
                tracing::error!("not reloaded, everything stays as it was: {reason}");
                (false, reason, json!(null))
            }
        };
        self.gauges.asked().reload = Some((SystemTime::now(), success, reason.clone()));
        self.say(Change::Reload, success, reason, changes);
        tell_systemd(&[NotifyState::Ready]);
    }

    fn stop(self, why: &str) -> Result<(), Fatal> {
        tell_systemd(&[NotifyState::Stopping]);
        let gauges = self.gauges;
        let counters = gauges.counters();
        // First of all nobody shall wait for us any more.
        if let Some(hold) = self.hold {
            hold.end();
        }
        drop(self.control);
        if let Some(guard) = self.guard {
            guard.end();
        }
        gauges.orders.give(Command::Stop);
        let mut result = Ok(());
        if self.watching.join().is_err() {
            result = Err(Fatal::System {
                what: "the watching thread ended in a panic".into(),
                source: io::Error::other("see above"),
            });
        }
        let stop = Said {
            time: SystemTime::now(),
            change: Change::Stop,
            success: true,
            reason: why.to_owned(),
            coverage: json!(null),
            counters,
            changes: json!(null),
        };
        let _ = gauges.messages.send(Message::State(Box::new(stop)));
        let _ = gauges.messages.send(Message::End);
        let _ = self.deciding.join();
        for sink in gauges.fanout.shutdown(SINK_TIME) {
            if sink.waiting > 0 || sink.dropped > 0 {
                tracing::error!(
                    "sink {}: {} lines were not written",
                    sink.name,
                    sink.waiting + sink.dropped
                );
            }
        }
        // After the sinks: nothing is stored as told that was not written.
        if let Some(baseline) = self.baseline {
            baseline.end();
        }
        result
    }
}

/// The baseline; the daemon watches without it, too.
fn keep_baseline(
    config: &Config,
    key: RandomState,
    messages: &queue::Sender<Message>,
    fanout: &Arc<Fanout>,
) -> Option<baseline::Keeper> {
    let directory = &config.state.directory;
    let fanout = Arc::clone(fanout);
    let start = |probe| {
        let start = || {
            baseline::Keeper::start(baseline::Parts {
                probe,
                key,
                directory: directory.clone(),
                log: config.log.file.clone(),
                is_log_well: Box::new(move || fanout.is_record_well()),
                messages: messages.clone(),
                home_events: Arc::new(AtomicU32::new(config.watch.home_events)),
            })
        };
        confine::within(std::slice::from_ref(directory), start).flatten()
    };
    baseline::Keeper::probe(directory)
        .and_then(start)
        .map_err(|error| {
            let reason = baseline::unusable(directory, &error.to_string());
            // The queue was made just now.
            let _ = messages.try_send(Message::Fault("baseline_unusable", reason));
        })
        .ok()
}

/// The guard; the daemon watches without it, too.
fn guard(group: Option<RawFd>, gauges: &Gauges) -> Option<guard::Guard> {
    let orders = gauges.orders.clone();
    let marks = group.map(|group| guard::Marks {
        group,
        expected: Box::new(move || {
            let (reply, answer) = sync_channel(1);
            orders.give(Command::Directories(reply));
            answer.recv_timeout(ANSWER_TIME).ok()
        }),
    });
    guard::Guard::start(marks, gauges.messages.clone())
        .map_err(|error| tracing::warn!("nobody looks whether the program is replaced: {error}"))
        .ok()
}

/// Says which privileges the daemon has to do without.
fn tell_missing(messages: &queue::Sender<Message>) {
    for (name, purpose) in privilege::missing() {
        let reason = format!("the privilege {name} is missing, {purpose}");
        // The queue was made just now.
        let _ = messages.try_send(Message::Fault("permission_missing", reason));
    }
}

/// What looks at network and FUSE file systems.
fn poller(
    config: &Config,
    ledger: &baseline::Ledger,
    messages: &queue::Sender<Message>,
) -> Result<polling::Poller, Fatal> {
    let interval = Duration::from_secs(config.watch.poll_interval.into());
    let (ledger, messages) = (ledger.clone(), messages.clone());
    polling::Poller::start(interval, ledger, messages, build::event_fd()?)
        .map_err(Fatal::system("cannot look at network file systems"))
}

/// The control socket; the daemon watches without it, too.
fn control(config: &config::Control, gauges: &Gauges) -> Option<Control> {
    let gauges = gauges.clone();
    Control::start(config, move || gauges.status())
        .map_err(|error| tracing::warn!("`ssh-keywatch status` will not work: {error}"))
        .ok()
}

/// The time of `CLOCK_MONOTONIC` in microseconds, as systemd wants it.
fn monotonic() -> NotifyState {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    let now = now.map_or(Duration::ZERO, Duration::from);
    NotifyState::Other(format!("MONOTONIC_USEC={}", now.as_micros()))
}

fn tell_systemd(states: &[NotifyState]) {
    // Not run by systemd: nobody to tell.
    if let Err(error) = notify(false, states) {
        tracing::debug!("sd_notify: {error}");
    }
}

/// A channel's receiving end, as the deciding thread takes it.
pub type Inbox = queue::Receiver<Message>;

/// Reads `bytes` as what users can send or write that this part reads: a request
/// on the control socket, a table of mounts, a log. For fuzzing.
#[doc(hidden)]
pub fn read_hostile(bytes: &[u8]) {
    control::read_hostile(bytes);
    crate::watch::mounts::read_hostile(bytes);
    baseline::read_hostile(bytes);
}
