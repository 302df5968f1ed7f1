//! Whether lines stand in the log for good.
//!
//! Owns the count of the lines that a receipt still waits for. A line that is
//! dropped anywhere on its way, or that the disk refused, makes its receipt say
//! so; nothing has to be told for that.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

/// Tells what became of the lines that were sent with it. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Receipt(Arc<State>);

#[derive(Debug, Default)]
struct State {
    waiting: AtomicU32,
    lost: AtomicBool,
}

/// What became of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// One of them is on its way.
    Waiting,
    /// All are on the disk.
    Kept,
    /// One of them is not, and never will be.
    Lost,
}

impl Receipt {
    /// Whether it is a clone of the other.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// What became of the lines so far. To be asked when all have been sent.
    #[must_use]
    pub fn fate(&self) -> Fate {
        if self.0.lost.load(SeqCst) {
            Fate::Lost
        } else if self.0.waiting.load(SeqCst) > 0 {
            Fate::Waiting
        } else {
            Fate::Kept
        }
    }

    /// Goes with one more line.
    pub(crate) fn slip(&self) -> Slip {
        self.0.waiting.fetch_add(1, SeqCst);
        Slip(Some(Arc::clone(&self.0)))
    }
}

/// The receipt of a line that is still to come. Dropped before that it says that the
/// line was lost.
#[derive(Debug)]
pub struct Promise {
    receipt: Receipt,
    slip: Slip,
}

impl Default for Promise {
    fn default() -> Self {
        let receipt = Receipt::default();
        let slip = receipt.slip();
        Self { receipt, slip }
    }
}

impl Promise {
    /// For what waits for the line.
    #[must_use]
    pub fn receipt(&self) -> Receipt {
        self.receipt.clone()
    }

    /// Has the line sent.
    pub fn keep(self, send: impl FnOnce(&Receipt)) {
        send(&self.receipt);
        self.slip.keep();
    }
}

/// Goes with a line; dropped without a word it says that the line was lost.
#[derive(Debug)]
pub(crate) struct Slip(Option<Arc<State>>);

impl Slip {
    /// The line is on the disk.
    pub(crate) fn keep(mut self) {
        if let Some(state) = self.0.take() {
            state.waiting.fetch_sub(1, SeqCst);
        }
    }
}

impl Drop for Slip {
    fn drop(&mut self) {
        if let Some(state) = self.0.take() {
            state.lost.store(true, SeqCst);
            state.waiting.fetch_sub(1, SeqCst);
        }
    }
}
