//! The real ssh-keygen has the last word: every type and format it writes, and
//! what it prints of it. Needs the package openssh-client.

use std::fs;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::{TempDir, tempdir};

use super::*;

fn keygen(dir: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new("ssh-keygen")
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .expect("ssh-keygen is installed (package openssh-client)");
    output
        .status
        .success()
        .then(|| String::from_utf8(output.stdout).unwrap())
}

fn must(dir: &Path, args: &[&str]) -> String {
    keygen(dir, args).unwrap_or_else(|| panic!("ssh-keygen {}", args.join(" ")))
}

/// Compares the facts of a file with what `ssh-keygen -l` prints of it.
fn agrees(dir: &Path, name: &str) -> Facts {
    let path = dir.join(name);
    let facts = examine(&fs::read(&path).unwrap(), Role::Other)
        .unwrap_or_else(|| panic!("{name} is a key file"));
    assert_eq!(facts.damage, None, "{name}");
    let Some(printed) = keygen(dir, &["-l", "-f", name]) else {
        assert_eq!(facts.identity.fingerprint, None, "{name}");
        return facts;
    };
    let ours = printed_as(&facts.identity, facts.comment.as_deref());
    assert_eq!(ours, printed, "{name}");
    facts
}

/// As `ssh-keygen -l` prints a key.
fn printed_as(identity: &Identity, comment: Option<&str>) -> String {
    format!(
        "{} {} {} ({})\n",
        identity.bits.unwrap_or_default(),
        identity.fingerprint.as_deref().unwrap_or("no fingerprint"),
        comment.unwrap_or("no comment"),
        short(identity.algorithm.as_deref().unwrap_or_default()),
    )
}

/// The name that ssh-keygen prints in parentheses.
fn short(algorithm: &str) -> String {
    let (plain, is_certificate) = match algorithm.strip_suffix("-cert-v01@openssh.com") {
        Some(plain) => (plain, true),
        None => (algorithm, false),
    };
    let plain = plain.strip_suffix("@openssh.com").unwrap_or(plain);
    let name = match plain {
        "ssh-rsa" => "RSA",
        "ssh-dss" => "DSA",
        "ssh-ed25519" => "ED25519",
        "sk-ssh-ed25519" => "ED25519-SK",
        "sk-ecdsa-sha2-nistp256" => "ECDSA-SK",
        name if name.starts_with("ecdsa-sha2-") => "ECDSA",
        other => other,
    };
    let suffix = if is_certificate { "-CERT" } else { "" };
    format!("{name}{suffix}")
}

const TYPES: [&[&str]; 7] = [
    &["-t", "rsa", "-b", "1024"],
    &["-t", "rsa", "-b", "2047"],
    &["-t", "ecdsa", "-b", "256"],
    &["-t", "ecdsa", "-b", "384"],
    &["-t", "ecdsa", "-b", "521"],
    &["-t", "ed25519"],
    &["-t", "dsa"],
];

/// Makes a key, unless this ssh-keygen has the type no more.
fn make(dir: &Path, name: &str, kind: &[&str], more: &[&str]) -> bool {
    let args = [&["-q", "-f", name], kind, more].concat();
    let made = keygen(dir, &args).is_some();
    assert!(made || kind[1] == "dsa", "ssh-keygen {}", args.join(" "));
    made
}

/// With the public key beside it, all is told of every key, encrypted or not.
fn agrees_as_pair(dir: &Path, name: &str) {
    let open = |name: &str| fs::File::open(dir.join(name)).unwrap();
    let public = open(&format!("{name}.pub"));
    let found = inspect(open(name).as_fd(), Role::Other, Some(public.as_fd())).unwrap();
    let facts = found.facts.unwrap();
    let ours = printed_as(&facts.identity, facts.comment.as_deref());
    assert_eq!(ours, must(dir, &["-l", "-f", name]), "{name}");
    let expected = if found.borrowed {
        Pair::Unknown
    } else {
        Pair::Same
    };
    assert_eq!(found.pair, Some(expected));
}

/// Moves the public key away: ssh-keygen -l prints that one instead.
fn hide(dir: &Path, name: &str) {
    let public = dir.join(format!("{name}.pub"));
    fs::rename(public, dir.join(format!("{name}-public.pub"))).unwrap();
}

