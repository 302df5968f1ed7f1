//! Text to tokens.
//!
//! The token list ends with [`Token::End`] or, where the text is no token,
//! with [`Token::Invalid`], so that a parser error further to the front is
//! reported first.

use std::ops::Range;

use super::error::Error;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token<'s> {
    /// A keyword, a part of a field's name, or a function.
    Word(&'s str),
    /// A word with `~` right behind it: `like~`, `in~`, `endsWith~`.
    WordTilde(&'s str),
    /// A name in backticks, unquoted.
    Quoted(String),
    /// Text, with its escapes resolved.
    Text(String),
    /// A whole number, without sign.
    Int(u64),
    Float(f64),
    Symbol(Symbol),
    End,
    Invalid(Error),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Symbol {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    Colon,
    Plus,
    Minus,
    Star,
    Slash,
    Percent,
    Dot,
    Comma,
    Open,
    Close,
    OpenBracket,
    CloseBracket,
    Pipe,
    Question,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Spanned<'s> {
    pub(super) token: Token<'s>,
    pub(super) span: Range<usize>,
}

pub(super) fn lex(source: &str) -> Vec<Spanned<'_>> {
    let mut lexer = Lexer { source, at: 0 };
    let mut tokens = Vec::new();
    loop {
        let (start, result) = match lexer.skip_blanks() {
            Ok(()) => (lexer.at, lexer.next()),
            Err(error) => (error.span.start, Err(error)),
        };
        let token = result.unwrap_or_else(Token::Invalid);
        let span = match &token {
            Token::Invalid(error) => error.span.clone(),
            _ => start..lexer.at,
        };
        let last = matches!(token, Token::End | Token::Invalid(_));
        tokens.push(Spanned { token, span });
        if last {
            return tokens;
        }
    }
}

struct Lexer<'s> {
    source: &'s str,
    at: usize,
}

