//! The mount that a file lies on.
//!
//! Owns the table of mounts (`proc_pid_mountinfo(5)`), read again only when the
//! kernel says that it changed: on a host with containers it is long.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStringExt;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::event::Mount;

/// How much of the table is read.
const MAX_TABLE: u64 = 16 << 20;

/// The mounts of the daemon's mount namespace.
pub struct Mounts {
    table: Option<File>,
    known: HashMap<u64, Mount>,
    is_read: bool,
}

impl Mounts {
    /// Nothing is read yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            table: File::open("/proc/self/mountinfo").ok(),
            known: HashMap::new(),
            is_read: false,
        }
    }

    /// The mount that an open file lies on, if it is one of our namespace.
    pub fn of(&mut self, file: &File) -> Option<Mount> {
        let id = mount_id(file)?;
        if !self.is_read || self.has_changed() {
            self.is_read = true;
            self.known = self.read().unwrap_or_default();
        }
        self.known.get(&id).cloned()
    }

    /// "After a change … poll(2) marks the descriptor as having a priority
    /// event" (`proc_pid_mounts(5)`).
    fn has_changed(&self) -> bool {
        let Some(table) = &self.table else {
            return false;
        };
        let mut fds = [PollFd::new(table.as_fd(), PollFlags::POLLPRI)];
        !matches!(poll(&mut fds, PollTimeout::ZERO), Ok(0))
    }

    fn read(&mut self) -> io::Result<HashMap<u64, Mount>> {
        let Some(table) = &mut self.table else {
            return Ok(HashMap::new());
        };
        table.seek(SeekFrom::Start(0))?;
        let mut bytes = Vec::new();
        table.take(MAX_TABLE).read_to_end(&mut bytes)?;
        Ok(bytes
            .split(|byte| *byte == b'\n')
            .filter_map(parse)
            .collect())
    }
}

/// The id of the mount that an open file lies on (`proc_pid_fdinfo(5)`).
fn mount_id(file: &File) -> Option<u64> {
    let path = format!("/proc/self/fdinfo/{}", file.as_raw_fd());
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("mnt_id:"))?;
    line.trim().parse().ok()
}

/// One line: `36 35 98:0 /root /point rw,noatime shared:1 - ext4 /dev/sda rw`.
fn parse(line: &[u8]) -> Option<(u64, Mount)> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let point = fields.nth(3)?;
    let options = fields.next()?;
    fields.find(|field| *field == b"-")?;
    let kind = unescape(fields.next()?);
    let source = unescape(fields.next()?);
    let super_options = fields.next()?;
    let is_ro = |options: &[u8]| options.split(|byte| *byte == b',').any(|it| it == b"ro");
    let mount = Mount {
        point: unescape(point).into(),
        kind,
        source,
        read_only: is_ro(options) || is_ro(super_options),
    };
    Some((id, mount))
}

/// Blanks and backslashes stand there as three octal digits.
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, more)) = rest.split_first() {
        let digits = more
            .get(..3)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if let Some(byte) = escaped.filter(|_| *first == b'\\') {
            bytes.push(byte);
            rest = &more[3..];
        } else {
            bytes.push(*first);
            rest = more;
        }
    }
    OsString::from_vec(bytes)
}

pub(super) fn read_hostile(bytes: &[u8]) {
    for line in bytes.split(|byte| *byte == b'\n') {
        if let Some((_, mount)) = parse(line) {
            assert!(mount.point.as_os_str().len() <= line.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_table() {
        let line = b"36 35 98:0 /mnt1 /mnt/my\\040disk\\134 rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue";
        let expected = Mount {
            point: "/mnt/my disk\\".into(),
            kind: "ext3".into(),
            source: "/dev/root".into(),
            read_only: false,
        };
        assert_eq!(parse(line), Some((36, expected)));
        let read_only = parse(b"9 1 0:5 / /x ro - tmpfs none rw").unwrap().1;
        assert!(read_only.read_only);
        for end in 0..line.len() - 30 {
            assert_eq!(parse(&line[..end]), None);
        }
    }

    #[test]
    fn the_mount_of_a_real_file() {
        let mut mounts = Mounts::new();
        let mount = mounts.of(&File::open("/proc/self/stat").unwrap()).unwrap();
        assert_eq!(mount.point, std::path::Path::new("/proc"));
        assert_eq!(mount.kind, "proc");
        let again = mounts.of(&File::open("/proc/version").unwrap());
        assert_eq!(again, Some(mount));
    }
}
