//! Uses of sessions that the database does not know yet.
//!
//! A reader queues the first use after one that is written, without waiting: the queue is an array made at the start. What
//! has been queued is written when the session was not written for [`WRITE_INTERVAL`], at the price of one write a minute
//! and session at most. Where the queue is full the next use tries again.
//!
//! Other nodes know of a use once it is written. So one that comes shortly before the session would seem idle to them, by
//! what is written, is written before it is answered: a session that is used within its idle limit is idle on no node.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::session::{Held, HeldSession};
use super::table::Table;
use crate::domain::id::SessionId;
use crate::domain::time::UnixMillis;
use crate::domain::token::TokenDigest;

/// The least time between two writes of one session's last use.
pub const WRITE_INTERVAL: Duration = Duration::from_mins(1);

/// The queue, and what has been taken out of it and is not written yet.
#[derive(Debug)]
pub struct Uses {
    sender: SyncSender<(SessionId, TokenDigest)>,
    book: Mutex<Book>,
    /// How long before a session would seem idle to other nodes a use is written at once; nothing where there is no other.
    pub(super) lead: Duration,
}

#[derive(Debug)]
struct Book {
    queue: Receiver<(SessionId, TokenDigest)>,
    /// Sessions in memory with a use to write.
    queued: HashMap<SessionId, TokenDigest>,
    /// The last uses of sessions that left memory.
    left: HashMap<SessionId, UnixMillis>,
    left_max: usize,
}

impl Uses {
    /// Room for `uses_max` uses between two flushes, and as many sessions that left memory.
    pub(super) fn new(uses_max: usize, lead: Duration) -> Self {
        let (sender, queue) = sync_channel(uses_max.max(1));
        let book = Book { queue, queued: HashMap::new(), left: HashMap::new(), left_max: uses_max };
        Self { sender, book: Mutex::new(book), lead }
    }

    /// Queues a use, which the session was marked with.
    pub(super) fn queue(&self, session: &HeldSession, digest: TokenDigest) {
        if self.sender.try_send((session.id, digest)).is_err() {
            session.marks.leave_queue();
        }
    }

    /// Remembers the last use of a session that leaves memory. Beyond the room for these it counts as idle since the use
    /// that is written.
    pub(super) fn leave(&self, session: &HeldSession) {
        let mut book = self.lock();
        if session.last_use.is_unwritten() && book.left.len() < book.left_max {
            book.left.insert(session.id, session.last_use.seen());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn take_queue(&mut self) {
        self.queued.extend(self.queue.try_iter());
    }
}

impl Table {
    /// The uses to write at `now`: those of sessions that were not written for [`WRITE_INTERVAL`] or left memory.
    pub fn uses_due(&self, now: UnixMillis) -> Vec<(SessionId, UnixMillis)> {
        self.unwritten(|session| session.last_use.unwritten_for(now) >= WRITE_INTERVAL)
    }

    /// All uses that are not written yet, for the end of the process.
    pub fn uses_unwritten(&self) -> Vec<(SessionId, UnixMillis)> {
        self.unwritten(|_| true)
    }

    /// The last use of a session that the database does not know yet.
    pub fn unwritten_use(&self, session: SessionId) -> Option<UnixMillis> {
        let mut book = self.uses.lock();
        book.take_queue();
        let left = book.left.get(&session).copied();
        let guard = self.sessions.guard();
        let held = book.queued.get(&session).and_then(|digest| self.sessions.get(digest, &guard));
        match held {
            Some(Held::Session(held)) => Some(held.last_use.seen()),
            _ => left,
        }
    }

    /// Takes note of what was written.
    pub fn uses_written(&self, written: &[(SessionId, UnixMillis)]) {
        let written: HashMap<_, _> = written.iter().copied().collect();
        let mut book = self.uses.lock();
        book.left.retain(|id, seen| written.get(id).is_none_or(|upto| *seen > *upto));
        let guard = self.sessions.guard();
        book.queued.retain(|id, digest| {
            let Some(Held::Session(session)) = self.sessions.get(digest, &guard) else { return false };
            let Some(upto) = written.get(id) else { return true };
            session.last_use.learn(*upto);
            session.marks.leave_queue();
            // A use that came in between found the mark and was not queued: it stays in the book.
            session.last_use.is_unwritten() && session.marks.queue()
        });
    }

    /// Takes note that a use was written before it was answered.
    pub fn use_written(&self, digest: &TokenDigest, used: UnixMillis) {
        let guard = self.sessions.guard();
        if let Some(Held::Session(session)) = self.sessions.get(digest, &guard) {
            session.last_use.learn(used);
        }
    }

    fn unwritten(&self, is_due: impl Fn(&HeldSession) -> bool) -> Vec<(SessionId, UnixMillis)> {
        let mut book = self.uses.lock();
        book.take_queue();
        let guard = self.sessions.guard();
        let mut due: Vec<_> = book.left.iter().map(|(id, seen)| (*id, *seen)).collect();
        book.queued.retain(|_, digest| {
            let Some(Held::Session(session)) = self.sessions.get(digest, &guard) else { return false };
            if is_due(session) {
                due.push((session.id, session.last_use.seen()));
            }
            true
        });
        due
    }
}
