//! Reading the log from near its end, and on across rotation.
//!
//! Owns the open log and the place up to which its lines have been handed on.
//! Must not wait, nor know which lines are wanted beyond asking. Reads in pieces:
//! memory is bounded by one line ([`LINE_LIMIT`]), whatever the log's size.
//! Fails by `io::Error`; a log that goes away is not an error but a pause.
//!
//! What can happen to the log, and what is done:
//!
//! | what | seen by | then |
//! |---|---|---|
//! | renamed, deleted, made anew | the path names another file, with content | the old file is read to its end, then the new one from its start |
//! | truncated (`copytruncate`), rewritten | the last line handed on stands no longer where it stood | from the start |
//! | a torn last line was cut by the daemon | the piece read stands no longer there | that piece is forgotten |
//!
//! The new file counts only once it has content: until then the daemon, which
//! looks before each line, may still write one to the old file. Two rotations
//! between two looks (a stopped `tail`) pass by the file in the middle.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use jiff::SignedDuration;
use serde_json::{Map, Value};

use super::filter::{Filter, time};
use super::{Printer, Taken};
use crate::sink::{is_absence, line_start};

/// A longer line is not taken into memory but reported and skipped.
const LINE_LIMIT: usize = 16 << 20;

/// How much of the last line is kept to recognise the file by.
const ANCHOR: usize = 64 << 10;

/// Lines are in the order in which alerts were finished, not quite in that of
/// their `@timestamp`; searching backwards goes on so far beyond `--since`.
const DISORDER: SignedDuration = SignedDuration::from_hours(1);

pub(super) struct Follower {
    path: PathBuf,
    source: Option<Source>,
}

impl Follower {
    /// Opens the log at the first of its last `lines` wanted lines.
    pub(super) fn open(path: &Path, lines: u64, filter: &Filter) -> io::Result<Self> {
        let mut source = Source::open(path)?;
        let len = source.file.metadata()?.len();
        let start = start_of(&source.file, len, lines, filter)?;
        source.skip_to(start)?;
        Ok(Self {
            path: path.to_owned(),
            source: Some(source),
        })
    }

    /// For a log that is yet to come: all of it will be new.
    pub(super) fn absent(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            source: None,
        }
    }

    /// Hands on every line that is complete, up to the end of the newest file.
    /// False if there is no log at the moment.
    pub(super) fn step<W: Write, E: Write>(
        &mut self,
        printer: &mut Printer<W, E>,
    ) -> io::Result<bool> {
        loop {
            if let Some(source) = &mut self.source {
                source.drain(&self.path, printer)?;
            }
            let there = match fs::metadata(&self.path) {
                Ok(meta) => meta,
                Err(error) if is_absence(&error) => return Ok(false),
                Err(error) => return Err(error),
            };
            let known = self.source.as_ref().map(|source| source.identity);
            if known == Some((there.dev(), there.ino())) || (known.is_some() && there.len() == 0) {
                return Ok(true);
            }
            let next = match Source::open(&self.path) {
                Ok(next) => next,
                Err(error) if is_absence(&error) => return Ok(false),
                Err(error) => return Err(error),
            };
            if let Some(mut old) = self.source.replace(next) {
                // The new file has content: nobody writes to the old one now.
                old.drain(&self.path, printer)?;
                old.end(&self.path, printer)?;
            }
        }
    }

    /// Hands on everything, a last line without newline too.
    pub(super) fn finish<W: Write, E: Write>(
        mut self,
        printer: &mut Printer<W, E>,
    ) -> io::Result<()> {
        if let Some(source) = &mut self.source {
            source.drain(&self.path, printer)?;
            source.end(&self.path, printer)?;
        }
        Ok(())
    }
}

/// One file and how far it has been read.
struct Source {
    file: File,
    /// (device, inode).
    identity: (u64, u64),
    /// Up to here all lines have been handed on.
    line_start: u64,
    /// Up to here the file has been read.
    position: u64,
    /// What stands between the two, unless it is too long.
    partial: Vec<u8>,
    /// The line being read is longer than the limit.
    overlong: bool,
    /// What stands right before `line_start`.
    anchor: Vec<u8>,
}

