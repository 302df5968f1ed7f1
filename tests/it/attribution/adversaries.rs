//! Those who want their files laid to somebody else.

use super::{
    Case, Demand, Load, Made, Tally, any_change, config, made, measure, measure_with, overdue,
    runs, wait_for,
};
use crate::host::{Host, ROOT};
use crate::process::life;

const ADVERSARY: &str = "/run/it/tools/adversary";
const OTHER: &str = "/run/it/tools/other";
const ACT: &str = "/run/it/tools/act";
/// Has them identified at their exec, and known again when they open.
const KEY_TOOLS: &str = r#"
    key_tools = ["/run/it/tools/act", "/run/it/tools/adversary", "/run/it/tools/other",
        "/home/ann/env"]
"#;
/// Tries of each by default; `ATTRIBUTION_RUNS=1000` makes them 10,000.
const TRIES: usize = 120;

/// Files that an adversary has made: with content, and empty.
fn split(stdout: &str) -> (Vec<Made>, Vec<Made>) {
    let (mut full, mut empty) = (String::new(), String::new());
    for line in stdout.lines() {
        let (to, line) = match line.strip_prefix("empty ") {
            Some(line) => (&mut empty, line),
            None => (&mut full, line),
        };
        to.push_str(line);
        to.push('\n');
    }
    (made(&full), made(&empty))
}

/// Lets the adversary try. Every file must be seen and none laid to a wrong
/// program or pid; files with content must all be named.
#[track_caller]
fn try_it(how: &str, demand: Demand) {
    for (load, watch) in [(Load::Idle, ""), (Load::Busy, ""), (Load::Busy, KEY_TOOLS)] {
        let host = Host::on_disk();
        host.sh(ROOT, "mkdir -m 700 .ssh; : > /root/try.source")
            .ok();
        let daemon = host.daemon().config(&config(watch));
        let daemon = daemon.rule("any", &any_change()).start();
        let busy = load.start(&host);
        let prefix = match how {
            // Its source lies outside.
            "reuse-link" => "/root/.ssh/../.ssh/try".to_owned(),
            _ => ROOT.ssh("try"),
        };
        host.sh(ROOT, "ln /root/try.source .ssh/try.source").ok();
        let tries = runs(TRIES).to_string();
        let output = host
            .command(ADVERSARY)
            .args([how, &tries, &prefix, OTHER])
            .output_within(life());
        assert!(output.status.success(), "{output:?}");
        drop(busy);
        let (mut full, mut empty) = split(&output.stdout.replace("/../.ssh/", "/"));
        assert!(!full.is_empty(), "it did not get to write anything");
        let wanted = full.iter().chain(&empty);
        let wanted = wanted.map(|made| (made.path.clone(), "creation")).collect();
        wait_for(&daemon, &wanted);
        let ended = daemon.stop();
        ended.assert_nothing_lost();
        // Of two processes with one pid the second runs another program.
        let second: Vec<Made> = full
            .extract_if(.., |made| made.path.ends_with("-b"))
            .collect();
        empty.retain(|made| !made.path.ends_with(".source"));
        for (kind, files, program, demand) in [
            ("written", &full, ADVERSARY, demand),
            ("empty", &empty, ADVERSARY, Demand::Honest),
            ("second", &second, OTHER, demand),
        ] {
            if files.is_empty() {
                continue;
            }
            let tally = Tally::of(&ended, files, "creation", program, false);
            println!("{how:12} {kind:8} {load:?} {tally}");
            tally.assert(demand, overdue(&ended), &format!("{how} {kind} {load:?}"));
        }
    }
}

#[test]
fn a_thread_that_is_held_while_the_first_one_runs_another_program() {
    try_it("thread-exec", Demand::RightOrAmbiguous);
}

#[test]
fn a_first_thread_that_is_held_while_another_one_runs_another_program() {
    try_it("leader-exec", Demand::RightOrAmbiguous);
}

#[test]
fn an_opener_that_is_killed() {
    try_it("killed", Demand::Right);
}

#[test]
fn a_program_that_runs_another_right_after_closing() {
    try_it("close-exec", Demand::Right);
}

#[test]
fn a_pid_that_is_used_again_at_once() {
    try_it("reuse", Demand::RightOrAmbiguous);
}

#[test]
fn a_pid_that_is_used_again_at_once_by_who_opens_nothing() {
    try_it("reuse-link", Demand::RightOrAmbiguous);
}

