//! A URL that lists several hosts: the one that takes writes is used, and found again after a fail-over, without a word to
//! the node.

use std::time::Duration;

use latchkey::host::{Clock as _, SystemClock};
use latchkey::store::coordination::{Coordination as _, Hint};
use latchkey::store::sql::{OpenError, SqlLimits, SqlStore};
use latchkey::store::{CreateUser, Store as _};
use tokio::net::TcpListener;

use super::samples::{new_node, new_user};
use crate::support::databases::{Engine, TestDatabase, on_each_server, url_of};
use crate::support::replicated_server::{ReplicatedServer, Replication};
use crate::support::tcp_proxy::TcpProxy;
use crate::support::waiting::{eventually, in_time};

on_each_server![
    the_host_that_takes_writes_is_used_and_found_again,
    a_host_that_does_not_answer_costs_a_moment,
];

async fn writes(store: &SqlStore, login: &str) -> bool {
    matches!(store.create_user(new_user(login)).await, Ok(CreateUser::Created(_)))
}

async fn open(url: &str) -> Result<SqlStore, OpenError> {
    SqlStore::open(&url_of(url), SqlLimits::default()).await
}

async fn the_host_that_takes_writes_is_used_and_found_again(db: &TestDatabase) {
    let mut pair = ReplicatedServer::start(db.engine(), Replication::Asynchronous).await;
    let own = pair.database().await;
    let both = open(&pair.both_hosts(&own)).await.expect("the primary is found behind its standby");
    assert!(writes(&both, "ada").await);
    let node = new_node("ada");
    let from = both.join(node.clone()).await.expect("it joins").position;
    both.poll(node.id, from, 1).await.expect("it follows");
    let is_postgres = db.engine() == Engine::Postgres;
    if is_postgres {
        let listening = in_time("the listener", both.hinted()).await;
        assert_eq!(listening.expect("it listens"), Hint::Listening);
        // The control: whoever asks for any host gets the first one, a standby.
        let any = open(&format!("{}?target_session_attrs=any", pair.both_hosts(&own))).await;
        let any = any.expect("a standby can be looked at");
        assert!(!writes(&any, "bob").await);
        any.close().await;
    }
    let alone = open(own.url()).await.expect("the primary alone");
    assert!(writes(&alone, "carol").await);
    pair.standby_catches_up().await;
    pair.primary.stop().await;
    assert!(!writes(&both, "nobody").await, "no host takes writes before the promotion");
    pair.promote_standby().await;
    let mut number = 0;
    eventually("the promoted standby takes writes", async || {
        number += 1;
        writes(&both, &format!("dave-{number}")).await
    })
    .await;
    // The connection of a node's own, and that of the pool, have both moved.
    assert!(both.nodes().await.is_ok());
    eventually("the follower's connection has moved", async || both.poll(node.id, from, 1).await.is_ok())
        .await;
    if is_postgres {
        let mut heard = Ok(Hint::Grown);
        eventually("it listens again", async || {
            heard = in_time("a hint", both.hinted()).await;
            matches!(heard, Ok(Hint::Listening))
        })
        .await;
    }
    // The control: one who knows the old primary only is lost.
    assert!(!writes(&alone, "erin").await);
}

/// A machine that is gone answers nothing, not even a refusal.
async fn a_host_that_does_not_answer_costs_a_moment(db: &TestDatabase) {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let silent = silent.local_addr().expect("an address");
    let (before, rest) = db.url().split_once('@').expect("an account");
    let (server, name) = rest.split_once('/').expect("a database");
    let proxy = TcpProxy::start(server.to_owned()).await;
    let begun = SystemClock.boottime();
    let store = open(&format!("{before}@{silent},{}/{name}", proxy.address)).await.expect("the other host");
    let opened = SystemClock.boottime().since(begun);
    assert!(writes(&store, "ada").await);
    // Which host is right is remembered: making all connections again asks the silent one no more.
    proxy.cut();
    let begun = SystemClock.boottime();
    eventually("it is found again", async || store.database_time().await.is_ok()).await;
    let again = SystemClock.boottime().since(begun);
    println!("{}: opened in {opened:?}, found again in {again:?}", db.engine());
    assert!(opened < Duration::from_secs(2) && again < Duration::from_secs(2), "{opened:?}, {again:?}");
    // The control: alone, the silent host is waited for until the time is up.
    let limits = SqlLimits { connect_timeout: Duration::from_millis(500), ..SqlLimits::default() };
    let alone = SqlStore::open(&url_of(&format!("{before}@{silent}/{name}")), limits).await;
    assert!(matches!(alone, Err(OpenError::Unreachable(_))));
}
