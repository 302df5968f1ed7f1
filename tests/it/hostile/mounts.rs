//! What is mounted at watched paths, and taken away from there.

use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;

use nix::sys::signal::Signal;

use super::{assert_untold, compared, made, start};
use crate::document::ANY;
use crate::host::{ANN, BOB, Host, ROOT};
use crate::process::SOON;

/// A file system with a key list of ann's, mounted at /srv/other.
const OTHER: &str = "mkdir -p /srv/other; mount -t tmpfs -o mode=755 other /srv/other
    mkdir -m 700 /srv/other/.ssh; echo other > /srv/other/.ssh/authorized_keys
    chown -R ann: /srv/other";

#[test]
fn a_file_system_over_dot_ssh_and_away_again() {
    let host = Host::new();
    host.sh(ANN, "mkdir -m 700 .ssh; echo mine > .ssh/authorized_keys")
        .ok();
    // The directory that will be covered stays within reach.
    host.sh(ROOT, OTHER).ok();
    host.sh(ROOT, "mkdir /srv/under; mount --bind ~ann/.ssh /srv/under")
        .ok();
    let daemon = start(&host);
    host.sh(ROOT, "mount --bind /srv/other/.ssh ~ann/.ssh").ok();
    let alert = compared(&daemon, &ANN.ssh("authorized_keys"), "modification");
    let reason = alert.text("event.reason");
    assert!(reason.contains("not mounted here"), "{reason}");
    made(&host, &daemon, &ANN.ssh("over"));
    host.sh(ANN, "echo > /srv/under/covered").ok();
    // It is not at the watched path as long as it is covered.
    made(&host, &daemon, &ANN.ssh("over2"));
    host.sh(ROOT, "umount ~ann/.ssh").ok();
    compared(&daemon, &ANN.ssh("covered"), "creation");
    made(&host, &daemon, &ANN.ssh("under"));
    host.sh(ANN, "echo > /srv/other/.ssh/away").ok();
    made(&host, &daemon, &ANN.ssh("last"));
    let ended = daemon.stop();
    assert_untold(&ended, "away");
    let covered = ANN.ssh("covered");
    ended.alert(ANY, &covered);
    ended.assert_nothing_lost();
}

#[test]
fn a_home_that_is_mounted_while_it_runs() {
    let host = Host::new();
    host.sh(ROOT, OTHER).ok();
    host.sh(ROOT, "mkdir /home/late").ok();
    let daemon = start(&host);
    host.sh(ROOT, "mount --move /srv/other /home/late").ok();
    compared(&daemon, "/home/late/.ssh/authorized_keys", "creation");
    made(&host, &daemon, "/home/late/.ssh/new");
    // Once more, and it is known; what changed meanwhile is not.
    host.sh(ROOT, "mount --move /home/late /srv/other").ok();
    daemon.roots(SOON, "it is still watched", |roots| {
        let is_it = |root: &serde_json::Value| root["path"] == "/home/late/.ssh";
        !roots.iter().any(is_it)
    });
    host.sh(
        ROOT,
        "echo > /srv/other/.ssh/meanwhile; mount --move /srv/other /home/late",
    )
    .ok();
    compared(&daemon, "/home/late/.ssh/meanwhile", "creation");
    made(&host, &daemon, "/home/late/.ssh/last");
    let ended = daemon.stop();
    ended.alert(ANY, "/home/late/.ssh/authorized_keys");
    ended.assert_nothing_lost();
}

#[test]
fn another_file_system_over_all_homes() {
    let host = Host::new();
    host.sh(BOB, "mkdir -m 700 .ssh; echo > .ssh/mine").ok();
    host.sh(ROOT, "mkdir -p /srv/homes/ann/.ssh; echo > /srv/homes/ann/.ssh/there; chown -R ann: /srv/homes/ann")
        .ok();
    let daemon = start(&host);
    host.sh(ROOT, "mount --bind /srv/homes /home").ok();
    compared(&daemon, &ANN.ssh("there"), "creation");
    made(&host, &daemon, &ANN.ssh("new"));
    host.sh(ROOT, "umount /home").ok();
    // Covered is not gone.
    host.sh(ROOT, "rm ~bob/.ssh/mine; echo > ~bob/.ssh/other")
        .ok();
    compared_or_seen(&daemon, &BOB.ssh("other"));
    let ended = daemon.stop();
    let bobs = ended.alerts(ANY);
    let early: Vec<_> = bobs
        .iter()
        .filter(|alert| alert.is("file.path", &BOB.ssh("mine")))
        .collect();
    assert!(early.len() <= 1, "{early:#?}");
    ended.assert_nothing_lost();
}

