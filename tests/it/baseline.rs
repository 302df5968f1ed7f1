//! What happened while the daemon did not watch, found by comparison.

use std::collections::BTreeSet;
use std::time::Instant;

use nix::sys::signal::Signal;

use crate::daemon::{Daemon, Ended};
use crate::document::{ANY, Document, any_creation, anything, rule};
use crate::holding::Stopped;
use crate::host::{ANN, BOB, Host, ROOT};
use crate::process::{SOON, only};

const ADDED: &str = "8b796b86-adcc-4d3a-b467-349913db4cd3";
const REMOVED: &str = "4e5e91ef-7a62-4687-896e-cf3f5d724a44";
const UNSEEN: &str = "f0c94d1b-2b0c-4b57-9a0e-6f5f0d2f6c11";
const STORE: &str = "/var/lib/ssh-keywatch/baseline.redb";

const ANN_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDN10vUUA50jhaILXX640/rWaCKUnA11AsVZpZtbB9Nk ann\n";
const BOB_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA bob\n";

fn host() -> Host {
    let host = Host::new();
    host.sh(ANN, "mkdir -m 700 .ssh; echo notes > .ssh/notes")
        .ok();
    host.write(&ANN.ssh("authorized_keys"), ANN_KEY);
    host
}

/// A daemon that has compared all there is.
fn compared(host: &Host) -> Daemon<'_> {
    let daemon = host.daemon().rule("any", &anything()).start();
    daemon.compared();
    daemon
}

/// The kernel tells of the closing alone.
#[test]
fn what_is_stored_through_a_mapping_is_found_when_the_file_is_closed() {
    let host = host();
    let daemon = compared(&host);
    // To open it for writing and write nothing is no change.
    host.sh(ANN, "touch .ssh/notes; : >> .ssh/notes").ok();
    host.sh(ANN, "/run/it/tools/act map .ssh/notes").ok();
    let notes = ANN.ssh("notes");
    let found = daemon.line("change of the file", |line| {
        line.is_alert_of(ANY) && line.is("file.path", &notes)
    });
    assert!(found.is("event.action", "modification"), "{found:?}");
    assert!(found.is("ssh_keywatch.attribution.method", "none"));
    assert_eq!(found.get("ssh_keywatch.attribution")["certain"], false);
    assert!(found.text("event.reason").contains("through a mapping"));
    let ended = daemon.stop();
    assert_eq!(ended.paths(ANY), [notes]);
    ended.assert_nothing_lost();
}

/// A page that has been written to takes stores that move no times.
#[test]
fn what_is_stored_through_a_mapping_after_a_write_is_found_all_the_same() {
    let host = host();
    let list = ANN.ssh("authorized_keys");
    host.write(&list, format!("#{}\n{ANN_KEY}", " ".repeat(500)));
    host.sh(ROOT, "chown ann ~ann/.ssh/authorized_keys").ok();
    let daemon = compared(&host);
    let late = "mkfifo go; /run/it/tools/act map-late .ssh/authorized_keys go \"$1\"";
    let key = format!("\n{BOB_KEY}");
    let script = format!("set -- '{key}'; {late}");
    let mut writer = host.sh(ANN, &script).spawn();
    daemon.alert(ANY, &list);
    host.sh(ANN, ": > go").ok();
    assert!(writer.end(SOON).success());
    let added = daemon.alert(ADDED, &list);
    assert_eq!(added.get("ssh_keywatch.key.added")[0]["comment"], "bob");
    assert!(added.text("event.reason").contains("through a mapping"));
    let ended = daemon.stop();
    assert_eq!(ended.paths(ANY), [list.clone(), list]);
    ended.assert_nothing_lost();
}

/// A run in which nothing happens.
fn run(host: &Host) -> Ended {
    compared(host).stop()
}

/// What of the log belongs to the last run.
fn last_run(ended: &Ended) -> Vec<&Document> {
    let start = ended.log.iter().rposition(|line| line.is_state("start"));
    // The comparison begins before the daemon says that it has started.
    let stop = ended.log[..start.unwrap()]
        .iter()
        .rposition(|line| line.is_state("stop"));
    let from = stop.map_or(0, |stop| stop + 1);
    ended.log[from..].iter().collect()
}

