//! The marks of directories and of files that have settled.
//!
//! Owns what a directory's mark asks for, and who sets it. Must not own which
//! directories there are.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::{NodeId, Tree};
use crate::sys::handle::FileSystem;
use crate::sys::stat::{Version, look};
use crate::watch::{Evidence, Notice, Problem};

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

    /// No longer; `file` is a place.
    fn unfollow(&mut self, file: BorrowedFd<'_>);

    /// The file, a place, is at no watched one any more.
    fn unsettle(&mut self, _file: BorrowedFd<'_>) {}

    /// How the changes it leads to are known.
    fn evidence(&self) -> Evidence;
}

impl Tree {
    /// Sets every mark again, for a group that has lost them. Files that are
    /// known come first: no open of them shall be held meanwhile.
    pub fn mark_all_again(&mut self, out: &mut Vec<Notice>) {
        let nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        for node in nodes {
            if self.nodes[&node].muted {
                self.unsettled.insert(node);
                continue;
            }
            let Some(dir) = self.open(node) else { continue };
            self.settle_known(node, dir.as_fd());
            self.mark_again(node, dir.as_fd(), out);
        }
    }

    /// Settles the files of a directory that are known, before opens in it are held.
    pub(super) fn settle_known(&mut self, node: NodeId, dir: BorrowedFd<'_>) {
        let entry = self.nodes.get(&node).filter(|entry| entry.role.watched);
        for name in entry.iter().flat_map(|entry| entry.entries.names()) {
            self.beat.tick();
            self.marker.settle(dir, name);
        }
    }

    pub(super) fn mark_again(&mut self, node: NodeId, dir: BorrowedFd<'_>, out: &mut Vec<Notice>) {
        let path = self.nodes[&node].path.to_path_buf();
        let interest = self.interest(&path, self.nodes[&node].role.watched);
        if let Some(held) = self.mark(dir, None, &path, interest, out)
            && let Some(node) = self.nodes.get_mut(&node)
        {
            node.held = held;
            node.interest = interest;
        }
    }

    /// The file has settled: opens of it shall not be held any more.
    pub fn settle(&mut self, path: &Path, out: &mut Vec<Notice>) {
        // A mark on what is not remembered would have no bound.
        if let Some((node, name)) = self.known_at(path)
            && let Some(dir) = self.open(node)
        {
            self.marker.settle(dir.as_fd(), name);
            let fsid = self.nodes[&node].fsid();
            if let Ok(Some(sight)) = self.mounts.sight(dir.as_fd(), None, name, fsid) {
                self.follow_file(dir.as_fd(), node, name, sight.glance, sight.object, out);
            }
        }
    }

    /// What a file of a watched directory is now, as far as the kernel knows without
    /// asking a server.
    pub fn version(&mut self, path: &Path) -> Option<Version> {
        let node = self.by_path(path.parent()?)?;
        let name = CString::new(path.file_name()?.as_bytes()).ok()?;
        let dir = self.open(node)?;
        look(dir.as_fd(), &name).ok()?.version
    }

    /// What is to be told of a directory with this path.
    pub(super) fn interest(&self, path: &Path, watched: bool) -> Interest {
        if !watched {
            Interest::Names
        } else if (self.opens)(path) {
            Interest::Opens
        } else {
            Interest::Files
        }
    }

    /// Marks a directory anew if its path or its role asks for something else.
    pub(super) fn follow_interest(
        &mut self,
        node: NodeId,
        dir: BorrowedFd<'_>,
        out: &mut Vec<Notice>,
    ) {
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

    pub(super) fn mark(
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
