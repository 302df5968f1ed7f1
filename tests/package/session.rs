//! Where a key's maker came from, as a real systemd, logind and sshd tell it and
//! the daemon sees it from within its sandbox.

use std::fs;

use serde_json::{Value, json};

use crate::machine::{Machine, keygen, login};
use crate::root::package;

/// A host that watches, with an account that has a `.ssh`.
fn watched() -> Machine {
    let host = Machine::boot();
    host.account("ann");
    host.sh("install -d -m 700 -o ann -g ann /home/ann/.ssh")
        .ok();
    host.dpkg(&package(None)).ok();
    host
}

/// The programs above the writer, nearest first.
fn lineage(alert: &Value) -> Vec<&str> {
    let ancestors = alert["ssh_keywatch"]["ancestors"].as_array().unwrap();
    ancestors
        .iter()
        .map(|ancestor| ancestor["executable"].as_str().unwrap_or("?"))
        .collect()
}

/// Logs in by a command that makes this file, and then waits to read from /srv/end: the session
/// lasts until it has been told of. Gives the alert, and what the command said.
#[track_caller]
fn told(host: &Machine, login: &str, file: &str) -> (Value, String) {
    host.sh("[ -p /srv/end ] || mkfifo -m 666 /srv/end").ok();
    std::thread::scope(|scope| {
        let session = scope.spawn(|| host.sh(login));
        let alert = host.alert(file);
        host.sh("echo end > /srv/end").ok();
        (alert, session.join().unwrap().text())
    })
}

#[test]
fn a_key_of_a_unit_names_the_unit() {
    let host = watched();
    let make =
        |file: &str| format!("/usr/bin/ssh-keygen -q -t ed25519 -N \"\" -f /home/ann/.ssh/{file}");
    for (unit, text) in [
        (
            "enrol.service",
            format!(
                "[Service]\nType=oneshot\nUser=ann\nExecStart={}\n",
                make("service")
            ),
        ),
        (
            "rotate.service",
            format!(
                "[Service]\nType=oneshot\nUser=ann\nExecStart={}\n",
                make("timer")
            ),
        ),
        (
            "rotate.timer",
            "[Timer]\nOnActiveSec=0\nAccuracySec=1us\n".to_owned(),
        ),
    ] {
        fs::write(host.path(&format!("/etc/systemd/system/{unit}")), text).unwrap();
    }
    host.sh("systemctl daemon-reload").ok();
    host.sh("systemctl start enrol.service rotate.timer").ok();
    host.sh(&format!(
        "systemd-run --quiet --wait --unit=adhoc --uid=ann {}",
        make("run")
    ))
    .ok();
    for (file, unit) in [
        ("service", "enrol.service"),
        ("timer", "rotate.service"),
        ("run", "adhoc.service"),
    ] {
        let alert = host.alert(&format!("/home/ann/.ssh/{file}"));
        let session = &alert["ssh_keywatch"]["session"];
        assert_eq!(session["kind"], "unit", "{alert:#}");
        assert_eq!(session["unit"], unit, "{alert:#}");
        assert_eq!(session["slice"], "system.slice", "{alert:#}");
        // Nobody has logged in, from nowhere.
        assert!(session["user"].is_null(), "{alert:#}");
        assert!(alert["source"].is_null(), "{alert:#}");
        assert_eq!(alert["user"]["name"], "ann", "{alert:#}");
        assert_eq!(
            alert["ssh_keywatch"]["attribution"]["certain"], true,
            "{alert:#}"
        );
        let process = &alert["process"];
        assert_eq!(process["executable"], "/usr/bin/ssh-keygen", "{alert:#}");
        assert_eq!(process["entry_leader"]["same_as_process"], true);
        assert_eq!(process["entry_leader"]["entry_meta"]["type"], "init");
        assert_eq!(lineage(&alert), ["/usr/lib/systemd/systemd"], "{alert:#}");
        let message = alert["message"].as_str().unwrap();
        let told = format!(", from the unit {unit}");
        assert!(message.contains(&told), "{message}");
    }
}

