//! Where in a text file something is wrong, and how that is shown.
//!
//! Owns the mapping from byte offsets (also of a query inside a TOML string)
//! to file, line and column, and the rendering with the source line and a
//! caret. Must not read files. Cannot fail: an offset outside the text is
//! clamped to it.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use crate::text::{escape_path, is_unsafe};

/// A file's name as errors show it.
#[must_use]
pub fn shown(file: &Path) -> String {
    escape_path(file)
}

/// A text and the file it came from; cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    inner: Arc<(String, String)>,
}

impl Source {
    /// Takes the text of the file that `origin` names.
    #[must_use]
    pub fn new(origin: &Path, text: &str) -> Self {
        Self {
            inner: Arc::new((shown(origin), text.to_owned())),
        }
    }

    /// The file's name as errors show it.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.inner.0
    }

    /// The whole text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.inner.1
    }

    /// A fault at these bytes of the text.
    #[must_use]
    pub fn fault(&self, span: Range<usize>, message: impl Into<String>) -> Fault {
        let text = self.text();
        let start = floor_boundary(text, span.start);
        let end = floor_boundary(text, span.end).max(start);
        Fault {
            source: self.clone(),
            span: start..end,
            message: message.into(),
            help: None,
        }
    }

    /// The place of a TOML string with this span (quotes included) that was
    /// decoded to `value`.
    #[must_use]
    pub fn string(&self, span: Range<usize>, value: &str) -> Site {
        Site {
            source: self.clone(),
            span,
            value: value.into(),
        }
    }
}

/// The place of one string value in a TOML file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    source: Source,
    span: Range<usize>,
    value: Arc<str>,
}

impl Site {
    /// A fault at these bytes of the decoded value.
    #[must_use]
    pub fn fault(&self, within: Range<usize>, message: impl Into<String>) -> Fault {
        let raw = self.source.text().get(self.span.clone());
        let place = |offset| Some(self.span.start + spelled_at(raw?, &self.value, offset)?);
        match (place(within.start), place(within.end)) {
            (Some(start), Some(end)) => self.source.fault(start..end, message),
            _ => self.fault_at_start(message),
        }
    }

    /// A fault that points at the start of the value.
    #[must_use]
    pub fn fault_at_start(&self, message: impl Into<String>) -> Fault {
        let line = self.source.text()[self.span.clone()]
            .lines()
            .next()
            .unwrap_or_default();
        self.source
            .fault(self.span.start..self.span.start + line.len(), message)
    }

    /// The file's name as errors show it.
    #[must_use]
    pub fn origin(&self) -> &str {
        self.source.origin()
    }

    /// Line and column (both from 1, columns in characters) of the value.
    #[must_use]
    pub fn position(&self) -> (usize, usize) {
        position(self.source.text(), self.span.start)
    }
}

/// Something wrong at one place of a text file. `Display` shows it with the
/// file, line, column, source line and a caret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    source: Source,
    span: Range<usize>,
    message: String,
    help: Option<String>,
}

impl Fault {
    /// Adds what to do about it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds what to do about it, where something is known.
    #[must_use]
    pub fn maybe_help(mut self, help: Option<String>) -> Self {
        self.help = help.or(self.help);
        self
    }

    /// What is wrong, without the place.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The file.
    #[must_use]
    pub fn origin(&self) -> &str {
        self.source.origin()
    }

    /// The line, from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        position(self.source.text(), self.span.start).0
    }

    /// The column in characters, from 1.
    #[must_use]
    pub fn column(&self) -> usize {
        position(self.source.text(), self.span.start).1
    }

    /// The whole report, with terminal colours if `styled`.
    #[must_use]
    pub fn render(&self, styled: bool) -> String {
        let message = visible(&self.message, &['\n']);
        let help = self.help.as_ref().map(|help| visible(help, &['\n']));
        let snippet = Snippet::source(self.source.text())
            .path(self.source.origin())
            .annotation(AnnotationKind::Primary.span(self.span.clone()));
        let mut group = Level::ERROR
            .primary_title(message.as_str())
            .element(snippet);
        if let Some(help) = &help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        let renderer = if styled {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        // Of the source line it shows control characters as pictures, but not
        // what is invisible. The escapes that are left are its own colours.
        visible(&renderer.render(&[group]), &['\n', '\u{1b}'])
    }
}

/// The text with a mark for each character that a terminal would obey or hide,
/// save these.
fn visible(text: &str, save: &[char]) -> String {
    let mark = |c: char| {
        if is_unsafe(c) && !save.contains(&c) {
            char::REPLACEMENT_CHARACTER
        } else {
            c
        }
    };
    text.chars().map(mark).collect()
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.render(false))
    }
}

impl std::error::Error for Fault {}

/// The candidate that `word` was probably meant to be.
#[must_use]
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .filter(|(score, _)| *score >= 0.8)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, candidate)| candidate)
}

/// Where in a TOML string's spelling (quotes included) the value's byte
/// `target` is spelled. `None` if the spelling is not that of the value.
fn spelled_at(raw: &str, value: &str, target: usize) -> Option<usize> {
    let multiline = raw.starts_with("\"\"\"") || raw.starts_with("'''");
    let basic = raw.starts_with('"');
    let mut at = if multiline { 3 } else { 1 };
    if multiline {
        // TOML drops a line break right after the opening quotes.
        let body = raw.get(at..)?;
        let trimmed = body.strip_prefix("\r\n").or(body.strip_prefix('\n'));
        at += body.len() - trimmed.unwrap_or(body).len();
    }
    let mut decoded = 0;
    while decoded < target {
        let wanted = value.get(decoded..)?.chars().next()?;
        let rest = raw.get(at..)?;
        let spelled = rest.chars().next()?;
        if basic && spelled == '\\' {
            let escape = escape_length(rest)?;
            at += escape;
            // A backslash at the end of a line stands for nothing.
            if rest.get(1..escape)?.starts_with(char::is_whitespace) {
                continue;
            }
        } else if spelled == wanted {
            at += spelled.len_utf8();
        } else if spelled == '\r' && wanted == '\n' {
            at += 2;
        } else {
            return None;
        }
        decoded += wanted.len_utf8();
    }
    Some(at)
}

/// Length of the escape that this text starts with (TOML 1.1, Strings).
fn escape_length(text: &str) -> Option<usize> {
    match text[1..].chars().next()? {
        'x' => Some(4),
        'u' => Some(6),
        'U' => Some(10),
        blank if blank.is_whitespace() => Some(text.len() - text[1..].trim_start().len()),
        _ => Some(2),
    }
}

fn floor_boundary(text: &str, offset: usize) -> usize {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..floor_boundary(text, offset)];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (
        before.matches('\n').count() + 1,
        before[line_start..].chars().count() + 1,
    )
}
