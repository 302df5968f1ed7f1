//! Lucene's regular expressions, translated for the `regex` crate, which takes
//! time linear in the text.
//!
//! Lucene's language has no anchors (the whole text must match), no escapes
//! but for single characters and the classes `\d \s \w` of ASCII, and some
//! operators of its own: `#` for nothing,
//! `@` for anything, `"…"` for literal text. What has no translation (`&`,
//! `~`, `<1-9>`) is refused with a reason. Case is folded for ASCII letters only,
//! so it is done here and not by the crate, which folds all of Unicode.

use std::fmt::Write;

use regex::{Regex, RegexBuilder};

/// Longest pattern, in characters, as in Elasticsearch (`index.max_regex_length`).
const MAX_LENGTH: usize = 1000;
/// Most memory that one compiled expression may take, in bytes.
const MAX_SIZE: usize = 1 << 20;

/// Why a pattern is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) message: String,
    pub(super) help: Option<&'static str>,
}

fn problem<T>(message: impl Into<String>) -> Result<T, Problem> {
    Err(Problem {
        message: message.into(),
        help: None,
    })
}

fn refuse<T>(message: impl Into<String>, help: &'static str) -> Result<T, Problem> {
    Err(Problem {
        message: message.into(),
        help: Some(help),
    })
}

/// One expression that matches whole texts that match one of `translated`.
pub(super) fn compile(translated: &[String]) -> Result<Regex, Problem> {
    let all = format!(r"\A(?:{})\z", translated.join("|"));
    RegexBuilder::new(&all)
        .size_limit(MAX_SIZE)
        .dfa_size_limit(MAX_SIZE)
        .build()
        .map_err(|_| Problem {
            message: "this regular expression is too large or too deeply nested".to_owned(),
            help: Some("use smaller repetitions, or split it into several rules"),
        })
}

/// A Lucene pattern in the crate's syntax, as one group.
pub(super) fn translate(pattern: &str, fold: bool) -> Result<String, Problem> {
    if pattern.chars().count() > MAX_LENGTH {
        return problem(format!(
            "this regular expression is longer than {MAX_LENGTH} characters"
        ));
    }
    let mut translator = Translator {
        rest: pattern.chars(),
        out: String::from("(?:"),
        open: Vec::new(),
        item: None,
        fold,
    };
    // An empty pattern matches the empty text; an empty part of one is an error.
    if !pattern.is_empty() {
        while let Some(c) = translator.rest.next() {
            translator.step(c)?;
        }
        translator.complete("the pattern ends")?;
    }
    if !translator.open.is_empty() {
        return problem("a `(` in this regular expression is not closed");
    }
    translator.out.push(')');
    Ok(translator.out)
}

/// What a backslash and what follows it stand for.
enum Escaped {
    Char(char),
    Class {
        negated: bool,
        /// As they stand between brackets, in the crate's syntax.
        ranges: &'static str,
    },
}

struct Translator<'p> {
    rest: std::str::Chars<'p>,
    out: String,
    /// Where in `out` each open group starts.
    open: Vec<usize>,
    /// Where in `out` the last complete item starts; `None` at the start of a
    /// group or alternative.
    item: Option<usize>,
    fold: bool,
}

