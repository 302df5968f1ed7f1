//! A daemon that is stopped or frozen: nobody waits for it for long.

use std::time::{Duration, Instant};

use crate::machine::{Machine, keygen};
use crate::root::package;

/// Far above the stated six seconds, for a loaded machine.
const BOUND: Duration = Duration::from_secs(30);

#[test]
fn a_stopped_daemon_is_replaced_and_holds_nobody_for_long() {
    replaced(|host, pid| {
        host.sh(&format!("kill -STOP {pid}")).ok();
    });
}

/// As `systemctl freeze` does it, and who saves a container's state.
#[test]
fn a_daemon_whose_cgroup_is_frozen_is_replaced_and_holds_nobody_for_long() {
    replaced(|host, _| {
        let freeze = "top=$(findmnt --noheadings --output=TARGET --types=cgroup2 | head -n 1)
                      unit=$top/system.slice/ssh-keywatch.service
                      echo 1 > $unit/cgroup.freeze
                      until grep -q 'frozen 1' $unit/cgroup.events; do sleep 0.01; done";
        host.sh(freeze).ok();
    });
}

/// What becomes of those who log in and make keys once `stop` has taken the daemon
/// out of action.
#[track_caller]
fn replaced(stop: impl FnOnce(&Machine, u32)) {
    let host = Machine::boot();
    host.account("ann");
    host.dpkg(&package(None)).ok();
    host.alert_on_key("ann", "before");
    let pid = host.pid().unwrap();

    let stopped = Instant::now();
    stop(&host, pid);
    std::thread::scope(|threads| {
        let maker = threads.spawn(|| {
            host.login("ann", &keygen("meanwhile")).ok();
            stopped.elapsed()
        });
        host.login("ann", "cat .ssh/before.pub").ok();
        let login = stopped.elapsed();
        let made = maker.join().unwrap();
        println!("a login took {login:?}, the making of a key {made:?} from the stop on");
        assert!(made < BOUND && login < BOUND, "{login:?} {made:?}");
    });
    host.wait("new daemon", || {
        host.property("ActiveState") == "active" && host.pid().is_some_and(|new| new != pid)
    });
    assert_eq!(host.property("NRestarts"), "1");
    host.alert_on_key("ann", "after");
    assert_eq!(host.states("start").len(), 2);
    let said = host
        .sh("journalctl --output=cat --unit=ssh-keywatch")
        .text();
    assert!(said.contains("Watchdog timeout"), "{said}");
}

#[test]
fn a_login_needs_nothing_from_a_daemon_that_never_answers() {
    let host = Machine::boot();
    host.account("ann");
    host.sh("mkdir -p /etc/systemd/system/ssh-keywatch.service.d
             printf '[Service]\\nWatchdogSec=0\\n' > /etc/systemd/system/ssh-keywatch.service.d/patience.conf")
        .ok();
    host.dpkg(&package(None)).ok();
    host.alert_on_key("ann", "before");
    let pid = host.pid().unwrap();
    host.sh(&format!("kill -STOP {pid}")).ok();
    // A whole login, what it reads, and files elsewhere.
    host.login("ann", "cat .ssh/before.pub; ls .ssh; touch file")
        .ok();
    let state = host.sh(&format!("ps -o state= {pid}")).text();
    assert_eq!(state, "T", "it was still stopped");
    // Whoever makes a key waits, and no longer than the daemon lives.
    std::thread::scope(|threads| {
        let maker = threads.spawn(|| host.login("ann", &keygen("late")).ok());
        host.wait("held maker", || {
            // Held at the exec of ssh-keygen, under the name of its shell.
            let waits = host.sh("ps -e -o wchan:40= | grep -c fanotify || true");
            waits.text() != "0"
        });
        host.sh(&format!("kill -KILL {pid}")).ok();
        maker.join().unwrap();
    });
    host.wait("new daemon", || host.pid().is_some_and(|new| new != pid));
}
