//! Who is connected to the sshd of a session, remembered.
//!
//! A session may be over before anybody asks: `ssh host ssh-keygen` takes a few
//! milliseconds, and with its sshd goes the address. So the watching thread has
//! a writer's session looked into as soon as it hears of the writer, on a
//! thread of its own, and does not wait.
//!
//! Owns that thread and what it found, by pid and start of the sshd. Bounded: a
//! look-up by its deadline, the rest by number.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::proc::{Entry, Proc};
use super::remote::{self, Target};
use super::slow::{Pool, Size};
use super::{Process, entry};

/// How long one may take on a host with very many connections.
const SEARCH_TIME: Duration = Duration::from_secs(5);
/// How long whoever asks waits.
const WAIT_TIME: Duration = Duration::from_millis(250);
/// How far up a lineage an sshd is looked for.
const MAX_DEPTH: usize = 32;
/// How many sessions are remembered.
const MAX_KEPT: usize = 512;

/// A process: its pid and its start in clock ticks.
type Server = (i32, u64);

/// Remembers the clients of sshds.
#[derive(Clone)]
pub struct Clients {
    proc: Arc<Proc>,
    early: Pool,
    late: Pool,
    known: Arc<(Mutex<HashMap<Server, Client>>, Condvar)>,
}

#[derive(Clone, Copy)]
enum Client {
    Known(Option<SocketAddr>),
    /// It is being looked for.
    Asked,
}

impl Clients {
    /// Starts the threads.
    ///
    /// # Errors
    /// They cannot be started.
    pub fn start(proc: Arc<Proc>) -> io::Result<Self> {
        let early = Size {
            threads: 1,
            backlog: 15,
            urgent: true,
            movable: false,
        };
        let late = Size {
            threads: 2,
            backlog: 6,
            urgent: false,
            movable: false,
        };
        Ok(Self {
            proc,
            early: Pool::start(early)?,
            late: Pool::start(late)?,
            known: Arc::default(),
        })
    }

    /// The `/proc` that is read.
    #[must_use]
    pub fn proc(&self) -> &Proc {
        &self.proc
    }

    /// Has the session looked into that `process` is in. Never waits.
    pub fn foresee(&self, process: &Process) {
        let (pid, parent) = (process.pid, process.parent_pid);
        let this = self.clone();
        // Without a free thread it is asked for later, when it may be gone.
        let _ = self.early.ask(move || {
            // It may have ended; its parent will take longer.
            let found = this
                .server(pid)
                .or_else(|| this.server(parent.filter(|pid| *pid > 0)?));
            if let Some((key, server, listener)) = found
                && this.claim(key)
            {
                match remote::peer(&server, listener.as_ref(), None) {
                    Some(client) => this.put(key, Some(client)),
                    None => this.forget(key),
                }
            }
        });
    }

    /// The nearest sshd with root's ids from process `pid` upwards, and its parent.
    fn server(&self, pid: i32) -> Option<(Server, Target, Option<Target>)> {
        let mut pid = pid;
        for _ in 0..MAX_DEPTH {
            if pid <= 1 {
                return None;
            }
            let entry = self.proc.entry(pid).ok()?;
            let stat = entry.stat().ok()?;
            if is_server(&entry) {
                let listener = self.proc.entry(stat.parent).ok().map(|entry| Target {
                    pid: stat.parent,
                    entry,
                });
                return Some(((pid, stat.start_ticks), Target { pid, entry }, listener));
            }
            pid = stat.parent;
        }
        None
    }

