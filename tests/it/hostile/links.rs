//! Symbolic links at watched places, and hard links out of them.

use super::{assert_untold, compared, made, made_by, start};
use crate::document::{ANY, Document};
use crate::host::{ANN, BOB, Host, ROOT};

/// What is done to `name` of ann's by `script`, which is one process.
#[track_caller]
fn written(host: &Host, daemon: &crate::daemon::Daemon<'_>, name: &str, script: &str) {
    let before = daemon.find(crate::process::SOON, "log", |log| Some(log.len()));
    let output = host.sh(ANN, script).ok();
    let path = ANN.ssh(name);
    let is_it = |line: &Document| {
        line.is_alert_of(ANY)
            && line.is("file.path", &path)
            && line.is("event.action", "modification")
    };
    let alert = daemon.find(crate::process::SOON, &format!("writing to {path}"), |log| {
        log[before..].iter().find(|line| is_it(line)).cloned()
    });
    assert!(
        alert.is("ssh_keywatch.evidence", "fanotify"),
        "{}",
        alert.brief()
    );
    let pid = Some(u64::from(output.pid));
    assert_eq!(alert.number("process.pid"), pid, "{}", alert.brief());
}

#[test]
fn a_file_that_is_written_through_a_hard_link_elsewhere() {
    let host = Host::new();
    host.sh(
        ANN,
        "mkdir -m 700 .ssh; mkdir deep; cd .ssh
         echo > authorized_keys; echo > notes; ln authorized_keys ../deep/list; ln notes ../deep/notes",
    )
    .ok();
    let daemon = start(&host);
    written(&host, &daemon, "authorized_keys", "echo x >> deep/list");
    written(&host, &daemon, "notes", "echo x >> deep/notes");
    // By a link that nobody saw, and by the name in the home itself.
    host.sh(
        ANN,
        "ln .ssh/authorized_keys deep/late; ln .ssh/authorized_keys home",
    )
    .ok();
    written(&host, &daemon, "authorized_keys", "echo x >> deep/late");
    written(&host, &daemon, "authorized_keys", "echo x >> home");
    // One that comes later.
    host.sh(ANN, "echo > deep/new; ln deep/new .ssh/new").ok();
    daemon.alert(ANY, &ANN.ssh("new"));
    // Another file takes the name: what is written to the former is no news of it.
    host.sh(ANN, "cd .ssh; echo > next; mv next authorized_keys")
        .ok();
    daemon.line("rename", |line| {
        line.is_alert_of(ANY) && line.is("event.action", "rename")
    });
    host.sh(
        ANN,
        "echo x >> deep/list; rm .ssh/notes; echo x >> deep/notes",
    )
    .ok();
    written(&host, &daemon, "new", "echo x >> deep/new");
    host.sh(ANN, "ln .ssh/authorized_keys deep/other").ok();
    written(&host, &daemon, "authorized_keys", "echo x >> deep/other");
    let ended = daemon.stop();
    let count = |name: &str| {
        let mut alerts = ended.alerts(ANY);
        alerts.retain(|alert| {
            alert.is("file.path", &ANN.ssh(name)) && alert.is("event.action", "modification")
        });
        alerts.len()
    };
    assert_eq!(
        (count("authorized_keys"), count("notes"), count("new")),
        (4, 1, 1)
    );
    assert_untold(&ended, "/deep/");
    ended.assert_nothing_lost();
}

