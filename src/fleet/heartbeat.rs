//! When a node proves by a durable commit that its server still is the one that decides. Without I/O.
//!
//! The lease counts from that proof, so it is renewed long before the lease is over. An attempt that fails while the log can
//! be read is repeated less and less often: a server that waits for a standby keeps a session for each of them.

use std::time::Duration;

use crate::domain::time::BootTime;

/// Proofs in the span of a lease.
const PER_LEASE: u32 = 4;
/// The longest wait after a failure, in leases.
const RETRY_LEASES_MAX: u32 = 2;

/// What is known of the attempts since the last one that succeeded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Heartbeat {
    failures: u32,
    last_failed: Option<BootTime>,
}

impl Heartbeat {
    /// Whether another one is due at `now`, where the last one that succeeded was sent at `durable_at`.
    pub fn is_due(self, durable_at: BootTime, now: BootTime, lease: Duration) -> bool {
        let period = lease / PER_LEASE;
        let waited = self.last_failed.is_none_or(|failed| now.since(failed) >= self.retry(lease));
        now.since(durable_at) >= period && waited
    }

    /// One that was sent at `sent` was not answered.
    pub fn failed(&mut self, sent: BootTime, lease: Duration) {
        // Beyond this the wait does not grow.
        if self.retry(lease) < lease * RETRY_LEASES_MAX {
            self.failures += 1;
        }
        self.last_failed = Some(sent);
    }

    fn retry(self, lease: Duration) -> Duration {
        let doubled =
            (lease / PER_LEASE).saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        doubled.min(lease * RETRY_LEASES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::millis;
    use super::*;

    const LEASE: Duration = Duration::from_secs(4);

    #[test]
    fn one_is_due_each_quarter_of_a_lease() {
        let heartbeat = Heartbeat::default();
        assert!(!heartbeat.is_due(millis(5_000), millis(5_999), LEASE));
        assert!(heartbeat.is_due(millis(5_000), millis(6_000), LEASE));
    }

    #[test]
    fn failures_are_repeated_less_and_less_often_up_to_a_limit() {
        let (mut heartbeat, mut sent) = (Heartbeat::default(), 10_000);
        for wait in [2_000, 4_000, 8_000, 8_000, 8_000] {
            heartbeat.failed(millis(sent), LEASE);
            assert!(!heartbeat.is_due(millis(0), millis(sent + wait - 1), LEASE), "{wait}");
            sent += wait;
            assert!(heartbeat.is_due(millis(0), millis(sent), LEASE), "{wait}");
        }
    }
}
