//! The lease is changed up and down by the command, under load, while nodes stand still, and while the node that was asked is
//! killed.

use std::sync::Arc;
use std::time::Duration;

use latchkey::grpc::proto::admin::SetLeaseRequest;
use latchkey::grpc::proto::admin::fleet_service_client::FleetServiceClient;
use latchkey::grpc::proto::v1::revoke_sessions_request::Target as Wanted;
use rustix::process::Signal;
use tokio::task::JoinSet;
use tonic::transport::Endpoint;

use super::harness::{Fleet, SHORT_LEASE, while_time_passes};
use super::load::{ask, revoke, sign_in};
use super::log::{Entry, now};
use super::report::Fault;
use crate::crash::own_turn;
use crate::history::books::Known;
use crate::history::checker::Target;
use crate::support::databases::{Raw, TestDatabase, on_each_server};
use crate::support::node_process::{Ended, program, run};
use crate::support::tcp_proxy::Network;
use crate::support::waiting::eventually;

const LONG_LEASE: Duration = Duration::from_secs(8);
/// How long after the change has begun sessions are ended that the node knows.
const LOOKED: Duration = Duration::from_millis(1_800);
/// How much later the node goes on. It stands still for longer than revocations wait for the shorter lease.
const LATER: Duration = Duration::from_millis(500);
const SESSIONS: usize = 8;
const OTHER_LEASE: Duration = Duration::from_secs(3);

on_each_server!(the_lease_changes_both_ways_under_load);

async fn the_lease_changes_both_ways_under_load(db: &TestDatabase) {
    let _turn = own_turn().await;
    let mut fleet = Fleet::start(db, 3, SHORT_LEASE).await;
    fleet.load().await;
    let raw = db.raw().await;
    let mut faults = Vec::new();

    // Longer, while a node stands still that knows of the old lease only.
    let changing = set_lease(&fleet, 0, "8s");
    eventually("the change has begun", async || longest(&raw).await == 8_000).await;
    assert_eq!(lease(&raw).await, 2_000, "nobody takes it yet");
    let mut fault = Fault::begin("SIGSTOP while the lease becomes longer", &[2]);
    fleet.slots[2].signal(Signal::STOP);
    fleet.revokes(0, fault.began(), 3).await;
    let woken = fault.end();
    fleet.slots[2].signal(Signal::CONT);
    fault.recovered(fleet.answers(2, woken).await);
    faults.push(fault);
    in_force(changing, &raw, LONG_LEASE).await;

    // Shorter, while a node stands still that holds a lease of the old length, and wakes before that is over. It hears nothing
    // of its database, so it goes by that lease to its end.
    let lowered = now();
    for number in 0..3 {
        fleet.answers(number, lowered).await;
    }
    let mut sessions = Vec::new();
    for user in fleet.world.users.iter().take(SESSIONS) {
        sign_in(fleet.log(), fleet.slots[2].door(), user.clone()).await;
        // It may be one that was made at another node meanwhile.
        let session = fleet.log().session_back(0).expect("somebody signed in");
        ask(fleet.log(), fleet.slots[2].door(), session.clone()).await;
        sessions.push(session);
    }
    let mut fault = Fault::begin("SIGSTOP while the lease becomes shorter", &[2]);
    fleet.slots[2].signal(Signal::STOP);
    let changing = set_lease(&fleet, 0, "1500ms");
    eventually("nodes take the shorter one", async || lease(&raw).await == 1_500).await;
    assert_eq!(longest(&raw).await, 8_000, "who waits goes by the longer one");
    // Time enough for the other nodes to look after the change.
    while_time_passes(LOOKED).await;
    let mut ends = JoinSet::new();
    for session in sessions.clone() {
        ends.spawn(end(&fleet, session));
    }
    while_time_passes(LATER).await;
    fleet.slots[2].proxy.set(Network::SlowAnswers);
    let woken = now();
    fleet.slots[2].signal(Signal::CONT);
    let lost = |entry: &Entry| entry.process.slot == 2 && entry.is_refused_for("LEASE_LOST");
    eventually("the node loses its lease", async || {
        for session in &sessions {
            ask(fleet.log(), fleet.slots[2].door(), session.clone()).await;
        }
        fleet.log().count(woken, lost) > 0
    })
    .await;
    assert!(ends.join_all().await.into_iter().all(|is_done| is_done), "the sessions are ended");
    let heard = fault.end();
    fleet.slots[2].proxy.set(Network::Up);
    fault.recovered(fleet.answers(2, heard).await);
    fleet.revokes(0, heard, 3).await;
    faults.push(fault);
    in_force(changing, &raw, Duration::from_millis(1_500)).await;

    // The node that was asked is gone at once; the others end the change.
    let mut fault = Fault::begin("SIGKILL of the node that changes the lease", &[1]);
    let endpoint = Endpoint::from_shared(format!("http://{}", fleet.slots[1].grpc())).expect("an address");
    let mut asked = FleetServiceClient::new(endpoint.connect_lazy());
    let lease_duration = prost_types::Duration::try_from(OTHER_LEASE).ok();
    asked.set_lease(SetLeaseRequest { lease_duration }).await.expect("it has begun");
    fleet.slots[1].signal(Signal::KILL);
    fleet.slots[1].ended().await;
    assert_eq!(lease(&raw).await, 1_500);
    eventually("the others end the change", async || lease(&raw).await == 3_000).await;
    let restarted = fault.end();
    fleet.slots[1].start().await;
    fault.recovered(fleet.answers(1, restarted).await);
    faults.push(fault);
    raw.close().await;

    fleet.lease = OTHER_LEASE;
    let report = fleet.end("changing leases").await;
    report.tell(&faults);
}

/// Ends a session at the first node.
fn end(fleet: &Fleet, session: Known) -> impl Future<Output = bool> + use<> {
    let (log, door) = (Arc::clone(&fleet.world.log), fleet.slots[0].door());
    let (wanted, target) = (Wanted::SessionId(session.id.clone()), Target::Session(session.id));
    async move { revoke(&log, door, wanted, target).await }
}

type Changing = tokio::task::JoinHandle<Ended>;

/// Runs the command against a node.
fn set_lease(fleet: &Fleet, slot: usize, lease: &'static str) -> Changing {
    let server = format!("http://{}", fleet.slots[slot].grpc());
    tokio::task::spawn_blocking(move || {
        let mut command = program(&std::env::temp_dir());
        command.args(["fleet", "set-lease", lease, "--server", &server]);
        run(command, "")
    })
}

/// The command returns when the lease is in force, and not before.
async fn in_force(changing: Changing, raw: &Raw, expected: Duration) {
    let ended = changing.await.expect("it runs");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains(&format!("the lease is {:.1} s now", expected.as_secs_f64())), "{ended:?}");
    let expected = i64::try_from(expected.as_millis()).expect("it is short");
    assert_eq!((lease(raw).await, longest(raw).await), (expected, expected));
}

async fn lease(raw: &Raw) -> i64 {
    raw.number("SELECT lease_ms FROM log_head").await
}

async fn longest(raw: &Raw) -> i64 {
    raw.number(
        "SELECT CASE WHEN lease_longest_ms > lease_ms THEN lease_longest_ms ELSE lease_ms END FROM log_head",
    )
    .await
}
