//! Wakes the other nodes and reads what they have applied, for all who wait for it at the same time: one statement after
//! the other, however many revocations wait. Nobody is told of a read that began before they did.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::driver::pause;
use crate::store::coordination::{Coordination, Roster};
use crate::supervise::Supervisor;

/// Where all is well the nodes have applied a change within a few milliseconds, so the first reads follow each other at once;
/// then there is a pause that grows by half each time, until somebody new begins to watch.
const PAUSE_FIRST: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(20);
const FIRST_READS: u32 = 8;

/// Reads the list of nodes while somebody wants to see it.
#[derive(Clone)]
pub(super) struct Lookout {
    coordination: Arc<dyn Coordination>,
    supervisor: Supervisor,
    tasks: TaskTracker,
    state: Arc<Mutex<State>>,
    seen: watch::Sender<Seen>,
}

#[derive(Default)]
struct State {
    watching: usize,
    is_reading: bool,
    /// The number of the last read that has begun.
    begun: u64,
    /// Whether somebody began to watch since then, and whether one of them has news for the other nodes.
    has_new: bool,
    has_news: bool,
}

/// A read that is about to begin.
struct Turn {
    number: u64,
    has_new: bool,
    has_news: bool,
}

/// The last read that was answered.
#[derive(Clone, Default)]
struct Seen {
    number: u64,
    roster: Option<Arc<Roster>>,
}

impl Lookout {
    pub(super) fn new(coordination: Arc<dyn Coordination>, supervisor: Supervisor) -> Self {
        let (seen, _) = watch::channel(Seen::default());
        Self { coordination, supervisor, tasks: TaskTracker::new(), state: Arc::default(), seen }
    }

    /// Begins to watch: reads that begin from now on count. Where there are news in the log, the other nodes are woken.
    pub(super) fn watch(&self, has_news: bool) -> Watch {
        let (after, begin) = {
            let mut state = self.lock();
            state.watching += 1;
            state.has_new = true;
            state.has_news |= has_news;
            (state.begun, !std::mem::replace(&mut state.is_reading, true))
        };
        let watch = Watch { lookout: self.clone(), seen: self.seen.subscribe(), after };
        if begin {
            let this = self.clone();
            self.tasks.spawn(async move {
                let supervisor = this.supervisor.clone();
                supervisor.run_for_requests("lookout", || this.clone().read_on()).await;
            });
        }
        watch
    }

    /// Reads again and again until nobody watches.
    async fn read_on(self) {
        let (mut span, mut first_reads) = (PAUSE_FIRST, FIRST_READS);
        while let Some(Turn { number, has_new, has_news }) = self.next_turn() {
            let (roster, ()) = tokio::join!(self.coordination.nodes(), self.wake(has_news));
            match roster {
                Ok(roster) => {
                    self.seen.send_replace(Seen { number, roster: Some(Arc::new(roster)) });
                }
                Err(error) => tracing::debug!(%error, "the nodes could not be read"),
            }
            if has_new {
                (span, first_reads) = (PAUSE_FIRST, FIRST_READS);
            }
            if first_reads > 0 {
                first_reads -= 1;
            } else {
                pause(span).await;
                span = (span + span / 2).min(PAUSE_MAX);
            }
        }
    }

    async fn wake(&self, has_news: bool) {
        if has_news && let Err(error) = self.coordination.hint().await {
            tracing::debug!(%error, "the other nodes were not woken; they poll all the same");
        }
    }

    /// The next read; none where nobody watches, which ends the reading.
    fn next_turn(&self) -> Option<Turn> {
        let mut state = self.lock();
        if state.watching == 0 {
            // News whose watcher went away are news all the same.
            state.is_reading = state.has_news;
            if !state.has_news {
                return None;
            }
        }
        state.begun += 1;
        Some(Turn {
            number: state.begun,
            has_new: std::mem::take(&mut state.has_new),
            has_news: std::mem::take(&mut state.has_news),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who wants to see the list of nodes.
pub(super) struct Watch {
    lookout: Lookout,
    seen: watch::Receiver<Seen>,
    after: u64,
}

impl Watch {
    /// The nodes, by a read that began after this watch, and later than the one that was seen before. While the database
    /// does not answer it waits.
    pub(super) async fn next(&mut self) -> Arc<Roster> {
        let after = self.after;
        let later = self.seen.wait_for(|seen| seen.number > after && seen.roster.is_some());
        let seen = later.await.map(|seen| Seen::clone(&seen)).unwrap_or_default();
        let Some(roster) = seen.roster else {
            // Nobody can tell any more, since the sender is gone; this watch holds it, so it is not.
            return std::future::pending().await;
        };
        self.after = seen.number;
        roster
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.lookout.lock().watching -= 1;
    }
}
