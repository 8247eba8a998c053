//! Names and counters, each its own type, so that a user id can never be used where a session id is meant.

use std::fmt;

use uuid::Uuid;

use super::invalid::Invalid;
use super::time::UnixMillis;

/// Declares a UUID newtype with its text form.
macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// Mints a UUIDv7 (RFC 9562): `now` in milliseconds, then random bits.
            pub fn mint(now: UnixMillis, random: [u8; 10]) -> Self {
                Self(uuid::Builder::from_unix_timestamp_millis(now.as_millis().unsigned_abs(), &random).into_uuid())
            }

            /// Reads the hyphenated text form (36 characters); no other spelling is taken.
            pub fn parse(text: &str) -> Result<Self, Invalid> {
                let bad = || Invalid::new("must be a UUID in its 36-character text form");
                if text.len() != 36 {
                    return Err(bad());
                }
                Uuid::try_parse(text).map(Self).map_err(|_| bad())
            }

            /// The value as the database holds it.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The value as the database holds it.
            pub const fn as_uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

uuid_id! {
    /// The name of a user; UUIDv7 when minted here, any UUID when the caller chose it.
    UserId
}
uuid_id! {
    /// The public name of a session (UUIDv7). Not secret: it may be logged and listed.
    SessionId
}

uuid_id! {
    /// One running process of the fleet (UUIDv7); minted at every start, and again whenever a node joins anew.
    NodeId
}
uuid_id! {
    /// The name of a change log. Another name means another history: nothing that was read from the old one counts.
    LogId
}

/// A counter that only goes up: a session carries the values it was born with and dies when they differ.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Epoch(i64);

impl Epoch {
    /// The lowest epoch there is: that of a new database, and of the users made before anything was taken away in it.
    pub const FIRST: Self = Self(1);

    /// The value as the database holds it.
    pub const fn from_i64(value: i64) -> Self {
        Self(value)
    }

    /// The value as the database holds it.
    pub const fn as_i64(self) -> i64 {
        self.0
    }

    /// The epoch after this one.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// A number in the change log; number order is commit order, without gaps.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Position(i64);

impl Position {
    /// The position of an empty log.
    pub const ZERO: Self = Self(0);

    /// The position after this one.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The value as the database holds it.
    pub const fn from_i64(value: i64) -> Self {
        Self(value)
    }

    /// The value as the database holds it.
    pub const fn as_i64(self) -> i64 {
        self.0
    }
}

/// Eight random bytes in each change-log row, by which a follower notices that a number was used twice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Nonce(pub [u8; 8]);

impl Nonce {
    /// Another one, for rows that are written later in the name of the same call.
    #[must_use]
    pub fn next(self) -> Self {
        Self(u64::from_le_bytes(self.0).wrapping_add(1).to_le_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minted_ids_are_version_7_and_order_by_time() {
        let early = SessionId::mint(UnixMillis::from_millis(1_000), [0xff; 10]);
        let late = SessionId::mint(UnixMillis::from_millis(1_001), [0; 10]);
        assert!(early < late);
        assert_eq!(early.as_uuid().get_version_num(), 7);
        assert_eq!(SessionId::parse(&early.to_string()), Ok(early));
    }

    #[test]
    fn only_the_hyphenated_form_is_an_id() {
        for bad in [
            "",
            "x",
            "{67e55044-10b1-426f-9247-bb680e5fe0c8}",
            "67e5504410b1426f9247bb680e5fe0c8",
            "67e55044-10b1-426f-9247-bb680e5fe0cz",
        ] {
            assert!(UserId::parse(bad).is_err(), "{bad}");
        }
        assert!(UserId::parse("67e55044-10b1-426f-9247-bb680e5fe0c8").is_ok());
    }
}
