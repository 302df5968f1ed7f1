//! How the allocator keeps memory.

/// Makes heaps grow and shrink in larger steps: by default glibc gives each
/// page of a thread's heap back and asks for it again at the next alert
/// (mallopt(3)). Without effect on another C library.
pub fn keep_heaps() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [
        (libc::M_TOP_PAD, 256 * 1024),
        (libc::M_TRIM_THRESHOLD, 1024 * 1024),
        // Threads share two heaps: few threads allocate much, and memory is small.
        (libc::M_ARENA_MAX, 2),
    ] {
        // SAFETY: mallopt(3) takes two integers; called before threads start.
        // It fails only for parameters it does not know, which changes nothing.
        unsafe { libc::mallopt(parameter, value) };
    }
}

/// Gives back what is free in the heaps (`malloc_trim(3)`): after work that took
/// much and is done for long. Without effect on another C library.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) takes a number of bytes to keep, and may be called
    // at any time from any thread.
    unsafe {
        libc::malloc_trim(0)
    };
}
