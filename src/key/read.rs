//! Reading a key file from a descriptor that the caller has verified.
//!
//! Owns the bounds and the wiping. Never opens a name: the file is opened anew
//! through its descriptor (proc(5) `/proc/self/fd`), without waiting for a lease
//! or a FIFO, and only if it is a regular file. A file server can still take its
//! time: the caller reads on a thread that may wait.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag, fstat};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::wire::CERTIFICATE;
use super::{Facts, Identity, Kind, Role, examine, list};

/// How much of a file is read, in bytes.
pub const LIMIT: usize = 1 << 20;
/// How much of the end of a longer list is read: what was appended stands there.
const TAIL: usize = 64 * 1024;
/// What a file may have grown by since its size was asked.
const GROWTH: usize = 4096;

/// The content of a file, as far as it was read. Wiped when it is dropped.
pub struct Content {
    /// From its beginning, [`LIMIT`] bytes at most.
    pub head: Zeroizing<Vec<u8>>,
    /// Its end, if there is more between. Starts within a line.
    pub tail: Option<Zeroizing<Vec<u8>>>,
    /// Permission bits.
    pub mode: u32,
}

impl Content {
    /// Whether the head is all there is.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.tail.is_none()
    }
}

/// Reads the regular file behind `file`, which may be an `O_PATH` descriptor.
///
/// # Errors
/// It is no regular file (`InvalidInput`), somebody holds a lease on it
/// (`WouldBlock`), or the errno of open(2) or read(2).
pub fn read(file: BorrowedFd<'_>) -> io::Result<Content> {
    let stat = fstat(file)?;
    if SFlag::from_bits_truncate(stat.st_mode & libc::S_IFMT) != SFlag::S_IFREG {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        ));
    }
    let mut file = reopen(file)?;
    let size = usize::try_from(stat.st_size).unwrap_or(usize::MAX);
    let (head, ended) = fill(&mut file, size.saturating_add(GROWTH).min(LIMIT))?;
    let mut tail = None;
    if !ended {
        let end = file.metadata()?.len();
        let from = end
            .saturating_sub(TAIL as u64)
            .max(u64::try_from(head.len()).unwrap_or(u64::MAX));
        file.seek(SeekFrom::Start(from))?;
        tail = Some(fill(&mut file, TAIL)?.0).filter(|tail| !tail.is_empty());
    }
    Ok(Content {
        head,
        tail,
        mode: stat.st_mode & 0o7777,
    })
}

fn reopen(file: BorrowedFd<'_>) -> io::Result<File> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    // Looking at a key leaves no trace on it, where we may do so.
    let opened = match open(Path::new(&path), flags | OFlag::O_NOATIME, Mode::empty()) {
        Err(Errno::EPERM) => open(Path::new(&path), flags, Mode::empty()),
        opened => opened,
    };
    Ok(File::from(opened?))
}

/// At most `limit` bytes, in a buffer that never moves, and whether the file
/// ended before that was full.
fn fill(file: &mut File, limit: usize) -> io::Result<(Zeroizing<Vec<u8>>, bool)> {
    let mut buffer = Zeroizing::new(vec![0; limit]);
    let mut filled = 0;
    while filled < limit {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => {
                buffer.truncate(filled);
                return Ok((buffer, true));
            }
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok((buffer, false))
}

/// Whether the file and the one beside it hold the two halves of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pair {
    /// They do.
    Same,
    /// They hold different keys.
    Different,
    /// The private key does not say without its passphrase.
    Unknown,
}

/// What was found in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// What it is, if it is a key file.
    pub facts: Option<Facts>,
    /// The hash of its content, if it was read to its end.
    pub sha256: Option<[u8; 32]>,
    /// Whether it was read to its end.
    pub whole: bool,
    /// Whether ssh or sshd refuses it for its permission bits (for sshd, with
    /// `StrictModes`); `None` where they do not care.
    pub refused: Option<bool>,
    /// How it goes with the file beside it, if that holds the other half of a key.
    pub pair: Option<Pair>,
    /// The identity is the one of the public key beside it, as `ssh-keygen -l`
    /// prints it too: the private key does not say.
    pub borrowed: bool,
}

/// Reads `file`, and `beside` it the file that should hold the other half of
/// its key ([`super::pair_name`]).
///
/// # Errors
/// As [`read`], of `file`; that the other one cannot be read is no error.
pub fn inspect(
    file: BorrowedFd<'_>,
    role: Role,
    beside: Option<BorrowedFd<'_>>,
) -> io::Result<Inspection> {
    let content = read(file)?;
    let mut facts = facts(&content, role);
    let sha256 = content
        .is_whole()
        .then(|| Sha256::digest(content.head.as_slice()).into());
    let refused = facts.as_ref().and_then(|facts| match facts.kind {
        Kind::Private | Kind::Host => Some(content.mode & 0o077 != 0),
        Kind::AuthorizedKeys => Some(content.mode & 0o022 != 0),
        Kind::Public | Kind::Certificate | Kind::KnownHosts => None,
    });
    let mut pair = None;
    let mut borrowed = false;
    if let Some(facts) = &mut facts
        && facts.list.is_none()
        && let Some(beside) = beside
        && let Ok(content) = read(beside.as_fd())
        && let Some(other) = self::facts(&content, role)
        && other.list.is_none()
        && other.kind.is_secret() != facts.kind.is_secret()
    {
        let found = compare(facts, &other);
        if found != Pair::Different && facts.kind.is_secret() {
            borrowed = found == Pair::Unknown;
            if borrowed {
                facts.identity = other.identity;
            }
            facts.comment = facts.comment.take().or(other.comment);
        }
        pair = Some(found);
    }
    Ok(Inspection {
        facts,
        sha256,
        whole: content.is_whole(),
        refused,
        pair,
        borrowed,
    })
}

fn compare(one: &Facts, other: &Facts) -> Pair {
    let (one, other) = (&one.identity, &other.identity);
    let kind = |identity: &Identity| {
        let name = identity.algorithm.as_deref()?;
        Some(name.strip_suffix(CERTIFICATE).unwrap_or(name).to_owned())
    };
    match (&one.fingerprint, &other.fingerprint) {
        (Some(one), Some(other)) if one == other => Pair::Same,
        (Some(_), Some(_)) => Pair::Different,
        // The label of an encrypted key can still say that it is of another type.
        _ => match (kind(one), kind(other)) {
            (Some(one), Some(other)) if one != other => Pair::Different,
            _ => Pair::Unknown,
        },
    }
}

/// What a file is. Of a list that is too long, its end counts too.
fn facts(content: &Content, role: Role) -> Option<Facts> {
    let Some(tail) = &content.tail else {
        return examine(&content.head, role);
    };
    let last = |c: &u8| *c == b'\n';
    let head = content.head.iter().rposition(last);
    let mut facts = examine(&content.head[..head.unwrap_or(content.head.len())], role)?;
    if let Some(known) = &mut facts.list {
        let start = tail.iter().position(last).map_or(tail.len(), |at| at + 1);
        let role = match facts.kind {
            Kind::KnownHosts => Role::KnownHosts,
            _ => Role::AuthorizedKeys,
        };
        known.append(list::parse(&tail[start..], role));
    }
    Some(facts)
}
