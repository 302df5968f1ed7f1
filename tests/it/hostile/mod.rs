//! Whatever users and mounts do to the watched paths, nothing is alerted under a
//! wrong one, nothing is followed out of them, and nobody makes us wait.

mod mounts;
mod servers;

use crate::daemon::{Daemon, Ended};
use crate::document::{ANY, Document, rule};
use crate::host::{ANN, Host};

/// A rule for every event but opens.
fn anything() -> String {
    rule(
        ANY,
        "Anything",
        r#"file where event.action in ("creation", "modification", "rename", "deletion")"#,
    )
}

/// A daemon that tells everything.
fn start(host: &Host) -> Daemon<'_> {
    host.daemon().rule("any", &anything()).start()
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
    let output = host.command("touch").args([path]).user(ANN).ok();
    let alert = daemon.line(&format!("the making of {path}"), |line| {
        line.is_alert_of(ANY) && line.is("file.path", path) && line.is("event.action", "creation")
    });
    assert!(
        alert.is("ssh_keywatch.evidence", "fanotify"),
        "{}",
        alert.brief()
    );
    let pid = alert.number("process.pid");
    assert_eq!(pid, Some(output.pid.into()), "{}", alert.brief());
}

/// No alert is about a path that has this in it.
#[track_caller]
fn assert_untold(ended: &Ended, part: &str) {
    let paths = ended.paths(ANY);
    let told: Vec<_> = paths.iter().filter(|path| path.contains(part)).collect();
    assert!(told.is_empty(), "{told:?}");
}
