//! What the process table says of a writer and its ancestors.
//!
//! Owns the step from a [`Verdict`] to an [`Attribution`]: ids come from `/proc`
//! as long as the process is there, programs from the table alone.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::identify::Identifier;
use super::proc::{Numbers, cached_identity, numbers_of_mappings};
use super::{Attribution, Image, ImageState, Method, Process, ProgramFacts};
use crate::proctable::{self, Id, Known, Life, ProcTable, Program, Time, Verdict};
use crate::watch::Writer;

/// By how much a start in clock ticks may differ from a time stamp of the table.
const TICK: Time = 25_000_000;

/// Who wrote, as far as the table alone can say; `None` where `/proc` says more.
/// Reads nothing: [`complete`] does, when it is known that it is worth it.
pub(super) fn attribute(table: &ProcTable, writer: &Writer) -> Option<Attribution> {
    let life = match &writer.pidfd {
        Some(pidfd) if pidfd.is_alive() => Life::Alive,
        Some(_) => Life::Ended,
        None => Life::Reaped,
    };
    let verdict = table.who(writer.pid, life, writer.acted_once());
    let (id, program, since, candidates) = match verdict {
        Verdict::Unknown => return None,
        Verdict::One(id, program, since) => (Some(id), Some(program), since, Vec::new()),
        // One that is known and others that are not: a living one is better read.
        Verdict::Several(_, programs) if programs.len() == 1 && life == Life::Alive => return None,
        Verdict::Several(id, programs) => (id, None, None, programs),
    };
    // Of several processes with one pid neither's ids are known.
    let known = id.and_then(|id| table.table().get(id, Time::MAX));
    let process = Process {
        image: program.as_deref().map(unplaced),
        ..known
            .as_ref()
            .map_or_else(|| Process::unknown(writer.pid), from_table_alone)
    };
    Some(Attribution {
        method: Method::Recorded,
        certain: program.is_some(),
        process: Some(process),
        ancestors: Vec::new(),
        candidates: candidates.iter().map(|program| image(program)).collect(),
        program: ProgramFacts {
            since,
            ..ProgramFacts::default()
        },
    })
}

/// Adds what `/proc` says of a process that the table named, if it is still there and still
/// runs what it has run `since`.
pub(super) fn complete(
    process: &mut Process,
    since: Option<Time>,
    identifier: &Identifier,
    table: &mut ProcTable,
) {
    if let Some(image) = &mut process.image
        && image.state.is_none()
    {
        place(image);
    }
    // Read already, or found to run something else.
    if process.credentials.is_some() || process.name.is_none() {
        return;
    }
    let Some(ticks) = process.start_ticks else {
        return;
    };
    let Ok(now) = identifier.brief(process.pid) else {
        return;
    };
    // Not one that has got the pid since.
    let birth = now.start_ticks.map(proctable::from_ticks);
    let known = proctable::from_ticks(ticks);
    if birth.is_none_or(|birth| birth.abs_diff(known) > 2 * TICK) {
        return;
    }
    // Nor within the same tick.
    table.catch_up(proctable::now());
    let Some(id) = table.table().find(process.pid, known) else {
        return;
    };
    // The same file may have been run again, by another that has made it another user's; and
    // what file runs now is told by other numbers on overlay and btrfs.
    let is_same_exec = since.is_some() && table.table().since(id, Time::MAX) == since;
    // `/proc` names who adopted it when its parent had ended.
    let parent_pid = process.parent_pid.filter(|pid| *pid > 0);
    let parent_pid = parent_pid.or(now.parent_pid);
    let image = process.image.take();
    *process = if is_same_exec && image.is_some() {
        Process {
            parent_pid,
            image,
            ..now
        }
    } else {
        // It runs another program by now, perhaps with the rights of that program's
        // owner: whose it was when it acted, and where, is not known any more.
        Process {
            parent_pid,
            image,
            start: now.start,
            start_ticks: now.start_ticks,
            ..Process::unknown(process.pid)
        }
    };
}

/// Since when `process` runs what it runs at this moment.
pub(super) fn runs_now_since(table: &mut ProcTable, process: &Process) -> Option<Time> {
    table.catch_up(proctable::now());
    runs_since(table, process, Time::MAX)
}

/// The process that made another.
pub(super) struct Maker {
    pub(super) id: Id,
    /// As what it was then.
    pub(super) known: Known,
    /// Since when it ran what it ran then, if that is known.
    pub(super) began: Option<Time>,
}

impl Maker {
    /// Whether it ran at `time` what it ran then, as far as is known.
    pub(super) fn ran_that(&self, table: &ProcTable, time: Time) -> bool {
        self.began.is_none() || table.table().since(self.id, time) == self.began
    }
}

