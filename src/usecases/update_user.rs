//! UpdateUser: whatever an administrator changes about a user but the password.

use std::sync::Arc;

use super::App;
use crate::domain::id::UserId;
use crate::domain::refusal::Refusal;
use crate::domain::session::Death;
use crate::domain::user::{User, UserState};
use crate::live::keeper::EndKnown;
pub use crate::store::UserChange;
use crate::store::{self, Change};

/// Changes what `change` names. Disabling the user ends every session.
pub async fn update_user(
    app: &Arc<App>,
    user: UserId,
    change: UserChange,
) -> Result<(User, Change), Refusal> {
    let (writer, stamp) = (Arc::clone(app), app.stamp());
    let disables = change.state == Some(UserState::Disabled);
    let write = async move {
        let known =
            if disables { EndKnown::User(user, None, Death::UserDisabled) } else { EndKnown::Nothing };
        Ok(writer.fleet.write(writer.store.update_user(user, change, stamp), known).await?)
    };
    match app.tasks.run(write).await? {
        store::UpdateUser::Updated(user, change) => Ok((*user, change)),
        store::UpdateUser::NotFound => Err(Refusal::UserNotFound),
        store::UpdateUser::LoginTaken => Err(Refusal::LoginTaken),
    }
}
