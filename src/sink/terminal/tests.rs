//! Documents as a person reads them.

use super::*;
use crate::text::is_unsafe;
use serde_json::json;

fn style(colour: bool) -> TerminalStyle {
    TerminalStyle {
        zone: TimeZone::UTC,
        now: || "2026-11-24T04:18:00Z".parse().unwrap(),
        ..TerminalStyle::new(colour)
    }
}

fn render(document: &Map<String, Value>, style: &TerminalStyle) -> String {
    Renderer::new(style.clone()).render(document)
}

fn sample() -> Map<String, Value> {
    json!({
        "@timestamp": "2026-11-24T04:15:47.123456Z",
        "message": "m", "event": {"kind": "alert", "action": "creation", "severity": 73},
        "rule": {"name": "SSH key made with ssh-keygen"},
        "file": {"path": "/etc/ssh/ssh_host_rsa_key.Xa"},
        "process": {"pid": 42, "executable": "/usr/bin/ssh-keygen", "args": ["ssh-keygen", "-C", "a b"]},
        "user": {"id": "0", "name": "root"}, "source": {"ip": "192.0.2.1", "port": 5022},
        "ssh_keywatch": {
            "file": {"final": {"path": "/etc/ssh/ssh_host_rsa_key"}},
            "key": {"kind": "private", "type": "ssh-rsa", "bits": 3072, "fingerprint": "SHA256:x", "encrypted": false},
            "ancestors": [
                {"pid": 41, "executable": "/bin/bash", "user": {"name": "zoë", "id": "1000"}, "args": ["bash"]},
                {"pid": 40, "executable": "/usr/bin/sudo", "user": {"name": "root"}, "args": ["sudo", "-u", "zoë", "a b"]},
                {"pid": 1, "name": "systemd"}
            ],
            "session": {"user": {"name": "zoë", "id": "1000"}, "audit_id": "7", "tty": "pts/1", "kind": "ssh", "through": ["sudo"]},
            "attribution": {"method": "held", "certain": true, "image": "same"}
        }
    })
    .as_object()
    .unwrap()
    .clone()
}

/// The names of fields are those of the reference page, whose example is held
/// against a real alert by another test.
#[test]
fn the_example_of_the_reference_is_shown_in_full() {
    let page = include_str!("../../../docs/alert.md");
    let example = page.split("```json\n").nth(1).unwrap();
    let example = example.split("```").next().unwrap();
    let document = serde_json::from_str(example).unwrap();
    let shown = render(&document, &style(false));
    for row in [
        "    file      /home/ann/.ssh/id_ed25519  (creation)\n",
        "    key       private  256 SHA256:7yjeWArJjMIzeuvNEb5mRlup5cCMGw9lFwnXRq2Vv5M ann@web1 (ssh-ed25519)  without passphrase\n",
        "    program   /usr/bin/ssh-keygen  pid 853\n",
        "    user      ann (4001)\n",
        "    session   login ann (4001), ssh, audit session 7, unit session-4.scope, on pts/0, from 192.0.2.17 port 50644\n",
        "[811] as ann: sshd: ann@pts/0\n",
        "    proof     held, certain\n",
    ] {
        assert!(shown.contains(row), "{row:?} is not in {shown}");
    }
}

#[test]
fn an_alert_answers_who_what_and_how_surely() {
    let expected = "\
2026-11-24 04:15:47.123 +00:00  HIGH      SSH key made with ssh-keygen  (2 min ago)
    file      /etc/ssh/ssh_host_rsa_key.Xa  (creation)
    final     /etc/ssh/ssh_host_rsa_key
    key       private  3072 SHA256:x (ssh-rsa)  without passphrase
    program   /usr/bin/ssh-keygen  pid 42
    command   ssh-keygen -C 'a b'
    user      root (0)
    session   login zoë (1000), ssh, through sudo, audit session 7, on pts/1, from 192.0.2.1 port 5022
    lineage   systemd[1]
              └─ /usr/bin/sudo[40] as root: sudo -u zoë 'a b'
                 └─ /bin/bash[41] as zoë
                    └─ /usr/bin/ssh-keygen[42]
    proof     held, certain
";
    assert_eq!(render(&sample(), &style(false)), expected);
}

#[test]
fn an_uncertain_alert_says_so() {
    let document = json!({"rule": {"name": "R"}, "process": {"pid": 3}, "ssh_keywatch": {"attribution":
        {"method": "recorded", "certain": false, "candidates": [{"executable": "/bin/a"}, {"executable": "/bin/b"}]}}});
    let text = render(document.as_object().unwrap(), &style(false));
    assert!(
        text.contains("proof     recorded, NOT certain; one of /bin/a, /bin/b"),
        "{text}"
    );
    assert!(
        text.contains("program   (unknown program)  pid 3"),
        "{text}"
    );
    assert!(text.starts_with("(no time)  LOW       R\n"), "{text}");
}

