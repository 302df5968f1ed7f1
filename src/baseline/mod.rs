//! What was known of every watched file when the daemon last looked, to find
//! what happened when it did not.
//!
//! Owns the record of a file, the comparison of two of them, and the store that
//! keeps records across runs and crashes. Must not look at the watched files,
//! nor at a clock: what was found is given. The comparison ([`Record::differs`],
//! [`Record::is_unread`]) is pure; I/O is in [`Store`] alone.

mod record;
mod snapshot;
mod store;

#[cfg(test)]
mod tests;

pub use record::{Content, KeyFacts, Login, Made, Moment, Record, Stat};
pub use store::{Error, Health, Meta, Opened, Store};
