//! Side-band records in every order, and who acted by them.

use std::path::Path;

use super::record::{Record, What, parse};
use super::table::Seed;
use super::*;

/// A table and a clock in microseconds.
#[derive(Default)]
struct Bench(Table);

const US: Time = 1_000;

/// A process as `/proc` shows it.
fn shown(pid: i32, birth: Time, path: &str) -> Seed {
    Seed {
        pid,
        parent: 1,
        birth: birth * US,
        program: Some(program(path)),
        is_roots: true,
        name: "x".into(),
    }
}

fn program(path: &str) -> Program {
    let inode = path.bytes().map(u64::from).sum();
    Program {
        path: path.into(),
        device: 8,
        inode,
        generation: None,
    }
}

impl Bench {
    /// A shell with pid 10, seen from its exec on.
    fn new() -> Self {
        let mut bench = Self::default();
        bench.fork(10, 1, 1);
        bench.exec(10, "/bin/sh", 2);
        bench
    }

    fn take(&mut self, pid: i32, at: Time, what: What) {
        let time = at * US;
        self.0.take(Record { time, pid, what });
    }

    fn fork(&mut self, pid: i32, parent: i32, at: Time) {
        self.take(pid, at, What::Fork { parent });
    }

    fn exec(&mut self, pid: i32, path: &str, at: Time) {
        let name = Path::new(path).file_name().unwrap().to_owned();
        self.take(pid, at, What::Exec { name });
        let time = at * US + 1;
        let what = What::Map(program(path));
        self.0.take(Record { time, pid, what });
        // The kernel's own, and then its libraries.
        let what = What::Unfiled;
        self.0.take(Record { time, pid, what });
        let what = What::Map(program("/lib/libc.so.6"));
        self.0.take(Record { time, pid, what });
    }

    fn exit(&mut self, pid: i32, at: Time) {
        self.take(pid, at, What::Exit);
    }

    /// The programs that are possible, the only one alone.
    fn who(&self, pid: i32, fate: Fate, window: (Time, Time)) -> Vec<String> {
        self.who_at(pid, fate, window, None, true)
    }

    fn who_at(
        &self,
        pid: i32,
        fate: Fate,
        (from, until): (Time, Time),
        moments: Option<&[Time]>,
        once: bool,
    ) -> Vec<String> {
        let window = Window {
            from: from * US,
            until: until * US,
        };
        let moments: Option<Vec<Time>> =
            moments.map(|moments| moments.iter().map(|at| at * US).collect());
        let path = |program: &std::sync::Arc<Program>| program.path.to_str().unwrap().to_owned();
        match self.0.who(pid, fate, window, moments.as_deref(), once) {
            Verdict::Unknown => vec!["unknown".into()],
            Verdict::One(_, program, _) => vec![path(&program)],
            Verdict::Several(_, programs) => programs
                .iter()
                .map(path)
                .chain(["or another".into()])
                .collect(),
        }
    }
}

/// A shell forks pid 20 at 100 µs, which becomes mv at 300 and ends at 600.
fn moved() -> Bench {
    let mut bench = Bench::new();
    bench.fork(20, 10, 100);
    bench.exec(20, "/bin/mv", 300);
    bench.exit(20, 600);
    bench
}

const AMBIGUOUS: [&str; 3] = ["/bin/sh", "/bin/mv", "or another"];

#[test]
fn a_short_life_is_named_where_the_window_lies_in_its_program() {
    let bench = moved();
    assert_eq!(bench.who(20, Fate::Reaped, (500, 700)), ["/bin/mv"]);
    assert_eq!(bench.who(20, Fate::Reaped, (150, 200)), ["unknown"]);
    assert_eq!(
        bench.who(20, Fate::Ended { read: 700 * US }, (150, 200)),
        ["/bin/sh"]
    );
}

