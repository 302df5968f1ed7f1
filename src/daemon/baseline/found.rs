//! What the baseline is told of an event: the file as it was found.

use std::fs::Metadata;
use std::path::Path;

use super::ledger::{Told, Update};
use super::look;
use crate::alert::Document;
use crate::baseline::{Made, Record, Stat};
use crate::event::{Action, Event, FinalPath};
use crate::key::Inspection;
use crate::resolve::Attribution;
use crate::sink::Receipt;
use crate::sys::ObjectId;

/// What the deciding thread found of an event's file.
pub(in crate::daemon) struct Found {
    /// What lstat(2) said.
    pub(in crate::daemon) metadata: Option<Metadata>,
    /// Its identity.
    pub(in crate::daemon) object: Option<ObjectId>,
    /// What is in it.
    pub(in crate::daemon) inspection: Option<Inspection>,
    /// It lies on a file system whose server may not answer.
    pub(in crate::daemon) is_apart: bool,
}

/// What an event says of a file; `None` if that is nothing. The receipts are
/// those of its alerts.
pub(in crate::daemon) fn update(
    event: &Event<Attribution>,
    found: &Found,
    made: Made,
    receipts: Vec<Receipt>,
) -> Option<Update> {
    let path = match &event.final_path {
        Some(FinalPath::Renamed(path)) => path,
        _ => &event.path,
    };
    // Another file may have taken the name meanwhile, whose event is to come.
    let is_free = |path: &Path| found.is_apart || path.symlink_metadata().is_err();
    let from = [event.original_path.as_deref(), Some(event.path.as_path())];
    let from = from.into_iter().flatten().find(|from| *from != path);
    let record = match (event.action, &found.metadata, &event.facts) {
        (Action::Deletion, ..) => {
            if !is_free(path) {
                return None;
            }
            None
        }
        (_, Some(metadata), Some(facts)) if !metadata.is_dir() => {
            let mut record = look::record(Stat::from(metadata), found.object.as_ref());
            if let Some(target) = &facts.target {
                record.content = look::link(target.as_os_str());
            }
            if let Some(inspection) = &found.inspection {
                look::fill(&mut record, inspection);
            }
            record.made = Some(made);
            Some(record)
        }
        // It was gone again, or replaced: that has an event of its own.
        _ => return None,
    };
    Some(Update {
        path: path.clone(),
        from: from.filter(|from| is_free(from)).map(Path::to_owned),
        record,
        is_change: event.action == Action::Modification,
        born: found
            .metadata
            .as_ref()
            .and_then(|metadata| metadata.created().ok()),
        receipts,
    })
}

/// The same of a file that was compared, and cannot be looked at again.
pub(in crate::daemon) fn told(
    event: &Event<Attribution>,
    record: Record,
    made: Made,
    receipts: Vec<Receipt>,
) -> Update {
    Update {
        path: event.path.clone(),
        from: None,
        record: Some(Record {
            made: Some(made),
            ..record
        }),
        is_change: event.action == Action::Modification,
        born: None,
        receipts,
    }
}

/// Who made a file, as its event's document or an alert about it says.
pub(in crate::daemon) fn made(document: &Document) -> Made {
    let text = |name: &str| document.str(name).map(str::to_owned);
    let certain = document.get("ssh_keywatch.attribution.certain");
    Made {
        time: text("@timestamp").unwrap_or_default(),
        executable: text("process.executable"),
        pid: document.number("process.pid"),
        user: text("user.name").or_else(|| text("user.id")),
        method: text("ssh_keywatch.attribution.method"),
        certain: certain == Some(&serde_json::Value::Bool(true)),
        alert: text("event.id"),
    }
}

impl Told {
    /// Puts into an event's document what the log says of it, so that rules judge
    /// it as they did.
    pub(in crate::daemon) fn recall(&self, document: &mut Document) {
        let Made {
            executable,
            pid,
            user,
            method,
            certain,
            ..
        } = &self.made;
        document.set("ssh_keywatch.evidence", self.evidence.as_str());
        let name = executable
            .as_deref()
            .and_then(|path| path.rsplit('/').next());
        document.set("process.name", name);
        document.set("process.executable", executable.clone());
        document.set("process.pid", *pid);
        document.set("user.name", user.clone());
        document.set("ssh_keywatch.attribution.method", method.clone());
        document.set("ssh_keywatch.attribution.certain", *certain);
        document.set(
            "event.reason",
            "ssh-keywatch ended between the alerts about it; this one is made of another",
        );
    }

    /// Whether the alert with this `event.id` stands in the log.
    pub(in crate::daemon) fn has(&self, id: &str) -> bool {
        self.ids.iter().any(|known| known == id)
    }

    /// Who made the file.
    pub(in crate::daemon) fn made(&self) -> &Made {
        &self.made
    }
}
