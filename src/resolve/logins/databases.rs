//! wtmpdb(8) and lastlog2(8), which take the place of wtmp and lastlog in Debian 13.
//!
//! Owns what their tables mean.

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::sqlite::{Value, latest};
use super::{Login, MAX_LOGINS, RememberedBy, ip_or_host, is_told};

/// `wtmpdb.h`: the type of a user's login.
const USER_PROCESS: i64 = 3;

/// The last logins of `user` that wtmpdb has at `path`, within what is told before
/// `now`, the latest first.
///
/// # Errors
/// It cannot be read.
pub(super) fn wtmpdb(path: &Path, user: &str, now: SystemTime) -> io::Result<Vec<Login>> {
    let columns = ["Type", "User", "Login", "TTY", "RemoteHost"];
    latest(path, "wtmp", columns, MAX_LOGINS, |row| {
        let [kind, name, time, line, host] = row;
        if kind.integer() != Some(USER_PROCESS) || name.text() != Some(user) {
            return None;
        }
        let time = Duration::from_micros(u64::try_from(time.integer()?).ok()?);
        login(RememberedBy::Wtmpdb, time, line, host).filter(|login| is_told(login.time, now))
    })
}

/// The last login of `user` that lastlog2 has at `path`.
///
/// # Errors
/// It cannot be read.
pub(super) fn lastlog2(path: &Path, user: &str) -> io::Result<Option<Login>> {
    let columns = ["Name", "Time", "TTY", "RemoteHost"];
    let mut found = latest(path, "Lastlog2", columns, 1, |row| {
        let [name, time, line, host] = row;
        if name.text() != Some(user) {
            return None;
        }
        let time = u64::try_from(time.integer()?).ok()?;
        // Imported from lastlog, of who has never logged in.
        let time = Duration::from_secs((time != 0).then_some(time)?);
        login(RememberedBy::Lastlog2, time, line, host)
    })?;
    Ok(found.pop())
}

fn login(from: RememberedBy, time: Duration, line: &Value, host: &Value) -> Option<Login> {
    let (ip, host) = ip_or_host(host.text().map(str::to_owned));
    Some(Login {
        from,
        time: SystemTime::UNIX_EPOCH.checked_add(time)?,
        // sshd tells PAM "ssh" where there is no terminal, or none yet.
        line: line.text().filter(|line| *line != "ssh").map(str::to_owned),
        ip,
        host,
    })
}
