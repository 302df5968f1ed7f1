//! What let somebody in, by lineages that are made up.

use super::*;
use crate::resolve::{Account, Credentials, Image, ImageState, Method};

const ROOT: u32 = 0;
const ANN: u32 = 1000;
const BOB: u32 = 1001;

/// Programs with the user they run as, the writer first; the last one is pid 1.
fn lineage(programs: &[(&str, u32)]) -> Attribution {
    let count = i32::try_from(programs.len()).unwrap();
    let mut processes: Vec<Process> = programs
        .iter()
        .zip((1..=count).rev())
        .map(|((path, uid), pid)| {
            let account = Account {
                id: *uid,
                name: None,
            };
            Process {
                image: Some(Image {
                    path: path.into(),
                    device: Some(1),
                    inode: Some(2),
                    generation: None,
                    state: Some(ImageState::Same),
                }),
                parent_pid: Some(pid - 1),
                credentials: Some(Credentials {
                    real_user: account.clone(),
                    effective_user: account.clone(),
                    real_group: account.clone(),
                    effective_group: account,
                }),
                ..Process::unknown(pid)
            }
        })
        .collect();
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

const INIT: (&str, u32) = ("/usr/lib/systemd/systemd", ROOT);

fn placed(path: &str) -> Placement {
    Placement::parse(format!("0::{path}").as_bytes())
}

/// Kind, the leader's index (0 is the writer), the gate's length, and the
/// names of what it went through.
fn found(programs: &[(&str, u32)], cgroup: &str) -> Option<(Kind, usize, usize, Vec<String>)> {
    let writer = lineage(programs);
    let entry = entry(&writer, &placed(cgroup))?;
    let leader = programs.len() - usize::try_from(entry.leader.pid).unwrap();
    let through = entry.through.iter().map(|process| name(process).unwrap());
    Some((
        entry.kind,
        leader,
        entry.gate.len(),
        through.map(str::to_owned).collect(),
    ))
}

#[test]
fn a_login_over_ssh_with_sudo() {
    for (sshd, monitor) in [
        ("/usr/sbin/sshd", "/usr/sbin/sshd"),
        ("/usr/lib/openssh/sshd-session", "/usr/sbin/sshd"),
        ("/usr/libexec/openssh/sshd-session", "/usr/sbin/sshd"),
    ] {
        let programs = [
            ("/usr/bin/ssh-keygen", ANN),
            ("/usr/bin/dash", ANN),
            ("/usr/bin/sudo", ROOT),
            ("/usr/bin/bash", BOB),
            (sshd, BOB),
            (sshd, ROOT),
            (monitor, ROOT),
            INIT,
        ];
        let session = "/user.slice/user-1001.slice/session-4.scope";
        assert_eq!(
            found(&programs, session),
            Some((Kind::Ssh, 3, 3, vec!["sudo".into()]))
        );
    }
    // Root's own login has one process of sshd less; `sshd -i` has no listener.
    let programs = [
        ("/usr/bin/ssh-keygen", ROOT),
        ("/usr/sbin/sshd", ROOT),
        INIT,
    ];
    assert_eq!(found(&programs, "/"), Some((Kind::Ssh, 0, 1, vec![])));
    // The innermost session counts.
    let programs = [
        ("/usr/bin/ssh-keygen", ANN),
        ("/usr/sbin/sshd", ANN),
        ("/usr/sbin/sshd", ROOT),
        ("/usr/bin/ssh", BOB),
        ("/usr/sbin/sshd", BOB),
        ("/usr/sbin/sshd", ROOT),
        INIT,
    ];
    assert_eq!(found(&programs, "/"), Some((Kind::Ssh, 0, 2, vec![])));
}

#[test]
fn nobody_makes_a_session_by_a_name() {
    let session = "/user.slice/user-1001.slice/session-4.scope";
    let programs = [
        ("/usr/bin/ssh-keygen", BOB),
        ("/home/bob/sshd", BOB),
        ("/home/bob/sudo", BOB),
        ("/usr/bin/bash", BOB),
        ("/usr/sbin/sshd", BOB),
        ("/usr/sbin/sshd", ROOT),
        INIT,
    ];
    assert_eq!(found(&programs, session), Some((Kind::Ssh, 3, 2, vec![])));
    let programs = [("/usr/bin/ssh-keygen", BOB), ("/home/bob/cron", BOB), INIT];
    assert_eq!(found(&programs, session), Some((Kind::Init, 1, 1, vec![])));
    // What has ended has no ids: the place of the program must do, and who made it.
    let mut writer = lineage(&programs);
    writer.ancestors[0].credentials = None;
    assert_eq!(entry(&writer, &placed("/")).unwrap().kind, Kind::Init);
    let image = writer.ancestors[0].image.as_mut().unwrap();
    image.path = "/usr/sbin/cron".into();
    assert_eq!(entry(&writer, &placed("/")).unwrap().kind, Kind::Cron);
    let image = writer.ancestors[0].image.as_mut().unwrap();
    image.state = Some(ImageState::Foreign);
    assert_eq!(entry(&writer, &placed("/")).unwrap().kind, Kind::Init);
    // Anybody can run the installed ones, with a library of his own.
    let keygen = ("/usr/bin/ssh-keygen", BOB);
    let (cron, sudo) = (("/usr/sbin/cron", ROOT), ("/usr/bin/sudo", ROOT));
    let bash = ("/usr/bin/bash", BOB);
    for (programs, ended, kind, through) in [
        (vec![keygen, cron, cron, INIT], 2, Kind::Cron, 0),
        (vec![keygen, cron, cron, bash, INIT], 2, Kind::Init, 0),
        (vec![keygen, cron, bash, cron, INIT], 2, Kind::Cron, 0),
        (vec![keygen, cron, bash, cron, INIT], 3, Kind::Cron, 0),
        (vec![keygen, sudo, bash, cron, INIT], 0, Kind::Cron, 1),
        (vec![keygen, sudo, bash, cron, INIT], 1, Kind::Cron, 0),
    ] {
        let mut writer = lineage(&programs);
        for ancestor in &mut writer.ancestors[..ended] {
            ancestor.credentials = None;
        }
        let found = entry(&writer, &placed("/")).unwrap();
        let shown = format!("{programs:?}, {ended} ended");
        assert_eq!(
            (found.kind, found.through.len()),
            (kind, through),
            "{shown}"
        );
    }
}

#[test]
fn what_comes_in_without_a_login() {
    let keygen = ("/usr/bin/ssh-keygen", ROOT);
    let sh = ("/usr/bin/dash", ROOT);
    let user = "/user.slice/user-1000.slice/user@1000.service/app.slice/key.service";
    for (programs, cgroup, kind, leader) in [
        // cron runs a job in a child of its own.
        (
            vec![
                keygen,
                sh,
                ("/usr/sbin/cron", ROOT),
                ("/usr/sbin/cron", ROOT),
                INIT,
            ],
            "/system.slice/cron.service",
            Kind::Cron,
            1,
        ),
        (
            vec![keygen, sh, ("/usr/sbin/atd", ROOT), INIT],
            "/system.slice/atd.service",
            Kind::At,
            1,
        ),
        (
            vec![keygen, sh, INIT],
            "/system.slice/backup.service",
            Kind::Unit,
            1,
        ),
        (
            vec![keygen, INIT],
            "/system.slice/backup.service",
            Kind::Unit,
            0,
        ),
        (vec![keygen, INIT], "/init.scope", Kind::Init, 0),
        (
            vec![keygen, ("/usr/lib/systemd/systemd", ANN), INIT],
            user,
            Kind::UserUnit,
            0,
        ),
        (
            vec![keygen, sh, ("/usr/bin/containerd-shim-runc-v2", ROOT), INIT],
            "/system.slice",
            Kind::Container,
            1,
        ),
        (
            vec![keygen, sh, ("/usr/bin/conmon", ROOT), INIT],
            "/",
            Kind::Container,
            1,
        ),
        (
            vec![keygen, sh, ("/snap/bin/ssm-session-worker", ROOT), INIT],
            "/",
            Kind::Ssm,
            1,
        ),
    ] {
        let found = found(&programs, cgroup).unwrap();
        assert_eq!((found.0, found.1), (kind, leader), "{programs:?}");
    }
}

/// While it waits, its effective user is the one whose jobs it keeps.
#[test]
fn atd_is_known_by_its_real_user() {
    const DAEMON: u32 = 1;
    let programs = [
        ("/usr/bin/ssh-keygen", ANN),
        ("/usr/bin/dash", ANN),
        ("/usr/sbin/atd", DAEMON),
        ("/usr/sbin/atd", DAEMON),
        INIT,
    ];
    let mut writer = lineage(&programs);
    let unit = placed("/system.slice/atd.service");
    assert_eq!(entry(&writer, &unit).unwrap().kind, Kind::Unit);
    for atd in &mut writer.ancestors[1..3] {
        atd.credentials.as_mut().unwrap().real_user.id = ROOT;
    }
    let entry = entry(&writer, &unit).unwrap();
    assert_eq!(entry.kind, Kind::At);
    assert_eq!(name(entry.leader), Some("dash"));
}

#[test]
fn a_login_at_a_console_or_a_line() {
    let mut writer = lineage(&[
        ("/usr/bin/ssh-keygen", ANN),
        ("/usr/bin/bash", ANN),
        ("/usr/bin/login", ROOT),
        INIT,
    ]);
    for (tty, kind) in [
        (Some((4, 1)), Kind::Console),
        (Some((4, 64)), Kind::Terminal),
        (Some((229, 0)), Kind::Terminal),
        (None, Kind::Terminal),
    ] {
        writer.ancestors[0].tty = tty;
        let entry = entry(&writer, &Placement::default()).unwrap();
        assert_eq!(entry.kind, kind);
        assert_eq!(name(entry.leader), Some("bash"));
    }
}

#[test]
fn a_lineage_that_ends_too_early_has_no_entry() {
    let mut writer = lineage(&[
        ("/usr/bin/ssh-keygen", ANN),
        ("/usr/bin/bash", ANN),
        ("/usr/bin/login", ROOT),
        INIT,
    ]);
    writer.process.as_mut().unwrap().parent_pid = Some(77);
    assert_eq!(entry(&writer, &Placement::default()), None, "a gap");
    writer.ancestors.truncate(1);
    writer.process.as_mut().unwrap().parent_pid = Some(3);
    assert_eq!(entry(&writer, &Placement::default()), None);
    writer.ancestors.clear();
    assert_eq!(entry(&writer, &Placement::default()), None);
    writer.process = None;
    assert_eq!(entry(&writer, &Placement::default()), None);
}
