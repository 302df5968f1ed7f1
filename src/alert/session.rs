//! The session in a document: what let the writer in, who logged in, from
//! where, and in which unit or container it ran.

use super::process::{account, one, tty_name};
use super::{Document, Origin, value};
use crate::resolve::Process;
use crate::resolve::entry::Kind;
use crate::resolve::logins::Login;
use crate::resolve::session::Session;

/// Adds what is known of the writer's session to an event's document.
pub fn set_session(document: &mut Document, session: &Session, origin: &Origin) {
    let own = |name: &str| format!("ssh_keywatch.session.{name}");
    document.set(&own("kind"), session.kind.map(Kind::as_str));
    if let Some((login, from)) = &session.login {
        account(document, &own("user"), login);
        document.set(&own("user_from"), from.as_str());
        document.add("related.user", login.name.clone());
    }
    document.set(&own("through"), session.through.clone());
    let placement = &session.placement;
    document.set(&own("unit"), placement.unit.clone());
    document.set(&own("user_unit"), placement.user_unit.clone());
    document.set(&own("slice"), placement.slice.clone());
    document.set(&own("logind_id"), placement.logind.clone());
    if let Some(container) = &placement.container {
        document.set("container.id", container.id.as_str());
        document.set("container.runtime", container.runtime);
    }
    if let Some(source) = &session.source {
        document.set("source.ip", source.ip.to_string());
        document.set("source.port", source.port);
        document.set(&own("source_from"), source.from.as_str());
        document.add("related.ip", [source.ip.to_string()]);
    }
    if let Some(leader) = &session.leader {
        entry_leader(document, leader, session, origin);
        // sudo gives what it runs another one.
        let tty = leader.tty.and_then(|(major, minor)| tty_name(major, minor));
        if tty.is_some() {
            document.set(&own("tty"), tty);
        }
    }
    document.set(&own("entity_id"), session_id(document, origin));
    // What every reader of ECS knows comes first.
    document.move_last("ssh_keywatch");
}

fn entry_leader(document: &mut Document, leader: &Process, session: &Session, origin: &Origin) {
    let below = "process.entry_leader";
    one(document, below, leader, origin);
    if let Some(credentials) = &leader.credentials {
        account(
            document,
            &format!("{below}.user"),
            &credentials.effective_user,
        );
        account(
            document,
            &format!("{below}.real_user"),
            &credentials.real_user,
        );
    }
    let mut set = |name: &str, value: serde_json::Value| {
        document.set(&format!("{below}.{name}"), value);
    };
    if leader.start_ticks.is_some() {
        set("interactive", leader.tty.is_some().into());
    }
    if let Some((major, minor)) = leader.tty {
        set("tty.char_device.major", major.into());
        set("tty.char_device.minor", minor.into());
    }
    let entry_type = session.kind.and_then(Kind::entry_type);
    set("entry_meta.type", entry_type.into());
    let ip = session.source.as_ref().map(|source| source.ip.to_string());
    set("entry_meta.source.ip", ip.into());
    let is_it = document.number("process.pid") == u64::try_from(leader.pid).ok();
    document.set(&format!("{below}.same_as_process"), is_it);
}

/// The same for all that was done in one session, also behind sudo, and no
/// other's within one boot. The audit system's id follows a process wherever it
/// is adopted; without one the entry leader stands for the session, or the
/// leader of the POSIX session.
fn session_id(document: &Document, origin: &Origin) -> Option<String> {
    let fields = [
        "ssh_keywatch.session.audit_id",
        "process.entry_leader.entity_id",
        "process.session_leader.entity_id",
    ];
    fields.into_iter().find_map(|field| {
        let id = document.str(field)?;
        Some(value::digest([
            origin.boot_id.as_str(),
            "session",
            field,
            id,
        ]))
    })
}

/// Adds a user's last logins to an alert, the latest first.
pub fn set_logins(document: &mut Document, logins: &[Login]) {
    let list: Vec<serde_json::Value> = logins
        .iter()
        .map(|login| {
            let mut out = Document::new();
            out.set("time", value::time(login.time));
            out.set("tty", login.line.clone());
            out.set("ip", login.ip.map(|ip| ip.to_string()));
            out.set("host", login.host.clone());
            out.set("from", login.from.as_str());
            out.into_map().into()
        })
        .collect();
    document.set("ssh_keywatch.session.recent_logins", list);
}
