//! The alert log after the daemon was killed at any moment, again and again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{ErrorKind, Read};
use std::time::{Duration, Instant};

use flate2::read::MultiGzDecoder;

use crate::daemon::LOG;
use crate::document::{ANY, Document, any_creation};
use crate::follow::Follow;
use crate::host::{ANN, Host, PROGRAM};
use crate::process::SOON;

/// How often it is killed, unless `KILLER_ROUNDS` says otherwise.
const ROUNDS: u64 = 25;

/// Small, so that it is rotated and compressed while it is killed.
/// All that is written must stay: many files, and room in each.
const CONFIG: &str = "[log]\nmax_size = \"256K\"\nkeep = 200\n";

/// A number below `limit`, another one each time.
fn random(limit: u64) -> u64 {
    RandomState::new().build_hasher().finish() % limit
}

/// Every line of the rotated logs and of the log, oldest first.
fn history(host: &Host) -> Vec<String> {
    let mut lines = Vec::new();
    let mut add = |text: &str| {
        assert!(text.is_empty() || text.ends_with('\n'), "torn: {text:?}");
        lines.extend(text.lines().map(str::to_owned));
    };
    for number in (1..=250).rev() {
        let plain = host.path(&format!("{LOG}.{number}"));
        let packed = host.path(&format!("{LOG}.{number}.gz"));
        if let Ok(text) = std::fs::read_to_string(plain) {
            add(&text);
        } else if let Ok(file) = File::open(packed) {
            let mut text = String::new();
            MultiGzDecoder::new(file).read_to_string(&mut text).unwrap();
            add(&text);
        }
    }
    add(&std::fs::read_to_string(host.path(LOG)).unwrap());
    lines
}

#[test]
fn no_line_is_torn_lost_or_doubled_whenever_it_is_killed() {
    let mut rounds =
        std::env::var("KILLER_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    while rounds > 0 {
        let some = rounds.min(ROUNDS);
        kill_again_and_again(some);
        rounds -= some;
    }
}

fn kill_again_and_again(rounds: u64) {
    let host = Host::new();
    host.sh(ANN, "mkdir -m 700 .ssh").ok();
    // What somebody who follows the log has seen of it, from its first line on.
    let mut tail = host
        .command(PROGRAM)
        .args(["tail", "-f", "--json", "-n", "1000000"])
        .spawn();
    let followed = Follow::new(tail.stdout(), Document::parse);
    let complaints = Follow::new(tail.stderr(), str::to_owned);
    let mut acknowledged = BTreeSet::new();
    for round in 0..rounds {
        let daemon = host
            .daemon()
            .config(CONFIG)
            .rule("any", &any_creation())
            .start();
        // The files go again: what is there at the start is looked at.
        let script = format!(
            "n=0; while :; do : > .ssh/f{round}_$n; rm .ssh/f{round}_$n; n=$((n + 1)); done"
        );
        let mut stream = host.sh(ANN, &script).spawn_silent();
        let (least, mut seen) = (1 + random(60), 0);
        let mut ids = BTreeSet::new();
        daemon.find(SOON, "alerts before it is killed", |log| {
            let new = log[seen..].iter().filter(|document| document.is_alert());
            ids.extend(new.map(|alert| alert.text("event.id").to_owned()));
            seen = log.len();
            (ids.len() as u64 >= least).then_some(())
        });
        let moment = Duration::from_micros(random(20_000));
        let begun = Instant::now();
        while begun.elapsed() < moment {
            std::thread::yield_now();
        }
        daemon.kill();
        stream.signal(nix::sys::signal::Signal::SIGKILL);
        stream.end(SOON);
        acknowledged.extend(ids);
    }
    let daemon = host
        .daemon()
        .config(CONFIG)
        .rule("any", &any_creation())
        .start();
    daemon.stop();

    let lines = history(&host);
    let documents: Vec<Document> = lines.iter().map(|line| Document::parse(line)).collect();
    let unique: BTreeSet<&String> = lines.iter().collect();
    assert_eq!(unique.len(), lines.len(), "a line stands there twice");
    let (mut ids, mut paths) = (BTreeMap::new(), BTreeMap::new());
    for alert in documents.iter().filter(|document| document.is_alert()) {
        let id = alert.text("event.id");
        assert!(!id.is_empty(), "{}", alert.brief());
        if let Some(first) = ids.insert(id, alert) {
            panic!("{id} stands there twice: {} {}", first.0, alert.0);
        }
        *paths.entry(alert.text("file.path")).or_insert(0) += 1;
    }
    let doubled: Vec<_> = paths.iter().filter(|(_, count)| **count > 1).collect();
    assert!(doubled.is_empty(), "alerted more than once: {doubled:?}");
    let lost: Vec<_> = acknowledged
        .iter()
        .filter(|id| !ids.contains_key(id.as_str()))
        .collect();
    assert!(lost.is_empty(), "was in the log and is not: {lost:?}");

    // Who follows has seen each line once, in the same order, across all that.
    let end = |seen: &[Document]| (seen.len() >= documents.len()).then_some(());
    let all = followed.wait(SOON, end);
    let seen = followed.so_far();
    // It started when there was no log yet.
    let complaints = complaints.so_far();
    assert!(complaints.len() <= 1, "{complaints:#?}");
    for (place, (seen, document)) in seen.iter().zip(&documents).enumerate() {
        assert_eq!(seen.0, document.0, "line {place} of {}", documents.len());
    }
    assert!(all.is_some(), "{} of {} lines", seen.len(), documents.len());
    assert_eq!(seen.len(), documents.len());
    assert!(host.path(&format!("{LOG}.1")).exists(), "it was rotated");
    tail.signal(nix::sys::signal::Signal::SIGTERM);
    tail.end(SOON);
}

