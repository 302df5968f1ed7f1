//! The process table: who had which pid when, and which program it ran, for
//! what no permission event covers (rename, link, symlink, `O_TMPFILE` + linkat).
//!
//! ```text
//! kernel ─ fork, exec, map, exit ─► a ring for each processor ─┐ (read after fanotify's
//! fanotify record of pid 4711, made between two moments ───────┴► records) ─► who
//! ```
//!
//! Owns the rings, the moments between which an act must lie, and the filling
//! of the table from `/proc`. Must not know files, nor read anything about a
//! process beyond what fills the table.
//!
//! A fanotify record has no time stamp. Its act lies after the moment before
//! the reading that last found the queue empty, and before the reading that
//! gave it. Where that is all that is known, a process that execs is ambiguous:
//! the child of a shell may have renamed a file itself and then run mv. Two
//! things narrow it:
//! - a sample each time the kernel queues a fanotify record, in the context of
//!   the act and under the lock of the queue (a kprobe on
//!   `fanotify_insert_event`; on kernels that have kprobes);
//! - else a sample each time the watching thread is waked. It sleeps in poll(2)
//!   on an empty queue, and the first record wakes it in the very system call
//!   that is the act: no act of the records that follow is older; and of each
//!   waking of threads that do nothing but sleep on the queue (`wakes`).
//!
//! What the kernel makes part of a record that waits already is not sampled, nor does
//! it wake anybody. So an act is not before the first moment of its process, but may
//! be after the last, unless its record is known to tell of one act alone.
//!
//! Fails at the start with the errno of `perf_event_open(2)`, and where programs
//! get no `[vdso]` (see [`table`]). Records that are
//! lost, processors that come and suspends are repaired from `/proc`; what was
//! done before the repair is never certain.

mod clock;
mod processors;
pub mod record;
pub mod table;
mod wakes;

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use self::clock::suspended;
pub use self::clock::{from_ticks, now, start_time, ticks_time, to_ticks};
use self::processors::{News, Processors};
use crate::sys::perf::{Fill, Ring, Sampler, tracepoint};
use crate::sys::stat::identity_of;
use crate::sys::thread;
pub use record::{Program, Time};
use record::{Record, What};
pub use table::{Fate, Id, Known, Verdict, Window};
use table::{Seed, Table};
use wakes::{Sentinels, Wakes};

/// The kernel's number for probes of its own functions.
const KPROBE: &str = "/sys/bus/event_source/devices/kprobe/type";
/// How many moments of acts are kept while they are of use.
const MAX_MOMENTS: usize = 64 * 1024;
/// A repair is not begun sooner after the last.
const REPAIR_PAUSE: Time = 200_000_000;

/// What the kernel says about the moment of an act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moments {
    /// The moment itself.
    Exact,
    /// When the watching thread was waked.
    Waking,
    /// Nothing.
    None,
}

impl Moments {
    /// Its name in documents.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Waking => "waking",
            Self::None => "none",
        }
    }
}

/// What happened to the table so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Records read.
    pub records: u64,
    /// Records that the kernel lost, as far as it said.
    pub lost: u64,
    /// How often the table was filled from `/proc` again.
    pub repaired: u64,
    /// How many processes are in the table, those that have ended included.
    pub processes: usize,
}

/// The process table and what feeds it.
pub struct ProcTable {
    rings: Vec<Ring>,
    samplers: Vec<Sampler>,
    readable: Epoll,
    moments: Moments,
    /// The number of the tracepoint `sched/sched_waking`.
    waking: Option<u64>,
    /// The watching thread, once it is known.
    watching: Option<i32>,
    processors: Option<Processors>,
    /// A ring is not written to any more, or a processor has none.
    dead: bool,
    /// How long the host was suspended.
    suspended: Time,
    table: Table,
    buffer: Vec<u8>,
    /// Read, but younger than the moment up to which every ring was read.
    young: Vec<Record>,
    /// That moment.
    complete: Time,
    clock: Reading,
    acts: HashMap<i32, Vec<Time>>,
    act_count: usize,
    wakes: Vec<Time>,
    sentinels: Option<Sentinels>,
    sentinel_rings: Vec<Ring>,
    sentinel_wakes: Wakes,
    /// The queue was found empty by a reading that began then.
    empty: Option<Time>,
    counters: Counters,
    damaged: bool,
    /// When the last repair, and the last opening of rings, was tried.
    repaired: Time,
    opened: Time,
}

