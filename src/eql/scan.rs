//! JSON text as a document, read once from left to right.
//!
//! Owns reading just those fields that queries ask for ([`Wanted`]); all else
//! is checked to be JSON and passed over, without being copied or kept. Must
//! not know what the fields mean. Fails where the text is no JSON object
//! ([`NotJson`]); what it takes, `serde_json` takes too, but for numbers and
//! escaped surrogates in fields that nobody asked for, which are not decoded.
//!
//! The program is built to be small. What is done for each byte or key is inlined
//! here all the same: `replay` takes half the time by it.
#![expect(
    clippy::inline_always,
    reason = "the optimiser is told to keep calls, for size"
)]

use std::borrow::Cow;
use std::fmt;

use super::document::{Document, Field, Values};
use super::value::Value;

/// How deeply objects and lists may be nested, as in `serde_json`.
const MAX_DEPTH: u32 = 127;

/// The fields to keep, each with a number by which a [`Field`] finds it.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// By number.
    names: Vec<Box<str>>,
    /// A tree over the parts of the names; the first node is its root.
    nodes: Vec<Node>,
}

#[derive(Clone, Debug, Default)]
struct Node {
    slot: Option<u32>,
    below: Vec<Key>,
}

#[derive(Clone, Debug)]
struct Key {
    /// The first bytes, so that most comparisons are one of numbers.
    head: u64,
    name: Box<str>,
    step: Step,
}

/// The first eight bytes, zeros behind the end.
#[inline(always)]
fn head(key: &[u8]) -> u64 {
    match key.first_chunk() {
        Some(chunk) => u64::from_le_bytes(*chunk),
        None => key
            .iter()
            .rev()
            .fold(0, |word, byte| word << 8 | u64::from(*byte)),
    }
}

/// Where a key leads.
#[derive(Clone, Copy, Debug)]
enum Step {
    Node(u32),
    /// The document proper is this key's value.
    Envelope,
    /// That the key is there is worth knowing.
    Mark,
}

const ROOT: u32 = 0;

impl Default for Wanted {
    fn default() -> Self {
        Self {
            names: Vec::new(),
            nodes: vec![Node::default()],
        }
    }
}

impl Wanted {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps a field, and gives its number.
    pub fn add(&mut self, name: &str) -> u32 {
        let known = self.names.iter().position(|known| **known == *name);
        // There are never so many names that the numbers run out.
        let count = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
        if let Some(slot) = known {
            return count(slot);
        }
        let slot = count(self.names.len());
        self.names.push(name.into());
        let mut node = ROOT;
        for part in name.split('.') {
            node = if let Some(Step::Node(next)) = self.step(node, part) {
                next
            } else {
                let next = count(self.nodes.len());
                self.nodes.push(Node::default());
                self.lead(node, part, Step::Node(next));
                next
            };
        }
        self.nodes[node as usize].slot = Some(slot);
        slot
    }

    /// Takes an object below this key of the outermost object for the document.
    pub fn unwrap_key(&mut self, key: &str) {
        self.lead(ROOT, key, Step::Envelope);
    }

    /// Makes [`Scan::is_marked`] true of documents whose outermost object has
    /// this key. Fields below it are not kept.
    pub fn mark_key(&mut self, key: &str) {
        self.lead(ROOT, key, Step::Mark);
    }

    fn lead(&mut self, node: u32, key: &str, step: Step) {
        self.nodes[node as usize].below.push(Key {
            head: head(key.as_bytes()),
            name: key.into(),
            step,
        });
    }

    #[inline(always)]
    fn step(&self, node: u32, key: &str) -> Option<Step> {
        let wanted = head(key.as_bytes());
        let below = &self.nodes[node as usize].below;
        let found = below
            .iter()
            .find(|known| known.head == wanted && *known.name == *key);
        found.map(|known| known.step)
    }

    /// Where a key leads, which may be several parts with dots between them.
    fn walk(&self, node: u32, key: &str) -> Option<Step> {
        let direct = self.step(node, key);
        if direct.is_some() || !key.as_bytes().contains(&b'.') {
            return direct;
        }
        let mut node = node;
        for part in key.split('.') {
            match self.step(node, part) {
                Some(Step::Node(next)) => node = next,
                _ => return None,
            }
        }
        Some(Step::Node(node))
    }

    fn slot(&self, field: &Field) -> Option<usize> {
        match field.slot() {
            Some(slot) => Some(slot as usize),
            None => self.names.iter().position(|name| **name == *field.name()),
        }
    }
}

/// Why a text is no document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotJson {
    /// Where, in bytes of the text.
    pub offset: usize,
    /// What was expected there.
    pub expected: &'static str,
}

impl fmt::Display for NotJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {} at byte {}", self.expected, self.offset + 1)
    }
}

