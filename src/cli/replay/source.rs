//! What recorded documents look like, and how they become ECS.
//!
//! Owns the shapes in which exports wrap documents (search hits, responses,
//! bulk actions), the recognition of data sources, and the mapping of
//! `SentinelOne`'s raw lines. Must not decide anything. Cannot fail: what it does
//! not know is an ECS document as it stands.

use clap::ValueEnum;
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::alert::{self, Document};
use crate::eql::{Scan, Wanted};

/// Where documents come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Source {
    /// ECS documents of any other source, taken as they are
    Ecs,
    /// Elastic Defend (logs-endpoint.events.file-*)
    Defend,
    /// Elastic Endgame (endgame-*)
    Endgame,
    /// `SentinelOne` through Elastic's integration (logs-sentinel_one_cloud_funnel.*)
    SentinelOne,
    /// `SentinelOne` Cloud Funnel lines as they are exported, mapped to ECS
    SentinelOneRaw,
    /// The alert log of ssh-keywatch
    SshKeywatch,
}

impl Source {
    /// Its name in a summary.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ecs => "other ECS",
            Self::Defend => "Elastic Defend",
            Self::Endgame => "Elastic Endgame",
            Self::SentinelOne => "SentinelOne",
            Self::SentinelOneRaw => "SentinelOne raw",
            Self::SshKeywatch => "ssh-keywatch",
        }
    }

    fn of_module(module: &str) -> Option<Self> {
        // A data set is named after its module.
        match module.split('.').next()? {
            "endpoint" => Some(Self::Defend),
            "endgame" => Some(Self::Endgame),
            NATIVE => Some(Self::SentinelOne),
            alert::MODULE => Some(Self::SshKeywatch),
            _ => None,
        }
    }
}

/// Below this name the integration keeps `SentinelOne`'s own fields.
const NATIVE: &str = "sentinel_one_cloud_funnel";
/// Fields that only `SentinelOne`'s raw lines have; one is enough.
const RAW: [&str; 3] = ["meta.event.name", "src.process.image.path", "tgt.file.path"];
/// The actions of a bulk request.
const ACTIONS: [&str; 4] = ["index", "create", "update", "delete"];

/// The fields by which a source is recognised, as numbers in a [`Wanted`].
pub struct Signs {
    module: u32,
    dataset: u32,
    native: u32,
    os: u32,
    kind: u32,
}

impl Signs {
    pub fn new(wanted: &mut Wanted) -> Self {
        wanted.unwrap_key("_source");
        for key in RAW.iter().chain(&ACTIONS).chain(&["hits", "fields", "doc"]) {
            wanted.mark_key(key);
        }
        Self {
            module: wanted.add("event.module"),
            dataset: wanted.add("data_stream.dataset"),
            native: wanted.add("sentinel_one_cloud_funnel.event.type"),
            os: wanted.add("host.os.type"),
            kind: wanted.add("event.kind"),
        }
    }

    /// The source of a document, or `None` if it must be read whole: because
    /// it may wrap others, or because rules can only be asked about it once it
    /// is mapped.
    pub fn plain(&self, scan: &Scan<'_>, forced: Option<Source>) -> Option<Source> {
        if scan.is_marked() {
            return None;
        }
        let source = forced
            .or_else(|| scan.text(self.module).and_then(Source::of_module))
            .or_else(|| scan.text(self.dataset).and_then(Source::of_module))
            .or_else(|| scan.has(self.native).then_some(Source::SentinelOne))
            .unwrap_or(Source::Ecs);
        match source {
            Source::SentinelOneRaw => None,
            Source::SentinelOne if !scan.has(self.os) => None,
            Source::SshKeywatch if !scan.text(self.kind).is_some_and(is_event) => None,
            source => Some(source),
        }
    }
}

/// Whether a line of our own log with this `event.kind` records an event.
fn is_event(kind: &str) -> bool {
    matches!(kind, "alert" | "event")
}

/// The documents in one record: one, or none where it is a bulk action, or
/// those of a search response.
pub fn documents(record: Value) -> Vec<Map<String, Value>> {
    let Value::Object(mut record) = record else {
        return Vec::new();
    };
    if let Some(Value::Object(inner)) = record.get_mut("hits")
        && let Some(Value::Array(hits)) = inner.get_mut("hits")
    {
        let hits = std::mem::take(hits).into_iter();
        return hits.filter_map(hit).collect();
    }
    hit(Value::Object(record)).into_iter().collect()
}

