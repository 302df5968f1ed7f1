//! wtmp, lastlog and their successors, as their own programs write them.

use std::fs;
use std::process::{Command, Stdio};

use super::sqlite::tests::sqlite3;
use super::*;

/// As utmpdump(1), the C library's own, writes what it reads as text.
fn wtmp(text: &str) -> Vec<u8> {
    use std::io::Write as _;
    let mut child = Command::new("utmpdump")
        .arg("-r")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("this test needs utmpdump; tests/run installs it");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).unwrap();
    drop(stdin);
    child.wait_with_output().unwrap().stdout
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

const LOGINS: &str = "\
[2] [00000] [~~  ] [reboot  ] [~           ] [6.1.0       ] [0.0.0.0        ] [2026-10-01T08:00:00,000000+00:00]
[7] [00400] [ts/0] [bob     ] [pts/0       ] [10.1.2.3    ] [10.1.2.3       ] [2026-10-01T10:00:00,000000+00:00]
[7] [00500] [tty1] [bob     ] [tty1        ] [            ] [0.0.0.0        ] [2026-11-20T10:00:00,000000+00:00]
[8] [00500] [tty1] [bob     ] [tty1        ] [            ] [0.0.0.0        ] [2026-11-20T11:00:00,000000+00:00]
[7] [00600] [ts/1] [ann     ] [pts/1       ] [10.9.9.9    ] [10.9.9.9       ] [2026-11-21T10:00:00,000000+00:00]
[7] [00700] [ts/2] [bob     ] [pts/2       ] [2001:db8::5 ] [2001:db8::5    ] [2026-11-22T10:00:00,000000+00:00]
[7] [00800] [ts/3] [bob     ] [pts/3       ] [host.example] [0.0.0.0        ] [2026-11-23T10:00:00,000000+00:00]
";

#[test]
fn the_last_logins_of_one_user() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wtmp");
    let mut bytes = wtmp(LOGINS);
    assert_eq!(bytes.len(), 7 * size_of::<libc::utmpx>());
    // A record that was cut off.
    bytes.extend([7; 100]);
    fs::write(&path, &bytes).unwrap();
    // 2026-11-24T00:00:00Z
    let now = at(1_795_478_400);
    let found = recent(&path, "bob", now).unwrap();
    let shown: Vec<_> = found
        .iter()
        .map(|login| {
            let ip = login.ip.map(|ip| ip.to_string());
            (login.line.as_deref(), ip, login.host.as_deref())
        })
        .collect();
    assert_eq!(
        shown,
        [
            (Some("pts/3"), None, Some("host.example")),
            (Some("pts/2"), Some("2001:db8::5".to_owned()), None),
            // The one of October is too long ago.
            (Some("tty1"), None, None),
        ]
    );
    // 2026-11-23T10:00:00Z
    assert_eq!(found[0].time, at(1_795_428_000));
    let before = recent(&path, "bob", at(1_795_428_000 - 1)).unwrap();
    assert_eq!(before, found[1..], "what is yet to come is not told");
    assert_eq!(recent(&path, "bo", now).unwrap(), []);
    assert!(recent(&dir.path().join("none"), "bob", now).is_err());
}

#[test]
fn many_logins_are_bounded() {
    let line = LOGINS.lines().last().unwrap();
    let one = wtmp(&format!("{line}\n"));
    let bytes = one.repeat(6000);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wtmp");
    fs::write(&path, &bytes).unwrap();
    let found = recent(&path, "bob", at(1_795_478_400)).unwrap();
    assert_eq!(found.len(), MAX_LOGINS);
}

#[test]
fn any_bytes_are_read() {
    proptest::proptest!(|(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..1200))| {
        let _ = search(&bytes, "bob", at(1_795_478_400));
    });
}

#[test]
fn sessions_of_logind() {
    let dir = tempfile::tempdir().unwrap();
    let state = "# This is private data. Do not parse.\nUID=1001\nUSER=bob\nACTIVE=1\nREMOTE=1\nTTY=pts/0\nSERVICE=sshd\nREMOTE_HOST=10.1.2.3\nREMOTE_USER=\n";
    fs::write(dir.path().join("c4"), state).unwrap();
    let expected = LogindSession {
        user: Some("bob".into()),
        service: Some("sshd".into()),
        remote_host: Some("10.1.2.3".into()),
        class: None,
        tty: Some("pts/0".into()),
        realtime: None,
    };
    assert_eq!(LogindSession::read(dir.path(), "c4").unwrap(), expected);
    for id in ["", "5", "../c4", "c4/", "."] {
        assert!(LogindSession::read(dir.path(), id).is_err(), "{id}");
    }
}

