//! The tree of marked directories: the way from `/` down to what is watched,
//! and everything below it.
//!
//! Owns which directories exist, under which path each is known, and which of
//! their entries have been reported. A *waypoint* is a directory on the way (`/`,
//! `/home`, `/home/ann`): only the coming and going of names in it is looked at.
//! A *watched* directory is one that a pattern names, or lies below one.
//!
//! Every new directory is marked first and scanned then, so that a file is
//! seen by a record or by the scan. Must not know of records: the backends
//! translate them into the calls here. Marks are set through a [`Marker`].

mod brief;
mod by_object;
mod entries;
mod links;
mod listing;
mod mounted;
mod muted;
mod proper;
mod settling;
mod soon;
mod visit;

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use self::brief::Briefs;
use self::by_object::ByObject;
use self::entries::Entries;
use self::links::Followed;
pub use self::listing::{Listing, digest};
use self::mounted::Apart;
pub use self::mounted::{Ground, Place};
use self::muted::Heard;
use self::settling::Settling;
use self::soon::Soon;
use self::visit::{Come, Footing, Look, open_root};
use super::beat::Beat;
use super::home::{Home, Homes, Limit, Limits, is_looked_for};
use super::mounts::Mounts;
use super::pattern::Pattern;
use super::{Change, Evidence, Notice, Problem, What, Writer};
use crate::sys::ObjectId;
use crate::sys::handle::FileSystem;

/// How deep below a watched root directories are followed.
const MAX_DEPTH: usize = 64;
/// How many entries are remembered in all; beyond it files are still reported,
/// but a scan could report one again.
const MAX_ENTRIES: usize = 1 << 18;

/// What is to be told of a directory. Each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Interest {
    /// Names that come and go in it.
    Names,
    /// What happens to the files in it.
    Files,
    /// Who opens them, too.
    Opens,
}

/// Whether opens of the files in the directory with this path are asked for.
pub type WantsOpens = Box<dyn Fn(&Path) -> bool + Send>;

/// What is to be watched.
pub struct Scope {
    /// The directories, each with all below it.
    pub patterns: Vec<Pattern>,
    /// At most so many directories.
    pub limit: usize,
    /// What one home may have of them.
    pub homes: Limits,
    /// In which of them opens are told. They are many, and each costs a wake-up.
    pub opens: WantsOpens,
    /// By this key [`Tree::start`] notes which version of each file it finds.
    pub stock: Option<RandomState>,
}

/// Whether the making of files in a directory is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// It is.
    Yes,
    /// It is not meant to be.
    No,
    /// It cannot be, for this reason.
    Refused(Box<str>),
}

/// A directory that a pattern names, and how well it is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Root<'a> {
    /// Its path.
    pub path: &'a Path,
    /// Whether the making of files in it is held.
    pub held: &'a Held,
    /// It has no marks for a while ([`Tree::mute`]).
    pub muted: bool,
}

/// Sets marks for a backend.
pub trait Marker: Send {
    /// Marks `dir`, which lies on this file system. A hold that cannot be had is a
    /// success all the same.
    ///
    /// # Errors
    /// The directory cannot be watched at all.
    fn mark(
        &mut self,
        dir: BorrowedFd<'_>,
        ground: FileSystem,
        path: &Path,
        interest: Interest,
    ) -> io::Result<Held>;

