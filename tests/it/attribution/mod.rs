//! Who put which file where, asked of the kernel's hardest cases by the hundred.
//!
//! What is true is what the spawner of each writer says of it: "PID PATH", and
//! the program that the case is about. What the daemon says is held against that.
//!
//! `ATTRIBUTION_RUNS=1000` runs each case so often and prints a table
//! (`cargo test --release --test it attribution::table -- --nocapture
//! --test-threads=1`); the default is a few runs, as a regression test.

mod adversaries;
mod images;
mod table;

use std::collections::BTreeMap;
use std::fmt;

use crate::daemon::{Daemon, Ended};
use crate::document::{ANY, Document, rule};
use crate::host::{Host, ROOT, TOOLS, User};
use crate::process::{Process, SOON, life};

/// How often each case is run when nothing else is said.
const RUNS: usize = 12;
/// At most so many mistakes are shown.
const SHOWN: usize = 5;

/// How often to run what is run `default` times by default.
pub fn runs(default: usize) -> usize {
    match std::env::var("ATTRIBUTION_RUNS") {
        // Counts keep their proportion.
        Ok(runs) => runs.parse::<usize>().unwrap() * default / RUNS,
        Err(_) => default,
    }
}

/// What a case must come to; a wrong name is never allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// Each is named, but for a few on a machine that is too busy.
    Right,
    /// Each is named, or its program is among several.
    RightOrAmbiguous,
    /// Each is seen, and what is said of it is true.
    Honest,
}

/// What else the machine does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    Idle,
    /// Both cores are busy.
    Busy,
    /// Programs start and end as fast as they can.
    Storm,
}

impl Load {
    pub fn start(self, host: &Host) -> Vec<Process> {
        let command = match self {
            Self::Idle => return Vec::new(),
            Self::Busy => "while :; do :; done",
            Self::Storm => "while :; do /bin/true; done",
        };
        let spin = || host.sh(ROOT, command).spawn_silent();
        (0..2).map(|_| spin()).collect()
    }
}

/// Many runs of one way to put a file into place.
#[derive(Clone)]
pub struct Case {
    pub name: &'static str,
    pub user: User,
    /// Done once before the daemon starts; `$n` is the number of runs.
    pub before: String,
    /// Done for each run; `$p` is the file, `$i` the number of the run, `$c`
    /// the case. Says "PID PATH".
    pub each: String,
    /// The program that does it.
    pub program: &'static str,
    /// What the program does.
    pub action: &'static str,
    pub demand: Demand,
    /// It does so in a descendant of the process that is told.
    pub descends: bool,
}

impl Case {
    /// One whose file is made by `command`, a child of the spawner.
    pub fn new(name: &'static str, program: &'static str, command: &str) -> Self {
        Self::telling(name, program, &format!("{command} & echo $! $p; wait $!"))
    }

    /// One that tells itself whose file it is.
    pub fn telling(name: &'static str, program: &'static str, each: &str) -> Self {
        Self {
            name,
            user: crate::host::ANN,
            before: String::new(),
            each: each.to_owned(),
            program,
            action: "creation",
            demand: Demand::Right,
            descends: false,
        }
    }

    /// Before the daemon starts, a file `stage/$c.$i` is made for each run.
    pub fn staged(self) -> Self {
        self.prepared("echo staged > stage/$c.$i")
    }

    /// Before the daemon starts, `each` is done for each run.
    pub fn prepared(mut self, each: &str) -> Self {
        each.clone_into(&mut self.before);
        self
    }

    pub fn action(mut self, action: &'static str) -> Self {
        self.action = action;
        self
    }

    pub fn demand(mut self, demand: Demand) -> Self {
        self.demand = demand;
        self
    }

    pub fn descends(mut self) -> Self {
        self.descends = true;
        self
    }

    pub fn user(mut self, user: User) -> Self {
        self.user = user;
        self
    }

    fn script(&self, each: &str) -> String {
        format!(
            "T={TOOLS}; c={name}; n=$1; i=0
             while [ $i -lt $n ]; do
                 p=$HOME/.ssh/$c.$i
                 {each}
                 i=$((i + 1))
             done",
            name = self.name
        )
    }
}

/// A file that was put into place.
#[derive(Clone, Debug)]
pub struct Made {
    pub pid: u64,
    pub path: String,
}

