//! How long a session is good, by the clock alone: absolute end, idle end, freshness.

use std::sync::Arc;
use std::time::Duration;

use latchkey::domain::id::SessionId;
use latchkey::grpc::proto::v1;
use latchkey::store::Store as _;
use tokio::sync::Semaphore;

use crate::support::databases::{Engine, TestDatabase};
use crate::support::interposed_store::{Fault, START, shut_gate};
use crate::support::server::{TestServer, moment, open_request, span};
use crate::support::waiting::eventually;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// The last moment before `span` is over.
fn just_before(span: Duration) -> Duration {
    span.saturating_sub(MILLISECOND)
}

#[tokio::test]
async fn use_does_not_move_the_absolute_end() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_bare_user("ada").await;
    let token = server.open_session(&ada).await.session_token;
    for _ in 0..13 {
        server.assert_good(&token).await;
        server.advance(55 * Duration::from_mins(1)).await;
    }
    // 11 h 55 min so far.
    server.advance(just_before(Duration::from_mins(5))).await;
    server.assert_good(&token).await;
    server.advance(MILLISECOND).await;
    server.assert_dead(&token, "SESSION_EXPIRED").await;
    assert_eq!(server.sessions(&ada.user_id).await, []);
}

#[tokio::test]
async fn a_session_that_is_not_used_ends_and_use_puts_that_off() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_bare_user("ada").await;
    let (used, unused) = (server.open_session(&ada).await, server.open_session(&ada).await);
    server.advance(just_before(HOUR)).await;
    server.assert_good(&used.session_token).await;
    server.advance(MILLISECOND).await;
    server.assert_good(&used.session_token).await;
    server.assert_dead(&unused.session_token, "SESSION_EXPIRED").await;
    server.advance(just_before(HOUR)).await;
    server.assert_good(&used.session_token).await;
    server.advance(HOUR).await;
    server.assert_dead(&used.session_token, "SESSION_EXPIRED").await;
}

#[tokio::test]
async fn a_refused_question_is_no_use() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_bare_user("ada").await;
    let token = server.open_session(&ada).await.session_token;
    server.advance(HOUR.saturating_sub(SECOND)).await;
    let question = v1::ValidateSessionRequest {
        session_token: token.clone(),
        max_auth_age: Some(span(1, 0)),
        ..v1::ValidateSessionRequest::default()
    };
    server.ask(question).await.expect_err("the sign-in is too long ago");
    server.advance(SECOND).await;
    server.assert_dead(&token, "SESSION_EXPIRED").await;
}

#[tokio::test]
async fn uses_survive_a_restart() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_bare_user("ada").await;
    let (used, unused) = (server.open_session(&ada).await, server.open_session(&ada).await);
    // Less than the minute after which uses are written at the latest: only the stop can have written this one.
    server.advance(30 * SECOND).await;
    server.assert_good(&used.session_token).await;
    server.advance(HOUR.saturating_sub(30 * SECOND)).await;
    let server = server.restart(&database).await;
    server.assert_dead(&unused.session_token, "SESSION_EXPIRED").await;
    server.assert_good(&used.session_token).await;
}

#[tokio::test]
async fn uses_survive_a_crash_but_for_the_last_minute() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_bare_user("ada").await;
    let token = server.open_session(&ada).await.session_token;
    server.advance(Duration::from_mins(1)).await;
    server.assert_good(&token).await;
    assert_eq!(server.sessions(&ada.user_id).await[0].last_seen_time, moment(60 * SECOND), "known at once");
    let used = Some(START.plus(60 * SECOND));
    eventually("the use is written", async || server.stored_last_use(&ada).await == used).await;
    let server = server.crash(&database).await;
    server.advance(HOUR.saturating_sub(SECOND)).await;
    server.assert_good(&token).await;
}

#[tokio::test]
async fn a_use_that_is_written_down_while_a_session_is_read_counts() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_bare_user("ada").await;
    let asked = server.open_session(&ada).await.session_token;
    server.advance(30 * SECOND).await;
    server.assert_good(&asked).await;
    // The database knows the sign-in, an hour ago, and this node the use half a minute later, which it is about to write.
    let (written, fault) = shut_gate();
    server.faults.set("touch_sessions", fault);
    server.advance(HOUR.saturating_sub(30 * SECOND)).await;
    server.faults.asked_for("touch_sessions", 1).await;

    let answered = Arc::new(Semaphore::new(0));
    server.make_stale(&ada).await;
    server.faults.set("sessions_by_digest", Fault::GateBehind(Arc::clone(&answered)));
    let reads = server.faults.calls("sessions_by_digest");
    let writes = async {
        server.faults.asked_for("sessions_by_digest", reads + 1).await;
        written.add_permits(1);
        let used = Some(START.plus(30 * SECOND));
        eventually("the use is written", async || server.stored_last_use(&ada).await == used).await;
        answered.add_permits(1);
    };
    let (outcome, ()) = tokio::join!(server.validate(&asked), writes);
    outcome.expect("it was used less than an hour ago");
}

