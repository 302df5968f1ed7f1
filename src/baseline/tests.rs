//! Records compared, and the store over crashes and damage.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tempfile::tempdir;

use super::*;
use crate::key::{Change, Role, examine};

fn file(hash: &str) -> Record {
    Record {
        object: Some("0011223344556677aa".to_owned()),
        stat: Stat {
            device: 1,
            inode: 2,
            mode: libc::S_IFREG | 0o600,
            size: 3,
            modified: Moment(10, 0),
            changed: Moment(20, 5),
            ..Stat::default()
        },
        content: Content::Sha256(hash.to_owned()),
        ..Record::default()
    }
}

/// `file("a")`, with something about it changed.
fn with(change: impl FnOnce(&mut Record)) -> Record {
    let mut record = file("a");
    change(&mut record);
    record
}

#[test]
fn what_counts_as_another_content() {
    let link = |target: &str| {
        with(|record| {
            record.stat.mode = libc::S_IFLNK | 0o777;
            record.content = Content::Target(target.to_owned());
        })
    };
    let unread = |size, seconds| {
        with(|record| {
            record.content = Content::Unread;
            record.stat.size = size;
            record.stat.modified = Moment(seconds, 0);
        })
    };
    let fifo = |inode| {
        with(|record| {
            record.stat.mode = libc::S_IFIFO | 0o600;
            record.stat.inode = inode;
            record.content = Content::Unread;
        })
    };
    for (case, then, now, differs) in [
        ("nothing", file("a"), file("a"), false),
        ("another content", file("a"), file("b"), true),
        (
            "touched",
            file("a"),
            with(|record| {
                record.stat.modified = Moment(11, 0);
                record.stat.changed = Moment(21, 0);
            }),
            false,
        ),
        (
            "a copy in its place",
            file("a"),
            with(|record| {
                record.stat.inode = 9;
                record.object = Some("0011223344556677bb".to_owned());
            }),
            false,
        ),
        (
            "another owner and mode",
            file("a"),
            with(|record| {
                record.stat.uid = 7;
                record.stat.mode = libc::S_IFREG | 0o644;
            }),
            false,
        ),
        ("a link now", file("a"), link("a"), true),
        ("the same link", link("a"), link("a"), false),
        ("another target", link("a"), link("b"), true),
        ("too large, the same", unread(9, 1), unread(9, 1), false),
        ("too large, grown", unread(9, 1), unread(10, 1), true),
        ("too large, written", unread(9, 1), unread(9, 2), true),
        (
            "too large, written, and its time set back",
            unread(9, 1),
            Record {
                stat: Stat {
                    changed: Moment(21, 0),
                    ..unread(9, 1).stat
                },
                ..unread(9, 1)
            },
            true,
        ),
        ("not readable now", file("a"), unread(3, 10), false),
        ("read for the first time", unread(3, 10), file("a"), false),
        ("another FIFO", fifo(1), fifo(2), false),
        ("a FIFO for a file", file("a"), fifo(2), true),
    ] {
        assert_eq!(then.differs(&now), differs, "{case}");
    }
}

#[test]
fn what_need_not_be_read() {
    type Alter = fn(&mut Stat);
    let then = file("a");
    assert!(then.is_unread(&then.stat));
    let changes: [(&str, Alter); 5] = [
        ("inode", |stat| stat.inode = 9),
        ("size", |stat| stat.size = 9),
        ("modified", |stat| stat.modified = Moment(10, 1)),
        ("changed", |stat| stat.changed = Moment(20, 6)),
        ("kind", |stat| stat.mode = libc::S_IFLNK),
    ];
    for (name, change) in changes {
        let mut now = then.stat.clone();
        change(&mut now);
        assert!(!then.is_unread(&now), "{name}");
    }
    // Numbers of devices change from boot to boot.
    let mut now = then.stat.clone();
    now.device = 9;
    assert!(then.is_unread(&now));
}

#[test]
fn a_file_system_is_known_by_its_id_or_its_device() {
    let then = file("a");
    assert!(then.was_on(1, None));
    assert!(then.was_on(9, Some("0011223344556677ff")));
    assert!(!then.was_on(9, Some("1111223344556677ff")));
    assert!(!then.was_on(9, None));
}

#[test]
fn the_entries_of_a_list_are_compared_with_what_was_kept_of_them() {
    const ANN: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDN10vUUA50jhaILXX640/rWaCKUnA11AsVZpZtbB9Nk ann\n";
    const BOB: &str = "command=\"x\" ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA bob\n";
    let entries = |text: &str| {
        let facts = examine(text.as_bytes(), Role::AuthorizedKeys).unwrap();
        facts.list.unwrap().entries
    };
    let both = entries(&format!("{ANN}{BOB}"));
    let kept = serde_json::to_vec(&Login::all(&both).unwrap()).unwrap();
    let kept: Vec<Login> = serde_json::from_slice(&kept).unwrap();
    let kept: Vec<crate::key::Entry> = kept.into_iter().map(Into::into).collect();
    assert!(Change::between(&kept, &both).is_empty());
    let change = Change::between(&kept, &entries(ANN));
    assert_eq!(change.removed[0].comment.as_deref(), Some("bob"));
    assert!(change.added.is_empty());
    let many = ANN.repeat(2000);
    assert_eq!(Login::all(&entries(&many)), None);
}

fn batch(store: &Store, path: &str, record: Option<&Record>) {
    store.apply([(Path::new(path), record)], true).unwrap();
}

