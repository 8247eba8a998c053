//! The idle limit across nodes: a use shortly before a session would seem idle elsewhere is in the database first.

use std::sync::Arc;
use std::time::Duration;

use crate::support::databases::{TestDatabase, on_each_server};
use crate::support::server::{TestServer, config, key_ring};

on_each_server!(a_last_use_is_written_before_it_is_answered);

/// The idle limit of a session that is not remembered.
const LIMIT: Duration = Duration::from_hours(1);
const MOMENT: Duration = Duration::from_millis(500);

async fn a_last_use_is_written_before_it_is_answered(database: &TestDatabase) {
    // Uses are written down once a minute at most, and the next turn is far away.
    let mut config = config();
    config.maintenance.last_seen_flush_ms = 60_000;
    let used = TestServer::try_start(database, &config, Arc::default(), key_ring()).await;
    let used = used.unwrap_or_else(|why| panic!("{why}"));
    let other = TestServer::try_start(database, &config, Arc::clone(&used.clock), key_ring()).await;
    let other = other.unwrap_or_else(|why| panic!("{why}"));
    let ada = used.add_bare_user("ada").await;
    let token = used.open_session(&ada).await.session_token;
    other.assert_good(&token).await;
    // The two have one clock.
    let advance = async |span| {
        used.advance(span).await;
        other.advance(Duration::ZERO).await;
    };
    advance(LIMIT.checked_sub(MOMENT).expect("it is longer")).await;
    used.assert_good(&token).await;
    // Now it is idle by the use before.
    advance(MOMENT).await;
    other.assert_good(&token).await;
    advance(LIMIT).await;
    other.assert_dead(&token, "SESSION_EXPIRED").await;
    used.assert_dead(&token, "SESSION_EXPIRED").await;
    used.stop().await;
    other.stop().await;
}
