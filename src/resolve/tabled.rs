//! What the process table says of a writer and its ancestors.
//!
//! Owns the step from a [`Verdict`] to an [`Attribution`]: ids come from `/proc`
//! as long as the process is there, programs from the table alone.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::identify::Identifier;
use super::proc::cached_identity;
use super::{Attribution, Image, ImageState, Method, Process};
use crate::proctable::{self, Id, Known, Life, ProcTable, Program, Time, Verdict};
use crate::watch::Writer;

/// By how much a start in clock ticks may differ from a time stamp of the table.
const TICK: Time = 25_000_000;

/// Who wrote, as far as the table alone can say; `None` where `/proc` says more.
pub(super) fn attribute(
    table: &ProcTable,
    identifier: &Identifier,
    writer: &Writer,
) -> Option<Attribution> {
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
    let read = known
        .as_ref()
        .filter(|_| life != Life::Reaped)
        .and_then(|known| read(identifier, known));
    let process = match (read, &known) {
        (Some(mut process), _) => {
            let now = process.image.take();
            process.image = program.as_deref().map(|program| {
                now.filter(|now| is_file(now, program))
                    .unwrap_or_else(|| image(program))
            });
            if program.is_none() || now_differs(known.as_ref(), program.as_deref()) {
                // They are those of what it runs now.
                process.args = None;
                process.name = None;
            }
            process
        }
        (None, Some(known)) => Process {
            image: program.as_deref().map(image),
            ..from_table(known)
        },
        (None, None) => nameless(writer.pid),
    };
    let mut attribution = Attribution {
        method: Method::Recorded,
        certain: program.is_some(),
        process: Some(process),
        ancestors: Vec::new(),
        candidates: candidates.iter().map(|program| image(program)).collect(),
    };
    if let (Some(process), Some(known)) = (&mut attribution.process, &known)
        && known.parent_pid > 0
    {
        // `/proc` names who adopted it when its parent had ended.
        process.parent_pid = Some(known.parent_pid);
    }
    Some(attribution)
}

/// The process that made `child`, if the table knows.
pub(super) fn parent(table: &ProcTable, child: &Process) -> Option<(Id, Known)> {
    let birth = proctable::from_ticks(child.start_ticks?);
    let id = table.table().find(child.pid, birth)?;
    table.table().parent(id)
}

/// A process that has ended, as the table remembers it.
pub(super) fn from_table(known: &Known) -> Process {
    Process {
        parent_pid: Some(known.parent_pid),
        start: Some(proctable::wall_clock(known.birth)),
        start_ticks: Some(proctable::to_ticks(known.birth)),
        image: known.program.as_deref().map(image),
        name: Some(known.name.clone()),
        ..nameless(known.pid)
    }
}

/// Whether a start in clock ticks is that of `known`.
pub(super) fn is_start(known: &Known, ticks: u64) -> bool {
    proctable::from_ticks(ticks).abs_diff(known.birth) <= TICK
}

fn read(identifier: &Identifier, known: &Known) -> Option<Process> {
    let process = identifier.snapshot(known.pid).ok()?;
    // Not one that has got the pid since.
    is_start(known, process.start_ticks?).then_some(process)
}

fn now_differs(known: Option<&Known>, program: Option<&Program>) -> bool {
    known.and_then(|known| known.program.as_deref()) != program
}

fn is_file(image: &Image, program: &Program) -> bool {
    (image.device, image.inode) == (Some(program.device), Some(program.inode))
}

fn nameless(pid: i32) -> Process {
    Process {
        pid,
        parent_pid: None,
        start: None,
        start_ticks: None,
        image: None,
        name: None,
        args: None,
        working_directory: None,
        credentials: None,
        session: None,
        process_group: None,
        tty: None,
        login_uid: None,
        audit_session: None,
    }
}

/// The image that `program` is on this host.
fn image(program: &Program) -> Image {
    const DELETED: &[u8] = b" (deleted)";
    let mut image = Image {
        path: program.path.clone(),
        device: Some(program.device),
        inode: Some(program.inode),
        state: None,
    };
    let here = cached_identity(&program.path);
    let same =
        here.is_some_and(|here| (here.device, here.inode) == (program.device, program.inode));
    let bytes = program.path.as_os_str().as_bytes();
    if same {
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
        let comparable = libc::major(program.device) != 0 || here.inode != program.inode;
        image.state = comparable.then_some(ImageState::Replaced);
    }
    image
}
