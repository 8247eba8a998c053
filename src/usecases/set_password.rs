//! SetPassword: an administrator gives a user a new password, and every session ends.

use std::sync::Arc;

use super::App;
use crate::domain::id::UserId;
use crate::domain::password::Password;
use crate::domain::refusal::Refusal;
use crate::domain::session::Death;
use crate::live::keeper::EndKnown;
use crate::store::Change;

/// Sets the password whatever it was.
pub async fn set_password(app: &Arc<App>, user: UserId, password: Password) -> Result<Change, Refusal> {
    app.password_policy.check(&password)?;
    let hash = app.hashing.hash(password).await?;
    let (writer, stamp) = (Arc::clone(app), app.stamp());
    let write = async move {
        let all = EndKnown::User(user, None, Death::CredentialsChanged);
        Ok(writer.fleet.write(writer.store.set_password(user, hash, stamp), all).await?)
    };
    let change = app.tasks.run(write).await?;
    change.ok_or(Refusal::UserNotFound)
}
