//! What one node is in the fleet: its memory, its place in the log and its lease, without I/O.
//!
//! The order in which a poll takes effect is decided here: rows first, then the lease, then the acknowledgement. The
//! driver and the simulation of tests only carry questions and answers.

use std::sync::Arc;
use std::time::Duration;

use super::follower::{Asked, Earned, Follower, Heard, Refused, Step};
use super::heartbeat::Heartbeat;
use super::lease_change::KnownLease;
use super::seen_changes::{LostBatch, SeenChanges};
use crate::domain::change::LoggedChange;
use crate::domain::id::{LogId, NodeId, Nonce, Position, SessionId};
use crate::domain::session::Death;
use crate::domain::time::{BootTime, UnixMillis};
use crate::live::keeper::{EndKnown, Fill, Holding, Keeper};
use crate::live::lease::Lease;
use crate::mutation::Mutation;
use crate::store::coordination::{AckCommit, Joined, Polled, ServerId};

/// One node's part.
#[derive(Debug)]
pub struct Member {
    keeper: Keeper,
    lease: Arc<Lease>,
    /// The log that was followed last.
    log: Option<LogId>,
    follower: Option<Follower>,
    /// The position that was acknowledged last.
    acknowledged: Option<Position>,
    /// When the last acknowledgement was sent that was committed durably; the row by which the node joined is the first.
    durable_at: Option<BootTime>,
    /// The server that was polled last.
    server: Option<ServerId>,
    /// When the next durable one is to be sent, and how long to wait after one that failed.
    heartbeat: Heartbeat,
    /// The lease that the last good poll gave.
    earned: Option<Earned>,
    /// Changes that were seen.
    seen: SeenChanges,
    /// Whether some of them may be lost.
    lost: bool,
    /// The last row of the log when changes were last written again, until this node joins.
    written_again: Option<(Position, Nonce)>,
    /// How long leases are, as of the last good poll.
    known: Option<KnownLease>,
    /// What waits to be applied, in the broken variant that acknowledges first.
    unapplied: Option<Step>,
}

/// What to do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Acknowledge: every row up to there is in memory.
    Acknowledge(Position, AckCommit),
    /// Poll again at once: there is more to read.
    Again,
    /// Wait for the next poll, or for a hint.
    Idle,
    /// Wait for the next poll, whatever hints come.
    Wait,
    /// Begin anew: leave, write again what was lost, and join.
    Join,
}

impl Member {
    /// A node that has not joined yet.
    pub fn new(keeper: Keeper, lease: Arc<Lease>) -> Self {
        Self {
            keeper,
            lease,
            log: None,
            follower: None,
            acknowledged: None,
            durable_at: None,
            server: None,
            heartbeat: Heartbeat::default(),
            earned: None,
            seen: SeenChanges::default(),
            lost: false,
            written_again: None,
            known: None,
            unapplied: None,
        }
    }

    /// The node joined under the id `node`, by a row that was sent at `sent`: memory begins anew there.
    pub fn joined(&mut self, node: NodeId, joined: Joined, sent: BootTime) {
        if self.log.is_some_and(|log| log != joined.log) {
            // Everyone's sessions ended with the old log, and the epochs of the new one may be lower.
            self.keeper.forget_epochs();
            self.seen.clear();
        }
        let joined = self.after_written_again(joined);
        self.log = Some(joined.log);
        self.keeper.begin_at(joined.position);
        self.seen.rewind(joined.position);
        self.follower = Some(Follower::new(node, joined));
        // The row of the node says that it has applied the head.
        self.acknowledged = Some(joined.position);
        (self.durable_at, self.server, self.earned) = (Some(sent), None, None);
        self.heartbeat = Heartbeat::default();
        self.unapplied = None;
        self.lost = false;
    }

    /// Under which id the node is in the fleet.
    pub fn node(&self) -> Option<NodeId> {
        self.follower.as_ref().map(Follower::node)
    }

