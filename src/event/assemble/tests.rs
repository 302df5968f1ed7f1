//! Records and holds in every order, with a clock that is given.

use std::sync::Arc;

use super::*;
use crate::watch::Writer;

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
        writer: Some(Arc::new(Writer { pid, pidfd: None })),
        evidence: Evidence::Fanotify,
    }
}

struct Bench {
    assembler: Assembler<Who>,
    now: Instant,
    /// The process table knows the writer.
    certain: bool,
}

impl Bench {
    fn new() -> Self {
        Self {
            assembler: Assembler::default(),
            now: Instant::now(),
            certain: false,
        }
    }

    fn take(&mut self, change: Change) {
        let how = match change.evidence {
            Evidence::Scan => "inferred",
            _ if self.certain => "recorded",
            _ => "live",
        };
        self.assembler
            .take(change, SystemTime::UNIX_EPOCH, self.now, |change| Who {
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

const CREATED: What = What::Created { again: false };

#[test]
fn a_key_is_reported_once_when_it_is_closed_and_named_by_its_hold() {
    let mut bench = Bench::new();
    let held = Who {
        pid: 7,
        how: "held",
    };
    bench.assembler.held(object(1), held, bench.now);
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
    bench.assembler.held(object(1), held, bench.now);
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
    bench.assembler.held(object(1), unsure.clone(), bench.now);
    bench.certain = true;
    bench.take(change(CREATED, "/h/id", 7));
    bench.assembler.held(object(1), unsure.clone(), bench.now);
    bench.assembler.flush();
    assert_eq!(
        bench.finished(),
        [(Action::Creation, "/h/id".to_owned(), "recorded")]
    );
    // Where nothing is certain, what was held says most.
    bench.certain = false;
    bench.assembler.held(object(1), unsure, bench.now);
    bench.take(change(CREATED, "/h/id", 7));
    bench.assembler.flush();
    assert_eq!(
        bench.finished(),
        [(Action::Creation, "/h/id".to_owned(), "held, unsure")]
    );
}

#[test]
fn another_process_that_opens_the_new_file_is_not_its_maker() {
    let mut bench = Bench::new();
    let reader = Who {
        pid: 9,
        how: "held",
    };
    bench.assembler.held(object(1), reader.clone(), bench.now);
    bench.take(change(CREATED, "/h/id", 7));
    bench.assembler.held(object(1), reader, bench.now);
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