/// Key tools that are known since their exec and then do something else.
#[test]
fn key_tools_that_are_not_what_they_were() {
    const ENV: &str = "[ -e ~/env ] || cp /usr/bin/env ~";
    let new = |name, command: &str| Case::new(name, ACT, command);
    let cases = [
        new("create", "$T/act create $p"),
        new("elsewhere", "cd /tmp && $T/act create $p"),
        new("create-exec", "$T/act exec $T/other create $p"),
        new("tool-runs-tool", "~/env $T/act create $p").prepared(ENV),
        Case::new("tool-runs-another", "/usr/bin/touch", "~/env touch $p").prepared(ENV),
        new("leader-exited", "$T/act leader $p"),
        Case::telling("vfork-child", ACT, "$T/act vfork $p $T/other"),
        Case::telling("fork-create", ACT, "$T/act fork create $p"),
        new("uring", "$T/act uring $p"),
        new("o-tmpfile", "$T/act tmpfile ~/.ssh $p"),
        new("pid-namespace", "unshare --pid --fork $T/act create $p")
            .user(ROOT)
            .descends(),
        new(
            "set-user",
            "setpriv --reuid 4001 --regid 4001 --clear-groups $T/act create $p",
        )
        .user(ROOT)
        .prepared("chmod 711 ~; chmod 777 ~/.ssh"),
    ];
    let count = runs(super::RUNS);
    for load in [Load::Idle, Load::Busy] {
        measure_with(&Host::on_disk(), KEY_TOOLS, &cases, load, count);
    }
}

/// Processes of a key tool whose exec failed, or that run another program by now.
#[test]
fn key_tools_that_never_ran_or_ran_before() {
    const TOOLS: &str = r#"key_tools = ["/run/it/tools/other", "/home/ann/env"]"#;
    const ENV: &str = "[ -e ~/env ] || cp /usr/bin/env ~";
    let new = |name, command: &str| Case::new(name, ACT, command).demand(Demand::RightOrAmbiguous);
    let source = "stage/$c.$i";
    let cases = [
        new(
            "refused-link",
            &format!("$T/act refused $T/other link {source} $p"),
        )
        .staged(),
        new(
            "refused-rename",
            &format!("$T/act refused $T/other rename {source} $p"),
        )
        .staged()
        .action("rename"),
        new("refused-create", "$T/act refused $T/other create $p").demand(Demand::Right),
        new("tool-runs-link", &format!("~/env $T/act link {source} $p"))
            .prepared(&format!("{ENV}; echo staged > {source}")),
        new(
            "tool-runs-rename",
            &format!("~/env $T/act rename {source} $p"),
        )
        .prepared(&format!("{ENV}; echo staged > {source}"))
        .action("rename"),
    ];
    let count = runs(super::RUNS);
    for load in [Load::Idle, Load::Busy] {
        measure_with(&Host::on_disk(), TOOLS, &cases, load, count);
    }
}

/// A name that one program makes and the next one of the same process opens, and the
/// other way round.
#[test]
fn programs_that_open_what_another_has_made() {
    let new = |name, program, command: &str| {
        Case::new(name, program, command).demand(Demand::RightOrAmbiguous)
    };
    let cases = [
        new(
            "link-opened",
            ACT,
            "$T/act hand $T/other link stage/$c.$i $p",
        )
        .staged(),
        new("mknod-opened", ACT, "$T/act hand $T/other mknod $p"),
        new(
            "tmpfile-linked",
            OTHER,
            "$T/act tmpfile-hand ~/.ssh $T/other $p",
        ),
        new(
            "opened-linked",
            OTHER,
            "$T/act open-hand ~/.ssh/$c.$i-old $T/other $p",
        )
        .prepared("echo old > ~/.ssh/$c.$i-old"),
        new(
            "made-linked",
            OTHER,
            "$T/act create $p-new; $T/act open-hand $p-new $T/other $p",
        ),
    ];
    let count = runs(super::RUNS);
    for (load, watch) in [
        (Load::Idle, ""),
        (Load::Busy, ""),
        (Load::Idle, r#"hold = "all""#),
        (Load::Busy, r#"hold = "all""#),
    ] {
        measure_with(&Host::on_disk(), watch, &cases, load, count);
    }
}

/// Openers whose `/proc` entry is not where it is looked for first.
#[test]
fn openers_in_unusual_places() {
    let new = |name, command: &str| Case::new(name, ACT, command);
    let root = |name, command: &str| new(name, command).user(ROOT);
    let cases = [
        new("leader-exited", "$T/act leader $p"),
        Case::telling("vfork-child", ACT, "$T/act vfork $p $T/other"),
        root("by-handle", "$T/act handle ~/.ssh $p"),
        new("o-tmpfile", "$T/act tmpfile ~/.ssh $p"),
        root("pid-namespace", "unshare --pid --fork $T/act create $p").descends(),
        root("mount-namespace", "unshare --mount $T/act create $p"),
        new("user-namespace", "unshare -Urm $T/act create $p"),
        new(
            "user-pid-namespace",
            "unshare -Urmp --fork $T/act create $p",
        )
        .descends(),
        root(
            "bind-mount",
            "unshare --mount sh -c 'mount --bind ~/.ssh /srv; exec $0 create /srv/$1' \
             $T/act $c.$i",
        ),
        new(
            "bind-mount-user",
            "unshare -Urm sh -c 'mount --bind ~/.ssh /srv; exec $0 create /srv/$1' $T/act $c.$i",
        ),
        new("chroot", "unshare -Ur chroot / $T/act create $p"),
    ];
    let count = runs(super::RUNS);
    for load in [Load::Idle, Load::Busy] {
        measure(&Host::on_disk(), &cases, load, count);
    }
}
