//! Somebody holds the head of the log and says nothing more: a node that hangs in the midst of a commit. The server's own
//! time-out, which every node sets for its connections, ends that; those who ask do not notice anything.

use std::time::Duration;

use super::harness::{Fleet, USUAL_LEASE, while_time_passes};
use super::load::NO_ANSWER;
use super::log::Entry;
use super::report::Fault;
use crate::crash::own_turn;
use crate::support::databases::{Engine, TestDatabase, on_each_server};

/// How long the server waits for a transaction that says nothing: half of the usual `database.lock_timeout_ms`.
const IDLE_MAX: Duration = Duration::from_secs(1);
/// What a revocation may take besides.
const SLACK: Duration = Duration::from_secs(2);

on_each_server!(a_frozen_holder_of_the_head_delays_revocations_and_nothing_else);

async fn a_frozen_holder_of_the_head_delays_revocations_and_nothing_else(db: &TestDatabase) {
    let _turn = own_turn().await;
    let mut fleet = Fleet::start(db, 3, USUAL_LEASE).await;
    fleet.load().await;
    let mut faults = Vec::new();
    for _ in 0..3 {
        let holder = db.raw().await;
        let limit = match db.engine() {
            Engine::Postgres => "SET idle_in_transaction_session_timeout = 1000",
            _ => "SET SESSION idle_transaction_timeout = 1, idle_write_transaction_timeout = 1",
        };
        holder.run(limit).await;
        let connection = match db.engine() {
            Engine::Postgres => "SELECT pg_backend_pid()::bigint",
            _ => "SELECT CAST(CONNECTION_ID() AS SIGNED)",
        };
        let held_by = holder.number(connection).await;
        holder.run("BEGIN").await;
        holder.run("UPDATE log_head SET position = position WHERE id = 1").await;
        let mut fault = Fault::begin("the head of the log is held", &[0, 1, 2]);
        while_time_passes(IDLE_MAX + IDLE_MAX / 2).await;
        let over = fault.end();
        fault.recovered(over);
        assert_ne!(holder.number(connection).await, held_by, "the server has ended the one that held it");
        holder.close().await;
        for number in 0..3 {
            fleet.revokes(number, over, 5).await;
        }
        faults.push(fault);
    }
    let report = fleet.end("held head").await;
    report.tell(&faults);
    // Those who ask do not notice.
    let noticed = |entry: &&Entry| entry.is_unknown() && !entry.is_refused_for(NO_ANSWER);
    assert_eq!(report.entries().iter().filter(noticed).count(), 0);
    let longest = report.entries().iter().filter(|entry| entry.is_revocation()).map(Entry::took).max();
    let longest = longest.expect("some");
    assert!(longest > IDLE_MAX / 2, "it was held, and somebody waited: {longest:?}");
    assert!(longest < IDLE_MAX + SLACK, "{longest:?}");
}
