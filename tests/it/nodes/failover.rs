//! The primary dies and its standby is promoted. With synchronous replication nothing is lost. An asynchronous standby may
//! lack commits that were acknowledged; the nodes remember what ended, and write it again.

use std::time::Duration;

use latchkey::domain::time::BootTime;
use rustix::process::Signal;

use super::harness::{Fleet, SHORT_LEASE, USUAL_LEASE};
use super::log::now;
use super::report::Fault;
use crate::crash::own_turn;
use crate::history::checker::Violation;
use crate::support::databases::{TestDatabase, on_each_server};
use crate::support::replicated_server::{ReplicatedServer, Replication};
use crate::support::waiting::eventually;

/// How long after the switch the nodes may take to answer and to end sessions.
const BACK_MAX: Duration = Duration::from_secs(10);
const NODES: [usize; 3] = [0, 1, 2];
/// Every session of the run.
const ALL: usize = usize::MAX;

on_each_server!(
    a_fail_over_to_a_synchronous_standby_undoes_nothing,
    what_a_standby_lost_is_written_again,
    what_no_node_remembers_is_lost,
    nodes_that_know_both_hosts_go_to_the_promoted_one_by_themselves,
    nodes_that_know_both_hosts_leave_the_old_primary_that_still_answers,
);

async fn a_fail_over_to_a_synchronous_standby_undoes_nothing(db: &TestDatabase) {
    let _turn = own_turn().await;
    let mut pair = ReplicatedServer::start(db.engine(), Replication::Synchronous).await;
    let own = pair.database().await;
    let mut fleet = Fleet::start(&own, NODES.len(), USUAL_LEASE).await;
    fleet.load().await;
    let mut fault = Fault::begin("fail-over, synchronous standby", &NODES);
    fail_over(&mut pair, &fleet, None).await;
    is_back(&fleet, &mut fault).await;
    let report = fleet.end_looking_back("fail-over to a synchronous standby", ALL).await;
    report.tell(&[fault]);
}

async fn what_a_standby_lost_is_written_again(db: &TestDatabase) {
    let _turn = own_turn().await;
    let mut pair = ReplicatedServer::start(db.engine(), Replication::Asynchronous).await;
    let own = pair.database().await;
    let mut fleet = Fleet::start(&own, NODES.len(), SHORT_LEASE).await;
    fleet.load().await;
    let behind = falls_behind(&pair, &fleet).await;
    let mut fault = Fault::begin("fail-over, commits lost", &NODES);
    fail_over(&mut pair, &fleet, Some(behind)).await;
    is_back(&fleet, &mut fault).await;
    // A node that starts now knows what is in the database, and nothing else.
    restart(&fleet, &[2], Signal::TERM).await;
    fleet.answers(2, now()).await;
    let report = fleet.end_looking_back("fail-over that lost commits", ALL).await;
    report.tell(&[fault]);
}

/// The control of the other two: where every node died with the primary, acknowledged log-outs are gone, and that is found.
async fn what_no_node_remembers_is_lost(db: &TestDatabase) {
    let _turn = own_turn().await;
    let mut pair = ReplicatedServer::start(db.engine(), Replication::Asynchronous).await;
    let own = pair.database().await;
    let mut fleet = Fleet::start(&own, NODES.len(), SHORT_LEASE).await;
    fleet.load().await;
    let behind = falls_behind(&pair, &fleet).await;
    for number in NODES {
        fleet.slots[number].signal(Signal::KILL);
    }
    fail_over(&mut pair, &fleet, Some(behind)).await;
    for number in NODES {
        fleet.slots[number].ended().await;
        fleet.slots[number].start().await;
        fleet.answers(number, now()).await;
    }
    let violations = fleet.violations(ALL).await;
    let accepted = |violation: &Violation| matches!(violation, Violation::AcceptedAfterRevocation { .. });
    let found = violations.iter().filter(|(_, violation)| accepted(violation)).count();
    println!(
        "fail-over that nobody survived, {}: {found} sessions accepted after OK, as must be",
        db.engine()
    );
    assert!(found > 0, "the checker finds what is really lost: {violations:?}");
}

async fn nodes_that_know_both_hosts_go_to_the_promoted_one_by_themselves(db: &TestDatabase) {
    let _turn = own_turn().await;
    let mut pair = ReplicatedServer::start(db.engine(), Replication::Synchronous).await;
    let own = pair.database().await;
    let url = pair.both_hosts(&own);
    let mut fleet = Fleet::start_at(&own, NODES.len(), USUAL_LEASE, Some(&url)).await;
    fleet.load().await;
    let mut fault = Fault::begin("fail-over, both hosts in the URL", &NODES);
    pair.primary.stop().await;
    pair.promote_standby().await;
    is_back(&fleet, &mut fault).await;
    let report = fleet.end_looking_back("fail-over, both hosts in the URL", ALL).await;
    report.tell(&[fault]);
}

/// A switch-over: the old primary is there, and takes no writes any more.
async fn nodes_that_know_both_hosts_leave_the_old_primary_that_still_answers(db: &TestDatabase) {
    let _turn = own_turn().await;
    let pair = ReplicatedServer::start(db.engine(), Replication::Synchronous).await;
    let own = pair.database().await;
    let url = pair.both_hosts(&own);
    let mut fleet = Fleet::start_at(&own, NODES.len(), USUAL_LEASE, Some(&url)).await;
    fleet.load().await;
    // The control of what is waited for below.
    assert!(pair.connections_to_old_primary().await > 0, "the nodes use the primary");
    let mut fault = Fault::begin("switch-over, both hosts in the URL", &NODES);
    pair.primary_takes_no_writes().await;
    pair.standby_catches_up().await;
    pair.promote_standby().await;
    is_back(&fleet, &mut fault).await;
    eventually("no node uses the old primary", async || pair.connections_to_old_primary().await == 0).await;
    let report = fleet.end_looking_back("switch-over, both hosts in the URL", ALL).await;
    report.tell(&[fault]);
}

/// Lets the standby fall behind, and the nodes end sessions that it does not know of; returns since when.
async fn falls_behind(pair: &ReplicatedServer, fleet: &Fleet) -> BootTime {
    // Whatever was begun earlier may be lost as well.
    let behind = now();
    pair.standby_falls_behind().await;
    let cut = now();
    for number in NODES {
        fleet.revokes(number, cut, 5).await;
    }
    behind
}

/// Kills the primary, promotes the standby, and leads the nodes there. `lost` says since when commits are missing.
async fn fail_over(pair: &mut ReplicatedServer, fleet: &Fleet, lost: Option<BootTime>) {
    pair.primary.stop().await;
    pair.promote_standby().await;
    if let Some(since) = lost {
        fleet.log().lose_commits_since(since);
    }
    fleet.switch_to(&pair.standby.address());
}

/// Waits until each node answers and ends sessions again.
async fn is_back(fleet: &Fleet, fault: &mut Fault) {
    let over = fault.end();
    for number in NODES {
        let back = fleet.answers(number, over).await;
        fault.recovered(back);
        fleet.revokes(number, over, 2).await;
    }
    let took = now().since(over);
    println!("sessions were ended everywhere {} ms after the switch", took.as_millis());
    assert!(took < BACK_MAX, "{took:?}");
}

async fn restart(fleet: &Fleet, slots: &[usize], signal: Signal) {
    for number in slots {
        fleet.slots[*number].signal(signal);
        fleet.slots[*number].ended().await;
        fleet.slots[*number].start().await;
    }
}
