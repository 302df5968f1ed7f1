//! From a file to the records in it, in memory that does not grow with it.
//!
//! Owns decompression, the cutting of the stream into JSON documents, and the
//! line each begins in. Must not know what a document says, but for the one
//! shape that holds others: a search response, whose hits are handed on one by
//! one. Fails with the system's error; a record that is longer than
//! [`MAX_RECORD`], or that nothing ends, is handed on as a [`Flaw`].
//!
//! Two ways of cutting. Lines, one document each, are the common and the fast
//! one. Where the first line is not a whole document (pretty-printed JSON, a
//! list), and within a line that is too long to hold, brackets are counted.

use std::io::{self, BufRead, BufReader, Cursor, Read};

/// The longest document, in bytes, that is held in memory.
pub(super) const MAX_RECORD: usize = 8 << 20;
/// How much is read from a file at once.
const BUFFER: usize = 256 << 10;

/// Why there is no document where there should be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// It is longer than [`MAX_RECORD`].
    TooLong,
    /// The file ends in the middle of it.
    Unfinished,
    /// There is something between the documents.
    Stray,
}

/// What is done with each record: its bytes or what is wrong with it, and the
/// line where it begins, from 1.
pub type Take<'a> = dyn FnMut(Result<&[u8], Flaw>, u64) -> io::Result<()> + 'a;

/// A stream of bytes, unpacked if it is gzip (RFC 1952), by its first two bytes.
pub fn unpacked(mut file: impl Read + 'static) -> io::Result<Box<dyn BufRead>> {
    let mut start = Vec::with_capacity(3);
    file.by_ref().take(3).read_to_end(&mut start)?;
    let packed = start.starts_with(&[0x1f, 0x8b]);
    // The byte order mark that some exporters write.
    if start == [0xef, 0xbb, 0xbf] {
        start.clear();
    }
    let whole = BufReader::with_capacity(BUFFER, Cursor::new(start).chain(file));
    Ok(if packed {
        let unpacked = flate2::bufread::MultiGzDecoder::new(whole);
        Box::new(BufReader::with_capacity(BUFFER, unpacked))
    } else {
        Box::new(whole)
    })
}

/// Hands on every record of a stream; none is longer than `most` bytes.
pub fn records(input: &mut dyn BufRead, most: usize, take: &mut Take<'_>) -> io::Result<()> {
    let mut line = Vec::new();
    let mut number = 0;
    let mut first = true;
    loop {
        line.clear();
        let limit = most as u64 + 1;
        if input.take(limit).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        number += 1;
        if line.len() > most && !line.ends_with(b"\n") {
            let mut cutter = Cutter::new(number, most);
            cutter.feed(&line, take)?;
            rest_of_line(input, &mut cutter, take)?;
            cutter.end(take)?;
        } else if is_blank(&line) {
            continue;
        } else if first && is_cut_by_brackets(&line, input)? {
            let mut cutter = Cutter::new(number, most);
            cutter.feed(&line, take)?;
            loop {
                let bytes = input.fill_buf()?;
                if bytes.is_empty() {
                    return cutter.end(take);
                }
                cutter.feed(bytes, take)?;
                let length = bytes.len();
                input.consume(length);
            }
        } else {
            take(Ok(&line), number)?;
        }
        first = false;
    }
}

fn is_blank(line: &[u8]) -> bool {
    line.iter().all(u8::is_ascii_whitespace)
}

fn rest_of_line(
    input: &mut dyn BufRead,
    cutter: &mut Cutter,
    take: &mut Take<'_>,
) -> io::Result<()> {
    loop {
        let bytes = input.fill_buf()?;
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let length = end.map_or(bytes.len(), |end| end + 1);
        if length == 0 {
            return Ok(());
        }
        cutter.feed(&bytes[..length], take)?;
        input.consume(length);
        if end.is_some() {
            return Ok(());
        }
    }
}

/// Whether documents go over several lines, seen from the first of them.
fn is_cut_by_brackets(line: &[u8], rest: &mut dyn BufRead) -> io::Result<bool> {
    match line.trim_ascii_start().first() {
        Some(b'[') => Ok(true),
        Some(b'{') => {
            let whole = serde_json::from_slice::<serde::de::IgnoredAny>(line);
            // A line that was torn is followed by a line that begins anew.
            Ok(whole.is_err_and(|error| error.is_eof())
                && rest.fill_buf()?.first().is_some_and(|byte| *byte != b'{'))
        }
        _ => Ok(false),
    }
}

/// A depth that is never reached: what follows the hits is no record.
const NOWHERE: u64 = u64::MAX;

