//! Coming to a directory, looking into it, and letting it go.
//!
//! Owns the order "mark first, scan then", and how a directory is opened so
//! that nobody can lead us astray.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fstat};
use rustix::fs::{FileType, RawDir};

use super::entries::Entries;
use super::leaving::{AT_ONCE, Kind};
use super::listing::digest;
use super::{Finds, Known, MAX_DEPTH, Node, NodeId, Role, Tree};
use crate::sys::ObjectId;
use crate::sys::handle::FileSystem;
use crate::sys::stat::{Glance, glance};
use crate::watch::home::{Home, LOOKED_FOR, Limit};
use crate::watch::mounts::{Sight, Unreached};
use crate::watch::{Change, Evidence, Notice, Problem, What};

impl Tree {
    #[expect(clippy::too_many_arguments, reason = "one call site shape, all needed")]
    pub(super) fn visit(
        &mut self,
        dir: &OwnedFd,
        come: Option<Come>,
        (parent, name): (Option<NodeId>, &OsStr),
        role: Role,
        linked: bool,
        finds: &Finds,
        out: &mut Vec<Notice>,
    ) {
        let (path, depth) = match parent.and_then(|parent| self.nodes.get(&parent)) {
            Some(node) => (node.path.join(name), node.depth_below()),
            None => (PathBuf::from("/"), 0),
        };
        let (footing, id) = match Come::complete(come, dir, parent.is_none()) {
            Ok(found) => found,
            Err(error) => {
                out.push(Notice::Problem(Problem::Unwatched {
                    path,
                    reason: error.to_string(),
                }));
                return;
            }
        };
        if let Some(known) = self.by_object(&id) {
            match self.meet(known, (parent, name), &path, (&role, linked), out) {
                Met::AsKnown => return,
                Met::ByItself => return self.scan(dir, Some(footing), known, finds, out),
                Met::Moved => self.detach(known),
            }
        }
        if depth > MAX_DEPTH {
            out.push(Notice::Problem(Problem::TooDeep {
                path,
                limit: MAX_DEPTH,
            }));
            return;
        }
        if self.nodes.len() >= self.limit {
            if !self.limit_said {
                self.limit_said = true;
                out.push(Notice::Problem(Problem::TooMany {
                    path,
                    limit: self.limit,
                }));
            }
            return;
        }
        let home = self.home_of(parent, &role, &path);
        if let (Some(home), Some(parent)) = (&home, parent)
            && !self.homes.take_directory(home)
        {
            self.at_limit(parent, Limit::Directories, out);
            return;
        }
        let interest = self.interest(&path, role.watched);
        let ground = Some(footing.ground);
        let Some(held) = self.mark(dir.as_fd(), ground, &path, interest, out) else {
            if let Some(home) = &home {
                self.homes.give(home, 1, 0);
            }
            return;
        };
        // A stale namesake: its own record of deletion is still to come.
        let stale = match parent {
            Some(parent) => self.child(parent, name, None),
            None => self.root,
        };
        if let Some(stale) = stale {
            self.detach(stale);
        }
        let role = self.shared(role);
        let base = self.is_base(&role);
        self.count_base(id.file_system(), false, base);
        let node = NodeId(NonZeroU64::MIN.saturating_add(self.made));
        self.made += 1;
        self.by_object.insert(&self.nodes, &id, node);
        if parent.is_none() {
            self.root = Some(node);
        }
        if let Some(parent) = parent.and_then(|parent| self.nodes.get_mut(&parent)) {
            parent.children.insert(name, node);
        }
        self.nodes.insert(
            node,
            Box::new(Node {
                id,
                parent,
                path: path.into_boxed_path(),
                home,
                role,
                interest,
                depth: u8::try_from(depth).unwrap_or(u8::MAX),
                linked,
                base,
                held,
                children: Entries::default(),
                entries: Entries::default(),
                followed: Vec::new(),
                muted: false,
            }),
        );
        self.scan(dir, Some(footing), node, finds, out);
    }

