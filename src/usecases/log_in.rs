//! Login: a login name and a password become a session.
//!
//! Unknown user, wrong password, disabled user and user without password take the same statements and the same hashing
//! work, and get the same answer. No database connection is held while hashing.

use std::net::IpAddr;
use std::sync::Arc;

use super::App;
use super::sign_in::{SignedIn, Terms, sign_in};
use crate::domain::login_name::LoginName;
use crate::domain::password::{Password, PasswordHash};
use crate::domain::refusal::Refusal;
use crate::domain::user::UserState;
use crate::passwords::pool::Verdict;
use crate::store::{Credentials, UserKey};

/// Signs a person in.
pub async fn log_in(
    app: &Arc<App>,
    login: &LoginName,
    password: Password,
    terms: Terms,
) -> Result<SignedIn, Refusal> {
    throttle(app, login, terms.client.ip)?;
    let reader = app.fleet.reader();
    let credentials = app.store.credentials(UserKey::Login(login)).await?;
    let credentials = verify(app, credentials, password).await?;
    sign_in(app, reader, credentials, terms).await
}

/// Spends one attempt of the budgets, before any work is done for it.
pub(super) fn throttle(app: &App, login: &LoginName, ip: Option<IpAddr>) -> Result<(), Refusal> {
    let Some(throttle) = &app.throttle else { return Ok(()) };
    throttle
        .check(login.key(), ip)
        .map_err(|throttled| Refusal::LoginThrottled { retry_after: throttled.retry_after })
}

/// Gives the credentials back if the password is theirs and the user may sign in.
pub(super) async fn verify(
    app: &Arc<App>,
    credentials: Option<Credentials>,
    password: Password,
) -> Result<Credentials, Refusal> {
    let active = credentials.filter(|credentials| credentials.user.state == UserState::Active);
    let hash = active.as_ref().and_then(|credentials| credentials.password_hash.clone());
    let verdict = app.hashing.verify(password.clone(), hash).await?;
    match (active, verdict) {
        (Some(credentials), Verdict::Match { upgrade }) => {
            if let (true, Some(old)) = (upgrade, credentials.password_hash.clone()) {
                upgrade_hash(app, &credentials, password, old);
            }
            Ok(credentials)
        }
        (Some(credentials), Verdict::Unreadable) => {
            tracing::error!(user_id = %credentials.user.id, "the stored password hash cannot be read; set a new password");
            Err(Refusal::InvalidCredentials)
        }
        _ => Err(Refusal::InvalidCredentials),
    }
}

/// Hashes the password again under today's policy, behind the back of the person who just signed in.
fn upgrade_hash(app: &Arc<App>, credentials: &Credentials, password: Password, old: PasswordHash) {
    let (upgrader, user) = (Arc::clone(app), credentials.user.id);
    app.tasks.detach(async move {
        // A full queue or a lost race costs nothing: the next sign-in tries again.
        let Ok(new) = upgrader.hashing.hash(password).await else { return };
        if let Err(error) = upgrader.store.upgrade_password_hash(user, &old, &new).await {
            tracing::warn!(%error, user_id = %user, "a password hash was not upgraded");
        }
    });
}
