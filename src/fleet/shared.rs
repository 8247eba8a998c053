//! What the follower's thread shares with everybody else on this node.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::database_time::DatabaseTime;
use super::lease_change::KnownLease;
use super::unsettled::Unsettled;
use crate::domain::id::NodeId;
use crate::host::Clock;
use crate::live::keeper::Holding;
use crate::live::lease::Lease;
use crate::live::table::Table;
use crate::store::coordination::Coordination;
use crate::supervise::Supervisor;

/// Shared by the follower, who writes most of it, and those who ask.
pub(super) struct Shared {
    pub(super) table: Arc<Table>,
    pub(super) lease: Arc<Lease>,
    pub(super) time: DatabaseTime,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) coordination: Arc<dyn Coordination>,
    /// Restarts the tasks of the fleet.
    pub(super) supervisor: Supervisor,
    /// Wakes the follower: there is something to read.
    pub(super) nudged: Notify,
    /// Told after each poll.
    pub(super) polled: Notify,
    pub(super) counts: Counts,
    /// Sessions that memory ended and the database perhaps did not.
    pub(super) unsettled: Unsettled,
    /// Under which id this node is in the fleet; none while it is not.
    node: Mutex<Option<NodeId>>,
    /// How much memory holds, as of the last poll.
    holding: Mutex<Holding>,
    /// How long leases are, as of the last good poll.
    known_lease: Mutex<Option<KnownLease>>,
}

/// What happened so far.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) polls: AtomicU64,
    pub(super) polls_failed: AtomicU64,
    /// Turns of the follower's loop, whether or not the database answers.
    pub(super) follower_turns: AtomicU64,
    pub(super) starts: AtomicU64,
    pub(super) chain_breaks: AtomicU64,
    pub(super) changes_written_again: AtomicU64,
    pub(super) changes_forgotten: AtomicU64,
    pub(super) nodes_evicted: AtomicU64,
    pub(super) fills: AtomicU64,
    pub(super) filled: AtomicU64,
    pub(super) fills_refused: AtomicU64,
    pub(super) barriers: AtomicU64,
    pub(super) barriers_waited_out: AtomicU64,
    pub(super) barrier_micros: AtomicU64,
    pub(super) hints: AtomicU64,
    pub(super) hint_reconnects: AtomicU64,
    /// 1 while a connection listens for hints.
    pub(super) hints_connected: AtomicU64,
    pub(super) applied: AtomicI64,
    pub(super) head: AtomicI64,
    /// When the last poll was asked that fitted what this node knows, in nanoseconds since boot.
    pub(super) asked_nanos: AtomicU64,
}

/// How this node stands in the fleet, for people and metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FleetStats {
    /// What is left of the lease.
    pub lease_left: Duration,
    /// Every row of the log up to here is in memory.
    pub applied: i64,
    /// The head of the log, as of the last poll.
    pub head: i64,
    /// Polls of the log that were answered.
    pub polls: u64,
    /// Polls of the log that were not.
    pub polls_failed: u64,
    /// How often this node joined the fleet.
    pub starts: u64,
    /// How often the log did not go on where this node stood: commits were lost.
    pub chain_breaks: u64,
    /// Changes that this node wrote again, or found in force, after such a loss.
    pub changes_written_again: u64,
    /// Changes that may be lost for good, because this node no longer kept them.
    pub changes_forgotten: u64,
    /// Silent nodes that this node let go of.
    pub nodes_evicted: u64,
    /// Reads that filled memory.
    pub fills: u64,
    /// Sessions read by them.
    pub filled: u64,
    /// Questions refused because too many waited to be read.
    pub fills_refused: u64,
    /// Waits until a change was in force everywhere.
    pub barriers: u64,
    /// Those that a silent node made as long as they can be.
    pub barriers_waited_out: u64,
    /// Microseconds spent in these waits.
    pub barrier_micros: u64,
    /// Hints that the log has grown.
    pub hints: u64,
    /// Connections for hints that took the place of one that broke or fell silent.
    pub hint_reconnects: u64,
    /// 1 while a connection listens for hints.
    pub hints_connected: u64,
    /// Sessions that this node ended without knowing whether the database did, and that it still has to end there.
    pub unsettled: usize,
    /// By how many milliseconds the database's clock has jumped, while that is not explained.
    pub clock_jump_ms: i64,
    /// What memory holds.
    pub holding: Holding,
}

impl Shared {
    pub(super) fn new(
        table: Arc<Table>,
        time: DatabaseTime,
        clock: Arc<dyn Clock>,
        coordination: Arc<dyn Coordination>,
        supervisor: Supervisor,
    ) -> Self {
        Self {
            table,
            lease: Arc::default(),
            time,
            clock,
            coordination,
            supervisor,
            nudged: Notify::new(),
            polled: Notify::new(),
            counts: Counts::default(),
            unsettled: Unsettled::default(),
            node: Mutex::new(None),
            holding: Mutex::default(),
            known_lease: Mutex::default(),
        }
    }

    pub(super) fn node(&self) -> Option<NodeId> {
        *self.node.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_node(&self, node: Option<NodeId>) {
        *self.node.lock().unwrap_or_else(PoisonError::into_inner) = node;
    }

    pub(super) fn set_holding(&self, holding: Holding) {
        *self.holding.lock().unwrap_or_else(PoisonError::into_inner) = holding;
    }

    /// Whether memory may answer now.
    pub(super) fn is_leased(&self) -> bool {
        self.lease.ask(|| self.clock.boottime()).is_some()
    }

    /// How long leases are, as of the last good poll; none before the first.
    pub(super) fn known_lease(&self) -> Option<KnownLease> {
        *self.known_lease.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_known_lease(&self, known: Option<KnownLease>) {
        *self.known_lease.lock().unwrap_or_else(PoisonError::into_inner) = known;
    }

    pub(super) fn stats(&self) -> FleetStats {
        let (counts, now) = (&self.counts, self.clock.boottime());
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        FleetStats {
            lease_left: self.lease.end().map(|end| end.since(now)).unwrap_or_default(),
            applied: counts.applied.load(Ordering::Relaxed),
            head: counts.head.load(Ordering::Relaxed),
            polls: get(&counts.polls),
            polls_failed: get(&counts.polls_failed),
            hints: get(&counts.hints),
            hint_reconnects: get(&counts.hint_reconnects),
            hints_connected: get(&counts.hints_connected),
            starts: get(&counts.starts),
            chain_breaks: get(&counts.chain_breaks),
            changes_written_again: get(&counts.changes_written_again),
            changes_forgotten: get(&counts.changes_forgotten),
            nodes_evicted: get(&counts.nodes_evicted),
            fills: get(&counts.fills),
            filled: get(&counts.filled),
            fills_refused: get(&counts.fills_refused),
            barriers: get(&counts.barriers),
            barriers_waited_out: get(&counts.barriers_waited_out),
            barrier_micros: get(&counts.barrier_micros),
            unsettled: self.unsettled.len(),
            clock_jump_ms: self.time.doubt().as_millis(),
            holding: *self.holding.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }
}

/// One more.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
