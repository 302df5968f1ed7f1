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
//! | rotated, deleted, made anew | the path names another file, with content | the old file is read to its end, then all that came between it and the new one, then that |
//! | truncated (`copytruncate`), rewritten | the last line handed on stands no longer where it stood | from the start |
//! | a torn last line was cut by the daemon | the piece read stands no longer there | that piece is forgotten |
//!
//! The new file counts only once it has content: until then the daemon, which
//! looks before each line, may still write one to the old file. What came between
//! is found by the place of the old file among the rotated ones, where it may be
//! compressed by now. If it is not there at all, only the new file is known.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use jiff::SignedDuration;

use super::filter::Filter;
use super::history::{Identity, Piece, snapshot};
use super::{Printer, Taken};
use crate::sink::is_absence;
use crate::sys::open::open_regular;

/// A longer line is not taken into memory but reported and skipped.
pub(super) const LINE_LIMIT: usize = 16 << 20;

/// How much of the last line is kept to recognise the file by.
const ANCHOR: usize = 64 << 10;

/// Lines are in the order in which alerts were finished, not quite in that of
/// their `@timestamp`; searching backwards goes on so far beyond `--since`.
pub(super) const DISORDER: SignedDuration = SignedDuration::from_hours(1);

pub(super) struct Follower {
    path: PathBuf,
    /// Older files that are yet to be shown, from these offsets on.
    older: VecDeque<(Piece, u64)>,
    source: Option<Source>,
    /// There was nothing at all yet.
    all_is_new: bool,
}

impl Follower {
    /// Opens the log, or a log before it, at the first of the last `lines`
    /// wanted lines.
    pub(super) fn open(path: &Path, lines: u64, filter: &Filter) -> io::Result<Self> {
        let mut pieces = snapshot(path)?;
        let mut follower = Self::absent(path);
        follower.all_is_new = false;
        let mut wanted = lines;
        let mut is_newest = true;
        while let Some(piece) = pieces.pop() {
            let start = piece.start(wanted, filter)?;
            wanted -= start.found;
            match piece {
                Piece::Plain(mut source) if is_newest => {
                    source.skip_to(start.offset)?;
                    follower.source = Some(source);
                }
                piece => follower.older.push_front((piece, start.offset)),
            }
            is_newest = false;
            if wanted == 0 || start.over {
                break;
            }
        }
        if is_newest {
            return Err(io::Error::from_raw_os_error(libc::ENOENT));
        }
        Ok(follower)
    }

    /// For a log that is yet to come: all of it will be new.
    pub(super) fn absent(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            older: VecDeque::new(),
            source: None,
            all_is_new: true,
        }
    }

    /// Hands on every line that is complete, up to the end of the newest file.
    /// False if there is no log at the moment.
    pub(super) fn step<W: Write, E: Write>(
        &mut self,
        printer: &mut Printer<W, E>,
    ) -> io::Result<bool> {
        loop {
            self.show_older(printer)?;
            if let Some(source) = &mut self.source {
                source.drain(&self.path, printer)?;
            }
            let there = match fs::metadata(&self.path) {
                Ok(meta) => Some(meta),
                Err(error) if is_absence(&error) => None,
                Err(error) => return Err(error),
            };
            let Some(old) = &self.source else {
                // Between two looks it may have come and been rotated.
                let mut pieces = snapshot(&self.path)?;
                if !self.all_is_new {
                    pieces.drain(..pieces.len().saturating_sub(1));
                }
                if there.is_none() && (pieces.is_empty() || !self.all_is_new) {
                    return Ok(false);
                }
                self.take_up(pieces);
                continue;
            };
            let identity = there.as_ref().map(|meta| (meta.dev(), meta.ino()));
            if identity == Some(old.identity) {
                return Ok(true);
            }
            let has_content = there.is_some_and(|meta| meta.len() > 0);
            let newer = newer_than(&self.path, old, has_content)?;
            if newer.is_empty() {
                return Ok(identity.is_some());
            }
            // There is a newer file with content: nobody writes to the old one now.
            if let Some(mut old) = self.source.take() {
                old.drain(&self.path, printer)?;
                old.end(&self.path, printer)?;
            }
            self.take_up(newer);
        }
    }

    /// Shows these from now on, the last of them as it grows.
    fn take_up(&mut self, mut pieces: Vec<Piece>) {
        self.all_is_new = false;
        self.source = match pieces.pop() {
            Some(Piece::Plain(newest)) => Some(newest),
            packed => {
                pieces.extend(packed);
                None
            }
        };
        self.older = pieces.into_iter().map(|piece| (piece, 0)).collect();
    }

    #[cfg(test)]
    pub(super) fn identity(&self) -> Option<Identity> {
        self.source.as_ref().map(|source| source.identity)
    }

    fn show_older<W: Write, E: Write>(&mut self, printer: &mut Printer<W, E>) -> io::Result<()> {
        while let Some((piece, start)) = self.older.pop_front() {
            match piece {
                Piece::Packed(packed) => packed.show(start, printer)?,
                Piece::Plain(mut source) => {
                    source.skip_to(start)?;
                    source.drain(&self.path, printer)?;
                    source.end(&self.path, printer)?;
                }
            }
        }
        Ok(())
    }

    /// Hands on everything, a last line without newline too.
    pub(super) fn finish<W: Write, E: Write>(
        mut self,
        printer: &mut Printer<W, E>,
    ) -> io::Result<()> {
        self.show_older(printer)?;
        if let Some(source) = &mut self.source {
            source.drain(&self.path, printer)?;
            source.end(&self.path, printer)?;
        }
        Ok(())
    }
}

/// All files with content that are newer than `old`. If `old` is none of the
/// history, that is the log alone, if that has content.
fn newer_than(log: &Path, old: &Source, has_content: bool) -> io::Result<Vec<Piece>> {
    let mut pieces = snapshot(log)?;
    let is_plain = |piece: &Piece| matches!(piece, Piece::Plain(it) if it.identity == old.identity);
    let is_packed = |piece: &Piece| matches!(piece, Piece::Packed(it) if it.is_of(&old.file));
    let mut place = pieces.iter().rposition(is_plain);
    // Only a file without a name can have been compressed.
    if place.is_none() && old.file.metadata()?.nlink() == 0 {
        place = pieces.iter().rposition(is_packed);
    }
    let known = match place {
        Some(place) => place + 1,
        None if has_content => pieces.len().saturating_sub(1),
        None => pieces.len(),
    };
    pieces.drain(..known);
    if let Some(Piece::Plain(newest)) = pieces.last()
        && newest.file.metadata()?.len() == 0
    {
        pieces.pop();
    }
    Ok(pieces)
}

/// One file and how far it has been read.
pub(in crate::cli) struct Source {
    file: File,
    identity: Identity,
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
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = open_regular(path)?;
        let meta = file.metadata()?;
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

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn into_file(self) -> File {
        self.file
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
            Taken::too_long()
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
