//! The README's quickstart, done as it is written.

use std::path::Path;

use crate::machine::Machine;
use crate::root::package;

/// The blocks of shell commands in a section.
fn blocks(section: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = std::fs::read_to_string(path).unwrap();
    let after = text.split(&format!("\n## {section}\n")).nth(1).unwrap();
    let within = after.split("\n## ").next().unwrap();
    within
        .split("```sh\n")
        .skip(1)
        .map(|block| block.split("```").next().unwrap().to_owned())
        .collect()
}

#[test]
fn the_quickstart_works_as_it_is_written() {
    let [install, see, quieten] = &*blocks("Quickstart for administrators") else {
        panic!(
            "the quickstart has changed: {:#?}",
            blocks("Quickstart for administrators")
        );
    };
    let host = Machine::boot();
    // Built outside, where there is a compiler; all else is as it stands there.
    let (build, install) = install.split_once('\n').unwrap();
    assert_eq!(build, "packaging/build-deb");
    let built = package(None);
    let place = host.path("/root/target/debian");
    std::fs::create_dir_all(&place).unwrap();
    std::fs::copy(&built, place.join(built.file_name().unwrap())).unwrap();
    host.sh(&format!("cd /root\n{install}")).ok();
    let (make, look) = see.split_once('\n').unwrap();
    host.sh(make).ok();
    host.alert("/root/.ssh/trial.pub");
    let seen = host.sh(look).text();
    assert!(seen.contains("/root/.ssh/trial"), "{seen}");
    // `replay` that finds no alert ends with 1, as grep does.
    let quiet = host.sh(&format!("set +e\n{quieten}")).ok();
    assert!(quiet.stdout.contains("config.toml is valid"), "{quiet:#?}");
    assert!(
        !quiet.stdout.contains("/root/.ssh/trial"),
        "still an alert: {quiet:#?}"
    );
    host.wait("reload", || !host.states("reload").is_empty());
    host.sh("ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/trial2")
        .ok();
    host.sh("ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/other")
        .ok();
    host.alert("/root/.ssh/other");
    let told = host.log();
    assert!(
        !told.iter().any(|line| line["file"]["name"] == "trial2"),
        "it is not quiet"
    );
}
