//! A thread's sign of life, for whoever must know whether it still gets on.
//!
//! Owns a counter. The thread ticks at each step of its work, however short;
//! who looks on compares two readings. Never blocks, and says nothing of what
//! the thread does.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// One thread's counter.
#[derive(Debug, Default)]
pub struct Beat {
    count: AtomicU64,
    retired: AtomicBool,
}

impl Beat {
    /// The thread got on by a step.
    pub fn tick(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// The thread has ended as it should, or the daemon does without it.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    /// How many steps it made; `None` when nobody waits for it any more.
    #[must_use]
    pub fn count(&self) -> Option<u64> {
        if self.retired.load(Ordering::Relaxed) {
            return None;
        }
        Some(self.count.load(Ordering::Relaxed))
    }
}
