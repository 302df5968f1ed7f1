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

#[test]
fn weak_conditions_are_told_from_strong_ones() {
    use Weakness::{Always, Forgeable, Never};
    for (when, weakness) in [
        ("true", Some(Always)),
        ("user.name == \"a\" or 1 < 2", Some(Always)),
        ("not true", Some(Never)),
        ("process.executable == \"/usr/bin/x\"", Some(Forgeable)),
        (
            "process.name : \"x*\" and process.args == \"-A\"",
            Some(Forgeable),
        ),
        (
            "ssh_keywatch.ancestors.executable == \"/usr/bin/x\"",
            Some(Forgeable),
        ),
        (
            "not process.executable in (\"/usr/bin/x\", \"/usr/bin/y\")",
            Some(Forgeable),
        ),
        ("length(process.executable) > 3", Some(Forgeable)),
        // One branch without assurance is enough.
        ("user.id == \"0\" or process.name == \"x\"", Some(Forgeable)),
        (
            "not (user.id == \"0\" and process.name == \"x\")",
            Some(Forgeable),
        ),
        (
            "process.executable == \"/usr/bin/x\" and user.id == \"0\"",
            None,
        ),
        (
            "process.executable == \"/usr/bin/x\" and process.parent.executable == \"/y\"",
            None,
        ),
        ("process.name == \"x\" and not user.name == \"a\"", None),
        ("not (user.id == \"0\" or process.name == \"x\")", None),
        ("file.path : \"/etc/ssh/*\"", None),
    ] {
        let set = excepting(&format!("rule = '*'\nwhen = '{when}'")).unwrap();
        let (exception, _) = set.exceptions(today()).next().unwrap();
        assert_eq!(exception.weakness(), weakness, "{when}");
    }
}

/// The examples that come with the package, by their reason.
fn examples() -> RuleSet {
    let text = include_str!("../../../packaging/exceptions.toml");
    let lines = text.lines().filter_map(|line| line.strip_prefix('#'));
    // What follows the `#` at once is an example, what follows a blank is prose.
    let examples: Vec<_> = lines
        .filter(|line| !line.is_empty() && (!line.starts_with(' ') || line.starts_with("  ")))
        .collect();
    let config = Config::parse(&examples.join("\n"), Path::new("exceptions.toml"));
    builtin()
        .with_exceptions(&config.unwrap().exceptions)
        .unwrap()
}

#[test]
fn the_examples_are_valid_and_narrow() {
    let set = examples();
    let mut count = 0;
    for (exception, standing) in set.exceptions(today()) {
        assert_eq!(
            standing,
            ExceptionStanding::Active,
            "{}",
            exception.reason()
        );
        assert_eq!(exception.weakness(), None, "{}", exception.reason());
        count += 1;
    }
    assert_eq!(count, 11);
    // A user who calls everything as the examples would have it.
    let mut forged = keygen();
    forged["user"] = json!({"name": "mallory", "id": "1666"});
    forged["process"]["args"] = json!(["/usr/bin/cloud-init"]);
    forged["ssh_keywatch"] = json!({
        "session": {"login_uid": "1666"},
        "ancestors": [
            {"executable": "/opt/puppetlabs/puppet/bin/ruby", "args": ["/usr/bin/cloud-init", "/x/.ansible/tmp/ansible-tmp-1/a.py"]},
            {"executable": "/usr/bin/dpkg"},
            {"executable": "/usr/bin/google_guest_agent"}
        ]
    });
    assert_eq!(ids(&set.decide(&forged, today())), [SEED]);
}

#[test]
fn the_examples_keep_quiet_what_they_are_for() {
    let set = examples();
    let root = |path: &str, ancestor: Value| {
        let mut event = changed("/file/path", json!(path));
        event["user"] = json!({"id": "0", "name": "root"});
        event["ssh_keywatch"] = json!({"ancestors": [ancestor]});
        event
    };
    let as_user = |uid: &str, login: &str, ancestor: Value| {
        let mut event = keygen();
        event["file"]["path"] = json!("/home/alice/.ssh/id_rsa");
        event["user"]["id"] = json!(uid);
        event["host"]["hostname"] = json!("lab-3");
        event["ssh_keywatch"] = json!({"session": {"login_uid": login}, "ancestors": [ancestor]});
        event
    };
    let mut installed = root(
        "/etc/ssh/ssh_host_rsa_key",
        json!({"executable": "/usr/bin/dpkg"}),
    );
    installed["ssh_keywatch"]["session"] = json!({"login_uid": "1000"});
    for (event, reason) in [
        (
            root(
                "/etc/ssh/ssh_host_rsa_key.Ab12",
                json!({"executable": "/usr/bin/bash"}),
            ),
            "host keys made at boot",
        ),
        (
            installed,
            "host keys made by the installation of openssh-server",
        ),
        (
            root(
                "/root/.ssh/x",
                json!({"args": ["/usr/bin/python3", "/usr/bin/cloud-init", "init"]}),
            ),
            "cloud-init sets up the machine",
        ),
        (
            as_user(
                "1001",
                "1001",
                json!({"args": ["python3", "/home/deploy/.ansible/tmp/ansible-tmp-1-2-3/AnsiballZ_openssh_keypair.py"]}),
            ),
            "provisioning by Ansible, account deploy",
        ),
        (
            root(
                "/root/.ssh/x",
                json!({"executable": "/opt/puppetlabs/puppet/bin/ruby"}),
            ),
            "the Puppet agent",
        ),
        (
            root(
                "/root/.ssh/x",
                json!({"executable": "/opt/chef/embedded/bin/ruby"}),
            ),
            "Chef Infra client",
        ),
        (
            root(
                "/root/.ssh/x",
                json!({"executable": "/usr/bin/google_guest_agent"}),
            ),
            "Google guest agent",
        ),
        (
            root(
                "/root/.ssh/x",
                json!({"executable": "/opt/jc/bin/jumpcloud-agent"}),
            ),
            "JumpCloud agent",
        ),
        (
            as_user("1000", "1000", json!({"executable": "/usr/bin/bash"})),
            "alice makes keys as she likes",
        ),
        (
            as_user("0", "1017", json!({"executable": "/usr/bin/bash"})),
            "red team exercise, week 13",
        ),
    ] {
        let decision = set.decide(&event, today());
        let reasons: Vec<_> = decision
            .excepted
            .iter()
            .map(|(_, exception)| exception.reason())
            .collect();
        assert_eq!(reasons, [reason]);
    }
}
