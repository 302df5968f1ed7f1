//! The process table against the real kernel: programs that open nothing, act
//! and are gone, each of which must be named rightly or not at all.
//!
//! Needs root, and a C compiler for `tests/proctable/workload.c`. Watches
//! directories of its own only; the daemon is killed by timeout(1) whatever
//! happens to the test.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Of each case; `PROCTABLE_RUNS` sets another number, 300 for figures to quote.
const RUNS: usize = 15;
const PATIENCE: Duration = Duration::from_secs(20);

/// What a case may end in.
#[derive(Debug, Default)]
struct Tally {
    right: usize,
    ambiguous: usize,
    wrong: usize,
    unattributed: usize,
}

struct Daemon {
    guardian: Child,
    lines: Receiver<Value>,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // timeout(1) hands SIGTERM on, and SIGKILL a second later.
        let _ = Command::new("kill")
            .arg(self.guardian.id().to_string())
            .status();
        let _ = self.guardian.wait();
    }
}

/// A process that keeps a processor busy.
struct Busy(Child);

impl Busy {
    /// `what` is a shell's command, done over and over.
    fn start(what: &str) -> Self {
        let child = Command::new("timeout")
            .args(["-k", "1", "600", "sh", "-c"])
            .arg(format!("while :; do {what}; done"))
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

struct Bench {
    // Ends before its directory does.
    daemon: Daemon,
    dir: tempfile::TempDir,
    /// Whether this kernel says anything about the moment of an act.
    timed: bool,
    /// On which processor what no shell starts runs.
    processor: Option<String>,
}

impl Bench {
    fn start() -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "this test watches with fanotify: run it as root"
        );
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["home/ann/.ssh", "from", "state", "rules"] {
            std::fs::create_dir_all(at(name)).unwrap();
        }
        let workload = at("workload");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/proctable/workload.c");
        let compiled = Command::new("cc")
            .args(["-static", "-O1", "-o"])
            .arg(&workload)
            .arg(source)
            .status()
            .expect("cc is needed");
        assert!(compiled.success());
        std::fs::copy(&workload, at("other")).unwrap();
        std::fs::write(at("rules/all.toml"), RULE).unwrap();
        let config = format!(
            "[watch]\nhomes = [\"{0}/home/*\"]\ndirectories = []\nkey_tools = []\n\
             [log]\nfile = \"{0}/alerts.json\"\ngroup = \"root\"\n\
             [state]\ndirectory = \"{0}/state\"\n[output]\nstdout = \"json\"\n",
            dir.path().display()
        );
        std::fs::write(at("config.toml"), config).unwrap();
        let mut guardian = Command::new("timeout")
            .args(["-k", "1", "600", env!("CARGO_BIN_EXE_ssh-keywatch"), "run"])
            .args(["--no-journal", "--config"])
            .arg(at("config.toml"))
            .arg("--rules")
            .arg(at("rules"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel::<Value>();
        let stdout = BufReader::new(guardian.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if let Ok(value) = serde_json::from_str(&line)
                    && sender.send(value).is_err()
                {
                    return;
                }
            }
        });
        let mut stderr = BufReader::new(guardian.stderr.take().unwrap());
        let mut said = String::new();
        while !said.contains("watching\n") {
            let count = stderr.read_line(&mut said).unwrap();
            assert!(count > 0, "the daemon did not start:\n{said}");
        }
        std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::stderr()));
        let start: Value = lines.recv_timeout(PATIENCE).expect("a line at the start");
        let table = start.pointer("/ssh_keywatch/coverage/process_table");
        let moments = table.and_then(|table| table.get("moments")).unwrap();
        eprintln!("moments: {moments}");
        Self {
            timed: moments != "none",
            processor: None,
            dir,
            daemon: Daemon { guardian, lines },
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The alert about `path`.
    fn alert(&self, path: &Path) -> Option<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.daemon.lines.recv_timeout(left).ok()?;
            let named = line.pointer("/file/path").or(line.get("file.path"));
            if named.and_then(Value::as_str).map(Path::new) == Some(path) {
                return Some(line);
            }
        }
    }

    /// Runs `how` so many times, from a shell that forks for it or from here.
    fn case(&self, how: &str, shell: bool, load: &str) -> Tally {
        let workload = self.at("workload");
        let truth = std::fs::metadata(&workload).unwrap();
        let mut tally = Tally::default();
        let runs = std::env::var("PROCTABLE_RUNS").map_or(RUNS, |runs| runs.parse().unwrap());
        for run in 0..runs {
            let name = format!("{load}.{how}.{shell}.{run}");
            let source = if how == "tmpfile" {
                self.at("home/ann/.ssh")
            } else {
                let source = self.at("from").join(&name);
                std::fs::write(&source, "key\n").unwrap();
                source
            };
            let target = self.at("home/ann/.ssh").join(&name);
            let pid = if shell {
                let mut sh = Command::new("sh")
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .spawn()
                    .unwrap();
                let line = format!(
                    "{} {how} {} {} {}\n",
                    workload.display(),
                    source.display(),
                    target.display(),
                    self.at("other").display()
                );
                sh.stdin.take().unwrap().write_all(line.as_bytes()).unwrap();
                sh.wait_with_output().unwrap().stdout
            } else {
                let mut command = match &self.processor {
                    None => Command::new(&workload),
                    Some(processor) => {
                        let mut command = Command::new("taskset");
                        command.args(["-c", processor]).arg(&workload);
                        command
                    }
                };
                command
                    .arg(how)
                    .args([&source, &target, &self.at("other")])
                    .stderr(Stdio::null())
                    .output()
                    .unwrap()
                    .stdout
            };
            let said = String::from_utf8(pid).unwrap();
            let pid: u64 = said
                .trim()
                .parse()
                .unwrap_or_else(|_| panic!("{how}: {said:?}"));
            let alert = self
                .alert(&target)
                .unwrap_or_else(|| panic!("{how} {run} was not seen"));
            tally.count(&alert, pid, &workload, truth.ino());
        }
        tally
    }
}

