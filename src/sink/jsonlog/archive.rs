//! Compressing rotated logs, off the way of the lines.
//!
//! Owns a thread that lives while there is work, and the lock under which the
//! names of rotated logs change. Must not touch the log itself, nor `log.1`.
//! Fails by a note; the plain file stays then, and is tried again after the next
//! rotation and the next start.
//!
//! `log.N` is compressed into a hidden file, which is on the disk before it is
//! renamed to `log.N.gz`; only then `log.N` goes. A crash leaves the hidden file,
//! which the next run overwrites, or both names: then it is made once more. The
//! lock does not keep logrotate(8) off, so what is removed is looked at again
//! when nobody else knows its name.

use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{self, BufWriter};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::rotate::{LAST_NUMBER, rename, rotated};
use super::{at, is_absence};
use crate::sink::fanout::lock;
use crate::text::escape_path;

/// The first number that is compressed.
const FIRST: u32 = 2;

/// How much less than others the compressing thread asks for the processor (nice(2)).
const NICE: i32 = 10;

/// Notes kept until somebody asks.
const NOTES: usize = 16;

#[derive(Debug)]
pub(super) struct Archive {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    log: PathBuf,
    /// Held while rotated logs are renamed or removed; never while one is read.
    names: Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    running: bool,
    /// There is more to do than when the thread last looked.
    again: bool,
    notes: Vec<String>,
}

impl Archive {
    pub(super) fn new(log: &Path) -> Self {
        Self {
            shared: Arc::new(Shared {
                log: log.to_owned(),
                names: Mutex::default(),
                state: Mutex::default(),
            }),
        }
    }

    /// As long as the guard lives, no rotated log changes its name.
    pub(super) fn lock(&self) -> MutexGuard<'_, ()> {
        lock(&self.shared.names)
    }

    /// Compresses what there is to compress, on a thread of its own.
    pub(super) fn wake(&self) {
        let mut state = lock(&self.shared.state);
        if state.running {
            state.again = true;
            return;
        }
        let shared = Arc::clone(&self.shared);
        let started = thread::Builder::new()
            .name("sink-log-gz".to_owned())
            .spawn(move || {
                // Whoever waits for an alert needs the processor more.
                let _ = crate::sys::thread::nice(NICE);
                shared.work();
            });
        match started {
            Ok(_) => state.running = true,
            Err(error) => state.note(format!("cannot start compressing rotated logs: {error}")),
        }
    }

    /// Whether a crash came between the first byte and the last rename.
    pub(super) fn was_interrupted(&self) -> bool {
        let shared = &self.shared;
        let is_there = |path: &Path| fs::symlink_metadata(path).is_ok();
        is_there(&shared.temporary())
            || is_there(&shared.aside())
            || (FIRST..=LAST_NUMBER).any(|number| {
                [true, false]
                    .iter()
                    .all(|gz| is_there(&rotated(&shared.log, number, *gz)))
            })
    }

    pub(super) fn notes(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.shared.state).notes)
    }

    /// Returns when there is nothing more to do.
    #[cfg(test)]
    pub(super) fn wait(&self) {
        while lock(&self.shared.state).running {
            thread::yield_now();
        }
    }
}

impl State {
    fn note(&mut self, note: String) {
        if self.notes.len() < NOTES {
            self.notes.push(note);
        }
    }
}

impl Shared {
    fn work(&self) {
        loop {
            let done = self.compress_one();
            let mut state = lock(&self.state);
            match done {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => state.note(error.to_string()),
            }
            if !std::mem::take(&mut state.again) {
                state.running = false;
                return;
            }
        }
    }

    /// Compresses the oldest plain file. False if there is none.
    fn compress_one(&self) -> io::Result<bool> {
        self.settle()?;
        let Some((path, mut plain)) = self.oldest() else {
            let _ = fs::remove_file(self.temporary());
            return Ok(false);
        };
        let failed = |error: io::Error| at(&path, "cannot compress it", &error);
        let temporary = self.temporary();
        let meta = plain.metadata().map_err(failed)?;
        let result =
            compress(&mut plain, &meta, &temporary).and_then(|()| self.publish(&meta, &temporary));
        if let Err(error) = result {
            // What is left of it is of no use, and the disk may be full.
            let _ = fs::remove_file(&temporary);
            return Err(failed(error));
        }
        Ok(true)
    }

    fn oldest(&self) -> Option<(PathBuf, File)> {
        let _names = lock(&self.names);
        (FIRST..=LAST_NUMBER).rev().find_map(|number| {
            let path = rotated(&self.log, number, false);
            let file = OpenOptions::new()
                .read(true)
                .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
                .open(&path)
                .ok()?;
            file.metadata().ok()?.is_file().then_some((path, file))
        })
    }

