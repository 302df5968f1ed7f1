//! What a process's control group says: systemd unit, login session, container.
//!
//! Owns the paths that systemd and container engines give to control groups
//! (`proc_pid_cgroup(5)`, `cgroups(7)`). Pure. A path is evidence of who placed the
//! process, root as a rule; below their own `user@.service` users name groups
//! as they like.

/// How long a container's id may be.
const MAX_ID: usize = 128;

/// Where a process is placed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// The systemd unit, such as `cron.service` or `session-3.scope`.
    pub unit: Option<String>,
    /// The innermost slice that the unit, or else the process, is in.
    pub slice: Option<String>,
    /// The unit of a user's own service manager (`user@.service`).
    pub user_unit: Option<String>,
    /// systemd-logind's id of the login session.
    pub logind: Option<String>,
    /// The container.
    pub container: Option<Container>,
}

/// A container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// What the engine calls it by: 64 hexadecimal digits, or a name.
    pub id: String,
    /// The engine (`container.runtime`), where the path names it.
    pub runtime: Option<&'static str>,
}

impl Placement {
    /// Reads the text of `/proc/PID/cgroup`.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        let text = String::from_utf8_lossy(text);
        // `0::` is version 2; where both are mounted, systemd's own hierarchy
        // of version 1 has what version 2 may not.
        let mut main = None;
        let mut container = None;
        for line in text.lines() {
            let mut fields = line.splitn(3, ':');
            let (Some(number), Some(controllers), Some(path)) =
                (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            let path = path.strip_suffix(" (deleted)").unwrap_or(path);
            let is_named = controllers == "name=systemd";
            if is_named || (number == "0" && main.is_none()) {
                main = Some(path);
            }
            // A container has a group in every hierarchy, or in this one alone.
            if container.is_none() {
                container = Container::of(path);
            }
        }
        let mut placement = main.map(Self::of_path).unwrap_or_default();
        placement.container = container;
        placement
    }

    /// What systemd's `cg_path_get_unit()` and its like make of a path.
    fn of_path(path: &str) -> Self {
        let mut placement = Self::default();
        let mut names = path
            .split('/')
            .filter(|name| !name.is_empty())
            .map(unescape);
        let Some(unit) = placement.past_slices(&mut names) else {
            return placement;
        };
        if !is_unit(unit) {
            return placement;
        }
        placement.unit = Some(unit.to_owned());
        placement.logind = session(unit).map(str::to_owned);
        if unit.starts_with("user@") && unit.ends_with(".service") {
            let own = placement.past_slices(&mut names);
            placement.user_unit = own.filter(|name| is_unit(name)).map(str::to_owned);
        }
        placement
    }

    /// The first name that is no slice.
    fn past_slices<'p>(&mut self, names: &mut impl Iterator<Item = &'p str>) -> Option<&'p str> {
        for name in names {
            if !is_of(name, "slice") {
                return Some(name);
            }
            self.slice = Some(name.to_owned());
        }
        None
    }

    /// Whether the unit is a service of the host, so that it says more than
    /// that somebody is logged in or that the host runs.
    #[must_use]
    pub fn is_service(&self) -> bool {
        self.unit.as_ref().is_some_and(|unit| {
            self.logind.is_none() && unit != "init.scope" && !unit.starts_with("user@")
        })
    }
}

/// systemd puts `_` before what could be taken for a file of the kernel's.
fn unescape(name: &str) -> &str {
    name.strip_prefix('_').unwrap_or(name)
}

/// `session-3.scope` is logind's session 3.
fn session(unit: &str) -> Option<&str> {
    let id = unit.strip_prefix("session-")?.strip_suffix(".scope")?;
    (!id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric())).then_some(id)
}

fn is_unit(name: &str) -> bool {
    ["service", "scope", "socket", "mount", "swap"]
        .iter()
        .any(|kind| is_of(name, kind))
}

fn is_of(name: &str, kind: &str) -> bool {
    name.rsplit_once('.')
        .is_some_and(|(stem, suffix)| !stem.is_empty() && suffix == kind)
}

impl Container {
    /// The innermost container that a path names.
    fn of(path: &str) -> Option<Self> {
        let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
        let found = (0..names.len()).rev().find_map(|at| {
            let above = at.checked_sub(1).map(|above| names[above]);
            Self::named(names[at], above, path)
        });
        found.filter(|container| container.id.len() <= MAX_ID)
    }

