//! ListUsers: everybody there is.

use super::App;
use crate::domain::id::UserId;
use crate::domain::refusal::Refusal;
use crate::domain::user::User;

/// Users in the order of their ids, those behind `after`, at most `limit`.
pub async fn list_users(app: &App, after: Option<UserId>, limit: u32) -> Result<Vec<User>, Refusal> {
    Ok(app.store.list_users(after, limit).await?)
}
