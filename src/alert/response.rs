//! The response, ready to copy: the commands that would take a key's effect
//! away. They are never run by us.
//!
//! Owns which they are. All of them are for root's shell, whichever it is, and
//! none follows a symbolic link that a user put there instead of the file: sed
//! and mv replace or move the name itself.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use data_encoding::BASE64;

use super::Document;
use super::key::KeyReport;
use crate::key::{Entry, Kind, Public};
use crate::text;

/// How many commands one alert has.
const MAX_COMMANDS: usize = 16;
/// The longest key that is spelled in one: RSA of 16384 bits has 2 KiB.
const MAX_KEY: usize = 8 * 1024;

/// Adds to an alert the commands that would undo what was done to the file at
/// `path`: take added entries out of the list, or move the key away, and take it
/// out of the lists that hold it. What sshd has lost by a rename gets its name back.
pub fn set_response(alert: &mut Document, report: &KeyReport, path: &Path) {
    let commands = commands(alert, report, path);
    alert.set("ssh_keywatch.response.commands", commands);
}

fn commands(alert: &Document, report: &KeyReport, path: &Path) -> Vec<String> {
    if let Some(back) = back(alert, path) {
        return vec![back];
    }
    let Ok(inspection) = &report.inspection else {
        return Vec::new();
    };
    let Some(facts) = &inspection.facts else {
        return Vec::new();
    };
    let mut commands = Vec::new();
    match facts.kind {
        Kind::AuthorizedKeys => {
            let added = report.change.iter().flat_map(|change| &change.added);
            let keys = added.filter(|entry| entry.certificate.is_none());
            let keys = keys.map(|entry: &Entry| &entry.identity.public);
            commands.extend(keys.filter_map(|key| without(key, path)));
        }
        // Without its host keys no sshd starts.
        Kind::Host | Kind::KnownHosts => {}
        Kind::Private | Kind::Public | Kind::Certificate => {
            commands.extend(away(alert, path));
            let lists = report.authorized_in.iter();
            let key = &facts.identity.public;
            commands.extend(lists.filter_map(|list| without(key, list)));
        }
    }
    // A list may hold a key several times.
    let mut told = HashSet::new();
    commands.retain(|command| told.insert(command.clone()));
    commands.truncate(MAX_COMMANDS);
    commands
}

/// Takes every line with this key out of a list. The base64 of a key has no
/// character that a basic regular expression reads otherwise.
fn without(key: &Public, list: &Path) -> Option<String> {
    let key = key.bytes().filter(|key| key.len() <= MAX_KEY)?;
    let list = text::posix_word(list.as_os_str())?;
    Some(format!("sed -i '\\|{}|d' -- {list}", BASE64.encode(key)))
}

/// Moves a file to where root alone reads it, under a name that is free.
fn away(alert: &Document, path: &Path) -> Option<String> {
    let file = text::posix_word(path.as_os_str())?;
    let to = format!("/root/ssh-keywatch-{}", alert.str("event.id")?);
    let to = text::posix_word(OsStr::new(&to))?;
    Some(format!("mv -nT -- {file} {to}"))
}

/// Gives a file that was renamed away the name back by which sshd finds it, unless
/// another has it by now.
fn back(alert: &Document, path: &Path) -> Option<String> {
    let former = alert.str("file.Ext.original.path")?;
    if alert.str("event.action") != Some("rename") || !is_read_by_sshd(former) {
        return None;
    }
    // A path that is not UTF-8 stands there in base64 as well.
    let raw = alert.str("ssh_keywatch.original_path_raw");
    let raw = raw.and_then(|raw| BASE64.decode(raw.as_bytes()).ok());
    let former = raw.map_or_else(|| former.into(), OsString::from_vec);
    let file = text::posix_word(path.as_os_str())?;
    let former = text::posix_word(&former)?;
    Some(format!("mv -nT -- {file} {former}"))
}