/// Writes `struct lastlog` as the C library lays it out.
const LASTLOG: &str = r#"
#include <lastlog.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int main(int argc, char **argv) {
    struct lastlog record = {0};
    FILE *file = fopen(argv[1], "r+");
    record.ll_time = atol(argv[3]);
    strncpy(record.ll_line, argv[4], sizeof record.ll_line);
    strncpy(record.ll_host, argv[5], sizeof record.ll_host);
    return argc != 6 || fseek(file, atol(argv[2]) * sizeof record, SEEK_SET) != 0
        || fwrite(&record, sizeof record, 1, file) != 1 || fclose(file) != 0;
}
"#;

#[test]
fn lastlog_is_read_as_the_c_library_writes_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("write.c"), LASTLOG).unwrap();
    let built = Command::new("cc")
        .args(["-Werror", "-o"])
        .args([path("write"), path("write.c")])
        .status();
    assert!(built.expect("tests/run installs it").success());
    let file = path("lastlog");
    fs::write(&file, "").unwrap();
    let long = "x".repeat(40);
    for (uid, time, line, host) in [
        ("1001", "1795428000", "pts/3", "::ffff:10.1.2.3"),
        ("1003", "1795428001", long.as_str(), "host.example"),
        // It is a sparse file: this one is at more than a terabyte.
        ("4294967294", "1795428002", "tty1", ""),
    ] {
        let wrote = Command::new(path("write"))
            .arg(&file)
            .args([uid, time, line, host])
            .status();
        assert!(wrote.unwrap().success(), "{uid}");
    }
    let login = |seconds, line: &str, ip: Option<&str>, host: Option<&str>| Login {
        from: RememberedBy::Lastlog,
        time: at(seconds),
        line: Some(line.to_owned()),
        ip: ip.map(|ip| ip.parse().unwrap()),
        host: host.map(str::to_owned),
    };
    let read = |uid| lastlog::read(&file, uid).unwrap();
    assert_eq!(
        read(1001),
        Some(login(1_795_428_000, "pts/3", Some("10.1.2.3"), None))
    );
    assert_eq!(
        read(1003),
        Some(login(
            1_795_428_001,
            &long[..32],
            None,
            Some("host.example")
        ))
    );
    assert_eq!(
        read(u32::MAX - 1),
        Some(login(1_795_428_002, "tty1", None, None))
    );
    // Never, and behind the end.
    assert_eq!((read(1002), read(u32::MAX)), (None, None));
    assert!(lastlog::read(&path("none"), 1).is_err());
}

#[test]
fn what_several_remember_is_told_once() {
    let dir = tempfile::tempdir().unwrap();
    let records = Records {
        logind: dir.path().join("sessions"),
        wtmp: dir.path().join("wtmp"),
        wtmpdb: vec![dir.path().join("none"), dir.path().join("wtmp.db")],
        lastlog: dir.path().join("lastlog"),
        lastlog2: dir.path().join("lastlog2.db"),
    };
    // 2026-11-24T00:00:00Z
    let now = at(1_795_478_400);
    assert_eq!(records.recent("bob", 3, now), [], "a host that keeps none");
    fs::write(&records.wtmp, wtmp(LOGINS)).unwrap();
    fs::create_dir(&records.logind).unwrap();
    let session = |id: &str, user: &str, class: &str, seconds: u64, rest: &str| {
        let text = format!("USER={user}\nCLASS={class}\nREALTIME={seconds}000000\n{rest}\n");
        fs::write(records.logind.join(id), text).unwrap();
    };
    // That of wtmp, 2026-11-22T10:00:00Z, as logind has it.
    let known = 1_795_341_600;
    session("1", "bob", "user", known - 1, "REMOTE_HOST=2001:db8::5");
    // From there came another one besides, without a terminal.
    session("2", "bob", "user", known + 2, "REMOTE_HOST=2001:db8::5");
    session("3", "bob", "background", known + 3, "SERVICE=cron");
    session("4", "ann", "user", known + 4, "TTY=tty2");
    session("5", "bob", "user", known + 5, "TTY=tty1");
    session("6.ref", "bob", "user", known + 6, "");
    let told = |uid| -> Vec<_> {
        let found = records.recent("bob", uid, now);
        let shown = found.iter().map(|login| {
            let line = login.line.clone().unwrap_or_default();
            format!("{} {line}", login.from.as_str())
        });
        shown.collect()
    };
    let expected = [
        "wtmp pts/3",
        "logind tty1",
        "logind ",
        "wtmp pts/2",
        "wtmp tty1",
    ];
    assert_eq!(told(3), expected);
    // The last one of wtmp once more, and one that wtmp does not have.
    let mut bytes = vec![0; lastlog::RECORD * 5];
    let mut write = |uid: usize, seconds: u32, line: &str| {
        let record = &mut bytes[uid * lastlog::RECORD..][..lastlog::RECORD];
        record[..4].copy_from_slice(&seconds.to_ne_bytes());
        let host = lastlog::RECORD - 256;
        record[host - 32..][..line.len()].copy_from_slice(line.as_bytes());
        record[host..][..12].copy_from_slice(b"host.example");
    };
    write(3, 1_795_428_000, "pts/3");
    write(4, 1_795_428_100, "pts/9");
    fs::write(&records.lastlog, &bytes).unwrap();
    assert_eq!(told(3), expected);
    assert_eq!(told(4)[..2], ["lastlog pts/9", "wtmp pts/3"]);
    assert_eq!(told(4).len(), MAX_LOGINS);
    // Too long ago, or yet to come.
    for seconds in [1_700_000_000, 1_795_478_500] {
        let text = format!("USER=bob\nCLASS=user\nREALTIME={seconds}000000\n");
        fs::write(records.logind.join("7"), text).unwrap();
        assert_eq!(told(3), expected);
    }
}

