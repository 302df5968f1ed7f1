//! The one sentence of an alert: who did what to which file, as whom.
//!
//! Owns its wording. Says no more than is known: a program that is only
//! probable is called so, and one that is unknown is called that.

// Writing to a String cannot fail, so those results are of no interest.
use std::fmt::Write as _;

use serde_json::Value;

use super::{Document, gap};
use crate::text;

/// At most so many possible programs are named.
const NAMED_CANDIDATES: usize = 3;

/// The sentence for an event's document.
pub(super) fn sentence(document: &Document) -> String {
    let mut sentence = program(document);
    sentence.push_str(&deed(document));
    sentence.push_str(gap::words(document));
    if let Some(name) = document.str("user.name") {
        let _ = write!(sentence, " as {}", text::printable(name));
    } else if let Some(uid) = document.str("user.id") {
        let _ = write!(sentence, " as uid {uid}");
    }
    sentence.push_str(&origin(document));
    sentence.push_str(&lineage(document));
    sentence
}

/// Which installed program it is under another name.
fn known(document: &Document) -> String {
    let below = "ssh_keywatch.attribution";
    let Some(path) = document.str(&format!("{below}.known_as")) else {
        return String::new();
    };
    let how = match document.str(&format!("{below}.known_by")) {
        Some("inode") => "the same file as",
        Some("content") => "a copy of",
        Some("arguments") => "told to run",
        _ => "running",
    };
    format!(" ({how} {})", shown(path))
}

