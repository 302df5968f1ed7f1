//! The page under construction: aligned rows, as wide as the terminal.
//!
//! Owns paint, wrapping and the alignment. Everything that reaches it is made
//! printable ([`crate::text`]) before it is measured. Must not know documents.

use std::borrow::Cow;
use std::fmt::Write as _;

use anstyle::Style;
use unicode_width::UnicodeWidthChar as _;

use super::TerminalStyle;
use crate::text::{printable, printable_ascii};

/// Where the text of a row begins: four blanks, the label, two blanks.
const LABEL: usize = 8;
const MARGIN: usize = 4 + LABEL + 2;

/// Narrower terminals are left to wrap by themselves.
const NARROWEST: usize = 40;

pub(super) struct Page<'s> {
    pub(super) out: String,
    style: &'s TerminalStyle,
}

impl<'s> Page<'s> {
    pub(super) fn new(style: &'s TerminalStyle) -> Self {
        Self {
            out: String::new(),
            style,
        }
    }

    fn safe<'t>(&self, text: &'t str) -> Cow<'t, str> {
        if self.style.unicode {
            printable(text)
        } else {
            printable_ascii(text)
        }
    }

    pub(super) fn plain(&mut self, text: &str) {
        let text = self.safe(text);
        self.out.push_str(&text);
    }

    pub(super) fn painted(&mut self, style: Style, text: &str) {
        let text = self.safe(text);
        if self.style.colour {
            // Writing to a String cannot fail.
            let _ = write!(self.out, "{style}{text}{style:#}");
        } else {
            self.out.push_str(&text);
        }
    }

    /// One aligned row.
    pub(super) fn row(&mut self, label: &str, value: &str) {
        self.label(label);
        self.wrapped(value, MARGIN);
    }

    /// One row that is never wrapped, because it is there to be copied.
    pub(super) fn exact(&mut self, label: &str, value: &str) {
        self.label(label);
        self.plain(value);
        self.out.push('\n');
    }

    /// A row of a tree: what is drawn before it, and its text.
    pub(super) fn branch(&mut self, label: &str, drawn: &str, text: &str) {
        self.label(label);
        self.out.push_str(drawn);
        self.wrapped(text, MARGIN + drawn.chars().count());
    }

    fn label(&mut self, label: &str) {
        self.out.push_str("    ");
        self.painted(Style::new().dimmed(), &format!("{label:<LABEL$}"));
        self.out.push_str("  ");
    }

    /// Text that begins at `column` and goes on there in the next line.
    fn wrapped(&mut self, text: &str, column: usize) {
        let text = self.safe(text);
        let width = self.style.width.filter(|width| *width >= NARROWEST);
        // A deep tree may leave too little; then it may stick out.
        let room = width.map_or(usize::MAX, |width| width.saturating_sub(column).max(20));
        for (number, line) in wrap(&text, room).into_iter().enumerate() {
            if number > 0 {
                self.out.extend(std::iter::repeat_n(' ', column));
            }
            self.out.push_str(line);
            self.out.push('\n');
        }
    }
}

/// Cuts text into lines of at most `room` columns, between words where there are
/// any: what is copied from the terminal shall be whole as often as it can.
fn wrap(text: &str, room: usize) -> Vec<&str> {
    let mut lines = Vec::new();
    let (mut start, mut columns, mut blank) = (0, 0, None);
    for (at, c) in text.char_indices() {
        let width = columns_of(c);
        if columns + width > room && at > start {
            // The blank itself is not shown.
            let (end, next) = match blank {
                Some(blank) if blank > start && c != ' ' => (blank, blank + 1),
                _ => (at, at),
            };
            lines.push(text[start..end].trim_end());
            start = next;
            blank = None;
            columns = text[start..at].chars().map(columns_of).sum();
        }
        if c == ' ' && at == start && !lines.is_empty() {
            start = at + 1;
            continue;
        }
        if c == ' ' {
            blank = Some(at);
        }
        columns += width;
    }
    lines.push(&text[start..]);
    lines
}

fn columns_of(c: char) -> usize {
    c.width().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_words_or_where_it_must_be() {
        for (text, room, lines) in [
            ("", 10, vec![""]),
            ("short", 10, vec!["short"]),
            ("exactly 10", 10, vec!["exactly 10"]),
            ("one two three", 8, vec!["one two", "three"]),
            ("abcdefghij", 4, vec!["abcd", "efgh", "ij"]),
            ("a bcdefghij k", 4, vec!["a", "bcde", "fghi", "j k"]),
            ("abcd efgh", 4, vec!["abcd", "efgh"]),
            ("a bc  defg", 4, vec!["a bc", "defg"]),
            ("鍵鍵鍵", 4, vec!["鍵鍵", "鍵"]),
        ] {
            assert_eq!(wrap(text, room), lines, "{text:?}");
        }
    }
}
