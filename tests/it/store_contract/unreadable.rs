//! Rows that no version of this program wrote: each is an error that says so, never a panic, never a guess.

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use latchkey::domain::id::Position;
use latchkey::domain::token::{KeyFingerprint, KeyId};
use latchkey::domain::user::User;
use latchkey::store::coordination::Coordination as _;
use latchkey::store::sql::SqlStore;
use latchkey::store::{EndTarget, NewSession, SessionKey, Store, StoreError, UserKey};

use super::samples::{NOW, add, add_user, at, new_node, new_session, register, stamp};
use crate::support::databases::{Engine, TestDatabase, on_each_engine};

on_each_engine![
    an_unreadable_user_is_an_error,
    an_unreadable_session_is_an_error,
    an_unreadable_log_row_is_an_error,
    an_unreadable_token_key_is_an_error,
    an_unreadable_node_is_an_error,
    an_unreadable_head_is_an_error,
];

/// What reads the rows of a table: each of these must meet the unreadable one.
type Reads<'a> = Vec<(&'a str, LocalBoxFuture<'a, Result<(), StoreError>>)>;

/// Bytes that are no UTF-8 and have no length that any column expects, as the engine writes them.
fn rubbish_bytes(engine: Engine) -> &'static str {
    if engine == Engine::Postgres { "'\\xff00ff'" } else { "x'ff00ff'" }
}

/// Puts `value` into every row of a column, makes the reads, and puts the old values back.
async fn assert_unreadable(
    db: &TestDatabase,
    table: &str,
    column: &str,
    value: &str,
    reads: impl for<'a> Fn(&'a SqlStore) -> Reads<'a>,
) {
    let raw = db.raw().await;
    raw.run(&format!("DROP TABLE IF EXISTS kept_{table}")).await;
    raw.run(&format!("CREATE TABLE kept_{table} AS SELECT * FROM {table}")).await;
    raw.run(&format!("UPDATE {table} SET {column} = {value}")).await;
    raw.close().await;

    let store = db.open().await;
    for (name, read) in reads(&store) {
        let answer = read.await;
        let case = format!("{name} with {table}.{column} = {value}");
        assert!(matches!(answer, Err(StoreError::Corrupt(_))), "{case}: {answer:?}");
    }
    store.database_time().await.expect("the store serves on");
    store.close().await;
    drop(store);

    let raw = db.raw().await;
    raw.run(&format!("UPDATE {table} SET {column} = (SELECT {column} FROM kept_{table})")).await;
    raw.close().await;
}

/// The one user and the one session of these stories.
async fn one_of_each(db: &TestDatabase) -> (User, NewSession) {
    let store = db.open().await;
    let ada = add_user(&store, "ada").await;
    let new = new_session(&ada, NOW);
    add(&store, new.clone()).await;
    store.close().await;
    (ada, new)
}

async fn an_unreadable_user_is_an_error(db: &TestDatabase) {
    let (ada, new) = one_of_each(db).await;
    let bytes = rubbish_bytes(db.engine());
    let too_long = format!("'{}'", "x".repeat(10_000));
    let cases = [
        ("state", "99"),
        ("roles", "'rubbish\"'"),
        ("roles", too_long.as_str()),
        ("attributes", "'{\"a\":'"),
        ("attributes", "''"),
        ("attributes", "'[1]'"),
        ("display_name", too_long.as_str()),
        ("login_key", bytes),
    ];
    let (id, session, digest) = (ada.id, new.session.id, new.digest);
    for (column, value) in cases {
        assert_unreadable(db, "users", column, value, |store| {
            vec![
                ("user", async move { store.user(UserKey::Id(id)).await.map(drop) }.boxed_local()),
                (
                    "credentials",
                    async move { store.credentials(UserKey::Id(id)).await.map(drop) }.boxed_local(),
                ),
                ("list_users", async move { store.list_users(None, 10).await.map(drop) }.boxed_local()),
                (
                    "session",
                    async move { store.session(SessionKey::Id(session)).await.map(drop) }.boxed_local(),
                ),
                (
                    "sessions_by_digest",
                    async move { store.sessions_by_digest(&[digest]).await.map(drop) }.boxed_local(),
                ),
            ]
        })
        .await;
    }
    let store = db.open().await;
    assert_eq!(store.user(UserKey::Id(id)).await.expect("mended"), Some(ada));
}

