//! The deciding thread: events become documents, rules are asked, alerts go out.
//!
//! Owns the rules in force, the names of accounts and the facts of files. What
//! can be slow is here, away from the kernel's queue. What it is told is in
//! [`message`], what it finds of a file in [`look`], and what it says of the daemon
//! itself in [`health`].

mod counted;
mod health;
mod look;
mod message;

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant, SystemTime};

use self::counted::Counted;
use self::look::Looked;
pub use self::message::{Lost, Message, Said};
use super::Inbox;
use super::accounts::Accounts;
use super::baseline::{self, Ledger, Missed, Told};
use super::keys::{Keys, Left, Occasion};
use super::programs::Programs;
use super::rest::Rest;
use super::standing::Standing;
use super::turns::Turns;
use crate::alert::{self, Acts, Document, Gap, KeyReport, Loss, LossKind, Origin};
use crate::baseline::Made;
use crate::event::assemble::Assembled;
use crate::event::{Action, Event, FileFacts, FileKind, FinalPath};
use crate::resolve::clients::Clients;
use crate::resolve::logins::Login;
use crate::resolve::session::{Session, Sessions};
use crate::resolve::{Attribution, Process, secrets};
use crate::rule::{Rule, RuleSet, Suppressor, Verdict};
use crate::sink::{Fanout, Line, Receipt};
use crate::sys::memory::give_back;
use crate::watch::beat::Beat;
use crate::watch::deadline::{LIMIT, Overdue};
use crate::watch::mounts::Mounts;

/// Behind the thread that watches (nice(2)): what piles up there does so in the order
/// it came, and here homes take turns.
const NICE: i32 = -5;
/// How often the sinks are asked what they have to tell.
const TICK: Duration = Duration::from_secs(1);

/// The thread.
pub struct Deciding {
    rules: RuleSet,
    origin: Origin,
    fanout: Arc<Fanout>,
    accounts: Accounts,
    keys: Keys,
    ledger: Option<Ledger>,
    programs: Programs,
    suppressor: Suppressor,
    counted: Counted,
    mounts: Mounts,
    /// Until then nothing is asked of a server that has not answered.
    silent: Option<Instant>,
    sessions: Sessions,
    acts: Acts,
    /// How it is watched while all is well.
    mode: String,
    /// Why openers are not held at present.
    released: Option<String>,
    /// Promises that the trial at the start did not find kept.
    tried: Vec<String>,
    /// How many alerts were raised.
    raised: u64,
    beat: Arc<Beat>,
    standing: Standing,
    /// What waits to be decided.
    turns: Turns<Happening>,
    ended: bool,
}

/// What is to be decided.
enum Happening {
    Event(Box<Assembled<Attribution>>, Option<Box<Left>>),
    Missed(Box<Missed>),
}

impl Deciding {
    /// Puts it together.
    ///
    /// # Errors
    /// Threads for slow look-ups cannot be started.
    pub fn new(
        rules: RuleSet,
        origin: Origin,
        fanout: Arc<Fanout>,
        keys: Keys,
        clients: Clients,
        programs: Programs,
        ledger: Option<Ledger>,
    ) -> io::Result<Self> {
        Ok(Self {
            rules,
            mode: origin.mode.clone(),
            origin,
            fanout,
            accounts: Accounts::new()?,
            keys,
            ledger,
            programs,
            suppressor: Suppressor::new(),
            counted: Counted::default(),
            mounts: Mounts::new(),
            silent: None,
            sessions: Sessions::start(clients)?,
            acts: Acts::default(),
            released: None,
            tried: Vec::new(),
            raised: 0,
            beat: Arc::default(),
            standing: Standing::default(),
            turns: Turns::default(),
            ended: false,
        })
    }

    /// Ticks while the thread gets on; at least with each `TICK` when there is
    /// nothing to do.
    #[must_use]
    pub fn beat(&self) -> Arc<Beat> {
        Arc::clone(&self.beat)
    }

