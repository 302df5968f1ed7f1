//! Whatever one user does as often as they can, the daemon stays small, says what
//! it left out, and tells what happens in other homes.
//!
//! `FLOOD_FILES` says how much (a million, say); the figures are printed.

use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant};

use crate::daemon::{Daemon, Ended};
use crate::document::{ANY, Document, SEED, rule};
use crate::holding::Stopped;
use crate::host::{ANN, BOB, Host, TOOLS};
use crate::process::SOON;

/// The shipped rule.
const FLOOD: &str = "5d0c1f7e-3a52-4c1e-9b7a-6f2d8c04e9b1";
/// The shipped rule about logins that are added.
const ADDED: &str = "8b796b86-adcc-4d3a-b467-349913db4cd3";
/// How many events of one home are told here.
const EVENTS: u64 = 300;
/// What the daemon may need at most, whatever happens (KiB). A debug build needs
/// more than the program that is installed.
const MOST_MEMORY: u64 = 256 << 10;
/// How long a flood may take.
fn long() -> Duration {
    crate::process::life()
}

/// How many files, directories and links a flood makes.
fn count() -> u64 {
    std::env::var("FLOOD_FILES").map_or(8000, |count| count.parse().unwrap())
}

/// For how many seconds a flood without end goes on.
fn seconds() -> String {
    (count() / 4000).clamp(1, 60).to_string()
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
        let flood = scope.spawn(move || cmd.output_within(long()));
        let mut latencies = Vec::new();
        for number in 0.. {
            if flood.is_finished() && number >= 3 {
                break;
            }
            let path = BOB.ssh(&format!("{}{number}", args[0]));
            host.sh(BOB, &format!("echo bob > {path}")).ok();
            let made = Instant::now();
            let alert = daemon.find(long(), &path, |log| {
                let alert = |line: &&Document| line.is_alert_of(ANY) && line.is("file.path", &path);
                log.iter().rev().find(alert).cloned()
            });
            latencies.push(made.elapsed());
            // Not by the comparison that follows a flood.
            let shown = format!("{} {}", alert.brief(), alert.get("ssh_keywatch"));
            assert_eq!(alert.get("process.name"), "dash", "{shown}");
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
    assert_bounded(&taken);
}

#[track_caller]
fn assert_bounded(taken: &Taken) {
    assert!(taken.memory < MOST_MEMORY, "{taken:?}");
    assert!(taken.log < 16 << 20, "{taken:?}");
    assert!(taken.marks < 40_000, "{taken:?}");
    // One reading brings some thousand records, each with a descriptor of its process.
    assert!(taken.descriptors < 10_000, "{taken:?}");
}

fn status(host: &Host) -> String {
    let output = host
        .command(crate::host::PROGRAM)
        .args(["status"])
        .output_within(SOON);
    output.stdout
}

/// Links and renames are not held: they come as fast as the kernel makes them.
#[test]
fn renames_and_links_as_fast_as_can_be_are_one_alert_and_a_count() {
    let host = Host::new();
    let daemon = start(&host);
    let directory = ANN.ssh("");
    let (rate, latencies) = flood(&host, &daemon, &["swap", &seconds(), &directory]);
    let taken = Taken::by(&host, &daemon);
    taken.print(&rate, &shown(&latencies));
    host.sh(ANN, ": > .ssh/one").ok();
    let links = count().to_string();
    let file = ANN.ssh("one");
    let args = ["links", links.as_str(), &file, &directory];
    let (rate, latencies) = flood(&host, &daemon, &args);
    let taken = Taken::by(&host, &daemon);
    let ended = daemon.stop();
    taken.print(&rate, &shown(&latencies));
    assert_one_flood(&ended, "/run/it/tools/flood");
    // How many of them the kernel merges depends on how busy the machine is.
    assert!(told(&ended, "rename") + counted(&ended, "renames") > 0);
    assert_bounded(&taken);
}

/// The kernel's queue is one for all. Whoever fills it faster than it is read is not
/// listened to for a while, so that others are; what happened there is found then.
#[test]
fn a_home_that_is_louder_than_can_be_read_is_not_listened_to_for_a_while() {
    let host = Host::new();
    let daemon = start(&host);
    host.sh(
        ANN,
        "ssh-keygen -q -t ed25519 -N '' -f id; : > .ssh/authorized_keys",
    )
    .ok();
    daemon.alert(ANY, &ANN.ssh("authorized_keys"));
    let directory = ANN.ssh("");
    let count = count().max(150_000).to_string();
    let file = ANN.ssh("authorized_keys");
    let links = host.command(format!("{TOOLS}/flood")).user(ANN);
    let links = links.args(["links", &count, &file, &directory]);
    // Nothing is read, and the queue grows: each link is a record of its own.
    let behind = Stopped::thread(daemon.pid(), "watch");
    let output = links.output_within(long());
    assert!(output.status.success(), "{output:?}");
    drop(behind);
    let said = |line: &String| line.contains("/home/ann is not looked at for 2 seconds");
    let muted = daemon
        .stderr
        .wait(SOON, |lines| lines.iter().any(said).then_some(()));
    assert!(muted.is_some(), "{:?}", daemon.stderr.so_far());
    // Nobody hears it, and yet it is found; others are heard meanwhile.
    host.sh(
        ANN,
        "rm .ssh/authorized_keys; cat id.pub > .ssh/authorized_keys",
    )
    .ok();
    host.sh(BOB, "echo bob > .ssh/meanwhile").ok();
    daemon.alert(ANY, &BOB.ssh("meanwhile"));
    let flood = daemon.line("flood", |line| line.is_alert_of(FLOOD));
    assert_eq!(flood.text("file.path"), ANN.home);
    let added = daemon.find(SOON * 2, "login that was added", |log| {
        let added = |line: &&Document| line.is_alert_of(ADDED) && line.is("file.path", &file);
        log.iter().find(added).cloned()
    });
    let taken = Taken::by(&host, &daemon);
    let ended = daemon.stop();
    let more = format!(
        "; {} records unread; the login was found by {}",
        counted(&ended, "records"),
        added.text("ssh_keywatch.evidence")
    );
    taken.print(output.stdout.trim(), &more);
    assert!(counted(&ended, "records") > 0);
    assert_bounded(&taken);
}

/// Each time the directory is another one, to be marked and looked into.
#[test]
fn a_directory_that_comes_and_goes_all_the_time_is_bounded() {
    let host = Host::new();
    let daemon = start(&host);
    host.sh(ANN, "cd .ssh; for i in $(seq 2000); do : > f$i; done")
        .ok();
    let directory = format!("{}/.ssh", ANN.home);
    let (rate, latencies) = flood(&host, &daemon, &["away", &seconds(), &directory]);
    let taken = Taken::by(&host, &daemon);
    taken.print(&rate, &shown(&latencies));
    // What is made while a look has to wait is found by that look, without a name.
    host.sh(ANN, "ssh-keygen -q -t ed25519 -N '' -f .ssh/id_ed25519")
        .ok();
    let path = ANN.ssh("id_ed25519");
    daemon.find(SOON * 6, "the key", |log| {
        let is_it = |line: &Document| line.is_alert() && line.is("file.path", &path);
        log.iter().any(is_it).then_some(())
    });
    daemon.stop();
    assert_bounded(&taken);
}

#[test]
fn directories_without_end_leave_others_theirs() {
    let host = Host::new();
    let daemon = start(&host);
    let directory = ANN.ssh("");
    let (rate, latencies) = flood(&host, &daemon, &["dirs", &count().to_string(), &directory]);
    let taken = Taken::by(&host, &daemon);
    taken.print(&rate, &shown(&latencies));
    let (rate, latencies) = flood(&host, &daemon, &["deep", "500", &directory]);
    taken.print(&rate, &shown(&latencies));
    // Bob has his own.
    host.sh(BOB, "mkdir -p .ssh/a/b; : > .ssh/a/b/key").ok();
    daemon.alert(ANY, &BOB.ssh("a/b/key"));
    let ended = daemon.stop();
    let limits = ended
        .log
        .iter()
        .filter(|line| line.is("event.code", "home_directory_limit"));
    assert_eq!(limits.count(), 1);
    assert_bounded(&taken);
}

/// Names of 255 bytes of newlines and escapes, of which none gets through.
#[test]
fn hostile_names_without_end_are_bounded() {
    let host = Host::new();
    let daemon = start(&host);
    let directory = ANN.ssh("");
    let some = (count() / 4).to_string();
    let (rate, latencies) = flood(&host, &daemon, &["names", &some, &directory]);
    let taken = Taken::by(&host, &daemon);
    taken.print(&rate, &shown(&latencies));
    let ended = daemon.stop();
    assert_one_flood(&ended, "/run/it/tools/flood");
    for line in ended.stdout.iter().chain(&ended.stderr) {
        let hostile = line.chars().any(char::is_control);
        assert!(!hostile, "{line:?}");
    }
    assert_bounded(&taken);
}

/// Ten gigabytes that begin like a key, all of them holes.
#[test]
fn a_key_of_ten_gigabytes_is_not_read() {
    let host = Host::on_disk();
    let daemon = start(&host);
    let path = ANN.ssh("id_big");
    let began = Instant::now();
    let script = format!(
        "truncate -s 10G {path}
         echo '-----BEGIN OPENSSH PRIVATE KEY-----' | dd status=none conv=notrunc of={path}"
    );
    host.sh(ANN, &script).ok();
    let alert = daemon.alert(ANY, &path);
    assert_eq!(alert.number("file.size"), Some(10 << 30));
    let waited = began.elapsed();
    assert!(alert.get("file.hash").is_null(), "{}", alert.brief());
    let taken = Taken::by(&host, &daemon);
    taken.print("10 GiB", &format!("; alert after {waited:.1?}"));
    daemon.stop().assert_nothing_lost();
    assert_bounded(&taken);
}