/// The moments of waiting and reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Reading {
    /// No unread record is older.
    from: Time,
    wait_began: Time,
    wait_ended: Time,
    /// The first reading since the queue was found empty.
    read_began: Time,
    read_ended: Time,
    /// The last reading.
    last_began: Time,
}

impl ProcTable {
    /// Opens the rings and fills the table.
    ///
    /// # Errors
    /// The errno of `perf_event_open(2)`, `/proc` cannot be listed, or this kernel gives
    /// programs no `[vdso]`: then a program could choose what it is called here.
    pub fn start() -> io::Result<Self> {
        if !gives_vdso()? {
            return Err(io::Error::other("the kernel gives programs no [vdso]"));
        }
        let mut table = Self::unopened()?;
        table.open()?;
        let (seeds, began, done) = stock(false)?;
        table.table.seed(seeds, began, done);
        table.repaired = done;
        Ok(table)
    }

    /// An empty one that nothing feeds.
    fn unopened() -> io::Result<Self> {
        Ok(Self {
            rings: Vec::new(),
            samplers: Vec::new(),
            readable: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            moments: Moments::None,
            waking: None,
            watching: None,
            processors: None,
            dead: false,
            suspended: suspended(),
            table: Table::default(),
            buffer: Vec::new(),
            young: Vec::new(),
            complete: 0,
            clock: Reading::default(),
            acts: HashMap::new(),
            act_count: 0,
            wakes: Vec::new(),
            sentinels: None,
            sentinel_rings: Vec::new(),
            sentinel_wakes: Wakes::default(),
            empty: None,
            counters: Counters::default(),
            damaged: false,
            repaired: 0,
            opened: 0,
        })
    }

    /// What is known about moments.
    #[must_use]
    pub fn moments(&self) -> Moments {
        self.moments
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters {
            processes: self.table.len(),
            ..self.counters
        }
    }

    /// The calling thread is the one that reads fanotify's records, from `queue`,
    /// from now on.
    pub fn attach(&mut self, queue: Option<BorrowedFd<'_>>) {
        self.watching = Some(thread::current_id());
        self.sample();
        if self.moments == Moments::Waking {
            self.sentinels = queue.and_then(|queue| {
                Sentinels::start(queue)
                    .map_err(|error| tracing::debug!("no sentinels: {error}"))
                    .ok()
            });
            // The samples of this thread stay: the end of the last of a kind takes the
            // kernel tens of milliseconds.
            self.try_sentinels();
        }
    }

    /// Before the thread waits: the queue of records has been found empty.
    pub fn waiting(&mut self) {
        self.clock.wait_began = now();
    }

    /// The thread runs again.
    pub fn waked(&mut self) {
        self.clock.wait_ended = now();
    }

    /// Before records are read.
    pub fn reading(&mut self) {
        let now = now();
        if let Some(from) = self.empty.take() {
            self.clock.read_began = now;
            self.clock.from = from;
            self.wakes.clear();
            if self.act_count > 0 {
                self.acts.retain(|_, moments| {
                    moments.retain(|moment| *moment >= from);
                    !moments.is_empty()
                });
                self.act_count = self.acts.values().map(Vec::len).sum();
            }
            self.table.prune(from, from);
        }
        self.clock.last_began = now;
    }

    /// After records were read, each of one of `pids`; of none, the queue was empty.
    pub fn has_read(&mut self, count: usize, pids: &[i32]) {
        if count == 0 {
            self.empty = Some(self.clock.last_began);
            return;
        }
        self.clock.read_ended = now();
        if self.sentinels.is_some() {
            for pid in pids {
                self.sentinel_wakes.read(*pid);
            }
        }
    }

