//! When a session was used, and what is to be done about it, packed into two numbers of twelve bytes in all: a node holds very many of them.
//!
//! Moments are milliseconds since 1970 and fit for the next five hundred years; one outside of that counts as the nearest
//! that fits.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
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
const QUEUED: u32 = 1;
/// It was used since the keeper last thought of making room.
const USED_LATELY: u32 = 2;
const FLAGS: u32 = QUEUED | USED_LATELY;
const FLAG_BITS: u32 = 2;
const STEPS_MAX: u32 = u32::MAX >> FLAG_BITS;
/// The steps in which it is told when the database was asked. What fits is seventeen years; a session ends after ten at most.
const STEP: Duration = Duration::from_millis(512);
const _: () =
    assert!(STEP.as_millis() * STEPS_MAX as u128 > 10 * 366 * 86_400_000, "a session has ended by then");

/// Two flags, and how long after a session was made the database was last asked, after it seemed idle, and knew no later
/// use; nought where it was not.
#[derive(Debug)]
pub(super) struct Marks(AtomicU32);

/// When something happened: not before `since`, and not after `until`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Happened {
    pub(super) since: UnixMillis,
    pub(super) until: UnixMillis,
}

impl Marks {
    /// Those of a session that was just asked for.
    pub(super) fn new() -> Self {
        Self(AtomicU32::new(USED_LATELY))
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

    /// When the database was last asked and knew no later use of the session, which was made at `created`; none where it
    /// was not.
    pub(super) fn idle_asked(&self, created: UnixMillis) -> Option<Happened> {
        let steps = self.0.load(Ordering::Relaxed) >> FLAG_BITS;
        let until = created.plus(STEP.saturating_mul(steps));
        (steps > 0).then(|| Happened { since: created.plus(STEP.saturating_mul(steps - 1)), until })
    }

    /// The database was asked at `now`, about a session that was made at `created`.
    pub(super) fn note_idle(&self, created: UnixMillis, now: UnixMillis) {
        let steps = now.since(created).as_millis().div_ceil(STEP.as_millis()).max(1);
        let steps = u32::try_from(steps).unwrap_or(STEPS_MAX).min(STEPS_MAX);
        let later = |packed: u32| Some((packed >> FLAG_BITS).max(steps) << FLAG_BITS | (packed & FLAGS));
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

    const TEN_YEARS: i64 = 10 * 366 * 86_400_000;

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
        let (marks, made) = (Marks::new(), at(1_790_000_000_123));
        assert!(marks.take_used_lately() && !marks.take_used_lately());
        assert!(marks.queue() && !marks.queue());
        assert_eq!(marks.idle_asked(made), None);
        marks.note_idle(made, at(1_790_000_010_123));
        let asked = marks.idle_asked(made);
        marks.note_idle(made, at(5));
        marks.use_lately();
        assert_eq!((marks.idle_asked(made), asked.is_some()), (asked, true), "it only goes up");
        assert!(!marks.queue());
        marks.leave_queue();
        assert!(marks.queue() && marks.take_used_lately());
        assert_eq!(marks.idle_asked(made), asked);
    }

    proptest! {
        #[test]
        fn when_the_database_was_asked_is_known_to_a_step(made in 0..4_000_000_000_000_i64, after in 1..TEN_YEARS) {
            let marks = Marks::new();
            marks.note_idle(at(made), at(made + after));
            let Happened { since, until } = marks.idle_asked(at(made)).expect("it was asked");
            prop_assert!(since < at(made + after) && at(made + after) <= until);
            prop_assert_eq!(until.since(since), STEP);
        }
    }
}
