//! Looks that wait, so that what one home does as fast as it can does not keep the
//! records of all others in the kernel's queue.
//!
//! Owns since when there has been something in the queue, what each home has had looked at
//! since, and the directories whose turn comes when others have had theirs: each time
//! for a moment, until they are done. Nothing waits here but of a home that has had
//! [`AT_ONCE`] names looked at while others wait. Must not own what a look costs a home
//! in all ([`crate::watch::home`]).

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::ops::Bound;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::FileType;

use super::visit::Name;
use super::{Finder, Finds, NodeId, Tree};
use crate::watch::Notice;
use crate::watch::home::Home;

/// There has been something in the queue for so long: somebody else may wait in it.
const BEHIND: Duration = Duration::from_millis(30);
/// So many names of one home are looked at meanwhile, however long that takes.
const AT_ONCE: usize = 2048;
/// How long one turn of the looks that wait may take.
const SLICE: Duration = Duration::from_millis(10);
/// How many files it may find: what becomes of them takes longer than to find them.
const FINDS: usize = 64;
/// So many names wait in one directory; with more all of it is looked into.
const MOST: usize = 16 * 1024;
/// So many names each look goes through at least.
const LEAST: usize = 16;

/// A directory that is to be looked into.
struct Waiting {
    finder: Finder,
    /// Its home was not listened to for a while: it has no marks.
    is_muted: bool,
    /// The names that are left of a look that has begun; all that there are, if it has not.
    rest: Option<Vec<Name>>,
}

/// What waits, and why.
#[derive(Default)]
pub(super) struct Soon {
    /// Since when there has been something in the queue.
    busy: Option<Instant>,
    /// Names that were looked at since.
    looked: HashMap<Home, usize>,
    waiting: BTreeMap<NodeId, Waiting>,
    /// One that has begun.
    begun: Option<NodeId>,
    /// Whose turn was last.
    last: Option<NodeId>,
    /// When the turn is over, while there is one.
    until: Option<Instant>,
    /// How many files have been found since it began.
    found: usize,
}

impl Soon {
    /// So many names of a home were looked at.
    pub(super) fn looked(&mut self, home: &Home, names: usize) {
        *self.looked.entry(Arc::clone(home)).or_default() += names;
    }

    /// A file was found.
    pub(super) fn found(&mut self) {
        self.found += 1;
    }

    /// Whether this turn may find more.
    pub(super) fn has_room(&self) -> bool {
        self.found < FINDS
    }

    /// The directory is let go.
    pub(super) fn remove(&mut self, node: NodeId) {
        self.waiting.remove(&node);
    }

    /// A directory waits; if it has no marks it still has none.
    fn wait(&mut self, node: NodeId, finder: &Finder, rest: Option<Vec<Name>>) -> &mut Waiting {
        let before = self.waiting.remove(&node);
        self.waiting.entry(node).or_insert(Waiting {
            finder: finder.clone(),
            is_muted: before.is_some_and(|before| before.is_muted),
            rest,
        })
    }

    /// The one that has begun, for its names take memory; else the one after that whose
    /// turn was last.
    fn next(&mut self) -> Option<(NodeId, Waiting)> {
        if let Some(node) = self.begun.take()
            && let Some(waiting) = self.waiting.remove(&node)
        {
            return Some((node, waiting));
        }
        let behind = |last| {
            self.waiting
                .range((Bound::Excluded(last), Bound::Unbounded))
        };
        let next = self.last.and_then(|last| behind(last).next());
        let node = *next.or_else(|| self.waiting.iter().next())?.0;
        self.last = Some(node);
        self.waiting.remove_entry(&node)
    }
}

impl Tree {
    /// There is something in the queue.
    pub fn busy(&mut self) {
        self.soon.busy.get_or_insert_with(Instant::now);
        self.let_most_leave();
    }

    /// Nothing has come while what was in the queue was worked off.
    pub fn caught_up(&mut self) {
        self.soon.busy = None;
        self.soon.looked.clear();
        self.heard.forget();
    }

    /// Since when there has been something in the queue.
    #[must_use]
    pub fn busy_since(&self) -> Option<Instant> {
        self.soon.busy
    }