    /// Opens in a marked directory are of no interest any more.
    fn no_opens(&mut self, dir: BorrowedFd<'_>);

    /// Takes the marks off, where the directory can still be reached.
    fn unmark(&mut self, dir: Option<BorrowedFd<'_>>, path: &Path);

    /// Takes them off for a while: nothing is told of it until it is marked again.
    fn mute(&mut self, dir: Option<BorrowedFd<'_>>, path: &Path, _interest: Interest) {
        self.unmark(dir, path);
    }

    /// It is marked again: of what stood for the marks meanwhile nothing is left.
    fn unmuted(&mut self, _dir: BorrowedFd<'_>) {}

    /// A marked directory is known by another path now.
    fn moved(&mut self, from: &Path, to: &Path, watched: bool);

    /// The file is there and settled: opens of it shall not be held.
    fn settle(&mut self, dir: BorrowedFd<'_>, name: &OsStr);

    /// What is done to the file through any of its names shall be told.
    ///
    /// # Errors
    /// It cannot be marked.
    fn follow(&mut self, dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()>;

    /// No longer; `dir` is a directory of its file system.
    fn unfollow(&mut self, dir: BorrowedFd<'_>, object: &ObjectId);

    /// How the changes it leads to are known.
    fn evidence(&self) -> Evidence;
}

/// Refers to a directory of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(NonZeroU64);

/// Hashes what is counted here, which nobody can choose.
#[derive(Default)]
struct Counted(u64);

impl Hasher for Counted {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        // An odd number, so that each bit of a count moves many of the result.
        self.0 = (self.0 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Role {
    /// Patterns that lead through here, and how many of their components are done.
    /// Of all homes the same, which have them together ([`Tree::shared`]).
    waypoints: Arc<[(usize, usize)]>,
    /// Files in it are reported.
    watched: bool,
}

impl Role {
    fn is_none(&self) -> bool {
        self.waypoints.is_empty() && !self.watched
    }
}

#[derive(Debug)]
struct Node {
    id: ObjectId,
    parent: Option<NodeId>,
    path: Box<Path>,
    /// The home that it is or lies in; none of a directory on the way to homes.
    home: Option<Home>,
    role: Role,
    interest: Interest,
    /// Levels below the watched root.
    depth: u8,
    /// Reached through a symbolic link: its subdirectories are not followed.
    linked: bool,
    /// It is a home, or homes are made in it.
    base: bool,
    held: Held,
    children: Entries<NodeId>,
    entries: Entries<Known>,
    /// Files in it that have a mark of their own.
    followed: Vec<ObjectId>,
    /// It has no marks for a while.
    muted: bool,
}

/// Directories, each in a place of its own, for they are many: the table grows by doubling.
type Nodes = HashMap<NodeId, Box<Node>, BuildHasherDefault<Counted>>;

impl Node {
    /// The id of the file system it lies on.
    fn fsid(&self) -> [u8; 8] {
        self.id.file_system()
    }
}

#[derive(Clone, Debug)]
struct Known {
    object: Option<ObjectId>,
    /// Reported as made; false for what was there when the daemon started.
    reported: bool,
    /// The start has found it, and has not identified it yet: opens of it are held
    /// ([`Tree::settle_more`]).
    owed: bool,
}

/// What a visit does with the files it finds.
#[derive(Clone)]
enum Finds {
    /// They were there before us: take stock.
    Stock,
    /// They are news, made by nobody knows whom; who made or moved the
    /// directory is known.
    News(Finder),
}

/// Who brought the directory that a scan looks at.
#[derive(Clone)]
struct Finder {
    writer: Option<Arc<Writer>>,
    /// By moving it there, with all that is in it.
    moved: bool,
}

impl Finder {
    /// Nobody knows who.
    fn nobody() -> Self {
        Self {
            writer: None,
            moved: false,
        }
    }
}

/// The tree.
pub struct Tree {
    patterns: Vec<Pattern>,
    limit: usize,
    opens: WantsOpens,
    marker: Box<dyn Marker>,
    nodes: Nodes,
    by_object: ByObject,
    /// Those of the last directory that has any.
    waypoints: Arc<[(usize, usize)]>,
    root: Option<NodeId>,
    /// How many there have been.
    made: u64,
    remembered: usize,
    limit_said: bool,
    /// File systems that homes lie on, and how many of them.
    file_systems: HashMap<[u8; 8], usize>,
    /// How often there was another one.
    file_system_changes: u64,
    homes: Homes,
    /// Directories that are still to be looked into: their homes have had their share.
    unscanned: BTreeSet<NodeId>,
    soon: Soon,
    heard: Heard,
    beat: Arc<Beat>,
    /// What the start has found, with the versions of files by this key.
    stock: Option<Listing>,
    stock_key: Option<RandomState>,
    /// How often a directory got another path or was let go.
    moves: u64,
    mounts: Mounts,
    /// Where something is mounted, as far as that has been followed.
    points: Vec<PathBuf>,
    /// What lies on file systems whose server may not answer.
    apart: BTreeMap<PathBuf, Apart>,
    /// How often that changed.
    apart_changes: u64,
    /// What is found now came with a mount.
    remounting: bool,
    /// Files with a mark of their own.
    followed: HashMap<ObjectId, Followed>,
    /// Of these, how many are followed for they have several names.
    linked: usize,
    links_said: bool,
    /// Links at places that a pattern names, which lead nowhere that can be watched.
    astray: HashMap<NodeId, BTreeSet<OsString>>,
    briefs: Briefs,
    settling: Settling,
}

impl Tree {
    /// An empty tree for `scope`.
    #[must_use]
    pub fn new(scope: Scope, marker: Box<dyn Marker>) -> Self {
        Self {
            patterns: scope.patterns,
            limit: scope.limit,
            homes: Homes::new(scope.homes),
            unscanned: BTreeSet::new(),
            soon: Soon::default(),
            heard: Heard::default(),
            opens: scope.opens,
            marker,
            nodes: HashMap::default(),
            by_object: ByObject::default(),
            waypoints: Arc::default(),
            root: None,
            made: 0,
            stock: None,
            stock_key: scope.stock,
            remembered: 0,
            limit_said: false,
            file_systems: HashMap::new(),
            file_system_changes: 0,
            beat: Arc::default(),
            moves: 0,
            mounts: Mounts::new(),
            points: Vec::new(),
            apart: BTreeMap::new(),
            apart_changes: 0,
            remounting: false,
            astray: HashMap::new(),
            followed: HashMap::new(),
            linked: 0,
            links_said: false,
            briefs: Briefs::default(),
            settling: Settling::default(),
        }
    }

    /// Marks everything that exists, without reporting what is found in it.
    ///
    /// # Errors
    /// `/` cannot be opened or marked.
    pub fn start(&mut self, out: &mut Vec<Notice>) -> io::Result<()> {
        let root = open_root()?;
        self.points = self.mounts.points();
        self.mounts.take_news();
        let role = self.root_role();
        // Marked here first, to tell an unusable backend from one bad directory.
        let ground = FileSystem::of(&root)?;
        self.marker
            .mark(root.as_fd(), ground, Path::new("/"), Interest::Names)?;
        self.stock = self.stock_key.as_ref().map(|_| Listing::default());
        let at = (None, OsStr::new(""));
        self.visit(&root, None, at, role, false, &Finds::Stock, out);
        self.settling.no_more();
        Ok(())
    }

    /// What [`Tree::start`] has found, with the version that each file had after its
    /// directory was marked ([`digest`]), if that was wanted.
    pub fn take_stock(&mut self) -> Option<(Listing, RandomState)> {
        self.stock.take().zip(self.stock_key.take())
    }

    /// Ticks with each name that a scan looks at: a large tree takes its time.
    #[must_use]
    pub fn beat(&self) -> Arc<Beat> {
        Arc::clone(&self.beat)
    }

    fn root_role(&self) -> Role {
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
            entry.entries.clear();
        }
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
        if let Some(dir) = dir {
            self.scan(&dir, None, node, &Finds::Stock, out);
        }
    }

    /// How many directories are watched (waypoints not counted).
    #[must_use]
    pub fn watched(&self) -> usize {
        self.nodes.values().filter(|node| node.role.watched).count()
    }

    /// The files that are there, as far as it is known, in directories that are
    /// `wanted`; those of one directory after the other.
    #[must_use]
    pub fn files(&self, wanted: impl Fn(&Path) -> bool) -> Listing {
        let nodes = self.nodes.values().filter(|node| node.role.watched);
        let mut nodes: Vec<&Node> = nodes
            .filter(|node| wanted(&node.path))
            .map(Box::as_ref)
            .collect();
        nodes.sort_unstable_by(|one, other| one.path.cmp(&other.path));
        let mut listing = Listing::default();
        for node in nodes {
            for name in node.entries.names() {
                listing.push(&node.path, name, 0);
            }
        }
        listing
    }

    /// What is watched.
    #[must_use]
    pub fn patterns(&self) -> &[Pattern] {
        &self.patterns
    }

    /// Grows when a directory gets another path or is let go, of which nothing
    /// is told for each of the files in it.
    #[must_use]
    pub fn moves(&self) -> u64 {
        self.moves
    }

    /// All watched directories that a pattern names itself, by path.
    #[must_use]
    pub fn roots(&self) -> Vec<Root<'_>> {
        let mut roots: Vec<Root<'_>> = self
            .nodes
            .values()
            .filter(|node| node.role.watched && node.depth == 0)
            .map(|node| Root {
                path: &node.path,
                held: &node.held,
                muted: node.muted,
            })
            .collect();
        roots.sort_unstable_by(|one, other| one.path.cmp(other.path));
        roots
    }

    /// Sets every mark again, for a group that has lost them. Files that are
    /// known come first: no open of them shall be held meanwhile.
    pub fn mark_all_again(&mut self, out: &mut Vec<Notice>) {
        let nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        for node in nodes {
            let Some(dir) = self.open(node) else { continue };
            let entry = &self.nodes[&node];
            if entry.muted {
                continue;
            }
            if entry.role.watched {
                for name in entry.entries.names() {
                    self.marker.settle(dir.as_fd(), name);
                }
            }
            self.mark_again(node, dir.as_fd(), out);
        }
    }

    fn mark_again(&mut self, node: NodeId, dir: BorrowedFd<'_>, out: &mut Vec<Notice>) {
        let path = self.nodes[&node].path.to_path_buf();
        let interest = self.interest(&path, self.nodes[&node].role.watched);
        if let Some(held) = self.mark(dir, None, &path, interest, out)
            && let Some(node) = self.nodes.get_mut(&node)
        {
            node.held = held;
            node.interest = interest;
        }
    }

    /// The directory with this identity.
    #[must_use]
    pub fn by_object(&self, object: &ObjectId) -> Option<NodeId> {
        self.by_object.find(&self.nodes, object)
    }

    /// The directory known by this path.
    #[must_use]
    pub fn by_path(&self, path: &Path) -> Option<NodeId> {
        let mut node = self.root?;
        for component in path.components() {
            match component {
                Component::RootDir => {}
                Component::Normal(name) => {
                    node = *self.nodes.get(&node)?.children.get(name)?;
                }
                _ => return None,
            }
        }
        Some(node)
    }

    /// Whether a directory with this role is a home, or where homes are made.
    fn is_base(&self, role: &Role) -> bool {
        role.waypoints.iter().any(|(pattern, done)| {
            let depth = self.patterns[*pattern].depth();
            *done > 0 && (*done + 1 == depth || *done + 2 == depth)
        })
    }

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
    fn enter_from(
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
            self.detach(child);
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
                    return;
                }
                _ => self.detach_at(child, to),
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
        if let Some((node, name, _)) = &from_watched {
            known = self.forget(*node, name, object.as_ref());
        }
        let object = object
            .or(known)
            .or_else(|| to.and_then(|(node, name)| self.object_at(node, name)));
        if let Some((node, name, path)) = to_watched {
            self.remember(node, name, object.clone(), out);
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
        self.detach(node);
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

    /// The file has settled: opens of it shall not be held any more.
    pub fn settle(&mut self, path: &Path, out: &mut Vec<Notice>) {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return;
        };
        // A mark on what is not remembered would have no bound.
        if let Some(node) = self.by_path(parent)
            && self.nodes[&node].entries.get(name).is_some()
            && let Some(dir) = self.open(node)
        {
            self.marker.settle(dir.as_fd(), name);
            let fsid = self.nodes[&node].fsid();
            if let Ok(Some(sight)) = self.mounts.sight(dir.as_fd(), None, name, fsid) {
                self.follow_file(dir.as_fd(), node, name, sight.glance, sight.object, out);
            }
        }
    }

    fn child_role(&self, node: NodeId, name: &OsStr) -> Role {
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
    fn shared(&mut self, mut role: Role) -> Role {
        if role.waypoints == self.waypoints {
            role.waypoints = Arc::clone(&self.waypoints);
        } else if !role.waypoints.is_empty() {
            self.waypoints = Arc::clone(&role.waypoints);
        }
        role
    }

    /// Whether a pattern names this entry, or leads through it.
    fn is_named(&self, node: NodeId, name: &OsStr) -> bool {
        self.nodes.get(&node).is_some_and(|parent| {
            parent
                .role
                .waypoints
                .iter()
                .any(|(index, done)| self.patterns[*index].matches(*done, name))
        })
    }

    fn child(&self, node: NodeId, name: &OsStr, object: Option<&ObjectId>) -> Option<NodeId> {
        let child = *self.nodes.get(&node)?.children.get(name)?;
        match object {
            // A link's own identity is not that of the directory it leads to.
            Some(object) if self.nodes[&child].id != *object && !self.nodes[&child].linked => None,
            _ => Some(child),
        }
    }

    /// Opens a directory by its path and makes sure that it is still the same.
    fn open(&mut self, node: NodeId) -> Option<OwnedFd> {
        let node = self.nodes.get(&node)?;
        let reached = self.mounts.walk(None, &node.path, node.linked).ok()?;
        let is_directory = reached.glance.kind == libc::S_IFDIR;
        (is_directory && ObjectId::of(reached.fd.as_fd()).ok()? == node.id).then_some(reached.fd)
    }

    fn object_at(&mut self, node: NodeId, name: &OsStr) -> Option<ObjectId> {
        let dir = self.open(node)?;
        ObjectId::at(dir.as_fd(), name, self.nodes[&node].fsid()).ok()
    }

    fn report(
        &self,
        node: NodeId,
        what: What,
        path: PathBuf,
        object: Option<ObjectId>,
        writer: Option<Arc<Writer>>,
        out: &mut Vec<Notice>,
    ) {
        out.push(Notice::Change(Change {
            what,
            path,
            home: self.home(node),
            object,
            moved: false,
            writer,
            evidence: self.marker.evidence(),
        }));
    }

    /// The home that a watched directory lies in.
    fn home(&self, node: NodeId) -> Home {
        let home = self.nodes.get(&node).and_then(|node| node.home.clone());
        // Every watched directory has one.
        home.unwrap_or_else(|| Path::new("/").into())
    }

    /// Whether directories are still to be looked into ([`Tree::catch_up`]).
    #[must_use]
    pub fn owes(&self) -> bool {
        !self.unscanned.is_empty()
    }

    /// Looks into directories that had to wait, and forgets homes at rest.
    pub fn catch_up(&mut self, now: Instant, out: &mut Vec<Notice>) {
        self.homes.prune(now);
        for node in std::mem::take(&mut self.unscanned) {
            if let Some(dir) = self.open(node) {
                self.scan(&dir, None, node, &Finds::News(Finder::nobody()), out);
            }
        }
    }

    /// Remembers an entry as reported; says whether it was so before.
    fn remember(
        &mut self,
        id: NodeId,
        name: &OsStr,
        object: Option<ObjectId>,
        out: &mut Vec<Notice>,
    ) -> bool {
        let Some(entry) = self.nodes.get_mut(&id) else {
            return false;
        };
        if let Some(known) = entry.entries.get_mut(name) {
            let again = known.reported && known.object == object;
            let other = (known.object != object)
                .then(|| known.object.clone())
                .flatten();
            *known = Known {
                object,
                reported: true,
                owed: false,
            };
            if let Some(other) = other {
                self.left(id, name, &other);
            }
            return again;
        }
        let known = Known {
            object,
            reported: true,
            owed: false,
        };
        if !self.keep(id, name, known) {
            self.at_limit(id, Limit::Files, out);
        }
        false
    }

    /// Remembers an entry that is not known yet, if there is room for it; says
    /// whether there was.
    fn keep(&mut self, node: NodeId, name: &OsStr, known: Known) -> bool {
        let Some(entry) = self.nodes.get_mut(&node) else {
            return false;
        };
        let home = entry.home.as_ref();
        let mut take = |always| home.is_none_or(|home| self.homes.take_file(home, always));
        let room = self.remembered < MAX_ENTRIES && take(false);
        let is_wanted = |home| is_looked_for(home, &entry.path.join(name));
        if room || (home.is_some_and(|home| is_wanted(home)) && take(true)) {
            self.remembered += 1;
            entry.entries.insert(name, known);
            return true;
        }
        false
    }

    /// Says, once a home, that it has reached a limit.
    fn at_limit(&mut self, node: NodeId, limit: Limit, out: &mut Vec<Notice>) {
        let home = self.home(node);
        if !self.homes.is_news(&home, limit) {
            return;
        }
        let limits = self.homes.limits();
        let home = home.to_path_buf();
        out.push(Notice::Problem(match limit {
            Limit::Directories => Problem::HomeDirectories {
                home,
                limit: limits.directories,
            },
            Limit::Files => Problem::HomeFiles {
                home,
                limit: limits.files,
            },
            Limit::Looks => Problem::Unscanned { home },
        }));
    }

    fn forget(&mut self, id: NodeId, name: &OsStr, object: Option<&ObjectId>) -> Option<ObjectId> {
        let node = self.nodes.get_mut(&id)?;
        let known = node.entries.get(name)?;
        // A late record of an object that has been replaced meanwhile.
        if object.is_some() && known.object.is_some() && known.object.as_ref() != object {
            return None;
        }
        self.remembered -= 1;
        if let Some(home) = &node.home {
            self.homes.give(home, 0, 1);
        }
        let object = node.entries.remove(name)?.object?;
        self.left(id, name, &object);
        Some(object)
    }

    /// What is to be told of a directory with this path.
    fn interest(&self, path: &Path, watched: bool) -> Interest {
        if !watched {
            Interest::Names
        } else if (self.opens)(path) {
            Interest::Opens
        } else {
            Interest::Files
        }
    }

    /// Marks a directory anew if its path or its role asks for something else.
    fn follow_interest(&mut self, node: NodeId, dir: BorrowedFd<'_>, out: &mut Vec<Notice>) {
        let Some(entry) = self.nodes.get_mut(&node) else {
            return;
        };
        let former = entry.interest;
        let (path, watched) = (entry.path.to_path_buf(), entry.role.watched);
        let interest = self.interest(&path, watched);
        if former == Interest::Opens && interest == Interest::Files {
            // Without a moment in which the directory has no mark.
            self.marker.no_opens(dir);
            if let Some(entry) = self.nodes.get_mut(&node) {
                entry.interest = interest;
            }
        } else if former != interest {
            self.mark_again(node, dir, out);
        }
    }

    fn mark(
        &mut self,
        dir: BorrowedFd<'_>,
        ground: Option<FileSystem>,
        path: &Path,
        interest: Interest,
        out: &mut Vec<Notice>,
    ) -> Option<Held> {
        let ground = ground.map_or_else(|| FileSystem::of(dir), Ok);
        match ground.and_then(|ground| self.marker.mark(dir, ground, path, interest)) {
            Ok(held) => {
                if let Held::Refused(reason) = &held {
                    out.push(Notice::Problem(Problem::Unheld {
                        path: path.to_owned(),
                        reason: reason.to_string(),
                    }));
                }
                Some(held)
            }
            Err(error) => {
                out.push(Notice::Problem(Problem::Unwatched {
                    path: path.to_owned(),
                    reason: error.to_string(),
                }));
                None
            }
        }
    }
}
