//! What is not the making of a key by ssh-keygen does not raise its alert.

use crate::document::{ANY, SEED, any_creation};
use crate::host::{ANN, Host, User};

/// Runs `script` in a home that has a key `id_old`, an `authorized_keys` and a
/// `known_hosts`, then makes one key. That key must be the only one alerted.
#[track_caller]
fn raises_nothing(script: &str) {
    let host = Host::new();
    old_key(&host, ANN);
    let daemon = host.daemon().rule("any", &any_creation()).start();
    host.sh(ANN, script).ok();
    let path = ANN.ssh("id_fence");
    host.keygen(ANN, "ed25519").args(["-f", &path]).ok();
    daemon.alert(SEED, &format!("{path}.pub"));
    let ended = daemon.stop();
    assert_eq!(ended.paths(SEED), [path.clone(), format!("{path}.pub")]);
    ended.assert_nothing_lost();
}

fn old_key(host: &Host, user: User) {
    host.sh(user, "mkdir -m 700 .ssh").ok();
    let path = user.ssh("id_old");
    host.keygen(user, "ed25519").args(["-f", &path]).ok();
    host.sh(
        user,
        "cd .ssh; cp id_old.pub authorized_keys
         for name in alpha beta gamma; do
             echo \"$name $(cut -d' ' -f1,2 id_old.pub)\"
         done > known_hosts",
    )
    .ok();
}

#[test]
fn taking_a_host_out_of_known_hosts() {
    raises_nothing("ssh-keygen -R beta -f ~/.ssh/known_hosts; ! grep -q beta ~/.ssh/known_hosts");
}

#[test]
fn hashing_known_hosts() {
    raises_nothing("ssh-keygen -H -f ~/.ssh/known_hosts; ! grep -q beta ~/.ssh/known_hosts");
}

#[test]
fn a_new_passphrase_or_comment_of_an_old_key() {
    raises_nothing(
        "ssh-keygen -q -p -P '' -N secret -f ~/.ssh/id_old
         ssh-keygen -q -c -P secret -C new -f ~/.ssh/id_old
         ssh-keygen -y -P secret -f ~/.ssh/id_old > /dev/null
         ssh-keygen -l -f ~/.ssh/id_old.pub > /dev/null",
    );
}

#[test]
fn an_overwritten_key() {
    raises_nothing("yes | ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_old > /dev/null");
}

#[test]
fn copies_moves_and_links() {
    raises_nothing(
        "cd ~/.ssh
         cp id_old id_copy; cp -p id_old.pub id_copy.pub
         cp id_old ~/stage; mv ~/stage id_moved; mv id_copy id_renamed
         ln id_old id_hard; ln -s id_old id_soft
         install -m 600 id_old id_installed; dd if=id_old of=id_dd status=none",
    );
}

#[test]
fn shells_and_editors() {
    raises_nothing(
        "cd ~/.ssh
         echo > id_echo; : >> id_append; touch id_touch; cat id_old > id_cat
         tee id_tee < id_old > /dev/null; sed -i s/x/y/ authorized_keys
         perl -e 'open my $f, \">\", \"id_perl\"; print $f \"x\"'",
    );
}

#[test]
fn a_program_that_only_calls_itself_ssh_keygen() {
    raises_nothing(
        "cp /run/it/tools/creator ~/ssh-keygen; ~/ssh-keygen ~/.ssh/id_fake
         cp /usr/bin/ssh-keygen ~/keygen; ~/keygen -q -t ed25519 -N '' -f ~/.ssh/id_other",
    );
}

#[test]
fn a_key_elsewhere() {
    raises_nothing(
        "mkdir ~/keys ~/.sshx; ssh-keygen -q -t ed25519 -N '' -f ~/keys/id
         ssh-keygen -q -t ed25519 -N '' -f ~/.sshx/id; ssh-keygen -q -t ed25519 -N '' -f ~/id",
    );
}

#[test]
fn the_writers_of_other_files_are_named_rightly_too() {
    let host = Host::new();
    old_key(&host, ANN);
    let daemon = host.daemon().rule("any", &any_creation()).start();
    let script = "cd ~/.ssh; cp id_old copy & echo $!; wait
                  touch touched & echo $!; wait
                  /run/it/tools/creator created & echo $!; wait";
    let pids = host.sh(ANN, script).ok().stdout;
    let mut pids = pids.lines().map(|pid| pid.parse::<u64>().unwrap());
    daemon.alert(ANY, &ANN.ssh("created"));
    let ended = daemon.stop();
    for (name, program) in [
        ("copy", "/usr/bin/cp"),
        ("touched", "/usr/bin/touch"),
        ("created", "/run/it/tools/creator"),
    ] {
        let alert = ended.alert(ANY, &ANN.ssh(name));
        assert_eq!(alert.text("process.executable"), program);
        // dash runs a list in the background in a subshell, which is the
        // program itself for a single command.
        let pid = pids.next();
        assert_eq!(alert.number("process.pid"), pid, "{}", alert.brief());
    }
}
