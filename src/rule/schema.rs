//! Which fields there are.
//!
//! Owns the names that a query may use: ECS 9.4.0, the extensions that Elastic
//! Defend's events carry (`….Ext.…`), and our own below `ssh_keywatch`. Must not
//! know what they mean. Pure.

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

/// A line for each field: its name, its type, and what may follow; in the order of
/// names. It is searched as it is: a table of it would take more memory than the rest
/// of a query.
struct List(&'static str);

/// What a line begins with that is none; it comes before all names.
const COMMENT: &str = "#";

const LISTS: [List; 2] = [List(ECS), List(OWN)];

impl List {
    /// The first field from `name` on: its name and its type.
    fn from(&self, name: &str) -> Option<(&'static str, &'static str)> {
        // Where the line that is looked for begins is not before the one, and not
        // behind the other.
        let (mut from, mut to) = (0, self.0.len());
        while from < to {
            let middle = from + (to - from) / 2;
            let before = &self.0.as_bytes()[from..middle];
            let line = before.iter().rposition(|byte| *byte == b'\n');
            let line = line.map_or(from, |end| from + end + 1);
            let text = self.0[line..].split('\n').next().unwrap_or_default();
            if name_of(text) < name {
                from = (line + text.len() + 1).min(to);
            } else {
                to = line;
            }
        }
        let mut words = self.0[from..].lines().next()?.split(' ');
        let name = words.next().filter(|name| *name != COMMENT)?;
        Some((name, words.next()?))
    }
}

fn name_of(line: &str) -> &str {
    line.split(' ').next().unwrap_or_default()
}

/// The names of all listed fields.
fn names() -> impl Iterator<Item = &'static str> {
    let lines = LISTS.iter().flat_map(|list| list.0.lines());
    lines.map(name_of).filter(|name| *name != COMMENT)
}

/// The type of a listed field, as ECS names it.
pub(super) fn kind(field: &str) -> Option<&'static str> {
    let listed = LISTS.iter().filter_map(|list| list.from(field));
    let mut listed = listed.filter(|(name, _)| *name == field);
    listed.next().map(|(_, kind)| kind)
}

/// Whether a document can have this field.
#[must_use]
pub fn knows(field: &str) -> bool {
    if kind(field).is_some() {
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
        matches!(kind(&field[..dot]), Some("object" | "flattened")) && !is_parent(&field[..dot])
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
    nearest(field, names().chain(ORIGINALS.iter().map(String::as_str)))
}

/// Whether fields stand below this name.
pub(super) fn is_parent(name: &str) -> bool {
    let below = format!("{name}.");
    let mut listed = LISTS.iter().filter_map(|list| list.from(&below));
    listed.any(|(field, _)| field.starts_with(&below))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_found_and_nothing_besides() {
        let mut count = 0;
        for list in &LISTS {
            let lines = list.0.lines().filter(|line| name_of(line) != COMMENT);
            let names: Vec<&str> = lines.clone().map(name_of).collect();
            assert!(names.is_sorted_by(|one, other| one < other));
            for line in lines {
                let mut words = line.split(' ');
                let (name, wanted) = (words.next().unwrap(), words.next().unwrap());
                assert_eq!(kind(name), Some(wanted), "{name}");
                for near in [format!("{name}z"), format!("{name} "), name[1..].to_owned()] {
                    assert_eq!(kind(&near).is_some(), names.contains(&&*near), "{near}");
                }
                let parents = name.match_indices('.').map(|(dot, _)| &name[..dot]);
                assert!(parents.clone().all(is_parent), "{name}");
                let below = format!("{name}.");
                let has_some = names.iter().any(|other| other.starts_with(&below));
                assert_eq!(is_parent(name), has_some, "{name}");
                count += 1;
            }
        }
        assert!(count > 2500);
        for none in ["", "#", "0", "\u{10ffff}", "# Field", "\n"] {
            assert_eq!(kind(none), None, "{none:?}");
            assert!(!is_parent(none), "{none:?}");
        }
        assert_eq!(names().count(), count);
    }
}