#[test]
fn every_type_in_every_format_agrees_with_ssh_keygen() {
    let dir = tempdir().unwrap();
    let dir = dir.path();
    for (number, kind) in TYPES.iter().enumerate() {
        for format in ["RFC4716", "PEM", "PKCS8"] {
            for passphrase in ["", "throw-away"] {
                let name = format!("key{number}{format}{}", passphrase.len());
                let more = ["-m", format, "-N", passphrase, "-C", "a comment", "-a", "3"];
                if !make(dir, &name, kind, &more) {
                    continue;
                }
                agrees_as_pair(dir, &name);
                hide(dir, &name);
                // Of DSA, PKCS#8 holds only what is secret.
                if kind[1] == "dsa" && format == "PKCS8" {
                    let facts = other(&fs::read(dir.join(&name)).unwrap());
                    assert_eq!(facts.identity.fingerprint, None);
                    assert_eq!(facts.kind, Kind::Private);
                    continue;
                }
                let facts = agrees(dir, &name);
                assert_eq!(facts.kind, Kind::Private);
                let protection = facts.protection.unwrap();
                assert_eq!(protection.encrypted, !passphrase.is_empty(), "{name}");
                if facts.format == Format::OpenSsh && protection.encrypted {
                    assert_eq!(protection, locked("aes256-ctr", "bcrypt", Some(3), None));
                } else if facts.format == Format::Pkcs8 && protection.encrypted {
                    assert_eq!(protection.kdf.as_deref(), Some("pbkdf2"));
                    assert!(protection.cipher.unwrap().starts_with("aes-"));
                    assert!(protection.rounds.unwrap() >= 2048);
                }
                public_forms(dir, &format!("{name}-public.pub"));
            }
        }
    }
}

/// A public key in each form that `ssh-keygen -e` writes is the same key.
fn public_forms(dir: &Path, name: &str) {
    let facts = agrees(dir, name);
    assert_eq!(facts.kind, Kind::Public);
    for format in ["RFC4716", "PKCS8", "PEM"] {
        // Ed25519 has no PEM.
        let Some(text) = keygen(dir, &["-e", "-m", format, "-f", name]) else {
            continue;
        };
        let exported = other(text.as_bytes());
        assert_eq!(exported.kind, Kind::Public, "{text}");
        assert_eq!(exported.identity, facts.identity, "{text}");
    }
}

#[test]
fn every_cipher_is_named() {
    let dir = tempdir().unwrap();
    for cipher in [
        "aes256-ctr",
        "aes128-cbc",
        "3des-cbc",
        "aes256-gcm@openssh.com",
        "chacha20-poly1305@openssh.com",
    ] {
        let more = ["-N", "throw-away", "-Z", cipher, "-a", "1"];
        assert!(make(dir.path(), cipher, &["-t", "ed25519"], &more));
        hide(dir.path(), cipher);
        let facts = agrees(dir.path(), cipher);
        assert_eq!(
            facts.protection.unwrap(),
            locked(cipher, "bcrypt", Some(1), None)
        );
        assert_eq!(facts.comment, None, "it is encrypted, too");
    }
}

/// A public key of a security key, which no test can make.
fn security_key(dir: &Path, algorithm: &str, fields: &[&[u8]]) -> String {
    let mut blob = Vec::new();
    for field in [&[algorithm.as_bytes()], fields].concat() {
        blob.extend_from_slice(&u32::try_from(field.len()).unwrap().to_be_bytes());
        blob.extend_from_slice(field);
    }
    let name = format!("{}.pub", algorithm.split('@').next().unwrap());
    let text = data_encoding::BASE64.encode(&blob);
    fs::write(
        dir.join(&name),
        format!("{algorithm} {text} a security key\n"),
    )
    .unwrap();
    name
}

