//! What keeps a lease alive has a connection of its own: no crowd of callers gets in its way, it may live in another
//! runtime than the rest, and whatever becomes of it, the next poll has another one.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use latchkey::domain::id::Position;
use latchkey::store::coordination::{AckCommit, Coordination as _, NodeState};
use latchkey::store::sql::{SqlLimits, SqlStore};
use latchkey::store::{Store as _, UserKey};

use super::samples::{add_user, new_node, write_rows};
use crate::support::databases::{Engine, TestDatabase, on_each_engine, on_each_server, url_of};
use crate::support::waiting::{eventually, in_time};

on_each_engine![
    a_runtime_of_its_own_may_poll_and_go_away,
    a_database_in_memory_does_it_all_on_its_one_connection,
    who_was_closed_is_refused,
    a_node_is_on_the_disk_before_it_holds_a_lease,
];
on_each_server![a_crowd_of_callers_keeps_nobody_from_polling, a_connection_that_is_cut_is_replaced];

/// Polls on a thread with a runtime that drives nothing else, as a follower does, and ends that runtime.
fn poll_elsewhere(store: &Arc<SqlStore>, node: latchkey::domain::id::NodeId) -> Option<NodeState> {
    let store = Arc::clone(store);
    let following = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            store.acknowledge(node, Position::ZERO, None, AckCommit::Quick).await.expect("acknowledged");
            store.poll(node, Position::ZERO, 10).await.expect("an answer").node
        })
    });
    following.join().expect("the follower does not panic")
}

async fn a_runtime_of_its_own_may_poll_and_go_away(db: &TestDatabase) {
    let (store, mut node) = (Arc::new(db.open().await), new_node("a"));
    // Whoever is first makes the connection; it outlives neither of these runtimes, and none of them misses it.
    for round in 0..3 {
        if round == 1 {
            // A transaction may find out in its midst that its connection is dead, and joining is done anew under another id.
            eventually("joined", async || {
                node = new_node("a");
                store.join(node.clone()).await.is_ok()
            })
            .await;
        }
        let state = poll_elsewhere(&store, node.id);
        assert_eq!(state, (round > 0).then_some(NodeState::Live), "round {round}");
    }
    in_time("leaving", store.leave(node.id))
        .await
        .expect("left, though the runtime of the connection is gone");
    assert_eq!(poll_elsewhere(&store, node.id), None);
    in_time("closing", store.close()).await;
}

async fn a_database_in_memory_does_it_all_on_its_one_connection(db: &TestDatabase) {
    if db.engine() != Engine::Sqlite {
        return;
    }
    let store = SqlStore::open(&url_of("sqlite::memory:"), SqlLimits::default()).await.expect("a database");
    let node = new_node("a");
    store.join(node.clone()).await.expect("joined");
    let ada = add_user(&store, "ada").await;
    let written = write_rows(&store, ada.id, 2).await;
    let polled = store.poll(node.id, Position::ZERO, 10).await.expect("an answer");
    assert_eq!((polled.node, polled.rows), (Some(NodeState::Live), written));
    store.acknowledge(node.id, polled.head, None, AckCommit::Quick).await.expect("acknowledged");
    store.leave(node.id).await.expect("left");
    in_time("closing", store.close()).await;
}

async fn who_was_closed_is_refused(db: &TestDatabase) {
    let (store, node) = (db.open().await, new_node("a"));
    store.join(node.clone()).await.expect("joined");
    store.close().await;
    assert!(store.poll(node.id, Position::ZERO, 10).await.is_err());
    assert!(store.acknowledge(node.id, Position::ZERO, None, AckCommit::Quick).await.is_err());
    assert!(store.nodes().await.is_err());
}

async fn a_crowd_of_callers_keeps_nobody_from_polling(db: &TestDatabase) {
    let few = SqlLimits { connections_max: 2, ..SqlLimits::default() };
    let store = SqlStore::open(&url_of(db.url()), few).await.expect("the store opens");
    let (ada, node) = (add_user(&store, "ada").await, new_node("a"));
    store.join(node.clone()).await.expect("joined");
    let raw = db.raw().await;
    raw.run(match db.engine() {
        Engine::Postgres => "BEGIN; LOCK TABLE users IN ACCESS EXCLUSIVE MODE",
        _ => "LOCK TABLES users WRITE",
    })
    .await;
    let crowd = join_all((0..8).map(|_| store.user(UserKey::Id(ada.id))));
    let polling = async {
        for _ in 0..20 {
            let polled = store.poll(node.id, Position::ZERO, 10).await.expect("nobody is in its way");
            assert_eq!(polled.node, Some(NodeState::Live));
            store
                .acknowledge(node.id, Position::ZERO, None, AckCommit::Quick)
                .await
                .expect("nobody is in its way");
        }
    };
    tokio::select! {
        biased;
        answers = crowd => panic!("the crowd was to wait: {answers:?}"),
        () = in_time("polling", polling) => {}
    }
    raw.close().await;
}

async fn a_connection_that_is_cut_is_replaced(db: &TestDatabase) {
    let (store, node) = (db.open().await, new_node("a"));
    store.join(node.clone()).await.expect("joined");
    for _ in 0..3 {
        let raw = db.raw().await;
        cut_all_others(db, &raw).await;
        raw.close().await;
        let polling = async {
            while store.poll(node.id, Position::ZERO, 10).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), polling).await.expect("a poll succeeds soon");
    }
}

/// Ends the connections of everybody else to this database.
async fn cut_all_others(db: &TestDatabase, raw: &crate::support::databases::Raw) {
    if db.engine() == Engine::Postgres {
        let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE datname = current_database() AND pid <> pg_backend_pid()";
        assert!(!raw.rows(cut).await.is_empty());
        return;
    }
    let others = "SELECT CAST(id AS SIGNED) FROM information_schema.processlist \
                  WHERE db = DATABASE() AND id <> CONNECTION_ID()";
    let others = raw.rows(others).await;
    assert!(!others.is_empty());
    for row in others {
        let id: i64 = row.try_get_by_index(0).expect("a number");
        // It may be gone by now.
        let _ = raw.try_run(&format!("KILL {id}")).await;
    }
}

/// PostgreSQL alone can be told not to wait for its disk, and is, for what keeps a lease alive. That a node is there is
/// another matter: were its row lost, nobody would wait for it.
async fn a_node_is_on_the_disk_before_it_holds_a_lease(db: &TestDatabase) {
    if db.engine() != Engine::Postgres {
        return;
    }
    let (store, raw, node) = (db.open().await, db.raw().await, new_node("a"));
    for statement in [
        "CREATE TABLE waits (what TEXT, waits TEXT)",
        "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO waits VALUES (TG_OP, current_setting('synchronous_commit')); RETURN NEW; END $$",
        "CREATE TRIGGER tell BEFORE INSERT OR UPDATE ON nodes FOR EACH ROW EXECUTE FUNCTION tell()",
    ] {
        raw.run(statement).await;
    }
    store.join(node.clone()).await.expect("joined");
    store.acknowledge(node.id, Position::ZERO, None, AckCommit::Quick).await.expect("acknowledged");
    let count = async |what: &str, waits: &str| {
        raw.number(&format!("SELECT COUNT(*) FROM waits WHERE what = '{what}' AND waits = '{waits}'")).await
    };
    assert_eq!((count("INSERT", "on").await, count("INSERT", "off").await), (1, 0));
    assert_eq!(
        count("UPDATE", "off").await,
        1,
        "what is acknowledged does not wait, or this test sees nothing"
    );
    raw.close().await;
    store.close().await;
}
