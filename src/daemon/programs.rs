//! What a writer's program is, whatever it is called: its hash, and whether it
//! is an installed key tool under another name.
//!
//! Owns the hashes that were computed and the thread that reads executables:
//! they can be large, and lie where somebody else answers. Must not change what
//! an attribution says of the path: rules compare that exactly.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use crate::proctable;
use crate::resolve::proc::open_cached;
use crate::resolve::slow::{Pool, Size};
use crate::resolve::{Attribution, Image, ImageState, KnownAs, KnownBy, Process};
use crate::sys::handle::FileSystem;
use crate::sys::open::open_regular;

/// The largest executable that is hashed.
const MAX_SIZE: u64 = 64 * 1024 * 1024;
/// How many hashes are kept.
const MAX_KEPT: usize = 1024;
/// How long a hash is waited for.
const READ_TIME: Duration = Duration::from_millis(250);
/// How long all hashes together are waited for within [`WINDOW`]: a new program
/// for each file must not keep other alerts back.
const ALL_TIME: Duration = Duration::from_secs(1);
const WINDOW: Duration = Duration::from_secs(10);
/// How exactly it is known when a program was begun, and a file changed.
const TICK: Duration = Duration::from_millis(25);
/// How old what is known of the installed tools may be.
const FRESH: Duration = Duration::from_secs(1);

/// A file, and what it held at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Version {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

type Hashes = Arc<Mutex<HashMap<Version, String>>>;

/// An installed key tool.
struct Tool {
    /// Where the configuration says it is.
    path: PathBuf,
    /// The same without symbolic links.
    real: PathBuf,
    version: Version,
    file: Arc<OwnedFd>,
}

/// Tells what programs are.
pub struct Programs {
    pool: Pool,
    paths: Vec<PathBuf>,
    tools: Vec<Tool>,
    looked: Option<Instant>,
    hashes: Hashes,
    window: Instant,
    waited: Duration,
}

impl Programs {
    /// Knows the tools that are installed at `paths`.
    ///
    /// # Errors
    /// The thread that reads cannot be started.
    pub fn new(paths: Vec<PathBuf>) -> io::Result<Self> {
        Ok(Self {
            pool: Pool::start(Size {
                threads: 1,
                // Of a program and a tool one after the other: the thread may
                // have answered and not be done yet.
                backlog: 1,
                urgent: false,
                movable: false,
            })?,
            paths,
            tools: Vec::new(),
            looked: None,
            hashes: Hashes::default(),
            window: Instant::now(),
            waited: Duration::ZERO,
        })
    }

    /// Adds what the writer's program is.
    pub fn tell(&mut self, attribution: &mut Attribution) {
        let Some(process) = &attribution.process else {
            return;
        };
        let Some(image) = &process.image else { return };
        self.look();
        let kept = attribution.program.file.take();
        let kept = kept.and_then(|kept| kept.as_fd().try_clone_to_owned().ok());
        let file = open_image(kept, process.pid, image).map(Arc::new);
        let version = file.as_ref().and_then(|file| version(file));
        let own = self.tools.iter().position(|tool| {
            version.is_some_and(|version| is_same(version, tool.version))
                || is(image, tool.version, &tool.real)
        });
        if let (Some(file), Some(version)) = (&file, version)
            && is_as_it_ran(version, attribution)
        {
            attribution.program.sha256 = self.hash(file, version);
        }
        attribution.program.known = match own {
            Some(index) => {
                let tool = &self.tools[index];
                // At its own place it is not known as something else.
                (tool.real != image.path).then(|| tool.known(KnownBy::Inode))
            }
            None => self
                .copy_of(version, attribution.program.sha256.as_deref())
                .or_else(|| {
                    let loaded = attribution.program.loaded.as_ref()?;
                    let is_loader = is_loader(image) && is_installed(image, file.as_deref()?);
                    self.loaded(loaded).filter(|_| is_loader)
                })
                .or_else(|| self.argument(process)),
        };
    }

