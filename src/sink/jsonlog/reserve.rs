//! Room on the disk for the lines to come, so that a full disk refuses a line
//! before its first byte is written: who follows the log would otherwise see
//! half a line that is taken out again.
//!
//! Owns how far the log's file has room beyond its end. Must not write to it.
//! Fails by error only where the disk has no room for the line at hand.

use std::fs::File;
use std::io;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

/// So much is reserved at once (bytes), so that most lines cost no further call.
pub(super) const CHUNK: u64 = 64 << 10;

/// What is reserved of one file.
#[derive(Debug, Default)]
pub(super) struct Reserve {
    /// Up to this offset the file has blocks.
    until: u64,
    /// Where the last line that was covered ended.
    end: u64,
    /// The file system cannot reserve: a line that does not fit is taken out again.
    unable: bool,
}

impl Reserve {
    /// Sees to it that `need` bytes fit behind the file's end at `len`.
    ///
    /// Errs with ENOSPC or EDQUOT. By fallocate(2) with `FALLOC_FL_KEEP_SIZE`,
    /// which leaves the file's size as it is.
    pub(super) fn cover(&mut self, file: &File, len: u64, need: u64) -> io::Result<()> {
        if len < self.end {
            // Truncated by somebody (`copytruncate`), and the reserve with it.
            self.until = 0;
        }
        self.end = len + need;
        if self.unable || self.end <= self.until {
            return Ok(());
        }
        let mut room = need.max(CHUNK);
        loop {
            match allocate(file, len, room) {
                Ok(()) => {
                    self.until = len + room;
                    return Ok(());
                }
                Err(Errno::EINTR) => {}
                Err(Errno::ENOSPC | Errno::EDQUOT) if room > need => room = need,
                Err(error @ (Errno::ENOSPC | Errno::EDQUOT)) => return Err(error.into()),
                Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL | Errno::EPERM) => {
                    self.unable = true;
                    return Ok(());
                }
                // Whatever it is (EIO, EFBIG), write(2) will tell it better.
                Err(_) => return Ok(()),
            }
        }
    }

    /// Gives back what was not used, before the file is left for good.
    pub(super) fn release(&mut self, file: &File) {
        if self.until > 0
            && let Ok(meta) = file.metadata()
            && meta.len() < self.until
        {
            // To the size that it has: only the blocks behind it go. Where that
            // fails the file keeps them, at most CHUNK bytes.
            let _ = file.set_len(meta.len());
        }
        *self = Self::default();
    }
}

fn allocate(file: &File, offset: u64, len: u64) -> nix::Result<()> {
    let offset = i64::try_from(offset).map_err(|_| Errno::EFBIG)?;
    let len = i64::try_from(len).map_err(|_| Errno::EFBIG)?;
    fallocate(file, FallocateFlags::FALLOC_FL_KEEP_SIZE, offset, len)
}
