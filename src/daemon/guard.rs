//! Whether somebody meddles with the daemon itself: its program on the disk, its
//! marks in the kernel, its time to run. By root all of that can be done; here it
//! is at least told.
//!
//! Owns a thread that looks now and then, and what it has told already. Must not
//! mend anything.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::os::fd::RawFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use super::Message;
use crate::queue;
use crate::text::escape_path;

/// How often it looks.
const PERIOD: Duration = Duration::from_secs(5);
/// A thread that should have run so long ago was kept from it.
const LATE: Duration = Duration::from_secs(60);

/// The thread.
pub(super) struct Guard {
    end: Sender<()>,
    thread: JoinHandle<()>,
}

/// What is compared with what.
pub(super) struct Marks {
    /// Descriptor of the notification group.
    pub(super) group: RawFd,
    /// How many directories should have a mark, if that can be said now.
    pub(super) expected: Box<dyn Fn() -> Option<usize> + Send>,
}

impl Guard {
    /// Starts it.
    ///
    /// # Errors
    /// The thread cannot be started, or our own program not be opened.
    pub(super) fn start(
        marks: Option<Marks>,
        messages: queue::Sender<Message>,
    ) -> io::Result<Self> {
        let mut program = Program::of_this_process()?;
        let mut deficit = Deficit::default();
        let (end, ending) = channel();
        let tell = move |code, reason| {
            // Full only if the deciding thread hangs.
            let _ = messages.try_send(Message::Fault(code, reason));
        };
        let thread = std::thread::Builder::new()
            .name("guard".to_owned())
            .spawn(move || {
                let mut looked = Instant::now();
                while ending.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                    if let Some(reason) = late(looked.elapsed()) {
                        tell("paused", reason);
                    }
                    if let Some(reason) = program.look() {
                        tell("program_replaced", reason);
                    }
                    if let Some(marks) = &marks
                        && let Some(expected) = (marks.expected)()
                        && let Ok(found) = count_marks(marks.group)
                        && let Some(reason) = deficit.look(expected, found)
                    {
                        tell("marks_removed", reason);
                    }
                    looked = Instant::now();
                }
            })?;
        Ok(Self { end, thread })
    }

    /// Ends it.
    pub(super) fn end(self) {
        drop(self.end);
        let _ = self.thread.join();
    }
}

/// What it means that the thread did not look for so long.
fn late(since: Duration) -> Option<String> {
    (since >= PERIOD + LATE).then(|| {
        format!(
            "ssh-keywatch did not run for {} seconds: it was stopped, frozen, or got no processor",
            since.as_secs()
        )
    })
}

/// (device, inode, size, time of modification).
type Identity = (u64, u64, u64, i64, i64);

fn identity(metadata: &fs::Metadata) -> Identity {
    (
        metadata.dev(),
        metadata.ino(),
        metadata.len(),
        metadata.mtime(),
        metadata.mtime_nsec(),
    )
}

/// The program that runs, and the file that has its name.
struct Program {
    path: PathBuf,
    /// What runs, whatever its name is by now.
    file: File,
    /// What stood at the path when it was last looked at.
    seen: Option<Identity>,
}

impl Program {
    fn of_this_process() -> io::Result<Self> {
        Self::new(
            &fs::read_link("/proc/self/exe")?,
            File::open("/proc/self/exe")?,
        )
    }

    fn new(path: &Path, file: File) -> io::Result<Self> {
        let seen = Some(identity(&file.metadata()?));
        Ok(Self {
            path: path.to_owned(),
            file,
            seen,
        })
    }

    /// Says when another file stands at the path, once for each.
    fn look(&mut self) -> Option<String> {
        let found = fs::symlink_metadata(&self.path);
        let found = found.as_ref().ok().map(identity);
        if found == self.seen {
            return None;
        }
        self.seen = found;
        let path = escape_path(&self.path);
        let runs = digest(&self.file);
        let Some(_) = found else {
            return Some(format!(
                "{path} was removed; what runs is the one with SHA-256 {runs}"
            ));
        };
        let there = match File::open(&self.path) {
            Ok(file) => digest(&file),
            Err(error) => format!("unknown ({error})"),
        };
        Some(if there == runs {
            format!("{path} was replaced by a copy of itself, SHA-256 {there}")
        } else {
            format!(
                "{path} was replaced: what runs has SHA-256 {runs}, and what will run after the \
                 next start has {there}"
            )
        })
    }
}

