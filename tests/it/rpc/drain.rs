//! The end of a node: whatever its clients hold open, it ends cleanly, and whatever its database does, it ends in time.

use std::time::Duration;

use latchkey::grpc::proto::v1;
use latchkey::grpc::proto::v1::revoke_sessions_request::Target;
use latchkey::server::Drained;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;

use crate::support::databases::{Engine, TestDatabase};
use crate::support::interposed_store::{Fault, shut_gate};
use crate::support::refusals::assert_refused;
use crate::support::server::{TestServer, config, key_ring};
use crate::support::verdicts::{question, verdict_of};
use crate::support::waiting::{eventually, in_time};

/// Far more than the second that a node gives its last writes, far less than they would wait for.
const SOON: Duration = Duration::from_secs(10);

fn asked(tag: u64, token: &str) -> v1::StreamValidateSessionsRequest {
    v1::StreamValidateSessionsRequest { tag, question: Some(question(token)) }
}

/// Waits until the node takes no new connection, which is when it ends its streams.
async fn stops_listening(server: &TestServer) {
    eventually("no new connection", async || TcpStream::connect(server.address).await.is_err()).await;
}

#[tokio::test]
async fn an_idle_stream_of_questions_ends_well_and_does_not_hold_the_drain() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let (ask, questions) = mpsc::channel(1);
    let opened = server.auth().await.stream_validate_sessions(ReceiverStream::new(questions)).await;
    let mut answers = opened.expect("a stream").into_inner();
    ask.send(asked(1, "no token")).await.expect("the stream is open");
    assert_eq!(answers.message().await.expect("an answer").expect("an answer").tag, 1);
    assert_eq!(server.stop().await, Drained::Clean);
    assert_eq!(answers.message().await.expect("a good end"), None);
}

#[tokio::test]
async fn answers_in_flight_arrive_before_the_stream_ends() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_bare_user("ada").await;
    let token = server.open_session(&ada).await.session_token;
    let (ask, questions) = mpsc::channel(2);
    let opened = server.auth().await.stream_validate_sessions(ReceiverStream::new(questions)).await;
    let mut answers = opened.expect("a stream").into_inner();
    let (gate, fault) = shut_gate();
    server.make_stale(&ada).await;
    server.faults.set("sessions_by_digest", fault);
    for tag in [1, 2] {
        ask.send(asked(tag, &token)).await.expect("the stream is open");
    }
    server.faults.asked_for("sessions_by_digest", 1).await;
    server.shutdown.cancel();
    stops_listening(&server).await;
    gate.add_permits(1);
    for tag in [1, 2] {
        let answer = answers.message().await.expect("an answer").expect("an answer");
        assert_eq!(answer.tag, tag);
        verdict_of(answer).expect("the session is good");
    }
    assert_eq!(answers.message().await.expect("a good end"), None);
    assert_eq!(server.ended().await, Drained::Clean);
}

#[tokio::test]
async fn a_watcher_of_health_is_told_and_then_let_go() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let mut client = HealthClient::new(server.channel().await);
    for name in ["", "liveness"] {
        client.check(HealthCheckRequest { service: name.to_owned() }).await.expect("it is known");
    }
    let watched = client.watch(HealthCheckRequest { service: String::new() }).await;
    let mut statuses = watched.expect("a watch").into_inner();
    let mut last = ServingStatus::Unknown;
    while last != ServingStatus::Serving {
        last = statuses.message().await.expect("a status").expect("a status").status();
    }
    let alive = client.watch(HealthCheckRequest { service: "liveness".to_owned() }).await;
    let mut alive = alive.expect("a watch").into_inner();
    assert_eq!(server.stop().await, Drained::Clean);
    let status = statuses.message().await.expect("a status").expect("a status").status();
    assert_eq!(status, ServingStatus::NotServing);
    assert_eq!(statuses.message().await.expect("a good end"), None);
    while alive.message().await.expect("a good end").is_some() {}
}