    /// A directory that is known is come to again, by a second record, through another link,
    /// or by itself.
    fn meet(
        &mut self,
        known: NodeId,
        at: (Option<NodeId>, &OsStr),
        path: &Path,
        (role, linked): (&Role, bool),
        out: &mut Vec<Notice>,
    ) -> Met {
        if *self.nodes[&known].path == *path {
            if !linked {
                self.no_longer_linked(known, out);
            }
            return Met::AsKnown;
        }
        if self.open(known).is_none() {
            return Met::Moved;
        }
        if linked || !self.nodes[&known].linked {
            return Met::AsKnown;
        }
        if self.leave_link(known, at, role, out) {
            Met::ByItself
        } else {
            Met::Moved
        }
    }

    /// A directory that was known through a link is reached by a path of its own, which stays
    /// when the link goes: it is known by that from now on. Says whether it could be kept.
    fn leave_link(
        &mut self,
        node: NodeId,
        (parent, name): (Option<NodeId>, &OsStr),
        role: &Role,
        out: &mut Vec<Notice>,
    ) -> bool {
        let (Some(entry), Some(parent)) = (self.nodes.get(&node), parent) else {
            return false;
        };
        let is_alike = entry.role == *role;
        if self.stock.is_some() {
            self.unstocked.insert(entry.path.to_path_buf());
        }
        if let (Some(above), Some(link)) = (entry.parent, entry.path.file_name()) {
            let links = self.astray.entry(above).or_default();
            links.insert(link.to_owned());
        }
        if is_alike {
            self.relabel(node, parent, name, out);
            if let Some(entry) = self.nodes.get_mut(&node) {
                entry.linked = false;
            }
        }
        is_alike
    }

    /// The home that a directory is, or lies in.
    pub(super) fn home_of(&self, parent: Option<NodeId>, role: &Role, path: &Path) -> Option<Home> {
        let above = parent.and_then(|parent| self.nodes.get(&parent)?.home.clone());
        let is_home = role.waypoints.iter().any(|(index, done)| {
            let pattern = &self.patterns[*index];
            done + 1 == pattern.depth() && pattern.name(*done).is_some_and(|name| name == ".ssh")
        });
        above.or_else(|| (is_home || role.watched).then(|| path.into()))
    }

    /// Looks at what is in a marked directory.
    pub(super) fn scan(
        &mut self,
        dir: &OwnedFd,
        footing: Option<Footing>,
        node: NodeId,
        finds: &Finds,
        out: &mut Vec<Notice>,
    ) {
        let Some(entry) = self.nodes.get(&node) else {
            return;
        };
        let listed = entry.role.watched
            || entry
                .role
                .waypoints
                .iter()
                .any(|(index, done)| self.patterns[*index].name(*done).is_none());
        let (mut found, mut is_listed) = (Listed::default(), false);
        let home = entry.home.clone().filter(|_| entry.role.watched);
        if let (Some(home), Finds::News(finder)) = (&home, finds) {
            if self.must_wait(home) {
                self.put_off(node, finder);
                return;
            }
            if !self.homes.may_look(home, Instant::now()) {
                self.unscanned.insert(node);
                self.at_limit(node, Limit::Looks, out);
                return;
            }
        }
        if listed {
            let most = home.as_ref().map(|_| self.homes.limits().files);
            match list(dir.as_fd(), most) {
                Ok(names) => (found, is_listed) = (names, true),
                Err(error) => out.push(Notice::Problem(Problem::Unlisted {
                    path: entry.path.to_path_buf(),
                    reason: error.to_string(),
                })),
            }
        } else {
            // Every name that could matter is known: a home is not listed for one.
            for (index, done) in entry.role.waypoints.iter() {
                if let Some(name) = self.patterns[*index].name(*done)
                    && !found.names.iter().any(|(listed, _)| listed == name)
                {
                    found.names.push((name.to_owned(), None));
                }
            }
        }
        let Listed { mut names, cut } = found;
        if let (Some(home), Finds::News(_)) = (&home, finds) {
            let cost = self.homes.looked(home, names.len());
            self.soon.looked(home, cost);
        }
        if cut {
            // Whatever was not listed: what is looked for must not be missing.
            names.extend(LOOKED_FOR.map(|name| (OsString::from(name), None)));
            self.at_limit(node, Limit::Files, out);
        }
        if is_listed && matches!(finds, Finds::News(_)) {
            self.erase_missing(dir, node, &names);
        }
        self.look_through(dir, footing, node, names, finds, out);
    }

