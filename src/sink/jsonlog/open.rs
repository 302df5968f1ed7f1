//! How a log is opened, and made with its directories where it is not there.
//!
//! Owns what may stand at a log's path: a regular file. Must not read or write it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use crate::text::escape_path;

/// Opens a regular file for appending; true if it was made.
pub(super) fn open_or_create(path: &Path, mode: u32) -> io::Result<(File, bool)> {
    // NONBLOCK and NOCTTY: should a FIFO or a terminal stand there, do not wait
    // for it and do not adopt it before it is refused below.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let mut options = OpenOptions::new();
    options
        .read(true)
        .append(true)
        .custom_flags(flags)
        .mode(mode);
    // More than one turn only if the file comes and goes meanwhile.
    for _ in 0..8 {
        match options.create_new(false).open(path) {
            Ok(file) => {
                if !file.metadata()?.is_file() {
                    let why =
                        io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
                    return Err(at(path, "cannot log to it", &why));
                }
                return Ok((file, false));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
                let why =
                    io::Error::new(error.kind(), "it is a symbolic link; name the file itself");
                return Err(at(path, "cannot log to it", &why));
            }
            Err(error) => return Err(at(path, "cannot open the log", &error)),
        }
        if let Some(parent) = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
        {
            DirBuilder::new()
                .recursive(true)
                .mode(0o750)
                .create(parent)
                .map_err(|error| at(parent, "cannot make the log's directory", &error))?;
        }
        match options.create_new(true).open(path) {
            Ok(file) => return Ok((file, true)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(at(path, "cannot make the log", &error)),
        }
    }
    Err(at(
        path,
        "cannot open the log",
        &io::Error::other("it keeps appearing and vanishing"),
    ))
}

/// An error that names the file.
pub(super) fn at(path: &Path, what: &str, error: &io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("{}: {what}: {error}", escape_path(path)),
    )
}
