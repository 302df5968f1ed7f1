//! One rule file: what is read, what is refused, what is skipped.

use super::*;

/// The only rule of the only file.
fn one(text: &str) -> Rule {
    let set = load(&directory(&[("r.toml", text)])).unwrap();
    assert_eq!(set.entries()[0].standing, Standing::Active);
    set.rules().next().unwrap().clone()
}

/// The whole report on a file `r.toml`; `DIR` stands for its directory.
fn refuses(text: &str, report: &str) {
    let directory = directory(&[("r.toml", text)]);
    let errors = load(&directory).expect_err(text);
    let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
    let found = texts
        .join("\n\n")
        .replace(&directory.path().display().to_string(), "DIR");
    assert_eq!(found, report.trim_matches('\n'), "for {text:?}");
}

fn standing(text: &str) -> Standing {
    let set = load(&directory(&[("r.toml", text)])).unwrap();
    set.entries()[0].standing.clone()
}

/// Everything that the format knows, and more.
const FULL: &str = r#"
[metadata]
creation_date = "2024/05/31"
integration = "endpoint"
maturity = "production"
min_stack_version = "8.13.0"
bypass_bbr_timing = true
[metadata.extended]
anything = 1

[transform]
[[transform.osquery]]
label = "x"

[rule]
author = ["One", "Two"]
building_block_type = "default"
description = """
 Says what.
"""
false_positives = ["Admins."]
from = "now-9m"
index = ["logs-endpoint.events.file*"]
interval = "5m"
language = "eql"
license = "Some License"
max_signals = 100
name = "Full"
note = "guide"
references = ["https://example.org"]
risk_score = 47
rule_id = "full"
setup = "set up"
severity = "medium"
tags = ["OS: Linux"]
timestamp_override = "event.ingested"
type = "eql"
version = 3
query = "file where true"
[rule.investigation_fields]
field_names = ["@timestamp"]
[rule.alert_suppression]
group_by = ["host.id"]
missing_fields_strategy = "suppress"
[rule.alert_suppression.duration]
value = 5
unit = "m"
[[rule.exceptions_list]]
id = "x"
[[rule.threat]]
framework = "MITRE ATT&CK"
[rule.threat.tactic]
id = "TA0005"
name = "Defense Evasion"
reference = "https://example.org/TA0005"
[[rule.threat]]
framework = "MITRE ATT&CK"
[[rule.threat.technique]]
id = "T1098"
name = "Account Manipulation"
reference = "https://example.org/T1098"
[rule.threat.tactic]
id = "TA0003"
name = "Persistence"
reference = "https://example.org/TA0003"
"#;

#[test]
fn the_full_schema_of_elastic_is_tolerated() {
    let rule = one(FULL);
    let entry = |id: &str, name: &str| Reference {
        id: id.into(),
        name: name.into(),
        reference: format!("https://example.org/{id}"),
    };
    let expected = Rule {
        id: "full".into(),
        name: "Full".into(),
        description: "Says what.".into(),
        severity: Severity::Medium,
        risk_score: 47,
        threat: vec![
            Threat {
                framework: "MITRE ATT&CK".into(),
                tactic: entry("TA0005", "Defense Evasion"),
                techniques: vec![],
            },
            Threat {
                framework: "MITRE ATT&CK".into(),
                tactic: entry("TA0003", "Persistence"),
                techniques: vec![Technique {
                    technique: entry("T1098", "Account Manipulation"),
                    subtechniques: vec![],
                }],
            },
        ],
        tags: vec!["OS: Linux".into()],
        references: vec!["https://example.org".into()],
        author: vec!["One".into(), "Two".into()],
        license: Some("Some License".into()),
        version: Some("3".into()),
        false_positives: vec!["Admins.".into()],
        note: Some("guide".into()),
        setup: Some("set up".into()),
        investigation_fields: vec!["@timestamp".into()],
        building_block: true,
        overrides: Overrides::default(),
        limits: Limits {
            suppression: Some(Suppression {
                group_by: vec![eql::Field::new("host.id").unwrap()],
                duration: Some(std::time::Duration::from_secs(300)),
                missing_are_alike: true,
            }),
            ..Limits::default()
        },
        query: "file where true".into(),
        file: rule.file.clone(),
        ruleset: rule.file.parent().unwrap().display().to_string(),
    };
    assert_eq!(rule, expected);
}

