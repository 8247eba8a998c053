//! Tokens of keys that a node does not have: those that another node may know are never told to be no tokens of ours.

use std::sync::Arc;
use std::time::Duration;

use latchkey::domain::token::{KEY_LEN, KeyId, KeyRing, TokenKey};
use latchkey::grpc::proto::admin;
use latchkey::grpc::proto::admin::fleet_service_client::FleetServiceClient;
use latchkey::grpc::proto::v1::revoke_sessions_request::Target;
use tonic::{Code, Status};

use crate::support::databases::{Engine, TestDatabase, on_each_engine, on_each_server};
use crate::support::interposed_store::START;
use crate::support::refusals::{assert_blames, assert_refused, reason_of};
use crate::support::server::{TestServer, config};
use crate::support::waiting::eventually;

on_each_engine!(a_token_of_a_key_that_the_database_knows_may_be_good_elsewhere);
on_each_server!(a_node_signs_with_a_key_once_the_others_have_heard_of_it);

fn ring(numbers: &[u8]) -> KeyRing {
    let key = |number: &u8| TokenKey::new(KeyId(*number), [*number; KEY_LEN]);
    KeyRing::new(numbers.iter().map(key).collect()).expect("a ring")
}

async fn start(database: &TestDatabase, keys: &[u8]) -> TestServer {
    start_beside(database, keys, None).await
}

/// Starts by the clock of another server.
async fn start_beside(database: &TestDatabase, keys: &[u8], other: Option<&TestServer>) -> TestServer {
    let clock = other.map(|other| Arc::clone(&other.clock)).unwrap_or_default();
    let started = TestServer::try_start(database, &config(), clock, ring(keys)).await;
    started.unwrap_or_else(|why| panic!("the server does not start: {why}"))
}

fn lease_lost() -> (Code, String) {
    (Code::Unavailable, "LEASE_LOST".to_owned())
}

async fn forget(server: &TestServer, key: i32) -> Result<i64, Status> {
    let mut client = FleetServiceClient::new(server.channel().await);
    let request = admin::ForgetTokenKeyRequest { key_id: key };
    client.forget_token_key(request).await.map(|answer| answer.into_inner().position)
}

async fn a_token_of_a_key_that_the_database_knows_may_be_good_elsewhere(database: &TestDatabase) {
    let first = start(database, &[1]).await;
    let ada = first.add_bare_user("ada").await;
    let token = first.open_session(&ada).await.session_token;
    first.stop().await;

    let server = start(database, &[2]).await;
    let steps = server.faults.steps_of_calls();
    assert_eq!(server.verdict(&token).await, Err(lease_lost()));
    let log_out = || server.revoke(Target::SessionToken(token.clone()));
    assert_refused(log_out().await, Code::Unavailable, "LEASE_LOST");
    // The control: a key that nobody ever had.
    let forged = ring(&[3]).mint(START.plus(Duration::from_hours(1)), &[9; 32]).0.expose().to_owned();
    server.assert_dead(&forged, "SESSION_TOKEN_INVALID").await;
    assert_eq!(server.revoke(Target::SessionToken(forged)).await.expect("nothing to end").revoked_count, 0);
    assert_eq!(server.faults.steps_of_calls(), steps, "none of them costs a statement");
    // By its own word it is over.
    server.advance(Duration::from_hours(12)).await;
    server.assert_dead(&token, "SESSION_TOKEN_INVALID").await;
    assert_eq!(log_out().await.expect("over").revoked_count, 0);
}

#[tokio::test]
async fn a_key_that_no_node_has_any_more_is_forgotten() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let first = start(&database, &[1]).await;
    let ada = first.add_bare_user("ada").await;
    let token = first.open_session(&ada).await.session_token;
    assert_blames(forget(&first, 1).await, &["key_id"]);
    first.stop().await;
    let server = start(&database, &[2]).await;
    for out_of_bounds in [-1, 256] {
        assert_blames(forget(&server, out_of_bounds).await, &["key_id"]);
    }
    assert_eq!(server.verdict(&token).await, Err(lease_lost()));
    assert!(forget(&server, 1).await.expect("forgotten") > 0);
    assert_eq!(forget(&server, 1).await.expect("again"), 0);
    eventually("the node reads the keys again", async || {
        server.validate(&token).await.is_err_and(|refused| reason_of(&refused).1 == "SESSION_TOKEN_INVALID")
    })
    .await;
}

/// Two nodes that run beside each other: the second one brings a new key, and signs with it.
async fn a_node_signs_with_a_key_once_the_others_have_heard_of_it(database: &TestDatabase) {
    let old = start(database, &[1]).await;
    let new = start_beside(database, &[2, 1], Some(&old)).await;
    let ada = new.add_bare_user("ada").await;
    let token = new.open_session(&ada).await.session_token;
    // At once: who signs with a key has waited until every node has heard of it.
    assert_eq!(old.verdict(&token).await, Err(lease_lost()));
    new.assert_good(&token).await;
    old.stop().await;
    new.stop().await;
}
