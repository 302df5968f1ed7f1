//! A disk without room for the log, over kills and restarts: each key is told, and
//! at most once more, by the same `event.id`.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::daemon::Daemon;
use crate::document::{ANY, Document, any_creation};
use crate::follow::Follow;
use crate::host::{ANN, BOB, Host, PROGRAM, ROOT};
use crate::process::SOON;

const DISK: &str = "/srv/small";
const ALERTS: &str = "/srv/small/log/alerts.json";

struct Scene {
    host: Host,
    made: RefCell<Vec<String>>,
}

impl Scene {
    /// A host with a small disk for the log, and for the daemon's state if `shared`.
    fn new(shared: bool) -> Self {
        let host = Host::new();
        host.sh(ANN, "mkdir -m 700 .ssh").ok();
        let mount = "mkdir $1; mount -t tmpfs -o size=3m small $1; mkdir $1/log $1/state";
        host.sh(ROOT, mount).args([DISK]).ok();
        let state = if shared {
            format!("{DISK}/state")
        } else {
            "/var/lib/ssh-keywatch".to_owned()
        };
        let config = format!("[state]\ndirectory = \"{state}\"\n");
        host.write("/etc/ssh-keywatch/config.toml", config);
        let made = RefCell::default();
        Self { host, made }
    }

    /// A daemon that has compared.
    #[track_caller]
    fn start(&self) -> Daemon<'_> {
        let daemon = self.host.daemon().log(ALERTS);
        let daemon = daemon.rule("any", &any_creation()).start();
        daemon.compared();
        daemon
    }

    /// No byte is left.
    fn fill(&self) {
        let fill = "cat /dev/zero >> $1/fill || true; sync $1/fill";
        self.host.sh(ROOT, fill).args([DISK]).ok();
    }

    fn free(&self) {
        self.host.sh(ROOT, "rm $1/fill").args([DISK]).ok();
    }

    /// Makes a key, whoever watches.
    fn make(&self, name: &str) -> String {
        let path = ANN.ssh(name);
        let keygen = self.host.keygen(ANN, "ed25519");
        keygen.args(["-f", &path]).ok();
        let public = format!("{path}.pub");
        self.made.borrow_mut().extend([path, public.clone()]);
        public
    }
}

/// As long as more comes: a slow machine takes its time for thousands of alerts.
#[track_caller]
fn wait_for(lines: &Follow<String>, part: &str) {
    let is = |line: &String| line.contains(part);
    let mut before = 0;
    while lines
        .wait(SOON, |lines| lines.iter().any(is).then_some(()))
        .is_none()
    {
        let come = lines.so_far();
        assert!(come.len() > before, "no {part:?} in {come:#?}");
        before = come.len();
    }
}

/// Each file of the log's alerts, and the ids it was told by.
fn told(log: &[Document]) -> BTreeMap<&str, Vec<&str>> {
    let mut told = BTreeMap::<&str, Vec<&str>>::new();
    for alert in log.iter().filter(|line| line.is_alert_of(ANY)) {
        let ids = told.entry(alert.text("file.path")).or_default();
        ids.push(alert.text("event.id"));
    }
    told
}

