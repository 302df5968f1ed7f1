//! The system calls that a running daemon may make, all threads alike.
//!
//! Owns the list. Three filters (seccomp(2)), of whose answers the kernel takes the hardest:
//!
//! - What is not on the list fails with `EPERM`, as in the unit
//!   (`SystemCallErrorNumber=EPERM`): a name service module or a C library of
//!   tomorrow that tries a call we do not know takes another way or fails like one
//!   without privilege, which is said where it happens. To kill the daemon for it
//!   would leave the host unwatched.
//! - What nobody but an intruder asks for ([`DEADLY`]: run a program, trace or
//!   write into a process, load code into the kernel, mount) kills the process at once. The
//!   kernel lets all held openers go, writes an audit record, and systemd starts it anew.
//! - `clone3` is answered with `ENOSYS`, for its flags lie in memory that a filter
//!   cannot read: the C library then uses `clone`, which may start threads alone.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::SeccompCmpArgLen::Dword;
use seccompiler::SeccompCmpOp::{Eq, MaskedEq};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter_all_threads,
};

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Allowed whatever their arguments.
const ALLOWED: &[c_long] = &[
    // What the daemon is for.
    libc::SYS_fanotify_init,
    libc::SYS_fanotify_mark,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_rm_watch,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_perf_event_open,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    // Files.
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fcntl,
    libc::SYS_flock,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_fadvise64,
    libc::SYS_copy_file_range,
    libc::SYS_sendfile,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_utimensat,
    libc::SYS_umask,
    libc::SYS_getcwd,
    libc::SYS_memfd_create,
    // Waiting.
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_pipe2,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    // To hear once more that the clock is set.
    libc::SYS_timerfd_settime,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_restart_syscall,
    // For the process that looks at the store.
    libc::SYS_wait4,
    libc::SYS_waitid,
    // Local sockets: the journal, systemd, name services, the control socket.
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_shutdown,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    // Memory.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    // Threads of our own, and what they are.
    libc::SYS_futex,
    // futex_waitv: not in every libc crate.
    449,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Answered by a filter of its own.
    libc::SYS_clone3,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_getparam,
    libc::SYS_sched_get_priority_max,
    libc::SYS_sched_get_priority_min,
    libc::SYS_setpriority,
    libc::SYS_getpriority,
    libc::SYS_getcpu,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getppid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getresuid,
    libc::SYS_getresgid,
    libc::SYS_getgroups,
    libc::SYS_getrlimit,
    libc::SYS_getrusage,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_getrandom,
    // These only take rights away.
    libc::SYS_landlock_create_ruleset,
    libc::SYS_landlock_add_rule,
    libc::SYS_landlock_restrict_self,
];

/// The same by their older names, which younger architectures do not have.
#[cfg(target_arch = "x86_64")]
const ALLOWED_OLD: &[c_long] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_getdents,
    libc::SYS_dup2,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd,
    libc::SYS_pipe,
    libc::SYS_time,
    libc::SYS_arch_prctl,
];
#[cfg(target_arch = "aarch64")]
const ALLOWED_OLD: &[c_long] = &[libc::SYS_renameat];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ALLOWED_OLD: &[c_long] = &[];

/// What kills.
const DEADLY: &[c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_writev,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_kexec_load,
    libc::SYS_bpf,
    libc::SYS_mount,
    libc::SYS_move_mount,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_reboot,
];

/// The options of prctl(2) that are set: names of threads and of memory, and
/// what takes rights away.
const OPTIONS: &[i32] = &[
    libc::PR_SET_NAME,
    libc::PR_GET_NAME,
    libc::PR_SET_VMA,
    libc::PR_GET_NO_NEW_PRIVS,
    libc::PR_SET_NO_NEW_PRIVS,
];