fn alerts<'e>(ended: &'e Ended, rule: &str) -> Vec<&'e Document> {
    let mut lines = last_run(ended);
    lines.retain(|line| line.is_alert_of(rule));
    lines
}

#[test]
fn the_first_start_takes_stock_and_what_has_not_changed_is_no_news() {
    let host = host();
    let first = run(&host);
    assert!(first.alerts(ANY).is_empty(), "{:?}", first.paths(ANY));
    let stock = first.stderr.iter().find(|line| line.contains("took stock"));
    assert!(stock.unwrap().contains("2 files"), "{stock:?}");
    let mode = std::fs::metadata(host.path(STORE)).unwrap().permissions();
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&mode) & 0o7777,
        0o600
    );

    // New times, owners and a copy in its place are no other content.
    host.sh(
        ROOT,
        "cd ~ann/.ssh; touch notes; chmod 640 notes; cp -p authorized_keys new; mv new authorized_keys",
    )
    .ok();
    let second = run(&host);
    assert!(second.alerts(ANY).is_empty(), "{:?}", second.paths(ANY));
    second.assert_nothing_lost();
}

#[test]
fn a_key_made_while_it_was_down_is_told_once_with_the_reason() {
    let host = host();
    run(&host);
    let key = ANN.ssh("id_secret");
    host.keygen(ANN, "ed25519").args(["-f", &key]).ok();
    let ended = run(&host);
    let alert = only(alerts(&ended, UNSEEN), &key);
    assert!(alert.is("file.path", &key), "{}", alert.brief());
    for (field, value) in [
        ("event.action", "creation"),
        ("ssh_keywatch.evidence", "baseline"),
        ("ssh_keywatch.attribution.method", "none"),
        ("ssh_keywatch.key.comment", "it"),
        ("file.owner", "ann"),
    ] {
        assert_eq!(alert.text(field), value, "{field} of {}", alert.brief());
    }
    assert_eq!(alert.get("ssh_keywatch.attribution.certain"), false);
    assert!(alert.get("process.executable").is_null());
    let reason = alert.text("event.reason");
    assert!(reason.contains("not running, between"), "{reason}");
    assert!(alert.text("message").contains("not watching"));
    let [since, until] = ["event.start", "event.end"].map(|name| alert.text(name));
    assert!(reason.contains(since) && reason.contains(until), "{reason}");
    let made = alert.text("file.ctime");
    assert!(since <= made && made <= until, "{since} {made} {until}");
    assert_eq!(alerts(&ended, ANY).len(), 2, "the two halves");

    let again = run(&host);
    assert!(alerts(&again, ANY).is_empty(), "told again");
    again.assert_nothing_lost();
}

#[test]
fn a_login_added_while_it_was_down_and_one_taken_away() {
    let host = host();
    run(&host);
    let list = ANN.ssh("authorized_keys");
    host.write(&list, format!("{ANN_KEY}{BOB_KEY}"));
    let ended = run(&host);
    let alert = only(alerts(&ended, ADDED), &list);
    assert!(alert.is("event.action", "modification"));
    assert_eq!(alert.number("ssh_keywatch.key.added_count"), Some(1));
    assert_eq!(alert.get("ssh_keywatch.key.added")[0]["comment"], "bob");

    host.write(&list, BOB_KEY);
    let ended = run(&host);
    let alert = only(alerts(&ended, REMOVED), &list);
    assert_eq!(alert.get("ssh_keywatch.key.removed")[0]["comment"], "ann");

    std::fs::remove_file(host.path(&list)).unwrap();
    let ended = run(&host);
    let alert = only(alerts(&ended, REMOVED), &list);
    assert!(alert.is("event.action", "deletion"));
    assert_eq!(alert.get("ssh_keywatch.key.removed")[0]["comment"], "bob");

    // In a home that was not there before.
    host.sh(ROOT, "mkdir -p ~bob/.ssh").ok();
    host.write(&BOB.ssh("authorized_keys"), ANN_KEY);
    let ended = run(&host);
    let alert = only(alerts(&ended, ADDED), "bob's");
    assert_eq!(alert.get("ssh_keywatch.key.added")[0]["comment"], "ann");
    let again = run(&host);
    assert!(alerts(&again, ANY).is_empty(), "told again");
}

