//! `ssh-keywatch rules`: which there are, what one says, and whether they hold.
//!
//! Owns the layout of its answers. Rules are loaded as the daemon loads them.
//! Must not decide anything itself. Ends with 1 where a case fails, where a
//! rule that comes with the program has none, or where there is no such rule.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Common, fail};
use crate::config::Config;
use crate::daemon::Fatal;
use crate::eql;
use crate::exit::Exit;
use crate::rule::{Cases, Entry, Limits, Rule, RuleSet, Standing, Threat, Untried, load_cases};
use crate::text::{escape_path, printable};

/// List rules, show one, or try their cases.
#[derive(Args, Clone, Debug)]
pub struct RulesArgs {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// List every rule file and what became of it (the default)
    List {
        /// One JSON document a line
        #[arg(long)]
        json: bool,
    },
    /// Show a rule as a person reads it
    Show {
        /// Its `rule_id`, the beginning of that, or its name
        rule: String,
    },
    /// Try rules against the cases beside them
    Test {
        /// Only these rules: a `rule_id`, the beginning of one, or a name
        // Not `rules`, which is the option --rules of all commands.
        #[arg(value_name = "RULE")]
        wanted: Vec<String>,
    },
}

/// Runs the command.
pub fn run(args: &RulesArgs, common: &Common) -> Exit {
    let loaded = common.config().map_err(Fatal::from).and_then(|config| {
        let set = RuleSet::load(&config.rules.directories, common.builtin());
        Ok((set.map_err(Fatal::Rules)?, config))
    });
    let (set, config) = match loaded {
        Ok(loaded) => loaded,
        Err(error) => return fail(&error),
    };
    let mut out = io::stdout().lock();
    let result = match args
        .command
        .as_ref()
        .unwrap_or(&Command::List { json: false })
    {
        Command::List { json } => list(&set, *json, &mut out),
        Command::Show { rule } => show(&set, rule, &mut out),
        Command::Test { wanted } => match cases(&config, common) {
            Ok(cases) => test(&set, &cases, wanted, &mut out),
            Err(error) => return fail(&error),
        },
    };
    match result {
        Ok(true) => Exit::Ok,
        Ok(false) => Exit::Found,
        // A reader that has seen enough is no error.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Ok,
        Err(error) => {
            eprintln!("ssh-keywatch: cannot write: {error}");
            Exit::Internal
        }
    }
}

fn cases(config: &Config, common: &Common) -> Result<Vec<Cases>, Fatal> {
    load_cases(&config.rules.directories, common.builtin()).map_err(Fatal::Rules)
}

/// The word for what became of a rule, and why.
fn standing(standing: &Standing) -> (&'static str, Option<String>) {
    match standing {
        Standing::Active => ("active", None),
        Standing::Disabled => ("disabled", Some("it says enabled = false".to_owned())),
        Standing::Skipped(reason) => ("skipped", Some(reason.clone())),
        Standing::Overridden(by) => ("overridden", Some(format!("by {}", escape_path(by)))),
    }
}

fn rule_of<'a>(set: &'a RuleSet, entry: &Entry) -> Option<&'a Rule> {
    let mut rules = set.rules();
    rules.find(|rule| rule.id == entry.id && entry.standing == Standing::Active)
}

fn list(set: &RuleSet, json: bool, out: &mut impl Write) -> io::Result<bool> {
    for entry in set.entries() {
        let rule = rule_of(set, entry);
        let (word, why) = standing(&entry.standing);
        if json {
            let line = json!({
                "id": entry.id,
                "name": entry.name,
                "standing": word,
                "reason": why,
                "severity": rule.map(|rule| rule.severity.as_str()),
                "risk_score": rule.map(|rule| rule.risk_score),
                "file": escape_path(&entry.file),
            });
            writeln!(out, "{line}")?;
            continue;
        }
        let severity = rule.map_or("-", |rule| rule.severity.as_str());
        let name = printable(&entry.name);
        let id = printable(&entry.id);
        write!(out, "{word:<10}  {severity:<8}  {id}  {name}")?;
        if let Some(why) = why {
            write!(out, " ({})", printable(&why))?;
        }
        writeln!(out)?;
    }
    if set.entries().is_empty() {
        eprintln!("ssh-keywatch: there are no rules");
    }
    Ok(!set.entries().is_empty())
}

