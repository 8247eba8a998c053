//! Every method that a request takes, called once, each on a user of its own.

use std::time::Duration;

use latchkey::domain::client::Client;
use latchkey::domain::id::{Position, SessionId, UserId};
use latchkey::domain::session::EndReason;
use latchkey::domain::time::UnixMillis;
use latchkey::domain::token::{KeyFingerprint, KeyId, TokenDigest};
use latchkey::domain::user::{User, UserState};
use latchkey::host::{SystemEntropy, random};
use latchkey::store::coordination::{AckCommit, Coordination as _};
use latchkey::store::sql::SqlStore;
use latchkey::store::{
    Change, CreateUser, EndTarget, Ending, LogEntry, LoggedChange, NewSession, NewUser, PasswordChange,
    Result, SessionKey, Store, UpdateUser, UserChange, UserKey,
};

use super::super::samples::{
    NO_CAP, NOW, add, at, hash, new_node, new_session, new_user, raw_login, register, stamp,
};

/// The names of the calls; `call` has an arm for each.
pub const METHODS: [&str; 39] = [
    "database_time",
    "register_token_keys",
    "create_user",
    "create_user that is refused",
    "user by id",
    "user by login",
    "credentials by id",
    "credentials by login",
    "list_users",
    "update_user",
    "update_user that renames",
    "update_user that disables",
    "set_password",
    "change_password",
    "upgrade_password_hash",
    "delete_user",
    "create_session",
    "create_session above the cap",
    "session by id",
    "session by digest",
    "sessions_of_user",
    "end_sessions by id",
    "end_sessions by digest",
    "end_sessions of a user",
    "replace_session",
    "touch_sessions",
    "purge_sessions",
    "changes_after",
    "sessions_by_digest",
    "sessions_by_use",
    "sessions_by_use, the next page",
    "end_sessions_together",
    "join",
    "poll",
    "acknowledge",
    "nodes",
    "mark_evicting",
    "write_again",
    "truncate_log",
];

/// Whom a call is about: a user with three sessions.
pub struct Subject {
    user: User,
    sessions: Vec<NewSession>,
}

impl Subject {
    /// Adds the user of one method.
    pub async fn add(store: &dyn Store, method: &str) -> Self {
        let CreateUser::Created(user) =
            store.create_user(user_off_the_middle(method)).await.expect("an answer")
        else {
            panic!("a fresh user is created");
        };
        let mut sessions = Vec::new();
        for second in 0..3 {
            let mut new = off_the_middle(&user, at(second));
            new.session.client = Client::parse("192.0.2.1", "Browser/1.0", "").expect("a client");
            add(store, new.clone()).await;
            sessions.push(new);
        }
        Self { user: *user, sessions }
    }
}

/// A user whose id comes before those of the crowd; what lies in the middle of them is spoilt.
fn user_off_the_middle(login: &str) -> NewUser {
    let earlier = NOW.minus(Duration::from_secs(1));
    NewUser { id: UserId::mint(earlier, random(&SystemEntropy)), ..new_user(login) }
}

/// A session of `user`, whose digest lies far from the middle of all digests, which is spoilt.
fn off_the_middle(user: &User, time: UnixMillis) -> NewSession {
    let mut new = new_session(user, time);
    new.digest.0[0] %= 64;
    new
}

impl Subject {
    /// The user.
    pub fn id(&self) -> UserId {
        self.user.id
    }
}

/// Calls one method, and fails where the call does not do its work.
pub async fn call(
    store: &SqlStore,
    method: &str,
    subject: &Subject,
    now: UnixMillis,
) -> std::result::Result<(), String> {
    let found_its_work = call_users(store, method, subject, now).await;
    let found_its_work = match found_its_work {
        Some(answer) => answer,
        None => match call_coordination(store, method, subject, now).await {
            Some(answer) => answer,
            None => call_sessions(store, method, subject, now).await,
        },
    };
    match found_its_work {
        Ok(true) => Ok(()),
        Ok(false) => panic!("{method} had nothing to do, so it proves nothing"),
        Err(error) => Err(error.to_string()),
    }
}

