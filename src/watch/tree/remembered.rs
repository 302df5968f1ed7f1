//! The entries of directories that have been reported.
//!
//! Owns which are remembered, and that no home has more of them than it may; a name that
//! sshd or ssh looks for is remembered in any case. Must not decide what is told.

use std::ffi::OsStr;

use super::{Known, MAX_ENTRIES, NodeId, Tree};
use crate::sys::ObjectId;
use crate::watch::home::{Limit, is_looked_for};
use crate::watch::{Notice, Problem};

impl Tree {
    /// Remembers an entry as reported; says whether it was so before.
    pub(super) fn remember(
        &mut self,
        id: NodeId,
        name: &OsStr,
        object: Option<ObjectId>,
        out: &mut Vec<Notice>,
    ) -> bool {
        let Some(entry) = self.nodes.get_mut(&id) else {
            return false;
        };
        if let Some(known) = entry.entries.get_mut(name) {
            let again = known.reported && known.object == object;
            let other = (known.object != object)
                .then(|| known.object.clone())
                .flatten();
            *known = Known {
                object,
                reported: true,
                owed: false,
            };
            if let Some(other) = other {
                self.left(id, name, &other);
            }
            return again;
        }
        let known = Known {
            object,
            reported: true,
            owed: false,
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

    pub(super) fn forget(
        &mut self,
        id: NodeId,
        name: &OsStr,
        object: Option<&ObjectId>,
    ) -> Option<ObjectId> {
        let node = self.nodes.get_mut(&id)?;
        let known = node.entries.get(name)?;
        // A late record of an object that has been replaced meanwhile.
        if object.is_some() && known.object.is_some() && known.object.as_ref() != object {
            return None;
        }
        self.remembered -= 1;
        if let Some(home) = &node.home {
            self.homes.give(home, 0, 1);
        }
        let object = node.entries.remove(name)?.object?;
        self.left(id, name, &object);
        Some(object)
    }
}