#[test]
fn a_key_made_through_sudo_names_who_logged_in_and_from_where() {
    let host = watched();
    host.account("svc");
    fs::write(
        host.path("/usr/local/bin/enrol"),
        "#!/bin/sh\nmkdir -p -m 700 ~/.ssh\nssh-keygen -q -t ed25519 -N '' -f ~/.ssh/made\nread -r _ < /srv/end\n",
    )
    .unwrap();
    fs::write(
        host.path("/etc/sudoers.d/enrol"),
        "ann ALL=(svc) NOPASSWD: /usr/local/bin/enrol\n",
    )
    .unwrap();
    host.sh("chmod 755 /usr/local/bin/enrol && chmod 440 /etc/sudoers.d/enrol")
        .ok();
    let login = login(
        "ann",
        "echo $SSH_CONNECTION; sudo -n -H -u svc /usr/local/bin/enrol; exit 0",
    );
    let (alert, said) = told(&host, &login, "/home/svc/.ssh/made");
    let mut connection = said.split_whitespace();
    let address = connection.next().unwrap();
    let port: u16 = connection.next().unwrap().parse().unwrap();

    assert_eq!(alert["user"]["name"], "svc", "{alert:#}");
    let session = &alert["ssh_keywatch"]["session"];
    assert_eq!(session["kind"], "ssh", "{alert:#}");
    assert_eq!(session["user"]["name"], "ann", "{alert:#}");
    assert_eq!(session["through"], json!(["sudo"]), "{alert:#}");
    // By sshd's socket: neither sandbox nor network namespace hides it.
    assert_eq!(session["source_from"], "socket", "{alert:#}");
    assert_eq!(alert["source"]["ip"], address, "{alert:#}");
    assert_eq!(alert["source"]["port"], port, "{alert:#}");
    // logind's session, which is a scope.
    let id = session["logind_id"].as_str().unwrap();
    assert_eq!(session["unit"], format!("session-{id}.scope"), "{alert:#}");

    let shown = lineage(&alert);
    // bash may become the last program of its command, sudo may fork once more.
    let mut expected = vec!["/usr/bin/dash", "/usr/bin/sudo", "/usr/bin/bash"];
    expected.extend(["sshd", "sshd", "sshd", "/usr/lib/systemd/systemd"]);
    let mut short: Vec<&str> = shown
        .iter()
        .map(|path| match path.rsplit_once('/') {
            // sshd-session of OpenSSH 9.8 has a directory of its own.
            Some((_, name)) if name.starts_with("sshd") => "sshd",
            _ => path,
        })
        .collect();
    short.dedup_by(|a, b| *a == "/usr/bin/sudo" && a == b);
    assert_eq!(short, expected, "{alert:#}");
    let leader = &alert["process"]["entry_leader"];
    assert_eq!(leader["executable"], "/usr/bin/bash", "{alert:#}");
    assert_eq!(leader["user"]["name"], "ann", "{alert:#}");
    let message = alert["message"].as_str().unwrap();
    let told = format!("from an SSH session of ann at {address} through sudo");
    assert!(message.contains(&told), "{message}");
}

