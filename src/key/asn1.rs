//! Keys in ASN.1: PKCS#1 (RFC 8017), SEC 1 (RFC 5915), OpenSSL's DSA, PKCS#8
//! (RFC 5958), and how PKCS#8 is encrypted (RFC 8018).
//!
//! Owns which part is public. The crates borrow; nothing secret is copied.

use pkcs8::der::asn1::{AnyRef, ObjectIdentifier, OctetStringRef, UintRef};
use pkcs8::der::{Decode as _, Reader, SliceReader};
use pkcs8::spki::{AlgorithmIdentifierRef, SubjectPublicKeyInfoRef};
use pkcs8::{PrivateKeyInfo, der};
use sec1::EcPrivateKey;
use ssh_key::Mpint;
use ssh_key::public::{DsaPublicKey, EcdsaPublicKey, Ed25519PublicKey, KeyData, RsaPublicKey};

use super::{Identity, Protection, wire};

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const DSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10040.4.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const PBES2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.5.13");
const PBKDF2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.5.12");
const SCRYPT: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.11591.4.11");

/// Names of encryption, as OpenSSL gives them.
const CIPHERS: [(ObjectIdentifier, &str); 9] = [
    (
        ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.1.2"),
        "aes-128-cbc",
    ),
    (
        ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.1.22"),
        "aes-192-cbc",
    ),
    (
        ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.1.42"),
        "aes-256-cbc",
    ),
    (
        ObjectIdentifier::new_unwrap("1.2.840.113549.3.7"),
        "des-ede3-cbc",
    ),
    (ObjectIdentifier::new_unwrap("1.3.14.3.2.7"), "des-cbc"),
    (
        ObjectIdentifier::new_unwrap("1.2.840.113549.1.5.3"),
        "pbe-md5-des",
    ),
    (
        ObjectIdentifier::new_unwrap("1.2.840.113549.1.5.10"),
        "pbe-sha1-des",
    ),
    (
        ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.1.1"),
        "pbe-sha1-rc4-128",
    ),
    (
        ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.1.3"),
        "pbe-sha1-3des",
    ),
];

/// A sequence's first unsigned integers after its version.
fn numbers<const N: usize>(bytes: &[u8], version: bool) -> der::Result<[UintRef<'_>; N]> {
    let mut reader = SliceReader::new(bytes)?;
    reader.sequence(|reader| {
        if version {
            u8::decode(reader)?;
        }
        let mut out = [UintRef::new(&[])?; N];
        for number in &mut out {
            *number = UintRef::decode(reader)?;
        }
        // The rest is secret.
        reader.read_slice(reader.remaining_len())?;
        Ok(out)
    })
}

/// An RSA key of its numbers, big-endian.
pub(super) fn rsa_key(e: &[u8], n: &[u8]) -> Option<KeyData> {
    Some(KeyData::Rsa(RsaPublicKey {
        e: Mpint::from_positive_bytes(e).ok()?,
        n: Mpint::from_positive_bytes(n).ok()?,
    }))
}

/// A DSA key of its numbers, big-endian.
pub(super) fn dsa_key([p, q, g, y]: [&[u8]; 4]) -> Option<KeyData> {
    Some(KeyData::Dsa(DsaPublicKey {
        p: Mpint::from_positive_bytes(p).ok()?,
        q: Mpint::from_positive_bytes(q).ok()?,
        g: Mpint::from_positive_bytes(g).ok()?,
        y: Mpint::from_positive_bytes(y).ok()?,
    }))
}

/// The public part of an `RSAPrivateKey`.
pub(super) fn rsa_private(bytes: &[u8]) -> Option<KeyData> {
    let [n, e] = numbers(bytes, true).ok()?;
    rsa_key(e.as_bytes(), n.as_bytes())
}

/// An `RSAPublicKey`.
pub(super) fn rsa_public(bytes: &[u8]) -> Option<KeyData> {
    let [n, e] = numbers(bytes, false).ok()?;
    rsa_key(e.as_bytes(), n.as_bytes())
}

/// The public part of OpenSSL's `DSAPrivateKey`.
pub(super) fn dsa_private(bytes: &[u8]) -> Option<KeyData> {
    let numbers = numbers::<4>(bytes, true).ok()?;
    dsa_key(numbers.each_ref().map(UintRef::as_bytes))
}

/// The public part of an `ECPrivateKey`, if it holds one: it need not, but what
/// `ssh-keygen`, `openssl` and `puttygen` write does.
pub(super) fn ec_private(bytes: &[u8]) -> Option<KeyData> {
    let key = EcPrivateKey::from_der(bytes).ok()?;
    ec(key.public_key?)
}

