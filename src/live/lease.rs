//! The right to answer from memory, up to a moment on this machine's clock.
//!
//! The order lease, clock, state is load-bearing: with any other, a renewal in between would bless an old answer. So
//! [`Lease::ask`] reads the lease and then the clock, and `Table::look_up` asks it before it reads any state.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::domain::time::BootTime;

/// Until when this node may answer from memory. One writer, the follower; readers never wait.
#[derive(Debug, Default)]
pub struct Lease {
    /// Nanoseconds since boot; 0 is never.
    end: AtomicU64,
}

/// The proof that the lease held, by a clock that was read after it and before any state.
#[derive(Clone, Copy, Debug)]
pub struct Leased {
    now: BootTime,
}

impl Leased {
    /// The moment at which the lease held.
    pub fn now(self) -> BootTime {
        self.now
    }
}

impl Lease {
    /// Reads the lease, then asks the clock, and gives the right to look something up if the lease holds.
    pub fn ask(&self, clock: impl FnOnce() -> BootTime) -> Option<Leased> {
        // Acquire: whatever was applied before the lease was published is seen by all that is read from here on.
        let end = self.end.load(Ordering::Acquire);
        let now = clock();
        (now.as_nanos() < end).then_some(Leased { now })
    }

    /// Lets the lease run until `end`. All that the log said up to then must be in memory.
    pub fn publish(&self, end: BootTime) {
        self.end.store(end.as_nanos(), Ordering::Release);
    }

    /// Gives the lease up at once.
    pub fn give_up(&self) {
        self.end.store(0, Ordering::Release);
    }

    /// When it ends; none while there is none. For people and metrics: a look-up goes by [`Lease::ask`].
    pub fn end(&self) -> Option<BootTime> {
        let end = self.end.load(Ordering::Acquire);
        (end > 0).then(|| BootTime::from_nanos(end))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_lease_is_half_open_and_can_be_given_up() {
        let (lease, second) = (Lease::default(), Duration::from_secs(1));
        let end = BootTime::from_span(second);
        assert!(lease.ask(BootTime::default).is_none(), "there is none at first");
        lease.publish(end);
        assert!(lease.ask(BootTime::default).is_some());
        assert!(lease.ask(|| end).is_none());
        assert_eq!(lease.end(), Some(end));
        lease.give_up();
        assert!(lease.ask(BootTime::default).is_none());
    }

    #[test]
    fn the_lease_is_read_before_the_clock() {
        let lease = Lease::default();
        let (early, late) = (BootTime::default(), BootTime::from_span(Duration::from_secs(9)));
        // A renewal that comes while the clock is read must not count.
        let asked = lease.ask(|| {
            lease.publish(late);
            early
        });
        assert!(asked.is_none());
    }
}
