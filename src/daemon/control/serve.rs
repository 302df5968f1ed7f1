//! The thread that answers on the control socket.
//!
//! Owns its clients: at most [`MAX_CLIENTS`], each for at most
//! [`CLIENT_TIME`]; one more takes the place of the oldest. Nothing here
//! blocks but the asking for a status itself, which is bounded by who gives it.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;
use serde_json::Value;

use super::socket::Listener;
use super::{MAX_REQUEST, Parsed, Request, line, parse};
use crate::sys::peer::Peer;

/// How many clients are served at once.
pub(super) const MAX_CLIENTS: usize = 16;
/// How long a client may take, from its connection to the end of its answer.
const CLIENT_TIME: Duration = Duration::from_secs(5);
/// How long an answer is good for whoever asks next.
const FRESH: Duration = Duration::from_millis(100);
/// How long nobody is accepted after the system refused.
const REST: Duration = Duration::from_secs(1);

/// Who may ask, besides root.
#[derive(Clone, Debug)]
pub(super) struct Access {
    /// The daemon's own user.
    pub(super) uid: u32,
    /// The group, if there is one.
    pub(super) gid: Option<u32>,
    /// Its name.
    pub(super) group: String,
}

impl Access {
    pub(super) fn allows(&self, peer: &Peer) -> bool {
        peer.uid == 0 || peer.uid == self.uid || self.gid.is_some_and(|gid| peer.is_in(gid))
    }
}

struct Client {
    stream: UnixStream,
    until: Instant,
    request: Vec<u8>,
    answer: Vec<u8>,
    sent: usize,
}

/// What becomes of a client.
#[derive(PartialEq, Eq)]
enum Next {
    Stays,
    Goes,
}

/// The thread.
pub(super) struct Server<S> {
    listener: Arc<Listener>,
    stop: Arc<EventFd>,
    access: Access,
    status: S,
    /// The last answer, and when it was given.
    last: Option<(Instant, Vec<u8>)>,
    /// Oldest first.
    clients: Vec<Client>,
    /// Nobody is accepted until then.
    resting: Option<Instant>,
}

impl<S: Fn() -> Value> Server<S> {
    pub(super) fn new(
        listener: Arc<Listener>,
        stop: Arc<EventFd>,
        access: Access,
        status: S,
    ) -> Self {
        Self {
            listener,
            stop,
            access,
            status,
            last: None,
            clients: Vec::new(),
            resting: None,
        }
    }

    /// Runs until it is told to stop.
    pub(super) fn run(mut self) {
        loop {
            match self.turn() {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::error!("the control socket is not served any more: {error}");
                    self.listener.remove();
                    return;
                }
            }
        }
    }

    /// Waits for something to do and does it; `false` when it is to end.
    fn turn(&mut self) -> io::Result<bool> {
        let now = Instant::now();
        if self.resting.is_some_and(|until| until <= now) {
            self.resting = None;
        }
        let accepting = self.resting.is_none();
        let mut fds = vec![PollFd::new(self.stop.as_fd(), PollFlags::POLLIN)];
        if accepting {
            fds.push(PollFd::new(self.listener.as_fd(), PollFlags::POLLIN));
        }
        let first = fds.len();
        for client in &self.clients {
            let wanted = if client.answer.is_empty() {
                PollFlags::POLLIN
            } else {
                PollFlags::POLLOUT
            };
            fds.push(PollFd::new(client.stream.as_fd(), wanted));
        }
        let due = self.clients.iter().map(|client| client.until);
        let due = due.chain(self.resting).min();
        let left = due.map_or(PollTimeout::NONE, |due| {
            // Rounded up, lest it turns in circles for the last millisecond.
            let left = due.saturating_duration_since(now) + Duration::from_millis(1);
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut fds, left) {
            Err(nix::errno::Errno::EINTR) => return Ok(true),
            other => other?,
        };
        let ready = |fd: &PollFd<'_>| fd.any().unwrap_or(true);
        if ready(&fds[0]) {
            return Ok(false);
        }
        let knocks = accepting && ready(&fds[1]);
        let ready: Vec<bool> = fds[first..].iter().map(ready).collect();
        drop(fds);
        let mut clients = std::mem::take(&mut self.clients);
        let mut ready = ready.into_iter();
        clients
            .retain_mut(|client| ready.next() != Some(true) || self.serve(client) == Next::Stays);
        let now = Instant::now();
        clients.retain(|client| client.until > now);
        self.clients = clients;
        if knocks {
            self.accept();
        }
        Ok(true)
    }

    fn accept(&mut self) {
        for _ in 0..MAX_CLIENTS {
            let stream = match self.listener.accept() {
                Ok(stream) => stream,
                Err(error) => {
                    let passing = matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock
                            | io::ErrorKind::Interrupted
                            | io::ErrorKind::ConnectionAborted
                    );
                    if !passing {
                        tracing::warn!("cannot accept on the control socket: {error}");
                        self.resting = Some(Instant::now() + REST);
                    }
                    return;
                }
            };
            let refusal = match Peer::of(&stream) {
                Ok(peer) if self.access.allows(&peer) => None,
                Ok(peer) => {
                    tracing::debug!(
                        uid = peer.uid,
                        pid = peer.pid,
                        "refused on the control socket"
                    );
                    let group = &self.access.group;
                    Some(format!(
                        "only root and members of the group {group} may ask"
                    ))
                }
                Err(error) => Some(format!("who asks is unknown: {error}")),
            };
            let mut client = Client {
                stream,
                until: Instant::now() + CLIENT_TIME,
                request: Vec::new(),
                answer: Vec::new(),
                sent: 0,
            };
            if let Some(why) = refusal {
                // A new socket has room for a line. It takes nobody's place.
                client.answer = line("error", why.into());
                let _ = write(&mut client);
                continue;
            }
            if self.clients.len() == MAX_CLIENTS {
                self.clients.remove(0);
            }
            self.clients.push(client);
        }
    }

    fn serve(&mut self, client: &mut Client) -> Next {
        if client.answer.is_empty() {
            match read(client) {
                Ok(Parsed::More) => return Next::Stays,
                Ok(Parsed::Request(Request::Status)) => client.answer = self.status(),
                Ok(Parsed::Refused(why)) => client.answer = line("error", why.into()),
                Err(_) => return Next::Goes,
            }
        }
        write(client)
    }

    fn status(&mut self) -> Vec<u8> {
        match &self.last {
            Some((when, answer)) if when.elapsed() < FRESH => answer.clone(),
            _ => {
                let answer = line("status", (self.status)());
                self.last = Some((Instant::now(), answer.clone()));
                answer
            }
        }
    }
}

/// Reads what there is, but no more than a request may have.
fn read(client: &mut Client) -> io::Result<Parsed> {
    let mut bytes = [0; MAX_REQUEST];
    match client.stream.read(&mut bytes) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(count) => {
            client.request.extend_from_slice(&bytes[..count]);
            Ok(parse(&client.request))
        }
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
            ) =>
        {
            Ok(Parsed::More)
        }
        Err(error) => Err(error),
    }
}

fn write(client: &mut Client) -> Next {
    while client.sent < client.answer.len() {
        match client.stream.write(&client.answer[client.sent..]) {
            Ok(0) => return Next::Goes,
            Ok(count) => client.sent += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Next::Stays,
            Err(_) => return Next::Goes,
        }
    }
    Next::Goes
}
