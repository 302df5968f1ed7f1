//! The log on files that are torn, removed, replaced and full.

use super::*;
use serde_json::json;
use std::os::unix::fs::symlink;

fn line(n: u32) -> Line {
    Line::new(
        json!({"n": n, "event": {"severity": 21}})
            .as_object()
            .unwrap()
            .clone(),
    )
}

fn plain() -> Options {
    Options {
        mode: 0o640,
        group: None,
        rotation: Rotation::OFF,
        head: None,
    }
}

/// The `n` of every line; panics where one does not parse.
fn numbers(path: &Path) -> Vec<u64> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "{text:?}");
    text.lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["n"]
                .as_u64()
                .unwrap()
        })
        .collect()
}

#[test]
fn makes_directories_and_file_with_their_modes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b/alerts.json");
    let options = Options {
        mode: 0o640,
        group: Some("no-such-group-here".into()),
        rotation: Rotation::OFF,
        head: None,
    };
    let mut log = JsonLog::open(&path, &options).unwrap();
    log.write(&line(1)).unwrap();
    log.settle().unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
    assert_eq!(
        fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o027,
        0
    );
    assert_eq!(numbers(&path), [1]);
    assert!(log.notes().is_empty());
}

#[test]
fn keeps_the_mode_of_an_existing_file_but_tells_of_strangers_who_may_write() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o602)).unwrap();
    let mut log = JsonLog::open(&path, &plain()).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o602);
    assert!(log.notes()[0].contains("mode 0602"));
}

#[test]
fn refuses_links_devices_and_directories() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("target");
    fs::write(&target, "precious").unwrap();
    let link = dir.path().join("link");
    symlink(&target, &link).unwrap();
    let error = JsonLog::open(&link, &plain()).unwrap_err().to_string();
    assert!(error.contains("symbolic link"), "{error}");
    symlink(dir.path().join("nowhere"), dir.path().join("dangling")).unwrap();
    assert!(JsonLog::open(&dir.path().join("dangling"), &plain()).is_err());
    assert_eq!(fs::read_to_string(&target).unwrap(), "precious");

    let before = fs::metadata("/dev/null").unwrap().mode();
    let error = JsonLog::open(Path::new("/dev/null"), &plain())
        .unwrap_err()
        .to_string();
    assert!(error.contains("not a regular file"), "{error}");
    assert_eq!(fs::metadata("/dev/null").unwrap().mode(), before);

    let fifo = dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(JsonLog::open(&fifo, &plain()).is_err());
    assert!(JsonLog::open(dir.path(), &plain()).is_err());
}

#[test]
fn follows_rename_deletion_and_copytruncate_without_a_word() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut log = JsonLog::open(&path, &plain()).unwrap();
    log.write(&line(1)).unwrap();
    fs::rename(&path, dir.path().join("log.1")).unwrap();
    log.write(&line(2)).unwrap();
    assert_eq!(numbers(&dir.path().join("log.1")), [1]);
    assert_eq!(numbers(&path), [2]);

    fs::remove_file(&path).unwrap();
    log.write(&line(3)).unwrap();
    assert_eq!(numbers(&path), [3]);

    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(0)
        .unwrap();
    log.write(&line(4)).unwrap();
    assert_eq!(numbers(&path), [4]);

    fs::rename(&path, dir.path().join("log.2")).unwrap();
    fs::write(&path, "").unwrap();
    log.reopen().unwrap();
    log.write(&line(5)).unwrap();
    assert_eq!(numbers(&path), [5]);
    assert_eq!(numbers(&dir.path().join("log.2")), [4]);
}

#[test]
fn comes_back_when_the_directory_does() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d/log");
    let mut log = JsonLog::open(&path, &plain()).unwrap();
    fs::remove_dir_all(dir.path().join("d")).unwrap();
    fs::write(dir.path().join("d"), "in the way").unwrap();
    // The open descriptor would still take the line, but nobody would find it.
    assert!(log.write(&line(1)).is_err());
    fs::remove_file(dir.path().join("d")).unwrap();
    log.write(&line(2)).unwrap();
    assert_eq!(numbers(&path), [2]);
}

#[test]
fn a_whole_last_line_gets_its_newline_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    fs::write(&path, "{\"n\":1}\n{\"n\":2}").unwrap();
    let mut log = JsonLog::open(&path, &plain()).unwrap();
    assert_eq!(log.notes().len(), 1);
    log.write(&line(3)).unwrap();
    assert_eq!(numbers(&path), [1, 2, 3]);
}

