//! What a program is, whatever its path says.

use std::fs;

use crate::daemon::Daemon;
use crate::document::{ANY, Document, SEED, any_creation};
use crate::host::{ANN, Host, ROOT, User};

const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";
const KEYGEN: &str = "/usr/bin/ssh-keygen";

fn start(host: &Host) -> Daemon<'_> {
    host.sh(ANN, "mkdir -m 700 .ssh").ok();
    host.daemon().rule("any", &any_creation()).start()
}

/// The alert on the file `key` that `script` makes at `$p`, as `user`.
#[track_caller]
fn alert(host: &Host, user: User, script: &str) -> Document {
    let daemon = start(host);
    let path = ANN.ssh("key");
    host.sh(user, &format!("p={path} T=/run/it/tools\n{script}"))
        .ok();
    let alert = daemon.alert(ANY, &path);
    daemon.stop();
    alert
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
    let made = alert(&host, ANN, "ssh-keygen -q -t ed25519 -N '' -f $p");
    assert_is(&made, KEYGEN, "same", None);
    assert_hash(&made, &sha256(&host, KEYGEN));
}

#[test]
fn a_program_mounted_over_ssh_keygen_is_foreign() {
    let host = Host::on_disk();
    let script = "unshare -Urm sh -c 'mount --bind $0/act /usr/bin/ssh-keygen
        exec /usr/bin/ssh-keygen create $1' $T $p";
    let made = alert(&host, ANN, script);
    assert_is(&made, KEYGEN, "foreign", None);
    // By the file itself, which no path leads to from here.
    assert_hash(&made, &sha256(&host, "/run/it/tools/act"));
}

#[test]
fn a_program_that_says_it_is_ssh_keygen_is_named_by_its_own_path() {
    let host = Host::on_disk();
    let script = "unshare -Ur $T/adversary forge $p /usr/bin/ssh-keygen";
    let daemon = start(&host);
    let path = ANN.ssh("key");
    host.sh(ANN, &format!("p={path} T=/run/it/tools\n{script}"))
        .ok();
    let made = daemon.alert(ANY, &path);
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

#[test]
fn a_program_that_was_deleted_is_known_by_its_content() {
    let host = Host::on_disk();
    let made = alert(&host, ANN, "cp $T/act x; ./x unlink-create ~/x $p");
    assert_is(&made, "/home/ann/x", "deleted", None);
    assert_hash(&made, &sha256(&host, "/run/it/tools/act"));
}

#[test]
fn a_program_in_memory_is_called_that() {
    let host = Host::on_disk();
    let made = alert(&host, ANN, "$T/act memfd create $p");
    assert_is(&made, "/memfd:innocent", "memfd", None);
    assert_hash(&made, &sha256(&host, "/run/it/tools/act"));
}

#[test]
fn a_hard_link_of_ssh_keygen_is_known_by_its_inode() {
    let host = Host::on_disk();
    // Marks and hard links are the inode's: it is also recorded at exec.
    let script = "ln /run/it/bin/ssh-keygen /run/it/bin/vim
        /run/it/bin/vim -q -t ed25519 -N '' -f $p";
    let made = alert(&host, ROOT, script);
    assert_is(&made, "/run/it/bin/vim", "same", Some("inode"));
    assert_hash(&made, &sha256(&host, KEYGEN));
}

#[test]
fn a_copy_of_ssh_keygen_is_known_by_its_content() {
    let host = Host::on_disk();
    let script = "cp /usr/bin/ssh-keygen less; ./less -q -t ed25519 -N '' -f $p";
    let made = alert(&host, ANN, script);
    assert_is(&made, "/home/ann/less", "same", Some("content"));
    assert_hash(&made, &sha256(&host, KEYGEN));
}

#[test]
fn a_copy_in_a_mount_namespace_of_its_own_is_known_by_its_content() {
    let host = Host::on_disk();
    let script = "unshare -Urm sh -c 'mount -t tmpfs it /mnt; cp /usr/bin/ssh-keygen /mnt/less
        exec /mnt/less -q -t ed25519 -N \"\" -f $0' $p";
    let made = alert(&host, ANN, script);
    assert_is(&made, "/mnt/less", "foreign", Some("content"));
}

#[test]
fn a_loader_that_runs_ssh_keygen_is_known_by_what_it_has_mapped() {
    let host = Host::on_disk();
    let script = format!("{LOADER} /usr/bin/ssh-keygen -q -t ed25519 -N '' -f $p");
    let made = alert(&host, ANN, &script);
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
    let made = alert(&host, ANN, &script);
    let loader = fs::canonicalize(LOADER).unwrap();
    assert_is(&made, loader.to_str().unwrap(), "same", Some("arguments"));
}
