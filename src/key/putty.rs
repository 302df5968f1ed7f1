//! Private keys of puttygen (`.ppk`, appendix C of its manual).
//!
//! Owns the head of the file, whose public part is in the clear. The lines with
//! the secret part are never decoded.

use zeroize::Zeroizing;

use super::wire;
use super::{Damage, Facts, Format, Identity, Kind, Protection, armor, some_text};

const MAGIC: &[u8] = b"PuTTY-User-Key-File-";

/// The key in `content`, if that is a `.ppk`.
pub(super) fn examine(content: &[u8]) -> Option<Facts> {
    let rest = content.strip_prefix(MAGIC)?;
    let mut facts = Facts::new(Kind::Private, Format::Putty);
    let mut lines = rest.split(|c| *c == b'\n').map(<[u8]>::trim_ascii);
    let (version, name) = header(lines.next()?)?;
    // Of a line that ends with the file the rest may be missing.
    let name = some_text(name).filter(|_| rest.contains(&b'\n'));
    let mut protection = Protection::default();
    let mut blob = None;
    let mut complete = false;
    while let Some(line) = lines.next() {
        let Some((name, value)) = header(line) else {
            continue;
        };
        match name {
            b"Encryption" if value != b"none" => {
                protection.encrypted = true;
                protection.cipher = some_text(value);
            }
            b"Comment" => facts.comment = some_text(value),
            b"Public-Lines" => {
                let count = number(value).unwrap_or_default();
                let count = usize::try_from(count).unwrap_or_default();
                let text: Vec<&[u8]> = lines.by_ref().take(count).collect();
                // A count that lies takes in lines that are secret.
                let text = Zeroizing::new(text.concat());
                blob = Some(armor::base64(&text).0);
            }
            b"Key-Derivation" => {
                protection.kdf = some_text(&value.to_ascii_lowercase());
            }
            b"Argon2-Memory" => protection.memory = number(value),
            b"Argon2-Passes" => protection.rounds = number(value),
            b"Private-MAC" | b"Private-Hash" => complete = true,
            _ => {}
        }
    }
    if protection.encrypted && protection.kdf.is_none() && version != b"3" {
        // Two hashes of the passphrase.
        protection.kdf = Some("sha1".to_owned());
    }
    facts.protection = Some(protection);
    let identity = blob.as_ref().and_then(|blob| wire::identify(blob));
    facts.damage = match &identity {
        Some(identity) if identity.algorithm == name => None,
        Some(_) => Some(Damage::Mismatch),
        None => Some(Damage::Malformed),
    };
    facts.identity = identity.unwrap_or(Identity {
        algorithm: name,
        ..Identity::default()
    });
    if !complete {
        facts.damage = Some(Damage::Truncated);
    }
    Some(facts)
}

fn header(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|c| *c == b':')?;
    Some((&line[..colon], line[colon + 1..].trim_ascii()))
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}
