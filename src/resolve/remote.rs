//! Where an SSH session comes from: the other end of sshd's connection.
//!
//! Owns how a process's sockets are asked: through a copy of its descriptor
//! (`pidfd_getfd(2)`), and where that is forbidden (Yama, an LSM) in the table of
//! its network namespace (`proc_pid_net(5)`), whose reading takes many milliseconds
//! of the kernel's time. What the session's environment says (`SSH_CONNECTION`)
//! is no source: a user writes into the memory of their own processes what
//! they like.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CStr;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use nix::dir::Dir;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::socket::{SockType, getsockopt, sockopt};
use nix::sys::stat::Mode;

use super::proc::Entry;
use crate::sys::PidFd;

/// How many descriptors of a process are looked at.
const MAX_DESCRIPTORS: usize = 1024;
/// `TCP_LISTEN` of `include/net/tcp_states.h`.
const LISTEN: u8 = 10;

/// A process and its `/proc` entry.
pub(super) struct Target {
    pub(super) pid: i32,
    pub(super) entry: Entry,
}

/// A TCP socket of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Socket {
    local: SocketAddr,
    remote: SocketAddr,
    listens: bool,
}

/// The other end of the connection that `server` serves; `listener`, its
/// parent, tells connections of clients from those that are forwarded. `None`
/// if there is none, if it is not one alone, or if it cannot be told: before
/// `deadline`, and quickly where none is given.
pub(super) fn peer(
    server: &Target,
    listener: Option<&Target>,
    deadline: Option<Instant>,
) -> Option<SocketAddr> {
    let own = descriptors(&server.entry);
    if let Some(sockets) = copied(server, &own) {
        let listening = || {
            let listener = listener?;
            copied(listener, &descriptors(&listener.entry))
        };
        return choose(&sockets, || listening().unwrap_or_default());
    }
    let listening = listener.map(|listener| descriptors(&listener.entry));
    let listening = listening.unwrap_or_default();
    let tables = Tables::read(server, &own, &listening, deadline?)?;
    choose(&tables.own, || tables.listening)
}

/// A server has more than one connection only when it forwards some. The one
/// of its client has the port that the listener listens at, and never one at
/// which the server itself listens: that one is forwarded, or the server is a
/// listener that has just accepted it.
fn choose(own: &[Socket], listening: impl FnOnce() -> Vec<Socket>) -> Option<SocketAddr> {
    let ports = |sockets: &[Socket]| -> BTreeSet<u16> {
        let listening = sockets.iter().filter(|socket| socket.listens);
        listening.map(|socket| socket.local.port()).collect()
    };
    let backward = ports(own);
    let mut clients: Vec<&Socket> = own
        .iter()
        .filter(|socket| !socket.listens && !backward.contains(&socket.local.port()))
        .collect();
    if clients.len() > 1 {
        let ports = ports(&listening());
        clients.retain(|socket| ports.contains(&socket.local.port()));
    }
    match clients.as_slice() {
        [only] => Some(only.remote),
        _ => None,
    }
}

/// The sockets that a process has open: their descriptors, and which are which.
fn descriptors(process: &Entry) -> BTreeMap<u64, i32> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let Ok(mut dir) = Dir::openat(process.as_fd(), c"fd", flags, Mode::empty()) else {
        return BTreeMap::new();
    };
    let names: Vec<_> = dir
        .iter()
        .flatten()
        .take(MAX_DESCRIPTORS)
        .map(|entry| entry.file_name().to_owned())
        .collect();
    names
        .iter()
        .filter_map(|name| {
            let link = readlinkat(&dir, name.as_c_str()).ok()?;
            let inode = link.to_str()?.strip_prefix("socket:[")?;
            let inode = inode.strip_suffix(']')?.parse().ok()?;
            Some((inode, name.to_str().ok()?.parse().ok()?))
        })
        .collect()
}

