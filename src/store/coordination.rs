//! The port by which nodes agree: trait [`Coordination`], over the change log, its head, and the list of nodes.
//!
//! The rules behind it are those of `fleet/`, which calls it; nothing else does. Each method is one statement or one
//! transaction. `poll`, `acknowledge` and `hinted` go over connections of their own, so that no crowd of callers can keep
//! a node from following the log. No method reads a clock of this machine: moments are the database's.

use std::time::Duration;

use async_trait::async_trait;

use super::{Change, LoggedChange, Result, Stamp};
use crate::domain::id::{LogId, NodeId, Nonce, Position};
use crate::domain::time::UnixMillis;

/// What was heard of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hint {
    /// A new connection listens. Hints from before it may have been missed.
    Listening,
    /// The log has grown.
    Grown,
}

/// What nodes agree through.
#[async_trait]
pub trait Coordination: Send + Sync + 'static {
    /// Whether this process has the database for itself (SQLite), so that there is nobody to wait for.
    fn is_exclusive(&self) -> bool;

    /// Adds this node's row as live (committed first), then reads the head of the log in a statement of its own. Nothing
    /// that is committed later can be missed by a node that follows the log from there. The row says that what was committed
    /// before is applied: a node that knows nothing yet cannot know anything that is over.
    async fn join(&self, node: NewNode) -> Result<Joined>;

    /// Reads, in one statement on the primary, the head of the log, the state of the node's row, whether the database is
    /// the primary, its time, and the log rows from `from` (inclusive) to below `from + limit`, in order. A row that is missing
    /// there is simply missing: whoever follows has to look.
    async fn poll(&self, node: NodeId, from: Position, limit: u32) -> Result<Polled>;

    /// Records that the node has applied every row up to `applied`, the last one with `nonce`, and that it is alive. Does nothing
    /// where the log holds another row there: it lost what the node applied, and whoever revokes must not believe that the
    /// node knows of what took its place. Never moves the position back, and
    /// never makes a row that is gone or evicting live again. A durable one that did nothing fails, since it committed nothing.
    /// After an error it may have been done or not; repeating it does no harm.
    async fn acknowledge(
        &self,
        node: NodeId,
        applied: Position,
        nonce: Option<Nonce>,
        commit: AckCommit,
    ) -> Result<()>;

    /// Removes the node's row, whose node holds no lease any more. After an error it may have been done or not; doing it
    /// again does no harm.
    async fn leave(&self, node: NodeId) -> Result<()>;

    /// The nodes, in the order of their ids, and the database's time.
    async fn nodes(&self) -> Result<Roster>;

    /// Marks a live node as evicting, if `heartbeat` is still its [`NodeRow::heard_time`]: its next poll refuses. False
    /// where it was heard of since, is evicting already, or gone.
    async fn mark_evicting(&self, node: NodeId, heartbeat: UnixMillis) -> Result<bool>;

    /// Removes the row of an evicting node.
    async fn remove_evicted(&self, node: NodeId) -> Result<()>;

    /// Wakes the followers of the fleet, where the engine can (PostgreSQL NOTIFY, in a statement of its own). A hint only:
    /// it may be lost.
    async fn hint(&self) -> Result<()>;

    /// Waits for a hint; where the engine has none, for ever. An error means that none can be heard for now.
    async fn hinted(&self) -> Result<Hint>;

    /// Writes changes again that this node knows to have been committed and that the log does not hold any more: epochs go
    /// up to at least what each row says, sessions that it ended end, and a user that it disabled or deleted is disabled.
    /// What is in force already is passed over; that a user changed is always said again. One transaction, whose round trips
    /// do not grow with the number of changes (up to [`WRITE_AGAIN_MAX`]), and one at a time: a call waits while an earlier one
    /// still runs, also where the caller of that one gave up.
    async fn write_again(&self, lost: &[LoggedChange], stamp: Stamp) -> Result<WrittenAgain>;

    /// Deletes rows of the log from before `before`, at most `limit`, from the lowest on; never the newest row, and only what
    /// lies below the last row that every live node has applied: by that row a node sees that the log is the same. Answers
    /// how many it were.
    async fn truncate_log(&self, before: UnixMillis, limit: u32) -> Result<u64>;

    /// Gives the log another name and ends everyone's sessions, in one transaction: for a database that was restored from
    /// a backup.
    async fn start_new_log(&self, stamp: Stamp) -> Result<(LogId, Change)>;

    /// Writes how long leases are if that still is `from`. False where it is something else by now. The write is committed
    /// durably. After an error it may have been done or not.
    async fn change_lease(&self, from: LeaseDuration, to: LeaseDuration) -> Result<bool>;

    /// What is missing or changed of the schema, in words for the operator; nothing where it is whole.
    async fn schema_flaws(&self) -> Result<Vec<String>>;
}

