//! How much of what happens in one home is told one by one; a flood beyond that
//! is counted.
//!
//! Owns each home's share: a budget of events, a reserve for the names that sshd
//! and ssh look for, how many events may be on their way at once, and the count of
//! what was not told. The name of a key that is looked for is never lost in
//! a flood: the last thing that happened to it is kept, and told as soon as the
//! reserve allows. Pure: the clock is given. Bounded by the homes that are watched.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use super::Action;
use crate::watch::home::{Home, is_looked_for};

/// The time in which a home's budget fills from empty to full.
pub const WINDOW: Duration = Duration::from_secs(300);
/// How many events of one home are told in [`WINDOW`], unless the
/// configuration says otherwise.
pub const EVENTS: u32 = 5000;
/// How many changes to names that are looked for are told besides.
const RESERVE: u32 = 100;
/// A flood is over when nothing was left out for so long.
const QUIET: Duration = Duration::from_secs(10);
/// How often the count of a flood is told while it lasts.
const SUMMARY: Duration = Duration::from_secs(60);
/// How many events may be on their way to a decision, of all homes together. One
/// home may have as many as are free besides: whoever comes next finds room.
const MOST_ON_THE_WAY: usize = 8192;
/// So many bytes of what is known of their writers may be: arguments and paths are
/// as long as users make them.
const MOST_BYTES: usize = 32 << 20;
/// And so many in any case.
const LEAST_ON_THE_WAY: usize = 16;
/// While others wait in the kernel's queue, this part of a home's budget is told until
/// they do no more.
const AT_ONCE: u32 = 16;

/// How many events are that, of a budget of so many.
#[must_use]
pub fn at_once(events: u32) -> u32 {
    events / AT_ONCE
}

/// Counts of each kind of event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// New names.
    pub creations: u64,
    /// Names that came by rename(2).
    pub renames: u64,
    /// Changes of content.
    pub modifications: u64,
    /// Names that went away.
    pub deletions: u64,
    /// Opens.
    pub opens: u64,
    /// Records of the kernel that were not looked at at all.
    pub records: u64,
}

impl Counts {
    fn add(&mut self, action: Action) {
        let count = match action {
            Action::Creation | Action::Flood => &mut self.creations,
            Action::Rename => &mut self.renames,
            Action::Modification => &mut self.modifications,
            Action::Deletion => &mut self.deletions,
            Action::Open => &mut self.opens,
        };
        *count += 1;
    }

    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        let events = self.creations + self.renames + self.modifications;
        events + self.deletions + self.opens + self.records
    }
}

/// What was left out in one home.
#[derive(Clone, Debug)]
pub struct Flood<W> {
    /// Which.
    pub home: Home,
    /// From when on.
    pub since: SystemTime,
    /// When the last of it was.
    pub until: SystemTime,
    /// How much, since the last time this was told.
    pub counts: Counts,
    /// Whether it is over.
    pub over: bool,
    /// Who did the first of it.
    pub writer: W,
}

/// A flood that goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Present {
    /// Where.
    pub home: PathBuf,
    /// Since when.
    pub since: SystemTime,
    /// How much has been left out so far.
    pub count: u64,
}

/// An event on its way; the room that it takes is free when this is dropped.
#[derive(Debug)]
pub struct Ticket {
    home: Arc<AtomicUsize>,
    all: Arc<Way>,
    bytes: AtomicUsize,
}

/// What is on the way, of all homes.
#[derive(Debug, Default)]
struct Way {
    events: AtomicUsize,
    bytes: AtomicUsize,
}

impl Ticket {
    fn new(home: &Arc<AtomicUsize>, all: &Arc<Way>) -> Self {
        home.fetch_add(1, Relaxed);
        all.events.fetch_add(1, Relaxed);
        Self {
            home: Arc::clone(home),
            all: Arc::clone(all),
            bytes: AtomicUsize::new(0),
        }
    }