/// What the kernel says of the sockets themselves; `None` if they may not be
/// looked at, or are not those that were found.
fn copied(process: &Target, descriptors: &BTreeMap<u64, i32>) -> Option<Vec<Socket>> {
    let pidfd = PidFd::open(process.pid).ok()?;
    // It is still there: the pid is its own, and was when the pidfd was opened.
    process.entry.stat().ok()?;
    let mut sockets = Vec::new();
    for (inode, number) in descriptors {
        match pidfd.descriptor(*number) {
            Ok(copy) => {
                let stat = nix::sys::stat::fstat(&copy).ok()?;
                if stat.st_ino == *inode {
                    sockets.extend(socket(copy));
                }
            }
            // It was closed meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::EBADF) => {}
            Err(_) => return None,
        }
    }
    Some(sockets)
}

/// A TCP socket's two ends.
fn socket(socket: OwnedFd) -> Option<Socket> {
    if getsockopt(&socket, sockopt::SockType).ok()? != SockType::Stream {
        return None;
    }
    let listens = getsockopt(&socket, sockopt::AcceptConn).ok()?;
    // It fails for a socket of another family.
    let socket = TcpStream::from(socket);
    let local = canonical(socket.local_addr().ok()?);
    let remote = if listens {
        SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0)
    } else {
        // A connection that is over has none.
        canonical(socket.peer_addr().ok()?)
    };
    Some(Socket {
        local,
        remote,
        listens,
    })
}

/// `::ffff:192.0.2.1` is an IPv4 client of an IPv6 socket.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Sockets as the tables of a network namespace tell them.
#[derive(Default)]
struct Tables {
    own: Vec<Socket>,
    listening: Vec<Socket>,
}

impl Tables {
    fn read(
        process: &Target,
        own: &BTreeMap<u64, i32>,
        listening: &BTreeMap<u64, i32>,
        deadline: Instant,
    ) -> Option<Self> {
        let mut tables = Self::default();
        for table in [c"net/tcp", c"net/tcp6"] {
            read_table(&process.entry, table, deadline, |inode, socket| {
                if own.contains_key(&inode) {
                    tables.own.push(socket);
                } else if listening.contains_key(&inode) {
                    tables.listening.push(socket);
                }
            })?;
        }
        Some(tables)
    }
}

/// Calls `take` for each socket of a table; `None` if there was no time to.
fn read_table(
    process: &Entry,
    name: &CStr,
    deadline: Instant,
    mut take: impl FnMut(u64, Socket),
) -> Option<()> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    // A kernel without IPv6 has no table of it.
    let Ok(file) = openat(process, name, flags, Mode::empty()) else {
        return Some(());
    };
    let mut reader = BufReader::with_capacity(64 * 1024, std::fs::File::from(file));
    let mut line = String::new();
    loop {
        line.clear();
        match reader.read_line(&mut line) {
            Ok(0) | Err(_) => return Some(()),
            Ok(_) => {}
        }
        if let Some((inode, socket)) = parse(&line) {
            take(inode, socket);
        }
        if Instant::now() > deadline {
            return None;
        }
    }
}

/// One line of `/proc/net/tcp` or `tcp6`, with the inode; `None` for the heading.
fn parse(line: &str) -> Option<(u64, Socket)> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let local = address(fields.next()?)?;
    let remote = address(fields.next()?)?;
    let state = u8::from_str_radix(fields.next()?, 16).ok()?;
    // After the queues, the timer, retransmissions, the user and the timeout.
    let inode = fields.nth(5)?.parse().ok()?;
    let socket = Socket {
        local,
        remote,
        listens: state == LISTEN,
    };
    Some((inode, socket))
}

/// `0100007F:0016`: words of an address in the host's byte order.
fn address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let digits = address.get(at * 8..at * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    let ip = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for at in 0..4 {
                bytes[at * 4..at * 4 + 4].copy_from_slice(&word(at)?);
            }
            IpAddr::V6(Ipv6Addr::from(bytes))
        }
        _ => return None,
    };
    Some(canonical(SocketAddr::new(ip, port)))
}

