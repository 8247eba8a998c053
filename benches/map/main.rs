//! Which map the sessions lie in, and why: the candidates side by side, against a yardstick in the same run.
//!
//! `cargo bench --bench map -- [SESSIONS]...` prints a table in Markdown; without arguments with 1 k, 1 M and 10 M entries.
//! docs/PERFORMANCE.md holds the figures. The allocator is that of the system, and counts.

#![expect(clippy::disallowed_macros, reason = "a benchmark prints its table")]

mod candidates;
#[path = "../memory/numbers.rs"]
mod numbers;
#[path = "../memory/stopwatch.rs"]
mod stopwatch;

const SIZES: [u64; 3] = [1_000, 1_000_000, 10_000_000];

fn main() {
    // `cargo bench` hands `--bench` to every target.
    let asked: Vec<u64> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    candidates::run(if asked.is_empty() { &SIZES } else { &asked });
}
