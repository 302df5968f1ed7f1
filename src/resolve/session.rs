//! Whose session a writer acted in, and where that came from.
//!
//! Owns what is read for it beyond the writer's snapshot. Where an SSH session
//! comes from, [`Clients`] remember: a thousand alerts of one session read it once. Runs away from the kernel's
//! queue; what can take long is read on a [`Pool`] with a deadline.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use super::attribution::same_file;
use super::clients::Clients;
use super::entry::{self, Entry, Kind};
use super::logins::{Login, LogindSession, Records};
use super::slow::{Pool, Size};
use super::unit::Placement;
use super::{Account, Attribution, Process};

/// How long the records of logins are waited for.
const READ_TIME: Duration = Duration::from_millis(250);
/// How many users' logins are remembered.
const MAX_KEPT: usize = 512;
/// How long a user's logins are remembered.
const LOGINS_KEPT: Duration = Duration::from_secs(10);

/// How it is known who logged in (`ssh_keywatch.session.user_from`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginFrom {
    /// The audit system's login uid, which is set once.
    Audit,
    /// The ids of the sshd that serves the session.
    Sshd,
    /// The ids of the entry leader.
    Leader,
}

impl LoginFrom {
    /// The value of `ssh_keywatch.session.user_from`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Audit => "audit",
            Self::Sshd => "sshd",
            Self::Leader => "leader",
        }
    }
}

/// How it is known where a session comes from (`ssh_keywatch.session.source_from`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceFrom {
    /// The connection that sshd has open.
    Socket,
    /// What sshd told systemd-logind.
    Logind,
}

impl SourceFrom {
    /// The value of `ssh_keywatch.session.source_from`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Socket => "socket",
            Self::Logind => "logind",
        }
    }
}

/// Where a session comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its address.
    pub ip: IpAddr,
    /// Its port.
    pub port: Option<u16>,
    /// How that is known.
    pub from: SourceFrom,
}

/// The session that a writer acted in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// What let it in.
    pub kind: Option<Kind>,
    /// The first process of what came in.
    pub leader: Option<Process>,
    /// Programs that gave it another user's ids, in the order they were run.
    pub through: Vec<String>,
    /// Where its control group is.
    pub placement: Placement,
    /// Who logged in.
    pub login: Option<(Account, LoginFrom)>,
    /// Where it comes from.
    pub source: Option<Source>,
}

/// Finds out sessions.
pub struct Sessions {
    clients: Clients,
    pool: Pool,
    records: Records,
    logins: HashMap<String, (Vec<Login>, Instant)>,
}

impl Sessions {
    /// Reads through the `/proc` of `clients`, and what systemd-logind and login(1) write.
    ///
    /// # Errors
    /// The threads for slow reads cannot be started.
    pub fn start(clients: Clients) -> io::Result<Self> {
        Self::at(clients, Records::default())
    }

    fn at(clients: Clients, records: Records) -> io::Result<Self> {
        let size = Size {
            threads: 2,
            backlog: 6,
            urgent: false,
            movable: false,
        };
        Ok(Self {
            clients,
            pool: Pool::start(size)?,
            records,
            logins: HashMap::new(),
        })
    }

    /// The session that `writer` acted in, as far as it is known.
    pub fn of(&mut self, writer: &Attribution) -> Session {
        let Some(process) = &writer.process else {
            return Session::default();
        };
        let cgroup = process.cgroup.clone().or_else(|| self.cgroup(process));
        let placement = cgroup
            .map(|text| Placement::parse(&text))
            .unwrap_or_default();
        let entry = entry::entry(writer, &placement);
        let kind = entry.as_ref().map(|entry| entry.kind);
        let is_contained = placement.container.is_some();
        let mut session = Session {
            // Its shim may have ended, or started it aside of its own lineage.
            kind: match kind {
                None | Some(Kind::Init | Kind::Unit) if is_contained => Some(Kind::Container),
                kind => kind,
            },
            leader: entry.as_ref().map(|entry| entry.leader.clone()),
            through: entry.iter().flat_map(Entry::through_names).collect(),
            login: login(process, entry.as_ref()),
            source: None,
            placement,
        };
        if let Some(entry) = entry.as_ref().filter(|entry| entry.kind == Kind::Ssh) {
            session.source = self.peer(entry.gate).map(|peer| Source {
                ip: peer.ip(),
                port: Some(peer.port()),
                from: SourceFrom::Socket,
            });
        }
        if session.source.is_none() && session.is_login_or_unknown() {
            self.ask_logind(&mut session, process);
        }
        session
    }

