//! What the start puts off: on a host with many homes there are tens of thousands of
//! files, and nothing is heard until the start is over.
//!
//! Owns which of the files that the start has found have no ignore mark and no known
//! identity yet, so that whoever opens one is held for a moment. That they are there,
//! and in which version, is known; a record of one is told like any other. The first
//! [`AT_ONCE`] are not put off: on an ordinary host nobody is held at a file that exists.

use std::collections::VecDeque;
use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;

use super::visit::Spot;
use super::{Known, NodeId, Tree};
use crate::sys::ObjectId;
use crate::sys::stat::{glance, look};
use crate::watch::Notice;
use crate::watch::home::Limit;

/// So many files of the start get their marks at once.
const AT_ONCE: usize = 4096;

/// What was put off.
pub(super) struct Settling {
    /// How many files more are not; `None` after the start, when none is.
    at_once: Option<usize>,
    /// Directories with files of which it was.
    owed: VecDeque<NodeId>,
}

impl Default for Settling {
    fn default() -> Self {
        Self {
            at_once: Some(AT_ONCE),
            owed: VecDeque::new(),
        }
    }
}

impl Settling {
    /// The start is over.
    pub(super) fn no_more(&mut self) {
        self.at_once = None;
    }

    /// Whether the next file may be put off.
    fn may_wait(&mut self) -> bool {
        match &mut self.at_once {
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }
}

impl Tree {
    /// Takes note of a file that the start has found, and puts off what can wait; says
    /// whether that was done.
    pub(super) fn find_later(
        &mut self,
        dir: BorrowedFd<'_>,
        place: Spot,
        node: NodeId,
        name: &OsStr,
        out: &mut Vec<Notice>,
    ) -> bool {
        let entry = self.nodes.get(&node);
        let Some(entry) = entry.filter(|entry| entry.entries.get(name).is_none()) else {
            return false;
        };
        let fsid = entry.fsid();
        if !place.is_plain || !self.settling.may_wait() {
            return false;
        }
        // Nothing is mounted here, so that no server is asked; and if it was just now,
        // this is told from what the kernel has.
        let seen = CString::new(name.as_bytes()).map(|name| look(dir, &name));
        let Ok(Ok(seen)) = seen else { return false };
        let is_own = seen.mount.is_some() && seen.mount == place.mount;
        if !is_own || seen.kind == libc::S_IFDIR {
            return false;
        }
        let object = self
            .is_to_follow(node, name, seen)
            .then(|| ObjectId::at(dir, name, fsid).ok())
            .flatten();
        let known = Known {
            object: object.clone(),
            reported: false,
            owed: true,
            reading: 0,
        };
        if self.keep(node, name, known) {
            self.take_stock_of(node, name, seen);
            if self.settling.owed.back() != Some(&node) {
                self.settling.owed.push_back(node);
            }
        } else {
            self.at_limit(node, Limit::Files, out);
        }
        // What is written to it elsewhere is seen from now on, too.
        self.follow_file(dir, node, name, seen, object, out);
        true
    }

    /// Whether something is still put off.
    #[must_use]
    pub fn is_settling(&self) -> bool {
        !self.settling.owed.is_empty()
    }

    /// Makes up for up to `most` files.
    pub fn settle_more(&mut self, most: usize) {
        let mut left = most;
        while left > 0
            && let Some(node) = self.settling.owed.pop_front()
        {
            let Some(dir) = self.open(node) else {
                continue;
            };
            let mount = glance(dir.as_fd(), c"").ok().and_then(|seen| seen.mount);
            let owed = self.nodes[&node].entries.iter();
            let owed = owed.filter(|(_, known)| known.owed).take(left);
            let names: Vec<OsString> = owed.map(|(name, _)| name.to_owned()).collect();
            if names.len() == left {
                self.settling.owed.push_front(node);
            }
            left -= names.len();
            for name in &names {
                self.beat.tick();
                self.settle_owed(dir.as_fd(), mount, node, name);
            }
        }
        if self.settling.owed.is_empty() {
            self.settling.owed.shrink_to_fit();
        }
    }

