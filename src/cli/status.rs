//! `ssh-keywatch status`: how the running daemon fares.
//!
//! Owns the layout for a person. What is said comes from the daemon
//! ([`control::ask`]); ends with 1 when no daemon runs or when it is degraded.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::{Map, Value};

use super::{Common, color};
use crate::config::{Color, Config};
use crate::daemon::control::{self, AskError, Request};
use crate::exit::Exit;
use crate::sink::{field, number, text};
use crate::text::{json_line, printable};

/// How long the daemon has to answer.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// So many roots in good order are listed; of the others all are.
const ROOTS: usize = 20;

/// Ask the running daemon how it fares.
#[derive(Args, Clone, Debug)]
pub struct StatusArgs {
    /// Show everything as one JSON document
    #[arg(long)]
    json: bool,
    /// Ask on this socket
    #[arg(long, value_name = "FILE", env = "SSH_KEYWATCH_CONTROL")]
    control: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &StatusArgs, common: &Common) -> Exit {
    // Who may ask need not be one who may read the configuration, and a daemon
    // runs on when its configuration is broken meanwhile.
    let config = common.config().unwrap_or_else(|error| {
        tracing::debug!("{error}");
        Config::default()
    });
    let socket = args.control.as_ref().unwrap_or(&config.control.socket);
    let status = match control::ask(socket, Request::Status, ANSWER_TIME) {
        Ok(Value::Object(status)) => status,
        Ok(_) => {
            return complain(
                &AskError::Nonsense(socket.clone(), "no object".to_owned()),
                &config,
            );
        }
        Err(error) => return complain(&error, &config),
    };
    let shown = if args.json {
        json_line(&status) + "\n"
    } else {
        let colour = color::wanted(common.color.unwrap_or(Color::Auto), &io::stdout());
        page(&status, colour)
    };
    let mut out = io::stdout().lock();
    match out.write_all(shown.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("ssh-keywatch: cannot write: {error}");
            Exit::Internal
        }
        _ if list(&status, "degraded").is_empty() => Exit::Ok,
        _ => Exit::Found,
    }
}

fn complain(error: &AskError, config: &Config) -> Exit {
    let (hint, exit) = match error {
        AskError::NotRunning(_) => (
            "To start it: systemctl start ssh-keywatch; to see why it ended: journalctl -u ssh-keywatch".to_owned(),
            Exit::Found,
        ),
        AskError::NoPermission(_) => {
            let group = &config.control.group;
            (
                format!("Root and members of the group {group} may ask (usermod -aG {group} USER, then log in again)."),
                Exit::NoPermission,
            )
        }
        AskError::Refused(_) => (String::new(), Exit::NoPermission),
        AskError::Silent(..) => (
            "What it does: systemctl status ssh-keywatch; journalctl -u ssh-keywatch".to_owned(),
            Exit::Internal,
        ),
        AskError::Nonsense(..) | AskError::System(..) => (String::new(), Exit::Internal),
    };
    eprintln!("ssh-keywatch: {}", printable(&error.to_string()));
    if !hint.is_empty() {
        eprintln!("{hint}");
    }
    exit
}

fn list<'a>(object: &'a Map<String, Value>, path: &str) -> Vec<&'a Map<String, Value>> {
    let Some(Value::Array(items)) = field(object, path) else {
        return Vec::new();
    };
    items.iter().filter_map(Value::as_object).collect()
}

fn said(object: &Map<String, Value>, path: &str) -> String {
    text(object, path).map_or_else(String::new, |text| printable(text).into_owned())
}

/// A count; `?` where nobody answered.
fn count(object: &Map<String, Value>, path: &str) -> String {
    number(object, path).map_or_else(|| "?".to_owned(), |number| number.to_string())
}

/// A moment in the local time zone.
fn moment(object: &Map<String, Value>, path: &str) -> Option<String> {
    let time: jiff::Timestamp = text(object, path)?.parse().ok()?;
    let zoned = time.to_zoned_datetime(jiff::tz::TimeZone::system());
    Some(zoned.strftime("%F %T %:z").to_string())
}

