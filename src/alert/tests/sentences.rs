//! The message of an alert.

use super::*;

fn message(event: &Event<Attribution>) -> String {
    let alert = alert(event_document(event, &origin()), &rule());
    alert.str("message").unwrap().to_owned()
}

#[test]
fn the_sentence_names_what_was_done() {
    let mut event = event();
    event.path = "/etc/ssh/ssh_host_rsa_key.Ab3dE5gH1j".into();
    event.final_path = Some(FinalPath::Expected("/etc/ssh/ssh_host_rsa_key".into()));
    assert_eq!(
        message(&event),
        "/usr/bin/ssh-keygen created /etc/ssh/ssh_host_rsa_key.Ab3dE5gH1j (to become \
         /etc/ssh/ssh_host_rsa_key) as alice (pid 1200, parent /usr/bin/bash pid 900)"
    );
    event.final_path = Some(FinalPath::Renamed("/etc/ssh/ssh_host_rsa_key".into()));
    assert!(message(&event).contains("(now /etc/ssh/ssh_host_rsa_key)"));

    event.final_path = None;
    event.path = "/root/.ssh/b".into();
    event.original_path = Some("/root/.ssh/a".into());
    event.action = Action::Rename;
    assert!(message(&event).contains(" renamed /root/.ssh/a to /root/.ssh/b as"));
    event.action = Action::Modification;
    assert!(message(&event).contains(" changed /root/.ssh/b as"));
    event.action = Action::Deletion;
    event.facts.as_mut().unwrap().kind = FileKind::Dir;
    assert!(message(&event).contains(" deleted the directory /root/.ssh/b as"));

    event.action = Action::Open;
    event.facts.as_mut().unwrap().kind = FileKind::File;
    assert!(message(&event).contains(" opened /root/.ssh/b as"));

    event.action = Action::Creation;
    let facts = event.facts.as_mut().unwrap();
    facts.kind = FileKind::Symlink;
    facts.target = Some("/tmp/k".into());
    assert!(
        message(&event).contains("created the symbolic link /root/.ssh/b that points to /tmp/k")
    );
}

#[test]
fn the_sentence_names_the_kind_of_key_where_it_is_known() {
    let mut document = document();
    document.set("ssh_keywatch.key.kind", "public");
    assert!(
        alert(document.clone(), &rule())
            .str("message")
            .unwrap()
            .contains("created the public key /home/alice/.ssh/id_ed25519.pub as")
    );
}

#[test]
fn the_sentence_is_honest_about_the_writer() {
    let mut event = event();
    event.writer = nobody();
    assert_eq!(
        message(&event),
        "unknown program created /home/alice/.ssh/id_ed25519.pub"
    );

    event.writer = writer();
    event.writer.certain = false;
    assert!(message(&event).starts_with("probably /usr/bin/ssh-keygen created"));

    event.writer.process.as_mut().unwrap().image = None;
    assert!(message(&event).starts_with("unknown program created"));
    for (candidates, start) in [
        (vec!["/a"], "probably /a created"),
        (vec!["/a", "/a"], "probably /a created"),
        (vec!["/a", "/b"], "/a or /b created"),
        (vec!["/a", "/b", "/c"], "/a, /b or /c created"),
        (
            vec!["/a", "/b", "/c", "/d", "/e"],
            "/a, /b, /c or one of 2 other programs created",
        ),
    ] {
        event.writer.candidates = candidates.into_iter().map(image).collect();
        let message = message(&event);
        assert!(message.starts_with(start), "{message}");
    }

    event.writer = writer();
    for (state, words) in [
        (ImageState::Replaced, " (replaced since it started) created"),
        (ImageState::Foreign, " (of another mount namespace) created"),
        (ImageState::Deleted, " (deleted since it started) created"),
        (ImageState::Memfd, " (a program without a file) created"),
    ] {
        let process = event.writer.process.as_mut().unwrap();
        process.image.as_mut().unwrap().state = Some(state);
        assert!(message(&event).contains(words), "{}", message(&event));
    }
}

#[test]
fn the_sentence_says_as_whom() {
    let mut event = event();
    let process = event.writer.process.as_mut().unwrap();
    process.credentials.as_mut().unwrap().effective_user = account(0, "");
    assert!(message(&event).contains(" as uid 0, logged in as uid 1000 (pid 1200"));
    event.writer.ancestors.clear();
    assert!(message(&event).ends_with(" (pid 1200, parent pid 900)"));
    event.writer.process.as_mut().unwrap().parent_pid = None;
    assert!(message(&event).ends_with(" (pid 1200)"));
}

#[test]
fn a_name_cannot_forge_a_sentence_or_a_line() {
    let mut event = event();
    event.path = "/root/.ssh/x\n\u{1b}[2Jall is well\u{202e}".into();
    let alert = alert(event_document(&event, &origin()), &rule());
    assert!(
        !alert
            .str("message")
            .unwrap()
            .contains(crate::text::is_unsafe)
    );
    // The value itself is exact; only its spelling in the line is safe.
    assert_eq!(alert.str("file.path"), event.path.to_str());
    let line = alert.to_line();
    assert!(!line.contains(crate::text::is_unsafe));
    assert_eq!(line, alert.to_string());
    let back: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(back, Value::Object(alert.into_map()));
}