    /// The client of the sshd `server`; `listener` is its parent.
    pub(super) fn of(&self, server: &Process, listener: Option<&Process>) -> Option<SocketAddr> {
        let key = (server.pid, server.start_ticks?);
        let deadline = Instant::now() + WAIT_TIME;
        loop {
            if self.claim(key) {
                self.ask(key, server, listener);
            }
            let mut known = self.lock();
            while let Some(client) = known.get(&key) {
                if let Client::Known(client) = client {
                    return *client;
                }
                let left = deadline.checked_duration_since(Instant::now())?;
                let waited = self.known.1.wait_timeout(known, left);
                known = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            // Whoever looked for it had no time to.
        }
    }

    /// What is known of the client of an sshd that has ended.
    pub(super) fn remembered(&self, server: &Process) -> Option<SocketAddr> {
        let ticks = server.start_ticks?;
        let known = self.lock();
        // The process table rounds its own clock to ticks.
        [ticks, ticks.saturating_sub(1), ticks + 1]
            .into_iter()
            .find_map(|ticks| match known.get(&(server.pid, ticks))? {
                Client::Known(client) => *client,
                Client::Asked => None,
            })
    }

    fn ask(&self, key: Server, server: &Process, listener: Option<&Process>) {
        let asked = self.open(server).and_then(|entry| {
            let listener = listener.and_then(|listener| self.open(listener));
            let this = self.clone();
            self.late.ask(move || {
                let deadline = Instant::now() + SEARCH_TIME;
                this.put(key, remote::peer(&entry, listener.as_ref(), Some(deadline)));
            })
        });
        if asked.is_none() {
            self.put(key, None);
        }
    }

    /// The same process, if it is still there.
    fn open(&self, process: &Process) -> Option<Target> {
        let pid = process.pid;
        let entry = self.proc.entry(pid).ok()?;
        let ticks = entry.stat().ok()?.start_ticks;
        (Some(ticks) == process.start_ticks).then_some(Target { pid, entry })
    }

    /// Whether it has not been asked for; from now on it has.
    fn claim(&self, key: Server) -> bool {
        let mut known = self.lock();
        if known.contains_key(&key) {
            return false;
        }
        if known.len() >= MAX_KEPT {
            known.clear();
        }
        known.insert(key, Client::Asked);
        true
    }

    fn put(&self, key: Server, client: Option<SocketAddr>) {
        self.lock().insert(key, Client::Known(client));
        self.known.1.notify_all();
    }

    fn forget(&self, key: Server) {
        self.lock().remove(&key);
        self.known.1.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Server, Client>> {
        self.known.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_server(entry: &Entry) -> bool {
    entry.link(c"exe").is_some_and(|path| entry::is_sshd(&path))
        && entry.status().is_ok_and(|status| status.users[1] == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, start: u64) -> Process {
        Process {
            start_ticks: Some(start),
            ..Process::unknown(pid)
        }
    }

    /// As foretold, also when the process is not there any more.
    #[test]
    fn what_was_found_early_is_still_known() {
        let proc = Arc::new(Proc::open(std::path::Path::new("/proc")).unwrap());
        let clients = Clients::start(proc).unwrap();
        let address = "10.1.2.3:50000".parse().unwrap();
        assert!(clients.claim((i32::MAX, 7)));
        assert!(!clients.claim((i32::MAX, 7)));
        let later = clients.clone();
        let asking = std::thread::spawn(move || {
            // A stall may be longer than it is waited for.
            (0..20).find_map(|_| later.of(&process(i32::MAX, 7), None))
        });
        clients.put((i32::MAX, 7), Some(address));
        assert_eq!(asking.join().unwrap(), Some(address));
        let ended = |start| clients.remembered(&process(i32::MAX, start));
        let near: Vec<_> = (5..10).map(|start| ended(start).is_some()).collect();
        assert_eq!(near, [false, true, true, true, false]);
        // The pid is another process's.
        assert_eq!(clients.of(&process(i32::MAX, 8), None), None);
        // Nobody is an sshd in the lineage of this test's process.
        let own = nix::unistd::getpid().as_raw();
        clients.foresee(&process(own, 1));
        assert_eq!(clients.of(&process(i32::MAX, 7), None), Some(address));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let proc = Arc::new(Proc::open(std::path::Path::new("/proc")).unwrap());
        let clients = Clients::start(proc).unwrap();
        for start in 0..3 * MAX_KEPT as u64 {
            assert!(clients.claim((i32::MAX, start)));
            assert!(clients.lock().len() <= MAX_KEPT);
        }
    }
}
