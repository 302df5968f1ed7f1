//! What the backends tell of directories and files, and what it means for the tree.
//!
//! Owns the calls that a record is translated into. Must not know of records, nor set
//! marks but through what visits and lets go of directories (`visit`).

use std::borrow::Cow;
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
        // No directory is made twice, but a link can come back.
        if !directory || object.is_none() {
            self.doubt_directory(node, name, directory);
        }
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
            self.doubt_directory(node, name, directory);
        }
        self.briefs.remove(object.as_ref());
        let child = from
            .and_then(|(node, name)| self.child(node, name, object.as_ref()))
            .or_else(|| object.as_ref().and_then(|object| self.by_object(object)));
        if let Some(child) = child {
            // They are moved with it, of which no record tells.
            let files = self.files_below(child);
            let place = self.place_of(child, from, to, object.as_ref());
            let place = place.as_ref().map(|(node, name)| (*node, &**name)).or(to);
            let role = place.map(|(node, name)| self.child_role(node, name));
            match (place, role) {
                (Some((node, name)), Some(role)) if role == self.nodes[&child].role => {
                    self.relabel(child, node, name, out);
                    if object.as_ref() == Some(&self.nodes[&child].id) {
                        self.no_longer_linked(child, out);
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
                    self.detach_at(child, place);
                    if let Some((node, name)) = place {
                        self.doubt_directory(node, name, true);
                    }
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

    /// Where a directory is of which a record tells that it, or a link to it, was renamed,
    /// if that is wanted: alike renames are merged in the queue and then not in their order.
    /// So it may be back where it came from, or still be where a later one brought it.
    fn place_of<'a>(
        &mut self,
        child: NodeId,
        from: Option<(NodeId, &'a OsStr)>,
        to: Option<(NodeId, &'a OsStr)>,
        object: Option<&ObjectId>,
    ) -> Option<(NodeId, Cow<'a, OsStr>)> {
        let entry = self.nodes.get(&child)?;
        let former = entry.parent.zip(entry.path.file_name());
        let former = former.map(|(parent, name)| (parent, Cow::Owned(name.to_owned())));
        // The name of a link leads to the directory, that of the directory is itself.
        let (linked, is_itself) = (entry.linked, object == Some(&entry.id));
        let follow = linked && !is_itself;
        let ends = [to, from].into_iter().flatten();
        for (node, name) in ends {
            if !self.child_role(node, name).is_none() && self.is_at(child, (node, name), follow) {
                return Some((node, name.into()));
            }
        }
        let (parent, name) = former?;
        let is_end = [to, from].contains(&Some((parent, &name)));
        if is_end && follow == linked {
            return None;
        }
        self.open(child).map(|_| (parent, name))
    }

    /// A directory that was known through a link is at this place itself now.
    pub(super) fn no_longer_linked(&mut self, node: NodeId, out: &mut Vec<Notice>) {
        let Some(entry) = self.nodes.get_mut(&node) else {
            return;
        };
        if !entry.linked {
            return;
        }
        entry.linked = false;
        match self.open(node) {
            // What is below it was not followed.
            Some(dir) => self.scan(&dir, None, node, &Finds::News(Finder::nobody()), out),
            None => drop(self.nodes.get_mut(&node).map(|entry| entry.linked = true)),
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;
    use std::time::Instant;

    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

    use super::*;
    use crate::watch::tree::MAX_DEPTH;
    use crate::watch::tree::settling::tests::{Settled, tree_with};

    /// A home with a `.ssh` that is watched, and in which records are made up.
    struct Ann {
        _dir: tempfile::TempDir,
        home: PathBuf,
        tree: Tree,
        told: Vec<PathBuf>,
    }

    impl Ann {
        fn new(prepare: impl FnOnce(&Path)) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let home = dir.path().canonicalize().unwrap();
            fs::create_dir(home.join(".ssh")).unwrap();
            prepare(&home);
            let limits = (1000, 10_000);
            let mut tree = tree_with(&[&home.join(".ssh")], limits, Settled::default());
            tree.start(&mut Vec::new()).unwrap();
            Self {
                _dir: dir,
                home,
                tree,
                told: Vec::new(),
            }
        }

        fn id(&self, name: &str) -> ObjectId {
            let dir = fs::File::open(&self.home).unwrap();
            let fsid = ObjectId::of(dir.as_fd()).unwrap().file_system();
            ObjectId::at(dir.as_fd(), OsStr::new(name), fsid).unwrap()
        }

        fn mv(&self, from: &str, to: &str) {
            fs::rename(self.home.join(from), self.home.join(to)).unwrap();
        }

        fn place<'n>(&self, name: &'n str) -> (NodeId, &'n OsStr) {
            let (above, name) = name
                .strip_prefix(".ssh/")
                .map_or(("", name), |name| (".ssh", name));
            let node = self.tree.by_path(&self.home.join(above)).unwrap();
            (node, OsStr::new(name))
        }

        /// A record: from where to where, of what, and whether that is a directory.
        fn renamed(&mut self, (from, to): (&str, &str), object: &ObjectId, directory: bool) {
            let ends = (Some(self.place(from)), Some(self.place(to)));
            let mut out = Vec::new();
            let object = Some(object.clone());
            self.tree
                .renamed(ends.0, ends.1, object, directory, None, &mut out);
            self.take(out);
        }

        fn take(&mut self, out: Vec<Notice>) {
            for notice in out {
                match notice {
                    Notice::Change(change) => self.told.push(change.path),
                    other => panic!("{other:?}"),
                }
            }
        }

        /// The queue has been read to its end.
        fn settle(&mut self) {
            self.tree.emptied();
            self.tree.caught_up();
            for _ in 0..100 {
                let mut out = Vec::new();
                self.tree.look_on(&mut out);
                self.take(out);
            }
            assert!(!self.tree.has_looks());
            self.tree.catch_up(Instant::now(), &mut Vec::new());
        }

        /// Whether this directory is watched, as itself, where it is.
        #[track_caller]
        fn assert_watched(&mut self, name: &str) {
            let node = self.tree.by_path(&self.home.join(name));
            let node = node.unwrap_or_else(|| panic!("{name} is not known"));
            assert!(self.tree.is_watched(node) && self.tree.open(node).is_some());
            let id = self.id(name);
            assert_eq!(self.tree.by_object(&id), Some(node));
            let linked = self.tree.nodes[&node].linked;
            assert!(!linked, "{name}");
        }
    }

    #[test]
    fn a_directory_that_takes_the_place_of_the_link_to_it() {
        let mut ann = Ann::new(|home| {
            fs::rename(home.join(".ssh"), home.join("x")).unwrap();
            fs::create_dir(home.join("x/d")).unwrap();
            symlink("x", home.join(".ssh")).unwrap();
        });
        let (real, link) = (ann.id("x"), ann.id(".ssh"));
        assert!(ann.tree.by_path(&ann.home.join(".ssh/d")).is_none());
        let [x, ssh] = ["x", ".ssh"].map(|name| ann.home.join(name));
        renameat2(AT_FDCWD, &x, AT_FDCWD, &ssh, RenameFlags::RENAME_EXCHANGE).unwrap();
        ann.renamed(("x", ".ssh"), &real, true);
        ann.renamed((".ssh", "x"), &link, false);
        ann.settle();
        ann.assert_watched(".ssh");
        ann.assert_watched(".ssh/d");
        // And the other way round.
        renameat2(AT_FDCWD, &x, AT_FDCWD, &ssh, RenameFlags::RENAME_EXCHANGE).unwrap();
        ann.renamed((".ssh", "x"), &real, true);
        ann.renamed(("x", ".ssh"), &link, false);
        ann.settle();
        let node = ann.tree.by_path(&ssh).unwrap();
        assert!(ann.tree.nodes[&node].linked && ann.tree.open(node).is_some());
        // The records of it are lost.
        renameat2(AT_FDCWD, &x, AT_FDCWD, &ssh, RenameFlags::RENAME_EXCHANGE).unwrap();
        ann.tree.rescan(&mut Vec::new());
        ann.assert_watched(".ssh");
        ann.assert_watched(".ssh/d");
    }

    #[test]
    fn a_link_that_is_made_again_in_the_record_of_its_removal() {
        let mut ann = Ann::new(|_| {});
        let real = ann.id(".ssh");
        ann.mv(".ssh", "x");
        ann.renamed((".ssh", "x"), &real, true);
        ann.settle();
        assert!(ann.tree.by_path(&ann.home.join(".ssh")).is_none());
        symlink("x", ann.home.join(".ssh")).unwrap();
        let (node, name) = ann.place(".ssh");
        let (link, mut out) = (Some(ann.id(".ssh")), Vec::new());
        ann.tree
            .created(node, name, link.clone(), false, None, &mut out);
        ann.tree.deleted(node, name, link, false, None, &mut out);
        ann.take(out);
        ann.settle();
        let node = ann.tree.by_path(&ann.home.join(".ssh")).unwrap();
        assert!(ann.tree.nodes[&node].linked && ann.tree.open(node).is_some());
    }

    #[test]
    fn a_directory_that_goes_round_in_a_circle() {
        let mut ann = Ann::new(|_| {});
        let real = ann.id(".ssh");
        ann.mv(".ssh", "x");
        ann.renamed((".ssh", "x"), &real, true);
        ann.settle();
        for (from, to) in [("x", ".ssh"), (".ssh", "c"), ("c", "x"), ("x", ".ssh")] {
            ann.mv(from, to);
        }
        // The last is part of the first.
        for ends in [("x", ".ssh"), (".ssh", "c"), ("c", "x")] {
            ann.renamed(ends, &real, true);
        }
        ann.settle();
        ann.assert_watched(".ssh");
    }

    #[test]
    fn one_that_does_so_in_a_watched_one_is_told_where_it_is() {
        let mut ann = Ann::new(|home| {
            fs::create_dir(home.join(".ssh/a")).unwrap();
            fs::write(home.join(".ssh/a/file"), "").unwrap();
        });
        let real = ann.id(".ssh/a");
        for (from, to) in [("a", "b"), ("b", "c"), ("c", "a"), ("a", "b")] {
            ann.mv(&format!(".ssh/{from}"), &format!(".ssh/{to}"));
        }
        for (from, to) in [("a", "b"), ("b", "c"), ("c", "a")] {
            ann.renamed(
                (&format!(".ssh/{from}"), &format!(".ssh/{to}")),
                &real,
                true,
            );
        }
        ann.settle();
        ann.assert_watched(".ssh/b");
        assert_eq!(ann.told, [ann.home.join(".ssh/b/file")]);
    }

    #[test]
    fn a_large_directory_that_is_renamed_costs_its_home_and_shows_life() {
        const MANY: usize = 500;
        let mut ann = Ann::new(|home| {
            for number in 0..MANY {
                fs::create_dir_all(home.join(format!(".ssh/top/d{number}"))).unwrap();
            }
        });
        let real = ann.id(".ssh/top");
        let beats = ann.tree.beat().count();
        ann.mv(".ssh/top", ".ssh/other");
        let node = ann.tree.by_path(&ann.home.join(".ssh")).unwrap();
        for _ in 0..4 {
            ann.tree.heard(node);
        }
        ann.renamed((".ssh/top", ".ssh/other"), &real, true);
        assert!(ann.tree.beat().count() - beats > MANY as u64);
        let (_, records) = ann.tree.loudest().unwrap();
        assert!(records > 8, "{records}");
        ann.settle();
        ann.assert_watched(&format!(".ssh/other/d{}", MANY - 1));
    }

    #[test]
    fn no_rename_makes_a_directory_known_deeper_than_any_may_be() {
        const HALF: usize = MAX_DEPTH / 2 + 8;
        let chain = |name: &str| format!(".ssh/{name}{}", "/d".repeat(HALF - 1));
        let mut ann = Ann::new(|home| {
            for name in ["one", "two"] {
                fs::create_dir_all(home.join(chain(name))).unwrap();
            }
        });
        let two = ann.id(".ssh/two");
        let (ssh, name) = ann.place(".ssh/two");
        let deep = ann.tree.by_path(&ann.home.join(chain("one"))).unwrap();
        ann.mv(".ssh/two", &format!("{}/two", chain("one")));
        let mut out = Vec::new();
        let (from, to) = (Some((ssh, name)), Some((deep, name)));
        ann.tree.renamed(from, to, Some(two), true, None, &mut out);
        let too_deep = |notice: &Notice| {
            let Notice::Problem(Problem::TooDeep { path, .. }) = notice else {
                panic!("{notice:?}");
            };
            path.strip_prefix(&ann.home).unwrap().components().count()
        };
        // Below .ssh, which has no depth itself.
        assert_eq!(
            out.iter().map(too_deep).collect::<Vec<_>>(),
            [MAX_DEPTH + 2]
        );
        let nodes = ann.tree.nodes.values().filter(|node| node.role.watched);
        let depths: BTreeSet<usize> = nodes.map(|node| usize::from(node.depth)).collect();
        assert_eq!(depths, (0..=MAX_DEPTH).collect());
        assert_eq!(ann.tree.watched(), MAX_DEPTH + 1);
        // Back up, what is there is known again, and as deep as it is.
        ann.mv(&format!("{}/two", chain("one")), ".ssh/two");
        let (from, to) = (Some((deep, name)), Some((ssh, name)));
        ann.tree.renamed(
            from,
            to,
            Some(ann.id(".ssh/two")),
            true,
            None,
            &mut Vec::new(),
        );
        ann.settle();
        ann.assert_watched(&chain("two"));
        assert_eq!(ann.tree.watched(), 2 * HALF + 1);
    }
}
