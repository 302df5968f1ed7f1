//! `tail` on logs that grow, are rotated, cut and torn.

use super::*;
use crate::sink::{JsonLog, Line, Options, Rotation, Sink as _, TerminalStyle, rotated};
use clap::Parser;
use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::tz::TimeZone;
use proptest::prelude::*;
use serde_json::json;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::sync::mpsc;
use std::time::Duration;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    tail: TailArgs,
}

pub(super) fn args(words: &[&str]) -> TailArgs {
    Cli::try_parse_from([&["tail"], words].concat())
        .unwrap()
        .tail
}

fn printer<W: Write>(words: &[&str], out: W) -> Printer<W, Vec<u8>> {
    let args = args(words);
    Printer {
        filter: Filter::new(&args),
        renderer: Renderer::new(TerminalStyle {
            zone: TimeZone::UTC,
            ..TerminalStyle::new(false)
        }),
        json: args.json,
        out,
        err: Vec::new(),
        shown: 0,
    }
}

/// A line of the log; `n` tells it from the others.
fn json(n: u64) -> String {
    let severity = if n.is_multiple_of(2) { 73 } else { 21 };
    let time =
        jiff::Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_hours(i64::try_from(n).unwrap());
    json!({"@timestamp": time.to_string(), "n": n, "event": {"kind": "alert", "severity": severity}, "rule": {"name": "R"}})
        .to_string()
}

fn lines(numbers: impl IntoIterator<Item = u64>) -> String {
    numbers.into_iter().map(|n| json(n) + "\n").collect()
}

fn numbers(out: &[u8]) -> Vec<u64> {
    let text = str::from_utf8(out).unwrap();
    text.lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["n"]
                .as_u64()
                .unwrap()
        })
        .collect()
}

fn append(path: &Path, text: &str) {
    File::options()
        .append(true)
        .create(true)
        .open(path)
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
}

/// What `tail` without `-f` shows, and what it complains of.
fn show_once(log: &Path, words: &[&str]) -> (Vec<u64>, String) {
    let mut printer = printer(&[&["--json"], words].concat(), Vec::new());
    show(&args(words), log, &mut printer).unwrap();
    assert_eq!(printer.shown, numbers(&printer.out).len() as u64);
    (
        numbers(&printer.out),
        String::from_utf8(printer.err).unwrap(),
    )
}

/// A follower and all that it has shown.
struct Following {
    dir: tempfile::TempDir,
    log: PathBuf,
    follower: Follower,
    printer: Printer<Vec<u8>, Vec<u8>>,
}

impl Following {
    fn start(content: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        fs::write(&log, content).unwrap();
        let printer = printer(&["--json"], Vec::new());
        let follower = Follower::open(&log, 10, &printer.filter).unwrap();
        Self {
            dir,
            log,
            follower,
            printer,
        }
    }

    fn append(&self, text: &str) {
        append(&self.log, text);
    }

    fn step(&mut self) -> Vec<u64> {
        self.follower.step(&mut self.printer).unwrap();
        numbers(&self.printer.out)
    }

    fn complaints(&self) -> &str {
        str::from_utf8(&self.printer.err).unwrap()
    }
}

#[test]
fn options_are_understood() {
    let given = args(&[
        "-f",
        "-n",
        "3",
        "--since",
        "2026-11-24T00:00:00Z",
        "--severity",
        "high",
        "--path",
        "/root/*",
    ]);
    assert!(given.follow && given.lines == Some(3) && given.since.is_some());
    assert_eq!(given.severity, Some(Severity::High));
    assert!(Cli::try_parse_from(["tail", "--since", "soon"]).is_err());
    assert!(Cli::try_parse_from(["tail", "--path", "["]).is_err());
}

