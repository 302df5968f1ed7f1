//! Text armour: PEM (RFC 7468, with the headers of RFC 1421), and RFC 4716.
//!
//! Owns labels, headers and base64, read as leniently as OpenSSL and OpenSSH
//! do: any line length, anything in front, a missing end. What is decoded may be
//! secret, so it stands in buffers of their final size that are wiped.

use data_encoding::BASE64_NOPAD;
use zeroize::Zeroizing;

use super::{Facts, Format, Kind, asn1, some_text, wire};

const PEM_BEGIN: &[u8] = b"-----BEGIN ";
const PEM_END: &[u8] = b"-----END ";
const DASHES: &[u8] = b"-----";
const RFC4716: &[u8] = b"---- BEGIN SSH2 PUBLIC KEY ----";
/// `openssl ecparam` writes the curve in a block of its own before the key.
const BLOCKS: usize = 8;

/// A block of PEM or what looks like it.
pub(super) struct Block<'a> {
    /// What stands between `-----BEGIN ` and `-----`.
    pub(super) label: &'a [u8],
    /// Lines with a colon before the base64.
    headers: Vec<(&'a [u8], &'a [u8])>,
    /// What the base64 decodes to, as far as it is base64.
    pub(super) body: Zeroizing<Vec<u8>>,
    /// Whether it has an end and nothing but base64 up to it.
    pub(super) complete: bool,
}

impl<'a> Block<'a> {
    pub(super) fn header(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| *value)
    }
}

/// The first block of PEM whose label `wanted` accepts.
pub(super) fn pem(content: &[u8], wanted: impl Fn(&[u8]) -> bool) -> Option<Block<'_>> {
    let mut rest = content;
    for _ in 0..BLOCKS {
        rest = &rest[find(rest, PEM_BEGIN)? + PEM_BEGIN.len()..];
        let line = rest.iter().position(|c| *c == b'\n').unwrap_or(rest.len());
        let label = &rest[..find(&rest[..line], DASHES).unwrap_or(line)];
        rest = &rest[line..];
        if wanted(label) {
            let end = find(rest, PEM_END);
            return Some(block(
                label,
                &rest[..end.unwrap_or(rest.len())],
                end.is_some(),
            ));
        }
    }
    None
}

/// What stands between the lines `begin` and one that starts with `---- END`.
pub(super) fn ssh2<'a>(content: &'a [u8], begin: &'a [u8]) -> Option<Block<'a>> {
    let rest = content.trim_ascii_start().strip_prefix(begin)?;
    let end = find(rest, b"---- END");
    Some(block(
        begin,
        &rest[..end.unwrap_or(rest.len())],
        end.is_some(),
    ))
}

fn block<'a>(label: &'a [u8], text: &'a [u8], ended: bool) -> Block<'a> {
    let mut headers = Vec::new();
    let mut rest = text.trim_ascii_start();
    while headers.len() < BLOCKS {
        let end = rest.iter().position(|c| *c == b'\n').unwrap_or(rest.len());
        let Some(colon) = rest[..end].iter().position(|c| *c == b':') else {
            break;
        };
        // RFC 4716 section 3.3: a backslash continues a header on the next line.
        let mut stop = end;
        while rest[..stop].trim_ascii_end().ends_with(b"\\") && stop < rest.len() {
            let next = rest[stop + 1..].iter().position(|c| *c == b'\n');
            stop = next.map_or(rest.len(), |next| stop + 1 + next);
        }
        headers.push((&rest[..colon], rest[colon + 1..stop].trim_ascii()));
        rest = &rest[stop..];
        rest = rest.trim_ascii_start();
    }
    let (body, whole) = base64(rest);
    Block {
        label,
        headers,
        body,
        complete: ended && whole,
    }
}

/// Decodes base64 with blanks in it, and says whether that was all.
pub(super) fn base64(text: &[u8]) -> (Zeroizing<Vec<u8>>, bool) {
    let mut digits = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut whole = true;
    let mut padding = 0;
    for c in text {
        match c {
            c if c.is_ascii_whitespace() => {}
            b'=' => padding += 1,
            c if padding == 0 && (c.is_ascii_alphanumeric() || matches!(c, b'+' | b'/')) => {
                digits.push(*c);
            }
            _ => {
                whole = false;
                break;
            }
        }
    }
    whole &= (digits.len() + padding) % 4 == 0 && padding < 3;
    if !whole {
        let usable = digits.len() / 4 * 4;
        digits.truncate(usable);
    }
    let length = BASE64_NOPAD.decode_len(digits.len()).unwrap_or_default();
    let mut out = Zeroizing::new(vec![0; length]);
    match BASE64_NOPAD.decode_mut(&digits, &mut out) {
        Ok(written) => out.truncate(written),
        Err(partial) => {
            whole = false;
            out.truncate(partial.written);
        }
    }
    (out, whole)
}

/// Public keys that are not written in one line: RFC 4716 (`ssh-keygen -e`) and
/// PEM (`ssh-keygen -e -m PEM`, `-m PKCS8`).
pub(super) fn public(content: &[u8]) -> Option<Facts> {
    if let Some(block) = ssh2(content, RFC4716) {
        let mut facts = Facts::new(Kind::Public, Format::SshCom);
        facts.identity = wire::identify(&block.body)?;
        facts.comment = block.header(b"Comment").and_then(quoted);
        return Some(facts);
    }
    let block = pem(content, |label| label.ends_with(b"PUBLIC KEY"))?;
    let (format, key) = match block.label {
        b"PUBLIC KEY" => (Format::Pkcs8, asn1::public_info(&block.body)),
        b"RSA PUBLIC KEY" => (Format::Pem, asn1::rsa_public(&block.body)),
        _ => return None,
    };
    let mut facts = Facts::new(Kind::Public, format);
    facts.identity = wire::identity(&key?);
    Some(facts)
}

/// A header's text, which may stand in double quotes.
pub(super) fn quoted(text: &[u8]) -> Option<String> {
    let inner = text
        .strip_prefix(b"\"")
        .and_then(|text| text.strip_suffix(b"\""));
    some_text(inner.unwrap_or(text))
}

/// Where `needle` begins.
pub(super) fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let mut from = 0;
    loop {
        from += text.get(from..)?.iter().position(|c| *c == first)?;
        if text[from..].starts_with(needle) {
            return Some(from);
        }
        from += 1;
    }
}