/// Reads "PID PATH" lines.
pub fn made(stdout: &str) -> Vec<Made> {
    let parse = |line: &str| {
        let (pid, path) = line.split_once(' ')?;
        Some(Made {
            pid: pid.parse().ok()?,
            path: path.to_owned(),
        })
    };
    stdout
        .lines()
        .map(|line| parse(line).unwrap_or_else(|| panic!("not PID PATH: {line:?}")))
        .collect()
}

/// What became of the runs of a case.
#[derive(Debug, Default)]
pub struct Tally {
    pub runs: usize,
    pub seen: usize,
    pub right: usize,
    pub ambiguous: usize,
    pub unknown: usize,
    pub wrong: usize,
    /// Of the right ones, those that the daemon would not swear to.
    pub unsure: usize,
    methods: BTreeMap<String, usize>,
    mistakes: Vec<String>,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:6} runs {:6} seen {:6} right ({} unsure) {:4} ambiguous {:4} unknown {:3} wrong  {:?}",
            self.runs,
            self.seen,
            self.right,
            self.unsure,
            self.ambiguous,
            self.unknown,
            self.wrong,
            self.methods
        )
    }
}

impl Tally {
    /// Holds `alert` against what is true.
    pub fn count(&mut self, alert: &Document, truth: &Made, program: &str, descends: bool) {
        let method = alert.text("ssh_keywatch.attribution.method");
        *self.methods.entry(method.to_owned()).or_default() += 1;
        let attribution = alert.get("ssh_keywatch.attribution");
        let certain = attribution["certain"] == true;
        let named = alert.get("process.executable").as_str();
        let own = alert.number("process.pid") == Some(truth.pid);
        let ancestors = alert.get("ssh_keywatch.ancestors").as_array();
        let below = || {
            let mut ancestors = ancestors.into_iter().flatten();
            ancestors.any(|ancestor| ancestor["pid"] == truth.pid)
        };
        let is_pid = own || (descends && below());
        let mut candidates = attribution["candidates"].as_array().into_iter().flatten();
        match named {
            Some(path) if path == program && is_pid => {
                self.right += 1;
                self.unsure += usize::from(!certain);
                return;
            }
            None if !certain && candidates.any(|image| image["executable"] == program) => {
                self.ambiguous += 1;
            }
            None if !certain => self.unknown += 1,
            _ => {
                self.wrong += 1;
                // Shown before all others.
                self.mistakes.truncate(SHOWN - 1);
                self.mistakes
                    .insert(0, format!("WRONG: {} {}", truth.pid, alert.0));
                return;
            }
        }
        self.mistake(format!("{} {} {attribution}", truth.pid, alert.brief()));
    }

    fn mistake(&mut self, what: String) {
        if self.mistakes.len() < SHOWN {
            self.mistakes.push(what);
        }
    }

    /// Holds all alerts with `action` against the truth.
    pub fn of(ended: &Ended, all: &[Made], action: &str, program: &str, descends: bool) -> Self {
        let mut alerts: BTreeMap<&str, Vec<&Document>> = BTreeMap::new();
        for alert in ended.alerts(ANY) {
            if alert.is("event.action", action) {
                let path = alert.text("file.path");
                alerts.entry(path).or_default().push(alert);
            }
        }
        let mut tally = Self {
            runs: all.len(),
            ..Self::default()
        };
        for truth in all {
            let Some(alerts) = alerts.get(truth.path.as_str()) else {
                tally.mistake(format!("{} was not seen", truth.path));
                continue;
            };
            tally.seen += 1;
            tally.count(alerts[0], truth, program, descends);
            // A file is made once; who changes it may be told of it twice.
            assert!(alerts.len() == 1 || action == "modification", "{truth:?}");
        }
        tally
    }

    /// Asserts what is demanded. `overdue` openers were let go unidentified.
    #[track_caller]
    pub fn assert(&self, demand: Demand, overdue: usize, what: &str) {
        let shown = || format!("{what}: {self}\n  {}", self.mistakes.join("\n  "));
        assert_eq!(self.wrong, 0, "{}", shown());
        assert_eq!(self.seen, self.runs, "{}", shown());
        // Where other work keeps an opener from the processor for so long that its
        // hold cannot be made sure, the alert says so.
        let slack = 2 + self.runs / 50 + overdue;
        let enough = match demand {
            Demand::Right => self.right + slack,
            Demand::RightOrAmbiguous => self.right + self.ambiguous + overdue,
            Demand::Honest => self.runs,
        };
        assert!(enough >= self.runs, "{}", shown());
    }
}

/// A rule for every way in which a file comes into place.
pub fn any_change() -> String {
    let actions = r#"("creation", "rename", "modification")"#;
    rule(
        ANY,
        "Any change",
        &format!("file where event.action in {actions}"),
    )
}