/// Its start is known to a tick from `/proc`, in which a pid can come round.
#[test]
fn a_pid_that_is_used_again_in_the_same_tick_is_not_taken_for_the_first() {
    let mut bench = Bench::new();
    bench.fork(20, 10, 100);
    bench.exec(20, "/bin/mv", 200);
    bench.exit(20, 300);
    let first = bench.0.find(20, 100 * US);
    assert!(first.is_some() && !bench.0.is_reused(20, 100 * US));
    bench.fork(20, 10, 400);
    for birth in [100, 400] {
        assert_eq!(bench.0.find(20, birth * US), None);
        assert!(bench.0.is_reused(20, birth * US));
        // Who had it when is known.
        assert_eq!(bench.0.find_at(20, birth * US, 250 * US), first);
        let second = bench.0.find_at(20, birth * US, 500 * US);
        assert!(second.is_some() && second != first);
    }
    assert_eq!(bench.0.find_at(20, 100 * US, 50 * US), None);
    // A second later it is another for certain.
    bench.fork(20, 10, 1_000_000);
    assert!(bench.0.find(20, 1_000_000 * US).is_some());
    assert_eq!(bench.0.find_at(20, 100 * US, 2_000_000 * US), None);
}

#[test]
fn what_a_process_has_run_since_is_told_with_when_it_began() {
    let mut bench = moved();
    let id = bench.0.find(20, 100 * US).unwrap();
    let begun = |bench: &Bench, time| {
        let programs = bench.0.begun(id, time * US)?;
        Some(programs.len())
    };
    assert_eq!(begun(&bench, 100), Some(1), "its exec");
    assert_eq!(begun(&bench, 300), Some(0));
    assert_eq!(bench.0.since(id, 299 * US), Some(100 * US));
    assert_eq!(bench.0.since(id, 500 * US), Some(300 * US));
    assert_eq!(bench.0.since(id, 99 * US), None);
    assert_eq!(bench.0.began(20, 400 * US), Some(300 * US));
    assert_eq!(bench.0.began(20, 290 * US), Some(100 * US));
    assert_eq!(bench.0.began(21, 400 * US), None);
    // What was lost may have been an exec.
    bench.0.incomplete_before(400 * US);
    assert_eq!(begun(&bench, 350), None);
    assert_eq!(begun(&bench, 400), Some(0));
    assert_eq!(bench.0.since(id, 399 * US), None);
    assert_eq!(bench.0.since(id, 500 * US), Some(400 * US));
}

#[test]
fn a_fresh_child_may_have_acted_before_its_exec() {
    let bench = moved();
    assert_eq!(bench.who(20, Fate::Reaped, (50, 700)), AMBIGUOUS);
    assert_eq!(bench.who(20, Fate::Reaped, (299, 700)), AMBIGUOUS);
}

/// As the kernel tells it of sudo: the exec, an end, and then its mappings.
#[test]
fn a_program_with_rights_of_its_own_does_not_end_when_it_is_run() {
    let mut bench = Bench::new();
    bench.fork(20, 10, 100);
    let exec = |name: &str| What::Exec { name: name.into() };
    bench.take(20, 300, exec("sudo"));
    bench.exit(20, 300);
    bench.take(20, 301, What::Map(program("/bin/sudo")));
    bench.fork(21, 20, 400);
    let child = bench.0.find(21, 400 * US).unwrap();
    let (sudo, known) = bench.0.parent(child).unwrap();
    assert_eq!((known.pid, known.ended), (20, false));
    let runs = bench.0.runs(sudo).unwrap();
    assert_eq!(runs.path, Path::new("/bin/sudo"));
    // It is remembered as long as it lives, also when its child is gone.
    bench.exit(21, 500);
    bench.0.prune(60_000_000 * US, 50_000_000 * US);
    assert!(bench.0.find(21, 400 * US).is_none());
    assert!(bench.0.runs(sudo).is_some());
    assert_eq!(
        bench.who(20, Fate::Alive, (40_000_000, 50_000_000)),
        ["/bin/sudo"]
    );
    bench.exit(20, 70_000_000);
    assert!(bench.0.get(sudo, Time::MAX).unwrap().ended);
    bench.0.prune(140_000_000 * US, 130_000_000 * US);
    assert!(bench.0.find(20, 100 * US).is_none());
    // One that the kernel ends in its exec maps nothing.
    bench.fork(22, 10, 140_000_000);
    bench.take(22, 140_000_001, exec("broken"));
    bench.exit(22, 140_000_002);
    let broken = bench.0.find(22, 140_000_000 * US).unwrap();
    assert!(bench.0.get(broken, Time::MAX).unwrap().ended);
}

