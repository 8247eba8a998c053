//! DeleteUser: a user goes, and every session ends.

use std::sync::Arc;

use super::App;
use crate::domain::id::UserId;
use crate::domain::refusal::Refusal;
use crate::domain::session::Death;
use crate::live::keeper::EndKnown;
use crate::store::Change;

/// Removes the user.
pub async fn delete_user(app: &Arc<App>, user: UserId) -> Result<Change, Refusal> {
    let (writer, stamp) = (Arc::clone(app), app.stamp());
    let write = async move {
        let all = EndKnown::User(user, None, Death::UserDisabled);
        Ok(writer.fleet.write(writer.store.delete_user(user, stamp), all).await?)
    };
    let change = app.tasks.run(write).await?;
    change.ok_or(Refusal::UserNotFound)
}
