//! What the process may do, and what it needs.

use std::fmt::Write;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::Fatal;

/// A capability (capabilities(7)) and what it is needed for.
struct Need {
    number: u32,
    name: &'static str,
    purpose: &'static str,
}

const NEEDS: [Need; 3] = [
    Need {
        number: 21,
        name: "CAP_SYS_ADMIN",
        purpose: "to watch with fanotify and hold writers while they are identified",
    },
    Need {
        number: 19,
        name: "CAP_SYS_PTRACE",
        purpose: "to see what other users' processes run",
    },
    Need {
        number: 2,
        name: "CAP_DAC_READ_SEARCH",
        purpose: "to enter homes and ~/.ssh",
    },
];

/// The capabilities that are needed and missing, each with its purpose.
#[must_use]
pub fn missing() -> Vec<(&'static str, &'static str)> {
    let effective = std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| effective(&status))
        .unwrap_or(0);
    NEEDS
        .iter()
        .filter(|need| effective & (1 << need.number) == 0)
        .map(|need| (need.name, need.purpose))
        .collect()
}

/// `CapEff` of `proc_pid_status(5)`.
fn effective(status: &str) -> Option<u64> {
    let value = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(value.trim(), 16).ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_set_is_read_as_hexadecimal() {
        let status = "Name:\tx\nCapPrm:\t0\nCapEff:\t00000000a80425fb\n";
        assert_eq!(effective(status), Some(0xa804_25fb));
    }
}