#[test]
fn the_moment_of_the_act_decides() {
    let bench = moved();
    let at = |moments: &[Time]| bench.who_at(20, Fate::Reaped, (50, 700), Some(moments), true);
    assert_eq!(at(&[500]), ["/bin/mv"]);
    assert_eq!(at(&[200]), ["/bin/sh"]);
    assert_eq!(at(&[200, 500]), AMBIGUOUS);
    // So near that two clocks may disagree.
    assert_eq!(at(&[301]), AMBIGUOUS);
    // Without any in the window nothing has been sampled.
    assert_eq!(at(&[20]), AMBIGUOUS);
}

/// What was done again by another program is part of the record, and has no moment.
#[test]
fn a_record_that_may_tell_of_a_later_act_is_not_told_by_its_first_moment() {
    let bench = moved();
    let at = |moments: &[Time]| bench.who_at(20, Fate::Reaped, (50, 700), Some(moments), false);
    assert_eq!(at(&[200]), AMBIGUOUS);
    // What it did before it ran the last program was before its first act.
    assert_eq!(at(&[500]), ["/bin/mv"]);
}

#[test]
fn all_programs_of_a_process_are_known_unless_something_was_lost() {
    let mut bench = moved();
    let programs = |bench: &Bench| {
        let id = bench.0.find(20, 100 * US).unwrap();
        let programs = bench.0.programs(id)?;
        let path = |program: &std::sync::Arc<Program>| program.path.to_str().unwrap().to_owned();
        Some(programs.iter().map(path).collect::<Vec<_>>())
    };
    assert_eq!(programs(&bench).unwrap(), ["/bin/sh", "/bin/mv"]);
    bench.take(0, 700, What::Lost(1));
    assert_eq!(programs(&bench), None);
}

#[test]
fn the_program_that_a_loader_runs_is_its_second_mapping() {
    let mut bench = Bench::new();
    let second = |bench: &Bench, pid, path: &str| {
        let birth = if pid == 20 { 100 } else { 400 };
        let id = bench.0.find(pid, birth * US).unwrap();
        let program = bench.0.second(id, |ran| *ran == program(path));
        program.map(|program| program.path.to_str().unwrap().to_owned())
    };
    bench.fork(20, 10, 100);
    bench.take(
        20,
        300,
        What::Exec {
            name: "ld.so".into(),
        },
    );
    // Its code lies in two mappings.
    for path in ["/lib/ld.so", "/lib/ld.so", "/bin/keygen", "/lib/libc.so"] {
        bench.take(20, 300, What::Map(program(path)));
    }
    assert_eq!(second(&bench, 20, "/lib/ld.so").unwrap(), "/bin/keygen");
    assert_eq!(second(&bench, 20, "/bin/keygen"), None);
    bench.fork(21, 20, 400);
    assert_eq!(second(&bench, 21, "/lib/ld.so").unwrap(), "/bin/keygen");
    // Run once more, for another program: both are possible.
    bench.take(
        20,
        500,
        What::Exec {
            name: "ld.so".into(),
        },
    );
    for path in ["/lib/ld.so", "/bin/other"] {
        bench.take(20, 500, What::Map(program(path)));
    }
    assert_eq!(second(&bench, 20, "/lib/ld.so"), None);
    assert_eq!(second(&bench, 21, "/lib/ld.so").unwrap(), "/bin/keygen");
}

#[test]
fn a_program_that_execs_right_after_its_act_is_ambiguous() {
    let mut bench = moved();
    bench.fork(21, 10, 1000);
    bench.exec(21, "/x/evil", 1100);
    bench.exec(21, "/bin/true", 1200);
    let possible = bench.who(21, Fate::Alive, (1150, 1300));
    assert_eq!(possible, ["/x/evil", "/bin/true", "or another"]);
    assert_eq!(bench.who(21, Fate::Alive, (1150, 1190)), ["/x/evil"]);
    assert_eq!(bench.who(21, Fate::Alive, (1210, 1300)), ["/bin/true"]);
}

