//! Whatever happens around it, the daemon keeps nobody waiting, and goes on.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::attribution::{any_change, made, overdue, runs};
use crate::daemon::Daemon;
use crate::document::{ANY, Document, any_creation};
use crate::holding::Stopped;
use crate::host::{ANN, BOB, Host, ROOT, TOOLS, User};
use crate::process::{Process, SOON};

/// Longer than anything takes that nobody is kept from.
const AT_ONCE: Duration = Duration::from_secs(10);

/// Makes `count` files one after another, which must not take long, and
/// returns who made which.
#[track_caller]
fn make(host: &Host, user: User, prefix: &str, count: usize) -> Vec<crate::attribution::Made> {
    let output = host
        .command(format!("{TOOLS}/spawn"))
        .args([&count.to_string(), &user.ssh(prefix)])
        .args([&format!("{TOOLS}/act"), "create"])
        .user(user)
        .output_within(AT_ONCE);
    assert!(output.status.success(), "{output:?}");
    made(&output.stdout)
}

/// Each of them is alerted and laid to who made it.
#[track_caller]
fn assert_named(daemon: &Daemon<'_>, files: &[crate::attribution::Made]) {
    for file in files {
        let alert = daemon.alert(ANY, &file.path);
        let shown = format!(
            "{} {}",
            alert.brief(),
            alert.get("ssh_keywatch.attribution")
        );
        assert_eq!(alert.number("process.pid"), Some(file.pid), "{shown}");
        let program = alert.get("process.executable");
        assert!(
            program.is_null() || program == "/run/it/tools/act",
            "{shown}"
        );
    }
}

fn start(host: &Host) -> Daemon<'_> {
    host.sh(ANN, "mkdir -m 700 .ssh").ok();
    host.daemon().rule("any", &any_creation()).start()
}

/// A process that keeps whoever reads its arguments waiting.
struct Stalled {
    path: String,
    /// The server of its file system: as long as it lives nothing ends the process.
    server: Pid,
    process: Process,
}

impl Stalled {
    fn start(host: &Host, number: usize) -> Self {
        let path = ANN.ssh(&format!("stalled{number}"));
        let mut process = host
            .command(format!("{TOOLS}/stall"))
            .args([&format!("/srv/{number}"), &path])
            .spawn();
        let mut server = String::new();
        BufReader::new(process.stdout())
            .read_line(&mut server)
            .unwrap();
        Self {
            path,
            server: Pid::from_raw(server.trim().parse().expect("the server's pid")),
            process,
        }
    }
}

impl Drop for Stalled {
    fn drop(&mut self) {
        // It is a child of the process, so its pid is its own until that ends.
        let _ = kill(self.server, Signal::SIGKILL);
    }
}

/// More of them than there are threads to read arguments.
#[test]
fn a_process_whose_arguments_cannot_be_read_keeps_nobody_waiting() {
    const PROCESSES: usize = 6;
    let host = Host::on_disk();
    let daemon = start(&host);
    host.sh(ROOT, "mkdir -p /srv/1 /srv/2 /srv/3 /srv/4 /srv/5 /srv/6")
        .ok();
    let mut stalled: Vec<Stalled> = (1..=PROCESSES)
        .map(|number| Stalled::start(&host, number))
        .collect();
    for Stalled { path, process, .. } in &mut stalled {
        let alert = daemon.alert(ANY, path);
        let shown = format!(
            "{} {}",
            alert.brief(),
            alert.get("ssh_keywatch.attribution")
        );
        assert_eq!(
            alert.number("process.pid"),
            Some(process.pid().into()),
            "{shown}"
        );
        assert_eq!(
            alert.text("process.executable"),
            "/run/it/tools/stall",
            "{shown}"
        );
        assert!(alert.get("process.args").is_null(), "{shown}");
    }
    // While they live and every thread that reads arguments is stuck.
    let files = make(&host, ANN, "meanwhile", 20);
    assert_named(&daemon, &files);
    drop(stalled);
    let ended = daemon.stop();
    assert!(!ended.log.iter().any(|line| line.is_state("degraded")));
    ended.assert_nothing_lost();
}

#[test]
fn a_log_that_hangs_keeps_nobody_waiting() {
    let host = Host::on_disk();
    let daemon = start(&host);
    // As if the disk did not answer.
    let hangs = Stopped::thread(daemon.pid(), "sink-log");
    let files = make(&host, ANN, "file", 50);
    drop(hangs);
    assert_named(&daemon, &files);
    let ended = daemon.stop();
    assert!(!ended.log.iter().any(|line| line.is_state("degraded")));
    ended.assert_nothing_lost();
}