    /// Looks for the installed tools again: a package can replace them.
    fn look(&mut self) {
        if self.looked.is_some_and(|looked| looked.elapsed() < FRESH) {
            return;
        }
        self.looked = Some(Instant::now());
        self.tools.clear();
        for path in &self.paths {
            let Some(file) = open_cached(path) else {
                continue;
            };
            let Some(version) = version(&file) else {
                continue;
            };
            self.tools.push(Tool {
                real: path.canonicalize().unwrap_or_else(|_| path.clone()),
                path: path.clone(),
                version,
                file: Arc::new(file),
            });
        }
    }

    fn copy_of(&mut self, version: Option<Version>, sha256: Option<&str>) -> Option<KnownAs> {
        let (version, sha256) = (version?, sha256?);
        for index in 0..self.tools.len() {
            let tool = &self.tools[index];
            if tool.version.size != version.size {
                continue;
            }
            let (file, version) = (Arc::clone(&tool.file), tool.version);
            if self.hash(&file, version).as_deref() == Some(sha256) {
                return Some(self.tools[index].known(KnownBy::Content));
            }
        }
        None
    }

    fn loaded(&self, loaded: &Image) -> Option<KnownAs> {
        let mut tools = self.tools.iter();
        let tool = tools.find(|tool| is(loaded, tool.version, &tool.real))?;
        Some(tool.known(KnownBy::Loaded))
    }

    /// `ld.so [OPTION…] PROGRAM [ARGUMENT…]`.
    fn argument(&self, process: &Process) -> Option<KnownAs> {
        if !is_loader(process.image.as_ref()?) {
            return None;
        }
        let mut tools = self.tools.iter();
        let tool = tools.find(|tool| {
            let args = process.args.iter().flatten().skip(1);
            args.map(Path::new)
                .any(|arg| arg == tool.path || arg == tool.real)
        })?;
        Some(tool.known(KnownBy::Arguments))
    }

    /// The hash of `file`; absent if it is not there in time.
    fn hash(&mut self, file: &Arc<OwnedFd>, version: Version) -> Option<String> {
        if let Some(known) = lock(&self.hashes).get(&version) {
            return Some(known.clone());
        }
        // A file server is not asked at all.
        if version.size > MAX_SIZE || FileSystem::of(file).ok()?.may_stall() {
            return None;
        }
        let (file, hashes) = (Arc::clone(file), Arc::clone(&self.hashes));
        let answer = self.pool.ask(move || {
            let hash = digest(&file, version.size).ok()?;
            let mut hashes = lock(&hashes);
            if hashes.len() >= MAX_KEPT {
                hashes.clear();
            }
            hashes.insert(version, hash.clone());
            Some(hash)
        })?;
        let now = Instant::now();
        if now.duration_since(self.window) > WINDOW {
            self.window = now;
            self.waited = Duration::ZERO;
        }
        if self.waited >= ALL_TIME {
            // It is there for the next event.
            return None;
        }
        let hash = answer.until(now + READ_TIME).flatten();
        self.waited += now.elapsed();
        hash
    }
}