    /// Runs until [`Message::End`].
    pub fn run(mut self, inbox: &Inbox) {
        let _ = crate::sys::thread::nice(NICE);
        let mut looked = Instant::now();
        let mut rest = Rest::since(looked);
        while !self.ended {
            self.beat.tick();
            let patience = if self.turns.is_empty() {
                TICK
            } else {
                Duration::ZERO
            };
            match inbox.recv_timeout(patience) {
                Ok(message) => self.sort(message),
                Err(RecvTimeoutError::Disconnected) => self.sort(Message::End),
                Err(RecvTimeoutError::Timeout) => {}
            }
            // All that has come, before the next one is chosen.
            while !self.ended
                && let Ok(message) = inbox.try_recv()
            {
                self.sort(message);
            }
            if self.next() {
                rest = Rest::since(Instant::now());
            }
            if looked.elapsed() >= TICK {
                looked = Instant::now();
                if rest.is_due(looked) {
                    give_back();
                }
                self.suppressed(|suppressor| suppressor.ended(SystemTime::now()));
                self.untold_problems(false);
            }
            self.sink_reports();
        }
        self.suppressed(Suppressor::finish);
        self.sink_reports();
    }

    /// Decides what is next, if there is something; says whether there was.
    fn next(&mut self) -> bool {
        match self.turns.pop() {
            Some(Happening::Event(assembled, left)) => {
                self.decide(*assembled, left.as_deref(), None, None, None);
            }
            Some(Happening::Missed(missed)) => self.missed(*missed),
            None => return false,
        }
        true
    }

    /// Lets events wait for their turn, and takes everything else at once. What
    /// speaks of all before it waits for that.
    fn sort(&mut self, message: Message) {
        match message {
            Message::Event(event, left) => {
                let home = event.home.clone();
                self.turns.push(home, Happening::Event(event, left));
            }
            Message::Missed(missed) => {
                let home = missed.assembled.home.clone();
                self.turns.push(home, Happening::Missed(missed));
            }
            Message::Rules(_) | Message::State(_) | Message::Tried(_) | Message::End => {
                while self.next() {
                    self.beat.tick();
                }
                self.ended = matches!(message, Message::End);
                self.take(message);
            }
            other => self.take(other),
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            // They have their turns.
            Message::Event(..) | Message::Missed(_) | Message::End => {}
            Message::Flood(flood) => self.flood(*flood),
            Message::Fault(code, reason) => {
                tracing::error!("{reason}");
                self.standing.lost(code, 1);
                self.fault(code, None, &reason);
            }
            Message::Problem(time, since, problem) => self.problem(time, since, &problem),
            Message::Lost(lost) => self.lost(lost),
            Message::Rules(rules) => {
                rules.inherit(&self.rules);
                self.standing.rules(&rules);
                self.rules = *rules;
            }
            // Who asked may have waited long enough.
            Message::Status(reply) => drop(reply.try_send(self.told())),
            Message::State(said) => self.say(*said),
            Message::Dropped(count, since) => {
                let reason = "they came faster than they could be decided";
                tracing::error!("{count} events were dropped: {reason}");
                self.loss(&Loss {
                    time: SystemTime::now(),
                    since: Some(since),
                    kind: LossKind::Dropped,
                    code: "events_dropped",
                    count: Some(count),
                    reason,
                });
            }
            Message::Overdue(Overdue(count)) => {
                self.standing.overdue(count);
                let limit = LIMIT.as_millis();
                let reason = format!(
                    "{count} openers waited longer than {limit} ms and were let go unidentified"
                );
                tracing::warn!("{reason}");
                self.fault("hold_overdue", Some(count), &reason);
            }
            Message::Released(why, pause) => self.released(&why, pause),
            Message::HeldAgain => self.held_again(),
            Message::Tried(problems) => {
                if !problems.is_empty() {
                    let reason = problems.join("; ");
                    let now = SystemTime::now();
                    self.standing.trouble("self_test_failed", None, reason, now);
                }
                self.tried = problems;
                self.update_condition();
            }
            Message::WatchEnded(error) => {
                self.degraded(
                    "watch_ended",
                    &format!("nothing is watched any more: {error}"),
                );
            }
        }
    }

