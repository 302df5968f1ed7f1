//! The configuration file: its keys, their defaults, and what is wrong with it.
//!
//! Owns the TOML form of `/etc/ssh-keywatch/config.toml`. Must not act on what
//! it says: no directory is opened, no group looked up, no query parsed here.
//! Fails with every problem it can find at once, each with file, line, column,
//! source line and caret; an unknown key is an error that names the nearest
//! known one. An empty file is valid.

mod check;
pub mod snippet;
mod units;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use jiff::civil::Date;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use self::snippet::{Fault, Site, Source};
pub use self::units::{Age, Mode, Size};
use crate::text::escape_path;

/// Where the configuration is, unless `--config` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/ssh-keywatch/config.toml";

/// Everything the configuration file can say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What is watched, and how.
    pub watch: Watch,
    /// Where rules are.
    pub rules: Rules,
    /// The alert log.
    pub log: Log,
    /// What outlives a run.
    pub state: State,
    /// Alerts in the journal.
    pub journal: Journal,
    /// The socket of `status`.
    pub control: Control,
    /// What is printed.
    pub output: Output,
    /// Matches that raise no alert.
    #[serde(rename = "exception")]
    pub exceptions: Vec<Exception>,
}

/// `[watch]`: what is watched, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Watch {
    /// Globs of home directories; each home's `.ssh` is watched. A `*` stands
    /// for one component or a part of one.
    pub homes: Vec<String>,
    /// Also the `.ssh` of every home that the passwd database knows.
    pub passwd_homes: bool,
    /// Directories watched as they are, recursively.
    pub directories: Vec<PathBuf>,
    /// The kernel interface.
    pub backend: Backend,
    /// Which writers the kernel holds while they are identified.
    pub hold: Hold,
    /// Whether forks, execs and exits are followed, so that who renames or links
    /// can be named after its end.
    pub process_table: bool,
    /// At most so many directories are watched.
    pub max_directories: u32,
    /// How often network and FUSE file systems are looked at (seconds).
    pub poll_interval: u32,
    /// At most so many directories are watched in one home.
    pub home_directories: u32,
    /// At most so many files of one home are remembered.
    pub home_files: u32,
    /// At most so many events of one home are told one by one in five minutes;
    /// beyond it is a flood, which is one alert and counts.
    pub home_events: u32,
    /// Programs that are recorded when they are executed.
    pub key_tools: Vec<PathBuf>,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            homes: vec!["/home/*".into(), "/root".into()],
            passwd_homes: false,
            directories: vec!["/etc/ssh".into()],
            backend: Backend::Auto,
            hold: Hold::New,
            process_table: true,
            max_directories: 65_536,
            poll_interval: 60,
            home_directories: 4096,
            home_files: 16_384,
            home_events: 5000,
            key_tools: vec![
                "/usr/bin/ssh-keygen".into(),
                "/usr/bin/dropbearkey".into(),
                "/usr/bin/puttygen".into(),
            ],
        }
    }
}

/// `[rules]`: where rules are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// Directories of rule files; a later one overrides an earlier one by
    /// `rule_id`.
    pub directories: Vec<PathBuf>,
    /// Whether the directories that rules speak of are watched too.
    pub watch: RuleWatch,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            directories: vec![
                "/usr/share/ssh-keywatch/rules".into(),
                "/etc/ssh-keywatch/rules.d".into(),
            ],
            watch: RuleWatch::Config,
        }
    }
}

/// `[log]`: the alert log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// The file.
    pub file: PathBuf,
    /// The group that owns it.
    pub group: String,
    /// Its permission bits.
    pub mode: Mode,
    /// It is rotated before it grows larger (bytes).
    pub max_size: Size,
    /// It is rotated when its first line is older.
    pub max_age: Age,
    /// At most so many rotated files are kept.
    pub keep: u32,
    /// Whether rotated files are compressed, but for the newest.
    pub compress: bool,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            file: "/var/log/ssh-keywatch/alerts.json".into(),
            group: "adm".into(),
            mode: Mode(0o640),
            max_size: Size(Some(50 << 20)),
            max_age: Age(None),
            keep: 10,
            compress: true,
        }
    }
}

/// `[state]`: what outlives a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct State {
    /// The directory of the baseline.
    pub directory: PathBuf,
}

impl Default for State {
    fn default() -> Self {
        Self {
            directory: "/var/lib/ssh-keywatch".into(),
        }
    }
}

/// `[journal]`: alerts in the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Journal {
    /// Whether alerts go to journald.
    pub enabled: bool,
}

impl Default for Journal {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// `[control]`: the socket that answers `status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Control {
    /// The socket.
    pub socket: PathBuf,
    /// The group whose members may ask, besides root.
    pub group: String,
}

