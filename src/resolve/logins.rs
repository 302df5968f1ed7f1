//! Logins: what systemd-logind knows of a session, and what wtmp and lastlog, or
//! wtmpdb and lastlog2 in their place, remember.
//!
//! Owns the parsing of logind's state (`/run/systemd/sessions/ID`), of `struct
//! utmp` (utmp(5)), of `struct lastlog` and of the databases' tables, all written
//! by root alone. Bounded: of wtmp and the databases the end is read, backwards in
//! time until enough is found; of lastlog one record; of logind as many sessions
//! as `MAX_SESSIONS`. What is damaged tells nothing. Must not lock anything: a
//! login that is being recorded waits for nobody.

use std::fs::File;
use std::io::{self, Read};
use std::mem::{offset_of, size_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

mod databases;
mod lastlog;
mod sqlite;

/// How many logins are told.
pub const MAX_LOGINS: usize = 5;
/// How far back logins are told.
pub const PERIOD: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How much of the end of wtmp is read: some thousand logins.
const MAX_WTMP: u64 = 1 << 20;
/// How many sessions of logind are looked at.
const MAX_SESSIONS: usize = 512;
/// What is written of one login in two places has times this close.
const SAME: Duration = Duration::from_secs(10);
/// How much of a session's state is read.
const MAX_STATE: u64 = 16 * 1024;

/// Who remembers a login (`ssh_keywatch.session.recent_logins.from`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RememberedBy {
    /// wtmp, utmp(5).
    Wtmp,
    /// wtmpdb(8).
    Wtmpdb,
    /// lastlog(8): the last login alone.
    Lastlog,
    /// lastlog2(8): the last login alone.
    Lastlog2,
    /// systemd-logind, while the session is open.
    Logind,
}

impl RememberedBy {
    /// `wtmp`, `wtmpdb`, `lastlog`, `lastlog2` or `logind`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wtmp => "wtmp",
            Self::Wtmpdb => "wtmpdb",
            Self::Lastlog => "lastlog",
            Self::Lastlog2 => "lastlog2",
            Self::Logind => "logind",
        }
    }
}

/// A login of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// Who remembers it.
    pub from: RememberedBy,
    /// When.
    pub time: SystemTime,
    /// At which line, such as `pts/3`.
    pub line: Option<String>,
    /// From which address.
    pub ip: Option<IpAddr>,
    /// From which host, where the record has no address.
    pub host: Option<String>,
}

impl Login {
    /// Whether two places speak of one login, each as far as it knows it.
    fn is(&self, other: &Self) -> bool {
        let apart = match self.time.duration_since(other.time) {
            Ok(apart) => apart,
            Err(error) => error.duration(),
        };
        let lines = self.line.as_ref().zip(other.line.as_ref());
        apart <= SAME
            && (self.ip, &self.host) == (other.ip, &other.host)
            && lines.is_none_or(|(one, other)| one == other)
    }
}

/// A session of systemd-logind, as far as it says where it comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogindSession {
    /// The user's name.
    pub user: Option<String>,
    /// The PAM service, such as `sshd`.
    pub service: Option<String>,
    /// The remote host's name or address.
    pub remote_host: Option<String>,
    /// Such as `user`, or `background` of what cron runs.
    pub class: Option<String>,
    /// The terminal, where it had one when it was opened.
    pub tty: Option<String>,
    /// When it was opened, in microseconds since the epoch.
    pub realtime: Option<u64>,
}

