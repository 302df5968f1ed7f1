//! What is there, compared with what was known of it.
//!
//! Owns which differences are told, which are looked at twice, and which are too many for
//! their home. Must not store anything but through the books.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::hash::BuildHasher as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::TrySendError;
use std::time::{Duration, Instant, SystemTime};

use super::{Books, Deferred, Difference, HEARTBEAT, MOST_DEFERRED, Unfinished, Untold, Window};
use crate::alert::{Gap, LossKind, Unseen};
use crate::baseline::{Record, Stat};
use crate::daemon::Message;
use crate::daemon::baseline::alerted::Alerted;
use crate::daemon::baseline::ledger::{Cause, Missed, Polled, Since, Snapshot, Told, Update};
use crate::daemon::baseline::look::Seen;
use crate::daemon::baseline::versions::Versions;
use crate::daemon::deciding::Lost;
use crate::event::assemble::{Assembled, Content};
use crate::event::{Event, Evidence};
use crate::key::Entry;
use crate::resolve::Attribution;
use crate::watch::home::{self, Home};
use crate::watch::pattern::Pattern;

/// Change times are as coarse as the kernel's clock tick.
const TICK: Duration = Duration::from_millis(20);
/// How many differences may wait to be decided.
const MOST_TOLD: usize = 1024;
/// So many that are not told one by one are told as a number, at once.
const MOST_UNTOLD: u64 = 8192;
/// How many names are looked at in one go.
const CHUNK: usize = 256;
/// So often more what is being written is looked at again before it is told.
const MOST_LOOKS: u8 = 5;
/// What changed so lately is being written.
const JUST: Duration = Duration::from_secs(1);

/// Whether events are to tell of a difference, or nobody.
fn is_unheard(window: Option<Window>) -> bool {
    window.is_none_or(|window| window.unseen == Unseen::Unheard)
}

fn is_just_written(stat: &Stat) -> bool {
    let since = SystemTime::now().duration_since(stat.changed.into());
    since.is_ok_and(|since| since < JUST)
}

impl Books {
    /// Compares what is watched with what is known.
    pub(super) fn compare(&mut self, snapshot: Snapshot) {
        let Snapshot {
            cause,
            until,
            files,
            places,
            apart,
            patterns,
        } = snapshot;
        let watched: Vec<String> = patterns.iter().map(ToString::to_string).collect();
        let before = self.meta.watched.as_deref().map(|watched| {
            let parsed = watched.iter().map(|text| Pattern::parse(Path::new(text)));
            parsed.flatten().collect::<Vec<Pattern>>()
        });
        let window = self.window(cause, until);
        let mut versions = self.versions.take().filter(|_| cause == Cause::Start);
        self.is_stock = cause == Cause::Start && window.is_none();
        let hasher = RandomState::new();
        let (mut path, mut told) = (PathBuf::new(), 0_u64);
        let mut asked = Vec::with_capacity(CHUNK);
        let mut left = files.len();
        for (directory, name, digest) in &files {
            left -= 1;
            path.clear();
            path.push(directory);
            path.push(name);
            let is_known = |versions: &mut Versions| versions.saw(&path, digest);
            let is_known = versions.as_mut().is_some_and(is_known);
            if !is_known || window.is_some_and(|window| window.reads(&path)) {
                asked.push(path.clone());
            }
            if asked.len() < CHUNK && (left > 0 || asked.is_empty()) {
                continue;
            }
            let paths = std::mem::replace(&mut asked, Vec::with_capacity(CHUNK));
            for (path, difference, now) in self.look_at(paths, window) {
                let covered = before
                    .as_ref()
                    .is_none_or(|before| before.iter().any(|old| old.covers(&path)));
                let window = window.filter(|_| covered);
                told += u64::from(self.differs(path, difference, Some(now), window));
            }
            self.drain(Duration::ZERO);
            self.tick_writes();
            if self.ending && cause != Cause::Moved {
                return;
            }
        }
        let count = files.len();
        if !versions.is_some_and(|versions| versions.is_complete()) {
            let hash = |(directory, name, _): (&Path, &OsStr, u64)| {
                hasher.hash_one(directory.join(name).as_path())
            };
            let seen: HashSet<u64> = files.iter().map(hash).collect();
            drop(files);
            let below = |places: &[PathBuf], path: &Path| {
                places.iter().any(|place| path.starts_with(place))
            };
            let asked =
                |path: &Path| !below(&apart, path) && (places.is_empty() || below(&places, path));
            let unseen = |path: &Path| asked(path) && !seen.contains(&hasher.hash_one(path));
            told += self.look_for_gone(unseen, &patterns, window);
        }
        if self.ending && cause != Cause::Moved {
            return;
        }
        self.write();
        match (cause, window) {
            (Cause::Start, None) => {
                tracing::info!("took stock of {count} files: changes are told from now on");
            }
            (Cause::Moved | Cause::Closed, _) => tracing::debug!("the baseline has {count} files"),
            _ => tracing::info!("compared {count} files with the baseline: {told} differences"),
        }
        self.meta.watched = Some(watched);
        self.is_stock = false;
        self.finish();
        crate::sys::memory::give_back();
    }