#[tokio::test]
async fn a_session_that_seems_idle_is_asked_for_once() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_bare_user("ada").await;
    let session = server.open_session(&ada).await;
    let (token, id) = (session.session_token, session.session.expect("a session").session_id);
    server.advance(HOUR.saturating_sub(SECOND)).await;
    // Another node let the person in, and has written it down.
    let id = SessionId::parse(&id).expect("an id");
    server.store.touch_sessions(&[(id, START.plus(HOUR.saturating_sub(SECOND)))]).await.expect("written");
    server.advance(SECOND).await;
    server.assert_good(&token).await;
    assert_eq!(server.faults.calls("sessions_by_digest"), 1);
    // Now nobody has.
    server.advance(HOUR).await;
    for _ in 0..5 {
        server.assert_dead(&token, "SESSION_EXPIRED").await;
    }
    assert_eq!(server.faults.calls("sessions_by_digest"), 2, "the database is asked once");
}

#[tokio::test]
async fn a_remembered_session_lives_thirty_days_used_or_not() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_bare_user("ada").await;
    let request = v1::CreateSessionRequest { remember: true, ..open_request(&ada) };
    let token = server.create_session(request).await.session_token;
    let server = server.restart(&database).await;
    server.advance(just_before(30 * DAY)).await;
    assert!(server.validate(&token).await.expect("good").remembered);
    server.advance(MILLISECOND).await;
    server.assert_dead(&token, "SESSION_EXPIRED").await;
}

#[tokio::test]
async fn a_wished_lifetime_is_kept_to_the_second() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_bare_user("ada").await;
    let request = v1::CreateSessionRequest { lifetime: Some(span(90, 0)), ..open_request(&ada) };
    let token = server.create_session(request).await.session_token;
    server.advance(just_before(90 * SECOND)).await;
    server.assert_good(&token).await;
    server.advance(MILLISECOND).await;
    server.assert_dead(&token, "SESSION_EXPIRED").await;
}

#[tokio::test]
async fn a_sign_in_is_fresh_for_fifteen_minutes() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_bare_user("ada").await;
    let token = server.open_session(&ada).await.session_token;
    for (wait, fresh) in [(Duration::ZERO, true), (just_before(900 * SECOND), true), (MILLISECOND, false)] {
        server.advance(wait).await;
        assert_eq!(server.validate(&token).await.expect("good").fresh, fresh, "after {wait:?} more");
        let loaded = server.load_by_token(&token).await.expect("good").session.expect("a session");
        assert_eq!(loaded.fresh, fresh);
        assert_eq!(server.sessions(&ada.user_id).await[0].fresh, fresh);
    }
}

#[tokio::test]
async fn the_limits_are_those_of_the_configuration() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start_with(&database, |config| {
        config.session.lifetime_s = 100;
        config.session.idle_limit_s = 10;
        config.session.remembered_lifetime_s = 1_000;
        config.session.remembered_idle_limit_s = 200;
        config.session.fresh_window_s = 5;
    })
    .await;
    let ada = server.add_bare_user("ada").await;
    let plain = server.open_session(&ada).await;
    let request = v1::CreateSessionRequest { remember: true, ..open_request(&ada) };
    let remembered = server.create_session(request).await;
    let ends = |session: &Option<v1::Session>| {
        let session = session.as_ref().expect("a session");
        (session.expire_time, session.idle_expire_time)
    };
    assert_eq!(ends(&plain.session), (moment(100 * SECOND), moment(10 * SECOND)));
    assert_eq!(ends(&remembered.session), (moment(1_000 * SECOND), moment(200 * SECOND)));
    server.advance(5 * SECOND).await;
    assert!(!server.validate(&plain.session_token).await.expect("good").fresh);
    server.advance(10 * SECOND).await;
    server.assert_dead(&plain.session_token, "SESSION_EXPIRED").await;
    server.assert_good(&remembered.session_token).await;
    server.advance(200 * SECOND).await;
    server.assert_dead(&remembered.session_token, "SESSION_EXPIRED").await;
}
