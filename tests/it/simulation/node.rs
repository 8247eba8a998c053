//! One node: the shipped memory, lease and place in the fleet, on a machine with a clock of its own. What is asked of the
//! database, and when the answer comes, is decided by whoever plays the world.

use std::sync::Arc;

use latchkey::domain::change::LoggedChange;
use latchkey::domain::id::{NodeId, Position};
use latchkey::domain::time::BootTime;
use latchkey::fleet::barrier::Barrier;
use latchkey::fleet::follower::{Asked, Refused};
use latchkey::fleet::member::{Member, Next};
use latchkey::live::keeper::{EndKnown, Fill, Keeper, MemoryLimits};
use latchkey::live::lease::Lease;
use latchkey::live::table::{LookUp, Table};
use latchkey::store::coordination::{AckCommit, Joined, Polled};

use super::clock::{Moment, NodeClock};
use super::people;

/// What memory says of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Good,
    Over,
    Unknown,
    Miss,
    LeaseLost,
}

/// A process.
#[derive(Debug)]
pub struct Node {
    pub clock: NodeClock,
    pub member: Member,
    pub table: Arc<Table>,
    pub lease: Arc<Lease>,
}

impl Node {
    /// A process that has just begun.
    pub fn new(clock: NodeClock, limits: MemoryLimits) -> Self {
        let (table, lease) = (Table::new(100), Arc::<Lease>::default());
        let member = Member::new(Keeper::new(Arc::clone(&table), limits), Arc::clone(&lease));
        Self { clock, member, table, lease }
    }

    /// What its clock shows.
    pub fn boottime(&self, now: Moment) -> BootTime {
        self.clock.boottime(now)
    }

    /// Whether memory may answer.
    pub fn is_leased(&self, now: Moment) -> bool {
        self.lease.ask(|| self.boottime(now)).is_some()
    }

    /// Asks memory about a session.
    pub fn look_up(&self, session: usize, now: Moment) -> Verdict {
        let (digest, clock) = (people::digest(session), || self.boottime(now));
        match self.table.look_up(&self.lease, clock, &digest, |_| super::database::time(now), |_| ()) {
            None => Verdict::LeaseLost,
            Some(LookUp::Good(())) => Verdict::Good,
            Some(LookUp::Over(_)) => Verdict::Over,
            Some(LookUp::NotKnown) => Verdict::Unknown,
            Some(LookUp::Miss) => Verdict::Miss,
        }
    }

    /// It joined under an id.
    pub fn joined(&mut self, id: NodeId, joined: Joined, sent: Moment) {
        self.member.joined(id, joined, self.clock.boottime(sent));
    }

    /// The question to the log.
    pub fn ask(&self, now: Moment) -> Option<Asked> {
        self.member.ask(self.boottime(now))
    }

    /// The answer.
    pub fn hear(&mut self, asked: Asked, polled: &Polled, now: Moment) -> Result<Next, Refused> {
        self.member.hear(asked, polled, self.clock.boottime(now))
    }

    /// The acknowledgement that was sent at `sent`, by this node's clock, came back.
    pub fn acknowledged(&mut self, position: Position, commit: AckCommit, sent: BootTime) {
        self.member.acknowledged(position, commit, sent, sent);
    }

    /// A read came back that began while it was in the fleet as `reader`.
    pub fn fill(&mut self, reader: Option<NodeId>, fill: Fill, now: Moment) {
        self.member.fill(reader, fill, super::database::time(now));
    }

    /// A commit of its own came back: the barrier for it, counted from when it was `begun` or acknowledged.
    pub fn committed(
        &mut self,
        rows: &[LoggedChange],
        position: Position,
        begun: Moment,
        now: Moment,
    ) -> Barrier {
        let boottime = self.boottime(now);
        self.member.apply_own(rows, boottime);
        let nonce = rows.last().map(|row| row.nonce);
        Barrier::new(position, nonce, self.boottime(begun), boottime)
    }

    /// The outcome of a commit of its own is unknown.
    pub fn end_known(&mut self, what: EndKnown) {
        self.member.end_known(&[what]);
    }
}
