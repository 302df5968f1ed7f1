//! From text to a checked `Config`.
//!
//! Owns every demand on the configuration that its types do not express, and
//! the search for the place of what is wrong. Pure.

use std::ops::Range;
use std::path::{Component, Path};

use globset::GlobBuilder;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::snippet::{Fault, Source, nearest};
use super::{Config, Exception, Watch};
use crate::text::escape_path;

/// How many bytes the path of the control socket may have.
const MAX_SOCKET: usize = 96;

/// A smaller log could not hold some dozen alerts (bytes).
const LEAST_SIZE: u64 = 64 << 10;

/// How many rotated files may be kept.
const KEEP: std::ops::RangeInclusive<u32> = 1..=200;

/// Parses and checks; on failure there is at least one fault.
pub(super) fn parse(source: &Source) -> Result<Config, Vec<Fault>> {
    let document = DeTable::parse(source.text())
        .map_err(|error| vec![syntax_fault(source, &error)])?
        .into_inner();
    let unknown = unknown_keys(source, &document);
    if !unknown.is_empty() {
        return Err(unknown);
    }
    let mut config: Config =
        toml::from_str(source.text()).map_err(|error| vec![syntax_fault(source, &error)])?;
    for (index, exception) in config.exceptions.iter_mut().enumerate() {
        let site = |key: &str, value: &str| {
            let table = document.get("exception")?.get_ref().get(index)?;
            Some(source.string(table.get_ref().get(key)?.span(), value))
        };
        exception.rule_site = site("rule", &exception.rule);
        exception.when_site = site("when", &exception.when);
    }
    let mut check = Check {
        source,
        document: &document,
        faults: Vec::new(),
    };
    check.config(&config);
    if check.faults.is_empty() {
        Ok(config)
    } else {
        Err(check.faults)
    }
}

/// A fault for what the TOML reader objects to.
fn syntax_fault(source: &Source, error: &toml::de::Error) -> Fault {
    let span = error.span().unwrap_or(0..0);
    let message = error.message().lines().collect::<Vec<_>>().join("; ");
    // The two slips whose message says nothing to a person.
    let help = if message.ends_with("expected a sequence") {
        Some("write a list: [\"…\"]")
    } else if message.starts_with("unexpected leading zero") {
        Some("a file mode is written in quotes: \"0640\"")
    } else {
        None
    };
    source
        .fault(span, message)
        .maybe_help(help.map(str::to_owned))
}

/// A complete configuration, from whose TOML form the known keys are read, so
/// that no second list of them can go stale.
fn known() -> toml::Table {
    let sample = Config {
        exceptions: vec![Exception {
            rule: String::new(),
            when: String::new(),
            reason: String::new(),
            expires: Some(jiff::civil::Date::constant(2000, 1, 1)),
            rule_site: None,
            when_site: None,
        }],
        ..Config::default()
    };
    toml::Table::try_from(sample).unwrap_or_default()
}

fn unknown_keys(source: &Source, document: &DeTable<'_>) -> Vec<Fault> {
    let known = known();
    let mut faults = Vec::new();
    for (name, value) in document {
        let Some(expected) = known.get(name.get_ref().as_ref()) else {
            let what = match value.get_ref() {
                DeValue::Table(_) => "table",
                DeValue::Array(_) => "array",
                _ => "key",
            };
            faults.push(unknown_top(source, name, what, &known));
            continue;
        };
        let (tables, keys, section): (Vec<&DeTable<'_>>, _, _) = match (expected, value.get_ref()) {
            (toml::Value::Table(keys), DeValue::Table(table)) => {
                (vec![table], keys, format!("[{}]", name.get_ref()))
            }
            (toml::Value::Array(sample), DeValue::Array(items)) => {
                let Some(toml::Value::Table(keys)) = sample.first() else {
                    continue;
                };
                let tables = items
                    .iter()
                    .filter_map(|item| item.get_ref().as_table())
                    .collect();
                (tables, keys, format!("[[{}]]", name.get_ref()))
            }
            (toml::Value::Array(_), DeValue::Table(_)) => {
                let name = name.get_ref();
                let message = format!("[{name}] may stand more than once; write [[{name}]]");
                faults.push(source.fault(value.span(), message));
                continue;
            }
            // Of a wrong type, which deserializing reports.
            _ => continue,
        };
        for key in tables.iter().flat_map(|table| table.keys()) {
            if !keys.contains_key(key.get_ref().as_ref()) {
                faults.push(unknown_key(source, key, &section, keys));
            }
        }
    }
    faults.sort_by_key(Fault::line);
    faults
}