/// Whether somebody who says `wanted` means this rule.
fn is_meant(wanted: &str, id: &str, name: &str) -> bool {
    id.starts_with(wanted) || name.eq_ignore_ascii_case(wanted)
}

fn show(set: &RuleSet, wanted: &str, out: &mut impl Write) -> io::Result<bool> {
    let meant: Vec<_> = set
        .entries()
        .iter()
        .filter(|entry| is_meant(wanted, &entry.id, &entry.name))
        .collect();
    let mut ids: Vec<&str> = meant.iter().map(|entry| entry.id.as_str()).collect();
    ids.dedup();
    match ids.as_slice() {
        [] => {
            eprintln!("ssh-keywatch: there is no rule `{}`", printable(wanted));
            return Ok(false);
        }
        [_] => {}
        several => {
            eprintln!(
                "ssh-keywatch: `{}` may be {}",
                printable(wanted),
                printable(&several.join(" or "))
            );
            return Ok(false);
        }
    }
    for entry in meant {
        let (word, why) = standing(&entry.standing);
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        line(out, "", &entry.name)?;
        line(out, "  id        ", &entry.id)?;
        line(out, "  standing  ", &format!("{word}{why}"))?;
        line(out, "  file      ", &escape_path(&entry.file))?;
        if let Some(rule) = rule_of(set, entry) {
            facts(rule, out)?;
        }
    }
    Ok(true)
}

fn line(out: &mut impl Write, label: &str, text: &str) -> io::Result<()> {
    writeln!(out, "{label}{}", printable(text))
}

fn facts(rule: &Rule, out: &mut impl Write) -> io::Result<()> {
    let severity = format!("{} (risk score {})", rule.severity, rule.risk_score);
    line(out, "  severity  ", &severity)?;
    let version = rule
        .version
        .as_ref()
        .map(|version| format!(", version {version}"));
    let set = format!("{}{}", rule.ruleset, version.unwrap_or_default());
    line(out, "  set       ", &set)?;
    for (label, text) in [
        ("  author    ", rule.author.join(", ")),
        ("  license   ", rule.license.clone().unwrap_or_default()),
        ("  tags      ", rule.tags.join(", ")),
        ("  limits    ", limits(&rule.limits)),
    ] {
        if !text.is_empty() {
            line(out, label, &text)?;
        }
    }
    for threat in &rule.threat {
        threats(threat, out)?;
    }
    block(out, "", &rule.description)?;
    block(out, "Query", &rule.query)?;
    block(out, "Harmless causes", &listed(&rule.false_positives))?;
    block(
        out,
        "Investigation guide",
        rule.note.as_deref().unwrap_or_default(),
    )?;
    block(out, "Setup", rule.setup.as_deref().unwrap_or_default())?;
    block(out, "References", &listed(&rule.references))
}

fn limits(limits: &Limits) -> String {
    let mut text = format!(
        "at most {} alerts in {}",
        limits.max_signals,
        duration(limits.interval)
    );
    if let Some(suppression) = &limits.suppression {
        let fields: Vec<_> = suppression.group_by.iter().map(eql::Field::name).collect();
        let time = suppression.duration.unwrap_or(limits.interval);
        let _ = write!(
            text,
            "; one for the same {} in {}",
            fields.join(" and "),
            duration(time)
        );
    }
    text
}

fn duration(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds % 3600 == 0 => format!("{} h", seconds / 3600),
        seconds if seconds % 60 == 0 => format!("{} min", seconds / 60),
        seconds => format!("{seconds} s"),
    }
}

