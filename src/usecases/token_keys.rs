//! Token keys in the fleet: each node records those that it has, and all know of all of them, so that no node takes a token
//! that another one signed for a forged one.

use std::sync::Arc;

use super::App;
use crate::domain::id::Position;
use crate::domain::refusal::Refusal;
use crate::domain::token::{GenuineToken, KeyId, NotGenuine};
use crate::live::keeper::EndKnown;
use crate::store::{self, RegisterTokenKeys};

/// Records the keys of this node, and returns when every node has heard of them; the number of a key that is recorded with
/// another fingerprint. To be called whenever this node may have missed those of others.
pub async fn register_token_keys(app: &App) -> store::Result<Option<KeyId>> {
    let keys: Vec<_> = app.keys.keys().iter().map(|key| (key.id(), key.fingerprint())).collect();
    let set = app.fleet.table().token_keys();
    let asked = set.ask();
    let write = app.store.register_token_keys(&keys, app.stamp());
    match app.fleet.write(write, EndKnown::Nothing).await? {
        RegisterTokenKeys::Registered { known, .. } => {
            set.learn(asked, known);
            Ok(None)
        }
        RegisterTokenKeys::Mismatch(key) => Ok(Some(key)),
    }
}

/// Forgets a key that no node has any more, and returns when that is in force on every node; the position of the row that
/// says so, 0 where the database does not know the key. None where this node has it.
pub async fn forget_token_key(app: &Arc<App>, key: KeyId) -> Result<Option<Position>, Refusal> {
    if app.keys.keys().iter().any(|own| own.id() == key) {
        return Ok(None);
    }
    let (writer, stamp) = (Arc::clone(app), app.stamp());
    let forget = async move {
        let write = writer.store.forget_token_key(key, stamp);
        Ok(writer.fleet.write(write, EndKnown::Nothing).await?)
    };
    let change = app.tasks.run(forget).await?;
    Ok(Some(change.map_or(Position::ZERO, |change| change.position)))
}

/// Reads a token. No allocation, no statement.
pub(super) fn verify(app: &App, token: &str) -> Result<GenuineToken, Refusal> {
    app.keys.verify(token).map_err(|why| {
        if may_be_good_elsewhere(app, why) { Refusal::LeaseLost } else { Refusal::SessionTokenInvalid }
    })
}

/// Whether a node that has the key may know the session of a token. What the token itself says of its end bounds that.
#[cold]
pub(super) fn may_be_good_elsewhere(app: &App, why: NotGenuine) -> bool {
    let NotGenuine::UnknownKey { key, expire_time } = why else { return false };
    // The lease first: while it holds, no key of which this node has not heard signs.
    let is_unknown = app.fleet.is_leased() && app.fleet.table().token_keys().contains(key) == Some(false);
    !is_unknown && app.now() < expire_time
}
