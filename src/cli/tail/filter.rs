//! Which lines of the log are wanted. Pure, but for the clock that a relative
//! `--since` is read by.

use clap::ValueEnum;
use globset::{GlobBuilder, GlobMatcher};
use jiff::civil::{Date, DateTime};
use jiff::{Span, Timestamp, ZonedDateTime};
use serde_json::{Map, Value};

use super::TailArgs;
use crate::sink::{is_building_block, number, text};

/// A rule's severity, by the numbers that `event.severity` has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Severity {
    /// 21.
    Low,
    /// 47.
    Medium,
    /// 73.
    High,
    /// 99.
    Critical,
}

impl Severity {
    fn number(self) -> u64 {
        match self {
            Self::Low => 21,
            Self::Medium => 47,
            Self::High => 73,
            Self::Critical => 99,
        }
    }
}

/// All wishes together; a line must fulfil each.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    pub(super) since: Option<Timestamp>,
    /// In lower case (ASCII).
    rule: Option<String>,
    user: Option<String>,
    path: Option<GlobMatcher>,
    severity: Option<u64>,
    /// Building blocks are wanted, too.
    building_blocks: bool,
}

impl Filter {
    pub(super) fn new(args: &TailArgs) -> Self {
        Self {
            since: args.since,
            rule: args.rule.as_ref().map(|rule| rule.to_lowercase()),
            user: args.user.clone(),
            path: args.path.clone(),
            severity: args.severity.map(Severity::number),
            // Who names a rule wants to see what it found.
            building_blocks: args.building_blocks || args.rule.is_some(),
        }
    }

    pub(super) fn matches(&self, document: &Map<String, Value>) -> bool {
        self.since
            .is_none_or(|since| time(document).is_some_and(|time| time >= since))
            && (self.building_blocks || !is_building_block(document))
            && self.severity.is_none_or(|least| {
                number(document, "event.severity").is_some_and(|it| it >= least)
            })
            && self.rule.as_deref().is_none_or(|rule| {
                any(document, &["rule.id", "rule.uuid"], |id| {
                    id.to_lowercase() == rule
                }) || any(document, &["rule.name"], |name| {
                    name.to_lowercase().contains(rule)
                })
            })
            && self
                .user
                .as_deref()
                .is_none_or(|user| any(document, &USERS, |it| it == user))
            && self
                .path
                .as_ref()
                .is_none_or(|glob| any(document, &PATHS, |path| glob.is_match(path)))
    }
}

/// Whose deed it was: the process's user, or who had logged in before sudo.
const USERS: [&str; 6] = [
    "user.name",
    "user.id",
    "process.user.name",
    "process.user.id",
    "ssh_keywatch.session.user.name",
    "ssh_keywatch.session.user.id",
];

const PATHS: [&str; 3] = [
    "file.path",
    "ssh_keywatch.file.final.path",
    "file.Ext.original.path",
];

fn any(document: &Map<String, Value>, names: &[&str], wanted: impl Fn(&str) -> bool) -> bool {
    names
        .iter()
        .filter_map(|name| text(document, name))
        .any(wanted)
}

/// A document's `@timestamp`.
pub(super) fn time(document: &Map<String, Value>) -> Option<Timestamp> {
    text(document, "@timestamp")?.parse().ok()
}

/// A glob as rules mean it: `*` crosses `/`. The backslash is literal, because
/// the paths in the log are spelled with escapes and get copied from there.
pub(super) fn parse_glob(glob: &str) -> Result<GlobMatcher, String> {
    let built = GlobBuilder::new(glob)
        .literal_separator(false)
        .backslash_escape(false)
        .build();
    built
        .map(|glob| glob.compile_matcher())
        .map_err(|error| error.kind().to_string())
}

/// `--since` by the clock and the zone of now.
pub(super) fn parse_since(when: &str) -> Result<Timestamp, String> {
    since_at(when, &ZonedDateTime::now())
}

