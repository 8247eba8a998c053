//! What callers of a fleet write down: each call with its ticks, its moments, and the node that was asked.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use latchkey::domain::time::BootTime;
use latchkey::host::{Clock as _, SystemClock};

use crate::history::books::Known;
use crate::history::checker::{Answer, Call, Event, Outcome, Target};

/// A process of the program: the place of the node, and how many were there before.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Process {
    pub slot: usize,
    pub incarnation: usize,
}

/// One call.
#[derive(Clone, Debug)]
pub struct Entry {
    pub process: Process,
    pub call: Call,
    pub began: BootTime,
    pub ended: BootTime,
    /// Why nobody knew; none for an answer.
    pub why: Option<String>,
}

/// A call that began.
#[derive(Clone, Copy, Debug)]
pub struct Begun {
    tick: u64,
    at: BootTime,
}

/// The books of one run.
#[derive(Default)]
pub struct Log {
    ticks: AtomicU64,
    entries: Mutex<Vec<Entry>>,
    sessions: Mutex<Vec<Known>>,
}

impl Log {
    /// A call begins.
    pub fn begin(&self) -> Begun {
        Begun { at: now(), tick: self.ticks.fetch_add(1, Ordering::SeqCst) }
    }

    /// A call has ended.
    pub fn end(&self, process: Process, begun: Begun, event: Event, why: Option<String>) {
        let call = Call { begin: begun.tick, end: self.ticks.fetch_add(1, Ordering::SeqCst), event };
        lock(&self.entries).push(Entry { process, call, began: begun.at, ended: now(), why });
    }

    /// A fail-over lost the commits after `since`. It may have ended each session that was made since then, which is no
    /// log-out that nobody asked for: it is recorded as a revocation whose outcome is unknown.
    pub fn lose_commits_since(&self, since: BootTime) {
        let lost = |entry: &Entry| match &entry.call.event {
            Event::SignedIn { session, .. } if entry.ended >= since => Some((entry.process, session.clone())),
            _ => None,
        };
        for (process, session) in self.entries().iter().filter_map(lost) {
            let (target, outcome) = (Target::Session(session), Outcome::Unknown);
            self.end(process, self.begin(), Event::Revoked { target, outcome }, Some("FAIL_OVER".to_owned()));
        }
    }

    /// Writes down a token.
    pub fn know(&self, session: Known) {
        lock(&self.sessions).push(session);
    }

    /// The session so far back, if there is one.
    pub fn session_back(&self, back: usize) -> Option<Known> {
        let sessions = lock(&self.sessions);
        sessions.len().checked_sub(1 + back).and_then(|at| sessions.get(at).cloned())
    }

    /// How many sessions there ever were.
    pub fn sessions_count(&self) -> usize {
        lock(&self.sessions).len()
    }

    /// All calls so far.
    pub fn entries(&self) -> Vec<Entry> {
        lock(&self.entries).clone()
    }

    /// How many calls that began after `since` are `such`.
    pub fn count(&self, since: BootTime, such: impl Fn(&Entry) -> bool) -> usize {
        let entries = lock(&self.entries);
        // Calls end within seconds, so those that began later are all near the end.
        let recent = entries.iter().rev().take_while(|entry| entry.ended >= since);
        recent.filter(|entry| entry.began >= since && such(entry)).count()
    }

    /// When the first call that began after `since` and is `such` was answered.
    pub fn first(&self, since: BootTime, such: impl Fn(&Entry) -> bool) -> Option<BootTime> {
        let entries = lock(&self.entries);
        let recent = entries.iter().rev().take_while(|entry| entry.ended >= since);
        recent.filter(|entry| entry.began >= since && such(entry)).map(|entry| entry.ended).min()
    }
}

impl Entry {
    /// Whether a session was asked about, whatever the answer was.
    pub fn is_question(&self) -> bool {
        matches!(self.call.event, Event::Asked { .. } | Event::Unavailable)
    }

    /// Whether the node said that a session is good.
    pub fn is_good(&self) -> bool {
        matches!(self.call.event, Event::Asked { answer: Answer::Good, .. })
    }

    /// Whether a question was not answered.
    pub fn is_unknown(&self) -> bool {
        self.call.event == Event::Unavailable
    }

    /// Whether sessions were ended, for certain.
    pub fn is_revocation(&self) -> bool {
        matches!(self.call.event, Event::Revoked { outcome: Outcome::Done, .. })
    }

    /// Whether sessions were to be ended and perhaps were not.
    pub fn is_failed_revocation(&self) -> bool {
        matches!(self.call.event, Event::Revoked { outcome: Outcome::Unknown, .. })
    }

    /// Whether a question was not answered for this reason.
    pub fn is_refused_for(&self, reason: &str) -> bool {
        self.is_unknown() && self.why.as_deref() == Some(reason)
    }

    /// How long it took.
    pub fn took(&self) -> Duration {
        self.ended.since(self.began)
    }
}

/// The time by a clock that never stands still.
pub fn now() -> BootTime {
    SystemClock.boottime()
}

fn lock<T>(list: &Mutex<T>) -> MutexGuard<'_, T> {
    list.lock().unwrap_or_else(PoisonError::into_inner)
}
