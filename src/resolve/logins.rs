//! Logins: what systemd-logind knows of a session, and what wtmp remembers.
//!
//! Owns the parsing of logind's state (`/run/systemd/sessions/ID`) and of
//! `struct utmp` (utmp(5)), both written by root alone. Bounded: of wtmp the end
//! is read, backwards in time until enough is found.

use std::fs::File;
use std::io::{self, Read};
use std::mem::{offset_of, size_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// How many logins are told.
pub const MAX_LOGINS: usize = 5;
/// How far back logins are told.
pub const PERIOD: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How much of the end of wtmp is read: some thousand logins.
const MAX_WTMP: u64 = 1 << 20;
/// How much of a session's state is read.
const MAX_STATE: u64 = 16 * 1024;

/// A login of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// When.
    pub time: SystemTime,
    /// At which line, such as `pts/3`.
    pub line: Option<String>,
    /// From which address.
    pub ip: Option<IpAddr>,
    /// From which host, where the record has no address.
    pub host: Option<String>,
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
                _ => {}
            }
        }
        session
    }
}

/// The last logins of `user` in the wtmp at `path` within [`PERIOD`] before
/// `now`, the latest first.
///
/// # Errors
/// It cannot be read.
pub fn recent(path: &Path, user: &str, now: SystemTime) -> io::Result<Vec<Login>> {
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
    let since = now.checked_sub(PERIOD).unwrap_or(SystemTime::UNIX_EPOCH);
    let records = bytes.chunks_exact(size_of::<libc::utmpx>()).rev();
    records
        .filter_map(|record| login(record, user))
        // One of the future is a clock that was set back.
        .filter(|login| login.time >= since && login.time <= now)
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
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// As utmpdump(1), the C library's own, writes what it reads as text.
    fn wtmp(text: &str) -> Vec<u8> {
        use std::io::Write as _;
        let mut child = Command::new("utmpdump")
            .arg("-r")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("this test needs utmpdump; tests/run installs it");
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(text.as_bytes()).unwrap();
        drop(stdin);
        child.wait_with_output().unwrap().stdout
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    const LOGINS: &str = "\
[2] [00000] [~~  ] [reboot  ] [~           ] [6.1.0       ] [0.0.0.0        ] [2026-10-01T08:00:00,000000+00:00]
[7] [00400] [ts/0] [bob     ] [pts/0       ] [10.1.2.3    ] [10.1.2.3       ] [2026-10-01T10:00:00,000000+00:00]
[7] [00500] [tty1] [bob     ] [tty1        ] [            ] [0.0.0.0        ] [2026-11-20T10:00:00,000000+00:00]
[8] [00500] [tty1] [bob     ] [tty1        ] [            ] [0.0.0.0        ] [2026-11-20T11:00:00,000000+00:00]
[7] [00600] [ts/1] [ann     ] [pts/1       ] [10.9.9.9    ] [10.9.9.9       ] [2026-11-21T10:00:00,000000+00:00]
[7] [00700] [ts/2] [bob     ] [pts/2       ] [2001:db8::5 ] [2001:db8::5    ] [2026-11-22T10:00:00,000000+00:00]
[7] [00800] [ts/3] [bob     ] [pts/3       ] [host.example] [0.0.0.0        ] [2026-11-23T10:00:00,000000+00:00]
";

    #[test]
    fn the_last_logins_of_one_user() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("wtmp");
        let mut bytes = wtmp(LOGINS);
        assert_eq!(bytes.len(), 7 * size_of::<libc::utmpx>());
        // A record that was cut off.
        bytes.extend([7; 100]);
        std::fs::write(&path, &bytes).unwrap();
        // 2026-11-24T00:00:00Z
        let now = at(1_795_478_400);
        let found = recent(&path, "bob", now).unwrap();
        let shown: Vec<_> = found
            .iter()
            .map(|login| {
                let ip = login.ip.map(|ip| ip.to_string());
                (login.line.as_deref(), ip, login.host.as_deref())
            })
            .collect();
        assert_eq!(
            shown,
            [
                (Some("pts/3"), None, Some("host.example")),
                (Some("pts/2"), Some("2001:db8::5".to_owned()), None),
                // The one of October is too long ago.
                (Some("tty1"), None, None),
            ]
        );
        // 2026-11-23T10:00:00Z
        assert_eq!(found[0].time, at(1_795_428_000));
        let before = recent(&path, "bob", at(1_795_428_000 - 1)).unwrap();
        assert_eq!(before, found[1..], "what is yet to come is not told");
        assert_eq!(recent(&path, "bo", now).unwrap(), []);
        assert!(recent(&dir.path().join("none"), "bob", now).is_err());
    }

    #[test]
    fn many_logins_are_bounded() {
        let line = LOGINS.lines().last().unwrap();
        let one = wtmp(&format!("{line}\n"));
        let bytes = one.repeat(6000);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("wtmp");
        std::fs::write(&path, &bytes).unwrap();
        let found = recent(&path, "bob", at(1_795_478_400)).unwrap();
        assert_eq!(found.len(), MAX_LOGINS);
    }

    #[test]
    fn any_bytes_are_read() {
        proptest::proptest!(|(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..1200))| {
            let _ = search(&bytes, "bob", at(1_795_478_400));
        });
    }

    #[test]
    fn sessions_of_logind() {
        let dir = tempfile::tempdir().unwrap();
        let state = "# This is private data. Do not parse.\nUID=1001\nUSER=bob\nACTIVE=1\nREMOTE=1\nTTY=pts/0\nSERVICE=sshd\nREMOTE_HOST=10.1.2.3\nREMOTE_USER=\n";
        std::fs::write(dir.path().join("c4"), state).unwrap();
        let expected = LogindSession {
            user: Some("bob".into()),
            service: Some("sshd".into()),
            remote_host: Some("10.1.2.3".into()),
        };
        assert_eq!(LogindSession::read(dir.path(), "c4").unwrap(), expected);
        for id in ["", "5", "../c4", "c4/", "."] {
            assert!(LogindSession::read(dir.path(), id).is_err(), "{id}");
        }
    }
}
