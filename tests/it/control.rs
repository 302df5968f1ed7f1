//! Asking a running daemon, running beside it, and reloading it.

use std::collections::BTreeMap;
use std::fs::{self, DirEntry};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Instant;

use nix::sys::signal::Signal;

use crate::daemon::{Daemon, LOG};
use crate::document::{ANY, Document, SEED, any_creation, rule};
use crate::follow::Follow;
use crate::host::{ANN, BOB, Cmd, Host, PROGRAM, ROOT, User};
use crate::process::SOON;

const SOCKET: &str = "/run/ssh-keywatch/control.sock";
const CONFIG: &str = "/etc/ssh-keywatch/config.toml";

fn host() -> Host {
    let host = Host::new();
    host.sh(ANN, "mkdir -m 700 .ssh").ok();
    host
}

fn keygen(host: &Host, name: &str) -> String {
    let path = ANN.ssh(name);
    host.keygen(ANN, "ed25519").args(["-f", &path]).ok();
    path
}

#[track_caller]
fn status(host: &Host) -> Document {
    let until = Instant::now() + SOON;
    loop {
        let output = host.command(PROGRAM).args(["status", "--json"]).output();
        assert_eq!(output.stderr, "");
        let status = Document::parse(output.stdout.trim_end());
        // A thread that stalls has a second to answer.
        let degraded = status.get("degraded").to_string();
        if !degraded.contains("_silent") || Instant::now() > until {
            return status;
        }
    }
}

/// The program as `user` with these supplementary groups.
fn as_member<'h>(host: &'h Host, user: User, groups: &str, args: &[&str]) -> Cmd<'h> {
    let id = user.id;
    let setpriv = host.command("setpriv");
    setpriv
        .args([format!("--reuid={id}"), format!("--regid={id}")])
        .args([groups, "--", PROGRAM])
        .args(args)
}

#[track_caller]
fn assert_has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
}

