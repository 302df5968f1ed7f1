//! Landlock domains, tried by threads in them.

use std::fs;
use std::io::ErrorKind;

use tempfile::tempdir;

use super::*;

#[test]
fn writes_stay_within_the_places_and_reads_go_everywhere() {
    let (inside, outside) = (tempdir().unwrap(), tempdir().unwrap());
    let place = inside.path().to_owned();
    let there = outside.path().join("there");
    fs::write(&there, "read me").unwrap();
    let kernel_has_it = restrict_status();
    assert!(
        kernel_has_it,
        "this kernel has no landlock, with which nothing is tried here"
    );
    let denied = |result: io::Result<()>| {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    };
    within(std::slice::from_ref(&place.clone()), || {
        // A thread that is started within, as those of the sinks are.
        let thread = thread::spawn(move || {
            fs::write(place.join("log"), "line").unwrap();
            fs::rename(place.join("log"), place.join("log.1")).unwrap();
            fs::create_dir(place.join("directory")).unwrap();
            fs::remove_dir(place.join("directory")).unwrap();
            assert_eq!(fs::read_to_string(&there).unwrap(), "read me");
            denied(fs::write(&there, "overwritten"));
            denied(fs::remove_file(&there));
            denied(fs::create_dir(there.with_file_name("new")));
            denied(fs::rename(
                place.join("log.1"),
                there.with_file_name("moved"),
            ));
            // By a link as well.
            std::os::unix::fs::symlink(&there, place.join("link")).unwrap();
            denied(fs::write(place.join("link"), "overwritten"));
            there
        });
        let there = thread.join().unwrap();
        assert_eq!(fs::read_to_string(there).unwrap(), "read me");
    })
    .unwrap();
    fs::write(outside.path().join("after"), "the caller is free").unwrap();
}

/// Whether a domain comes about, on a thread that ends with it.
fn restrict_status() -> bool {
    let status = thread::spawn(|| restrict(&[]).unwrap()).join().unwrap();
    status != RulesetStatus::NotEnforced
}

#[test]
fn a_logs_directory_may_be_made_again() {
    let above = tempdir().unwrap();
    let (directory, link) = (above.path().join("logs"), above.path().join("link"));
    fs::create_dir(&directory).unwrap();
    let elsewhere = tempdir().unwrap();
    std::os::unix::fs::symlink(&directory, elsewhere.path().join("link")).unwrap();
    for log in [
        directory.join("alerts"),
        elsewhere.path().join("link/alerts"),
    ] {
        within(&log_places(&log), || {
            fs::write(&log, "line").unwrap();
            fs::remove_dir_all(&directory).unwrap();
            fs::create_dir(&directory).unwrap();
            fs::write(&log, "line").unwrap();
            fs::write(&link, "beside").unwrap();
            fs::write(elsewhere.path().join("other"), "").unwrap_err();
        })
        .unwrap();
    }
}
