//! What each RPC says while the database does not answer, when the outcome of a write is lost, and when a row cannot be
//! read; and that everything is well again as soon as the database is.

use std::time::Duration;

use latchkey::grpc::proto::v1::revoke_sessions_request::Target;
use latchkey::grpc::proto::{admin, v1};
use tonic::Code;

use super::every_rpc::{Call, Refused, every_rpc};
use crate::support::databases::{Engine, TestDatabase};
use crate::support::interposed_store::{FAULT, Fault};
use crate::support::raw_call::metric;
use crate::support::refusals::assert_refused;
use crate::support::server::{OTHER_PASSWORD, PASSWORD, TestServer, log_in_request, new_user};
use crate::support::waiting::eventually;

/// Asserts that a call was refused in the words of the contract, and in no others.
#[track_caller]
fn assert_told(call: &Call, outcome: Result<(), Refused>, code: Code, reason: &str) {
    let refused = outcome.expect_err(call.name);
    assert_eq!((refused.code, refused.reason.as_str()), (code, reason), "{}", call.name);
    assert!(!refused.message.is_empty() && !refused.message.contains(FAULT), "{}: {refused:?}", call.name);
    if code == Code::Unavailable && call.says_when_to_retry() {
        assert!(refused.retry_delay.is_some_and(|delay| delay > Duration::ZERO), "{}", call.name);
    } else {
        assert_eq!(refused.retry_delay, None, "{}", call.name);
    }
}

#[tokio::test]
async fn an_outage_is_not_a_log_out() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let calls = every_rpc(&server).await;
    server.faults.set("*", Fault::Unavailable);
    for call in &calls {
        assert_told(call, call.make(&server).await, Code::Unavailable, "STORE_UNAVAILABLE");
    }
    server.faults.clear();
    for call in &calls {
        assert_eq!(call.make(&server).await, Ok(()), "{} after the outage", call.name);
    }
}

#[tokio::test]
async fn an_outage_at_the_write_changes_nothing() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let calls = every_rpc(&server).await;
    for call in calls.iter().filter(|call| call.write.is_some()) {
        server.faults.set(call.write.expect("it writes"), Fault::Unavailable);
        assert_told(call, call.make(&server).await, Code::Unavailable, "STORE_UNAVAILABLE");
        server.faults.clear();
        assert_eq!(call.make(&server).await, Ok(()), "{} after the outage", call.name);
    }
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_a_defect_without_details() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let calls = every_rpc(&server).await;
    server.faults.set("*", Fault::Corrupt);
    for call in &calls {
        assert_told(call, call.make(&server).await, Code::Internal, "INTERNAL");
    }
}

#[tokio::test]
async fn an_unknown_outcome_is_said_and_repeating_is_safe() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    for call in every_rpc(&server).await {
        let Some(write) = call.write else { continue };
        server.faults.set(write, Fault::OutcomeUnknown);
        assert_told(&call, call.make(&server).await, Code::Unavailable, "OUTCOME_UNKNOWN");
        server.faults.clear();
        // The write was done, as it happens. A repetition finds that out, and does no harm.
        let again = call.make(&server).await.map_err(|refused| refused.reason);
        let expected = match call.name {
            "UserService/DeleteUser" => Err("USER_NOT_FOUND".to_owned()),
            "UserService/CreateUser" | "UserService/ImportUsers" => Err("LOGIN_TAKEN".to_owned()),
            "AuthService/ChangePassword" => Err("INVALID_CREDENTIALS".to_owned()),
            "AuthService/Reauthenticate" => Err("SESSION_REVOKED".to_owned()),
            _ => Ok(()),
        };
        assert_eq!(again, expected, "{}", call.name);
    }
}

