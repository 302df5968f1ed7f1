//! The log as others read it: the real rsyslogd with the snippet that is shipped.

use nix::sys::signal::Signal;

use crate::daemon::LOG;
use crate::document::{Document, SEED};
use crate::follow::Follow;
use crate::host::{ANN, Host, ROOT};
use crate::process::SOON;

const SNIPPET: &str = include_str!("../../packaging/rsyslog/ssh-keywatch.conf");
const FORWARDED: &str = "/var/log/ssh-keywatch-forwarded.json";

#[test]
fn rsyslog_passes_each_line_on_unchanged_and_across_rotation() {
    let host = Host::new();
    assert!(
        host.path("/usr/sbin/rsyslogd").exists(),
        "this test needs rsyslogd; tests/run installs rsyslog"
    );
    host.sh(ANN, "mkdir -m 700 .ssh").ok();
    host.sh(
        ROOT,
        "mkdir -p /var/spool/rsyslog; mount -t tmpfs it /var/spool/rsyslog",
    )
    .ok();
    let state = "global(workDirectory=\"/var/spool/rsyslog\")\n";
    host.write("/etc/rsyslog-it.conf", format!("{state}{SNIPPET}"));
    host.command("rsyslogd")
        .args(["-N1", "-f", "/etc/rsyslog-it.conf"])
        .ok();
    host.write(FORWARDED, "");

    let daemon = host.daemon().start();
    let make = |name: &str| {
        let path = ANN.ssh(name);
        host.keygen(ANN, "ed25519").args(["-f", &path]).ok();
        daemon.alert(SEED, &format!("{path}.pub"));
    };
    make("id_before");
    let mut rsyslogd = host
        .command("rsyslogd")
        .args([
            "-n",
            "-f",
            "/etc/rsyslog-it.conf",
            "-i",
            "/run/rsyslog-it.pid",
        ])
        .spawn_silent();
    let mut tail = host
        .command("tail")
        .args(["-q", "-n", "+1", "-F", FORWARDED])
        .spawn();
    let forwarded = Follow::new(tail.stdout(), str::to_owned);
    let arrives = |name: &str| {
        let path = format!("{}.pub", ANN.ssh(name));
        let has = |line: &String| Document::parse(line).is("file.path", &path);
        let seen = forwarded.wait(SOON, |lines| lines.iter().any(has).then_some(()));
        assert!(seen.is_some(), "no {path} in {:#?}", forwarded.so_far());
    };
    arrives("id_before");
    host.sh(ROOT, &format!("mv {LOG} {LOG}.1")).ok();
    make("id_after");
    arrives("id_after");
    host.sh(ROOT, &format!("mv {LOG}.1 {LOG}.2; mv {LOG} {LOG}.1"))
        .ok();
    make("id_last");
    arrives("id_last");
    daemon.stop();
    let text = |path: &str| std::fs::read_to_string(host.path(path)).unwrap();
    let all = text(&format!("{LOG}.2")) + &text(&format!("{LOG}.1")) + &text(LOG);
    let count = all.lines().count();
    let whole = forwarded.wait(SOON, |lines| (lines.len() >= count).then_some(()));
    assert!(whole.is_some(), "{} of {count}", forwarded.so_far().len());
    let all: Vec<&str> = all.lines().collect();
    assert_eq!(forwarded.so_far(), all);
    rsyslogd.signal(Signal::SIGTERM);
    rsyslogd.end(SOON);
}