    /// Brings the table up to now. To be called after fanotify's records were
    /// read and before they are interpreted.
    pub fn drain(&mut self) {
        self.follow_processors();
        self.catch_up(now());
        if self.moments == Moments::Waking {
            let slept = self.clock.wait_began..=self.clock.wait_ended;
            let first = self.wakes.iter().filter(|wake| slept.contains(wake)).min();
            if let Some(first) = first
                && self.clock.wait_began >= self.clock.from
            {
                self.clock.from = self.clock.from.max(*first);
            }
            self.wakes.clear();
            match self.empty {
                Some(end) => self.sentinel_wakes.close(end),
                None => self.sentinel_wakes.leave_open(),
            }
        }
        if self.damaged && now() >= self.repaired.saturating_add(REPAIR_PAUSE) {
            self.repaired = now();
            match stock(true) {
                Ok((seeds, began, done)) => {
                    self.table.repair(seeds, began, done);
                    self.repaired = done;
                    self.damaged = false;
                    self.counters.repaired += 1;
                }
                Err(error) => tracing::warn!("the process table cannot be repaired: {error}"),
            }
        }
        if self.damaged {
            // What is in the table may be over, by an exec that was lost.
            self.table.incomplete_before(now());
        }
    }

    /// Has what happened before `time` in the table.
    pub fn catch_up(&mut self, time: Time) {
        if time <= self.complete {
            return;
        }
        // All that has happened by now is in the rings.
        let until = now();
        self.read_rings();
        // Of what came while the rings were read, some rings have been missed.
        let mut records = std::mem::take(&mut self.young);
        records.sort_by_key(|record| record.time);
        for record in records {
            if record.time > until {
                self.young.push(record);
            } else {
                self.take(record);
            }
        }
        self.complete = until;
        if self.damaged {
            // What is in the table may be over, by an exec that was lost.
            self.table.incomplete_before(now());
        }
    }

    /// When the records that were just read tell of an act of `pid`.
    #[must_use]
    pub fn act(&self, pid: i32) -> Act {
        let moments = match self.moments {
            Moments::Exact => self.acts.get(&pid).map(Vec::as_slice),
            Moments::Waking => self.sentinel_wakes.moments(pid).map(<[Time; 2]>::as_slice),
            Moments::None => None,
        };
        let first = moments.and_then(|moments| moments.iter().min()).copied();
        Act {
            // A record can be read before its maker has waked anybody.
            from: first.unwrap_or(self.clock.from),
            is_moment: first.is_some(),
            // As of the reading, as who it was: what it began to run after it did not act.
            since: self.table.began(pid, self.clock.read_ended),
        }
    }

    /// Who did what one of the records that were just read tells of `pid`; `once` if it
    /// tells of one act alone.
    #[must_use]
    pub fn who(&self, pid: i32, fate: Life, once: bool) -> Verdict {
        let mut window = Window {
            from: self.clock.from,
            until: self.clock.read_ended,
        };
        let moments = match self.moments {
            Moments::Exact => self.acts.get(&pid).map(Vec::as_slice),
            Moments::Waking => {
                let known = self.sentinel_wakes.moments(pid);
                if let Some([first, last]) = known {
                    // A record can be read before its maker has waked anybody.
                    window.from = window.from.min(*first);
                    window.until = window.until.max(*last);
                }
                known.map(<[Time; 2]>::as_slice)
            }
            Moments::None => None,
        };
        let fate = match fate {
            Life::Alive => Fate::Alive,
            Life::Ended => Fate::Ended {
                read: self.clock.read_began,
            },
            Life::Reaped => Fate::Reaped,
        };
        self.table.who(pid, fate, window, moments, once)
    }

    /// The table.
    #[must_use]
    pub fn table(&self) -> &Table {
        &self.table
    }

