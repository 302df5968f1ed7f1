//! Private keys: what can be told of them without a passphrase.
//!
//! Owns which format it is, and OpenSSH's own (PROTOCOL.key). The section with the
//! secret numbers is walked over in place and never copied; the `ssh-key` crate
//! would take them into integers that it does not wipe when a later part is broken.

use super::armor::{self, Block};
use super::role::Role;
use super::wire::{Cursor, identify};
use super::{Damage, Facts, Format, Identity, Kind, Protection, asn1, putty, some_text};

const OPENSSH_MAGIC: &[u8] = b"openssh-key-v1\0";
const SSH1_MAGIC: &[u8] = b"SSH PRIVATE KEY FILE FORMAT 1.1\n\0";
const SSHCOM_BEGIN: &[u8] = b"---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----";
/// `SSHCOM_MAGIC_NUMBER` in `import.c` of puttygen.
const SSHCOM_MAGIC: u32 = 0x3f6f_f9eb;

/// The private key in `content`, if there is one.
pub(super) fn examine(content: &[u8], role: Role) -> Option<Facts> {
    let mut facts = if let Some(facts) = putty::examine(content) {
        facts
    } else if let Some(rest) = content.strip_prefix(SSH1_MAGIC) {
        ssh1(rest)
    } else if let Some(block) = armor::ssh2(content, SSHCOM_BEGIN) {
        ssh_com(&block)
    } else {
        let block = armor::pem(content, |label| label.ends_with(b"PRIVATE KEY"))?;
        pem(&block)
    };
    if role == Role::HostKey {
        facts.kind = Kind::Host;
    }
    Some(facts)
}

fn pem(block: &Block<'_>) -> Facts {
    let body = &block.body;
    let mut facts = match block.label {
        b"OPENSSH PRIVATE KEY" => openssh(body),
        b"RSA PRIVATE KEY" => traditional(block, Some("ssh-rsa"), asn1::rsa_private),
        b"DSA PRIVATE KEY" => traditional(block, Some("ssh-dss"), asn1::dsa_private),
        b"EC PRIVATE KEY" => traditional(block, None, asn1::ec_private),
        b"PRIVATE KEY" => {
            let mut facts = plain(Format::Pkcs8);
            match asn1::private_info(body) {
                Some(identity) => facts.identity = identity,
                None => facts.damage = Some(Damage::Malformed),
            }
            facts
        }
        b"ENCRYPTED PRIVATE KEY" => {
            let mut facts = Facts::new(Kind::Private, Format::Pkcs8);
            let protection = asn1::encrypted_info(body);
            facts.damage = protection.is_none().then_some(Damage::Malformed);
            facts.protection = Some(protection.unwrap_or_else(encrypted));
            facts
        }
        // Of another program; that it is a private key is what its label says.
        _ => Facts::new(Kind::Private, Format::Pem),
    };
    if !block.complete {
        facts.damage = Some(Damage::Truncated);
    }
    facts
}

fn plain(format: Format) -> Facts {
    let mut facts = Facts::new(Kind::Private, format);
    facts.protection = Some(Protection::default());
    facts
}

fn encrypted() -> Protection {
    Protection {
        encrypted: true,
        ..Protection::default()
    }
}

/// PEM with its own encryption, which leaves nothing but the label readable.
fn traditional(
    block: &Block<'_>,
    name: Option<&str>,
    decode: fn(&[u8]) -> Option<ssh_key::public::KeyData>,
) -> Facts {
    let mut facts = plain(Format::Pem);
    let unknown = || name.map_or_else(Identity::default, Identity::of_algorithm);
    let kind = block.header(b"Proc-Type").unwrap_or_default();
    if armor::find(kind, b"ENCRYPTED").is_some() {
        let cipher = block.header(b"DEK-Info").and_then(|info| {
            let name = info.split(|c| *c == b',').next()?;
            some_text(&name.to_ascii_lowercase())
        });
        facts.identity = unknown();
        facts.protection = Some(Protection {
            // EVP_BytesToKey(3) with MD5 and one round.
            kdf: cipher.is_some().then(|| "md5".to_owned()),
            rounds: cipher.is_some().then_some(1),
            cipher,
            ..encrypted()
        });
        return facts;
    }
    if let Some(key) = decode(&block.body) {
        facts.identity = super::wire::identity(&key);
    } else {
        facts.identity = unknown();
        facts.damage = Some(Damage::Malformed);
    }
    facts
}

/// `openssh-key-v1`.
fn openssh(bytes: &[u8]) -> Facts {
    let mut facts = Facts::new(Kind::Private, Format::OpenSsh);
    if read_openssh(bytes, &mut facts).is_none() && facts.damage.is_none() {
        facts.damage = Some(Damage::Malformed);
    }
    facts
}

fn read_openssh(bytes: &[u8], facts: &mut Facts) -> Option<()> {
    let mut cursor = Cursor(bytes.strip_prefix(OPENSSH_MAGIC)?);
    let cipher = cursor.string()?;
    let kdf = cursor.string()?;
    let mut kdf_options = Cursor(cursor.string()?);
    let mut protection = Protection::default();
    if cipher != b"none" {
        protection.encrypted = true;
        protection.cipher = some_text(cipher);
        protection.kdf = some_text(kdf);
        if kdf == b"bcrypt" {
            let _salt = kdf_options.string();
            protection.rounds = kdf_options.u32().map(u64::from);
        }
    }
    let is_encrypted = protection.encrypted;
    facts.protection = Some(protection);
    let keys = cursor.u32()?;
    let public = cursor.string()?;
    facts.identity = match super::certificate::decode(public) {
        Some((identity, _)) => identity,
        None => identify(public)?,
    };
    let section = cursor.string()?;
    // OpenSSH reads files with one key only.
    if keys != 1 {
        return None;
    }
    if is_encrypted {
        return Some(());
    }
    let (halves, comment) = section_parts(section)?;
    facts.comment = some_text(comment);
    if halves != public_parts(public)? {
        facts.damage = Some(Damage::Mismatch);
    }
    Some(())
}

