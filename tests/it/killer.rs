//! The alert log after the daemon was killed at any moment, again and again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Read;
use std::time::{Duration, Instant};

use flate2::read::MultiGzDecoder;

use crate::daemon::LOG;
use crate::document::{Document, any_creation};
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