#[test]
fn what_was_seen_is_no_news_at_the_next_start() {
    let host = host();
    let daemon = compared(&host);
    let key = ANN.ssh("id_new");
    host.keygen(ANN, "ed25519").args(["-f", &key]).ok();
    host.sh(
        ANN,
        "cd .ssh; echo more >> notes; mv notes other; ln -s other link; mkdir -p a/b; echo > a/b/c",
    )
    .ok();
    daemon.alert(ANY, &ANN.ssh("a/b/c"));
    // Of the files in a directory that moves, nothing is told.
    host.sh(ANN, "cd .ssh; mv a z; echo > last").ok();
    daemon.alert(ANY, &ANN.ssh("last"));
    daemon.stop();
    let ended = run(&host);
    let paths: Vec<_> = alerts(&ended, ANY)
        .iter()
        .map(|alert| alert.text("file.path").to_owned())
        .collect();
    assert!(paths.is_empty(), "{paths:?}");
}

#[test]
fn killed_at_any_moment_nothing_is_lost_and_nothing_is_told_twice() {
    let host = host();
    drop(run(&host));
    let mut made = Vec::new();
    for round in 0..6 {
        let daemon = host.daemon().rule("any", &any_creation()).start();
        for number in 0..5 {
            let name = format!("f{round}_{number}");
            host.sh(ANN, &format!("echo {name} > .ssh/{name}")).ok();
            made.push(ANN.ssh(&name));
        }
        if round % 2 == 0 {
            // Told, and perhaps not stored.
            daemon.alert(ANY, made.last().unwrap());
        }
        daemon.signal(Signal::SIGKILL);
        daemon.kill();
        let name = format!("down{round}");
        host.sh(ANN, &format!("echo {name} > .ssh/{name}")).ok();
        made.push(ANN.ssh(&name));
    }
    let daemon = compared(&host);
    let last = made.last().unwrap().clone();
    daemon.alert(ANY, &last);
    let ended = daemon.stop();
    made.sort();
    let shown = |alert: &&Document| {
        let ids = (alert.get("file.ctime"), alert.get("file.hash.sha256"));
        format!("{} {} {ids:?}", alert.brief(), alert.get("@timestamp"))
    };
    let alerts = ended.alerts(ANY);
    let shown: Vec<String> = alerts.iter().map(shown).collect();
    assert_eq!(ended.paths(ANY), made, "{shown:#?}");
}

