//! What an alert says, a row at a time: each function makes the text of one.
//!
//! Owns the words. Must not lay out, paint or escape.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::super::field::{field, number, scalar, strings, text};
use crate::text::quote_args;

/// The rows of an alert, without its lineage: label and text, in order.
pub(super) fn rows(document: &Map<String, Value>) -> Vec<(&'static str, String)> {
    let mut rows = Rows(Vec::new());
    rows.add("file", file(document));
    rows.add(
        "final",
        text(document, "ssh_keywatch.file.final.path").map(str::to_owned),
    );
    rows.add("key", key(document));
    for (label, list) in [
        ("added", "ssh_keywatch.key.added"),
        ("removed", "ssh_keywatch.key.removed"),
    ] {
        let entries = field(document, list).and_then(Value::as_array);
        for entry in entries.into_iter().flatten() {
            rows.add(label, entry.as_object().map(key_entry));
        }
        rows.add(label, unnamed(document, list));
    }
    rows.add("cert", certificate(document));
    let lists = strings(document, "ssh_keywatch.key.authorized_in");
    let by = (!lists.is_empty()).then(|| format!("by {}", lists.join(", ")));
    rows.add("logs in", by);
    rows.add("program", program(document));
    let args = strings(document, "process.args");
    rows.add("command", (!args.is_empty()).then(|| quote_args(&args)));
    rows.add("user", account(document, "user"));
    rows.add("session", session(document));
    rows.0
}

