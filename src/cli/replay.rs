//! `ssh-keywatch replay`: the rules, asked about recorded events.
//!
//! Owns its options, the count of what was read, and the order of things: a
//! record is cut from the file (`read`), asked about as it stands, and only
//! what a rule matches is read whole, made an ECS event (`source`) and decided
//! as the daemon decides. Alerts go to standard output, one JSON document a
//! line; all else to standard error. Memory does not grow with the files.
//!
//! Ends with 0 if there were alerts and everything could be read, with 1 if
//! there were none or something could not be read, as grep and linters do.

mod progress;
mod read;
mod source;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufRead, BufWriter, IsTerminal as _, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::Args;
use jiff::civil::Date;
use serde_json::{Map, Value};

use self::progress::{Progress, grouped, per_second};
use self::read::{Flaw, MAX_RECORD};
use self::source::{Signs, Source};
use super::{Common, fail};
use crate::alert::{self, Document};
use crate::daemon::Fatal;
use crate::eql::{Scan, Wanted};
use crate::exit::Exit;
use crate::rule::{ExceptionStanding, Fields, RuleSet, Standing, Suppressor, Verdict};
use crate::text::{escape_path, printable};

/// So many bad records of one file are shown; all are counted.
const SHOWN_FLAWS: u64 = 20;

/// Ask the rules about recorded events.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Reads ECS documents, one a line, nested or dotted; Elasticsearch hits and whole search responses; bulk exports; \
SentinelOne's raw lines; the alert log itself; all of them also packed by gzip.\n\
Exit codes: 0 there were alerts, 1 there were none or a line could not be read, 2 usage, 78 configuration.")]
pub struct ReplayArgs {
    /// Files of recorded events; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Where the documents come from [default: recognised one by one]
    #[arg(long, value_name = "SOURCE")]
    source: Option<Source>,
    /// Suppress alerts as the daemon would (`max_signals`, `alert_suppression`),
    /// by the time of the events
    #[arg(
        long,
        long_help = "Suppress alerts as the daemon would (`max_signals`, `alert_suppression`), by the time of the \
            events; but `max_signals` counts all homes together, where the daemon counts each"
    )]
    suppress: bool,
}

/// Runs the command.
pub(super) fn run(args: &ReplayArgs, common: &Common) -> Exit {
    let rules = common.config().map_err(Fatal::from).and_then(|config| {
        RuleSet::load_with(&config.rules.directories, common.builtin(), Fields::Any)
            .and_then(|rules| rules.with_exceptions(&config.exceptions))
            .map_err(Fatal::Rules)
    });
    let rules = match rules {
        Ok(rules) => rules,
        Err(error) => return fail(&error),
    };
    if !common.quiet {
        for line in unasked(&rules, super::today()) {
            eprintln!("ssh-keywatch: {}", printable(&line));
        }
    }
    let stdin = args.files.iter().any(|file| file == Path::new("-"));
    let progress = Progress::new(
        progress::total(&args.files),
        // Typing and drawing would get into each other's way.
        !(common.quiet || stdin && io::stdin().is_terminal()),
    );
    let mut replay = Replay::new(rules, super::today(), args, io::stdout().lock(), progress);
    replay.live = stdin;
    let result = args
        .files
        .iter()
        .try_for_each(|file| replay.file(file))
        .and_then(|()| replay.out.flush());
    replay.progress.clear();
    match result {
        Ok(()) => {}
        // A reader that has seen enough is no error.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Exit::Ok,
        Err(error) => {
            eprintln!("ssh-keywatch: cannot write alerts: {error}");
            return Exit::Internal;
        }
    }
    if !common.quiet {
        eprint!("{}", replay.summary());
    }
    replay.exit()
}

/// What the answers leave out: rules that do not run here, and exceptions that
/// keep nothing quiet.
fn unasked(rules: &RuleSet, today: Date) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in rules.entries() {
        if let Standing::Skipped(reason) = &entry.standing {
            let (name, file) = (&entry.name, escape_path(&entry.file));
            lines.push(format!("the rule {name} ({file}) is skipped: {reason}"));
        }
    }
    for (exception, standing) in rules.exceptions(today) {
        let rule = exception.target();
        match standing {
            ExceptionStanding::Active => {}
            ExceptionStanding::Expired => {
                let day = exception.expires().map(|day| day.to_string());
                let day = day.unwrap_or_default();
                lines.push(format!(
                    "the exception for {rule} expired on {day}, and is ignored"
                ));
            }
            ExceptionStanding::NoRule => lines.push(format!(
                "the exception for {rule} does nothing: there is no such rule"
            )),
        }
    }
    lines
}

/// What was counted.
#[derive(Debug, Default)]
pub struct Counts {
    /// Events about which rules were asked.
    pub events: u64,
    /// Records that could not be read.
    pub flawed: u64,
    /// Files that could not be read to their end.
    pub unreadable: u64,
    /// Alerts that were written.
    pub alerts: u64,
    /// Matches that exceptions kept quiet.
    pub excepted: u64,
    sources: BTreeMap<Source, u64>,
    /// Alerts by the name of their rule.
    rules: BTreeMap<String, u64>,
}

