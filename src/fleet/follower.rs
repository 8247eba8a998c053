//! How a node follows the change log and earns its lease: a state machine without I/O.
//!
//! It is asked what to ask the database (`ask`), and told what the database answered (`hear`); the answer says which rows
//! to apply, until when memory may answer then, and what to acknowledge. Whatever does not fit what it remembers is
//! refused: after a fail-over that lost commits, numbers are given again with other content.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::domain::change::LoggedChange;
use crate::domain::id::{LogId, NodeId, Nonce, Position};
use crate::domain::time::BootTime;
use crate::mutation::Mutation;
use crate::store::coordination::{Joined, NodeState, Polled};

/// Polls in a row that may show a hole. A read view of MariaDB may show a change and not yet the one before it; the next
/// one shows both. A hole that stays is a broken log.
const HOLES_MAX: u32 = 3;
/// Rows of its own that a node remembers until it comes to them.
const WRITTEN_MAX: usize = 10_000;

/// One node's place in the log.
#[derive(Clone, Debug)]
pub struct Follower {
    node: NodeId,
    log: LogId,
    /// The last row that was applied, and its nonce; none at the beginning of an empty log.
    last: Position,
    nonce: Option<Nonce>,
    /// The highest position of which this node knows that it was committed.
    committed: Position,
    /// Rows that this node wrote itself, and has not come to.
    written: BTreeMap<Position, Nonce>,
    /// The head that has to be reached for the next lease, and when it was asked for.
    goal: Option<Goal>,
    holes: u32,
}

#[derive(Clone, Copy, Debug)]
struct Goal {
    asked_at: BootTime,
    head: Position,
    /// How long a lease was then.
    lease: Duration,
}

/// A question that is on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asked {
    /// When, by this node's clock, before a connection was asked for.
    pub at: BootTime,
    /// Which row the answer begins with.
    pub from: Position,
    /// What was known to be committed by then.
    committed: Position,
}

/// What to do with an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Heard {
    /// Apply the rows in order, raise the epoch of everyone, then publish the lease if there is one, then acknowledge.
    Follow(Step),
    /// Give the lease up, and do what the reason asks for.
    Refuse(Refused),
}

/// One step along the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// The rows to apply.
    pub rows: Vec<LoggedChange>,
    /// The position once they are applied.
    pub applied: Position,
    /// The lease that memory has once they are applied; none where the head was not reached.
    pub lease: Option<Earned>,
    /// Whether there is more to read, so that the next poll should follow at once.
    pub again: bool,
}

/// A lease that a poll gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Earned {
    /// When it begins.
    pub begin: BootTime,
    /// How long it is, by the poll whose head was reached: whoever commits after that poll knows of leases of that length,
    /// and perhaps of no longer one.
    pub span: Duration,
}

/// Why an answer does not count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// The log has another name: an operator began it anew, which ended everyone's sessions.
    LogChanged,
    /// The same, and it does not go on where this node stands: it was begun on a database that lost commits.
    LogReplaced,
    /// The row of this node is gone.
    NotAMember,
    /// The fleet is about to let go of this node.
    Evicting,
    /// The database is a replica, or takes no writes.
    NotPrimary,
    /// The log does not go on where this node stands: commits were lost.
    ChainBroken,
}

impl Refused {
    /// Whether the node has to begin anew: forget what is alive in memory, and join under another id.
    pub const fn needs_new_start(self) -> bool {
        !matches!(self, Self::NotPrimary)
    }

    /// Whether changes that this node has seen may be missing from the log, and have to be written again.
    pub const fn lost_commits(self) -> bool {
        matches!(self, Self::ChainBroken | Self::LogReplaced)
    }
}

impl Follower {
    /// Follows the log from where the node joined.
    pub fn new(node: NodeId, joined: Joined) -> Self {
        Self {
            node,
            log: joined.log,
            last: joined.position,
            nonce: joined.nonce,
            committed: joined.position,
            written: BTreeMap::new(),
            goal: None,
            holes: 0,
        }
    }

    /// The id under which the node joined.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Every row up to here was applied.
    pub fn applied(&self) -> Position {
        self.last
    }

