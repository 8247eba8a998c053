//! Users, sessions and stamps to try the store with, and the few steps that every test takes.

use std::time::Duration;

use latchkey::domain::client::Client;
use latchkey::domain::id::{Epoch, NodeId, Nonce, Position, SessionId, UserId};
use latchkey::domain::login_name::LoginName;
use latchkey::domain::password::PasswordHash;
use latchkey::domain::session::{Death, EndReason, Methods, Session};
use latchkey::domain::time::UnixMillis;
use latchkey::domain::token::{KeyFingerprint, KeyId, TokenDigest};
use latchkey::domain::user::{Attributes, DisplayName, Roles, User};
use latchkey::host::{SystemEntropy, random};
use latchkey::store;
use latchkey::store::coordination::NewNode;
use latchkey::store::{
    Change, CreateUser, Credentials, EndTarget, LoggedChange, NewSession, NewUser, RegisterTokenKeys,
    SessionKey, SessionRecord, Stamp, Store, UpdateUser, UserChange, UserKey,
};

/// A moment in 2001, where all stories begin. A store that asked a clock of its own would find everything expired.
pub const NOW: UnixMillis = UnixMillis::from_millis(1_000_000_000_000);
/// How long a sample session lives at most.
pub const LIFETIME: Duration = Duration::from_hours(12);
/// How long a sample session may go unused.
pub const IDLE_LIMIT: Duration = Duration::from_hours(1);
/// More sessions than any sample user has.
pub const NO_CAP: u32 = u32::MAX;

/// The moment `seconds` after the beginning.
pub fn at(seconds: u64) -> UnixMillis {
    NOW.plus(Duration::from_secs(seconds))
}

/// A stamp of that time.
pub fn stamp(time: UnixMillis) -> Stamp {
    Stamp { time, nonce: Nonce(random(&SystemEntropy)) }
}

/// Some text in the place of a password hash.
pub fn hash(text: &str) -> PasswordHash {
    PasswordHash::from_phc(format!("$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ${text}"))
}

/// A login name whose two forms are exactly `text`, past the mapping that would refuse or change it.
pub fn raw_login(text: &str) -> LoginName {
    LoginName::from_stored(text.to_owned(), text.to_owned())
}

/// A user with a password, ready to be added.
pub fn new_user(login: &str) -> NewUser {
    NewUser {
        id: UserId::mint(NOW, random(&SystemEntropy)),
        login: raw_login(login),
        display_name: DisplayName::parse("Ada Lovelace").expect("a display name"),
        roles: Roles::parse(&["reader", "writer"]).expect("roles"),
        attributes: Attributes::parse([("team", "blue")]).expect("attributes"),
        password_hash: Some(hash("first")),
        create_time: NOW,
    }
}

/// A session of `user` as a sign-in at `time` makes it, with the user's epoch and the first one of everyone.
pub fn new_session(user: &User, time: UnixMillis) -> NewSession {
    let session = Session {
        id: SessionId::mint(time, random(&SystemEntropy)),
        user_id: user.id,
        user_epoch: user.credential_epoch,
        everyone_epoch: Epoch::FIRST,
        create_time: time,
        authenticate_time: time,
        expire_time: time.plus(LIFETIME),
        last_seen_time: time,
        idle_limit: IDLE_LIMIT,
        remembered: false,
        methods: Methods::password(),
        client: Client::parse("192.0.2.7", "Sample/1.0", "a laptop").expect("a client"),
        ended: None,
    };
    NewSession { session, digest: TokenDigest(random(&SystemEntropy)) }
}

/// A node, ready to join.
pub fn new_node(name: &str) -> NewNode {
    NewNode { id: NodeId::mint(NOW, random(&SystemEntropy)), name: name.to_owned() }
}

/// Adds a sample user.
pub async fn add_user(store: &dyn Store, login: &str) -> User {
    match store.create_user(new_user(login)).await.expect("the store answers") {
        CreateUser::Created(user) => *user,
        other => panic!("a fresh user is created, not {other:?}"),
    }
}

/// Adds a sample session, of which the log must hear nothing.
pub async fn sign_in(store: &dyn Store, user: &User, time: UnixMillis) -> Session {
    add(store, new_session(user, time)).await
}

