//! The log says everything: a memory that knew the sessions at their birth, and from then on heard the log alone, comes to
//! the same verdict about each of them as the database, after any mixture of writes at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use latchkey::domain::id::{Epoch, Position, SessionId, UserId};
use latchkey::domain::session::{EndReason, Session};
use latchkey::domain::user::{User, UserState};
use latchkey::host::{Entropy as _, SeededEntropy};
use latchkey::store::sql::SqlStore;
use latchkey::store::{
    ChangeKind, EndTarget, LoggedChange, NewSession, PasswordChange, SessionKey, Store, UserChange, UserKey,
};
use tokio::task::JoinSet;

use super::samples::{NO_CAP, add_user, at, credentials, hash, log_after, new_session, stamp, user};
use crate::support::databases::{Engine, TestDatabase, on_each_engine};

on_each_engine![the_log_alone_tells_who_is_dead];

const WRITERS: u64 = 16;
const WRITES_EACH: u64 = 60;
const USERS: usize = 24;
/// Low, so that sign-ins reach it.
const CAP: u32 = 4;

/// Draws numbers that follow from a seed, so that a failure can be run again.
struct Dice(SeededEntropy);

impl Dice {
    fn draw(&self, sides: usize) -> usize {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        usize::try_from(u32::from_be_bytes(bytes)).expect("a word fits") % sides
    }
}

/// Sessions that were added, as they were at birth.
type Born = Vec<Session>;

/// Signs in as a node does: reads the credentials first, and stamps the session with what it read.
async fn sign_in(store: &dyn Store, id: UserId, second: u64, cap: u32) -> Option<Session> {
    let read = store.credentials(UserKey::Id(id)).await.expect("the store answers")?;
    let mut new = new_session(&read.user, at(second));
    new.session.everyone_epoch = read.everyone_epoch;
    let session = new.session.clone();
    store.create_session(new, cap, stamp(at(second))).await.expect("a write among many succeeds");
    Some(session)
}

/// Changes the password as its owner does, and answers the session that goes on unless the race was lost.
async fn change_password(store: &dyn Store, id: UserId, second: u64) -> Option<Session> {
    let read = credentials(store, id).await;
    let verified_epoch = read.user.credential_epoch;
    let NewSession { session, digest } = new_session(&read.user, at(second));
    let session =
        Session { user_epoch: verified_epoch.next(), everyone_epoch: read.everyone_epoch, ..session };
    let new = NewSession { session: session.clone(), digest };
    let change = PasswordChange { verified_epoch, hash: hash("x"), session: new };
    let won = store.change_password(change, stamp(at(second))).await.expect("a write among many succeeds");
    won.map(|_| session)
}

/// Replaces `old` as a re-authentication does.
async fn replace(store: &dyn Store, old: &Session, second: u64) -> Option<Session> {
    let read = store.session(SessionKey::Id(old.id)).await.expect("the store answers")?;
    let mut new = new_session(read.user.as_ref()?, at(second));
    new.session.everyone_epoch = read.everyone_epoch;
    let session = new.session.clone();
    let won =
        store.replace_session(old.id, new, stamp(at(second))).await.expect("a write among many succeeds");
    won.map(|_| session)
}

/// Makes one writer's writes, and answers the sessions it added.
async fn write_share(store: Arc<SqlStore>, users: Arc<Vec<UserId>>, writer: u64) -> Born {
    let dice = Dice(SeededEntropy::new(writer));
    let store: &dyn Store = &*store;
    let mut born: Born = Vec::new();
    for second in 0..WRITES_EACH {
        let user = users[dice.draw(USERS)];
        let own = born.get(dice.draw(born.len().max(1))).cloned();
        let reason = EndReason::Revoked;
        let write = dice.draw(100);
        let added = match (write, own) {
            (0..=39, _) | (_, None) => {
                sign_in(store, user, second, if write.is_multiple_of(2) { CAP } else { NO_CAP }).await
            }
            (40..=49, Some(own)) => {
                store
                    .end_sessions(EndTarget::Session(own.id), reason, stamp(at(second)))
                    .await
                    .expect("ended");
                None
            }
            (50..=59, Some(own)) => {
                let target = EndTarget::User { user: own.user_id, except: Some(own.id) };
                store.end_sessions(target, reason, stamp(at(second))).await.expect("ended");
                None
            }
            (60..=64, Some(own)) => {
                // Somebody else's session as the exception, more often than not.
                let target = EndTarget::User { user, except: Some(own.id) };
                store.end_sessions(target, reason, stamp(at(second))).await.expect("ended");
                None
            }
            (65..=69, _) => {
                store.set_password(user, hash("y"), stamp(at(second))).await.expect("set");
                None
            }
            (70..=77, _) => change_password(store, user, second).await,
            (78..=94, Some(own)) => replace(store, &own, second).await,
            (95..=98, _) => {
                for state in [UserState::Disabled, UserState::Active] {
                    let change = UserChange { state: Some(state), ..UserChange::default() };
                    store.update_user(user, change, stamp(at(second))).await.expect("updated");
                }
                None
            }
            (_, Some(_)) => {
                store.end_sessions(EndTarget::Everyone, reason, stamp(at(second))).await.expect("ended");
                None
            }
        };
        born.extend(added);
    }
    born
}

