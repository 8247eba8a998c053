//! Reauthenticate: the person proves it again, and a fresh session takes the place of the old one.

use std::time::Duration;

use latchkey::grpc::proto::v1;
use tonic::Code;

use crate::support::databases::{Engine, TestDatabase};
use crate::support::interposed_store::shut_gate;
use crate::support::refusals::{assert_blames, assert_refused};
use crate::support::server::{
    OTHER_PASSWORD, PASSWORD, TestServer, device, log_in_request, moment, open_request, span,
};

fn request(token: &str, password: &str) -> v1::ReauthenticateRequest {
    v1::ReauthenticateRequest { session_token: token.to_owned(), password: password.to_owned(), client: None }
}

async fn attempt(
    server: &TestServer,
    request: v1::ReauthenticateRequest,
) -> Result<v1::ReauthenticateResponse, tonic::Status> {
    server.auth().await.reauthenticate(request).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn a_fresh_session_on_the_same_terms_takes_the_place_of_the_old_one() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_user("ada").await;
    let client = device("192.0.2.7", "Browser", "phone");
    let signed_in =
        v1::LoginRequest { remember: true, client: Some(client.clone()), ..log_in_request("ada", PASSWORD) };
    let old = server.auth().await.login(signed_in).await.expect("signed in").into_inner();
    let later = Duration::from_hours(1);
    server.advance(later).await;
    assert!(!server.validate(&old.session_token).await.expect("good").fresh);

    let new = attempt(&server, request(&old.session_token, PASSWORD)).await.expect("proved");
    assert_ne!(new.session_token, old.session_token);
    let session = new.session.expect("a session");
    assert_ne!(session.session_id, old.session.expect("a session").session_id);
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
    assert_eq!((&session, new.user), (&expected, Some(ada.clone())));
    assert!(server.validate(&new.session_token).await.expect("good").fresh);
    server.assert_dead(&old.session_token, "SESSION_REVOKED").await;
    assert_eq!(server.sessions(&ada.user_id).await, [expected], "one session, as before");

    let again = attempt(&server, request(&old.session_token, PASSWORD)).await;
    assert_refused(again, Code::Unauthenticated, "SESSION_REVOKED");
}

#[tokio::test]
async fn a_device_that_is_named_replaces_the_one_of_the_session() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    server.add_user("ada").await;
    let old = server.log_in("ada").await.session_token;
    let client = Some(device("192.0.2.7", "Browser", ""));
    let named = v1::ReauthenticateRequest { client: client.clone(), ..request(&old, PASSWORD) };
    assert_eq!(attempt(&server, named).await.expect("proved").session.expect("a session").client, client);
}

#[tokio::test]
async fn the_new_session_lives_as_long_as_the_old_one_was_given() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_user("ada").await;
    let wished = v1::CreateSessionRequest { lifetime: Some(span(600, 0)), ..open_request(&ada) };
    let old = server.create_session(wished).await.session_token;
    server.advance(Duration::from_secs(100)).await;
    let new = attempt(&server, request(&old, PASSWORD)).await.expect("proved").session_token;
    server.advance(Duration::from_secs(599)).await;
    server.assert_good(&new).await;
    server.advance(Duration::from_secs(1)).await;
    server.assert_dead(&new, "SESSION_EXPIRED").await;
}

#[tokio::test]
async fn a_wrong_password_changes_nothing() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    server.add_user("ada").await;
    let token = server.log_in("ada").await.session_token;
    let outcome = attempt(&server, request(&token, OTHER_PASSWORD)).await;
    assert_refused(outcome, Code::Unauthenticated, "INVALID_CREDENTIALS");
    server.assert_good(&token).await;
    // Who has no password cannot prove anything by one.
    let bare = server.add_bare_user("bare").await;
    let token = server.open_session(&bare).await.session_token;
    let outcome = attempt(&server, request(&token, PASSWORD)).await;
    assert_refused(outcome, Code::Unauthenticated, "INVALID_CREDENTIALS");
    server.assert_good(&token).await;
}

#[tokio::test]
async fn a_session_that_is_not_good_is_refused_before_any_hashing() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_user("ada").await;
    let ended = server.open_session(&ada).await.session_token;
    server.log_out(&ended).await;
    let short = v1::CreateSessionRequest { lifetime: Some(span(1, 0)), ..open_request(&ada) };
    let expired = server.create_session(short).await.session_token;
    server.advance(Duration::from_secs(1)).await;
    let before = server.faults.calls("credentials");
    for (token, reason) in [
        (ended.as_str(), "SESSION_REVOKED"),
        (&expired, "SESSION_EXPIRED"),
        ("no token", "SESSION_TOKEN_INVALID"),
        ("", "SESSION_TOKEN_INVALID"),
    ] {
        assert_refused(attempt(&server, request(token, PASSWORD)).await, Code::Unauthenticated, reason);
    }
    assert_eq!(server.faults.calls("credentials"), before);
}

#[tokio::test]
async fn what_ends_while_the_password_is_checked_is_not_replaced() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_user("ada").await;
    let token = server.log_in("ada").await.session_token;
    let (gate, fault) = shut_gate();
    server.faults.set("replace_session", fault);
    let log_out = async {
        server.faults.asked_for("replace_session", 1).await;
        server.log_out(&token).await;
        gate.add_permits(1);
    };
    let (outcome, ()) = tokio::join!(attempt(&server, request(&token, PASSWORD)), log_out);
    assert_refused(outcome, Code::Unauthenticated, "SESSION_REVOKED");
    assert_eq!(server.sessions(&ada.user_id).await, [], "nothing took its place");
}

#[tokio::test]
async fn what_is_out_of_bounds_is_blamed() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    assert_blames(attempt(&server, request("x", "")).await, &["password"]);
    assert_blames(attempt(&server, request("x", &"p".repeat(4_097))).await, &["password"]);
}
