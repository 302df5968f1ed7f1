//! Tree to program: types are checked, constants calculated, patterns and
//! sets prepared. Everything that can be wrong with a query is found here or
//! in the parser; deciding cannot fail.

use std::ops::Range;

use super::ast::{ArithmeticOp, CompareOp, Expr, ExprKind, Literal, MatchOp};
use super::cidr::Block;
use super::error::Error;
use super::eval::{Nothing, Operand, Predicate, Set, negate};
use super::functions::{Function, Type};
use super::lucene;
use super::pattern::Pattern;
use super::value::Value;

/// The program for a condition.
pub(super) fn condition(expr: &Expr) -> Result<Predicate, Error> {
    match &expr.kind {
        ExprKind::Literal(Literal::Bool(value)) => Ok(Predicate::Constant(*value)),
        ExprKind::Not(inner) => Ok(not(condition(inner)?)),
        ExprKind::And(all) => Ok(combined(conditions(all)?, false)),
        ExprKind::Or(any) => Ok(combined(conditions(any)?, true)),
        ExprKind::Compare { op, left, right } => compare(*op, left, right, &expr.span),
        ExprKind::Match {
            op,
            fold,
            subject,
            items,
        } => matching(*op, *fold, subject, items),
        ExprKind::Literal(_)
        | ExprKind::Field(_)
        | ExprKind::Call { .. }
        | ExprKind::Negate(_)
        | ExprKind::Arithmetic { .. } => {
            let (operand, kind) = operand(expr)?;
            if matches!(kind, Type::Bool | Type::Any) {
                return Ok(settle(Predicate::True(operand)));
            }
            Err(Error::new(
                expr.span.clone(),
                format!("expected a condition, found {}", kind.describe()),
            )
            .with_help("compare it with something, as in `field == \"value\"`"))
        }
    }
}

fn conditions(exprs: &[Expr]) -> Result<Vec<Predicate>, Error> {
    exprs.iter().map(condition).collect()
}

fn not(inner: Predicate) -> Predicate {
    match inner {
        Predicate::Constant(value) => Predicate::Constant(!value),
        inner => Predicate::Not(inner.into()),
    }
}

/// Joins by `or` if `deciding`, else by `and`: one part that is `deciding`
/// decides the whole, the opposite constant says nothing.
fn combined(mut parts: Vec<Predicate>, deciding: bool) -> Predicate {
    let is = |part: &Predicate, value| matches!(part, Predicate::Constant(c) if *c == value);
    if parts.iter().any(|part| is(part, deciding)) {
        return Predicate::Constant(deciding);
    }
    parts.retain(|part| !is(part, !deciding));
    if parts.is_empty() {
        Predicate::Constant(!deciding)
    } else if deciding {
        parts.sort_by_key(cost);
        Predicate::Any(parts)
    } else {
        parts.sort_by_key(cost);
        Predicate::All(parts)
    }
}

/// What is cheap is asked first, for it may be enough: which part decides makes
/// no difference to the answer.
fn cost(part: &Predicate) -> u8 {
    let plain = |operand: &Operand, cost| match operand {
        Operand::Null | Operand::Constant(_) | Operand::Field(_) => cost,
        _ => cost + 3,
    };
    match part {
        Predicate::Constant(_) => 0,
        Predicate::Absent(operand) | Predicate::True(operand) | Predicate::Compare(operand, ..) => {
            plain(operand, 1)
        }
        Predicate::In(operand, _) => plain(operand, 2),
        Predicate::Like(operand, patterns) => {
            plain(operand, if patterns.len() > 1 { 4 } else { 3 })
        }
        Predicate::Regex(operand, _) => plain(operand, 6),
        Predicate::Not(inner) => cost(inner),
        Predicate::All(parts) | Predicate::Any(parts) => {
            parts.iter().map(cost).max().unwrap_or(0).saturating_add(1)
        }
    }
}

/// Decides at once what depends on no document.
fn settle(predicate: Predicate) -> Predicate {
    let constant = match &predicate {
        Predicate::True(operand)
        | Predicate::Absent(operand)
        | Predicate::Compare(operand, ..)
        | Predicate::In(operand, _)
        | Predicate::Like(operand, _)
        | Predicate::Regex(operand, _) => operand.is_constant(),
        _ => false,
    };
    if constant {
        Predicate::Constant(predicate.holds(&Nothing))
    } else {
        predicate
    }
}

