//! Who reads a key: told where a rule asks for it, and only there.

use std::collections::BTreeSet;
use std::fs;

use nix::sys::signal::Signal;

use crate::daemon::Daemon;
use crate::document::{ANY, any_creation, rule};
use crate::host::{ANN, BOB, Host, User};
use crate::process::{Process, SOON};

const PERL: &str = "/usr/bin/perl";
const READ: &str = "22222222-2222-4333-8444-555555555555";

/// Private keys that something else than OpenSSH opens.
fn read_keys() -> String {
    let query = r#"file where event.action in ("open", "opened-file") and event.type == "access" and
        file.path : ("/home/ann/.ssh/*", "/root/.ssh/*") and ssh_keywatch.key.kind == "private" and
        not process.executable : ("/usr/bin/ssh", "/usr/bin/ssh-keygen", "/usr/bin/ssh-add")"#;
    rule(READ, "Private key read", query)
}

fn host() -> Host {
    let host = Host::new();
    for user in [ANN, BOB] {
        host.sh(user, "mkdir -m 700 .ssh").ok();
        let key = user.ssh("id_ed25519");
        host.keygen(user, "ed25519").args(["-f", &key]).ok();
    }
    host
}

/// Inodes of directories whose opens the kernel tells the daemon
/// (`proc_pid_fdinfo(5)`).
fn marked_for_opens(daemon: &Daemon) -> BTreeSet<u64> {
    const FAN_OPEN: u64 = 0x20;
    let marks = daemon.marks().into_iter();
    let for_opens = marks.filter(|(_, mask)| mask & FAN_OPEN != 0);
    for_opens.map(|(inode, _)| inode).collect()
}

/// Opens a file again and again, and does not end: right after its exec more
/// programs than one are possible, later no other.
fn reader(host: &Host, user: User, path: &str) -> Process {
    let perl = host.command(PERL).user(user).directory(user.home);
    let script = "for (;;) { open my $f, '<', $ARGV[0] or die; select undef, undef, undef, 0.02 }";
    perl.args(["-e", script, path]).spawn_silent()
}

fn inode(host: &Host, path: &str) -> u64 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(host.path(path)).unwrap().ino()
}

#[test]
fn a_private_key_read_by_another_program_is_told_with_its_reader() {
    let host = host();
    let daemon = host.daemon().rule("read", &read_keys()).start();
    let key = ANN.ssh("id_ed25519");
    // What OpenSSH reads, what is public, and whose keys nobody asked about.
    host.sh(
        ANN,
        "ssh-keygen -y -f .ssh/id_ed25519 > /dev/null; cat .ssh/id_ed25519.pub > /dev/null",
    )
    .ok();
    host.sh(BOB, "cat .ssh/id_ed25519 > /dev/null").ok();
    let reader = reader(&host, ANN, ".ssh/id_ed25519");
    let alert = daemon.line("alert on perl", |line| {
        line.is_alert_of(READ) && line.is("process.executable", PERL)
    });
    assert!(alert.is("file.path", &key), "{}", alert.brief());
    assert!(alert.is("event.action", "open"), "{}", alert.brief());
    assert_eq!(alert.get("event.type"), &serde_json::json!(["access"]));
    assert_eq!(alert.number("process.pid"), Some(reader.pid().into()));
    assert!(alert.is("user.name", "ann"), "{}", alert.brief());
    assert!(alert.is("ssh_keywatch.key.type", "ssh-ed25519"));
    assert!(
        alert.text("message").contains("/usr/bin/perl opened the "),
        "{}",
        alert.text("message")
    );
    let ended = daemon.stop();
    let paths: BTreeSet<_> = ended.paths(READ).into_iter().collect();
    assert_eq!(paths, BTreeSet::from([key]));
    ended.assert_nothing_lost();
}

