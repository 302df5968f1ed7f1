//! Keys that are to get into `authorized_keys` without an alert.

use crate::attribution::any_change;
use crate::document::{ANY, Document, rule};
use crate::host::{ANN, Host, ROOT};
use crate::process::SOON;
use crate::shipped;

const ADDED: &str = "8b796b86-adcc-4d3a-b467-349913db4cd3";
const READ: &str = "22222222-2222-4333-8444-555555555555";

/// With the two keys in one file, too.
fn host() -> Host {
    let host = shipped::host();
    host.sh(ANN, "cat keys/*.pub > both").ok();
    host
}

/// Whether it names a key with this comment as added.
fn adds(alert: &Document, comment: &str) -> bool {
    let added = alert.get("ssh_keywatch.key.added").as_array();
    added.is_some_and(|added| added.iter().any(|key| key["comment"] == comment))
}

/// However the file comes to its name: what is decided when it is there already must
/// not take what it adds for known.
#[test]
fn a_list_that_is_made_under_another_name_and_renamed_is_told() {
    for (how, script) in [
        ("linked", "ln both .ssh/l; mv -f .ssh/l $list"),
        (
            "renamed before it is closed",
            "exec 3> .ssh/w; cat both >&3; mv -f .ssh/w $list; exec 3>&-",
        ),
        (
            "renamed empty",
            ": > .ssh/e; mv -f .ssh/e $list; cat both > $list",
        ),
        (
            "linked empty",
            ": > e; ln e .ssh/l; mv -f .ssh/l $list; cat both > $list",
        ),
        (
            "where there was none",
            "rm $list; ln both .ssh/l; mv .ssh/l $list",
        ),
    ] {
        let host = host();
        let daemon = host.daemon().start();
        let script = format!("list=.ssh/authorized_keys; {script}");
        host.sh(ANN, &script).ok();
        let ended = daemon.stop();
        let named = ended.alerts(ADDED).iter().any(|alert| adds(alert, "two"));
        assert!(named, "{how}: {:?}", ended.paths(ADDED));
        ended.assert_nothing_lost();
    }
}

/// Whoever appends opens the list first, which is decided at once: it finds what is
/// appended and must not take it for known.
#[test]
fn what_is_appended_is_told_where_opens_are_told_too() {
    let host = host();
    let query = r#"file where event.action == "open" and file.path : "/home/ann/.ssh/*""#;
    let daemon = host
        .daemon()
        .rule("read", &rule(READ, "A file opened", query))
        .start();
    for number in 0..12 {
        let comment = format!("key{number}");
        let script = format!(
            "ssh-keygen -q -t ed25519 -N '' -C {comment} -f keys/{comment}
             cat keys/{comment}.pub >> .ssh/authorized_keys"
        );
        host.sh(ANN, &script).ok();
        daemon.line(&comment, |line| {
            line.is_alert_of(ADDED) && adds(line, &comment)
        });
    }
    daemon.stop().assert_nothing_lost();
}

/// What an exception has kept quiet is known, and what another writes meanwhile is told.
#[test]
fn an_exception_keeps_quiet_what_its_writer_added_and_no_other() {
    let host = host();
    let exception = format!(
        "[[exception]]\nrule = \"{ADDED}\"\nreason = \"a test\"\nwhen = 'user.id == \"0\"'\n"
    );
    let daemon = host
        .daemon()
        .config(&exception)
        .rule("any", &any_change())
        .start();
    // What is decided after it has been decided, too.
    let marked = |name: &str| {
        host.sh(ANN, &format!("touch .ssh/{name}")).ok();
        daemon.alert(ANY, &ANN.ssh(name));
    };
    host.sh(
        ANN,
        "ssh-keygen -q -t ed25519 -N '' -C three -f keys/three; mkfifo one two three; chmod 666 one two three",
    )
    .ok();
    // It lives on, so that its user is known, and at last holds the list open.
    let root = host
        .sh(
            ROOT,
            "cd ~ann; key=$(cat keys/two.pub); echo \"$key\" >> .ssh/authorized_keys; read _ < one
             exec 3>> .ssh/authorized_keys; echo '# root' >&3; echo > two; read _ < three; read _ < two",
        )
        .spawn_silent();
    let list = ANN.ssh("authorized_keys");
    daemon.alert(ANY, &list);
    marked("first");
    host.sh(ANN, "echo '# mine' >> .ssh/authorized_keys").ok();
    marked("second");
    // So does this one: nobody writes to `one` or `two` any more.
    let ann = host
        .sh(
            ANN,
            "key=$(cat keys/three.pub); echo > one; read _ < two
             echo \"$key\" >> .ssh/authorized_keys; echo > three; read _ < one",
        )
        .spawn_silent();
    let alert = daemon.alert(ADDED, &list);
    assert!(alert.is("user.name", "ann"), "{}", alert.brief());
    // Where root's event was decided late, what was added may be root's for all we know.
    let is_open = alert.get("ssh_keywatch.key.added_count").is_null();
    assert!(is_open || adds(&alert, "three"), "{}", alert.brief());
    drop((root, ann));
    let ended = daemon.stop();
    assert_eq!(ended.alerts(ADDED).len(), 1);
}

/// Each has an event of its own, and what is in the file is laid to who wrote it.
#[test]
fn what_a_second_process_writes_is_not_laid_to_the_first() {
    for _ in 0..10 {
        if what_two_processes_write() {
            return;
        }
    }
    panic!("they never write one right after the other");
}

