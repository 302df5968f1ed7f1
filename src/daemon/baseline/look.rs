//! Looking at files for the baseline, on threads that may be made to wait.
//!
//! Owns the deadline: a file server that does not answer costs its directory's
//! comparison, and no more.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use nix::fcntl::readlinkat;

use crate::baseline::{Content, KeyFacts, Login, Record, Stat};
use crate::key::{self, Inspection, Role};
use crate::resolve::slow::{Pool, Size};
use crate::sink::is_absence;
use crate::sys::ObjectId;
use crate::sys::open::open_place;

/// How long one job may take: some hundred files.
const PATIENCE: Duration = Duration::from_secs(5);

/// So many are looked at by two threads.
const WORTH_TWO: usize = 32;

/// A file as it was found.
#[derive(Clone)]
pub(super) struct Seen {
    pub(super) record: Record,
    pub(super) object: Option<ObjectId>,
}

/// The threads.
pub(super) struct Looker {
    pool: Pool,
}

impl Looker {
    pub(super) fn start() -> io::Result<Self> {
        let size = Size {
            threads: 2,
            backlog: 2,
            urgent: false,
            movable: false,
        };
        Ok(Self {
            pool: Pool::start(size)?,
        })
    }

    /// Has something done for each of these, in two halves at once.
    fn ask<A: Send + 'static, T: Send + 'static>(
        &self,
        mut asked: Vec<A>,
        each: impl Fn(A) -> Option<T> + Copy + Send + 'static,
    ) -> Vec<T> {
        let mut halves = Vec::with_capacity(2);
        if asked.len() >= WORTH_TWO {
            halves.push(asked.split_off(asked.len() / 2));
        }
        halves.push(asked);
        let deadline = Instant::now() + PATIENCE;
        let ask = |half: Vec<A>| {
            let count = half.len();
            let answer = self
                .pool
                .ask(move || half.into_iter().filter_map(each).collect::<Vec<T>>());
            (count, answer)
        };
        let answers: Vec<_> = halves.into_iter().rev().map(ask).collect();
        let mut all = Vec::new();
        for (count, answer) in answers {
            let answer = answer.and_then(|answer| answer.until(deadline));
            if answer.is_none() {
                tracing::warn!(
                    "{count} files could not be compared with the baseline: their file system does not answer"
                );
            }
            all.extend(answer.into_iter().flatten());
        }
        all
    }

    /// What lstat(2) says of each that is there, and is no directory.
    pub(super) fn stat(&self, paths: Vec<PathBuf>) -> Vec<(PathBuf, Stat)> {
        self.ask(paths, |path: PathBuf| {
            let metadata = path.symlink_metadata().ok()?;
            (!metadata.is_dir()).then(|| (path, Stat::from(&metadata)))
        })
    }

    /// What is in each that is there, and is no directory.
    pub(super) fn read(&self, paths: Vec<PathBuf>) -> Vec<(PathBuf, Seen)> {
        if paths.is_empty() {
            return Vec::new();
        }
        self.ask(paths, |path: PathBuf| see(&path).map(|seen| (path, seen)))
    }

    /// Which of these are gone, from a file system that is still there.
    pub(super) fn gone(&self, known: Vec<(PathBuf, Record)>) -> Vec<PathBuf> {
        if known.is_empty() {
            return Vec::new();
        }
        self.ask(known, |(path, record): (PathBuf, Record)| {
            is_gone(&path, &record).then_some(path)
        })
    }
}

fn is_gone(path: &Path, record: &Record) -> bool {
    if !path
        .symlink_metadata()
        .is_err_and(|error| is_absence(&error))
    {
        return false;
    }
    // What is not mounted is not gone.
    let Some(above) = path.ancestors().skip(1).find(|above| above.is_dir()) else {
        return false;
    };
    let Ok(directory) = open_place(above).map(File::from) else {
        return false;
    };
    let Ok(metadata) = directory.metadata() else {
        return false;
    };
    let object = ObjectId::of(directory.as_fd()).ok();
    let object = object.map(|object| object.to_string());
    record.was_on(Stat::from(&metadata).device, object.as_deref())
}

/// Reads the file at `path`, as far as it can be.
fn see(path: &Path) -> Option<Seen> {
    let file = File::from(open_place(path).ok()?);
    let metadata = file.metadata().ok()?;
    if metadata.is_dir() {
        return None;
    }
    let object = ObjectId::of(file.as_fd()).ok();
    let mut record = record(Stat::from(&metadata), object.as_ref());
    if metadata.is_file() {
        let role = path.file_name().map_or(Role::Other, Role::of);
        if let Ok(inspection) = key::inspect(file.as_fd(), role, None) {
            fill(&mut record, &inspection);
        }
    } else if metadata.is_symlink() {
        let target = readlinkat(&file, c"").ok();
        record.content = target.map_or(Content::Unread, |target| link(&target));
    }
    Some(Seen { record, object })
}

/// A record without a content.
pub(super) fn record(stat: Stat, object: Option<&ObjectId>) -> Record {
    Record {
        object: object.map(ToString::to_string),
        stat,
        ..Record::default()
    }
}

/// A link's content.
pub(super) fn link(target: &OsStr) -> Content {
    Content::Target(HEXLOWER.encode(target.as_bytes()))
}

/// Adds what was read of a file.
pub(super) fn fill(record: &mut Record, inspection: &Inspection) {
    if let Some(hash) = &inspection.sha256 {
        record.content = Content::Sha256(HEXLOWER.encode(hash));
    }
    if let Some(facts) = &inspection.facts {
        record.key = Some(KeyFacts::from(facts));
        let list = facts.list.as_ref().filter(|_| inspection.whole);
        record.list = list.and_then(|list| Login::all(&list.entries));
    }
}
