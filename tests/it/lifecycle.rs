//! Starting, reloading, ending, and what is said when that cannot be.

use nix::sys::signal::Signal;

use crate::attribution::assert_held;
use crate::document::{ANY, SEED, any_creation, rule};
use crate::host::{ANN, BOB, Host, PROGRAM, ROOT};
use crate::process::{Output, SOON, only};

fn host() -> Host {
    let host = Host::new();
    host.sh(ANN, "mkdir -m 700 .ssh").ok();
    host
}

#[test]
fn ready_means_that_everything_that_exists_is_watched() {
    const HOMES: usize = 300;
    let host = Host::new();
    host.sh(
        ROOT,
        &format!("for i in $(seq {HOMES}); do mkdir -p /home/h$i/.ssh/a/b; done"),
    )
    .ok();
    let daemon = host.daemon().rule("any", &any_creation()).start();
    let script = format!("for i in $(seq {HOMES}); do echo > /home/h$i/.ssh/a/b/file; done");
    host.sh(ROOT, &script).ok();
    daemon.alert(ANY, &format!("/home/h{HOMES}/.ssh/a/b/file"));
    let ended = daemon.stop();
    let alerts = ended.alerts(ANY);
    assert_eq!(alerts.len(), HOMES);
    for alert in &alerts {
        // By a scan it would have been found even without a mark.
        assert!(
            alert.is("ssh_keywatch.evidence", "fanotify"),
            "{}",
            alert.brief()
        );
    }
    assert_held(&ended, &alerts);
}

#[test]
fn what_was_there_before_is_no_news() {
    let host = host();
    host.keygen(ANN, "ed25519")
        .args(["-f", &ANN.ssh("id_old")])
        .ok();
    let daemon = host.daemon().rule("any", &any_creation()).start();
    host.sh(ANN, "cat .ssh/id_old > /dev/null; echo > .ssh/new")
        .ok();
    daemon.alert(ANY, &ANN.ssh("new"));
    let ended = daemon.stop();
    assert_eq!(ended.paths(ANY), [ANN.ssh("new")]);
}

#[test]
fn sigterm_and_sigint_end_it_with_success_and_all_that_was_seen_in_the_log() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let host = host();
        let daemon = host.daemon().start();
        // Nothing is waited for between the keys and the signal.
        for number in 0..20 {
            let path = ANN.ssh(&format!("id_{number}"));
            host.keygen(ANN, "ed25519").args(["-f", &path]).ok();
        }
        let ended = daemon.end(signal);
        assert_eq!(ended.status.code(), Some(0));
        assert_eq!(ended.alerts(SEED).len(), 40, "after {signal}");
        let last = ended.log.last().unwrap();
        assert!(last.is_state("stop"), "{}", last.brief());
    }
}

#[test]
fn start_and_stop_are_in_the_log() {
    let host = host();
    let daemon = host.daemon().start();
    let start = daemon.started();
    assert_eq!(start.text("event.outcome"), "success");
    assert!(
        start.text("ssh_keywatch.mode").starts_with("fanotify"),
        "this kernel gives no fanotify: {}",
        start.text("ssh_keywatch.mode")
    );
    assert!(start.get("ssh_keywatch.coverage").is_object());
    // The trial at the start has passed.
    assert!(start.get("ssh_keywatch.degraded").is_null(), "{start:?}");
    let ended = daemon.stop();
    let stop = ended.log.last().unwrap();
    assert!(stop.is_state("stop"), "{}", stop.brief());
    assert!(stop.text("message").contains("SIGTERM"), "{}", stop.brief());
}

#[test]
fn sighup_takes_new_rules_and_new_directories() {
    let host = host();
    host.sh(ROOT, "mkdir -p /srv/keys").ok();
    let daemon = host.daemon().start();
    host.write("/etc/ssh-keywatch/rules.d/any.toml", any_creation());
    host.write(
        "/etc/ssh-keywatch/config.toml",
        "[watch]\ndirectories = [\"/etc/ssh\", \"/srv/keys\"]\n",
    );
    daemon.signal(Signal::SIGHUP);
    let reload = daemon.line("reload", |document| document.is_state("reload"));
    assert_eq!(reload.text("event.outcome"), "success");
    host.sh(ROOT, "echo > /srv/keys/file").ok();
    daemon.alert(ANY, "/srv/keys/file");
    let ended = daemon.stop();
    assert_held(&ended, &[ended.alert(ANY, "/srv/keys/file")]);
}

#[test]
fn a_reload_with_an_error_says_so_and_leaves_everything_as_it_was() {
    let host = host();
    let daemon = host.daemon().rule("any", &any_creation()).start();
    for (file, text, said) in [
        (
            "/etc/ssh-keywatch/config.toml",
            "[wach]\n".to_owned(),
            "config.toml",
        ),
        (
            "/etc/ssh-keywatch/rules.d/any.toml",
            rule(ANY, "Broken", "file where event.acton == \"creation\""),
            "any.toml",
        ),
    ] {
        host.write(file, text);
        daemon.signal(Signal::SIGHUP);
        let reload = daemon.line("refused reload", |document| {
            document.is_state("reload") && document.text("message").contains(said)
        });
        assert_eq!(reload.text("event.outcome"), "failure");
        let new = format!("after_{said}");
        host.sh(ANN, &format!("echo > .ssh/{new}")).ok();
        daemon.alert(ANY, &ANN.ssh(&new));
        std::fs::remove_file(host.path(file)).unwrap();
    }
    let ended = daemon.stop();
    let stderr = ended.stderr.join("\n");
    assert!(stderr.contains("wach"), "{stderr}");
    assert!(stderr.contains("event.acton"), "{stderr}");
}

