//! The position of a read is a lower bound: every change up to it shows in what was read, while many write. A memory that
//! takes in a read with a position above what it shows would keep a session that was ended.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use latchkey::domain::id::{Epoch, Position, SessionId, UserId};
use latchkey::domain::session::{EndReason, Session};
use latchkey::domain::user::User;
use latchkey::store::sql::SqlStore;
use latchkey::store::{
    ChangeKind, EndTarget, Filling, LogEntry, LoggedChange, NewSession, SessionKey, Store, UserKey,
};
use tokio::task::JoinSet;

use super::samples::{add, add_user, at, hash, head, log_after, new_session, stamp};
use crate::support::databases::{Engine, TestDatabase, on_each_engine};
use crate::support::waiting::eventually;

on_each_engine![every_change_up_to_the_position_shows, mariadb_is_asked_for_the_position_before_the_rest];

const WRITERS: usize = 16;
const READERS: usize = 4;
/// Of each reader, in turn one of the four ways to read.
const READS: usize = 1_500;
const USERS: usize = 16;
const SESSIONS_EACH: usize = 6;

/// What one read said.
struct Seen {
    position: Position,
    everyone: Option<Epoch>,
    users: BTreeMap<UserId, Epoch>,
    /// Whether each session had ended.
    sessions: BTreeMap<SessionId, bool>,
}

impl Seen {
    fn at(position: Position, everyone: Epoch) -> Self {
        Self { position, everyone: Some(everyone), users: BTreeMap::new(), sessions: BTreeMap::new() }
    }

    fn of_filling(filling: &Filling) -> Self {
        let mut seen = Self::at(filling.position, filling.everyone_epoch);
        filling.found.iter().for_each(|found| seen.see(found.user.as_ref(), Some(&found.session)));
        seen
    }

    fn see(&mut self, user: Option<&User>, session: Option<&Session>) {
        self.users.extend(user.map(|user| (user.id, user.credential_epoch)));
        self.sessions.extend(session.map(|session| (session.id, session.ended.is_some())));
    }

    /// The first change that the read should have shown, and did not.
    fn lacks<'l>(&self, log: &'l [LoggedChange]) -> Option<&'l LoggedChange> {
        let before = log.iter().take_while(|row| row.position <= self.position);
        let older =
            |seen: Option<&Epoch>, row: &LoggedChange| seen.is_some_and(|seen| Some(*seen) < row.epoch());
        before.into_iter().find(|row| match row.kind() {
            ChangeKind::SessionEnded => {
                row.session().is_some_and(|id| self.sessions.get(&id) == Some(&false))
            }
            ChangeKind::EveryoneEnded => older(self.everyone.as_ref(), row),
            _ => row.user().is_some_and(|id| older(self.users.get(&id), row)),
        })
    }
}

/// Users and their sessions.
type Crowd = Vec<(User, Vec<NewSession>)>;

/// Ends sessions one by one, all of a user, or everyone's, until the readers have read enough. Each writer keeps to a user
/// of its own, so that they wait for each other at the head of the log alone, and commit as close together as can be.
async fn write(store: Arc<SqlStore>, crowd: Arc<Crowd>, writer: usize, done: Arc<AtomicBool>) {
    let (user, sessions) = &crowd[writer % USERS];
    for number in 0.. {
        if done.load(Ordering::SeqCst) {
            return;
        }
        let (stamp, session) = (stamp(at(1)), &sessions[number % SESSIONS_EACH]);
        let target = match number % 8 {
            0 if writer == 0 => EndTarget::Everyone,
            0 | 1 => EndTarget::Digest(session.digest),
            2 => {
                store.set_password(user.id, hash("x"), stamp).await.expect("a write among many succeeds");
                continue;
            }
            _ => EndTarget::User { user: user.id, except: Some(session.session.id) },
        };
        store.end_sessions(target, EndReason::Revoked, stamp).await.expect("a write among many succeeds");
    }
}

async fn read(store: &dyn Store, crowd: &Crowd, number: usize) -> Seen {
    let (user, sessions) = &crowd[number / 4 % USERS];
    match number % 4 {
        // One session of each user is enough to see them all.
        0 => {
            let digests = crowd.iter().map(|(_, sessions)| sessions[number % SESSIONS_EACH].digest);
            let filling = store.sessions_by_digest(&digests.collect::<Vec<_>>()).await.expect("an answer");
            assert_eq!(filling.found.len(), USERS);
            Seen::of_filling(&filling)
        }
        1 => Seen::of_filling(&store.sessions_by_use(None, 1_000, at(0)).await.expect("an answer")),
        2 => {
            let read = store.credentials(UserKey::Id(user.id)).await.expect("an answer").expect("found");
            let mut seen = Seen::at(read.position, read.everyone_epoch);
            seen.see(Some(&read.user), None);
            seen
        }
        _ => {
            let key = SessionKey::Digest(sessions[number % SESSIONS_EACH].digest);
            let read = store.session(key).await.expect("an answer").expect("found");
            let mut seen = Seen::at(read.position, read.everyone_epoch);
            seen.see(read.user.as_ref(), Some(&read.session));
            seen
        }
    }
}

async fn read_all(store: Arc<SqlStore>, crowd: Arc<Crowd>, reader: usize) -> Vec<Seen> {
    let mut reads = Vec::with_capacity(READS);
    for number in 0..READS {
        reads.push(read(&*store, &crowd, reader + number).await);
    }
    reads
}

