//! What a running daemon can still do, and that it does its work with that.

use std::collections::BTreeSet;

use crate::daemon::{Daemon, LOG};
use crate::document::{Document, SEED};
use crate::host::{ANN, Host, User};

/// `CAP_SYS_ADMIN`, `CAP_SYS_PTRACE` and `CAP_DAC_READ_SEARCH` (capabilities(7)).
const NEEDED: u64 = 1 << 21 | 1 << 19 | 1 << 2;
const CAP_DAC_OVERRIDE: u64 = 1 << 1;
const CAP_SYS_RESOURCE: u64 = 1 << 24;
/// `CAP_SYS_NICE` and `CAP_IPC_LOCK`, where limits could not be raised instead.
const WITHOUT_LIMITS: u64 = 1 << 23 | 1 << 14;

/// What root keeps: it may have no more here than the limits it has.
fn needed_by_root() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let own = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let own = u64::from_str_radix(own.unwrap().trim(), 16).unwrap();
    let limits = if own & CAP_SYS_RESOURCE == 0 {
        WITHOUT_LIMITS
    } else {
        0
    };
    NEEDED | own & limits
}

/// A field of `proc_pid_status(5)`, with the name of each thread of the daemon.
fn of_all_threads(host: &Host, daemon: &Daemon<'_>, field: &str) -> Vec<(String, String)> {
    let tasks = host.path(&format!("/proc/{}/task", daemon.pid()));
    let mut values = Vec::new();
    for task in std::fs::read_dir(tasks).unwrap() {
        // One may have ended meanwhile, as that which compresses.
        let Ok(status) = std::fs::read_to_string(task.unwrap().path().join("status")) else {
            continue;
        };
        let value = |wanted: &str| {
            let of = |line: &str| Some(line.strip_prefix(wanted)?.trim().to_owned());
            status.lines().find_map(of).unwrap()
        };
        values.push((value("Name:"), value(&format!("{field}:"))));
    }
    values
}

#[track_caller]
fn assert_confined(host: &Host, daemon: &Daemon<'_>, capabilities: u64) {
    for (field, wanted) in [
        ("CapEff", capabilities),
        ("CapPrm", capabilities),
        ("CapBnd", capabilities),
        ("CapInh", 0),
        ("CapAmb", 0),
    ] {
        for (thread, value) in of_all_threads(host, daemon, field) {
            let value = u64::from_str_radix(&value, 16).unwrap();
            assert_eq!(value, wanted, "{field} of {thread}: {value:x}");
        }
    }
    for (field, wanted) in [("Seccomp", "2"), ("NoNewPrivs", "1")] {
        let values = of_all_threads(host, daemon, field);
        let threads: BTreeSet<_> = values.iter().map(|(name, _)| name.as_str()).collect();
        for name in ["hold", "watch", "decide", "control", "baseline", "sink-log"] {
            assert!(threads.contains(name), "no {name} in {threads:?}");
        }
        for (thread, value) in &values {
            assert_eq!(value, wanted, "{field} of {thread}");
        }
    }
}

fn made(host: &Host, daemon: &Daemon<'_>, user: User, name: &str) -> Document {
    let path = user.ssh(name);
    host.keygen(user, "ed25519").args(["-f", &path]).ok();
    daemon.alert(SEED, &path)
}

#[test]
fn every_thread_keeps_only_what_it_uses() {
    let host = Host::new();
    let daemon = host
        .daemon()
        .config("[log]\nmax_size = \"64K\"\nkeep = 3\n")
        .start();
    // Before it says so it has given up what it does not use.
    daemon.started();
    assert_confined(&host, &daemon, needed_by_root());
    // Compressing starts a thread, and rotation makes files for another group.
    let rotated = host.path(&format!("{LOG}.2.gz"));
    for number in 0.. {
        let alert = made(&host, &daemon, ANN, &format!("key{number}"));
        assert_eq!(alert.text("user.name"), "ann");
        assert_eq!(alert.text("process.name"), "ssh-keygen");
        if rotated.exists() {
            break;
        }
        assert!(number < 200, "the log was never rotated");
    }
    assert_confined(&host, &daemon, needed_by_root());
    let stderr = daemon.stop().stderr;
    let refused = stderr.iter().any(|line| {
        line.contains("not permitted")
            || line.contains("stay possible")
            || line.contains("confined")
    });
    assert!(!refused, "{stderr:?}");
}

#[test]
fn a_log_in_somebody_elses_directory_costs_one_capability_more() {
    let host = Host::new();
    let log = "/home/ann/log/alerts.json";
    host.sh(ANN, "mkdir log && chmod 700 log").ok();
    let daemon = host.daemon().log(log).start();
    daemon.started();
    assert_confined(&host, &daemon, needed_by_root() | CAP_DAC_OVERRIDE);
    made(&host, &daemon, ANN, "key");
    daemon.stop();
}

/// As the unit starts it.
#[test]
fn what_it_is_started_with_is_enough_when_that_is_all_it_keeps() {
    let host = Host::new();
    let only = "--bounding-set=-all,+sys_admin,+sys_ptrace,+dac_read_search";
    let daemon = host.daemon().privileges([only]).start();
    daemon.started();
    assert_confined(&host, &daemon, NEEDED);
    let alert = made(&host, &daemon, ANN, "key");
    assert_eq!(alert.text("process.name"), "ssh-keygen");
    daemon.stop();
}