    /// The event takes so many bytes now.
    pub fn weigh(&self, bytes: usize) {
        let before = self.bytes.swap(bytes, Relaxed);
        self.all.bytes.fetch_add(bytes, Relaxed);
        self.all.bytes.fetch_sub(before, Relaxed);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.weigh(0);
        self.home.fetch_sub(1, Relaxed);
        self.all.events.fetch_sub(1, Relaxed);
    }
}

/// What becomes of an event.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It is told.
    Tell(Ticket),
    /// It is the first of a flood.
    Begin,
    /// It is counted.
    Count,
}

/// Budgets of homes for what is found by a comparison.
#[derive(Debug)]
pub struct Budgets {
    limit: u32,
    homes: HashMap<Home, (Bucket, Bucket)>,
}

impl Budgets {
    /// So many events of each home.
    #[must_use]
    pub fn new(limit: u32) -> Self {
        Self {
            limit,
            homes: HashMap::new(),
        }
    }

    /// So many from now on.
    pub fn limit(&mut self, events: u32) {
        if self.limit != events {
            *self = Self::new(events);
        }
    }

    /// Whether what happened at `path` may be told.
    pub fn take(&mut self, home: &Home, path: &Path, now: Instant) -> bool {
        if self.homes.len() >= MOST_ON_THE_WAY {
            self.homes.retain(|_, (events, _)| !events.is_full(now));
        }
        let buckets = || (Bucket::new(self.limit, now), Bucket::new(RESERVE, now));
        let (events, reserve) = self.homes.entry(Arc::clone(home)).or_insert_with(buckets);
        events.take(now) || is_looked_for(home, path) && reserve.take(now)
    }
}

/// What happened last to a name that is looked for.
#[derive(Debug)]
pub(super) struct Owed {
    pub(super) home: Home,
    pub(super) path: PathBuf,
    pub(super) action: Action,
    pub(super) time: SystemTime,
}

/// Tokens that come back with time.
#[derive(Debug)]
struct Bucket {
    tokens: f64,
    size: f64,
    at: Instant,
}

impl Bucket {
    fn new(size: u32, now: Instant) -> Self {
        let size = f64::from(size);
        Self {
            tokens: size,
            size,
            at: now,
        }
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at);
        let share = passed.as_secs_f64() / WINDOW.as_secs_f64();
        self.tokens = (self.tokens + share * self.size).min(self.size);
        self.at = self.at.max(now);
    }

    fn take(&mut self, now: Instant) -> bool {
        self.fill(now);
        let enough = self.tokens >= 1.0;
        if enough {
            self.tokens -= 1.0;
        }
        enough
    }

    fn is_full(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.tokens >= self.size
    }
}

#[derive(Debug)]
struct Excess<W> {
    since: SystemTime,
    until: SystemTime,
    total: u64,
    untold: Counts,
    /// Since when `untold` counts.
    untold_since: SystemTime,
    last: Instant,
    told: Instant,
    writer: W,
}

#[derive(Debug)]
struct Share<W> {
    events: Bucket,
    reserve: Bucket,
    on_the_way: Arc<AtomicUsize>,
    /// How many events were told in which spell ([`Floods::spell`]).
    at_once: (u64, u32),
    excess: Option<Excess<W>>,
    /// The names that are looked for, and what happened to each last.
    owed: BTreeMap<PathBuf, (Action, SystemTime)>,
}

impl<W> Share<W> {
    fn new(limit: u32, now: Instant) -> Self {
        Self {
            events: Bucket::new(limit, now),
            reserve: Bucket::new(RESERVE, now),
            on_the_way: Arc::default(),
            at_once: (0, 0),
            excess: None,
            owed: BTreeMap::new(),
        }
    }

    /// An event is told in this spell.
    fn tells_in(&mut self, spell: u64) {
        if self.at_once.0 != spell {
            self.at_once = (spell, 0);
        }
        self.at_once.1 = self.at_once.1.saturating_add(1);
    }