#[test]
fn an_exec_that_has_not_mapped_its_program_has_not_acted() {
    let mut bench = Bench::new();
    bench.fork(21, 10, 100);
    let name = "mv".into();
    bench.take(21, 200, What::Exec { name });
    assert_eq!(bench.who(21, Fate::Alive, (150, 300)), ["/bin/sh"]);
}

/// Code on its stack runs, and maps a file for it to be taken for that.
#[test]
fn what_no_file_was_mapped_for_is_not_the_file_that_it_maps() {
    let mut bench = Bench::new();
    bench.fork(21, 10, 100);
    let name = "evil".into();
    bench.take(21, 200, What::Exec { name });
    bench.take(21, 201, What::Unfiled);
    bench.take(21, 300, What::Map(program("/usr/bin/ssh-keygen")));
    assert_eq!(bench.who(21, Fate::Alive, (310, 400)), ["unknown"]);
    assert_eq!(
        bench.who(21, Fate::Alive, (150, 400)),
        ["/bin/sh", "or another"]
    );
    let id = bench.0.find(21, 100 * US).unwrap();
    assert!(bench.0.is_unfiled(id, 310 * US));
    assert!(!bench.0.is_unfiled(id, 150 * US));
    assert_eq!((bench.0.runs(id), bench.0.programs(id)), (None, None));
    // Nor are its children, nor is it when the table is filled again.
    bench.fork(22, 21, 400);
    assert_eq!(bench.who(22, Fate::Alive, (410, 500)), ["unknown"]);
    let seed = Seed {
        pid: 21,
        parent: 10,
        birth: 100 * US,
        program: Some(program("/usr/bin/ssh-keygen")),
        is_roots: true,
        name: "evil".into(),
    };
    bench.0.repair(vec![seed], 600 * US, 601 * US);
    assert_eq!(bench.who(21, Fate::Alive, (610, 700)), ["unknown"]);
    // Until it runs a program.
    bench.exec(21, "/bin/mv", 800);
    assert_eq!(bench.who(21, Fate::Alive, (810, 900)), ["/bin/mv"]);
}

#[test]
fn a_child_without_exec_runs_what_its_parent_ran() {
    let mut bench = Bench::new();
    bench.fork(20, 10, 100);
    bench.exit(20, 200);
    bench.exec(10, "/bin/other", 150);
    assert_eq!(bench.who(20, Fate::Reaped, (50, 300)), ["/bin/sh"]);
}

