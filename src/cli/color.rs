//! Whether output is coloured.

use std::ffi::OsString;
use std::io::IsTerminal;

use crate::config::Color;

/// Whether to colour what goes to `stream`: on a terminal, unless `NO_COLOR`
/// is set (no-color.org).
#[must_use]
pub fn wanted(color: Color, stream: &impl IsTerminal) -> bool {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    decide(
        color,
        stream.is_terminal(),
        set("NO_COLOR").is_some(),
        set("TERM"),
    )
}

fn decide(color: Color, is_terminal: bool, no_color: bool, term: Option<OsString>) -> bool {
    match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => is_terminal && !no_color && term.is_none_or(|term| term != "dumb"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_that_want_them() {
        let term = |name: &str| Some(OsString::from(name));
        assert!(decide(Color::Auto, true, false, term("xterm")));
        assert!(!decide(Color::Auto, false, false, term("xterm")));
        assert!(!decide(Color::Auto, true, true, term("xterm")));
        assert!(!decide(Color::Auto, true, false, term("dumb")));
        assert!(decide(Color::Always, false, true, term("dumb")));
        assert!(!decide(Color::Never, true, false, term("xterm")));
    }
}
