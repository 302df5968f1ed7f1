//! The walk over places with keys, hostile ones too.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Command;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tempfile::TempDir;

use super::*;

const ANN: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDN10vUUA50jhaILXX640/rWaCKUnA11AsVZpZtbB9Nk ann";
const BOB: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA bob";

struct Homes(TempDir);

impl Homes {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn write(&self, path: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    fn patterns(&self) -> Vec<Pattern> {
        vec![Pattern::parse(&self.path("*")).unwrap().join(".ssh")]
    }

    fn take(&self) -> Inventory {
        take(&self.patterns(), Limits::default())
    }

    /// The lines of `ssh-keygen -l`, without the type in brackets.
    fn oracle(path: &Path) -> Vec<String> {
        let output = Command::new("ssh-keygen")
            .arg("-lf")
            .arg(path)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}: {output:?}", path.display());
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines()
            .map(|line| line.rsplit_once(" (").unwrap().0.to_owned())
            .collect()
    }
}

/// As `ssh-keygen -l` writes it.
fn listed(item: &Item) -> String {
    let (identity, comment) = match &item.what {
        What::Key { facts, .. } => (&facts.identity, &facts.comment),
        What::Login { entry, .. } => (&entry.identity, &entry.comment),
        What::Link(_) => panic!("a link"),
    };
    format!(
        "{} {} {}",
        identity.bits.unwrap(),
        identity.fingerprint.as_deref().unwrap(),
        comment.as_deref().unwrap_or("no comment")
    )
}

#[test]
fn what_it_says_is_what_ssh_keygen_says() {
    let homes = Homes::new();
    let ssh = homes.path("ann/.ssh");
    fs::create_dir_all(&ssh).unwrap();
    for (kind, bits, passphrase) in [
        ("ed25519", "256", ""),
        ("rsa", "2048", "secret"),
        ("ecdsa", "384", ""),
    ] {
        let status = Command::new("ssh-keygen")
            .args([
                "-q",
                "-t",
                kind,
                "-b",
                bits,
                "-N",
                passphrase,
                "-C",
                &format!("a {kind}"),
                "-f",
            ])
            .arg(ssh.join(format!("id_{kind}")))
            .status()
            .unwrap();
        assert!(status.success());
    }
    let list = homes.write(
        "bob/.ssh/authorized_keys",
        &format!("# all\n{ANN}\n\nno-pty,from=\"10.*\" {BOB}\n"),
        0o600,
    );
    let inventory = homes.take();
    assert_eq!(inventory.gaps, []);
    let mut count = 0;
    for path in [
        "id_ed25519",
        "id_rsa",
        "id_ecdsa",
        "id_ed25519.pub",
        "id_rsa.pub",
        "id_ecdsa.pub",
    ] {
        let path = ssh.join(path);
        let of: Vec<_> = inventory
            .items
            .iter()
            .filter(|item| item.path == path)
            .collect();
        let [item] = of.as_slice() else {
            panic!("{}: {of:?}", path.display())
        };
        assert_eq!([listed(item)].as_slice(), Homes::oracle(&path));
        let What::Key { facts, pair, .. } = &item.what else {
            panic!("{item:?}")
        };
        assert_eq!(pair.as_ref().unwrap().1, Pair::Same);
        if let Some(protection) = &facts.protection {
            assert_eq!(protection.encrypted, path.ends_with("id_rsa"));
        }
        count += 1;
    }
    let logins: Vec<_> = inventory
        .items
        .iter()
        .filter(|item| item.path == list)
        .collect();
    let lines: Vec<_> = logins.iter().map(|item| listed(item)).collect();
    assert_eq!(lines, Homes::oracle(&list));
    let What::Login {
        entry,
        number: 2,
        active: true,
    } = &logins[1].what
    else {
        panic!("{:?}", logins[1])
    };
    assert_eq!(entry.options, ["no-pty", "from=\"10.*\""]);
    assert_eq!(inventory.items.len(), count + logins.len());
}

#[test]
fn a_key_knows_the_lists_that_let_it_in() {
    let homes = Homes::new();
    let public = homes.write("ann/.ssh/id.pub", ANN, 0o644);
    let list = homes.write(
        "bob/.ssh/authorized_keys",
        &format!("{ANN}\n{ANN}\n"),
        0o600,
    );
    homes.write("bob/.ssh/authorized_keys.bak", &format!("{ANN}\n"), 0o600);
    let other = homes.write("eve/.ssh/authorized_keys2", &format!("{BOB}\n"), 0o600);
    let inventory = homes.take();
    for item in &inventory.items {
        let expected: &[&PathBuf] = if item.path == list || item.path == other {
            &[]
        } else {
            &[&list]
        };
        assert_eq!(
            item.authorized_in.iter().collect::<Vec<_>>(),
            expected,
            "{item:?}"
        );
    }
    assert!(inventory.items.iter().any(|item| item.path == public));
    assert_eq!(inventory.items.len(), 5);
}

#[test]
fn what_sshd_refuses_is_told_with_the_reason() {
    let homes = Homes::new();
    let list = homes.write("ann/.ssh/authorized_keys", ANN, 0o620);
    homes.write("bob/.ssh/authorized_keys", BOB, 0o600);
    fs::set_permissions(homes.path("ann"), Permissions::from_mode(0o777)).unwrap();
    let inventory = homes.take();
    let [bad, good] = inventory.items.as_slice() else {
        panic!("{inventory:?}")
    };
    assert_eq!(bad.path, list);
    let home = homes.path("ann");
    assert_eq!(
        bad.refused,
        [
            "its mode is 0620".to_owned(),
            format!("the mode of {} is 0777", home.display())
        ]
    );
    assert_eq!(good.refused, [""; 0]);
}

