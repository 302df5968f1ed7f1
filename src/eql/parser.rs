//! Tokens to tree, by operator precedence: `or` binds weakest, then `and`,
//! `not`, comparisons and list operators, `+ -`, `* / %`, and signs.

mod expr;

use std::ops::Range;

use expr::OR;

use super::ast::{Category, Expr, Pipe};
use super::error::Error;
use super::lexer::{Spanned, Symbol, Token, lex};

const KEYWORDS: &[&str] = &[
    "and", "any", "by", "false", "in", "join", "like", "maxspan", "not", "null", "of", "or",
    "regex", "sample", "sequence", "true", "until", "where", "with",
];

pub(super) fn is_keyword(word: &str) -> bool {
    KEYWORDS.contains(&word)
}

/// The keyword that `word` is but for its case.
fn miscased(word: &str) -> Option<&'static str> {
    KEYWORDS
        .iter()
        .copied()
        .find(|keyword| keyword.eq_ignore_ascii_case(word) && *keyword != word)
}

pub(super) fn parse_query(source: &str) -> Result<(Category, Expr, Vec<Pipe>), Error> {
    let mut parser = Parser::new(source);
    let category = parser.category()?;
    let condition = parser.expr(OR)?;
    let mut pipes = Vec::new();
    while parser.eat(Symbol::Pipe) {
        pipes.push(parser.pipe()?);
    }
    parser.end()?;
    Ok((category, condition, pipes))
}

pub(super) fn parse_condition(source: &str) -> Result<Expr, Error> {
    let mut parser = Parser::new(source);
    if let [Token::Word(_) | Token::Text(_), Token::Word("where")] = parser.ahead() {
        let span = parser.tokens[0].span.start..parser.tokens[1].span.end;
        return Err(Error::new(
            span,
            "a condition alone is wanted here, without an event category",
        )
        .with_help("leave out everything up to `where`"));
    }
    let condition = parser.expr(OR)?;
    parser.end()?;
    Ok(condition)
}

struct Parser<'s> {
    source: &'s str,
    tokens: Vec<Spanned<'s>>,
    at: usize,
    depth: usize,
}

impl<'s> Parser<'s> {
    fn new(source: &'s str) -> Self {
        Self {
            source,
            tokens: lex(source),
            at: 0,
            depth: 0,
        }
    }

