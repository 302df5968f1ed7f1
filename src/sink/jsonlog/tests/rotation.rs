//! Rotation: nothing is lost, torn or doubled, wherever a crash comes.

use super::*;
use flate2::read::MultiGzDecoder;
use std::io::Read as _;
use std::time::Duration;

fn every(max_size: u64, keep: u32) -> Options {
    Options {
        rotation: Rotation {
            max_size: Some(max_size),
            max_age: None,
            keep,
            compress: false,
        },
        ..plain()
    }
}

/// The numbers of every rotated log and of the log, oldest first.
fn all_numbers(log: &Path) -> Vec<u64> {
    let mut out = Vec::new();
    for number in (1..=LAST_NUMBER).rev() {
        let gz = rotated(log, number, true);
        // Where both stand, the plain one counts.
        if rotated(log, number, false).exists() {
            out.extend(numbers(&rotated(log, number, false)));
        } else if let Ok(file) = File::open(&gz) {
            let mut text = String::new();
            MultiGzDecoder::new(file).read_to_string(&mut text).unwrap();
            let copy = log.with_file_name("unpacked");
            fs::write(&copy, text).unwrap();
            out.extend(numbers(&copy));
        }
    }
    if log.exists() {
        out.extend(numbers(log));
    }
    out
}

fn size_of_line() -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut log = JsonLog::open(&path, &plain()).unwrap();
    log.write(&line(1)).unwrap();
    let first = fs::metadata(&path).unwrap().len();
    // The first line of all is shorter: it names none before it.
    log.write(&line(2)).unwrap();
    fs::metadata(&path).unwrap().len() - first
}

#[test]
fn a_log_is_rotated_before_it_grows_too_large_and_the_oldest_goes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut log = JsonLog::open(&path, &every(2 * size_of_line(), 3)).unwrap();
    for n in 1..=9 {
        log.write(&line(n)).unwrap();
        assert!(fs::metadata(&path).unwrap().len() <= 2 * size_of_line());
    }
    assert_eq!(numbers(&path), [9]);
    assert_eq!(numbers(&rotated(&path, 1, false)), [7, 8]);
    assert_eq!(all_numbers(&path), (3..=9).collect::<Vec<_>>());
    // With fewer to be kept, it comes to that in time.
    let mut log = JsonLog::open(&path, &every(2 * size_of_line() + 4, 1)).unwrap();
    for n in 10..=15 {
        log.write(&line(n)).unwrap();
    }
    assert_eq!(all_numbers(&path), [13, 14, 15]);
    assert!(log.notes().is_empty());
}

#[test]
fn a_line_larger_than_the_limit_has_a_log_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut log = JsonLog::open(&path, &every(10, 5)).unwrap();
    for n in 1..=3 {
        log.write(&line(n)).unwrap();
    }
    assert_eq!(all_numbers(&path), [1, 2, 3]);
    assert_eq!(numbers(&path), [3]);
}

#[test]
fn a_log_is_rotated_by_the_age_of_its_first_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let old = jiff::Timestamp::now() - Duration::from_secs(7200);
    fs::write(&path, format!("{{\"n\":1,\"@timestamp\":\"{old}\"}}\n")).unwrap();
    let mut options = plain();
    options.rotation = Rotation {
        max_age: Some(Duration::from_secs(3600)),
        ..every(0, 5).rotation
    };
    options.rotation.max_size = None;
    let mut log = JsonLog::open(&path, &options).unwrap();
    log.write(&line(2)).unwrap();
    log.write(&line(3)).unwrap();
    assert_eq!(numbers(&rotated(&path, 1, false)), [1]);
    assert_eq!(numbers(&path), [2, 3]);
    drop(log);
    // A young one stays, also after a start.
    let young = jiff::Timestamp::now();
    fs::write(&path, format!("{{\"n\":4,\"@timestamp\":\"{young}\"}}\n")).unwrap();
    let mut log = JsonLog::open(&path, &options).unwrap();
    log.write(&line(5)).unwrap();
    assert_eq!(numbers(&path), [4, 5]);
}

#[test]
fn rotated_logs_are_compressed_but_for_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut options = every(2 * size_of_line(), 4);
    options.rotation.compress = true;
    let mut log = JsonLog::open(&path, &options).unwrap();
    for n in 1..=8 {
        log.write(&line(n)).unwrap();
    }
    log.rotator.wait_until_compressed();
    for number in [2, 3] {
        let gz = fs::metadata(rotated(&path, number, true)).unwrap();
        assert_eq!(gz.mode() & 0o7777, 0o640);
        assert!(!rotated(&path, number, false).exists());
    }
    assert!(rotated(&path, 1, false).exists());
    assert_eq!(all_numbers(&path), (1..=8).collect::<Vec<_>>());
    assert!(log.notes().is_empty(), "{:?}", log.notes());
}

