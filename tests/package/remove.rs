//! The end of an installation.

use crate::machine::{CONFIG, LOG, Machine};
use crate::root::package;

#[test]
fn removal_leaves_logs_and_configuration_and_purge_leaves_nothing() {
    let host = Machine::boot();
    host.account("ann");
    host.sh("mkdir /root/before && find / -xdev -name '*keywatch*' > /root/before/list")
        .ok();
    host.dpkg(&package(None)).ok();
    host.alert_on_key("ann", "id");
    std::fs::write(host.path("/etc/ssh-keywatch/rules.d/README"), "ours").unwrap();

    host.sh("dpkg --remove ssh-keywatch").ok();
    assert_eq!(host.property("LoadState"), "not-found");
    let left = host.sh("pidof ssh-keywatch || true").text();
    assert_eq!(left, "", "it still runs");
    for kept in [LOG, CONFIG, "/etc/ssh-keywatch/rules.d/README"] {
        assert!(host.path(kept).exists(), "{kept} is gone");
    }
    assert!(!host.path("/usr/bin/ssh-keywatch").exists());
    // Whoever makes a key now waits for nobody.
    host.login("ann", &crate::machine::keygen("unwatched")).ok();

    host.sh("dpkg --purge ssh-keywatch").ok();
    let left = host
        .sh("find / -xdev -name '*keywatch*' ! -path '/proc/*' ! -path '/sys/*'")
        .text();
    let before = std::fs::read_to_string(host.path("/root/before/list")).unwrap();
    let left: Vec<&str> = left
        .lines()
        .filter(|line| !before.contains(*line))
        .collect();
    assert!(left.is_empty(), "purge has left {left:#?}");

    // And it can come back.
    host.dpkg(&package(None)).ok();
    host.alert_on_key("ann", "again");
}
