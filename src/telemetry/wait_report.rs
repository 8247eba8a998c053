//! Says in the log what is being waited for, and for how long, every few seconds. A start that hangs without a word looks
//! like a defect.

use std::future::Future;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

/// How often a wait is reported.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(3);

/// Waits for `work`, and reports the wait for as long as it takes.
pub async fn report_wait<T>(what: &str, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    let mut ticks = interval(REPORT_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick comes at once.
    ticks.tick().await;
    let mut waited = Duration::ZERO;
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            _ = ticks.tick() => {
                waited += REPORT_INTERVAL;
                tracing::warn!(waited_s = waited.as_secs(), "still waiting for {what}");
            }
        }
    }
}
