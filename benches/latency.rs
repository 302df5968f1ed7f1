//! What watching costs, against a bare loop in the same run.
//!
//! `cargo bench --bench latency` (as root). The loop that only allows is the floor:
//! it holds the opener, reads nothing of it and lets it go on, and writes a JSON
//! line when the file is closed. The bare loop reads the name of the executable
//! besides; it would name the wrong program now and then. The loop that
//! identifies is the least that would not. All hold the exec of the key tool, too.
//! Absolute times are this machine's; the ratios are the result.
#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::unnecessary_debug_formatting,
    reason = "figures are rounded for people, and Debug quotes as JSON and TOML do"
)]

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use ssh_keywatch::sys::fanotify::{NotificationGroup, PermissionGroup, mask};

/// Files made in each round.
const FILES: usize = 1000;
/// Keys made by ssh-keygen in each round: of the kind that takes it the shortest time,
/// and with a passphrase, whose stretching takes it a hundred milliseconds.
const KEYS: [(usize, &str); 2] = [(50, ""), (8, "a passphrase")];
/// Processes that run another program in each round.
const EXECS: u32 = 2000;
/// The name of the key tool.
const KEYGEN: &str = "ssh-keygen";
/// Rounds of each watcher, in turn.
const ROUNDS: usize = 5;
/// The longest that a line or a start is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    if let [_, flag, dir, log, tool] = args.as_slice() {
        let places = [dir, log, tool].map(Path::new);
        match flag.as_str() {
            "--allow" => return hold(places, |_| String::new()),
            "--bare" => return hold(places, |pid| executable(pid).unwrap_or_default()),
            "--identify" => return hold(places, identify),
            _ => {}
        }
    }
    if !nix::unistd::geteuid().is_root() {
        eprintln!("latency: needs root, for fanotify");
        std::process::exit(77);
    }
    run_in_memory()?;
    let scratch = tempfile::tempdir_in("/var/tmp")?;
    let watchers = Watcher::ALL;
    let mut figures: Vec<Vec<Figures>> = vec![Vec::new(); watchers.len()];
    for round in 0..ROUNDS {
        for (index, watcher) in watchers.iter().enumerate() {
            let place = scratch.path().join(format!("{round}-{index}"));
            figures[index].push(measure(*watcher, &place)?);
        }
    }
    print(&figures);
    Ok(())
}

/// As on any host that systemd has booted, `/run` lies in memory; here only for
/// us, in a mount namespace.
fn run_in_memory() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none)?;
    mount(
        none,
        "/run",
        Some("tmpfs"),
        MsFlags::empty(),
        Some("mode=755"),
    )?;
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Watcher {
    /// Nobody watches.
    None,
    /// Holds, and reads nothing.
    Allow,
    /// Holds, and reads which executable it is.
    Bare,
    /// Holds, and reads who it is for certain.
    Identify,
    Daemon,
}

impl Watcher {
    const ALL: [Self; 5] = [
        Self::None,
        Self::Allow,
        Self::Bare,
        Self::Identify,
        Self::Daemon,
    ];
}

/// Nanoseconds; medians and 99th percentiles of one round.
#[derive(Clone, Default)]
struct Figures {
    line_p50: f64,
    line_p99: f64,
    create_p50: f64,
    spaced_p50: f64,
    reopen_p50: f64,
    elsewhere_p50: f64,
    /// For each of [`KEYS`]: of the time that unwatched runs in turn with them take;
    /// not nanoseconds.
    keygen: [f64; 2],
    storm: f64,
    cpu: f64,
}

fn executable(pid: i32) -> Option<String> {
    let path = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    Some(path.display().to_string())
}

/// The least that names a held process for certain: which file it runs, since
/// when it lives, whose it is, how it was called, and that it slept in the hold
/// all the while.
fn identify(pid: i32) -> String {
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let path = executable(pid).unwrap_or_default();
    let file = fs::metadata(format!("/proc/{pid}/exe"));
    let file = file.map_or((0, 0), |file| (file.dev(), file.ino()));
    let stat = read("stat");
    let start = stat.rsplit(' ').nth(30).unwrap_or_default();
    let status = read("status");
    let user = status.lines().find(|line| line.starts_with("Uid:"));
    let args = read("cmdline");
    let sure = read("wchan").starts_with("fanotify");
    format!("{path} {file:?} {start} {user:?} {args:?} {sure}")
}

