//! What the modules' tests share, the seed rule, and the schema.

mod directories;
mod exceptions;
mod files;
mod inert;
mod limits;
mod together;

use std::fs;
use std::path::Path;

use jiff::civil::date;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

const SEED: &str = "7df3cb8b-5c0c-4228-b772-bb6cd619053c";

fn today() -> Date {
    date(2027, 3, 31)
}

/// A directory with these files.
fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    directory
}

fn load(directory: &TempDir) -> Result<RuleSet, Vec<Error>> {
    RuleSet::load(&[directory.path().to_owned()], false)
}

/// A rule file with this query, spelled as in TOML.
fn file(query: &str) -> String {
    format!(
        "[rule]\nrule_id = \"id\"\nname = \"N\"\ntype = \"eql\"\nseverity = \"low\"\nquery = {query}\n"
    )
}

fn builtin() -> RuleSet {
    RuleSet::load(&config::Rules::default().directories, true).unwrap()
}

fn ids(decision: &Decision<'_>) -> Vec<String> {
    let ids = decision.matches.iter().map(|rule| rule.id.clone());
    ids.collect()
}

/// What ssh-keygen's making of a key looks like to a rule.
fn keygen() -> Value {
    json!({
        "event": {"category": ["file"], "type": ["creation"], "action": "creation"},
        "host": {"os": {"type": "linux"}},
        "file": {"path": "/home/a/.ssh/id_ed25519", "name": "id_ed25519"},
        "process": {"executable": "/usr/bin/ssh-keygen", "name": "ssh-keygen", "pid": 7},
        "user": {"name": "a"}
    })
}

fn changed(pointer: &str, value: Value) -> Value {
    let mut document = keygen();
    *document.pointer_mut(pointer).unwrap() = value;
    document
}

#[test]
fn the_seed_rule_catches_and_leaves_alone() {
    let set = builtin();
    let known_hosts = {
        let mut document = changed("/file/path", json!("/home/a/.ssh/known_hosts.Xy12ab34cd"));
        document["file"]["name"] = json!("known_hosts.Xy12ab34cd");
        document
    };
    let unattributed = {
        let mut document = keygen();
        document.as_object_mut().unwrap().remove("process");
        document
    };
    for (what, document, expected) in [
        ("a user's key", keygen(), true),
        (
            "root's key",
            changed("/file/path", json!("/root/.ssh/id_rsa")),
            true,
        ),
        (
            "a host key",
            changed("/file/path", json!("/etc/ssh/ssh_host_rsa_key.Ab")),
            true,
        ),
        (
            "below a subdirectory",
            changed("/file/path", json!("/home/a/b/.ssh/c/d")),
            true,
        ),
        (
            "Endgame's word",
            changed("/event/action", json!("file_create_event")),
            true,
        ),
        (
            "a list of actions",
            changed("/event/action", json!(["creation"])),
            true,
        ),
        ("a temporary known_hosts", known_hosts, false),
        (
            "cp",
            changed("/process/executable", json!("/usr/bin/cp")),
            false,
        ),
        (
            "another ssh-keygen",
            changed("/process/executable", json!("/tmp/ssh-keygen")),
            false,
        ),
        (
            "another case",
            changed("/process/executable", json!("/usr/bin/SSH-KEYGEN")),
            false,
        ),
        ("a rename", changed("/event/action", json!("rename")), false),
        (
            "a modification",
            changed("/event/action", json!("modification")),
            false,
        ),
        (
            "elsewhere",
            changed("/file/path", json!("/srv/keys/id_rsa")),
            false,
        ),
        (
            "no file event",
            changed("/event/category", json!(["process"])),
            false,
        ),
        (
            "another system",
            changed("/host/os/type", json!("macos")),
            false,
        ),
        ("nobody known", unattributed, false),
    ] {
        let decision = set.decide(&document, today());
        assert_eq!(!decision.matches.is_empty(), expected, "{what}");
    }
}

#[test]
fn the_seed_rule_says_what_it_is() {
    let set = builtin();
    let rule = set.rules().find(|rule| rule.id == SEED).unwrap();
    assert_eq!(rule.name, "SSH Key Generated via ssh-keygen");
    assert_eq!((rule.severity, rule.risk_score), (Severity::Low, 21));
    assert_eq!(rule.ruleset, "ssh-keywatch");
    let threat: Vec<_> = rule
        .threat
        .iter()
        .map(|threat| {
            let techniques: Vec<_> = threat
                .techniques
                .iter()
                .map(|entry| (&*entry.technique.id, &*entry.subtechniques[0].id))
                .collect();
            (&*threat.tactic.id, techniques)
        })
        .collect();
    assert_eq!(
        threat,
        [
            ("TA0003", vec![("T1098", "T1098.004")]),
            (
                "TA0008",
                vec![("T1021", "T1021.004"), ("T1563", "T1563.001")]
            ),
        ]
    );
}

#[test]
fn the_schema_knows_what_documents_carry() {
    for known in [
        "@timestamp",
        "file.path",
        "process.parent.executable",
        "process.command_line.text",
        "file.Ext.original.path",
        "file.Ext.header_bytes",
        "process.parent.Ext.real.pid",
        "ssh_keywatch.ancestors.executable",
        "ssh_keywatch.attribution.certain",
        "labels.ticket",
    ] {
        assert!(knows_field(known), "{known}");
    }
    for (unknown, near) in [
        ("file.pth", Some("file.path")),
        ("file.Ext.original.pat", Some("file.Ext.original.path")),
        (
            "ssh_keywatch.attribution.certan",
            Some("ssh_keywatch.attribution.certain"),
        ),
        ("process", Some("process.pid")),
        ("zzz.Ext.x", None),
        ("aws.cloudtrail.x", None),
    ] {
        assert!(!knows_field(unknown), "{unknown}");
        assert_eq!(
            nearest_field(unknown).is_some(),
            near.is_some(),
            "{unknown}"
        );
        if unknown != "process" {
            assert_eq!(nearest_field(unknown), near);
        }
    }
}

#[test]
fn severities_have_elastics_numbers() {
    for (word, number) in [("low", 21), ("medium", 47), ("high", 73), ("critical", 99)] {
        let severity = Severity::from_word(word).unwrap();
        assert_eq!(
            (severity.number(), severity.to_string().as_str()),
            (number, word)
        );
        assert_eq!(Severity::from_number(u64::from(number)), Some(severity));
    }
    assert_eq!(Severity::from_word("Low"), None);
    assert_eq!(Severity::from_number(22), None);
}

#[test]
fn a_set_may_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<RuleSet>();
}