    /// The gap that is to be looked into; `None`: stock is taken without a word.
    pub(super) fn window(&self, cause: Cause, until: SystemTime) -> Option<Window> {
        match cause {
            Cause::Start => self.meta.watched.as_ref().map(|_| Window {
                unseen: Unseen::NotRunning,
                since: self.since,
                until,
                twice: true,
            }),
            Cause::Lost(unseen, since) => Some(Window {
                unseen,
                since: Some(since),
                until,
                twice: true,
            }),
            Cause::Remounted => Some(Window {
                unseen: Unseen::Unmounted,
                since: None,
                until,
                twice: true,
            }),
            Cause::Closed => Some(Window {
                unseen: Unseen::Mapped,
                since: None,
                until,
                twice: true,
            }),
            // What moved is told by events of its own, each file: they are waited for.
            Cause::Moved => self.meta.watched.as_ref().map(|_| Window {
                unseen: Unseen::Unheard,
                since: None,
                until,
                twice: true,
            }),
        }
    }

    /// The gap is over once nothing of it is left to be looked at.
    pub(super) fn finish(&mut self) {
        self.tell_untold();
        if self.failing.is_some() && self.unfinished == Unfinished::No {
            self.unfinished = Unfinished::Unwritten;
        }
        if self.deferred.is_empty() && self.unfinished == Unfinished::No {
            self.meta.since = None;
            self.since = None;
            self.alerted = None;
            if self.later.is_empty() {
                self.gap = None;
            }
        }
        self.set_meta();
    }

    pub(super) fn tick_writes(&mut self) {
        let tried = self.failing.map(|tried| tried.elapsed());
        if tried.is_some_and(|tried| tried < HEARTBEAT) {
            self.pending.again();
        } else if self.pending.is_due(Instant::now()) {
            self.write();
        }
    }

    /// Compares what a look at a place has found. Asks its server for nothing
    /// but the content of what has changed.
    pub(super) fn compare_polled(&mut self, polled: &Polled) {
        let since = match polled.since {
            Since::New => None,
            Since::Start if self.is_new => None,
            Since::Start => Some((Unseen::NotRunning, self.down_since)),
            Since::Mounted => Some((Unseen::Unmounted, None)),
            Since::Look(time) => Some((Unseen::Polled, Some(time))),
        };
        let window = since.map(|(unseen, since)| Window {
            unseen,
            since,
            until: polled.until,
            twice: false,
        });
        for files in polled.files.chunks(CHUNK) {
            for (path, difference, now) in self.differences(files.to_vec(), None, true) {
                self.differs(path, difference, Some(now), window);
            }
            self.drain(Duration::ZERO);
            self.tick_writes();
            if self.ending {
                return;
            }
        }
        let seen: HashSet<&Path> = polled
            .files
            .iter()
            .map(|(path, _)| path.as_path())
            .collect();
        let is_gone = |path: &Path| {
            path.starts_with(&polled.place) && !seen.contains(path) && polled.is_gone(path)
        };
        let gone = match self.unseen(is_gone) {
            Ok(gone) => gone,
            Err(error) => return self.failed(&error),
        };
        for path in gone {
            if self.known(&path).is_some() {
                self.differs(path, Difference::Gone, None, window);
            }
            self.drain(Duration::ZERO);
        }
        if self.untold.count > 0 {
            self.finish();
        }
    }

