//! Names that a directory takes for others: with casefold (`chattr +F`, ext4(5)) sshd
//! finds as `authorized_keys` what was made as `AUTHORIZED_KEYS`.
//!
//! Owns the question whether two names are one there. Only the directory knows, at the
//! time: no record tells that it is made to fold, a record's name is the spelling by which
//! the kernel came to the file first, whoever used it, and folding is Unicode's. Must not
//! be asked of a file system whose server may not answer, unless its caller can wait.

use std::ffi::OsStr;
use std::os::fd::{AsFd as _, BorrowedFd};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use crate::sys::stat::opened_path;

/// `FS_CASEFOLD_FL` (linux/fs.h).
const CASEFOLD: u32 = 0x4000_0000;

/// What letters beyond ASCII fold to, if that is in ASCII: the Kelvin sign, the long and the
/// sharp s, ligatures (CaseFolding.txt of Unicode). Some fold to nothing.
const LETTERS: &[u8] = b"fiklstFIKLST";

/// Whether some directory may take `name` for `wanted`, which it is not. Of nearly all names
/// none does, which is told without asking any.
#[must_use]
pub fn may_be(name: &OsStr, wanted: &OsStr) -> bool {
    let (bytes, wanted) = (name.as_encoded_bytes(), wanted.as_encoded_bytes());
    if bytes.is_ascii() {
        return bytes.eq_ignore_ascii_case(wanted) && bytes != wanted;
    }
    let mut wanted = wanted.iter();
    let mut plain = bytes.iter().filter(|byte| byte.is_ascii());
    let is_rest_there = plain.all(|byte| {
        let is_byte = |other: &&u8| other.eq_ignore_ascii_case(byte);
        let next = wanted.find(|other| is_byte(other) || !LETTERS.contains(other));
        next.is_some_and(|other| is_byte(&other))
    });
    is_rest_there && wanted.all(|other| LETTERS.contains(other))
}

/// Whether `dir` folds names. What has no such flag is taken not to.
#[must_use]
pub fn folds(dir: BorrowedFd<'_>) -> bool {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let Ok(open) = openat(dir, ".", flags, Mode::empty()) else {
        return false;
    };
    rustix::fs::ioctl_getflags(open).is_ok_and(|flags| flags.bits() & CASEFOLD != 0)
}

/// Whether `name` is `wanted` in `dir`, which folds, if it [`may_be`]; `None`: that cannot
/// be told, for there is neither.
#[must_use]
pub fn is_one(dir: BorrowedFd<'_>, name: &OsStr, wanted: &OsStr) -> Option<bool> {
    if name.is_ascii() {
        return Some(true);
    }
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let open = |name| openat(dir, name, flags, Mode::empty()).ok();
    // Not by identity, which hard links share. While the first is open, the kernel comes to
    // the second by the same entry, and tells that entry's name of both.
    match (open(name), open(wanted)) {
        (Some(one), Some(other)) => {
            let path = |file| opened_path(file).ok();
            let (one, other) = (path(one.as_fd()), path(other.as_fd()));
            Some(one.is_some() && one == other)
        }
        (None, None) => None,
        _ => Some(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_names_may_be_others() {
        let wanted = OsStr::new("authorized_keys");
        for (name, may) in [
            ("authorized_keys", false),
            ("AUTHORIZED_KEYS", true),
            ("Authorized_Keys2", false),
            ("authorized_key", false),
            ("authorized_\u{212a}eys", true),
            ("AUTHORIZED_KEY\u{17f}", true),
            ("author\u{200b}ized_keys", true),
            ("authorized_key\u{df}", true),
            ("autorized_key\u{17f}", false),
            ("\u{6587}\u{6863}", false),
            ("syek_dezirohtua\u{17f}", false),
            ("caf\u{e9}", false),
        ] {
            assert_eq!(may_be(OsStr::new(name), wanted), may, "{name}");
        }
        for (name, wanted) in [("con\u{fb01}g", "config"), (".\u{df}h", ".ssh")] {
            assert!(may_be(OsStr::new(name), OsStr::new(wanted)), "{name}");
        }
    }

    #[test]
    fn hard_links_are_not_one_name() {
        let dir = tempfile::tempdir().unwrap();
        let open = std::fs::File::open(dir.path()).unwrap();
        let name = OsStr::new("authorized_\u{212a}eys");
        let wanted = OsStr::new("authorized_keys");
        let is_one = |name| is_one(open.as_fd(), name, wanted);
        assert!(!folds(open.as_fd()));
        assert_eq!(is_one(name), None);
        std::fs::write(dir.path().join(wanted), "").unwrap();
        assert_eq!(is_one(name), Some(false));
        std::fs::hard_link(dir.path().join(wanted), dir.path().join(name)).unwrap();
        assert_eq!(is_one(name), Some(false));
        // As one name would be.
        assert_eq!(is_one(OsStr::new("./authorized_keys")), Some(true));
    }
}
