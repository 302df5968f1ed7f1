//! What was not seen when it happened, but found by a comparison.

use std::time::SystemTime;

use super::{Document, value};

/// Why it was not seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unseen {
    /// The daemon did not run.
    NotRunning,
    /// Records of the kernel were lost, or came faster than they were taken.
    Lost,
    /// Nobody was held, and records may have been lost with the hold.
    Released,
    /// It lay on a file system that was not mounted there.
    Unmounted,
    /// It lies on a file system of a server, which is looked at now and then.
    Polled,
    /// It was seen, and the log took no alert of it.
    Unlogged,
    /// The clock was set, so that times before and after cannot be compared.
    ClockSet,
    /// So much happened that it was counted, and not looked at.
    Flood,
    /// The kernel tells of no stores through a mapping.
    Mapped,
    /// Nothing was heard of it: a comparison found it, made for another reason.
    Unheard,
}

impl Unseen {
    fn words(self) -> &'static str {
        match self {
            Self::NotRunning => "while ssh-keywatch was not running",
            Self::Lost => "while records of the kernel were lost",
            Self::Released => "while ssh-keywatch did not work as it should",
            Self::Unmounted => "while what lies here now was not mounted here",
            Self::Polled => "on a file system that is only looked at now and then",
            Self::Unlogged => "while the alert log could not be written",
            Self::ClockSet => "about the time when the clock was set",
            Self::Flood => "in a flood",
            Self::Mapped => "through a mapping of the file, of which the kernel does not tell",
            Self::Unheard => {
                "unheard, and was found as directories had moved or the configuration was read again"
            }
        }
    }
}

/// The time in which something happened that nobody saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Why.
    pub unseen: Unseen,
    /// When the daemon last looked, if that is known.
    pub since: Option<SystemTime>,
    /// When it looked again.
    pub until: SystemTime,
}

/// Says in an event's document that nobody saw it, when it was, and what the
/// file itself tells of that.
pub fn set_gap(document: &mut Document, gap: &Gap) {
    let until = value::time(gap.until);
    let since = gap.since.map(value::time);
    let mut reason = match &since {
        Some(since) => format!(
            "it happened {}, between {since} and {until}; who did it is not known",
            gap.unseen.words()
        ),
        None => format!(
            "it happened {}, before {until}; who did it is not known",
            gap.unseen.words()
        ),
    };
    if let Some(changed) = document.str("file.ctime") {
        reason.push_str("; its inode last changed at ");
        reason.push_str(changed);
    }
    if let Some(owner) = document.str("file.owner").or(document.str("file.uid")) {
        reason.push_str(", its owner is ");
        reason.push_str(&crate::text::printable(owner));
    }
    document.set("event.reason", reason);
    document.set("event.start", since);
    document.set("event.end", until);
}

/// In the sentence of the alert.
pub(super) fn words(document: &Document) -> &'static str {
    match document.str("ssh_keywatch.evidence") {
        Some("baseline") => ", while ssh-keywatch was not watching",
        _ => "",
    }
}

/// A time as documents write it; texts of them are in the order of time.
#[must_use]
pub fn timestamp(time: SystemTime) -> String {
    value::time(time)
}

/// A path as documents write it.
#[must_use]
pub fn path_text(path: &std::path::Path) -> String {
    value::exact(path.as_os_str())
}
