//! Rules, exceptions and replay as a user of the command line meets them.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use crate::document::{ANY, any_creation, rule};
use crate::host::{ANN, Host, PROGRAM, ROOT};
use crate::process::Process;

#[test]
fn check_warns_of_exceptions_that_do_too_little_or_too_much_and_of_inert_rules() {
    let host = Host::new();
    let mut exceptions = String::new();
    for (when, reason, more) in [
        (r#"user.id == "0""#, "over", "expires = 2020-01-01\n"),
        ("1 > 2", "nothing", ""),
        ("true", "everything", ""),
        (
            r#"process.executable == "/usr/bin/x""#,
            "named by itself",
            "",
        ),
        (r#"user.id == "4001""#, "sound", ""),
    ] {
        exceptions.push_str("[[exception]]\nrule = \"*\"\nwhen = '");
        exceptions.push_str(when);
        exceptions.push_str("'\nreason = \"");
        exceptions.push_str(reason);
        exceptions.push_str("\"\n");
        exceptions.push_str(more);
    }
    host.write("/etc/ssh-keywatch/config.toml", exceptions);
    let cron = rule(ANY, "Cron job", r#"file where file.path : "/etc/cron.d/*""#);
    host.write("/etc/ssh-keywatch/rules.d/cron.toml", cron);
    let check = host.command(PROGRAM).args(["check"]).output();
    assert_eq!(check.code(), 1, "{check:?}");
    let marked: Vec<&str> = check
        .stdout
        .lines()
        .filter(|line| line.starts_with('!'))
        .collect();
    for (line, part) in marked.iter().zip([
        "inert     Cron job (11111111-2222-4333-8444-555555555555): nothing that is watched can have \
         the file.path it asks for (it asks for /etc/cron.d/*)",
        "exception for * expired on 2020-01-01, and is ignored: over",
        "exception for *: nothing (it can hold for no event)",
        "exception for *: everything (it holds for every event, so the rule never alerts)",
        "exception for *: named by itself (any user can choose",
    ]) {
        assert!(line.contains(part), "no {part:?} in {line:?}");
    }
    assert_eq!(marked.len(), 5, "{}", check.stdout);
    assert!(check.stdout.contains("\n  exception for *: sound\n"));
}

#[test]
fn directories_that_rules_speak_of_are_watched_where_that_is_wanted() {
    let host = Host::new();
    host.command("mkdir")
        .args(["-p", "/srv/app/keys", "/srv/other"])
        .ok();
    let query = r#"file where event.action == "creation" and file.path : "/srv/app/keys/*""#;
    let daemon = host
        .daemon()
        .config("[rules]\nwatch = \"rule\"\n")
        .rule("app", &rule(ANY, "A key of the application", query))
        .start();
    host.sh(ROOT, "echo > /srv/other/x; echo > /srv/app/keys/x")
        .ok();
    let alert = daemon.alert(ANY, "/srv/app/keys/x");
    assert!(
        alert.is("ssh_keywatch.evidence", "fanotify"),
        "{}",
        alert.brief()
    );
    let ended = daemon.stop();
    assert_eq!(ended.paths(ANY), ["/srv/app/keys/x"]);
}

#[test]
fn what_an_exception_kept_quiet_is_counted_in_the_status() {
    const OTHER: &str = "44444444-2222-4333-8444-555555555555";
    let host = Host::new();
    host.sh(ANN, "mkdir -m 700 .ssh").ok();
    // By an ancestor, which no file event of others carries.
    let config = format!(
        "[[exception]]\nrule = \"{ANY}\"\nreason = \"a test\"\n\
         when = 'ssh_keywatch.ancestors.args == \"provision\" and user.id == \"4001\"'\n"
    );
    let daemon = host
        .daemon()
        .config(&config)
        .rule("any", &any_creation())
        .rule("other", &any_creation().replace(ANY, OTHER))
        .start();
    // It stays, so that its arguments can be read; it is told if they are read at once.
    let (mut quiet, mut loud, mut provisions) = (0, Vec::new(), Vec::new());
    for number in 1..=5 {
        let names = ["quiet", "too"].map(|name| format!("{name}{number}"));
        let [one, other] = names.each_ref();
        let script = format!("sh -c 'touch .ssh/{one} .ssh/{other}; tail -f /dev/null' provision");
        provisions.push(host.sh(ANN, &script).spawn_silent());
        let before = quiet;
        for name in &names {
            let alert = daemon.alert(OTHER, &ANN.ssh(name));
            let ancestors = alert.get("ssh_keywatch.ancestors").to_string();
            if ancestors.contains("\"provision\"") {
                quiet += 1;
            } else {
                loud.push(ANN.ssh(name));
            }
        }
        if quiet == before + 2 {
            break;
        }
    }
    assert!(quiet >= 2, "{loud:?}");
    loud.push(ANN.ssh("loud"));
    loud.sort();
    host.sh(ANN, "touch .ssh/loud").ok();
    daemon.alert(ANY, &ANN.ssh("loud"));
    daemon.signal(Signal::SIGUSR1);
    let status = daemon.line("status", |line| line.is_state("status"));
    let counted = status.get("ssh_keywatch.counters.rules.exceptions");
    assert_eq!(counted[0]["matches"], quiet, "{counted}");
    let ended = daemon.stop();
    assert_eq!(ended.paths(ANY), loud);
}

#[test]
fn a_users_own_rules_are_tried_against_the_users_own_cases() {
    let host = Host::new();
    let directory = "/etc/ssh-keywatch/rules.d";
    let query = r#"file where file.name == "id_rsa""#;
    host.write(&format!("{directory}/mine.toml"), rule(ANY, "Mine", query));
    let cases = |name: &str| {
        format!(
            "rule = \"{ANY}\"\n[event]\nevent.category = [\"file\"]\nfile.name = \"id_rsa\"\n\
             [[catch]]\nname = \"a key\"\n[[leave]]\nname = \"another\"\nset.file.name = \"{name}\"\n"
        )
    };
    host.write(&format!("{directory}/tests/mine.toml"), cases("id_dsa"));
    let good = host
        .command(PROGRAM)
        .args(["rules", "test", "Mine"])
        .output();
    assert_eq!(good.code(), 0, "{good:?}");
    assert!(good.stdout.contains("Mine: 1 caught, 1 left alone"));
    host.write(&format!("{directory}/tests/mine.toml"), cases("id_rsa"));
    let bad = host.command(PROGRAM).args(["rules", "test"]).output();
    assert_eq!(bad.code(), 1, "{bad:?}");
    assert!(
        bad.stdout.contains("another"),
        "the case is not named: {}",
        bad.stdout
    );
}

/// A recorded event that no rule matches.
fn line(index: usize) -> String {
    format!(
        "{{\"event\":{{\"category\":[\"file\"],\"action\":\"creation\",\"id\":\"{index}\"}},\
         \"host\":{{\"os\":{{\"type\":\"linux\"}}}},\"file\":{{\"path\":\"/home/a/{index}\"}},\
         \"process\":{{\"executable\":\"/usr/bin/make\",\"args\":[\"{}\"]}}}}\n",
        "x".repeat(1000)
    )
}

/// The most memory that the process has had, in kB (`proc_pid_status(5)`).
fn peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
        .unwrap()
}

/// Writes `IT_REPLAY_MB` (default 40) to replay's standard input.
#[test]
fn replay_needs_no_more_memory_for_more_events() {
    let megabytes: usize = match std::env::var("IT_REPLAY_MB") {
        Ok(text) => text.parse().unwrap(),
        Err(_) => 40,
    };
    let mut replay = Process::spawn(
        Command::new(env!("CARGO_BIN_EXE_ssh-keywatch"))
            .args(["replay", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null()),
    );
    let mut stdin = replay.stdin();
    let lines: Vec<String> = (0..1000).map(line).collect();
    let block = lines.concat();
    let count = (megabytes << 20).div_ceil(block.len());
    let mut early = 0;
    // What is written has been read, but for what a pipe holds.
    for index in 0..count {
        stdin.write_all(block.as_bytes()).unwrap();
        if index == 3 {
            early = peak(replay.pid());
        }
    }
    let late = peak(replay.pid());
    assert!(early > 0 && count > 8);
    assert!(late < early + 4096, "{early} kB became {late} kB");
    drop(stdin);
    // Nothing was found.
    assert_eq!(replay.end(crate::process::SOON).code(), Some(1));
}

#[test]
fn replay_shows_on_a_terminal_how_far_it_is_and_what_is_wrong_in_which_line() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("events.ndjson");
    let mut text: String = (0..40_000).map(line).collect();
    text.push_str("no event\n");
    fs::write(&file, text).unwrap();
    let command = format!(
        "{} replay {} ",
        env!("CARGO_BIN_EXE_ssh-keywatch"),
        file.display()
    );
    // script(1) gives it a terminal.
    let output = Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{shown}");
    // It is drawn five times a second: a fast machine may be done before.
    let seconds = shown.split_once("40,000 events in ").unwrap().1;
    let seconds: f64 = seconds.split_once(" s").unwrap().0.parse().unwrap();
    let bar = shown.contains(" %  ");
    assert!(bar || seconds < 0.4, "no bar in {shown:?}");
    assert!(
        shown.contains("events.ndjson:40001: not a JSON document"),
        "{shown:?}"
    );
    let piped = Command::new("sh")
        .args(["-c", &format!("{command} 2>&1")])
        .output()
        .unwrap();
    let piped = String::from_utf8(piped.stdout).unwrap();
    assert!(!piped.contains('\r'), "{piped:?}");
}
