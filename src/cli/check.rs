//! `ssh-keywatch check`: is the configuration right, and what can be watched here.
//!
//! Prints to stdout what a person wants to know before the daemon starts, and
//! ends with 1 when something is not as it should be, 78 when the
//! configuration or a rule is wrong.

mod log;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::{Common, fail};
use crate::config::{self, Backend, Config, Hold, RuleWatch};
use crate::daemon::{self, Plan, selftest};
use crate::exit::Exit;
use crate::rule::{Exception, ExceptionStanding, Standing, Weakness, shipped};
use crate::sys::fanotify::{NotificationGroup, PermissionGroup};

/// Options of the command.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// Check instead that the alert log, with what was rotated, is as it was written
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    #[expect(
        clippy::option_option,
        reason = "as clap has an option whose value may be left out"
    )]
    log: Option<Option<PathBuf>>,
}

/// Runs the command.
pub fn run(args: &CheckArgs, common: &Common) -> Exit {
    if let Some(log) = &args.log {
        let log = log.as_deref();
        // Whoever names the log needs no configuration.
        let config = match (log, common.config()) {
            (_, Ok(config)) => config,
            (Some(_), Err(_)) => Config::default(),
            (None, Err(error)) => return fail(&error.into()),
        };
        return log::run(log, &config);
    }
    let plan = common
        .config()
        .map_err(Into::into)
        .and_then(|config| Plan::new(config, common.builtin()));
    let plan = match plan {
        Ok(plan) => plan,
        Err(error) => return fail(&error),
    };
    let mut page = Page {
        out: io::stdout().lock(),
        problems: 0,
    };
    match page.write(common, &plan) {
        Ok(()) if page.problems == 0 => Exit::Ok,
        // A reader that has seen enough is no error.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Ok,
        Ok(()) => Exit::Found,
        Err(error) => {
            eprintln!("ssh-keywatch: cannot write: {error}");
            Exit::Internal
        }
    }
}

struct Page<W> {
    out: W,
    problems: usize,
}

impl<W: Write> Page<W> {
    fn write(&mut self, common: &Common, plan: &Plan) -> io::Result<()> {
        self.configuration(common)?;
        self.watched(plan)?;
        self.rules(plan)?;
        self.kernel(&plan.config)?;
        if self.problems > 0 {
            writeln!(self.out, "\n{} to look at, marked `!`", self.problems)?;
        }
        Ok(())
    }

