//! What a query says, as a tree.
//!
//! Two trees are equal if they say the same in the same way; where in the text
//! they stood does not count. No tree is higher than [`MAX_DEPTH`], so that
//! walking, printing, deciding and dropping one by recursion is safe.

use std::ops::Range;

use super::document::Field;
use super::functions::Function;

/// How deeply parentheses, functions, `not` and arithmetic may be nested.
pub const MAX_DEPTH: usize = 200;

/// An expression and its place in the source.
#[derive(Clone, Debug)]
pub struct Expr {
    /// What it says.
    pub kind: ExprKind,
    /// Where it stands, in bytes of the source.
    pub span: Range<usize>,
    /// Height of the tree, for the parser's limit.
    height: usize,
}

impl PartialEq for Expr {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind
    }
}

/// The kinds of expression.
#[derive(Clone, Debug, PartialEq)]
pub enum ExprKind {
    /// A value.
    Literal(Literal),
    /// A field.
    Field(Field),
    /// A function and its arguments.
    Call {
        /// Which function.
        function: Function,
        /// Written with `~`: ignores the case of ASCII letters.
        fold: bool,
        /// What it is applied to.
        args: Vec<Expr>,
    },
    /// `-x`, where x is no number.
    Negate(Box<Expr>),
    /// Two numbers.
    Arithmetic {
        /// Which operation.
        op: ArithmeticOp,
        /// Left operand.
        left: Box<Expr>,
        /// Right operand.
        right: Box<Expr>,
    },
    /// Two values.
    Compare {
        /// Which comparison.
        op: CompareOp,
        /// Left operand.
        left: Box<Expr>,
        /// Right operand.
        right: Box<Expr>,
    },
    /// A value and one or more alternatives.
    Match {
        /// How they are compared.
        op: MatchOp,
        /// Written with `~` (or `:`): ignores the case of ASCII letters.
        fold: bool,
        /// The value.
        subject: Box<Expr>,
        /// The alternatives, at least one.
        items: Vec<Expr>,
    },
    /// `not x`, also `x not in (…)`.
    Not(Box<Expr>),
    /// Two or more conditions, all of which must hold.
    And(Vec<Expr>),
    /// Two or more conditions, one of which must hold.
    Or(Vec<Expr>),
}

/// A value written in the query.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    /// `null`: no value.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// Text.
    Text(String),
}

/// `+ - * / %`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum ArithmeticOp {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

/// `== != < <= > >=`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum CompareOp {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

impl CompareOp {
    /// The comparison that says the same with its operands exchanged.
    pub(super) fn swapped(self) -> Self {
        match self {
            Self::Equal | Self::NotEqual => self,
            Self::Less => Self::Greater,
            Self::LessEqual => Self::GreaterEqual,
            Self::Greater => Self::Less,
            Self::GreaterEqual => Self::LessEqual,
        }
    }
}

/// The list operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchOp {
    /// `in`, `in~`: equal.
    In,
    /// `like`, `like~`, `:`: by wildcards.
    Like,
    /// `regex`, `regex~`: by regular expression.
    Regex,
}

/// What is known of a condition before all of the event is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    /// It cannot hold.
    False,
    /// It must hold.
    True,
    /// It depends.
    Unknown,
}

impl std::ops::Not for Truth {
    type Output = Self;

    fn not(self) -> Self {
        match self {
            Self::False => Self::True,
            Self::True => Self::False,
            Self::Unknown => Self::Unknown,
        }
    }
}

impl Expr {
    pub(super) fn new(kind: ExprKind, span: Range<usize>) -> Self {
        let mut expr = Self {
            kind,
            span,
            height: 0,
        };
        let below = expr.children().map(|child| child.height).max();
        expr.height = below.map_or(0, |height| height + 1);
        expr
    }

    pub(super) fn height(&self) -> usize {
        self.height
    }

    /// The expressions directly below this one, from left to right.
    pub fn children(&self) -> impl Iterator<Item = &Self> {
        let (pair, rest): ([Option<&Self>; 2], &[Self]) = match &self.kind {
            ExprKind::Literal(_) | ExprKind::Field(_) => ([None, None], &[]),
            ExprKind::Call { args, .. } => ([None, None], args),
            ExprKind::Negate(inner) | ExprKind::Not(inner) => ([Some(inner), None], &[]),
            ExprKind::Arithmetic { left, right, .. } | ExprKind::Compare { left, right, .. } => {
                ([Some(left), Some(right)], &[])
            }
            ExprKind::Match { subject, items, .. } => ([Some(subject), None], items),
            ExprKind::And(all) | ExprKind::Or(all) => ([None, None], all),
        };
        pair.into_iter().flatten().chain(rest)
    }

    /// This expression and all below it, from left to right.
    pub fn walk(&self) -> impl Iterator<Item = &Self> {
        let mut pending = vec![self];
        std::iter::from_fn(move || {
            let next = pending.pop()?;
            let first = pending.len();
            pending.extend(next.children());
            pending[first..].reverse();
            Some(next)
        })
    }

    /// All fields, from left to right, as often as they are named.
    pub fn fields(&self) -> impl Iterator<Item = &Field> {
        self.walk().filter_map(|expr| match &expr.kind {
            ExprKind::Field(field) => Some(field),
            _ => None,
        })
    }

    /// Decides what can be decided from what `leaf` knows of the parts that
    /// are neither `and`, `or` nor `not`. It is asked for each of them at most
    /// once, and may always answer [`Truth::Unknown`].
    pub fn truth(&self, leaf: &mut dyn FnMut(&Self) -> Truth) -> Truth {
        match &self.kind {
            ExprKind::Literal(Literal::Bool(true)) => Truth::True,
            ExprKind::Literal(Literal::Bool(false)) => Truth::False,
            ExprKind::Not(inner) => !inner.truth(leaf),
            ExprKind::And(all) => combine(all, Truth::False, leaf),
            ExprKind::Or(any) => combine(any, Truth::True, leaf),
            _ => leaf(self),
        }
    }
}

/// `deciding` is what one part needs to be to decide the whole.
fn combine(parts: &[Expr], deciding: Truth, leaf: &mut dyn FnMut(&Expr) -> Truth) -> Truth {
    let mut whole = !deciding;
    for part in parts {
        let truth = part.truth(leaf);
        if truth == deciding {
            return deciding;
        }
        if truth == Truth::Unknown {
            whole = Truth::Unknown;
        }
    }
    whole
}

/// Which events a query is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Category {
    /// `any where …`
    Any,
    /// Events whose category is, or contains, this text.
    Named(String),
}

/// What stands behind `|`. Both only limit how many of the events found are
/// returned by a search; events that are decided one by one are not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Pipe {
    Head(u64),
    Tail(u64),
}
