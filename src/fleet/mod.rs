//! How nodes agree, so that memory is never stale: the change log and its follower, leases, the list of nodes, and the
//! barrier inside every call that takes validity away.
//!
//! In reading order: `follower`, `barrier` and `membership` are the rules, without I/O; `member` is what one node makes of
//! them with its memory; `driver` is the thread that does the I/O; `fills` reads what memory misses, `endings` commits
//! what ends together; `settling` is what follows a write: the barrier, for which the `lookout` watches the other nodes, and
//! what stays `unsettled` where the database does not answer. [`Fleet`] is what the use cases hold.

pub mod barrier;
pub mod carried_time;
pub mod database_time;
mod driver;
mod endings;
mod fills;
pub mod follower;
mod hearing;
pub mod heartbeat;
pub mod lease_change;
pub mod look_up;
mod lookout;
pub mod member;
pub mod membership;
#[cfg(test)]
mod samples;
pub mod seen_changes;
mod settling;
mod shared;
mod unsettled;

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::database_time::DatabaseTime;
use self::driver::{Driver, pause};
use self::endings::Endings;
use self::fills::Fills;
pub use self::fills::{NotFilled, Reader};
use self::lease_change::ChangeWatch;
use self::member::Member;
use self::membership::{Evictions, Measure};
pub use self::settling::Settled;
use self::settling::Settling;
pub use self::shared::FleetStats;
use self::shared::{Shared, count};
use crate::domain::id::{LogId, NodeId, Nonce, Position, SessionId};
use crate::domain::session::Death;
use crate::domain::time::{BootTime, UnixMillis};
use crate::domain::token::TokenDigest;
use crate::host::{self, Clock, Entropy};
use crate::live::keeper::{EndKnown, Keeper, MemoryLimits};
use crate::live::table::Table;
use crate::mutation::Mutation;
use crate::store::coordination::{Coordination, LeaseDuration, Roster, WRITE_AGAIN_MAX};
use crate::store::{self, Change, EndTarget, Ending, Filling, Stamp, Store, StoreError};
use crate::supervise::Supervisor;

/// How long to wait between two looks whether there is a lease.
const LOOK: Duration = Duration::from_millis(20);
/// Commands that may wait to be obeyed.
const COMMANDS_MAX: usize = 1_024;
/// Attempts to change the lease while others change it.
const LEASE_CHANGES_MAX: u32 = 5;
/// Sessions of one page of a warm start.
const WARM_PAGE: u32 = 1_000;

/// How this node takes part in the fleet.
#[derive(Clone, Debug)]
pub struct FleetPolicy {
    /// What people call this node.
    pub name: String,
    /// How often the log is polled.
    pub poll: Duration,
    /// How much memory may hold.
    pub memory: MemoryLimits,
    /// Tokens that may wait to be read into memory.
    pub fills_waiting_max: usize,
    /// Uses of sessions that may wait to be written down.
    pub uses_waiting_max: usize,
    /// How long it takes at most until a use that is due is written down.
    pub uses_lead: Duration,
}

/// What this node is made of.
pub struct FleetParts {
    /// Durable state.
    pub store: Arc<dyn Store>,
    /// What nodes agree through.
    pub coordination: Arc<dyn Coordination>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness for ids and nonces.
    pub entropy: Arc<dyn Entropy>,
    /// The database's time, as the first answer told it.
    pub time: DatabaseTime,
    /// How users in memory are told.
    pub encode_user: crate::live::encoded::Encoder,
    /// What restarts the follower and the other tasks.
    pub supervisor: Supervisor,
}

