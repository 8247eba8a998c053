//! Times what is measured side by side, so that what else runs on the machine meets all of it alike.
//!
//! Each round measures every candidate once, by the processor time of its own thread; of each the best round counts, since
//! noise only ever adds.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Rounds of which the best counts.
pub const ROUNDS: usize = 30;

/// Nanoseconds of this thread's processor time that `work` takes for each of its `count` steps.
pub fn nanos_each(count: usize, work: impl FnOnce()) -> f64 {
    let begun = thread_time();
    work();
    let span = thread_time().saturating_sub(begun);
    span.as_secs_f64() * 1e9 / f64::from(u32::try_from(count).expect("fewer than four thousand million"))
}

/// The best of all rounds, for each of the candidates.
pub fn best_of_rounds(candidates: &mut [&mut dyn FnMut() -> f64]) -> Vec<f64> {
    let mut best = vec![f64::INFINITY; candidates.len()];
    for _ in 0..ROUNDS {
        for (best, candidate) in best.iter_mut().zip(candidates.iter_mut()) {
            *best = best.min(candidate());
        }
    }
    best
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("time is positive")
}
