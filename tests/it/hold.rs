//! Whoever opens a file waits for the daemon only while a new one is made, and
//! never for one that has died.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use ssh_keywatch::sys::fanotify::{NotificationGroup, PermissionGroup, mask};

use crate::attribution::overdue;
use crate::document::{ANY, Document, any_creation};
use crate::host::{ANN, Host, ROOT, TOOLS};
use crate::process::{Process, SOON};

/// More than any open takes, less than a person would wait for a login.
const AT_ONCE: Duration = Duration::from_secs(5);

/// Waits until the process sleeps in the kernel for an answer of the daemon.
#[track_caller]
fn assert_held(process: &Process) {
    let path = format!("/proc/{}/wchan", process.pid());
    let until = Instant::now() + AT_ONCE;
    loop {
        let place = std::fs::read_to_string(&path).unwrap();
        if place.starts_with("fanotify") {
            return;
        }
        assert!(!process.has_ended(), "it was not held");
        assert!(Instant::now() < until, "it is not held but in {place:?}");
        std::thread::yield_now();
    }
}

#[test]
fn no_login_waits_for_a_daemon_that_does_not_answer() {
    for host in [Host::new(), Host::on_disk()] {
        host.sh(ANN, "mkdir -m 700 .ssh; echo old > .ssh/authorized_keys")
            .ok();
        let daemon = host.daemon().rule("any", &any_creation()).start();
        // Made while it runs, and settled: as free as what was there before.
        host.sh(ANN, "echo new > .ssh/config").ok();
        daemon.alert(ANY, &ANN.ssh("config"));
        daemon.signal(Signal::SIGSTOP);
        for (file, text) in [("authorized_keys", "old\n"), ("config", "new\n")] {
            let read = host
                .command("cat")
                .args([ANN.ssh(file)])
                .user(ANN)
                .output_within(AT_ONCE);
            assert!(read.status.success(), "{file} could not be read: {read:?}");
            assert_eq!(read.stdout, text);
        }
        let changed = host
            .sh(ANN, "echo more >> .ssh/authorized_keys; ls -l .ssh")
            .output_within(AT_ONCE);
        assert!(changed.status.success(), "{changed:?}");
        daemon.kill();
    }
}

#[test]
fn whoever_waits_goes_on_when_the_daemon_is_killed() {
    let host = Host::new();
    host.sh(ANN, "mkdir -m 700 .ssh").ok();
    let daemon = host.daemon().start();
    daemon.signal(Signal::SIGSTOP);
    let mut waiting: Vec<Process> = (0..8)
        .map(|number| {
            host.command(format!("{TOOLS}/creator"))
                .args([ANN.ssh(&format!("new{number}"))])
                .user(ANN)
                .spawn_silent()
        })
        .collect();
    for process in &waiting {
        assert_held(process);
    }
    daemon.kill();
    for process in &mut waiting {
        let status = process.end(AT_ONCE);
        assert!(status.success(), "an opener ended with {status}");
    }
}

#[test]
fn whoever_waits_can_be_killed() {
    let host = Host::new();
    host.sh(ANN, "mkdir -m 700 .ssh").ok();
    let daemon = host.daemon().rule("any", &any_creation()).start();
    daemon.signal(Signal::SIGSTOP);
    let mut waiting = host
        .command(format!("{TOOLS}/creator"))
        .args([ANN.ssh("killed")])
        .user(ANN)
        .spawn_silent();
    assert_held(&waiting);
    waiting.signal(Signal::SIGKILL);
    assert_eq!(waiting.end(AT_ONCE).signal(), Some(9));
    daemon.signal(Signal::SIGCONT);
    // It goes on as if nothing had been.
    host.command(format!("{TOOLS}/creator"))
        .args([ANN.ssh("next")])
        .user(ANN)
        .ok();
    let next = daemon.alert(ANY, &ANN.ssh("next"));
    assert_eq!(next.text("process.executable"), "/run/it/tools/creator");
    // The file is there, though its maker never wrote to it.
    daemon.alert(ANY, &ANN.ssh("killed"));
    daemon.stop();
}

