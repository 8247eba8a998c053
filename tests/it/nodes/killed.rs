//! SIGKILL: a node is gone from one moment to the next, and another one takes its place.

use rustix::process::Signal;

use super::harness::{Fleet, SHORT_LEASE};
use super::report::Fault;
use crate::crash::own_turn;
use crate::support::databases::{TestDatabase, on_each_server};

on_each_server!(a_killed_node_takes_nothing_with_it);

async fn a_killed_node_takes_nothing_with_it(db: &TestDatabase) {
    let _turn = own_turn().await;
    let mut fleet = Fleet::start(db, 3, SHORT_LEASE).await;
    fleet.load().await;
    let mut faults = Vec::new();
    for round in 0..3 {
        let (slot, other) = (&fleet.slots[round], (round + 1) % 3);
        let mut fault = Fault::begin("SIGKILL", &[round]);
        slot.signal(Signal::KILL);
        assert_eq!(slot.ended().await.code, None, "it was killed");
        // Its row is still there, so these wait until it can no longer hold a lease.
        fleet.revokes(other, fault.began(), 3).await;
        let restarted = fault.end();
        slot.start().await;
        fault.recovered(fleet.answers(round, restarted).await);
        faults.push(fault);
    }
    let report = fleet.end("killed").await;
    report.tell(&faults);
    report.assert_spared(&faults);
}
