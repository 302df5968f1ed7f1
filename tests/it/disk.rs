//! The alert log on a disk that fails: it errs, forgets, or never answers.
//!
//! The disk is a file system of its own (`tests/workload/disk.c`, FUSE), so
//! that the kernel's own answers to write(2) and fsync(2) are what they are on a
//! broken one. Its server ends with the test, and with it every wait.

use std::io::{BufRead, BufReader, Write};
use std::process::ChildStdin;

use nix::sys::signal::Signal;

use crate::daemon::Daemon;
use crate::document::{Document, SEED};
use crate::follow::Follow;
use crate::host::{ANN, Host, ROOT, TOOLS};
use crate::journal::Journald;
use crate::process::{Process, SOON};

const DISK: &str = "/var/log/disk";
const ALERTS: &str = "/var/log/disk/alerts.json";

/// The disk, mounted on [`DISK`].
struct Disk {
    words: ChildStdin,
    answers: BufReader<std::process::ChildStdout>,
    _server: Process,
}

impl Disk {
    fn start(host: &Host) -> Self {
        host.sh(ROOT, &format!("mkdir {DISK}")).ok();
        let mut server = host
            .command(format!("{TOOLS}/disk"))
            .args([DISK])
            .spawn_talking();
        let mut disk = Self {
            words: server.stdin(),
            answers: BufReader::new(server.stdout()),
            _server: server,
        };
        disk.answer("ready");
        disk
    }

    #[track_caller]
    fn answer(&mut self, wanted: &str) {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), wanted, "is there a /dev/fuse?");
    }

    #[track_caller]
    fn tell(&mut self, word: &str) {
        writeln!(self.words, "{word}").unwrap();
        self.answer("done");
    }
}

/// A host whose log lies on such a disk, with a journal.
struct Scene<'h> {
    host: &'h Host,
    journald: Journald,
    made: Vec<String>,
}

impl<'h> Scene<'h> {
    fn new(host: &'h Host) -> Self {
        host.sh(ANN, "mkdir -m 700 .ssh").ok();
        Self {
            host,
            journald: Journald::start(host),
            made: Vec::new(),
        }
    }

    fn daemon(&self) -> Daemon<'h> {
        self.host.daemon().journal().log(ALERTS).start()
    }

    /// Makes a key, for which nobody waits, and whose alerts reach journal and
    /// terminal whatever becomes of the log.
    #[track_caller]
    fn key(&mut self, daemon: &Daemon<'_>, name: &str) {
        let path = ANN.ssh(name);
        // Bounded by itself: an opener that was held until the disk answers
        // would never end.
        self.host.keygen(ANN, "ed25519").args(["-f", &path]).ok();
        for path in [path.clone(), format!("{path}.pub")] {
            let alert = |entry: &Document| entry.is("FILE_PATH", &path);
            self.journald.entry(&format!("alert on {path}"), alert);
            wait_for(&daemon.stdout, &path);
            self.made.push(path);
        }
    }

    /// The journal has this error of the pipeline.
    #[track_caller]
    fn told(&self, code: &str, part: &str) {
        let code = format!("\"code\":\"{code}\"");
        self.journald
            .entry(&format!("{code} with {part}"), |entry| {
                entry.is("EVENT_KIND", "pipeline_error")
                    && entry.text("SSH_KEYWATCH_EVENT").contains(&code)
                    && entry.text("MESSAGE").contains(part)
            });
    }

    /// Ends the daemon. The log has every alert, once.
    #[track_caller]
    fn end(mut self, daemon: Daemon<'_>) -> Vec<Document> {
        let ended = daemon.stop();
        self.made.sort();
        assert_eq!(ended.paths(SEED), self.made);
        ended.log
    }
}

#[track_caller]
fn wait_for(lines: &Follow<String>, part: &str) {
    let is = |line: &String| line.contains(part);
    let seen = lines.wait(SOON, |lines| lines.iter().any(is).then_some(()));
    assert!(seen.is_some(), "no {part:?} in {:#?}", lines.so_far());
}

fn is_error(code: &'static str) -> impl Fn(&Document) -> bool {
    move |document| document.is("event.kind", "pipeline_error") && document.is("event.code", code)
}

#[test]
fn a_disk_that_errs_costs_no_alert() {
    let host = Host::new();
    let mut disk = Disk::start(&host);
    let mut scene = Scene::new(&host);
    let daemon = scene.daemon();
    scene.key(&daemon, "id_before");
    disk.tell("refuse");
    scene.key(&daemon, "id_refused");
    scene.told("sink_failing", "Input/output error");
    scene.key(&daemon, "id_refused_too");
    disk.tell("ok");
    scene.told("sink_recovered", "lines lost: 0");
    scene.key(&daemon, "id_after");
    let log = scene.end(daemon);
    // The log tells of its own trouble, too, now that it can.
    for code in ["sink_failing", "sink_recovered"] {
        assert_eq!(log.iter().filter(|line| is_error(code)(line)).count(), 1);
    }
}

#[test]
fn what_a_disk_refuses_only_when_it_is_forced_is_written_again() {
    let host = Host::new();
    let mut disk = Disk::start(&host);
    let mut scene = Scene::new(&host);
    let daemon = scene.daemon();
    scene.key(&daemon, "id_before");
    disk.tell("forget");
    scene.key(&daemon, "id_forgotten");
    scene.told("sink_failing", "cannot force it to disk");
    scene.told("sink_recovered", "lines lost: 0");
    scene.key(&daemon, "id_after");
    let log = scene.end(daemon);
    // What a power failure would have left is the log as it was read.
    disk.tell(&format!("save {}", host.path("/run/it/saved").display()));
    let forced = std::fs::read_to_string(host.path("/run/it/saved")).unwrap();
    let forced: Vec<Document> = forced.lines().map(Document::parse).collect();
    assert_eq!(forced.len(), log.len());
    for (forced, line) in forced.iter().zip(&log) {
        assert_eq!(forced.0, line.0);
    }
}

#[test]
fn a_disk_that_never_answers_keeps_nobody_waiting() {
    let host = Host::new();
    let mut disk = Disk::start(&host);
    let mut scene = Scene::new(&host);
    let daemon = scene.daemon();
    scene.key(&daemon, "id_before");
    disk.tell("hang");
    for number in 0..3 {
        scene.key(&daemon, &format!("id_hanging{number}"));
    }
    scene.told("sink_hanging", "sink log hangs");
    scene.key(&daemon, "id_told");
    disk.tell("ok");
    scene.told("sink_recovered", "lines lost: 0");
    scene.key(&daemon, "id_after");
    let log = scene.end(daemon);
    assert_eq!(
        log.iter()
            .filter(|line| is_error("sink_hanging")(line))
            .count(),
        1
    );
    assert!(!log.iter().any(|line| line.is_state("degraded")));
}

#[test]
fn a_daemon_ends_though_its_disk_never_answers() {
    let host = Host::new();
    let mut disk = Disk::start(&host);
    let mut scene = Scene::new(&host);
    let mut daemon = scene.daemon();
    scene.key(&daemon, "id_before");
    disk.tell("hang");
    scene.key(&daemon, "id_hanging");
    let (status, said) = daemon.end_unread(Signal::SIGTERM);
    assert!(status.success(), "{status}: {said:#?}");
    let left = said.iter().any(|line| line.contains("sink log: "));
    assert!(left, "{said:#?}");
}