#[test]
fn a_torn_last_line_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    for (content, rest) in [
        ("{\"n\":1}\n{\"n\":", vec![1]),
        ("{\"x", vec![]),
        ("{\"n\":1}\n\0\0\0", vec![1]),
    ] {
        let _ = fs::remove_file(dir.path().join("log.torn"));
        fs::write(&path, content).unwrap();
        let mut log = JsonLog::open(&path, &plain()).unwrap();
        assert!(log.notes()[0].contains("torn last line"));
        assert_eq!(numbers(&path), rest);
        let torn = fs::read_to_string(dir.path().join("log.torn")).unwrap();
        assert_eq!(torn.trim_end(), content.rsplit('\n').next().unwrap());
        log.write(&line(9)).unwrap();
        assert_eq!(numbers(&path).last(), Some(&9));
    }
}

#[test]
fn a_torn_line_that_cannot_be_set_aside_is_ended() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    fs::create_dir(dir.path().join("log.torn")).unwrap();
    fs::write(&path, "{\"n\":1}\n{\"n").unwrap();
    let mut log = JsonLog::open(&path, &plain()).unwrap();
    assert!(log.notes()[0].contains("stays in the log"));
    log.write(&line(2)).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("{\"n\":1}\n{\"n\n{\"n\":2"), "{text}");
}

#[test]
fn finds_the_last_line_across_chunks() {
    let file = tempfile::tempfile().unwrap();
    let long = "x".repeat(200_000);
    file.write_all_at(format!("a\n{long}").as_bytes(), 0)
        .unwrap();
    assert_eq!(line_start(&file, 200_002).unwrap(), 2);
    file.write_all_at(b"b\n", 200_002).unwrap();
    assert_eq!(line_start(&file, 200_004).unwrap(), 200_004);
}

/// Takes `room` bytes, a few at a time, then is full.
struct SmallDisk {
    room: usize,
    taken: Vec<u8>,
}

impl Write for SmallDisk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(3).min(self.room);
        if count == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.room -= count;
        self.taken.extend_from_slice(&bytes[..count]);
        Ok(count)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_short_write_is_completed_or_told() {
    let mut disk = SmallDisk {
        room: 10,
        taken: Vec::new(),
    };
    write_whole(&mut disk, b"1234567\n").unwrap();
    assert_eq!(disk.taken, b"1234567\n");
    let (written, error) = write_whole(&mut disk, b"abcdef\n").unwrap_err();
    assert_eq!((written, error.kind()), (2, io::ErrorKind::StorageFull));
}

#[test]
fn what_a_full_disk_left_of_a_line_is_taken_out_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut log = JsonLog::open(&path, &plain()).unwrap();
    log.write(&line(1)).unwrap();
    log.file.write_all(b"{\"n\":").unwrap();
    log.undo(b"{\"n\":");
    assert_eq!(numbers(&path), [1]);
    assert!(!log.unterminated);

    // Another writer came in between: the fragment stays, set apart.
    log.file.write_all(b"{\"n\":").unwrap();
    fs::OpenOptions::new()
        .append(true)
        .open(&path)
        .unwrap()
        .write_all(b"other")
        .unwrap();
    log.undo(b"{\"n\":");
    log.write(&line(2)).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("{\"n\":other\n{\"n\":2,"), "{text}");
}

#[test]
fn room_is_reserved_without_a_change_of_size_and_given_back() {
    // The directory of temporary files may lie where nothing can be reserved.
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = dir.path().join("log");
    let room = |path: &Path| fs::metadata(path).unwrap().blocks() * 512;
    let mut log = JsonLog::open(&path, &plain()).unwrap();
    log.write(&line(1)).unwrap();
    assert_eq!(numbers(&path), [1]);
    assert!(room(&path) >= reserve::CHUNK, "{}", room(&path));

    // Truncated by another, the room is gone and is reserved anew.
    let other = File::options().write(true).open(&path).unwrap();
    other.set_len(0).unwrap();
    assert_eq!(room(&path), 0);
    log.write(&line(2)).unwrap();
    assert!(room(&path) >= reserve::CHUNK, "{}", room(&path));

    let old = dir.path().join("log.1");
    fs::rename(&path, &old).unwrap();
    log.write(&line(3)).unwrap();
    assert!(room(&old) < reserve::CHUNK, "{}", room(&old));
    assert_eq!(numbers(&old), [2]);
    drop(log);
    assert!(room(&path) < reserve::CHUNK, "{}", room(&path));
    assert_eq!(numbers(&path), [3]);
}

#[test]
fn a_line_longer_than_a_chunk_is_covered_whole() {
    let file = tempfile::tempfile_in("/dev/shm").unwrap();
    let mut reserve = Reserve::default();
    reserve.cover(&file, 0, 3 * reserve::CHUNK).unwrap();
    let room = |file: &File| file.metadata().unwrap().blocks() * 512;
    assert_eq!(room(&file), 3 * reserve::CHUNK);
    // Within what is reserved nothing more is asked for.
    reserve.cover(&file, 10, reserve::CHUNK).unwrap();
    assert_eq!(room(&file), 3 * reserve::CHUNK);
}

mod rotation;
