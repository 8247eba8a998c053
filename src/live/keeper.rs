//! The one writer of memory: fills, rows of the log, sign-ins and evictions all go through here, in one thread.
//!
//! What it is told may come in any order, and twice: epochs only go up, ended stays ended, and what a read says of a user
//! counts only where nothing newer is known. Death beats life: a session that was read as dead is never replaced by one
//! that was read as alive. How room is made for what comes in is the business of `room`.

mod room;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use papaya::Guard as _;

use super::digest::FirstHalf;
use super::encoded::{Encoded, Encoder};
use super::facts::Standing;
use super::index::Index;
use super::recent::RecentChanges;
use super::session::{Held, HeldDead, HeldSession, death_as_read};
use super::table::Table;
use super::terms::KnownTerms;
pub use super::told::{EndKnown, Fill, Filled, Holding, MemoryLimits};
use super::user::{HeldUser, Known};
use crate::domain::change::{LogEntry, LoggedChange};
use crate::domain::id::{Epoch, Position, SessionId, UserId};
use crate::domain::session::Death;
use crate::domain::time::UnixMillis;
use crate::domain::token::TokenDigest;
use crate::domain::user::User;
use crate::mutation::Mutation;

/// Sessions that the map has room for from the beginning, at most; for more it grows.
const RESERVED_MAX: usize = 12_000_000;

/// The writing half of memory.
#[derive(Debug)]
pub struct Keeper {
    table: Arc<Table>,
    limits: MemoryLimits,
    encode: Encoder,
    users: HashSet<Known>,
    terms: KnownTerms,
    index: Index,
    recent: RecentChanges,
    /// The follower has applied the log up to here.
    applied: Position,
    /// What is remembered as over, the oldest first.
    dead: VecDeque<TokenDigest>,
    /// Users who may have no session in memory any more.
    leaving: Vec<UserId>,
    evicted: u64,
    overtaken: u64,
}

impl Keeper {
    /// Writes into `table`, which must be empty and nobody else's to write.
    pub fn new(table: Arc<Table>, limits: MemoryLimits) -> Self {
        // A map that is nearly full is slow, and one that grows is there twice. Room that is not used yet takes none.
        table.sessions.reserve(limits.sessions_max.min(RESERVED_MAX), &table.sessions.guard());
        Self {
            table,
            limits,
            encode: Encoded::nothing,
            users: HashSet::new(),
            terms: KnownTerms::default(),
            index: Index::new(limits.sessions_max),
            recent: RecentChanges::new(Position::ZERO, limits.changes_max),
            applied: Position::ZERO,
            dead: VecDeque::new(),
            leaving: Vec::new(),
            evicted: 0,
            overtaken: 0,
        }
    }

    /// The same, with users told as `encode` does.
    pub fn encoding(self, encode: Encoder) -> Self {
        Self { encode, ..self }
    }

    /// Begins to follow the log from `position` on. Whatever was alive in memory is forgotten; whatever was over stays
    /// over, and epochs stay at least what they were.
    pub fn begin_at(&mut self, position: Position) {
        let guard = self.table.sessions.guard();
        for half in self.index.take_all() {
            if let Some(Held::Session(session)) = self.table.sessions.get(&half, &guard) {
                self.table.uses.leave(session);
                self.table.sessions.remove(&half, &guard);
            }
        }
        // Numbers may be given anew, and mean something else then.
        for Known(user) in &self.users {
            user.forget_positions();
        }
        for digest in &self.dead {
            if let Some(Held::Dead(dead)) = self.table.sessions.get(digest, &guard) {
                let dead = HeldDead { death: dead.death, as_of: Position::ZERO };
                self.table.sessions.insert(*digest, Held::Dead(dead), &guard);
            }
        }
        drop(guard);
        self.table.token_keys.begin_anew();
        self.recent = RecentChanges::new(position, self.limits.changes_max);
        self.applied = position;
    }

