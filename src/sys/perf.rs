//! perf's side-band rings (`perf_event_open(2)`): the kernel writes each fork,
//! exec, exit and executable mapping into them, on the processor and at the
//! moment it happens, without waking anybody.
//!
//! Owns the events, their mapped rings and the barriers between the kernel and
//! us. Gives bytes; what they mean is said in [`crate::proctable`]. Written by
//! hand rather than with `perf-event2`: that and its three companions are
//! 23,000 lines for the one event and the six kinds of record needed here.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// Bytes of records that a ring holds; a power of two. With the page in front
/// of it, it is what an unprivileged user may lock (`perf_event_mlock_kb`).
pub const RING: usize = 512 * 1024;
/// The same of a ring that holds samples alone.
const SMALL_RING: usize = 32 * 1024;
/// The ring asks to be read when it is half full.
const WATERMARK: u32 = 256 * 1024;
/// No record is longer: a path, and some numbers.
const LONGEST: usize = 8 * 1024;

/// `struct perf_event_attr` up to `PERF_ATTR_SIZE_VER5` (`linux/perf_event.h`).
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_watermark: u32,
    breakpoint_type: u32,
    config1: u64,
    config2: u64,
    branch_sample_type: u64,
    sample_regs_user: u64,
    sample_stack_user: u32,
    clock: i32,
    sample_regs_intr: u64,
    aux_watermark: u32,
    sample_max_stack: u16,
    reserved: u16,
}

const TYPE_SOFTWARE: u32 = 1;
const TYPE_TRACEPOINT: u32 = 2;
const COUNT_SW_DUMMY: u64 = 9;
const SAMPLE_TID: u64 = 1 << 1;
const SAMPLE_TIME: u64 = 1 << 2;
const SAMPLE_CPU: u64 = 1 << 7;
const FORMAT_TIME_ENABLED: u64 = 1;
const FLAG_DISABLED: u64 = 1;
const FLAG_MMAP: u64 = 1 << 8;
const FLAG_COMM: u64 = 1 << 9;
const FLAG_TASK: u64 = 1 << 13;
const FLAG_WATERMARK: u64 = 1 << 14;
const FLAG_SAMPLE_ID_ALL: u64 = 1 << 18;
const FLAG_MMAP2: u64 = 1 << 23;
const FLAG_COMM_EXEC: u64 = 1 << 24;
const FLAG_USE_CLOCKID: u64 = 1 << 25;
const OPEN_CLOEXEC: libc::c_ulong = 1 << 3;
/// `PERF_EVENT_IOC_ENABLE`: `_IO('$', 0)`.
const ENABLE: libc::c_ulong = 0x2400;
/// `PERF_EVENT_IOC_SET_OUTPUT`: `_IO('$', 5)`.
const SET_OUTPUT: libc::c_ulong = 0x2405;
/// `PERF_EVENT_IOC_SET_FILTER`: `_IOW('$', 6, char *)`.
const SET_FILTER: libc::c_ulong = 0x4008_2406;

/// Offsets in `struct perf_event_mmap_page`.
const DATA_HEAD: usize = 1024;
const DATA_TAIL: usize = 1032;

fn attributes() -> Attributes {
    Attributes {
        size: u32::try_from(size_of::<Attributes>()).unwrap_or(0),
        sample_type: SAMPLE_TID | SAMPLE_TIME | SAMPLE_CPU,
        read_format: FORMAT_TIME_ENABLED,
        flags: FLAG_WATERMARK | FLAG_SAMPLE_ID_ALL | FLAG_USE_CLOCKID,
        wakeup_watermark: WATERMARK,
        clock: libc::CLOCK_MONOTONIC,
        ..Attributes::default()
    }
}

fn open(attributes: &Attributes, pid: i32, cpu: i32) -> io::Result<OwnedFd> {
    // SAFETY: the attributes have the layout of struct perf_event_attr, their
    // size is in them, and they outlive the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            std::ptr::from_ref(attributes),
            pid,
            cpu,
            -1,
            OPEN_CLOEXEC,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: `fd` was just returned as a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// How full a ring was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// There was room for more.
    Room,
    /// So full that a record may have found no room. The kernel says so only
    /// in front of the next record that finds some.
    Full,
}

/// One processor's ring of side-band records.
#[derive(Debug)]
pub struct Ring {
    event: OwnedFd,
    cpu: i32,
    page: NonNull<u8>,
    page_size: usize,
    /// Bytes of records that it holds.
    size: usize,
}

// SAFETY: the mapping belongs to this value alone and is not bound to a
// thread; all access goes through `&mut self`.
unsafe impl Send for Ring {}

