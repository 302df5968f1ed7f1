//! What a program is, whatever its path says.

use std::fs;
use std::time::Instant;

use super::any_change;
use crate::daemon::Daemon;
use crate::document::{ANY, Document, SEED, any_creation};
use crate::host::{ANN, Host, ROOT, TOOLS, User};
use crate::process::SOON;

const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";
const KEYGEN: &str = "/usr/bin/ssh-keygen";

fn start(host: &Host) -> Daemon<'_> {
    host.sh(ANN, "mkdir -m 700 .ssh").ok();
    host.daemon().rule("any", &any_creation()).start()
}

/// The alert on a file that `script` makes at `$p`, as `user`: of a known tool if it `is_known`.
#[track_caller]
fn alert(host: &Host, user: User, script: &str, is_known: bool) -> Document {
    let daemon = start(host);
    let alert = whole(host, &daemon, user, script, is_known);
    daemon.stop();
    alert
}

/// What a program is takes a while to read, and an alert does not wait for it: then the same
/// is done once more.
#[track_caller]
fn whole(host: &Host, daemon: &Daemon<'_>, user: User, script: &str, is_known: bool) -> Document {
    let until = Instant::now() + SOON;
    let mut number = 0;
    loop {
        number += 1;
        let path = ANN.ssh(&format!("key{number}"));
        host.sh(user, &format!("p={path} T=/run/it/tools\n{script}"))
            .ok();
        let alert = daemon.alert(ANY, &path);
        let is_there = |field| !alert.get(field).is_null();
        let known = !is_known || is_there("ssh_keywatch.attribution.known_by");
        if known && is_there("process.hash.sha256") || Instant::now() > until {
            return alert;
        }
    }
}

/// What sha256sum(1) says of a file of the host.
fn sha256(host: &Host, path: &str) -> String {
    let said = host.command("sha256sum").args([path]).ok().stdout;
    said.split(' ').next().unwrap().to_owned()
}

#[track_caller]
fn assert_is(alert: &Document, program: &str, image: &str, known: Option<&str>) {
    let shown = format!(
        "{} {}",
        alert.brief(),
        alert.get("ssh_keywatch.attribution")
    );
    let below = |name: &str| {
        alert
            .text(&format!("ssh_keywatch.attribution.{name}"))
            .to_owned()
    };
    assert_eq!(alert.text("process.executable"), program, "{shown}");
    assert_eq!(below("image"), image, "{shown}");
    assert_eq!(
        alert.get("ssh_keywatch.attribution.certain"),
        true,
        "{shown}"
    );
    assert_eq!(below("known_by"), known.unwrap_or_default(), "{shown}");
    let tool = known.map_or("", |_| KEYGEN);
    assert_eq!(below("known_as"), tool, "{shown}");
}

/// Each of these programs is possible, and none is named.
#[track_caller]
fn assert_is_open(alert: &Document, program: &str, never: &str) {
    let attribution = alert.get("ssh_keywatch.attribution");
    let shown = format!("{} {attribution}", alert.brief());
    assert_eq!(attribution["certain"], false, "{shown}");
    assert_eq!(alert.text("process.executable"), "", "{shown}");
    let candidates = attribution["candidates"].as_array().into_iter().flatten();
    let candidates: Vec<_> = candidates
        .map(|candidate| candidate["executable"].as_str().unwrap())
        .collect();
    // On a busy machine what ran before is possible, too.
    assert!(candidates.contains(&program), "{shown}");
    assert!(!candidates.contains(&never), "{shown}");
}

#[track_caller]
fn assert_hash(alert: &Document, expected: &str) {
    assert_eq!(
        alert.text("process.hash.sha256"),
        expected,
        "{}",
        alert.brief()
    );
}

#[test]
fn an_ordinary_program_is_itself() {
    let host = Host::on_disk();
    let made = alert(&host, ANN, "ssh-keygen -q -t ed25519 -N '' -f $p", false);
    assert_is(&made, KEYGEN, "same", None);
    assert_hash(&made, &sha256(&host, KEYGEN));
}

