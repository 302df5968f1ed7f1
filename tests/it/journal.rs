//! Alerts in the real journald.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use crate::document::{Document, SEED, any_creation};
use crate::follow::Follow;
use crate::host::{ANN, Host};
use crate::process::{Process, SOON};

/// A systemd-journald in the namespace, and journalctl that follows it.
pub struct Journald {
    _server: Process,
    _reader: Process,
    entries: Follow<Document>,
}

impl Journald {
    pub fn start(host: &Host) -> Self {
        let journald = "/usr/lib/systemd/systemd-journald";
        for program in [journald, "/usr/bin/journalctl"] {
            assert!(
                host.path(program).exists(),
                "this test needs {program}; tests/run installs systemd"
            );
        }
        host.write(
            "/run/systemd/journald.conf.d/it.conf",
            "[Journal]\nStorage=volatile\nAudit=no\nReadKMsg=no\nRateLimitIntervalSec=0\n",
        );
        std::fs::create_dir_all(host.path("/run/systemd/journal")).unwrap();
        std::fs::create_dir_all(host.path("/run/log/journal")).unwrap();
        let (socket, path) = host.notify_socket();
        let process = host
            .command(journald)
            .env(format!("NOTIFY_SOCKET={path}"))
            .spawn_silent();
        let until = Instant::now() + SOON;
        let step = Duration::from_millis(200);
        socket.set_read_timeout(Some(step)).unwrap();
        let mut bytes = [0; 4096];
        loop {
            match socket.recv(&mut bytes) {
                Ok(count) if bytes[..count].starts_with(b"READY=1") => break,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("cannot read sd_notify's socket: {error}"),
            }
            let over = process.has_ended() || Instant::now() > until;
            assert!(!over, "systemd-journald does not become ready");
        }
        let mut journalctl = host
            .command("journalctl")
            .args(["-o", "json", "--all", "--follow", "--lines=all", "--quiet"])
            .spawn();
        let entries = Follow::new(journalctl.stdout(), Document::parse);
        Self {
            _server: process,
            _reader: journalctl,
            entries,
        }
    }

    /// Waits for the entry of a document of the alert log.
    #[track_caller]
    pub fn entry(&self, what: &str, is: impl Fn(&Document) -> bool) -> Document {
        self.entries
            .wait(SOON, |entries| {
                entries.iter().find(|entry| is(entry)).cloned()
            })
            .unwrap_or_else(|| {
                let seen = self.entries.so_far();
                let seen: Vec<&str> = seen.iter().map(|entry| entry.text("MESSAGE")).collect();
                panic!("no {what} in the journal, only {seen:#?}")
            })
    }
}

#[test]
fn the_journal_has_the_alert_in_fields_and_the_whole_document() {
    let host = Host::new();
    host.sh(ANN, "mkdir -m 700 .ssh").ok();
    let journald = Journald::start(&host);
    let daemon = host.daemon().journal().start();
    let path = ANN.ssh("id_journal");
    let made = host.keygen(ANN, "ed25519").args(["-f", &path]).ok();
    let alert = daemon.alert(SEED, &path);
    let entry = journald.entry("alert", |entry| entry.is("FILE_PATH", &path));
    for (field, text) in [
        ("RULE_ID", SEED),
        ("RULE_NAME", "SSH Key Generated via ssh-keygen"),
        ("PROCESS_EXECUTABLE", "/usr/bin/ssh-keygen"),
        ("PROCESS_PID", &made.pid.to_string()),
        ("USER_NAME", "ann"),
        ("USER_ID", "4001"),
        ("EVENT_KIND", "alert"),
        ("EVENT_ACTION", "creation"),
        ("EVENT_ID", alert.text("event.id")),
        ("SYSLOG_IDENTIFIER", "ssh-keywatch"),
        // A low severity is a notice.
        ("PRIORITY", "5"),
        ("_PID", &daemon.pid().to_string()),
        ("MESSAGE", alert.text("message")),
    ] {
        assert_eq!(entry.text(field), text, "{field}");
    }
    assert!(!entry.text("MESSAGE_ID").is_empty());
    // The very document of the log.
    assert_eq!(Document::parse(entry.text("SSH_KEYWATCH_EVENT")).0, alert.0);
    daemon.stop().assert_nothing_lost();
}

#[test]
fn each_alert_stands_in_the_journal_once() {
    let host = Host::new();
    host.sh(ANN, "mkdir -m 700 .ssh").ok();
    let journald = Journald::start(&host);
    let daemon = host.daemon().journal().start();
    for number in 0..10 {
        let path = ANN.ssh(&format!("id_{number}"));
        host.keygen(ANN, "ed25519").args(["-f", &path]).ok();
    }
    daemon.alert(SEED, &ANN.ssh("id_9.pub"));
    let ended = daemon.stop();
    journald.entry("stop", |entry| {
        entry.is("EVENT_KIND", "state") && entry.is("EVENT_ACTION", "stop")
    });
    let mut journaled: Vec<String> = journald
        .entries
        .so_far()
        .iter()
        .filter(|entry| entry.is("EVENT_KIND", "alert"))
        .map(|entry| entry.text("EVENT_ID").to_owned())
        .collect();
    let mut logged: Vec<String> = ended
        .alerts(SEED)
        .iter()
        .map(|alert| alert.text("event.id").to_owned())
        .collect();
    assert_eq!(logged.len(), 20);
    journaled.sort();
    logged.sort();
    assert_eq!(journaled, logged);
}

