//! Reauthenticate: the person of a session proves again who they are, and gets a fresh session in its place.
//!
//! Anything may happen to the user while the password is hashed. What began with an old epoch replaces nothing; whether
//! the session itself ended, and why, is asked again, and where it still stands the password is verified once more.

use std::sync::Arc;

use super::log_in::{throttle, verify};
use super::sign_in::{self, SignedIn, Terms, new_session};
use super::validate_session::{Demands, Standing, standing};
use super::{App, overtaken};
use crate::domain::client::Client;
use crate::domain::password::Password;
use crate::domain::refusal::Refusal;
use crate::domain::session::Methods;
use crate::live::keeper::EndKnown;
use crate::store::UserKey;

/// Replaces the session of `token`; what `client` leaves out is as in that session.
pub async fn reauthenticate(
    app: &Arc<App>,
    token: &str,
    password: Password,
    client: Option<Client>,
) -> Result<SignedIn, Refusal> {
    let demands = Demands { client, max_auth_age: None };
    let found = standing(app, token, &demands).await?;
    throttle(app, &found.login, demands.client.as_ref().and_then(|client| client.ip))?;
    if let Some(signed_in) = attempt(app, found, password.clone(), demands.client.clone()).await? {
        return Ok(signed_in);
    }
    let found = standing(app, token, &demands).await?;
    attempt(app, found, password, demands.client).await?.ok_or_else(overtaken)
}

/// One round; none where somebody ended the old session, or changed the user, while the password was hashed.
async fn attempt(
    app: &Arc<App>,
    standing: Standing,
    password: Password,
    client: Option<Client>,
) -> Result<Option<SignedIn>, Refusal> {
    let old = standing.session;
    let reader = app.fleet.reader();
    let credentials = app.store.credentials(UserKey::Id(old.user_id)).await?;
    let credentials = verify(app, credentials, password).await?;
    let (remember, lifetime) = (old.remembered, Some(old.lifetime()));
    let client = client.unwrap_or_default().or(old.client);
    let terms = Terms { methods: Methods::password(), remember, lifetime, client };
    let (token, new) = new_session(app, &credentials, terms);
    let (session, stamp, writer) = (new.session.clone(), app.stamp(), Arc::clone(app));
    let read = sign_in::read_of(reader, &credentials);
    let write = async move {
        let (kept, known) = (new.clone(), EndKnown::Session(old.id));
        let replaced = writer.fleet.write(writer.store.replace_session(old.id, new, stamp), known).await?;
        if replaced.is_some() {
            read.take_in(&writer, kept).await;
        }
        Ok(replaced)
    };
    let replaced = app.tasks.run(write).await?;
    Ok(replaced.map(|_| SignedIn { token, session, user: credentials.user }))
}
