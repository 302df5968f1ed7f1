//! Against databases that `SQLite` itself has written, whole, damaged and while it writes.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use super::*;

/// Has `SQLite` itself run statements on the database at `path`; what it prints.
pub(in crate::resolve::logins) fn sqlite3(path: &Path, sql: &str) -> String {
    let output = Command::new("sqlite3")
        .args(["-batch", "-bail"])
        .arg(path)
        .arg(sql)
        .output()
        .expect("this test needs sqlite3; tests/run installs it");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn database(sql: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("some.db");
    sqlite3(&path, sql);
    (dir, path)
}

fn all<const N: usize>(path: &Path, columns: [&str; N]) -> io::Result<Vec<[Value; N]>> {
    latest(path, "t", columns, usize::MAX, |row| Some(row.clone()))
}

fn integers(path: &Path) -> io::Result<Vec<i64>> {
    latest(path, "t", ["v"], usize::MAX, |[value]| value.integer())
}

#[test]
fn values_of_every_kind() {
    let (_dir, path) = database(
        "CREATE TABLE u(x);
         CREATE TABLE T(id INTEGER PRIMARY KEY, \"a\" INTEGER, [b] TEXT,
                        c BLOB);
         INSERT INTO T VALUES(1, 0, '', NULL), (2, 1, 'ä', x'00'), (3, -1, 'x', 1.5),
             (4, 127, 'x', 'x'), (5, -128, NULL, NULL), (6, 32767, 'x', 'x'), (7, -32768, 'x', 'x'),
             (8, 8388607, 'x', 'x'), (9, -8388608, 'x', 'x'), (10, 2147483647, 'x', 'x'),
             (11, -2147483648, 'x', 'x'), (12, 140737488355327, 'x', 'x'),
             (13, -140737488355328, 'x', 'x'), (14, 9223372036854775807, 'x', 'x'),
             (15, -9223372036854775808, 'x', 'x'), (300, 256, 'x', 'x'), (70000, -2, 'x', 'x');",
    );
    let integers: Vec<i64> = all(&path, ["a"])
        .unwrap()
        .iter()
        .map(|[value]| value.integer().unwrap())
        .collect();
    let expected: Vec<i64> = sqlite3(&path, "SELECT a FROM T ORDER BY id DESC;")
        .lines()
        .map(|line| line.parse().unwrap())
        .collect();
    assert_eq!(expected.len(), 17);
    assert_eq!(integers, expected);
    let mut rows = all(&path, ["c", "B"]).unwrap();
    rows.reverse();
    let text = |text: &str| Value::Text(text.to_owned());
    assert_eq!(rows[0], [Value::Null, text("")]);
    assert_eq!(rows[1], [Value::Other, text("ä")]);
    assert_eq!(rows[2], [Value::Other, text("x")]);
    assert_eq!(rows[4], [Value::Null, Value::Null]);
    // Older rows have nothing of a column that was added.
    sqlite3(
        &path,
        "ALTER TABLE T ADD COLUMN d; INSERT INTO T(d) VALUES(7);",
    );
    let added = all(&path, ["d"]).unwrap();
    assert_eq!(added[..2], [[Value::Integer(7)], [Value::Null]]);
    for (table, column) in [("t", "e"), ("v", "a")] {
        let found = latest(&path, table, [column], 1, |_| Some(()));
        assert_eq!(found.unwrap_err().kind(), ErrorKind::InvalidData);
    }
}

#[test]
fn of_many_rows_the_latest() {
    for size in [512, 4096, 65_536] {
        let (_dir, path) = database(&format!(
            "PRAGMA page_size={size};
             CREATE TABLE t(id INTEGER PRIMARY KEY, v INTEGER, text TEXT);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000)
             INSERT INTO t SELECT i, i, printf('%.50c', 'x') FROM n;
             DELETE FROM t WHERE id % 7 = 0;"
        ));
        let expected: Vec<i64> = (1..=60_000).rev().filter(|id| id % 7 != 0).collect();
        let few = latest(&path, "t", ["v"], 5, |[value]| value.integer()).unwrap();
        assert_eq!(few, expected[..5]);
        // Of more than three megabytes one is read.
        let found = integers(&path).unwrap();
        assert_eq!(found, expected[..found.len()], "{size}");
        assert!((5_000..30_000).contains(&found.len()), "{}", found.len());
    }
}

