//! Watched places on file systems of a server: FUSE here, whose servers can be
//! had without a network.

use std::cell::Cell;
use std::io::Read as _;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{anything, compared, made};
use crate::daemon::Daemon;
use crate::document::{ANY, Document};
use crate::host::{ANN, Host, ROOT, User};
use crate::process::{Process, SOON};

/// Longer than a server is waited for, on a loaded machine too.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that shows /srv/server at `place`; mounted by `user`.
fn serve(host: &Host, user: User, place: &str) -> Process {
    let allowed = ["--no-allow-other"];
    let allowed = &allowed[..usize::from(user.id != 0)];
    let mut server = host
        .command("bindfs")
        .args(allowed)
        .args([
            "-f",
            "-o",
            "attr_timeout=0,entry_timeout=0,nonempty",
            "/srv/server",
            place,
        ])
        .user(user)
        .spawn();
    let until = Instant::now() + SOON;
    let table = format!("/proc/{}/mountinfo", server.pid());
    let is_mounted = || {
        let table = std::fs::read_to_string(&table);
        table.is_ok_and(|table| table.contains(&format!(" {place} ")))
    };
    while !is_mounted() {
        if server.has_ended() {
            let mut said = String::new();
            server.stderr().read_to_string(&mut said).unwrap();
            panic!("bindfs cannot serve {place}: {said}");
        }
        assert!(Instant::now() < until, "bindfs does not serve {place}");
        std::thread::yield_now();
    }
    server
}

/// A host with a home on the server's side.
fn host() -> Host {
    let host = Host::new();
    host.sh(
        ROOT,
        "mkdir -p /home/far /srv/server/.ssh
         echo one > /srv/server/.ssh/authorized_keys; echo > /srv/server/.ssh/old",
    )
    .ok();
    host.sh(ANN, "mkdir -m 700 .ssh").ok();
    host
}

fn start(host: &Host) -> Daemon<'_> {
    let daemon = host.daemon().config("[watch]\npoll_interval = 1\n");
    daemon.rule("any", &anything()).start()
}

/// Waits until it says that a root is watched so.
#[track_caller]
fn covered(daemon: &Daemon<'_>, path: &str, how: &str) -> Document {
    let found = Cell::new(None);
    daemon.roots(PATIENCE, &format!("{path} is not {how}"), |roots| {
        let mut roots = roots.iter();
        let root = roots.find(|root| root["path"] == path && root["how"] == how);
        found.set(root.cloned());
        root.is_some()
    });
    Document(found.take().unwrap())
}

#[test]
fn what_the_server_changes_is_found() {
    let host = host();
    let _server = serve(&host, ROOT, "/home/far");
    let daemon = start(&host);
    let root = covered(&daemon, "/home/far/.ssh", "polled");
    assert!(root.text("reason").contains("every 1 s"), "{root:?}");
    // Right after a look, and each by one act: no look sees half of it.
    host.sh(ROOT, "cd /srv/server; echo > first; mv first .ssh")
        .ok();
    compared(&daemon, "/home/far/.ssh/first", "creation");
    host.sh(
        ROOT,
        "cd /srv/server; mkdir deep; echo > deep/new; cd .ssh
         echo two >> authorized_keys; rm old; mv ../deep .",
    )
    .ok();
    let alert = compared(&daemon, "/home/far/.ssh/authorized_keys", "modification");
    let reason = alert.text("event.reason");
    assert!(reason.contains("looked at now and then"), "{reason}");
    assert_eq!(alert.text("file.owner"), "root");
    compared(&daemon, "/home/far/.ssh/deep/new", "creation");
    compared(&daemon, "/home/far/.ssh/old", "deletion");
    // By this kernel.
    host.sh(ROOT, "cd /home/far; echo > here; mv here .ssh")
        .ok();
    compared(&daemon, "/home/far/.ssh/here", "creation");
    made(&host, &daemon, &ANN.ssh("near"));
    let ended = daemon.stop();
    assert_eq!(ended.paths(ANY).len(), 6, "{:?}", ended.paths(ANY));
    ended.assert_nothing_lost();

    // While it did not run.
    host.sh(ROOT, "echo > /srv/server/.ssh/down").ok();
    let daemon = start(&host);
    let alert = compared(&daemon, "/home/far/.ssh/down", "creation");
    let reason = alert.text("event.reason");
    assert!(reason.contains("not running, between"), "{reason}");
    let ended = daemon.stop();
    ended.alert(ANY, "/home/far/.ssh/down");
}

