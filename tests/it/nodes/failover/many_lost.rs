//! Many log-outs are lost at once, and the new primary is some way off: writing them again takes a bounded time, and
//! completes.

use std::time::Duration;

use futures_util::StreamExt as _;
use latchkey::grpc::proto::v1::revoke_sessions_request::Target as Wanted;

use super::super::harness::{Fleet, USUAL_LEASE};
use super::super::load::{ask, revoke, sign_in};
use super::super::log::{Entry, now};
use crate::crash::own_turn;
use crate::history::checker::Target;
use crate::support::databases::{Engine, Raw, TestDatabase, on_each_server};
use crate::support::replicated_server::{ReplicatedServer, Replication};
use crate::support::tcp_proxy::Network;
use crate::support::waiting::eventually;

const NODES: usize = 2;
/// Calls at a time.
const CALLS: usize = 128;

on_each_server!(thousands_of_lost_log_outs_near_by, lost_log_outs_far_away);

async fn thousands_of_lost_log_outs_near_by(db: &TestDatabase) {
    written_again(db, 5_000, Duration::from_millis(3), Duration::from_secs(20)).await;
}

async fn lost_log_outs_far_away(db: &TestDatabase) {
    written_again(db, 120, Duration::from_millis(200), Duration::from_secs(30)).await;
}

async fn written_again(db: &TestDatabase, count: usize, late_by: Duration, back_max: Duration) {
    let _turn = own_turn().await;
    let mut pair = ReplicatedServer::start(db.engine(), Replication::Asynchronous).await;
    let own = pair.database().await;
    let fleet = Fleet::start(&own, NODES, USUAL_LEASE).await;
    let users = &fleet.world.users;
    // One that ends, of which there are many copies, and one that goes on.
    for user in [&users[0], &users[1]] {
        sign_in(fleet.log(), fleet.slots[0].door(), user.clone()).await;
    }
    let pattern = fleet.log().session_back(1).expect("it was made").id;
    let kept = fleet.log().session_back(0).expect("it was made");
    let raw = own.raw().await;
    copy_session(&raw, db.engine(), &pattern, count).await;
    let open = "SELECT COUNT(*) FROM sessions WHERE end_time IS NULL";
    assert_eq!(raw.number(open).await, i64::try_from(count).expect("a number") + 2);
    raw.close().await;
    pair.standby_falls_behind().await;
    let ended = futures_util::stream::iter(1..=count)
        .map(|number| {
            let id = format!("{}{number:012x}", &pattern[..pattern.len() - 12]);
            let door = fleet.slots[number % NODES].door();
            let log = fleet.log();
            async move { revoke(log, door, Wanted::SessionId(id.clone()), Target::Session(id)).await }
        })
        .buffer_unordered(CALLS)
        .filter(|is_done| std::future::ready(*is_done))
        .count()
        .await;
    assert_eq!(ended, count, "each is acknowledged");
    pair.primary.stop().await;
    pair.promote_standby().await;
    let promoted = at_standby(&pair, db.engine(), own.url()).await;
    let lost = promoted.number(open).await;
    assert!(lost > i64::try_from(count).expect("a number"), "the standby has none of it: {lost}");
    for slot in fleet.slots.iter() {
        slot.proxy.set(Network::LateAnswers(late_by));
    }
    let switched = now();
    fleet.switch_to(&pair.standby.address());
    eventually("the log-outs are in force again", async || promoted.number(open).await == 2).await;
    let written = now();
    for number in 0..NODES {
        eventually("the node answers again", async || {
            ask(fleet.log(), fleet.slots[number].door(), kept.clone()).await;
            let is_good = |entry: &Entry| entry.process.slot == number && entry.is_good();
            fleet.log().first(written, is_good).is_some()
        })
        .await;
    }
    let (written, took) = (written.since(switched), now().since(switched));
    println!(
        "{count} lost log-outs, database {} ms away, {}: written again after {} ms, all nodes answer after {} ms",
        late_by.as_millis(),
        db.engine(),
        written.as_millis(),
        took.as_millis()
    );
    assert!(took < back_max, "{took:?}");
    promoted.close().await;
}

/// Copies a session, under ids that differ from its own in the last 12 digits.
async fn copy_session(raw: &Raw, engine: Engine, id: &str, count: usize) {
    let columns = "user_id, user_epoch, everyone_epoch, create_time, authenticate_time, expire_time, last_seen_time, \
                   idle_limit_ms, over_time, remembered, methods, client_ip, client_user_agent, client_device_name, \
                   end_time, end_reason";
    let copying = if engine == Engine::Postgres {
        format!(
            "INSERT INTO sessions (session_id, digest, {columns}) \
             SELECT (left(session_id::text, 24) || lpad(to_hex(n), 12, '0'))::uuid, decode(md5(n::text), 'hex'), \
             {columns} FROM sessions, generate_series(1, {count}) AS n WHERE session_id = '{id}'"
        )
    } else {
        format!(
            "INSERT INTO sessions (session_id, digest, {columns}) \
             SELECT UNHEX(CONCAT(LEFT(HEX(session_id), 20), LPAD(HEX(seq), 12, '0'))), UNHEX(MD5(seq)), \
             {columns} FROM sessions, seq_1_to_{count} WHERE session_id = UNHEX(REPLACE('{id}', '-', ''))"
        )
    };
    raw.run(&copying).await;
}

/// Connects to the database on the standby, past the network of the nodes.
async fn at_standby(pair: &ReplicatedServer, engine: Engine, url: &str) -> Raw {
    let (_, name) = url.rsplit_once('/').expect("a database");
    let account = if engine == Engine::Postgres { "postgres://latchkey" } else { "mysql://latchkey" };
    Raw::connect(&format!("{account}@{}/{name}", pair.standby.address())).await
}
