//! What a configuration may say, and how its errors are shown.

use std::path::Path;

use jiff::civil::date;

use super::snippet::{Source, nearest};
use super::*;

const SAMPLE: &str = include_str!("../../packaging/config.toml");

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("/etc/c.toml")).map_err(|error| error.to_string())
}

/// `(text, the whole report)`.
fn refuses(text: &str, report: &str) {
    let error = parse(text).expect_err(text);
    assert_eq!(error, report.trim_matches('\n'), "for {text:?}");
}

#[test]
fn an_empty_file_is_the_default() {
    assert_eq!(parse(""), Ok(Config::default()));
    assert_eq!(parse("[watch]\n[log]\n"), Ok(Config::default()));
}

#[test]
fn defaults_pass_their_own_check() {
    let text = toml::to_string(&Config::default()).unwrap();
    assert_eq!(parse(&text), Ok(Config::default()));
}

#[test]
fn the_sample_says_the_defaults_and_leaves_no_key_out() {
    assert_eq!(parse(SAMPLE), Ok(Config::default()));

    let uncommented: String = SAMPLE
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.is_empty() && !rest.starts_with(' ') => rest,
            _ => line,
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    let mut config = parse(&uncommented).unwrap();
    let exception = config.exceptions.pop().unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(exception.rule, "7df3cb8b-5c0c-4228-b772-bb6cd619053c");
    assert_eq!(exception.expires, Some(date(2027, 3, 31)));

    let written: toml::Table = toml::from_str(&uncommented).unwrap();
    let full: toml::Table = toml::Table::try_from(Config::default()).unwrap();
    for (table, keys) in full.iter().filter(|(name, _)| *name != "exception") {
        let keys: Vec<_> = keys.as_table().unwrap().keys().collect();
        let shown: Vec<_> = written[table].as_table().unwrap().keys().collect();
        assert_eq!(shown, keys, "keys of [{table}] in the sample");
    }
}

#[test]
fn every_key_is_read() {
    let config = parse(
        r#"
        [watch]
        homes = ["/srv/*/home-[ab]"]
        passwd_homes = true
        directories = ["/opt/keys"]
        backend = "inotify"
        hold = "all"
        process_table = false
        max_directories = 7
        poll_interval = 5
        home_directories = 8
        home_files = 90
        home_events = 10
        key_tools = []
        [rules]
        directories = ["/opt/rules"]
        watch = "rule"
        [log]
        file = "/tmp/a.json"
        group = "wheel"
        mode = "600"
        max_size = "1G"
        max_age = "4w"
        keep = 3
        compress = false
        [state]
        directory = "/tmp/state"
        [journal]
        enabled = false
        [control]
        socket = "/tmp/c.sock"
        group = "wheel"
        [output]
        stdout = "json"
        color = "never"
        [[exception]]
        rule = "*"
        when = 'true'
        reason = "a test"
        "#,
    )
    .unwrap();
    let sites = &config.exceptions[0];
    assert_eq!(
        sites.when_site.as_ref().unwrap().position(),
        (38, 16),
        "where the condition stands"
    );
    assert_eq!(sites.rule_site.as_ref().unwrap().position(), (37, 16));
    let expected = Config {
        watch: Watch {
            homes: vec!["/srv/*/home-[ab]".into()],
            passwd_homes: true,
            directories: vec!["/opt/keys".into()],
            backend: Backend::Inotify,
            hold: Hold::All,
            process_table: false,
            max_directories: 7,
            poll_interval: 5,
            home_directories: 8,
            home_files: 90,
            home_events: 10,
            key_tools: vec![],
        },
        rules: Rules {
            directories: vec!["/opt/rules".into()],
            watch: RuleWatch::Rule,
        },
        log: Log {
            file: "/tmp/a.json".into(),
            group: "wheel".into(),
            mode: Mode(0o600),
            max_size: Size(Some(1 << 30)),
            max_age: Age(Some(std::time::Duration::from_secs(4 * 7 * 24 * 3600))),
            keep: 3,
            compress: false,
        },
        state: State {
            directory: "/tmp/state".into(),
        },
        journal: Journal { enabled: false },
        control: Control {
            socket: "/tmp/c.sock".into(),
            group: "wheel".into(),
        },
        output: Output {
            stdout: Stdout::Json,
            color: Color::Never,
        },
        exceptions: vec![Exception {
            rule: "*".into(),
            when: "true".into(),
            reason: "a test".into(),
            expires: None,
            rule_site: sites.rule_site.clone(),
            when_site: sites.when_site.clone(),
        }],
    };
    assert_eq!(config, expected);
}

