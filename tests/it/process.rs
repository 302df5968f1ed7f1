//! Processes of a test: each bounded in time and bound to the test's life.

use std::fmt::Debug;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

/// How long anything that should come at once may take on a loaded machine.
pub const SOON: Duration = Duration::from_secs(20);

/// No process of a test lives longer, unless a long run has been asked for.
const LIFE: Duration = Duration::from_secs(170);

/// How long a process of a test may live.
pub fn life() -> Duration {
    let long = ["ATTRIBUTION_RUNS", "FLOOD_FILES", "KILLER_ROUNDS"];
    if long.iter().any(|name| std::env::var_os(name).is_some()) {
        Duration::from_secs(3600)
    } else {
        LIFE
    }
}

/// A child that is killed when it lives too long, when it is dropped, and, if
/// it was started by way of `setpriv --pdeathsig KILL`, when the test's thread
/// ends in whatever way.
pub struct Process {
    child: Child,
    pid: Pid,
    life: Watchdog,
    ended: Option<ExitStatus>,
}

impl Process {
    pub fn spawn(command: &mut Command) -> Self {
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        Self {
            child,
            pid,
            life: Watchdog::start(pid, life()),
            ended: None,
        }
    }

    /// Of the program itself: every wrapper in front of it replaces itself by it.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().unwrap()
    }

    pub fn stdout(&mut self) -> ChildStdout {
        self.child.stdout.take().unwrap()
    }

    pub fn stderr(&mut self) -> ChildStderr {
        self.child.stderr.take().unwrap()
    }

    /// Ends the child's standard input.
    pub fn close_stdin(&mut self) {
        self.child.stdin = None;
    }

    pub fn signal(&self, signal: Signal) {
        assert!(self.ended.is_none(), "{:?} has ended already", self.pid);
        kill(self.pid, signal).unwrap();
    }

    pub fn has_ended(&self) -> bool {
        self.ended.is_some() || wait(self.pid, WaitPidFlag::WNOHANG)
    }

    /// Waits for its end, and kills it when that does not come in time.
    pub fn end(&mut self, bound: Duration) -> ExitStatus {
        if let Some(ended) = self.ended {
            return ended;
        }
        // It stays a zombie until both watchdogs are at rest, so that its pid
        // cannot mean another process.
        let mut watchdog = Watchdog::start(self.pid, bound);
        wait(self.pid, WaitPidFlag::empty());
        watchdog.rest();
        self.life.rest();
        let status = self.child.wait().unwrap();
        self.ended = Some(status);
        status
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended.is_none() {
            let _ = kill(self.pid, Signal::SIGKILL);
            self.end(SOON);
        }
    }
}

/// Whether the child has ended; it is not reaped.
fn wait(pid: Pid, flags: WaitPidFlag) -> bool {
    use nix::sys::wait::WaitStatus;
    let flags = flags | WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
    loop {
        match waitid(Id::Pid(pid), flags) {
            Ok(status) => return status != WaitStatus::StillAlive,
            Err(nix::errno::Errno::EINTR) => {}
            Err(error) => panic!("cannot wait for {pid}: {error}"),
        }
    }
}

/// Kills a process by SIGKILL unless it is told in time that there is no need.
struct Watchdog {
    rest: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    fn start(pid: Pid, bound: Duration) -> Self {
        let (rest, told) = channel::<()>();
        let thread = std::thread::spawn(move || {
            if told.recv_timeout(bound) == Err(RecvTimeoutError::Timeout) {
                eprintln!("{pid} has not ended within {bound:?} and is killed");
                let _ = kill(pid, Signal::SIGKILL);
            }
        });
        Self {
            rest: Some(rest),
            thread: Some(thread),
        }
    }

    /// From now on it kills nobody.
    fn rest(&mut self) {
        if let Some(rest) = &self.rest {
            let _ = rest.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.rest();
        self.rest = None;
    }
}

/// What a command left behind.
#[derive(Debug)]
pub struct Output {
    pub pid: u32,
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Runs the command to its end.
    pub fn of(command: &mut Command, bound: Duration) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut process = Process::spawn(command);
        let stdout = drain(process.stdout());
        let stderr = drain(process.stderr());
        let status = process.end(bound);
        Self {
            pid: process.pid(),
            status,
            stdout: stdout.join().unwrap(),
            stderr: stderr.join().unwrap(),
        }
    }

    /// The exit code; a signal is none.
    #[track_caller]
    pub fn code(&self) -> i32 {
        self.status
            .code()
            .unwrap_or_else(|| panic!("ended by signal {:?}: {self:?}", self.status.signal()))
    }
}

fn drain(mut from: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// The value, or a panic that shows what there is instead.
#[track_caller]
pub fn only<T: Debug>(mut items: Vec<T>, what: &str) -> T {
    assert_eq!(items.len(), 1, "not exactly one {what}: {items:#?}");
    items.remove(0)
}