/// Replays one stream, and says nothing but alerts. Fails only where these
/// cannot be written.
pub fn stream(
    rules: RuleSet,
    input: impl Read + 'static,
    out: &mut impl Write,
) -> io::Result<Counts> {
    let args = ReplayArgs {
        files: Vec::new(),
        source: None,
        suppress: false,
    };
    let progress = Progress::new(None, false);
    let mut replay = Replay::new(rules, super::today(), &args, out, progress);
    replay.silent = true;
    let input = read::unpacked(input);
    replay.input("-", input)?;
    replay.out.flush()?;
    Ok(std::mem::take(&mut replay.counts))
}

struct Replay<W: Write> {
    rules: RuleSet,
    today: Date,
    forced: Option<Source>,
    wanted: Wanted,
    signs: Signs,
    out: BufWriter<W>,
    /// Whether alerts are written at once, for somebody may be waiting.
    live: bool,
    /// Whether nothing is said of what could not be read.
    silent: bool,
    progress: Progress,
    counts: Counts,
    /// The event of our own log that was decided last.
    last: Option<[Value; 3]>,
    suppressor: Option<Suppressor>,
}

/// The file and line of a record.
#[derive(Clone, Copy)]
struct Place<'a> {
    file: &'a str,
    line: u64,
}

impl<W: Write> Replay<W> {
    fn new(mut rules: RuleSet, today: Date, args: &ReplayArgs, out: W, progress: Progress) -> Self {
        let mut wanted = Wanted::new();
        let signs = Signs::new(&mut wanted);
        rules.number_fields(&mut wanted);
        Self {
            rules,
            today,
            forced: args.source,
            wanted,
            signs,
            out: BufWriter::new(out),
            live: false,
            silent: false,
            progress,
            counts: Counts::default(),
            last: None,
            suppressor: args.suppress.then(Suppressor::new),
        }
    }

    /// Replays a file. Fails only where alerts cannot be written.
    fn file(&mut self, path: &Path) -> io::Result<()> {
        let (name, input) = if path == Path::new("-") {
            let input = read::unpacked(self.progress.counted(io::stdin()));
            ("-".to_owned(), input)
        } else {
            let file = File::open(path).and_then(|file| {
                if file.metadata()?.is_dir() {
                    return Err(io::ErrorKind::IsADirectory.into());
                }
                read::unpacked(self.progress.counted(file))
            });
            (escape_path(path), file)
        };
        self.input(&name, input)
    }

    fn input(&mut self, name: &str, input: io::Result<Box<dyn BufRead>>) -> io::Result<()> {
        let mut input = match input {
            Ok(input) => input,
            Err(error) => {
                self.unreadable(name, &error);
                return Ok(());
            }
        };
        let mut written = Ok(());
        let mut flaws = 0;
        let read = read::records(&mut *input, MAX_RECORD, &mut |record, line| {
            let place = Place { file: name, line };
            let flaw = match record {
                Ok(bytes) => match self.record(bytes, place) {
                    Ok(flaw) => flaw,
                    Err(error) => {
                        written = Err(error);
                        // Ends the reading; which of the two failed is known.
                        return Err(io::Error::other("alerts cannot be written"));
                    }
                },
                Err(flaw) => Some(describe(flaw)),
            };
            if let Some(flaw) = flaw {
                flaws += 1;
                self.flaw(place, &flaw, flaws);
            }
            self.progress.tick(self.counts.events, self.counts.alerts);
            Ok(())
        });
        if flaws > SHOWN_FLAWS {
            self.say(&format!(
                "{name}: {} more lines could not be read",
                grouped(flaws - SHOWN_FLAWS)
            ));
        }
        written?;
        if let Err(error) = read {
            self.unreadable(name, &error);
        }
        Ok(())
    }

    fn say(&mut self, line: &str) {
        if self.silent {
            return;
        }
        self.progress.clear();
        eprintln!("ssh-keywatch: {}", printable(line));
    }

    fn unreadable(&mut self, name: &str, error: &io::Error) {
        self.counts.unreadable += 1;
        self.say(&format!("cannot read {name}: {error}"));
    }

    fn flaw(&mut self, place: Place<'_>, flaw: &str, count: u64) {
        self.counts.flawed += 1;
        if count <= SHOWN_FLAWS {
            self.say(&format!("{}:{}: {flaw}", place.file, place.line));
        }
    }

