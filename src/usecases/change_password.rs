//! ChangePassword: the owner sets a new password, and every other session ends in the same transaction.
//!
//! The epoch that the change is conditional on is the one read together with the hash that was verified. Of two changes
//! at once one wins. The other one asks again whether its session stands and its current password is right: after another
//! change of the password they are not, but all that happened may be that sessions were ended.

use std::sync::Arc;

use super::log_in::{throttle, verify};
use super::sign_in::{SignedIn, Terms, new_session_after_change};
use super::validate_session::{Demands, standing};
use super::{App, overtaken};
use crate::domain::client::Client;
use crate::domain::login_name::LoginName;
use crate::domain::password::Password;
use crate::domain::refusal::Refusal;
use crate::domain::session::{Death, Methods};
use crate::live::keeper::EndKnown;
use crate::store::{Change, PasswordChange, UserKey};

/// The two passwords of a change.
#[derive(Clone, Debug)]
pub struct Passwords {
    /// The one that is.
    pub current: Password,
    /// The one that shall be.
    pub new: Password,
}

/// Changes the password of the user of a session; what `client` leaves out is as in
/// that session.
pub async fn change_password_by_token(
    app: &Arc<App>,
    token: &str,
    passwords: Passwords,
    client: Option<Client>,
) -> Result<(SignedIn, Change), Refusal> {
    app.password_policy.check(&passwords.new)?;
    let demands = Demands { client, max_auth_age: None };
    let found = standing(app, token, &demands).await?;
    throttle(app, &found.login, demands.client.as_ref().and_then(|client| client.ip))?;
    let (key, remember) = (UserKey::Id(found.session.user_id), found.session.remembered);
    let lifetime = Some(found.session.lifetime());
    let client = demands.client.clone().unwrap_or_default().or(found.session.client);
    let terms = Terms { methods: Methods::password(), remember, lifetime, client };
    if let Some(changed) = attempt(app, key, passwords.clone(), terms.clone()).await? {
        return Ok(changed);
    }
    // If the session has ended meanwhile, the reason of that is the answer.
    standing(app, token, &demands).await?;
    attempt(app, key, passwords, terms).await?.ok_or_else(overtaken)
}

/// Changes the password of a user who need not be signed in.
pub async fn change_password_by_login(
    app: &Arc<App>,
    login: &LoginName,
    passwords: Passwords,
    client: Option<Client>,
) -> Result<(SignedIn, Change), Refusal> {
    app.password_policy.check(&passwords.new)?;
    let client = client.unwrap_or_default();
    throttle(app, login, client.ip)?;
    let terms = Terms { methods: Methods::password(), remember: false, lifetime: None, client };
    let key = UserKey::Login(login);
    if let Some(changed) = attempt(app, key, passwords.clone(), terms.clone()).await? {
        return Ok(changed);
    }
    attempt(app, key, passwords, terms).await?.ok_or_else(overtaken)
}

/// One round; none where somebody changed the user while the passwords were hashed.
async fn attempt(
    app: &Arc<App>,
    key: UserKey<'_>,
    passwords: Passwords,
    terms: Terms,
) -> Result<Option<(SignedIn, Change)>, Refusal> {
    let credentials = app.store.credentials(key).await?;
    let mut credentials = verify(app, credentials, passwords.current).await?;
    let hash = app.hashing.hash(passwords.new).await?;
    let (token, new) = new_session_after_change(app, &credentials, terms);
    let (session, stamp, writer) = (new.session.clone(), app.stamp(), Arc::clone(app));
    let change = PasswordChange { verified_epoch: credentials.user.credential_epoch, hash, session: new };
    let user = credentials.user.id;
    let write = async move {
        let all = EndKnown::User(user, None, Death::CredentialsChanged);
        Ok(writer.fleet.write(writer.store.change_password(change, stamp), all).await?)
    };
    let won = app.tasks.run(write).await?;
    let Some(won) = won else {
        tracing::info!(user_id = %user, "a password change lost the race against another change of the user");
        return Ok(None);
    };
    credentials.user.credential_epoch = session.user_epoch;
    credentials.user.password_epoch = session.user_epoch;
    credentials.user.password_time = Some(stamp.time);
    credentials.user.update_time = stamp.time;
    Ok(Some((SignedIn { token, session, user: credentials.user }, won)))
}
