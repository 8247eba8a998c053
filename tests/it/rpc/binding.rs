//! What use from another device does to a session: nothing, not fresh, or the end.

use std::time::Duration;

use latchkey::config::Binding;
use latchkey::grpc::proto::v1;
use tonic::Code;

use crate::support::databases::{Engine, TestDatabase};
use crate::support::refusals::assert_refused;
use crate::support::server::{
    OTHER_PASSWORD, PASSWORD, TestServer, device, log_in_request, open_request, span,
};
use crate::support::verdicts::question;

async fn server_with(database: &TestDatabase, binding: Binding) -> TestServer {
    TestServer::start_with(database, |config| config.session.binding = binding).await
}

async fn session_on(server: &TestServer, user: &v1::User, client: v1::Client, remember: bool) -> String {
    let request = v1::CreateSessionRequest { client: Some(client), remember, ..open_request(user) };
    server.create_session(request).await.session_token
}

async fn ask_from(
    server: &TestServer,
    token: &str,
    client: v1::Client,
) -> Result<v1::ValidateSessionResponse, tonic::Status> {
    server.ask(v1::ValidateSessionRequest { client: Some(client), ..question(token) }).await
}

#[tokio::test]
async fn without_binding_a_device_is_not_looked_at() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = server_with(&database, Binding::None).await;
    let ada = server.add_bare_user("ada").await;
    let token = session_on(&server, &ada, device("192.0.2.1", "a", ""), false).await;
    assert!(ask_from(&server, &token, device("198.51.100.1", "b", "")).await.expect("good").fresh);
}

#[tokio::test]
async fn under_basic_binding_another_device_is_not_fresh() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = server_with(&database, Binding::Basic).await;
    let ada = server.add_bare_user("ada").await;
    let token = session_on(&server, &ada, device("192.0.2.1", "a", "phone"), false).await;
    for (client, fresh) in [
        (device("192.0.2.1", "a", "phone"), true),
        (device("192.0.2.254", "a", "another name"), true),
        (device("::ffff:192.0.2.9", "a", ""), true),
        (device("", "", ""), true),
        (device("192.0.2.7:443", "a", ""), true),
        (device("unknown", "a", ""), true),
        (device("192.0.2.1", "\ta\r\n", ""), true),
        (device("192.0.3.1:443", "a", ""), false),
        (device("unknown", "b", ""), false),
        (device("192.0.3.1", "a", ""), false),
        (device("2001:db8::1", "a", ""), false),
        (device("192.0.2.1", "b", ""), false),
    ] {
        let told = format!("{client:?}");
        assert_eq!(ask_from(&server, &token, client).await.expect("good").fresh, fresh, "{told}");
    }
    assert!(server.validate(&token).await.expect("good").fresh, "the device itself is as fresh as before");
}

#[tokio::test]
async fn under_strong_binding_use_from_another_device_ends_the_session() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = server_with(&database, Binding::Strong).await;
    let ada = server.add_bare_user("ada").await;
    let home = device("2001:db8:1:2::7", "a", "");
    let (token, other) =
        (session_on(&server, &ada, home.clone(), false).await, session_on(&server, &ada, home, false).await);
    ask_from(&server, &token, device("2001:db8:1:2:ffff::1", "a", "")).await.expect("the same network");
    let outcome = ask_from(&server, &token, device("2001:db8:1:3::7", "a", "")).await;
    assert_refused(outcome, Code::Unauthenticated, "SESSION_BINDING_MISMATCH");
    server.assert_dead(&token, "SESSION_BINDING_MISMATCH").await;
    server.assert_good(&other).await;
    let server = server.restart(&database).await;
    server.assert_dead(&token, "SESSION_BINDING_MISMATCH").await;
}

#[tokio::test]
async fn under_strong_binding_a_remembered_session_is_only_not_fresh() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = server_with(&database, Binding::Strong).await;
    let ada = server.add_bare_user("ada").await;
    let token = session_on(&server, &ada, device("192.0.2.1", "a", ""), true).await;
    assert!(!ask_from(&server, &token, device("198.51.100.1", "a", "")).await.expect("good").fresh);
    server.assert_good(&token).await;
}

#[tokio::test]
async fn under_strong_binding_a_thief_with_the_password_gets_nothing_for_the_token() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = server_with(&database, Binding::Strong).await;
    server.add_user("ada").await;
    let home = device("192.0.2.1", "a", "");
    let request = v1::LoginRequest { client: Some(home), ..log_in_request("ada", PASSWORD) };
    let token = server.auth().await.login(request).await.expect("signed in").into_inner().session_token;
    let request = v1::ReauthenticateRequest {
        session_token: token.clone(),
        password: PASSWORD.to_owned(),
        client: Some(device("198.51.100.1", "a", "")),
    };
    let outcome = server.auth().await.reauthenticate(request).await;
    assert_refused(outcome, Code::Unauthenticated, "SESSION_BINDING_MISMATCH");
    server.advance(Duration::from_secs(1)).await;
    server.assert_dead(&token, "SESSION_BINDING_MISMATCH").await;
}

#[tokio::test]
async fn a_device_that_is_described_in_part_stays_bound_by_the_rest() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = server_with(&database, Binding::Basic).await;
    server.add_user("ada").await;
    let home = device("192.0.2.1", "a", "phone");
    let request = v1::LoginRequest { client: Some(home.clone()), ..log_in_request("ada", PASSWORD) };
    let token = server.auth().await.login(request).await.expect("signed in").into_inner().session_token;

    let request = v1::ReauthenticateRequest {
        session_token: token,
        password: PASSWORD.to_owned(),
        client: Some(device("unknown", "", "tablet")),
    };
    let proved = server.auth().await.reauthenticate(request).await.expect("proved").into_inner();
    let tablet = v1::Client { device_name: "tablet".to_owned(), ..home };
    assert_eq!(proved.session.expect("a session").client, Some(tablet.clone()));
    let elsewhere = device("198.51.100.1", "a", "");
    assert!(!ask_from(&server, &proved.session_token, elsewhere.clone()).await.expect("good").fresh);

    let request = v1::ChangePasswordRequest {
        who: Some(v1::change_password_request::Who::SessionToken(proved.session_token)),
        current_password: PASSWORD.to_owned(),
        new_password: OTHER_PASSWORD.to_owned(),
        client: Some(device("", "\n", "")),
    };
    let changed = server.auth().await.change_password(request).await.expect("changed").into_inner();
    assert_eq!(changed.session.expect("a session").client, Some(tablet));
    assert!(!ask_from(&server, &changed.session_token, elsewhere).await.expect("good").fresh);
}

#[tokio::test]
async fn who_asks_for_freshness_gets_none_from_another_device() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = server_with(&database, Binding::Basic).await;
    let ada = server.add_bare_user("ada").await;
    let token = session_on(&server, &ada, device("192.0.2.1", "a", ""), false).await;
    let ask = |ip| {
        let max_auth_age = Some(span(3_600, 0));
        server.ask(v1::ValidateSessionRequest {
            client: Some(device(ip, "a", "")),
            max_auth_age,
            ..question(&token)
        })
    };
    assert!(ask("192.0.2.7").await.is_ok());
    assert_refused(ask("198.51.100.1").await, Code::FailedPrecondition, "REAUTHENTICATION_REQUIRED");
}