#[test]
fn opens_as_fast_as_can_be_do_not_stop_it() {
    let host = Host::on_disk();
    host.sh(ANN, "mkdir -m 700 .ssh; echo old > .ssh/authorized_keys")
        .ok();
    host.sh(BOB, "mkdir -m 700 .ssh").ok();
    let daemon = host.daemon().rule("any", &any_change()).start();
    let settled = ANN.ssh("authorized_keys");
    let flood = |how: &str, path: &str| {
        let cmd = host.command(format!("{TOOLS}/spawn")).user(ANN);
        cmd.args(["flood", how, &runs(3).to_string(), path])
    };
    let rates: Vec<String> = std::thread::scope(|scope| {
        let floods: Vec<_> = [("read", settled.clone()), ("make", ANN.ssh("flood"))]
            .map(|(how, path)| {
                let cmd = flood(how, &path);
                scope.spawn(move || cmd.output_within(SOON * 3))
            })
            .into_iter()
            .collect();
        // Somebody else makes a file meanwhile: the home of the flood may be muted.
        let files = make(&host, BOB, "meanwhile", 5);
        assert_named(&daemon, &files);
        floods
            .into_iter()
            .map(|flood| {
                let output = flood.join().unwrap();
                assert!(output.status.success(), "{output:?}");
                output.stdout.trim().to_owned()
            })
            .collect()
    });
    let after = make(&host, BOB, "after", 5);
    assert_named(&daemon, &after);
    let ended = daemon.stop();
    println!(
        "{}; {} openers were let go",
        rates.join(", "),
        overdue(&ended)
    );
    let pids = ended.alerts(ANY);
    let other = pids.iter().find(|alert| {
        let program = alert.text("process.executable");
        let of_flood = alert.text("file.path").contains("/flood.");
        of_flood && !program.is_empty() && program != "/run/it/tools/spawn"
    });
    assert!(other.is_none(), "{}", other.unwrap().brief());
}

/// With hardly more descriptors than it needs.
#[test]
fn few_descriptors_refuse_nobody() {
    let host = Host::on_disk();
    let daemon = start(&host);
    let limited =
        host.command("prlimit")
            .args(["--pid", &daemon.pid().to_string(), "--nofile=256:256"]);
    limited.ok();
    let spawners: Vec<_> = (0..4)
        .map(|number| ANN.ssh(&format!("burst{number}")))
        .collect();
    std::thread::scope(|scope| {
        for prefix in &spawners {
            let cmd = host
                .command(format!("{TOOLS}/spawn"))
                .args(["50", prefix, &format!("{TOOLS}/act"), "create"])
                .user(ANN);
            scope.spawn(move || {
                let output = cmd.output_within(SOON);
                assert!(output.status.success(), "refused: {output:?}");
            });
        }
    });
    let files = make(&host, ANN, "after", 3);
    assert_named(&daemon, &files);
    daemon.stop();
}

/// With threads, whoever needs one descriptor more than there is room for waits for tens of
/// milliseconds until there is more (`FDSize` in proc(5) says for how many there is).
#[test]
fn there_is_room_for_the_descriptors_of_a_flood_from_the_start() {
    let host = Host::new();
    let daemon = start(&host);
    let size = daemon.status("FDSize:");
    assert!(size >= 16 * 1024, "{size}");
    daemon.stop();
}

/// It ends rather than that it goes on with half of what it knows; the next start tells the
/// rest.
#[test]
fn a_daemon_that_gets_no_more_memory_keeps_nobody_waiting_and_loses_nothing() {
    let host = Host::on_disk();
    host.sh(BOB, "mkdir -m 700 .ssh").ok();
    let mut daemon = start(&host);
    let files = make(&host, BOB, "before", 3);
    assert_named(&daemon, &files);
    let limit = format!("--as={}", daemon.status("VmSize:") << 10);
    host.command("prlimit")
        .args(["--pid", &daemon.pid().to_string(), &limit])
        .ok();
    // Each of these takes memory for a while.
    let flood = host.command(format!("{TOOLS}/flood")).user(ANN);
    let output = flood
        .args(["files", "3000", &ANN.ssh("")])
        .output_within(SOON * 3);
    assert!(
        output.status.success(),
        "refused or kept waiting: {output:?}"
    );
    let key = BOB.ssh("id_ed25519");
    host.sh(BOB, "ssh-keygen -q -t ed25519 -N '' -f .ssh/id_ed25519")
        .ok();
    let (status, stderr) = daemon.end_somehow(Signal::SIGKILL);
    let aborted = Some(Signal::SIGABRT as i32);
    assert_eq!(status.signal(), aborted, "it had enough: {stderr:?}");
    // What the allocator says, or a thread that starts.
    let words = ["memory allocation of", "Cannot allocate memory"];
    let said = |line: &String| words.iter().any(|words| line.contains(words));
    assert!(stderr.iter().any(said), "{stderr:?}");

    let daemon = host.daemon().rule("any", &any_creation()).start();
    let alert = daemon.find(SOON * 3, "the key", |log| {
        let is_it = |line: &&Document| line.is_alert_of(ANY) && line.is("file.path", &key);
        log.iter().find(is_it).cloned()
    });
    assert!(
        alert.is("ssh_keywatch.attribution.method", "none"),
        "{}",
        alert.brief()
    );
    // It has thousands of others still to tell.
    daemon.kill();
}

