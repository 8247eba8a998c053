//! What is taken from the machine: its clock and its randomness, each behind a trait.
//!
//! This is the only file that may ask either. Everything else is handed a `now` or some bytes.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use sha2::{Digest as _, Sha256};

use crate::domain::time::{BootTime, UnixMillis};

/// The machine's clock.
pub trait Clock: Send + Sync + 'static {
    /// Time since boot, time spent suspended included (`CLOCK_BOOTTIME`).
    fn boottime(&self) -> BootTime;

    /// What the wall clock shows (`CLOCK_REALTIME`), which anybody may set. A witness only: nothing is decided by it.
    fn wall(&self) -> UnixMillis;
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
        BootTime::from_span(since_begin(ClockId::Boottime))
    }

    fn wall(&self) -> UnixMillis {
        UnixMillis::default().plus(since_begin(ClockId::Realtime))
    }
}

/// The machine's last tick.
pub trait Ticks: Send + Sync + 'static {
    /// When it was: at most a few milliseconds ago, and never in the future. For time-outs of seconds that are asked for very
    /// often, since it takes a fifth of the time that the exact clock takes. Stops while the machine is suspended, as
    /// what waits by tokio does.
    fn last(&self) -> Instant;
}

/// The ticks of the operating system (`CLOCK_MONOTONIC_COARSE`).
#[derive(Clone, Copy, Debug)]
pub struct SystemTicks {
    /// A tick, by both clocks.
    began: (Instant, Duration),
}

impl SystemTicks {
    /// Begins at the last one.
    #[expect(
        clippy::disallowed_methods,
        reason = "what waits for a moment of this clock waits by tokio's, which is this"
    )]
    pub fn new() -> Self {
        let tick = since_begin(ClockId::MonotonicCoarse);
        let since = since_begin(ClockId::Monotonic).saturating_sub(tick);
        let now = Instant::now();
        Self { began: (now.checked_sub(since).unwrap_or(now), tick) }
    }
}

impl Ticks for SystemTicks {
    fn last(&self) -> Instant {
        let (began, tick) = self.began;
        began + since_begin(ClockId::MonotonicCoarse).saturating_sub(tick)
    }
}

impl Default for SystemTicks {
    fn default() -> Self {
        Self::new()
    }
}

/// What a clock of the system shows.
fn since_begin(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
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
    /// What its wall clock shows at the boot.
    pub const WALL_AT_BOOT: UnixMillis = UnixMillis::from_millis(1_767_225_600_000);

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

    fn wall(&self) -> UnixMillis {
        Self::WALL_AT_BOOT.plus(self.boottime().since(BootTime::default()))
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
    fn the_last_tick_was_lately_and_never_goes_back() {
        let ticks = SystemTicks::new();
        let (began, mut last) = (Instant::now(), ticks.last());
        while began.elapsed() < Duration::from_millis(50) {
            let (tick, now) = (ticks.last(), Instant::now());
            // The two clocks that it is made of are not read at the same nanosecond.
            assert!(tick >= last && tick <= now + Duration::from_millis(1), "{last:?} {tick:?} {now:?}");
            last = tick;
        }
        assert!(last > began, "it moves");
        assert!(Instant::now().saturating_duration_since(ticks.last()) < Duration::from_secs(1));
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
