//! RevokeSessions: log-out, and what an administrator ends.

use std::sync::Arc;

use super::App;
use super::token_keys::may_be_good_elsewhere;
use crate::domain::id::Position;
use crate::domain::refusal::Refusal;
use crate::domain::session::EndReason;
pub use crate::store::EndTarget;
use crate::store::{Change, Ending};

/// Ends the session of a token. A text that is not a genuine token names no session, so nothing is asked or written.
///
/// A token of a key that only other nodes have may be good there, so saying that it is over would be a false promise.
pub async fn log_out(app: &Arc<App>, token: &str) -> Result<Change, Refusal> {
    match app.keys.verify(token) {
        Ok(genuine) => revoke_sessions(app, EndTarget::Digest(genuine.digest)).await,
        Err(why) if may_be_good_elsewhere(app, why) => Err(Refusal::LeaseLost),
        Err(_) => Ok(Change { ended: 0, position: Position::ZERO, rows: Vec::new() }),
    }
}

/// Ends what `target` names, and returns when that is in force on every node.
pub async fn revoke_sessions(app: &Arc<App>, target: EndTarget) -> Result<Change, Refusal> {
    let (writer, stamp) = (Arc::clone(app), app.stamp());
    let ending = Ending { target, reason: EndReason::Revoked };
    app.tasks.run(async move { Ok(writer.fleet.end(ending, stamp).await?) }).await
}
