//! The processor that a key tool runs on is left to it: the records of what it
//! does would wake our threads there, in its way, on hosts whose scheduler
//! takes no other processor for idle (virtual ones; kernel/sched/fair.c,
//! `available_idle_cpu`). The answering thread goes, too: one that it lets go while
//! it has the tool's own processor is put where our other threads are.
//!
//! Owns when our threads keep off which processor. Must not own which threads.
//! Of several tools at a time none is preferred: they have the processors, and we
//! share them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::sys::affinity::keep_off;

/// Which processor is left to whom.
#[derive(Debug, Default)]
pub struct Berth {
    /// How many key tools run.
    tools: AtomicUsize,
    /// The processor that is left to one.
    left: Mutex<Option<u32>>,
    /// That there is one: the answering thread waits for no lock.
    is_left: AtomicBool,
}

impl Berth {
    /// So many key tools run now.
    pub fn count(&self, tools: usize) {
        self.tools.store(tools, Ordering::SeqCst);
    }

    /// A key tool runs on `processor`. Never waits: should another thread be told
    /// of one at this moment, that will do.
    pub fn seen(&self, processor: Option<u32>) {
        let Ok(mut left) = self.left.try_lock() else {
            return;
        };
        let alone = || self.tools.load(Ordering::SeqCst) == 1;
        self.give(&mut left, processor.filter(|_| alone()));
        if !alone() {
            // It has ended meanwhile, or another has begun.
            self.give(&mut left, None);
        }
    }

    /// Whether a processor is left to one.
    #[must_use]
    pub fn is_left(&self) -> bool {
        self.is_left.load(Ordering::SeqCst)
    }

    /// No key tool has run for a while. Never waits.
    pub fn free(&self) {
        if let Ok(mut left) = self.left.try_lock() {
            self.give(&mut left, None);
        }
    }

    fn give(&self, left: &mut Option<u32>, processor: Option<u32>) {
        if *left != processor {
            *left = processor;
            self.is_left.store(processor.is_some(), Ordering::SeqCst);
            // Where it cannot be done, the scheduler decides.
            let _ = keep_off(processor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(berth: &Berth) -> Option<u32> {
        let left = *berth.left.lock().unwrap();
        assert_eq!(left.is_some(), berth.is_left());
        left
    }

    #[test]
    fn a_processor_is_left_to_the_only_tool_and_kept_a_while() {
        let _alone = crate::sys::affinity::MOVING.lock().unwrap();
        // None that there is: nothing is moved here.
        let (one, another) = (Some(1022), Some(1023));
        let berth = Berth::default();
        berth.seen(one);
        assert_eq!(left(&berth), None, "it has ended already");
        berth.count(1);
        berth.seen(one);
        assert_eq!(left(&berth), one);
        berth.seen(another);
        assert_eq!(left(&berth), another);
        berth.count(0);
        assert_eq!(left(&berth), another, "the next may come soon");
        berth.free();
        assert_eq!(left(&berth), None);
        berth.count(1);
        berth.seen(one);
        berth.count(2);
        berth.seen(another);
        assert_eq!(left(&berth), None, "of several none is preferred");
        berth.count(1);
        berth.seen(None);
        assert_eq!(left(&berth), None, "where it runs is not known");
    }
}
