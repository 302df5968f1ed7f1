//! What lists of keys held before, to tell what was added and removed.
//!
//! Owns the memory of lists, bounded: the one that was not needed for longest
//! goes first. A path is a name for a list here, and nothing is opened.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::list::Entry;

/// The memory for all lists together, in bytes, about.
const TOTAL: usize = 16 << 20;
/// The memory for one list.
const SINGLE: usize = 4 << 20;

/// What changed in a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Entries that were not there before.
    pub added: Vec<Entry>,
    /// Entries that are there no longer.
    pub removed: Vec<Entry>,
}

impl Change {
    /// From `old` to `new`. An entry is another one if its key, its options or
    /// its hosts are; a new comment or a new place among the lines is no change.
    #[must_use]
    pub fn between(old: &[Entry], new: &[Entry]) -> Self {
        Self {
            added: missing(new, old),
            removed: missing(old, new),
        }
    }

    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }
}

/// What of `from` is not in `other`, as often as it is not.
fn missing(from: &[Entry], other: &[Entry]) -> Vec<Entry> {
    let mut counts = HashMap::new();
    for entry in other {
        *counts.entry(identity(entry)).or_insert(0_usize) += 1;
    }
    from.iter()
        .filter(|entry| match counts.get_mut(&identity(entry)) {
            Some(count) if *count > 0 => {
                *count -= 1;
                false
            }
            _ => true,
        })
        .cloned()
        .collect()
}

/// What makes an entry the same.
fn identity(entry: &Entry) -> impl Eq + std::hash::Hash + '_ {
    (&entry.identity, &entry.prefix, &entry.options, &entry.hosts)
}

struct Remembered {
    entries: Vec<Entry>,
    weight: usize,
    used: u64,
}

/// What lists held when they were last seen.
#[derive(Default)]
pub struct Known {
    lists: HashMap<PathBuf, Remembered>,
    weight: usize,
    clock: u64,
}

impl Known {
    /// What changed in `path` since it was last seen, if it has been, and
    /// remembers `entries` for the next time.
    pub fn learn(&mut self, path: &Path, entries: &[Entry]) -> Option<Change> {
        let old = self.forget(path);
        let weight = entries.iter().map(weight).sum::<usize>() + path.as_os_str().len();
        if weight <= SINGLE {
            while self.weight + weight > TOTAL && self.forget_oldest() {}
            self.clock += 1;
            self.weight += weight;
            let remembered = Remembered {
                entries: entries.to_vec(),
                weight,
                used: self.clock,
            };
            self.lists.insert(path.to_owned(), remembered);
        }
        Some(Change::between(&old?, entries))
    }

    /// What `path` held; it is remembered no longer.
    pub fn forget(&mut self, path: &Path) -> Option<Vec<Entry>> {
        let old = self.lists.remove(path)?;
        self.weight -= old.weight;
        Some(old.entries)
    }

    /// In which lists the key with this fingerprint stands, in order.
    #[must_use]
    pub fn holders(&self, fingerprint: &str) -> Vec<&Path> {
        let holds = |entry: &Entry| entry.identity.fingerprint.as_deref() == Some(fingerprint);
        let mut paths: Vec<&Path> = self
            .lists
            .iter()
            .filter(|(_, list)| list.entries.iter().any(holds))
            .map(|(path, _)| path.as_path())
            .collect();
        paths.sort_unstable();
        paths
    }

    fn forget_oldest(&mut self) -> bool {
        let oldest = self
            .lists
            .iter()
            .min_by_key(|(_, list)| list.used)
            .map(|(path, _)| path.clone());
        oldest.is_some_and(|path| self.forget(&path).is_some())
    }
}

/// About how many bytes an entry takes.
fn weight(entry: &Entry) -> usize {
    let texts = [
        &entry.identity.algorithm,
        &entry.identity.fingerprint,
        &entry.hosts,
        &entry.comment,
    ];
    let texts: usize = texts.into_iter().flatten().map(String::len).sum();
    let options: usize = entry.options.iter().map(|option| option.len() + 24).sum();
    let certificate = entry.certificate.as_ref().map_or(0, |certificate| {
        let lists = [
            &certificate.principals,
            &certificate.options,
            &certificate.extensions,
        ];
        let names = lists.into_iter().flatten();
        256 + names.map(|name| name.len() + 24).sum::<usize>()
    });
    size_of::<Entry>() + texts + options + certificate
}
