//! What the modules' tests share, and keys that puttygen wrote.

mod hostile;
mod lists;
mod oracle;
mod reading;

use super::*;

/// A file under `fixtures`: keys made for these tests and used for nothing else.
macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!("fixtures/", $name)).as_slice()
    };
}
use fixture;

const ED25519: &[u8] = fixture!("throwaway_openssh_ed25519");
/// As `ssh-keygen -l` prints it.
const ED25519_PRINT: &str = "SHA256:tOKsr7HwKkbNDq7759QQv6pNJZqmAYDF7H8y4ytsL0U";
const ED25519_LINE: &str = "ssh-ed25519 \
    AAAAC3NzaC1lZDI1NTE5AAAAIDN10vUUA50jhaILXX640/rWaCKUnA11AsVZpZtbB9Nk";
const RSA_PRINT: &str = "SHA256:mzEu2Guh+FDYZUfAPM7aeJAWkgk1C0sd/QAADLLc5h8";
const DSA_PRINT: &str = "SHA256:jEUcmqrMHYrkgppfZfortGk5wOivp1zZ7zcJDlalAms";
const ECDSA_PRINT: &str = "SHA256:nmjhRf30to6WELcVfeRn8eU4rbKnKrrhD//c1qiRjLI";
/// As `puttygen -l` prints it.
const ED448_PRINT: &str = "SHA256:D9lgbCT1wuUawCtFV+Yt6kRUfYDmoUHhVfhFU8A0b1c";

const ALL_FIXTURES: [&[u8]; 16] = [
    ED25519,
    fixture!("throwaway_openssh_encrypted_ed25519"),
    fixture!("throwaway_pem_ecdsa"),
    fixture!("throwaway_pem_encrypted_rsa"),
    fixture!("throwaway_rfc4716_ed25519.pub"),
    fixture!("throwaway_sshcom_dsa"),
    fixture!("throwaway_sshcom_encrypted_rsa"),
    fixture!("throwaway_sshcom_rsa"),
    fixture!("throwaway_v2_ed25519.ppk"),
    fixture!("throwaway_v2_encrypted_ed25519.ppk"),
    fixture!("throwaway_v3_dsa.ppk"),
    fixture!("throwaway_v3_ecdsa.ppk"),
    fixture!("throwaway_v3_ed25519.ppk"),
    fixture!("throwaway_v3_ed448.ppk"),
    fixture!("throwaway_v3_encrypted_ed25519.ppk"),
    fixture!("throwaway_v3_rsa.ppk"),
];

fn other(content: &[u8]) -> Facts {
    examine(content, Role::Other).expect("a key file")
}

fn identity(algorithm: &str, bits: u32, fingerprint: &str) -> Identity {
    Identity {
        algorithm: Some(algorithm.into()),
        bits: Some(bits),
        fingerprint: Some(fingerprint.into()),
        ..Identity::default()
    }
}

fn locked(cipher: &str, kdf: &str, rounds: Option<u64>, memory: Option<u64>) -> Protection {
    Protection {
        encrypted: true,
        cipher: Some(cipher.into()),
        kdf: Some(kdf.into()),
        rounds,
        memory,
    }
}

fn agrees(content: &[u8], format: Format, key: &Identity, protection: Protection, comment: &str) {
    let mut expected = Facts::new(Kind::Private, format);
    expected.identity = key.clone();
    expected.protection = Some(protection);
    expected.comment = (!comment.is_empty()).then(|| format!("throw-away test key {comment}"));
    assert_eq!(other(content), expected);
}

#[test]
fn what_puttygen_writes_in_the_clear_is_read_as_it_reads_it() {
    let ed25519 = identity("ssh-ed25519", 256, ED25519_PRINT);
    let rsa = identity("ssh-rsa", 1024, RSA_PRINT);
    let dsa = identity("ssh-dss", 1024, DSA_PRINT);
    let ecdsa = identity("ecdsa-sha2-nistp384", 384, ECDSA_PRINT);
    let ed448 = identity("ssh-ed448", 448, ED448_PRINT);
    let cases: [(&[u8], Format, &Identity, &str); 10] = [
        (ED25519, Format::OpenSsh, &ed25519, "ed25519"),
        (fixture!("throwaway_pem_ecdsa"), Format::Pem, &ecdsa, ""),
        (
            fixture!("throwaway_sshcom_dsa"),
            Format::SshCom,
            &dsa,
            "dsa",
        ),
        (
            fixture!("throwaway_sshcom_rsa"),
            Format::SshCom,
            &rsa,
            "rsa",
        ),
        (
            fixture!("throwaway_v2_ed25519.ppk"),
            Format::Putty,
            &ed25519,
            "ed25519",
        ),
        (fixture!("throwaway_v3_dsa.ppk"), Format::Putty, &dsa, "dsa"),
        (
            fixture!("throwaway_v3_ecdsa.ppk"),
            Format::Putty,
            &ecdsa,
            "ecdsa",
        ),
        (
            fixture!("throwaway_v3_ed25519.ppk"),
            Format::Putty,
            &ed25519,
            "ed25519",
        ),
        (
            fixture!("throwaway_v3_ed448.ppk"),
            Format::Putty,
            &ed448,
            "ed448",
        ),
        (fixture!("throwaway_v3_rsa.ppk"), Format::Putty, &rsa, "rsa"),
    ];
    for (content, format, key, comment) in cases {
        agrees(content, format, key, Protection::default(), comment);
    }
}

