//! The SSH wire format (RFC 4251 section 5): lengths, then bytes.
//!
//! Owns which key a blob is. Borrows and never copies, so that walking over a
//! private key leaves nothing behind. What does not fit is `None`.

use std::fmt::Write as _;

use data_encoding::BASE64_NOPAD;
use sha2::{Digest as _, Sha256};
use ssh_key::public::KeyData;
use ssh_key::{EcdsaCurve, HashAlg, Mpint, PublicKey};

use super::Identity;

/// What is left to read.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a>(pub(super) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        Some(u64::from_be_bytes(self.take(8)?.try_into().ok()?))
    }

    /// A `string` or `mpint`, without its length.
    pub(super) fn string(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.u32()?).ok()?;
        self.take(length)
    }

    pub(super) fn is_empty(self) -> bool {
        self.0.is_empty()
    }
}

/// The suffix of the types of certificates.
pub(super) const CERTIFICATE: &str = "-cert-v01@openssh.com";

/// Types that are understood, and the short names that sshd takes for them in
/// `authorized_keys`, in either case.
const TYPES: [(&str, &str); 10] = [
    ("ssh-rsa", "RSA"),
    ("rsa-sha2-256", "RSA"),
    ("rsa-sha2-512", "RSA"),
    ("ssh-dss", "DSA"),
    ("ecdsa-sha2-nistp256", "ECDSA"),
    ("ecdsa-sha2-nistp384", "ECDSA"),
    ("ecdsa-sha2-nistp521", "ECDSA"),
    ("ssh-ed25519", "ED25519"),
    ("sk-ssh-ed25519@openssh.com", "ED25519-SK"),
    ("sk-ecdsa-sha2-nistp256@openssh.com", "ECDSA-SK"),
];

/// The type that a blob names.
pub(super) fn type_of(blob: &[u8]) -> Option<&str> {
    let name = Cursor(blob).string()?;
    // RFC 4251 section 6: at most 64, printable, without comma; certificates' are longer.
    let fits = name.len() <= 96 && !name.is_empty();
    let plain = name.iter().all(|c| c.is_ascii_graphic() && *c != b',');
    (fits && plain)
        .then(|| std::str::from_utf8(name).ok())
        .flatten()
}

/// Whether `word` stands for the type `name` at the head of a line.
pub(super) fn is_named(word: &[u8], name: &str) -> bool {
    word == name.as_bytes()
        || TYPES.iter().any(|(long, short)| {
            *long == name && word.eq_ignore_ascii_case(short.as_bytes())
                || name == "ssh-rsa" && *short == "RSA" && word == long.as_bytes()
        })
}

/// Which key a blob is. A type that is not known is taken by its word, so that
/// keys of tomorrow are not overlooked; a broken key of a known type is none.
pub(super) fn identify(blob: &[u8]) -> Option<Identity> {
    if let Ok(key) = PublicKey::from_bytes(blob)
        && !matches!(key.key_data(), KeyData::Other(_))
    {
        return Some(identity(key.key_data()));
    }
    let name = type_of(blob)?;
    if TYPES.iter().any(|(known, _)| *known == name) || !name.contains('-') {
        return None;
    }
    // Every type's blob is a row of strings (RFC 4253 section 6.6).
    let mut rest = Cursor(&blob[4 + name.len()..]);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        rest.string()?;
    }
    Some(Identity {
        algorithm: Some(name.to_owned()),
        // puttygen writes it, OpenSSH does not know it.
        bits: (name == "ssh-ed448").then_some(448),
        fingerprint: Some(fingerprint_of(blob)),
    })
}

/// The facts of a key that the crate has decoded.
pub(super) fn identity(key: &KeyData) -> Identity {
    Identity {
        algorithm: Some(key.algorithm().as_str().to_owned()),
        bits: bits(key),
        fingerprint: Some(key.fingerprint(HashAlg::Sha256).to_string()),
    }
}

fn fingerprint_of(blob: &[u8]) -> String {
    let mut out = String::from("SHA256:");
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "{}",
        BASE64_NOPAD.encode_display(&Sha256::digest(blob))
    );
    out
}

/// As `sshkey_size()` of OpenSSH counts.
fn bits(key: &KeyData) -> Option<u32> {
    match key {
        KeyData::Rsa(key) => bit_length(&key.n),
        KeyData::Dsa(key) => bit_length(&key.p),
        KeyData::Ecdsa(key) => Some(match key.curve() {
            EcdsaCurve::NistP256 => 256,
            EcdsaCurve::NistP384 => 384,
            EcdsaCurve::NistP521 => 521,
        }),
        KeyData::Ed25519(_) | KeyData::SkEd25519(_) | KeyData::SkEcdsaSha2NistP256(_) => Some(256),
        _ => None,
    }
}

fn bit_length(number: &Mpint) -> Option<u32> {
    let bytes = number.as_positive_bytes()?;
    let top = bytes.first()?;
    let bits = bytes.len().checked_mul(8)? - usize::try_from(top.leading_zeros()).ok()?;
    u32::try_from(bits).ok()
}