    /// Every row up to here is in memory.
    pub fn applied(&self) -> Position {
        self.follower.as_ref().map_or(Position::ZERO, Follower::applied)
    }

    /// The nonce of the row at [`Self::applied`]; none at the beginning of an empty log.
    pub fn nonce(&self) -> Option<Nonce> {
        self.follower.as_ref().and_then(Follower::nonce)
    }

    /// The question to ask at `now`, before a connection is asked for; none while the node has not joined.
    pub fn ask(&self, now: BootTime) -> Option<Asked> {
        self.follower.as_ref().map(|follower| follower.ask(now))
    }

    /// Takes in the answer to `asked`, which came at `now`.
    pub fn hear(&mut self, asked: Asked, polled: &Polled, now: BootTime) -> Result<Next, Refused> {
        let Some(follower) = &mut self.follower else { return Ok(Next::Join) };
        let before = self.server.replace(polled.server);
        if before.is_some_and(|before| before != polled.server) && !Mutation::AckOfAnotherServer.is_on() {
            // What was committed on another server proves nothing about this one, and what was polled there nothing about
            // commits on this one.
            (self.durable_at, self.earned, self.heartbeat) = (None, None, Heartbeat::default());
        }
        match follower.hear(asked, polled, now) {
            Heard::Follow(step) => {
                self.known = Some(KnownLease { asked_at: asked.at, lease: polled.lease });
                Ok(self.follow(step, now))
            }
            Heard::Refuse(refused) => {
                self.lease.give_up();
                self.earned = None;
                if refused.lost_commits() {
                    if refused == Refused::LogReplaced && !self.lost {
                        // Everyone's sessions are over with the old log.
                        self.seen.keep_disabled_users();
                    }
                    self.lost = true;
                    self.seen.unwrite();
                }
                Err(refused)
            }
        }
    }

    /// The position was acknowledged at `now`, by what was sent at `sent`.
    pub fn acknowledged(&mut self, position: Position, commit: AckCommit, sent: BootTime, now: BootTime) {
        self.acknowledged = Some(position);
        if let AckCommit::Durable(server) = commit
            && (self.server == Some(server) || Mutation::AckOfAnotherServer.is_on())
        {
            self.durable_at = Some(sent);
            self.heartbeat = Heartbeat::default();
        }
        if let Some(step) = self.unapplied.take() {
            self.apply(&step, now);
        }
        self.publish_lease();
    }

    /// An acknowledgement that was sent at `sent` was not answered.
    pub fn not_acknowledged(&mut self, commit: AckCommit, sent: BootTime) {
        if matches!(commit, AckCommit::Durable(_)) {
            self.heartbeat.failed(sent, self.lease_span());
        }
    }

    /// Gives up the lease and the place in the log, and says under which id it was.
    pub fn leave(&mut self) -> Option<NodeId> {
        self.lease.give_up();
        self.follower.take().map(|follower| follower.node())
    }

    /// Begins anew after a panic that may have left memory torn, and says under which id the node was. What was seen of the
    /// log is remembered on: the database may still lose it.
    pub fn recover(&mut self) -> Option<NodeId> {
        let left = self.leave();
        self.keeper.recover();
        (self.acknowledged, self.unapplied) = (None, None);
        left
    }

    /// The next changes to write again, at most `limit`: those that were seen, where some may be lost.
    pub fn to_write_again(&self, limit: usize) -> Option<LostBatch> {
        if self.lost { self.seen.unwritten(limit) } else { None }
    }

    /// A batch is in force again, in a log whose last row was `last` then. It stays in force if that row is still there when
    /// this node follows the log.
    pub fn wrote_again(&mut self, batch: &LostBatch, last: Option<(Position, Nonce)>) {
        self.seen.wrote(batch);
        self.written_again = last.or(self.written_again);
    }

    /// How many changes this node keeps, and how many above `head` it does not keep any more, at most.
    pub fn kept_and_dropped(&self, head: Position) -> (usize, u64) {
        (self.seen.len(), self.seen.dropped_above(head))
    }

