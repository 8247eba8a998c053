//! LoadUser: by token like ValidateSession, by id or login for any user there is.

use std::time::Duration;

use latchkey::grpc::proto::v1::load_user_request::By;
use latchkey::grpc::proto::{admin, v1};
use tonic::Code;

use crate::support::databases::{Engine, TestDatabase};
use crate::support::refusals::{assert_blames, assert_refused};
use crate::support::server::{TestServer, moment, new_user};

async fn load(server: &TestServer, by: By) -> Result<v1::LoadUserResponse, tonic::Status> {
    let request = v1::LoadUserRequest { by: Some(by) };
    server.auth().await.load_user(request).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn by_token_it_answers_the_user_and_the_session_as_of_now() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let request = admin::CreateUserRequest {
        display_name: "Ada".to_owned(),
        roles: vec!["admin".to_owned()],
        attributes: [("team".to_owned(), "blue".to_owned())].into(),
        ..new_user("ada", "")
    };
    let ada = server.create_user(request).await;
    let made = server.open_session(&ada).await;
    let later = Duration::from_mins(20);
    server.advance(later).await;

    let loaded = load(&server, By::SessionToken(made.session_token)).await.expect("good");
    assert_eq!(loaded.user, Some(ada));
    let expected = v1::Session {
        last_seen_time: moment(later),
        idle_expire_time: moment(later + Duration::from_hours(1)),
        fresh: false,
        ..made.session.expect("a session")
    };
    assert_eq!(loaded.session, Some(expected), "the question was a use, and the sign-in is 20 minutes ago");
}

#[tokio::test]
async fn by_id_and_login_it_answers_whatever_the_state() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_bare_user("Ada").await;
    for by in [By::UserId(ada.user_id.clone()), By::Login("ada".to_owned()), By::Login("ADA".to_owned())] {
        let loaded = load(&server, by).await.expect("known");
        assert_eq!(loaded, v1::LoadUserResponse { user: Some(ada.clone()), session: None });
    }
    assert_eq!(ada.password_time, None, "a user without password");
    let upper = load(&server, By::UserId(ada.user_id.to_uppercase())).await.expect("known");
    assert_eq!(upper.user.expect("a user").user_id, ada.user_id, "hexadecimal digits have no case");

    server.disable(&ada).await;
    let loaded = load(&server, By::UserId(ada.user_id.clone())).await.expect("known").user.expect("a user");
    assert_eq!(loaded.state(), v1::UserState::Disabled);

    server.delete(&ada).await;
    for by in [By::UserId(ada.user_id.clone()), By::Login("ada".to_owned())] {
        assert_refused(load(&server, by).await, Code::NotFound, "USER_NOT_FOUND");
    }
}

#[tokio::test]
async fn who_is_unknown_is_not_found() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let nobody = "67e55044-10b1-426f-9247-bb680e5fe0c8".to_owned();
    for by in [By::UserId(nobody), By::Login("nobody".to_owned()), By::Login("x".repeat(128))] {
        assert_refused(load(&server, by).await, Code::NotFound, "USER_NOT_FOUND");
    }
}

#[tokio::test]
async fn what_is_no_name_is_blamed_and_what_is_no_token_is_no_session() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let none = server.auth().await.load_user(v1::LoadUserRequest { by: None }).await;
    assert_blames(none, &["by"]);
    for id in ["", "ada", "67e5504410b1426f9247bb680e5fe0c8", "{67e55044-10b1-426f-9247-bb680e5fe0c8}"] {
        assert_blames(load(&server, By::UserId(id.to_owned())).await, &["user_id"]);
    }
    for login in ["", "a b", "a\0", &"x".repeat(129)] {
        assert_blames(load(&server, By::Login(login.to_owned())).await, &["login"]);
    }
    for token in ["", "lk1_", "x", &"x".repeat(10_000)] {
        let outcome = load(&server, By::SessionToken(token.to_owned())).await;
        assert_refused(outcome, Code::Unauthenticated, "SESSION_TOKEN_INVALID");
    }
    assert!(server.faults.steps_of_calls().is_empty(), "nothing was asked of the database");
}
