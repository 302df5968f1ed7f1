//! What a reload changes, said exactly.
//!
//! Owns the comparison of what is in force with what is to be, and which keys
//! of the configuration a running daemon cannot take. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::Plan;
use crate::config::{self, Config};
use crate::rule::Rule;
use crate::text::printable;

/// The keys that a reload applies; any other waits for a restart.
pub const RELOADED: [&str; 9] = [
    "watch.homes",
    "watch.passwd_homes",
    "watch.directories",
    "watch.max_directories",
    "watch.home_directories",
    "watch.home_files",
    "watch.home_events",
    "rules.directories",
    "rules.watch",
];
/// So many of a kind are named in a sentence; the log's fields have all.
const NAMED: usize = 10;

/// What the daemon runs by.
#[derive(Debug)]
pub(super) struct InForce {
    keys: BTreeMap<String, toml::Value>,
    exceptions: Vec<config::Exception>,
    rules: Vec<Rule>,
    watched: BTreeSet<String>,
}

impl InForce {
    pub(super) fn of(plan: &Plan) -> Self {
        Self {
            keys: keys(&plan.config),
            exceptions: plan.config.exceptions.clone(),
            rules: plan.rules.rules().cloned().collect(),
            watched: plan.watched().into_iter().collect(),
        }
    }

    /// Takes the new plan, as far as a reload can, and says what that changes.
    pub(super) fn reload(&mut self, plan: &Plan) -> Changes {
        let mut new = Self::of(plan);
        let changes = Changes::between(self, &new);
        for (key, value) in &mut new.keys {
            if !RELOADED.contains(&key.as_str())
                && let Some(old) = self.keys.get(key)
            {
                // Still what it was, and said again by the next reload.
                value.clone_from(old);
            }
        }
        *self = new;
        changes
    }
}

/// `table.key` and its value, of every key but the exceptions.
fn keys(config: &Config) -> BTreeMap<String, toml::Value> {
    let config = Config {
        exceptions: Vec::new(),
        ..config.clone()
    };
    // A configuration came out of TOML, so it goes into it.
    let tables = toml::Table::try_from(config).unwrap_or_default();
    let mut keys = BTreeMap::new();
    for (name, table) in tables {
        if let toml::Value::Table(table) = table {
            for (key, value) in table {
                keys.insert(format!("{name}.{key}"), value);
            }
        }
    }
    keys
}

/// Things of one kind that came, went, or became other.
#[derive(Debug, Default, PartialEq, Eq)]
struct Differences {
    added: Vec<String>,
    removed: Vec<String>,
    changed: Vec<String>,
}

/// A key with its old and new value.
#[derive(Debug, PartialEq)]
struct Key {
    name: String,
    old: String,
    new: String,
}

/// What is different.
#[derive(Debug, Default)]
pub(super) struct Changes {
    rules: Differences,
    exceptions: Differences,
    watched: Differences,
    keys: Vec<Key>,
    /// What waits for a restart.
    pending: Vec<Key>,
    rule_count: usize,
}

impl Changes {
    fn between(old: &InForce, new: &InForce) -> Self {
        let mut changes = Self {
            rule_count: new.rules.len(),
            ..Self::default()
        };
        let rule = |rule: &Rule| format!("{} ({})", rule.name, rule.id);
        changes.rules = differences(
            &old.rules,
            &new.rules,
            |a, b| a.id == b.id,
            rule,
            |a, b| a == b,
        );
        let exception =
            |exception: &config::Exception| format!("for {}: {}", exception.rule, exception.reason);
        changes.exceptions = differences(
            &old.exceptions,
            &new.exceptions,
            |a, b| a.rule == b.rule && a.when == b.when,
            exception,
            // Where it stands in the file is no change.
            |a, b| a.reason == b.reason && a.expires == b.expires,
        );
        changes.watched.added = new.watched.difference(&old.watched).cloned().collect();
        changes.watched.removed = old.watched.difference(&new.watched).cloned().collect();
        for (name, value) in &new.keys {
            let Some(former) = old.keys.get(name).filter(|former| *former != value) else {
                continue;
            };
            let key = Key {
                name: name.clone(),
                old: former.to_string(),
                new: value.to_string(),
            };
            if RELOADED.contains(&name.as_str()) {
                changes.keys.push(key);
            } else {
                changes.pending.push(key);
            }
        }
        changes
    }

    /// For a person: one line.
    pub(super) fn sentence(&self) -> String {
        let mut parts = Vec::new();
        for (what, differences) in [("rule", &self.rules), ("exception", &self.exceptions)] {
            for (how, names) in [
                ("added", &differences.added),
                ("removed", &differences.removed),
                ("changed", &differences.changed),
            ] {
                if let Some(list) = list(names) {
                    let plural = if names.len() == 1 { "" } else { "s" };
                    parts.push(format!("{} {what}{plural} {how}: {list}", names.len()));
                }
            }
        }
        if let Some(list) = list(&self.watched.added) {
            parts.push(format!("watched from now on: {list}"));
        }
        if let Some(list) = list(&self.watched.removed) {
            parts.push(format!("not watched any more: {list}"));
        }
        for key in &self.keys {
            parts.push(key.to_string());
        }
        if parts.is_empty() {
            parts.push("nothing changed".to_owned());
        }
        if !self.pending.is_empty() {
            let keys: Vec<String> = self.pending.iter().map(Key::to_string).collect();
            parts.push(format!("only a restart applies {}", keys.join(", ")));
        }
        let mut sentence = parts.join("; ");
        // Writing to a String cannot fail.
        let _ = write!(sentence, " ({} rules run)", self.rule_count);
        printable(&sentence).into_owned()
    }

