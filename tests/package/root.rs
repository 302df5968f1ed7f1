//! What the tests are made of: Debian roots and packages, made once.

use std::collections::HashMap;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

/// What the root has besides the essential packages.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,libpam-systemd,udev,procps,openssh-server,openssh-client,sudo,bash-completion,man-db";

/// What remembers logins since Debian 13.
const LOGINS: &str = "libpam-wtmpdb,libpam-lastlog2,lastlog2";

/// A version above that of the changelog.
pub const NEWER: &str = "99.0-1";

/// A directory of ours that outlives the tests.
pub fn place() -> PathBuf {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("package");
    fs::create_dir_all(&place).unwrap();
    place
}

pub fn suite() -> String {
    std::env::var("SSH_KEYWATCH_TEST_SUITE").unwrap_or_else(|_| "bookworm".to_owned())
}

/// Runs a command that must not fail, and returns what it printed.
#[track_caller]
pub fn must(command: &mut Command) -> String {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| {
            panic!("cannot run {command:?} ({error}); tests/run installs what it needs")
        });
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command:?} ended with {}:\n{stdout}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    stdout
}

/// The root that containers are copies of.
pub fn root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        assert!(
            nix::unistd::geteuid().is_root(),
            "containers need root: sudo tests/run"
        );
        let (place, suite) = (place(), suite());
        let packages = match &*suite {
            "bookworm" => PACKAGES.to_owned(),
            _ => format!("{PACKAGES},{LOGINS}"),
        };
        let mut hasher = DefaultHasher::new();
        packages.hash(&mut hasher);
        let root = place.join(format!("{suite}-{:016x}", hasher.finish()));
        // Other runs of the tests may want it too.
        let lock = File::create(place.join("lock")).unwrap();
        lock.lock().unwrap();
        if !root.exists() {
            let new = root.with_extension("new");
            if new.exists() {
                fs::remove_dir_all(&new).unwrap();
            }
            let mirror = std::env::var("SSH_KEYWATCH_TEST_MIRROR")
                .unwrap_or_else(|_| "http://deb.debian.org/debian".to_owned());
            must(
                Command::new("mmdebstrap")
                    .args(["--quiet", "--variant=minbase", "--format=directory"])
                    .args([&format!("--include={packages}"), &suite])
                    .args([new.as_os_str(), mirror.as_ref()]),
            );
            fs::rename(&new, &root).unwrap();
        }
        root
    })
}

/// A copy of the root, to be removed again.
pub fn copy() -> tempfile::TempDir {
    let copy = tempfile::Builder::new()
        .prefix("root-")
        .tempdir_in(place())
        .unwrap();
    must(
        Command::new("cp")
            .args(["--archive", "--reflink=auto", "--no-target-directory"])
            .args([root(), copy.path()]),
    );
    copy
}

/// The package that `packaging/build-deb` builds, as it is or as another version.
pub fn package(version: Option<&'static str>) -> PathBuf {
    static BUILT: Mutex<Option<HashMap<Option<&str>, PathBuf>>> = Mutex::new(None);
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let built = built.get_or_insert_default();
    built
        .entry(version)
        .or_insert_with(|| {
            let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/build-deb");
            let mut command = Command::new(build);
            command.arg("--output").arg(place());
            if let Some(version) = version {
                command.args(["--version", version]);
            }
            let printed = must(&mut command);
            PathBuf::from(printed.lines().last().expect("build-deb prints a path"))
        })
        .clone()
}