    /// Takes note that a change was committed.
    pub fn committed(&mut self, position: Position) {
        self.committed = self.committed.max(position);
    }

    /// Takes note of a row that this node wrote itself, and whose commit was acknowledged.
    pub fn wrote(&mut self, row: &LoggedChange) {
        self.committed(row.position);
        if row.position > self.last {
            self.written.insert(row.position, row.nonce);
            if self.written.len() > WRITTEN_MAX {
                self.written.pop_first();
            }
        }
    }

    /// The nonce of the last row that was applied.
    pub fn nonce(&self) -> Option<Nonce> {
        self.nonce
    }

    /// The question to ask at `now`, before a connection is asked for.
    pub fn ask(&self, now: BootTime) -> Asked {
        let exclusive = Mutation::ExclusivePollWithoutNonce.is_on();
        let from = if exclusive { self.last.next() } else { self.last };
        Asked { at: now, from, committed: self.committed }
    }

    /// What to do with the answer to `asked`, which came at `now`.
    pub fn hear(&mut self, asked: Asked, polled: &Polled, now: BootTime) -> Heard {
        match self.check(asked, polled) {
            Err(refused) => Heard::Refuse(refused),
            Ok(rows) => {
                let from = if Mutation::LeaseFromReply.is_on() { now } else { asked.at };
                Heard::Follow(self.step(from, polled, rows))
            }
        }
    }

    /// The rows that are new, as far as they follow each other.
    fn check<'p>(&mut self, asked: Asked, polled: &'p Polled) -> Result<&'p [LoggedChange], Refused> {
        // A replica may be behind; that says nothing about what was lost.
        if !polled.is_primary {
            return Err(Refused::NotPrimary);
        }
        if Mutation::RefusedBeforeCompared.is_on() {
            self.check_membership(polled)?;
        }
        // Compared before whatever else makes this node begin anew: a fail-over that lost commits may have lost its row as
        // well, and nobody but this node knows what has to be written again.
        let is_other_log = polled.log != self.log;
        let rows = if Mutation::ExclusivePollWithoutNonce.is_on() {
            Ok(polled.rows.as_slice())
        } else if polled.head < self.last.max(asked.committed) {
            Err(Refused::ChainBroken)
        } else {
            self.behind_last(polled)
        };
        let rows = match rows {
            Err(_) if is_other_log => return Err(Refused::LogReplaced),
            rows => rows?,
        };
        self.check_membership(polled)?;
        let whole =
            (self.last.as_i64() + 1..).zip(rows).take_while(|(number, row)| row.position.as_i64() == *number);
        let whole = whole.count();
        let is_other =
            |row: &LoggedChange| self.written.get(&row.position).is_some_and(|nonce| *nonce != row.nonce);
        if rows[..whole].iter().any(is_other) {
            return Err(Refused::ChainBroken);
        }
        if whole < rows.len() {
            // Behind rows that are new it is another hole.
            self.holes = if whole == 0 { self.holes + 1 } else { 1 };
            if self.holes >= HOLES_MAX {
                return Err(Refused::ChainBroken);
            }
        } else {
            self.holes = 0;
        }
        Ok(&rows[..whole])
    }

    /// Whether this node is in the fleet that follows this log.
    fn check_membership(&self, polled: &Polled) -> Result<(), Refused> {
        if polled.log != self.log {
            return Err(Refused::LogChanged);
        }
        match polled.node {
            Some(NodeState::Live) => Ok(()),
            Some(NodeState::Evicting) => Err(Refused::Evicting),
            None => Err(Refused::NotAMember),
        }
    }

    /// The rows behind the last one that was applied, which must be there as it was.
    fn behind_last<'p>(&self, polled: &'p Polled) -> Result<&'p [LoggedChange], Refused> {
        let Some(nonce) = self.nonce else { return Ok(&polled.rows) };
        match polled.rows.split_first() {
            Some((first, rest)) if first.position == self.last && first.nonce == nonce => Ok(rest),
            _ => Err(Refused::ChainBroken),
        }
    }

    fn step(&mut self, asked_at: BootTime, polled: &Polled, rows: &[LoggedChange]) -> Step {
        if let Some(last) = rows.last() {
            (self.last, self.nonce) = (last.position, Some(last.nonce));
            self.committed(last.position);
            self.written = self.written.split_off(&last.position.next());
        }
        let asked = Goal { asked_at, head: polled.head, lease: polled.lease.current };
        let goal = *self.goal.get_or_insert(asked);
        let reached = self.last >= polled.head;
        let earned_by = match (reached, self.last >= goal.head) {
            (true, _) => Some(asked),
            (false, true) => Some(goal),
            (false, false) if Mutation::LeaseBeforeHead.is_on() => Some(asked),
            (false, false) => None,
        };
        if earned_by.is_some() {
            self.goal = if reached { None } else { Some(asked) };
        }
        Step {
            rows: rows.to_vec(),
            applied: self.last,
            lease: earned_by.map(|poll| Earned { begin: poll.asked_at, span: poll.lease }),
            again: !reached,
        }
    }
}

