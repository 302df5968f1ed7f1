//! systemd's watchdog: petted only while every working thread gets on.
//!
//! Owns the thread that asks. Each round it wakes the threads that would sleep
//! until something happens, and pets (`WATCHDOG=1`, `sd_watchdog_enabled(3)`)
//! when each has made a step since the last time. A frozen process, or one
//! thread that hangs, thus gets no pet, and systemd ends it: the kernel then
//! lets every held opener go, and the daemon starts anew.
//!
//! A hold that was given up for a while is not missed: nobody waits then. Not
//! asked are the sinks, since a hung disk or journal is no reason to stop
//! watching, the threads for slow reads, which may hang by design, and the main
//! thread, which only waits for signals. Without `WATCHDOG_USEC` there is no thread.

use std::io;
use std::sync::Arc;

use libsystemd::daemon::{NotifyState, watchdog_enabled};
use nix::sys::eventfd::EventFd;

use crate::watch::beat::Beat;

/// Rounds in the time that systemd waits: one may come to nothing because a
/// thread was just about to make its step.
const ROUNDS: u32 = 3;

/// A thread that is asked.
pub(super) struct Part {
    pub(super) name: &'static str,
    /// Makes it make a step, if it would not by itself.
    pub(super) wake: Box<dyn Fn() + Send>,
    /// How many it has made; `None` while nobody depends on it.
    pub(super) count: Box<dyn Fn() -> Option<u64> + Send>,
}

impl Part {
    /// The watching thread, which `wake` wakes.
    pub(super) fn watching(beat: Arc<Beat>, wake: Arc<EventFd>) -> Self {
        Self {
            name: "watch",
            // EAGAIN: it has been waked often enough already.
            wake: Box::new(move || {
                let _ = wake.write(1);
            }),
            count: Box::new(move || Some(beat.count())),
        }
    }

    /// The deciding thread, which wakes by itself once a second.
    pub(super) fn deciding(beat: Arc<Beat>) -> Self {
        Self {
            name: "decide",
            wake: Box::new(|| ()),
            count: Box::new(move || Some(beat.count())),
        }
    }
}

/// What is known of the threads' steps.
struct Rounds {
    parts: Vec<Part>,
    /// Each one's count at the last pet.
    petted: Vec<Option<u64>>,
}

impl Rounds {
    fn new(parts: Vec<Part>) -> Self {
        let petted = parts.iter().map(|part| (part.count)()).collect();
        Self { parts, petted }
    }

    fn wake(&self) {
        self.parts.iter().for_each(|part| (part.wake)());
    }

    /// Whether all have got on since the last time that it said so; else the
    /// first that has not.
    fn all_got_on(&mut self) -> Result<(), &'static str> {
        let counts: Vec<_> = self.parts.iter().map(|part| (part.count)()).collect();
        for ((part, before), now) in self.parts.iter().zip(&self.petted).zip(&counts) {
            if now.is_some() && before == now {
                return Err(part.name);
            }
        }
        self.petted = counts;
        Ok(())
    }
}

/// Starts the thread, if systemd waits for pets.
///
/// # Errors
/// The thread cannot be started.
pub(super) fn start(parts: Vec<Part>) -> io::Result<()> {
    let Some(patience) = watchdog_enabled(false).filter(|patience| !patience.is_zero()) else {
        return Ok(());
    };
    let round = patience / ROUNDS;
    std::thread::Builder::new()
        .name("watchdog".to_owned())
        .spawn(move || {
            let mut rounds = Rounds::new(parts);
            let mut late = false;
            super::tell_systemd(&[NotifyState::Watchdog]);
            loop {
                rounds.wake();
                std::thread::sleep(round);
                match rounds.all_got_on() {
                    Ok(()) => {
                        late = false;
                        super::tell_systemd(&[NotifyState::Watchdog]);
                    }
                    Err(name) if late => tracing::error!(
                        "the {name} thread does not get on: systemd will end the daemon and start it anew"
                    ),
                    Err(_) => late = true,
                }
            }
        })
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(beat: &Arc<Beat>) -> Part {
        Part::deciding(Arc::clone(beat))
    }

    #[test]
    fn one_thread_that_hangs_is_enough_to_get_no_pet() {
        let beats = [Arc::new(Beat::default()), Arc::new(Beat::default())];
        let mut rounds = Rounds::new(beats.iter().map(part).collect());
        beats[0].tick();
        assert_eq!(rounds.all_got_on(), Err("decide"));
        beats[1].tick();
        assert_eq!(rounds.all_got_on(), Ok(()));
        assert_eq!(rounds.all_got_on(), Err("decide"));
        // A step before the last pet says nothing about the time since.
        beats[1].tick();
        assert_eq!(rounds.all_got_on(), Err("decide"));
        beats[0].tick();
        assert_eq!(rounds.all_got_on(), Ok(()));
    }

    #[test]
    fn one_that_nobody_depends_on_is_not_waited_for() {
        let mut rounds = Rounds::new(vec![Part {
            name: "hold",
            wake: Box::new(|| ()),
            count: Box::new(|| None),
        }]);
        assert_eq!(rounds.all_got_on(), Ok(()));
        assert_eq!(rounds.all_got_on(), Ok(()));
    }
}
