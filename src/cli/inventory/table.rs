//! The inventory as a table: a block a directory, a row an item, its remarks below.
//!
//! Owns columns and what is cut where the terminal is narrow: the comment first,
//! then the fingerprint. Never a path or a remark, which wrap.

use std::fmt::Write as _;
use std::path::Path;

use super::{Entry, moment, origin::Origin};
use crate::inventory::{Item, What};
use crate::key::{Identity, Pair};
use crate::text::{escape_path, printable};

/// As much of a fingerprint as tells keys apart: `SHA256:` and 12 characters.
const SHORT_PRINT: usize = 19;
/// A comment is not cut shorter.
const SHORT_COMMENT: usize = 12;
/// Of a list of paths, so many are named.
const NAMED: usize = 5;

struct Row {
    directory: String,
    cells: [String; 6],
    remarks: Vec<(bool, String)>,
}

const FINGERPRINT: usize = 3;
const COMMENT: usize = 5;

/// All entries; `width` is that of the terminal, in characters.
pub(super) fn render(entries: &[Entry<'_>], width: usize, colour: bool) -> String {
    let mut rows: Vec<Row> = entries.iter().map(row).collect();
    let mut widths = widths(&rows);
    let total = |widths: &[usize; 6]| 2 + widths.iter().sum::<usize>() + 2 * (widths.len() - 1);
    for (column, least) in [
        (COMMENT, SHORT_COMMENT),
        (FINGERPRINT, SHORT_PRINT),
        (COMMENT, 0),
    ] {
        let over = total(&widths).saturating_sub(width);
        widths[column] = widths[column].min(widths[column].saturating_sub(over).max(least));
    }
    for row in &mut rows {
        for column in [COMMENT, FINGERPRINT] {
            row.cells[column] = cut(&row.cells[column], widths[column]);
        }
    }
    let mut out = String::new();
    let mut directory = None;
    for row in &rows {
        if directory != Some(&row.directory) {
            let _ = writeln!(
                out,
                "{}{}",
                if directory.is_some() { "\n" } else { "" },
                row.directory
            );
            directory = Some(&row.directory);
        }
        let mut line = String::from("  ");
        for (cell, width) in row.cells.iter().zip(widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        let _ = writeln!(out, "{}", line.trim_end());
        for (bad, remark) in &row.remarks {
            let (on, off) = if *bad && colour {
                ("\x1b[31m", "\x1b[0m")
            } else {
                ("", "")
            };
            let mark = if *bad { '!' } else { '-' };
            for (number, part) in wrap(remark, width.saturating_sub(6)).iter().enumerate() {
                let mark = if number == 0 { mark } else { ' ' };
                let _ = writeln!(out, "    {on}{mark} {part}{off}");
            }
        }
    }
    out
}

fn widths(rows: &[Row]) -> [usize; 6] {
    let mut widths = [0; 6];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(&row.cells) {
            *width = (*width).max(cell.chars().count());
        }
    }
    widths
}

/// Cut to a width, with an ellipsis.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(width.saturating_sub(1)).collect();
    if width > 0 {
        cut.push('…');
    }
    cut
}