    /// Whether a flood goes on, or so many were told in this spell, that others come
    /// first.
    fn has_had_enough(&self, spell: u64, limit: u32) -> bool {
        self.excess.is_some() || self.at_once.0 == spell && self.at_once.1 >= at_once(limit)
    }
}

/// The shares of all homes.
#[derive(Debug)]
pub(super) struct Floods<W> {
    limit: u32,
    homes: HashMap<Home, Share<W>>,
    on_the_way: Arc<Way>,
    /// Whether others wait in the kernel's queue.
    others_wait: bool,
    /// How often nobody did any more.
    spell: u64,
    total: u64,
    looked: Option<Instant>,
}

impl<W> Default for Floods<W> {
    fn default() -> Self {
        Self {
            limit: EVENTS,
            homes: HashMap::new(),
            on_the_way: Arc::default(),
            others_wait: false,
            spell: 0,
            total: 0,
            looked: None,
        }
    }
}

impl<W: Clone> Floods<W> {
    /// So many events of each home are told from now on.
    pub(super) fn limit(&mut self, events: u32) {
        self.limit = events;
        self.homes.retain(|_, share| share.excess.is_some());
    }

    /// Whether others wait in the kernel's queue.
    pub(super) fn mind_others(&mut self, are_waiting: bool) {
        self.others_wait = are_waiting;
    }

    /// Nobody waits in the kernel's queue any more.
    pub(super) fn caught_up(&mut self) {
        self.spell += 1;
        self.others_wait = false;
    }

    /// How many events of all homes were counted instead of told.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// The homes that are flooded now.
    pub(super) fn loud(&self) -> Vec<Home> {
        let flooded = self.homes.iter();
        let flooded = flooded.filter(|(_, share)| share.excess.is_some());
        flooded.map(|(home, _)| Arc::clone(home)).collect()
    }

    /// What is flooded now.
    pub(super) fn present(&self) -> Vec<Present> {
        let flooded = self.homes.iter().filter_map(|(home, share)| {
            let excess = share.excess.as_ref()?;
            Some(Present {
                home: home.to_path_buf(),
                since: excess.since,
                count: excess.total,
            })
        });
        flooded.collect()
    }

    /// Decides on an event at `path`. After [`Verdict::Begin`] the caller has to
    /// say who did it ([`Floods::began`]).
    pub(super) fn admit(
        &mut self,
        home: &Home,
        path: &Path,
        action: Action,
        time: SystemTime,
        now: Instant,
    ) -> Verdict {
        let limit = self.limit;
        let share = self
            .homes
            .entry(Arc::clone(home))
            .or_insert_with(|| Share::new(limit, now));
        let all = self.on_the_way.events.load(Relaxed);
        let mut free = MOST_ON_THE_WAY.saturating_sub(all);
        if self.on_the_way.bytes.load(Relaxed) >= MOST_BYTES {
            free = 0;
        }
        let has_room = share.on_the_way.load(Relaxed) < free.max(LEAST_ON_THE_WAY)
            && !(self.others_wait && share.has_had_enough(self.spell, limit));
        let is_wanted = is_looked_for(home, path);
        if has_room && share.events.take(now) || is_wanted && share.reserve.take(now) {
            // What is there now is told: nothing of it is owed any more.
            share.owed.remove(path);
            share.tells_in(self.spell);
            return Verdict::Tell(Ticket::new(&share.on_the_way, &self.on_the_way));
        }
        if is_wanted && action != Action::Open {
            share.owed.insert(path.to_owned(), (action, time));
        }
        let Some(excess) = &mut share.excess else {
            return Verdict::Begin;
        };
        excess.count(action, time, now);
        self.total += 1;
        Verdict::Count
    }

