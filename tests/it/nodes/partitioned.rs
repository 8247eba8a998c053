//! One node is cut off from the database, in each way there is, while the others are not: it answers from memory as long as
//! its lease holds, then says that it cannot know, and is back by itself.

use std::time::Duration;

use latchkey::fleet::follower::wait_for_silent;

use super::harness::{Fleet, SHORT_LEASE};
use super::report::Fault;
use crate::crash::own_turn;
use crate::support::databases::{TestDatabase, on_each_server};
use crate::support::tcp_proxy::Network;

/// What a revocation may take besides its wait, on a busy test machine.
const SLACK: Duration = Duration::from_secs(2);
/// How long a node may take to be back. A connection that died silently is noticed by a question that is not answered.
const BACK_MAX: Duration = Duration::from_secs(8);

on_each_server!(a_node_without_its_database_fails_closed_and_comes_back);

async fn a_node_without_its_database_fails_closed_and_comes_back(db: &TestDatabase) {
    let _turn = own_turn().await;
    let mut fleet = Fleet::start(db, 3, SHORT_LEASE).await;
    fleet.load().await;
    let mut faults = Vec::new();
    for (name, network) in [
        ("refusal", Network::Refusing),
        ("silence", Network::Silent),
        ("answers held back", Network::SlowAnswers),
        ("questions held back", Network::SlowQuestions),
    ] {
        let number = fleet.dice.below(3);
        let proxy = &fleet.slots[number].proxy;
        let mut fault = Fault::begin(name, &[number]);
        proxy.set(network);
        fleet.loses_its_lease(number, fault.began(), 10).await;
        let mut elsewhere = (0..3).filter(|other| *other != number);
        fleet.revokes(elsewhere.next().expect("another"), fault.began(), 5).await;
        let over = fault.end();
        proxy.set(Network::Up);
        let back = fleet.answers(number, over).await;
        assert!(back.since(over) < BACK_MAX, "{name}: back after {:?}", back.since(over));
        fault.recovered(back);
        fleet.revokes(number, over, 2).await;
        faults.push(fault);
    }
    for number in 0..3 {
        // All connections at once: answers come from memory, so nobody who asks notices, but for what memory lacks.
        let mut fault = Fault::begin("all connections cut once", &[number]);
        fleet.slots[number].proxy.cut();
        let over = fault.end();
        fleet.revokes(number, over, 2).await;
        fault.recovered(fleet.answers(number, over).await);
        faults.push(fault);
    }
    let lease = fleet.lease;
    let report = fleet.end("cut off").await;
    report.tell(&faults);
    report.assert_spared(&faults);
    let longest = report.longest_revocation_elsewhere(&faults);
    assert!(longest < wait_for_silent(lease) + SLACK, "{longest:?}");
}