    fn take(&mut self, record: Record) {
        self.counters.records += 1;
        match record.what {
            What::Moment { thread } => match self.moments {
                Moments::Exact => {
                    if self.act_count < MAX_MOMENTS {
                        self.act_count += 1;
                        self.acts.entry(record.pid).or_default().push(record.time);
                    } else {
                        self.table.incomplete_before(record.time);
                    }
                }
                // What the thread itself wakes is sampled, too.
                Moments::Waking if Some(thread) != self.watching => self.wakes.push(record.time),
                Moments::Waking | Moments::None => {}
            },
            What::Lost(count) => {
                self.counters.lost += count;
                self.damaged = true;
                self.table.take(record);
            }
            _ => self.table.take(record),
        }
    }

    fn read_rings(&mut self) {
        let mut damaged = false;
        for ring in &mut self.rings {
            self.buffer.clear();
            damaged |= ring.read(&mut self.buffer) == Fill::Full;
            let young = &mut self.young;
            damaged |= !record::parse(&self.buffer, |record| young.push(record));
        }
        if damaged {
            self.damaged = true;
            self.table.incomplete_before(now());
        }
        // Of a sample that is lost the count is short.
        for ring in &mut self.sentinel_rings {
            self.buffer.clear();
            ring.read(&mut self.buffer);
            let wakes = &mut self.sentinel_wakes;
            record::parse(&self.buffer, |record| {
                if let What::Moment { .. } = record.what {
                    wakes.sampled(record.time, record.pid);
                }
            });
        }
    }

    fn open(&mut self) -> io::Result<()> {
        self.samplers.clear();
        self.rings.clear();
        self.readable = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let processors = Processors::open()?;
        for cpu in processors.numbers() {
            match Ring::open(cpu) {
                Ok(ring) => {
                    self.readable
                        .add(&ring, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
                    self.rings.push(ring);
                }
                // It went offline just now: the next look sees that.
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
                Err(error) => return Err(error),
            }
        }
        self.processors = Some(processors);
        self.sample();
        Ok(())
    }

    /// Has moments sampled into the rings.
    fn sample(&mut self) {
        self.samplers.clear();
        self.moments = Moments::None;
        let pmu = std::fs::read_to_string(KPROBE)
            .ok()
            .and_then(|text| text.trim().parse().ok());
        let exact = pmu.map(|pmu| {
            let rings = self.rings.iter();
            rings
                .map(|ring| Sampler::of_function(ring, pmu, c"fanotify_insert_event"))
                .collect::<io::Result<Vec<_>>>()
        });
        match exact {
            Some(Ok(samplers)) => {
                self.samplers = samplers;
                self.moments = Moments::Exact;
                return;
            }
            Some(Err(error)) => tracing::debug!("no probe of fanotify_insert_event: {error}"),
            None => {}
        }
        let Some(thread) = self.watching else { return };
        let waking = self.waking().and_then(|number| {
            let rings = self.rings.iter();
            rings
                .map(|ring| Sampler::of_waking(ring, number, &[thread]))
                .collect::<io::Result<Vec<_>>>()
        });
        match waking {
            Ok(samplers) => {
                self.samplers = samplers;
                self.moments = Moments::Waking;
                self.try_sentinels();
            }
            Err(error) => tracing::debug!("no samples of the watching thread's waking: {error}"),
        }
    }

    /// The number of the tracepoint. It is read once: later we may not mount tracefs any
    /// more.
    fn waking(&mut self) -> io::Result<u64> {
        if let Some(number) = self.waking {
            return Ok(number);
        }
        let number = tracepoint("sched/sched_waking")?;
        self.waking = Some(number);
        Ok(number)
    }

    fn try_sentinels(&mut self) {
        if let Err(error) = self.sample_sentinels() {
            self.sentinel_rings.clear();
            tracing::debug!("no samples of the sentinels' waking: {error}");
        }
    }

    fn sample_sentinels(&mut self) -> io::Result<()> {
        self.sentinel_rings.clear();
        let number = self.waking()?;
        let Some(sentinels) = &self.sentinels else {
            return Ok(());
        };
        for ring in &self.rings {
            let small = Ring::of_samples(ring.cpu())?;
            let sampler = Sampler::of_waking(&small, number, sentinels.tids())?;
            self.sentinel_rings.push(small);
            self.samplers.push(sampler);
        }
        Ok(())
    }

    /// A processor that comes has no ring, and one that went and came again has
    /// a dead one.
    fn follow_processors(&mut self) {
        let news = self
            .processors
            .as_mut()
            .map_or(News::Others, Processors::look);
        let suspended = suspended();
        self.dead |= match news {
            News::None => false,
            News::Perhaps => !self.rings.iter().all(Ring::is_alive),
            News::Others => true,
        };
        self.dead |= suspended.abs_diff(self.suspended) >= 1_000_000;
        if !self.dead {
            return;
        }
        self.damaged = true;
        let now = now();
        self.table.incomplete_before(now);
        if now < self.opened.saturating_add(REPAIR_PAUSE) {
            return;
        }
        self.opened = now;
        match self.open() {
            Ok(()) => {
                self.dead = false;
                self.suspended = suspended;
                self.repaired = 0;
            }
            // Until it succeeds every window lies before the repair.
            Err(error) => tracing::warn!("the process table has no rings: {error}"),
        }
    }
}

impl AsFd for ProcTable {
    /// Readable when a ring fills.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.readable.0.as_fd()
    }
}