    fn missed(&mut self, missed: Missed) {
        let Missed {
            assembled,
            gap,
            told,
            before,
            record,
            waiting: _waiting,
        } = missed;
        self.keys.recall(&assembled.event.path, before.as_deref());
        self.decide(assembled, None, gap, told.as_ref(), record);
    }

    /// `told` is what stands in the log of it, `record` what a comparison has found.
    fn decide(
        &mut self,
        assembled: Assembled<Attribution>,
        left: Option<&Left>,
        gap: Option<Gap>,
        told: Option<&Told>,
        record: Option<crate::baseline::Record>,
    ) {
        // The room that it takes is given back at the end.
        let Assembled {
            mut event,
            object,
            home,
            ticket: _ticket,
            content: _,
        } = assembled;
        let place = match &event.final_path {
            Some(FinalPath::Renamed(path)) => path.as_path(),
            _ => event.path.as_path(),
        };
        let Looked {
            file,
            facts,
            metadata,
            object,
            is_apart,
        } = self.look(place, object);
        event.facts = facts.map(|facts| self.complete(facts, file.as_ref()));
        self.beat.tick();
        self.name(&mut event.writer);
        self.programs.tell(&mut event.writer);
        secrets::hide(&mut event.writer);
        let session = self.session(&event.writer);
        let mut document = alert::event_document(&event, &self.origin);
        alert::set_session(&mut document, &session, &self.origin);
        if let Some(gap) = &gap {
            alert::set_gap(&mut document, gap);
        }
        if let Some(told) = told {
            told.recall(&mut document);
        }
        let key = match (file, &event.facts) {
            (Some(file), Some(facts)) if facts.kind == FileKind::File => {
                let occasion = Occasion::of(&event, left);
                let (report, lesson) = self.keys.report(file.into(), place, occasion);
                alert::set_key(&mut document, &report);
                Some((report, lesson))
            }
            (None, _) if event.action == Action::Deletion => {
                self.keys.deleted(&event.path, is_apart, &mut document);
                None
            }
            _ => None,
        };
        tracing::debug!(
            action = event.action.as_str(),
            path = %crate::text::escape_path(&event.path),
            method = event.writer.method.as_str(),
            "event"
        );
        let today = jiff::ZonedDateTime::now().date();
        let decision = match event.action {
            Action::Open => self.rules.decide_open(document.as_map(), today),
            _ => self.rules.decide(document.as_map(), today),
        };
        for (rule, exception) in &decision.excepted {
            tracing::debug!(rule = rule.name, reason = exception.reason(), "excepted");
        }
        let (mut raising, mut receipts) = (Vec::new(), Vec::new());
        for rule in decision.matches {
            if let Some(told) = told
                && told.has(&alert::event_id(&document, rule))
            {
                continue;
            }
            let place = home.as_deref();
            match self.suppressor.admit(rule, place, &document, event.time) {
                Verdict::Raise => {
                    self.standing.raised(&rule.id, event.time);
                    raising.push(rule);
                }
                Verdict::Suppress(window) => {
                    receipts.push(self.counted.receipt(window, &rule.name));
                }
            }
        }
        if let Some((report, lesson)) = &key {
            self.keys.remember(place, report, *lesson);
        }
        let (made, alerts) = alerts_of(document, &raising);
        let made = told.map_or(made, |told| told.made().clone());
        let receipt = (!alerts.is_empty()).then(Receipt::default);
        if let Some(receipt) = &receipt {
            let key = key.as_ref().map(|(report, _)| (report, place));
            self.raise(alerts, receipt, &session, &event, key);
        }
        receipts.extend(receipt);
        let inspection = key.and_then(|(report, _)| report.inspection.ok());
        let found = baseline::Found {
            metadata,
            object,
            inspection,
            is_apart,
        };
        self.keep(&event, &found, record, made, receipts);
    }