fn compare(
    op: CompareOp,
    left: &Expr,
    right: &Expr,
    span: &Range<usize>,
) -> Result<Predicate, Error> {
    let (left_operand, left_type) = operand(left)?;
    let (right_operand, right_type) = operand(right)?;
    let equality = matches!(op, CompareOp::Equal | CompareOp::NotEqual);
    if !equality {
        for (kind, expr) in [(left_type, left), (right_type, right)] {
            if matches!(kind, Type::Bool | Type::Null) {
                return Err(Error::new(
                    expr.span.clone(),
                    format!(
                        "{} is neither less nor greater than anything",
                        kind.describe()
                    ),
                )
                .with_help("only `==` and `!=` can be used here"));
            }
        }
    }
    if !left_type.fits(right_type) && !right_type.fits(left_type) {
        return Err(Error::new(
            span.clone(),
            format!(
                "{} is never equal to {}",
                left_type.describe(),
                right_type.describe()
            ),
        ));
    }
    let (operand, op, constant) = match (left_operand, right_operand) {
        (operand, constant) if constant.is_constant() => (operand, op, constant),
        (constant, operand) if constant.is_constant() => (operand, op.swapped(), constant),
        _ => {
            return Err(
                Error::new(span.clone(), "a field cannot be compared with a field")
                    .with_help("compare each of them with a value"),
            );
        }
    };
    let positive = if op == CompareOp::NotEqual {
        CompareOp::Equal
    } else {
        op
    };
    let predicate = match constant {
        Operand::Constant(value) => Predicate::Compare(operand, positive, value),
        _ if equality => Predicate::Absent(operand),
        _ => Predicate::Constant(false),
    };
    let predicate = settle(predicate);
    Ok(if op == CompareOp::NotEqual {
        not(predicate)
    } else {
        predicate
    })
}

fn matching(op: MatchOp, fold: bool, subject: &Expr, items: &[Expr]) -> Result<Predicate, Error> {
    let (operand, kind) = operand(subject)?;
    if op != MatchOp::In && !kind.fits(Type::Text) {
        return Err(Error::new(
            subject.span.clone(),
            format!("expected text to match, found {}", kind.describe()),
        ));
    }
    let predicate = match op {
        MatchOp::In => {
            let mut values = Vec::with_capacity(items.len());
            for item in items {
                values.push(alternative(item, kind)?);
            }
            Predicate::In(operand, Set::new(values, fold))
        }
        MatchOp::Like => {
            let patterns = texts(items).map(|(text, _)| Pattern::new(text, fold));
            Predicate::Like(operand, patterns.collect())
        }
        MatchOp::Regex => {
            let fail = |problem: lucene::Problem, span: &Range<usize>| {
                let mut error = Error::new(span.clone(), problem.message);
                error.help = problem.help.map(str::to_owned);
                error
            };
            let mut translated = Vec::with_capacity(items.len());
            for (text, span) in texts(items) {
                translated.push(lucene::translate(text, fold).map_err(|p| fail(p, span))?);
            }
            let span = items.first().map_or(0, |item| item.span.start)
                ..items.last().map_or(0, |item| item.span.end);
            let regex = lucene::compile(&translated).map_err(|p| fail(p, &span))?;
            Predicate::Regex(operand, regex)
        }
    };
    Ok(settle(predicate))
}

/// The strings of a `like` or `regex` list; the parser allows nothing else.
fn texts(items: &[Expr]) -> impl Iterator<Item = (&str, &Range<usize>)> {
    items.iter().filter_map(|item| match &item.kind {
        ExprKind::Literal(Literal::Text(text)) => Some((text.as_str(), &item.span)),
        _ => None,
    })
}

/// One value of an `in` list.
fn alternative(item: &Expr, subject: Type) -> Result<Value<'static>, Error> {
    let fail = |message: String| Error::new(item.span.clone(), message);
    let (value, kind) = operand(item)?;
    match value {
        Operand::Constant(_) if !kind.fits(subject) && !subject.fits(kind) => Err(fail(format!(
            "{} is never equal to {}",
            subject.describe(),
            kind.describe()
        ))),
        Operand::Constant(value) => Ok(value),
        Operand::Null => Err(fail("`null` cannot stand in a list".to_owned())
            .with_help("write `field == null or field in (…)`")),
        _ => Err(fail("a field cannot be compared with a field".to_owned())
            .with_help("a list holds values")),
    }
}

