//! What changes without a record: what is mounted where, and where links lead.
//!
//! Owns which places lie on file systems whose server may not answer: those are
//! kept apart, and nothing in them is marked, listed or even looked at here. The
//! caller says when the mounts have changed, and has what is found compared with
//! what was known: a scan cannot tell news from what came with the mount.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::{Finds, NodeId, Role, Tree};
use crate::sys::stat::glance;
use crate::watch::pattern::Pattern;
use crate::watch::{Notice, Problem};

/// Something that is wanted on a file system whose server may not answer.
#[derive(Debug)]
pub(super) struct Apart {
    parent: NodeId,
    role: Role,
    kind: OsString,
    /// The owners of the links that lead there.
    links: Vec<u32>,
    /// It came with a mount.
    mounted: bool,
}

/// The same, for who looks at it with patience.
#[derive(Clone, Debug)]
pub struct Place {
    /// Where it begins.
    pub path: PathBuf,
    /// Which kind of file system it lies on.
    pub kind: OsString,
    /// The owners of the links that lead there, but root: if there is one, the
    /// directory must be theirs.
    pub owner: Option<u32>,
    /// It came with a mount, while the daemon ran.
    pub mounted: bool,
    /// Whether it is watched itself, with all below it.
    pub watched: bool,
    /// Patterns that lead through it, and how many of their components are done.
    pub patterns: Vec<(Pattern, usize)>,
}

/// A directory on a file system that homes lie on. It is opened when it is
/// needed, for what is open cannot be unmounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ground {
    path: PathBuf,
    linked: bool,
    mount: Option<u64>,
}

impl Ground {
    /// Opens it as a place (`O_PATH`), if that is still what is mounted there.
    #[must_use]
    pub fn open(&self) -> Option<OwnedFd> {
        let mut flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        if !self.linked {
            flags |= OFlag::O_NOFOLLOW;
        }
        let dir = open(&self.path, flags, Mode::empty()).ok()?;
        (glance(dir.as_fd(), c"").ok()?.mount == self.mount).then_some(dir)
    }
}

impl Tree {
    /// Grows whenever [`Tree::grounds`] may give something else.
    #[must_use]
    pub fn file_system_changes(&self) -> u64 {
        self.file_system_changes
    }

    /// A directory of every file system that homes lie on, as far up as there is one.
    #[must_use]
    pub fn grounds(&mut self) -> Vec<Ground> {
        let mut first: BTreeMap<[u8; 8], (bool, PathBuf)> = BTreeMap::new();
        for node in self.nodes.values().filter(|node| node.base) {
            let place = (node.linked, node.path.to_path_buf());
            let known = first.entry(node.fsid()).or_insert_with(|| place.clone());
            if (place.0, place.1.as_os_str().len()) < (known.0, known.1.as_os_str().len()) {
                *known = place;
            }
        }
        let mut grounds = Vec::new();
        for (linked, path) in first.into_values() {
            if let Ok(reached) = self.mounts.walk(None, &path, linked) {
                let mount = reached.glance.mount;
                grounds.push(Ground {
                    path,
                    linked,
                    mount,
                });
            }
        }
        grounds
    }

    /// Counts which file systems homes lie on.
    pub(super) fn count_base(&mut self, fsid: [u8; 8], was: bool, is: bool) {
        if was == is {
            return;
        }
        let count = self.file_systems.entry(fsid).or_default();
        if is {
            *count += 1;
        } else {
            *count = count.saturating_sub(1);
        }
        let count = *count;
        if count == 0 {
            self.file_systems.remove(&fsid);
        }
        if count == 0 || (is && count == 1) {
            self.file_system_changes += 1;
        }
    }