    /// Forgets the files that are not there any more: nobody may have listened when they
    /// went. One that a record tells of after all is told, and else a comparison finds it.
    fn erase_missing(&mut self, dir: &OwnedFd, node: NodeId, names: &[Name]) {
        let Some(entry) = self.nodes.get(&node).filter(|it| it.entries.len() > 0) else {
            return;
        };
        let listed: HashSet<&OsStr> = names.iter().map(|(name, _)| &**name).collect();
        let missing = entry.entries.names().filter(|name| !listed.contains(name));
        let missing: Vec<OsString> = missing.map(OsStr::to_owned).collect();
        let (fsid, home) = (entry.fsid(), entry.home.clone());
        if let Some(home) = home.filter(|_| !missing.is_empty()) {
            let cost = self.homes.looked(&home, missing.len());
            self.soon.looked(&home, cost);
        }
        for name in missing {
            self.beat.tick();
            // It may be known by another spelling, be back, or be one too many to be listed.
            let there = ObjectId::at(dir.as_fd(), &name, fsid);
            if there.is_err_and(|error| error.raw_os_error() == Some(libc::ENOENT)) {
                self.erase(node, &name);
            }
        }
    }

    /// Looks at these names in a marked directory.
    pub(super) fn look_through(
        &mut self,
        dir: &OwnedFd,
        footing: Option<Footing>,
        node: NodeId,
        names: Vec<Name>,
        finds: &Finds,
        out: &mut Vec<Notice>,
    ) {
        let Some(entry) = self.nodes.get(&node) else {
            return;
        };
        let watched = entry.role.watched;
        let footing = footing.or_else(|| Footing::of(dir, false).ok());
        let is_plain = watched
            && footing.is_some_and(|footing| footing.is_direct)
            && self.mounts.is_plain(&entry.path);
        let mount = footing.and_then(|footing| footing.mount);
        let place = Spot { mount, is_plain };
        let home = entry.home.clone().filter(|_| watched);
        let mut names = names.into_iter();
        let mut number = 0;
        while let Some((name, kind)) = names.next() {
            self.beat.tick();
            let name = self.proper(node, &name, None);
            let directory = kind.is_none_or(|kind| kind == FileType::Directory);
            if directory || kind == Some(FileType::Symlink) {
                let role = self.child_role(node, &name);
                if !role.is_none() {
                    self.enter_from(dir, footing, node, &name, role, finds, out);
                }
            }
            if watched && kind != Some(FileType::Directory) {
                self.find(dir.as_fd(), place, node, &name, finds, out);
            }
            number += 1;
            if let (Some(home), Finds::News(finder)) = (&home, finds) {
                self.interrupt(home, (node, number), finder, &mut names);
            }
        }
    }

    /// Takes note of a file that a scan found in a directory.
    pub(super) fn find(
        &mut self,
        dir: BorrowedFd<'_>,
        place: Spot,
        node: NodeId,
        name: &OsStr,
        finds: &Finds,
        out: &mut Vec<Notice>,
    ) {
        if matches!(finds, Finds::Stock) && self.find_later(dir, place, node, name, out) {
            return;
        }
        let Some(entry) = self.nodes.get(&node) else {
            return;
        };
        let Ok(sight) = self.mounts.sight(dir, place.mount, name, entry.fsid()) else {
            return;
        };
        // What a user has mounted over a file is not asked anything.
        let Some(Sight { glance, object }) = sight.filter(|it| it.glance.kind != libc::S_IFDIR)
        else {
            return;
        };
        match finds {
            Finds::Stock => {
                let is_known = entry.entries.get(name).is_some();
                let known = Known {
                    object: object.clone(),
                    reported: false,
                    owed: false,
                    reading: 0,
                };
                if is_known || self.keep(node, name, known) {
                    self.marker.settle(dir, name);
                    self.take_stock_of(node, name, glance);
                } else {
                    self.at_limit(node, Limit::Files, out);
                }
                self.follow_file(dir, node, name, glance, object, out);
            }
            Finds::News(finder) => {
                let known = self
                    .nodes
                    .get_mut(&node)
                    .and_then(|node| node.entries.get_mut(name));
                if known.as_ref().is_some_and(|known| known.object == object) {
                    return;
                }
                // Whether it is another one by now a comparison has to tell.
                if let Some(known) = known.filter(|known| known.owed) {
                    *known = Known {
                        object,
                        reported: false,
                        owed: false,
                        reading: 0,
                    };
                    self.marker.settle(dir, name);
                    return;
                }
                self.soon.found();
                self.remember(node, name, object.clone(), out);
                let path = self.nodes[&node].path.join(name);
                out.push(Notice::Change(Change {
                    what: What::Created { again: false },
                    path,
                    home: self.home(node),
                    object,
                    moved: finder.moved,
                    writer: finder.writer.clone(),
                    evidence: Evidence::Scan,
                }));
            }
        }
    }

