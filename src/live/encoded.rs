//! A user as answers tell it, encoded once, when the user enters memory or changes. What the bytes mean is known to who
//! hands in the encoder, and never here: it says where in them is what is needed of a user by itself. It leaves the id out,
//! which memory holds as it is, in half the room; who tells a user writes it in front.

use std::ops::Range;

use crate::domain::login_name::LoginName;
use crate::domain::user::User;

/// How a user is encoded. It is called by the keeper alone, never by a reader.
pub type Encoder = fn(&User) -> Encoded;

/// The encoding of one user.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Encoded {
    whole: Vec<u8>,
    principal_len: usize,
    login: Range<usize>,
}

impl Encoded {
    /// All that is told of a user but the id. Its first `principal_len` bytes are what goes with every good session, and the bytes at
    /// `login` are the login as the person chose it.
    pub fn new(whole: Vec<u8>, principal_len: usize, login: Range<usize>) -> Self {
        Self { whole, principal_len, login }
    }

    /// Says nothing: for memory out of which no answer is made.
    pub fn nothing(_: &User) -> Self {
        Self::default()
    }

    /// All that is told of the user but the id.
    pub fn whole(&self) -> &[u8] {
        &self.whole
    }

    /// What goes with every good session, but the id.
    pub fn principal(&self) -> &[u8] {
        self.whole.get(..self.principal_len).unwrap_or(&self.whole)
    }

    /// Where in it the login is.
    pub fn login(&self) -> Range<usize> {
        self.login.clone()
    }
}

/// What memory keeps of a user who may have sessions, as one piece of bytes: the encoding, and behind it the key of the
/// login where that is not what the encoding says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Told {
    pub(super) bytes: Vec<u8>,
    pub(super) parts: Parts,
}

/// Where the parts of it are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Parts {
    pub(super) whole_len: usize,
    pub(super) principal_len: usize,
    pub(super) login: Range<usize>,
}

impl Told {
    /// A user as `encode` tells it.
    pub(super) fn of(user: &User, encode: Encoder) -> Self {
        let Encoded { whole: mut bytes, principal_len, login } = encode(user);
        let parts = Parts { whole_len: bytes.len(), principal_len: principal_len.min(bytes.len()), login };
        if bytes.get(parts.login.clone()) != Some(user.login.key().as_bytes()) {
            bytes.extend_from_slice(user.login.key().as_bytes());
        }
        Self { bytes, parts }
    }

    pub(super) fn view(&self) -> EncodedUser<'_> {
        EncodedUser::new(&self.bytes, &self.parts)
    }
}

/// A user in memory as answers tell it, for as long as it is looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EncodedUser<'t> {
    whole: &'t [u8],
    principal: &'t [u8],
    login: &'t [u8],
    key: &'t [u8],
}

impl<'t> EncodedUser<'t> {
    pub(super) fn new(bytes: &'t [u8], parts: &Parts) -> Self {
        let (whole, key) = bytes.split_at_checked(parts.whole_len).unwrap_or((bytes, &[]));
        let principal = whole.get(..parts.principal_len).unwrap_or(whole);
        let login = whole.get(parts.login.clone()).unwrap_or_default();
        Self { whole, principal, login, key: if key.is_empty() { login } else { key } }
    }

    /// All that is told of the user but the id.
    pub fn whole(self) -> &'t [u8] {
        self.whole
    }

    /// What goes with every good session, but the id.
    pub fn principal(self) -> &'t [u8] {
        self.principal
    }

    /// The login. Not for the hot path: it is copied.
    pub fn login(self) -> LoginName {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        LoginName::from_stored(text(self.login), text(self.key))
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::user;
    use super::*;

    /// A mark, the login, what every good session tells, and the rest.
    fn encode(user: &User) -> Encoded {
        let login = user.login.display();
        let (start, end) = (1, 1 + login.len());
        Encoded::new(format!("#{login}/all").into_bytes(), end + 1, start..end)
    }

    #[test]
    fn the_parts_are_found_again_and_a_login_need_not_be_its_key() {
        for (login, kept) in [("ada", "#ada/all"), ("Ada", "#Ada/allada")] {
            let user = User { login: LoginName::parse(login).expect("a login"), ..user(1, 1) };
            let told = Told::of(&user, encode);
            assert_eq!(told.bytes, kept.as_bytes());
            let view = told.view();
            assert_eq!(view.whole(), encode(&user).whole());
            assert_eq!(view.principal(), encode(&user).principal());
            assert_eq!(view.login(), user.login);
        }
    }

    #[test]
    fn parts_that_are_not_there_are_empty() {
        let wrong = |_: &User| Encoded::new(b"ab".to_vec(), 9, 5..7);
        let told = Told::of(&user(1, 1), wrong);
        assert_eq!((told.view().whole(), told.view().principal()), (&b"ab"[..], &b"ab"[..]));
        assert_eq!(told.view().login().key(), user(1, 1).login.key());
    }
}