#[tokio::test]
async fn an_open_reflection_stream_is_let_go() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let (ask, questions) = mpsc::channel(1);
    let mut client = ServerReflectionClient::new(server.channel().await);
    let opened = client.server_reflection_info(ReceiverStream::new(questions)).await;
    let mut answers = opened.expect("a stream").into_inner();
    let list = MessageRequest::ListServices(String::new());
    let question = ServerReflectionRequest { host: String::new(), message_request: Some(list) };
    ask.send(question).await.expect("the stream is open");
    answers.message().await.expect("an answer").expect("an answer");
    assert_eq!(server.stop().await, Drained::Clean);
    assert!(answers.message().await.expect("a good end").is_none());
}

/// A node with a last use to write and a database that takes it for ever.
async fn with_a_last_use_that_cannot_be_written(database: &TestDatabase, drain_ms: u64) -> TestServer {
    let server = TestServer::start_with(database, |config| {
        config.shutdown.drain_ms = drain_ms;
        config.maintenance.last_seen_flush_ms = 60_000;
    })
    .await;
    let ada = server.add_bare_user("ada").await;
    let token = server.open_session(&ada).await.session_token;
    server.advance(Duration::from_secs(1)).await;
    server.validate(&token).await.expect("good");
    let (_, fault) = shut_gate();
    server.faults.set("touch_sessions", fault);
    server.shutdown.cancel();
    server.faults.asked_for("touch_sessions", 1).await;
    server
}

#[tokio::test]
async fn a_database_that_hangs_does_not_hold_the_end() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = with_a_last_use_that_cannot_be_written(&database, 100).await;
    let ended = tokio::time::timeout(SOON, server.ended()).await;
    assert_eq!(ended.expect("it ends in time"), Drained::Clean, "every call was answered");
}

#[tokio::test]
async fn told_once_more_a_node_does_not_wait_for_the_database() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = with_a_last_use_that_cannot_be_written(&database, 600_000).await;
    server.abort.cancel();
    in_time("the end of the node", server.ended()).await;
}

/// What a log-out left in doubt. Memory says that it happened; the database never took it.
async fn with_an_end_in_doubt(database: &TestDatabase) -> (TestServer, String) {
    let server = TestServer::start_with(database, |config| config.shutdown.drain_ms = 3_000).await;
    let ada = server.add_bare_user("ada").await;
    let token = server.open_session(&ada).await.session_token;
    server.faults.set("end_sessions_together", Fault::UndoneUnknown);
    let refused = server.revoke(Target::SessionToken(token.clone())).await;
    assert_refused(refused, Code::Unavailable, "OUTCOME_UNKNOWN");
    server.assert_dead(&token, "SESSION_REVOKED").await;
    (server, token)
}

#[tokio::test]
async fn what_is_in_doubt_is_settled_before_the_end() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let (server, token) = with_an_end_in_doubt(&database).await;
    server.shutdown.cancel();
    stops_listening(&server).await;
    server.faults.clear();
    let clock = std::sync::Arc::clone(&server.clock);
    assert_eq!(server.ended().await, Drained::Clean);
    let server = TestServer::try_start(&database, &config(), clock, key_ring()).await;
    let server = server.unwrap_or_else(|why| panic!("{why}"));
    server.assert_dead(&token, "SESSION_REVOKED").await;
}

/// What the process cannot settle it does not promise beyond its end, and it does not wait for ever.
#[tokio::test]
async fn what_cannot_be_settled_ends_with_the_process() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let (server, token) = with_an_end_in_doubt(&database).await;
    let clock = std::sync::Arc::clone(&server.clock);
    assert_eq!(server.stop().await, Drained::CutOff);
    let server = TestServer::try_start(&database, &config(), clock, key_ring()).await;
    let server = server.unwrap_or_else(|why| panic!("{why}"));
    server.assert_good(&token).await;
}
