//! A fresh installation: it watches at once, and all ways to see an alert work.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::machine::{CONFIG, LOG, Machine};
use crate::root::package;

#[test]
fn installed_it_watches_at_once_and_tells_what_a_login_made() {
    let host = Machine::boot();
    host.account("ann");
    host.dpkg(&package(None)).ok();
    assert_eq!(host.property("ActiveState"), "active");
    assert_eq!(host.property("UnitFileState"), "enabled");
    // systemd knows every word of the unit.
    let said = host.sh("journalctl --output=cat _PID=1").text();
    assert!(!said.contains("/ssh-keywatch.service:"), "{said}");
    let started = &host.states("start")[0]["ssh_keywatch"];
    assert_eq!(started["mode"], "fanotify+hold+table");
    // As exact as in the foreground.
    let foreground = host
        .sh(
            "mkdir /tmp/fg
             mkfifo /tmp/fg/out
             ssh-keywatch run --state /tmp/fg --log /tmp/fg/log --no-journal --stdout json > /tmp/fg/out &
             head -n 1 /tmp/fg/out
             kill $!",
        )
        .text();
    let foreground: Value = serde_json::from_str(&foreground).unwrap();
    assert_eq!(
        started["coverage"]["process_table"]["moments"],
        foreground["ssh_keywatch"]["coverage"]["process_table"]["moments"]
    );

    // The first key of a fresh account, in a login through sshd.
    let alert = host.alert_on_key("ann", "id_ed25519");
    assert_eq!(alert["process"]["executable"], "/usr/bin/ssh-keygen");
    assert_eq!(alert["user"]["name"], "ann");
    let proof = &alert["ssh_keywatch"]["attribution"];
    let method = proof["method"].as_str().unwrap();
    assert!(["held", "recorded"].contains(&method), "{proof}");
    assert_eq!(proof["certain"], true, "{proof}");
    assert_eq!(proof["image"], "same", "{proof}");
    let ancestors = alert["ssh_keywatch"]["ancestors"].as_array().unwrap();
    for program in ["/usr/sbin/sshd", "/usr/lib/systemd/systemd"] {
        let is = |ancestor: &Value| {
            ancestor["executable"]
                .as_str()
                .unwrap()
                .starts_with(program)
        };
        assert!(ancestors.iter().any(is), "no {program} in {ancestors:#?}");
    }
    let (file, id) = (
        "/home/ann/.ssh/id_ed25519",
        alert["event"]["id"].as_str().unwrap(),
    );

    // The same alert in the journal, with its fields, explained by the catalogue.
    let mut entry = None;
    host.wait("entry in the journal", || {
        let journal = host
            .sh("journalctl --unit=ssh-keywatch --all --output=json")
            .text();
        entry = journal
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .find(|entry| entry["EVENT_ID"] == id);
        entry.is_some()
    });
    let entry = entry.unwrap();
    assert_eq!(entry["FILE_PATH"], file);
    assert_eq!(entry["PROCESS_EXECUTABLE"], "/usr/bin/ssh-keygen");
    assert_eq!(entry["USER_NAME"], "ann");
    let explained = host.sh("journalctl --unit=ssh-keywatch --catalog").text();
    assert!(explained.contains("Is it legitimate?"), "{explained}");

    // And for a person; a reader of logs needs no root, nobody else may look.
    host.sh("useradd --groups adm reader && useradd other").ok();
    let seen = host
        .sh("runuser -u reader -- ssh-keywatch tail -n 2")
        .text();
    assert!(seen.contains(file), "{seen}");
    let refused = host.sh("runuser -u other -- ssh-keywatch tail -n 2");
    assert_ne!(refused.code, Some(0), "{refused:#?}");
    assert_eq!(
        host.sh(&format!("stat -c '%A %U %G' {LOG}")).text(),
        "-rw-r----- root adm"
    );
}

