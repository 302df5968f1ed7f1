//! Files that can be written through a name nobody watches.
//!
//! A directory's mark tells what is done to a file by its name there. What is done
//! through a hard link elsewhere only a mark on the file itself tells. Owns which
//! files have one: the lists of logins, for a link to one can be made at any time
//! without a record of it, and every file that has several names when it settles.
//! What comes through another name is told by the watched one.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};

use super::entries::Name;
use super::leaving::Kind;
use super::{NodeId, Tree};
use crate::sys::ObjectId;
use crate::sys::stat::Glance;
use crate::watch::{Notice, Problem};

/// How many files with several names are followed, in all and of one directory.
const MAX_LINKED: usize = 16 * 1024;
const MAX_LINKED_HERE: usize = 256;
/// What lets somebody in (`AuthorizedKeysFile` in `sshd_config(5)`).
const LISTS: [&str; 2] = ["authorized_keys", "authorized_keys2"];

/// A file with a mark of its own.
#[derive(Debug)]
pub(super) struct Followed {
    node: NodeId,
    name: Name,
    /// It counts towards [`MAX_LINKED`].
    counted: bool,
}

impl Tree {
    /// Whether somebody can be let in by this file.
    fn is_list(&self, node: NodeId, name: &OsStr) -> bool {
        let is_root = self.nodes.get(&node).is_some_and(|node| node.depth == 0);
        is_root && LISTS.iter().any(|list| name == *list)
    }

    /// Whether the file `name` can be written through another name.
    pub(super) fn is_to_follow(&self, node: NodeId, name: &OsStr, glance: Glance) -> bool {
        self.is_watched(node)
            && glance.kind == libc::S_IFREG
            && (glance.links > 1 || self.is_list(node, name))
    }

    /// Follows the file `name` if it can be written through another name.
    pub(super) fn follow_file(
        &mut self,
        dir: BorrowedFd<'_>,
        node: NodeId,
        name: &OsStr,
        glance: Glance,
        object: Option<ObjectId>,
        out: &mut Vec<Notice>,
    ) {
        if !self.is_to_follow(node, name, glance) {
            return;
        }
        let is_list = self.is_list(node, name);
        let (Some(object), Some(entry)) = (object, self.nodes.get(&node)) else {
            return;
        };
        if self.followed.contains_key(&object) {
            return;
        }
        let counted = !is_list;
        if counted && (self.linked >= MAX_LINKED || entry.followed.len() >= MAX_LINKED_HERE) {
            if !std::mem::replace(&mut self.links_said, true) {
                out.push(Notice::Problem(Problem::TooManyLinks {
                    path: entry.path.join(name),
                }));
            }
            return;
        }
        // Where it cannot be marked, its directory's mark is what there is.
        if self.marker.follow(dir, name).is_err() {
            return;
        }
        self.linked += usize::from(counted);
        if let Some(entry) = self.nodes.get_mut(&node) {
            entry.followed.reserve_exact(1);
            entry.followed.push(object.clone());
        }
        let followed = Followed {
            node,
            name: name.into(),
            counted,
        };
        self.followed.insert(object, followed);
    }

    /// The file is no longer at this place.
    pub(super) fn unfollow(&mut self, dir: Option<BorrowedFd<'_>>, object: &ObjectId) {
        let Some(followed) = self.followed.remove(object) else {
            return;
        };
        self.linked -= usize::from(followed.counted);
        if let Some(node) = self.nodes.get_mut(&followed.node) {
            node.followed.retain(|other| other != object);
        }
        // ESTALE: the last of its names is gone, and the mark with it.
        if let Some(file) = dir.and_then(|dir| object.open(dir).ok()) {
            self.marker.unfollow(file.as_fd());
        }
    }

    /// A file is no longer called so.
    pub(super) fn left(&mut self, node: NodeId, name: &OsStr, object: &ObjectId) {
        self.leaves(object, Kind::File);
        let followed = self.followed.get(object);
        if followed.is_some_and(|followed| followed.node == node && *followed.name == *name) {
            let dir = self.open(node);
            self.unfollow(dir.as_ref().map(AsFd::as_fd), object);
        }
    }

    /// Where the file with this identity is watched.
    #[must_use]
    pub fn watched_name(&self, object: &ObjectId) -> Option<(NodeId, &OsStr)> {
        let followed = self.followed.get(object)?;
        let known = self
            .nodes
            .get(&followed.node)?
            .entries
            .get(&followed.name)?;
        (known.object.as_ref() == Some(object)).then_some((followed.node, &followed.name))
    }

    /// Whether what happens to the files in a directory is told.
    #[must_use]
    pub fn is_watched(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|node| node.role.watched)
    }
}
