//! Tokens to tree, by operator precedence: `or` binds weakest, then `and`,
//! `not`, comparisons and list operators, `+ -`, `* / %`, and signs.

use std::ops::Range;

use super::ast::{
    ArithmeticOp, Category, CompareOp, Expr, ExprKind, Literal, MAX_DEPTH, MatchOp, Pipe,
};
use super::document::Field;
use super::error::Error;
use super::functions::{self, Function};
use super::lexer::{Spanned, Symbol, Token, lex};
use super::value::to_float;

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

const OR: u8 = 1;
const AND: u8 = 2;
const NOT: u8 = 3;
const COMPARE: u8 = 4;
const SUM: u8 = 5;
const PRODUCT: u8 = 6;
const SIGN: u8 = 7;

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

/// What stands between two operands.
enum Operator {
    Or,
    And,
    Compare(CompareOp),
    Match { op: MatchOp, fold: bool },
    NotIn,
    Arithmetic(ArithmeticOp),
}

impl Operator {
    fn strength(&self) -> u8 {
        match self {
            Self::Or => OR,
            Self::And => AND,
            Self::Compare(_) | Self::Match { .. } | Self::NotIn => COMPARE,
            Self::Arithmetic(ArithmeticOp::Add | ArithmeticOp::Subtract) => SUM,
            Self::Arithmetic(_) => PRODUCT,
        }
    }
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
            Err(self.expected(what))
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

    /// After a whole condition: nothing, or the reason why there is more.
    fn end(&self) -> Result<(), Error> {
        match self.token() {
            Token::End => Ok(()),
            Token::Symbol(Symbol::Close) => Err(Error::new(self.span(), "this `)` closes nothing")),
            Token::Symbol(Symbol::OpenBracket) => Err(Error::unsupported(
                self.span(),
                "`[…]` is not supported: a comparison with a list holds if one of its elements satisfies it",
            )),
            Token::Word(word @ ("by" | "until" | "with")) => Err(Error::unsupported(
                self.span(),
                format!("`{word}` is not supported"),
            )
            .with_help(
                "it belongs to sequences, and only queries about single events can be decided",
            )),
            Token::Word(word) | Token::WordTilde(word) if miscased(word).is_some() => {
                Err(self.lower_case(miscased(word).unwrap_or_default()))
            }
            _ => Err(self.expected("an operator, `and`, `or` or the end")),
        }
    }

    fn operator(&self) -> Option<Operator> {
        Some(match self.token() {
            Token::Word("or") => Operator::Or,
            Token::Word("and") => Operator::And,
            Token::Word("not") => Operator::NotIn,
            Token::Word("in") => matching(MatchOp::In, false),
            Token::WordTilde("in") => matching(MatchOp::In, true),
            Token::Word("like") => matching(MatchOp::Like, false),
            Token::WordTilde("like") | Token::Symbol(Symbol::Colon) => {
                matching(MatchOp::Like, true)
            }
            Token::Word("regex") => matching(MatchOp::Regex, false),
            Token::WordTilde("regex") => matching(MatchOp::Regex, true),
            Token::Symbol(symbol) => match symbol {
                Symbol::Equal => Operator::Compare(CompareOp::Equal),
                Symbol::NotEqual => Operator::Compare(CompareOp::NotEqual),
                Symbol::Less => Operator::Compare(CompareOp::Less),
                Symbol::LessEqual => Operator::Compare(CompareOp::LessEqual),
                Symbol::Greater => Operator::Compare(CompareOp::Greater),
                Symbol::GreaterEqual => Operator::Compare(CompareOp::GreaterEqual),
                Symbol::Plus => Operator::Arithmetic(ArithmeticOp::Add),
                Symbol::Minus => Operator::Arithmetic(ArithmeticOp::Subtract),
                Symbol::Star => Operator::Arithmetic(ArithmeticOp::Multiply),
                Symbol::Slash => Operator::Arithmetic(ArithmeticOp::Divide),
                Symbol::Percent => Operator::Arithmetic(ArithmeticOp::Modulo),
                _ => return None,
            },
            _ => return None,
        })
    }

    /// An expression whose operators bind at least as strongly as `least`.
    fn expr(&mut self, least: u8) -> Result<Expr, Error> {
        if self.depth == MAX_DEPTH {
            return Err(too_deep(self.span()));
        }
        self.depth += 1;
        let mut left = self.prefix(least)?;
        while let Some(operator) = self.operator() {
            if operator.strength() < least {
                break;
            }
            left = self.infix(left, &operator)?;
            if left.height() >= MAX_DEPTH {
                return Err(too_deep(left.span));
            }
        }
        self.depth -= 1;
        Ok(left)
    }