/// How often it is killed under real key generators, unless `KILLER_ROUNDS` says
/// otherwise.
const KEY_ROUNDS: u64 = 8;

#[test]
fn every_key_is_told_whenever_it_is_killed_or_the_power_fails() {
    let mut rounds =
        std::env::var("KILLER_ROUNDS").map_or(KEY_ROUNDS, |rounds| rounds.parse().unwrap());
    let mut total = Tally::default();
    while rounds > 0 {
        let some = rounds.min(ROUNDS);
        total.add(&kill_under_key_generators(some));
        rounds -= some;
    }
    println!("{total:?}");
}

#[derive(Debug, Default)]
struct Tally {
    rounds: u64,
    power_failures: u64,
    lines_lost: usize,
    keys: usize,
    files: usize,
    /// Told by a comparison, for they were made or lost while nothing ran.
    unseen: usize,
    /// Told twice, with the same `event.id`.
    twice: usize,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.rounds += other.rounds;
        self.power_failures += other.power_failures;
        self.lines_lost += other.lines_lost;
        self.keys += other.keys;
        self.files += other.files;
        self.unseen += other.unseen;
        self.twice += other.twice;
    }
}

/// Takes from the log what was not forced to the disk yet, and leaves half of
/// the first such line; says how many lines that are. What was is known by the
/// daemon's own note of it, which it writes after fdatasync(2).
fn fail_power(host: &Host) -> usize {
    let head = std::fs::read_to_string(host.path("/var/lib/ssh-keywatch/log-head")).unwrap();
    let synced: u64 = head
        .split_whitespace()
        .nth(1)
        .map_or(0, |number| number.parse().unwrap());
    let log = host.path(LOG);
    let text = match std::fs::read_to_string(&log) {
        // Killed behind the rename of a rotation: what that log had was forced to the
        // disk before, and there is no new one yet.
        Err(error) if error.kind() == ErrorKind::NotFound => return 0,
        text => text.unwrap(),
    };
    let number = |line: &str| match serde_json::from_str::<serde_json::Value>(line) {
        Ok(document) => document["ssh_keywatch"]["log"]["sequence"]
            .as_u64()
            .unwrap(),
        // Torn by the kill.
        Err(_) => u64::MAX,
    };
    let is_synced = |line: &&str| number(line) <= synced;
    let kept: usize = text
        .split_inclusive('\n')
        .take_while(is_synced)
        .map(str::len)
        .sum();
    let lost = text[kept..].lines().count();
    let half = text[kept..].lines().next().map_or(0, |line| line.len() / 2);
    std::fs::OpenOptions::new()
        .write(true)
        .open(&log)
        .unwrap()
        .set_len((kept + half) as u64)
        .unwrap();
    lost
}