#[test]
fn a_daemon_that_was_stopped_for_a_while_names_all_who_waited() {
    let host = Host::new();
    host.sh(ANN, "mkdir -m 700 .ssh").ok();
    let daemon = host.daemon().rule("any", &any_creation()).start();
    daemon.signal(Signal::SIGSTOP);
    let mut waiting: Vec<(String, Process)> = (0..8)
        .map(|number| {
            let path = ANN.ssh(&format!("new{number}"));
            let cmd = host.command(format!("{TOOLS}/creator")).args([&path]);
            (path, cmd.user(ANN).spawn_silent())
        })
        .collect();
    for (_, process) in &waiting {
        assert_held(process);
    }
    daemon.signal(Signal::SIGCONT);
    let mut unnamed = 0;
    for (path, process) in &mut waiting {
        assert!(process.end(AT_ONCE).success());
        let alert = daemon.alert(ANY, path);
        assert_eq!(alert.number("process.pid"), Some(process.pid().into()));
        unnamed += usize::from(!names_the_creator(&alert));
    }
    let overdue = overdue(&daemon.stop());
    assert!(unnamed <= overdue, "{unnamed} unnamed, {overdue} let go");
}

/// Whether it names the program that made the file; then that alone, and else none.
#[track_caller]
fn names_the_creator(alert: &Document) -> bool {
    let named = alert.text("process.executable");
    let shown = format!(
        "{} {}",
        alert.brief(),
        alert.get("ssh_keywatch.attribution")
    );
    assert!(["", "/run/it/tools/creator"].contains(&named), "{shown}");
    let certain = alert.get("ssh_keywatch.attribution.certain");
    assert!(certain == false || !named.is_empty(), "{shown}");
    !named.is_empty()
}

#[test]
fn a_writer_that_exits_at_once_is_named() {
    const TIMES: usize = 300;
    let host = Host::new();
    host.sh(ANN, "mkdir -m 700 .ssh").ok();
    let daemon = host.daemon().rule("any", &any_creation()).start();
    let script = format!(
        "i=0
         while [ $i -lt {TIMES} ]; do
             {TOOLS}/creator .ssh/file$i &
             echo $! .ssh/file$i
             wait $!
             i=$((i + 1))
         done"
    );
    let made = host.sh(ANN, &script).ok().stdout;
    daemon.alert(ANY, &ANN.ssh(&format!("file{}", TIMES - 1)));
    let ended = daemon.stop();
    assert_eq!(ended.alerts(ANY).len(), TIMES);
    let mut unsure = 0;
    for line in made.lines() {
        let (pid, name) = line.split_once(' ').unwrap();
        let alert = ended.alert(ANY, &format!("{}/{name}", ANN.home));
        let shown = alert.brief();
        assert_eq!(alert.number("process.pid"), pid.parse().ok(), "{shown}");
        let certain = alert.get("ssh_keywatch.attribution.certain") == true;
        if !names_the_creator(alert) || !certain {
            unsure += 1;
            continue;
        }
        // Where the processor is so busy that the hold cannot be made sure, the
        // process table is.
        let method = alert.text("ssh_keywatch.attribution.method");
        assert!(matches!(method, "held" | "recorded"), "{shown}");
        assert_eq!(alert.text("user.name"), "ann", "{shown}");
    }
    let overdue = overdue(&ended);
    assert!(unsure <= overdue, "{unsure} unsure, {overdue} let go");
    ended.assert_nothing_lost();
}

#[test]
fn no_writer_is_refused_or_left_waiting_when_the_daemon_ends() {
    let host = Host::new();
    host.sh(ANN, "mkdir -m 700 .ssh").ok();
    let daemon = host.daemon().rule("any", &any_creation()).start();
    let writers: Vec<_> = (0..4)
        .map(|number| {
            let script = format!(
                "i=0
                 while [ $i -lt 200 ]; do
                     echo line > .ssh/file{number}.$i; cat .ssh/file{number}.$i > /dev/null
                     i=$((i + 1))
                 done"
            );
            host.sh(ANN, &script).spawn_silent()
        })
        .collect();
    daemon.line("alert in the midst", |document| {
        document.is_alert_of(ANY) && document.text("file.path").ends_with(".20")
    });
    daemon.stop();
    for mut writer in writers {
        let status = writer.end(SOON);
        assert!(status.success(), "a writer ended with {status}");
    }
}