#[test]
fn the_last_lines_that_match_are_shown_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    fs::write(&log, lines(1..=500)).unwrap();
    assert_eq!(show_once(&log, &[]).0, (491..=500).collect::<Vec<_>>());
    assert_eq!(show_once(&log, &["-n", "0"]).0, [0; 0]);
    assert_eq!(
        show_once(&log, &["-n", "3", "--severity", "high"]).0,
        [496, 498, 500]
    );
    assert_eq!(show_once(&log, &["-n", "1000"]).0.len(), 500);
    assert_eq!(show_once(&log, &["--rule", "no such"]).0, [0; 0]);
    // Hour 480 after the epoch is the 21st of January, midnight.
    assert_eq!(
        show_once(&log, &["--since", "1970-01-21T00:00:00Z"]).0,
        (480..=500).collect::<Vec<_>>()
    );
    assert_eq!(
        show_once(&log, &["--since", "1970-01-21T00:00:00Z", "-n", "2"]).0,
        [499, 500]
    );
}

#[test]
fn a_search_by_time_forgives_a_little_disorder() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    fs::write(&log, lines([3, 9, 8, 10])).unwrap();
    assert_eq!(
        show_once(&log, &["--since", "1970-01-01T09:00:00Z"]).0,
        [9, 10]
    );
}

#[test]
fn lines_that_are_no_json_are_named_and_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    fs::write(
        &log,
        format!(
            "{}garbage\x1b[2J\n\n[1]\n{}\u{fffd}",
            lines(1..=2),
            lines([3])
        ),
    )
    .unwrap();
    let (shown, complaints) = show_once(&log, &[]);
    assert_eq!(shown, [1, 2, 3]);
    let complaints: Vec<&str> = complaints.lines().collect();
    assert_eq!(complaints.len(), 3, "{complaints:?}");
    for (complaint, number) in complaints.iter().zip([3, 5, 7]) {
        assert!(
            complaint.contains(&format!("line {number}:")),
            "{complaint}"
        );
        assert!(!complaint.contains(is_unsafe));
    }
}

#[test]
fn a_whole_last_line_without_newline_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    fs::write(&log, lines(1..=2).trim_end()).unwrap();
    assert_eq!(show_once(&log, &["-n", "1"]), (vec![2], String::new()));
}

#[test]
fn an_endless_line_does_not_fill_the_memory() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    fs::write(
        &log,
        format!("{}{}\n{}", lines([1]), "x".repeat(17 << 20), lines([2])),
    )
    .unwrap();
    let (shown, complaints) = show_once(&log, &[]);
    assert_eq!(shown, [1, 2]);
    assert!(
        complaints.contains("line 2: not an alert, skipped: longer than 16 MiB"),
        "{complaints}"
    );
}

#[test]
fn json_that_others_wrote_is_safe_to_look_at() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    fs::write(&log, "{\"n\":1,\"x\":\"\u{9b}2J\u{202e}\"}\n").unwrap();
    let mut printer = printer(&["--json"], Vec::new());
    show(&args(&[]), &log, &mut printer).unwrap();
    assert_eq!(printer.out, b"{\"n\":1,\"x\":\"\\u009b2J\\u202e\"}\n");
}

#[test]
fn a_half_written_line_waits_for_its_rest() {
    let mut tail = Following::start(&lines([1]));
    let line = json(2);
    tail.append(&line[..9]);
    assert_eq!(tail.step(), [1]);
    tail.append(&line[9..]);
    assert_eq!(tail.step(), [1]);
    tail.append("\n");
    assert_eq!(tail.step(), [1, 2]);
    assert_eq!(tail.complaints(), "");
}

#[test]
fn starts_before_a_half_written_line() {
    let mut tail = Following::start(&(lines([1]) + &json(2)[..9]));
    assert_eq!(tail.step(), [1]);
    tail.append(&json(2)[9..]);
    tail.append("\n");
    assert_eq!(tail.step(), [1, 2]);
}