    /// What says by `POLLPRI` that the mounts have changed.
    #[must_use]
    pub fn mounts_fd(&self) -> Option<BorrowedFd<'_>> {
        self.mounts.as_fd()
    }

    /// It has said so.
    pub fn mounts_noticed(&mut self) {
        self.mounts.noticed();
    }

    /// Whether the mounts have changed since [`Tree::remounted`] was last called.
    #[must_use]
    pub fn has_remounted(&self) -> bool {
        self.mounts.has_news()
    }

    /// Watches what lies at the watched paths now; returns where that is
    /// something else than before.
    pub fn remounted(&mut self, out: &mut Vec<Notice>) -> Vec<PathBuf> {
        self.mounts.take_news();
        self.remounting = true;
        let points = self.mounts.points();
        let mut places = std::mem::replace(&mut self.points, points.clone());
        places.extend(points);
        // From the root down: what lies deeper is visited with what is above it.
        places.sort();
        places.dedup();
        places.retain(|place| self.look_again(place, out));
        places.extend(self.follow_links(out));
        self.remounting = false;
        places
    }

    /// Looks whether something else is at a place now.
    fn look_again(&mut self, place: &Path, out: &mut Vec<Notice>) -> bool {
        self.beat.tick();
        if let Some(node) = self.by_path(place) {
            let is_same = place == Path::new("/") || self.open(node).is_some();
            if !is_same {
                self.enter_again(node, &Finds::Stock, out);
            }
            return !is_same;
        }
        let (Some(above), Some(name)) = (place.parent(), place.file_name()) else {
            return false;
        };
        let Some(parent) = self.by_path(above) else {
            return false;
        };
        let role = self.child_role(parent, name);
        let Some(dir) = self.open(parent).filter(|_| !role.is_none()) else {
            return false;
        };
        let was_apart = self.apart.remove(place).is_some();
        self.enter_from(&dir, None, parent, name, role, &Finds::Stock, out);
        let is_apart = self.apart.contains_key(place);
        self.apart_changes += u64::from(was_apart && !is_apart);
        self.by_path(place).is_some()
    }

    /// Looks where links at named places lead now; returns which lead elsewhere.
    pub fn follow_links(&mut self, out: &mut Vec<Notice>) -> Vec<PathBuf> {
        let linked = self.nodes.iter().filter(|(_, node)| node.linked);
        let linked: Vec<NodeId> = linked.map(|(id, _)| *id).collect();
        let mut changed = Vec::new();
        for node in linked {
            self.beat.tick();
            if self.nodes.contains_key(&node) && self.open(node).is_none() {
                changed.push(self.nodes[&node].path.to_path_buf());
                self.enter_again(node, &Finds::Stock, out);
            }
        }
        for (node, names) in std::mem::take(&mut self.astray) {
            let Some(dir) = self.open(node) else { continue };
            for name in names {
                self.beat.tick();
                let path = self.nodes[&node].path.join(&name);
                let role = self.child_role(node, &name);
                if !role.is_none() {
                    self.enter_from(&dir, None, node, &name, role, &Finds::Stock, out);
                }
                if self.by_path(&path).is_some() {
                    changed.push(path);
                }
            }
        }
        changed
    }

    /// Lets go of a directory, and comes to what is at its path now.
    pub(super) fn enter_again(&mut self, node: NodeId, finds: &Finds, out: &mut Vec<Notice>) {
        let Some(entry) = self.nodes.get(&node) else {
            return;
        };
        let (parent, name) = (entry.parent, entry.path.file_name().map(OsStr::to_owned));
        self.detach(node);
        let (Some(parent), Some(name)) = (parent, name) else {
            return;
        };
        let role = self.child_role(parent, &name);
        if let Some(dir) = self.open(parent).filter(|_| !role.is_none()) {
            self.enter_from(&dir, None, parent, &name, role, finds, out);
        }
    }

    /// What is wanted on file systems whose servers may not answer.
    #[must_use]
    pub fn apart(&self) -> Vec<Place> {
        let place = |(path, apart): (&PathBuf, &Apart)| {
            let patterns = apart.role.waypoints.iter();
            Place {
                path: path.clone(),
                kind: apart.kind.clone(),
                owner: apart.links.iter().copied().find(|owner| *owner != 0),
                mounted: apart.mounted,
                watched: apart.role.watched,
                patterns: patterns
                    .map(|(index, done)| (self.patterns[*index].clone(), *done))
                    .collect(),
            }
        };
        self.apart.iter().map(place).collect()
    }

    /// Grows whenever [`Tree::apart`] gives something else.
    #[must_use]
    pub fn apart_changes(&self) -> u64 {
        self.apart_changes
    }

    pub(super) fn keep_apart(
        &mut self,
        parent: NodeId,
        name: &OsStr,
        role: Role,
        (kind, links): (OsString, Vec<u32>),
        out: &mut Vec<Notice>,
    ) {
        let path = self.nodes[&parent].path.join(name);
        if self.apart.len() >= self.limit && !self.apart.contains_key(&path) {
            if !std::mem::replace(&mut self.limit_said, true) {
                let limit = self.limit;
                out.push(Notice::Problem(Problem::TooMany { path, limit }));
            }
            return;
        }
        let apart = Apart {
            parent,
            role,
            kind,
            links,
            mounted: self.remounting,
        };
        let is_known = self.apart.get(&path).is_some_and(|known| {
            known.role == apart.role && known.kind == apart.kind && known.links == apart.links
        });
        self.apart_changes += u64::from(!is_known);
        self.apart.insert(path, apart);
    }

    /// What was at this name is there no more.
    pub(super) fn no_longer_apart(&mut self, node: NodeId, name: &OsStr) {
        if let Some(names) = self.astray.get_mut(&node) {
            names.remove(name);
        }
        if !self.apart.is_empty()
            && let Some(node) = self.nodes.get(&node)
            && self.apart.remove(&node.path.join(name)).is_some()
        {
            self.apart_changes += 1;
        }
    }

    /// The same for all that is in a directory.
    pub(super) fn leave_apart(&mut self, node: NodeId) {
        self.astray.remove(&node);
        let before = self.apart.len();
        self.apart.retain(|_, apart| apart.parent != node);
        self.apart_changes += u64::from(self.apart.len() != before);
    }

    /// Whether a path lies in a place that is kept apart.
    #[must_use]
    pub fn is_apart(&self, path: &Path) -> bool {
        is_below(&self.apart, path)
    }
}

fn is_below(places: &BTreeMap<PathBuf, Apart>, path: &Path) -> bool {
    !places.is_empty() && path.ancestors().any(|above| places.contains_key(above))
}
