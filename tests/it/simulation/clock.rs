//! True time, which nobody in the simulated world can read, and the clock of each machine, which runs at its own rate.

use std::ops::Sub;
use std::time::Duration;

use latchkey::domain::time::BootTime;
use latchkey::mutation::Mutation;

/// Thousandths: a clock that goes right.
pub const RIGHT: u64 = 1_000;

/// A moment of true time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Moment(Duration);

impl Moment {
    /// The moment `span` later.
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0 + span)
    }

    /// How long the world has been there.
    pub fn age(self) -> Duration {
        self.0
    }
}

impl Sub for Moment {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// The clock of one machine, `CLOCK_BOOTTIME`: it goes on while the machine is suspended, at a rate near the true one.
#[derive(Clone, Copy, Debug)]
pub struct NodeClock {
    /// Thousandths of the true rate.
    rate: u64,
    /// What it showed, and when.
    shown: Duration,
    at: Moment,
}

impl NodeClock {
    /// A clock that shows `shown` at `now` and has the rate of so many thousandths.
    pub fn new(rate: u64, shown: Duration, now: Moment) -> Self {
        Self { rate, shown, at: now }
    }

    /// What it shows.
    pub fn boottime(&self, now: Moment) -> BootTime {
        BootTime::from_span(self.shown(now))
    }

    /// Gives it another rate from now on.
    pub fn set_rate(&mut self, rate: u64, now: Moment) {
        *self = Self::new(rate, self.shown(now), now);
    }

    /// The machine is suspended for `span`. Only a broken clock takes notice.
    pub fn suspend(&mut self, span: Duration, now: Moment) {
        if Mutation::MonotonicClock.is_on() {
            *self = Self::new(self.rate, self.shown(now), now.plus(span));
        }
    }

    /// How much true time passes while it goes on by `span`.
    pub fn true_span(&self, span: Duration) -> Duration {
        scale(span, RIGHT, self.rate)
    }

    fn shown(&self, now: Moment) -> Duration {
        self.shown + scale(now - self.at, self.rate, RIGHT)
    }
}

fn scale(span: Duration, times: u64, by: u64) -> Duration {
    let nanos = span.as_nanos() * u128::from(times) / u128::from(by);
    Duration::from_nanos(u64::try_from(nanos).expect("no world lives that long"))
}
