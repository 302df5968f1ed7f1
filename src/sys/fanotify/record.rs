//! The records of fanotify groups (`struct fanotify_event_metadata` and what follows
//! it, include/uapi/linux/fanotify.h).
//!
//! Owns their parsing, and takes over the descriptors in them. Parsed here and not by `nix`, whose
//! reader drops the information records and leaks the pidfds in them.

use std::ffi::OsString;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use crate::sys::{ObjectId, PidFd};

/// A directory entry in a record: the directory's identity and the name in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The directory.
    pub directory: ObjectId,
    /// The name; `.` for the directory itself.
    pub name: OsString,
}

/// One record, its descriptors owned.
#[derive(Debug)]
pub struct Record {
    /// What happened: bits of [`mask`](super::mask).
    pub mask: u64,
    /// Who did it: a process (thread-group) id, or a thread id in a group made
    /// so; 0 when it is outside our pid namespace.
    pub pid: i32,
    /// The opened object, in a permission group.
    pub fd: Option<OwnedFd>,
    /// The process, unless it was gone when the record was read.
    pub pidfd: Option<PidFd>,
    /// The entry the record is about.
    pub entry: Option<Entry>,
    /// The object the entry leads to.
    pub target: Option<ObjectId>,
    /// The former entry of a rename, if its directory is marked.
    pub from: Option<Entry>,
    /// The new entry of a rename, if its directory is marked.
    pub to: Option<Entry>,
}

impl Record {
    /// Whether any of `bits` is set.
    #[must_use]
    pub fn is(&self, bits: u64) -> bool {
        self.mask & bits != 0
    }
}

/// Why bytes could not be read as records: the kernel speaks another version
/// of the protocol, or a length points outside the buffer.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("fanotify gave a record that cannot be read: {0}")]
pub struct Malformed(&'static str);

/// `FAN_EVENT_METADATA_LEN` and the field offsets of `struct fanotify_event_metadata`.
pub(super) const METADATA_LENGTH: usize = 24;
const METADATA_VERSION: u8 = 3;

const INFO_FID: u8 = 1;
const INFO_DFID_NAME: u8 = 2;
const INFO_DFID: u8 = 3;
const INFO_PIDFD: u8 = 4;
const INFO_OLD_DFID_NAME: u8 = 10;
const INFO_NEW_DFID_NAME: u8 = 12;

/// A record before its descriptors are owned: plain data, so that parsing can
/// be tested on bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RawRecord {
    mask: u64,
    pid: i32,
    fd: i32,
    pidfd: i32,
    entry: Option<Entry>,
    target: Option<ObjectId>,
    from: Option<Entry>,
    to: Option<Entry>,
}

fn bytes<const N: usize>(buffer: &[u8], at: usize) -> Result<[u8; N], Malformed> {
    buffer
        .get(at..at + N)
        .and_then(|slice| slice.try_into().ok())
        .ok_or(Malformed("it is cut short"))
}

/// Parses the record at the start of `buffer`; returns it and its length.
fn parse_record(buffer: &[u8]) -> Result<(RawRecord, usize), Malformed> {
    let length = u32::from_ne_bytes(bytes(buffer, 0)?) as usize;
    let version = bytes::<1>(buffer, 4)?[0];
    let metadata_length = usize::from(u16::from_ne_bytes(bytes(buffer, 6)?));
    if version != METADATA_VERSION {
        return Err(Malformed("its version is not 3"));
    }
    if metadata_length < METADATA_LENGTH || length < metadata_length || length > buffer.len() {
        return Err(Malformed("its length is wrong"));
    }
    let mut record = RawRecord {
        mask: u64::from_ne_bytes(bytes(buffer, 8)?),
        fd: i32::from_ne_bytes(bytes(buffer, 16)?),
        pid: i32::from_ne_bytes(bytes(buffer, 20)?),
        pidfd: libc::FAN_NOPIDFD,
        entry: None,
        target: None,
        from: None,
        to: None,
    };
    let mut rest = &buffer[metadata_length..length];
    while !rest.is_empty() {
        let kind = bytes::<1>(rest, 0)?[0];
        let info_length = usize::from(u16::from_ne_bytes(bytes(rest, 2)?));
        if info_length < 4 || info_length > rest.len() {
            return Err(Malformed("the length of its information is wrong"));
        }
        let info = &rest[..info_length];
        match kind {
            INFO_FID => record.target = Some(parse_fid(info)?.0),
            INFO_DFID | INFO_DFID_NAME => record.entry = Some(parse_entry(info)?),
            INFO_OLD_DFID_NAME => record.from = Some(parse_entry(info)?),
            INFO_NEW_DFID_NAME => record.to = Some(parse_entry(info)?),
            INFO_PIDFD => record.pidfd = i32::from_ne_bytes(bytes(info, 4)?),
            // Others, such as FAN_EVENT_INFO_TYPE_ERROR, are not asked for.
            _ => {}
        }
        rest = &rest[info_length..];
    }
    Ok((record, length))
}

/// Parses `struct fanotify_event_info_fid`; returns the identity and what
/// follows the handle.
fn parse_fid(info: &[u8]) -> Result<(ObjectId, &[u8]), Malformed> {
    let fsid = bytes(info, 4)?;
    let handle_length = u32::from_ne_bytes(bytes(info, 12)?) as usize;
    let handle_type = i32::from_ne_bytes(bytes(info, 16)?);
    let end = 20usize
        .checked_add(handle_length)
        .filter(|end| *end <= info.len())
        .ok_or(Malformed("a file handle is cut short"))?;
    let id = ObjectId::from_parts(fsid, handle_type, &info[20..end]);
    Ok((id, &info[end..]))
}

fn parse_entry(info: &[u8]) -> Result<Entry, Malformed> {
    let (directory, rest) = parse_fid(info)?;
    let end = rest
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(rest.len());
    let name = if end == 0 { b"." } else { &rest[..end] };
    Ok(Entry {
        directory,
        name: OsString::from_vec(name.to_vec()),
    })
}

/// Takes over the descriptors of a parsed record.
pub(super) fn own(raw: RawRecord) -> Record {
    let owned = |fd: i32| {
        // SAFETY: the kernel opened this descriptor for us while it copied
        // the record, and nothing else knows it (fanotify(7)).
        (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
    };
    Record {
        mask: raw.mask,
        pid: raw.pid,
        fd: owned(raw.fd),
        pidfd: owned(raw.pidfd).map(PidFd::from_fd),
        entry: raw.entry,
        target: raw.target,
        from: raw.from,
        to: raw.to,
    }
}

/// Parses all records in `bytes`; returns how many there are.
pub(super) fn parse(mut bytes: &[u8], mut take: impl FnMut(RawRecord)) -> Result<usize, Malformed> {
    let mut count = 0;
    while !bytes.is_empty() {
        let (record, used) = parse_record(bytes)?;
        take(record);
        count += 1;
        bytes = &bytes[used..];
    }
    Ok(count)
}

/// How many records `bytes` are; the descriptors in them are nobody's. For fuzzing.
///
/// # Errors
/// They are no records.
#[doc(hidden)]
pub fn count_records(bytes: &[u8]) -> Result<usize, Malformed> {
    parse(bytes, drop)
}