    /// Where to follow the log from: from the last row that was there when changes were written again, so that the first
    /// poll notices if the database lost them once more.
    fn after_written_again(&mut self, joined: Joined) -> Joined {
        match self.written_again.take() {
            Some((position, nonce))
                if self.log == Some(joined.log) && !Mutation::WrittenAgainUnchecked.is_on() =>
            {
                Joined { position, nonce: Some(nonce), ..joined }
            }
            _ => joined,
        }
    }

    /// Applies rows that this node has written, whose commit was acknowledged by `now`.
    pub fn apply_own(&mut self, rows: &[LoggedChange], now: BootTime) {
        for row in rows {
            self.keeper.apply_own(row);
            self.seen.note(row, now);
            if let Some(follower) = &mut self.follower {
                follower.wrote(row);
            }
        }
    }

    /// Takes in what was read, at `now`, by a read that began while this node was in the fleet as `reader`. A read from
    /// before this node began anew may count in numbers that were given again since; whoever waits for it reads again.
    pub fn fill(&mut self, reader: Option<NodeId>, fill: Fill, now: UnixMillis) {
        if let Some(follower) = self.follower.as_mut().filter(|follower| Some(follower.node()) == reader) {
            follower.committed(fill.position);
            self.keeper.fill(fill, now);
        }
    }

    /// Ends what memory holds of changes whose outcome is unknown, and answers what it ended.
    pub fn end_known(&mut self, what: &[EndKnown]) -> Vec<(SessionId, Death)> {
        self.keeper.end_known(what)
    }

    /// How long leases are, as of the last good poll; none before the first.
    pub fn known_lease(&self) -> Option<KnownLease> {
        self.known
    }

    /// How much memory holds.
    pub fn holding(&self) -> Holding {
        self.keeper.holding()
    }

    fn follow(&mut self, step: Step, now: BootTime) -> Next {
        let (applied, again) = (step.applied, step.again);
        let is_news = self.acknowledged.is_none_or(|position| position < applied);
        let durable_at = self.durable_at.unwrap_or_default();
        let due = if self.heartbeat.is_due(durable_at, now, self.lease_span()) {
            self.server.map(AckCommit::Durable)
        } else {
            is_news.then_some(AckCommit::Quick)
        };
        if Mutation::AcknowledgeBeforeApply.is_on()
            && let Some(commit) = due
        {
            self.unapplied = Some(step);
            return Next::Acknowledge(applied, commit);
        }
        self.apply(&step, now);
        self.publish_lease();
        match (due, again) {
            (Some(commit), _) => Next::Acknowledge(applied, commit),
            (None, true) => Next::Again,
            (None, false) => Next::Idle,
        }
    }

    fn apply(&mut self, step: &Step, now: BootTime) {
        for row in &step.rows {
            self.keeper.apply(row);
            self.seen.note(row, now);
        }
        self.keeper.advance(step.applied);
        self.earned = step.lease.or(self.earned);
    }

    /// The lease lasts from the last poll that reached the head, or from the last acknowledgement that was committed durably,
    /// whichever is the older. A poll alone proves nothing about a server that was replaced and goes on: with synchronous
    /// replication it cannot commit any more, and whatever was committed elsewhere came after all that it did commit.
    fn publish_lease(&self) {
        let Some(Earned { begin: polled, span }) = self.earned else { return };
        let begin = if Mutation::LeaseWithoutDurableAck.is_on() {
            polled
        } else {
            let Some(durable_at) = self.durable_at else { return };
            polled.min(durable_at)
        };
        let span = if Mutation::LeaseOfLaterPoll.is_on() { self.lease_span() } else { span };
        self.lease.publish(begin.plus(span));
    }

    fn lease_span(&self) -> Duration {
        self.known.map_or(Duration::ZERO, |known| known.lease.current)
    }
}

#[cfg(test)]
mod tests;