fn unknown_top(
    source: &Source,
    name: &Spanned<std::borrow::Cow<'_, str>>,
    what: &str,
    known: &toml::Table,
) -> Fault {
    let written = name.get_ref().as_ref();
    let shown = match what {
        "table" => format!("[{written}]"),
        "array" => format!("[[{written}]]"),
        _ => format!("`{written}`"),
    };
    let bracket = |key: &str| match known.get(key) {
        Some(toml::Value::Array(_)) => format!("[[{key}]]"),
        _ => format!("[{key}]"),
    };
    let home = known.iter().find(|(_, value)| {
        value
            .as_table()
            .is_some_and(|keys| keys.contains_key(written))
    });
    let (message, help) = match (nearest(written, known.keys().map(String::as_str)), home) {
        (_, Some((table, _))) => (
            format!("`{written}` belongs into a table"),
            format!("write it below [{table}]"),
        ),
        (Some(near), None) => (
            format!("unknown {what} {shown}; did you mean {}?", bracket(near)),
            tables_help(known, bracket),
        ),
        (None, None) => (
            format!("unknown {what} {shown}"),
            tables_help(known, bracket),
        ),
    };
    source.fault(name.span(), message).help(help)
}

fn tables_help(known: &toml::Table, bracket: impl Fn(&str) -> String) -> String {
    let names: Vec<_> = known.keys().map(|key| bracket(key)).collect();
    format!("the tables are {}", names.join(", "))
}

fn unknown_key(
    source: &Source,
    key: &Spanned<std::borrow::Cow<'_, str>>,
    section: &str,
    keys: &toml::Table,
) -> Fault {
    let written = key.get_ref().as_ref();
    let names: Vec<_> = keys.keys().map(String::as_str).collect();
    let message = match nearest(written, names.iter().copied()) {
        Some(near) => format!("unknown key `{written}` in {section}; did you mean `{near}`?"),
        None => format!("unknown key `{written}` in {section}"),
    };
    source
        .fault(key.span(), message)
        .help(format!("the keys of {section} are {}", names.join(", ")))
}

/// The demands on values.
struct Check<'a> {
    source: &'a Source,
    document: &'a DeTable<'a>,
    faults: Vec<Fault>,
}