/// Who made `child`, if the table knows.
pub(super) fn parent(table: &ProcTable, child: &Process) -> Option<Maker> {
    let birth = proctable::from_ticks(child.start_ticks?);
    let table = table.table();
    let child = table.find(child.pid, birth)?;
    let (id, known) = table.parent(child)?;
    let began = table.since(id, table.get(child, Time::MAX)?.birth);
    Some(Maker { id, known, began })
}

/// What process `id`, which lives, runs now; `None` where that is not sure.
pub(super) fn running(table: &ProcTable, id: Id) -> Option<Image> {
    table.table().runs(id).as_deref().map(unplaced)
}

/// Whether `process`, which was read while a thread of it was held, cannot have
/// changed meanwhile: nobody but the held thread could have done it.
pub(super) fn is_alone(table: &ProcTable, process: &Process) -> bool {
    process.start_ticks.is_some_and(|ticks| {
        let birth = proctable::from_ticks(ticks);
        process.image.is_some() && table.table().is_alone(process.pid, birth)
    })
}

/// Whether another process had the pid of `process` so shortly before or after it that
/// they started in the same tick.
pub(super) fn is_reused(table: &ProcTable, process: &Process) -> bool {
    let birth = process.start_ticks.map(proctable::from_ticks);
    birth.is_some_and(|birth| table.table().is_reused(process.pid, birth))
}

/// What `process` mapped to be executed besides its image.
pub(super) fn loaded(table: &ProcTable, process: &Process) -> Option<Image> {
    let birth = proctable::from_ticks(process.start_ticks?);
    let table = table.table();
    let id = table.find(process.pid, birth)?;
    let ran = process.image.as_ref()?;
    let program = table.second(id, |program| likeness(ran, program) == Likeness::Same)?;
    Some(image(&program))
}

/// What `/proc/PID/exe` says that a process runs, which is for it to choose
/// (`PR_SET_MM_MAP` in a user namespace), beside what was mapped at its execs, which is not.
pub(super) enum Claim {
    /// Nothing speaks against it.
    Stands,
    /// It has run these, of which it is none.
    False(Vec<Image>),
    /// It may be one of these, or not.
    Open(Vec<Image>),
}

/// What is to be thought of the image of `process`, which was `seen` to run then.
pub(super) fn claim(table: &ProcTable, process: &Process, seen: Option<Time>) -> Claim {
    let (Some(claimed), Some(ticks)) = (&process.image, process.start_ticks) else {
        return Claim::Stands;
    };
    let birth = proctable::from_ticks(ticks);
    let table = table.table();
    let (programs, complete) = if let Some(seen) = seen {
        let id = table.find_at(process.pid, birth, seen);
        let Some((id, known)) = id.and_then(|id| Some((id, table.get(id, seen)?))) else {
            // Forgotten meanwhile, as many others have ended.
            return Claim::Open(Vec::new());
        };
        // What was lost may have been an exec.
        let complete = table.since(id, seen).is_some();
        (known.program.into_iter().collect(), complete)
    } else {
        let id = table.find(process.pid, birth);
        let Some(programs) = id.and_then(|id| table.programs(id)) else {
            return Claim::Stands;
        };
        // It may have run nothing so far.
        (programs, true)
    };
    let likeness = programs.iter().map(|program| likeness(claimed, program));
    let best = likeness.max().unwrap_or(Likeness::Unsure);
    if best == Likeness::Same {
        return Claim::Stands;
    }
    let mut images: Vec<Image> = programs.iter().map(|program| image(program)).collect();
    images.dedup();
    // A file system that a user serves need not let us ask what a file is (fuse(4)). What
    // was mapped has an identity all the same.
    let is_nameless = claimed.inode.is_none() && images.len() == 1;
    if (best == Likeness::Other || is_nameless) && complete {
        Claim::False(images)
    } else {
        Claim::Open(images)
    }
}

/// Since when, at the latest, `process` ran what it ran at `time`.
pub(super) fn runs_since(table: &ProcTable, process: &Process, time: Time) -> Option<Time> {
    let birth = proctable::from_ticks(process.start_ticks?);
    let table = table.table();
    table.since(table.find_at(process.pid, birth, time)?, time)
}

