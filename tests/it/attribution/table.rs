//! Each way to put a file into place, idle and on a busy machine.

use std::collections::BTreeMap;

use super::{
    Case, Demand, Load, RUNS, Tally, any_change, config, made, measure, overdue, runs, wait_for,
};
use crate::host::{Host, ROOT, TOOLS};
use crate::process::{Output, life};

const KEYGEN: &str = "/usr/bin/ssh-keygen";
const SHELL: &str = "/usr/bin/dash";
const ACT: &str = "/run/it/tools/act";
const BOTH: [Load; 2] = [Load::Idle, Load::Busy];

#[track_caller]
fn case_by_case(cases: &[Case], loads: &[Load]) {
    for load in loads {
        measure(&Host::on_disk(), cases, *load, runs(RUNS));
    }
}

#[test]
fn ssh_keygen() {
    const MAKE: &str = "ssh-keygen -q -t ed25519 -N '' -C it";
    let each = |place: &str, file: &str| {
        format!("{place}; {MAKE} -f {file} & echo $! $p; echo $! $p.pub; wait $!")
    };
    let fresh = format!(
        "u=$((6000 + i)); h=/home/f$u; p=$h/.ssh/id
         mkdir -m 700 $h; chown $u:$u $h
         setpriv --reuid=$u --regid=$u --clear-groups -- {MAKE} -f $p &
         echo $! $p; echo $! $p.pub; wait $!"
    );
    let accounts = "u=$((6000 + i))
        echo f$u:x:$u:$u::/home/f$u:/bin/sh >> /etc/passwd; echo f$u:x:$u: >> /etc/group";
    let cases = [
        Case::telling("keygen", KEYGEN, &each("cd", "$p")),
        Case::telling("keygen-relative", KEYGEN, &each("cd ~/.ssh", "$c.$i")),
        Case::telling("keygen-fresh", KEYGEN, &fresh)
            .prepared(accounts)
            .user(ROOT),
    ];
    case_by_case(&cases, &BOTH);
}

/// Opens that are held: whoever makes a file by them is known, however short it lives.
#[test]
fn static_programs_that_open() {
    let mut cases = Vec::new();
    for (how, exec) in [
        ("create", "create-exec"),
        ("uring", "uring-exec"),
        ("uring-async", "async-exec"),
        ("uring-sqpoll", "sqpoll-exec"),
    ] {
        cases.push(Case::new(how, ACT, &format!("$T/act {how} $p")));
        cases.push(Case::new(
            exec,
            ACT,
            &format!("$T/act exec $T/other {how} $p"),
        ));
    }
    cases.push(Case::telling("fork-create", ACT, "$T/act fork create $p"));
    case_by_case(&cases, &BOTH);
}

#[test]
fn a_directory_made_the_moment_before() {
    let below = "d=$HOME/.ssh/$c.$i.d; p=$d/file";
    let home = "h=/home/$c.$i; d=$h/.ssh; p=$d/file; mkdir $h";
    let making = |way: &str, place: &str| {
        format!("{place}; $T/act {way} mkdir-create $d $p & echo $! $p; wait $!")
    };
    let cases = [
        Case::telling("mkdir-create", ACT, &making("", below)).demand(Demand::Honest),
        Case::telling("mkdir-create-exec", ACT, &making("exec $T/other", below))
            .demand(Demand::Honest),
        Case::telling("home-mkdir-create", ACT, &making("", home))
            .user(ROOT)
            .demand(Demand::Honest),
    ];
    case_by_case(&cases, &BOTH);
}

#[test]
fn everyday_programs() {
    let from = "stage/$c.$i";
    let new = |name, program, command: &str| {
        Case::new(name, program, &command.replace("FROM", from)).staged()
    };
    // OpenSSH runs it in place of ssh; the server is its own and the only writer.
    let server = "printf '#!/bin/sh\\necho $$ > ~/server.pid\\nexec /usr/lib/openssh/sftp-server\\n' \
                  > ~/wire; chmod 700 ~/wire; echo staged > stage/$c.$i";
    let told = "echo $(cat ~/server.pid) $p";
    let sftp = "/usr/lib/openssh/sftp-server";
    let cases = [
        new("mv", "/usr/bin/mv", "mv FROM $p").action("rename"),
        new("ln", "/usr/bin/ln", "ln FROM $p"),
        new("ln-s", "/usr/bin/ln", "ln -s ~/FROM $p"),
        new("cp", "/usr/bin/cp", "cp FROM $p"),
        new("install", "/usr/bin/install", "install -m 600 FROM $p"),
        new("rsync", "/usr/bin/rsync", "rsync FROM $p")
            .action("rename")
            .descends(),
        new("tee", "/usr/bin/tee", "tee $p < FROM > /dev/null"),
        new("dd", "/usr/bin/dd", "dd if=FROM of=$p status=none"),
        new(
            "perl",
            "/usr/bin/perl",
            r#"perl -e 'open F, ">", shift; print F "x"' $p"#,
        ),
        new(
            "python",
            "/usr/bin/python3",
            r#"/usr/bin/python3 -Sc 'import sys; open(sys.argv[1], "w").write("x")' $p"#,
        ),
        new("busybox", "/usr/bin/busybox", "busybox cp FROM $p"),
        new("busybox-mv", "/usr/bin/busybox", "busybox mv FROM $p").action("rename"),
        new("subshell", SHELL, "(echo x > $p)"),
        new("sh-c", SHELL, "sh -c 'echo x > $0' $p"),
        // The shell's child opens it, then becomes cat.
        new("redirection", SHELL, "cat FROM > $p"),
        Case::telling(
            "scp",
            sftp,
            &format!("scp -q -S ~/wire {from} host:$p; {told}"),
        )
        .prepared(server),
        Case::telling(
            "sftp",
            sftp,
            &format!("echo put {from} $p | sftp -q -b - -S ~/wire host > /dev/null; {told}"),
        )
        .prepared(server),
    ]
    .map(|case| Case {
        program: resolved(case.program),
        ..case
    });
    case_by_case(&cases, &BOTH);
}