    fn named(name: &str, above: Option<&str>, path: &str) -> Option<Self> {
        let new = |id: &str, runtime| {
            Some(Self {
                id: id.to_owned(),
                runtime,
            })
        };
        // ENGINE-ID.scope of the systemd driver, and without `.scope` of podman.
        let stem = name.strip_suffix(".scope").unwrap_or(name);
        for (prefix, runtime) in [
            ("docker-", "docker"),
            ("libpod-", "podman"),
            ("cri-containerd-", "containerd"),
            ("nerdctl-", "containerd"),
            ("crio-", "cri-o"),
        ] {
            if let Some(id) = stem.strip_prefix(prefix).filter(|id| is_hex(id)) {
                return new(id, Some(runtime));
            }
        }
        // SLICE:ENGINE:ID of containerd's own systemd driver.
        let mut fields = name.rsplitn(3, ':');
        if let (Some(id), Some(engine), Some(_)) = (fields.next(), fields.next(), fields.next())
            && is_hex(id)
        {
            return new(
                id,
                match engine {
                    "cri-containerd" | "nerdctl" => Some("containerd"),
                    "docker" => Some("docker"),
                    "crio" => Some("cri-o"),
                    _ => None,
                },
            );
        }
        // The cgroupfs driver: a directory named by the id alone.
        if is_hex(name) {
            let is_docker = above == Some("docker") || path.starts_with("/ecs/");
            return new(name, is_docker.then_some("docker"));
        }
        // Fargate: /ecs/TASK/TASK-NUMBER.
        if let Some(task) = above
            && path.starts_with("/ecs/")
            && name
                .strip_prefix(task)
                .is_some_and(|rest| rest.starts_with('-'))
        {
            return new(name, None);
        }
        // LXC up to version 3 and from 4 on; its monitor is outside.
        if let Some(id) = name
            .strip_prefix("lxc.payload.")
            .filter(|id| !id.is_empty())
        {
            return new(id, Some("lxc"));
        }
        if matches!(above, Some("lxc" | "lxc.payload")) {
            return new(name, Some("lxc"));
        }
        nspawn(name, path)
    }
}

/// `machine-NAME.scope`, or `payload` in the unit that started it; what stands
/// beside the payload is the supervisor, which is outside.
fn nspawn(name: &str, path: &str) -> Option<Container> {
    let below = path.split_once(name)?.1;
    if below.starts_with("/supervisor") {
        return None;
    }
    let escaped = if let Some(id) = name.strip_prefix("systemd-nspawn@") {
        id.strip_suffix(".service")
            .filter(|_| below.starts_with("/payload"))?
    } else {
        let id = name.strip_prefix("machine-")?.strip_suffix(".scope")?;
        // libvirt registers its machines there, too: those of QEMU are none.
        if id.starts_with("qemu\\x2d") {
            return None;
        }
        id
    };
    let id = unit_unescape(escaped);
    let (id, runtime) = match id.strip_prefix("lxc-") {
        // lxc-NUMBER-NAME is libvirt's.
        Some(rest) if escaped.starts_with("lxc\\x2d") => (rest.to_owned(), "libvirt-lxc"),
        _ => (id, "systemd-nspawn"),
    };
    (!id.is_empty()).then_some(Container {
        id,
        runtime: Some(runtime),
    })
}

