//! Lists of keys, and what changed in them.

use std::path::{Path, PathBuf};

use super::*;

fn authorized(text: &str) -> List {
    let facts = examine(text.as_bytes(), Role::AuthorizedKeys).unwrap();
    assert_eq!(facts.kind, Kind::AuthorizedKeys);
    facts.list.unwrap()
}

fn options(text: &str) -> Vec<String> {
    let list = authorized(&format!("{text} {ED25519_LINE} c\n"));
    assert_eq!(list.entries.len(), 1, "{text}");
    assert_eq!(
        list.entries[0].identity.fingerprint.as_deref(),
        Some(ED25519_PRINT)
    );
    list.entries[0].options.clone()
}

#[test]
fn options_are_read_as_sshd_reads_them() {
    assert_eq!(options("restrict,pty"), ["restrict", "pty"]);
    assert_eq!(
        options(r#"from="10.0.0.0/8,!10.1.2.3",command="echo \"a, b\" # c",no-pty"#),
        [
            r#"from="10.0.0.0/8,!10.1.2.3""#,
            r#"command="echo \"a, b\" # c""#,
            "no-pty"
        ]
    );
    assert_eq!(options("\t cert-authority"), ["cert-authority"]);
    assert_eq!(options(""), [""; 0]);
    // sshd takes no line whose quote stays open.
    let list = authorized(&format!("command=\"x {ED25519_LINE}\n"));
    assert_eq!((list.entries.len(), list.unreadable), (0, 1));
}

#[test]
fn every_name_that_sshd_takes_for_a_type_is_a_type() {
    let blob = ED25519_LINE.split(' ').nth(1).unwrap();
    for name in ["ssh-ed25519", "ED25519", "ed25519"] {
        let list = authorized(&format!("{name} {blob}"));
        assert_eq!(list.entries.len(), 1, "{name}");
        assert_eq!(
            list.entries[0].identity.algorithm.as_deref(),
            Some("ssh-ed25519")
        );
    }
    let list = authorized(&format!("ssh-rsa {blob}"));
    assert_eq!((list.entries.len(), list.unreadable), (0, 1));
}

#[test]
fn a_type_of_tomorrow_is_an_entry_too() {
    let blob = b"\0\0\0\x14ssh-mldsa@openssh.co\0\0\0\x04abcd";
    let text = data_encoding::BASE64.encode(blob);
    let list = authorized(&format!("ssh-mldsa@openssh.co {text} future"));
    let identity = &list.entries[0].identity;
    assert_eq!(identity.algorithm.as_deref(), Some("ssh-mldsa@openssh.co"));
    assert_eq!(identity.bits, None);
    assert!(identity.fingerprint.as_deref().unwrap().len() == 50);
}

#[test]
fn lines_comments_blanks_and_bytes_are_no_obstacle() {
    let text = [
        b"# comment\r\n\r\n   ".as_slice(),
        ED25519_LINE.as_bytes(),
        b" caf\xe9 \x1b[2J\r\nnonsense\n",
        ED25519_LINE.as_bytes(),
    ]
    .concat();
    let list = examine(&text, Role::AuthorizedKeys).unwrap().list.unwrap();
    assert_eq!((list.entries.len(), list.unreadable), (2, 1));
    assert_eq!(
        list.entries[0].comment.as_deref(),
        Some("caf\u{fffd} \u{1b}[2J")
    );
    assert_eq!(list.entries[1].comment, None);
}

#[test]
fn an_empty_list_is_a_list_by_its_name_only() {
    let facts = examine(b"", Role::AuthorizedKeys).unwrap();
    assert_eq!(facts.list, Some(List::default()));
    assert_eq!(examine(b"", Role::Other), None);
}

#[test]
fn known_hosts_have_hosts_and_markers() {
    let text =
        format!("|1|c2FsdA==|aGFzaA== {ED25519_LINE}\n@revoked *.example.org {ED25519_LINE} old\n");
    let facts = examine(text.as_bytes(), Role::KnownHosts).unwrap();
    assert_eq!(facts.kind, Kind::KnownHosts);
    let entries = facts.list.unwrap().entries;
    assert_eq!(entries[0].hosts.as_deref(), Some("|1|c2FsdA==|aGFzaA=="));
    assert_eq!(entries[1].hosts.as_deref(), Some("*.example.org"));
    assert_eq!(entries[1].options, ["@revoked"]);
    // The same under a name that says nothing.
    let text = format!("example.org,10.0.0.1 {ED25519_LINE}\n");
    assert_eq!(other(text.as_bytes()).kind, Kind::KnownHosts);
}

#[test]
fn a_private_key_under_the_name_of_a_list_is_a_private_key() {
    let facts = examine(ED25519, Role::AuthorizedKeys).unwrap();
    assert_eq!(facts.kind, Kind::Private);
}

#[test]
fn a_single_line_is_a_public_key_and_more_are_a_list() {
    let one = other(format!("{ED25519_LINE} ann@web1\n").as_bytes());
    assert_eq!(one.kind, Kind::Public);
    assert_eq!(one.comment.as_deref(), Some("ann@web1"));
    assert_eq!(one.list, None);
    for text in [
        format!("{ED25519_LINE}\n{ED25519_LINE}\n"),
        format!("restrict {ED25519_LINE}\n"),
    ] {
        assert_eq!(other(text.as_bytes()).kind, Kind::AuthorizedKeys);
    }
}

/// sshd decodes base64 by `b64_pton()`, and reads a line as a string of C.
#[test]
fn base64_is_decoded_and_a_line_ends_as_in_sshd() {
    let (kind, blob) = ED25519_LINE.split_once(' ').unwrap();
    for space in ["\x0b", "\x0c", "\r", "\r\x0b\x0c"] {
        let at = blob.len() / 2;
        let text = format!("{kind} {}{space}{} c\n", &blob[..at], &blob[at..]);
        let list = authorized(&text);
        assert_eq!(list.entries.len(), 1, "{space:?}");
        let identity = &list.entries[0].identity;
        assert_eq!(identity.fingerprint.as_deref(), Some(ED25519_PRINT));
    }
    for (text, entries) in [
        (format!("{ED25519_LINE}\0"), 1),
        (format!("{ED25519_LINE}\0 c\0d\n{ED25519_LINE}"), 2),
        (format!("{ED25519_LINE} c\0d"), 1),
        (format!("\0{ED25519_LINE}"), 0),
    ] {
        let list = authorized(&text);
        assert_eq!((list.entries.len(), list.unreadable), (entries, 0));
    }
}

#[test]
fn lines_that_are_no_entries_are_told_apart() {
    let rest = |text: &str| authorized(text).rest;
    assert_eq!(rest(ED25519_LINE), List::default().rest);
    assert_eq!(rest("x\n"), rest(&format!("# c\n{ED25519_LINE}\nx\n")));
    for other in ["y\n", "x\nx\n", "x\ny\n", ""] {
        assert_ne!(rest("x\n"), rest(other), "{other:?}");
    }
    let mut known = known();
    let path = Path::new("/root/.ssh/authorized_keys");
    let list = authorized("x\n");
    assert!(known.has_other_rest(path, &list));
    known.learn(path, &list, None);
    assert!(!known.has_other_rest(path, &list));
    assert!(known.has_other_rest(path, &authorized("y\n")));
    assert!(!known.has_other_rest(path, &authorized("")));
}

/// A home is what a list lies in.
fn known() -> Known {
    Known::new(|path| path.parent().unwrap().into())
}

fn list(entries: &[Entry]) -> List {
    List {
        entries: entries.to_vec(),
        ..List::default()
    }
}

fn entry(fingerprint: &str, options: &[&str]) -> Entry {
    Entry {
        identity: identity("ssh-ed25519", 256, fingerprint),
        options: options.iter().map(ToString::to_string).collect(),
        ..Entry::default()
    }
}

#[test]
fn a_change_is_a_key_or_its_options_and_not_a_comment_or_a_place() {
    let a = entry("a", &[]);
    let b = entry("b", &["restrict"]);
    let mut commented = a.clone();
    commented.comment = Some("new".into());
    let change = Change::between(&[a.clone(), b.clone()], &[b.clone(), commented]);
    assert!(change.is_empty());

    let freed = entry("b", &[]);
    let change = Change::between(&[a.clone(), b.clone()], &[a.clone(), freed.clone()]);
    assert_eq!((change.added, change.removed), (vec![freed], vec![b]));

    let change = Change::between(std::slice::from_ref(&a), &[a.clone(), a.clone()]);
    assert_eq!((change.added.len(), change.removed.len()), (1, 0));
}

#[test]
fn an_option_too_long_to_be_shown_is_still_compared() {
    let list = |end: &str| {
        let command = "x".repeat(5000);
        let many = "pty,".repeat(100);
        authorized(&format!("{many}command=\"{command}{end}\" {ED25519_LINE}")).entries
    };
    assert_eq!(list("a")[0].options, list("b")[0].options);
    let change = Change::between(&list("a"), &list("b"));
    assert_eq!((change.added.len(), change.removed.len()), (1, 1));
    assert!(Change::between(&list("a"), &list("a")).is_empty());
}

#[test]
fn what_was_known_is_compared_and_what_was_not_is_not() {
    let mut known = known();
    let path = Path::new("/root/.ssh/authorized_keys");
    let (a, b) = (entry("a", &[]), entry("b", &[]));
    let both = list(&[a.clone(), b.clone()]);
    assert_eq!(known.compare(path, &both), None);
    known.note(path, &both, None);
    assert_eq!(known.compare(path, &both), None, "noted against nothing");
    known.learn(path, &list(&[a]), None);
    // To compare is not to learn.
    for _ in 0..2 {
        let change = known.compare(path, &both).unwrap();
        assert_eq!((change.added, change.removed), (vec![b.clone()], vec![]));
    }
    known.learn(path, &both, None);
    assert!(known.compare(path, &both).unwrap().is_empty());
    assert_eq!(known.holders("b"), [path]);
    assert!(known.holders("c").is_empty());
    assert_eq!(known.forget(path), Some(both.entries));
    assert_eq!(known.forget(path), None);
    assert!(known.holders("b").is_empty());
}

#[test]
fn what_was_only_noted_is_there_and_still_to_be_compared() {
    let mut known = known();
    let path = Path::new("/root/.ssh/authorized_keys");
    let (a, b) = (entry("a", &[]), entry("b", &[]));
    let both = list(&[a.clone(), b.clone()]);
    let look = Look {
        time: std::time::SystemTime::UNIX_EPOCH,
        stamp: Some((1, 2, (3, 4))),
    };
    known.learn(path, &list(&[a]), None);
    assert!(!known.is_noted(path) && known.looked(path).is_none());
    known.note(path, &both, Some(look));
    assert!(known.is_noted(path));
    assert_eq!(known.looked(path), Some(look));
    assert_eq!(known.holders("b"), [path]);
    assert_eq!(known.compare(path, &both).unwrap().added, [b]);
    assert_eq!(known.forget(path), Some(both.entries), "what it held");
}

#[test]
fn what_is_remembered_is_bounded_for_each_home_and_for_all() {
    let entries: Vec<Entry> = (0..500)
        .map(|number| entry(&format!("{number}{}", "x".repeat(1000)), &[]))
        .collect();
    let long = list(&entries);
    let print = entries[0].identity.fingerprint.as_deref().unwrap();
    let mut known = known();
    let path = |home: usize, name: usize| PathBuf::from(format!("/{home}/{name}"));
    // Each home has a small one. One has as many long ones as it likes.
    let small = list(&[entry("a", &[])]);
    for home in 0..100 {
        known.learn(&path(home, 0), &small, None);
    }
    for name in 1..100 {
        known.learn(&path(0, name), &long, None);
    }
    let kept = known.holders(print);
    assert!((3..10).contains(&kept.len()), "{}", kept.len());
    assert!(kept.contains(&path(0, 99).as_path()), "the newest stays");
    assert_eq!(known.holders("a").len(), 99, "others keep theirs");
    // Many have a few: who has most gives.
    for home in 1..50 {
        for name in 1..3 {
            known.learn(&path(home, name), &long, None);
        }
    }
    let kept = known.holders(print).len();
    assert!((15..40).contains(&kept), "{kept}");
    let others = (50..100).all(|home| known.compare(&path(home, 0), &small).is_some());
    assert!(others, "others keep theirs");
    // One that is too long alone is not kept at all, and not compared.
    let longer = list(&[&*entries; 10].concat());
    known.learn(&path(0, 0), &longer, None);
    assert_eq!(known.compare(&path(0, 0), &longer), None);
}