/// What `process`, which was held at the exec of its image and had been read at `held`,
/// can have run since besides that: an exec can fail after the hold, and another can
/// follow. `None` if not everything is known that it has run.
pub(super) fn besides(table: &ProcTable, process: &Process, held: Time) -> Option<Besides> {
    let birth = proctable::from_ticks(process.start_ticks?);
    let table = table.table();
    let mut programs = table.begun(table.find_at(process.pid, birth, held)?, held)?;
    let image = process.image.as_ref()?;
    let first = programs.first();
    let began = first.is_some_and(|program| likeness(image, program) == Likeness::Same);
    if began {
        programs.remove(0);
    }
    Some(Besides {
        began,
        others: programs
            .iter()
            .map(|program| self::image(program))
            .collect(),
    })
}

/// What a process has run since it was held at an exec.
pub(super) struct Besides {
    /// The exec succeeded.
    pub(super) began: bool,
    /// What it has run after that.
    pub(super) others: Vec<Image>,
}

/// Whether an image is what was mapped as a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Likeness {
    Other,
    Unsure,
    Same,
}

/// Neither a path nor an inode number tells: both are for whoever mounts a file system of
/// his own in a user namespace to choose.
fn likeness(image: &Image, program: &Program) -> Likeness {
    let (Some(device), Some(inode)) = (image.device, image.inode) else {
        return Likeness::Unsure;
    };
    let mapped = (program.device, program.inode);
    match as_mapped(image, (device, inode), mapped) {
        Some(numbers) if numbers.file == mapped => match numbers.generation {
            None => Likeness::Same,
            Some(found) if program.generation == Some(found) => Likeness::Same,
            Some(_) if program.generation.is_none() => Likeness::Unsure,
            Some(_) => Likeness::Other,
        },
        None if program.inode == inode || program.path == image.path => Likeness::Unsure,
        _ => Likeness::Other,
    }
}

/// The image of a process that ran, as far as is `known`, this: what `/proc` says where that
/// is the same file, for it may have another path by now.
pub(super) fn vetted(image: Option<Image>, known: &Known) -> Option<Image> {
    let Some(program) = known.program.as_deref() else {
        return image;
    };
    image
        .filter(|image| likeness(image, program) == Likeness::Same)
        .or_else(|| Some(self::image(program)))
}

/// By which numbers the kernel calls a file of stat(2) where it is mapped, if that can be
/// told: `mapped` are the ones in question. Overlay and btrfs, whose numbers have no major
/// part, have others there.
fn as_mapped(image: &Image, file: (u64, u64), mapped: (u64, u64)) -> Option<Numbers> {
    if file == mapped || libc::major(file.0) != 0 {
        Some(Numbers {
            file,
            generation: None,
        })
    } else {
        numbers_of_mappings(image)
    }
}

/// Whether `process` ran at that time what no file stands for, whatever
/// `/proc/PID/exe` said.
pub(super) fn is_unfiled(table: &ProcTable, process: &Process, time: Time) -> bool {
    let birth = process.start_ticks.map(proctable::from_ticks);
    let table = table.table();
    let id = birth.and_then(|birth| table.find_at(process.pid, birth, time));
    id.is_some_and(|id| table.is_unfiled(id, time))
}

/// A process that has ended, as the table remembers it.
pub(super) fn from_table(known: &Known) -> Process {
    Process {
        image: known.program.as_deref().map(image),
        ..from_table_alone(known)
    }
}

fn from_table_alone(known: &Known) -> Process {
    let ticks = proctable::to_ticks(known.birth);
    Process {
        parent_pid: Some(known.parent_pid),
        start: Some(proctable::start_time(ticks)),
        start_ticks: Some(ticks),
        name: Some(known.name.clone()),
        ..Process::unknown(known.pid)
    }
}

/// Whether a start in clock ticks is that of `known`.
pub(super) fn is_start(known: &Known, ticks: u64) -> bool {
    proctable::from_ticks(ticks).abs_diff(known.birth) <= TICK
}

/// The image that `program` is on this host.
fn image(program: &Program) -> Image {
    let mut image = unplaced(program);
    place(&mut image);
    image
}

fn unplaced(program: &Program) -> Image {
    Image {
        path: program.path.clone(),
        device: Some(program.device),
        inode: Some(program.inode),
        generation: program.generation,
        state: None,
    }
}

