//! Who made a key, as far as the alert log and the baseline know.
//!
//! Owns the choice of what tells an item's origin: among the alerts of the log and
//! the rotated logs before it, and else what the baseline says, which remembers who
//! made a file though no rule alerted, or the log is gone. An entry of a list came by
//! the alert that says that it was added, and by none that says less.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::cli::tail::history;
use crate::daemon;
use crate::inventory::{Item, What};
use crate::sink::{field, number, text};
use crate::text::escape_path;

/// So much of the log and the rotated ones is read (bytes on the disk), and the
/// rest of the oldest.
const LIMIT: u64 = 256 << 20;

/// What an alert says of who put a file where it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Origin {
    /// When (RFC 3339); of what a comparison found, when that was.
    pub(super) time: String,
    /// Of what a comparison found: since when it can have happened, if that is known.
    pub(super) since: Option<String>,
    /// Of what a comparison found: until when it can have happened.
    pub(super) until: Option<String>,
    /// `event.action`; the baseline only says who made the file or put it there.
    pub(super) action: Option<String>,
    /// The rule that alerted; none where the baseline says it.
    pub(super) rule: Option<String>,
    /// The program, if it is certain or likely.
    pub(super) executable: Option<String>,
    /// Its process id.
    pub(super) pid: Option<u64>,
    /// Whose process it was.
    pub(super) user: Option<String>,
    /// `ssh_keywatch.attribution.method`.
    pub(super) method: Option<String>,
    /// Whether it is certain.
    pub(super) certain: bool,
    /// Of the key that it was then.
    pub(super) fingerprint: Option<String>,
}

impl Origin {
    fn of(document: &Map<String, Value>) -> Option<Self> {
        let some = |name: &str| text(document, name).map(str::to_owned);
        let is_found = text(document, "ssh_keywatch.evidence") == Some("baseline");
        let found = |name: &str| some(name).filter(|_| is_found);
        Some(Self {
            time: some("@timestamp")?,
            since: found("event.start"),
            until: found("event.end"),
            action: Some(some("event.action")?),
            rule: Some(some("rule.name")?),
            executable: some("process.executable"),
            pid: number(document, "process.pid"),
            user: some("user.name").or_else(|| some("user.id")),
            method: some("ssh_keywatch.attribution.method"),
            certain: field(document, "ssh_keywatch.attribution.certain")
                == Some(&Value::Bool(true)),
            fingerprint: some("ssh_keywatch.key.fingerprint"),
        })
    }

    /// Whether the file came to its name by it, rather than changed.
    fn is_beginning(&self) -> bool {
        matches!(self.action.as_deref(), None | Some("creation" | "rename"))
    }

    /// Whether the name holds another key by now, with this fingerprint.
    fn is_of_another(&self, now: Option<&str>) -> bool {
        let prints = self.fingerprint.as_deref().zip(now);
        prints.is_some_and(|(then, now)| then != now)
    }

    pub(super) fn to_json(&self) -> Value {
        let source = if self.rule.is_some() {
            "alert_log"
        } else {
            "baseline"
        };
        let mut origin = json!({
            "source": source,
            "time": self.time,
            "since": self.since,
            "until": self.until,
            "action": self.action,
            "rule": self.rule,
            "executable": self.executable,
            "pid": self.pid,
            "user": self.user,
            "method": self.method,
            "certain": self.certain,
        });
        if let Value::Object(origin) = &mut origin {
            origin.retain(|key, value| {
                !value.is_null() || !matches!(key.as_str(), "since" | "until" | "rule" | "action")
            });
        }
        origin
    }
}

/// What the log says of each item.
#[derive(Debug, Default)]
pub(super) struct Origins {
    /// Of files, by path.
    files: HashMap<String, Origin>,
    /// Of the entries of lists, by the list's path and the key's fingerprint.
    entries: HashMap<(String, String), Origin>,
}

/// What is looked for.
struct Wanted {
    paths: HashSet<String>,
    entries: HashSet<(String, String)>,
}

impl Wanted {
    fn of(items: &[Item]) -> Self {
        Self {
            paths: items.iter().map(|item| escape_path(&item.path)).collect(),
            entries: items.iter().filter_map(entry).collect(),
        }
    }
}

/// The list and the fingerprint of an entry.
fn entry(item: &Item) -> Option<(String, String)> {
    match &item.what {
        What::Login { .. } => Some((escape_path(&item.path), item.fingerprint()?.to_owned())),
        What::Key { .. } | What::Link(_) => None,
    }
}

