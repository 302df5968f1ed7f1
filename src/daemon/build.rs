//! Builds what the daemon is composed of: the groups, the source, the
//! answering thread, the sinks.
//!
//! Owns the order in which that is safe: the answering thread runs before the
//! first mark that somebody could wait at.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::watching::{FileSystems, Source};
use super::{Fatal, Message, privilege};
use crate::config::{self, Backend, Config, Hold};
use crate::proctable::ProcTable;
use crate::resolve::identify::{Identifier, Identity};
use crate::sink::Sink;
use crate::sys::fanotify::{NotificationGroup, PermissionGroup};
use crate::sys::thread;
use crate::watch::Notice;
use crate::watch::deadline::Deadline;
use crate::watch::fanotify::FanotifyWatch;
use crate::watch::fence::Fence;
use crate::watch::hold::{self, Counters, Held};
use crate::watch::inotify::InotifyWatch;
use crate::watch::pattern::Pattern;

/// How long the answering thread has to end.
const END_TIME: Duration = Duration::from_secs(1);

/// The answering thread and what is needed to end it.
pub(super) struct HoldThread {
    permission: Arc<PermissionGroup>,
    stop: Arc<AtomicBool>,
    control: Arc<EventFd>,
    deadline: Arc<Deadline>,
    pub(super) counters: Arc<Counters>,
    ended: Receiver<()>,
}

/// What watches.
pub(super) struct Watch {
    /// Where records come from.
    pub(super) source: Source,
    /// The answering thread, if writers are held.
    pub(super) hold: Option<HoldThread>,
    /// Whom it identified.
    pub(super) held: Option<Receiver<Held<Identity>>>,
    /// Tells it on which file systems homes lie.
    pub(super) file_systems: Option<FileSystems>,
    /// Names who renames and links.
    pub(super) table: Option<ProcTable>,
}

/// Makes the source, starts the answering thread, and marks all that exists.
pub(super) fn watch(
    config: &Config,
    patterns: Vec<Pattern>,
    identifier: &Identifier,
    wake: &Arc<EventFd>,
    messages: &SyncSender<Message>,
    notices: &mut Vec<Notice>,
) -> Result<Watch, Fatal> {
    let limit = config.watch.max_directories as usize;
    let groups = groups(&config.watch)?;
    let Some(notification) = groups.notification else {
        let watch = InotifyWatch::new(patterns, limit, Arc::clone(wake))
            .map_err(Fatal::system("cannot watch with inotify"))?;
        let mut source = Source::Inotify(Box::new(watch));
        source
            .start(notices)
            .map_err(Fatal::system("cannot watch /"))?;
        return Ok(Watch {
            source,
            hold: None,
            held: None,
            file_systems: None,
            table: None,
        });
    };
    // Before the first mark: the window of no record begins before it is filled.
    let table = config.watch.process_table.then(process_table).flatten();
    let mut watch = FanotifyWatch::new(
        Arc::clone(&notification),
        groups.permission.clone(),
        patterns,
        limit,
        config.watch.hold != Hold::All,
    );
    let (mut hold, mut held, mut file_systems) = (None, None, None);
    if let Some(permission) = groups.permission {
        let (sender, receiver) = sync_channel(hold::BACKLOG);
        let parts = HoldParts {
            permission,
            notification,
            fence: make_fence(&mut watch, &config.state.directory),
            held: sender,
            wake: Arc::clone(wake),
        };
        let (thread, told) = start_hold(parts, identifier.clone(), messages.clone())?;
        (hold, held, file_systems) = (Some(thread), Some(receiver), Some(told));
        for tool in &config.watch.key_tools {
            if let Err(error) = watch.hold_program(tool) {
                tracing::warn!("cannot record runs of {}: {error}", tool.display());
            }
        }
    }
    let mut source = Source::Fanotify(Box::new(watch));
    if let Err(error) = source.start(notices) {
        if let Some(hold) = hold {
            hold.end();
        }
        return Err(Fatal::system("cannot watch /")(error));
    }
    Ok(Watch {
        source,
        hold,
        held,
        file_systems,
        table,
    })
}

fn process_table() -> Option<ProcTable> {
    ProcTable::start()
        .map_err(|error| {
            tracing::warn!(
                "forks and execs cannot be followed ({error}): who renames or links a file into \
                 place and exits at once may go unnamed"
            );
        })
        .ok()
}

/// The two groups, as far as the configuration and the kernel allow.
struct Groups {
    notification: Option<Arc<NotificationGroup>>,
    permission: Option<Arc<PermissionGroup>>,
}

fn groups(watch: &config::Watch) -> Result<Groups, Fatal> {
    let none = Groups {
        notification: None,
        permission: None,
    };
    if watch.backend == Backend::Inotify {
        return Ok(none);
    }
    let notification = match NotificationGroup::new() {
        Ok(group) => Arc::new(group),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(Fatal::NoPermission(privilege::refused(&error)));
        }
        Err(error) if watch.backend == Backend::Auto => {
            tracing::warn!(
                "this kernel has no fanotify that can be used ({error}): watching with inotify, \
                 which cannot name who made a file"
            );
            return Ok(none);
        }
        Err(source) => {
            return Err(Fatal::System {
                what: "fanotify cannot be used (--backend auto would fall back to inotify)".into(),
                source,
            });
        }
    };
    let permission = if watch.hold == Hold::Off {
        None
    } else {
        PermissionGroup::new()
            .map_err(|error| {
                tracing::warn!(
                    "writers cannot be held while they are identified ({error}): one that exits \
                     at once may go unnamed"
                );
            })
            .ok()
            .map(Arc::new)
    };
    Ok(Groups {
        notification: Some(notification),
        permission,
    })
}

