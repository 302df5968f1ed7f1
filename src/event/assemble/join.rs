//! Whether an open that was held made the name that a record tells of.
//!
//! A record and a hold of the same object and process need not be of the same system
//! call: link(2) or mknod(2) may come before the open, linkat(2) after it, and the
//! process may have run another program in between. Must not know how much is kept.

use std::path::Path;

use super::Subject;
use crate::watch::hold::Found;

/// What is known of an open that was held. Times are nanoseconds of `CLOCK_MONOTONIC`.
#[derive(Clone, Debug)]
pub struct Opening {
    /// What the object was like meanwhile.
    pub found: Found,
    /// When the opener had been read.
    pub read: u64,
    /// Since when it ran what it ran then; `None` if that is not known.
    pub since: Option<u64>,
    /// A name of the object was taken away meanwhile: another act can have made it again.
    pub is_gone: bool,
}

/// When a change was made, as far as the process table knows, in the same time.
#[derive(Clone, Copy, Debug)]
pub struct Act {
    /// Not before.
    pub from: u64,
    /// The first act of the process that was read was at that very time.
    pub is_moment: bool,
    /// Since when its process runs what it ran last; `None` if that is not known.
    pub since: Option<u64>,
}

/// A hold of the same object and process as a record.
pub(super) struct Joined<W> {
    pub(super) opening: Opening,
    pub(super) made: Made,
    pub(super) writer: W,
}

impl<W> Joined<W> {
    /// With the record of the name `path`.
    pub(super) fn new(opening: Opening, path: &Path, act: Option<&Act>, writer: W) -> Self {
        Self {
            made: opening.made(path, act),
            opening,
            writer,
        }
    }

    /// The file was made by this open, and there was nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        let found = &self.opening.found;
        matches!(self.made, Made::Held | Made::Likely) && found.links == 1 && found.is_empty
    }
}

/// Who made a name, as far as a hold says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Made {
    /// The program that was held.
    Held,
    /// The program that was held, unless another of its process has made an empty file
    /// (mknod(2)) at a moment that is not known.
    Likely,
    /// Its process, perhaps when it ran another program.
    Perhaps,
    /// Another act than the open: it says nothing of who.
    Elsewhere,
}

impl Opening {
    /// `path` is the name that the record tells of, `act` what is known of it; nothing
    /// without a process table.
    fn made(&self, path: &Path, act: Option<&Act>) -> Made {
        // From the hold until the record was read, or the other way round.
        let has_run_no_other = act.is_some_and(|act| {
            let since = act.since.filter(|since| *since <= self.read);
            since.is_some() && since == self.since
        });
        // Else it may have been opened by its one name, and have got the other later.
        let is_its_name = self.found.path.as_deref() == Some(path);
        let is_later = act.is_some_and(|act| act.from > self.read);
        match self.found.links {
            // Its name came afterwards (`O_TMPFILE`, linkat(2)).
            0 if has_run_no_other => Made::Held,
            0 => Made::Perhaps,
            1 if self.is_gone && !has_run_no_other => Made::Perhaps,
            1 if self.found.is_new && !is_later => match act {
                _ if !is_its_name && !has_run_no_other => Made::Perhaps,
                Some(act) if self.since.is_none_or(|since| since > act.from) => {
                    if act.is_moment {
                        Made::Perhaps
                    } else {
                        Made::Likely
                    }
                }
                _ => Made::Held,
            },
            _ => Made::Elsewhere,
        }
    }
}

/// The hold of who made the name, unless it could not be made sure and the record can.
pub(super) fn surest<W: Subject>(hold: Option<Joined<W>>, attribute: impl FnOnce() -> W) -> W {
    let Some(Joined { made, writer, .. }) = hold.filter(|hold| hold.made != Made::Elsewhere) else {
        return attribute();
    };
    if made == Made::Held && writer.is_certain() {
        return writer;
    }
    match attribute() {
        record if record.is_certain() => writer.confirmed(record),
        record if made == Made::Perhaps => writer.doubted(record),
        _ if made == Made::Likely => writer.unsure(),
        _ => writer,
    }
}
