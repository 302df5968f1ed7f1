//! Upgrades, downgrades and reinstallations, with right and wrong configurations.

use std::fs;

use crate::machine::{CONFIG, Machine};
use crate::root::{NEWER, package};

fn version(host: &Machine) -> String {
    host.sh("dpkg-query --show --showformat='${Version} ${db:Status-Abbrev}' ssh-keywatch")
        .text()
}

#[test]
fn an_upgrade_restarts_it_and_keeps_what_the_administrator_changed() {
    let newer = package(Some(NEWER));
    let host = Machine::boot();
    host.account("ann");
    host.dpkg(&package(None)).ok();
    let first = version(&host);
    assert!(first.ends_with(" ii"), "{first}");
    let changed = fs::read_to_string(host.path(CONFIG)).unwrap() + "\n# ours\n";
    fs::write(host.path(CONFIG), &changed).unwrap();
    let mut pid = host.pid().unwrap();
    // Up, the same again, and down.
    for (number, package) in [&newer, &newer, &package(None)].iter().enumerate() {
        host.dpkg(package).ok();
        assert_eq!(host.property("ActiveState"), "active");
        let new = host.pid().unwrap();
        assert_ne!(new, pid, "it runs as before");
        pid = new;
        assert_eq!(fs::read_to_string(host.path(CONFIG)).unwrap(), changed);
        host.alert_on_key("ann", &format!("key{number}"));
        if number == 0 {
            assert_eq!(version(&host), format!("{NEWER} ii"));
        }
    }
    assert_eq!(version(&host), first);
    assert_eq!(host.states("start").len(), 4);
    assert_eq!(host.states("stop").len(), 3);
    // One that the administrator has stopped and disabled stays so.
    host.sh("systemctl disable --now ssh-keywatch").ok();
    host.dpkg(&newer).ok();
    assert_eq!(host.pid(), None);
    assert_eq!(host.property("UnitFileState"), "disabled");
}

#[test]
fn a_configuration_that_the_new_version_refuses_leaves_the_old_daemon_watching() {
    let newer = package(Some(NEWER));
    let host = Machine::boot();
    host.account("ann");
    host.dpkg(&package(None)).ok();
    let pid = host.pid().unwrap();
    let right = fs::read_to_string(host.path(CONFIG)).unwrap();
    fs::write(host.path(CONFIG), "[watch]\nhoems = [\"/home/*\"]\n").unwrap();
    let upgraded = host.dpkg(&newer).ok();
    assert_eq!(version(&host), format!("{NEWER} ii"));
    for part in [
        "NOT restarted",
        CONFIG,
        "hoems",
        "homes",
        "systemctl restart ssh-keywatch",
    ] {
        assert!(
            upgraded.stderr.contains(part),
            "no {part} in {}",
            upgraded.stderr
        );
    }
    assert_eq!(host.pid(), Some(pid));
    host.alert_on_key("ann", "meanwhile");
    fs::write(host.path(CONFIG), &right).unwrap();
    host.sh("systemctl restart ssh-keywatch").ok();
    assert_ne!(host.pid(), Some(pid));
    host.alert_on_key("ann", "after");

    // Without an old daemon it does not start, and says so; the package is installed.
    host.sh("dpkg --remove ssh-keywatch").ok();
    fs::write(host.path(CONFIG), "nonsense = 1\n").unwrap();
    let installed = host.dpkg(&package(None)).ok();
    assert!(
        installed.stderr.contains("is not running"),
        "{}",
        installed.stderr
    );
    assert_eq!(host.property("ActiveState"), "failed");
    assert_eq!(host.property("ExecMainStatus"), "78");
    assert_eq!(
        host.property("NRestarts"),
        "0",
        "starting again does not help"
    );
}
