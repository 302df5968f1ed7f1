//! A directory that keeps its role gets another path, and with it all below.
//!
//! Owns what becomes of paths, homes, depths and marks then. Must not look at files, nor
//! come to a directory (`visit`).

use std::ffi::OsStr;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use super::{Finder, MAX_DEPTH, NodeId, Tree};
use crate::watch::{Evidence, Notice, Problem};

impl Tree {
    /// A directory kept its role and got another path, and with it all below. It costs
    /// nobody but its home: there may be thousands, and nothing of them is looked at.
    pub(super) fn relabel(
        &mut self,
        node: NodeId,
        parent: NodeId,
        name: &OsStr,
        out: &mut Vec<Notice>,
    ) {
        let Some(new_parent) = self.nodes.get(&parent) else {
            return;
        };
        let new_path = new_parent.path.join(name);
        let old = &self.nodes[&node];
        // inotify has lost the watch of what was elsewhere in between.
        if *old.path == *new_path && self.marker.evidence() == Evidence::Fanotify {
            return;
        }
        self.moves += 1;
        self.briefs.remove_below(&old.path);
        let (old_parent, old_name) = (old.parent, old.path.file_name().map(OsStr::to_owned));
        if let (Some(old_parent), Some(old_name)) = (old_parent, old_name)
            && let Some(old_parent) = self.nodes.get_mut(&old_parent)
        {
            old_parent.children.remove(&old_name);
        }
        if let Some(stale) = self.by_path(&new_path)
            && stale != node
        {
            self.detach(stale);
        }
        if let Some(new_parent) = self.nodes.get_mut(&parent) {
            new_parent.children.insert(name, node);
        }
        if let Some(entry) = self.nodes.get_mut(&node) {
            entry.parent = Some(parent);
        }
        let mut left = vec![(node, new_path)];
        let (mut number, mut deep) = (0, Vec::new());
        while let Some((node, path)) = left.pop() {
            self.beat.tick();
            number += self.relabel_one(node, &path, &mut left, out);
            if let Some(entry) = self.nodes.get(&node)
                && usize::from(entry.depth) > MAX_DEPTH
            {
                deep.push(node);
            }
        }
        self.leave_too_deep(deep, out);
        if number > 1
            && let Some(home) = self.nodes.get(&node).and_then(|node| node.home.clone())
        {
            let cost = self.homes.looked(&home, number);
            self.soon.looked(&home, cost);
            self.heard_much(node, number);
        }
    }

    /// Lets go of directories that came to lie too deep.
    fn leave_too_deep(&mut self, deep: Vec<NodeId>, out: &mut Vec<Notice>) {
        for node in deep {
            if let Some(entry) = self.nodes.get(&node) {
                out.push(Notice::Problem(Problem::TooDeep {
                    path: entry.path.to_path_buf(),
                    limit: MAX_DEPTH,
                }));
                self.detach(node);
            }
        }
    }

    /// Gives one directory its new path, and has those in it `left`; says how many names
    /// that was.
    fn relabel_one(
        &mut self,
        node: NodeId,
        path: &Path,
        left: &mut Vec<(NodeId, PathBuf)>,
        out: &mut Vec<Notice>,
    ) -> usize {
        let Some(entry) = self.nodes.get_mut(&node) else {
            return 0;
        };
        let old = std::mem::replace(&mut entry.path, path.into());
        let watched = entry.role.watched;
        let former = entry.home.take();
        let (above, role, files) = (entry.parent, entry.role.clone(), entry.entries.len());
        let home = self.home_of(above, &role, path);
        let parent = above.and_then(|above| self.nodes.get(&above));
        let depth = parent.map_or(0, |parent| parent.depth_below());
        if former != home {
            if let Some(former) = &former {
                self.homes.give(former, 1, files);
            }
            if let Some(home) = &home {
                self.homes.take(home, 1, files);
            }
        }
        let interest = self.interest(path, watched);
        let Some(entry) = self.nodes.get_mut(&node) else {
            return 0;
        };
        let is_lost = entry.muted && former != home;
        entry.home = home;
        let was_deepest = usize::from(entry.depth) == MAX_DEPTH && !entry.muted;
        entry.depth = u8::try_from(depth).unwrap_or(u8::MAX);
        let children = entry.children.iter();
        let children = children.map(|(name, child)| (*child, path.join(name)));
        // What is below one that is too deep goes with it.
        left.extend(children.filter(|_| depth <= MAX_DEPTH));
        let is_other = entry.interest != interest;
        if is_lost {
            // When its time is over, it would be looked for under the former home.
            self.put_off_marks(node);
        }
        if was_deepest && depth < MAX_DEPTH {
            // What is below it was too deep until now.
            self.put_off(node, &Finder::nobody());
        }
        self.marker.moved(&old, path, watched);
        if is_other && let Some(dir) = self.open(node) {
            self.follow_interest(node, dir.as_fd(), out);
        }
        1 + files
    }
}
