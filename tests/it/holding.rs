//! When the answering thread is stuck, nobody waits for it; then it comes back.

use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use serde_json::Value;

use crate::document::{ANY, Document, any_creation};
use crate::host::{ANN, Host};
use crate::process::SOON;

/// A thread of the daemon that is stopped where it stands, as nothing that a
/// user can do stops it.
pub struct Stopped(Pid);

impl Stopped {
    pub fn thread(pid: u32, name: &str) -> Self {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let tid = tasks
            .map(|task| task.unwrap())
            .find(|task| {
                // One that has ended is not it.
                let comm = std::fs::read_to_string(task.path().join("comm"));
                comm.is_ok_and(|comm| comm.trim() == name)
            })
            .map(|task| task.file_name().to_str().unwrap().parse().unwrap())
            .expect("there is such a thread");
        let tid = Pid::from_raw(tid);
        ptrace::seize(tid, ptrace::Options::empty()).unwrap();
        ptrace::interrupt(tid).unwrap();
        waitpid(tid, Some(WaitPidFlag::__WALL)).unwrap();
        Self(tid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // It may have ended together with the daemon.
        let _ = ptrace::detach(self.0, None);
    }
}

#[test]
fn a_stuck_answering_thread_stops_nobody_and_is_replaced() {
    let host = Host::new();
    host.sh(ANN, "mkdir -m 700 .ssh").ok();
    let daemon = host.daemon().rule("any", &any_creation()).start();
    let make = |name: &str| {
        host.sh(ANN, &format!("echo x > .ssh/{name}")).ok();
        daemon.alert(ANY, &ANN.ssh(name))
    };
    // On a busy machine somebody may be let go, or not be sure: then the next one is.
    let held = |name: &str| {
        let mut made = (1..=5).map(|number| make(&format!("{name}{number}")));
        let held = made.find(|alert| {
            let certain = alert.get("ssh_keywatch.attribution.certain") == true;
            certain && alert.is("ssh_keywatch.attribution.method", "held")
        });
        held.unwrap_or_else(|| panic!("nobody is held, {name}"))
    };
    held("before");

    // A key tool that runs, and asks where the key shall be.
    let keygen = host.command("ssh-keygen").args(["-q", "-N", ""]);
    let keygen = keygen.user(ANN).spawn_talking();
    daemon.file_systems("homes", |marked| !marked.is_empty());

    let stopped = Stopped::thread(daemon.pid(), "hold");
    // Each is let go after a while; the third time in a row the group is closed.
    for number in 0..3 {
        make(&format!("meanwhile{number}"));
    }
    let degraded = daemon.line("degraded", |line| line.is_state("degraded"));
    assert!(
        degraded.text("event.reason").contains("not held"),
        "{}",
        degraded.brief()
    );
    let unheld = make("unheld");
    assert_ne!(unheld.text("ssh_keywatch.attribution.method"), "held");
    let mode = unheld.text("ssh_keywatch.mode");
    assert!(
        !mode.contains("hold") && mode.ends_with("+degraded"),
        "{mode}"
    );
    assert!(
        unheld.get("ssh_keywatch.degraded").is_array(),
        "{}",
        unheld.brief()
    );
    daemon.signal(Signal::SIGUSR1);
    let status = daemon.line("status", |line| line.is_state("status"));
    assert!(every_root(&status, "fanotify"), "{}", status.brief());

    // The new thread answers while the former is still stuck.
    daemon.line("recovery", |line| line.is_state("recovered"));
    // Soon after, the marks are set again.
    daemon.roots(SOON, "a root is not held again", |roots| {
        is_every(roots, "held")
    });
    // Nobody follows the key tool any more.
    daemon.file_systems("none", <[u64]>::is_empty);
    drop(keygen);
    let after = held("after");
    let mode = after.text("ssh_keywatch.mode");
    assert!(
        mode.contains("+hold") && !mode.contains("degraded"),
        "{mode}"
    );
    // It comes round, and does no harm.
    drop(stopped);
    held("later");
    // Key tools are recorded again, files that exist are not held again.
    let path = ANN.ssh("id_again");
    host.keygen(ANN, "ed25519").args(["-f", &path]).ok();
    let key = daemon.alert(ANY, &path);
    assert_eq!(key.get("ssh_keywatch.attribution.certain"), true);
    let ended = daemon.stop();
    let status = ended
        .log
        .iter()
        .rev()
        .find(|line| line.is_state("recovered"));
    assert!(status.is_some());
}

fn every_root(status: &Document, how: &str) -> bool {
    let roots = status.get("ssh_keywatch.coverage.roots");
    is_every(roots.as_array().expect("roots"), how)
}

fn is_every(roots: &[Value], how: &str) -> bool {
    !roots.is_empty() && roots.iter().all(|root| root["how"] == how)
}

#[test]
fn coverage_says_how_well_each_directory_is_watched() {
    let host = Host::new();
    host.sh(ANN, "mkdir -m 700 .ssh").ok();
    let daemon = host.daemon().start();
    let start = daemon.started();
    assert!(every_root(&start, "held"), "{}", start.brief());
    daemon.stop();
    let daemon = host.daemon().args(["--hold", "off"]).start();
    let start = daemon.line("second start", |line| {
        line.is_state("start") && every_root(line, "fanotify")
    });
    let roots = start.get("ssh_keywatch.coverage.roots");
    assert!(roots[0]["reason"].is_string(), "{roots}");
    daemon.stop();
}
