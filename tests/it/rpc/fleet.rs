//! The fleet as an operator sees it, and what a call is told of memory: leases, reads that were overtaken, a log begun anew.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use latchkey::domain::id::{Nonce, Position};
use latchkey::grpc::proto::admin;
use latchkey::grpc::proto::admin::fleet_service_client::FleetServiceClient;
use latchkey::grpc::proto::v1;
use latchkey::grpc::proto::v1::revoke_sessions_request::Target;
use latchkey::store::coordination::Coordination as _;
use latchkey::store::{Stamp, Store as _};
use tokio::sync::Semaphore;
use tonic::Code;

use crate::support::databases::{Engine, TestDatabase, on_each_engine};
use crate::support::interposed_store::{Fault, START, shut_gate};
use crate::support::raw_call::metric;
use crate::support::refusals::{assert_blames, assert_refused};
use crate::support::server::{LEASE, TestServer, config, forgetful, key_ring};
use crate::support::verdicts::{question, verdict_of};
use crate::support::waiting::eventually;

/// How many questions, and how many endings, have come in.
const STARTED_VALIDATIONS: &str = "grpc_server_started_total{grpc_service=\"latchkey.v1.AuthService\",\
     grpc_method=\"ValidateSession\"}";
const STARTED_ENDINGS: &str = "grpc_server_started_total{grpc_service=\"latchkey.v1.AuthService\",\
     grpc_method=\"RevokeSessions\"}";

on_each_engine!(
    a_node_is_listed_with_its_position,
    a_log_begun_anew_ends_everything_and_the_node_goes_on,
    a_log_row_that_lacks_a_field_fails_closed
);

/// The nodes as an operator sees them.
pub async fn nodes(server: &TestServer, request: admin::ListNodesRequest) -> admin::ListNodesResponse {
    let mut client = FleetServiceClient::new(server.channel().await);
    client.list_nodes(request).await.expect("an answer").into_inner()
}

async fn a_node_is_listed_with_its_position(db: &TestDatabase) {
    let server = TestServer::start(db).await;
    let ada = server.add_bare_user("ada").await;
    let token = server.open_session(&ada).await.session_token;
    server.log_out(&token).await;
    eventually("the end is acknowledged", async || {
        server.fleet.nudge();
        nodes(&server, admin::ListNodesRequest::default()).await.nodes[0].applied_position == 1
    })
    .await;
    let listed = nodes(&server, admin::ListNodesRequest::default()).await;
    let [node] = listed.nodes.as_slice() else { panic!("one node: {listed:?}") };
    assert_eq!((listed.answering_node_id.as_str(), listed.head_position), (node.node_id.as_str(), 1));
    assert_eq!(node.state(), admin::NodeState::Live);
    assert!(node.name.ends_with("/127.0.0.1:0") && node.evict_time.is_none(), "{node:?}");
    let lease = listed.lease_duration.expect("a lease");
    assert_eq!(Duration::try_from(lease), Ok(LEASE));
    let left = Duration::try_from(listed.lease_left_duration.expect("a lease")).expect("a span");
    assert!(left > Duration::ZERO && left <= LEASE, "{left:?}");
    // A node that stops leaves no row behind.
    let store = Arc::clone(&server.store);
    server.shutdown.cancel();
    eventually("the node left", async || store.nodes().await.is_ok_and(|roster| roster.nodes.is_empty()))
        .await;
    server.ended().await;
}

#[tokio::test]
async fn a_list_of_nodes_is_paged_and_bounded() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let first = nodes(&server, admin::ListNodesRequest { page_size: 1, page_token: String::new() }).await;
    assert_eq!((first.nodes.len(), first.next_page_token.as_str()), (1, ""));
    let mut client = FleetServiceClient::new(server.channel().await);
    let bad = admin::ListNodesRequest { page_size: -1, page_token: "x".to_owned() };
    assert_blames(client.list_nodes(bad).await, &["page_size", "page_token"]);
}