/// The smallest watcher: `identify` says who is held.
fn hold([dir, log, tool]: [&Path; 3], identify: fn(i32) -> String) -> io::Result<()> {
    let notification = NotificationGroup::new()?;
    let permission = PermissionGroup::new()?;
    // As the daemon's answering thread has it.
    let _ = ssh_keywatch::sys::thread::real_time(1);
    let dir = File::open(dir)?;
    notification.mark_directory(dir.as_fd(), mask::CLOSE_WRITE | mask::EVENT_ON_CHILD)?;
    permission.mark_directory(dir.as_fd(), mask::OPEN_PERM | mask::EVENT_ON_CHILD)?;
    permission.mark_object(File::open(tool)?.as_fd(), mask::OPEN_EXEC_PERM)?;
    let mut log = OpenOptions::new().append(true).create(true).open(log)?;
    log.write_all(b"{}\n")?;
    let mut buffer = vec![0; 64 * 1024];
    let mut who = String::new();
    loop {
        let mut fds = [
            PollFd::new(permission.as_fd(), PollFlags::POLLIN),
            PollFd::new(notification.as_fd(), PollFlags::POLLIN),
        ];
        poll(&mut fds, PollTimeout::NONE)?;
        permission.read(&mut buffer, |record| {
            who = identify(record.pid);
            if let Some(fd) = &record.fd {
                let _ = permission.allow(fd.as_fd());
            }
        })?;
        notification.read(&mut buffer, |record| {
            let name = record.entry.map(|entry| entry.name).unwrap_or_default();
            let line = format!(
                "{{\"file\":{:?},\"pid\":{},\"who\":{:?}}}\n",
                name.to_string_lossy(),
                record.pid,
                who
            );
            let _ = log.write_all(line.as_bytes());
        })?;
    }
}

const RULE: &str = r#"
[metadata]
maturity = "production"
[rule]
author = ["bench"]
description = "Every creation."
name = "Any creation"
risk_score = 21
rule_id = "00000000-0000-4000-8000-000000000001"
severity = "low"
max_signals = 100000
type = "eql"
language = "eql"
query = 'file where event.action == "creation" and process.executable != null'
"#;

/// Whatever becomes of this process, nobody is held for long.
fn guarded(program: &Path) -> Command {
    let mut command = Command::new("timeout");
    command
        .args(["--foreground", "-s", "KILL", "120"])
        .arg(program);
    command
}

/// A running watcher below its guardian, which hands on SIGTERM; ended when dropped,
/// so that nobody is held for ever.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let guardian = nix::unistd::Pid::from_raw(self.0.id().cast_signed());
        let _ = nix::sys::signal::kill(guardian, nix::sys::signal::Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

fn start(watcher: Watcher, place: &Path, ssh: &Path, log: &Path) -> io::Result<Option<Running>> {
    let looping = |how: &str| -> io::Result<Command> {
        let mut command = guarded(&std::env::current_exe()?);
        command.arg(how).arg(ssh).arg(log).arg(place.join(KEYGEN));
        Ok(command)
    };
    let mut command = match watcher {
        Watcher::None => return Ok(None),
        Watcher::Allow => looping("--allow")?,
        Watcher::Bare => looping("--bare")?,
        Watcher::Identify => looping("--identify")?,
        Watcher::Daemon => {
            let rules = place.join("rules");
            fs::create_dir(&rules)?;
            fs::write(rules.join("any.toml"), RULE)?;
            let config = place.join("config.toml");
            let homes = place.join("home/*");
            fs::write(
                &config,
                format!(
                    "[watch]\nhomes = [{homes:?}]\nkey_tools = [{:?}]\nhome_events = 1000000\n",
                    place.join(KEYGEN)
                ),
            )?;
            let mut command = guarded(Path::new(env!("CARGO_BIN_EXE_ssh-keywatch")));
            command
                .arg("--config")
                .arg(config)
                .arg("--rules")
                .arg(rules)
                .args(["run", "--no-journal", "--stdout", "none", "--log"])
                .arg(log)
                .arg("--state")
                .arg(place.join("state"));
            command
        }
    };
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0);
    let running = Running(command.spawn()?);
    // The first line says that it watches.
    grown(log, 0)?;
    Ok(Some(running))
}

