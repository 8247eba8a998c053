//! The random world: what happens when, and what becomes of messages on their way. Everything follows from the seed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use latchkey::domain::change::LoggedChange;
use latchkey::domain::id::{NodeId, Nonce, Position, UserId};
use latchkey::domain::session::Session;
use latchkey::domain::time::UnixMillis;
use latchkey::domain::token::TokenDigest;
use latchkey::live::keeper::Fill;
use latchkey::store::coordination::{Joined, LeaseDuration, Polled, Roster};
use latchkey::store::{Change, Credentials};

use super::calls::{Calls, Purpose};
use super::checks::History;
use super::clock::Moment;
use super::database::{Begun, Database, Revocation};
use super::faults::Fault;
use super::process::Process;
use crate::support::dice::Dice;

/// How long a lease is.
pub const LEASE: Duration = Duration::from_secs(2);
/// How often the log is polled.
pub const POLL: Duration = Duration::from_millis(250);
/// How long an undisturbed message is on its way at most.
pub const UNDISTURBED_MAX: Duration = Duration::from_millis(20);

/// What a world is like.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub nodes: usize,
    pub users: usize,
    /// How long anything goes wrong.
    pub faulty: Duration,
    /// How long all goes well after that.
    pub calm: Duration,
    /// How often somebody asks for something, in the mean.
    pub pace: Duration,
    /// How often something goes wrong, in the mean.
    pub fault_pace: Duration,
    /// Whether the database may lose commits.
    pub fails_over: bool,
    /// How many rows of the log a poll reads at most: one of these.
    pub pages: &'static [usize],
    /// To how many milliseconds operators change the lease, while anything goes wrong.
    pub leases: &'static [u64],
}

/// What a node asks of the database.
#[derive(Clone, Debug)]
pub enum Request {
    Insert(NodeId),
    Start,
    Poll(NodeId, Position),
    Acknowledge(NodeId, Position, Option<Nonce>),
    Leave(NodeId),
    WriteAgain(Vec<LoggedChange>),
    Nodes,
    Mark(NodeId, UnixMillis),
    Remove(NodeId),
    ChangeLease(LeaseDuration, LeaseDuration),
    Read(Vec<TokenDigest>),
    Credentials(UserId),
    Create(TokenDigest, Box<Session>),
    Revoke(Revocation),
}

/// What the database answers.
#[derive(Clone, Debug)]
pub enum Answer {
    Done,
    Started(Joined),
    Polled(Polled),
    Nodes(Roster),
    Read(Fill),
    Credentials(Box<Credentials>),
    Changed(Change),
    WrittenAgain(Option<(Position, Nonce)>),
    /// Nothing was done.
    Refused,
    /// Nobody knows.
    TimedOut,
}

/// Something that happens at a moment.
#[derive(Debug)]
pub enum Event {
    /// A request reaches the database.
    Arrive(Envelope, Request),
    /// A transaction gets the lock that it waited for.
    Commit(Envelope, Begun),
    /// Something happens inside a process.
    Inside(usize, usize, Wake),
    /// A client asks for something.
    Client,
    /// Something goes wrong.
    Fault,
    /// Everything is well again.
    Heal,
}

/// What happens inside a process.
#[derive(Debug)]
pub enum Wake {
    Answer(u64, Answer),
    /// The time for the next poll, unless it came already.
    Poll(u64),
    /// What a call has waited for.
    Call(Purpose),
    LookAfterNodes,
}

/// Who asked, and over which connection.
#[derive(Clone, Copy, Debug)]
pub struct Envelope {
    pub node: usize,
    pub process: usize,
    pub ticket: u64,
    /// Fail-overs before: connections do not outlive one.
    pub server: usize,
}

/// All there is.
pub struct World {
    pub plan: Plan,
    pub dice: Dice,
    pub now: Moment,
    pub db: Database,
    pub processes: Vec<Process>,
    pub calls: Calls,
    pub history: History,
    /// How disturbed messages are.
    pub fault: Fault,
    /// Rows that a poll reads at most.
    pub page: usize,
    tick: u64,
    tickets: u64,
    queue: BinaryHeap<Reverse<(Moment, u64)>>,
    events: BTreeMap<u64, Event>,
    queued: u64,
    node_ids: usize,
    process_ids: usize,
}

impl World {
    /// The world of a seed.
    pub fn new(seed: u64, plan: Plan) -> Self {
        let kept_max = if plan.fails_over { 12 } else { 0 };
        let mut world = Self {
            plan,
            dice: Dice::new(seed),
            now: Moment::default(),
            db: Database::new(LEASE, plan.users, kept_max),
            processes: Vec::new(),
            calls: Calls::default(),
            history: History::default(),
            fault: Fault::default(),
            page: 100,
            tick: 0,
            tickets: 0,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            queued: 0,
            node_ids: 0,
            process_ids: 0,
        };
        world.page = world.dice.pick(plan.pages);
        for node in 0..plan.nodes {
            let process = world.new_process();
            world.processes.push(process);
            world.begin_process(node);
        }
        world.after(Duration::from_millis(50), Event::Client);
        world.after(plan.fault_pace, Event::Fault);
        world.after(plan.faulty, Event::Heal);
        world
    }

    /// Lets everything happen until `end`.
    pub fn run(&mut self, end: Duration) {
        let end = Moment::default().plus(end);
        while self.queue.peek().is_some_and(|Reverse((at, _))| *at <= end) {
            let Some(Reverse((at, number))) = self.queue.pop() else { return };
            let event = self.events.remove(&number).expect("each is queued once");
            self.now = at;
            self.happen(event);
        }
        self.now = end;
    }

