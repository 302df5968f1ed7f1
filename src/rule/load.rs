//! From directories to one set of rules.
//!
//! Owns which files are rules, and which file speaks for a `rule_id`. Fails with
//! everything that is wrong in any of them, because a set with a hole in it is
//! not what anybody asked for.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::file::{self, Body, Compiled, Parsed};
use super::{Entry, Error, Fields, Standing, cases, shipped};
use crate::config;
use crate::config::snippet::{self, Source};

/// No rule is longer; what is, is no rule.
const MAX_BYTES: u64 = 1 << 20;

/// What loading gave: the rules that run, and one entry for each file.
pub(super) struct Loaded {
    pub(super) rules: Vec<Compiled>,
    pub(super) entries: Vec<Entry>,
}

/// A directory's rule by `rule_id`, beside its place in the list of entries.
type Found = BTreeMap<String, (usize, Option<Box<Compiled>>)>;

pub(super) fn load(
    directories: &[PathBuf],
    builtin: bool,
    fields: Fields,
) -> Result<Loaded, Vec<Error>> {
    let mut errors = Vec::new();
    let mut entries: Vec<Entry> = Vec::new();
    let mut speaking: Found = BTreeMap::new();
    for directory in directories {
        let texts = match texts(directory, builtin, Kind::Rules) {
            Ok(texts) => texts,
            Err(more) => {
                errors.extend(more);
                continue;
            }
        };
        let found = read_all(directory, texts, fields, &mut entries, &mut errors);
        for (id, (index, rule)) in found {
            if let Some((before, _)) = speaking.insert(id, (index, rule)) {
                let by = entries[index].file.clone();
                entries[before].standing = Standing::Overridden(by);
            }
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let mut rules: Vec<(usize, Compiled)> = speaking
        .into_values()
        .filter_map(|(index, rule)| Some((index, *rule?)))
        .collect();
    rules.sort_by_key(|(index, _)| *index);
    Ok(Loaded {
        rules: rules.into_iter().map(|(_, rule)| rule).collect(),
        entries,
    })
}

/// The same from texts, all of one directory.
pub(super) fn of_texts(texts: &[(&Path, &str)], fields: Fields) -> Result<Loaded, Vec<Error>> {
    let (mut entries, mut errors) = (Vec::new(), Vec::new());
    let texts = texts.iter();
    let texts = texts.map(|(path, text)| ((*path).to_owned(), (*text).to_owned()));
    let found = read_all(
        Path::new(""),
        texts.collect(),
        fields,
        &mut entries,
        &mut errors,
    );
    if !errors.is_empty() {
        return Err(errors);
    }
    let mut rules: Vec<_> = found.into_values().collect();
    rules.sort_by_key(|(index, _)| *index);
    Ok(Loaded {
        rules: rules
            .into_iter()
            .filter_map(|(_, rule)| Some(*rule?))
            .collect(),
        entries,
    })
}

/// Parses a directory's files; no two of them may have the same `rule_id`.
fn read_all(
    directory: &Path,
    texts: Vec<(PathBuf, String)>,
    fields: Fields,
    entries: &mut Vec<Entry>,
    errors: &mut Vec<Error>,
) -> Found {
    let ruleset = if directory == Path::new(shipped::DIRECTORY) {
        shipped::RULESET.to_owned()
    } else {
        directory.display().to_string()
    };
    let mut found: Found = BTreeMap::new();
    for (path, text) in texts {
        let source = Source::new(&path, &text);
        let Parsed { id, name, body } = match file::parse(&source, &path, &ruleset, fields) {
            Ok(parsed) => parsed,
            Err(faults) => {
                errors.extend(faults.into_iter().map(Error::Invalid));
                continue;
            }
        };
        if let Some((first, _)) = found.get(id.get_ref()) {
            let message = format!("the rule_id {} is taken", id.get_ref());
            let help = format!("{} has it too", snippet::shown(&entries[*first].file));
            let fault = source.fault(id.span(), message).help(help);
            errors.push(Error::Invalid(fault));
            continue;
        }
        let (standing, rule) = match body {
            Body::Rule(rule) => (Standing::Active, Some(rule)),
            Body::Disabled => (Standing::Disabled, None),
            Body::Skipped(reason) => (Standing::Skipped(reason), None),
        };
        found.insert(id.get_ref().clone(), (entries.len(), rule));
        entries.push(Entry {
            id: id.into_inner(),
            name,
            file: path,
            standing,
        });
    }
    found
}

/// Which files of a directory are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Rules: all but those in a directory of cases.
    Rules,
    /// Cases: those alone.
    Cases,
}

/// Path and text of a directory's files of this kind, by path.
pub(super) fn texts(
    directory: &Path,
    builtin: bool,
    kind: Kind,
) -> Result<Vec<(PathBuf, String)>, Vec<Error>> {
    let mut paths = Vec::new();
    if let Err(error) = walk(directory, kind, kind == Kind::Rules, &mut paths) {
        let missing = matches!(&error, Error::Read { path, source }
            if path == directory && source.kind() == io::ErrorKind::NotFound);
        if missing && builtin && directory == Path::new(shipped::DIRECTORY) {
            return Ok(carried(directory, kind));
        }
        // A directory that nobody asked for by name need not be there.
        if missing
            && config::Rules::default()
                .directories
                .iter()
                .any(|default| default == directory)
        {
            return Ok(Vec::new());
        }
        return Err(vec![error]);
    }
    paths.sort();
    let mut texts = Vec::new();
    let mut errors = Vec::new();
    for path in paths {
        match read(&path) {
            Ok(text) => texts.push((path, text)),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() {
        Ok(texts)
    } else {
        Err(errors)
    }
}

/// What the binary carries, by where it would be installed.
fn carried(directory: &Path, kind: Kind) -> Vec<(PathBuf, String)> {
    let (directory, files) = match kind {
        Kind::Rules => (directory.to_owned(), &shipped::RULES),
        Kind::Cases => (directory.join(cases::DIRECTORY), &shipped::CASES),
    };
    files
        .iter()
        .map(|(name, text)| (directory.join(name), (*text).to_owned()))
        .collect()
}

/// Collects `*.toml`, also of directories below, but not through links to
/// directories, which could go round in circles. What starts with a dot is an
/// editor's or a package manager's. Files are `meant` once the walk is in a
/// directory of the right kind.
fn walk(directory: &Path, kind: Kind, meant: bool, paths: &mut Vec<PathBuf>) -> Result<(), Error> {
    let failed = |source| Error::Read {
        path: directory.to_owned(),
        source,
    };
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if entry.file_type().map_err(failed)?.is_dir() {
            let of_cases = entry.file_name() == cases::DIRECTORY;
            match kind {
                Kind::Rules if of_cases => {}
                Kind::Rules => walk(&path, kind, true, paths)?,
                Kind::Cases => walk(&path, kind, meant || of_cases, paths)?,
            }
        } else if meant && path.extension().is_some_and(|suffix| suffix == "toml") {
            paths.push(path);
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<String, Error> {
    let failed = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let facts = fs::metadata(path).map_err(failed)?;
    // A FIFO would hold the daemon up for ever.
    if !facts.is_file() || facts.len() > MAX_BYTES {
        return Err(Error::NoRule {
            path: path.to_owned(),
            reason: "it is not a regular file of at most 1 MiB",
        });
    }
    String::from_utf8(fs::read(path).map_err(failed)?).map_err(|_| Error::NoRule {
        path: path.to_owned(),
        reason: "it is not UTF-8 text",
    })
}
