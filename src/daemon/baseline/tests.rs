//! Comparisons by the thread, with files and a log of their own.

use std::fs;

use tempfile::{TempDir, tempdir};

use std::time::{Duration, SystemTime};

use super::alerted::Alerted;
use super::ledger::Update;
use super::*;
use crate::alert::Unseen;
use crate::baseline::Health;
use crate::event::{Action, Evidence};
use crate::queue::{self, Receiver};
use crate::resolve::Attribution;
use crate::watch::pattern::Pattern;
use crate::watch::tree::Listing;

const SOON: Duration = Duration::from_secs(60);

struct Place {
    dir: TempDir,
    keeper: Keeper,
    messages: Receiver<Message>,
}

impl Place {
    /// A baseline of a directory with these files.
    fn new(names: &[&str]) -> Self {
        let dir = tempdir().unwrap();
        fs::create_dir(dir.path().join("watched")).unwrap();
        fs::create_dir(dir.path().join("state")).unwrap();
        for name in names {
            fs::write(dir.path().join("watched").join(name), "then").unwrap();
        }
        let (sender, messages) = queue::bounded(100);
        let (state, log) = (dir.path().join("state"), dir.path().join("log"));
        let start = || {
            let parts = Parts {
                probe: Probe::none(),
                key: RandomState::new(),
                directory: state.clone(),
                log: log.clone(),
                is_log_well: Box::new(|| true),
                messages: sender.clone(),
                home_events: Arc::new(AtomicU32::new(5000)),
            };
            Keeper::start(parts).unwrap()
        };
        let stock = start();
        compare(dir.path(), &stock, Cause::Moved);
        // The end waits until that is done.
        stock.end();
        let keeper = start();
        Self {
            dir,
            keeper,
            messages,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("watched").join(name)
    }

    fn compare(&self, cause: Cause) {
        compare(self.dir.path(), &self.keeper, cause);
    }

    /// Paths and actions that are told, until the thread has ended.
    fn end(self) -> Vec<(PathBuf, Action)> {
        self.keeper.end();
        std::iter::from_fn(|| self.messages.recv().ok())
            .map(|message| told(&message))
            .collect()
    }
}

fn compare(dir: &Path, keeper: &Keeper, cause: Cause) {
    let watched = dir.join("watched");
    let mut files = Listing::default();
    for entry in watched.read_dir().unwrap() {
        files.push(&watched, &entry.unwrap().file_name(), 0);
    }
    keeper.ledger().compare(Snapshot {
        places: Vec::new(),
        apart: Vec::new(),
        cause,
        until: SystemTime::now(),
        files,
        patterns: vec![Pattern::literal(&watched).unwrap()],
    });
}

fn told(message: &Message) -> (PathBuf, Action) {
    match message {
        Message::Missed(missed) => {
            let event = &missed.assembled.event;
            assert_eq!(event.evidence, Evidence::Baseline);
            assert_eq!(event.writer, Attribution::none());
            (event.path.clone(), event.action)
        }
        Message::Fault(code, reason) => panic!("{code}: {reason}"),
        _ => panic!("another message"),
    }
}

#[test]
fn after_a_loss_what_has_no_record_is_told_and_what_has_one_is_not() {
    let place = Place::new(&["changed", "gone", "same", "seen"]);
    fs::write(place.path("changed"), "now").unwrap();
    fs::write(place.path("seen"), "now").unwrap();
    fs::write(place.path("new"), "now").unwrap();
    fs::remove_file(place.path("gone")).unwrap();
    let seen = Looker::start().unwrap().read(vec![place.path("seen")]);
    let (path, seen) = seen.into_iter().next().unwrap();
    place.compare(Cause::Lost(Unseen::Lost, SystemTime::now()));
    // Its record was on the way.
    place.keeper.ledger().update(Update {
        path,
        from: None,
        record: Some(seen.record),
        is_change: true,
        born: None,
        receipts: Vec::new(),
    });
    let mut found = Vec::new();
    for _ in 0..3 {
        let message = place.messages.recv_timeout(SOON).unwrap();
        if let Message::Missed(missed) = &message {
            let gap = missed.gap.unwrap();
            assert_eq!(gap.unseen, Unseen::Lost);
            assert!(gap.since.unwrap() <= gap.until);
        }
        found.push(told(&message));
    }
    found.sort_by(|one, other| one.0.cmp(&other.0));
    let expected = [
        ("changed", Action::Modification),
        ("gone", Action::Deletion),
        ("new", Action::Creation),
    ];
    let expected = expected.map(|(name, action)| (place.path(name), action));
    assert_eq!(found, expected);
    assert_eq!(place.end(), [], "and no more");
}

#[test]
fn what_moved_with_its_directory_is_followed_without_a_word() {
    let place = Place::new(&["one"]);
    fs::rename(place.path("one"), place.path("two")).unwrap();
    place.compare(Cause::Moved);
    // Its event comes later than the comparison.
    let seen = Looker::start().unwrap().read(vec![place.path("two")]).pop();
    let (path, seen) = seen.unwrap();
    place.keeper.ledger().update(Update {
        path,
        from: Some(place.path("one")),
        record: Some(seen.record),
        is_change: false,
        born: None,
        receipts: Vec::new(),
    });
    let (dir, state) = (place.path(""), place.dir.path().join("state"));
    let Place {
        dir: kept,
        keeper,
        messages,
    } = place;
    keeper.end();
    assert!(messages.try_recv().is_err());
    let (store, opened) = Store::open(&state.join(FILE), Health::Sound).unwrap();
    assert!(matches!(opened, Opened::Known(_)));
    assert_eq!(store.paths(|_| true).unwrap(), [dir.join("two")]);
    assert_eq!(store.meta().unwrap().since, None);
    drop(kept);
}

#[test]
fn the_log_is_read_over_numbers_that_a_rotation_left_free() {
    let dir = tempdir().unwrap();
    let log = dir.path().join("log");
    let alert = |path: &str| {
        let alert = serde_json::json!({
            "@timestamp": "2026-11-24T12:00:00.000000000Z",
            "event": {"kind": "alert", "action": "deletion", "id": path},
            "file": {"path": path},
        });
        format!("{alert}\n")
    };
    // No log and no `.1`: the daemon was killed while it rotated.
    fs::write(dir.path().join("log.2"), alert("/a")).unwrap();
    let mut packed = flate2::write::GzEncoder::new(
        fs::File::create(dir.path().join("log.30.gz")).unwrap(),
        flate2::Compression::fast(),
    );
    std::io::Write::write_all(&mut packed, alert("/b").as_bytes()).unwrap();
    packed.finish().unwrap();
    let alerted = Alerted::read(&log, SystemTime::UNIX_EPOCH);
    for path in ["/a", "/b"] {
        let told = alerted.find(Path::new(path), None).unwrap();
        assert_eq!(told.made.alert.as_deref(), Some(path));
        assert_eq!(told.ids, [path]);
    }
    assert!(alerted.find(Path::new("/c"), None).is_none());
}
