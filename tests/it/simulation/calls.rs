//! What clients ask for: sign-ins, validations and revocations, as the use cases and `fleet/mod.rs` serve them.

use std::time::Duration;

use latchkey::domain::id::{NodeId, Nonce};
use latchkey::domain::session::{Death, Session};
use latchkey::domain::user::UserState;
use latchkey::fleet::barrier::Barrier;
use latchkey::fleet::lease_change;
use latchkey::live::keeper::{EndKnown, Fill, Filled};
use latchkey::store::{Change, Credentials};

use super::checks::{self, Born, Revoked};
use super::clock::Moment;
use super::database::Revocation;
use super::node::Verdict;
use super::people::{self, digest, session_id, user_id};
use super::world::{Answer, Request, Wake, World};

/// How often a session is read that changes again and again.
const READS_MAX: u32 = 5;
/// Tokens that may wait to be read.
const FILLS_MAX: usize = 30;
const LOOK_FIRST: Duration = Duration::from_millis(1);
const LOOK_MAX: Duration = Duration::from_millis(20);
/// How long a call waits for an answer. Reads may be much older than a poll can be.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK_PATIENCE: Duration = Duration::from_millis(800);

/// What a call goes on with.
#[derive(Debug)]
pub enum Purpose {
    Nothing,
    Roster,
    /// A read for those who wait for the session, and who read.
    Fill(usize, Option<NodeId>),
    /// A read that nobody waits for, as at a start.
    Warm(Option<NodeId>),
    SignIn(usize),
    Hashed(usize, Box<Credentials>),
    Create(usize, Box<Credentials>, Box<Session>, Option<NodeId>),
    Revoke(Box<Call>),
    Committed(Box<Call>, Change),
    Look(Box<Call>),
    SetLease(Duration),
}

/// A validation under way.
#[derive(Clone, Copy, Debug)]
pub struct Validation {
    session: usize,
    begin: u64,
    reads: u32,
}

/// A revocation under way.
#[derive(Debug)]
pub struct Call {
    /// Its place in the history.
    number: usize,
    what: Revocation,
    begun: Moment,
    acknowledged: Moment,
    barrier: Option<Barrier>,
    wrote: bool,
    change: Option<Change>,
    others_stand: bool,
    look: Duration,
}

/// What clients know.
#[derive(Default)]
pub struct Calls {
    sessions: usize,
    /// How long each revocation took that returned, and when it began.
    pub took: Vec<(Moment, Duration)>,
    /// When each revocation began, by its place in the history.
    begun: Vec<Moment>,
}

impl World {
    /// A client asks for something.
    pub fn client_asks(&mut self) {
        let node = self.dice.below(self.plan.nodes);
        if !self.plan.leases.is_empty() && self.now.age() < self.plan.faulty && self.dice.below(600) == 0 {
            let target = Duration::from_millis(self.dice.pick(self.plan.leases));
            return self.question(node, Request::Nodes, Purpose::SetLease(target));
        }
        match self.dice.below(100) {
            0..8 => self.sign_in(node),
            8..10 => self.revoke(node),
            10..12 => self.warm(node),
            _ => {
                if let Some(session) = self.any_session() {
                    self.validate(node, session);
                }
            }
        }
    }

    /// Asks the node about a session.
    pub fn validate(&mut self, node: usize, session: usize) {
        if self.processes[node].trouble.stopped_for(self.now).is_none() {
            let begin = self.tick();
            self.validate_again(node, Validation { session, begin, reads: 0 });
        }
    }

    /// Every revocation that began after `since`, and more than `most` ago, has returned.
    pub fn assert_all_returned(&self, since: Duration, most: Duration) {
        for (begun, revoked) in self.calls.begun.iter().zip(&self.history.revoked) {
            let due = begun.age() > since && self.now - *begun > most;
            assert!(!due || revoked.returned.is_some(), "{revoked:?} of {begun:?} has not returned");
        }
    }

