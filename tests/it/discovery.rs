//! Directories that appear while the daemon runs are watched, and nothing that
//! is made in them goes unseen.

use crate::document::{ANY, SEED, any_creation, rule};
use crate::holding::Stopped;
use crate::host::{ANN, Host, ROOT, User};
use crate::keygen::Expected;

/// An account that is made while the daemon runs.
const EVE: User = User {
    name: "eve",
    id: 4003,
    home: "/home/eve",
};

/// Makes the account, without a home.
fn add_eve(host: &Host) {
    host.sh(
        ROOT,
        "echo eve:x:4003:4003::/home/eve:/bin/sh >> /etc/passwd; echo eve:x:4003: >> /etc/group",
    )
    .ok();
}

/// After `script`, run by root while the daemon watches, a key that the user
/// makes is alerted once, rightly.
#[track_caller]
fn key_after(host: &Host, user: User, script: &str) {
    let daemon = host.daemon().start();
    host.sh(ROOT, script).ok();
    let path = user.ssh("id_after");
    let made = host.keygen(user, "ed25519").args(["-f", &path]).ok();
    daemon.alert(SEED, &format!("{path}.pub"));
    let ended = daemon.stop();
    assert_eq!(ended.paths(SEED), [path.clone(), format!("{path}.pub")]);
    for name in [path.clone(), format!("{path}.pub")] {
        Expected {
            path: &name,
            pid: made.pid,
            user,
        }
        .check(ended.alert(SEED, &name));
    }
    ended.assert_nothing_lost();
}

#[test]
fn a_home_and_its_dot_ssh_that_appear() {
    let host = Host::new();
    add_eve(&host);
    key_after(
        &host,
        EVE,
        "mkdir -p /home/eve/.ssh; chown -R eve: /home/eve",
    );
}

#[test]
fn a_home_that_appears_empty() {
    for host in [Host::new(), Host::on_disk()] {
        add_eve(&host);
        key_after(&host, EVE, "mkdir /home/eve; chown eve: /home/eve");
    }
}

#[test]
fn a_dot_ssh_that_is_removed_and_made_again() {
    let host = Host::new();
    host.sh(ANN, "mkdir .ssh; echo > .ssh/config").ok();
    key_after(
        &host,
        ANN,
        "rm -r /home/ann/.ssh; mkdir /home/ann/.ssh; chown ann: /home/ann/.ssh",
    );
}

#[test]
fn a_home_that_is_removed_and_made_again() {
    let host = Host::new();
    host.sh(ANN, "mkdir .ssh").ok();
    key_after(
        &host,
        ANN,
        "rm -r /home/ann; mkdir -p /home/ann/.ssh; chown -R ann: /home/ann",
    );
}

#[test]
fn a_dot_ssh_that_is_moved_away_and_made_again() {
    let host = Host::new();
    host.sh(ANN, "mkdir .ssh").ok();
    key_after(
        &host,
        ANN,
        "mv /home/ann/.ssh /home/ann/.ssh.old; mkdir /home/ann/.ssh; chown ann: /home/ann/.ssh",
    );
}

#[test]
fn a_directory_moved_out_of_dot_ssh_is_watched_no_longer() {
    let host = Host::new();
    host.sh(ANN, "mkdir -p .ssh/sub").ok();
    let daemon = host.daemon().rule("any", &any_creation()).start();
    host.sh(ANN, "mv .ssh/sub sub").ok();
    // Watched again is only known by an alert, so it is what is waited for.
    host.sh(ANN, "echo > .ssh/first").ok();
    daemon.alert(ANY, &ANN.ssh("first"));
    host.sh(ANN, "echo > sub/secret; echo > .ssh/last").ok();
    daemon.alert(ANY, &ANN.ssh("last"));
    let ended = daemon.stop();
    assert_eq!(ended.paths(ANY), [ANN.ssh("first"), ANN.ssh("last")]);
}

#[test]
fn a_renamed_directory_is_known_by_its_new_name() {
    let host = Host::new();
    host.sh(ANN, "mkdir -p .ssh/before").ok();
    let daemon = host.daemon().rule("any", &any_creation()).start();
    host.sh(ANN, "mv .ssh/before .ssh/after; echo > .ssh/after/file")
        .ok();
    let path = ANN.ssh("after/file");
    daemon.alert(ANY, &path);
    let ended = daemon.stop();
    ended.alert(ANY, &path);
    assert!(!ended.paths(ANY).contains(&ANN.ssh("before/file")));
}