/// Waits until the log is longer than `length`; returns its length.
fn grown(log: &Path, length: u64) -> io::Result<u64> {
    let start = Instant::now();
    loop {
        let now = fs::metadata(log).map_or(0, |metadata| metadata.len());
        if now > length {
            return Ok(now);
        }
        if start.elapsed() > PATIENCE {
            return Err(io::Error::other("no line came"));
        }
        std::hint::spin_loop();
    }
}

fn measure(watcher: Watcher, place: &Path) -> io::Result<Figures> {
    let ssh = place.join("home/ann/.ssh");
    fs::create_dir_all(&ssh)?;
    fs::write(ssh.join("authorized_keys"), b"x")?;
    let elsewhere = place.join("elsewhere");
    fs::write(&elsewhere, b"x")?;
    // The machine's own is not held.
    let free = place.join("free");
    for tool in [&place.join(KEYGEN), &free] {
        fs::copy("/usr/bin/ssh-keygen", tool)?;
    }
    let log = place.join("log");
    let running = start(watcher, place, &ssh, &log)?;
    // First, while both directories are small.
    let unwatched = place.join("unwatched");
    fs::create_dir(&unwatched)?;
    let mut keygen = [0.0; 2];
    for (ratio, (count, passphrase)) in keygen.iter_mut().zip(KEYS) {
        let (mut keygens, mut free_keygens) = (Vec::new(), Vec::new());
        for number in 0..count {
            // In turn, for a machine is now faster, now slower; with time for what
            // comes of the one before.
            for (tool, dir, times) in [
                (place.join(KEYGEN), &ssh, &mut keygens),
                (free.clone(), &unwatched, &mut free_keygens),
            ] {
                std::thread::sleep(Duration::from_millis(10));
                times.push(run(Command::new(tool)
                    .args(["-q", "-t", "ed25519", "-N", passphrase, "-f"])
                    .arg(dir.join(format!("key_{count}_{number}"))))?);
            }
        }
        *ratio = quantile(&mut keygens, 0.50) / quantile(&mut free_keygens, 0.50);
    }
    let (mut lines, mut creates, mut spaced) = (Vec::new(), Vec::new(), Vec::new());
    let mut length = fs::metadata(&log).map_or(0, |metadata| metadata.len());
    let mut create = |path: &Path, times: &mut Vec<Duration>| -> io::Result<()> {
        let begin = Instant::now();
        let mut file = File::create(path)?;
        times.push(begin.elapsed());
        file.write_all(b"key")?;
        drop(file);
        if running.is_some() {
            length = grown(&log, length)?;
            lines.push(begin.elapsed());
        }
        Ok(())
    };
    let cpu = running.as_ref().map(|running| cpu_time(running.0.id()));
    for number in 0..FILES {
        create(&ssh.join(format!("id_{number}")), &mut creates)?;
    }
    let used = running
        .as_ref()
        .zip(cpu)
        .map(|(running, before)| cpu_time(running.0.id()).saturating_sub(before));
    // Each on its own, as keys are made: the one before has been dealt with.
    for number in 0..FILES / 4 {
        std::thread::sleep(Duration::from_millis(3));
        create(&ssh.join(format!("spaced_{number}")), &mut spaced)?;
    }
    let reopens = opens(&ssh.join("authorized_keys"))?;
    let elsewhere = opens(&elsewhere)?;
    let storm = run(Command::new("/bin/sh").arg("-c").arg(format!(
        "i=0; while [ $i -lt {EXECS} ]; do /bin/true; i=$((i + 1)); done"
    )))?;
    Ok(Figures {
        line_p50: quantile(&mut lines, 0.50),
        line_p99: quantile(&mut lines, 0.99),
        create_p50: quantile(&mut creates, 0.50),
        spaced_p50: quantile(&mut spaced, 0.50),
        reopen_p50: quantile(&mut { reopens }, 0.50),
        elsewhere_p50: quantile(&mut { elsewhere }, 0.50),
        keygen,
        storm: storm.as_secs_f64() * 1e9 / f64::from(EXECS),
        cpu: used.unwrap_or_default().as_secs_f64() * 1e9 / FILES as f64,
    })
}

