//! CreateSession: a trusted caller has itself proved who the person is.

use std::sync::Arc;

use super::App;
use super::sign_in::{SignedIn, Terms, sign_in};
use crate::domain::id::UserId;
use crate::domain::refusal::Refusal;
use crate::domain::user::UserState;
use crate::store::UserKey;

/// Signs the user in without a password.
pub async fn create_session(app: &Arc<App>, user: UserId, terms: Terms) -> Result<SignedIn, Refusal> {
    let reader = app.fleet.reader();
    let credentials = app.store.credentials(UserKey::Id(user)).await?.ok_or(Refusal::UserNotFound)?;
    if credentials.user.state != UserState::Active {
        return Err(Refusal::UserDisabled);
    }
    sign_in(app, reader, credentials, terms).await
}
