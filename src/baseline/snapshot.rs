//! Reading the store while a daemon has it: from a copy in memory, for redb lets
//! nobody else in.
//!
//! Owns how such a copy is one state of the store and not parts of two: redb
//! writes pages that are not in use, and then the file's head, which says what is.
//! So nothing in a copy has changed if the head is the same before and after.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redb::StorageBackend;

/// What redb keeps its head in (bytes).
const HEAD: usize = 4096;
/// A larger store is not copied. A million files take less.
const MOST: u64 = 1 << 30;
/// How often it is tried, and how long a commit takes meanwhile.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(20);

/// A copy of a file, which can be changed and is lost.
#[derive(Debug)]
pub(super) struct Copy(Mutex<Vec<u8>>);

impl Copy {
    /// Copies the store at `path`.
    ///
    /// # Errors
    /// The file cannot be read, or was changed each time meanwhile.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        for _ in 0..TRIES {
            let length = file.metadata()?.len();
            if length > MOST {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
            let mut head = vec![0; bytes.len().min(HEAD)];
            file.read_exact_at(&mut head, 0)?;
            file.read_exact_at(&mut bytes, 0)?;
            let before = std::mem::replace(&mut head, vec![0; bytes.len().min(HEAD)]);
            file.read_exact_at(&mut head, 0)?;
            if before == head && bytes.starts_with(&head) {
                return Ok(Self(Mutex::new(bytes)));
            }
            std::thread::sleep(PAUSE);
        }
        Err(io::Error::other("it changes all the time"))
    }

    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn place(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(io::Error::other)
}

impl StorageBackend for Copy {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let start = place(offset)?;
        let bytes = self.bytes();
        let found = bytes.get(start..).and_then(|rest| rest.get(..out.len()));
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.bytes().resize(place(len)?, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let start = place(offset)?;
        let mut bytes = self.bytes();
        let found = bytes
            .get_mut(start..)
            .and_then(|rest| rest.get_mut(..data.len()));
        found
            .ok_or(io::ErrorKind::UnexpectedEof)?
            .copy_from_slice(data);
        Ok(())
    }
}