#[test]
fn a_flood_of_opens_is_one_alert_for_each_program_that_reads() {
    let host = host();
    let daemon = host.daemon().rule("read", &read_keys()).start();
    host.sh(
        ANN,
        "for i in $(seq 3000); do read -r _ < .ssh/id_ed25519; done
         perl -e 'for (1 .. 3000) { open my $f, \"<\", \".ssh/id_ed25519\" or die }'",
    )
    .ok();
    let ended = daemon.stop();
    let alerts = ended.alerts(READ);
    let pids: BTreeSet<_> = alerts
        .iter()
        .map(|alert| alert.number("process.pid").unwrap())
        .collect();
    assert_eq!(pids.len(), 2, "the shell and perl");
    // One in ten seconds for each: a machine may be slow.
    assert!(alerts.len() < 60, "{}", alerts.len());
    ended.assert_nothing_lost();
}

#[test]
fn opens_are_asked_of_the_kernel_only_where_rules_ask_and_while_they_do() {
    let host = host();
    let daemon = host.daemon().rule("any", &any_creation()).start();
    assert_eq!(marked_for_opens(&daemon), BTreeSet::new());

    host.write("/etc/ssh-keywatch/rules.d/read.toml", read_keys());
    daemon.signal(Signal::SIGHUP);
    daemon.line("reload", |line| line.is_state("reload"));
    let ann = inode(&host, "/home/ann/.ssh");
    assert_eq!(marked_for_opens(&daemon), BTreeSet::from([ann]));

    // A directory that comes later is asked about, too, before its first file.
    host.command("mkdir").args(["/root/.ssh"]).ok();
    host.sh(ANN, "cp .ssh/id_ed25519.pub .ssh/new").ok();
    daemon.alert(ANY, &ANN.ssh("new"));
    let root = inode(&host, "/root/.ssh");
    assert_eq!(marked_for_opens(&daemon), BTreeSet::from([ann, root]));

    fs::remove_file(host.path("/etc/ssh-keywatch/rules.d/read.toml")).unwrap();
    daemon.signal(Signal::SIGHUP);
    daemon.find(SOON, "second reload", |log| {
        (log.iter().filter(|line| line.is_state("reload")).count() == 2).then_some(())
    });
    assert_eq!(marked_for_opens(&daemon), BTreeSet::new());
    // Nothing else was let go by that.
    host.sh(ANN, "echo > .ssh/last").ok();
    daemon.alert(ANY, &ANN.ssh("last"));
    let ended = daemon.stop();
    assert_eq!(ended.paths(ANY), [ANN.ssh("last"), ANN.ssh("new")]);
}

#[test]
fn neither_the_daemon_nor_the_making_of_a_file_is_told_as_an_open() {
    let host = host();
    // Of everybody: also of the daemon, which reads each key it tells of.
    let query = r#"file where event.action == "open""#;
    let daemon = host
        .daemon()
        .rule("read", &rule(READ, "Any open", query))
        .rule("any", &any_creation())
        .rule(
            "all",
            &rule(
                "33333333-2222-4333-8444-555555555555",
                "Whatever happens",
                r#"file where file.path : "/home/*""#,
            ),
        )
        .start();
    let key = ANN.ssh("id_new");
    host.keygen(ANN, "ed25519").args(["-f", &key]).ok();
    daemon.alert(ANY, &format!("{key}.pub"));
    let reader = reader(&host, BOB, ".ssh/id_ed25519.pub");
    daemon.alert(READ, &BOB.ssh("id_ed25519.pub"));
    let ended = daemon.stop();
    for alert in ended.alerts(READ) {
        let pid = alert.number("process.pid");
        assert_eq!(pid, Some(reader.pid().into()), "{}", alert.brief());
    }
    // A rule that does not speak of opens is not asked about those that another wants.
    let others = ended.alerts("33333333-2222-4333-8444-555555555555");
    assert!(!others.is_empty());
    for alert in others {
        assert!(!alert.is("event.action", "open"), "{}", alert.brief());
    }
}