#[test]
fn what_a_comparison_found_says_when_it_can_have_been_and_why_nobody_saw_it() {
    let mut document = sample();
    let reason = "it happened while ssh-keywatch was not running, between A and B";
    document["event"]["reason"] = reason.into();
    document["event"]["start"] = "2026-11-24T01:00:00Z".into();
    document["event"]["end"] = "2026-11-24T04:15:47Z".into();
    document["ssh_keywatch"]["evidence"] = "baseline".into();
    document["ssh_keywatch"]["attribution"] = json!({"method": "none", "certain": false});
    let text = render(&document, &style(false));
    let proof = format!("    proof     none: {reason}\n");
    for row in [
        "HIGH      SSH key made with ssh-keygen  (found 2 min ago)\n",
        "    when      between 2026-11-24 01:00:00.000 +00:00 and 2026-11-24 04:15:47.000 +00:00\n",
        &proof,
    ] {
        assert!(text.contains(row), "{row:?} is not in {text}");
    }
    document["event"].as_object_mut().unwrap().remove("start");
    let text = render(&document, &style(false));
    assert!(
        text.contains("    when      before 2026-11-24 04:15:47.000 +00:00\n"),
        "{text}"
    );
}

#[test]
fn a_symbolic_link_says_where_it_points() {
    let mut document = sample();
    document["file"]["type"] = "symlink".into();
    document["file"]["target_path"] = "/srv/keys/zoë".into();
    let text = render(&document, &style(false));
    let row = "    file      /etc/ssh/ssh_host_rsa_key.Xa  (creation)  points to /srv/keys/zoë\n";
    assert!(text.contains(row), "{text}");
}

#[test]
fn state_and_loss_take_one_line() {
    for (kind, label) in [("state", "STATE   "), ("pipeline_error", "LOSS    ")] {
        let document = json!({"@timestamp": "2026-11-24T04:15:47Z", "message": "why",
            "event": {"kind": kind, "action": "stop"}});
        assert_eq!(
            render(document.as_object().unwrap(), &style(false)),
            format!("2026-11-24 04:15:47.000 +00:00  {label}  stop: why\n")
        );
    }
}

#[test]
fn lines_are_as_wide_as_the_terminal_and_lose_nothing() {
    let full = render(&sample(), &style(false));
    let words =
        |text: &str| -> Vec<String> { text.split_whitespace().map(str::to_owned).collect() };
    for width in [60, 72, 100] {
        let narrow = TerminalStyle {
            width: Some(width),
            ..style(false)
        };
        let text = render(&sample(), &narrow);
        // The heading is one line, whatever its length.
        for line in text.lines().skip(1) {
            assert!(line.chars().count() <= width, "{width}: {line:?}");
        }
        assert_eq!(words(&text), words(&full));
    }
}

#[test]
fn a_terminal_of_ascii_gets_nothing_else() {
    let ascii = TerminalStyle {
        unicode: false,
        ..style(false)
    };
    let text = render(&sample(), &ascii);
    assert!(text.is_ascii(), "{text}");
    assert!(
        text.contains(r"              `- /usr/bin/sudo[40] as root: sudo -u zo\u{eb} 'a b'"),
        "{text}"
    );
}

#[test]
fn how_long_ago_it_was_is_said_in_one_unit() {
    for (now, said) in [
        ("2026-11-24T04:15:50Z", None),
        ("2026-11-24T04:16:27.5Z", Some("40 s ago")),
        ("2026-11-24T05:15:00Z", Some("59 min ago")),
        ("2026-11-25T04:15:00Z", Some("23 h ago")),
        ("2026-12-24T04:16:00Z", Some("30 days ago")),
        // A clock that was set back.
        ("2026-11-24T04:00:00Z", None),
    ] {
        assert_eq!(
            age(&sample(), now.parse().unwrap()).as_deref(),
            said,
            "{now}"
        );
    }
}

#[test]
fn a_program_under_another_name_is_told() {
    let mut document = sample();
    document["ssh_keywatch"]["attribution"]["known_as"] = "/usr/bin/ssh-keygen".into();
    document["ssh_keywatch"]["attribution"]["known_by"] = "content".into();
    let text = render(&document, &style(false));
    assert!(
        text.contains("pid 42  [is /usr/bin/ssh-keygen, by content]"),
        "{text}"
    );
    document["ssh_keywatch"]["attribution"]["image"] = "replaced".into();
    document["ssh_keywatch"]["attribution"]["claimed_executable"] = "/bin/x".into();
    let text = render(&document, &style(false));
    assert!(text.contains("pid 42  [poses as /bin/x]\n"), "{text}");
}