fn since_at(when: &str, now: &ZonedDateTime) -> Result<Timestamp, String> {
    if let Ok(time) = when.parse::<Timestamp>() {
        return Ok(time);
    }
    let local = when
        .parse::<DateTime>()
        .or_else(|_| when.parse::<Date>().map(DateTime::from));
    let zoned = match local {
        Ok(local) => local.to_zoned_datetime(now.time_zone().clone()),
        Err(_) => {
            match when.parse::<Span>() {
                Ok(span) => now.checked_sub(span.abs()),
                Err(_) => {
                    return Err("not a time; write it as 2026-11-24, 2026-11-24T10:00:00+01:00, 10m, 2h or 1d".to_owned());
                }
            }
        }
    };
    zoned
        .map(|zoned| zoned.timestamp())
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sample() -> Map<String, Value> {
        json!({
            "@timestamp": "2026-11-24T04:00:00Z", "event": {"severity": 47},
            "rule": {"id": "7DF3-1", "name": "SSH Key Generated"}, "file": {"path": "/home/a/.ssh/id"},
            "user": {"name": "root", "id": "0"},
            "ssh_keywatch": {"file": {"final": {"path": "/etc/ssh/key"}}, "session": {"user": {"name": "deploy"}}}
        })
        .as_object()
        .unwrap()
        .clone()
    }

    fn matches(filter: &Filter) -> bool {
        filter.matches(&sample())
    }

    #[test]
    fn each_wish_chooses() {
        assert!(matches(&Filter::default()));
        for (rule, wanted) in [
            ("7df3-1", true),
            ("7df3", false),
            ("key gen", true),
            ("key made", false),
        ] {
            assert_eq!(
                matches(&Filter {
                    rule: Some(rule.into()),
                    ..Filter::default()
                }),
                wanted,
                "{rule}"
            );
        }
        for (user, wanted) in [
            ("root", true),
            ("0", true),
            ("deploy", true),
            ("roo", false),
        ] {
            assert_eq!(
                matches(&Filter {
                    user: Some(user.into()),
                    ..Filter::default()
                }),
                wanted,
                "{user}"
            );
        }
        for (path, wanted) in [
            ("/home/*", true),
            ("*/.ssh/id", true),
            ("/etc/ssh/*", true),
            ("/root/*", false),
            ("id", false),
        ] {
            assert_eq!(
                matches(&Filter {
                    path: Some(parse_glob(path).unwrap()),
                    ..Filter::default()
                }),
                wanted,
                "{path}"
            );
        }
        for (level, wanted) in [
            (Severity::Low, true),
            (Severity::Medium, true),
            (Severity::High, false),
        ] {
            assert_eq!(
                matches(&Filter {
                    severity: Some(level.number()),
                    ..Filter::default()
                }),
                wanted,
                "{level:?}"
            );
        }
        for (since, wanted) in [
            ("2026-11-24T04:00:00Z", true),
            ("2026-11-24T04:00:00.001Z", false),
        ] {
            assert_eq!(
                matches(&Filter {
                    since: Some(since.parse().unwrap()),
                    ..Filter::default()
                }),
                wanted,
                "{since}"
            );
        }
    }

    #[test]
    fn building_blocks_are_shown_to_who_asks_for_them_or_for_their_rule() {
        let mut document = sample();
        document["ssh_keywatch"]["rule"] = json!({"building_block": true});
        assert!(!Filter::default().matches(&document));
        let asked = Filter {
            building_blocks: true,
            ..Filter::default()
        };
        assert!(asked.matches(&document));
        for (words, shown) in [
            (&["--rule", "key gen"][..], true),
            (&["--building-blocks"], true),
            (&["--severity", "low"], false),
        ] {
            let filter = Filter::new(&crate::cli::tail::tests::args(words));
            assert_eq!(filter.matches(&document), shown, "{words:?}");
        }
    }

    #[test]
    fn all_wishes_must_be_fulfilled_and_absent_fields_fulfil_none() {
        let filter = Filter {
            rule: Some("ssh".into()),
            user: Some("nobody".into()),
            ..Filter::default()
        };
        assert!(!matches(&filter));
        for filter in [
            Filter {
                severity: Some(21),
                ..Filter::default()
            },
            Filter {
                since: Some(Timestamp::MIN),
                ..Filter::default()
            },
        ] {
            assert!(!filter.matches(&Map::new()));
        }
    }

    #[test]
    fn an_escaped_path_is_its_own_glob() {
        let glob = parse_glob(r"/root/.ssh/a\x1b\\b").unwrap();
        assert!(glob.is_match(r"/root/.ssh/a\x1b\\b"));
        assert!(parse_glob("[").is_err());
    }

    #[test]
    fn since_takes_moments_dates_and_spans() {
        let now: ZonedDateTime = "2026-11-24T12:00:00+01:00[+01:00]".parse().unwrap();
        for (text, expected) in [
            ("2026-11-24T10:00:00Z", "2026-11-24T10:00:00Z"),
            ("2026-11-24T10:00:00+02:00", "2026-11-24T08:00:00Z"),
            ("2026-11-24", "2026-11-23T23:00:00Z"),
            ("2026-11-24 10:30", "2026-11-24T09:30:00Z"),
            ("10m", "2026-11-24T10:50:00Z"),
            ("2h", "2026-11-24T09:00:00Z"),
            ("1d", "2026-11-23T11:00:00Z"),
            ("1h 30m ago", "2026-11-24T09:30:00Z"),
        ] {
            assert_eq!(
                since_at(text, &now).unwrap(),
                expected.parse().unwrap(),
                "{text}"
            );
        }
        for text in ["", "yesterday", "10", "24.11.2026"] {
            assert!(
                since_at(text, &now).unwrap_err().contains("not a time"),
                "{text}"
            );
        }
        assert!(since_at("99999y", &now).is_err());
    }
}
