//! Reads for memory: what is missed is read once, however many ask, and what is missed together is read together.
//!
//! A read is never handed to who asked: it goes into memory, and whoever waited looks there again, lease first. A call
//! that joined a read which began before the call did can therefore not be told "good" by it after a revocation.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::task::TaskTracker;

use super::driver::Command;
use super::shared::{Shared, count};
use crate::domain::id::NodeId;
use crate::domain::token::TokenDigest;
use crate::live::keeper::{Fill, Filled};
use crate::mutation::Mutation;
use crate::store::{Filling, Store};

/// Sessions of one read.
const READ_MAX: usize = 500;
/// Reads at a time; each takes a connection.
const READS_MAX: usize = 4;

/// Why memory was not filled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotFilled {
    /// Too many questions wait to be read.
    TooMany,
    /// The database did not answer; the log has the reason.
    StoreUnavailable,
    /// A row cannot be read; the log has the reason.
    Corrupt,
    /// Nobody takes anything into memory any more.
    Stopped,
}

/// Under which id this node was in the fleet when a read began. Under another one, positions may mean something else.
#[derive(Clone, Copy, Debug)]
pub struct Reader(Option<NodeId>);

/// What was read stays with memory. Only the broken variant that hands it out tells it.
type Outcome = Result<Option<Arc<Filling>>, NotFilled>;
/// Told once a read is in memory; none until then.
type Told = watch::Receiver<Option<Outcome>>;

/// Reads for memory.
#[derive(Clone)]
pub(super) struct Fills {
    shared: Arc<Shared>,
    store: Arc<dyn Store>,
    commands: mpsc::Sender<Command>,
    tasks: TaskTracker,
    waiting: Arc<Mutex<Waiting>>,
    waiting_max: usize,
}

#[derive(Default)]
struct Waiting {
    /// Every token that is being read or waits for it, and what tells its end.
    tokens: HashMap<TokenDigest, Told>,
    /// What the next reads ask for.
    next: VecDeque<Batch>,
    reads: usize,
}

struct Batch {
    digests: Vec<TokenDigest>,
    tell: watch::Sender<Option<Outcome>>,
    told: Told,
}

impl Fills {
    pub(super) fn new(
        shared: Arc<Shared>,
        store: Arc<dyn Store>,
        commands: mpsc::Sender<Command>,
        waiting_max: usize,
    ) -> Self {
        Self { shared, store, commands, tasks: TaskTracker::new(), waiting: Arc::default(), waiting_max }
    }

    /// Has the session of the token read into memory, and waits until it is.
    pub(super) async fn fill(&self, digest: TokenDigest) -> Outcome {
        let mut told = self.enter(digest)?;
        let outcome = told.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone());
        outcome.unwrap_or(Err(NotFilled::Stopped))
    }

    /// Takes into memory what was read by a read that began under `reader`.
    pub(super) async fn take_in(
        &self,
        reader: Reader,
        asked: Vec<TokenDigest>,
        filling: Filling,
    ) -> Result<(), NotFilled> {
        let found: Vec<_> = filling
            .found
            .into_iter()
            .map(|found| Filled { digest: found.digest, session: found.session, user: found.user })
            .collect();
        self.shared.counts.filled.fetch_add(u64::try_from(found.len()).unwrap_or(0), Ordering::Relaxed);
        let fill = Fill { position: filling.position, everyone_epoch: filling.everyone_epoch, asked, found };
        let (done, taken) = oneshot::channel();
        self.commands.send(Command::Fill(reader.0, fill, done)).await.map_err(|_| NotFilled::Stopped)?;
        taken.await.map_err(|_| NotFilled::Stopped)
    }

    /// Who begins to read now.
    pub(super) fn reader(&self) -> Reader {
        Reader(self.shared.node())
    }

    /// Joins the read of the token that is under way, or the next one.
    fn enter(&self, digest: TokenDigest) -> Result<Told, NotFilled> {
        let mut waiting = self.lock();
        if let Some(told) = waiting.tokens.get(&digest) {
            return Ok(told.clone());
        }
        if waiting.tokens.len() >= self.waiting_max {
            count(&self.shared.counts.fills_refused);
            return Err(NotFilled::TooMany);
        }
        if waiting.next.back().is_none_or(|last| last.digests.len() >= READ_MAX) {
            let (tell, told) = watch::channel(None);
            waiting.next.push_back(Batch { digests: Vec::new(), tell, told });
        }
        let Some(batch) = waiting.next.back_mut() else { return Err(NotFilled::Stopped) };
        batch.digests.push(digest);
        let told = batch.told.clone();
        waiting.tokens.insert(digest, told.clone());
        if waiting.reads < READS_MAX {
            waiting.reads += 1;
            let this = self.clone();
            let supervisor = self.shared.supervisor.clone();
            self.tasks.spawn(async move {
                supervisor.run_for_requests("fills", || this.clone().read_all()).await;
            });
        }
        Ok(told)
    }

    /// Reads batch by batch until nobody waits.
    async fn read_all(self) {
        // Those who waited for a read that broke off were told; who asks for the same tokens is not to join it.
        self.lock().tokens.retain(|_, told| told.has_changed().is_ok());
        while let Some(batch) = self.next_batch() {
            let outcome = self.read(&batch.digests).await;
            let mut waiting = self.lock();
            for digest in &batch.digests {
                waiting.tokens.remove(digest);
            }
            drop(waiting);
            batch.tell.send_replace(Some(outcome));
        }
    }

    fn next_batch(&self) -> Option<Batch> {
        let mut waiting = self.lock();
        let next = waiting.next.pop_front();
        if next.is_none() {
            waiting.reads -= 1;
        }
        next
    }

    async fn read(&self, digests: &[TokenDigest]) -> Outcome {
        count(&self.shared.counts.fills);
        let reader = self.reader();
        match self.store.sessions_by_digest(digests).await {
            Ok(filling) => {
                let handed_out = Mutation::OldReadHandedOut.is_on().then(|| Arc::new(filling.clone()));
                self.take_in(reader, digests.to_vec(), filling).await.map(|()| handed_out)
            }
            Err(error) => Err(super::not_filled(&error)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