/// How long a revocation waits for nodes that say nothing: by then none of them holds a lease. Clocks may differ in rate by
/// a tenth on each side (chrony slews by up to 8.3 %), and the commit is acknowledged a little after it is in force.
pub fn wait_for_silent(lease: Duration) -> Duration {
    lease.saturating_mul(5) / 4 + Duration::from_millis(50)
}

#[cfg(test)]
mod tests {
    use super::super::samples::*;
    use super::*;
    use crate::store::coordination::LeaseDuration;

    /// One that stands at position 3 of log 1.
    fn follower() -> Follower {
        Follower::new(node(1), joined(3))
    }

    fn hear(follower: &mut Follower, polled: &Polled) -> Heard {
        follower.hear(follower.ask(millis(1_000)), polled, millis(1_500))
    }

    fn step(follower: &mut Follower, polled: &Polled) -> Step {
        match hear(follower, polled) {
            Heard::Follow(step) => step,
            Heard::Refuse(refused) => panic!("{refused:?}"),
        }
    }

    #[test]
    fn rows_are_followed_and_the_lease_counts_from_the_question() {
        let mut follower = follower();
        let asked = follower.ask(millis(1_000));
        assert_eq!((asked.from, asked.at), (at(3), millis(1_000)), "the last row is asked for again");
        let step = step(&mut follower, &polled(5, 3..=5));
        assert_eq!((step.rows, step.applied, step.again), (vec![row(4), row(5)], at(5), false));
        assert_eq!(step.lease, Some(Earned { begin: millis(1_000), span: LEASE }));
        assert_eq!((follower.applied(), follower.nonce()), (at(5), Some(nonce(5))));
    }

    #[test]
    fn whatever_does_not_fit_is_refused() {
        let good = || polled(5, 3..=5);
        let mut reused = good();
        reused.rows[0].nonce = nonce(99);
        for (refused, new_start, lost, polled) in [
            (Refused::LogChanged, true, false, Polled { log: log(2), ..good() }),
            (Refused::NotAMember, true, false, Polled { node: None, ..good() }),
            (Refused::Evicting, true, false, Polled { node: Some(NodeState::Evicting), ..good() }),
            (Refused::NotPrimary, false, false, Polled { is_primary: false, ..good() }),
            (Refused::ChainBroken, true, true, reused),
            (Refused::ChainBroken, true, true, polled(5, 4..=5)),
            (Refused::ChainBroken, true, true, polled(3, [])),
            (Refused::ChainBroken, true, true, polled(2, 1..=2)),
        ] {
            assert_eq!(hear(&mut follower(), &polled), Heard::Refuse(refused), "{polled:?}");
            assert_eq!((refused.needs_new_start(), refused.lost_commits()), (new_start, lost));
        }
    }

    #[test]
    fn a_head_behind_what_was_committed_is_refused_once_it_was_known_before_the_question() {
        let mut follower = follower();
        let before = follower.ask(millis(1_000));
        follower.committed(at(5));
        let heard = follower.hear(before, &polled(4, 3..=4), millis(1_001));
        assert!(matches!(heard, Heard::Follow(_)), "the answer may be from before the commit");
        assert_eq!(hear(&mut follower, &polled(4, [4])), Heard::Refuse(Refused::ChainBroken));
    }

