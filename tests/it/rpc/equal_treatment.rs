//! Who may not sign in learns nothing from it: the same bytes, the same steps of the database, the same hashing work.

use http::HeaderMap;
use latchkey::grpc::proto::{admin, v1};
use prost::Message;

use crate::support::databases::{Engine, TestDatabase};
use crate::support::raw_call::{LOGIN, call, metric};
use crate::support::server::{OTHER_PASSWORD, PASSWORD, TestServer, log_in_request, new_user};

const CHANGE_PASSWORD: &str = "/latchkey.v1.AuthService/ChangePassword";

/// What a failed attempt shows to the outside, and what it cost inside.
#[derive(PartialEq, Debug)]
struct Trace {
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    steps: Vec<(&'static str, u64)>,
    hashing: (u64, u64),
}

async fn trace(server: &TestServer, path: &str, request: &impl Message) -> Trace {
    let hashing = async || {
        (
            metric(server, "latchkey_hash_runs_total").await,
            metric(server, "latchkey_hash_work_kib_total").await,
        )
    };
    let (steps, (runs, work)) = (server.faults.steps_of_calls(), hashing().await);
    let answer = call(server, path, request).await;
    let (runs_after, work_after) = hashing().await;
    let after = server.faults.steps_of_calls();
    let mut taken: Vec<_> =
        after.iter().map(|(step, count)| (*step, count - steps.get(step).copied().unwrap_or(0))).collect();
    taken.retain(|(_, count)| *count > 0);
    taken.sort_unstable();
    Trace {
        headers: shown(&answer.headers),
        body: answer.body.to_vec(),
        steps: taken,
        hashing: (runs_after - runs, work_after - work),
    }
}

/// All headers and trailers.
fn shown(headers: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    let mut shown: Vec<_> =
        headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
    shown.sort_unstable();
    shown
}

/// Users that cannot sign in with [`PASSWORD`], each for a reason of its own.
async fn set_the_scene(server: &TestServer) {
    server.create_user(new_user("ada", OTHER_PASSWORD)).await;
    server.add_bare_user("bare").await;
    let disabled = server.add_user("disabled").await;
    server.disable(&disabled).await;
    let deleted = server.add_user("deleted").await;
    server.delete(&deleted).await;
}

const WHO: [(&str, &str); 5] = [
    ("wrong password", "ada"),
    ("unknown user", "nobody"),
    ("user without password", "bare"),
    ("disabled user, right password", "disabled"),
    ("deleted user, once right password", "deleted"),
];

#[tokio::test]
async fn the_four_ways_to_fail_are_alike() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    set_the_scene(&server).await;
    let first = trace(&server, LOGIN, &log_in_request("ada", PASSWORD)).await;
    assert_eq!(first.steps, [("credentials", 1)]);
    assert_eq!(first.hashing, (1, 2 * 19_456), "one computation at the cost of the policy");
    let reason = first.headers.iter().find(|(name, _)| name == "grpc-message").expect("a message");
    assert_eq!(String::from_utf8_lossy(&reason.1), "wrong%20login%20or%20password");
    for (what, login) in WHO {
        let trace = trace(&server, LOGIN, &log_in_request(login, PASSWORD)).await;
        assert_eq!(trace, first, "{what}");
    }
    // The right password costs the same work; what comes after it is no secret to who knows it.
    let good = trace(&server, LOGIN, &log_in_request("ada", OTHER_PASSWORD)).await;
    assert_eq!(good.hashing, first.hashing);
}

#[tokio::test]
async fn a_change_of_the_password_by_login_tells_no_more_than_a_sign_in() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    set_the_scene(&server).await;
    let request = |login: &str| v1::ChangePasswordRequest {
        who: Some(v1::change_password_request::Who::Login(login.to_owned())),
        current_password: PASSWORD.to_owned(),
        new_password: "a third phrase of enough length".to_owned(),
        client: None,
    };
    let first = trace(&server, CHANGE_PASSWORD, &request("ada")).await;
    assert_eq!((first.steps.as_slice(), first.hashing.0), (&[("credentials", 1)][..], 1));
    for (what, login) in WHO {
        assert_eq!(trace(&server, CHANGE_PASSWORD, &request(login)).await, first, "{what}");
    }
}

#[tokio::test]
async fn a_user_with_a_cheap_hash_does_not_stand_out() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    // One pass over 64 KiB: brought along from elsewhere.
    let cheap =
        "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let request = admin::CreateUserRequest { password_hash: cheap.to_owned(), ..new_user("cheap", "") };
    server.create_user(request).await;
    let unknown = trace(&server, LOGIN, &log_in_request("nobody", PASSWORD)).await;
    let known = trace(&server, LOGIN, &log_in_request("cheap", PASSWORD)).await;
    assert_eq!((known.headers, known.body, known.steps), (unknown.headers, unknown.body, unknown.steps));
    assert_eq!(known.hashing.1, unknown.hashing.1, "the rest of the work is made up for");
}
