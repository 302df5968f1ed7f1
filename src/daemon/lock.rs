//! One daemon a state directory: two would hold and report everything twice.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::Fatal;

/// Takes the lock in `directory`, which is made if need be; it is given back
/// when the file is closed, also by a crash.
///
/// # Errors
/// [`Fatal::Running`] when another process has it, [`Fatal::System`] when the
/// directory cannot be used.
pub fn take(directory: &Path) -> Result<File, Fatal> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(Fatal::system(format!(
            "cannot make the state directory {}",
            directory.display()
        )))?;
    let path = directory.join("lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&path)
        .map_err(Fatal::system(format!("cannot open {}", path.display())))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            // Its pid is a courtesy.
            let _ = file.read_to_string(&mut text);
            let pid = text.trim().parse().ok();
            return Err(Fatal::Running {
                lock: path,
                pid,
                unit: pid.and_then(unit),
            });
        }
        Err(TryLockError::Error(error)) => {
            return Err(Fatal::system(format!("cannot lock {}", path.display()))(
                error,
            ));
        }
    }
    let _ = file
        .set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

/// The systemd unit that process `pid` belongs to (cgroups(7)).
fn unit(pid: i32) -> Option<String> {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    unit_of(&groups)
}

/// The service in the contents of `/proc/PID/cgroup`; of nested ones the innermost.
fn unit_of(groups: &str) -> Option<String> {
    groups
        .lines()
        .filter_map(|line| line.splitn(3, ':').nth(2))
        .flat_map(|path| path.rsplit('/'))
        .find(|name| name.ends_with(".service"))
        .map(|name| crate::text::printable(name).into_owned())
}

/// Who it is, in brackets.
pub(super) fn holder(pid: Option<i32>, unit: Option<&str>) -> String {
    match (pid, unit) {
        (Some(pid), Some(unit)) => format!(" (pid {pid}, {unit})"),
        (Some(pid), None) => format!(" (pid {pid})"),
        (None, _) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_one_is_told_who_has_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let first = take(&state).unwrap();
        let error = take(&state).unwrap_err();
        assert!(
            matches!(error, Fatal::Running { pid: Some(pid), .. } if pid.cast_unsigned() == std::process::id()),
            "{error:?}"
        );
        drop(first);
        take(&state).unwrap();
    }

    #[test]
    fn the_unit_is_read_from_the_control_groups() {
        let unified = "0::/system.slice/ssh-keywatch.service\n";
        assert_eq!(unit_of(unified).as_deref(), Some("ssh-keywatch.service"));
        let hybrid = "3:cpu:/system.slice/x.service/y.service/sub\n0::/\n";
        assert_eq!(unit_of(hybrid).as_deref(), Some("y.service"));
        assert_eq!(
            unit_of("0::/user.slice/user-0.slice/session-1.scope\n"),
            None
        );
    }
}
