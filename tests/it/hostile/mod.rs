//! Whatever users and mounts do to the watched paths, nothing is alerted under a
//! wrong one, nothing is followed out of them, and nobody makes us wait.

mod links;
mod mounts;
mod places;
mod servers;

use crate::daemon::{Daemon, Ended};
use crate::document::{ANY, Document, anything};
use crate::host::{ANN, Host, User};

/// A daemon that tells everything, once it knows what was there before.
#[track_caller]
fn start(host: &Host) -> Daemon<'_> {
    let daemon = host.daemon().rule("any", &anything()).start();
    daemon.compared();
    daemon
}

/// Waits for the alert on `path` that a comparison raised.
#[track_caller]
fn compared(daemon: &Daemon<'_>, path: &str, action: &str) -> Document {
    let alert = daemon.line(&format!("{action} of {path}"), |line| {
        line.is_alert_of(ANY)
            && line.is("file.path", path)
            && line.is("event.action", action)
            && line.is("ssh_keywatch.evidence", "baseline")
    });
    assert!(alert.is("ssh_keywatch.attribution.method", "none"));
    assert!(alert.get("process.pid").is_null(), "{}", alert.brief());
    alert
}

/// Makes a file, which must be alerted as made by who made it.
#[track_caller]
fn made(host: &Host, daemon: &Daemon<'_>, path: &str) {
    let (alert, pid) = made_by(host, daemon, ANN, path);
    assert!(
        alert.is("ssh_keywatch.evidence", "fanotify"),
        "{}",
        alert.brief()
    );
    assert_eq!(alert.number("process.pid"), Some(pid), "{}", alert.brief());
}

/// The same, where its directory may not have been watched yet: then it is found,
/// and its maker is inferred or unknown.
#[track_caller]
fn made_by(host: &Host, daemon: &Daemon<'_>, user: User, path: &str) -> (Document, u64) {
    let output = host.command("touch").args([path]).user(user).ok();
    let alert = daemon.line(&format!("the making of {path}"), |line| {
        line.is_alert_of(ANY) && line.is("file.path", path) && line.is("event.action", "creation")
    });
    let pid = u64::from(output.pid);
    if alert.is("ssh_keywatch.evidence", "fanotify") {
        assert_eq!(alert.number("process.pid"), Some(pid), "{}", alert.brief());
    } else {
        assert_eq!(alert.get("ssh_keywatch.attribution.certain"), false);
    }
    (alert, pid)
}

/// No alert is about a path that has this in it.
#[track_caller]
fn assert_untold(ended: &Ended, part: &str) {
    let paths = ended.paths(ANY);
    let told: Vec<_> = paths.iter().filter(|path| path.contains(part)).collect();
    assert!(told.is_empty(), "{told:?}");
}
