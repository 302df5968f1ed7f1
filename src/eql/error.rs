//! What is wrong with a query, where, and what to write instead.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

/// The two reasons for which a query is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The text is not EQL, or says something that cannot be decided.
    Invalid,
    /// The text uses a part of EQL that looks at more than one event
    /// (sequences, samples, joins, most pipes): not a mistake of its author.
    Unsupported,
}

/// Why a query was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The offending part, in bytes of the source. Empty at the end of the text.
    pub span: Range<usize>,
    /// What is wrong, in one line.
    pub message: String,
    /// What to write instead, where that is known.
    pub help: Option<String>,
    /// Whether the query is broken or merely beyond this engine.
    pub kind: ErrorKind,
}

impl Error {
    pub(super) fn new(span: Range<usize>, message: impl Into<String>) -> Self {
        Self {
            span,
            message: message.into(),
            help: None,
            kind: ErrorKind::Invalid,
        }
    }

    pub(super) fn unsupported(span: Range<usize>, message: impl Into<String>) -> Self {
        Self {
            kind: ErrorKind::Unsupported,
            ..Self::new(span, message)
        }
    }

    #[must_use]
    pub(super) fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// True if the query uses a part of EQL that needs more than one event.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        self.kind == ErrorKind::Unsupported
    }

    /// Line and column (in characters) of the offending part, both from 1.
    /// `source` is the text that was parsed.
    #[must_use]
    pub fn position(&self, source: &str) -> (usize, usize) {
        let before = &source[..floor(source, self.span.start)];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = before.matches('\n').count() + 1;
        (line, before[line_start..].chars().count() + 1)
    }

    /// The line of [`position`](Self::position).
    #[must_use]
    pub fn line(&self, source: &str) -> usize {
        self.position(source).0
    }

    /// The column of [`position`](Self::position).
    #[must_use]
    pub fn column(&self, source: &str) -> usize {
        self.position(source).1
    }

    /// The message with its line of source and a caret below the offending
    /// part, without colour. `origin` names the source (a file, a rule).
    #[must_use]
    pub fn render(&self, source: &str, origin: &str) -> String {
        let start = floor(source, self.span.start);
        let end = floor(source, self.span.end).max(start);
        let mut group = Level::ERROR.primary_title(self.message.as_str()).element(
            Snippet::source(source)
                .path(origin)
                .annotation(AnnotationKind::Primary.span(start..end)),
        );
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        Renderer::plain().render(&[group])
    }
}

/// The nearest character boundary at or before `offset`: a span that is used
/// with another text than its own must not panic.
fn floor(source: &str, offset: usize) -> usize {
    let mut offset = offset.min(source.len());
    while !source.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.help {
            Some(help) => write!(f, " ({help})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}
