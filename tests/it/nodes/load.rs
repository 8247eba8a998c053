//! Those who call a fleet all the time: some ask about sessions, some sign people in and end sessions, each at one node,
//! about sessions that were made at any node.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use latchkey::grpc::proto::v1;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use v1::revoke_sessions_request::Target as Wanted;

use super::harness::{Door, Slot};
use super::log::Log;
use crate::history::books::Known;
use crate::history::checker::{Answer, Event, Outcome as Certainty, Target};
use crate::history::client::Outcome;
use crate::history::operation::Wish;
use crate::support::dice::Dice;

/// Who calls each node.
const ASKERS: usize = 3;
const WRITERS: usize = 4;
/// Between two calls of one caller.
const ASKING: Duration = Duration::from_millis(20);
const WRITING: Duration = Duration::from_millis(80);
/// How long who asks waits for an answer, as an application does.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// How long who writes waits; longer than the longest barrier.
const WRITE_MAX: Duration = Duration::from_secs(15);
/// Questions at a time when all is over.
const QUESTIONS: usize = 24;
/// Sessions that are asked about at the end, at each node.
pub const LAST_LOOK: usize = 500;

/// Why nobody knew, where no answer came in time.
pub const NO_ANSWER: &str = "NO_ANSWER";

/// All who call, until they are told to stop.
pub struct Load {
    callers: JoinSet<()>,
    stop: Arc<AtomicBool>,
}

/// What all who call share.
#[derive(Clone)]
pub struct World {
    pub log: Arc<Log>,
    pub users: Arc<[String]>,
}

impl Load {
    /// Lets callers loose on `slots`.
    pub fn begin(world: &World, slots: &[Arc<Slot>], dice: &mut Dice) -> Self {
        let (mut callers, stop) = (JoinSet::new(), Arc::new(AtomicBool::new(false)));
        for slot in slots {
            for number in 0..ASKERS + WRITERS {
                let caller = Caller {
                    world: world.clone(),
                    slot: Arc::clone(slot),
                    dice: Dice::new(dice.number()),
                    stop: Arc::clone(&stop),
                };
                if number < ASKERS {
                    callers.spawn(caller.ask_on());
                } else {
                    callers.spawn(caller.write_on());
                }
            }
        }
        Self { callers, stop }
    }

    /// Stops all, and waits until the last answer is there.
    pub async fn end(mut self) {
        self.stop.store(true, Ordering::SeqCst);
        while let Some(ended) = self.callers.join_next().await {
            ended.expect("no caller panics");
        }
    }
}

/// Asks each node about so many of the latest sessions.
pub async fn look_at_all(world: &World, slots: &[Arc<Slot>], count: usize) {
    for slot in slots {
        let door = slot.door();
        let sessions = (0..count).map_while(|back| world.log.session_back(back));
        let ask = |session: Known| {
            let (log, door) = (Arc::clone(&world.log), door.clone());
            async move { ask(&log, door, session).await }
        };
        futures_util::stream::iter(sessions).map(ask).buffer_unordered(QUESTIONS).collect::<Vec<()>>().await;
    }
}

struct Caller {
    world: World,
    slot: Arc<Slot>,
    dice: Dice,
    stop: Arc<AtomicBool>,
}

impl Caller {
    async fn ask_on(mut self) {
        let mut turns = every(ASKING);
        while self.goes_on() {
            turns.tick().await;
            let far = if self.dice.chance(70) { 30 } else { 300 };
            if let Some(session) = self.known(far) {
                ask(&self.world.log, self.slot.door(), session).await;
            }
        }
    }

