//! One line with a public key in it: `[options|hosts] type base64 [comment]`.
//!
//! Owns the grammar as sshd reads it (auth2-pubkeyfile.c, `sshkey_read()`,
//! `sshkey_advance_past_options()`), on bytes: a comment need not be UTF-8. Reads
//! a little more than sshd would, for a key that only another version of it
//! takes is to be seen too.

use data_encoding::BASE64;

use super::wire::{is_named, type_of};

/// A key in a line.
pub(super) struct KeyText<'a> {
    /// The key in wire format.
    pub(super) blob: Vec<u8>,
    /// What follows it, trimmed.
    pub(super) comment: &'a [u8],
}

/// A longer word of base64 is no key: RSA of 16384 bits takes 2.8 KiB, a
/// certificate with many principals more.
const BLOB_LIMIT: usize = 256 * 1024;

/// The key that `text` starts with.
pub(super) fn key(text: &[u8]) -> Option<KeyText<'_>> {
    let (name, rest) = word(text);
    // The longest type of a certificate has 57 bytes.
    if name.is_empty() || name.len() > 96 {
        return None;
    }
    let (base64, comment) = word(rest);
    if base64.len() < 16 || base64.len() > BLOB_LIMIT {
        return None;
    }
    let blob = decode(base64)?;
    is_named(name, type_of(&blob)?).then(|| KeyText {
        comment: comment.trim_ascii(),
        blob,
    })
}

/// Decodes as `b64_pton()` does, which skips what isspace(3) takes for a space: in a
/// word that ends at a blank or tab, the others.
fn decode(base64: &[u8]) -> Option<Vec<u8>> {
    let is_space = |c: &u8| matches!(c, 0x0b..=0x0d);
    if base64.iter().any(is_space) {
        let kept: Vec<u8> = base64.iter().copied().filter(|c| !is_space(c)).collect();
        return BASE64.decode(&kept).ok();
    }
    BASE64.decode(base64).ok()
}

/// The options before a key, and what follows them; `None` if a quote stays open.
pub(super) fn options(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = scan(text, |c| c == b' ' || c == b'\t')?;
    Some(text.split_at(end))
}

/// Single options of a list, as they are written.
pub(super) fn split_options(mut text: &[u8]) -> Vec<&[u8]> {
    let mut options = Vec::new();
    while !text.is_empty() {
        let end = scan(text, |c| c == b',').unwrap_or(text.len());
        options.push(&text[..end]);
        text = text.get(end + 1..).unwrap_or_default();
    }
    options
}

/// Where the first such byte outside of double quotes is, or the end. A quote
/// with a backslash before it is neither beginning nor end.
fn scan(text: &[u8], ends: impl Fn(u8) -> bool) -> Option<usize> {
    let mut quoted = false;
    let mut at = 0;
    while let Some(c) = text.get(at) {
        match c {
            b'\\' if text.get(at + 1) == Some(&b'"') => at += 1,
            b'"' => quoted = !quoted,
            c if !quoted && ends(*c) => return Some(at),
            _ => {}
        }
        at += 1;
    }
    (!quoted).then_some(text.len())
}

/// The first word and what follows it and the blanks after it.
pub(super) fn word(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text
        .iter()
        .position(|c| matches!(c, b' ' | b'\t'))
        .unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    (word, rest.trim_ascii_start())
}
