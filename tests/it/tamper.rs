//! What somebody does to the daemon itself, its log and its program, is told.

use std::fs;
use std::io::Write;

use crate::daemon::{Daemon, LOG};
use crate::document::{ANY, Document, any_creation};
use crate::host::{ANN, Host, PROGRAM, TOOLS};
use crate::process::SOON;

/// What `check --log` says of the log, and whether all is well.
fn check(host: &Host) -> (bool, String) {
    let output = host.command(PROGRAM).args(["check", "--log"]).output();
    let code = output.status.code();
    assert!(matches!(code, Some(0 | 1)), "{output:?}");
    (code == Some(0), output.stdout)
}

fn key(host: &Host, name: &str) {
    host.sh(ANN, "mkdir -pm 700 .ssh").ok();
    let keygen = host.keygen(ANN, "ed25519");
    keygen.args(["-f", &ANN.ssh(name)]).ok();
}

#[test]
fn a_log_that_was_edited_cut_or_added_to_is_known() {
    let host = Host::new();
    for run in 0..2 {
        let daemon = host.daemon().rule("any", &any_creation()).start();
        key(&host, &format!("id_{run}"));
        daemon.alert(ANY, &ANN.ssh(&format!("id_{run}.pub")));
        let ended = daemon.stop();
        ended.assert_nothing_lost();
    }
    let (well, said) = check(&host);
    assert!(well && said.contains("each is as it was written"), "{said}");
    assert!(said.starts_with(&format!("  {LOG}: ")), "{said}");

    let log = host.path(LOG);
    let good = fs::read_to_string(&log).unwrap();
    let edited = good.replace("id_0.pub", "id_x.pub");
    assert_ne!(edited, good);
    fs::write(&log, edited).unwrap();
    let (well, said) = check(&host);
    assert!(
        !well && said.contains("is not the one that was written"),
        "{said}"
    );

    let lines: Vec<&str> = good.lines().collect();
    let without: Vec<&str> = [&lines[..2], &lines[3..]].concat();
    fs::write(&log, without.join("\n") + "\n").unwrap();
    let (well, said) = check(&host);
    assert!(
        !well && said.contains("alerts.json:3: line 3 before it is missing"),
        "{said}"
    );

    // The end is missing: the daemon says so, too.
    fs::write(&log, lines[..3].join("\n") + "\n").unwrap();
    let (well, said) = check(&host);
    assert!(!well && said.contains("it ends at line 3"), "{said}");
    let daemon = host.daemon().rule("any", &any_creation()).start();
    let note = daemon.line("note", |line| line.is("event.code", "sink_note"));
    assert!(
        note.text("event.reason").contains("it ends at line 3"),
        "{}",
        note.brief()
    );

    // And what others write while it runs.
    let mut other = fs::OpenOptions::new().append(true).open(&log).unwrap();
    other
        .write_all(b"{\"event\":{\"kind\":\"alert\"}}\n")
        .unwrap();
    key(&host, "id_more");
    daemon.alert(ANY, &ANN.ssh("id_more"));
    let note = daemon.line("note", |line| {
        line.text("event.reason").contains("others than")
    });
    assert!(note.is("event.code", "sink_note"));
    daemon.stop();
    let (well, said) = check(&host);
    assert!(!well && said.contains("it has no number"), "{said}");

    let other = host.command(PROGRAM).args(["check", "--log", "/dev/null"]);
    assert_eq!(other.output().status.code(), Some(70));
}

/// Waits for what the daemon finds when it looks, now and then.
fn fault(daemon: &Daemon<'_>, code: &str) -> Document {
    daemon.find(SOON * 6, code, |log| {
        let mut lines = log.iter();
        lines.find(|line| line.is("event.code", code)).cloned()
    })
}

#[test]
fn marks_that_somebody_took_off_and_a_program_that_was_replaced_are_told() {
    let host = Host::new();
    key(&host, "id_before");
    let daemon = host.daemon().rule("any", &any_creation()).start();
    let flushed = host.command(format!("{TOOLS}/flush"));
    flushed.args([daemon.pid().to_string()]).ok();
    let told = fault(&daemon, "marks_removed");
    let reason = told.text("event.reason");
    assert!(reason.contains("have lost their mark"), "{reason}");

    // Another program under its name.
    let other = ["--bind", "/usr/bin/true", PROGRAM];
    host.command("mount").args(other).ok();
    let told = fault(&daemon, "program_replaced");
    let reason = told.text("event.reason");
    let sum = host
        .command("sha256sum")
        .args(["/usr/bin/true"])
        .ok()
        .stdout;
    let sum = sum.split_whitespace().next().unwrap();
    assert!(reason.contains(PROGRAM) && reason.contains(sum), "{reason}");
    daemon.stop();
}

#[test]
fn a_run_that_was_cut_short_is_told_by_the_next_and_one_that_ended_is_not() {
    let host = Host::new();
    let cut_short = |log: &[Document]| {
        let code = |line: &&Document| line.is("event.code", "run_cut_short");
        log.iter().filter(code).count()
    };
    host.daemon().start().stop();
    let daemon = host.daemon().start();
    // The baseline says that a run has begun before it is compared with, and is opened
    // beside the watching: what is killed before that has not begun for it.
    daemon.compared();
    daemon.kill();
    let daemon = host.daemon().start();
    let told = daemon.line("fault", |line| line.is("event.code", "run_cut_short"));
    assert!(
        told.text("event.reason")
            .contains("ended without a word after")
    );
    let ended = daemon.stop();
    assert_eq!(cut_short(&ended.log), 1);
    let ended = host.daemon().start().stop();
    assert_eq!(cut_short(&ended.log), 1, "and no more");
}
