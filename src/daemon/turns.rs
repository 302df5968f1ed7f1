//! What waits to be decided: each home has its turn.
//!
//! Owns the order among events. Those of one home stay in theirs; a home with
//! many waits for itself, and nobody else does. How many there are is bounded by
//! who lets them in ([`crate::event::flood`]).

use std::collections::{HashMap, VecDeque};

use crate::watch::home::Home;

/// Queues by home.
#[derive(Debug)]
pub(super) struct Turns<T> {
    queues: HashMap<Option<Home>, VecDeque<T>>,
    /// Homes with something in their queue; the first is next.
    order: VecDeque<Option<Home>>,
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self {
            queues: HashMap::new(),
            order: VecDeque::new(),
        }
    }
}

impl<T> Turns<T> {
    /// Puts it behind all of its home.
    pub(super) fn push(&mut self, home: Option<Home>, item: T) {
        let queue = self.queues.entry(home.clone()).or_default();
        if queue.is_empty() {
            self.order.push_back(home);
        }
        queue.push_back(item);
    }

    /// The first of the home whose turn it is.
    pub(super) fn pop(&mut self) -> Option<T> {
        let home = self.order.pop_front()?;
        let queue = self.queues.get_mut(&home)?;
        let item = queue.pop_front();
        if queue.is_empty() {
            self.queues.remove(&home);
        } else {
            self.order.push_back(home);
        }
        item
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_home_waits_for_itself_alone() {
        let home = |name: &str| Some(Home::from(Path::new(name)));
        let mut turns = Turns::default();
        for number in 0..1000 {
            turns.push(home("/home/ann"), number);
        }
        turns.push(home("/home/bob"), 5001);
        turns.push(home("/home/bob"), 5002);
        turns.push(None, 6001);
        let first: Vec<i32> = (0..6).filter_map(|_| turns.pop()).collect();
        assert_eq!(first, [0, 5001, 6001, 1, 5002, 2]);
        let rest: Vec<i32> = std::iter::from_fn(|| turns.pop()).collect();
        assert_eq!(rest, (3..1000).collect::<Vec<_>>());
        assert!(turns.is_empty() && turns.queues.is_empty());
    }
}