/// Lists of logins, host keys and the configuration, as the shipped rules name them.
fn is_read_by_sshd(path: &str) -> bool {
    let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
    match directory {
        _ if matches!(name, "authorized_keys" | "authorized_keys2") => true,
        "/etc/ssh" if name == "sshd_config" => true,
        "/etc/ssh" => name.starts_with("ssh_host_") && name.ends_with("_key"),
        "/etc/ssh/sshd_config.d" => Path::new(name).extension() == Some(OsStr::new("conf")),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::path::PathBuf;
    use std::process::Command;

    use super::*;
    use crate::key::{Change, Facts, Inspection, Role, examine};

    const ANN: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDN10vUUA50jhaILXX640/rWaCKUnA11AsVZpZtbB9Nk ann\n";
    const BOB: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA bob\n";

    fn report(facts: Facts) -> KeyReport {
        KeyReport {
            inspection: Ok(Inspection {
                facts: Some(facts),
                sha256: None,
                whole: true,
                refused: None,
                pair: None,
                borrowed: false,
            }),
            beside: None,
            change: None,
            others_wrote: false,
            authorized_in: Vec::new(),
        }
    }

    fn list(text: &str) -> Vec<Entry> {
        let facts = examine(text.as_bytes(), Role::AuthorizedKeys).unwrap();
        facts.list.unwrap().entries
    }

    fn told(report: &KeyReport, path: &Path) -> Vec<String> {
        told_of(Document::new(), report, path)
    }

    fn told_of(mut alert: Document, report: &KeyReport, path: &Path) -> Vec<String> {
        alert.set("event.id", "0123abcd");
        set_response(&mut alert, report, path);
        let commands = alert.get("ssh_keywatch.response.commands");
        let commands = commands.and_then(|list| list.as_array().cloned());
        let commands = commands.unwrap_or_default();
        commands
            .iter()
            .map(|command| command.as_str().unwrap().to_owned())
            .collect()
    }

    fn sh(command: &str) {
        for shell in ["sh", "bash"] {
            let output = Command::new(shell)
                .args(["-euc", command])
                .output()
                .unwrap();
            assert!(output.status.success(), "{command}: {output:?}");
        }
    }

    #[test]
    fn what_was_added_is_taken_out_again_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            &b"authorized_keys"[..],
            b"it's \"$(id)\" `id`; \\",
            b"a\nb\xff\x1b%s",
        ] {
            let path = dir.path().join(OsStr::from_bytes(name));
            let before = format!("# mine\n{ANN}from=\"10.0.0.1\" {ANN}");
            let after = format!("{before}command=\"id\" {BOB}");
            fs::write(&path, &after).unwrap();
            let facts = examine(after.as_bytes(), Role::AuthorizedKeys).unwrap();
            let mut report = report(facts);
            report.change = Some(Change::between(&list(&before), &list(&after)));
            let commands = told(&report, &path);
            assert_eq!(commands.len(), 1);
            sh(&commands[0]);
            assert_eq!(fs::read_to_string(&path).unwrap(), before);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }

    #[test]
    fn a_key_is_moved_away_and_taken_out_of_the_lists_that_hold_it() {
        let mut report = report(examine(BOB.as_bytes(), Role::Other).unwrap());
        let dir = tempfile::tempdir().unwrap();
        let list = dir.path().join("authorized_keys");
        fs::write(&list, format!("{BOB}{ANN}")).unwrap();
        report.authorized_in = vec![list.clone()];
        let commands = told(&report, Path::new("/home/bob/.ssh/a b.pub"));
        assert_eq!(
            commands[0],
            "mv -nT -- '/home/bob/.ssh/a b.pub' /root/ssh-keywatch-0123abcd"
        );
        sh(&commands[1]);
        assert_eq!(fs::read_to_string(&list).unwrap(), ANN);
        assert_eq!(commands.len(), 2);
    }

    #[test]
    fn what_sshd_lost_by_a_rename_gets_its_name_back() {
        let dir = tempfile::tempdir().unwrap();
        let list = dir.path().join("authorized_keys");
        let renamed = dir.path().join("it's ak");
        let report = report(examine(ANN.as_bytes(), Role::Other).unwrap());
        let commands = |former: &str| {
            let mut alert = Document::new();
            alert.set("event.action", "rename");
            alert.set("file.Ext.original.path", former);
            told_of(alert, &report, &renamed)
        };
        let [command] = &commands(list.to_str().unwrap())[..] else {
            panic!("not one");
        };
        fs::write(&renamed, ANN).unwrap();
        let script = format!("[ -e {} ] || {command}", list.display());
        sh(&script);
        assert_eq!(fs::read_to_string(&list).unwrap(), ANN);
        assert!(!renamed.exists());
        let mut alert = Document::new();
        alert.set("event.action", "rename");
        alert.set("file.Ext.original.path", r"/home/\xff/authorized_keys");
        let raw = BASE64.encode(b"/home/\xff/authorized_keys");
        alert.set("ssh_keywatch.original_path_raw", raw);
        let told = told_of(alert, &report, Path::new("/home/a/ak"));
        assert_eq!(
            told,
            [r#"mv -nT -- /home/a/ak "$(printf '/home/\377/authorized_keys')""#]
        );
        for (former, is_back) in [
            ("/etc/ssh/sshd_config", true),
            ("/etc/ssh/sshd_config.d/hard.conf", true),
            ("/etc/ssh/ssh_host_rsa_key", true),
            ("/etc/ssh/ssh_host_rsa_key.pub", false),
            ("/etc/ssh/sshd_config.d/README", false),
            ("/root/.ssh/authorized_keys.new", false),
            ("/root/.ssh/id", false),
        ] {
            let commands = commands(former);
            let back = format!(" {former}");
            assert_eq!(commands[0].ends_with(&back), is_back, "{commands:?}");
        }
    }

    #[test]
    fn there_is_not_always_something_to_do() {
        let path = Path::new("/etc/ssh/ssh_host_ed25519_key");
        let mut facts = examine(BOB.as_bytes(), Role::Other).unwrap();
        facts.kind = Kind::Host;
        assert_eq!(told(&report(facts.clone()), path), Vec::<String>::new());
        facts.kind = Kind::Public;
        // A name that no shell would give back.
        let name = PathBuf::from(OsString::from_vec(b"/root/.ssh/x\n".to_vec()));
        assert_eq!(told(&report(facts), &name), Vec::<String>::new());
        let mut unread = report(examine(BOB.as_bytes(), Role::Other).unwrap());
        unread.inspection = Err("busy");
        assert_eq!(told(&unread, path), Vec::<String>::new());
    }

    fn adding(text: &str) -> Vec<String> {
        let mut report = report(examine(BOB.as_bytes(), Role::AuthorizedKeys).unwrap());
        report.change = Some(Change {
            added: list(text),
            removed: Vec::new(),
        });
        told(&report, Path::new("/root/.ssh/authorized_keys"))
    }

    #[test]
    fn a_key_that_is_listed_twice_is_taken_out_once() {
        assert_eq!(adding(&format!("{ANN}{BOB}from=\"::1\" {ANN}")).len(), 2);
    }

    #[test]
    fn many_keys_are_bounded() {
        let key = |number: u8| {
            let mut blob = BASE64
                .decode(BOB.split(' ').nth(1).unwrap().as_bytes())
                .unwrap();
            *blob.last_mut().unwrap() = number;
            format!("ssh-ed25519 {}\n", BASE64.encode(&blob))
        };
        let keys: String = (0..100).map(key).collect();
        assert_eq!(adding(&keys).len(), MAX_COMMANDS);
    }
}
