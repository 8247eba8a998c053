//! The world as the contract describes it, in the most naive form: a map of people, a map of sessions, and for each session
//! whether and why it is over. It knows no epoch, no log and no table, and nothing of the code that it judges.
//!
//! Time is in whole seconds since the start of the history. What each call must answer is in `expectations`.

use std::collections::HashMap;
use std::time::Duration;

use latchkey::domain::id::SessionId;
use latchkey::domain::time::UnixMillis;

use super::operation::{Presented, Wish};
use crate::support::interposed_store::START;

/// Sessions that one user may have in a history: few, so that the limit is met often.
pub const PER_USER_MAX: usize = 5;
const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;
/// From here on the reason why a session is over may be forgotten.
const RETAIN: i64 = DAY;
const FRESH: i64 = 15 * 60;
/// How often the last use of a session is written down at most.
const WRITE_INTERVAL: i64 = 60;

/// A login name of a history.
pub fn login_of(number: usize) -> String {
    format!("person-{number}")
}

/// An id of a history; chosen by the caller, so that a deleted user can come back under the same one.
pub fn user_id_of(number: usize) -> String {
    format!("00000000-0000-7000-8000-{number:012}")
}

/// Somebody who can sign in.
#[derive(Debug)]
pub(super) struct Person {
    pub(super) login: String,
    pub(super) password: Option<usize>,
    pub(super) active: bool,
}

/// A session, over or not.
#[derive(Debug)]
pub(super) struct Signed {
    pub(super) token: String,
    pub(super) user: String,
    pub(super) proved: i64,
    pub(super) expires: i64,
    /// How long it was given, which a session in its place gets as well.
    pub(super) lifetime: i64,
    pub(super) seen: i64,
    pub(super) idle: i64,
    pub(super) remembered: bool,
    written: i64,
    /// Why it was ended, if it was; what came first counts.
    ended: Option<&'static str>,
    /// Whether it was idle when it was ended: then either may be told.
    idle_before: bool,
    over_since: Option<i64>,
}

/// Everything that the service should know.
#[derive(Debug, Default)]
pub struct Oracle {
    pub(super) now: i64,
    /// By id.
    pub(super) people: HashMap<String, Person>,
    /// By id.
    pub(super) sessions: HashMap<String, Signed>,
    /// Ids of all sessions there ever were, in the order of their making.
    order: Vec<String>,
    /// The highest position of the log that was told.
    pub(super) position: i64,
}

impl Oracle {
    /// Time passes.
    pub fn advance(&mut self, span: Duration) {
        self.now += i64::try_from(span.as_secs()).expect("a short span");
    }

    /// The token that is presented; a made-up one where there is no session yet.
    pub fn token(&self, who: Presented) -> String {
        let (number, alter) = match who {
            Presented::Token(number) => (number, false),
            Presented::Altered(number) => (number, true),
        };
        let mut token = self
            .id_of(number)
            .map_or_else(|| format!("lk1_{}", "A".repeat(71)), |id| self.sessions[id].token.clone());
        if alter {
            let last = if token.ends_with('A') { 'E' } else { 'A' };
            token.pop();
            token.push(last);
        }
        token
    }

    /// The id of a session, counted from the latest; a made-up one where there is none yet.
    pub fn session_id(&self, number: usize) -> String {
        self.id_of(number).cloned().unwrap_or_else(|| user_id_of(999))
    }

    pub(super) fn id_of(&self, number: usize) -> Option<&String> {
        let count = self.order.len();
        (count > 0).then(|| &self.order[count - 1 - number % count])
    }

    /// The standing sessions whose last use has to be in the database by now, and when they were used.
    pub fn uses_due(&self) -> Vec<(SessionId, UnixMillis)> {
        let due = |one: &Signed| one.seen > one.written && self.now - one.written >= WRITE_INTERVAL;
        let standing = self.sessions.iter().filter(|(_, one)| due(one) && self.stands(one));
        standing.map(|(id, one)| (SessionId::parse(id).expect("an id"), moment(one.seen))).collect()
    }

    /// The last use of a session is in the database.
    pub fn use_is_written(&mut self, id: SessionId) {
        let signed = self.sessions.get_mut(&id.to_string()).expect("a session of this history");
        signed.written = signed.seen;
    }

    /// The node stopped gracefully, so that all uses are in the database.
    pub fn all_uses_are_written(&mut self) {
        self.sessions.values_mut().for_each(|signed| signed.written = signed.seen);
    }

    /// Whether a session is good.
    pub(super) fn stands(&self, signed: &Signed) -> bool {
        self.obstacles(signed).is_empty()
    }

