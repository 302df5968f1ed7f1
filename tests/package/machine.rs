//! A container that boots: commands in it, logins to it, its alert log.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::root;

/// How long anything that should come at once may take on a loaded machine.
pub const SOON: Duration = Duration::from_secs(60);
/// No container lives longer.
const LIFE: Duration = Duration::from_secs(420);

pub const LOG: &str = "/var/log/ssh-keywatch/alerts.json";
pub const CONFIG: &str = "/etc/ssh-keywatch/config.toml";

/// Calls `each` with a new cgroup of the name $1 for each hierarchy by which systemd
/// knows its units.
const CGROUPS: &str = r#"
name=$1
shift
cgroups() {
    while IFS=: read -r number kind path; do
        case $number:$kind in
        0:) top=$(findmnt --noheadings --output=TARGET --types=cgroup2 | head -n 1) ;;
        *:name=systemd) top=$(findmnt --noheadings --output=TARGET --options=name=systemd | head -n 1) ;;
        *) continue ;;
        esac
        [ -z "$top" ] || each "$top$path/$name"
    done < /proc/self/cgroup
}
"#;
/// Runs the command that follows the name in them.
const ENTER: &str = r#"
each() {
    mkdir "$1"
    entered="${entered:-} $1"
}
cgroups
for cgroup in ${entered:-}; do echo $$ > "$cgroup/cgroup.procs"; done
exec "$@"
"#;
/// Removes them once nobody is left in them.
const LEAVE: &str = r#"
each() {
    for _ in $(seq 200); do
        find "$1" -depth -type d -exec rmdir {} + 2> /dev/null || true
        [ -e "$1" ] || return 0
        sleep 0.05
    done
    echo "somebody stays in $1" >&2
}
cgroups
"#;

/// A running container. Its first process dies with the container's manager, which
/// dies with the test's thread, at the end of [`LIFE`], or when this is dropped;
/// and with its first process the kernel ends all others. It has cgroups of its own:
/// in those of another one, systemd would take that one's processes for its units'.
pub struct Machine {
    manager: Child,
    /// The container's first process.
    leader: Pid,
    guardian: Option<(Sender<()>, JoinHandle<()>)>,
    root: TempDir,
    name: String,
}

/// What a command left behind.
#[derive(Debug)]
pub struct Output {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self
    }

    /// What it printed, without white space around it.
    #[track_caller]
    pub fn text(self) -> String {
        self.ok().stdout.trim().to_owned()
    }
}