    /// Which of these files differ from what is known of them.
    fn look_at(
        &mut self,
        paths: Vec<PathBuf>,
        window: Option<Window>,
    ) -> Vec<(PathBuf, Difference, Seen)> {
        let stats = self.looker.stat(paths);
        self.differences(stats, window, false)
    }

    fn differences(
        &mut self,
        stats: Vec<(PathBuf, Stat)>,
        window: Option<Window>,
        patient: bool,
    ) -> Vec<(PathBuf, Difference, Seen)> {
        let mut unread = Vec::new();
        let mut known = BTreeMap::new();
        for (path, stat) in stats {
            let Ok(record) = self.read(&path) else {
                self.unfinished = Unfinished::Cut;
                continue;
            };
            let is_unread = record
                .as_ref()
                .is_some_and(|record| record.is_unread(&stat));
            if !is_unread || window.is_some_and(|window| window.reads(&path)) {
                known.insert(path.clone(), record);
                unread.push(path);
            }
        }
        let mut differences = Vec::new();
        let looker = if patient { &self.patient } else { &self.looker };
        for (path, now) in looker.read(unread) {
            match known.remove(&path).flatten() {
                None => differences.push((path, Difference::Appeared, now)),
                Some(then) if then.differs(&now.record) => {
                    differences.push((path, Difference::Changed, now));
                }
                Some(then) if then.is_unread(&now.record.stat) => {}
                // The same with other times: it need not be read again.
                Some(then) => {
                    let made = then.made;
                    self.note(path, Some(Record { made, ..now.record }));
                }
            }
        }
        differences
    }

    /// Which files are known and were not seen.
    fn unseen(&self, is_unseen: impl Fn(&Path) -> bool) -> Result<Vec<PathBuf>, String> {
        let unseen = self.store.paths(&is_unseen);
        let mut unseen = unseen.map_err(|error| error.to_string())?;
        let pending = self.pending.files();
        unseen.extend(pending.filter(|path| is_unseen(path)).cloned());
        unseen.sort();
        unseen.dedup();
        Ok(unseen)
    }

    /// What is known and is there no more.
    fn look_for_gone(
        &mut self,
        is_unseen: impl Fn(&Path) -> bool,
        patterns: &[Pattern],
        window: Option<Window>,
    ) -> u64 {
        let unseen = match self.unseen(is_unseen) {
            Ok(unseen) => unseen,
            Err(error) => {
                self.failed(&error);
                return 0;
            }
        };
        let mut told = 0;
        for paths in unseen.chunks(CHUNK) {
            let mut known = |path: &PathBuf| Some((path.clone(), self.known(path)?));
            let asked = paths.iter().filter_map(&mut known).collect();
            for path in self.looker.gone(asked) {
                let watched = patterns.iter().any(|pattern| pattern.covers(&path));
                let window = window.filter(|_| watched);
                told += u64::from(self.differs(path, Difference::Gone, None, window));
            }
            self.drain(Duration::ZERO);
            if self.ending && !is_unheard(window) {
                break;
            }
        }
        told
    }

    /// Tells a difference, or keeps it for a second look, or only stores it; says
    /// whether it is told.
    fn differs(
        &mut self,
        path: PathBuf,
        difference: Difference,
        now: Option<Seen>,
        window: Option<Window>,
    ) -> bool {
        let is_unheard = is_unheard(window);
        if is_unheard && difference == Difference::Appeared && self.owed.has_moved_to(&path) {
            self.owe(path);
            return false;
        }
        let Some(window) = window else {
            if !self.deferred_paths.contains(&path) && !self.owed.has(&path) {
                self.note(path, now.map(|now| now.record));
            }
            return false;
        };
        if self.is_alerted(&path, difference, now.as_ref()) {
            return false;
        }
        // Its record may be on the way: then it will be known soon.
        let changed = now.as_ref().map(|now| now.record.stat.changed);
        let is_young = changed.is_some_and(|changed| {
            SystemTime::from(changed)
                .checked_add(TICK)
                .is_some_and(|changed| changed >= window.until)
        });
        let waits = window.twice && (is_young || window.unseen != Unseen::NotRunning);
        if waits && self.put_off(path.clone(), window) {
            return false;
        }
        self.tell(path, difference, now, window);
        true
    }

