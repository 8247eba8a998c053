//! What is taken from the machine: its clock and its randomness, each behind a trait.
//!
//! This is the only file that may ask either. Everything else is handed a `now` or some bytes.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use crate::domain::time::BootTime;

/// The machine's clock.
pub trait Clock: Send + Sync + 'static {
    /// Time since boot, time spent suspended included (`CLOCK_BOOTTIME`).
    fn boottime(&self) -> BootTime;
}

/// A source of bytes that nobody can guess.
pub trait Entropy: Send + Sync + 'static {
    /// Fills `buffer`.
    fn fill(&self, buffer: &mut [u8]);
}

/// Draws an array of random bytes.
pub fn random<const N: usize>(entropy: &dyn Entropy) -> [u8; N] {
    let mut bytes = [0; N];
    entropy.fill(&mut bytes);
    bytes
}

/// The clock of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn boottime(&self) -> BootTime {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        BootTime::from_span(Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0)))
    }
}

/// The time of the operating system as of its last tick, which was a few milliseconds ago at most (`CLOCK_MONOTONIC_COARSE`):
/// for time-outs of seconds that are asked for very often. It takes a fifth of the time that the exact clock takes.
#[derive(Clone, Copy, Debug)]
pub struct TickClock {
    began: Instant,
    began_tick: Duration,
}

impl TickClock {
    /// Begins at this moment.
    #[expect(
        clippy::disallowed_methods,
        reason = "what waits for a moment of this clock waits by tokio's, which is this"
    )]
    pub fn new() -> Self {
        Self { began: Instant::now(), began_tick: tick() }
    }

    /// The last tick.
    pub fn now(&self) -> Instant {
        self.began + tick().saturating_sub(self.began_tick)
    }
}

impl Default for TickClock {
    fn default() -> Self {
        Self::new()
    }
}

fn tick() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The randomness of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    /// A machine that cannot give random bytes cannot sign anybody in: this ends the process.
    #[expect(clippy::disallowed_methods, reason = "this is the one home of randomness")]
    fn fill(&self, buffer: &mut [u8]) {
        getrandom::fill(buffer).expect("the operating system gives random bytes");
    }
}

/// A clock that stands still until it is told otherwise.
#[derive(Debug, Default)]
pub struct ManualClock(Mutex<Duration>);

impl ManualClock {
    /// Moves the clock forward.
    pub fn advance(&self, span: Duration) {
        let mut now = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *now = now.saturating_add(span);
    }
}

impl Clock for ManualClock {
    fn boottime(&self) -> BootTime {
        BootTime::from_span(*self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

/// Bytes that follow from a seed, for tests that must run the same way twice.
#[derive(Debug)]
pub struct SeededEntropy {
    seed: u64,
    drawn: Mutex<u64>,
}

impl SeededEntropy {
    /// The stream of bytes of `seed`.
    pub fn new(seed: u64) -> Self {
        Self { seed, drawn: Mutex::new(0) }
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        let mut drawn = self.drawn.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for chunk in buffer.chunks_mut(32) {
            let block = Sha256::new()
                .chain_update(self.seed.to_be_bytes())
                .chain_update(drawn.to_be_bytes())
                .finalize();
            chunk.copy_from_slice(&block[..chunk.len()]);
            *drawn += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clock_moves_and_the_manual_one_waits() {
        let (first, second) = (SystemClock.boottime(), SystemClock.boottime());
        assert!(second >= first && first > BootTime::default());
        let clock = ManualClock::default();
        let before = clock.boottime();
        assert_eq!(clock.boottime(), before);
        clock.advance(Duration::from_secs(1));
        assert_eq!(clock.boottime().since(before), Duration::from_secs(1));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "held against the exact clock")]
    fn the_clock_of_ticks_never_goes_back_and_keeps_up_with_the_exact_one() {
        let clock = TickClock::new();
        let (began, mut last) = (Instant::now(), clock.now());
        while began.elapsed() < Duration::from_millis(50) {
            let now = clock.now();
            assert!(now >= last);
            last = now;
        }
        let behind = Instant::now().saturating_duration_since(clock.now());
        assert!(last > began, "it moves");
        assert!(behind < Duration::from_secs(1), "{behind:?}");
    }

    #[test]
    fn seeded_bytes_repeat_and_never_stand_still() {
        let (one, other) = (SeededEntropy::new(1), SeededEntropy::new(1));
        let first: [u8; 40] = random(&one);
        assert_eq!(first, random(&other));
        assert_ne!(first, random::<40>(&one));
        assert_ne!(random::<40>(&SystemEntropy), random::<40>(&SystemEntropy));
    }
}
