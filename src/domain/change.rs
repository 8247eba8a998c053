//! What a row of the change log says. Everything that takes validity away, or changes a user, is one.

use super::id::{Epoch, Nonce, Position, SessionId, UserId};
use super::time::UnixMillis;

/// One row of the change log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoggedChange {
    /// Its number.
    pub position: Position,
    /// What every row bears.
    pub nonce: Nonce,
    /// What changed.
    pub kind: ChangeKind,
    /// The user it is about, if about one.
    pub user: Option<UserId>,
    /// The session it is about; for [`ChangeKind::UserSessionsEnded`] the one that goes on.
    pub session: Option<SessionId>,
    /// The epoch since then: of the user, or of everyone.
    pub epoch: Option<Epoch>,
    /// Database time.
    pub time: UnixMillis,
}

/// What a change-log row says. The numbers are what the database holds and never change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChangeKind {
    /// One session ended.
    SessionEnded = 1,
    /// All sessions of a user ended, but for one perhaps.
    UserSessionsEnded = 2,
    /// The password of a user changed, and all sessions ended, but for one perhaps.
    PasswordChanged = 3,
    /// Something else about a user changed.
    UserChanged = 4,
    /// A user was disabled, and all sessions ended.
    UserDisabled = 5,
    /// A user was deleted, and all sessions ended.
    UserDeleted = 6,
    /// All sessions of all users ended.
    EveryoneEnded = 7,
    /// One session ended, because it was used from another device.
    SessionMisused = 8,
}

impl ChangeKind {
    /// Whether it is about the session it names, and not about the other sessions of the user.
    pub const fn is_of_one_session(self) -> bool {
        matches!(self, Self::SessionEnded | Self::SessionMisused)
    }

    /// The number that the database holds.
    pub const fn as_i16(self) -> i16 {
        self as i16
    }

    /// Reads the number back.
    pub const fn from_i16(number: i16) -> Option<Self> {
        Some(match number {
            1 => Self::SessionEnded,
            2 => Self::UserSessionsEnded,
            3 => Self::PasswordChanged,
            4 => Self::UserChanged,
            5 => Self::UserDisabled,
            6 => Self::UserDeleted,
            7 => Self::EveryoneEnded,
            8 => Self::SessionMisused,
            _ => return None,
        })
    }
}
