//! Under which name an entry is known, where a directory takes one name for another
//! ([`crate::watch::folded`]): the one that sshd or ssh looks for, or a pattern names.
//!
//! Asks the file system about names that may be such a one, and no other.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd as _;

use super::{Node, NodeId, Tree};
use crate::sys::ObjectId;
use crate::watch::folded::{folds, is_one, may_be};
use crate::watch::home::{LOOKED_FOR, is_looked_for};

impl Tree {
    /// The name by which the entry `name` of `node` is known; `object` is what is or was
    /// there, if that is known.
    pub(super) fn proper<'a>(
        &mut self,
        node: NodeId,
        name: &'a OsStr,
        object: Option<&ObjectId>,
    ) -> Cow<'a, OsStr> {
        let alike = self.alike(node, name);
        if alike.is_empty() {
            return name.into();
        }
        let dir = self.open(node);
        if dir.as_ref().is_some_and(|dir| !folds(dir.as_fd())) {
            return name.into();
        }
        let mut alike = alike.into_iter();
        let found = alike.find(|wanted| {
            let dir = dir.as_ref();
            let is_one = dir.and_then(|dir| is_one(dir.as_fd(), name, wanted));
            // Of what is gone it is remembered.
            is_one.unwrap_or_else(|| self.was(node, name, wanted, object))
        });
        found.map_or(name.into(), Cow::Owned)
    }

    /// The names that matter in `node` for which `name` may stand: most often none.
    fn alike(&self, node: NodeId, name: &OsStr) -> Vec<OsString> {
        let Some(entry) = self.nodes.get(&node) else {
            return Vec::new();
        };
        let ways = entry.role.waypoints.iter();
        let ways = ways.filter_map(|(index, done)| self.patterns[*index].name(*done));
        let inside = LOOKED_FOR.iter().chain(&[".ssh"]).map(OsStr::new);
        let inside = inside.filter(|_| entry.role.watched);
        let alike = ways
            .filter(|wanted| may_be(name, wanted))
            .chain(inside.filter(|wanted| may_be(name, wanted) && entry.is_looked_for_as(wanted)));
        alike.map(OsStr::to_owned).collect()
    }

    /// Whether `object` was known as `wanted`, and nothing as `name`.
    fn was(&self, node: NodeId, name: &OsStr, wanted: &OsStr, object: Option<&ObjectId>) -> bool {
        let (Some(entry), Some(object)) = (self.nodes.get(&node), object) else {
            return false;
        };
        let file = entry.entries.get(wanted);
        let file = file.is_some_and(|known| known.object.as_ref() == Some(object));
        let directory = self.child(node, wanted, Some(object)).is_some();
        (file || directory) && entry.entries.get(name).is_none()
    }
}

impl Node {
    fn is_looked_for_as(&self, name: &OsStr) -> bool {
        let home = self.home.as_deref();
        home.is_some_and(|home| {
            is_looked_for(home, &self.path.join(name)) || (name == ".ssh" && *home == *self.path)
        })
    }
}
