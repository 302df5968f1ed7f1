//! Certificates of OpenSSH (PROTOCOL.certkeys).
//!
//! Owns what a certificate grants, and to whom. Does not verify its signature:
//! that is sshd's business, and the alert's reader wants to see a forged one
//! too. (The `ssh-key` crate refuses certificates that are valid for ever, which
//! ssh-keygen makes by default.)

use super::wire::{CERTIFICATE, Cursor, blob_of, identify, type_of};
use super::{Identity, text};

/// How many principals, options or extensions are kept of one certificate;
/// OpenSSH refuses more than 256 principals (`SSHKEY_CERT_MAX_PRINCIPALS`).
const NAMES: usize = 256;

/// An end of a certificate's validity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Moment {
    /// There is none.
    Always,
    /// Seconds since 1970 in UTC.
    At(u64),
}

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CertificateFacts {
    /// `user` or `host`.
    pub role: &'static str,
    /// The name the authority gave it, which sshd logs.
    pub key_id: String,
    /// Its number.
    pub serial: u64,
    /// Users or hosts it is valid for; none means any.
    pub principals: Vec<String>,
    /// From when.
    pub valid_after: Moment,
    /// Until when, exclusive.
    pub valid_before: Moment,
    /// What restricts it, as `name` or `name=value`.
    pub options: Vec<String>,
    /// What it permits.
    pub extensions: Vec<String>,
    /// The authority's key.
    pub authority: Identity,
}

/// Decodes a certificate.
pub(super) fn decode(blob: &[u8]) -> Option<(Identity, CertificateFacts)> {
    let name = type_of(blob)?;
    let plain = name.strip_suffix(CERTIFICATE)?;
    let mut cursor = Cursor(blob);
    cursor.string()?;
    let _nonce = cursor.string()?;
    let (plain, fields) = match plain {
        "ssh-rsa" | "rsa-sha2-256" | "rsa-sha2-512" => ("ssh-rsa", 2),
        "ssh-dss" => (plain, 4),
        "ssh-ed25519" => (plain, 1),
        "sk-ssh-ed25519" => ("sk-ssh-ed25519@openssh.com", 2),
        "sk-ecdsa-sha2-nistp256" => ("sk-ecdsa-sha2-nistp256@openssh.com", 3),
        name if name.starts_with("ecdsa-sha2-") => (name, 2),
        _ => return None,
    };
    let key = cursor.0;
    for _ in 0..fields {
        cursor.string()?;
    }
    let key = &key[..key.len() - cursor.0.len()];
    let mut identity = identify(&blob_of(plain, key))?;
    let plain = plain.strip_suffix("@openssh.com").unwrap_or(plain);
    identity.algorithm = Some(format!("{plain}{CERTIFICATE}"));

    let serial = cursor.u64()?;
    let role = match cursor.u32()? {
        1 => "user",
        2 => "host",
        _ => return None,
    };
    let key_id = text(cursor.string()?);
    let principals = principals(cursor.string()?)?;
    let valid_after = match cursor.u64()? {
        0 => Moment::Always,
        seconds => Moment::At(seconds),
    };
    let valid_before = match cursor.u64()? {
        u64::MAX => Moment::Always,
        seconds => Moment::At(seconds),
    };
    let options = options_of(cursor.string()?)?;
    let extensions = options_of(cursor.string()?)?;
    let _reserved = cursor.string()?;
    let authority = identify(cursor.string()?)?;
    let _signature = cursor.string()?;
    cursor.is_empty().then_some((
        identity,
        CertificateFacts {
            role,
            key_id,
            serial,
            principals,
            valid_after,
            valid_before,
            options,
            extensions,
            authority,
        },
    ))
}

fn principals(bytes: &[u8]) -> Option<Vec<String>> {
    let mut cursor = Cursor(bytes);
    let mut names = Vec::new();
    while !cursor.is_empty() && names.len() < NAMES {
        names.push(text(cursor.string()?));
    }
    Some(names)
}

/// Name and value, each a string; the value of a known option is a string within.
fn options_of(bytes: &[u8]) -> Option<Vec<String>> {
    let mut cursor = Cursor(bytes);
    let mut out = Vec::new();
    while !cursor.is_empty() && out.len() < NAMES {
        let name = text(cursor.string()?);
        let value = cursor.string()?;
        let value = Cursor(value).string().unwrap_or(value);
        out.push(if value.is_empty() {
            name
        } else {
            format!("{name}={}", text(value))
        });
    }
    Some(out)
}
