//! Alerts for a person's eyes.
//!
//! Owns the layout of an alert as text, for `run` on a terminal and for `tail`.
//! Must not decide about colour, width or character set (the caller knows
//! terminal and environment), and must not let a raw control character through ([`crate::text`]). Fails
//! with `BrokenPipe` when the reader has gone, which stops the sink for good.

mod facts;
mod lineage;
mod page;

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Map, Value};

use self::lineage::{Branch, lineage};
use self::page::Page;
use super::field::{number, text};
use super::{Line, Sink};

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
    /// Whether characters beyond ASCII are shown as they are.
    pub unicode: bool,
    /// Columns of the terminal; lines are wrapped to it.
    pub width: Option<usize>,
    /// The zone in which times are shown.
    pub zone: TimeZone,
    /// The clock by which something was so long ago.
    pub now: fn() -> Timestamp,
}

impl TerminalStyle {
    /// Plain text of any width, with the system's time zone and clock.
    #[must_use]
    pub fn new(colour: bool) -> Self {
        Self {
            colour,
            unicode: true,
            width: None,
            zone: TimeZone::system(),
            now: Timestamp::now,
        }
    }
}

/// A terminal, pipe or file as a sink.
#[derive(Debug)]
pub struct Terminal<W> {
    out: W,
    format: Format,
    renderer: Renderer,
    building_blocks: bool,
}

