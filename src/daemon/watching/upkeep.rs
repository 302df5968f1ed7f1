//! What the watching thread does besides: now and then, and what has been put off.
//!
//! Owns when it is done, and what of the tree the baseline compares. Must not read the
//! kernel's queue nor wait: records come first.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};

use super::Watching;
use crate::alert::{LossKind, Unseen};
use crate::daemon::baseline::{Cause, Snapshot};
use crate::daemon::clock::ClockWatch;
use crate::daemon::deciding::{Lost, Message};
use crate::daemon::source::Source;
use crate::watch::hold;
use crate::watch::tree::Listing;

/// So many files of the start are identified before the queue is looked at again.
const SETTLED: usize = 256;
/// How often at most what came in floods is looked into.
const SIFT_AGAIN: Duration = Duration::from_secs(60);
/// So many files of a home that were closed are looked at in each round.
const CLOSED: usize = 64;
/// How often ended processes are forgotten.
pub(super) const PRUNE: Duration = Duration::from_secs(1);
/// How soon after a directory was moved the baseline follows, and how often at most.
const FOLLOW: Duration = Duration::from_millis(200);
const FOLLOW_AGAIN: Duration = Duration::from_secs(10);
/// How often at most changed mounts are followed: the table of them is long on a
/// host with containers, which come and go.
pub(super) const REMOUNT: Duration = Duration::from_millis(100);
/// How often it is looked where links lead: of a change in the middle of a chain
/// of links, or of a target that comes, nothing is told.
pub(super) const RELINK: Duration = Duration::from_secs(60);

impl Watching {
    /// Has the baseline compared with what the start has found.
    pub(super) fn compare_stock(&mut self) {
        if let Some((files, _)) = self.inputs.source.tree_mut().take_stock() {
            let until = self.inputs.begun;
            self.have_compared(Cause::Start, until, files, Vec::new());
        }
    }

    /// Has the baseline compared with what is known to be there.
    pub(super) fn compare_all(&self, cause: Cause) {
        self.compare(cause, Vec::new());
    }

    /// The same, of what lies in these places.
    fn compare(&self, cause: Cause, places: Vec<PathBuf>) {
        if self.ledger.is_none() {
            return;
        }
        let wanted = |directory: &Path| {
            places.is_empty() || places.iter().any(|place| directory.starts_with(place))
        };
        let files = self.inputs.source.tree().files(wanted);
        self.have_compared(cause, SystemTime::now(), files, places);
    }

    fn have_compared(&self, cause: Cause, until: SystemTime, files: Listing, places: Vec<PathBuf>) {
        let Some(ledger) = &self.ledger else { return };
        let tree = self.inputs.source.tree();
        ledger.compare(Snapshot {
            cause,
            until,
            files,
            places,
            apart: tree.apart().into_iter().map(|place| place.path).collect(),
            patterns: tree.patterns().to_vec(),
        });
    }

    /// Does some of what has been put off.
    pub(super) fn settle(&mut self) {
        self.look_on();
        let tree = self.inputs.source.tree_mut();
        if tree.is_settling() {
            tree.settle_more(SETTLED);
            if !tree.is_settling() {
                tracing::info!("every file that was there is identified");
            }
        }
    }

    /// Goes on with looks that wait.
    pub(super) fn look_on(&mut self) {
        let tree = self.inputs.source.tree_mut();
        if tree.has_looks() {
            tree.look_on(&mut self.inputs.notices);
            self.turn();
        }
    }

    /// What has to be done now and then.
    pub(super) fn keep_house(&mut self) {
        self.follow_mounts();
        self.follow_moves();
        self.look_at_clock();
        if self.pruned.elapsed() <= PRUNE {
            return;
        }
        self.pruned = Instant::now();
        self.resolver.prune();
        let tree = self.inputs.source.tree_mut();
        tree.catch_up(self.pruned, &mut self.inputs.notices);
        self.unmute();
        self.turn();
        // In a flood the queue may never be empty.
        self.look_on();
        self.sift();
        let closed = self.assembler.closed_unwritten(CLOSED);
        self.look_at_closed(closed);
        self.tell_losses();
    }

    /// Looks again at homes whose time is over.
    fn unmute(&mut self) {
        let (now, time) = (Instant::now(), SystemTime::now());
        let Source::Fanotify(watch) = &mut self.inputs.source else {
            return;
        };
        for home in self.mutes.muted() {
            let records = watch.unread(home);
            self.assembler.unread(home, records, time, now);
        }
        for (home, since) in self.mutes.over(now) {
            watch.tree_mut().unmute(&home);
            let first = self.flooded.get_or_insert(since);
            *first = since.min(*first);
        }
    }

