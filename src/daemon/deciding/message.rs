//! What the deciding thread is told.
//!
//! Owns the words of other threads to it, and nothing that is done about them.

use std::sync::mpsc::SyncSender;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::alert::{Change, LossKind};
use crate::daemon::baseline::Missed;
use crate::daemon::keys::Left;
use crate::daemon::standing::Decided;
use crate::event::assemble::Assembled;
use crate::event::flood::Flood;
use crate::resolve::Attribution;
use crate::rule::RuleSet;
use crate::sink::Promise;
use crate::watch::Problem;
use crate::watch::deadline::Overdue;

/// What the deciding thread is told.
pub enum Message {
    /// Something happened; of a list of keys, how it was left.
    Event(Box<Assembled<Attribution>>, Option<Box<Left>>),
    /// Something happened that nobody saw.
    Missed(Box<Missed>),
    /// So much was counted instead of told.
    Flood(Box<Flood<Attribution>>),
    /// Watching had a problem: when, since when if that is known, and which.
    Problem(SystemTime, Option<SystemTime>, Box<Problem>),
    /// Something else failed: a stable name, and what it means.
    Fault(&'static str, String),
    /// New rules.
    Rules(Box<RuleSet>),
    /// Say this about the daemon.
    State(Box<Said>),
    /// Say what was decided so far.
    Status(SyncSender<Decided>),
    /// Openers waited for the answering thread longer than they should.
    Overdue(Overdue),
    /// So many events were dropped, for this thread was too far behind.
    Dropped(u64, SystemTime),
    /// Something was lost elsewhere.
    Lost(Lost),
    /// Nobody is held any more, for this reason; it will be tried again after a while.
    Released(String, Duration),
    /// Openers are held again.
    HeldAgain,
    /// Promises that the trial at the start did not find kept.
    Tried(Vec<String>),
    /// The watching thread failed.
    WatchEnded(String),
    /// Nothing more comes.
    End,
}

/// What is said about the daemon.
pub struct Said {
    /// When.
    pub time: SystemTime,
    /// What.
    pub change: Change,
    /// Whether it worked.
    pub success: bool,
    /// Why.
    pub reason: String,
    /// What is watched.
    pub coverage: Value,
    /// What was counted.
    pub counters: Value,
    /// What a reload changed.
    pub changes: Value,
}

/// A loss that another thread noticed.
#[derive(Debug)]
pub struct Lost {
    /// A stable name.
    pub code: &'static str,
    /// Whether somebody lost something, or something merely failed.
    pub kind: LossKind,
    /// How many, if that is known.
    pub count: Option<u64>,
    /// Since when.
    pub since: Option<SystemTime>,
    /// What it means.
    pub reason: String,
    /// Of the line about it, if somebody waits for that.
    pub promise: Option<Promise>,
}