fn threats(threat: &Threat, out: &mut impl Write) -> io::Result<()> {
    let tactic = format!(
        "{} {} {}",
        threat.framework, threat.tactic.id, threat.tactic.name
    );
    line(out, "  threat    ", &tactic)?;
    for technique in &threat.techniques {
        let names = std::iter::once(&technique.technique).chain(&technique.subtechniques);
        for (depth, entry) in names.enumerate() {
            let indent = " ".repeat(14 + 2 * depth.min(1));
            line(out, &indent, &format!("{} {}", entry.id, entry.name))?;
        }
    }
    Ok(())
}

fn listed(items: &[String]) -> String {
    let items: Vec<_> = items.iter().map(|item| format!("- {item}")).collect();
    items.join("\n")
}

/// A heading and a text below it; nothing where there is no text.
fn block(out: &mut impl Write, heading: &str, text: &str) -> io::Result<()> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    if !heading.is_empty() {
        writeln!(out, "{heading}")?;
    }
    for text in text.lines() {
        let indent = if text.is_empty() { "" } else { "  " };
        line(out, indent, text)?;
    }
    Ok(())
}

/// Tries the rules that run, and says whether all is well.
fn test(
    set: &RuleSet,
    cases: &[Cases],
    wanted: &[String],
    out: &mut impl Write,
) -> io::Result<bool> {
    let is_wanted = |id: &str, name: &str| {
        wanted.is_empty() || wanted.iter().any(|wanted| is_meant(wanted, id, name))
    };
    let (mut tried, mut failed) = (0, 0);
    for rule in set.rules().filter(|rule| is_wanted(&rule.id, &rule.name)) {
        tried += 1;
        let trial = set.try_cases(rule, cases);
        let name = printable(&rule.name);
        if trial.passed() && trial.is_empty() {
            writeln!(out, "untested  {name}")?;
        } else if trial.passed() {
            let (caught, left) = (trial.caught, trial.left);
            writeln!(out, "ok        {name}: {caught} caught, {left} left alone")?;
        } else {
            failed += 1;
            writeln!(out, "FAILED    {name}")?;
        }
        if let Some(lacking) = trial.lacking {
            writeln!(out, "          {lacking}")?;
        }
        for (file, case) in &trial.failed {
            let what = if case.caught {
                "did not catch"
            } else {
                "did not leave alone"
            };
            let case = printable(&case.name);
            writeln!(out, "          {what}: {case} ({})", escape_path(file))?;
        }
    }
    for wanted in wanted {
        failed += usize::from(!is_tried(set, wanted, out)?);
    }
    if wanted.is_empty() {
        for entry in set.entries() {
            let has_cases = cases.iter().any(|cases| cases.rule == entry.id);
            if matches!(entry.standing, Standing::Skipped(_)) && !has_cases {
                not_run(entry, out)?;
            }
        }
        for cases in cases {
            let Some(found) = set.not_tried(cases) else {
                continue;
            };
            let file = escape_path(&cases.file);
            match found {
                Untried::NotRunning(found) => {
                    let (word, why) = standing(found);
                    let why = why.unwrap_or_default();
                    let why = printable(&why);
                    writeln!(out, "not run   {file}: the rule is {word}: {why}")?;
                }
                Untried::NoRule => {
                    failed += 1;
                    let id = printable(&cases.rule);
                    writeln!(out, "FAILED    {file}: there is no rule with the id {id}")?;
                }
            }
        }
    }
    if tried == 0 && wanted.is_empty() {
        eprintln!("ssh-keywatch: there is no rule that runs");
    }
    Ok(failed == 0 && tried > 0)
}

