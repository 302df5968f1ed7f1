//! Records that are not in the store yet.
//!
//! Owns the order of things: what was told is stored only when its alerts, or the
//! word about those that were suppressed, stand in the log for good. If one of them never will, the record is given up, so
//! that the file is found, and told, once more. Bounded in records and receipts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::baseline::Record;
use crate::sink::{Fate, Receipt};

/// How long an update waits for others to be written with.
const BATCH_TIME: Duration = Duration::from_millis(500);
/// What waits longer than that is asked for less and less often, until this doubled
/// time: a rule may say only after hours what it suppressed.
const DOUBLED: u32 = 3;
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
    /// How many came since they were last looked at.
    fresh: usize,
    /// How often they were since one came.
    asked: u32,
}

impl Pending {
    /// Takes a record; says whether there was room.
    pub(super) fn put(
        &mut self,
        path: PathBuf,
        record: Option<Record>,
        receipts: Vec<Receipt>,
    ) -> bool {
        let is_new = !self.waiting.contains_key(&path);
        if is_new && self.waiting.len() >= MOST {
            return false;
        }
        if !receipts.is_empty() && self.receipts >= MOST {
            // Not to be stored without it: the file is found again.
            self.give_up(&path);
            return false;
        }
        let waiting = self.waiting.entry(path);
        let waiting = waiting.or_insert_with(|| Waiting {
            record: None,
            receipts: Vec::new(),
        });
        waiting.record = record;
        for receipt in receipts {
            // One stands for all that a rule suppressed in a while.
            let is_it = |known: &Receipt| known.is(&receipt);
            if !waiting.receipts.iter().any(is_it) {
                waiting.receipts.push(receipt);
                self.receipts += 1;
            }
        }
        let soon = Instant::now() + BATCH_TIME;
        self.due = Some(self.due.map_or(soon, |due| due.min(soon)));
        self.fresh += 1;
        self.asked = 0;
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

    /// Whether what was refused would find room by now.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len().max(self.receipts) <= MOST / 2
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
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.fresh >= BATCH || self.due.is_some_and(|due| due <= now)
    }

    /// Asks the receipts. Gives the paths of what was told in vain.
    pub(super) fn ask(&mut self) -> Vec<PathBuf> {
        let mut lost = Vec::new();
        self.asked = (self.asked + 1).min(DOUBLED + 1);
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
        self.fresh = 0;
        let pause = BATCH_TIME * (1 << self.asked.saturating_sub(1));
        self.due = (!self.waiting.is_empty()).then(|| Instant::now() + pause);
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
            vec![receipt.clone()],
        );
        pending.put("/untold".into(), Some(Record::default()), Vec::new());
        assert!(pending.ask().is_empty());
        assert_eq!(ripe(&pending), [Path::new("/untold")]);
        pending.stored();
        assert!(pending.get(Path::new("/untold")).is_none());
        first.keep();
        // What comes after it waits as well.
        pending.put("/told".into(), None, Vec::new());
        assert!(pending.ask().is_empty());
        assert!(ripe(&pending).is_empty());
        second.keep();
        assert!(pending.ask().is_empty());
        assert_eq!(ripe(&pending), [Path::new("/told")]);
        pending.stored();
        assert_eq!((pending.receipts, pending.due()), (0, None));

        let receipt = Receipt::default();
        let (kept, lost) = (receipt.slip(), receipt.slip());
        pending.put("/told".into(), Some(Record::default()), vec![receipt]);
        kept.keep();
        drop(lost);
        assert_eq!(pending.ask(), [Path::new("/told")]);
        assert!(ripe(&pending).is_empty());
        assert_eq!(pending.receipts, 0);
    }

    #[test]
    fn receipts_are_bounded_and_what_is_beyond_is_not_stored() {
        let mut pending = Pending::default();
        let receipts = Receipt::default;
        for number in 0..MOST {
            let path = format!("/{}", number % 1024).into();
            assert!(pending.put(path, None, vec![receipts()]));
        }
        assert!(!pending.has_room());
        assert!(!pending.put("/b".into(), None, vec![receipts()]));
        assert!(!pending.put("/7".into(), None, vec![receipts()]));
        assert_eq!(pending.receipts, MOST - MOST / 1024);
        assert!(pending.get(Path::new("/7")).is_none());
    }

    #[test]
    fn what_waits_for_long_costs_less_and_less() {
        let mut pending = Pending::default();
        let receipt = Receipt::default();
        let slip = receipt.slip();
        for number in 0..BATCH * 2 {
            let path = PathBuf::from(format!("/{}", number % BATCH));
            pending.put(path, Some(Record::default()), vec![receipt.clone()]);
        }
        assert_eq!(pending.receipts, BATCH, "one stands for all on a path");
        assert!(pending.is_due(Instant::now()), "so many are a batch");
        for doubled in [0, 1, 2, 3, 3] {
            let asked = Instant::now();
            assert!(pending.ask().is_empty());
            pending.again();
            assert!(!pending.is_due(asked));
            let (due, pause) = (pending.due().unwrap(), BATCH_TIME * (1 << doubled));
            assert!(asked + pause <= due && due <= Instant::now() + pause);
        }
        // What comes meanwhile is not kept waiting for that.
        pending.put("/new".into(), None, Vec::new());
        assert!(pending.due().unwrap() <= Instant::now() + BATCH_TIME);
        pending.ask();
        assert_eq!(ripe(&pending), [Path::new("/new")]);
        slip.keep();
        pending.ask();
        assert_eq!(ripe(&pending).len(), BATCH + 1);
    }
}
