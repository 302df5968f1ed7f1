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
        (
            r#"event.action == "opened-file""#,
            "event.action",
            vec!["opened-file"],
        ),
        (
            r#"event.action in ("opened-file", "wrote-to-file")"#,
            "event.action",
            vec!["opened-file", "wrote-to-file"],
        ),
        (r#""denied" == event.type"#, "event.type", vec!["denied"]),
        (r#"host.os.type : "WIN*""#, "host.os.type", vec!["WIN*"]),
        (r#"event.outcome != "success""#, "event.outcome", vec![]),
        (
            r#"event.action != "rename" and not event.action in~ ("CREATION", "modification", "deletion", "flood")"#,
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
        r#"event.action == "open""#,
        r#"event.type == "access""#,
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
        let set = builtin();
        let inert = set.inert(&[directory]);
        assert!(!inert.iter().any(|inert| inert.rule.id == SEED));
    }
    let elsewhere = builtin();
    let elsewhere = elsewhere.inert(&["/srv"]);
    assert!(elsewhere.iter().any(|inert| inert.rule.id == SEED));
}

/// The directories that rules with these queries would have watched, and why
/// not others.
fn roots(queries: &[&str], watched: &[&str]) -> (Vec<String>, Vec<String>) {
    let files: Vec<_> = queries
        .iter()
        .enumerate()
        .map(|(index, query)| {
            let text = file(&format!("'''{query}'''")).replace("\"id\"", &format!("\"{index}\""));
            (format!("{index:04}.toml"), text)
        })
        .collect();
    let files: Vec<_> = files
        .iter()
        .map(|(name, text)| (name.as_str(), text.as_str()))
        .collect();
    let set = load(&directory(&files)).unwrap();
    let roots = set.roots(watched);
    let refused = roots
        .refused
        .iter()
        .map(|(_, pattern, why)| format!("{pattern}: {why}"));
    (roots.directories.clone(), refused.collect())
}

#[test]
fn directories_are_derived_from_the_paths_of_rules() {
    let paths = r#"file where file.path : ("/etc/cron.d/*", "/home/*/.config/autostart/*.desktop", "/usr/lib/*/x*",
        "/etc/ssh/*", "/home/*/.ssh/*", "/etc/crontab", "/home/*/x", "*.service", "/a/../b/c", "/a/b[c]/d")
        and not file.path : "/var/lib/dpkg/*""#;
    let (directories, refused) = roots(&[paths], &["/home/*/.ssh", "/etc/ssh"]);
    assert_eq!(
        directories,
        ["/etc/cron.d", "/home/*/.config/autostart", "/usr/lib"]
    );
    assert_eq!(
        refused,
        [
            "/etc/crontab: it is too broad",
            "/home/*/x: it is too broad",
            "*.service: it does not begin at the root",
            "/a/../b/c: it is no plain path",
            "/a/b[c]/d: it has brackets or backslashes",
        ]
    );
}

#[test]
fn directories_within_others_are_not_derived_twice() {
    let deep = r#"file where file.path == "/usr/lib/systemd/system/x.service""#;
    let broad = r#"file where file.path : "/usr/lib/*""#;
    let never = r#"file where event.action == "opened-file" and file.path : "/srv/a/*""#;
    for queries in [[deep, broad, never], [never, broad, deep]] {
        assert_eq!(roots(&queries, &[]), (vec!["/usr/lib".to_owned()], vec![]));
    }
    assert_eq!(roots(&[deep], &["/usr/lib/"]), (vec![], vec![]));
    assert_eq!(roots(&[deep], &["/usr/li"]).0, ["/usr/lib/systemd/system"]);
}

#[test]
fn the_number_of_derived_directories_is_bounded() {
    let queries: Vec<_> = (0..MAX_ROOTS + 2)
        .map(|index| format!("file where file.path : \"/srv/d{index}/*\""))
        .collect();
    let queries: Vec<_> = queries.iter().map(String::as_str).collect();
    let (directories, refused) = roots(&queries, &[]);
    assert_eq!((directories.len(), refused.len()), (MAX_ROOTS, 2));
}

#[test]
fn opens_are_asked_for_by_rules_that_name_them_where_their_paths_lie() {
    for (condition, home, root) in [
        (r#"event.action == "open""#, true, true),
        (
            r#"event.action in ("open", "opened-file") and file.path : "/home/*/.ssh/id_*""#,
            true,
            false,
        ),
        (
            r#"event.type == "access" and file.path == "/root/.ssh/id_rsa""#,
            false,
            true,
        ),
        (r#"event.action : "OPEN*" or file.name == "x""#, true, true),
        // Not named, excluded, or impossible together with what is named.
        (r#"file.path : "/root/.ssh/*""#, false, false),
        (r#"event.action != "creation""#, false, false),
        (r#"not event.action == "open""#, false, false),
        (
            r#"event.action == "open" and event.type == "creation""#,
            false,
            false,
        ),
        (r#"event.action == "opened-file""#, false, false),
    ] {
        let query = format!("'''file where {condition}'''");
        let set = load(&directory(&[("r.toml", &file(&query))])).unwrap();
        let asked = set.asked_opens();
        assert_eq!(asked.is_empty(), !(home || root), "{condition}");
        for (directory, expected) in [("/home/a/.ssh", home), ("/root/.ssh/", root)] {
            let below = asked.below(Path::new(directory));
            assert_eq!(below, expected, "{condition} in {directory}");
        }
    }
}

#[test]
fn a_rule_that_does_not_name_opens_is_not_asked_about_one_that_another_wants() {
    let open = json!({
        "event": {"category": ["file"], "type": ["access"], "action": "open"},
        "file": {"path": "/root/.ssh/id"},
    });
    let texts = [
        file(r#""""file where file.path : "/root/*" """"#),
        file(r#""""file where event.action == "open" """"#).replace("\"id\"", "\"opens\""),
    ];
    let set = load(&directory(&[("a.toml", &texts[0]), ("b.toml", &texts[1])])).unwrap();
    assert_eq!(ids(&set.decide_open(&open, today())), ["opens"]);
    // Recorded ones are decided as Elasticsearch decides.
    assert_eq!(ids(&set.decide(&open, today())), ["id", "opens"]);
}