/// A program's path without symbolic links, as the kernel names it.
fn resolved(program: &'static str) -> &'static str {
    let path = std::fs::canonicalize(program).unwrap_or_else(|_| panic!("{program} is missing"));
    Box::leak(path.to_str().unwrap().to_owned().into_boxed_str())
}

fn unheld(exec: &str, demand: Demand) -> Vec<Case> {
    let mut cases = Vec::new();
    for (names, how, action) in [
        (["rename", "fork-rename"], "rename ~/stage/$c.$i", "rename"),
        (["tmpfile", "fork-tmpfile"], "tmpfile ~/.ssh", "creation"),
        (["link", "fork-link"], "link ~/stage/$c.$i", "creation"),
        (
            ["symlink", "fork-symlink"],
            "symlink ~/stage/$c.$i",
            "creation",
        ),
    ] {
        let alone = Case::new(names[0], ACT, &format!("$T/act {exec} {how} $p"));
        let forked = Case::telling(names[1], ACT, &format!("$T/act fork {exec} {how} $p"));
        for case in [alone, forked] {
            cases.push(case.staged().action(action).demand(demand));
        }
    }
    cases
}

/// What no permission event covers is named by the process table.
#[test]
fn programs_that_open_nothing() {
    let loads = [Load::Idle, Load::Busy, Load::Storm];
    case_by_case(&unheld("", Demand::Right), &loads);
}

#[test]
fn programs_that_open_nothing_and_run_another_right_after() {
    let loads = [Load::Idle, Load::Busy, Load::Storm];
    case_by_case(&unheld("exec $T/other", Demand::RightOrAmbiguous), &loads);
}

#[test]
fn edits_of_a_file_that_exists() {
    let old = "echo old > $p";
    let edit = |name, program, command: &str| {
        let case = Case::new(name, program, command).prepared(old);
        case.action("modification")
    };
    let cases = [
        edit("append", SHELL, "(echo new >> $p)"),
        edit("tee-a", "/usr/bin/tee", "echo new | tee -a $p > /dev/null"),
        edit("sed-i", "/usr/bin/sed", "sed -i s/old/new/ $p").action("rename"),
        edit("act-append", ACT, "$T/act append $p"),
        edit("append-exec", ACT, "$T/act exec $T/other append $p").demand(Demand::RightOrAmbiguous),
    ];
    case_by_case(&cases, &BOTH);
}

#[test]
fn a_burst_of_creators_from_several_spawners() {
    const SPAWNERS: usize = 4;
    let each = runs(120) / SPAWNERS;
    for load in BOTH {
        let host = Host::on_disk();
        host.sh(ROOT, "mkdir -m 700 .ssh").ok();
        let daemon = host.daemon().config(&config(""));
        let daemon = daemon.rule("any", &any_change()).start();
        let busy = load.start(&host);
        let outputs: Vec<Output> = std::thread::scope(|scope| {
            let spawners: Vec<_> = (0..SPAWNERS)
                .map(|number| {
                    let prefix = ROOT.ssh(&format!("burst{number}"));
                    let cmd = host.command(format!("{TOOLS}/spawn"));
                    let cmd = cmd.args([each.to_string(), prefix]);
                    let cmd = cmd.args([ACT, "create"]);
                    scope.spawn(move || cmd.output_within(life()))
                })
                .collect();
            let spawners = spawners.into_iter();
            spawners.map(|spawner| spawner.join().unwrap()).collect()
        });
        drop(busy);
        let mut all = Vec::new();
        for output in outputs {
            assert!(output.status.success(), "{output:?}");
            all.extend(made(&output.stdout));
        }
        assert_eq!(all.len(), each * SPAWNERS);
        let wanted: BTreeMap<_, _> = all
            .iter()
            .map(|made| (made.path.clone(), "creation"))
            .collect();
        wait_for(&daemon, &wanted);
        let ended = daemon.stop();
        ended.assert_nothing_lost();
        let tally = Tally::of(&ended, &all, "creation", ACT, false);
        println!("{:20} {load:?} {tally}", "burst");
        tally.assert(Demand::Right, overdue(&ended), "burst");
    }
}
