//! `ssh-keywatch check --log`: whether the alert log is as it was written.
//!
//! Reads the log and the rotated logs before it, packed or not, and prints what
//! is amiss; the judgement is the verifier's.

use std::io::{self, Write};
use std::path::Path;

use crate::cli::tail::history;
use crate::config::Config;
use crate::daemon;
use crate::exit::Exit;
use crate::sink::{Flaw, Link, Verifier, last_written};
use crate::text::{escape_path, printable};

/// So many flaws are printed.
const SHOWN: usize = 50;

/// Checks `log`, or the one that the configuration names.
pub(super) fn run(log: Option<&Path>, config: &Config) -> Exit {
    let is_ours = log.is_none_or(|log| log == config.log.file);
    let log = log.unwrap_or(&config.log.file);
    // Before the log is read: it may grow meanwhile.
    let written = is_ours
        .then(|| last_written(&daemon::log_head(&config.state.directory), log))
        .flatten();
    let checked = match check(log, written.as_ref()) {
        Ok(checked) if checked.files.is_empty() => {
            eprintln!(
                "ssh-keywatch: the alert log {} does not exist, nor does one that was rotated; \
                 name another with --log FILE",
                escape_path(log)
            );
            return Exit::Internal;
        }
        Ok(checked) => checked,
        Err(error) => {
            eprintln!(
                "ssh-keywatch: cannot read the alert log {}: {error}",
                escape_path(log)
            );
            return if error.kind() == io::ErrorKind::PermissionDenied {
                Exit::NoPermission
            } else {
                Exit::Internal
            };
        }
    };
    match checked.print(&mut io::stdout().lock()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("ssh-keywatch: cannot write: {error}");
            Exit::Internal
        }
        _ if checked.flaws.is_empty() && checked.verifier.chained > 0 => Exit::Ok,
        _ => Exit::Found,
    }
}

struct Checked {
    /// The log's own name.
    log: String,
    files: Vec<String>,
    verifier: Verifier,
    flaws: Vec<Flaw>,
    more: u64,
    /// Whether the log's end was compared with the daemon's state.
    is_end_known: bool,
}

fn check(log: &Path, written: Option<&Link>) -> io::Result<Checked> {
    let pieces = history::named(log)?;
    let mut checked = Checked {
        log: escape_path(log),
        files: Vec::new(),
        verifier: Verifier::default(),
        flaws: Vec::new(),
        more: 0,
        is_end_known: written.is_some(),
    };
    let last = pieces.len().saturating_sub(1);
    for (number, (path, piece)) in pieces.iter().enumerate() {
        if number > 0 {
            checked.verifier.next_file();
        }
        checked.files.push(escape_path(path));
        let read = piece.lines(|line| {
            let flaw = match line {
                history::Read::Whole(bytes) => checked.verifier.take(Some(bytes)),
                // It is being written.
                history::Read::Part if number == last => None,
                history::Read::Part | history::Read::TooLong => checked.verifier.take(None),
            };
            checked.add(flaw);
        });
        if let Err(error) = read {
            checked.add(Some(Flaw {
                file: number,
                line: 0,
                what: format!("it cannot be read to its end: {error}"),
            }));
        }
    }
    if let Some(written) = written {
        let flaw = checked.verifier.end(written);
        checked.add(flaw);
    }
    Ok(checked)
}

impl Checked {
    fn add(&mut self, flaw: Option<Flaw>) {
        let Some(flaw) = flaw else { return };
        if self.flaws.len() < SHOWN {
            self.flaws.push(flaw);
        } else {
            self.more += 1;
        }
    }

    fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let verifier = &self.verifier;
        for flaw in &self.flaws {
            let file = self.files.get(flaw.file).map_or("the log", String::as_str);
            let what = printable(&flaw.what);
            match flaw.line {
                0 => writeln!(out, "! {file}: {what}")?,
                line => writeln!(out, "! {file}:{line}: {what}")?,
            }
        }
        if self.more > 0 {
            writeln!(out, "! and {} more", self.more)?;
        }
        let log = &self.log;
        let files = self.files.len();
        let plural = if files == 1 { "" } else { "s" };
        let Some((first, last)) = verifier.range() else {
            return writeln!(
                out,
                "  {log}: no line of {files} file{plural} has a number: nothing can be said"
            );
        };
        let count = verifier.chained;
        write!(
            out,
            "  {log}: {count} lines in {files} file{plural}, {first} to {last}"
        )?;
        if let Some((from, to)) = &verifier.times {
            write!(out, ", from {} to {}", printable(from), printable(to))?;
        }
        writeln!(out)?;
        if first > 1 {
            writeln!(
                out,
                "  lines before {first} were rotated away, or taken away"
            )?;
        }
        if verifier.older > 0 {
            let older = verifier.older;
            writeln!(out, "  {older} lines are from before lines were numbered")?;
        }
        if !self.is_end_known {
            writeln!(
                out,
                "  whether lines are missing at the end cannot be said: where it ended is noted \
                 within moments, for root alone to read"
            )?;
        }
        if self.flaws.is_empty() {
            writeln!(out, "  each is as it was written")?;
        }
        Ok(())
    }
}