#[test]
fn an_unknown_key_names_the_nearest() {
    refuses(
        "[watch]\nhome = []\n",
        "
error: unknown key `home` in [watch]; did you mean `homes`?
 --> /etc/c.toml:2:1
  |
2 | home = []
  | ^^^^
  |
  = help: the keys of [watch] are backend, directories, hold, home_directories, home_events, home_files, homes, key_tools, max_directories, passwd_homes, poll_interval, process_table",
    );
    refuses(
        "[journal]\nxyz = 1\n",
        "
error: unknown key `xyz` in [journal]
 --> /etc/c.toml:2:1
  |
2 | xyz = 1
  | ^^^
  |
  = help: the keys of [journal] are enabled",
    );
    refuses(
        "[[exception]]\nrule = '*'\nexpire = 2027-01-01\n",
        "
error: unknown key `expire` in [[exception]]; did you mean `expires`?
 --> /etc/c.toml:3:1
  |
3 | expire = 2027-01-01
  | ^^^^^^
  |
  = help: the keys of [[exception]] are expires, reason, rule, when",
    );
}

#[test]
fn an_unknown_table_names_the_nearest() {
    refuses(
        "[wach]\n",
        "
error: unknown table [wach]; did you mean [watch]?
 --> /etc/c.toml:1:2
  |
1 | [wach]
  |  ^^^^
  |
  = help: the tables are [control], [[exception]], [journal], [log], [output], [rules], [state], [watch]",
    );
    refuses(
        "[[exeption]]\n",
        "
error: unknown array [[exeption]]; did you mean [[exception]]?
 --> /etc/c.toml:1:3
  |
1 | [[exeption]]
  |   ^^^^^^^^
  |
  = help: the tables are [control], [[exception]], [journal], [log], [output], [rules], [state], [watch]",
    );
    refuses(
        "[exception]\nrule = '*'\n",
        "
error: [exception] may stand more than once; write [[exception]]
 --> /etc/c.toml:1:1
  |
1 | [exception]
  | ^^^^^^^^^^^",
    );
    refuses(
        "homes = []\n",
        "
error: `homes` belongs into a table
 --> /etc/c.toml:1:1
  |
1 | homes = []
  | ^^^^^
  |
  = help: write it below [watch]",
    );
}