async fn a_log_begun_anew_ends_everything_and_the_node_goes_on(db: &TestDatabase) {
    let server = TestServer::start(db).await;
    let ada = server.add_user("ada").await;
    let token = server.open_session(&ada).await.session_token;
    server.assert_good(&token).await;
    let joins = server.fleet.stats().starts;
    let mut client = FleetServiceClient::new(server.channel().await);
    let begun = client.start_new_log(admin::StartNewLogRequest {}).await.expect("begun").into_inner();
    assert_eq!(begun.position, 1);
    eventually("the node joins anew", async || {
        server.fleet.nudge();
        server.fleet.stats().starts > joins && server.fleet.is_leased()
    })
    .await;
    server.assert_dead(&token, "SESSION_REVOKED").await;
    let after = server.open_session(&ada).await.session_token;
    server.assert_good(&after).await;
}

/// A node that passed over such a row would acknowledge an end that is in force nowhere.
async fn a_log_row_that_lacks_a_field_fails_closed(db: &TestDatabase) {
    let server = TestServer::start(db).await;
    let ada = server.add_bare_user("ada").await;
    let (ended, good) = (server.open_session(&ada).await, server.open_session(&ada).await.session_token);
    server.log_out(&ended.session_token).await;
    server.assert_good(&good).await;
    let raw = db.raw().await;
    raw.run("UPDATE change_log SET epoch = 1").await;
    eventually("the node gives its lease up", async || {
        server.fleet.nudge();
        !server.fleet.is_leased()
    })
    .await;
    assert_refused(server.validate(&good).await, Code::Unavailable, "LEASE_LOST");
    raw.run("UPDATE change_log SET epoch = NULL").await;
    raw.close().await;
    eventually("the node answers again", async || {
        server.fleet.nudge();
        server.fleet.is_leased()
    })
    .await;
    server.assert_good(&good).await;
    server.assert_dead(&ended.session_token, "SESSION_REVOKED").await;
}

#[tokio::test]
async fn what_was_read_before_a_revocation_is_told_to_nobody_who_came_after_it() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let config = forgetful(config());
    let server = TestServer::try_start(&database, &config, Arc::default(), key_ring()).await;
    let server = server.unwrap_or_else(|why| panic!("{why}"));
    let ada = server.add_bare_user("ada").await;
    let asked = server.open_session(&ada).await;
    let (token, id) = (asked.session_token, asked.session.expect("a session").session_id);
    // Two more, and memory has no room for the first.
    server.open_session(&ada).await;
    server.open_session(&ada).await;
    let answered = Arc::new(Semaphore::new(0));
    server.faults.set("sessions_by_digest", Fault::GateBehind(Arc::clone(&answered)));
    let first = server.validate(&token);
    let then = async {
        server.faults.asked_for("sessions_by_digest", 1).await;
        server.revoke(Target::SessionId(id)).await.expect("it ends");
        let late = server.validate(&token);
        let opens = async {
            server.faults.clear();
            answered.add_permits(1);
        };
        tokio::join!(late, opens).0
    };
    let (_, late) = tokio::join!(first, then);
    assert_refused(late, Code::Unauthenticated, "SESSION_REVOKED");
    server.assert_dead(&token, "SESSION_REVOKED").await;
}

#[tokio::test]
async fn what_another_node_ended_is_over_here_with_the_next_poll() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_bare_user("ada").await;
    let (one, other) = (server.open_session(&ada).await, server.open_session(&ada).await);
    let id = other.session.expect("a session").session_id;
    // Past the node's memory, as another node does it.
    let stamp = Stamp { time: START, nonce: Nonce([9; 8]) };
    let user = latchkey::domain::id::UserId::parse(&ada.user_id).expect("an id");
    let except = latchkey::domain::id::SessionId::parse(&id).ok();
    let target = latchkey::store::EndTarget::User { user, except };
    let reason = latchkey::domain::session::EndReason::Revoked;
    let change = server.store.end_sessions(target, reason, stamp).await.expect("ended");
    assert_eq!(change.position, Position::from_i64(1));
    // To end it again is to wait until this node knows.
    assert_eq!(server.log_out(&one.session_token).await.revoked_count, 0);
    server.assert_dead(&one.session_token, "SESSION_REVOKED").await;
    server.assert_good(&other.session_token).await;
}