    #[test]
    fn a_row_of_its_own_that_became_another_is_refused() {
        let mut follower = follower();
        follower.wrote(&row(5));
        follower.wrote(&row(2));
        let mut other = polled(5, 3..=5);
        other.rows[2].nonce = nonce(77);
        assert_eq!(hear(&mut follower, &other), Heard::Refuse(Refused::ChainBroken));
        assert_eq!(step(&mut follower, &polled(5, 3..=5)).applied, at(5));
        assert!(follower.written.is_empty(), "what was passed is forgotten");
    }

    #[test]
    fn a_hole_is_tolerated_twice_and_then_the_log_is_broken() {
        let mut follower = follower();
        for _ in 0..2 {
            let step = step(&mut follower, &polled(5, [3, 5]));
            assert_eq!((step.applied, step.lease, step.again), (at(3), None, true));
        }
        assert_eq!(step(&mut follower, &polled(5, 3..=5)).applied, at(5), "it was closed in time");
        for _ in 0..2 {
            step(&mut follower, &polled(7, [5, 7]));
        }
        assert_eq!(hear(&mut follower, &polled(7, [5, 7])), Heard::Refuse(Refused::ChainBroken));
    }

    #[test]
    fn holes_at_other_places_are_other_holes() {
        let mut follower = follower();
        for last in (3..30).step_by(2) {
            let seen = polled(last + 4, [last, last + 1, last + 2, last + 4]);
            assert_eq!(step(&mut follower, &seen).applied, at(last + 2));
        }
    }

    #[test]
    fn while_it_pages_the_lease_waits_for_the_first_head_and_counts_from_the_first_question() {
        let mut follower = follower();
        let mut ask = |at: u64, answer: Polled| {
            let asked = follower.ask(millis(at));
            match follower.hear(asked, &answer, millis(at)) {
                Heard::Follow(step) => (step.lease.map(|lease| lease.begin), step.again),
                Heard::Refuse(refused) => panic!("{refused:?}"),
            }
        };
        assert_eq!(ask(1_000, polled(8, 3..=5)), (None, true));
        assert_eq!(ask(1_100, polled(12, 5..=7)), (None, true), "the head ran away");
        assert_eq!(ask(1_200, polled(14, 7..=9)), (Some(millis(1_000)), true), "8 was reached");
        assert_eq!(ask(1_300, polled(14, 9..=11)), (None, true));
        assert_eq!(ask(1_400, polled(14, 11..=14)), (Some(millis(1_400)), false));
    }

    /// A lease is as long as the poll said whose head was reached: whoever commits behind that head may know of no longer one.
    #[test]
    fn the_length_of_a_lease_is_that_of_its_poll() {
        let mut follower = follower();
        let mut ask = |at: u64, answer: Polled, seconds: u64| {
            let lease = LeaseDuration::settled(Duration::from_secs(seconds));
            match follower.hear(follower.ask(millis(at)), &Polled { lease, ..answer }, millis(at)) {
                Heard::Follow(step) => step.lease,
                Heard::Refuse(refused) => panic!("{refused:?}"),
            }
        };
        let earned = |at, seconds| Some(Earned { begin: millis(at), span: Duration::from_secs(seconds) });
        assert_eq!(ask(1_000, polled(8, 3..=5), 4), None);
        assert_eq!(ask(1_100, polled(14, 5..=9), 9), earned(1_000, 4));
        assert_eq!(ask(1_200, polled(14, 9..=14), 2), earned(1_200, 2));
    }

    #[test]
    fn an_empty_log_is_followed_from_its_beginning() {
        let mut follower = Follower::new(node(1), joined(0));
        assert!(step(&mut follower, &polled(0, [])).lease.is_some());
        assert_eq!(step(&mut follower, &polled(2, 1..=2)).applied, at(2));
    }

    #[test]
    fn the_wait_outlasts_a_lease_on_the_slowest_clock_by_the_fastest() {
        for lease in [Duration::from_millis(1), LEASE, Duration::from_mins(1)] {
            assert!(wait_for_silent(lease).mul_f64(1.0 / 1.1) > lease.mul_f64(1.0 / 0.9));
        }
    }
}