/// Seconds for a person: the two largest units.
fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// What the parts of a mode mean.
fn mode_means(mode: &str) -> &'static str {
    match (mode.contains("+hold"), mode.contains("+table")) {
        _ if mode.starts_with("inotify") => "no writer can be named",
        (true, true) => {
            "writers of new files are held while they are identified, others named from the process table"
        }
        (true, false) => "writers of new files are held while they are identified",
        (false, true) => "writers are named from the process table",
        (false, false) => "writers are named if they live long enough",
    }
}

struct Page {
    out: String,
    colour: bool,
}

impl Page {
    fn line(&mut self, label: &str, value: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.out, "{label:<13}{value}");
    }

    /// A label for what is not well.
    fn alarm(&mut self, label: &str, value: &str) {
        let (on, off) = if self.colour {
            ("\x1b[1;31m", "\x1b[0m")
        } else {
            ("", "")
        };
        let _ = writeln!(self.out, "{on}{label:<13}{off}{value}");
    }
}

/// The whole page.
fn page(status: &Map<String, Value>, colour: bool) -> String {
    let mut page = Page {
        out: String::new(),
        colour,
    };
    let since = moment(status, "started").unwrap_or_default();
    let uptime = duration(number(status, "uptime").unwrap_or_default());
    page.line(
        "daemon",
        &format!(
            "ssh-keywatch {}, pid {}, since {since} ({uptime})",
            said(status, "version"),
            count(status, "pid")
        ),
    );
    let mode = said(status, "mode");
    page.line("mode", &format!("{mode} ({})", mode_means(&mode)));
    for trouble in list(status, "degraded") {
        let since =
            moment(trouble, "since").map_or_else(String::new, |since| format!(" (since {since})"));
        page.alarm("DEGRADED", &format!("{}{since}", said(trouble, "reason")));
    }
    coverage(&mut page, status);
    counters(&mut page, status);
    rules(&mut page, status);
    sinks(&mut page, status);
    if let Some(when) = moment(status, "last_reload.time") {
        let outcome = said(status, "last_reload.outcome");
        let reason = said(status, "last_reload.reason");
        page.line("reload", &format!("{when}, {outcome}: {reason}"));
    }
    page.out
}

fn coverage(page: &mut Page, status: &Map<String, Value>) {
    let watched = crate::sink::strings(status, "coverage.watched");
    let watched: Vec<_> = watched.iter().map(|path| printable(path)).collect();
    page.line(
        "watched",
        &format!(
            "{}: {} directories",
            watched.join(", "),
            count(status, "coverage.directories")
        ),
    );
    let roots = list(status, "coverage.roots");
    // Where nobody is held at all, the mode says so.
    let holding = text(status, "mode").is_some_and(|mode| mode.contains("+hold"));
    let (good, bad): (Vec<_>, Vec<_>) = roots
        .into_iter()
        .partition(|root| !holding || text(root, "how") == Some("held"));
    for root in bad {
        let line = format!("{}: {}", said(root, "path"), said(root, "reason"));
        page.alarm(&format!("  {}", said(root, "how")), &line);
    }
    for root in list(status, "coverage.unwatched") {
        let line = format!("{}: {}", said(root, "path"), said(root, "reason"));
        page.alarm("  not at all", &line);
    }
    for root in good.iter().take(ROOTS) {
        page.line(&format!("  {}", said(root, "how")), &said(root, "path"));
    }
    let named = number(status, "coverage.root_count").unwrap_or_default();
    let more = named.saturating_sub(good.len().min(ROOTS) as u64);
    if good.len() > ROOTS {
        page.line("", &format!("and {more} more (--json has them)"));
    }
}

