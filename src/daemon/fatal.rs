//! What stops the daemon, and how that is said.
//!
//! Owns the sentences and the exit codes. Must not do anything about it.

use std::io;
use std::path::PathBuf;

use super::lock;
use crate::config;
use crate::exit::Exit;
use crate::rule;
use crate::watch::pattern::PatternError;

/// What stops the daemon, or keeps it from starting.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// A privilege is missing.
    #[error("{0}")]
    NoPermission(String),
    /// The configuration is wrong.
    #[error("{0}")]
    Config(#[from] config::Error),
    /// Rules or exceptions are wrong.
    #[error("{}", rendered(.0))]
    Rules(Vec<rule::Error>),
    /// A watched path in the configuration is no pattern.
    #[error("{0}")]
    Pattern(#[from] PatternError),
    /// Another one runs.
    #[error(
        "ssh-keywatch runs already{}: it holds {}\n\
         To look at it:      ssh-keywatch status\n                    \
         ssh-keywatch tail -f\n                    \
         journalctl -u {}\n\
         To debug beside it: ssh-keywatch run --dry -v   (touches neither its log nor its state)",
        lock::holder(*.pid, .unit.as_deref()),
        .lock.display(),
        .unit.as_deref().unwrap_or("ssh-keywatch").trim_end_matches(".service"),
    )]
    Running {
        /// Its lock.
        lock: PathBuf,
        /// Its pid, if the lock says.
        pid: Option<i32>,
        /// The unit it belongs to, if systemd runs it.
        unit: Option<String>,
    },
    /// The alert log cannot be opened.
    #[error("cannot write the alert log {}: {source}\nGive it another place with --log FILE or log.file in the configuration.", path.display())]
    Log {
        /// The log.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
    /// Something else.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// The error.
        source: io::Error,
    },
}

fn rendered(errors: &[rule::Error]) -> String {
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    errors.join("\n\n")
}

impl Fatal {
    /// The exit code for it.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::NoPermission(_) => Exit::NoPermission,
            Self::Config(_) | Self::Rules(_) | Self::Pattern(_) => Exit::Config,
            Self::Log { source, .. } | Self::System { source, .. }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                Exit::NoPermission
            }
            Self::Running { .. } | Self::Log { .. } | Self::System { .. } => Exit::Internal,
        }
    }

    pub(super) fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::System { what, source }
    }
}
