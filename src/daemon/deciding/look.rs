//! What is found of an event's object.
//!
//! Owns how it is opened: as a place, and only if it is still this object. Fails by
//! what is not known.

use std::fs::{File, Metadata};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use nix::fcntl::readlinkat;

use super::Deciding;
use crate::event::{FileFacts, FileKind};
use crate::sys::ObjectId;
use crate::sys::open::open_place;
use crate::watch::mounts::Unreached;

/// How long a file server that does not answer is not asked again.
const SILENCE: Duration = Duration::from_secs(10);

impl Deciding {
    /// Opens the object of an event; a server that does not answer costs a moment,
    /// and then nothing for a while.
    pub(super) fn look(&mut self, path: &Path, object: Option<ObjectId>) -> Looked {
        let kind = match self.mounts.walk(None, path, false) {
            Ok(_) => return Looked::at(path, object),
            Err(Unreached::Failed(_)) => return Looked::nothing(object, false),
            Err(Unreached::Stalls { kind, .. }) => kind,
        };
        if self.silent.is_some_and(|until| Instant::now() < until) {
            return Looked::nothing(object, true);
        }
        let (path, asked) = (path.to_owned(), object.clone());
        let looked = self.keys.wait_for(move || Looked::at(&path, asked));
        if looked.is_none() {
            tracing::warn!("a file on {} does not answer", kind.display());
            self.silent = Some(Instant::now() + SILENCE);
        }
        Looked {
            is_apart: true,
            ..looked.unwrap_or_else(|| Looked::nothing(object, true))
        }
    }
}

/// What was found of an event's object.
pub(super) struct Looked {
    pub(super) file: Option<File>,
    pub(super) facts: Option<FileFacts>,
    pub(super) metadata: Option<Metadata>,
    pub(super) object: Option<ObjectId>,
    /// It lies on a file system whose server may not answer.
    pub(super) is_apart: bool,
}

impl Looked {
    fn nothing(object: Option<ObjectId>, is_apart: bool) -> Self {
        Self {
            file: None,
            facts: None,
            metadata: None,
            object,
            is_apart,
        }
    }

    fn at(path: &Path, object: Option<ObjectId>) -> Self {
        let Some(file) = open_object(path, object.as_ref()) else {
            return Self::nothing(object, false);
        };
        Self {
            facts: facts(&file),
            metadata: file.metadata().ok(),
            object: object.or_else(|| ObjectId::of(file.as_fd()).ok()),
            is_apart: false,
            file: Some(file),
        }
    }
}

/// The object at `path`, if it is still this object that is there.
fn open_object(path: &Path, object: Option<&ObjectId>) -> Option<File> {
    let file = open_place(path).ok()?;
    if let Some(object) = object
        && ObjectId::of(file.as_fd()).ok()? != *object
    {
        return None;
    }
    Some(File::from(file))
}

/// Facts of the object.
fn facts(file: &File) -> Option<FileFacts> {
    let metadata = file.metadata().ok()?;
    let kind = match metadata.mode() & libc::S_IFMT {
        libc::S_IFREG => FileKind::File,
        libc::S_IFDIR => FileKind::Dir,
        libc::S_IFLNK => FileKind::Symlink,
        libc::S_IFIFO => FileKind::Fifo,
        libc::S_IFSOCK => FileKind::Socket,
        _ => FileKind::Device,
    };
    let changed = u64::try_from(metadata.ctime())
        .ok()
        .zip(u32::try_from(metadata.ctime_nsec()).ok())
        .and_then(|(seconds, nanos)| {
            SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanos))
        })
        .unwrap_or(SystemTime::UNIX_EPOCH);
    Some(FileFacts {
        kind,
        device: metadata.dev(),
        inode: metadata.ino(),
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        owner: None,
        group: None,
        accessed: metadata.accessed().unwrap_or(SystemTime::UNIX_EPOCH),
        size: metadata.len(),
        links: metadata.nlink(),
        modified: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
        changed,
        created: metadata.created().ok(),
        target: (kind == FileKind::Symlink)
            .then(|| readlinkat(file, c"").ok().map(Into::into))
            .flatten(),
        mount: None,
    })
}
