//! The deadline of a call, and what happens to the work of a client that left.

use std::sync::Arc;
use std::time::Duration;

use latchkey::grpc::proto::v1;
use latchkey::grpc::proto::v1::revoke_sessions_request::Target;
use prost::Message as _;
use tokio::sync::Semaphore;
use tonic::Code;

use super::every_rpc::{Call, every_rpc};
use crate::support::databases::{Engine, TestDatabase};
use crate::support::interposed_store::{Fault, shut_gate};
use crate::support::raw_call::{LOGIN, REVOKE, VALIDATE, call_with, framed, metric};
use crate::support::refusals::{assert_blames, assert_refused};
use crate::support::server::{PASSWORD, TestServer, log_in_request};
use crate::support::verdicts::question;
use crate::support::waiting::eventually;

#[tokio::test]
async fn a_passed_deadline_is_told_as_such_by_every_rpc() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let calls = every_rpc(&server).await;
    let (gate, fault) = shut_gate();
    server.faults.set("*", fault);
    for call in &calls {
        let answer = call_with(&server, &call.path(), &[("grpc-timeout", "5m")], framed(&call.request)).await;
        assert_refused(answer.outcome::<()>(), Code::DeadlineExceeded, "DEADLINE");
    }
    // What only waited was given up; what wrote was not, and is done now.
    server.faults.clear();
    gate.add_permits(Semaphore::MAX_PERMITS);
    let series = "grpc_server_handled_total{grpc_service=\"latchkey.v1.AuthService\",grpc_method=\"Login\",\
                  grpc_code=\"DeadlineExceeded\"}";
    assert_eq!(metric(&server, series).await, 1);
}

#[tokio::test]
async fn a_deadline_that_does_not_pass_changes_nothing() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_bare_user("ada").await;
    let token = server.open_session(&ada).await.session_token;
    let body = framed(&question(&token).encode_to_vec());
    for timeout in ["1H", "99999999H", "60M", "30S", "30000m", "30000000u"] {
        let answer = call_with(&server, VALIDATE, &[("grpc-timeout", timeout)], body.clone()).await;
        answer.outcome::<v1::ValidateSessionResponse>().expect(timeout);
    }
}

#[tokio::test]
async fn what_is_no_deadline_is_blamed() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    for timeout in ["", "5", "S", "123456789S", "-1S", "+1S", "1s", "1 S", "1.5S", "1SS", "0x1S"] {
        let answer = call_with(&server, LOGIN, &[("grpc-timeout", timeout)], framed(b"")).await;
        assert_blames(answer.outcome::<()>(), &["grpc-timeout"]);
    }
}

#[tokio::test]
async fn a_stream_ends_at_its_deadline_with_what_was_answered_before() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_bare_user("ada").await;
    let token = server.open_session(&ada).await.session_token;
    let asked = |token: &str| {
        let question = Some(question(token));
        framed(&v1::StreamValidateSessionsRequest { tag: 7, question }.encode_to_vec())
    };
    // The first question needs no database, the second one waits for it until the deadline passes.
    let (_gate, fault) = shut_gate();
    server.make_stale(&ada).await;
    server.faults.set("sessions_by_digest", fault);
    let path = "/latchkey.v1.AuthService/StreamValidateSessions";
    let body = [asked("no token"), asked(&token)].concat().into();
    let answer = call_with(&server, path, &[("grpc-timeout", "300m")], body).await;
    let first = v1::StreamValidateSessionsResponse::decode(answer.body.slice(5..)).expect("one answer");
    assert_eq!(first.tag, 7);
    assert_refused(answer.outcome::<()>(), Code::DeadlineExceeded, "DEADLINE");
}

