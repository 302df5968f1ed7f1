//! Alerts for a person's eyes.
//!
//! Owns the layout of an alert as text, for `run` on a terminal and for `tail`.
//! Must not decide about colour (the caller knows tty, `NO_COLOR`, `--color`)
//! and must not let a raw control character through ([`crate::text`]). Fails
//! with `BrokenPipe` when the reader has gone, which stops the sink for good.

use std::fmt::Write as _;
use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Map, Value};

use super::field::{field, number, scalar, strings, text};
use super::{Line, Sink};
use crate::text::{printable, quote_args};

/// What the terminal sink writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Several aligned lines an alert.
    Text,
    /// The line of the log.
    Json,
}

/// How text looks.
#[derive(Clone, Debug)]
pub struct TerminalStyle {
    /// Whether to use colours.
    pub colour: bool,
    /// The zone in which times are shown.
    pub zone: TimeZone,
}

impl TerminalStyle {
    /// With the system's time zone.
    #[must_use]
    pub fn new(colour: bool) -> Self {
        Self {
            colour,
            zone: TimeZone::system(),
        }
    }
}

/// A terminal, pipe or file as a sink.
#[derive(Debug)]
pub struct Terminal<W> {
    out: W,
    format: Format,
    style: TerminalStyle,
    building_blocks: bool,
}

impl<W: Write + Send> Terminal<W> {
    /// Writes to `out`.
    pub fn new(out: W, format: Format, style: TerminalStyle) -> Self {
        Self {
            out,
            format,
            style,
            building_blocks: format == Format::Json,
        }
    }

    /// Shows building blocks, which text leaves out otherwise.
    #[must_use]
    pub fn with_building_blocks(mut self, shown: bool) -> Self {
        self.building_blocks |= shown;
        self
    }
}

impl<W: Write + Send> Sink for Terminal<W> {
    fn name(&self) -> &'static str {
        "terminal"
    }

    fn write(&mut self, line: &Line) -> io::Result<()> {
        if line.is_building_block() && !self.building_blocks {
            return Ok(());
        }
        match self.format {
            Format::Text => self
                .out
                .write_all(render(&line.document, &self.style).as_bytes())?,
            Format::Json => {
                let mut bytes = Vec::with_capacity(line.json.len() + 1);
                bytes.extend_from_slice(line.json.as_bytes());
                bytes.push(b'\n');
                self.out.write_all(&bytes)?;
            }
        }
        self.out.flush()
    }
}

/// A document as text, ending with a newline. An alert takes several lines and
/// an empty one after it, a `state` or `pipeline_error` takes one.
#[must_use]
pub fn render(document: &Map<String, Value>, style: &TerminalStyle) -> String {
    let mut page = Page {
        out: String::new(),
        colour: style.colour,
    };
    let time = time(document, &style.zone);
    match text(document, "event.kind") {
        Some(kind @ ("state" | "pipeline_error")) => {
            let (label, look) = if kind == "state" {
                ("STATE", AnsiColor::Cyan.on_default())
            } else {
                ("LOSS", AnsiColor::Yellow.on_default().bold())
            };
            page.painted(Style::new().dimmed(), &time);
            page.out.push_str("  ");
            page.painted(look, &format!("{label:<8}"));
            page.out.push_str("  ");
            let action = text(document, "event.action");
            let message = text(document, "message");
            page.plain(
                &[action, message]
                    .into_iter()
                    .flatten()
                    .collect::<Vec<_>>()
                    .join(": "),
            );
            page.out.push('\n');
        }
        _ => alert(&mut page, document, &time),
    }
    page.out
}

fn alert(page: &mut Page, document: &Map<String, Value>, time: &str) {
    let (label, look) = severity(document);
    page.painted(Style::new().dimmed(), time);
    page.out.push_str("  ");
    page.painted(look, &format!("{label:<8}"));
    page.out.push_str("  ");
    let title = text(document, "rule.name")
        .or_else(|| text(document, "message"))
        .unwrap_or("alert without a rule");
    page.painted(Style::new().bold(), title);
    page.out.push('\n');

    page.row("file", file(document));
    page.row(
        "final",
        text(document, "ssh_keywatch.file.final.path").map(str::to_owned),
    );
    page.row("key", key(document));
    for (label, list) in [
        ("added", "ssh_keywatch.key.added"),
        ("removed", "ssh_keywatch.key.removed"),
    ] {
        for entry in field(document, list)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            page.row(
                label,
                entry
                    .as_object()
                    .map(key_entry)
                    .or_else(|| entry.as_str().map(str::to_owned)),
            );
        }
        page.row(label, unnamed(document, list));
    }
    page.row("cert", certificate(document));
    let lists = strings(document, "ssh_keywatch.key.authorized_in");
    page.row(
        "logs in",
        (!lists.is_empty()).then(|| format!("by {}", lists.join(", "))),
    );
    page.row("program", program(document));
    let args = strings(document, "process.args");
    page.row("command", (!args.is_empty()).then(|| quote_args(&args)));
    page.row("user", account(document, "user"));
    page.row("session", session(document));
    page.row("lineage", lineage(document));
    page.row("proof", attribution(document));
    page.out.push('\n');
}

