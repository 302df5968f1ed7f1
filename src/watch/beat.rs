//! A thread's sign of life, for whoever must know whether it still gets on.
//!
//! Owns a counter. The thread ticks at each step of its work, however short;
//! who looks on compares two readings. Never blocks, and says nothing of what
//! the thread does.

use std::sync::atomic::{AtomicU64, Ordering};

/// One thread's counter.
#[derive(Debug, Default)]
pub struct Beat(AtomicU64);

impl Beat {
    /// The thread got on by a step.
    pub fn tick(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How many steps it has made.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
