//! The whole chain of a real session: who logged in, from where, and through
//! what, at real daemons that let people and jobs in.

use std::os::unix::fs::PermissionsExt;

use crate::daemon::Ended;
use crate::document::{ANY, Document, SEED, rule};
use crate::host::{ANN, BOB, Cmd, Host, ROOT, User};
use crate::process::{Process, SOON};

/// Where this process's sshds listen: an address of the loopback network that
/// no other process of tests has.
fn address() -> String {
    let pid = std::process::id().to_be_bytes();
    format!("127.{}.{}.{}", pid[1] | 1, pid[2], pid[3])
}

/// An account that PAM lets in, and that sudo lets act as any other.
fn prepare(host: &Host) {
    let script = "
        for user in ann bob; do echo \"$user:*:19000:0:99999:7:::\"; done >> /etc/shadow
        echo 'bob ALL=(ALL:ALL) NOPASSWD: ALL' > /etc/sudoers.d/it
        echo 'Defaults use_pty' >> /etc/sudoers.d/it
        chmod 440 /etc/sudoers.d/it
        mkdir -p -m 755 /run/sshd
        install -d -m 700 -o ann -g ann /home/ann/.ssh
        install -d -m 700 -o bob -g bob /home/bob/.ssh
        install -d -m 755 /srv/login
        ssh-keygen -q -t ed25519 -N '' -f /srv/login/host
        ssh-keygen -q -t ed25519 -N '' -f /srv/login/bob
        install -m 600 -o bob -g bob /srv/login/bob.pub /home/bob/.ssh/authorized_keys
    ";
    host.sh(ROOT, script).ok();
}

/// An executable script at `path`.
fn script(host: &Host, path: &str, text: &str) {
    host.write(path, format!("#!/bin/sh\n{text}\n"));
    std::fs::set_permissions(host.path(path), std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// A real sshd that listens; it ends when this is dropped.
fn sshd(host: &Host, port: &str) -> Process {
    let config = format!(
        "ListenAddress {}\nPort {port}\nHostKey /srv/login/host\nPidFile none\nUsePAM yes\n\
         PasswordAuthentication no\nStrictModes no\nLogLevel VERBOSE\nPrintMotd no\n",
        address()
    );
    host.write("/srv/login/sshd_config", config);
    let mut sshd = host
        .command("/usr/sbin/sshd")
        .args(["-D", "-e", "-f", "/srv/login/sshd_config"])
        .spawn();
    let said = crate::follow::Follow::new(sshd.stderr(), str::to_owned);
    let listens = said.wait(SOON, |lines| {
        let listening = |line: &String| line.contains("Server listening on");
        lines.iter().any(listening).then_some(())
    });
    assert!(
        listens.is_some(),
        "sshd does not listen: {:?}",
        said.so_far()
    );
    sshd
}

/// `ssh` as bob.
fn ssh<'h>(host: &'h Host, port: &str, options: &[&str], command: &str) -> Cmd<'h> {
    let target = format!("bob@{}", address());
    host.command("ssh")
        .args(["-F", "none", "-p", port, "-i", "/srv/login/bob", "-b"])
        .args([address().as_str(), "-o", "BatchMode=yes"])
        .args(["-o", "StrictHostKeyChecking=no", "-o", "IdentitiesOnly=yes"])
        .args(["-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"])
        .args(options)
        .args([target.as_str(), command])
}

fn names<'a>(alert: &'a Document, list: &str, field: &str) -> Vec<&'a str> {
    let list = alert.get(list).as_array().unwrap();
    let name = |entry: &'a serde_json::Value| match field {
        "" => entry.as_str(),
        field => entry[field].as_str(),
    };
    list.iter()
        .map(|entry| name(entry).unwrap_or_default())
        .collect()
}

#[track_caller]
fn assert_from_bob(alert: &Document, port: &str) {
    let shown = serde_json::to_string_pretty(&alert.0).unwrap();
    assert_eq!(alert.text("ssh_keywatch.session.kind"), "ssh", "{shown}");
    assert_eq!(
        alert.text("ssh_keywatch.session.user.name"),
        "bob",
        "{shown}"
    );
    assert_eq!(
        alert.text("ssh_keywatch.session.user.id"),
        BOB.id.to_string(),
        "{shown}"
    );
    assert_eq!(alert.text("source.ip"), address(), "{shown}");
    assert_eq!(alert.get("source.port").to_string(), port, "{shown}");
    assert_eq!(
        alert.text("ssh_keywatch.session.source_from"),
        "socket",
        "{shown}"
    );
    let entry = |field: &str| alert.text(&format!("process.entry_leader.{field}"));
    assert_eq!(entry("entry_meta.type"), "sshd", "{shown}");
    assert_eq!(entry("entry_meta.source.ip"), address(), "{shown}");
    assert_eq!(entry("user.name"), "bob", "{shown}");
}

