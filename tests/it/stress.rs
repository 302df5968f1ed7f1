//! Every file of a thousand real runs of ssh-keygen is alerted exactly once and
//! rightly, while both cores are busy.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::attribution::overdue;
use crate::daemon::Daemon;
use crate::document::{ANY, Document, SEED, any_creation};
use crate::host::{Host, ROOT};
use crate::process::{Output, Process, SOON};

const RUNS: u32 = 1000;
const FRESH: u32 = 240;
const SPAWNERS: u32 = 4;
/// For all runs of one test together.
const BOUND: Duration = Duration::from_secs(150);

/// Loops that keep each core busy, until dropped.
fn busy(host: &Host) -> Vec<Process> {
    let spin = || host.sh(ROOT, "while :; do :; done").spawn_silent();
    (0..2).map(|_| spin()).collect()
}

fn start(host: &Host) -> Daemon<'_> {
    // Thousands of alerts, which the test reads in one file.
    host.daemon()
        .config("[log]\nmax_size = \"1G\"\n")
        .rule("any", &any_creation())
        .start()
}

/// Runs the script once a spawner, with the spawner's number as `$1`. It says
/// `PID UID PATH` of each key that it has made.
fn spawn_all(host: &Host, script: &str) -> BTreeMap<String, (u64, String)> {
    let outputs: Vec<Output> = std::thread::scope(|scope| {
        let spawners: Vec<_> = (0..SPAWNERS)
            .map(|number| {
                let cmd = host.sh(ROOT, script).args([number.to_string()]);
                scope.spawn(move || cmd.output_within(BOUND))
            })
            .collect();
        spawners
            .into_iter()
            .map(|spawner| spawner.join().unwrap())
            .collect()
    });
    let mut made = BTreeMap::new();
    for output in outputs {
        assert!(output.status.success(), "{output:?}");
        for line in output.stdout.lines() {
            let mut words = line.split(' ');
            let mut word = || words.next().unwrap().to_owned();
            let (pid, uid, path) = (word().parse().unwrap(), word(), word());
            made.insert(format!("{path}.pub"), (pid, uid.clone()));
            made.insert(path, (pid, uid));
        }
    }
    made
}

/// At most so many mistakes are shown.
const SHOWN: usize = 12;

#[track_caller]
fn assert_each_once(daemon: Daemon<'_>, made: &BTreeMap<String, (u64, String)>) {
    let (mut read, mut seen) = (0, 0);
    daemon.find(SOON, "creation of each file", |log| {
        let is = |document: &&Document| {
            document.is_alert_of(ANY) && made.contains_key(document.text("file.path"))
        };
        seen += log[read..].iter().filter(is).count();
        read = log.len();
        (seen >= made.len()).then_some(())
    });
    let ended = daemon.stop();
    let mut alerts: BTreeMap<&str, Vec<&Document>> = BTreeMap::new();
    let mut events: BTreeMap<&str, Vec<&Document>> = BTreeMap::new();
    for document in ended.log.iter().filter(|document| document.is_alert()) {
        let of = if document.is("rule.id", SEED) {
            &mut alerts
        } else {
            &mut events
        };
        of.entry(document.text("file.path"))
            .or_default()
            .push(document);
    }
    let (mut mistakes, mut unnamed) = (Vec::new(), 0);
    for (path, (pid, uid)) in made {
        // Of whoever was let go, what made the file may be one of several.
        let is_open = |seen: &Document| {
            let attribution = seen.get("ssh_keywatch.attribution");
            let mut candidates = attribution["candidates"].as_array().into_iter().flatten();
            let mut may_be = |program| candidates.any(|image| image["executable"] == program);
            seen.number("process.pid") == Some(*pid)
                && ["", uid].contains(&seen.text("user.id"))
                && seen.get("process.executable").is_null()
                && attribution["certain"] == false
                && may_be("/usr/bin/ssh-keygen")
        };
        let is_right = |alert: &Document| {
            alert.number("process.pid") == Some(*pid)
                && alert.is("user.id", uid)
                && alert.is("process.executable", "/usr/bin/ssh-keygen")
        };
        let seen = events.get(path.as_str());
        match alerts.get(path.as_str()).map(Vec::as_slice) {
            Some([alert]) if is_right(alert) => {}
            Some([alert]) => mistakes.push(format!(
                "{path} by pid {pid} as uid {uid} is alerted wrongly: {}",
                alert.brief()
            )),
            Some(many) => mistakes.push(format!("{path} is alerted {} times", many.len())),
            None if seen.is_some_and(|seen| matches!(seen[..], [seen] if is_open(seen))) => {
                unnamed += 1;
            }
            None => mistakes.push(format!(
                "{path} by pid {pid} is not alerted, for it was seen as: {}",
                seen.map_or("nothing".to_owned(), |seen| seen[0].brief())
            )),
        }
    }
    let strangers = alerts.keys().filter(|path| !made.contains_key(**path));
    mistakes.extend(strangers.map(|path| format!("{path} was alerted, but never made")));
    let count = mistakes.len();
    mistakes.truncate(SHOWN);
    assert!(
        mistakes.is_empty(),
        "{count} of {} files are not alerted as they should be:\n  {}",
        made.len(),
        mistakes.join("\n  ")
    );
    let overdue = overdue(&ended);
    assert!(unnamed <= overdue, "{unnamed} unnamed, {overdue} let go");
    ended.assert_nothing_lost();
}

