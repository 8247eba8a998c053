//! What a lease of some length costs: statements of an idle node, leases lost on a slow database and on a busy machine, and
//! the wait of revocations for a node that died. An idle fleet is looked at in every run. `LATCHKEY_TEST_LEASE=2000`
//! measures all of it for a lease of so many milliseconds.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use latchkey::fleet::follower::wait_for_silent;
use rustix::process::Signal;

use super::harness::{Fleet, USUAL_LEASE, while_time_passes};
use super::log::{Entry, now};
use super::report::{Fault, spread};
use crate::crash::own_turn;
use crate::support::databases::{Engine, TestDatabase, on_each_server};
use crate::support::tcp_proxy::Network;
use crate::support::waiting::eventually;

/// Names the lease to measure.
const LEASE_FROM: &str = "LATCHKEY_TEST_LEASE";
/// How long an idle fleet is watched.
const IDLE: Duration = Duration::from_secs(6);
/// How late the answers of a slow database are, and how long that lasts.
const LATE: [(&str, Duration); 2] = [
    ("answers 200 ms late", Duration::from_millis(200)),
    ("answers 500 ms late", Duration::from_millis(500)),
];
const SLOW: Duration = Duration::from_secs(8);
/// How long a database answers nothing.
const PAUSES: [(&str, Duration); 4] = [
    ("no answer for 0.7 s", Duration::from_millis(700)),
    ("no answer for 1.5 s", Duration::from_millis(1_500)),
    ("no answer for 2.5 s", Duration::from_millis(2_500)),
    ("no answer for 3.5 s", Duration::from_millis(3_500)),
];
/// How long a machine is busy.
const BUSY: Duration = Duration::from_secs(15);
/// Processes that do nothing but compute, on each processor, beside the nodes and their callers.
const BUSY_PER_CPU: usize = 3;

on_each_server!(an_idle_node_asks_little_of_the_database);

async fn an_idle_node_asks_little_of_the_database(db: &TestDatabase) {
    let _turn = own_turn().await;
    match std::env::var(LEASE_FROM) {
        Ok(lease) => measure(db, Duration::from_millis(lease.parse().expect("milliseconds"))).await,
        Err(_) => idle(db, &Fleet::start(db, 2, USUAL_LEASE).await).await,
    }
}

/// Everything about one lease.
async fn measure(db: &TestDatabase, lease: Duration) {
    let mut fleet = Fleet::start(db, 3, lease).await;
    idle(db, &fleet).await;
    fleet.load().await;
    let mut faults = Vec::new();
    for (name, late_by) in LATE {
        faults.push(disturbed(&fleet, name, Network::LateAnswers(late_by), SLOW).await);
    }
    for (name, span) in PAUSES {
        faults.push(disturbed(&fleet, name, Network::SlowAnswers, span).await);
    }
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let crowd: Vec<_> = (0..cpus * BUSY_PER_CPU).map(|_| Busy::begin()).collect();
    faults.push(disturbed(&fleet, "a busy machine", Network::Up, BUSY).await);
    drop(crowd);
    faults.push(without_a_node(&fleet, db).await);
    let report = fleet.end("lease").await;
    report.tell(&faults);
    println!("lease {} ms, {}: W {} ms", lease.as_millis(), db.engine(), wait_for_silent(lease).as_millis());
    for fault in &faults {
        let count = |such: fn(&Entry) -> bool| report.during(fault).filter(|entry| such(entry)).count();
        let ended = report.during(fault).filter(|entry| entry.is_revocation()).map(Entry::took);
        println!(
            "  {}: LEASE_LOST {} of {} questions; revocations {}",
            fault.name(),
            count(|entry| entry.is_refused_for("LEASE_LOST")),
            count(Entry::is_question),
            spread(ended)
        );
    }
}

/// Something happens to the networks of all nodes, for `span`.
async fn disturbed(fleet: &Fleet, name: &'static str, network: Network, span: Duration) -> Fault {
    let mut fault = Fault::begin(name, &[0, 1, 2]);
    fleet.slots.iter().for_each(|slot| slot.proxy.set(network));
    while_time_passes(span).await;
    let over = fault.end();
    fleet.slots.iter().for_each(|slot| slot.proxy.set(Network::Up));
    for number in 0..3 {
        fault.recovered(fleet.answers(number, over).await);
    }
    fault
}

/// A node dies, and another one takes its place when it is let go of.
async fn without_a_node(fleet: &Fleet, db: &TestDatabase) -> Fault {
    let mut fault = Fault::begin("SIGKILL", &[2]);
    fleet.slots[2].signal(Signal::KILL);
    fleet.slots[2].ended().await;
    let raw = db.raw().await;
    eventually("it is let go of", async || raw.number("SELECT COUNT(*) FROM nodes").await == 2).await;
    raw.close().await;
    let gone = fault.end();
    println!("let go of {} ms after it died", gone.since(fault.began()).as_millis());
    fleet.slots[2].start().await;
    fault.recovered(fleet.answers(2, gone).await);
    fault
}

/// An idle node polls, says that it is there, and looks at the list of nodes; nothing else.
async fn idle(db: &TestDatabase, fleet: &Fleet) {
    let slot = &fleet.slots[0];
    let (before, begun) = (slot.metrics().await.all_store_calls(), now());
    while_time_passes(IDLE).await;
    let (after, took) = (slot.metrics().await.all_store_calls(), now().since(begun));
    let grown = |step: &str| {
        let count = |calls: &BTreeMap<String, f64>| calls.get(step).copied().unwrap_or_default();
        count(&after) - count(&before)
    };
    let each_second = |count: f64| count / took.as_secs_f64();
    let all: f64 = after.keys().map(|step| grown(step)).sum();
    println!(
        "idle, {}, lease {} ms: {:.1} statements a second and node: {:.1} polls, {:.1} acknowledgements, {:.1} looks at \
         the list",
        db.engine(),
        fleet.lease.as_millis(),
        each_second(all),
        each_second(grown("poll")),
        each_second(grown("acknowledge")),
        each_second(grown("nodes")),
    );
    let poll = if db.engine() == Engine::Mariadb { 10.0 } else { 2.0 };
    // Twice as many polls, because they may be woken by what was done before.
    let most = 2.0 * poll + 4.0 / fleet.lease.as_secs_f64() + 1.5;
    assert!(each_second(all) <= most, "{all} in {took:?}, and {most} a second were expected");
}

/// A process that computes until the end of the test.
struct Busy(Child);

impl Busy {
    fn begin() -> Self {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "while :; do :; done"]).stdin(Stdio::null());
        Self(shell.spawn().expect("a shell"))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
