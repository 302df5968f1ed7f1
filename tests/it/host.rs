//! A host of its own for each test: a mount namespace, and commands in it.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use crate::daemon::Builder;
use crate::process::{Output, Process, SOON};

/// The daemon's program, as commands in the namespace name it.
pub const PROGRAM: &str = "/run/it/bin/ssh-keywatch";
/// The small programs of `tests/it/*.c`, as commands in the namespace name them.
pub const TOOLS: &str = "/run/it/tools";

/// Their sources, below `tests`.
const PROGRAMS: [&str; 10] = [
    "it/flush.c",
    "it/creator.c",
    "workload/act.c",
    "workload/adversary.c",
    "workload/disk.c",
    "workload/flood.c",
    "workload/pace.c",
    "workload/spawn.c",
    "workload/stack.c",
    "workload/stall.c",
];

/// Accounts that every [`Host`] has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    pub name: &'static str,
    pub id: u32,
    pub home: &'static str,
}

pub const ROOT: User = User {
    name: "root",
    id: 0,
    home: "/root",
};
pub const ANN: User = User {
    name: "ann",
    id: 4001,
    home: "/home/ann",
};
pub const BOB: User = User {
    name: "bob",
    id: 4002,
    home: "/home/bob",
};

impl User {
    /// A path in the user's `.ssh`.
    pub fn ssh(&self, name: &str) -> String {
        format!("{}/.ssh/{name}", self.home)
    }
}

/// The namespace; it ends when this is dropped.
pub struct Host {
    holder: Process,
    sockets: AtomicU32,
    /// Removed last, when nobody is in the namespace any more.
    _disk: Option<TempDir>,
}

impl Host {
    /// One whose directories are in memory (tmpfs).
    pub fn new() -> Self {
        Self::start(None)
    }

    /// One whose watched directories are on the disk, where file systems take
    /// their time and have other file handles.
    pub fn on_disk() -> Self {
        let disk = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        Self::start(Some(disk))
    }

    fn start(disk: Option<TempDir>) -> Self {
        require();
        let place = disk.as_ref().map_or(Path::new(""), TempDir::path);
        let setup = concat!(
            include_str!("setup.sh"),
            "\necho ready\nread -r _ || true\n"
        );
        let mut holder = Process::spawn(
            Command::new("unshare")
                .args(["--mount", "--propagation", "private", "--"])
                .args(["setpriv", "--pdeathsig", "KILL", "--"])
                .args(["sh", "-euc", setup, "setup.sh"])
                .args([program().as_path(), tools(), place])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped()),
        );
        let mut line = String::new();
        BufReader::new(holder.stdout())
            .read_line(&mut line)
            .unwrap();
        if line != "ready\n" {
            holder.close_stdin();
            let mut said = String::new();
            holder.stderr().read_to_string(&mut said).unwrap();
            panic!("cannot set up a mount namespace with its own /home: {said}");
        }
        Self {
            holder,
            sockets: AtomicU32::new(0),
            _disk: disk,
        }
    }

    /// A path of the namespace as this process reaches it. Not for directories
    /// that are held: a test must not wait for the daemon it tests.
    pub fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.holder.pid()))
    }

    /// Writes a file, in directories that are made if need be, as root.
    pub fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A command in the namespace, as root.
    pub fn command(&self, program: impl Into<OsString>) -> Cmd<'_> {
        Cmd {
            host: self,
            program: program.into(),
            args: Vec::new(),
            user: ROOT,
            directory: "/".into(),
            environment: Vec::new(),
            privileges: Vec::new(),
        }
    }

    /// `ssh-keygen -q` for a new key without a passphrase.
    pub fn keygen(&self, user: User, kind: &str) -> Cmd<'_> {
        let cmd = self.command("ssh-keygen").user(user);
        cmd.args(["-q", "-N", "", "-C", "it", "-t", kind])
    }

    /// A shell script, as `user`, in their home.
    pub fn sh(&self, user: User, script: &str) -> Cmd<'_> {
        let sh = self.command("sh").user(user).directory(user.home);
        sh.args(["-euc", script, "sh"])
    }

    /// The daemon, still to be started.
    pub fn daemon(&self) -> Builder<'_> {
        Builder::new(self)
    }

    /// A socket for `sd_notify(3)`, and its path in the namespace.
    pub fn notify_socket(&self) -> (UnixDatagram, String) {
        let number = self.sockets.fetch_add(1, Ordering::Relaxed);
        let path = format!("/run/it/notify{number}");
        let socket = UnixDatagram::bind(self.path(&path)).unwrap();
        // For daemons without privilege, too.
        fs::set_permissions(self.path(&path), fs::Permissions::from_mode(0o666)).unwrap();
        (socket, path)
    }
}

/// A command in the namespace. Whatever stands in front of the program replaces
/// itself by it, so that the pid of the child is the program's.
#[derive(Clone)]
pub struct Cmd<'h> {
    host: &'h Host,
    program: OsString,
    args: Vec<OsString>,
    user: User,
    directory: OsString,
    environment: Vec<OsString>,
    privileges: Vec<OsString>,
}