    /// Whether the log says that it was told before the last end; then it is
    /// stored, which it was not.
    fn is_alerted(&mut self, path: &Path, difference: Difference, now: Option<&Seen>) -> bool {
        // Of what is owed the log says something at most, and not all.
        let Some(since) = self.since.filter(|_| !self.owed.paths.contains(path)) else {
            return false;
        };
        let alerted = self
            .alerted
            .get_or_insert_with(|| Alerted::read(&self.log, since));
        let Some(told) = alerted.find(path, now.map(|now| &now.record)) else {
            return false;
        };
        tracing::debug!(path = %crate::text::escape_path(path), "alerted before the last end");
        if difference == Difference::Appeared && told.is_creation {
            self.tell_rest(path, now, told);
            return true;
        }
        let made = told.made;
        let record = now.map(|now| Record {
            made: (difference == Difference::Appeared).then_some(made),
            ..now.record.clone()
        });
        self.update(Update {
            path: path.to_owned(),
            from: None,
            record,
            is_change: difference == Difference::Changed,
            born: None,
            receipts: Vec::new(),
        });
        true
    }

    /// Of what was told when it was made, and written to before the end, that it was
    /// written to is the difference.
    fn since_told(
        &mut self,
        path: &Path,
        difference: Difference,
        now: Option<&Seen>,
    ) -> Difference {
        let told = self.alerted.as_ref().zip(now);
        let told = told.and_then(|(alerted, now)| alerted.creation(path, &now.record));
        match told {
            Some(told) if difference == Difference::Appeared => {
                self.tell_rest(path, now, told);
                Difference::Changed
            }
            _ => difference,
        }
    }

    /// Of more than one alert about the making of a file, the end may have come
    /// between them.
    fn tell_rest(&mut self, path: &Path, now: Option<&Seen>, told: Told) {
        let (place, difference) = ((home::of(path), path.to_owned()), Difference::Appeared);
        self.hand_on(place, difference, now.cloned(), None, Some(told), false);
    }

    pub(super) fn second_looks(&mut self) {
        let mut looked = false;
        while self
            .deferred
            .front()
            .is_some_and(|deferred| deferred.due <= Instant::now())
            && let Some(deferred) = self.deferred.pop_front()
        {
            looked = true;
            let Deferred {
                path,
                window,
                looks,
                ..
            } = deferred;
            self.deferred_paths.remove(&path);
            self.drain(Duration::ZERO);
            let there = self.look_at(vec![path.clone()], Some(window)).pop();
            if let Some((path, difference, now)) = there {
                if self.is_alerted(&path, difference, Some(&now)) {
                    continue;
                }
                // Of what is being written there is always something on the way.
                let may_wait = matches!(window.unseen, Unseen::Unheard | Unseen::Mapped);
                if may_wait && looks < MOST_LOOKS && is_just_written(&now.record.stat) {
                    self.defer(path, window, looks + 1);
                    continue;
                }
                self.tell(path, difference, Some(now), window);
            } else if let Some(known) = self.known(&path)
                && let Some(path) = self.looker.gone(vec![(path.clone(), known)]).pop()
            {
                self.tell(path, Difference::Gone, None, window);
            } else if self.failing.is_none() {
                self.owed.paths.remove(&path);
            }
            if self.ending {
                return;
            }
        }
        if looked && self.deferred.is_empty() {
            self.finish();
        }
    }

    /// Hands an event to the deciding thread, whose answer is an [`Update`].
    fn tell(&mut self, path: PathBuf, difference: Difference, now: Option<Seen>, window: Window) {
        let difference = self.since_told(&path, difference, now.as_ref());
        let home = home::of(&path);
        self.budgets.limit(self.home_events.load(Ordering::Relaxed));
        if !self.budgets.take(&home, &path, Instant::now()) {
            return self.leave_untold(&home, path, now, window);
        }
        let gap = Gap {
            unseen: window.unseen,
            since: window.since,
            until: window.until,
        };
        let place = (home, path);
        self.hand_on(place, difference, now, Some(gap), None, !window.twice);
    }