#[test]
fn where_it_ran_is_told_once() {
    let id = "0123456789abcdef".repeat(4);
    let scope = format!("docker-{id}.scope");
    for (session, container, shown) in [
        (
            json!({"kind": "unit", "unit": "rotate.service"}),
            json!(null),
            "unit rotate.service",
        ),
        (
            json!({"kind": "user_unit", "unit": "user@1000.service", "user_unit": "sync.service"}),
            json!(null),
            "user unit sync.service, unit user@1000.service",
        ),
        (
            json!({"kind": "cron", "unit": "cron.service"}),
            json!(null),
            "cron, unit cron.service",
        ),
        (
            json!({"kind": "container", "unit": scope}),
            json!({"id": id, "runtime": "docker"}),
            "container 0123456789ab of docker",
        ),
        (
            json!({"kind": "ssh", "unit": "ssh.service"}),
            json!({"id": "web"}),
            "ssh, container web, unit ssh.service",
        ),
    ] {
        let mut document = sample();
        document.remove("source");
        document["ssh_keywatch"]["session"] = session;
        document.insert("container".to_owned(), container);
        let text = render(&document, &style(false));
        let row = format!("    session   {shown}\n");
        assert!(text.contains(&row), "{row:?} is not in {text}");
    }
}

#[test]
fn the_tree_shows_titles_and_the_beginning_of_long_commands() {
    let mut document = sample();
    let script = "x".repeat(200);
    document["ssh_keywatch"]["ancestors"] = json!([
        {"pid": 3, "executable": "/bin/sh", "args": ["sh", "-c", script]},
        {"pid": 2, "executable": "/usr/sbin/sshd", "args": ["sshd: ann [priv]"]},
        {"pid": 1, "executable": "/sbin/init", "args": ["/sbin/init"]}
    ]);
    for (unicode, end) in [(true, "…"), (false, "...")] {
        let style = TerminalStyle {
            unicode,
            ..style(false)
        };
        let text = render(&document, &style);
        let cut = format!("/bin/sh[3]: sh -c {}{end}\n", "x".repeat(94));
        for row in [
            "lineage   /sbin/init[1]\n",
            "/usr/sbin/sshd[2]: sshd: ann [priv]\n",
            cut.as_str(),
        ] {
            assert!(text.contains(row), "{row:?} is not in {text}");
        }
    }
}

#[test]
fn what_would_undo_it_stands_in_lines_to_copy() {
    let mut document = sample();
    let long = format!("mv {} /root/quarantine/", "a/".repeat(60));
    document["ssh_keywatch"]["response"] = json!({"commands": [long, "true"]});
    let narrow = TerminalStyle {
        width: Some(60),
        ..style(false)
    };
    let text = render(&document, &narrow);
    assert!(
        text.ends_with(&format!("    undo      {long}\n              true\n")),
        "{text}"
    );
}

/// The sample as an alert of an act.
fn of_act(act: &str, path: &str) -> Map<String, Value> {
    let mut document = sample();
    document["ssh_keywatch"]["act"] = json!({"id": act});
    document["file"]["path"] = path.into();
    document
}

#[test]
fn alerts_of_one_act_are_one_block_with_what_differs() {
    let mut renderer = Renderer::new(style(false));
    let mut public = of_act("a", "/k.pub");
    public["ssh_keywatch"]["key"] = json!({"kind": "public", "type": "ssh-rsa"});
    let first = renderer.render(&of_act("a", "/k"));
    assert!(
        !first.starts_with('\n') && !first.ends_with("\n\n"),
        "{first:?}"
    );
    let joined = "\
2026-11-24 04:15:47.123 +00:00  HIGH      SSH key made with ssh-keygen  (same act)
    file      /k.pub  (creation)
    key       public  (ssh-rsa)
";
    assert_eq!(renderer.render(&public), joined);
    // Another act, or none, begins a block of its own.
    assert!(renderer.render(&of_act("b", "/l")).starts_with("\n2026"));
    assert!(renderer.render(&sample()).starts_with("\n2026"));
    let second = renderer.render(&sample());
    assert!(
        second.starts_with("\n2026") && second.contains("program"),
        "{second}"
    );
}

#[test]
fn a_block_ends_with_a_word_in_between_and_never_hides_what_became_unknown() {
    let mut renderer = Renderer::new(style(false));
    let state = json!({"event": {"kind": "state", "action": "reload"}});
    let state = state.as_object().unwrap();
    assert!(renderer.render(state).starts_with("(no time)"));
    assert!(renderer.render(&of_act("a", "/k")).starts_with("\n2026"));
    assert!(renderer.render(state).starts_with("\n(no time)"));
    assert!(renderer.render(state).starts_with("(no time)"));
    let whole = renderer.render(&of_act("a", "/l"));
    assert!(whole.contains("lineage"), "{whole}");

    let mut vague = of_act("a", "/m");
    vague.remove("user");
    vague["ssh_keywatch"]["attribution"] = json!({"method": "none", "certain": false});
    let text = renderer.render(&vague);
    assert!(text.contains("    user      unknown\n"), "{text}");
    assert!(text.contains("    proof     none"), "{text}");
    assert!(!text.contains("lineage"), "{text}");
}