/// The methods about users; whether the call found what it was to work on.
async fn call_users(
    store: &dyn Store,
    method: &str,
    Subject { user, .. }: &Subject,
    now: UnixMillis,
) -> Option<Result<bool>> {
    let updated = |answer: UpdateUser| matches!(answer, UpdateUser::Updated(..));
    let by_login = UserKey::Login(&user.login);
    let change = UserChange::default();
    Some(match method {
        "database_time" => store.database_time().await.map(|_| true),
        "register_token_keys" => {
            register(store, &[(KeyId(1), KeyFingerprint([1; 16]))], now).await.map(|taken| taken.is_none())
        }
        "create_user" => store.create_user(user_off_the_middle("one more")).await.map(|_| true),
        "create_user that is refused" => {
            store.create_user(user_off_the_middle(user.login.key())).await.map(|_| true)
        }
        "user by id" => store.user(UserKey::Id(user.id)).await.map(|found| found.is_some()),
        "user by login" => store.user(by_login).await.map(|found| found.is_some()),
        "credentials by id" => store.credentials(UserKey::Id(user.id)).await.map(|found| found.is_some()),
        "credentials by login" => store.credentials(by_login).await.map(|found| found.is_some()),
        "list_users" => store.list_users(Some(user.id), 10).await.map(|page| !page.is_empty()),
        "update_user" => store.update_user(user.id, change, stamp(now)).await.map(updated),
        "update_user that renames" => {
            let change = UserChange { login: Some(raw_login("another name")), ..change };
            store.update_user(user.id, change, stamp(now)).await.map(updated)
        }
        "update_user that disables" => {
            let change = UserChange { state: Some(UserState::Disabled), ..change };
            store.update_user(user.id, change, stamp(now)).await.map(updated)
        }
        "set_password" => {
            store.set_password(user.id, hash("x"), stamp(now)).await.map(|change| ended(change, 3))
        }
        "change_password" => {
            let verified_epoch = user.credential_epoch;
            let mut session = off_the_middle(user, now);
            session.session.user_epoch = verified_epoch.next();
            let change = PasswordChange { verified_epoch, hash: hash("x"), session };
            store.change_password(change, stamp(now)).await.map(|change| ended(change, 3))
        }
        "upgrade_password_hash" => store.upgrade_password_hash(user.id, &hash("first"), &hash("x")).await,
        "delete_user" => store.delete_user(user.id, stamp(now)).await.map(|change| ended(change, 3)),
        _ => return None,
    })
}

/// The methods by which nodes agree; whether the call found what it was to work on.
async fn call_coordination(
    store: &SqlStore,
    method: &str,
    Subject { user, sessions }: &Subject,
    now: UnixMillis,
) -> Option<Result<bool>> {
    let (node, middle) = (new_node("a"), Position::from_i64(20_000));
    Some(match method {
        "join" => store.join(node).await.map(|joined| joined.nonce.is_some()),
        "poll" => store.poll(node.id, middle, 100).await.map(|polled| polled.rows.len() == 100),
        "acknowledge" => store.acknowledge(node.id, middle, None, AckCommit::Quick).await.map(|()| true),
        "nodes" => store.nodes().await.map(|roster| roster.head > middle),
        "mark_evicting" => store.mark_evicting(node.id, now).await.map(|marked| !marked),
        "write_again" => {
            let lost = LoggedChange {
                position: middle,
                nonce: stamp(now).nonce,
                entry: LogEntry::UserSessionsEnded {
                    user: user.id,
                    epoch: user.credential_epoch.next(),
                    kept: Some(sessions[0].session.id),
                },
                time: now,
            };
            store.write_again(&[lost], stamp(now)).await.map(|written| ended(Some(written.change), 2))
        }
        "truncate_log" => {
            let joined = store.nodes().await.expect("the nodes").nodes;
            assert!(joined.iter().all(|node| node.applied > middle), "nobody keeps old rows");
            store.truncate_log(now, 100).await.map(|deleted| deleted == 100)
        }
        _ => return None,
    })
}

