//! The chain over the lines of the log, by which lines that were edited, taken
//! out or put in are found.
//!
//! Each line has a number, and the SHA-256 of the line before (its bytes without
//! the newline), which has that of the line before it: who changes a line must
//! write all later ones anew. The chain goes on over rotation and restarts. The
//! last number and hash stand in a file of the daemon's state as well, so that
//! lines which are missing at the end are missed.
//!
//! It is no signature: who is root here can write all of it anew, log and state.
//! What left the host, and the journal, tell then.
//!
//! Owns the numbers, that file, and the judgement of a chain ([`Verifier`]). Must
//! not write to the log.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use flate2::read::MultiGzDecoder;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::{LAST_NUMBER, line_start, rotated};
use crate::sink::{number, text};
use crate::text::escape_path;

/// How many lines are looked at from the end to find one of the chain.
const LOOK_BACK: usize = 64;
/// A longer line is none of ours (bytes).
const LINE: u64 = 16 << 20;

/// A line of the chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its number; the first one has 1.
    pub sequence: u64,
    /// SHA-256 of its bytes without the newline, hexadecimal.
    pub hash: String,
}

/// The SHA-256 of a line, hexadecimal.
fn hash(line: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(line))
}

/// What a line says of its place in the chain.
struct Place {
    sequence: u64,
    previous: Option<String>,
}

impl Place {
    fn of(document: &Map<String, Value>) -> Option<Self> {
        Some(Self {
            sequence: number(document, "ssh_keywatch.log.sequence")?,
            previous: text(document, "ssh_keywatch.log.previous").map(str::to_owned),
        })
    }
}

/// Where the chain is, for the one who writes it.
#[derive(Debug, Default)]
pub(super) struct Chain {
    last: Link,
    /// Where the last link is kept besides.
    head: Option<Head>,
}

impl Chain {
    /// Goes on where the log at `path` ends, which is open as `log`. What is
    /// amiss there is added to `notes`.
    pub(super) fn resume(
        path: &Path,
        log: &File,
        head: Option<&Path>,
        notes: &mut Vec<String>,
    ) -> Self {
        let found = last_link(path, log).unwrap_or_default();
        let mut last = found.clone();
        let mut kept = None;
        if let Some(place) = head {
            match Head::open(place, path) {
                Ok(head) => kept = Some(head),
                Err(error) => notes.push(format!(
                    "{}: lines that go missing at the log's end will not be missed: {error}",
                    escape_path(place)
                )),
            }
        }
        if let Some(known) = kept.as_ref().and_then(Head::read)
            && let Some(complaint) = known.misses(&found)
        {
            notes.push(format!("{}: {complaint}", escape_path(path)));
            // A check of the log will say where.
            last = known;
        }
        Self { last, head: kept }
    }

    /// The next line of this document, without its newline.
    pub(super) fn line(&self, document: &Map<String, Value>) -> String {
        let mut document = document.clone();
        let ours = document.entry("ssh_keywatch").or_insert_with(|| json!({}));
        if let Value::Object(ours) = ours {
            let mut place = json!({ "sequence": self.last.sequence + 1 });
            if self.last.sequence > 0 {
                place["previous"] = json!(self.last.hash);
            }
            ours.insert("log".to_owned(), place);
        }
        crate::text::json_line(&document)
    }

    /// That line has been written.
    pub(super) fn wrote(&mut self, line: &str) {
        self.last = Link {
            sequence: self.last.sequence + 1,
            hash: hash(line.as_bytes()),
        };
    }

    /// All that was written is on the disk.
    pub(super) fn settled(&self) {
        if let Some(head) = &self.head
            && let Err(error) = head.write(&self.last)
        {
            tracing::debug!(%error, "the log's head is not kept");
        }
    }
}

impl Link {
    /// What is missing where the log ends with `found`, and this was written.
    fn misses(&self, found: &Self) -> Option<String> {
        let Self { sequence, hash } = self;
        if *sequence > found.sequence {
            return Some(format!(
                "it ends at line {}, but line {sequence} was written: its end was cut off, or \
                 it was replaced",
                found.sequence
            ));
        }
        (*sequence == found.sequence && *hash != found.hash)
            .then(|| format!("its last line, {sequence}, is not the one that was written"))
    }
}

/// The file that has the last link. It is written in place, all of it in one
/// sector, after the log is on the disk: so the log is never behind it.
#[derive(Debug)]
struct Head {
    file: File,
    /// Of which log: SHA-256 of its path.
    log: String,
}

impl Head {
    fn open(place: &Path, log: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(place)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        let log = hash(log.as_os_str().as_bytes());
        Ok(Self { file, log })
    }

    fn read(&self) -> Option<Link> {
        let mut bytes = [0; 256];
        let count = self.file.read_at(&mut bytes, 0).ok()?;
        let text = std::str::from_utf8(&bytes[..count]).ok()?;
        let mut words = text.split_ascii_whitespace();
        if words.next()? != self.log {
            return None;
        }
        let sequence = words.next()?.parse().ok()?;
        let hash = words.next().filter(|hash| hash.len() == 64)?.to_owned();
        Some(Link { sequence, hash })
    }

    fn write(&self, link: &Link) -> io::Result<()> {
        let text = format!("{} {:020} {}\n", self.log, link.sequence, link.hash);
        self.file.write_all_at(text.as_bytes(), 0)
    }
}

