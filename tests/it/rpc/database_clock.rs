//! The database's clock jumps, as after a fail-over to a server whose clock is wrong: no session expires by it, nothing is
//! purged, and all goes on when it is right again.

use std::time::Duration;

use latchkey::grpc::proto::v1;
use latchkey::grpc::proto::v1::revoke_sessions_request::Target;
use tonic::Code;

use crate::support::databases::{Engine, TestDatabase};
use crate::support::refusals::reason_of;
use crate::support::server::{TestServer, open_request, span};
use crate::support::waiting::eventually;

const TWO_DAYS_MS: i64 = 2 * 86_400_000;
const TWO_HOURS_MS: i64 = 2 * 3_600_000;
const HOUR: Duration = Duration::from_hours(1);

impl TestServer {
    /// Shifts the database's clock against that of the machine, and waits until the node has heard of it.
    async fn shift_database_clock(&self, ahead: i64) {
        self.faults.shift_database_clock(ahead);
        let polls = self.fleet.stats().polls;
        eventually("the node polls twice", async || {
            self.fleet.nudge();
            self.fleet.stats().polls >= polls + 2
        })
        .await;
        assert_eq!(self.fleet.stats().clock_jump_ms, ahead);
    }

    /// Whether the node purges, as far as three more looks after the list of nodes tell, one a second.
    async fn purges(&self) -> bool {
        let (purges, looks) = (self.faults.calls("purge_sessions"), self.faults.calls("nodes"));
        self.faults.asked_for("nodes", looks + 3).await;
        self.faults.calls("purge_sessions") > purges
    }

    async fn reason(&self, token: &str) -> Option<(Code, String)> {
        self.verdict(token).await.err()
    }
}

fn lease_lost() -> (Code, String) {
    (Code::Unavailable, "LEASE_LOST".to_owned())
}

#[tokio::test]
async fn a_jump_of_the_databases_clock_expires_and_purges_nothing() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let change = |config: &mut latchkey::config::Config| config.maintenance.purge_interval_s = 1;
    let server = TestServer::start_with(&database, change).await;
    let ada = server.add_bare_user("ada").await;
    let expired = server.open_session(&ada).await.session_token;
    server.advance(HOUR).await;
    let [good, revoked] = [server.open_session(&ada).await, server.open_session(&ada).await];
    let remembered =
        server.create_session(v1::CreateSessionRequest { remember: true, ..open_request(&ada) }).await;
    server.log_out(&revoked.session_token).await;
    server.assert_dead(&expired, "SESSION_EXPIRED").await;
    assert!(server.purges().await, "it does so each second");

    for ahead in [TWO_DAYS_MS, -TWO_HOURS_MS] {
        server.shift_database_clock(ahead).await;
        let new = server.open_session(&ada).await.session_token;
        if ahead > 0 {
            for token in [&good.session_token, &new] {
                assert_eq!(server.reason(token).await, Some(lease_lost()), "neither expired nor good");
            }
            server.assert_dead(&expired, "SESSION_EXPIRED").await;
        } else {
            server.assert_good(&good.session_token).await;
            assert_eq!(server.reason(&expired).await, Some(lease_lost()), "by that clock it is not over yet");
        }
        // What is so by either clock is answered.
        server.assert_good(&remembered.session_token).await;
        server.assert_dead(&revoked.session_token, "SESSION_REVOKED").await;
        assert_eq!(server.revoke(Target::SessionToken(new)).await.expect("logged out").revoked_count, 1);
        assert!(!server.purges().await, "nothing is old by a clock that nobody knows to be right");

        server.shift_database_clock(0).await;
        server.assert_good(&good.session_token).await;
        server.assert_good(&remembered.session_token).await;
        server.assert_dead(&expired, "SESSION_EXPIRED").await;
        assert!(server.purges().await);
    }
}

#[tokio::test]
async fn freshness_needs_both_clocks() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let ada = server.add_bare_user("ada").await;
    let token = server.open_session(&ada).await.session_token;
    let fresh = async || server.validate(&token).await.expect("it is good").fresh;
    assert!(fresh().await);
    // Within the idle limit, and beyond what counts as fresh.
    server.shift_database_clock(30 * 60_000).await;
    assert!(!fresh().await, "by the database's clock it is not");
    let demanding = v1::ValidateSessionRequest {
        session_token: token.clone(),
        max_auth_age: Some(span(60, 0)),
        ..v1::ValidateSessionRequest::default()
    };
    let refused = server.ask(demanding).await.expect_err("it depends on the clock");
    assert_eq!(reason_of(&refused).1, "LEASE_LOST");
    server.shift_database_clock(0).await;
    assert!(fresh().await);
}