#[test]
fn wrong_types_and_values_point_at_the_value() {
    refuses(
        "[watch]\nhomes = \"/home/*\"\n",
        "
error: invalid type: string \"/home/*\", expected a sequence
 --> /etc/c.toml:2:9
  |
2 | homes = \"/home/*\"
  |         ^^^^^^^^^
  |
  = help: write a list: [\"…\"]",
    );
    refuses(
        "[watch]\nbackend = \"inotfy\"\n",
        "
error: unknown variant `inotfy`, expected one of `auto`, `fanotify`, `inotify`
 --> /etc/c.toml:2:11
  |
2 | backend = \"inotfy\"
  |           ^^^^^^^^",
    );
    refuses(
        "[log]\nmode = 0640\n",
        "
error: unexpected leading zero, expected nothing
 --> /etc/c.toml:2:8
  |
2 | mode = 0640
  |        ^
  |
  = help: a file mode is written in quotes: \"0640\"",
    );
    refuses(
        "[log]\nmode = \"0999\"\n",
        "
error: `0999` is not a file mode; write octal digits such as \"0640\"
 --> /etc/c.toml:2:8
  |
2 | mode = \"0999\"
  |        ^^^^^^",
    );
    refuses(
        "[log]\nmode = \"0666\"\n",
        "
error: 0666 is no mode for the alert log
 --> /etc/c.toml:2:8
  |
2 | mode = \"0666\"
  |        ^^^^^^
  |
  = help: its owner must read and write it, others must not write it, and no one executes it",
    );
    refuses(
        "[log]\nmax_size = \"50 MB\"\n",
        "
error: `50 MB` is not a size; write it as \"50M\" (K, M or G), or \"off\"
 --> /etc/c.toml:2:12
  |
2 | max_size = \"50 MB\"
  |            ^^^^^^^",
    );
    refuses(
        "[log]\nmax_size = \"1K\"\nmax_age = \"0d\"\nkeep = 0\n",
        "
error: 1K is too small for an alert log
 --> /etc/c.toml:2:12
  |
2 | max_size = \"1K\"
  |            ^^^^
  |
  = help: write at least \"64K\", or \"off\" if something else rotates the log

error: a log cannot be rotated at the age of 0
 --> /etc/c.toml:3:11
  |
3 | max_age = \"0d\"
  |           ^^^^
  |
  = help: write at least \"1h\", or \"off\"

error: 0 rotated files cannot be kept
 --> /etc/c.toml:4:8
  |
4 | keep = 0
  |        ^
  |
  = help: write a number from 1 to 200; \"off\" for max_size and max_age turns rotation off",
    );
    refuses(
        "[watch]\nmax_directories = 0\n",
        "
error: max_directories is 0, so nothing could be watched
 --> /etc/c.toml:2:19
  |
2 | max_directories = 0
  |                   ^
  |
  = help: leave it out for the default of 65536",
    );
    refuses(
        "[watch\n",
        "
error: unclosed table, expected `]`
 --> /etc/c.toml:1:7
  |
1 | [watch
  |       ^",
    );
}

#[test]
fn all_problems_are_told_at_once() {
    refuses(
        "[watch]\nhomes = [\"home/*\", \"/a/**\", \"/a/[b\", \"/ok/*\"]\ndirectories = [\"/a/../b\"]\n",
        "
error: `home/*` is a relative path
 --> /etc/c.toml:2:10
  |
2 | homes = [\"home/*\", \"/a/**\", \"/a/[b\", \"/ok/*\"]
  |          ^^^^^^^^
  |
  = help: write an absolute path, from / on

error: `/a/**` contains `**`
 --> /etc/c.toml:2:20
  |
2 | homes = [\"home/*\", \"/a/**\", \"/a/[b\", \"/ok/*\"]
  |                    ^^^^^^^
  |
  = help: a `*` stands for one directory; write one for each level

error: `/a/[b` is not a glob: unclosed character class; missing ']'
 --> /etc/c.toml:2:29
  |
2 | homes = [\"home/*\", \"/a/**\", \"/a/[b\", \"/ok/*\"]
  |                             ^^^^^^^
  |
  = help: *, ?, [...] and {...} are special; a backslash takes that away

error: `/a/../b` contains `..`
 --> /etc/c.toml:3:16
  |
3 | directories = [\"/a/../b\"]
  |                ^^^^^^^^^
  |
  = help: write the path without it",
    );
}

#[test]
fn lists_that_would_watch_or_load_nothing_are_refused() {
    refuses(
        "[watch]\nhomes = []\ndirectories = []\n",
        "
error: there is nothing to watch
 --> /etc/c.toml:2:9
  |
2 | homes = []
  |         ^^
  |
  = help: name a home or a directory, or set passwd_homes = true",
    );
    assert!(parse("[watch]\nhomes = []\ndirectories = []\npasswd_homes = true").is_ok());
    refuses(
        "[rules]\ndirectories = []\n",
        "
error: there is no rule directory
 --> /etc/c.toml:2:15
  |
2 | directories = []
  |               ^^
  |
  = help: without rules nothing raises an alert; leave the key out for the default",
    );
    refuses(
        "[log]\ngroup = \"\"\n",
        "
error: the log's group is empty
 --> /etc/c.toml:2:9
  |
2 | group = \"\"
  |         ^^
  |
  = help: name a group such as \"adm\" or \"root\"",
    );
}

#[test]
fn an_exception_says_which_rule_when_and_why() {
    refuses(
        "[[exception]]\nrule = '*'\nwhen = 'true'\n",
        "
error: missing field `reason`
 --> /etc/c.toml:1:1
  |
1 | [[exception]]
  | ^^^^^^^^^^^^^",
    );
    refuses(
        "[[exception]]\nrule = '*'\nwhen = 'true'\nreason = ' '\n",
        "
error: the exception's `reason` is empty
 --> /etc/c.toml:4:10
  |
4 | reason = ' '
  |          ^^^
  |
  = help: say why, for whoever reads it later",
    );
    refuses(
        "[[exception]]\nrule = '*'\nwhen = 'true'\nreason = 'x'\nexpires = 2027-02-01T10:00:00\n",
        "
error: an exception expires with a day; write a date such as 2027-03-31
 --> /etc/c.toml:5:11
  |
5 | expires = 2027-02-01T10:00:00
  |           ^^^^^^^^^^^^^^^^^^^",
    );
}

#[test]
fn unreadable_files_are_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c.toml");
    let missing = Config::load(&path).unwrap_err();
    assert!(missing.is_not_found());
    assert_eq!(
        missing.to_string(),
        format!(
            "cannot read the configuration {}: No such file or directory (os error 2)",
            path.display()
        )
    );
    std::fs::write(&path, b"# \xff").unwrap();
    let binary = Config::load(&path).unwrap_err();
    assert!(!binary.is_not_found());
    assert_eq!(
        binary.to_string(),
        format!(
            "the configuration {} is not UTF-8 text: byte 2 is wrong",
            path.display()
        )
    );
    std::fs::write(&path, b"[journal]\nenabled = false\n").unwrap();
    assert!(!Config::load(&path).unwrap().journal.enabled);
}

#[test]
fn a_place_inside_a_string_is_found_in_the_file() {
    // Where `def` stands.
    for (text, place) in [
        ("q = 'abc def'\n", (1, 10)),
        ("q = '''abc def'''\n", (1, 12)),
        ("q = '''\nabc\ndef'''\n", (3, 1)),
        ("q = '''a\\bc def'''\n", (1, 13)),
        ("q = \"abc def\"\n", (1, 10)),
        ("q = \"\"\"\r\nabc\r\ndef\"\"\"\n", (3, 1)),
        ("q = \"a\\tbc def\"\n", (1, 12)),
        ("q = \"\\\"ä\\\" def\"\n", (1, 12)),
        ("q = \"\\u00e4 \\U0001F511 \\x41 def\"\n", (1, 29)),
        ("q = \"\"\"abc \\\n   x def\"\"\"\n", (2, 6)),
    ] {
        let document = toml::de::DeTable::parse(text).unwrap();
        let string = document.get_ref().get("q").unwrap();
        let value = string.get_ref().as_str().unwrap();
        let site = Source::new(Path::new("f"), text).string(string.span(), value);
        let at = value.find("def").unwrap();
        let fault = site.fault(at..at + 3, "here");
        assert_eq!((fault.line(), fault.column()), place, "in {text:?}");
    }
}

#[test]
fn a_place_that_cannot_be_found_is_the_start_of_the_value() {
    let source = Source::new(Path::new("f"), "q = 'abc'\n");
    for (value, within) in [("abc", 2..9), ("xyz", 1..2)] {
        let fault = source.string(4..9, value).fault(within, "here");
        assert_eq!((fault.line(), fault.column()), (1, 5));
    }
}

#[test]
fn nearest_prefers_silence_to_nonsense() {
    let names = ["homes", "hold", "backend"];
    assert_eq!(nearest("hodl", names), Some("hold"));
    assert_eq!(nearest("zzz", names), None);
}

#[test]
fn strips_osc52_from_the_name_of_the_file() {
    let path = Path::new("/etc/\u{1b}]52;c;eA==\u{7}.toml");
    let unread = Config::load(path).unwrap_err();
    let wrong = Config::parse("x = 1\n", path).unwrap_err();
    let offset = 1;
    let path = path.to_owned();
    for error in [unread, wrong, Error::NotText { path, offset }] {
        let shown = error.to_string();
        assert!(shown.contains(r"/etc/\x1b]52;c;eA==\x07.toml"), "{shown}");
        assert!(!shown.contains(['\u{1b}', '\u{7}']), "{shown:?}");
    }
}