/// It may have been made before or after the daemon saw what is mounted.
#[track_caller]
fn compared_or_seen(daemon: &crate::daemon::Daemon<'_>, path: &str) {
    daemon.alert(ANY, path);
}

#[test]
fn a_mount_that_comes_from_another_namespace() {
    let host = Host::new();
    host.sh(ROOT, OTHER).ok();
    host.sh(ROOT, "mkdir /home/late; mount --make-shared /home")
        .ok();
    let daemon = start(&host);
    host.sh(
        ROOT,
        "unshare --mount --propagation unchanged mount --bind /srv/other /home/late",
    )
    .ok();
    compared(&daemon, "/home/late/.ssh/authorized_keys", "creation");
    made(&host, &daemon, "/home/late/.ssh/new");
    daemon.stop().assert_nothing_lost();
}

#[test]
fn mounts_elsewhere_are_none_of_our_business() {
    let host = Host::new();
    host.sh(ANN, "mkdir -m 700 .ssh; echo > .ssh/old").ok();
    let daemon = start(&host);
    host.sh(
        ROOT,
        "for i in $(seq 50); do mkdir -p /srv/m$i; mount -t tmpfs m /srv/m$i; done
         for i in $(seq 50); do umount /srv/m$i; done
         mount --bind /home/ann /home/ann; umount /home/ann",
    )
    .ok();
    made(&host, &daemon, &ANN.ssh("new"));
    let ended = daemon.stop();
    assert_eq!(ended.paths(ANY), [ANN.ssh("new")]);
    ended.assert_nothing_lost();
}

/// The device of the file system at `path`, as the kernel counts them.
fn device(host: &Host, path: &str) -> u64 {
    let device = std::fs::metadata(host.path(path)).unwrap().dev();
    u64::from(libc::major(device)) << 20 | u64::from(libc::minor(device))
}

/// While a key tool runs whole file systems are marked, to see the first key of an account.
#[test]
fn a_file_system_that_is_covered_while_a_key_tool_runs_keeps_no_mark() {
    let host = Host::new();
    host.sh(ROOT, OTHER).ok();
    let daemon = start(&host);
    // It asks where the key shall be.
    let keygen = host.command("ssh-keygen").args(["-q", "-N", ""]).user(ANN);
    let mut keygen = keygen.spawn_talking();
    let under = device(&host, "/home");
    daemon.file_systems("homes", |marked| marked.contains(&under));
    host.sh(ROOT, "mount --move /srv/other /home").ok();
    keygen.signal(Signal::SIGKILL);
    keygen.end(SOON);
    daemon.file_systems("none", <[u64]>::is_empty);
    daemon.stop();
}

/// A first key where something has just been mounted.
#[test]
fn a_home_that_is_mounted_while_a_key_tool_runs() {
    let host = Host::new();
    let homes = "mkdir -p /srv/homes; mount -t tmpfs -o mode=755 homes /srv/homes
        mkdir /srv/homes/ann; chown ann: /srv/homes/ann";
    host.sh(ROOT, homes).ok();
    let daemon = start(&host);
    // It asks where the key shall be.
    let keygen = ["-q", "-t", "ed25519", "-N", ""];
    let keygen = host.command("ssh-keygen").args(keygen).user(ANN);
    let mut keygen = keygen.spawn_talking();
    let (under, over) = (device(&host, "/home"), device(&host, "/srv/homes"));
    daemon.file_systems("homes", |marked| marked.contains(&under));
    host.sh(ROOT, "mount --move /srv/homes /home").ok();
    daemon.file_systems("new ones", |marked| marked.contains(&over));
    keygen.stdin().write_all(b"\n").unwrap();
    assert!(keygen.end(SOON).success());
    let alert = daemon.alert(ANY, &ANN.ssh("id_ed25519"));
    let shown = alert.brief();
    let pid = Some(keygen.pid().into());
    assert_eq!(alert.number("process.pid"), pid, "{shown}");
    let certain = alert.get("ssh_keywatch.attribution.certain");
    assert_eq!(certain, true, "{shown}");
    daemon.file_systems("none", <[u64]>::is_empty);
    daemon.stop().assert_nothing_lost();
}
