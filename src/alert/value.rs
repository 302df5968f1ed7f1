//! How single values are spelled in a document.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::SystemTime;

use data_encoding::{BASE64, HEXLOWER};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use crate::text;

/// A time as RFC 3339 in UTC with microseconds. A time outside of years -9999
/// to 9999, which only a broken clock can give, becomes the nearest one inside.
pub(super) fn time(time: SystemTime) -> String {
    let timestamp = Timestamp::try_from(time).unwrap_or(if time < SystemTime::UNIX_EPOCH {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    });
    format!("{timestamp:.6}")
}

/// A text from the kernel as a value: exact where it is UTF-8, with escapes
/// where it is not.
pub(super) fn exact(value: &OsStr) -> String {
    match value.to_str() {
        Some(text) => text.to_owned(),
        None => text::escape_path(Path::new(value)),
    }
}

/// The exact bytes of a path that is not UTF-8, in base64.
pub(super) fn raw(path: &Path) -> Option<String> {
    let bytes = path.as_os_str().as_bytes();
    std::str::from_utf8(bytes)
        .is_err()
        .then(|| BASE64.encode(bytes))
}

/// Permission bits as ECS wants them: `0600`.
pub(super) fn mode(mode: u32) -> String {
    format!("{mode:04o}")
}

/// 128 bits of a hash over the parts, in hex. Each part carries its length, so
/// that no two lists of parts run together.
pub(super) fn digest<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    HEXLOWER.encode(&hash.finalize()[..16])
}
