//! What the main and the answering thread ask of the watching thread, and tell it.
//!
//! Owns the requests and their answers. What comes of them is the thread's.

use std::sync::Arc;
use std::sync::mpsc::{Sender, SyncSender};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::eventfd::EventFd;

use super::Watching;
use crate::alert::Unseen;
use crate::daemon::baseline::Cause;
use crate::daemon::source::{Coverage, CoveredRoot, Source};
use crate::watch::tree::{Ground, Scope, Tree};

/// How long what is queued is still read at the end.
const END_TIME: Duration = Duration::from_secs(3);

/// What the main thread asks of the watching thread.
pub enum Command {
    /// Watch this from now on.
    Scope(Scope),
    /// Say how many directories are watched.
    Directories(SyncSender<usize>),
    /// So many events of each home are told one by one from now on.
    Events(u32),
    /// Say what is watched.
    Coverage(SyncSender<Coverage>),
    /// Nobody is held any more.
    Released,
    /// Openers are held again; the answering thread hears through these where homes lie.
    HoldAgain(FileSystems),
    /// Read what is queued, finish it and end.
    Stop,
}

/// Tells the answering thread on which file systems homes lie.
pub struct FileSystems {
    sender: Sender<Vec<Ground>>,
    control: Arc<EventFd>,
    known: u64,
}

impl FileSystems {
    /// Through these the answering thread hears of it.
    #[must_use]
    pub fn new(sender: Sender<Vec<Ground>>, control: Arc<EventFd>) -> Self {
        Self {
            sender,
            control,
            known: 0,
        }
    }

    pub(super) fn update(&mut self, tree: &mut Tree) {
        if self.known == tree.file_system_changes() {
            return;
        }
        self.known = tree.file_system_changes();
        // The answering thread ended: so does the use of this.
        let _ = self.sender.send(tree.grounds());
        let _ = self.control.write(1);
    }
}

impl Watching {
    pub(super) fn obey(&mut self) {
        // EAGAIN: it was a record that woke us.
        let _ = self.inputs.wake.read();
        while let Ok(command) = self.inputs.commands.try_recv() {
            match command {
                Command::Scope(scope) => {
                    let notices = &mut self.inputs.notices;
                    self.inputs.source.tree_mut().set_scope(scope, notices);
                    self.compare_all(Cause::Moved);
                }
                Command::Directories(reply) => {
                    let _ = reply.try_send(self.inputs.source.tree().watched());
                }
                Command::Events(events) => self.limit(events),
                Command::Coverage(reply) => {
                    let (floods, flooded) = self.assembler.flooded();
                    let mut roots = self.inputs.source.roots();
                    let tree = self.inputs.source.tree();
                    match &self.poller {
                        Some(poller) => roots.extend(poller.covered()),
                        None => roots.extend(tree.apart().into_iter().map(CoveredRoot::apart)),
                    }
                    roots.sort_by(|one, other| one.path.cmp(&other.path));
                    let _ = reply.try_send(Coverage {
                        roots,
                        directories: tree.watched(),
                        dropped: self.dropped,
                        floods,
                        flooded,
                        table: self
                            .resolver
                            .table()
                            .map(|table| (table.moments(), table.counters())),
                    });
                }
                Command::Released => {
                    self.released.get_or_insert_with(SystemTime::now);
                    self.resolver.unfollow();
                }
                Command::HoldAgain(file_systems) => {
                    if let Source::Fanotify(watch) = &mut self.inputs.source {
                        watch.hold_again(&mut self.inputs.notices);
                    }
                    self.inputs.file_systems = Some(file_systems);
                    if let Some(since) = self.released.take() {
                        self.compare_all(Cause::Lost(Unseen::Released, since));
                    }
                }
                Command::Stop => {
                    self.stopping = true;
                    self.end.get_or_insert(Instant::now() + END_TIME);
                }
            }
        }
    }
}