    /// Decides a record, or says what is wrong with it. Fails only where an
    /// alert cannot be written.
    fn record(&mut self, bytes: &[u8], place: Place<'_>) -> io::Result<Option<String>> {
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let at = error.valid_up_to() + 1;
                return Ok(Some(format!("not UTF-8 text at byte {at}")));
            }
        };
        let scan = match Scan::read(text, &self.wanted) {
            Ok(scan) => scan,
            Err(error) => return Ok(Some(format!("not a JSON document: {error}"))),
        };
        if let Some(source) = self.signs.plain(&scan, self.forced)
            && !self.rules.any_matches(&scan)
        {
            self.count(source);
            return Ok(None);
        }
        match serde_json::from_str(text) {
            Ok(record) => {
                for document in source::documents(record) {
                    self.document(document, place)?;
                }
                Ok(None)
            }
            Err(error) => Ok(Some(format!("not a JSON document: {error}"))),
        }
    }

    fn count(&mut self, source: Source) {
        self.counts.events += 1;
        *self.counts.sources.entry(source).or_default() += 1;
    }

    fn document(&mut self, document: Map<String, Value>, place: Place<'_>) -> io::Result<()> {
        let source = self.forced.unwrap_or_else(|| source::recognise(&document));
        let Some(mut event) = source::event(document, source) else {
            return Ok(());
        };
        if source == Source::SshKeywatch {
            // The log has an event once for each rule that it matched.
            let this = ["event.created", "event.sequence", "host.id"]
                .map(|name| event.get(name).cloned().unwrap_or_default());
            if !this[0].is_null() && self.last.as_ref() == Some(&this) {
                return Ok(());
            }
            self.last = Some(this);
        }
        self.count(source);
        let decision = self.rules.decide(&event, self.today);
        self.counts.excepted += decision.excepted.len() as u64;
        if decision.matches.is_empty() {
            return Ok(());
        }
        let id = event.get("event.id").cloned();
        event.set("ssh_keywatch.replay.event_id", id.unwrap_or_default());
        event.set("ssh_keywatch.replay.file", place.file);
        event.set("ssh_keywatch.replay.line", place.line);
        let time = time(&event);
        for rule in decision.matches {
            if let Some(suppressor) = &mut self.suppressor {
                // What ended is in the total, and a summary tells no windows.
                let verdict = suppressor.admit(rule, None, &event, time);
                suppressor.ended(time);
                if verdict != Verdict::Raise {
                    continue;
                }
            }
            self.counts.alerts += 1;
            *self.counts.rules.entry(rule.name.clone()).or_default() += 1;
            write_alert(&mut self.out, &alert::alert(event.clone(), rule))?;
        }
        self.progress.clear();
        if self.live {
            self.out.flush()?;
        }
        Ok(())
    }

    fn exit(&self) -> Exit {
        let Counts {
            alerts,
            flawed,
            unreadable,
            ..
        } = self.counts;
        if alerts > 0 && flawed + unreadable == 0 {
            Exit::Ok
        } else {
            Exit::Found
        }
    }

    fn summary(&self) -> String {
        let counts = &self.counts;
        let elapsed = self.progress.elapsed();
        let suppressed = self.suppressor.as_ref().map_or(0, Suppressor::total);
        // Writing to a String cannot fail, so those results are of no interest.
        let mut summary = format!(
            "{} in {:.1} s ({}/s): {}",
            plural(counts.events, "event"),
            elapsed.as_secs_f64(),
            grouped(per_second(counts.events, elapsed)),
            plural(counts.alerts, "alert")
        );
        for (count, what) in [
            (counts.excepted, "excepted"),
            (suppressed, "suppressed"),
            (counts.flawed, "not readable"),
        ] {
            if count > 0 {
                let _ = write!(summary, ", {} {what}", grouped(count));
            }
        }
        if counts.unreadable > 0 {
            let files = plural(counts.unreadable, "file");
            let _ = write!(summary, ", {files} not read to the end");
        }
        summary.push('\n');
        for (name, count) in &counts.rules {
            let _ = writeln!(summary, "  {:>9}  {}", grouped(*count), printable(name));
        }
        let sources: Vec<_> = counts
            .sources
            .iter()
            .map(|(source, count)| format!("{} {}", grouped(*count), source.name()))
            .collect();
        if !sources.is_empty() {
            let _ = writeln!(summary, "  from {}", sources.join(", "));
        }
        summary
    }
}

/// When the event happened; long ago if it does not say.
fn time(event: &Document) -> SystemTime {
    let text = event.str("@timestamp");
    let time = text.and_then(|text| text.parse::<jiff::Timestamp>().ok());
    time.and_then(|time| SystemTime::try_from(time).ok())
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

fn write_alert(out: &mut impl Write, alert: &Document) -> io::Result<()> {
    out.write_all(alert.to_line().as_bytes())?;
    out.write_all(b"\n")
}

fn plural(count: u64, what: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{} {what}{s}", grouped(count))
}

fn describe(flaw: Flaw) -> String {
    match flaw {
        Flaw::TooLong => format!("a document of more than {} MiB", MAX_RECORD >> 20),
        Flaw::Unfinished => "the file ends in the middle of this document".to_owned(),
        Flaw::Stray => "no JSON document".to_owned(),
    }
}
