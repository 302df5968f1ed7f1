//! The only room with `unsafe` in it: fanotify groups and their records, file
//! handles, perf rings, pidfds, peers of sockets, scheduling.
//!
//! Owns the bytes the kernel gives and takes, and every descriptor as an
//! `OwnedFd`. Must not own policy: which directory is marked, who is held and
//! what a record means is decided by the callers. Every call fails with the
//! errno that the kernel gave.
#![allow(unsafe_code)]

pub mod affinity;
pub mod fanotify;
pub mod handle;
pub mod mapped;
pub mod memory;
pub mod open;
pub mod peer;
pub mod perf;
pub mod pidfd;
pub mod stat;
pub mod thread;

pub use handle::ObjectId;
pub use pidfd::PidFd;