    fn temporary(&self) -> PathBuf {
        self.hidden("gz")
    }

    fn aside(&self) -> PathBuf {
        self.hidden("old")
    }

    /// Ends what a crash cut short in [`Self::remove`]: the file goes if it is
    /// compressed, which has its time of modification; else it gets a name again.
    fn settle(&self) -> io::Result<()> {
        let _names = lock(&self.names);
        let aside = self.aside();
        let Ok(left) = fs::symlink_metadata(&aside) else {
            return Ok(());
        };
        let time = |meta: &fs::Metadata| (meta.mtime(), meta.mtime_nsec());
        let is_packed = |number: u32| {
            let packed = fs::symlink_metadata(rotated(&self.log, number, true));
            packed.is_ok_and(|packed| time(&packed) == time(&left))
        };
        if (FIRST..=LAST_NUMBER).any(is_packed) {
            return fs::remove_file(aside);
        }
        let is_free = |number: &u32| {
            let taken = |gz| fs::symlink_metadata(rotated(&self.log, *number, gz)).is_ok();
            !taken(false) && !taken(true)
        };
        match (FIRST..=LAST_NUMBER).find(is_free) {
            Some(number) => rename(&aside, &rotated(&self.log, number, false)),
            None => Err(io::Error::other(format!(
                "{} was left by a crash and finds no free number",
                escape_path(&aside)
            ))),
        }
    }

    /// A name that nobody takes for a log.
    fn hidden(&self, end: &str) -> PathBuf {
        let mut name = std::ffi::OsString::from(".");
        name.push(self.log.file_name().unwrap_or_default());
        name.push(format!(".{end}.tmp"));
        self.log.with_file_name(name)
    }

    /// Puts the compressed file in the place of the plain one, whose number may
    /// be another by now.
    fn publish(&self, meta: &fs::Metadata, temporary: &Path) -> io::Result<()> {
        let _names = lock(&self.names);
        let is_it = |path: &PathBuf| {
            let found = fs::symlink_metadata(path);
            found.is_ok_and(|found| (found.dev(), found.ino()) == (meta.dev(), meta.ino()))
        };
        let numbers = 1..=LAST_NUMBER;
        let found = numbers
            .map(|number| (number, rotated(&self.log, number, false)))
            .find(|(_, path)| is_it(path));
        let Some((number, plain)) = found else {
            // Removed meanwhile, or moved by somebody else.
            return fs::remove_file(temporary);
        };
        // What has the name is from a crash, and this is made of the same file.
        fs::rename(temporary, rotated(&self.log, number, true))?;
        if let Some(parent) = self.log.parent()
            && let Err(error) = File::open(parent).and_then(|parent| parent.sync_all())
        {
            tracing::debug!(%error, "{} could not be synced", escape_path(parent));
        }
        self.remove(&plain, meta)
    }

    /// Removes the plain file, but no other that somebody else may have renamed
    /// to its name meanwhile.
    fn remove(&self, plain: &Path, meta: &fs::Metadata) -> io::Result<()> {
        let aside = self.aside();
        match rename(plain, &aside) {
            Err(error) if is_absence(&error) => return Ok(()),
            other => other?,
        }
        let found = fs::symlink_metadata(&aside)?;
        if (found.dev(), found.ino()) == (meta.dev(), meta.ino()) {
            fs::remove_file(aside)
        } else {
            rename(&aside, plain)
        }
    }
}

/// Compresses `plain` into `to`, with the same owner, mode and time, durably.
fn compress(plain: &mut File, meta: &fs::Metadata, to: &Path) -> io::Result<()> {
    let _ = fs::remove_file(to);
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)?;
    let mut encoder = GzEncoder::new(BufWriter::new(&file), Compression::default());
    io::copy(plain, &mut encoder)?;
    encoder
        .finish()?
        .into_inner()
        .map_err(io::IntoInnerError::into_error)?;
    let (uid, gid) = (meta.uid().into(), meta.gid().into());
    // Without CAP_CHOWN it may keep ours; the mode then must not open it to
    // another group.
    let mode = match nix::unistd::fchown(&file, Some(uid), Some(gid)) {
        Ok(()) => meta.mode() & 0o7777,
        Err(_) => meta.mode() & 0o600,
    };
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))?;
    file.set_times(FileTimes::new().set_modified(meta.modified()?))?;
    file.sync_all()
}
