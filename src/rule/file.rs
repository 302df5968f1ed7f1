//! One rule file: TOML in the format of Elastic's detection-rules repository.
//!
//! Owns the reading of a file's text: which keys are needed, which are merely
//! tolerated, and which rules are not ours to run. Must not open files. Fails
//! with a place in the text; a rule that cannot run here is no failure.

use std::path::Path;

use serde::Deserialize;
use toml::Spanned;

use super::facts::{Reference, Rule, Severity, Technique, Threat};
use super::{opens, schema, settings, types};
use crate::config::snippet::{Fault, Source};
use crate::eql;

/// What a rule file turned out to be.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) id: Spanned<String>,
    pub(super) name: String,
    pub(super) body: Body,
}

#[derive(Debug)]
pub(super) enum Body {
    /// A rule that runs.
    Rule(Box<Compiled>),
    /// A rule that its author switched off.
    Disabled,
    /// A rule that is not for us, and why.
    Skipped(String),
}

/// A rule and its prepared query.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) rule: Rule,
    query: eql::Query,
    /// `event_category_override`, where the rule has one.
    category_field: Option<eql::Field>,
    pub(super) asks_for_opens: bool,
}

impl Compiled {
    /// The event category, if it matters, and the field that has it.
    pub(super) fn category(&self) -> (Option<&str>, &eql::Field) {
        let field = self.category_field.as_ref();
        let field = field.unwrap_or_else(|| self.query.category_field());
        (self.query.category(), field)
    }

    pub(super) fn query(&self) -> &eql::Query {
        &self.query
    }
}

/// What a query's fields are held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fields {
    /// An unknown field is a mistake: our own documents cannot have it.
    Known,
    /// Documents come from elsewhere, and an unknown field is merely missing.
    Any,
}

#[derive(Deserialize)]
struct RawFile {
    #[serde(default)]
    metadata: RawMetadata,
    rule: Option<RawRule>,
}

#[derive(Default, Deserialize)]
struct RawMetadata {
    maturity: Option<String>,
    deprecation_date: Option<String>,
}

/// Only what is used; everything else that a file may say is tolerated. What is
/// needed is asked for after it is known whether the rule is ours to run.
#[derive(Deserialize)]
struct RawRule {
    rule_id: Spanned<String>,
    name: Spanned<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    language: Option<String>,
    query: Option<Spanned<String>>,
    #[serde(default)]
    description: String,
    severity: Option<Spanned<String>>,
    risk_score: Option<Spanned<i64>>,
    #[serde(default)]
    threat: Vec<RawThreat>,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    references: Vec<String>,
    author: Option<OneOrMany>,
    license: Option<String>,
    version: Option<Version>,
    #[serde(default)]
    false_positives: Vec<String>,
    note: Option<String>,
    #[serde(default = "yes")]
    enabled: bool,
    event_category_override: Option<Spanned<String>>,
    setup: Option<String>,
    building_block_type: Option<String>,
    investigation_fields: Option<RawInvestigationFields>,
}

