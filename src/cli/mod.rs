//! The command line: one file a command, no logic of its own.
//!
//! Owns the options and what overrides what: a flag the environment, the
//! environment the configuration file, the file the defaults.

mod check;
mod color;
mod inventory;
pub mod replay;
mod rules;
mod run;
mod status;
mod tail;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{ArgAction, CommandFactory, Parser, Subcommand};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{self, Color, Config};
use crate::daemon::{self, Fatal};
use crate::exit::Exit;

/// Tells who put which SSH key where: watches ~/.ssh of every home and
/// /etc/ssh, names the process behind each change, and raises alerts by rules
/// written in EQL.
#[derive(Debug, Parser)]
#[command(
    name = "ssh-keywatch",
    version,
    after_help = "Without a command, root gets `run`.\n\
                  Exit codes: 0 ok, 1 found nothing or found problems, 2 usage, 70 internal, 77 no permission, 78 configuration."
)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Options of every command.
#[derive(Clone, Debug, clap::Args)]
struct Common {
    /// The configuration file [default: /etc/ssh-keywatch/config.toml, if it exists]
    #[arg(long, value_name = "FILE", global = true, env = "SSH_KEYWATCH_CONFIG")]
    config: Option<PathBuf>,
    /// Load rules from this directory, instead of the shipped and the admin's ones (repeatable)
    #[arg(
        long,
        value_name = "DIR",
        global = true,
        env = "SSH_KEYWATCH_RULES",
        value_delimiter = ':'
    )]
    rules: Vec<PathBuf>,
    /// Say more on stderr (twice: everything)
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
    /// Say only errors on stderr
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// When to use colours
    #[arg(long, value_name = "WHEN", global = true, env = "SSH_KEYWATCH_COLOR")]
    color: Option<Color>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch, and raise alerts, in the foreground
    Run(run::RunArgs),
    /// Validate configuration and rules, and say what can be watched here
    Check(check::CheckArgs),
    /// Read the alert log
    Tail(tail::TailArgs),
    /// Ask the rules about recorded events
    Replay(replay::ReplayArgs),
    /// List rules, show one, or try their cases
    Rules(rules::RulesArgs),
    /// Say how the running daemon fares: mode, coverage, counters
    Status(status::StatusArgs),
    /// Acts for the trial at the start of `run` and in `check`
    #[command(name = daemon::selftest::ACTOR, hide = true)]
    Act {
        /// What to make, or what to rename to what
        paths: Vec<PathBuf>,
    },
    /// Looks whether the baseline can be read, for `run`
    #[command(name = daemon::CHECK_STORE, hide = true)]
    CheckStore {
        /// The store
        store: PathBuf,
    },
    /// List every key in the watched places, with facts and origin
    Inventory(inventory::InventoryArgs),
}

/// The command line, for whoever documents or completes it.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let mut cli = Cli::parse();
    if cli.command.is_none() && nix::unistd::geteuid().is_root() {
        // Read again, for `run` has options that the environment gives.
        cli = Cli::parse_from(std::env::args_os().chain(["run".into()]));
    }
    let common = cli.common;
    let Some(command) = cli.command else {
        // To stderr: this is a mistake in the call, not an answer.
        eprint!("{}", Cli::command().render_help());
        return Exit::Usage.into();
    };
    diagnostics(&common, matches!(command, Command::Run(_)));
    let exit = match &command {
        Command::Run(args) => run::run(args, &common),
        Command::Check(args) => check::run(args, &common),
        Command::Tail(args) => tail(args, &common),
        Command::Replay(args) => replay::run(args, &common),
        Command::Rules(args) => rules::run(args, &common),
        Command::Act { paths } => match daemon::selftest::act(paths) {
            Ok(()) => Exit::Ok,
            Err(_) => Exit::Internal,
        },
        Command::CheckStore { store } => daemon::check_store(store),
        Command::Status(args) => status::run(args, &common),
        Command::Inventory(args) => inventory::run(args, &common),
    };
    exit.into()
}

fn tail(args: &tail::TailArgs, common: &Common) -> Exit {
    // Whoever names the log needs no configuration.
    let config = match (&args.log, common.config()) {
        (_, Ok(config)) => config,
        (Some(_), Err(_)) => Config::default(),
        (None, Err(error)) => return fail(&error.into()),
    };
    let color = common.color.unwrap_or(config.output.color);
    tail::run(args, &config.log.file, color)
}

impl Common {
    /// The configuration: the file, if there is one, and the common flags.
    fn config(&self) -> Result<Config, config::Error> {
        let path = self
            .config
            .as_deref()
            .unwrap_or(Path::new(config::DEFAULT_PATH));
        let mut config = match Config::load(path) {
            // Only a file that was asked for must be there.
            Err(error) if self.config.is_none() && error.is_not_found() => Config::default(),
            other => other?,
        };
        if !self.rules.is_empty() {
            config.rules.directories.clone_from(&self.rules);
        }
        if let Some(color) = self.color {
            config.output.color = color;
        }
        Ok(config)
    }

    /// The rules carried in the binary stand in for those of the package,
    /// unless other directories were asked for.
    fn builtin(&self) -> bool {
        self.rules.is_empty()
    }
}

/// The local date, which exceptions expire by.
fn today() -> jiff::civil::Date {
    jiff::ZonedDateTime::now().date()
}

/// Prints an error for a person and gives its exit code.
fn fail(error: &Fatal) -> Exit {
    eprintln!("ssh-keywatch: {error}");
    error.exit()
}

/// Diagnostics go to stderr; stdout is for alerts and answers.
fn diagnostics(common: &Common, daemon: bool) {
    let level = match (common.quiet, common.verbose, daemon) {
        (true, ..) => LevelFilter::ERROR,
        (_, 0, false) => LevelFilter::WARN,
        (_, 0, true) => LevelFilter::INFO,
        (_, 1, _) => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    // Targets and levels: a filter by fields and spans, of which there are none,
    // would bring regular expressions of its own.
    let asked = std::env::var("RUST_LOG").ok();
    let filter = asked
        .filter(|asked| !asked.is_empty())
        .and_then(|asked| asked.parse().ok())
        .unwrap_or_else(|| {
            Targets::new()
                .with_default(LevelFilter::WARN)
                .with_target("ssh_keywatch", level)
        });
    let stderr = io::stderr();
    let ansi = color::wanted(common.color.unwrap_or_default(), &stderr);
    let builder = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_writer(io::stderr)
        .with_ansi(ansi)
        .with_target(false);
    // The journal has its own clock.
    let result = if std::env::var_os("JOURNAL_STREAM").is_some() {
        builder.without_time().finish().with(filter).try_init()
    } else {
        builder.finish().with(filter).try_init()
    };
    if let Err(error) = result {
        eprintln!("ssh-keywatch: no diagnostics: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
