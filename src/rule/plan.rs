//! What is asked of a document for all rules together.
//!
//! Owns the parts that rules have in common: a rule is a conjunction, and most
//! rules share parts such as `host.os.type == "linux"` with others. Each part
//! is asked once a document, those that most rules share first. Nothing here
//! changes what is decided, for the parts have no effects. Pure.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::file::Compiled;
use crate::eql::{Condition, Document, Field, Value, Wanted};

/// The answers to so many parts are kept; the rest is asked by each rule anew.
const KEPT: usize = 512;

/// The parts of all rules, and which of them each rule is made of.
#[derive(Debug, Default)]
pub(super) struct Plan {
    parts: Vec<Part>,
    /// For each rule, in loading order, the numbers of its parts.
    rules: Vec<Box<[usize]>>,
}

#[derive(Debug)]
enum Part {
    /// The word before `where`, and the field it is held against.
    Category(String, Field),
    Condition(Condition),
}

impl Part {
    fn holds(&self, document: &impl Document) -> bool {
        match self {
            Self::Category(name, field) => document.visit(
                field,
                &mut |value| matches!(&value, Value::Text(text) if text == name),
            ),
            Self::Condition(condition) => condition.matches(document),
        }
    }
}

/// The answers about one document, as far as they have been asked for.
#[derive(Debug, Default)]
pub(super) struct Answers {
    known: [u64; KEPT / 64],
    holds: [u64; KEPT / 64],
}

impl Plan {
    pub(super) fn new(rules: &[Compiled]) -> Self {
        let mut plan = Self::default();
        let mut numbers = HashMap::new();
        let mut uses: Vec<usize> = Vec::new();
        let mut asked: Vec<Vec<usize>> = Vec::new();
        for rule in rules {
            let mut own = Vec::new();
            let (name, field) = rule.category();
            let category = name.map(|name| Part::Category(name.to_owned(), field.clone()));
            let conditions = rule.query().condition().conjuncts();
            for part in category
                .into_iter()
                .chain(conditions.into_iter().map(Part::Condition))
            {
                // Canonical EQL says all that a part is.
                let key = match &part {
                    Part::Category(name, field) => format!("{field} category {name}"),
                    Part::Condition(condition) => condition.to_string(),
                };
                let number = *numbers.entry(key).or_insert_with(|| {
                    plan.parts.push(part);
                    uses.push(0);
                    plan.parts.len() - 1
                });
                if !own.contains(&number) {
                    uses[number] += 1;
                    own.push(number);
                }
            }
            asked.push(own);
        }
        for mut own in asked {
            own.sort_by_key(|number| Reverse(uses[*number]));
            plan.rules.push(own.into());
        }
        plan
    }

    /// Whether the document matches the rule with this place in loading order.
    pub(super) fn matches(
        &self,
        rule: usize,
        document: &impl Document,
        answers: &mut Answers,
    ) -> bool {
        self.rules[rule].iter().all(|&number| {
            let part = &self.parts[number];
            if number >= KEPT {
                return part.holds(document);
            }
            let (word, bit) = (number / 64, 1 << (number % 64));
            if answers.known[word] & bit == 0 {
                answers.known[word] |= bit;
                if part.holds(document) {
                    answers.holds[word] |= bit;
                }
            }
            answers.holds[word] & bit != 0
        })
    }

    pub(super) fn number_fields(&mut self, wanted: &mut Wanted) {
        for part in &mut self.parts {
            match part {
                Part::Category(_, field) => field.number(wanted),
                Part::Condition(condition) => condition.number_fields(wanted),
            }
        }
    }
}
