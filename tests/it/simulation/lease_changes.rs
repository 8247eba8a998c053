//! The lease changes while the fleet runs: stories for each rule, and random worlds in which operators change it up and down.
//! The broken variant of the rule, named in front of each story, makes the story end badly.

use std::time::Duration;

use latchkey::fleet::follower::wait_for_silent;
use latchkey::fleet::lease_change::ChangeWatch;
use latchkey::fleet::membership::{Evictions, Measure};
use latchkey::store::coordination::LeaseDuration;

use super::checks::Summary;
use super::clock::NodeClock;
use super::database::Revocation;
use super::people::{session_id, user_id};
use super::safety::{USUAL, worlds};
use super::stage::{LEASE, Stage};
use super::world::{Plan, World};
use crate::support::dice;

const SHORT: Duration = Duration::from_millis(1_500);
const LONG: Duration = Duration::from_secs(20);

fn end() -> Revocation {
    Revocation::Session(session_id(0))
}

/// Somebody looks ten times a second until the change has ended.
fn until_it_is_in_force(stage: &mut Stage, node: usize) {
    let (mut watch, begun) = (ChangeWatch::default(), stage.now);
    while !stage.db.lease().is_settled() {
        stage.pass(100);
        stage.look_after_lease(node, &mut watch);
        assert!(stage.now - begun < 2 * LONG, "it ends at last");
    }
}

/// `ShorterWaitAtOnce`
#[test]
fn revocations_wait_for_leases_of_the_old_length() {
    let mut stage = Stage::new(2);
    stage.fill_everywhere(0);
    stage.set_lease(SHORT);
    stage.pass(100);
    stage.poll(0);
    let mut barrier = stage.revoke(0, end());
    stage.returns(0, &mut barrier, 0);
}

/// A node is not let go of before its longest lease is over either.
#[test]
fn a_marked_node_may_hold_a_lease_of_the_old_length() {
    let mut stage = Stage::new(2);
    stage.fill_everywhere(0);
    let (silent, heard) = (stage.nodes[1].member.node().expect("it has joined"), stage.db.nodes(stage.now));
    let heard = heard.nodes.iter().find(|node| node.id == silent).expect("it is listed").heard_time;
    stage.db.mark_evicting(silent, heard, stage.now);
    stage.set_lease(SHORT);
    let mut evictions = Evictions::default();
    while stage.look_after_nodes(0, &mut evictions) != [Measure::Remove(silent)] {
        stage.pass(100);
        stage.poll(0);
    }
    stage.db.remove_evicted(silent);
    let mut barrier = stage.revoke(0, end());
    stage.returns(0, &mut barrier, 0);
}

/// `LeaseChangeNotAwaited`
#[test]
fn a_shorter_lease_is_in_force_when_the_last_longer_one_is_over() {
    let mut stage = Stage::new(2);
    stage.fill_everywhere(0);
    let now = stage.now;
    stage.nodes[0].clock = NodeClock::new(1_100, LEASE, now);
    stage.nodes[1].clock = NodeClock::new(900, LEASE, now);
    stage.set_lease(SHORT);
    until_it_is_in_force(&mut stage, 0);
    let mut barrier = stage.revoke(0, end());
    stage.returns(0, &mut barrier, 0);
}

/// `LongerLeaseAtOnce`
#[test]
fn a_longer_lease_is_taken_when_everybody_knows_of_it() {
    let mut stage = Stage::new(2);
    stage.fill_everywhere(0);
    stage.poll(0);
    stage.set_lease(LONG);
    stage.pass(10);
    stage.poll(1);
    // The first node does not know yet, and loses its database right after the commit.
    let mut barrier = stage.revoke(0, end());
    stage.returns_by_time_alone(0, &mut barrier, 0);
    assert!(stage.now.age() < Duration::from_secs(6), "it knew enough to return");
}

