//! Whether a node says that it answers: to gRPC health checks, to probes over HTTP, and in its metrics.

use std::time::Duration;

use latchkey::server::Drained;
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::support::databases::{Engine, TestDatabase};
use crate::support::interposed_store::Fault;
use crate::support::raw_call::{get, metric};
use crate::support::refusals::assert_refused;
use crate::support::server::{LEASE, TestServer};
use crate::support::waiting::{eventually, in_time};

const READY_NAMES: [&str; 4] = ["", "readiness", "latchkey.v1.AuthService", "latchkey.admin.v1.UserService"];

async fn check(server: &TestServer, service: &str) -> Result<ServingStatus, Code> {
    let mut client = HealthClient::new(server.channel().await);
    let answer = client.check(HealthCheckRequest { service: service.to_owned() }).await;
    answer.map(|answer| answer.into_inner().status()).map_err(|refused| refused.code())
}

#[tokio::test]
async fn a_node_that_answers_says_so_in_every_way() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    for name in READY_NAMES.into_iter().chain(["liveness"]) {
        assert_eq!(check(&server, name).await, Ok(ServingStatus::Serving), "{name:?}");
    }
    assert_eq!(check(&server, "somebody.Elses").await, Err(Code::NotFound));
    assert_eq!(get(&server, "/livez").await, (http::StatusCode::OK, "alive\n".to_owned()));
    assert_eq!(get(&server, "/readyz").await, (http::StatusCode::OK, "ready\n".to_owned()));
    assert_eq!(get(&server, "/").await.0, http::StatusCode::NOT_FOUND);
    assert_eq!(metric(&server, "latchkey_ready").await, 1);
}

#[tokio::test]
async fn a_service_that_is_switched_off_has_no_health() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start_with(&database, |config| config.grpc.admin = false).await;
    assert_eq!(check(&server, "latchkey.admin.v1.UserService").await, Err(Code::NotFound));
    assert_eq!(check(&server, "latchkey.v1.AuthService").await, Ok(ServingStatus::Serving));
}

#[tokio::test]
async fn a_node_without_its_database_is_alive_and_not_ready_until_it_is_back() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start_with(&database, |config| config.maintenance.poll_ms = 10).await;
    let mut client = HealthClient::new(server.channel().await);
    let request = HealthCheckRequest { service: "readiness".to_owned() };
    let mut watch = client.watch(request).await.expect("a watch").into_inner();
    let mut told = async || {
        let next = in_time("the next state", watch.message()).await;
        next.expect("a message").as_ref().map(HealthCheckResponse::status)
    };
    assert_eq!(told().await, Some(ServingStatus::Serving));

    let ada = server.add_bare_user("ada").await;
    let token = server.open_session(&ada).await.session_token;
    server.faults.set("poll", Fault::Unavailable);
    server.faults.asked_for("poll", server.faults.calls("poll") + 3).await;
    server.advance(LEASE.saturating_sub(Duration::from_millis(1))).await;
    server.assert_good(&token).await;
    server.advance(Duration::from_millis(1)).await;
    assert_refused(server.validate(&token).await, Code::Unavailable, "LEASE_LOST");
    assert_eq!(told().await, Some(ServingStatus::NotServing));
    for name in READY_NAMES {
        assert_eq!(check(&server, name).await, Ok(ServingStatus::NotServing), "{name:?}");
    }
    assert_eq!(check(&server, "liveness").await, Ok(ServingStatus::Serving));
    assert_eq!(get(&server, "/livez").await.0, http::StatusCode::OK);
    let (status, why) = get(&server, "/readyz").await;
    assert_eq!(status, http::StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(why, "not ready: no lease: the database does not answer, or says that this node may not\n");
    assert_eq!(metric(&server, "latchkey_ready").await, 0);

    server.faults.clear();
    assert_eq!(told().await, Some(ServingStatus::Serving));
    for name in READY_NAMES {
        assert_eq!(check(&server, name).await, Ok(ServingStatus::Serving), "{name:?}");
    }
    assert_eq!(get(&server, "/readyz").await.0, http::StatusCode::OK);
    server.shutdown.cancel();
    assert_eq!(told().await, Some(ServingStatus::NotServing), "whoever watches hears of the stop");
    drop(watch);
    assert_eq!(server.ended().await, Drained::Clean);
}

#[tokio::test]
async fn polls_that_fail_are_no_outage_while_the_lease_holds() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start_with(&database, |config| config.maintenance.poll_ms = 10).await;
    let ada = server.add_bare_user("ada").await;
    let token = server.open_session(&ada).await.session_token;
    server.faults.set("poll", Fault::Unavailable);
    server.faults.asked_for("poll", server.faults.calls("poll") + 5).await;
    assert_eq!(check(&server, "").await, Ok(ServingStatus::Serving));
    server.assert_good(&token).await;
}

#[tokio::test]
async fn a_node_that_stops_is_not_ready_while_it_still_answers() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start_with(&database, |config| config.shutdown.lame_duck_ms = 60_000).await;
    let ada = server.add_bare_user("ada").await;
    let token = server.open_session(&ada).await.session_token;
    server.shutdown.cancel();
    eventually("not ready", async || check(&server, "").await == Ok(ServingStatus::NotServing)).await;
    for name in READY_NAMES {
        assert_eq!(check(&server, name).await, Ok(ServingStatus::NotServing), "{name:?}");
    }
    assert_eq!(check(&server, "liveness").await, Ok(ServingStatus::Serving));
    let (status, why) = get(&server, "/readyz").await;
    assert_eq!((status, why.as_str()), (http::StatusCode::SERVICE_UNAVAILABLE, "not ready: stopping\n"));
    server.assert_good(&token).await;
    server.new_channel().await;
    // A database that comes back does not make it ready again.
    server.faults.set("poll", Fault::Unavailable);
    server.advance(LEASE).await;
    server.faults.clear();
    server.advance(LEASE).await;
    assert_eq!(check(&server, "").await, Ok(ServingStatus::NotServing));
    server.abort.cancel();
    server.ended().await;
}