fn security_keys(dir: &Path) -> Vec<String> {
    assert!(make(dir, "point", &["-t", "ecdsa"], &["-N", ""]));
    let line = fs::read_to_string(dir.join("point.pub")).unwrap();
    let blob = data_encoding::BASE64
        .decode(line.split(' ').nth(1).unwrap().as_bytes())
        .unwrap();
    let point = &blob[blob.len() - 65..];
    vec![
        security_key(dir, "sk-ssh-ed25519@openssh.com", &[&[7; 32], b"ssh:"]),
        security_key(
            dir,
            "sk-ecdsa-sha2-nistp256@openssh.com",
            &[b"nistp256", point, b"ssh:"],
        ),
    ]
}

#[test]
fn security_keys_agree() {
    let dir = tempdir().unwrap();
    for name in security_keys(dir.path()) {
        assert_eq!(agrees(dir.path(), &name).kind, Kind::Public);
    }
}

/// A line of this type with this blob: does ssh-keygen take it, and as what?
fn printed_line(dir: &Path, word: &str, name: &str, fields: &[&[u8]]) -> (String, Option<String>) {
    let mut blob = Vec::new();
    for field in [&[name.as_bytes()], fields].concat() {
        blob.extend_from_slice(&u32::try_from(field.len()).unwrap().to_be_bytes());
        blob.extend_from_slice(field);
    }
    let text = data_encoding::BASE64.encode(&blob);
    let line = format!("{word} {text} x\n");
    fs::write(dir.join("line"), &line).unwrap();
    (line, keygen(dir, &["-l", "-f", "line"]))
}

fn first_entry(line: &str) -> Option<String> {
    let facts = examine(line.as_bytes(), Role::AuthorizedKeys).unwrap();
    let entries = facts.list.unwrap().entries;
    let entry = entries.first()?;
    Some(printed_as(&entry.identity, entry.comment.as_deref()))
}

/// What OpenSSH takes for a key lets somebody in, however oddly it is written.
#[test]
fn no_spelling_of_a_key_is_overlooked() {
    let dir = tempdir().unwrap();
    let dir = dir.path();
    assert!(make(dir, "rsa", &["-t", "rsa", "-b", "1024"], &["-N", ""]));
    let line = fs::read_to_string(dir.join("rsa.pub")).unwrap();
    let blob = data_encoding::BASE64
        .decode(line.split(' ').nth(1).unwrap().as_bytes())
        .unwrap();
    let mut cursor = wire::Cursor(&blob);
    let [_, e, n] = [(); 3].map(|()| cursor.string().unwrap());
    let zeros = [&[0; 3], n].concat();
    let mut negative = n.to_vec();
    negative[0] = 0x80;
    let ed25519: &[&[u8]] = &[&[7; 32]];
    let mut taken = 0;
    let sound: [(&str, &str, &[&[u8]]); 10] = [
        ("ssh-rsa", "ssh-rsa", &[e, n]),
        ("ssh-rsa", "ssh-rsa", &[e, &zeros]),
        ("ssh-rsa", "ssh-rsa", &[&zeros, n]),
        ("ssh-rsa", "RSA", &[e, n]),
        ("rsa-sha2-512", "ssh-rsa", &[e, n]),
        ("ssh-rsa", "rsa-sha2-256", &[e, &zeros]),
        ("ssh-ed25519", "eD25519", ed25519),
        // Which of these are taken is another matter in another version.
        ("rsa", "rsa", &[e, n]),
        ("rsa", "ssh-rsa", &[e, n]),
        ("Ed25519", "ssh-ed25519", ed25519),
    ];
    for (word, name, fields) in sound {
        let (line, printed) = printed_line(dir, word, name, fields);
        let ours = first_entry(&line).expect(word);
        if let Some(printed) = printed {
            taken += 1;
            assert_eq!(ours, printed, "{word} {name}");
        }
    }
    let broken: [(&str, &str, &[&[u8]]); 5] = [
        ("ssh-rsa", "ssh-rsa", &[e, &negative]),
        ("ssh-rsa", "ssh-rsa", &[e, n, n]),
        ("ssh-rsa", "ssh-dss", &[e, n]),
        ("ssh-ed25519", "ssh-rsa", ed25519),
        ("ssh-ed25519", "ssh-ed25519", &[&[7; 33]]),
    ];
    for (word, name, fields) in broken {
        let (line, printed) = printed_line(dir, word, name, fields);
        assert_eq!((first_entry(&line), printed), (None, None), "{word} {name}");
    }
    assert!(taken >= 7, "ssh-keygen took {taken}");
}

