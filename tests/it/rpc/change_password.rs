//! ChangePassword: the owner sets a new one under the rules, and goes on in a new session while all others end.

use std::time::Duration;

use latchkey::grpc::proto::v1;
use latchkey::grpc::proto::v1::change_password_request::Who;
use tonic::Code;

use crate::support::databases::{Engine, TestDatabase};
use crate::support::refusals::{assert_blames, assert_refused, metadata};
use crate::support::server::{
    OTHER_PASSWORD, PASSWORD, TestServer, device, log_in_request, moment, new_user,
};

fn request(who: Who, current: &str, new: &str) -> v1::ChangePasswordRequest {
    v1::ChangePasswordRequest {
        who: Some(who),
        current_password: current.to_owned(),
        new_password: new.to_owned(),
        client: None,
    }
}

fn by_token(token: &str) -> Who {
    Who::SessionToken(token.to_owned())
}

fn by_login(login: &str) -> Who {
    Who::Login(login.to_owned())
}

async fn attempt(
    server: &TestServer,
    request: v1::ChangePasswordRequest,
) -> Result<v1::ChangePasswordResponse, tonic::Status> {
    server.auth().await.change_password(request).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn by_token_the_owner_goes_on_in_a_new_session_on_the_same_device() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_user("ada").await;
    let client = device("192.0.2.7", "Browser", "phone");
    let signed_in =
        v1::LoginRequest { remember: true, client: Some(client.clone()), ..log_in_request("ada", PASSWORD) };
    let old = server.auth().await.login(signed_in).await.expect("signed in").into_inner().session_token;
    let other = server.open_session(&ada).await.session_token;
    let later = Duration::from_mins(30);
    server.advance(later).await;

    let changed = attempt(&server, request(by_token(&old), PASSWORD, OTHER_PASSWORD)).await.expect("changed");
    assert_eq!(changed.revoked_count, 2);
    assert!(changed.position > 0);
    let session = changed.session.expect("a session");
    let month = Duration::from_hours(30 * 24);
    let expected = v1::Session {
        session_id: session.session_id.clone(),
        user_id: ada.user_id.clone(),
        create_time: moment(later),
        authenticate_time: moment(later),
        expire_time: moment(later + month),
        last_seen_time: moment(later),
        idle_expire_time: moment(later + month),
        fresh: true,
        remembered: true,
        methods: vec!["pwd".to_owned()],
        client: Some(client),
    };
    assert_eq!(session, expected);
    let user = v1::User { password_time: moment(later), update_time: moment(later), ..ada.clone() };
    assert_eq!(changed.user, Some(user.clone()));
    let loaded = server.load_by_token(&changed.session_token).await.expect("good");
    assert_eq!((loaded.user, loaded.session), (Some(user), Some(expected.clone())));
    assert_eq!(server.sessions(&ada.user_id).await, [expected]);
    for dead in [&old, &other] {
        server.assert_dead(dead, "CREDENTIALS_CHANGED").await;
    }

    let outcome = server.auth().await.login(log_in_request("ada", PASSWORD)).await;
    assert_refused(outcome, Code::Unauthenticated, "INVALID_CREDENTIALS");
    server.auth().await.login(log_in_request("ada", OTHER_PASSWORD)).await.expect("the new password");
}

#[tokio::test]
async fn by_login_the_owner_need_not_be_signed_in() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_user("Ada").await;
    let old = server.log_in("ada").await.session_token;
    let client = Some(device("2001:db8::1", "", ""));
    let by_login = v1::ChangePasswordRequest {
        client: client.clone(),
        ..request(by_login("ADA"), PASSWORD, OTHER_PASSWORD)
    };
    let changed = attempt(&server, by_login).await.expect("changed");
    let session = changed.session.expect("a session");
    assert_eq!((changed.revoked_count, session.remembered, session.client), (1, false, client));
    assert_eq!(changed.user.expect("a user").user_id, ada.user_id);
    server.assert_good(&changed.session_token).await;
    server.assert_dead(&old, "CREDENTIALS_CHANGED").await;
}

