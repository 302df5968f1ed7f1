//! The rules that come with the program, and what people do all day.

use std::collections::BTreeSet;

use crate::daemon::Ended;
use crate::document::SEED;
use crate::host::{ANN, Host, ROOT};

const ADDED: &str = "8b796b86-adcc-4d3a-b467-349913db4cd3";
const REMOVED: &str = "4e5e91ef-7a62-4687-896e-cf3f5d724a44";
const PLACED: &str = "bc8aa0b2-c114-43d6-9c2b-edf3c442d227";
const EXPOSED: &str = "88689102-2d4a-4fc4-9ba4-cf93548cceb5";
const HOST_KEY: &str = "15067d3d-06d4-49c7-89e1-87e2d1a8718c";
const SERVER: &str = "0942a554-1512-4f8a-a382-37d8986cde00";
const SCRIPT: &str = "cc9a5f47-7b67-418f-8142-6884f29b0d06";
const CLIENT: &str = "e8cc1052-93d4-4498-8dbf-d5d2148d5746";

/// A home with two keys elsewhere, and an `authorized_keys` with one of them.
pub fn host() -> Host {
    let host = Host::new();
    host.sh(
        ANN,
        "mkdir -m 700 .ssh keys
         for name in one two; do ssh-keygen -q -t ed25519 -N '' -C $name -f keys/$name; done
         cp keys/one.pub .ssh/authorized_keys",
    )
    .ok();
    host
}

/// The rules that raised an alert, and on which file, each once.
fn raised(ended: &Ended) -> BTreeSet<(String, String)> {
    let alerts = ended.log.iter().filter(|line| line.is_alert());
    alerts
        .map(|alert| {
            let texts = ["rule.id", "file.path"].map(|name| alert.text(name).to_owned());
            (texts[0].clone(), texts[1].clone())
        })
        .collect()
}

fn expected(raised: &[(&str, &str)]) -> BTreeSet<(String, String)> {
    let raised = raised.iter();
    raised
        .map(|(rule, path)| ((*rule).to_owned(), (*path).to_owned()))
        .collect()
}

#[test]
fn a_login_that_is_added_and_one_that_is_taken_away() {
    let host = host();
    let daemon = host.daemon().start();
    let list = ANN.ssh("authorized_keys");
    host.sh(ANN, "cat keys/two.pub >> .ssh/authorized_keys")
        .ok();
    let alert = daemon.alert(ADDED, &list);
    assert_eq!(alert.get("ssh_keywatch.key.added")[0]["comment"], "two");
    host.sh(ANN, "sed -i /one/d .ssh/authorized_keys").ok();
    let alert = daemon.alert(REMOVED, &list);
    assert_eq!(alert.get("ssh_keywatch.key.removed")[0]["comment"], "one");
    assert!(alert.is("event.action", "rename"), "{}", alert.brief());
    let ended = daemon.stop();
    assert_eq!(
        raised(&ended),
        expected(&[(ADDED, &list), (REMOVED, &list)])
    );
}

#[test]
fn a_login_as_root_is_graver() {
    let host = host();
    let daemon = host.daemon().start();
    host.sh(
        ROOT,
        "mkdir -m 700 .ssh; cat ~ann/keys/two.pub > .ssh/authorized_keys",
    )
    .ok();
    let alert = daemon.alert(ADDED, "/root/.ssh/authorized_keys");
    assert_eq!(alert.number("event.severity"), Some(73));
    daemon.stop();
}

#[test]
fn a_key_that_comes_from_elsewhere_and_one_that_others_can_read() {
    let host = host();
    let daemon = host.daemon().start();
    host.sh(
        ANN,
        "umask 077; cp keys/one .ssh/brought; mv keys/two .ssh/moved
         umask 022; cat keys/one > .ssh/open",
    )
    .ok();
    daemon.alert(PLACED, &ANN.ssh("moved"));
    // Another name is no news.
    host.sh(ANN, "mv .ssh/moved .ssh/again").ok();
    let open = ANN.ssh("open");
    daemon.alert(EXPOSED, &open);
    let ended = daemon.stop();
    let (brought, moved) = (ANN.ssh("brought"), ANN.ssh("moved"));
    assert_eq!(
        raised(&ended),
        expected(&[
            (PLACED, &brought),
            (PLACED, &moved),
            (PLACED, &open),
            (EXPOSED, &open)
        ])
    );
    assert!(
        ended
            .alert(PLACED, &brought)
            .is("ssh_keywatch.key.comment", "one")
    );
}