#[test]
fn a_program_mounted_over_ssh_keygen_is_foreign() {
    let host = Host::on_disk();
    let script = "unshare -Urm sh -c 'mount --bind $0/act /usr/bin/ssh-keygen
        exec /usr/bin/ssh-keygen create $1' $T $p";
    let made = alert(&host, ANN, script, false);
    assert_is(&made, KEYGEN, "foreign", None);
    // By the file itself, which no path leads to from here.
    assert_hash(&made, &sha256(&host, "/run/it/tools/act"));
}

#[test]
fn a_program_that_says_it_is_ssh_keygen_is_not_believed() {
    let host = Host::on_disk();
    let script = "unshare -Ur $T/adversary forge $p /usr/bin/ssh-keygen";
    let daemon = start(&host);
    let made = whole(&host, &daemon, ANN, script, false);
    let ended = daemon.stop();
    let own = "/run/it/tools/adversary";
    if made.is("ssh_keywatch.attribution.method", "held") {
        assert_is(&made, own, "replaced", None);
        let claimed = made.text("ssh_keywatch.attribution.claimed_executable");
        assert_eq!(claimed, KEYGEN);
    } else {
        // On a busy machine the hold may not be sure, and the table never
        // believed it in the first place.
        assert_is(&made, own, "same", None);
    }
    assert_hash(&made, &sha256(&host, own));
    // It is not alerted as what it is not.
    assert_eq!(ended.paths(SEED), [""; 0]);
}

/// Makes /mnt/evil, on a file system of its own, at the inode number of `$2`, with the
/// content of `$3`.
const AT_ITS_NUMBER: &str = "mount -t tmpfs none /mnt
    perl -e \"do { unlink q(/mnt/evil); open F, q(>), q(/mnt/evil); close F }
        while ((stat q(/mnt/evil))[1] < (stat q($2))[1])\"
    test $(stat -c %i /mnt/evil) = $(stat -c %i $2)
    cat $3 > /mnt/evil
    chmod +x /mnt/evil";

/// Nor if it lies, on a file system of its own, at the inode number of what it claims to be.
#[test]
fn an_inode_number_makes_no_program_another() {
    let host = Host::new();
    host.sh(ROOT, "cp /usr/bin/ssh-keygen /run/tool").ok();
    let daemon = start(&host);
    host.sh(ANN, "cp /usr/bin/ssh-keygen tool").ok();
    // What the one is called by where it is mapped can be asked for; the other lies where
    // a file server may be.
    for (tool, is_known) in [("/run/tool", true), ("/home/ann/tool", false)] {
        let path = ANN.ssh(if is_known { "known" } else { "unknown" });
        let script =
            format!("exec unshare -Urm sh -ec '{AT_ITS_NUMBER}\nexec /mnt/evil forge $1 $2'");
        host.sh(ANN, &format!("{script} - {path} {tool} {TOOLS}/adversary"))
            .ok();
        let made = daemon.alert(ANY, &path);
        if !made.is("ssh_keywatch.attribution.method", "held") {
            assert_eq!(
                made.text("process.executable"),
                "/mnt/evil",
                "{}",
                made.brief()
            );
        } else if is_known {
            assert_is(&made, "/mnt/evil", "replaced", None);
            let claimed = made.text("ssh_keywatch.attribution.claimed_executable");
            assert_eq!(claimed, tool, "{}", made.brief());
        } else {
            assert_is_open(&made, "/mnt/evil", KEYGEN);
        }
    }
}