    async fn write_on(mut self) {
        let mut turns = every(WRITING);
        while self.goes_on() {
            turns.tick().await;
            // A little more is made than ended, so that there is always something to ask about.
            match (self.dice.below(200), self.known(20)) {
                (0..12, Some(Known { token, id, .. })) => {
                    self.revoke(Wanted::SessionToken(token), Target::Session(id)).await;
                }
                (12..40, Some(Known { id, .. })) => {
                    self.revoke(Wanted::SessionId(id.clone()), Target::Session(id)).await;
                }
                (40..60, Some(Known { id, user, .. })) => self.revoke_user(user, Some(id)).await,
                (60..74, Some(Known { user, .. })) => self.revoke_user(user, None).await,
                (74, Some(_)) => self.revoke(Wanted::Everyone(v1::Everyone {}), Target::Everyone).await,
                _ => self.sign_in().await,
            }
        }
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::SeqCst)
    }

    /// A session of late.
    fn known(&mut self, far: usize) -> Option<Known> {
        let count = self.world.log.sessions_count();
        let back = self.dice.below(far.min(count).max(1));
        self.world.log.session_back(back)
    }

    async fn revoke_user(&mut self, user: String, except: Option<String>) {
        let except_session_id = except.clone().unwrap_or_default();
        let wanted = Wanted::User(v1::UserSessions { user_id: user.clone(), except_session_id });
        self.revoke(wanted, Target::User { user, except }).await;
    }

    async fn revoke(&mut self, wanted: Wanted, target: Target) {
        revoke(&self.world.log, self.slot.door(), wanted, target).await;
    }

    async fn sign_in(&mut self) {
        let user = self.world.users[self.dice.below(self.world.users.len())].clone();
        sign_in(&self.world.log, self.slot.door(), user).await;
    }
}

/// Asks whether a session is good, and writes down what was said.
pub async fn ask(log: &Log, mut door: Door, session: Known) {
    let begun = log.begin();
    let answer = tokio::time::timeout(ANSWER_MAX, door.client.validate(session.token, None)).await;
    let said = |answer| (Event::Asked { session: session.id, answer }, None);
    let (event, why) = match answer {
        Ok(Ok(_)) => said(Answer::Good),
        Ok(Err(refused)) if refused.code() == Code::Unauthenticated => said(Answer::Over),
        Ok(Err(refused)) => (Event::Unavailable, Some(why(&refused))),
        Err(_) => (Event::Unavailable, Some(NO_ANSWER.to_owned())),
    };
    log.end(door.process, begun, event, why);
}

/// Ends sessions, writes down whether it is certain, and says so. Whatever is not OK may be in force or not.
pub async fn revoke(log: &Log, mut door: Door, wanted: Wanted, target: Target) -> bool {
    let begun = log.begin();
    let answer = tokio::time::timeout(WRITE_MAX, door.writer.revoke(wanted)).await;
    let (outcome, why) = match answer {
        Ok(Ok(_)) => (Certainty::Done, None),
        Ok(Err(refused)) => (Certainty::Unknown, Some(why(&refused))),
        Err(_) => (Certainty::Unknown, Some(NO_ANSWER.to_owned())),
    };
    log.end(door.process, begun, Event::Revoked { target, outcome }, why);
    outcome == Certainty::Done
}

/// Signs somebody in, and writes down the session.
pub async fn sign_in(log: &Log, mut door: Door, user: String) {
    let begun = log.begin();
    let answer = tokio::time::timeout(WRITE_MAX, door.writer.create_session(user, Wish::PLAIN)).await;
    let (event, why) = match answer {
        Ok(Ok(Outcome::SignedIn { token, session, .. })) => {
            let (id, user) = (session.session_id, session.user_id);
            log.end(door.process, begun, Event::SignedIn { session: id.clone(), user: user.clone() }, None);
            return log.know(Known { id, token, user });
        }
        Ok(Ok(other)) => panic!("no sign-in: {other:?}"),
        Ok(Err(refused)) => (Event::Other, Some(why(&refused))),
        Err(_) => (Event::Other, Some(NO_ANSWER.to_owned())),
    };
    log.end(door.process, begun, event, why);
}

/// The reason of a refusal. A node that is gone gives none: then it is the code.
fn why(refused: &Status) -> String {
    match refused.get_details_error_info() {
        Some(info) => info.reason,
        None => format!("{:?}", refused.code()),
    }
}

fn every(period: Duration) -> tokio::time::Interval {
    let mut turns = tokio::time::interval(period);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    turns
}
