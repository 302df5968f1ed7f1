//! Whether the store can be read, tried by another process: of some damage redb
//! panics, and that shall not end the daemon.
//!
//! Owns that process, and what its end means. It is started before there is a
//! permission group (see ARCHITECTURE.md, descriptors), and waited for later.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::resource::{Resource, setrlimit};

use crate::baseline::{Health, Store};
use crate::exit::Exit;
use crate::text::printable;

/// The command that the process runs.
pub const COMMAND: &str = "check-store";
/// What it may use: seconds of processor time, and bytes of memory. A store of
/// a million files takes less.
const SECONDS: u64 = 120;
const MEMORY: u64 = 1 << 30;
/// How often it is looked whether it has ended.
const STEP: Duration = Duration::from_millis(5);
/// So much of what it said is told (characters).
const SAID: usize = 300;

/// The process, if there is a store to look at.
pub(in crate::daemon) struct Probe(Option<Child>);

impl Probe {
    /// Starts it.
    ///
    /// # Errors
    /// It cannot be started.
    pub(in crate::daemon) fn start(store: &Path) -> io::Result<Self> {
        if store.symlink_metadata().is_err() {
            return Ok(Self(None));
        }
        Command::new("/proc/self/exe")
            .arg(COMMAND)
            .arg(store)
            .env("RUST_BACKTRACE", "0")
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map(|child| Self(Some(child)))
    }

    /// None: the store is opened without it.
    #[cfg(test)]
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// Waits for it, unless `ending` is set meanwhile.
    ///
    /// # Errors
    /// It did not come to a judgement.
    pub(super) fn wait(self, ending: &AtomicBool) -> io::Result<Health> {
        let Some(mut child) = self.0 else {
            return Ok(Health::Sound);
        };
        // It says little: the pipe holds it.
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if ending.load(Ordering::Relaxed) {
                child.kill()?;
                child.wait()?;
                return Err(io::ErrorKind::Interrupted.into());
            }
            std::thread::sleep(STEP);
        };
        let mut said = String::new();
        if let Some(mut stderr) = child.stderr.take() {
            io::Read::read_to_string(&mut stderr, &mut said)?;
        }
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        let said: String = said.chars().take(SAID).collect();
        let said = printable(&said).into_owned();
        if status.success() {
            return Ok(Health::Sound);
        }
        match (status.code(), status.signal()) {
            (Some(code), _) if code == i32::from(Exit::Found as u8) => Ok(Health::Damaged(said)),
            (
                _,
                Some(libc::SIGABRT | libc::SIGSEGV | libc::SIGBUS | libc::SIGILL | libc::SIGXCPU),
            ) => Ok(Health::Damaged(format!("its check failed: {said}"))),
            _ => Err(io::Error::other(format!(
                "the check of it ended with {status}: {said}"
            ))),
        }
    }
}

/// What the process does: ends with 0 if the store is sound, with 1 and the
/// reason on stderr if it is damaged.
#[must_use]
pub fn check(store: &Path) -> Exit {
    // The daemon that started it is prompter than others, and has more urgent work.
    let _ = crate::sys::thread::nice(0);
    for (resource, limit) in [
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_CPU, SECONDS),
        (Resource::RLIMIT_AS, MEMORY),
    ] {
        // Without its limit it is as good.
        let _ = setrlimit(resource, limit, limit);
    }
    match Store::check(store) {
        Ok(Health::Sound) => Exit::Ok,
        Ok(Health::Damaged(reason)) => {
            eprintln!("{reason}");
            Exit::Found
        }
        Err(error) => {
            eprintln!("{error}");
            Exit::Internal
        }
    }
}
