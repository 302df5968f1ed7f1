//! The alert log: one ECS document a line, appended.
//!
//! Owns the log's descriptor and the rule that every line of it parses: a line
//! is one write(2), and what a crash or a full disk left of one is taken out
//! again. Must not know what a line says. Fails by error to its thread
//! ([`super::Fanout`]), which keeps the line and offers it again.
//!
//! It rotates itself ([`Rotation`]). Rotation by others needs no word from anybody: before each line the path is looked at,
//! and when it names another file, or none, it is opened anew (so `create`,
//! `nocreate` and plain `rm` work). `copytruncate` works because of `O_APPEND`.
//!
//! Room for a line is reserved before it is written, so that a full disk leaves
//! no half of it. Where a file system cannot reserve, what was written of it is
//! taken out again.
//!
//! Each line has its place in a chain ([`chain`]), by which a log that was changed
//! by others is known.
//!
//! What the disk refuses when it is forced to it is written once more ([`unsynced`]).
//!
//! A last line without its newline, found when opening, is
//! - completed, if it is a whole JSON object (only the newline was lost);
//! - moved to `<log>.torn`, if it is not, and cut from the log;
//! - ended with a newline where that is impossible (`chattr +a`): then that one
//!   line does not parse, and readers skip it.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::unistd::{Gid, Group};
use serde_json::{Map, Value};

use self::chain::Chain;
use self::open::{at, open_or_create};
use self::reserve::Reserve;
use self::rotate::Rotator;
use self::unsynced::Unsynced;
use super::{Line, Sink, Spool};
use crate::text::escape_path;

mod archive;
mod chain;
mod open;
mod reserve;
mod rotate;
mod unsynced;

pub use chain::{Flaw, Link, Verifier, last_written};
pub use rotate::Rotation;
pub(crate) use rotate::{LAST_NUMBER, rotated};

/// So long after a rename logrotate's `create` has time to make the log. Where
/// we had made it, it would move ours out of its way, to where nobody looks.
const LET_CREATE: Duration = Duration::from_millis(50);

/// A torn line longer than this is not read into memory, only ended.
const TORN_LIMIT: u64 = 16 << 20;

/// How a log is made when it is not there yet. An existing file keeps the mode
/// and owner that the admin, or logrotate's `create`, gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Permission bits, whatever the umask.
    pub mode: u32,
    /// The group that may read it; one that does not exist here is left out.
    pub group: Option<String>,
    /// When it is rotated.
    pub rotation: Rotation,
    /// The file that says where the log ends, apart from it.
    pub head: Option<PathBuf>,
}

impl Default for Options {
    /// 0640, Debian's group for readers of logs, and no rotation.
    fn default() -> Self {
        Self {
            mode: 0o640,
            group: Some("adm".to_owned()),
            rotation: Rotation::OFF,
            head: None,
        }
    }
}

/// The JSON log as a sink.
#[derive(Debug)]
pub struct JsonLog {
    path: PathBuf,
    mode: u32,
    gid: Option<Gid>,
    file: File,
    /// (device, inode) of `file`.
    identity: (u64, u64),
    reserve: Reserve,
    rotator: Rotator,
    chain: Chain,
    /// Where the last line of ours ends, if all before it is known.
    end: Option<u64>,
    /// Of when the first line is; looked at only if its age matters.
    since: Option<SystemTime>,
    /// A fragment stands at the end that could not be taken out.
    unterminated: bool,
    /// Since when the log is not there.
    absent_since: Option<Instant>,
    dirty: bool,
    unsynced: Unsynced,
    group_refused: bool,
    notes: Vec<String>,
}

