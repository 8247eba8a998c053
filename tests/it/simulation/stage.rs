//! Where a story is played by hand: whoever tells it decides when a question is asked, when the database answers it and
//! when the answer comes.

use std::time::Duration;

use latchkey::domain::id::Nonce;
use latchkey::fleet::barrier::Barrier;
use latchkey::fleet::follower::{Asked, Refused};
use latchkey::fleet::lease_change::{self, ChangeWatch};
use latchkey::fleet::member::Next;
use latchkey::fleet::membership::{Evictions, Measure};
use latchkey::live::keeper::{Fill, MemoryLimits};
use latchkey::mutation::Mutation;
use latchkey::store::coordination::{AckCommit, Polled};

use super::clock::{Moment, NodeClock, RIGHT};
use super::database::{Database, Revocation};
use super::node::{Node, Verdict};
use super::people;

/// How long a lease is.
pub const LEASE: Duration = Duration::from_secs(4);
/// How much memory holds.
pub const LIMITS: MemoryLimits = MemoryLimits { sessions_max: 1_000, dead_max: 1_000, changes_max: 1_000 };

/// The world of a story.
pub struct Stage {
    pub db: Database,
    pub nodes: Vec<Node>,
    pub now: Moment,
    /// Rows that a poll reads at most.
    pub page: usize,
    joins: usize,
    changes: u64,
}

impl Stage {
    /// So many nodes that have joined and hold a lease. There are three users, with the sessions of their number.
    pub fn new(nodes: usize) -> Self {
        let (db, now) = (Database::new(LEASE, 3, 100), Moment::default());
        let mut stage = Self { db, nodes: Vec::new(), now, page: 100, joins: 0, changes: 0 };
        for number in 0..3 {
            let credentials = stage.db.credentials(people::user_id(number));
            stage.db.create_session(people::digest(number), people::session(number, &credentials));
        }
        for at in 0..nodes {
            stage.nodes.push(Node::new(NodeClock::new(RIGHT, LEASE, now), LIMITS));
            stage.join(at);
            stage.poll(at);
        }
        stage
    }

    /// Time passes.
    pub fn pass(&mut self, millis: u64) {
        self.now = self.now.plus(Duration::from_millis(millis));
    }

    /// A node leaves, writes again what was lost, and joins anew, as the driver does it.
    pub fn join(&mut self, node: usize) {
        if let Some(before) = self.nodes[node].member.leave() {
            self.db.leave(before);
        }
        while self.write_again(node, 2) {}
        self.insert(node);
    }

    /// A node that has left writes one batch again; false where there is none.
    pub fn write_again(&mut self, node: usize, limit: usize) -> bool {
        let member = &mut self.nodes[node].member;
        let Some(batch) = member.to_write_again(limit) else { return false };
        let last = self.db.write_again(&batch.changes, self.now);
        member.wrote_again(&batch, last);
        true
    }

    /// A node that has left joins anew.
    pub fn insert(&mut self, node: usize) {
        self.joins += 1;
        let id = people::node_id(self.joins);
        self.db.insert_node(id, self.now);
        self.nodes[node].joined(id, self.db.start(), self.now);
    }

    /// A node asks the log.
    pub fn ask(&self, node: usize) -> Asked {
        self.nodes[node].ask(self.now).expect("it has joined")
    }

    /// The database answers.
    pub fn answer(&self, node: usize, asked: Asked) -> Polled {
        let id = self.nodes[node].member.node().expect("it has joined");
        self.db.poll(id, asked.from, self.page, self.now)
    }

    /// The answer comes.
    pub fn hear(&mut self, node: usize, asked: Asked, polled: &Polled) -> Result<Next, Refused> {
        self.nodes[node].hear(asked, polled, self.now)
    }

    /// The acknowledgement reaches the database, and its answer comes.
    pub fn acknowledge(&mut self, node: usize, next: Next) {
        if let Next::Acknowledge(position, commit) = next {
            let id = self.nodes[node].member.node().expect("it has joined");
            let nonce = self.nodes[node].member.nonce();
            let is_elsewhere = matches!(commit, AckCommit::Durable(server) if server != self.db.server);
            if is_elsewhere && !Mutation::AckOfAnotherServer.is_on() {
                return;
            }
            self.db.acknowledge(id, position, nonce, self.now);
            let sent = self.nodes[node].boottime(self.now);
            self.nodes[node].acknowledged(position, commit, sent);
        }
    }

