//! What lies between the answer of a write and the answer to its caller: it is applied here, the others are woken, and the
//! barrier is waited for. Where the database did not say whether it took the write, memory ends what it may have ended.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

use super::barrier::{Barrier, Stands};
use super::driver::{Command, pause};
use super::lookout::{Lookout, Watch};
use super::shared::{Shared, count};
use crate::domain::id::LogId;
use crate::domain::time::BootTime;
use crate::live::keeper::EndKnown;
use crate::store::coordination::Roster;
use crate::store::{self, Change, StoreError};

/// How long to wait at most until the next look at the clock.
const LOOK_MAX: Duration = Duration::from_millis(100);

/// Settles writes.
#[derive(Clone)]
pub(super) struct Settling {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    lookout: Lookout,
    pub(super) tasks: TaskTracker,
}

impl Settling {
    pub(super) fn new(shared: Arc<Shared>, commands: mpsc::Sender<Command>) -> Self {
        let lookout = Lookout::new(Arc::clone(&shared.coordination), shared.supervisor.clone());
        Self { shared, commands, lookout, tasks: TaskTracker::new() }
    }

    /// The write has come back: applies it here, wakes the others, and waits for the barrier.
    pub(super) async fn settle<T: Settled>(
        &self,
        written: store::Result<T>,
        known: EndKnown,
        begun: BootTime,
    ) -> store::Result<T> {
        // The commit is acknowledged by now, so whoever polls from here on sees it.
        let acknowledged = self.shared.clock.boottime();
        match written {
            Ok(written) => {
                if let Some(change) = written.change() {
                    self.apply_own(change).await;
                    let nonce = change.rows.last().map(|row| row.nonce);
                    let barrier = Barrier::new(change.position, nonce, begun, acknowledged);
                    self.wait_for_barrier(change, barrier, acknowledged).await;
                    if change.rows.is_empty() && !self.shared.is_leased() {
                        // Nothing was written, so nothing shows that this is still the primary.
                        let why = "nothing was to be done, as far as this node knows, which cannot know the latest state";
                        return Err(StoreError::Unavailable(why.to_owned()));
                    }
                }
                Ok(written)
            }
            Err(StoreError::OutcomeUnknown(why)) => {
                let (done, ended) = oneshot::channel();
                if self.commands.send(Command::EndKnown(known, done)).await.is_ok() {
                    let _ = ended.await;
                }
                Err(StoreError::OutcomeUnknown(why))
            }
            Err(error) => Err(error),
        }
    }

    /// Where nobody takes rows in any more, there is no lease any more either.
    async fn apply_own(&self, change: &Change) {
        if change.rows.is_empty() {
            return;
        }
        let (done, applied) = oneshot::channel();
        if self.commands.send(Command::Apply(change.rows.clone(), done)).await.is_ok() {
            let _ = applied.await;
        }
        self.shared.nudged.notify_one();
    }

    /// Waits until every node has applied the change or can no longer hold a lease. Where the database does not answer
    /// meanwhile, time alone decides.
    async fn wait_for_barrier(&self, change: &Change, mut barrier: Barrier, acknowledged: BootTime) {
        let begun = self.shared.clock.boottime();
        if let Some(known) = self.shared.known_lease() {
            barrier.learn_known(known);
        }
        let mut others = self.shared.coordination.is_exclusive().then_some(Stands::Acknowledged);
        let mut watch = others.is_none().then(|| self.lookout.watch(!change.rows.is_empty()));
        let stands = loop {
            let polled = self.shared.polled.notified();
            let applied = self.has_applied(change, acknowledged);
            if let (Some(stands), true) = (others, applied) {
                break stands;
            }
            let now = self.shared.clock.boottime();
            if barrier.is_waited_out(now) {
                break Stands::WaitedOut;
            }
            if !applied {
                self.shared.nudged.notify_one();
            }
            tokio::select! {
                roster = seen(&mut watch) => {
                    // The node's own id is taken anew each time: it may have joined again.
                    others = barrier.others_stand(self.shared.node(), &roster);
                    if others.is_some() {
                        watch = None;
                    }
                }
                () = polled, if !applied => {}
                () = pause(barrier.left(now).unwrap_or(LOOK_MAX).min(LOOK_MAX)) => {}
            }
        };
        let counts = &self.shared.counts;
        count(&counts.barriers);
        if stands == Stands::WaitedOut {
            count(&counts.barriers_waited_out);
        }
        let took = self.shared.clock.boottime().since(begun).as_micros();
        counts.barrier_micros.fetch_add(u64::try_from(took).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Whether this node's memory knows of the change: what it wrote itself it has applied already; what it found written
    /// by somebody else it knows once its follower was there, by a poll that was asked since: the same number may have
    /// meant something else before.
    fn has_applied(&self, change: &Change, acknowledged: BootTime) -> bool {
        let counts = &self.shared.counts;
        let asked = counts.asked_nanos.load(Ordering::Acquire);
        let applied = counts.applied.load(Ordering::Acquire) >= change.position.as_i64();
        !change.rows.is_empty() || (applied && asked >= acknowledged.as_nanos())
    }
}

/// What the lookout sees next; nothing where nobody looks out.
async fn seen(watch: &mut Option<Watch>) -> Arc<Roster> {
    match watch {
        Some(watch) => watch.next().await,
        None => std::future::pending().await,
    }
}

/// What a write answers that may have taken validity away.
pub trait Settled {
    /// What it took; none where nothing was written.
    fn change(&self) -> Option<&Change>;
}

impl Settled for Change {
    fn change(&self) -> Option<&Change> {
        Some(self)
    }
}

impl Settled for Option<Change> {
    fn change(&self) -> Option<&Change> {
        self.as_ref()
    }
}

impl Settled for (LogId, Change) {
    fn change(&self) -> Option<&Change> {
        Some(&self.1)
    }
}

impl Settled for store::RegisterTokenKeys {
    fn change(&self) -> Option<&Change> {
        match self {
            Self::Registered { change, .. } => change.as_ref(),
            Self::Mismatch(_) => None,
        }
    }
}

impl Settled for store::UpdateUser {
    fn change(&self) -> Option<&Change> {
        match self {
            Self::Updated(_, change) => Some(change),
            Self::NotFound | Self::LoginTaken => None,
        }
    }
}