fn authority() -> (TempDir, String) {
    let dir = tempdir().unwrap();
    assert!(make(dir.path(), "ca", &["-t", "ed25519"], &["-N", ""]));
    let printed = must(dir.path(), &["-l", "-f", "ca.pub"]);
    let fingerprint = printed.split(' ').nth(1).unwrap().to_owned();
    (dir, fingerprint)
}

#[test]
fn certificates_of_every_type_agree_and_say_what_they_grant() {
    let (dir, authority) = authority();
    let dir = dir.path();
    let mut names = security_keys(dir);
    for (number, kind) in TYPES.iter().enumerate() {
        let name = format!("user{number}");
        if make(dir, &name, kind, &["-N", "", "-C", "ann@web1"]) {
            names.push(format!("{name}.pub"));
        }
    }
    for name in names {
        must(
            dir,
            &[
                "-q",
                "-s",
                "ca",
                "-I",
                "ann's key",
                "-n",
                "ann,root",
                "-z",
                "42",
                "-V",
                "20260101000000Z:20270101000000Z",
                "-O",
                "force-command=/bin/true",
                "-O",
                "no-pty",
                "-O",
                "source-address=10.0.0.0/8",
                &name,
            ],
        );
        let facts = agrees(dir, &name.replace(".pub", "-cert.pub"));
        assert_eq!(facts.kind, Kind::Certificate);
        let found = facts.certificate.unwrap();
        assert_eq!(found.role, "user");
        assert_eq!(found.key_id, "ann's key");
        assert_eq!(found.serial, 42);
        assert_eq!(found.principals, ["ann", "root"]);
        assert_eq!(found.valid_after, Moment::At(1_767_225_600));
        assert_eq!(found.valid_before, Moment::At(1_798_761_600));
        assert_eq!(
            found.options,
            ["force-command=/bin/true", "source-address=10.0.0.0/8"]
        );
        assert!(found.extensions.contains(&"permit-agent-forwarding".into()));
        assert!(!found.extensions.contains(&"permit-pty".into()));
        assert_eq!(found.authority.fingerprint.as_deref(), Some(&*authority));
    }
}

#[test]
fn a_host_certificate_is_valid_for_ever_by_default() {
    let (dir, _) = authority();
    let dir = dir.path();
    assert!(make(dir, "ssh_host_key", &["-t", "ed25519"], &["-N", ""]));
    must(
        dir,
        &["-q", "-s", "ca", "-h", "-I", "web1", "ssh_host_key.pub"],
    );
    let content = fs::read(dir.join("ssh_host_key-cert.pub")).unwrap();
    let facts = examine(&content, Role::HostKey).unwrap();
    let found = facts.certificate.unwrap();
    assert_eq!((found.role, &*found.key_id), ("host", "web1"));
    assert_eq!(found.principals, [""; 0]);
    assert_eq!(
        (found.valid_after, found.valid_before),
        (Moment::Always, Moment::Always)
    );
}

#[test]
fn a_list_agrees_line_by_line() {
    let dir = tempdir().unwrap();
    let dir = dir.path();
    let mut text = String::from("# keys\n\n");
    for (number, kind) in TYPES.iter().enumerate() {
        let name = format!("k{number}");
        if make(
            dir,
            &name,
            kind,
            &["-N", "", "-C", &format!("user {number}")],
        ) {
            let line = fs::read_to_string(dir.join(format!("{name}.pub"))).unwrap();
            text.push_str("command=\"echo \\\"hi, there\\\"\",from=\"10.0.0.1\" ");
            text.push_str(&line);
        }
    }
    fs::write(dir.join("authorized_keys"), &text).unwrap();
    let printed = must(dir, &["-l", "-f", "authorized_keys"]);
    let list = examine(text.as_bytes(), Role::AuthorizedKeys)
        .unwrap()
        .list
        .unwrap();
    let mut ours = String::new();
    for entry in list.entries {
        ours.push_str(&printed_as(&entry.identity, entry.comment.as_deref()));
    }
    assert_eq!(ours, printed);
}
