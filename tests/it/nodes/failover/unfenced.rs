//! The standby is promoted and the old primary lives on, reachable over connections that exist. With synchronous
//! replication it acknowledges no commit any more, but it answers reads: a node that follows it must not keep its lease.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use latchkey::domain::time::BootTime;
use latchkey::grpc::proto::v1::revoke_sessions_request::Target as Wanted;

use super::super::harness::{SHORT_LEASE, while_time_passes};
use super::super::load::{ask, revoke, sign_in};
use super::super::log::{Entry, now};
use super::{ALL, Scene, is_accepted_after_revocation};
use crate::crash::own_turn;
use crate::history::books::Known;
use crate::history::checker::{Target, Violation};
use crate::support::databases::{TestDatabase, on_each_server};
use crate::support::replicated_server::Replication;
use crate::support::waiting::eventually;

/// The node that stays with the old primary, and the one that goes to the new one.
const OLD: usize = 0;
const NEW: usize = 1;
const LOG_OUTS: usize = 5;
/// How long a node may take to come back once the old primary is fenced.
const BACK_MAX: Duration = Duration::from_secs(15);

on_each_server!(
    a_node_on_an_old_primary_stops_answering,
    without_synchronous_replication_an_old_primary_is_believed,
);

async fn a_node_on_an_old_primary_stops_answering(db: &TestDatabase) {
    let _turn = own_turn().await;
    let scene = Scene::start(db, Replication::Synchronous, 2, SHORT_LEASE).await;
    let promoted = scene.splits().await;
    let fleet = &scene.fleet;
    fleet.loses_its_lease(OLD, promoted, 5).await;
    let last_good = |entry: &&Entry| entry.process.slot == OLD && entry.is_good();
    let last = fleet.log().entries().iter().filter(last_good).map(|entry| entry.began).max();
    let span = last.expect("it answered before").since(promoted);
    println!(
        "old primary not fenced, {}: its node gave its last answer {} ms after the promotion, lease {} ms",
        db.engine(),
        span.as_millis(),
        SHORT_LEASE.as_millis()
    );
    assert!(span <= SHORT_LEASE, "the lease outlives the last commit: {span:?}");
    // The operator fences it at last: the node comes back by itself, on the new primary.
    let fenced = now();
    fleet.slots[OLD].proxy.switch_to(&scene.pair.standby.address());
    fleet.slots[OLD].proxy.cut();
    let back = fleet.answers(OLD, fenced).await.since(fenced);
    println!("old primary fenced, {}: its node is back after {} ms", db.engine(), back.as_millis());
    assert!(back < BACK_MAX, "{back:?}");
    // Not covered: within its lease the node refuses sessions that the new primary made since, and a session that its
    // server never knew has nothing to end there, so that a revocation of it at this node returns OK.
    let entries = Arc::clone(&scene.fleet.world.log);
    let violations = scene.fleet.violations(ALL).await;
    let entries = entries.entries();
    let at_new = |tick: u64| entries.iter().any(|entry| entry.call.end == tick && entry.process.slot == NEW);
    let is_stale = |violation: &Violation| matches!(violation, Violation::AcceptedAfterRevocation { revoked, .. } if at_new(*revoked));
    let stale: Vec<_> = violations.iter().filter(|(_, violation)| is_stale(violation)).collect();
    assert!(stale.is_empty(), "accepted after the new primary's node returned OK: {stale:?}");
}

/// The control: an asynchronous primary commits without its standby, so only fencing helps.
async fn without_synchronous_replication_an_old_primary_is_believed(db: &TestDatabase) {
    let _turn = own_turn().await;
    let scene = Scene::start(db, Replication::Asynchronous, 2, SHORT_LEASE).await;
    let promoted = scene.splits().await;
    scene.fleet.answers(OLD, promoted.plus(SHORT_LEASE)).await;
    let violations = scene.fleet.violations(0).await;
    let found = violations.iter().filter(|(_, violation)| is_accepted_after_revocation(violation)).count();
    println!("asynchronous old primary not fenced, {}: {found} stale answers, as must be", db.engine());
    assert!(found > 0, "the checker finds stale answers: {violations:?}");
}

impl Scene {
    /// Promotes the standby, leads one node there, ends sessions at it, and asks the other node about them. Returns when
    /// the standby was promoted.
    async fn splits(&self) -> BootTime {
        let fleet = &self.fleet;
        let mut kept: Vec<Known> = Vec::new();
        for number in 0..LOG_OUTS {
            sign_in(fleet.log(), fleet.slots[OLD].door(), fleet.world.users[number].clone()).await;
            kept.extend(fleet.log().session_back(0));
        }
        self.pair.standby_catches_up().await;
        self.pair.promote_standby().await;
        let promoted = now();
        fleet.slots[NEW].proxy.switch_to(&self.pair.standby.address());
        fleet.slots[NEW].proxy.cut();
        fleet.revokes(NEW, promoted, 2).await;
        // By then no lease from before the promotion is left.
        while_time_passes(SHORT_LEASE).await;
        join_all(kept.into_iter().map(|session| self.ends_and_asks(session))).await;
        promoted
    }

    /// Ends a session at the one node, and asks the other one.
    async fn ends_and_asks(&self, session: Known) {
        let (wanted, target) = (Wanted::SessionId(session.id.clone()), Target::Session(session.id.clone()));
        let fleet = &self.fleet;
        eventually("the new primary takes the log-out", async || {
            revoke(fleet.log(), fleet.slots[NEW].door(), wanted.clone(), target.clone()).await
        })
        .await;
        ask(fleet.log(), fleet.slots[OLD].door(), session).await;
    }
}
