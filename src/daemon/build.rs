//! Builds what the daemon is composed of: the groups, the source, the
//! answering thread, the sinks.
//!
//! Owns the order in which that is safe: the answering thread runs before the
//! first mark that somebody could wait at.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::SystemTime;

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::holding::{self, Holding};
use super::source::{Mode, Source};
use super::watching::{self, Command, FileSystems, Watching};
use super::{Fatal, Message, access, privilege};
use crate::config::{self, Backend, Config, Hold};
use crate::proctable::ProcTable;
use crate::queue;
use crate::resolve::identify::{Identifier, Identity};
use crate::resolve::resolver::Resolver;
use crate::sink::Sink;
use crate::sys::affinity::Movable;
use crate::sys::fanotify::{NotificationGroup, PermissionGroup};
use crate::watch::Notice;
use crate::watch::fanotify::FanotifyWatch;
use crate::watch::fence::Fence;
use crate::watch::hold::{self, Held};
use crate::watch::inotify::InotifyWatch;
use crate::watch::loud::Loud;
use crate::watch::tree::Scope;

/// Says in the state directory where the log ends.
pub(super) const LOG_HEAD: &str = "log-head";

/// What watches: all from the kernel to the events, ready to run.
pub(super) struct Pipeline {
    /// The watching thread's part.
    pub(super) watching: Watching,
    /// The answering thread, if writers are held.
    pub(super) hold: Option<Holding>,
    /// The descriptor of the notification group, while `watching` lives.
    pub(super) group: Option<RawFd>,
    /// How it is watched.
    pub(super) mode: Mode,
    /// What the watching thread is told, and how it hears of it.
    pub(super) orders: Orders,
}

/// The way to the watching thread, and from it to the answering one.
#[derive(Clone)]
pub(super) struct Orders {
    commands: Sender<Command>,
    wake: Arc<EventFd>,
    loud: Arc<Loud>,
}

impl Orders {
    pub(super) fn wake(&self) -> Arc<EventFd> {
        Arc::clone(&self.wake)
    }

    pub(super) fn loud(&self) -> Arc<Loud> {
        Arc::clone(&self.loud)
    }

    pub(super) fn give(&self, command: Command) {
        // The watching thread ends only when it is told so.
        let _ = self.commands.send(command);
        let _ = self.wake.write(1);
    }
}

/// Builds it, and marks all that exists; events go to `messages`. Exec records
/// need one of the places in `fences`.
pub(super) fn pipeline(
    config: &Config,
    scope: Scope,
    identifier: &Identifier,
    messages: &queue::Sender<Message>,
    fences: &[PathBuf],
) -> Result<Pipeline, Fatal> {
    let (commands, receiver) = channel();
    let wake = event_fd()?;
    let orders = Orders {
        commands,
        wake,
        loud: Arc::default(),
    };
    let mut notices = Vec::new();
    let begun = SystemTime::now();
    let watch = watch(
        config,
        scope,
        identifier,
        &orders,
        messages,
        &mut notices,
        fences,
    )?;
    let mode = Mode::of(&watch.source, watch.hold.is_some(), watch.table.is_some());
    let group = match &watch.source {
        Source::Fanotify(watch) => Some(watch.as_fd().as_raw_fd()),
        Source::Inotify(_) => None,
    };
    let inputs = watching::Inputs {
        source: watch.source,
        held: watch.held,
        file_systems: watch.file_systems,
        commands: receiver,
        wake: Arc::clone(&orders.wake),
        loud: orders.loud(),
        notices,
        begun,
    };
    let resolver = Resolver::new(identifier.clone()).with_table(watch.table);
    Ok(Pipeline {
        watching: Watching::new(inputs, resolver, messages.clone()),
        hold: watch.hold,
        group,
        mode,
        orders,
    })
}

struct Watch {
    source: Source,
    hold: Option<Holding>,
    held: Option<queue::Receiver<Box<Held<Identity>>>>,
    file_systems: Option<FileSystems>,
    table: Option<ProcTable>,
}