/// This node's part in the fleet. Clones share it.
#[derive(Clone)]
pub struct Fleet {
    shared: Arc<Shared>,
    store: Arc<dyn Store>,
    fills: Fills,
    endings: Endings,
    settling: Settling,
    stop: CancellationToken,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Fleet {
    /// Starts the follower's thread, which joins the fleet as soon as the database lets it.
    pub fn start(policy: &FleetPolicy, parts: FleetParts) -> io::Result<Self> {
        let FleetParts { store, coordination, clock, entropy, time, encode_user, supervisor } = parts;
        let lead = if coordination.is_exclusive() { Duration::ZERO } else { policy.uses_lead };
        let table = Table::beside_others(policy.uses_waiting_max, lead);
        let shared = Arc::new(Shared::new(table, time, clock, coordination, supervisor.clone()));
        let (commands, received) = mpsc::channel(COMMANDS_MAX);
        let stop = CancellationToken::new();
        let keeper = Keeper::new(Arc::clone(&shared.table), policy.memory).encoding(encode_user);
        let mut driver = Driver {
            shared: Arc::clone(&shared),
            member: Member::new(keeper, Arc::clone(&shared.lease)),
            entropy: Arc::clone(&entropy),
            name: policy.name.clone(),
            poll: policy.poll,
            commands: received,
            stop: stop.clone(),
            left_behind: Vec::new(),
            batch: WRITE_AGAIN_MAX,
            joining: None,
            unreadable: None,
            has_run: false,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let follow = move || {
            runtime.block_on(async {
                let mut restarts = supervisor.restarts("follower");
                while AssertUnwindSafe(driver.run()).catch_unwind().await.is_err() && restarts.again().await {
                }
                let _ = AssertUnwindSafe(driver.leave()).catch_unwind().await;
            });
        };
        let thread = std::thread::Builder::new().name("follower".to_owned()).spawn(follow)?;
        let fills =
            Fills::new(Arc::clone(&shared), Arc::clone(&store), commands.clone(), policy.fills_waiting_max);
        let endings = Endings::new(Arc::clone(&store), shared.supervisor.clone());
        let settling = Settling::new(Arc::clone(&shared), commands);
        let thread = Arc::new(Mutex::new(Some(thread)));
        let fleet = Self { shared, store, fills, endings, settling, stop, thread };
        fleet.end_unsettled(entropy);
        Ok(fleet)
    }

    /// The sessions in memory.
    pub fn table(&self) -> &Table {
        &self.shared.table
    }

    /// The database's time.
    pub fn time(&self) -> &DatabaseTime {
        &self.shared.time
    }

    /// Under which id this node is in the fleet; none while it is not.
    pub fn node(&self) -> Option<NodeId> {
        self.shared.node()
    }

    /// How this node stands.
    pub fn stats(&self) -> FleetStats {
        self.shared.stats()
    }

    /// Goes up at least once a second while the follower's thread works, whether or not the database answers.
    pub fn follower_turns(&self) -> u64 {
        self.shared.counts.follower_turns.load(Ordering::Relaxed)
    }

    /// Waits until memory may answer, while `until` has not passed by this node's clock.
    pub async fn leased(&self, until: BootTime) -> bool {
        loop {
            let polled = self.shared.polled.notified();
            if self.is_leased() {
                return true;
            }
            if self.shared.clock.boottime() >= until {
                return false;
            }
            tokio::select! {
                () = polled => {}
                () = pause(LOOK) => {}
            }
        }
    }

    /// Whether anything may be deleted because of its age: not while the database's clock is in doubt.
    pub fn may_delete_by_age(&self) -> bool {
        self.shared.time.is_settled()
    }

    /// Has the log read at once.
    pub fn nudge(&self) {
        self.shared.nudged.notify_one();
    }

    /// In the background, what memory had to end by itself is ended in the database.
    fn end_unsettled(&self, entropy: Arc<dyn Entropy>) {
        let (shared, endings, stop) = (Arc::clone(&self.shared), self.endings.clone(), self.stop.clone());
        self.settling.tasks.spawn(async move {
            let stamp = || Stamp { time: shared.time.now(), nonce: Nonce(host::random(&*entropy)) };
            let settle = shared.supervisor.run("unsettled", || shared.unsettled.settle(&endings, &stamp));
            tokio::select! {
                () = stop.cancelled() => {}
                () = settle => {}
            }
        });
    }

    /// Waits until the database knows of everything that memory had to end by itself.
    pub async fn unsettled_ended(&self) {
        while self.shared.unsettled.len() > 0 {
            pause(LOOK).await;
        }
    }

    /// Reads the most recently used sessions into memory, about `sessions_max`, and answers how many it were. The next page
    /// is read while one enters memory.
    pub async fn warm(&self, sessions_max: usize) -> store::Result<usize> {
        let (mut read, mut next) = (0, Some(self.page_by_use(None).await?));
        while let Some((reader, page)) = next.take() {
            let Some(last) = page.found.last() else { break };
            let (after, found) = (Some((last.session.last_seen_time, last.session.id)), page.found.len());
            let take_in = self.fills.take_in(reader, Vec::new(), page);
            let is_last = read + found >= sessions_max;
            let behind = async { if is_last { Ok(None) } else { self.page_by_use(after).await.map(Some) } };
            let (taken, behind) = tokio::join!(take_in, behind);
            if taken.is_err() {
                break;
            }
            read += found;
            next = behind?;
        }
        Ok(read)
    }

    async fn page_by_use(&self, after: Option<(UnixMillis, SessionId)>) -> store::Result<(Reader, Filling)> {
        let now = self.shared.time.now();
        let reader = self.reader();
        Ok((reader, self.store.sessions_by_use(after, WARM_PAGE, now).await?))
    }

    /// Has the session of a token read into memory.
    pub async fn fill(&self, digest: TokenDigest) -> Result<(), NotFilled> {
        if let Some(read) = self.fills.fill(digest).await? {
            // The broken variant: the read counts as the latest, whenever it began.
            let read = Filling { position: Position::from_i64(i64::MAX), ..Filling::clone(&read) };
            self.fills.take_in(self.reader(), Vec::new(), read).await?;
        }
        Ok(())
    }

    /// Who begins to read now.
    pub fn reader(&self) -> Reader {
        self.fills.reader()
    }

    /// Takes sessions into memory that were just written, as of the read that their users were taken from.
    pub async fn take_in(&self, reader: Reader, filling: Filling) {
        // Who uses the session has it read where this did not happen.
        let _ = self.fills.take_in(reader, Vec::new(), filling).await;
    }

    /// Ends what `ending` names, and returns when it is in force on every node.
    pub async fn end(&self, ending: Ending, stamp: Stamp) -> store::Result<Change> {
        let begun = self.shared.clock.boottime();
        let ended = self.endings.end(ending, stamp).await;
        self.settling.settle(ended, known(ending.target), begun).await
    }

    /// Runs a write that takes validity away, and returns when what it took is in force on every node. `known` is what to
    /// end in memory where the database does not say whether it took the change.
    pub async fn write<T: Settled>(
        &self,
        write: impl Future<Output = store::Result<T>>,
        known: EndKnown,
    ) -> store::Result<T> {
        let begun = self.shared.clock.boottime();
        self.settling.settle(write.await, known, begun).await
    }

    /// Waits for the end of the follower's thread, which leaves the fleet first.
    pub async fn stop(&self) {
        self.stop.cancel();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }

    /// Looks after the fleet once: silent nodes are let go of, in two phases, and a change of the lease is ended when it is
    /// time.
    pub async fn look_after(
        &self,
        evictions: &mut Evictions,
        changes: &mut ChangeWatch,
    ) -> store::Result<()> {
        let Some(me) = self.shared.node() else { return Ok(()) };
        let coordination = &self.shared.coordination;
        let roster = coordination.nodes().await?;
        // Not before the question: a mark that was made meanwhile would count as older than it is.
        let now = self.shared.clock.boottime();
        if let Some(ended) = changes.end(roster.lease, now)
            && coordination.change_lease(roster.lease, ended).await?
        {
            tracing::info!(lease_ms = ended.current.as_millis(), "the new lease is in force");
        }
        for measure in evictions.measures(me, &roster, now) {
            match measure {
                Measure::Mark(node, heartbeat) => {
                    if coordination.mark_evicting(node, heartbeat).await? {
                        tracing::warn!(node_id = %node, "node misses its heartbeats; evicting it");
                    }
                }
                Measure::Remove(node) if Mutation::OnePhaseEviction.is_on() => {
                    coordination.leave(node).await?;
                }
                Measure::Remove(node) => {
                    coordination.remove_evicted(node).await?;
                    count(&self.shared.counts.nodes_evicted);
                }
            }
        }
        Ok(())
    }

    /// The nodes, as the database lists them.
    pub async fn nodes(&self) -> store::Result<Roster> {
        self.shared.coordination.nodes().await
    }

    /// Has leases become as long as `target`, and returns how long they are until that is in force; none where other changes
    /// of the lease came in between, time and again.
    pub async fn set_lease(
        &self,
        target: Duration,
        nonce: impl Fn() -> Nonce,
    ) -> store::Result<Option<LeaseDuration>> {
        let coordination = &self.shared.coordination;
        for _ in 0..LEASE_CHANGES_MAX {
            let lease = coordination.nodes().await?.lease;
            let Some(begun) = lease_change::begin(lease, target, nonce()) else { return Ok(Some(lease)) };
            if coordination.change_lease(lease, begun).await? {
                tracing::info!(
                    from_ms = lease.current.as_millis(),
                    to_ms = target.as_millis(),
                    "the lease is about to change"
                );
                return Ok(Some(begun));
            }
        }
        Ok(None)
    }

    /// What is missing or changed of the database's schema.
    pub async fn schema_flaws(&self) -> store::Result<Vec<String>> {
        self.shared.coordination.schema_flaws().await
    }

    /// Gives the log another name and ends everyone's sessions.
    pub async fn start_new_log(&self, stamp: Stamp) -> store::Result<(LogId, Change)> {
        self.write(self.shared.coordination.start_new_log(stamp), EndKnown::Everyone).await
    }

    /// Deletes what the log no longer needs, one batch.
    pub async fn truncate_log(&self, before: UnixMillis, limit: u32) -> store::Result<u64> {
        self.shared.coordination.truncate_log(before, limit).await
    }
}

/// What to end in memory where the end of `target` has an unknown outcome.
fn known(target: EndTarget) -> EndKnown {
    match target {
        EndTarget::Session(session) => EndKnown::Session(session),
        EndTarget::Digest(digest) => EndKnown::Digest(digest),
        EndTarget::User { user, except } => EndKnown::User(user, except, Death::Revoked),
        EndTarget::Everyone => EndKnown::Everyone,
    }
}

fn not_filled(error: &StoreError) -> NotFilled {
    match error {
        StoreError::Unavailable(_) | StoreError::OutcomeUnknown(_) => {
            tracing::debug!(%error, "sessions were not read");
            NotFilled::StoreUnavailable
        }
        StoreError::Corrupt(_) => {
            tracing::error!(%error, "sessions were not read");
            NotFilled::Corrupt
        }
    }
}