#[test]
fn a_server_that_is_mounted_while_it_runs_and_goes_again() {
    let host = host();
    let daemon = start(&host);
    let mut server = serve(&host, ROOT, "/home/far");
    compared(&daemon, "/home/far/.ssh/authorized_keys", "creation");
    server.signal(Signal::SIGTERM);
    server.end(SOON);
    // What lies below is another directory, and what is not mounted is not gone.
    host.sh(ROOT, "mkdir -p /home/far/.ssh").ok();
    covered(&daemon, "/home/far/.ssh", "held");
    host.command("touch").args(["/home/far/.ssh/local"]).ok();
    daemon.alert(ANY, "/home/far/.ssh/local");
    let _server = serve(&host, ROOT, "/home/far");
    covered(&daemon, "/home/far/.ssh", "polled");
    host.sh(ROOT, "echo > /srv/server/.ssh/again").ok();
    compared(&daemon, "/home/far/.ssh/again", "creation");
    let ended = daemon.stop();
    ended.alert(ANY, "/home/far/.ssh/authorized_keys");
    ended.alert(ANY, "/home/far/.ssh/old");
}

#[test]
fn a_server_that_hangs_keeps_nobody_else_from_being_watched() {
    let host = host();
    let server = serve(&host, ROOT, "/home/far");
    let daemon = start(&host);
    covered(&daemon, "/home/far/.ssh", "polled");
    server.signal(Signal::SIGSTOP);
    made(&host, &daemon, &ANN.ssh("meanwhile"));
    let said = daemon.find(PATIENCE, "word about the server", |log| {
        log.iter()
            .find(|line| line.is("event.code", "place_unseen"))
            .cloned()
    });
    assert!(said.is("event.kind", "pipeline_error"));
    covered(&daemon, "/home/far/.ssh", "none");
    // A new home is found, another mount followed, a reload done.
    host.sh(ROOT, "mkdir -p /home/eve/.ssh; chown -R ann: /home/eve")
        .ok();
    covered(&daemon, "/home/eve/.ssh", "held");
    made(&host, &daemon, "/home/eve/.ssh/new");
    daemon.signal(Signal::SIGHUP);
    daemon.line("reload", |line| line.is_state("reload"));
    daemon.stop();

    // It starts all the same, and hears of the server when that comes round.
    let daemon = start(&host);
    made(&host, &daemon, &ANN.ssh("after"));
    host.sh(ROOT, "echo > /srv/server/.ssh/hidden").ok();
    server.signal(Signal::SIGCONT);
    compared(&daemon, "/home/far/.ssh/hidden", "creation");
    daemon.stop();
}

#[test]
fn a_file_system_that_a_user_serves_over_dot_ssh() {
    let host = host();
    host.sh(
        ROOT,
        "chown -R ann: /srv/server
         mknod /run/it/fuse c 10 229; chmod 666 /run/it/fuse; mount --bind /run/it/fuse /dev/fuse",
    )
    .ok();
    let daemon = start(&host);
    let dot_ssh = ANN.ssh("");
    let dot_ssh = dot_ssh.trim_end_matches('/');
    let server = serve(&host, ANN, dot_ssh);
    // Root is not let in there: that is said, and others are watched.
    let root = covered(&daemon, dot_ssh, "none");
    assert!(root.text("reason").contains("ermission denied"), "{root:?}");
    server.signal(Signal::SIGSTOP);
    host.sh(ROOT, "mkdir -p /home/eve/.ssh; chown -R ann: /home/eve")
        .ok();
    covered(&daemon, "/home/eve/.ssh", "held");
    made(&host, &daemon, "/home/eve/.ssh/new");
    drop(server);
    daemon.stop();
}
