//! How fast memory answers, and how much room it takes, against yardsticks that are measured in the same run.
//!
//! `cargo bench --bench memory -- [spin|held] [SESSIONS]...` prints a table in Markdown; without arguments with 1 k, 1 M and
//! 10 M sessions. `spin` only checks tokens, for a profiler; `held` only takes sessions in, and prints by how many bytes the
//! process grew. docs/PERFORMANCE.md holds the figures.

#![expect(clippy::disallowed_macros, reason = "a benchmark prints its table")]

mod chain;
mod check;
mod numbers;
mod resident;
mod stopwatch;
mod workload;

/// As in the program that is shipped.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SIZES: [u64; 3] = [1_000, 1_000_000, 10_000_000];

fn main() {
    // `cargo bench` hands `--bench` to every target.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let asked: Vec<u64> = arguments.iter().filter_map(|argument| argument.parse().ok()).collect();
    let sizes = if asked.is_empty() { SIZES.to_vec() } else { asked };
    for (name, only) in [("spin", check::spin as fn(u64)), ("held", check::held)] {
        if arguments.iter().any(|argument| argument == name) {
            sizes.into_iter().for_each(only);
            return;
        }
    }
    check::run(&sizes);
}