/// The port of the client, as the session itself was told it.
fn client_port(host: &Host) -> String {
    let said = std::fs::read_to_string(host.path("/srv/connection")).unwrap();
    said.split(' ').nth(1).unwrap().to_owned()
}

/// What is told of a key that ann's script makes at `key` in a session of bob.
#[track_caller]
fn deployed(host: &Host, key: &str) -> Ended {
    prepare(host);
    let make = format!("ssh-keygen -q -t ed25519 -N '' -C it -f {key}");
    // The script and the session last until they have been told of.
    script(
        host,
        "/srv/deploy",
        &format!("{make}\nread -r _ < /srv/end"),
    );
    host.sh(ROOT, "mkfifo -m 666 /srv/end").ok();
    host.sh(ROOT, "install -m 666 /dev/null /srv/connection")
        .ok();
    let _sshd = sshd(host, "22022");
    let daemon = host.daemon().start();
    let command = "echo $SSH_CONNECTION $(tty) > /srv/connection; sudo -u ann /srv/deploy; true";
    let session = ssh(host, "22022", &["-tt"], command);
    let mut session = session.spawn_silent();
    daemon.alert(SEED, &format!("{key}.pub"));
    host.sh(ROOT, "echo end > /srv/end").ok();
    assert!(session.end(SOON).success());
    daemon.stop()
}

/// Whether the arguments of all that it is about are told: they are if they can be read at once.
fn tells_arguments(alert: &Document) -> bool {
    let ancestors = alert.get("ssh_keywatch.ancestors").as_array();
    let mut ancestors = ancestors.into_iter().flatten();
    let is_open = |ancestor: &serde_json::Value| {
        let name = ancestor["name"].as_str().unwrap_or_default();
        (name == "sudo" || name.starts_with("sshd")) && ancestor["args"].is_null()
    };
    !ancestors.any(is_open) && !alert.get("process.parent.args").is_null()
}

#[test]
fn a_login_over_ssh_and_sudo_and_a_script() {
    let key = ANN.ssh("id_ed25519");
    let mut tries = (0..5).map(|_| {
        let host = Host::new();
        let ended = deployed(&host, &key);
        (host, ended)
    });
    let (host, ended) = tries
        .find(|(_, ended)| tells_arguments(ended.alert(SEED, &key)))
        .expect("arguments");
    let alert = ended.alert(SEED, &key);
    let shown = serde_json::to_string_pretty(&alert.0).unwrap();
    assert_from_bob(alert, &client_port(&host));
    assert_eq!(alert.text("user.name"), "ann", "{shown}");
    assert_eq!(alert.text("process.executable"), "/usr/bin/ssh-keygen");
    assert_eq!(alert.get("process.interactive"), true, "{shown}");
    // sudo gave its command a terminal of its own.
    let said = std::fs::read_to_string(host.path("/srv/connection")).unwrap();
    let tty = said.trim().rsplit("/dev/").next().unwrap();
    assert_eq!(alert.text("ssh_keywatch.session.tty"), tty, "{shown}");
    assert_eq!(names(alert, "ssh_keywatch.session.through", ""), ["sudo"]);
    let ancestors = names(alert, "ssh_keywatch.ancestors", "name");
    let position = |name: &str| ancestors.iter().position(|ancestor| *ancestor == name);
    assert!(position("sudo") < position("sshd"), "{ancestors:?}");
    assert!(position("sudo").is_some(), "{ancestors:?}");
    // Of sudo, which runs with rights that its user does not have, as much is
    // known as of others.
    let list = alert.get("ssh_keywatch.ancestors").as_array().unwrap();
    for ancestor in list {
        let program = ancestor["name"].as_str().unwrap_or_default();
        if program == "sudo" {
            assert_eq!(ancestor["user"]["name"], "root", "{shown}");
            assert_eq!(
                ancestor["args"],
                serde_json::json!(["sudo", "-u", "ann", "/srv/deploy"]),
                "{shown}"
            );
        }
        if program.starts_with("sshd") {
            assert_ne!(ancestor["args"][1], "", "{shown}");
        }
    }
    // Nobody is older than who made him, but for the tick to which it is told.
    let mut starts = vec![alert.text("process.start")];
    starts.extend(list.iter().filter_map(|it| it["start"].as_str()));
    let starts: Vec<jiff::Timestamp> = starts.iter().map(|it| it.parse().unwrap()).collect();
    let tick = jiff::SignedDuration::from_millis(20);
    assert!(
        starts.is_sorted_by(|child, parent| parent.duration_since(*child) <= tick),
        "{shown}"
    );
    let parent = names(alert, "process.parent.args", "");
    assert_eq!(parent, ["/bin/sh", "/srv/deploy"], "{shown}");
    assert_eq!(alert.text("ssh_keywatch.key.type"), "ssh-ed25519");
    assert_eq!(alert.get("ssh_keywatch.key.encrypted"), false);
    let message = alert.text("message");
    let expected = format!(
        "/usr/bin/ssh-keygen created an unencrypted ed25519 private key {key} as ann, from an \
         SSH session of bob at {} through sudo (",
        address()
    );
    assert!(message.starts_with(&expected), "{message}");

    // The public half belongs to the same act, and names the alert before it.
    let public = ended.alert(SEED, &format!("{key}.pub"));
    assert_from_bob(public, &client_port(&host));
    let act = alert.text("ssh_keywatch.act.id");
    assert!(!act.is_empty(), "{shown}");
    assert_eq!(public.text("ssh_keywatch.act.id"), act);
    let (first, last) = if alert.number("event.sequence") < public.number("event.sequence") {
        (alert, public)
    } else {
        (public, alert)
    };
    let named = names(last, "ssh_keywatch.act.events", "");
    assert_eq!(named, [first.text("event.id")]);
    let session = alert.text("ssh_keywatch.session.entity_id");
    assert!(!session.is_empty(), "{shown}");
    assert_eq!(public.text("ssh_keywatch.session.entity_id"), session);
    ended.assert_nothing_lost();
}

