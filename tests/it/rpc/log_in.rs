//! Login: what it answers, how long the session lives, and what counts as the same name and the same password.

use std::collections::HashMap;
use std::time::Duration;

use latchkey::grpc::proto::{admin, v1};
use tonic::Code;

use crate::support::databases::{Engine, TestDatabase};
use crate::support::refusals::{assert_blames, assert_refused};
use crate::support::server::{PASSWORD, TestServer, device, log_in_request, moment, new_user, span};

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

async fn attempt(server: &TestServer, request: v1::LoginRequest) -> Result<v1::LoginResponse, tonic::Status> {
    server.auth().await.login(request).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn the_answer_holds_the_token_the_session_and_the_user() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let attributes = HashMap::from([("team".to_owned(), "engines\nof difference".to_owned())]);
    let request = admin::CreateUserRequest {
        display_name: "Ada Lovelace".to_owned(),
        roles: vec!["writer".to_owned(), "admin".to_owned()],
        attributes: attributes.clone(),
        ..new_user("Ada", PASSWORD)
    };
    let ada = server.create_user(request).await;
    server.advance(HOUR).await;

    let client = device("192.0.2.7", "Browser/1.0", "the red one");
    let request = v1::LoginRequest { client: Some(client.clone()), ..log_in_request("ada", PASSWORD) };
    let answer = attempt(&server, request).await.expect("signed in");

    assert!(answer.session_token.starts_with("lk1_") && answer.session_token.len() == 75);
    let session = answer.session.expect("a session");
    let id = uuid::Uuid::parse_str(&session.session_id).expect("a UUID");
    assert_eq!(id.get_version_num(), 7);
    let expected = v1::Session {
        session_id: session.session_id.clone(),
        user_id: ada.user_id.clone(),
        create_time: moment(HOUR),
        authenticate_time: moment(HOUR),
        expire_time: moment(13 * HOUR),
        last_seen_time: moment(HOUR),
        idle_expire_time: moment(2 * HOUR),
        fresh: true,
        remembered: false,
        methods: vec!["pwd".to_owned()],
        client: Some(client),
    };
    assert_eq!(session, expected);
    let user = v1::User {
        user_id: ada.user_id.clone(),
        login: "Ada".to_owned(),
        display_name: "Ada Lovelace".to_owned(),
        state: v1::UserState::Active.into(),
        roles: vec!["admin".to_owned(), "writer".to_owned()],
        attributes,
        create_time: moment(Duration::ZERO),
        update_time: moment(Duration::ZERO),
        password_time: moment(Duration::ZERO),
    };
    assert_eq!((answer.user, ada), (Some(user.clone()), user));
    server.assert_good(&answer.session_token).await;
}

#[tokio::test]
async fn wishes_shorten_the_life_of_a_session_and_never_lengthen_it() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    server.add_user("ada").await;
    let month = 30 * DAY;
    for (remember, lifetime, expire, idle_expire) in [
        (false, None, 12 * HOUR, HOUR),
        (true, None, month, month),
        (false, Some(span(60, 0)), Duration::from_mins(1), Duration::from_mins(1)),
        (false, Some(span(1, 0)), Duration::from_secs(1), Duration::from_secs(1)),
        (false, Some(span(100 * 86_400, 0)), 12 * HOUR, HOUR),
        (true, Some(span(100 * 86_400, 0)), month, month),
        (true, Some(span(86_400, 0)), DAY, DAY),
        // A token tells its end in whole seconds, rounded down.
        (false, Some(span(59, 999_999_999)), Duration::from_secs(59), Duration::from_secs(59)),
    ] {
        let request = v1::LoginRequest { remember, lifetime, ..log_in_request("ada", PASSWORD) };
        let session = attempt(&server, request).await.expect("signed in").session.expect("a session");
        assert_eq!(
            (session.remembered, session.expire_time, session.idle_expire_time),
            (remember, moment(expire), moment(idle_expire)),
            "remember {remember}, lifetime {lifetime:?}"
        );
    }
    let sessions = server.sessions(&server.log_in("ada").await.user.expect("a user").user_id).await;
    assert_eq!(sessions.len(), 9, "each sign-in is one more session");
}

