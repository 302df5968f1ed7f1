//! Installation where no systemd runs: in the making of an image.

use std::path::Path;
use std::process::Command;

use crate::root::{copy, must, package};

#[track_caller]
fn chroot(root: &Path, script: &str) -> String {
    must(
        Command::new("chroot")
            .arg(root)
            .args(["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"])
            .args(["DEBIAN_FRONTEND=noninteractive", "sh", "-euc", script]),
    )
}

#[test]
fn it_installs_in_an_image_whose_services_must_not_start() {
    let root = copy();
    std::fs::copy(package(None), root.path().join("root/package.deb")).unwrap();
    chroot(
        root.path(),
        "printf '#!/bin/sh\\nexit 101\\n' > /usr/sbin/policy-rc.d
         chmod +x /usr/sbin/policy-rc.d
         dpkg --install /root/package.deb
         test -L /etc/systemd/system/multi-user.target.wants/ssh-keywatch.service
         ssh-keywatch --version",
    );
    chroot(
        root.path(),
        "dpkg --install /root/package.deb
         dpkg --purge ssh-keywatch
         test ! -e /etc/ssh-keywatch
         test ! -L /etc/systemd/system/multi-user.target.wants/ssh-keywatch.service",
    );
}

#[test]
fn it_installs_where_there_is_no_systemd() {
    let root = copy();
    std::fs::copy(package(None), root.path().join("root/package.deb")).unwrap();
    chroot(
        root.path(),
        "dpkg --purge --force-depends --force-remove-protected systemd systemd-sysv libpam-systemd
         test ! -e /usr/bin/systemctl
         dpkg --install /root/package.deb
         ssh-keywatch rules > /dev/null
         dpkg --remove ssh-keywatch
         dpkg --purge ssh-keywatch",
    );
}
