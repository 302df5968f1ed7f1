//! What watching costs, against a bare loop in the same run.
//!
//! `cargo bench --bench latency` (as root). The bare loop is the least a program can do
//! for the same promise: hold the opener, read which executable it is, let it
//! go on, and write a JSON line when the file is closed. Absolute times are
//! this machine's; the ratios are the result.
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
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ssh_keywatch::sys::fanotify::{NotificationGroup, PermissionGroup, mask};

/// Files made in each round.
const FILES: usize = 1000;
/// Rounds of each watcher, in turn.
const ROUNDS: usize = 5;
/// The longest that a line or a start is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    if let [_, flag, dir, log] = args.as_slice()
        && flag == "--bare"
    {
        return bare(Path::new(dir), Path::new(log));
    }
    if !nix::unistd::geteuid().is_root() {
        eprintln!("latency: needs root, for fanotify");
        std::process::exit(77);
    }
    let scratch = tempfile::tempdir_in("/var/tmp")?;
    let watchers = [Watcher::None, Watcher::Bare, Watcher::Daemon];
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

#[derive(Clone, Copy, PartialEq, Eq)]
enum Watcher {
    None,
    Bare,
    Daemon,
}

/// Nanoseconds; medians and 99th percentiles of one round.
#[derive(Clone, Default)]
struct Figures {
    line_p50: f64,
    line_p99: f64,
    create_p50: f64,
    reopen_p50: f64,
    cpu: f64,
}

/// The smallest watcher.
fn bare(dir: &Path, log: &Path) -> io::Result<()> {
    let notification = NotificationGroup::new()?;
    let permission = PermissionGroup::new()?;
    let dir = File::open(dir)?;
    notification.mark_directory(dir.as_fd(), mask::CLOSE_WRITE | mask::EVENT_ON_CHILD)?;
    permission.mark_directory(dir.as_fd(), mask::OPEN_PERM | mask::EVENT_ON_CHILD)?;
    let mut log = OpenOptions::new().append(true).create(true).open(log)?;
    log.write_all(b"{}\n")?;
    let mut buffer = vec![0; 64 * 1024];
    let mut executable = PathBuf::new();
    loop {
        let mut fds = [
            PollFd::new(permission.as_fd(), PollFlags::POLLIN),
            PollFd::new(notification.as_fd(), PollFlags::POLLIN),
        ];
        poll(&mut fds, PollTimeout::NONE)?;
        permission.read(&mut buffer, |record| {
            if let Ok(path) = fs::read_link(format!("/proc/{}/exe", record.pid)) {
                executable = path;
            }
            if let Some(fd) = &record.fd {
                let _ = permission.allow(fd.as_fd());
            }
        })?;
        notification.read(&mut buffer, |record| {
            let name = record.entry.map(|entry| entry.name).unwrap_or_default();
            let line = format!(
                "{{\"file\":{:?},\"pid\":{},\"executable\":{:?}}}\n",
                name.to_string_lossy(),
                record.pid,
                executable
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

/// A running watcher; killed when dropped, so that nobody is held for ever.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(watcher: Watcher, place: &Path, ssh: &Path, log: &Path) -> io::Result<Option<Running>> {
    let mut command = match watcher {
        Watcher::None => return Ok(None),
        Watcher::Bare => {
            let mut command = Command::new(std::env::current_exe()?);
            command.arg("--bare").arg(ssh).arg(log);
            command
        }
        Watcher::Daemon => {
            let rules = place.join("rules");
            fs::create_dir(&rules)?;
            fs::write(rules.join("any.toml"), RULE)?;
            let config = place.join("config.toml");
            let homes = place.join("home/*");
            fs::write(
                &config,
                format!("[watch]\nhomes = [{homes:?}]\nkey_tools = []\n"),
            )?;
            let mut command = Command::new(env!("CARGO_BIN_EXE_ssh-keywatch"));
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
    let log = place.join("log");
    let running = start(watcher, place, &ssh, &log)?;
    let cpu = running.as_ref().map(|running| cpu_time(running.0.id()));
    let (mut lines, mut creates, mut reopens) = (Vec::new(), Vec::new(), Vec::new());
    let mut length = fs::metadata(&log).map_or(0, |metadata| metadata.len());
    for number in 0..FILES {
        let path = ssh.join(format!("id_{number}"));
        let begin = Instant::now();
        let mut file = File::create(&path)?;
        creates.push(begin.elapsed());
        file.write_all(b"key")?;
        drop(file);
        if running.is_some() {
            length = grown(&log, length)?;
            lines.push(begin.elapsed());
        }
    }
    let used = running
        .as_ref()
        .zip(cpu)
        .map(|(running, before)| cpu_time(running.0.id()).saturating_sub(before));
    for _ in 0..FILES {
        let begin = Instant::now();
        let file = File::open(ssh.join("authorized_keys"))?;
        reopens.push(begin.elapsed());
        drop(file);
    }
    Ok(Figures {
        line_p50: quantile(&mut lines, 0.50),
        line_p99: quantile(&mut lines, 0.99),
        create_p50: quantile(&mut creates, 0.50),
        reopen_p50: quantile(&mut reopens, 0.50),
        cpu: used.unwrap_or_default().as_secs_f64() * 1e9 / FILES as f64,
    })
}

/// Processor time of all threads (`/proc/PID/task/TID/schedstat`).
fn cpu_time(pid: u32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
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
    let median = |watcher: usize, pick: fn(&Figures) -> f64| {
        let mut values: Vec<f64> = figures[watcher].iter().map(pick).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2] / 1e3
    };
    println!("{FILES} files a round, medians of {ROUNDS} rounds in turn, microseconds\n");
    println!(
        "{:<34}{:>10}{:>10}{:>10}{:>12}",
        "", "unwatched", "bare loop", "daemon", "daemon/bare"
    );
    let row = |name: &str, pick: fn(&Figures) -> f64| {
        let (none, bare, daemon) = (median(0, pick), median(1, pick), median(2, pick));
        let shown = |value: f64| {
            if value > 0.0 {
                format!("{value:.1}")
            } else {
                "-".to_owned()
            }
        };
        println!(
            "{name:<34}{:>10}{:>10}{:>10}{:>12.2}",
            shown(none),
            shown(bare),
            shown(daemon),
            daemon / bare
        );
    };
    row("creation to log line, p50", |f| f.line_p50);
    row("creation to log line, p99", |f| f.line_p99);
    row("open(O_CREAT) of the writer, p50", |f| f.create_p50);
    row("processor time an event", |f| f.cpu);
    row("open of a settled file, p50", |f| f.reopen_p50);
    let settled = median(2, |f| f.reopen_p50) / median(0, |f| f.reopen_p50);
    println!("\nopen of a settled file, daemon/unwatched: {settled:.2}");
}
