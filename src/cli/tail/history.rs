//! The log and the rotated logs before it, as one history.
//!
//! Owns which files there are, in which order, and reading compressed ones. Must
//! not follow a file that still grows (`follow` does). Fails by `io::Error` where
//! the log cannot be opened; a damaged compressed log is said and left.
//!
//! Rotation may happen at any moment. So all files are opened first and their
//! names looked at again: unless each still names what was opened, it is done
//! once more. Then no line is in two of the files, and none in between.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read as _, Write};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use serde_json::{Map, Value};

use super::filter::Filter;
use super::follow::{DISORDER, LINE_LIMIT, Source};
use super::{Printer, Taken};
use crate::sink::{LAST_NUMBER, is_absence, line_start, rotated};

/// How often a history that changes while it is opened is tried again.
const TRIES: u32 = 16;

/// One file of the history.
pub(in crate::cli) enum Piece {
    /// The log, or a rotated one that is plain.
    Plain(Source),
    /// A rotated log that is compressed, which is complete.
    Packed(Packed),
}

pub(in crate::cli) struct Packed {
    path: PathBuf,
    file: File,
}

/// (device, inode).
pub(super) type Identity = (u64, u64);

/// What there is, oldest first, the log itself last. An empty list if there is
/// nothing at all.
pub(super) fn snapshot(log: &Path) -> io::Result<Vec<Piece>> {
    let named = named(log)?;
    Ok(named.into_iter().map(|(_, piece)| piece).collect())
}

