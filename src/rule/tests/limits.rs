//! Suppression: what is raised, what is counted, what is told and when.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::*;

fn at(seconds: i64) -> SystemTime {
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000);
    let distance = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 {
        start - distance
    } else {
        start + distance
    }
}

fn rule(settings: &str) -> Rule {
    let text = format!("{}{settings}", file("'file where true'"));
    let set = load(&directory(&[("r.toml", &text)])).unwrap();
    set.rules().next().unwrap().clone()
}

fn user(name: &str) -> Value {
    json!({"user": {"name": name}})
}

#[test]
fn a_rule_raises_no_more_than_it_may_in_an_interval() {
    let rule = rule("max_signals = 2\ninterval = '1m'");
    let mut suppressor = Suppressor::new();
    let mut verdict = |seconds| suppressor.admit(&rule, None, &keygen(), at(seconds));
    assert_eq!(verdict(0), Verdict::Raise);
    assert_eq!(verdict(59), Verdict::Raise);
    assert_eq!(verdict(59), Verdict::Suppress(1));
    assert_eq!(verdict(1), Verdict::Suppress(1), "out of order");
    assert_eq!(verdict(-59), Verdict::Suppress(1), "before the first");
    // The next window, which begins with its first alert.
    assert_eq!(verdict(60), Verdict::Raise);
    assert_eq!(verdict(119), Verdict::Raise);
    assert_eq!(verdict(119), Verdict::Suppress(4));
    let told = |count, start, window| Suppressed {
        rule_id: "id".to_owned(),
        rule_name: "N".to_owned(),
        cause: Cause::MaxSignals(2, None),
        count,
        start: at(start),
        end: at(start + 60),
        window,
    };
    assert_eq!(suppressor.ended(at(119)), [told(3, 0, 1)]);
    assert_eq!(suppressor.ended(at(119)), [], "told once");
    assert_eq!(suppressor.ended(at(120)), [told(1, 60, 4)]);
    assert_eq!(suppressor.total(), 4);
    // Nothing was suppressed in the third, so there is nothing to tell.
    assert_eq!(
        suppressor.admit(&rule, None, &keygen(), at(500)),
        Verdict::Raise
    );
    assert_eq!(suppressor.finish(), []);
}

#[test]
fn rules_do_not_count_against_each_other_and_reloads_change_nothing() {
    let one = rule("max_signals = 1");
    let mut other = one.clone();
    other.id = "other".to_owned();
    let mut suppressor = Suppressor::new();
    assert_eq!(
        suppressor.admit(&one, None, &keygen(), at(0)),
        Verdict::Raise
    );
    assert_eq!(
        suppressor.admit(&other, None, &keygen(), at(0)),
        Verdict::Raise
    );
    let reloaded = rule("max_signals = 1");
    assert_eq!(
        suppressor.admit(&reloaded, None, &keygen(), at(1)),
        Verdict::Suppress(1)
    );
}

#[test]
fn alike_alerts_are_one() {
    let rule = rule(
        "max_signals = 3\n[rule.alert_suppression]\ngroup_by = ['user.name', 'process.args']\nduration = {value = 2, unit = 'h'}",
    );
    let mut suppressor = Suppressor::new();
    let mut verdict =
        |document: Value, hours: i64| suppressor.admit(&rule, None, &document, at(hours * 3600));
    let args = |args: &[&str]| json!({"user": {"name": "a"}, "process": {"args": args}});
    assert_eq!(verdict(args(&["x", "y"]), 0), Verdict::Raise);
    assert_eq!(verdict(args(&["x", "y"]), 1), Verdict::Suppress(1));
    assert_eq!(verdict(args(&["xy"]), 1), Verdict::Raise);
    // Missing in the same way is alike, too.
    assert_eq!(verdict(user("a"), 1), Verdict::Raise);
    assert_eq!(verdict(user("a"), 1), Verdict::Suppress(2));
    assert_eq!(verdict(user("b"), 1), Verdict::Raise);
    assert_eq!(
        verdict(args(&["x", "y"]), 2),
        Verdict::Raise,
        "two hours later"
    );
    let told = suppressor.finish();
    let alike = |user: &str, args: &[&str]| {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Cause::Alike(vec![
            ("user.name".to_owned(), owned(&[user])),
            ("process.args".to_owned(), owned(args)),
        ])
    };
    let causes: Vec<_> = told
        .iter()
        .map(|told| (&told.cause, told.count, told.start, told.end))
        .collect();
    assert_eq!(
        causes,
        [
            (&alike("a", &["x", "y"]), 1, at(0), at(7200)),
            (&alike("a", &[]), 1, at(3600), at(10_800)),
        ]
    );
}

