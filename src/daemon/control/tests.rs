//! The control socket, asked by clients of every kind.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};

use proptest::prelude::*;

use super::*;
use crate::sys::peer::Peer;

/// Longer than anything takes here.
const BOUND: Duration = Duration::from_secs(20);

struct Place {
    _dir: tempfile::TempDir,
    socket: PathBuf,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            socket: dir.path().join("ssh-keywatch/control.sock"),
            _dir: dir,
        }
    }

    fn start(&self, status: impl Fn() -> Value + Send + 'static) -> Result<Control, Fatal> {
        let config = config::Control {
            socket: self.socket.clone(),
            group: "root".to_owned(),
        };
        Control::start(&config, status)
    }

    fn ask(&self) -> Result<Value, AskError> {
        ask(&self.socket, Request::Status, BOUND)
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(BOUND)).unwrap();
        stream
    }

    /// What comes back for these bytes.
    fn answer(&self, request: &[u8]) -> String {
        let mut stream = self.connect();
        stream.write_all(request).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

fn fine() -> Value {
    json!({ "mode": "fine" })
}

#[test]
fn a_request_is_answered_and_the_socket_goes_with_the_daemon() {
    let place = Place::new();
    let control = place.start(fine).unwrap();
    assert_eq!(place.ask().unwrap(), fine());
    let file = std::fs::symlink_metadata(&place.socket).unwrap();
    assert_eq!(file.mode() & 0o7777, 0o660);
    let directory = place.socket.parent().unwrap();
    let names: Vec<_> = std::fs::read_dir(directory).unwrap().collect();
    assert_eq!(names.len(), 1, "{names:?}");
    assert_eq!(
        directory.metadata().unwrap().permissions().mode() & 0o7777,
        0o750
    );
    drop(control);
    assert!(matches!(place.ask(), Err(AskError::NotRunning(_))));
    assert!(!place.socket.exists());
}

#[test]
fn a_socket_that_nobody_listens_on_is_replaced_and_a_live_one_is_not() {
    let place = Place::new();
    std::fs::create_dir(place.socket.parent().unwrap()).unwrap();
    drop(UnixListener::bind(&place.socket).unwrap());
    assert!(place.socket.exists(), "left behind, as by a crash");
    let control = place.start(fine).unwrap();
    let second = place.start(|| json!("second")).err().unwrap().to_string();
    assert!(second.contains("another daemon answers"), "{second}");
    assert_eq!(place.ask().unwrap(), fine());
    drop(control);
    // Not a socket at all.
    std::fs::write(&place.socket, "text").unwrap();
    let refused = place.start(fine).err().unwrap().to_string();
    assert!(refused.contains("no socket"), "{refused}");
    assert_eq!(std::fs::read(&place.socket).unwrap(), b"text");
}

#[test]
fn a_live_daemon_that_hangs_is_not_replaced_and_the_asker_does_not_hang() {
    let place = Place::new();
    std::fs::create_dir(place.socket.parent().unwrap()).unwrap();
    let hanging = UnixListener::bind(&place.socket).unwrap();
    let bound = Duration::from_millis(50);
    let asked = ask(&place.socket, Request::Status, bound);
    assert!(matches!(asked, Err(AskError::Silent(..))), "{asked:?}");
    // Fill its queue, so that connecting itself waits.
    let mut queued = Vec::new();
    while let Ok(stream) = socket::connect(&place.socket, Duration::ZERO) {
        queued.push(stream);
    }
    let asked = ask(&place.socket, Request::Status, bound);
    assert!(matches!(asked, Err(AskError::Silent(..))), "{asked:?}");
    assert!(place.start(fine).is_err());
    drop(hanging);
}

#[test]
fn removing_leaves_alone_what_somebody_else_has_put_there() {
    let place = Place::new();
    let control = place.start(fine).unwrap();
    std::fs::remove_file(&place.socket).unwrap();
    let other = UnixListener::bind(&place.socket).unwrap();
    drop(control);
    assert!(place.socket.exists());
    drop(other);
}

#[test]
fn slow_and_rude_clients_stop_nobody() {
    let place = Place::new();
    let _control = place.start(fine).unwrap();
    // Many more than are served at once: some say nothing, some half a word,
    // some ask and never read.
    let mut crowd = Vec::new();
    for number in 0..100 {
        let mut stream = place.connect();
        let part: &[u8] = match number % 3 {
            0 => b"",
            1 => b"{\"version\"",
            _ => b"{\"version\":1,\"request\":\"status\"}\n",
        };
        // Those that are too many may have been shown out already.
        let _ = stream.write_all(part);
        crowd.push(stream);
        assert_eq!(place.ask().unwrap(), fine());
    }
    drop(crowd);
    assert_eq!(place.ask().unwrap(), fine());
}

#[test]
fn a_thousand_connections_keep_no_more_than_a_few_and_stop_nobody() {
    crate::daemon::privilege::raise_descriptors();
    let place = Place::new();
    let _control = place.start(fine).unwrap();
    let mut crowd: Vec<UnixStream> = (0..1000).map(|_| place.connect()).collect();
    assert_eq!(place.ask().unwrap(), fine());
    // All but the last have been shown out, without having said a word.
    let mut byte = [0];
    for stream in &mut crowd[..1000 - serve::MAX_CLIENTS] {
        assert_eq!(stream.read(&mut byte).unwrap(), 0);
    }
    assert_eq!(place.ask().unwrap(), fine());
}

#[test]
fn who_sends_a_request_byte_by_byte_is_shown_out_in_time() {
    let place = Place::new();
    let _control = place.start(fine).unwrap();
    let mut slow = place.connect();
    let step = Duration::from_millis(20);
    slow.set_read_timeout(Some(step)).unwrap();
    let start = Instant::now();
    let ended = loop {
        // As many as it takes: a blank is a part of a request.
        if slow.write_all(b" ").is_err() {
            break Ok(0);
        }
        match slow.read(&mut [0; 4096]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => break other,
        }
        assert!(start.elapsed() < BOUND, "still there");
    };
    // Without an answer: it was the time that was over, and not the room.
    assert!(!matches!(ended, Ok(1..)), "{ended:?}");
    assert_eq!(place.ask().unwrap(), fine());
}

#[test]
fn a_huge_request_is_not_read() {
    let place = Place::new();
    let _control = place.start(fine).unwrap();
    let mut stream = place.connect();
    let huge = vec![b'{'; 64 << 20];
    // It is refused long before all is sent.
    let sent = stream.write_all(&huge);
    assert!(sent.is_err(), "64 MiB were taken");
    assert_eq!(place.ask().unwrap(), fine());
}

#[test]
fn an_answer_larger_than_the_sockets_buffer_arrives_whole() {
    let place = Place::new();
    let large = "x".repeat(3 << 20);
    let told = large.clone();
    let _control = place.start(move || json!({ "large": told })).unwrap();
    let answer = place.ask().unwrap();
    assert_eq!(answer["large"].as_str().unwrap().len(), large.len());
}

#[test]
fn what_is_wrong_with_a_request_is_said() {
    let place = Place::new();
    let _control = place.start(fine).unwrap();
    for (request, said) in [
        (&b"\n"[..], "not a request"),
        (b"{\"version\":1}\n", "missing field `request`"),
        (b"{\"version\":2,\"request\":\"status\"}\n", "version 1"),
        (
            b"{\"version\":1,\"request\":\"stop\"}\n",
            "unknown variant `stop`",
        ),
        (
            b"{\"version\":1,\"request\":\"status\",\"x\":1}\n",
            "unknown field `x`",
        ),
        (b"{\"version\":1,\"request\":\"status\"}\n\n", "one request"),
        (&[b' '; MAX_REQUEST], "at most 4096 bytes"),
        (b"\xff\xfe\n", "not a request"),
    ] {
        let answer = place.answer(request);
        assert!(answer.starts_with("{\"version\":1,\"error\":"), "{answer}");
        assert!(answer.contains(said), "no {said:?} in {answer}");
        assert!(
            answer.ends_with('\n') && answer.lines().count() == 1,
            "{answer}"
        );
    }
}

#[test]
fn root_the_daemons_user_and_the_group_may_ask_and_nobody_else() {
    let access = Access {
        uid: 500,
        gid: Some(4),
        group: "adm".to_owned(),
    };
    let peer = |uid, gid, groups: &[u32]| Peer {
        pid: 1,
        uid,
        gid,
        groups: groups.to_vec(),
    };
    assert!(access.allows(&peer(0, 0, &[])));
    assert!(access.allows(&peer(500, 500, &[])));
    assert!(access.allows(&peer(1000, 4, &[])));
    assert!(access.allows(&peer(1000, 1000, &[27, 4])));
    assert!(!access.allows(&peer(1000, 1000, &[27, 44])));
    // Root's group is not root.
    assert!(!access.allows(&peer(1000, 0, &[0])));
    let none = Access {
        gid: None,
        ..access
    };
    assert!(!none.allows(&peer(1000, 4, &[4])));
}

proptest! {
    /// Whatever bytes come, in whatever parts: nothing panics, no more than a
    /// request's length is ever kept, and only the exact words are a request.
    #[test]
    fn any_bytes_are_a_request_or_refused(
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            prop::collection::vec(any::<u8>(), MAX_REQUEST - 2..MAX_REQUEST + 2),
            "\\{\"version\":[0-9]{1,3},\"request\":\"[a-z]{0,8}\"[,}]{0,2}\n{0,2}".prop_map(String::into_bytes),
            "[\\[\\{\"]{0,4096}\n".prop_map(String::into_bytes),
        ],
    ) {
        let parsed = parse(&bytes);
        let exact = serde_json::from_slice::<Value>(&bytes).ok()
            == Some(json!({ "version": VERSION, "request": "status" }));
        let has_line = bytes.contains(&b'\n');
        match parsed {
            Parsed::More => {
                prop_assert!(!has_line);
                prop_assert!(bytes.len() < MAX_REQUEST);
            }
            Parsed::Request(Request::Status) => {
                prop_assert!(exact);
                prop_assert!(bytes.ends_with(b"\n"));
            }
            Parsed::Refused(why) => {
                prop_assert!(has_line || bytes.len() >= MAX_REQUEST);
                prop_assert!(!why.is_empty());
                prop_assert!(!line("error", why.into()).contains(&0x1b));
            }
        }
    }

    /// A request that comes in parts is not complete before its last byte.
    #[test]
    fn a_part_of_a_request_is_never_one(end in 0..b"{\"version\":1,\"request\":\"status\"}\n".len()) {
        let request = b"{\"version\":1,\"request\":\"status\"}\n";
        prop_assert_eq!(parse(&request[..end]), Parsed::More);
        prop_assert_eq!(parse(request), Parsed::Request(Request::Status));
    }
}
