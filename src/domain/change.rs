//! The change log, row by row: everything that takes validity away, or changes a user.
//!
//! A row is one variant of [`LogEntry`] with exactly its fields. A row that lacks a field, or has one too many, cannot be
//! represented: whoever reads it must refuse it, because a node that skipped it would acknowledge what it did not apply.

use super::id::{Epoch, Nonce, Position, SessionId, UserId};
use super::time::UnixMillis;
use super::token::KeyId;

/// One row of the change log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoggedChange {
    /// Its number.
    pub position: Position,
    /// Random; tells two rows of one number apart.
    pub nonce: Nonce,
    /// What changed.
    pub entry: LogEntry,
    /// Database time.
    pub time: UnixMillis,
}

impl LoggedChange {
    /// The kind of change.
    pub const fn kind(&self) -> ChangeKind {
        self.entry.kind()
    }

    /// The user it is about, if about one.
    pub const fn user(&self) -> Option<UserId> {
        self.entry.user()
    }

    /// The session that ended, or the one that goes on where all others of the user ended.
    pub const fn session(&self) -> Option<SessionId> {
        self.entry.session()
    }

    /// The epoch since then: of the user, or of everyone.
    pub const fn epoch(&self) -> Option<Epoch> {
        self.entry.epoch()
    }
}

/// What a row of the change log says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogEntry {
    /// One session ended.
    SessionEnded {
        /// Whose session.
        user: UserId,
        /// Which session.
        session: SessionId,
    },
    /// One session ended, because it was used from another device.
    SessionMisused {
        /// Whose session.
        user: UserId,
        /// Which session.
        session: SessionId,
    },
    /// All sessions of a user ended, but for one perhaps.
    UserSessionsEnded {
        /// Whose sessions.
        user: UserId,
        /// The credential epoch since then.
        epoch: Epoch,
        /// The session that goes on.
        kept: Option<SessionId>,
    },
    /// The password of a user changed, and all sessions ended, but for one perhaps.
    PasswordChanged {
        /// Whose password.
        user: UserId,
        /// The credential epoch since then.
        epoch: Epoch,
        /// The session that goes on.
        kept: Option<SessionId>,
    },
    /// Something else about a user changed.
    UserChanged {
        /// Which user.
        user: UserId,
        /// The credential epoch, which stayed.
        epoch: Epoch,
    },
    /// A user was disabled, and all sessions ended.
    UserDisabled {
        /// Which user.
        user: UserId,
        /// The credential epoch since then.
        epoch: Epoch,
    },
    /// A user was deleted, and all sessions ended.
    UserDeleted {
        /// Which user.
        user: UserId,
        /// The credential epoch since then.
        epoch: Epoch,
    },
    /// All sessions of all users ended.
    EveryoneEnded {
        /// The epoch of everyone since then.
        epoch: Epoch,
    },
    /// A node may sign with a key that the others may not have.
    TokenKeyAdded {
        /// Its number.
        key: KeyId,
    },
    /// No node has a key of that number any more.
    TokenKeyForgotten {
        /// Its number.
        key: KeyId,
    },
}

/// Why the columns of a row do not make an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EntryError {
    /// No version of this program that this one knows writes such rows.
    #[error("kind {0} is unknown; a newer Latchkey may have written it")]
    UnknownKind(i16),
    /// A field that the kind needs is null.
    #[error("{field} is missing in a row of kind {kind:?}")]
    Missing {
        /// The kind of the row.
        kind: ChangeKind,
        /// The column.
        field: &'static str,
    },
    /// A field that the kind does not have is not null.
    #[error("{field} is set in a row of kind {kind:?}, which has none")]
    Unexpected {
        /// The kind of the row.
        kind: ChangeKind,
        /// The column.
        field: &'static str,
    },
}