impl Ring {
    /// Opens processor `cpu`'s side band of all processes: task, comm and
    /// executable mappings, with `CLOCK_MONOTONIC` time stamps.
    ///
    /// # Errors
    /// The errno of `perf_event_open(2)`: `EACCES` or `EPERM` without
    /// `CAP_PERFMON`, `ENOSYS` where it is not there or filtered, `ENODEV` for
    /// a processor that is offline; or of mmap(2).
    pub fn open(cpu: i32) -> io::Result<Self> {
        let side_band = FLAG_TASK | FLAG_COMM | FLAG_COMM_EXEC | FLAG_MMAP | FLAG_MMAP2;
        Self::map(cpu, side_band, RING)
    }

    /// A small one for the samples of a [`Sampler`] alone.
    ///
    /// # Errors
    /// As [`Ring::open`].
    pub fn of_samples(cpu: i32) -> io::Result<Self> {
        Self::map(cpu, 0, SMALL_RING)
    }

    fn map(cpu: i32, flags: u64, size: usize) -> io::Result<Self> {
        let mut attributes = attributes();
        attributes.kind = TYPE_SOFTWARE;
        attributes.config = COUNT_SW_DUMMY;
        attributes.flags |= flags;
        let event = open(&attributes, -1, cpu)?;
        let page_size = page_size();
        // SAFETY: a new mapping at an address of the kernel's choice.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                page_size + size,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                event.as_raw_fd(),
                0,
            )
        };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let page = NonNull::new(page.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self {
            event,
            cpu,
            page,
            page_size,
            size,
        })
    }

    /// Whether the kernel still writes to it: it takes the events of a processor that goes
    /// away from it, and does not give them back (`perf_event_exit_cpu`).
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let enabled = self.enabled();
        enabled.is_ok_and(|before| self.enabled().is_ok_and(|now| now != before))
    }

    /// For how long it has been written to, nanoseconds.
    fn enabled(&self) -> io::Result<u64> {
        // `struct read_format`: the count, which is nothing, and the time.
        let mut bytes = [0; 16];
        let count = nix::unistd::read(&self.event, &mut bytes)?;
        match bytes.last_chunk() {
            Some(time) if count == bytes.len() => Ok(u64::from_ne_bytes(*time)),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Its processor.
    #[must_use]
    pub fn cpu(&self) -> i32 {
        self.cpu
    }

    fn position(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: both offsets lie in the first page, which is mapped as long
        // as `self` lives, and are aligned to eight bytes.
        let pointer = unsafe { self.page.add(offset) };
        // SAFETY: as above; the kernel and we only ever access it atomically.
        unsafe { pointer.cast::<AtomicU64>().as_ref() }
    }

    /// Appends what the kernel has written to `out`, whole records only, and
    /// gives the room back.
    pub fn read(&mut self, out: &mut Vec<u8>) -> Fill {
        // The barriers that `struct perf_event_mmap_page` documents: head is
        // read before the data, and the data before tail is written.
        let head = self.position(DATA_HEAD).load(Ordering::Acquire);
        let tail = self.position(DATA_TAIL).load(Ordering::Relaxed);
        let length = usize::try_from(head.wrapping_sub(tail)).unwrap_or(self.size);
        let length = length.min(self.size);
        if length == 0 {
            return Fill::Room;
        }
        let start = usize::try_from(tail).unwrap_or(0) % self.size;
        let first = length.min(self.size - start);
        for (from, count) in [(start, first), (0, length - first)] {
            // SAFETY: `from + count` is at most self.size, and the data follow the
            // first page of the mapping.
            let data = unsafe { self.page.add(self.page_size + from) };
            // SAFETY: as above; the kernel does not write between tail and head.
            let data = unsafe { std::slice::from_raw_parts(data.as_ptr(), count) };
            out.extend_from_slice(data);
        }
        self.position(DATA_TAIL).store(head, Ordering::Release);
        // Up to here the kernel had no more room than before the reading, and says only with
        // the next record that there was not enough.
        fence(Ordering::SeqCst);
        let head = self.position(DATA_HEAD).load(Ordering::Acquire);
        let length = usize::try_from(head.wrapping_sub(tail)).unwrap_or(self.size);
        if length > self.size - LONGEST {
            Fill::Full
        } else {
            Fill::Room
        }
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the mapping was made with this address and length, and
        // nothing borrows from it any more.
        unsafe {
            libc::munmap(self.page.as_ptr().cast(), self.page_size + self.size);
        }
    }
}

/// An event that adds samples to a processor's ring.
#[derive(Debug)]
pub struct Sampler(#[expect(dead_code, reason = "open for as long as it lives")] OwnedFd);

impl Sampler {
    /// Samples each call of the kernel's function `name` on the ring's processor.
    ///
    /// `pmu` is the number in `/sys/bus/event_source/devices/kprobe/type`.
    ///
    /// # Errors
    /// The errno of `perf_event_open(2)`: `ENOENT` where the kernel has no such
    /// function, `EPERM` where it is locked down.
    pub fn of_function(ring: &Ring, pmu: u32, name: &std::ffi::CStr) -> io::Result<Self> {
        let mut attributes = attributes();
        attributes.kind = pmu;
        attributes.sample_period = 1;
        attributes.flags |= FLAG_DISABLED;
        attributes.config1 = name.as_ptr() as u64;
        Self::into_ring(&attributes, ring, None)
    }

    /// Samples each time when one of the threads `tids` is waked on the ring's processor;
    /// `tracepoint` is the number of `sched:sched_waking`. Samples carry the
    /// ids of who woke it.
    ///
    /// # Errors
    /// The errno of `perf_event_open(2)`.
    pub fn of_waking(ring: &Ring, tracepoint: u64, tids: &[i32]) -> io::Result<Self> {
        let mut attributes = attributes();
        attributes.kind = TYPE_TRACEPOINT;
        attributes.config = tracepoint;
        attributes.sample_period = 1;
        attributes.flags |= FLAG_DISABLED;
        // An event of the thread itself counts those, but samples none of them.
        let filter: Vec<String> = tids.iter().map(|tid| format!("pid == {tid}")).collect();
        let filter = std::ffi::CString::new(filter.join(" || "))?;
        Self::into_ring(&attributes, ring, Some(&filter))
    }

    fn into_ring(
        attributes: &Attributes,
        ring: &Ring,
        filter: Option<&std::ffi::CStr>,
    ) -> io::Result<Self> {
        let event = open(attributes, -1, ring.cpu)?;
        let control = |request: libc::c_ulong, argument: libc::c_ulong| {
            // SAFETY: the requests used here take a descriptor, which is ours,
            // a NUL-terminated string, which outlives the call, or nothing.
            let result = unsafe { libc::ioctl(event.as_raw_fd(), request, argument) };
            if result == 0 {
                Ok(())
            } else {
                Err(io::Error::last_os_error())
            }
        };
        if let Some(filter) = filter {
            control(SET_FILTER, filter.as_ptr() as libc::c_ulong)?;
        }
        control(
            SET_OUTPUT,
            libc::c_ulong::from(ring.event.as_raw_fd().unsigned_abs()),
        )?;
        control(ENABLE, 0)?;
        Ok(Self(event))
    }
}

fn page_size() -> usize {
    nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .and_then(|size| usize::try_from(size).ok())
        .unwrap_or(4096)
}

/// The number of a tracepoint, such as `sched/sched_waking`. Where nobody has
/// mounted tracefs, it is mounted for this reading, outside every mount namespace.
///
/// # Errors
/// The errno of open(2), or of fsopen(2) and fsmount(2): `EPERM` without
/// `CAP_SYS_ADMIN`, `ENODEV` where the kernel has no tracefs.
pub fn tracepoint(name: &str) -> io::Result<u64> {
    let path = format!("events/{name}/id");
    let mounted = std::fs::read_to_string(format!("/sys/kernel/tracing/{path}"));
    let text = match mounted {
        Ok(text) => text,
        Err(_) => read_detached(c"tracefs", &path)?,
    };
    text.trim().parse().map_err(io::Error::other)
}

/// Reads `path` in a file system that is mounted nowhere.
fn read_detached(kind: &std::ffi::CStr, path: &str) -> io::Result<String> {
    const FSOPEN_CLOEXEC: libc::c_uint = 1;
    const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
    const FSMOUNT_CLOEXEC: libc::c_uint = 1;
    let owned = |fd: libc::c_long| {
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = i32::try_from(fd).map_err(io::Error::other)?;
        // SAFETY: the system call just returned it as a new descriptor.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    };
    // SAFETY: the name is NUL-terminated; the kernel returns a descriptor or -1.
    let context = unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) };
    let context = owned(context)?;
    let null = std::ptr::null::<libc::c_char>();
    // SAFETY: this command takes no key, no value and no auxiliary number.
    let created = unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_raw_fd(),
            FSCONFIG_CMD_CREATE,
            null,
            null,
            0,
        )
    };
    if created < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: only numbers are passed; the kernel returns a descriptor or -1.
    let mount = unsafe {
        libc::syscall(
            libc::SYS_fsmount,
            context.as_raw_fd(),
            FSMOUNT_CLOEXEC,
            libc::MOUNT_ATTR_RDONLY,
        )
    };
    let mount = owned(mount)?;
    let flags = nix::fcntl::OFlag::O_RDONLY | nix::fcntl::OFlag::O_CLOEXEC;
    let file = nix::fcntl::openat(&mount, path, flags, nix::sys::stat::Mode::empty())?;
    io::read_to_string(std::fs::File::from(file))
}