/// `StaleLeaseBelieved`
#[test]
fn what_was_polled_long_ago_does_not_tell_how_long_leases_are() {
    let mut stage = Stage::new(2);
    stage.fill_everywhere(0);
    stage.poll(0);
    stage.set_lease(LONG);
    until_it_is_in_force(&mut stage, 1);
    stage.poll(1);
    let read = stage.read(0);
    stage.fill(1, read);
    // The first node writes, and has not heard of the log since.
    let mut barrier = stage.revoke(0, end());
    stage.returns_by_time_alone(0, &mut barrier, 0);
    let begun = stage.now;
    while !stage.stands(0, &mut barrier) {
        stage.pass(10);
        assert!(stage.now - begun < wait_for_silent(LONG), "the database says how long leases are");
    }
    stage.assert_nobody_accepts(0);
}

/// `LeaseOfLaterPoll`
#[test]
fn a_lease_is_as_long_as_its_own_poll_said() {
    let mut stage = Stage::new(3);
    stage.fill_everywhere(0);
    let now = stage.now;
    stage.nodes[1].clock = NodeClock::new(900, LEASE, now);
    stage.nodes[2].clock = NodeClock::new(1_100, LEASE, now);
    stage.poll(0);
    stage.set_lease(LONG);
    let mut watch = ChangeWatch::default();
    stage.look_after_lease(2, &mut watch);
    stage.pass(3_900);
    stage.poll(1);
    for _ in 0..4 {
        stage.revoke(0, Revocation::Enable(user_id(1)));
    }
    let mut barrier = stage.revoke(0, end());
    stage.returns_by_time_alone(0, &mut barrier, 0);
    while !stage.db.lease().is_settled() {
        stage.pass(10);
        stage.look_after_lease(2, &mut watch);
    }
    // The second node comes back, and its first poll does not reach the head.
    stage.page = 2;
    stage.poll(1);
    stage.assert_nobody_accepts(0);
}

fn play(name: &str, few: u64, plan: Plan) {
    let (mut summary, mut changed) = (Summary::default(), 0);
    for seed in dice::seeds(worlds(few)) {
        let mut world = World::new(seed, plan);
        let mut seen = world.db.lease();
        let mut at = Duration::ZERO;
        while at < plan.faulty + plan.calm {
            at += Duration::from_millis(100);
            world.run(at);
            let lease = world.db.lease();
            changed += u32::from(lease.is_settled() && lease.current != seen.current);
            seen = if lease.is_settled() { lease } else { seen };
        }
        let violations = world.history.violations();
        summary.add(&world.history, violations.len());
        let replay = dice::replay(seed);
        assert!(violations.is_empty(), "{}\n{replay}", violations.first().cloned().unwrap_or_default());
        let lease = world.db.lease();
        assert_eq!(lease, LeaseDuration::settled(lease.current), "a change ends by itself; {replay}");
        let shortest = plan.leases.iter().min().copied().map(Duration::from_millis).unwrap_or_default();
        let silent = world.processes.iter().filter(|process| !process.node.is_leased(world.now)).count();
        assert!(silent == 0 && lease.current >= shortest, "{silent} nodes do not answer; {replay}");
    }
    println!("{name}: {summary}; {changed} changes of the lease in force");
    assert!(summary.is_telling() && changed > 0, "{summary}, {changed} changes");
}

/// Operators ask for another lease every three seconds or so, at any node, also while a change goes on.
const CHANGING: Plan = Plan {
    faulty: Duration::from_secs(45),
    calm: Duration::from_secs(14),
    leases: &[1_000, 2_000, 5_000],
    ..USUAL
};

#[test]
fn whatever_goes_wrong_while_the_lease_changes() {
    play("changing leases", 16, CHANGING);
}

#[test]
fn commits_are_lost_while_the_lease_changes() {
    play("changing leases, fail-overs", 8, Plan { fails_over: true, ..CHANGING });
}
