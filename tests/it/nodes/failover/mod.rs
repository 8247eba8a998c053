//! The primary dies and its standby is promoted. With synchronous replication nothing is lost. An asynchronous standby may
//! lack commits that were acknowledged; the nodes remember what ended, and write it again.
//!
//! `unfenced` has an old primary that lives on, `many_lost` what thousands of lost commits cost, `both_hosts` nodes that find the new
//! primary by themselves.

mod both_hosts;
mod many_lost;
mod unfenced;

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

/// How long after the switch the nodes may take to answer and to end sessions.
const BACK_MAX: Duration = Duration::from_secs(10);
const NODES: [usize; 3] = [0, 1, 2];
/// Every session of the run.
const ALL: usize = usize::MAX;

on_each_server!(
    a_fail_over_to_a_synchronous_standby_undoes_nothing,
    what_a_standby_lost_is_written_again,
    what_a_standby_lost_with_the_nodes_own_rows_is_written_again,
    what_no_node_remembers_is_lost,
);

async fn a_fail_over_to_a_synchronous_standby_undoes_nothing(db: &TestDatabase) {
    let _turn = own_turn().await;
    let mut scene = Scene::start(db, Replication::Synchronous, NODES.len(), USUAL_LEASE).await;
    let mut fault = Fault::begin("fail-over, synchronous standby", &NODES);
    scene.fail_over(None).await;
    scene.is_back(&mut fault).await;
    let report = scene.fleet.end_looking_back("fail-over to a synchronous standby", ALL).await;
    report.tell_unanswered(&fault);
    report.tell(&[fault]);
}

async fn what_a_standby_lost_is_written_again(db: &TestDatabase) {
    let _turn = own_turn().await;
    let scene = Scene::start(db, Replication::Asynchronous, NODES.len(), SHORT_LEASE).await;
    let behind = scene.falls_behind().await;
    scene.end_by_the_nodes_alone("fail-over that lost commits", behind).await;
}

/// The rows by which the nodes joined are lost as well, so the first thing they hear is that they do not belong.
async fn what_a_standby_lost_with_the_nodes_own_rows_is_written_again(db: &TestDatabase) {
    let _turn = own_turn().await;
    let mut scene = Scene::start_idle(db, Replication::Asynchronous, NODES.len(), SHORT_LEASE).await;
    let behind = now();
    scene.pair.standby_falls_behind().await;
    scene.restart(&NODES, Signal::TERM).await;
    // What was ended before the nodes began anew is known to none of them, so nothing is.
    scene.fleet.load().await;
    scene.ends_sessions(5).await;
    scene.end_by_the_nodes_alone("fail-over that lost commits and nodes", behind).await;
}

/// The control of the others: where every node died with the primary, acknowledged log-outs are gone, and that is found.
async fn what_no_node_remembers_is_lost(db: &TestDatabase) {
    let _turn = own_turn().await;
    let mut scene = Scene::start(db, Replication::Asynchronous, NODES.len(), SHORT_LEASE).await;
    let behind = scene.falls_behind().await;
    for number in NODES {
        scene.fleet.slots[number].signal(Signal::KILL);
    }
    scene.fail_over(Some(behind)).await;
    for number in NODES {
        scene.fleet.slots[number].ended().await;
        scene.fleet.slots[number].start().await;
        scene.fleet.answers(number, now()).await;
    }
    let violations = scene.fleet.violations(ALL).await;
    let found = violations.iter().filter(|(_, violation)| is_accepted_after_revocation(violation)).count();
    println!(
        "fail-over that nobody survived, {}: {found} sessions accepted after OK, as must be",
        db.engine()
    );
    assert!(found > 0, "the checker finds what is really lost: {violations:?}");
}

fn is_accepted_after_revocation(violation: &Violation) -> bool {
    matches!(violation, Violation::AcceptedAfterRevocation { .. })
}

/// A primary, its standby, and nodes on them that are called all the time.
struct Scene {
    pair: ReplicatedServer,
    fleet: Fleet,
}

impl Scene {
    async fn start(db: &TestDatabase, replication: Replication, nodes: usize, lease: Duration) -> Self {
        let mut scene = Self::start_idle(db, replication, nodes, lease).await;
        scene.fleet.load().await;
        scene
    }

    /// The same, and nobody calls yet.
    async fn start_idle(db: &TestDatabase, replication: Replication, nodes: usize, lease: Duration) -> Self {
        let pair = ReplicatedServer::start(db.engine(), replication).await;
        let fleet = Fleet::start(&pair.database().await, nodes, lease).await;
        Self { pair, fleet }
    }

    /// Lets the standby fall behind, and the nodes end sessions that it does not know of; returns since when.
    async fn falls_behind(&self) -> BootTime {
        // Whatever was begun earlier may be lost as well.
        let behind = now();
        self.pair.standby_falls_behind().await;
        self.ends_sessions(5).await;
        behind
    }

    /// Waits until each node has ended so many sessions from now on.
    async fn ends_sessions(&self, count: usize) {
        let since = now();
        for number in NODES {
            self.fleet.revokes(number, since, count).await;
        }
    }

    /// Kills the primary, promotes the standby, and leads the nodes there. `lost` says since when commits are missing.
    async fn fail_over(&mut self, lost: Option<BootTime>) {
        self.pair.primary.stop().await;
        self.pair.promote_standby().await;
        if let Some(since) = lost {
            self.fleet.log().lose_commits_since(since);
        }
        self.fleet.switch_to(&self.pair.standby.address());
    }

    /// Loses the commits since `behind`, and expects that the nodes write them again.
    async fn end_by_the_nodes_alone(mut self, title: &'static str, behind: BootTime) {
        let mut fault = Fault::begin(title, &NODES);
        self.fail_over(Some(behind)).await;
        self.is_back(&mut fault).await;
        // A node that starts now knows what is in the database, and nothing else.
        self.restart(&[2], Signal::TERM).await;
        self.fleet.answers(2, now()).await;
        let report = self.fleet.end_looking_back(title, ALL).await;
        report.tell_unanswered(&fault);
        report.tell(&[fault]);
    }

    /// Waits until each node answers and ends sessions again.
    async fn is_back(&self, fault: &mut Fault) {
        let over = fault.end();
        for number in NODES {
            let back = self.fleet.answers(number, over).await;
            fault.recovered(back);
            self.fleet.revokes(number, over, 2).await;
        }
        let took = now().since(over);
        println!("sessions were ended everywhere {} ms after the switch", took.as_millis());
        assert!(took < BACK_MAX, "{took:?}");
    }

    async fn restart(&self, slots: &[usize], signal: Signal) {
        for number in slots {
            self.fleet.slots[*number].signal(signal);
            self.fleet.slots[*number].ended().await;
            self.fleet.slots[*number].start().await;
        }
    }
}