#[test]
fn what_puttygen_encrypts_tells_its_public_part_where_it_has_one() {
    let ed25519 = identity("ssh-ed25519", 256, ED25519_PRINT);
    agrees(
        fixture!("throwaway_openssh_encrypted_ed25519"),
        Format::OpenSsh,
        &ed25519,
        locked("aes256-ctr", "bcrypt", Some(16), None),
        "",
    );
    agrees(
        fixture!("throwaway_v2_encrypted_ed25519.ppk"),
        Format::Putty,
        &ed25519,
        locked("aes256-cbc", "sha1", None, None),
        "ed25519",
    );
    agrees(
        fixture!("throwaway_v3_encrypted_ed25519.ppk"),
        Format::Putty,
        &ed25519,
        locked("aes256-cbc", "argon2id", Some(8), Some(8192)),
        "ed25519",
    );
    let rsa = Identity::of_algorithm("ssh-rsa");
    agrees(
        fixture!("throwaway_pem_encrypted_rsa"),
        Format::Pem,
        &rsa,
        locked("des-ede3-cbc", "md5", Some(1), None),
        "",
    );
    agrees(
        fixture!("throwaway_sshcom_encrypted_rsa"),
        Format::SshCom,
        &rsa,
        locked("3des-cbc", "md5", None, None),
        "rsa",
    );
}

#[test]
fn the_public_key_of_rfc_4716_is_the_same_key() {
    let facts = other(fixture!("throwaway_rfc4716_ed25519.pub"));
    assert_eq!(facts.kind, Kind::Public);
    assert_eq!(facts.format, Format::SshCom);
    assert_eq!(facts.identity.fingerprint.as_deref(), Some(ED25519_PRINT));
    assert_eq!(
        facts.comment.as_deref(),
        Some("throw-away test key ed25519")
    );
    let folded = "---- BEGIN SSH2 PUBLIC KEY ----\r\nSubject: x\r\nComment: \"a \\\r\nb\"\r\n\
        AAAAC3NzaC1lZDI1NTE5AAAAIDN10vUUA50jhaILXX640/rWaCKUnA11AsVZpZtbB9Nk\r\n\
        ---- END SSH2 PUBLIC KEY ----\r\n";
    assert_eq!(other(folded.as_bytes()).identity, facts.identity);
}

#[test]
fn the_name_of_a_host_key_makes_it_one() {
    for (name, role) in [
        ("ssh_host_ed25519_key", Role::HostKey),
        ("ssh_host_rsa_key.Ab3dE5gH1j", Role::HostKey),
        ("authorized_keys", Role::AuthorizedKeys),
        ("authorized_keys2", Role::AuthorizedKeys),
        ("known_hosts.old", Role::KnownHosts),
        ("ssh_known_hosts", Role::KnownHosts),
        ("id_ed25519", Role::Other),
    ] {
        assert_eq!(Role::of(name.as_ref()), role, "{name}");
    }
    let facts = examine(ED25519, Role::HostKey).unwrap();
    assert_eq!(facts.kind, Kind::Host);
    assert!(facts.kind.is_secret());
}

#[test]
fn the_other_half_has_its_name() {
    for (name, pair) in [
        ("id_rsa", "id_rsa.pub"),
        ("id_rsa.pub", "id_rsa"),
        ("id_rsa-cert.pub", "id_rsa"),
        (".pub", ""),
    ] {
        assert_eq!(pair_name(name.as_ref()), pair);
    }
}

#[test]
fn a_public_key_that_is_not_the_private_one_s_is_a_mismatch() {
    let block = armor::pem(ED25519, |_| true).unwrap();
    let mut bytes = block.body.to_vec();
    // The public key's last byte, in front of the length of the section.
    let at = armor::find(&bytes, b"ssh-ed25519").unwrap() + 11 + 4 + 31;
    bytes[at] ^= 1;
    let text = format!(
        "-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n-----END OPENSSH PRIVATE KEY-----\n",
        data_encoding::BASE64.encode(&bytes)
    );
    let facts = other(text.as_bytes());
    assert_eq!(facts.damage, Some(Damage::Mismatch));
    assert_ne!(facts.identity.fingerprint.as_deref(), Some(ED25519_PRINT));
}

#[test]
fn what_is_no_key_file_has_no_facts() {
    for content in [
        "",
        "\n",
        "# only a comment\n",
        "Host *\n  ForwardAgent yes\n",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "ssh-ed25519\n",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA\n",
        "PuTTY-User-Key-File",
    ] {
        assert_eq!(
            examine(content.as_bytes(), Role::Other),
            None,
            "{content:?}"
        );
    }
}
