//! What is said of keys.

use super::*;
use crate::key::{
    CertificateFacts, Change as ListChange, Damage, Entry, Facts, Format, Identity, Inspection,
    Kind, List, Moment, Pair, Protection,
};

fn identity(algorithm: &str, bits: u32, fingerprint: &str) -> Identity {
    Identity {
        algorithm: Some(algorithm.into()),
        bits: Some(bits),
        fingerprint: Some(fingerprint.into()),
        ..Identity::default()
    }
}

fn key_facts(kind: Kind, algorithm: &str, bits: u32) -> Facts {
    Facts {
        kind,
        format: Format::OpenSsh,
        identity: identity(algorithm, bits, "SHA256:k"),
        comment: Some("ann@web1".into()),
        protection: kind.is_secret().then(Protection::default),
        certificate: None,
        list: None,
        damage: None,
    }
}

fn report(facts: Facts) -> KeyReport {
    KeyReport {
        inspection: Ok(Inspection {
            facts: Some(facts),
            sha256: Some([0xab; 32]),
            whole: true,
            refused: None,
            pair: None,
            borrowed: false,
        }),
        beside: None,
        change: None,
        others_wrote: false,
        authorized_in: vec![],
    }
}

fn entry(fingerprint: &str) -> Entry {
    Entry {
        identity: identity("ssh-ed25519", 256, fingerprint),
        options: vec!["command=\"x\"".into()],
        comment: Some("bob\u{1b}[2J".into()),
        ..Entry::default()
    }
}

fn full_private() -> KeyReport {
    let mut facts = key_facts(Kind::Private, "ssh-rsa", 3072);
    facts.protection = Some(Protection {
        encrypted: true,
        cipher: Some("aes256-ctr".into()),
        kdf: Some("bcrypt".into()),
        rounds: Some(16),
        memory: Some(8192),
    });
    facts.damage = Some(Damage::Truncated);
    let mut report = report(facts);
    let inspection = report.inspection.as_mut().unwrap();
    inspection.refused = Some(true);
    inspection.pair = Some(Pair::Unknown);
    inspection.borrowed = true;
    report.beside = Some("/home/alice/.ssh/id.pub".into());
    report.authorized_in = vec!["/root/.ssh/authorized_keys".into()];
    report
}

fn full_certificate() -> KeyReport {
    let mut facts = key_facts(Kind::Certificate, "ssh-ed25519-cert-v01@openssh.com", 256);
    facts.certificate = Some(CertificateFacts {
        role: "user",
        key_id: "ann's".into(),
        serial: u64::MAX,
        principals: vec!["ann".into(), "root".into()],
        valid_after: Moment::At(1_767_225_600),
        valid_before: Moment::At(u64::MAX - 1),
        options: vec!["force-command=/bin/true".into()],
        extensions: vec!["permit-pty".into()],
        authority: identity("ssh-ed25519", 256, "SHA256:ca"),
    });
    report(facts)
}

fn list_report(added: usize, removed: usize) -> KeyReport {
    let mut facts = key_facts(Kind::AuthorizedKeys, "", 0);
    facts.identity = Identity::default();
    facts.comment = None;
    let entries: Vec<Entry> = (0..added)
        .map(|number| entry(&format!("SHA256:a{number}")))
        .collect();
    facts.list = Some(List {
        entries: entries.clone(),
        unreadable: 1,
        rest: [0; 16],
        dropped: 0,
    });
    let mut report = report(facts);
    report.change = Some(ListChange {
        added: entries,
        removed: (0..removed)
            .map(|number| entry(&format!("SHA256:r{number}")))
            .collect(),
    });
    report
}

fn with(report: &KeyReport) -> Document {
    let mut document = document();
    set_key(&mut document, report);
    document
}

/// Documents that together have every field of a key.
pub(super) fn full() -> Vec<Document> {
    let mut known = list_report(40, 40);
    known.others_wrote = true;
    for entry in &mut known.change.as_mut().unwrap().added {
        entry.hosts = Some("example.org".into());
    }
    for entry in &mut known.change.as_mut().unwrap().removed {
        entry.hosts = Some("example.org".into());
    }
    let unread = KeyReport {
        inspection: Err("timeout"),
        beside: None,
        change: None,
        others_wrote: false,
        authorized_in: vec![],
    };
    let reports = [full_private(), full_certificate(), known, unread];
    reports.iter().map(with).collect()
}