#[test]
fn finishes_the_renamed_file_first_even_if_it_still_grows() {
    let mut tail = Following::start(&lines([1]));
    tail.append(&lines([2]));
    let old = tail.dir.path().join("log.1");
    fs::rename(&tail.log, &old).unwrap();
    assert_eq!(tail.step(), [1, 2]);
    fs::write(&tail.log, "").unwrap(); // logrotate's create
    assert_eq!(tail.step(), [1, 2]);
    append(&old, &lines([3])); // The daemon had looked before the rename.
    assert_eq!(tail.step(), [1, 2, 3]);
    append(&old, &lines([4]));
    tail.append(&lines([5]));
    assert_eq!(tail.step(), [1, 2, 3, 4, 5]);
}

#[test]
fn outlives_deletion_of_log_and_directory() {
    let mut tail = Following::start("");
    let log = tail.dir.path().join("d/log");
    fs::create_dir(log.parent().unwrap()).unwrap();
    fs::write(&log, lines([1])).unwrap();
    tail.follower = Follower::open(&log, 10, &tail.printer.filter).unwrap();
    append(&log, &lines([2]));
    fs::remove_dir_all(log.parent().unwrap()).unwrap();
    assert_eq!(tail.step(), [1, 2]);
    fs::create_dir(log.parent().unwrap()).unwrap();
    fs::write(&log, lines([3])).unwrap();
    assert_eq!(tail.step(), [1, 2, 3]);
}

#[test]
fn a_log_that_comes_later_is_shown_whole() {
    let mut tail = Following::start("");
    fs::remove_file(&tail.log).unwrap();
    tail.follower = Follower::absent(&tail.log);
    assert_eq!(tail.step(), [0; 0]);
    tail.append(&lines(1..=20));
    assert_eq!(tail.step(), (1..=20).collect::<Vec<_>>());
}

#[test]
fn copytruncate_is_seen_though_the_new_content_is_longer() {
    let mut tail = Following::start(&lines([1]));
    assert_eq!(tail.step(), [1]);
    fs::copy(&tail.log, tail.dir.path().join("log.1")).unwrap();
    File::options()
        .write(true)
        .open(&tail.log)
        .unwrap()
        .set_len(0)
        .unwrap();
    tail.append(&lines(2..=5));
    assert_eq!(tail.step(), [1, 2, 3, 4, 5]);
}

#[test]
fn a_torn_line_that_the_daemon_cuts_is_forgotten() {
    for after in [lines([2]), lines(2..=9)] {
        let mut tail = Following::start(&lines([1]));
        tail.append("{\"torn\":\"by a crash");
        assert_eq!(tail.step(), [1]);
        let mut log = JsonLog::open(
            &tail.log,
            &Options {
                head: None,
                mode: 0o600,
                group: None,
                rotation: Rotation::OFF,
            },
        )
        .unwrap();
        assert_eq!(log.notes().len(), 1);
        tail.append(&after);
        assert_eq!(tail.step()[..2], [1, 2]);
        assert_eq!(tail.complaints(), "");
    }
}

#[derive(Clone, Debug)]
enum Op {
    Write,
    Step,
    Rotate { create: bool },
    Pack,
    Remove,
    CopyTruncate,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        8 => Just(Op::Write),
        3 => Just(Op::Step),
        2 => any::<bool>().prop_map(|create| Op::Rotate { create }),
        2 => Just(Op::Pack),
        1 => Just(Op::Remove),
        1 => Just(Op::CopyTruncate),
    ];
    prop::collection::vec(op, 0..40)
}

const BOTH: [bool; 2] = [false, true];

/// What logrotate does.
fn shift(log: &Path, create: bool) {
    if !fs::metadata(log).is_ok_and(|meta| meta.len() > 0) {
        return;
    }
    for number in (1..100).rev() {
        for packed in BOTH {
            let _ = fs::rename(
                rotated(log, number, packed),
                rotated(log, number + 1, packed),
            );
        }
    }
    fs::rename(log, rotated(log, 1, false)).unwrap();
    if create {
        fs::write(log, "").unwrap();
    }
}

