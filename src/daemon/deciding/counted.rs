//! What was counted instead of told, until the count stands in the log.
//!
//! Owns a promise for each window in which a rule's limit suppressed something: that of
//! the line that will say how much. Its receipt goes with what is stored of the files,
//! so that they are found, and told, again if that line is never written. As many as
//! the suppressor has windows, which are bounded.

use std::collections::HashMap;

use crate::sink::{Promise, Receipt};

/// The promises, by the window's number.
#[derive(Default)]
pub(super) struct Counted(HashMap<u64, Promise>);

impl Counted {
    /// Of something that was suppressed of a rule in this window.
    pub(super) fn receipt(&mut self, window: u64, rule: &str) -> Receipt {
        tracing::debug!(rule, "suppressed");
        self.0.entry(window).or_default().receipt()
    }

    /// Has the line written that tells of this window.
    pub(super) fn tell(&mut self, window: u64, send: impl FnOnce(&Receipt)) {
        self.0.remove(&window).unwrap_or_default().keep(send);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::Fate;

    #[test]
    fn what_was_suppressed_is_known_when_its_count_is_written() {
        let mut counted = Counted::default();
        let [first, second, other] = [7, 7, 9].map(|window| counted.receipt(window, "a rule"));
        assert_eq!(first.fate(), Fate::Waiting);
        let mut line = None;
        counted.tell(7, |receipt| line = Some(receipt.slip()));
        assert_eq!(second.fate(), Fate::Waiting, "it is on its way");
        line.unwrap().keep();
        let fates = [first, second, other].map(|receipt| receipt.fate());
        assert_eq!(fates, [Fate::Kept, Fate::Kept, Fate::Waiting]);

        let late = counted.receipt(7, "a rule");
        counted.tell(7, |receipt| drop(receipt.slip()));
        assert_eq!(late.fate(), Fate::Lost, "the log had no room for it");
    }

    #[test]
    fn what_was_not_said_before_the_end_is_lost() {
        let mut counted = Counted::default();
        let receipt = counted.receipt(1, "a rule");
        drop(counted);
        assert_eq!(receipt.fate(), Fate::Lost);
    }
}
