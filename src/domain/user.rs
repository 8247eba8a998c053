//! A user: a person (or robot) that can sign in, and what may be said of one.

use std::collections::BTreeMap;

use super::id::{Epoch, UserId};
use super::invalid::Invalid;
use super::login_name::LoginName;
use super::time::UnixMillis;

/// Code points of a display name.
pub const DISPLAY_NAME_CODE_POINTS_MAX: usize = 256;
/// Roles of one user.
pub const ROLES_MAX: usize = 64;
/// Attributes of one user.
pub const ATTRIBUTES_MAX: usize = 32;
/// Bytes of a role, and of the key of an attribute.
pub const NAME_BYTES_MAX: usize = 64;
/// Bytes of the value of an attribute.
pub const ATTRIBUTE_VALUE_BYTES_MAX: usize = 512;
/// Bytes of all attributes of a user together, keys and values.
pub const ATTRIBUTES_BYTES_MAX: usize = 8_192;

/// Whether a user may sign in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UserState {
    /// May sign in.
    Active,
    /// May not; every session ended when this was set.
    Disabled,
}

/// A user as of one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct User {
    /// The name that never changes.
    pub id: UserId,
    /// The name to sign in with.
    pub login: LoginName,
    /// What to call the user; may be empty.
    pub display_name: DisplayName,
    /// Whether the user may sign in.
    pub state: UserState,
    /// What the applications may let the user do.
    pub roles: Roles,
    /// Whatever else the applications want to know.
    pub attributes: Attributes,
    /// Goes up whenever the password changes or all sessions of the user are ended.
    pub credential_epoch: Epoch,
    /// The value of `credential_epoch` since the password was last set: sessions born before died of that.
    pub password_epoch: Epoch,
    /// When the user was made, database time.
    pub create_time: UnixMillis,
    /// When anything above last changed, database time.
    pub update_time: UnixMillis,
    /// When the password was last set; none for a user without a password.
    pub password_time: Option<UnixMillis>,
}

/// What to call a user: at most [`DISPLAY_NAME_CODE_POINTS_MAX`] code points, no controls. May be empty.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DisplayName(String);

impl DisplayName {
    /// Reads a display name.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        one_line(text, DISPLAY_NAME_CODE_POINTS_MAX).map(Self)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Reads a text of at most `code_points_max` code points without control characters.
pub(super) fn one_line(text: &str, code_points_max: usize) -> Result<String, Invalid> {
    if text.len() > code_points_max * 4 || text.chars().count() > code_points_max {
        return Err(Invalid::new(format!("must have at most {code_points_max} code points")));
    }
    if text.chars().any(char::is_control) {
        return Err(Invalid::new("must not hold control characters"));
    }
    Ok(text.to_owned())
}

/// Reads a name of 1 to [`NAME_BYTES_MAX`] ASCII letters, digits and `_ . : / -`.
pub(super) fn name(text: &str) -> Result<String, Invalid> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:/-".contains(&byte);
    if text.is_empty() || text.len() > NAME_BYTES_MAX || !text.bytes().all(allowed) {
        return Err(Invalid::new(format!(
            "must be 1 to {NAME_BYTES_MAX} ASCII letters, digits or any of _ . : / -"
        )));
    }
    Ok(text.to_owned())
}

/// A set of role names, sorted; at most [`ROLES_MAX`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Roles(Vec<String>);

impl Roles {
    /// Reads role names; doubles become one.
    pub fn parse<S: AsRef<str>>(names: &[S]) -> Result<Self, Invalid> {
        if names.len() > ROLES_MAX {
            return Err(Invalid::new(format!("must hold at most {ROLES_MAX} roles")));
        }
        let mut roles = names.iter().map(|role| name(role.as_ref())).collect::<Result<Vec<_>, _>>()?;
        roles.sort_unstable();
        roles.dedup();
        Ok(Self(roles))
    }

    /// The names, sorted.
    pub fn as_slice(&self) -> &[String] {
        &self.0
    }
}

/// Named texts about a user; at most [`ATTRIBUTES_MAX`], together at most [`ATTRIBUTES_BYTES_MAX`] bytes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Attributes(BTreeMap<String, String>);

impl Attributes {
    /// Reads attributes.
    pub fn parse<K: AsRef<str>, V: AsRef<str>>(
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, Invalid> {
        let mut attributes = BTreeMap::new();
        let mut bytes = 0;
        for (key, value) in pairs {
            let (key, value) = (name(key.as_ref())?, value.as_ref());
            if value.len() > ATTRIBUTE_VALUE_BYTES_MAX {
                return Err(Invalid::new(format!(
                    "must hold values of at most {ATTRIBUTE_VALUE_BYTES_MAX} bytes"
                )));
            }
            if value.chars().any(|c| c == '\0') {
                return Err(Invalid::new("must not hold NUL"));
            }
            bytes += key.len() + value.len();
            attributes.insert(key, value.to_owned());
            if attributes.len() > ATTRIBUTES_MAX || bytes > ATTRIBUTES_BYTES_MAX {
                let limits = format!(
                    "must hold at most {ATTRIBUTES_MAX} entries of {ATTRIBUTES_BYTES_MAX} bytes together"
                );
                return Err(Invalid::new(limits));
            }
        }
        Ok(Self(attributes))
    }

    /// The pairs, sorted by key.
    pub fn as_map(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_a_set_of_plain_names() {
        assert_eq!(Roles::parse(&["b", "a", "b"]).expect("valid").as_slice(), ["a", "b"]);
        assert_eq!(Roles::parse(&["billing:read/all-2.x_y"]).map(|roles| roles.as_slice().len()), Ok(1));
        for bad in ["", "a b", "ä", "a\0", &"x".repeat(NAME_BYTES_MAX + 1)] {
            assert!(Roles::parse(&[bad]).is_err(), "{bad:?}");
        }
        assert!(Roles::parse(&vec!["x"; ROLES_MAX + 1]).is_err());
    }

    #[test]
    fn attributes_are_bounded_one_by_one_and_together() {
        assert!(Attributes::parse([("team", "blue\nsky")]).is_ok());
        assert!(Attributes::parse([("team", "a\0b")]).is_err());
        assert!(Attributes::parse([("te am", "x")]).is_err());
        assert!(Attributes::parse([("k".to_owned(), "v".repeat(ATTRIBUTE_VALUE_BYTES_MAX + 1))]).is_err());
        let many = |count: usize, size: usize| (0..count).map(move |n| (format!("k{n}"), "v".repeat(size)));
        assert!(Attributes::parse(many(ATTRIBUTES_MAX, 10)).is_ok());
        assert!(Attributes::parse(many(ATTRIBUTES_MAX + 1, 10)).is_err());
        assert!(Attributes::parse(many(ATTRIBUTES_MAX, 500)).is_err());
    }

    #[test]
    fn a_display_name_is_one_line() {
        assert!(DisplayName::parse("").is_ok());
        assert!(DisplayName::parse("Ada Lovelace, née Byron").is_ok());
        assert!(DisplayName::parse("a\nb").is_err());
        assert!(DisplayName::parse(&"x".repeat(DISPLAY_NAME_CODE_POINTS_MAX + 1)).is_err());
    }
}