#[test]
fn the_sandbox_hides_nothing() {
    let host = Machine::boot();
    host.account("ann");
    // What is made in a new directory may be found by a look into it, by nobody.
    host.sh("install -d -m 700 -o ann -g ann /home/ann/.ssh")
        .ok();
    host.dpkg(&package(None)).ok();
    let rule = include_str!("any.toml");
    std::fs::write(host.path("/etc/ssh-keywatch/rules.d/any.toml"), rule).unwrap();
    host.sh("systemctl reload ssh-keywatch").ok();
    host.wait("reload", || !host.states("reload").is_empty());
    // The unit's own filters leave room for those that the daemon adds.
    let pid = host.pid().unwrap();
    let status = host.sh(&format!("cat /proc/{pid}/task/*/status")).text();
    let of_all = |field: &str| {
        let values = status.lines().filter_map(|line| line.strip_prefix(field));
        values.map(str::trim).collect::<BTreeSet<_>>()
    };
    assert_eq!(of_all("CapEff:"), ["0000000000280004"].into());
    assert_eq!(of_all("CapBnd:"), ["0000000000280004"].into());
    assert_eq!(of_all("NoNewPrivs:"), ["1"].into());
    assert_eq!(of_all("Seccomp:"), ["2"].into());
    let journal = host.sh("journalctl --unit ssh-keywatch --output cat");
    for lack in ["stay possible", "not confined", "that are not needed stay"] {
        assert!(!journal.stdout.contains(lack), "{}", journal.stdout);
    }
    // Programs below /tmp, which a unit likes to have for itself.
    host.login(
        "ann",
        "cp /usr/bin/touch /tmp/touched; /tmp/touched .ssh/made; \
         cp /usr/bin/mv /tmp/moved; touch x; /tmp/moved x .ssh/renamed; \
         unshare --user --map-root-user --mount touch .ssh/elsewhere",
    )
    .ok();
    let made = host.alert("/home/ann/.ssh/made");
    assert_eq!(made["process"]["executable"], "/tmp/touched");
    assert_eq!(
        made["ssh_keywatch"]["attribution"]["image"], "same",
        "{made}"
    );
    // A rename is named from the process table.
    let renamed = host.alert("/home/ann/.ssh/renamed");
    let proof = &renamed["ssh_keywatch"]["attribution"];
    if proof["certain"] == true {
        assert_eq!(renamed["process"]["executable"], "/tmp/moved", "{renamed}");
    } else {
        // Its shell may have done so just before it ran this.
        assert!(
            proof["candidates"].to_string().contains("/tmp/moved"),
            "{renamed}"
        );
    }
    // What is read-only for the daemon alone is not for whoever made a file there.
    let mount = &made["ssh_keywatch"]["file"]["mount"];
    assert_eq!(mount["read_only"], false, "{mount}");
    let elsewhere = host.alert("/home/ann/.ssh/elsewhere");
    assert_eq!(elsewhere["process"]["name"], "touch", "{elsewhere}");
    // root's own, and a program that is replaced while it runs.
    host.sh("mkdir -p /root/.ssh && cp /usr/bin/sleep /root/.ssh/copied")
        .ok();
    host.alert("/root/.ssh/copied");
}

#[test]
fn reload_stop_and_reexec_keep_what_they_promise() {
    let host = Machine::boot();
    host.account("ann");
    host.dpkg(&package(None)).ok();
    let pid = host.pid().unwrap();

    // A reload applies what is right,
    let sample = std::fs::read_to_string(host.path(CONFIG)).unwrap();
    let quiet = format!(
        "{sample}\n[[exception]]\nrule = \"*\"\nwhen = 'file.name : \"quiet*\"'\nreason = \"a test\"\n"
    );
    std::fs::write(host.path(CONFIG), &quiet).unwrap();
    host.sh("systemctl reload ssh-keywatch").ok();
    host.wait("reload", || host.states("reload").len() == 1);
    assert_eq!(host.states("reload")[0]["event"]["outcome"], "success");
    host.login("ann", &crate::machine::keygen("quiet")).ok();
    host.alert_on_key("ann", "loud");
    // and nothing of what is wrong, which it says.
    std::fs::write(host.path(CONFIG), format!("{quiet}\nnonsense = 1\n")).unwrap();
    let refused = host.sh("systemctl reload ssh-keywatch");
    assert_ne!(refused.code, Some(0));
    let said = host
        .sh("journalctl --unit=ssh-keywatch --output=cat")
        .text();
    assert!(said.contains("nonsense"), "{said}");
    host.login("ann", &crate::machine::keygen("quiet2")).ok();
    host.alert_on_key("ann", "loud2");
    assert_eq!(host.pid(), Some(pid));
    assert!(
        !host
            .log()
            .iter()
            .any(|line| line["file"]["name"] == "quiet" || line["file"]["name"] == "quiet2"),
        "the exception does not hold"
    );
    std::fs::write(host.path(CONFIG), &sample).unwrap();

    // systemd can replace itself: the daemon goes on, and is petted for it.
    host.sh("systemctl daemon-reexec").ok();
    let petted = || host.property("WatchdogTimestampMonotonic");
    for _ in 0..2 {
        let before = petted();
        host.wait("pet of the watchdog", || petted() != before);
    }
    assert_eq!(host.pid(), Some(pid));
    assert_eq!(host.property("NRestarts"), "0");
    host.alert_on_key("ann", "after");

    // Stopped, it holds nobody and is gone.
    host.sh("systemctl stop ssh-keywatch").ok();
    assert_eq!(host.pid(), None);
    assert_eq!(host.property("Result"), "success");
    assert_eq!(host.states("stop").len(), 1);
    host.login("ann", &crate::machine::keygen("unseen")).ok();
    let gone = host.sh("ls /run/ssh-keywatch");
    assert_ne!(gone.code, Some(0), "{gone:?}");
}
