//! Who besides root reaches what the daemon makes: the members of a group.
//!
//! Owns the owner and permissions of its directories and its socket. Touches
//! only what the daemon has made, and directories that are its own by name
//! (those that systemd makes for it belong to root's group).

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Group, chown, geteuid};

/// A directory of this name is the daemon's own.
const OWN: &str = "ssh-keywatch";

/// The id of the group `name`. To be asked at a start, not by a thread that
/// must be prompt: a name service can hang.
pub(super) fn group(name: &str) -> Option<u32> {
    match Group::from_name(name) {
        Ok(Some(group)) => Some(group.gid.as_raw()),
        Ok(None) => {
            tracing::info!(group = name, "no such group here; only root has access");
            None
        }
        Err(error) => {
            tracing::warn!(group = name, %error, "cannot look the group up; only root has access");
            None
        }
    }
}

/// Whether the directory is the daemon's by its name.
pub(super) fn is_own(directory: &Path) -> bool {
    directory.file_name() == Some(OsStr::new(OWN))
}

/// Gives a file of this user its group and permissions.
///
/// # Errors
/// What chmod(2) says. A group that cannot be given is no error: access is
/// narrower then, which is said.
pub(super) fn permit(path: &Path, mode: u32, gid: Option<u32>) -> io::Result<()> {
    let there = fs::symlink_metadata(path)?;
    if there.uid() != geteuid().as_raw() || there.is_symlink() {
        // Somebody else has made it as they want it.
        return Ok(());
    }
    if let Some(gid) = gid
        && there.gid() != gid
        && let Err(error) = chown(path, None, Some(Gid::from_raw(gid)))
    {
        tracing::info!(%error, gid, "{} keeps its group", path.display());
    }
    if there.mode() & 0o7777 == mode {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// The directories on the way to `file` that do not exist.
pub(super) fn missing(file: &Path) -> Vec<PathBuf> {
    let above = file.ancestors().skip(1);
    above
        .take_while(|directory| !directory.exists())
        .map(Path::to_owned)
        .collect()
}

/// Lets the group into the directories on the way to `file` that were
/// [`missing`] and have been made, and into its own one.
pub(super) fn share(file: &Path, made: &[PathBuf], gid: Option<u32>) {
    let own = file.parent().filter(|parent| is_own(parent));
    let own = own.into_iter().map(Path::to_owned);
    for directory in made.iter().cloned().chain(own) {
        if let Err(error) = permit(&directory, 0o750, gid) {
            tracing::warn!("cannot open {} to its group: {error}", directory.display());
        }
    }
}