    fn infix(&mut self, left: Expr, operator: &Operator) -> Result<Expr, Error> {
        let start = left.span.start;
        let kind = match *operator {
            Operator::Or => ExprKind::Or(self.chain(left, "or", AND)?),
            Operator::And => ExprKind::And(self.chain(left, "and", NOT)?),
            Operator::Arithmetic(op) => {
                self.advance();
                let right = self.expr(operator.strength() + 1)?;
                ExprKind::Arithmetic {
                    op,
                    left: left.into(),
                    right: right.into(),
                }
            }
            Operator::Compare(op) => {
                self.advance();
                let right = self.expr(SUM)?;
                ExprKind::Compare {
                    op,
                    left: left.into(),
                    right: right.into(),
                }
            }
            Operator::Match { op, fold } => self.matching(left, op, fold)?,
            Operator::NotIn => {
                self.advance();
                let fold = match self.token() {
                    Token::Word("in") => false,
                    Token::WordTilde("in") => true,
                    _ => {
                        return Err(self.expected("`in` or `in~` after `not`").with_help(
                            "put `not` before the field for other operators: `not field like …`",
                        ));
                    }
                };
                let kind = self.matching(left, MatchOp::In, fold)?;
                let inner = Expr::new(kind, start..self.end_of_last());
                ExprKind::Not(inner.into())
            }
        };
        let expr = Expr::new(kind, start..self.end_of_last());
        if operator.strength() == COMPARE
            && let Some(next) = self.operator()
            && next.strength() == COMPARE
        {
            return Err(Error::new(self.span(), "comparisons do not chain")
                .with_help("join two comparisons with `and`"));
        }
        Ok(expr)
    }

    /// `left and b and c …` as one flat list, however long.
    fn chain(&mut self, left: Expr, word: &str, least: u8) -> Result<Vec<Expr>, Error> {
        let mut parts = vec![left];
        while matches!(self.token(), Token::Word(found) if *found == word) {
            self.advance();
            parts.push(self.expr(least)?);
        }
        Ok(parts)
    }

    /// From the operator on: one alternative, or several in parentheses.
    fn matching(&mut self, subject: Expr, op: MatchOp, fold: bool) -> Result<ExprKind, Error> {
        let shown = self.shown();
        self.advance();
        let mut items = Vec::new();
        if op == MatchOp::In {
            self.expect(
                Symbol::Open,
                &format!("a list in parentheses after {shown}"),
            )?;
            loop {
                items.push(self.expr(SUM)?);
                if !self.eat(Symbol::Comma) {
                    break;
                }
            }
            self.expect(Symbol::Close, "`,` or `)`")?;
        } else if self.eat(Symbol::Open) {
            loop {
                items.push(self.alternative(&shown)?);
                if !self.eat(Symbol::Comma) {
                    break;
                }
            }
            self.expect(Symbol::Close, "`,` or `)`")?;
        } else {
            items.push(self.alternative(&shown)?);
        }
        Ok(ExprKind::Match {
            op,
            fold,
            subject: subject.into(),
            items,
        })
    }

    fn alternative(&mut self, operator: &str) -> Result<Expr, Error> {
        let span = self.span();
        let text = match self.token() {
            Token::Text(text) => text.clone(),
            Token::Int(_) | Token::Float(_) => {
                return Err(
                    Error::new(span, format!("{operator} compares text, not numbers"))
                        .with_help("write `==` or `in`"),
                );
            }
            _ => {
                return Err(self.expected(&format!(
                    "a string, or strings in parentheses, after {operator}"
                )));
            }
        };
        self.advance();
        Ok(Expr::new(ExprKind::Literal(Literal::Text(text)), span))
    }

    fn prefix(&mut self, least: u8) -> Result<Expr, Error> {
        let span = self.span();
        let literal = match self.token() {
            Token::Word("not") if least <= NOT => {
                self.advance();
                let inner = self.expr(NOT)?;
                return Ok(Expr::new(
                    ExprKind::Not(inner.into()),
                    span.start..self.end_of_last(),
                ));
            }
            Token::Word("not") => {
                return Err(self
                    .expected("a value")
                    .with_help("put a negated condition in parentheses"));
            }
            Token::Symbol(Symbol::Open) => {
                self.advance();
                let mut inner = self.expr(OR)?;
                self.expect_close(&span)?;
                inner.span = span.start..self.end_of_last();
                return Ok(inner);
            }
            Token::Symbol(Symbol::Minus) => {
                self.advance();
                let inner = self.expr(SIGN)?;
                return Ok(negate(inner, span.start));
            }
            Token::Symbol(Symbol::Plus) => {
                self.advance();
                return self.expr(SIGN);
            }
            Token::Word("null") => Literal::Null,
            Token::Word("true") => Literal::Bool(true),
            Token::Word("false") => Literal::Bool(false),
            Token::Int(value) => match i64::try_from(*value) {
                Ok(value) => Literal::Int(value),
                Err(_) => Literal::Float(to_float(*value)),
            },
            Token::Float(value) => Literal::Float(*value),
            Token::Text(text) => Literal::Text(text.clone()),
            _ => return self.name(),
        };
        self.advance();
        Ok(Expr::new(ExprKind::Literal(literal), span))
    }

