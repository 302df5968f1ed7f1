//! Sessions in a `/proc` and a logind that are made up.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::resolve::proc::Proc;
use crate::resolve::{Credentials, Image, ImageState, Method};

/// A `/proc` of files, logind's directory and a place for wtmp.
struct Host {
    dir: TempDir,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("proc")).unwrap();
        fs::create_dir_all(dir.path().join("sessions")).unwrap();
        fs::write(dir.path().join("proc/stat"), "btime 1790000000\n").unwrap();
        Self { dir }
    }

    fn sessions(&self) -> Sessions {
        let proc = Arc::new(Proc::open(&self.dir.path().join("proc")).unwrap());
        let path = |name: &str| self.dir.path().join(name);
        let clients = Clients::start(proc).unwrap();
        let records = Records {
            logind: path("sessions"),
            wtmp: path("wtmp"),
            wtmpdb: vec![path("wtmp.db")],
            lastlog: path("lastlog"),
            lastlog2: path("lastlog2.db"),
        };
        Sessions::at(clients, records).unwrap()
    }

    /// A process with sockets of these inodes.
    fn process(&self, pid: i32, start: u64, sockets: &[u64], table: &str) {
        let dir = self.dir.path().join(format!("proc/{pid}"));
        fs::create_dir_all(dir.join("fd")).unwrap();
        fs::create_dir_all(dir.join("net")).unwrap();
        let zeros = "0 ".repeat(13);
        let stat = format!("{pid} (sshd) S 1 {pid} {pid} 0 -1 {zeros}{start} 0\n");
        fs::write(dir.join("stat"), stat).unwrap();
        let _ = symlink("/dev/null", dir.join("fd/0"));
        for (fd, inode) in (3..).zip(sockets) {
            symlink(format!("socket:[{inode}]"), dir.join(format!("fd/{fd}"))).unwrap();
        }
        fs::write(dir.join("net/tcp"), table).unwrap();
    }
}

const HEADING: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

/// A line of `/proc/net/tcp` on a machine of either byte order.
fn line(local: ([u8; 4], u16), remote: ([u8; 4], u16), state: &str, inode: u64) -> String {
    let end = |(ip, port): ([u8; 4], u16)| format!("{:08X}:{port:04X}", u32::from_ne_bytes(ip));
    let (local, remote) = (end(local), end(remote));
    format!(
        "   0: {local} {remote} {state} 00000000:00000000 00:00000000 00000000     0        0 {inode} 1\n"
    )
}

/// Real processes have pids below 2^22, except that of init.
const FAR: i32 = 1 << 23;

fn process(pid: i32, path: &str, uid: u32) -> Process {
    let pid = if pid == 1 { 1 } else { FAR + pid };
    let account = Account {
        id: uid,
        name: None,
    };
    Process {
        parent_pid: Some(if pid == FAR + 2 { 1 } else { pid - 1 }),
        start_ticks: Some(100),
        image: Some(Image {
            path: path.into(),
            device: Some(1),
            inode: Some(2),
            generation: None,
            state: Some(ImageState::Same),
        }),
        credentials: Some(Credentials {
            real_user: account.clone(),
            effective_user: account.clone(),
            real_group: account.clone(),
            effective_group: account,
        }),
        ..Process::unknown(pid)
    }
}

fn writer(mut processes: Vec<Process>) -> Attribution {
    let ancestors = processes.split_off(1);
    Attribution {
        method: Method::Held,
        certain: true,
        process: processes.pop(),
        ancestors,
        candidates: Vec::new(),
        program: crate::resolve::ProgramFacts::default(),
    }
}

fn over_ssh() -> Attribution {
    writer(vec![
        process(8, "/usr/bin/ssh-keygen", 1000),
        process(7, "/usr/bin/sudo", 0),
        process(6, "/usr/bin/bash", 1001),
        process(5, "/usr/sbin/sshd", 1001),
        process(4, "/usr/sbin/sshd", 0),
        process(3, "/usr/sbin/sshd", 0),
        process(2, "/usr/bin/x", 0),
        process(1, "/usr/lib/systemd/systemd", 0),
    ])
}

#[test]
fn a_session_over_ssh_is_read_once() {
    let host = Host::new();
    let client = line(([10, 0, 0, 1], 2222), ([10, 1, 2, 3], 50_000), "01", 70);
    let other = line(([10, 0, 0, 1], 2222), ([10, 1, 2, 4], 50_001), "01", 71);
    let listener = line(([0; 4], 2222), ([0; 4], 0), "0A", 60);
    let table = format!("{HEADING}{listener}{other}{client}");
    host.process(FAR + 4, 100, &[70], &table);
    host.process(FAR + 3, 100, &[60], &table);
    let mut sessions = host.sessions();
    let expected = Session {
        kind: Some(Kind::Ssh),
        leader: Some(process(6, "/usr/bin/bash", 1001)),
        through: vec!["sudo".to_owned()],
        placement: Placement::default(),
        login: Some((
            Account {
                id: 1001,
                name: None,
            },
            LoginFrom::Sshd,
        )),
        source: Some(Source {
            ip: [10, 1, 2, 3].into(),
            port: Some(50_000),
            from: SourceFrom::Socket,
        }),
    };
    assert_eq!(sessions.of(&over_ssh()), expected);
    // The client has gone, and with it the socket's line.
    fs::write(
        host.dir.path().join(format!("proc/{}/net/tcp", FAR + 4)),
        HEADING,
    )
    .unwrap();
    assert_eq!(sessions.of(&over_ssh()), expected);

    // Another sshd has got the pid.
    let mut later = over_ssh();
    later.ancestors[3].start_ticks = Some(101);
    assert_eq!(sessions.of(&later).source, None);

    // The audit system knows who logged in also where sshd is not asked.
    let mut audited = over_ssh();
    audited.process.as_mut().unwrap().login_uid = Some(1002);
    let login = sessions.of(&audited).login.unwrap();
    assert_eq!((login.0.id, login.1), (1002, LoginFrom::Audit));
}

