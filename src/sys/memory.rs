//! How the allocator keeps memory, and what is kept of the program itself.

use std::ops::Range;
use std::os::unix::ffi::OsStrExt as _;

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

/// Gives back what is free in the heaps (`malloc_trim(3)`), and the program's code:
/// after work that took much and is done for long. Most of the code is run once, at
/// the start; what is used comes back from the page cache, 64 KiB at a time. The
/// heaps stay as they are on another C library.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) takes a number of bytes to keep, and may be called
    // at any time from any thread.
    unsafe {
        libc::malloc_trim(0)
    };
    let (maps, exe) = (
        std::fs::read("/proc/self/maps"),
        std::fs::read_link("/proc/self/exe"),
    );
    let (Ok(maps), Ok(exe)) = (maps, exe) else {
        return;
    };
    for range in code(&maps, exe.as_os_str().as_bytes()) {
        // SAFETY: these pages are the executable's own, mapped privately and never
        // written: what is dropped is read from the file again (madvise(2)).
        unsafe {
            libc::madvise(
                std::ptr::without_provenance_mut(range.start),
                range.len(),
                libc::MADV_DONTNEED,
            )
        };
    }
}

/// Where the code of the program at `exe` is mapped, from `proc_pid_maps(5)`. What
/// was relocated is not code, and cannot be had again.
fn code(maps: &[u8], exe: &[u8]) -> Vec<Range<usize>> {
    let lines = maps.split(|byte| *byte == b'\n');
    let range = |line: &[u8]| {
        let line = line.strip_suffix(exe)?.strip_suffix(b" ")?;
        let line = std::str::from_utf8(line).ok()?;
        let mut fields = line.split_whitespace();
        let (from, to) = fields.next()?.split_once('-')?;
        let is_code = fields.next() == Some("r-xp");
        let address = |text| usize::from_str_radix(text, 16).ok();
        let range = address(from)?..address(to)?;
        (is_code && fields.count() == 3 && !range.is_empty()).then_some(range)
    };
    lines.filter_map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_the_program_is_let_go() {
        let maps = b"55d0-55e0 r--p 00000000 fe:00 1 /usr/bin/it
55e0-5600 r-xp 00010000 fe:00 1                     /usr/bin/it
5600-5610 r--p 00030000 fe:00 1 /usr/bin/it
5610-5620 rw-p 00040000 fe:00 1 /usr/bin/it
6000-6010 r-xp 00000000 fe:00 2 /usr/lib/x/usr/bin/it
7000-7010 r-xp 00000000 00:00 0 [vdso]
";
        let found = code(maps, b"/usr/bin/it");
        assert_eq!((found.len(), found[0].clone()), (1, 0x55e0..0x5600));
        // It is still there.
        give_back();
        let maps = std::fs::read("/proc/self/maps").unwrap();
        let exe = std::env::current_exe().unwrap();
        assert_eq!(code(&maps, exe.as_os_str().as_bytes()).len(), 1);
    }
}
