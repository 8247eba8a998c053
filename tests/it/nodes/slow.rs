//! A database that is far away, or overloaded: each answer comes late. Memory answers as fast as ever; what has to reach the
//! database takes so much longer.

use std::time::Duration;

use super::harness::{Fleet, USUAL_LEASE, while_time_passes};
use super::report::Fault;
use crate::crash::own_turn;
use crate::support::databases::{TestDatabase, on_each_server};
use crate::support::tcp_proxy::Network;

const LATE_BY: Duration = Duration::from_millis(200);
/// How long it lasts: more than a lease.
const SPAN: Duration = Duration::from_secs(8);

on_each_server!(a_slow_database_costs_no_lease);

async fn a_slow_database_costs_no_lease(db: &TestDatabase) {
    let _turn = own_turn().await;
    let mut fleet = Fleet::start(db, 3, USUAL_LEASE).await;
    fleet.load().await;
    let mut fault = Fault::begin("answers 200 ms late", &[0, 1, 2]);
    for slot in fleet.slots.iter() {
        slot.proxy.set(Network::LateAnswers(LATE_BY));
    }
    while_time_passes(SPAN).await;
    for number in 0..3 {
        fleet.revokes(number, fault.began(), 2).await;
    }
    let over = fault.end();
    for (number, slot) in fleet.slots.iter().enumerate() {
        slot.proxy.set(Network::Up);
        fault.recovered(fleet.answers(number, over).await);
    }
    let report = fleet.end("slow database").await;
    report.tell(&[fault]);
    let lost = report.entries().iter().filter(|entry| entry.is_refused_for("LEASE_LOST")).count();
    assert_eq!(lost, 0, "a lease is longer than a few slow answers");
}
