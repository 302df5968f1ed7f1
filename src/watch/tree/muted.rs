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

impl Tree {
    /// A record of this directory has come; the home that it lies in, and whether that
    /// is muted.
    pub fn heard(&mut self, node: NodeId) -> Option<(&Home, bool)> {
        let node = self.nodes.get_mut(&node)?;
        node.heard = node.heard.saturating_add(1);
        Some((node.home.as_ref()?, node.muted))
    }

    /// The home that most records were of since this was last asked, if they were more
    /// than half of all: its share, and how many there were.
    pub fn loudest(&mut self) -> Option<(Home, u64)> {
        let (mut homes, mut all) = (HashMap::<Home, u64>::new(), 0);
        for node in self.nodes.values_mut() {
            let heard = u64::from(std::mem::take(&mut node.heard));
            all += heard;
            if let Some(home) = node.home.as_ref().filter(|_| heard > 0 && !node.muted) {
                *homes.entry(Arc::clone(home)).or_default() += heard;
            }
        }
        let loudest = homes.into_iter().max_by_key(|(_, heard)| *heard);
        loudest.filter(|(_, heard)| heard * 2 > all)
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
            self.marker.unmark(dir.as_ref().map(AsFd::as_fd), &path);
            if let Some(node) = self.nodes.get_mut(&id) {
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