struct Rows(Vec<(&'static str, String)>);

impl Rows {
    fn add(&mut self, label: &'static str, value: Option<String>) {
        let value = value.filter(|value| !value.is_empty());
        self.0.extend(value.map(|value| (label, value)));
    }
}

/// What would undo it, a command a line, to be copied.
pub(super) fn undo(document: &Map<String, Value>) -> Vec<String> {
    let commands = strings(document, "ssh_keywatch.response.commands");
    commands.into_iter().map(str::to_owned).collect()
}

/// How surely the writer is known.
pub(super) fn proof(document: &Map<String, Value>) -> Option<String> {
    attribution(document)
}

/// Whether a comparison found it, rather than somebody who saw it.
pub(super) fn is_found(document: &Map<String, Value>) -> bool {
    text(document, "ssh_keywatch.evidence") == Some("baseline")
}

fn file(document: &Map<String, Value>) -> Option<String> {
    let mut out = text(document, "file.path")?.to_owned();
    if let Some(action) = text(document, "event.action") {
        let _ = write!(out, "  ({action})");
    }
    if let Some(original) = text(document, "file.Ext.original.path") {
        let _ = write!(out, "  was {original}");
    }
    if let Some(target) = text(document, "file.target_path") {
        let _ = write!(out, "  points to {target}");
    }
    Some(out)
}

fn key(document: &Map<String, Value>) -> Option<String> {
    let key = field(document, "ssh_keywatch.key")?.as_object()?;
    let mut parts = Vec::new();
    parts.extend(text(key, "kind").map(|kind| kind.replace('_', " ")));
    let entry = key_entry(key);
    parts.extend((!entry.is_empty()).then_some(entry));
    match key.get("encrypted").and_then(Value::as_bool) {
        Some(true) => parts.push(match (text(key, "cipher"), text(key, "kdf.name")) {
            (Some(cipher), Some(kdf)) => format!("with passphrase ({cipher}, {kdf})"),
            _ => "with passphrase".to_owned(),
        }),
        Some(false) => parts.push("without passphrase".to_owned()),
        None => {}
    }
    if let Some(entries) = number(key, "entries") {
        let noun = if entries == 1 { "key" } else { "keys" };
        parts.push(format!("{entries} {noun}"));
    }
    if text(key, "permissions") == Some("refused") {
        let mode = text(document, "file.mode").unwrap_or("its mode");
        parts.push(format!("[ssh refuses it: {mode} is too open]"));
    }
    if text(key, "belongs_to.state") == Some("different") {
        let path = text(key, "belongs_to.path").unwrap_or("the file beside it");
        parts.push(format!("[{path} is another key's]"));
    }
    if let Some(path) = text(key, "identity_from") {
        parts.push(format!("[as {path} says]"));
    }
    if let Some(damage) = text(key, "damage") {
        parts.push(format!("[{damage}]"));
    }
    if key.get("too_large") == Some(&Value::Bool(true)) {
        parts.push("[too large to be read to its end]".to_owned());
    }
    if let Some(reason) = text(key, "unread") {
        parts.push(format!("[not read: {reason}]"));
    }
    Some(parts.join("  "))
}

/// How many entries of a list the document counts and does not name.
fn unnamed(document: &Map<String, Value>, list: &str) -> Option<String> {
    let count = number(document, &format!("{list}_count"))?;
    let named = field(document, list).and_then(Value::as_array);
    let named = u64::try_from(named.map_or(0, Vec::len)).ok()?;
    let rest = count.checked_sub(named).filter(|rest| *rest > 0)?;
    Some(format!("and {rest} more"))
}

/// For whom a certificate is, how long, and by whom.
fn certificate(document: &Map<String, Value>) -> Option<String> {
    let below = field(document, "ssh_keywatch.key.certificate")?.as_object()?;
    let mut parts = vec![format!(
        "{} {} serial {}",
        text(below, "type").unwrap_or("certificate"),
        quote_args(&[text(below, "key_id").unwrap_or_default()]),
        text(below, "serial").unwrap_or("0"),
    )];
    let principals = strings(below, "principals");
    parts.push(if principals.is_empty() {
        "for anybody".to_owned()
    } else {
        format!("for {}", principals.join(", "))
    });
    parts.extend(text(below, "valid_after").map(|time| format!("from {time}")));
    parts.push(match text(below, "valid_before") {
        Some(time) => format!("until {time}"),
        None => "for ever".to_owned(),
    });
    parts.extend(strings(below, "options").into_iter().map(str::to_owned));
    parts.extend(text(below, "authority.fingerprint").map(|ca| format!("signed by {ca}")));
    Some(parts.join("  "))
}

/// One key, as `ssh-keygen -l` orders it: bits, fingerprint, comment, type.
fn key_entry(key: &Map<String, Value>) -> String {
    let mut parts = Vec::new();
    parts.extend(scalar(key, "bits"));
    parts.extend(scalar(key, "fingerprint"));
    parts.extend(
        text(key, "comment")
            .filter(|comment| !comment.is_empty())
            .map(|comment| quote_args(&[comment])),
    );
    parts.extend(text(key, "type").map(|kind| format!("({kind})")));
    let options = strings(key, "options");
    if !options.is_empty() {
        parts.push(format!("options {}", options.join(",")));
    }
    parts.extend(text(key, "hosts").map(|hosts| format!("of {hosts}")));
    parts.join(" ")
}

fn program(document: &Map<String, Value>) -> Option<String> {
    let process = field(document, "process").and_then(Value::as_object);
    let named =
        process.and_then(|process| text(process, "executable").or_else(|| text(process, "name")));
    let mut out = named
        .map(str::to_owned)
        .or_else(|| process.map(|_| "(unknown program)".to_owned()))?;
    if let Some(pid) = scalar(document, "process.pid") {
        let _ = write!(out, "  pid {pid}");
    }
    if let Some(path) = text(document, "ssh_keywatch.attribution.claimed_executable") {
        // Then it is what it claims to be that was replaced.
        let _ = write!(out, "  [poses as {path}]");
        return Some(out);
    }
    if let Some(path) = text(document, "ssh_keywatch.attribution.known_as") {
        let by = text(document, "ssh_keywatch.attribution.known_by").unwrap_or("its facts");
        let _ = write!(out, "  [is {path}, by {by}]");
    }
    match text(document, "ssh_keywatch.attribution.image") {
        Some("replaced") => out.push_str("  [replaced since: the path names another file now]"),
        Some("foreign") => out.push_str("  [of another mount namespace]"),
        Some("deleted") => out.push_str("  [deleted while it ran]"),
        Some("memfd") => out.push_str("  [runs from memory, no file]"),
        _ => {}
    }
    Some(out)
}

/// `root (0)` from an object with name and id.
fn account(document: &Map<String, Value>, prefix: &str) -> Option<String> {
    let name = text(document, &format!("{prefix}.name"));
    let id = scalar(document, &format!("{prefix}.id"));
    match (name, id) {
        (Some(name), Some(id)) => Some(format!("{name} ({id})")),
        (Some(name), None) => Some(name.to_owned()),
        (None, Some(id)) => Some(format!("uid {id}")),
        (None, None) => None,
    }
}

fn session(document: &Map<String, Value>) -> Option<String> {
    let none = Map::new();
    let session = field(document, "ssh_keywatch.session").and_then(Value::as_object);
    let session = session.unwrap_or(&none);
    let id = text(document, "container.id");
    // A container's own unit is named after it.
    let unit = text(session, "unit").filter(|unit| id.is_none_or(|id| !unit.contains(id)));
    let places: Vec<String> = [
        id.map(|id| container(id, text(document, "container.runtime"))),
        text(session, "user_unit").map(|unit| format!("user unit {unit}")),
        unit.map(|unit| format!("unit {unit}")),
    ]
    .into_iter()
    .flatten()
    .collect();

    let mut parts = Vec::new();
    parts.extend(account(session, "user").map(|user| format!("login {user}")));
    let kind = text(session, "kind").map(|kind| kind.replace('_', " "));
    // A place says itself which it is.
    parts.extend(kind.filter(|kind| !places.iter().any(|place| place.starts_with(kind))));
    let through = strings(session, "through");
    parts.extend((!through.is_empty()).then(|| format!("through {}", through.join(", "))));
    parts.extend(scalar(session, "audit_id").map(|id| format!("audit session {id}")));
    parts.extend(places);
    parts.extend(text(session, "tty").map(|tty| format!("on {tty}")));
    if let Some(address) = text(document, "source.ip") {
        let port = scalar(document, "source.port")
            .map_or_else(String::new, |port| format!(" port {port}"));
        parts.push(format!("from {address}{port}"));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// `container 0123456789ab of docker`: as much of its id as people know it by.
fn container(id: &str, runtime: Option<&str>) -> String {
    let short = (id.len() == 64).then(|| id.get(..12)).flatten();
    let by = runtime.map_or_else(String::new, |name| format!(" of {name}"));
    format!("container {}{by}", short.unwrap_or(id))
}

fn attribution(document: &Map<String, Value>) -> Option<String> {
    let method = text(document, "ssh_keywatch.attribution.method")?;
    let certain =
        field(document, "ssh_keywatch.attribution.certain").and_then(Value::as_bool) == Some(true);
    let mut out = match method {
        "none" => {
            // Of what a comparison found nobody was to be identified.
            let why = text(document, "event.reason")
                .filter(|_| is_found(document))
                .unwrap_or("the writer had gone before it could be identified");
            return Some(format!("none: {why}"));
        }
        _ if certain => format!("{method}, certain"),
        _ => format!("{method}, NOT certain"),
    };
    let candidates =
        field(document, "ssh_keywatch.attribution.candidates").and_then(Value::as_array);
    let candidates: Vec<&str> = candidates
        .into_iter()
        .flatten()
        .filter_map(candidate)
        .collect();
    if !candidates.is_empty() {
        let _ = write!(out, "; one of {}", candidates.join(", "));
    }
    Some(out)
}

fn candidate(value: &Value) -> Option<&str> {
    text(value.as_object()?, "executable")
}