impl std::error::Error for NotJson {}

/// The wanted fields of one document.
#[derive(Debug)]
pub struct Scan<'t> {
    wanted: &'t Wanted,
    values: Vec<Values<'t>>,
    marked: bool,
}

impl<'t> Scan<'t> {
    /// Reads a text that holds one JSON object.
    pub fn read(text: &'t str, wanted: &'t Wanted) -> Result<Self, NotJson> {
        let mut reader = Reader {
            text,
            bytes: text.as_bytes(),
            at: 0,
            wanted,
            values: std::iter::repeat_with(Values::none)
                .take(wanted.names.len())
                .collect(),
            marked: false,
            unwrapped: false,
        };
        if reader.next_token() != Some(b'{') {
            return Err(reader.expected("an object"));
        }
        reader.at += 1;
        reader.object(ROOT, 1)?;
        if reader.next_token().is_some() {
            return Err(reader.expected("the end of the line"));
        }
        Ok(Self {
            wanted,
            values: reader.values,
            marked: reader.marked,
        })
    }

    /// Whether there is one of the keys that were to be marked.
    #[must_use]
    pub fn is_marked(&self) -> bool {
        self.marked
    }

    /// The text of the field with this number, if it has exactly one.
    #[must_use]
    pub fn text(&self, slot: u32) -> Option<&str> {
        self.values.get(slot as usize)?.as_single_text()
    }

    /// Whether the field with this number has a value.
    #[must_use]
    pub fn has(&self, slot: u32) -> bool {
        self.values
            .get(slot as usize)
            .is_some_and(|values| !values.is_empty())
    }
}

impl Document for Scan<'_> {
    fn get<'a>(&'a self, field: &Field) -> Values<'a> {
        let slot = self.wanted.slot(field);
        slot.and_then(|slot| self.values.get(slot))
            .map_or_else(Values::none, Values::borrowed)
    }

    fn visit<'a>(&'a self, field: &Field, test: &mut dyn FnMut(Value<'a>) -> bool) -> bool {
        let slot = self.wanted.slot(field);
        slot.and_then(|slot| self.values.get(slot))
            .is_some_and(|values| values.visit(test))
    }
}

struct Reader<'t> {
    text: &'t str,
    bytes: &'t [u8],
    at: usize,
    wanted: &'t Wanted,
    values: Vec<Values<'t>>,
    marked: bool,
    /// The document proper was found; what stands beside it does not count.
    unwrapped: bool,
}

impl<'t> Reader<'t> {
    fn expected(&self, expected: &'static str) -> NotJson {
        NotJson {
            offset: self.at,
            expected,
        }
    }

    /// The next byte that is no blank, which is not passed.
    #[inline(always)]
    fn next_token(&mut self) -> Option<u8> {
        loop {
            let byte = *self.bytes.get(self.at)?;
            if byte > b' ' || !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    #[inline(always)]
    fn colon(&mut self) -> Result<(), NotJson> {
        if self.next_token() != Some(b':') {
            return Err(self.expected("`:`"));
        }
        self.at += 1;
        Ok(())
    }

    /// From behind `{` to behind `}`.
    fn object(&mut self, node: u32, depth: u32) -> Result<(), NotJson> {
        if self.next_token() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            if self.next_token() != Some(b'"') {
                return Err(self.expected("a key in double quotes"));
            }
            let key = self.string()?;
            self.colon()?;
            let step = if self.unwrapped && depth == 1 {
                None
            } else {
                self.step(node, key)?
            };
            match step {
                Some(Step::Node(below)) => self.value(below, depth)?,
                Some(Step::Envelope) if self.next_token() == Some(b'{') => {
                    self.values.fill_with(Values::none);
                    self.at += 1;
                    self.object(ROOT, depth + 1)?;
                    self.unwrapped = true;
                }
                Some(Step::Mark) => {
                    self.marked = true;
                    self.skip(depth)?;
                }
                Some(Step::Envelope) | None => self.skip(depth)?,
            }
            match self.next_token() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(self.expected("`,` or `}`")),
            }
        }
    }

    /// Where a key leads.
    #[inline(always)]
    fn step(&self, node: u32, key: Raw) -> Result<Option<Step>, NotJson> {
        if key.escaped {
            let key = self.decode(key)?;
            return Ok(self.wanted.walk(node, &key));
        }
        let name = &self.bytes[key.start..key.end];
        // Something always follows a key, so a whole word can nearly always be read.
        let word = match self.bytes[key.start..].first_chunk() {
            Some(chunk) if name.len() < 8 => {
                u64::from_le_bytes(*chunk) & ((1 << (8 * name.len())) - 1)
            }
            Some(chunk) => u64::from_le_bytes(*chunk),
            None => head(name),
        };
        for known in &self.wanted.nodes[node as usize].below {
            if known.head == word
                && known.name.len() == name.len()
                && (name.len() <= 8 || known.name.as_bytes() == name)
            {
                return Ok(Some(known.step));
            }
        }
        if name.contains(&b'.') {
            return Ok(self.wanted.walk(node, &self.text[key.start..key.end]));
        }
        Ok(None)
    }

