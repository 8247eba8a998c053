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
        let locked = app.store.touch_sessions(batch).await?;
        // What was skipped stays in the book, and is due again in the next turn.
        let written: Vec<_> = batch.iter().filter(|(id, _)| !locked.contains(id)).copied().collect();
        app.fleet.table().uses_written(&written);
    }
    Ok(())
}
