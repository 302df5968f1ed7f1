//! Records and holds in every order, with a clock that is given.

use std::sync::Arc;

use super::*;
use crate::watch::Writer;
use crate::watch::hold::Found;

#[derive(Clone, Debug, PartialEq)]
struct Who {
    pid: i32,
    how: &'static str,
}

impl Subject for Who {
    type Actor = i32;

    fn unknown() -> Self {
        Self { pid: 0, how: "" }
    }
    fn actor(&self) -> i32 {
        self.pid
    }
    fn pid(&self) -> Option<i32> {
        Some(self.pid)
    }
    fn is_held(&self) -> bool {
        self.how == "held"
    }
    fn is_certain(&self) -> bool {
        matches!(self.how, "held" | "recorded")
    }
    fn is_weak(&self) -> bool {
        self.how == "inferred"
    }
    fn confirmed(self, record: Self) -> Self {
        record
    }
    fn doubted(self, _record: Self) -> Self {
        Self {
            how: "doubted",
            ..self
        }
    }
    fn unsure(self) -> Self {
        Self {
            how: "unsure",
            ..self
        }
    }
    fn inferred(self, _maker: &Self) -> Self {
        Self {
            how: "inferred",
            ..self
        }
    }
    fn is_key_generator(&self) -> bool {
        self.pid == 22
    }
}

fn object(number: u8) -> ObjectId {
    ObjectId::from_parts([0; 8], 1, &[number])
}

fn change(what: What, path: &str, pid: i32) -> Change {
    Change {
        what,
        path: path.into(),
        home: Path::new("/home/ann").into(),
        object: Some(object(1)),
        moved: false,
        writer: Some(Arc::new(Writer {
            pid,
            pidfd: None,
            once: Arc::default(),
        })),
        evidence: Evidence::Fanotify,
    }
}

struct Bench {
    assembler: Assembler<Who>,
    now: Instant,
    /// The process table knows the writer.
    certain: bool,
    /// When it acted.
    act: Option<Act>,
}

impl Bench {
    fn new() -> Self {
        Self {
            assembler: Assembler::default(),
            now: Instant::now(),
            certain: false,
            act: None,
        }
    }

    fn take(&mut self, change: Change) {
        let how = match change.evidence {
            Evidence::Scan => "inferred",
            _ if self.certain => "recorded",
            _ => "live",
        };
        let time = SystemTime::UNIX_EPOCH;
        self.assembler
            .take(change, self.act, time, self.now, |change| Who {
                pid: change.writer.as_ref().map_or(0, |writer| writer.pid),
                how,
            });
    }

    fn finished(&mut self) -> Vec<(Action, String, &'static str)> {
        self.assembler
            .finished()
            .map(|done| {
                let event = done.event;
                (
                    event.action,
                    event.path.display().to_string(),
                    event.writer.how,
                )
            })
            .collect()
    }
}

/// An open that makes a file, by a program that has run for long.
fn creating(path: &str) -> Opening {
    Opening {
        found: Found {
            links: 1,
            is_new: true,
            is_empty: true,
            path: Some(path.into()),
        },
        read: 500,
        since: Some(100),
        is_gone: false,
    }
}

const CREATED: What = What::Created { again: false };

#[test]
fn a_key_is_reported_once_when_it_is_closed_and_named_by_its_hold() {
    let mut bench = Bench::new();
    let held = Who {
        pid: 7,
        how: "held",
    };
    bench
        .assembler
        .held(object(1), creating("/h/id"), held, bench.now);
    bench.take(change(CREATED, "/h/id", 7));
    bench.take(change(What::Modified, "/h/id", 7));
    assert_eq!(bench.finished(), []);
    bench.take(change(What::Closed, "/h/id", 7));
    assert_eq!(
        bench.finished(),
        [(Action::Creation, "/h/id".to_owned(), "held")]
    );
    bench.now += SETTLE;
    bench.assembler.expire(bench.now);
    assert_eq!(bench.finished(), []);
}

#[test]
fn a_hold_that_is_heard_of_after_the_record_still_names_the_maker() {
    let mut bench = Bench::new();
    bench.take(change(CREATED, "/h/id", 7));
    let held = Who {
        pid: 7,
        how: "held",
    };
    bench
        .assembler
        .held(object(1), creating("/h/id"), held, bench.now);
    bench.assembler.flush();
    assert_eq!(
        bench.finished(),
        [(Action::Creation, "/h/id".to_owned(), "held")]
    );
}