    /// Of what is too much for its home, that it was is told, and then it is known. A
    /// name that is looked for waits until it can be told itself.
    fn leave_untold(&mut self, home: &Home, path: PathBuf, now: Option<Seen>, window: Window) {
        if home::is_looked_for(home, &path) {
            // A place that is polled is looked at again in any case.
            if window.twice {
                self.owe(path.clone());
                self.put_off(path, window);
            }
            return;
        }
        self.untold.count += 1;
        let receipt = self.untold.promise.receipt();
        let record = now.map(|now| now.record);
        if !self.pending.put(path, record, vec![receipt]) {
            // The next comparison finds it.
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        if self.untold.count >= MOST_UNTOLD {
            self.tell_untold();
        }
    }

    /// Has it looked at again soon; says whether there was room for that.
    fn put_off(&mut self, path: PathBuf, window: Window) -> bool {
        if self.deferred.len() >= MOST_DEFERRED {
            return false;
        }
        // What waits already may not be read again for another reason.
        if !self.deferred_paths.contains(&path) || window.unseen == Unseen::Mapped {
            self.defer(path, window, 0);
        }
        true
    }

    /// Tells how much was not told one by one.
    fn tell_untold(&mut self) {
        let Untold { count, promise } = std::mem::take(&mut self.untold);
        if count == 0 {
            return;
        }
        let reason = format!(
            "{count} files in homes with a great many differ from what was known of them, \
             and are not told one by one"
        );
        let lost = Lost {
            code: "baseline_flood",
            kind: LossKind::Dropped,
            count: Some(count),
            since: None,
            reason,
            promise: Some(promise),
        };
        if let Err(TrySendError::Full(Message::Lost(Lost {
            promise: Some(promise),
            ..
        }))) = self.messages.try_send(Message::Lost(lost))
        {
            self.untold = Untold { count, promise };
        }
    }

    fn hand_on(
        &mut self,
        (home, path): (Home, PathBuf),
        difference: Difference,
        now: Option<Seen>,
        gap: Option<Gap>,
        told: Option<Told>,
        once: bool,
    ) {
        let (known, owed) = (self.known(&path), path.clone());
        let before = match difference {
            Difference::Appeared => Some(Vec::new()),
            Difference::Changed | Difference::Gone => {
                let list = known.as_ref().and_then(|known| known.list.clone());
                list.map(|list| list.into_iter().map(Entry::from).collect())
            }
        };
        let record = now.as_ref().map(|now| &now.record).or(known.as_ref());
        let object_id = record
            .and_then(|record| record.object.clone())
            .unwrap_or_default();
        let found = now.as_ref().filter(|_| once);
        let found = found.map(|now| now.record.clone());
        while Arc::strong_count(&self.waiting) > MOST_TOLD {
            self.drain(Duration::from_millis(5));
            if self.ending {
                return;
            }
        }
        let missed = Missed {
            waiting: Arc::clone(&self.waiting),
            gap,
            told,
            before,
            record: found,
            assembled: Assembled {
                home: Some(home),
                ticket: None,
                content: Content::Own,
                object: now.and_then(|now| now.object),
                event: Event {
                    sequence: 0,
                    time: SystemTime::now(),
                    action: difference.action(),
                    path,
                    original_path: None,
                    final_path: None,
                    facts: None,
                    object_id,
                    evidence: Evidence::Baseline,
                    writer: Attribution::none(),
                },
            },
        };
        let mut message = Message::Missed(Box::new(missed));
        loop {
            match self.messages.try_send(message) {
                Ok(()) => {
                    self.owed.paths.remove(&owed);
                    return;
                }
                Err(TrySendError::Disconnected(_)) => return,
                Err(TrySendError::Full(full)) => message = full,
            }
            // It may be waiting for room in our own queue.
            self.drain(Duration::from_millis(5));
            if self.ending {
                return;
            }
        }
    }
}
