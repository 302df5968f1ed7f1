//! Canonical EQL from the tree: parsed again, it gives the same tree.

use std::fmt::{self, Display, Formatter, Write};

use super::ast::{ArithmeticOp, Category, CompareOp, Expr, ExprKind, Literal, MatchOp, Pipe};
use super::document::Field;
use super::lexer::is_word;
use super::parser::is_keyword;

/// Binding strengths, weakest first, as in the parser.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Or,
    And,
    Not,
    Compare,
    Sum,
    Product,
    Unary,
    Primary,
}

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        expr(self, f)
    }
}

fn level(expr: &Expr) -> Level {
    match &expr.kind {
        ExprKind::Literal(_) | ExprKind::Field(_) | ExprKind::Call { .. } => Level::Primary,
        ExprKind::Negate(_) => Level::Unary,
        ExprKind::Arithmetic { op, .. } => arithmetic_level(*op),
        ExprKind::Compare { .. } | ExprKind::Match { .. } => Level::Compare,
        ExprKind::Not(_) => Level::Not,
        ExprKind::And(_) => Level::And,
        ExprKind::Or(_) => Level::Or,
    }
}

fn arithmetic_level(op: ArithmeticOp) -> Level {
    match op {
        ArithmeticOp::Add | ArithmeticOp::Subtract => Level::Sum,
        ArithmeticOp::Multiply | ArithmeticOp::Divide | ArithmeticOp::Modulo => Level::Product,
    }
}

/// In parentheses if it binds weaker than `least`.
fn operand(inner: &Expr, least: Level, f: &mut Formatter<'_>) -> fmt::Result {
    if level(inner) < least {
        f.write_char('(')?;
        expr(inner, f)?;
        f.write_char(')')
    } else {
        expr(inner, f)
    }
}

fn expr(expr: &Expr, f: &mut Formatter<'_>) -> fmt::Result {
    match &expr.kind {
        ExprKind::Literal(value) => literal(value, f),
        ExprKind::Field(name) => field(name, f),
        ExprKind::Call {
            function,
            fold,
            args,
        } => {
            f.write_str(function.name())?;
            f.write_str(if *fold { "~" } else { "" })?;
            list(args, f)
        }
        ExprKind::Negate(inner) => {
            f.write_char('-')?;
            operand(inner, Level::Unary, f)
        }
        ExprKind::Arithmetic { op, left, right } => {
            let level = arithmetic_level(*op);
            operand(left, level, f)?;
            f.write_str(match op {
                ArithmeticOp::Add => " + ",
                ArithmeticOp::Subtract => " - ",
                ArithmeticOp::Multiply => " * ",
                ArithmeticOp::Divide => " / ",
                ArithmeticOp::Modulo => " % ",
            })?;
            let tighter = match level {
                Level::Sum => Level::Product,
                _ => Level::Unary,
            };
            operand(right, tighter, f)
        }
        ExprKind::Compare { op, left, right } => {
            operand(left, Level::Sum, f)?;
            f.write_str(match op {
                CompareOp::Equal => " == ",
                CompareOp::NotEqual => " != ",
                CompareOp::Less => " < ",
                CompareOp::LessEqual => " <= ",
                CompareOp::Greater => " > ",
                CompareOp::GreaterEqual => " >= ",
            })?;
            operand(right, Level::Sum, f)
        }
        ExprKind::Match {
            op,
            fold,
            subject,
            items,
        } => matching(*op, *fold, subject, items, "", f),
        ExprKind::Not(inner) => {
            if let ExprKind::Match {
                op: op @ MatchOp::In,
                fold,
                subject,
                items,
            } = &inner.kind
            {
                return matching(*op, *fold, subject, items, " not", f);
            }
            f.write_str("not ")?;
            operand(inner, Level::Not, f)
        }
        ExprKind::And(all) => joined(all, " and ", Level::Not, f),
        ExprKind::Or(any) => joined(any, " or ", Level::And, f),
    }
}

fn matching(
    op: MatchOp,
    fold: bool,
    subject: &Expr,
    items: &[Expr],
    negation: &str,
    f: &mut Formatter<'_>,
) -> fmt::Result {
    operand(subject, Level::Sum, f)?;
    f.write_str(negation)?;
    f.write_str(match (op, fold) {
        (MatchOp::In, false) => " in ",
        (MatchOp::In, true) => " in~ ",
        (MatchOp::Like, false) => " like ",
        (MatchOp::Like, true) => " : ",
        (MatchOp::Regex, false) => " regex ",
        (MatchOp::Regex, true) => " regex~ ",
    })?;
    match items {
        [item] if op != MatchOp::In => expr(item, f),
        _ => list(items, f),
    }
}

fn list(items: &[Expr], f: &mut Formatter<'_>) -> fmt::Result {
    f.write_char('(')?;
    joined(items, ", ", Level::Or, f)?;
    f.write_char(')')
}

fn joined(parts: &[Expr], between: &str, least: Level, f: &mut Formatter<'_>) -> fmt::Result {
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            f.write_str(between)?;
        }
        operand(part, least, f)?;
    }
    Ok(())
}

fn literal(literal: &Literal, f: &mut Formatter<'_>) -> fmt::Result {
    match literal {
        Literal::Null => f.write_str("null"),
        Literal::Bool(value) => write!(f, "{value}"),
        Literal::Int(value) => write!(f, "{value}"),
        // Always with a point or an exponent, and as many digits as it takes.
        Literal::Float(value) => write!(f, "{value:?}"),
        Literal::Text(value) => text(value, f),
    }
}

fn text(text: &str, f: &mut Formatter<'_>) -> fmt::Result {
    f.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            c if c.is_control() => write!(f, "\\u{{{:02x}}}", u32::from(c))?,
            c => f.write_char(c)?,
        }
    }
    f.write_char('"')
}

/// True if `name` can stand without quotes or backticks.
fn is_plain(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '@')
        && name[1..].chars().all(is_word)
        && !is_keyword(name)
}

pub(super) fn field(field: &Field, f: &mut Formatter<'_>) -> fmt::Result {
    if field.is_optional() {
        f.write_char('?')?;
    }
    for (index, part) in field.parts().enumerate() {
        if index > 0 {
            f.write_char('.')?;
        }
        if is_plain(part) {
            f.write_str(part)?;
        } else {
            write!(f, "`{}`", part.replace('`', "``"))?;
        }
    }
    Ok(())
}

impl Display for Category {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Named(name) if is_plain(name) => f.write_str(name),
            Self::Named(name) => text(name, f),
        }
    }
}

impl Display for Pipe {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head(count) => write!(f, "head {count}"),
            Self::Tail(count) => write!(f, "tail {count}"),
        }
    }
}
