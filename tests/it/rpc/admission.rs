//! Who is let in at all: too many guesses, too much work, and services that may not call.

use std::time::Duration;

use latchkey::config::{ApiKeyDigest, Caller};
use latchkey::grpc::proto::{admin, v1};
use sha2::{Digest as _, Sha256};
use tonic::Code;

use super::every_rpc::{Refused, every_rpc};
use crate::support::databases::{Engine, TestDatabase};
use crate::support::raw_call::{LOGIN, call_with, framed, metric};
use crate::support::refusals::{assert_refused, retry_delay};
use crate::support::server::{
    OTHER_PASSWORD, PASSWORD, TestServer, device, log_in_request, new_user, open_request,
};

async fn log_in(server: &TestServer, login: &str, password: &str) -> Result<(), tonic::Status> {
    server.auth().await.login(log_in_request(login, password)).await.map(drop)
}

#[tokio::test]
async fn guesses_at_one_login_run_out_and_come_back_by_the_clock() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start_with(&database, |config| {
        config.throttle.login_burst = 3;
        config.throttle.login_per_minute = 6;
    })
    .await;
    let ada = server.add_user("ada").await;
    server.add_user("bob").await;
    let token = server.open_session(&ada).await.session_token;
    for login in ["ada", "ADA", "ａda"] {
        let outcome = log_in(&server, login, OTHER_PASSWORD).await;
        assert_refused(outcome, Code::Unauthenticated, "INVALID_CREDENTIALS");
    }
    let before = server.faults.calls("credentials");
    let status =
        assert_refused(log_in(&server, "ada", PASSWORD).await, Code::ResourceExhausted, "LOGIN_THROTTLED");
    assert_eq!(retry_delay(&status), Duration::from_secs(10));
    assert_eq!(server.faults.calls("credentials"), before, "nothing is done for it");

    // The same budget wherever the password is asked for; and nobody is signed out by a flood of guesses.
    let reauthenticate = v1::ReauthenticateRequest {
        session_token: token.clone(),
        password: PASSWORD.to_owned(),
        client: None,
    };
    let outcome = server.auth().await.reauthenticate(reauthenticate).await;
    assert_refused(outcome, Code::ResourceExhausted, "LOGIN_THROTTLED");
    for who in [
        v1::change_password_request::Who::Login("ada".to_owned()),
        v1::change_password_request::Who::SessionToken(token.clone()),
    ] {
        let change = v1::ChangePasswordRequest {
            who: Some(who),
            current_password: PASSWORD.to_owned(),
            new_password: OTHER_PASSWORD.to_owned(),
            client: None,
        };
        let outcome = server.auth().await.change_password(change).await;
        assert_refused(outcome, Code::ResourceExhausted, "LOGIN_THROTTLED");
    }
    server.assert_good(&token).await;
    log_in(&server, "bob", PASSWORD).await.expect("others are not affected");

    server.advance(Duration::from_secs(10)).await;
    log_in(&server, "ada", PASSWORD).await.expect("one attempt is back");
    assert_refused(log_in(&server, "ada", PASSWORD).await, Code::ResourceExhausted, "LOGIN_THROTTLED");
}

#[tokio::test]
async fn an_unknown_login_runs_out_like_a_known_one() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start_with(&database, |config| config.throttle.login_burst = 1).await;
    for _ in 0..2 {
        let _ = log_in(&server, "nobody", PASSWORD).await;
    }
    assert_refused(log_in(&server, "nobody", PASSWORD).await, Code::ResourceExhausted, "LOGIN_THROTTLED");
}

#[tokio::test]
async fn guesses_from_one_network_run_out_together() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start_with(&database, |config| config.throttle.address_burst = 2).await;
    server.add_user("ada").await;
    let from = async |ip: &str, login: &str| {
        let request =
            v1::LoginRequest { client: Some(device(ip, "", "")), ..log_in_request(login, PASSWORD) };
        server.auth().await.login(request).await.map(drop)
    };
    for (ip, login) in [("192.0.2.1", "a"), ("192.0.2.2", "b")] {
        assert_refused(from(ip, login).await, Code::Unauthenticated, "INVALID_CREDENTIALS");
    }
    let status = assert_refused(from("192.0.2.3", "ada").await, Code::ResourceExhausted, "LOGIN_THROTTLED");
    assert_eq!(retry_delay(&status), Duration::from_secs(1), "60 a minute");
    from("192.0.3.1", "ada").await.expect("another network");
    log_in(&server, "ada", PASSWORD).await.expect("a caller that does not say where from");
}

#[tokio::test]
async fn an_operator_can_switch_the_throttle_off() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start_with(&database, |config| {
        config.throttle.enabled = false;
        config.throttle.login_burst = 1;
    })
    .await;
    for _ in 0..3 {
        let outcome = log_in(&server, "nobody", PASSWORD).await;
        assert_refused(outcome, Code::Unauthenticated, "INVALID_CREDENTIALS");
    }
}

