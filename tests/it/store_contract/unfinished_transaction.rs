//! A connection whose transaction did not end by a COMMIT or ROLLBACK that was answered is closed, and never used again.

use std::time::Duration;

use latchkey::domain::session::EndReason;
use latchkey::domain::user::User;
use latchkey::store::sql::{SqlLimits, SqlStore};
use latchkey::store::{EndTarget, Store as _, StoreError, UpdateUser, UserChange};

use super::samples::{add_user, at, hash, raw_login, stamp};
use crate::support::databases::{Engine, Raw, TestDatabase, on_each_server, url_of};
use crate::support::tcp_proxy::{Network, TcpProxy};
use crate::support::waiting::eventually;

on_each_server![
    a_commit_without_an_answer_costs_its_connection,
    a_statement_without_an_answer_costs_its_connection,
    a_commit_that_is_refused_costs_its_connection,
    a_rollback_that_is_answered_costs_nothing,
];

/// A store of one connection, behind a network that the test holds.
struct Scene {
    proxy: TcpProxy,
    store: SqlStore,
    raw: Raw,
    engine: Engine,
    ada: User,
    first: Vec<i64>,
}

impl Scene {
    async fn open(db: &TestDatabase) -> Self {
        let (before, rest) = db.url().split_once('@').expect("an account");
        let (server, name) = rest.split_once('/').expect("a database");
        let proxy = TcpProxy::start(server.to_owned()).await;
        let limits = SqlLimits {
            connections_max: 1,
            statement_timeout: Duration::from_millis(500),
            ..SqlLimits::default()
        };
        let url = format!("{before}@{}/{name}", proxy.address);
        let store = SqlStore::open(&url_of(&url), limits).await.expect("it opens");
        let ada = add_user(&store, "ada").await;
        let (raw, engine) = (db.raw().await, db.engine());
        let mut scene = Self { proxy, store, raw, engine, ada, first: Vec::new() };
        // That which brought up the schema may still be on its way out.
        eventually("one connection", async || {
            scene.first = scene.connections().await;
            scene.first.len() == 1
        })
        .await;
        scene
    }

    /// The store's connections, as the server knows them.
    async fn connections(&self) -> Vec<i64> {
        let sql = match self.engine {
            Engine::Postgres => {
                "SELECT pid::bigint FROM pg_stat_activity \
                 WHERE application_name = 'latchkey' AND datname = current_database()"
            }
            _ => {
                "SELECT CAST(id AS SIGNED) FROM information_schema.processlist \
                 WHERE db = DATABASE() AND id <> CONNECTION_ID()"
            }
        };
        let rows = self.raw.rows(sql).await;
        rows.iter().map(|row| row.try_get_by_index(0).expect("a number")).collect()
    }

    async fn end_all(&self) -> Result<(), StoreError> {
        let target = EndTarget::User { user: self.ada.id, except: None };
        self.store.end_sessions(target, EndReason::Revoked, stamp(at(2))).await.map(drop)
    }

    /// Asserts that what follows is done on another connection, and that the first one is really closed.
    async fn goes_on_elsewhere(self) {
        eventually("a write is acknowledged", async || {
            self.store.set_password(self.ada.id, hash("next"), stamp(at(3))).await.is_ok()
        })
        .await;
        let now = self.connections().await;
        assert!(now.iter().any(|id| !self.first.contains(id)), "{now:?} after {:?}", self.first);
        eventually("the first connection is closed", async || {
            !self.connections().await.iter().any(|id| self.first.contains(id))
        })
        .await;
        self.raw.close().await;
        self.store.close().await;
    }
}

async fn a_commit_without_an_answer_costs_its_connection(db: &TestDatabase) {
    let scene = Scene::open(db).await;
    scene.proxy.set(Network::SlowFrom("COMMIT"));
    let answer = scene.end_all().await;
    scene.proxy.set(Network::Up);
    assert!(matches!(answer, Err(StoreError::OutcomeUnknown(_))), "{answer:?}");
    scene.goes_on_elsewhere().await;
}

async fn a_statement_without_an_answer_costs_its_connection(db: &TestDatabase) {
    let scene = Scene::open(db).await;
    scene.proxy.set(Network::SlowFrom("UPDATE"));
    let answer = scene.end_all().await;
    scene.proxy.set(Network::Up);
    assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
    scene.goes_on_elsewhere().await;
}

/// Only PostgreSQL can be made to refuse a COMMIT, by a constraint that is looked at last.
async fn a_commit_that_is_refused_costs_its_connection(db: &TestDatabase) {
    if db.engine() != Engine::Postgres {
        return;
    }
    let scene = Scene::open(db).await;
    for sql in [
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'refused'; END $$",
        "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON change_log DEFERRABLE INITIALLY DEFERRED \
         FOR EACH ROW EXECUTE FUNCTION refuse()",
    ] {
        scene.raw.run(sql).await;
    }
    let answer = scene.end_all().await;
    scene.raw.run("DROP TRIGGER refuse ON change_log").await;
    assert!(matches!(answer, Err(StoreError::OutcomeUnknown(_))), "{answer:?}");
    scene.goes_on_elsewhere().await;
}

/// The control: a connection is not closed without need.
async fn a_rollback_that_is_answered_costs_nothing(db: &TestDatabase) {
    let scene = Scene::open(db).await;
    let bob = add_user(&scene.store, "bob").await;
    let taken = UserChange { login: Some(raw_login("ada")), ..UserChange::default() };
    let answer = scene.store.update_user(bob.id, taken, stamp(at(2))).await;
    assert!(matches!(answer, Ok(UpdateUser::LoginTaken)), "{answer:?}");
    scene.end_all().await.expect("a commit");
    assert_eq!(scene.connections().await, scene.first);
    scene.raw.close().await;
    scene.store.close().await;
}