    fn expect_close(&mut self, open: &Range<usize>) -> Result<(), Error> {
        if self.eat(Symbol::Close) {
            return Ok(());
        }
        if *self.token() == Token::End {
            return Err(Error::new(open.clone(), "this `(` is not closed"));
        }
        // Says best what stands in the way: an unknown operator, `AND`, `[`.
        self.end().and(Err(self.expected("`)`"))).map_err(|error| {
            if error.message.starts_with("expected an operator") {
                self.expected("an operator, `and`, `or` or `)`")
            } else {
                error
            }
        })
    }

    /// A field or a function.
    fn name(&mut self) -> Result<Expr, Error> {
        const WANTED: &str = "a field, a value, a function, `not` or `(`";
        let span = self.span();
        match self.ahead() {
            [Token::Word(word), Token::Symbol(Symbol::Open)] if !is_keyword(word) => {
                let function = functions::named(word, span)?;
                self.call(function, false)
            }
            [Token::WordTilde(word), Token::Symbol(Symbol::Open)] => {
                let function = functions::named(word, span.clone())?;
                if !function.folds() {
                    return Err(Error::new(
                        span,
                        format!("`{word}` has no `~`, since it compares no letters"),
                    )
                    .with_help(format!("write `{word}(…)`")));
                }
                self.call(function, true)
            }
            [Token::Word(word), Token::Word("of")] if !is_keyword(word) => Err(Error::unsupported(
                span,
                format!("`{word} of` is not supported"),
            )
            .with_help("name the parent by its fields, such as `process.parent.executable`")),
            [Token::Word(word), next]
                if *next != Token::Symbol(Symbol::Dot)
                    && matches!(miscased(word), Some("not" | "null" | "true" | "false")) =>
            {
                Err(self.lower_case(miscased(word).unwrap_or_default()))
            }
            [Token::Word(word), _] if !is_keyword(word) => self.field(),
            [Token::Quoted(_) | Token::Symbol(Symbol::Question), _] => self.field(),
            [Token::WordTilde(_), _] => {
                self.advance();
                Err(self.expected("`(` after the name of a function"))
            }
            [Token::Word(word @ ("sequence" | "sample" | "join")), _] => Err(Error::unsupported(
                span,
                format!("`{word}` is not supported"),
            )),
            [Token::Word(word), _] => Err(self.expected(WANTED).with_help(format!(
                "`{word}` is a keyword; a field of that name stands in backticks"
            ))),
            [Token::Symbol(Symbol::OpenBracket), _] => self.end().and(Err(self.expected(WANTED))),
            _ => Err(self.expected(WANTED)),
        }
    }

    fn field(&mut self) -> Result<Expr, Error> {
        let start = self.span().start;
        let optional = self.eat(Symbol::Question);
        let mut name = String::new();
        loop {
            match self.token() {
                Token::Word(word) => name.push_str(word),
                Token::Quoted(word) => name.push_str(word),
                _ => {
                    return Err(self.expected("a part of a field's name"));
                }
            }
            self.advance();
            if !self.eat(Symbol::Dot) {
                break;
            }
            name.push('.');
        }
        let span = start..self.end_of_last();
        if *self.token() == Token::Symbol(Symbol::OpenBracket) {
            self.end()?;
        }
        let field = Field::spanning(&name, optional, span.clone())
            .ok_or_else(|| Error::new(span.clone(), "a part of this field's name is empty"))?;
        Ok(Expr::new(ExprKind::Field(field), span))
    }

    fn call(&mut self, function: Function, fold: bool) -> Result<Expr, Error> {
        let start = self.span().start;
        self.advance();
        let open = self.span();
        self.advance();
        let mut args = Vec::new();
        if *self.token() != Token::Symbol(Symbol::Close) {
            loop {
                args.push(self.expr(OR)?);
                if !self.eat(Symbol::Comma) {
                    break;
                }
            }
        }
        if matches!(self.token(), Token::End) {
            return Err(Error::new(open, "this `(` is not closed"));
        }
        self.expect(Symbol::Close, "`,` or `)`")?;
        let span = start..self.end_of_last();
        function.check_count(args.len(), span.clone())?;
        Ok(Expr::new(
            ExprKind::Call {
                function,
                fold,
                args,
            },
            span,
        ))
    }
}

fn too_deep(span: Range<usize>) -> Error {
    Error::new(
        span,
        format!("the query is nested more than {MAX_DEPTH} levels deep"),
    )
}

fn matching(op: MatchOp, fold: bool) -> Operator {
    Operator::Match { op, fold }
}

/// `-x`; the sign of a number is part of the number.
fn negate(inner: Expr, start: usize) -> Expr {
    let span = start..inner.span.end;
    let kind = match inner.kind {
        ExprKind::Literal(Literal::Int(value)) => ExprKind::Literal(Literal::Int(-value)),
        ExprKind::Literal(Literal::Float(value)) => ExprKind::Literal(Literal::Float(-value)),
        _ => ExprKind::Negate(inner.into()),
    };
    Expr::new(kind, span)
}