#[test]
fn a_private_key_is_told_in_full() {
    let document = with(&full_private());
    assert_eq!(
        document.get("ssh_keywatch.key"),
        Some(&json!({
            "kind": "private",
            "format": "openssh",
            "type": "ssh-rsa",
            "bits": 3072,
            "fingerprint": "SHA256:k",
            "comment": "ann@web1",
            "encrypted": true,
            "cipher": "aes256-ctr",
            "kdf": {"name": "bcrypt", "rounds": 16, "memory": 8192},
            "damage": "truncated",
            "permissions": "refused",
            "too_large": false,
            "belongs_to": {"path": "/home/alice/.ssh/id.pub", "state": "unknown"},
            "identity_from": "/home/alice/.ssh/id.pub",
            "authorized_in": ["/root/.ssh/authorized_keys"]
        }))
    );
    let hash = "ab".repeat(32);
    assert_eq!(document.str("file.hash.sha256"), Some(&*hash));
    assert_eq!(
        document.get("related.hash"),
        Some(&json!([hash, "SHA256:k"]))
    );
    let last = document.as_map().keys().next_back();
    assert_eq!(last.map(String::as_str), Some("ssh_keywatch"));
}

#[test]
fn a_certificate_says_for_whom_and_how_long() {
    let document = with(&full_certificate());
    assert_eq!(
        document.get("ssh_keywatch.key.certificate"),
        Some(&json!({
            "type": "user",
            "key_id": "ann's",
            "serial": "18446744073709551615",
            "principals": ["ann", "root"],
            "valid_after": "2026-01-01T00:00:00.000000Z",
            "valid_before": "9999-12-30T22:00:00.999999Z",
            "options": ["force-command=/bin/true"],
            "extensions": ["permit-pty"],
            "authority": {"type": "ssh-ed25519", "bits": 256, "fingerprint": "SHA256:ca"}
        }))
    );
    assert_eq!(document.get("related.hash").unwrap()[2], json!("SHA256:ca"));
}

#[test]
fn a_list_names_some_of_what_changed_and_counts_all() {
    let document = with(&list_report(40, 1));
    let key = document.get("ssh_keywatch.key").unwrap();
    assert_eq!(key["added_count"], 40);
    assert_eq!(key["added"].as_array().unwrap().len(), 32);
    assert_eq!(key["removed_count"], 1);
    assert_eq!(
        (&key["entries"], &key["unreadable"]),
        (&json!(40), &json!(1))
    );
    assert_eq!(
        key["removed"][0],
        json!({
            "type": "ssh-ed25519",
            "bits": 256,
            "fingerprint": "SHA256:r0",
            "comment": "bob\u{1b}[2J",
            "options": ["command=\"x\""]
        })
    );
    // Not known is not the same as nothing.
    let mut unknown = list_report(1, 0);
    unknown.change = None;
    assert_eq!(with(&unknown).get("ssh_keywatch.key.added_count"), None);
}

#[test]
fn a_file_that_was_not_read_says_why() {
    let report = KeyReport {
        inspection: Err("timeout"),
        beside: None,
        change: None,
        others_wrote: false,
        authorized_in: vec![],
    };
    assert_eq!(
        with(&report).get("ssh_keywatch.key"),
        Some(&json!({"unread": "timeout"}))
    );
}

