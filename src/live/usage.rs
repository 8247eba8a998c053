//! When a session was used, and what is to be done about it, packed into two numbers: a node holds very many of them.
//!
//! Moments are milliseconds since 1970 and fit for the next five hundred years; one outside of that counts as the nearest
//! that fits.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::uses::WRITE_INTERVAL;
use crate::domain::time::UnixMillis;

/// Bits for how far the database is behind. What does not fit counts as the most that does, which is due all the same.
const LAG_BITS: u32 = 20;
const LAG_MAX: u64 = (1 << LAG_BITS) - 1;
const MILLIS_MAX: u64 = (1 << (u64::BITS - LAG_BITS)) - 1;
const _: () = assert!(LAG_MAX as u128 > WRITE_INTERVAL.as_millis(), "what does not fit is due");

/// The last use that this node knows of, and above how many of its milliseconds the database does not.
#[derive(Debug)]
pub(super) struct LastUse(AtomicU64);

impl LastUse {
    /// A use that the database knows.
    pub(super) fn new(written: UnixMillis) -> Self {
        Self(AtomicU64::new(millis(written) << LAG_BITS))
    }

    /// The last use that this node knows of.
    pub(super) fn seen(&self) -> UnixMillis {
        moment(self.0.load(Ordering::Relaxed) >> LAG_BITS)
    }

    /// Whether there is a use that the database does not know of.
    pub(super) fn is_unwritten(&self) -> bool {
        self.0.load(Ordering::Relaxed) & LAG_MAX > 0
    }

    /// How long ago, at `now`, the last use was that the database knows; too little where that is very long ago.
    pub(super) fn unwritten_for(&self, now: UnixMillis) -> Duration {
        let packed = self.0.load(Ordering::Relaxed);
        now.since(moment((packed >> LAG_BITS).saturating_sub(packed & LAG_MAX)))
    }

    /// Remembers a use, which the database does not know of. Most come in the millisecond of another, and write nothing.
    pub(super) fn note(&self, now: UnixMillis) {
        let now = millis(now);
        if self.0.load(Ordering::Relaxed) >> LAG_BITS < now {
            self.change(|seen, lag| (seen.max(now), lag.saturating_add(now.saturating_sub(seen))));
        }
    }

    /// Takes in a use that the database knows.
    pub(super) fn learn(&self, written: UnixMillis) {
        let written = millis(written);
        self.change(|seen, lag| {
            let later = seen.max(written);
            (later, later - written.max(seen.saturating_sub(lag)))
        });
    }

    fn change(&self, change: impl Fn(u64, u64) -> (u64, u64)) {
        let packed = |packed: u64| {
            let (seen, lag) = change(packed >> LAG_BITS, packed & LAG_MAX);
            Some((seen << LAG_BITS) | lag.min(LAG_MAX))
        };
        // It is never refused.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, packed);
    }
}

/// The use is queued to be written down.
const QUEUED: u64 = 1;
/// It was used since the keeper last thought of making room.
const USED_LATELY: u64 = 2;
const FLAG_BITS: u32 = 2;

/// Two flags, and when the database was last asked, after the session seemed idle, and knew no later use.
#[derive(Debug)]
pub(super) struct Marks(AtomicU64);

impl Marks {
    /// Those of a session that was just asked for.
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(USED_LATELY))
    }

    /// Marks the use as queued; false where it was already.
    pub(super) fn queue(&self) -> bool {
        // Most uses find the one before still queued, and write nothing here.
        self.0.load(Ordering::Relaxed) & QUEUED == 0
            && self.0.fetch_or(QUEUED, Ordering::AcqRel) & QUEUED == 0
    }

    /// The use is not queued any more.
    pub(super) fn leave_queue(&self) {
        self.0.fetch_and(!QUEUED, Ordering::Release);
    }

    /// Marks the session as used.
    pub(super) fn use_lately(&self) {
        if self.0.load(Ordering::Relaxed) & USED_LATELY == 0 {
            self.0.fetch_or(USED_LATELY, Ordering::Relaxed);
        }
    }

    /// Whether the session was used since this was last asked.
    pub(super) fn take_used_lately(&self) -> bool {
        self.0.fetch_and(!USED_LATELY, Ordering::Relaxed) & USED_LATELY != 0
    }

    /// When the database was last asked and knew no later use; 1970 where it was not.
    pub(super) fn idle_asked(&self) -> UnixMillis {
        moment(self.0.load(Ordering::Relaxed) >> FLAG_BITS)
    }

    /// The database was asked at `now`.
    pub(super) fn note_idle(&self, now: UnixMillis) {
        let now = millis(now);
        let later = |packed: u64| {
            let asked = (packed >> FLAG_BITS).max(now);
            Some((asked << FLAG_BITS) | (packed & (QUEUED | USED_LATELY)))
        };
        // It is never refused.
        let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Relaxed, later);
    }
}

fn millis(time: UnixMillis) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(0).min(MILLIS_MAX)
}

fn moment(millis: u64) -> UnixMillis {
    UnixMillis::from_millis(i64::try_from(millis).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: i64) -> UnixMillis {
        UnixMillis::from_millis(millis)
    }

    proptest! {
        /// Two plain numbers, of which each only goes up, are what is packed.
        #[test]
        fn what_is_packed_is_two_numbers(begin in 0..1_000_000_i64, steps in prop::collection::vec((any::<bool>(), 0..2_000_000_i64), 0..20)) {
            let (packed, mut seen, mut written) = (LastUse::new(at(begin)), begin, begin);
            let mut overflowed = false;
            for (is_use, time) in steps {
                if is_use {
                    packed.note(at(time));
                    seen = seen.max(time);
                } else {
                    packed.learn(at(time));
                    seen = seen.max(time);
                    written = written.max(time);
                }
                overflowed |= (seen - written).unsigned_abs() > LAG_MAX;
                prop_assert_eq!(packed.seen(), at(seen));
                let behind = packed.unwritten_for(at(seen));
                prop_assert!(overflowed || behind == at(seen).since(at(written)));
                prop_assert!(behind <= at(seen).since(at(written)));
                prop_assert!(overflowed || packed.is_unwritten() == (seen > written));
            }
        }
    }

    #[test]
    fn what_is_very_long_unwritten_is_due_and_times_out_of_range_are_the_nearest() {
        let packed = LastUse::new(at(0));
        packed.note(at(i64::MAX));
        assert!(packed.is_unwritten() && packed.unwritten_for(packed.seen()) >= WRITE_INTERVAL);
        packed.learn(packed.seen());
        assert!(!packed.is_unwritten());
        assert_eq!(LastUse::new(at(-5)).seen(), at(0));
    }

    #[test]
    fn marks_do_not_touch_one_another() {
        let marks = Marks::new();
        assert!(marks.take_used_lately() && !marks.take_used_lately());
        assert!(marks.queue() && !marks.queue());
        marks.note_idle(at(1_790_000_000_123));
        marks.note_idle(at(5));
        marks.use_lately();
        assert_eq!(marks.idle_asked(), at(1_790_000_000_123));
        assert!(!marks.queue());
        marks.leave_queue();
        assert!(marks.queue() && marks.take_used_lately());
        assert_eq!(marks.idle_asked(), at(1_790_000_000_123));
    }
}