#[test]
fn hold_all_and_hold_off_name_a_writer_that_stays() {
    // On a busy machine it may be let go, or not be sure: then the next one is.
    let mut held = (0..5).map(|_| a_writer_that_stays("all"));
    assert!(held.any(|is_held| is_held), "nobody is held for sure");
    a_writer_that_stays("off");
}

/// Whether it is named by its hold, for sure.
#[track_caller]
fn a_writer_that_stays(hold: &str) -> bool {
    let host = Host::new();
    host.sh(
        ROOT,
        "mkdir -m 700 .ssh; echo old > .ssh/old; mkfifo ready go",
    )
    .ok();
    let daemon = host
        .daemon()
        .args(["--hold", hold])
        .rule("any", &any_creation())
        .start();
    let script = "read -r x < ready; read -r x < go; echo > .ssh/new; cat .ssh/old; exec sleep 60";
    let shell = host.sh(ROOT, script).spawn_silent();
    // Between its exec and its deed the daemon looks at something else, so
    // that without a hold, too, only one program is possible.
    host.sh(ROOT, "echo > ready; echo > .ssh/between").ok();
    daemon.alert(ANY, &ROOT.ssh("between"));
    host.sh(ROOT, "echo > go").ok();
    let alert = daemon.alert(ANY, &ROOT.ssh("new"));
    daemon.stop();
    let shown = alert.brief();
    assert_eq!(
        alert.number("process.pid"),
        Some(shell.pid().into()),
        "{shown}"
    );
    let is_dash = alert.is("process.executable", "/usr/bin/dash");
    let certain = alert.get("ssh_keywatch.attribution.certain") == true;
    assert!(is_dash || !certain, "{shown}");
    // It has become sleep by now, perhaps: then both are possible.
    let named = alert.get("ssh_keywatch.attribution").to_string();
    assert!(is_dash || named.contains("/usr/bin/dash"), "{shown}");
    assert_ne!(alert.text("process.executable"), "/usr/bin/sleep");
    certain && alert.is("ssh_keywatch.attribution.method", "held")
}