/// Says what the path that the kernel gave means on this host.
fn place(image: &mut Image) {
    const DELETED: &[u8] = b" (deleted)";
    let (Some(device), Some(inode)) = (image.device, image.inode) else {
        return;
    };
    let here = cached_identity(&image.path);
    let bytes = image.path.as_os_str().as_bytes();
    let numbers = here.and_then(|here| {
        let found = Image {
            device: Some(here.device),
            inode: Some(here.inode),
            ..image.clone()
        };
        as_mapped(&found, (here.device, here.inode), (device, inode))
    });
    let is_it = numbers.map(|numbers| {
        let is_same = numbers.generation.is_none() || numbers.generation == image.generation;
        numbers.file == (device, inode) && is_same
    });
    if is_it == Some(true) {
        image.state = Some(ImageState::Same);
    } else if let Some(bare) = bytes.strip_suffix(DELETED) {
        image.state = Some(if bytes.starts_with(b"/memfd:") {
            ImageState::Memfd
        } else {
            ImageState::Deleted
        });
        image.path = PathBuf::from(OsString::from_vec(bare.to_vec()));
    } else if let Some(here) = here {
        // Where the numbers of what is here cannot be had, it may be the same file.
        let is_other = is_it.is_some() || here.inode != inode;
        image.state = is_other.then_some(ImageState::Replaced);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::resolve::proc::Proc;

    #[test]
    fn a_program_is_what_was_mapped_and_not_what_has_its_inode_number_or_path() {
        let own = std::fs::metadata("/proc/self/exe").unwrap();
        let path = std::fs::read_link("/proc/self/exe").unwrap();
        let image = |device, inode| Image {
            path: path.clone(),
            device: Some(device),
            inode: Some(inode),
            generation: None,
            state: None,
        };
        let program = |path: &Path, device, inode| Program {
            path: path.into(),
            device,
            inode,
            generation: None,
        };
        let (disk, other) = (libc::makedev(8, 1), libc::makedev(0, 40));
        let of_disk =
            |path, device, inode| likeness(&image(disk, 7), &program(path, device, inode));
        assert_eq!(of_disk(&path, disk, 7), Likeness::Same);
        assert_eq!(of_disk(Path::new("/moved"), disk, 7), Likeness::Same);
        assert_eq!(of_disk(&path, other, 7), Likeness::Other);
        assert_eq!(of_disk(&path, disk, 8), Likeness::Other);
        // An ancestor is called what it ran, whatever it says, and where that is by now.
        let known = |program: Option<Program>| Known {
            pid: 7,
            parent_pid: 1,
            birth: 0,
            ended: false,
            name: OsString::new(),
            program: program.map(Arc::new),
        };
        let ran = known(Some(program(Path::new("/moved"), disk, 7)));
        assert_eq!(vetted(Some(image(disk, 7)), &ran), Some(image(disk, 7)));
        for said in [Some(image(disk, 8)), Some(image(other, 7)), None] {
            let told = vetted(said, &ran).unwrap();
            assert_eq!((told.device, told.inode), (Some(disk), Some(7)));
            assert_eq!(told.path, Path::new("/moved"));
        }
        let said = Some(image(disk, 8));
        assert_eq!(vetted(said.clone(), &known(None)), said);
        // A file that is not there cannot be asked for.
        let overlay = image(libc::makedev(0, 41), own.ino() + 1);
        let of_overlay = |path, inode| likeness(&overlay, &program(path, other, inode));
        assert_eq!(of_overlay(&path, 7), Likeness::Unsure);
        assert_eq!(of_overlay(Path::new("/x"), own.ino() + 1), Likeness::Unsure);
        assert_eq!(of_overlay(Path::new("/x"), 7), Likeness::Other);
    }

    /// A program with another's rights may have come after the one that acted.
    #[test]
    fn whose_a_process_was_is_not_read_of_one_that_runs_another_program() {
        let proc = Arc::new(Proc::open(Path::new("/proc")).unwrap());
        let identifier = Identifier::new(proc).unwrap();
        let mut table = ProcTable::start().unwrap();
        let own = identifier.brief(std::process::id().cast_signed()).unwrap();
        let named = |image: &Option<Image>| Process {
            start: own.start,
            start_ticks: own.start_ticks,
            name: Some("it".into()),
            image: image.clone(),
            ..Process::unknown(own.pid)
        };
        let since = runs_since(&table, &own, Time::MAX);
        let mut same = named(&own.image);
        complete(&mut same, since, &identifier, &mut table);
        assert_eq!(same, own);
        let other = own.image.as_ref().map(|image| Image {
            inode: Some(1),
            ..image.clone()
        });
        let earlier = since.map(|since| since - 1);
        // Nor of one that may have run either of two, or the same file before.
        for (image, since) in [
            (other, earlier),
            (None, since),
            (own.image.clone(), earlier),
        ] {
            let mut process = named(&image);
            // However often it is asked for.
            for _ in 0..2 {
                complete(&mut process, since, &identifier, &mut table);
            }
            let known = Process {
                parent_pid: own.parent_pid,
                name: None,
                ..named(&image)
            };
            assert_eq!(process, known);
        }
    }
}
