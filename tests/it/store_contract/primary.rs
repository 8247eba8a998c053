//! What is decided on is read from the server that takes the writes: one that does not is an outage, never an answer, and
//! no connection to it is used again.
//!
//! SQLite has no replicas. On PostgreSQL a database is made read-only, which its sessions notice when they begin; on MariaDB
//! a whole server is, at once, so these tests start one of their own.

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use latchkey::domain::id::{NodeId, Position, SessionId, UserId};
use latchkey::domain::session::EndReason;
use latchkey::domain::token::{KeyFingerprint, KeyId, TokenDigest};
use latchkey::domain::user::User;
use latchkey::host::{SystemEntropy, random};
use latchkey::store::coordination::Coordination as _;
use latchkey::store::sql::SqlStore;
use latchkey::store::{
    EndTarget, Ending, NewSession, SessionKey, Store as _, StoreError, UserChange, UserKey,
};

use super::samples::{NOW, add, add_user, hash, new_node, new_session, raw_login, register, stamp};
use crate::support::databases::{Engine, Raw, TestDatabase, on_each_server};
use crate::support::own_server::OwnServer;
use crate::support::waiting::eventually;

on_each_server![who_takes_no_writes_decides_nothing, a_connection_to_a_replica_is_not_used_again];

/// A database whose server can be made to take no writes.
struct Switch<'d> {
    db: &'d TestDatabase,
    raw: Raw,
}

impl<'d> Switch<'d> {
    async fn new(db: &'d TestDatabase) -> Self {
        // The account of the nodes may not make a server read-only, nor write to one that is.
        let raw = match db.engine() {
            Engine::Mariadb => Raw::try_connect(&db.url().replace("//latchkey@", "//operator@")).await,
            _ => Ok(db.raw().await),
        };
        Self { db, raw: raw.expect("the operator may connect") }
    }

    async fn takes_writes(&self, whether: bool) {
        if self.db.engine() == Engine::Mariadb {
            self.raw.run(&format!("SET GLOBAL read_only = {}", u8::from(!whether))).await;
            return;
        }
        let names = self.raw.rows("SELECT current_database()").await;
        let name: String = names[0].try_get_by_index(0).expect("a database has a name");
        let setting = if whether { "off" } else { "on" };
        self.raw.run(&format!("ALTER DATABASE {name} SET default_transaction_read_only = {setting}")).await;
    }
}

/// The database of the test: on MariaDB, one on a server of its own.
async fn with_own_server(db: &TestDatabase, test: impl AsyncFnOnce(&TestDatabase)) {
    if db.engine() == Engine::Mariadb {
        let server = OwnServer::start(Engine::Mariadb).await;
        test(&server.database().await).await;
    } else {
        test(db).await;
    }
}

type Decisions<'a> = Vec<(&'a str, LocalBoxFuture<'a, Result<(), StoreError>>)>;

/// All that is decided on without writing: what is there, and what is not.
fn decisions<'a>(store: &'a SqlStore, ada: &'a User, new: &'a NewSession) -> Decisions<'a> {
    fn done<'a, T>(
        answer: impl Future<Output = Result<T, StoreError>> + 'a,
    ) -> LocalBoxFuture<'a, Result<(), StoreError>> {
        answer.map(|answer| answer.map(drop)).boxed_local()
    }
    let nobody = UserId::mint(NOW, random(&SystemEntropy));
    let nothing = TokenDigest([0xdd; 16]);
    let no_session = SessionId::mint(NOW, random(&SystemEntropy));
    let end = move |target| done(store.end_sessions(target, EndReason::Revoked, stamp(NOW)));
    let together = async move {
        let one = Ending { target: EndTarget::Digest(nothing), reason: EndReason::Revoked };
        store.end_sessions_together(&[one, one], stamp(NOW)).await
    };
    let credentials_by_login = async move { store.credentials(UserKey::Login(&raw_login("nobody"))).await };
    let user_by_login = async move { store.user(UserKey::Login(&raw_login("nobody"))).await };
    let other_key = async move { register(store, &[(KeyId(1), KeyFingerprint([2; 16]))], NOW).await };
    let fill = async move { store.sessions_by_digest(&[new.digest, nothing]).await };
    let upgrade = async move { store.upgrade_password_hash(ada.id, &hash("other"), &hash("new")).await };
    vec![
        ("credentials", done(store.credentials(UserKey::Id(ada.id)))),
        ("credentials of nobody", done(credentials_by_login)),
        ("user", done(store.user(UserKey::Id(ada.id)))),
        ("user nobody", done(user_by_login)),
        ("session", done(store.session(SessionKey::Id(new.session.id)))),
        ("session by digest", done(store.session(SessionKey::Digest(new.digest)))),
        ("no session", done(store.session(SessionKey::Digest(nothing)))),
        ("sessions_by_digest", done(fill)),
        ("sessions_by_use", done(store.sessions_by_use(None, 10, NOW))),
        ("sessions_of_user", done(store.sessions_of_user(ada.id, None, 10, NOW))),
        ("sessions_of_user nobody", done(store.sessions_of_user(nobody, None, 10, NOW))),
        ("end_sessions of no session", end(EndTarget::Session(no_session))),
        ("end_sessions of nobody", end(EndTarget::User { user: nobody, except: None })),
        ("end_sessions_together", done(together)),
        ("update_user nobody", done(store.update_user(nobody, UserChange::default(), stamp(NOW)))),
        ("set_password of nobody", done(store.set_password(nobody, hash("x"), stamp(NOW)))),
        ("upgrade_password_hash", done(upgrade)),
        ("delete_user nobody", done(store.delete_user(nobody, stamp(NOW)))),
        ("register_token_keys", done(other_key)),
        ("purge_sessions", done(store.purge_sessions(NOW, 10))),
        ("nodes", done(store.nodes())),
        ("mark_evicting", done(store.mark_evicting(NodeId::mint(NOW, random(&SystemEntropy)), NOW))),
        ("truncate_log", done(store.truncate_log(NOW, 10))),
    ]
}