pub(super) fn read_hostile(bytes: &[u8]) {
    if let Ok(text) = str::from_utf8(bytes) {
        text.lines().for_each(|line| {
            let _ = parse(line);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::path::Path;
    use std::time::Duration;

    use super::super::proc::Proc;
    use super::*;

    #[cfg(target_endian = "little")]
    #[test]
    fn lines_of_the_tables() {
        let line = "   3: 0201010A:0016 6401A8C0:D2F0 01 00000000:00000000 02:000AFCB4 00000000     0        0 31337 4 0000000000000000 20 4 31 10 -1\n";
        let (inode, socket) = parse(line).unwrap();
        assert_eq!(socket.local.to_string(), "10.1.1.2:22");
        assert_eq!(socket.remote.to_string(), "192.168.1.100:54000");
        assert_eq!((socket.listens, inode), (false, 31337));
        let mapped = "0000000000000000FFFF00000A01A8C0:08AE";
        assert_eq!(address(mapped).unwrap().to_string(), "192.168.1.10:2222");
        let global = "B80D0120000000000000000001000000:0016";
        assert_eq!(address(global).unwrap().to_string(), "[2001:db8::1]:22");
        let heading = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
        assert_eq!(parse(heading), None);
        for cut in 0..line.len() {
            let _ = parse(&line[..cut]);
        }
    }

    fn between(local: &str, remote: &str) -> Socket {
        Socket {
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
            listens: remote.ends_with(":0"),
        }
    }

    #[test]
    fn a_forwarded_connection_is_not_taken_for_the_clients() {
        let client = between("10.0.0.1:2222", "192.0.2.7:50000");
        let forwarded = between("10.0.0.1:41000", "198.51.100.1:443");
        let backward = between("127.0.0.1:8080", "127.0.0.1:33000");
        // What -R listens at is the session's, not the listener's.
        let remote_forward = between("127.0.0.1:8080", "0.0.0.0:0");
        let listener = between("0.0.0.0:2222", "0.0.0.0:0");
        let peer = Some("192.0.2.7:50000".parse().unwrap());
        let listening = || vec![listener];
        let unasked = || unreachable!("one alone needs no listener");
        assert_eq!(choose(&[client], unasked), peer);
        assert_eq!(choose(&[client, remote_forward, backward], unasked), peer);
        let all = [forwarded, backward, remote_forward, client];
        assert_eq!(choose(&all, listening), peer);
        // Without the listener nobody can tell.
        assert_eq!(choose(&all, Vec::new), None);
        assert_eq!(choose(&[remote_forward], unasked), None);
        // The listener itself, which has just accepted somebody.
        assert_eq!(choose(&[listener, client], unasked), None);
        assert_eq!(choose(&[], unasked), None);
    }

    /// Both ways, of a process of our own, which has other sockets besides.
    #[test]
    fn the_other_end_of_a_connection_of_our_own() {
        let proc = Proc::open(Path::new("/proc")).unwrap();
        let pid = nix::unistd::getpid().as_raw();
        let process = Target {
            pid,
            entry: proc.entry(pid).unwrap(),
        };
        for place in ["127.0.0.1:0", "[::]:0"] {
            // A host may be without IPv6.
            let Ok(listener) = TcpListener::bind(place) else {
                assert_ne!(place, "127.0.0.1:0");
                continue;
            };
            let port = listener.local_addr().unwrap().port();
            let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let (server, _) = listener.accept().unwrap();
            let expected = (client.local_addr().unwrap(), client.peer_addr().unwrap());
            let deadline = Instant::now() + Duration::from_secs(60);
            let own = descriptors(&process.entry);
            let copied = copied(&process, &own).unwrap();
            let none = BTreeMap::new();
            let table = Tables::read(&process, &own, &none, deadline).unwrap().own;
            for sockets in [copied, table] {
                let mut of_port: Vec<_> = sockets
                    .iter()
                    .filter(|socket| socket.local.port() == port)
                    .collect();
                of_port.sort_by_key(|socket| socket.listens);
                let [accepted, listening] = of_port[..] else {
                    panic!("{of_port:?}");
                };
                assert_eq!((accepted.remote, accepted.local.port()), (expected.0, port));
                assert_eq!(accepted.local.ip().to_canonical(), expected.1.ip());
                assert!(listening.listens && !accepted.listens);
            }
            drop(server);
        }
        let late = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
        let own = descriptors(&process.entry);
        assert!(Tables::read(&process, &own, &own, late).is_none());
    }
}