#[test]
fn what_lacks_a_field_can_be_raised_each_time() {
    let rule = rule(
        "max_signals = 3\n[rule.alert_suppression]\ngroup_by = ['user.name']\nmissing_fields_strategy = 'doNotSuppress'",
    );
    let mut suppressor = Suppressor::new();
    let mut verdict =
        |document: Value, seconds| suppressor.admit(&rule, None, &document, at(seconds));
    assert_eq!(verdict(json!({}), 0), Verdict::Raise);
    assert_eq!(verdict(json!({}), 0), Verdict::Raise);
    assert_eq!(verdict(user("a"), 0), Verdict::Raise);
    // Without a duration the interval is the window.
    assert_eq!(verdict(user("a"), 299), Verdict::Suppress(1));
    assert_eq!(verdict(json!({}), 299), Verdict::Suppress(2), "max_signals");
    assert_eq!(verdict(user("a"), 300), Verdict::Raise);
    let causes = suppressor.finish();
    let causes: Vec<_> = causes
        .iter()
        .map(|told| matches!(told.cause, Cause::MaxSignals(3, None)))
        .collect();
    assert_eq!(causes, [false, true]);
}

#[test]
fn groups_are_bounded_and_more_of_them_are_raised() {
    let rule = rule("max_signals = 1000000\n[rule.alert_suppression]\ngroup_by = ['user.name']");
    let mut suppressor = Suppressor::new();
    for index in 0..MAX_GROUPS {
        assert_eq!(
            suppressor.admit(&rule, None, &user(&index.to_string()), at(0)),
            Verdict::Raise
        );
    }
    let extra = user("one too many");
    assert_eq!(suppressor.admit(&rule, None, &extra, at(1)), Verdict::Raise);
    assert_eq!(suppressor.admit(&rule, None, &extra, at(1)), Verdict::Raise);
    assert_eq!(
        suppressor.admit(&rule, None, &user("7"), at(1)),
        Verdict::Suppress(1)
    );
    // There is room again when windows have ended.
    assert_eq!(
        suppressor.admit(&rule, None, &extra, at(300)),
        Verdict::Raise
    );
    assert_eq!(
        suppressor.admit(&rule, None, &extra, at(300)),
        Verdict::Suppress(2)
    );
    // Long values differ behind their beginning, too.
    let long = |end: &str| user(&("ä".repeat(4000) + end));
    assert_eq!(
        suppressor.admit(&rule, None, &long("a"), at(300)),
        Verdict::Raise
    );
    assert_eq!(
        suppressor.admit(&rule, None, &long("b"), at(300)),
        Verdict::Raise
    );
    assert_eq!(
        suppressor.admit(&rule, None, &long("a"), at(300)),
        Verdict::Suppress(3)
    );
}

#[test]
fn the_event_may_decide_severity_score_and_name() {
    let rule = rule(
        r#"risk_score = 10
rule_name_override = "message"
[[rule.severity_mapping]]
field = "event.severity"
operator = "equals"
value = "73"
severity = "high"
[[rule.severity_mapping]]
field = "user.name"
operator = "equals"
value = "a"
severity = "critical"
[[rule.severity_mapping]]
field = ""
operator = "equals"
value = ""
severity = "low"
[[rule.risk_score_mapping]]
field = "event.risk_score"
operator = "equals"
value = ""
"#,
    );
    let overrides = &rule.overrides;
    for (document, severity, score, name) in [
        (json!({}), None, None, None),
        (
            json!({"event": {"severity": 73, "risk_score": 55.9}}),
            Some(Severity::High),
            Some(55),
            None,
        ),
        (
            json!({"event": {"severity": "73", "risk_score": "8"}, "message": "m"}),
            Some(Severity::High),
            Some(8),
            Some("m"),
        ),
        (
            json!({"event": {"severity": 73}, "user": {"name": ["b", "a"]}, "message": [" ", "n"]}),
            Some(Severity::Critical),
            None,
            Some("n"),
        ),
        (
            json!({"event": {"severity": 7, "risk_score": [1, 101, -1, 30, "x", true]}}),
            None,
            Some(30),
            None,
        ),
    ] {
        assert_eq!(overrides.severity(&document), severity, "{document}");
        assert_eq!(overrides.risk_score(&document), score, "{document}");
        assert_eq!(overrides.name(&document).as_deref(), name, "{document}");
    }
}