/// Whether the second wrote before what the first did was decided: else what is said of the
/// first may be what the second has written by then.
#[track_caller]
fn what_two_processes_write() -> bool {
    let host = host();
    let daemon = host.daemon().rule("any", &any_change()).start();
    host.sh(
        ANN,
        "cd .ssh; rm authorized_keys; touch authorized_keys
         cat ../keys/two.pub | tee -a authorized_keys > /dev/null",
    )
    .ok();
    let list = ANN.ssh("authorized_keys");
    let alert = daemon.alert(ADDED, &list);
    let made = daemon.line("creation", |line| {
        line.is_alert_of(ANY) && line.is("file.path", &list) && line.is("event.action", "creation")
    });
    let [made_at, alert_at] = [&made, &alert].map(|line| line.text("@timestamp").parse());
    let (made_at, alert_at): (jiff::Timestamp, jiff::Timestamp) =
        (made_at.unwrap(), alert_at.unwrap());
    if alert_at.duration_since(made_at) >= jiff::SignedDuration::from_millis(90) {
        daemon.stop();
        return false;
    }
    assert!(adds(&alert, "two"), "{}", alert.brief());
    assert!(
        alert.is("process.executable", "/usr/bin/tee"),
        "{}",
        alert.brief()
    );
    assert!(alert.get("ssh_keywatch.key.others_wrote").is_null());
    assert!(
        made.is("process.executable", "/usr/bin/touch"),
        "{}",
        made.brief()
    );
    assert_eq!(*made.get("ssh_keywatch.key.added_count"), 0);
    let ended = daemon.stop();
    assert_eq!(ended.alerts(ADDED).len(), 1);
    ended.assert_nothing_lost();
    true
}

/// What sshd takes for a key is told, and what we cannot read is no reason to be silent.
#[test]
fn lines_that_are_written_so_that_only_sshd_reads_them_are_told() {
    let host = host();
    let list = ANN.ssh("authorized_keys");
    let lines = [
        (
            r#"printf '%s %.20s\v%s two\n' "$1" "$2" "${2#????????????????????}""#,
            true,
        ),
        (r#"printf '%s %s\0 two\n' "$1" "$2""#, false),
        // Beyond what we take for a key.
        (
            r#"printf '%s %s%262144s two\n' "$1" "$2" '' | tr ' ' '\f'"#,
            false,
        ),
    ];
    let daemon = host.daemon().start();
    for (number, (line, is_named)) in lines.into_iter().enumerate() {
        let script = format!("set -- $(cat keys/two.pub); {line} >> .ssh/authorized_keys");
        host.sh(ANN, &script).ok();
        let alert = daemon.find(SOON, line, |log| {
            let alerts = log.iter().filter(|line| line.is_alert_of(ADDED));
            alerts.clone().nth(number).cloned()
        });
        assert!(alert.is("file.path", &list));
        assert_eq!(adds(&alert, "two"), is_named, "{number}: {}", alert.brief());
    }
    // A key in place of another, in the middle of what is not read.
    let fill = r"{ cat keys/one.pub; head -c 1300000 /dev/zero | tr '\0' '#'; echo
         cat keys/one.pub; head -c 500000 /dev/zero | tr '\0' '#'; } > fill
         cat fill > .ssh/authorized_keys";
    host.sh(ANN, fill).ok();
    daemon.find(SOON, "alert on a large list", |log| {
        log.iter()
            .filter(|line| line.is_alert_of(ADDED))
            .nth(3)
            .cloned()
    });
    // That much may not be read in time, which is said; then once more.
    let mut tries = ["two", "one", "two", "one", "two"].iter().enumerate();
    let alert = tries.find_map(|(number, key)| {
        let script = format!(
            "at=$(($(wc -c < keys/one.pub) + 1300001))
             dd if=keys/{key}.pub of=.ssh/authorized_keys oflag=seek_bytes seek=$at conv=notrunc status=none"
        );
        host.sh(ANN, &script).ok();
        let alert = daemon.find(SOON, "alert on what was written in its middle", |log| {
            let mut alerts = log.iter().filter(|line| line.is_alert_of(ADDED));
            alerts.nth(4 + number).cloned()
        });
        let is_late = alert.is("ssh_keywatch.key.unread", "timeout");
        (!is_late).then_some(alert)
    });
    let alert = alert.expect("it is read in time");
    assert_eq!(*alert.get("ssh_keywatch.key.too_large"), true);
    assert!(alert.get("ssh_keywatch.key.added_count").is_null());
    daemon.stop().assert_nothing_lost();
}

/// Nor is the key that another writes to a file without a word the work of who made it.
#[test]
fn a_key_that_another_writes_is_not_laid_to_who_made_the_file() {
    let host = host();
    let daemon = host.daemon().rule("any", &any_change()).start();
    let key = ANN.ssh("id_other.pub");
    host.sh(ANN, &format!("touch {key}; cp keys/two.pub {key}"))
        .ok();
    for (action, program) in [
        ("creation", "/usr/bin/touch"),
        ("modification", "/usr/bin/cp"),
    ] {
        let alert = daemon.line(action, |line| {
            line.is_alert_of(ANY) && line.is("file.path", &key) && line.is("event.action", action)
        });
        assert!(alert.is("process.executable", program), "{}", alert.brief());
        let is_laid_to_it = !alert.get("ssh_keywatch.key.fingerprint").is_null()
            && alert.get("ssh_keywatch.key.others_wrote").is_null();
        assert!(
            is_laid_to_it <= (action == "modification"),
            "{}",
            alert.brief()
        );
    }
    daemon.stop().assert_nothing_lost();
}
