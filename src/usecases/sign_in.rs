//! What every way of signing in ends with: a new session, its token, and the epochs it was decided on.

use std::sync::Arc;
use std::time::Duration;

use super::App;
use crate::domain::client::Client;
use crate::domain::id::{Epoch, Position, SessionId};
use crate::domain::refusal::Refusal;
use crate::domain::session::{Methods, Session};
use crate::domain::token::{SECRET_LEN, SessionToken};
use crate::domain::user::User;
use crate::fleet::Reader;
use crate::host;
use crate::live::keeper::EndKnown;
use crate::store::{Credentials, Filling, FoundSession, NewSession};

/// What a person gets who signed in.
#[derive(Debug)]
pub struct SignedIn {
    /// The secret; it is in nobody else's hands.
    pub token: SessionToken,
    /// The session.
    pub session: Session,
    /// Whose it is.
    pub user: User,
}

/// What the session shall be like.
#[derive(Clone, Debug)]
pub struct Terms {
    /// How the person proved who they are.
    pub methods: Methods,
    /// Whether it shall live long.
    pub remember: bool,
    /// A wish for a shorter life.
    pub lifetime: Option<Duration>,
    /// The device.
    pub client: Client,
}

/// Makes a session for the user of `credentials`, with the epochs read there and never again: what changed since then
/// makes it dead on arrival.
pub(super) fn new_session(app: &App, credentials: &Credentials, terms: Terms) -> (SessionToken, NewSession) {
    let now = app.now();
    let (lifetime, idle_limit) = app.session_policy.spans(terms.remember, terms.lifetime);
    let (token, genuine) = app.keys.mint(now.plus(lifetime), &host::random::<SECRET_LEN>(&*app.entropy));
    let session = Session {
        id: SessionId::mint(now, host::random(&*app.entropy)),
        user_id: credentials.user.id,
        user_epoch: credentials.user.credential_epoch,
        everyone_epoch: credentials.everyone_epoch,
        create_time: now,
        authenticate_time: now,
        expire_time: genuine.expire_time,
        last_seen_time: now,
        idle_limit,
        remembered: terms.remember,
        methods: terms.methods,
        client: terms.client,
        ended: None,
    };
    (token, NewSession { session, digest: genuine.digest })
}

/// The same for a session that begins with a change of the password: it is born with the epoch that the change makes.
pub(super) fn new_session_after_change(
    app: &App,
    credentials: &Credentials,
    terms: Terms,
) -> (SessionToken, NewSession) {
    let (token, mut new) = new_session(app, credentials, terms);
    new.session.user_epoch = next_epoch(credentials);
    (token, new)
}

fn next_epoch(credentials: &Credentials) -> Epoch {
    credentials.user.credential_epoch.next()
}

/// Writes the session, to the end even when the client goes away, and takes it into memory as of the read that it was
/// decided on.
pub(super) async fn sign_in(
    app: &Arc<App>,
    reader: Reader,
    credentials: Credentials,
    terms: Terms,
) -> Result<SignedIn, Refusal> {
    let (token, new) = new_session(app, &credentials, terms);
    let (session, stamp, writer, read) =
        (new.session.clone(), app.stamp(), Arc::clone(app), read_of(reader, &credentials));
    app.tasks
        .run(async move {
            let (kept, per_user_max) = (new.clone(), writer.session_policy.per_user_max);
            let write = writer.store.create_session(new, per_user_max, stamp);
            writer.fleet.write(write, EndKnown::Nothing).await?;
            read.take_in(&writer, kept).await;
            Ok(())
        })
        .await?;
    Ok(SignedIn { token, session, user: credentials.user })
}

/// The read that a sign-in was decided on, without the password.
pub(super) struct Read {
    user: User,
    position: Position,
    everyone_epoch: Epoch,
    reader: Reader,
}

/// What `credentials` say without the password; `reader` is who read them, asked before the read.
pub(super) fn read_of(reader: Reader, credentials: &Credentials) -> Read {
    let Credentials { user, position, everyone_epoch, .. } = credentials;
    let (position, everyone_epoch) = (*position, *everyone_epoch);
    Read { user: user.clone(), position, everyone_epoch, reader }
}

impl Read {
    /// Takes a session into memory that was written since. What changed since the read makes memory read it anew.
    pub(super) async fn take_in(self, app: &App, new: NewSession) {
        let found = vec![FoundSession { digest: new.digest, session: new.session, user: Some(self.user) }];
        let filling = Filling { position: self.position, everyone_epoch: self.everyone_epoch, found };
        app.fleet.take_in(self.reader, filling).await;
    }
}
