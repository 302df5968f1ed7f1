//! What is moved out of the watched places has no marks there, however much it is.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Instant;

use crate::daemon::Daemon;
use crate::document::{ANY, Document, anything};
use crate::host::{ANN, Host, ROOT};
use crate::process::SOON;

/// The inodes of all that is below a directory, and its own.
fn inodes(directory: &Path) -> BTreeSet<u64> {
    let mut inodes = BTreeSet::from([directory.metadata().unwrap().ino()]);
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            inodes.extend(self::inodes(&path));
        } else {
            inodes.insert(path.metadata().unwrap().ino());
        }
    }
    inodes
}

/// How many marks there are on what is below this directory of ann's.
fn marks(host: &Host, daemon: &Daemon<'_>, directory: &str) -> usize {
    let inodes = inodes(&host.path(&format!("{}/{directory}", ANN.home)));
    let marks = daemon.marks().into_iter();
    marks.filter(|(inode, _)| inodes.contains(inode)).count()
}

/// Waits until there are so many; each look is a long one, through all files.
#[track_caller]
fn wait_for_marks(host: &Host, daemon: &Daemon<'_>, directory: &str, wanted: usize) {
    let until = Instant::now() + SOON;
    loop {
        let marks = marks(host, daemon, directory);
        if marks == wanted {
            return;
        }
        let is_over = Instant::now() > until;
        assert!(!is_over, "{marks} marks in {directory} and not {wanted}");
        std::thread::yield_now();
    }
}

fn start<'h>(host: &'h Host, script: &str) -> Daemon<'h> {
    host.sh(ANN, &format!("mkdir -m 700 .ssh out; {script}"))
        .ok();
    let many = "[watch]\nhome_events = 1000000\n";
    host.daemon().config(many).rule("any", &anything()).start()
}

/// All that was done before is told.
#[track_caller]
fn told(host: &Host, daemon: &Daemon<'_>, name: &str) {
    host.sh(ANN, &format!("echo x > .ssh/{name}")).ok();
    let alert = daemon.line(name, |line| {
        line.is_alert_of(ANY) && line.is("file.path", &ANN.ssh(name))
    });
    assert!(
        alert.is("ssh_keywatch.evidence", "fanotify"),
        "{}",
        alert.brief()
    );
}

#[test]
fn directories_that_are_moved_out_keep_no_marks() {
    let host = Host::on_disk();
    let daemon = start(&host, "");
    host.sh(
        ANN,
        "for i in $(seq 300); do
             mkdir .ssh/d$i .ssh/d$i/a .ssh/d$i/a/b; mv .ssh/d$i out
         done",
    )
    .ok();
    told(&host, &daemon, "after");
    wait_for_marks(&host, &daemon, "out", 0);
    // One with many in it, at once.
    host.sh(
        ANN,
        "mkdir .ssh/all; for i in $(seq 300); do mkdir .ssh/all/d$i; done",
    )
    .ok();
    // Each has a mark in either group.
    wait_for_marks(&host, &daemon, ".ssh/all", 2 * 301);
    host.sh(ANN, "mv .ssh/all out").ok();
    wait_for_marks(&host, &daemon, "out", 0);
    // What comes back is watched again, and what stays in a watched place always is.
    host.sh(ANN, "mkdir .ssh/one; mv out/all .ssh/one/all").ok();
    wait_for_marks(&host, &daemon, ".ssh/one", 2 * 302);
    told(&host, &daemon, "one/all/d300/key");
    host.sh(ANN, "mv .ssh/one .ssh/two").ok();
    told(&host, &daemon, "two/all/d299/key");
    assert_eq!(marks(&host, &daemon, ".ssh/two"), 2 * 302 + 2);
    // Out and back at once.
    host.sh(ANN, "mv .ssh/two out; mv out/two .ssh/two").ok();
    told(&host, &daemon, "back");
    wait_for_marks(&host, &daemon, ".ssh/two", 2 * 302 + 2);
    told(&host, &daemon, "two/all/d298/key");
    daemon.stop().assert_nothing_lost();
}

#[test]
fn files_that_are_moved_out_keep_no_marks() {
    let host = Host::on_disk();
    let daemon = start(&host, "echo > .ssh/authorized_keys; mkdir .ssh/d");
    host.sh(
        ANN,
        "for i in $(seq 200); do echo > .ssh/f$i; ln .ssh/f$i .ssh/d/l$i; done; echo > .ssh/k",
    )
    .ok();
    daemon.alert(ANY, &ANN.ssh("k"));
    let before = marks(&host, &daemon, ".ssh");
    assert!(before >= 201, "{before}");
    // By one of two names in watched places: it is still there.
    host.sh(ANN, "mv .ssh/f* out; mv .ssh/k .ssh/d/k").ok();
    told(&host, &daemon, "after");
    assert!(marks(&host, &daemon, ".ssh/d") >= 201);
    host.sh(
        ANN,
        "for i in $(seq 200); do mv .ssh/d/l$i out; done; mv .ssh/authorized_keys out
         echo > .ssh/linked",
    )
    .ok();
    daemon.alert(ANY, &ANN.ssh("linked"));
    host.sh(ANN, "ln .ssh/linked out; rm .ssh/linked").ok();
    wait_for_marks(&host, &daemon, "out", 0);
    // .ssh, .ssh/d and the two files in it.
    wait_for_marks(&host, &daemon, ".ssh", 4 + 2);
    // A directory with all that is in it, and one of them back.
    host.sh(ANN, "mv out .ssh/in").ok();
    daemon.alert(ANY, &ANN.ssh("in/l200"));
    host.sh(ANN, "mv .ssh/in out").ok();
    wait_for_marks(&host, &daemon, "out", 0);
    host.sh(ANN, "mv out/f1 .ssh/back").ok();
    daemon.alert(ANY, &ANN.ssh("back"));
    wait_for_marks(&host, &daemon, ".ssh", 4 + 2 + 2);
    daemon.stop().assert_nothing_lost();
}

