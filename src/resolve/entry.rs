//! How a lineage came onto the host: the entry leader and its kind.
//!
//! Owns the names of the programs that let somebody or something in. Pure. A
//! program is taken for such a one only if root runs it, for everybody can name
//! a program of their own `sshd`.

use std::path::Path;

use super::unit::Placement;
use super::{Attribution, Process};

/// What let a lineage in (`ssh_keywatch.session.kind`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A login over SSH.
    Ssh,
    /// A login at a serial or other line.
    Terminal,
    /// A login at a virtual console.
    Console,
    /// A job of cron.
    Cron,
    /// A job of at(1).
    At,
    /// A unit of systemd.
    Unit,
    /// A unit of a user's own service manager.
    UserUnit,
    /// A container.
    Container,
    /// A session of the AWS SSM agent.
    Ssm,
    /// A session of Teleport.
    Teleport,
    /// Kubernetes' agent.
    Kubelet,
    /// Init itself started it, and no unit is known.
    Init,
}

impl Kind {
    /// The value of `ssh_keywatch.session.kind`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ssh => "ssh",
            Self::Terminal => "terminal",
            Self::Console => "console",
            Self::Cron => "cron",
            Self::At => "at",
            Self::Unit => "unit",
            Self::UserUnit => "user_unit",
            Self::Container => "container",
            Self::Ssm => "ssm",
            Self::Teleport => "teleport",
            Self::Kubelet => "kubelet",
            Self::Init => "init",
        }
    }

    /// The value of `process.entry_leader.entry_meta.type`, for which ECS knows
    /// init, sshd, ssm, kubelet, teleport, terminal and console.
    #[must_use]
    pub fn entry_type(self) -> Option<&'static str> {
        match self {
            Self::Ssh => Some("sshd"),
            Self::Terminal => Some("terminal"),
            Self::Console => Some("console"),
            Self::Ssm => Some("ssm"),
            Self::Teleport => Some("teleport"),
            Self::Kubelet => Some("kubelet"),
            Self::Cron | Self::At | Self::Unit | Self::UserUnit | Self::Init => Some("init"),
            Self::Container => None,
        }
    }
}

/// How a lineage came onto the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// By what.
    pub kind: Kind,
    /// The first process of what came in.
    pub leader: &'a Process,
    /// The programs that let it in, nearest first: of an SSH session the
    /// process with the user's ids before the one with root's.
    pub gate: &'a [Process],
    /// Programs on the way from the leader to the writer that gave it another
    /// user's ids, in the order they were run.
    pub through: Vec<&'a Process>,
}

/// Programs that let in, by the last component of their path.
fn gate(name: &str) -> Option<Kind> {
    Some(match name {
        // sshd-session and sshd-auth since OpenSSH 9.8 and 10.0.
        "sshd" | "sshd-session" | "sshd-auth" | "dropbear" => Kind::Ssh,
        "cron" | "crond" | "anacron" | "fcron" => Kind::Cron,
        "atd" => Kind::At,
        "login" => Kind::Terminal,
        "ssm-session-worker" => Kind::Ssm,
        "teleport" => Kind::Teleport,
        "kubelet" => Kind::Kubelet,
        "conmon" | "lxc-start" | "systemd-nspawn" => Kind::Container,
        name if name.starts_with("containerd-shim") => Kind::Container,
        _ => return None,
    })
}

/// Whether a program serves SSH, by the last component of its path.
pub(super) fn is_sshd(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    // The kernel adds it when the program was upgraded meanwhile.
    let name = name.map(|name| name.strip_suffix(" (deleted)").unwrap_or(name));
    name.and_then(gate) == Some(Kind::Ssh)
}

/// Programs that give another user's ids to what they run.
const THROUGH: [&str; 6] = ["sudo", "su", "runuser", "doas", "pkexec", "run0"];

