//! The writer in a document: the process, its lineage, its session, and how
//! surely it is known.

use std::ffi::OsString;

use serde_json::Value;

use super::{Document, Origin, value};
use crate::resolve::{Account, Attribution, Image, ImageState, Process};

/// How much of the arguments of others than the writer is told (bytes): scripts
/// are handed to shells as an argument, and an alert has many ancestors.
const MOST_ARGS: usize = 1024;

/// `process.*`, `user.*` and `group.*`.
pub(super) fn process(document: &mut Document, writer: &Attribution, origin: &Origin) {
    let Some(process) = &writer.process else {
        return;
    };
    whole(document, process, origin);
    if let Some(credentials) = &process.credentials {
        account(document, "process.user", &credentials.effective_user);
        account(document, "process.group", &credentials.effective_group);
        account(document, "process.real_user", &credentials.real_user);
        account(document, "process.real_group", &credentials.real_group);
        account(document, "user", &credentials.effective_user);
        account(document, "group", &credentials.effective_group);
    }
    // comm is what the process calls itself, which is no evidence; hence it is
    // not process.name.
    document.set(
        "process.thread.name",
        process.name.as_deref().map(value::exact),
    );
    if process.start_ticks.is_some() {
        document.set("process.interactive", process.tty.is_some());
    }
    if let Some((major, minor)) = process.tty {
        document.set("process.tty.char_device.major", major);
        document.set("process.tty.char_device.minor", minor);
        document.set("ssh_keywatch.session.tty", tty_name(major, minor));
    }
    parent(document, process, &writer.ancestors, origin);
    leader(
        document,
        "process.group_leader",
        process.process_group,
        writer,
        origin,
    );
    leader(
        document,
        "process.session_leader",
        process.session,
        writer,
        origin,
    );
    document.set(
        "ssh_keywatch.session.login_uid",
        process.login_uid.map(|uid| uid.to_string()),
    );
    document.set(
        "ssh_keywatch.session.audit_id",
        process.audit_session.map(|id| id.to_string()),
    );
    document.set(
        "ssh_keywatch.executable_raw",
        process
            .image
            .as_ref()
            .and_then(|image| value::raw(&image.path)),
    );
}

/// `ssh_keywatch.attribution` and `ssh_keywatch.ancestors`.
pub(super) fn attribution(document: &mut Document, writer: &Attribution, origin: &Origin) {
    let below = "ssh_keywatch.attribution";
    document.set(&format!("{below}.method"), writer.method.as_str());
    document.set(&format!("{below}.certain"), writer.certain);
    if let Some(image) = writer
        .process
        .as_ref()
        .and_then(|process| process.image.as_ref())
    {
        image_facts(document, below, image);
        document.set("process.hash.sha256", writer.program.sha256.clone());
    }
    let claimed = writer.program.claimed.as_deref();
    let claimed = claimed.map(|path| value::exact(path.as_os_str()));
    document.set(&format!("{below}.claimed_executable"), claimed);
    if let Some(known) = &writer.program.known {
        let path = value::exact(known.path.as_os_str());
        document.set(&format!("{below}.known_as"), path);
        document.set(&format!("{below}.known_by"), known.by.as_str());
    }
    let candidates: Vec<Value> = writer
        .candidates
        .iter()
        .map(|image| {
            let mut candidate = Document::new();
            candidate.set("executable", value::exact(image.path.as_os_str()));
            candidate.set("executable_raw", value::raw(&image.path));
            image_facts(&mut candidate, "", image);
            candidate.into_map().into()
        })
        .collect();
    document.set(&format!("{below}.candidates"), candidates);
    let ancestors: Vec<Value> = writer
        .ancestors
        .iter()
        .map(|process| ancestor(process, origin))
        .collect();
    document.set("ssh_keywatch.ancestors", ancestors);
}

fn image_facts(document: &mut Document, below: &str, image: &Image) {
    let name = |field: &str| {
        if below.is_empty() {
            field.to_owned()
        } else {
            format!("{below}.{field}")
        }
    };
    document.set(&name("image"), image.state.map(ImageState::as_str));
    document.set(&name("device"), image.device.map(|id| id.to_string()));
    document.set(&name("inode"), image.inode.map(|id| id.to_string()));
}

fn ancestor(process: &Process, origin: &Origin) -> Value {
    let mut entry = Document::new();
    entry.set("pid", process.pid);
    entry.set("executable", executable(process));
    entry.set("name", program_name(process));
    entry.set("args", some_args(process));
    if let Some(credentials) = &process.credentials {
        account(&mut entry, "user", &credentials.effective_user);
    }
    entry.set("start", process.start.map(value::time));
    entry.set("entity_id", entity_id(process, origin));
    entry.into_map().into()
}

/// The writer, with all its arguments.
fn whole(document: &mut Document, process: &Process, origin: &Origin) {
    one_with(document, "process", process, args(process), origin);
}

