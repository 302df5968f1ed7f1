//! Whatever one user does as often as they can, the daemon stays small, says what
//! it left out, and tells what happens in other homes.
//!
//! `FLOOD_FILES` says how much (a million, say); the figures are printed.

use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant};

use crate::daemon::{Daemon, Ended};
use crate::document::{ANY, Document, SEED, rule};
use crate::host::{ANN, BOB, Host, TOOLS};
use crate::process::SOON;

/// The shipped rule.
const FLOOD: &str = "5d0c1f7e-3a52-4c1e-9b7a-6f2d8c04e9b1";
/// How many events of one home are told here.
const EVENTS: u64 = 300;
/// What the daemon may need at most, whatever happens (KiB). A debug build needs
/// more than the program that is installed.
const MOST_MEMORY: u64 = 256 << 10;
/// How long a flood may take.
const LONG: Duration = Duration::from_secs(150);

/// How many files, directories and links a flood makes.
fn count() -> u64 {
    std::env::var("FLOOD_FILES").map_or(20_000, |count| count.parse().unwrap())
}

/// Every change of a name, whatever it is.
fn any() -> String {
    rule(
        ANY,
        "Any change",
        r#"file where event.action in ("creation", "rename", "deletion")"#,
    )
}

fn start(host: &Host) -> Daemon<'_> {
    for user in [ANN, BOB] {
        host.sh(user, "mkdir -m 700 .ssh").ok();
    }
    host.daemon()
        .config(&format!("[watch]\nhome_events = {EVENTS}\n"))
        .rule("any", &any())
        .start()
}

/// What a running daemon has taken.
#[derive(Clone, Debug, Default)]
struct Taken {
    /// The most memory so far (KiB).
    memory: u64,
    descriptors: usize,
    /// Marks of both groups.
    marks: usize,
    /// Of all its threads.
    cpu: Duration,
    log: u64,
}

