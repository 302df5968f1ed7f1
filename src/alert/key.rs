//! What is said of a key: `ssh_keywatch.key`, `file.hash`, `related.hash`.
//!
//! Owns how many entries of a list one document names; all are counted.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use data_encoding::HEXLOWER;

use super::{Document, value};
use crate::key::{
    CertificateFacts, Change, Entry, Facts, Identity, Inspection, Moment, Pair, Protection,
};

/// How many entries of a list are named as added, and as removed.
const NAMED_ENTRIES: usize = 32;
/// In how many lists a key is said to stand.
const NAMED_LISTS: usize = 16;

/// All that was found about a key file, and about the key elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyReport {
    /// What is in the file; else a stable name of why it was not read.
    pub inspection: Result<Inspection, &'static str>,
    /// The file beside it, if the two were compared.
    pub beside: Option<PathBuf>,
    /// What changed in the list, if what it held before is known.
    pub change: Option<Change>,
    /// Others may have written to the list since it was last compared.
    pub others_wrote: bool,
    /// Lists of logins, elsewhere on this host, that have the key.
    pub authorized_in: Vec<PathBuf>,
}

/// Adds what is known of a key to an event's document.
pub fn set_key(document: &mut Document, report: &KeyReport) {
    let below = "ssh_keywatch.key";
    match &report.inspection {
        Ok(inspection) => {
            let hash = inspection.sha256.map(|hash| HEXLOWER.encode(&hash));
            document.set("file.hash.sha256", hash.clone());
            document.add("related.hash", hash);
            if let Some(facts) = &inspection.facts {
                set_facts(document, facts, inspection);
                let beside = report.beside.as_ref();
                let beside = beside.map(|path| value::exact(path.as_os_str()));
                if let Some(pair) = inspection.pair {
                    document.set(&format!("{below}.belongs_to.path"), beside.clone());
                    document.set(&format!("{below}.belongs_to.state"), pair_word(pair));
                }
                if inspection.borrowed {
                    document.set(&format!("{below}.identity_from"), beside);
                }
            }
        }
        Err(reason) => document.set(&format!("{below}.unread"), *reason),
    }
    if let Some(change) = &report.change {
        for (name, entries) in [("added", &change.added), ("removed", &change.removed)] {
            set_entries(document, &format!("{below}.{name}"), entries);
        }
    }
    let others_wrote = report.others_wrote.then_some(true);
    document.set(&format!("{below}.others_wrote"), others_wrote);
    let lists = report.authorized_in.iter().take(NAMED_LISTS);
    document.add(
        &format!("{below}.authorized_in"),
        lists.map(|path| value::exact(path.as_os_str())),
    );
    // What every reader of ECS knows comes first.
    document.move_last("ssh_keywatch");
}

/// Says that a list with these entries is gone.
pub fn set_removed_list(document: &mut Document, kind: crate::key::Kind, entries: &[Entry]) {
    document.set("ssh_keywatch.key.kind", kind.as_str());
    set_entries(document, "ssh_keywatch.key.removed", entries);
    document.move_last("ssh_keywatch");
}

fn pair_word(pair: Pair) -> &'static str {
    match pair {
        Pair::Same => "same",
        Pair::Different => "different",
        Pair::Unknown => "unknown",
    }
}

fn set_facts(document: &mut Document, facts: &Facts, inspection: &Inspection) {
    let below = "ssh_keywatch.key";
    document.set("ssh_keywatch.key.kind", facts.kind.as_str());
    document.set("ssh_keywatch.key.format", facts.format.as_str());
    set_identity(document, below, &facts.identity);
    document.add("related.hash", facts.identity.fingerprint.clone());
    document.set("ssh_keywatch.key.comment", facts.comment.clone());
    if let Some(protection) = &facts.protection {
        set_protection(document, protection);
    }
    if let Some(certificate) = &facts.certificate {
        set_certificate(document, certificate);
    }
    if let Some(list) = &facts.list {
        document.set(
            "ssh_keywatch.key.entries",
            list.entries.len() + list.dropped,
        );
        document.set("ssh_keywatch.key.unreadable", list.unreadable);
    }
    document.set(
        "ssh_keywatch.key.damage",
        facts.damage.map(crate::key::Damage::as_str),
    );
    let refused = |refused| if refused { "refused" } else { "accepted" };
    document.set(
        "ssh_keywatch.key.permissions",
        inspection.refused.map(refused),
    );
    document.set("ssh_keywatch.key.too_large", !inspection.whole);
}

fn set_identity(document: &mut Document, below: &str, identity: &Identity) {
    document.set(&format!("{below}.type"), identity.algorithm.clone());
    document.set(&format!("{below}.bits"), identity.bits);
    document.set(
        &format!("{below}.fingerprint"),
        identity.fingerprint.clone(),
    );
}

fn set_protection(document: &mut Document, protection: &Protection) {
    document.set("ssh_keywatch.key.encrypted", protection.encrypted);
    document.set("ssh_keywatch.key.cipher", protection.cipher.clone());
    document.set("ssh_keywatch.key.kdf.name", protection.kdf.clone());
    document.set("ssh_keywatch.key.kdf.rounds", protection.rounds);
    document.set("ssh_keywatch.key.kdf.memory", protection.memory);
}

fn set_certificate(document: &mut Document, certificate: &CertificateFacts) {
    let mut set = |name: &str, value: serde_json::Value| {
        document.set(&format!("ssh_keywatch.key.certificate.{name}"), value);
    };
    let time = |moment| match moment {
        Moment::Always => None,
        Moment::At(seconds) => {
            let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
            // Beyond what a clock can show is the last moment that it can.
            Some(value::time(time.unwrap_or(
                SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(u32::MAX) << 8),
            )))
        }
    };
    set("type", certificate.role.into());
    set("key_id", certificate.key_id.clone().into());
    // Of 64 bits, which a long of Elasticsearch does not hold.
    set("serial", certificate.serial.to_string().into());
    set("principals", certificate.principals.clone().into());
    set("valid_after", time(certificate.valid_after).into());
    set("valid_before", time(certificate.valid_before).into());
    set("options", certificate.options.clone().into());
    set("extensions", certificate.extensions.clone().into());
    let authority = "ssh_keywatch.key.certificate.authority";
    set_identity(document, authority, &certificate.authority);
    document.add("related.hash", certificate.authority.fingerprint.clone());
}

/// Names the first of them and counts all.
fn set_entries(document: &mut Document, below: &str, entries: &[Entry]) {
    document.set(&format!("{below}_count"), entries.len());
    let named = &entries[..entries.len().min(NAMED_ENTRIES)];
    let list: Vec<_> = named.iter().map(entry).collect();
    document.set(below, list);
    let fingerprints = named.iter().map(|entry| &entry.identity.fingerprint);
    document.add("related.hash", fingerprints.flatten().cloned());
}

fn entry(entry: &Entry) -> serde_json::Value {
    let mut out = Document::new();
    out.set("type", entry.identity.algorithm.clone());
    out.set("bits", entry.identity.bits);
    out.set("fingerprint", entry.identity.fingerprint.clone());
    out.set("comment", entry.comment.clone());
    out.set("options", entry.options.clone());
    out.set("hosts", entry.hosts.clone());
    out.into_map().into()
}