#[tokio::test]
async fn a_write_whose_client_left_runs_to_its_end() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_bare_user("ada").await;
    let token = server.open_session(&ada).await.session_token;
    let (gate, fault) = shut_gate();
    server.faults.set("end_sessions_together", fault);
    let request = v1::RevokeSessionsRequest { target: Some(Target::SessionToken(token.clone())) };
    tokio::select! {
        answer = call_with(&server, REVOKE, &[], framed(&request.encode_to_vec())) => {
            panic!("answered before the write: {:?}", answer.status)
        }
        () = server.faults.asked_for("end_sessions_together", 1) => {}
    }
    let gone = "grpc_server_handled_total{grpc_service=\"latchkey.v1.AuthService\",\
                grpc_method=\"RevokeSessions\",grpc_code=\"Canceled\"}";
    eventually("the server sees the client leave", async || metric(&server, gone).await == 1).await;
    server.assert_good(&token).await;
    gate.add_permits(1);
    eventually("the write is done", async || server.validate(&token).await.is_err()).await;
    server.assert_dead(&token, "SESSION_REVOKED").await;
}

#[tokio::test]
async fn a_stop_waits_for_the_write_of_a_client_that_left() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_bare_user("ada").await;
    let token = server.open_session(&ada).await.session_token;
    let (gate, fault) = shut_gate();
    server.faults.set("end_sessions_together", fault);
    let target = Some(Target::SessionToken(token.clone()));
    let body = framed(&v1::RevokeSessionsRequest { target }.encode_to_vec());
    let timed_out = call_with(&server, REVOKE, &[("grpc-timeout", "300m")], body).await;
    assert_refused(timed_out.outcome::<()>(), Code::DeadlineExceeded, "DEADLINE");
    assert_eq!(server.faults.calls("end_sessions_together"), 1, "the write had begun");
    let opens = async { gate.add_permits(1) };
    let (server, ()) = tokio::join!(server.restart(&database), opens);
    server.assert_dead(&token, "SESSION_REVOKED").await;
}

#[tokio::test]
async fn a_sign_in_that_nobody_waits_for_any_more_is_not_hashed() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start_with(&database, |config| config.password.hash_threads = 1).await;
    server.add_user("ada").await;
    server.hashing.hold();
    let holds = server.add_user("bob");
    let leaves = async {
        server.hashing.reached().await;
        let waiting = call_with(
            &server,
            LOGIN,
            &[("grpc-timeout", "50m")],
            framed(&log_in_request("ada", PASSWORD).encode_to_vec()),
        );
        assert_refused(waiting.await.outcome::<()>(), Code::DeadlineExceeded, "DEADLINE");
        server.hashing.release();
    };
    tokio::join!(holds, leaves);
    server.log_in("ada").await;
    // Two new users and the sign-in that was waited for.
    assert_eq!(metric(&server, "latchkey_hash_runs_total").await, 3);
}

#[tokio::test]
async fn standard_services_keep_deadlines_too() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    // A watch never ends by itself.
    let path = "/grpc.health.v1.Health/Watch";
    let answer = call_with(&server, path, &[("grpc-timeout", "300m")], framed(b"")).await;
    assert_eq!(answer.status.code(), Code::DeadlineExceeded);
    assert!(!answer.body.is_empty(), "the state as of the beginning was told");
}

#[tokio::test]
async fn a_gate_that_is_never_opened_holds_nobody_else() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let calls = every_rpc(&server).await;
    let by_name = |name: &str| calls.iter().find(|call| call.name == name).expect(name);
    server.faults.set("user", Fault::Gate(Arc::new(Semaphore::new(0))));
    let held: Vec<&Call> = vec![by_name("AuthService/LoadUser"); 20];
    let all_held = futures_util::future::join_all(held.iter().map(|call| call.make(&server)));
    let others = async {
        server.faults.asked_for("user", 20).await;
        by_name("AuthService/ValidateSession").make(&server).await
    };
    tokio::select! {
        _ = all_held => panic!("the gate is shut"),
        outcome = others => assert_eq!(outcome, Ok(())),
    }
    tokio::time::timeout(Duration::from_secs(30), server.stop()).await.expect("a drain has a limit");
}
