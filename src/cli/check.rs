//! `ssh-keywatch check`: is the configuration right, and what can be watched here.
//!
//! Prints to stdout what a person wants to know before the daemon starts, and
//! ends with 1 when something is not as it should be, 78 when the
//! configuration or a rule is wrong.

mod log;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::{Common, fail};
use crate::config::{self, Backend, Config, Hold, Log, RuleWatch, Watch};
use crate::daemon::{self, Plan, places, selftest};
use crate::exit::Exit;
use crate::rule::{Exception, ExceptionStanding, Standing, Weakness, shipped};
use crate::sys::fanotify::{NotificationGroup, PermissionGroup};
use crate::text::{escape_path, printable};

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
        // By hand: as the option's own, the variable would ask for this check, too.
        let named = std::env::var_os("SSH_KEYWATCH_LOG").filter(|name| !name.is_empty());
        let log = log.clone().or_else(|| named.map(PathBuf::from));
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
        self.log(&plan.config)?;
        self.rules(plan)?;
        self.kernel(&plan.config)?;
        if self.problems > 0 {
            writeln!(self.out, "\n{} to look at, marked `!`", self.problems)?;
        }
        Ok(())
    }

    // What rules, exceptions and file names say is made safe here, and nowhere before.
    fn good(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.out, "  {}", printable(line))
    }

    fn bad(&mut self, line: &str) -> io::Result<()> {
        self.problems += 1;
        writeln!(self.out, "! {}", printable(line))
    }

    fn configuration(&mut self, common: &Common) -> io::Result<()> {
        writeln!(self.out, "configuration")?;
        let path = common
            .config
            .as_deref()
            .unwrap_or(Path::new(config::DEFAULT_PATH));
        if path.exists() {
            self.good(&format!("{} is valid", escape_path(path)))
        } else {
            self.good(&format!(
                "{} does not exist: the defaults are used",
                escape_path(path)
            ))
        }
    }

    fn watched(&mut self, plan: &Plan) -> io::Result<()> {
        let config = &plan.config;
        let asked = plan.rules.asked_opens();
        let opens = |directory: &Path| {
            let also = asked.below(directory);
            if also {
                ", and who opens files in it"
            } else {
                ""
            }
        };
        let usual = Watch::default();
        let mut anything = plan
            .derived
            .iter()
            .any(|directory| places::is_glob_there(directory));
        writeln!(self.out, "watched")?;
        for home in &config.watch.homes {
            let there = places::is_glob_there(home);
            anything |= there;
            let directory = format!("{home}/.ssh");
            let line = format!("{directory}{}", opens(Path::new(&directory)));
            let lack = (!there).then_some("no such home is here yet");
            self.place(&line, lack, usual.homes.contains(home))?;
        }
        if config.watch.passwd_homes {
            self.good(".ssh in every home of /etc/passwd")?;
            anything = true;
        }
        for directory in &config.watch.directories {
            let there = places::is_directory_there(directory);
            anything |= there;
            let line = format!("{}{}", escape_path(directory), opens(directory));
            let lack = (!there).then_some("it is not here yet");
            self.place(&line, lack, usual.directories.contains(directory))?;
        }
        for directory in &plan.derived {
            let opens = opens(Path::new(directory));
            self.good(&format!("{directory}, of which rules speak{opens}"))?;
        }
        if !anything {
            self.bad("nothing of that is on this host: nothing is watched until it is made")?;
        }
        if !asked.is_empty() && config.watch.backend == Backend::Inotify {
            self.bad("rules ask who opens files, which inotify does not tell")?;
        }
        for tool in &config.watch.key_tools {
            let present = tool.exists();
            let note = if present { "" } else { " (not installed)" };
            self.good(&format!("runs of {}{note}", escape_path(tool)))?;
        }
        Ok(())
    }

    /// A place that is watched. That it is not here is worth a mark where somebody wrote
    /// it into the configuration: it may be misspelled.
    fn place(&mut self, line: &str, lack: Option<&str>, is_usual: bool) -> io::Result<()> {
        match lack {
            None => self.good(line),
            Some(lack) if is_usual => self.good(&format!("{line} ({lack})")),
            Some(lack) => self.bad(&format!("{line}: {lack}; is it spelled right?")),
        }
    }

    /// Where alerts go, and who may read them.
    fn log(&mut self, config: &Config) -> io::Result<()> {
        let log = &config.log;
        writeln!(self.out, "alert log")?;
        let file = escape_path(&log.file);
        match places::cannot_be_made(&log.file) {
            None => self.good(&file)?,
            Some(why) => self.bad(&format!(
                "{file} cannot be written: {why}; give log.file another place"
            ))?,
        }
        let (usual, group) = (Log::default().group, &log.group);
        if !places::is_no_group(group) {
            return self.good(&format!("for root and the group {group} to read"));
        }
        let line = format!("there is no group {group}: only root may read it");
        if *group == usual {
            self.good(&line)
        } else {
            self.bad(&format!("{line}; make the group, or change log.group"))
        }
    }

    fn rules(&mut self, plan: &Plan) -> io::Result<()> {
        writeln!(self.out, "rules")?;
        for entry in plan.rules.entries() {
            let file = escape_path(&entry.file);
            let (name, id) = (&entry.name, &entry.id);
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
                    escape_path(by)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Exception;
    use crate::text::is_unsafe;

    const ATTACK: &str = "\u{1b}]52;c;eA==\u{7}\u{202e}";

    /// What is said of the configuration and the rules, and how much of it is marked.
    fn page(common: &Common, plan: &Plan) -> (Vec<String>, usize) {
        let mut page = Page {
            out: Vec::new(),
            problems: 0,
        };
        page.configuration(common).unwrap();
        page.watched(plan).unwrap();
        page.log(&plan.config).unwrap();
        page.rules(plan).unwrap();
        let text = String::from_utf8(page.out).unwrap();
        (text.lines().map(str::to_owned).collect(), page.problems)
    }

    fn common(config: PathBuf) -> Common {
        Common {
            config: Some(config),
            rules: Vec::new(),
            verbose: 0,
            quiet: false,
            color: None,
        }
    }

    #[test]
    fn strips_osc52_from_rules_exceptions_and_names() {
        let dir = tempfile::tempdir().unwrap();
        let odd = dir.path().join(ATTACK);
        std::fs::create_dir(&odd).unwrap();
        let escaped = r"\u001b]52;c;eA==\u0007\u202e";
        let rule = |id: &str, kind: &str, query: &str| {
            format!(
                "[rule]\nrule_id = \"{id}{escaped}\"\nname = \"N{escaped}\"\n\
                 type = \"{kind}\"\nseverity = \"low\"\nquery = \"{query}\"\n"
            )
        };
        let path = format!(r#"file where file.path : \"/srv/{escaped}/*\""#);
        for (name, text) in [
            ("a", rule("a", "eql", "file where true").as_str()),
            ("b", &rule("b", &format!("x{escaped}"), "file where true")),
            ("c", &rule("c", "eql", &path)),
            (
                "d",
                &(rule("d", "eql", "file where true") + "enabled = false\n"),
            ),
        ] {
            std::fs::write(odd.join(format!("{name}{ATTACK}.toml")), text).unwrap();
        }
        let later = dir.path().join("later");
        std::fs::create_dir(&later).unwrap();
        std::fs::write(later.join("a.toml"), rule("a", "eql", "file where true")).unwrap();
        let mut config = Config::default();
        config.rules.directories = vec![odd.clone(), later];
        config.rules.watch = RuleWatch::Rule;
        config.watch.directories.push(odd.clone());
        config.watch.key_tools.push(odd.clone());
        config.log.group = ATTACK.to_owned();
        config.log.file = odd.join("x/log");
        for (rule, expires) in [
            ("*".to_owned(), None),
            (
                "*".to_owned(),
                Some(jiff::civil::Date::constant(2020, 1, 1)),
            ),
            (format!("no{ATTACK}"), None),
        ] {
            config.exceptions.push(Exception {
                rule,
                when: "user.id == \"0\"".to_owned(),
                reason: format!("R{ATTACK}"),
                expires,
                rule_site: None,
                when_site: None,
            });
        }
        let plan = Plan::new(config, false).unwrap();
        let (lines, _) = page(&common(odd.join("config.toml")), &plan);
        let shown = lines.iter().filter(|line| line.contains("52;c;eA=="));
        assert!(shown.count() > 10, "{lines:#?}");
        for line in &lines {
            assert!(!line.contains(is_unsafe), "{line:?}");
        }
    }

    #[test]
    fn what_is_not_on_this_host_is_marked() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let mut config = Config::default();
        config.watch.homes = vec![dir.path().join("hoem/*").to_str().unwrap().to_owned()];
        config.watch.directories = vec![dir.path().join("none")];
        config.log.file = file.join("alerts.json");
        config.log.group = "no such group".to_owned();
        let plan = Plan::new(config, true).unwrap();
        let (lines, problems) = page(&common(file.clone()), &plan);
        let marked: Vec<&String> = lines.iter().filter(|line| line.starts_with('!')).collect();
        assert_eq!((marked.len(), problems), (5, 5), "{lines:#?}");
        for (line, part) in marked.iter().zip([
            "/hoem/*/.ssh: no such home is here yet",
            "/none: it is not here yet",
            "nothing is watched until it is made",
            "/file is no directory",
            "there is no group no such group",
        ]) {
            assert!(line.contains(part), "no {part:?} in {line:?}");
        }

        // What is there is not, and what is usual need not be there.
        let mut config = Config::default();
        config.watch.directories.push(dir.path().to_owned());
        config.log.file = dir.path().join("new/alerts.json");
        let plan = Plan::new(config, true).unwrap();
        let (lines, problems) = page(&common(file.clone()), &plan);
        assert_eq!(problems, 0, "{lines:#?}");
    }
}
