//! Exceptions: what they keep quiet, and until when.

use super::*;
use crate::config::Config;

/// The configuration with these lines of one exception.
fn excepting(lines: &str) -> Result<RuleSet, Vec<Error>> {
    let text = format!("[[exception]]\nreason = 'r'\n{lines}");
    let config = Config::parse(&text, Path::new("/etc/c.toml")).unwrap();
    builtin().with_exceptions(&config.exceptions)
}

#[test]
fn an_exception_keeps_a_match_quiet_and_counts_it() {
    for target in [SEED, "SSH Key Generated via ssh-keygen", "*"] {
        let set = excepting(&format!("rule = '{target}'\nwhen = 'user.name == \"a\"'")).unwrap();
        for count in 1..3 {
            let decision = set.decide(&keygen(), today());
            assert!(decision.matches.is_empty(), "{target}");
            let (rule, exception) = decision.excepted[0];
            assert_eq!((rule.id.as_str(), exception.reason()), (SEED, "r"));
            assert_eq!(exception.hits(), count);
        }
        let other = changed("/user/name", json!("b"));
        assert_eq!(ids(&set.decide(&other, today())), [SEED]);
        let cp = changed("/process/executable", json!("/usr/bin/cp"));
        assert!(set.decide(&cp, today()).excepted.is_empty());
        let (exception, standing) = set.exceptions(today()).next().unwrap();
        assert_eq!((exception.hits(), standing), (2, ExceptionStanding::Active));
    }
}

#[test]
fn an_exception_may_speak_of_ancestors() {
    let set = excepting(
        "rule = '*'\nwhen = 'ssh_keywatch.ancestors.executable == \"/usr/bin/ansible-playbook\"'",
    )
    .unwrap();
    let mut document = keygen();
    assert_eq!(set.decide(&document, today()).matches.len(), 1);
    document["ssh_keywatch"] = json!({"ancestors": [
        {"executable": "/usr/bin/sh"},
        {"executable": "/usr/bin/ansible-playbook"}
    ]});
    assert_eq!(set.decide(&document, today()).excepted.len(), 1);
}

#[test]
fn an_exception_ends_with_its_last_day() {
    let set = excepting("rule = '*'\nwhen = 'true'\nexpires = 2027-03-31").unwrap();
    for (today, standing, quiet) in [
        (date(2027, 3, 30), ExceptionStanding::Active, true),
        (date(2027, 3, 31), ExceptionStanding::Active, true),
        (date(2027, 4, 1), ExceptionStanding::Expired, false),
    ] {
        assert_eq!(set.exceptions(today).next().unwrap().1, standing);
        let decision = set.decide(&keygen(), today);
        assert_eq!(decision.matches.is_empty(), quiet, "{today}");
    }
}

#[test]
fn an_exception_for_no_rule_says_so() {
    let set = excepting("rule = 'nothing'\nwhen = 'true'").unwrap();
    let (exception, standing) = set.exceptions(today()).next().unwrap();
    assert_eq!(standing, ExceptionStanding::NoRule);
    assert_eq!((exception.target(), exception.when()), ("nothing", "true"));
    assert_eq!(exception.place(), Some("/etc/c.toml:3"));
    assert_eq!(ids(&set.decide(&keygen(), today())), [SEED]);
}

#[test]
fn a_mistake_in_an_exception_is_shown_in_the_configuration() {
    let errors = excepting("rule = '*'\nwhen = 'user.nam == \"a\"'").unwrap_err();
    assert_eq!(
        errors[0].to_string(),
        "\
error: unknown field `user.nam`; did you mean `user.name`?
 --> /etc/c.toml:4:9
  |
4 | when = 'user.nam == \"a\"'
  |         ^^^^^^^^
  |
  = help: write ?user.nam for a field that may not exist"
    );
    let errors = excepting("rule = '*'\nwhen = 'user.name = \"a\"'").unwrap_err();
    let text = errors[0].to_string();
    assert!(text.contains(" --> /etc/c.toml:4:19\n"), "{text}");
}