/// How long it takes to open a file that is there.
fn opens(path: &Path) -> io::Result<Vec<Duration>> {
    let mut times = Vec::new();
    for _ in 0..FILES {
        let begin = Instant::now();
        let file = File::open(path)?;
        times.push(begin.elapsed());
        drop(file);
    }
    Ok(times)
}

fn run(command: &mut Command) -> io::Result<Duration> {
    let begin = Instant::now();
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()?;
    if status.success() {
        Ok(begin.elapsed())
    } else {
        Err(io::Error::other(format!("{command:?}: {status}")))
    }
}

/// Processor time of all threads of the only child (`/proc/PID/task/TID/schedstat`).
fn cpu_time(guardian: u32) -> Duration {
    let children = fs::read_to_string(format!("/proc/{guardian}/task/{guardian}/children"));
    let pid = children.unwrap_or_default();
    let tasks = fs::read_dir(format!("/proc/{}/task", pid.trim()))
        .into_iter()
        .flatten();
    let nanos: u64 = tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join(OsStr::new("schedstat"))).ok())
        .filter_map(|text| text.split(' ').next()?.parse::<u64>().ok())
        .sum();
    Duration::from_nanos(nanos)
}

fn quantile(times: &mut [Duration], part: f64) -> f64 {
    if times.is_empty() {
        return 0.0;
    }
    times.sort();
    let index = ((times.len() - 1) as f64 * part).round() as usize;
    times[index].as_secs_f64() * 1e9
}

fn print(figures: &[Vec<Figures>]) {
    let medians = |pick: fn(&Figures) -> f64| {
        [0, 1, 2, 3, 4].map(|watcher: usize| {
            let mut values: Vec<f64> = figures[watcher].iter().map(pick).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        })
    };
    println!("{FILES} files a round, medians of {ROUNDS} rounds in turn, microseconds\n");
    println!(
        "{:<34}{:>10}{:>10}{:>10}{:>10}{:>10}{:>11}{:>11}{:>11}",
        "", "unwatched", "allow", "bare", "identify", "daemon", "/unwatched", "/bare", "/identify"
    );
    let row = |name: &str, pick: fn(&Figures) -> f64| {
        let [none, allow, bare, identify, daemon] = medians(pick).map(|nanos| nanos / 1e3);
        let shown = |value: f64, digits: usize| {
            if value > 0.0 && value.is_finite() {
                format!("{value:.digits$}")
            } else {
                "-".to_owned()
            }
        };
        println!(
            "{name:<34}{:>10}{:>10}{:>10}{:>10}{:>10}{:>11}{:>11}{:>11}",
            shown(none, 1),
            shown(allow, 1),
            shown(bare, 1),
            shown(identify, 1),
            shown(daemon, 1),
            shown(daemon / none, 2),
            shown(daemon / bare, 2),
            shown(daemon / identify, 2),
        );
    };
    row("creation to log line, p50", |f| f.line_p50);
    row("creation to log line, p99", |f| f.line_p99);
    row("open(O_CREAT) on its own, p50", |f| f.spaced_p50);
    row("open(O_CREAT) in a burst, p50", |f| f.create_p50);
    row("open of a settled file, p50", |f| f.reopen_p50);
    row("open of a file elsewhere, p50", |f| f.elsewhere_p50);
    row("an exec in a storm of them", |f| f.storm);
    row("processor time an event", |f| f.cpu);
    println!("\nssh-keygen's own run time, of unwatched runs in turn");
    let row = |name: &str, pick: fn(&Figures) -> f64| {
        let [none, allow, bare, identify, daemon] = medians(pick);
        println!(
            "{name:<34}{none:>10.2}{allow:>10.2}{bare:>10.2}{identify:>10.2}{daemon:>10.2}{:>11}{:>11.2}{:>11.2}",
            "",
            daemon / bare,
            daemon / identify
        );
    };
    row("ed25519, no passphrase", |f| f.keygen[0]);
    row("ed25519, with a passphrase", |f| f.keygen[1]);
}
