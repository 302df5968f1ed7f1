//! Manual pages and completions agree with the code.
//!
//! Parts of the pages between `.\" generated: …` and `.\" end`, and the whole of
//! the completions, are made here; `SSH_KEYWATCH_REWRITE=1 cargo test --test man`
//! writes them anew.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on panics and says where"
)]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap_complete::Shell;
use clap_mangen::Man;
use ssh_keywatch::config::Config;
use ssh_keywatch::rule::{Fields, RuleSet};

const PAGES: [&str; 3] = [
    "ssh-keywatch.8",
    "ssh-keywatch.toml.5",
    "ssh-keywatch-rules.5",
];

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn page(name: &str) -> String {
    read(&format!("packaging/man/{name}"))
}

/// Compares what is there with what should be, or writes it.
fn agree(name: &str, wanted: &str) {
    let there = fs::read_to_string(path(name)).unwrap_or_default();
    if there == wanted {
        return;
    }
    if std::env::var_os("SSH_KEYWATCH_REWRITE").is_some() {
        fs::write(path(name), wanted).unwrap();
        return;
    }
    let mut lines = there.lines().zip(wanted.lines()).enumerate();
    let (number, (old, new)) = lines
        .find(|(_, (old, new))| old != new)
        .unwrap_or((0, ("(its length)", "(another length)")));
    panic!(
        "{name} is out of date at line {}:\n  is     {old}\n  should {new}\n\
         SSH_KEYWATCH_REWRITE=1 cargo test --test man writes it anew",
        number + 1
    );
}

/// A page with its generated parts made anew.
fn renew(page: &str, part: impl Fn(&str) -> String) -> String {
    let mut out = String::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let version = format!("\"ssh-keywatch {}\"", env!("CARGO_PKG_VERSION"));
        if line.starts_with(".TH ") {
            let (before, rest) = line.split_once("\"ssh-keywatch ").unwrap();
            let (_, after) = rest.split_once('"').unwrap();
            let _ = writeln!(out, "{before}{version}{after}");
            continue;
        }
        out.push_str(line);
        out.push('\n');
        if let Some(name) = line.strip_prefix(".\\\" generated: ") {
            out.push_str(&part(name));
            let end = lines.find(|line| *line == ".\\\" end");
            out.push_str(end.expect("each generated part ends"));
            out.push('\n');
        }
    }
    out
}

/// Text for roff: nothing in it is a request, and a hyphen stays one.
fn roff(text: &str) -> String {
    let escaped = text
        .replace('\\', "\\e")
        .replace('-', "\\-")
        .replace('\'', "\\*(Aq");
    if escaped.starts_with('.') {
        format!("\\&{escaped}")
    } else {
        escaped
    }
}

/// The options of a command alone, without the heading and those of every command.
fn options(command: &clap::Command) -> String {
    let command = command
        .clone()
        .disable_help_flag(true)
        .disable_version_flag(true)
        .mut_subcommands(|command| command.disable_help_flag(true));
    let mut bytes = Vec::new();
    Man::new(command)
        .render_options_section(&mut bytes)
        .unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let lines = text.lines().filter(|line| {
        !line.starts_with(".SH") && !line.starts_with(".ie ") && !line.starts_with(".el ")
    });
    let text: String = lines.flat_map(|line| [line, "\n"]).collect();
    bold(&text.replace(".br\n\n.br\n", ".br\n"))
}

/// What stands between backticks, in bold.
fn bold(text: &str) -> String {
    let mut out = String::new();
    for (number, part) in text.split('`').enumerate() {
        if number > 0 {
            out.push_str(if number % 2 == 1 { "\\fB" } else { "\\fR" });
        }
        out.push_str(part);
    }
    out
}

fn commands(cli: &clap::Command) -> String {
    let mut out = String::new();
    for command in cli
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
    {
        describe(command, command.get_name(), &mut out);
    }
    out
}