#[test]
fn what_belongs_to_the_server() {
    let host = Host::new();
    host.sh(
        ROOT,
        "for kind in ecdsa ed25519; do
             ssh-keygen -q -t $kind -N '' -f /etc/ssh/ssh_host_${kind}_key
         done
         echo Port 22 > /etc/ssh/sshd_config; mkdir /etc/ssh/sshd_config.d",
    )
    .ok();
    let daemon = host.daemon().start();
    host.sh(
        ROOT,
        "echo PermitRootLogin yes >> /etc/ssh/sshd_config
         echo PermitRootLogin yes > /etc/ssh/sshd_config.d/00-x.conf
         echo > /etc/ssh/sshd_config.d/README
         echo id > /etc/ssh/sshrc
         cat /etc/ssh/ssh_host_ecdsa_key > /etc/ssh/ssh_host_ed25519_key
         rm /etc/ssh/ssh_host_ecdsa_key",
    )
    .ok();
    daemon.alert(HOST_KEY, "/etc/ssh/ssh_host_ecdsa_key");
    let ended = daemon.stop();
    assert_eq!(
        raised(&ended),
        expected(&[
            (SERVER, "/etc/ssh/sshd_config"),
            (SERVER, "/etc/ssh/sshd_config.d/00-x.conf"),
            (SCRIPT, "/etc/ssh/sshrc"),
            (HOST_KEY, "/etc/ssh/ssh_host_ecdsa_key"),
            (HOST_KEY, "/etc/ssh/ssh_host_ed25519_key"),
        ])
    );
}

#[test]
fn what_is_renamed_away_is_gone() {
    let host = host();
    host.sh(
        ROOT,
        "ssh-keygen -q -t rsa -b 2048 -N '' -f /etc/ssh/ssh_host_rsa_key
         mkdir /etc/ssh/sshd_config.d
         echo PermitRootLogin no | tee /etc/ssh/sshd_config /etc/ssh/sshd_config.d/hard.conf",
    )
    .ok();
    let daemon = host.daemon().start();
    host.sh(
        ROOT,
        "cd /etc/ssh
         mv sshd_config.d/hard.conf sshd_config.d/hard.conf.off
         mv sshd_config sshd_config.off
         mv ssh_host_rsa_key oldkey
         mv ~ann/.ssh/authorized_keys ~ann/.ssh/ak",
    )
    .ok();
    let moved = ANN.ssh("ak");
    let alert = daemon.alert(REMOVED, &moved);
    let list = ANN.ssh("authorized_keys");
    assert!(
        alert.is("file.Ext.original.path", &list),
        "{}",
        alert.brief()
    );
    let undo = alert.get("ssh_keywatch.response.commands");
    assert_eq!(undo[0], format!("mv -nT -- {moved} {list}"));
    let ended = daemon.stop();
    assert_eq!(
        raised(&ended),
        expected(&[
            (SERVER, "/etc/ssh/sshd_config.d/hard.conf.off"),
            (SERVER, "/etc/ssh/sshd_config.off"),
            (HOST_KEY, "/etc/ssh/oldkey"),
            (REMOVED, &moved),
        ])
    );
}

#[test]
fn an_ordinary_day_raises_no_more_than_the_making_of_keys() {
    let host = host();
    let daemon = host.daemon().args(["--stdout", "text"]).start();
    host.sh(
        ROOT,
        "ssh-keygen -q -A; ssh-keygen -l -f /etc/ssh/ssh_host_rsa_key.pub > /dev/null",
    )
    .ok();
    host.sh(
        ANN,
        "cd .ssh
         echo \"alpha $(cut -d' ' -f1,2 ../keys/one.pub)\" >> known_hosts
         ssh-keygen -q -H -f known_hosts; ssh-keygen -R alpha -f known_hosts; rm known_hosts.old
         touch authorized_keys; cat authorized_keys > authorized_keys.bak
         cp -p ../keys/one.pub .; chmod 600 *; mv one.pub renamed.pub; rm renamed.pub
         echo 'Host *' > config
         ssh-keygen -q -t ed25519 -N '' -f id; ssh-keygen -q -p -P '' -N secret -f id; rm id",
    )
    .ok();
    daemon.alert(CLIENT, &ANN.ssh("config"));
    let ended = daemon.stop();
    // On a busy machine it may not be certain that it was ssh-keygen: then the
    // first rule says nothing, and the one about other programs does.
    let unsure: BTreeSet<_> = ended
        .alerts(PLACED)
        .iter()
        .filter(|alert| *alert.get("ssh_keywatch.attribution.certain") == false)
        .map(|alert| alert.text("file.path").to_owned())
        .collect();
    let others: Vec<_> = raised(&ended)
        .into_iter()
        .filter(|(rule, path)| rule != SEED && !(rule == PLACED && unsure.contains(path)))
        .collect();
    // A building block: it stands in the log, and is shown to nobody.
    assert_eq!(others, [(CLIENT.to_owned(), ANN.ssh("config"))]);
    let shown = ended.stdout.join("\n");
    assert!(shown.contains("SSH Key Generated"), "{shown}");
    assert!(!shown.contains("SSH Client Configuration"), "{shown}");
}