    /// A value whose fields may be wanted. `depth` counts what is open.
    fn value(&mut self, node: u32, depth: u32) -> Result<(), NotJson> {
        let first = self.next_token();
        match first {
            Some(b'{') if !self.wanted.nodes[node as usize].below.is_empty() => {
                self.deeper(depth)?;
                self.at += 1;
                self.object(node, depth + 1)
            }
            Some(b'[') => {
                self.deeper(depth)?;
                self.at += 1;
                if self.next_token() == Some(b']') {
                    self.at += 1;
                    return Ok(());
                }
                loop {
                    self.value(node, depth + 1)?;
                    match self.next_token() {
                        Some(b',') => self.at += 1,
                        Some(b']') => {
                            self.at += 1;
                            return Ok(());
                        }
                        _ => return Err(self.expected("`,` or `]`")),
                    }
                }
            }
            _ => match self.wanted.nodes[node as usize].slot {
                Some(slot) if first != Some(b'{') => {
                    if let Some(value) = self.scalar()? {
                        let values = &mut self.values[slot as usize];
                        if values.is_empty() {
                            *values = Values::one(value);
                        } else {
                            values.push(value);
                        }
                    }
                    Ok(())
                }
                _ => self.skip(depth),
            },
        }
    }

    fn deeper(&self, depth: u32) -> Result<(), NotJson> {
        if depth >= MAX_DEPTH {
            return Err(self.expected("less nesting"));
        }
        Ok(())
    }

    fn scalar(&mut self) -> Result<Option<Value<'t>>, NotJson> {
        let start = self.at;
        match self.bytes.get(start) {
            Some(b'"') => {
                let text = self.string()?;
                Ok(Some(Value::Text(self.decode(text)?)))
            }
            Some(b't') => self.word("true").map(|()| Some(Value::Bool(true))),
            Some(b'f') => self.word("false").map(|()| Some(Value::Bool(false))),
            Some(b'n') => self.word("null").map(|()| None),
            _ => {
                self.number()?;
                let text = &self.text[start..self.at];
                if let Ok(value) = text.parse::<i64>() {
                    // As serde_json, which keeps the sign of -0.
                    let minus_zero = value == 0 && text.starts_with('-');
                    return Ok(Some(if minus_zero {
                        Value::Float(-0.0)
                    } else {
                        Value::Int(value)
                    }));
                }
                match text.parse::<f64>() {
                    Ok(value) if value.is_finite() => Ok(Some(Value::Float(value))),
                    _ => {
                        self.at = start;
                        Err(self.expected("a number that is not too large"))
                    }
                }
            }
        }
    }

    /// Passes a value without keeping any of it.
    fn skip(&mut self, depth: u32) -> Result<(), NotJson> {
        // One bit for each open bracket, the last one lowest: set for an object.
        let mut objects: u128 = 0;
        let mut open = depth;
        loop {
            match self.next_token() {
                Some(b'"') => {
                    self.string()?;
                }
                Some(b'{') => {
                    self.deeper(open)?;
                    self.at += 1;
                    if self.next_token() == Some(b'}') {
                        self.at += 1;
                    } else {
                        objects = objects << 1 | 1;
                        open += 1;
                        self.key()?;
                        continue;
                    }
                }
                Some(b'[') => {
                    self.deeper(open)?;
                    self.at += 1;
                    if self.next_token() == Some(b']') {
                        self.at += 1;
                    } else {
                        objects <<= 1;
                        open += 1;
                        continue;
                    }
                }
                Some(b't') => self.word("true")?,
                Some(b'f') => self.word("false")?,
                Some(b'n') => self.word("null")?,
                _ => self.number()?,
            }
            loop {
                if open == depth {
                    return Ok(());
                }
                let in_object = objects & 1 == 1;
                match self.next_token() {
                    Some(b',') => {
                        self.at += 1;
                        if in_object {
                            self.key()?;
                        }
                        break;
                    }
                    Some(b'}') if in_object => {}
                    Some(b']') if !in_object => {}
                    _ if in_object => return Err(self.expected("`,` or `}`")),
                    _ => return Err(self.expected("`,` or `]`")),
                }
                self.at += 1;
                objects >>= 1;
                open -= 1;
            }
        }
    }

    #[inline(always)]
    fn key(&mut self) -> Result<(), NotJson> {
        if self.next_token() != Some(b'"') {
            return Err(self.expected("a key in double quotes"));
        }
        self.string()?;
        self.colon()
    }

    fn word(&mut self, word: &'static str) -> Result<(), NotJson> {
        if !self.bytes[self.at..].starts_with(word.as_bytes()) {
            return Err(self.expected("a value"));
        }
        self.at += word.len();
        Ok(())
    }

    fn digits(&mut self) -> usize {
        let rest = &self.bytes[self.at..];
        let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        count
    }

    /// RFC 8259, section 6.
    fn number(&mut self) -> Result<(), NotJson> {
        if self.bytes.get(self.at) == Some(&b'-') {
            self.at += 1;
        }
        let zero = self.bytes.get(self.at) == Some(&b'0');
        match self.digits() {
            0 => return Err(self.expected("a value")),
            2.. if zero => return Err(self.expected("a number without leading zeros")),
            _ => {}
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            if self.digits() == 0 {
                return Err(self.expected("a digit"));
            }
        }
        if let Some(b'e' | b'E') = self.bytes.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = self.bytes.get(self.at) {
                self.at += 1;
            }
            if self.digits() == 0 {
                return Err(self.expected("a digit"));
            }
        }
        Ok(())
    }

    /// Passes a string, from its opening quote on. Most are short and plain.
    #[inline(always)]
    fn string(&mut self) -> Result<Raw, NotJson> {
        let start = self.at + 1;
        if let Some(chunk) = self.bytes[start..].first_chunk() {
            let end = start + special_place(chunk);
            if self.bytes.get(end) == Some(&b'"') {
                self.at = end + 1;
                return Ok(Raw {
                    start,
                    end,
                    escaped: false,
                });
            }
        }
        self.long_string(start)
    }

    #[inline(never)]
    fn long_string(&mut self, start: usize) -> Result<Raw, NotJson> {
        let mut escaped = false;
        self.at = start;
        loop {
            self.at = plain_end(self.bytes, self.at);
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    let end = self.at;
                    self.at += 1;
                    return Ok(Raw {
                        start,
                        end,
                        escaped,
                    });
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => return Err(self.expected("no control character in a text")),
                None => return Err(self.expected("the end of a text")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), NotJson> {
        let hex = |bytes: &[u8]| bytes.len() == 4 && bytes.iter().all(u8::is_ascii_hexdigit);
        match self.bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') if self.bytes.get(self.at + 2..self.at + 6).is_some_and(hex) => {
                self.at += 6;
            }
            _ => return Err(self.expected("an escape such as `\\n` or `\\u000a`")),
        }
        Ok(())
    }

    /// What a string says.
    #[inline(always)]
    fn decode(&self, raw: Raw) -> Result<Cow<'t, str>, NotJson> {
        if !raw.escaped {
            return Ok(Cow::Borrowed(&self.text[raw.start..raw.end]));
        }
        serde_json::from_str(&self.text[raw.start - 1..=raw.end])
            .map(Cow::Owned)
            .map_err(|_| NotJson {
                offset: raw.start,
                expected: "a text without lone surrogates",
            })
    }
}