fn describe(command: &clap::Command, name: &str, out: &mut String) {
    let mut usage = String::new();
    for argument in command.get_positionals() {
        let value = argument.get_value_names().unwrap()[0].as_str();
        let dots = if argument.get_action().takes_values()
            && argument.get_num_args().unwrap_or_default().max_values() > 1
        {
            "…"
        } else {
            ""
        };
        let _ = if argument.is_required_set() {
            write!(usage, " {value}{dots}")
        } else {
            write!(usage, " [{value}{dots}]")
        };
    }
    let _ = writeln!(out, ".SS {}{}", roff(name), roff(&usage));
    let about = command.get_long_about().or(command.get_about()).unwrap();
    let _ = writeln!(out, "{}.", roff(about.to_string().trim_end_matches('.')));
    out.push_str(&options(command));
    for sub in command.get_subcommands() {
        describe(sub, &format!("{name} {}", sub.get_name()), out);
    }
}

/// Each variable that stands for an option, with the option.
fn environment(cli: &clap::Command) -> String {
    let mut variables = BTreeSet::new();
    let mut waiting = vec![cli];
    while let Some(command) = waiting.pop() {
        for argument in command.get_arguments() {
            if let Some(name) = argument.get_env() {
                let option = argument.get_long().unwrap().to_owned();
                variables.insert((name.to_str().unwrap().to_owned(), option));
            }
        }
        waiting.extend(command.get_subcommands());
    }
    let mut out = String::new();
    for (name, option) in variables {
        let _ = writeln!(out, ".TP\n.B {name}\nas\n.BR \\-\\-{}", roff(&option));
    }
    out
}

/// The sample's comments and keys, table by table; keys that share a comment
/// stand together.
fn keys() -> String {
    let sample = read("packaging/config.toml");
    let mut out = String::new();
    // Behind the head of the file.
    for block in sample
        .split("\n\n")
        .skip_while(|block| !block.contains("#["))
    {
        let words: Vec<&str> = block
            .lines()
            .filter_map(|line| line.strip_prefix("# "))
            .collect();
        let mut request = ".TP";
        for line in block.lines() {
            if let Some(table) = line.strip_prefix("#[") {
                let _ = writeln!(out, ".SS [{}", roff(table));
                if table.starts_with('[') {
                    // The keys of a table that repeats are explained together.
                    prose(&mut out, &words);
                }
            } else if let Some((name, value)) = line
                .strip_prefix('#')
                .filter(|key| !key.starts_with(' '))
                .and_then(|key| key.split_once(" = "))
            {
                let value = roff(&value.replace('"', "\"\""));
                let _ = writeln!(out, "{request}\n.BR {} \" = {value}\"", roff(name));
                request = ".TQ";
            }
        }
        if request == ".TQ" && !block.contains("#[[") {
            prose(&mut out, &words);
        }
    }
    out
}

fn prose(out: &mut String, words: &[&str]) {
    let lines = words.iter().map(|line| roff(line) + "\n");
    out.push_str(&bold(&lines.collect::<String>()));
}

/// The table of docs/rules.md.
fn rule_keys() -> String {
    let text = read("docs/rules.md");
    let table = text.split("| key | effect |").nth(1).unwrap();
    let mut out = String::new();
    for line in table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'))
    {
        let (keys, effect) = line.trim_matches('|').split_once(" | ").unwrap();
        if keys.contains("anything else") {
            continue;
        }
        let _ = writeln!(out, ".TP\n.B {}", roff(&keys.trim().replace('`', "")));
        let _ = writeln!(out, "{}.", roff(&effect.trim().replace('`', "")));
    }
    out
}

fn own_fields() -> String {
    let fields = read("src/rule/ssh_keywatch.txt");
    let mut out = String::from(".EX\n");
    for line in fields.lines().filter(|line| !line.starts_with('#')) {
        if let Some((name, kind)) = line.split_once(' ') {
            let _ = writeln!(out, "{}", roff(&format!("{name:<56}{kind}")));
        }
    }
    out + ".EE\n"
}