/// Whoever owns a file may lease it (`F_SETLEASE` in fcntl(2)): who opens it then waits until
/// the lease is given up, for 45 seconds at most. A record's file is opened for us, too.
#[test]
fn a_lease_keeps_nobody_else_waiting() {
    let host = Host::on_disk();
    host.sh(ROOT, "mkdir -m 700 .ssh").ok();
    let daemon = start(&host);
    // Until the daemon has let go of the new file it cannot be leased; once it has settled,
    // nobody is held who opens it.
    let script = "use Errno 'EPERM'; $SIG{IO} = 'IGNORE'; $refused = 0;
        for (1 .. 5) {
            open(F, '+>', \".ssh/leased$_\") or die;
            1 until fcntl(F, 1024, 1);
            if ($pid = fork) { waitpid($pid, 0); $refused++ if $? >> 8 == EPERM; next }
            sysopen(G, \".ssh/leased$_\", 2048) or exit $!; # O_NONBLOCK
            exit 0;
        }
        print $refused";
    let leases = host.command("perl").args(["-e", script]);
    let leases = leases.user(ANN).directory(ANN.home);
    std::thread::scope(|scope| {
        let leases = scope.spawn(move || leases.output_within(SOON));
        // While it goes on, and afterwards.
        let files = make(&host, ROOT, "meanwhile", 20);
        assert_named(&daemon, &files);
        let output = leases.join().unwrap();
        assert!(output.status.success(), "kept waiting: {output:?}");
        assert_ne!(output.stdout, "0", "nobody was held: {output:?}");
    });
    let files = make(&host, ROOT, "after", 5);
    assert_named(&daemon, &files);
    let ended = daemon.stop();
    assert!(!ended.log.iter().any(|line| line.is_state("degraded")));
    // On a busy machine somebody may be: not whoever is behind a lease.
    assert!(overdue(&ended) < 5, "{}", overdue(&ended));
    ended.assert_nothing_lost();
}

#[test]
fn what_is_no_file_stops_nothing() {
    let host = Host::on_disk();
    let daemon = start(&host);
    let script = "cd .ssh; mkfifo fifo; ln -s fifo link; ln -s /dev/tty device
        perl -MSocket -e 'socket(S, AF_UNIX, SOCK_STREAM, 0); bind(S, sockaddr_un(\"socket\"))'";
    host.sh(ANN, script).ok();
    for name in ["fifo", "link", "device", "socket"] {
        daemon.alert(ANY, &ANN.ssh(name));
    }
    // Opened by others, too: this one waits for a writer.
    let waiting = host.sh(ANN, "cat .ssh/fifo").spawn_silent();
    host.sh(
        ROOT,
        "mknod /home/ann/.ssh/null c 1 3; : > /home/ann/.ssh/null",
    )
    .ok();
    let files = make(&host, ANN, "after", 3);
    assert_named(&daemon, &files);
    assert!(!waiting.has_ended());
    daemon.stop().assert_nothing_lost();
}

#[test]
fn directories_without_end_are_bounded_and_said() {
    let host = Host::on_disk();
    host.sh(ANN, "mkdir -m 700 .ssh").ok();
    let daemon = host
        .daemon()
        .config("[watch]\nmax_directories = 30\n")
        .rule("any", &any_creation())
        .start();
    host.sh(ANN, "for i in $(seq 50); do mkdir .ssh/d$i; done")
        .ok();
    daemon.line("word about the limit", |line| {
        line.is("event.kind", "pipeline_error") && line.is("event.code", "directory_limit")
    });
    let files = make(&host, ANN, "after", 3);
    assert_named(&daemon, &files);
    daemon.stop();
}