    fn settle_owed(&mut self, dir: BorrowedFd<'_>, mount: Option<u64>, node: NodeId, name: &OsStr) {
        let Some(entry) = self.nodes.get_mut(&node) else {
            return;
        };
        let fsid = entry.fsid();
        let Some(known) = entry.entries.get_mut(name) else {
            return;
        };
        known.owed = false;
        let found = CString::new(name.as_bytes()).ok();
        let found = found.and_then(|name| ObjectId::with_mount(dir, &name, fsid).ok());
        // Of what is gone or mounted over something else tells.
        let Some((object, at)) = found else { return };
        if Some(at) == mount {
            known.object.get_or_insert(object);
            self.marker.settle(dir, name);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::io;
    use std::path::Path;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::sys::handle::FileSystem;
    use crate::watch::home::Limits;
    use crate::watch::pattern::Pattern;
    use crate::watch::tree::{Held, Interest, Marker, Scope};
    use crate::watch::{Evidence, What};

    /// More than are settled at once.
    const LATER: usize = 100;

    /// Takes down which files are settled.
    #[derive(Default)]
    pub(in crate::watch::tree) struct Settled(Arc<Mutex<BTreeSet<OsString>>>);

    impl Settled {
        /// Those that are.
        pub(in crate::watch::tree) fn names(&self) -> Arc<Mutex<BTreeSet<OsString>>> {
            Arc::clone(&self.0)
        }
    }

    impl Marker for Settled {
        fn mark(
            &mut self,
            _: BorrowedFd<'_>,
            _: FileSystem,
            _: &Path,
            _: Interest,
        ) -> io::Result<Held> {
            Ok(Held::Yes)
        }

        fn unmark(&mut self, _: Option<BorrowedFd<'_>>, _: &Path) {}

        fn no_opens(&mut self, _: BorrowedFd<'_>) {}

        fn moved(&mut self, _: &Path, _: &Path, _: bool) {}

        fn settle(&mut self, _: BorrowedFd<'_>, name: &OsStr) {
            self.0.lock().unwrap().insert(name.to_owned());
        }

        fn follow(&mut self, _: BorrowedFd<'_>, _: &OsStr) -> io::Result<()> {
            Ok(())
        }

        fn unfollow(&mut self, _: BorrowedFd<'_>) {}

        fn evidence(&self) -> Evidence {
            Evidence::Fanotify
        }
    }

    /// A tree that watches these directories, each of which may have so many files.
    pub(in crate::watch::tree) fn tree_of(
        directories: &[&Path],
        files: usize,
        marker: Settled,
    ) -> Tree {
        tree_with(directories, (10, files), marker)
    }

    /// The same; each home may have so many directories and files.
    pub(in crate::watch::tree) fn tree_with(
        directories: &[&Path],
        (most, files): (usize, usize),
        marker: Settled,
    ) -> Tree {
        let patterns = directories.iter().map(|it| Pattern::parse(it).unwrap());
        let scope = Scope {
            patterns: patterns.collect(),
            limit: 1000,
            homes: Limits {
                directories: most,
                files,
            },
            opens: Box::new(|_| false),
            stock: None,
        };
        Tree::new(scope, Box::new(marker))
    }

    #[test]
    fn what_was_put_off_is_made_up_for_and_no_news() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        let name = |number: usize| format!("file{number:05}");
        let all = AT_ONCE + LATER;
        for number in 0..all {
            fs::write(real.join(name(number)), "").unwrap();
        }
        let settled = Arc::default();
        let mut tree = tree_of(&[&real], 2 * all, Settled(Arc::clone(&settled)));
        let mut notices = Vec::new();
        tree.start(&mut notices).unwrap();
        assert!(notices.is_empty(), "{notices:?}");
        assert_eq!(settled.lock().unwrap().len(), AT_ONCE);
        assert!(tree.is_settling());
        assert_eq!(tree.files(|_| true).len(), all);

        let done = settled.lock().unwrap().clone();
        let mut owed = (0..all)
            .map(name)
            .filter(|name| !done.contains(OsStr::new(name)));
        let (gone, replaced, told) = (
            owed.next().unwrap(),
            owed.next().unwrap(),
            owed.next().unwrap(),
        );
        let node = tree.by_path(&real).unwrap();
        // Its record is read before it is its turn.
        fs::remove_file(real.join(&told)).unwrap();
        let deleted = OsStr::new(&told);
        tree.deleted(node, deleted, None, false, None, &mut notices);
        assert!(matches!(&notices[..], [Notice::Change(change)] if change.what == What::Deleted));
        notices.clear();
        // These come after it.
        fs::remove_file(real.join(&gone)).unwrap();
        fs::write(real.join("new"), "").unwrap();
        fs::rename(real.join("new"), real.join(&replaced)).unwrap();
        // Records were lost meanwhile: what was put off is not news.
        tree.settle_more(7);
        tree.rescan(&mut notices);
        assert!(notices.is_empty(), "{notices:?}");
        let mut slices = 0;
        while tree.is_settling() {
            tree.settle_more(7);
            slices += 1;
            assert!(slices <= LATER, "it does not come to an end");
        }
        let settled = settled.lock().unwrap().clone();
        let left = (0..all)
            .map(name)
            .filter(|name| *name != gone && *name != told);
        assert_eq!(settled, left.map(OsString::from).collect());
        // All are known by their identity now, as if nothing had been put off.
        let object = tree.object_at(node, OsStr::new(&replaced));
        let entry = &tree.nodes[&node].entries;
        assert_eq!(entry.get(OsStr::new(&replaced)).unwrap().object, object);
        assert!(object.is_some());
        tree.created(
            node,
            OsStr::new(&replaced),
            object,
            false,
            None,
            &mut notices,
        );
        let [Notice::Change(change)] = &notices[..] else {
            panic!("{notices:?}");
        };
        assert_eq!(change.what, What::Created { again: false });
    }
}