#[test]
fn queries_may_be_quoted_in_three_ways() {
    for query in [
        r#""file where process.name == \"a\\\\b\"""#,
        r#"'''file where process.name == "a\\b"'''"#,
        "\"\"\"\nfile where process.name == \"a\\\\\\\\b\"\n\"\"\"",
    ] {
        let set = load(&directory(&[("r.toml", &file(query))])).unwrap();
        let document = json!({"event": {"category": "file"}, "process": {"name": "a\\b"}});
        assert_eq!(ids(&set.decide(&document, today())), ["id"], "{query}");
    }
}

#[test]
fn a_risk_score_that_is_missing_follows_from_the_severity() {
    let rule = one(&file("'file where true'").replace("low", "critical"));
    assert_eq!((rule.severity, rule.risk_score), (Severity::Critical, 99));
}

#[test]
fn rules_that_are_not_for_us_are_skipped_with_the_reason() {
    let skipped = |reason: &str| Standing::Skipped(reason.into());
    let base = file("'file where true'");
    for (text, expected) in [
        (base.clone(), Standing::Active),
        (format!("{base}enabled = false\n"), Standing::Disabled),
        (
            base.replace("\"eql\"", "\"query\""),
            skipped("of type query; only eql rules run here"),
        ),
        (
            base.replace("type = \"eql\"", ""),
            skipped("without a type; only eql rules run here"),
        ),
        (
            format!("{base}language = \"kuery\"\n"),
            skipped("in the language kuery; only EQL runs here"),
        ),
        (
            format!("{base}[metadata]\nmaturity = \"deprecated\"\n"),
            skipped("deprecated"),
        ),
        (
            format!(
                "{base}[metadata]\nmaturity = \"deprecated\"\ndeprecation_date = \"2025/01/17\"\n"
            ),
            skipped("deprecated since 2025/01/17"),
        ),
        (
            file("'process where true'"),
            skipped("about process events; only file events are seen here"),
        ),
        (
            // Broken, but not ours.
            file("'''// a\n/* b */ process where )'''"),
            skipped("about process events; only file events are seen here"),
        ),
        (
            file("'any where aws.cloudtrail.x == \"y\"'"),
            skipped("about another data source: it reads aws.cloudtrail.x"),
        ),
        (
            "[rule]\nrule_id = 'ml'\nname = 'ML'\ntype = 'machine_learning'\n".into(),
            skipped("of type machine_learning; only eql rules run here"),
        ),
    ] {
        assert_eq!(standing(&text), expected, "for {text}");
    }
    let Standing::Skipped(reason) =
        standing(&file("'sequence [file where true] [file where true]'"))
    else {
        panic!("a sequence looks at more than one event");
    };
    assert!(reason.contains("sequence"), "{reason}");
}

#[test]
fn another_field_may_hold_the_category() {
    let text = format!(
        "{}event_category_override = \"event.kind\"\n",
        file("'custom where true'")
    );
    let set = load(&directory(&[("r.toml", &text)])).unwrap();
    let document = json!({"event": {"category": "file", "kind": "custom"}});
    assert_eq!(ids(&set.decide(&document, today())), ["id"]);
    assert!(set.decide(&keygen(), today()).matches.is_empty());
}

#[test]
fn a_mistake_in_toml_is_shown() {
    refuses(
        "[rule]\nname = \"x\n",
        "
error: invalid basic string, expected `\"`
 --> DIR/r.toml:2:10
  |
2 | name = \"x
  |          ^",
    );
    refuses(
        "title = 1\n",
        "
error: the file has no [rule] table
 --> DIR/r.toml:1:1
  |
1 | title = 1
  | ^^^^^^^^^",
    );
    refuses(
        "[rule]\nname = 'x'\n",
        "
error: missing field `rule_id`
 --> DIR/r.toml:1:1
  |
1 | [rule]
  | ^^^^^^",
    );
    refuses(
        "[rule]\nname = ''\nrule_id = 'x'\n",
        "
error: the rule's name is empty
 --> DIR/r.toml:2:8
  |
2 | name = ''
  |        ^^",
    );
    refuses(
        "[rule]\nname = 'x'\nrule_id = 'x'\ntags = 'x'\n",
        "
error: invalid type: string \"x\", expected a sequence
 --> DIR/r.toml:4:8
  |
4 | tags = 'x'
  |        ^^^",
    );
}