#[test]
fn colour_only_when_told() {
    assert!(!render(&sample(), &style(false)).contains('\x1b'));
    let coloured = render(&sample(), &style(true));
    assert!(coloured.contains("\x1b[1m\x1b[31mHIGH"), "{coloured:?}");
}

/// Replaces every text in a document by an attack.
fn poison(value: &mut Value) {
    match value {
        Value::String(text) => {
            text.push_str("\x1b]52;c;eA==\x07\u{9b}2J\u{202e}\n2027 HIGH forged\r");
        }
        Value::Array(values) => values.iter_mut().for_each(poison),
        Value::Object(map) => map.values_mut().for_each(poison),
        _ => {}
    }
}

#[test]
fn strips_osc52_and_forged_lines_from_every_field() {
    for kind in ["alert", "state"] {
        let mut document = sample();
        document.values_mut().for_each(poison);
        document["event"]["kind"] = kind.into();
        document["ssh_keywatch"]["attribution"]["certain"] = false.into();
        let text = render(&document, &style(false));
        assert!(
            text.contains("52;c;eA=="),
            "the attack is shown, not obeyed: {text}"
        );
        for line in text.lines() {
            assert!(!line.contains(is_unsafe), "{line:?}");
            assert!(!line.starts_with("2027"), "{line:?}");
        }
    }
}

#[test]
fn json_mode_writes_the_very_line() {
    let mut out = Vec::new();
    let line = Line::new(sample());
    Terminal::new(&mut out, Format::Json, style(true))
        .write(&line)
        .unwrap();
    assert_eq!(out, format!("{}\n", line.json).into_bytes());
}

#[test]
fn what_is_wrong_with_a_key_stands_behind_it() {
    let mut document = sample();
    document["file"]["mode"] = "0644".into();
    document["ssh_keywatch"]["key"] = json!({
        "kind": "private", "type": "ssh-rsa", "encrypted": true, "cipher": "aes256-ctr",
        "kdf": {"name": "bcrypt"}, "permissions": "refused", "damage": "truncated",
        "belongs_to": {"path": "/root/.ssh/id.pub", "state": "different"},
        "authorized_in": ["/root/.ssh/authorized_keys"]
    });
    let text = render(&document, &style(false));
    assert!(
        text.contains(
            "    key       private  (ssh-rsa)  with passphrase (aes256-ctr, bcrypt)  \
             [ssh refuses it: 0644 is too open]  [/root/.ssh/id.pub is another key's]  [truncated]\n\
             \x20   logs in   by /root/.ssh/authorized_keys\n"
        ),
        "{text}"
    );
}

#[test]
fn a_list_shows_what_it_gained_and_a_certificate_whom_it_is_for() {
    let mut document = sample();
    document["ssh_keywatch"]["key"] = json!({
        "kind": "authorized_keys", "entries": 3, "added_count": 2,
        "added": [{"bits": 256, "fingerprint": "SHA256:a", "type": "ssh-ed25519",
            "options": ["restrict", "pty"]}]
    });
    let text = render(&document, &style(false));
    assert!(
        text.contains(
            "    key       authorized keys  3 keys\n    \
             added     256 SHA256:a (ssh-ed25519) options restrict,pty\n    \
             added     and 1 more\n"
        ),
        "{text}"
    );
    document["ssh_keywatch"]["key"] = json!({
        "kind": "certificate",
        "certificate": {"type": "user", "key_id": "ann's key", "serial": "7",
            "options": ["force-command=/x"], "authority": {"fingerprint": "SHA256:ca"}}
    });
    let text = render(&document, &style(false));
    assert!(
        text.contains(
            "    cert      user 'ann'\\''s key' serial 7  for anybody  for ever  \
             force-command=/x  signed by SHA256:ca\n"
        ),
        "{text}"
    );
}

#[test]
fn a_building_block_is_for_json_and_for_who_asks() {
    let mut document = sample();
    document["ssh_keywatch"]["rule"] = json!({"building_block": true});
    let line = Line::new(document);
    for (format, asked, written) in [
        (Format::Text, false, false),
        (Format::Text, true, true),
        (Format::Json, false, true),
    ] {
        let mut out = Vec::new();
        let terminal = Terminal::new(&mut out, format, style(false));
        let mut terminal = terminal.with_building_blocks(asked);
        terminal.write(&line).unwrap();
        assert_eq!(!out.is_empty(), written, "{format:?} {asked}");
    }
}
