//! Whether the places that a configuration names are on this host.
//!
//! Owns the walk along a pattern, and what keeps a log from being written. Asks no
//! network file system, and makes nothing.

use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, Group, access, geteuid};

use crate::text::escape_path;
use crate::watch::mounts::{Mounts, Unreached};
use crate::watch::pattern::Pattern;

/// So many names of a directory are held against a glob: it is enough to know one.
const NAMES: usize = 65_536;

/// Whether a directory that the glob names is there. One whose server is not to be
/// asked, or that may not be looked into, is taken to be.
#[must_use]
pub fn is_glob_there(glob: &str) -> bool {
    Pattern::parse(Path::new(glob)).is_ok_and(|pattern| is_there(&pattern))
}

/// The same of one directory.
#[must_use]
pub fn is_directory_there(path: &Path) -> bool {
    Pattern::literal(path).is_ok_and(|pattern| is_there(&pattern))
}

fn is_there(pattern: &Pattern) -> bool {
    let mut mounts = Mounts::new();
    let mut directories = vec![PathBuf::from("/")];
    for depth in 0..pattern.depth() {
        let mut next = Vec::new();
        for directory in &directories {
            match mounts.walk(None, directory, true) {
                Ok(_) => {}
                Err(Unreached::Failed(error)) if is_absent(error.raw_os_error()) => continue,
                Err(_) => return true,
            }
            if let Some(name) = pattern.name(depth) {
                next.push(directory.join(name));
                continue;
            }
            let entries = match directory.read_dir() {
                Ok(entries) => entries,
                Err(error) if is_absent(error.raw_os_error()) => continue,
                Err(_) => return true,
            };
            let names = entries.flatten().take(NAMES).map(|entry| entry.file_name());
            let names = names.filter(|name| pattern.matches(depth, name));
            next.extend(names.map(|name| directory.join(name)));
        }
        directories = next;
    }
    directories
        .iter()
        .any(|directory| match mounts.walk(None, directory, true) {
            Ok(reached) => reached.glance.kind == libc::S_IFDIR,
            Err(Unreached::Failed(error)) => !is_absent(error.raw_os_error()),
            Err(Unreached::Stalls { .. }) => true,
        })
}

fn is_absent(errno: Option<i32>) -> bool {
    matches!(
        errno.map(Errno::from_raw),
        Some(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP)
    )
}

/// Why no file can be made at `path`, with the directories that it lacks.
#[must_use]
pub fn cannot_be_made(path: &Path) -> Option<String> {
    if path.is_dir() {
        return Some("it is a directory".to_owned());
    }
    let there = path.ancestors().skip(1).find(|above| {
        let there = above.symlink_metadata();
        there.is_ok()
    })?;
    let shown = escape_path(there);
    if !there.is_dir() {
        return Some(format!("{shown} is no directory"));
    }
    // Of others than root it is another question whether they may.
    if !geteuid().is_root() {
        return None;
    }
    match access(there, AccessFlags::W_OK | AccessFlags::X_OK) {
        Ok(()) => None,
        Err(error) => Some(format!("nothing can be made in {shown}: {}", error.desc())),
    }
}

/// Whether there is no group of this name; a name service that fails does not say so.
#[must_use]
pub fn is_no_group(name: &str) -> bool {
    matches!(Group::from_name(name), Ok(None))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_pattern_is_there_where_one_directory_is() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("homes/ann")).unwrap();
        fs::write(dir.path().join("homes/file"), "").unwrap();
        for (below, there) in [
            ("homes", true),
            ("homes/*", true),
            ("homes/a*", true),
            ("homes/b*", false),
            ("homes/f*", false),
            ("homes/*/deeper", false),
            ("none/*", false),
            ("none", false),
        ] {
            let glob = dir.path().join(below);
            assert_eq!(is_glob_there(glob.to_str().unwrap()), there, "{below}");
        }
        assert!(is_directory_there(&dir.path().join("homes")));
        // There a star is a star.
        assert!(!is_directory_there(&dir.path().join("homes/*")));
    }

    #[test]
    fn a_log_below_a_file_cannot_be_made() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(cannot_be_made(&file), None);
        assert_eq!(cannot_be_made(&dir.path().join("new/deep/log")), None);
        let why = cannot_be_made(&file.join("deep/log")).unwrap();
        assert!(why.ends_with("/file is no directory"), "{why}");
        assert!(cannot_be_made(dir.path()).is_some());
        assert!(is_no_group("no such group"));
        assert!(!is_no_group("root"));
    }
}