impl<'s> Lexer<'s> {
    fn rest(&self) -> &'s str {
        &self.source[self.at..]
    }

    fn eat(&mut self, prefix: &str) -> bool {
        let found = self.rest().starts_with(prefix);
        if found {
            self.at += prefix.len();
        }
        found
    }

    /// Takes characters for as long as they satisfy `wanted`.
    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'s str {
        let rest = self.rest();
        let length = rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    fn skip_blanks(&mut self) -> Result<(), Error> {
        loop {
            self.take_while(|c| matches!(c, ' ' | '\t' | '\r' | '\n'));
            let start = self.at;
            if self.eat("//") {
                self.take_while(|c| c != '\n');
            } else if self.eat("/*") {
                let Some(end) = self.rest().find("*/") else {
                    return Err(Error::new(start..start + 2, "this comment is not closed")
                        .with_help("end it with `*/`"));
                };
                self.at += end + 2;
            } else {
                return Ok(());
            }
        }
    }

    fn next(&mut self) -> Result<Token<'s>, Error> {
        let Some(first) = self.rest().chars().next() else {
            return Ok(Token::End);
        };
        match first {
            'a'..='z' | 'A'..='Z' | '_' | '@' => Ok(self.word()),
            '0'..='9' => self.number(),
            '.' if self.rest()[1..].starts_with(|c: char| c.is_ascii_digit()) => self.number(),
            '"' => self.text(),
            '`' => self.quoted(),
            _ => self.symbol(first),
        }
    }

    fn word(&mut self) -> Token<'s> {
        let start = self.at;
        self.at += 1;
        self.take_while(is_word);
        let word = &self.source[start..self.at];
        if self.eat("~") {
            Token::WordTilde(word)
        } else {
            Token::Word(word)
        }
    }

    fn number(&mut self) -> Result<Token<'s>, Error> {
        let start = self.at;
        let digits = |c: char| c.is_ascii_digit();
        self.take_while(digits);
        let mut whole = true;
        if self.eat(".") {
            whole = false;
            self.take_while(digits);
        }
        let before_exponent = self.at;
        if self.eat("e") || self.eat("E") {
            let _sign = self.eat("+") || self.eat("-");
            if self.take_while(digits).is_empty() {
                self.at = before_exponent;
            } else {
                whole = false;
            }
        }
        let spelled = &self.source[start..self.at];
        if self.rest().starts_with(is_word) {
            self.take_while(is_word);
            return Err(Error::new(
                start..self.at,
                format!(
                    "`{}` is neither a number nor a name",
                    &self.source[start..self.at]
                ),
            )
            .with_help("a part of a field's name that starts with a digit stands in backticks"));
        }
        if whole && let Ok(number) = spelled.parse() {
            return Ok(Token::Int(number));
        }
        spelled
            .parse()
            .ok()
            .filter(|number: &f64| number.is_finite())
            .map(Token::Float)
            .ok_or_else(|| Error::new(start..self.at, "this number is too large"))
    }

    fn text(&mut self) -> Result<Token<'s>, Error> {
        let start = self.at;
        if self.eat("\"\"\"") {
            return self.raw_text(start);
        }
        self.at += 1;
        let mut text = String::new();
        loop {
            let at = self.at;
            let Some(c) = self.rest().chars().next().filter(|c| !"\r\n".contains(*c)) else {
                return Err(
                    Error::new(start..start + 1, "this string is not closed on its line")
                        .with_help(
                            "end it with `\"`; a string over several lines stands between `\"\"\"`",
                        ),
                );
            };
            self.at += c.len_utf8();
            match c {
                '"' => return Ok(Token::Text(text)),
                '\\' => text.push(self.escape(at)?),
                _ => text.push(c),
            }
        }
    }

    /// The part of an escape behind its backslash, which stands at `start`.
    fn escape(&mut self, start: usize) -> Result<char, Error> {
        let c = self.rest().chars().next();
        self.at += c.map_or(0, char::len_utf8);
        Ok(match c {
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('\\') => '\\',
            Some('"') => '"',
            // Reserved by the reference, but Elastic's own rules write it.
            Some('\'') => '\'',
            Some('u') => return self.unicode_escape(start),
            _ => {
                let escape = &self.source[start..self.at];
                return Err(Error::new(
                    start..self.at,
                    format!("`{}` is not an escape", escape.escape_debug_but_backslash()),
                )
                .with_help(
                    "write a backslash as `\\\\`, or the whole string between `\"\"\"`, where nothing is escaped",
                ));
            }
        })
    }

    fn unicode_escape(&mut self, start: usize) -> Result<char, Error> {
        let open = self.eat("{");
        let digits = self.take_while(|c| c.is_ascii_hexdigit());
        let closed = open && self.eat("}");
        if !closed || !(2..=8).contains(&digits.len()) {
            return Err(
                Error::new(start..self.at, "this is not a Unicode escape").with_help(
                    "write `\\u{…}` with two to eight hexadecimal digits, as in `\\u{200f}`",
                ),
            );
        }
        u32::from_str_radix(digits, 16)
            .ok()
            .and_then(char::from_u32)
            .ok_or_else(|| {
                Error::new(
                    start..self.at,
                    format!("there is no Unicode character {digits}"),
                )
            })
    }

    fn raw_text(&mut self, start: usize) -> Result<Token<'s>, Error> {
        let rest = self.rest();
        let Some(mut end) = rest.find("\"\"\"") else {
            return Err(
                Error::new(start..start + 3, "this raw string is not closed")
                    .with_help("end it with `\"\"\"`"),
            );
        };
        // Up to two quotes more belong to the text, as in `"""say "hi""""`.
        for _ in 0..2 {
            if rest[end + 3..].starts_with('"') {
                end += 1;
            }
        }
        self.at += end + 3;
        Ok(Token::Text(rest[..end].to_owned()))
    }

    fn quoted(&mut self) -> Result<Token<'s>, Error> {
        let start = self.at;
        self.at += 1;
        let mut name = String::new();
        loop {
            name.push_str(self.take_while(|c| c != '`'));
            if self.eat("``") {
                name.push('`');
            } else if self.eat("`") {
                return Ok(Token::Quoted(name));
            } else {
                return Err(
                    Error::new(start..start + 1, "this name in backticks is not closed")
                        .with_help("end it with a backtick; a backtick in a name is written twice"),
                );
            }
        }
    }

    fn symbol(&mut self, first: char) -> Result<Token<'s>, Error> {
        let start = self.at;
        for (spelling, symbol) in SYMBOLS {
            if self.eat(spelling) {
                if *symbol == Symbol::Question && self.rest().starts_with(['"', '\'']) {
                    return Err(
                        Error::new(start..start + 2, "`?` before a string is not EQL")
                            .with_help("write a raw string between `\"\"\"`"),
                    );
                }
                return Ok(Token::Symbol(*symbol));
            }
        }
        for (spelling, message, help) in MISTAKES {
            if self.eat(spelling) {
                return Err(Error::new(start..self.at, *message).with_help(*help));
            }
        }
        self.at += first.len_utf8();
        let shown = if first.is_control() || first.is_whitespace() {
            format!("U+{:04X}", u32::from(first))
        } else {
            format!("`{first}`")
        };
        Err(Error::new(
            start..self.at,
            format!("{shown} has no meaning here"),
        ))
    }
}