impl Machine {
    /// Boots a copy of the root, to the end of its start.
    pub fn boot() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        // Building it may take longer than a container lives.
        root::package(None);
        let root = root::copy();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("keywatch-{}-{number}", std::process::id());
        let told = root.path().with_extension("notify");
        let socket = UnixDatagram::bind(&told).unwrap();
        let console = File::create(root.path().join("console")).unwrap();
        let manager = Command::new("sh")
            .args(["-euc", &format!("{CGROUPS}{ENTER}"), "sh", &name])
            .args(["setpriv", "--pdeathsig", "KILL", "--"])
            .args(["systemd-nspawn", "--quiet"])
            .args(["--register=no", "--keep-unit", "--boot"])
            .args(["--notify-ready=yes", "--private-network"])
            .arg(format!("--machine={name}"))
            .arg("--capability=CAP_DAC_READ_SEARCH")
            .arg("--system-call-filter=fanotify_init fanotify_mark name_to_handle_at open_by_handle_at perf_event_open pidfd_getfd")
            .arg("--directory")
            .arg(root.path())
            .env("NOTIFY_SOCKET", &told)
            .stdin(Stdio::null())
            .stdout(console.try_clone().unwrap())
            .stderr(console)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run sh: {error}"));
        let mut machine = Self {
            guardian: Some(guard(Pid::from_raw(manager.id().cast_signed()))),
            manager,
            leader: Pid::from_raw(0),
            root,
            name,
        };
        machine.wait_ready(&socket);
        fs::remove_file(&told).unwrap();
        // What systemd does on a host, but not in a container.
        machine
            .sh("mount -t tracefs tracefs /sys/kernel/tracing")
            .ok();
        machine
    }

    fn wait_ready(&mut self, socket: &UnixDatagram) {
        let until = Instant::now() + SOON;
        socket
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        let mut bytes = [0; 4096];
        loop {
            match socket.recv(&mut bytes) {
                Ok(count) => {
                    let text = String::from_utf8_lossy(&bytes[..count]);
                    for line in text.lines() {
                        if let Some(pid) = line.strip_prefix("X_NSPAWN_LEADER_PID=") {
                            self.leader = Pid::from_raw(pid.parse().unwrap());
                        }
                    }
                    if text.lines().any(|line| line == "READY=1") && self.leader.as_raw() != 0 {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("cannot read the manager's socket: {error}"),
            }
            let ended = self.manager.try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < until,
                "the container does not boot ({ended:?}):\n{}",
                fs::read_to_string(self.path("/console")).unwrap_or_default()
            );
        }
    }

    /// A path of the container as this process reaches it.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    /// A shell command in it, as root.
    #[track_caller]
    pub fn sh(&self, script: &str) -> Output {
        let bound = SOON.as_secs().to_string();
        let output = Command::new("timeout")
            .args(["--kill-after=1", &bound, "nsenter"])
            .arg(format!("--target={}", self.leader))
            .args(["--mount", "--uts", "--ipc", "--net", "--pid", "--"])
            .args(["env", "-i", "HOME=/root", "LANG=C.UTF-8", "TERM=dumb"])
            .args(["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "SYSTEMD_PAGER="])
            .args(["DEBIAN_FRONTEND=noninteractive", "sh", "-euc", script])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        Output {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Installs a package with dpkg.
    #[track_caller]
    pub fn dpkg(&self, package: &Path) -> Output {
        fs::copy(package, self.path("/root/package.deb")).unwrap();
        self.sh("dpkg --install /root/package.deb")
    }

    /// Makes an account that can log in with a key; it has no `.ssh`.
    #[track_caller]
    pub fn account(&self, name: &str) {
        self.sh(&format!(
            "mkdir -p /etc/keys /root/client
             [ -e /root/client/id ] || ssh-keygen -q -t ed25519 -N '' -f /root/client/id
             useradd --create-home --shell /bin/bash {name}
             cp /root/client/id.pub /etc/keys/{name}
             chmod 644 /etc/keys/{name}
             echo 'AuthorizedKeysFile /etc/keys/%u' > /etc/ssh/sshd_config.d/keys.conf
             systemctl restart ssh"
        ))
        .ok();
    }

    /// Logs in through sshd and runs a command there.
    #[track_caller]
    pub fn login(&self, name: &str, command: &str) -> Output {
        let mut output = self.sh(&login(name, command));
        // Of a login that failed, or of a command that a signal ended, ssh says nothing.
        if output.code == Some(255) {
            let journal = self.sh("journalctl --no-pager --lines=60").stdout;
            output.stderr += &journal;
        }
        output
    }

    /// A property of the unit.
    #[track_caller]
    pub fn property(&self, name: &str) -> String {
        self.sh(&format!(
            "systemctl show --value --property={name} ssh-keywatch"
        ))
        .text()
    }

    /// The daemon's pid in the container, if it runs.
    #[track_caller]
    pub fn pid(&self) -> Option<u32> {
        let pid = self.property("MainPID").parse().unwrap();
        (pid != 0).then_some(pid)
    }

    /// Waits until something holds.
    #[track_caller]
    pub fn wait(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let until = Instant::now() + SOON;
        while !holds() {
            if Instant::now() > until {
                let journal = self.sh("journalctl --no-pager --lines=60").stdout;
                panic!("no {what} in {SOON:?}; the journal:\n{journal}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The alert log.
    pub fn log(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path(LOG)).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Waits for the alert on a file.
    #[track_caller]
    pub fn alert(&self, path: &str) -> Value {
        let mut found = None;
        self.wait(&format!("alert on {path}"), || {
            found = self.log().into_iter().find(|document| {
                document["event"]["kind"] == "alert" && document["file"]["path"] == path
            });
            found.is_some()
        });
        found.unwrap()
    }

    /// The state documents of an action.
    pub fn states(&self, action: &str) -> Vec<Value> {
        let mut log = self.log();
        log.retain(|line| line["event"]["kind"] == "state" && line["event"]["action"] == action);
        log
    }

    /// Makes a key in a login, and waits for its alert.
    #[track_caller]
    pub fn alert_on_key(&self, name: &str, file: &str) -> Value {
        self.login(name, &keygen(file)).ok();
        self.alert(&format!("/home/{name}/.ssh/{file}"))
    }
}

/// The command that logs in through sshd.
pub fn login(name: &str, command: &str) -> String {
    format!(
        "ssh -i /root/client/id -o BatchMode=yes -o StrictHostKeyChecking=no \
         -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR {name}@127.0.0.1 '{command}'"
    )
}

/// The command that makes a key in `.ssh`.
pub fn keygen(file: &str) -> String {
    format!("ssh-keygen -q -t ed25519 -N \"\" -f ~/.ssh/{file}")
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.manager.kill();
        let _ = self.manager.wait();
        if self.leader.as_raw() > 1 {
            let _ = kill(self.leader, Signal::SIGKILL);
        }
        if let Some((rest, thread)) = self.guardian.take() {
            drop(rest);
            let _ = thread.join();
        }
        let _ = Command::new("sh")
            .args(["-euc", &format!("{CGROUPS}{LEAVE}"), "sh", &self.name])
            .status();
    }
}

/// Kills the manager unless it is told in time that there is no need.
fn guard(manager: Pid) -> (Sender<()>, JoinHandle<()>) {
    let (rest, told) = channel::<()>();
    let thread = std::thread::spawn(move || {
        if told.recv_timeout(LIFE) == Err(RecvTimeoutError::Timeout) {
            eprintln!("the container has not ended within {LIFE:?} and is killed");
            let _ = kill(manager, Signal::SIGKILL);
        }
    });
    (rest, thread)
}
