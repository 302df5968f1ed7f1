//! The alert log and the terminal.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;

use nix::sys::signal::Signal;

use crate::daemon::{Daemon, LOG};
use crate::document::{ANY, Document, SEED, any_creation};
use crate::follow::Follow;
use crate::host::{ANN, Host, PROGRAM, ROOT};
use crate::process::SOON;

/// Makes a key of ann's and waits for its alerts.
#[track_caller]
fn key(host: &Host, daemon: &Daemon<'_>, name: &str) -> Document {
    let path = ANN.ssh(name);
    host.keygen(ANN, "ed25519").args(["-f", &path]).ok();
    daemon.alert(SEED, &format!("{path}.pub"));
    daemon.alert(SEED, &path)
}

#[track_caller]
fn wait_for(lines: &Follow<String>, part: &str) {
    let is = |line: &String| line.contains(part);
    let seen = lines.wait(SOON, |lines| lines.iter().any(is).then_some(()));
    assert!(seen.is_some(), "no {part:?} in {:#?}", lines.so_far());
}

fn host() -> Host {
    let host = Host::new();
    host.sh(ANN, "mkdir -m 700 .ssh").ok();
    host
}

#[test]
fn the_log_and_its_directories_are_made_for_root_and_adm_to_read() {
    let host = host();
    let log = "/var/log/deep/below/alerts.json";
    let daemon = host.daemon().log(log).start();
    key(&host, &daemon, "id");
    daemon.stop();
    let meta = host.path(log).metadata().unwrap();
    assert_eq!(meta.mode() & 0o7777, 0o640);
    assert_eq!(meta.uid(), 0);
    let groups = std::fs::read_to_string(host.path("/etc/group")).unwrap();
    let adm = groups
        .lines()
        .find(|line| line.starts_with("adm:"))
        .unwrap();
    assert_eq!(adm.split(':').nth(2).unwrap(), meta.gid().to_string());
    let directory = host.path("/var/log/deep").metadata().unwrap();
    assert_eq!(directory.permissions().mode() & 0o7, 0, "closed to others");
}

#[test]
fn a_start_appends_to_the_log_that_is_there() {
    let host = host();
    let first = host.daemon().start();
    key(&host, &first, "id_first");
    let before = first.stop().log.len();
    let second = host.daemon().start();
    key(&host, &second, "id_second");
    let ended = second.stop();
    assert_eq!(ended.alerts(SEED).len(), 4);
    assert!(ended.log.len() > before);
    let states: Vec<&str> = ended
        .log
        .iter()
        .filter(|document| document.is("event.kind", "state"))
        .map(|document| document.text("event.action"))
        .collect();
    assert_eq!(states, ["start", "stop", "start", "stop"]);
}

#[test]
fn a_line_torn_by_a_crash_is_set_aside_and_said() {
    let host = host();
    let whole = r#"{"event":{"kind":"alert"}}"#;
    let torn = r#"{"event":{"kind":"al"#;
    host.write(LOG, format!("{whole}\n{torn}"));
    let daemon = host.daemon().start();
    let note = daemon.line("word about the torn line", |document| {
        document.is("event.kind", "pipeline_error") && document.text("message").contains("torn")
    });
    assert!(note.text("message").contains(LOG), "{}", note.brief());
    key(&host, &daemon, "id");
    let ended = daemon.stop();
    assert_eq!(ended.log[0].0.to_string(), whole);
    assert_eq!(ended.alerts(SEED).len(), 2);
    let aside = std::fs::read_to_string(host.path(&format!("{LOG}.torn"))).unwrap();
    assert_eq!(aside, format!("{torn}\n"), "nothing is thrown away");
}

#[test]
fn a_log_that_is_rotated_away_is_made_anew() {
    let host = host();
    let daemon = host.daemon().start();
    key(&host, &daemon, "id_before");
    host.sh(ROOT, &format!("mv {LOG} {LOG}.1")).ok();
    key(&host, &daemon, "id_after");
    let ended = daemon.stop();
    assert_eq!(
        ended.paths(SEED),
        [ANN.ssh("id_after"), ANN.ssh("id_after.pub")]
    );
    let old = std::fs::read_to_string(host.path(&format!("{LOG}.1"))).unwrap();
    let old: Vec<Document> = old.lines().map(Document::parse).collect();
    let alerts = old.iter().filter(|document| document.is_alert());
    assert_eq!(alerts.count(), 2);
    let mode = host.path(LOG).metadata().unwrap().mode();
    assert_eq!(mode & 0o7777, 0o640);
}