/// Shows an offending escape without letting control characters through.
trait EscapeDebug {
    fn escape_debug_but_backslash(&self) -> String;
}

impl EscapeDebug for str {
    fn escape_debug_but_backslash(&self) -> String {
        self.chars()
            .map(|c| match c {
                '\\' | '"' | '\'' => c.to_string(),
                _ => c.escape_debug().to_string(),
            })
            .collect()
    }
}

pub(super) fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Longer spellings before their beginnings; `=` and `!` alone are mistakes.
const SYMBOLS: &[(&str, Symbol)] = &[
    ("==", Symbol::Equal),
    ("!=", Symbol::NotEqual),
    ("<=", Symbol::LessEqual),
    (">=", Symbol::GreaterEqual),
    ("<", Symbol::Less),
    (">", Symbol::Greater),
    (":", Symbol::Colon),
    ("+", Symbol::Plus),
    ("-", Symbol::Minus),
    ("*", Symbol::Star),
    ("/", Symbol::Slash),
    ("%", Symbol::Percent),
    (".", Symbol::Dot),
    (",", Symbol::Comma),
    ("(", Symbol::Open),
    (")", Symbol::Close),
    ("[", Symbol::OpenBracket),
    ("]", Symbol::CloseBracket),
    ("|", Symbol::Pipe),
    ("?", Symbol::Question),
];

const MISTAKES: &[(&str, &str, &str)] = &[
    (
        "'",
        "a string in single quotes is not EQL",
        "write it in double quotes",
    ),
    (
        "=",
        "`=` is not an operator",
        "write `==` for the same text, `:` for text with wildcards in any case",
    ),
    ("!:", "`!:` is not an operator", "write `not field : \"…\"`"),
    ("!", "`!` is not an operator", "write `not`"),
    ("&&", "`&&` is not an operator", "write `and`"),
    ("&", "`&` is not an operator", "write `and`"),
    (
        "~",
        "`~` stands right behind an operator or a function",
        "write `in~`, `like~`, `regex~` or `function~(…)`, without a blank",
    ),
    (
        ";",
        "`;` has no meaning here",
        "a query is one condition; leave it out",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(source: &str) -> Vec<Token<'_>> {
        lex(source).into_iter().map(|s| s.token).collect()
    }

    #[test]
    fn strings_resolve_their_escapes() {
        let cases = [
            (r#""a\n\r\t\\\"\'\b\f""#, "a\n\r\t\\\"'\u{8}\u{c}"),
            (
                r#""\u{200f}\u{200F}\u{0000200f}\u{41}""#,
                "\u{200f}\u{200f}\u{200f}A",
            ),
            (r#""*\\red\\x.*""#, r"*\red\x.*"),
            (r#""""no \n " escapes""""#, r#"no \n " escapes"#),
            (r#""""say "hi"""""#, r#"say "hi""#),
            ("\"\"\"two\nlines\"\"\"", "two\nlines"),
            (r#""""#, ""),
            (r#""""""""#, ""),
        ];
        for (source, expected) in cases {
            assert_eq!(
                tokens(source),
                [Token::Text(expected.to_owned()), Token::End],
                "{source}"
            );
        }
    }

    #[test]
    fn numbers() {
        let cases = [
            ("42", Token::Int(42)),
            ("42.5", Token::Float(42.5)),
            ("4.", Token::Float(4.0)),
            (".5", Token::Float(0.5)),
            ("1e3", Token::Float(1000.0)),
            ("1.5E-3", Token::Float(0.0015)),
            (
                "18446744073709551616",
                Token::Float(18_446_744_073_709_551_616.0),
            ),
        ];
        for (source, expected) in cases {
            assert_eq!(tokens(source), [expected, Token::End], "{source}");
        }
    }

    #[test]
    fn names_tildes_and_comments() {
        assert_eq!(
            tokens("@timestamp // to the end\n`my``field` /* in\nbetween */ like~ in ~"),
            [
                Token::Word("@timestamp"),
                Token::Quoted("my`field".to_owned()),
                Token::WordTilde("like"),
                Token::Word("in"),
                Token::Invalid(
                    Error::new(63..64, "`~` stands right behind an operator or a function")
                        .with_help(
                            "write `in~`, `like~`, `regex~` or `function~(…)`, without a blank"
                        )
                ),
            ]
        );
    }
}
