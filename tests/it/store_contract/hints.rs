//! Hints: on PostgreSQL one wakes whoever waits; elsewhere there are none, and nobody is disturbed.

use std::sync::Arc;

use futures_util::FutureExt as _;
use latchkey::store::StoreError;
use latchkey::store::coordination::{Coordination as _, Hint};
use latchkey::store::sql::{SqlLimits, SqlStore};
use tokio::task::JoinSet;

use crate::support::databases::{Engine, TestDatabase, on_each_engine, on_each_server, url_of};
use crate::support::tcp_proxy::TcpProxy;
use crate::support::waiting::{eventually, in_time};

on_each_engine![
    a_hint_wakes_all_who_wait,
    a_hint_is_kept_for_who_does_not_wait_just_then,
    a_connection_that_is_cut_is_told_and_replaced,
    closing_ends_the_wait,
    whoever_dies_waiting_holds_up_nobody,
];
on_each_server![a_connection_that_falls_silent_is_noticed_and_replaced];

const LISTENERS: &str = "SELECT COUNT(*) FROM pg_stat_activity \
     WHERE datname = current_database() AND query LIKE '%FROM pg_notify%' AND state = 'idle'";

/// Waits until the log is said to have grown; passes over new connections.
async fn grown(store: &SqlStore) -> Result<(), StoreError> {
    while store.hinted().await? != Hint::Grown {}
    Ok(())
}

/// Where there are no hints: giving one is no error, and waiting for one never ends.
async fn has_hints(db: &TestDatabase, store: &SqlStore) -> bool {
    if db.engine() == Engine::Postgres {
        return true;
    }
    let mut waiting = store.hinted();
    assert!(futures_util::poll!(&mut waiting).is_pending());
    store.hint().await.expect("no error");
    assert!(futures_util::poll!(&mut waiting).is_pending());
    false
}

/// Waits until so many connections listen.
async fn listening(db: &TestDatabase, count: i64) {
    let raw = db.raw().await;
    eventually("somebody listens", async || raw.number(LISTENERS).await == count).await;
    raw.close().await;
}

async fn a_hint_wakes_all_who_wait(db: &TestDatabase) {
    let store = Arc::new(db.open().await);
    if !has_hints(db, &store).await {
        return;
    }
    let stores = [Arc::clone(&store), Arc::new(db.open().await)];
    for _ in 0..5 {
        let mut waiting = JoinSet::new();
        for store in stores.clone() {
            waiting.spawn(async move { grown(&store).await });
        }
        listening(db, 2).await;
        store.hint().await.expect("given");
        for heard in in_time("both hear it", waiting.join_all()).await {
            heard.expect("a hint");
        }
    }
}

async fn a_hint_is_kept_for_who_does_not_wait_just_then(db: &TestDatabase) {
    let store = db.open().await;
    if !has_hints(db, &store).await {
        return;
    }
    // Waits that are given up, as a follower gives them up whenever it is time to poll; also half-way to a connection.
    let listens = async || {
        let raw = db.raw().await;
        let count = raw.number(LISTENERS).await;
        raw.close().await;
        count == 1
    };
    while !listens().await {
        assert!(grown(&store).now_or_never().is_none());
    }
    for _ in 0..5 {
        assert!(grown(&store).now_or_never().is_none(), "nobody gave a hint");
        store.hint().await.expect("given");
        in_time("the hint", grown(&store)).await.expect("a hint");
    }
    listening(db, 1).await;
}

async fn a_connection_that_is_cut_is_told_and_replaced(db: &TestDatabase) {
    let store = Arc::new(db.open().await);
    if !has_hints(db, &store).await {
        return;
    }
    for _ in 0..3 {
        let mut waiting = JoinSet::new();
        let waiter = Arc::clone(&store);
        waiting.spawn(async move { grown(&waiter).await });
        listening(db, 1).await;
        let raw = db.raw().await;
        let cut = LISTENERS.replace("COUNT(*)", "pg_terminate_backend(pid)");
        assert_eq!(raw.rows(&cut).await.len(), 1);
        raw.close().await;
        let heard = in_time("the end of the connection", waiting.join_all()).await;
        assert!(matches!(heard[0], Err(StoreError::Unavailable(_))), "{heard:?}");
    }
    let mut waiting = JoinSet::new();
    let waiter = Arc::clone(&store);
    waiting.spawn(async move { grown(&waiter).await });
    listening(db, 1).await;
    store.hint().await.expect("given");
    in_time("the hint", waiting.join_all()).await.pop().expect("an answer").expect("a hint");
}

async fn closing_ends_the_wait(db: &TestDatabase) {
    let store = Arc::new(db.open().await);
    if !has_hints(db, &store).await {
        return;
    }
    let mut waiting = JoinSet::new();
    let waiter = Arc::clone(&store);
    waiting.spawn(async move { grown(&waiter).await });
    listening(db, 1).await;
    in_time("closing", store.close()).await;
    let heard = in_time("the refusal", waiting.join_all()).await;
    assert!(matches!(heard[0], Err(StoreError::Unavailable(_))), "{heard:?}");
    assert!(store.hinted().await.is_err());
    listening(db, 0).await;
}

async fn whoever_dies_waiting_holds_up_nobody(db: &TestDatabase) {
    let store = Arc::new(db.open().await);
    if !has_hints(db, &store).await {
        return;
    }
    let waiter = Arc::clone(&store);
    let following = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let brief = std::time::Duration::from_millis(100);
            let _ = tokio::time::timeout(brief, waiter.hinted()).await;
        });
        drop(runtime);
        // Here is no runtime: what the store holds must not need one to go away.
        drop(waiter);
    });
    following.join().expect("the follower does not panic");
    in_time("closing", store.close()).await;
}

async fn a_connection_that_falls_silent_is_noticed_and_replaced(db: &TestDatabase) {
    let (before, rest) = db.url().split_once('@').expect("an account");
    let (server, name) = rest.split_once('/').expect("a database");
    let proxy = TcpProxy::start(server.to_owned()).await;
    let url = format!("{before}@{}/{name}", proxy.address);
    let listens = SqlStore::open(&url_of(&url), SqlLimits::default()).await.expect("a database");
    let writes = db.open().await;
    if !has_hints(db, &listens).await {
        return;
    }
    assert_eq!(in_time("a connection", listens.hinted()).await.expect("it listens"), Hint::Listening);
    writes.hint().await.expect("given");
    assert_eq!(in_time("the hint", listens.hinted()).await.expect("it listens"), Hint::Grown);

    // Hints are lost now. Only that one connection is silent: questions are answered.
    proxy.silence_listeners();
    writes.hint().await.expect("given");
    listens.nodes().await.expect("an answer");
    let heard = in_time("the silence", listens.hinted()).await;
    assert!(matches!(heard, Err(StoreError::Unavailable(_))), "{heard:?}");

    assert_eq!(in_time("a new connection", listens.hinted()).await.expect("it listens"), Hint::Listening);
    writes.hint().await.expect("given");
    assert_eq!(in_time("the hint", listens.hinted()).await.expect("it listens"), Hint::Grown);
    in_time("closing", listens.close()).await;
}
