//! A new key is alerted once a file, with who made it.

use crate::daemon::Ended;
use crate::document::{Document, SEED};
use crate::host::{ANN, BOB, Host, ROOT, User};

/// What an alert on a file that ssh-keygen made must say.
pub struct Expected<'a> {
    pub path: &'a str,
    pub pid: u32,
    pub user: User,
}

impl Expected<'_> {
    #[track_caller]
    pub fn check(&self, alert: &Document) {
        assert_eq!(alert.text("file.path"), self.path);
        let shown = alert.brief();
        assert_eq!(
            alert.text("process.executable"),
            "/usr/bin/ssh-keygen",
            "{shown}"
        );
        assert_eq!(
            alert.number("process.pid"),
            Some(self.pid.into()),
            "{shown}"
        );
        assert_eq!(alert.text("user.name"), self.user.name, "{shown}");
        assert_eq!(alert.text("user.id"), self.user.id.to_string(), "{shown}");
        assert_eq!(alert.text("event.action"), "creation", "{shown}");
        assert_eq!(
            alert.get("ssh_keywatch.attribution.certain"),
            true,
            "{shown}"
        );
    }
}

/// Exactly one alert on the key and one on its public half, each right, and
/// none on anything else.
#[track_caller]
fn assert_pair(ended: &Ended, expected: &Expected<'_>) {
    let public = format!("{}.pub", expected.path);
    let mut paths = [expected.path.to_owned(), public.clone()];
    paths.sort();
    assert_eq!(ended.paths(SEED), paths);
    expected.check(ended.alert(SEED, expected.path));
    let public = Expected {
        path: &public,
        ..*expected
    };
    public.check(ended.alert(SEED, public.path));
    ended.assert_nothing_lost();
}

/// Makes a key of `kind` at `path`, while the daemon watches.
#[track_caller]
fn key_is_alerted(host: &Host, user: User, kind: &[&str], path: &str) {
    let directory = path.rsplit_once('/').unwrap().0;
    host.sh(user, &format!("mkdir -p -m 700 {directory}")).ok();
    let daemon = host.daemon().start();
    let made = host
        .command("ssh-keygen")
        .user(user)
        .args(["-q", "-N", "", "-C", "it", "-f", path, "-t"])
        .args(kind)
        .ok();
    daemon.alert(SEED, &format!("{path}.pub"));
    let ended = daemon.stop();
    assert_pair(
        &ended,
        &Expected {
            path,
            pid: made.pid,
            user,
        },
    );
}

#[test]
fn an_ed25519_key_of_root() {
    key_is_alerted(&Host::new(), ROOT, &["ed25519"], "/root/.ssh/id_ed25519");
}

#[test]
fn an_ed25519_key_of_a_user() {
    key_is_alerted(&Host::new(), ANN, &["ed25519"], &ANN.ssh("id_ed25519"));
}

#[test]
fn an_rsa_key() {
    key_is_alerted(
        &Host::new(),
        ANN,
        &["rsa", "-b", "2048"],
        &ANN.ssh("id_rsa"),
    );
}

#[test]
fn an_ecdsa_key() {
    key_is_alerted(&Host::new(), BOB, &["ecdsa"], &BOB.ssh("id_ecdsa"));
}

#[test]
fn a_key_in_etc_ssh() {
    key_is_alerted(&Host::new(), ROOT, &["ed25519"], "/etc/ssh/ssh_host_x_key");
}

#[test]
fn a_key_on_the_disk() {
    key_is_alerted(&Host::on_disk(), ANN, &["ed25519"], &ANN.ssh("id_ed25519"));
}

#[test]
fn a_key_deep_below_dot_ssh() {
    key_is_alerted(
        &Host::new(),
        ANN,
        &["ed25519"],
        &ANN.ssh("work/customers/acme/deploy"),
    );
}

#[test]
fn a_key_that_root_makes_for_a_user_is_roots_doing() {
    let host = Host::new();
    host.sh(ANN, "mkdir -m 700 .ssh").ok();
    let daemon = host.daemon().start();
    let path = ANN.ssh("id_deploy");
    let made = host.keygen(ROOT, "ed25519").args(["-f", &path]).ok();
    daemon.alert(SEED, &format!("{path}.pub"));
    assert_pair(
        &daemon.stop(),
        &Expected {
            path: &path,
            pid: made.pid,
            user: ROOT,
        },
    );
}

#[test]
fn a_relative_path_is_alerted_as_an_absolute_one() {
    let host = Host::new();
    host.sh(ANN, "mkdir -m 700 .ssh").ok();
    let daemon = host.daemon().start();
    let made = host
        .keygen(ANN, "ed25519")
        .args(["-f", "id_relative"])
        .directory(ANN.ssh(""))
        .ok();
    let path = ANN.ssh("id_relative");
    let alert = daemon.alert(SEED, &path);
    assert_eq!(
        alert.text("process.working_directory"),
        "/home/ann/.ssh",
        "{}",
        alert.brief()
    );
    daemon.alert(SEED, &format!("{path}.pub"));
    assert_pair(
        &daemon.stop(),
        &Expected {
            path: &path,
            pid: made.pid,
            user: ANN,
        },
    );
}