#[tokio::test]
async fn names_and_passwords_that_people_take_for_one_are_one() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let long = format!("{}é", "x".repeat(127));
    server.create_user(new_user("Zoë", "pass phrase with é in it")).await;
    server.create_user(new_user("ada", &long)).await;

    for login in ["Zoë", "ZOË", "zoe\u{308}", "ｚoë"] {
        let request = log_in_request(login, "pass phrase with e\u{301} in it");
        let user = attempt(&server, request).await.expect(login).user.expect("a user");
        assert_eq!(user.login, "Zoë", "the name as it was chosen");
    }
    attempt(&server, log_in_request("ada", &long)).await.expect("128 code points");
    for other in [format!("{long} "), format!(" {long}"), long[..127].to_owned(), long.to_uppercase()] {
        assert_refused(
            attempt(&server, log_in_request("ada", &other)).await,
            Code::Unauthenticated,
            "INVALID_CREDENTIALS",
        );
    }
}

#[tokio::test]
async fn every_character_of_a_long_password_counts() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    // Lengths at which other schemes cut: bcrypt at 72 bytes, HMAC keys at 64 and 128.
    for (login, len) in [("a", 73), ("b", 129), ("c", 256)] {
        let password = "p".repeat(len);
        server.create_user(new_user(login, &password)).await;
        attempt(&server, log_in_request(login, &password)).await.expect("the whole password");
        let other = format!("{}q", "p".repeat(len - 1));
        for wrong in [&other, &password[..len - 1]] {
            let outcome = attempt(&server, log_in_request(login, wrong)).await;
            assert_refused(outcome, Code::Unauthenticated, "INVALID_CREDENTIALS");
        }
    }
    // 256 code points of 4 bytes.
    let wide = "\u{1f511}".repeat(256);
    server.create_user(new_user("d", &wide)).await;
    attempt(&server, log_in_request("d", &wide)).await.expect("1024 bytes");
}

#[tokio::test]
async fn what_is_out_of_bounds_is_blamed_before_anything_is_done() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let long = |count| "a".repeat(count);
    let with_login = |login: &str| log_in_request(login, PASSWORD);
    let with_password = |password: &str| log_in_request("ada", password);
    let with_lifetime = |seconds, nanos| v1::LoginRequest {
        lifetime: Some(span(seconds, nanos)),
        ..log_in_request("ada", PASSWORD)
    };
    let bad = [
        (v1::LoginRequest::default(), vec!["login", "password"]),
        (with_login(""), vec!["login"]),
        (with_login(&long(129)), vec!["login"]),
        (with_login(&long(15_000)), vec!["login"]),
        (with_login("a b"), vec!["login"]),
        (with_login("ada "), vec!["login"]),
        (with_login("a\0b"), vec!["login"]),
        (with_login("a\u{200b}b"), vec!["login"]),
        (with_password(""), vec!["password"]),
        (with_password(&long(4_097)), vec!["password"]),
        (with_lifetime(0, 0), vec!["lifetime"]),
        (with_lifetime(0, 999_999_999), vec!["lifetime"]),
        (with_lifetime(-1, 0), vec!["lifetime"]),
        (with_lifetime(1, -1), vec!["lifetime"]),
        (with_lifetime(1, i32::MAX), vec!["lifetime"]),
        (with_lifetime(i64::MAX, 0), vec!["lifetime"]),
        (with_lifetime(i64::MIN, i32::MIN), vec!["lifetime"]),
        (
            v1::LoginRequest { lifetime: Some(span(0, 0)), ..v1::LoginRequest::default() },
            vec!["login", "password", "lifetime"],
        ),
    ];
    for (request, fields) in bad {
        assert_blames(attempt(&server, request).await, &fields);
    }
    assert_eq!(server.faults.steps_of_calls(), HashMap::new(), "nothing was asked of the database");
}

#[tokio::test]
async fn what_is_at_its_bound_is_taken() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    for request in [
        log_in_request(&"a".repeat(128), PASSWORD),
        log_in_request(&"\u{10400}".repeat(128), PASSWORD),
        log_in_request("ada", &"p".repeat(4_096)),
        log_in_request("ada", "\0"),
    ] {
        assert_refused(attempt(&server, request).await, Code::Unauthenticated, "INVALID_CREDENTIALS");
    }
    server.add_user("ada").await;
    let client = device("2001:db8::1", &"ü".repeat(1_024), &"ä".repeat(128));
    let request = v1::LoginRequest {
        lifetime: Some(span(315_576_000_000, 999_999_999)),
        client: Some(client.clone()),
        ..log_in_request("ada", PASSWORD)
    };
    let session = attempt(&server, request).await.expect("signed in").session.expect("a session");
    assert_eq!(session.client, Some(client));
    let mapped = v1::LoginRequest {
        client: Some(device("::ffff:192.0.2.7", "", "")),
        ..log_in_request("ada", PASSWORD)
    };
    let session = attempt(&server, mapped).await.expect("signed in").session.expect("a session");
    assert_eq!(session.client, Some(device("192.0.2.7", "", "")), "a mapped address is IPv4");
}
