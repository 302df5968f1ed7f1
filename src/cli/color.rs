//! What the terminal can show: colours, how many columns, which characters.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::fd::AsFd;

use crate::config::Color;
use crate::sink::TerminalStyle;

/// How alerts look on `stream`, by what it is and what the environment says.
#[must_use]
pub fn style(color: Color, stream: &(impl IsTerminal + AsFd)) -> TerminalStyle {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let own = terminal_size::terminal_size_of(stream).map(|(width, _)| usize::from(width.0));
    TerminalStyle {
        width: width(set("COLUMNS"), own),
        unicode: has_unicode(set),
        ..TerminalStyle::new(wanted(color, stream))
    }
}

/// The columns: as the user says, or as the terminal does; unknown in a pipe.
fn width(columns: Option<OsString>, own: Option<usize>) -> Option<usize> {
    let said = columns.and_then(|columns| columns.to_str()?.parse().ok());
    said.or(own).filter(|width| *width > 0)
}

/// Whether the locale's character set is UTF-8, by the first variable that is
/// set (locale(7)).
fn has_unicode(set: impl Fn(&str) -> Option<OsString>) -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set);
    let locale = locale.unwrap_or_default().to_string_lossy().to_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

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
    fn the_user_knows_the_width_better_than_the_terminal() {
        let said = |text: &str| Some(OsString::from(text));
        assert_eq!(width(said("100"), Some(80)), Some(100));
        assert_eq!(width(said("wide"), Some(80)), Some(80));
        assert_eq!(width(None, Some(80)), Some(80));
        assert_eq!(width(said("0"), None), None);
        assert_eq!(width(None, None), None);
    }

    #[test]
    fn unicode_is_for_locales_that_have_it() {
        let locale = |pairs: &'static [(&str, &str)]| {
            has_unicode(move |name| {
                let pair = pairs.iter().find(|(own, _)| *own == name);
                pair.map(|(_, value)| OsString::from(value))
            })
        };
        assert!(locale(&[("LANG", "de_DE.UTF-8")]));
        assert!(locale(&[("LC_CTYPE", "C.utf8"), ("LANG", "C")]));
        assert!(!locale(&[("LC_ALL", "C"), ("LANG", "de_DE.UTF-8")]));
        assert!(!locale(&[("LANG", "de_DE.ISO-8859-1")]));
        assert!(!locale(&[]));
    }

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