/// Compresses every rotated log but the newest.
fn pack(log: &Path) {
    for number in 2..100 {
        let plain = rotated(log, number, false);
        if let Ok(bytes) = fs::read(&plain) {
            let file = File::create(rotated(log, number, true)).unwrap();
            let mut encoder = GzEncoder::new(file, Compression::fast());
            encoder.write_all(&bytes).unwrap();
            encoder.finish().unwrap();
            fs::remove_file(plain).unwrap();
        }
    }
}

impl Following {
    /// Whether it has the file open that is the log now.
    fn has_open(&self) -> bool {
        let own = self.follower.identity();
        fs::metadata(&self.log).map_or(true, |meta| own == Some((meta.dev(), meta.ino())))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The sink writes and rotates, logrotate rotates, tail reads: each line
    /// once, in order, however much happens between two looks.
    #[test]
    fn no_line_is_lost_or_repeated(ops in ops(), own in any::<bool>()) {
        let mut tail = Following::start("");
        let rotation = Rotation {
            max_size: own.then(|| 3 * json(10).len() as u64),
            max_age: None,
            keep: 100,
            compress: true,
        };
        let mut log = JsonLog::open(
            &tail.log,
            &Options { mode: 0o600, group: None, rotation, head: None },
        ).unwrap();
        let mut written = 0;
        let mut write = || {
            written += 1;
            let document = serde_json::from_str(&json(written)).unwrap();
            log.write(&Line::new(document)).unwrap();
            written
        };
        let mut count = 0;
        for op in ops {
            // A file that is removed or emptied is lost to who has not seen it.
            if matches!(op, Op::CopyTruncate | Op::Step) || (matches!(op, Op::Remove) && !tail.has_open()) {
                prop_assert_eq!(tail.step(), (1..=count).collect::<Vec<_>>());
            }
            match op {
                Op::Write => count = write(),
                Op::Rotate { create } => shift(&tail.log, create),
                Op::Pack if !own => pack(&tail.log),
                Op::Step | Op::Pack => {}
                Op::Remove => {
                    let _ = fs::remove_file(&tail.log);
                    // A look before the next one can be rotated out of sight.
                    count = write();
                    prop_assert_eq!(tail.step(), (1..=count).collect::<Vec<_>>());
                }
                Op::CopyTruncate => {
                    if let Ok(file) = File::options().write(true).open(&tail.log) {
                        file.set_len(0).unwrap();
                    }
                }
            }
        }
        prop_assert_eq!(tail.step(), (1..=count).collect::<Vec<_>>());
        prop_assert_eq!(tail.complaints(), "");
    }

    /// Whoever asks for the last lines gets them from the rotated logs too.
    #[test]
    fn the_last_lines_reach_back_into_rotated_logs(
        sizes in prop::collection::vec(0_u64..5, 1..8),
        wanted in 0_u64..40,
        packed in any::<bool>(),
        even in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mut total = 0;
        for size in sizes {
            shift(&log, false);
            append(&log, &lines(total + 1..=total + size));
            total += size;
        }
        if packed {
            pack(&log);
        }
        let words: &[&str] = if even { &["--severity", "high"] } else { &[] };
        let count = wanted.to_string();
        let (shown, complaints) = show_once(&log, &[&["-n", count.as_str()], words].concat());
        let all: Vec<u64> = (1..=total).filter(|n| !even || n.is_multiple_of(2)).collect();
        let skip = all.len().saturating_sub(usize::try_from(wanted).unwrap());
        prop_assert_eq!(&shown[..], &all[skip..]);
        prop_assert_eq!(complaints, "");
        // All since a moment: as many files as that takes.
        let since = (jiff::Timestamp::UNIX_EPOCH
            + jiff::SignedDuration::from_hours(i64::try_from(wanted).unwrap())).to_string();
        let (shown, _) = show_once(&log, &["--since", &since]);
        prop_assert_eq!(shown, (wanted.max(1)..=total).collect::<Vec<_>>());
    }
}

#[test]
fn a_tail_that_was_stopped_reads_all_that_was_rotated_meanwhile() {
    for packed in BOTH {
        let mut tail = Following::start(&lines([1]));
        assert_eq!(tail.step(), [1]);
        for n in 2..=9 {
            shift(&tail.log, false);
            tail.append(&lines([n]));
        }
        if packed {
            pack(&tail.log);
        }
        assert_eq!(tail.step(), (1..=9).collect::<Vec<_>>());
        assert_eq!(tail.step().len(), 9);
        assert_eq!(tail.complaints(), "");
    }
}

#[test]
fn a_damaged_compressed_log_is_said_and_hides_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    for n in 1..=4 {
        shift(&log, false);
        append(&log, &lines([n]));
    }
    pack(&log);
    let damaged = rotated(&log, 2, true);
    let bytes = fs::read(&damaged).unwrap();
    fs::write(&damaged, &bytes[..bytes.len() / 2]).unwrap();
    let (shown, complaints) = show_once(&log, &[]);
    let rest: Vec<u64> = shown.into_iter().filter(|n| *n != 2).collect();
    assert_eq!(rest, [1, 3, 4]);
    assert!(complaints.contains("log.2.gz"), "{complaints}");
}

