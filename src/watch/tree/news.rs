//! What the backends tell of directories and files, and what it means for the tree.
//!
//! Owns the calls that a record is translated into. Must not know of records, nor set
//! marks but through what visits and lets go of directories (`visit`).

use std::ffi::OsStr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use super::visit::{Come, Footing, Look};
use super::{Finder, Finds, NodeId, Role, Tree};
use crate::sys::ObjectId;
use crate::watch::home::Limit;
use crate::watch::{Notice, Problem, What, Writer};

impl Tree {
    /// A name was made in `node`.
    pub fn created(
        &mut self,
        node: NodeId,
        name: &OsStr,
        object: Option<ObjectId>,
        directory: bool,
        writer: Option<Arc<Writer>>,
        out: &mut Vec<Notice>,
    ) {
        let name = &*self.proper(node, name, object.as_ref());
        let Some(parent) = self.nodes.get(&node) else {
            return;
        };
        let made = object.clone();
        if parent.role.watched && !directory {
            let path = parent.path.join(name);
            let object = object.or_else(|| self.object_at(node, name));
            let again = self.remember(node, name, object.clone(), out);
            self.report(
                node,
                What::Created { again },
                path,
                object,
                writer.clone(),
                out,
            );
        }
        let moved = false;
        let is_put_off = self.enter(node, name, directory, Finder { writer, moved }, out);
        if directory
            && !is_put_off
            && let Some(made) = made
            && self.by_object(&made).is_none()
        {
            self.was_brief(node, name, made);
        }
    }

    /// Visits the directory `name` of `node` if it is wanted; says whether that is
    /// put off.
    fn enter(
        &mut self,
        node: NodeId,
        name: &OsStr,
        directory: bool,
        finder: Finder,
        out: &mut Vec<Notice>,
    ) -> bool {
        let role = self.child_role(node, name);
        // Of what is no directory only a link at a place that a pattern names matters.
        if role.is_none() || (!directory && !self.is_named(node, name)) {
            return false;
        }
        let home = self.nodes.get(&node).and_then(|node| node.home.as_ref());
        if directory && !finder.moved && home.is_some_and(|home| !self.homes.has_room(home)) {
            // It is not even opened: there may be a great many.
            self.at_limit(node, Limit::Directories, out);
            return false;
        }
        if directory && home.is_some_and(|home| self.must_wait(home)) {
            self.put_off_name(node, name);
            return true;
        }
        if let Some(dir) = self.open(node) {
            self.enter_from(&dir, None, node, name, role, &Finds::News(finder), out);
        }
        false
    }

    #[expect(clippy::too_many_arguments, reason = "what visit needs")]
    pub(super) fn enter_from(
        &mut self,
        dir: &OwnedFd,
        footing: Option<Footing>,
        node: NodeId,
        name: &OsStr,
        role: Role,
        finds: &Finds,
        out: &mut Vec<Notice>,
    ) {
        let path = |tree: &Self| tree.nodes[&node].path.join(name);
        match self.step_down(dir, footing, name) {
            Ok(Some((child, come))) => {
                let at = (Some(node), name);
                return self.visit(&child, Some(come), at, role, false, finds, out);
            }
            Ok(None) => {}
            Err(_) => return,
        }
        match self.look(dir.as_fd(), name) {
            Ok(Look::Directory(child, seen)) => {
                let come = Footing::below(footing, &child, seen).map(Come::to);
                let at = (Some(node), name);
                self.visit(&child, come, at, role, false, finds, out);
            }
            Ok(Look::Stalls(kind, links)) => {
                self.keep_apart(node, name, role, (kind, links), out);
            }
            Ok(Look::Link) if self.is_named(node, name) => {
                match self.follow(dir.as_fd(), name) {
                    Ok(Look::Directory(child, _)) => {
                        let at = (Some(node), name);
                        self.visit(&child, None, at, role, true, finds, out);
                        if self.by_path(&path(self)).is_some() {
                            return;
                        }
                    }
                    Ok(Look::Stalls(kind, links)) => {
                        return self.keep_apart(node, name, role, (kind, links), out);
                    }
                    Ok(Look::Link | Look::Other) | Err(_) => {}
                }
                // What it leads to may come, or be known by another path no more.
                self.astray.entry(node).or_default().insert(name.to_owned());
            }
            Ok(Look::Link | Look::Other) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => out.push(Notice::Problem(Problem::Unwatched {
                path: path(self),
                reason: error.to_string(),
            })),
        }
    }