fn actions() -> String {
    use ssh_keywatch::event::Action;
    let all = [
        Action::Creation,
        Action::Rename,
        Action::Modification,
        Action::Deletion,
        Action::Open,
        Action::Flood,
    ];
    let names: Vec<_> = all
        .iter()
        .map(|action| format!(".BR {} ", action.as_str()))
        .collect();
    let (last, first) = names.split_last().unwrap();
    let mut out = String::new();
    for name in first {
        let _ = writeln!(out, "{name},");
    }
    out + last.trim_end() + " .\n"
}

fn live() -> String {
    let mut out = String::new();
    for key in ssh_keywatch::daemon::RELOADED {
        let _ = writeln!(out, ".BR {} ,", roff(key));
    }
    out
}

fn part(name: &str) -> String {
    let cli = ssh_keywatch::cli::command();
    match name {
        "commands" => commands(&cli),
        "options" => {
            let mut options = options(&cli);
            options.push_str(".TP\n\\fB\\-h\\fR, \\fB\\-\\-help\\fR\nSay how to use the program or the command.\n");
            options.push_str(".TP\n\\fB\\-V\\fR, \\fB\\-\\-version\\fR\nSay the version.\n");
            options
        }
        "environment" => environment(&cli),
        "keys" => keys(),
        "live" => live(),
        "rule keys" => rule_keys(),
        "fields" => own_fields(),
        "actions" => actions(),
        _ => panic!("there is no generated part {name:?}"),
    }
}

#[test]
fn the_pages_say_what_the_code_says() {
    for name in PAGES {
        agree(&format!("packaging/man/{name}"), &renew(&page(name), part));
    }
}

/// The command line without its hidden commands, which completions would show.
fn visible(cli: &clap::Command) -> clap::Command {
    let commands: Vec<_> = cli
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
        .cloned()
        .collect();
    let bare = clap::Command::new("ssh-keywatch").version(env!("CARGO_PKG_VERSION"));
    bare.args(cli.get_arguments().cloned())
        .subcommands(commands)
}

#[test]
fn the_completions_are_those_of_the_command_line() {
    for (shell, name) in [
        (Shell::Bash, "ssh-keywatch.bash"),
        (Shell::Zsh, "_ssh-keywatch"),
        (Shell::Fish, "ssh-keywatch.fish"),
    ] {
        let mut bytes = Vec::new();
        let mut cli = visible(&ssh_keywatch::cli::command());
        clap_complete::generate(shell, &mut cli, "ssh-keywatch", &mut bytes);
        // For bash the generator spells a name with a hyphen in two ways, so that
        // nothing behind a subcommand is completed (clap-rs/clap#6421).
        let text = String::from_utf8(bytes).unwrap();
        let text = text.replace("ssh__subcmd__keywatch", "ssh__keywatch");
        agree(&format!("packaging/completions/{name}"), &text);
    }
}

/// A section of a page, without the roff in it.
fn section(page: &str, name: &str) -> String {
    let text = page.split(&format!("\n.SH {name}\n")).nth(1);
    let text = text.unwrap_or_else(|| panic!("no section {name}"));
    let text = text.split("\n.SH ").next().unwrap();
    plain(text)
}

fn plain(text: &str) -> String {
    text.replace("\\-", "-")
        .replace("\\*(Aq", "'")
        .replace("\\e", "\\")
}

fn words(text: &str) -> BTreeSet<String> {
    text.split(|c: char| c.is_whitespace() || c == '"' || c == ',')
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_exit_code_is_explained() {
    let codes: BTreeSet<String> = read("src/exit.rs")
        .lines()
        .filter_map(|line| line.trim().strip_suffix(',')?.split_once(" = "))
        .map(|(_, code)| code.to_owned())
        .collect();
    assert!(codes.len() > 5, "{codes:?}");
    let section = section(&page("ssh-keywatch.8"), "EXIT STATUS");
    let told: BTreeSet<String> = section
        .lines()
        .filter_map(|line| line.strip_prefix(".B "))
        .filter(|word| word.parse::<u8>().is_ok())
        .map(str::to_owned)
        .collect();
    assert_eq!(told, codes);
}

#[test]
fn every_signal_is_explained() {
    let code = read("src/daemon/mod.rs");
    let list = code.split("Signals::new([").nth(1).unwrap();
    let list = list.split(']').next().unwrap();
    let section = words(&section(&page("ssh-keywatch.8"), "SIGNALS"));
    let signals: Vec<&str> = list.split(", ").collect();
    assert!(signals.len() > 3, "{signals:?}");
    for signal in signals {
        assert!(section.contains(signal), "{signal} is not explained");
    }
}

/// All source text of the program, without its tests.
fn sources(dir: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.file_stem().unwrap() == "tests" {
            continue;
        }
        if path.is_dir() {
            text.push_str(&sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(path).unwrap());
        }
    }
    text
}

