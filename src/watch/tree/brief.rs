//! Directories that were gone before they could be looked at.
//!
//! While a key tool runs, the kernel tells of each name that is made on the file
//! systems of homes ([`crate::watch::hold`]), also in directories that have no
//! mark yet. Where such a directory is removed again at once, the records in the
//! queue still say what was made in it.
//!
//! Owns the paths of these directories, as the records of their making had them,
//! until the queue has been read to its end: of what is gone nothing more comes
//! then. Only where the directory above had its mark before, so that a rename
//! would be told as well, for a path must never be a guess. Bounded, in each home
//! and in all.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{NodeId, Tree};
use crate::sys::ObjectId;
use crate::watch::home::Home;
use crate::watch::{Change, Notice, What, Writer};

/// So many are remembered of one home, and so many in all.
const MOST_OF_HOME: usize = 16;
const MOST: usize = 1024;

/// One of them.
struct Brief {
    path: PathBuf,
    home: Home,
}

/// All of them.
#[derive(Default)]
pub(super) struct Briefs {
    directories: HashMap<ObjectId, Brief>,
    homes: HashMap<Home, usize>,
    /// Directories from this one on may have got their marks after records that
    /// are still in the queue.
    young: u64,
}

impl Briefs {
    fn insert(&mut self, object: ObjectId, path: PathBuf, home: Home) {
        let of_home = self.homes.entry(Arc::clone(&home)).or_default();
        if *of_home >= MOST_OF_HOME || self.directories.len() >= MOST {
            return;
        }
        *of_home += 1;
        self.directories.insert(object, Brief { path, home });
    }

    /// It has another name now, or is told to be gone.
    pub(super) fn remove(&mut self, object: Option<&ObjectId>) {
        if let Some(object) = object {
            self.directories.remove(object);
        }
    }

    /// The paths below `path` are not true any more.
    pub(super) fn remove_below(&mut self, path: &Path) {
        if !self.directories.is_empty() {
            self.directories
                .retain(|_, brief| !brief.path.starts_with(path));
        }
    }

    /// Marks were set anew: of what is in the queue nobody knows whether a rename
    /// is missing.
    pub(super) fn distrust(&mut self) {
        self.clear(0);
    }

    fn clear(&mut self, young: u64) {
        self.young = young;
        self.directories.clear();
        self.homes.clear();
    }
}

impl Tree {
    /// The queue has been read to its end.
    pub fn emptied(&mut self) {
        self.briefs.clear(self.made + 1);
        self.doubts.emptied();
    }

    /// A directory `name` was made in `node`, and is not there.
    pub(super) fn was_brief(&mut self, node: NodeId, name: &OsStr, object: ObjectId) {
        if node.0.get() >= self.briefs.young || !self.child_role(node, name).watched {
            return;
        }
        let Some(parent) = self.nodes.get(&node).filter(|parent| !parent.muted) else {
            return;
        };
        let path = parent.path.join(name);
        let home = parent.home.clone().unwrap_or_else(|| path.as_path().into());
        self.briefs.insert(object, path, home);
    }

    /// A file was made in a directory that is not in the tree.
    pub fn created_elsewhere(
        &self,
        directory: &ObjectId,
        name: &OsStr,
        object: Option<ObjectId>,
        writer: Option<Arc<Writer>>,
        out: &mut Vec<Notice>,
    ) {
        let Some(brief) = self.briefs.directories.get(directory) else {
            return;
        };
        out.push(Notice::Change(Change {
            what: What::Created { again: false },
            path: brief.path.join(name),
            home: Arc::clone(&brief.home),
            object,
            moved: false,
            writer,
            evidence: self.marker.evidence(),
        }));
    }
}
