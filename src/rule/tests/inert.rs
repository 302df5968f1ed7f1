//! Which rules can match nothing, and why.

use super::*;

/// The field and the values that a rule with this query would need, if it is
/// inert where these directories are watched.
fn inert(query: &str, directories: &[&str]) -> Option<(String, Vec<String>)> {
    let query = format!("'''{query}'''");
    let set = load(&directory(&[("r.toml", &file(&query))])).unwrap();
    let inert = set.inert(directories).pop()?;
    assert_eq!(inert.rule.id, "id");
    Some((inert.field.to_owned(), inert.needs))
}

#[test]
fn a_rule_for_other_places_is_inert() {
    let cron =
        r#"file where file.path : ("/etc/cron.d/*", "/etc/crontab") and not file.path : "/etc/x""#;
    let home = r#"file where file.path : "/home/*/.ssh/x""#;
    let needs = |texts: &[&str]| {
        let texts = texts.iter().map(ToString::to_string).collect();
        Some(("file.path".to_owned(), texts))
    };
    assert_eq!(
        inert(cron, &["/root/.ssh"]),
        needs(&["/etc/cron.d/*", "/etc/crontab"])
    );
    assert_eq!(inert(cron, &["/root/.ssh", "/etc/cron.d/"]), None);
    assert_eq!(inert(home, &["/root/.ssh"]), needs(&["/home/*/.ssh/x"]));
    assert_eq!(inert(home, &["/root/.ssh", "/home/a/.ssh"]), None);
    assert_eq!(
        inert(
            r#"file where file.name == "authorized_keys""#,
            &["/root/.ssh"]
        ),
        None
    );
}

#[test]
fn a_rule_for_what_never_happens_is_inert() {
    for (condition, field, needs) in [
        (r#"event.action == "open""#, "event.action", vec!["open"]),
        (
            r#"event.action in ("opened-file", "wrote-to-file")"#,
            "event.action",
            vec!["opened-file", "wrote-to-file"],
        ),
        (r#""access" == event.type"#, "event.type", vec!["access"]),
        (r#"host.os.type : "WIN*""#, "host.os.type", vec!["WIN*"]),
        (r#"event.outcome != "success""#, "event.outcome", vec![]),
        (
            r#"event.action != "rename" and not event.action in~ ("CREATION", "modification", "deletion")"#,
            "event.action",
            vec![],
        ),
    ] {
        let query = format!("file where file.name == \"x\" and {condition}");
        let needs = needs.iter().map(ToString::to_string).collect();
        assert_eq!(
            inert(&query, &["/root/.ssh"]),
            Some((field.to_owned(), needs)),
            "{condition}"
        );
    }
}

#[test]
fn a_rule_that_could_match_is_not_inert() {
    for condition in [
        r#"event.action in ("open", "creation")"#,
        r#"event.action == "open" or file.name == "x""#,
        r#"not event.action == "open""#,
        r#"event.action regex "op.*""#,
        r#"event.action : "CREA*""#,
        r#"host.os.type == "linux" and event.outcome == "success""#,
        r#"not (event.action == "open" and file.name == "x")"#,
        r#"event.action == "creation" and event.type == "deletion""#,
    ] {
        let query = format!("file where {condition}");
        assert_eq!(inert(&query, &["/root/.ssh"]), None, "{condition}");
    }
}

#[test]
fn the_seed_rule_is_not_inert() {
    for directory in ["/root/.ssh", "/home/a/.ssh", "/etc/ssh"] {
        assert_eq!(builtin().inert(&[directory]), []);
    }
    assert_eq!(builtin().inert(&["/srv"]).len(), 1);
}
