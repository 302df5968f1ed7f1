//! What the alert log says of the last moments of the run before: what was told
//! and not stored any more must not be told again.
//!
//! Owns the reading of the log's end, over rotation, within bounds.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read, Seek as _, SeekFrom};
use std::path::Path;
use std::time::{Duration, SystemTime};

use flate2::read::MultiGzDecoder;
use serde_json::{Map, Value};

use super::ledger::Told;
use super::made;
use crate::alert::{self, Document};
use crate::baseline::{Content, Made, Record};
use crate::sink::{LAST_NUMBER, rotated};
use crate::sys::open::open_regular;

/// So much of each log's end is read (bytes).
const LIMIT: u64 = 16 << 20;
/// A longer line is passed over.
const LINE: u64 = 1 << 20;
/// So much of all of them (bytes, unpacked).
const LIMIT_OF_ALL: u64 = 64 << 20;
/// How far the store can lag behind the log on a machine that is busy.
pub(super) const MARGIN: Duration = Duration::from_secs(60);

const CREATION: &str = "creation";
const DELETION: &str = "deletion";
/// So many alerts on one path are kept apart.
const IDS: usize = 32;

struct Last {
    object: Option<String>,
    changed: Option<String>,
    sha256: Option<String>,
    action: String,
    evidence: String,
    /// `event.id` of the last alerts on it.
    ids: Vec<String>,
    made: Made,
}

impl Last {
    fn told(&self) -> Told {
        Told {
            is_creation: self.action == CREATION,
            evidence: self.evidence.clone(),
            ids: self.ids.clone(),
            made: self.made.clone(),
        }
    }
}

/// The last alert on each path.
#[derive(Default)]
pub(super) struct Alerted(HashMap<String, Last>);

impl Alerted {
    /// Reads the lines of `log` since a little before `since`. What cannot be
    /// read says nothing: then something is told twice, with the same `event.id`.
    pub(super) fn read(log: &Path, since: SystemTime) -> Self {
        let from = since.checked_sub(MARGIN).unwrap_or(SystemTime::UNIX_EPOCH);
        let from = alert::timestamp(from);
        let mut alerted = Self::default();
        // From the newest on; of two alerts on a path the newer one counts.
        let mut left = LIMIT_OF_ALL;
        for number in 0..=LAST_NUMBER {
            // A rotation on its way, or one cut short, leaves a number free.
            let Some(source) = open(log, number, LIMIT.min(left)) else {
                continue;
            };
            let mut source = source.take(left);
            let mut newer = std::mem::take(&mut alerted.0);
            let reaches_back = alerted.take(&mut source, &from);
            for (path, mut last) in newer.drain() {
                if let Some(older) = alerted.0.remove(&path) {
                    last.ids.extend(older.ids);
                    last.ids.truncate(IDS);
                }
                alerted.0.insert(path, last);
            }
            left = source.limit();
            if reaches_back || left == 0 {
                break;
            }
        }
        alerted
    }

    /// Takes the lines of a log; says whether it begins before `from`.
    fn take(&mut self, source: impl Read, from: &str) -> bool {
        let mut reader = BufReader::new(source);
        let mut line = Vec::new();
        let mut older = false;
        loop {
            line.clear();
            match reader.by_ref().take(LINE).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return older,
                Ok(_) => {}
            }
            // Of the first line of what is read there may be only the end.
            let Ok(document) = serde_json::from_slice::<Map<String, Value>>(&line) else {
                continue;
            };
            let document = Document::from(document);
            // Times of one format and zone are in the order of their texts.
            if document.str("@timestamp").is_some_and(|time| time < from) {
                older = true;
                continue;
            }
            if document.str("event.kind") == Some("alert")
                && document.str("event.action") != Some("open")
            {
                self.add(&document);
            }
        }
    }

    fn add(&mut self, document: &Document) {
        let text = |name: &str| document.str(name).map(str::to_owned);
        let mut last = Last {
            object: text("ssh_keywatch.file.object_id"),
            changed: text("file.ctime"),
            sha256: text("file.hash.sha256"),
            action: text("event.action").unwrap_or_default(),
            evidence: text("ssh_keywatch.evidence").unwrap_or_default(),
            ids: Vec::new(),
            made: made(document),
        };
        let renamed = text("ssh_keywatch.file.final.path");
        if let Some(path) = renamed.or_else(|| text("file.path")) {
            let before = self.0.remove(&path).map(|before| before.ids);
            last.ids = before.unwrap_or_default();
            last.ids.truncate(IDS);
            last.ids.splice(0..0, text("event.id"));
            self.0.insert(path, last);
        }
    }

    /// What was told, if the last alert on `path` tells what is there `now`.
    pub(super) fn find(&self, path: &Path, now: Option<&Record>) -> Option<Told> {
        let last = self.0.get(&alert::path_text(path))?;
        let is_told = match now {
            None => last.action == DELETION,
            Some(now) => {
                let changed = alert::timestamp(now.stat.changed.into());
                let sha256 = match &now.content {
                    Content::Sha256(hash) => Some(hash),
                    Content::Unread | Content::Target(_) => None,
                };
                // A store through a mapping may move no times.
                let is_same = match (&last.sha256, sha256) {
                    (Some(last), Some(now)) => last == now,
                    _ => last.changed.as_ref() == Some(&changed),
                };
                let is_it = now.object.is_none() || last.object == now.object;
                last.action != DELETION && is_it && is_same
            }
        };
        is_told.then(|| last.told())
    }

    /// What was told of the making of what is there `now`, if nothing was told of
    /// it since: it may have been written to.
    pub(super) fn creation(&self, path: &Path, now: &Record) -> Option<Told> {
        let last = self.0.get(&alert::path_text(path))?;
        let is_it = last.object.is_some() && last.object == now.object;
        (is_it && last.action == CREATION).then(|| last.told())
    }
}

/// The last `limit` bytes of the log or of a rotated one; of one that is packed,
/// all.
fn open(log: &Path, number: u32, limit: u64) -> Option<Box<dyn Read>> {
    let plain = match number {
        0 => log.to_owned(),
        number => rotated(log, number, false),
    };
    if let Ok(mut file) = open_regular(&plain) {
        let length = file.metadata().ok()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(limit)))
            .ok()?;
        return Some(Box::new(file));
    }
    let packed = open_regular(&rotated(log, number, true)).ok()?;
    Some(Box::new(MultiGzDecoder::new(packed)))
}

pub(in crate::daemon) fn read_hostile(bytes: &[u8]) {
    let mut alerted = Alerted::default();
    alerted.take(bytes, "2026");
    let lines = bytes.split(|byte| *byte == b'\n').count();
    assert!(alerted.0.len() <= lines);
}
