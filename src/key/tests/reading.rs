//! Reading from descriptors.

use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tempfile::tempdir;

use super::*;

fn path_only(path: &Path) -> OwnedFd {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    open(path, flags, Mode::empty()).unwrap()
}

fn write(path: &Path, content: &[u8], mode: u32) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn inspect_at(path: &Path, role: Role, beside: Option<&Path>) -> Inspection {
    let beside = beside.map(path_only);
    let beside = beside.as_ref().map(OwnedFd::as_fd);
    inspect(path_only(path).as_fd(), role, beside).unwrap()
}

#[test]
fn a_key_is_read_through_its_descriptor_whatever_the_name_is_now() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("id");
    write(&path, ED25519, 0o600);
    let file = path_only(&path);
    fs::rename(&path, dir.path().join("moved")).unwrap();
    write(&path, b"another", 0o644);
    let found = inspect(file.as_fd(), Role::Other, None).unwrap();
    assert_eq!(
        found.facts.unwrap().identity.fingerprint.as_deref(),
        Some(ED25519_PRINT)
    );
    assert!(found.whole);
    // sha256sum throwaway_openssh_ed25519
    let hash = data_encoding::HEXLOWER.encode(&found.sha256.unwrap());
    assert_eq!(hash, SHA256SUM);
}

const SHA256SUM: &str = "5b7e1090f9e4d344b3de4cfa0d44b0ce699559e288b0d8e7f18ba5a45c73be63";

#[test]
fn what_is_no_regular_file_is_not_opened() {
    let dir = tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    mkfifo(&fifo, Mode::from_bits_truncate(0o600)).unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink("link", &link).unwrap();
    for path in [
        fifo.as_path(),
        link.as_path(),
        dir.path(),
        Path::new("/dev/tty"),
    ] {
        let error = inspect(path_only(path).as_fd(), Role::Other, None).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{path:?}");
    }
}

#[test]
fn permissions_that_ssh_refuses_are_told() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("file");
    let line = format!("{ED25519_LINE}\n");
    for (content, role, mode, refused) in [
        (ED25519, Role::Other, 0o600, Some(false)),
        (ED25519, Role::Other, 0o640, Some(true)),
        (ED25519, Role::HostKey, 0o604, Some(true)),
        (line.as_bytes(), Role::AuthorizedKeys, 0o644, Some(false)),
        (line.as_bytes(), Role::AuthorizedKeys, 0o664, Some(true)),
        (line.as_bytes(), Role::Other, 0o666, None),
    ] {
        write(&path, content, mode);
        assert_eq!(inspect_at(&path, role, None).refused, refused, "{mode:o}");
    }
}

#[test]
fn the_two_halves_are_compared() {
    let dir = tempdir().unwrap();
    let (private, public) = (dir.path().join("id"), dir.path().join("id.pub"));
    write(&private, ED25519, 0o600);
    write(
        &public,
        format!("{ED25519_LINE} beside\n").as_bytes(),
        0o644,
    );
    let found = inspect_at(&private, Role::Other, Some(&public));
    assert_eq!((found.pair, found.borrowed), (Some(Pair::Same), false));
    assert_eq!(
        found.facts.unwrap().comment.as_deref(),
        Some("throw-away test key ed25519")
    );
    let found = inspect_at(&public, Role::Other, Some(&private));
    assert_eq!(found.pair, Some(Pair::Same));

    write(
        &private,
        fixture!("throwaway_openssh_encrypted_ed25519"),
        0o600,
    );
    let found = inspect_at(&private, Role::Other, Some(&public));
    assert_eq!(found.pair, Some(Pair::Same));
    assert_eq!(found.facts.unwrap().comment.as_deref(), Some("beside"));

    write(&private, fixture!("throwaway_pem_ecdsa"), 0o600);
    let found = inspect_at(&private, Role::Other, Some(&public));
    assert_eq!(found.pair, Some(Pair::Different));
    assert_eq!(
        found.facts.unwrap().identity.fingerprint.as_deref(),
        Some(ECDSA_PRINT)
    );

    // Without its passphrase it says no more than that it is RSA.
    write(&private, fixture!("throwaway_pem_encrypted_rsa"), 0o600);
    let found = inspect_at(&private, Role::Other, Some(&public));
    assert_eq!((found.pair, found.borrowed), (Some(Pair::Different), false));
    assert_eq!(found.facts.unwrap().identity.fingerprint, None);
    write(&public, rsa_line().as_bytes(), 0o644);
    let found = inspect_at(&private, Role::Other, Some(&public));
    assert_eq!((found.pair, found.borrowed), (Some(Pair::Unknown), true));
    assert_eq!(
        found.facts.unwrap().identity.fingerprint.as_deref(),
        Some(RSA_PRINT)
    );
    // Two private keys are no pair.
    assert_eq!(inspect_at(&private, Role::Other, Some(&private)).pair, None);
}

/// The public key of the fixtures' RSA key, which stands in its `.ppk`.
fn rsa_line() -> String {
    let text = std::str::from_utf8(fixture!("throwaway_v3_rsa.ppk")).unwrap();
    let lines = text
        .lines()
        .skip_while(|line| !line.starts_with("Public-Lines"));
    let lines: Vec<&str> = lines
        .skip(1)
        .take_while(|line| !line.contains(':'))
        .collect();
    format!("ssh-rsa {} beside\n", lines.concat())
}

#[test]
fn a_sparse_gigabyte_is_read_at_both_ends_only() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("authorized_keys");
    let mut file = File::create(&path).unwrap();
    writeln!(file, "{ED25519_LINE} first").unwrap();
    file.set_len(1 << 30).unwrap();
    let content = read(path_only(&path).as_fd()).unwrap();
    assert_eq!(content.head.len(), LIMIT);
    assert!(content.tail.unwrap().len() <= 64 * 1024);
    assert_eq!(inspect_at(&path, Role::AuthorizedKeys, None).sha256, None);

    // What somebody appends behind the padding is what matters.
    let mut file = File::options().append(true).open(&path).unwrap();
    write!(file, "\nrestrict {ED25519_LINE} last\n").unwrap();
    let found = inspect_at(&path, Role::AuthorizedKeys, None);
    assert!(!found.whole);
    let entries = found.facts.unwrap().list.unwrap().entries;
    let comments: Vec<_> = entries
        .iter()
        .map(|entry| entry.comment.as_deref().unwrap())
        .collect();
    assert_eq!(comments, ["first", "last"]);
}

#[test]
fn a_million_lines_are_bounded() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("authorized_keys");
    let lines = format!("{ED25519_LINE}\n").repeat(1000);
    let mut file = File::create(&path).unwrap();
    for _ in 0..1000 {
        file.write_all(lines.as_bytes()).unwrap();
    }
    let found = inspect_at(&path, Role::AuthorizedKeys, None);
    assert!(!found.whole);
    let list = found.facts.unwrap().list.unwrap();
    let read = (LIMIT + 64 * 1024) / (ED25519_LINE.len() + 1);
    assert!(list.entries.len() <= read && list.entries.len() > read - 3);
    assert_eq!(list.unreadable, 0, "lines are not torn");
}

#[test]
fn a_file_of_exactly_the_bound_is_whole() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("f");
    for (size, whole) in [(LIMIT - 1, true), (LIMIT, true), (LIMIT + 1, false)] {
        write(&path, &vec![b'\n'; size], 0o600);
        assert_eq!(inspect_at(&path, Role::Other, None).whole, whole, "{size}");
    }
}
