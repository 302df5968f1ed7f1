//! Files that somebody made to hurt.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

const ROLES: [Role; 4] = [
    Role::AuthorizedKeys,
    Role::KnownHosts,
    Role::HostKey,
    Role::Other,
];

/// What a key of the fixtures may be said to be, in any state.
fn is_honest(content: &[u8]) {
    for role in ROLES {
        let Some(facts) = examine(content, role) else {
            continue;
        };
        if let Some(print) = &facts.identity.fingerprint {
            assert!(print.starts_with("SHA256:") && print.len() == 50, "{print}");
        }
    }
}

#[test]
fn every_truncation_of_a_key_says_nothing_wrong() {
    for content in ALL_FIXTURES {
        let whole = other(content);
        for end in 0..content.len() {
            let Some(facts) = examine(&content[..end], Role::Other) else {
                continue;
            };
            // Less may be told of a part, but nothing else.
            for (part, whole) in [
                (&facts.identity.fingerprint, &whole.identity.fingerprint),
                (&facts.identity.algorithm, &whole.identity.algorithm),
            ] {
                assert!(part.is_none() || part == whole, "{part:?} at {end}");
            }
            if let (Some(part), Some(whole)) = (&facts.protection, &whole.protection)
                && facts.damage.is_none()
            {
                assert_eq!(part.encrypted, whole.encrypted, "at {end}");
            }
            let missing = content[end..].trim_ascii();
            if facts.kind == Kind::Private && missing.len() > 80 {
                assert!(facts.damage.is_some(), "at {end} of {}", content.len());
            }
        }
    }
}

#[test]
fn the_public_part_of_a_half_written_private_key_is_told() {
    let facts = other(&ED25519[..ED25519.len() / 2]);
    assert_eq!(facts.identity, identity("ssh-ed25519", 256, ED25519_PRINT));
    assert_eq!(facts.damage, Some(Damage::Truncated));
}

#[test]
fn hostile_sizes_take_time_and_memory_in_proportion() {
    let key = ED25519_LINE;
    let files: [(&str, Vec<u8>); 9] = [
        ("blank lines", vec![b'\n'; LIMIT]),
        ("short lines", b"x\n".repeat(LIMIT / 2)),
        ("one line", vec![b'a'; LIMIT]),
        ("quotes", vec![b'"'; LIMIT]),
        (
            "options",
            [b",".repeat(LIMIT - 200).as_slice(), b" ", key.as_bytes()].concat(),
        ),
        (
            "entries",
            format!("{key}\n").repeat(LIMIT / 80).into_bytes(),
        ),
        ("begins", b"-----BEGIN ".repeat(LIMIT / 11)),
        ("dashes", vec![b'-'; LIMIT]),
        (
            "base64",
            [
                b"-----BEGIN OPENSSH PRIVATE KEY-----\n".as_slice(),
                &b"b3BlbnNzaC1rZXktdjEA".repeat(LIMIT / 20),
            ]
            .concat(),
        ),
    ];
    for (name, content) in files {
        let start = Instant::now();
        for role in ROLES {
            if let Some(list) = examine(&content, role).and_then(|facts| facts.list) {
                assert!(list.entries.len() <= 16 * 1024);
                assert!(list.entries.iter().all(|entry| entry.options.len() <= 32));
            }
        }
        // A thousand times what it takes; what is not linear takes for ever.
        assert!(start.elapsed() < Duration::from_secs(60), "{name}");
    }
}

#[test]
fn lengths_that_lie_are_no_keys() {
    let mut blob = vec![0, 0, 0, 11];
    blob.extend_from_slice(b"ssh-ed25519\xff\xff\xff\xffabc");
    assert_eq!(wire::identify(&blob), None);
    let mut private = b"openssh-key-v1\0\0\0\0\x04none".to_vec();
    private.extend_from_slice(&[0xff; 64]);
    let text = format!(
        "-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n-----END OPENSSH PRIVATE KEY-----\n",
        data_encoding::BASE64.encode(&private)
    );
    assert_eq!(other(text.as_bytes()).damage, Some(Damage::Malformed));
}

proptest! {
    #[test]
    fn never_panics_on_bytes(content in proptest::collection::vec(any::<u8>(), 0..2048)) {
        is_honest(&content);
        let _ = wire::identify(&content);
        let _ = certificate::decode(&content);
    }

    #[test]
    fn never_panics_on_armoured_bytes(
        body in proptest::collection::vec(any::<u8>(), 0..512),
        label in prop::sample::select(vec![
            "OPENSSH PRIVATE KEY", "RSA PRIVATE KEY", "DSA PRIVATE KEY", "EC PRIVATE KEY",
            "PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "PUBLIC KEY", "RSA PUBLIC KEY",
        ]),
    ) {
        let text = data_encoding::BASE64.encode(&body);
        is_honest(format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n").as_bytes());
    }

    #[test]
    fn never_panics_on_a_key_with_a_changed_byte(
        which in 0..ALL_FIXTURES.len(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut content = ALL_FIXTURES[which].to_vec();
        let at = at.index(content.len());
        content[at] = byte;
        is_honest(&content);
        // Within the wire format too, where base64 would hide it.
        if let Some(block) = armor::pem(&content, |_| true) {
            let mut body = block.body.to_vec();
            if !body.is_empty() {
                let at = at % body.len();
                body[at] = byte;
                let label = String::from_utf8_lossy(block.label);
                let text = data_encoding::BASE64.encode(&body);
                is_honest(format!("-----BEGIN {label}-----\n{text}\n").as_bytes());
            }
        }
    }

    #[test]
    fn never_panics_on_lines(words in proptest::collection::vec(
        prop::sample::select(vec![
            "ssh-ed25519", "ssh-rsa", "restrict", "command=\"", "\"", "\\\"", ",", " ", "\t", "\n", "#", "@revoked",
            "AAAAC3NzaC1lZDI1NTE5AAAAIDN10vUUA50jhaILXX640/rWaCKUnA11AsVZpZtbB9Nk", "AAAA====",
        ]), 0..40,
    )) {
        is_honest(words.concat().as_bytes());
    }
}