#[test]
fn a_hold_that_is_not_sure_gives_way_to_a_certain_record() {
    let mut bench = Bench::new();
    let unsure = Who {
        pid: 7,
        how: "held, unsure",
    };
    bench
        .assembler
        .held(object(1), creating("/h/id"), unsure.clone(), bench.now);
    bench.certain = true;
    bench.take(change(CREATED, "/h/id", 7));
    bench
        .assembler
        .held(object(1), creating("/h/id"), unsure.clone(), bench.now);
    bench.assembler.flush();
    assert_eq!(
        bench.finished(),
        [(Action::Creation, "/h/id".to_owned(), "recorded")]
    );
    // Where nothing is certain, what was held says most.
    bench.certain = false;
    bench
        .assembler
        .held(object(1), creating("/h/id"), unsure, bench.now);
    bench.take(change(CREATED, "/h/id", 7));
    bench.assembler.flush();
    assert_eq!(
        bench.finished(),
        [(Action::Creation, "/h/id".to_owned(), "held, unsure")]
    );
}

#[test]
fn a_hold_names_the_maker_only_if_that_open_made_the_name() {
    let found = |links, is_new| {
        let mut opening = creating("/h/id");
        (opening.found.links, opening.found.is_new) = (links, is_new);
        opening
    };
    let ran_since = |since| Opening {
        since,
        ..creating("/h/id")
    };
    let with_since = |links, since| Opening {
        since,
        ..found(links, true)
    };
    let gone = || Opening {
        is_gone: true,
        ..creating("/h/id")
    };
    let made = || creating("/h/id");
    let elsewhere = || creating("/h/other");
    let act = |from, since| {
        Some(Act {
            from,
            is_moment: true,
            since,
        })
    };
    let window = Some(Act {
        is_moment: false,
        ..act(200, Some(100)).unwrap()
    });
    let early = act(200, Some(100));
    for (opening, act, by_hold, record) in [
        (made(), None, "held", "live"),
        (made(), early, "held", "live"),
        // It has run another since, which did not open it by this name, but may have linked it.
        (made(), act(200, Some(600)), "held", "live"),
        (elsewhere(), early, "held", "live"),
        (elsewhere(), act(200, Some(600)), "doubted", "live"),
        (elsewhere(), act(200, Some(600)), "recorded", "recorded"),
        (elsewhere(), act(200, None), "doubted", "live"),
        (elsewhere(), None, "doubted", "live"),
        // It ran another program when it may have made it.
        (ran_since(Some(300)), early, "doubted", "live"),
        (ran_since(None), early, "doubted", "live"),
        (ran_since(Some(300)), window, "unsure", "live"),
        (ran_since(Some(300)), window, "recorded", "recorded"),
        (ran_since(Some(300)), early, "recorded", "recorded"),
        (ran_since(Some(300)), act(400, Some(300)), "held", "live"),
        // It was made after the hold, or long before, or had a name.
        (made(), act(600, Some(100)), "live", "live"),
        (elsewhere(), act(600, Some(550)), "live", "live"),
        (found(1, false), early, "live", "live"),
        (found(2, true), early, "live", "live"),
        // A file without a name gets one later.
        (found(0, true), early, "held", "live"),
        (found(0, true), act(600, Some(100)), "held", "live"),
        (found(0, true), act(600, Some(550)), "doubted", "live"),
        // Another program of the process opened it than the one that has linked it.
        (with_since(0, Some(300)), early, "doubted", "live"),
        // Its name was taken away after the hold, perhaps for another to make it.
        (gone(), early, "held", "live"),
        (gone(), act(200, Some(600)), "doubted", "live"),
        (gone(), None, "doubted", "live"),
        (found(0, true), act(600, None), "doubted", "live"),
        (found(0, true), None, "doubted", "live"),
    ] {
        let held = Who {
            pid: 7,
            how: "held",
        };
        for hold_first in [true, false] {
            let mut bench = Bench::new();
            bench.act = act;
            bench.certain = record == "recorded";
            let hold = |bench: &mut Bench| {
                let now = bench.now;
                let opening = opening.clone();
                bench.assembler.held(object(1), opening, held.clone(), now);
            };
            if hold_first {
                hold(&mut bench);
            }
            bench.take(change(CREATED, "/h/id", 7));
            if !hold_first {
                hold(&mut bench);
            }
            bench.assembler.flush();
            let told = [(Action::Creation, "/h/id".to_owned(), by_hold)];
            assert_eq!(bench.finished(), told, "{opening:?} {act:?} {hold_first}");
        }
    }
}