fn hit(record: Value) -> Option<Map<String, Value>> {
    let Value::Object(mut record) = record else {
        return None;
    };
    if is_action(&record) {
        return None;
    }
    if let Some(Value::Object(_)) = record.get("_source") {
        return object(record.remove("_source"));
    }
    let of_search = record.contains_key("_id") || record.contains_key("_index");
    if of_search && let Some(Value::Object(_)) = record.get("fields") {
        return object(record.remove("fields"));
    }
    // The second line of a bulk update.
    if let (Some(Value::Object(_)), true) = (record.get("doc"), record.len() <= 2) {
        return object(record.remove("doc"));
    }
    Some(record)
}

fn object(value: Option<Value>) -> Option<Map<String, Value>> {
    match value {
        Some(Value::Object(object)) => Some(object),
        _ => None,
    }
}

/// A bulk request's line that says what to do with the next one.
fn is_action(record: &Map<String, Value>) -> bool {
    let mut keys = record.iter();
    match (keys.next(), keys.next()) {
        (Some((key, Value::Object(about))), None) => {
            let meta = [
                "routing",
                "version",
                "version_type",
                "retry_on_conflict",
                "dynamic_templates",
                "require_alias",
                "pipeline",
                "if_seq_no",
                "if_primary_term",
            ];
            ACTIONS.contains(&key.as_str())
                && about
                    .keys()
                    .all(|key| key.starts_with('_') || meta.contains(&key.as_str()))
        }
        _ => false,
    }
}

/// The source of a document that was read whole.
pub fn recognise(document: &Map<String, Value>) -> Source {
    if RAW.iter().any(|key| document.contains_key(*key)) {
        return Source::SentinelOneRaw;
    }
    ["event.module", "data_stream.dataset"]
        .iter()
        .find_map(|name| Source::of_module(text(document, name)?))
        .or_else(|| found(document, NATIVE).map(|_| Source::SentinelOne))
        .unwrap_or(Source::Ecs)
}

/// The event that a document records, in nested ECS; `None` where it records
/// none but tells of the recorder itself.
pub fn event(document: Map<String, Value>, source: Source) -> Option<Document> {
    if source == Source::SentinelOneRaw {
        return Some(mapped(&document));
    }
    let mut event = if height(&document) <= MAX_HEIGHT {
        let mut event = Document::new();
        nest(&mut event, "", document);
        event
    } else {
        document.into()
    };
    match source {
        Source::SentinelOne if event.get("host.os.type").is_none() => {
            let os = [
                "host.os.platform",
                "sentinel_one_cloud_funnel.event.endpoint.os",
            ]
            .iter()
            .find_map(|name| event.str(name))
            .map(str::to_ascii_lowercase);
            event.set("host.os.type", os);
        }
        Source::SshKeywatch => {
            // A state, or what was lost.
            if !event.str("event.kind").is_some_and(is_event) {
                return None;
            }
            return Some(unalerted(event));
        }
        _ => {}
    }
    Some(event)
}

/// Takes off what an earlier rule said of the event.
fn unalerted(event: Document) -> Document {
    let mut event = event.into_map();
    for key in ["message", "rule", "tags", "threat"] {
        event.remove(key);
    }
    if let Some(Value::Object(inner)) = event.get_mut("event") {
        for key in ["code", "id", "risk_score", "severity"] {
            inner.remove(key);
        }
        inner.insert("kind".to_owned(), "event".into());
    }
    if let Some(Value::Object(ours)) = event.get_mut("ssh_keywatch") {
        for key in ["replay", "rule"] {
            ours.remove(key);
        }
    }
    event.into()
}

/// A document that would be higher when its dotted names are objects is left as
/// it is: a name may have any number of dots, a reader of JSON not go so deep.
const MAX_HEIGHT: usize = 100;

/// How deeply objects would be nested if dotted names were objects.
fn height(object: &Map<String, Value>) -> usize {
    let heights = object
        .iter()
        .map(|(key, value)| key.split('.').count() + height_of(value));
    heights.max().unwrap_or(0)
}