#[test]
fn a_rule_that_lacks_what_it_needs_is_shown() {
    refuses(
        "[rule]\nname = 'x'\nrule_id = 'id-1'\ntype = 'eql'\n",
        "
error: the rule with this rule_id has no query
 --> DIR/r.toml:3:11
  |
3 | rule_id = 'id-1'
  |           ^^^^^^",
    );
    refuses(
        &file("'file where true'").replace("severity = \"low\"\n", ""),
        "
error: the rule with this rule_id has no severity
 --> DIR/r.toml:2:11
  |
2 | rule_id = \"id\"
  |           ^^^^",
    );
    refuses(
        &file("'file where true'").replace("low", "lo"),
        "
error: `lo` is not a severity
 --> DIR/r.toml:5:12
  |
5 | severity = \"lo\"
  |            ^^^^
  |
  = help: severities are low, medium, high and critical",
    );
    refuses(
        &format!("{}risk_score = 101\n", file("'file where true'")),
        "
error: a risk score is a number from 0 to 100
 --> DIR/r.toml:7:14
  |
7 | risk_score = 101
  |              ^^^",
    );
    refuses(
        &format!(
            "{}event_category_override = 'a..b'\n",
            file("'file where true'")
        ),
        "
error: `a..b` is not the name of a field
 --> DIR/r.toml:7:27
  |
7 | event_category_override = 'a..b'
  |                           ^^^^^^",
    );
}

#[test]
fn a_mistake_in_a_query_is_shown_in_the_file() {
    refuses(
        &file("'''\nfile where\n  file.name == )'''"),
        "
error: expected a field, a value, a function, `not` or `(`, found `)`
 --> DIR/r.toml:8:16
  |
8 |   file.name == )'''
  |                ^",
    );
}

#[test]
fn an_unknown_field_names_the_nearest() {
    refuses(
        &file("'''\nfile where file.nam == \"x\" and\n  not proces.executable : \"y\"'''"),
        "
error: unknown field `file.nam`; did you mean `file.name`?
 --> DIR/r.toml:7:12
  |
7 | file where file.nam == \"x\" and
  |            ^^^^^^^^
  |
  = help: write ?file.nam for a field that may not exist

error: unknown field `proces.executable`; did you mean `process.executable`?
 --> DIR/r.toml:8:7
  |
8 |   not proces.executable : \"y\"'''
  |       ^^^^^^^^^^^^^^^^^
  |
  = help: write ?proces.executable for a field that may not exist",
    );
    let optional = directory(&[("r.toml", &file("'file where ?file.nam == null'"))]);
    assert_eq!(
        ids(&load(&optional).unwrap().decide(&keygen(), today())),
        ["id"]
    );

    let foreign = directory(&[("r.toml", &file("'file where file.nam == null'"))]);
    let set = RuleSet::load_with(&[foreign.path().into()], false, Fields::Any).unwrap();
    assert_eq!(ids(&set.decide(&keygen(), today())), ["id"]);
}

#[test]
fn text_that_a_field_can_never_be_is_a_mistake() {
    refuses(
        &file(r#"'file where process.pid == "init" and user.id == "0"'"#),
        r#"
error: `process.pid` is a number, which this text is not
 --> DIR/r.toml:6:36
  |
6 | query = 'file where process.pid == "init" and user.id == "0"'
  |                                    ^^^^^^
  |
  = help: write it as in `process.pid == 1`"#,
    );
    for (query, good) in [
        (r#"process.pid == "1""#, true),
        (r#"not process.pid in ("1", "x")"#, false),
        (r#""yes" != ssh_keywatch.attribution.certain"#, false),
        (r#"ssh_keywatch.attribution.certain == "true""#, true),
        (r#"file.size > 1 or file.size == null"#, true),
        (r#"process.pid : "1*""#, true),
        (r#"user.id == 0"#, true),
        (r#"@timestamp > "2026""#, true),
        (r#"?file.Ext.entropy == "x""#, true),
    ] {
        let text = file(&format!("'''file where {query}'''"));
        let loaded = load(&directory(&[("r.toml", &text)]));
        assert_eq!(loaded.is_ok(), good, "{query}");
    }
}
