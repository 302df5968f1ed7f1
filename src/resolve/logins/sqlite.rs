//! Rows of a `SQLite` database, the latest first, without `SQLite`.
//!
//! Owns what is needed of the file format (<https://www.sqlite.org/fileformat2.html>):
//! tables with row ids, and values that lie whole in their page. Must not know
//! what the tables mean.
//!
//! `SQLite` itself would lock the file while it reads, and a login that is being
//! recorded would wait for us. Nothing is locked here: what was read counts only
//! if nobody wrote meanwhile. A transaction has a journal beside the file from
//! before its first write until after its last, and counts up the file's change
//! counter. Where a database keeps a write-ahead log instead, nothing is read.
//!
//! Bounded in pages; a damaged file is an error, or gives what it seems to hold.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How many bytes are read of a database.
const MAX_READ: usize = 1 << 20;
/// How many pages may wait to be read.
const MAX_WAITING: usize = 1 << 16;
/// How many columns of a row are looked at.
const MAX_COLUMNS: usize = 32;
/// A login is recorded in less time than all attempts take together.
const ATTEMPTS: u32 = 4;
const PAUSE: Duration = Duration::from_millis(3);
const HEADER: usize = 100;

/// A value of a row.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Integer(i64),
    /// What is no UTF-8 in it is replaced.
    Text(String),
    /// A floating point number or bytes.
    Other,
}

impl Value {
    pub(super) fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(integer) => Some(*integer),
            _ => None,
        }
    }

    /// A text that is not empty.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }
}

/// What `wanted` makes of the rows of a table, `most` of them, those that were
/// added last first. It is given the values of `columns`.
///
/// # Errors
/// The file cannot be read, is damaged, is written all the time, or has no such
/// table with such columns.
pub(super) fn latest<T, const N: usize>(
    path: &Path,
    table: &str,
    columns: [&str; N],
    most: usize,
    wanted: impl Fn(&[Value; N]) -> Option<T>,
) -> io::Result<Vec<T>> {
    // The journal lies beside the file, not beside a link to it.
    let path = path.canonicalize()?;
    let mut name = path.clone().into_os_string();
    name.push("-journal");
    let journal = PathBuf::from(name);
    // Non-blocking, should it be no file.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(&path)?;
    if !file.metadata()?.is_file() {
        return Err(damaged("no file"));
    }
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            std::thread::sleep(PAUSE);
        }
        if in_use(&journal)? {
            continue;
        }
        let header = header(&file)?;
        let found = Database::new(&header, |bytes, offset| file.read_exact_at(bytes, offset))
            .and_then(|database| database.latest(table, columns, most, &wanted));
        // First the journal: whoever has removed it has counted before.
        if !in_use(&journal)? && self::header(&file)?[24..28] == header[24..28] {
            return found;
        }
    }
    Err(ErrorKind::WouldBlock.into())
}

