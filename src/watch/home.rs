//! What one home may take of the daemon's memory and time.
//!
//! Owns the limits of each home and the count of what it has taken. A *home* is
//! the directory above a `.ssh` that a pattern names, or another directory that is
//! watched as it is. Beyond a limit nothing goes wrong but for that home, and
//! what is left out is said.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Whose share of the daemon's attention something takes: a home, by its path.
pub type Home = Arc<Path>;

/// In this time all the names may be looked at that a home may look at once.
const REFILL: Duration = Duration::from_secs(60);
/// What a look into a directory costs besides, as so many names.
const LOOK: usize = 16;

/// The names that sshd(8) and ssh(1) look for by themselves: they let somebody in,
/// or run at a login.
pub const LOOKED_FOR: [&str; 15] = [
    "authorized_keys",
    "authorized_keys2",
    "rc",
    "environment",
    "config",
    "known_hosts",
    "id_rsa",
    "id_dsa",
    "id_ecdsa",
    "id_ecdsa_sk",
    "id_ed25519",
    "id_ed25519_sk",
    "sshd_config",
    "ssh_config",
    "sshrc",
];

/// Whether `path` is one that sshd or ssh looks for in this home, or in its
/// `.ssh`. No limit leaves such a file out.
#[must_use]
pub fn is_looked_for(home: &Path, path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        return false;
    };
    let name = name.strip_suffix(".pub").unwrap_or(name);
    if !LOOKED_FOR.contains(&name) {
        return false;
    }
    path.parent().is_some_and(|directory| {
        directory == home || directory.parent() == Some(home) && directory.ends_with(".ssh")
    })
}

/// The home that a file lies in, by its path alone: what is above the first `.ssh`,
/// or else the file's directory.
#[must_use]
pub fn of(path: &Path) -> Home {
    let directories = path.ancestors().skip(1);
    let ssh = directories.filter(|directory| directory.ends_with(".ssh"));
    let home = ssh.last().unwrap_or(path).parent();
    home.unwrap_or(path).into()
}

/// What one home may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// At most so many watched directories.
    pub directories: usize,
    /// At most so many files are remembered.
    pub files: usize,
}

/// There is one of each home.
#[derive(Debug)]
struct Taken {
    directories: u32,
    files: u32,
    /// How many names may be looked at now; less than nothing after a look that
    /// cost more.
    credit: f32,
    said: [bool; 3],
    /// When that was reckoned, in microseconds since [`Homes::begun`].
    at: u64,
}

/// A time as it is kept ([`Taken::at`]).
fn since(begun: Instant, now: Instant) -> u64 {
    let passed = now.saturating_duration_since(begun).as_micros();
    u64::try_from(passed).unwrap_or(u64::MAX)
}

/// A count as it is kept: what does not fit stays at the largest number.
fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// A limit that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    Directories,
    Files,
    Looks,
}

/// What each home has taken.
#[derive(Debug)]
pub(super) struct Homes {
    limits: Limits,
    begun: Instant,
    taken: HashMap<Home, Taken>,
}