    /// The reasons by which a session may be refused; none when it is good. Mostly there is one only.
    fn obstacles(&self, signed: &Signed) -> Vec<&'static str> {
        if self.now >= signed.expires {
            return vec!["SESSION_EXPIRED"];
        }
        let inactive = self.people.get(&signed.user).is_none_or(|person| !person.active);
        let idle = (self.is_idle(signed) && signed.over_since.is_none()) || signed.idle_before;
        let idle = idle.then_some("SESSION_EXPIRED");
        let disabled = (inactive && signed.ended.is_none()).then_some("USER_DISABLED");
        let mut reasons: Vec<_> = signed.ended.into_iter().chain(disabled).chain(idle).collect();
        let over_since = signed.over_since.unwrap_or(signed.seen + signed.idle);
        if !reasons.is_empty() && self.now - over_since >= RETAIN {
            reasons.push("SESSION_TOKEN_INVALID");
        }
        reasons
    }

    fn is_idle(&self, signed: &Signed) -> bool {
        self.now >= signed.seen + signed.idle
    }

    /// The id of the session whose token is presented if it is good, or why it is not.
    pub(super) fn verdict(&self, who: Presented) -> Result<String, Vec<&'static str>> {
        let Presented::Token(number) = who else { return Err(vec!["SESSION_TOKEN_INVALID"]) };
        let id = self.id_of(number).ok_or_else(|| vec!["SESSION_TOKEN_INVALID"])?;
        let obstacles = self.obstacles(&self.sessions[id]);
        if obstacles.is_empty() { Ok(id.clone()) } else { Err(obstacles) }
    }

    /// A good session is used.
    pub(super) fn used(&mut self, id: &str) {
        let now = self.now;
        self.sessions.get_mut(id).expect("a session of this history").seen = now;
    }

    pub(super) fn is_fresh(&self, signed: &Signed) -> bool {
        self.now - signed.proved < FRESH
    }

    /// The absolute and the idle span of a session under a wish.
    pub(super) fn spans(wish: Wish) -> (i64, i64) {
        let (lifetime, idle) = if wish.remember { (30 * DAY, 30 * DAY) } else { (12 * HOUR, HOUR) };
        (wish.lifetime.unwrap_or(lifetime).min(lifetime), idle)
    }

    /// Somebody signs in. Above the limit the oldest session ends.
    pub(super) fn sign_in(&mut self, id: String, token: String, user: &str, wish: Wish) {
        let (lifetime, idle) = Self::spans(wish);
        let signed = Signed {
            token,
            user: user.to_owned(),
            proved: self.now,
            expires: self.now + lifetime,
            lifetime,
            seen: self.now,
            idle,
            remembered: wish.remember,
            written: self.now,
            ended: None,
            idle_before: false,
            over_since: None,
        };
        self.order.push(id.clone());
        self.sessions.insert(id, signed);
        let standing = self.standing_of(user);
        for oldest in standing.iter().skip(PER_USER_MAX) {
            self.end(oldest, "SESSION_REVOKED");
        }
    }

    /// The good sessions of a user, newest first.
    pub(super) fn standing_of(&self, user: &str) -> Vec<String> {
        let of_user = |id: &&String| {
            let signed = &self.sessions[*id];
            signed.user == user && self.stands(signed)
        };
        self.order.iter().rev().filter(of_user).cloned().collect()
    }

    /// Ends a session, unless it was ended before.
    pub(super) fn end(&mut self, id: &str, why: &'static str) {
        let now = self.now;
        let signed = self.sessions.get_mut(id).expect("a session of this history");
        signed.idle_before |= signed.over_since.is_none() && now >= signed.seen + signed.idle;
        signed.ended.get_or_insert(why);
        signed.over_since.get_or_insert(now);
    }

    /// Ends all sessions of a user but, perhaps, one, and says how many were good.
    pub(super) fn end_all_of(&mut self, user: &str, except: Option<&str>, why: &'static str) -> usize {
        let kept = except.filter(|id| self.goes_on(id, user));
        let good = self.standing_of(user).iter().filter(|id| Some(id.as_str()) != kept).count();
        for id in self.order.clone() {
            if self.sessions[&id].user == user && Some(id.as_str()) != kept {
                self.end(&id, why);
            }
        }
        good
    }

    /// Whether a session can be the one that goes on. One that is idle by now may: it is refused all the same.
    fn goes_on(&self, id: &str, user: &str) -> bool {
        let active = self.people.get(user).is_some_and(|person| person.active);
        let lives = |one: &Signed| one.over_since.is_none() && self.now < one.expires;
        active && self.sessions.get(id).is_some_and(|one| one.user == user && lives(one))
    }

    /// Ends all sessions of everyone, and says how many were good.
    pub(super) fn end_everyone(&mut self) -> usize {
        let good = self.sessions.values().filter(|signed| self.stands(signed)).count();
        let now = self.now;
        for signed in self.sessions.values_mut() {
            signed.idle_before |= signed.over_since.is_none() && now >= signed.seen + signed.idle;
            signed.ended.get_or_insert("SESSION_REVOKED");
            signed.over_since.get_or_insert(now);
        }
        good
    }

    /// The user of a login name.
    pub(super) fn by_login(&self, login: &str) -> Option<String> {
        self.people.iter().find(|(_, person)| person.login == login).map(|(id, _)| id.clone())
    }
}

/// A moment of the history on the calendar.
pub(super) fn moment(seconds: i64) -> UnixMillis {
    START.plus(Duration::from_secs(u64::try_from(seconds).expect("after the start")))
}
