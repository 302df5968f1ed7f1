//! Marks on what is no longer at a watched place.
//!
//! A directory or a file that was moved out keeps its marks, and its inode stays in memory
//! for them: whoever moves one after the other out would have as many as they like. Owns
//! what is still to be reached, by its handle, to take them off. A directory is reached at
//! once, for holds in it must end; of what is in it [`AT_ONCE`] directories are, and all else
//! waits until there is time, or it is too much. What is known at another place by then
//! keeps its marks.

use std::collections::{HashSet, VecDeque};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Instant;

use super::{NodeId, Tree};
use crate::sys::ObjectId;
use crate::sys::handle::readable;
use crate::watch::Evidence;

/// So many directories of one that leaves are let go with it.
pub(super) const AT_ONCE: usize = 64;
/// With so many that wait, as many are worked off before more is read.
const MOST: usize = 2048;
/// So many are reached before it is looked which of them are known elsewhere.
const PORTION: usize = 128;

/// What left, and which marks it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    /// A file that had settled.
    File,
    /// One that was followed.
    Followed,
}

/// What is still to be reached.
#[derive(Default)]
pub(super) struct Leaving(VecDeque<(ObjectId, Kind)>);

impl Leaving {
    /// Whether there is nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Tree {
    /// An object is no longer where it was.
    pub(super) fn leaves(&mut self, object: &ObjectId, kind: Kind) {
        // inotify has no marks on files, and those on directories by their paths.
        if self.marker.evidence() == Evidence::Fanotify {
            self.leaving.0.push_back((object.clone(), kind));
        }
    }

    /// What was the last to leave came to another watched place.
    pub(super) fn stays(&mut self, object: &ObjectId) {
        if self
            .leaving
            .0
            .back()
            .is_some_and(|(last, _)| last == object)
        {
            self.leaving.0.pop_back();
        }
    }

    /// Takes marks off if too many are to be.
    pub(super) fn let_most_leave(&mut self) {
        if self.leaving.0.len() >= MOST {
            self.let_leave(MOST, None);
        }
    }

    /// Takes the marks off of so many that have left, as far as it goes until then.
    pub(super) fn let_leave(&mut self, most: usize, until: Option<Instant>) {
        let mut left = most;
        let mut ground: Option<([u8; 8], Option<OwnedFd>)> = None;
        while left > 0
            && until.is_none_or(|until| Instant::now() < until)
            && !self.leaving.is_empty()
        {
            let number = PORTION.min(left).min(self.leaving.0.len());
            left -= number;
            let mut reached = Vec::new();
            for (object, kind) in self.leaving.0.drain(..number).collect::<Vec<_>>() {
                self.beat.tick();
                let fsid = object.file_system();
                if ground.as_ref().is_none_or(|(known, _)| *known != fsid) {
                    let dir = self.on_file_system(fsid, None);
                    ground = Some((fsid, dir.and_then(|dir| readable(dir.as_fd()).ok())));
                }
                // ESTALE: it is gone, and its marks with it.
                if let Some((_, Some(dir))) = &ground
                    && let Ok(place) = object.open_from(dir.as_fd())
                {
                    reached.push((object, kind, place));
                }
            }
            self.take_off(&reached);
        }
    }

    fn take_off(&mut self, reached: &[(ObjectId, Kind, OwnedFd)]) {
        let files = reached.iter().filter(|it| it.1 != Kind::Directory);
        let files: HashSet<&ObjectId> = files.map(|(object, _, _)| object).collect();
        let mut elsewhere = HashSet::new();
        if !files.is_empty() {
            let nodes = self.nodes.values().filter(|node| node.entries.len() > 0);
            let known = nodes.flat_map(|node| node.entries.iter());
            let objects = known.filter_map(|(_, known)| known.object.as_ref());
            elsewhere.extend(objects.filter(|object| files.contains(object)).cloned());
        }
        for (object, kind, place) in reached {
            let place = place.as_fd();
            match kind {
                Kind::Directory if self.by_object(object).is_none() => {
                    self.marker.unmark(Some(place), "".as_ref());
                }
                Kind::Directory => {}
                Kind::File | Kind::Followed => {
                    if !elsewhere.contains(object) {
                        self.marker.unsettle(place);
                    }
                    if *kind == Kind::Followed && !self.followed.contains_key(object) {
                        self.marker.unfollow(place);
                    }
                }
            }
        }
    }

    /// A directory of the file system with this id: one above `near` if there is one.
    fn on_file_system(&mut self, fsid: [u8; 8], near: Option<NodeId>) -> Option<OwnedFd> {
        let mut above = near;
        while let Some(node) = above
            && let Some(entry) = self.nodes.get(&node)
        {
            above = entry.parent;
            if entry.fsid() == fsid
                && let Some(dir) = self.open(node)
            {
                return Some(dir);
            }
        }
        let nodes = self.nodes.iter().filter(|(_, node)| node.fsid() == fsid);
        let first = nodes.min_by_key(|(_, node)| node.path.as_os_str().len());
        let node = *first?.0;
        self.open(node)
    }

    /// Opens a directory that is not at its path any more.
    pub(super) fn reach(&mut self, node: NodeId) -> Option<OwnedFd> {
        let entry = self.nodes.get(&node)?;
        let (id, parent) = (entry.id.clone(), entry.parent);
        // inotify's watches go by paths.
        if self.marker.evidence() != Evidence::Fanotify {
            return None;
        }
        let dir = self.on_file_system(id.file_system(), parent)?;
        id.open(dir.as_fd()).ok()
    }
}
