//! Expressions, by operator precedence.
//!
//! `expr`, `prefix` and `call` are on the stack once for each level of
//! nesting; what they need not hold there is in functions of its own.

use std::ops::Range;

use super::super::ast::{ArithmeticOp, CompareOp, Expr, ExprKind, Literal, MAX_DEPTH, MatchOp};
use super::super::document::Field;
use super::super::error::Error;
use super::super::functions::{self, Function};
use super::super::lexer::{Symbol, Token};
use super::super::value::to_float;
use super::{Parser, is_keyword, miscased};

pub(super) const OR: u8 = 1;
const AND: u8 = 2;
const NOT: u8 = 3;
const COMPARE: u8 = 4;
const SUM: u8 = 5;
const PRODUCT: u8 = 6;
const SIGN: u8 = 7;

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

/// What an expression begins with.
enum Opening {
    /// All of it: a value or a field.
    Leaf(Expr),
    Call(Function, bool),
    Not,
    Parenthesis,
    Minus,
    Plus,
}

impl Parser<'_> {
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
    pub(super) fn expr(&mut self, least: u8) -> Result<Expr, Error> {
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
        let start = self.span().start;
        Ok(match self.opening(least)? {
            Opening::Leaf(expr) => expr,
            Opening::Call(function, fold) => self.call(function, fold, start)?,
            Opening::Not => {
                let inner = self.expr(NOT)?;
                let span = start..inner.span.end;
                Expr::new(ExprKind::Not(inner.into()), span)
            }
            Opening::Parenthesis => {
                let mut inner = self.expr(OR)?;
                self.close(start)?;
                inner.span = start..self.end_of_last();
                inner
            }
            Opening::Minus => negate(self.expr(SIGN)?, start),
            Opening::Plus => self.expr(SIGN)?,
        })
    }

    /// Takes what an expression begins with, up to where another one follows.
    fn opening(&mut self, least: u8) -> Result<Opening, Error> {
        let span = self.span();
        let opening = match self.token() {
            Token::Word("not") if least <= NOT => Opening::Not,
            Token::Word("not") => {
                return Err(self
                    .expected("a value")
                    .with_help("put a negated condition in parentheses"));
            }
            Token::Symbol(Symbol::Open) => Opening::Parenthesis,
            Token::Symbol(Symbol::Minus) => Opening::Minus,
            Token::Symbol(Symbol::Plus) => Opening::Plus,
            Token::Word("null") => literal(Literal::Null, span),
            Token::Word("true") => literal(Literal::Bool(true), span),
            Token::Word("false") => literal(Literal::Bool(false), span),
            Token::Int(value) => match i64::try_from(*value) {
                Ok(value) => literal(Literal::Int(value), span),
                Err(_) => literal(Literal::Float(to_float(*value)), span),
            },
            Token::Float(value) => literal(Literal::Float(*value), span),
            Token::Text(text) => literal(Literal::Text(text.clone()), span),
            _ => return self.name(),
        };
        self.advance();
        Ok(opening)
    }

    /// The end of what was opened by the `(` at `open`.
    fn close(&mut self, open: usize) -> Result<(), Error> {
        if self.eat(Symbol::Close) {
            Ok(())
        } else if *self.token() == Token::End {
            Err(Error::new(open..open + 1, "this `(` is not closed"))
        } else {
            Err(self.stray("an operator, `and`, `or` or `)`"))
        }
    }

    /// A field, or a function with its `(`.
    fn name(&mut self) -> Result<Opening, Error> {
        const WANTED: &str = "a field, a value, a function, `not` or `(`";
        let span = self.span();
        Err(match self.ahead() {
            [Token::Word(word), Token::Symbol(Symbol::Open)] if !is_keyword(word) => {
                let function = functions::named(word, span)?;
                self.advance();
                self.advance();
                return Ok(Opening::Call(function, false));
            }
            [Token::WordTilde(word), Token::Symbol(Symbol::Open)] => {
                let function = functions::named(word, span.clone())?;
                if !function.folds() {
                    let message = format!("`{word}` has no `~`, since it compares no letters");
                    return Err(Error::new(span, message).with_help(format!("write `{word}(…)`")));
                }
                self.advance();
                self.advance();
                return Ok(Opening::Call(function, true));
            }
            [Token::Word(word), Token::Word("of")] if !is_keyword(word) => {
                Error::unsupported(span, format!("`{word} of` is not supported"))
                    .with_help("name the parent by its fields, such as `process.parent.executable`")
            }
            [Token::Word(word), next]
                if *next != Token::Symbol(Symbol::Dot)
                    && matches!(miscased(word), Some("not" | "null" | "true" | "false")) =>
            {
                self.stray(WANTED)
            }
            [Token::Word(word), _] if !is_keyword(word) => return self.field().map(Opening::Leaf),
            [Token::Quoted(_) | Token::Symbol(Symbol::Question), _] => {
                return self.field().map(Opening::Leaf);
            }
            [Token::WordTilde(_), _] => {
                self.advance();
                self.expected("`(` after the name of a function")
            }
            [Token::Word(word @ ("sequence" | "sample" | "join")), _] => {
                Error::unsupported(span, format!("`{word}` is not supported"))
            }
            [Token::Word(word), _] => self.expected(WANTED).with_help(format!(
                "`{word}` is a keyword; a field of that name stands in backticks"
            )),
            _ => self.stray(WANTED),
        })
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
        let field = Field::spanning(&name, optional, span.clone())
            .ok_or_else(|| Error::new(span.clone(), "a part of this field's name is empty"))?;
        Ok(Expr::new(ExprKind::Field(field), span))
    }

    /// From behind the `(` of a function whose name starts at `start`.
    fn call(&mut self, function: Function, fold: bool, start: usize) -> Result<Expr, Error> {
        let open = self.end_of_last() - 1;
        let mut args = Vec::new();
        if *self.token() != Token::Symbol(Symbol::Close) {
            loop {
                args.push(self.expr(OR)?);
                if !self.eat(Symbol::Comma) {
                    break;
                }
            }
        }
        if *self.token() == Token::End {
            return Err(Error::new(open..open + 1, "this `(` is not closed"));
        }
        self.expect(Symbol::Close, "`,` or `)`")?;
        let span = start..self.end_of_last();
        function.check_count(args.len(), span.clone())?;
        let kind = ExprKind::Call {
            function,
            fold,
            args,
        };
        Ok(Expr::new(kind, span))
    }
}

fn literal(literal: Literal, span: Range<usize>) -> Opening {
    Opening::Leaf(Expr::new(ExprKind::Literal(literal), span))
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