impl HoldThread {
    /// Closes the group, then ends the thread.
    pub(super) fn end(self) {
        if let Err(error) = self.permission.close() {
            tracing::error!("cannot close the permission group: {error}");
        }
        self.stop.store(true, Ordering::Release);
        self.deadline.stop();
        let _ = self.control.write(1);
        // Nothing is ever sent: the thread ends, or it is stuck and ends with us.
        let _ = self.ended.recv_timeout(END_TIME);
    }
}

struct HoldParts {
    permission: Arc<PermissionGroup>,
    notification: Arc<NotificationGroup>,
    fence: Option<Arc<Fence>>,
    held: SyncSender<Held<Identity>>,
    wake: Arc<EventFd>,
}

fn start_hold(
    parts: HoldParts,
    identifier: Identifier,
    messages: SyncSender<Message>,
) -> Result<(HoldThread, FileSystems), Fatal> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let control = event_fd()?;
    let stop = Arc::new(AtomicBool::new(false));
    let deadline = Arc::new(Deadline::new().map_err(Fatal::system("cannot make a timer"))?);
    let counters = Arc::new(Counters::default());
    let hold = hold::Hold {
        permission: Arc::clone(&parts.permission),
        notification: parts.notification,
        identify: identifier,
        fence: parts.fence,
        held: parts.held,
        wake: parts.wake,
        stop: Arc::clone(&stop),
        control: Arc::clone(&control),
        file_systems: receiver,
        counters: Arc::clone(&counters),
        deadline: Arc::clone(&deadline),
    };
    let permission = Arc::clone(&parts.permission);
    let (alive, ended) = sync_channel(0);
    let told = messages.clone();
    spawn("hold", move || {
        let _alive: SyncSender<()> = alive;
        // Refused without CAP_SYS_NICE: then openers wait a little longer.
        let _ = thread::real_time(1);
        if let Err(error) = hold.run() {
            // Closed before anything is said: nobody may wait for a dead thread.
            let _ = permission.close();
            let _ = messages.try_send(Message::HoldEnded(error.to_string()));
        }
    })?;
    let permission = Arc::clone(&parts.permission);
    let supervisor = Arc::clone(&deadline);
    spawn("supervise", move || {
        // It must get its turn when the answering thread does not.
        let _ = thread::real_time(2);
        supervisor.supervise(&permission, |miss| {
            // Full only if the deciding thread hangs; the counters tell it later.
            let _ = told.try_send(Message::HoldMissed(miss));
        });
    })?;
    let file_systems = FileSystems::new(sender, Arc::clone(&control));
    let thread = HoldThread {
        permission: parts.permission,
        stop,
        control,
        deadline,
        counters,
        ended,
    };
    Ok((thread, file_systems))
}

/// The fence lies on /run, which is in memory, or with the state.
fn make_fence(watch: &mut FanotifyWatch, state: &Path) -> Option<Arc<Fence>> {
    let name = format!("fence.{}", std::process::id());
    let places = [
        Path::new("/run/ssh-keywatch").join(&name),
        state.join(&name),
    ];
    for place in places {
        let fence = Fence::new(&place).and_then(|fence| {
            let fence = Arc::new(fence);
            watch.set_fence(Arc::clone(&fence))?;
            Ok(fence)
        });
        match fence {
            Ok(fence) => return Some(fence),
            Err(error) => tracing::debug!("no fence in {}: {error}", place.display()),
        }
    }
    tracing::warn!(
        "no directory for exec records can be watched: who runs a key tool is known, but never certain"
    );
    None
}

/// The sinks that the configuration asks for, and `extra`.
pub(super) fn sinks(
    config: &Config,
    extra: Vec<Box<dyn Sink>>,
) -> Result<Vec<Box<dyn Sink>>, Fatal> {
    let options = crate::sink::Options {
        mode: config.log.mode.0,
        group: Some(config.log.group.clone()).filter(|group| !group.is_empty()),
        rotation: crate::sink::Rotation {
            max_size: config.log.max_size.0,
            max_age: config.log.max_age.0,
            keep: config.log.keep,
            compress: config.log.compress,
        },
    };
    let log =
        crate::sink::JsonLog::open(&config.log.file, &options).map_err(|source| Fatal::Log {
            path: config.log.file.clone(),
            source,
        })?;
    let mut sinks: Vec<Box<dyn Sink>> = vec![Box::new(log)];
    if config.journal.enabled {
        sinks.push(Box::new(crate::sink::Journal::new()));
    }
    sinks.extend(extra);
    Ok(sinks)
}

pub(super) fn spawn(
    name: &str,
    body: impl FnOnce() + Send + 'static,
) -> Result<std::thread::JoinHandle<()>, Fatal> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map_err(Fatal::system(format!("cannot start the {name} thread")))
}

pub(super) fn event_fd() -> Result<Arc<EventFd>, Fatal> {
    EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
        .map(Arc::new)
        .map_err(io::Error::from)
        .map_err(Fatal::system("cannot make an eventfd"))
}
