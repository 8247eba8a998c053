//! What callers write down while they call, each for all: the calls with their ticks, and the tokens they got.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::checker::{Call, Event};

/// The books of one history.
#[derive(Default)]
pub struct Books {
    ticks: AtomicU64,
    sessions: Mutex<Vec<Known>>,
    history: Mutex<Vec<Call>>,
}

/// A session that somebody holds the token of.
#[derive(Clone)]
pub struct Known {
    pub id: String,
    pub token: String,
    pub user: String,
}

impl Books {
    /// Draws the next number.
    pub fn tick(&self) -> u64 {
        self.ticks.fetch_add(1, Ordering::SeqCst)
    }

    /// Writes down a call that began at `begin` and has just ended.
    pub fn record(&self, begin: u64, events: impl IntoIterator<Item = Event>) {
        let end = self.tick();
        lock(&self.history).extend(events.into_iter().map(|event| Call { begin, end, event }));
    }

    /// Writes down a token.
    pub fn know(&self, session: Known) {
        lock(&self.sessions).push(session);
    }

    /// All sessions so far, in the order of their making.
    pub fn sessions(&self) -> Vec<Known> {
        lock(&self.sessions).clone()
    }

    /// All calls so far.
    pub fn history(&self) -> Vec<Call> {
        lock(&self.history).clone()
    }
}

fn lock<T>(list: &Mutex<Vec<T>>) -> MutexGuard<'_, Vec<T>> {
    list.lock().unwrap_or_else(PoisonError::into_inner)
}
