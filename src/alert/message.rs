//! The one sentence of an alert: who did what to which file, as whom.
//!
//! Owns its wording. Says no more than is known: a program that is only
//! probable is called so, and one that is unknown is called that.

// Writing to a String cannot fail, so those results are of no interest.
use std::fmt::Write as _;

use serde_json::Value;

use super::Document;
use crate::text;

/// At most so many possible programs are named.
const NAMED_CANDIDATES: usize = 3;

/// The sentence for an event's document.
pub(super) fn sentence(document: &Document) -> String {
    let mut sentence = program(document);
    sentence.push_str(&deed(document));
    if let Some(name) = document.str("user.name") {
        let _ = write!(sentence, " as {}", text::printable(name));
    } else if let Some(uid) = document.str("user.id") {
        let _ = write!(sentence, " as uid {uid}");
    }
    let login = document.str("ssh_keywatch.session.login_uid");
    if let Some(login) = login.filter(|uid| document.str("user.id").is_some_and(|id| id != *uid)) {
        let _ = write!(sentence, ", logged in as uid {login}");
    }
    sentence.push_str(&lineage(document));
    sentence
}

/// The writer: certain, probable, one of several, or unknown.
fn program(document: &Document) -> String {
    let below = "ssh_keywatch.attribution";
    // A recorded event of another source does not say: what it names, it names.
    let certain = document.get(&format!("{below}.certain")) != Some(&Value::Bool(false));
    if let Some(path) = document.str("process.executable") {
        let image = match document.str(&format!("{below}.image")) {
            Some("replaced") => " (replaced since it started)",
            Some("foreign") => " (of another mount namespace)",
            Some("deleted") => " (deleted since it started)",
            Some("memfd") => " (a program without a file)",
            _ => "",
        };
        let doubt = if certain { "" } else { "probably " };
        return format!("{doubt}{}{image}", shown(path));
    }
    let candidates = document.get(&format!("{below}.candidates"));
    let mut paths: Vec<&str> = Vec::new();
    for candidate in candidates.and_then(Value::as_array).into_iter().flatten() {
        if let Some(path) = candidate.get("executable").and_then(Value::as_str)
            && !paths.contains(&path)
        {
            paths.push(path);
        }
    }
    match paths.as_slice() {
        [] => "unknown program".to_owned(),
        [only] => format!("probably {}", shown(only)),
        [first @ .., last] if first.len() < NAMED_CANDIDATES => {
            let first: Vec<_> = first.iter().map(|path| shown(path)).collect();
            format!("{} or {}", first.join(", "), shown(last))
        }
        many => {
            let first: Vec<_> = many[..NAMED_CANDIDATES]
                .iter()
                .map(|path| shown(path))
                .collect();
            let rest = many.len() - NAMED_CANDIDATES;
            format!("{} or one of {rest} other programs", first.join(", "))
        }
    }
}

/// What was done to which file.
fn deed(document: &Document) -> String {
    let path = shown(document.str("file.path").unwrap_or_default());
    let what = match document.str("ssh_keywatch.key.kind") {
        Some("private") => "the private key ",
        Some("public") => "the public key ",
        Some("certificate") => "the certificate ",
        Some("host") => "the host key ",
        _ => match document.str("file.type") {
            Some("dir") => "the directory ",
            Some("symlink") => "the symbolic link ",
            Some("fifo") => "the FIFO ",
            Some("socket") => "the socket ",
            Some("device") => "the device ",
            _ => "",
        },
    };
    let mut deed = match document.str("event.action") {
        Some("rename") => {
            let from = document.str("file.Ext.original.path").map(shown);
            match from {
                Some(from) => format!(" renamed {what}{from} to {path}"),
                None => format!(" renamed {what}to {path}"),
            }
        }
        Some("modification") => format!(" changed {what}{path}"),
        Some("deletion") => format!(" deleted {what}{path}"),
        _ => format!(" created {what}{path}"),
    };
    if let Some(target) = document.str("file.target_path") {
        let _ = write!(deed, " that points to {}", shown(target));
    }
    if let Some(path) = document.str("ssh_keywatch.file.final.path") {
        let now = match document.str("ssh_keywatch.file.final.state") {
            Some("renamed") => "now",
            _ => "to become",
        };
        let _ = write!(deed, " ({now} {})", shown(path));
    }
    deed
}

fn lineage(document: &Document) -> String {
    let Some(pid) = document.number("process.pid") else {
        return String::new();
    };
    match (
        document.str("process.parent.executable"),
        document.number("process.parent.pid"),
    ) {
        (Some(path), Some(parent)) => format!(" (pid {pid}, parent {} pid {parent})", shown(path)),
        (None, Some(parent)) => format!(" (pid {pid}, parent pid {parent})"),
        (_, None) => format!(" (pid {pid})"),
    }
}

fn shown(path: &str) -> String {
    text::printable(path).into_owned()
}
