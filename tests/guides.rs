//! The page of each shipped rule, to which its alerts lead (`rule.reference`).
//!
//! `docs/guides/NAME.md` is made of `packaging/rules/NAME.toml`, in which the
//! steps stand; `SSH_KEYWATCH_REWRITE=1 cargo test --test guides` writes the
//! pages anew.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on panics and says where"
)]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use ssh_keywatch::rule::{Fields, Rule, RuleSet};

/// Where the package puts the pages. Not below /usr/share/doc, which is left
/// out of small images, and where debhelper compresses what is long.
const INSTALLED: &str = "file:///usr/share/ssh-keywatch/guides/";

fn place(below: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(below)
}

/// The stems of the files in a directory that have an extension.
fn stems(directory: &str, extension: &str) -> BTreeSet<String> {
    let files = fs::read_dir(place(directory)).unwrap();
    let paths = files.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect()
}

/// The page as `rules show` tells it, in Markdown.
fn page(rule: &Rule) -> String {
    let mut out = format!("# {}\n\n{}\n", rule.name, rule.description.trim());
    let note = rule.note.as_deref().unwrap().trim();
    if !note.starts_with("## ") {
        out.push_str("\n## What to do\n");
    }
    let _ = writeln!(out, "\n{note}");
    let list = |out: &mut String, heading: &str, items: &[String]| {
        let _ = writeln!(out, "\n## {heading}\n");
        for item in items {
            let _ = writeln!(out, "- {item}");
        }
    };
    list(&mut out, "Harmless causes", &rule.false_positives);
    list(&mut out, "Read on", &rule.references[1..]);
    let id = &rule.id;
    let _ = write!(
        out,
        "\nAll of the rule: `ssh-keywatch rules show {id}`. What it should no longer tell: an\n\
         `[[exception]]` in `/etc/ssh-keywatch/config.toml`, ssh-keywatch.toml(5).\n"
    );
    out
}

#[test]
fn each_shipped_rule_leads_to_its_page() {
    let names = stems("packaging/rules", "toml");
    assert!(names.len() > 10, "{names:?}");
    let rewrite = std::env::var_os("SSH_KEYWATCH_REWRITE").is_some();
    for name in &names {
        let file = place(&format!("packaging/rules/{name}.toml"));
        let text = fs::read_to_string(&file).unwrap();
        // One that is off has a page, too: somebody may switch it on.
        let text = text.replace("\nenabled = false", "");
        let set = RuleSet::from_texts(&[(&file, &text)], Fields::Known).unwrap();
        let rule = set.rules().next().unwrap_or_else(|| panic!("{name}"));
        let page_file = place(&format!("docs/guides/{name}.md"));
        assert_eq!(
            rule.references[0],
            format!("{INSTALLED}{name}.md"),
            "{name}"
        );
        assert!(rule.references.len() > 1, "{name}");
        let wanted = page(rule);
        if rewrite {
            fs::write(&page_file, &wanted).unwrap();
        }
        let there = fs::read_to_string(&page_file).unwrap_or_default();
        assert!(
            there == wanted,
            "{} is out of date; SSH_KEYWATCH_REWRITE=1 cargo test --test guides writes it anew",
            page_file.display()
        );
    }
    assert_eq!(stems("docs/guides", "md"), names, "a page without a rule");
}
