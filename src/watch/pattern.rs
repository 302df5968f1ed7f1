//! Which directories are wanted: absolute paths, each component a name or a glob.
//!
//! Owns matching one component at a time, so that the tree can walk down from
//! `/` and notice every directory on the way as it comes and goes. Must not
//! touch the file system.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Component, Path};

use globset::{GlobBuilder, GlobMatcher};

/// Why a path is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It does not start at the root.
    #[error("`{0}` is not an absolute path: begin it with `/`")]
    NotAbsolute(String),
    /// It has a `..` in it.
    #[error("`{0}` has a `..` in it: write the path without it")]
    Parent(String),
    /// A component is no glob.
    #[error("`{0}` is no glob: {1}")]
    Glob(String, String),
}

#[derive(Clone, Debug)]
enum Part {
    Name(OsString),
    Glob(GlobMatcher),
}

/// An absolute path whose components may be globs (`*`, `?`, `[…]`, `{…}`);
/// none of them matches a leading dot unless it is written, as in a shell.
#[derive(Clone, Debug)]
pub struct Pattern {
    parts: Vec<Part>,
}

/// As it is written; what is not UTF-8 is replaced.
impl fmt::Display for Pattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            match part {
                Part::Name(name) => write!(out, "/{}", name.display())?,
                Part::Glob(glob) => write!(out, "/{}", glob.glob().glob())?,
            }
        }
        if self.parts.is_empty() {
            out.write_str("/")?;
        }
        Ok(())
    }
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// [`PatternError`] says what is wrong with it.
    pub fn parse(path: &Path) -> Result<Self, PatternError> {
        let shown = || path.display().to_string();
        if !path.is_absolute() {
            return Err(PatternError::NotAbsolute(shown()));
        }
        let mut parts = Vec::new();
        for component in path.components() {
            match component {
                Component::Normal(name) => parts.push(Self::part(name, shown)?),
                Component::ParentDir => return Err(PatternError::Parent(shown())),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
        Ok(Self { parts })
    }

    fn part(name: &OsStr, shown: impl Fn() -> String) -> Result<Part, PatternError> {
        match name.to_str() {
            Some(text) if text.contains(['*', '?', '[', '{']) => GlobBuilder::new(text)
                .literal_separator(true)
                .build()
                .map(|glob| Part::Glob(glob.compile_matcher()))
                .map_err(|error| PatternError::Glob(shown(), error.kind().to_string())),
            _ => Ok(Part::Name(name.to_owned())),
        }
    }

    /// A pattern for exactly `path`, whatever characters are in it.
    ///
    /// # Errors
    /// [`PatternError::NotAbsolute`] and [`PatternError::Parent`].
    pub fn literal(path: &Path) -> Result<Self, PatternError> {
        let shown = || path.display().to_string();
        if !path.is_absolute() {
            return Err(PatternError::NotAbsolute(shown()));
        }
        let mut parts = Vec::new();
        for component in path.components() {
            match component {
                Component::Normal(name) => parts.push(Part::Name(name.to_owned())),
                Component::ParentDir => return Err(PatternError::Parent(shown())),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
        Ok(Self { parts })
    }

    /// The pattern for `name` below what this one matches.
    #[must_use]
    pub fn join(mut self, name: &str) -> Self {
        self.parts.push(Part::Name(name.into()));
        self
    }

    /// Whether `path` lies below what it matches, or is it.
    #[must_use]
    pub fn covers(&self, path: &Path) -> bool {
        let mut names = path.components().filter_map(|component| match component {
            Component::Normal(name) => Some(name),
            _ => None,
        });
        (0..self.depth()).all(|depth| names.next().is_some_and(|name| self.matches(depth, name)))
    }

    /// How many components it has.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.parts.len()
    }

    /// Whether `name` may stand as component `depth` (from 0).
    #[must_use]
    pub fn matches(&self, depth: usize, name: &OsStr) -> bool {
        match self.parts.get(depth) {
            Some(Part::Name(wanted)) => wanted == name,
            Some(Part::Glob(glob)) => {
                let hidden = name.as_encoded_bytes().starts_with(b".");
                (!hidden || glob.glob().glob().starts_with('.')) && glob.is_match(name)
            }
            None => false,
        }
    }

    /// Component `depth`, when it is a plain name and needs no listing.
    #[must_use]
    pub fn name(&self, depth: usize) -> Option<&OsStr> {
        match self.parts.get(depth) {
            Some(Part::Name(name)) => Some(name),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_match_one_at_a_time() {
        let pattern = Pattern::parse(Path::new("/home/*/")).unwrap().join(".ssh");
        assert_eq!(pattern.depth(), 3);
        assert!(pattern.matches(0, OsStr::new("home")));
        assert!(!pattern.matches(0, OsStr::new("root")));
        assert!(pattern.matches(1, OsStr::new("ann")));
        assert!(!pattern.matches(1, OsStr::new(".snapshots")));
        assert!(pattern.matches(2, OsStr::new(".ssh")));
        assert!(!pattern.matches(3, OsStr::new("x")));
        assert_eq!(pattern.name(1), None);
        assert_eq!(pattern.name(2), Some(OsStr::new(".ssh")));
    }

    #[test]
    fn bad_patterns_say_what_is_wrong() {
        let error = |path: &str| Pattern::parse(Path::new(path)).unwrap_err().to_string();
        assert_eq!(
            error("home/*"),
            "`home/*` is not an absolute path: begin it with `/`"
        );
        assert_eq!(
            error("/home/../etc"),
            "`/home/../etc` has a `..` in it: write the path without it"
        );
        assert!(error("/home/[").starts_with("`/home/[` is no glob: "));
    }

    #[test]
    fn what_lies_below_is_covered_and_its_text_says_the_same() {
        let pattern = Pattern::parse(Path::new("/home/*")).unwrap().join(".ssh");
        assert_eq!(pattern.to_string(), "/home/*/.ssh");
        for (path, covered) in [
            ("/home/ann/.ssh", true),
            ("/home/ann/.ssh/deep/key", true),
            ("/home/ann", false),
            ("/home/.hidden/.ssh/key", false),
            ("/srv/ann/.ssh/key", false),
        ] {
            assert_eq!(pattern.covers(Path::new(path)), covered, "{path}");
        }
    }

    #[test]
    fn a_literal_keeps_glob_characters() {
        let pattern = Pattern::literal(Path::new("/srv/[a]")).unwrap();
        assert!(pattern.matches(1, OsStr::new("[a]")));
        assert!(!pattern.matches(1, OsStr::new("a")));
    }
}
