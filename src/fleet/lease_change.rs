//! How the length of leases changes while the fleet runs. Without I/O.
//!
//! During a change two lengths are in force: nodes take the shorter one (`current`), and whoever waits until leases have run
//! out waits for the longer one (`longest`). A change begins with one write. The second one ends it, by any node that has seen
//! the first one for as long as one waits for the longest lease:
//!
//! * Shorter: by then no lease of the old length is left, so the others may stop waiting for it.
//! * Longer: by then no revocation goes by the old length any more, so nodes may take the longer lease. A revoker goes by
//!   what it has read since its commit, or by what it polled within one lease before it ([`KnownLease`]).
//!
//! A change that took the place of another one adds its own length, and its wait begins anew. Nobody is needed to go on with
//! a change, so it does not matter what becomes of the node that began it.

use std::time::Duration;

use crate::domain::id::Nonce;
use crate::domain::invalid::Invalid;
use crate::domain::time::BootTime;
use crate::fleet::follower::wait_for_silent;
use crate::mutation::Mutation;
use crate::store::coordination::LeaseDuration;

/// The shortest lease: it outlasts two polls that are given up and the pause between them.
pub const LEASE_MIN: Duration = Duration::from_millis(1_500);
/// The longest lease: a revocation waits a little longer than that for a node that died.
pub const LEASE_MAX: Duration = Duration::from_mins(1);

/// A lease that a fleet may have.
pub fn checked(lease: Duration) -> Result<Duration, Invalid> {
    let is_whole = lease.subsec_nanos().is_multiple_of(1_000_000);
    if (LEASE_MIN..=LEASE_MAX).contains(&lease) && is_whole {
        Ok(lease)
    } else {
        Err(Invalid::new("must be from 1.5 to 60 seconds, in whole milliseconds"))
    }
}

/// What to write so that leases become as long as `target`; none where they are, or are about to be. `nonce` is a new one.
pub fn begin(lease: LeaseDuration, target: Duration, nonce: Nonce) -> Option<LeaseDuration> {
    if lease.target == target {
        return None;
    }
    let current = if Mutation::LongerLeaseAtOnce.is_on() { target } else { lease.current.min(target) };
    let longest = if Mutation::ShorterWaitAtOnce.is_on() { target } else { lease.longest.max(target) };
    Some(LeaseDuration { current, longest, target, change: Some(nonce) })
}

/// One node's view of a change that is not in force yet.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChangeWatch {
    /// The change, and when this node first read it.
    seen: Option<(LeaseDuration, BootTime)>,
}

impl ChangeWatch {
    /// What to write to end the change of `lease`, which was read from the database and had come by `now`; none while it has
    /// to be waited for.
    pub fn end(&mut self, lease: LeaseDuration, now: BootTime) -> Option<LeaseDuration> {
        if lease.is_settled() {
            self.seen = None;
            return None;
        }
        let since = match self.seen {
            Some((seen, since)) if seen == lease => since,
            _ => now,
        };
        self.seen = Some((lease, since));
        let is_over = now.since(since) >= wait_for_silent(lease.longest);
        (is_over || Mutation::LeaseChangeNotAwaited.is_on()).then(|| LeaseDuration::settled(lease.target))
    }
}

/// How long leases were at the last good poll of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KnownLease {
    /// When the poll was asked.
    pub asked_at: BootTime,
    /// What it read.
    pub lease: LeaseDuration,
}

impl KnownLease {
    /// The longest lease that a node may hold which has not applied a change that was committed by `committed_at`; none where
    /// the poll is too old to tell. A longer lease is not taken before it was announced for longer than that.
    pub fn longest_at(self, committed_at: BootTime) -> Option<Duration> {
        let is_fresh = committed_at.since(self.asked_at) <= self.lease.current;
        (is_fresh || Mutation::StaleLeaseBelieved.is_on()).then_some(self.lease.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{millis, nonce};
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn changing(current: u64, longest: u64, target: u64, change: i64) -> LeaseDuration {
        LeaseDuration {
            current: seconds(current),
            longest: seconds(longest),
            target: seconds(target),
            change: Some(nonce(change)),
        }
    }

    #[test]
    fn a_lease_has_bounds_and_whole_milliseconds() {
        for (nanos, fits) in [
            (1_499_000_000, false),
            (1_500_000_000, true),
            (1_500_500_000, false),
            (60_000_000_000, true),
            (60_001_000_000, false),
        ] {
            assert_eq!(checked(Duration::from_nanos(nanos)).is_ok(), fits, "{nanos} ns");
        }
    }

    #[test]
    fn nodes_take_the_shorter_lease_and_the_others_wait_for_the_longer_one() {
        let five = LeaseDuration::settled(seconds(5));
        assert_eq!(begin(five, seconds(2), nonce(1)), Some(changing(2, 5, 2, 1)));
        assert_eq!(begin(five, seconds(9), nonce(1)), Some(changing(5, 9, 9, 1)));
        assert_eq!(begin(five, seconds(5), nonce(1)), None);
    }

    #[test]
    fn a_change_that_takes_the_place_of_another_keeps_both_bounds() {
        let shorter = changing(2, 5, 2, 1);
        assert_eq!(begin(shorter, seconds(2), nonce(2)), None, "it goes on");
        assert_eq!(begin(shorter, seconds(9), nonce(2)), Some(changing(2, 9, 9, 2)));
        assert_eq!(begin(shorter, seconds(5), nonce(2)), Some(changing(2, 5, 5, 2)));
        assert_eq!(begin(changing(2, 9, 9, 2), seconds(3), nonce(3)), Some(changing(2, 9, 3, 3)));
    }

    #[test]
    fn a_change_ends_when_one_node_has_seen_it_for_as_long_as_one_waits() {
        let (mut watch, shorter) = (ChangeWatch::default(), changing(2, 4, 2, 1));
        assert_eq!(watch.end(shorter, millis(1_000)), None);
        assert_eq!(watch.end(shorter, millis(1_000 + 5_049)), None);
        let settled = Some(LeaseDuration::settled(seconds(2)));
        assert_eq!(watch.end(shorter, millis(1_000 + 5_050)), settled);
        assert_eq!(watch.end(shorter, millis(1_000 + 5_051)), settled, "again, if that write was lost");
        let same_again = changing(2, 4, 2, 2);
        assert_eq!(watch.end(same_again, millis(9_000)), None, "another change");
        assert_eq!(watch.end(LeaseDuration::settled(seconds(2)), millis(9_500)), None);
        assert_eq!(watch.end(same_again, millis(9_000 + 5_050)), None, "it was over in between");
    }

    #[test]
    fn a_poll_tells_the_longest_lease_for_one_lease() {
        let known = KnownLease { asked_at: millis(1_000), lease: changing(2, 9, 9, 1) };
        assert_eq!(known.longest_at(millis(500)), Some(seconds(9)), "it was asked after the commit");
        assert_eq!(known.longest_at(millis(3_000)), Some(seconds(9)));
        assert_eq!(known.longest_at(millis(3_001)), None);
    }

    /// The wait of a change outlasts the knowledge of every node, however their clocks differ.
    #[test]
    fn nobody_knows_the_old_length_when_a_longer_lease_is_taken() {
        for lease in [LEASE_MIN, seconds(5), LEASE_MAX] {
            assert!(wait_for_silent(lease).mul_f64(1.0 / 1.1) > lease.mul_f64(1.0 / 0.9));
        }
    }
}