#[test]
fn a_second_one_is_told_that_the_first_runs() {
    let host = host();
    let daemon = host.daemon().start();
    let second = host.daemon().command().output();
    assert_ne!(second.code(), 0);
    assert!(second.stderr.contains("runs already"), "{}", second.stderr);
    let pid = daemon.pid().to_string();
    assert!(second.stderr.contains(&pid), "{}", second.stderr);
    // The first is none the worse for it.
    let path = ANN.ssh("id");
    host.keygen(ANN, "ed25519").args(["-f", &path]).ok();
    daemon.alert(SEED, &path);
    daemon.stop();
}

#[test]
fn a_crash_does_not_keep_the_next_one_from_starting() {
    let host = host();
    host.daemon().start().kill();
    let daemon = host.daemon().start();
    let path = ANN.ssh("id");
    host.keygen(ANN, "ed25519").args(["-f", &path]).ok();
    daemon.alert(SEED, &path);
    daemon.stop();
}

#[test]
fn run_is_what_root_gets_without_a_command() {
    let host = host();
    let (socket, notify) = host.notify_socket();
    let mut process = host
        .command(PROGRAM)
        .env(format!("NOTIFY_SOCKET={notify}"))
        .env("SSH_KEYWATCH_NO_JOURNAL=true")
        .spawn_silent();
    socket.set_read_timeout(Some(SOON)).unwrap();
    let mut bytes = [0; 4096];
    let count = socket.recv(&mut bytes).unwrap();
    assert!(String::from_utf8_lossy(&bytes[..count]).contains("READY=1"));
    process.signal(Signal::SIGTERM);
    assert_eq!(process.end(SOON).code(), Some(0));
}

#[track_caller]
fn assert_says(output: &Output, code: i32, parts: &[&str]) {
    assert_eq!(output.code(), code, "{output:?}");
    for part in parts {
        assert!(
            output.stderr.contains(part),
            "no {part:?} in:\n{}",
            output.stderr
        );
    }
    assert_eq!(output.stdout, "");
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    let host = host();
    let wrong = host.command(PROGRAM).args(["run", "--stat", "/x"]).output();
    assert_says(&wrong, 2, &["--stat", "--state"]);
    let wrong = host.command(PROGRAM).args(["rnu"]).output();
    assert_says(&wrong, 2, &["rnu", "--help"]);
    let wrong = host
        .daemon()
        .args(["--backend", "magic"])
        .command()
        .output();
    assert_says(&wrong, 2, &["magic", "fanotify", "inotify"]);
}

#[test]
fn without_privilege_it_names_the_missing_capabilities() {
    let host = host();
    let refused = host.daemon().command().user(BOB).output();
    let advice = "--backend inotify";
    assert_says(&refused, 77, &["CAP_SYS_ADMIN", "CAP_SYS_PTRACE", advice]);
    // Not even where it could write.
    let run = host.daemon().args(["--state", "/home/bob/state"]);
    let run = run.args(["--log", "/home/bob/alerts.json"]);
    let refused = run.command().user(BOB).output();
    assert_says(&refused, 77, &["CAP_SYS_ADMIN", "CAP_SYS_PTRACE", advice]);
}

#[test]
fn without_privilege_inotify_still_sees_ones_own_files() {
    let host = host();
    let log = "/home/ann/alerts.json";
    let daemon = host
        .daemon()
        .args(["--backend", "inotify", "--state", "/home/ann/state"])
        .log(log)
        .rule("any", &any_creation())
        .user(ANN)
        .start();
    host.sh(ANN, "echo > .ssh/file").ok();
    let alert = daemon.alert(ANY, &ANN.ssh("file"));
    assert_eq!(alert.text("ssh_keywatch.attribution.method"), "none");
    let ended = daemon.stop();
    assert_eq!(ended.paths(ANY), [ANN.ssh("file")]);
}

#[test]
fn root_without_a_capability_is_told_which_one() {
    let host = host();
    for (option, name) in [
        ("sys_admin", "CAP_SYS_ADMIN"),
        ("dac_read_search", "CAP_DAC_READ_SEARCH"),
    ] {
        let dropped = format!("--bounding-set=-{option}");
        let refused = host.daemon().command().privileges([dropped]).output();
        assert_says(&refused, 77, &[name]);
    }
}

