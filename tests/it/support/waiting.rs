//! Waiting for a condition, with a limit that only something broken meets. Nothing waits for a fixed time.

use std::time::Duration;

/// Long enough for the slowest machine.
pub const PATIENCE: Duration = Duration::from_mins(2);
const BETWEEN: Duration = Duration::from_millis(2);

/// Asks again and again until `holds`; `what` says what never came.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let asking = async {
        let mut turns = tokio::time::interval(BETWEEN);
        while !holds().await {
            turns.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// Waits for `work`, which has to end.
pub async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("never: {what}"))
}