impl LogEntry {
    /// Reads an entry from its columns.
    pub fn from_columns(
        kind: i16,
        user: Option<UserId>,
        session: Option<SessionId>,
        epoch: Option<Epoch>,
        key: Option<KeyId>,
    ) -> Result<Self, EntryError> {
        let kind = ChangeKind::from_i16(kind).ok_or(EntryError::UnknownKind(kind))?;
        let missing = |field| EntryError::Missing { kind, field };
        let unexpected = |field| EntryError::Unexpected { kind, field };
        if kind.is_of_a_token_key() {
            let key = key.ok_or_else(|| missing("key_id"))?;
            return match (user, session, epoch) {
                (Some(_), _, _) => Err(unexpected("user_id")),
                (_, Some(_), _) => Err(unexpected("session_id")),
                (_, _, Some(_)) => Err(unexpected("epoch")),
                (None, None, None) if kind == ChangeKind::TokenKeyAdded => Ok(Self::TokenKeyAdded { key }),
                (None, None, None) => Ok(Self::TokenKeyForgotten { key }),
            };
        }
        if key.is_some() {
            return Err(unexpected("key_id"));
        }
        if kind == ChangeKind::EveryoneEnded {
            return match (user, session, epoch) {
                (None, None, Some(epoch)) => Ok(Self::EveryoneEnded { epoch }),
                (Some(_), _, _) => Err(unexpected("user_id")),
                (_, Some(_), _) => Err(unexpected("session_id")),
                (_, _, None) => Err(missing("epoch")),
            };
        }
        let user = user.ok_or_else(|| missing("user_id"))?;
        if kind.is_of_one_session() {
            let session = session.ok_or_else(|| missing("session_id"))?;
            return match epoch {
                Some(_) => Err(unexpected("epoch")),
                None if kind == ChangeKind::SessionMisused => Ok(Self::SessionMisused { user, session }),
                None => Ok(Self::SessionEnded { user, session }),
            };
        }
        let epoch = epoch.ok_or_else(|| missing("epoch"))?;
        let entry = match kind {
            ChangeKind::UserSessionsEnded => Self::UserSessionsEnded { user, epoch, kept: session },
            ChangeKind::PasswordChanged => Self::PasswordChanged { user, epoch, kept: session },
            _ if session.is_some() => return Err(unexpected("session_id")),
            ChangeKind::UserDisabled => Self::UserDisabled { user, epoch },
            ChangeKind::UserDeleted => Self::UserDeleted { user, epoch },
            ChangeKind::UserChanged
            | ChangeKind::SessionEnded
            | ChangeKind::SessionMisused
            | ChangeKind::EveryoneEnded
            | ChangeKind::TokenKeyAdded
            | ChangeKind::TokenKeyForgotten => Self::UserChanged { user, epoch },
        };
        Ok(entry)
    }

    /// The kind of change.
    pub const fn kind(&self) -> ChangeKind {
        match self {
            Self::SessionEnded { .. } => ChangeKind::SessionEnded,
            Self::SessionMisused { .. } => ChangeKind::SessionMisused,
            Self::UserSessionsEnded { .. } => ChangeKind::UserSessionsEnded,
            Self::PasswordChanged { .. } => ChangeKind::PasswordChanged,
            Self::UserChanged { .. } => ChangeKind::UserChanged,
            Self::UserDisabled { .. } => ChangeKind::UserDisabled,
            Self::UserDeleted { .. } => ChangeKind::UserDeleted,
            Self::EveryoneEnded { .. } => ChangeKind::EveryoneEnded,
            Self::TokenKeyAdded { .. } => ChangeKind::TokenKeyAdded,
            Self::TokenKeyForgotten { .. } => ChangeKind::TokenKeyForgotten,
        }
    }

    /// The user it is about, if about one.
    pub const fn user(&self) -> Option<UserId> {
        match *self {
            Self::SessionEnded { user, .. }
            | Self::SessionMisused { user, .. }
            | Self::UserSessionsEnded { user, .. }
            | Self::PasswordChanged { user, .. }
            | Self::UserChanged { user, .. }
            | Self::UserDisabled { user, .. }
            | Self::UserDeleted { user, .. } => Some(user),
            Self::EveryoneEnded { .. } | Self::TokenKeyAdded { .. } | Self::TokenKeyForgotten { .. } => None,
        }
    }

    /// The session that ended, or the one that goes on where all others of the user ended.
    pub const fn session(&self) -> Option<SessionId> {
        match *self {
            Self::SessionEnded { session, .. } | Self::SessionMisused { session, .. } => Some(session),
            Self::UserSessionsEnded { kept, .. } | Self::PasswordChanged { kept, .. } => kept,
            Self::UserChanged { .. }
            | Self::UserDisabled { .. }
            | Self::UserDeleted { .. }
            | Self::EveryoneEnded { .. }
            | Self::TokenKeyAdded { .. }
            | Self::TokenKeyForgotten { .. } => None,
        }
    }

    /// The epoch since then: of the user, or of everyone.
    pub const fn epoch(&self) -> Option<Epoch> {
        match *self {
            Self::SessionEnded { .. }
            | Self::SessionMisused { .. }
            | Self::TokenKeyAdded { .. }
            | Self::TokenKeyForgotten { .. } => None,
            Self::UserSessionsEnded { epoch, .. }
            | Self::PasswordChanged { epoch, .. }
            | Self::UserChanged { epoch, .. }
            | Self::UserDisabled { epoch, .. }
            | Self::UserDeleted { epoch, .. }
            | Self::EveryoneEnded { epoch } => Some(epoch),
        }
    }

