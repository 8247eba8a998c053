//! Hints as the follower hears them: counted, and an operator is told once where they stay away.
//!
//! Without hints every change waits for the next poll of each node, so revocations are slower and nothing else says why.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::driver::pause;
use super::shared::{Counts, Shared, count};
use crate::domain::time::BootTime;
use crate::store;
use crate::store::coordination::Hint;

/// How long hints may stay away before the log says so.
const LOST_WARNING_AFTER: Duration = Duration::from_secs(10);

/// Whether hints arrive.
#[derive(Debug, Default)]
pub(super) struct Hearing {
    /// Whether a connection ever listened.
    listened: bool,
    /// Since when none can be heard.
    lost: Option<BootTime>,
    warned: bool,
}

impl Hearing {
    /// Takes in what was heard at `now`.
    pub(super) fn hear(&mut self, heard: &store::Result<Hint>, counts: &Counts, now: BootTime) {
        match heard {
            Ok(Hint::Grown) => count(&counts.hints),
            Ok(Hint::Listening) => {
                if std::mem::replace(&mut self.listened, true) {
                    count(&counts.hint_reconnects);
                }
                counts.hints_connected.store(1, Ordering::Relaxed);
                self.lost = None;
                if std::mem::take(&mut self.warned) {
                    tracing::info!("notifications from the database arrive again");
                }
            }
            Err(error) => {
                counts.hints_connected.store(0, Ordering::Relaxed);
                let silent = now.since(*self.lost.get_or_insert(now));
                tracing::debug!(%error, "hints cannot be had; the log is polled all the same");
                if silent >= LOST_WARNING_AFTER && !std::mem::replace(&mut self.warned, true) {
                    tracing::warn!(
                        %error,
                        "notifications (LISTEN/NOTIFY) from the database do not arrive, so each revocation waits for the \
                         next poll; is there a pooler in transaction mode, or a firewall, in between?"
                    );
                }
            }
        }
    }
}

/// Waits for a hint, after a pause.
pub(super) fn hinted(shared: Arc<Shared>, after: Duration) -> BoxFuture<'static, store::Result<Hint>> {
    async move {
        if !after.is_zero() {
            pause(after).await;
        }
        shared.coordination.hinted().await
    }
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::samples::millis;
    use crate::store::StoreError;

    /// What was counted: hints, connections after the first, and whether one listens.
    fn counted(counts: &Counts) -> [u64; 3] {
        [&counts.hints, &counts.hint_reconnects, &counts.hints_connected]
            .map(|one| one.load(Ordering::Relaxed))
    }

    #[test]
    fn hints_are_counted_and_their_loss_is_said_once() {
        let (mut hearing, counts) = (Hearing::default(), Counts::default());
        let lost = || Err(StoreError::Unavailable("silent".to_owned()));
        let bound = u64::try_from(LOST_WARNING_AFTER.as_millis()).expect("small");
        for heard in [Ok(Hint::Listening), Ok(Hint::Grown), Ok(Hint::Grown)] {
            hearing.hear(&heard, &counts, millis(0));
        }
        assert_eq!(counted(&counts), [2, 0, 1]);
        hearing.hear(&lost(), &counts, millis(1_000));
        hearing.hear(&lost(), &counts, millis(999 + bound));
        assert_eq!(
            (counted(&counts), hearing.warned),
            ([2, 0, 0], false),
            "that may be a restart of the database"
        );
        hearing.hear(&lost(), &counts, millis(1_000 + bound));
        assert!(hearing.warned);
        hearing.hear(&Ok(Hint::Listening), &counts, millis(2_000 + bound));
        assert_eq!((counted(&counts), hearing.warned), ([2, 1, 1], false));
        hearing.hear(&lost(), &counts, millis(3_000 + bound));
        assert!(!hearing.warned, "the bound counts from the new loss");
    }
}
