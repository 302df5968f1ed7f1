//! The package as a file: what is in it, and how it was built.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::root::{must, package};

fn unpacked() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    must(
        Command::new("dpkg-deb")
            .arg("--extract")
            .args([&package(None), dir.path()]),
    );
    dir
}

#[test]
fn it_carries_the_licences_of_what_it_contains() {
    let package = unpacked();
    let file = package
        .path()
        .join("usr/share/doc/ssh-keywatch/crate-licences.gz");
    let text = must(Command::new("zcat").arg(file));
    for crate_name in [
        "clap",
        "nix",
        "notify",
        "procfs",
        "redb",
        "serde_json",
        "signal-hook",
    ] {
        let line = format!("{crate_name} ");
        assert!(
            text.lines().any(|it| it.starts_with(&line)),
            "{crate_name} is missing"
        );
    }
    for of_tests in ["proptest", "tempfile"] {
        assert!(!text.contains(&format!("\n{of_tests} ")), "{of_tests}");
    }
    assert!(text.contains("Permission is hereby granted"), "{text:.500}");
}

#[test]
fn it_holds_the_files_of_a_good_daemon_and_no_more() {
    let contents = must(
        Command::new("dpkg-deb")
            .arg("--contents")
            .arg(package(None)),
    );
    let mut files: Vec<&str> = contents
        .lines()
        .filter(|line| !line.starts_with('d'))
        .map(|line| line.split_whitespace().nth(5).unwrap())
        .collect();
    files.sort_unstable();
    for file in [
        "./etc/ssh-keywatch/config.toml",
        "./lib/systemd/system/ssh-keywatch.service",
        "./usr/bin/ssh-keywatch",
        "./usr/lib/systemd/catalog/ssh-keywatch.catalog",
        "./usr/share/bash-completion/completions/ssh-keywatch",
        "./usr/share/doc/ssh-keywatch/alert.md",
        "./usr/share/doc/ssh-keywatch/changelog.Debian.gz",
        "./usr/share/doc/ssh-keywatch/copyright",
        "./usr/share/doc/ssh-keywatch/crate-licences",
        "./usr/share/doc/ssh-keywatch/examples/exceptions.toml",
        "./usr/share/doc/ssh-keywatch/hazards.md",
        "./usr/share/doc/ssh-keywatch/rules.md",
        "./usr/share/doc/ssh-keywatch/tried.md",
        "./usr/share/doc/ssh-keywatch/examples/filebeat/ssh-keywatch.yml",
        "./usr/share/fish/vendor_completions.d/ssh-keywatch.fish",
        "./usr/share/man/man5/ssh-keywatch-rules.5.gz",
        "./usr/share/man/man5/ssh-keywatch.toml.5.gz",
        "./usr/share/man/man8/ssh-keywatch.8.gz",
        "./usr/share/ssh-keywatch/guides/ssh_key_generated_via_ssh_keygen.md",
        "./usr/share/ssh-keywatch/rules/ssh_key_generated_via_ssh_keygen.toml",
        "./usr/share/zsh/vendor-completions/_ssh-keywatch",
    ] {
        // A package that is built on a later Debian has its unit below /usr.
        let moved = file.replace("./lib/", "./usr/lib/");
        // What is longer than 4 KiB is packed (dh_compress(1)).
        let packed = format!("{file}.gz");
        assert!(
            [file, &moved, &packed]
                .iter()
                .any(|file| files.contains(file)),
            "{file}: {files:#?}"
        );
    }
    // The page that each rule's alerts lead to (tests/guides.rs).
    let below = |directory: &str, extension: &str| -> Vec<String> {
        let names = files.iter().filter_map(|file| file.strip_prefix(directory));
        let names = names.filter_map(|name| name.strip_suffix(extension));
        names
            .filter(|name| !name.contains('/'))
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(
        below("./usr/share/ssh-keywatch/guides/", ".md"),
        below("./usr/share/ssh-keywatch/rules/", ".toml")
    );
    assert!(contents.contains(" ./etc/ssh-keywatch/rules.d/\n"));
    for line in contents.lines() {
        assert!(line.contains(" root/root "), "{line}");
    }
    let field = |name| {
        must(
            Command::new("dpkg-deb")
                .arg("--field")
                .arg(package(None))
                .arg(name),
        )
    };
    assert_eq!(field("Package").trim(), "ssh-keywatch");
    assert_eq!(field("Section").trim(), "admin");
    assert!(
        field("Depends").contains("libc6 (>= "),
        "{}",
        field("Depends")
    );
    let info = |name| {
        must(
            Command::new("dpkg-deb")
                .arg("--info")
                .arg(package(None))
                .arg(name),
        )
    };
    assert_eq!(info("conffiles"), "/etc/ssh-keywatch/config.toml\n");
    assert!(info("md5sums").contains("usr/bin/ssh-keywatch\n"));
}

#[test]
fn what_its_documents_point_to_is_in_it() {
    let dir = unpacked();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents = vec![root.join("README.md"), root.join("packaging/config.toml")];
    let man = fs::read_dir(root.join("packaging/man")).unwrap();
    documents.extend(man.map(|page| page.unwrap().path()));
    let mut found = 0;
    for document in documents {
        let text = fs::read_to_string(&document).unwrap().replace('\\', "");
        for place in text.split("/usr/share/").skip(1) {
            let end = place.find(|c: char| !c.is_ascii_alphanumeric() && !"-_./".contains(c));
            let place = place[..end.unwrap_or(place.len())].trim_end_matches('.');
            if !place.contains("ssh-keywatch") {
                continue;
            }
            let there = dir.path().join("usr/share").join(place);
            assert!(there.exists(), "{place}, in {}", document.display());
            found += 1;
        }
    }
    assert!(found > 5, "{found}");
}

#[test]
fn it_is_small_and_hardened() {
    let size = |path: &Path| fs::metadata(path).unwrap().len();
    assert!(size(&package(None)) < 2_500_000, "{}", size(&package(None)));
    let dir = unpacked();
    let program = dir.path().join("usr/bin/ssh-keywatch");
    assert!(size(&program) < 6_000_000, "{}", size(&program));
    let elf = must(
        Command::new("readelf")
            .args(["--wide", "--file-header", "--program-headers"])
            .args(["--dynamic", "--sections"])
            .arg(&program),
    );
    assert!(
        elf.contains("DYN (Position-Independent Executable file)"),
        "{elf}"
    );
    assert!(elf.contains("GNU_RELRO"), "{elf}");
    assert!(elf.contains("BIND_NOW"), "{elf}");
    assert!(
        !elf.contains(".symtab") && !elf.contains(".debug_"),
        "not stripped: {elf}"
    );
    let stack = elf.lines().find(|line| line.contains("GNU_STACK")).unwrap();
    assert!(!stack.contains("RWE"), "{stack}");
}

#[test]
fn lintian_has_nothing_to_say() {
    let said = must(
        Command::new("lintian")
            .args(["--allow-root", "--fail-on=error,warning"])
            .arg(package(None)),
    );
    let said: Vec<&str> = said
        .lines()
        .filter(|line| !line.starts_with("N:"))
        .collect();
    assert!(said.is_empty(), "{said:#?}");
}

#[test]
fn the_unit_is_as_closed_as_it_claims() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/ssh-keywatch.service");
    // Tenths: an exposure above 2.0 is a failure.
    must(
        Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--threshold=20", "--no-pager"])
            .arg(unit),
    );
}