/// The same, with the paths that they were opened by.
pub(in crate::cli) fn named(log: &Path) -> io::Result<Vec<(PathBuf, Piece)>> {
    let mut last = Vec::new();
    for _ in 0..TRIES {
        let names = names(log)?;
        let mut pieces = Vec::with_capacity(names.len());
        for (path, number, _) in &names {
            match open(path, *number) {
                Ok(piece) => pieces.push((path.clone(), piece)),
                Err(error) if is_absence(&error) => {}
                // What others may have put beside the log must not hide it.
                Err(_) if *number != Number::LOG => {}
                Err(error) => return Err(error),
            }
        }
        if self::names(log)? == names {
            return Ok(pieces);
        }
        last = pieces;
    }
    // It changes without end; nothing better is to be had.
    Ok(last)
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Number {
    number: u32,
    packed: bool,
}

impl Number {
    const LOG: Self = Self {
        number: 0,
        packed: false,
    };
}

fn names(log: &Path) -> io::Result<Vec<(PathBuf, Number, Identity)>> {
    let mut out = Vec::new();
    for number in (1..=LAST_NUMBER).rev() {
        // Where both stand, compressing is about to end: the plain one counts.
        for packed in [false, true] {
            let path = rotated(log, number, packed);
            if let Ok(meta) = fs::metadata(&path)
                && meta.is_file()
            {
                out.push((path, Number { number, packed }, (meta.dev(), meta.ino())));
                break;
            }
        }
    }
    match fs::metadata(log) {
        Ok(meta) => out.push((log.to_owned(), Number::LOG, (meta.dev(), meta.ino()))),
        Err(error) if is_absence(&error) => {}
        Err(error) => return Err(error),
    }
    Ok(out)
}

fn open(path: &Path, number: Number) -> io::Result<Piece> {
    let source = Source::open(path)?;
    Ok(if number.packed {
        Piece::Packed(Packed {
            path: path.to_owned(),
            file: source.into_file(),
        })
    } else {
        Piece::Plain(source)
    })
}

/// Where to begin in one file.
pub(super) struct Start {
    /// The offset of a line, in what the file holds uncompressed.
    pub(super) offset: u64,
    /// How many wanted lines there are from there on.
    pub(super) found: u64,
    /// Nothing that is wanted is older.
    pub(super) over: bool,
}

/// A line, or what there is of it.
pub(in crate::cli) enum Read<'l> {
    /// Without its newline.
    Whole(&'l [u8]),
    /// Longer than any of ours.
    TooLong,
    /// The last one, without a newline.
    Part,
}

impl Piece {
    /// How many bytes it has on the disk.
    pub(in crate::cli) fn size(&self) -> u64 {
        let file = match self {
            Self::Plain(source) => source.file(),
            Self::Packed(packed) => &packed.file,
        };
        file.metadata().map_or(0, |metadata| metadata.len())
    }

    /// Hands on every line there is at this moment.
    ///
    /// # Errors
    /// It cannot be read to its end.
    pub(in crate::cli) fn lines(&self, mut take: impl FnMut(Read<'_>)) -> io::Result<()> {
        let mut take = |_, line: &Line<'_>| {
            take(if line.overlong {
                Read::TooLong
            } else {
                line.bytes
                    .strip_suffix(b"\n")
                    .map_or(Read::Part, Read::Whole)
            });
            Ok(())
        };
        match self {
            Self::Plain(source) => {
                let file = source.file();
                let at = At { file, position: 0 };
                let length = file.metadata()?.len();
                each_line(BufReader::new(at.take(length)), &mut take)
            }
            Self::Packed(packed) => each_line(packed.reader(), &mut take),
        }
    }

    /// Where the first of the last `lines` wanted lines starts; the end if there
    /// is none, but never in the middle of a line.
    pub(super) fn start(&self, lines: u64, filter: &Filter) -> io::Result<Start> {
        match self {
            Self::Plain(source) => {
                let file = source.file();
                start_of(file, file.metadata()?.len(), lines, filter)
            }
            Self::Packed(packed) => Ok(packed.start(lines, filter)),
        }
    }
}

/// Searched from `len` backwards.
fn start_of(file: &File, len: u64, lines: u64, filter: &Filter) -> io::Result<Start> {
    let mut start = Start {
        // A piece of a line at the end is read anew when its rest has come.
        offset: line_start(file, len)?,
        found: 0,
        over: false,
    };
    let mut end = len;
    let mut line = Vec::new();
    while start.found < lines {
        let begin = line_start(file, end)?;
        let length = usize::try_from(end - begin).unwrap_or(usize::MAX);
        if length <= LINE_LIMIT {
            line.resize(length, 0);
            file.read_exact_at(&mut line, begin)?;
            match judge(&line, filter) {
                Verdict::Wanted => {
                    start.found += 1;
                    start.offset = begin;
                }
                Verdict::TooOld => {
                    start.over = true;
                    break;
                }
                Verdict::Unwanted => {}
            }
        }
        match begin.checked_sub(1) {
            Some(newline) => end = newline,
            None => break,
        }
    }
    Ok(start)
}

enum Verdict {
    Wanted,
    Unwanted,
    /// So much older than `--since` that all before it is too.
    TooOld,
}

fn judge(line: &[u8], filter: &Filter) -> Verdict {
    let Ok(document) = serde_json::from_slice::<Map<String, Value>>(line) else {
        return Verdict::Unwanted;
    };
    if filter.matches(&document) {
        return Verdict::Wanted;
    }
    match (filter.since, super::filter::time(&document)) {
        (Some(since), Some(time)) if since.duration_since(time) > DISORDER => Verdict::TooOld,
        _ => Verdict::Unwanted,
    }
}

impl Packed {
    fn reader(&self) -> impl BufRead {
        // By offset, because the same descriptor is read more than once.
        let file = At {
            file: &self.file,
            position: 0,
        };
        BufReader::new(MultiGzDecoder::new(BufReader::new(file)))
    }

    fn start(&self, lines: u64, filter: &Filter) -> Start {
        // The offsets of the last wanted lines; only the first where all are.
        let mut offsets = std::collections::VecDeque::new();
        let mut found = 0;
        let mut over = false;
        let mut end = 0;
        // What cannot be read is said when it is shown.
        let _ = each_line(self.reader(), |offset, line| {
            end = offset + line.length;
            match judge(line.bytes, filter) {
                Verdict::Wanted => {
                    found += 1;
                    if lines != u64::MAX && offsets.len() as u64 == lines {
                        offsets.pop_front();
                    }
                    if lines != u64::MAX || offsets.is_empty() {
                        offsets.push_back(offset);
                    }
                }
                Verdict::TooOld => over = true,
                Verdict::Unwanted => {}
            }
            Ok(())
        });
        Start {
            offset: offsets.front().copied().unwrap_or(end),
            found: lines.min(found),
            over,
        }
    }

    /// Hands on every line from `start` on.
    pub(super) fn show<W: Write, E: Write>(
        &self,
        start: u64,
        printer: &mut Printer<W, E>,
    ) -> io::Result<()> {
        let mut number = 0;
        // Told apart, because only one of the two ends the program.
        let mut printing = None;
        let read = each_line(self.reader(), |offset, line| {
            number += 1;
            if offset < start || (line.bytes.trim_ascii().is_empty() && !line.overlong) {
                return Ok(());
            }
            let taken = if line.overlong {
                Ok(Taken::too_long())
            } else {
                printer.take(line.bytes)
            };
            match taken {
                Ok(Taken::Well) => Ok(()),
                Ok(Taken::Bad(why)) => {
                    printer.bad_line(&self.path, number, &why);
                    Ok(())
                }
                Err(error) => {
                    printing = Some(error);
                    Err(io::ErrorKind::Other.into())
                }
            }
        });
        if let Some(error) = printing {
            return Err(error);
        }
        if let Err(error) = read {
            printer.complain(&format!(
                "{} is damaged, its rest is not shown: {error}",
                crate::text::escape_path(&self.path)
            ));
        }
        Ok(())
    }

    /// Whether it holds exactly what the file does.
    pub(super) fn is_of(&self, plain: &File) -> bool {
        let mut reader = self.reader();
        let (mut position, mut own) = (0, Vec::new());
        loop {
            let Ok(packed) = reader.fill_buf() else {
                return false;
            };
            own.resize(packed.len().max(1), 0);
            // At the end of one, the other must end too.
            if packed.is_empty() {
                return matches!(plain.read_at(&mut own, position), Ok(0));
            }
            if plain.read_exact_at(&mut own, position).is_err() || own != packed {
                return false;
            }
            let count = packed.len();
            position += count as u64;
            reader.consume(count);
        }
    }
}

struct At<'f> {
    file: &'f File,
    position: u64,
}

