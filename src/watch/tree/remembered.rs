//! The entries of directories that have been reported.
//!
//! Owns which are remembered, and that no home has more of them than it may; a name that
//! sshd or ssh looks for is remembered in any case. Must not decide what is told.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use super::{Known, MAX_ENTRIES, NodeId, Tree};
use crate::sys::ObjectId;
use crate::watch::home::{Limit, is_looked_for};
use crate::watch::{Notice, Problem};

/// A file below a directory that is moved.
pub(super) struct Below {
    pub(super) node: NodeId,
    pub(super) name: OsString,
    pub(super) path: PathBuf,
    pub(super) object: Option<ObjectId>,
}

impl Tree {
    /// The files that are known in a watched directory and below it: where each lies, its
    /// name, its path, and its identity.
    pub(super) fn files_below(&self, node: NodeId) -> Vec<Below> {
        let mut files = Vec::new();
        let mut left = vec![node];
        while let Some(id) = left.pop() {
            let Some(node) = self.nodes.get(&id) else {
                continue;
            };
            left.extend(node.children.iter().map(|(_, child)| *child));
            if node.role.watched {
                files.extend(node.entries.iter().map(|(name, known)| Below {
                    node: id,
                    name: name.to_owned(),
                    path: node.path.join(name),
                    object: known.object.clone(),
                }));
            }
        }
        files
    }

    /// Remembers an entry as reported; says whether it was so before.
    pub(super) fn remember(
        &mut self,
        id: NodeId,
        name: &OsStr,
        object: Option<ObjectId>,
        out: &mut Vec<Notice>,
    ) -> bool {
        let reading = self.doubts.reading();
        let Some(entry) = self.nodes.get_mut(&id) else {
            return false;
        };
        if let Some(known) = entry.entries.get_mut(name) {
            let again = known.reported && known.object == object;
            let is_young = known.reading == reading;
            let other = (known.object != object)
                .then(|| known.object.clone())
                .flatten();
            *known = Known {
                object,
                reported: true,
                owed: false,
                reading,
            };
            if let Some(other) = other {
                if is_young {
                    self.doubt(id, name);
                }
                self.left(id, name, &other);
            }
            return again;
        }
        let known = Known {
            object,
            reported: true,
            owed: false,
            reading,
        };
        if !self.keep(id, name, known) {
            self.at_limit(id, Limit::Files, out);
        }
        false
    }

    /// Remembers an entry that is not known yet, if there is room for it; says
    /// whether there was.
    pub(super) fn keep(&mut self, node: NodeId, name: &OsStr, known: Known) -> bool {
        let Some(entry) = self.nodes.get_mut(&node) else {
            return false;
        };
        let home = entry.home.as_ref();
        let mut take = |always| home.is_none_or(|home| self.homes.take_file(home, always));
        let room = self.remembered < MAX_ENTRIES && take(false);
        let is_wanted = |home| is_looked_for(home, &entry.path.join(name));
        if room || (home.is_some_and(|home| is_wanted(home)) && take(true)) {
            self.remembered += 1;
            entry.entries.insert(name, known);
            return true;
        }
        false
    }

    /// Says, once a home, that it has reached a limit.
    pub(super) fn at_limit(&mut self, node: NodeId, limit: Limit, out: &mut Vec<Notice>) {
        let home = self.home(node);
        if !self.homes.is_news(&home, limit) {
            return;
        }
        let limits = self.homes.limits();
        let home = home.to_path_buf();
        out.push(Notice::Problem(match limit {
            Limit::Directories => Problem::HomeDirectories {
                home,
                limit: limits.directories,
            },
            Limit::Files => Problem::HomeFiles {
                home,
                limit: limits.files,
            },
            Limit::Looks => Problem::Unscanned { home },
        }));
    }

    /// Forgets an entry that a record tells to be gone; gives what it was.
    pub(super) fn forget(
        &mut self,
        id: NodeId,
        name: &OsStr,
        object: Option<&ObjectId>,
    ) -> Option<ObjectId> {
        let known = self.nodes.get(&id)?.entries.get(name)?;
        // A late record of an object that has been replaced meanwhile.
        if object.is_some() && known.object.is_some() && known.object.as_ref() != object {
            return None;
        }
        if self.is_young(id, name) {
            self.doubt(id, name);
        }
        self.erase(id, name)
    }

    /// Forgets an entry that is not there.
    pub(super) fn erase(&mut self, id: NodeId, name: &OsStr) -> Option<ObjectId> {
        let node = self.nodes.get_mut(&id)?;
        node.entries.get(name)?;
        self.remembered -= 1;
        if let Some(home) = &node.home {
            self.homes.give(home, 0, 1);
        }
        let object = node.entries.remove(name)?.object?;
        self.left(id, name, &object);
        Some(object)
    }
}