/// The fields that a process has wherever ECS puts one.
pub(super) fn one(document: &mut Document, below: &str, process: &Process, origin: &Origin) {
    one_with(document, below, process, some_args(process), origin);
}

fn one_with(
    document: &mut Document,
    below: &str,
    process: &Process,
    args: Option<Vec<String>>,
    origin: &Origin,
) {
    let mut set = |name: &str, value: Value| document.set(&format!("{below}.{name}"), value);
    set("pid", process.pid.into());
    set("entity_id", entity_id(process, origin).into());
    set("executable", executable(process).into());
    set("name", program_name(process).into());
    if let Some(args) = args {
        set("args_count", process.args.as_ref().map(Vec::len).into());
        set("command_line", args.join(" ").into());
        set("args", args.into());
    }
    set(
        "working_directory",
        process
            .working_directory
            .as_ref()
            .map(|path| value::exact(path.as_os_str()))
            .into(),
    );
    set("start", process.start.map(value::time).into());
}

fn parent(document: &mut Document, process: &Process, ancestors: &[Process], origin: &Origin) {
    let below = "process.parent";
    let parent = ancestors
        .first()
        .filter(|nearest| process.parent_pid.is_none_or(|pid| pid == nearest.pid));
    let Some(parent) = parent else {
        document.set("process.parent.pid", process.parent_pid);
        return;
    };
    one(document, below, parent, origin);
    if let Some(credentials) = &parent.credentials {
        account(document, "process.parent.user", &credentials.effective_user);
        account(
            document,
            "process.parent.group",
            &credentials.effective_group,
        );
    }
}

/// A group's or session's leader, with as much as the lineage tells of it.
fn leader(
    document: &mut Document,
    below: &str,
    pid: Option<i32>,
    writer: &Attribution,
    origin: &Origin,
) {
    // 0 stands for a leader outside of our pid namespace.
    let Some(pid) = pid.filter(|pid| *pid > 0) else {
        return;
    };
    document.set(&format!("{below}.pid"), pid);
    let known = writer
        .process
        .iter()
        .chain(&writer.ancestors)
        .find(|process| process.pid == pid);
    if let Some(leader) = known {
        let mut set = |name: &str, value: Value| document.set(&format!("{below}.{name}"), value);
        set("entity_id", entity_id(leader, origin).into());
        set("executable", executable(leader).into());
        set("name", program_name(leader).into());
        set("start", leader.start.map(value::time).into());
    }
    let same = writer
        .process
        .as_ref()
        .is_some_and(|process| process.pid == pid);
    document.set(&format!("{below}.same_as_process"), same);
}

pub(super) fn account(document: &mut Document, below: &str, account: &Account) {
    document.set(&format!("{below}.id"), account.id.to_string());
    document.set(&format!("{below}.name"), account.name.clone());
}

fn executable(process: &Process) -> Option<String> {
    let image = process.image.as_ref()?;
    Some(value::exact(image.path.as_os_str()))
}

fn program_name(process: &Process) -> Option<String> {
    let image = process.image.as_ref()?;
    image.path.file_name().map(value::exact)
}

fn args(process: &Process) -> Option<Vec<String>> {
    let args: &[OsString] = process.args.as_deref()?;
    Some(args.iter().map(|arg| value::exact(arg)).collect())
}

/// As many as [`MOST_ARGS`] has room for.
fn some_args(process: &Process) -> Option<Vec<String>> {
    let mut room = MOST_ARGS;
    let mut some = Vec::new();
    for arg in args(process)? {
        if arg.len() >= room {
            let end = (0..=room).rfind(|end| arg.is_char_boundary(*end));
            some.push(format!("{}…", &arg[..end.unwrap_or(0)]));
            break;
        }
        room -= arg.len() + 1;
        some.push(arg);
    }
    Some(some)
}

/// The same for one process in every alert, and for no other: a pid and a
/// start in clock ticks are unique within one boot.
fn entity_id(process: &Process, origin: &Origin) -> Option<String> {
    let ticks = process.start_ticks?.to_string();
    Some(value::digest([
        origin.boot_id.as_str(),
        &process.pid.to_string(),
        &ticks,
    ]))
}

/// The terminal's name as ps(1) shows it, for the majors that Linux gives to
/// terminals (Documentation/admin-guide/devices.txt).
pub(super) fn tty_name(major: u32, minor: u32) -> Option<String> {
    match (major, minor) {
        (4, 0..64) => Some(format!("tty{minor}")),
        (4, _) => Some(format!("ttyS{}", minor - 64)),
        (5, 1) => Some("console".to_owned()),
        (204, 64..80) => Some(format!("ttyAMA{}", minor - 64)),
        (229, _) => Some(format!("hvc{minor}")),
        (136..=143, _) => Some(format!("pts/{}", (major - 136) * 256 + minor)),
        _ => None,
    }
}