#[derive(Deserialize)]
struct RawInvestigationFields {
    #[serde(default)]
    field_names: Vec<String>,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Version {
    Number(i64),
    Text(String),
}

#[derive(Deserialize)]
struct RawThreat {
    #[serde(default)]
    framework: String,
    tactic: RawReference,
    #[serde(default)]
    technique: Vec<RawTechnique>,
}

#[derive(Deserialize)]
struct RawReference {
    id: String,
    name: String,
    #[serde(default)]
    reference: String,
}

#[derive(Deserialize)]
struct RawTechnique {
    id: String,
    name: String,
    #[serde(default)]
    reference: String,
    #[serde(default)]
    subtechnique: Vec<RawReference>,
}

impl From<RawReference> for Reference {
    fn from(raw: RawReference) -> Self {
        Self {
            id: raw.id,
            name: raw.name,
            reference: raw.reference,
        }
    }
}

impl From<RawThreat> for Threat {
    fn from(raw: RawThreat) -> Self {
        let techniques = raw.technique.into_iter().map(|raw| Technique {
            technique: Reference {
                id: raw.id,
                name: raw.name,
                reference: raw.reference,
            },
            subtechniques: raw.subtechnique.into_iter().map(Into::into).collect(),
        });
        Self {
            techniques: techniques.collect(),
            framework: raw.framework,
            tactic: raw.tactic.into(),
        }
    }
}

/// Reads a rule file's text. On failure there is at least one fault.
pub(super) fn parse(
    source: &Source,
    file: &Path,
    ruleset: &str,
    fields: Fields,
) -> Result<Parsed, Vec<Fault>> {
    let raw: RawFile = toml::from_str(source.text()).map_err(|error| {
        let message = error.message().lines().collect::<Vec<_>>().join("; ");
        vec![source.fault(error.span().unwrap_or(0..0), message)]
    })?;
    let RawFile { metadata, rule } = raw;
    let rule = rule.ok_or_else(|| {
        let line = source.text().lines().next().unwrap_or_default();
        vec![source.fault(0..line.len(), "the file has no [rule] table")]
    })?;
    let parsed = |rule: &RawRule, body| Parsed {
        id: rule.rule_id.clone(),
        name: rule.name.get_ref().clone(),
        body,
    };
    let required = [("rule_id", &rule.rule_id), ("name", &rule.name)];
    if let Some((key, value)) = required
        .iter()
        .find(|(_, value)| value.get_ref().trim().is_empty())
    {
        return Err(vec![
            source.fault(value.span(), format!("the rule's {key} is empty")),
        ]);
    }
    if !rule.enabled {
        return Ok(parsed(&rule, Body::Disabled));
    }
    if let Some(reason) = not_ours(&metadata, &rule) {
        return Ok(parsed(&rule, Body::Skipped(reason)));
    }
    let (query, category_field) = match query(source, &rule, fields)? {
        Ok(query) => query,
        Err(reason) => return Ok(parsed(&rule, Body::Skipped(reason))),
    };
    let (severity, risk_score) = gravity(source, &rule)?;
    let (limits, overrides) = settings::parse(source, fields)?;
    let id = rule.rule_id.clone();
    let name = rule.name.into_inner();
    let compiled = Compiled {
        rule: Rule {
            id: rule.rule_id.into_inner(),
            name: name.clone(),
            description: rule.description.trim().to_owned(),
            severity,
            risk_score,
            threat: rule.threat.into_iter().map(Into::into).collect(),
            tags: rule.tags,
            references: rule.references,
            author: match rule.author {
                Some(OneOrMany::One(author)) => vec![author],
                Some(OneOrMany::Many(authors)) => authors,
                None => Vec::new(),
            },
            license: rule.license,
            version: rule.version.map(|version| match version {
                Version::Number(number) => number.to_string(),
                Version::Text(text) => text,
            }),
            false_positives: rule.false_positives,
            note: rule.note,
            setup: rule.setup,
            investigation_fields: rule
                .investigation_fields
                .map(|fields| fields.field_names)
                .unwrap_or_default(),
            building_block: rule.building_block_type.is_some(),
            overrides,
            limits,
            query: rule.query.map(Spanned::into_inner).unwrap_or_default(),
            file: file.to_owned(),
            ruleset: ruleset.to_owned(),
        },
        asks_for_opens: opens::asks(&query),
        query,
        category_field,
    };
    Ok(Parsed {
        id,
        name,
        body: Body::Rule(Box::new(compiled)),
    })
}

/// Why a rule is not one that runs here, if so; its query is not looked at.
fn not_ours(metadata: &RawMetadata, rule: &RawRule) -> Option<String> {
    if metadata.maturity.as_deref() == Some("deprecated") {
        return Some(match &metadata.deprecation_date {
            Some(date) => format!("deprecated since {date}"),
            None => "deprecated".to_owned(),
        });
    }
    match rule.kind.as_deref() {
        Some("eql") => {}
        Some(kind) => return Some(format!("of type {kind}; only eql rules run here")),
        None => return Some("without a type; only eql rules run here".to_owned()),
    }
    match rule.language.as_deref() {
        None | Some("eql") => None,
        Some(language) => Some(format!("in the language {language}; only EQL runs here")),
    }
}

type Prepared = (eql::Query, Option<eql::Field>);

/// The rule's query, or why it is skipped.
fn query(
    source: &Source,
    rule: &RawRule,
    fields: Fields,
) -> Result<Result<Prepared, String>, Vec<Fault>> {
    let Some(text) = &rule.query else {
        return Err(vec![missing(source, rule, "query")]);
    };
    let site = source.string(text.span(), text.get_ref());
    let query = match eql::Query::parse(text.get_ref()) {
        Ok(query) => query,
        Err(error) if error.is_unsupported() => return Ok(Err(error.message)),
        Err(error) => {
            // A mistake in what is not for us anyway is not for us to judge.
            if let Some(category) = leading_word(text.get_ref())
                && rule.event_category_override.is_none()
                && !matches!(category, "file" | "any")
            {
                return Ok(Err(other_category(category)));
            }
            return Err(vec![
                site.fault(error.span, error.message).maybe_help(error.help),
            ]);
        }
    };
    let category_field = match &rule.event_category_override {
        None => None,
        Some(name) => Some(eql::Field::new(name.get_ref()).ok_or_else(|| {
            let message = format!("`{}` is not the name of a field", name.get_ref());
            vec![source.fault(name.span(), message)]
        })?),
    };
    if let (Some(category), None) = (query.category(), &category_field)
        && category != "file"
    {
        return Ok(Err(other_category(category)));
    }
    if fields == Fields::Known {
        if let Some(field) = query.fields().find(|field| is_foreign(field)) {
            return Ok(Err(format!(
                "about another data source: it reads {}",
                field.name()
            )));
        }
        let mut faults: Vec<_> = query
            .fields()
            .filter_map(|field| unknown_field(field, |span, text| site.fault(span, text)))
            .collect();
        let mistyped = types::faults(query.expr(), |span, text| site.fault(span, text));
        faults.extend(mistyped);
        if !faults.is_empty() {
            return Err(faults);
        }
    }
    Ok(Ok((query, category_field)))
}

fn other_category(category: &str) -> String {
    format!("about {category} events; only file events are seen here")
}

/// The category of a query that cannot be parsed, if it begins with one.
fn leading_word(mut query: &str) -> Option<&str> {
    loop {
        query = query.trim_start();
        query = if let Some(comment) = query.strip_prefix("//") {
            comment.split_once('\n')?.1
        } else if let Some(comment) = query.strip_prefix("/*") {
            comment.split_once("*/")?.1
        } else {
            break;
        };
    }
    let mut words = query.split_whitespace();
    let category = words.next()?.trim_matches('"');
    (words.next()? == "where").then_some(category)
}

/// Whether a field is of a data source that is none of ours, such as
/// `aws.cloudtrail.…`, rather than one of ours misspelt.
fn is_foreign(field: &eql::Field) -> bool {
    let name = field.name();
    let first = field.parts().next().unwrap_or_default();
    !field.is_optional()
        && !schema::knows(name)
        && !schema::is_parent(first)
        && schema::nearest_field(name).is_none()
}

/// A fault if the schema does not know a field that is not optional.
pub(super) fn unknown_field(
    field: &eql::Field,
    fault: impl Fn(std::ops::Range<usize>, String) -> Fault,
) -> Option<Fault> {
    let name = field.name();
    if field.is_optional() || schema::knows(name) {
        return None;
    }
    let message = match schema::nearest_field(name) {
        Some(near) => format!("unknown field `{name}`; did you mean `{near}`?"),
        None => format!("unknown field `{name}`"),
    };
    let help = format!("write ?{name} for a field that may not exist");
    Some(fault(field.span(), message).help(help))
}

fn gravity(source: &Source, rule: &RawRule) -> Result<(Severity, u8), Vec<Fault>> {
    let Some(word) = &rule.severity else {
        return Err(vec![missing(source, rule, "severity")]);
    };
    let Some(severity) = Severity::from_word(word.get_ref()) else {
        let message = format!("`{}` is not a severity", word.get_ref());
        let fault = source.fault(word.span(), message);
        return Err(vec![
            fault.help("severities are low, medium, high and critical"),
        ]);
    };
    let Some(score) = &rule.risk_score else {
        return Ok((severity, severity.number()));
    };
    match u8::try_from(*score.get_ref()) {
        Ok(score @ 0..=100) => Ok((severity, score)),
        _ => {
            Err(vec![source.fault(
                score.span(),
                "a risk score is a number from 0 to 100",
            )])
        }
    }
}

fn missing(source: &Source, rule: &RawRule, key: &str) -> Fault {
    source.fault(
        rule.rule_id.span(),
        format!("the rule with this rule_id has no {key}"),
    )
}
