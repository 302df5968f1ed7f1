//! A host with many homes: how long the start takes, and how much memory.
//!
//! `SCALE_HOMES=10000 cargo test --release --test it scale -- --nocapture` prints the
//! figures of the program as it is shipped.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use ssh_keywatch::sys::ObjectId;
use ssh_keywatch::sys::fanotify::{NotificationGroup, PermissionGroup, mask};
use ssh_keywatch::sys::handle::FileSystem;
use ssh_keywatch::sys::stat::glance;

use nix::sys::signal::Signal;

use crate::host::{ANN, Host};
use crate::process::SOON;

const HOMES: usize = 900;
/// Files in each.
const FILES: usize = 5;

/// The processor time that a process has used (proc(5), ticks of 10 ms).
fn processor(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap().split(' ').collect();
    let ticks = |place: usize| fields[place].parse::<f64>().unwrap();
    (ticks(12) + ticks(13)) / 100.0
}

/// What can take no less time: the bare calls for the marks of these homes, and one
/// look at each file in them.
fn floor(host: &Host, homes: usize) -> Duration {
    let group = NotificationGroup::new().unwrap();
    let holds = PermissionGroup::new().unwrap();
    let names = mask::CREATE | mask::DELETE | mask::RENAME | mask::ONDIR;
    let files = names | mask::MODIFY | mask::CLOSE_WRITE | mask::EVENT_ON_CHILD;
    let begun = Instant::now();
    for home in 0..homes {
        let home = host.path(&format!("/home/user{home:05}"));
        let place = File::open(&home).unwrap();
        group.mark_directory(place.as_fd(), names).unwrap();
        let place = File::open(home.join(".ssh")).unwrap();
        group.mark_directory(place.as_fd(), files).unwrap();
        let hold = mask::OPEN_PERM | mask::EVENT_ON_CHILD;
        holds.mark_directory(place.as_fd(), hold).unwrap();
        let fsid = FileSystem::of(&place).unwrap().id;
        for entry in fs::read_dir(home.join(".ssh")).unwrap() {
            let name = entry.unwrap().file_name();
            ObjectId::at(place.as_fd(), &name, fsid).unwrap();
            glance(place.as_fd(), &CString::new(name.as_bytes()).unwrap()).unwrap();
            holds.ignore(place.as_fd(), &name).unwrap();
        }
    }
    begun.elapsed()
}

/// A fence is a number of records in the queue (`watch::fence`).
#[test]
fn the_kernel_counts_the_records_that_wait() {
    let host = Host::new();
    let mut buffer = vec![0; 4096];
    for files in [1, 7, 300] {
        let place = host.path(&format!("/home/counted{files}"));
        fs::create_dir(&place).unwrap();
        let group = NotificationGroup::new().unwrap();
        let dir = File::open(&place).unwrap();
        let names = mask::CREATE | mask::DELETE;
        group.mark_directory(dir.as_fd(), names).unwrap();
        assert_eq!(group.waiting().unwrap(), 0);
        // However long a record is.
        for number in 0..files {
            fs::write(place.join(format!("{number:0>255}")), "").unwrap();
        }
        let mut left = group.waiting().unwrap();
        assert_eq!(left, files);
        while left > 0 {
            left -= group.read(&mut buffer, drop).unwrap() as u64;
            assert_eq!(group.waiting().unwrap(), left);
        }
    }
}

#[test]
fn many_homes_are_watched_and_compared_in_little_memory() {
    let homes = std::env::var("SCALE_HOMES").map_or(HOMES, |homes| homes.parse().unwrap());
    let host = Host::new();
    let list = format!(
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDN10vUUA50jhaILXX640/rWaCKUnA11AsVZpZtbB9Nk {}\n",
        ANN.name
    );
    for home in 0..homes {
        let home = host.path(&format!("/home/user{home:05}/.ssh"));
        fs::create_dir_all(&home).unwrap();
        fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).unwrap();
        let texts = [
            ("authorized_keys", &*list),
            ("id_ed25519.pub", &*list),
            ("known_hosts", "host ssh-ed25519 AAAA\n"),
            ("id_ed25519", "-----BEGIN OPENSSH PRIVATE KEY-----\n"),
            ("config", "Host *\n"),
        ];
        assert_eq!(texts.len(), FILES);
        for (name, text) in texts {
            fs::write(home.join(name), text).unwrap();
        }
    }
    let floor = floor(&host, homes).as_secs_f64();
    println!("{homes} homes: the bare calls for marks and looks take {floor:.2} s");
    for (run, word) in [("first start", "took stock of"), ("next start", "compared")] {
        let begun = Instant::now();
        let daemon = host.daemon().start();
        let (ready, at_ready) = (begun.elapsed(), processor(daemon.pid()));
        let done = daemon.stderr.wait(SOON * 6, |lines| {
            let said = lines.iter().find(|line| line.contains(word));
            said.cloned()
        });
        let done = done.unwrap_or_else(|| panic!("{:#?}", daemon.stderr.so_far()));
        let files = format!("{} files", homes * FILES);
        assert!(done.contains(&files), "{done}");
        let (compared, at_end) = (begun.elapsed(), processor(daemon.pid()));
        let of = |name| daemon.status(name);
        // What was taken for the comparison is given back right after it has been told.
        let bound = 10 * 1024 + homes as u64 * 3 / 2;
        let until = Instant::now() + SOON;
        while of("RssAnon") >= bound && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        let (peak, now, anonymous) = (of("VmHWM"), of("VmRSS"), of("RssAnon"));
        println!(
            "{run} with {homes} homes: ready after {:.2} s ({at_ready:.2} s of processor), compared \
             after {:.2} s ({at_end:.2} s; {:.1} times the bare calls); resident {now} KiB, {peak} \
             KiB at most (VmRSS and VmHWM: {anonymous} KiB its own, the rest code that others may \
             share)",
            ready.as_secs_f64(),
            compared.as_secs_f64(),
            compared.as_secs_f64() / floor,
        );
        // More than get their marks before it is ready.
        if homes * FILES > 4096 {
            let free = daemon.stderr.wait(SOON, |lines| {
                let said = lines
                    .iter()
                    .find(|line| line.contains("every file that was there is identified"));
                said.cloned()
            });
            assert!(free.is_some(), "{:#?}", daemon.stderr.so_far());
            daemon.signal(Signal::SIGSTOP);
            let read = host
                .command("sh")
                .args(["-c", "cat /home/user*/.ssh/* | wc -l"])
                .output_within(SOON);
            daemon.signal(Signal::SIGCONT);
            assert_eq!(read.stdout.trim(), (homes * FILES).to_string(), "{read:?}");
        }
        // A program that is not optimised is large; each home costs little.
        assert!(peak < 64 * 1024 + 2 * homes as u64, "{peak} KiB at most");
        assert!(anonymous < bound, "{anonymous} KiB for {homes} homes");
        daemon.stop().assert_nothing_lost();
    }
}
