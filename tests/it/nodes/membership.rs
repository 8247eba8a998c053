//! Who is in the list of nodes: one that stops takes its row along, one that was killed is let go of in two phases.

use std::time::Duration;

use latchkey::fleet::follower::wait_for_silent;
use latchkey::fleet::membership::silent_max;
use rustix::process::Signal;

use super::harness::{Fleet, SHORT_LEASE};
use super::log::now;
use crate::crash::own_turn;
use crate::support::databases::{TestDatabase, on_each_server};
use crate::support::waiting::eventually;

/// How often a node looks after the list.
const LOOK: Duration = Duration::from_secs(5);
/// A busy test machine.
const SLACK: Duration = Duration::from_secs(3);

on_each_server!(who_stops_is_gone_at_once_and_who_was_killed_is_let_go_of);

async fn who_stops_is_gone_at_once_and_who_was_killed_is_let_go_of(db: &TestDatabase) {
    let _turn = own_turn().await;
    let mut fleet = Fleet::start(db, 4, SHORT_LEASE).await;
    fleet.load().await;
    let raw = db.raw().await;
    assert_eq!(raw.number("SELECT COUNT(*) FROM nodes").await, 4);

    fleet.slots[3].signal(Signal::TERM);
    assert_eq!(fleet.slots[3].ended().await.code, Some(0));
    assert_eq!(raw.number("SELECT COUNT(*) FROM nodes").await, 3, "who stops leaves no row");

    let killed = now();
    fleet.slots[2].signal(Signal::KILL);
    fleet.slots[2].ended().await;
    eventually("it is being let go of", async || {
        raw.number("SELECT COUNT(*) FROM nodes WHERE state = 2").await == 1
    })
    .await;
    let marked = now();
    eventually("its row is gone", async || raw.number("SELECT COUNT(*) FROM nodes").await == 2).await;
    let gone = now();
    println!(
        "killed, {}, lease {} ms: marked after {} ms, gone after {} ms",
        db.engine(),
        fleet.lease.as_millis(),
        marked.since(killed).as_millis(),
        gone.since(killed).as_millis()
    );
    let (silent, wait) = (silent_max(fleet.lease), wait_for_silent(fleet.lease));
    // Nodes say that they are there once in half a lease.
    assert!(marked.since(killed) + fleet.lease / 2 + SLACK / 10 >= silent, "not while it may only be slow");
    assert!(gone.since(marked) + SLACK / 10 >= wait, "not while it may still hold a lease");
    assert!(gone.since(killed) < silent + wait + 2 * LOOK + SLACK, "{:?}", gone.since(killed));

    raw.close().await;
    for slot in [2, 3] {
        fleet.slots[slot].start().await;
    }
    fleet.end("membership").await;
}