    /// Whether something waits for a restart.
    pub(super) fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// `ssh_keywatch.reload`.
    pub(super) fn to_json(&self) -> Value {
        let differences = |differences: &Differences| {
            json!({
                "added": differences.added,
                "removed": differences.removed,
                "changed": differences.changed,
            })
        };
        let keys = |keys: &[Key]| keys.iter().map(Key::to_string).collect::<Vec<_>>();
        json!({
            "rules": differences(&self.rules),
            "exceptions": differences(&self.exceptions),
            "watched": { "added": self.watched.added, "removed": self.watched.removed },
            "config": keys(&self.keys),
            "needs_restart": keys(&self.pending),
        })
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}: {} → {}", self.name, self.old, self.new)
    }
}

fn differences<T>(
    old: &[T],
    new: &[T],
    alike: impl Fn(&T, &T) -> bool,
    name: impl Fn(&T) -> String,
    same: impl Fn(&T, &T) -> bool,
) -> Differences {
    let mut differences = Differences::default();
    for item in new {
        match old.iter().find(|former| alike(former, item)) {
            None => differences.added.push(name(item)),
            Some(former) if !same(former, item) => differences.changed.push(name(item)),
            Some(_) => {}
        }
    }
    for item in old {
        if !new.iter().any(|later| alike(later, item)) {
            differences.removed.push(name(item));
        }
    }
    differences
}

fn list(names: &[String]) -> Option<String> {
    if names.is_empty() {
        return None;
    }
    let shown = names[..names.len().min(NAMED)].join(", ");
    Some(match names.len() - names.len().min(NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn plan(text: &str) -> Plan {
        let config = Config::parse(text, Path::new("/etc/c.toml")).unwrap();
        Plan::new(config, true).unwrap()
    }

    fn reload(old: &str, new: &str) -> String {
        let plans = (plan(old), plan(new));
        let said = InForce::of(&plans.0).reload(&plans.1).sentence();
        // As many as are shipped.
        let count = plans.1.rules.rules().len();
        said.replace(&format!("({count} rules run)"), "(N rules run)")
    }

    #[test]
    fn no_change_is_said() {
        let said = reload("", "# another comment\n");
        assert_eq!(said, "nothing changed (N rules run)");
    }

    #[test]
    fn each_key_is_named_with_both_values_and_what_it_takes() {
        let said = reload(
            "",
            "[watch]\nhold = \"all\"\ndirectories = [\"/etc/ssh\", \"/srv/keys\"]\n",
        );
        assert_eq!(
            said,
            "watched from now on: /srv/keys; watch.directories: [\"/etc/ssh\"] → [\"/etc/ssh\", \
             \"/srv/keys\"]; only a restart applies watch.hold: \"new\" → \"all\" (N rules run)"
        );
    }

    #[test]
    fn what_waits_for_a_restart_is_said_again_by_the_next_reload() {
        let mut in_force = InForce::of(&plan(""));
        let pending = plan("[log]\nmode = \"0600\"\n");
        for _ in 0..2 {
            let said = in_force.reload(&pending).sentence();
            assert!(
                said.contains("restart applies log.mode: \"0640\" → \"0600\""),
                "{said}"
            );
        }
        let changes = in_force.reload(&plan(""));
        assert!(!changes.is_pending(), "it is as it was at the start");
    }

    #[test]
    fn exceptions_are_told_apart_by_what_they_say_and_not_by_where_they_stand() {
        let exception =
            "[[exception]]\nrule = \"*\"\nwhen = 'user.name == \"a\"'\nreason = \"x\"\n";
        let added = reload("", exception);
        assert!(added.starts_with("1 exception added: for *: x"), "{added}");
        let moved = reload(exception, &format!("\n\n{exception}"));
        assert!(moved.starts_with("nothing changed"), "{moved}");
        let changed = reload(exception, &exception.replace("\"x\"", "\"y\""));
        assert!(
            changed.starts_with("1 exception changed: for *: y"),
            "{changed}"
        );
    }

    #[test]
    fn every_key_that_is_applied_exists() {
        let keys = keys(&Config::default());
        for live in RELOADED {
            assert!(keys.contains_key(live), "{live}");
        }
    }

    #[test]
    fn many_names_are_cut() {
        let names: Vec<String> = (0..12).map(|number| number.to_string()).collect();
        assert_eq!(
            list(&names).unwrap(),
            "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"
        );
    }
}