#[test]
fn status_says_how_it_is_watched_and_what_was_counted() {
    let host = host();
    let config = format!(
        "[[exception]]\nrule = \"{SEED}\"\nwhen = 'file.name == \"id_quiet\"'\nreason = \"a test\"\n"
    );
    let daemon = host.daemon().config(&config).start();
    let path = keygen(&host, "id_loud");
    keygen(&host, "id_quiet");
    daemon.alert(SEED, &path);
    daemon.alert(SEED, &ANN.ssh("id_quiet.pub"));

    let status = status(&host);
    assert_eq!(status.number("pid"), Some(daemon.pid().into()));
    assert_eq!(status.text("version"), env!("CARGO_PKG_VERSION"));
    let mode = daemon.started().text("ssh_keywatch.mode").to_owned();
    assert_eq!(status.text("mode"), mode);
    assert_eq!(status.get("degraded").as_array().unwrap().len(), 0);
    let roots = status.get("coverage.roots").as_array().unwrap();
    let held: BTreeMap<&str, &str> = roots
        .iter()
        .map(|root| {
            (
                root["path"].as_str().unwrap(),
                root["how"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        held,
        BTreeMap::from([("/etc/ssh", "held"), ("/home/ann/.ssh", "held")])
    );
    assert!(status.number("counters.hold.answered").unwrap() > 0);
    assert_eq!(status.number("counters.events_dropped"), Some(0));
    assert_eq!(status.number("counters.queue_overflows"), Some(0));
    assert_eq!(status.number("counters.alerts"), Some(3));
    let rules = status.get("rules").as_array().unwrap();
    let seed = rules.iter().find(|rule| rule["id"] == SEED).unwrap();
    assert_eq!(seed["alerts"], 3);
    assert_eq!(seed["last_alert"], *status.get("last_alert"));
    assert!(status.get("last_alert").is_string());
    let exception = &status.get("exceptions")[0];
    assert_eq!(exception["matches"], 1);
    assert_eq!(exception["standing"], "active");
    let sinks = status.get("sinks").as_array().unwrap();
    assert!(
        sinks
            .iter()
            .any(|sink| sink["name"] == "log" && sink["state"] == "ok")
    );

    let page = host.command(PROGRAM).args(["status"]).ok().stdout;
    assert_has(
        &page,
        &[
            &format!("pid {}", daemon.pid()),
            &mode,
            "/etc/ssh",
            "/home/ann/.ssh",
            "3 alerts: SSH Key Generated via ssh-keygen",
            "1 matches of",
            LOG,
        ],
    );
    daemon.stop();
}

#[test]
fn status_says_what_is_not_well_and_ends_with_1() {
    let host = host();
    host.sh(
        ROOT,
        "mkdir /var/log/small; mount -t tmpfs -o size=64k small /var/log/small",
    )
    .ok();
    let daemon = host.daemon().log("/var/log/small/alerts.json").start();
    host.sh(ROOT, "cat /dev/zero > /var/log/small/fill || true")
        .ok();
    let full = |lines: &[String]| {
        lines
            .iter()
            .any(|line| line.contains("No space left"))
            .then_some(())
    };
    // The log has some room of its own, which is soon used up.
    for number in 0..40 {
        if full(&daemon.stderr.so_far()).is_some() {
            break;
        }
        let path = keygen(&host, &format!("id_{number}"));
        let shown = |lines: &[String]| lines.iter().any(|line| line.contains(&path)).then_some(());
        daemon
            .stdout
            .wait(SOON, shown)
            .expect("an alert on the terminal");
    }
    let seen = daemon.stderr.wait(SOON, full);
    assert!(seen.is_some(), "{:#?}", daemon.stderr.so_far());
    let output = host.command(PROGRAM).args(["status"]).output();
    assert_eq!(output.code(), 1, "{output:?}");
    assert_has(
        &output.stdout,
        &[
            "DEGRADED",
            "do not reach the log",
            "No space left on device",
        ],
    );
    let json = host.command(PROGRAM).args(["status", "--json"]).output();
    assert_eq!(json.code(), 1);
    let status = Document::parse(json.stdout.trim_end());
    assert_eq!(status.get("degraded")[0]["code"], "sink_failing");
    host.sh(ROOT, "rm /var/log/small/fill").ok();
    keygen(&host, "id_after");
    daemon.stop();
}

#[test]
fn without_a_daemon_status_says_so() {
    let host = host();
    let output = host.command(PROGRAM).args(["status"]).output();
    assert_eq!((output.code(), output.stdout.as_str()), (1, ""));
    assert_has(
        &output.stderr,
        &["no daemon answers", SOCKET, "systemctl start"],
    );
    // The socket that a crash leaves behind changes nothing.
    host.daemon().start().kill();
    assert!(host.path(SOCKET).exists());
    let output = host.command(PROGRAM).args(["status"]).output();
    assert_eq!(output.code(), 1, "{output:?}");
    // The next daemon replaces it, and takes its own away at its end.
    let daemon = host.daemon().start();
    assert_eq!(status(&host).number("pid"), Some(daemon.pid().into()));
    daemon.stop();
    assert!(!host.path(SOCKET).exists());
}

#[test]
fn a_broken_configuration_does_not_keep_status_from_answering() {
    let host = host();
    let daemon = host.daemon().start();
    host.write(CONFIG, "[wach]\n");
    assert_eq!(status(&host).number("pid"), Some(daemon.pid().into()));
    daemon.stop();
}

#[test]
fn the_control_socket_can_lie_elsewhere() {
    let host = host();
    let place = "/run/elsewhere/keywatch.sock";
    let daemon = host.daemon().args(["--control", place]).start();
    let answer = |cmd: Cmd<'_>| Document::parse(cmd.ok().stdout.trim_end()).number("pid");
    let asked = host
        .command(PROGRAM)
        .args(["status", "--json", "--control", place]);
    assert_eq!(answer(asked), Some(daemon.pid().into()));
    let asked = host
        .command(PROGRAM)
        .args(["status", "--json"])
        .env(format!("SSH_KEYWATCH_CONTROL={place}"));
    assert_eq!(answer(asked), Some(daemon.pid().into()));
    daemon.stop();
}

#[test]
fn members_of_adm_read_the_log_and_the_status_and_nobody_else_does() {
    let host = host();
    // As systemd makes them before it starts the unit.
    host.sh(
        ROOT,
        "mkdir -m 755 /run/ssh-keywatch; mkdir -m 750 /var/log/ssh-keywatch",
    )
    .ok();
    let daemon = host.daemon().start();
    let path = keygen(&host, "id");
    daemon.alert(SEED, &path);

    let directory = host.path("/run/ssh-keywatch").metadata().unwrap();
    let socket = fs::symlink_metadata(host.path(SOCKET)).unwrap();
    let log = host.path(LOG).metadata().unwrap();
    assert_eq!(directory.permissions().mode() & 0o7777, 0o750);
    assert_eq!(socket.permissions().mode() & 0o7777, 0o660);
    assert_eq!(log.permissions().mode() & 0o7777, 0o640);
    for (uid, gid) in [&directory, &socket, &log].map(|file| (file.uid(), file.gid())) {
        assert_eq!((uid, gid), (0, log.gid()));
    }
    assert_ne!(log.gid(), 0, "the group adm");

    let member = "--groups=adm";
    let page = as_member(&host, ANN, member, &["status"]).ok();
    assert_has(&page.stdout, &[&format!("pid {}", daemon.pid())]);
    let tail = as_member(&host, ANN, member, &["tail"]).ok();
    assert_has(&tail.stdout, &[&path]);
    for (user, groups) in [(ANN, "--clear-groups"), (BOB, "--groups=users")] {
        let refused = as_member(&host, user, groups, &["status"]).output();
        assert_eq!(
            (refused.code(), refused.stdout.as_str()),
            (77, ""),
            "{refused:?}"
        );
        assert_has(&refused.stderr, &["no permission", "adm"]);
        let refused = as_member(&host, user, groups, &["tail"]).output();
        assert_eq!(
            (refused.code(), refused.stdout.as_str()),
            (77, ""),
            "{refused:?}"
        );
        assert_has(&refused.stderr, &["group"]);
    }
    // Permissions of files are not what it relies on alone.
    host.sh(
        ROOT,
        "chmod 777 /run/ssh-keywatch /run/ssh-keywatch/control.sock",
    )
    .ok();
    let refused = as_member(&host, BOB, "--clear-groups", &["status"]).output();
    assert_eq!(
        (refused.code(), refused.stdout.as_str()),
        (77, ""),
        "{refused:?}"
    );
    assert_has(&refused.stderr, &["only root and members of the group adm"]);
    daemon.stop();
}

/// Every file below these directories: inode, size and time of its last change.
fn stock(host: &Host, directories: &[&str]) -> Vec<String> {
    let find = host.command("find").args(directories);
    let found = find.args(["-printf", "%p %i %s %T@ %C@ %m\n"]).ok().stdout;
    let mut found: Vec<String> = found.lines().map(str::to_owned).collect();
    found.sort();
    found
}

/// Stops the daemon, and waits until each of its threads stands.
fn stop(daemon: &Daemon) {
    daemon.signal(Signal::SIGSTOP);
    let until = Instant::now() + SOON;
    let stands = |task: std::io::Result<DirEntry>| {
        // One that has ended is not there the next time.
        let stat = fs::read_to_string(task.unwrap().path().join("stat")).unwrap_or_default();
        stat.rsplit(") ").next().unwrap().starts_with('T')
    };
    let tasks = format!("/proc/{}/task", daemon.pid());
    while !fs::read_dir(&tasks).unwrap().all(stands) {
        assert!(Instant::now() < until, "it does not stop");
        std::thread::yield_now();
    }
}

#[test]
fn a_second_one_is_told_who_runs_and_a_dry_one_runs_beside_it() {
    let host = host();
    let daemon = host.daemon().start();
    daemon.started();
    let second = host.daemon().command().output();
    assert_ne!(second.code(), 0);
    assert_has(
        &second.stderr,
        &[
            &format!("pid {}", daemon.pid()),
            "/var/lib/ssh-keywatch/lock",
            "ssh-keywatch status",
            "ssh-keywatch tail -f",
            "journalctl -u ssh-keywatch",
            "ssh-keywatch run --dry",
        ],
    );

    let places = [
        "/var/lib/ssh-keywatch",
        "/var/log/ssh-keywatch",
        "/run/ssh-keywatch",
    ];
    // The fence in /run/ssh-keywatch comes and goes with each key tool.
    let still = [places[0], places[1], SOCKET];
    // What the first one writes meanwhile is its own business.
    stop(&daemon);
    let before = stock(&host, &still);
    let (socket, notify) = host.notify_socket();
    let mut dry = host
        .command(PROGRAM)
        .args(["run", "--dry", "--color", "never"])
        .env(format!("NOTIFY_SOCKET={notify}"))
        .spawn();
    let said = Follow::new(dry.stdout(), str::to_owned);
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket.recv(&mut [0; 4096]).expect("the dry run is ready");
    assert_eq!(stock(&host, &still), before, "touched by a dry start");
    daemon.signal(Signal::SIGCONT);
    assert_eq!(status(&host).number("pid"), Some(daemon.pid().into()));

    let path = keygen(&host, "id_both");
    let alert = daemon.alert(SEED, &path);
    // On a busy machine an opener may have to be let go; it is named all the same.
    assert!(
        alert.is("process.executable", "/usr/bin/ssh-keygen"),
        "{}",
        alert.brief()
    );
    daemon.alert(SEED, &format!("{path}.pub"));
    let shown = |lines: &[String]| {
        lines
            .iter()
            .any(|line| line.contains("id_both.pub"))
            .then_some(())
    };
    said.wait(SOON, shown).expect("alerts of the dry run");
    stop(&daemon);
    let before = stock(&host, &still);
    dry.signal(Signal::SIGTERM);
    assert_eq!(dry.end(SOON).code(), Some(0));
    assert_eq!(stock(&host, &still), before, "touched by a dry end");
    daemon.signal(Signal::SIGCONT);
    let left = host.sh(ROOT, "ls -A /run").ok().stdout;
    assert!(!left.contains("dry"), "{left}");
    let text = said.all(SOON).join("\n");
    assert_has(
        &text,
        &[
            &path,
            "SSH Key Generated via ssh-keygen",
            "/usr/bin/ssh-keygen",
        ],
    );

    let last = keygen(&host, "id_after");
    daemon.alert(SEED, &last);
    let ended = daemon.stop();
    let names = ["id_after", "id_after.pub", "id_both", "id_both.pub"];
    assert_eq!(ended.paths(SEED), names.map(|name| ANN.ssh(name)));
    let starts = ended
        .log
        .iter()
        .filter(|document| document.is_state("start"));
    assert_eq!(starts.count(), 1);
}

#[track_caller]
fn reload(daemon: &Daemon<'_>, is: impl Fn(&Document) -> bool) -> Document {
    daemon.signal(Signal::SIGHUP);
    daemon.line("reload", |document| {
        document.is_state("reload") && is(document)
    })
}

#[test]
fn a_reload_says_what_it_changes_and_what_only_a_restart_does() {
    const OTHER: &str = "22222222-2222-4333-8444-555555555555";
    let host = host();
    host.sh(ROOT, "mkdir -p /srv/keys").ok();
    let exception = format!(
        "[[exception]]\nrule = \"{SEED}\"\nwhen = 'file.name == \"id_quiet\"'\nreason = \"a test\"\n"
    );
    let daemon = host
        .daemon()
        .config(&exception)
        .rule("any", &any_creation())
        .start();
    keygen(&host, "id_quiet");
    daemon.alert(ANY, &ANN.ssh("id_quiet.pub"));

    host.write(
        CONFIG,
        format!(
            "[watch]\nhold = \"all\"\ndirectories = [\"/etc/ssh\", \"/srv/keys\"]\n{exception}"
        ),
    );
    host.write(
        "/etc/ssh-keywatch/rules.d/any.toml",
        any_creation().replace("severity = \"low\"", "severity = \"high\""),
    );
    host.write(
        "/etc/ssh-keywatch/rules.d/other.toml",
        rule(OTHER, "Other", "file where event.action == \"deletion\""),
    );
    let said = reload(&daemon, |_| true);
    assert_eq!(said.text("event.outcome"), "success");
    let parts = [
        &format!("1 rule added: Other ({OTHER})"),
        &format!("1 rule changed: Any creation ({ANY})"),
        "watched from now on: /srv/keys",
        r#"watch.directories: ["/etc/ssh"] → ["/etc/ssh", "/srv/keys"]"#,
        r#"only a restart applies watch.hold: "new" → "all""#,
    ];
    assert_has(said.text("message"), &parts);
    let told = said.get("ssh_keywatch.reload");
    assert_eq!(told["rules"]["added"][0], format!("Other ({OTHER})"));
    assert_eq!(told["watched"]["added"][0], "/srv/keys");
    assert_eq!(told["needs_restart"][0], "watch.hold: \"new\" → \"all\"");
    let status = status(&host);
    assert_has(status.text("last_reload.reason"), &parts);
    // It goes on counting.
    assert_eq!(status.get("exceptions")[0]["matches"], 1);

    fs::remove_file(host.path("/etc/ssh-keywatch/rules.d/other.toml")).unwrap();
    let said = reload(&daemon, |document| {
        document.text("message").contains("removed")
    });
    assert_has(
        said.text("message"),
        &[
            &format!("1 rule removed: Other ({OTHER})"),
            "only a restart applies watch.hold",
        ],
    );
    host.write(CONFIG, "[wach]\n");
    let refused = reload(&daemon, |document| document.is("event.outcome", "failure"));
    assert_has(refused.text("message"), &["wach", CONFIG]);
    let ended = daemon.stop();
    assert_has(&ended.stderr.join("\n"), &parts);
}

#[test]
fn nothing_is_lost_and_nothing_doubled_while_it_reloads() {
    const RELOADS: usize = 20;
    const KEYS: usize = 60;
    let host = host();
    host.sh(ROOT, "mkdir -p /srv/keys").ok();
    let daemon = host.daemon().start();
    let keys =
        format!("for i in $(seq {KEYS}); do ssh-keygen -q -t ed25519 -N '' -f .ssh/id_$i; done");
    let mut stream = host.sh(ANN, &keys).spawn_silent();
    let mut during = 0;
    for number in 0..RELOADS {
        // Each changes rules and directories.
        if number % 2 == 0 {
            host.write(
                CONFIG,
                "[watch]\ndirectories = [\"/etc/ssh\", \"/srv/keys\"]\n",
            );
            host.write("/etc/ssh-keywatch/rules.d/any.toml", any_creation());
        } else {
            fs::remove_file(host.path(CONFIG)).unwrap();
            fs::remove_file(host.path("/etc/ssh-keywatch/rules.d/any.toml")).unwrap();
        }
        if !stream.has_ended() {
            during += 1;
        }
        daemon.signal(Signal::SIGHUP);
        let mut reloads = Vec::new();
        daemon.find(SOON, "reload", |log| {
            reloads = log
                .iter()
                .filter(|document| document.is_state("reload"))
                .cloned()
                .collect();
            (reloads.len() > number).then_some(())
        });
        assert!(
            reloads[number].is("event.outcome", "success"),
            "{}",
            reloads[number].brief()
        );
    }
    assert!(during > 1, "the keys were made before it was reloaded");
    assert!(stream.end(SOON * 3).success());
    let ended = daemon.stop();
    let mut expected: Vec<String> = (1..=KEYS)
        .flat_map(|number| {
            [
                ANN.ssh(&format!("id_{number}")),
                ANN.ssh(&format!("id_{number}.pub")),
            ]
        })
        .collect();
    expected.sort();
    assert_eq!(ended.paths(SEED), expected);
    for alert in ended.alerts(SEED) {
        assert!(
            alert.is("process.executable", "/usr/bin/ssh-keygen"),
            "{}",
            alert.brief()
        );
    }
    ended.assert_nothing_lost();
}

#[test]
fn check_passes_on_the_sample_configuration() {
    let host = host();
    host.write(CONFIG, include_str!("../../packaging/config.toml"));
    let check = host.command(PROGRAM).args(["check"]).ok();
    assert_has(&check.stdout, &[CONFIG, "is valid"]);
}

#[test]
fn run_without_a_command_heeds_the_environment() {
    let host = host();
    let (socket, notify) = host.notify_socket();
    let log = "/var/log/other.json";
    let mut process = host
        .command(PROGRAM)
        .env(format!("NOTIFY_SOCKET={notify}"))
        .env("SSH_KEYWATCH_NO_JOURNAL=true")
        .env(format!("SSH_KEYWATCH_LOG={log}"))
        .spawn_silent();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket.recv(&mut [0; 4096]).expect("it is ready");
    process.signal(Signal::SIGTERM);
    assert_eq!(process.end(SOON).code(), Some(0));
    assert!(host.path(log).exists());
}

#[test]
fn who_reads_the_log_heeds_the_environment_and_says_which_log_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("other.json");
    let run = |args: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_ssh-keywatch"))
            .args(args)
            .env("SSH_KEYWATCH_LOG", &log)
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    };
    let shown = log.to_str().unwrap();
    let (code, said) = run(&["tail"]);
    assert_eq!(code, Some(70), "{said}");
    assert_has(&said, &[shown]);
    for args in [
        &["check", "--log"][..],
        &["check", "--log", "/srv/nope.json"],
    ] {
        let (code, said) = run(args);
        assert_eq!(code, Some(70), "{said}");
        let named = args.get(2).unwrap_or(&shown);
        assert_has(&said, &[named, "does not exist"]);
    }
    fs::write(&log, "{\"message\":\"before lines had numbers\"}\n").unwrap();
    let (code, said) = run(&["check", "--log"]);
    assert_eq!(code, Some(1), "{said}");
    assert_has(&said, &[&format!("  {shown}: no line of 1 file")]);
    assert_eq!(run(&["tail"]).0, Some(0));
    // The variable names a log; it asks for no other check.
    assert_has(
        &run(&["check", "--config", "/srv/none.toml"]).1,
        &["/srv/none.toml"],
    );
}