    /// Whether files that were closed after writing, though no writing was told of, are
    /// what they were is for the baseline to find out.
    fn look_at_closed(&self, paths: Vec<PathBuf>) {
        let tree = self.inputs.source.tree();
        let mut files = Listing::default();
        for path in &paths {
            if let (Some(directory), Some(name)) = (path.parent(), path.file_name())
                && tree.is_known(path)
            {
                files.push(directory, name, 0);
            }
        }
        if !files.is_empty() {
            self.have_compared(Cause::Closed, SystemTime::now(), files, paths);
        }
    }

    /// What came in a flood and was not told is found by a comparison.
    fn sift(&mut self) {
        let now = Instant::now();
        let soon = |last| now.saturating_duration_since(last) < SIFT_AGAIN;
        if self.sifted.is_some_and(soon) {
            return;
        }
        // What has not been looked at yet would be told as it was.
        if !self.inputs.source.tree().has_looks()
            && let Some(since) = self.flooded.take()
        {
            self.sifted = Some(now);
            self.compare_all(Cause::Lost(Unseen::Flood, since));
        }
    }

    /// Watches what is mounted at watched paths now, and what links lead to.
    pub(super) fn follow_mounts(&mut self) {
        let now = Instant::now();
        let tree = self.inputs.source.tree_mut();
        let notices = &mut self.inputs.notices;
        let mut places = Vec::new();
        let moves = tree.moves();
        if tree.has_remounted() && now >= self.mounted + REMOUNT {
            places = tree.remounted(notices);
            self.mounted = Instant::now();
        }
        if now >= self.linked + RELINK {
            places.extend(tree.follow_links(notices));
            self.linked = Instant::now();
        }
        // These are compared at once, and nothing of them is taken for known.
        self.moves += tree.moves() - moves;
        let apart = tree.apart_changes();
        if self.apart != Some(apart)
            && let Some(poller) = &self.poller
        {
            self.apart = Some(apart);
            poller.watch(tree.apart());
        }
        if !places.is_empty() {
            self.compare(Cause::Remounted, places);
        }
    }

    /// Where a directory was moved, what nobody has told of it is found.
    fn follow_moves(&mut self) {
        let moves = self.inputs.source.tree().moves();
        let now = Instant::now();
        if moves != self.moves && self.ledger.is_some() {
            self.moves = moves;
            let due = (now + FOLLOW).max(self.followed + FOLLOW_AGAIN);
            self.follow.get_or_insert(due);
        }
        if self.follow.is_some_and(|due| due <= now) && !self.inputs.source.tree().has_looks() {
            self.follow = None;
            self.followed = now;
            self.compare_all(Cause::Moved);
        }
    }

    /// Times before and after a jump cannot be compared.
    fn look_at_clock(&mut self) {
        if let Some(pace) = self.clock.as_mut().and_then(ClockWatch::paced) {
            let reason = format!(
                "the clock goes {:.1} % as fast as it should: what times say is that much wrong",
                pace * 100.0
            );
            self.lost("clock_pace", None, reason);
        }
        let Some(jump) = self.clock.as_mut().and_then(ClockWatch::jumped) else {
            return;
        };
        let direction = if jump.forwards {
            "forwards"
        } else {
            "backwards"
        };
        let reason = format!(
            "the clock was set {direction} by {} seconds: times before and after do not fit \
             together, and every file is compared with what was known of it",
            jump.by.as_secs()
        );
        self.lost("clock_jumped", Some(jump.from), reason);
        let since = self.emptied.min(SystemTime::now());
        self.compare_all(Cause::Lost(Unseen::ClockSet, since));
    }

    fn lost(&mut self, code: &'static str, since: Option<SystemTime>, reason: String) {
        self.send(Message::Lost(Lost {
            code,
            kind: LossKind::Fault,
            count: None,
            since,
            reason,
            promise: None,
        }));
    }

    /// What is counted elsewhere is told, too.
    fn tell_losses(&mut self) {
        let (now, time) = (Instant::now(), SystemTime::now());
        let (unheard, unrecorded) = self.counted();
        let identities = self.unheard.news(unheard, now, time);
        let records = self.unrecorded.news(unrecorded, now, time);
        let losses = [
            (
                "identities_dropped",
                LossKind::Dropped,
                identities,
                "openers were identified faster than it could be taken down: what they made \
                 may be laid to nobody",
            ),
            (
                "process_records_lost",
                LossKind::Lost,
                records,
                "records of forks and execs: who renames or links may go unnamed for a moment",
            ),
        ];
        for (code, kind, news, reason) in losses {
            let Some((count, since)) = news else { continue };
            self.send(Message::Lost(Lost {
                code,
                kind,
                count: Some(count),
                since: Some(since),
                reason: reason.to_owned(),
                promise: None,
            }));
        }
    }

    /// Identities that came too fast, and records of processes that were lost.
    pub(super) fn counted(&self) -> (u64, u64) {
        let dropped = |hold: &Arc<hold::Counters>| hold.dropped.load(Relaxed);
        let table = self.resolver.table();
        (
            self.hold.as_ref().map_or(0, dropped),
            table.map_or(0, |table| table.counters().lost),
        )
    }
}