async fn every_change_up_to_the_position_shows(db: &TestDatabase) {
    let first = Arc::new(db.open().await);
    // Two nodes write. SQLite belongs to one process: there one store does all.
    let second = if db.engine() == Engine::Sqlite { Arc::clone(&first) } else { Arc::new(db.open().await) };
    let mut crowd = Crowd::new();
    for number in 0..USERS {
        let user = add_user(&*first, &format!("user-{number}")).await;
        let sessions: Vec<_> = (0..SESSIONS_EACH).map(|_| new_session(&user, at(0))).collect();
        for new in &sessions {
            add(&*first, new.clone()).await;
        }
        crowd.push((user, sessions));
    }
    let (crowd, done) = (Arc::new(crowd), Arc::new(AtomicBool::new(false)));
    let (mut writing, mut reading) = (JoinSet::new(), JoinSet::new());
    for writer in 0..WRITERS {
        let store = Arc::clone(if writer % 2 == 0 { &first } else { &second });
        writing.spawn(write(store, Arc::clone(&crowd), writer, Arc::clone(&done)));
    }
    for reader in 0..READERS {
        let store = Arc::clone(if reader % 2 == 0 { &first } else { &second });
        reading.spawn(read_all(store, Arc::clone(&crowd), reader));
    }
    let reads = reading.join_all().await.into_iter().flatten().collect::<Vec<_>>();
    done.store(true, Ordering::SeqCst);
    writing.join_all().await;

    let log = log_after(&*first, Position::ZERO).await;
    let last = reads.iter().map(|seen| seen.position).max().expect("a read");
    assert!(last.as_i64() > 200, "the readers were beside the writers: {last:?}");
    let lacking: Vec<_> = reads.iter().filter_map(|seen| Some((seen.position, seen.lacks(&log)?))).collect();
    assert!(lacking.is_empty(), "{} of {} reads: {:?}", lacking.len(), reads.len(), lacking[0]);
}

/// A view of MariaDB that shows a change and not the one before is rare, and nobody can order one. So what keeps it
/// harmless is shown instead: while the rest of a read waits for its tables, a change is written, and the position that is
/// answered is the one before it. The other engines read everything in one statement.
async fn mariadb_is_asked_for_the_position_before_the_rest(db: &TestDatabase) {
    if db.engine() != Engine::Mariadb {
        return;
    }
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    let new = new_session(&ada, at(0));
    add(&store, new.clone()).await;
    let before = head(&store).await;
    let (holder, writer) = (db.raw().await, db.raw().await);
    holder.run("LOCK TABLES users WRITE, sessions WRITE").await;
    let meanwhile = async {
        let waiting = "SELECT COUNT(*) FROM information_schema.processlist \
                       WHERE db = DATABASE() AND state = 'Waiting for table metadata lock'";
        eventually("all four wait", async || writer.number(waiting).await == 4).await;
        writer
            .run(
                "INSERT INTO change_log (position, nonce, kind, user_id, epoch, create_time) \
                 VALUES (0, 'nonce---', 4, UNHEX('00000000000000000000000000000001'), 1, 1)",
            )
            .await;
        holder.run("UNLOCK TABLES").await;
    };
    let (digests, key) = ([new.digest], UserKey::Id(ada.id));
    let (by_digest, by_use, credentials, session, ()) = tokio::join!(
        store.sessions_by_digest(&digests),
        store.sessions_by_use(None, 10, at(1)),
        store.credentials(key),
        store.session(SessionKey::Digest(new.digest)),
        meanwhile,
    );
    assert_eq!(by_digest.expect("an answer").position, before);
    assert_eq!(by_use.expect("an answer").position, before);
    assert_eq!(credentials.expect("an answer").expect("found").position, before);
    assert_eq!(session.expect("an answer").expect("found").position, before);
    assert!(head(&store).await > before, "there was a change meanwhile");
}

#[test]
fn a_read_that_lacks_a_change_is_found() {
    let now = at(0);
    let user = UserId::from_uuid(uuid::Uuid::from_u128(1));
    let session = SessionId::from_uuid(uuid::Uuid::from_u128(2));
    let epoch = Epoch::from_i64(2);
    let row = |position, entry| LoggedChange {
        position: Position::from_i64(position),
        nonce: stamp(now).nonce,
        entry,
        time: now,
    };
    let log = [
        row(1, LogEntry::UserSessionsEnded { user, epoch, kept: Some(session) }),
        row(2, LogEntry::EveryoneEnded { epoch }),
        row(3, LogEntry::SessionEnded { user, session }),
    ];
    let seen = |position, everyone, epoch, ended| Seen {
        position: Position::from_i64(position),
        everyone: Some(Epoch::from_i64(everyone)),
        users: BTreeMap::from([(user, Epoch::from_i64(epoch))]),
        sessions: BTreeMap::from([(session, ended)]),
    };
    assert_eq!(seen(3, 2, 2, true).lacks(&log), None);
    assert_eq!(seen(0, 1, 1, false).lacks(&log), None);
    assert_eq!(seen(1, 1, 1, false).lacks(&log), Some(&log[0]));
    assert_eq!(seen(2, 1, 2, false).lacks(&log), Some(&log[1]));
    assert_eq!(seen(3, 2, 2, false).lacks(&log), Some(&log[2]));
    assert_eq!(seen(2, 2, 9, false).lacks(&log), None, "to show more is no fault");
}