#[test]
fn sighup_opens_the_log_anew() {
    let host = host();
    let daemon = host.daemon().start();
    key(&host, &daemon, "id_before");
    host.sh(ROOT, &format!("mv {LOG} {LOG}.1")).ok();
    daemon.signal(Signal::SIGHUP);
    // Said in the new file, before anything else is to be written.
    daemon.line("reload", |document| document.is_state("reload"));
    let ended = daemon.stop();
    assert_eq!(ended.alerts(SEED).len(), 0);
    let old = std::fs::read_to_string(host.path(&format!("{LOG}.1"))).unwrap();
    assert!(!old.contains("reload"), "{old}");
}

#[test]
fn a_log_that_cannot_be_written_is_an_error_at_the_start() {
    let host = host();
    host.sh(
        ROOT,
        "mkdir /var/log/ro; mount -t tmpfs -o ro ro /var/log/ro",
    )
    .ok();
    let log = "/var/log/ro/alerts.json";
    let failed = host.daemon().log(log).command().output();
    assert_eq!(failed.code(), 70, "{failed:?}");
    assert!(failed.stderr.contains(log), "{}", failed.stderr);
    assert!(
        failed.stderr.contains("Read-only file system"),
        "{}",
        failed.stderr
    );
    assert!(failed.stderr.contains("--log"), "{}", failed.stderr);
}

#[test]
fn a_full_disk_is_said_and_what_waited_is_written_later() {
    let host = host();
    let mount = "mkdir /var/log/small; mount -t tmpfs -o size=2m small /var/log/small";
    host.sh(ROOT, mount).ok();
    let daemon = host.daemon().log("/var/log/small/alerts.json").start();
    let mut made = Vec::new();
    let mut make = |name: String| {
        let path = ANN.ssh(&name);
        host.keygen(ANN, "ed25519").args(["-f", &path]).ok();
        wait_for(&daemon.stdout, &format!("/.ssh/{name}.pub"));
        made.extend([format!("{path}.pub"), path]);
    };
    make("id_before".to_owned());
    host.sh(ROOT, "cat /dev/zero > /var/log/small/fill || true")
        .ok();
    let is_said = || {
        let said = daemon.stderr.so_far();
        said.iter().any(|line| line.contains("No space left on"))
    };
    // The log has some room of its own, which is soon used up.
    for number in 0..40 {
        if is_said() {
            break;
        }
        make(format!("id_{number}"));
    }
    wait_for(&daemon.stderr, "No space left on device");
    make("id_full".to_owned());
    host.sh(ROOT, "rm /var/log/small/fill").ok();
    make("id_after".to_owned());
    let ended = daemon.stop();
    made.sort();
    assert_eq!(ended.paths(SEED), made);
}

#[test]
fn who_follows_the_log_sees_whole_lines_while_the_disk_fills_and_empties() {
    const ROUNDS: usize = 4;
    const FILES: usize = 40;
    const FURTHER: usize = 5;
    let host = host();
    let mount = "mkdir /var/log/small; mount -t tmpfs -o size=16m small /var/log/small";
    host.sh(ROOT, mount).ok();
    let log = host.path("/var/log/small/alerts.json");
    let rule = any_creation();
    let daemon = host
        .daemon()
        .rule("any", &rule)
        .log("/var/log/small/alerts.json")
        .start();
    let eager = Eager::start(&log);
    let mut expected = Vec::new();
    for round in 0..ROUNDS {
        host.sh(ROOT, "cat /dev/zero > /var/log/small/fill || true")
            .ok();
        let said = daemon.stderr.so_far().len();
        for number in 0..FILES {
            expected.push(ANN.ssh(&format!("f{round}_{number:03}")));
        }
        let script = format!("seq -f .ssh/f{round}_%03.0f 0 {} | xargs touch", FILES - 1);
        host.sh(ANN, &script).ok();
        let says = |part: &str| {
            let is = |line: &String| line.contains(part);
            let seen = |lines: &[String]| lines[said..].iter().any(is).then_some(());
            let seen = daemon.stderr.wait(SOON, seen);
            assert!(seen.is_some(), "no {part} in {:#?}", daemon.stderr.so_far());
        };
        says("No space left on device");
        // Nobody can be quick enough to see every half line. But each would be
        // a write, and refused lines are tried again with each further one.
        let before = log.metadata().unwrap();
        for number in 0..FURTHER {
            let path = ANN.ssh(&format!("g{round}_{number}"));
            host.command("touch").user(ANN).args([&path]).ok();
            wait_for(&daemon.stdout, &path);
            expected.push(path);
        }
        let after = log.metadata().unwrap();
        assert_eq!(after.len(), before.len());
        assert_eq!(after.modified().unwrap(), before.modified().unwrap());
        std::fs::remove_file(host.path("/var/log/small/fill")).unwrap();
        says("writes again; lines lost: 0");
    }
    let ended = daemon.stop();
    expected.sort();
    assert_eq!(ended.paths(ANY), expected);
    let lines = eager.stop();
    assert_eq!(lines.len(), ended.log.len());
    for (line, document) in lines.iter().zip(&ended.log) {
        assert_eq!(Document::parse(line).0, document.0);
    }
}

