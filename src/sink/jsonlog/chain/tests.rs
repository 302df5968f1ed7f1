//! Logs that were edited, cut, joined and rotated.

use std::fs;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

use super::*;
use crate::sink::jsonlog::{JsonLog, Options, Rotation};
use crate::sink::{Line, Sink as _};

fn line(n: u64) -> Line {
    let document =
        json!({"@timestamp": "2026-11-24T12:00:00Z", "n": n, "ssh_keywatch": {"mode": "x"}});
    Line::new(document.as_object().unwrap().clone())
}

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn open(&self) -> JsonLog {
        let options = Options {
            group: None,
            rotation: Rotation::OFF,
            head: Some(self.path("head")),
            ..Options::default()
        };
        JsonLog::open(&self.path("log"), &options).unwrap()
    }

    /// A run of the daemon that writes these.
    fn run(&self, numbers: std::ops::RangeInclusive<u64>) -> Vec<String> {
        let mut log = self.open();
        for number in numbers {
            log.write(&line(number)).unwrap();
        }
        log.settle().unwrap();
        log.notes()
    }

    fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("log")).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    fn put(&self, lines: &[String]) {
        let lines: String = lines.iter().flat_map(|line| [line, "\n"]).collect();
        fs::write(self.path("log"), lines).unwrap();
    }

    fn written(&self) -> Link {
        last_written(&self.path("head"), &self.path("log")).unwrap()
    }
}

fn verify(files: &[&[String]], written: Option<&Link>) -> (Verifier, Vec<(u64, String)>) {
    let mut verifier = Verifier::default();
    let mut flaws = Vec::new();
    for (number, file) in files.iter().enumerate() {
        if number > 0 {
            verifier.next_file();
        }
        for line in *file {
            flaws.extend(verifier.take(Some(line.as_bytes())));
        }
    }
    flaws.extend(written.and_then(|written| verifier.end(written)));
    let flaws = flaws.into_iter().map(|flaw| (flaw.line, flaw.what));
    (verifier, flaws.collect())
}

#[test]
fn a_line_has_its_number_and_the_hash_of_the_one_before() {
    let place = Place::new();
    assert!(place.run(1..=3).is_empty());
    let lines = place.lines();
    let parsed: Vec<Value> = lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for (number, document) in parsed.iter().enumerate() {
        let log = &document["ssh_keywatch"]["log"];
        assert_eq!(log["sequence"], number + 1);
        assert_eq!(document["ssh_keywatch"]["mode"], "x");
    }
    assert!(parsed[0]["ssh_keywatch"]["log"]["previous"].is_null());
    // As `head -n 1 log | tr -d '\n' | sha256sum` says it.
    let expected = HEXLOWER.encode(&Sha256::digest(lines[0].as_bytes()));
    assert_eq!(parsed[1]["ssh_keywatch"]["log"]["previous"], expected);
    assert_eq!(place.written().sequence, 3);
}

#[test]
fn it_goes_on_over_restarts_rotation_packing_and_what_a_crash_leaves() {
    let place = Place::new();
    place.run(1..=2);
    place.run(3..=4);
    // A torn line is cut out.
    let mut torn = OpenOptions::new()
        .append(true)
        .open(place.path("log"))
        .unwrap();
    torn.write_all(b"{\"n\": 5, \"ssh_key").unwrap();
    let notes = place.run(5..=6);
    assert!(notes.len() == 1 && notes[0].contains("torn"), "{notes:?}");
    let first = place.lines();
    // By somebody else, while it does not run.
    fs::rename(place.path("log"), place.path("log.1")).unwrap();
    place.run(7..=8);
    let second = place.lines();
    // And while it runs.
    let mut log = place.open();
    log.write(&line(9)).unwrap();
    fs::rename(place.path("log"), place.path("log.2")).unwrap();
    log.write(&line(10)).unwrap();
    drop(log);
    let third: Vec<String> = [second.clone(), {
        let text = fs::read_to_string(place.path("log.2")).unwrap();
        vec![text.lines().last().unwrap().to_owned()]
    }]
    .concat();
    let fourth = place.lines();
    let (verifier, flaws) = verify(&[&first, &third, &fourth], Some(&place.written()));
    assert_eq!(flaws, []);
    assert_eq!(verifier.range(), Some((1, 10)));

    // What is packed says it as well, also without the head.
    let other = Place::new();
    let packed = File::create(other.path("log.1.gz")).unwrap();
    let mut packed = GzEncoder::new(packed, Compression::fast());
    packed.write_all(fourth[0].as_bytes()).unwrap();
    packed.write_all(b"\n").unwrap();
    packed.finish().unwrap();
    other.run(11..=11);
    let (_, flaws) = verify(&[&fourth, &other.lines()], Some(&other.written()));
    assert_eq!(flaws, []);
}