    pub(super) fn take_stock_of(&mut self, node: NodeId, name: &OsStr, glance: Glance) {
        if let (Some(stock), Some(key)) = (&mut self.stock, &self.stock_key)
            && let Some(node) = self.nodes.get(&node)
        {
            let version = glance.version.as_ref();
            let version = version.map_or(0, |version| digest(key, version));
            stock.push(&node.path, name, version);
        }
    }

    /// Lets go of a directory and all below it.
    pub(super) fn detach(&mut self, node: NodeId) {
        let dir = self.open(node).or_else(|| self.reach(node));
        self.let_go(node, dir);
    }

    /// Lets go of a directory that is at `place` now, and all below it.
    pub(super) fn detach_at(&mut self, node: NodeId, place: Option<(NodeId, &OsStr)>) {
        let there = place.and_then(|(parent, name)| {
            let parent = self.open(parent)?;
            let there = self.look_into(parent.as_fd(), name)?;
            let id = ObjectId::of(there.as_fd()).ok()?;
            (id == self.nodes.get(&node)?.id).then_some(there)
        });
        match there {
            Some(dir) => self.let_go(node, Some(dir)),
            None => self.detach(node),
        }
    }

    /// Lets go of a directory that could be opened, or could not, and all below it.
    pub(super) fn let_go(&mut self, node: NodeId, dir: Option<OwnedFd>) {
        let Some(entry) = self.nodes.get(&node) else {
            return;
        };
        self.moves += 1;
        self.briefs.remove_below(&entry.path);
        if let Some(parent) = entry.parent
            && let Some(name) = entry.path.file_name().map(OsStr::to_owned)
            && let Some(parent) = self.nodes.get_mut(&parent)
            && parent.children.get(&name) == Some(&node)
        {
            parent.children.remove(&name);
        }
        let mut left = vec![(node, dir)];
        let mut number = 0;
        while let Some((node, dir)) = left.pop() {
            let Some(entry) = self.nodes.remove(&node) else {
                continue;
            };
            self.remembered -= entry.entries.len();
            self.count_base(entry.fsid(), entry.base, false);
            self.unscanned.remove(&node);
            self.unsettled.remove(&node);
            self.soon.remove(node);
            if let Some(home) = &entry.home {
                self.homes.give(home, 1, entry.entries.len());
            }
            for object in &entry.followed {
                self.unfollow(None, object);
                self.leaves(object, Kind::Followed);
            }
            for (_, known) in entry.entries.iter() {
                if let Some(object) = &known.object {
                    self.leaves(object, Kind::File);
                }
            }
            self.by_object.remove(&entry.id, node);
            if self.root == Some(node) {
                self.root = None;
            }
            self.marker
                .unmark(dir.as_ref().map(AsFd::as_fd), &entry.path);
            self.leave_apart(node);
            for (name, child) in entry.children.iter() {
                let Some(id) = self.nodes.get(child).map(|child| child.id.clone()) else {
                    continue;
                };
                number += 1;
                let near = dir.as_ref().filter(|_| number <= AT_ONCE);
                let child_dir = near.and_then(|dir| {
                    let by_handle = id.open(dir.as_fd()).ok();
                    by_handle.or_else(|| self.look_into(dir.as_fd(), name))
                });
                if child_dir.is_none() {
                    self.leaves(&id, Kind::Directory);
                }
                left.push((*child, child_dir));
            }
        }
    }
}

/// What stands at a name.
pub(super) enum Look {
    /// A directory, as a place (`O_PATH`).
    Directory(OwnedFd, Glance),
    /// A symbolic link.
    Link,
    /// Something on a file system whose server may not answer: its kind, and the
    /// owners of the links that lead there.
    Stalls(OsString, Vec<u32>),
    /// Something else.
    Other,
}

