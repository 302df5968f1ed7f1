//! System calls, tried by a process of its own under the list.

use std::fs::File;
use std::io;
use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use nix::errno::Errno;
use seccompiler::apply_filter;

use super::*;

/// Runs `act` on a thread that may make no other calls.
fn filtered<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            install(apply_filter).unwrap();
            act()
        });
        thread.join().unwrap()
    })
}

fn is_refused<T>(result: io::Result<T>) -> bool {
    result.is_err_and(|error| error.raw_os_error() == Some(libc::EPERM))
}

#[test]
fn what_is_not_on_the_list_is_refused() {
    filtered(|| {
        assert!(is_refused(UdpSocket::bind("127.0.0.1:0")));
        assert_eq!(nix::unistd::sethostname("x"), Err(Errno::EPERM));
        let flags = nix::sched::CloneFlags::CLONE_NEWNS;
        assert_eq!(nix::sched::unshare(flags), Err(Errno::EPERM));
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        let made = nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU);
        assert_eq!(made, Err(Errno::EPERM));
        // Signals go to nobody else.
        let parent = nix::unistd::getppid();
        assert_eq!(nix::sys::signal::kill(parent, None), Err(Errno::EPERM));
    });
    assert!(UdpSocket::bind("127.0.0.1:0").is_ok(), "only that thread");
}

#[test]
fn what_the_daemon_does_goes_on() {
    let ended = filtered(|| {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "x").unwrap();
        std::fs::rename(&file, directory.path().join("other")).unwrap();
        UnixDatagram::unbound().unwrap();
        // The C library asks for clone3 and takes clone.
        let named = std::thread::Builder::new().name("named".to_owned());
        let thread = named.spawn(|| std::thread::current().name().map(str::to_owned));
        let name = thread.unwrap().join().unwrap();
        assert_eq!(name.as_deref(), Some("named"));
        // By the name service.
        let root = nix::unistd::User::from_uid(0.into()).unwrap().unwrap();
        assert_eq!(root.name, "root");
        let own = File::open("/proc/thread-self/status").unwrap();
        io::read_to_string(own).unwrap()
    });
    assert!(ended.contains("\nSeccomp:\t2\n"), "{ended}");
    assert!(ended.contains("\nNoNewPrivs:\t1\n"), "{ended}");
}

/// What [`running_a_program_kills`] runs in a process of its own.
const ALONE: &str = "SSH_KEYWATCH_TEST_ALONE";

#[test]
fn running_a_program_kills() {
    if std::env::var_os(ALONE).is_some() {
        let program = Command::new("/bin/true");
        filtered(move || {
            // exec(2) without a fork(2) in front of it.
            let error = std::os::unix::process::CommandExt::exec(&mut { program });
            panic!("still alive: {error}");
        });
        return;
    }
    let name = concat!(module_path!(), "::running_a_program_kills");
    let name = name.split_once("::").unwrap().1;
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    assert_eq!(
        child.status.signal(),
        Some(libc::SIGSYS),
        "{:?}: {}",
        child.status,
        String::from_utf8_lossy(&child.stderr)
    );
}

#[test]
fn no_call_is_both_allowed_and_deadly() {
    let allowed = allowed().unwrap();
    for call in DEADLY {
        assert!(!allowed.contains_key(call), "{call}");
    }
}
