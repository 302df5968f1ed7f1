//! What is remembered of lists, and what it is compared with.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;

use tempfile::{TempDir, tempdir};

use super::*;

const ANN: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDN10vUUA50jhaILXX640/rWaCKUnA11AsVZpZtbB9Nk ann\n";
const BOB: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA bob\n";

fn comments(entries: &[Entry]) -> Vec<&str> {
    entries
        .iter()
        .map(|entry| entry.comment.as_deref().unwrap())
        .collect()
}

/// What is told of it, by an alert.
fn report(keys: &mut Keys, path: &Path, action: Action) -> KeyReport {
    tell(keys, path, by(action))
}

/// What is told of it, unless it is kept quiet.
fn tell(keys: &mut Keys, path: &Path, occasion: Occasion<'_>) -> KeyReport {
    let (report, lesson) = read(keys, path, occasion);
    keys.remember(path, &report, lesson);
    report
}

/// What is in it, read once more where a stall was longer than that is waited for.
fn read(keys: &mut Keys, path: &Path, occasion: Occasion<'_>) -> (KeyReport, Lesson) {
    let mut tries = (0..20).map(|_| keys.report(open_place(path).unwrap(), path, occasion));
    let mut read = tries.next().unwrap();
    while matches!(read.0.inspection, Err("timeout"))
        && let Some(again) = tries.next()
    {
        read = again;
    }
    read
}

fn by(action: Action) -> Occasion<'static> {
    Occasion {
        action,
        time: SystemTime::now(),
        original: None,
        is_passing: false,
        left: None,
    }
}

/// How it is now.
fn left(path: &Path) -> Left {
    let file = open_place(path).unwrap();
    Left {
        version: look(file.as_fd(), c"").unwrap().version,
        goes_on: false,
        content: Content::Own,
    }
}

fn added(report: &KeyReport) -> Vec<&str> {
    comments(&report.change.as_ref().unwrap().added)
}

/// A list with ann's key, which is known.
fn known() -> (TempDir, PathBuf, Keys) {
    let dir = tempdir().unwrap();
    let list = dir.path().join("authorized_keys");
    fs::write(&list, ANN).unwrap();
    let mut keys = Keys::start(&[]).unwrap();
    report(&mut keys, &list, Action::Modification);
    (dir, list, keys)
}