    /// A name went away from `node`.
    pub fn deleted(
        &mut self,
        node: NodeId,
        name: &OsStr,
        object: Option<ObjectId>,
        directory: bool,
        writer: Option<Arc<Writer>>,
        out: &mut Vec<Notice>,
    ) {
        let name = &*self.proper(node, name, object.as_ref());
        if let Some(child) = self.child(node, name, object.as_ref()) {
            if object.as_ref() == Some(&self.nodes[&child].id) {
                self.gone(child);
            } else {
                self.detach(child);
            }
        }
        self.briefs.remove(object.as_ref());
        self.no_longer_apart(node, name);
        let Some(parent) = self.nodes.get(&node) else {
            return;
        };
        if parent.role.watched && !directory {
            let path = parent.path.join(name);
            let known = self.forget(node, name, object.as_ref());
            let object = object.or(known);
            self.report(node, What::Deleted, path, object, writer, out);
        }
    }

    /// An object moved between directories of which at least one is known.
    pub fn renamed(
        &mut self,
        from: Option<(NodeId, &OsStr)>,
        to: Option<(NodeId, &OsStr)>,
        object: Option<ObjectId>,
        directory: bool,
        writer: Option<Arc<Writer>>,
        out: &mut Vec<Notice>,
    ) {
        let [from, to] = [from, to]
            .map(|end| end.map(|(node, name)| (node, self.proper(node, name, object.as_ref()))));
        let [from, to] = [&from, &to].map(|end| end.as_ref().map(|(node, name)| (*node, &**name)));
        for (node, name) in [from, to].into_iter().flatten() {
            self.no_longer_apart(node, name);
        }
        self.briefs.remove(object.as_ref());
        let child = from
            .and_then(|(node, name)| self.child(node, name, object.as_ref()))
            .or_else(|| object.as_ref().and_then(|object| self.by_object(object)));
        if let Some(child) = child {
            // They are moved with it, of which no record tells.
            let files = self.files_below(child);
            let role = to.map(|(node, name)| self.child_role(node, name));
            match (to, role) {
                (Some((node, name)), Some(role)) if role == self.nodes[&child].role => {
                    self.relabel(child, node, name, out);
                    // Alike renames are merged in the queue and then not in their
                    // order: it may be back where it came from.
                    if let Some((before, old)) = from
                        && self.open(child).is_none()
                    {
                        self.relabel(child, before, old, out);
                        if self.open(child).is_none() {
                            self.relabel(child, node, name, out);
                        }
                    }
                    for file in files {
                        let now = self.nodes.get(&file.node);
                        let Some(now) = now.map(|node| node.path.join(&file.name)) else {
                            continue;
                        };
                        if now != file.path {
                            let from = Some(file.path);
                            let what = What::Renamed { from };
                            self.report(file.node, what, now, file.object, writer.clone(), out);
                        }
                    }
                    return;
                }
                _ => {
                    for file in files {
                        let (what, writer) = (What::Deleted, writer.clone());
                        self.report(file.node, what, file.path, file.object, writer, out);
                    }
                    self.detach_at(child, to);
                }
            }
        }
        // What it took the place of: a link that leads elsewhere, an empty directory.
        if let Some((node, name)) = to
            && let Some(stale) = self.child(node, name, None)
            && self.open(stale).is_none()
        {
            self.detach(stale);
        }
        if directory {
            // Where it came from it may be again, for the same reason.
            for (node, name) in [to, from].into_iter().flatten() {
                let (writer, moved) = (writer.clone(), true);
                self.enter(node, name, true, Finder { writer, moved }, out);
            }
            return;
        }
        let from_watched = self.watched_end(from);
        let to_watched = self.watched_end(to);
        let mut known = None;
        // What came and went at once may be back, and then is not where it went.
        let is_doubtful = from_watched
            .as_ref()
            .is_some_and(|(node, name, _)| self.is_young(*node, name));
        if let Some((node, name, _)) = &from_watched {
            known = self.forget(*node, name, object.as_ref());
        }
        let object = object
            .or(known)
            .or_else(|| to.and_then(|(node, name)| self.object_at(node, name)));
        if let Some((node, name, path)) = to_watched {
            self.remember(node, name, object.clone(), out);
            if is_doubtful {
                self.doubt(node, name);
            }
            let known = self.nodes.get(&node).and_then(|it| it.entries.get(name));
            if let Some(object) = known.and_then(|known| known.object.clone()) {
                self.stays(&object);
            }
            let from = from_watched.map(|(_, _, path)| path);
            let what = What::Renamed { from };
            self.report(node, what, path, object, writer.clone(), out);
        } else if let Some((node, _, path)) = from_watched {
            self.report(node, What::Deleted, path, object, writer.clone(), out);
        }
        if let Some((node, name)) = to {
            let moved = true;
            self.enter(node, name, false, Finder { writer, moved }, out);
        }
    }

