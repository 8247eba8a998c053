//! The background deletion of sessions that ended long ago, and of the rows of the change log that nobody needs any more. It
//! never changes what is good and what is not. While the database's clock is in doubt nothing is deleted: by a clock that is
//! days ahead, sessions that stand would be taken for old ones.

use std::time::Duration;

use super::App;
use crate::domain::refusal::Refusal;

/// Deletes, in batches of `batch`, the sessions that ended more than `retain` ago. Answers how many it were.
pub async fn purge(app: &App, retain: Duration, batch: u32) -> Result<u64, Refusal> {
    if !app.fleet.may_delete_by_age() {
        return Ok(0);
    }
    let before = app.now().minus(retain);
    let mut purged = 0;
    loop {
        let count = app.store.purge_sessions(before, batch).await?;
        purged += count;
        if count < u64::from(batch) {
            return Ok(purged);
        }
    }
}

/// Deletes, in batches of `batch`, the rows of the change log that are older than `retain`. Answers how many it were.
pub async fn truncate_log(app: &App, retain: Duration, batch: u32) -> Result<u64, Refusal> {
    if !app.fleet.may_delete_by_age() {
        return Ok(0);
    }
    let before = app.now().minus(retain);
    let mut deleted = 0;
    loop {
        let count = app.fleet.truncate_log(before, batch).await?;
        deleted += count;
        if count < u64::from(batch) {
            return Ok(deleted);
        }
    }
}
