//! The SSH wire format (RFC 4251 section 5): lengths, then bytes.
//!
//! Owns which key a blob is. Borrows and never copies, so that walking over a
//! private key leaves nothing behind. What does not fit is `None`.

use std::fmt::Write as _;

use data_encoding::BASE64_NOPAD;
use sha2::{Digest as _, Sha256};
use ssh_key::public::KeyData;
use ssh_key::{EcdsaCurve, HashAlg, Mpint, PublicKey};

use super::{Identity, asn1};

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

/// Types that are understood, and the short names that OpenSSH takes for them in
/// either case, at the head of a line and within a blob
/// (`sshkey_type_from_name()`). Names of signatures stand for their keys.
const TYPES: [(&str, &str); 10] = [
    ("ssh-rsa", "RSA"),
    ("rsa-sha2-256", "RSA"),
    ("rsa-sha2-512", "RSA"),
    ("ssh-dss", "DSA"),
    ("ssh-ed25519", "ED25519"),
    ("sk-ssh-ed25519@openssh.com", "ED25519-SK"),
    ("sk-ecdsa-sha2-nistp256@openssh.com", "ECDSA-SK"),
    ("ecdsa-sha2-nistp256", "ECDSA"),
    ("ecdsa-sha2-nistp384", "ECDSA"),
    ("ecdsa-sha2-nistp521", "ECDSA"),
];

/// The short name of a type that is understood.
fn family(name: &str) -> Option<&'static str> {
    TYPES
        .iter()
        .find(|(long, short)| *long == name || short.eq_ignore_ascii_case(name))
        .map(|(_, short)| *short)
}

/// The one name of a type that is understood.
fn canonical(name: &str) -> Option<&'static str> {
    let short = family(name)?;
    let exact = TYPES
        .iter()
        .find(|(long, _)| short == "ECDSA" && *long == name);
    let first = || TYPES.iter().find(|(_, known)| *known == short);
    exact.or_else(first).map(|(long, _)| *long)
}

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

/// Whether `word` at the head of a line stands for the type `name` of the blob.
pub(super) fn is_named(word: &[u8], name: &str) -> bool {
    let Ok(word) = std::str::from_utf8(word) else {
        return false;
    };
    let split = |name| match str::strip_suffix(name, CERTIFICATE) {
        Some(plain) => (family(plain), true),
        None => (family(name), false),
    };
    let known = split(name);
    word == name || known.0.is_some() && split(word) == known
}

/// Which key a blob is. A type that is not known is taken by its word, so that
/// keys of tomorrow are not overlooked; a broken key of a known type is none.
pub(super) fn identify(blob: &[u8]) -> Option<Identity> {
    let mut identity = name(blob)?;
    identity.public = blob.into();
    Some(identity)
}

fn name(blob: &[u8]) -> Option<Identity> {
    let name = type_of(blob)?;
    let mut rest = Cursor(&blob[4 + name.len()..]);
    match canonical(name) {
        Some("ssh-rsa") => {
            let [e, n] = numbers(rest)?;
            Some(identity(&asn1::rsa_key(e, n)?))
        }
        Some("ssh-dss") => Some(identity(&asn1::dsa_key(numbers(rest)?)?)),
        Some(long) => {
            let key = PublicKey::from_bytes(&blob_of(long, rest.0)).ok()?;
            Some(identity(key.key_data()))
        }
        None if !name.contains('-') || rest.is_empty() => None,
        None => {
            // Every type's blob is a row of strings (RFC 4253 section 6.6).
            while !rest.is_empty() {
                rest.string()?;
            }
            Some(Identity {
                algorithm: Some(name.to_owned()),
                // puttygen writes it, OpenSSH does not know it.
                bits: (name == "ssh-ed448").then_some(448),
                fingerprint: Some(fingerprint_of(blob)),
                ..Identity::default()
            })
        }
    }
}

/// The blob of a key of the type `name` with these fields.
pub(super) fn blob_of(name: &str, fields: &[u8]) -> Vec<u8> {
    let mut blob = Vec::with_capacity(4 + name.len() + fields.len());
    // Names are a handful of bytes.
    let length = u32::try_from(name.len()).unwrap_or_default();
    blob.extend_from_slice(&length.to_be_bytes());
    blob.extend_from_slice(name.as_bytes());
    blob.extend_from_slice(fields);
    blob
}

/// Positive numbers and nothing else. Zeros in front of them are as good as none
/// to `sshbuf_get_bignum2()`, while the crate refuses them: a key written so
/// logs in, and must not be overlooked.
fn numbers<const N: usize>(mut cursor: Cursor<'_>) -> Option<[&[u8]; N]> {
    let mut out: [&[u8]; N] = [&[]; N];
    for number in &mut out {
        *number = cursor.string()?;
        if number.first().is_some_and(|byte| *byte >= 0x80) {
            return None;
        }
    }
    cursor.is_empty().then_some(out)
}

/// The facts of a key that the crate has decoded.
pub(super) fn identity(key: &KeyData) -> Identity {
    Identity {
        algorithm: Some(key.algorithm().as_str().to_owned()),
        bits: bits(key),
        fingerprint: Some(key.fingerprint(HashAlg::Sha256).to_string()),
        public: PublicKey::from(key.clone())
            .to_bytes()
            .map(|bytes| bytes.as_slice().into())
            .unwrap_or_default(),
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
