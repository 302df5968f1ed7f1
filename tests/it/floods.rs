//! Whatever one user does as often as they can, the daemon stays small, says what
//! it left out, and tells what happens in other homes.
//!
//! `FLOOD_FILES` says how much (a million, say); the figures are printed.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use crate::attribution::overdue;
use crate::daemon::{Daemon, Ended};
use crate::document::{ANY, Document, SEED, rule};
use crate::holding::Stopped;
use crate::host::{ANN, BOB, Host, TOOLS};
use crate::process::SOON;

/// The shipped rule.
const FLOOD: &str = "5d0c1f7e-3a52-4c1e-9b7a-6f2d8c04e9b1";
/// The shipped rule about logins that are added.
const ADDED: &str = "8b796b86-adcc-4d3a-b467-349913db4cd3";
/// How many events of one home are told here: in a long run bob needs as many as there are
/// by default.
fn events() -> u64 {
    if count() > 20_000 { 5000 } else { 300 }
}
/// How many files of a home are remembered (`watch.home_files`).
const REMEMBERED: u64 = 16_384;
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

/// Every change of a name, whatever it is; an alert that has to be on the disk at once.
fn any() -> String {
    let query = r#"file where event.action in ("creation", "rename", "deletion")"#;
    rule(ANY, "Any change", query).replace(r#"severity = "low""#, r#"severity = "high""#)
}

fn start(host: &Host) -> Daemon<'_> {
    start_with_log(host, crate::daemon::LOG)
}