/// How an acknowledgement is committed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AckCommit {
    /// Fast, for those who wait for the position. May be lost with the server.
    Quick,
    /// Like any other write: on the disk, and wherever else the database promises to have it before it answers. With
    /// synchronous replication only the server that the standbys follow can answer it, so a server that was replaced
    /// without being fenced cannot. Fails on any other server than the one that the last poll read: a commit on one server
    /// proves nothing about a poll of another one.
    Durable(ServerId),
}

/// A running database server: another one after a fail-over.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ServerId(pub i64);

/// What [`Coordination::write_again`] did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WrittenAgain {
    /// What was written; without rows where everything is in force.
    pub change: Change,
    /// The last row of the log as of then, which shows that all of it is there; none for an empty log.
    pub last: Option<(Position, Nonce)>,
}

/// Changes of one [`Coordination::write_again`] at most.
pub const WRITE_AGAIN_MAX: usize = 256;

/// A node that joins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewNode {
    /// Its id, never used before.
    pub id: NodeId,
    /// What people call it: host name and address that it serves. At most [`NODE_NAME_BYTES_MAX`] bytes.
    pub name: String,
}

/// Bytes of the name of a node.
pub const NODE_NAME_BYTES_MAX: usize = 255;

/// Where a node that joined starts to follow the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Joined {
    /// The log.
    pub log: LogId,
    /// Its head.
    pub position: Position,
    /// The nonce of the row at the head; none for an empty log.
    pub nonce: Option<Nonce>,
}

/// How long leases are: one number, except while it changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeaseDuration {
    /// The lease that a node may take now.
    pub current: Duration,
    /// The longest lease that any node may hold. Whoever waits until leases have run out goes by this one.
    pub longest: Duration,
    /// The lease that the fleet has when the change is in force.
    pub target: Duration,
    /// Another one with each write during a change; none while nothing changes.
    pub change: Option<Nonce>,
}

impl LeaseDuration {
    /// A lease that does not change.
    pub const fn settled(lease: Duration) -> Self {
        Self { current: lease, longest: lease, target: lease, change: None }
    }

    /// Whether nothing changes.
    pub fn is_settled(self) -> bool {
        self == Self::settled(self.current)
    }
}

/// What one poll read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Polled {
    /// The log.
    pub log: LogId,
    /// Its head.
    pub head: Position,
    /// How long leases are.
    pub lease: LeaseDuration,
    /// The state of the node's own row; none when it is gone.
    pub node: Option<NodeState>,
    /// Whether the database takes writes, and is not a replica.
    pub is_primary: bool,
    /// The server that answered.
    pub server: ServerId,
    /// The database's time.
    pub time: UnixMillis,
    /// Rows of the log from the asked position on, in order.
    pub rows: Vec<LoggedChange>,
}

/// Whether a node may hold a lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NodeState {
    /// It may.
    Live = 1,
    /// It may not ask for another one; the one it holds runs out.
    Evicting = 2,
}

/// The nodes as of one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Roster {
    /// The database's time.
    pub time: UnixMillis,
    /// The head of the log.
    pub head: Position,
    /// How long leases are.
    pub lease: LeaseDuration,
    /// The nodes, in the order of their ids.
    pub nodes: Vec<NodeRow>,
}

/// What the fleet knows of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeRow {
    /// The node.
    pub id: NodeId,
    /// What people call it.
    pub name: String,
    /// Whether it may hold a lease.
    pub state: NodeState,
    /// Every row of the log up to here is in its memory.
    pub applied: Position,
    /// The nonce of the row at `applied`, as the node acknowledged it; none at the beginning of an empty log.
    pub nonce: Option<Nonce>,
    /// Whether the log holds that row. Where it does not, the number was given again after commits were lost, and the
    /// position says nothing about the log as it is now.
    pub is_logged: bool,
    /// When it joined, database time.
    pub join_time: UnixMillis,
    /// When it last acknowledged, database time. Whoever watches the node goes by whether this changes, not by what it
    /// says.
    pub heard_time: UnixMillis,
    /// When it was marked as evicting, database time.
    pub evict_time: Option<UnixMillis>,
}