/// Statements of wtmpdb 0.73 and liblastlog2 2.41, as they run them.
const WTMPDB: &str = "CREATE TABLE IF NOT EXISTS wtmp(ID INTEGER PRIMARY KEY, Type INTEGER, User TEXT NOT NULL, Login INTEGER, Logout INTEGER, TTY TEXT, RemoteHost TEXT, Service TEXT) STRICT;
INSERT INTO wtmp (Type,User,Login,TTY,RemoteHost,Service) VALUES(1,'reboot',1795341000000000,'~','6.12.0',NULL);
INSERT INTO wtmp (Type,User,Login,TTY,RemoteHost,Service) VALUES(3,'bob',1690000000000000,'tty1',NULL,'login');
INSERT INTO wtmp (Type,User,Login,TTY,RemoteHost,Service) VALUES(3,'bob',1795341600000000,'pts/0','2001:db8::5','sshd');
INSERT INTO wtmp (Type,User,Login,TTY,RemoteHost,Service) VALUES(3,'ann',1795341700000000,'pts/1','192.0.2.1','sshd');
INSERT INTO wtmp (Type,User,Login,TTY,RemoteHost,Service) VALUES(3,'bob',1795341800000000,'tty1',NULL,'login');
UPDATE wtmp SET Logout = 1795341900000000 WHERE ID = 3;";
const LASTLOG2: &str = "CREATE TABLE IF NOT EXISTS Lastlog2(Name TEXT PRIMARY KEY, Time INTEGER, TTY TEXT, RemoteHost TEXT, Service TEXT);
REPLACE INTO Lastlog2 VALUES('bob',1690000000,'tty1',NULL,'login');
REPLACE INTO Lastlog2 VALUES('ann',1795341700,'ssh','192.0.2.1','sshd');
REPLACE INTO Lastlog2 VALUES('bob',1795342000,'ssh','host.example','sshd');
REPLACE INTO Lastlog2 VALUES('never',0,'','',NULL);";

#[test]
fn databases_remember_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let records = Records {
        logind: path("sessions"),
        wtmp: path("wtmp"),
        wtmpdb: vec![path("none"), path("wtmp.db")],
        lastlog: path("lastlog"),
        lastlog2: path("lastlog2.db"),
    };
    // 2026-11-24T00:00:00Z
    let now = at(1_795_478_400);
    let told = |user: &str| -> Vec<_> {
        let found = records.recent(user, 3, now);
        let shown = found.iter().map(|login| {
            let line = login.line.as_deref().unwrap_or("-");
            let ip = login.ip.map(|ip| ip.to_string());
            let from = ip.or(login.host.clone()).unwrap_or("here".into());
            let time = login.time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
            format!("{} {line} {from} {}", login.from.as_str(), time.as_secs())
        });
        shown.collect()
    };
    fs::write(path("wtmp.db"), "no database").unwrap();
    assert_eq!(told("bob"), [""; 0]);
    fs::remove_file(path("wtmp.db")).unwrap();
    sqlite3(&path("wtmp.db"), WTMPDB);
    sqlite3(&path("lastlog2.db"), LASTLOG2);
    assert_eq!(
        told("bob"),
        [
            "lastlog2 - host.example 1795342000",
            "wtmpdb tty1 here 1795341800",
            "wtmpdb pts/0 2001:db8::5 1795341600",
        ]
    );
    // Both have it.
    assert_eq!(told("ann"), ["wtmpdb pts/1 192.0.2.1 1795341700"]);
    for user in ["reboot", "never", "bo"] {
        assert_eq!(told(user), [""; 0]);
    }
}
