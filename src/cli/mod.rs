//! The command line: one file a command, no logic of its own.

pub mod tail;

use std::process::ExitCode;

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    crate::exit::Exit::Ok.into()
}