impl LogindSession {
    /// Reads session `id` below `directory`.
    ///
    /// # Errors
    /// There is none, or no such id.
    pub fn read(directory: &Path, id: &str) -> io::Result<Self> {
        if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut text = String::new();
        File::open(directory.join(id))?
            .take(MAX_STATE)
            .read_to_string(&mut text)?;
        Ok(Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let mut session = Self::default();
        for line in text.lines() {
            let Some((key, value)) = line.split_once('=') else {
                continue;
            };
            let value = (!value.is_empty()).then(|| value.to_owned());
            match key {
                "USER" => session.user = value,
                "SERVICE" => session.service = value,
                "REMOTE_HOST" => session.remote_host = value,
                "CLASS" => session.class = value,
                "TTY" => session.tty = value,
                "REALTIME" => session.realtime = value.and_then(|value| value.parse().ok()),
                _ => {}
            }
        }
        session
    }

    /// The login that opened it; none where a program did, such as cron.
    fn login(self) -> Option<Login> {
        self.class.filter(|class| class.starts_with("user"))?;
        let time = Duration::from_micros(self.realtime?);
        let (ip, host) = ip_or_host(self.remote_host);
        Some(Login {
            from: RememberedBy::Logind,
            time: SystemTime::UNIX_EPOCH.checked_add(time)?,
            line: self.tty,
            ip,
            host,
        })
    }
}

/// Where logins are remembered. What a host does not keep tells nothing.
#[derive(Clone, Debug)]
pub struct Records {
    /// systemd-logind's directory of sessions.
    pub logind: PathBuf,
    /// wtmp.
    pub wtmp: PathBuf,
    /// wtmpdb's database: the first of these that there is.
    pub wtmpdb: Vec<PathBuf>,
    /// lastlog.
    pub lastlog: PathBuf,
    /// lastlog2's database.
    pub lastlog2: PathBuf,
}

impl Default for Records {
    fn default() -> Self {
        Self {
            logind: "/run/systemd/sessions".into(),
            wtmp: "/var/log/wtmp".into(),
            // Upstream's, and Debian's where only sshd uses it.
            wtmpdb: vec!["/var/lib/wtmpdb/wtmp.db".into(), "/var/log/wtmp.db".into()],
            lastlog: "/var/log/lastlog".into(),
            lastlog2: "/var/lib/lastlog/lastlog2.db".into(),
        }
    }
}

impl Records {
    /// The last logins of a user within [`PERIOD`] before `now`, the latest
    /// first; what several remember, once.
    #[must_use]
    pub fn recent(&self, user: &str, uid: u32, now: SystemTime) -> Vec<Login> {
        let mut found = recent(&self.wtmp, user, now).unwrap_or_default();
        let wtmpdb = self.wtmpdb.iter().find(|path| path.exists());
        let wtmpdb = wtmpdb.and_then(|path| databases::wtmpdb(path, user, now).ok());
        let last = lastlog::read(&self.lastlog, uid).ok().flatten();
        let last2 = databases::lastlog2(&self.lastlog2, user).ok().flatten();
        let single = |login: Option<Login>| login.into_iter().collect();
        for more in [
            wtmpdb.unwrap_or_default(),
            open(&self.logind, user),
            single(last),
            single(last2),
        ] {
            // Two logins of one place are never the same.
            let mut left = found.clone();
            for login in more.into_iter().filter(|login| is_told(login.time, now)) {
                match left.iter().position(|known| known.is(&login)) {
                    Some(same) => drop(left.swap_remove(same)),
                    None => found.push(login),
                }
            }
        }
        found.sort_by_key(|login| std::cmp::Reverse(login.time));
        found.truncate(MAX_LOGINS);
        found
    }
}

/// Whether it is neither too long ago nor in the future, which is a clock that
/// was set back.
fn is_told(time: SystemTime, now: SystemTime) -> bool {
    let since = now.checked_sub(PERIOD).unwrap_or(SystemTime::UNIX_EPOCH);
    time >= since && time <= now
}

/// The sessions of `user` that are open, the earliest first.
fn open(directory: &Path, user: &str) -> Vec<Login> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let names = entries.flatten().map(|entry| entry.file_name());
    let mut found: Vec<Login> = names
        .take(MAX_SESSIONS)
        // Fifos and what is being written have a dot in their names.
        .filter_map(|name| LogindSession::read(directory, name.to_str()?).ok())
        .filter(|session| session.user.as_deref() == Some(user))
        .filter_map(LogindSession::login)
        .collect();
    // A directory has no order.
    found.sort_by_key(|login| login.time);
    found
}