impl Homes {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            begun: Instant::now(),
            taken: HashMap::new(),
        }
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    /// Other limits; that one is reached is said again.
    pub(super) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        for taken in self.taken.values_mut() {
            taken.said = Default::default();
        }
    }

    fn most_names(&self) -> f32 {
        // Exact up to 2^24.
        #[expect(clippy::cast_precision_loss, reason = "far fewer files than that")]
        let files = self.limits.files as f32;
        4.0 * files.max(256.0)
    }

    fn at(&mut self, home: &Home) -> &mut Taken {
        let (credit, begun) = (self.most_names(), self.begun);
        self.taken.entry(Arc::clone(home)).or_insert_with(|| Taken {
            directories: 0,
            files: 0,
            credit,
            said: Default::default(),
            at: since(begun, Instant::now()),
        })
    }

    /// Takes a directory; false if there is no room.
    pub(super) fn take_directory(&mut self, home: &Home) -> bool {
        let most = count(self.limits.directories);
        let taken = self.at(home);
        let room = taken.directories < most;
        taken.directories += u32::from(room);
        room
    }

    /// Whether there is room for another directory.
    pub(super) fn has_room(&self, home: &Home) -> bool {
        let taken = self.taken.get(home);
        taken.is_none_or(|taken| taken.directories < count(self.limits.directories))
    }

    /// Takes directories and files that another home had.
    pub(super) fn take(&mut self, home: &Home, directories: usize, files: usize) {
        let taken = self.at(home);
        taken.directories = taken.directories.saturating_add(count(directories));
        taken.files = taken.files.saturating_add(count(files));
    }

    /// Gives directories and files back.
    pub(super) fn give(&mut self, home: &Home, directories: usize, files: usize) {
        if let Some(taken) = self.taken.get_mut(home) {
            taken.directories = taken.directories.saturating_sub(count(directories));
            taken.files = taken.files.saturating_sub(count(files));
        }
    }

    /// Takes a file; false if there is no room.
    pub(super) fn take_file(&mut self, home: &Home, always: bool) -> bool {
        let most = count(self.limits.files);
        let taken = self.at(home);
        let room = always || taken.files < most;
        taken.files = taken.files.saturating_add(u32::from(room));
        room
    }

    /// Whether a directory may be looked into now.
    pub(super) fn may_look(&mut self, home: &Home, now: Instant) -> bool {
        let (most, now) = (self.most_names(), since(self.begun, now));
        let taken = self.at(home);
        let passed = Duration::from_micros(now.saturating_sub(taken.at));
        taken.at = taken.at.max(now);
        let share = passed.as_secs_f32() / REFILL.as_secs_f32();
        taken.credit = (taken.credit + share * most).min(most);
        taken.credit > 0.0
    }

    /// So many names were looked at; returns as how many the look counts.
    pub(super) fn looked(&mut self, home: &Home, names: usize) -> usize {
        let cost = names.saturating_add(LOOK);
        // Exact up to 2^24.
        #[expect(clippy::cast_precision_loss, reason = "far fewer names than that")]
        let credit = cost as f32;
        self.at(home).credit -= credit;
        cost
    }

    /// Whether it is the first time that this limit is reached.
    pub(super) fn is_news(&mut self, home: &Home, limit: Limit) -> bool {
        !std::mem::replace(&mut self.at(home).said[limit as usize], true)
    }

    /// Forgets homes that have nothing, and have not been looked into lately.
    pub(super) fn prune(&mut self, now: Instant) {
        let now = since(self.begun, now);
        self.taken.retain(|_, taken| {
            let passed = Duration::from_micros(now.saturating_sub(taken.at));
            taken.directories > 0 || taken.files > 0 || passed < REFILL
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_home_cannot_take_what_another_needs() {
        let limits = Limits {
            directories: 2,
            files: 3,
        };
        let mut homes = Homes::new(limits);
        let (ann, bob): (Home, Home) = (Path::new("/home/ann").into(), Path::new("/home/b").into());
        let taken = |homes: &mut Homes, home: &Home| {
            let directories = (0..5).filter(|_| homes.take_directory(home)).count();
            let files = (0..5).filter(|_| homes.take_file(home, false)).count();
            (directories, files)
        };
        assert_eq!(taken(&mut homes, &ann), (2, 3));
        assert_eq!(taken(&mut homes, &bob), (2, 3));
        assert!(homes.take_file(&ann, true), "a name that is looked for");
        assert!(homes.is_news(&ann, Limit::Files));
        assert!(!homes.is_news(&ann, Limit::Files));
        assert!(homes.is_news(&ann, Limit::Directories));
        homes.give(&ann, 1, 2);
        assert!(homes.take_directory(&ann));
        assert!(homes.take_file(&ann, false));
    }

    #[test]
    fn looks_are_paid_for_and_come_back_with_time() {
        let limits = Limits {
            directories: 10,
            files: 1000,
        };
        let mut homes = Homes::new(limits);
        let ann: Home = Path::new("/home/ann").into();
        let mut now = Instant::now();
        let mut looks = 0;
        while homes.may_look(&ann, now) {
            homes.looked(&ann, 1000);
            looks += 1;
        }
        assert_eq!(looks, 4);
        now += REFILL;
        assert!(homes.may_look(&ann, now));
        homes.prune(now);
        assert_eq!(homes.taken.len(), 1);
        homes.prune(now + REFILL);
        assert!(homes.taken.is_empty());
    }

    #[test]
    fn the_home_of_a_file() {
        for (path, home) in [
            ("/home/ann/.ssh/id", "/home/ann"),
            ("/home/ann/.ssh/d/.ssh/id", "/home/ann"),
            ("/etc/ssh/sshd_config", "/etc/ssh"),
            ("/", "/"),
        ] {
            assert_eq!(of(Path::new(path)).as_ref(), Path::new(home));
        }
    }

    #[test]
    fn only_where_it_is_looked_for_a_name_is() {
        let home = Path::new("/home/ann");
        for (path, wanted) in [
            ("/home/ann/.ssh/authorized_keys", true),
            ("/home/ann/.ssh/id_ed25519.pub", true),
            ("/home/ann/.ssh/junk", false),
            ("/home/ann/.ssh/d/authorized_keys", false),
            ("/home/ann/x/authorized_keys", false),
        ] {
            assert_eq!(is_looked_for(home, Path::new(path)), wanted, "{path}");
        }
        let etc = Path::new("/etc/ssh");
        assert!(is_looked_for(etc, Path::new("/etc/ssh/sshd_config")));
    }
}