    /// The token key, if about one.
    pub const fn key(&self) -> Option<KeyId> {
        match *self {
            Self::TokenKeyAdded { key } | Self::TokenKeyForgotten { key } => Some(key),
            Self::SessionEnded { .. }
            | Self::SessionMisused { .. }
            | Self::UserSessionsEnded { .. }
            | Self::PasswordChanged { .. }
            | Self::UserChanged { .. }
            | Self::UserDisabled { .. }
            | Self::UserDeleted { .. }
            | Self::EveryoneEnded { .. } => None,
        }
    }
}

/// The kind of a [`LogEntry`]. The numbers are what the database holds and never change.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ChangeKind {
    /// [`LogEntry::SessionEnded`].
    SessionEnded = 1,
    /// [`LogEntry::UserSessionsEnded`].
    UserSessionsEnded = 2,
    /// [`LogEntry::PasswordChanged`].
    PasswordChanged = 3,
    /// [`LogEntry::UserChanged`].
    UserChanged = 4,
    /// [`LogEntry::UserDisabled`].
    UserDisabled = 5,
    /// [`LogEntry::UserDeleted`].
    UserDeleted = 6,
    /// [`LogEntry::EveryoneEnded`].
    EveryoneEnded = 7,
    /// [`LogEntry::SessionMisused`].
    SessionMisused = 8,
    /// [`LogEntry::TokenKeyAdded`].
    TokenKeyAdded = 9,
    /// [`LogEntry::TokenKeyForgotten`].
    TokenKeyForgotten = 10,
}

impl ChangeKind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::SessionEnded,
        Self::UserSessionsEnded,
        Self::PasswordChanged,
        Self::UserChanged,
        Self::UserDisabled,
        Self::UserDeleted,
        Self::EveryoneEnded,
        Self::SessionMisused,
        Self::TokenKeyAdded,
        Self::TokenKeyForgotten,
    ];

    /// Whether it is about the session it names, and not about the other sessions of the user.
    pub const fn is_of_one_session(self) -> bool {
        matches!(self, Self::SessionEnded | Self::SessionMisused)
    }

    /// Whether it is about a token key, and about nobody's session.
    pub const fn is_of_a_token_key(self) -> bool {
        matches!(self, Self::TokenKeyAdded | Self::TokenKeyForgotten)
    }

    /// The number that the database holds.
    pub const fn as_i16(self) -> i16 {
        self as i16
    }

    /// Reads the number back.
    pub fn from_i16(number: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_i16() == number)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const USER: UserId = UserId::from_uuid(Uuid::from_u128(1));
    const SESSION: SessionId = SessionId::from_uuid(Uuid::from_u128(2));
    const EPOCH: Epoch = Epoch::from_i64(3);
    const KEY: KeyId = KeyId(255);

    /// For every kind and every choice of columns: either an entry that has exactly these columns, or an error that names
    /// the column.
    #[test]
    fn an_entry_has_exactly_the_fields_of_its_kind() {
        for kind in ChangeKind::ALL {
            let mut read = 0;
            for choice in 0..16_u8 {
                let user = (choice & 1 != 0).then_some(USER);
                let session = (choice & 2 != 0).then_some(SESSION);
                let epoch = (choice & 4 != 0).then_some(EPOCH);
                let key = (choice & 8 != 0).then_some(KEY);
                let is_set = |field| match field {
                    "user_id" => user.is_some(),
                    "session_id" => session.is_some(),
                    "epoch" => epoch.is_some(),
                    _ => key.is_some(),
                };
                match LogEntry::from_columns(kind.as_i16(), user, session, epoch, key) {
                    Ok(entry) => {
                        let columns = (entry.user(), entry.session(), entry.epoch(), entry.key());
                        assert_eq!(columns, (user, session, epoch, key), "nothing is dropped or made up");
                        assert_eq!(entry.kind(), kind);
                        read += 1;
                    }
                    Err(EntryError::Missing { kind: of, field }) => {
                        assert_eq!((of, is_set(field)), (kind, false), "{field}");
                    }
                    Err(EntryError::Unexpected { kind: of, field }) => {
                        assert_eq!((of, is_set(field)), (kind, true), "{field}");
                    }
                    Err(EntryError::UnknownKind(number)) => panic!("{number} is known"),
                }
            }
            let may_keep_one = matches!(kind, ChangeKind::UserSessionsEnded | ChangeKind::PasswordChanged);
            assert_eq!(read, if may_keep_one { 2 } else { 1 }, "{kind:?}");
        }
    }

    #[test]
    fn an_unknown_kind_is_an_error_that_names_it() {
        for number in [i16::MIN, -1, 0, 11, i16::MAX] {
            let read = LogEntry::from_columns(number, Some(USER), Some(SESSION), Some(EPOCH), None);
            assert_eq!(read, Err(EntryError::UnknownKind(number)));
        }
    }
}