impl<W: Write + Send> Terminal<W> {
    /// Writes to `out`.
    pub fn new(out: W, format: Format, style: TerminalStyle) -> Self {
        Self {
            out,
            format,
            renderer: Renderer::new(style),
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
            Format::Text => {
                let text = self.renderer.render(&line.document);
                self.out.write_all(text.as_bytes())?;
            }
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

/// Documents as text, one after the other.
///
/// An alert takes several lines, a `state` or `pipeline_error` takes one. An
/// alert of the same act as the one before (`ssh_keywatch.act.id`) joins its
/// block, with what is different about it.
#[derive(Debug)]
pub struct Renderer {
    style: TerminalStyle,
    /// The alert before, if nothing came between.
    before: Option<Shown>,
    begun: bool,
}

#[derive(Debug)]
struct Shown {
    act: Option<String>,
    rows: Vec<(&'static str, String)>,
    lineage: Vec<Branch>,
    proof: Option<String>,
    undo: Vec<String>,
}

impl Renderer {
    /// Nothing has been shown yet.
    #[must_use]
    pub fn new(style: TerminalStyle) -> Self {
        Self {
            style,
            before: None,
            begun: false,
        }
    }

    /// A document as text, ending with a newline.
    #[must_use]
    pub fn render(&mut self, document: &Map<String, Value>) -> String {
        let before = self.before.take();
        let shown = match text(document, "event.kind") {
            Some("state" | "pipeline_error") => None,
            _ => Some(Shown::of(document, &self.style)),
        };
        let mut page = Page::new(&self.style);
        let joins = match (&before, &shown) {
            (Some(before), Some(shown)) => before.act.is_some() && before.act == shown.act,
            _ => false,
        };
        if self.begun && !joins && (before.is_some() || shown.is_some()) {
            page.out.push('\n');
        }
        self.begun = true;
        match &shown {
            None => word(&mut page, document, &self.style),
            Some(shown) => {
                heading(&mut page, document, &self.style, joins);
                shown.write(&mut page, before.filter(|_| joins).as_ref());
            }
        }
        let out = page.out;
        self.before = shown;
        out
    }
}

/// Labels of what every alert of an act should tell: where one does not, saying
/// nothing would mean "as before".
const TOLD: [&str; 4] = ["program", "command", "user", "session"];

impl Shown {
    fn of(document: &Map<String, Value>, style: &TerminalStyle) -> Self {
        let mut rows = facts::rows(document);
        rows.extend(between(document, &style.zone).map(|when| ("when", when)));
        Self {
            act: text(document, "ssh_keywatch.act.id").map(str::to_owned),
            rows,
            lineage: lineage(document, style.unicode),
            proof: facts::proof(document),
            undo: facts::undo(document),
        }
    }

    /// All of it; or, in a block, what is not as in the alert before.
    fn write(&self, page: &mut Page<'_>, before: Option<&Self>) {
        for row in &self.rows {
            // The file and its key are what an alert is about.
            let always = matches!(row.0, "file" | "key");
            if always || before.is_none_or(|before| !before.rows.contains(row)) {
                page.row(row.0, &row.1);
            }
        }
        if let Some(before) = before {
            for label in TOLD {
                let has = |shown: &Self| shown.rows.iter().any(|row| row.0 == label);
                if has(before) && !has(self) {
                    page.row(label, "unknown");
                }
            }
        }
        if before.is_none_or(|before| before.lineage != self.lineage) {
            for (number, branch) in self.lineage.iter().enumerate() {
                let label = if number == 0 { "lineage" } else { "" };
                page.branch(label, &branch.drawn, &branch.text);
            }
        }
        if before.is_none_or(|before| before.proof != self.proof)
            && let Some(proof) = &self.proof
        {
            page.row("proof", proof);
        }
        for (number, command) in self.undo.iter().enumerate() {
            page.exact(if number == 0 { "undo" } else { "" }, command);
        }
    }
}

/// The one line of a document that is no alert.
fn word(page: &mut Page<'_>, document: &Map<String, Value>, style: &TerminalStyle) {
    let (label, look) = if text(document, "event.kind") == Some("state") {
        ("STATE", AnsiColor::Cyan.on_default())
    } else {
        ("LOSS", AnsiColor::Yellow.on_default().bold())
    };
    page.painted(Style::new().dimmed(), &time(document, &style.zone));
    page.out.push_str("  ");
    page.painted(look, &format!("{label:<8}"));
    page.out.push_str("  ");
    let action = text(document, "event.action");
    let message = text(document, "message");
    let words: Vec<&str> = [action, message].into_iter().flatten().collect();
    page.plain(&words.join(": "));
    page.out.push('\n');
}

/// When, how severe, which rule.
fn heading(page: &mut Page<'_>, document: &Map<String, Value>, style: &TerminalStyle, joins: bool) {
    let (label, look) = severity(document);
    page.painted(Style::new().dimmed(), &time(document, &style.zone));
    page.out.push_str("  ");
    page.painted(look, &format!("{label:<8}"));
    page.out.push_str("  ");
    let title = text(document, "rule.name")
        .or_else(|| text(document, "message"))
        .unwrap_or("alert without a rule");
    page.painted(Style::new().bold(), title);
    let note = if joins {
        Some("same act".to_owned())
    } else {
        let age = age(document, (style.now)());
        // Its time is not that of the deed.
        match (facts::is_found(document), age) {
            (true, Some(age)) => Some(format!("found {age}")),
            (true, None) => Some("found".to_owned()),
            (false, age) => age,
        }
    };
    if let Some(note) = note {
        page.painted(Style::new().dimmed(), &format!("  ({note})"));
    }
    page.out.push('\n');
}

/// How long ago it was, unless that is just now.
fn age(document: &Map<String, Value>, now: Timestamp) -> Option<String> {
    let time: Timestamp = text(document, "@timestamp")?.parse().ok()?;
    let seconds = now.duration_since(time).as_secs();
    Some(match seconds {
        ..10 => return None,
        10..60 => format!("{seconds} s ago"),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    })
}

/// Since when and until when what a comparison found can have happened.
fn between(document: &Map<String, Value>, zone: &TimeZone) -> Option<String> {
    if !facts::is_found(document) {
        return None;
    }
    let until = local(text(document, "event.end")?, zone);
    Some(match text(document, "event.start") {
        Some(since) => format!("between {} and {until}", local(since, zone)),
        None => format!("before {until}"),
    })
}

fn time(document: &Map<String, Value>, zone: &TimeZone) -> String {
    let raw = text(document, "@timestamp");
    raw.map_or_else(|| "(no time)".to_owned(), |raw| local(raw, zone))
}

/// A time of a document in this zone.
fn local(raw: &str, zone: &TimeZone) -> String {
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

#[cfg(test)]
mod tests;