#[tokio::test]
async fn a_new_password_that_breaks_a_rule_is_refused_with_the_rule() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    server.add_user("ada").await;
    let token = server.log_in("ada").await.session_token;
    for who in [by_token(&token), by_login("ada")] {
        for (new, rule, limit, value) in [
            ("p".repeat(14), "TOO_SHORT", "code_points_min", "15"),
            ("e\u{301}".repeat(14), "TOO_SHORT", "code_points_min", "15"),
            ("\u{1f511}".repeat(14), "TOO_SHORT", "code_points_min", "15"),
            ("p".repeat(257), "TOO_LONG", "code_points_max", "256"),
        ] {
            let outcome = attempt(&server, request(who.clone(), PASSWORD, &new)).await;
            let status = assert_refused(outcome, Code::InvalidArgument, "PASSWORD_REFUSED");
            assert_eq!(metadata(&status, "rule").as_deref(), Some(rule));
            assert_eq!(metadata(&status, limit).as_deref(), Some(value));
        }
    }
    server.assert_good(&token).await;
    // Both ends of the rule, counted in characters and not in bytes.
    let widest = "\u{1f511}".repeat(256);
    attempt(&server, request(by_login("ada"), PASSWORD, &widest)).await.expect("256 code points");
    let least = "é".repeat(15);
    attempt(&server, request(by_login("ada"), &widest, &least)).await.expect("15 code points");
    server.auth().await.login(log_in_request("ada", &least)).await.expect("the new password");
}

#[tokio::test]
async fn an_old_password_below_todays_rules_can_still_be_changed() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start_with(&database, |config| config.password.code_points_min = 8).await;
    server.create_user(new_user("ada", "12345678")).await;
    server.stop().await;
    let server = TestServer::start(&database).await;
    server.auth().await.login(log_in_request("ada", "12345678")).await.expect("rules are for new passwords");
    attempt(&server, request(by_login("ada"), "12345678", OTHER_PASSWORD)).await.expect("changed");
}

#[tokio::test]
async fn who_does_not_know_the_current_password_changes_nothing() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let (ada, bare) = (server.add_user("ada").await, server.add_bare_user("bare").await);
    let token = server.open_session(&ada).await.session_token;
    let of_bare = server.open_session(&bare).await.session_token;
    for who in [by_token(&token), by_login("ada"), by_token(&of_bare), by_login("bare"), by_login("nobody")] {
        let outcome = attempt(&server, request(who, "not the current password", OTHER_PASSWORD)).await;
        assert_refused(outcome, Code::Unauthenticated, "INVALID_CREDENTIALS");
    }
    for good in [&token, &of_bare] {
        server.assert_good(good).await;
    }
    server.log_in("ada").await;
}

#[tokio::test]
async fn asked_with_a_token_the_session_must_be_good() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_user("ada").await;
    let ended = server.open_session(&ada).await.session_token;
    server.log_out(&ended).await;
    let idle = server.open_session(&ada).await;
    server.advance(Duration::from_hours(1)).await;
    for (token, reason) in [
        (ended.as_str(), "SESSION_REVOKED"),
        (&idle.session_token, "SESSION_EXPIRED"),
        ("no token", "SESSION_TOKEN_INVALID"),
        ("", "SESSION_TOKEN_INVALID"),
    ] {
        let outcome = attempt(&server, request(by_token(token), PASSWORD, OTHER_PASSWORD)).await;
        assert_refused(outcome, Code::Unauthenticated, reason);
    }
    server.log_in("ada").await;
}

#[tokio::test]
async fn what_is_out_of_bounds_is_blamed() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let long = "p".repeat(4_097);
    for (request, fields) in [
        (v1::ChangePasswordRequest::default(), vec!["current_password", "new_password", "who"]),
        (request(by_login("ada"), "", ""), vec!["current_password", "new_password"]),
        (request(by_login("ada"), &long, OTHER_PASSWORD), vec!["current_password"]),
        (request(by_login("ada"), PASSWORD, &long), vec!["new_password"]),
        (request(by_login("a b"), PASSWORD, OTHER_PASSWORD), vec!["login"]),
    ] {
        assert_blames(attempt(&server, request).await, &fields);
    }
    assert!(server.faults.steps_of_calls().is_empty(), "nothing was asked of the database");
}
