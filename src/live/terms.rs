//! What sessions have in common that were born alike: very many share it, so memory holds it once.
//!
//! Times are told relative to one another here. All sessions of one policy live equally long, so that what differs from
//! session to session is the moment of birth alone, which its id bears.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::address::AddressKind;
use super::session::upper_half;
use crate::domain::id::{Epoch, SessionId};
use crate::domain::session::{Methods, Session};
use crate::domain::time::UnixMillis;

/// Terms that are held, at least, before those that no session has any more are looked for.
const SWEEP_MIN: usize = 1_024;

/// What a session was given at its birth.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Terms {
    pub(super) everyone_epoch: Epoch,
    /// The upper half of the epoch that a session is stamped with.
    pub(super) user_epoch_upper: i32,
    /// Milliseconds from the time in the session's id to its making.
    made_after: i64,
    /// Milliseconds from its making to the proof of who the person is.
    proved_after: i64,
    /// Whole seconds from its making to its end; ends are whole seconds, makings are not.
    lifetime_secs: i64,
    /// Milliseconds of its end beyond a whole second.
    end_millis: i64,
    pub(super) idle_limit: Duration,
    pub(super) remembered: bool,
    pub(super) address: AddressKind,
    pub(super) methods: Methods,
    pub(super) user_agent: Box<str>,
    pub(super) device_name: Box<str>,
}

impl Terms {
    /// Those of a session.
    pub(super) fn of(session: &Session, address: AddressKind) -> Self {
        let (made, end) = (session.create_time, session.expire_time);
        Self {
            everyone_epoch: session.everyone_epoch,
            user_epoch_upper: upper_half(session.user_epoch),
            made_after: made.as_millis().wrapping_sub(born(session.id)),
            proved_after: session.authenticate_time.as_millis().wrapping_sub(made.as_millis()),
            lifetime_secs: end.as_secs().wrapping_sub(made.as_secs()),
            end_millis: end.as_millis().rem_euclid(1_000),
            idle_limit: session.idle_limit,
            remembered: session.remembered,
            address,
            methods: session.methods.clone(),
            user_agent: session.client.user_agent.as_str().into(),
            device_name: session.client.device_name.as_str().into(),
        }
    }

    /// When the session was made.
    pub(super) fn create_time(&self, id: SessionId) -> UnixMillis {
        UnixMillis::from_millis(born(id).wrapping_add(self.made_after))
    }

    /// When the person last proved who they are.
    pub(super) fn authenticate_time(&self, id: SessionId) -> UnixMillis {
        UnixMillis::from_millis(self.create_time(id).as_millis().wrapping_add(self.proved_after))
    }

    /// The absolute end of the session.
    pub(super) fn expire_time(&self, id: SessionId) -> UnixMillis {
        let seconds = self.create_time(id).as_secs().wrapping_add(self.lifetime_secs);
        UnixMillis::from_millis(seconds.wrapping_mul(1_000).wrapping_add(self.end_millis))
    }
}

/// The time in an id of version 7; with any other id what its place holds, which is as good.
fn born(id: SessionId) -> i64 {
    let mut millis = [0; 8];
    millis[2..].copy_from_slice(&id.as_uuid().as_bytes()[..6]);
    i64::from_be_bytes(millis)
}

/// The terms of the sessions in memory, each once.
#[derive(Debug, Default)]
pub(super) struct KnownTerms {
    all: HashSet<Arc<Terms>>,
    sweep_at: usize,
}

impl KnownTerms {
    /// These terms, shared with whoever has the same.
    pub(super) fn share(&mut self, terms: Terms) -> Arc<Terms> {
        if let Some(known) = self.all.get(&terms) {
            return Arc::clone(known);
        }
        if self.all.len() >= self.sweep_at.max(SWEEP_MIN) {
            self.all.retain(|terms| Arc::strong_count(terms) > 1);
            self.sweep_at = self.all.len().saturating_mul(2);
        }
        let terms = Arc::new(terms);
        self.all.insert(Arc::clone(&terms));
        terms
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::domain::client::Client;
    use crate::domain::id::UserId;

    fn session(id: u128, created: i64, proved: i64, ends: i64) -> Session {
        let at = UnixMillis::from_millis;
        Session {
            id: SessionId::from_uuid(Uuid::from_u128(id)),
            user_id: UserId::from_uuid(Uuid::from_u128(1)),
            user_epoch: Epoch::FIRST,
            everyone_epoch: Epoch::FIRST,
            create_time: at(created),
            authenticate_time: at(proved),
            expire_time: at(ends),
            last_seen_time: at(created),
            idle_limit: Duration::from_secs(1),
            remembered: false,
            methods: Methods::password(),
            client: Client::default(),
            ended: None,
        }
    }

    fn terms(session: &Session) -> Terms {
        Terms::of(session, AddressKind::Unknown)
    }

    proptest! {
        #[test]
        fn every_time_comes_back_exactly(id: u128, created: i64, proved: i64, ends in i64::MIN + 1_000..=i64::MAX) {
            let session = session(id, created, proved, ends);
            let terms = terms(&session);
            prop_assert_eq!(terms.create_time(session.id), session.create_time);
            prop_assert_eq!(terms.authenticate_time(session.id), session.authenticate_time);
            prop_assert_eq!(terms.expire_time(session.id), session.expire_time);
        }
    }

    #[test]
    fn sessions_of_one_policy_share_their_terms_whenever_they_were_made() {
        let mut known = KnownTerms::default();
        let mut held = Vec::new();
        for made in [1_700_000_000_000, 1_700_000_000_999, 1_700_000_123_456] {
            let now = UnixMillis::from_millis(made);
            let id = SessionId::mint(now, [7; 10]).as_uuid().as_u128();
            held.push(known.share(terms(&session(id, made, made, (made + 5_000) / 1_000 * 1_000))));
        }
        assert!(Arc::ptr_eq(&held[0], &held[1]) && Arc::ptr_eq(&held[1], &held[2]));
    }

    #[test]
    fn terms_that_no_session_has_are_let_go_of() {
        let mut known = KnownTerms::default();
        for lifetime in 0..10_000 {
            known.share(terms(&session(1, 0, 0, lifetime)));
        }
        assert!(known.all.len() <= SWEEP_MIN);
    }
}