/// The writer: certain, probable, one of several, or unknown.
fn program(document: &Document) -> String {
    let below = "ssh_keywatch.attribution";
    // A recorded event of another source does not say: what it names, it names.
    let certain = document.get(&format!("{below}.certain")) != Some(&Value::Bool(false));
    if let Some(path) = document.str("process.executable") {
        let claimed = document.str(&format!("{below}.claimed_executable"));
        let image = match document.str(&format!("{below}.image")) {
            // It is what it claims to be that is replaced.
            _ if claimed.is_some() => "",
            Some("replaced") => " (replaced since it started)",
            Some("foreign") => " (of another mount namespace)",
            Some("deleted") => " (deleted since it started)",
            Some("memfd") => " (a program without a file)",
            _ => "",
        };
        let doubt = if certain { "" } else { "probably " };
        let claimed = claimed.map(|path| format!(" (posing as {})", shown(path)));
        let other = claimed.unwrap_or_else(|| known(document));
        return format!("{doubt}{}{image}{other}", shown(path));
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
    let what = key(document).unwrap_or_else(|| {
        let kind = match document.str("file.type") {
            Some("dir") => "the directory ",
            Some("symlink") => "the symbolic link ",
            Some("fifo") => "the FIFO ",
            Some("socket") => "the socket ",
            Some("device") => "the device ",
            _ => "",
        };
        kind.to_owned()
    });
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
        Some("open") => format!(" opened {what}{path}"),
        Some("flood") => format!(
            " does more in {what}{path} than can be told one by one: what goes on is counted"
        ),
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
    deed.push_str(&entries(document));
    deed
}

/// The key in words: `an unencrypted ed25519 private key `.
fn key(document: &Document) -> Option<String> {
    let below = "ssh_keywatch.key";
    let noun = match document.str(&format!("{below}.kind"))? {
        "private" => "private key",
        "host" => "host key",
        "public" => "public key",
        "certificate" => match document.str(&format!("{below}.certificate.type")) {
            Some("user") => "user certificate",
            Some("host") => "host certificate",
            _ => "certificate",
        },
        _ => return None,
    };
    let encrypted = match document.get(&format!("{below}.encrypted")) {
        Some(Value::Bool(true)) => Some("encrypted".to_owned()),
        Some(Value::Bool(false)) => Some("unencrypted".to_owned()),
        _ => None,
    };
    let kind = document.str(&format!("{below}.type")).map(|kind| {
        let bits = document.number(&format!("{below}.bits"));
        type_words(kind, bits)
    });
    let words: Vec<String> = encrypted.iter().cloned().chain(kind).collect();
    // A key that is new is one of many; the public one is its other half.
    let is_new = document.str("event.action") == Some("creation") && encrypted.is_some();
    let article = match words.first() {
        Some(word) if is_new && word.starts_with(['e', 'u']) => "an",
        _ if is_new => "a",
        _ => "the",
    };
    let words = words.join(" ");
    let blank = if words.is_empty() { "" } else { " " };
    Some(format!("{article} {words}{blank}{noun} "))
}

/// A type as people say it, with the size where it varies.
fn type_words(kind: &str, bits: Option<u64>) -> String {
    let plain = kind
        .strip_suffix("-cert-v01@openssh.com")
        .or_else(|| kind.strip_suffix("@openssh.com"))
        .unwrap_or(kind);
    let name = match plain {
        "ssh-ed25519" => return "ed25519".to_owned(),
        "sk-ssh-ed25519" => return "ed25519-sk".to_owned(),
        "sk-ecdsa-sha2-nistp256" => return "ecdsa-sk".to_owned(),
        "ssh-rsa" => "RSA",
        "ssh-dss" => "DSA",
        name if name.starts_with("ecdsa-sha2-") => "ECDSA",
        _ => return text::printable(kind).into_owned(),
    };
    match bits {
        Some(bits) => format!("{bits}-bit {name}"),
        None => name.to_owned(),
    }
}

/// What was added to a list of keys, and removed from it.
fn entries(document: &Document) -> String {
    let mut deeds = Vec::new();
    for (deed, name) in [("adding", "added"), ("removing", "removed")] {
        let below = format!("ssh_keywatch.key.{name}");
        let count = document.number(&format!("{below}_count"));
        match count {
            None | Some(0) => {}
            Some(1) => {
                let entry = document.get(&below).and_then(|list| list.get(0));
                let text = |name| entry.and_then(|entry| entry.get(name)?.as_str());
                let mut key = format!("{deed} the ");
                if let Some(kind) = text("type") {
                    let bits = entry.and_then(|entry| entry.get("bits")?.as_u64());
                    let _ = write!(key, "{} ", type_words(kind, bits));
                }
                key.push_str("key");
                for (name, mark) in [("fingerprint", ["", ""]), ("comment", ["(", ")"])] {
                    if let Some(text) = text(name) {
                        let [open, close] = mark;
                        let _ = write!(key, " {open}{}{close}", text::printable(text));
                    }
                }
                deeds.push(key);
            }
            Some(count) => {
                let is_part =
                    document.get("ssh_keywatch.key.too_large") == Some(&Value::Bool(true));
                let least = if is_part { "at least " } else { "" };
                deeds.push(format!("{deed} {least}{count} keys"));
            }
        }
    }
    let others = match document.get("ssh_keywatch.key.others_wrote") {
        Some(Value::Bool(true)) => " (others may have written to it, too)",
        _ => "",
    };
    if deeds.is_empty() {
        return others.to_owned();
    }
    format!(", {}{others}", deeds.join(" and "))
}

/// Where the writer came from: `, from an SSH session of bob at 10.1.2.3
/// through sudo`.
fn origin(document: &Document) -> String {
    let session = |name: &str| document.str(&format!("ssh_keywatch.session.{name}"));
    // Who logged in, where it is another one than who acted.
    let login = session("user.id").or_else(|| session("login_uid"));
    let login = login.filter(|uid| document.str("user.id") != Some(*uid));
    let login = login.map(|uid| match session("user.name") {
        Some(name) => shown(name),
        None => format!("uid {uid}"),
    });
    let of = login
        .as_ref()
        .map(|name| format!(" of {name}"))
        .unwrap_or_default();
    let at = |place: Option<&str>| place.map(|place| format!(" at {}", shown(place)));
    let at_source = at(document.str("source.ip")).unwrap_or_default();
    let mut origin = match session("kind") {
        Some("ssh") => format!(", from an SSH session{of}{at_source}"),
        Some("terminal" | "console") => {
            let tty = at(session("tty")).unwrap_or_default();
            format!(", from a login{of}{tty}")
        }
        Some("cron") => format!(", from a cron job{of}"),
        Some("at") => format!(", from an at job{of}"),
        Some("ssm") => format!(", from an SSM session{of}"),
        Some("teleport") => format!(", from a Teleport session{of}"),
        Some("kubelet") => ", from kubelet".to_owned(),
        kind => {
            let unit = match kind {
                Some("unit") => session("unit"),
                Some("user_unit") => session("user_unit"),
                _ => None,
            };
            let unit = unit.map(|unit| format!(", from the unit {}", shown(unit)));
            let login = login.map(|name| format!(", logged in as {name}"));
            unit.into_iter().chain(login).collect()
        }
    };
    if let Some(id) = document.str("container.id") {
        // As much of it as people know it by.
        let short = (id.len() == 64).then(|| id.get(..12)).flatten();
        let id = short.unwrap_or(id);
        let runtime = document.str("container.runtime");
        let runtime = runtime
            .map(|name| format!("{} ", shown(name)))
            .unwrap_or_default();
        let _ = write!(origin, ", in the {runtime}container {}", shown(id));
    }
    let through = document.get("ssh_keywatch.session.through");
    let through: Vec<String> = through
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|name| Some(shown(name.as_str()?)))
        .collect();
    if !through.is_empty() {
        let _ = write!(origin, " through {}", through.join(", "));
    }
    origin
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
