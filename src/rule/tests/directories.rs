//! Directories of rules: which file speaks, and which is no rule.

use super::*;

#[test]
fn the_binary_carries_every_shipped_rule() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/rules");
    let files = |directory: &Path| {
        let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
        let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
        let mut names: Vec<_> = files
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    let names = |files: &[(&'static str, &str)]| {
        let names: Vec<_> = files.iter().map(|(name, _)| *name).collect();
        names
    };
    assert_eq!(names(shipped::RULES), files(&directory));
    assert_eq!(names(shipped::CASES), files(&directory.join("tests")));

    let installed = RuleSet::load(&[directory], false).unwrap();
    assert_eq!(installed.rules().len(), builtin().rules().len());
}

#[test]
fn every_shipped_rule_holds_also_one_that_is_switched_off() {
    for ((name, text), (_, cases)) in shipped::RULES.iter().zip(shipped::CASES) {
        let path = Path::new(name);
        let text = text.replace("enabled = false\n", "");
        let set = RuleSet::from_texts(&[(path, &text)], Fields::Known).unwrap();
        let rule = set.rules().next().unwrap();
        let cases = [parse_cases(path, cases).unwrap()];
        let trial = set.try_cases(rule, &cases);
        assert_eq!(trial.failed, [], "{name}");
        assert!(trial.caught > 0 && trial.left > 0, "{name}: {trial:?}");
        // What an analyst needs of each.
        assert!(!rule.threat.is_empty(), "{name}");
        assert!(!rule.false_positives.is_empty(), "{name}");
        assert!(
            rule.note.as_ref().is_some_and(|note| !note.is_empty()),
            "{name}"
        );
        assert_eq!(rule.risk_score, rule.severity.number(), "{name}");
        assert_eq!(
            set.inert(&["/root/.ssh", "/home/a/.ssh", "/etc/ssh"]),
            [],
            "{name}"
        );
    }
}

#[test]
fn shipped_rules_leave_known_hosts_alone() {
    let set = builtin();
    for name in ["known_hosts", "known_hosts.old", "known_hosts.Xy12ab34cd"] {
        for action in ["creation", "rename", "modification", "deletion"] {
            let mut document = keygen();
            document["event"]["action"] = json!(action);
            document["process"]["executable"] = json!("/usr/bin/ssh");
            document["file"] = json!({"path": format!("/root/.ssh/{name}"), "name": name});
            document["ssh_keywatch"]["key"] =
                json!({"kind": "known_hosts", "added_count": 1, "removed_count": 0});
            let decision = set.decide(&document, today());
            assert_eq!(ids(&decision), Vec::<String>::new(), "{action} {name}");
        }
    }
}

#[test]
fn a_later_directory_overrides_by_rule_id() {
    let text = |id: &str, name: &str, more: &str| {
        file("'file where true'")
            .replace("\"id\"", &format!("\"{id}\""))
            .replace("\"N\"", &format!("\"{name}\""))
            + more
    };
    let first = directory(&[
        ("a.toml", &text("a", "first a", "")),
        ("b.toml", &text("b", "first b", "")),
        ("c.toml", &text("c", "first c", "")),
    ]);
    let second = directory(&[
        ("z.toml", &text("a", "second a", "")),
        ("y.toml", &text("b", "second b", "enabled = false\n")),
    ]);
    let directories = [first.path().to_owned(), second.path().to_owned()];
    let set = RuleSet::load(&directories, false).unwrap();
    let names: Vec<_> = set.rules().map(|rule| rule.name.as_str()).collect();
    assert_eq!(names, ["first c", "second a"]);
    let standings: Vec<_> = set
        .entries()
        .iter()
        .map(|entry| (entry.name.as_str(), &entry.standing))
        .collect();
    let (y, z) = (second.path().join("y.toml"), second.path().join("z.toml"));
    assert_eq!(
        standings,
        [
            ("first a", &Standing::Overridden(z)),
            ("first b", &Standing::Overridden(y)),
            ("first c", &Standing::Active),
            ("second b", &Standing::Disabled),
            ("second a", &Standing::Active),
        ]
    );
}

#[test]
fn two_files_of_a_directory_cannot_share_a_rule_id() {
    let text = file("'file where true'");
    let directory = directory(&[("a.toml", &text), ("b/c.toml", &text)]);
    let errors = load(&directory).unwrap_err();
    let root = directory.path().display();
    assert_eq!(
        errors[0].to_string(),
        format!(
            "\
error: the rule_id id is taken
 --> {root}/b/c.toml:2:11
  |
2 | rule_id = \"id\"
  |           ^^^^
  |
  = help: {root}/a.toml has it too"
        )
    );
    assert_eq!(errors.len(), 1);
}

#[test]
fn only_visible_toml_files_are_rules() {
    let directory = directory(&[
        ("good.toml", &file("'file where true'")),
        (".good.toml.swp", "garbage"),
        (".hidden.toml", "garbage"),
        ("good.toml.dpkg-old", "garbage"),
        ("README", "garbage"),
        (".git/x.toml", "garbage"),
    ]);
    std::os::unix::fs::symlink(directory.path(), directory.path().join("loop")).unwrap();
    assert_eq!(load(&directory).unwrap().entries().len(), 1);
}

#[test]
fn files_that_cannot_be_rules_are_told() {
    let directory = directory(&[]);
    fs::write(directory.path().join("binary.toml"), b"\xff").unwrap();
    fs::write(
        directory.path().join("large.toml"),
        vec![b'#'; (1 << 20) + 1],
    )
    .unwrap();
    std::os::unix::fs::symlink("/dev/zero", directory.path().join("zero.toml")).unwrap();
    let errors = load(&directory).unwrap_err();
    let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
    let root = directory.path().display();
    assert_eq!(
        texts,
        [
            format!("{root}/binary.toml is no rule file: it is not UTF-8 text"),
            format!("{root}/large.toml is no rule file: it is not a regular file of at most 1 MiB"),
            format!("{root}/zero.toml is no rule file: it is not a regular file of at most 1 MiB"),
        ]
    );
}

#[test]
fn a_named_directory_must_exist() {
    let directory = directory(&[]);
    let missing = directory.path().join("missing");
    let errors = RuleSet::load(std::slice::from_ref(&missing), true).unwrap_err();
    assert_eq!(
        errors[0].to_string(),
        format!(
            "cannot read rules from {}: No such file or directory (os error 2)",
            missing.display()
        )
    );
}
