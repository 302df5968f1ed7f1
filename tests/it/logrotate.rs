//! The real logrotate(8) at the log while the daemon writes it.

use std::collections::BTreeSet;

use nix::sys::signal::Signal;

use crate::daemon::{Daemon, LOG};
use crate::document::{ANY, Document, any_creation};
use crate::follow::Follow;
use crate::host::{ANN, Host, PROGRAM, ROOT};
use crate::process::{Process, SOON};

/// How often the log is rotated, and how many files are made meanwhile.
const ROUNDS: usize = 6;
const FILES: usize = 60;

const RULES: &str = "/run/it/logrotate.conf";

struct Scene<'h> {
    host: &'h Host,
    daemon: Daemon<'h>,
    tail: Process,
    /// What `tail -f` prints.
    followed: Follow<Document>,
    /// So many copies may end with half a line.
    may_tear: usize,
}

impl<'h> Scene<'h> {
    fn new(host: &'h Host, how: &str) -> Self {
        assert!(
            host.path("/usr/sbin/logrotate").exists(),
            "this test needs logrotate; tests/run installs it"
        );
        host.sh(ANN, "mkdir -m 700 .ssh").ok();
        host.write(
            RULES,
            format!("{LOG} {{\n    rotate 20\n    nodateext\n    missingok\n{how}}}\n"),
        );
        host.sh(ROOT, &format!("chmod 600 {RULES}")).ok();
        // One of the two rotates.
        let off = "[log]\nmax_size = \"off\"\nmax_age = \"off\"\n";
        let daemon = host
            .daemon()
            .config(off)
            .rule("any", &any_creation())
            .start();
        let mut tail = host
            .command(PROGRAM)
            .args(["tail", "-f", "--json", "-n", "100000"])
            .spawn();
        let followed = Follow::new(tail.stdout(), Document::parse);
        Self {
            host,
            daemon,
            tail,
            followed,
            may_tear: 0,
        }
    }

    fn rotate(&self) {
        self.host
            .command("logrotate")
            .args(["--force", "--state", "/run/it/logrotate.state", RULES])
            .ok();
    }

    fn files(round: usize) -> Vec<String> {
        let name = |number| ANN.ssh(&format!("f{round}_{number:03}"));
        (0..FILES).map(name).collect()
    }

    /// Somebody who makes the files of a round, one by one.
    fn maker(&self, round: usize) -> Process {
        let script = format!(
            "for n in $(seq -f %03.0f 0 {}); do : > .ssh/f{round}_$n; done",
            FILES - 1
        );
        self.host.sh(ANN, &script).spawn_silent()
    }

    /// Waits until whoever follows the log has seen the alerts on all of these.
    #[track_caller]
    fn wait(&self, paths: &[String]) {
        let mut missing: BTreeSet<&str> = paths.iter().map(String::as_str).collect();
        let mut seen = 0;
        let all = self.followed.wait(SOON, |lines| {
            for line in &lines[seen..] {
                missing.remove(line.text("file.path"));
            }
            seen = lines.len();
            missing.is_empty().then_some(())
        });
        if all.is_none() {
            for path in &self.in_the_way() {
                missing.remove(path.as_str());
            }
        }
        assert!(missing.is_empty(), "tail -f has not shown {missing:?}");
    }

    /// Paths of alerts in a log that the daemon had made before logrotate, which
    /// was slow, made its own: that moves it out of its way.
    fn in_the_way(&self) -> Vec<String> {
        let script = format!("cat {LOG}-*.backup 2>/dev/null || true");
        let there = self.host.sh(ROOT, &script).ok();
        let lines: Vec<Document> = there.stdout.lines().map(Document::parse).collect();
        paths(&lines)
    }