#[tokio::test]
async fn nothing_is_asked_of_the_database_for_what_memory_knows() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_bare_user("ada").await;
    let token = server.open_session(&ada).await.session_token;
    let ended = server.open_session(&ada).await.session_token;
    server.log_out(&ended).await;
    let before = server.faults.steps_of_calls();
    for _ in 0..100 {
        server.assert_good(&token).await;
        server.assert_dead(&ended, "SESSION_REVOKED").await;
        server.assert_dead("lk1_forged", "SESSION_TOKEN_INVALID").await;
        server.load_by_token(&token).await.expect("good");
    }
    assert_eq!(server.faults.steps_of_calls(), before);
    assert_eq!(metric(&server, "latchkey_fills_total").await, 0);
    eventually("what memory holds is told with the next poll", async || {
        server.fleet.nudge();
        metric(&server, "latchkey_sessions_in_memory").await == 1
    })
    .await;
}

#[tokio::test]
async fn a_restart_finds_its_sessions_in_memory() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_bare_user("ada").await;
    let token = server.open_session(&ada).await.session_token;
    let server = server.restart(&database).await;
    server.assert_good(&token).await;
    assert_eq!(metric(&server, "latchkey_fills_total").await, 0);
}

#[tokio::test]
async fn an_unknown_token_is_asked_for_once() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let (token, _) = key_ring().mint(START.plus(Duration::from_hours(1)), &[5; 32]);
    for _ in 0..3 {
        server.assert_dead(token.expose(), "SESSION_TOKEN_INVALID").await;
    }
    assert_eq!(server.faults.calls("sessions_by_digest"), 1);
}

#[tokio::test]
async fn too_many_questions_for_the_database_are_refused_at_once() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start_with(&database, |config| config.fleet.fills_waiting_max = 1).await;
    let gate = Arc::new(Semaphore::new(0));
    server.faults.set("sessions_by_digest", Fault::Gate(Arc::clone(&gate)));
    let mint = |number| key_ring().mint(START.plus(Duration::from_hours(1)), &[number; 32]).0;
    let (one, other) = (mint(1), mint(2));
    let waits = server.validate(one.expose());
    let meanwhile = async {
        server.faults.asked_for("sessions_by_digest", 1).await;
        assert_refused(server.validate(other.expose()).await, Code::Unavailable, "STORE_UNAVAILABLE");
        gate.add_permits(1);
    };
    let (answer, ()) = tokio::join!(waits, meanwhile);
    assert_refused(answer, Code::Unauthenticated, "SESSION_TOKEN_INVALID");
}

#[tokio::test]
async fn what_is_missed_together_is_read_together() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_bare_user("ada").await;
    let mut tokens = Vec::new();
    for _ in 0..40 {
        tokens.push(server.open_session(&ada).await.session_token);
    }
    server.make_stale(&ada).await;
    let (gate, fault) = shut_gate();
    server.faults.set("sessions_by_digest", fault);
    // As many again ask for the same sessions.
    let questions = join_all(tokens.iter().chain(&tokens).map(|token| server.validate(token)));
    let opens = async {
        eventually("everybody asked", async || {
            metric(&server, STARTED_VALIDATIONS).await == u64::try_from(2 * tokens.len()).expect("few")
        })
        .await;
        gate.add_permits(Semaphore::MAX_PERMITS);
    };
    let (answers, ()) = tokio::join!(questions, opens);
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    let reads = server.faults.calls("sessions_by_digest");
    assert!(reads <= 10, "{reads} reads for 40 sessions that were asked for twice");
}

