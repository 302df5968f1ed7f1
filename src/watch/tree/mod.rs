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
mod news;
mod proper;
mod remembered;
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
use self::visit::open_root;
use super::beat::Beat;
use super::home::{Home, Homes, Limits};
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