/// How many openers the daemon let go because they had waited too long.
pub fn overdue(ended: &Ended) -> usize {
    let overdue = |document: &&Document| document.is("event.code", "hold_overdue");
    let counts = ended.log.iter().filter(overdue);
    counts
        .map(|document| {
            let count = document.number("ssh_keywatch.loss.count");
            usize::try_from(count.expect("a count")).unwrap()
        })
        .sum()
}

/// So many were not held at most as were let go because they had waited too long.
#[track_caller]
pub fn assert_held(ended: &Ended, alerts: &[&Document]) {
    let mut unheld = alerts.to_vec();
    unheld.retain(|alert| !alert.is("ssh_keywatch.attribution.method", "held"));
    assert!(
        unheld.len() <= overdue(ended),
        "{} are not held, {} were let go: {}",
        unheld.len(),
        overdue(ended),
        unheld[0].brief()
    );
}

/// Waits until `count` files are told of, each by an alert with its action.
#[track_caller]
pub fn wait_for(daemon: &Daemon<'_>, wanted: &BTreeMap<String, &'static str>) {
    let mut left = wanted.clone();
    let mut read = 0;
    daemon.find(SOON, "alert on each file", |log| {
        for document in &log[read..] {
            let path = document.text("file.path");
            if document.is_alert_of(ANY)
                && let Some(action) = left.get(path)
                && document.is("event.action", action)
            {
                left.remove(path);
            }
        }
        read = log.len();
        left.is_empty().then_some(())
    });
}

/// However many runs there are, they are no flood, and one log holds them.
pub fn config(watch: &str) -> String {
    format!(
        "[log]\nmax_size = \"1G\"\n[watch]\nhome_events = 10000000\nhome_files = 1000000\n{watch}\n"
    )
}

/// Runs each case `count` times while the daemon watches, and asserts what each
/// demands.
#[track_caller]
pub fn measure(host: &Host, cases: &[Case], load: Load, count: usize) {
    measure_with(host, "", cases, load, count);
}

/// The same with more in the section `[watch]` of the configuration.
#[track_caller]
pub fn measure_with(host: &Host, watch: &str, cases: &[Case], load: Load, count: usize) {
    for case in cases {
        host.sh(case.user, "mkdir -p -m 700 .ssh stage").ok();
        if !case.before.is_empty() {
            let before = case.script(&case.before);
            let ready = host.sh(case.user, &before).args([count.to_string()]);
            let ready = ready.output_within(life());
            assert!(ready.status.success(), "{}: {ready:?}", case.name);
        }
    }
    let daemon = host.daemon().config(&config(watch));
    let daemon = daemon.rule("any", &any_change()).start();
    let started = daemon.started();
    let moments = started
        .text("ssh_keywatch.coverage.process_table.moments")
        .to_owned();
    println!("moments of acts: {moments}");
    let busy = load.start(host);
    let mut all = Vec::new();
    let mut wanted = BTreeMap::new();
    for case in cases {
        let cmd = host.sh(case.user, &case.script(&case.each));
        let output = cmd.args([count.to_string()]).output_within(life());
        assert!(output.status.success(), "{}: {output:?}", case.name);
        let made = made(&output.stdout);
        wanted.extend(made.iter().map(|made| (made.path.clone(), case.action)));
        all.push(made);
    }
    drop(busy);
    wait_for(&daemon, &wanted);
    let ended = daemon.stop();
    // Each link is another name of one file: of that many not all are followed.
    ended.assert_nothing_lost_but("link_limit");
    let overdue = overdue(&ended);
    let mut failed = Vec::new();
    for (case, made) in cases.iter().zip(&all) {
        let tally = Tally::of(&ended, made, case.action, case.program, case.descends);
        println!("{:20} {load:?} {tally}", case.name);
        if tally.wrong > 0 || tally.ambiguous > 0 && case.demand == Demand::Right {
            println!("  {}", tally.mistakes.join("\n  "));
        }
        failed.push((case, tally));
    }
    if overdue > 0 {
        println!("{overdue} openers were let go");
    }
    for (case, tally) in failed {
        let mut demand = case.demand;
        // Without the moments of acts, what no hold covers can be ambiguous.
        let unheld = case.action != "creation" || tally.methods.contains_key("recorded");
        if moments == "none" && unheld && demand == Demand::Right {
            demand = Demand::RightOrAmbiguous;
        }
        tally.assert(demand, overdue, &format!("{} {load:?}", case.name));
    }
}
