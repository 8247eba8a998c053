//! The wait inside a revocation, until every node has applied it or can no longer hold a lease. Without I/O.

use std::time::Duration;

use crate::domain::id::{NodeId, Nonce, Position};
use crate::domain::time::BootTime;
use crate::fleet::follower::wait_for_silent;
use crate::fleet::lease_change::KnownLease;
use crate::mutation::Mutation;
use crate::store::coordination::{NodeRow, Roster};

/// A change that was committed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Barrier {
    position: Position,
    /// The nonce of the row at `position`; none where the change was found in the log.
    nonce: Option<Nonce>,
    committed_at: BootTime,
    /// The longest lease that any node may hold which has not applied the change; none while it is not known.
    longest_lease: Option<Duration>,
}

/// Why the barrier stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stands {
    /// Every node has applied the change.
    Acknowledged,
    /// Those that have not can no longer hold a lease.
    WaitedOut,
}

impl Barrier {
    /// For the change at `position`, whose write was `begun` and whose commit was `acknowledged` then by this node's clock.
    /// `nonce` is that of its row, where this node wrote it.
    pub fn new(position: Position, nonce: Option<Nonce>, begun: BootTime, acknowledged: BootTime) -> Self {
        // The commit is in force when it is acknowledged, and may not be before: a lease may be got until then.
        let committed_at = if Mutation::WaitFromBeforeCommit.is_on() { begun } else { acknowledged };
        Self { position, nonce, committed_at, longest_lease: None }
    }

    /// Takes note of what this node polled before, if it is young enough to tell how long leases are.
    pub fn learn_known(&mut self, known: KnownLease) {
        if let Some(longest) = known.longest_at(self.committed_at) {
            self.learn_longest(longest);
        }
    }

    fn learn_longest(&mut self, lease: Duration) {
        self.longest_lease = self.longest_lease.max(Some(lease));
    }

    /// Whether every node but `me` has applied the change, as the nodes were read after the commit. This node's own memory
    /// is ahead of its follower, so its row does not count.
    pub fn others_stand(&mut self, me: Option<NodeId>, roster: &Roster) -> Option<Stands> {
        self.learn_longest(roster.lease.longest);
        let mut others = roster.nodes.iter().filter(|node| Some(node.id) != me);
        let stands = Mutation::NoWait.is_on() || others.all(|node| self.is_applied_by(node));
        stands.then_some(Stands::Acknowledged)
    }

    /// Whether a node has applied the change: it acknowledged a row of the log as it is now, at the position of the change
    /// or after it. A number alone may have been given again to another row.
    fn is_applied_by(&self, node: &NodeRow) -> bool {
        if Mutation::AckWithoutNonce.is_on() {
            return node.applied >= self.position;
        }
        node.is_logged
            && (node.applied > self.position
                || node.applied == self.position && (self.nonce.is_none() || node.nonce == self.nonce))
    }

    /// How long it is from `now` until no lease from before the change can be left; none while nobody knows how long a lease
    /// is.
    pub fn left(&self, now: BootTime) -> Option<Duration> {
        self.longest_lease.map(|lease| wait_for_silent(lease).saturating_sub(now.since(self.committed_at)))
    }

    /// Whether no lease from before the change can be left at `now`, whatever the nodes say. Never while it is not known
    /// how long a lease is.
    pub fn is_waited_out(&self, now: BootTime) -> bool {
        self.left(now).is_some_and(|left| left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::*;
    use super::*;
    use crate::store::coordination::LeaseDuration;
    use crate::store::coordination::NodeState::{Evicting, Live};

    const HEARD: Duration = Duration::ZERO;

    #[test]
    fn every_other_node_must_have_applied_the_change() {
        let mut barrier = Barrier::new(at(7), Some(nonce(7)), millis(0), millis(0));
        let mut stands = |nodes: &[_]| barrier.others_stand(Some(node(1)), &roster(nodes)).is_some();
        assert!(stands(&[]), "alone");
        assert!(stands(&[(1, Live, 3, HEARD), (2, Live, 7, HEARD), (3, Live, 8, HEARD)]));
        assert!(!stands(&[(1, Live, 9, HEARD), (2, Live, 6, HEARD)]));
        assert!(!stands(&[(2, Evicting, 6, HEARD)]), "it may hold a lease from before");
        let mut nobody = Barrier::new(at(7), Some(nonce(7)), millis(0), millis(0));
        assert!(nobody.others_stand(None, &roster(&[(1, Live, 6, HEARD)])).is_none(), "it was me before");
    }

    /// The numbers fit, and what stands there does not.
    #[test]
    fn an_acknowledgement_of_another_row_does_not_count() {
        let mut barrier = Barrier::new(at(7), Some(nonce(7)), millis(0), millis(0));
        let mut after = |change: &dyn Fn(&mut NodeRow)| {
            let mut roster = roster(&[(2, Live, 7, HEARD)]);
            change(&mut roster.nodes[0]);
            barrier.others_stand(Some(node(1)), &roster).is_some()
        };
        assert!(after(&|_| {}));
        assert!(!after(&|node| node.nonce = Some(nonce(99))), "another row of that number");
        assert!(!after(&|node| node.is_logged = false), "a row that the log does not hold");
        assert!(!after(&|node| (node.applied, node.is_logged) = (at(8), false)));
        assert!(after(&|node| (node.applied, node.nonce) = (at(8), Some(nonce(8)))));
    }

    #[test]
    fn the_wait_counts_from_the_acknowledged_commit_and_by_the_longest_lease() {
        let mut barrier = Barrier::new(at(7), Some(nonce(7)), millis(0), millis(2_000));
        let is_waited_out = |barrier: &Barrier, at| barrier.is_waited_out(millis(at));
        assert!(!is_waited_out(&barrier, 1_000_000), "nobody knows how long a lease is");
        let second = LeaseDuration::settled(Duration::from_secs(1));
        barrier.learn_known(KnownLease { asked_at: millis(999), lease: second });
        assert!(!is_waited_out(&barrier, 1_000_000), "the poll was too old to tell");
        barrier.learn_known(KnownLease { asked_at: millis(1_000), lease: second });
        assert!(is_waited_out(&barrier, 2_000 + 1_300) && !is_waited_out(&barrier, 2_000 + 1_299));
        assert!(barrier.others_stand(None, &roster(&[(2, Live, 6, HEARD)])).is_none());
        assert!(is_waited_out(&barrier, 2_000 + 5_050) && !is_waited_out(&barrier, 2_000 + 5_049));
    }
}