#[test]
fn what_a_limit_suppressed_is_told_after_a_kill() {
    const LAST: &str = "11111111-2222-4333-8444-666666666666";
    let host = host();
    drop(run(&host));
    let start = || {
        let query = r#"file where event.action == "creation" and file.name != "last""#;
        let few = rule(ANY, "A few", query).replace("max_signals = 100000", "max_signals = 3");
        let last = rule(LAST, "The last", r#"file where file.name == "last""#);
        let daemon = host.daemon().rule("any", &few).rule("last", &last).start();
        daemon.compared();
        daemon
    };
    let is_stored = |name: &str| {
        let store = std::fs::read(host.path(STORE)).unwrap();
        let path = ANN.ssh(name);
        store
            .windows(path.len())
            .any(|part| part == path.as_bytes())
    };
    let daemon = start();
    let script = "for n in $(seq 10 19); do echo $n > .ssh/file$n; done; echo > .ssh/last";
    host.sh(ANN, script).ok();
    daemon.alert(LAST, &ANN.ssh("last"));
    let until = Instant::now() + SOON;
    while !is_stored("last") {
        assert!(Instant::now() < until, "it is not stored");
        std::thread::yield_now();
    }
    assert!(!is_stored("file19"), "stored, and nobody was told");
    daemon.kill();

    let daemon = start();
    let ended = daemon.stop();
    let told: BTreeSet<String> = ended.paths(ANY).into_iter().collect();
    assert_eq!((told.len(), ended.paths(ANY).len()), (6, 6), "{told:?}");
    let suppressed = ended.log.iter().filter(|line| line.is_state("suppressed"));
    let suppressed = only(suppressed.collect(), "word about suppression");
    assert_eq!(suppressed.number("ssh_keywatch.suppressed.count"), Some(4));
    // With that they are known.
    let again = start().stop();
    let suppressed = last_run(&again).into_iter();
    let suppressed = suppressed.filter(|line| line.is_state("suppressed"));
    assert_eq!((alerts(&again, ANY).len(), suppressed.count()), (0, 0));
}

#[test]
fn what_was_told_before_it_was_written_is_a_change_afterwards() {
    let host = host();
    drop(run(&host));
    let change = r#"file where event.action in ("creation", "modification")"#;
    let start = || {
        let daemon = host.daemon();
        daemon.rule("any", &rule(ANY, "Any change", change)).start()
    };
    let daemon = start();
    // Nothing of it gets into the store.
    let stopped = Stopped::thread(daemon.pid(), "baseline");
    let script = "mkfifo go; exec 3> .ssh/slow; read _ < go; echo late >&3";
    let mut writer = host.sh(ANN, script).spawn();
    let path = ANN.ssh("slow");
    let alert = daemon.alert(ANY, &path);
    assert!(alert.is("event.action", "creation"), "{}", alert.brief());
    daemon.signal(Signal::SIGSTOP);
    host.sh(ANN, "echo > go").ok();
    assert!(writer.end(SOON).success());
    drop(stopped);
    daemon.kill();
    let daemon = start();
    daemon.find(SOON, "the change", |log| {
        let is_change = |line: &&Document| {
            let is_it = line.is_alert_of(ANY) && line.is("file.path", &path);
            is_it && line.is("event.action", "modification")
        };
        log.iter().find(is_change).map(|_| ())
    });
    let ended = daemon.stop();
    let alerts = ended.alerts(ANY);
    let actions: Vec<&str> = alerts.iter().map(|it| it.text("event.action")).collect();
    assert_eq!(actions, ["creation", "modification"]);
}

#[test]
fn a_store_that_cannot_be_read_is_set_aside_and_said() {
    let host = host();
    run(&host);
    host.write(STORE, "no database\n");
    host.sh(ANN, "echo > .ssh/new").ok();
    let ended = run(&host);
    assert!(alerts(&ended, ANY).is_empty(), "stock is taken anew");
    let lines = last_run(&ended);
    let said = lines
        .iter()
        .find(|line| line.is("event.code", "baseline_unreadable"));
    assert!(said.is_some_and(|said| said.is("event.kind", "pipeline_error")));
    let aside = std::fs::read(host.path(&format!("{STORE}.corrupt"))).unwrap();
    assert_eq!(aside, b"no database\n");
    let again = run(&host);
    assert!(alerts(&again, ANY).is_empty());
    assert!(
        !last_run(&again)
            .iter()
            .any(|line| line.is("event.kind", "pipeline_error"))
    );
}

#[test]
fn a_dry_run_leaves_it_alone() {
    let host = host();
    let mut daemon = host
        .command(crate::host::PROGRAM)
        .args(["run", "--dry"])
        .spawn();
    let output = crate::follow::Follow::new(daemon.stderr(), str::to_owned);
    let watching = |lines: &[String]| {
        lines
            .iter()
            .any(|line| line.contains("watching"))
            .then_some(())
    };
    assert!(
        output.wait(SOON, watching).is_some(),
        "{:?}",
        output.so_far()
    );
    daemon.signal(Signal::SIGTERM);
    daemon.end(SOON);
    assert!(!host.path(STORE).exists());
}