#[test]
fn the_alert_names_arguments_and_parent() {
    let host = Host::new();
    host.sh(ANN, "mkdir -m 700 .ssh").ok();
    let daemon = host.daemon().start();
    // Both are told if they can be read at once.
    let mut tries = (1..=5).map(|number| {
        let path = ANN.ssh(&format!("id_named{number}"));
        let made = host.keygen(ANN, "ed25519").args(["-f", &path]).ok();
        let alert = daemon.alert(SEED, &path);
        (path, made, alert)
    });
    let is_there = |alert: &Document, field| !alert.get(field).is_null();
    let (path, made, alert) = tries
        .find(|(.., alert)| is_there(alert, "process.args") && is_there(alert, "process.parent"))
        .expect("arguments and parent");
    let args = [
        "ssh-keygen",
        "-q",
        "-N",
        "",
        "-C",
        "it",
        "-t",
        "ed25519",
        "-f",
        &path,
    ];
    assert_eq!(*alert.get("process.args"), serde_json::json!(args));
    assert_eq!(alert.number("process.pid"), Some(made.pid.into()));
    assert_eq!(
        alert.number("process.parent.pid"),
        Some(std::process::id().into()),
        "this test started it"
    );
    assert_eq!(
        alert.text("process.parent.executable"),
        std::env::current_exe().unwrap().to_str().unwrap()
    );
    assert_eq!(alert.text("ssh_keywatch.attribution.image"), "same");
    daemon.stop();
}

#[test]
fn a_shells_child_has_the_shell_as_its_parent() {
    let host = Host::new();
    host.sh(BOB, "mkdir -m 700 .ssh").ok();
    let daemon = host.daemon().start();
    let shell = host
        .command("sh")
        .args([
            "-lc",
            "ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_login & echo $!; wait $!",
        ])
        .user(BOB)
        .directory(BOB.home)
        .ok();
    let path = BOB.ssh("id_login");
    let alert = daemon.alert(SEED, &path);
    assert_eq!(
        alert.number("process.parent.pid"),
        Some(shell.pid.into()),
        "{}",
        alert.brief()
    );
    daemon.alert(SEED, &format!("{path}.pub"));
    assert_pair(
        &daemon.stop(),
        &Expected {
            path: &path,
            pid: shell.stdout.trim().parse().unwrap(),
            user: BOB,
        },
    );
}

#[test]
fn the_first_key_of_an_account_whose_dot_ssh_ssh_keygen_makes() {
    for (host, user) in [(Host::new(), ANN), (Host::on_disk(), ROOT)] {
        let daemon = host.daemon().start();
        let path = user.ssh("id_first");
        let made = host.keygen(user, "ed25519").args(["-f", &path]).ok();
        daemon.alert(SEED, &format!("{path}.pub"));
        assert_pair(
            &daemon.stop(),
            &Expected {
                path: &path,
                pid: made.pid,
                user,
            },
        );
    }
}

#[test]
fn the_name_of_a_key_may_be_anything() {
    let host = Host::new();
    host.sh(ANN, "mkdir -m 700 .ssh").ok();
    let daemon = host.daemon().start();
    let path = ANN.ssh("id \u{1b}[31m\n\"quoted\" \u{202e}schlüssel");
    let made = host.keygen(ANN, "ed25519").args(["-f", &path]).ok();
    daemon.alert(SEED, &format!("{path}.pub"));
    assert_pair(
        &daemon.stop(),
        &Expected {
            path: &path,
            pid: made.pid,
            user: ANN,
        },
    );
}

#[test]
fn every_host_key_of_ssh_keygen_a_is_alerted_once_with_its_final_name() {
    let host = Host::new();
    let daemon = host.daemon().start();
    let made = host
        .command("ssh-keygen")
        .args(["-A"])
        .directory("/etc/ssh")
        .ok();
    let finals: Vec<String> = ["ecdsa", "ed25519", "rsa"]
        .iter()
        .flat_map(|kind| {
            let key = format!("/etc/ssh/ssh_host_{kind}_key");
            [key.clone(), format!("{key}.pub")]
        })
        .collect();
    for name in &finals {
        assert!(host.path(name).exists(), "ssh-keygen -A made no {name}");
        daemon.line(&format!("alert that ends up as {name}"), |document| {
            document.is_alert_of(SEED) && document.is("ssh_keywatch.file.final.path", name)
        });
    }
    let ended = daemon.stop();
    let alerts = ended.alerts(SEED);
    let mut seen: Vec<&str> = alerts
        .iter()
        .map(|alert| alert.text("ssh_keywatch.file.final.path"))
        .collect();
    seen.sort_unstable();
    assert_eq!(seen, finals);
    for alert in &alerts {
        let end = alert.text("ssh_keywatch.file.final.path");
        let temporary = alert.text("file.path");
        // mkstemp(3) fills ten places.
        let suffix = temporary
            .strip_prefix(&format!("{end}."))
            .unwrap_or_default();
        assert_eq!(suffix.len(), 10, "{temporary} is not {end}.XXXXXXXXXX");
        Expected {
            path: temporary,
            pid: made.pid,
            user: ROOT,
        }
        .check(alert);
    }
    ended.assert_nothing_lost();
}

#[test]
fn a_certificate_is_alerted() {
    let host = Host::new();
    host.sh(ROOT, "mkdir -m 700 .ssh; mkdir /root/ca").ok();
    host.keygen(ROOT, "ed25519")
        .args(["-f", "/root/ca/ca"])
        .ok();
    let path = ROOT.ssh("id_signed");
    host.keygen(ROOT, "ed25519").args(["-f", &path]).ok();
    let daemon = host.daemon().start();
    let made = host
        .command("ssh-keygen")
        .args(["-q", "-s", "/root/ca/ca", "-I", "it", "-n", "root"])
        .args([format!("{path}.pub")])
        .ok();
    let certificate = format!("{path}-cert.pub");
    daemon.alert(SEED, &certificate);
    let ended = daemon.stop();
    assert_eq!(ended.paths(SEED), [certificate.as_str()]);
    Expected {
        path: &certificate,
        pid: made.pid,
        user: ROOT,
    }
    .check(ended.alert(SEED, &certificate));
}
