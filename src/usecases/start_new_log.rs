//! StartNewLog: what an operator does after the database was restored from a backup.

use std::sync::Arc;

use super::App;
use crate::domain::id::LogId;
use crate::domain::refusal::Refusal;
use crate::store::Change;

/// Gives the log another name and ends everyone's sessions, and returns when that is in force on every node.
pub async fn start_new_log(app: &Arc<App>) -> Result<(LogId, Change), Refusal> {
    let (writer, stamp) = (Arc::clone(app), app.stamp());
    app.tasks.run(async move { Ok(writer.fleet.start_new_log(stamp).await?) }).await
}