    /// All of that at once.
    pub fn poll(&mut self, node: usize) {
        let asked = self.ask(node);
        let polled = self.answer(node, asked);
        let next = self.hear(node, asked, &polled).expect("nothing is wrong with the log");
        self.acknowledge(node, next);
    }

    /// A node looks after the list of nodes.
    pub fn look_after_nodes(&self, node: usize, evictions: &mut Evictions) -> Vec<Measure> {
        let me = self.nodes[node].member.node().expect("it has joined");
        evictions.measures(me, &self.db.nodes(self.now), self.nodes[node].boottime(self.now))
    }

    /// An operator asks for another lease.
    pub fn set_lease(&mut self, target: Duration) {
        self.changes += 1;
        let (lease, nonce) = (self.db.lease(), Nonce(self.changes.to_le_bytes()));
        let begun = lease_change::begin(lease, target, nonce).expect("another lease than before");
        self.db.change_lease(lease, begun);
    }

    /// A node looks whether it is time to end a change of the lease, and does so.
    pub fn look_after_lease(&mut self, node: usize, watch: &mut ChangeWatch) {
        let lease = self.db.lease();
        if let Some(ended) = watch.end(lease, self.nodes[node].boottime(self.now)) {
            self.db.change_lease(lease, ended);
        }
    }

    /// The database reads a session for memory.
    pub fn read(&self, session: usize) -> Fill {
        self.db.read(&[people::digest(session)])
    }

    /// Memory takes in what was read since the node is in the fleet.
    pub fn fill(&mut self, node: usize, fill: Fill) {
        let reader = self.nodes[node].member.node();
        self.nodes[node].fill(reader, fill, self.now);
    }

    /// All nodes know the session.
    pub fn fill_everywhere(&mut self, session: usize) {
        for node in 0..self.nodes.len() {
            let read = self.read(session);
            self.fill(node, read);
            assert_eq!(self.look_up(node, session), Verdict::Good);
        }
    }

    /// Asks a node about a session.
    pub fn look_up(&self, node: usize, session: usize) -> Verdict {
        self.nodes[node].look_up(session, self.now)
    }

    /// A node commits a revocation; it returns when the barrier stands.
    pub fn revoke(&mut self, node: usize, what: Revocation) -> Barrier {
        let change = self.db.revoke(what, self.now);
        let mut barrier = self.nodes[node].committed(&change.rows, change.position, self.now, self.now);
        if let Some(known) = self.nodes[node].member.known_lease() {
            barrier.learn_known(known);
        }
        barrier
    }

    /// Whether the barrier stands.
    pub fn stands(&self, node: usize, barrier: &mut Barrier) -> bool {
        let node = &self.nodes[node];
        let roster = self.db.nodes(self.now);
        barrier.others_stand(node.member.node(), &roster).is_some()
            || barrier.is_waited_out(node.boottime(self.now))
    }

    /// Nothing else happens until the barrier stands. From then on nobody accepts the session.
    #[track_caller]
    pub fn returns(&mut self, node: usize, barrier: &mut Barrier, session: usize) {
        let begun = self.now;
        while !self.stands(node, barrier) {
            self.pass(10);
            assert!(self.now - begun < 3 * LEASE, "a revocation returns in the end");
        }
        self.assert_nobody_accepts(session);
    }

    /// The same while the database does not answer the node, for 10 s at most.
    #[track_caller]
    pub fn returns_by_time_alone(&mut self, node: usize, barrier: &mut Barrier, session: usize) {
        let begun = self.now;
        while !barrier.is_waited_out(self.nodes[node].boottime(self.now)) {
            self.pass(10);
            if self.now - begun > Duration::from_secs(10) {
                return;
            }
        }
        self.assert_nobody_accepts(session);
    }

    /// Nobody accepts the session.
    #[track_caller]
    pub fn assert_nobody_accepts(&self, session: usize) {
        for node in 0..self.nodes.len() {
            assert_ne!(self.look_up(node, session), Verdict::Good, "node {node} at {:?}", self.now);
        }
    }
}
