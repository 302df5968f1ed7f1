//! Records that are not in the store yet.
//!
//! Owns the order of things: what was told is stored only when its alerts stand
//! in the log for good. If one of them never will, the record is given up, so
//! that the file is found, and told, once more. Bounded in records and receipts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::baseline::Record;
use crate::sink::{Fate, Receipt};

/// How long an update waits for others to be written with.
const BATCH_TIME: Duration = Duration::from_millis(500);
/// How many make a batch at once: redb's cache has room for what they change.
const BATCH: usize = 512;
/// How many may wait while the store or the log cannot be written.
const MOST: usize = 64 * 1024;

/// What waits for a path.
pub(super) struct Waiting {
    /// `None` takes the file out.
    pub(super) record: Option<Record>,
    /// Of the alerts about this and all that it replaces.
    receipts: Vec<Receipt>,
}

/// The records, by path.
#[derive(Default)]
pub(super) struct Pending {
    waiting: BTreeMap<PathBuf, Waiting>,
    receipts: usize,
    /// When to look at them again.
    due: Option<Instant>,
}

impl Pending {
    /// Takes a record; says whether there was room.
    pub(super) fn put(
        &mut self,
        path: PathBuf,
        record: Option<Record>,
        receipt: Option<Receipt>,
    ) -> bool {
        let is_new = !self.waiting.contains_key(&path);
        if is_new && self.waiting.len() >= MOST {
            return false;
        }
        if receipt.is_some() && self.receipts >= MOST {
            // Not to be stored without it: the file is found again.
            self.give_up(&path);
            return false;
        }
        self.receipts += usize::from(receipt.is_some());
        let receipts = Vec::new();
        let waiting = self.waiting.entry(path);
        let waiting = waiting.or_insert(Waiting {
            record: None,
            receipts,
        });
        waiting.record = record;
        waiting.receipts.extend(receipt);
        self.due.get_or_insert_with(|| Instant::now() + BATCH_TIME);
        true
    }

    fn give_up(&mut self, path: &Path) {
        if let Some(waiting) = self.waiting.remove(path) {
            self.receipts -= waiting.receipts.len();
        }
    }

    /// What waits for a path.
    pub(super) fn get(&self, path: &Path) -> Option<&Waiting> {
        self.waiting.get(path)
    }

    /// The files that are to be in the store.
    pub(super) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let there = self.waiting.iter();
        let there = there.filter(|(_, waiting)| waiting.record.is_some());
        there.map(|(path, _)| path)
    }

    /// When to look at them again.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether there is enough to be written, or time for it.
    pub(super) fn is_due(&self) -> bool {
        self.waiting.len() >= BATCH && self.due.is_some()
            || self.due.is_some_and(|due| due <= Instant::now())
    }

    /// Asks the receipts. Gives the paths of what was told in vain.
    pub(super) fn ask(&mut self) -> Vec<PathBuf> {
        let mut lost = Vec::new();
        for (path, waiting) in &mut self.waiting {
            let before = waiting.receipts.len();
            let is_lost = |receipt: &Receipt| receipt.fate() == Fate::Lost;
            if waiting.receipts.iter().any(is_lost) {
                lost.push(path.clone());
                continue;
            }
            let receipts = &mut waiting.receipts;
            receipts.retain(|receipt| receipt.fate() != Fate::Kept);
            self.receipts -= before - receipts.len();
        }
        for path in &lost {
            self.give_up(path);
        }
        lost
    }

    /// What can be stored, as of the last asking.
    pub(super) fn ripe(&self) -> impl Iterator<Item = (&Path, Option<&Record>)> {
        let ripe = self.waiting.iter();
        let ripe = ripe.filter(|(_, waiting)| waiting.receipts.is_empty());
        ripe.map(|(path, waiting)| (path.as_path(), waiting.record.as_ref()))
    }

    /// What was ripe is stored.
    pub(super) fn stored(&mut self) {
        self.waiting
            .retain(|_, waiting| !waiting.receipts.is_empty());
        self.again();
    }

    /// It is tried again with the next batch.
    pub(super) fn again(&mut self) {
        self.due = (!self.waiting.is_empty()).then(|| Instant::now() + BATCH_TIME);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::Receipt;

    fn ripe(pending: &Pending) -> Vec<&Path> {
        pending.ripe().map(|(path, _)| path).collect()
    }

    #[test]
    fn what_was_told_waits_for_its_alerts_and_is_given_up_with_them() {
        let mut pending = Pending::default();
        let receipt = Receipt::default();
        let (first, second) = (receipt.slip(), receipt.slip());
        pending.put(
            "/told".into(),
            Some(Record::default()),
            Some(receipt.clone()),
        );
        pending.put("/untold".into(), Some(Record::default()), None);
        assert!(pending.ask().is_empty());
        assert_eq!(ripe(&pending), [Path::new("/untold")]);
        pending.stored();
        assert!(pending.get(Path::new("/untold")).is_none());
        first.keep();
        // What comes after it waits as well.
        pending.put("/told".into(), None, None);
        assert!(pending.ask().is_empty());
        assert!(ripe(&pending).is_empty());
        second.keep();
        assert!(pending.ask().is_empty());
        assert_eq!(ripe(&pending), [Path::new("/told")]);
        pending.stored();
        assert_eq!((pending.receipts, pending.due()), (0, None));

        let receipt = Receipt::default();
        let (kept, lost) = (receipt.slip(), receipt.slip());
        pending.put("/told".into(), Some(Record::default()), Some(receipt));
        kept.keep();
        drop(lost);
        assert_eq!(pending.ask(), [Path::new("/told")]);
        assert!(ripe(&pending).is_empty());
        assert_eq!(pending.receipts, 0);
    }

    #[test]
    fn receipts_are_bounded_and_what_is_beyond_is_not_stored() {
        let mut pending = Pending::default();
        let receipt = Receipt::default();
        let _slip = receipt.slip();
        for _ in 0..MOST {
            assert!(pending.put("/a".into(), None, Some(receipt.clone())));
        }
        assert!(!pending.put("/b".into(), None, Some(receipt.clone())));
        assert!(!pending.put("/a".into(), None, Some(receipt)));
        assert_eq!(pending.receipts, 0);
        assert!(pending.get(Path::new("/a")).is_none());
    }
}
