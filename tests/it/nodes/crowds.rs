//! Many nodes at once: all of them end sessions of the same users in each other's way, and hints that never stop.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use latchkey::grpc::proto::v1;
use latchkey::grpc::proto::v1::revoke_sessions_request::Target as Wanted;

use super::harness::{Fleet, USUAL_LEASE};
use super::load::{revoke, sign_in};
use super::log::{Entry, now};
use crate::crash::own_turn;
use crate::history::checker::Target;
use crate::support::databases::{Engine, TestDatabase, on_each_server, run_on};

const NODES: usize = 16;
/// Rounds in which each node ends something at the same time.
const ROUNDS: usize = 6;
/// Users that all of them reach for.
const SHARED: usize = 4;
/// How long hints rain.
const STORM: Duration = Duration::from_secs(5);

on_each_server!(sixteen_nodes_that_cross_each_other_all_get_through);

async fn sixteen_nodes_that_cross_each_other_all_get_through(db: &TestDatabase) {
    let _turn = own_turn().await;
    let fleet = Fleet::start(db, NODES, USUAL_LEASE).await;
    for round in 0..ROUNDS {
        let (log, doors) = (fleet.log(), |number: usize| fleet.slots[number % NODES].door());
        let sign_ins = (0..2 * NODES).map(|number| {
            let user = fleet.world.users[number % SHARED].clone();
            sign_in(log, doors(number), user)
        });
        join_all(sign_ins).await;
        // The same users, in another order at each node; half of them by one of their sessions.
        let endings = (0..2 * NODES).map(|number| {
            let session = log.session_back((number * 7 + round) % (2 * NODES)).expect("signed in");
            let (user, except) = (session.user, (number % 4 == 3).then(|| session.id.clone()));
            let (wanted, target) = if number % 2 == 0 {
                (Wanted::SessionId(session.id.clone()), Target::Session(session.id))
            } else {
                let except_session_id = except.clone().unwrap_or_default();
                let wanted = v1::UserSessions { user_id: user.clone(), except_session_id };
                (Wanted::User(wanted), Target::User { user, except })
            };
            // Who waited too long for the others is told so, and asks again.
            let door = doors(number);
            async move { while !revoke(log, door.clone(), wanted.clone(), target.clone()).await {} }
        });
        join_all(endings).await;
    }
    let all: Vec<_> = fleet.log().entries();
    let failed = all.iter().filter(|entry| entry.is_failed_revocation()).count();
    println!("16 at once, {}: {failed} had to ask again", db.engine());
    assert!(failed <= ROUNDS * NODES / 2, "most get through at once: {failed} do not");
    let longest = all.iter().filter(|entry| entry.is_revocation()).map(Entry::took).max();
    assert!(longest < Some(USUAL_LEASE), "nobody waits for a lease to run out: {longest:?}");
    for number in 0..SHARED {
        let user = fleet.world.users[number].clone();
        sign_in(fleet.log(), fleet.slots[number].door(), user).await;
    }
    fleet.end("16 at once").await;
}

mod a_storm_of_hints_harms_nobody {
    use super::*;

    /// Only PostgreSQL has hints.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn postgres() {
        run_on(Engine::Postgres, a_storm_of_hints_harms_nobody).await;
    }
}

async fn a_storm_of_hints_harms_nobody(db: &TestDatabase) {
    let _turn = own_turn().await;
    let mut fleet = Fleet::start(db, 3, USUAL_LEASE).await;
    fleet.load().await;
    let polls = async |fleet: &Fleet| {
        let metrics = join_all(fleet.slots.iter().map(|slot| slot.metrics())).await;
        metrics.iter().map(|metrics| metrics.store_calls("poll")).sum::<f64>()
    };
    let (before, begun) = (polls(&fleet).await, now());
    let given = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    join_all((0..3).map(async |_| {
        let raw = db.raw().await;
        while now().since(begun) < STORM {
            raw.run("NOTIFY latchkey_changes").await;
            given.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        raw.close().await;
    }))
    .await;
    let (asked, seconds) = (polls(&fleet).await - before, now().since(begun).as_secs_f64());
    println!(
        "storm: {} hints in {seconds:.1} s; each node polled {:.0} times a second",
        given.load(std::sync::atomic::Ordering::Relaxed),
        asked / 3.0 / seconds
    );
    for number in 0..3 {
        fleet.revokes(number, begun, 5).await;
    }
    let report = fleet.end("storm of hints").await;
    let lost = report.entries().iter().filter(|entry| entry.is_refused_for("LEASE_LOST")).count();
    assert_eq!(lost, 0, "each poll is one more lease");
}
