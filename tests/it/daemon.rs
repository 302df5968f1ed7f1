//! The daemon under test: started until it is ready, followed, ended.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::document::{Document, brief};
use crate::follow::Follow;
use crate::host::{Cmd, Host, PROGRAM, User};
use crate::process::{Process, SOON, only};

/// The alert log where nothing else is said.
pub const LOG: &str = "/var/log/ssh-keywatch/alerts.json";

pub struct Builder<'h> {
    host: &'h Host,
    cmd: Cmd<'h>,
    journal: bool,
    closed_stdout: bool,
    log: &'static str,
}

impl<'h> Builder<'h> {
    pub fn new(host: &'h Host) -> Self {
        Self {
            host,
            cmd: host.command(PROGRAM).args(["run"]).env("RUST_BACKTRACE=1"),
            journal: false,
            closed_stdout: false,
            log: LOG,
        }
    }

    pub fn args<I: IntoIterator<Item: AsRef<OsStr>>>(mut self, args: I) -> Self {
        self.cmd = self.cmd.args(args);
        self
    }

    pub fn user(mut self, user: User) -> Self {
        self.cmd = self.cmd.user(user);
        self
    }

    /// `NAME=value` in its environment.
    pub fn env(mut self, assignment: &str) -> Self {
        self.cmd = self.cmd.env(assignment);
        self
    }

    /// Options of setpriv(1).
    pub fn privileges<I: IntoIterator<Item: AsRef<OsStr>>>(mut self, options: I) -> Self {
        self.cmd = self.cmd.privileges(options);
        self
    }

    /// Its configuration file.
    pub fn config(self, text: &str) -> Self {
        self.host.write("/etc/ssh-keywatch/config.toml", text);
        self
    }

    /// A rule besides the shipped one.
    pub fn rule(self, name: &str, text: &str) -> Self {
        self.host
            .write(&format!("/etc/ssh-keywatch/rules.d/{name}.toml"), text);
        self
    }

    /// With the journal, which is otherwise off: the namespace has none.
    pub fn journal(mut self) -> Self {
        self.journal = true;
        self
    }

    /// With nobody who reads what it prints.
    pub fn closed_stdout(mut self) -> Self {
        self.closed_stdout = true;
        self
    }

    /// Another place for the log.
    pub fn log(mut self, path: &'static str) -> Self {
        self.log = path;
        self.cmd = self.cmd.args(["--log", path]);
        self
    }

    /// The command itself, for a start that should fail.
    pub fn command(self) -> Cmd<'h> {
        if self.journal {
            self.cmd
        } else {
            self.cmd.args(["--no-journal"])
        }
    }

    /// Starts it and waits until it says that all is watched.
    #[track_caller]
    pub fn start(self) -> Daemon<'h> {
        let (host, log, closed_stdout) = (self.host, self.log, self.closed_stdout);
        let (socket, path) = host.notify_socket();
        let cmd = self.command().env(format!("NOTIFY_SOCKET={path}"));
        let mut process = cmd.spawn();
        let stdout = process.stdout();
        let stdout = if closed_stdout {
            drop(stdout);
            Follow::new(std::io::empty(), str::to_owned)
        } else {
            Follow::new(stdout, str::to_owned)
        };
        let stderr = Follow::new(process.stderr(), str::to_owned);
        let mut daemon = Daemon {
            host,
            process,
            tail: None,
            log,
            stdout,
            stderr,
        };
        daemon.wait_ready(&socket);
        daemon.tail = Some(Tail::start(host, log));
        daemon
    }
}

pub struct Daemon<'h> {
    host: &'h Host,
    process: Process,
    tail: Option<Tail>,
    log: &'static str,
    pub stdout: Follow<String>,
    pub stderr: Follow<String>,
}

/// What is left of a daemon that has ended.
pub struct Ended {
    pub status: ExitStatus,
    /// Every line of the log as it is now.
    pub log: Vec<Document>,
    pub stdout: Vec<String>,
    pub stderr: Vec<String>,
}