impl Tree {
    /// Looks at what stands at `name`, without a question to a file system that
    /// may not answer it.
    pub(super) fn look(&mut self, dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<Look> {
        match self.mounts.step(dir, name) {
            Ok((fd, glance)) => Ok(match glance.kind {
                libc::S_IFDIR => Look::Directory(fd, glance),
                libc::S_IFLNK => Look::Link,
                _ => Look::Other,
            }),
            Err(Unreached::Stalls { kind, links }) => Ok(Look::Stalls(kind, links)),
            Err(Unreached::Failed(error)) => Err(error),
        }
    }

    /// Goes to a directory on the same file system in the fewest steps; `None`: it has
    /// to be looked at. An error: there is no such name.
    pub(super) fn step_down(
        &mut self,
        dir: &OwnedFd,
        footing: Option<Footing>,
        name: &OsStr,
    ) -> io::Result<Option<(OwnedFd, Come)>> {
        let Some(footing) = footing.filter(|it| !it.ground.has_subvolumes()) else {
            return Ok(None);
        };
        let Some(mount) = footing.mount else {
            return Ok(None);
        };
        let on = (mount, footing.ground.id);
        let found = self.mounts.step_down(dir.as_fd(), name, on)?;
        Ok(found.map(|(child, id)| {
            let id = Some(id);
            (child, Come { footing, id })
        }))
    }

    fn look_into(&mut self, dir: BorrowedFd<'_>, name: &OsStr) -> Option<OwnedFd> {
        match self.look(dir, name) {
            Ok(Look::Directory(dir, _)) => Some(dir),
            _ => None,
        }
    }

    /// Follows a link at a place that a pattern names, if that cannot be used to
    /// lead us astray: root made every link on the way, or they lead to a
    /// directory that belongs to their owner.
    pub(super) fn follow(&mut self, dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<Look> {
        let reached = match self.mounts.walk(Some(dir), Path::new(name), true) {
            Ok(reached) => reached,
            Err(Unreached::Stalls { kind, links }) => {
                // Whom that directory belongs to is known to its server alone.
                let mut owners = links.iter().filter(|owner| **owner != 0);
                let first = owners.next();
                let one = owners.all(|owner| Some(owner) == first);
                return Ok(if one {
                    Look::Stalls(kind, links)
                } else {
                    Look::Other
                });
            }
            Err(Unreached::Failed(error)) => return Err(error),
        };
        if reached.glance.kind != libc::S_IFDIR {
            return Ok(Look::Other);
        }
        let owner = fstat(&reached.fd)?.st_uid;
        let ours = reached
            .links
            .iter()
            .all(|link| *link == 0 || *link == owner);
        Ok(if ours {
            Look::Directory(reached.fd, reached.glance)
        } else {
            Look::Other
        })
    }
}

/// As what a directory is come to again.
enum Met {
    /// Where it is known; this is but another way to it.
    AsKnown,
    /// It was known through a link, and is known by this path of its own now.
    ByItself,
    /// It is not where it was known, or another role is its own now: it is new here.
    Moved,
}

/// Where a directory lies.
#[derive(Clone, Copy)]
pub(super) struct Footing {
    mount: Option<u64>,
    device: (u32, u32),
    ground: FileSystem,
    /// Its path leads there without a symbolic link.
    is_direct: bool,
}

impl Footing {
    fn of(dir: &OwnedFd, is_direct: bool) -> io::Result<Self> {
        let seen = glance(dir.as_fd(), c"")?;
        Ok(Self {
            mount: seen.mount,
            device: seen.device,
            ground: FileSystem::of(dir)?,
            is_direct,
        })
    }

    /// That of `dir`, which lies in a directory that is open. If it is on the same mount
    /// and of the same device, nothing is asked: as long as the one above is open, that
    /// stays the same file system (on btrfs each subvolume has a device of its own).
    pub(super) fn below(above: Option<Self>, dir: &OwnedFd, seen: Glance) -> Option<Self> {
        let above = above?;
        if above.mount.is_some() && above.mount == seen.mount && above.device == seen.device {
            return Some(above);
        }
        Self::of(dir, above.is_direct).ok()
    }
}

/// A directory that was come to.
pub(super) struct Come {
    footing: Footing,
    /// What it is, if that is known already.
    id: Option<ObjectId>,
}

impl Come {
    pub(super) fn to(footing: Footing) -> Self {
        Self { footing, id: None }
    }

    /// Where `dir` is, and what; what is not known yet is asked for.
    fn complete(
        come: Option<Self>,
        dir: &OwnedFd,
        is_root: bool,
    ) -> io::Result<(Footing, ObjectId)> {
        let come = come.map_or_else(|| Footing::of(dir, is_root).map(Self::to), Ok)?;
        let footing = come.footing;
        let id = come
            .id
            .map_or_else(|| ObjectId::on(dir.as_fd(), footing.ground.id), Ok)?;
        Ok((footing, id))
    }
}

/// Where a scan finds files.
#[derive(Clone, Copy)]
pub(super) struct Spot {
    /// The directory's mount.
    pub(super) mount: Option<u64>,
    /// Nothing is mounted on a name in it.
    pub(super) is_plain: bool,
}

/// The root, as a place.
pub(super) fn open_root() -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(nix::fcntl::open("/", flags, Mode::empty())?)
}

/// How many bytes of a directory are read at once.
const LISTING: usize = 16 * 1024;

/// A name in a directory, and of what kind that is if it is known.
pub(super) type Name = (OsString, Option<FileType>);

/// What is in a directory.
#[derive(Default)]
struct Listed {
    names: Vec<Name>,
    /// There are more.
    cut: bool,
}

/// The names in a directory, without `.` and `..`, as far as they are not more
/// than `most`.
fn list(dir: BorrowedFd<'_>, most: Option<usize>) -> io::Result<Listed> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let dir = openat(dir, ".", flags, Mode::empty())?;
    let mut buffer = Vec::with_capacity(LISTING);
    let mut entries = RawDir::new(&dir, buffer.spare_capacity_mut());
    let mut listed = Listed::default();
    while let Some(entry) = entries.next() {
        let entry = match entry {
            Ok(entry) => entry,
            // It has been removed since it was opened (fs/readdir.c), and is empty.
            Err(rustix::io::Errno::NOENT) => break,
            Err(error) => return Err(error.into()),
        };
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        if most.is_some_and(|most| listed.names.len() >= most) {
            listed.cut = true;
            break;
        }
        let kind = Some(entry.file_type()).filter(|kind| *kind != FileType::Unknown);
        listed.names.push((name.to_owned(), kind));
    }
    Ok(listed)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::watch::tree::settling::tests::{Settled, tree_of};

    #[test]
    fn a_directory_that_was_removed_once_it_was_open_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dir");
        fs::create_dir(&path).unwrap();
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        let open = nix::fcntl::open(&path, flags, Mode::empty()).unwrap();
        fs::write(path.join("file"), "").unwrap();
        assert_eq!(list(open.as_fd(), None).unwrap().names.len(), 1);
        fs::remove_dir_all(&path).unwrap();
        assert!(list(open.as_fd(), None).unwrap().names.is_empty());
    }