impl Tool {
    fn known(&self, by: KnownBy) -> KnownAs {
        KnownAs {
            path: self.path.clone(),
            by,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a file holds what it held when it was run: nobody can write to it as long as it
/// runs (`ETXTBSY`), and afterwards its owner can. When it was changed he cannot choose.
fn is_as_it_ran(version: Version, attribution: &Attribution) -> bool {
    let (seconds, nanoseconds) = version.changed;
    let held = attribution.program.changed;
    if held == Some((seconds, u32::try_from(nanoseconds).unwrap_or(0))) {
        return true;
    }
    let began = match attribution.program.since {
        Some(since) => {
            let age = Duration::from_nanos(proctable::now().saturating_sub(since));
            SystemTime::now().checked_sub(age)
        }
        None => attribution.process.as_ref().and_then(|it| it.start),
    };
    let began = began.and_then(|began| began.duration_since(UNIX_EPOCH).ok());
    let changed = Duration::new(
        u64::try_from(seconds).unwrap_or(0),
        u32::try_from(nanoseconds).unwrap_or(0),
    );
    began.is_some_and(|began| changed + TICK <= began)
}

/// Whether it is called as dynamic loaders are.
fn is_loader(image: &Image) -> bool {
    let name = image.path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| {
        ["ld-", "ld.so", "ld64"]
            .iter()
            .any(|it| name.starts_with(it))
    })
}

/// Whether root's file stands at its path: any other program can map whatever it likes to
/// be taken for.
fn is_installed(image: &Image, file: &OwnedFd) -> bool {
    let metadata = file
        .try_clone()
        .and_then(|file| File::from(file).metadata());
    image.state == Some(ImageState::Same) && metadata.is_ok_and(|it| it.uid() == 0)
}

/// Opens the very file that `image` is: as it was kept, at its path, or as long
/// as the process lives.
fn open_image(kept: Option<OwnedFd>, pid: i32, image: &Image) -> Option<OwnedFd> {
    let is_it =
        |file: &OwnedFd| version(file).is_some_and(|version| is(image, version, &image.path));
    let running = || open_cached(&PathBuf::from(format!("/proc/{pid}/exe")));
    kept.filter(is_it)
        .or_else(|| open_cached(&image.path).filter(is_it))
        .or_else(|| running().filter(is_it))
}

/// Whether `image` is the file that stands at `path`. The process table names a
/// file on overlay and btrfs by another device than stat(2) does: there the path
/// must lead to it.
fn is(image: &Image, version: Version, path: &Path) -> bool {
    let is_there = image.state == Some(ImageState::Same) && image.path == path;
    image.inode == Some(version.inode) && (image.device == Some(version.device) || is_there)
}

fn is_same(one: Version, other: Version) -> bool {
    (one.device, one.inode) == (other.device, other.inode)
}

fn version(file: &OwnedFd) -> Option<Version> {
    let metadata = File::from(file.try_clone().ok()?).metadata().ok()?;
    metadata.is_file().then(|| Version {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

fn digest(file: &OwnedFd, size: u64) -> io::Result<String> {
    let place = format!("/proc/self/fd/{}", file.as_raw_fd());
    let file = open_regular(Path::new(&place))?;
    let mut hash = Sha256::new();
    // One byte more shows that it has grown: then it is another version.
    let mut rest = file.take(size + 1);
    let mut buffer = vec![0; 64 * 1024];
    let mut length = 0;
    loop {
        match rest.read(&mut buffer)? {
            0 => break,
            count => {
                hash.update(&buffer[..count]);
                length += count as u64;
            }
        }
    }
    if length != size {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(HEXLOWER.encode(&hash.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolve::{Method, ProgramFacts};

    fn attribution(path: &Path) -> Attribution {
        let proc = crate::resolve::proc::Proc::open(Path::new("/proc")).unwrap();
        let own = proc.entry(nix::unistd::getpid().as_raw()).unwrap();
        let mut process = proc.snapshot(&own).unwrap();
        let metadata = path.metadata().unwrap();
        process.image = Some(Image {
            path: path.to_owned(),
            device: Some(metadata.dev()),
            inode: Some(metadata.ino()),
            generation: None,
            state: Some(ImageState::Same),
        });
        let changed = (
            metadata.ctime(),
            u32::try_from(metadata.ctime_nsec()).unwrap(),
        );
        Attribution {
            method: Method::Held,
            certain: true,
            process: Some(process),
            program: ProgramFacts {
                changed: Some(changed),
                ..ProgramFacts::default()
            },
            ..Attribution::none()
        }
    }

    /// A hash that is late on a busy machine is there for the next event.
    fn told(programs: &mut Programs, path: &Path) -> Attribution {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let mut attribution = attribution(path);
            programs.tell(&mut attribution);
            if attribution.program.sha256.is_some() || Instant::now() > until {
                return attribution;
            }
        }
    }

    #[test]
    fn a_tool_is_known_by_inode_and_by_content_and_not_at_its_own_place() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("tool"), "a program").unwrap();
        std::fs::hard_link(at("tool"), at("hard")).unwrap();
        std::fs::copy(at("tool"), at("copy")).unwrap();
        std::fs::write(at("other"), "a prografm").unwrap();
        std::fs::write(at("same size"), "b program").unwrap();
        let mut programs = Programs::new(vec![at("tool"), at("missing")]).unwrap();
        let own = told(&mut programs, &at("tool"));
        assert_eq!(own.program.known, None);
        // printf 'a program' | sha256sum
        let expected = HEXLOWER.encode(&Sha256::digest("a program"));
        assert_eq!(own.program.sha256.as_deref(), Some(expected.as_str()));
        for (name, by) in [("hard", KnownBy::Inode), ("copy", KnownBy::Content)] {
            let known = told(&mut programs, &at(name)).program.known.unwrap();
            assert_eq!((known.path, known.by), (at("tool"), by));
        }
        for name in ["other", "same size"] {
            assert_eq!(told(&mut programs, &at(name)).program.known, None);
        }
    }

    #[test]
    fn a_program_that_changes_is_hashed_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("program");
        let mut programs = Programs::new(Vec::new()).unwrap();
        for content in ["one", "other"] {
            std::fs::write(&path, content).unwrap();
            let hash = told(&mut programs, &path).program.sha256.unwrap();
            assert_eq!(hash, HEXLOWER.encode(&Sha256::digest(content)));
        }
    }

    /// Whoever owns it can write another program's content to it when it has ended.
    #[test]
    fn of_a_program_that_was_changed_since_it_ran_no_hash_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("program");
        std::fs::write(&path, "evil").unwrap();
        let mut programs = Programs::new(Vec::new()).unwrap();
        let hash = told(&mut programs, &path).program.sha256;
        assert_eq!(hash, Some(HEXLOWER.encode(&Sha256::digest("evil"))));
        // Not held, but begun after it had been changed, to a tick.
        let until = Instant::now() + Duration::from_secs(20);
        let mut begun_since = |since: Option<proctable::Time>| {
            let mut attribution = attribution(&path);
            attribution.program.changed = None;
            attribution.program.since = since;
            programs.tell(&mut attribution);
            attribution.program.sha256.is_some()
        };
        while !begun_since(Some(proctable::now())) {
            assert!(Instant::now() < until);
        }
        assert!(!begun_since(Some(proctable::now() - 60_000_000_000)));
        // We, who run it here, have begun before.
        assert!(!begun_since(None));
        let mut held = attribution(&path);
        std::fs::write(&path, "good").unwrap();
        File::open(&path)
            .unwrap()
            .set_modified(SystemTime::UNIX_EPOCH)
            .unwrap();
        programs.tell(&mut held);
        assert_eq!(held.program.sha256, None);
    }

    #[test]
    fn what_a_loader_has_mapped_or_is_told_to_run_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["tool", "ld-linux.so.2", "program"] {
            std::fs::write(at(name), name).unwrap();
        }
        let mut programs = Programs::new(vec![at("tool")]).unwrap();
        let mut mapped = attribution(&at("ld-linux.so.2"));
        mapped.program.loaded = attribution(&at("tool")).process.unwrap().image;
        programs.tell(&mut mapped);
        assert_eq!(mapped.program.known.take().unwrap().by, KnownBy::Loaded);
        // Any other program can map it, and anybody call one of his own a loader.
        for (name, state, owner) in [
            ("program", ImageState::Same, 0),
            ("ld-linux.so.2", ImageState::Foreign, 0),
            ("ld-linux.so.2", ImageState::Same, 1000),
        ] {
            std::os::unix::fs::chown(at(name), Some(owner), None).unwrap();
            let mut other = attribution(&at(name));
            other.program.loaded.clone_from(&mapped.program.loaded);
            other
                .process
                .as_mut()
                .unwrap()
                .image
                .as_mut()
                .unwrap()
                .state = Some(state);
            programs.tell(&mut other);
            assert_eq!(other.program.known, None, "{name} {state:?} {owner}");
        }
        for (program, known) in [("ld-linux.so.2", true), ("program", false)] {
            let mut named = attribution(&at(program));
            let args = [at(program), "--argv0".into(), "x".into(), at("tool")];
            let process = named.process.as_mut().unwrap();
            process.args = Some(args.map(Into::into).into());
            programs.tell(&mut named);
            let by = named.program.known.map(|known| known.by);
            assert_eq!(by, known.then_some(KnownBy::Arguments));
        }
    }
}
