//! File handles: the identity of an object that outlives its name.

use std::ffi::{CString, OsStr};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

/// Space for the opaque part of a handle (`MAX_HANDLE_SZ`, `open_by_handle_at(2)`).
const MAX_HANDLE_SIZE: usize = 128;

/// An object on this host: file-system id (as `statfs(2)` gives it), handle
/// type and opaque handle, which carries the inode's generation and so is not
/// given again when the inode number is. Equal for what a fanotify record
/// reports and for what [`ObjectId::of`] reads.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectId(Repr);

impl Hash for ObjectId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // In one piece: there are many of them.
        match &self.0 {
            Repr::Short {
                kind,
                length,
                fsid,
                opaque,
            } => {
                let mut bytes = [0; 10 + SHORT];
                (bytes[0], bytes[1]) = (*kind, *length);
                bytes[2..10].copy_from_slice(fsid);
                bytes[10..].copy_from_slice(opaque);
                state.write(&bytes);
            }
            Repr::Long(bytes) => state.write(bytes),
        }
    }
}

/// The bytes of a handle that need no memory of their own: those of ext4, XFS and
/// tmpfs have 8 to 12.
const SHORT: usize = 13;

/// Many are kept, and each of a kind in one way: equal parts are equal here.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Repr {
    Short {
        kind: u8,
        length: u8,
        fsid: [u8; 8],
        opaque: [u8; SHORT],
    },
    /// File-system id, type and handle.
    Long(Box<[u8]>),
}

impl ObjectId {
    /// Puts an identity together from the parts of a FID information record
    /// (fanotify(7), `struct fanotify_event_info_fid`).
    #[must_use]
    pub fn from_parts(fsid: [u8; 8], handle_type: i32, handle: &[u8]) -> Self {
        if let (Ok(kind), Ok(length)) = (u8::try_from(handle_type), u8::try_from(handle.len()))
            && handle.len() <= SHORT
        {
            let mut opaque = [0; SHORT];
            opaque[..handle.len()].copy_from_slice(handle);
            return Self(Repr::Short {
                kind,
                length,
                fsid,
                opaque,
            });
        }
        let mut bytes = Vec::with_capacity(12 + handle.len());
        bytes.extend_from_slice(&fsid);
        bytes.extend_from_slice(&handle_type.to_ne_bytes());
        bytes.extend_from_slice(handle);
        Self(Repr::Long(bytes.into_boxed_slice()))
    }

    /// File-system id, type and handle, as [`ObjectId::from_parts`] takes them.
    fn parts(&self) -> ([u8; 8], i32, &[u8]) {
        match &self.0 {
            Repr::Short {
                kind,
                length,
                fsid,
                opaque,
            } => (*fsid, i32::from(*kind), &opaque[..usize::from(*length)]),
            Repr::Long(bytes) => {
                let (mut fsid, mut kind) = ([0; 8], [0; 4]);
                fsid.copy_from_slice(&bytes[..8]);
                kind.copy_from_slice(&bytes[8..12]);
                (fsid, i32::from_ne_bytes(kind), &bytes[12..])
            }
        }
    }

    /// The id of its file system.
    #[must_use]
    pub fn file_system(&self) -> [u8; 8] {
        self.parts().0
    }

    /// The identity of an open object; any descriptor will do, `O_PATH` too.
    ///
    /// # Errors
    /// The errno of fstatfs(2) or `name_to_handle_at(2)`: `EOPNOTSUPP` where
    /// the file system has no handles.
    pub fn of(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let fsid = FileSystem::of(fd)?.id;
        Self::on(fd, fsid)
    }

    /// The identity of an open object on the file system with this id.
    ///
    /// # Errors
    /// As [`ObjectId::of`].
    pub fn on(fd: BorrowedFd<'_>, fsid: [u8; 8]) -> io::Result<Self> {
        Ok(Self::read(fd, c"", fsid)?.0)
    }

    /// The identity of `name` in the directory `dir`, without following a
    /// symbolic link. `fsid` is the directory's file-system id.
    ///
    /// # Errors
    /// As [`ObjectId::of`]; `ENOENT` where there is no such name.
    pub fn at(dir: BorrowedFd<'_>, name: &OsStr, fsid: [u8; 8]) -> io::Result<Self> {
        let name = CString::new(name.as_bytes())?;
        Ok(Self::read(dir, &name, fsid)?.0)
    }

