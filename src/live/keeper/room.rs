//! How the keeper makes room: for sessions by letting go of those not used lately, for the dead by forgetting the oldest.
//! Neither ever changes what is answered but to "ask the database".

use std::sync::Arc;

use super::super::digest::FirstHalf;
use super::super::session::{Held, HeldSession};
use super::super::user::Known;
use super::Keeper;
use crate::domain::id::UserId;
use crate::domain::token::TokenDigest;

/// Sessions that are looked at, at most, to find one that was not used lately.
const EVICTION_LOOKS_MAX: usize = 64;

/// Users, at most, that wait for being looked at.
const LEAVING_MAX: usize = 1_024;

impl Keeper {
    /// Sessions are found by the first half of their digest, so no other entry may have the same: a session that has makes
    /// room. False where one that is over has, which must not be forgotten. Two halves are the same by chance once in
    /// hundreds of thousands of nodes with ten million sessions each; such sessions are read again whenever they are asked
    /// for.
    pub(super) fn make_place_for(&mut self, digest: &TokenDigest) -> bool {
        let table = Arc::clone(&self.table);
        let guard = table.sessions.guard();
        let half = FirstHalf::of(digest);
        match table.sessions.get_key_value(&half, &guard) {
            Some((other, Held::Session(session))) if other != digest => {
                self.evict(half, session);
                true
            }
            Some((other, Held::Dead(_))) => other == digest,
            Some((_, Held::Session(_))) | None => true,
        }
    }

    pub(super) fn forget_surplus_sessions(&mut self) {
        while self.index.len() > self.limits.sessions_max && self.evict_one() {}
    }

    pub(super) fn forget_surplus_dead(&mut self) {
        while self.dead.len() > self.limits.dead_max && self.forget_oldest_dead() {}
    }

    /// What was read ahead of the follower is not forgotten before the follower has passed it, so there may be more than
    /// the limit for a while; never more than twice as many.
    pub(super) fn has_room_for_dead(&self) -> bool {
        self.dead.len() < self.limits.dead_max.saturating_mul(2)
    }

    fn forget_oldest_dead(&mut self) -> bool {
        let Some(digest) = self.dead.pop_front() else { return false };
        let guard = self.table.sessions.guard();
        match self.table.sessions.get(&digest, &guard) {
            Some(Held::Dead(dead)) if dead.as_of > self.applied => {
                self.dead.push_back(digest);
                return false;
            }
            Some(Held::Dead(_)) => {
                self.table.sessions.remove(&digest, &guard);
            }
            Some(Held::Session(_)) | None => {}
        }
        true
    }

    /// Lets go of a session that was not used lately; of any, where all of those looked at were.
    fn evict_one(&mut self) -> bool {
        let table = Arc::clone(&self.table);
        let guard = table.sessions.guard();
        for look in 1.. {
            let Some(half) = self.index.at_hand() else { return false };
            let Some(Held::Session(session)) = table.sessions.get(&half, &guard) else { return false };
            if session.marks.take_used_lately() && look < EVICTION_LOOKS_MAX {
                self.index.pass();
                continue;
            }
            self.evict(half, session);
            return true;
        }
        false
    }

    fn evict(&mut self, half: FirstHalf, session: &HeldSession) {
        self.table.uses.leave(session);
        self.index.remove(session.id, half);
        let owner = session.user.id();
        self.table.sessions.remove(&half, &self.table.sessions.guard());
        self.evicted += 1;
        self.let_go_of(owner);
    }

    /// A user without sessions in memory takes no room. A session that left may be held by a reader for a moment longer,
    /// and its user with it; so they are looked at when the keeper comes by the next time.
    fn let_go_of(&mut self, user: UserId) {
        if self.leaving.len() >= LEAVING_MAX {
            self.let_go_of_users();
        }
        self.leaving.push(user);
    }

    /// The same of the user of a session that is over, if there was one.
    pub(super) fn let_go_of_any(&mut self, user: Option<UserId>) {
        if let Some(user) = user {
            self.let_go_of(user);
        }
    }

    /// Lets go of users whose last session left. One that a reader held all the time since is swept some day.
    pub(super) fn let_go_of_users(&mut self) {
        for user in self.leaving.drain(..) {
            if self.users.get(&user).is_some_and(|Known(held)| held.is_without_sessions()) {
                self.users.remove(&user);
            }
        }
        if self.users.len() > self.limits.sessions_max.saturating_add(self.limits.dead_max) {
            self.users.retain(|Known(held)| !held.is_without_sessions());
        }
    }
}