/// Whether a journal is there that is in force.
fn in_use(journal: &Path) -> io::Result<bool> {
    let mut first = [0];
    match File::open(journal).and_then(|file| file.read_at(&mut first, 0)) {
        Ok(_) => Ok(first != [0]),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn header(file: &File) -> io::Result<[u8; HEADER]> {
    let mut header = [0; HEADER];
    file.read_exact_at(&mut header, 0)?;
    Ok(header)
}

fn damaged(what: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

/// A database whose bytes `read` gives.
struct Database<R> {
    read: R,
    page: usize,
    /// Of a page, without what extensions have reserved of it.
    usable: usize,
    /// How many pages may still be read.
    left: usize,
}

impl<R: Fn(&mut [u8], u64) -> io::Result<()>> Database<R> {
    fn new(header: &[u8; HEADER], read: R) -> io::Result<Self> {
        if !header.starts_with(b"SQLite format 3\0") {
            return Err(damaged("no SQLite database"));
        }
        let page = match u16::from_be_bytes([header[16], header[17]]) {
            1 => 65_536,
            size => usize::from(size),
        };
        let usable = page.saturating_sub(usize::from(header[20]));
        if !(512..=65_536).contains(&page) || !page.is_power_of_two() || usable < 480 {
            return Err(damaged("no size of a page"));
        }
        if header[19] != 1 {
            return Err(damaged("it keeps a write-ahead log"));
        }
        // 0 where there is no table yet.
        if !matches!(header[56..60], [0, 0, 0, 0 | 1]) {
            return Err(damaged("its texts are not UTF-8"));
        }
        let left = MAX_READ / page;
        Ok(Self {
            read,
            page,
            usable,
            left,
        })
    }

    fn latest<T, const N: usize>(
        mut self,
        table: &str,
        columns: [&str; N],
        most: usize,
        wanted: &impl Fn(&[Value; N]) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        // The table of tables: type, name, table, first page, statement.
        let of_table = |row: Vec<Value>| {
            let [kind, name, _, root, sql] = row.try_into().ok()?;
            let is = kind.text() == Some("table") && name.text()?.eq_ignore_ascii_case(table);
            is.then(|| Some((u32::try_from(root.integer()?).ok()?, sql.text()?.to_owned())))?
        };
        let (root, sql) = self
            .rows(1, 1, of_table)?
            .pop()
            .ok_or_else(|| damaged("no such table"))?;
        let mut places = [0; N];
        for (place, column) in places.iter_mut().zip(columns) {
            *place = names(&sql)
                .position(|name| name.eq_ignore_ascii_case(column))
                .ok_or_else(|| damaged("no such column"))?;
        }
        self.rows(root, most, |row| {
            // A row from before a column was added ends before it.
            let value = |place: usize| row.get(place).cloned().unwrap_or(Value::Null);
            wanted(&places.map(value))
        })
    }

    /// The rows of the table that begins at page `root`, backwards.
    fn rows<T>(
        &mut self,
        root: u32,
        most: usize,
        wanted: impl Fn(Vec<Value>) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        let mut found = Vec::new();
        let mut waiting = vec![root];
        while let Some(number) = waiting.pop() {
            // Enough: what lies further back is too old to be told.
            let Some(page) = self.page(number)? else {
                break;
            };
            let page = &page[..self.usable];
            // The first page begins with the file's header.
            let start = if number == 1 { HEADER } else { 0 };
            let kind = *at(page, start, 1)?.first().unwrap_or(&0);
            let count = usize::from(u16(page, start + 3)?);
            let cells = start + if kind == 5 { 12 } else { 8 };
            match kind {
                // Pages with smaller row ids, in their order; the last one stands apart.
                5 => {
                    for cell in 0..count {
                        let cell = u16(page, cells + 2 * cell)?;
                        waiting.push(u32(page, cell.into())?);
                    }
                    waiting.push(u32(page, start + 8)?);
                    if waiting.len() > MAX_WAITING {
                        return Err(damaged("too many pages"));
                    }
                }
                13 => {
                    for cell in (0..count).rev() {
                        let cell = u16(page, cells + 2 * cell)?;
                        let row = row(page.get(cell.into()..).unwrap_or_default())?;
                        found.extend(row.and_then(&wanted));
                        if found.len() == most {
                            return Ok(found);
                        }
                    }
                }
                _ => return Err(damaged("no page of a table")),
            }
        }
        Ok(found)
    }

    /// A page; none if enough were read.
    fn page(&mut self, number: u32) -> io::Result<Option<Vec<u8>>> {
        let Some(left) = self.left.checked_sub(1) else {
            return Ok(None);
        };
        self.left = left;
        let before = number
            .checked_sub(1)
            .ok_or_else(|| damaged("no such page"))?;
        let mut bytes = vec![0; self.page];
        (self.read)(&mut bytes, u64::from(before) * self.page as u64)?;
        Ok(Some(bytes))
    }
}

/// The columns that a statement makes a table of.
fn names(sql: &str) -> impl Iterator<Item = &str> {
    let within = sql
        .split_once('(')
        .and_then(|(_, rest)| rest.rsplit_once(')'));
    let within = within.map_or("", |(columns, _)| columns);
    let columns = within.split(',').filter_map(|column| {
        let name = column.split_whitespace().next()?;
        Some(name.trim_matches(['"', '`', '[', ']']))
    });
    columns.take(MAX_COLUMNS)
}

/// The values of a row; none if it does not lie whole in its page.
fn row(cell: &[u8]) -> io::Result<Option<Vec<Value>>> {
    let mut rest = cell;
    let length = length(&mut rest)?;
    // The row id.
    varint(&mut rest)?;
    let Some(record) = rest.get(..length) else {
        return Ok(None);
    };
    let mut rest = record;
    let header = self::length(&mut rest)?;
    let taken = record.len() - rest.len();
    let mut types = at(record, taken, header.saturating_sub(taken))?;
    let mut body = record.get(header..).unwrap_or_default();
    let mut values = Vec::new();
    while !types.is_empty() && values.len() < MAX_COLUMNS {
        values.push(value(varint(&mut types)?, &mut body)?);
    }
    Ok(Some(values))
}

/// The value of a "serial type", taken from the front of `body`.
fn value(kind: u64, body: &mut &[u8]) -> io::Result<Value> {
    let size = match kind {
        0 | 8..=11 => 0,
        1..=4 => kind,
        5 => 6,
        6 | 7 => 8,
        _ => (kind - 12) / 2,
    };
    let size = usize::try_from(size).map_err(|_| damaged("too long"))?;
    let bytes = take(body, size)?;
    Ok(match kind {
        0 => Value::Null,
        1..=6 => {
            // Of two's complement, the most significant byte first.
            let sign = if bytes[0] < 0x80 { 0 } else { -1 };
            let shift = |integer: i64, byte: &u8| integer << 8 | i64::from(*byte);
            Value::Integer(bytes.iter().fold(sign, shift))
        }
        8 => Value::Integer(0),
        9 => Value::Integer(1),
        13.. if kind % 2 == 1 => Value::Text(String::from_utf8_lossy(bytes).into_owned()),
        _ => Value::Other,
    })
}

/// Seven bits of each byte, as long as the eighth is set; all of the ninth.
fn varint(rest: &mut &[u8]) -> io::Result<u64> {
    let mut value = 0;
    for index in 0..9 {
        let byte = take(rest, 1)?[0];
        if index == 8 {
            return Ok(value << 8 | u64::from(byte));
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if byte < 0x80 {
            break;
        }
    }
    Ok(value)
}

fn length(rest: &mut &[u8]) -> io::Result<usize> {
    usize::try_from(varint(rest)?).map_err(|_| damaged("too long"))
}

fn take<'a>(rest: &mut &'a [u8], size: usize) -> io::Result<&'a [u8]> {
    let (taken, left) = rest
        .split_at_checked(size)
        .ok_or_else(|| damaged("cut off"))?;
    *rest = left;
    Ok(taken)
}

fn at(bytes: &[u8], offset: usize, size: usize) -> io::Result<&[u8]> {
    take(&mut bytes.get(offset..).unwrap_or_default(), size)
}

fn u16(bytes: &[u8], offset: usize) -> io::Result<u16> {
    let bytes = at(bytes, offset, 2)?;
    Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
}

fn u32(bytes: &[u8], offset: usize) -> io::Result<u32> {
    let bytes = at(bytes, offset, 4)?;
    Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

/// Reads `bytes` as a database with a table of logins.
pub(super) fn read_hostile(bytes: &[u8]) {
    let Some(header) = bytes.first_chunk() else {
        return;
    };
    let read = |page: &mut [u8], offset: u64| {
        let offset = usize::try_from(offset).map_err(|_| damaged("too far"))?;
        page.copy_from_slice(at(bytes, offset, page.len())?);
        Ok(())
    };
    let columns = ["User", "Login"];
    let found = Database::new(header, read)
        .and_then(|database| database.latest("wtmp", columns, 5, &|row| Some(row.clone())));
    assert!(found.map_or(0, |found| found.len()) <= 5);
}

#[cfg(test)]
pub(super) mod tests;