/// Every field of a key is one that rules may ask for, and is what the list of
/// fields says it is.
#[test]
fn rules_may_ask_for_every_field_of_a_key() {
    let own = include_str!("../../rule/ssh_keywatch.txt");
    let mut known = full_certificate();
    known.inspection.as_mut().unwrap().pair = Some(Pair::Same);
    let mut hosts = list_report(1, 1);
    hosts.others_wrote = true;
    let change = hosts.change.as_mut().unwrap();
    change.added[0].hosts = Some("h".into());
    change.removed[0].hosts = Some("h".into());
    let unread = KeyReport {
        inspection: Err("busy"),
        beside: None,
        change: None,
        others_wrote: false,
        authorized_in: vec![],
    };
    let mut seen = std::collections::BTreeSet::new();
    for report in [full_private(), known, hosts, unread] {
        let document = Value::Object(with(&report).into_map());
        let mut check = |name: &str, value: &Value| {
            assert!(crate::rule::knows_field(name), "{name}");
            let Some(kind) = own
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
            else {
                return;
            };
            let fits = |value: &Value| match kind {
                "keyword" => value.is_string(),
                "long" => value.is_u64(),
                "boolean" => value.is_boolean(),
                "date" => value.as_str().unwrap().parse::<jiff::Timestamp>().is_ok(),
                other => panic!("{name} has the type {other}"),
            };
            let fits = match value {
                Value::Array(values) => values.iter().all(fits),
                value => fits(value),
            };
            assert!(fits, "{name} is {kind}, not {value}");
            seen.insert(name.to_owned());
        };
        leaves("", &document, &mut |name, value| {
            let items = value.as_array().cloned().unwrap_or(vec![value.clone()]);
            for item in items {
                leaves(name, &item, &mut check);
            }
        });
    }
    let listed = own
        .lines()
        .filter_map(|line| line.split(' ').next())
        .filter(|name| name.starts_with("ssh_keywatch.key."));
    for name in listed {
        assert!(seen.contains(name), "no document has {name}");
    }
}

fn message(report: &KeyReport, action: &str) -> String {
    let mut document = with(report);
    document.set("event.action", action);
    let message = alert(document.clone(), &rule())
        .str("message")
        .unwrap()
        .to_owned();
    let start = "/usr/bin/ssh-keygen ";
    let end = message.find(" as alice").unwrap();
    message[start.len()..end].to_owned()
}

#[test]
fn the_sentence_says_which_key_and_how_it_is_protected() {
    let path = "/home/alice/.ssh/id_ed25519.pub";
    let private = |algorithm: &str, bits| report(key_facts(Kind::Private, algorithm, bits));
    for (report, action, words) in [
        (
            private("ssh-ed25519", 256),
            "creation",
            "created an unencrypted ed25519 private key",
        ),
        (
            full_private(),
            "creation",
            "created an encrypted 3072-bit RSA private key",
        ),
        (
            private("sk-ssh-ed25519@openssh.com", 256),
            "modification",
            "changed the unencrypted ed25519-sk private key",
        ),
        (
            report(key_facts(Kind::Host, "ecdsa-sha2-nistp521", 521)),
            "creation",
            "created an unencrypted 521-bit ECDSA host key",
        ),
        (
            report(key_facts(Kind::Public, "ssh-ed25519", 256)),
            "creation",
            "created the ed25519 public key",
        ),
        (
            full_certificate(),
            "creation",
            "created the ed25519 user certificate",
        ),
    ] {
        assert_eq!(message(&report, action), format!("{words} {path}"));
    }
    let mut unknown = private("ssh-ed25519", 256);
    let facts = unknown.inspection.as_mut().unwrap().facts.as_mut().unwrap();
    facts.identity = Identity::default();
    assert_eq!(
        message(&unknown, "creation"),
        format!("created an unencrypted private key {path}")
    );
}

#[test]
fn the_sentence_says_what_a_list_gained_and_lost() {
    let path = "/home/alice/.ssh/id_ed25519.pub";
    assert_eq!(
        message(&list_report(1, 0), "modification"),
        format!("changed {path}, adding the ed25519 key SHA256:a0 (bob\\x1b[2J)")
    );
    assert_eq!(
        message(&list_report(3, 2), "modification"),
        format!("changed {path}, adding 3 keys and removing 2 keys")
    );
    assert_eq!(
        message(&list_report(0, 0), "modification"),
        format!("changed {path}")
    );
    let mut shared = list_report(3, 0);
    shared.others_wrote = true;
    assert_eq!(
        message(&shared, "modification"),
        format!("changed {path}, adding 3 keys (others may have written to it, too)")
    );
    let mut part = list_report(3, 0);
    part.inspection.as_mut().unwrap().whole = false;
    assert_eq!(
        message(&part, "modification"),
        format!("changed {path}, adding at least 3 keys")
    );
}

#[test]
fn a_list_that_is_gone_says_what_it_held() {
    let mut document = document();
    set_removed_list(&mut document, Kind::AuthorizedKeys, &[entry("SHA256:r")]);
    assert_eq!(
        document.str("ssh_keywatch.key.kind"),
        Some("authorized_keys")
    );
    assert_eq!(document.number("ssh_keywatch.key.removed_count"), Some(1));
}
