//! Group commit: sessions that are ended at the same time are ended in one transaction, so that a crowd of log-outs takes
//! the head of the log once and not a thousand times.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt as _;
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use crate::store::{self, Change, EndTarget, Ending, Stamp, Store, StoreError};
use crate::supervise::Supervisor;

/// Endings of one transaction.
const GROUP_MAX: usize = 256;
/// Endings that may wait; each waits for at most this many divided by [`GROUP_MAX`] transactions.
const WAITING_MAX: usize = 16_384;
/// Endings of a group that failed together which are tried one by one at the same time.
const SINGLY_MAX: usize = 8;

/// Who ends sessions.
#[derive(Clone)]
pub(super) struct Endings {
    store: Arc<dyn Store>,
    supervisor: Supervisor,
    tasks: TaskTracker,
    queue: Arc<Mutex<Queue>>,
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
}

impl Endings {
    pub(super) fn new(store: Arc<dyn Store>, supervisor: Supervisor) -> Self {
        Self { store, supervisor, tasks: TaskTracker::new(), queue: Arc::default() }
    }

    /// Ends what `ending` names, with whatever else is ended at the time. Runs to its end without its caller.
    pub(super) async fn end(&self, ending: Ending, stamp: Stamp) -> store::Result<Change> {
        let (tell, told) = oneshot::channel();
        let begin = {
            let mut queue = self.lock();
            if queue.waiting.len() >= WAITING_MAX {
                return Err(StoreError::Unavailable("too many endings wait for the database".to_owned()));
            }
            queue.waiting.push_back(Waiting { ending, stamp, tell });
            !std::mem::replace(&mut queue.committing, true)
        };
        if begin {
            let this = self.clone();
            self.tasks.spawn(async move {
                let supervisor = this.supervisor.clone();
                supervisor.run_for_requests("endings", || this.clone().commit_all()).await;
            });
        }
        told.await.unwrap_or_else(|_| {
            Err(StoreError::OutcomeUnknown("the task ended without an answer".to_owned()))
        })
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
        if group.len() > 1 {
            let endings: Vec<_> = group.iter().map(|one| one.ending).collect();
            match self.store.end_sessions_together(&endings, first.stamp).await {
                Ok(changes) => {
                    for (one, change) in group.into_iter().zip(changes) {
                        // Who does not wait any more does not miss it.
                        let _ = one.tell.send(Ok(change));
                    }
                    return;
                }
                Err(StoreError::OutcomeUnknown(why)) => {
                    tell_all(group, || StoreError::OutcomeUnknown(why.clone()));
                    return;
                }
                // One after the other they would wait as long as each of them may take.
                Err(StoreError::Unavailable(why)) => {
                    tell_all(group, || StoreError::Unavailable(why.clone()));
                    return;
                }
                // Nothing was changed. What is wrong with one of them must not fail the others.
                Err(StoreError::Corrupt(_)) => {}
            }
        }
        let singly = futures_util::stream::iter(group).for_each_concurrent(SINGLY_MAX, async |one| {
            let answer = self.store.end_sessions(one.ending.target, one.ending.reason, one.stamp).await;
            let _ = one.tell.send(answer);
        });
        singly.await;
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
