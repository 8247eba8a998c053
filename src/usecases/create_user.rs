//! CreateUser: somebody new who can sign in.

use std::sync::Arc;

use super::App;
use crate::domain::id::UserId;
use crate::domain::login_name::LoginName;
use crate::domain::password::{Password, PasswordHash};
use crate::domain::refusal::Refusal;
use crate::domain::user::{Attributes, DisplayName, Roles, User};
use crate::host;
pub use crate::passwords::import::{check_scheme, import};
use crate::store::{self, NewUser};

/// Who it is.
#[derive(Clone, Debug)]
pub struct Profile {
    /// An id from another system, or none for a new one.
    pub id: Option<UserId>,
    /// The login name.
    pub login: LoginName,
    /// What to call the user.
    pub display_name: DisplayName,
    /// Roles.
    pub roles: Roles,
    /// Attributes.
    pub attributes: Attributes,
}

/// How the user will prove who they are.
#[derive(Clone, Debug)]
pub enum Secret {
    /// By no password.
    None,
    /// By a new password, under the rules for such.
    Password(Password),
    /// By a password whose hash comes from another system.
    Imported(PasswordHash),
}

/// Adds the user.
pub async fn create_user(app: &Arc<App>, profile: Profile, secret: Secret) -> Result<User, Refusal> {
    let password_hash = match secret {
        Secret::None => None,
        Secret::Imported(hash) => Some(hash),
        Secret::Password(password) => {
            app.password_policy.check(&password)?;
            Some(app.hashing.hash(password).await?)
        }
    };
    let create_time = app.now();
    let user = NewUser {
        id: profile.id.unwrap_or_else(|| UserId::mint(create_time, host::random(&*app.entropy))),
        login: profile.login,
        display_name: profile.display_name,
        roles: profile.roles,
        attributes: profile.attributes,
        password_hash,
        create_time,
    };
    let writer = Arc::clone(app);
    match app.tasks.run(async move { Ok(writer.store.create_user(user).await?) }).await? {
        store::CreateUser::Created(user) => Ok(*user),
        store::CreateUser::LoginTaken => Err(Refusal::LoginTaken),
        store::CreateUser::IdTaken => Err(Refusal::UserIdTaken),
    }
}