/// Adds a session, of which the log must hear nothing.
pub async fn add(store: &dyn Store, new: NewSession) -> Session {
    let session = new.session.clone();
    let change =
        store.create_session(new, NO_CAP, stamp(session.create_time)).await.expect("the store answers");
    assert_eq!(change, None, "a sign-in below the cap takes nothing away");
    session
}

/// Reads a user who is there.
pub async fn user(store: &dyn Store, id: UserId) -> User {
    store.user(UserKey::Id(id)).await.expect("the store answers").expect("the user is there")
}

/// Reads the credentials of a user who is there.
pub async fn credentials(store: &dyn Store, id: UserId) -> Credentials {
    store.credentials(UserKey::Id(id)).await.expect("the store answers").expect("the user is there")
}

/// Reads a session that is there.
pub async fn record(store: &dyn Store, id: SessionId) -> SessionRecord {
    store.session(SessionKey::Id(id)).await.expect("the store answers").expect("the session is there")
}

/// What the one rule says of a session, as the database knows it.
pub async fn verdict(store: &dyn Store, id: SessionId, now: UnixMillis) -> Result<(), Death> {
    let record = record(store, id).await;
    record.session.check(record.user.as_ref(), record.everyone_epoch, record.session.last_seen_time, now)
}

/// Updates a user who is there, to a login that is free.
pub async fn update(store: &dyn Store, id: UserId, change: UserChange, stamp: Stamp) -> (User, Change) {
    match store.update_user(id, change, stamp).await.expect("the store answers") {
        UpdateUser::Updated(user, change) => (*user, change),
        other => panic!("the user is updated, not {other:?}"),
    }
}

/// The log behind `after`, whole.
pub async fn log_after(store: &dyn Store, after: Position) -> Vec<LoggedChange> {
    const PAGE: u32 = 1_000;
    let mut rows: Vec<LoggedChange> = Vec::new();
    loop {
        let last = rows.last().map_or(after, |row| row.position);
        let page = store.changes_after(last, PAGE).await.expect("the store answers");
        assert!(page.first().is_none_or(|row| row.position > last), "a row comes twice");
        let is_last = page.len() < PAGE as usize;
        rows.extend(page);
        if is_last {
            return rows;
        }
    }
}

/// The position of the log's last row.
pub async fn head(store: &dyn Store) -> Position {
    log_after(store, Position::ZERO).await.last().map_or(Position::ZERO, |row| row.position)
}

/// Ends all sessions of a user `count` times, and answers the log rows of that.
pub async fn write_rows(store: &dyn Store, user: UserId, count: u64) -> Vec<LoggedChange> {
    let mut rows = Vec::new();
    for second in 0..count {
        let target = EndTarget::User { user, except: None };
        let change = store.end_sessions(target, EndReason::Revoked, stamp(at(second))).await;
        rows.extend(change.expect("the store answers").rows);
    }
    rows
}

/// The only row behind `before`, which must be where `change` says, as it says, and bear the stamp.
pub async fn only_row(store: &dyn Store, before: Position, change: &Change, stamp: Stamp) -> LoggedChange {
    let rows = log_after(store, before).await;
    assert_eq!(rows, change.rows, "the answer holds the rows that were written");
    assert_eq!(rows.len(), 1, "one change, one row: {rows:?}");
    assert_eq!(rows[0].position, change.position, "the answer names the row");
    assert_eq!(rows[0].position.as_i64(), before.as_i64() + 1, "no number is left out");
    assert_eq!((rows[0].nonce, rows[0].time), (stamp.nonce, stamp.time), "the row bears the stamp");
    rows[0].clone()
}

/// Records keys, and answers the number of one that is known otherwise.
pub async fn register(
    store: &dyn Store,
    keys: &[(KeyId, KeyFingerprint)],
    now: UnixMillis,
) -> store::Result<Option<KeyId>> {
    Ok(match store.register_token_keys(keys, stamp(now)).await? {
        RegisterTokenKeys::Registered { .. } => None,
        RegisterTokenKeys::Mismatch(key) => Some(key),
    })
}