#[tokio::test]
async fn what_is_ended_together_is_committed_together() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_bare_user("ada").await;
    let mut tokens = Vec::new();
    for _ in 0..40 {
        tokens.push(server.open_session(&ada).await.session_token);
    }
    let (gate, fault) = shut_gate();
    server.faults.set_in_turn("end_sessions_together", [fault, Fault::Pass]);
    let first = server.log_out(&tokens[0]);
    let others = async {
        server.faults.asked_for("end_sessions_together", 1).await;
        join_all(tokens[1..].iter().map(|token| server.log_out(token))).await
    };
    let opens = async {
        eventually("everybody asked", async || metric(&server, STARTED_ENDINGS).await == 40).await;
        gate.add_permits(Semaphore::MAX_PERMITS);
    };
    let (first, mut answers, ()) = tokio::join!(first, others, opens);
    answers.push(first);
    let mut positions: Vec<_> = answers.iter().map(|answer| answer.position).collect();
    positions.sort_unstable();
    assert_eq!(positions, (1..=40).collect::<Vec<i64>>(), "each has its own row");
    assert!(answers.iter().all(|answer| answer.revoked_count == 1));
    let transactions = server.faults.calls("end_sessions_together");
    assert!(transactions <= 4, "{transactions} transactions for one log-out and 39 that waited for it");
    for token in &tokens {
        server.assert_dead(token, "SESSION_REVOKED").await;
    }
}

#[tokio::test]
async fn one_ending_that_cannot_be_read_fails_alone() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_bare_user("ada").await;
    let (one, two, three) = (
        server.open_session(&ada).await.session_token,
        server.open_session(&ada).await.session_token,
        server.open_session(&ada).await.session_token,
    );
    let (gate, fault) = shut_gate();
    // The first goes alone, the group of the other two fails, and then one of the two.
    let faults = [fault, Fault::Corrupt, Fault::Corrupt, Fault::Pass];
    server.faults.set_in_turn("end_sessions_together", faults);
    let target = |token: &str| Target::SessionToken(token.to_owned());
    let first = server.revoke(target(&one));
    let others = async {
        server.faults.asked_for("end_sessions_together", 1).await;
        tokio::join!(server.revoke(target(&two)), server.revoke(target(&three)))
    };
    let opens = async {
        server.faults.asked_for("end_sessions_together", 1).await;
        eventually("everybody asked", async || metric(&server, STARTED_ENDINGS).await == 3).await;
        gate.add_permits(1);
    };
    let (first, others, ()) = tokio::join!(first, others, opens);
    assert!(first.is_ok(), "it went before");
    assert_eq!([others.0, others.1].into_iter().filter(Result::is_err).count(), 1);
}

#[tokio::test]
async fn a_node_begins_with_all_sessions_in_memory_also_where_they_are_many() {
    // More than one page of those that a node reads when it starts.
    const USERS: usize = 22;
    const SESSIONS_EACH: usize = 50;
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let mut tokens = Vec::new();
    for number in 0..USERS {
        let user = server.add_bare_user(&format!("user{number}")).await;
        let opened = join_all((0..SESSIONS_EACH).map(|_| server.open_session(&user))).await;
        tokens.extend(opened.into_iter().map(|opened| opened.session_token));
    }
    let server = server.restart(&database).await;
    assert_eq!(server.faults.calls("sessions_by_use"), 3, "two pages, and one that is empty");
    let asked =
        |token: &String| v1::StreamValidateSessionsRequest { tag: 0, question: Some(question(token)) };
    let answers = server.ask_in_stream(tokens.iter().map(asked).collect()).await;
    assert_eq!(answers.len(), USERS * SESSIONS_EACH);
    for answer in answers {
        verdict_of(answer).expect("good");
    }
    assert_eq!(server.faults.calls("sessions_by_digest"), 0, "memory knew them all");
}