const SSHD_CHANGED: &str = "0942a554-1512-4f8a-a382-37d8986cde00";
const REMOVED: &str = "4e5e91ef-7a62-4687-896e-cf3f5d724a44";

/// No record tells of the files in it.
#[test]
fn the_files_of_a_directory_that_is_renamed_are_told() {
    let host = Host::on_disk();
    host.sh(
        ROOT,
        "mkdir -p /etc/ssh/x.d; echo 'PermitRootLogin yes' > /etc/ssh/x.d/evil.conf",
    )
    .ok();
    host.sh(
        ANN,
        "mkdir -m 700 .ssh; ssh-keygen -q -t ed25519 -N '' -f key; cp key.pub .ssh/authorized_keys
         mkdir .ssh/a .ssh/a/b; echo x > .ssh/a/b/deep",
    )
    .ok();
    let daemon = host.daemon().rule("any", &anything()).start();
    let line = |action: &str, path: &str| {
        daemon.line(path, |line: &Document| {
            line.is_alert_of(ANY) && line.is("event.action", action) && line.is("file.path", path)
        })
    };
    host.sh(ROOT, "mv /etc/ssh/x.d /etc/ssh/sshd_config.d").ok();
    let moved = line("rename", "/etc/ssh/sshd_config.d/evil.conf");
    assert!(moved.is("file.Ext.original.path", "/etc/ssh/x.d/evil.conf"));
    assert!(
        moved.is("process.executable", "/usr/bin/mv"),
        "{}",
        moved.brief()
    );
    daemon.alert(SSHD_CHANGED, "/etc/ssh/sshd_config.d/evil.conf");
    host.sh(ROOT, "mv /etc/ssh/sshd_config.d /etc/ssh/off.d")
        .ok();
    line("rename", "/etc/ssh/off.d/evil.conf");
    daemon.alert(SSHD_CHANGED, "/etc/ssh/off.d/evil.conf");

    host.sh(ANN, "mv .ssh/a .ssh/c").ok();
    let deep = line("rename", &ANN.ssh("c/b/deep"));
    assert!(deep.is("file.Ext.original.path", &ANN.ssh("a/b/deep")));
    // Out of sight, and back.
    host.sh(ANN, "mv .ssh old").ok();
    for name in ["authorized_keys", "c/b/deep"] {
        let gone = line("deletion", &ANN.ssh(name));
        assert!(
            gone.is("process.executable", "/usr/bin/mv"),
            "{}",
            gone.brief()
        );
    }
    let gone = daemon.alert(REMOVED, &ANN.ssh("authorized_keys"));
    assert_eq!(*gone.get("ssh_keywatch.key.removed_count"), 1);
    host.sh(ANN, "mv old .ssh").ok();
    line("creation", &ANN.ssh("authorized_keys"));
    daemon.stop().assert_nothing_lost();
}

/// A rename of any directory has all compared: what a flood left out, or what nobody
/// heard of, must not become known by that.
#[test]
fn what_was_not_told_is_not_known_because_a_directory_is_renamed() {
    let host = Host::on_disk();
    host.sh(
        ANN,
        "mkdir -m 700 .ssh; mkdir .ssh/d; ssh-keygen -q -t ed25519 -N '' -f key
         echo > .ssh/deploy_keys; printf '# %500s\n' > .ssh/notes; mkfifo go",
    )
    .ok();
    let few = "[watch]\nhome_events = 100\n";
    let daemon = host.daemon().config(few).rule("any", &anything()).start();
    daemon.compared();
    // Stored, and not closed.
    let mut writer = host
        .sh(ANN, "/run/it/tools/act map-open .ssh/notes go")
        .spawn();
    host.sh(
        ANN,
        "cd .ssh; for i in $(seq 120); do : > f$i; done
         cp ../key id_work; cat ../key.pub >> deploy_keys; mv d e; mkdir d",
    )
    .ok();
    for (name, action) in [
        ("id_work", "creation"),
        ("deploy_keys", "modification"),
        ("notes", "modification"),
    ] {
        daemon.line(name, |line| {
            let is_it = line.is_alert_of(ANY) && line.is("file.path", &ANN.ssh(name));
            is_it && line.is("event.action", action)
        });
    }
    host.sh(ANN, ": > go").ok();
    assert!(writer.end(SOON).success());
    let ended = daemon.stop();
    for name in ["id_work", "deploy_keys", "notes"] {
        ended.alert(ANY, &ANN.ssh(name));
    }
}