#[test]
fn every_variable_that_is_read_is_explained() {
    let section = words(&section(&page("ssh-keywatch.8"), "ENVIRONMENT"));
    let code = sources(&path("src"));
    let mut count = 0;
    for read in ["env = \"", "var_os(\"", "env::var(\"", "set(\""] {
        for rest in code.split(read).skip(1) {
            let name = rest.split('"').next().unwrap();
            // A terminal's type is the terminal's business.
            if name == "TERM" || name != name.to_uppercase() || name.is_empty() {
                continue;
            }
            count += 1;
            assert!(section.contains(name), "{name} is not explained");
        }
    }
    assert!(count > 8, "{count}");
}

#[test]
fn every_file_is_named() {
    let section = words(&section(&page("ssh-keywatch.8"), "FILES"));
    let config = toml::Value::try_from(Config::default()).unwrap();
    let mut paths = vec![ssh_keywatch::config::DEFAULT_PATH.to_owned()];
    for (table, key) in [
        ("log", "file"),
        ("state", "directory"),
        ("control", "socket"),
    ] {
        paths.push(config[table][key].as_str().unwrap().to_owned());
    }
    let rules = config["rules"]["directories"].as_array().unwrap();
    paths.extend(rules.iter().map(|path| path.as_str().unwrap().to_owned()));
    for path in paths {
        assert!(section.contains(&path), "{path} is not named");
    }
}

#[test]
fn every_key_of_the_configuration_is_explained() {
    let page = plain(&page("ssh-keywatch.toml.5"));
    let mut config = toml::Table::try_from(Config::default()).unwrap();
    config.remove("exception");
    for (table, keys) in config {
        let section = page.split(&format!("\n.SS [{table}]\n")).nth(1);
        let section = section.unwrap_or_else(|| panic!("[{table}] is not explained"));
        let section = format!("\n{}", section.split("\n.S").next().unwrap());
        for (key, default) in keys.as_table().unwrap() {
            let line = format!("\n.BR {key} \" = ");
            let rest = section.split(&line).nth(1);
            let rest = rest.unwrap_or_else(|| panic!("{table}.{key} is not explained"));
            let (shown, prose) = rest.split_once('\n').unwrap();
            let shown = shown.trim_end_matches('"').replace("\"\"", "\"");
            let shown = if default.is_str() && !shown.ends_with('"') {
                shown + "\""
            } else {
                shown
            };
            assert_eq!(
                shown.replace(' ', ""),
                default.to_string().replace(' ', ""),
                "{key}"
            );
            let mut prose = prose.lines().skip_while(|line| {
                // Keys that share the explanation.
                *line == ".TQ" || line.starts_with(".BR ")
            });
            let explained = prose.next().is_some_and(|line| !line.starts_with('.'));
            assert!(explained, "{table}.{key} has no explanation");
        }
    }
    for key in ["rule", "when", "reason", "expires"] {
        assert!(page.contains(&format!(".BR {key} \" = ")), "{key}");
    }
}

#[test]
fn every_key_of_a_rule_that_is_read_is_explained() {
    let page = words(&section(&page("ssh-keywatch-rules.5"), "KEYS"));
    let bare = |word: &String| word.trim_start_matches("rule.").to_owned();
    let page: BTreeSet<String> = page.iter().map(bare).collect();
    let mut count = 0;
    for (file, name) in [
        ("src/rule/file.rs", "struct RawRule {"),
        ("src/rule/settings.rs", "struct Raw {"),
    ] {
        let code = read(file);
        let body = code
            .split(name)
            .nth(1)
            .unwrap()
            .split("\n}")
            .next()
            .unwrap();
        for line in body.lines() {
            let Some((field, _)) = line.trim().split_once(": ") else {
                continue;
            };
            let key = if field == "kind" { "type" } else { field };
            count += 1;
            assert!(page.contains(key), "rule.{key} is not explained");
        }
    }
    assert!(count > 20, "{count}");
}