/// A memory that hears the log and nothing else.
struct Memory {
    sessions: BTreeMap<SessionId, (Session, bool)>,
    epochs: BTreeMap<UserId, Epoch>,
    everyone: Epoch,
}

impl Memory {
    fn apply(&mut self, row: &LoggedChange) {
        match row.kind() {
            ChangeKind::SessionEnded | ChangeKind::SessionMisused => {
                let session = row.session().and_then(|id| self.sessions.get_mut(&id));
                session.expect("the row names a session that was born").1 = true;
            }
            ChangeKind::UserSessionsEnded
            | ChangeKind::PasswordChanged
            | ChangeKind::UserDisabled
            | ChangeKind::UserDeleted => {
                let (user, epoch) = (row.user().expect("a user"), row.epoch().expect("an epoch"));
                let known = self.epochs.entry(user).or_insert(Epoch::FIRST);
                assert_eq!(epoch, known.next(), "each row raises the epoch by one: {row:?}");
                *known = epoch;
                if let Some((kept, _)) = row.session().and_then(|id| self.sessions.get_mut(&id)) {
                    assert_eq!(kept.user_id, user, "only an own session goes on: {row:?}");
                    kept.user_epoch = epoch;
                }
            }
            ChangeKind::UserChanged => {
                let known =
                    row.user().and_then(|user| self.epochs.get(&user)).copied().unwrap_or(Epoch::FIRST);
                assert_eq!(row.epoch(), Some(known), "no epoch changed: {row:?}");
            }
            ChangeKind::EveryoneEnded => {
                let epoch = row.epoch().expect("an epoch");
                assert_eq!(epoch, self.everyone.next(), "each row raises the epoch by one: {row:?}");
                self.everyone = epoch;
            }
            ChangeKind::TokenKeyAdded | ChangeKind::TokenKeyForgotten => {
                assert_eq!((row.user(), row.session(), row.epoch()), (None, None, None));
            }
        }
    }

    fn is_good(&self, id: SessionId) -> bool {
        let (session, ended) = &self.sessions[&id];
        let epoch = self.epochs.get(&session.user_id).copied().unwrap_or(Epoch::FIRST);
        !ended && session.user_epoch == epoch && session.everyone_epoch == self.everyone
    }
}

async fn the_log_alone_tells_who_is_dead(db: &TestDatabase) {
    let first = Arc::new(db.open().await);
    // SQLite belongs to one process, so there both nodes are one.
    let second = if db.engine() == Engine::Sqlite { Arc::clone(&first) } else { Arc::new(db.open().await) };
    let mut users: Vec<User> = Vec::new();
    for number in 0..USERS {
        users.push(add_user(&*first, &format!("user-{number}")).await);
    }
    let ids = Arc::new(users.iter().map(|user| user.id).collect::<Vec<_>>());
    let mut writing = JoinSet::new();
    for writer in 0..WRITERS {
        let store = if writer % 2 == 0 { &first } else { &second };
        writing.spawn(write_share(Arc::clone(store), Arc::clone(&ids), writer));
    }
    let born: Born = writing.join_all().await.concat();

    let sessions = born.into_iter().map(|session| (session.id, (session, false))).collect();
    let mut memory = Memory { sessions, epochs: BTreeMap::new(), everyone: Epoch::FIRST };
    let rows = log_after(&*first, Position::ZERO).await;
    for (expected, row) in (1..).zip(&rows) {
        assert_eq!(row.position.as_i64(), expected);
        memory.apply(row);
    }
    let (mut good, mut dead) = (0, 0);
    for id in memory.sessions.keys() {
        let verdict = super::samples::verdict(&*first, *id, at(WRITES_EACH)).await;
        assert_eq!(verdict.is_ok(), memory.is_good(*id), "{id:?}: the database says {verdict:?}");
        if verdict.is_ok() { good += 1 } else { dead += 1 }
    }
    assert!(good > 0 && dead > 0, "the mixture shows both: {good} good, {dead} dead");
    for id in ids.iter() {
        let epoch = memory.epochs.get(id).copied().unwrap_or(Epoch::FIRST);
        assert_eq!(user(&*first, *id).await.credential_epoch, epoch, "no epoch was raised without a row");
    }
}