    fn good(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.out, "  {line}")
    }

    fn bad(&mut self, line: &str) -> io::Result<()> {
        self.problems += 1;
        writeln!(self.out, "! {line}")
    }

    fn configuration(&mut self, common: &Common) -> io::Result<()> {
        writeln!(self.out, "configuration")?;
        let path = common
            .config
            .as_deref()
            .unwrap_or(Path::new(config::DEFAULT_PATH));
        if path.exists() {
            self.good(&format!("{} is valid", path.display()))
        } else {
            self.good(&format!(
                "{} does not exist: the defaults are used",
                path.display()
            ))
        }
    }

    fn watched(&mut self, plan: &Plan) -> io::Result<()> {
        let config = &plan.config;
        let asked = plan.rules.asked_opens();
        let opens = |directory: &str| {
            let also = asked.below(Path::new(directory));
            if also {
                ", and who opens files in it"
            } else {
                ""
            }
        };
        writeln!(self.out, "watched")?;
        for home in &config.watch.homes {
            let directory = format!("{home}/.ssh");
            self.good(&format!("{directory}{}", opens(&directory)))?;
        }
        if config.watch.passwd_homes {
            self.good(".ssh in every home of /etc/passwd")?;
        }
        for directory in &config.watch.directories {
            let directory = directory.display().to_string();
            self.good(&format!("{directory}{}", opens(&directory)))?;
        }
        for directory in &plan.derived {
            let opens = opens(directory);
            self.good(&format!("{directory}, of which rules speak{opens}"))?;
        }
        if !asked.is_empty() && config.watch.backend == Backend::Inotify {
            self.bad("rules ask who opens files, which inotify does not tell")?;
        }
        for tool in &config.watch.key_tools {
            let present = tool.exists();
            let note = if present { "" } else { " (not installed)" };
            self.good(&format!("runs of {}{note}", tool.display()))?;
        }
        Ok(())
    }

    fn rules(&mut self, plan: &Plan) -> io::Result<()> {
        writeln!(self.out, "rules")?;
        for entry in plan.rules.entries() {
            let file = entry.file.display();
            let name = crate::text::printable(&entry.name).into_owned();
            let id = &entry.id;
            match &entry.standing {
                Standing::Active => self.good(&format!("active    {name} ({id}, {file})"))?,
                Standing::Disabled => {
                    self.good(&format!(
                        "disabled  {name} ({id}, {file}): it says enabled = false"
                    ))?;
                }
                Standing::Skipped(reason) => {
                    self.good(&format!("skipped   {name} ({id}, {file}): {reason}"))?;
                }
                Standing::Overridden(by) => self.good(&format!(
                    "overridden {name} ({id}, {file}): by {}",
                    by.display()
                ))?,
            }
        }
        if plan.rules.rules().len() == 0 {
            self.bad("no rule is active: nothing will ever be alerted")?;
        }
        let directories = plan.watched();
        let directories: Vec<&str> = directories.iter().map(String::as_str).collect();
        for rule in plan.rules.inert(&directories) {
            let needs = if rule.needs.is_empty() {
                String::new()
            } else {
                format!(" (it asks for {})", rule.needs.join(", "))
            };
            let line = format!(
                "inert     {} ({}): nothing that is watched can have the {} it asks for{needs}",
                rule.rule.name, rule.rule.id, rule.field
            );
            if rule.rule.ruleset == shipped::RULESET {
                // Nobody chose it for these directories.
                self.good(&line)?;
            } else {
                self.bad(&line)?;
            }
        }
        self.roots(plan)?;
        let today = super::today();
        for (exception, standing) in plan.rules.exceptions(today) {
            let (rule, reason) = (exception.target(), exception.reason());
            match standing {
                ExceptionStanding::Active => self.exception(exception)?,
                ExceptionStanding::Expired => {
                    let day = exception.expires().map(|day| day.to_string());
                    self.bad(&format!(
                        "exception for {rule} expired on {}, and is ignored: {reason}",
                        day.unwrap_or_default()
                    ))?;
                }
                ExceptionStanding::NoRule => {
                    self.bad(&format!("exception for {rule}: there is no such rule"))?;
                }
            }
        }
        Ok(())
    }

    /// Patterns of rules that nothing watches and that are no directory to watch.
    fn roots(&mut self, plan: &Plan) -> io::Result<()> {
        if plan.config.rules.watch == RuleWatch::Config {
            return Ok(());
        }
        let watched = plan.watched();
        let watched: Vec<&str> = watched.iter().map(String::as_str).collect();
        for (rule, pattern, why) in plan.rules.roots(&watched).refused {
            self.bad(&format!(
                "{} speaks of {pattern}, which is not watched: {why}",
                rule.name
            ))?;
        }
        Ok(())
    }

    fn exception(&mut self, exception: &Exception) -> io::Result<()> {
        let line = format!(
            "exception for {}: {}",
            exception.target(),
            exception.reason()
        );
        let weakness = match exception.weakness() {
            None => return self.good(&line),
            Some(Weakness::Always) => "it holds for every event, so the rule never alerts",
            Some(Weakness::Never) => "it can hold for no event",
            Some(Weakness::Forgeable) => {
                "any user can choose a program's path, name and arguments, and so escape the \
                 rule: add who it is, such as user.id == \"0\""
            }
        };
        self.bad(&format!("{line} ({weakness})"))
    }

    fn kernel(&mut self, config: &Config) -> io::Result<()> {
        writeln!(self.out, "this host")?;
        let missing = daemon::missing_capabilities();
        for (name, purpose) in &missing {
            self.bad(&format!("{name} is missing, {purpose}"))?;
        }
        match NotificationGroup::new() {
            Ok(group) => {
                let features = group.features();
                self.good("fanotify tells of names and file handles")?;
                if !features.pidfd {
                    self.bad("its records carry no pidfd (before Linux 5.15): writers that exit are less often named")?;
                }
                if !features.target {
                    self.bad("its records do not identify the target (before Linux 5.17): identities are read by name")?;
                }
            }
            Err(error) => self.bad(&format!(
                "fanotify cannot be used ({error}): inotify would watch, without naming who made a file"
            ))?,
        }
        match PermissionGroup::new() {
            Ok(_) if config.watch.hold == Hold::Off => {
                self.good("writers could be held while they are identified; watch.hold is off")?;
            }
            Ok(_) => self.good("writers are held while they are identified")?,
            Err(error) => self.bad(&format!(
                "writers cannot be held ({error}): one that exits at once may go unnamed"
            ))?,
        }
        if !missing.is_empty() {
            return Ok(());
        }
        let problems = selftest::run(config, selftest::Actor::start());
        if problems.is_empty() {
            return self.good(
                "on trial, a file that was made and one that was renamed into place were seen, \
                 and their makers, which had exited, were named",
            );
        }
        for problem in problems {
            self.bad(&format!("on trial, {problem}"))?;
        }
        Ok(())
    }
}