#[test]
fn what_a_second_process_writes_is_an_event_of_its_own() {
    let contents = |bench: &mut Bench| -> Vec<(Action, i32, Content)> {
        let finished = bench.assembler.finished();
        let brief = |done: Assembled<Who>| (done.event.action, done.event.writer.pid, done.content);
        finished.map(brief).collect()
    };
    let modified = |pid| change(What::Modified, "/h/authorized_keys", pid);
    let created = |pid| change(CREATED, "/h/authorized_keys", pid);

    // What is linked there may hold anything, what open(2) has made holds nothing.
    for (is_held, first, second) in [
        (false, Content::Overwritten, Content::Shared),
        (true, Content::Others, Content::Own),
    ] {
        for hold_first in [true, false] {
            let mut bench = Bench::new();
            let hold = |bench: &mut Bench| {
                let held = Who {
                    pid: 7,
                    how: "held",
                };
                let now = bench.now;
                bench
                    .assembler
                    .held(object(1), creating("/h/authorized_keys"), held, now);
            };
            if is_held && hold_first {
                hold(&mut bench);
            }
            bench.take(created(7));
            if is_held && !hold_first {
                hold(&mut bench);
            }
            bench.take(modified(8));
            bench.take(modified(8));
            bench.assembler.flush();
            assert_eq!(
                contents(&mut bench),
                [
                    (Action::Creation, 7, first),
                    (Action::Modification, 8, second),
                ]
            );
        }
    }
    // What the opener itself has linked there just before is not empty either.
    let mut bench = Bench::new();
    let mut linked = creating("/h/authorized_keys");
    linked.found.is_empty = false;
    let held = Who {
        pid: 7,
        how: "held",
    };
    bench.assembler.held(object(1), linked, held, bench.now);
    bench.take(created(7));
    bench.take(modified(8));
    bench.assembler.flush();
    assert_eq!(contents(&mut bench)[0].2, Content::Overwritten);
    let mut bench = Bench::new();
    bench.take(modified(7));
    bench.take(modified(8));
    bench.assembler.flush();
    assert_eq!(
        contents(&mut bench),
        [
            (Action::Modification, 7, Content::Overwritten),
            (Action::Modification, 8, Content::Shared),
        ]
    );
    // The same process runs another program than it wrote with.
    let ran_since = |since| {
        Some(Act {
            from: 0,
            is_moment: false,
            since,
        })
    };
    for (first, second, events) in [
        (Some(10), Some(20), 2),
        (Some(10), Some(10), 1),
        (Some(10), None, 1),
        (None, Some(20), 1),
    ] {
        bench.act = ran_since(first);
        bench.take(modified(7));
        bench.act = ran_since(second);
        bench.take(modified(7));
        bench.assembler.flush();
        assert_eq!(contents(&mut bench).len(), events, "{first:?} {second:?}");
    }
    // A shell makes the file, and what it becomes writes it.
    bench.act = ran_since(Some(10));
    bench.take(created(7));
    bench.act = ran_since(Some(20));
    bench.take(modified(7));
    bench.assembler.flush();
    assert_eq!(contents(&mut bench), [(Action::Creation, 7, Content::Own)]);
    // A shell closes last what another writes for it.
    bench.take(change(CREATED, "/h/id", 7));
    bench.take(change(What::Modified, "/h/id", 7));
    bench.take(change(What::Closed, "/h/id", 8));
    let own = [(Action::Creation, 7, Content::Own)];
    assert_eq!(contents(&mut bench), own);
}