#[test]
fn a_dot_ssh_that_leads_elsewhere_is_not_followed() {
    let host = Host::new();
    host.sh(BOB, "mkdir -m 700 .ssh; echo > .ssh/his").ok();
    host.sh(
        ROOT,
        "mkdir -m 755 /srv/roots; echo > /srv/roots/file; mkfifo -m 666 /srv/fifo",
    )
    .ok();
    let daemon = start(&host);
    let targets = [
        "/home/bob/.ssh",
        "../bob/.ssh",
        "/home/bob",
        "/",
        "/srv/roots",
        "/srv/fifo",
        "/dev/tty",
        "/dev/full",
        "/proc/self/root/home/bob/.ssh",
        "/proc/self/fd",
        "nowhere/at/all",
        ".ssh",
        "/etc/ssh",
    ];
    for (number, target) in targets.iter().enumerate() {
        host.sh(ANN, &format!("rm -f .ssh; ln -s {target} .ssh"))
            .ok();
        // As root, who would be followed anywhere.
        host.sh(ROOT, &format!("echo > /srv/roots/file{number}"))
            .ok();
        made_by(&host, &daemon, BOB, &BOB.ssh(&format!("file{number}")));
    }
    let ended = daemon.stop();
    assert_untold(&ended, "/home/ann/");
    assert_untold(&ended, "roots");
    assert_eq!(
        ended.paths(ANY).len(),
        targets.len(),
        "{:?}",
        ended.paths(ANY)
    );
    ended.assert_nothing_lost();

    // The same from the start on.
    for target in ["/home/bob/.ssh", "/", "/srv/fifo"] {
        host.sh(ANN, &format!("rm -f .ssh; ln -s {target} .ssh"))
            .ok();
        let daemon = start(&host);
        made_by(
            &host,
            &daemon,
            BOB,
            &BOB.ssh(&format!("start{}", target.len())),
        );
        assert_untold(&daemon.stop(), "/home/ann/");
    }
}

#[test]
fn a_dot_ssh_that_is_led_elsewhere_again_and_again() {
    let host = Host::new();
    host.sh(ANN, "mkdir -m 700 one two; ln -s one .ssh").ok();
    let daemon = start(&host);
    made(&host, &daemon, &ANN.ssh("a"));
    host.sh(ANN, "ln -sfn two .ssh; echo > one/lost1").ok();
    made_by(&host, &daemon, ANN, &ANN.ssh("b"));
    host.sh(
        ANN,
        "ln -sfn /home/bob .ssh; echo > two/lost2; ln -sfn one .ssh",
    )
    .ok();
    made_by(&host, &daemon, ANN, &ANN.ssh("c"));
    // To what is not there yet, through another link.
    host.sh(ANN, "ln -s later way; ln -sfn way .ssh").ok();
    // Records come in their order: with this one that link has been looked at.
    made_by(&host, &daemon, ROOT, "/etc/ssh/after");
    // That it is there now nothing tells; but a change of mounts makes it look.
    host.sh(ANN, "mkdir made; echo > made/key; mv made later")
        .ok();
    host.sh(ROOT, "mkdir /srv/any; mount -t tmpfs any /srv/any")
        .ok();
    compared(&daemon, &ANN.ssh("key"), "creation");
    made(&host, &daemon, &ANN.ssh("d"));
    // The link on the way leads to another's directory.
    host.sh(BOB, "mkdir -m 700 .ssh").ok();
    host.sh(ANN, "ln -sfn /home/bob/.ssh way").ok();
    host.sh(ROOT, "umount /srv/any").ok();
    made_by(&host, &daemon, BOB, &BOB.ssh("his"));
    let ended = daemon.stop();
    assert_untold(&ended, "/home/ann/.ssh/his");
    assert!(!ended.paths(ANY).contains(&ANN.ssh("lost2")));
    ended.assert_nothing_lost();
}

/// docs/hazards.md says so.
#[test]
fn what_is_written_behind_a_link_is_not_seen_and_the_link_is() {
    let host = Host::new();
    host.sh(ANN, "mkdir -m 700 .ssh; echo > keys").ok();
    let daemon = start(&host);
    host.sh(ANN, "ln -s ../keys .ssh/authorized_keys").ok();
    let list = ANN.ssh("authorized_keys");
    let link = daemon.alert(ANY, &list);
    assert!(link.is("file.target_path", "../keys"), "{}", link.brief());
    host.sh(ANN, "echo x >> keys").ok();
    made(&host, &daemon, &ANN.ssh("after"));
    let ended = daemon.stop();
    assert_eq!(ended.paths(ANY), [ANN.ssh("after"), list]);
    ended.assert_nothing_lost();
}