impl Default for Control {
    fn default() -> Self {
        Self {
            socket: "/run/ssh-keywatch/control.sock".into(),
            group: "adm".into(),
        }
    }
}

/// `[output]`: what is printed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Output {
    /// Alerts on standard output.
    pub stdout: Stdout,
    /// Colours on the terminal.
    pub color: Color,
}

/// The kernel interface that watches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// fanotify, and inotify where it is not permitted
    #[default]
    Auto,
    /// fanotify or nothing
    Fanotify,
    /// inotify, which cannot name the writer
    Inotify,
}

/// Which writers the kernel holds while they are identified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Hold {
    /// Only the making of new files
    #[default]
    New,
    /// Every opening of a watched file
    All,
    /// No one
    Off,
}

/// What is watched for the sake of rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleWatch {
    /// Nothing but what `[watch]` says.
    #[default]
    Config,
    /// Also the directories of the paths that rules ask for.
    Rule,
}

/// What alerts look like on standard output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Stdout {
    /// Text on a terminal, nothing elsewhere
    Auto,
    /// Text for a person
    #[default]
    Text,
    /// One JSON document a line
    Json,
    /// Nothing
    None,
}

/// When output is coloured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Color {
    /// On a terminal
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// `[[exception]]`: matches that raise no alert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exception {
    /// A `rule_id`, a rule's name, or `*` for every rule.
    pub rule: String,
    /// The EQL condition under which a match is no alert.
    pub when: String,
    /// Why; shown wherever the exception is.
    pub reason: String,
    /// The last day on which it holds.
    #[serde(
        default,
        deserialize_with = "date",
        serialize_with = "date_text",
        skip_serializing_if = "Option::is_none"
    )]
    pub expires: Option<Date>,
    /// Where `rule` stands in the file.
    #[serde(skip)]
    pub rule_site: Option<Site>,
    /// Where `when` stands in the file.
    #[serde(skip)]
    pub when_site: Option<Site>,
}

#[expect(
    clippy::ref_option,
    clippy::trivially_copy_pass_by_ref,
    reason = "serde gives a reference to the field"
)]
fn date_text<S: Serializer>(date: &Option<Date>, serializer: S) -> Result<S::Ok, S::Error> {
    match date {
        Some(date) => serializer.collect_str(date),
        None => serializer.serialize_none(),
    }
}

fn date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Date>, D::Error> {
    let value = toml::value::Datetime::deserialize(deserializer)?;
    let toml::value::Datetime {
        date: Some(date),
        time: None,
        offset: None,
    } = value
    else {
        return Err(serde::de::Error::custom(
            "an exception expires with a day; write a date such as 2027-03-31",
        ));
    };
    i16::try_from(date.year)
        .ok()
        .zip(i8::try_from(date.month).ok())
        .zip(i8::try_from(date.day).ok())
        .and_then(|((year, month), day)| Date::new(year, month, day).ok())
        .map(Some)
        .ok_or_else(|| serde::de::Error::custom("there is no such day"))
}

/// Why there is no configuration.
#[derive(Debug)]
pub enum Error {
    /// The file could not be read.
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not UTF-8 text.
    NotText {
        /// The file.
        path: PathBuf,
        /// Offset of the first byte that is not UTF-8, from 0.
        offset: usize,
    },
    /// The file says something wrong; at least one fault.
    Invalid(Vec<Fault>),
}

impl Error {
    /// Whether there simply is no such file.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// The report, with terminal colours if `styled`.
    #[must_use]
    pub fn render(&self, styled: bool) -> String {
        match self {
            Self::Read { path, source } => {
                let path = escape_path(path);
                format!("cannot read the configuration {path}: {source}")
            }
            Self::NotText { path, offset } => format!(
                "the configuration {} is not UTF-8 text: byte {offset} is wrong",
                escape_path(path)
            ),
            Self::Invalid(faults) => {
                let reports: Vec<_> = faults.iter().map(|fault| fault.render(styled)).collect();
                reports.join("\n\n")
            }
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.render(false))
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read { source, .. } => Some(source),
            Self::NotText { .. } | Self::Invalid(_) => None,
        }
    }
}

impl Config {
    /// Reads the file at `path`.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let bytes = std::fs::read(path).map_err(|source| Error::Read {
            path: path.to_owned(),
            source,
        })?;
        let text = String::from_utf8(bytes).map_err(|error| Error::NotText {
            path: path.to_owned(),
            offset: error.utf8_error().valid_up_to(),
        })?;
        Self::parse(&text, path)
    }

    /// Reads a configuration's text; `origin` is the file that errors name.
    pub fn parse(text: &str, origin: &Path) -> Result<Self, Error> {
        check::parse(&Source::new(origin, text)).map_err(Error::Invalid)
    }
}
