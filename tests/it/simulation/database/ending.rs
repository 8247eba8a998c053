//! How sessions end in the model of the database.

use std::rc::Rc;

use latchkey::domain::id::{Epoch, SessionId, UserId};
use latchkey::domain::session::{EndReason, Ended};

use super::{Database, time};
use crate::simulation::clock::Moment;

impl Database {
    pub(super) fn end_one(&mut self, id: SessionId, now: Moment) -> bool {
        let digest = self.state.digests.get(&id).copied();
        let session = digest.and_then(|digest| Rc::make_mut(&mut self.state.sessions).get_mut(&digest));
        let Some(session) = session.filter(|session| session.ended.is_none()) else { return false };
        session.ended = Some(Ended { time: time(now), reason: EndReason::Revoked });
        true
    }

    pub(super) fn end_all(
        &mut self,
        id: UserId,
        except: Option<SessionId>,
        reason: EndReason,
        now: Moment,
    ) -> (Option<SessionId>, Epoch) {
        let before = self.user_mut(id).credential_epoch;
        let kept = self.end_all_from(id, before, except, reason, now);
        (kept, before.next())
    }

    /// Ends all sessions of a user, who has the epoch behind `before` from then on.
    pub(super) fn end_all_from(
        &mut self,
        id: UserId,
        before: Epoch,
        except: Option<SessionId>,
        reason: EndReason,
        now: Moment,
    ) -> Option<SessionId> {
        let (epoch, everyone, current) =
            (before.next(), self.state.everyone, self.user_mut(id).credential_epoch);
        let mut kept = None;
        for session in
            Rc::make_mut(&mut self.state.sessions).values_mut().filter(|session| session.user_id == id)
        {
            let stands = session.user_epoch == current && session.everyone_epoch == everyone;
            if session.ended.is_some() {
            } else if stands && Some(session.id) == except {
                session.user_epoch = epoch;
                kept = except;
            } else {
                session.ended = Some(Ended { time: time(now), reason });
            }
        }
        self.user_mut(id).credential_epoch = epoch;
        kept
    }
}