impl Check<'_> {
    fn limits(&mut self, watch: &Watch) {
        if watch.max_directories == 0 {
            let span = self.value("watch", "max_directories");
            self.report(
                span,
                "max_directories is 0, so nothing could be watched".into(),
                "leave it out for the default of 65536",
            );
        }
        if watch.poll_interval == 0 {
            let span = self.value("watch", "poll_interval");
            self.report(
                span,
                "poll_interval is 0 seconds, so nothing else would ever be done".into(),
                "leave it out for the default of 60",
            );
        }
    }

    /// What one home may take.
    fn shares(&mut self, watch: &Watch) {
        for (key, value, least) in [
            ("home_directories", watch.home_directories, 2),
            ("home_files", watch.home_files, 16),
            ("home_events", watch.home_events, 1),
        ] {
            if value < least {
                let span = self.value("watch", key);
                self.report(
                    span,
                    format!("{key} is {value}, with which no home could be watched"),
                    &format!("write {least} or more, or leave it out for the default"),
                );
            }
        }
    }

    fn config(&mut self, config: &Config) {
        let watch = &config.watch;
        for (index, glob) in watch.homes.iter().enumerate() {
            if let Some((message, help)) = glob_problem(glob) {
                let span = self.element("watch", "homes", index);
                self.report(span, message, help);
            }
        }
        if watch.homes.is_empty() && watch.directories.is_empty() && !watch.passwd_homes {
            let span = self.value("watch", "homes");
            self.report(
                span,
                "there is nothing to watch".into(),
                "name a home or a directory, or set passwd_homes = true",
            );
        }
        self.paths("watch", "directories", &watch.directories);
        self.paths("watch", "key_tools", &watch.key_tools);
        self.limits(watch);
        self.shares(watch);
        self.paths("rules", "directories", &config.rules.directories);
        if config.rules.directories.is_empty() {
            let span = self.value("rules", "directories");
            self.report(
                span,
                "there is no rule directory".into(),
                "without rules nothing raises an alert; leave the key out for the default",
            );
        }
        self.path("log", "file", &config.log.file);
        if config.log.group.is_empty() {
            let span = self.value("log", "group");
            self.report(
                span,
                "the log's group is empty".into(),
                "name a group such as \"adm\" or \"root\"",
            );
        }
        let mode = config.log.mode.0;
        if mode & !0o666 != 0 || mode & 0o002 != 0 || mode & 0o600 != 0o600 {
            let span = self.value("log", "mode");
            self.report(
                span,
                format!("{} is no mode for the alert log", config.log.mode),
                "its owner must read and write it, others must not write it, and no one executes it",
            );
        }
        if config.log.max_size.0.is_some_and(|size| size < LEAST_SIZE) {
            let span = self.value("log", "max_size");
            self.report(
                span,
                format!("{} is too small for an alert log", config.log.max_size),
                "write at least \"64K\", or \"off\" if something else rotates the log",
            );
        }
        if config.log.max_age.0.is_some_and(|age| age.is_zero()) {
            let span = self.value("log", "max_age");
            self.report(
                span,
                "a log cannot be rotated at the age of 0".into(),
                "write at least \"1h\", or \"off\"",
            );
        }
        if !KEEP.contains(&config.log.keep) {
            let span = self.value("log", "keep");
            self.report(
                span,
                format!("{} rotated files cannot be kept", config.log.keep),
                "write a number from 1 to 200; \"off\" for max_size and max_age turns rotation off",
            );
        }
        self.path("state", "directory", &config.state.directory);
        self.path("control", "socket", &config.control.socket);
        // sun_path of unix(7), without its NUL and the suffix it is made under.
        if config.control.socket.as_os_str().len() > MAX_SOCKET {
            let span = self.value("control", "socket");
            self.report(
                span,
                format!("the path of a socket has at most {MAX_SOCKET} bytes"),
                "give it a shorter one, such as \"/run/ssh-keywatch/control.sock\"",
            );
        }
        if config.control.group.is_empty() {
            let span = self.value("control", "group");
            self.report(
                span,
                "the control socket's group is empty".into(),
                "name a group such as \"adm\" or \"root\"",
            );
        }
        for (index, exception) in config.exceptions.iter().enumerate() {
            self.exception(index, exception);
        }
    }

    fn exception(&mut self, index: usize, exception: &Exception) {
        for (key, value, help) in [
            (
                "rule",
                &exception.rule,
                "name a rule_id, a rule's name, or \"*\"",
            ),
            (
                "when",
                &exception.when,
                "write an EQL condition such as 'user.name == \"deploy\"'",
            ),
            (
                "reason",
                &exception.reason,
                "say why, for whoever reads it later",
            ),
        ] {
            if value.trim().is_empty() {
                let span = self
                    .document
                    .get("exception")
                    .and_then(|list| list.get_ref().get(index)?.get_ref().get(key))
                    .map(Spanned::span);
                self.report(span, format!("the exception's `{key}` is empty"), help);
            }
        }
    }

    fn paths<P: AsRef<Path>>(&mut self, table: &str, key: &str, paths: &[P]) {
        for (index, path) in paths.iter().enumerate() {
            if let Some((message, help)) = path_problem(path.as_ref()) {
                let span = self.element(table, key, index);
                self.report(span, message, help);
            }
        }
    }

    fn path(&mut self, table: &str, key: &str, path: &Path) {
        if let Some((message, help)) = path_problem(path) {
            let span = self.value(table, key);
            self.report(span, message, help);
        }
    }

    fn report(&mut self, span: Option<Range<usize>>, message: String, help: &str) {
        // A default has no place in the file; the tests keep defaults valid.
        let span = span.unwrap_or(0..0);
        self.faults
            .push(self.source.fault(span, message).help(help));
    }

    fn value(&self, table: &str, key: &str) -> Option<Range<usize>> {
        Some(self.document.get(table)?.get_ref().get(key)?.span())
    }

    fn element(&self, table: &str, key: &str, index: usize) -> Option<Range<usize>> {
        let list = self.document.get(table)?.get_ref().get(key)?;
        Some(list.get_ref().get(index)?.span())
    }
}

fn path_problem(path: &Path) -> Option<(String, &'static str)> {
    let shown = escape_path(path);
    if path.as_os_str().is_empty() {
        Some(("the path is empty".into(), "write an absolute path"))
    } else if !path.is_absolute() {
        Some((
            format!("`{shown}` is a relative path"),
            "write an absolute path, from / on",
        ))
    } else if path.components().any(|part| part == Component::ParentDir) {
        Some((
            format!("`{shown}` contains `..`"),
            "write the path without it",
        ))
    } else {
        None
    }
}

fn glob_problem(glob: &str) -> Option<(String, &'static str)> {
    if let Some(problem) = path_problem(Path::new(glob)) {
        return Some(problem);
    }
    if glob.contains("**") {
        return Some((
            format!("`{glob}` contains `**`"),
            "a `*` stands for one directory; write one for each level",
        ));
    }
    let parts = Path::new(glob).components().filter_map(|part| match part {
        Component::Normal(name) => name.to_str(),
        _ => None,
    });
    for part in parts {
        if let Err(error) = GlobBuilder::new(part).literal_separator(true).build() {
            return Some((
                format!("`{glob}` is not a glob: {}", error.kind()),
                "*, ?, [...] and {...} are special; a backslash takes that away",
            ));
        }
    }
    None
}