/// Reads what is new in a file again and again without a pause, so that it sees
/// whatever there is to be seen for a moment.
struct Eager {
    over: Arc<AtomicBool>,
    thread: JoinHandle<String>,
}

impl Eager {
    fn start(path: &Path) -> Self {
        let mut file = File::open(path).unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let mut text = Vec::new();
            loop {
                let last = flag.load(SeqCst);
                // Until the end of the file as it is now.
                let new = file.read_to_end(&mut text).unwrap();
                if last && new == 0 {
                    return String::from_utf8(text).unwrap();
                }
                std::thread::yield_now();
            }
        });
        Self { over, thread }
    }

    /// Every line that it saw.
    fn stop(self) -> Vec<String> {
        self.over.store(true, SeqCst);
        let text = self.thread.join().unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

#[test]
fn a_directory_that_vanishes_and_a_read_only_disk_cost_no_alert() {
    let host = host();
    let daemon = host.daemon().start();
    let make = |name: &str| {
        let path = ANN.ssh(name);
        host.keygen(ANN, "ed25519").args(["-f", &path]).ok();
        wait_for(&daemon.stdout, &format!("/.ssh/{name}.pub"));
    };
    make("id_before");
    // The log's directory is another one now, on a disk that cannot be written.
    let directory = "/var/log/ssh-keywatch";
    let script = "mv $1 $1.old; mkdir $1; mount -t tmpfs -o ro ro $1";
    host.sh(ROOT, script).args([directory]).ok();
    make("id_read_only");
    wait_for(&daemon.stderr, "Read-only file system");
    // And now it is gone altogether, with a file in its place.
    host.sh(ROOT, "umount $1; rmdir $1; : > $1")
        .args([directory])
        .ok();
    make("id_gone");
    host.sh(ROOT, "rm $1").args([directory]).ok();
    wait_for(&daemon.stderr, "writes again; lines lost: 0");
    make("id_after");
    let ended = daemon.stop();
    let old = std::fs::read_to_string(host.path(&format!("{directory}.old/alerts.json"))).unwrap();
    let old = old.lines().map(Document::parse).filter(Document::is_alert);
    assert_eq!(old.count(), 2);
    let mut expected: Vec<String> = ["read_only", "gone", "after"]
        .iter()
        .flat_map(|name| [format!("id_{name}"), format!("id_{name}.pub")])
        .map(|name| ANN.ssh(&name))
        .collect();
    expected.sort();
    assert_eq!(ended.paths(SEED), expected);
}

#[test]
fn the_terminal_tells_a_person_and_nothing_else_stands_on_stdout() {
    let host = host();
    let daemon = host.daemon().start();
    key(&host, &daemon, "id_shown");
    let ended = daemon.stop();
    let text = ended.stdout.join("\n");
    for part in [
        "SSH Key Generated via ssh-keygen",
        "/home/ann/.ssh/id_shown",
        "/usr/bin/ssh-keygen",
        "ann",
    ] {
        assert!(text.contains(part), "no {part} in:\n{text}");
    }
    assert!(!text.contains('\u{1b}'), "colour in a pipe: {text:?}");
    // Diagnostics are not mixed with alerts.
    assert!(!text.contains("INFO"), "{text}");
    assert!(!ended.stderr.join("\n").contains("SSH Key Generated"));
}

#[test]
fn diagnostics_are_as_loud_as_is_asked() {
    let host = host();
    let mut number = 0;
    let mut said = |variable: &str, option: &[&str]| {
        let daemon = host.daemon().env(variable).args(option).start();
        // Of each event something is said for who debugs.
        number += 1;
        key(&host, &daemon, &format!("id{number}"));
        let said = daemon.stop().stderr.join("\n");
        ["INFO", "DEBUG"].map(|level| said.contains(level))
    };
    assert_eq!(said("X=", &[]), [true, false]);
    assert_eq!(said("X=", &["-v"]), [true, true]);
    assert_eq!(said("X=", &["-q"]), [false, false]);
    // It beats the options, where it can be read.
    assert_eq!(said("RUST_LOG=ssh_keywatch=debug", &["-q"]), [true, true]);
    assert_eq!(said("RUST_LOG=error", &["-v"]), [false, false]);
    assert_eq!(said("RUST_LOG==(", &[]), [true, false]);
}

#[test]
fn no_file_name_reaches_the_terminal_raw() {
    let host = host();
    let daemon = host.daemon().args(["--color", "never"]).start();
    let name = "id\u{1b}]52;c;Zm9v\u{7}\r\u{9b}2J\n\u{202e}x";
    key(&host, &daemon, name);
    let ended = daemon.stop();
    let text = ended.stdout.join("\n");
    assert!(text.contains("/home/ann/.ssh/id"), "{text}");
    let raw = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    assert!(!text.contains(raw), "{text:?}");
    let diagnostics = ended.stderr.join("\n");
    assert!(!diagnostics.contains(raw), "{diagnostics:?}");
    // The log has it exactly, in JSON's own escapes.
    ended.alert(SEED, &ANN.ssh(name));
    let log = std::fs::read_to_string(host.path(LOG)).unwrap();
    assert!(!log.contains(raw), "the log has raw control characters");
}

#[test]
fn a_file_name_that_is_not_utf_8_is_exact_in_the_log() {
    let host = host();
    let daemon = host.daemon().start();
    let script = r#"ssh-keygen -q -t ed25519 -N '' -f ".ssh/$(printf 'id\377\376')""#;
    host.sh(ANN, script).ok();
    let alert = daemon.line("alert", |document| {
        document.is_alert_of(SEED) && !document.get("ssh_keywatch.path_raw").is_null()
    });
    assert!(alert.text("file.path").starts_with("/home/ann/.ssh/id"));
    // base64 of /home/ann/.ssh/id\xff\xfe
    assert_eq!(
        alert.text("ssh_keywatch.path_raw"),
        "L2hvbWUvYW5uLy5zc2gvaWT//g=="
    );
    daemon.stop();
}

#[test]
fn stdout_can_have_the_lines_of_the_log_or_nothing() {
    let host = host();
    let daemon = host.daemon().args(["--stdout", "json"]).start();
    key(&host, &daemon, "id_json");
    let ended = daemon.stop();
    // But for their place in the log.
    let values = |documents: &[Document]| -> Vec<_> {
        documents
            .iter()
            .map(|document| document.0.clone())
            .collect()
    };
    let parse = |line: &String| Document::parse(line);
    let stdout: Vec<_> = ended.stdout.iter().map(parse).collect();
    assert_eq!(values(&stdout), values(&ended.log));

    let daemon = host.daemon().args(["--stdout", "none"]).start();
    key(&host, &daemon, "id_none");
    assert_eq!(daemon.stop().stdout, [""; 0]);
}

#[test]
fn a_closed_terminal_does_not_keep_alerts_from_the_log() {
    let host = host();
    let daemon = host.daemon().closed_stdout().start();
    for name in ["id_1", "id_2", "id_3"] {
        key(&host, &daemon, name);
    }
    let ended = daemon.stop();
    assert_eq!(ended.alerts(SEED).len(), 6);
}

/// What the daemon writes to a terminal of its own, with `assignment` in its
/// environment, while ann makes a key.
fn on_a_terminal(assignment: &str) -> String {
    let host = host();
    // script(1) makes the terminal; the daemon must not outlive it.
    let command = format!(
        "exec setpriv --pdeathsig KILL -- env TERM=xterm {assignment} {PROGRAM} run --no-journal"
    );
    let (socket, notify) = host.notify_socket();
    let mut script = host
        .command("script")
        .args(["--quiet", "--command", &command, "/dev/null"])
        .env(format!("NOTIFY_SOCKET={notify}"))
        .env("SHELL=/bin/sh")
        .spawn();
    let screen = Follow::new(script.stdout(), str::to_owned);
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket.recv(&mut [0; 4096]).expect("ready");
    let path = ANN.ssh("id_shown");
    host.keygen(ANN, "ed25519").args(["-f", &path]).ok();
    wait_for(&screen, "id_shown.pub");
    let text = screen.so_far().join("\n");
    script.signal(Signal::SIGKILL);
    script.end(SOON);
    text
}

#[test]
fn a_terminal_gets_colours() {
    let text = on_a_terminal("X=");
    assert!(text.contains("\u{1b}["), "{text:?}");
}

#[test]
fn no_color_is_respected() {
    let text = on_a_terminal("NO_COLOR=1");
    assert!(!text.contains('\u{1b}'), "{text:?}");
}

#[test]
fn tail_reads_what_was_logged_and_follows_across_rotation() {
    let host = host();
    let daemon = host.daemon().start();
    key(&host, &daemon, "id_before");
    let mut tail = host
        .command(PROGRAM)
        .args(["tail", "-f", "-n", "10"])
        .spawn();
    let lines = Follow::new(tail.stdout(), str::to_owned);
    wait_for(&lines, "id_before.pub");
    host.sh(ROOT, &format!("mv {LOG} {LOG}.1")).ok();
    key(&host, &daemon, "id_after");
    wait_for(&lines, "id_after.pub");
    daemon.stop();
    tail.signal(Signal::SIGTERM);
    tail.end(SOON);
}