/// Cuts a stream at the brackets that stand outside of strings.
#[expect(
    clippy::struct_excessive_bools,
    reason = "where in a text it is, and what was noticed, in any combination"
)]
struct Cutter {
    line: u64,
    most: usize,
    depth: u64,
    in_string: bool,
    escaped: bool,
    /// The last text at the outer two levels: a key, when a value follows.
    word: Vec<u8>,
    /// Within the object `hits` of the outermost object.
    in_hits: bool,
    /// Objects at this depth are records: 0 outside of lists.
    list: Option<u64>,
    /// The record so far.
    record: Vec<u8>,
    /// The depth around the record, and the line where it begins.
    begun: Option<(u64, u64)>,
    too_long: bool,
    stray: bool,
}

impl Cutter {
    fn new(line: u64, most: usize) -> Self {
        Self {
            line,
            most,
            depth: 0,
            in_string: false,
            escaped: false,
            word: Vec::new(),
            in_hits: false,
            list: None,
            record: Vec::new(),
            begun: None,
            too_long: false,
            stray: false,
        }
    }

    fn feed(&mut self, bytes: &[u8], take: &mut Take<'_>) -> io::Result<()> {
        for &byte in bytes {
            if byte == b'\n' {
                self.line += 1;
            }
            if self.in_string {
                self.keep(byte);
                self.string(byte);
            } else {
                self.structure(byte, take)?;
            }
        }
        Ok(())
    }

    /// As far as there is room, so that memory is bounded.
    fn keep(&mut self, byte: u8) {
        if self.begun.is_none() {
        } else if self.record.len() < self.most {
            self.record.push(byte);
        } else {
            self.too_long = true;
        }
    }

    fn string(&mut self, byte: u8) {
        /// Longer than the one word that matters.
        const WORD: usize = 8;
        if self.escaped {
            self.escaped = false;
        } else if byte == b'\\' {
            self.escaped = true;
        } else if byte == b'"' {
            self.in_string = false;
            return;
        }
        if self.depth <= 2 && self.word.len() < WORD {
            self.word.push(byte);
        }
    }

    fn structure(&mut self, byte: u8, take: &mut Take<'_>) -> io::Result<()> {
        match byte {
            b'"' => {
                self.in_string = true;
                self.word.clear();
            }
            b'{' | b'[' => {
                self.open(byte);
                self.keep(byte);
                self.depth += 1;
                return Ok(());
            }
            b'}' | b']' if self.depth > 0 => {
                self.keep(byte);
                self.depth -= 1;
                return self.close(take);
            }
            _ => {}
        }
        if self.depth == 0 && !byte.is_ascii_whitespace() {
            if !self.stray {
                take(Err(Flaw::Stray), self.line)?;
            }
            self.stray = true;
            self.in_string = false;
        }
        self.keep(byte);
        Ok(())
    }

    fn open(&mut self, byte: u8) {
        let object = byte == b'{';
        let at_hits = self.word == b"hits";
        if self.depth == 0 {
            self.stray = false;
            self.list = (!object).then_some(1);
        } else if self.depth == 1 && self.list.is_none() && object {
            self.in_hits = at_hits;
        } else if self.depth == 2 && self.in_hits && at_hits && !object {
            // What came before this list, and what follows it, are no records.
            self.forget();
            self.list = Some(3);
        }
        if object && self.begun.is_none() && self.depth == self.list.unwrap_or(0) {
            self.begun = Some((self.depth, self.line));
        }
        self.word.clear();
    }

    fn close(&mut self, take: &mut Take<'_>) -> io::Result<()> {
        if self.depth == 1 {
            self.in_hits = false;
        }
        if let Some((around, line)) = self.begun
            && around == self.depth
        {
            let record = if self.too_long {
                Err(Flaw::TooLong)
            } else {
                Ok(self.record.as_slice())
            };
            take(record, line)?;
            self.forget();
        }
        if self.depth == 0 {
            self.list = None;
        } else if self.depth == 2 && self.list == Some(3) {
            self.list = Some(NOWHERE);
        }
        Ok(())
    }

    fn forget(&mut self) {
        self.record.clear();
        self.begun = None;
        self.too_long = false;
    }