/// An address where the text is one, else a host's name.
fn ip_or_host(text: Option<String>) -> (Option<IpAddr>, Option<String>) {
    match text.as_deref().map(str::parse::<IpAddr>) {
        Some(Ok(ip)) => (Some(ip.to_canonical()), None),
        _ => (None, text),
    }
}

/// The last logins of `user` in the wtmp at `path` within [`PERIOD`] before
/// `now`, the latest first.
///
/// # Errors
/// It cannot be read.
fn recent(path: &Path, user: &str, now: SystemTime) -> io::Result<Vec<Login>> {
    let file = File::open(path)?;
    let record = size_of::<libc::utmpx>() as u64;
    let length = file.metadata()?.len();
    // What a crash left of a record at the end shifts nothing before it.
    let end = length - length % record;
    let start = end.saturating_sub(MAX_WTMP / record * record);
    let mut bytes = vec![0; usize::try_from(end - start).unwrap_or(0)];
    file.read_exact_at(&mut bytes, start)?;
    Ok(search(&bytes, user, now))
}

fn search(bytes: &[u8], user: &str, now: SystemTime) -> Vec<Login> {
    let records = bytes.chunks_exact(size_of::<libc::utmpx>()).rev();
    records
        .filter_map(|record| login(record, user))
        .filter(|login| is_told(login.time, now))
        .take(MAX_LOGINS)
        .collect()
}

/// A record of a login of `user`. The layout is that of the C library, in which
/// `ut_tv` has 32 bits on some 64-bit architectures and 64 on others.
fn login(record: &[u8], user: &str) -> Option<Login> {
    let field = |offset: usize, size: usize| record.get(offset..offset + size);
    let kind = field(offset_of!(libc::utmpx, ut_type), 2)?;
    if i16::from_ne_bytes(kind.try_into().ok()?) != libc::USER_PROCESS {
        return None;
    }
    // Longer names are cut short.
    let name = text(field(offset_of!(libc::utmpx, ut_user), 32)?)?;
    if name != user.get(..32).unwrap_or(user) {
        return None;
    }
    let tv = offset_of!(libc::utmpx, ut_tv);
    let tv_size = offset_of!(libc::utmpx, ut_addr_v6) - tv;
    let seconds = if tv_size == 8 {
        u64::from(u32::from_ne_bytes(field(tv, 4)?.try_into().ok()?))
    } else {
        u64::from_ne_bytes(field(tv, 8)?.try_into().ok()?)
    };
    let address: [u8; 16] = field(offset_of!(libc::utmpx, ut_addr_v6), 16)?
        .try_into()
        .ok()?;
    let ip = match address {
        address if address == [0; 16] => None,
        [a, b, c, d, rest @ ..] if rest == [0; 12] => Some(IpAddr::V4(Ipv4Addr::new(a, b, c, d))),
        address => Some(IpAddr::V6(Ipv6Addr::from(address)).to_canonical()),
    };
    let host = text(field(offset_of!(libc::utmpx, ut_host), 256)?);
    Some(Login {
        from: RememberedBy::Wtmp,
        time: SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?,
        line: text(field(offset_of!(libc::utmpx, ut_line), 32)?),
        host: host.filter(|_| ip.is_none()),
        ip,
    })
}

/// A text of fixed size that ends at a NUL or fills its field.
fn text(field: &[u8]) -> Option<String> {
    let end = field.iter().position(|byte| *byte == 0);
    let field = &field[..end.unwrap_or(field.len())];
    (!field.is_empty()).then(|| String::from_utf8_lossy(field).into_owned())
}

pub(super) fn read_hostile(bytes: &[u8]) {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let logins = search(bytes, "ann", now);
    assert!(logins.len() <= MAX_LOGINS);
    assert!(logins.iter().all(|login| login.time <= now));
    if let Ok(text) = str::from_utf8(bytes) {
        let _ = LogindSession::parse(text);
    }
    sqlite::read_hostile(bytes);
}

#[cfg(test)]
mod tests;