/// The processors that a thread of process `pid` may run on.
fn processors(pid: u32, name: &str) -> String {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let mut tasks = tasks.map(|task| task.unwrap().path());
    let is_it = |task: &std::path::PathBuf| {
        let comm = std::fs::read_to_string(task.join("comm"));
        comm.is_ok_and(|comm| comm.trim() == name)
    };
    let task = tasks.find(is_it).expect("there is such a thread");
    let status = std::fs::read_to_string(task.join("status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("Cpus_allowed:"));
    line.unwrap().to_owned()
}

#[test]
fn a_key_tool_has_its_processor_for_itself() {
    let host = Host::new();
    host.sh(ROOT, "cp /usr/bin/sleep .").ok();
    let daemon = host
        .daemon()
        .config("[watch]\nkey_tools = [\"/root/sleep\"]\n")
        .start();
    let threads = || ["watch", "hold"].map(|name| processors(daemon.pid(), name));
    let all = threads();
    let wait = |what: &str, is: &dyn Fn(&String, &String) -> bool| {
        let until = Instant::now() + SOON;
        while !threads().iter().zip(&all).all(|(now, all)| is(now, all)) {
            assert!(Instant::now() < until, "{what}: {:?} of {all:?}", threads());
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    if std::thread::available_parallelism().unwrap().get() == 1 {
        host.sh(ROOT, "./sleep 0.1").ok();
        return assert_eq!(threads(), all, "there is no other processor");
    }
    let mut tool = host.sh(ROOT, "exec ./sleep 60").spawn_silent();
    wait("nothing was left to it", &|now, all| now != all);
    tool.signal(Signal::SIGKILL);
    tool.end(SOON);
    wait("it was not given back", &|now, all| now == all);
    daemon.stop();
}

/// Where both groups have a mark, who waits in one keeps the other from being released.
/// When the daemon is killed the kernel releases the descriptors with higher numbers first:
/// that must be the group that people wait in.
#[test]
fn the_group_that_openers_wait_in_is_released_first() {
    let low: Vec<_> = (0..8).map(|_| File::open("/dev/null").unwrap()).collect();
    let notification = NotificationGroup::new().unwrap();
    drop(low);
    let permission = PermissionGroup::above(&notification).unwrap();
    let [first, last] = [permission.as_fd(), notification.as_fd()].map(|fd| fd.as_raw_fd());
    assert!(first > last, "{first} {last}");
    // Opened again, it has the same number.
    permission.close().unwrap();
    permission.reopen().unwrap();
    assert!(permission.answered());
    assert_eq!(permission.as_fd().as_raw_fd(), first);
    let flags = nix::fcntl::fcntl(&permission, nix::fcntl::FcntlArg::F_GETFD).unwrap();
    assert_eq!(flags, nix::fcntl::FdFlag::FD_CLOEXEC.bits());
}

/// Directories that are found in between are not marked, or their openers would wait for
/// a thread that has not begun.
#[test]
fn a_group_that_is_opened_again_holds_nobody_before_it_is_answered() {
    let group = PermissionGroup::new().unwrap();
    assert!(group.is_open() && !group.answered());
    group.close().unwrap();
    assert!(!group.is_open() && !group.answered());
    group.reopen().unwrap();
    assert!(!group.is_open());
    assert!(group.answered() && group.is_open());
    group.close().unwrap();
    group.reopen().unwrap();
    // By a thread that fails at once.
    group.close().unwrap();
    assert!(!group.answered() && !group.is_open());
}

/// The kernel opens the file of a record while the record is read. If that fails, it refuses
/// the opener, and what is behind can be read.
#[test]
fn a_leased_file_keeps_the_reading_of_no_record_waiting() {
    let host = Host::new();
    host.sh(ANN, "mkdir -m 700 .ssh; echo > .ssh/free").ok();
    let script = "open(F, '+>', '.ssh/leased') and fcntl(F, 1024, 1) or die; # F_SETLEASE, F_WRLCK
        $SIG{IO} = 'IGNORE'; $| = 1; print \"leased\\n\"; <STDIN>";
    let holder = host.command("perl").args(["-e", script]);
    let mut holder = holder.user(ANN).directory(ANN.home).spawn_talking();
    let mut said = [0; 7];
    holder.stdout().read_exact(&mut said).unwrap();

    let group = PermissionGroup::new().unwrap();
    let dir = File::open(host.path(&ANN.ssh(""))).unwrap();
    let marked = mask::OPEN_PERM | mask::EVENT_ON_CHILD;
    group.mark_directory(dir.as_fd(), marked).unwrap();
    // The one after the other.
    let mut openers: Vec<Process> = ["leased", "free"]
        .iter()
        .map(|name| {
            let opener = host.command("cat").args([ANN.ssh(name)]).user(ANN);
            let opener = opener.spawn_silent();
            assert_held(&opener);
            opener
        })
        .collect();
    let (read, done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut fds = [PollFd::new(group.as_fd(), PollFlags::POLLIN)];
        let mut answered = 0;
        while answered == 0 && poll(&mut fds, PollTimeout::from(5000u16)) == Ok(1) {
            // Room for one, as the answering thread has.
            group
                .read(&mut [0; 24], |record| {
                    group.allow(record.fd.as_ref().unwrap().as_fd()).unwrap();
                    answered += 1;
                })
                .unwrap();
        }
        read.send(answered).unwrap();
    });
    assert_eq!(done.recv_timeout(AT_ONCE), Ok(1));
    assert!(openers[1].end(AT_ONCE).success());
    assert_eq!(openers[0].end(AT_ONCE).code(), Some(1), "the price");
    holder.close_stdin();
    assert!(holder.end(AT_ONCE).success());
}