fn ec(point: &[u8]) -> Option<KeyData> {
    EcdsaPublicKey::from_sec1_bytes(point)
        .ok()
        .map(KeyData::Ecdsa)
}

/// A `SubjectPublicKeyInfo`.
pub(super) fn public_info(bytes: &[u8]) -> Option<KeyData> {
    let info = SubjectPublicKeyInfoRef::from_der(bytes).ok()?;
    let key = info.subject_public_key.as_bytes()?;
    match info.algorithm.oid {
        RSA => rsa_public(key),
        EC => ec(key),
        ED25519 => ed25519(key),
        DSA => dsa_public(info.algorithm.parameters?, key),
        _ => None,
    }
}

/// A DSA public key and its parameters (RFC 3279, 2.3.2).
fn dsa_public(parameters: AnyRef<'_>, key: &[u8]) -> Option<KeyData> {
    let parameters = parameters.sequence(|reader| {
        Ok([
            UintRef::decode(reader)?,
            UintRef::decode(reader)?,
            UintRef::decode(reader)?,
        ])
    });
    let [p, q, g] = parameters.ok()?;
    let y = UintRef::from_der(key).ok()?;
    dsa_key([p, q, g, y].each_ref().map(UintRef::as_bytes))
}

fn ed25519(key: &[u8]) -> Option<KeyData> {
    Some(KeyData::Ed25519(Ed25519PublicKey(key.try_into().ok()?)))
}

/// Which key a `PrivateKeyInfo` is. Of a DSA key it holds only the secret half,
/// of an Ed25519 key often so; then the type is all that is told.
pub(super) fn private_info(bytes: &[u8]) -> Option<Identity> {
    let info = PrivateKeyInfo::try_from(bytes).ok()?;
    let (key, name) = match info.algorithm.oid {
        RSA => (rsa_private(info.private_key), "ssh-rsa"),
        EC => {
            let key = ec_private(info.private_key);
            return Some(key.map_or_else(Identity::default, |key| wire::identity(&key)));
        }
        ED25519 => (info.public_key.and_then(ed25519), "ssh-ed25519"),
        DSA => (None, "ssh-dss"),
        _ => return Some(Identity::default()),
    };
    Some(key.map_or_else(|| Identity::of_algorithm(name), |key| wire::identity(&key)))
}

/// How an `EncryptedPrivateKeyInfo` is encrypted.
pub(super) fn encrypted_info(bytes: &[u8]) -> Option<Protection> {
    let mut reader = SliceReader::new(bytes).ok()?;
    let algorithm = reader
        .sequence(|reader| {
            let algorithm = AlgorithmIdentifierRef::decode(reader)?;
            OctetStringRef::decode(reader)?;
            Ok(algorithm)
        })
        .ok()?;
    let mut protection = Protection {
        encrypted: true,
        ..Protection::default()
    };
    if algorithm.oid != PBES2 {
        protection.cipher = Some(cipher(algorithm.oid));
        return Some(protection);
    }
    let schemes = algorithm.parameters.and_then(|parameters| {
        parameters
            .sequence(|reader| {
                Ok((
                    AlgorithmIdentifierRef::decode(reader)?,
                    AlgorithmIdentifierRef::decode(reader)?,
                ))
            })
            .ok()
    });
    if let Some((kdf, scheme)) = schemes {
        protection.cipher = Some(cipher(scheme.oid));
        let (name, rounds) = match kdf.oid {
            PBKDF2 => ("pbkdf2".to_owned(), kdf.parameters.and_then(rounds)),
            // The cost N, which is memory as well.
            SCRYPT => ("scrypt".to_owned(), kdf.parameters.and_then(rounds)),
            other => (other.to_string(), None),
        };
        protection.kdf = Some(name);
        protection.rounds = rounds;
    }
    Some(protection)
}

/// The number after the salt.
fn rounds(parameters: AnyRef<'_>) -> Option<u64> {
    let rounds = parameters.sequence(|reader| {
        OctetStringRef::decode(reader)?;
        let rounds = u64::decode(reader)?;
        reader.read_slice(reader.remaining_len())?;
        Ok(rounds)
    });
    rounds.ok()
}

fn cipher(oid: ObjectIdentifier) -> String {
    CIPHERS
        .iter()
        .find(|(known, _)| *known == oid)
        .map_or_else(|| oid.to_string(), |(_, name)| (*name).to_owned())
}
