//! The daemon against the real kernel, the real ssh-keygen and the real journald.
//!
//! Needs root, because fanotify does; `tests/run` installs the programs. A test
//! that cannot run fails and says what is missing.
//!
//! Each test has a mount namespace of its own ([`host::Host`]) with its own
//! /etc, /home, /root, /run, /srv, /var/lib and /var/log, and with ssh-keygen
//! as a copy: marks belong to inodes, so the machine's own files are never
//! marked and none of its logins can wait. A daemon that stops answering would
//! leave openers waiting in the kernel; hence every process of a test dies with
//! it ([`process`]), and each has a time after which it is killed.
//!
//! No test sleeps: they wait for readiness, for a line or for an end, each with
//! a bound. That *no* alert was raised is only said after the daemon has been
//! told to end, which makes it write all it knows.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on panics and says where"
)]

mod attribution;
mod baseline;
mod confined;
mod control;
mod daemon;
mod deadline;
mod discovery;
mod disk;
mod document;
mod floods;
mod follow;
mod forward;
mod full;
mod harm;
mod hold;
mod holding;
mod host;
mod hostile;
mod inventory;
mod journal;
mod keygen;
mod killer;
mod lifecycle;
mod lists;
mod logrotate;
mod merged;
mod moved;
mod opens;
mod others;
mod process;
mod reference;
mod rules;
mod scale;
mod session;
mod shipped;
mod sinks;
mod stress;
mod tamper;
