//! The lease as an operator changes it.

use std::time::Duration;

use latchkey::fleet::follower::wait_for_silent;
use latchkey::grpc::proto::admin;
use latchkey::grpc::proto::admin::fleet_service_client::FleetServiceClient;

use super::fleet::nodes;
use crate::support::databases::{Engine, TestDatabase, on_each_engine};
use crate::support::refusals::assert_blames;
use crate::support::server::{TestServer, span};
use crate::support::waiting::eventually;

on_each_engine!(the_lease_changes_when_everybody_has_waited_long_enough);

async fn the_lease_changes_when_everybody_has_waited_long_enough(db: &TestDatabase) {
    let server = TestServer::start(db).await;
    let mut client = FleetServiceClient::new(server.channel().await);
    for seconds in [9, 2] {
        let lease_duration = Some(span(seconds, 0));
        let before = nodes(&server, admin::ListNodesRequest::default()).await;
        let (old, new) = (before.lease_duration.expect("a lease"), span(seconds, 0));
        let shorter = if old.seconds < seconds { old } else { new };
        let longer = if old.seconds < seconds { new } else { old };
        let request = admin::SetLeaseRequest { lease_duration };
        let begun = client.set_lease(request).await.expect("begun").into_inner();
        let waits = wait_for_silent(Duration::try_from(longer).expect("a span"));
        assert_eq!((begun.lease_duration, begun.longest_lease_duration), (Some(shorter), Some(longer)));
        assert_eq!(begun.target_lease_duration, lease_duration);
        assert!(Duration::try_from(begun.settle_duration.expect("a span")).is_ok_and(|span| span >= waits));
        let again = client.set_lease(request).await.expect("it is on its way").into_inner();
        assert_eq!((again.lease_duration, again.longest_lease_duration), (Some(shorter), Some(longer)));

        // Time stands still, so it is not in force, however often the node looks.
        let looks = server.faults.calls("nodes");
        eventually("the node looks", async || server.faults.calls("nodes") > looks + 2).await;
        let listed = nodes(&server, admin::ListNodesRequest::default()).await;
        assert_eq!((listed.lease_duration, listed.longest_lease_duration), (Some(shorter), Some(longer)));
        assert_eq!(listed.target_lease_duration, lease_duration);

        server.advance(waits).await;
        eventually("it is in force", async || {
            let listed = nodes(&server, admin::ListNodesRequest::default()).await;
            (listed.lease_duration, listed.longest_lease_duration) == (lease_duration, lease_duration)
        })
        .await;
        eventually("the node takes such leases", async || {
            server.fleet.nudge();
            Ok(server.fleet.stats().lease_left) == Duration::try_from(span(seconds, 0))
        })
        .await;
        let settled = client.set_lease(request).await.expect("nothing to do").into_inner();
        assert_eq!(settled.settle_duration, Some(span(0, 0)));
    }
}

#[tokio::test]
async fn a_lease_that_no_fleet_can_have_is_refused() {
    let database = TestDatabase::create(Engine::Sqlite).await;
    let server = TestServer::start(&database).await;
    let mut client = FleetServiceClient::new(server.channel().await);
    for lease_duration in [
        None,
        Some(span(0, 0)),
        Some(span(-4, 0)),
        Some(span(1, 499_000_000)),
        Some(span(60, 1_000_000)),
        Some(span(2, 1)),
        Some(span(i64::MAX, i32::MAX)),
        Some(span(i64::MIN, i32::MIN)),
    ] {
        let refused = client.set_lease(admin::SetLeaseRequest { lease_duration }).await;
        assert_blames(refused, &["lease_duration"]);
    }
    assert_eq!(server.faults.calls("change_lease"), 0);
}