    /// The list ends with a token that is never taken.
    fn token(&self) -> &Token<'s> {
        &self.tokens[self.at].token
    }

    fn second(&self) -> &Token<'s> {
        &self.tokens[(self.at + 1).min(self.tokens.len() - 1)].token
    }

    fn ahead(&self) -> [&Token<'s>; 2] {
        [self.token(), self.second()]
    }

    fn span(&self) -> Range<usize> {
        self.tokens[self.at].span.clone()
    }

    /// Where the token before this one ends.
    fn end_of_last(&self) -> usize {
        self.tokens[self.at.saturating_sub(1)].span.end
    }

    fn advance(&mut self) {
        self.at = (self.at + 1).min(self.tokens.len() - 1);
    }

    fn eat(&mut self, symbol: Symbol) -> bool {
        let found = *self.token() == Token::Symbol(symbol);
        if found {
            self.advance();
        }
        found
    }

    fn expect(&mut self, symbol: Symbol, what: &str) -> Result<(), Error> {
        if self.eat(symbol) {
            Ok(())
        } else {
            Err(self.stray(what))
        }
    }

    /// The current token as the source has it, short and harmless to show.
    fn shown(&self) -> String {
        /// Longer tokens are cut.
        const LIMIT: usize = 32;
        if *self.token() == Token::End {
            return "the end".to_owned();
        }
        let text = &self.source[self.span()];
        let mut shown = String::from("`");
        for c in text.chars().take(LIMIT) {
            if c.is_control() {
                shown.extend(c.escape_default());
            } else {
                shown.push(c);
            }
        }
        if text.chars().nth(LIMIT).is_some() {
            shown.push('…');
        }
        shown.push('`');
        shown
    }

    fn expected(&self, what: &str) -> Error {
        match self.token() {
            Token::Invalid(error) => error.clone(),
            _ => Error::new(
                self.span(),
                format!("expected {what}, found {}", self.shown()),
            ),
        }
    }

    fn category(&mut self) -> Result<Category, Error> {
        const SEVERAL: &str =
            "only queries about single events can be decided, such as `file where …`";
        let category = match self.token() {
            Token::Word(word @ ("sequence" | "sample" | "join")) => {
                return Err(
                    Error::unsupported(self.span(), format!("`{word}` is not supported"))
                        .with_help(SEVERAL),
                );
            }
            Token::Word("any") => Category::Any,
            Token::Word(word) if !is_keyword(word) => Category::Named((*word).to_owned()),
            Token::Text(text) => Category::Named(text.clone()),
            Token::Quoted(_) => {
                return Err(Error::new(
                    self.span(),
                    "an event category is not quoted with backticks",
                )
                .with_help("write it in double quotes"));
            }
            _ => {
                return Err(self
                    .expected("an event category")
                    .with_help("a query begins with `file where`, or `any where` for all events"));
            }
        };
        self.advance();
        match self.token() {
            Token::Word("where") => self.advance(),
            Token::Word(word) if miscased(word) == Some("where") => {
                return Err(self.lower_case("where"));
            }
            _ => {
                let mut error = self.expected("`where` after the event category");
                error.help.get_or_insert_with(|| {
                    "a query begins with `file where`, or `any where` for all events".to_owned()
                });
                return Err(error);
            }
        }
        Ok(category)
    }

    fn lower_case(&self, keyword: &str) -> Error {
        Error::new(self.span(), format!("{} is not a keyword", self.shown()))
            .with_help(format!("keywords are lower case: write `{keyword}`"))
    }

    fn pipe(&mut self) -> Result<Pipe, Error> {
        let make = match self.token() {
            Token::Word("head") => Pipe::Head,
            Token::Word("tail") => Pipe::Tail,
            Token::Word(word) => {
                return Err(Error::unsupported(
                    self.span(),
                    format!("the pipe `{word}` is not supported"),
                )
                .with_help(
                    "events are decided one by one; only `head` and `tail` are accepted, and ignored",
                ));
            }
            _ => {
                return Err(self
                    .expected("the name of a pipe")
                    .with_help("for alternatives write `or`"));
            }
        };
        self.advance();
        let Token::Int(count) = *self.token() else {
            return Err(self.expected("a whole number of events"));
        };
        self.advance();
        Ok(make(count))
    }

    /// After a whole condition there is nothing more.
    fn end(&self) -> Result<(), Error> {
        match self.token() {
            Token::End => Ok(()),
            Token::Symbol(Symbol::Close) => Err(Error::new(self.span(), "this `)` closes nothing")),
            _ => Err(self.stray("an operator, `and`, `or` or the end")),
        }
    }

    /// Why the current token cannot continue an expression; `wanted` says what
    /// could, for tokens that have no reason of their own.
    fn stray(&self, wanted: &str) -> Error {
        match self.token() {
            Token::Symbol(Symbol::OpenBracket) => Error::unsupported(
                self.span(),
                "`[…]` is not supported: a comparison with a list holds if one of its elements satisfies it",
            ),
            Token::Word(word @ ("by" | "until" | "with")) => {
                Error::unsupported(self.span(), format!("`{word}` is not supported")).with_help(
                    "it belongs to sequences, and only queries about single events can be decided",
                )
            }
            Token::Word(word) | Token::WordTilde(word) => match miscased(word) {
                Some(keyword) => self.lower_case(keyword),
                None => self.expected(wanted),
            },
            _ => self.expected(wanted),
        }
    }
}