    #[test]
    fn a_directory_that_was_found_through_a_link_first_is_known_by_its_own_path() {
        let dir = tempfile::tempdir().unwrap();
        let homes = dir.path().canonicalize().unwrap();
        let [link, real] = ["link/.ssh", "real/.ssh"].map(|name| homes.join(name));
        fs::create_dir_all(real.join("d")).unwrap();
        fs::write(real.join("file"), "").unwrap();
        fs::create_dir(homes.join("link")).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        for link_is_first in [true, false] {
            let mut wanted = [&*link, &*real];
            if !link_is_first {
                wanted.reverse();
            }
            let mut tree = tree_of(&wanted, 100, Settled::default());
            tree.stock_key = Some(std::hash::RandomState::new());
            let mut notices = Vec::new();
            tree.start(&mut notices).unwrap();
            let (stock, _) = tree.take_stock().unwrap();
            let stock: Vec<_> = stock.iter().map(|it| it.0.join(it.1)).collect();
            assert_eq!(stock, [real.join("file")]);
            let node = tree.by_path(&real).unwrap();
            assert!(!tree.nodes[&node].linked && tree.by_path(&real.join("d")).is_some());
            assert_eq!(tree.by_path(&link), None);
            // Should it go, the link is a way to it again.
            tree.follow_links(&mut notices);
            assert_eq!(tree.by_path(&real), Some(node));
            assert!(notices.is_empty(), "{notices:?}");
        }
    }
}