#[test]
fn a_row_that_overflows_its_page_is_passed_over() {
    let (_dir, path) = database(
        "CREATE TABLE t(v INTEGER, text TEXT);
         INSERT INTO t VALUES(1, 'x'), (2, printf('%.9000c', 'x')), (3, 'x');",
    );
    assert_eq!(integers(&path).unwrap(), [3, 1]);
}

#[test]
fn what_cannot_be_read_is_refused() {
    let create = "CREATE TABLE t(v); INSERT INTO t VALUES(1);";
    for pragma in ["journal_mode=wal", "encoding='UTF-16le'"] {
        let (_dir, path) = database(&format!("PRAGMA {pragma}; {create}"));
        assert!(integers(&path).is_err(), "{pragma}");
    }
    let (dir, path) = database(create);
    assert_eq!(integers(&path).unwrap(), [1]);
    let bytes = fs::read(&path).unwrap();
    for length in [0, 1, 99, 100, 4096, 4100, bytes.len() - 1] {
        fs::write(&path, &bytes[..length]).unwrap();
        assert!(integers(&path).is_err(), "{length}");
    }
    assert!(integers(dir.path()).is_err());
    assert!(integers(&dir.path().join("none")).is_err());
    let fifo = dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(integers(&fifo).is_err());
}

#[test]
fn a_journal_in_force_is_waited_for_and_no_other() {
    let (dir, path) = database("CREATE TABLE t(v); INSERT INTO t VALUES(1);");
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let journal = dir.path().join("some.db-journal");
    for (bytes, reads) in [
        // journal_mode=truncate, persist, and before it is on the disk
        (&b""[..], true),
        (&[0; 28], true),
        (b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7", false),
    ] {
        fs::write(&journal, bytes).unwrap();
        for path in [&path, &link] {
            let found = integers(path);
            let kind = found.as_ref().err().map(io::Error::kind);
            assert_eq!(found.is_ok(), reads, "{bytes:?}");
            assert!(kind.is_none_or(|kind| kind == ErrorKind::WouldBlock));
        }
    }
}

#[test]
fn what_is_read_while_somebody_writes_is_of_one_moment() {
    // All rows are the same at any moment, and lie in many pages.
    let (_dir, path) = database(
        "PRAGMA page_size=512;
         CREATE TABLE t(v INTEGER, text TEXT);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400)
         INSERT INTO t SELECT 0, printf('%.100c', 'x') FROM n;",
    );
    let mut writer = Command::new("sqlite3")
        .args(["-batch", "-bail"])
        .arg(&path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = writer.stdin.take().unwrap();
    let most = 150;
    let writes = std::thread::spawn(move || {
        // So little that much is written before the header is.
        stdin
            .write_all(b"PRAGMA cache_size=5; PRAGMA synchronous=OFF;\n")
            .unwrap();
        for _ in 0..most {
            stdin.write_all(b"UPDATE t SET v = v + 1;\n").unwrap();
        }
    });
    let mut read = 0;
    while writer.try_wait().unwrap().is_none() {
        match integers(&path) {
            Ok(found) => {
                assert_eq!(found.len(), 400);
                assert!(found.iter().all(|value| *value == found[0]), "{found:?}");
                read += 1;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
        }
    }
    writes.join().unwrap();
    println!("read {read} times");
    assert_eq!(integers(&path).unwrap(), vec![most; 400]);
}

#[test]
fn damage_ends() {
    let (_dir, path) = database(
        "PRAGMA page_size=512;
         CREATE TABLE wtmp(ID INTEGER PRIMARY KEY, User TEXT, Login INTEGER);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100)
         INSERT INTO wtmp SELECT i, 'ann', i FROM n;",
    );
    let bytes = fs::read(&path).unwrap();
    let changes = proptest::collection::vec((0..bytes.len(), proptest::num::u8::ANY), 1..8);
    proptest::proptest!(|(changes in changes)| {
        let mut bytes = bytes.clone();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        read_hostile(&bytes);
    });
    // A page that leads to itself.
    let root: usize = sqlite3(&path, "SELECT rootpage FROM sqlite_schema;")
        .trim()
        .parse()
        .unwrap();
    let mut bytes = bytes;
    let page = (root - 1) * 512;
    assert_eq!(bytes[page], 5, "no interior page");
    bytes[page + 8..page + 12].copy_from_slice(&u32::try_from(root).unwrap().to_be_bytes());
    fs::write(&path, &bytes).unwrap();
    let found = latest(&path, "wtmp", ["User"], 5, |_| Some(()));
    assert!(found.is_ok_and(|found| found.is_empty()));
}
