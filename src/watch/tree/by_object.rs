//! Which directory of the tree an object is.
//!
//! Owns the table, which has a directory's number alone for each: its identity stands in
//! the directory, and there are tens of thousands.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;

use hashbrown::HashTable;

use super::{NodeId, Nodes};
use crate::sys::ObjectId;

/// The table.
#[derive(Default)]
pub(super) struct ByObject {
    key: RandomState,
    nodes: HashTable<NodeId>,
}

impl ByObject {
    /// The directory of `nodes` that is this object.
    pub(super) fn find(&self, nodes: &Nodes, object: &ObjectId) -> Option<NodeId> {
        let is_it = |node: &NodeId| nodes.get(node).is_some_and(|node| node.id == *object);
        self.nodes.find(self.key.hash_one(object), is_it).copied()
    }

    /// Adds a directory that is not found, and is not among `nodes` yet.
    pub(super) fn insert(&mut self, nodes: &Nodes, object: &ObjectId, node: NodeId) {
        let key = &self.key;
        // All others are there: each goes from here with its directory.
        let hash = |node: &NodeId| nodes.get(node).map_or(0, |node| key.hash_one(&node.id));
        self.nodes.insert_unique(key.hash_one(object), node, hash);
    }

    /// Takes out a directory that was this object.
    pub(super) fn remove(&mut self, object: &ObjectId, node: NodeId) {
        let found = self
            .nodes
            .find_entry(self.key.hash_one(object), |other| *other == node);
        if let Ok(found) = found {
            found.remove();
        }
    }
}
