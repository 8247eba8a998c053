//! SIGSTOP and SIGCONT: a node that stands still and does not know it. It wakes with an old memory, an old lease, and
//! perhaps an old answer of the database waiting for it.

use std::time::Duration;

use latchkey::fleet::follower::wait_for_silent;
use rustix::process::Signal;

use super::harness::{Fleet, SHORT_LEASE, while_time_passes};
use super::report::Fault;
use crate::crash::own_turn;
use crate::support::databases::{TestDatabase, on_each_server};
use crate::support::tcp_proxy::Network;
use crate::support::waiting::eventually;

/// What a revocation may take besides its wait, on a busy test machine.
const SLACK: Duration = Duration::from_secs(2);

on_each_server!(a_frozen_node_wakes_up_knowing_nothing);

async fn a_frozen_node_wakes_up_knowing_nothing(db: &TestDatabase) {
    let _turn = own_turn().await;
    let mut fleet = Fleet::start(db, 3, SHORT_LEASE).await;
    fleet.load().await;
    let mut faults = Vec::new();
    for name in ["SIGSTOP", "SIGSTOP, wakes without its database", "SIGSTOP, wakes to an old answer"] {
        let number = fleet.dice.below(3);
        let (slot, other) = (&fleet.slots[number], (number + 1) % 3);
        if name.ends_with("old answer") {
            // A poll is on its way, and its answer, from before all that follows, will be there when the node wakes.
            slot.proxy.set(Network::SlowAnswers);
            eventually("the node waits for an answer", async || slot.proxy.waiting() > 0).await;
        }
        let mut fault = Fault::begin(name, &[number]);
        slot.signal(Signal::STOP);
        slot.proxy.set(Network::Up);
        while_time_passes(fleet.lease.mul_f64(1.2)).await;
        fleet.revokes(other, fault.began(), 5).await;
        if name.ends_with("its database") {
            slot.proxy.set(Network::SlowAnswers);
        }
        let woken = fault.end();
        slot.signal(Signal::CONT);
        if name.ends_with("its database") {
            fleet.loses_its_lease(number, woken, 20).await;
            let good = fleet.log().count(woken, |entry| entry.process.slot == number && entry.is_good());
            assert_eq!(good, 0, "it has not caught up yet");
            fault.end();
            slot.proxy.set(Network::Up);
        }
        fault.recovered(fleet.answers(number, woken).await);
        faults.push(fault);
    }
    let lease = fleet.lease;
    let report = fleet.end("frozen").await;
    report.tell(&faults);
    report.assert_spared(&faults);
    let longest = report.longest_revocation_elsewhere(&faults);
    assert!(longest < wait_for_silent(lease) + SLACK, "{longest:?}");
}