/// Passes what is written on to a test, until that hangs up.
struct Pipe(mpsc::Sender<Vec<u8>>);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .send(bytes.to_vec())
            .map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn follow_wakes_by_itself_and_ends_with_its_reader() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("d/log");
    fs::create_dir(log.parent().unwrap()).unwrap();
    fs::write(&log, lines([1])).unwrap();
    let (sender, shown) = mpsc::channel();
    let path = log.clone();
    let tail = std::thread::spawn(move || {
        let mut printer = printer(&["--json"], BufWriter::new(Pipe(sender)));
        show(&args(&["-f"]), &path, &mut printer)
            .unwrap_err()
            .kind()
    });
    let next = || numbers(&shown.recv_timeout(Duration::from_secs(60)).unwrap());
    assert_eq!(next(), [1]);
    append(&log, &lines([2]));
    assert_eq!(next(), [2]);
    fs::rename(&log, dir.path().join("d/log.1")).unwrap();
    append(&log, &lines([3]));
    assert_eq!(next(), [3]);
    // The directory goes, and its watch with it; another comes.
    fs::remove_dir_all(log.parent().unwrap()).unwrap();
    fs::create_dir(log.parent().unwrap()).unwrap();
    append(&log, &lines([4]));
    assert_eq!(next(), [4]);
    append(&log, &lines([5]));
    assert_eq!(next(), [5]);
    drop(shown);
    append(&log, &lines([6]));
    assert_eq!(tail.join().unwrap(), io::ErrorKind::BrokenPipe);
}

#[test]
fn a_full_disk_behind_standard_output_is_no_fault_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    fs::write(&log, lines([1])).unwrap();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut err = Vec::new();
    let style = TerminalStyle::new(false);
    let exit = print(&args(&[]), &log, style, full, &mut err);
    assert_eq!(exit, Exit::Internal);
    let said = String::from_utf8(err).unwrap();
    assert!(said.starts_with("ssh-keywatch: cannot write: "), "{said}");
}

#[test]
fn exit_codes_tell_nothing_found_from_nothing_there() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    assert_eq!(run(&args(&[]), &log, Color::Never), Exit::Internal);
    assert_eq!(run(&args(&[]), dir.path(), Color::Never), Exit::Internal);
    fs::write(&log, "").unwrap();
    assert_eq!(run(&args(&[]), &log, Color::Never), Exit::Found);
    fs::write(&log, lines([1])).unwrap();
    assert_eq!(
        run(&args(&["--rule", "no such"]), &log, Color::Never),
        Exit::Found
    );
    let elsewhere = log.to_str().unwrap().to_owned();
    assert_eq!(
        run(
            &args(&["--rule", "no such", "--log", &elsewhere]),
            Path::new("/nowhere"),
            Color::Never
        ),
        Exit::Found
    );
}
