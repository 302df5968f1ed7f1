//! The socket's file: made closed, put into place whole, taken away at the end.
//!
//! Owns who may reach it: its directory is 0750 and it is 0660, both of root and
//! the group. A socket that nobody listens on is replaced, one that somebody
//! listens on is not.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect as connect_to, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use crate::daemon::access::{is_own, permit};

/// A socket that is listened on.
#[derive(Debug)]
pub(super) struct Listener {
    socket: UnixListener,
    path: PathBuf,
    /// Device and inode of the file, so that only ours is removed.
    file: (u64, u64),
}

impl Listener {
    /// Makes the socket at `path` for root and group `gid`.
    ///
    /// # Errors
    /// `AddrInUse` when somebody listens there, `AlreadyExists` when something
    /// that is no socket is there, or what the system says.
    pub(super) fn open(path: &Path, gid: Option<u32>) -> io::Result<Self> {
        let parent = path.parent().unwrap_or(Path::new("/"));
        if make(parent)? || is_own(parent) {
            permit(parent, 0o750, gid)?;
        }
        make_way(path)?;
        let new = beside(path)?;
        // Of a daemon with our pid that was killed here.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&new)?;
        let placed = permit(&new, 0o660, gid)
            .and_then(|()| listener.set_nonblocking(true))
            .and_then(|()| fs::symlink_metadata(&new))
            // Whoever finds it under its name finds it complete.
            .and_then(|file| fs::rename(&new, path).map(|()| file));
        match placed {
            Ok(file) => Ok(Self {
                socket: listener,
                path: path.to_owned(),
                file: (file.dev(), file.ino()),
            }),
            Err(error) => {
                let _ = fs::remove_file(&new);
                Err(error)
            }
        }
    }

    pub(super) fn accept(&self) -> io::Result<UnixStream> {
        let (stream, _) = self.socket.accept()?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    }

    /// Takes the file away, unless somebody else's stands there by now.
    pub(super) fn remove(&self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|file| (file.dev(), file.ino()) == self.file);
        if ours {
            // What stays is replaced by the next daemon.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Makes the directory; says whether it was not there.
fn make(directory: &Path) -> io::Result<bool> {
    if directory.exists() {
        return Ok(false);
    }
    if let Some(above) = directory.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(above)?;
    }
    match DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// Fails unless a socket may be put at `path`.
fn make_way(path: &Path) -> io::Result<()> {
    let there = match fs::symlink_metadata(path) {
        Ok(there) => there,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !there.file_type().is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "there is a file that is no socket",
        ));
    }
    match connect(path, Duration::ZERO) {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
            ) =>
        {
            Ok(())
        }
        // Its queue is full, so there is a queue.
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another daemon answers there; give this one a socket of its own with --control",
        )),
    }
}

/// The name under which the socket is made.
fn beside(path: &Path) -> io::Result<PathBuf> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it names no file"))?;
    let mut new = std::ffi::OsString::from(".");
    new.push(name);
    new.push(format!(".{}", std::process::id()));
    Ok(path.with_file_name(new))
}

/// Connects to `path`, and waits no longer than `bound` where the queue is
/// full; not at all if that is zero.
pub(super) fn connect(path: &Path, bound: Duration) -> io::Result<UnixStream> {
    let wait = if bound.is_zero() {
        SockFlag::SOCK_NONBLOCK
    } else {
        SockFlag::empty()
    };
    let socket = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC | wait,
        None,
    )?;
    if !bound.is_zero() {
        let micros = i64::try_from(bound.as_micros()).unwrap_or(i64::MAX);
        let seconds = TimeVal::new(micros / 1_000_000, micros % 1_000_000);
        // It bounds connect(2), too (socket(7)).
        setsockopt(&socket, sockopt::SendTimeout, &seconds)?;
    }
    connect_to(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(UnixStream::from(socket))
}