#[test]
fn every_file_of_a_home_copied_from_a_skeleton() {
    let host = Host::new();
    host.sh(
        ROOT,
        "mkdir -p /srv/skeleton/.ssh/a/b/c
         for name in authorized_keys a/one a/b/two a/b/c/three; do
             echo > /srv/skeleton/.ssh/$name
         done",
    )
    .ok();
    let daemon = host.daemon().rule("any", &any_creation()).start();
    host.sh(ROOT, "cp -r /srv/skeleton /home/eve").ok();
    assert_all_found(daemon);
}

#[test]
fn every_file_of_a_tree_that_is_moved_in() {
    let host = Host::new();
    host.sh(
        ANN,
        "mkdir -p stage/.ssh/a/b/c
         for name in authorized_keys a/one a/b/two a/b/c/three; do echo > stage/.ssh/$name; done",
    )
    .ok();
    let daemon = host.daemon().rule("any", &any_creation()).start();
    host.sh(ROOT, "mv /home/ann/stage /home/eve").ok();
    assert_all_found(daemon);
}

/// Each file once, and none laid to ssh-keygen.
#[track_caller]
fn assert_all_found(daemon: crate::daemon::Daemon<'_>) {
    let paths = ["a/b/c/three", "a/b/two", "a/one", "authorized_keys"];
    for name in paths {
        daemon.alert(ANY, &EVE.ssh(name));
    }
    let ended = daemon.stop();
    let mut files = ended.alerts(ANY);
    files.retain(|alert| !alert.is("file.type", "dir"));
    let mut found: Vec<&str> = files.iter().map(|alert| alert.text("file.path")).collect();
    found.sort_unstable();
    assert_eq!(found, paths.map(|name| EVE.ssh(name)));
    assert_eq!(ended.paths(SEED), [""; 0]);
    ended.assert_nothing_lost();
}

#[test]
fn homes_whose_parent_does_not_exist_yet() {
    const LATER: &str = "33333333-2222-4333-8444-555555555555";
    let host = Host::new();
    let query = r#"file where event.action == "creation" and
        process.executable == "/usr/bin/ssh-keygen" and file.path : "/srv/people/*/.ssh/*""#;
    let daemon = host
        .daemon()
        .config("[watch]\nhomes = [\"/srv/people/*\"]\n")
        .rule("people", &rule(ANY, "A key of the people", query))
        .rule("later", &any_creation().replace(ANY, LATER))
        .start();
    // What was made before is watched once what is made elsewhere later has been told.
    let watched = |name: &str| {
        for number in 1..=2 {
            let path = format!("/etc/ssh/{name}{number}");
            host.sh(ROOT, &format!(": > {path}")).ok();
            daemon.alert(LATER, &path);
        }
    };
    host.sh(ROOT, "mkdir -p /srv/people/zoe/.ssh").ok();
    watched("first");
    let path = "/srv/people/zoe/.ssh/id";
    let made = host.keygen(ROOT, "ed25519").args(["-f", path]).ok();
    daemon.alert(ANY, "/srv/people/zoe/.ssh/id.pub");
    // Once more, after all of it was gone.
    host.sh(ROOT, "rm -r /srv/people; mkdir -p /srv/people/zed")
        .ok();
    let again = "/srv/people/zed/.ssh/id";
    host.sh(ROOT, "mkdir /srv/people/zed/.ssh").ok();
    watched("again");
    host.keygen(ROOT, "ed25519").args(["-f", again]).ok();
    daemon.alert(ANY, "/srv/people/zed/.ssh/id.pub");
    let ended = daemon.stop();
    let mut expected = Vec::new();
    for path in [again, path] {
        expected.extend([path.to_owned(), format!("{path}.pub")]);
    }
    assert_eq!(ended.paths(ANY), expected);
    Expected {
        path,
        pid: made.pid,
        user: ROOT,
    }
    .check(ended.alert(ANY, path));
}

