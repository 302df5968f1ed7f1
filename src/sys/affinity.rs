//! Which processors our own threads run on (`sched_setaffinity(2)`).
//!
//! Owns the list of those threads that make room. Must not own to whom, and when.

use std::io;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use super::thread::current_id;

/// So many threads can make room; one more stays where the scheduler puts it.
const MOST: usize = 64;

/// Their thread ids; 0 is a free place.
static MOVABLE: [AtomicI32; MOST] = [const { AtomicI32::new(0) }; MOST];

/// The processor that those keep off; [`NONE`] of them.
static KEPT_OFF: AtomicU32 = AtomicU32::new(NONE);
const NONE: u32 = u32::MAX;

/// Counts the thread that holds it among those that [`keep_off`] moves.
#[derive(Debug)]
#[must_use = "the thread is movable as long as this lives"]
pub struct Movable {
    place: Option<&'static AtomicI32>,
    /// Of this thread alone.
    not_send: PhantomData<*const ()>,
}

impl Movable {
    /// For the calling thread. It runs wherever the others may by now: who started
    /// it may have made room elsewhere, and where it did was inherited.
    pub fn new() -> Self {
        let tid = current_id();
        let free = |place: &&AtomicI32| {
            place
                .compare_exchange(0, tid, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
        };
        let place = MOVABLE.iter().find(free);
        // Once it is in the list, so that what changes later reaches it; what changes
        // right now may have come first.
        let mut number = KEPT_OFF.load(Ordering::SeqCst);
        loop {
            if let Ok(Some(wanted)) = wanted((number != NONE).then_some(number)) {
                // One that has no right to the processors stays where it is.
                let _ = wanted.give(0);
            }
            let now = KEPT_OFF.load(Ordering::SeqCst);
            if now == number {
                break;
            }
            number = now;
        }
        Self {
            place,
            not_send: PhantomData,
        }
    }
}

impl Default for Movable {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Movable {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            place.store(0, Ordering::Release);
        }
    }
}

/// Processors that a thread may run on, of the first 1024.
#[derive(Clone, Copy)]
struct Processors(libc::cpu_set_t);

impl Processors {
    /// Those of thread `tid`; 0 is the calling thread.
    fn of(tid: i32) -> io::Result<Self> {
        // SAFETY: all zeros are an empty set.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: the set is as large as is said, and outlives the call.
        let result = unsafe { libc::sched_getaffinity(tid, size_of_val(&set), &raw mut set) };
        if result == 0 {
            Ok(Self(set))
        } else {
            Err(io::Error::last_os_error())
        }
    }

    fn give(&self, tid: i32) -> io::Result<()> {
        // SAFETY: the set is as large as is said, and outlives the call.
        let result =
            unsafe { libc::sched_setaffinity(tid, size_of_val(&self.0), &raw const self.0) };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    /// `None` if nothing would be left.
    fn without(mut self, processor: usize) -> Option<Self> {
        if processor < libc::CPU_SETSIZE.cast_unsigned() as usize {
            // SAFETY: the number is one of the set's.
            unsafe { libc::CPU_CLR(processor, &mut self.0) };
        }
        // SAFETY: reads the set alone.
        (unsafe { libc::CPU_COUNT(&self.0) } > 0).then_some(self)
    }
}

/// Keeps the movable threads off `processor`, and lets them run wherever the
/// process's first thread, which never moves, may run besides; `None` gives all
/// of that back to them. Changes nothing where they would have no processor left.
///
/// # Errors
/// The errno of `sched_getaffinity(2)`: `EINVAL` with more than 1024 processors.
pub fn keep_off(processor: Option<u32>) -> io::Result<()> {
    KEPT_OFF.store(processor.unwrap_or(NONE), Ordering::SeqCst);
    let Some(wanted) = wanted(processor)? else {
        return Ok(());
    };
    for place in &MOVABLE {
        let tid = place.load(Ordering::Acquire);
        if tid != 0 {
            // One that has no right to the processors stays where it is.
            let _ = wanted.give(tid);
        }
    }
    Ok(())
}

/// Where the movable threads run that keep off `processor`; `None` if nowhere.
fn wanted(processor: Option<u32>) -> io::Result<Option<Processors>> {
    let all = Processors::of(nix::unistd::getpid().as_raw())?;
    Ok(match processor {
        None => Some(all),
        Some(number) => all.without(number as usize),
    })
}

/// Tests that move threads do so one at a time.
#[cfg(test)]
pub(crate) static MOVING: std::sync::Mutex<()> = std::sync::Mutex::new(());

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    fn numbers(set: Processors) -> Vec<usize> {
        (0..1024)
            // SAFETY: the number is one of the set's.
            .filter(|number| unsafe { libc::CPU_ISSET(*number, &set.0) })
            .collect()
    }

    #[test]
    fn a_movable_thread_makes_room_and_no_other() {
        let _alone = MOVING.lock().unwrap();
        let all = numbers(Processors::of(0).unwrap());
        let [first, .., _] = all[..] else {
            return assert_eq!(all.len(), 1, "there is nothing to move between");
        };
        let few = Processors::of(0).unwrap().without(first).unwrap();
        let moved = std::thread::spawn(move || {
            few.give(0).unwrap();
            let started = std::thread::spawn(|| {
                let inherited = numbers(Processors::of(0).unwrap());
                let _movable = Movable::new();
                (inherited, numbers(Processors::of(0).unwrap()))
            });
            started.join().unwrap()
        });
        let (inherited, own) = moved.join().unwrap();
        assert_eq!(inherited, all[1..]);
        assert_eq!(own, all, "it was started by one that made room");

        let (tell, told) = channel();
        let (end, ending) = channel::<()>();
        let movable = std::thread::spawn(move || {
            let movable = Movable::new();
            tell.send(current_id()).unwrap();
            let _ = ending.recv();
            drop(movable);
        });
        let tid = told.recv().unwrap();
        keep_off(Some(u32::try_from(first).unwrap())).unwrap();
        assert_eq!(numbers(Processors::of(tid).unwrap()), all[1..]);
        assert_eq!(numbers(Processors::of(0).unwrap()), all, "our own");
        let late = std::thread::spawn(|| {
            let movable = Movable::new();
            let own = numbers(Processors::of(0).unwrap());
            drop(movable);
            own
        });
        let late = late.join().unwrap();
        assert_eq!(late, all[1..], "it was started when there was room already");
        keep_off(None).unwrap();
        assert_eq!(numbers(Processors::of(tid).unwrap()), all);
        drop(end);
        movable.join().unwrap();
        assert!(
            MOVABLE
                .iter()
                .all(|place| place.load(Ordering::Acquire) != tid)
        );
    }

    #[test]
    fn the_last_processor_is_not_taken() {
        let all = Processors::of(0).unwrap();
        let mut few = all;
        for number in &numbers(all)[1..] {
            few = few.without(*number).unwrap();
        }
        assert_eq!(numbers(few).len(), 1);
        assert!(few.without(numbers(few)[0]).is_none());
        assert!(few.without(5000).is_some(), "none of the set's");
    }
}