/// A string between its quotes.
#[derive(Clone, Copy)]
struct Raw {
    start: usize,
    end: usize,
    escaped: bool,
}

/// So many bytes are looked at at once, for this is where the time goes.
const BLOCK: usize = 16;

/// The next place of a quote, a backslash or a control character, or the end.
fn plain_end(bytes: &[u8], mut at: usize) -> usize {
    while let Some(chunk) = bytes[at..].first_chunk() {
        let place = special_place(chunk);
        at += place;
        if place < BLOCK {
            return at;
        }
    }
    let rest = &bytes[at..];
    let plain = |byte: &u8| *byte >= 0x20 && *byte != b'"' && *byte != b'\\';
    at + rest.iter().take_while(|byte| plain(byte)).count()
}

/// The same within a block; its length if there is none.
#[inline(always)]
fn special_place(block: &[u8; BLOCK]) -> usize {
    const HALF: usize = BLOCK / 2;
    let whole = u128::from_le_bytes(*block);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the two halves, each as it is"
    )]
    let (first, second) = (special(whole as u64), special((whole >> 64) as u64));
    // Without a bit set, trailing_zeros is all of the 64, and the place 8.
    if first == 0 {
        HALF + second.trailing_zeros() as usize / 8
    } else {
        first.trailing_zeros() as usize / 8
    }
}

/// A bit in the lowest byte that is special; those above it need not be right.
#[inline(always)]
fn special(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let quote = (word ^ (ONES * 0x22)).wrapping_sub(ONES);
    let backslash = (word ^ (ONES * 0x5c)).wrapping_sub(ONES);
    let control = word.wrapping_sub(ONES * 0x20);
    // Bytes of 0x80 and more, which none of the three is, are masked out.
    (quote | backslash | control) & !word & HIGH
}

#[cfg(test)]
mod tests;