fn height_of(value: &Value) -> usize {
    match value {
        Value::Object(object) => height(object),
        Value::Array(list) => 1 + list.iter().map(height_of).max().unwrap_or(0),
        _ => 0,
    }
}

/// Objects for dotted names, as alerts have them.
fn nest(into: &mut Document, below: &str, object: Map<String, Value>) {
    for (key, value) in object {
        let name = if below.is_empty() {
            key
        } else {
            format!("{below}.{key}")
        };
        match value {
            Value::Object(inner) => nest(into, &name, inner),
            value => into.set(&name, value),
        }
    }
}

/// A field, whether its name is one key or a path of them.
fn found<'a>(document: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    document.get(name).or_else(|| {
        let mut parts = name.split('.');
        let first = document.get(parts.next()?)?;
        parts.try_fold(first, |value, part| value.get(part))
    })
}

fn text<'a>(document: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    let value = found(document, name)?;
    let one = match value {
        Value::Array(list) => list.first()?,
        value => value,
    };
    one.as_str().filter(|text| !text.is_empty())
}

fn number(document: &Map<String, Value>, name: &str) -> Option<i64> {
    let value = found(document, name)?;
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

fn time(document: &Map<String, Value>, name: &str) -> Option<String> {
    let time = Timestamp::from_millisecond(number(document, name)?).ok()?;
    Some(format!("{time:.3}"))
}

/// A raw line of `SentinelOne`'s Cloud Funnel in ECS, in the words of Elastic's
/// integration; the line itself is in `event.original`.
fn mapped(raw: &Map<String, Value>) -> Document {
    let mut event = Document::new();
    let text = |name: &str| text(raw, name);
    event.set("@timestamp", time(raw, "event.time"));
    event.set("event.kind", "event");
    event.set("event.module", NATIVE);
    event.set("event.id", text("event.id"));
    if let Some(category) = text("event.category") {
        event.set("event.category", vec![category.to_ascii_lowercase()]);
    }
    let named = text("event.type").or(text("meta.event.name"));
    let name: String = named.unwrap_or_default().split_whitespace().collect();
    let action = match name.to_ascii_uppercase().as_str() {
        "FILECREATION" => Some(("creation", "creation")),
        "FILEMODIFICATION" => Some(("modification", "change")),
        "FILERENAME" => Some(("rename", "change")),
        "FILEDELETION" => Some(("deletion", "deletion")),
        _ => None,
    };
    if let Some((action, kind)) = action {
        event.set("event.category", vec!["file"]);
        event.set("event.action", vec![action]);
        event.set("event.type", vec![kind]);
    } else if let Some(name) = named {
        event.set("event.action", vec![name.to_ascii_lowercase()]);
    }
    event.set("host.name", text("endpoint.name"));
    event.set(
        "host.os.type",
        text("endpoint.os").map(str::to_ascii_lowercase),
    );

    path(&mut event, "file", text("tgt.file.path"));
    path(&mut event, "file.Ext.original", text("tgt.file.oldPath"));
    event.set("file.size", number(raw, "tgt.file.size"));
    event.set("file.hash.sha256", text("tgt.file.sha256"));

    event.set("process.executable", text("src.process.image.path"));
    event.set("process.name", text("src.process.name"));
    event.set("process.command_line", text("src.process.cmdline"));
    event.set("process.pid", number(raw, "src.process.pid"));
    event.set("process.start", time(raw, "src.process.startTime"));
    event.set("user.name", text("src.process.user"));
    event.set(
        "process.parent.executable",
        text("src.process.parent.image.path"),
    );
    event.set("process.parent.name", text("src.process.parent.name"));
    event.set(
        "process.parent.command_line",
        text("src.process.parent.cmdline"),
    );
    event.set("process.parent.pid", number(raw, "src.process.parent.pid"));
    event.set("event.original", crate::text::json_line(raw));
    event
}

/// A path and its parts, as Elastic Defend names them.
fn path(event: &mut Document, below: &str, path: Option<&str>) {
    let Some(path) = path else { return };
    let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
    event.set(&format!("{below}.path"), path);
    event.set(&format!("{below}.name"), name);
    if !directory.is_empty() {
        event.set(&format!("{below}.directory"), directory);
    }
    if let Some((stem, extension)) = name.rsplit_once('.')
        && !stem.is_empty()
    {
        event.set(&format!("{below}.extension"), extension);
    }
}