/// When an act was, as far as that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Act {
    /// Not before.
    pub from: Time,
    /// The first act of the process that was read was at that very time.
    pub is_moment: bool,
    /// Since when the process ran what it ran when its record was read, or at its end;
    /// `None` if that is not known.
    pub since: Option<Time>,
}

/// What the record's pidfd says of its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It lives.
    Alive,
    /// It lived, or was a zombie, when the record was read.
    Ended,
    /// It had been reaped when the record was read.
    Reaped,
}

/// Whether every program gets a `[vdso]`, as ours did: `vdso=0` and
/// `abi.vsyscall32=0`, of 32-bit programs, take it away.
fn gives_vdso() -> io::Result<bool> {
    let maps = std::fs::read("/proc/self/maps")?;
    let mut maps = maps.split(|byte| *byte == b'\n');
    // Not there without 32-bit programs.
    let compat = std::fs::read_to_string("/proc/sys/abi/vsyscall32");
    let is_off = compat.is_ok_and(|text| text.trim() == "0");
    Ok(!is_off && maps.any(|line| line.ends_with(b" [vdso]")))
}

/// All processes, as `/proc` shows them, with the times between which it was read. Whose
/// they are is asked for `after_loss` alone.
fn stock(after_loss: bool) -> io::Result<(Vec<Seed>, Time, Time)> {
    let began = now();
    let seeds = seeds(after_loss)?;
    Ok((seeds, began, now()))
}

fn seeds(after_loss: bool) -> io::Result<Vec<Seed>> {
    let all = procfs::process::all_processes().map_err(io::Error::other)?;
    let mut seeds = Vec::new();
    for process in all.flatten() {
        // Gone meanwhile: its end is in a ring.
        let Ok(stat) = process.stat() else { continue };
        let link = std::ffi::CString::new(format!("/proc/{}/exe", process.pid))?;
        let program = process.exe().ok().and_then(|path| {
            let file = identity_of(nix::fcntl::AT_FDCWD, &link).ok()?;
            Some(Program {
                path,
                device: file.device,
                inode: file.inode,
                generation: None,
            })
        });
        let is_roots = || {
            let status = process.status();
            status.is_ok_and(|status| (status.ruid, status.euid) == (0, 0))
        };
        seeds.push(Seed {
            pid: process.pid,
            parent: stat.ppid,
            birth: from_ticks(stat.starttime),
            program,
            is_roots: after_loss && is_roots(),
            name: stat.comm.into(),
        });
    }
    Ok(seeds)
}

#[cfg(test)]
mod tests;