/// Makes the source, starts the answering thread, and marks all that exists.
fn watch(
    config: &Config,
    scope: Scope,
    identifier: &Identifier,
    orders: &Orders,
    messages: &queue::Sender<Message>,
    notices: &mut Vec<Notice>,
    fences: &[PathBuf],
) -> Result<Watch, Fatal> {
    let groups = groups(&config.watch)?;
    let Some(notification) = groups.notification else {
        let watch = InotifyWatch::new(scope, Arc::clone(&orders.wake))
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
        scope,
        config.watch.hold != Hold::All,
    );
    let (mut hold, mut held, mut file_systems) = (None, None, None);
    if let Some(permission) = groups.permission {
        let (sender, receiver) = queue::bounded(hold::BACKLOG);
        let parts = holding::Parts {
            permission,
            notification,
            identifier: identifier.clone(),
            fence: make_fence(&mut watch, fences),
            held: sender,
            wake: Arc::clone(&orders.wake),
            messages: messages.clone(),
            orders: orders.clone(),
        };
        let (thread, told) = Holding::start(parts)?;
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
        PermissionGroup::above(&notification)
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

/// The fence lies on /run, which is in memory, or with the state. A dry run
/// leaves the places of the daemon beside it alone.
pub(super) fn fence_places(state: &Path, dry: bool) -> Vec<PathBuf> {
    let pid = std::process::id();
    if dry {
        return vec![PathBuf::from(format!("/run/ssh-keywatch-dry.{pid}"))];
    }
    let name = format!("fence.{pid}");
    vec![
        Path::new("/run/ssh-keywatch").join(&name),
        state.join(&name),
    ]
}

fn make_fence(watch: &mut FanotifyWatch, places: &[PathBuf]) -> Option<Arc<Fence>> {
    for place in places {
        let fence = Fence::new(place).and_then(|fence| {
            let fence = Arc::new(fence);
            watch.set_fence(Arc::clone(&fence))?;
            Ok(fence)
        });
        match fence {
            Ok(fence) => return Some(fence),
            Err(error) => tracing::debug!("no fence in {}: {error}", place.display()),
        }
    }
    if places.is_empty() {
        return None;
    }
    tracing::warn!(
        "no directory for exec records can be watched: who runs a key tool is known, but never certain"
    );
    None
}

/// The sinks that the configuration asks for, and `extra`; those alone when the
/// run is dry.
pub(super) fn sinks(
    config: &Config,
    extra: Vec<Box<dyn Sink>>,
    dry: bool,
) -> Result<Vec<Box<dyn Sink>>, Fatal> {
    if dry {
        return Ok(extra);
    }
    let options = crate::sink::Options {
        mode: config.log.mode.0,
        group: Some(config.log.group.clone()).filter(|group| !group.is_empty()),
        rotation: crate::sink::Rotation {
            max_size: config.log.max_size.0,
            max_age: config.log.max_age.0,
            keep: config.log.keep,
            compress: config.log.compress,
        },
        head: Some(super::log_head(&config.state.directory)),
    };
    let missing = access::missing(&config.log.file);
    let log =
        crate::sink::JsonLog::open(&config.log.file, &options).map_err(|source| Fatal::Log {
            path: config.log.file.clone(),
            source,
        })?;
    // Who may read the log must come to it.
    access::share(&config.log.file, &missing, access::group(&config.log.group));
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

/// The same for a thread that what a key tool does may wake: it makes room for it.
pub(super) fn spawn_movable(
    name: &str,
    body: impl FnOnce() + Send + 'static,
) -> Result<std::thread::JoinHandle<()>, Fatal> {
    spawn(name, move || {
        let _movable = Movable::new();
        body();
    })
}

pub(super) fn event_fd() -> Result<Arc<EventFd>, Fatal> {
    EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
        .map(Arc::new)
        .map_err(io::Error::from)
        .map_err(Fatal::system("cannot make an eventfd"))
}
