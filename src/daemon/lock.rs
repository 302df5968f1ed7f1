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
            return Err(Fatal::Running {
                lock: path,
                pid: text.trim().parse().ok(),
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
}
