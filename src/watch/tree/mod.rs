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
mod doubts;
mod entries;
mod leaving;
mod links;
mod listing;
mod marks;
mod mounted;
mod muted;
mod news;
mod proper;
mod relabel;
mod remembered;
mod roles;
mod settling;
mod soon;
mod visit;

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use self::brief::Briefs;
use self::by_object::ByObject;
use self::doubts::Doubts;
use self::entries::Entries;
use self::leaving::Leaving;
use self::links::Followed;
pub use self::listing::{Listing, digest};
pub use self::marks::{Held, Interest, Marker};
use self::mounted::Apart;
pub use self::mounted::{Ground, Place};
use self::muted::Heard;
use self::roles::Role;
use self::settling::Settling;
use self::soon::Soon;
use self::visit::open_root;
use super::beat::Beat;
use super::home::{Home, Homes, Limits};
use super::mounts::Mounts;
use super::pattern::Pattern;
use super::{Change, Notice, What, Writer};
use crate::sys::ObjectId;
use crate::sys::handle::FileSystem;

/// How deep below a watched root directories are followed.
const MAX_DEPTH: usize = 64;
/// How many entries are remembered in all; beyond it files are still reported,
/// but a scan could report one again.
const MAX_ENTRIES: usize = 1 << 18;

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

    /// How many levels below the watched root a directory in it is.
    fn depth_below(&self) -> usize {
        usize::from(self.role.watched) * (usize::from(self.depth) + 1)
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
    /// In which reading of the queue a record told of it; 0: in none.
    reading: u32,
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
    /// Directories that were muted as all marks were set again.
    unsettled: BTreeSet<NodeId>,
    soon: Soon,
    heard: Heard,
    beat: Arc<Beat>,
    /// What the start has found, with the versions of files by this key.
    stock: Option<Listing>,
    stock_key: Option<RandomState>,
    /// Links through which directories were found first that are known by their own paths.
    unstocked: BTreeSet<PathBuf>,
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
    doubts: Doubts,
    leaving: Leaving,
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
            unsettled: BTreeSet::new(),
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
            unstocked: BTreeSet::new(),
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
            doubts: Doubts::default(),
            leaving: Leaving::default(),
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
        let mut stock = self.stock.take();
        let links = std::mem::take(&mut self.unstocked);
        if let Some(all) = stock.take_if(|_| !links.is_empty()) {
            let mut left = Listing::default();
            for (directory, name, digest) in all.iter().filter(|it| !links.contains(it.0)) {
                left.push(directory, name, digest);
            }
            stock = Some(left);
        }
        stock.zip(self.stock_key.take())
    }

    /// Ticks with each name that a scan looks at: a large tree takes its time.
    #[must_use]
    pub fn beat(&self) -> Arc<Beat> {
        Arc::clone(&self.beat)
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

    /// Whether a file is known to be there.
    #[must_use]
    pub fn is_known(&self, path: &Path) -> bool {
        self.known_at(path).is_some()
    }

    /// The directory and the name of a file that is known to be there.
    fn known_at<'p>(&self, path: &'p Path) -> Option<(NodeId, &'p OsStr)> {
        let (node, name) = (self.by_path(path.parent()?)?, path.file_name()?);
        let known = self.nodes.get(&node)?.entries.get(name);
        known.map(|_| (node, name))
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
        at(&mut self.mounts, &node.path, node.linked, &node.id)
    }

    /// Whether a directory is what is at this place; a link there is followed, if that is
    /// wanted.
    fn is_at(&mut self, node: NodeId, (parent, name): (NodeId, &OsStr), follow: bool) -> bool {
        let (Some(node), Some(parent)) = (self.nodes.get(&node), self.nodes.get(&parent)) else {
            return false;
        };
        let path = parent.path.join(name);
        at(&mut self.mounts, &path, follow, &node.id).is_some()
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
            } else if self.nodes.contains_key(&node) {
                // It is not there at this moment alone, or a record will tell where it is.
                self.unscanned.insert(node);
            }
        }
    }
}

/// Opens the directory at this path, if it is this one.
fn at(mounts: &mut Mounts, path: &Path, follow: bool, id: &ObjectId) -> Option<OwnedFd> {
    let reached = mounts.walk(None, path, follow).ok()?;
    let is_directory = reached.glance.kind == libc::S_IFDIR;
    (is_directory && ObjectId::of(reached.fd.as_fd()).ok()? == *id).then_some(reached.fd)
}