    /// The control group of a process that is still there, and runs what it ran: a
    /// program that opens sessions may have come after it.
    fn cgroup(&self, process: &Process) -> Option<Vec<u8>> {
        let entry = self.clients.proc().entry(process.pid).ok()?;
        let cgroup = entry.cgroup()?;
        let ticks = entry.stat().ok()?.start_ticks;
        let is_it = Some(ticks) == process.start_ticks
            && same_file(entry.image().as_ref(), process.image.as_ref());
        is_it.then_some(cgroup)
    }

    /// The client of the sshd that lets a session in.
    fn peer(&self, gate: &[Process]) -> Option<SocketAddr> {
        // The one with root's ids serves this connection alone; the one with the
        // user's has what the user forwards besides. What has ended meanwhile
        // has no ids any more.
        gate.iter()
            .enumerate()
            .find_map(|(at, process)| match runs_as(process) {
                Some(0) => Some(self.clients.of(process, gate.get(at + 1))),
                Some(_) => None,
                None => self.clients.remembered(process).map(Some),
            })?
    }

    /// Of a session whose sshd is gone or which left it, logind may know.
    fn ask_logind(&self, session: &mut Session, process: &Process) {
        // logind names a session by its audit id, where there is one.
        let audit = process.audit_session.map(|id| id.to_string());
        let Some(id) = session.placement.logind.clone().or(audit) else {
            return;
        };
        let Ok(known) = LogindSession::read(&self.records.logind, &id) else {
            return;
        };
        if matches!(session.kind, None | Some(Kind::Init)) {
            let kind = match known.service.as_deref() {
                Some("sshd") => Some(Kind::Ssh),
                Some("login") => Some(Kind::Terminal),
                Some("cron" | "crond") => Some(Kind::Cron),
                _ => None,
            };
            if kind.is_some() {
                // Init adopted it; what came in is not there any more.
                session.kind = kind;
                session.leader = None;
            }
        }
        if session.kind == Some(Kind::Ssh) {
            let ip = known.remote_host.and_then(|host| host.parse().ok());
            session.source = ip.map(|ip: IpAddr| Source {
                ip: ip.to_canonical(),
                port: None,
                from: SourceFrom::Logind,
            });
        }
    }

    /// The last logins of `user` within a month, the latest first.
    pub fn logins(&mut self, user: &str, uid: u32, now: SystemTime) -> Vec<Login> {
        if let Some((logins, since)) = self.logins.get(user)
            && since.elapsed() < LOGINS_KEPT
        {
            return logins.clone();
        }
        let (records, name) = (self.records.clone(), user.to_owned());
        let answer = self.pool.ask(move || records.recent(&name, uid, now));
        let Some(found) = answer.and_then(|answer| answer.until(Instant::now() + READ_TIME)) else {
            return Vec::new();
        };
        if self.logins.len() >= MAX_KEPT {
            self.logins.clear();
        }
        self.logins
            .insert(user.to_owned(), (found.clone(), Instant::now()));
        found
    }
}

impl Session {
    /// Whether logind can have something to say.
    fn is_login_or_unknown(&self) -> bool {
        matches!(self.kind, None | Some(Kind::Init | Kind::Ssh))
    }
}

impl Entry<'_> {
    /// One that runs as two processes is named once.
    fn through_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .through
            .iter()
            .filter_map(|process| {
                let name = process.image.as_ref()?.path.file_name()?;
                Some(name.to_string_lossy().into_owned())
            })
            .collect();
        names.dedup();
        names
    }
}

fn runs_as(process: &Process) -> Option<u32> {
    let credentials = process.credentials.as_ref()?;
    Some(credentials.effective_user.id)
}

/// Who logged in.
fn login(process: &Process, entry: Option<&Entry<'_>>) -> Option<(Account, LoginFrom)> {
    let account = |id| Account { id, name: None };
    if let Some(uid) = process.login_uid {
        return Some((account(uid), LoginFrom::Audit));
    }
    let entry = entry?;
    match entry.kind {
        // OpenSSH serves each session with the user's own ids.
        Kind::Ssh => {
            let sshd = entry.gate.first()?;
            let name = sshd.image.as_ref()?.path.file_name()?;
            if name.to_str().is_some_and(|name| name.starts_with("sshd")) {
                let uid = sshd.credentials.as_ref()?.effective_user.id;
                return Some((account(uid), LoginFrom::Sshd));
            }
        }
        Kind::Terminal | Kind::Console | Kind::Cron | Kind::At => {}
        _ => return None,
    }
    let uid = entry.leader.credentials.as_ref()?.real_user.id;
    Some((account(uid), LoginFrom::Leader))
}

#[cfg(test)]
mod tests;
