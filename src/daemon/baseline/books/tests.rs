//! What is stored, and what is told first: the books without their thread.

use std::collections::hash_map::RandomState;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tempfile::{TempDir, tempdir};

use super::*;
use crate::baseline::Content;
use crate::daemon::baseline::ledger::Ledger;
use crate::daemon::baseline::{Parts, Probe, open};
use crate::queue::Receiver;
use crate::watch::pattern::Pattern;
use crate::watch::tree::Listing;

struct Place {
    dir: TempDir,
    books: Books,
    messages: Receiver<Message>,
    is_log_well: Arc<AtomicBool>,
    _ledger: Ledger,
}

impl Place {
    /// Books that know these files.
    fn new(names: &[&str]) -> Self {
        let dir = tempdir().unwrap();
        let (sender, messages) = queue::bounded(100);
        let (ledger, inbox, dropped) = Ledger::new();
        let is_log_well = Arc::<AtomicBool>::default();
        let is_well = Arc::clone(&is_log_well);
        let parts = Parts {
            probe: Probe::none(),
            key: RandomState::new(),
            directory: dir.path().to_owned(),
            log: dir.path().join("log"),
            is_log_well: Box::new(move || is_well.load(Ordering::Relaxed)),
            messages: sender,
            home_events: Arc::new(AtomicU32::new(5000)),
        };
        let lookers = [Looker::start().unwrap(), Looker::start().unwrap()];
        let books = open(parts, lookers, inbox, dropped, &AtomicBool::new(false)).unwrap();
        let mut place = Self {
            dir,
            books,
            messages,
            is_log_well,
            _ledger: ledger,
        };
        for name in names {
            place.write(name, "then");
            place.happened(name, &[]);
        }
        place.books.write();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn seen(&self, name: &str) -> Option<Record> {
        let seen = self.books.looker.read(vec![self.path(name)]).pop();
        seen.map(|(_, seen)| seen.record)
    }

    fn stored(&self, name: &str) -> Option<Record> {
        self.books.store.get(&self.path(name)).unwrap()
    }

    /// The update of an event, with the receipts of its alerts.
    fn happened(&mut self, name: &str, receipts: &[Receipt]) {
        self.renamed(None, name, receipts);
    }

    fn renamed(&mut self, from: Option<&str>, name: &str, receipts: &[Receipt]) {
        let update = Update {
            path: self.path(name),
            from: from.map(|from| self.path(from)),
            record: self.seen(name),
            is_change: false,
            born: None,
            receipts: receipts.to_vec(),
        };
        self.books.update(update);
    }

    /// The same, and the log had no room for its alert.
    fn told_in_vain(&mut self, name: &str) {
        let receipt = Receipt::default();
        drop(receipt.slip());
        self.happened(name, &[receipt]);
        self.books.write();
    }

    /// What is told once the log has room again.
    fn made_up_for(&mut self) -> Vec<(PathBuf, Action)> {
        self.is_log_well.store(true, Ordering::Relaxed);
        self.books.tell_unlogged();
        self.books.second_looks();
        let mut told = Vec::new();
        for message in std::iter::from_fn(|| self.messages.try_recv().ok()) {
            let Message::Missed(missed) = message else {
                panic!("another message");
            };
            assert_eq!(missed.gap.unwrap().unseen, Unseen::Unlogged);
            let event = missed.assembled.event;
            told.push((event.path, event.action));
        }
        told.sort_by(|one, other| one.0.cmp(&other.0));
        told
    }

    /// Compares these with what was known before the start. Gives what is told one by
    /// one, and the number of what is not, with the promise of its line.
    fn compare(&mut self, names: &[&str]) -> (Vec<PathBuf>, Option<(u64, Promise)>) {
        self.compare_for(Cause::Start, names);
        self.told()
    }

    fn compare_for(&mut self, cause: Cause, names: &[&str]) {
        let pattern = Pattern::literal(self.dir.path()).unwrap();
        self.books.meta.watched = Some(vec![pattern.to_string()]);
        let mut files = Listing::default();
        for name in names {
            files.push(self.dir.path(), name.as_ref(), 0);
        }
        self.books.compare(Snapshot {
            places: Vec::new(),
            apart: Vec::new(),
            cause,
            // Long after: no record of them can be on its way.
            until: SystemTime::now() + Duration::from_secs(3600),
            files,
            patterns: vec![pattern],
        });
    }

    /// Compares these, and then what is left of it once more, as if time went by.
    fn compare_twice(&mut self, cause: Cause, names: &[&str]) -> Vec<PathBuf> {
        self.compare_for(cause, names);
        while !self.books.deferred.is_empty() {
            self.look_again();
        }
        self.told().0
    }

    /// Takes the looks that wait, as if time had gone by.
    fn look_again(&mut self) {
        for deferred in &mut self.books.deferred {
            deferred.due = Instant::now();
        }
        self.books.second_looks();
    }

    /// Has another content known of a file than it has, by the same times.
    fn store_through_mapping(&mut self, name: &str) {
        let mut record = self.seen(name).unwrap();
        record.content = Content::Sha256("00".to_owned());
        self.books.note(self.path(name), Some(record));
        self.books.write();
    }

    fn told(&self) -> (Vec<PathBuf>, Option<(u64, Promise)>) {
        let (mut told, mut counted) = (Vec::new(), None);
        for message in std::iter::from_fn(|| self.messages.try_recv().ok()) {
            match message {
                Message::Missed(missed) => told.push(missed.assembled.event.path),
                Message::Lost(lost) => counted = lost.count.zip(lost.promise),
                _ => panic!("another message"),
            }
        }
        (told, counted)
    }
}

#[test]
fn what_was_told_in_vain_is_told_again_though_it_changed_since() {
    let mut place = Place::new(&["list", "other"]);
    let then = place.stored("list").unwrap();
    place.write("list", "a key");
    place.told_in_vain("list");
    // No rule has anything to say of this, or of another file.
    place.write("list", "a key # x");
    place.happened("list", &[]);
    place.write("other", "now");
    place.happened("other", &[]);
    // An alert about something else in it does not make up for the first one.
    place.write("list", "a key # y");
    place.happened("list", &[Receipt::default()]);
    place.books.write();
    assert_eq!(place.stored("list"), Some(then));
    assert_eq!(place.stored("other"), place.seen("other"));
    place.books.tell_unlogged();
    place.books.second_looks();
    assert!(place.messages.try_recv().is_err(), "the log is full");

    let path = place.path("list");
    assert_eq!(place.made_up_for(), [(path, Action::Modification)]);
    place.happened("list", &[Receipt::default()]);
    place.books.write();
    assert_eq!(place.stored("list"), place.seen("list"));
    assert_eq!(place.made_up_for(), [], "once");
}

#[test]
fn what_was_told_in_vain_is_told_under_the_name_that_it_got_since() {
    let mut place = Place::new(&["known"]);
    place.write("new", "a key");
    place.told_in_vain("new");
    fs::rename(place.path("new"), place.path("newer")).unwrap();
    place.renamed(Some("new"), "newer", &[]);
    // And over one that was known.
    place.write("other", "a key");
    place.told_in_vain("other");
    fs::rename(place.path("other"), place.path("known")).unwrap();
    place.renamed(Some("other"), "known", &[]);
    place.books.write();
    let told = [
        (place.path("known"), Action::Modification),
        (place.path("newer"), Action::Creation),
    ];
    assert_eq!(place.made_up_for(), told);
}

#[test]
fn what_was_told_in_vain_and_moved_with_its_directory_is_told_where_it_is() {
    let mut place = Place::new(&["known"]);
    fs::create_dir(place.path("one")).unwrap();
    place.write("one/key", "a key");
    place.told_in_vain("one/key");
    fs::rename(place.path("one"), place.path("two")).unwrap();
    fs::rename(place.path("known"), place.path("two/known")).unwrap();
    place.renamed(Some("known"), "two/known", &[]);
    let mut files = Listing::default();
    for name in ["key", "known"] {
        files.push(&place.path("two"), name.as_ref(), 0);
    }
    place.books.compare(Snapshot {
        places: Vec::new(),
        apart: Vec::new(),
        cause: Cause::Moved,
        until: SystemTime::now(),
        files,
        patterns: Vec::new(),
    });
    place.books.write();
    assert_eq!(place.stored("two/known"), place.seen("two/known"));
    let path = place.path("two/key");
    assert_eq!(place.made_up_for(), [(path, Action::Creation)]);
}

#[test]
fn what_no_longer_differs_is_not_told_and_kept_again() {
    let mut place = Place::new(&[]);
    place.write("brief", "a key");
    place.told_in_vain("brief");
    fs::remove_file(place.path("brief")).unwrap();
    place.happened("brief", &[]);
    assert_eq!(place.made_up_for(), []);
    place.write("brief", "another");
    place.happened("brief", &[]);
    place.books.write();
    assert_eq!(place.stored("brief"), place.seen("brief"));
}

#[test]
fn of_more_than_can_be_owed_nothing_is_stored() {
    let mut place = Place::new(&["list"]);
    let then = place.stored("list");
    for number in 0..=MOST_DEFERRED {
        place.books.owe(format!("/srv/{number}").into());
    }
    assert_eq!(place.books.owed.paths.len(), MOST_DEFERRED);
    place.write("list", "a key");
    place.happened("list", &[]);
    place.books.write();
    assert_eq!(place.stored("list"), then);
    place.books.finish();
    assert_eq!(place.books.unfinished, Unfinished::Cut);
}

#[test]
fn what_is_too_much_for_its_home_is_known_when_its_number_is_told() {
    let mut place = Place::new(&[]);
    place.books.home_events.store(1, Ordering::Relaxed);
    let names = ["one", "two", "three"];
    for name in names {
        place.write(name, "now");
    }
    let (told, counted) = place.compare(&names);
    assert_eq!(told, [place.path("one")]);
    let (count, promise) = counted.unwrap();
    assert_eq!(count, 2);
    place.books.write();
    assert_eq!(place.stored("two"), None, "nobody was told");
    let mut line = None;
    promise.keep(|receipt| line = Some(receipt.slip()));
    place.books.write();
    assert_eq!(place.stored("two"), None, "it is on its way");
    line.unwrap().keep();
    place.books.write();
    for name in ["two", "three"] {
        assert_eq!(place.stored(name), place.seen(name));
    }
}

#[test]
fn what_is_looked_for_and_too_much_for_its_home_is_told_later() {
    const LIST: &str = "authorized_keys";
    let mut place = Place::new(&[]);
    let path = place.path(LIST);
    let home = home::of(&path);
    // However long this takes, nothing comes back meanwhile.
    let later = Instant::now() + Duration::from_secs(3600);
    while place.books.budgets.take(&home, &path, later) {}
    place.write(LIST, "a key");
    let (told, counted) = place.compare(&[LIST]);
    assert!(told.is_empty() && counted.is_none(), "{told:?}");
    // No rule has a word for this.
    place.write(LIST, "a key # x");
    place.happened(LIST, &[]);
    place.books.write();
    assert_eq!(place.stored(LIST), None);
    let again = |place: &mut Place| {
        place.look_again();
        place.told().0
    };
    assert!(again(&mut place).is_empty(), "nothing is left for it yet");
    place.books.budgets = Budgets::new(1);
    place.books.home_events.store(1, Ordering::Relaxed);
    assert_eq!(again(&mut place), [path]);
}

#[test]
fn no_time_of_birth_is_too_much() {
    let since = SystemTime::now();
    let far = SystemTime::UNIX_EPOCH + Duration::from_secs(i64::MAX.unsigned_abs());
    assert!(!is_before(far, since) && !is_before(since, since));
    assert!(is_before(SystemTime::UNIX_EPOCH, since));
}

#[test]
fn what_no_time_tells_of_is_read_where_it_may_be() {
    const LIST: &str = "authorized_keys";
    let lost = |unseen| Cause::Lost(unseen, SystemTime::now());
    for (cause, is_found) in [
        (Cause::Closed, [true, true]),
        (lost(Unseen::Flood), [true, false]),
        (lost(Unseen::Lost), [true, false]),
        (Cause::Start, [true, false]),
        (Cause::Remounted, [false, false]),
    ] {
        let names = [LIST, "file"];
        let mut place = Place::new(&names);
        for name in names {
            place.store_through_mapping(name);
        }
        let wanted = names
            .into_iter()
            .zip(is_found)
            .filter(|(_, is_found)| *is_found);
        let wanted: Vec<PathBuf> = wanted.map(|(name, _)| place.path(name)).collect();
        assert_eq!(place.compare_twice(cause, &names), wanted, "{cause:?}");
    }
    // What is the same costs the store nothing.
    let mut place = Place::new(&[LIST]);
    assert!(place.compare_twice(Cause::Closed, &[LIST]).is_empty());
    assert!(place.books.pending.get(&place.path(LIST)).is_none());
}

/// Whoever renames a directory, or has the configuration read again, makes nothing known.
#[test]
fn what_events_do_not_tell_of_is_told_when_something_moved() {
    let mut place = Place::new(&["changed", "gone", "same", "seen"]);
    for name in ["changed", "new", "seen"] {
        place.write(name, "now");
    }
    fs::remove_file(place.path("gone")).unwrap();
    place.compare_for(Cause::Moved, &["changed", "new", "same", "seen"]);
    assert!(place.told().0.is_empty(), "records may be on the way");
    place.books.write();
    assert_eq!(place.stored("new"), None, "nobody was told");
    place.happened("seen", &[]);
    let mut told = BTreeSet::new();
    while !place.books.deferred.is_empty() {
        place.look_again();
        told.extend(place.told().0);
    }
    let wanted = ["changed", "new", "gone"].map(|name| place.path(name));
    assert_eq!(told, BTreeSet::from(wanted));
}

#[test]
fn what_is_being_written_is_waited_for_but_not_for_ever() {
    let mut place = Place::new(&["file"]);
    place.write("file", "now");
    place.compare_for(Cause::Closed, &["file"]);
    for look in 0..=5 {
        assert!(place.told().0.is_empty(), "{look}");
        place.write("file", &look.to_string());
        place.look_again();
    }
    assert_eq!(place.told().0, [place.path("file")]);
}