    /// Ends all. Gives the paths of all alerts in the log's files, sorted, and
    /// of all that `tail -f` has shown.
    #[track_caller]
    fn end(mut self) -> (Vec<String>, Vec<String>) {
        self.daemon.stop();
        self.tail.signal(Signal::SIGTERM);
        self.tail.end(SOON);
        // What logrotate packed, too. A copy may have been taken while a line
        // was half written.
        let script = format!("for file in {LOG}*; do zcat -f $file; echo; echo; done");
        let all = self.host.sh(ROOT, &script).ok();
        let whole = |line: &&str| line.ends_with('}') && line.starts_with('{');
        let lines = all.stdout.lines().filter(|line| !line.is_empty());
        let lines: Vec<&str> = lines.collect();
        let torn = lines.iter().filter(|line| !whole(line)).count();
        assert!(torn <= self.may_tear, "{torn} lines are torn");
        let lines = lines.into_iter().filter(whole).map(Document::parse);
        let lines: Vec<Document> = lines.collect();
        (paths(&lines), paths(&self.followed.all(SOON)))
    }
}

/// The paths of all alerts, sorted.
fn paths(lines: &[Document]) -> Vec<String> {
    let of = lines.iter().filter(|line| line.is_alert_of(ANY));
    let mut paths: Vec<String> = of.map(|line| line.text("file.path").to_owned()).collect();
    paths.sort();
    paths
}

#[test]
fn create_and_compress_cost_no_line_and_tail_follows() {
    let host = Host::new();
    let how = "    create 0640 root adm\n    compress\n    delaycompress\n";
    let scene = Scene::new(&host, how);
    let mut made = Vec::new();
    for round in 0..ROUNDS {
        let files = Scene::files(round);
        let mut maker = scene.maker(round);
        scene.wait(&files[..FILES / 4]);
        scene.rotate();
        assert!(maker.end(SOON).success());
        scene.wait(&files);
        made.extend(files);
    }
    let mode = scene.host.sh(ROOT, &format!("stat -c '%a %G' {LOG}")).ok();
    assert_eq!(mode.stdout, "640 adm\n");
    assert!(host.path(&format!("{LOG}.{ROUNDS}.gz")).exists());
    let in_the_way = scene.in_the_way();
    let (logged, mut followed) = scene.end();
    assert_eq!(logged, made);
    // Of what is there it may have shown some.
    let shown: BTreeSet<String> = followed.iter().cloned().collect();
    followed.extend(in_the_way.into_iter().filter(|path| !shown.contains(path)));
    followed.sort();
    assert_eq!(followed, made);
}

#[test]
fn copytruncate_tears_no_line_of_the_log_and_costs_none_that_is_not_written_meanwhile() {
    let host = Host::new();
    let mut scene = Scene::new(&host, "    copytruncate\n");
    let mut quiet = Vec::new();
    for round in 0..ROUNDS {
        let files = Scene::files(round);
        let mut maker = scene.maker(round);
        assert!(maker.end(SOON).success());
        scene.wait(&files);
        scene.rotate();
        quiet.extend(files);
        let start = std::fs::read(host.path(LOG)).unwrap();
        assert!(start.is_empty(), "somebody wrote");
    }
    // While somebody writes, what comes between the copy and the cut is lost:
    // logrotate(8) says so. But nothing else is, nothing twice.
    scene.may_tear = ROUNDS;
    for round in ROUNDS..2 * ROUNDS {
        let files = Scene::files(round);
        let mut maker = scene.maker(round);
        scene.wait(&files[..1]);
        scene.rotate();
        assert!(maker.end(SOON).success());
        let text = std::fs::read_to_string(host.path(LOG)).unwrap();
        assert!(!text.contains('\0'), "written behind a hole");
    }
    let last = Scene::files(2 * ROUNDS);
    assert!(scene.maker(2 * ROUNDS).end(SOON).success());
    scene.wait(&last);
    let (logged, followed) = scene.end();
    for paths in [logged, followed] {
        let once: BTreeSet<&String> = paths.iter().collect();
        assert_eq!(once.len(), paths.len(), "a line stands there twice");
        for path in quiet.iter().chain(&last) {
            assert!(once.contains(path), "{path} is lost");
        }
    }
}
