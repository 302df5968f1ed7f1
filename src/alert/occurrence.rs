//! The document of an event, before any rule has been asked.

use std::path::Path;

use serde_json::Value;

use super::act::set_act;
use super::process::{attribution, process};
use super::{DATASET, Document, ECS_VERSION, Host, MODULE, Origin, value};
use crate::event::{Event, FileFacts, FinalPath};
use crate::resolve::Attribution;

/// Everything that is known of an event, in ECS: what rules may ask, and what
/// an alert about it says.
#[must_use]
pub fn event_document(event: &Event<Attribution>, origin: &Origin) -> Document {
    let mut document = Document::new();
    let time = value::time(event.time);
    document.set("@timestamp", time.as_str());
    document.set("event.kind", "event");
    document.set("event.category", vec!["file"]);
    document.set("event.type", vec![event.action.event_type()]);
    document.set("event.action", event.action.as_str());
    // Only what was done is noticed, never what was refused.
    document.set("event.outcome", "success");
    document.set("event.module", MODULE);
    document.set("event.dataset", DATASET);
    document.set("event.created", time);
    // What a comparison found has no place among the records.
    document.set(
        "event.sequence",
        Some(event.sequence).filter(|sequence| *sequence > 0),
    );

    file(&mut document, event);
    process(&mut document, &event.writer, origin);
    host(&mut document, &origin.host, origin);
    related(&mut document, origin);

    mode(&mut document, origin);
    document.set("ssh_keywatch.evidence", event.evidence.as_str());
    attribution(&mut document, &event.writer, origin);
    set_act(&mut document, origin);
    // What every reader of ECS knows comes first.
    document.move_last("ssh_keywatch");
    document
}

/// How it is watched, and what of that does not work.
pub(super) fn mode(document: &mut Document, origin: &Origin) {
    if origin.degraded.is_empty() {
        document.set("ssh_keywatch.mode", origin.mode.as_str());
    } else {
        document.set("ssh_keywatch.mode", format!("{}+degraded", origin.mode));
        document.set("ssh_keywatch.degraded", origin.degraded.clone());
    }
}

/// The fields that every document has: who speaks, in which words.
pub(super) fn host(document: &mut Document, host: &Host, origin: &Origin) {
    let known = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    document.set("host.id", known(&host.id));
    document.set("host.name", known(&host.name));
    document.set("host.hostname", known(&host.hostname));
    document.set("host.architecture", host.architecture.clone());
    document.set("host.boot.id", known(&origin.boot_id));
    document.set("host.os.type", "linux");
    document.set("host.os.kernel", host.os_kernel.clone());
    document.set("host.os.name", host.os_name.clone());
    document.set("host.os.version", host.os_version.clone());
    document.set("host.os.platform", host.os_platform.clone());
    document.set("agent.type", "ssh-keywatch");
    document.set("agent.version", origin.version.as_str());
    document.set("ecs.version", ECS_VERSION);
}

fn file(document: &mut Document, event: &Event<Attribution>) {
    names(document, "file", &event.path);
    document.set(
        "file.directory",
        event
            .path
            .parent()
            .map(|parent| value::exact(parent.as_os_str())),
    );
    document.set("ssh_keywatch.path_raw", value::raw(&event.path));
    if let Some(original) = &event.original_path {
        names(document, "file.Ext.original", original);
        document.set("ssh_keywatch.original_path_raw", value::raw(original));
    }
    if let Some(facts) = &event.facts {
        file_facts(document, facts);
    }
    if !event.object_id.is_empty() {
        document.set("ssh_keywatch.file.object_id", event.object_id.as_str());
    }
    let (path, state) = match &event.final_path {
        Some(FinalPath::Renamed(path)) => (path, "renamed"),
        Some(FinalPath::Expected(path)) => (path, "expected"),
        None => return,
    };
    document.set(
        "ssh_keywatch.file.final.path",
        value::exact(path.as_os_str()),
    );
    document.set("ssh_keywatch.file.final.state", state);
}

/// A path, its last component, and what follows that one's last dot.
fn names(document: &mut Document, below: &str, path: &Path) {
    document.set(&format!("{below}.path"), value::exact(path.as_os_str()));
    document.set(&format!("{below}.name"), path.file_name().map(value::exact));
    document.set(
        &format!("{below}.extension"),
        path.extension().map(value::exact),
    );
}

fn file_facts(document: &mut Document, facts: &FileFacts) {
    document.set("file.type", facts.kind.as_str());
    document.set("file.size", facts.size);
    document.set("file.mode", value::mode(facts.mode));
    document.set("file.uid", facts.uid.to_string());
    document.set("file.gid", facts.gid.to_string());
    document.set("file.owner", facts.owner.clone());
    document.set("file.group", facts.group.clone());
    document.set("file.inode", facts.inode.to_string());
    document.set("file.accessed", value::time(facts.accessed));
    document.set("file.mtime", value::time(facts.modified));
    document.set("file.ctime", value::time(facts.changed));
    document.set("file.created", facts.created.map(value::time));
    document.set(
        "file.target_path",
        facts
            .target
            .as_ref()
            .map(|target| value::exact(target.as_os_str())),
    );
    document.set("ssh_keywatch.file.device", facts.device.to_string());
    document.set("ssh_keywatch.file.links", facts.links);
    if let Some(mount) = &facts.mount {
        let mut set = |name: &str, value: Value| {
            document.set(&format!("ssh_keywatch.file.mount.{name}"), value);
        };
        set("point", value::exact(mount.point.as_os_str()).into());
        set("type", value::exact(&mount.kind).into());
        set("source", value::exact(&mount.source).into());
        set("read_only", mount.read_only.into());
    }
}

/// What an analyst pivots on.
fn related(document: &mut Document, origin: &Origin) {
    let users: Vec<_> = ["user.name", "process.real_user.name", "file.owner"]
        .iter()
        .filter_map(|field| document.str(field).map(str::to_owned))
        .collect();
    document.add("related.user", users);
    let hosts = [&origin.host.name, &origin.host.hostname];
    document.add(
        "related.hosts",
        hosts.into_iter().filter(|name| !name.is_empty()),
    );
}
