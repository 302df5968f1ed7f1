//! Directories with odd modes, names and neighbours.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{assert_untold, made, made_by, start};
use crate::daemon::Daemon;
use crate::document::{ANY, Document};
use crate::host::{ANN, Host, ROOT, TOOLS};
use crate::process::SOON;

#[test]
fn a_dot_ssh_of_mode_000() {
    let host = Host::new();
    host.sh(ANN, "mkdir -m 700 .ssh; echo > .ssh/old; chmod 000 .ssh")
        .ok();
    let daemon = start(&host);
    let path = ANN.ssh("roots");
    host.sh(ROOT, &format!("echo > {path}")).ok();
    daemon.alert(ANY, &path);
    host.sh(ANN, "chmod 700 .ssh").ok();
    made(&host, &daemon, &ANN.ssh("own"));
    // One that comes so, in a home that comes so.
    host.sh(
        ROOT,
        "mkdir -p /home/eve/.ssh; chmod 000 /home/eve /home/eve/.ssh",
    )
    .ok();
    host.sh(ROOT, "echo > /home/eve/.ssh/key").ok();
    daemon.alert(ANY, "/home/eve/.ssh/key");
    let ended = daemon.stop();
    assert_untold(&ended, "old");
    ended.assert_nothing_lost();
}

