//! Lists of keys, and what changed in them.

use std::path::Path;

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
    let mut known = Known::default();
    let path = Path::new("/root/.ssh/authorized_keys");
    let (a, b) = (entry("a", &[]), entry("b", &[]));
    assert_eq!(known.learn(path, std::slice::from_ref(&a)), None);
    let change = known.learn(path, &[a.clone(), b.clone()]).unwrap();
    assert_eq!((change.added, change.removed), (vec![b.clone()], vec![]));
    assert_eq!(known.holders("b"), [path]);
    assert!(known.holders("c").is_empty());
    assert_eq!(known.forget(path), Some(vec![a, b]));
    assert_eq!(known.forget(path), None);
    assert!(known.holders("b").is_empty());
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut known = Known::default();
    let long: Vec<Entry> = (0..1000)
        .map(|number| entry(&format!("{number}{}", "x".repeat(1000)), &[]))
        .collect();
    for number in 0..100 {
        known.learn(Path::new(&format!("/{number}")), &long);
    }
    let kept = known.holders(long[0].identity.fingerprint.as_deref().unwrap());
    assert!((5..20).contains(&kept.len()), "{}", kept.len());
    assert!(kept.contains(&Path::new("/99")), "the newest stays");
    // One that is too long alone is not kept at all, and not compared.
    let path = Path::new("/long");
    let longer: Vec<Entry> = (0..5).flat_map(|_| long.clone()).collect();
    assert_eq!(known.learn(path, &longer), None);
    assert_eq!(known.learn(path, &longer), None);
}
