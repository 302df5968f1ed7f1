//! What a run needs to know: configuration, rules, and what they ask to be watched.
//!
//! Owns how it is put together, at the start and for a reload. Must not change
//! anything that runs.

use std::path::Path;

use super::{Fatal, accounts};
use crate::config::{self, Config, RuleWatch};
use crate::rule::RuleSet;
use crate::watch::home::Limits;
use crate::watch::pattern::{Pattern, PatternError};
use crate::watch::tree::Scope;

/// All that a run needs to know; made anew for a reload.
#[derive(Debug)]
pub struct Plan {
    /// The effective configuration.
    pub config: Config,
    /// The rules with their exceptions.
    pub rules: RuleSet,
    /// What is watched.
    pub patterns: Vec<Pattern>,
    /// Directories that are watched because rules speak of them.
    pub derived: Vec<String>,
}

impl Plan {
    /// Loads rules for `config` and reads its patterns.
    ///
    /// # Errors
    /// [`Fatal::Rules`] and [`Fatal::Pattern`].
    pub fn new(config: Config, builtin: bool) -> Result<Self, Fatal> {
        let rules = RuleSet::load(&config.rules.directories, builtin)
            .and_then(|rules| rules.with_exceptions(&config.exceptions))
            .map_err(Fatal::Rules)?;
        let mut patterns = patterns(&config.watch)?;
        let derived = match config.rules.watch {
            RuleWatch::Config => Vec::new(),
            RuleWatch::Rule => {
                let watched = watched(&config.watch);
                let watched: Vec<&str> = watched.iter().map(String::as_str).collect();
                rules.roots(&watched).directories
            }
        };
        for directory in &derived {
            patterns.push(Pattern::parse(Path::new(directory))?);
        }
        Ok(Self {
            config,
            rules,
            patterns,
            derived,
        })
    }

    /// What the watching thread is to watch.
    pub(super) fn scope(&self) -> Scope {
        let opens = self.rules.asked_opens();
        Scope {
            patterns: self.patterns.clone(),
            limit: self.config.watch.max_directories as usize,
            homes: Limits {
                directories: self.config.watch.home_directories as usize,
                files: self.config.watch.home_files as usize,
            },
            opens: Box::new(move |directory| opens.below(directory)),
            stock: None,
        }
    }

    /// All that is watched, as text in which `*` is a wildcard.
    #[must_use]
    pub fn watched(&self) -> Vec<String> {
        let mut watched = watched(&self.config.watch);
        watched.extend(self.derived.iter().cloned());
        watched
    }
}

/// What the configuration names, as text in which `*` is a wildcard.
fn watched(watch: &config::Watch) -> Vec<String> {
    let homes = watch.homes.iter().map(|home| format!("{home}/.ssh"));
    let others = watch.directories.iter();
    homes
        .chain(others.map(|directory| directory.display().to_string()))
        .collect()
}

/// The patterns that the configuration asks for: each home's `.ssh`, and the
/// other directories.
///
/// # Errors
/// One of them is no pattern.
pub fn patterns(watch: &config::Watch) -> Result<Vec<Pattern>, PatternError> {
    let mut patterns = Vec::new();
    for home in &watch.homes {
        patterns.push(Pattern::parse(Path::new(home))?.join(".ssh"));
    }
    for directory in &watch.directories {
        patterns.push(Pattern::literal(directory)?);
    }
    if watch.passwd_homes {
        for home in accounts::homes() {
            patterns.push(Pattern::literal(&home)?.join(".ssh"));
        }
    }
    Ok(patterns)
}
