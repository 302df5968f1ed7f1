//! The kernel makes one record of what one process does to one name, wherever in the
//! queue the first of it stands: in which order it was done is lost.

use crate::daemon::Daemon;
use crate::document::{ANY, Document, anything};
use crate::holding::Stopped;
use crate::host::{ANN, Host, ROOT};
use crate::process::SOON;

/// What the daemon has told of `path` so far.
fn told<'a>(log: &'a [Document], path: &str) -> Vec<&'a Document> {
    let of_path = |line: &&Document| line.is_alert_of(ANY) && line.is("file.path", path);
    log.iter().filter(of_path).collect()
}

/// Does `acts`, in Perl, while no record is read, so that all that can be merged is; with
/// `$src` and `$ak`, and `other` for what another process does.
fn at_once(host: &Host, daemon: &Daemon<'_>, acts: &str) -> u64 {
    let stopped = Stopped::thread(daemon.pid(), "watch");
    let script = format!(
        r#"sub other {{ my $do = shift; my $pid = fork; if (!$pid) {{ &$do or die; exit 0 }} waitpid $pid, 0 }}
        my ($src, $ak) = ("deep/src", ".ssh/authorized_keys"); {acts}"#
    );
    let perl = host.command("/usr/bin/perl").user(ANN).directory(ANN.home);
    let pid = perl.args(["-e", &script]).ok().pid;
    drop(stopped);
    u64::from(pid)
}

/// `authorized_keys` is told as made again after all, and what is written to it through its
/// other name is told.
#[track_caller]
fn is_watched_on(
    host: &Host,
    daemon: &Daemon<'_>,
    what: &str,
    is_last: impl Fn(&Document) -> bool,
) -> Document {
    let path = ANN.ssh("authorized_keys");
    let last = daemon.find(SOON, &format!("last creation after {what}"), |log| {
        let last = told(log, &path).pop()?.clone();
        (last.is("event.action", "creation") && is_last(&last)).then_some(last)
    });
    let output = host.sh(ANN, "echo key >> deep/src").ok();
    let written = daemon.find(SOON, &format!("writing after {what}"), |log| {
        let last = told(log, &path).pop()?.clone();
        last.is("event.action", "modification").then_some(last)
    });
    let pid = Some(u64::from(output.pid));
    assert_eq!(written.number("process.pid"), pid, "{what}");
    last
}

fn start(host: &Host) -> Daemon<'_> {
    host.sh(
        ANN,
        "mkdir -m 700 .ssh deep; echo > deep/src; echo > deep/new",
    )
    .ok();
    host.daemon().rule("any", &anything()).start()
}

#[test]
fn a_name_that_is_taken_away_and_made_again_in_one_record_is_there() {
    let host = Host::new();
    let daemon = start(&host);
    for (what, acts) in [
        ("a new link", "link $src, $ak; unlink $ak; link $src, $ak"),
        ("one that was there", "unlink $ak; link $src, $ak"),
    ] {
        let pid = at_once(&host, &daemon, acts);
        let made = is_watched_on(&host, &daemon, what, |line| {
            line.number("process.pid") == Some(pid)
        });
        assert!(made.is("ssh_keywatch.evidence", "fanotify"), "{what}");
        assert_eq!(made.get("ssh_keywatch.attribution.certain"), true, "{what}");
    }
    // Nor is one there that was made and taken away.
    at_once(&host, &daemon, "unlink $ak; link $src, $ak; unlink $ak");
    let path = ANN.ssh("authorized_keys");
    daemon.find(SOON, "last deletion", |log| {
        let last = *told(log, &path).last()?;
        last.is("event.action", "deletion").then_some(())
    });
    host.sh(ANN, "echo key >> deep/src").ok();
    let ended = daemon.stop();
    let last = *told(&ended.log, &path).last().unwrap();
    assert!(last.is("event.action", "deletion"), "{}", last.brief());
    ended.assert_nothing_lost();
}

#[test]
fn a_name_whose_making_was_merged_into_a_record_before_others_is_there() {
    let host = Host::new();
    let daemon = start(&host);
    for (what, acts) in [
        (
            "another's deletion",
            "link $src, $ak; other(sub { unlink $ak }); link $src, $ak",
        ),
        (
            "a rename away",
            "link $src, $ak; rename $ak, 'deep/t'; link $src, $ak",
        ),
        (
            "renames",
            "link $src, '.ssh/t'; rename '.ssh/t', $ak; rename $ak, '.ssh/t'; rename '.ssh/t', $ak",
        ),
        (
            "another's rename over it",
            "link 'deep/new', $ak; unlink $ak; link $src, $ak; unlink $ak; link 'deep/new', '.ssh/t';
             other(sub { rename '.ssh/t', $ak }); unlink $ak; link $src, $ak",
        ),
    ] {
        at_once(&host, &daemon, acts);
        // By whom is not sure.
        let made = is_watched_on(&host, &daemon, what, |line| {
            line.is("ssh_keywatch.evidence", "scan")
        });
        assert_eq!(made.get("ssh_keywatch.attribution.certain"), false, "{what}");
        host.sh(ANN, "rm -f .ssh/*").ok();
        daemon.find(SOON, "deletion", |log| {
            let last = told(log, &ANN.ssh("authorized_keys")).pop()?;
            last.is("event.action", "deletion").then_some(())
        });
    }
    let ended = daemon.stop();
    ended.assert_nothing_lost();
}

#[test]
fn a_dot_ssh_that_comes_and_goes_in_one_record_is_watched_on() {
    let host = Host::new();
    let daemon = start(&host);
    let exchange = format!(
        "my ($x, $y) = ('x', '.ssh'); syscall({}, -100, $x, -100, $y, {}) == 0 or die",
        libc::SYS_renameat2,
        libc::RENAME_EXCHANGE
    );
    for (number, (before, acts)) in [
        ("mv .ssh x; ln -s x .ssh", exchange.as_str()),
        (
            "rm x; mv .ssh x",
            "symlink 'x', 'z'; link 'z', '.ssh'; unlink '.ssh'; link 'z', '.ssh'; unlink 'z'",
        ),
        (
            "rm .ssh",
            "rename 'x', '.ssh'; rename '.ssh', 'c'; rename 'c', 'x'; rename 'x', '.ssh'",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        host.sh(ANN, before).ok();
        // What was done before is told by then.
        host.sh(ROOT, &format!("echo > /etc/ssh/before{number}"))
            .ok();
        daemon.alert(ANY, &format!("/etc/ssh/before{number}"));
        at_once(&host, &daemon, acts);
        host.sh(ROOT, &format!("echo > /etc/ssh/after{number}"))
            .ok();
        daemon.alert(ANY, &format!("/etc/ssh/after{number}"));
        host.sh(ANN, &format!("echo key > .ssh/key{number}")).ok();
        daemon.alert(ANY, &ANN.ssh(&format!("key{number}")));
    }
    daemon.stop().assert_nothing_lost();
}
