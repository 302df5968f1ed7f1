//! Texts of `/proc`, true and hostile.

use super::*;

const STAT: &[u8] = b"4711 (evil) R 1 2 (x) S 4242 4711 4242 34816 4711 4194304 100 0 0 0 1 2 0 0 20 0 1 0 987654 4096 100 18446744073709551615";

#[test]
fn a_hostile_name_does_not_shift_the_fields_of_stat() {
    let stat = parse_stat(STAT).unwrap();
    assert_eq!(stat.name, "evil) R 1 2 (x");
    assert_eq!(stat.state, b'S');
    assert_eq!(stat.parent, 4242);
    assert_eq!(stat.session, 4242);
    assert_eq!(stat.tty, 34816);
    assert_eq!(stat.threads, 1);
    assert_eq!(stat.start_ticks, 987_654);
}

#[test]
fn stat_cut_short_is_an_error() {
    for length in 0..80 {
        assert_eq!(parse_stat(&STAT[..length]), None, "at {length}");
    }
}

#[test]
fn status_gives_real_and_effective_ids() {
    let status = b"Name:\tssh-keygen\nUmask:\t0022\nState:\tR (running)\nTgid:\t77\nNgid:\t0\nPid:\t78\nPPid:\t1\nTracerPid:\t0\nUid:\t1000\t0\t0\t0\nGid:\t1001\t1002\t1002\t1002\nFDSize:\t64\nThreads:\t3\n";
    let status = parse_status(status).unwrap();
    assert_eq!(status.process, 77);
    assert_eq!(status.users, [1000, 0]);
    assert_eq!(status.groups, [1001, 1002]);
}

#[test]
fn a_process_that_is_being_reaped_is_nobody() {
    let status = b"Name:\tx\nTgid:\t0\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\n";
    assert_eq!(parse_status(status), None);
}

/// Ancestors and descendants are put in order by it, and held against events.
#[test]
fn a_start_is_told_to_the_tick() {
    let before = SystemTime::now();
    let mut child = std::process::Command::new("sleep")
        .arg("60")
        .spawn()
        .unwrap();
    let after = SystemTime::now();
    let proc = Proc::open(Path::new("/proc")).unwrap();
    let entry = proc.entry(child.id().cast_signed()).unwrap();
    let process = proc.snapshot(&entry);
    child.kill().unwrap();
    child.wait().unwrap();
    let start = process.unwrap().start.unwrap();
    assert!(start <= after, "{start:?} {after:?}");
    let early = before.duration_since(start).unwrap_or_default();
    assert!(early <= Duration::from_millis(20), "{early:?}");
}

#[test]
fn a_title_is_one_argument() {
    let cases: [(&[u8], &[&str]); 5] = [
        // As setproctitle(3) writes it over what was longer.
        (b"sshd: ann [priv]\0\0\0\0\0", &["sshd: ann [priv]"]),
        (b"nginx: worker process\0\0", &["nginx: worker process"]),
        (b"nginx: worker process\0", &["nginx: worker process"]),
        (b"tool\0\0\0", &["tool", "", ""]),
        (b"a: b\0\0c\0", &["a: b", "", "c"]),
    ];
    for (bytes, expected) in cases {
        assert_eq!(split_args(bytes), expected, "{bytes:?}");
    }
}

#[test]
fn args_keep_empty_ones_and_bytes() {
    assert_eq!(
        split_args(b"ssh-keygen\0-N\0\0-f\0/x\xff\0"),
        ["ssh-keygen", "-N", "", "-f"]
            .into_iter()
            .map(OsString::from)
            .chain([OsString::from_vec(b"/x\xff".to_vec())])
            .collect::<Vec<_>>()
    );
}

#[test]
fn an_unlinked_image_loses_the_kernels_remark_and_a_lying_name_does_not() {
    let gone = FileIdentity {
        device: 1,
        inode: 2,
        links: 0,
    };
    let there = FileIdentity { links: 1, ..gone };
    let deleted = image("/usr/bin/x (deleted)".into(), Some(gone));
    assert_eq!(deleted.path, Path::new("/usr/bin/x"));
    assert_eq!(deleted.state, Some(ImageState::Deleted));
    let named_so = image("/tmp/x (deleted)".into(), Some(there));
    assert_eq!(named_so.path, Path::new("/tmp/x (deleted)"));
    assert_eq!(named_so.state, None);
    let memfd = image("/memfd:ssh-keygen (deleted)".into(), Some(gone));
    assert_eq!(memfd.state, Some(ImageState::Memfd));
}

#[test]
fn our_own_process_is_read_from_the_real_proc() {
    let proc = Proc::open(Path::new("/proc")).unwrap();
    let pid = nix::unistd::getpid().as_raw();
    let entry = proc.entry(pid).unwrap();
    let process = proc.snapshot(&entry).unwrap();
    assert_eq!(process.pid, pid);
    assert_eq!(entry.status().unwrap().process, pid);
    let mut image = process.image.unwrap();
    assert_eq!(image.path, std::env::current_exe().unwrap());
    place_image(
        &mut image,
        || entry.mount_namespace(),
        entry.mount_namespace(),
    );
    assert_eq!(image.state, Some(ImageState::Same));
    assert_eq!(
        process.credentials.unwrap().effective_user.id,
        nix::unistd::geteuid().as_raw()
    );
    assert_eq!(
        entry.args().unwrap(),
        std::env::args_os().collect::<Vec<_>>()
    );
    assert!(process.start.unwrap() <= SystemTime::now() + Duration::from_secs(1));
}

#[test]
fn without_openat2_a_path_is_looked_up_where_no_server_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().canonicalize().unwrap().join("program");
    std::fs::write(&file, "").unwrap();
    let local = |path: &Path| opened_identity(open_local(path)?.as_fd()).ok();
    let found = local(&file).unwrap();
    assert_eq!(Some(found), cached_identity(&file));
    let link = file.with_file_name("link");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    assert_eq!(local(&link), None, "a link is not what it leads to");
    assert_eq!(local(&file.with_file_name("none")), None);
    assert_eq!(local(Path::new("relative")), None);
    // A file system without a device that is not the host's own in memory.
    assert_eq!(local(Path::new("/proc/self/stat")), None);
}
