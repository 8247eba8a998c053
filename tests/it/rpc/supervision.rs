//! Threads and tasks that panic are restarted; where that does not help the node says that it is not alive, and ends.

use std::net::SocketAddr;

use latchkey::grpc::proto::v1::revoke_sessions_request::Target;
use latchkey::server::Drained;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::support::databases::{Engine, TestDatabase};
use crate::support::interposed_store::{Fault, shut_gate};
use crate::support::plain_http::{get, metric};
use crate::support::server::TestServer;
use crate::support::waiting::eventually;

async fn restarts(http: SocketAddr, task: &str) -> u64 {
    let series = format!("latchkey_task_restarts_total{{task=\"{task}\"}}");
    metric(&http.to_string(), &series).await.unwrap_or(0)
}

async fn live(server: &TestServer) -> (u16, ServingStatus) {
    let request = HealthCheckRequest { service: "liveness".to_owned() };
    let answer = HealthClient::new(server.channel().await).check(request).await.expect("an answer");
    (get(&server.http_address.to_string(), "/livez").await.0, answer.into_inner().status())
}

#[tokio::test]
async fn a_follower_that_panics_begins_anew_and_what_was_over_stays_over() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_bare_user("ada").await;
    let (good, over) = (server.open_session(&ada).await, server.open_session(&ada).await);
    server.revoke(Target::SessionToken(over.session_token.clone())).await.expect("it is ended");
    let starts = server.fleet.stats().starts;
    server.faults.set("poll", Fault::Panic);
    eventually("the follower is restarted", async || {
        server.fleet.nudge();
        restarts(server.http_address, "follower").await > 0
    })
    .await;
    assert_eq!(live(&server).await, (200, ServingStatus::Serving), "it is being mended");
    server.faults.set("poll", Fault::Pass);
    eventually("the node answers again", async || server.fleet.is_leased()).await;
    assert!(server.fleet.stats().starts > starts, "it joined anew");
    server.assert_dead(&over.session_token, "SESSION_REVOKED").await;
    server.validate(&good.session_token).await.expect("it is good");
    server.revoke(Target::SessionToken(good.session_token.clone())).await.expect("it is ended");
    server.assert_dead(&good.session_token, "SESSION_REVOKED").await;
    assert_eq!(server.stop().await, Drained::Clean);
}

#[tokio::test]
async fn a_follower_that_panics_without_end_ends_the_node() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start_with(&database, |config| config.shutdown.lame_duck_ms = 600_000).await;
    server.faults.set("poll", Fault::Panic);
    eventually("it says that it is not alive", async || {
        server.fleet.nudge();
        live(&server).await == (503, ServingStatus::NotServing)
    })
    .await;
    assert_eq!(restarts(server.http_address, "follower").await, 5);
    server.abort.cancel();
    assert_eq!(server.ended().await, Drained::Failed("follower"));
}

#[tokio::test]
async fn upkeep_that_panics_is_restarted_and_ends_the_node_where_that_does_not_help() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    server.faults.set("nodes", Fault::Panic);
    eventually("a restart", async || restarts(server.http_address, "nodes-upkeep").await > 0).await;
    server.faults.set("nodes", Fault::Pass);
    let calls = server.faults.calls("nodes");
    eventually("it goes on", async || server.faults.calls("nodes") > calls + 1).await;
    assert_eq!(live(&server).await, (200, ServingStatus::Serving));
    server.faults.set("nodes", Fault::Panic);
    assert_eq!(server.ended().await, Drained::Failed("nodes-upkeep"));
}

#[tokio::test]
async fn a_database_that_does_not_answer_is_no_defect_of_the_node() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let (gate, fault) = shut_gate();
    server.faults.set("poll", fault);
    let turns = server.fleet.follower_turns();
    eventually("the follower turns without an answer", async || server.fleet.follower_turns() > turns + 2)
        .await;
    assert_eq!(live(&server).await, (200, ServingStatus::Serving));
    gate.add_permits(1_000);
}
