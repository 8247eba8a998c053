//! When everything is well again, so is the fleet: nodes answer, revocations return, and silent nodes hold nobody up for
//! longer than it takes to let go of them.

use std::time::Duration;

use latchkey::fleet::follower::wait_for_silent;
use latchkey::fleet::membership::silent_max;

use super::checks::Summary;
use super::process::{NODES_LOOK, PATIENCE};
use super::world::{LEASE, POLL, Plan, UNDISTURBED_MAX, World};
use crate::support::dice;

/// Questions and answers of a node that begins anew: leave, write again, join, read the head, poll.
const MESSAGES: u32 = 10;
/// Clocks go wrong by a tenth.
const SLOWEST: f64 = 1.0 / 0.9;

/// From when on every node answers: what it still waits for is given up, then it waits for the next poll, and begins anew.
fn recovered() -> Duration {
    (PATIENCE + 2 * POLL).mul_f64(SLOWEST) + MESSAGES * UNDISTURBED_MAX
}

/// From when on there are no rows of processes that are gone.
fn evicted() -> Duration {
    let looks = 3 * NODES_LOOK * 2;
    recovered() + (silent_max(LEASE) + wait_for_silent(LEASE) + looks).mul_f64(SLOWEST)
}

fn play(name: &str, few: u64, plan: Plan) {
    let mut summary = Summary::default();
    let (mut longest, mut longest_at_peace) = (Duration::ZERO, Duration::ZERO);
    for seed in dice::seeds(super::safety::worlds(few)) {
        let replay = dice::replay(seed);
        let mut world = World::new(seed, plan);
        let recovered = plan.faulty + recovered();
        assert!(recovered < plan.faulty + LEASE + POLL + PATIENCE, "within a lease, a poll and the network");
        world.run(recovered);
        let mut at = recovered;
        while at < plan.faulty + plan.calm {
            let silent = world.processes.iter().find(|process| !process.node.is_leased(world.now));
            let (silent, later) = (silent.map(|process| process.id), at.saturating_sub(plan.faulty));
            assert_eq!(silent, None, "a process does not answer {later:?} later; {replay}");
            at += POLL;
            world.run(at);
        }
        let most = wait_for_silent(LEASE).mul_f64(SLOWEST) + MESSAGES * UNDISTURBED_MAX;
        let peace = plan.faulty + evicted();
        for (begun, took) in world.calls.took.iter().filter(|(begun, _)| begun.age() > recovered) {
            assert!(*took <= most, "a revocation took {took:?}; {replay}");
            longest = longest.max(*took);
            if begun.age() > peace {
                assert!(*took <= POLL + MESSAGES * UNDISTURBED_MAX, "a revocation took {took:?}; {replay}");
                longest_at_peace = longest_at_peace.max(*took);
            }
        }
        assert!(longest_at_peace > Duration::ZERO, "there are revocations at last; {replay}");
        world.assert_all_returned(recovered, most);
        let violations = world.history.violations();
        assert_eq!(violations, Vec::<String>::new(), "{replay}");
        summary.add(&world.history, violations.len());
    }
    println!(
        "{name}: {summary}; all answer {:?} after the last fault; a revocation takes {longest:?} then, and \
         {longest_at_peace:?} when silent nodes are gone",
        recovered(),
    );
}

fn plan(nodes: usize, fails_over: bool) -> Plan {
    Plan {
        nodes,
        users: 12,
        faulty: Duration::from_secs(12),
        calm: evicted() + Duration::from_secs(5),
        pace: Duration::from_millis(10),
        fault_pace: Duration::from_millis(700),
        fails_over,
        pages: &[100],
        leases: &[],
    }
}

#[test]
fn a_fleet_recovers() {
    play("recovery of 4 nodes", 8, plan(4, false));
}

#[test]
fn a_fleet_recovers_from_lost_commits() {
    play("recovery of 4 nodes from lost commits", 6, plan(4, true));
}