fn killed_on_a_full_disk(shared: bool) {
    let scene = Scene::new(shared);
    let daemon = scene.start();
    let path = scene.make("id_before");
    daemon.alert(ANY, &path);
    drop(daemon);

    for round in 0..3 {
        let daemon = scene.start();
        scene.fill();
        // The log has some room of its own, which is soon used up.
        for number in 0.. {
            let path = scene.make(&format!("id_full{round}_{number}"));
            wait_for(&daemon.stdout, &path);
            let said = daemon.stderr.so_far();
            if said.iter().any(|line| line.contains("No space left on")) {
                break;
            }
            assert!(number < 100, "the disk is not full: {said:#?}");
        }
        let path = scene.make(&format!("id_waiting{round}"));
        wait_for(&daemon.stdout, &path);
        daemon.kill();
        scene.make(&format!("id_down{round}"));
        // It comes back to a disk that is still full, and is killed once more.
        let daemon = scene.start();
        let path = scene.make(&format!("id_again{round}"));
        wait_for(&daemon.stdout, &path);
        daemon.kill();
        let daemon = scene.start();
        let path = scene.make(&format!("id_last{round}"));
        wait_for(&daemon.stdout, &path);
        scene.free();
        wait_for(&daemon.stderr, "writes again; lines lost: 0");
        if shared && round == 0 {
            // Without a new start, and what it told is stored.
            wait_for(&daemon.stderr, "the baseline is written again");
        }
        if round == 1 {
            // It ends well, and not by a crash.
            daemon.stop();
        }
    }
    // What the last one told and did not store is known, or told again.
    let daemon = scene.start();
    let last = scene.make("id_end");
    daemon.alert(ANY, &last);
    daemon.stop();
    let ended = scene.start().stop();

    let checked = scene.host.command(PROGRAM);
    let checked = checked.args(["check", "--log", ALERTS]).output();
    println!("{}", checked.stdout);
    let mut told = told(&ended.log);
    let (mut missed, mut twice) = (Vec::new(), 0);
    for path in scene.made.borrow().iter() {
        let Some(ids) = told.remove(path.as_str()) else {
            missed.push(path.clone());
            continue;
        };
        assert!(ids.len() <= 2, "{path} was told {} times", ids.len());
        let unique: BTreeSet<&str> = ids.iter().copied().collect();
        assert_eq!(unique.len(), 1, "{path} has two ids: {ids:?}");
        twice += usize::from(ids.len() == 2);
    }
    let files = scene.made.borrow().len();
    println!("{files} files, {twice} told twice, by the same event.id");
    assert!(missed.is_empty(), "never told: {missed:#?}");
    assert!(told.is_empty(), "nobody made {:?}", told.keys());
}

#[test]
fn a_full_disk_for_the_log_costs_no_alert_whenever_it_is_killed() {
    killed_on_a_full_disk(false);
}

#[test]
fn a_full_disk_for_the_log_and_the_baseline_costs_no_alert_whenever_it_is_killed() {
    killed_on_a_full_disk(true);
}

#[test]
fn what_neither_the_log_nor_its_spool_had_room_for_is_told_though_it_changed_since() {
    let scene = Scene::new(false);
    // So many that none is only counted, however slow this machine is.
    let config = "[watch]\nhome_events = 10000000\n";
    scene.host.write("/etc/ssh-keywatch/config.toml", config);
    let room = "mount -o remount,size=64m $1";
    scene.host.sh(ROOT, room).args([DISK]).ok();
    scene.host.sh(BOB, "mkdir -m 700 .ssh").ok();
    let daemon = scene.start();
    scene.fill();
    // More than wait in memory for a log that cannot be written.
    let many = "for n in $(seq 3000); do : > .ssh/many$n; done; : > .ssh/last";
    scene.host.sh(BOB, many).ok();
    wait_for(&daemon.stdout, &BOB.ssh("last"));
    let list = ANN.ssh("authorized_keys");
    scene.host.sh(ANN, "echo one > .ssh/authorized_keys").ok();
    wait_for(&daemon.stdout, &list);
    // No rule has a word for these; in the end, what was told in vain has been given up.
    let begun = Instant::now();
    for number in 0.. {
        scene
            .host
            .sh(ANN, "echo '# x' >> .ssh/authorized_keys")
            .ok();
        let path = scene.make(&format!("id_{number}"));
        wait_for(&daemon.stdout, &path);
        if begun.elapsed() > Duration::from_secs(2) {
            break;
        }
    }
    scene.free();
    wait_for(&daemon.stderr, "files are looked at again");
    let alert = daemon.alert(ANY, &list);
    assert!(
        alert.is("ssh_keywatch.evidence", "baseline"),
        "{}",
        alert.brief()
    );
    let reason = alert.text("event.reason");
    assert!(reason.contains("log could not be written"), "{reason}");
    for path in scene.made.borrow().iter() {
        daemon.alert(ANY, path);
    }
    let ended = daemon.stop();
    assert_eq!(told(&ended.log)[list.as_str()].len(), 1, "told twice");
}