#[test]
fn a_hostile_file_name_cannot_forge_journal_fields() {
    let host = Host::new();
    host.sh(ANN, "mkdir -m 700 .ssh").ok();
    let journald = Journald::start(&host);
    let daemon = host.daemon().journal().start();
    let path = ANN.ssh("id\u{1b}[2J\nUSER_NAME=root\nPRIORITY=7");
    host.keygen(ANN, "ed25519").args(["-f", &path]).ok();
    let alert = daemon.alert(SEED, &path);
    let id = alert.text("event.id").to_owned();
    let entry = journald.entry("alert", |entry| entry.is("EVENT_ID", &id));
    assert_eq!(entry.text("USER_NAME"), "ann");
    assert_eq!(entry.text("PRIORITY"), "5");
    // Shown escaped, so that journalctl shows it at all; the document is exact.
    let shown = entry.text("FILE_PATH");
    assert!(shown.starts_with("/home/ann/.ssh/id"), "{shown:?}");
    assert!(!shown.contains(char::is_control), "{shown:?}");
    assert!(!entry.text("MESSAGE").contains(char::is_control));
    let document = Document::parse(entry.text("SSH_KEYWATCH_EVENT"));
    assert_eq!(document.text("file.path"), path);
    daemon.stop();
}

#[test]
fn a_missing_journal_does_not_keep_an_alert_from_the_log() {
    let host = Host::new();
    host.sh(ANN, "mkdir -m 700 .ssh").ok();
    let daemon = host.daemon().journal().start();
    let path = ANN.ssh("id_alone");
    host.keygen(ANN, "ed25519").args(["-f", &path]).ok();
    daemon.alert(SEED, &format!("{path}.pub"));
    daemon.line("word about the journal", |document| {
        document.is("event.kind", "pipeline_error")
            && document.is("event.code", "sink_failing")
            && document.text("message").contains("journal")
    });
    // Once it is there, alerts go to it.
    let journald = Journald::start(&host);
    let later = ANN.ssh("id_later");
    host.keygen(ANN, "ed25519").args(["-f", &later]).ok();
    journald.entry("alert", |entry| entry.is("FILE_PATH", &later));
    let ended = daemon.stop();
    assert_eq!(ended.alerts(SEED).len(), 4);
}

#[test]
fn a_journal_that_is_restarted_costs_no_alert_of_the_log() {
    let host = Host::new();
    host.sh(ANN, "mkdir -m 700 .ssh").ok();
    let journald = Journald::start(&host);
    let daemon = host.daemon().journal().start();
    let key = |name: &str| {
        let path = ANN.ssh(name);
        host.keygen(ANN, "ed25519").args(["-f", &path]).ok();
        daemon.alert(SEED, &format!("{path}.pub"));
        path
    };
    let before = key("id_before");
    journald.entry("alert", |entry| entry.is("FILE_PATH", &before));
    drop(journald);
    key("id_meanwhile");
    let journald = Journald::start(&host);
    let after = key("id_after");
    journald.entry("alert", |entry| entry.is("FILE_PATH", &after));
    let ended = daemon.stop();
    assert_eq!(ended.alerts(SEED).len(), 6);
}

#[test]
fn a_document_beyond_what_a_datagram_holds_arrives_whole() {
    let host = Host::new();
    host.sh(ANN, "mkdir -m 700 .ssh").ok();
    let journald = Journald::start(&host);
    let daemon = host.daemon().journal().rule("any", &any_creation()).start();
    // As many keys as a document names, with as many options: more than a
    // datagram takes (net.core.wmem_default, socket(7)).
    let script = r#"perl -e '
        for my $key (0..39) {
            print join(",", map { "environment=\"V$_=" . "x" x 400 . "\"" } 1..20);
            printf(" ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI%043d\n", $key);
        }' > list; mv list .ssh/authorized_keys"#;
    host.sh(ANN, script).ok();
    let path = ANN.ssh("authorized_keys");
    let huge = daemon.line("word of the list", |document| {
        document.is("file.path", &path) && !document.get("ssh_keywatch.key.added").is_null()
    });
    let length = huge.0.to_string().len();
    assert!(
        length > 212_992,
        "{length} bytes are not enough for this test"
    );
    let id = huge.text("event.id");
    let entry = journald.entry("alert", |entry| entry.is("EVENT_ID", id));
    let document = Document::parse(entry.text("SSH_KEYWATCH_EVENT"));
    assert_eq!(document.0, huge.0);
    daemon.stop().assert_nothing_lost();
}