fn start_with_log<'h>(host: &'h Host, log: &'static str) -> Daemon<'h> {
    for user in [ANN, BOB] {
        host.sh(user, "mkdir -p -m 700 .ssh").ok();
    }
    let config = format!(
        "[watch]\nhome_events = {}\n[log]\nmax_size = \"off\"\n",
        events()
    );
    let daemon = host.daemon().config(&config).rule("any", &any());
    daemon.log(log).start()
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
            memory: daemon.status("VmHWM:"),
            descriptors,
            marks,
            cpu: Duration::from_millis(ticks * 10),
            log: host.path(daemon.log()).metadata().unwrap().len(),
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

/// What a muted directory's mark asks for.
const MUTED: u64 = libc::FAN_OPEN_EXEC | libc::FAN_EVENT_ON_CHILD;

/// What the daemon's marks on this directory ask for.
fn masks(host: &Host, daemon: &Daemon<'_>, directory: &str) -> Vec<u64> {
    let inode = host.path(directory).metadata().unwrap().ino();
    let marks = daemon.marks().into_iter();
    let here = marks.filter(|(marked, _)| *marked == inode);
    here.map(|(_, mask)| mask).collect()
}

/// Has ann do something as often as she can, while bob makes files; says how fast she
/// was, and how long his alerts took.
fn flood(host: &Host, daemon: &Daemon<'_>, args: &[&str]) -> (String, String) {
    let how = args
        .iter()
        .find(|arg| arg.parse::<u32>().is_err() && **arg != "by");
    meanwhile(host, daemon, how.unwrap(), || {
        let flood = host.command(format!("{TOOLS}/flood")).user(ANN).args(args);
        let output = flood.output_within(long());
        assert!(output.status.success(), "{output:?}");
        output.stdout.trim().to_owned()
    })
}

/// Does something while bob makes files; says how long his alerts took, too.
fn meanwhile(
    host: &Host,
    daemon: &Daemon<'_>,
    name: &str,
    act: impl FnOnce() -> String,
) -> (String, String) {
    let prefix = BOB.ssh(&format!("{name}."));
    // So many that two floods leave bob within his own budget, however long they take.
    let (uid, fast) = (BOB.id.to_string(), (events() / 3).to_string());
    let patience = (SOON * 3).as_secs().to_string();
    let args = [&uid, &prefix, daemon.log(), "50", &fast, &patience];
    let mut pace = host
        .command(format!("{TOOLS}/pace"))
        .args(args)
        .spawn_talking();
    daemon.alert(ANY, &format!("{prefix}0"));
    let before = Taken::by(host, daemon).cpu;
    let began = Instant::now();
    let said = act();
    let took = began.elapsed();
    let cpu = Taken::by(host, daemon).cpu.saturating_sub(before);
    let busy = cpu.as_secs_f64() / took.as_secs_f64();
    pace.close_stdin();
    let mut latencies = String::new();
    pace.stdout().read_to_string(&mut latencies).unwrap();
    assert!(pace.end(SOON).success(), "{latencies}");
    // Each by its maker, and not by the comparison that follows a flood.
    daemon.find(SOON, "bob's files", |log| {
        let of_bob = |line: &&Document| line.text("file.path").starts_with(&prefix);
        let mut of_bob = log
            .iter()
            .filter(|line| line.is_alert_of(ANY))
            .filter(of_bob);
        let other = of_bob.find(|alert| !alert.is("process.name", "pace"));
        if let Some(alert) = other {
            panic!("{} {}", alert.brief(), alert.get("ssh_keywatch"));
        }
        Some(())
    });
    let latencies = latencies.trim();
    (said, format!(", {busy:.2} CPUs; bob: {latencies}"))
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
    // On a busy machine others may wait behind her: then less of hers is told at once.
    let mut told = (0..3).map(|_| files_without_end());
    assert!(told.any(|told| told >= events()), "never enough");
}

/// How many are told by alerts of their own.
#[track_caller]
fn files_without_end() -> u64 {
    let host = Host::on_disk();
    // Each alert is waited for until it is on the disk.
    let daemon = start_with_log(&host, "/run/it/disk/alerts.json");
    let count = count();
    let directory = ANN.ssh("");
    let (rate, latencies) = flood(&host, &daemon, &["files", &count.to_string(), &directory]);
    // Before it is over.
    let status = status(&host);
    assert!(status.contains("a flood in /home/ann"), "{status}");
    heard(&host, &daemon);
    // In the midst of it all, what lets somebody in is told.
    host.sh(ANN, "ssh-keygen -q -t ed25519 -N '' -f .ssh/id_ed25519; cat .ssh/id_ed25519.pub > .ssh/authorized_keys")
        .ok();
    for name in ["id_ed25519", "id_ed25519.pub", "authorized_keys"] {
        find_any(&daemon, &ANN.ssh(name));
    }
    daemon.alert(SEED, &ANN.ssh("id_ed25519"));
    found(&daemon);
    let taken = Taken::by(&host, &daemon);
    let ended = daemon.stop();
    taken.print(&rate, &latencies);
    assert_one_flood(&ended, "/run/it/tools/flood");
    // Every single file is either told or counted, besides what a comparison tells later.
    // Where she was not listened to for a while, only what can be remembered is found then,
    // and that there is more is said.
    let told = told(&ended, "creation");
    let compared = |alert: &&&Document| {
        let of_ann = alert.text("file.path").starts_with(ANN.home);
        of_ann && alert.is("ssh_keywatch.evidence", "baseline")
    };
    let compared = ended.alerts(ANY).iter().filter(compared).count() as u64;
    let seen = told - compared + counted(&ended, "creations");
    if count > REMEMBERED && ended.stderr.iter().any(is_deaf) {
        assert!(seen >= REMEMBERED, "{seen}");
        let mut log = ended.log.iter();
        assert!(log.any(|line| line.is("event.code", "home_file_limit")));
    } else {
        assert_eq!(seen, count + 3);
    }
    assert!(told >= events() / 16, "{told}");
    assert_bounded(&taken);
    told
}

/// The word that ann is not listened to for a while.
#[expect(clippy::ptr_arg, reason = "of a list of lines")]
fn is_deaf(line: &String) -> bool {
    line.contains("/home/ann is not looked at")
}

/// Waits until ann is listened to again, if she is not.
#[track_caller]
fn heard(host: &Host, daemon: &Daemon<'_>) {
    let is_heard = || masks(host, daemon, &ANN.ssh("")) != [MUTED];
    assert!(waited(SOON * 4, is_heard), "{:?}", daemon.stderr.so_far());
}

/// Waits until it has been found what she did while she was not listened to, if ever.
#[track_caller]
fn found(daemon: &Daemon<'_>) {
    let is_found = |lines: &[String]| {
        let deaf = lines.iter().rposition(is_deaf).unwrap_or(lines.len());
        let mut later = lines[deaf..].iter();
        let is_over = deaf == lines.len() || later.any(|line| line.contains("compared"));
        is_over.then_some(())
    };
    let found = daemon.stderr.wait(SOON * 4, is_found);
    assert!(found.is_some(), "{:?}", daemon.stderr.so_far());
}

/// Waits for an alert on a file of a home that has a great many told before it.
#[track_caller]
fn find_any(daemon: &Daemon<'_>, path: &str) {
    daemon.find(SOON * 3, &format!("alert on {path}"), |log| {
        let is_it = |line: &Document| line.is_alert_of(ANY) && line.is("file.path", path);
        log.iter().any(is_it).then_some(())
    });
}

#[track_caller]
fn assert_bounded(taken: &Taken) {
    assert!(taken.memory < MOST_MEMORY, "{taken:?}");
    // Of two homes, by the longest names and arguments there are here.
    assert!(
        taken.log < (4 << 20) + 2 * events() * (16 << 10),
        "{taken:?}"
    );
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
    let (rate, latencies) = flood(&host, &daemon, &["by", "3", "swap", &seconds(), &directory]);
    let taken = Taken::by(&host, &daemon);
    taken.print(&rate, &latencies);
    host.sh(ANN, ": > .ssh/one").ok();
    let links = count().to_string();
    let file = ANN.ssh("one");
    let args = ["by", "3", "links", links.as_str(), &file, &directory];
    let (rate, latencies) = flood(&host, &daemon, &args);
    let taken = Taken::by(&host, &daemon);
    let ended = daemon.stop();
    taken.print(&rate, &latencies);
    assert_one_flood(&ended, "/run/it/tools/flood");
    // How many of them the kernel merges depends on how busy the machine is.
    assert!(told(&ended, "rename") + counted(&ended, "renames") > 0);
    assert_bounded(&taken);
}

/// Has ann fill the kernel's queue until she is not listened to any more, with this file
/// that she has; says how fast she was. What is left of her marks has been seen then.
fn mute_ann(host: &Host, daemon: &Daemon<'_>, file: &str) -> String {
    let directory = ANN.ssh("");
    let count = count().max(150_000).to_string();
    let links = host.command(format!("{TOOLS}/flood")).user(ANN);
    let links = links.args(["links", &count, file, &directory]);
    let mutes = || {
        daemon
            .stderr
            .so_far()
            .iter()
            .filter(|line| is_deaf(line))
            .count()
    };
    // Only what spares the kernel to go through all names once more.
    let is_muted = || masks(host, daemon, &directory) == [MUTED];
    let began = Instant::now();
    loop {
        let before = mutes();
        // Nothing is read, and the queue grows: each link is a record of its own.
        let behind = Stopped::thread(daemon.pid(), "watch");
        let output = links.output_within(long());
        assert!(output.status.success(), "{output:?}");
        drop(behind);
        // Reading takes longer than it may, however fast the machine and the program are.
        while mutes() == before && !waited(Duration::from_millis(100), is_muted) {
            assert!(began.elapsed() < SOON * 4, "{:?}", daemon.stderr.so_far());
            let _behind = Stopped::thread(daemon.pid(), "watch");
            std::thread::sleep(Duration::from_millis(1200));
        }
        if waited(Duration::from_secs(1), is_muted) {
            return output.stdout.trim().to_owned();
        }
        // That was over before it could be seen; the next time it is longer.
        host.sh(ANN, "find .ssh -name 'l.*' -delete").ok();
    }
}

/// Whether this comes true in time.
fn waited(bound: Duration, is: impl Fn() -> bool) -> bool {
    let until = Instant::now() + bound;
    loop {
        if is() {
            return true;
        }
        if Instant::now() > until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
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
    host.sh(BOB, ": > .ssh/taken").ok();
    daemon.alert(ANY, &BOB.ssh("taken"));
    let (directory, file) = (ANN.ssh(""), ANN.ssh("authorized_keys"));
    let rate = mute_ann(&host, &daemon, &file);
    // Nobody hears it, and yet it is found; others are heard meanwhile.
    host.sh(
        ANN,
        "rm .ssh/authorized_keys; cat id.pub > .ssh/authorized_keys",
    )
    .ok();
    // What leaves a home that is heard is told, wherever it goes.
    let (from, to) = (BOB.ssh("taken"), ANN.ssh("taken"));
    let mv = host.command("mv").args([&from, &to]).ok();
    let taken = daemon.line("what left", |line| {
        line.is_alert_of(ANY) && line.is("file.path", &from) && line.is("event.action", "deletion")
    });
    let pid = Some(u64::from(mv.pid));
    assert_eq!(taken.number("process.pid"), pid, "{}", taken.brief());
    host.sh(BOB, "echo bob > .ssh/meanwhile").ok();
    daemon.alert(ANY, &BOB.ssh("meanwhile"));
    let flood = daemon.line("flood", |line| line.is_alert_of(FLOOD));
    assert_eq!(flood.text("file.path"), ANN.home);
    let added = daemon.find(SOON * 2, "login that was added", |log| {
        let added = |line: &&Document| line.is_alert_of(ADDED) && line.is("file.path", &file);
        log.iter().find(added).cloned()
    });
    // A busy machine may still be behind, and have muted her again.
    let is_heard = || masks(&host, &daemon, &directory).len() == 2;
    assert!(waited(SOON * 4, is_heard), "{:?}", daemon.stderr.so_far());
    let masks = masks(&host, &daemon, &directory);
    let told = |bits: u64| masks.iter().any(|mask| mask & bits == bits);
    assert!(
        told(libc::FAN_MODIFY | libc::FAN_CREATE | libc::FAN_EVENT_ON_CHILD),
        "{masks:x?}"
    );
    assert!(!told(libc::FAN_OPEN_EXEC), "{masks:x?}");
    let taken = Taken::by(&host, &daemon);
    let ended = daemon.stop();
    let more = format!(
        "; {} records unread; the login was found by {}",
        counted(&ended, "records"),
        added.text("ssh_keywatch.evidence")
    );
    taken.print(&rate, &more);
    assert!(counted(&ended, "records") > 0);
    assert_bounded(&taken);
}

/// Nobody hears how the key is made, and thousands of other names come with it.
#[test]
fn a_key_among_thousands_of_names_that_nobody_heard_of_is_found() {
    let host = Host::new();
    let daemon = start(&host);
    host.sh(ANN, ": > .ssh/old").ok();
    let (directory, file) = (ANN.ssh(""), ANN.ssh("old"));
    mute_ann(&host, &daemon, &file);
    let files = host.command(format!("{TOOLS}/flood")).user(ANN);
    files.args(["files", "5000", &directory]).ok();
    host.sh(
        ANN,
        "ssh-keygen -q -t ed25519 -N '' -f .ssh/id_ed25519; cat .ssh/id_ed25519.pub > .ssh/authorized_keys",
    )
    .ok();
    for name in ["id_ed25519", "id_ed25519.pub", "authorized_keys"] {
        find_any(&daemon, &ANN.ssh(name));
    }
    daemon.stop();
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
    taken.print(&rate, &latencies);
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
    taken.print(&rate, &latencies);
    let (rate, latencies) = flood(&host, &daemon, &["deep", "500", &directory]);
    taken.print(&rate, &latencies);
    // Bob has his own.
    host.sh(BOB, "mkdir -p .ssh/a/b; : > .ssh/a/b/key").ok();
    daemon.alert(ANY, &BOB.ssh("a/b/key"));
    // Once she is looked at again, if she was too loud.
    let is_limit = |line: &Document| line.is("event.code", "home_directory_limit");
    daemon.line("limit", is_limit);
    let ended = daemon.stop();
    assert_eq!(ended.log.iter().filter(|line| is_limit(line)).count(), 1);
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
    taken.print(&rate, &latencies);
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
        "truncate -s 10G big
         echo '-----BEGIN OPENSSH PRIVATE KEY-----' | dd status=none conv=notrunc of=big
         mv big {path}"
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

/// Opens are not told unless a rule asks for them, and a file that has settled is never held:
/// whoever opens it as fast as the machine can costs nobody anything. Of new files each open
/// is held once.
#[test]
fn opens_as_fast_as_can_be_keep_nobody_else_waiting() {
    let host = Host::new();
    host.sh(ANN, "mkdir -m 700 .ssh; echo old > .ssh/authorized_keys")
        .ok();
    let daemon = start(&host);
    let settled = ANN.ssh("authorized_keys");
    let args = ["by", "4", "open", &seconds(), &settled];
    let (rate, latencies) = flood(&host, &daemon, &args);
    let taken = Taken::by(&host, &daemon);
    taken.print(&rate, &latencies);
    assert_bounded(&taken);
    let directory = ANN.ssh("");
    // A file system in memory has no room for what comes in a minute.
    let briefly = (count() / 4000).clamp(1, 15).to_string();
    let args = ["by", "4", "creat", &briefly, &directory];
    let (rate, latencies) = flood(&host, &daemon, &args);
    let taken = Taken::by(&host, &daemon);
    let status = host
        .command(crate::host::PROGRAM)
        .args(["status", "--json"]);
    // It fails, for it is not well in a flood.
    let status = status.output().stdout;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let ended = daemon.stop();
    let (hold, overdue) = (&status["counters"]["hold"], overdue(&ended));
    taken.print(&rate, &format!("{latencies}; {hold}; {overdue} let go"));
    assert_one_flood(&ended, "/run/it/tools/flood");
    assert_bounded(&taken);
}