#[test]
fn files_and_directories_that_cannot_be_changed() {
    let host = Host::new();
    // Of a file system that knows of it; it goes with the namespace.
    host.sh(
        ROOT,
        "truncate -s 16M /srv/image; mkfs.ext4 -q /srv/image; mkdir /home/disk
         mount -o loop /srv/image /home/disk; mkdir /home/disk/.ssh
         echo one > /home/disk/.ssh/authorized_keys; chown -R ann: /home/disk
         chattr +i /home/disk/.ssh/authorized_keys; chattr +i /home/disk/.ssh",
    )
    .ok();
    let daemon = start(&host);
    let refused = host.sh(ANN, "echo > /home/disk/.ssh/new").output();
    assert!(!refused.status.success());
    host.sh(ROOT, "chattr -i /home/disk/.ssh").ok();
    made(&host, &daemon, "/home/disk/.ssh/new");
    host.sh(
        ROOT,
        "cd /home/disk/.ssh; chattr -i authorized_keys; echo two >> authorized_keys",
    )
    .ok();
    let list = "/home/disk/.ssh/authorized_keys";
    let alert = daemon.alert(ANY, list);
    assert!(alert.is("event.action", "modification"));
    host.sh(ROOT, "cd /home/disk/.ssh; echo > fixed; chattr +i fixed")
        .ok();
    daemon.alert(ANY, "/home/disk/.ssh/fixed");
    // Nothing of the daemon keeps it mounted for longer than a look takes.
    let until = Instant::now() + SOON;
    loop {
        let umount = host.sh(ROOT, "umount /home/disk").output();
        if umount.status.success() {
            break;
        }
        let is_busy = umount.stderr.contains("busy");
        assert!(is_busy && Instant::now() < until, "{umount:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    daemon.stop().assert_nothing_lost();
}

#[test]
fn a_file_system_without_an_inode_left() {
    let host = Host::new();
    host.sh(
        ROOT,
        "mkdir /home/full; mount -t tmpfs -o nr_inodes=24,mode=755 full /home/full
         mkdir /home/full/.ssh; chown -R ann: /home/full",
    )
    .ok();
    let daemon = start(&host);
    let filled = host
        .sh(
            ANN,
            "cd /home/full/.ssh; n=0; while touch f$n 2>/dev/null; do n=$((n+1)); done; echo $n",
        )
        .ok();
    let count: usize = filled.stdout.trim().parse().unwrap();
    assert!((5..24).contains(&count), "{count}");
    for number in 0..count {
        daemon.alert(ANY, &format!("/home/full/.ssh/f{number}"));
    }
    host.sh(ANN, "cd /home/full/.ssh; rm f0").ok();
    made(&host, &daemon, "/home/full/.ssh/again");
    daemon.stop().assert_nothing_lost();
}

#[test]
fn homes_that_are_renamed_away() {
    let host = Host::new();
    host.sh(
        ROOT,
        "mkdir -p /srv/people/zoe/.ssh; chown -R ann: /srv/people/zoe",
    )
    .ok();
    let daemon = host
        .daemon()
        .config("[watch]\nhomes = [\"/srv/people/*\"]\n")
        .rule("any", &super::anything())
        .start();
    made(&host, &daemon, "/srv/people/zoe/.ssh/before");
    host.sh(
        ROOT,
        "mv /srv/people /srv/away; echo > /srv/away/zoe/.ssh/away",
    )
    .ok();
    host.sh(
        ROOT,
        "mkdir -p /srv/people/zed/.ssh; chown -R ann: /srv/people/zed",
    )
    .ok();
    made_by(&host, &daemon, ANN, "/srv/people/zed/.ssh/other");
    host.sh(ROOT, "echo > /srv/away/zoe/.ssh/away2").ok();
    made(&host, &daemon, "/srv/people/zed/.ssh/last");
    host.sh(ROOT, "mv /srv/people /srv/second; mv /srv/away /srv/people")
        .ok();
    made_by(&host, &daemon, ANN, "/srv/people/zoe/.ssh/back");
    let ended = daemon.stop();
    assert_untold(&ended, "/srv/away");
    assert_untold(&ended, "/srv/second");
    // Renamed back with all that is in it, what came meanwhile is there, too.
    let early = |alert: &&&Document| alert.is("file.path", "/srv/people/zoe/.ssh/away2");
    assert!(ended.alerts(ANY).iter().filter(early).count() <= 1);
    ended.assert_nothing_lost();
}

#[test]
fn chroots_and_namespaces_of_others() {
    let host = Host::new();
    host.sh(ANN, "mkdir -m 700 .ssh").ok();
    host.sh(
        ROOT,
        &format!(
            "mkdir -p /srv/jail/home/ann/.ssh /srv/jail/keys; cp {TOOLS}/act /srv/jail/act
             chown ann: /srv/jail/home/ann/.ssh; mount --bind /home/ann/.ssh /srv/jail/keys"
        ),
    )
    .ok();
    let daemon = start(&host);
    let act = |path: &str| {
        let chroot = host.command("chroot");
        chroot
            .args(["--userspec=4001:4001", "/srv/jail", "/act", "create", path])
            .ok()
    };
    // By its own name for another directory, and by another name for ours.
    act("/home/ann/.ssh/jailed");
    let output = act("/keys/shown");
    let alert = daemon.alert(ANY, &ANN.ssh("shown"));
    assert_eq!(alert.number("process.pid"), Some(output.pid.into()));

    let mine = |script: &str| {
        let unshare = host
            .command("unshare")
            .user(ANN)
            .args(["-Urm", "sh", "-euc"]);
        unshare.args([script]).ok()
    };
    mine("mount -t tmpfs own /home/ann/.ssh; echo > /home/ann/.ssh/inside");
    let output = mine("mount --bind /home/ann/.ssh /srv/jail/home; echo > /srv/jail/home/through");
    let alert = daemon.alert(ANY, &ANN.ssh("through"));
    assert_eq!(alert.number("process.pid"), Some(output.pid.into()));
    assert_eq!(alert.text("user.id"), "4001", "not who it is in there");
    made(&host, &daemon, &ANN.ssh("last"));
    let ended = daemon.stop();
    assert_untold(&ended, "jail");
    assert_untold(&ended, "inside");
    ended.assert_nothing_lost();
}

/// Waits for as many alerts on files as there are names, and returns their paths.
fn paths(daemon: &Daemon<'_>, count: usize) -> Vec<String> {
    daemon.find(SOON, "alerts on all names", |log| {
        let alerts = log.iter().filter(|line| line.is_alert_of(ANY));
        let paths: Vec<_> = alerts
            .map(|line| line.text("file.path").to_owned())
            .collect();
        (paths.len() >= count).then_some(paths)
    })
}

#[test]
fn names_that_look_like_others() {
    let host = Host::new();
    host.sh(
        ANN,
        "mkdir -m 700 .ssh .SSH '.ssh ' .ssh\u{200b} \u{ff0e}ssh .\u{455}\u{455}h",
    )
    .ok();
    let daemon = start(&host);
    host.sh(ANN, "for dir in .SSH '.ssh ' .ssh\u{200b} \u{ff0e}ssh .\u{455}\u{455}h; do echo > \"$dir/id\"; done")
        .ok();
    let names = [
        "Authorized_keys",
        "authorized_keys ",
        "authorized_keys\u{200b}",
        "\u{430}uthorized_keys",
        "authorized_keys\u{202e}",
        "cafe\u{301}",
        "caf\u{e9}",
        "a\nb",
    ];
    for name in names {
        host.command("touch").args([ANN.ssh(name)]).user(ANN).ok();
    }
    let mut told = paths(&daemon, names.len());
    told.sort();
    told.dedup();
    assert_eq!(
        told.len(),
        names.len(),
        "each has a name of its own: {told:?}"
    );
    made(&host, &daemon, &ANN.ssh("authorized_keys"));
    let ended = daemon.stop();
    for alert in ended.alerts(ANY) {
        let path = alert.text("file.path");
        assert!(path.starts_with("/home/ann/.ssh/"), "{path}");
        let shown = alert
            .text("message")
            .chars()
            .all(|c| !c.is_control() && !"\u{200b}\u{202e}".contains(c));
        assert!(shown, "{path:?}");
    }
    assert_eq!(ended.paths(ANY).len(), names.len() + 1);
    ended.assert_nothing_lost();
}

/// With casefold a file has many names, of which sshd looks for one.
#[test]
fn names_in_a_directory_that_folds_them() {
    if !Path::new("/sys/fs/ext4/features/casefold").exists() {
        // Not by a macro: the harness would keep it to itself.
        let said = "not tried: this kernel's ext4 has no casefold (CONFIG_UNICODE); \
                    packaging/test-on-6.1 tries it";
        writeln!(std::io::stderr(), "{said}").unwrap();
        return;
    }
    let host = Host::new();
    host.sh(
        ROOT,
        "truncate -s 16M /srv/image; mkfs.ext4 -q -O casefold /srv/image; mkdir /home/fold
         mkdir /srv/disk; mount -o loop /srv/image /srv/disk; mkdir /srv/disk/home
         mount --bind /srv/disk/home /home/fold; chown ann: /home/fold",
    )
    .ok();
    let daemon = start(&host);
    let list = "/home/fold/.ssh/authorized_keys";
    let is_told = |alert: &Document| alert.is_alert_of(ANY) && alert.is("file.path", list);
    let mut told: Vec<&str> = Vec::new();
    for (script, action) in [
        // It is watched before it folds, of which no record tells.
        (
            "mkdir -m 700 .ssh; ! cat .ssh/authorized_keys; chattr +F .ssh; echo 1 > .ssh/AUTHORIZED_KEYS",
            "creation",
        ),
        ("echo 2 >> .ssh/authorized_\u{212a}eys", "modification"),
        ("rm .ssh/authorized_key\u{17f}", "deletion"),
        ("echo 3 > .ssh/author\u{ad}ized_keys", "creation"),
        ("mv .ssh/Authorized_keys away", "deletion"),
        ("mv away .ssh/\u{200b}authorized_\u{212a}eys", "rename"),
        (
            "ln .ssh/authorized_keys away; rm .ssh/AUTHORIZED_KEYS",
            "deletion",
        ),
        ("ln -s away .ssh/Authorized_Key\u{17f}", "creation"),
        ("rm -r .ssh", "deletion"),
        (
            "rm away; chattr +F .; mkdir -m 700 .SSH; echo 4 > .Ssh/AUTHORIZED_KEYS",
            "creation",
        ),
        ("rm -r .ssh", "deletion"),
    ] {
        host.sh(ANN, &format!("cd /home/fold; {script}")).ok();
        told.push(action);
        daemon.find(SOON, script, |log| {
            let count = log.iter().filter(|line| is_told(line)).count();
            (count >= told.len()).then_some(())
        });
    }
    // Without casefold a name that nearly is one is another.
    host.sh(ANN, "cd /home/fold; mkdir -m 700 .ssh; chattr -F .ssh")
        .ok();
    made(&host, &daemon, "/home/fold/.ssh/AUTHORIZED_KEYS");
    let ended = daemon.stop();
    let alerts = ended.alerts(ANY);
    let other = alerts.iter().filter(|alert| !is_told(alert)).count();
    assert_eq!(other, 1, "{:?}", ended.paths(ANY));
    let alerts = alerts.iter().filter(|alert| is_told(alert));
    let actions: Vec<&str> = alerts.map(|alert| alert.text("event.action")).collect();
    assert_eq!(actions, told);
    ended.assert_nothing_lost();
}

/// Of an automount point whose daemon never answers.
#[test]
fn a_trigger_of_a_mount_is_not_pulled() {
    let host = Host::new();
    host.sh(ANN, "mkdir -m 700 .ssh").ok();
    // The pipe has a reader that reads nothing.
    let setup = "mkdir -p /home/auto; mkfifo /srv/pipe; exec 8<>/srv/pipe
        mount -t autofs -o fd=8,pgrp=1,minproto=5,maxproto=5,direct auto /home/auto; echo ready; sleep 150";
    let mut keeper = host.sh(ROOT, setup).spawn();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(keeper.stdout()), &mut line).unwrap();
    assert_eq!(line, "ready\n");
    let daemon = start(&host);
    made(&host, &daemon, &ANN.ssh("near"));
    // Others go there, and wait.
    let waiting = host.command("ls").args(["/home/auto/"]).spawn_silent();
    host.sh(ROOT, "mkdir -p /home/eve/.ssh; chown -R ann: /home/eve")
        .ok();
    made_by(&host, &daemon, ANN, "/home/eve/.ssh/new");
    host.sh(ROOT, "mkdir /srv/any; mount -t tmpfs any /srv/any")
        .ok();
    made(&host, &daemon, "/home/eve/.ssh/last");
    drop(waiting);
    let ended = daemon.stop();
    drop(keeper);
    assert_untold(&ended, "/home/auto");
}