fn append(path: &Path, text: &str) {
    let mut file = fs::File::options().append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

#[test]
fn a_file_on_its_way_to_a_lists_name_leaves_what_it_adds_to_the_rename() {
    let (_dir, list, mut keys) = known();
    let from = list.with_file_name("new");
    append(&list, BOB);
    // The creation of `new` is decided when the file has its final name.
    let creation = Occasion {
        is_passing: true,
        ..by(Action::Creation)
    };
    let rename = Occasion {
        original: Some(&from),
        ..by(Action::Rename)
    };
    for occasion in [creation, rename] {
        let found = tell(&mut keys, &list, occasion);
        assert_eq!(added(&found), ["bob"]);
        assert!(!found.others_wrote);
    }
}

/// A key that is no list is as easily another's.
#[test]
fn what_another_has_written_to_a_key_is_not_the_first_ones_without_a_word() {
    let dir = tempdir().unwrap();
    let key = dir.path().join("id_ed25519.pub");
    fs::write(&key, ANN).unwrap();
    let mut keys = Keys::start(&[]).unwrap();
    let own = left(&key);
    let others = Left {
        content: Content::Others,
        ..left(&key)
    };
    let goes_on = Left {
        goes_on: true,
        ..left(&key)
    };
    let mut shared = |left: &Left| {
        let occasion = Occasion {
            left: Some(left),
            ..by(Action::Creation)
        };
        tell(&mut keys, &key, occasion).others_wrote
    };
    assert!(!shared(&own));
    assert!(shared(&others) && shared(&goes_on));
    fs::write(&key, BOB).unwrap();
    assert!(shared(&own));
}

#[test]
fn who_opens_a_list_adds_nothing_and_takes_nothing_from_who_does() {
    let (_dir, list, mut keys) = known();
    append(&list, BOB);
    let found = report(&mut keys, &list, Action::Open);
    assert_eq!(found.change, None);
    let found = report(&mut keys, &list, Action::Modification);
    assert_eq!(added(&found), ["bob"]);
}

#[test]
fn what_was_written_after_an_event_is_left_to_the_next_one() {
    let (_dir, list, mut keys) = known();
    let first = left(&list);
    append(&list, BOB);
    // Another one has written before the first event is decided.
    let occasion = Occasion {
        left: Some(&first),
        ..by(Action::Modification)
    };
    let found = tell(&mut keys, &list, occasion);
    assert_eq!((added(&found), found.others_wrote), (vec!["bob"], true));
    let found = report(&mut keys, &list, Action::Modification);
    assert_eq!((added(&found), found.others_wrote), (vec!["bob"], true));

    // Or is about to.
    let onward = Left {
        goes_on: true,
        ..left(&list)
    };
    let occasion = Occasion {
        left: Some(&onward),
        ..by(Action::Modification)
    };
    append(&list, "# nothing\n");
    let found = tell(&mut keys, &list, occasion);
    assert_eq!(found.change, None, "that nothing was added is not known");
    let found = report(&mut keys, &list, Action::Modification);
    assert!(found.others_wrote);
}

#[test]
fn who_made_a_list_empty_added_nothing_to_it() {
    let dir = tempdir().unwrap();
    let list = dir.path().join("authorized_keys");
    fs::write(&list, BOB).unwrap();
    let mut keys = Keys::start(&[]).unwrap();
    let made = Left {
        content: Content::Others,
        ..left(&list)
    };
    let occasion = Occasion {
        left: Some(&made),
        ..by(Action::Creation)
    };
    let found = tell(&mut keys, &list, occasion);
    assert_eq!((added(&found).len(), found.others_wrote), (0, false));
    let shared = Left {
        content: Content::Shared,
        ..left(&list)
    };
    for (left, others_wrote) in [(left(&list), false), (shared, true)] {
        let occasion = Occasion {
            left: Some(&left),
            ..by(Action::Modification)
        };
        let (found, _) = read(&mut keys, &list, occasion);
        assert_eq!(
            (added(&found), found.others_wrote),
            (vec!["bob"], others_wrote)
        );
    }
}

#[test]
fn an_event_that_another_one_was_told_of_with_does_not_say_that_it_added_nothing() {
    let (_dir, list, mut keys) = known();
    let before = by(Action::Modification);
    append(&list, BOB);
    assert_eq!(
        added(&report(&mut keys, &list, Action::Modification)),
        ["bob"]
    );
    // Its record was read before the list was, or the file is still what it was.
    let late = by(Action::Modification);
    for occasion in [before, late] {
        let found = tell(&mut keys, &list, occasion);
        assert_eq!((found.change, found.others_wrote), (None, true));
    }
}

#[test]
fn that_nothing_was_added_is_only_said_where_all_was_read() {
    let (_dir, list, mut keys) = known();
    let mut change = |text: &str| {
        fs::write(&list, text).unwrap();
        report(&mut keys, &list, Action::Modification).change
    };
    let nothing = Some(Change::default());
    // A line that sshd may read and we do not.
    assert_eq!(change(&format!("{ANN}ssh-new AAAA\n")), None);
    assert_eq!(change(&format!("{ANN}ssh-new AAAA\n# c\n")), nothing);
    assert_eq!(change(&format!("{ANN}ssh-new BBBB\n")), None);
    assert_eq!(change(ANN), nothing, "it is gone");
    // More than is read, and a key in place of another in its middle.
    let comment = format!("#{}\n", "x".repeat(1_200_000));
    let large = format!("{ANN}{comment}{ANN}{comment}");
    change(&large);
    let evil = format!("{ANN}{comment}{BOB}{comment}");
    assert_eq!(evil.len(), large.len());
    assert_eq!(change(&evil), None);
}

#[test]
fn new_permissions_are_nobody_elses_writing() {
    let (_dir, list, mut keys) = known();
    append(&list, BOB);
    let written = left(&list);
    fs::set_permissions(&list, fs::Permissions::from_mode(0o600)).unwrap();
    let occasion = Occasion {
        left: Some(&written),
        ..by(Action::Modification)
    };
    let found = tell(&mut keys, &list, occasion);
    assert_eq!((added(&found), found.others_wrote), (vec!["bob"], false));
    assert!(!keys.known.is_noted(&list));
}

#[test]
fn what_was_there_at_the_start_is_not_what_was_added() {
    let dir = tempdir().unwrap();
    let list = dir.path().join("ann/.ssh/authorized_keys");
    fs::create_dir_all(list.parent().unwrap()).unwrap();
    fs::write(&list, ANN).unwrap();
    let pattern = Pattern::parse(&dir.path().join("*")).unwrap().join(".ssh");
    let mut keys = Keys::start(&[pattern]).unwrap();
    keys.await_lists();

    fs::write(&list, format!("{BOB}{ANN}")).unwrap();
    let change = report(&mut keys, &list, Action::Modification)
        .change
        .unwrap();
    assert_eq!(comments(&change.added), ["bob"]);
    assert!(change.removed.is_empty());

    // By an editor: another file is renamed over it.
    fs::write(&list, BOB).unwrap();
    let change = report(&mut keys, &list, Action::Rename).change.unwrap();
    assert_eq!(comments(&change.removed), ["ann"]);

    let public = list.with_file_name("id.pub");
    fs::write(&public, BOB).unwrap();
    let found = report(&mut keys, &public, Action::Creation);
    assert_eq!(found.authorized_in, [list.as_path()]);

    let mut document = Document::new();
    keys.deleted(&list, false, &mut document);
    assert_eq!(document.get("ssh_keywatch.key"), None, "it is still there");
    fs::remove_file(&list).unwrap();
    keys.deleted(&list, false, &mut document);
    assert_eq!(document.number("ssh_keywatch.key.removed_count"), Some(1));
    let found = report(&mut keys, &public, Action::Creation);
    assert!(found.authorized_in.is_empty());
}

#[test]
fn what_is_written_while_the_start_goes_on_is_not_what_was_there_before() {
    let dir = tempdir().unwrap();
    let list = dir.path().join("authorized_keys");
    fs::write(&list, ANN).unwrap();
    let second = Duration::from_secs(1);
    let (before, after) = (SystemTime::now() - second, SystemTime::now() + second);
    assert_eq!(start::logins(&list, before), None);
    assert_eq!(
        comments(&start::logins(&list, after).unwrap().entries),
        ["ann"]
    );
}

#[test]
fn a_new_list_adds_all_and_an_unknown_one_is_not_compared() {
    let dir = tempdir().unwrap();
    let list = dir.path().join("authorized_keys");
    fs::write(&list, ANN).unwrap();
    let mut keys = Keys::start(&[]).unwrap();
    let found = report(&mut keys, &list, Action::Modification);
    assert_eq!(found.change, None);
    let mut rename = |from: &Path, to: &str| {
        let to = from.with_file_name(to);
        fs::rename(from, &to).unwrap();
        let occasion = Occasion {
            original: Some(from),
            ..by(Action::Rename)
        };
        let found = tell(&mut keys, &to, occasion);
        assert!(keys.known.forget(from).is_none(), "it is there no more");
        (to, found.change.unwrap())
    };
    let (moved, change) = rename(&list, "authorized_keys2");
    assert_eq!(comments(&change.added), ["ann"]);
    // What sshd does not look at lets nobody in.
    let (backup, change) = rename(&moved, "authorized_keys.bak");
    assert_eq!(comments(&change.removed), ["ann"]);
    assert!(change.added.is_empty());
    let (_, change) = rename(&backup, "authorized_keys");
    assert_eq!(comments(&change.added), ["ann"]);
}

#[test]
fn a_key_that_cannot_be_read_in_time_is_reported_without_facts() {
    let mut keys = Keys::start(&[]).unwrap();
    let mut blockers = Vec::new();
    // The walk that came first may not have left its place yet.
    while blockers.len() < 8 {
        let (release, blocked) = std::sync::mpsc::sync_channel::<()>(0);
        if keys.pool.ask(move || blocked.recv()).is_some() {
            blockers.push(release);
        }
        std::thread::yield_now();
    }
    let dir = tempdir().unwrap();
    let path = dir.path().join("id.pub");
    fs::write(&path, ANN).unwrap();
    let found = report(&mut keys, &path, Action::Creation);
    assert_eq!(found.inspection, Err("busy"));
    drop(blockers);
}
