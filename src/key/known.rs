//! What lists of keys held before, to tell what was added and removed.
//!
//! Owns the memory of lists, bounded for each home and for all: in the home that
//! takes most, the one that was not needed for longest goes first. What has been found in a list and told to nobody yet, or may be
//! another writer's, is remembered apart from what it is compared with. A path is
//! a name for a list here, and nothing is opened.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::list::{Entry, List};

/// The memory for all lists together, in bytes, about.
const TOTAL: usize = 16 << 20;
/// The memory for the lists of one home.
const SHARE: usize = 4 << 20;

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

/// When a list was read, and what it was then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// When it had been read.
    pub time: SystemTime,
    /// Inode, size and time of change, where they are known.
    pub stamp: Option<Stamp>,
}

/// Inode, size in bytes, and `st_ctim` of a file: no write leaves it the same but for
/// those within one tick of the kernel's clock.
pub type Stamp = (u64, u64, (i64, u32));

struct Remembered {
    /// What it is compared with.
    entries: Vec<Entry>,
    /// Of that, the lines that were no entries ([`List::rest`]).
    rest: [u8; 16],
    /// What it held when it was last read, if that is still to be compared.
    since: Option<Vec<Entry>>,
    look: Option<Look>,
    home: Arc<Path>,
    weight: usize,
    used: u64,
}

impl Remembered {
    fn present(&self) -> &[Entry] {
        self.since.as_deref().unwrap_or(&self.entries)
    }
}

/// What lists held when they were last seen.
pub struct Known {
    lists: HashMap<PathBuf, Remembered>,
    /// How much the lists of each home weigh.
    shares: HashMap<Arc<Path>, usize>,
    home_of: fn(&Path) -> Arc<Path>,
    weight: usize,
    clock: u64,
}

impl Known {
    /// Nothing. `home_of` says whose share a list takes.
    #[must_use]
    pub fn new(home_of: fn(&Path) -> Arc<Path>) -> Self {
        Self {
            lists: HashMap::new(),
            shares: HashMap::new(),
            home_of,
            weight: 0,
            clock: 0,
        }
    }

    /// What changed in `path`, if it is known what it held; remembers nothing.
    #[must_use]
    pub fn compare(&self, path: &Path, list: &List) -> Option<Change> {
        let old = self.lists.get(path)?;
        Some(Change::between(&old.entries, &list.entries))
    }

    /// Whether there are lines in `path` that may be entries for all we know, and are
    /// not the ones that were there.
    #[must_use]
    pub fn has_other_rest(&self, path: &Path, list: &List) -> bool {
        let old = self.lists.get(path).map(|old| old.rest);
        list.unreadable > 0 && old != Some(list.rest)
    }

    /// Remembers that `path` holds `list`, for the next time.
    pub fn learn(&mut self, path: &Path, list: &List, look: Option<Look>) {
        self.take(path);
        self.keep(
            path,
            Remembered {
                entries: list.entries.clone(),
                rest: list.rest,
                since: None,
                look,
                home: (self.home_of)(path),
                weight: 0,
                used: 0,
            },
        );
    }

    /// Remembers that `path` was found to hold `list`, which is still to be compared
    /// with what it held before; where that is not known, nothing is.
    pub fn note(&mut self, path: &Path, list: &List, look: Option<Look>) {
        if let Some(old) = self.take(path) {
            let since = Some(list.entries.clone());
            self.keep(path, Remembered { since, look, ..old });
        }
    }

    /// Whether `path` was found changed since it was last learned.
    #[must_use]
    pub fn is_noted(&self, path: &Path) -> bool {
        self.lists
            .get(path)
            .is_some_and(|list| list.since.is_some())
    }

    /// When `path` was last read.
    #[must_use]
    pub fn looked(&self, path: &Path) -> Option<Look> {
        self.lists.get(path)?.look
    }

    /// What `path` held; it is remembered no longer.
    pub fn forget(&mut self, path: &Path) -> Option<Vec<Entry>> {
        let old = self.take(path)?;
        Some(old.since.unwrap_or(old.entries))
    }

    fn keep(&mut self, path: &Path, mut list: Remembered) {
        let all = list.entries.iter().chain(list.since.iter().flatten());
        let texts: usize = all.map(weight).sum();
        list.weight = texts + size_of::<Remembered>() + path.as_os_str().len();
        if list.weight > SHARE || !self.make_room(&list.home, list.weight) {
            return;
        }
        self.clock += 1;
        self.weight += list.weight;
        *self.shares.entry(Arc::clone(&list.home)).or_default() += list.weight;
        list.used = self.clock;
        self.lists.insert(path.to_owned(), list);
    }

    fn take(&mut self, path: &Path) -> Option<Remembered> {
        let old = self.lists.remove(path)?;
        self.weight -= old.weight;
        if let Some(share) = self.shares.get_mut(&old.home) {
            *share -= old.weight;
            if *share == 0 {
                self.shares.remove(&old.home);
            }
        }
        Some(old)
    }

    /// Makes room for so much more of `home`: what it would have beyond its share, or
    /// beyond what any other home has, it gives itself. `false` if that is not enough.
    fn make_room(&mut self, home: &Arc<Path>, weight: usize) -> bool {
        loop {
            let wanted = self.shares.get(home).copied().unwrap_or_default() + weight;
            let from = if wanted > SHARE {
                Arc::clone(home)
            } else if self.weight + weight > TOTAL {
                let heaviest = self.shares.iter().max_by_key(|(_, share)| **share);
                match heaviest {
                    Some((heaviest, share)) if *share >= wanted => Arc::clone(heaviest),
                    _ => Arc::clone(home),
                }
            } else {
                return true;
            };
            if !self.forget_oldest(&from) {
                return false;
            }
        }
    }

    /// In which lists the key with this fingerprint stands, in order.
    #[must_use]
    pub fn holders(&self, fingerprint: &str) -> Vec<&Path> {
        let holds = |entry: &Entry| entry.identity.fingerprint.as_deref() == Some(fingerprint);
        let mut paths: Vec<&Path> = self
            .lists
            .iter()
            .filter(|(_, list)| list.present().iter().any(holds))
            .map(|(path, _)| path.as_path())
            .collect();
        paths.sort_unstable();
        paths
    }

    fn forget_oldest(&mut self, home: &Arc<Path>) -> bool {
        let of_home = self.lists.iter().filter(|(_, list)| list.home == *home);
        let oldest = of_home.min_by_key(|(_, list)| list.used);
        let oldest = oldest.map(|(path, _)| path.clone());
        oldest.is_some_and(|path| self.take(&path).is_some())
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
    let public = entry.identity.public.bytes().map_or(0, <[u8]>::len);
    size_of::<Entry>() + texts + options + certificate + public
}