#[tokio::test]
async fn what_may_have_ended_is_not_said_to_be_good_when_it_did() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_user("ada").await;
    let token = server.open_session(&ada).await.session_token;
    server.faults.set("end_sessions_together", Fault::OutcomeUnknown);
    let outcome = server.revoke(Target::SessionToken(token.clone())).await;
    assert_refused(outcome, Code::Unavailable, "OUTCOME_UNKNOWN");
    server.assert_dead(&token, "SESSION_REVOKED").await;
    server.faults.clear();
    assert_eq!(server.log_out(&token).await.revoked_count, 0);

    let token = server.open_session(&ada).await.session_token;
    server.faults.set("set_password", Fault::OutcomeUnknown);
    let (user_id, password) = (ada.user_id.clone(), OTHER_PASSWORD.to_owned());
    let request = admin::SetPasswordRequest { user_id, password };
    let outcome = server.users().await.set_password(request.clone()).await;
    assert_refused(outcome, Code::Unavailable, "OUTCOME_UNKNOWN");
    server.assert_dead(&token, "CREDENTIALS_CHANGED").await;
    server.faults.clear();
    server.users().await.set_password(request).await.expect("repeated");
    server.auth().await.login(log_in_request("ada", OTHER_PASSWORD)).await.expect("the new password");
}

#[tokio::test]
async fn what_was_ended_here_without_an_answer_is_ended_in_the_database_in_the_end() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_user("ada").await;
    let token = server.open_session(&ada).await.session_token;
    let siblings = [server.open_session(&ada).await, server.open_session(&ada).await];
    server.faults.set_in_turn("end_sessions_together", [Fault::UndoneUnknown, Fault::Unavailable]);
    server.faults.set("set_password", Fault::UndoneUnknown);
    let outcome = server.revoke(Target::SessionToken(token.clone())).await;
    assert_refused(outcome, Code::Unavailable, "OUTCOME_UNKNOWN");
    let request =
        admin::SetPasswordRequest { user_id: ada.user_id.clone(), password: OTHER_PASSWORD.to_owned() };
    let outcome = server.users().await.set_password(request).await;
    assert_refused(outcome, Code::Unavailable, "OUTCOME_UNKNOWN");
    eventually("the node tries, in vain", async || server.faults.calls("end_sessions_together") > 1).await;
    assert_eq!(server.sessions(&ada.user_id).await.len(), 3, "nothing was ended in the database");
    assert_eq!(metric(&server, "latchkey_sessions_unsettled").await, 3);
    let after = server.open_session(&ada).await.session_token;

    server.faults.clear();
    eventually("it is ended there as well", async || {
        metric(&server, "latchkey_sessions_unsettled").await == 0
    })
    .await;
    let server = server.restart(&database).await;
    server.assert_dead(&token, "SESSION_REVOKED").await;
    for sibling in siblings {
        server.assert_dead(&sibling.session_token, "CREDENTIALS_CHANGED").await;
    }
    server.assert_good(&after).await;
}

#[tokio::test]
async fn a_sign_in_whose_outcome_is_unknown_leaves_a_session_that_nobody_holds() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_user("ada").await;
    server.faults.set("create_session", Fault::OutcomeUnknown);
    let outcome = server.auth().await.login(log_in_request("ada", PASSWORD)).await;
    assert_refused(outcome, Code::Unavailable, "OUTCOME_UNKNOWN");
    assert_eq!(server.sessions(&ada.user_id).await.len(), 1, "it is listed, and can be ended");
}

#[tokio::test]
async fn repeating_the_creation_of_a_user_with_an_id_never_makes_two() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let id = "67e55044-10b1-426f-9247-bb680e5fe0c8";
    let request = admin::CreateUserRequest { user_id: id.to_owned(), ..new_user("ada", "") };
    server.faults.set("create_user", Fault::OutcomeUnknown);
    let outcome = server.users().await.create_user(request.clone()).await;
    assert_refused(outcome, Code::Unavailable, "OUTCOME_UNKNOWN");
    server.faults.clear();
    let outcome = server.users().await.create_user(request).await;
    assert_refused(outcome, Code::AlreadyExists, "USER_ID_TAKEN");
    assert_eq!(server.first_page_of_users(0).await.users.len(), 1);
}

#[tokio::test]
async fn what_is_not_asked_of_the_database_is_answered_during_an_outage() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_bare_user("ada").await;
    let request = v1::CreateSessionRequest {
        lifetime: Some(crate::support::server::span(1, 0)),
        ..crate::support::server::open_request(&ada)
    };
    let short = server.create_session(request).await.session_token;
    server.advance(Duration::from_secs(1)).await;
    server.faults.set("*", Fault::Unavailable);
    server.assert_dead("no token of ours", "SESSION_TOKEN_INVALID").await;
    server.assert_dead(&short, "SESSION_EXPIRED").await;
}