#[test]
fn a_file_that_is_closed_without_a_word_of_writing_is_to_be_looked_at() {
    let mut bench = Bench::new();
    let closed = |name: &str| change(What::Closed, &format!("/h/{name}"), 7);
    bench.take(change(CREATED, "/h/id", 7));
    bench.take(closed("id"));
    assert!(!bench.assembler.has_closed(), "its event waits");
    for name in ["c", "a", "b", "a"] {
        bench.take(closed(name));
    }
    assert!(bench.assembler.has_closed());
    let names = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
    assert_eq!(
        bench.assembler.closed_unwritten(2),
        names(&["/h/a", "/h/b"])
    );
    assert_eq!(bench.assembler.closed_unwritten(2), names(&["/h/c"]));
    assert!(!bench.assembler.has_closed());
    for number in 0..2 * MAX_CLOSED {
        bench.take(closed(&number.to_string()));
    }
    assert_eq!(
        bench.assembler.closed_unwritten(usize::MAX).len(),
        MAX_CLOSED
    );
    // What was counted in a flood was written to, for all we know.
    bench.assembler.limit(1);
    bench.take(change(CREATED, "/h/one", 7));
    bench.take(change(CREATED, "/h/two", 7));
    bench.take(closed("two"));
    assert!(!bench.assembler.has_closed());
}

#[test]
fn of_what_is_closed_what_lets_somebody_in_waits_for_nothing_else() {
    let mut bench = Bench::new();
    let closed = |name: &str| change(What::Closed, &format!("/home/ann/.ssh/{name}"), 7);
    for number in 0..MAX_CLOSED {
        bench.take(closed(&format!("A{number}")));
    }
    let path = |name: &str| PathBuf::from(format!("/home/ann/.ssh/{name}"));
    let names = || BTreeSet::from(["authorized_keys", "rc"].map(path));
    let taken = |bench: &mut Bench| -> BTreeSet<PathBuf> {
        bench.assembler.closed_unwritten(1).into_iter().collect()
    };
    for name in names() {
        bench.take(change(What::Closed, name.to_str().unwrap(), 7));
    }
    let first = taken(&mut bench);
    assert!(first.is_superset(&names()) && first.len() == 3, "{first:?}");
    drop(bench.assembler.closed_unwritten(MAX_CLOSED));
    // In a flood, too.
    bench.assembler.limit(1);
    bench.take(change(CREATED, "/h/one", 7));
    bench.take(change(CREATED, "/h/two", 7));
    for name in names() {
        bench.take(change(What::Closed, name.to_str().unwrap(), 7));
    }
    assert_eq!(taken(&mut bench), names());
    assert!(!bench.assembler.has_closed());
}

#[test]
fn another_process_that_opens_the_new_file_is_not_its_maker() {
    let mut bench = Bench::new();
    let reader = Who {
        pid: 9,
        how: "held",
    };
    bench
        .assembler
        .held(object(1), creating("/h/id"), reader.clone(), bench.now);
    bench.take(change(CREATED, "/h/id", 7));
    bench
        .assembler
        .held(object(1), creating("/h/id"), reader, bench.now);
    bench.assembler.flush();
    assert_eq!(
        bench.finished(),
        [(Action::Creation, "/h/id".to_owned(), "live")]
    );
}

#[test]
fn a_file_that_is_never_closed_is_reported_after_the_bound() {
    let mut bench = Bench::new();
    bench.take(change(CREATED, "/h/id", 7));
    bench.now += SETTLE.mul_f32(0.99);
    bench.assembler.expire(bench.now);
    assert_eq!(bench.finished(), []);
    assert!(bench.assembler.next_due().is_some());
    bench.now += SETTLE.mul_f32(0.02);
    bench.assembler.expire(bench.now);
    assert_eq!(bench.finished().len(), 1);
    assert!(bench.assembler.next_due().is_none());
}

#[test]
fn later_writes_are_a_modification() {
    let mut bench = Bench::new();
    bench.take(change(What::Modified, "/h/authorized_keys", 7));
    bench.take(change(What::Modified, "/h/authorized_keys", 7));
    bench.take(change(What::Closed, "/h/authorized_keys", 7));
    bench.take(change(What::Closed, "/h/authorized_keys", 7));
    assert_eq!(
        bench.finished(),
        [(
            Action::Modification,
            "/h/authorized_keys".to_owned(),
            "live"
        )]
    );
}

