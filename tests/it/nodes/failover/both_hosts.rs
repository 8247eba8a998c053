//! Nodes whose URL lists both hosts follow the primary by themselves.

use super::{ALL, NODES, Scene};
use crate::crash::own_turn;
use crate::nodes::harness::{Fleet, USUAL_LEASE};
use crate::nodes::report::Fault;
use crate::support::databases::{TestDatabase, on_each_server};
use crate::support::replicated_server::{ReplicatedServer, Replication};
use crate::support::waiting::eventually;

on_each_server!(
    nodes_that_know_both_hosts_go_to_the_promoted_one_by_themselves,
    nodes_that_know_both_hosts_leave_the_old_primary_that_still_answers,
);

async fn at_both_hosts(db: &TestDatabase) -> Scene {
    let pair = ReplicatedServer::start(db.engine(), Replication::Synchronous).await;
    let own = pair.database().await;
    let url = pair.both_hosts(&own);
    let mut fleet = Fleet::start_at(&own, NODES.len(), USUAL_LEASE, Some(&url)).await;
    fleet.load().await;
    Scene { pair, fleet }
}

async fn nodes_that_know_both_hosts_go_to_the_promoted_one_by_themselves(db: &TestDatabase) {
    let _turn = own_turn().await;
    let mut scene = at_both_hosts(db).await;
    let mut fault = Fault::begin("fail-over, both hosts in the URL", &NODES);
    scene.pair.primary.stop().await;
    scene.pair.promote_standby().await;
    scene.is_back(&mut fault).await;
    let report = scene.fleet.end_looking_back("fail-over, both hosts in the URL", ALL).await;
    report.tell(&[fault]);
}

/// A switch-over: the old primary is there, and takes no writes any more.
async fn nodes_that_know_both_hosts_leave_the_old_primary_that_still_answers(db: &TestDatabase) {
    let _turn = own_turn().await;
    let scene = at_both_hosts(db).await;
    let pair = &scene.pair;
    // The control of what is waited for below.
    assert!(pair.connections_to_old_primary().await > 0, "the nodes use the primary");
    let mut fault = Fault::begin("switch-over, both hosts in the URL", &NODES);
    pair.primary_takes_no_writes().await;
    pair.standby_catches_up().await;
    pair.promote_standby().await;
    scene.is_back(&mut fault).await;
    eventually("no node uses the old primary", async || pair.connections_to_old_primary().await == 0).await;
    let report = scene.fleet.end_looking_back("switch-over, both hosts in the URL", ALL).await;
    report.tell(&[fault]);
}