    /// Begins anew on what the table holds, after a panic that may have broken the books of this keeper off in the middle.
    /// Whatever was alive is forgotten, as by [`begin_at`](Self::begin_at); whatever was over stays over.
    pub fn recover(&mut self) {
        let table = Arc::clone(&self.table);
        let mut new = Self::new(Arc::clone(&table), self.limits).encoding(self.encode);
        (new.evicted, new.overtaken) = (self.evicted, self.overtaken);
        let guard = table.sessions.guard();
        for (digest, held) in table.sessions.iter(&guard) {
            match held {
                Held::Session(session) => {
                    // What its user ended stays ended.
                    new.users.insert(Known(session.user.clone()));
                    table.uses.leave(session);
                    table.sessions.remove(digest, &guard);
                }
                Held::Dead(_) => new.dead.push_back(*digest),
            }
        }
        drop(guard);
        new.begin_at(Position::ZERO);
        *self = new;
    }

    /// The log has another name: what was alive is to be forgotten, epochs included. What is over stays over.
    pub fn forget_epochs(&self) {
        for Known(user) in &self.users {
            user.forget_all();
        }
        self.table.everyone_epoch.store(0, Ordering::Release);
    }

    /// Applies a row that this node has just written, ahead of its follower. A fill is tested against it all the same.
    pub fn apply_own(&mut self, row: &LoggedChange) {
        if !Mutation::FillIgnoresLocal.is_on() {
            self.recent.note(row);
        }
        self.take_effect(row);
    }

    /// Applies a row of the log that the follower read.
    pub fn apply(&mut self, row: &LoggedChange) {
        self.recent.note(row);
        self.take_effect(row);
    }

    fn take_effect(&mut self, row: &LoggedChange) {
        let position = row.position;
        self.end(row, position);
        let user = row.user().and_then(|user| self.users.get(&user));
        if let (Some(Known(user)), Some(standing)) = (user, standing_after(&row.entry)) {
            user.change_standing(standing, position);
        }
    }

    fn end(&mut self, row: &LoggedChange, position: Position) {
        match row.entry {
            LogEntry::SessionEnded { session, .. } => {
                self.bury(session, Death::Revoked, position);
            }
            LogEntry::SessionMisused { session, .. } => {
                self.bury(session, Death::BindingMismatch, position);
            }
            LogEntry::UserSessionsEnded { user, epoch, kept } => {
                self.end_before(user, epoch, kept, Death::Revoked);
            }
            LogEntry::PasswordChanged { user, epoch, kept } => {
                self.end_before(user, epoch, kept, Death::CredentialsChanged);
            }
            LogEntry::UserDisabled { user, epoch } | LogEntry::UserDeleted { user, epoch } => {
                self.end_before(user, epoch, None, Death::UserDisabled);
            }
            LogEntry::UserChanged { .. } => {}
            LogEntry::EveryoneEnded { epoch } => self.raise_everyone(epoch),
            LogEntry::TokenKeyAdded { key } => self.table.token_keys.insert(key),
            LogEntry::TokenKeyForgotten { .. } => self.table.token_keys.begin_anew(),
        }
    }

    /// The follower has applied every row up to `position`.
    pub fn advance(&mut self, position: Position) {
        self.applied = self.applied.max(position);
    }

    /// Sessions born before this epoch of everyone are over.
    fn raise_everyone(&self, epoch: Epoch) {
        self.table.everyone_epoch.fetch_max(epoch.as_i64(), Ordering::Release);
    }

    /// Takes in what was read, at `now`. What a change has overtaken that memory was told of meanwhile is left out: who
    /// asked for it reads again.
    pub fn fill(&mut self, fill: Fill, now: UnixMillis) {
        self.let_go_of_users();
        let as_of = AsOf { position: fill.position, everyone: fill.everyone_epoch };
        let mut unknown = fill.asked;
        for found in fill.found {
            unknown.retain(|digest| *digest != found.digest);
            self.take_in(found, as_of, now);
        }
        for digest in unknown {
            self.remember_unknown(digest, fill.position);
        }
        // Gives back what the map let go of, its former tables above all.
        self.table.sessions.guard().flush();
    }

