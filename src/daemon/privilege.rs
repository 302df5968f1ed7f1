//! What the process may do, and what it needs.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use caps::{CapSet, Capability, CapsHashSet};
use nix::fcntl::{AT_FDCWD, AtFlags, FcntlArg, OFlag, fcntl, open};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, rlim_t, setrlimit};
use nix::sys::stat::Mode;
use nix::unistd::{AccessFlags, Gid, close};

use super::{Fatal, access};
use crate::config::{Backend, Config};

/// A capability (capabilities(7)) and what it is needed for.
struct Need {
    capability: Capability,
    purpose: &'static str,
}

const NEEDS: [Need; 3] = [
    Need {
        capability: Capability::CAP_SYS_ADMIN,
        purpose: "to watch with fanotify and hold writers while they are identified",
    },
    Need {
        capability: Capability::CAP_SYS_PTRACE,
        purpose: "to see what other users' processes run",
    },
    Need {
        capability: Capability::CAP_DAC_READ_SEARCH,
        purpose: "to enter homes and ~/.ssh",
    },
];

/// The capabilities that are needed and missing, each with its purpose.
#[must_use]
pub fn missing() -> Vec<(String, &'static str)> {
    let effective = caps::read(None, CapSet::Effective).unwrap_or_default();
    NEEDS
        .iter()
        .filter(|need| !effective.contains(&need.capability))
        .map(|need| (need.capability.to_string(), need.purpose))
        .collect()
}

/// # Errors
/// [`Fatal::NoPermission`], when a capability for fanotify is missing.
pub fn require_fanotify() -> Result<(), Fatal> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    let mut text = String::from("a privilege is missing:");
    for (name, purpose) in missing {
        let _ = write!(text, "\n  {name}  {purpose}");
    }
    text.push_str(WITHOUT);
    Err(Fatal::NoPermission(text))
}

const WITHOUT: &str = "\nRun it as root: sudo ssh-keywatch run\n\
    Without privilege `--backend inotify` still sees new files in the directories that you may read, \
    but not who made them; check, tail and replay work too.";

/// What to say when the kernel refuses fanotify in spite of the capabilities:
/// a container or a security module forbids it.
#[must_use]
pub fn refused(error: &std::io::Error) -> String {
    format!(
        "the kernel refuses fanotify ({error}) though the capabilities are there: \
         in a container it needs CAP_SYS_ADMIN in the host's user namespace and a seccomp profile \
         that allows fanotify_init{WITHOUT}"
    )
}

/// Raises the limit of descriptors to what is allowed: every record carries
/// one or two, and one that cannot be opened denies the opener.
pub fn raise_descriptors() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!("cannot raise the limit of open files: {error}");
    }
    if let Err(error) = make_room() {
        tracing::debug!("the table of descriptors will grow when it is full: {error}");
    }
}