#[tokio::test]
async fn too_many_passwords_at_once_are_refused_at_once_and_the_rest_goes_on() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start_with(&database, |config| {
        config.password.hash_threads = 1;
        config.password.hash_queue_len_max = 1;
    })
    .await;
    let ada = server.add_user("ada").await;
    let token = server.open_session(&ada).await.session_token;
    server.hashing.hold();
    let busy = server.add_user("bob");
    let waits = async {
        server.hashing.reached().await;
        log_in(&server, "ada", PASSWORD).await
    };
    let refused = async {
        server.hashing.reached().await;
        server.faults.asked_for("credentials", 2).await;
        crate::support::waiting::eventually("one password waits", async || {
            metric(&server, "latchkey_hash_queue_length").await == 1
        })
        .await;
        let status =
            assert_refused(log_in(&server, "ada", PASSWORD).await, Code::ResourceExhausted, "OVERLOADED");
        assert!(retry_delay(&status) > Duration::ZERO);
        let (user_id, password) = (ada.user_id.clone(), PASSWORD.to_owned());
        let set = server.users().await.set_password(admin::SetPasswordRequest { user_id, password }).await;
        assert_refused(set, Code::ResourceExhausted, "OVERLOADED");
        let create = server.users().await.create_user(new_user("eve", PASSWORD)).await;
        assert_refused(create, Code::ResourceExhausted, "OVERLOADED");
        assert_eq!(metric(&server, "latchkey_hash_refused_total").await, 3);
        // Who is signed in already does not notice, and who needs no password can still sign in.
        server.assert_good(&token).await;
        server.create_session(open_request(&ada)).await;
        server.hashing.release();
    };
    let (_, waited, ()) = tokio::join!(busy, waits, refused);
    waited.expect("who waited is signed in");
    log_in(&server, "ada", PASSWORD).await.expect("there is room again");
}

fn caller(key: &str, allow: &[&str]) -> Caller {
    let key_sha256 = ApiKeyDigest(Sha256::digest(key).into());
    Caller { key_sha256, allow: allow.iter().map(|&one| one.to_owned()).collect() }
}

#[tokio::test]
async fn once_a_caller_is_configured_each_rpc_needs_its_key() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let open = TestServer::start(&database).await;
    let calls = every_rpc(&open).await;
    open.stop().await;
    let server = TestServer::start_with(&database, |config| {
        let all = [
            "latchkey.v1.AuthService/*",
            "latchkey.admin.v1.UserService/*",
            "latchkey.admin.v1.FleetService/*",
        ];
        config.callers.insert("all".to_owned(), caller("all-key", &all));
        config.callers.insert("none".to_owned(), caller("none-key", &[]));
    })
    .await;
    let before = server.faults.steps_of_calls();
    for call in &calls {
        for headers in [
            &[][..],
            &[("authorization", "Bearer other-key")],
            &[("authorization", "all-key")],
            &[("authorization", "Basic all-key")],
        ] {
            let answer = call_with(&server, &call.path(), headers, framed(&call.request)).await;
            assert_refused(answer.outcome::<()>(), Code::Unauthenticated, "CALLER_UNAUTHENTICATED");
            assert_eq!(answer.headers["www-authenticate"], "Bearer", "{}", call.name);
        }
        let none = call.make_with(&server, &[("authorization", "Bearer none-key")]).await;
        let refused = none.map_err(|Refused { code, reason, .. }| (code, reason));
        let expected = (Code::PermissionDenied, "CALLER_NOT_ALLOWED".to_owned());
        assert_eq!(refused, Err(expected), "{}", call.name);
    }
    assert_eq!(server.faults.steps_of_calls(), before, "nothing was done for them");
    for call in &calls {
        let allowed = call.make_with(&server, &[("authorization", "Bearer all-key")]).await;
        assert_eq!(allowed, Ok(()), "{}", call.name);
    }
}

#[tokio::test]
async fn a_caller_may_do_what_its_row_says_and_health_is_open_to_all() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let open = TestServer::start(&database).await;
    let calls = every_rpc(&open).await;
    open.stop().await;
    let server = TestServer::start_with(&database, |config| {
        let shop = ["latchkey.v1.AuthService/ValidateSession", "latchkey.v1.AuthService/LoadUser"];
        config.callers.insert("shop".to_owned(), caller("shop-key", &shop));
    })
    .await;
    for call in &calls {
        let allowed = ["AuthService/ValidateSession", "AuthService/LoadUser"].contains(&call.name);
        let outcome = call.make_with(&server, &[("authorization", "bearer shop-key")]).await;
        let outcome = outcome.map_err(|refused| refused.reason);
        let expected = if allowed { Ok(()) } else { Err("CALLER_NOT_ALLOWED".to_owned()) };
        assert_eq!(outcome, expected, "{}", call.name);
    }
    let health = call_with(&server, "/grpc.health.v1.Health/Check", &[], framed(b"")).await;
    assert_eq!(health.status.code(), Code::Ok);
    for reflection in ["v1", "v1alpha"] {
        let path = format!("/grpc.reflection.{reflection}.ServerReflection/ServerReflectionInfo");
        let answer = call_with(&server, &path, &[], framed(b"")).await;
        assert_eq!(
            answer.status.code(),
            Code::Unauthenticated,
            "reflection shows the contract to callers only"
        );
    }
    let unknown = call_with(&server, "/no.Service/Method", &[], framed(b"")).await;
    assert_refused(unknown.outcome::<()>(), Code::Unauthenticated, "CALLER_UNAUTHENTICATED");
    // The key says who calls, and nothing about the person.
    let answer = call_with(&server, LOGIN, &[("authorization", "Bearer shop-key")], framed(b"")).await;
    assert_refused(answer.outcome::<()>(), Code::PermissionDenied, "CALLER_NOT_ALLOWED");
}
