//! Homes that are so loud that they have no marks for a while.
//!
//! Owns how loud each home is, and what taking its marks off and setting them again
//! means for the tree. Must not decide when: that is the watching thread's.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;

use super::{NodeId, Tree};
use crate::watch::home::Home;

/// So many names take as long as one record.
const AS_ONE: usize = 64;

/// Records since there has been something in the queue, or since it was last asked whose
/// most of them are.
#[derive(Debug, Default)]
pub(super) struct Heard {
    homes: HashMap<Home, u64>,
    /// Those of muted homes, and of no home, too.
    all: u64,
}

impl Heard {
    /// Nothing has come while what was in the queue was worked off.
    pub(super) fn forget(&mut self) {
        self.homes.clear();
        self.all = 0;
    }
}

impl Tree {
    /// A record of this directory has come; the home that it lies in, and whether that
    /// is muted.
    pub fn heard(&mut self, node: NodeId) -> Option<(&Home, bool)> {
        let node = self.nodes.get(&node)?;
        self.heard.all += 1;
        let home = node.home.as_ref()?;
        if !node.muted {
            match self.heard.homes.get_mut(home) {
                Some(heard) => *heard += 1,
                None => drop(self.heard.homes.insert(Arc::clone(home), 1)),
            }
        }
        Some((home, node.muted))
    }

    /// The home that a directory lies in.
    #[must_use]
    pub fn lies_in(&self, node: NodeId) -> Option<&Home> {
        self.nodes.get(&node)?.home.as_ref()
    }

    /// Whether a directory lies in a home that is muted.
    #[must_use]
    pub fn is_muted(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|node| node.muted)
    }

    /// The home that most records were of since there has been something in the queue, or
    /// this was last asked, if they were more than half of all; and how many there were.
    pub fn loudest(&mut self) -> Option<(Home, u64)> {
        let heard = std::mem::take(&mut self.heard);
        let loudest = heard.homes.into_iter().max_by_key(|(_, heard)| *heard);
        loudest.filter(|(_, of_home)| of_home * 2 > heard.all)
    }

    /// A record of this directory was about so many names that it is as much to do as many.
    pub(super) fn heard_much(&mut self, node: NodeId, names: usize) {
        let node = self.nodes.get(&node).filter(|node| !node.muted);
        if let Some(home) = node.and_then(|node| node.home.as_ref()) {
            let records = u64::try_from(names / AS_ONE).unwrap_or(u64::MAX);
            *self.heard.homes.entry(Arc::clone(home)).or_default() += records;
            self.heard.all += records;
        }
    }

    fn nodes_of(&self, home: &Home) -> Vec<(PathBuf, NodeId)> {
        let nodes = self.nodes.iter();
        let nodes = nodes.filter(|(_, node)| node.home.as_ref() == Some(home));
        let mut nodes: Vec<(PathBuf, NodeId)> = nodes
            .map(|(id, node)| (node.path.to_path_buf(), *id))
            .collect();
        nodes.sort();
        nodes
    }

    /// Takes the marks of a home off. What is known of it stays known.
    pub fn mute(&mut self, home: &Home) {
        for (path, id) in self.nodes_of(home) {
            let dir = self.open(id);
            if let Some(node) = self.nodes.get_mut(&id) {
                let dir = dir.as_ref().map(AsFd::as_fd);
                self.marker.mute(dir, &path, node.interest);
                node.muted = true;
            }
            self.soon.remove(id);
        }
    }

    /// Has the marks of a home set again, and looked at what has changed, when there
    /// is time for it ([`Tree::look_on`]).
    pub fn unmute(&mut self, home: &Home) {
        self.briefs.distrust();
        for (_, id) in self.nodes_of(home) {
            if self.nodes.get(&id).is_some_and(|node| node.muted) {
                self.put_off_marks(id);
            }
        }
    }
}
