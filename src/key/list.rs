//! Lists of public keys: `authorized_keys` and `known_hosts`.

use sha2::{Digest as _, Sha256};

use super::certificate::{self, CertificateFacts};
use super::line::{self, KeyText};
use super::role::Role;
use super::{Identity, some_text, text, wire};

/// How many entries of one file are kept. A file of [`super::LIMIT`] bytes has
/// fewer, unless somebody wants it otherwise.
const ENTRIES: usize = 16 * 1024;
/// How many options of one entry are kept.
const OPTIONS: usize = 32;

/// A list of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    /// What is in it, in order.
    pub entries: Vec<Entry>,
    /// Lines that are neither empty, comment nor entry.
    pub unreadable: usize,
    /// A hash of these: another version of sshd may read them.
    pub rest: [u8; 16],
    /// Entries beyond the bound.
    pub dropped: usize,
}

impl List {
    /// Adds what stands further down in the same file.
    pub(super) fn append(&mut self, mut more: Self) {
        self.entries.append(&mut more.entries);
        self.unreadable += more.unreadable;
        if more.unreadable > 0 {
            self.rest = digest(&[&self.rest, &more.rest]);
        }
        self.dropped += more.dropped;
    }
}

/// One key in a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Which key.
    pub identity: Identity,
    /// Options in front of it, as they are written; in `known_hosts`, its
    /// marker (`@revoked`).
    pub options: Vec<String>,
    /// The hosts that `known_hosts` knows it for, as they are written.
    pub hosts: Option<String>,
    /// A hash of what stands in front of the key, which the texts above may
    /// have cut short.
    pub prefix: [u8; 16],
    /// Its comment.
    pub comment: Option<String>,
    /// If it is a certificate.
    pub certificate: Option<Box<CertificateFacts>>,
}

impl Entry {
    fn of(key: &KeyText<'_>) -> Option<Self> {
        let certificate = certificate::decode(&key.blob);
        let (identity, certificate) = match certificate {
            Some((identity, facts)) => (identity, Some(Box::new(facts))),
            None => (wire::identify(&key.blob)?, None),
        };
        Some(Self {
            identity,
            comment: some_text(key.comment),
            certificate,
            ..Self::default()
        })
    }
}

/// Reads a list.
pub(super) fn parse(content: &[u8], role: Role) -> List {
    let mut list = List::default();
    for line in content.split(|c| *c == b'\n') {
        // To sshd and ssh a line is a string of C.
        let end = line.iter().position(|c| *c == 0).unwrap_or(line.len());
        let line = line[..end].trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        if list.entries.len() >= ENTRIES {
            list.dropped += 1;
            continue;
        }
        let entry = match role {
            Role::KnownHosts => known_host(line),
            _ => authorized_key(line),
        };
        if let Some(entry) = entry {
            list.entries.push(entry);
        } else {
            list.unreadable += 1;
            list.rest = digest(&[&list.rest, line]);
        }
    }
    list
}

fn authorized_key(line: &[u8]) -> Option<Entry> {
    if let Some(key) = line::key(line) {
        return Entry::of(&key);
    }
    let (options, rest) = line::options(line)?;
    let mut entry = Entry::of(&line::key(rest.trim_ascii_start())?)?;
    entry.prefix = digest(&[options]);
    entry.options = line::split_options(options)
        .into_iter()
        .take(OPTIONS)
        .map(text)
        .collect();
    Some(entry)
}

fn known_host(line: &[u8]) -> Option<Entry> {
    let (first, rest) = line::word(line);
    let (marker, hosts, rest) = if first.starts_with(b"@") {
        let (hosts, rest) = line::word(rest);
        (Some(first), hosts, rest)
    } else {
        (None, first, rest)
    };
    let mut entry = Entry::of(&line::key(rest)?)?;
    entry.prefix = digest(&[&line[..line.len() - rest.len()]]);
    entry.options = marker.map(text).into_iter().collect();
    entry.hosts = some_text(hosts);
    Some(entry)
}

fn digest(parts: &[&[u8]]) -> [u8; 16] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    let hash: [u8; 32] = hash.finalize().into();
    let mut out = [0; 16];
    out.copy_from_slice(&hash[..16]);
    out
}

/// Names of options, sshd(8), without values.
const OPTION_NAMES: [&str; 24] = [
    "agent-forwarding",
    "cert-authority",
    "command",
    "environment",
    "expiry-time",
    "from",
    "no-agent-forwarding",
    "no-port-forwarding",
    "no-pty",
    "no-touch-required",
    "no-user-rc",
    "no-x11-forwarding",
    "permitlisten",
    "permitopen",
    "port-forwarding",
    "principals",
    "pty",
    "restrict",
    "touch-required",
    "tunnel",
    "user-rc",
    "verify-required",
    "x11-forwarding",
    "zos-key-ring-label",
];

/// What entries that were read as `authorized_keys` are a list of: before the
/// keys of `known_hosts` stand words that are no options.
pub(super) fn guess(entries: &[Entry]) -> Role {
    let foreign = |option: &String| {
        let name = option.split('=').next().unwrap_or_default();
        !OPTION_NAMES
            .iter()
            .any(|known| known.eq_ignore_ascii_case(name))
    };
    let hosts = entries
        .iter()
        .all(|entry| entry.options.first().is_some_and(foreign));
    if hosts {
        Role::KnownHosts
    } else {
        Role::AuthorizedKeys
    }
}