    fn end(self, take: &mut Take<'_>) -> io::Result<()> {
        match self.begun {
            Some((_, line)) => take(Err(Flaw::Unfinished), line),
            None if self.depth > 0 => take(Err(Flaw::Unfinished), self.line),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const MOST: usize = 1000;

    fn cut(bytes: &[u8]) -> Vec<(u64, Result<String, Flaw>)> {
        let mut input = unpacked(Cursor::new(bytes.to_vec())).unwrap();
        let mut found = Vec::new();
        records(&mut *input, MOST, &mut |record, line| {
            let text = record.map(|bytes| {
                let text = String::from_utf8_lossy(bytes);
                text.split_whitespace().collect::<String>()
            });
            found.push((line, text));
            Ok(())
        })
        .unwrap();
        found
    }

    fn good(records: &[(u64, &str)]) -> Vec<(u64, Result<String, Flaw>)> {
        let records = records.iter();
        records
            .map(|(line, text)| (*line, Ok((*text).to_owned())))
            .collect()
    }

    #[test]
    fn documents_are_found_with_their_lines() {
        let pretty = "{\n  \"took\": 3,\n  \"hits\": {\n    \"total\": {\"value\": 2},\n    \"hits\": [\n      {\"_source\": {\n        \"a\": \"}]\"}},\n      {\"_source\": {\"hits\": [{\"b\": 1}]}}\n    ]\n  },\n  \"aggs\": {\"x\": [{\"y\": 1}]}\n}\n";
        for (input, expected) in [
            ("", vec![]),
            ("\n\n", vec![]),
            (
                "{\"a\":1}\r\n\n{\"b\":2}",
                vec![(1, "{\"a\":1}"), (3, "{\"b\":2}")],
            ),
            ("\u{feff}{\"a\":1}\n", vec![(1, "{\"a\":1}")]),
            // A damaged line is the business of whoever reads it.
            (
                "{\"a\":\n{\"b\":2}\n",
                vec![(1, "{\"a\":"), (2, "{\"b\":2}")],
            ),
            ("junk\n{\"b\":2}\n", vec![(1, "junk"), (2, "{\"b\":2}")]),
            (
                "{\n \"a\": 1\n}\n{\n \"b\": {\"c\": []}\n}\n",
                vec![(1, "{\"a\":1}"), (4, "{\"b\":{\"c\":[]}}")],
            ),
            (
                "[{\"a\":1},\n{\"b\":[{}]}, 3]",
                vec![(1, "{\"a\":1}"), (2, "{\"b\":[{}]}")],
            ),
            (
                pretty,
                vec![
                    (6, "{\"_source\":{\"a\":\"}]\"}}"),
                    (8, "{\"_source\":{\"hits\":[{\"b\":1}]}}"),
                ],
            ),
        ] {
            assert_eq!(cut(input.as_bytes()), good(&expected), "{input}");
        }
    }

    #[test]
    fn what_is_between_or_unfinished_is_said() {
        assert_eq!(
            cut(b"[{\"a\":1}]\n ] x\n{\"b\":1"),
            [
                (1, Ok("{\"a\":1}".to_owned())),
                (2, Err(Flaw::Stray)),
                (3, Err(Flaw::Unfinished)),
            ]
        );
        assert_eq!(cut(b"[\n\n"), [(3, Err(Flaw::Unfinished))]);
    }

    #[test]
    fn gzip_is_unpacked_in_all_its_members() {
        let mut packed = Vec::new();
        for text in ["{\"a\":1}\n{\"b\"", ":2}\n"] {
            let mut encoder =
                flate2::write::GzEncoder::new(&mut packed, flate2::Compression::fast());
            encoder.write_all(text.as_bytes()).unwrap();
            encoder.finish().unwrap();
        }
        assert_eq!(cut(&packed), good(&[(1, "{\"a\":1}"), (2, "{\"b\":2}")]));
        let mut input = unpacked(Cursor::new(packed[..20].to_vec())).unwrap();
        assert!(
            records(&mut *input, MOST, &mut |_, _| Ok(())).is_err(),
            "a torn file"
        );
    }

    #[test]
    fn a_line_that_is_too_long_to_hold_is_cut_into_its_hits() {
        let hit = format!("{{\"_source\":{{\"a\":\"{}\"}}}}", "x".repeat(MOST / 8));
        let hits = [hit.as_str(); 10].join(",");
        let page = format!("{{\"hits\":{{\"hits\":[{hits}]}}}}\n");
        let input = format!("{{\"first\":1}}\n{page}{{\"last\":1}}\n");
        assert!(page.len() > MOST);
        let found = cut(input.as_bytes());
        assert_eq!(found.len(), 12);
        assert_eq!(found[5], (2, Ok(hit)));
        assert_eq!(found[11], (3, Ok("{\"last\":1}".to_owned())));
        // A document of that size is refused, and the next one is read.
        let input = format!("{{\"a\":\"{}\"}}\n{{\"b\":1}}\n", "x".repeat(MOST));
        assert_eq!(
            cut(input.as_bytes()),
            [(1, Err(Flaw::TooLong)), (2, Ok("{\"b\":1}".to_owned()))]
        );
    }
}
