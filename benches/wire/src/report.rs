//! The table of docs/PERFORMANCE.md.

use std::time::Duration;

/// Rows, in the order in which they were measured.
#[derive(Default)]
pub struct Report {
    rows: Vec<String>,
}

impl Report {
    /// One row: what was measured, against what, the figures of both, and what the budget is.
    pub fn add(&mut self, what: &str, yardstick: &str, figure: &str, budget: &str) {
        eprintln!("{what} | {yardstick} | {figure} | {budget}");
        self.rows.push(format!("| {what} | {yardstick} | {figure} | {budget} |"));
    }

    /// Prints the table in Markdown.
    pub fn print(&self) {
        println!("| what | yardstick, same run | measured | budget |");
        println!("| --- | --- | --- | --- |");
        for row in &self.rows {
            println!("{row}");
        }
    }
}

/// Processor time for each of `count` answers, in nanoseconds.
pub fn nanos_each(cpu: Duration, count: u64) -> f64 {
    cpu.as_secs_f64() * 1e9 / count as f64
}

/// The one in the middle.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The medians of two figures that were measured in turn, and of their ratio.
pub fn compare(rounds: &[(f64, f64)]) -> (f64, f64, f64) {
    let of = |pick: fn(&(f64, f64)) -> f64| median(rounds.iter().map(pick).collect());
    (of(|round| round.0), of(|round| round.1), of(|round| round.0 / round.1))
}

/// Two figures in microseconds and their ratio, as text.
pub fn micros(rounds: &[(f64, f64)]) -> String {
    let (ours, theirs, ratio) = compare(rounds);
    let spread: Vec<f64> = rounds.iter().map(|round| round.0 / round.1).collect();
    let least = spread.iter().copied().fold(f64::INFINITY, f64::min);
    let most = spread.iter().copied().fold(0.0, f64::max);
    format!("{:.2} us against {:.2} us: **{ratio:.2} x** ({least:.2} to {most:.2})", ours / 1e3, theirs / 1e3)
}