    /// The next tick, by which calls are ordered.
    pub fn tick(&mut self) -> u64 {
        self.tick += 1;
        self.tick
    }

    /// A number that no other question has.
    pub fn ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    /// An id that no node had.
    pub fn node_id(&mut self) -> NodeId {
        self.node_ids += 1;
        super::people::node_id(self.node_ids)
    }

    /// A number that no process had.
    pub fn process_id(&mut self) -> usize {
        self.process_ids += 1;
        self.process_ids
    }

    /// Something happens after `span`.
    pub fn after(&mut self, span: Duration, event: Event) {
        self.queued += 1;
        self.queue.push(Reverse((self.now.plus(span), self.queued)));
        self.events.insert(self.queued, event);
    }

    /// Something happens inside the process that is now on the node, `span` by its own clock later.
    pub fn inside(&mut self, node: usize, span: Duration, wake: Wake) {
        let span = self.processes[node].node.clock.true_span(span);
        let process = self.processes[node].id;
        self.after(span, Event::Inside(node, process, wake));
    }

    /// A span between half of `mean` and twice of it.
    pub fn about(&mut self, mean: Duration) -> Duration {
        mean * u32::try_from(50 + self.dice.below(150)).expect("small") / 100
    }

    /// A node asks the database; the answer comes to `ticket`, or none does within `patience`.
    pub fn send(&mut self, node: usize, ticket: u64, request: Request, patience: Duration) {
        let envelope =
            Envelope { node, process: self.processes[node].id, ticket, server: self.history.fail_overs };
        self.inside(node, patience, Wake::Answer(ticket, Answer::TimedOut));
        let delay = self.delay();
        if self.processes[node].trouble.is_unheard(self.now) || self.is_lost() {
            return;
        }
        self.after(delay, Event::Arrive(envelope, request));
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive(envelope, request) => self.arrive(envelope, request),
            Event::Commit(envelope, begun) => {
                if envelope.server == self.history.fail_overs && self.db.is_primary {
                    let change = self.db.commit(begun, self.now);
                    self.reply(envelope, Answer::Changed(change));
                }
            }
            Event::Inside(node, process, wake) => {
                if self.processes[node].id != process {
                    return;
                }
                // A process that is stopped finds everything when it goes on.
                match self.processes[node].trouble.stopped_for(self.now) {
                    Some(left) => self.after(left, Event::Inside(node, process, wake)),
                    None => self.wake(node, wake),
                }
            }
            Event::Client => {
                self.client_asks();
                let span = self.about(self.plan.pace);
                self.after(span, Event::Client);
            }
            Event::Fault => self.go_wrong(),
            Event::Heal => self.heal(),
        }
    }

    fn arrive(&mut self, envelope: Envelope, request: Request) {
        if envelope.server != self.history.fail_overs || self.fault.is_down(self.now) {
            return;
        }
        let (now, page, db) = (self.now, self.page, &mut self.db);
        let writes = db.is_primary;
        let answer = match request {
            Request::Start => Answer::Started(db.start()),
            Request::Poll(node, from) => Answer::Polled(db.poll(node, from, page, now)),
            Request::Nodes => Answer::Nodes(db.nodes(now)),
            Request::Read(digests) => Answer::Read(db.read(&digests)),
            Request::Credentials(user) => Answer::Credentials(Box::new(db.credentials(user))),
            _ if !writes => Answer::Refused,
            Request::Revoke(what) => {
                let begun = db.begin(what);
                let wait = self.lock_wait();
                return self.after(wait, Event::Commit(envelope, begun));
            }
            Request::Insert(node) => {
                db.insert_node(node, now);
                Answer::Done
            }
            Request::Acknowledge(node, position, nonce) => {
                db.acknowledge(node, position, nonce, now);
                Answer::Done
            }
            Request::Leave(node) => {
                db.leave(node);
                Answer::Done
            }
            Request::WriteAgain(lost) => Answer::WrittenAgain(db.write_again(&lost, now)),
            Request::Mark(node, heartbeat) => {
                db.mark_evicting(node, heartbeat, now);
                Answer::Done
            }
            Request::Remove(node) => {
                db.remove_evicted(node);
                Answer::Done
            }
            Request::ChangeLease(from, to) => {
                db.change_lease(from, to);
                Answer::Done
            }
            Request::Create(digest, session) => {
                db.create_session(digest, *session);
                Answer::Done
            }
        };
        self.reply(envelope, answer);
    }

    fn reply(&mut self, envelope: Envelope, answer: Answer) {
        let delay = self.delay();
        if self.processes[envelope.node].trouble.hears_nothing(self.now) || self.is_lost() {
            return;
        }
        let wake = Wake::Answer(envelope.ticket, answer);
        self.after(delay, Event::Inside(envelope.node, envelope.process, wake));
    }

    fn wake(&mut self, node: usize, wake: Wake) {
        match wake {
            Wake::Answer(ticket, answer) => {
                if self.processes[node].follows == Some(ticket) {
                    self.follower_hears(node, answer);
                } else if let Some(purpose) = self.processes[node].waiting.remove(&ticket) {
                    self.call_hears(node, purpose, answer);
                }
            }
            Wake::Poll(ticket) => {
                if self.processes[node].follows == Some(ticket) {
                    self.ask(node);
                }
            }
            Wake::Call(purpose) => self.call_goes_on(node, purpose),
            Wake::LookAfterNodes => self.look_after_nodes(node),
        }
    }
}
