//! The background writing of when sessions were last used.

use super::App;
use crate::domain::id::SessionId;
use crate::domain::refusal::Refusal;
use crate::domain::time::UnixMillis;

/// Sessions written by one statement at most.
const BATCH: usize = 500;

/// Writes the uses that are due.
pub async fn record_due(app: &App) -> Result<(), Refusal> {
    record(app, app.fleet.table().uses_due(app.now())).await
}

/// Writes all uses, at the end of the process.
pub async fn record_all(app: &App) -> Result<(), Refusal> {
    record(app, app.fleet.table().uses_unwritten()).await
}

async fn record(app: &App, uses: Vec<(SessionId, UnixMillis)>) -> Result<(), Refusal> {
    for batch in uses.chunks(BATCH) {
        app.store.touch_sessions(batch).await?;
        app.fleet.table().uses_written(batch);
    }
    Ok(())
}
