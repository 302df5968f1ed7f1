//! Watching with fanotify: marks, and what its records mean for the tree.
//!
//! Owns the notification group and sets marks in both groups. Answers nobody:
//! the permission group is read by [`super::hold`].

use std::collections::{HashMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;

use super::fence::Fence;
use super::home::Home;
use super::repeats::Repeats;
use super::tree::{Held, Interest, Marker, NodeId, Scope, Tree};
use super::{Evidence, Notice, Problem, What, Writer};
use crate::sys::ObjectId;
use crate::sys::fanotify::{Entry, Features, NotificationGroup, PermissionGroup, Record, mask};
use crate::sys::handle::FileSystem;

/// Names that come and go in a directory.
const NAMES: u64 = mask::CREATE | mask::DELETE | mask::ONDIR;
/// What happens to the directory itself.
const ITSELF: u64 = mask::DELETE_SELF | mask::MOVE_SELF;
/// What happens to the files in a directory.
const FILES: u64 = mask::MODIFY | mask::CLOSE_WRITE | mask::EVENT_ON_CHILD;
/// What happens to a file, through whichever name.
const WRITES: u64 = mask::MODIFY | mask::CLOSE_WRITE;
/// What keeps a muted directory's mark one of the files in it: when a directory gets the
/// first such mark, the kernel goes through all names in it that it has cached, which with
/// a million of them keeps everybody who makes one, and us, waiting for a tenth of a
/// second (`fsnotify_set_children_dentry_flags`, fs/notify/fsnotify.c). Nothing that
/// makes keys is run there.
const MUTED: u64 = mask::OPEN_EXEC | mask::EVENT_ON_CHILD;
/// A hold of every open of a file in a directory.
const HOLD: u64 = mask::OPEN_PERM | mask::EVENT_ON_CHILD;
/// What the first key of a fresh account needs to be seen.
pub(super) const FIRST_KEY: u64 = mask::CREATE | mask::ONDIR;

/// Bytes read at once: some 300 records with names.
const BUFFER: usize = 64 * 1024;

struct Marks {
    notification: Arc<NotificationGroup>,
    permission: Option<Arc<PermissionGroup>>,
    /// Files that have settled are not held.
    ignore_settled: bool,
    renames: u64,
    /// A directory got a mark.
    marked: Arc<AtomicBool>,
}

impl Marks {
    /// All that a directory's mark may ask for.
    fn all(&self) -> u64 {
        NAMES | ITSELF | self.renames | FILES | mask::OPEN | MUTED
    }

    /// Takes these off, and the hold.
    fn take_off(&self, dir: BorrowedFd<'_>, mask: u64) {
        // ENOENT: the marks went with the inode, or were of the other kind.
        let _ = self.notification.unmark_directory(dir, mask);
        if let Some(permission) = &self.permission {
            let _ = permission.unmark_directory(dir, HOLD);
        }
    }
}

impl Marker for Marks {
    fn mark(
        &mut self,
        dir: BorrowedFd<'_>,
        ground: FileSystem,
        _path: &Path,
        interest: Interest,
    ) -> io::Result<Held> {
        let files = match interest {
            Interest::Names => 0,
            Interest::Files => FILES,
            Interest::Opens => FILES | mask::OPEN,
        };
        self.notification
            .mark_directory(dir, NAMES | ITSELF | self.renames | files)?;
        self.marked.store(true, Ordering::Relaxed);
        let watched = interest > Interest::Names;
        let Some(permission) = self
            .permission
            .as_ref()
            .filter(|permission| watched && permission.is_open())
        else {
            return Ok(Held::No);
        };
        if ground.may_stall() {
            let reason = "an open on this file system can wait for a server";
            return Ok(Held::Refused(reason.into()));
        }
        Ok(match permission.mark_directory(dir, HOLD) {
            Ok(()) => Held::Yes,
            Err(error) => Held::Refused(error.to_string().into()),
        })
    }

    fn unmark(&mut self, dir: Option<BorrowedFd<'_>>, _path: &Path) {
        if let Some(dir) = dir {
            self.take_off(dir, self.all());
        }
    }

    fn mute(&mut self, dir: Option<BorrowedFd<'_>>, path: &Path, interest: Interest) {
        let Some(here) = dir.filter(|_| interest > Interest::Names) else {
            self.unmark(dir, path);
            return;
        };
        // First: in between there must be no moment without. Where that fails, all is taken off.
        if self.notification.mark_directory(here, MUTED).is_err() {
            self.unmark(dir, path);
            return;
        }
        self.take_off(here, self.all() & !MUTED);
    }

    fn unmuted(&mut self, dir: BorrowedFd<'_>) {
        // ENOENT: it had none.
        let _ = self.notification.unmark_directory(dir, mask::OPEN_EXEC);
    }

    fn no_opens(&mut self, dir: BorrowedFd<'_>) {
        // ENOENT: the mark went with the directory.
        let _ = self.notification.unmark_directory(dir, mask::OPEN);
    }

    fn moved(&mut self, _from: &Path, _to: &Path, _watched: bool) {}

    fn settle(&mut self, dir: BorrowedFd<'_>, name: &OsStr) {
        if self.ignore_settled
            && let Some(permission) = &self.permission
        {
            // A file that is gone again needs none; one that cannot carry it
            // is held at each open, which is slower and nothing else.
            let _ = permission.ignore(dir, name);
        }
    }

    fn follow(&mut self, dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
        self.notification.mark_file(dir, name, WRITES)
    }

    fn unfollow(&mut self, file: BorrowedFd<'_>) {
        // ENOENT: it had none.
        let _ = self.notification.unmark_place(file, WRITES);
    }

    fn unsettle(&mut self, file: BorrowedFd<'_>) {
        if self.ignore_settled
            && let Some(permission) = &self.permission
        {
            // ENOENT: it had none.
            let _ = permission.ignore_no_longer(file);
        }
    }

    fn evidence(&self) -> Evidence {
        Evidence::Fanotify
    }
}

/// Watches with fanotify.
pub struct FanotifyWatch {
    group: Arc<NotificationGroup>,
    permission: Option<Arc<PermissionGroup>>,
    tree: Tree,
    fence: Option<(ObjectId, Arc<Fence>)>,
    /// Directories of key tools, and the tools' names in them.
    programs: HashMap<ObjectId, (PathBuf, Vec<OsString>)>,
    buffer: Vec<u8>,
    /// Whose the records of the last reading are.
    pids: Vec<i32>,
    own_pid: i32,
    /// The home to be muted with its next record.
    to_mute: Option<Home>,
    /// Records of muted homes that were not looked at.
    unread: HashMap<Home, u64>,
    repeats: Repeats,
}

impl FanotifyWatch {
    /// Makes a watch for `scope`; nothing is marked yet.
    #[must_use]
    pub fn new(
        group: Arc<NotificationGroup>,
        permission: Option<Arc<PermissionGroup>>,
        scope: Scope,
        ignore_settled: bool,
    ) -> Self {
        let repeats = Repeats::default();
        let mut marks = Marks {
            marked: repeats.unsure(),
            notification: Arc::clone(&group),
            permission: permission.clone(),
            ignore_settled,
            renames: mask::RENAME,
        };
        // RENAME came together with target identities (Linux 5.17).
        if !group.features().target {
            marks.renames = mask::MOVED_FROM | mask::MOVED_TO;
        }
        Self {
            group,
            permission,
            tree: Tree::new(scope, Box::new(marks)),
            fence: None,
            programs: HashMap::new(),
            buffer: vec![0; BUFFER],
            pids: Vec::new(),
            own_pid: nix::unistd::getpid().as_raw(),
            to_mute: None,
            unread: HashMap::new(),
            repeats,
        }
    }

    /// Marks all that exists.
    ///
    /// # Errors
    /// The root directory cannot be marked: fanotify is of no use here.
    pub fn start(&mut self, out: &mut Vec<Notice>) -> io::Result<()> {
        self.tree.start(out)
    }

    /// What the records carry.
    #[must_use]
    pub fn features(&self) -> Features {
        self.group.features()
    }

    /// The tree of directories.
    #[must_use]
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The tree of directories.
    pub fn tree_mut(&mut self) -> &mut Tree {
        &mut self.tree
    }

    /// Reports the fence's numbers as they come by.
    ///
    /// # Errors
    /// The fence's directory cannot be marked.
    pub fn set_fence(&mut self, fence: Arc<Fence>) -> io::Result<()> {
        self.group
            .mark_directory(fence.as_fd(), mask::CREATE | mask::ONDIR)?;
        self.fence = Some((ObjectId::of(fence.as_fd())?, fence));
        Ok(())
    }

    /// Notes whether who reads this sleeps until there is something to read.
    pub fn rests(&self, at_rest: bool) {
        if let Some((_, fence)) = &self.fence {
            fence.rests(at_rest);
        }
    }

    /// Holds `program` at exec, and what replaces it at its path. One that is
    /// not there is held as soon as it comes.
    ///
    /// # Errors
    /// Its directory cannot be marked, or the program cannot.
    pub fn hold_program(&mut self, program: &Path) -> io::Result<()> {
        let (Some(parent), Some(name)) = (program.parent(), program.file_name()) else {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        };
        let Some(permission) = &self.permission else {
            return Ok(());
        };
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let dir = match open(parent, flags, Mode::empty()) {
            Err(nix::errno::Errno::ENOENT) => return Ok(()),
            other => other?,
        };
        let id = ObjectId::of(dir.as_fd())?;
        self.group
            .mark_directory(dir.as_fd(), mask::CREATE | mask::RENAME)?;
        let (_, names) = self
            .programs
            .entry(id)
            .or_insert_with(|| (parent.to_owned(), Vec::new()));
        names.push(name.to_owned());
        match hold_exec(permission, dir.as_fd(), name) {
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
            _ => Ok(()),
        }
    }

    /// Whether openers are held.
    #[must_use]
    pub fn is_holding(&self) -> bool {
        self.permission
            .as_ref()
            .is_some_and(|permission| permission.is_open())
    }

    /// Sets the marks of a permission group that has been opened again.
    pub fn hold_again(&mut self, out: &mut Vec<Notice>) {
        let Some(permission) = &self.permission else {
            return;
        };
        for (path, names) in self.programs.values() {
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            let Ok(dir) = open(path, flags, Mode::empty()) else {
                continue;
            };
            for name in names {
                // One that is not there is marked when it comes.
                let _ = hold_exec(permission, dir.as_fd(), name);
            }
        }
        self.tree.mark_all_again(out);
    }

    /// Reads once; returns how many records there were, 0 when the queue is empty.
    ///
    /// # Errors
    /// The group cannot be read: watching is over.
    pub fn read(&mut self, out: &mut Vec<Notice>) -> io::Result<usize> {
        let mut records = Vec::new();
        let group = Arc::clone(&self.group);
        let mut read = || group.read(&mut self.buffer, |record| records.push(record));
        let mut fences = VecDeque::new();
        if let Some((_, fence)) = &self.fence {
            fences = fence.reading(read)?;
        } else {
            read()?;
        }
        if records.is_empty() {
            self.tree.emptied();
            self.repeats.emptied();
            // Who was to be muted has nothing waiting any more.
            self.to_mute = None;
        } else {
            self.tree.busy();
        }
        self.pids.clear();
        self.pids.extend(records.iter().map(|record| record.pid));
        for (place, record) in records.into_iter().enumerate() {
            while fences.front().is_some_and(|(_, at)| *at <= place) {
                out.extend(fences.pop_front().map(|(number, _)| Notice::Fence(number)));
            }
            self.take(record, out);
        }
        out.extend(fences.into_iter().map(|(number, _)| Notice::Fence(number)));
        Ok(self.pids.len())
    }

    /// Whose the records of the last reading are, one for each.
    #[must_use]
    pub fn pids(&self) -> &[i32] {
        &self.pids
    }

    fn take(&mut self, mut record: Record, out: &mut Vec<Notice>) {
        let once = self.repeats.heard(&record, self.is_marked(&record));
        if record.is(mask::OVERFLOW) {
            out.push(Notice::Problem(Problem::Overflow));
            self.tree.rescan(out);
            return;
        }
        if let (Some((directory, fence)), Some(entry)) = (&self.fence, &record.entry)
            && entry.directory == *directory
        {
            if let Some(number) = Fence::number(&entry.name) {
                out.push(Notice::Fence(number));
                fence.clear(number);
            }
            return;
        }
        self.follow_programs(&record);
        if record.pid == self.own_pid {
            // The watcher's own acts never alert.
            return;
        }
        let writer = Some(Arc::new(Writer {
            pid: record.pid,
            pidfd: record.pidfd.take(),
            once,
        }));
        if self.is_muted(&record, writer.as_ref(), out) {
            return;
        }
        let (created, directory) = (record.is(mask::CREATE), record.is(mask::ONDIR));
        if record.is(mask::RENAME) {
            // What is at the other end is found when that home is heard again.
            let [from, to] = [&record.from, &record.to].map(|end| {
                let end = self.find(end.as_ref());
                end.filter(|(node, _)| !self.tree.is_muted(*node))
            });
            if from.is_some() || to.is_some() {
                self.tree
                    .renamed(from, to, record.target, directory, writer, out);
            }
            return;
        }
        let Some((node, name)) = self.place(&record) else {
            if let Some(entry) = record.entry.filter(|_| created && !directory) {
                let target = record.target;
                self.tree
                    .created_elsewhere(&entry.directory, &entry.name, target, writer, out);
            }
            return;
        };
        let name = name.as_os_str();
        if record.is(ITSELF) {
            // The entry of a record about the directory itself is "." in it.
            if name == "."
                || record
                    .target
                    .as_ref()
                    .and_then(|id| self.tree.by_object(id))
                    == Some(node)
            {
                if record.is(mask::DELETE_SELF) {
                    self.tree.gone(node);
                } else {
                    self.tree.moved(node, out);
                }
                return;
            }
        }
        // One record can carry several bits; this is the order they come in, but that what
        // came and went may have come last.
        let target = record.target.clone();
        let is_gone = record.is(mask::DELETE | mask::MOVED_FROM);
        let is_back = is_gone
            && record.is(mask::CREATE | mask::MOVED_TO)
            && self.tree.is_back(node, name, target.as_ref(), directory);
        if is_back {
            let (target, writer) = (target.clone(), writer.clone());
            self.tree
                .deleted(node, name, target, directory, writer, out);
        }
        if created {
            self.tree
                .created(node, name, target.clone(), directory, writer.clone(), out);
        }
        if record.is(mask::MOVED_TO) {
            let to = Some((node, name));
            self.tree
                .renamed(None, to, target.clone(), directory, writer.clone(), out);
        }
        let touches = [
            (mask::OPEN, What::Opened),
            (mask::MODIFY, What::Modified),
            (mask::CLOSE_WRITE, What::Closed),
        ];
        for (bit, what) in touches {
            if record.is(bit) && !directory {
                let (target, writer) = (target.clone(), writer.clone());
                self.tree.touched(what, node, name, target, writer, out);
            }
        }
        if is_gone && !is_back {
            self.tree
                .deleted(node, name, target, directory, writer, out);
        }
    }

    /// Where it happened: at the entry, or, if the file was written through a name
    /// elsewhere, at the one that is watched.
    fn place(&self, record: &Record) -> Option<(NodeId, OsString)> {
        let entry = self.find(record.entry.as_ref());
        let entry = entry.filter(|(node, _)| !record.is(WRITES) || self.tree.is_watched(*node));
        let place = entry.or_else(|| {
            let target = record.target.as_ref().filter(|_| record.is(WRITES))?;
            self.tree.watched_name(target)
        });
        place.map(|(node, name)| (node, name.to_owned()))
    }

    /// Mutes `home` with its next record, which says who is there.
    pub fn mute(&mut self, home: Home) {
        self.to_mute = Some(home);
    }

    /// How many records of a muted home were not looked at since this was last asked.
    pub fn unread(&mut self, home: &Home) -> u64 {
        self.unread.remove(home).unwrap_or_default()
    }

    /// Whether the record is of a home that is muted, or is so from now on.
    fn is_muted(
        &mut self,
        record: &Record,
        writer: Option<&Arc<Writer>>,
        out: &mut Vec<Notice>,
    ) -> bool {
        let entries = [&record.to, &record.entry, &record.from];
        let entries = entries.into_iter().flatten();
        let mut nodes = entries.filter_map(|entry| self.tree.by_object(&entry.directory));
        let first = nodes.next();
        // What leaves a home that is heard for one that is not is told as what left.
        let heard = first.into_iter().chain(nodes);
        let node = heard
            .into_iter()
            .find(|node| !self.is_unheard(*node))
            .or(first);
        let node = node.or_else(|| Some(self.tree.watched_name(record.target.as_ref()?)?.0));
        let Some((home, muted)) = node.and_then(|node| self.tree.heard(node)) else {
            return false;
        };
        let asked = self.to_mute.as_ref() == Some(home);
        if !muted && !asked {
            return false;
        }
        let home = home.clone();
        *self.unread.entry(home.clone()).or_default() += 1;
        if !muted {
            self.to_mute = None;
            self.tree.mute(&home);
            out.push(Notice::Muted(home, writer.cloned()));
        }
        true
    }

    /// Whether a directory lies in a home that is muted, or will be with its next record.
    fn is_unheard(&self, node: NodeId) -> bool {
        let is_asked =
            || self.to_mute.is_some() && self.to_mute.as_ref() == self.tree.lies_in(node);
        self.tree.is_muted(node) || is_asked()
    }

    /// Whether all directories that the record names are known.
    fn is_marked(&self, record: &Record) -> bool {
        let entries = [&record.entry, &record.from, &record.to];
        let mut entries = entries.into_iter().flatten();
        entries.all(|entry| self.tree.by_object(&entry.directory).is_some())
    }

    fn find<'a>(&self, entry: Option<&'a Entry>) -> Option<(NodeId, &'a OsStr)> {
        let entry = entry?;
        Some((self.tree.by_object(&entry.directory)?, &entry.name))
    }

    /// Keeps the marks on key tools where a package manager replaces them.
    fn follow_programs(&self, record: &Record) {
        // While nobody is held, what stands there in the end is marked when somebody is again.
        let permission = self.permission.as_ref();
        let Some(permission) = permission.filter(|permission| permission.is_open()) else {
            return;
        };
        for entry in [&record.entry, &record.to].into_iter().flatten() {
            let Some((path, names)) = self.programs.get(&entry.directory) else {
                continue;
            };
            // dpkg unpacks to NAME.dpkg-new, and renames it over NAME.
            let bare = entry
                .name
                .to_str()
                .map(|name| name.strip_suffix(".dpkg-new").unwrap_or(name));
            if names.iter().any(|name| name.to_str() == bare) {
                let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
                if let Ok(dir) = open(path, flags, Mode::empty()) {
                    let _ = hold_exec(permission, dir.as_fd(), &entry.name);
                }
            }
        }
    }
}

impl AsFd for FanotifyWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.group.as_fd()
    }
}

fn hold_exec(permission: &PermissionGroup, dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    // Non-blocking: never wait for a FIFO that somebody put there.
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = openat(dir, name, flags, Mode::empty())?;
    permission.mark_object(file.as_fd(), mask::OPEN_EXEC_PERM)
}
