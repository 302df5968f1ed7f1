//! The directories that rules speak of and nobody watches yet.
//!
//! Owns how a path pattern of a query becomes a directory to watch, and how
//! much of the file system rules may claim that way. Must not touch the file
//! system. Cannot fail: what is too broad is refused with its reason.

use super::inert::{PATH, asked, inert};
use super::{Rule, RuleSet};

/// At most so many directories are derived from all rules together.
pub const MAX_ROOTS: usize = 64;
/// A directory with fewer names in its path, wildcards not counted, is too
/// broad: `/etc` or `/home/*` has most of what there is below it.
const MIN_NAMES: usize = 2;

/// What can be watched for rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots<'a> {
    /// Directories, in which a component may have the wildcards `*` and `?`.
    pub directories: Vec<String>,
    /// Patterns that gave none: the rule, the pattern, and why.
    pub refused: Vec<(&'a Rule, String, &'static str)>,
}

impl RuleSet {
    /// Derives directories from the paths that rules ask for, but for those
    /// below `watched` (written as the result is), and for rules that nothing
    /// could match anyhow. A `*` within a path stands for one directory here,
    /// where in a rule it may be several.
    #[must_use]
    pub fn roots(&self, watched: &[&str]) -> Roots<'_> {
        let mut roots = Roots::default();
        for compiled in &self.rules {
            let hopeless = inert(compiled, &["/".to_owned()]);
            if hopeless.is_some_and(|inert| inert.field != PATH) {
                continue;
            }
            let mut patterns = Vec::new();
            asked(compiled.query().expr(), PATH, &mut patterns);
            for pattern in patterns {
                match root(&pattern) {
                    Ok(root) if is_below(&root, watched.iter().copied()) => {}
                    Ok(root) if is_below(&root, roots.directories.iter().map(String::as_str)) => {}
                    Ok(_) if roots.directories.len() >= MAX_ROOTS => {
                        let why = "there are too many directories already";
                        roots.refused.push((&compiled.rule, pattern, why));
                    }
                    Ok(root) => {
                        let below = |other: &String| is_below(other, [root.as_str()]);
                        roots.directories.retain(|other| !below(other));
                        roots.directories.push(root);
                    }
                    Err(why) => roots.refused.push((&compiled.rule, pattern, why)),
                }
            }
        }
        roots
    }
}

fn is_below<'r>(directory: &str, roots: impl IntoIterator<Item = &'r str>) -> bool {
    roots.into_iter().any(|root| {
        let rest = directory.strip_prefix(root.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// The directory that everything that matches lies in, as far as can be said.
fn root(pattern: &str) -> Result<String, &'static str> {
    let Some(path) = pattern.strip_prefix('/') else {
        return Err("it does not begin at the root");
    };
    if pattern.contains(['[', ']', '{', '}', '\\']) {
        return Err("it has brackets or backslashes");
    }
    let mut names: Vec<&str> = path.split('/').collect();
    // The last one is the file.
    names.pop();
    if names.iter().any(|name| matches!(*name, "" | "." | "..")) {
        return Err("it is no plain path");
    }
    while names.last().is_some_and(|name| *name == "*") {
        names.pop();
    }
    let plain = names.iter().filter(|name| !name.contains(['*', '?']));
    if plain.count() < MIN_NAMES {
        return Err("it is too broad");
    }
    Ok(format!("/{}", names.join("/")))
}
