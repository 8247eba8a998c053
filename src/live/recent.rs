//! What changed lately, so that a read which began before a change can be told from one that shows it.
//!
//! Bounded: a read that is older than all that is remembered counts as overtaken.

use std::collections::{HashMap, VecDeque};

use crate::domain::change::{LogEntry, LoggedChange};
use crate::domain::id::{Position, SessionId, UserId};

/// Changes that were applied to memory, with their positions.
#[derive(Debug)]
pub(super) struct RecentChanges {
    changes: VecDeque<(Position, Subject)>,
    subjects: HashMap<Subject, Position>,
    everyone: Position,
    /// Nothing is known of who changed up to here.
    floor: Position,
    changes_max: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Subject {
    User(UserId),
    Session(SessionId),
}

impl RecentChanges {
    /// Remembers `changes_max` changes; nothing is known of what happened up to `floor`.
    pub(super) fn new(floor: Position, changes_max: usize) -> Self {
        let changes_max = changes_max.max(1);
        Self {
            changes: VecDeque::new(),
            subjects: HashMap::new(),
            everyone: Position::ZERO,
            floor,
            changes_max,
        }
    }

    /// Remembers a change that memory was told.
    pub(super) fn note(&mut self, row: &LoggedChange) {
        let subject = match row.entry {
            LogEntry::SessionEnded { session, .. } | LogEntry::SessionMisused { session, .. } => {
                Subject::Session(session)
            }
            LogEntry::UserSessionsEnded { user, .. }
            | LogEntry::PasswordChanged { user, .. }
            | LogEntry::UserChanged { user, .. }
            | LogEntry::UserDisabled { user, .. }
            | LogEntry::UserDeleted { user, .. } => Subject::User(user),
            LogEntry::EveryoneEnded { .. } => {
                self.everyone = self.everyone.max(row.position);
                return;
            }
            LogEntry::TokenKeyAdded { .. } | LogEntry::TokenKeyForgotten { .. } => return,
        };
        let last = self.subjects.entry(subject).or_insert(row.position);
        *last = row.position.max(*last);
        self.changes.push_back((row.position, subject));
        while self.changes.len() > self.changes_max {
            self.forget_oldest();
        }
    }

    /// Whether a read that holds every change up to `position` was overtaken by one that touches the session.
    pub(super) fn touched_since(&self, position: Position, user: UserId, session: SessionId) -> bool {
        let later = |subject| self.subjects.get(&subject).is_some_and(|last| *last > position);
        position < self.floor
            || self.everyone > position
            || later(Subject::User(user))
            || later(Subject::Session(session))
    }

    fn forget_oldest(&mut self) {
        let Some((position, subject)) = self.changes.pop_front() else { return };
        self.floor = self.floor.max(position);
        if self.subjects.get(&subject).is_some_and(|last| *last <= self.floor) {
            self.subjects.remove(&subject);
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::id::{Epoch, Nonce};
    use crate::domain::time::UnixMillis;

    fn at(position: i64) -> Position {
        Position::from_i64(position)
    }

    fn user(number: u128) -> UserId {
        UserId::from_uuid(Uuid::from_u128(number))
    }

    fn session(number: u128) -> SessionId {
        SessionId::from_uuid(Uuid::from_u128(number))
    }

    fn row(position: i64, entry: LogEntry) -> LoggedChange {
        LoggedChange { position: at(position), nonce: Nonce([0; 8]), entry, time: UnixMillis::default() }
    }

    #[test]
    fn only_what_touches_the_session_overtakes_a_read() {
        let mut recent = RecentChanges::new(at(10), 100);
        recent.note(&row(11, LogEntry::SessionEnded { user: user(1), session: session(1) }));
        let kept = Some(session(9));
        recent.note(&row(12, LogEntry::UserSessionsEnded { user: user(2), epoch: Epoch::FIRST, kept }));
        assert!(recent.touched_since(at(10), user(1), session(1)));
        assert!(!recent.touched_since(at(11), user(1), session(1)));
        assert!(!recent.touched_since(at(10), user(1), session(2)), "a sibling is not touched");
        assert!(recent.touched_since(at(11), user(2), session(3)));
        assert!(!recent.touched_since(at(12), user(2), session(3)));
        assert!(recent.touched_since(at(9), user(7), session(7)), "older than all that is known");
        recent.note(&row(13, LogEntry::EveryoneEnded { epoch: Epoch::FIRST }));
        assert!(recent.touched_since(at(12), user(7), session(7)));
        assert!(!recent.touched_since(at(13), user(7), session(7)));
    }

    #[test]
    fn what_is_forgotten_overtakes_every_older_read() {
        let mut recent = RecentChanges::new(at(0), 2);
        for position in 1..=4 {
            recent.note(&row(position, LogEntry::UserChanged { user: user(1), epoch: Epoch::FIRST }));
        }
        recent.note(&row(5, LogEntry::UserChanged { user: user(2), epoch: Epoch::FIRST }));
        assert!(recent.touched_since(at(2), user(3), session(3)));
        assert!(!recent.touched_since(at(3), user(3), session(3)));
        assert!(recent.touched_since(at(3), user(1), session(3)));
        assert_eq!(recent.subjects.len(), 2, "bounded");
    }
}