    /// A flood began with this event of `writer`, or with records that were not
    /// looked at.
    pub(super) fn began(
        &mut self,
        home: &Home,
        action: Option<Action>,
        time: SystemTime,
        now: Instant,
        writer: W,
    ) {
        let limit = self.limit;
        let share = self
            .homes
            .entry(Arc::clone(home))
            .or_insert_with(|| Share::new(limit, now));
        let mut excess = Excess {
            since: time,
            until: time,
            total: 0,
            untold: Counts::default(),
            untold_since: time,
            last: now,
            told: now,
            writer,
        };
        if let Some(action) = action {
            excess.count(action, time, now);
            self.total += 1;
        }
        share.excess = Some(excess);
    }

    /// Whether a flood goes on in this home.
    pub(super) fn is_flooded(&self, home: &Home) -> bool {
        self.homes
            .get(home)
            .is_some_and(|share| share.excess.is_some())
    }

    /// Whether a flood goes on in this home, and nothing of its budget is left.
    pub(super) fn is_spent(&mut self, home: &Home, now: Instant) -> bool {
        let (others_wait, spell, limit) = (self.others_wait, self.spell, self.limit);
        let share = self.homes.get_mut(home);
        share.is_some_and(|share| {
            share.events.fill(now);
            let has_had_enough = others_wait && share.has_had_enough(spell, limit);
            share.excess.is_some() && (share.events.tokens < 1.0 || has_had_enough)
        })
    }

    /// Nothing is left of this home's budget: when it is listened to again, it has what came
    /// back meanwhile.
    pub(super) fn spend(&mut self, home: &Home) {
        if let Some(share) = self.homes.get_mut(home) {
            share.events.tokens = 0.0;
        }
    }

    /// Counts an event of a flood.
    pub(super) fn count(&mut self, home: &Home, action: Action, time: SystemTime, now: Instant) {
        let share = self.homes.get_mut(home);
        if let Some(excess) = share.and_then(|share| share.excess.as_mut()) {
            excess.count(action, time, now);
            self.total += 1;
        }
    }

    /// So many records were not looked at; the flood goes on.
    pub(super) fn unread(&mut self, home: &Home, records: u64, time: SystemTime, now: Instant) {
        let share = self.homes.get_mut(home);
        if let Some(excess) = share.and_then(|share| share.excess.as_mut()) {
            excess.total += records;
            excess.untold.records += records;
            excess.until = time;
            excess.last = now;
            self.total += records;
        }
    }

    /// Room for an event that is told in any case.
    pub(super) fn ticket(&self, home: &Home) -> Option<Ticket> {
        let share = self.homes.get(home)?;
        Some(Ticket::new(&share.on_the_way, &self.on_the_way))
    }

    /// When [`Floods::due`] has something to do next.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let busy = |share: &Share<W>| share.excess.is_some() || !share.owed.is_empty();
        let second = Duration::from_secs(1);
        self.looked
            .filter(|_| self.homes.values().any(busy))
            .map(|looked| looked + second)
    }

    /// Tells what has to be told by the clock: counts of floods, and what became of
    /// names that are looked for. At the `end` all of it.
    pub(super) fn due(&mut self, now: Instant, end: bool) -> (Vec<Flood<W>>, Vec<Owed>) {
        let (mut floods, mut owed) = (Vec::new(), Vec::new());
        let second = Duration::from_secs(1);
        if !end && self.looked.is_some_and(|looked| now < looked + second) {
            return (floods, owed);
        }
        self.looked = Some(now);
        for (home, share) in &mut self.homes {
            while !share.owed.is_empty()
                && (end || share.reserve.take(now))
                && let Some((path, (action, time))) = share.owed.pop_first()
            {
                owed.push(Owed {
                    home: Arc::clone(home),
                    path,
                    action,
                    time,
                });
            }
            let Some(excess) = &mut share.excess else {
                continue;
            };
            let over = end || now.saturating_duration_since(excess.last) >= QUIET;
            let due = now.saturating_duration_since(excess.told) >= SUMMARY;
            if over || due && excess.untold.total() > 0 {
                floods.push(Flood {
                    home: Arc::clone(home),
                    since: excess.untold_since,
                    until: excess.until,
                    counts: std::mem::take(&mut excess.untold),
                    over,
                    writer: excess.writer.clone(),
                });
                excess.told = now;
                excess.untold_since = excess.until;
            }
            if over {
                share.excess = None;
            }
        }
        self.homes.retain(|_, share| {
            share.excess.is_some()
                || !share.owed.is_empty()
                || share.on_the_way.load(Relaxed) > 0
                || !share.events.is_full(now)
                || !share.reserve.is_full(now)
        });
        (floods, owed)
    }
}

