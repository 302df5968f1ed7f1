//! `ssh-keywatch tail`: the alert log, read as a person reads it.
//!
//! Owns its options, which lines they choose, and what a line that is no alert
//! becomes (a word on standard error). The reading is in `follow` and `history`,
//! the waiting in `wait`, the layout in [`crate::sink`]. Must not write to the log. Fails
//! with a sentence and an exit code; a reader that has gone ends it quietly.

mod filter;
mod follow;
pub(super) mod history;
mod wait;

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Map, Value};

use self::filter::{Filter, Severity, parse_glob, parse_since};
use self::follow::Follower;
use self::wait::Waiter;
use super::color::style;
use crate::config::Color;
use crate::exit::Exit;
use crate::sink::{Renderer, TerminalStyle};
use crate::text::{escape_path, is_unsafe, json_line};

/// Lines shown when neither `-n` nor `--since` says how many.
const LINES: u64 = 10;

/// Read the alert log.
#[derive(Args, Clone, Debug)]
pub struct TailArgs {
    /// Go on with what is appended, across rotation
    #[arg(short, long)]
    pub follow: bool,
    /// Show the last N lines that match [default: 10, or all with --since]
    #[arg(short = 'n', long, value_name = "N")]
    pub lines: Option<u64>,
    /// Only from this moment on: a date, a time (RFC 3339), or how long ago (10m, 2h, 1d)
    #[arg(long, value_name = "WHEN", value_parser = parse_since)]
    pub since: Option<jiff::Timestamp>,
    /// Only this rule: its id, or a part of its name
    #[arg(long, value_name = "RULE")]
    pub rule: Option<String>,
    /// Only this user: name or id, of the process or of the login
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
    /// Only these files: a glob, in which * crosses / as it does in rules
    #[arg(long, value_name = "GLOB", value_parser = parse_glob)]
    pub path: Option<globset::GlobMatcher>,
    /// Only alerts of at least this severity
    #[arg(long, value_name = "LEVEL")]
    pub severity: Option<Severity>,
    /// Also alerts of rules that are building blocks for others
    #[arg(long)]
    pub building_blocks: bool,
    /// Show the lines as they stand in the log
    #[arg(long)]
    pub json: bool,
    /// Read this log
    #[arg(long, value_name = "FILE", env = "SSH_KEYWATCH_LOG")]
    pub log: Option<PathBuf>,
}

/// Runs the command on the log that the configuration names.
#[must_use]
pub fn run(args: &TailArgs, log: &Path, color: Color) -> Exit {
    let log = args.log.as_deref().unwrap_or(log);
    let stdout = io::stdout();
    let style = style(color, &stdout);
    print(args, log, style, stdout.lock(), io::stderr())
}

fn print(
    args: &TailArgs,
    log: &Path,
    style: TerminalStyle,
    out: impl Write,
    err: impl Write,
) -> Exit {
    let mut printer = Printer {
        filter: Filter::new(args),
        renderer: Renderer::new(style),
        json: args.json,
        out: BufWriter::new(Output { out, failed: false }),
        err,
        shown: 0,
    };
    let result = show(args, log, &mut printer).and_then(|()| printer.out.flush());
    match result {
        Ok(()) if printer.shown == 0 && !args.follow => Exit::Found,
        Ok(()) => Exit::Ok,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Ok,
        Err(error) if printer.out.get_ref().failed => {
            printer.complain(&format!("cannot write: {error}"));
            Exit::Internal
        }
        Err(error) => {
            let name = escape_path(log);
            let (hint, exit) = match error.kind() {
                io::ErrorKind::PermissionDenied => (
                    "; run it as root or as a member of the log's group",
                    Exit::NoPermission,
                ),
                io::ErrorKind::NotFound => (
                    "; has the daemon run yet, or does it log elsewhere (--log)?",
                    Exit::Internal,
                ),
                _ => ("", Exit::Internal),
            };
            printer.complain(&format!("cannot read the alert log {name}: {error}{hint}"));
            exit
        }
    }
}

fn show<W: Write, E: Write>(
    args: &TailArgs,
    log: &Path,
    printer: &mut Printer<W, E>,
) -> io::Result<()> {
    let lines = args.lines.unwrap_or(if args.since.is_some() {
        u64::MAX
    } else {
        LINES
    });
    if !args.follow {
        return Follower::open(log, lines, &printer.filter)?.finish(printer);
    }
    // Before the first look, so that nothing between the two goes unnoticed.
    let mut waiter = Waiter::new(log);
    let mut follower = match Follower::open(log, lines, &printer.filter) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            printer.complain(&format!(
                "{} is not there yet; waiting for it",
                escape_path(log)
            ));
            Follower::absent(log)
        }
        other => other?,
    };
    loop {
        let there = follower.step(printer)?;
        printer.out.flush()?;
        if let Some(trouble) = waiter.wait(there) {
            printer.complain(&trouble);
        }
    }
}

/// Where alerts are shown. Remembers whether an error was that of writing, for those
/// of reading look the same.
struct Output<W> {
    out: W,
    failed: bool,
}

impl<W: Write> Output<W> {
    fn noting<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        // What is interrupted is done again.
        let failed = |error: &io::Error| error.kind() != io::ErrorKind::Interrupted;
        self.failed |= result.as_ref().is_err_and(failed);
        result
    }
}

impl<W: Write> Write for Output<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let result = self.out.write(bytes);
        self.noting(result)
    }

    fn flush(&mut self) -> io::Result<()> {
        let result = self.out.flush();
        self.noting(result)
    }
}

/// Takes lines and shows those that are wanted.
struct Printer<W, E> {
    filter: Filter,
    renderer: Renderer,
    json: bool,
    out: W,
    err: E,
    shown: u64,
}

/// What became of a line.
enum Taken {
    /// Shown, or not asked for.
    Well,
    /// It is no document, for this reason.
    Bad(String),
}

impl Taken {
    fn too_long() -> Self {
        Self::Bad(format!("longer than {} MiB", follow::LINE_LIMIT >> 20))
    }
}

impl<W: Write, E: Write> Printer<W, E> {
    fn take(&mut self, line: &[u8]) -> io::Result<Taken> {
        let document = match serde_json::from_slice::<Map<String, Value>>(line) {
            Ok(document) => document,
            Err(error) => return Ok(Taken::Bad(error.to_string())),
        };
        if !self.filter.matches(&document) {
            return Ok(Taken::Well);
        }
        self.shown += 1;
        if !self.json {
            self.out
                .write_all(self.renderer.render(&document).as_bytes())?;
            return Ok(Taken::Well);
        }
        match str::from_utf8(line) {
            Ok(text) if !text.trim_end().contains(is_unsafe) => {
                self.out.write_all(text.trim_end().as_bytes())?;
            }
            // Not our writing: the same values, safe to look at.
            _ => self.out.write_all(json_line(&document).as_bytes())?,
        }
        self.out.write_all(b"\n")?;
        Ok(Taken::Well)
    }

    fn bad_line(&mut self, log: &Path, number: u64, why: &str) {
        self.complain(&format!(
            "{}, line {number}: not an alert, skipped: {why}",
            escape_path(log)
        ));
    }

    fn complain(&mut self, what: &str) {
        // Standard error is the last resort; if it is gone there is nobody to tell.
        let _ = writeln!(self.err, "ssh-keywatch: {}", crate::text::printable(what));
    }
}

#[cfg(test)]
mod tests;