/// Undoes what `systemd-escape(1)` does to `-` and other bytes.
fn unit_unescape(name: &str) -> String {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some(at) = rest.find("\\x") {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let hex = rest.get(at + 2..at + 4);
        let byte = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        if let Some(byte) = byte {
            bytes.push(byte);
            rest = &rest[at + 4..];
        } else {
            bytes.extend_from_slice(b"\\x");
            rest = &rest[at + 2..];
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}

/// 64 hexadecimal digits.
fn is_hex(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f4ab6a5d1b5a0c8d0f0b0b5d7c0a9f8e7d6c5b4a392817065544332211000ff";

    fn placed(line: &str) -> Placement {
        Placement::parse(line.replace("ID", ID).as_bytes())
    }

    #[test]
    fn units_and_slices_of_systemd() {
        for (path, unit, slice, user_unit, logind) in [
            ("/", None, None, None, None),
            ("/init.scope", Some("init.scope"), None, None, None),
            (
                "/system.slice/cron.service",
                Some("cron.service"),
                Some("system.slice"),
                None,
                None,
            ),
            (
                "/system.slice/system-getty.slice/getty@tty1.service",
                Some("getty@tty1.service"),
                Some("system-getty.slice"),
                None,
                None,
            ),
            (
                "/user.slice/user-1000.slice/session-c3.scope",
                Some("session-c3.scope"),
                Some("user-1000.slice"),
                None,
                Some("c3"),
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/app-org.gnome.Terminal.slice/vte-spawn-1.scope",
                Some("user@1000.service"),
                Some("app-org.gnome.Terminal.slice"),
                Some("vte-spawn-1.scope"),
                None,
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/init.scope",
                Some("user@1000.service"),
                Some("user-1000.slice"),
                Some("init.scope"),
                None,
            ),
            // A service that has groups of its own.
            (
                "/system.slice/docker.service/_cgroup.procs",
                Some("docker.service"),
                Some("system.slice"),
                None,
                None,
            ),
            ("/process_api/04a3", None, None, None, None),
        ] {
            let owned = |text: Option<&str>| text.map(str::to_owned);
            let expected = Placement {
                unit: owned(unit),
                slice: owned(slice),
                user_unit: owned(user_unit),
                logind: owned(logind),
                container: None,
            };
            for line in [
                format!("0::{path}\n"),
                format!("0::{path} (deleted)\n"),
                format!("12:pids:/elsewhere.slice\n1:name=systemd:{path}\n0::/\n"),
            ] {
                assert_eq!(placed(&line), expected, "{line}");
            }
        }
    }

    #[test]
    fn what_runs_for_nobody_who_is_logged_in_is_a_service() {
        for (path, is) in [
            ("/system.slice/backup.service", true),
            ("/system.slice/run-u12.scope", true),
            ("/init.scope", false),
            ("/user.slice/user-0.slice/session-1.scope", false),
            ("/user.slice/user-0.slice/user@0.service/init.scope", false),
            ("/", false),
        ] {
            assert_eq!(placed(&format!("0::{path}")).is_service(), is, "{path}");
        }
    }

    #[test]
    fn containers_of_every_engine() {
        for (path, id, runtime) in [
            ("/system.slice/docker-ID.scope", ID, "docker"),
            ("/docker/ID", ID, "docker"),
            ("/docker/ID/system.slice/sshd.service", ID, "docker"),
            ("/system.slice/docker-ID.scope/init.scope", ID, "docker"),
            (
                "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope/container",
                ID,
                "podman",
            ),
            ("/machine.slice/libpod-ID.scope", ID, "podman"),
            ("/libpod_parent/libpod-ID", ID, "podman"),
            (
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod12.slice/cri-containerd-ID.scope",
                ID,
                "containerd",
            ),
            (
                "/kubepods.slice/kubepods-pod12.slice/crio-ID.scope",
                ID,
                "cri-o",
            ),
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/docker-ID.scope",
                ID,
                "docker",
            ),
            ("/kubepods/burstable/pod1f3/ID", ID, ""),
            (
                "/system.slice/containerd.service/kubepods-burstable-pod1.slice:cri-containerd:ID",
                ID,
                "containerd",
            ),
            ("/system.slice/nerdctl-ID.scope", ID, "containerd"),
            ("/ecs/93b1/ID", ID, "docker"),
            ("/ecs/93b1/93b1-2531612879", "93b1-2531612879", ""),
            ("/lxc/web1", "web1", "lxc"),
            ("/lxc/web1/system.slice/ssh.service", "web1", "lxc"),
            ("/lxc.payload.web1/init.scope", "web1", "lxc"),
            ("/lxc.payload/web1", "web1", "lxc"),
            (
                "/machine.slice/machine-my\\x2dbox.scope/payload/init.scope",
                "my-box",
                "systemd-nspawn",
            ),
            ("/machine.slice/machine-box.scope", "box", "systemd-nspawn"),
            (
                "/machine.slice/systemd-nspawn@box.service/payload/system.slice/ssh.service",
                "box",
                "systemd-nspawn",
            ),
            (
                "/machine.slice/machine-lxc\\x2d42\\x2dvm.scope",
                "42-vm",
                "libvirt-lxc",
            ),
        ] {
            let expected = Some(Container {
                id: id.to_owned(),
                runtime: Some(runtime)
                    .filter(|runtime| !runtime.is_empty())
                    .map(|it| {
                        // Not all of them are 'static in this table.
                        [
                            "docker",
                            "podman",
                            "containerd",
                            "cri-o",
                            "lxc",
                            "systemd-nspawn",
                            "libvirt-lxc",
                        ]
                        .into_iter()
                        .find(|known| *known == it)
                        .unwrap()
                    }),
            });
            for line in [
                format!("0::{path}"),
                format!("0::{path} (deleted)"),
                format!("4:memory:{path}\n1:name=systemd:{path}\n0::/"),
            ] {
                assert_eq!(placed(&line).container, expected, "{line}");
            }
        }
    }

    #[test]
    fn what_stands_beside_a_container_is_outside() {
        for path in [
            "/",
            "/system.slice/docker.service",
            "/machine.slice/libpod-conmon-ID.scope",
            "/kubepods.slice/crio-conmon-ID.scope",
            "/lxc.monitor.web1",
            "/machine.slice/machine-qemu\\x2d1\\x2dvm.scope",
            "/machine.slice/machine-box.scope/supervisor",
            "/machine.slice/systemd-nspawn@box.service/supervisor",
            "/user.slice/user-0.slice/session-3.scope",
            // 63 digits.
            "/docker/f4ab6a5d1b5a0c8d0f0b0b5d7c0a9f8e7d6c5b4a392817065544332211000f",
        ] {
            assert_eq!(placed(&format!("0::{path}")).container, None, "{path}");
        }
    }

    #[test]
    fn any_text_is_read_to_its_end() {
        proptest::proptest!(|(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200))| {
            let _ = Placement::parse(&bytes);
            let mut line = b"0::/machine-".to_vec();
            line.extend(bytes);
            line.extend(b".scope");
            let _ = Placement::parse(&line);
        });
    }
}
