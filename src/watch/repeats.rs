//! Which records tell of one act alone.
//!
//! What a process does again while its record waits in the queue becomes part of that
//! record: nobody is waked by it, and its moment is not known. The process may run
//! another program by then. Something that is done to a name can be done again only
//! when somebody has undone it, which is a record, too, of the same directory. So it
//! was done once where the record tells of nothing else, and where between two
//! moments at which the queue was empty there is no other record of that directory's
//! names. The directory must have had its mark all the while.
//!
//! Owns what has been heard since the queue was empty. Must not know who acts.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::sys::ObjectId;
use crate::sys::fanotify::{Record, mask};

/// What becomes of names.
const NAMES: u64 = mask::CREATE | mask::DELETE | mask::RENAME | mask::MOVED_FROM | mask::MOVED_TO;
/// What cannot be done twice in a row. A name can be moved in over another, and before
/// Linux 5.17 nothing tells the two apart.
const ONCE: [u64; 3] = [mask::CREATE, mask::DELETE, mask::RENAME];
/// Of more records than that, none is taken to tell of one act alone.
const MAX_RECORDS: usize = 1024;

/// What has been heard since the queue was empty.
#[derive(Debug, Default)]
pub struct Repeats {
    names: HashMap<ObjectId, usize>,
    single: Vec<(Arc<AtomicBool>, Vec<ObjectId>)>,
    records: usize,
    unsure: Arc<AtomicBool>,
}

impl Repeats {
    /// Set when a directory gets a mark, or records are lost: what was undone before may
    /// not be told.
    #[must_use]
    pub fn unsure(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.unsure)
    }

    /// A record has been read. What is given back is true once it is known to tell of
    /// one act alone, for directories that are `known` to have a mark.
    pub fn heard(&mut self, record: &Record, known: bool) -> Arc<AtomicBool> {
        let once = Arc::<AtomicBool>::default();
        if record.is(mask::OVERFLOW) {
            self.unsure.store(true, Ordering::Relaxed);
        }
        self.records += 1;
        if !record.is(NAMES) || self.records > MAX_RECORDS {
            return once;
        }
        let entries = [&record.entry, &record.from, &record.to];
        let entries = entries.into_iter().flatten();
        let mut directories: Vec<ObjectId> = entries.map(|entry| entry.directory.clone()).collect();
        directories.dedup();
        for directory in &directories {
            *self.names.entry(directory.clone()).or_default() += 1;
        }
        if known && ONCE.contains(&(record.mask & !mask::ONDIR)) {
            self.single.push((Arc::clone(&once), directories));
        }
        once
    }

    /// The queue is empty.
    pub fn emptied(&mut self) {
        let unsure = self.unsure.swap(false, Ordering::Relaxed);
        if !unsure && self.records <= MAX_RECORDS {
            for (once, directories) in &self.single {
                let is_alone = directories.iter().all(|it| self.names.get(it) == Some(&1));
                once.store(is_alone && !directories.is_empty(), Ordering::Relaxed);
            }
        }
        self.records = 0;
        self.names.clear();
        self.single.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::sys::fanotify::Entry;

    fn directory(path: &str) -> ObjectId {
        ObjectId::of(std::fs::File::open(path).unwrap().as_fd()).unwrap()
    }

    fn record(mask: u64, path: &str) -> Record {
        let entry = Some(Entry {
            directory: directory(path),
            name: "key".into(),
        });
        let is_rename = mask & mask::RENAME != 0;
        Record {
            mask,
            pid: 1,
            fd: None,
            pidfd: None,
            entry: entry.clone().filter(|_| !is_rename),
            target: None,
            from: None,
            to: entry.filter(|_| is_rename),
        }
    }

    /// Of which of these records it is known that they tell of one act alone.
    fn once(repeats: &mut Repeats, records: &[Record]) -> Vec<bool> {
        let heard: Vec<_> = records
            .iter()
            .map(|record| repeats.heard(record, true))
            .collect();
        assert!(heard.iter().all(|once| !once.load(Ordering::Relaxed)));
        repeats.emptied();
        heard.iter().map(|it| it.load(Ordering::Relaxed)).collect()
    }

    #[test]
    fn what_cannot_have_been_undone_was_done_once() {
        let mut repeats = Repeats::default();
        for bit in ONCE {
            let records = [record(bit, "/"), record(bit, "/usr")];
            assert_eq!(once(&mut repeats, &records), [true, true]);
        }
        let made = || record(mask::CREATE, "/");
        let written = mask::MODIFY | mask::CLOSE_WRITE;
        assert_eq!(
            once(&mut repeats, &[made(), record(written, "/")]),
            [true, false]
        );
        // Undone by itself, or by somebody else; or put in its place.
        let itself = record(mask::CREATE | mask::DELETE, "/");
        assert_eq!(once(&mut repeats, &[itself]), [false]);
        for undone in [mask::DELETE, mask::RENAME, mask::MOVED_TO] {
            let records = [record(undone, "/"), made()];
            assert_eq!(once(&mut repeats, &records), [false, false]);
        }
        for bit in [mask::MODIFY, mask::CLOSE_WRITE, mask::MOVED_TO] {
            assert_eq!(once(&mut repeats, &[record(bit, "/")]), [false]);
        }
    }

    #[test]
    fn where_something_may_not_have_been_told_nothing_is_taken_to_be_done_once() {
        let mut repeats = Repeats::default();
        let made = || record(mask::CREATE, "/");
        // Without a mark.
        let elsewhere = repeats.heard(&made(), false);
        repeats.emptied();
        assert!(!elsewhere.load(Ordering::Relaxed));
        // Marked just now.
        repeats.unsure().store(true, Ordering::Relaxed);
        assert_eq!(once(&mut repeats, &[made()]), [false]);
        assert_eq!(once(&mut repeats, &[made()]), [true]);
        let lost = record(mask::OVERFLOW, "/");
        assert_eq!(once(&mut repeats, &[made(), lost]), [false, false]);
        // Of what is bounded.
        let mut many = vec![made()];
        many.extend((0..MAX_RECORDS).map(|_| record(mask::MODIFY, "/")));
        assert!(!once(&mut repeats, &many).contains(&true));
        assert_eq!(once(&mut repeats, &[made()]), [true]);
    }
}