#[test]
fn what_others_do_to_the_lines_is_found() {
    let place = Place::new();
    place.run(1..=6);
    let good = place.lines();
    let written = place.written();
    let check = |lines: &[String]| verify(&[lines], Some(&written)).1;
    assert_eq!(check(&good), []);
    // The first ones may have been rotated away.
    assert_eq!(check(&good[2..]), []);
    let flaw = |line, what: &str| vec![(line, what.to_owned())];

    let mut edited = good.clone();
    edited[2] = edited[2].replace("\"n\":3", "\"n\":7");
    let not_it = "line 3 before it is not the one that was written";
    assert_eq!(check(&edited), flaw(4, not_it));

    let mut last = good.clone();
    last[5] = last[5].replace("\"n\":6", "\"n\":7");
    let not_it = "its last line, 6, is not the one that was written";
    assert_eq!(check(&last), flaw(6, not_it));

    let mut without = good.clone();
    without.remove(3);
    assert_eq!(check(&without), flaw(4, "line 4 before it is missing"));
    without.remove(3);
    let two = "lines 4 to 5 before it are missing";
    assert_eq!(check(&without), flaw(4, two));

    let mut exchanged = good.clone();
    exchanged.swap(2, 3);
    assert_eq!(check(&exchanged).len(), 3, "{:?}", check(&exchanged));

    let mut doubled = good.clone();
    doubled.insert(2, good[1].clone());
    let again = "it is line 2, and stands behind line 2";
    assert_eq!(check(&doubled), flaw(3, again));

    let mut foreign = good.clone();
    foreign.insert(2, "{\"n\":1}".to_owned());
    foreign.insert(4, "no document".to_owned());
    let found = check(&foreign);
    assert_eq!(found.len(), 2);
    assert!(found[0].1.contains("no number") && found[1].1.contains("no document"));

    let cut = check(&good[..4]);
    assert!(cut[0].1.contains("ends at line 4, but line 6"), "{cut:?}");
    let gone = check(&[]);
    assert!(gone[0].1.contains("ends at line 0"), "{gone:?}");
}

#[test]
fn what_was_done_to_it_while_it_ran_or_did_not_is_said_at_once() {
    let place = Place::new();
    place.run(1..=5);
    let good = place.lines();
    place.put(&good[..3]);
    let notes = place.run(6..=6);
    let cut = "ends at line 3, but line 5 was written";
    assert!(notes.len() == 1 && notes[0].contains(cut), "{notes:?}");
    // What was cut off stays missing.
    let flaws = verify(&[&place.lines()], Some(&place.written())).1;
    assert_eq!(flaws[0].1, "lines 4 to 5 before it are missing");

    let mut log = place.open();
    assert_eq!(log.notes(), Vec::<String>::new());
    log.write(&line(7)).unwrap();
    let mut other = OpenOptions::new()
        .append(true)
        .open(place.path("log"))
        .unwrap();
    other.write_all(b"{}\n").unwrap();
    log.write(&line(8)).unwrap();
    let notes = log.notes();
    assert!(
        notes.len() == 1 && notes[0].contains("others than"),
        "{notes:?}"
    );
    let (_, flaws) = verify(&[&place.lines()], Some(&place.written()));
    assert_eq!(flaws.len(), 2, "{flaws:?}");
}

#[test]
fn a_log_from_before_there_was_a_chain_is_continued() {
    let place = Place::new();
    place.put(&["{\"n\":1}".to_owned(), "{\"n\":2}".to_owned()]);
    assert!(place.run(3..=4).is_empty());
    let (verifier, flaws) = verify(&[&place.lines()], Some(&place.written()));
    assert_eq!(flaws, []);
    assert_eq!((verifier.older, verifier.range()), (2, Some((1, 2))));
    // The head of another log says nothing of this one.
    let options = Options {
        group: None,
        head: Some(place.path("head")),
        ..Options::default()
    };
    let mut other = JsonLog::open(&place.path("other"), &options).unwrap();
    assert!(other.notes().is_empty());
}
