//! A row of `users` as a domain value and back. Whatever cannot be read is said with table, id and column, never its value.

use std::collections::BTreeMap;

use serde_json::{from_str, to_string};

use super::entity::users;
use super::error::Failure;
use crate::domain::id::{Epoch, UserId};
use crate::domain::login_name::LoginName;
use crate::domain::time::UnixMillis;
use crate::domain::user::{Attributes, DisplayName, Roles, User, UserState};

const ACTIVE: i16 = 1;
const DISABLED: i16 = 2;

impl users::Model {
    /// Whether the user may sign in.
    pub(super) fn is_active(&self) -> bool {
        self.state == ACTIVE
    }

    /// The credential epoch after this one.
    pub(super) fn next_epoch(&self) -> i64 {
        Epoch::from_i64(self.credential_epoch).next().as_i64()
    }
}

/// Reads a row.
pub(super) fn to_user(row: users::Model) -> Result<User, Failure> {
    let id = row.user_id;
    let corrupt = |column: &str| Failure::Corrupt(format!("table users, user_id {id}: {column}"));
    let key = String::from_utf8(row.login_key).map_err(|_| corrupt("login_key"))?;
    let roles: Vec<String> = from_str(&row.roles).map_err(|_| corrupt("roles"))?;
    let attributes: BTreeMap<String, String> =
        from_str(&row.attributes).map_err(|_| corrupt("attributes"))?;
    Ok(User {
        id: UserId::from_uuid(id),
        login: LoginName::from_stored(row.login_display, key),
        display_name: DisplayName::parse(&row.display_name).map_err(|_| corrupt("display_name"))?,
        state: match row.state {
            ACTIVE => UserState::Active,
            DISABLED => UserState::Disabled,
            _ => return Err(corrupt("state")),
        },
        roles: Roles::parse(&roles).map_err(|_| corrupt("roles"))?,
        attributes: Attributes::parse(attributes).map_err(|_| corrupt("attributes"))?,
        credential_epoch: Epoch::from_i64(row.credential_epoch),
        password_epoch: Epoch::from_i64(row.password_epoch),
        create_time: UnixMillis::from_millis(row.create_time),
        update_time: UnixMillis::from_millis(row.update_time),
        password_time: row.password_time.map(UnixMillis::from_millis),
    })
}

/// The number of a state.
pub(super) const fn state_number(state: UserState) -> i16 {
    match state {
        UserState::Active => ACTIVE,
        UserState::Disabled => DISABLED,
    }
}

/// Roles as JSON.
pub(super) fn roles_text(roles: &Roles) -> String {
    to_string(roles.as_slice()).expect("texts are JSON")
}

/// Attributes as JSON.
pub(super) fn attributes_text(attributes: &Attributes) -> String {
    to_string(attributes.as_map()).expect("texts are JSON")
}