impl Tally {
    fn count(&mut self, alert: &Value, pid: u64, program: &Path, inode: u64) {
        let field = |path: &str| alert.pointer(path).cloned().unwrap_or_default();
        let certain = field("/ssh_keywatch/attribution/certain") == Value::Bool(true);
        let executable = field("/process/executable");
        let pid_is_right = field("/process/pid").as_u64() == Some(pid);
        let named = executable.as_str().map(Path::new);
        let candidates = field("/ssh_keywatch/attribution/candidates").to_string();
        if named == Some(program) && pid_is_right {
            let attributed = field("/ssh_keywatch/attribution/inode").as_u64();
            assert!(attributed.is_none_or(|attributed| attributed == inode));
            self.right += 1;
        } else if named.is_some() || certain {
            eprintln!("wrong: {alert}");
            self.wrong += 1;
        } else if candidates.contains(program.to_str().unwrap()) {
            self.ambiguous += 1;
        } else {
            if self.unattributed == 0 {
                eprintln!("unattributed: {}", field("/ssh_keywatch/attribution"));
            }
            self.unattributed += 1;
        }
    }
}

const RULE: &str = r#"
[rule]
author = ["test"]
description = "all"
language = "eql"
license = "MIT"
name = "All"
risk_score = 1
max_signals = 1000000
rule_id = "00000000-0000-4000-8000-000000000001"
severity = "low"
type = "eql"
query = 'file where true'
"#;

/// Programs that end with the act.
const PLAIN: [&str; 7] = [
    "rename",
    "link",
    "symlink",
    "tmpfile",
    "fork-rename",
    "fork-link",
    "fork-symlink",
];
/// Programs that run another one right after the act.
const ADVERSARIES: [&str; 2] = ["exec-after", "fork-exec-after"];

/// One at a time: processors come and go for all.
static ALONE: Mutex<()> = Mutex::new(());

/// The last processor; it is there again when this is dropped.
struct Processor(String);

impl Processor {
    fn last() -> Self {
        let list = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap();
        let last = list.trim().rsplit([',', '-']).next().unwrap();
        Self(last.to_owned())
    }

    fn switch(&self, on: bool) -> std::io::Result<()> {
        let path = format!("/sys/devices/system/cpu/cpu{}/online", self.0);
        std::fs::write(path, if on { "1" } else { "0" })
    }
}

impl Drop for Processor {
    fn drop(&mut self) {
        let _ = self.switch(true);
    }
}

/// Its ring is dead then, and nothing in the list of processors says so.
#[test]
fn what_runs_on_a_processor_that_has_been_away_is_not_laid_to_others() {
    let _alone = ALONE.lock();
    let mut bench = Bench::start();
    let processor = Processor::last();
    if let Err(error) = processor.switch(false) {
        eprintln!("NOT TRIED: processor {} stays ({error})", processor.0);
        return;
    }
    processor.switch(true).unwrap();
    bench.processor = Some(processor.0.clone());
    let first = bench.case("rename", false, "back");
    eprintln!("a processor that is back: {first:?}");
    assert_eq!(first.wrong, 0);
    // Its ring is opened again.
    let then = bench.case("link", false, "back");
    assert!(then.wrong == 0 && then.right > 0, "{then:?}");
}

#[test]
fn nobody_is_named_wrongly() {
    let _alone = ALONE.lock();
    let bench = Bench::start();
    let mut wrong = 0;
    for (load, command) in [
        ("idle", None),
        ("busy", Some(":")),
        ("storm", Some("/bin/true")),
    ] {
        let busy: Vec<Busy> = command
            .map(|command| [Busy::start(command), Busy::start(command)])
            .into_iter()
            .flatten()
            .collect();
        let mut plain = Tally::default();
        for how in PLAIN.iter().chain(&ADVERSARIES) {
            for shell in [false, true] {
                let tally = bench.case(how, shell, load);
                eprintln!("{load}, {how}, from a shell {shell}: {tally:?}");
                wrong += tally.wrong;
                if PLAIN.contains(how) {
                    assert_eq!(tally.unattributed, 0, "{how}: {tally:?}");
                    plain.ambiguous += tally.ambiguous;
                    plain.right += tally.right;
                }
            }
        }
        // Where the kernel tells when they acted, doubt is the exception.
        assert!(
            !bench.timed || plain.ambiguous * 10 <= plain.right,
            "{load}: {plain:?}"
        );
        drop(busy);
    }
    assert_eq!(wrong, 0);
}
