//! Which keys there are: every private key, public key, certificate and key
//! that may log in, in the watched places.
//!
//! Owns the walk over those places, within bounds of memory and time, and what
//! sshd or ssh would refuse a file for. Reads no file but what [`crate::key`]
//! reads of it, follows no link that is not root's, and waits for no FIFO and no
//! file server. Must not know who made a key, nor print. What could not be
//! looked at is a [`Gap`]: it is never silent.

mod walk;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, SystemTime};

use crate::key::{Entry, Facts, Kind, Pair};
use crate::watch::pattern::Pattern;

/// How much is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// So many items of one watched directory are kept.
    pub items: usize,
    /// So many items are kept in all.
    pub total: usize,
    /// How long one watched directory may take.
    pub root_time: Duration,
    /// How long nothing may come from a file system before it is left alone.
    pub patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            items: 4096,
            total: 65_536,
            root_time: Duration::from_secs(20),
            patience: Duration::from_secs(5),
        }
    }
}

/// So many times a walk is begun anew behind a place that does not answer.
const RESTARTS: usize = 16;
/// So many lists that have a key are named.
pub const LISTS: usize = 32;
/// So many gaps are kept.
const GAPS: usize = 1000;
/// Messages that may wait.
const QUEUE: usize = 64;

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A file with one key.
    Key {
        /// What it is.
        facts: Box<Facts>,
        /// How it goes with the file beside it, if that holds the other half.
        pair: Option<(PathBuf, Pair)>,
        /// The identity is that of the public key beside it.
        borrowed: bool,
    },
    /// An entry of a list of keys that may log in.
    Login {
        /// The entry.
        entry: Box<Entry>,
        /// Which of the list it is, from 1.
        number: usize,
        /// Whether sshd reads a file of this name by default.
        active: bool,
    },
    /// A symbolic link, which is not followed.
    Link(PathBuf),
}

/// Something in a watched place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its path.
    pub path: PathBuf,
    /// What stands there.
    pub what: What,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
    /// When its content last changed.
    pub modified: SystemTime,
    /// Why ssh or sshd (with `StrictModes`) refuses it.
    pub refused: Vec<String>,
    /// The lists of logins that have the same key, as far as [`LISTS`] goes.
    pub authorized_in: Vec<PathBuf>,
}

impl Item {
    /// The fingerprint of its key.
    #[must_use]
    pub fn fingerprint(&self) -> Option<&str> {
        match &self.what {
            What::Key { facts, .. } => facts.identity.fingerprint.as_deref(),
            What::Login { entry, .. } => entry.identity.fingerprint.as_deref(),
            What::Link(_) => None,
        }
    }

    /// What it is: a word for each kind.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match &self.what {
            What::Key { facts, .. } => match facts.kind {
                // A list has entries, and each of them is an item.
                Kind::AuthorizedKeys | Kind::KnownHosts => "list",
                kind => kind.as_str(),
            },
            What::Login { .. } => "authorized_key",
            What::Link(_) => "link",
        }
    }
}

/// What could not be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Where.
    pub path: PathBuf,
    /// Why, and what it means.
    pub reason: String,
    /// Whether a privilege would have helped.
    pub denied: bool,
}

impl Gap {
    fn new(path: &Path, reason: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            reason: reason.into(),
            denied: false,
        }
    }

    fn failed(path: &Path, what: &str, error: &io::Error) -> Self {
        Self {
            denied: error.kind() == io::ErrorKind::PermissionDenied,
            ..Self::new(path, format!("{what}: {error}"))
        }
    }
}

/// What there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// In the order of the watched places, and by path in each.
    pub items: Vec<Item>,
    /// What could not be looked at.
    pub gaps: Vec<Gap>,
    /// Gaps beyond those.
    pub more_gaps: usize,
}

impl Inventory {
    fn gap(&mut self, gap: Gap) {
        if self.gaps.len() < GAPS {
            self.gaps.push(gap);
        } else {
            self.more_gaps += 1;
        }
    }

    /// Tells each key which lists of logins have it.
    fn join(&mut self) {
        let mut lists: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
        for item in &self.items {
            if let What::Login { active: true, .. } = item.what
                && let Some(fingerprint) = item.fingerprint()
            {
                let paths = lists.entry(fingerprint.to_owned()).or_default();
                if paths.len() <= LISTS && paths.last() != Some(&item.path) {
                    paths.push(item.path.clone());
                }
            }
        }
        for item in &mut self.items {
            if let Some(paths) = item.fingerprint().and_then(|print| lists.get(print)) {
                let others = paths.iter().filter(|path| **path != item.path);
                item.authorized_in = others.take(LISTS).cloned().collect();
            }
        }
    }
}

/// What a walk tells.
enum Message {
    /// What comes next may take for ever; if it does, this is left alone.
    At(PathBuf),
    Item(Box<Item>),
    Gap(Gap),
    /// A watched directory is done.
    Done(PathBuf),
}

/// Takes stock of the directories that `patterns` name.
#[must_use]
pub fn take(patterns: &[Pattern], limits: Limits) -> Inventory {
    let mut inventory = Inventory::default();
    let mut skip: HashSet<PathBuf> = HashSet::new();
    for _ in 0..RESTARTS {
        let Some(stuck) = pass(patterns, limits, &mut skip, &mut inventory) else {
            inventory.join();
            return inventory;
        };
        let seconds = limits.patience.as_secs();
        let reason = format!("it does not answer within {seconds} s; the rest of it is left out");
        inventory.gap(Gap::new(&stuck, reason));
        skip.insert(stuck);
    }
    let reason = "too many places do not answer; what comes after them is left out";
    inventory.gap(Gap::new(Path::new("/"), reason));
    inventory.join();
    inventory
}

/// Walks until the end, or until a place does not answer, which it returns.
fn pass(
    patterns: &[Pattern],
    limits: Limits,
    skip: &mut HashSet<PathBuf>,
    inventory: &mut Inventory,
) -> Option<PathBuf> {
    let (sender, messages) = sync_channel(QUEUE);
    let (patterns, known) = (patterns.to_vec(), skip.clone());
    let walk = std::thread::Builder::new()
        .name("inventory".to_owned())
        .spawn(move || walk::Walk::new(sender, known, limits).run(&patterns));
    if let Err(error) = walk {
        inventory.gap(Gap::failed(Path::new("/"), "cannot start a thread", &error));
        return None;
    }
    let mut at = PathBuf::from("/");
    loop {
        match messages.recv_timeout(limits.patience) {
            Ok(Message::At(path)) => at = path,
            Ok(Message::Item(item)) if inventory.items.len() < limits.total => {
                inventory.items.push(*item);
            }
            Ok(Message::Item(item)) => {
                let most = limits.total;
                let reason = format!("more than {most} keys; what comes after is left out");
                inventory.gap(Gap::new(&item.path, reason));
                return None;
            }
            Ok(Message::Gap(gap)) => inventory.gap(gap),
            Ok(Message::Done(root)) => drop(skip.insert(root)),
            Err(RecvTimeoutError::Disconnected) => return None,
            // The thread stays behind with what does not answer.
            Err(RecvTimeoutError::Timeout) => return Some(at),
        }
    }
}
