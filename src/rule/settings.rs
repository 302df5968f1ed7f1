//! How a rule's alerts are limited and shaped, as its file writes it.
//!
//! Owns the keys `max_signals`, `interval`, `alert_suppression` and the three
//! overrides. Must not apply them. Fails with a place in the text.

use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::file::{Fields, unknown_field};
use super::{Limits, Overrides, Severity, SeverityMapping, Suppression};
use crate::config::snippet::{Fault, Source};
use crate::eql::Field;

/// In Elastic, the most fields to group by.
const MAX_GROUP_BY: usize = 5;

#[derive(Deserialize)]
struct RawFile {
    rule: Raw,
}

#[derive(Deserialize)]
struct Raw {
    max_signals: Option<Spanned<i64>>,
    interval: Option<Spanned<String>>,
    alert_suppression: Option<RawSuppression>,
    #[serde(default)]
    severity_mapping: Vec<RawSeverityMapping>,
    #[serde(default)]
    risk_score_mapping: Vec<RawScoreMapping>,
    rule_name_override: Option<Spanned<String>>,
}

#[derive(Deserialize)]
struct RawSuppression {
    group_by: Spanned<Vec<Spanned<String>>>,
    duration: Option<RawDuration>,
    missing_fields_strategy: Option<Spanned<String>>,
}

#[derive(Deserialize)]
struct RawDuration {
    value: Spanned<i64>,
    unit: Spanned<String>,
}

#[derive(Deserialize)]
struct RawSeverityMapping {
    field: Spanned<String>,
    #[serde(default)]
    value: String,
    severity: Spanned<String>,
}

#[derive(Deserialize)]
struct RawScoreMapping {
    field: Spanned<String>,
}

/// Reads the settings of a rule file that has been read once already.
pub(super) fn parse(source: &Source, fields: Fields) -> Result<(Limits, Overrides), Vec<Fault>> {
    let RawFile { rule } = toml::from_str(source.text()).map_err(|error| {
        let message = error.message().lines().collect::<Vec<_>>().join("; ");
        vec![source.fault(error.span().unwrap_or(0..0), message)]
    })?;
    let mut reader = Reader {
        source,
        fields,
        faults: Vec::new(),
    };
    let limits = reader.limits(&rule);
    let overrides = reader.overrides(&rule);
    if reader.faults.is_empty() {
        Ok((limits, overrides))
    } else {
        Err(reader.faults)
    }
}

struct Reader<'a> {
    source: &'a Source,
    fields: Fields,
    faults: Vec<Fault>,
}

impl Reader<'_> {
    fn fault<T>(&mut self, at: &Spanned<T>, message: impl Into<String>, help: &str) {
        let fault = self.source.fault(at.span(), message);
        self.faults.push(fault.help(help));
    }

    fn limits(&mut self, rule: &Raw) -> Limits {
        let mut limits = Limits::default();
        if let Some(most) = &rule.max_signals {
            match u64::try_from(*most.get_ref()) {
                Ok(most @ 1..) => limits.max_signals = most,
                _ => self.fault(most, "max_signals is at least 1", "leave it out for 100"),
            }
        }
        if let Some(interval) = &rule.interval {
            match duration(interval.get_ref()) {
                Some(interval) => limits.interval = interval,
                None => self.fault(
                    interval,
                    format!("`{}` is not an interval", interval.get_ref()),
                    "write a number and s, m, h or d, as in \"5m\"",
                ),
            }
        }
        limits.suppression = rule
            .alert_suppression
            .as_ref()
            .map(|raw| self.suppression(raw));
        limits
    }

    fn suppression(&mut self, raw: &RawSuppression) -> Suppression {
        let names = raw.group_by.get_ref();
        if names.is_empty() || names.len() > MAX_GROUP_BY {
            let message = format!("alerts are grouped by 1 to {MAX_GROUP_BY} fields");
            self.fault(&raw.group_by, message, "name them in group_by");
        }
        let group_by: Vec<_> = names
            .iter()
            .filter_map(|name| {
                let field = self.field(name)?;
                let fault = |_, message| self.source.fault(name.span(), message);
                // One that is never there would make all alerts alike.
                if self.fields == Fields::Known
                    && let Some(fault) = unknown_field(&field, fault)
                {
                    self.faults.push(fault);
                }
                Some(field)
            })
            .collect();
        let duration = raw.duration.as_ref().and_then(|raw| {
            let text = format!("{}{}", raw.value.get_ref(), raw.unit.get_ref());
            let duration = duration(&text);
            if duration.is_none() {
                self.fault(
                    &raw.value,
                    "this is not a duration",
                    "write value = 5 and unit = \"m\" (s, m or h)",
                );
            }
            duration
        });
        let strategy = raw.missing_fields_strategy.as_ref();
        let missing_are_alike = match strategy.map(|word| word.get_ref().as_str()) {
            None | Some("suppress") => true,
            Some("doNotSuppress") => false,
            Some(_) => {
                if let Some(word) = strategy {
                    self.fault(
                        word,
                        format!("`{}` is no strategy", word.get_ref()),
                        "strategies are suppress and doNotSuppress",
                    );
                }
                true
            }
        };
        Suppression {
            group_by,
            duration,
            missing_are_alike,
        }
    }

    fn overrides(&mut self, rule: &Raw) -> Overrides {
        let mut severity = Vec::new();
        for raw in &rule.severity_mapping {
            // Kibana exports an entry without a field for each severity.
            if raw.field.get_ref().is_empty() {
                continue;
            }
            let Some(field) = self.field(&raw.field) else {
                continue;
            };
            match Severity::from_word(raw.severity.get_ref()) {
                Some(word) => severity.push(SeverityMapping {
                    field,
                    value: raw.value.clone(),
                    severity: word,
                }),
                None => self.fault(
                    &raw.severity,
                    format!("`{}` is not a severity", raw.severity.get_ref()),
                    "severities are low, medium, high and critical",
                ),
            }
        }
        let filled = |name: &&Spanned<String>| !name.get_ref().is_empty();
        let risk_score = rule.risk_score_mapping.first().map(|raw| &raw.field);
        let risk_score = risk_score.filter(filled).and_then(|name| self.field(name));
        let name = rule.rule_name_override.as_ref().filter(filled);
        let name = name.and_then(|name| self.field(name));
        Overrides {
            severity,
            risk_score,
            name,
        }
    }

    fn field(&mut self, name: &Spanned<String>) -> Option<Field> {
        let field = Field::new(name.get_ref());
        if field.is_none() {
            self.fault(
                name,
                format!("`{}` is not the name of a field", name.get_ref()),
                "write it with dots, as in file.path",
            );
        }
        field
    }
}

/// A number and a unit: `30s`, `5m`, `1h`, `1d`.
fn duration(text: &str) -> Option<Duration> {
    let (number, seconds) = match text.split_at_checked(text.len().checked_sub(1)?)? {
        (number, "s") => (number, 1),
        (number, "m") => (number, 60),
        (number, "h") => (number, 3600),
        (number, "d") => (number, 86_400),
        _ => return None,
    };
    let digits = number.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = number.parse().ok().filter(|number| digits && *number > 0)?;
    number.checked_mul(seconds).map(Duration::from_secs)
}