    /// The answer to a question of a call.
    pub fn call_hears(&mut self, node: usize, purpose: Purpose, answer: Answer) {
        match (purpose, answer) {
            (Purpose::Roster, answer) => self.take_measures(node, answer),
            (Purpose::Fill(session, reader), answer) => {
                let waiting = self.processes[node].fills.remove(&session).unwrap_or_default();
                if let Answer::Read(fill) = answer {
                    self.fill(node, reader, fill);
                    for one in waiting {
                        self.validate_again(node, one);
                    }
                } else {
                    for one in waiting {
                        self.answer(node, one, checks::Answer::Unavailable);
                    }
                }
            }
            (Purpose::Warm(reader), Answer::Read(fill)) => self.fill(node, reader, fill),
            (Purpose::SignIn(user), Answer::Credentials(credentials))
                if credentials.user.state == UserState::Active =>
            {
                let hashing = Duration::from_millis(self.dice.pick(&[20, 60, 200, 1_500]));
                self.inside(node, hashing, Wake::Call(Purpose::Hashed(user, credentials)));
            }
            (Purpose::Create(user, credentials, session, reader), Answer::Done) => {
                let number = people::number_of(session.id);
                let found =
                    vec![Filled { digest: digest(number), session: *session, user: Some(credentials.user) }];
                let (position, everyone_epoch) = (credentials.position, credentials.everyone_epoch);
                self.fill(node, reader, Fill { position, everyone_epoch, asked: Vec::new(), found });
                let end = self.tick();
                self.history.born.insert(number, Born { user, end });
                if !self.db.knows(session_id(number)) {
                    self.history.lost_sessions.insert(number);
                }
            }
            (Purpose::Revoke(mut call), Answer::Changed(change)) => {
                call.acknowledged = self.now;
                let pause = Duration::from_micros(self.dice.number() % 1_000);
                self.inside(node, pause, Wake::Call(Purpose::Committed(call, change)));
            }
            (Purpose::Revoke(call), Answer::TimedOut) => {
                // The outcome is unknown: what memory holds ends all the same.
                self.processes[node].node.end_known(known(call.what));
            }
            (Purpose::Look(call), answer) => self.look(node, call, answer),
            (Purpose::SetLease(target), Answer::Nodes(roster)) => {
                let nonce = Nonce(self.ticket().to_le_bytes());
                if let Some(begun) = lease_change::begin(roster.lease, target, nonce) {
                    self.question(node, Request::ChangeLease(roster.lease, begun), Purpose::Nothing);
                }
            }
            (_, _) => {}
        }
    }

    /// What a call has waited for is over.
    pub fn call_goes_on(&mut self, node: usize, purpose: Purpose) {
        match purpose {
            Purpose::Hashed(user, credentials) => {
                self.calls.sessions += 1;
                let number = self.calls.sessions;
                let session = Box::new(people::session(number, &credentials));
                let reader = self.reader(node);
                let request = Request::Create(digest(number), session.clone());
                self.question(node, request, Purpose::Create(user, credentials, session, reader));
            }
            Purpose::Committed(mut call, change) => {
                let process = &mut self.processes[node];
                let mut barrier =
                    process.node.committed(&change.rows, change.position, call.begun, call.acknowledged);
                if let Some(known) = process.node.member.known_lease() {
                    barrier.learn_known(known);
                }
                (call.barrier, call.wrote) = (Some(barrier), !change.rows.is_empty());
                self.history.revoked[call.number].nonce = change.rows.last().map(|row| row.nonce);
                call.change = Some(change);
                if call.wrote {
                    self.nudge(node);
                    self.hint(node);
                }
                self.ask_who_stands(node, call);
            }
            Purpose::Look(call) => self.ask_who_stands(node, call),
            _ => {}
        }
    }

    /// Asks the database for something that a call goes on with.
    pub fn question(&mut self, node: usize, request: Request, purpose: Purpose) {
        let ticket = self.ticket();
        let patience = if matches!(purpose, Purpose::Look(_)) { LOOK_PATIENCE } else { PATIENCE };
        self.processes[node].waiting.insert(ticket, purpose);
        self.send(node, ticket, request, patience);
    }

    fn any_session(&mut self) -> Option<usize> {
        // Mostly the younger ones, of which some still stand.
        let (born, back) = (self.history.born.len(), self.dice.below(40));
        let at =
            if self.dice.chance(80) { born.checked_sub(1 + back)? } else { self.dice.below(born.max(1)) };
        self.history.born.keys().nth(at).copied()
    }

    fn sign_in(&mut self, node: usize) {
        let user = self.dice.below(self.plan.users);
        self.question(node, Request::Credentials(user_id(user)), Purpose::SignIn(user));
    }

    fn warm(&mut self, node: usize) {
        let digests = (0..5).filter_map(|_| self.any_session()).map(digest).collect();
        let reader = self.reader(node);
        self.question(node, Request::Read(digests), Purpose::Warm(reader));
    }

    /// Under which id the node is in the fleet.
    fn reader(&self, node: usize) -> Option<NodeId> {
        self.processes[node].node.member.node()
    }

    fn fill(&mut self, node: usize, reader: Option<NodeId>, fill: Fill) {
        let now = self.now;
        self.processes[node].node.fill(reader, fill, now);
    }