#[test]
fn what_sshd_left_behind_is_known_to_logind() {
    let host = Host::new();
    let mut sessions = host.sessions();
    let state = "USER=bob\nSERVICE=sshd\nREMOTE_HOST=::ffff:10.1.2.3\n";
    fs::write(host.dir.path().join("sessions/4"), state).unwrap();
    let mut orphan = writer(vec![
        process(3, "/usr/bin/ssh-keygen", 1001),
        process(2, "/usr/bin/tmux", 1001),
        process(1, "/usr/lib/systemd/systemd", 0),
    ]);
    let asked = sessions.of(&orphan);
    assert_eq!((asked.kind, asked.source), (Some(Kind::Init), None));
    let known = Some(Source {
        ip: [10, 1, 2, 3].into(),
        port: None,
        from: SourceFrom::Logind,
    });
    let process = orphan.process.as_mut().unwrap();
    process.audit_session = Some(4);
    let asked = sessions.of(&orphan);
    assert_eq!(asked.source, known, "by the audit id");
    assert_eq!((asked.kind, asked.leader), (Some(Kind::Ssh), None));
    let process = orphan.process.as_mut().unwrap();
    process.audit_session = None;
    process.cgroup = Some(b"0::/user.slice/user-1001.slice/session-4.scope".to_vec());
    let asked = sessions.of(&orphan);
    assert_eq!(asked.source, known, "by the control group");
    // A service is no login, whatever id it once had.
    let process = orphan.process.as_mut().unwrap();
    process.audit_session = Some(4);
    process.cgroup = Some(b"0::/system.slice/backup.service".to_vec());
    let asked = sessions.of(&orphan);
    assert_eq!((asked.kind, asked.source), (Some(Kind::Unit), None));
    // logind may know a host by name only.
    let state = "SERVICE=sshd\nREMOTE_HOST=client.example.org\n";
    fs::write(host.dir.path().join("sessions/4"), state).unwrap();
    let process = orphan.process.as_mut().unwrap();
    process.cgroup = None;
    let asked = sessions.of(&orphan);
    assert_eq!((asked.kind, asked.source), (Some(Kind::Ssh), None));
}

#[test]
fn a_container_is_one_whose_shim_is_not_known() {
    let host = Host::new();
    let mut sessions = host.sessions();
    let cgroup = format!(
        "0::/system.slice/docker-{}.scope",
        "0123456789abcdef".repeat(4)
    );
    let mut contained = |mut writer: Attribution| {
        let process = writer.process.as_mut().unwrap();
        process.cgroup = Some(cgroup.clone().into_bytes());
        sessions.of(&writer).kind
    };
    let keygen = || process(3, "/usr/bin/ssh-keygen", 0);
    let init = process(1, "/usr/lib/systemd/systemd", 0);
    // Its shim has ended, or what joined it began elsewhere.
    let adopted = writer(vec![keygen(), process(2, "/bin/sh", 0), init]);
    assert_eq!(contained(adopted), Some(Kind::Container));
    let joined = writer(vec![keygen(), process(2, "/bin/sh", 0)]);
    assert_eq!(contained(joined), Some(Kind::Container));
    // Who came in by the sshd of a container came in by an sshd.
    assert_eq!(contained(over_ssh()), Some(Kind::Ssh));
}

#[test]
fn a_control_group_is_read_of_the_same_process_and_program_only() {
    let host = Host::new();
    host.process(FAR + 8, 100, &[], HEADING);
    let path = host.dir.path().join(format!("proc/{}/cgroup", FAR + 8));
    fs::write(path, "0::/system.slice/backup.service\n").unwrap();
    let program = std::env::current_exe().unwrap();
    let exe = host.dir.path().join(format!("proc/{}/exe", FAR + 8));
    symlink(&program, exe).unwrap();
    let program = fs::metadata(program).unwrap();
    let mut sessions = host.sessions();
    let unit = |sessions: &mut Sessions, start, inode| {
        let mut writer = over_ssh();
        let process = writer.process.as_mut().unwrap();
        process.start_ticks = start;
        let image = process.image.as_mut().unwrap();
        (image.device, image.inode) = (Some(program.dev()), Some(inode));
        sessions.of(&writer).placement.unit
    };
    let expected = Some("backup.service".to_owned());
    let own = program.ino();
    assert_eq!(unit(&mut sessions, Some(100), own), expected);
    assert_eq!(unit(&mut sessions, Some(99), own), None);
    assert_eq!(unit(&mut sessions, None, own), None);
    // Whatever it runs since may have opened a session.
    assert_eq!(unit(&mut sessions, Some(100), own + 1), None);
}

#[test]
fn what_is_remembered_is_bounded() {
    let host = Host::new();
    let mut sessions = host.sessions();
    for user in 0..2000 {
        sessions.logins(&format!("u{user}"), 1, SystemTime::now());
    }
    assert!(sessions.logins.len() <= MAX_KEPT);
}

#[test]
fn nobody_has_no_session() {
    let mut sessions = Host::new().sessions();
    assert_eq!(sessions.of(&Attribution::none()), Session::default());
}