impl JsonLog {
    /// Opens the log for appending, making it and its directories (0750) where
    /// they are missing, and repairs its last line.
    pub fn open(path: &Path, options: &Options) -> io::Result<Self> {
        let gid = options
            .group
            .as_deref()
            .and_then(|name| match Group::from_name(name) {
                Ok(Some(group)) => Some(group.gid),
                Ok(None) => {
                    tracing::info!(
                        group = name,
                        "no such group here; a new log keeps the daemon's group"
                    );
                    None
                }
                Err(error) => {
                    tracing::warn!(group = name, %error, "cannot look the log's group up");
                    None
                }
            });
        let (file, created) = open_or_create(path, options.mode)?;
        let mut log = Self {
            chain: Chain::default(),
            end: None,
            path: path.to_owned(),
            mode: options.mode,
            gid,
            file,
            identity: (0, 0),
            reserve: Reserve::default(),
            rotator: Rotator::new(path, &options.rotation),
            since: None,
            unterminated: false,
            absent_since: None,
            dirty: false,
            unsynced: Unsynced::default(),
            group_refused: false,
            notes: Vec::new(),
        };
        log.take_over(created)?;
        let head = options.head.as_deref();
        log.chain = Chain::resume(path, &log.file, head, &mut log.notes);
        // After a kill its last lines may be in memory alone. They count as told.
        log.dirty = true;
        if let Err(error) = log.settle() {
            log.notes.push(error.to_string());
        }
        Ok(log)
    }

    /// Opens whatever the path names now.
    fn open_anew(&mut self) -> io::Result<()> {
        let (file, created) = open_or_create(&self.path, self.mode)?;
        if self.dirty
            && let Err(error) = self.unsynced.force(&self.file)
        {
            // The old file is out of our hands; say it, and go on with the new.
            self.notes.push(format!(
                "the rotated log could not be forced to disk: {error}"
            ));
        }
        self.reserve.release(&self.file);
        self.file = file;
        self.dirty = false;
        self.unsynced.clear();
        self.unterminated = false;
        self.take_over(created)
    }

    /// Makes the freshly opened file ours.
    fn take_over(&mut self, created: bool) -> io::Result<()> {
        let meta = self.file.metadata()?;
        self.identity = (meta.dev(), meta.ino());
        if created {
            self.dress()?;
        } else if meta.mode() & 0o022 != 0 {
            self.notes.push(format!(
                "{}: others than its owner may write to the alert log (mode {:04o}); chmod go-w it",
                escape_path(&self.path),
                meta.mode() & 0o7777
            ));
        }
        self.since = if self.rotator.asks_for_age() && meta.len() > 0 {
            first_time(&self.file).or_else(|| meta.modified().ok())
        } else {
            None
        };
        self.repair(meta.len())?;
        self.end = Some(self.file.metadata()?.len());
        Ok(())
    }

    /// Rotates the log if it is time. Gives the size of the one to write to.
    fn rotate(&mut self, len: u64, need: u64) -> io::Result<u64> {
        if !self.rotator.is_due(len, need, self.since) {
            return Ok(len);
        }
        // While its error can still be told of the file it belongs to.
        self.settle()?;
        self.reserve.release(&self.file);
        if let Err(error) = self.rotator.rotate() {
            let error = at(&self.path, "cannot rotate it", &error);
            self.notes.push(format!("{error}; it grows on meanwhile"));
            return Ok(len);
        }
        self.open_anew()?;
        self.rotator.compress();
        Ok(self.file.metadata()?.len())
    }

    /// Gives a new file its group and mode, and makes its name durable.
    fn dress(&mut self) -> io::Result<()> {
        if let Some(gid) = self.gid
            && let Err(error) = nix::unistd::fchown(&self.file, None, Some(gid))
            && !self.group_refused
        {
            self.group_refused = true;
            tracing::info!(%error, %gid, "the new log keeps the daemon's group");
        }
        self.file
            .set_permissions(Permissions::from_mode(self.mode))
            .map_err(|error| at(&self.path, "cannot set its mode", &error))?;
        // Not every file system can sync a directory; the log works without it.
        let parent = self
            .path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        if let Err(error) =
            File::open(parent.unwrap_or(Path::new("."))).and_then(|dir| dir.sync_all())
        {
            tracing::debug!(%error, "the log's directory could not be synced");
        }
        Ok(())
    }

