//! ssh-keywatch tells the owner of a Linux host, within milliseconds and with
//! proof, who put which SSH key where.
//!
//! Data flows one way, and imports point against the arrow (ARCHITECTURE.md):
//!
//! ```text
//! sys -> watch -> event -> resolve -> rule (eql) -> alert -> sink
//! ```
//!
//! `daemon` composes the parts, `cli` holds one file a command.

pub mod alert;
pub mod baseline;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod eql;
pub mod event;
pub mod exit;
pub mod inventory;
pub mod key;
pub mod proctable;
pub mod queue;
pub mod resolve;
pub mod rule;
pub mod sink;
pub mod sys;
pub mod text;
pub mod watch;
