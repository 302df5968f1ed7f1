//! Hands finished events to the deciding thread, and says how they left their files.
//!
//! Owns the events that wait for that, and whether others have written since: what is in
//! a file by the time it is read must not be laid to one of several. Must not put
//! events together.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Watching;
use crate::daemon::deciding::Message;
use crate::daemon::keys::{self, Left};
use crate::daemon::turns::Turns;
use crate::event::assemble::Assembled;
use crate::event::flood::Flood;
use crate::event::{Action, FinalPath};
use crate::resolve::Attribution;

/// An event and its number.
type Finished = (u64, Assembled<Attribution>);

/// What waits to be handed on.
#[derive(Default)]
pub(super) struct Handing {
    finished: Turns<Finished>,
    /// Of lists: as long as records were queued when it was looked at, one of another who
    /// has written by then may be among them.
    later: VecDeque<(u64, Finished, Left)>,
    /// The last event of each file.
    newest: HashMap<PathBuf, u64>,
    number: u64,
    /// How often the queue has been read.
    reads: u64,
}

impl Handing {
    /// The queue was read.
    pub(super) fn has_read(&mut self) {
        self.reads += 1;
    }

    /// Whether anything waits.
    pub(super) fn is_empty(&self) -> bool {
        self.finished.is_empty() && self.later.is_empty()
    }

    fn push(&mut self, assembled: Assembled<Attribution>) {
        self.number += 1;
        if leaves_a_file(&assembled) {
            let place = settled(&assembled).to_owned();
            self.newest.insert(place, self.number);
        }
        let home = assembled.home.clone();
        self.finished.push(home, (self.number, assembled));
    }

    /// Whether an event of the same file has been finished after this one.
    fn is_followed(&mut self, number: u64, place: &Path) -> bool {
        let newest = self.newest.get(place).copied();
        if newest == Some(number) {
            self.newest.remove(place);
        }
        newest.is_some_and(|newest| newest > number)
    }
}

/// Where the file of an event is when that is finished.
fn settled(assembled: &Assembled<Attribution>) -> &Path {
    match &assembled.event.final_path {
        Some(FinalPath::Renamed(path)) => path,
        _ => &assembled.event.path,
    }
}

fn leaves_a_file(assembled: &Assembled<Attribution>) -> bool {
    !matches!(
        assembled.event.action,
        Action::Deletion | Action::Open | Action::Flood
    )
}

impl Watching {
    /// Hands finished events on, all or as far as it goes in so much time: who waits in
    /// the kernel's queue must not wait for all that many have left. `more` was read
    /// that has not been worked off.
    pub(super) fn hand_on(&mut self, time: Option<Duration>, more: bool) {
        self.take_finished();
        let begun = Instant::now();
        while time.is_none_or(|time| begun.elapsed() < time)
            && let Some((number, mut assembled)) = self.handing.finished.pop()
        {
            self.resolver.finish(&mut assembled.event.writer);
            if let Some(ticket) = &assembled.ticket {
                ticket.weigh(assembled.event.writer.weight());
            }
            if !leaves_a_file(&assembled) {
                self.send(Message::Event(Box::new(assembled), None));
                continue;
            }
            let place = settled(&assembled);
            let is_list = keys::is_list(place);
            let notices = &mut self.inputs.notices;
            let tree = self.inputs.source.tree_mut();
            tree.settle(place, notices);
            let left = Left {
                version: tree.version(place),
                goes_on: false,
                content: assembled.content,
            };
            // Looked at after the version was: who writes from here on changes that.
            if is_list && (more || time.is_some() && self.inputs.source.has_more()) {
                let reads = self.handing.reads;
                let later = (reads, (number, assembled), left);
                self.handing.later.push_back(later);
            } else {
                self.hand_over(number, assembled, left);
            }
        }
        let floods: Vec<Flood<Attribution>> = self.assembler.floods().collect();
        for flood in floods {
            let first = self.flood_since.get_or_insert(flood.since);
            *first = flood.since.min(*first);
            if flood.over {
                self.flooded = self.flood_since;
            }
            if self.assembler.flooded().0.is_empty() {
                self.flood_since = None;
            }
            self.send(Message::Flood(Box::new(flood)));
        }
    }

    /// Hands on what was kept, of which all records have been worked off by now: `all` at
    /// the end, when nothing more is read.
    pub(super) fn hand_on_kept(&mut self, all: bool) {
        self.take_finished();
        let handing = &mut self.handing;
        let is_due = |(read, ..): &&(u64, Finished, Left)| all || *read < handing.reads;
        let due = handing.later.iter().take_while(is_due).count();
        let due: Vec<_> = handing.later.drain(..due).collect();
        for (_, (number, assembled), left) in due {
            self.hand_over(number, assembled, left);
        }
    }

    fn take_finished(&mut self) {
        for assembled in self.assembler.finished() {
            self.handing.push(assembled);
        }
    }

    fn hand_over(&mut self, number: u64, assembled: Assembled<Attribution>, mut left: Left) {
        let place = settled(&assembled);
        // Of a file that is there already nobody was held.
        left.goes_on =
            self.assembler.unheld(place).is_some() || self.handing.is_followed(number, place);
        self.send(Message::Event(Box::new(assembled), Some(Box::new(left))));
    }
}
