//! What the patterns make of a directory: watched, on the way, or neither.
//!
//! Owns the roles, and their change with the configuration. Must not own marks.

use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::sync::Arc;

use super::leaving::Kind;
use super::{Finds, NodeId, Scope, Tree};
use crate::watch::Notice;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Role {
    /// Patterns that lead through here, and how many of their components are done.
    /// Of all homes the same, which have them together ([`Tree::shared`]).
    pub(super) waypoints: Arc<[(usize, usize)]>,
    /// Files in it are reported.
    pub(super) watched: bool,
}

impl Role {
    pub(super) fn is_none(&self) -> bool {
        self.waypoints.is_empty() && !self.watched
    }
}

impl Tree {
    pub(super) fn root_role(&self) -> Role {
        Role {
            waypoints: (0..self.patterns.len())
                .filter(|index| self.patterns[*index].depth() > 0)
                .map(|index| (index, 0))
                .collect(),
            watched: false,
        }
    }

    /// Replaces what is watched; what is not wanted any more is let go, what is
    /// newly wanted is marked and taken stock of.
    pub fn set_scope(&mut self, scope: Scope, out: &mut Vec<Notice>) {
        self.patterns = scope.patterns;
        self.limit = scope.limit;
        self.homes.set_limits(scope.homes);
        self.opens = scope.opens;
        self.limit_said = false;
        let Some(root) = self.root else {
            return;
        };
        let role = self.root_role();
        self.retarget(root, &role, out);
    }

    /// Gives a node another role and brings its subtree in line.
    fn retarget(&mut self, node: NodeId, role: &Role, out: &mut Vec<Notice>) {
        let Some(entry) = self.nodes.get_mut(&node) else {
            return;
        };
        let no_longer = !role.watched && entry.role.watched;
        // What was made there meanwhile is news once it is heard again.
        let is_muted = entry.muted && role.watched && entry.role.watched;
        entry.role = role.clone();
        let (fsid, was_base) = (entry.fsid(), entry.base);
        let is_base = self.is_base(role);
        self.count_base(fsid, was_base, is_base);
        let Some(entry) = self.nodes.get_mut(&node) else {
            return;
        };
        entry.base = is_base;
        if no_longer {
            self.remembered -= entry.entries.len();
            if let Some(home) = &entry.home {
                self.homes.give(home, 0, entry.entries.len());
            }
            let entries = std::mem::take(&mut entry.entries);
            for object in entries
                .iter()
                .filter_map(|(_, known)| known.object.as_ref())
            {
                self.leaves(object, Kind::File);
            }
        }
        let Some(entry) = self.nodes.get_mut(&node) else {
            return;
        };
        let left = no_longer.then(|| std::mem::take(&mut entry.followed));
        let path = entry.path.to_path_buf();
        let children: Vec<(OsString, NodeId)> = entry
            .children
            .iter()
            .map(|(name, child)| (name.to_owned(), *child))
            .collect();
        let dir = self.open(node);
        if let Some(dir) = &dir {
            if no_longer {
                self.marker.unmark(Some(dir.as_fd()), &path);
            }
            for object in left.iter().flatten() {
                self.unfollow(Some(dir.as_fd()), object);
            }
            self.follow_interest(node, dir.as_fd(), out);
        }
        self.leave_apart(node);
        for (name, child) in children {
            let role = self.child_role(node, &name);
            if role.is_none() {
                self.detach(child);
            } else {
                self.retarget(child, &role, out);
            }
        }
        if let Some(dir) = dir
            && !is_muted
        {
            self.scan(&dir, None, node, &Finds::Stock, out);
        }
    }

    /// Whether a directory with this role is a home, or where homes are made.
    pub(super) fn is_base(&self, role: &Role) -> bool {
        role.waypoints.iter().any(|(pattern, done)| {
            let depth = self.patterns[*pattern].depth();
            *done > 0 && (*done + 1 == depth || *done + 2 == depth)
        })
    }

    pub(super) fn child_role(&self, node: NodeId, name: &OsStr) -> Role {
        let Some(parent) = self.nodes.get(&node) else {
            return Role::default();
        };
        let mut watched = parent.role.watched && !parent.linked;
        let mut waypoints = Vec::new();
        for (index, done) in parent.role.waypoints.iter() {
            let pattern = &self.patterns[*index];
            if pattern.matches(*done, name) {
                if done + 1 == pattern.depth() {
                    watched = true;
                } else {
                    waypoints.push((*index, done + 1));
                }
            }
        }
        Role {
            waypoints: if waypoints.is_empty() {
                Arc::default()
            } else {
                waypoints.into()
            },
            watched,
        }
    }

    /// The same role, with the waypoints of the directory before if they are equal.
    pub(super) fn shared(&mut self, mut role: Role) -> Role {
        if role.waypoints == self.waypoints {
            role.waypoints = Arc::clone(&self.waypoints);
        } else if !role.waypoints.is_empty() {
            self.waypoints = Arc::clone(&role.waypoints);
        }
        role
    }

    /// Whether a pattern names this entry, or leads through it.
    pub(super) fn is_named(&self, node: NodeId, name: &OsStr) -> bool {
        self.nodes.get(&node).is_some_and(|parent| {
            parent
                .role
                .waypoints
                .iter()
                .any(|(index, done)| self.patterns[*index].matches(*done, name))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::pattern::Pattern;
    use crate::watch::tree::settling::tests::{Settled, tree_of};

    #[test]
    fn what_was_made_in_a_muted_home_is_news_though_the_configuration_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        let mut tree = tree_of(&[&real], 10, Settled::default());
        let mut notices = Vec::new();
        tree.start(&mut notices).unwrap();
        let home = real.as_path().into();
        tree.mute(&home);
        std::fs::write(real.join("id_ed25519"), "").unwrap();
        let scope = Scope {
            patterns: vec![Pattern::literal(&real).unwrap()],
            limit: 1000,
            homes: tree.homes.limits(),
            opens: Box::new(|_| false),
            stock: None,
        };
        tree.set_scope(scope, &mut notices);
        assert!(notices.is_empty(), "{notices:?}");
        tree.unmute(&home);
        while tree.has_looks() {
            tree.look_on(&mut notices);
        }
        let [Notice::Change(change)] = notices.as_slice() else {
            panic!("{notices:?}");
        };
        assert_eq!(change.path, real.join("id_ed25519"));
    }
}
