//! Random choices that follow from a seed, so that a run that failed can be run again.
//!
//! `LATCHKEY_TEST_SEED` makes every random test run with that seed alone; `LATCHKEY_TEST_SEEDS` with so many seeds that none
//! had before, and no others.

use latchkey::host::{SystemEntropy, random};

const VARIABLE: &str = "LATCHKEY_TEST_SEED";
const FRESH: &str = "LATCHKEY_TEST_SEEDS";

/// The seeds of a run: `fixed` ones, which every run has, and one that none had before.
pub fn seeds(fixed: u64) -> Vec<u64> {
    match std::env::var(VARIABLE) {
        Ok(seed) => vec![seed.parse().unwrap_or_else(|_| panic!("{VARIABLE} must be a whole number"))],
        Err(_) => match std::env::var(FRESH) {
            Ok(count) => {
                let count = count.parse().unwrap_or_else(|_| panic!("{FRESH} must be a whole number"));
                std::iter::repeat_with(fresh).take(count).collect()
            }
            Err(_) => (1..=fixed).chain([fresh()]).collect(),
        },
    }
}

fn fresh() -> u64 {
    u64::from(u32::from_le_bytes(random(&SystemEntropy)))
}

/// How to run a test again that failed with `seed`.
pub fn replay(seed: u64) -> String {
    format!("run it again with {VARIABLE}={seed}")
}

/// A stream of choices (SplitMix64, Steele and others 2014).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit).expect("a small limit");
        usize::try_from(self.number() % limit).expect("below a small limit")
    }

    /// True in so many of a hundred cases.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of the values.
    pub fn pick<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_has_one_stream_and_every_side_comes_up() {
        let rolled = |seed| {
            let mut dice = Dice::new(seed);
            (0..200).map(|_| dice.below(6)).collect::<Vec<_>>()
        };
        assert_eq!(rolled(7), rolled(7));
        assert_ne!(rolled(7), rolled(8));
        assert!((0..6).all(|side| rolled(7).contains(&side)));
    }
}
