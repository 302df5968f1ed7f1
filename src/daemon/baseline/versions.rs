//! Which version of each file the store knew at the start.
//!
//! Owns them, a few bytes a file, until the first comparison: read while the
//! directories are marked, so that of tens of thousands of files that are as they
//! were none is looked up in the store.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::path::Path;

use crate::baseline::{Stat, Store};
use crate::sys::stat::Version;
use crate::watch::tree::digest;

/// The versions.
pub(super) struct Versions {
    key: RandomState,
    /// Hashes of the path and of the version, in this order.
    files: Vec<(u64, u64)>,
    /// Which of them are there.
    seen: Vec<bool>,
}

impl Versions {
    /// Reads all that is in the store.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(super) fn read(store: &Store, key: RandomState) -> Result<Self, crate::baseline::Error> {
        let mut files = Vec::with_capacity(store.count()?);
        store.stats(|path, stat| {
            files.push((key.hash_one(path), digest(&key, &version(stat))));
        })?;
        files.sort_unstable();
        let seen = vec![false; files.len()];
        Ok(Self { key, files, seen })
    }

    /// Notes that a file is there; whether it is the version that was known.
    pub(super) fn saw(&mut self, path: &Path, digest: u64) -> bool {
        let hash = self.key.hash_one(path);
        let Ok(place) = self.files.binary_search_by_key(&hash, |(path, _)| *path) else {
            return false;
        };
        self.seen[place] = true;
        self.files[place].1 == digest
    }

    /// Whether every file that was known is there.
    pub(super) fn is_complete(&self) -> bool {
        self.seen.iter().all(|seen| *seen)
    }
}

fn version(stat: &Stat) -> Version {
    Version {
        inode: stat.inode,
        kind: stat.kind(),
        size: stat.size,
        modified: (stat.modified.0, stat.modified.1),
        changed: (stat.changed.0, stat.changed.1),
    }
}
