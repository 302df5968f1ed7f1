//! Where rules ask who opens files.
//!
//! Owns which rules those are. An open is an everyday thing, and each that is
//! looked at costs: only a rule whose query names it (`event.action` `open`, or
//! `event.type` `access`) is asked about opens, and only where the paths that
//! it speaks of can lie are they noticed. Pure.

use std::path::Path;

use super::RuleSet;
use super::file::Compiled;
use super::inert::{PATH, names, possible};
use crate::eql::{Field, Query};

const OPEN: [(&str, &str); 2] = [("event.action", "open"), ("event.type", "access")];

/// Whether the value is one that only opens have.
pub(super) fn is_word(value: &str) -> bool {
    OPEN.iter().any(|(_, word)| *word == value)
}

/// Whether the rule is one about opens.
pub(super) fn asks(query: &Query) -> bool {
    let expr = query.expr();
    OPEN.iter().any(|(field, value)| names(expr, field, value))
        && OPEN
            .iter()
            .all(|(field, value)| possible(expr, field, value))
}

/// The rules that are about opens, without the rest of their set.
#[derive(Clone, Debug, Default)]
pub struct AskedOpens(Vec<Query>);

impl AskedOpens {
    /// Whether one of them can match the open of a file in this directory.
    #[must_use]
    pub fn below(&self, directory: &Path) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let directory = directory.to_string_lossy();
        let prefix = format!("{}/", directory.trim_end_matches('/'));
        let is_path = |field: &Field| field.name() == PATH;
        self.0
            .iter()
            .any(|query| query.could_match_below(is_path, &prefix))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl RuleSet {
    /// Where the rules ask for opens.
    #[must_use]
    pub fn asked_opens(&self) -> AskedOpens {
        let rules = self.rules.iter().map(Compiled::query);
        AskedOpens(rules.filter(|query| asks(query)).cloned().collect())
    }
}
