//! ValidateSession: OK means let in, and every other answer says why not.

use std::time::Duration;

use latchkey::domain::token::{KEY_LEN, KeyId, KeyRing, TokenKey};
use latchkey::grpc::proto::{admin, v1};
use tonic::Code;

use crate::support::databases::{Engine, TestDatabase};
use crate::support::interposed_store::START;
use crate::support::refusals::{assert_blames, assert_refused};
use crate::support::server::{TestServer, key_ring, moment, new_user, open_request, span};
use crate::support::verdicts::question;

#[tokio::test]
async fn a_good_session_is_answered_with_all_a_service_needs() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let roles = vec!["b".to_owned(), "a".to_owned()];
    let ada = server.create_user(admin::CreateUserRequest { roles, ..new_user("Ada", "") }).await;
    let made = server.create_session(v1::CreateSessionRequest { remember: true, ..open_request(&ada) }).await;
    server.advance(Duration::from_secs(5)).await;
    let good = server.validate(&made.session_token).await.expect("good");
    let expected = v1::ValidateSessionResponse {
        user_id: ada.user_id,
        session_id: made.session.expect("a session").session_id,
        login: "Ada".to_owned(),
        roles: vec!["a".to_owned(), "b".to_owned()],
        expire_time: moment(Duration::from_hours(30 * 24)),
        authenticate_time: moment(Duration::ZERO),
        fresh: true,
        remembered: true,
    };
    assert_eq!(good, expected);
}

#[tokio::test]
async fn a_changed_user_is_seen_by_the_next_question() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_bare_user("ada").await;
    let token = server.open_session(&ada).await.session_token;
    let user = v1::User { login: "Countess".to_owned(), roles: vec!["admin".to_owned()], ..ada };
    server.update_user(user, &["login", "roles"]).await.expect("changed");
    let good = server.validate(&token).await.expect("such a change ends no session");
    assert_eq!((good.login.as_str(), good.roles), ("Countess", vec!["admin".to_owned()]));
}

#[tokio::test]
async fn a_text_that_is_not_a_token_of_ours_is_refused_without_asking_the_database() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_bare_user("ada").await;
    let token = server.open_session(&ada).await.session_token;
    server.assert_good(&token).await;
    let expire_time = START.plus(Duration::from_hours(1));
    let forged = |ring: &KeyRing| ring.mint(expire_time, &[9; 32]).0.expose().to_owned();
    let other_key = KeyRing::new(vec![TokenKey::new(KeyId(1), [8; KEY_LEN])]).expect("a ring");
    let other_id = KeyRing::new(vec![TokenKey::new(KeyId(2), [7; KEY_LEN])]).expect("a ring");

    let before = server.faults.steps_of_calls();
    let altered = |at: usize| {
        let with = if token.as_bytes()[at] == b'A' { "B" } else { "A" };
        let mut altered = token.clone();
        altered.replace_range(at..=at, with);
        altered
    };
    let mut texts = vec![
        String::new(),
        "lk1_".to_owned(),
        token[..74].to_owned(),
        token[1..].to_owned(),
        format!("{token}A"),
        format!("{token}\n"),
        format!(" {token}"),
        token.to_lowercase(),
        token.replace("lk1_", "lk2_"),
        token.repeat(2),
        "\0".repeat(75),
        "é".repeat(40),
        "x".repeat(16_000),
        forged(&other_key),
        forged(&other_id),
    ];
    texts.extend([4, 5, 10, 40, 74].map(altered));
    for text in texts {
        server.assert_dead(&text, "SESSION_TOKEN_INVALID").await;
    }
    assert_eq!(server.faults.steps_of_calls(), before);

    // Signed with our key, but nobody was ever signed in with it.
    server.assert_dead(&forged(&key_ring()), "SESSION_TOKEN_INVALID").await;
    // The end is in the token: what is past it needs no look-up either.
    server.advance(Duration::from_hours(1)).await;
    let before = server.faults.steps_of_calls();
    server.assert_dead(&forged(&key_ring()), "SESSION_EXPIRED").await;
    assert_eq!(server.faults.steps_of_calls(), before);
}

#[tokio::test]
async fn who_proved_it_too_long_ago_has_to_prove_it_again() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_bare_user("ada").await;
    let token = server.open_session(&ada).await.session_token;
    let ask = async |seconds, nanos| {
        let max_auth_age = Some(span(seconds, nanos));
        server.ask(v1::ValidateSessionRequest { max_auth_age, ..question(&token) }).await
    };
    ask(0, 0).await.expect("just now");
    server.advance(Duration::from_secs(10)).await;
    ask(10, 0).await.expect("exactly as long ago as it may be");
    ask(315_576_000_000, 0).await.expect("the longest span there is");
    for (seconds, nanos) in [(9, 999_000_000), (9, 0), (0, 0)] {
        let outcome = ask(seconds, nanos).await;
        assert_refused(outcome, Code::FailedPrecondition, "REAUTHENTICATION_REQUIRED");
    }
    server.assert_good(&token).await;
    for (seconds, nanos) in [(-1, 0), (0, -1), (i64::MAX, 0), (i64::MIN, 0), (0, i32::MAX)] {
        assert_blames(ask(seconds, nanos).await, &["max_auth_age"]);
    }
}