/// The program for a value, and what is known of it.
fn operand(expr: &Expr) -> Result<(Operand, Type), Error> {
    match &expr.kind {
        ExprKind::Literal(literal) => Ok(match literal {
            Literal::Null => (Operand::Null, Type::Null),
            Literal::Bool(value) => (Operand::Constant(Value::Bool(*value)), Type::Bool),
            Literal::Int(value) => (Operand::Constant(Value::Int(*value)), Type::Number),
            Literal::Float(value) => (Operand::Constant(Value::Float(*value)), Type::Number),
            Literal::Text(text) => (Operand::Constant(text.clone().into()), Type::Text),
        }),
        ExprKind::Field(field) => Ok((Operand::Field(field.clone()), Type::Any)),
        ExprKind::Negate(inner) => {
            let inner = argument(inner, Type::Number, "`-`")?;
            let operand = match inner {
                Operand::Constant(value) => constant(negate(&value)),
                Operand::Null => Operand::Null,
                inner => Operand::Negate(inner.into()),
            };
            Ok((operand, Type::Number))
        }
        ExprKind::Arithmetic { op, left, right } => {
            let (function, shown) = match op {
                ArithmeticOp::Add => (Function::Add, "`+`"),
                ArithmeticOp::Subtract => (Function::Subtract, "`-`"),
                ArithmeticOp::Multiply => (Function::Multiply, "`*`"),
                ArithmeticOp::Divide => (Function::Divide, "`/`"),
                ArithmeticOp::Modulo => (Function::Modulo, "`%`"),
            };
            let args = vec![
                argument(left, Type::Number, shown)?,
                argument(right, Type::Number, shown)?,
            ];
            Ok((apply(function, false, args), Type::Number))
        }
        ExprKind::Call {
            function,
            fold,
            args,
        } => {
            if *function == Function::CidrMatch {
                return Ok((cidr_match(args)?, Type::Bool));
            }
            let shown = format!("`{}`", function.name());
            let mut operands = Vec::with_capacity(args.len());
            for (index, arg) in args.iter().enumerate() {
                operands.push(argument(arg, function.param(index), &shown)?);
            }
            if *function == Function::Number && operands.get(1).is_some_and(|b| !b.is_constant()) {
                return Err(Error::new(
                    args[1].span.clone(),
                    "the base of `number` cannot come from a field",
                ));
            }
            Ok((apply(*function, *fold, operands), function.returns()))
        }
        ExprKind::Compare { .. }
        | ExprKind::Match { .. }
        | ExprKind::Not(_)
        | ExprKind::And(_)
        | ExprKind::Or(_) => {
            let operand = match condition(expr)? {
                Predicate::Constant(value) => Operand::Constant(Value::Bool(value)),
                condition => Operand::Condition(condition.into()),
            };
            Ok((operand, Type::Bool))
        }
    }
}

fn argument(expr: &Expr, wanted: Type, by: &str) -> Result<Operand, Error> {
    let (operand, kind) = operand(expr)?;
    if kind.fits(wanted) {
        return Ok(operand);
    }
    Err(Error::new(
        expr.span.clone(),
        format!(
            "{by} takes {}, found {}",
            wanted.describe(),
            kind.describe()
        ),
    ))
}

fn constant(value: Option<Value<'static>>) -> Operand {
    value.map_or(Operand::Null, Operand::Constant)
}

fn apply(function: Function, fold: bool, args: Vec<Operand>) -> Operand {
    if let Some(ranging) = args.iter().position(|arg| !arg.is_constant()) {
        return Operand::Call {
            function,
            fold,
            args,
            ranging,
        };
    }
    let values: Vec<_> = args.iter().map(Operand::constant).collect();
    constant(function.apply(fold, &values))
}

fn cidr_match(args: &[Expr]) -> Result<Operand, Error> {
    let [address, blocks @ ..] = args else {
        return Ok(Operand::Null);
    };
    let address = argument(address, Type::Text, "`cidrMatch`")?;
    let mut prepared = Vec::with_capacity(blocks.len());
    let mut null = false;
    for block in blocks {
        match argument(block, Type::Text, "`cidrMatch`")? {
            Operand::Constant(text) => {
                let text = text.as_text();
                prepared.push(Block::parse(&text).ok_or_else(|| {
                    Error::new(block.span.clone(), "this is not a block of IP addresses")
                        .with_help("write an address and a prefix length, as in `10.0.0.0/8`")
                })?);
            }
            Operand::Null => null = true,
            _ => {
                return Err(Error::new(
                    block.span.clone(),
                    "a block of `cidrMatch` cannot come from a field",
                ));
            }
        }
    }
    Ok(match address {
        _ if null => Operand::Null,
        Operand::Null => Operand::Null,
        Operand::Constant(text) => {
            let address = super::cidr::address(&text.as_text());
            constant(address.map(|a| Value::Bool(prepared.iter().any(|b| b.contains(a)))))
        }
        address => Operand::Cidr(address.into(), prepared),
    })
}