/// Acts that are over, with their whole session, before anybody can have asked.
#[test]
fn a_session_of_one_short_command() {
    let host = Host::new();
    prepare(&host);
    host.sh(ROOT, "install -m 666 /dev/null /srv/connection")
        .ok();
    let _sshd = sshd(&host, "22023");
    let daemon = host.daemon().start();
    let mut ports = Vec::new();
    let key = |number| BOB.ssh(&format!("id{number}"));
    for number in 0..5 {
        let make = format!(
            "echo $SSH_CONNECTION > /srv/connection; exec ssh-keygen -q -t ed25519 -N '' -f {}",
            key(number)
        );
        ssh(&host, "22023", &[], &make).ok();
        ports.push(client_port(&host));
    }
    let ended = daemon.stop();
    // On a busy machine a session can be over before anybody looks: what is told
    // of it is right all the same.
    let mut told = 0;
    for (number, port) in ports.iter().enumerate() {
        let alert = ended.alert(SEED, &key(number));
        let shown = serde_json::to_string_pretty(&alert.0).unwrap();
        assert_eq!(alert.text("user.name"), "bob", "{shown}");
        for (field, expected) in [
            ("ssh_keywatch.session.kind", "\"ssh\""),
            ("ssh_keywatch.session.user.name", "\"bob\""),
            ("source.ip", &format!("\"{}\"", address())),
            ("source.port", port),
        ] {
            let value = alert.get(field);
            let text = value.to_string();
            assert!(value.is_null() || text == *expected, "{shown}");
        }
        if alert.get("source.ip").is_string() {
            told += 1;
            let expected = format!("as bob, from an SSH session at {} (", address());
            let message = alert.text("message");
            assert!(message.contains(&expected), "{message}");
        }
    }
    assert!(told > 0, "no session of {} was told of", ports.len());
    ended.assert_nothing_lost();
}

