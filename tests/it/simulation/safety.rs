//! Whatever goes wrong, nothing is promised that does not hold: many random worlds, without a single violation.
//!
//! A seed is played again by `LATCHKEY_TEST_SEED`, and `LATCHKEY_SIM_SEEDS` multiplies the number of worlds. In worlds whose
//! database loses commits (`a_database_that_loses_commits`), P2 is checked for every process, and P1 for each revocation
//! that was not lost.

use std::time::Duration;

use super::checks::Summary;
use super::world::{Plan, World};
use crate::support::dice;

/// What worlds are like.
pub const USUAL: Plan = Plan {
    nodes: 3,
    users: 12,
    faulty: Duration::from_secs(30),
    calm: Duration::from_secs(5),
    pace: Duration::from_millis(5),
    fault_pace: Duration::from_millis(1_500),
    fails_over: false,
    pages: &[2, 5, 100],
    leases: &[],
};

/// How many worlds: `few` in every run.
pub fn worlds(few: u64) -> u64 {
    let times = std::env::var("LATCHKEY_SIM_SEEDS").map_or(1, |times| times.parse().expect("a whole number"));
    few * times
}

/// Plays a world for each seed.
fn play(name: &str, few: u64, plan: impl Fn(u64) -> Plan) {
    let mut summary = Summary::default();
    for seed in dice::seeds(worlds(few)) {
        let plan = plan(seed);
        let mut world = World::new(seed, plan);
        world.run(plan.faulty + plan.calm);
        let violations = world.history.violations();
        summary.add(&world.history, violations.len());
        assert!(
            violations.is_empty(),
            "{} of {plan:?}:\n{}\n{}",
            violations.len(),
            violations.iter().take(1).cloned().collect::<String>(),
            dice::replay(seed)
        );
    }
    println!("{name}: {summary}");
    assert!(summary.is_telling(), "{summary}");
}

#[test]
fn small_fleets() {
    play("3 to 5 nodes", 30, |seed| Plan { nodes: 3 + usize::try_from(seed % 3).unwrap_or(0), ..USUAL });
}

#[test]
fn a_database_that_loses_commits() {
    play("fail-overs", 20, |seed| Plan {
        nodes: 3 + usize::try_from(seed % 3).unwrap_or(0),
        fails_over: true,
        ..USUAL
    });
}

/// Every hundredth node a second is in trouble.
#[test]
fn a_thousand_nodes() {
    play("1000 nodes", 0, |_| Plan {
        nodes: 1_000,
        users: 50,
        faulty: Duration::from_secs(6),
        calm: Duration::from_secs(6),
        fault_pace: Duration::from_millis(100),
        ..USUAL
    });
}

#[test]
fn fifty_nodes() {
    play("50 nodes", 2, |_| Plan {
        nodes: 50,
        faulty: Duration::from_secs(10),
        fault_pace: Duration::from_millis(100),
        ..USUAL
    });
}
