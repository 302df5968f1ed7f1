//! (head to be written)

mod facts;

pub use facts::{Reference, Rule, Severity, Tactic, Technique, Threat};