#[test]
fn links_are_not_followed_and_fifos_not_waited_for() {
    let homes = Homes::new();
    let secret = homes.write("secret/id.pub", BOB, 0o644);
    homes.write("ann/.ssh/id.pub", ANN, 0o644);
    let ssh = homes.path("ann/.ssh");
    symlink(&secret, ssh.join("authorized_keys")).unwrap();
    symlink(secret.parent().unwrap(), ssh.join("directory")).unwrap();
    mkfifo(&ssh.join("fifo"), Mode::S_IRWXU).unwrap();
    mkfifo(&ssh.join("id"), Mode::S_IRWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(ssh.join("socket")).unwrap();
    let inventory = homes.take();
    assert_eq!(inventory.gaps, []);
    let kinds: Vec<_> = inventory
        .items
        .iter()
        .map(|item| {
            (
                item.path.file_name().unwrap().to_str().unwrap(),
                item.kind(),
            )
        })
        .collect();
    assert_eq!(
        kinds,
        [
            ("authorized_keys", "link"),
            ("directory", "link"),
            ("id.pub", "public")
        ]
    );
    assert_eq!(inventory.items[0].what, What::Link(secret));
}

#[test]
fn a_home_that_is_a_link_of_its_user_is_not_followed_and_told() {
    let homes = Homes::new();
    homes.write("elsewhere/keys/id.pub", BOB, 0o644);
    fs::create_dir(homes.path("ann")).unwrap();
    fs::create_dir(homes.path("root")).unwrap();
    let (user, root) = (homes.path("ann/.ssh"), homes.path("root/.ssh"));
    let keys = homes.path("elsewhere/keys");
    symlink(&keys, &user).unwrap();
    symlink(&keys, &root).unwrap();
    // Only root can give files away.
    let is_root = nix::unistd::geteuid().is_root();
    if is_root {
        std::os::unix::fs::lchown(&user, Some(4001), None).unwrap();
    }
    let inventory = homes.take();
    let gaps: Vec<_> = inventory.gaps.iter().map(|gap| &gap.path).collect();
    let paths: Vec<_> = inventory
        .items
        .iter()
        .map(|item| item.path.clone())
        .collect();
    if is_root {
        assert_eq!(gaps, [&user]);
        assert_eq!(paths, [root.join("id.pub")]);
    } else {
        assert_eq!(gaps, [&user, &root]);
        assert!(paths.is_empty());
    }
}

#[test]
fn a_user_who_has_too_much_takes_nothing_from_others() {
    let homes = Homes::new();
    for number in 0..50 {
        homes.write(&format!("ann/.ssh/id_{number}.pub"), ANN, 0o644);
    }
    let bob = homes.write("bob/.ssh/id.pub", BOB, 0o644);
    let limits = Limits {
        items: 10,
        ..Limits::default()
    };
    let inventory = take(&homes.patterns(), limits);
    assert_eq!(inventory.items.len(), 11);
    assert_eq!(inventory.items[10].path, bob);
    assert_eq!(inventory.gaps.len(), 1);
    assert!(
        inventory.gaps[0].reason.contains("more than 10"),
        "{:?}",
        inventory.gaps
    );
    let limits = Limits {
        total: 20,
        ..Limits::default()
    };
    let inventory = take(&homes.patterns(), limits);
    assert_eq!((inventory.items.len(), inventory.gaps.len()), (20, 1));
}

#[test]
fn a_deep_or_slow_directory_is_a_gap() {
    let homes = Homes::new();
    let deep = "d/".repeat(70);
    homes.write(&format!("ann/.ssh/{deep}id.pub"), ANN, 0o644);
    homes.write("bob/.ssh/id.pub", BOB, 0o644);
    let inventory = homes.take();
    assert_eq!((inventory.items.len(), inventory.gaps.len()), (1, 1));
    let limits = Limits {
        root_time: Duration::ZERO,
        ..Limits::default()
    };
    let inventory = take(&homes.patterns(), limits);
    assert_eq!((inventory.items.len(), inventory.gaps.len()), (0, 2));
    assert!(
        inventory.gaps[0].reason.contains("takes longer"),
        "{:?}",
        inventory.gaps
    );
}

#[test]
fn two_patterns_for_one_place_count_once() {
    let homes = Homes::new();
    homes.write("ann/.ssh/id.pub", ANN, 0o644);
    let mut patterns = homes.patterns();
    patterns.push(Pattern::literal(&homes.path("ann/.ssh")).unwrap());
    assert_eq!(take(&patterns, Limits::default()).items.len(), 1);
}

#[test]
fn what_is_no_key_is_not_listed() {
    let homes = Homes::new();
    homes.write("ann/.ssh/config", "Host *\n", 0o644);
    homes.write(
        "ann/.ssh/known_hosts",
        &format!("host {}\n", ANN.trim_end_matches(" ann")),
        0o644,
    );
    homes.write("ann/.ssh/empty", "", 0o644);
    File::create(homes.path("ann/.ssh/authorized_keys")).unwrap();
    assert_eq!(homes.take(), Inventory::default());
}
