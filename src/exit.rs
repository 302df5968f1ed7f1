//! The program's exit codes (sysexits.h where it has a name for one).

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It did what it was asked.
    Ok = 0,
    /// It found nothing, or found problems, as grep and linters say it.
    Found = 1,
    /// The command line was wrong.
    Usage = 2,
    /// An error of ours or of the system (`EX_SOFTWARE`).
    Internal = 70,
    /// A privilege is missing (`EX_NOPERM`).
    NoPermission = 77,
    /// The configuration or a rule is wrong (`EX_CONFIG`).
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
