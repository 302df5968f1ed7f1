//! Bounded queues between threads that take memory only for what is in them.
//!
//! The bound of [`std::sync::mpsc::sync_channel`] is room that is taken at once:
//! megabytes for queues that are nearly always empty. Owns the count of what is in
//! a queue; everything else is [`std::sync::mpsc::channel`].

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{self, RecvTimeoutError, SendError, TryRecvError, TrySendError};
use std::time::Duration;

/// Makes a queue for `most` items.
#[must_use]
pub fn bounded<T>(most: usize) -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = mpsc::channel();
    let held = Arc::<AtomicUsize>::default();
    let sender = Sender {
        inner: sender,
        held: Arc::clone(&held),
        most,
    };
    let inner = receiver;
    (sender, Receiver { inner, held })
}

/// The end that items are put in.
#[derive(Debug)]
pub struct Sender<T> {
    inner: mpsc::Sender<T>,
    held: Arc<AtomicUsize>,
    most: usize,
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            held: Arc::clone(&self.held),
            most: self.most,
        }
    }
}

impl<T> Sender<T> {
    /// Puts an item in if there is room. Never waits.
    ///
    /// # Errors
    /// The queue is full, or nobody will take it; the item comes back.
    pub fn try_send(&self, item: T) -> Result<(), TrySendError<T>> {
        // What is counted here is in the queue a moment later: never too many.
        if self.held.fetch_add(1, Relaxed) >= self.most {
            self.held.fetch_sub(1, Relaxed);
            return Err(TrySendError::Full(item));
        }
        let sent = self.inner.send(item);
        sent.map_err(|SendError(item)| TrySendError::Disconnected(item))
    }

    /// How many items wait in it.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.held.load(Relaxed)
    }

    /// Puts an item in, beyond the bound if need be: for the few that must not get
    /// lost.
    ///
    /// # Errors
    /// Nobody will take it.
    pub fn send(&self, item: T) -> Result<(), SendError<T>> {
        self.held.fetch_add(1, Relaxed);
        self.inner.send(item)
    }
}

/// The end that items come out of, in the order they were put in.
#[derive(Debug)]
pub struct Receiver<T> {
    inner: mpsc::Receiver<T>,
    held: Arc<AtomicUsize>,
}

impl<T> Receiver<T> {
    fn taken<E>(&self, item: Result<T, E>) -> Result<T, E> {
        if item.is_ok() {
            self.held.fetch_sub(1, Relaxed);
        }
        item
    }

    /// How many items wait in it, or will in a moment.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.held.load(Relaxed)
    }

    /// Takes the next item, if there is one.
    ///
    /// # Errors
    /// There is none, or there will be none any more.
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        self.taken(self.inner.try_recv())
    }

    /// Waits for the next item.
    ///
    /// # Errors
    /// There will be none any more.
    pub fn recv(&self) -> Result<T, mpsc::RecvError> {
        self.taken(self.inner.recv())
    }

    /// Waits for the next item at most so long.
    ///
    /// # Errors
    /// None came, or there will be none any more.
    pub fn recv_timeout(&self, patience: Duration) -> Result<T, RecvTimeoutError> {
        self.taken(self.inner.recv_timeout(patience))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_takes_no_more_until_something_is_taken() {
        let (sender, receiver) = bounded(2);
        sender.try_send(1).unwrap();
        sender.clone().try_send(2).unwrap();
        assert_eq!(sender.try_send(3), Err(TrySendError::Full(3)));
        sender.send(4).unwrap();
        assert_eq!(receiver.recv(), Ok(1));
        assert_eq!(sender.try_send(5), Err(TrySendError::Full(5)));
        assert_eq!(receiver.try_recv(), Ok(2));
        sender.try_send(6).unwrap();
        assert_eq!(receiver.recv_timeout(Duration::ZERO), Ok(4));
        assert_eq!(receiver.try_recv(), Ok(6));
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
        drop(receiver);
        assert_eq!(sender.try_send(7), Err(TrySendError::Disconnected(7)));
        assert!(sender.send(8).is_err());
    }

    /// Many senders at once never put more in than there is room for.
    #[test]
    fn nobody_gets_past_the_bound() {
        const MOST: usize = 100;
        let (sender, receiver) = bounded(MOST);
        let put: usize = std::thread::scope(|scope| {
            let put = |number| {
                let sender = sender.clone();
                scope.spawn(move || {
                    (0..MOST)
                        .filter(|item| sender.try_send((number, *item)).is_ok())
                        .count()
                })
            };
            let threads: Vec<_> = (0..8).map(put).collect();
            threads.into_iter().map(|it| it.join().unwrap()).sum()
        });
        assert!(put <= MOST);
        let taken = std::iter::from_fn(|| receiver.try_recv().ok()).count();
        assert_eq!(taken, put);
        sender.try_send((9, 9)).unwrap();
    }
}
