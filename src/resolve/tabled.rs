//! What the process table says of a writer and its ancestors.
//!
//! Owns the step from a [`Verdict`] to an [`Attribution`]: ids come from `/proc`
//! as long as the process is there, programs from the table alone.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::identify::Identifier;
use super::proc::cached_identity;
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
    let (id, program, candidates) = match table.who(writer.pid, life) {
        Verdict::Unknown => return None,
        Verdict::One(id, program) => (Some(id), Some(program), Vec::new()),
        // One that is known and others that are not: a living one is better read.
        Verdict::Several(_, programs) if programs.len() == 1 && life == Life::Alive => return None,
        Verdict::Several(id, programs) => (id, None, programs),
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
        program: ProgramFacts::default(),
    })
}

/// Adds what `/proc` says of a process that the table named, if it is still there.
pub(super) fn complete(process: &mut Process, identifier: &Identifier) {
    if let Some(image) = &mut process.image
        && image.state.is_none()
    {
        place(image);
    }
    if process.credentials.is_some() {
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
    if birth.is_none_or(|birth| birth.abs_diff(proctable::from_ticks(ticks)) > 2 * TICK) {
        return;
    }
    let image = process.image.take();
    let same = super::resolver::same_file(image.as_ref(), now.image.as_ref());
    *process = Process {
        // `/proc` names who adopted it when its parent had ended.
        parent_pid: process.parent_pid.filter(|pid| *pid > 0).or(now.parent_pid),
        // It is that of what it runs now.
        name: now.name.filter(|_| same),
        image,
        ..now
    };
}

/// The process that made `child`, if the table knows.
pub(super) fn parent(table: &ProcTable, child: &Process) -> Option<(Id, Known)> {
    let birth = proctable::from_ticks(child.start_ticks?);
    let id = table.table().find(child.pid, birth)?;
    table.table().parent(id)
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

/// What `process` mapped to be executed besides its image.
pub(super) fn loaded(table: &ProcTable, process: &Process) -> Option<Image> {
    let birth = proctable::from_ticks(process.start_ticks?);
    let table = table.table();
    let id = table.find(process.pid, birth)?;
    let program = table.second(id, process.image.as_ref()?.inode?)?;
    Some(unplaced(&program))
}

/// The programs that `process` has run, if its image is none of them: what
/// `/proc/PID/exe` says is anybody's to choose (`PR_SET_MM_MAP` in a user
/// namespace), what was mapped at its execs is not.
/// It was `seen` to run then.
pub(super) fn real_programs(
    table: &ProcTable,
    process: &Process,
    seen: Option<Time>,
) -> Option<Vec<Image>> {
    let claimed = process.image.as_ref()?;
    let inode = claimed.inode?;
    let birth = proctable::from_ticks(process.start_ticks?);
    let table = table.table();
    let id = table.find(process.pid, birth)?;
    let mut programs = table.programs(id)?;
    if let Some(seen) = seen {
        programs = vec![table.get(id, seen)?.program?];
    }
    // Overlay and btrfs, whose numbers have no major part, give a file other
    // numbers in a mapping: there the path decides.
    let by_path = claimed.device.is_none_or(|device| libc::major(device) == 0);
    let is_it = |program: &Program| {
        let by_path = by_path && libc::major(program.device) == 0;
        program.inode == inode || (by_path && program.path == claimed.path)
    };
    if programs.is_empty() || programs.iter().any(|program| is_it(program)) {
        return None;
    }
    let mut images: Vec<Image> = programs.iter().map(|program| image(program)).collect();
    images.dedup();
    Some(images)
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
    if here.is_some_and(|here| (here.device, here.inode) == (device, inode)) {
        image.state = Some(ImageState::Same);
    } else if let Some(bare) = bytes.strip_suffix(DELETED) {
        image.state = Some(if bytes.starts_with(b"/memfd:") {
            ImageState::Memfd
        } else {
            ImageState::Deleted
        });
        image.path = PathBuf::from(OsString::from_vec(bare.to_vec()));
    } else if let Some(here) = here {
        // The kernel names a file system by another number than stat(2) does
        // on overlay and btrfs; their numbers have no major part.
        let comparable = libc::major(device) != 0 || here.inode != inode;
        image.state = comparable.then_some(ImageState::Replaced);
    }
}