impl Source {
    fn open(path: &Path) -> io::Result<Self> {
        // NONBLOCK: a FIFO is refused below, not waited for.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)?;
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is not a regular file",
            ));
        }
        Ok(Self {
            file,
            identity: (meta.dev(), meta.ino()),
            line_start: 0,
            position: 0,
            partial: Vec::new(),
            overlong: false,
            anchor: Vec::new(),
        })
    }

    /// Begins at `start`, which is the start of a line.
    fn skip_to(&mut self, start: u64) -> io::Result<()> {
        let length = start.min(ANCHOR as u64);
        self.anchor = vec![0; usize::try_from(length).unwrap_or_default()];
        self.file.read_exact_at(&mut self.anchor, start - length)?;
        self.line_start = start;
        self.forget_partial();
        Ok(())
    }

    fn forget_partial(&mut self) {
        self.position = self.line_start;
        self.partial.clear();
        self.overlong = false;
    }

    /// Goes back as far as what was read is not what stands there any more.
    fn recognise(&mut self) -> io::Result<()> {
        let anchored = self.line_start - self.anchor.len() as u64;
        if !stands_at(&self.file, anchored, &self.anchor)? {
            self.anchor.clear();
            self.line_start = 0;
            self.forget_partial();
        } else if !stands_at(&self.file, self.line_start, &self.partial)?
            || self.file.metadata()?.len() < self.position
        {
            self.forget_partial();
        }
        Ok(())
    }

    fn drain<W: Write, E: Write>(
        &mut self,
        log: &Path,
        printer: &mut Printer<W, E>,
    ) -> io::Result<()> {
        self.recognise()?;
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = match self.file.read_at(&mut buffer, self.position) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            for piece in buffer[..count].split_inclusive(|&byte| byte == b'\n') {
                self.position += piece.len() as u64;
                if !self.overlong {
                    self.partial.extend_from_slice(piece);
                }
                if piece.ends_with(b"\n") {
                    self.line_done(log, printer)?;
                } else if self.partial.len() > LINE_LIMIT {
                    self.overlong = true;
                    self.partial = Vec::new();
                }
            }
        }
    }

    /// A last line without newline, which will not get one any more.
    fn end<W: Write, E: Write>(
        &mut self,
        log: &Path,
        printer: &mut Printer<W, E>,
    ) -> io::Result<()> {
        if self.position > self.line_start {
            self.line_done(log, printer)
        } else {
            Ok(())
        }
    }

    fn line_done<W: Write, E: Write>(
        &mut self,
        log: &Path,
        printer: &mut Printer<W, E>,
    ) -> io::Result<()> {
        let line = std::mem::take(&mut self.partial);
        let taken = if self.overlong {
            Taken::Bad(format!("longer than {} MiB", LINE_LIMIT >> 20))
        } else if line.trim_ascii().is_empty() {
            Taken::Well
        } else {
            printer.take(&line)?
        };
        if let Taken::Bad(why) = taken {
            let number = self.number_of(self.line_start)?;
            printer.bad_line(log, number, &why);
        }
        self.line_start = self.position;
        self.anchor.clear();
        if !self.overlong {
            self.anchor
                .extend_from_slice(&line[line.len().saturating_sub(ANCHOR)..]);
        }
        self.overlong = false;
        self.partial = line;
        self.partial.clear();
        Ok(())
    }

    /// The number, from 1, of the line at `offset`. Counted only when asked for.
    fn number_of(&self, offset: u64) -> io::Result<u64> {
        let mut buffer = vec![0; 64 << 10];
        let (mut position, mut number) = (0, 1);
        while position < offset {
            let wanted = (offset - position).min(buffer.len() as u64);
            let count = self.file.read_at(
                &mut buffer[..usize::try_from(wanted).unwrap_or_default()],
                position,
            )?;
            if count == 0 {
                break;
            }
            number += buffer[..count].split(|&byte| byte == b'\n').count() as u64 - 1;
            position += count as u64;
        }
        Ok(number)
    }
}

/// Whether the file has these very bytes there.
fn stands_at(file: &File, offset: u64, bytes: &[u8]) -> io::Result<bool> {
    let mut found = vec![0; bytes.len()];
    match file.read_exact_at(&mut found, offset) {
        Ok(()) => Ok(found == bytes),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Where the first of the last `lines` wanted lines starts, searched from `len`
/// backwards; the end if there is none, but never in the middle of a line.
fn start_of(file: &File, len: u64, lines: u64, filter: &Filter) -> io::Result<u64> {
    // A piece of a line at the end is read anew when its rest has come.
    let mut start = line_start(file, len)?;
    let mut end = len;
    let mut wanted = 0;
    let mut line = Vec::new();
    while wanted < lines {
        let begin = line_start(file, end)?;
        let length = usize::try_from(end - begin).unwrap_or(usize::MAX);
        if length <= LINE_LIMIT {
            line.resize(length, 0);
            file.read_exact_at(&mut line, begin)?;
            if let Ok(document) = serde_json::from_slice::<Map<String, Value>>(&line) {
                if filter.matches(&document) {
                    wanted += 1;
                    start = begin;
                } else if let (Some(since), Some(time)) = (filter.since, time(&document))
                    && since.duration_since(time) > DISORDER
                {
                    break;
                }
            }
        }
        match begin.checked_sub(1) {
            Some(newline) => end = newline,
            None => break,
        }
    }
    Ok(start)
}
