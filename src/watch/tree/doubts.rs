//! Names of which the records do not say whether they are there.
//!
//! The kernel merges what one process does to one name and object into one record, at
//! the place of the first that nobody has read: what others did in between comes after
//! it. So what came and went in one reading of the queue may be there, and what was
//! replaced may be there again. Owns the names to which that has happened, those of
//! directories and of links to them as well; they are looked at when the queue has been read
//! to its end, and what is there is told then. Must not look while what a record that is
//! still to come would tell can wait.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Instant;

use super::visit::Spot;
use super::{Finder, Finds, NodeId, Tree};
use crate::sys::ObjectId;
use crate::sys::stat::glance;
use crate::watch::{Evidence, Notice};

/// So many names are kept; with more all of a directory is looked into.
const MOST: usize = 16 * 1024;

/// The names.
pub(super) struct Doubts {
    names: BTreeSet<(NodeId, OsString)>,
    /// Goes on whenever the queue has been read to its end; never 0.
    reading: u32,
}

impl Default for Doubts {
    fn default() -> Self {
        Self {
            names: BTreeSet::new(),
            reading: 1,
        }
    }
}

impl Doubts {
    /// The queue has been read to its end: nothing is merged into what was read.
    pub(super) fn emptied(&mut self) {
        self.reading = self.reading.wrapping_add(1).max(1);
    }

    /// In which reading of the queue this is.
    pub(super) fn reading(&self) -> u32 {
        self.reading
    }

    /// Whether there are any.
    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

impl Tree {
    /// Whether what was taken away from `name` by the very record that made it is there:
    /// then it was made last. Of what is not looked at now there is a doubt.
    pub fn is_back(
        &mut self,
        node: NodeId,
        name: &OsStr,
        object: Option<&ObjectId>,
        directory: bool,
    ) -> bool {
        let Some(entry) = self.nodes.get(&node).filter(|node| node.role.watched) else {
            return false;
        };
        // No directory is made twice.
        if directory && object.is_some() {
            return false;
        }
        let fsid = entry.fsid();
        if let Some(home) = entry.home.clone() {
            if self.must_wait(&home) {
                return false;
            }
            self.soon.looked(&home, 1);
        }
        let Some(dir) = self.open(node) else {
            return false;
        };
        let Ok(Some(sight)) = self.mounts.sight(dir.as_fd(), None, name, fsid) else {
            return false;
        };
        let is_directory = sight.glance.kind == libc::S_IFDIR;
        is_directory == directory && (object.is_none() || sight.object.as_ref() == object)
    }

    /// Nobody knows what is at this name now.
    pub(super) fn doubt(&mut self, node: NodeId, name: &OsStr) {
        // inotify tells everything in its order.
        if self.marker.evidence() != Evidence::Fanotify {
            return;
        }
        if self.doubts.names.len() >= MOST {
            self.put_off(node, &Finder::nobody());
        } else {
            self.doubts.names.insert((node, name.to_owned()));
        }
    }

    /// The same, if a directory is wanted at this name: what is no directory matters only
    /// where it can be a link to one.
    pub(super) fn doubt_directory(&mut self, node: NodeId, name: &OsStr, directory: bool) {
        if self.is_named(node, name) || (directory && self.is_watched(node)) {
            self.doubt(node, name);
        }
    }

    /// Whether a name has come in this reading of the queue.
    pub(super) fn is_young(&self, node: NodeId, name: &OsStr) -> bool {
        let known = self.nodes.get(&node).and_then(|it| it.entries.get(name));
        known.is_some_and(|known| known.reading == self.doubts.reading())
    }

    /// Looks at the names of which there is a doubt, as far as it goes until then.
    pub(super) fn make_sure(&mut self, until: Instant, out: &mut Vec<Notice>) {
        let mut here = None;
        while Instant::now() < until
            && self.soon.has_room()
            && let Some((node, name)) = self.doubts.names.pop_first()
        {
            self.beat.tick();
            let entry = self.nodes.get(&node);
            // A muted home is looked into when it is heard again.
            let Some(entry) = entry.filter(|entry| !entry.muted) else {
                continue;
            };
            let (fsid, watched) = (entry.fsid(), entry.role.watched);
            if here.as_ref().is_none_or(|(known, _)| *known != node) {
                here = self.open(node).map(|dir| (node, dir));
            }
            let Some((_, dir)) = &here else {
                // Where it is now a record will tell.
                self.unscanned.insert(node);
                continue;
            };
            self.make_sure_of_directory(dir, node, &name, out);
            if !watched {
                continue;
            }
            match ObjectId::at(dir.as_fd(), &name, fsid) {
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                    self.erase(node, &name);
                }
                _ => {
                    let mount = glance(dir.as_fd(), c"").ok().and_then(|seen| seen.mount);
                    let is_plain = false;
                    let place = Spot { mount, is_plain };
                    let finds = Finds::News(Finder::nobody());
                    self.find(dir.as_fd(), place, node, &name, &finds, out);
                }
            }
        }
    }

    /// Comes to the directory that is at this name, and lets go of one that is not.
    fn make_sure_of_directory(
        &mut self,
        dir: &OwnedFd,
        node: NodeId,
        name: &OsStr,
        out: &mut Vec<Notice>,
    ) {
        let role = self.child_role(node, name);
        if role.is_none() {
            return;
        }
        if let Some(child) = self.child(node, name, None) {
            if self.open(child).is_some() {
                return;
            }
            self.detach(child);
        }
        let finds = Finds::News(Finder::nobody());
        self.enter_from(dir, None, node, name, role, &finds, out);
    }
}