fn kill_under_key_generators(rounds: u64) -> Tally {
    let host = Host::new();
    host.sh(ANN, "mkdir -m 700 .ssh").ok();
    let start = || {
        let daemon = host.daemon().config(CONFIG);
        daemon.rule("any", &any_creation()).start()
    };
    let mut tally = Tally {
        rounds,
        ..Tally::default()
    };
    // What is there at the first start of all is no news.
    let mut daemon = start();
    daemon.compared();
    let generators = r#"
        n=0
        while [ ! -e stop ]; do
            ssh-keygen -q -t ed25519 -N "" -C it -f .ssh/k$n || exit 1
            n=$((n + 1))
            echo $n > made.new && mv made.new made
        done"#;
    let mut stream = host.sh(ANN, generators).spawn_silent();
    let made = || {
        let count = std::fs::read_to_string(host.path(&format!("{}/made", ANN.home)));
        count.map_or(0, |count| count.trim().parse::<usize>().unwrap())
    };
    for round in 0..rounds {
        // Now in its start, now while it follows, now just behind an alert.
        if round % 3 > 0 {
            let before = made();
            let begun = Instant::now();
            while made() == before {
                assert!(begun.elapsed() < SOON, "no key is made any more");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        if round % 3 == 1 {
            daemon.find(SOON, "alert", |log| {
                log.iter().any(Document::is_alert).then_some(())
            });
        }
        std::thread::sleep(Duration::from_micros(random(400_000)));
        daemon.kill();
        if random(2) == 0 {
            tally.power_failures += 1;
            tally.lines_lost += fail_power(&host);
        }
        // What is made meanwhile is found.
        std::thread::sleep(Duration::from_micros(random(50_000)));
        daemon = start();
    }
    host.write(&format!("{}/stop", ANN.home), "");
    stream.end(SOON);
    daemon.compared();
    daemon.stop();
    // What the last one told and did not store is known, or told again.
    let daemon = start();
    daemon.compared();
    daemon.stop();

    tally.keys = made();
    let checked = host.command(PROGRAM).args(["check", "--log"]).output();
    assert!(checked.status.success(), "{}", checked.stdout);
    let documents: Vec<Document> = history(&host)
        .iter()
        .map(|line| Document::parse(line))
        .collect();
    let mut told: BTreeMap<&str, Vec<&Document>> = BTreeMap::new();
    for alert in documents
        .iter()
        .filter(|document| document.is_alert_of(ANY))
    {
        told.entry(alert.text("file.path")).or_default().push(alert);
    }
    let mut missed = Vec::new();
    for number in 0..tally.keys {
        for end in ["", ".pub"] {
            let path = ANN.ssh(&format!("k{number}{end}"));
            let alerts = told.remove(path.as_str()).unwrap_or_default();
            let brief: Vec<String> = alerts.iter().map(|alert| alert.brief()).collect();
            if alerts.is_empty() {
                missed.push(path);
                continue;
            }
            assert!(
                alerts.len() <= 2,
                "{path} was told {}: {brief:#?}",
                alerts.len()
            );
            let ids: BTreeSet<&str> = alerts.iter().map(|alert| alert.text("event.id")).collect();
            assert_eq!(ids.len(), 1, "{path} has two ids: {brief:#?}");
            tally.files += 1;
            tally.twice += usize::from(alerts.len() == 2);
            let is_unseen = alerts[0].is("ssh_keywatch.evidence", "baseline");
            tally.unseen += usize::from(is_unseen);
        }
    }
    assert!(missed.is_empty(), "never told: {missed:?}; {tally:?}");
    let others: Vec<&&str> = told.keys().collect();
    assert!(others.is_empty(), "nobody made {others:?}");
    tally
}