#[test]
fn a_store_that_is_opened_again_has_what_was_written() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("baseline.redb");
    let (store, opened) = open(&path).unwrap();
    assert_eq!(opened, Opened::New);
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    assert_eq!(store.meta().unwrap().watched, None);
    batch(&store, "/a", Some(&file("a")));
    batch(&store, "/b", Some(&file("b")));
    batch(&store, "/a", None);
    let meta = Meta {
        watched: Some(vec!["/home/*/.ssh".to_owned()]),
        since: Some(Moment(1, 2)),
        ..Meta::default()
    };
    store.set_meta(meta).unwrap();
    drop(store);
    let (store, opened) = open(&path).unwrap();
    assert!(matches!(opened, Opened::Known(_)), "{opened:?}");
    assert_eq!(store.get(Path::new("/a")).unwrap(), None);
    assert_eq!(store.get(Path::new("/b")).unwrap(), Some(file("b")));
    assert_eq!(store.paths(|_| true).unwrap(), [Path::new("/b")]);
    assert_eq!(store.meta().unwrap().since, Some(Moment(1, 2)));
}

#[test]
fn what_a_crash_leaves_behind_is_read() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("baseline.redb");
    let (store, _) = open(&path).unwrap();
    batch(&store, "/a", Some(&file("a")));
    // The file as a kill would leave it: nobody has closed it.
    let crashed = dir.path().join("crashed.redb");
    fs::copy(&path, &crashed).unwrap();
    let (crashed, opened) = open(&crashed).unwrap();
    assert!(matches!(opened, Opened::Known(_)), "{opened:?}");
    assert_eq!(crashed.get(Path::new("/a")).unwrap(), Some(file("a")));
}

/// What the process that looks at a store would say.
fn health(path: &Path) -> Health {
    let path = path.to_owned();
    match std::panic::catch_unwind(move || Store::check(&path).unwrap()) {
        Ok(health) => health,
        Err(_) => Health::Damaged("it panicked".to_owned()),
    }
}

fn open(path: &Path) -> Result<(Store, Opened), Error> {
    let health = if path.exists() {
        health(path)
    } else {
        Health::Sound
    };
    Store::open(path, health)
}

#[test]
fn a_store_that_is_damaged_is_set_aside_at_once() {
    // In memory where there is such a place: hundreds of stores are forced to it.
    let memory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempdir());
    let dir = memory.unwrap();
    let path = dir.path().join("good.redb");
    let (store, _) = open(&path).unwrap();
    for number in 0..150 {
        batch(&store, &format!("/{number}"), Some(&file("a")));
    }
    // As a crash leaves it; then as it is closed.
    let crashed = fs::read(&path).unwrap();
    drop(store);
    let closed = fs::read(&path).unwrap();
    let mut cases = vec![
        ("empty".to_owned(), Vec::new()),
        ("text".to_owned(), b"not a database\n".repeat(1000)),
        ("zeros".to_owned(), vec![0; closed.len()]),
        ("head".to_owned(), closed[..100].to_vec()),
    ];
    for (state, good) in [("crashed", &crashed), ("closed", &closed)] {
        for length in (0..good.len()).step_by(4096) {
            cases.push((format!("{state}, cut to {length}"), good[..length].to_vec()));
        }
        for (page, start) in (0..good.len()).step_by(4096).enumerate() {
            let mut bytes = good.clone();
            bytes[start..start + 4096].fill([0, 0xa5][page % 2]);
            cases.push((format!("{state}, page {page} filled"), bytes));
            let mut bytes = good.clone();
            bytes[start + (page * 1237) % 4096] ^= 1 << (page % 8);
            cases.push((format!("{state}, a bit of page {page}"), bytes));
        }
        // The head, in which each byte matters.
        for byte in (0..320).step_by(5) {
            let mut bytes = good.clone();
            bytes[byte] ^= 0x10;
            cases.push((format!("{state}, byte {byte}"), bytes));
        }
    }
    let (mut set_aside, mut same) = (0, 0);
    let path = dir.path().join("baseline.redb");
    let aside = dir.path().join("baseline.redb.corrupt");
    for (case, bytes) in &cases {
        let _ = fs::remove_file(&path);
        fs::write(&path, bytes).unwrap();
        let (store, opened) = open(&path).expect(case);
        match opened {
            Opened::SetAside(there, reason) => {
                set_aside += 1;
                assert_eq!(there, aside);
                assert!(!reason.is_empty(), "{case}");
                // The attempt to repair it may have changed it.
                assert!(fs::read(&aside).unwrap().len() >= bytes.len(), "{case}");
                assert!(store.paths(|_| true).unwrap().is_empty(), "{case}");
                batch(&store, "/new", Some(&file("a")));
            }
            // Where nothing refers to, or of which there is a copy.
            Opened::Known(_) => {
                same += 1;
                let paths = store.paths(|_| true).unwrap();
                assert!(paths.len() >= 149, "{case}: {}", paths.len());
                for path in paths {
                    assert_eq!(store.get(&path).unwrap(), Some(file("a")), "{case}");
                }
            }
            Opened::New => panic!("{case}: taken for new"),
        }
    }
    println!("{} cases: {set_aside} set aside, {same} read", cases.len());
    assert!(
        set_aside > cases.len() / 4,
        "{set_aside} of {}",
        cases.len()
    );
}

#[test]
fn another_format_is_set_aside() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("baseline.redb");
    {
        let database = redb::Database::create(&path).unwrap();
        let write = database.begin_write().unwrap();
        let meta: redb::TableDefinition<'_, &str, &[u8]> = redb::TableDefinition::new("meta");
        let text = br#"{"format":99,"watched":null,"since":null}"#;
        write
            .open_table(meta)
            .unwrap()
            .insert("meta", text.as_slice())
            .unwrap();
        write.commit().unwrap();
    }
    let (_, opened) = open(&path).unwrap();
    let Opened::SetAside(_, reason) = opened else {
        panic!("{opened:?}");
    };
    assert!(reason.contains("format 99"), "{reason}");
}
