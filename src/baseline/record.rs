//! A file as it was, and whether it still is.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::key::{Entry, Facts, Identity};

/// At most so many entries of a list are kept; of a longer one, none is.
const ENTRIES: usize = 1024;
/// At most so many bytes of their texts.
const TEXTS: usize = 128 * 1024;

/// A time, as stat(2) gives it: seconds since the epoch, and nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Moment(pub i64, pub u32);

impl From<SystemTime> for Moment {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => Self(
                i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
                since.subsec_nanos(),
            ),
            // Nobody's files are that old.
            Err(_) => Self::default(),
        }
    }
}

impl From<Moment> for SystemTime {
    fn from(moment: Moment) -> Self {
        let seconds = u64::try_from(moment.0).unwrap_or(0);
        Self::UNIX_EPOCH
            .checked_add(Duration::new(seconds, moment.1.min(999_999_999)))
            .unwrap_or(Self::UNIX_EPOCH)
    }
}

/// What lstat(2) says of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stat {
    /// `st_dev`; other file systems may have it after the next boot.
    pub device: u64,
    /// `st_ino`.
    pub inode: u64,
    /// Type and permission bits: `st_mode`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes.
    pub size: u64,
    /// Last change of the content.
    pub modified: Moment,
    /// Last change of the inode.
    pub changed: Moment,
}

impl Stat {
    /// The type bits of the mode (`S_IFMT`, inode(7)).
    #[must_use]
    pub fn kind(&self) -> u32 {
        self.mode & libc::S_IFMT
    }
}

impl From<&Metadata> for Stat {
    fn from(metadata: &Metadata) -> Self {
        let moment = |seconds, nanos| Moment(seconds, u32::try_from(nanos).unwrap_or(0));
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            mode: metadata.mode(),
            uid: metadata.uid(),
            gid: metadata.gid(),
            size: metadata.len(),
            modified: moment(metadata.mtime(), metadata.mtime_nsec()),
            changed: moment(metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// What is in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// It is too large, could not be read, or is no file that has a content.
    #[default]
    Unread,
    /// SHA-256, hex.
    Sha256(String),
    /// Where a symbolic link points, hex.
    Target(String),
}

/// Which key a file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyFacts {
    /// `ssh_keywatch.key.kind`.
    pub kind: String,
    /// `SHA256:…`, where the file says.
    pub fingerprint: Option<String>,
}

impl From<&Facts> for KeyFacts {
    fn from(facts: &Facts) -> Self {
        Self {
            kind: facts.kind.as_str().to_owned(),
            fingerprint: facts.identity.fingerprint.clone(),
        }
    }
}

/// An entry of a list of keys: as much as tells it from others, and names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    algorithm: Option<String>,
    bits: Option<u32>,
    fingerprint: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    options: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hosts: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    comment: Option<String>,
    prefix: String,
}

impl Login {
    /// The entries of a list, unless they are too many to be kept.
    #[must_use]
    pub fn all(entries: &[Entry]) -> Option<Vec<Self>> {
        let texts = |entry: &Entry| {
            let options: usize = entry.options.iter().map(String::len).sum();
            let others = [&entry.hosts, &entry.comment].into_iter().flatten();
            options + others.map(String::len).sum::<usize>()
        };
        if entries.len() > ENTRIES || entries.iter().map(texts).sum::<usize>() > TEXTS {
            return None;
        }
        Some(entries.iter().map(Self::from).collect())
    }
}

impl From<&Entry> for Login {
    fn from(entry: &Entry) -> Self {
        Self {
            algorithm: entry.identity.algorithm.clone(),
            bits: entry.identity.bits,
            fingerprint: entry.identity.fingerprint.clone(),
            options: entry.options.clone(),
            hosts: entry.hosts.clone(),
            comment: entry.comment.clone(),
            prefix: data_encoding::HEXLOWER.encode(&entry.prefix),
        }
    }
}

impl From<Login> for Entry {
    fn from(login: Login) -> Self {
        let mut prefix = [0; 16];
        if let Ok(bytes) = data_encoding::HEXLOWER.decode(login.prefix.as_bytes())
            && let Ok(bytes) = bytes.try_into()
        {
            prefix = bytes;
        }
        Self {
            identity: Identity {
                algorithm: login.algorithm,
                bits: login.bits,
                fingerprint: login.fingerprint,
                ..Identity::default()
            },
            options: login.options,
            hosts: login.hosts,
            prefix,
            comment: login.comment,
            certificate: None,
        }
    }
}

/// Who made a file or put it where it is, as far as that was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// When (RFC 3339).
    pub time: String,
    /// The program, if it is certain or likely.
    pub executable: Option<String>,
    /// Its process id.
    pub pid: Option<u64>,
    /// As whom.
    pub user: Option<String>,
    /// `ssh_keywatch.attribution.method`.
    pub method: Option<String>,
    /// Whether it is certain.
    pub certain: bool,
    /// `event.id` of the alert about it, if there was one.
    pub alert: Option<String>,
}

/// What is known of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// File-system id and file handle, hex, where the file system has handles.
    pub object: Option<String>,
    /// What lstat(2) said.
    pub stat: Stat,
    /// What was in it.
    #[serde(default)]
    pub content: Content,
    /// Which key it held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyFacts>,
    /// Of a list of keys, its entries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<Vec<Login>>,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<Made>,
}

impl Record {
    /// Whether `now` leaves no room for another content than then: the file need
    /// not be read. Every write(2) moves the inode's change time, which nobody
    /// can set, and an inode that is used again has another one. A store through a
    /// mapping moves none if the page had been written to before.
    #[must_use]
    pub fn is_unread(&self, now: &Stat) -> bool {
        let then = &self.stat;
        (
            then.inode,
            then.kind(),
            then.size,
            then.modified,
            then.changed,
        ) == (now.inode, now.kind(), now.size, now.modified, now.changed)
    }

    /// Whether it became something else. New times, another owner, other
    /// permissions or a copy in its place are no other content; where contents
    /// cannot be compared, size and times must do, with that of the inode's last
    /// change, which the owner cannot set.
    #[must_use]
    pub fn differs(&self, now: &Self) -> bool {
        if self.stat.kind() != now.stat.kind() {
            return true;
        }
        if !matches!(self.stat.kind(), libc::S_IFREG | libc::S_IFLNK) {
            return false;
        }
        match (&self.content, &now.content) {
            (Content::Unread, _) | (_, Content::Unread) => {
                let looks = |stat: &Stat| (stat.size, stat.modified, stat.changed);
                looks(&self.stat) != looks(&now.stat)
            }
            (then, now) => then != now,
        }
    }

    /// Whether a file system with this device number, and with this directory
    /// on it, is the one that the file was on.
    #[must_use]
    pub fn was_on(&self, device: u64, directory: Option<&str>) -> bool {
        /// Hexadecimal digits of `f_fsid` (statfs(2)).
        const FSID: usize = 16;
        let id = |object: &str| object.get(..FSID).map(str::to_owned);
        let then = self.object.as_deref().and_then(id);
        self.stat.device == device || then.is_some_and(|then| directory.and_then(id) == Some(then))
    }
}
