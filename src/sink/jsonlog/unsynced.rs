//! What was written and not yet forced to the disk.
//!
//! Where the disk refuses it (EIO), the kernel holds the pages for clean
//! (fsync(2)): forcing again succeeds and means nothing, and what was in them is
//! gone with the next reboot. So the bytes are kept until they were forced, and
//! written once more where they stand.
//!
//! Owns these bytes, at most [`LIMIT`] of them. Must not decide when to force.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// So many bytes may wait to be forced.
pub(super) const LIMIT: usize = 8 << 20;

/// The end of one file, from the first byte that was not forced.
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    start: u64,
    bytes: Vec<u8>,
    /// The disk has refused them.
    refused: bool,
}

impl Unsynced {
    /// Whether so many more would be too many.
    pub(super) fn is_full(&self, more: usize) -> bool {
        !self.bytes.is_empty() && self.bytes.len() + more > LIMIT
    }

    /// `bytes` were appended to a file of `len` bytes.
    pub(super) fn push(&mut self, len: u64, bytes: &[u8]) {
        if len != self.start + self.bytes.len() as u64 {
            // Truncated by somebody, who took what was there before.
            self.bytes.clear();
        }
        if self.bytes.is_empty() {
            self.start = len;
            self.refused = false;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Nothing waits any more.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(LIMIT >> 4);
        self.refused = false;
    }

    /// Forces the file to the disk, see fdatasync(2). On error the bytes stay.
    pub(super) fn force(&mut self, file: &File) -> io::Result<()> {
        if self.refused {
            self.write_again(file)?;
        }
        match file.sync_data() {
            Ok(()) => {
                self.clear();
                Ok(())
            }
            Err(error) => {
                self.refused = !self.bytes.is_empty();
                Err(error)
            }
        }
    }

    /// Writes the bytes once more over themselves, which makes their pages dirty.
    fn write_again(&self, file: &File) -> io::Result<()> {
        if file.metadata()?.len() < self.start + self.bytes.len() as u64 {
            return Ok(()); // Truncated: they are somewhere else now.
        }
        // pwrite(2) on a descriptor with O_APPEND appends, whatever the offset.
        let flags = OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL)?);
        fcntl(file, FcntlArg::F_SETFL(flags - OFlag::O_APPEND))?;
        let written = file.write_all_at(&self.bytes, self.start);
        fcntl(file, FcntlArg::F_SETFL(flags))?;
        written
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write as _;

    use super::*;

    #[test]
    fn what_was_refused_is_written_again_where_it_stands() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let options = OpenOptions::new().append(true).create(true).clone();
        let mut file = options.open(&path).unwrap();
        file.write_all(b"old\nnew\n").unwrap();
        let mut unsynced = Unsynced::default();
        unsynced.push(4, b"ne");
        unsynced.push(6, b"w\n");
        unsynced.refused = true;
        // What the disk made of it.
        std::fs::write(&path, b"old\n\0\0\0\0").unwrap();
        unsynced.force(&file).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"old\nnew\n");
        assert!(unsynced.bytes.is_empty() && !unsynced.refused);
        file.write_all(b"more\n").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"old\nnew\nmore\n");
    }

    #[test]
    fn what_was_truncated_stays_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let options = OpenOptions::new().append(true).create(true).clone();
        let file = options.open(&path).unwrap();
        let mut unsynced = Unsynced::default();
        unsynced.push(0, b"old\n");
        unsynced.refused = true;
        unsynced.force(&file).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"");
        unsynced.push(0, b"a\n");
        unsynced.push(0, b"b\n");
        assert_eq!((unsynced.start, &*unsynced.bytes), (0, &b"b\n"[..]));
        assert!(!unsynced.is_full(LIMIT - 2) && unsynced.is_full(LIMIT - 1));
    }
}
