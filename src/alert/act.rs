//! What belongs together: alerts of one act, and of one session.
//!
//! An act is all that one process does, by its `process.entity_id`: the two
//! files of one ssh-keygen, the six of `ssh-keygen -A`. A session's acts share
//! `ssh_keywatch.session.entity_id`. Both ids are derived, so that they are the same
//! after a restart. A later alert names the earlier ones by `event.id`.
//!
//! Owns how many alerts are remembered.

use std::collections::{HashMap, VecDeque};

use super::{Document, Origin, value};

/// How many acts and sessions are remembered.
const MAX_GROUPS: usize = 1024;
/// How many alerts of one are named.
const MAX_NAMED: usize = 32;

const ACT: &str = "ssh_keywatch.act";
const SESSION: &str = "ssh_keywatch.session";

/// Remembers the alerts of acts and of sessions.
#[derive(Debug, Default)]
pub struct Acts {
    groups: HashMap<String, VecDeque<String>>,
    /// From the one that was added to longest ago.
    order: VecDeque<String>,
}

/// The id of the act that an event belongs to, if its writer is known.
pub(super) fn set_act(document: &mut Document, origin: &Origin) {
    let id = document
        .str("process.entity_id")
        .map(|process| value::digest([origin.boot_id.as_str(), "act", process]));
    document.set(&format!("{ACT}.id"), id);
}

impl Acts {
    /// Names in `alert` the earlier ones of its act and of its session, and
    /// remembers it.
    pub fn join(&mut self, alert: &mut Document) {
        let Some(event) = alert.str("event.id").map(str::to_owned) else {
            return;
        };
        let act = self.earlier(alert.str("ssh_keywatch.act.id"), &event);
        let mut session = self.earlier(alert.str("ssh_keywatch.session.entity_id"), &event);
        // Those of the act are named there.
        session.retain(|event| !act.contains(event));
        alert.set(&format!("{ACT}.events"), act);
        alert.set(&format!("{SESSION}.events"), session);
    }

    fn earlier(&mut self, id: Option<&str>, event: &str) -> Vec<String> {
        let Some(id) = id else {
            return Vec::new();
        };
        if let Some(at) = self.order.iter().position(|known| known == id) {
            self.order.remove(at);
        } else if self.order.len() >= MAX_GROUPS
            && let Some(oldest) = self.order.pop_front()
        {
            self.groups.remove(&oldest);
        }
        self.order.push_back(id.to_owned());
        let group = self.groups.entry(id.to_owned()).or_default();
        let earlier: Vec<String> = group
            .iter()
            .filter(|known| *known != event)
            .cloned()
            .collect();
        if earlier.len() == group.len() {
            if group.len() >= MAX_NAMED {
                group.pop_front();
            }
            group.push_back(event.to_owned());
        }
        earlier
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(act: &str, session: &str, event: &str) -> Document {
        let mut alert = Document::new();
        alert.set("event.id", event);
        alert.set("ssh_keywatch.act.id", act);
        alert.set("ssh_keywatch.session.entity_id", session);
        alert
    }

    fn joined(acts: &mut Acts, act: &str, session: &str, event: &str) -> [Vec<String>; 2] {
        let mut alert = alert(act, session, event);
        acts.join(&mut alert);
        [ACT, SESSION].map(|below| {
            let events = alert.get(&format!("{below}.events"));
            let events = events.and_then(|events| events.as_array().cloned());
            let events = events.unwrap_or_default();
            events
                .iter()
                .map(|id| id.as_str().unwrap().to_owned())
                .collect()
        })
    }

    #[test]
    fn a_later_alert_names_the_earlier_ones() {
        let mut acts = Acts::default();
        let none: [Vec<String>; 2] = [vec![], vec![]];
        assert_eq!(joined(&mut acts, "a", "s", "1"), none);
        assert_eq!(
            joined(&mut acts, "a", "s", "2"),
            [vec!["1".to_owned()], vec![]]
        );
        assert_eq!(
            joined(&mut acts, "b", "s", "3"),
            [vec![], vec!["1".into(), "2".to_owned()]]
        );
        assert_eq!(joined(&mut acts, "c", "t", "4"), none);
        // Two rules on one event have two ids; the same alert twice has one.
        assert_eq!(joined(&mut acts, "b", "s", "3")[0], Vec::<String>::new());
        let mut unknown = Document::new();
        unknown.set("event.id", "5");
        let before = unknown.clone();
        acts.join(&mut unknown);
        assert_eq!(unknown, before);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut acts = Acts::default();
        for number in 0..5000 {
            joined(&mut acts, "busy", "s", &format!("e{number}"));
            joined(&mut acts, &format!("a{number}"), &format!("s{number}"), "e");
        }
        assert!(acts.groups.len() <= MAX_GROUPS);
        assert_eq!(acts.groups.len(), acts.order.len());
        let [named, _] = joined(&mut acts, "busy", "s", "last");
        assert_eq!(named.len(), MAX_NAMED);
        assert_eq!(named.last().unwrap(), "e4999");
    }
}