    /// Ends what memory holds of changes whose outcome is unknown, and answers what it ended. Nothing is concluded about
    /// what memory does not hold. However many are told at once, memory is gone through once.
    pub fn end_known(&mut self, what: &[EndKnown]) -> Vec<(SessionId, Death)> {
        let mut over = Vec::new();
        let (mut users, mut everyone) = (HashMap::<_, Vec<_>>::new(), false);
        for known in what {
            match *known {
                EndKnown::Session(session) => over.push((session, Death::Revoked)),
                EndKnown::Digest(digest) => {
                    let guard = self.table.sessions.guard();
                    if let Some(Held::Session(session)) = self.table.sessions.get(&digest, &guard) {
                        over.push((session.id, Death::Revoked));
                    }
                }
                EndKnown::User(user, except, death) => users.entry(user).or_default().push((except, death)),
                EndKnown::Everyone => everyone = true,
                EndKnown::Nothing => {}
            }
        }
        if everyone || !users.is_empty() {
            let guard = self.table.sessions.guard();
            for half in self.index.iter() {
                let Some(Held::Session(session)) = self.table.sessions.get(&half, &guard) else { continue };
                let ends = users.get(&session.user.id()).into_iter().flatten();
                let of_user = ends.filter(|(except, _)| *except != Some(session.id)).map(|(_, death)| *death);
                let death = of_user.chain(everyone.then_some(Death::Revoked)).next();
                over.extend(death.map(|death| (session.id, death)));
            }
        }
        // What is over already keeps its reason.
        let everyone = self.table.everyone_epoch();
        over.retain(|(session, death)| {
            let stands = self.find(*session, |held| !held.is_over_by_epoch(everyone));
            stands.is_some_and(|(_, stands)| stands) && self.bury(*session, *death, self.applied)
        });
        over
    }

    /// How much is held.
    pub fn holding(&self) -> Holding {
        Holding {
            sessions: self.index.len(),
            dead: self.dead.len(),
            users: self.users.len(),
            evicted: self.evicted,
            overtaken: self.overtaken,
        }
    }

    fn take_in(&mut self, found: Filled, AsOf { position, everyone }: AsOf, now: UnixMillis) {
        let Filled { digest, session, user } = found;
        let touched = self.recent.touched_since(position, session.user_id, session.id)
            && !Mutation::UnversionedFill.is_on();
        if let Some(death) = death_as_read(&session, user.as_ref(), everyone) {
            if Mutation::DeathNotRemembered.is_on() {
                return;
            }
            // Death needs no newer read: nothing brings a session back. And it brings no user into memory.
            if let Some(Known(known)) = self.users.get(&session.user_id) {
                known.learn(user.as_ref(), position, self.encode);
            }
            self.remember_dead(digest, death, position);
            return;
        }
        let owner = self.learn(session.user_id, user.as_ref(), position);
        let table = Arc::clone(&self.table);
        let guard = table.sessions.guard();
        match table.sessions.get(&digest, &guard) {
            Some(Held::Dead(_)) => {}
            _ if touched => self.overtaken += 1,
            Some(Held::Session(held)) => held.learn(&session, now),
            None if !self.make_place_for(&digest) => {}
            None => {
                let held = HeldSession::new(&session, owner, &mut self.terms, now);
                table.sessions.insert(digest, Held::Session(held), &guard);
                self.index.insert(session.id, FirstHalf::of(&digest));
            }
        }
        drop(guard);
        self.forget_surplus_sessions();
    }

    /// The user of that id, of whom a read with the head at `position` says `user`.
    fn learn(&mut self, id: UserId, user: Option<&User>, position: Position) -> HeldUser {
        if let Some(Known(known)) = self.users.get(&id) {
            known.learn(user, position, self.encode);
            return known.clone();
        }
        let new = HeldUser::new(id, user, position, self.encode);
        self.users.insert(Known(new.clone()));
        new
    }

