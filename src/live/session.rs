//! A session as memory holds it. All of it is fixed but three numbers: the epoch it is stamped with, its last use, and what
//! is to be done about that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::address::Address;
use super::facts::Standing;
use super::terms::{KnownTerms, Terms};
use super::usage::{LastUse, Marks};
use super::user::HeldUser;
use super::uses::WRITE_INTERVAL;
use crate::domain::client::Client;
use crate::domain::id::{Epoch, Position, SessionId};
use crate::domain::session::{Death, FUTURE_MAX, Session};
use crate::domain::time::UnixMillis;
use crate::domain::user::{User, UserState};

/// How long after a use the database knows of it, at the latest, while it answers.
const WRITTEN_WITHIN: Duration = WRITE_INTERVAL.saturating_mul(2);
/// For how long it holds that the database knew no later use, where one may still be written down.
const IDLE_HOLDS: Duration = Duration::from_secs(1);

/// What memory holds under the digest of a token.
#[derive(Debug)]
pub(super) enum Held {
    /// A session, which may be over by its deadlines or by the epochs.
    Session(HeldSession),
    /// A session that is over for good, or a token that no session has.
    Dead(HeldDead),
}

/// A session that is over for good.
#[derive(Debug)]
pub(super) struct HeldDead {
    /// Why; none where no session has the token.
    pub(super) death: Option<Death>,
    /// The position as of which it was known first; not forgotten before the follower has passed it.
    pub(super) as_of: Position,
}

/// A session in memory.
#[derive(Debug)]
pub(super) struct HeldSession {
    pub(super) id: SessionId,
    pub(super) user: HeldUser,
    pub(super) terms: Arc<Terms>,
    pub(super) address: Address,
    /// The lower half of the epoch; `terms` hold the upper one, which is nought but for who was made to leave four billion
    /// times.
    user_epoch: AtomicU32,
    pub(super) last_use: LastUse,
    pub(super) marks: Marks,
}

/// Whether a session may be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// It may.
    Good,
    /// It is over.
    Over(Death),
    /// Memory cannot say: the user changed, the session seems idle and may have been used elsewhere, or its siblings ended
    /// and it may be the one that goes on.
    Ask,
}

impl HeldSession {
    /// What was read, for `user`, at `now`.
    pub(super) fn new(session: &Session, user: HeldUser, known: &mut KnownTerms, now: UnixMillis) -> Self {
        let (address, kind) = Address::pack(session.client.ip);
        let held = Self {
            id: session.id,
            user,
            terms: known.share(Terms::of(session, kind)),
            address,
            user_epoch: AtomicU32::new(lower_half(session.user_epoch)),
            last_use: LastUse::new(session.last_seen_time),
            marks: Marks::new(),
        };
        held.note_idle(now);
        held
    }

    /// Takes in what another read of the same session says, at `now`.
    pub(super) fn learn(&self, session: &Session, now: UnixMillis) {
        self.stamp(session.user_epoch);
        self.last_use.learn(session.last_seen_time);
        self.note_idle(now);
    }

    /// Lets the session go on although its siblings end: it is of `epoch` from now on. Never goes back. (Beyond the upper
    /// half that it was born with, it is of the last epoch that fits.)
    pub(super) fn stamp(&self, epoch: Epoch) {
        let lower = match upper_half(epoch).cmp(&self.terms.user_epoch_upper) {
            std::cmp::Ordering::Less => return,
            std::cmp::Ordering::Equal => lower_half(epoch),
            std::cmp::Ordering::Greater => u32::MAX,
        };
        self.user_epoch.fetch_max(lower, Ordering::Release);
    }

    /// Whether the session may be used at `now`, with a user of that `standing` and by the epochs of the user. The one
    /// rule is that of `domain::session::Session::check`; a test holds the two against each other.
    pub(super) fn check<T>(
        &self,
        standing: &Standing<T>,
        by_epoch: Verdict,
        everyone: Epoch,
        now: UnixMillis,
    ) -> Verdict {
        let by_everyone = self.terms.everyone_epoch < everyone;
        match by_epoch {
            // Which of the two came first is known to the database alone.
            Verdict::Over(death) if by_everyone && death != Death::Revoked => return Verdict::Ask,
            Verdict::Over(_) | Verdict::Ask => return by_epoch,
            Verdict::Good if by_everyone => return Verdict::Over(Death::Revoked),
            Verdict::Good => {}
        }
        match standing {
            Standing::Barred => return Verdict::Over(Death::UserDisabled),
            Standing::Stale => return Verdict::Ask,
            Standing::Active(_) => {}
        }
        if self.is_past_end(now) {
            return Verdict::Over(Death::Expired);
        }
        if self.is_idle(now) {
            return if self.is_known_idle(now) { Verdict::Over(Death::Expired) } else { Verdict::Ask };
        }
        Verdict::Good
    }

    /// Whether it is over by an epoch, its user's or everyone's.
    pub(super) fn is_over_by_epoch(&self, everyone: Epoch) -> bool {
        let facts = self.user.facts();
        self.terms.everyone_epoch < everyone
            || matches!(facts.verdict_on(self.user_epoch()), Verdict::Over(_))
    }

    /// Whether `now` lies within its deadlines, as far as this node knows of its uses.
    pub(super) fn is_within_deadlines(&self, now: UnixMillis) -> bool {
        !self.is_past_end(now) && !self.is_idle(now)
    }

    /// Whether its absolute end has passed, or it was made too far ahead of `now` to be true.
    fn is_past_end(&self, now: UnixMillis) -> bool {
        now >= self.terms.expire_time(self.id) || self.create_time() > now.plus(FUTURE_MAX)
    }