impl Daemon<'_> {
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Its alert log.
    pub fn log(&self) -> &str {
        self.log
    }

    /// A number of its `/proc/PID/status` (proc(5)); of memory, in KiB.
    pub fn status(&self, name: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Its marks on inodes: of which, and what they ask for.
    pub fn marks(&self) -> Vec<(u64, u64)> {
        let marks = self.marks_on("ino:", ["ino:", "mask:"]);
        marks.into_iter().map(|[ino, mask]| (ino, mask)).collect()
    }

    /// These fields of its marks that begin with `first` (proc(5), `/proc/PID/fdinfo`).
    fn marks_on<const N: usize>(&self, first: &str, fields: [&str; N]) -> Vec<[u64; N]> {
        let infos = std::fs::read_dir(format!("/proc/{}/fdinfo", self.pid())).unwrap();
        // A descriptor may be closed meanwhile.
        let infos = infos.filter_map(|info| std::fs::read_to_string(info.unwrap().path()).ok());
        let first = format!("fanotify {first}");
        let mut marks = Vec::new();
        for text in infos {
            for mark in text.lines().filter(|line| line.starts_with(&first)) {
                marks.push(fields.map(|name| {
                    let value = mark.split(' ').find_map(|word| word.strip_prefix(name));
                    u64::from_str_radix(value.unwrap(), 16).unwrap()
                }));
            }
        }
        marks
    }

    /// Waits until the file systems that it has marked are as they should be: by device, as
    /// the kernel counts them.
    #[track_caller]
    pub fn file_systems(&self, what: &str, is: impl Fn(&[u64]) -> bool) {
        let until = Instant::now() + SOON;
        loop {
            let marks = self.marks_on("sdev:", ["sdev:"]);
            let marked: Vec<u64> = marks.into_iter().map(|mark| mark[0]).collect();
            if is(&marked) {
                return;
            }
            assert!(Instant::now() < until, "{what}: {marked:x?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    #[track_caller]
    fn wait_ready(&self, socket: &std::os::unix::net::UnixDatagram) {
        let until = Instant::now() + SOON;
        let step = Duration::from_millis(200);
        socket.set_read_timeout(Some(step)).unwrap();
        let mut bytes = [0; 4096];
        loop {
            match socket.recv(&mut bytes) {
                Ok(count) => {
                    let text = String::from_utf8_lossy(&bytes[..count]);
                    if text.lines().any(|line| line == "READY=1") {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("cannot read sd_notify's socket: {error}"),
            }
            let over = self.process.has_ended() || Instant::now() > until;
            assert!(!over, "the daemon is not ready: {}", self.diagnostics());
        }
    }

    fn diagnostics(&self) -> String {
        let stderr = self.stderr.so_far().join("\n  ");
        let log = self.tail.as_ref().map(|tail| tail.lines.so_far());
        let log = log.unwrap_or_default();
        let skip = log.len().saturating_sub(12);
        format!("stderr:\n  {stderr}\nlog:{}", brief(&log[skip..]))
    }

    /// Waits for a line of the log.
    #[track_caller]
    pub fn line(&self, what: &str, is: impl Fn(&Document) -> bool) -> Document {
        let mut seen = 0;
        self.find(SOON, what, |log| {
            let new = &log[seen..];
            seen = log.len();
            new.iter().find(|document| is(document)).cloned()
        })
    }

    /// Waits until `find` finds something in the log.
    #[track_caller]
    pub fn find<R>(
        &self,
        bound: Duration,
        what: &str,
        find: impl FnMut(&[Document]) -> Option<R>,
    ) -> R {
        let lines = &self.tail.as_ref().unwrap().lines;
        lines
            .wait(bound, find)
            .unwrap_or_else(|| panic!("no {what} in the log; {}", self.diagnostics()))
    }

    /// Waits for the alert that `rule` raises on `path`.
    #[track_caller]
    pub fn alert(&self, rule: &str, path: &str) -> Document {
        self.line(&format!("alert on {path}"), |document| {
            document.is_alert_of(rule) && document.is("file.path", path)
        })
    }

    /// The state document of its start.
    #[track_caller]
    pub fn started(&self) -> Document {
        self.line("start", |document| document.is_state("start"))
    }

    /// Waits until its status says so of the roots that it watches.
    #[track_caller]
    pub fn roots(&self, bound: Duration, what: &str, is: impl Fn(&[Value]) -> bool) {
        let count = |log: &[Document]| log.iter().filter(|line| line.is_state("status")).count();
        let until = Instant::now() + bound;
        loop {
            let before = self.find(SOON, "log", |log| Some(count(log)));
            self.signal(Signal::SIGUSR1);
            let status = self.find(SOON, "status", |log| {
                let last = log.iter().rfind(|line| line.is_state("status"));
                (count(log) > before).then(|| last.unwrap().clone())
            });
            let roots = status.get("ssh_keywatch.coverage.roots");
            let roots = roots.as_array().expect("roots");
            if is(roots) {
                return;
            }
            assert!(Instant::now() < until, "{what}: {roots:?}");
        }
    }

    /// Waits until the comparison at the start is over.
    #[track_caller]
    pub fn compared(&self) {
        let words = ["took stock of", "compared"];
        let is_done = |lines: &[String]| {
            let mut lines = lines.iter();
            let said = |line: &String| words.iter().any(|words| line.contains(words));
            lines.any(said).then_some(())
        };
        let done = self.stderr.wait(SOON, is_done);
        assert!(done.is_some(), "{:#?}", self.stderr.so_far());
    }

    /// Ends it by SIGTERM, upon which it writes all it knows.
    #[track_caller]
    pub fn stop(self) -> Ended {
        self.end(Signal::SIGTERM)
    }

    #[track_caller]
    pub fn end(mut self, signal: Signal) -> Ended {
        let (status, stderr) = self.end_unread(signal);
        assert!(
            status.success(),
            "{signal} ended it with {status}:\n  {}",
            stderr.join("\n  ")
        );
        let bytes = std::fs::read(self.host.path(self.log)).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.ends_with('\n'), "the log does not end with a newline");
        Ended {
            status,
            log: text.lines().map(Document::parse).collect(),
            stdout: self.stdout.all(SOON),
            stderr,
        }
    }

    /// Ends it, and leaves its log alone. Gives what it said, too.
    #[track_caller]
    pub fn end_unread(&mut self, signal: Signal) -> (ExitStatus, Vec<String>) {
        let (status, stderr) = self.end_somehow(signal);
        let panics = stderr.iter().any(|line| line.contains("panicked"));
        assert!(!panics, "{}", stderr.join("\n  "));
        (status, stderr)
    }

    /// The same, whatever has become of it.
    #[track_caller]
    pub fn end_somehow(&mut self, signal: Signal) -> (ExitStatus, Vec<String>) {
        self.process.signal(signal);
        let status = self.process.end(SOON);
        (status, self.stderr.all(SOON))
    }

    /// Ends it by SIGKILL, as a crash would.
    pub fn kill(mut self) {
        self.process.signal(Signal::SIGKILL);
        self.process.end(SOON);
    }
}

impl Ended {
    /// The alerts of a rule, in the order of the log.
    pub fn alerts(&self, rule: &str) -> Vec<&Document> {
        let of = |document: &&Document| document.is_alert_of(rule);
        self.log.iter().filter(of).collect()
    }

    /// The only alert of `rule` on `path`.
    #[track_caller]
    pub fn alert(&self, rule: &str, path: &str) -> &Document {
        let mut alerts = self.alerts(rule);
        alerts.retain(|alert| alert.is("file.path", path));
        if alerts.len() != 1 {
            eprintln!("the log: {}", brief(&self.log));
        }
        only(alerts, path)
    }

    /// The paths that `rule` raised alerts on, sorted; a path stands there as
    /// often as it was alerted.
    pub fn paths(&self, rule: &str) -> Vec<String> {
        let alerts = self.alerts(rule);
        let mut paths: Vec<String> = alerts
            .iter()
            .map(|alert| alert.text("file.path").to_owned())
            .collect();
        paths.sort();
        paths
    }

    /// Nothing of what was to be seen was lost.
    #[track_caller]
    pub fn assert_nothing_lost(&self) {
        self.assert_nothing_lost_but("");
    }

    /// The same, but for what a test runs into on purpose.
    #[track_caller]
    pub fn assert_nothing_lost_but(&self, code: &str) {
        let lost: Vec<Document> = self
            .log
            .iter()
            .filter(|document| document.is("event.kind", "pipeline_error"))
            // On a busy machine an opener may have to be let go; what it made
            // must be alerted all the same, and is asserted for itself.
            .filter(|document| !document.is("event.code", "hold_overdue"))
            .filter(|document| !document.is("event.code", code))
            .cloned()
            .collect();
        assert!(lost.is_empty(), "{}", brief(&lost));
    }
}

/// `tail -F` on the log: across rotation, and without a poll of ours.
struct Tail {
    _process: Process,
    lines: Follow<Document>,
}

impl Tail {
    fn start(host: &Host, path: &str) -> Self {
        let mut process = host
            .command("tail")
            .args(["-q", "-n", "+1", "-F", path])
            .spawn();
        let lines = Follow::new(process.stdout(), Document::parse);
        Self {
            _process: process,
            lines,
        }
    }
}
