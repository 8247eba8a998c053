//! Group commit: sessions that are ended at the same time are ended in one transaction, so that a crowd of log-outs takes
//! the head of the log once and not a thousand times.
//!
//! A group waits for no lock. What another transaction has locked is left out of it, and is tried again beside the groups
//! that follow: one user's lock delays nobody else. It fails alone when the lock outlasts it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_util::task::TaskTracker;

use super::driver::pause;
use crate::store::{self, Change, EndTarget, Ending, Stamp, Store, StoreError};
use crate::supervise::Supervisor;

/// Endings of one transaction.
const GROUP_MAX: usize = 256;
/// Endings that may wait; each waits for at most this many divided by [`GROUP_MAX`] transactions.
const WAITING_MAX: usize = 16_384;
/// Endings of a group that failed together which are tried one by one at the same time.
const SINGLY_MAX: usize = 8;
/// Endings that may be set aside because of locked rows.
const ASIDE_MAX: usize = 4_096;
/// Endings that wait for a lock in the database, each on a connection of its own; few, so that a crowd of callers of a locked
/// user leaves connections to the others.
const BLOCKED_MAX: usize = 2;
/// How long an ending is set aside. Most locks are short, since other nodes write too.
const ASIDE: Duration = Duration::from_millis(25);
/// How often an ending is tried again for which no connection is left to wait on; for about four seconds in all.
const TRIES_MAX: u32 = 160;

/// Who ends sessions.
#[derive(Clone)]
pub(super) struct Endings {
    store: Arc<dyn Store>,
    supervisor: Supervisor,
    tasks: TaskTracker,
    queue: Arc<Mutex<Queue>>,
    aside: Arc<Semaphore>,
    blocked: Arc<Semaphore>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    committing: bool,
}

struct Waiting {
    ending: Ending,
    stamp: Stamp,
    tell: oneshot::Sender<store::Result<Change>>,
    /// How often a row that it needs was found locked.
    tries: u32,
    /// Its place among those set aside, once it is.
    place: Option<OwnedSemaphorePermit>,
}

impl Endings {
    pub(super) fn new(store: Arc<dyn Store>, supervisor: Supervisor) -> Self {
        let (aside, blocked) = (Arc::new(Semaphore::new(ASIDE_MAX)), Arc::new(Semaphore::new(BLOCKED_MAX)));
        Self { store, supervisor, tasks: TaskTracker::new(), queue: Arc::default(), aside, blocked }
    }

    /// Ends what `ending` names, with whatever else is ended at the time. Runs to its end without its caller.
    pub(super) async fn end(&self, ending: Ending, stamp: Stamp) -> store::Result<Change> {
        let (tell, told) = oneshot::channel();
        if self.lock().waiting.len() >= WAITING_MAX {
            return Err(StoreError::Unavailable("too many endings wait for the database".to_owned()));
        }
        self.enqueue(Waiting { ending, stamp, tell, tries: 0, place: None });
        told.await.unwrap_or_else(|_| {
            Err(StoreError::OutcomeUnknown("the task ended without an answer".to_owned()))
        })
    }

    fn enqueue(&self, one: Waiting) {
        let begin = {
            let mut queue = self.lock();
            queue.waiting.push_back(one);
            !std::mem::replace(&mut queue.committing, true)
        };
        if begin {
            let this = self.clone();
            self.tasks.spawn(async move {
                let supervisor = this.supervisor.clone();
                supervisor.run_for_requests("endings", || this.clone().commit_all()).await;
            });
        }
    }

    /// Commits group by group until nobody waits.
    async fn commit_all(self) {
        loop {
            let group = {
                let mut queue = self.lock();
                if queue.waiting.is_empty() {
                    queue.committing = false;
                    return;
                }
                take_group(&mut queue.waiting)
            };
            self.commit(group).await;
        }
    }

    async fn commit(&self, group: Vec<Waiting>) {
        let [first, ..] = group.as_slice() else { return };
        let endings: Vec<_> = group.iter().map(|one| one.ending).collect();
        match self.store.end_sessions_together(&endings, first.stamp).await {
            Ok(changes) => {
                for (one, change) in group.into_iter().zip(changes) {
                    self.answer(one, change);
                }
            }
            Err(StoreError::OutcomeUnknown(why)) => {
                tell_all(group, || StoreError::OutcomeUnknown(why.clone()));
            }
            // One after the other they would wait as long as each of them may take.
            Err(StoreError::Unavailable(why)) => tell_all(group, || StoreError::Unavailable(why.clone())),
            Err(StoreError::Corrupt(why)) if group.len() == 1 => {
                tell_all(group, || StoreError::Corrupt(why.clone()));
            }
            // Nothing was changed. What is wrong with one of them must not fail the others.
            Err(StoreError::Corrupt(_)) => {
                let singly = futures_util::stream::iter(group);
                singly.for_each_concurrent(SINGLY_MAX, |one| self.commit_alone(one)).await;
            }
        }
    }

    async fn commit_alone(&self, one: Waiting) {
        match self.store.end_sessions_together(&[one.ending], one.stamp).await {
            Ok(mut changes) => self.answer(one, changes.pop().flatten()),
            Err(error) => _ = one.tell.send(Err(error)),
        }
    }

    /// Tells the change, or sets the ending aside. Who does not wait any more does not miss the answer.
    fn answer(&self, mut one: Waiting, change: Option<Change>) {
        if let Some(change) = change {
            let _ = one.tell.send(Ok(change));
            return;
        }
        one.tries += 1;
        if one.place.is_none() {
            one.place = Arc::clone(&self.aside).try_acquire_owned().ok();
        }
        if one.place.is_none() || one.tries > TRIES_MAX {
            let why = "another transaction has locked what is to be ended, and does not end";
            let _ = one.tell.send(Err(StoreError::Unavailable(why.to_owned())));
            return;
        }
        // The group may have written rows of this nonce, and no other row of the same number may ever have it.
        one.stamp.nonce = one.stamp.nonce.next();
        let this = self.clone();
        self.tasks.spawn(async move { this.try_again(one).await });
    }

    /// Waits for the lock if a connection may be spent on it; otherwise it is tried again in a group. The first time it is
    /// anyway.
    async fn try_again(self, one: Waiting) {
        pause(ASIDE).await;
        match self.blocked.try_acquire() {
            Ok(_permit) if one.tries > 1 => {
                let answer = self.store.end_sessions(one.ending.target, one.ending.reason, one.stamp).await;
                let _ = one.tell.send(answer);
            }
            _ => self.enqueue(one),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tell_all(group: Vec<Waiting>, why: impl Fn() -> StoreError) {
    for one in group {
        let _ = one.tell.send(Err(why()));
    }
}

/// The first that wait, and that can go together: an end of everyone goes alone.
fn take_group(waiting: &mut VecDeque<Waiting>) -> Vec<Waiting> {
    let alone = |one: &Waiting| one.ending.target == EndTarget::Everyone;
    let upto = waiting.iter().position(alone).unwrap_or(waiting.len()).clamp(1, GROUP_MAX);
    waiting.drain(..upto).collect()
}