/// Whether a rule that somebody asked for runs, and so was tried; says why it was not.
fn is_tried(set: &RuleSet, wanted: &str, out: &mut impl Write) -> io::Result<bool> {
    let meant = set.entries().iter();
    let meant = meant.filter(|entry| is_meant(wanted, &entry.id, &entry.name));
    let meant: Vec<&Entry> = meant.collect();
    if meant.is_empty() {
        let wanted = printable(wanted);
        eprintln!("ssh-keywatch: there is no rule `{wanted}`; `ssh-keywatch rules` lists them");
        return Ok(false);
    }
    if meant.iter().any(|entry| entry.standing == Standing::Active) {
        return Ok(true);
    }
    for entry in meant {
        not_run(entry, out)?;
    }
    Ok(false)
}

fn not_run(entry: &Entry, out: &mut impl Write) -> io::Result<()> {
    let (word, why) = standing(&entry.standing);
    let why = why.unwrap_or_default();
    let what = format!("{}: the rule is {word}: {why}", entry.name);
    line(out, "not run   ", &what)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config;

    const RULE: &str = "[rule]\nrule_id = 'r1'\nname = 'One'\ntype = 'eql'\nseverity = 'high'\nquery = 'file where user.name == \"a\"'\n";

    struct World {
        directory: tempfile::TempDir,
    }

    impl World {
        fn new(files: &[(&str, &str)]) -> Self {
            let directory = tempfile::tempdir().unwrap();
            for (name, text) in files {
                let path = directory.path().join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            }
            Self { directory }
        }

        fn directories(&self) -> Vec<PathBuf> {
            vec![self.directory.path().to_owned()]
        }

        fn set(&self) -> RuleSet {
            RuleSet::load(&self.directories(), false).unwrap()
        }

        fn test(&self, wanted: &[&str]) -> (bool, String) {
            let cases = load_cases(&self.directories(), false).unwrap();
            let wanted: Vec<_> = wanted.iter().map(|text| (*text).to_owned()).collect();
            let mut out = Vec::new();
            let good = test(&self.set(), &cases, &wanted, &mut out).unwrap();
            let text = String::from_utf8(out).unwrap();
            let directory = self.directory.path().display().to_string();
            (good, text.replace(&directory, "DIR"))
        }
    }

    #[test]
    fn shipped_rules_pass_their_cases() {
        let directories = config::Rules::default().directories;
        let set = RuleSet::load(&directories[..1], true).unwrap();
        let cases = load_cases(&directories[..1], true).unwrap();
        let mut out = Vec::new();
        let good = test(&set, &cases, &[], &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(good && !text.contains("untested"), "{text}");
    }

    #[test]
    fn a_case_that_fails_is_named() {
        let world = World::new(&[
            ("deep/r.toml", RULE),
            ("s.toml", &RULE.replace("r1", "s").replace("One", "Two")),
            (
                "deep/tests/r.toml",
                "rule = 'r1'\n[event]\nevent.category = 'file'\n\"user.name\" = 'a'\n[[catch]]\nname = 'a'\n[[catch]]\nname = 'b'\nset.user.name = 'b'\n[[leave]]\nname = 'nobody'\nunset = ['user.name']\n[[leave]]\nname = 'a again'\n",
            ),
        ]);
        let (good, text) = world.test(&[]);
        assert!(!good);
        assert_eq!(
            text,
            "FAILED    One\n          did not catch: b (DIR/deep/tests/r.toml)\n          did not leave alone: a again (DIR/deep/tests/r.toml)\nuntested  Two\n"
        );
        assert_eq!(world.test(&["two"]), (true, "untested  Two\n".to_owned()));
        assert_eq!(world.test(&["x"]), (false, String::new()));
        // One that is there does not hide one that is not.
        let both = world.test(&["two", "x"]);
        assert_eq!(both, (false, "untested  Two\n".to_owned()));
    }

    #[test]
    fn a_rule_that_was_skipped_is_told() {
        let skipped = RULE.replace("r1", "k").replace("eql", "query");
        let world = World::new(&[("a.toml", RULE), ("b.toml", &skipped.replace("One", "Two"))]);
        let told = "untested  One\nnot run   Two: the rule is skipped: \
                    of type query; only eql rules run here\n";
        assert_eq!(world.test(&[]), (true, told.to_owned()));
        let (good, text) = world.test(&["k", "r1"]);
        assert_eq!((good, text.as_str()), (false, told));
    }

    #[test]
    fn cases_without_a_rule_fail_but_not_those_of_one_that_does_not_run() {
        let case = "rule = 'ID'\n[[leave]]\nname = 'x'\n";
        let world = World::new(&[
            ("r.toml", RULE),
            (
                "off.toml",
                &RULE
                    .replace("r1", "off")
                    .replace("type", "enabled = false\ntype"),
            ),
            ("tests/off.toml", &case.replace("ID", "off")),
            ("tests/none.toml", &case.replace("ID", "none")),
        ]);
        let (good, text) = world.test(&[]);
        assert!(!good);
        assert_eq!(
            text,
            "untested  One\nFAILED    DIR/tests/none.toml: there is no rule with the id none\nnot run   DIR/tests/off.toml: the rule is disabled: it says enabled = false\n"
        );
    }

    #[test]
    fn mistakes_in_cases_are_shown() {
        for (text, message) in [
            ("rule = 'r'\n", "there are no cases for this rule"),
            ("[[catch]]\nname = 'x'\n", "missing field `rule`"),
            (
                "rule = 'r'\n[[catch]]\nname = 'x'\nsets = {}\n",
                "unknown field `sets`",
            ),
        ] {
            let world = World::new(&[("r.toml", RULE), ("tests/r.toml", text)]);
            let errors = load_cases(&world.directories(), false).unwrap_err();
            let error = errors[0].to_string();
            assert!(
                error.contains(message) && error.contains("tests/r.toml:"),
                "{error}"
            );
        }
    }

    #[test]
    fn rules_are_listed_with_what_became_of_them() {
        let world = World::new(&[
            ("a.toml", RULE),
            ("b.toml", &RULE.replace("r1", "k").replace("eql", "query")),
        ]);
        let mut out = Vec::new();
        assert!(list(&world.set(), false, &mut out).unwrap());
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "active      high      r1  One\nskipped     -         k  One (of type query; only eql rules run here)\n"
        );
        let mut out = Vec::new();
        assert!(list(&world.set(), true, &mut out).unwrap());
        let text = String::from_utf8(out).unwrap();
        let first: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!(
            (&first["id"], &first["severity"]),
            (&json!("r1"), &json!("high"))
        );
    }

    #[test]
    fn a_rule_is_shown_for_a_person() {
        let set = RuleSet::load(&config::Rules::default().directories[..1], true).unwrap();
        let mut out = Vec::new();
        assert!(show(&set, "7df3cb8b", &mut out).unwrap());
        let text = String::from_utf8(out).unwrap();
        for part in [
            "SSH Key Generated via ssh-keygen\n  id        7df3cb8b-",
            "  severity  low (risk score 21)\n",
            "  limits    at most 10000 alerts in 5 min\n",
            "  threat    MITRE ATT&CK TA0003 Persistence\n              T1098 Account Manipulation\n                T1098.004 SSH Authorized Keys\n",
            "\nQuery\n  file where host.os.type == \"linux\"\n",
            "\nInvestigation guide\n  ## Questions",
        ] {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
        let mut out = Vec::new();
        assert!(!show(&set, "zzz", &mut out).unwrap());
        assert!(show(&set, "ssh key generated via SSH-keygen", &mut out).unwrap());
    }

    #[test]
    fn a_name_that_may_be_two_rules_is_refused() {
        let world = World::new(&[("a.toml", RULE), ("b.toml", &RULE.replace("r1", "r2"))]);
        let mut out = Vec::new();
        assert!(!show(&world.set(), "r", &mut out).unwrap());
        assert!(out.is_empty());
    }
}