    /// The epoch that the session is stamped with. To be read after the facts of its user: the keeper stamps the session
    /// that goes on before it raises the epoch of the user.
    pub(super) fn user_epoch(&self) -> Epoch {
        let lower = self.user_epoch.load(Ordering::Acquire);
        Epoch::from_i64(i64::from(self.terms.user_epoch_upper) << u32::BITS | i64::from(lower))
    }

    /// Whether it would be idle after `lead`, counted from `now`, by the last use that the database knows.
    pub(super) fn seems_idle_within(&self, lead: Duration, now: UnixMillis) -> bool {
        self.last_use.unwritten_for(now).saturating_add(lead) >= self.terms.idle_limit
    }

    /// Remembers a use at `now`; true where it is to be queued for being written down.
    pub(super) fn note_use(&self, now: UnixMillis) -> bool {
        self.last_use.note(now);
        self.marks.use_lately();
        self.last_use.is_unwritten() && self.marks.queue()
    }

    /// Whether `client` can be the device that signed in.
    pub(super) fn is_used_by(&self, client: &Client) -> bool {
        client.is_like(self.address.unpack(self.terms.address), &self.terms.user_agent)
    }

    /// The session as the rest of the program knows it.
    pub(super) fn to_session(&self) -> Session {
        Session {
            id: self.id,
            user_id: self.user.id(),
            user_epoch: self.user_epoch(),
            everyone_epoch: self.terms.everyone_epoch,
            create_time: self.create_time(),
            authenticate_time: self.terms.authenticate_time(self.id),
            expire_time: self.terms.expire_time(self.id),
            last_seen_time: self.last_use.seen(),
            idle_limit: self.terms.idle_limit,
            remembered: self.terms.remembered,
            methods: self.terms.methods.clone(),
            client: self.client(),
            ended: None,
        }
    }

    fn client(&self) -> Client {
        Client {
            ip: self.address.unpack(self.terms.address),
            user_agent: self.terms.user_agent.as_ref().to_owned(),
            device_name: self.terms.device_name.as_ref().to_owned(),
        }
    }

    fn idle_end(&self) -> UnixMillis {
        self.last_use.seen().plus(self.terms.idle_limit)
    }

    fn is_idle(&self, now: UnixMillis) -> bool {
        now >= self.idle_end()
    }

    /// Whether the database said so, and may be taken at its word: another node may write down a use a little later than it
    /// happened, so what was said too early holds for a moment only.
    fn is_known_idle(&self, now: UnixMillis) -> bool {
        let Some(asked) = self.marks.idle_asked(self.create_time()) else { return false };
        let end = self.idle_end();
        asked.until >= end && (asked.since >= end.plus(WRITTEN_WITHIN) || now < asked.since.plus(IDLE_HOLDS))
    }

    fn note_idle(&self, now: UnixMillis) {
        if self.is_idle(now) {
            self.marks.note_idle(self.create_time(), now);
        }
    }

    fn create_time(&self) -> UnixMillis {
        self.terms.create_time(self.id)
    }
}

/// The upper half of an epoch, which the terms of a session hold.
pub(super) fn upper_half(epoch: Epoch) -> i32 {
    i32::try_from(epoch.as_i64() >> u32::BITS).expect("half of 64 bits")
}

fn lower_half(epoch: Epoch) -> u32 {
    u32::try_from(epoch.as_i64() & i64::from(u32::MAX)).expect("half of 64 bits")
}

/// Whether a session is over for good by one read of it, its user and the epoch of everyone. The one that goes on when its
/// siblings end is stamped with the new epoch at once, so one that is behind will never catch up; and a user who is made
/// under the id of one who is gone begins with a higher epoch.
pub(super) fn death_as_read(session: &Session, user: Option<&User>, everyone: Epoch) -> Option<Death> {
    if let Some(ended) = session.ended {
        return Some(ended.reason.into());
    }
    if session.everyone_epoch < everyone {
        return Some(Death::Revoked);
    }
    match user {
        None => Some(Death::UserDisabled),
        Some(user) if session.user_epoch >= user.credential_epoch => None,
        Some(user) if user.state != UserState::Active => Some(Death::UserDisabled),
        Some(user) if session.user_epoch < user.password_epoch => Some(Death::CredentialsChanged),
        Some(_) => Some(Death::Revoked),
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{NOW, at, session};
    use super::*;
    use crate::domain::token::TokenDigest;

    #[test]
    fn an_epoch_of_any_size_is_kept_and_only_goes_up() {
        let upper = 7_i64 << u32::BITS;
        for (born, stamps, kept) in [
            (1, vec![3, 2], 3),
            (i64::from(u32::MAX) - 1, vec![i64::from(u32::MAX)], i64::from(u32::MAX)),
            (upper + 5, vec![4, upper + 9, upper + 8], upper + 9),
            // What does not fit is the last that does.
            (1, vec![upper], i64::from(u32::MAX)),
        ] {
            let session = Session { user_epoch: Epoch::from_i64(born), ..session(1, 1) };
            let user = HeldUser::new(session.user_id, None, at(1), crate::live::encoded::Encoded::nothing);
            let held = HeldSession::new(&session, user, &mut KnownTerms::default(), NOW);
            assert_eq!(held.user_epoch(), session.user_epoch);
            for epoch in stamps {
                held.stamp(Epoch::from_i64(epoch));
            }
            assert_eq!(held.user_epoch(), Epoch::from_i64(kept));
        }
    }

    #[test]
    fn a_session_takes_no_more_room_than_it_must() {
        assert_eq!(size_of::<(TokenDigest, Held)>(), 80);
    }
}