/// The public fields within a section of secrets, in the order of a public
/// key's blob, and the comment.
fn section_parts(section: &[u8]) -> Option<(Vec<&[u8]>, &[u8])> {
    let mut cursor = Cursor(section);
    if cursor.u32()? != cursor.u32()? {
        return None;
    }
    let name = cursor.string()?;
    let mut public = vec![name];
    match name {
        b"ssh-rsa" => {
            let n = cursor.string()?;
            let e = cursor.string()?;
            public.extend([e, n]);
            // d, iqmp, p, q
            skip(&mut cursor, 4)?;
        }
        b"ssh-dss" => {
            fields(&mut cursor, &mut public, 4)?;
            skip(&mut cursor, 1)?;
        }
        b"ssh-ed25519" => {
            fields(&mut cursor, &mut public, 1)?;
            skip(&mut cursor, 1)?;
        }
        b"sk-ssh-ed25519@openssh.com" | b"sk-ecdsa-sha2-nistp256@openssh.com" => {
            let count = if name.starts_with(b"sk-ssh") { 2 } else { 3 };
            fields(&mut cursor, &mut public, count)?;
            let _flags = cursor.u8()?;
            // key handle, reserved
            skip(&mut cursor, 2)?;
        }
        name if name.starts_with(b"ecdsa-sha2-") => {
            fields(&mut cursor, &mut public, 2)?;
            skip(&mut cursor, 1)?;
        }
        _ => return None,
    }
    Some((public, cursor.string()?))
}

fn fields<'a>(cursor: &mut Cursor<'a>, out: &mut Vec<&'a [u8]>, count: usize) -> Option<()> {
    for _ in 0..count {
        out.push(cursor.string()?);
    }
    Some(())
}

fn skip(cursor: &mut Cursor<'_>, count: usize) -> Option<()> {
    for _ in 0..count {
        cursor.string()?;
    }
    Some(())
}

/// All fields of a public key's blob; no type has more than six.
fn public_parts(blob: &[u8]) -> Option<Vec<&[u8]>> {
    let mut cursor = Cursor(blob);
    let mut parts = Vec::new();
    while !cursor.is_empty() && parts.len() < 6 {
        parts.push(cursor.string()?);
    }
    Some(parts)
}

/// The format of SSH 1, `authfile.c` of OpenSSH before 7.6.
fn ssh1(rest: &[u8]) -> Facts {
    let mut facts = Facts::new(Kind::Private, Format::Ssh1);
    facts.identity = Identity::of_algorithm("rsa1");
    let mut cursor = Cursor(rest);
    if let Some(cipher) = cursor.u8() {
        facts.protection = Some(Protection {
            encrypted: cipher != 0,
            cipher: (cipher == 3).then(|| "3des".to_owned()),
            kdf: (cipher == 3).then(|| "md5".to_owned()),
            ..Protection::default()
        });
    }
    let _reserved = cursor.u32();
    facts.identity.bits = cursor.u32().filter(|bits| *bits <= 1 << 16);
    facts
}

/// ssh.com's format, as `import.c` of puttygen reads it.
fn ssh_com(block: &Block<'_>) -> Facts {
    let mut facts = Facts::new(Kind::Private, Format::SshCom);
    facts.comment = block.header(b"Comment").and_then(armor::quoted);
    if read_ssh_com(&block.body, &mut facts).is_none() {
        facts.damage = Some(Damage::Malformed);
    }
    if !block.complete {
        facts.damage = Some(Damage::Truncated);
    }
    facts
}

fn read_ssh_com(bytes: &[u8], facts: &mut Facts) -> Option<()> {
    let mut cursor = Cursor(bytes);
    if cursor.u32()? != SSHCOM_MAGIC {
        return None;
    }
    let _length = cursor.u32()?;
    let kind = cursor.string()?;
    let cipher = cursor.string()?;
    let is_rsa = kind.starts_with(b"if-modn{sign{rsa");
    if is_rsa {
        facts.identity = Identity::of_algorithm("ssh-rsa");
    } else if kind.starts_with(b"dl-modp{sign{dsa") {
        facts.identity = Identity::of_algorithm("ssh-dss");
    }
    if cipher != b"none" {
        facts.protection = Some(Protection {
            cipher: some_text(cipher),
            kdf: Some("md5".to_owned()),
            ..encrypted()
        });
        return Some(());
    }
    facts.protection = Some(Protection::default());
    let mut section = Cursor(cursor.string()?);
    let mut section = Cursor(section.string()?);
    let key = if is_rsa {
        let e = bit_counted(&mut section)?;
        let _d = bit_counted(&mut section)?;
        let n = bit_counted(&mut section)?;
        asn1::rsa_key(e, n)
    } else {
        // A key with parameters of its own, not with predefined ones.
        if section.u32()? != 0 {
            return None;
        }
        let p = bit_counted(&mut section)?;
        let g = bit_counted(&mut section)?;
        let q = bit_counted(&mut section)?;
        asn1::dsa_key([p, q, g, bit_counted(&mut section)?])
    };
    facts.identity = super::wire::identity(&key?);
    Some(())
}

/// A number whose length is counted in bits.
fn bit_counted<'a>(cursor: &mut Cursor<'a>) -> Option<&'a [u8]> {
    let bits = usize::try_from(cursor.u32()?).ok()?;
    cursor.take(bits.div_ceil(8))
}