    /// Has what became of the file kept, after its alerts: what is told and not stored
    /// is found again.
    fn keep(
        &self,
        event: &Event<Attribution>,
        found: &baseline::Found,
        record: Option<crate::baseline::Record>,
        made: Made,
        receipts: Vec<Receipt>,
    ) {
        if let Some(ledger) = &self.ledger
            && event.action != Action::Open
        {
            // What could be compared, and does not answer now, is not told again.
            let record = record.filter(|_| event.action != Action::Deletion);
            let update = baseline::update(event, found, made.clone(), receipts.clone());
            let told = || record.map(|record| baseline::told(event, record, made, receipts));
            if let Some(update) = update.or_else(told) {
                ledger.update(update);
            }
        }
    }

    /// Adds names and the mount to facts.
    fn complete(&mut self, mut facts: FileFacts, file: Option<&File>) -> FileFacts {
        facts.owner = self.accounts.user(facts.uid);
        facts.group = self.accounts.group(facts.gid);
        facts.mount = file.and_then(|file| self.mounts.of(file));
        facts
    }

    /// Sends the alerts about an event out.
    fn raise(
        &mut self,
        alerts: Vec<Document>,
        receipt: &Receipt,
        session: &Session,
        event: &Event<Attribution>,
        key: Option<(&KeyReport, &Path)>,
    ) {
        self.raised += alerts.len() as u64;
        let logins = self.logins(session, event);
        for mut alert in alerts {
            alert::set_logins(&mut alert, &logins);
            if let Some((report, place)) = key {
                alert::set_response(&mut alert, report, place);
            }
            self.acts.join(&mut alert);
            self.fanout.send_for(&Line::new(alert.into_map()), receipt);
        }
    }

    /// The session that the writer acted in.
    fn session(&mut self, writer: &Attribution) -> Session {
        let mut session = self.sessions.of(writer);
        if let Some((login, _)) = &mut session.login {
            login.name = self.accounts.user(login.id);
        }
        session
    }

    /// The last logins of who logged in, or else of who acted.
    fn logins(&mut self, session: &Session, event: &Event<Attribution>) -> Vec<Login> {
        let login = session.login.as_ref().map(|(login, _)| login);
        let process = event.writer.process.as_ref();
        let acting = process.and_then(|process| process.credentials.as_ref());
        let acting = acting.map(|credentials| &credentials.real_user);
        let Some(account) = login.or(acting) else {
            return Vec::new();
        };
        let name = account.name.as_deref();
        name.map(|name| self.sessions.logins(name, account.id, event.time))
            .unwrap_or_default()
    }

    /// Tells what rules suppressed, once a window.
    fn suppressed(&mut self, of: impl FnOnce(&mut Suppressor) -> Vec<crate::rule::Suppressed>) {
        for suppressed in of(&mut self.suppressor) {
            let time = SystemTime::now();
            let document = alert::suppressed(&suppressed, time, &self.origin);
            let line = Line::new(document.into_map());
            let send = |receipt: &Receipt| self.fanout.send_for(&line, receipt);
            self.counted.tell(suppressed.window, send);
        }
    }

    /// Fills in the names of accounts.
    fn name(&mut self, attribution: &mut Attribution) {
        let processes = attribution
            .process
            .iter_mut()
            .chain(&mut attribution.ancestors);
        for process in processes {
            // Each name may take a name service some time.
            self.beat.tick();
            let Process {
                credentials: Some(credentials),
                ..
            } = process
            else {
                continue;
            };
            for user in [&mut credentials.real_user, &mut credentials.effective_user] {
                user.name = self.accounts.user(user.id);
            }
            for group in [
                &mut credentials.real_group,
                &mut credentials.effective_group,
            ] {
                group.name = self.accounts.group(group.id);
            }
        }
    }

    fn out(&self, document: Document) {
        self.fanout.send(&Line::new(document.into_map()));
    }
}

/// The alerts of these rules on an event, and who made its file.
fn alerts_of(document: Document, raising: &[&Rule]) -> (Made, Vec<Document>) {
    let Some((last, others)) = raising.split_last() else {
        return (baseline::made(&document), Vec::new());
    };
    let others = others.iter();
    let mut alerts: Vec<Document> = others
        .map(|rule| alert::alert(document.clone(), rule))
        .collect();
    let last = alert::alert(document, last);
    let made = baseline::made(alerts.first().unwrap_or(&last));
    alerts.push(last);
    (made, alerts)
}
