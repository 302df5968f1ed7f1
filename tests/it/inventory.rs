//! `ssh-keywatch inventory`, as its users call it.

use nix::sys::signal::Signal;

use crate::document::{Document, SEED};
use crate::host::{ANN, BOB, Host, PROGRAM, ROOT};
use crate::process::{Output, SOON};

fn host() -> Host {
    let host = Host::new();
    for user in [ANN, BOB] {
        host.sh(user, "mkdir -m 700 .ssh").ok();
    }
    host
}

fn items(output: &Output) -> Vec<Document> {
    output.stdout.lines().map(Document::parse).collect()
}

#[track_caller]
fn item<'i>(items: &'i [Document], path: &str) -> &'i Document {
    let mut of = items.iter().filter(|item| item.is("path", path));
    let item = of.next().unwrap_or_else(|| panic!("no {path}"));
    assert!(of.next().is_none(), "{path} stands there twice");
    item
}

#[test]
fn every_key_is_listed_with_facts_and_origin() {
    let host = host();
    let daemon = host.daemon().start();
    let path = ANN.ssh("id_new");
    host.keygen(ANN, "ed25519").args(["-f", &path]).ok();
    daemon.alert(SEED, &format!("{path}.pub"));
    daemon.stop();
    host.sh(ANN, "ssh-keygen -q -t rsa -b 2048 -N secret -C locked -f .ssh/id_locked; chmod 640 .ssh/id_locked")
        .ok();
    host.sh(ROOT, "ssh-keygen -q -A").ok();
    host.sh(ROOT, "cp /home/ann/.ssh/id_new.pub /home/bob/.ssh/authorized_keys; chown bob: /home/bob/.ssh/authorized_keys")
        .ok();

    let output = host.command(PROGRAM).args(["inventory", "--json"]).ok();
    assert_eq!(output.stderr, "");
    let items = items(&output);
    let new = item(&items, &path);
    assert!(
        new.is("kind", "private") && new.is("type", "ssh-ed25519"),
        "{new:?}"
    );
    assert_eq!(*new.get("encrypted"), false);
    assert_eq!(new.text("owner.name"), "ann");
    assert_eq!(new.text("mode"), "0600");
    assert!(new.is("pair.key", "same"));
    assert_eq!(new.get("authorized_in")[0], BOB.ssh("authorized_keys"));
    assert!(
        new.is("origin.executable", "/usr/bin/ssh-keygen"),
        "{new:?}"
    );
    assert!(new.is("origin.user", "ann") && *new.get("origin.certain") == true);
    let locked = item(&items, &ANN.ssh("id_locked"));
    assert_eq!(*locked.get("encrypted"), true);
    assert_eq!(locked.get("refused")[0], "its mode is 0640");
    assert!(locked.get("origin").is_null(), "nobody watched");
    let login = item(&items, &BOB.ssh("authorized_keys"));
    assert!(login.is("kind", "authorized_key") && *login.get("active") == true);
    assert!(item(&items, "/etc/ssh/ssh_host_ed25519_key").is("kind", "host"));

    // As ssh-keygen says it, of each file.
    let list = host
        .sh(ROOT, "for f in /home/*/.ssh/* /root/.ssh/* /etc/ssh/ssh_host*; do [ ! -e $f ] || echo $(ssh-keygen -lf $f) $f; done")
        .ok();
    let mut count = 0;
    for line in list.stdout.lines() {
        let mut words = line.split(' ');
        let (bits, fingerprint) = (words.next().unwrap(), words.next().unwrap());
        let item = item(&items, words.next_back().unwrap());
        assert_eq!(item.number("bits"), bits.parse().ok(), "{line}");
        assert_eq!(item.text("fingerprint"), fingerprint, "{line}");
        count += 1;
    }
    assert_eq!(count, items.len());

    let page = host.command(PROGRAM).args(["inventory"]).ok().stdout;
    for part in [
        "/home/ann/.ssh\n",
        "  id_new ",
        "! without a passphrase",
        "- with a passphrase",
        "! refused by ssh or sshd: its mode is 0640",
        "- may log in by /home/bob/.ssh/authorized_keys",
        "by /usr/bin/ssh-keygen of ann",
        "authorized_keys#1",
        item(&items, &path).text("fingerprint"),
    ] {
        assert!(page.contains(part), "no {part:?} in:\n{page}");
    }
}