/// By whatever this Debian's sshd and PAM have recorded.
#[test]
fn the_logins_before_are_told() {
    let host = watched();
    let in_a_terminal = login("ann", "tty; exit 0").replacen("ssh ", "ssh -tt ", 1);
    let tty = host.sh(&in_a_terminal).text();
    let tty = tty.strip_prefix("/dev/").unwrap();
    host.wait("end of the session", || {
        host.sh("grep -qs '^CLASS=user$' /run/systemd/sessions/*")
            .code
            != Some(0)
    });
    let mut made = 0;
    // They are kept for a while, and not waited for on a machine that is busy.
    let mut told = |expected: Option<&str>| {
        host.sh("systemctl restart ssh-keywatch").ok();
        let mut logins = Value::Null;
        host.wait(&format!("login from {expected:?}"), || {
            made += 1;
            let file = format!("/home/ann/.ssh/made{made}");
            let make = format!("/usr/bin/ssh-keygen -q -t ed25519 -N '' -f {file}");
            host.sh(&format!("systemd-run --quiet --wait --uid=ann {make}"))
                .ok();
            logins = host.alert(&file)["ssh_keywatch"]["session"]["recent_logins"].clone();
            logins[0]["from"].as_str() == expected
        });
        logins
    };
    // All have that login: it is told once, by the first that is left.
    let places: &[_] = match &*crate::root::suite() {
        "bookworm" => &[("wtmp", "/var/log/wtmp"), ("lastlog", "/var/log/lastlog")],
        _ => &[
            ("wtmp", "/var/log/wtmp"),
            ("wtmpdb", "/var/log/wtmp.db"),
            ("lastlog2", "/var/lib/lastlog/lastlog2.db"),
        ],
    };
    for (place, file) in places {
        let logins = told(Some(place));
        assert_eq!(logins.as_array().map(Vec::len), Some(1), "{logins:#}");
        // lastlog2 was told before there was a terminal.
        if *place != "lastlog2" {
            assert_eq!(logins[0]["tty"], tty, "{logins:#}");
        }
        assert_eq!(logins[0]["ip"], "127.0.0.1", "{logins:#}");
        // What is damaged costs nothing but what it held.
        fs::write(host.path(file), "damaged").unwrap();
    }
    told(None);
}

/// That the daemon copies sshd's socket (`pidfd_getfd(2)`): an sshd whose own
/// network namespace does not have the connection stands in no table of it.
#[test]
fn the_socket_of_an_sshd_is_asked_itself() {
    let host = watched();
    for (unit, text) in [
        (
            "inetd.socket",
            "[Socket]\nListenStream=127.0.0.1:2222\nAccept=yes\n",
        ),
        (
            "inetd@.service",
            "[Service]\nExecStart=-/usr/sbin/sshd -i\nStandardInput=socket\nPrivateNetwork=yes\n",
        ),
    ] {
        fs::write(host.path(&format!("/etc/systemd/system/{unit}")), text).unwrap();
    }
    host.sh("systemctl daemon-reload && systemctl start inetd.socket")
        .ok();
    // Makes a key; gives the alert on it and the connection's address and port.
    let session = |file: &str| {
        let make = keygen(file);
        let command = format!(
            "readlink /proc/self/ns/net; echo $SSH_CONNECTION; {make}; read -r _ < /srv/end; exit 0"
        );
        let login = login("ann", &command).replacen("ssh ", "ssh -p 2222 ", 1);
        let (alert, said) = told(&host, &login, &format!("/home/ann/.ssh/{file}"));
        let mut said = said.split_whitespace();
        let network = said.next().unwrap();
        let outside = host.sh("readlink /proc/self/ns/net").text();
        assert_ne!(network, outside, "sshd has no network of its own");
        let address = said.next().unwrap().to_owned();
        let port: u16 = said.next().unwrap().parse().unwrap();
        (alert, address, port)
    };
    let (alert, address, port) = session("copied");
    let from = &alert["ssh_keywatch"]["session"]["source_from"];
    assert_eq!(from, "socket", "{alert:#}");
    assert_eq!(alert["source"]["ip"], address, "{alert:#}");
    assert_eq!(alert["source"]["port"], port, "{alert:#}");

    // Where that is forbidden it cannot be known, and nothing is made up.
    host.sh(
        "mkdir -p /etc/systemd/system/ssh-keywatch.service.d
         printf '[Service]\nSystemCallFilter=~pidfd_getfd\n' > /etc/systemd/system/ssh-keywatch.service.d/strict.conf
         systemctl daemon-reload && systemctl restart ssh-keywatch",
    )
    .ok();
    let (alert, ..) = session("forbidden");
    let from = &alert["ssh_keywatch"]["session"]["source_from"];
    assert_ne!(from, "socket", "{alert:#}");
    assert!(alert["source"]["port"].is_null(), "{alert:#}");
}
