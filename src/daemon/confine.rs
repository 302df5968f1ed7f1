//! What the daemon gives up once it runs: system calls ([`calls`]), and for
//! some threads all writing outside of their directories ([`within`]).
//!
//! Owns the decision what is given up and when. Capabilities are dropped before, by
//! [`super::privilege`]. A kernel that lacks one of these layers runs the daemon
//! without it, which is said; nothing here ever stops it.
//!
//! # Why landlock holds some threads only
//! A process in a landlock domain may look at no process outside of it: not at
//! `/proc/PID/exe`, `fd`, `environ`, nor take a descriptor by `pidfd_getfd`
//! (landlock(7), "Ptrace restrictions"). To say who made a file is what this
//! daemon is for, so the threads that find that out cannot be in one. Those that
//! write, answer on the control socket, or parse what users have written look at nobody,
//! and are. This catches mistakes with paths; it does not hold code that was
//! injected, for threads share their memory. Under systemd the mount namespace
//! of the unit (`ProtectSystem=strict`) holds all threads.

mod calls;

use std::path::{Path, PathBuf};
use std::{io, thread};

use landlock::{
    ABI, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetStatus, path_beneath_rules,
};

pub(super) use calls::forbid as forbid_calls;

/// The youngest landlock whose rights are asked for; an older one gives what it has.
/// It has no say over sockets and devices, which the sinks have opened already.
const LANDLOCK: ABI = ABI::V3;

/// Runs `start`; the threads that it starts can write nothing but what lies
/// below `places`, for good.
///
/// # Errors
/// A thread cannot be started.
pub(super) fn within<T: Send>(
    places: &[PathBuf],
    start: impl FnOnce() -> T + Send,
) -> io::Result<T> {
    // A domain cannot be left, and goes to the threads that one in it starts.
    thread::scope(|scope| {
        let starter = thread::Builder::new()
            .name("confine".to_owned())
            .spawn_scoped(scope, || {
                match restrict(places) {
                    Ok(RulesetStatus::NotEnforced) => {
                        tracing::debug!("this kernel has no landlock: writes are not confined");
                    }
                    Ok(_) => {}
                    Err(error) => tracing::warn!("writes are not confined: {error}"),
                }
                start()
            })?;
        match starter.join() {
            Ok(started) => Ok(started),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Puts the calling thread into a domain.
fn restrict(places: &[PathBuf]) -> Result<RulesetStatus, landlock::RulesetError> {
    let writes = AccessFs::from_write(LANDLOCK);
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(writes)?
        .create()?
        // A place that is not there gives no right.
        .add_rules(path_beneath_rules(places, writes))?
        .restrict_self()?;
    Ok(status.ruleset)
}

/// Where the sink of `log` writes. A rule holds the directory and not its name:
/// one that is removed and made again, or mounted over, is another. The log has
/// to go on there, so what the rule names is the directory above.
pub(super) fn log_places(log: &Path) -> Vec<PathBuf> {
    let directory = parent(log);
    let real = directory.canonicalize();
    let real = real.as_deref().unwrap_or(directory);
    vec![parent(real).to_owned(), real.to_owned()]
}

/// The directory that a file is in.
pub(super) fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

#[cfg(test)]
mod tests;