#[test]
fn an_error_in_the_configuration_is_shown_where_it_is() {
    let host = host();
    let config = "[watch]\nhomes = [\"/home/*\"]\n\n[log]\nflie = \"/x\"\n";
    let run = host.daemon().config(config).command().output();
    let place = "/etc/ssh-keywatch/config.toml:5:1";
    assert_says(&run, 78, &[place, "flie = \"/x\"", "^^^^", "file"]);
    let check = host.command(PROGRAM).args(["check"]).output();
    assert_says(&check, 78, &[place, "^^^^"]);
}

#[test]
fn a_configuration_that_is_not_toml_is_shown_where_it_is() {
    let host = host();
    let run = host.daemon().config("[watch\n").command().output();
    assert_says(
        &run,
        78,
        &["/etc/ssh-keywatch/config.toml:1:", "[watch", "^"],
    );
}

#[test]
fn a_configuration_that_was_asked_for_must_exist() {
    let host = host();
    let run = host.daemon().args(["--config", "/srv/none.toml"]);
    assert_says(&run.command().output(), 78, &["/srv/none.toml"]);
}

#[test]
fn an_error_in_a_rule_is_shown_where_it_is() {
    let host = host();
    let query = "file where event.action == \"creation\" and\n  process.exectuable == \"/bin/cp\"";
    let run = host
        .daemon()
        .rule("mine", &rule(ANY, "Mine", query))
        .command()
        .output();
    let parts = [
        "/etc/ssh-keywatch/rules.d/mine.toml:17:3",
        "process.exectuable == \"/bin/cp\"",
        "^^^^",
        "process.executable",
    ];
    assert_says(&run, 78, &parts);
    let check = host.command(PROGRAM).args(["check"]).output();
    assert_says(&check, 78, &parts);
}

#[test]
fn check_says_what_is_watched_and_which_rules_are_active() {
    let host = host();
    let check = host.command(PROGRAM).args(["check"]).ok();
    for part in [
        "/home/*/.ssh",
        "/root/.ssh",
        "/etc/ssh",
        "SSH Key Generated via ssh-keygen",
        SEED,
        "fanotify",
        "on trial, a file that was made and one that was renamed into place were seen",
    ] {
        assert!(check.stdout.contains(part), "no {part} in {}", check.stdout);
    }
}

#[test]
fn inotify_sees_new_files_and_says_that_it_cannot_name_who_made_them() {
    let host = host();
    let daemon = host
        .daemon()
        .args(["--backend", "inotify"])
        .rule("any", &any_creation())
        .start();
    assert_eq!(daemon.started().text("ssh_keywatch.mode"), "inotify");
    host.sh(ROOT, "mkdir -p /home/bob/.ssh/deep").ok();
    let paths = [
        ANN.ssh("id"),
        ANN.ssh("id.pub"),
        BOB.ssh("deep/id"),
        BOB.ssh("deep/id.pub"),
    ];
    for path in [&paths[0], &paths[2]] {
        host.keygen(ROOT, "ed25519").args(["-f", path]).ok();
    }
    for path in &paths {
        let alert = daemon.alert(ANY, path);
        assert_eq!(alert.text("ssh_keywatch.attribution.method"), "none");
        assert_eq!(*alert.get("ssh_keywatch.attribution.certain"), false);
        assert!(alert.get("process").is_null(), "{}", alert.brief());
        assert!(alert.get("user").is_null(), "{}", alert.brief());
    }
    assert!(
        daemon
            .alert(ANY, &paths[0])
            .is("ssh_keywatch.evidence", "inotify")
    );
    let ended = daemon.stop();
    let mut files = ended.alerts(ANY);
    files.retain(|alert| !alert.is("file.type", "dir"));
    assert_eq!(files.len(), paths.len());
    // A rule that names a program cannot match what has none.
    assert_eq!(ended.alerts(SEED).len(), 0);
}

#[test]
fn a_rules_own_bound_is_kept_and_what_it_suppressed_is_said() {
    let host = host();
    let bounded = any_creation().replace("max_signals = 100000", "max_signals = 10");
    assert_ne!(bounded, any_creation());
    let daemon = host.daemon().rule("any", &bounded).start();
    host.sh(ANN, "for i in $(seq 25); do echo > .ssh/file$i; done")
        .ok();
    let ended = daemon.stop();
    assert_eq!(ended.alerts(ANY).len(), 10);
    let told = ended
        .log
        .iter()
        .filter(|document| document.is_state("suppressed"));
    let told = only(told.collect(), "word about suppression");
    assert_eq!(told.text("rule.id"), ANY);
    assert_eq!(told.number("ssh_keywatch.suppressed.count"), Some(15));
}

#[test]
fn an_exception_keeps_its_match_quiet() {
    let host = host();
    let config = format!(
        "[[exception]]\nrule = \"{SEED}\"\nwhen = 'user.name == \"ann\"'\nreason = \"a test\"\n"
    );
    let daemon = host.daemon().config(&config).start();
    for user in [ANN, BOB] {
        host.keygen(user, "ed25519")
            .args(["-f", &user.ssh("id")])
            .ok();
    }
    daemon.alert(SEED, &BOB.ssh("id.pub"));
    let ended = daemon.stop();
    assert_eq!(ended.paths(SEED), [BOB.ssh("id"), BOB.ssh("id.pub")]);
}