/// A new way in, added by the shell itself, and the command that closes it.
#[test]
fn a_key_is_added_and_the_response_takes_it_out_again() {
    let host = Host::new();
    prepare(&host);
    let list = BOB.ssh("authorized_keys");
    let before = std::fs::read_to_string(host.path(&list)).unwrap();
    host.sh(ROOT, "install -m 666 /dev/null /srv/connection; mkfifo -m 666 /srv/end; ssh-keygen -q -t ed25519 -N '' -C mallory -f /srv/login/mallory; chmod a+r /srv/login/mallory.pub").ok();
    let _sshd = sshd(&host, "22024");
    let change = rule(
        ANY,
        "Any change",
        r#"file where event.action == "modification" and file.name == "authorized_keys""#,
    );
    let daemon = host.daemon().rule("any", &change).start();
    let command = "echo $SSH_CONNECTION > /srv/connection; read -r key < /srv/login/mallory.pub; echo \"$key\" >> ~/.ssh/authorized_keys; read -r _ < /srv/end";
    let mut session = ssh(&host, "22024", &[], command).spawn_silent();
    let alert = daemon.alert(ANY, &list);
    host.sh(ROOT, "echo end > /srv/end").ok();
    assert!(session.end(SOON).success());
    assert_from_bob(&alert, &client_port(&host));
    let message = alert.text("message");
    assert!(message.contains("(mallory)"), "{message}");
    let commands = names(&alert, "ssh_keywatch.response.commands", "");
    assert_eq!(commands.len(), 1, "{commands:?}");
    host.sh(ROOT, commands[0]).ok();
    let after = std::fs::read_to_string(host.path(&list)).unwrap();
    assert_eq!(after, before);
    daemon.stop().assert_nothing_lost();
}

#[test]
fn a_job_of_cron() {
    let host = Host::new();
    prepare(&host);
    let key = ANN.ssh("id_ecdsa");
    let make = format!("ssh-keygen -q -t ecdsa -N '' -f {key}");
    script(&host, "/srv/job", &make);
    // At every boot, which for cron is a start without this file.
    host.write("/etc/cron.d/it", "@reboot ann /srv/job\n");
    let daemon = host.daemon().start();
    let _cron = host
        .sh(ROOT, "rm -f /run/crond.reboot /run/crond.pid; exec cron -f")
        .spawn_silent();
    let alert = daemon.alert(SEED, &key);
    let shown = serde_json::to_string_pretty(&alert.0).unwrap();
    assert_eq!(alert.text("ssh_keywatch.session.kind"), "cron", "{shown}");
    assert_eq!(
        alert.text("ssh_keywatch.session.user.name"),
        "ann",
        "{shown}"
    );
    assert_eq!(alert.text("process.entry_leader.entry_meta.type"), "init");
    assert_eq!(alert.get("process.interactive"), false, "{shown}");
    assert!(alert.get("source.ip").is_null(), "{shown}");
    let ancestors = names(&alert, "ssh_keywatch.ancestors", "name");
    assert!(ancestors.contains(&"cron"), "{ancestors:?}");
    let message = alert.text("message");
    assert!(message.contains(" as ann, from a cron job ("), "{message}");
    daemon.stop().assert_nothing_lost();
}

/// A directory of control groups that is removed again.
struct Cgroup(std::path::PathBuf);

impl Cgroup {
    fn new(name: &str) -> Self {
        // Version 2, or systemd's hierarchy of version 1.
        let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/systemd"];
        let root = roots
            .iter()
            .find(|root| std::path::Path::new(root).join("cgroup.procs").exists())
            .expect("this test needs control groups at /sys/fs/cgroup");
        let path = std::path::Path::new(root).join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn a_container() {
    let host = Host::new();
    let id = format!("{:064x}", std::process::id());
    let cgroup = Cgroup::new(&format!("docker-{id}.scope"));
    let user: User = ANN;
    host.sh(ROOT, "install -d -m 700 -o ann -g ann /home/ann/.ssh")
        .ok();
    let daemon = host.daemon().start();
    let join = format!("echo $$ > {}/cgroup.procs", cgroup.0.display());
    // It is told if it can be read at once.
    let mut tries = (1..=5).map(|number| {
        let key = user.ssh(&format!("id{number}"));
        let make = format!("ssh-keygen -q -t ed25519 -N \"\" -f {key}");
        let container =
            format!("{join}; exec unshare --mount --pid --fork --mount-proc sh -c '{make}; true'");
        host.sh(ROOT, &container).ok();
        daemon.alert(SEED, &key)
    });
    let alert = tries
        .find(|alert| !alert.get("container.id").is_null())
        .expect("a container");
    let shown = serde_json::to_string_pretty(&alert.0).unwrap();
    assert_eq!(alert.text("container.id"), id, "{shown}");
    assert_eq!(alert.text("container.runtime"), "docker", "{shown}");
    let message = alert.text("message");
    let expected = format!(", in the docker container {}", &id[..12]);
    assert!(message.contains(&expected), "{message}");
    daemon.stop().assert_nothing_lost();
}
