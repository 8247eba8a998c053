//! RevokeSessions: which targets there are, and what is said of those that are not. That what ended is dead is asserted
//! in `ending`.

use std::sync::Arc;
use std::time::Duration;

use latchkey::domain::token::{KEY_LEN, KeyId, KeyRing, TokenKey};
use latchkey::grpc::proto::v1;
use latchkey::grpc::proto::v1::revoke_sessions_request::Target;
use latchkey::server::StartError;
use tonic::Code;

use crate::support::databases::{Engine, TestDatabase};
use crate::support::interposed_store::Fault;
use crate::support::refusals::{assert_blames, assert_refused};
use crate::support::server::{LEASE, TestServer, config, open_request, span};
use crate::support::waiting::eventually;

const NOBODY: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";

fn of_user(user_id: &str, except_session_id: &str) -> Target {
    let (user_id, except_session_id) = (user_id.to_owned(), except_session_id.to_owned());
    Target::User(v1::UserSessions { user_id, except_session_id })
}

#[tokio::test]
async fn what_is_unknown_or_over_counts_nothing_and_changes_nothing() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_bare_user("ada").await;
    let standing = server.open_session(&ada).await.session_token;
    let short = v1::CreateSessionRequest { lifetime: Some(span(1, 0)), ..open_request(&ada) };
    let expired = server.create_session(short).await;
    server.advance(Duration::from_secs(1)).await;
    for (what, target) in [
        ("a foreign token", Target::SessionToken("no token of ours".to_owned())),
        ("an expired token", Target::SessionToken(expired.session_token)),
        ("an expired session", Target::SessionId(expired.session.expect("a session").session_id)),
        ("an unknown session", Target::SessionId(NOBODY.to_owned())),
        ("an unknown user", of_user(NOBODY, "")),
    ] {
        assert_eq!(server.revoke(target).await.expect(what).revoked_count, 0, "{what}");
    }
    server.assert_good(&standing).await;
}

fn ring_of(number: u8, byte: u8) -> KeyRing {
    KeyRing::new(vec![TokenKey::new(KeyId(number), [byte; KEY_LEN])]).expect("a ring")
}

/// A server that was replaced goes on answering reads, and knows nothing of what came after.
#[tokio::test]
async fn that_there_is_nothing_to_end_is_said_only_under_a_lease() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_bare_user("ada").await;
    let token = server.open_session(&ada).await.session_token;
    server.log_out(&token).await;
    let again = || server.revoke(Target::SessionToken(token.clone()));
    assert_eq!(again().await.expect("the control: under a lease").revoked_count, 0);
    server.faults.set("acknowledge", Fault::Unavailable);
    server.clock.advance(LEASE);
    eventually("the lease is over", async || !server.fleet.is_leased()).await;
    assert_refused(again().await, Code::Unavailable, "STORE_UNAVAILABLE");
    server.faults.clear();
    // By the manual clock nothing is tried again in the same moment.
    server.advance(LEASE).await;
    assert_eq!(again().await.expect("under a lease again").revoked_count, 0);
}

#[tokio::test]
async fn a_lost_key_is_replaced_under_another_number() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let clock = Arc::clone(&server.clock);
    server.stop().await;
    let config = config();
    let start = |keys| TestServer::try_start(&database, &config, Arc::clone(&clock), keys);
    match start(ring_of(1, 8)).await {
        Err(why @ StartError::KeyMismatch(_)) => assert!(why.to_string().contains("--number"), "{why}"),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it starts with a wrong key"),
    }
    start(ring_of(2, 8)).await.expect("it starts").stop().await;
}

#[tokio::test]
async fn positions_go_up_with_every_end() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_bare_user("ada").await;
    let mut last = 0;
    for _ in 0..3 {
        let token = server.open_session(&ada).await.session_token;
        let ended = server.log_out(&token).await;
        assert!(ended.position > last, "{} after {last}", ended.position);
        last = ended.position;
    }
}

#[tokio::test]
async fn an_exception_that_is_not_the_users_keeps_nothing() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let (ada, bob) = (server.add_bare_user("ada").await, server.add_bare_user("bob").await);
    let (of_ada, of_bob) = (server.open_session(&ada).await, server.open_session(&bob).await);
    let except = of_bob.session.expect("a session").session_id;
    assert_eq!(server.revoke(of_user(&ada.user_id, &except)).await.expect("ended").revoked_count, 1);
    server.assert_dead(&of_ada.session_token, "SESSION_REVOKED").await;
    server.assert_good(&of_bob.session_token).await;
}

#[tokio::test]
async fn an_exception_that_is_over_does_not_come_back() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_bare_user("ada").await;
    let over = server.open_session(&ada).await;
    server.log_out(&over.session_token).await;
    let except = over.session.expect("a session").session_id;
    server.revoke(of_user(&ada.user_id, &except)).await.expect("ended");
    server.assert_dead(&over.session_token, "SESSION_REVOKED").await;
}

#[tokio::test]
async fn a_session_that_only_this_node_knows_to_be_used_can_be_ended() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_bare_user("ada").await;
    let made = server.open_session(&ada).await;
    // Used half a minute after sign-in, which is not written down yet; an hour after sign-in the database takes it for
    // idle, and this node does not.
    server.advance(Duration::from_secs(30)).await;
    server.assert_good(&made.session_token).await;
    server.advance(Duration::from_secs(3_580)).await;
    server.assert_good(&made.session_token).await;
    server.log_out(&made.session_token).await;
    server.assert_dead(&made.session_token, "SESSION_REVOKED").await;
}

#[tokio::test]
async fn a_target_that_is_none_is_blamed() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let none = server.auth().await.revoke_sessions(v1::RevokeSessionsRequest { target: None }).await;
    assert_blames(none, &["target"]);
    for (target, fields) in [
        (Target::SessionToken(String::new()), vec!["session_token"]),
        (Target::SessionId(String::new()), vec!["session_id"]),
        (Target::SessionId("1".to_owned()), vec!["session_id"]),
        (of_user("", ""), vec!["user.user_id"]),
        (of_user("ada", ""), vec!["user.user_id"]),
        (of_user(NOBODY, "x"), vec!["user.except_session_id"]),
        (of_user("x", "x"), vec!["user.user_id", "user.except_session_id"]),
    ] {
        assert_blames(server.revoke(target).await, &fields);
    }
    assert!(server.faults.steps_of_calls().is_empty(), "nothing was asked of the database");
}
