//! Scheduling of our own threads.

use std::io;

/// The kernel's id of the calling thread (gettid(2)).
#[must_use]
pub fn current_id() -> i32 {
    nix::unistd::gettid().as_raw()
}

/// Whether `tid` is a thread of this process. The kernel is asked, for the
/// threads that crates start are ours as well.
#[must_use]
pub fn is_own(tid: i32) -> bool {
    let process = nix::unistd::getpid().as_raw();
    // SAFETY: no pointers are passed; signal 0 is only checked, never sent (tgkill(2)).
    let result = unsafe { libc::syscall(libc::SYS_tgkill, process, tid, 0) };
    result == 0
}

/// Sets the nice value of the calling thread and of the threads it starts
/// from now on (setpriority(2)).
///
/// # Errors
/// `EACCES` without `CAP_SYS_NICE`.
pub fn nice(value: i32) -> io::Result<()> {
    // SAFETY: no pointers are passed; 0 is the calling thread.
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, value) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Asks for real-time priority for the calling thread: `SCHED_FIFO` with
/// `priority` (1 is the lowest), reset in children (sched(7)).
///
/// # Errors
/// `EPERM` without `CAP_SYS_NICE` and `RLIMIT_RTPRIO`.
pub fn real_time(priority: i32) -> io::Result<()> {
    let parameter = libc::sched_param {
        sched_priority: priority,
    };
    // SAFETY: pid 0 is the calling thread, and the parameter outlives the call.
    let result = unsafe {
        libc::sched_setscheduler(
            0,
            libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK,
            &raw const parameter,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_threads_are_told_from_others() {
        assert!(is_own(current_id()));
        assert!(!is_own(1), "init");
        // A thread that has ended is nobody's.
        let ended = std::thread::spawn(current_id).join().unwrap();
        while std::path::Path::new(&format!("/proc/self/task/{ended}")).exists() {
            std::thread::yield_now();
        }
        assert!(!is_own(ended));
    }
}