    /// One end of a rename and its path, if it lies in a watched directory.
    fn watched_end<'a>(
        &self,
        end: Option<(NodeId, &'a OsStr)>,
    ) -> Option<(NodeId, &'a OsStr, PathBuf)> {
        let (id, name) = end?;
        let node = self.nodes.get(&id).filter(|node| node.role.watched)?;
        Some((id, name, node.path.join(name)))
    }

    /// The content of `name` in `node` changed, or it was closed after writing.
    pub fn touched(
        &mut self,
        what: What,
        node: NodeId,
        name: &OsStr,
        object: Option<ObjectId>,
        writer: Option<Arc<Writer>>,
        out: &mut Vec<Notice>,
    ) {
        if !self.is_watched(node) {
            return;
        }
        let name = &*self.proper(node, name, object.as_ref());
        let Some(parent) = self.nodes.get(&node) else {
            return;
        };
        let path = parent.path.join(name);
        let object = object.or_else(|| parent.entries.get(name)?.object.clone());
        self.report(node, what, path, object, writer, out);
    }

    /// The directory itself was deleted.
    pub fn gone(&mut self, node: NodeId) {
        // Its marks went with it.
        self.let_go(node, None);
    }

    /// The directory itself was moved. What its parents tell is enough, but a
    /// directory behind a link has parents that nobody watches.
    pub fn moved(&mut self, node: NodeId, out: &mut Vec<Notice>) {
        let Some(entry) = self.nodes.get(&node) else {
            return;
        };
        if entry.linked && self.open(node).is_none() {
            self.enter_again(node, &Finds::News(Finder::nobody()), out);
        }
    }

    /// Looks at every directory again: what was not known is reported.
    pub fn rescan(&mut self, out: &mut Vec<Notice>) {
        self.briefs.distrust();
        let mut nodes: Vec<(PathBuf, NodeId)> = self
            .nodes
            .iter()
            .map(|(id, node)| (node.path.to_path_buf(), *id))
            .collect();
        nodes.sort();
        for (_, node) in nodes {
            if !self.nodes.contains_key(&node) {
                continue;
            }
            match self.open(node) {
                Some(dir) => self.scan(&dir, None, node, &Finds::News(Finder::nobody()), out),
                None => self.detach(node),
            }
        }
    }
}