fn counters(page: &mut Page, status: &Map<String, Value>) {
    let at = |name: &str| count(status, &format!("counters.{name}"));
    if field(status, "counters.hold").is_some_and(Value::is_object) {
        page.line(
            "held",
            &format!(
                "{} answered, {} late, {} overdue, {} unidentified, {} dropped",
                at("hold.answered"),
                at("hold.late"),
                at("hold_overdue"),
                at("hold.unidentified"),
                at("hold.dropped")
            ),
        );
    }
    if field(status, "counters.process_table").is_some_and(Value::is_object) {
        page.line(
            "processes",
            &format!(
                "moments {}, {} remembered, {} records lost, {} times repaired",
                said(status, "counters.process_table.moments"),
                at("process_table.processes"),
                at("process_table.lost"),
                at("process_table.repaired")
            ),
        );
    }
    page.line(
        "events",
        &format!(
            "{} dropped, {} counted in floods, {} overflows of the kernel's queue",
            at("events_dropped"),
            at("events_flooded"),
            at("queue_overflows")
        ),
    );
    if let Some(Value::Object(losses)) = field(status, "counters.losses")
        && !losses.is_empty()
    {
        let named = losses
            .iter()
            .map(|(code, count)| format!("{} {count}", printable(code)));
        page.line("losses", &named.collect::<Vec<_>>().join(", "));
    }
    let last =
        moment(status, "last_alert").map_or_else(String::new, |last| format!(", the last {last}"));
    page.line(
        "alerts",
        &format!("{}{last}; {} suppressed", at("alerts"), at("suppressed")),
    );
}

fn rules(page: &mut Page, status: &Map<String, Value>) {
    let rules = list(status, "rules");
    page.line("rules", &rules.len().to_string());
    let mut alerting: Vec<_> = rules
        .iter()
        .filter(|rule| number(rule, "alerts") != Some(0))
        .collect();
    alerting.sort_by_key(|rule| std::cmp::Reverse(number(rule, "alerts")));
    for rule in alerting {
        let last = moment(rule, "last_alert")
            .map_or_else(String::new, |last| format!(", the last {last}"));
        let line = format!(
            "{} alerts: {}{last}",
            count(rule, "alerts"),
            said(rule, "name")
        );
        page.line("", &line);
    }
    for exception in list(status, "exceptions") {
        let line = format!(
            "{} matches of {}: {}",
            count(exception, "matches"),
            said(exception, "rule"),
            said(exception, "reason")
        );
        match text(exception, "standing") {
            Some("expired") => page.alarm("exception", &format!("expired; {line}")),
            Some("no_rule") => page.alarm("exception", &format!("there is no such rule; {line}")),
            _ => page.line("exception", &line),
        }
    }
}

fn sinks(page: &mut Page, status: &Map<String, Value>) {
    for sink in list(status, "sinks") {
        let name = said(sink, "name");
        let place = if name == "log" {
            format!(" to {}", said(status, "log"))
        } else {
            String::new()
        };
        let error = match text(sink, "last_error") {
            Some(error) if !error.is_empty() => format!("; last error: {}", printable(error)),
            _ => String::new(),
        };
        let state = said(sink, "state");
        let line = format!(
            "{state}, {} written{place}, {} failed, {} dropped, {} waiting{error}",
            count(sink, "written"),
            count(sink, "failed"),
            count(sink, "dropped"),
            count(sink, "waiting")
        );
        if state == "ok" {
            page.line(&name, &line);
        } else {
            page.alarm(&name, &line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn durations_have_two_units() {
        assert_eq!(duration(59), "59 s");
        assert_eq!(duration(61), "1 min 1 s");
        assert_eq!(duration(3600), "1 h 0 min");
        assert_eq!(duration(90_000), "1 d 1 h");
    }

    #[test]
    fn what_is_not_well_stands_out_and_nothing_is_obeyed() {
        let Value::Object(status) = json!({
            "version": "0.1.0", "pid": 7, "uptime": 5, "mode": "inotify",
            "degraded": [{"reason": "bad\u{1b}[2J"}],
            "coverage": {
                "watched": ["/home/*/.ssh"], "directories": 1, "root_count": 1,
                "roots": [{"path": "/home/a/.ssh", "how": "inotify", "reason": null}],
                "unwatched": [{"path": "/home/b/.ssh", "how": "none", "reason": "no space"}],
            },
        }) else {
            panic!()
        };
        let text = page(&status, false);
        assert!(text.contains("DEGRADED     bad\\x1b[2J\n"), "{text}");
        assert!(
            text.contains("  not at all /home/b/.ssh: no space\n"),
            "{text}"
        );
        assert!(text.contains("  inotify    /home/a/.ssh\n"), "{text}");
        assert!(text.contains("alerts       ?; ? suppressed\n"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }
}
