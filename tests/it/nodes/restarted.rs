//! The database server itself restarts: for less than a lease, and nobody who asks notices; for longer, and the nodes say
//! that they cannot know until it is back. All by themselves.

use std::time::Duration;

use super::harness::{Fleet, USUAL_LEASE, while_time_passes};
use super::report::Fault;
use crate::crash::own_turn;
use crate::support::databases::{TestDatabase, on_each_server};
use crate::support::own_server::OwnServer;

/// How long after a restart the nodes may take to end sessions again.
const BACK_MAX: Duration = Duration::from_secs(10);

on_each_server!(a_restart_of_the_server_is_survived);

async fn a_restart_of_the_server_is_survived(db: &TestDatabase) {
    let _turn = own_turn().await;
    let mut server = OwnServer::start(db.engine()).await;
    let own = server.database().await;
    let mut fleet = Fleet::start(&own, 3, USUAL_LEASE).await;
    fleet.load().await;
    let mut faults = Vec::new();
    for (name, down) in
        [("restart, shorter than a lease", Duration::ZERO), ("restart, longer than a lease", USUAL_LEASE)]
    {
        let mut fault = Fault::begin(name, &[0, 1, 2]);
        server.stop().await;
        if down > Duration::ZERO {
            for number in 0..3 {
                fleet.loses_its_lease(number, fault.began(), 3).await;
            }
            while_time_passes(Duration::from_secs(1)).await;
        }
        let over = fault.end();
        server.restart().await;
        let up = fault.end();
        println!("{name}, {}: it was ready again after {} ms", db.engine(), up.since(over).as_millis());
        for number in 0..3 {
            let back = fleet.answers(number, up).await;
            fault.recovered(back);
            fleet.revokes(number, up, 2).await;
        }
        let revoked = crate::nodes::log::now().since(up);
        println!("{name}, {}: sessions were ended everywhere {} ms later", db.engine(), revoked.as_millis());
        assert!(revoked < BACK_MAX, "{name}: {revoked:?}");
        faults.push(fault);
    }
    let first = faults[0].clone();
    let report = fleet.end("restarted").await;
    report.tell(&faults);
    let lost = report.during(&first).filter(|entry| entry.is_refused_for("LEASE_LOST")).count();
    assert_eq!(lost, 0, "leases outlive a short restart");
    own.discard().await;
}
