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

#[cfg(test)]
#[cfg(target_env = "gnu")]
mod tests {
    use std::process::Command;

    use super::*;

    /// What this process takes, without files' pages (`RssAnon`, KiB).
    fn anonymous() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon"));
        let number = line.unwrap().split_whitespace().nth(1).unwrap();
        number.parse().unwrap()
    }

    /// What [`what_is_free_between_what_is_used_is_given_back`] runs in a process of its own,
    /// in which nobody else takes memory.
    const ALONE: &str = "SSH_KEYWATCH_TEST_ALONE";

    #[test]
    fn what_is_free_between_what_is_used_is_given_back() {
        const KIB: usize = 1024;
        if std::env::var_os(ALONE).is_none() {
            let name = concat!(
                module_path!(),
                "::what_is_free_between_what_is_used_is_given_back"
            );
            let name = name.split_once("::").unwrap().1;
            let alone = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", name, "--nocapture"])
                .env(ALONE, "1")
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&alone.stdout);
            assert!(said.contains("1 passed"), "{said}{alone:?}");
            return;
        }
        let pages: Vec<Vec<u8>> = (0..64 * KIB).map(|_| vec![1; KIB]).collect();
        // So that the heap keeps its length, one in a hundred stays.
        let mut number = 0;
        let mut kept = pages;
        kept.retain(|_| {
            number += 1;
            number % 100 == 0
        });
        let before = anonymous();
        give_back();
        let after = anonymous();
        assert!(
            after + 32 * 1024 < before,
            "{before} KiB before, {after} KiB after"
        );
        assert_eq!(kept.len(), 64 * KIB / 100);
    }
}