impl<W> Excess<W> {
    fn count(&mut self, action: Action, time: SystemTime, now: Instant) {
        self.total += 1;
        self.untold.add(action);
        self.until = time;
        self.last = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: SystemTime = SystemTime::UNIX_EPOCH;

    struct Bench {
        floods: Floods<&'static str>,
        now: Instant,
        tickets: Vec<Ticket>,
    }

    impl Bench {
        fn new(limit: u32) -> Self {
            let mut floods = Floods::default();
            floods.limit(limit);
            Self {
                floods,
                now: Instant::now(),
                tickets: Vec::new(),
            }
        }

        /// Whether it is told.
        fn make(&mut self, home: &str, name: &str) -> bool {
            let path = Path::new(home).join(".ssh").join(name);
            let home: Home = Path::new(home).into();
            let action = Action::Creation;
            match self.floods.admit(&home, &path, action, TIME, self.now) {
                Verdict::Tell(ticket) => {
                    self.tickets.push(ticket);
                    return true;
                }
                Verdict::Begin => {
                    self.floods
                        .began(&home, Some(action), TIME, self.now, "ann");
                }
                Verdict::Count => {}
            }
            false
        }

        fn told(&mut self, home: &str, count: usize) -> usize {
            (0..count)
                .filter(|number| self.make(home, &format!("f{number}")))
                .count()
        }
    }

    #[test]
    fn a_comparison_tells_as_much_of_a_home_as_the_configuration_says() {
        let now = Instant::now();
        let home: Home = Path::new("/home/ann").into();
        let path = home.join(".ssh/some");
        let told = |budgets: &mut Budgets| {
            let taken = (0..1000).filter(|_| budgets.take(&home, &path, now));
            taken.count()
        };
        let mut budgets = Budgets::new(10);
        assert_eq!(told(&mut budgets), 10);
        budgets.limit(10);
        assert_eq!(told(&mut budgets), 0, "nothing has changed");
        budgets.limit(20);
        assert_eq!(told(&mut budgets), 20);
    }

    #[test]
    fn a_flood_is_counted_and_other_homes_have_their_own_share() {
        let mut bench = Bench::new(10);
        assert_eq!(bench.told("/home/ann", 1000), 10);
        assert_eq!(bench.told("/home/bob", 10), 10);
        let present = bench.floods.present();
        assert_eq!(present.len(), 1);
        assert_eq!(present[0].home, Path::new("/home/ann"));
        assert_eq!((present[0].count, bench.floods.total()), (990, 990));

        let (floods, _) = bench.floods.due(bench.now, false);
        assert!(floods.is_empty(), "it goes on");
        bench.now += SUMMARY;
        bench.make("/home/ann", "one");
        bench.tickets.clear();
        // Refilled by a fifth.
        assert_eq!(bench.told("/home/ann", 10), 1);
        let (floods, _) = bench.floods.due(bench.now, false);
        assert_eq!((floods.len(), floods[0].over), (1, false));
        assert_eq!(floods[0].counts.creations, 999);
        assert_eq!(floods[0].writer, "ann");
        bench.now += QUIET;
        let (floods, _) = bench.floods.due(bench.now, false);
        assert_eq!((floods.len(), floods[0].over), (1, true));
        assert_eq!(floods[0].counts.total(), 0);
        assert_eq!(bench.floods.present(), []);
    }

    #[test]
    fn a_name_that_is_looked_for_is_told_in_a_flood_and_its_last_state_later() {
        let mut bench = Bench::new(10);
        bench.told("/home/ann", 50);
        assert!(bench.make("/home/ann", "authorized_keys"));
        assert!(bench.make("/home/ann", "id_ed25519.pub"));
        assert!(!bench.make("/home/ann", "junk"));
        // Not below, where nobody looks for it.
        assert!(!bench.make("/home/ann", "d/authorized_keys"));
        for _ in 0..2 * RESERVE {
            bench.make("/home/ann", "authorized_keys");
        }
        assert!(!bench.make("/home/ann", "authorized_keys"));
        let (_, owed) = bench.floods.due(bench.now, false);
        assert!(owed.is_empty(), "not yet");
        bench.now += WINDOW / RESERVE * 2;
        let (_, owed) = bench.floods.due(bench.now, false);
        let paths: Vec<_> = owed.iter().map(|owed| owed.path.as_path()).collect();
        assert_eq!(paths, [Path::new("/home/ann/.ssh/authorized_keys")]);
    }

    #[test]
    fn while_others_wait_less_is_told_at_once() {
        let mut bench = Bench::new(160);
        let (ann, bob) = ("/home/ann", "/home/bob");
        assert_eq!(bench.told(ann, 20), 20, "nobody waits");
        bench.floods.mind_others(true);
        assert!(!bench.make(ann, "one"), "more than enough was told");
        assert_eq!(bench.told(bob, 20), 10);
        let home: Home = Path::new(ann).into();
        assert!(bench.floods.is_spent(&home, bench.now));
        assert!(bench.make(ann, "authorized_keys"), "it is looked for");
        bench.floods.caught_up();
        assert!(!bench.floods.is_spent(&home, bench.now));
        assert_eq!(bench.told(ann, 20), 20);
        bench.floods.spend(&home);
        assert_eq!(bench.told(ann, 20), 0);
        assert_eq!(bench.told(bob, 20), 20);
    }

    #[test]
    fn homes_that_flood_together_leave_room_for_the_next() {
        let mut bench = Bench::new(100_000);
        assert_eq!(bench.told("/home/u0", 10_000), MOST_ON_THE_WAY / 2);
        for home in 1..50 {
            bench.told(&format!("/home/u{home}"), 10_000);
        }
        assert!(bench.tickets.len() <= MOST_ON_THE_WAY + 50 * LEAST_ON_THE_WAY);
        assert_eq!(bench.told("/home/next", 10_000), LEAST_ON_THE_WAY);
        bench.tickets.clear();
        assert!(bench.make("/home/u0", "id"), "room is given back");
    }

    #[test]
    fn events_that_take_much_memory_are_fewer() {
        let mut bench = Bench::new(100_000);
        let weight = 512 << 10;
        let mut told = 0;
        while bench.make("/home/ann", "big") {
            bench.tickets.last().unwrap().weigh(weight);
            told += 1;
        }
        assert_eq!(told, MOST_BYTES / weight);
        assert_eq!(bench.told("/home/bob", 100), LEAST_ON_THE_WAY);
        // Weighed anew, for what was known of it has changed.
        for ticket in &bench.tickets {
            ticket.weigh(1);
        }
        assert!(bench.make("/home/ann", "small"));
        bench.tickets.clear();
        assert_eq!(bench.floods.on_the_way.bytes.load(Relaxed), 0);
    }

    #[test]
    fn homes_at_rest_are_forgotten() {
        let mut bench = Bench::new(10);
        for home in 0..100 {
            bench.make(&format!("/home/u{home}"), "id");
        }
        bench.tickets.clear();
        bench.now += WINDOW;
        bench.floods.due(bench.now, false);
        assert!(bench.floods.homes.is_empty());
    }
}
