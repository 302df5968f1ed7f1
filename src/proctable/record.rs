//! The records of a perf ring, read from bytes (`perf_event_open(2)`, "MMAP
//! layout"). Pure, and total: bytes that are no record end the reading.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// Time of `CLOCK_MONOTONIC`, in nanoseconds.
pub type Time = u64;

const LOST: u32 = 2;
const COMM: u32 = 3;
const EXIT: u32 = 4;
const FORK: u32 = 7;
const SAMPLE: u32 = 9;
const MMAP2: u32 = 10;
const LOST_SAMPLES: u32 = 13;
/// `PERF_RECORD_MISC_COMM_EXEC` in a COMM, `PERF_RECORD_MISC_MMAP_DATA` in a mapping.
const MISC_13: u16 = 1 << 13;
/// `PERF_RECORD_MISC_MMAP_BUILD_ID`: the identity is not there; not asked for.
const MISC_14: u16 = 1 << 14;

const HEADER: usize = 8;
/// What each record ends with: pid, tid, time, cpu.
const TRAILER: usize = 24;

/// How mappings of memory are called. In an exec that of a stack which can be
/// executed comes before the files.
const MEMORY: [&str; 2] = ["//anon", "[stack]"];

/// The file behind an executable mapping.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Program {
    /// Its path, relative to the root of who mapped it, as the kernel gives it
    /// (" (deleted)" included).
    pub path: PathBuf,
    /// Device of its file system, as `makedev(3)` makes it.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// The inode's generation, of a device without a major part.
    pub generation: Option<u32>,
}

impl Program {
    /// Whether stat(2) can show this file as `other`. Overlay and btrfs, whose numbers
    /// have no major part, give a file other numbers in a mapping.
    pub(super) fn is_shown_as(&self, other: &Self) -> bool {
        const DELETED: &[u8] = b" (deleted)";
        let bare = |program: &Self| {
            let path = program.path.as_os_str().as_bytes();
            path.strip_suffix(DELETED).unwrap_or(path).to_vec()
        };
        let has_major = |program: &Self| libc::major(program.device) != 0;
        (self.device, self.inode) == (other.device, other.inode)
            || !(has_major(self) && has_major(other)) && bare(self) == bare(other)
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A process was made by `parent`.
    Fork {
        /// Who made it.
        parent: i32,
    },
    /// The process made a thread.
    Thread,
    /// A program begins: what the process did before is over. Its file is in
    /// the next `Map`.
    Exec {
        /// `comm` from here on.
        name: OsString,
    },
    /// The process called itself otherwise.
    Rename {
        /// `comm` from here on.
        name: OsString,
    },
    /// A file was mapped to be executed.
    Map(Program),
    /// What no file stands for was: `[vdso]` above all, which the kernel maps in
    /// each exec when it has mapped all files of it, and before any of it runs. A
    /// file without an inode number, too.
    Unfiled,
    /// The process's first thread ended.
    Exit,
    /// A sample: the moment a fanotify record was made, or the watching thread waked.
    Moment {
        /// Which thread did it.
        thread: i32,
    },
    /// The kernel lost records.
    Lost(u64),
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When.
    pub time: Time,
    /// Which process.
    pub pid: i32,
    /// What.
    pub what: What,
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn pid_at(bytes: &[u8], at: usize) -> Option<i32> {
    Some(u32_at(bytes, at)?.cast_signed())
}

fn text(bytes: &[u8]) -> OsString {
    let end = bytes.iter().position(|byte| *byte == 0);
    OsString::from_vec(bytes[..end.unwrap_or(bytes.len())].to_vec())
}

/// Reads all records in `bytes`; returns whether they were understood.
pub fn parse(mut bytes: &[u8], mut take: impl FnMut(Record)) -> bool {
    while !bytes.is_empty() {
        let Some(size) = bytes.get(6..HEADER) else {
            return false;
        };
        let size = usize::from(u16::from_ne_bytes([size[0], size[1]]));
        if size < HEADER + TRAILER || size > bytes.len() {
            return false;
        }
        let (record, rest) = bytes.split_at(size);
        match parse_one(record) {
            Parsed::Record(record) => take(record),
            Parsed::Other => {}
            Parsed::Malformed => return false,
        }
        bytes = rest;
    }
    true
}

enum Parsed {
    Record(Record),
    /// Of no interest: a thread's, or of a kind that is not asked for.
    Other,
    Malformed,
}

fn parse_one(record: &[u8]) -> Parsed {
    match read(record) {
        Some((time, Some((pid, what)))) => Parsed::Record(Record { time, pid, what }),
        Some((_, None)) => Parsed::Other,
        None => Parsed::Malformed,
    }
}

/// `None`: it is too short for what it says it is.
fn read(record: &[u8]) -> Option<(Time, Option<(i32, What)>)> {
    let kind = u32_at(record, 0)?;
    let misc = u16::from_ne_bytes([record[4], record[5]]);
    let (body, trailer) = record[HEADER..].split_at(record.len() - HEADER - TRAILER);
    let mut time = u64_at(trailer, 8)?;
    let (pid, what) = match kind {
        FORK => {
            let (pid, parent) = (pid_at(body, 0)?, pid_at(body, 4)?);
            if pid == parent {
                (pid, What::Thread)
            } else {
                (pid, What::Fork { parent })
            }
        }
        EXIT => {
            let (pid, thread) = (pid_at(body, 0)?, pid_at(body, 8)?);
            if pid != thread {
                return Some((time, None));
            }
            (pid, What::Exit)
        }
        COMM => {
            let (pid, thread) = (pid_at(body, 0)?, pid_at(body, 4)?);
            let name = text(body.get(8..)?);
            if misc & MISC_13 != 0 {
                (pid, What::Exec { name })
            } else if pid == thread {
                (pid, What::Rename { name })
            } else {
                return Some((time, None));
            }
        }
        MMAP2 => {
            let inode = u64_at(body, 40)?;
            if misc & (MISC_13 | MISC_14) != 0 {
                return Some((time, None));
            }
            let device = libc::makedev(u32_at(body, 32)?, u32_at(body, 36)?);
            // Where the numbers may not tell files apart (btrfs).
            let generation = u32::try_from(u64_at(body, 48)?).ok();
            let path = text(body.get(64..)?);
            let what = if inode != 0 {
                let path = path.into();
                What::Map(Program {
                    path,
                    device,
                    inode,
                    generation: generation.filter(|_| libc::major(device) == 0),
                })
            } else if MEMORY.iter().any(|memory| path == *memory) {
                return Some((time, None));
            } else {
                What::Unfiled
            };
            (pid_at(body, 0)?, what)
        }
        SAMPLE => {
            // The same fields as a trailer, and no trailer.
            let sample = record.get(HEADER..)?;
            time = u64_at(sample, 8)?;
            let thread = pid_at(sample, 4)?;
            (pid_at(sample, 0)?, What::Moment { thread })
        }
        LOST => (0, What::Lost(u64_at(body, 8)?)),
        LOST_SAMPLES => (0, What::Lost(u64_at(body, 0)?)),
        _ => return Some((time, None)),
    };
    Some((time, Some((pid, what))))
}
