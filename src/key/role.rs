//! What a file's name says about it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

/// What a file is expected to be. Its content has the last word, except that only
/// a name tells a list of logins from a list of hosts for sure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// `authorized_keys`, and its backups and temporary names.
    AuthorizedKeys,
    /// `known_hosts`, `ssh_known_hosts`, and theirs.
    KnownHosts,
    /// `ssh_host_*_key`, and theirs.
    HostKey,
    /// Anything.
    Other,
}

impl Role {
    /// By the last component of a path.
    #[must_use]
    pub fn of(name: &OsStr) -> Self {
        let name = name.as_bytes();
        if name.starts_with(b"authorized_keys") {
            Self::AuthorizedKeys
        } else if name.starts_with(b"known_hosts") || name.starts_with(b"ssh_known_hosts") {
            Self::KnownHosts
        } else if name.starts_with(b"ssh_host_") {
            Self::HostKey
        } else {
            Self::Other
        }
    }

    /// Whether it is a list of keys.
    #[must_use]
    pub fn is_list(self) -> bool {
        matches!(self, Self::AuthorizedKeys | Self::KnownHosts)
    }
}

/// The name of the file that holds the other half: `id` for `id.pub` and
/// `id-cert.pub`, and `id.pub` for any other.
#[must_use]
pub fn pair_name(name: &OsStr) -> OsString {
    let bytes = name.as_bytes();
    let private = bytes
        .strip_suffix(b"-cert.pub")
        .or_else(|| bytes.strip_suffix(b".pub"));
    match private {
        Some(private) => OsStr::from_bytes(private).to_owned(),
        None => OsString::from_vec([bytes, b".pub"].concat()),
    }
}