/// Nor if it is mounted over that, and is gone when it is told of.
#[test]
fn nor_does_one_that_is_mounted_over_what_has_its_inode_number() {
    let host = Host::on_disk();
    host.sh(ANN, "mkdir -m 700 .ssh; echo x > from").ok();
    host.sh(ROOT, "cp /usr/bin/ssh-keygen /run/tool").ok();
    let daemon = host.daemon().rule("any", &any_change()).start();
    let path = ANN.ssh("key");
    let script = format!(
        "exec unshare -Urm sh -ec '{AT_ITS_NUMBER}
         mount --bind /mnt/evil $2
         exec $2 rename from $1' - {path} /run/tool {TOOLS}/act"
    );
    host.sh(ANN, &script).ok();
    let made = daemon.alert(ANY, &path);
    assert_is(&made, "/run/tool", "replaced", None);
    // The file itself is gone with its namespace; of what is there, nothing is told.
    let hash = made.text("process.hash.sha256").to_owned();
    assert!(
        hash.is_empty() || hash == sha256(&host, "/run/it/tools/act"),
        "{hash}"
    );
}

/// Nor on btrfs, where it has that number in a subvolume of its own, and mappings do not
/// tell subvolumes apart.
#[test]
fn nor_does_one_of_another_subvolume() {
    if !fs::read_to_string("/proc/filesystems")
        .unwrap()
        .contains("\tbtrfs\n")
    {
        println!("not tried: this kernel has no btrfs");
        return;
    }
    let host = Host::on_disk();
    let prepare = format!(
        "truncate -s 120M /run/disk; mkfs.btrfs -q /run/disk; mount -o loop /run/disk /var/tmp
         chmod 1777 /var/tmp; cp {TOOLS}/act /var/tmp/tool; sync -f /var/tmp"
    );
    host.sh(ROOT, &prepare).ok();
    host.sh(ANN, "mkdir -m 700 .ssh; echo x > from").ok();
    let daemon = host.daemon().rule("any", &any_change()).start();
    let [made, moved, forged] = ["made", "moved", "forged"].map(|name| ANN.ssh(name));
    let script = format!("/var/tmp/tool create {made}; /var/tmp/tool rename from {moved}");
    host.sh(ANN, &script).ok();
    for path in [made, moved] {
        let alert = daemon.alert(ANY, &path);
        assert_is(&alert, "/var/tmp/tool", "same", None);
    }
    let script = format!(
        "btrfs subvolume create /var/tmp/sub > /dev/null; cd /var/tmp/sub
         until : > evil; test $(stat -c %i evil) = $(stat -c %i ../tool); do rm evil; done
         cat {TOOLS}/adversary > evil; chmod +x evil
         exec unshare -Ur ./evil forge {forged} /var/tmp/tool"
    );
    host.sh(ANN, &script).ok();
    let alert = daemon.alert(ANY, &forged);
    let is_held = alert.is("ssh_keywatch.attribution.method", "held");
    let image = if is_held { "replaced" } else { "same" };
    assert_is(&alert, "/var/tmp/sub/evil", image, None);
}

/// Nor if its user serves the file system that it lies on, and tells nobody what it is.
#[test]
fn nor_does_one_that_has_no_identity() {
    let host = Host::on_disk();
    // As udev makes it; here it may be root's alone.
    let fuse = "mknod -m 666 /run/fuse c 10 229; mount --bind /run/fuse /dev/fuse";
    host.sh(ROOT, fuse).ok();
    let script = "mkdir served; cp $T/act served
        exec unshare -Urmpf sh -ec 'mount -t tmpfs none /mnt; mkdir /mnt/here; bindfs served /mnt/here
            mount --bind /mnt/here/act /usr/bin/ssh-keygen
            exec /usr/bin/ssh-keygen create $0' $p";
    let daemon = start(&host);
    let path = ANN.ssh("key");
    host.sh(ANN, &format!("p={path} T={TOOLS}\n{script}")).ok();
    let made = daemon.alert(ANY, &path);
    assert_is(&made, KEYGEN, "replaced", None);
    assert_hash(&made, "");
}