impl Cmd<'_> {
    pub fn args<I: IntoIterator<Item: AsRef<OsStr>>>(mut self, args: I) -> Self {
        self.args
            .extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    pub fn user(mut self, user: User) -> Self {
        self.user = user;
        self
    }

    pub fn directory(mut self, directory: impl AsRef<OsStr>) -> Self {
        directory.as_ref().clone_into(&mut self.directory);
        self
    }

    /// `NAME=value`.
    pub fn env(mut self, assignment: impl AsRef<OsStr>) -> Self {
        self.environment.push(assignment.as_ref().to_owned());
        self
    }

    /// Options of setpriv(1).
    pub fn privileges<I: IntoIterator<Item: AsRef<OsStr>>>(mut self, options: I) -> Self {
        self.privileges
            .extend(options.into_iter().map(|option| option.as_ref().to_owned()));
        self
    }

    fn build(&self) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--mount=/proc/{}/ns/mnt", self.host.holder.pid()))
            .arg("--");
        if self.user.id != 0 || !self.privileges.is_empty() {
            command.arg("setpriv").args(&self.privileges);
            if self.user.id != 0 {
                let id = self.user.id;
                command.arg(format!("--reuid={id}"));
                command.arg(format!("--regid={id}"));
                command.arg("--clear-groups");
            }
            command.arg("--");
        }
        // Bound to this process's life, also when that ended before the signal
        // was set. A change of credentials would take it away, so it comes last.
        command
            .args(["setpriv", "--pdeathsig", "KILL", "--", "sh", "-c"])
            .arg(r#"[ "$PPID" = "$0" ] || exit 125; exec "$@""#)
            .arg(std::process::id().to_string())
            .args(["env", "-i", "-C"])
            .arg(&self.directory)
            .args(["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8"])
            .arg(format!("HOME={}", self.user.home))
            .arg(format!("USER={}", self.user.name))
            .args(&self.environment)
            .arg(&self.program)
            .args(&self.args);
        command
    }

    /// Runs it to its end, within [`SOON`].
    pub fn output(&self) -> Output {
        self.output_within(SOON)
    }

    pub fn output_within(&self, bound: Duration) -> Output {
        Output::of(&mut self.build(), bound)
    }

    /// Runs it to its end, which must be a success.
    #[track_caller]
    pub fn ok(&self) -> Output {
        let output = self.output();
        assert!(output.status.success(), "{:?}: {output:?}", self.args);
        output
    }

    /// Starts it, with standard output and error as pipes.
    pub fn spawn(&self) -> Process {
        let mut command = self.build();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Process::spawn(&mut command)
    }

    /// Starts it, with standard input as a pipe, too.
    pub fn spawn_talking(&self) -> Process {
        let mut command = self.build();
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        Process::spawn(&mut command)
    }

    /// Starts it, with its output going nowhere.
    pub fn spawn_silent(&self) -> Process {
        let mut command = self.build();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Process::spawn(&mut command)
    }
}

/// The program under test: the one that was built with the tests, or
/// `$SSH_KEYWATCH_PROGRAM`, such as an optimised one for a long run.
fn program() -> PathBuf {
    let built = || env!("CARGO_BIN_EXE_ssh-keywatch").into();
    std::env::var_os("SSH_KEYWATCH_PROGRAM").map_or_else(built, PathBuf::from)
}

/// Panics with what is missing to run these tests at all.
fn require() {
    static MISSING: OnceLock<Vec<String>> = OnceLock::new();
    let missing = MISSING.get_or_init(|| {
        let mut missing = Vec::new();
        if !nix::unistd::geteuid().is_root() {
            missing.push("root".to_owned());
        }
        for program in ["unshare", "nsenter", "setpriv", "env", "tail", "cc"] {
            let found = ["/usr/bin", "/bin", "/usr/sbin", "/usr/local/bin"]
                .iter()
                .any(|directory| Path::new(directory).join(program).exists());
            if !found {
                missing.push(format!("the program {program}"));
            }
        }
        if !Path::new("/usr/bin/ssh-keygen").exists() {
            missing.push("/usr/bin/ssh-keygen".to_owned());
        }
        missing
    });
    assert!(
        missing.is_empty(),
        "this test needs {}; tests/run installs the programs",
        missing.join(", ")
    );
}

/// The directory of the small programs, compiled once a run.
fn tools() -> &'static Path {
    static TOOLS: OnceLock<PathBuf> = OnceLock::new();
    TOOLS.get_or_init(|| {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tools");
        fs::create_dir_all(&directory).unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        // Another run may use them meanwhile.
        let fresh = directory.join(format!("fresh{}", std::process::id()));
        let place = |name: &OsStr| fs::rename(&fresh, directory.join(name)).unwrap();
        for source in PROGRAMS {
            let source = root.join(source);
            let output = Output::of(
                Command::new("cc")
                    .args(["-O2", "-Wall", "-Werror", "-static", "-pthread", "-o"])
                    .arg(&fresh)
                    .arg(&source),
                SOON,
            );
            assert!(
                output.status.success(),
                "cannot compile {} (is libc6-dev there?): {}",
                source.display(),
                output.stderr
            );
            place(source.file_stem().unwrap());
        }
        // The same program, and another file.
        fs::copy(directory.join("act"), &fresh).unwrap();
        place(OsStr::new("other"));
        directory
    })
}