/// The page under construction. Everything that reaches it is made printable.
struct Page {
    out: String,
    colour: bool,
}

impl Page {
    fn plain(&mut self, text: &str) {
        self.out.push_str(&printable(text));
    }

    fn painted(&mut self, style: Style, text: &str) {
        if self.colour {
            // Writing to a String cannot fail.
            let _ = write!(self.out, "{style}{}{style:#}", printable(text));
        } else {
            self.plain(text);
        }
    }

    /// One aligned line, if there is something to say.
    fn row(&mut self, label: &str, value: Option<String>) {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            self.out.push_str("    ");
            self.painted(Style::new().dimmed(), &format!("{label:<8}"));
            self.out.push_str("  ");
            self.plain(&value);
            self.out.push('\n');
        }
    }
}

fn time(document: &Map<String, Value>, zone: &TimeZone) -> String {
    let Some(raw) = text(document, "@timestamp") else {
        return "(no time)".to_owned();
    };
    match raw.parse::<Timestamp>() {
        Ok(time) => time
            .to_zoned_datetime(zone.clone())
            .strftime("%Y-%m-%d %H:%M:%S.%3f %:z")
            .to_string(),
        Err(_) => raw.to_owned(),
    }
}

fn severity(document: &Map<String, Value>) -> (&'static str, Style) {
    match number(document, "event.severity").unwrap_or_default() {
        99.. => ("CRITICAL", AnsiColor::White.on(AnsiColor::Red).bold()),
        73.. => ("HIGH", AnsiColor::Red.on_default().bold()),
        47.. => ("MEDIUM", AnsiColor::Yellow.on_default().bold()),
        _ => ("LOW", AnsiColor::Green.on_default().bold()),
    }
}

fn file(document: &Map<String, Value>) -> Option<String> {
    let mut out = text(document, "file.path")?.to_owned();
    if let Some(action) = text(document, "event.action") {
        let _ = write!(out, "  ({action})");
    }
    if let Some(original) = text(document, "file.Ext.original.path") {
        let _ = write!(out, "  was {original}");
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
    let mut parts = Vec::new();
    if let Some(session) = field(document, "ssh_keywatch.session").and_then(Value::as_object) {
        let login = account(session, "user").or_else(|| text(session, "user").map(str::to_owned));
        parts.extend(login.map(|user| format!("login {user}")));
        parts.extend(scalar(session, "id").map(|id| format!("audit session {id}")));
        parts.extend(text(session, "tty").map(|tty| format!("on {tty}")));
    }
    if let Some(address) = text(document, "source.ip") {
        let port = scalar(document, "source.port")
            .map_or_else(String::new, |port| format!(" port {port}"));
        parts.push(format!("from {address}{port}"));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn lineage(document: &Map<String, Value>) -> Option<String> {
    let ancestors: Vec<String> = field(document, "ssh_keywatch.ancestors")
        .and_then(Value::as_array)
        .map(|ancestors| {
            ancestors
                .iter()
                .filter_map(|one| ancestor(one.as_object()?))
                .collect()
        })
        .unwrap_or_default();
    if !ancestors.is_empty() {
        return Some(ancestors.join(" < "));
    }
    ancestor(field(document, "process.parent")?.as_object()?)
}

fn ancestor(process: &Map<String, Value>) -> Option<String> {
    let name = text(process, "executable").or_else(|| text(process, "name"));
    match (name, scalar(process, "pid")) {
        (Some(name), Some(pid)) => Some(format!("{name}[{pid}]")),
        (Some(name), None) => Some(name.to_owned()),
        (None, Some(pid)) => Some(format!("pid {pid}")),
        (None, None) => None,
    }
}

fn attribution(document: &Map<String, Value>) -> Option<String> {
    let method = text(document, "ssh_keywatch.attribution.method")?;
    let certain =
        field(document, "ssh_keywatch.attribution.certain").and_then(Value::as_bool) == Some(true);
    let mut out = match method {
        "none" => {
            return Some("none: the writer had gone before it could be identified".to_owned());
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
    let object = match value {
        Value::String(path) => return Some(path),
        other => other.as_object()?,
    };
    text(object, "executable").or_else(|| text(object, "path"))
}

#[cfg(test)]
mod tests;