/// Nor does it become what it maps: its own code is on its stack, in no file.
#[test]
fn a_program_that_no_file_is_mapped_for_cannot_choose_its_name() {
    let host = Host::on_disk();
    host.sh(ANN, "mkdir -m 700 .ssh").ok();
    let daemon = host.daemon().rule("any", &any_change()).start();
    // READ_IMPLIES_EXEC, with which nothing is told of its stack.
    for personality in ["0", "0x400000"] {
        let [moved, made] = ["moved", "made"].map(|name| ANN.ssh(&format!("{name}{personality}")));
        let script = format!(
            "echo x > from
             /run/it/tools/stack {personality} ~/odd {KEYGEN} ~/from {moved} {made}"
        );
        host.sh(ANN, &script).ok();
        // It is held as it makes the one, and gone when the other is told.
        assert_is_open(&daemon.alert(ANY, &made), "/home/ann/odd", KEYGEN);
        let moved = daemon.alert(ANY, &moved);
        let shown = moved.brief();
        let certain = moved.get("ssh_keywatch.attribution.certain");
        assert_eq!(certain, false, "{shown}");
        let named = moved.text("process.executable");
        assert!(["", "/home/ann/odd"].contains(&named), "{shown}");
    }
    assert_eq!(daemon.stop().paths(SEED), [""; 0]);
}

#[test]
fn a_program_that_was_deleted_is_known_by_its_content() {
    let host = Host::on_disk();
    let made = alert(&host, ANN, "cp $T/act x; ./x unlink-create ~/x $p", false);
    assert_is(&made, "/home/ann/x", "deleted", None);
    assert_hash(&made, &sha256(&host, "/run/it/tools/act"));
}

#[test]
fn a_program_in_memory_is_called_that() {
    let host = Host::on_disk();
    let made = alert(&host, ANN, "$T/act memfd create $p", false);
    assert_is(&made, "/memfd:innocent", "memfd", None);
    assert_hash(&made, &sha256(&host, "/run/it/tools/act"));
}

#[test]
fn a_hard_link_of_ssh_keygen_is_known_by_its_inode() {
    let host = Host::on_disk();
    // Marks and hard links are the inode's: it is also recorded at exec.
    let script = "ln -f /run/it/bin/ssh-keygen /run/it/bin/vim
        /run/it/bin/vim -q -t ed25519 -N '' -f $p";
    let made = alert(&host, ROOT, script, true);
    assert_is(&made, "/run/it/bin/vim", "same", Some("inode"));
    assert_hash(&made, &sha256(&host, KEYGEN));
}

#[test]
fn a_copy_of_ssh_keygen_is_known_by_its_content() {
    let host = Host::on_disk();
    let script = "cp /usr/bin/ssh-keygen less; ./less -q -t ed25519 -N '' -f $p";
    let made = alert(&host, ANN, script, true);
    assert_is(&made, "/home/ann/less", "same", Some("content"));
    assert_hash(&made, &sha256(&host, KEYGEN));
}

#[test]
fn a_copy_in_a_mount_namespace_of_its_own_is_known_by_its_content() {
    let host = Host::on_disk();
    let script = "unshare -Urm sh -c 'mount -t tmpfs it /mnt; cp /usr/bin/ssh-keygen /mnt/less
        exec /mnt/less -q -t ed25519 -N \"\" -f $0' $p";
    let made = alert(&host, ANN, script, true);
    assert_is(&made, "/mnt/less", "foreign", Some("content"));
}

#[test]
fn a_loader_that_runs_ssh_keygen_is_known_by_what_it_has_mapped() {
    let host = Host::on_disk();
    let script = format!("{LOADER} /usr/bin/ssh-keygen -q -t ed25519 -N '' -f $p");
    let made = alert(&host, ANN, &script, true);
    let loader = fs::canonicalize(LOADER).unwrap();
    assert_is(&made, loader.to_str().unwrap(), "same", Some("loaded"));
}

#[test]
fn without_the_process_table_a_loader_is_known_by_its_arguments() {
    let host = Host::on_disk();
    host.write(
        "/etc/ssh-keywatch/config.toml",
        "[watch]\nprocess_table = false\n",
    );
    let script = format!("{LOADER} /usr/bin/ssh-keygen -q -t ed25519 -N '' -f $p");
    let made = alert(&host, ANN, &script, true);
    let loader = fs::canonicalize(LOADER).unwrap();
    assert_is(&made, loader.to_str().unwrap(), "same", Some("arguments"));
}