#[test]
fn what_the_scan_found_gets_its_writer_from_the_late_record() {
    let mut bench = Bench::new();
    let mut scanned = change(CREATED, "/h/id", 3);
    scanned.evidence = Evidence::Scan;
    bench.take(scanned);
    bench.take(change(What::Created { again: true }, "/h/id", 7));
    bench.take(change(What::Created { again: true }, "/h/id", 8));
    bench.assembler.flush();
    let done: Vec<_> = bench.assembler.finished().collect();
    assert_eq!(done.len(), 1);
    assert_eq!(
        done[0].event.writer,
        Who {
            pid: 7,
            how: "live"
        }
    );
    assert_eq!(done[0].event.evidence, Evidence::Fanotify);
}

#[test]
fn a_temporary_host_key_waits_for_its_final_name() {
    let mut bench = Bench::new();
    let temporary = "/etc/ssh/ssh_host_rsa_key.0FtBzABQlZ";
    bench.take(change(CREATED, temporary, 22));
    bench.take(change(What::Closed, temporary, 22));
    bench.take(change(What::Modified, temporary, 22));
    bench.take(change(What::Closed, temporary, 22));
    assert_eq!(bench.finished(), []);
    let renamed = What::Renamed {
        from: Some(temporary.into()),
    };
    bench.take(change(renamed, "/etc/ssh/ssh_host_rsa_key", 22));
    let done: Vec<_> = bench.assembler.finished().collect();
    assert_eq!(done[0].event.action, Action::Creation);
    assert_eq!(
        done[0].event.final_path,
        Some(FinalPath::Renamed("/etc/ssh/ssh_host_rsa_key".into()))
    );
    assert_eq!(done[1].event.action, Action::Rename);
    assert_eq!(done[1].event.original_path, Some(temporary.into()));
}

#[test]
fn a_final_name_that_does_not_come_in_time_is_called_expected() {
    let mut bench = Bench::new();
    let temporary = "/etc/ssh/ssh_host_rsa_key.pub.0FtBzABQlZ";
    bench.take(change(CREATED, temporary, 22));
    bench.assembler.expire(bench.now + SETTLE);
    let done: Vec<_> = bench.assembler.finished().collect();
    assert_eq!(
        done[0].event.final_path,
        Some(FinalPath::Expected("/etc/ssh/ssh_host_rsa_key.pub".into()))
    );
}

#[test]
fn only_host_key_templates_have_a_final_name() {
    let name = |path| final_name(Path::new(path)).and_then(OsStr::to_str);
    assert_eq!(
        name("/e/ssh_host_ed25519_key.0FtBzABQlZ"),
        Some("ssh_host_ed25519_key")
    );
    assert_eq!(name("/e/ssh_host_ed25519_key.pub"), None);
    assert_eq!(name("/e/known_hosts.0FtBzABQlZ"), None);
    assert_eq!(name("/e/ssh_host_ed25519_key.0FtBzABQl"), None);
}

#[test]
fn a_file_made_again_under_its_name_is_two_creations() {
    let mut bench = Bench::new();
    bench.take(change(CREATED, "/h/id", 7));
    bench.take(change(What::Deleted, "/h/id", 7));
    let mut second = change(CREATED, "/h/id", 8);
    second.object = Some(object(2));
    bench.take(second);
    bench.assembler.flush();
    let actions: Vec<Action> = bench.finished().iter().map(|done| done.0).collect();
    assert_eq!(
        actions,
        [Action::Creation, Action::Deletion, Action::Creation]
    );
}

#[test]
fn an_open_is_told_at_once_but_not_of_who_makes_the_file() {
    let mut bench = Bench::new();
    bench.take(change(What::Created { again: false }, "/s/key", 7));
    bench.take(change(What::Opened, "/s/key", 7));
    assert_eq!(bench.finished(), [], "open(2) with O_CREAT");
    bench.take(change(What::Opened, "/s/key", 8));
    bench.take(change(What::Opened, "/s/key", 8));
    let told: Vec<_> = bench
        .finished()
        .into_iter()
        .map(|(action, ..)| action)
        .collect();
    assert_eq!(told, [Action::Open]);
    bench.now += SETTLE;
    bench.assembler.expire(bench.now);
    let told = bench.finished();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].0, Action::Creation);
    // The creation may be long told when its open is read.
    bench.take(change(What::Opened, "/s/key", 7));
    assert_eq!(bench.finished(), []);
}