    fn validate_again(&mut self, node: usize, mut one: Validation) {
        let answer = match self.processes[node].node.look_up(one.session, self.now) {
            Verdict::Good => checks::Answer::Good,
            Verdict::Over | Verdict::Unknown => checks::Answer::Over,
            Verdict::LeaseLost => checks::Answer::Unavailable,
            Verdict::Miss => {
                one.reads += 1;
                let fills = &mut self.processes[node].fills;
                if let Some(waiting) = fills.get_mut(&one.session) {
                    return waiting.push(one);
                }
                if one.reads <= READS_MAX && fills.len() < FILLS_MAX {
                    fills.insert(one.session, vec![one]);
                    let (request, reader) = (Request::Read(vec![digest(one.session)]), self.reader(node));
                    return self.question(node, request, Purpose::Fill(one.session, reader));
                }
                checks::Answer::Unavailable
            }
        };
        self.answer(node, one, answer);
    }

    fn answer(&mut self, node: usize, one: Validation, answer: checks::Answer) {
        let (end, process) = (self.tick(), self.processes[node].id);
        let Validation { session, begin, .. } = one;
        self.history.asked.push(checks::Asked { session, process, begin, end, answer });
    }

    fn revoke(&mut self, node: usize) {
        let user = user_id(self.dice.below(self.plan.users));
        let session = self.any_session().map(session_id);
        let what = match (self.dice.below(100), session) {
            (0..65, Some(session)) => Revocation::Session(session),
            (65..77, _) => Revocation::User(user, session),
            (77..87, _) => Revocation::Password(user, session),
            (87..90, _) => Revocation::Disable(user),
            (99.., _) => Revocation::Everyone,
            _ => Revocation::Enable(user),
        };
        let begin = self.tick();
        self.calls.begun.push(self.now);
        self.history.revoked.push(Revoked { what, begin, returned: None, nonce: None });
        let call = Call {
            number: self.history.revoked.len() - 1,
            what,
            begun: self.now,
            acknowledged: self.now,
            barrier: None,
            wrote: false,
            change: None,
            others_stand: false,
            look: LOOK_FIRST,
        };
        self.question(node, Request::Revoke(what), Purpose::Revoke(Box::new(call)));
    }

    fn hint(&mut self, from: usize) {
        for node in (0..self.plan.nodes).filter(|node| *node != from) {
            if self.dice.chance(50) {
                self.nudge(node);
            }
        }
    }

    fn ask_who_stands(&mut self, node: usize, call: Box<Call>) {
        if call.others_stand {
            return self.look(node, call, Answer::Refused);
        }
        self.question(node, Request::Nodes, Purpose::Look(call));
    }

    fn look(&mut self, node: usize, mut call: Box<Call>, answer: Answer) {
        let process = &self.processes[node];
        let (Some(barrier), Some(change)) = (&mut call.barrier, &call.change) else { return };
        if let Answer::Nodes(roster) = answer {
            call.others_stand |= barrier.others_stand(process.node.member.node(), &roster).is_some();
        }
        let has_applied = call.wrote || process.applied >= change.position;
        let waited_out = barrier.is_waited_out(process.node.boottime(self.now));
        if (call.others_stand && has_applied) || waited_out {
            return self.returned(&call);
        }
        self.nudge(node);
        let look = call.look;
        call.look = (look * 2).min(LOOK_MAX);
        self.inside(node, look, Wake::Call(Purpose::Look(call)));
    }

    /// The revocation returned. Now is the time to ask about what it ended.
    fn returned(&mut self, call: &Call) {
        let tick = self.tick();
        self.history.revoked[call.number].returned = Some(tick);
        self.calls.took.push((call.begun, self.now - call.begun));
        let of_user = |user| move |born: &Born| user_id(born.user) == user;
        let born = &self.history.born;
        let ended: Vec<_> = match call.what {
            Revocation::Session(session) => vec![people::number_of(session)],
            Revocation::User(user, _) | Revocation::Password(user, _) | Revocation::Disable(user) => {
                let of_user = of_user(user);
                born.iter().filter(|(_, born)| of_user(born)).map(|(number, _)| *number).collect()
            }
            Revocation::Everyone => born.keys().copied().collect(),
            Revocation::Enable(_) => Vec::new(),
        };
        for session in ended.into_iter().rev().take(4) {
            for node in 0..self.plan.nodes.min(50) {
                self.validate(node, session);
            }
        }
    }
}

fn known(what: Revocation) -> EndKnown {
    match what {
        Revocation::Session(session) => EndKnown::Session(session),
        Revocation::User(user, except) => EndKnown::User(user, except, Death::Revoked),
        Revocation::Password(user, except) => EndKnown::User(user, except, Death::CredentialsChanged),
        Revocation::Disable(user) => EndKnown::User(user, None, Death::UserDisabled),
        Revocation::Enable(_) => EndKnown::Nothing,
        Revocation::Everyone => EndKnown::Everyone,
    }
}