#[test]
fn compressing_goes_on_where_a_crash_ended_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut options = every(2 * size_of_line(), 4);
    for n in 1..=8 {
        // A log of its own for each line: many starts.
        let mut log = JsonLog::open(&path, &options).unwrap();
        log.write(&line(n)).unwrap();
    }
    options.rotation.compress = true;
    let hidden = dir.path().join(".log.gz.tmp");
    fs::write(&hidden, "half of a compressed").unwrap();
    // Died between the rename and the removal, and with a broken one.
    fs::write(rotated(&path, 3, true), "broken").unwrap();
    let log = JsonLog::open(&path, &options).unwrap();
    log.rotator.wait_until_compressed();
    assert!(!rotated(&path, 3, false).exists() && !hidden.exists());
    assert!(rotated(&path, 2, true).exists() && rotated(&path, 3, true).exists());
    assert_eq!(all_numbers(&path), (1..=8).collect::<Vec<_>>());
}

#[test]
fn what_a_crash_left_on_its_way_out_goes_or_gets_a_name_again() {
    for is_compressed in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut options = every(2 * size_of_line(), 4);
        options.rotation.compress = true;
        for n in 1..=8 {
            let mut log = JsonLog::open(&path, &options).unwrap();
            log.write(&line(n)).unwrap();
            log.rotator.wait_until_compressed();
        }
        let packed = rotated(&path, 3, true);
        let (aside, mut text) = (dir.path().join(".log.old.tmp"), String::new());
        let file = File::open(&packed).unwrap();
        let time = file.metadata().unwrap().modified().unwrap();
        MultiGzDecoder::new(file).read_to_string(&mut text).unwrap();
        fs::write(&aside, &text).unwrap();
        let plain = File::options().write(true).open(&aside).unwrap();
        plain.set_modified(time).unwrap();
        if !is_compressed {
            fs::remove_file(packed).unwrap();
        }
        let mut log = JsonLog::open(&path, &options).unwrap();
        log.rotator.wait_until_compressed();
        assert!(!aside.exists());
        let mut there = all_numbers(&path);
        there.sort_unstable();
        assert_eq!(there, (1..=8).collect::<Vec<_>>(), "{is_compressed}");
        assert!(log.notes().is_empty(), "{:?}", log.notes());
    }
}

#[test]
fn a_crash_between_two_renames_leaves_a_gap_and_no_loss() {
    for gap in 1..=4 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        // Five logs are there and the shift had come down to `gap`.
        for number in (1..=5).filter(|number| *number != gap) {
            let n = if number > gap {
                10 - number + 1
            } else {
                10 - number
            };
            fs::write(rotated(&path, number, false), line(n).json.as_bytes()).unwrap();
        }
        fs::write(&path, format!("{}\n", line(10).json)).unwrap();
        let sorted = |path: &Path| {
            let mut out = Vec::new();
            for number in (1..=LAST_NUMBER).rev() {
                if let Ok(text) = fs::read_to_string(rotated(path, number, false)) {
                    let value: Value = serde_json::from_str(&text).unwrap();
                    out.push(value["n"].as_u64().unwrap());
                }
            }
            out
        };
        let before = sorted(&path);
        assert_eq!(before, (6..=9).collect::<Vec<_>>());
        let mut log = JsonLog::open(&path, &every(1, 5)).unwrap();
        log.write(&line(11)).unwrap();
        assert_eq!(sorted(&path), (6..=10).collect::<Vec<_>>(), "gap {gap}");
        assert_eq!(numbers(&path), [11]);
    }
}

#[test]
fn a_crash_before_the_new_log_is_made_is_no_matter() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut log = JsonLog::open(&path, &every(100_000, 5)).unwrap();
    log.write(&line(1)).unwrap();
    log.rotator.rotate().unwrap();
    drop(log);
    let mut log = JsonLog::open(&path, &every(100_000, 5)).unwrap();
    log.write(&line(2)).unwrap();
    assert_eq!(all_numbers(&path), [1, 2]);
}

#[test]
fn a_log_that_cannot_be_rotated_grows_on_and_says_so_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut log = JsonLog::open(&path, &every(2 * size_of_line(), 1)).unwrap();
    // What cannot be removed: a directory where the oldest log would be.
    fs::create_dir(rotated(&path, 1, false)).unwrap();
    for n in 1..=9 {
        log.write(&line(n)).unwrap();
    }
    assert_eq!(numbers(&path), (1..=9).collect::<Vec<_>>());
    let notes = log.notes();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].contains("cannot rotate it"), "{notes:?}");
}

#[test]
fn no_file_is_replaced_by_a_rename() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    fs::write(&old, "old").unwrap();
    fs::write(&new, "new").unwrap();
    let error = rotate::rename(&old, &new).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(fs::read_to_string(&new).unwrap(), "new");
}

#[test]
fn logrotate_and_copytruncate_may_come_in_between() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut log = JsonLog::open(&path, &every(3 * size_of_line(), 20)).unwrap();
    let mut kept = Vec::new();
    for n in 1..=20 {
        log.write(&line(n)).unwrap();
        if n % 5 == 0 {
            // What logrotate does: the log is moved to .1, or copied and emptied.
            log.rotator.rotate().unwrap();
            if n % 10 == 0 {
                fs::copy(rotated(&path, 1, false), &path).unwrap();
                kept.extend(numbers(&path));
                File::options()
                    .write(true)
                    .open(&path)
                    .unwrap()
                    .set_len(0)
                    .unwrap();
            }
        }
    }
    assert_eq!(all_numbers(&path), (1..=20).collect::<Vec<_>>());
    assert_eq!(kept.last(), Some(&20));
}