    /// The same, and the mount that it was found on (`proc_pid_mountinfo(5)`).
    ///
    /// # Errors
    /// As [`ObjectId::at`].
    pub fn with_mount(
        dir: BorrowedFd<'_>,
        name: &std::ffi::CStr,
        fsid: [u8; 8],
    ) -> io::Result<(Self, u64)> {
        let (id, mount) = Self::read(dir, name, fsid)?;
        Ok((id, u64::try_from(mount).unwrap_or(u64::MAX)))
    }

    /// Opens the object as a place (`O_PATH`); `dir` is a directory of its file
    /// system.
    ///
    /// # Errors
    /// The errno of `open_by_handle_at(2)`: `ESTALE` when the object is gone,
    /// `EPERM` without `CAP_DAC_READ_SEARCH`.
    pub fn open(&self, dir: BorrowedFd<'_>) -> io::Result<OwnedFd> {
        self.open_from(readable(dir)?.as_fd())
    }

    /// The same; `dir` is [`readable`].
    ///
    /// # Errors
    /// As [`ObjectId::open`].
    pub fn open_from(&self, dir: BorrowedFd<'_>) -> io::Result<OwnedFd> {
        let stale = || io::Error::from_raw_os_error(libc::ESTALE);
        let (_, kind, opaque) = self.parts();
        let mut handle = Handle {
            bytes: u32::try_from(opaque.len()).unwrap_or(0),
            kind,
            opaque: [0; MAX_HANDLE_SIZE],
        };
        let room = handle.opaque.get_mut(..opaque.len()).ok_or_else(stale)?;
        room.copy_from_slice(opaque);
        // SAFETY: `handle` has the layout of struct file_handle with as many bytes
        // as it says, which the kernel only reads.
        let fd = unsafe {
            libc::open_by_handle_at(
                dir.as_raw_fd(),
                (&raw mut handle).cast(),
                libc::O_PATH | libc::O_CLOEXEC,
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel opened this descriptor for us, and nothing else knows it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    fn read(fd: BorrowedFd<'_>, name: &std::ffi::CStr, fsid: [u8; 8]) -> io::Result<(Self, i32)> {
        let empty = if name.is_empty() {
            libc::AT_EMPTY_PATH
        } else {
            0
        };
        // AT_HANDLE_FID (Linux 6.5) gives an identity also where the handle
        // could not be opened again; it is what fanotify itself reports.
        for flags in [empty | libc::AT_HANDLE_FID, empty] {
            let mut handle = Handle {
                bytes: u32::try_from(MAX_HANDLE_SIZE).unwrap_or(0),
                kind: 0,
                opaque: [0; MAX_HANDLE_SIZE],
            };
            let mut mount_id = 0;
            // SAFETY: `handle` has the layout of struct file_handle followed by
            // `handle_bytes` bytes of room, the name is NUL-terminated, and the
            // kernel writes at most handle_bytes (name_to_handle_at(2)).
            let result = unsafe {
                libc::name_to_handle_at(
                    fd.as_raw_fd(),
                    name.as_ptr(),
                    (&raw mut handle).cast(),
                    &raw mut mount_id,
                    flags,
                )
            };
            if result == 0 {
                let length = (handle.bytes as usize).min(MAX_HANDLE_SIZE);
                let id = Self::from_parts(fsid, handle.kind, &handle.opaque[..length]);
                return Ok((id, mount_id));
            }
            let error = io::Error::last_os_error();
            if error.raw_os_error() != Some(libc::EINVAL) {
                return Err(error);
            }
        }
        Err(io::Error::from_raw_os_error(libc::EINVAL))
    }
}

/// Opens the directory `dir` (an `O_PATH` descriptor will do) for reading:
/// `open_by_handle_at(2)` does not take a place for a file system.
///
/// # Errors
/// The errno of openat(2).
pub fn readable(dir: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(nix::fcntl::openat(dir, ".", flags, Mode::empty())?)
}

/// `struct file_handle` (`open_by_handle_at(2)`) with as much room as there can be.
#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    opaque: [u8; MAX_HANDLE_SIZE],
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (fsid, kind, opaque) = self.parts();
        for bytes in [&fsid[..], &kind.to_ne_bytes(), opaque] {
            for byte in bytes {
                write!(f, "{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectId({self})")
    }
}

/// What statfs(2) says of the file system an object lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSystem {
    /// `f_fsid`, as fanotify reports it.
    pub id: [u8; 8],
    /// `f_type`: the magic number of statfs(2).
    pub magic: i64,
}

impl FileSystem {
    /// Reads it for an open object, `O_PATH` too.
    ///
    /// # Errors
    /// The errno of fstatfs(2).
    pub fn of(fd: impl AsFd) -> io::Result<Self> {
        let mut buffer = std::mem::MaybeUninit::<libc::statfs>::zeroed();
        // SAFETY: the buffer has the size of struct statfs, which fstatfs(2) fills.
        let result = unsafe { libc::fstatfs(fd.as_fd().as_raw_fd(), buffer.as_mut_ptr()) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: zeroed is a valid statfs, and fstatfs(2) succeeded.
        let buffer = unsafe { buffer.assume_init() };
        // SAFETY: fsid_t is `int val[2]` (statfs(2)): eight plain bytes.
        let id = unsafe { std::mem::transmute::<libc::fsid_t, [u8; 8]>(buffer.f_fsid) };
        Ok(Self {
            id,
            magic: buffer.f_type,
        })
    }

    /// Whether directories of one mount of it may have several file-system ids: those
    /// of its subvolumes.
    #[must_use]
    pub fn has_subvolumes(self) -> bool {
        /// linux/magic.h; fs/bcachefs/vstructs.h.
        const SUBVOLUMES: [i64; 2] = [0x9123_683E, 0xCA45_1A4E];
        SUBVOLUMES.contains(&(self.magic & 0xFFFF_FFFF))
    }

    /// Whether an open on it may wait for a server or for a user's program,
    /// so that it must never be held: FUSE, NFS, CIFS, 9p, Ceph, AFS.
    #[must_use]
    pub fn may_stall(self) -> bool {
        // linux/magic.h, and the file systems' own headers where it has none.
        const STALLING: [i64; 9] = [
            0x6573_5546, // FUSE_SUPER_MAGIC
            0x6969,      // NFS_SUPER_MAGIC
            0xFF53_4D42, // CIFS_SUPER_MAGIC
            0xFE53_4D42, // SMB2_SUPER_MAGIC
            0x517B,      // SMB_SUPER_MAGIC
            0x0102_1997, // V9FS_MAGIC
            0x00C3_6400, // CEPH_SUPER_MAGIC
            0x5346_414F, // AFS_SUPER_MAGIC
            0x7375_7245, // CODA_SUPER_MAGIC
        ];
        STALLING.contains(&(self.magic & 0xFFFF_FFFF))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_handle_is_told_from_others_and_shown_alike() {
        let fsid = [1, 2, 3, 4, 5, 6, 7, 0xff];
        let bytes: Vec<u8> = (0..40).collect();
        let mut known = std::collections::HashSet::new();
        for kind in [1, 0x81, 0xfe, 0x1fe] {
            for length in 0..bytes.len() {
                let handle = &bytes[..length];
                let id = ObjectId::from_parts(fsid, kind, handle);
                assert_eq!(id.parts(), (fsid, kind, handle));
                let whole = [&fsid[..], &kind.to_ne_bytes(), handle].concat();
                assert_eq!(id.to_string(), data_encoding::HEXLOWER.encode(&whole));
                assert_eq!(id, ObjectId::from_parts(fsid, kind, handle));
                assert!(known.insert(id));
            }
        }
        assert_eq!(size_of::<Option<ObjectId>>(), 24);
    }

    #[test]
    fn an_object_has_one_identity_by_name_and_by_descriptor() {
        let dir = tempfile::tempdir().unwrap();
        let file = std::fs::File::create(dir.path().join("id_ed25519")).unwrap();
        let other = std::fs::File::create(dir.path().join("other")).unwrap();
        let dir_fd = std::fs::File::open(dir.path()).unwrap();
        let fsid = FileSystem::of(&dir_fd).unwrap().id;
        let by_name = ObjectId::at(dir_fd.as_fd(), OsStr::new("id_ed25519"), fsid).unwrap();
        assert_eq!(by_name, ObjectId::of(file.as_fd()).unwrap());
        assert_ne!(by_name, ObjectId::of(other.as_fd()).unwrap());
    }
}
