//! What a rule says about itself.
//!
//! Owns the facts that an alert quotes. Must not know how a rule is decided.

use std::fmt;
use std::path::PathBuf;

use super::{Limits, Overrides};

/// How grave a match is, in the four steps of Elastic's rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth a look.
    Low,
    /// Worth a look today.
    Medium,
    /// Worth an interruption.
    High,
    /// Worth waking someone.
    Critical,
}

impl Severity {
    /// From the word a rule file uses.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "low" => Some(Self::Low),
            "medium" => Some(Self::Medium),
            "high" => Some(Self::High),
            "critical" => Some(Self::Critical),
            _ => None,
        }
    }

    /// The word a rule file uses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    /// The value of `event.severity`, which is also the usual risk score.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Low => 21,
            Self::Medium => 47,
            Self::High => 73,
            Self::Critical => 99,
        }
    }

    /// From a value of `event.severity`.
    #[must_use]
    pub fn from_number(number: u64) -> Option<Self> {
        [Self::Low, Self::Medium, Self::High, Self::Critical]
            .into_iter()
            .find(|severity| u64::from(severity.number()) == number)
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

/// An entry of a threat framework: its id, name and page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Such as `T1098.004`.
    pub id: String,
    /// Such as `SSH Authorized Keys`.
    pub name: String,
    /// Its page.
    pub reference: String,
}

/// A tactic.
pub type Tactic = Reference;

/// A technique and those of its subtechniques that a rule names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Technique {
    /// The technique itself.
    pub technique: Reference,
    /// Its subtechniques.
    pub subtechniques: Vec<Reference>,
}

/// One `[[rule.threat]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Threat {
    /// Such as `MITRE ATT&CK`.
    pub framework: String,
    /// The tactic.
    pub tactic: Tactic,
    /// The techniques; may be none.
    pub techniques: Vec<Technique>,
}

/// What a rule says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// `rule_id`, a UUID in Elastic's files.
    pub id: String,
    /// Its title.
    pub name: String,
    /// What it looks for, and why.
    pub description: String,
    /// How grave a match is.
    pub severity: Severity,
    /// From 0 to 100.
    pub risk_score: u8,
    /// What it is a sign of.
    pub threat: Vec<Threat>,
    /// Free words to group by.
    pub tags: Vec<String>,
    /// Pages to read; the first is `rule.reference` of the alert.
    pub references: Vec<String>,
    /// Who wrote it.
    pub author: Vec<String>,
    /// Its licence.
    pub license: Option<String>,
    /// Its version, where the file says one.
    pub version: Option<String>,
    /// Known harmless causes.
    pub false_positives: Vec<String>,
    /// The investigation guide, in Markdown.
    pub note: Option<String>,
    /// What must be set up for it, in Markdown.
    pub setup: Option<String>,
    /// The fields that an analyst should see first.
    pub investigation_fields: Vec<String>,
    /// Its alerts are material for other rules rather than news
    /// (`building_block_type`).
    pub building_block: bool,
    /// What it lets the event decide.
    pub overrides: Overrides,
    /// How many alerts it may raise.
    pub limits: Limits,
    /// The query's text.
    pub query: String,
    /// The file it came from.
    pub file: PathBuf,
    /// The set it belongs to: `ssh-keywatch` for the shipped rules, else the
    /// directory of its file.
    pub ruleset: String,
}