/// The methods about sessions; whether the call found what it was to work on.
async fn call_sessions(
    store: &dyn Store,
    method: &str,
    Subject { user, sessions }: &Subject,
    now: UnixMillis,
) -> Result<bool> {
    let (id, digest) = (sessions[0].session.id, sessions[0].digest);
    let end = async |target, count| {
        let change = store.end_sessions(target, EndReason::Revoked, stamp(now)).await;
        change.map(|change| ended(Some(change), count))
    };
    match method {
        "create_session" => {
            store.create_session(off_the_middle(user, now), NO_CAP, stamp(now)).await.map(|_| true)
        }
        "create_session above the cap" => store
            .create_session(off_the_middle(user, now), 2, stamp(now))
            .await
            .map(|change| ended(change, 2)),
        "session by id" => store.session(SessionKey::Id(id)).await.map(|found| found.is_some()),
        "session by digest" => store.session(SessionKey::Digest(digest)).await.map(|found| found.is_some()),
        "sessions_of_user" => {
            store.sessions_of_user(user.id, None, 10, now).await.map(|page| page.len() == 3)
        }
        "end_sessions by id" => end(EndTarget::Session(id), 1).await,
        "end_sessions by digest" => end(EndTarget::Digest(digest), 1).await,
        "end_sessions of a user" => end(EndTarget::User { user: user.id, except: Some(id) }, 2).await,
        "replace_session" => {
            let new = off_the_middle(user, now);
            store.replace_session(id, new, stamp(now)).await.map(|change| ended(change, 1))
        }
        "touch_sessions" => {
            let seen: Vec<_> = sessions.iter().map(|new| (new.session.id, now)).collect();
            store.touch_sessions(&seen).await.map(|locked| locked.is_empty())
        }
        "purge_sessions" => {
            let before = NOW.minus(Duration::from_hours(24));
            store.purge_sessions(before, 100).await.map(|purged| purged == 0)
        }
        "sessions_by_digest" => {
            let unknown = (0_u8..64).map(|number| TokenDigest([number; 16]));
            let digests: Vec<_> = sessions.iter().map(|new| new.digest).chain(unknown).collect();
            store.sessions_by_digest(&digests).await.map(|filling| filling.found.len() == 3)
        }
        "sessions_by_use" => {
            // Few, since each has a user who may lie where it is spoilt.
            store.sessions_by_use(None, 3, now).await.map(|filling| filling.found.len() == 3)
        }
        "sessions_by_use, the next page" => {
            let last = (sessions[0].session.last_seen_time, id_in_the_crowd());
            store.sessions_by_use(Some(last), 3, now).await.map(|filling| filling.found.len() == 3)
        }
        "end_sessions_together" => {
            let other = EndTarget::User { user: user.id, except: None };
            let targets = [EndTarget::Session(id), EndTarget::Digest(sessions[1].digest), other];
            let endings = targets.map(|target| Ending { target, reason: EndReason::Revoked });
            let changes = store.end_sessions_together(&endings, stamp(now)).await;
            changes.map(|changes| changes.into_iter().all(|change| ended(change, 1)))
        }
        "changes_after" => {
            store.changes_after(Position::from_i64(20_000), 100).await.map(|rows| rows.len() == 100)
        }
        _ => unreachable!("no method is called {method}"),
    }
}

/// An id among the sessions of the crowd, all of which were used at the same moment; not in their middle, which is spoilt.
fn id_in_the_crowd() -> SessionId {
    SessionId::mint(NOW.plus(Duration::from_millis(2_500)), [0; 10])
}

fn ended(change: Option<Change>, count: u64) -> bool {
    change.is_some_and(|change| change.ended == count)
}