impl Origins {
    /// Reads what the log at `path` says of these items.
    ///
    /// # Errors
    /// The log cannot be read.
    pub(super) fn of(path: &Path, items: &[Item]) -> io::Result<Self> {
        let wanted = Wanted::of(items);
        let pieces = history::named(path)?;
        if pieces.is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        // The newest, as far as they may be read.
        let mut left = LIMIT;
        let newest = pieces.iter().rev().take_while(|(_, piece)| {
            let before = left;
            left = left.saturating_sub(piece.size());
            before > 0
        });
        let newest: Vec<_> = newest.collect();
        let mut origins = Self::default();
        for (path, piece) in newest.into_iter().rev() {
            let read = piece.lines(|line| {
                if let history::Read::Whole(line) = line {
                    origins.take(line, &wanted);
                }
            });
            if let Err(error) = read {
                let path = escape_path(path);
                eprintln!("ssh-keywatch: {path} cannot be read to its end: {error}");
            }
        }
        Ok(origins)
    }

    /// Adds what the baseline in `state` says of them.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn remember(&mut self, state: &Path, items: &[Item]) -> Result<(), String> {
        let wanted: HashSet<&Path> = items.iter().map(|item| item.path.as_path()).collect();
        // An alert of the key that had the name before tells nothing of this one.
        let keys = items
            .iter()
            .filter(|item| matches!(item.what, What::Key { .. }));
        let prints: HashMap<String, &str> = keys
            .filter_map(|item| Some((escape_path(&item.path), item.fingerprint()?)))
            .collect();
        let stored = daemon::stored(state, |path| wanted.contains(path));
        for (path, record) in stored.map_err(|error| error.to_string())? {
            let Some(made) = record.made else { continue };
            // One that a comparison found was made by nobody knows whom.
            if made.executable.is_none() {
                continue;
            }
            let path = escape_path(&path);
            let now = prints.get(&path).copied();
            let told = |known: &Origin| known.is_beginning() && !known.is_of_another(now);
            if self.files.get(&path).is_some_and(told) {
                continue;
            }
            let origin = Origin {
                time: made.time,
                since: None,
                until: None,
                action: None,
                rule: None,
                executable: made.executable,
                pid: made.pid,
                user: made.user,
                method: made.method,
                certain: made.certain,
                fingerprint: record.key.and_then(|key| key.fingerprint),
            };
            self.files.insert(path, origin);
        }
        Ok(())
    }

    fn take(&mut self, line: &[u8], wanted: &Wanted) {
        let Ok(document) = serde_json::from_slice::<Map<String, Value>>(line) else {
            return;
        };
        if text(&document, "event.kind") != Some("alert") {
            return;
        }
        // A file that was made under another name is known by its last one.
        let renamed = text(&document, "ssh_keywatch.file.final.path");
        let Some(path) = renamed.or_else(|| text(&document, "file.path")) else {
            return;
        };
        if !wanted.paths.contains(path) {
            return;
        }
        if text(&document, "event.action") == Some("deletion") {
            self.files.remove(path);
            self.entries.retain(|(list, _), _| list != path);
            return;
        }
        let Some(origin) = Origin::of(&document) else {
            return;
        };
        let listed = |name| {
            let list = field(&document, name).and_then(Value::as_array);
            let prints = list.into_iter().flatten().filter_map(Value::as_object);
            let prints = prints.filter_map(|entry| text(entry, "fingerprint"));
            prints.map(|print| (path.to_owned(), print.to_owned()))
        };
        for entry in listed("ssh_keywatch.key.removed") {
            self.entries.remove(&entry);
        }
        for entry in listed("ssh_keywatch.key.added") {
            if wanted.entries.contains(&entry) {
                self.entries.insert(entry, origin.clone());
            }
        }
        match self.files.get_mut(path) {
            // A change says less than the beginning of the same file.
            Some(known) if known.is_beginning() && !origin.is_beginning() => {}
            Some(known) => *known = origin,
            None => drop(self.files.insert(path.to_owned(), origin)),
        }
    }

    /// Who put the item where it is, if that is known.
    pub(super) fn find(&self, item: &Item) -> Option<Origin> {
        if matches!(item.what, What::Login { .. }) {
            return self.entries.get(&entry(item)?).cloned();
        }
        let origin = self.files.get(&escape_path(&item.path))?;
        (!origin.is_of_another(item.fingerprint())).then(|| origin.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::path::PathBuf;
    use std::time::SystemTime;

    use super::*;
    use crate::key::{Role, examine};

    fn item(path: &str) -> Item {
        Item {
            path: PathBuf::from(path),
            what: What::Link(PathBuf::new()),
            uid: 0,
            gid: 0,
            mode: 0o600,
            modified: SystemTime::UNIX_EPOCH,
            refused: Vec::new(),
            authorized_in: Vec::new(),
        }
    }

    fn alert(path: &str, action: &str, program: &str) -> String {
        let document = json!({
            "@timestamp": "2026-11-24T10:00:00Z",
            "event": { "kind": "alert", "action": action },
            "rule": { "name": "A rule" },
            "file": { "path": path },
            "process": { "executable": program, "pid": 7 },
            "user": { "name": "ann" },
            "ssh_keywatch": { "attribution": { "method": "held", "certain": true } },
        });
        format!("{document}\n")
    }

    fn program(origins: &Origins, path: &str) -> Option<String> {
        origins.find(&item(path))?.executable
    }

    #[test]
    fn the_last_beginning_counts_and_else_the_last_change() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mut text = String::from("{\"torn\n");
        for (path, action, program) in [
            ("/a", "creation", "/bin/old"),
            ("/a", "creation", "/bin/new"),
            ("/a", "modification", "/bin/editor"),
            ("/b", "modification", "/bin/one"),
            ("/b", "modification", "/bin/two"),
            ("/c", "creation", "/bin/x"),
            ("/c", "deletion", "/bin/rm"),
            ("/other", "creation", "/bin/y"),
        ] {
            text.push_str(&alert(path, action, program));
        }
        // Not finished yet.
        text.push_str(alert("/b", "creation", "/bin/z").trim_end());
        std::fs::write(&log, text).unwrap();
        // And what was rotated, packed or not.
        let other = |path| alert(path, "creation", "/bin/rotated");
        std::fs::write(dir.path().join("log.1"), other("/a") + &other("/e")).unwrap();
        let packed = std::fs::File::create(dir.path().join("log.2.gz")).unwrap();
        let mut packed = flate2::write::GzEncoder::new(packed, flate2::Compression::fast());
        let text = alert("/e", "creation", "/bin/older") + &other("/f");
        packed.write_all(text.as_bytes()).unwrap();
        packed.finish().unwrap();
        let items = ["/a", "/b", "/c", "/d", "/e", "/f"].map(item);
        let origins = Origins::of(&log, &items).unwrap();
        assert_eq!(program(&origins, "/e").as_deref(), Some("/bin/rotated"));
        assert_eq!(program(&origins, "/f").as_deref(), Some("/bin/rotated"));
        assert_eq!(program(&origins, "/a").as_deref(), Some("/bin/new"));
        assert_eq!(program(&origins, "/b").as_deref(), Some("/bin/two"));
        assert_eq!(program(&origins, "/c"), None);
        assert_eq!(program(&origins, "/other"), None, "not asked for, not kept");
    }

    /// sed(1) and editors put a new file in the place of the list, with all that
    /// was in it before.
    #[test]
    fn an_entry_of_a_list_came_by_who_added_it() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let text = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDN10vUUA50jhaILXX640/rWaCKUnA11AsVZpZtbB9Nk a\n\
             ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA b\n";
        let facts = examine(text.as_bytes(), Role::AuthorizedKeys).unwrap();
        let entries = facts.list.unwrap().entries.into_iter().enumerate();
        let logins: Vec<Item> = entries
            .map(|(at, entry)| Item {
                what: What::Login {
                    entry: Box::new(entry),
                    number: at + 1,
                    active: true,
                },
                ..item("/list")
            })
            .collect();
        let change = |action: &str, program: &str, added: &[&Item], removed: &[&Item]| {
            let mut document: Value =
                serde_json::from_str(&alert("/list", action, program)).unwrap();
            let list = |items: &[&Item]| -> Value {
                let prints = items
                    .iter()
                    .map(|item| json!({"fingerprint": item.fingerprint()}));
                prints.collect()
            };
            document["ssh_keywatch"]["key"] =
                json!({"added": list(added), "removed": list(removed)});
            format!("{document}\n")
        };
        let [a, b] = [&logins[0], &logins[1]];
        let mut text = change("creation", "/bin/first", &[a], &[]);
        text.push_str(&change("modification", "/bin/added", &[b], &[]));
        text.push_str(&change("rename", "/bin/sed", &[], &[a]));
        std::fs::write(&log, &text).unwrap();
        let origins = Origins::of(&log, &logins).unwrap();
        let by = |origins: &Origins, item: &Item| origins.find(item)?.executable;
        assert_eq!(by(&origins, a), None, "it was put back unseen");
        assert_eq!(by(&origins, b).as_deref(), Some("/bin/added"));
        text.push_str(&change("modification", "/bin/again", &[a], &[]));
        std::fs::write(&log, &text).unwrap();
        let origins = Origins::of(&log, &logins).unwrap();
        assert_eq!(by(&origins, a).as_deref(), Some("/bin/again"));
        text.push_str(&alert("/list", "deletion", "/bin/rm"));
        std::fs::write(&log, &text).unwrap();
        let origins = Origins::of(&log, &logins).unwrap();
        assert_eq!(by(&origins, b), None);
    }

    #[test]
    fn the_baseline_says_what_the_log_does_not() {
        use crate::baseline::{Health, Made, Record, Store};

        let dir = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(&dir.path().join("baseline.redb"), Health::Sound).unwrap();
        let record = |program: Option<&str>| Record {
            made: Some(Made {
                executable: program.map(str::to_owned),
                ..Made::default()
            }),
            ..Record::default()
        };
        let records = [
            ("/a", record(Some("/bin/stored"))),
            ("/b", record(Some("/bin/stored"))),
            ("/c", record(Some("/bin/stored"))),
            ("/d", record(None)),
            ("/other", record(Some("/bin/stored"))),
        ];
        let batch = records
            .iter()
            .map(|(path, record)| (Path::new(path), Some(record)));
        store.apply(batch, true).unwrap();
        let log = dir.path().join("log");
        let text = alert("/a", "creation", "/bin/told") + &alert("/b", "modification", "/bin/vi");
        std::fs::write(&log, text).unwrap();
        let items = ["/a", "/b", "/c", "/d"].map(item);
        let mut origins = Origins::of(&log, &items).unwrap();
        // The store is open meanwhile, as by a daemon.
        origins.remember(dir.path(), &items).unwrap();
        drop(store);
        assert_eq!(program(&origins, "/a").as_deref(), Some("/bin/told"));
        assert_eq!(program(&origins, "/b").as_deref(), Some("/bin/stored"));
        assert_eq!(program(&origins, "/c").as_deref(), Some("/bin/stored"));
        assert_eq!(program(&origins, "/d"), None);
        assert_eq!(program(&origins, "/other"), None);
        let source = |path| origins.find(&item(path)).unwrap().to_json()["source"].clone();
        assert_eq!([source("/a"), source("/b")], ["alert_log", "baseline"]);
        // None is no error.
        let nowhere = dir.path().join("nowhere");
        origins.remember(&nowhere, &items).unwrap();
    }

    /// The key whose alert is in the log was replaced by one that no rule told of.
    #[test]
    fn an_alert_of_the_key_before_does_not_hide_what_the_baseline_knows() {
        use crate::baseline::{Health, Made, Record, Store};

        let dir = tempfile::tempdir().unwrap();
        let text =
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDN10vUUA50jhaILXX640/rWaCKUnA11AsVZpZtbB9Nk a\n";
        let facts = examine(text.as_bytes(), Role::Other).unwrap();
        let key = Item {
            what: What::Key {
                facts: Box::new(facts),
                pair: None,
                borrowed: false,
            },
            ..item("/id.pub")
        };
        let (store, _) = Store::open(&dir.path().join("baseline.redb"), Health::Sound).unwrap();
        let record = Record {
            made: Some(Made {
                executable: Some("/bin/stored".to_owned()),
                ..Made::default()
            }),
            ..Record::default()
        };
        let batch = [(Path::new("/id.pub"), Some(&record))];
        store.apply(batch, true).unwrap();
        drop(store);
        let log = dir.path().join("log");
        for (print, expected) in [
            ("SHA256:old", "/bin/stored"),
            (key.fingerprint().unwrap(), "/bin/told"),
        ] {
            let mut document: Value =
                serde_json::from_str(&alert("/id.pub", "creation", "/bin/told")).unwrap();
            document["ssh_keywatch"]["key"] = json!({"fingerprint": print});
            std::fs::write(&log, format!("{document}\n")).unwrap();
            let items = [key.clone()];
            let mut origins = Origins::of(&log, &items).unwrap();
            origins.remember(dir.path(), &items).unwrap();
            let found = origins.find(&key).unwrap();
            assert_eq!(found.executable.as_deref(), Some(expected));
        }
    }

    #[test]
    fn what_a_comparison_found_was_made_in_between() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mut document: Value = serde_json::from_str(&alert("/a", "creation", "")).unwrap();
        document.as_object_mut().unwrap().remove("process");
        document["event"]["start"] = "2026-11-24T01:00:00Z".into();
        document["event"]["end"] = "2026-11-24T09:00:00Z".into();
        // A loss has times, too; what was seen is of one moment.
        for (evidence, since) in [
            ("fanotify", None),
            ("baseline", Some("2026-11-24T01:00:00Z")),
        ] {
            document["ssh_keywatch"]["evidence"] = evidence.into();
            std::fs::write(&log, format!("{document}\n")).unwrap();
            let origins = Origins::of(&log, &[item("/a")]).unwrap();
            let origin = origins.find(&item("/a")).unwrap();
            assert_eq!(origin.since.as_deref(), since, "{evidence}");
            assert_eq!(origin.to_json().get("until").is_some(), since.is_some());
        }
    }

    #[test]
    fn a_log_that_is_a_fifo_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        nix::unistd::mkfifo(&log, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(Origins::of(&log, &[]).is_err());
    }
}
