//! How long a revocation takes when nothing is wrong, beside one commit on the same database; and when one node is frozen.

use std::time::Duration;

use futures_util::future::join_all;
use latchkey::fleet::follower::wait_for_silent;
use latchkey::grpc::proto::v1::revoke_sessions_request::Target as Wanted;
use rustix::process::Signal;

use super::harness::{Door, Fleet, USUAL_LEASE};
use super::load::{revoke, sign_in};
use super::log::{Log, now};
use super::report::spread;
use crate::crash::own_turn;
use crate::history::books::Known;
use crate::history::checker::Target;
use crate::support::databases::{TestDatabase, on_each_server};

/// Revocations one after the other.
const MANY: usize = 200;
/// What a revocation may take besides its wait, on a busy test machine.
const SLACK: Duration = Duration::from_secs(2);

on_each_server!(a_revocation_takes_one_look_at_the_log);

async fn a_revocation_takes_one_look_at_the_log(db: &TestDatabase) {
    let _turn = own_turn().await;
    let mut fleet = Fleet::start(db, 3, USUAL_LEASE).await;
    let mut last = one_after_the_other(&mut fleet, &[0, 1, 2], MANY).await;
    println!("healthy, {}: one commit {}", db.engine(), commits(db).await);
    println!("healthy, {}: one revocation {}", db.engine(), spread(last.drain(..)));

    fleet.slots[2].signal(Signal::STOP);
    let frozen = all_at_once(&mut fleet, &[0, 1], 10).await;
    println!("one node frozen, {}: one revocation {}", db.engine(), spread(frozen.iter().copied()));
    let longest = frozen.into_iter().max().expect("some");
    assert!(longest < wait_for_silent(fleet.lease) + SLACK, "{longest:?}");
    fleet.slots[2].signal(Signal::CONT);
    fleet.load().await;
    // All but a few sessions are over by now; these are there to be let in at the end.
    for user in fleet.world.users.iter().take(20) {
        sign_in(fleet.log(), fleet.slots[0].door(), user.clone()).await;
    }
    fleet.end("healthy").await;
}

/// Ends sessions at nodes of `slots`, and gives how long each took.
async fn one_after_the_other(fleet: &mut Fleet, slots: &[usize], count: usize) -> Vec<Duration> {
    let mut took = Vec::new();
    for _ in 0..count {
        let (session, door) = somebody(fleet, slots).await;
        took.push(end(fleet.log(), door, session).await);
    }
    took
}

/// The same for sessions that are ended at the same time.
async fn all_at_once(fleet: &mut Fleet, slots: &[usize], count: usize) -> Vec<Duration> {
    let mut signed_in = Vec::new();
    for _ in 0..count {
        signed_in.push(somebody(fleet, slots).await);
    }
    join_all(signed_in.into_iter().map(|(session, door)| end(fleet.log(), door, session))).await
}

/// Signs somebody in at one node; the session is to be ended at another.
async fn somebody(fleet: &mut Fleet, slots: &[usize]) -> (Known, Door) {
    let user = fleet.world.users[fleet.dice.below(fleet.world.users.len())].clone();
    let (one, other) = (fleet.dice.pick(slots), fleet.dice.pick(slots));
    sign_in(fleet.log(), fleet.slots[one].door(), user).await;
    (fleet.log().session_back(0).expect("somebody signed in"), fleet.slots[other].door())
}

async fn end(log: &Log, door: Door, session: Known) -> Duration {
    let begun = now();
    let (wanted, target) = (Wanted::SessionId(session.id.clone()), Target::Session(session.id));
    assert!(revoke(log, door, wanted, target).await, "the session is ended");
    now().since(begun)
}

/// How long one row takes to be changed and committed, by a connection without a network between.
async fn commits(db: &TestDatabase) -> String {
    let raw = db.raw().await;
    raw.run("CREATE TABLE measured (number INTEGER)").await;
    raw.run("INSERT INTO measured VALUES (0)").await;
    let mut took = Vec::new();
    for _ in 0..MANY {
        let begun = now();
        raw.run("UPDATE measured SET number = number + 1").await;
        took.push(now().since(begun));
    }
    raw.close().await;
    spread(took.into_iter())
}
