//! Names of users and groups, from NSS.
//!
//! Owns the cache. A name service can hang (LDAP): look-ups happen on threads
//! of their own with a deadline, and a name that does not come in time is
//! absent, which is honest.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::unistd::{Gid, Group, Uid, User};

use crate::resolve::slow::{Pool, Size};

/// How long a name is waited for.
const LOOKUP_TIME: Duration = Duration::from_millis(500);
/// How long an answer holds: an account can be made at any time.
const KEPT: Duration = Duration::from_secs(10);
/// How many answers are kept.
const MAX_KEPT: usize = 4096;

type Names = HashMap<u32, (Option<String>, Instant)>;

/// Looks names up.
pub struct Accounts {
    pool: Pool,
    users: Names,
    groups: Names,
}

impl Accounts {
    /// Starts the threads.
    ///
    /// # Errors
    /// They cannot be started.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            pool: Pool::start(Size {
                threads: 4,
                backlog: 0,
                urgent: false,
                movable: false,
            })?,
            users: Names::new(),
            groups: Names::new(),
        })
    }

    /// The name of user `id`.
    pub fn user(&mut self, id: u32) -> Option<String> {
        lookup(&self.pool, &mut self.users, id, move || {
            User::from_uid(Uid::from_raw(id))
                .ok()?
                .map(|user| user.name)
        })
    }

    /// The name of group `id`.
    pub fn group(&mut self, id: u32) -> Option<String> {
        lookup(&self.pool, &mut self.groups, id, move || {
            Group::from_gid(Gid::from_raw(id))
                .ok()?
                .map(|group| group.name)
        })
    }
}

fn lookup(
    pool: &Pool,
    names: &mut Names,
    id: u32,
    ask: impl FnOnce() -> Option<String> + Send + 'static,
) -> Option<String> {
    let now = Instant::now();
    if let Some((name, since)) = names.get(&id)
        && now.duration_since(*since) < KEPT
    {
        return name.clone();
    }
    let name = pool
        .ask(ask)
        .and_then(|answer| answer.until(now + LOOKUP_TIME))
        .flatten();
    if names.len() >= MAX_KEPT {
        names.clear();
    }
    names.insert(id, (name.clone(), now));
    name
}

/// The home directories that the passwd file names (passwd(5)); of
/// other name services only what `getent passwd` would list is unknown here.
#[must_use]
pub fn homes() -> Vec<PathBuf> {
    let Ok(text) = std::fs::read("/etc/passwd") else {
        return Vec::new();
    };
    let mut homes: Vec<PathBuf> = text
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b':').nth(5))
        .filter_map(|home| std::str::from_utf8(home).ok())
        .map(PathBuf::from)
        // "/" and "/nonexistent" are no homes.
        .filter(|home| home.is_absolute() && home.components().count() > 1 && home.is_dir())
        .collect();
    homes.sort();
    homes.dedup();
    homes
}
