//! What the driver of a node does, step by step the same as `fleet/driver.rs`, without threads.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use latchkey::domain::id::{NodeId, Position};
use latchkey::domain::time::BootTime;
use latchkey::fleet::follower::Asked;
use latchkey::fleet::lease_change::ChangeWatch;
use latchkey::fleet::member::Next;
use latchkey::fleet::membership::{Evictions, Measure};
use latchkey::fleet::seen_changes::LostBatch;
use latchkey::live::keeper::MemoryLimits;
use latchkey::mutation::Mutation;
use latchkey::store::coordination::AckCommit;

use super::calls::{Purpose, Validation};
use super::clock::{Moment, NodeClock};
use super::faults::Trouble;
use super::node::Node;
use super::world::{Answer, POLL, Request, Wake, World};

/// How long the follower waits for an answer.
pub const PATIENCE: Duration = Duration::from_millis(1_200);
/// How often a node looks after the others.
pub const NODES_LOOK: Duration = Duration::from_millis(700);
/// Changes that are written again together: few, so that batches follow each other.
const WRITE_AGAIN_MAX: usize = 3;
/// Small, so that its bounds are met.
const LIMITS: MemoryLimits = MemoryLimits { sessions_max: 60, dead_max: 300, changes_max: 40 };

/// A process on a node, and what it waits for.
pub struct Process {
    /// Another one after each restart.
    pub id: usize,
    pub node: Node,
    pub trouble: Trouble,
    /// What the follower waits for.
    work: Work,
    /// The question or the timer that the follower waits for.
    pub follows: Option<u64>,
    nudged: bool,
    /// Every row up to here is in memory, for those who ask.
    pub applied: Position,
    evictions: Evictions,
    changes: ChangeWatch,
    /// What calls wait for, by the question.
    pub waiting: BTreeMap<u64, Purpose>,
    /// Who waits for a session to be read.
    pub fills: HashMap<usize, Vec<Validation>>,
}

enum Work {
    Leaving,
    WritingAgain(LostBatch),
    Inserting(NodeId, Moment),
    Starting(NodeId, Moment),
    Polling(Asked),
    Acknowledging(Position, AckCommit, BootTime),
    Idle,
    Waiting,
}

impl World {
    /// A process that has just begun, on a machine of any rate.
    pub fn new_process(&mut self) -> Process {
        let rate = self.any_rate();
        let shown = Duration::from_secs(self.dice.number() % 1_000_000);
        Process {
            id: self.process_id(),
            node: Node::new(NodeClock::new(rate, shown, self.now), LIMITS),
            trouble: Trouble::default(),
            work: Work::Idle,
            follows: None,
            nudged: false,
            applied: Position::ZERO,
            evictions: Evictions::default(),
            changes: ChangeWatch::default(),
            waiting: BTreeMap::new(),
            fills: HashMap::new(),
        }
    }

    /// A rate within a tenth of the true one, and often at the end of that.
    pub fn any_rate(&mut self) -> u64 {
        let within = 900 + self.dice.number() % 201;
        self.dice.pick(&[900, 1_100, within, within])
    }

    /// The follower begins.
    pub fn begin_process(&mut self, node: usize) {
        self.join(node);
        let look = self.about(NODES_LOOK);
        self.inside(node, look, Wake::LookAfterNodes);
    }

    /// The follower is woken: there is something to read.
    pub fn nudge(&mut self, node: usize) {
        match self.processes[node].work {
            Work::Idle => self.ask(node),
            _ => self.processes[node].nudged = true,
        }
    }

    /// The next question to the log.
    pub fn ask(&mut self, node: usize) {
        let process = &self.processes[node];
        let (id, asked) = (process.node.member.node(), process.node.ask(self.now));
        let (Some(id), Some(asked)) = (id, asked) else { return self.join(node) };
        self.work(node, Work::Polling(asked), Request::Poll(id, asked.from));
    }

