//! Which fields there are.
//!
//! Owns the names that a query may use: ECS 9.4.0, the extensions that Elastic
//! Defend's events carry (`….Ext.…`), and our own below `ssh_keywatch`. Must not
//! know what they mean. Pure.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use crate::config::snippet::nearest;

const ECS: &str = include_str!("ecs-9.4.0.txt");
const OWN: &str = include_str!("ssh_keywatch.txt");

/// Elastic Defend's record of a renamed file's former name; of its other
/// extensions there is no list here.
const ORIGINAL: &str = "file.Ext.original.";
const ORIGINAL_FIELDS: [&str; 8] = [
    "extension",
    "gid",
    "group",
    "mode",
    "name",
    "owner",
    "path",
    "uid",
];

/// Name and type of every listed field.
static FIELDS: LazyLock<BTreeMap<&'static str, &'static str>> = LazyLock::new(|| {
    ECS.lines()
        .chain(OWN.lines())
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let mut words = line.split(' ');
            Some((words.next()?, words.next()?))
        })
        .collect()
});

/// The type of a listed field, as ECS names it.
pub(super) fn kind(field: &str) -> Option<&'static str> {
    FIELDS.get(field).copied()
}

/// Whether a document can have this field.
#[must_use]
pub fn knows(field: &str) -> bool {
    if FIELDS.contains_key(field) {
        return true;
    }
    if let Some(rest) = field.strip_prefix(ORIGINAL) {
        return ORIGINAL_FIELDS.contains(&rest);
    }
    if let Some((before, _)) = field.split_once(".Ext.") {
        return is_parent(before);
    }
    // Whatever is below an object without a fixed shape, such as `labels`.
    field.match_indices('.').any(|(dot, _)| {
        let kind = FIELDS.get(&field[..dot]).copied();
        matches!(kind, Some("object" | "flattened")) && !is_parent(&field[..dot])
    })
}

/// The known field that was probably meant.
#[must_use]
pub fn nearest_field(field: &str) -> Option<&'static str> {
    static ORIGINALS: LazyLock<Vec<String>> = LazyLock::new(|| {
        ORIGINAL_FIELDS
            .iter()
            .map(|name| format!("{ORIGINAL}{name}"))
            .collect()
    });
    let candidates = FIELDS
        .keys()
        .copied()
        .chain(ORIGINALS.iter().map(String::as_str));
    nearest(field, candidates)
}

/// Whether fields stand below this name.
pub(super) fn is_parent(name: &str) -> bool {
    let below = format!("{name}.");
    FIELDS
        .range(below.as_str()..)
        .next()
        .is_some_and(|(field, _)| field.starts_with(&below))
}