impl io::Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

struct Line<'l> {
    /// Empty if it is too long.
    bytes: &'l [u8],
    /// With the newline.
    length: u64,
    overlong: bool,
}

/// Each line with its offset, in memory bounded by [`LINE_LIMIT`].
fn each_line(
    mut reader: impl BufRead,
    mut take: impl FnMut(u64, &Line<'_>) -> io::Result<()>,
) -> io::Result<()> {
    let (mut offset, mut length) = (0, 0);
    let (mut bytes, mut overlong) = (Vec::new(), false);
    loop {
        let buffer = match reader.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        let over = buffer.is_empty();
        let newline = buffer.iter().position(|&byte| byte == b'\n');
        let count = newline.map_or(buffer.len(), |at| at + 1);
        length += count as u64;
        overlong |= bytes.len() + count > LINE_LIMIT;
        if overlong {
            bytes = Vec::new();
        } else {
            bytes.extend_from_slice(&buffer[..count]);
        }
        reader.consume(count);
        if newline.is_some() || (over && length > 0) {
            let line = Line {
                bytes: &bytes,
                length,
                overlong,
            };
            take(offset, &line)?;
            offset += length;
            (length, overlong) = (0, false);
            bytes.clear();
        }
        if over {
            return Ok(());
        }
    }
}
