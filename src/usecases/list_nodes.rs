//! ListNodes: how the nodes of the fleet and the database's schema stand.

use super::App;
use crate::domain::refusal::Refusal;
pub use crate::store::coordination::{NodeRow, NodeState, Roster};

/// The nodes as the database lists them.
pub async fn list_nodes(app: &App) -> Result<Roster, Refusal> {
    Ok(app.fleet.nodes().await?)
}

/// What is missing or changed of the database's schema: whatever rests on it is refused, or worse.
pub async fn schema_flaws(app: &App) -> Result<Vec<String>, Refusal> {
    Ok(app.fleet.schema_flaws().await?)
}