/// The text of the page's n-th example that contains a word.
fn example(page: &str, word: &str) -> String {
    let blocks = page.split("\n.EX\n").skip(1);
    let blocks = blocks.map(|block| block.split("\n.EE").next().unwrap());
    plain(
        blocks
            .into_iter()
            .find(|block| plain(block).contains(word))
            .unwrap(),
    ) + "\n"
}

#[test]
fn the_examples_are_valid() {
    let text = example(&page("ssh-keywatch.toml.5"), "[[exception]]");
    let config = Config::parse(&text, Path::new("man.toml")).unwrap();
    assert_eq!(config.exceptions.len(), 1);
    let rules = RuleSet::load(&config.rules.directories, true).unwrap();
    let rules = rules.with_exceptions(&config.exceptions).unwrap();
    let today = jiff::civil::Date::constant(2026, 11, 24);
    for (exception, standing) in rules.exceptions(today) {
        assert_eq!(standing, ssh_keywatch::rule::ExceptionStanding::Active);
        assert_eq!(exception.weakness(), None);
    }
    let text = example(&page("ssh-keywatch-rules.5"), "[rule]");
    let rules = RuleSet::from_texts(&[(Path::new("man.toml"), &text)], Fields::Known).unwrap();
    assert_eq!(rules.rules().len(), 1);
    let query = example(
        &page("ssh-keywatch-rules.5"),
        "file where event.action == \"creation\" and",
    );
    ssh_keywatch::eql::Query::parse(query.trim()).unwrap();
}

/// Runs a program and gives what it said on standard output and error.
fn run(program: &str, args: &[&str]) -> (String, String) {
    let output = Command::new(program)
        .args(args)
        .env("LC_ALL", "C.UTF-8")
        .env("MANROFFSEQ", "")
        .env("MANWIDTH", "80")
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; tests/run installs it"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn the_pages_are_clean() {
    for name in PAGES {
        let file = path(&format!("packaging/man/{name}"));
        let file = file.to_str().unwrap();
        // As lintian does it.
        let groff = ["--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", file];
        let (formatted, said) = run("man", &groff);
        assert_eq!(said, "", "{name}");
        assert!(formatted.len() > 1000, "{name} is empty");
        let (said, failed) = run("mandoc", &["-T", "lint", "-W", "warning", file]);
        assert_eq!(said + &failed, "", "{name}");
    }
}

#[test]
fn the_completions_complete() {
    let file = |name: &str| {
        path(&format!("packaging/completions/{name}"))
            .display()
            .to_string()
    };
    for (typed, meant) in [
        ("sta", "status"),
        ("tail --sev", "--severity"),
        ("tail --severity hi", "high"),
        ("rules sh", "show"),
        ("run --backend ino", "inotify"),
    ] {
        // What bash hands to the function: the words, and the last two of them.
        let script = format!(
            "source {} && COMP_WORDS=(ssh-keywatch {typed}) && COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)) \
             && _ssh__keywatch ssh-keywatch \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\" && echo \"${{COMPREPLY[@]}}\"",
            file("ssh-keywatch.bash")
        );
        let (said, failed) = run("bash", &["--norc", "-c", &script]);
        assert_eq!(said + &failed, format!("{meant}\n"), "{typed}");
        let script = format!(
            "source {}; complete -C 'ssh-keywatch {typed}'",
            file("ssh-keywatch.fish")
        );
        let (said, failed) = run("fish", &["--no-config", "-c", &script]);
        assert!(said.starts_with(&format!("{meant}\t")), "{said}{failed}");
    }
    let (said, failed) = run("zsh", &["-f", "-n", &file("_ssh-keywatch")]);
    assert_eq!(said + &failed, "");
}