    /// Ends one session; false where it is not in memory.
    fn bury(&mut self, session: SessionId, death: Death, position: Position) -> bool {
        let Some((digest, ())) = self.find(session, |_| ()) else { return false };
        self.remember_dead(digest, death, position);
        true
    }

    /// The digest of a session in memory, and what `of` says of it.
    fn find<T>(&self, session: SessionId, of: impl Fn(&HeldSession) -> T) -> Option<(TokenDigest, T)> {
        let guard = self.table.sessions.guard();
        let is_it = |half| match self.table.sessions.get_key_value(half, &guard) {
            Some((digest, Held::Session(held))) if held.id == session => Some((*digest, of(held))),
            _ => None,
        };
        self.index.candidates(session).iter().find_map(is_it)
    }

    /// Sessions of the user from before `epoch` are over, but for the one that goes on.
    fn end_before(&mut self, user: UserId, epoch: Epoch, kept: Option<SessionId>, death: Death) {
        let Some(Known(owner)) = self.users.get(&user) else { return };
        // First the session that goes on, then the user: a reader sees the session ahead of the user, never behind.
        if let Some(kept) = kept {
            self.find(kept, |session| session.stamp(epoch));
        }
        owner.end_before(epoch, death);
    }

    /// Remembers at once, in the place of whatever is there, that the session is over, and as of which read.
    fn remember_dead(&mut self, digest: TokenDigest, death: Death, position: Position) {
        self.put_dead(digest, HeldDead { death: Some(death), as_of: position });
    }

    /// Remembers that no session has the token. What is known as over keeps its reason.
    fn remember_unknown(&mut self, digest: TokenDigest, position: Position) {
        let guard = self.table.sessions.guard();
        let (death, as_of) = match self.table.sessions.get(&digest, &guard) {
            Some(Held::Dead(dead)) => (dead.death, dead.as_of.max(position)),
            Some(Held::Session(_)) | None => (None, position),
        };
        drop(guard);
        self.put_dead(digest, HeldDead { death, as_of });
    }

    fn put_dead(&mut self, digest: TokenDigest, mut dead: HeldDead) {
        self.forget_surplus_dead();
        let mut left = None;
        let guard = self.table.sessions.guard();
        let was_dead = match self.table.sessions.get(&digest, &guard) {
            Some(Held::Session(session)) => {
                self.index.remove(session.id, FirstHalf::of(&digest));
                left = Some(session.user.id());
                false
            }
            Some(Held::Dead(before)) => {
                dead.as_of = dead.as_of.max(before.as_of);
                true
            }
            None => false,
        };
        if !was_dead && !self.has_room_for_dead() {
            // Nothing may be forgotten that a newer read could contradict. What is not in memory is asked for again.
            self.table.sessions.remove(&digest, &guard);
            drop(guard);
            self.let_go_of_any(left);
            return;
        }
        drop(guard);
        self.make_place_for(&digest);
        let guard = self.table.sessions.guard();
        self.table.sessions.insert(digest, Held::Dead(dead), &guard);
        drop(guard);
        self.let_go_of_any(left);
        if !was_dead {
            self.dead.push_back(digest);
            self.forget_surplus_dead();
        }
    }
}

/// As of when something was read.
#[derive(Clone, Copy)]
struct AsOf {
    position: Position,
    everyone: Epoch,
}

/// What a row says of the user's standing; none where it says nothing. A change is read again, and so is who could still
/// have one session.
fn standing_after<T>(entry: &LogEntry) -> Option<Standing<T>> {
    match entry {
        LogEntry::UserDisabled { .. } => Some(Standing::Barred),
        LogEntry::UserDeleted { .. }
        | LogEntry::UserSessionsEnded { .. }
        | LogEntry::PasswordChanged { .. }
        | LogEntry::UserChanged { .. } => Some(Standing::Stale),
        LogEntry::SessionEnded { .. }
        | LogEntry::SessionMisused { .. }
        | LogEntry::EveryoneEnded { .. }
        | LogEntry::TokenKeyAdded { .. }
        | LogEntry::TokenKeyForgotten { .. } => None,
    }
}
