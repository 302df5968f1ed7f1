//! By which numbers the kernel calls a file where it is mapped.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// No executable is smaller than what is mapped of it here.
const BYTES: usize = 1;

/// Device (`makedev(3)`) and inode number of a file's mappings, as perf's records and
/// `/proc/PID/maps` have them: on overlay and btrfs not those of stat(2). `file` is a
/// regular file, opened for reading, that no file server has.
///
/// # Errors
/// The errno of `mmap(2)`, or of reading `/proc/self/maps`.
pub fn numbers(file: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    // SAFETY: a new mapping at an address of the kernel's choice; nothing is read of it.
    let address = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            BYTES,
            libc::PROT_READ,
            libc::MAP_PRIVATE,
            file.as_raw_fd(),
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let maps = io::read_to_string(File::open("/proc/self/maps")?);
    // SAFETY: the mapping was made above, and nobody else knows of it.
    unsafe { libc::munmap(address, BYTES) };
    let begin = format!("{:x}-", address.addr());
    let maps = maps?;
    let line = maps.lines().find(|line| line.starts_with(&begin));
    line.and_then(parse)
        .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}

/// The generation of a file's inode on btrfs, where files of two subvolumes can have the
/// same numbers, and anybody makes subvolumes (`FS_IOC_GETVERSION`, `ioctl_iflags(2)`);
/// `None` on other file systems.
///
/// # Errors
/// The errno of `fstatfs(2)` or `ioctl(2)`.
pub fn generation(file: BorrowedFd<'_>) -> io::Result<Option<u32>> {
    if rustix::fs::fstatfs(file)?.f_type != libc::BTRFS_SUPER_MAGIC {
        return Ok(None);
    }
    let mut generation: u32 = 0;
    // SAFETY: the kernel writes one int there, whatever the number of the call says
    // (fs/btrfs/ioctl.c), and the variable outlives it.
    let result = unsafe {
        libc::ioctl(
            file.as_raw_fd(),
            libc::FS_IOC_GETVERSION,
            &raw mut generation,
        )
    };
    if result == 0 {
        Ok(Some(generation))
    } else {
        Err(io::Error::last_os_error())
    }
}

/// `ADDRESSES RIGHTS OFFSET MAJOR:MINOR INODE PATH` (`proc_pid_maps(5)`).
fn parse(line: &str) -> Option<(u64, u64)> {
    let mut fields = line.split_ascii_whitespace().skip(3);
    let (major, minor) = fields.next()?.split_once(':')?;
    let number = |text| u32::from_str_radix(text, 16).ok();
    let device = libc::makedev(number(major)?, number(minor)?);
    Some((device, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn the_numbers_of_a_mapping_are_those_of_its_file() {
        let line = "7f00-7f01 r--p 00000000 fe:1f 10199120                   /usr/bin/x y";
        assert_eq!(parse(line), Some((libc::makedev(0xfe, 0x1f), 10_199_120)));
        let file = tempfile::tempfile().unwrap();
        file.set_len(10).unwrap();
        let (device, inode) = numbers(file.as_fd()).unwrap();
        let metadata = file.metadata().unwrap();
        assert_eq!(inode, metadata.ino());
        // Where its file system has a device.
        if libc::major(metadata.dev()) != 0 {
            assert_eq!(device, metadata.dev());
        }
        assert!(numbers(File::open("/").unwrap().as_fd()).is_err());
    }
}
