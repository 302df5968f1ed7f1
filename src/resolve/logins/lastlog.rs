//! lastlog(8): each user's last login, in a file with a record for every uid.
//!
//! Owns the layout of `struct lastlog` (`lastlog.h`).

use std::fs::File;
use std::io;
use std::mem::offset_of;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::{Login, RememberedBy, ip_or_host, text};

/// The C library gives times here the size that they have in utmp: 32 bits on
/// some 64-bit architectures, 64 on others.
const TIME: usize = (offset_of!(libc::utmpx, ut_addr_v6) - offset_of!(libc::utmpx, ut_tv)) / 2;
const LINE: usize = 32;
const HOST: usize = 256;
/// The size of a record.
pub(super) const RECORD: usize = TIME + LINE + HOST;

/// The last login of a user; none where there never was one.
///
/// # Errors
/// It cannot be read.
pub(super) fn read(path: &Path, uid: u32) -> io::Result<Option<Login>> {
    let file = File::open(path)?;
    let mut record = [0; RECORD];
    match file.read_exact_at(&mut record, u64::from(uid) * RECORD as u64) {
        Ok(()) => Ok(login(&record)),
        // Nobody with so great an id has ever logged in.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

fn login(record: &[u8; RECORD]) -> Option<Login> {
    let (time, rest) = record.split_at(TIME);
    let (line, host) = rest.split_at(LINE);
    let seconds = match *time {
        [a, b, c, d] => u64::from(u32::from_ne_bytes([a, b, c, d])),
        _ => u64::from_ne_bytes(time.try_into().ok()?),
    };
    if seconds == 0 {
        return None;
    }
    let (ip, host) = ip_or_host(text(host));
    Some(Login {
        from: RememberedBy::Lastlog,
        time: SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?,
        line: text(line),
        ip,
        host,
    })
}
