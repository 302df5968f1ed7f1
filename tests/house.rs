//! The rules of the house that no compiler keeps: which part may import which,
//! and documents that must agree with the code.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on panics and says where"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each part and the parts that it may import (ARCHITECTURE.md).
const IMPORTS: &[(&str, &[&str])] = &[
    ("sys", &[]),
    ("text", &[]),
    ("exit", &[]),
    ("queue", &[]),
    ("watch", &["queue", "sys"]),
    ("event", &["sys", "watch"]),
    ("proctable", &["sys"]),
    ("resolve", &["sys", "watch", "proctable"]),
    ("key", &["text"]),
    ("baseline", &["key"]),
    ("inventory", &["key", "watch"]),
    ("eql", &[]),
    ("config", &["text"]),
    ("rule", &["config", "eql"]),
    (
        "alert",
        &["event", "key", "resolve", "rule", "eql", "config", "text"],
    ),
    ("sink", &["queue", "sys", "text"]),
    (
        "daemon",
        &[
            "alert",
            "baseline",
            "config",
            "event",
            "exit",
            "key",
            "proctable",
            "queue",
            "resolve",
            "rule",
            "sink",
            "sys",
            "text",
            "watch",
        ],
    ),
    (
        "cli",
        &[
            "alert",
            "baseline",
            "config",
            "daemon",
            "eql",
            "exit",
            "inventory",
            "key",
            "rule",
            "sink",
            "sys",
            "text",
        ],
    ),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The part that a source file belongs to.
fn part(path: &Path) -> String {
    let below = path.strip_prefix(root().join("src")).unwrap();
    let first = below.components().next().unwrap().as_os_str();
    first.to_str().unwrap().trim_end_matches(".rs").to_owned()
}

#[test]
fn imports_point_against_the_arrow() {
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for path in sources(&root().join("src")) {
        let own = part(&path);
        if own == "lib" || own == "main" {
            continue;
        }
        let (_, allowed) = IMPORTS
            .iter()
            .find(|(name, _)| *name == own)
            .unwrap_or_else(|| panic!("src/{own} is not in the table of imports"));
        seen.insert(own.clone());
        let text = fs::read_to_string(&path).unwrap();
        // Comments may speak of everything.
        let code = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        for line in code {
            for used in line.split("crate::").skip(1) {
                let used: String = used
                    .chars()
                    .take_while(|c| c.is_ascii_lowercase() || *c == '_')
                    .collect();
                let is_part = IMPORTS.iter().any(|(name, _)| *name == used);
                if is_part && used != own && !allowed.contains(&used.as_str()) {
                    wrong.push(format!("{}: {own} imports {used}", path.display()));
                }
            }
        }
    }
    assert_eq!(seen.len(), IMPORTS.len(), "{seen:?}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_code_has_one_room() {
    for path in sources(&root().join("src")) {
        let text = fs::read_to_string(&path).unwrap();
        let code = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        let has = code
            .filter(|line| line.contains("allow(unsafe_code)") || line.contains("unsafe {"))
            .count();
        assert!(has == 0 || part(&path) == "sys", "{}", path.display());
    }
}

#[test]
fn the_architecture_names_every_part_and_every_dependency() {
    let text = read("ARCHITECTURE.md");
    for (part, _) in IMPORTS.iter().filter(|(part, _)| *part != "exit") {
        assert!(
            text.contains(&format!("`{part}/`")) || text.contains(&format!("`{part}`")),
            "ARCHITECTURE.md does not say what {part} owns"
        );
    }
    let table = text.split("## Dependencies").nth(1).unwrap();
    let manifest = read("Cargo.toml");
    let dependencies = manifest.split("[dependencies]").nth(1).unwrap();
    for line in dependencies
        .lines()
        .take_while(|line| !line.starts_with('['))
    {
        let Some((name, _)) = line.split_once(" = ") else {
            continue;
        };
        let named = table
            .split(|c: char| !(c.is_alphanumeric() || c == '-' || c == '_'))
            .any(|word| word == name);
        assert!(named, "ARCHITECTURE.md does not say what {name} is for");
    }
}

#[test]
fn the_changelog_begins_with_this_version() {
    let text = read("CHANGELOG.md");
    let heading = text.lines().find(|line| line.starts_with("## ")).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    assert!(
        heading.starts_with(&format!("## {version}")),
        "CHANGELOG.md begins with {heading:?}, Cargo.toml says {version}"
    );
}

/// A child would keep the permission group open, and everybody waiting.
#[test]
fn nothing_starts_a_process() {
    for path in sources(&root().join("src")) {
        let text = fs::read_to_string(&path).unwrap();
        let is_test =
            path.components().any(|part| part.as_os_str() == "tests") || path.ends_with("tests.rs");
        // Unit tests stand at the end of a file.
        let code = text.split("#[cfg(test)]").next().unwrap();
        let starts = [
            "Command::new",
            "Command as",
            "fork(",
            "posix_spawn",
            "daemon(",
        ];
        for call in starts.iter().filter(|_| !is_test) {
            let used = code
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
                .any(|line| line.contains(call) && !line.contains("fn "));
            let allowed = match *call {
                "fork(" => path.ends_with("proctable/table.rs"),
                // Before there is a group.
                "Command::new" => path.ends_with("daemon/baseline/probe.rs"),
                "Command as" => path.ends_with("daemon/selftest.rs"),
                _ => false,
            };
            assert!(!used || allowed, "{} calls {call}", path.display());
        }
    }
}

/// The test that a document calls `name` stands in one of these files.
fn places(name: &str) -> (Vec<String>, &str) {
    let (module, function) = name.rsplit_once("::").unwrap_or_else(|| panic!("{name}"));
    let path = module.replace("::", "/");
    let places = match module.split("::").next() {
        Some("house" | "fuzz" | "package") => vec![format!("tests/{path}.rs")],
        // Beside the code: at the end of a file, or in one of its own.
        Some("src") => {
            let inline = path.trim_end_matches("/tests");
            vec![
                format!("{path}.rs"),
                format!("{path}/mod.rs"),
                format!("{inline}.rs"),
                format!("{inline}/mod.rs"),
            ]
        }
        _ => vec![format!("tests/it/{path}.rs")],
    };
    (places, function)
}

/// Each row of the tables in `document` names, in its last column, tests that exist, or
/// says why there is none. Returns how many rows there are.
fn rows_that_name_tests(document: &str, heading: &str) -> usize {
    let text = read(document);
    let mut seen = 0;
    let mut in_table = false;
    for row in text.lines() {
        in_table &= row.starts_with('|');
        let Some(row) = row.strip_prefix("| ") else {
            continue;
        };
        let column = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        if column == heading {
            in_table = true;
            continue;
        }
        if !in_table {
            continue;
        }
        let mut named = 0;
        for name in column.split('`').skip(1).step_by(2) {
            let (places, function) = places(name);
            let is_there = |place: &String| {
                let text = fs::read_to_string(root().join(place)).unwrap_or_default();
                // As a module's test it is indented.
                let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
                let declared = format!("fn {function}()");
                lines
                    .windows(2)
                    .any(|lines| lines[0] == "#[test]" && lines[1].starts_with(&declared))
            };
            assert!(
                places.iter().any(is_there),
                "{document} names {name}, which is no test"
            );
            named += 1;
        }
        assert!(
            named > 0 || column.starts_with("none: "),
            "{document}: neither a test nor a reason why there is none: {row}"
        );
        seen += 1;
    }
    seen
}

#[test]
fn the_hazards_name_tests_that_exist() {
    let seen = rows_that_name_tests("docs/hazards.md", "test");
    assert!(seen > 20, "the tables of docs/hazards.md are not read");
}

#[test]
fn every_promise_names_tests_that_exist() {
    let seen = rows_that_name_tests("SECURITY.md", "test");
    assert!(seen > 15, "the table of SECURITY.md is not read");
}