async fn an_unreadable_session_is_an_error(db: &TestDatabase) {
    let (ada, new) = one_of_each(db).await;
    let (id, digest, user) = (new.session.id, new.digest, ada.id);
    for (column, value) in [
        ("methods", "'\u{1}'"),
        ("methods", "''"),
        ("client_ip", "'elsewhere'"),
        ("client_user_agent", "'two\nlines'"),
        ("idle_limit_ms", "-1"),
        ("end_reason", "99"),
    ] {
        assert_unreadable(db, "sessions", column, value, |store| {
            vec![
                ("by id", async move { store.session(SessionKey::Id(id)).await.map(drop) }.boxed_local()),
                (
                    "by digest",
                    async move { store.session(SessionKey::Digest(digest)).await.map(drop) }.boxed_local(),
                ),
                (
                    "sessions_by_digest",
                    async move { store.sessions_by_digest(&[digest]).await.map(drop) }.boxed_local(),
                ),
            ]
        })
        .await;
    }
    // A list shows the standing only, so the unreadable must at least not come out as something else.
    for (column, value) in [("methods", "''"), ("client_ip", "'elsewhere'")] {
        assert_unreadable(db, "sessions", column, value, |store| {
            let list = async move { store.sessions_of_user(user, None, 10, at(1)).await.map(drop) };
            let page = async move { store.sessions_by_use(None, 10, at(1)).await.map(drop) };
            vec![("sessions_of_user", list.boxed_local()), ("sessions_by_use", page.boxed_local())]
        })
        .await;
    }
    let store = db.open().await;
    let mended = store.session(SessionKey::Id(id)).await.expect("mended").expect("found");
    assert_eq!(mended.session, new.session);
}

async fn an_unreadable_log_row_is_an_error(db: &TestDatabase) {
    let (ada, _) = one_of_each(db).await;
    let store = db.open().await;
    let target = EndTarget::User { user: ada.id, except: None };
    let reason = latchkey::domain::session::EndReason::Revoked;
    store.end_sessions(target, reason, stamp(at(1))).await.expect("an answer");
    let written = store.changes_after(Position::ZERO, 10).await.expect("an answer");
    store.close().await;
    drop(store);
    for (column, value) in [
        ("kind", "0"),
        ("kind", "99"),
        ("nonce", rubbish_bytes(db.engine())),
        // The row ends all sessions of a user; without its fields it would end nobody.
        ("user_id", "NULL"),
        ("epoch", "NULL"),
        // Kind 1 ends one session, and kind 4 says that a user changed: neither has these fields.
        ("kind", "1"),
        ("kind", "7"),
    ] {
        assert_unreadable(db, "change_log", column, value, |store| {
            let read = async move { store.changes_after(Position::ZERO, 10).await.map(drop) };
            let poll = async move { store.poll(new_node("a").id, Position::ZERO, 10).await.map(drop) };
            let join = async move { store.join(new_node("a")).await.map(drop) };
            let read = vec![("changes_after", read.boxed_local()), ("poll", poll.boxed_local())];
            if column == "nonce" {
                [read, vec![("join", join.boxed_local())]].into_iter().flatten().collect()
            } else {
                read
            }
        })
        .await;
    }
    let store = db.open().await;
    assert_eq!(store.changes_after(Position::ZERO, 10).await.expect("mended"), written);
}

async fn an_unreadable_token_key_is_an_error(db: &TestDatabase) {
    let key = (KeyId(1), KeyFingerprint([1; 16]));
    let store = db.open().await;
    assert_eq!(register(&store, &[key], NOW).await.expect("an answer"), None);
    store.close().await;
    drop(store);
    assert_unreadable(db, "token_keys", "fingerprint", rubbish_bytes(db.engine()), |store| {
        // A fingerprint that cannot be compared is not the same: the node must not start with it, whatever it says.
        let read = async move {
            match register(store, &[key], NOW).await {
                Ok(Some(_)) => Err(StoreError::Corrupt("told as another key".to_owned())),
                answer => answer.map(drop),
            }
        };
        vec![("register_token_keys", read.boxed_local())]
    })
    .await;
    let store = db.open().await;
    assert_eq!(register(&store, &[key], NOW).await.expect("mended"), None);
}

async fn an_unreadable_node_is_an_error(db: &TestDatabase) {
    let (store, node) = (db.open().await, new_node("a"));
    store.join(node.clone()).await.expect("joined");
    store.close().await;
    drop(store);
    for value in ["0", "99"] {
        let id = node.id;
        assert_unreadable(db, "nodes", "state", value, |store| {
            let poll = async move { store.poll(id, Position::ZERO, 10).await.map(drop) };
            let nodes = async move { store.nodes().await.map(drop) };
            vec![("poll", poll.boxed_local()), ("nodes", nodes.boxed_local())]
        })
        .await;
    }
}

async fn an_unreadable_head_is_an_error(db: &TestDatabase) {
    assert_unreadable(db, "log_head", "lease_ms", "-1", |store| {
        let poll = async move { store.poll(new_node("a").id, Position::ZERO, 10).await.map(drop) };
        let nodes = async move { store.nodes().await.map(drop) };
        vec![("poll", poll.boxed_local()), ("nodes", nodes.boxed_local())]
    })
    .await;
    // A head that is behind, or ahead of, the row that it counted has lost its log.
    assert_unreadable(db, "log_head", "position", "7", |store| {
        let join = async move { store.join(new_node("a")).await.map(drop) };
        vec![("join", join.boxed_local())]
    })
    .await;
}
