//! CreateSession: a caller that knows who somebody is signs them in, under the terms it names.

use std::time::Duration;

use latchkey::grpc::proto::v1;
use tonic::Code;

use crate::support::databases::{Engine, TestDatabase};
use crate::support::refusals::{assert_blames, assert_refused};
use crate::support::server::{TestServer, device, moment, open_request, span};

async fn attempt(
    server: &TestServer,
    request: v1::CreateSessionRequest,
) -> Result<v1::CreateSessionResponse, tonic::Status> {
    server.auth().await.create_session(request).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn the_session_is_as_asked_and_as_good_as_one_by_password() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_bare_user("ada").await;
    let client = device("2001:db8::7", "Browser", "laptop");
    let request = v1::CreateSessionRequest {
        user_id: ada.user_id.clone(),
        methods: vec!["otp".to_owned(), "hwk".to_owned()],
        remember: true,
        lifetime: Some(span(3_600, 0)),
        client: Some(client.clone()),
    };
    let made = attempt(&server, request).await.expect("signed in");
    let session = made.session.expect("a session");
    let expected = v1::Session {
        session_id: session.session_id.clone(),
        user_id: ada.user_id.clone(),
        create_time: moment(Duration::ZERO),
        authenticate_time: moment(Duration::ZERO),
        expire_time: moment(Duration::from_hours(1)),
        last_seen_time: moment(Duration::ZERO),
        idle_expire_time: moment(Duration::from_hours(1)),
        fresh: true,
        remembered: true,
        methods: vec!["otp".to_owned(), "hwk".to_owned()],
        client: Some(client),
    };
    assert_eq!((session, made.user), (expected, Some(ada)));
    server.assert_good(&made.session_token).await;
}

#[tokio::test]
async fn who_may_not_sign_in_gets_no_session() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_bare_user("ada").await;
    server.disable(&ada).await;
    assert_refused(attempt(&server, open_request(&ada)).await, Code::Unauthenticated, "USER_DISABLED");
    server.delete(&ada).await;
    assert_refused(attempt(&server, open_request(&ada)).await, Code::NotFound, "USER_NOT_FOUND");
}

#[tokio::test]
async fn what_is_out_of_bounds_is_blamed() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_bare_user("ada").await;
    let by = |methods: &[&str]| v1::CreateSessionRequest {
        methods: methods.iter().map(|&method| method.to_owned()).collect(),
        ..open_request(&ada)
    };
    attempt(&server, by(&["a"; 8])).await.expect("eight names");
    attempt(&server, by(&["m".repeat(64).as_str()])).await.expect("64 characters");
    for request in
        [by(&[]), by(&["a"; 9]), by(&[""]), by(&["a b"]), by(&["ä"]), by(&["m".repeat(65).as_str()])]
    {
        assert_blames(attempt(&server, request).await, &["methods"]);
    }
    let all_wrong = v1::CreateSessionRequest {
        user_id: "ada".to_owned(),
        methods: Vec::new(),
        remember: false,
        lifetime: Some(span(0, 1)),
        client: None,
    };
    let fields = ["user_id", "methods", "lifetime"];
    assert_blames(attempt(&server, all_wrong).await, &fields);
    assert_eq!(server.sessions(&ada.user_id).await.len(), 2);
}