    /// What the follower waited for has come.
    pub fn follower_hears(&mut self, node: usize, answer: Answer) {
        let now = self.now;
        let process = &mut self.processes[node];
        process.follows = None;
        match (std::mem::replace(&mut process.work, Work::Waiting), answer) {
            (Work::Leaving, _) => self.write_again_and_join(node),
            (Work::WritingAgain(batch), Answer::WrittenAgain(last)) => {
                process.node.member.wrote_again(&batch, last);
                self.write_again_and_join(node);
            }
            (Work::Inserting(id, sent), Answer::Done) => {
                self.work(node, Work::Starting(id, sent), Request::Start);
            }
            (Work::Starting(id, sent), Answer::Started(joined)) => {
                process.node.joined(id, joined, sent);
                self.ask(node);
            }
            (Work::Polling(asked), Answer::Polled(polled)) => {
                let heard = process.node.hear(asked, &polled, now);
                process.applied = process.node.member.applied();
                process.nudged |= process.applied < polled.head;
                match heard {
                    Ok(Next::Acknowledge(position, commit)) => {
                        let id = process.node.member.node().expect("it has joined");
                        let nonce = process.node.member.nonce();
                        let request = Request::Acknowledge(id, position, nonce);
                        let sent = process.node.boottime(now);
                        self.work(node, Work::Acknowledging(position, commit, sent), request);
                    }
                    Ok(Next::Again) => self.ask(node),
                    Ok(Next::Idle) => self.idle(node),
                    Ok(Next::Join) => self.join(node),
                    Err(refused) if refused.needs_new_start() => self.join(node),
                    Ok(Next::Wait) | Err(_) => self.wait(node),
                }
            }
            (Work::Acknowledging(position, commit, sent), Answer::Done) => {
                process.node.acknowledged(position, commit, sent);
                self.idle(node);
            }
            (Work::Acknowledging(_, commit, sent), _) => {
                process.node.member.not_acknowledged(commit, sent);
                self.idle(node);
            }
            (_, _) => self.wait(node),
        }
    }

    /// Looks after the list of nodes once.
    pub fn look_after_nodes(&mut self, node: usize) {
        self.question(node, Request::Nodes, Purpose::Roster);
        let look = self.about(NODES_LOOK);
        self.inside(node, look, Wake::LookAfterNodes);
    }

    /// The list of nodes has come: silent ones are let go of, and a change of the lease is ended.
    pub fn take_measures(&mut self, node: usize, answer: Answer) {
        let process = &mut self.processes[node];
        let (Answer::Nodes(roster), Some(me)) = (answer, process.node.member.node()) else { return };
        let now = process.node.boottime(self.now);
        let ended = process.changes.end(roster.lease, now);
        let measures = process.evictions.measures(me, &roster, now);
        if let Some(ended) = ended {
            self.question(node, Request::ChangeLease(roster.lease, ended), Purpose::Nothing);
        }
        for measure in measures {
            let request = match measure {
                Measure::Mark(node, heartbeat) => Request::Mark(node, heartbeat),
                Measure::Remove(node) if Mutation::OnePhaseEviction.is_on() => Request::Leave(node),
                Measure::Remove(node) => Request::Remove(node),
            };
            self.question(node, request, Purpose::Nothing);
        }
    }

    fn join(&mut self, node: usize) {
        match self.processes[node].node.member.leave() {
            Some(before) => self.work(node, Work::Leaving, Request::Leave(before)),
            None => self.write_again_and_join(node),
        }
    }

    fn write_again_and_join(&mut self, node: usize) {
        match self.processes[node].node.member.to_write_again(WRITE_AGAIN_MAX) {
            None => self.insert(node),
            Some(batch) => {
                let request = Request::WriteAgain(batch.changes.clone());
                self.work(node, Work::WritingAgain(batch), request);
            }
        }
    }

    fn insert(&mut self, node: usize) {
        let id = self.node_id();
        let sent = self.now;
        self.work(node, Work::Inserting(id, sent), Request::Insert(id));
    }

    fn idle(&mut self, node: usize) {
        if std::mem::take(&mut self.processes[node].nudged) {
            return self.ask(node);
        }
        self.wait(node);
        self.processes[node].work = Work::Idle;
    }

    fn wait(&mut self, node: usize) {
        let ticket = self.ticket();
        let process = &mut self.processes[node];
        (process.work, process.follows) = (Work::Waiting, Some(ticket));
        self.inside(node, POLL, Wake::Poll(ticket));
    }

    fn work(&mut self, node: usize, work: Work, request: Request) {
        let ticket = self.ticket();
        let process = &mut self.processes[node];
        (process.work, process.follows) = (work, Some(ticket));
        self.send(node, ticket, request, PATIENCE);
    }
}