#[test]
fn the_same_program_twice_is_one() {
    let mut bench = Bench::new();
    bench.fork(20, 10, 100);
    bench.exec(20, "/bin/sh", 200);
    assert_eq!(bench.who(20, Fate::Alive, (50, 300)), ["/bin/sh"]);
    // But which of the two it was is only known of a moment: they may have been called
    // otherwise, and by another user.
    let since = |from: Time, until: Time| {
        let (from, until) = (from * US, until * US);
        match bench
            .0
            .who(20, Fate::Alive, Window { from, until }, None, false)
        {
            Verdict::One(_, _, since) => since.map(|since| since / US),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(since(50, 300), None);
    assert_eq!((since(110, 150), since(250, 300)), (Some(100), Some(200)));
}

#[test]
fn a_pid_that_came_round_belongs_to_several() {
    let mut bench = moved();
    bench.fork(20, 10, 1000);
    bench.exec(20, "/bin/ln", 1100);
    bench.exit(20, 1200);
    bench.fork(20, 10, 2000);
    bench.exec(20, "/bin/cp", 2100);
    // Both ended ones overlap the window.
    assert_eq!(
        bench.who(20, Fate::Reaped, (500, 3000)),
        ["/bin/mv", "/bin/sh", "/bin/ln", "or another"]
    );
    assert_eq!(bench.who(20, Fate::Reaped, (1150, 1900)), ["/bin/ln"]);
    // The third lives; but perhaps there was no descriptor left for its pidfd.
    assert_eq!(
        bench.who(20, Fate::Reaped, (1150, 3000)),
        ["/bin/ln", "or another"]
    );
    // Alive: the newest, whatever the window.
    assert_eq!(bench.who(20, Fate::Alive, (2200, 3000)), ["/bin/cp"]);
    // Not reaped when the record was read at 1150: not the first.
    let ended = Fate::Ended { read: 1150 * US };
    assert_eq!(bench.who(20, ended, (1150, 1190)), ["/bin/ln"]);
}

#[test]
fn what_a_process_closes_after_the_record_of_its_end_is_its_act() {
    let bench = moved();
    assert_eq!(bench.who(20, Fate::Reaped, (650, 700)), ["/bin/mv"]);
}

#[test]
fn a_process_that_was_never_seen_is_unknown() {
    let mut bench = moved();
    assert_eq!(bench.who(99, Fate::Alive, (1, 700)), ["unknown"]);
    bench.fork(30, 99, 800);
    assert_eq!(bench.who(30, Fate::Alive, (850, 900)), ["unknown"]);
    bench.exec(30, "/bin/ln", 1000);
    assert_eq!(bench.who(30, Fate::Alive, (1010, 1100)), ["/bin/ln"]);
    assert_eq!(
        bench.who(30, Fate::Alive, (850, 1100)),
        ["/bin/ln", "or another"]
    );
}

#[test]
fn an_exec_by_another_thread_ends_the_first_thread_and_not_the_process() {
    let mut bench = Bench::new();
    bench.exit(10, 100);
    bench.exec(10, "/bin/ls", 101);
    assert_eq!(bench.who(10, Fate::Alive, (110, 200)), ["/bin/ls"]);
    assert_eq!(bench.who(10, Fate::Reaped, (110, 200)), ["unknown"]);
    bench.0.prune(1 << 50, 1 << 49);
    assert_eq!(bench.who(10, Fate::Alive, (110, 200)), ["/bin/ls"]);
}

#[test]
fn a_process_is_alone_if_it_never_had_a_thread_and_nobody_had_its_pid() {
    let mut bench = Bench::new();
    bench.fork(20, 10, 100);
    bench.exec(20, "/bin/cp", 101);
    let alone = |bench: &Bench, pid, birth: Time| bench.0.is_alone(pid, birth * US);
    assert!(alone(&bench, 20, 100));
    assert!(!alone(&bench, 20, 100_000), "born at another time");
    assert!(!alone(&bench, 21, 100), "not known");
    bench.take(20, 200, What::Thread);
    assert!(!alone(&bench, 20, 100));
    // Also when it has one thread again.
    bench.exec(20, "/bin/mv", 201);
    assert!(!alone(&bench, 20, 100));
    // The opener may have been the former, which was killed.
    bench.fork(30, 10, 300);
    bench.exit(30, 301);
    bench.fork(30, 10, 302);
    assert!(!alone(&bench, 30, 302));
    // A thread may have been among what was lost.
    bench.fork(40, 10, 400);
    assert!(alone(&bench, 40, 400));
    bench.take(0, 401, What::Lost(1));
    assert!(!alone(&bench, 40, 400));
}

#[test]
fn what_was_done_before_a_repair_is_never_certain() {
    let mut bench = moved();
    bench.take(0, 700, What::Lost(3));
    assert_eq!(
        bench.who(20, Fate::Reaped, (500, 800)),
        ["/bin/mv", "or another"]
    );
    let seeds = vec![shown(10, 1, "/bin/sh"), shown(40, 750, "/bin/new")];
    bench.0.repair(seeds, 900 * US, 1000 * US);
    assert_eq!(bench.who(10, Fate::Alive, (1010, 1100)), ["/bin/sh"]);
    assert_eq!(bench.who(40, Fate::Alive, (1010, 1100)), ["unknown"]);
    // Its fork was in a ring all the while: the same process.
    bench.fork(40, 10, 751);
    bench.exec(40, "/bin/new", 760);
    assert_eq!(bench.who(40, Fate::Alive, (1010, 1100)), ["/bin/new"]);
    assert_eq!(
        bench.who(40, Fate::Alive, (990, 1100)),
        ["/bin/new", "or another"]
    );
    let id = bench.0.find(40, 751 * US).unwrap();
    assert_eq!(bench.0.parent(id).unwrap().1.pid, 10);
}

/// Whoever makes records be lost could else choose a name for what runs.
#[test]
fn after_a_loss_proc_confirms_what_was_seen_and_tells_nothing_new() {
    let mut bench = moved();
    bench.take(0, 700, What::Lost(3));
    let keygen = "/usr/bin/ssh-keygen";
    let seeds = vec![shown(10, 1, "/bin/sh"), shown(20, 100, keygen)];
    bench.0.repair(seeds.clone(), 900 * US, 1000 * US);
    assert_eq!(bench.who(20, Fate::Alive, (1010, 1100)), ["unknown"]);
    // Nor the second time.
    bench.take(0, 1200, What::Lost(3));
    bench.0.repair(seeds, 1300 * US, 1400 * US);
    assert_eq!(bench.who(20, Fate::Alive, (1410, 1500)), ["unknown"]);
    assert_eq!(bench.who(10, Fate::Alive, (1410, 1500)), ["/bin/sh"]);
    // It may have been an exec that was lost: the next one is seen.
    bench.exec(20, "/bin/mv", 1600);
    assert_eq!(bench.who(20, Fate::Alive, (1610, 1700)), ["/bin/mv"]);
    // What it ran before is as easily said: only root's is not for others to choose.
    let mut bench = moved();
    bench.take(0, 700, What::Lost(3));
    let users = |pid, birth, path| Seed {
        is_roots: false,
        ..shown(pid, birth, path)
    };
    let seeds = vec![users(10, 1, "/bin/sh")];
    bench.0.repair(seeds, 900 * US, 1000 * US);
    assert_eq!(bench.who(10, Fate::Alive, (1010, 1100)), ["unknown"]);
    // At the start there is nothing else to go by.
    let mut bench = Bench::default();
    bench
        .0
        .seed(vec![shown(20, 100, keygen)], 900 * US, 1000 * US);
    assert_eq!(bench.who(20, Fate::Alive, (1010, 1100)), [keygen]);
    // Also where its maker has run another program since, whose record is still to come.
    let mut bench = Bench::default();
    let seeds = vec![shown(10, 1, "/bin/later"), shown(20, 100, "/bin/sh")];
    bench.0.seed(seeds, 900 * US, 1000 * US);
    bench.fork(20, 10, 100);
    bench.exec(10, "/bin/later", 110);
    assert_eq!(bench.who(20, Fate::Alive, (1010, 1100)), ["/bin/sh"]);
}

#[test]
fn a_file_is_shown_by_other_numbers_only_where_they_have_no_major_part() {
    let file = |path: &str, major, inode| Program {
        path: path.into(),
        device: libc::makedev(major, 5),
        inode,
        generation: None,
    };
    let disk = file("/bin/a", 8, 7);
    assert!(disk.is_shown_as(&file("/bin/a", 8, 7)));
    assert!(disk.is_shown_as(&file("/bin/b", 8, 7)), "moved");
    assert!(!disk.is_shown_as(&file("/bin/a", 8, 9)));
    assert!(disk.is_shown_as(&file("/bin/a (deleted)", 0, 9)));
    assert!(!disk.is_shown_as(&file("/bin/b", 0, 7)));
}

/// An exec that was lost is one that the table would not know of.
#[test]
fn nothing_is_certain_between_a_loss_and_its_repair() {
    let mut table = ProcTable::unopened().unwrap();
    table.processors = Some(Processors::open().unwrap());
    let record = |pid, what| Record {
        time: now(),
        pid,
        what,
    };
    table.take(record(20, What::Fork { parent: 10 }));
    let name = "mv".into();
    table.take(record(20, What::Exec { name }));
    table.take(record(20, What::Map(program("/bin/mv"))));
    let who = |table: &mut ProcTable| {
        table.reading();
        table.has_read(0, &[]);
        table.reading();
        table.has_read(1, &[20]);
        table.drain();
        table.who(20, Life::Alive, true)
    };
    assert!(matches!(who(&mut table), Verdict::One(..)));
    // It is not due for repair yet.
    table.repaired = Time::MAX;
    table.young.push(record(0, What::Lost(1)));
    assert!(matches!(who(&mut table), Verdict::Several(..)));
    for _ in 0..2 {
        assert!(matches!(who(&mut table), Verdict::Several(..)));
    }
    table.damaged = false;
    // Longer than clocks may differ.
    std::thread::sleep(std::time::Duration::from_millis(1));
    assert!(matches!(who(&mut table), Verdict::One(..)));
}

#[test]
fn what_proc_does_not_show_any_more_has_ended() {
    let mut bench = Bench::new();
    bench.0.repair(Vec::new(), 900 * US, 1000 * US);
    let id = bench.0.find(10, US).unwrap();
    assert!(bench.0.get(id, 0).unwrap().ended);
}

#[test]
fn ancestors_that_ended_are_kept_as_long_as_their_children() {
    let mut bench = moved();
    bench.fork(20, 10, 700);
    bench.exec(20, "/bin/bash", 800);
    bench.fork(21, 20, 900);
    bench.exit(20, 950);
    bench.exit(10, 960);
    bench.0.prune(1 << 50, 1 << 49);
    let id = bench.0.find(21, 900 * US).unwrap();
    let (parent, known) = bench.0.parent(id).unwrap();
    assert_eq!(known.program.unwrap().path, Path::new("/bin/bash"));
    assert!(known.ended);
    let (_, known) = bench.0.parent(parent).unwrap();
    assert_eq!((known.pid, known.ended), (10, true));
    bench.exit(21, 1000);
    bench.0.prune(1 << 50, 1 << 49);
    assert!(bench.0.is_empty(), "{} are left", bench.0.len());
}

#[test]
fn a_window_that_is_still_open_keeps_who_ended_in_it() {
    let mut bench = moved();
    bench.0.prune(1 << 50, 550 * US);
    assert_eq!(bench.who(20, Fate::Reaped, (550, 700)), ["/bin/mv"]);
}

#[test]
fn a_storm_is_bounded_and_what_it_displaces_is_not_certain() {
    let mut bench = Bench::new();
    for run in 0..40_000 {
        let at = 1000 + Time::try_from(run).unwrap() * 10;
        bench.fork(1000 + run, 10, at);
        bench.exec(1000 + run, "/bin/mv", at + 1);
        bench.exit(1000 + run, at + 5);
        if run % 1000 == 0 {
            bench.0.prune(at * US, 500 * US);
        }
    }
    let end = 1000 + 40_000 * 10;
    bench.0.prune(end * US, 500 * US);
    assert!(bench.0.len() < 20_000, "{}", bench.0.len());
    assert_eq!(bench.who(1000, Fate::Reaped, (500, end)), ["unknown"]);
    let last = 1000 + 39_999;
    assert_eq!(
        bench.who(last, Fate::Reaped, (end - 6, end)),
        ["/bin/mv", "or another"]
    );
    assert_eq!(bench.who(10, Fate::Alive, (end + 3, end + 9)), ["/bin/sh"]);
}

#[test]
fn processes_that_each_make_the_next_and_end_do_not_pile_up() {
    let mut bench = Bench::new();
    for run in 0..10_000 {
        let at = 1000 + Time::try_from(run).unwrap() * 10;
        bench.fork(11 + run, 10 + run, at);
        bench.exit(10 + run, at + 5);
        bench.0.prune(1 << 50, at * US);
    }
    assert!(bench.0.len() < 50, "{}", bench.0.len());
}

#[test]
fn a_process_that_execs_for_ever_is_bounded() {
    let mut bench = Bench::new();
    for run in 0..100 {
        bench.exec(10, if run % 2 == 0 { "/bin/a" } else { "/bin/b" }, 10 + run);
    }
    assert_eq!(
        bench.who(10, Fate::Alive, (5, 300)),
        ["/bin/a", "/bin/b", "or another"]
    );
    assert_eq!(bench.who(10, Fate::Alive, (200, 300)), ["/bin/b"]);
    // The first ones are forgotten.
    assert_eq!(
        bench.who(10, Fate::Alive, (12, 13)),
        ["unknown"],
        "the images of that time are gone"
    );
}

/// A record as the kernel lays it out, with the trailer that we ask for.
fn bytes(kind: u32, misc: u16, body: &[u8]) -> Vec<u8> {
    let size = u16::try_from(8 + body.len() + 24).unwrap();
    let mut bytes = Vec::new();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(misc.to_ne_bytes());
    bytes.extend(size.to_ne_bytes());
    bytes.extend(body);
    bytes.extend(numbers(&[7, 7]));
    bytes.extend(123_456_u64.to_ne_bytes());
    bytes.extend(0_u64.to_ne_bytes());
    bytes
}

fn numbers(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|it| it.to_ne_bytes()).collect()
}

fn map(misc: u16, inode: u64, path: &[u8]) -> Vec<u8> {
    let mut body = numbers(&[20, 20]);
    body.extend([0; 24]);
    body.extend(numbers(&[254, 1]));
    body.extend(inode.to_ne_bytes());
    body.extend([0; 16]);
    body.extend(path);
    bytes(10, misc, &body)
}

fn parsed(bytes: &[u8]) -> Vec<What> {
    let mut all = Vec::new();
    assert!(parse(bytes, |record| {
        assert_eq!(record.time, 123_456);
        all.push(record.what);
    }));
    all
}

#[test]
fn records_are_read_as_the_kernel_lays_them_out() {
    const EXEC: u16 = 1 << 13;
    let task = |ids: [u32; 4]| [numbers(&ids), vec![0; 8]].concat();
    let comm = |ids: [u32; 2]| [numbers(&ids), b"mv\0\0\0\0\0\0".to_vec()].concat();
    let all = [
        bytes(7, 0, &task([20, 10, 20, 10])),
        bytes(7, 0, &task([20, 20, 21, 20])),
        bytes(3, EXEC, &comm([20, 20])),
        bytes(3, 0, &comm([20, 20])),
        bytes(3, 0, &comm([20, 21])),
        map(0, 99, b"/bin/m\xffv\0\0\0"),
        map(0, 0, b"[vdso]\0\0"),
        map(0, 0, b"/mnt/x\0\0"),
        map(0, 0, b"//anon\0\0"),
        map(0, 0, b"[stack]\0"),
        map(EXEC, 98, b"/etc/ld.so.cache\0\0\0\0\0\0\0\0"),
        bytes(9, 0, &[]),
        bytes(2, 0, &[1_u64.to_ne_bytes(), 5_u64.to_ne_bytes()].concat()),
        bytes(4, 0, &task([20, 10, 21, 10])),
        bytes(4, 0, &task([20, 10, 20, 10])),
        bytes(77, 0, &[]),
    ]
    .concat();
    let path = std::os::unix::ffi::OsStringExt::from_vec(b"/bin/m\xffv".to_vec());
    let path: std::ffi::OsString = path;
    assert_eq!(
        parsed(&all),
        [
            What::Fork { parent: 10 },
            What::Thread,
            What::Exec { name: "mv".into() },
            What::Rename { name: "mv".into() },
            What::Map(Program {
                path: path.into(),
                device: libc::makedev(254, 1),
                inode: 99,
                generation: None,
            }),
            What::Unfiled,
            What::Unfiled,
            What::Moment { thread: 7 },
            What::Lost(5),
            What::Exit,
        ]
    );
}

#[test]
fn bytes_that_are_no_record_end_the_reading() {
    let record = map(0, 99, b"/bin/mv\0");
    for length in 1..record.len() {
        assert!(!parse(&record[..length], |_| panic!("at {length}")));
    }
    let mut short = record.clone();
    short[6..8].copy_from_slice(&40_u16.to_ne_bytes());
    assert!(!parse(&short, |_| panic!("a mapping without its fields")));
    short[6..8].copy_from_slice(&0_u16.to_ne_bytes());
    assert!(!parse(&short, |_| panic!("a record of no length")));
}