/// How the writer's lineage came onto the host, if it is known that far.
#[must_use]
pub fn entry<'a>(writer: &'a Attribution, placement: &Placement) -> Option<Entry<'a>> {
    let process = writer.process.as_ref()?;
    let ancestors = writer.ancestors.as_slice();
    // A gap: who stands behind it made the process that is not known.
    if let Some(nearest) = ancestors.first()
        && process.parent_pid.is_some_and(|pid| pid != nearest.pid)
    {
        return None;
    }
    let at = |index: usize| match index {
        0 => process,
        _ => &ancestors[index - 1],
    };
    for index in 1..=ancestors.len() {
        let ancestor = at(index);
        let Some(mut kind) = kind_of(&ancestors[index - 1..], placement) else {
            continue;
        };
        // A session's sshd has the user's ids, and is the same program.
        let mut leader = index - 1;
        while leader > 0 && is_same_gate(at(leader), ancestor, kind) {
            leader -= 1;
        }
        let leader_process = at(leader);
        if kind == Kind::Terminal && is_console(leader_process.tty.or(ancestor.tty)) {
            kind = Kind::Console;
        }
        let mut through: Vec<_> = (0..=leader)
            .map(at)
            .filter(|process| is_roots(process) && is_named(process, &THROUGH))
            .collect();
        through.reverse();
        let gate = ancestors[leader..]
            .iter()
            .take_while(|process| *process == ancestor || is_same_gate(process, ancestor, kind));
        return Some(Entry {
            kind,
            leader: leader_process,
            gate: &ancestors[leader..leader + gate.count()],
            through,
        });
    }
    None
}

/// What the first of a lineage lets in, if it is such a one.
fn kind_of(lineage: &[Process], placement: &Placement) -> Option<Kind> {
    let process = lineage.first()?;
    if process.pid == 1 {
        return Some(if placement.is_service() {
            Kind::Unit
        } else {
            Kind::Init
        });
    }
    let name = name(process)?;
    if let Some(kind) = gate(name)
        && is_run_by_root(lineage)
    {
        return Some(kind);
    }
    let manages = name == "systemd"
        && placement.user_unit.is_some()
        && ["/lib/systemd", "/usr/lib/systemd"]
            .iter()
            .any(|directory| directory_of(process) == Some(Path::new(directory)));
    manages.then_some(Kind::UserUnit)
}

fn is_same_gate(process: &Process, gate_process: &Process, kind: Kind) -> bool {
    name(process).and_then(gate) == Some(kind)
        && directory_of(process) == directory_of(gate_process)
        || kind == Kind::Ssh && is_split_sshd(process) && is_split_sshd(gate_process)
}

/// `/usr/sbin/sshd` and its `/usr/lib/openssh/sshd-session`.
fn is_split_sshd(process: &Process) -> bool {
    name(process).is_some_and(|name| name.starts_with("sshd"))
        && directory_of(process).is_some_and(|directory| directory.starts_with("/usr"))
}

fn is_named(process: &Process, names: &[&str]) -> bool {
    name(process).is_some_and(|name| names.contains(&name))
}

fn name(process: &Process) -> Option<&str> {
    process.image.as_ref()?.path.file_name()?.to_str()
}

fn directory_of(process: &Process) -> Option<&Path> {
    process.image.as_ref()?.path.parent()
}

/// What has ended has no ids any more. Everybody can run the installed `cron`, and have it do
/// what he likes (`LD_PRELOAD`): it is taken for one of root's where root's made it, or
/// another of these that is one.
fn is_run_by_root(lineage: &[Process]) -> bool {
    let Some((process, above)) = lineage.split_first() else {
        return false;
    };
    if process.credentials.is_some() {
        return is_roots(process);
    }
    let is_made_by_root = above.first().is_some_and(|maker| {
        is_roots(maker) || name(maker).and_then(gate).is_some() && is_run_by_root(above)
    });
    is_made_by_root && is_installed(process)
}

/// Whether its ids are known, and root's are among them.
fn is_roots(process: &Process) -> bool {
    process.credentials.as_ref().is_some_and(|credentials| {
        // atd lays the effective id of root down for as long as it waits.
        let ids = [&credentials.effective_user, &credentials.real_user];
        ids.iter().any(|user| user.id == 0)
    })
}

/// Whether its program is one for all.
fn is_installed(process: &Process) -> bool {
    let image = process.image.as_ref();
    let is_here = image.is_some_and(|image| image.state == Some(super::ImageState::Same));
    let system = [
        "/usr/sbin",
        "/usr/bin",
        "/usr/lib",
        "/usr/libexec",
        "/sbin",
        "/bin",
    ];
    is_here
        && directory_of(process)
            .is_some_and(|directory| system.iter().any(|system| directory.starts_with(system)))
}

/// tty1 to tty63 (Documentation/admin-guide/devices.txt).
fn is_console(tty: Option<(u32, u32)>) -> bool {
    matches!(tty, Some((4, 0..64)))
}

#[cfg(test)]
mod tests;