    /// Sees to it that the file ends with a newline.
    fn repair(&mut self, len: u64) -> io::Result<()> {
        let start = line_start(&self.file, len)?;
        if start == len {
            return Ok(());
        }
        let bytes = len - start;
        let name = escape_path(&self.path);
        if bytes <= TORN_LIMIT {
            let mut fragment = vec![0; usize::try_from(bytes).unwrap_or_default()];
            self.file.read_exact_at(&mut fragment, start)?;
            if serde_json::from_slice::<Map<String, Value>>(&fragment).is_ok() {
                self.file.write_all(b"\n")?;
                self.dirty = true;
                self.notes.push(format!(
                    "{name}: the last line had lost its newline, which was added"
                ));
                return Ok(());
            }
            fragment.push(b'\n');
            match self.set_aside(&fragment, start) {
                Ok(aside) => {
                    self.notes.push(format!(
                        "{name}: a torn last line of {bytes} bytes was moved to {}",
                        escape_path(&aside)
                    ));
                    return Ok(());
                }
                Err(error) => tracing::warn!(%error, "cannot set a torn line aside"),
            }
        }
        self.file.write_all(b"\n")?;
        self.dirty = true;
        self.notes.push(format!(
            "{name}: a torn last line of {bytes} bytes was ended and stays in the log"
        ));
        Ok(())
    }

    /// Moves the fragment from `start` on to the sibling file, durably before
    /// it is cut from the log.
    fn set_aside(&self, fragment: &[u8], start: u64) -> io::Result<PathBuf> {
        let mut aside = self.path.clone().into_os_string();
        aside.push(".torn");
        let aside = PathBuf::from(aside);
        let (mut file, _) = open_or_create(&aside, self.mode & 0o600)?;
        file.write_all(fragment)?;
        file.sync_all()?;
        self.file.set_len(start)?;
        self.file.sync_all()?;
        Ok(aside)
    }

    /// Opens the path anew if it no longer names our file. Gives the file's size.
    fn follow_rotation(&mut self) -> io::Result<u64> {
        let mut found = fs::symlink_metadata(&self.path);
        while let Err(error) = &found
            && is_absence(error)
        {
            // Once: a log that cannot be made must not cost each line this time.
            let since = *self.absent_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= LET_CREATE {
                break;
            }
            thread::sleep(LET_CREATE / 25);
            found = fs::symlink_metadata(&self.path);
        }
        match found {
            Ok(meta) if (meta.dev(), meta.ino()) == self.identity => {
                self.absent_since = None;
                self.expect(meta.len());
                return Ok(meta.len());
            }
            Ok(_) => self.open_anew()?,
            Err(error) if is_absence(&error) => self.open_anew()?,
            // The path cannot be looked at, but the descriptor is still good.
            Err(_) => return Ok(self.file.metadata()?.len()),
        }
        self.absent_since = None;
        Ok(self.file.metadata()?.len())
    }

    /// Says that others wrote to the log, or cut it. Emptied it is by logrotate's
    /// `copytruncate`, which has a copy.
    fn expect(&mut self, len: u64) {
        if let Some(end) = self.end.replace(len)
            && end != len
            && len > 0
        {
            self.notes.push(format!(
                "{}: others than ssh-keywatch changed the log: it had {end} bytes, and has {len}; \
                 `ssh-keywatch check --log` says where",
                escape_path(&self.path)
            ));
        }
    }

    /// Takes out what a failed write left, so that the line can be offered
    /// again; where that fails the next line starts with a newline.
    fn undo(&mut self, written: &[u8]) {
        if written.is_empty() {
            return;
        }
        let undone = || -> io::Result<bool> {
            let len = self.file.metadata()?.len();
            let Some(start) = len.checked_sub(written.len() as u64) else {
                return Ok(false);
            };
            let mut tail = vec![0; written.len()];
            self.file.read_exact_at(&mut tail, start)?;
            if tail != written {
                return Ok(false); // Somebody else has appended meanwhile.
            }
            self.file.set_len(start)?;
            Ok(true)
        };
        self.unterminated = !undone().unwrap_or(false);
    }
}