    /// Whether that has been so for so long that others may wait.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.soon.busy.is_some_and(|busy| busy.elapsed() >= BEHIND)
    }

    /// Whether the home makes others wait if it is looked into now.
    #[must_use]
    pub fn must_wait(&self, home: &Home) -> bool {
        if let Some(until) = self.soon.until {
            return Instant::now() >= until || self.soon.found >= FINDS;
        }
        let looked = self.soon.looked.get(home);
        looked.is_some_and(|looked| *looked >= AT_ONCE) && self.is_behind()
    }

    /// A directory is looked into later, all of it.
    pub(super) fn put_off(&mut self, node: NodeId, finder: &Finder) {
        self.soon.wait(node, finder, None);
    }

    /// A directory that is muted gets its marks again later, and is looked into.
    pub(super) fn put_off_marks(&mut self, node: NodeId) {
        self.soon.wait(node, &Finder::nobody(), None).is_muted = true;
    }

    /// The new directory `name` in a directory is looked at later; who made which is not
    /// remembered.
    pub(super) fn put_off_name(&mut self, node: NodeId, name: &OsStr) {
        if self.nodes.get(&node).is_none_or(|node| node.muted) {
            return;
        }
        let waiting = self.soon.waiting.entry(node).or_insert_with(|| Waiting {
            finder: Finder::nobody(),
            is_muted: false,
            rest: Some(Vec::new()),
        });
        if let Some(rest) = &mut waiting.rest {
            rest.push((name.to_owned(), Some(FileType::Directory)));
            if rest.len() > MOST {
                waiting.rest = None;
            }
        }
    }

    /// The look into a directory of a home goes on later if it must, with the `names` that are
    /// left; `number` were gone through.
    pub(super) fn interrupt(
        &mut self,
        home: &Home,
        (node, number): (NodeId, usize),
        finder: &Finder,
        names: &mut std::vec::IntoIter<Name>,
    ) {
        if number % LEAST != 0 || names.len() == 0 || !self.must_wait(home) {
            return;
        }
        self.soon.begun = Some(node);
        self.soon.wait(node, finder, Some(names.collect()));
    }

    /// Whether looks wait ([`Tree::look_on`]).
    #[must_use]
    pub fn has_looks(&self) -> bool {
        !self.soon.waiting.is_empty() || !self.doubts.is_empty() || !self.leaving.is_empty()
    }

    /// Goes on with looks that wait, for a moment.
    pub fn look_on(&mut self, out: &mut Vec<Notice>) {
        let until = Instant::now() + SLICE;
        self.soon.until = Some(until);
        self.soon.found = 0;
        self.make_sure(until, out);
        self.let_leave(usize::MAX, Some(until));
        while Instant::now() < until
            && self.soon.has_room()
            && let Some((id, look)) = self.soon.next()
        {
            let Some(dir) = self.open(id) else {
                // Where it is now a record will tell, but of what had no mark.
                if look.is_muted {
                    self.detach(id);
                } else {
                    self.unscanned.insert(id);
                }
                continue;
            };
            if look.is_muted {
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.muted = false;
                }
                // Another group holds by now, to which no file has settled.
                if self.unsettled.remove(&id) {
                    self.settle_known(id, dir.as_fd());
                }
                self.mark_again(id, dir.as_fd(), out);
                self.marker.unmuted(dir.as_fd());
            }
            let finds = Finds::News(look.finder);
            match look.rest {
                Some(rest) => self.look_through(&dir, None, id, rest, &finds, out),
                None => self.scan(&dir, None, id, &finds, out),
            }
        }
        self.soon.until = None;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::ffi::OsString;
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::watch::tree::settling::tests::{Settled, tree_of};
    use crate::watch::{Evidence, What};

    const FILES: usize = 300;

    /// The files that were found, each once.
    fn found(notices: &[Notice]) -> BTreeSet<PathBuf> {
        let found: Vec<PathBuf> = notices
            .iter()
            .map(|notice| match notice {
                Notice::Change(change) => {
                    assert_eq!(change.what, What::Created { again: false });
                    assert_eq!(change.evidence, Evidence::Scan);
                    change.path.clone()
                }
                other => panic!("{other:?}"),
            })
            .collect();
        let all = found.len();
        let found: BTreeSet<PathBuf> = found.into_iter().collect();
        assert_eq!(found.len(), all);
        found
    }

    fn make(directory: &Path) -> BTreeSet<PathBuf> {
        fs::create_dir(directory).unwrap();
        let file = |number| {
            let path = directory.join(format!("f{number}"));
            fs::write(&path, "").unwrap();
            path
        };
        (0..FILES).map(file).collect()
    }

    #[test]
    fn only_a_home_that_keeps_others_waiting_waits_and_nothing_of_it_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        let homes = ["ann", "bob"].map(|name| real.join(name));
        for home in &homes {
            fs::create_dir(home).unwrap();
        }
        let [ann, bob] = &homes;
        let mut tree = tree_of(&[ann, bob], 10_000, Settled::default());
        let mut notices = Vec::new();
        tree.start(&mut notices).unwrap();
        let comes = |tree: &mut Tree, home: &Path, name: &str| {
            let files = make(&home.join(name));
            let node = tree.by_path(home).unwrap();
            let mut notices = Vec::new();
            tree.created(node, OsStr::new(name), None, true, None, &mut notices);
            (files, notices)
        };

        // However much she has had looked at, nobody waits, be this test as slow as it may.
        tree.soon.busy = Some(Instant::now() + Duration::from_secs(3600));
        tree.soon.looked(&ann.as_path().into(), AT_ONCE);
        let (files, notices) = comes(&mut tree, ann, "one");
        assert_eq!(found(&notices), files);

        tree.soon.busy = Instant::now().checked_sub(BEHIND);
        assert!(tree.is_behind());
        let (mut files, notices) = comes(&mut tree, ann, "two");
        assert!(notices.is_empty() && tree.has_looks(), "{notices:?}");
        let (of_bob, notices) = comes(&mut tree, bob, "three");
        assert_eq!(found(&notices), of_bob);
        // It has no mark yet: what comes meanwhile is found, too.
        let late = ann.join("two/late");
        fs::write(&late, "").unwrap();
        files.insert(late);

        let (mut notices, mut turns) = (Vec::new(), 0);
        while tree.has_looks() {
            let before = notices.len();
            tree.look_on(&mut notices);
            assert!(notices.len() - before <= FINDS + LEAST);
            turns += 1;
            assert!(turns <= FILES, "it does not come to an end");
        }
        assert_eq!(found(&notices), files);
        assert!(turns > FILES / (FINDS + LEAST), "{turns}");

        tree.caught_up();
        assert!(!tree.is_behind());
        let (files, notices) = comes(&mut tree, ann, "four");
        assert_eq!(found(&notices), files);
    }

    #[test]
    fn the_loudest_home_is_that_of_most_records_since_there_are_any() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        let homes = ["ann", "bob", "cat"].map(|name| real.join(name));
        for home in &homes {
            fs::create_dir(home).unwrap();
        }
        let [ann, bob, cat] = &homes;
        let mut tree = tree_of(&[ann, bob, cat], 10_000, Settled::default());
        tree.start(&mut Vec::new()).unwrap();
        let nodes = homes.each_ref().map(|home| tree.by_path(home).unwrap());
        let hear = |tree: &mut Tree, numbers: [u32; 3]| {
            for (node, number) in nodes.iter().zip(numbers) {
                for _ in 0..number {
                    tree.heard(*node);
                }
            }
        };
        hear(&mut tree, [9, 0, 0]);
        tree.caught_up();
        assert_eq!(tree.loudest(), None, "nobody waits for those any more");
        hear(&mut tree, [2, 5, 2]);
        assert_eq!(tree.loudest(), Some((bob.as_path().into(), 5)));
        assert_eq!(tree.loudest(), None, "they have been asked for");
        hear(&mut tree, [3, 5, 2]);
        assert_eq!(tree.loudest(), None, "it is but half of them");
        tree.mute(&bob.as_path().into());
        hear(&mut tree, [3, 5, 0]);
        assert_eq!(tree.loudest(), None, "most are of the muted one");
        hear(&mut tree, [6, 5, 0]);
        assert_eq!(tree.loudest(), Some((ann.as_path().into(), 6)));
    }

    #[test]
    fn a_muted_home_gets_its_marks_again_in_turns() {
        let dir = tempfile::tempdir().unwrap();
        let ann = dir.path().canonicalize().unwrap();
        let mut tree = tree_of(&[&ann], 10_000, Settled::default());
        let mut notices = Vec::new();
        tree.start(&mut notices).unwrap();
        let home: Home = ann.as_path().into();
        tree.mute(&home);
        let node = tree.by_path(&ann).unwrap();
        assert!(tree.nodes[&node].muted);
        fs::write(ann.join("meanwhile"), "").unwrap();
        // Of a muted home nothing is looked at before its time.
        tree.put_off_name(node, OsStr::new("d"));
        assert!(!tree.has_looks());
        tree.unmute(&home);
        // Put off once more before its turn, it still has no marks.
        tree.put_off(node, &Finder::nobody());
        assert!(tree.nodes[&node].muted && notices.is_empty());
        tree.look_on(&mut notices);
        assert!(!tree.nodes[&node].muted && !tree.has_looks());
        assert_eq!(found(&notices), [ann.join("meanwhile")].into());

        // Moved away, of which the record is still to come: it is looked for again.
        tree.put_off_name(node, OsStr::new("d"));
        let away = dir.path().with_extension("away");
        fs::rename(&ann, &away).unwrap();
        tree.look_on(&mut notices);
        assert!(!tree.has_looks() && tree.owes());
        // However long it is away.
        tree.catch_up(Instant::now(), &mut notices);
        assert!(tree.owes());
        fs::rename(&away, &ann).unwrap();
        fs::create_dir(ann.join("d")).unwrap();
        tree.catch_up(Instant::now(), &mut notices);
        assert!(tree.by_path(&ann.join("d")).is_some() && !tree.owes());
    }

    #[test]
    fn a_muted_home_that_is_renamed_is_listened_to_again() {
        let dir = tempfile::tempdir().unwrap();
        let homes = dir.path().canonicalize().unwrap();
        let [ann, carl] = ["ann", "carl"].map(|name| homes.join(name));
        fs::create_dir(&ann).unwrap();
        fs::create_dir(ann.join(".ssh")).unwrap();
        let mut tree = tree_of(&[&homes.join("*/.ssh")], 10_000, Settled::default());
        let mut notices = Vec::new();
        tree.start(&mut notices).unwrap();
        let home: Home = ann.as_path().into();
        tree.mute(&home);
        fs::write(ann.join(".ssh/meanwhile"), "").unwrap();
        let (node, base) = (
            tree.by_path(&ann.join(".ssh")).unwrap(),
            tree.by_path(&homes).unwrap(),
        );
        let id = Some(tree.nodes[&tree.by_path(&ann).unwrap()].id.clone());
        fs::rename(&ann, &carl).unwrap();
        let [from, to] = ["ann", "carl"].map(|name| Some((base, OsStr::new(name))));
        tree.renamed(from, to, id, true, None, &mut notices);
        tree.unmute(&home);
        while tree.has_looks() {
            tree.look_on(&mut notices);
        }
        assert_eq!(tree.by_path(&carl.join(".ssh")), Some(node));
        assert!(tree.nodes.values().all(|node| !node.muted));
        assert_eq!(found(&notices), [carl.join(".ssh/meanwhile")].into());
    }

    #[test]
    fn what_went_away_while_nobody_listened_is_not_taken_for_known() {
        let dir = tempfile::tempdir().unwrap();
        let ann = dir.path().canonicalize().unwrap();
        let files = ["one", "two", "stays"].map(|name| ann.join(name));
        for file in &files {
            fs::write(file, "").unwrap();
        }
        let mut tree = tree_of(&[&ann], 10_000, Settled::default());
        let mut notices = Vec::new();
        tree.start(&mut notices).unwrap();
        let home: Home = ann.as_path().into();
        tree.mute(&home);
        fs::remove_file(&files[0]).unwrap();
        tree.unmute(&home);
        while tree.has_looks() {
            tree.look_on(&mut notices);
        }
        assert_eq!(
            files.each_ref().map(|it| tree.is_known(it)),
            [false, true, true]
        );
        // Nor is what went away in an overflow.
        fs::remove_file(&files[1]).unwrap();
        tree.rescan(&mut notices);
        assert_eq!(
            files.each_ref().map(|it| tree.is_known(it)),
            [false, false, true]
        );
        assert!(notices.is_empty(), "{notices:?}");
    }

    #[test]
    fn files_of_a_muted_home_are_not_held_for_they_are_unsettled() {
        let dir = tempfile::tempdir().unwrap();
        let ann = dir.path().canonicalize().unwrap();
        fs::write(ann.join("file"), "").unwrap();
        let settled = Settled::default();
        let names = settled.names();
        let mut tree = tree_of(&[&ann], 10_000, settled);
        let mut notices = Vec::new();
        tree.start(&mut notices).unwrap();
        let home: Home = ann.as_path().into();
        tree.mute(&home);
        // Another group holds now, which knows of no file.
        names.lock().unwrap().clear();
        tree.mark_all_again(&mut notices);
        assert!(names.lock().unwrap().is_empty());
        tree.unmute(&home);
        tree.look_on(&mut notices);
        assert_eq!(*names.lock().unwrap(), [OsString::from("file")].into());
    }
}
