//! What a password hash costs: the floor of the policy, and the bounds of what is computed at all.
//!
//! The bounds are the same for the policy and for a hash read from somewhere, so that whatever a policy produced can be
//! read for ever, whatever the policy is by then.

use crate::domain::invalid::Invalid;

/// Memory that one hash may take, in KiB.
pub const MEMORY_KIB_MAX: u32 = 262_144;
/// Passes over that memory.
pub const ITERATIONS_MAX: u32 = 64;
/// Lanes. They are computed one after the other: a hash has one thread.
pub const PARALLELISM_MAX: u32 = 16;
/// Memory times iterations, in KiB; bounds the time that one hash may take (roughly a second).
pub const WORK_KIB_MAX: u32 = 1_048_576;

/// The minimum sets of the OWASP Password Storage Cheat Sheet, memory in KiB and iterations; one of them must be met.
const FLOOR: [(u32, u32); 5] = [(47_104, 1), (19_456, 2), (12_288, 3), (9_216, 4), (7_168, 5)];

/// What a hash costs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Argon2Params {
    memory_kib: u32,
    iterations: u32,
    parallelism: u32,
}

impl Default for Argon2Params {
    /// 19 MiB, two passes, one lane.
    fn default() -> Self {
        Self::unchecked(19_456, 2, 1)
    }
}

impl Argon2Params {
    /// The cost of new hashes: at least what OWASP asks for, at most what this module computes.
    pub fn new(memory_kib: u32, iterations: u32, parallelism: u32) -> Result<Self, Invalid> {
        let params = Self::unchecked(memory_kib, iterations, parallelism);
        params.check_bounds()?;
        if !FLOOR.iter().any(|&(memory, passes)| memory_kib >= memory && iterations >= passes) {
            let sets = FLOOR.map(|(memory, passes)| format!("{memory}/{passes}")).join(", ");
            return Err(Invalid::new(format!(
                "must meet one of the minimum sets of memory in KiB and iterations: {sets}"
            )));
        }
        Ok(params)
    }

    /// Any cost, also one that is no protection: for tests, and for hashes that exist. Whoever computes with it checks
    /// the upper bounds; the policy of new hashes comes from [`Argon2Params::new`].
    pub const fn unchecked(memory_kib: u32, iterations: u32, parallelism: u32) -> Self {
        Self { memory_kib, iterations, parallelism }
    }

    /// Memory, in KiB.
    pub const fn memory_kib(self) -> u32 {
        self.memory_kib
    }

    /// Passes over the memory.
    pub const fn iterations(self) -> u32 {
        self.iterations
    }

    /// Lanes.
    pub const fn parallelism(self) -> u32 {
        self.parallelism
    }

    /// What can be computed here at all. The sentence names the limit.
    pub(super) fn check_bounds(self) -> Result<(), Invalid> {
        if self.parallelism == 0 || self.parallelism > PARALLELISM_MAX {
            return Err(Invalid::new(format!("must have a parallelism of 1 to {PARALLELISM_MAX}")));
        }
        if self.iterations == 0 || self.iterations > ITERATIONS_MAX {
            return Err(Invalid::new(format!("must have 1 to {ITERATIONS_MAX} iterations")));
        }
        if self.memory_kib < 8 * self.parallelism || self.memory_kib > MEMORY_KIB_MAX {
            return Err(Invalid::new(format!(
                "must take at least 8 KiB of memory a lane and at most {MEMORY_KIB_MAX} KiB"
            )));
        }
        if self.work_kib() > u64::from(WORK_KIB_MAX) {
            return Err(Invalid::new(format!(
                "must take at most {WORK_KIB_MAX} KiB of memory times iterations"
            )));
        }
        Ok(())
    }

    /// How much memory is written in all, in KiB; the time of a hash is proportional to it.
    pub(super) fn work_kib(self) -> u64 {
        u64::from(self.memory_kib) * u64::from(self.iterations)
    }

    /// What is left to do for somebody who did `done` and shall have done as much as these parameters ask for.
    pub(super) fn remainder(self, done: Self) -> Option<Self> {
        let missing = self.work_kib().saturating_sub(done.work_kib()) / u64::from(self.iterations);
        let rest = Self::unchecked(u32::try_from(missing).ok()?, self.iterations, 1);
        rest.check_bounds().is_ok().then_some(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_below_the_floor_or_above_the_bounds_is_refused() {
        for (memory, iterations) in FLOOR {
            assert!(Argon2Params::new(memory, iterations, 1).is_ok(), "{memory}/{iterations}");
            assert!(
                Argon2Params::new(memory - 1, iterations, 1).is_err(),
                "{memory}/{iterations} less a KiB"
            );
        }
        let Argon2Params { memory_kib, iterations, parallelism } = Argon2Params::default();
        assert_eq!(Argon2Params::new(memory_kib, iterations, parallelism), Ok(Argon2Params::default()));
        assert!(Argon2Params::new(MEMORY_KIB_MAX, 4, PARALLELISM_MAX).is_ok());
        let too_much = [
            (MEMORY_KIB_MAX + 1, 2, 1),
            (MEMORY_KIB_MAX, 5, 1),
            (7_168, ITERATIONS_MAX + 1, 1),
            (19_456, 2, PARALLELISM_MAX + 1),
            (19_456, 2, 0),
            (u32::MAX, u32::MAX, u32::MAX),
        ];
        for (memory, iterations, lanes) in too_much {
            assert!(Argon2Params::new(memory, iterations, lanes).is_err(), "{memory}/{iterations}/{lanes}");
        }
    }

    #[test]
    fn a_remainder_makes_the_work_equal() {
        let policy = Argon2Params::unchecked(19_456, 2, 1);
        assert_eq!(policy.remainder(policy), None);
        assert_eq!(policy.remainder(Argon2Params::unchecked(65_536, 3, 4)), None);
        let weak = Argon2Params::unchecked(4_096, 3, 1);
        let rest = policy.remainder(weak).expect("much is missing");
        assert_eq!(rest.work_kib() + weak.work_kib(), policy.work_kib());
    }
}