impl Sink for JsonLog {
    fn name(&self) -> &'static str {
        "log"
    }

    fn write(&mut self, line: &Line) -> io::Result<()> {
        let len = self.follow_rotation()?;
        let json = self.chain.line(&line.document);
        let len = self.rotate(len, json.len() as u64 + 1)?;
        if len == 0 {
            self.since = Some(SystemTime::now());
        }
        let mut bytes = Vec::with_capacity(json.len() + 2);
        if self.unterminated {
            bytes.push(b'\n');
        }
        bytes.extend_from_slice(json.as_bytes());
        bytes.push(b'\n');
        if self.unsynced.is_full(bytes.len()) {
            self.settle()?;
        }
        self.reserve
            .cover(&self.file, len, bytes.len() as u64)
            .map_err(|error| at(&self.path, "cannot write", &error))?;
        match write_whole(&mut self.file, &bytes) {
            Ok(()) => {
                self.unterminated = false;
                self.dirty = true;
                self.end = self.end.map(|end| end + bytes.len() as u64);
                self.chain.wrote(&json);
                self.unsynced.push(len, &bytes);
                Ok(())
            }
            Err((written, error)) => {
                self.end = None;
                self.undo(&bytes[..written]);
                Err(at(&self.path, "cannot write", &error))
            }
        }
    }

    fn settle(&mut self) -> io::Result<()> {
        if self.dirty {
            self.unsynced
                .force(&self.file)
                .map_err(|error| at(&self.path, "cannot force it to disk", &error))?;
            self.dirty = false;
            self.chain.settled();
        }
        Ok(())
    }

    fn is_record(&self) -> bool {
        true
    }

    fn reopen(&mut self) -> io::Result<()> {
        self.open_anew()
    }

    fn spool(&self) -> Spool {
        Spool {
            lines: 4096,
            bytes: 8 << 20,
        }
    }

    fn notes(&mut self) -> Vec<String> {
        let mut notes = std::mem::take(&mut self.notes);
        notes.extend(self.rotator.notes());
        notes
    }
}

impl Drop for JsonLog {
    fn drop(&mut self) {
        self.reserve.release(&self.file);
    }
}

/// One write(2) as a rule; the rest in further ones when the kernel took only a
/// part. On error, how much had been written.
fn write_whole(out: &mut impl Write, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
    let mut written = 0;
    while written < bytes.len() {
        match out.write(&bytes[written..]) {
            Ok(0) => return Err((written, io::ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err((written, error)),
        }
    }
    Ok(())
}

/// Whether an error says that nothing stands at the path.
pub(crate) fn is_absence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Where the line starts that ends (without its newline) at `end`; `end` itself
/// if a newline, or nothing, stands right before it.
pub(crate) fn line_start(file: &File, end: u64) -> io::Result<u64> {
    let mut buffer = [0; 8 << 10];
    let mut end = end;
    while end > 0 {
        let start = end.saturating_sub(buffer.len() as u64);
        let chunk = &mut buffer[..usize::try_from(end - start).unwrap_or_default()];
        file.read_exact_at(chunk, start)?;
        if let Some(newline) = chunk.iter().rposition(|&byte| byte == b'\n') {
            return Ok(start + newline as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// The `@timestamp` of the first line, if it can be read.
fn first_time(file: &File) -> Option<SystemTime> {
    let mut bytes = vec![0; 64 << 10];
    let count = file.read_at(&mut bytes, 0).ok()?;
    let line = bytes[..count].split(|&byte| byte == b'\n').next()?;
    let document: Map<String, Value> = serde_json::from_slice(line).ok()?;
    let time: jiff::Timestamp = super::text(&document, "@timestamp")?.parse().ok()?;
    time.try_into().ok()
}

#[cfg(test)]
mod tests;