impl Translator<'_> {
    fn peek(&self) -> Option<char> {
        self.rest.clone().next()
    }

    fn eat(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.rest.next();
        }
        found
    }

    /// Lucene wants something before `|`, `)` and the end.
    fn complete(&self, whence: &str) -> Result<(), Problem> {
        match self.item {
            Some(_) => Ok(()),
            None => problem(format!(
                "{whence} where this regular expression needs something to match"
            )),
        }
    }

    fn step(&mut self, c: char) -> Result<(), Problem> {
        match c {
            '|' => {
                self.complete("`|` stands")?;
                self.out.push('|');
                self.item = None;
            }
            '(' if self.eat(')') => self.push("(?:)"),
            '(' => {
                self.open.push(self.out.len());
                self.out.push_str("(?:");
                self.item = None;
            }
            ')' => {
                let Some(start) = self.open.pop() else {
                    return problem("a `)` in this regular expression closes nothing");
                };
                self.complete("`)` stands")?;
                self.out.push(')');
                self.item = Some(start);
            }
            '?' | '*' | '+' => self.repeat(&c.to_string())?,
            '{' => {
                let bounds = self.bounds()?;
                self.repeat(&bounds)?;
            }
            '[' => self.class()?,
            '.' => self.push("(?s:.)"),
            '#' => self.push(r"[^\x{0}-\x{10FFFF}]"),
            '@' => self.push("(?s:.*)"),
            '"' => self.literal()?,
            '\\' => match self.escaped()? {
                Escaped::Char(c) => self.character(c),
                Escaped::Class { negated, ranges } => {
                    let caret = if negated { "^" } else { "" };
                    self.push(&format!("[{caret}{ranges}]"));
                }
            },
            '&' => {
                return refuse(
                    "`&` (both at once) in a regular expression is not supported",
                    "write two conditions joined by `and`, or `\\&` for the character",
                );
            }
            '~' => {
                return refuse(
                    "`~` (anything but) in a regular expression is not supported",
                    "write `not field regex …`, or `\\~` for the character",
                );
            }
            '<' => {
                return refuse(
                    "`<…>` (a range of numbers) in a regular expression is not supported",
                    "spell the digits, as in `[1-9][0-9]?`, or write `\\<` for the character",
                );
            }
            _ => self.character(c),
        }
        Ok(())
    }

    fn push(&mut self, item: &str) {
        self.item = Some(self.out.len());
        self.out.push_str(item);
    }

    fn character(&mut self, c: char) {
        self.item = Some(self.out.len());
        if self.fold && c.is_ascii_alphabetic() {
            let _ = write!(
                self.out,
                "[{}{}]",
                c.to_ascii_lowercase(),
                c.to_ascii_uppercase()
            );
        } else {
            let _ = write!(self.out, r"\x{{{:x}}}", u32::from(c));
        }
    }

    /// Wraps what is repeated: to Lucene `a+?` is `(a+)?`, to the crate a lazy `a+`.
    fn repeat(&mut self, operator: &str) -> Result<(), Problem> {
        let Some(start) = self.item else {
            return problem(format!(
                "`{operator}` in this regular expression repeats nothing"
            ));
        };
        self.out.insert_str(start, "(?:");
        self.out.push(')');
        self.out.push_str(operator);
        // One item again, which a further repetition may wrap.
        self.out.insert_str(start, "(?:");
        self.out.push(')');
        Ok(())
    }

    /// From behind `{` to `}`.
    fn bounds(&mut self) -> Result<String, Problem> {
        let malformed = || Problem {
            message: "`{` in this regular expression is no repetition".to_owned(),
            help: Some("write `{2}`, `{2,}` or `{2,5}`, or `\\{` for the character"),
        };
        let least = self.count().ok_or_else(malformed)?;
        let most = match self.eat(',') {
            false => Some(least),
            true if self.peek() == Some('}') => None,
            true => Some(self.count().ok_or_else(malformed)?),
        };
        if !self.eat('}') || most.is_some_and(|most| most < least) {
            return Err(malformed());
        }
        Ok(match most {
            Some(most) => format!("{{{least},{most}}}"),
            None => format!("{{{least},}}"),
        })
    }

    fn count(&mut self) -> Option<u32> {
        let mut digits = String::new();
        while let Some(digit) = self.peek().filter(char::is_ascii_digit) {
            digits.push(digit);
            self.rest.next();
        }
        digits.parse().ok()
    }

    fn literal(&mut self) -> Result<(), Problem> {
        let start = self.out.len();
        self.out.push_str("(?:");
        loop {
            match self.rest.next() {
                Some('"') => break,
                Some(c) => self.character(c),
                None => return problem("a `\"` in this regular expression is not closed"),
            }
        }
        self.out.push(')');
        self.item = Some(start);
        Ok(())
    }

    /// What stands behind a backslash: a character, or one of the classes that
    /// Lucene has since version 9 (LUCENE-9336), which are of ASCII alone.
    fn escaped(&mut self) -> Result<Escaped, Problem> {
        let Some(c) = self.rest.next() else {
            return problem("this regular expression ends with a lone backslash");
        };
        let ranges = match c {
            'd' | 'D' => "0-9",
            's' | 'S' => r"\x20\t\n\r",
            'w' | 'W' => "a-zA-Z0-9_",
            _ => return Ok(Escaped::Char(c)),
        };
        Ok(Escaped::Class {
            negated: c.is_ascii_uppercase(),
            ranges,
        })
    }

    /// From behind `[` to `]`.
    fn class(&mut self) -> Result<(), Problem> {
        const UNCLOSED: &str = "a `[` in this regular expression is not closed";
        let start = self.out.len();
        let negated = self.eat('^');
        self.out.push_str(if negated { "[^" } else { "[" });
        loop {
            match self.class_character(UNCLOSED)? {
                Escaped::Char(first) => self.class_range(first, UNCLOSED)?,
                Escaped::Class {
                    negated: false,
                    ranges,
                } => self.out.push_str(ranges),
                Escaped::Class { ranges, .. } => {
                    let _ = write!(self.out, "[^{ranges}]");
                }
            }
            // The first character is taken as it is, also if it is `]`.
            if self.eat(']') {
                break;
            }
        }
        self.out.push(']');
        self.item = Some(start);
        Ok(())
    }

    fn class_character(&mut self, unclosed: &str) -> Result<Escaped, Problem> {
        match self.rest.next() {
            Some('\\') => self.escaped(),
            Some(c) => Ok(Escaped::Char(c)),
            None => problem(unclosed),
        }
    }

    /// One character of a class, or from it to the one behind a dash.
    fn class_range(&mut self, first: char, unclosed: &str) -> Result<(), Problem> {
        let mut last = first;
        if self.eat('-') {
            last = match self.class_character(unclosed)? {
                Escaped::Char(last) => last,
                Escaped::Class { .. } => {
                    return problem(format!(
                        "the range from `{first}` in this regular expression ends with a class"
                    ));
                }
            };
        }
        if last < first {
            return problem(format!(
                "the range `{first}-{last}` in this regular expression is empty"
            ));
        }
        self.range(first, last);
        if self.fold {
            self.shifted(first, last, 'a', 'z');
            self.shifted(first, last, 'A', 'Z');
        }
        Ok(())
    }

    fn range(&mut self, first: char, last: char) {
        let _ = write!(
            self.out,
            r"\x{{{:x}}}-\x{{{:x}}}",
            u32::from(first),
            u32::from(last)
        );
    }

    /// The part of a range that lies within `low..=high`, in the other case.
    fn shifted(&mut self, first: char, last: char, low: char, high: char) {
        let other = |c: char| {
            if c.is_ascii_lowercase() {
                c.to_ascii_uppercase()
            } else {
                c.to_ascii_lowercase()
            }
        };
        let (first, last) = (first.max(low), last.min(high));
        if first <= last {
            self.range(other(first), other(last));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, text: &str, fold: bool) -> bool {
        compile(&[translate(pattern, fold).unwrap()])
            .unwrap()
            .is_match(text)
    }

    #[test]
    fn patterns_mean_what_they_mean_to_lucene() {
        let cases = [
            ("ab.", "aba", true),
            ("a.b", "a\nb", true),
            ("abc?", "ab", true),
            ("ab+", "abbb", true),
            ("ab*", "a", true),
            ("a{2}", "aa", true),
            ("a{2,4}", "aaaaa", false),
            ("a{2,}", "aaaaa", true),
            ("abc|xyz", "xyz", true),
            ("abc|xyz", "abcxyz", false),
            ("abc(def)?", "abcdef", true),
            ("[abc]", "b", true),
            ("[a-c]", "d", false),
            ("[-abc]", "-", true),
            (r"[abc\-]", "-", true),
            ("[^abc]", "d", true),
            ("[]a]", "]", true),
            ("[^-]", "-", false),
            ("bc", "abcd", false),
            ("^a$", "a", false),
            ("^a$", "^a$", true),
            (r"\@", "@", true),
            ("\"john@smith.com\"", "john@smith.com", true),
            ("\"ab\"+", "abab", true),
            ("#", "", false),
            ("#|abc", "abc", true),
            ("a@", "a\nbc", true),
            ("()", "", true),
            ("", "", true),
            ("", "a", false),
            // Not lazy, but optional.
            ("a+?", "", true),
            ("(a{2})?", "a", false),
            (r"\n", "n", true),
            ("[&&]", "&", true),
            ("[a[]", "[", true),
            ("ü{2}", "üü", true),
            (r"\d+", "0123456789", true),
            (r"\d", "d", false),
            (r"\d", "٣", false),
            (r"\D", "d", true),
            (r"\D", "7", false),
            (r"\w+", "aZ_9", true),
            (r"\w", "ä", false),
            (r"\W", "ä", true),
            (r"\s+", " \t\r\n", true),
            (r"\s", "\u{b}", false),
            (r"\S", "\u{a0}", true),
            (r"[\d.]+", "1.2", true),
            (r"[^\s/]+", "a b", false),
            (r"[^\s/]+", "ab", true),
            (r"[\D]", "1", false),
            (r"[\W7]+", "7-", true),
            (r"a\d{2}?", "a", true),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(matches(pattern, text, false), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn folding_is_ascii_only() {
        assert!(matches("Value-[A-C]x", "vALUE-bX", true));
        assert!(matches("[Y-b]", "B", true));
        assert!(!matches("[^z]", "Z", true));
        assert!(!matches("k", "\u{212a}", true));
        assert!(!matches("ü", "Ü", true));
        assert!(!matches("a", "A", false));
    }

    #[test]
    fn what_is_no_pattern_is_refused_with_its_reason() {
        let cases = [
            (
                r"[a-\d]",
                "the range from `a` in this regular expression ends with a class",
            ),
            ("(a", "a `(` in this regular expression is not closed"),
            ("a)", "a `)` in this regular expression closes nothing"),
            ("[a", "a `[` in this regular expression is not closed"),
            (
                "[b-a]",
                "the range `b-a` in this regular expression is empty",
            ),
            ("*a", "`*` in this regular expression repeats nothing"),
            (
                "a|",
                "the pattern ends where this regular expression needs something to match",
            ),
            (
                "(|a)",
                "`|` stands where this regular expression needs something to match",
            ),
            ("a{,2}", "`{` in this regular expression is no repetition"),
            ("a{3,2}", "`{` in this regular expression is no repetition"),
            ("\"a", "a `\"` in this regular expression is not closed"),
            ("a\\", "this regular expression ends with a lone backslash"),
            (
                "a&b",
                "`&` (both at once) in a regular expression is not supported",
            ),
            (
                "~a",
                "`~` (anything but) in a regular expression is not supported",
            ),
            (
                "<1-9>",
                "`<…>` (a range of numbers) in a regular expression is not supported",
            ),
        ];
        for (pattern, message) in cases {
            assert_eq!(
                translate(pattern, false).unwrap_err().message,
                message,
                "{pattern}"
            );
        }
        let long = "a".repeat(MAX_LENGTH + 1);
        assert!(translate(&long, false).is_err());
    }

    #[test]
    fn costly_patterns_are_refused() {
        for pattern in [
            "((a{1000}){1000}){1000}".to_owned(),
            "(".repeat(400) + "a" + &")".repeat(400),
        ] {
            let translated = translate(&pattern, false).unwrap();
            assert!(compile(&[translated]).is_err(), "{pattern}");
        }
    }
}