impl Taken {
    fn by(host: &Host, daemon: &Daemon<'_>) -> Self {
        let proc = format!("/proc/{}", daemon.pid());
        let status = fs::read_to_string(format!("{proc}/status")).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.unwrap().trim().trim_end_matches(" kB");
        let stat = fs::read_to_string(format!("{proc}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        let ticks: u64 = fields[11..13]
            .iter()
            .map(|ticks| ticks.parse::<u64>().unwrap())
            .sum();
        let descriptors = fs::read_dir(format!("{proc}/fd")).unwrap().count();
        let infos = fs::read_dir(format!("{proc}/fdinfo")).unwrap();
        let infos = infos.filter_map(|info| fs::read_to_string(info.unwrap().path()).ok());
        let is_mark =
            |line: &&str| line.starts_with("fanotify ino") || line.starts_with("fanotify sdev");
        let marks = infos.map(|info| info.lines().filter(is_mark).count()).sum();
        Self {
            memory: peak.parse().unwrap(),
            descriptors,
            marks,
            cpu: Duration::from_millis(ticks * 10),
            log: host.path(crate::daemon::LOG).metadata().unwrap().len(),
        }
    }

    fn print(&self, what: &str, more: &str) {
        println!(
            "{what}: peak {} MiB, {} descriptors, {} marks, {:.1} s of CPU, log {} KiB{more}",
            self.memory >> 10,
            self.descriptors,
            self.marks,
            self.cpu.as_secs_f64(),
            self.log >> 10
        );
    }
}

/// Has ann do something as often as she can, while bob makes keys; says how long his
/// alerts took, longest last.
fn flood(host: &Host, daemon: &Daemon<'_>, args: &[&str]) -> (String, Vec<Duration>) {
    let cmd = host.command(format!("{TOOLS}/flood")).user(ANN).args(args);
    std::thread::scope(|scope| {
        let flood = scope.spawn(move || cmd.output_within(LONG));
        let mut latencies = Vec::new();
        for number in 0.. {
            if flood.is_finished() && number >= 3 {
                break;
            }
            let path = BOB.ssh(&format!("{}{number}", args[0]));
            host.sh(BOB, &format!(": > {path}")).ok();
            let made = Instant::now();
            daemon.find(LONG, &path, |log| {
                let alert = |line: &&Document| line.is_alert_of(ANY) && line.is("file.path", &path);
                log.iter().rev().find(alert).map(|_| ())
            });
            latencies.push(made.elapsed());
            // Bob has his own share, and does not use it up.
            if number > 20 {
                std::thread::sleep(Duration::from_millis(500));
            }
        }
        let output = flood.join().unwrap();
        assert!(output.status.success(), "{output:?}");
        latencies.sort();
        (output.stdout.trim().to_owned(), latencies)
    })
}

fn shown(latencies: &[Duration]) -> String {
    let mut out = String::new();
    let half = latencies[latencies.len() / 2];
    let last = latencies[latencies.len() - 1];
    write!(out, "; bob waited {half:.1?}, {last:.1?} at most").unwrap();
    out
}

/// One alert says that there is a flood, and who began it.
#[track_caller]
fn assert_one_flood(ended: &Ended, program: &str) {
    let floods = ended.alerts(FLOOD);
    assert_eq!(
        floods.len(),
        1,
        "{:?}",
        floods.iter().map(|alert| alert.brief()).collect::<Vec<_>>()
    );
    let alert = floods[0];
    assert_eq!(alert.text("file.path"), ANN.home, "{}", alert.brief());
    assert_eq!(alert.text("user.name"), "ann", "{}", alert.brief());
    let named = alert.text("process.executable");
    let candidates = alert.get("ssh_keywatch.attribution.candidates").to_string();
    assert!(
        named == program || candidates.contains(program),
        "{}",
        alert.brief()
    );
}

/// How many events were counted instead of told.
fn counted(ended: &Ended, kind: &str) -> u64 {
    let lines = ended
        .log
        .iter()
        .filter(|line| line.is("event.code", "flood"));
    lines
        .filter_map(|line| line.number(&format!("ssh_keywatch.flood.{kind}")))
        .sum()
}

/// How many of ann's are alerts of their own.
fn told(ended: &Ended, action: &str) -> u64 {
    let alerts = ended.alerts(ANY).into_iter();
    let of_ann = alerts
        .filter(|alert| alert.is("event.action", action))
        .filter(|alert| alert.text("file.path").starts_with(ANN.home));
    of_ann.count() as u64
}

#[test]
fn files_without_end_are_one_alert_and_a_count() {
    let host = Host::on_disk();
    let daemon = start(&host);
    let count = count();
    let directory = ANN.ssh("");
    let (rate, latencies) = flood(&host, &daemon, &["files", &count.to_string(), &directory]);
    // In the midst of it all, what lets somebody in is told.
    host.sh(ANN, "ssh-keygen -q -t ed25519 -N '' -f .ssh/id_ed25519; cat .ssh/id_ed25519.pub > .ssh/authorized_keys")
        .ok();
    for name in ["id_ed25519", "id_ed25519.pub", "authorized_keys"] {
        daemon.alert(ANY, &ANN.ssh(name));
    }
    daemon.alert(SEED, &ANN.ssh("id_ed25519"));
    let taken = Taken::by(&host, &daemon);
    let status = status(&host);
    assert!(status.contains("a flood in /home/ann"), "{status}");
    let ended = daemon.stop();
    taken.print(&rate, &shown(&latencies));
    assert_one_flood(&ended, "/run/it/tools/flood");
    // Every single file is either told or counted.
    let told = told(&ended, "creation");
    assert_eq!(told + counted(&ended, "creations"), count + 3);
    assert!(told >= EVENTS, "{told}");
    assert!(taken.memory < MOST_MEMORY, "{taken:?}");
    assert!(taken.log < 16 << 20, "{taken:?}");
    assert!(taken.marks < 40_000, "{taken:?}");
    assert!(taken.descriptors < 1000, "{taken:?}");
}

fn status(host: &Host) -> String {
    let output = host
        .command(crate::host::PROGRAM)
        .args(["status"])
        .output_within(SOON);
    output.stdout
}