#[test]
fn who_made_a_key_is_known_without_the_log_while_the_daemon_runs_and_after_it() {
    let host = host();
    let daemon = host.daemon().start();
    daemon.compared();
    let path = ANN.ssh("id_new");
    host.keygen(ANN, "ed25519").args(["-f", &path]).ok();
    daemon.alert(SEED, &format!("{path}.pub"));
    host.sh(ROOT, ": > /var/log/none").ok();
    let origin = || {
        let inventory = host.command(PROGRAM);
        let inventory = inventory.args(["inventory", "--json", "--log", "/var/log/none"]);
        let output = inventory.ok();
        assert_eq!(output.stderr, "");
        item(&items(&output), &path).clone()
    };
    // It is written within moments.
    let until = std::time::Instant::now() + SOON;
    while origin().get("origin").is_null() {
        assert!(
            std::time::Instant::now() < until,
            "nobody knows who made it"
        );
    }
    let check = || {
        let item = origin();
        assert!(item.is("origin.source", "baseline"), "{item:?}");
        assert!(item.is("origin.executable", "/usr/bin/ssh-keygen"));
        assert!(item.is("origin.user", "ann") && *item.get("origin.certain") == true);
    };
    check();
    daemon.stop();
    check();
}

#[test]
fn what_cannot_be_looked_at_is_told() {
    let host = host();
    let none = host.command(PROGRAM).args(["inventory"]).output();
    assert_eq!((none.code(), none.stdout.as_str()), (1, ""), "{none:?}");
    let path = ANN.ssh("id");
    host.keygen(ANN, "ed25519").args(["-f", &path]).ok();
    let own = host
        .command(PROGRAM)
        .user(ANN)
        .args(["inventory", "--json"])
        .output();
    assert_eq!(own.code(), 1, "{own:?}");
    assert_eq!(items(&own).len(), 2);
    for part in [
        "/home/bob/.ssh: cannot be listed",
        "/root/.ssh: cannot be opened",
    ] {
        assert!(own.stderr.contains(part), "no {part:?} in {}", own.stderr);
    }
    host.sh(ROOT, "chmod 711 /home/ann; chmod 700 /home/ann/.ssh")
        .ok();
    let nothing = host.command(PROGRAM).user(BOB).args(["inventory"]).output();
    assert_eq!(
        (nothing.code(), nothing.stdout.as_str()),
        (77, ""),
        "{nothing:?}"
    );
}

#[test]
fn a_file_whose_opening_hangs_hides_no_other_place() {
    let host = host();
    let (hanging, path) = (ANN.ssh("id.pub"), BOB.ssh("id.pub"));
    for (user, path) in [(ANN, &hanging), (BOB, &path)] {
        let key = path.trim_end_matches(".pub");
        host.keygen(user, "ed25519").args(["-f", key]).ok();
    }
    // A daemon that holds whoever opens a file of ann's, and then is stopped:
    // the opening does not come back.
    let daemon = host
        .daemon()
        .config("[watch]\nhomes = [\"/home/ann\"]\ndirectories = []\nhold = \"all\"\n")
        .start();
    daemon.signal(Signal::SIGSTOP);
    host.write("/srv/inventory.toml", "");
    let output = host
        .command(PROGRAM)
        .args(["inventory", "--json", "--config", "/srv/inventory.toml"])
        .output_within(SOON * 2);
    daemon.signal(Signal::SIGCONT);
    daemon.stop();
    assert_eq!(output.code(), 1, "{output:?}");
    assert!(
        output.stderr.contains("/home/ann/.ssh: it does not answer"),
        "{}",
        output.stderr
    );
    let items = items(&output);
    assert!(
        items
            .iter()
            .all(|item| item.text("path").starts_with("/home/bob"))
    );
    assert_eq!(items.len(), 2);
    item(&items, &path);
}
