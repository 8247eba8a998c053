//! LoadUser: the user of a session, or by id or login.

use std::sync::Arc;

use super::App;
use super::validate_session::{Demands, Validated, validate_session};
use crate::domain::refusal::Refusal;
use crate::domain::user::User;
pub use crate::store::UserKey;

/// Makes an answer of a good session and its user; counts as a use of it.
pub async fn load_user_by_token<T>(
    app: &Arc<App>,
    token: &str,
    answer: impl Fn(Validated<'_>) -> T,
) -> Result<T, Refusal> {
    validate_session(app, token, &Demands::default(), answer).await
}

/// The user of an id or login, whatever the state.
pub async fn load_user(app: &App, key: UserKey<'_>) -> Result<User, Refusal> {
    app.store.user(key).await?.ok_or(Refusal::UserNotFound)
}