/// The requests of ioctl(2) that are made: of perf events, inotify, pidfds, flags of
/// directories, and those by which a terminal tells its size. Not `TIOCSTI`, which types.
const REQUESTS: &[u64] = &[
    0x2400,      // PERF_EVENT_IOC_ENABLE
    0x2401,      // PERF_EVENT_IOC_DISABLE
    0x2405,      // PERF_EVENT_IOC_SET_OUTPUT
    0x4008_2406, // PERF_EVENT_IOC_SET_FILTER
    0x8008_6601, // FS_IOC_GETFLAGS
    0x8008_7601, // FS_IOC_GETVERSION
    0x5401,      // TCGETS
    0x5413,      // TIOCGWINSZ
    0x541b,      // FIONREAD
    0x5421,      // FIONBIO
    0x5450,      // FIONCLEX
    0x5451,      // FIOCLEX
];
/// `PIDFD_GET_INFO` is `_IOWR(0xff, 11, …)`; how large its record is varies.
const PIDFD_GET_INFO: u64 = 0xff0b;

/// Forbids every other call to all threads of the process, now and from now on.
///
/// # Errors
/// What the kernel says; the daemon then runs without.
pub(in crate::daemon) fn forbid() -> Result<(), seccompiler::Error> {
    install(apply_filter_all_threads)
}

/// The list comes last: with it no other filter can be added.
fn install(
    apply: impl Fn(&[seccompiler::sock_filter]) -> Result<(), seccompiler::Error>,
) -> Result<(), seccompiler::Error> {
    let kill = whatever(DEADLY);
    let pretend = whatever(&[libc::SYS_clone3]);
    for (rules, others, these) in [
        (pretend, SeccompAction::Allow, errno(libc::ENOSYS)),
        (kill, SeccompAction::Allow, SeccompAction::KillProcess),
        (allowed()?, errno(libc::EPERM), SeccompAction::Allow),
    ] {
        let arch = TargetArch::try_from(std::env::consts::ARCH)?;
        let program: BpfProgram = SeccompFilter::new(rules, others, these, arch)?.try_into()?;
        apply(&program)?;
    }
    Ok(())
}

fn errno(number: i32) -> SeccompAction {
    SeccompAction::Errno(number.unsigned_abs())
}

fn whatever(calls: &[c_long]) -> Rules {
    calls.iter().map(|call| (*call, Vec::new())).collect()
}

/// The list, with those calls that depend on their arguments.
fn allowed() -> Result<Rules, BackendError> {
    let mut rules = whatever(ALLOWED);
    rules.extend(whatever(ALLOWED_OLD));
    let mut when = |call: c_long, conditions: Vec<SeccompCondition>| {
        let rule = SeccompRule::new(conditions)?;
        rules.entry(call).or_default().push(rule);
        Ok::<(), BackendError>(())
    };
    let number = |value: i32| u64::from(value.unsigned_abs());
    // Threads, and no processes: a child would hold the permission group open.
    let thread = number(libc::CLONE_THREAD);
    when(libc::SYS_clone, vec![masked(0, thread, thread)?])?;
    // Signals to our own threads alone.
    let own = u64::from(std::process::id());
    when(libc::SYS_tgkill, vec![equal(0, own)?])?;
    when(libc::SYS_prlimit64, vec![equal(0, 0)?])?;
    for call in [libc::SYS_socket, libc::SYS_socketpair] {
        when(call, vec![equal(0, number(libc::AF_UNIX))?])?;
    }
    // No memory is written and run.
    let (write, run) = (number(libc::PROT_WRITE), number(libc::PROT_EXEC));
    when(libc::SYS_mmap, vec![masked(2, write, 0)?])?;
    when(libc::SYS_mmap, vec![masked(2, run, 0)?])?;
    when(libc::SYS_mprotect, vec![masked(2, run, 0)?])?;
    for option in OPTIONS {
        when(libc::SYS_prctl, vec![equal(0, number(*option))?])?;
    }
    for request in REQUESTS {
        when(libc::SYS_ioctl, vec![equal(1, *request)?])?;
    }
    when(libc::SYS_ioctl, vec![masked(1, 0xffff, PIDFD_GET_INFO)?])?;
    Ok(rules)
}

fn equal(argument: u8, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, Dword, Eq, value)
}

fn masked(argument: u8, mask: u64, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, Dword, MaskedEq(mask), value)
}

#[cfg(test)]
mod tests;
