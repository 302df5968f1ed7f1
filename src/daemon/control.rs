//! The control socket: a running daemon says how it fares.
//!
//! One request a connection, one line of JSON each way:
//!
//! ```text
//! ► {"version":1,"request":"status"}
//! ◄ {"version":1,"status":{…}}           or  {"version":1,"error":"…"}
//! ```
//!
//! Owns the words of the protocol, the socket and its thread, which answers
//! root and the members of one group, one by one and within bounds of size,
//! number and time. Must not know what a status says, and never runs on a
//! thread that answers the kernel. The client's side ([`ask`]) is here too, so
//! that both speak alike.

mod serve;
mod socket;

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::eventfd::EventFd;
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use self::serve::{Access, Server};
use self::socket::Listener;
use super::{Fatal, access, build, confine};
use crate::config;

/// The version of the protocol: it rises when an old client could not
/// understand an answer any more.
pub const VERSION: u32 = 1;
/// A request is no longer than this, its newline included.
const MAX_REQUEST: usize = 4096;
/// An answer is no longer than this.
const MAX_ANSWER: u64 = 16 << 20;

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Request {
    /// How the daemon fares.
    Status,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    version: u32,
    request: Request,
}

/// What a client has sent so far.
#[derive(Debug, PartialEq, Eq)]
enum Parsed {
    /// The line is not complete.
    More,
    /// This is what it wants.
    Request(Request),
    /// This is wrong with it.
    Refused(String),
}

/// Reads a request; `bytes` are all that came.
fn parse(bytes: &[u8]) -> Parsed {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        return if bytes.len() < MAX_REQUEST {
            Parsed::More
        } else {
            Parsed::Refused(format!("a request has at most {MAX_REQUEST} bytes"))
        };
    };
    if end >= MAX_REQUEST {
        return Parsed::Refused(format!("a request has at most {MAX_REQUEST} bytes"));
    }
    if end + 1 != bytes.len() {
        return Parsed::Refused("one request a connection".to_owned());
    }
    match serde_json::from_slice::<Asked>(&bytes[..end]) {
        Ok(asked) if asked.version == VERSION => Parsed::Request(asked.request),
        Ok(asked) => Parsed::Refused(format!(
            "this daemon speaks version {VERSION} of the protocol, not {}",
            asked.version
        )),
        Err(error) => Parsed::Refused(format!("not a request: {error}")),
    }
}

/// An answer as a line.
fn line(key: &str, value: Value) -> Vec<u8> {
    let mut answer = Map::new();
    answer.insert("version".to_owned(), VERSION.into());
    answer.insert(key.to_owned(), value);
    let mut line = crate::text::json_line(&answer).into_bytes();
    line.push(b'\n');
    line
}

/// The socket of a running daemon; it goes away with this.
pub(super) struct Control {
    stop: Arc<EventFd>,
    listener: Arc<Listener>,
}

impl Control {
    /// Opens the socket and answers on it with what `status` says.
    ///
    /// # Errors
    /// The socket cannot be made, or another daemon answers on it.
    pub(super) fn start(
        config: &config::Control,
        status: impl Fn() -> Value + Send + 'static,
    ) -> Result<Self, Fatal> {
        // Looked up once: a name service that hangs must not stop the thread.
        let gid = access::group(&config.group);
        let listener = Listener::open(&config.socket, gid)
            .map(Arc::new)
            .map_err(Fatal::system(format!(
                "cannot open the control socket {}",
                config.socket.display()
            )))?;
        let stop = build::event_fd()?;
        let access = Access {
            uid: geteuid().as_raw(),
            gid,
            group: config.group.clone(),
        };
        let server = Server::new(Arc::clone(&listener), Arc::clone(&stop), access, status);
        let places = [confine::parent(&config.socket).to_owned()];
        confine::within(&places, || build::spawn("control", move || server.run()))
            .map_err(Fatal::system("cannot start a thread"))
            .flatten()?;
        Ok(Self { stop, listener })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.listener.remove();
        let _ = self.stop.write(1);
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens.
    #[error("no daemon answers on {}: it does not run", .0.display())]
    NotRunning(PathBuf),
    /// The socket is not for this user.
    #[error("no permission to ask the daemon on {}", .0.display())]
    NoPermission(PathBuf),
    /// It listens, but says nothing.
    #[error("the daemon on {} does not answer within {} s: it hangs or is stopped", .0.display(), .1.as_secs())]
    Silent(PathBuf, Duration),
    /// It says that it will not.
    #[error("the daemon refuses: {0}")]
    Refused(String),
    /// What comes is no answer.
    #[error("what answers on {} is no ssh-keywatch of this version: {}", .0.display(), .1)]
    Nonsense(PathBuf, String),
    /// Something else.
    #[error("cannot ask the daemon on {}: {}", .0.display(), .1)]
    System(PathBuf, io::Error),
}

/// Asks the daemon that listens on `socket`; its answer comes within `bound`.
///
/// # Errors
/// [`AskError`] says why there is no answer.
pub fn ask(socket: &Path, request: Request, bound: Duration) -> Result<Value, AskError> {
    let end = Instant::now() + bound;
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            AskError::NotRunning(socket.to_owned())
        }
        io::ErrorKind::PermissionDenied => AskError::NoPermission(socket.to_owned()),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            AskError::Silent(socket.to_owned(), bound)
        }
        _ => AskError::System(socket.to_owned(), error),
    };
    let mut stream = socket::connect(socket, bound).map_err(failed)?;
    let left = || {
        let left = end.saturating_duration_since(Instant::now());
        // Zero would mean for ever.
        Some(left.max(Duration::from_millis(1)))
    };
    stream.set_write_timeout(left()).map_err(failed)?;
    let asked = json!(Asked {
        version: VERSION,
        request,
    });
    match stream.write_all(format!("{asked}\n").as_bytes()) {
        // Refused before it was read: the answer says why.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        other => other.map_err(failed)?,
    }
    let mut answer = Vec::new();
    let mut part = [0; 16 * 1024];
    while answer.last() != Some(&b'\n') {
        stream.set_read_timeout(left()).map_err(failed)?;
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&part[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
        if answer.len() as u64 > MAX_ANSWER {
            return Err(AskError::Nonsense(socket.to_owned(), "too long".to_owned()));
        }
        if Instant::now() >= end {
            return Err(AskError::Silent(socket.to_owned(), bound));
        }
    }
    let nonsense = |what: String| AskError::Nonsense(socket.to_owned(), what);
    let mut answer: Map<String, Value> =
        serde_json::from_slice(&answer).map_err(|error| nonsense(error.to_string()))?;
    if let Some(error) = answer.get("error").and_then(Value::as_str) {
        return Err(AskError::Refused(
            crate::text::printable(error).into_owned(),
        ));
    }
    match request {
        Request::Status => answer.remove("status"),
    }
    .ok_or_else(|| nonsense("the answer is of another kind".to_owned()))
}

#[cfg(test)]
mod tests;
