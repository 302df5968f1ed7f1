//! Lines as they come out of a pipe.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Everything that has come so far, and a way to wait for more.
pub struct Follow<T> {
    shared: Arc<(Mutex<State<T>>, Condvar)>,
}

struct State<T> {
    items: Vec<T>,
    closed: bool,
}

impl<T: Send + 'static> Follow<T> {
    /// Reads lines, each made an item by `parse`, until the pipe is closed.
    pub fn new(
        from: impl Read + Send + 'static,
        parse: impl Fn(&str) -> T + Send + 'static,
    ) -> Self {
        let shared = Arc::new((
            Mutex::new(State {
                items: Vec::new(),
                closed: false,
            }),
            Condvar::new(),
        ));
        let follow = Self {
            shared: Arc::clone(&shared),
        };
        std::thread::spawn(move || {
            let mut reader = BufReader::new(from);
            let mut line = Vec::new();
            loop {
                line.clear();
                let open = matches!(reader.read_until(b'\n', &mut line), Ok(1..));
                // Who was killed may have left half a line.
                let item = line.ends_with(b"\n").then(|| {
                    let text = String::from_utf8_lossy(&line);
                    parse(text.trim_end_matches('\n'))
                });
                let (state, changed) = &*shared;
                let mut state = state.lock().unwrap();
                state.items.extend(item);
                state.closed = !open;
                changed.notify_all();
                if !open {
                    return;
                }
            }
        });
        follow
    }

    /// Waits until `find` finds something in all that has come; `None` when
    /// time is over or nothing more can come.
    pub fn wait<R>(&self, bound: Duration, mut find: impl FnMut(&[T]) -> Option<R>) -> Option<R> {
        let until = Instant::now() + bound;
        let (state, changed) = &*self.shared;
        let mut state = state.lock().unwrap();
        loop {
            if let Some(found) = find(&state.items) {
                return Some(found);
            }
            let left = until.saturating_duration_since(Instant::now());
            if state.closed || left.is_zero() {
                return None;
            }
            state = changed.wait_timeout(state, left).unwrap().0;
        }
    }

    /// Waits until the pipe is closed, and gives all that came.
    #[track_caller]
    pub fn all(&self, bound: Duration) -> Vec<T>
    where
        T: Clone,
    {
        let (state, changed) = &*self.shared;
        let (state, timeout) = changed
            .wait_timeout_while(state.lock().unwrap(), bound, |state| !state.closed)
            .unwrap();
        assert!(!timeout.timed_out(), "the pipe is still open");
        state.items.clone()
    }

    /// What has come so far.
    pub fn so_far(&self) -> Vec<T>
    where
        T: Clone,
    {
        self.shared.0.lock().unwrap().items.clone()
    }
}