#[test]
fn each_file_of_1000_runs_is_alerted_once_on_a_busy_machine() {
    let host = Host::on_disk();
    host.sh(
        ROOT,
        "for user in ann bob; do
             mkdir -m 700 /home/$user/.ssh; chown $user: /home/$user/.ssh
         done
         mkdir -m 700 .ssh",
    )
    .ok();
    let daemon = start(&host);
    let busy = busy(&host);
    // Two spawners write as root, one each as ann and bob.
    let script = format!(
        r"case $1 in
               0|3) uid=0 directory=/root/.ssh ;;
               1) uid=4001 directory=/home/ann/.ssh ;;
               2) uid=4002 directory=/home/bob/.ssh ;;
           esac
           i=0
           while [ $i -lt {each} ]; do
               path=$directory/k$1.$i
               setpriv --reuid=$uid --regid=$uid --clear-groups -- \
                   ssh-keygen -q -t ed25519 -N '' -f $path &
               echo $! $uid $path
               wait $!
               i=$((i + 1))
           done",
        each = RUNS / SPAWNERS
    );
    let made = spawn_all(&host, &script);
    assert_eq!(made.len(), 2000);
    drop(busy);
    assert_each_once(daemon, &made);
}

#[test]
fn each_first_key_of_240_fresh_accounts_is_alerted_once_on_a_busy_machine() {
    let host = Host::on_disk();
    host.sh(
        ROOT,
        &format!(
            "for uid in $(seq 5000 {}); do
                 echo f$uid:x:$uid:$uid::/home/f$uid:/bin/sh >> /etc/passwd
                 echo f$uid:x:$uid: >> /etc/group
             done",
            5000 + FRESH - 1
        ),
    )
    .ok();
    let daemon = start(&host);
    let busy = busy(&host);
    // The home, its .ssh and the key come right after one another.
    let script = format!(
        r"uid=$((5000 + $1))
           while [ $uid -lt {end} ]; do
               home=/home/f$uid
               mkdir -m 700 $home
               chown $uid:$uid $home
               setpriv --reuid=$uid --regid=$uid --clear-groups -- \
                   ssh-keygen -q -t ed25519 -N '' -f $home/.ssh/id_ed25519 &
               echo $! $uid $home/.ssh/id_ed25519
               wait $!
               uid=$((uid + {SPAWNERS}))
           done",
        end = 5000 + FRESH
    );
    let made = spawn_all(&host, &script);
    assert_eq!(made.len(), 480);
    drop(busy);
    assert_each_once(daemon, &made);
}