/// Lines of at most `width` characters, broken between words where possible.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let used = lines.last().map_or(0, |line| line.chars().count());
        let fits = used == 0 || used + 1 + word.chars().count() <= width;
        match lines.last_mut() {
            Some(line) if fits => {
                if used > 0 {
                    line.push(' ');
                }
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn row(entry: &Entry<'_>) -> Row {
    let item = entry.item;
    let parent = item.path.parent().unwrap_or(Path::new("/"));
    let name = item
        .path
        .file_name()
        .map_or_else(String::new, |name| escape_path(Path::new(name)));
    let owner = entry
        .owner
        .as_deref()
        .map_or_else(|| item.uid.to_string(), |name| printable(name).into_owned());
    let (name, identity, comment) = match &item.what {
        What::Key { facts, .. } => (name, Some(&facts.identity), facts.comment.as_deref()),
        What::Login { entry, number, .. } => (
            format!("{name}#{number}"),
            Some(&entry.identity),
            entry.comment.as_deref(),
        ),
        What::Link(_) => (name, None, None),
    };
    Row {
        directory: escape_path(parent),
        cells: [
            name,
            item.kind().to_owned(),
            identity.map_or_else(String::new, size),
            identity
                .and_then(|identity| identity.fingerprint.clone())
                .unwrap_or_default(),
            owner,
            comment.map_or_else(String::new, |comment| printable(comment).into_owned()),
        ],
        remarks: remarks(item, entry.origin.as_ref()),
    }
}

/// `ed25519 256`.
fn size(identity: &Identity) -> String {
    let kind = identity.algorithm.as_deref().unwrap_or("?");
    let kind = kind.strip_prefix("ssh-").unwrap_or(kind);
    match identity.bits {
        Some(bits) => format!("{} {bits}", printable(kind)),
        None => printable(kind).into_owned(),
    }
}

/// What else is to be said; `true` for what somebody should look at.
fn remarks(item: &Item, origin: Option<&Origin>) -> Vec<(bool, String)> {
    let mut remarks = of_content(item);
    if !item.refused.is_empty() {
        let reasons = item.refused.join(", ");
        remarks.push((
            true,
            format!("refused by ssh or sshd: {}", printable(&reasons)),
        ));
    }
    if !item.authorized_in.is_empty() {
        let named = item.authorized_in.iter().take(NAMED);
        let mut lists: Vec<String> = named.map(|path| escape_path(path)).collect();
        if item.authorized_in.len() > NAMED {
            lists.push(format!("{} more", item.authorized_in.len() - NAMED));
        }
        remarks.push((false, format!("may log in by {}", lists.join(", "))));
    }
    if let Some(origin) = origin {
        let what = match origin.action.as_deref() {
            _ if matches!(item.what, What::Login { .. }) => "added",
            Some("creation") => "made",
            Some("rename") | None => "put there",
            Some(_) => "last changed",
        };
        let program = origin
            .executable
            .as_deref()
            .unwrap_or("a program that is not known");
        let user = origin
            .user
            .as_deref()
            .map_or_else(String::new, |user| format!(" of {user}"));
        let sure = if origin.certain { "" } else { " (not certain)" };
        let when = match (&origin.since, &origin.until) {
            (Some(since), Some(until)) => format!("between {since} and {until}"),
            (None, Some(until)) => format!("before {until}"),
            (_, None) => origin.time.clone(),
        };
        let remark = format!("{what} {when} by {program}{user}{sure}");
        remarks.push((false, printable(&remark).into_owned()));
    }
    remarks
}

/// What its content says.
fn of_content(item: &Item) -> Vec<(bool, String)> {
    let mut remarks = Vec::new();
    match &item.what {
        What::Key {
            facts,
            pair,
            borrowed,
        } => {
            if let Some(protection) = &facts.protection {
                let host = facts.kind == crate::key::Kind::Host;
                if protection.encrypted {
                    remarks.push((false, "with a passphrase".to_owned()));
                } else if !host {
                    remarks.push((true, "without a passphrase".to_owned()));
                }
            }
            if let Some((path, pair)) = pair {
                let other = path
                    .file_name()
                    .map_or_else(String::new, |name| escape_path(Path::new(name)));
                match pair {
                    Pair::Different => {
                        remarks.push((true, format!("does not belong to {other} beside it")));
                    }
                    Pair::Unknown if *borrowed => {
                        remarks.push((
                            false,
                            format!("it is encrypted; which key it is says {other} beside it"),
                        ));
                    }
                    Pair::Same | Pair::Unknown => {}
                }
            }
            if let Some(damage) = facts.damage {
                remarks.push((true, format!("it is {}", damage.as_str())));
            }
            if let Some(certificate) = &facts.certificate {
                let until = moment(certificate.valid_before);
                let until = until.map_or_else(String::new, |until| format!(", until {until}"));
                let id = printable(&certificate.key_id);
                let whom = match certificate.principals.as_slice() {
                    [] => "anybody".to_owned(),
                    names => printable(&names.join(", ")).into_owned(),
                };
                remarks.push((
                    false,
                    format!(
                        "{} certificate \"{id}\" for {whom}{until}",
                        certificate.role
                    ),
                ));
            }
        }
        What::Login { entry, active, .. } => {
            if !entry.options.is_empty() {
                let options = entry.options.join(",");
                remarks.push((false, format!("options {}", printable(&options))));
            }
            if !active {
                remarks.push((
                    false,
                    "sshd does not read a file of this name by default".to_owned(),
                ));
            }
        }
        What::Link(target) => {
            remarks.push((
                false,
                format!("link to {}, not followed", escape_path(target)),
            ));
        }
    }
    remarks
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::SystemTime;

    use super::*;

    fn item(path: &str, comment: &str) -> Item {
        let line = crate::key::examine(
            format!("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDN10vUUA50jhaILXX640/rWaCKUnA11AsVZpZtbB9Nk {comment}\n").as_bytes(),
            crate::key::Role::Other,
        );
        Item {
            path: PathBuf::from(path),
            what: What::Key {
                facts: Box::new(line.unwrap()),
                pair: Some((PathBuf::from("/home/ann/.ssh/id"), Pair::Different)),
                borrowed: false,
            },
            uid: 4001,
            gid: 4001,
            mode: 0o644,
            modified: SystemTime::UNIX_EPOCH,
            refused: Vec::new(),
            authorized_in: vec![PathBuf::from("/home/bob/.ssh/authorized_keys")],
        }
    }

    fn shown(items: &[Item], width: usize) -> String {
        let entries: Vec<Entry<'_>> = items
            .iter()
            .map(|item| Entry {
                item,
                owner: Some("ann".to_owned()),
                origin: None,
            })
            .collect();
        render(&entries, width, false)
    }

    #[test]
    fn without_a_bound_nothing_is_cut() {
        let text = shown(&[item("/home/ann/.ssh/id.pub", "ann@host")], usize::MAX);
        assert_eq!(
            text,
            "/home/ann/.ssh\n  \
             id.pub  public  ed25519 256  SHA256:tOKsr7HwKkbNDq7759QQv6pNJZqmAYDF7H8y4ytsL0U  ann  ann@host\n    \
             ! does not belong to id beside it\n    \
             - may log in by /home/bob/.ssh/authorized_keys\n"
        );
    }

    #[test]
    fn when_nobody_saw_it_is_said_as_two_times() {
        let item = item("/home/ann/.ssh/id.pub", "ann");
        let mut origin = Origin {
            time: "T3".to_owned(),
            since: Some("T1".to_owned()),
            until: Some("T2".to_owned()),
            action: Some("creation".to_owned()),
            ..Origin::default()
        };
        let last = |origin: &Origin| remarks(&item, Some(origin)).pop().unwrap().1;
        let rest = "by a program that is not known (not certain)";
        assert_eq!(last(&origin), format!("made between T1 and T2 {rest}"));
        origin.since = None;
        assert_eq!(last(&origin), format!("made before T2 {rest}"));
        origin.until = None;
        assert_eq!(last(&origin), format!("made T3 {rest}"));
    }

    #[test]
    fn a_narrow_terminal_is_not_overrun() {
        let items = [
            item("/home/ann/.ssh/id.pub", &"very long comment ".repeat(20)),
            item("/home/ann/.ssh/other.pub", "\u{1b}[2Jx"),
        ];
        for width in [60, 72, 80, 100, 140] {
            let text = shown(&items, width);
            for line in text.lines() {
                assert!(line.chars().count() <= width, "{width}: {line}");
            }
            assert!(text.contains("SHA256:"), "{text}");
            assert!(text.contains("other.pub"), "{text}");
            assert!(!text.contains('\u{1b}'), "{text:?}");
        }
    }

    #[test]
    fn words_wrap() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(
            wrap("/a/path/that/is/long x", 5),
            ["/a/path/that/is/long", "x"]
        );
    }
}