#[test]
fn settings_have_elastics_defaults() {
    let rule = rule("");
    assert_eq!(
        (
            rule.limits.max_signals,
            rule.limits.interval,
            &rule.limits.suppression
        ),
        (100, Duration::from_secs(300), &None)
    );
    assert_eq!(rule.overrides, Overrides::default());
    assert!(!rule.building_block && rule.investigation_fields.is_empty());
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    for (settings, message) in [
        ("max_signals = 0", "max_signals is at least 1"),
        ("interval = '5'", "`5` is not an interval"),
        ("interval = '0m'", "`0m` is not an interval"),
        ("interval = '5w'", "`5w` is not an interval"),
        ("interval = 'ä'", "`ä` is not an interval"),
        (
            "[rule.alert_suppression]\ngroup_by = []",
            "alerts are grouped by 1 to 5 fields",
        ),
        (
            "[rule.alert_suppression]\ngroup_by = ['user.nam']",
            "unknown field `user.nam`; did you mean `user.name`?",
        ),
        (
            "[rule.alert_suppression]\ngroup_by = ['user.name']\nduration = {value = -1, unit = 'm'}",
            "this is not a duration",
        ),
        (
            "[rule.alert_suppression]\ngroup_by = ['user.name']\nmissing_fields_strategy = 'x'",
            "`x` is no strategy",
        ),
        (
            "rule_name_override = 'a..b'",
            "`a..b` is not the name of a field",
        ),
        (
            "severity_mapping = [{field = 'a', value = '1', severity = 'x'}]",
            "`x` is not a severity",
        ),
    ] {
        let text = format!("{}{settings}", file("'file where true'"));
        let errors = load(&directory(&[("r.toml", &text)])).unwrap_err();
        let text = errors[0].to_string();
        assert!(text.starts_with(&format!("error: {message}\n")), "{text}");
        assert!(
            text.contains("r.toml:7:") || text.contains("r.toml:8:") || text.contains("r.toml:9:"),
            "{text}"
        );
    }
}

#[test]
fn a_home_that_floods_leaves_others_their_alerts() {
    let rule = rule("max_signals = 2\ninterval = '1m'");
    let mut suppressor = Suppressor::new();
    let (ann, bob) = (Path::new("/home/ann"), Path::new("/home/bob"));
    let mut raised = |home, seconds| {
        let verdicts = (0..10).map(|_| suppressor.admit(&rule, Some(home), &keygen(), at(seconds)));
        verdicts
            .filter(|verdict| *verdict == Verdict::Raise)
            .count()
    };
    assert_eq!((raised(ann, 0), raised(bob, 1), raised(ann, 2)), (2, 2, 0));
    assert_eq!(raised(ann, 60), 2);
    let told = suppressor.finish();
    let told: Vec<_> = told
        .into_iter()
        .map(|told| (told.cause, told.count, told.start))
        .collect();
    let of = |home: &Path, count, start| {
        let cause = Cause::MaxSignals(2, Some(home.to_owned()));
        (cause, count, at(start))
    };
    assert_eq!(told, [of(ann, 18, 0), of(bob, 8, 1), of(ann, 8, 60)]);
    // Of endless homes the last ones share.
    for home in 0..3 * MAX_GROUPS {
        let home = PathBuf::from(format!("/home/u{home}"));
        suppressor.admit(&rule, Some(&home), &keygen(), at(200));
    }
    assert_eq!(suppressor.finish().len(), 1);
}
