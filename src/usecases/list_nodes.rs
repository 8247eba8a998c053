//! ListNodes: how the nodes of the fleet stand.

use super::App;
use crate::domain::refusal::Refusal;
pub use crate::store::coordination::{NodeRow, NodeState, Roster};

/// The nodes as the database lists them.
pub async fn list_nodes(app: &App) -> Result<Roster, Refusal> {
    Ok(app.fleet.nodes().await?)
}
