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
//! Fails at the start with the errno of `perf_event_open(2)`. Records that are
//! lost, processors that come and suspends are repaired from `/proc`; what was
//! done before the repair is never certain.

pub mod record;
pub mod table;
mod wakes;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::time::{ClockId, clock_gettime};

use crate::sys::perf::{Fill, Ring, Sampler, tracepoint};
use crate::sys::stat::identity_of;
use crate::sys::thread;
pub use record::{Program, Time};
use record::{Record, What};
pub use table::{Fate, Id, Known, Verdict, Window};
use table::{Seed, Table};
use wakes::{Sentinels, Wakes};

/// Which processors are online.
const ONLINE: &str = "/sys/devices/system/cpu/online";
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
    /// The watching thread, once it is known.
    watching: Option<i32>,
    online: Option<(File, String)>,
    /// How long the host was suspended.
    suspended: Time,
    table: Table,
    buffer: Vec<u8>,
    /// Read, but younger than the moment up to which every ring was read.
    young: Vec<Record>,
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
    /// The errno of `perf_event_open(2)`, or `/proc` cannot be listed.
    pub fn start() -> io::Result<Self> {
        let mut table = Self {
            rings: Vec::new(),
            samplers: Vec::new(),
            readable: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            moments: Moments::None,
            watching: None,
            online: None,
            suspended: suspended(),
            table: Table::default(),
            buffer: Vec::new(),
            young: Vec::new(),
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
        };
        table.open()?;
        table.fill()?;
        Ok(table)
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
        // All that happened before a record could be read is in the rings by now.
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
            match self.fill() {
                Ok(()) => {
                    self.damaged = false;
                    self.counters.repaired += 1;
                }
                Err(error) => tracing::warn!("the process table cannot be repaired: {error}"),
            }
        }
    }

    /// Who did what the records that were just read tell of `pid`.
    #[must_use]
    pub fn who(&self, pid: i32, fate: Life) -> Verdict {
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
        self.table.who(pid, fate, window, moments)
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
        let file = File::open(ONLINE)?;
        let online = read_small(&file)?;
        for cpu in processors(&online) {
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
        self.online = Some((file, online));
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
        let waking = tracepoint("sched/sched_waking").and_then(|number| {
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

    fn try_sentinels(&mut self) {
        if let Err(error) = self.sample_sentinels() {
            self.sentinel_rings.clear();
            tracing::debug!("no samples of the sentinels' waking: {error}");
        }
    }

    fn sample_sentinels(&mut self) -> io::Result<()> {
        self.sentinel_rings.clear();
        let Some(sentinels) = &self.sentinels else {
            return Ok(());
        };
        let number = tracepoint("sched/sched_waking")?;
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
        let changed = self
            .online
            .as_ref()
            .is_none_or(|(file, online)| read_small(file).is_ok_and(|text| text != *online));
        let suspended = suspended();
        if !changed && suspended.abs_diff(self.suspended) < 1_000_000 {
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
                self.suspended = suspended;
                self.repaired = 0;
            }
            // Until it succeeds every window lies before the repair.
            Err(error) => tracing::warn!("the process table has no rings: {error}"),
        }
    }

    /// Fills the table from `/proc`.
    fn fill(&mut self) -> io::Result<()> {
        let began = now();
        let seeds = seeds()?;
        let done = now();
        self.table.seed(seeds, began, done);
        self.repaired = done;
        Ok(())
    }
}

impl AsFd for ProcTable {
    /// Readable when a ring fills.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.readable.0.as_fd()
    }
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

/// The time of `CLOCK_MONOTONIC`.
#[must_use]
pub fn now() -> Time {
    clock(ClockId::CLOCK_MONOTONIC)
}

fn clock(id: ClockId) -> Time {
    // It fails for no clock that is there.
    let time = clock_gettime(id).map(Duration::from).unwrap_or_default();
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// How long the host has been suspended since it was booted.
fn suspended() -> Time {
    clock(ClockId::CLOCK_BOOTTIME).saturating_sub(now())
}

/// The wall-clock time of a start in clock ticks since boot (`proc_pid_stat(5)`, field 22).
#[must_use]
pub fn start_time(ticks: u64) -> SystemTime {
    booted() + ticks_time(ticks)
}

/// When the host was booted, by the clock as it is set now: `btime` of
/// `proc_stat(5)` leaves out the fraction of its second.
fn booted() -> SystemTime {
    // The same for all, until somebody sets the clock.
    static KNOWN: AtomicU64 = AtomicU64::new(0);
    const SET: Time = 100_000_000;
    let now = booted_now();
    let mut booted = KNOWN.load(Ordering::Relaxed);
    if booted.abs_diff(now) > SET {
        booted = now;
        KNOWN.store(now, Ordering::Relaxed);
    }
    SystemTime::UNIX_EPOCH + Duration::from_nanos(booted)
}

/// The difference of the two clocks; a thread that is kept from running between
/// the readings reads again.
fn booted_now() -> Time {
    const CLOSE: Time = 1_000_000;
    let mut tries = 0;
    loop {
        let before = clock(ClockId::CLOCK_BOOTTIME);
        let wall = clock(ClockId::CLOCK_REALTIME);
        let after = clock(ClockId::CLOCK_BOOTTIME);
        tries += 1;
        if after.saturating_sub(before) < CLOSE || tries == 8 {
            return wall.saturating_sub(before);
        }
    }
}

/// How long so many clock ticks are.
#[must_use]
pub fn ticks_time(ticks: u64) -> Duration {
    let per_second = u128::from(procfs::ticks_per_second().max(1));
    let nanos = u128::from(ticks) * 1_000_000_000 / per_second;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// The moment of a start in clock ticks since boot (`proc_pid_stat(5)`, field 22).
#[must_use]
pub fn from_ticks(ticks: u64) -> Time {
    let booted = u64::try_from(ticks_time(ticks).as_nanos()).unwrap_or(u64::MAX);
    booted.saturating_sub(suspended())
}

/// The clock ticks since boot of `time`.
#[must_use]
pub fn to_ticks(time: Time) -> u64 {
    let per_second = u128::from(procfs::ticks_per_second().max(1));
    let ticks = u128::from(time.saturating_add(suspended())) * per_second / 1_000_000_000;
    u64::try_from(ticks).unwrap_or(u64::MAX)
}

fn read_small(file: &File) -> io::Result<String> {
    let mut buffer = [0u8; 1024];
    let length = file.read_at(&mut buffer, 0)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// The processors of a list such as `0-3,8` (`cpuset(7)`, "List format").
fn processors(list: &str) -> Vec<i32> {
    let mut all = Vec::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse()) {
            all.extend(first..=last);
        }
    }
    all
}

/// All processes, as `/proc` shows them.
fn seeds() -> io::Result<Vec<Seed>> {
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
            })
        });
        seeds.push(Seed {
            pid: process.pid,
            parent: stat.ppid,
            birth: from_ticks(stat.starttime),
            program,
            name: stat.comm.into(),
        });
    }
    Ok(seeds)
}

#[cfg(test)]
mod tests;