#[test]
fn a_dot_ssh_that_is_a_symbolic_link() {
    let host = Host::new();
    host.sh(ANN, "mkdir keys; ln -s keys .ssh").ok();
    let daemon = host.daemon().start();
    let path = ANN.ssh("id_linked");
    let made = host.keygen(ANN, "ed25519").args(["-f", &path]).ok();
    daemon.alert(SEED, &path);
    let ended = daemon.stop();
    assert_eq!(ended.paths(SEED), [path.clone(), format!("{path}.pub")]);
    Expected {
        path: &path,
        pid: made.pid,
        user: ANN,
    }
    .check(ended.alert(SEED, &path));
}

/// Runs `script` while what the kernel tells is not read, so that the daemon comes
/// too late to see any of it; gives the pid of the ssh-keygen that was run last.
fn unread(host: &Host, daemon: &crate::daemon::Daemon<'_>, user: User, script: &str) -> u32 {
    let behind = Stopped::thread(daemon.pid(), "watch");
    let script = format!("{script}\necho $!");
    let output = host.sh(user, &script).ok();
    drop(behind);
    output.stdout.trim().parse().unwrap()
}

/// Only the queue knows of it any more.
#[test]
fn a_key_in_a_dot_ssh_that_is_gone_with_it_before_anybody_looked() {
    for host in [Host::new(), Host::on_disk()] {
        let daemon = host.daemon().start();
        let script = "mkdir -m 700 .ssh
            ssh-keygen -q -t ed25519 -N '' -f .ssh/id_brief & wait $!
            rm -r .ssh";
        let pid = unread(&host, &daemon, ANN, script);
        let path = ANN.ssh("id_brief");
        daemon.alert(SEED, &format!("{path}.pub"));
        let ended = daemon.stop();
        assert_eq!(ended.paths(SEED), [path.clone(), format!("{path}.pub")]);
        for path in [path.clone(), format!("{path}.pub")] {
            Expected {
                path: &path,
                pid,
                user: ANN,
            }
            .check(ended.alert(SEED, &path));
        }
        ended.assert_nothing_lost();
    }
}

/// The same directory under another name is another place, and one that took its
/// place is another directory.
#[test]
fn nothing_is_told_of_a_place_where_a_brief_directory_was_no_more() {
    let host = Host::new();
    let daemon = host.daemon().start();
    let keygen = "ssh-keygen -q -t ed25519 -N '' -f";
    let script = format!(
        "mkdir -m 700 .ssh; mv .ssh other; mv other .ssh; mv .ssh other
         {keygen} other/id_elsewhere & wait $!
         rm -r other
         mkdir -m 700 .ssh
         {keygen} .ssh/id_first & wait $!
         rm -r .ssh
         mkdir -m 700 .ssh
         {keygen} .ssh/id_second & wait $!"
    );
    unread(&host, &daemon, ANN, &script);
    let paths = ["id_first", "id_first.pub", "id_second", "id_second.pub"];
    for name in paths {
        daemon.alert(SEED, &ANN.ssh(name));
    }
    let ended = daemon.stop();
    assert_eq!(ended.paths(SEED), paths.map(|name| ANN.ssh(name)));
    ended.assert_nothing_lost();
}

/// Of a home that is made, filled and removed before it could be marked, the
/// kernel tells no more than its name: that a directory was made in it, nobody
/// asked before there was a key tool. What comes after it is seen.
#[test]
fn a_home_that_is_gone_with_its_key_before_anybody_looked_is_not_seen() {
    let host = Host::new();
    let daemon = host.daemon().rule("any", &any_creation()).start();
    let script = "mkdir -p /home/brief/.ssh
        ssh-keygen -q -t ed25519 -N '' -f /home/brief/.ssh/id & wait $!
        rm -r /home/brief";
    unread(&host, &daemon, ROOT, script);
    let path = ANN.ssh("id_after");
    host.sh(ANN, "mkdir -m 700 .ssh").ok();
    host.keygen(ANN, "ed25519").args(["-f", &path]).ok();
    daemon.alert(SEED, &format!("{path}.pub"));
    let ended = daemon.stop();
    assert_eq!(ended.paths(ANY), [path.clone(), format!("{path}.pub")]);
    ended.assert_nothing_lost();
}