/// Has the table of descriptors made for as many as a flood brings. Once there are
/// threads, whoever needs one more than it has room for waits for an RCU grace period
/// (`expand_fdtable` in fs/file.c): some tens of milliseconds, for each doubling.
fn make_room() -> nix::Result<()> {
    /// Those of a reading, and of the events that are on their way.
    const MOST: rlim_t = 16 * 1024;
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let last = i32::try_from(soft.min(MOST).saturating_sub(1)).unwrap_or(i32::MAX);
    let root = open("/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    let raised = fcntl(&root, FcntlArg::F_DUPFD_CLOEXEC(last))?;
    close(raised)
}

/// Asks for a better place in the queue for the processor: whoever made a file
/// may be gone when it is our turn late.
pub fn be_prompt() {
    /// As other daemons of this kind have it.
    const NICE: i32 = -10;
    if let Err(error) = crate::sys::thread::nice(NICE) {
        tracing::debug!("cannot raise the priority: {error}");
    }
}

/// Gives up for good what root has and a running daemon does not use: it
/// keeps what the unit gives it (`CapabilityBoundingSet`). What is needed once
/// is done before. To be called before the first thread starts, for each thread
/// has capabilities of its own.
pub fn give_up(config: &Config, dry: bool) {
    let mut keep: CapsHashSet = NEEDS.iter().map(|need| need.capability).collect();
    if config.watch.backend == Backend::Inotify {
        keep.remove(&Capability::CAP_SYS_ADMIN);
    }
    // Instead of CAP_SYS_NICE and CAP_IPC_LOCK: real-time priority, and the
    // rings of a machine with many processors.
    for (limit, value, capability) in [
        (Resource::RLIMIT_RTPRIO, PRIORITY, Capability::CAP_SYS_NICE),
        (
            Resource::RLIMIT_MEMLOCK,
            RLIM_INFINITY,
            Capability::CAP_IPC_LOCK,
        ),
    ] {
        if !raise(limit, value) {
            keep.insert(capability);
        }
    }
    if !dry && !join([&config.log.group, &config.control.group]) {
        keep.insert(Capability::CAP_CHOWN);
    }
    if let Err(error) = keep_only(&mut keep, &written(config, dry)) {
        tracing::warn!("privileges that are not needed stay: {error}");
    }
    if let Err(error) = nix::sys::prctl::set_no_new_privs() {
        tracing::warn!("programs could still give privileges: {error}");
    }
}

/// The highest that a thread asks for.
const PRIORITY: rlim_t = 3;

/// Whether the limit is at least `value` now.
fn raise(limit: Resource, value: rlim_t) -> bool {
    let enough = |limit: rlim_t| limit == RLIM_INFINITY || limit >= value;
    getrlimit(limit).is_ok_and(|(soft, hard)| {
        enough(soft) || setrlimit(limit, value, if enough(hard) { hard } else { value }).is_ok()
    })
}

/// Makes the process a member of these groups, so that it may give them files
/// without `CAP_CHOWN`. Whether it is one of all that exist.
fn join(groups: [&String; 2]) -> bool {
    let names: BTreeSet<&String> = groups.into_iter().filter(|name| !name.is_empty()).collect();
    let wanted: Vec<Gid> = names
        .into_iter()
        .filter_map(|name| access::group(name))
        .map(Gid::from_raw)
        .collect();
    let Ok(mut all) = nix::unistd::getgroups() else {
        return false;
    };
    let before = all.len();
    for group in wanted {
        if group != nix::unistd::getegid() && !all.contains(&group) {
            all.push(group);
        }
    }
    all.len() == before || nix::unistd::setgroups(&all).is_ok()
}

/// What will be written to.
fn written(config: &Config, dry: bool) -> Vec<PathBuf> {
    if dry {
        return Vec::new();
    }
    let (log, state) = (&config.log.file, &config.state.directory);
    let parents = [log, &config.control.socket].map(|file| file.parent());
    let parents = parents.into_iter().flatten().map(Path::to_owned);
    let places = parents.chain([log.clone(), state.clone(), state.join("lock")]);
    places.filter_map(|place| existing(&place)).collect()
}

/// The path, or of its directories the last that exists.
fn existing(path: &Path) -> Option<PathBuf> {
    let mut above = path.ancestors();
    above.find(|path| path.exists()).map(Path::to_owned)
}

fn can_write(path: &PathBuf) -> bool {
    nix::unistd::faccessat(AT_FDCWD, path, AccessFlags::W_OK, AtFlags::AT_EACCESS).is_ok()
}

/// Sets the capabilities of the calling thread to those of `keep` that it has.
/// Where what is written to belongs to another user, root could not do so
/// without `CAP_DAC_OVERRIDE`: then that is kept as well.
fn keep_only(keep: &mut CapsHashSet, written: &[PathBuf]) -> Result<(), caps::errors::CapsError> {
    let permitted = caps::read(None, CapSet::Permitted)?;
    let override_ = Capability::CAP_DAC_OVERRIDE;
    if permitted.contains(&override_) {
        let writable: Vec<_> = written.iter().filter(|path| can_write(path)).collect();
        caps::drop(None, CapSet::Effective, override_)?;
        if let Some(other) = writable.into_iter().find(|path| !can_write(path)) {
            tracing::info!(
                "CAP_DAC_OVERRIDE is kept: {} could not be written without it",
                other.display()
            );
            keep.insert(override_);
        }
        caps::raise(None, CapSet::Effective, override_)?;
    }
    // Needs CAP_SETPCAP; under systemd it is done already.
    if permitted.contains(&Capability::CAP_SETPCAP) {
        for capability in caps::runtime::thread_all_supported() {
            if !keep.contains(&capability) {
                caps::drop(None, CapSet::Bounding, capability)?;
            }
        }
    }
    let left: CapsHashSet = permitted.intersection(keep).copied().collect();
    // Not asked for in vain: the unit forbids capset(2).
    for (set, wanted) in [
        (CapSet::Inheritable, &CapsHashSet::new()),
        (CapSet::Effective, &left),
        (CapSet::Permitted, &left),
    ] {
        let before = caps::read(None, set)?;
        let now: CapsHashSet = before.intersection(wanted).copied().collect();
        // What a container's manager made inheritable stays then; it gives nothing
        // to who runs no program and gains no privileges.
        let harmless = matches!(set, CapSet::Inheritable) && before.is_subset(&left);
        if now.len() < before.len() {
            caps::set(None, set, &now)
                .or_else(|error| if harmless { Ok(()) } else { Err(error) })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: [Capability; 2] = [Capability::CAP_SYS_ADMIN, Capability::CAP_DAC_READ_SEARCH];

    /// What a thread has left that keeps [`KEPT`] and writes to `place`.
    fn left(place: &Path) -> [CapsHashSet; 3] {
        let written = [place.to_owned()];
        let thread = std::thread::spawn(move || {
            keep_only(&mut KEPT.into_iter().collect(), &written).unwrap();
            [CapSet::Effective, CapSet::Permitted, CapSet::Bounding]
                .map(|set| caps::read(None, set).unwrap())
        });
        thread.join().unwrap()
    }

    #[test]
    fn no_more_is_kept_than_what_is_named() {
        let directory = tempfile::tempdir().unwrap();
        for set in left(directory.path()) {
            assert_eq!(set, KEPT.into_iter().collect());
        }
        let all = caps::read(None, CapSet::Effective).unwrap();
        assert!(all.len() > KEPT.len(), "only that thread");
    }

    #[test]
    fn what_belongs_to_another_user_can_still_be_written() {
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(directory.path(), Some(4001), None).unwrap();
        let mut kept: CapsHashSet = KEPT.into_iter().collect();
        kept.insert(Capability::CAP_DAC_OVERRIDE);
        for set in left(directory.path()) {
            assert_eq!(set, kept);
        }
    }

    #[test]
    fn the_last_directory_that_exists_is_asked() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("a/b/log");
        assert_eq!(existing(&missing).as_deref(), Some(directory.path()));
    }
}