/// The last line that the head kept at `place` has of the log at `path`.
#[must_use]
pub fn last_written(place: &Path, path: &Path) -> Option<Link> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(place)
        .ok()?;
    let log = hash(path.as_os_str().as_bytes());
    Head { file, log }.read()
}

/// The last line of the chain in the log, or in the newest rotated one.
fn last_link(path: &Path, log: &File) -> Option<Link> {
    if let Some(link) = last_of(log) {
        return Some(link);
    }
    let open = |path: PathBuf| {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
        let mut options = OpenOptions::new();
        let file = options.read(true).custom_flags(flags).open(path).ok()?;
        file.metadata().ok()?.is_file().then_some(file)
    };
    (1..=LAST_NUMBER).find_map(|number| {
        if let Some(plain) = open(rotated(path, number, false)) {
            return last_of(&plain);
        }
        last_of_packed(&open(rotated(path, number, true))?)
    })
}

fn link(line: &[u8]) -> Option<Link> {
    let document: Map<String, Value> = serde_json::from_slice(line).ok()?;
    Some(Link {
        sequence: Place::of(&document)?.sequence,
        hash: hash(line),
    })
}

fn last_of(file: &File) -> Option<Link> {
    let mut end = file.metadata().ok()?.len();
    // What comes after the last newline is repaired before.
    end = line_start(file, end).ok()?;
    for _ in 0..LOOK_BACK {
        end = end.checked_sub(1)?;
        let start = line_start(file, end).ok()?;
        if end - start <= LINE {
            let mut line = vec![0; usize::try_from(end - start).ok()?];
            file.read_exact_at(&mut line, start).ok()?;
            if let Some(link) = link(&line) {
                return Some(link);
            }
        }
        end = start;
    }
    None
}

/// Read from its beginning: only logrotate(8) packs the newest one.
fn last_of_packed(file: &File) -> Option<Link> {
    let mut last = Vec::new();
    let mut reader = BufReader::new(MultiGzDecoder::new(file));
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut part = io::Read::take(&mut reader, LINE);
        match part.read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        if line.pop() == Some(b'\n') {
            std::mem::swap(&mut last, &mut line);
        }
    }
    link(&last)
}

/// Something in a log that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// In which file, by the number it was begun with.
    pub file: usize,
    /// Which line of the file; the first one is 1.
    pub line: u64,
    /// What.
    pub what: String,
}

/// Judges the lines of a log, which it is given from the oldest on. Pure.
#[derive(Debug, Default)]
pub struct Verifier {
    file: usize,
    line: u64,
    first: Option<Link>,
    last: Option<Link>,
    /// Lines of the chain, and lines from before there was one.
    pub chained: u64,
    /// Lines from before there was one.
    pub older: u64,
    /// When the first and the last line of the chain are from.
    pub times: Option<(String, String)>,
}

impl Verifier {
    /// The lines to come are of the next file.
    pub fn next_file(&mut self) {
        self.file += 1;
        self.line = 0;
    }

    /// Takes a line without its newline; `None` is one that is too long.
    pub fn take(&mut self, line: Option<&[u8]>) -> Option<Flaw> {
        self.line += 1;
        let document: Option<Map<String, Value>> =
            line.and_then(|line| serde_json::from_slice(line).ok());
        let Some((line, document)) = line.zip(document) else {
            return Some(self.flaw("it is no document: a crash left it, or it was put in"));
        };
        let Some(place) = Place::of(&document) else {
            if self.last.is_some() {
                return Some(self.flaw("it has no number: it was put in by somebody else"));
            }
            self.older += 1;
            return None;
        };
        self.chained += 1;
        let time = text(&document, "@timestamp").unwrap_or_default();
        match &mut self.times {
            Some((_, last)) => time.clone_into(last),
            times => *times = Some((time.to_owned(), time.to_owned())),
        }
        let link = Link {
            sequence: place.sequence,
            hash: hash(line),
        };
        let what = match &self.last {
            None => None,
            Some(last) => wrong(last, &place),
        };
        self.first.get_or_insert_with(|| link.clone());
        self.last = Some(link);
        what.map(|what| self.flaw(&what))
    }

    /// The first line's number, and the last one's.
    #[must_use]
    pub fn range(&self) -> Option<(u64, u64)> {
        let (first, last) = self.first.as_ref().zip(self.last.as_ref())?;
        Some((first.sequence, last.sequence))
    }

    /// What is missing at the end, if `written` is the last line that was.
    #[must_use]
    pub fn end(&self, written: &Link) -> Option<Flaw> {
        let found = self.last.clone().unwrap_or_default();
        Some(self.flaw(&written.misses(&found)?))
    }

    fn flaw(&self, what: &str) -> Flaw {
        Flaw {
            file: self.file,
            line: self.line,
            what: what.to_owned(),
        }
    }
}

/// What is wrong with a line at this place behind `last`.
fn wrong(last: &Link, place: &Place) -> Option<String> {
    let (before, now) = (last.sequence, place.sequence);
    let next = before + 1;
    if now == next {
        let is_same = place.previous.as_deref() == Some(&last.hash);
        return (!is_same)
            .then(|| format!("line {before} before it is not the one that was written"));
    }
    Some(if now == next + 1 {
        format!("line {next} before it is missing")
    } else if now > next {
        format!("lines {next} to {} before it are missing", now - 1)
    } else if now == 1 && place.previous.is_none() {
        format!("the log begins anew behind line {before}")
    } else {
        format!("it is line {now}, and stands behind line {before}")
    })
}

#[cfg(test)]
mod tests;