async fn who_takes_no_writes_decides_nothing(db: &TestDatabase) {
    with_own_server(db, async |db| {
        let store = db.open().await;
        let ada = add_user(&store, "ada").await;
        let new = new_session(&ada, NOW);
        add(&store, new.clone()).await;
        register(&store, &[(KeyId(1), KeyFingerprint([1; 16]))], NOW).await.expect("recorded");
        for (name, decision) in decisions(&store, &ada, &new) {
            decision.await.unwrap_or_else(|why| panic!("the control, {name}: {why}"));
        }
        store.close().await;

        let switch = Switch::new(db).await;
        switch.takes_writes(false).await;
        let store = db.open().await;
        for (name, decision) in decisions(&store, &ada, &new) {
            let answer = decision.await;
            let said = |why: &str| why.contains("takes no writes");
            assert!(matches!(&answer, Err(StoreError::Unavailable(why)) if said(why)), "{name}: {answer:?}");
        }

        switch.takes_writes(true).await;
        for (name, decision) in decisions(&store, &ada, &new) {
            decision.await.unwrap_or_else(|why| panic!("it takes writes again, {name}: {why}"));
        }
        store.close().await;
        switch.raw.close().await;
    })
    .await;
}

/// The sessions that the server holds for the store.
async fn sessions_of_server(raw: &Raw, engine: Engine) -> Vec<i64> {
    let others = if engine == Engine::Postgres {
        "SELECT pid::bigint FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    } else {
        "SELECT CAST(id AS SIGNED) FROM information_schema.processlist \
         WHERE db = DATABASE() AND id <> CONNECTION_ID()"
    };
    raw.rows(others).await.iter().map(|row| row.try_get_by_index(0).expect("a number")).collect()
}

/// After a switch-over a connection may still lead to the server that was the primary. A new one finds the one that is.
async fn a_connection_to_a_replica_is_not_used_again(db: &TestDatabase) {
    with_own_server(db, async |db| {
        let engine = db.engine();
        let switch = Switch::new(db).await;
        let writable = db.open().await;
        let ada = add_user(&writable, "ada").await;
        let node = new_node("a");
        writable.join(node.clone()).await.expect("joined");
        writable.close().await;
        switch.takes_writes(false).await;
        let store = db.open().await;
        let several =
            futures_util::future::join_all((0..6).map(|_| store.credentials(UserKey::Id(ada.id)))).await;
        assert!(several.iter().all(Result::is_err), "{several:?}");
        let polled = store.poll(node.id, Position::ZERO, 10).await.expect("a poll tells it");
        assert!(!polled.is_primary);
        let old = sessions_of_server(&switch.raw, engine).await;
        switch.takes_writes(true).await;

        // Not one answer is an outage now, whatever connection it would have come over.
        for _ in 0..12 {
            store.credentials(UserKey::Id(ada.id)).await.expect("a connection to the primary").expect("ada");
        }
        assert!(store.poll(node.id, Position::ZERO, 10).await.expect("an answer").is_primary);
        eventually("the old connections are closed", async || {
            let now = sessions_of_server(&switch.raw, engine).await;
            !now.iter().any(|id| old.contains(id))
        })
        .await;
        store.close().await;
        switch.raw.close().await;
    })
    .await;
}