/// The SHA-256 of a file's content, hexadecimal, or why there is none.
fn digest(file: &File) -> String {
    let mut hash = Sha256::new();
    let mut bytes = vec![0; 256 << 10];
    let mut position = 0;
    loop {
        match std::os::unix::fs::FileExt::read_at(file, &mut bytes, position) {
            Ok(0) => return HEXLOWER.encode(&hash.finalize()),
            Ok(count) => {
                hash.update(&bytes[..count]);
                position += count as u64;
            }
            Err(error) => return format!("unknown ({error})"),
        }
    }
}

/// How many marks on inodes a group of ours has (`/proc/PID/fdinfo`, proc(5)).
fn count_marks(group: RawFd) -> io::Result<usize> {
    count_lines(BufReader::new(File::open(format!(
        "/proc/self/fdinfo/{group}"
    ))?))
}

fn count_lines(mut reader: impl io::BufRead) -> io::Result<usize> {
    let mut line = Vec::new();
    let mut count = 0;
    while reader.read_until(b'\n', &mut line)? > 0 {
        count += usize::from(line.starts_with(b"fanotify ino:"));
        line.clear();
    }
    Ok(count)
}

/// Marks that are missing, twice in a row: directories come and go meanwhile.
#[derive(Default)]
struct Deficit {
    before: usize,
    told: usize,
}

impl Deficit {
    fn look(&mut self, expected: usize, found: usize) -> Option<String> {
        let missing = expected.saturating_sub(found);
        let steady = missing.min(self.before);
        self.before = missing;
        if steady <= self.told {
            self.told = steady;
            return None;
        }
        self.told = steady;
        Some(format!(
            "{steady} of {expected} directories have lost their mark: what happens in them goes \
             unseen; a file system was unmounted, or somebody took the marks off. A restart sets \
             them again"
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_program_that_is_replaced_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("program");
        let put = |text: &str| {
            let new = dir.path().join("new");
            fs::write(&new, text).unwrap();
            fs::rename(new, &path).unwrap();
        };
        put("one");
        let mut program = Program::new(&path, File::open(&path).unwrap()).unwrap();
        assert_eq!(program.look(), None);
        let hash = |text: &str| HEXLOWER.encode(&Sha256::digest(text));
        put("two");
        let told = program.look().unwrap();
        assert!(
            told.contains(&hash("one")) && told.contains(&hash("two")),
            "{told}"
        );
        assert_eq!(program.look(), None);
        put("one");
        assert!(program.look().unwrap().contains("copy of itself"));
        fs::remove_file(&path).unwrap();
        assert!(program.look().unwrap().contains("removed"));
        assert_eq!(program.look(), None);
        // In its place, without another inode.
        put("four");
        program.look();
        let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"!").unwrap();
        assert!(program.look().unwrap().contains(&hash("four!")));
    }

    #[test]
    fn marks_are_counted_as_the_kernel_lists_them() {
        let text = "pos:\t0\nflags:\t02004002\nmnt_id:\t16\nino:\t1057\n\
            fanotify flags:20e0b event-flags:80000\n\
            fanotify ino:2 sdev:fd00001 mflags:0 mask:40000fc0 ignored_mask:0 fhandle-bytes:8\n\
            fanotify ino:a1 sdev:fd00001 mflags:0 mask:40000fc0 ignored_mask:0 fhandle-bytes:8\n\
            fanotify sdev:fd00001 mflags:0 mask:100 ignored_mask:0\n";
        assert_eq!(count_lines(text.as_bytes()).unwrap(), 2);
    }

    #[test]
    fn what_is_missing_twice_is_told_once() {
        let mut deficit = Deficit::default();
        assert_eq!(deficit.look(5, 9), None);
        assert_eq!(deficit.look(5, 3), None, "it may be on its way");
        assert_eq!(deficit.look(5, 6), None);
        assert_eq!(deficit.look(5, 3), None);
        assert!(deficit.look(5, 3).unwrap().contains("2 of 5"));
        assert_eq!(deficit.look(5, 3), None);
        assert_eq!(deficit.look(5, 1), None);
        assert!(deficit.look(5, 1).unwrap().contains("4 of 5"));
        assert_eq!(deficit.look(5, 5), None);
        assert_eq!(deficit.look(5, 4), None);
        assert!(deficit.look(5, 4).unwrap().contains("1 of 5"));
    }

    #[test]
    fn a_pause_is_told() {
        assert_eq!(late(PERIOD * 2), None);
        assert!(
            late(Duration::from_secs(75))
                .unwrap()
                .contains("75 seconds")
        );
    }
}