#[test]
fn a_passphrase_is_hidden_whatever_ssh_keygen_is_called() {
    let host = Host::on_disk();
    host.sh(ANN, "mkdir -m 700 .ssh; cp /usr/bin/ssh-keygen kgen")
        .ok();
    let daemon = host.daemon().rule("any", &any_creation()).start();
    for (name, program) in [
        ("copy", "./kgen"),
        ("loaded", &format!("{LOADER} /usr/bin/ssh-keygen")),
        ("own", "ssh-keygen"),
    ] {
        // Arguments are told if they can be read at once.
        let mut tries = (1..=5).map(|number| {
            let name = format!("{name}{number}");
            let script = format!("{program} -q -t ed25519 -N s3cret -f .ssh/{name}; true");
            host.sh(ANN, &script).ok();
            let alert = daemon.alert(ANY, &ANN.ssh(&name));
            alert.get("process.args").clone()
        });
        let args = tries.find(|args| !args.is_null()).expect("arguments");
        let args = args.to_string();
        assert!(args.contains("(hidden)"), "{args}");
    }
    let ended = daemon.stop();
    let log = ended.log.iter().map(|line| line.0.to_string());
    let shown = ended.stdout.iter().cloned();
    for line in log.chain(shown).chain(ended.stderr.iter().cloned()) {
        assert!(!line.contains("s3cret"), "{line}");
    }
}

/// The same file is not the same exec: between the two the parent became another user's.
#[test]
fn a_parent_that_runs_its_program_again_as_another_user_is_told_as_it_was() {
    let host = Host::on_disk();
    let daemon = start(&host);
    // A parent is told if it can be read at once.
    let mut tries = (1..=5).map(|number| parents_of_two(&host, &daemon, number));
    let [first, second] = tries
        .find_map(|parents| parents.into_iter().collect::<Option<Vec<u64>>>())
        .expect("parents")[..]
    else {
        unreachable!("there are two");
    };
    assert_eq!(first, second);
}

/// Who the parents are of what root's shell runs before and after it becomes ann's.
#[track_caller]
fn parents_of_two(host: &Host, daemon: &Daemon<'_>, number: u32) -> [Option<u64>; 2] {
    let [first, second] = ["first", "second"].map(|name| ANN.ssh(&format!("{name}{number}")));
    let script = format!(
        "cp /etc/hostname {first}
         exec setpriv --reuid={} --clear-groups sh -c 'cp /etc/hostname {second}; :'",
        ANN.id
    );
    host.command("sh").args(["-c", &script]).ok();
    [(first, "root"), (second, ANN.name)].map(|(path, user)| {
        let made = daemon.alert(ANY, &path);
        let shown = format!("{} {}", made.brief(), made.get("process.parent"));
        let parent = made.number("process.parent.pid")?;
        assert_eq!(made.text("process.parent.user.name"), user, "{shown}");
        // They are read a moment later, unless it has run something else by then.
        if let Some(args) = made.get("process.parent.args").as_array() {
            let is_first = args
                .iter()
                .any(|arg| arg.as_str().unwrap().contains("setpriv"));
            assert_eq!(is_first, user == "root", "{shown}");
        }
        Some(parent)
    })
}

/// Nor is a parent what it runs by the time its child acts.
#[test]
fn a_parent_that_runs_another_program_by_then_is_told_as_it_was() {
    let host = Host::on_disk();
    let daemon = start(&host);
    let path = ANN.ssh("key");
    let script = format!(
        "mkfifo go
         sh -c 'read go < go; : > {path}' &
         exec perl -e 'open F, q(>), q(go); print F qq(x\\n); close F; wait'"
    );
    host.sh(ANN, &script).ok();
    let made = daemon.alert(ANY, &path);
    let shown = format!("{} {}", made.brief(), made.get("process.parent"));
    let dash = fs::canonicalize("/bin/sh").unwrap();
    for program in ["process.executable", "process.parent.executable"] {
        assert_eq!(made.text(program), dash.to_str().unwrap(), "{shown}");
    }
}
