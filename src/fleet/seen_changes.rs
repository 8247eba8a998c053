//! The changes that this node has seen, kept so that it can write them again if the database loses them. Without I/O.
//!
//! Per session the first end is kept; per user the latest change of each kind, whose epoch includes the earlier ones. Both
//! age and size are bounded; the oldest changes are dropped first. Rows about token keys are not kept: every node records
//! the keys that it has whenever it joins.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::domain::change::{ChangeKind, LogEntry, LoggedChange};
use crate::domain::id::{Position, SessionId, UserId};
use crate::domain::time::BootTime;

/// Memory for the changes that are kept.
pub const SEEN_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long a change is kept. A standby that is further behind has lost more than this node can write again.
pub const SEEN_AGE_MAX: Duration = Duration::from_hours(1);
/// What one change takes at most, with its share of a half-empty map and of its index.
const CHANGE_BYTES: usize = 320;
const CHANGES_MAX: usize = SEEN_BYTES_MAX / CHANGE_BYTES;

/// Changes in the order in which they were seen.
#[derive(Debug)]
pub(super) struct SeenChanges {
    changes: BTreeMap<u64, Seen>,
    latest: HashMap<Subject, u64>,
    next: u64,
    /// Changes below this number were written again since the last loss.
    unwritten_from: u64,
    /// The highest position of a change that was dropped.
    dropped: Position,
    changes_max: usize,
}

#[derive(Clone, Debug)]
struct Seen {
    change: LoggedChange,
    at: BootTime,
}

/// What a later change of the same subject replaces.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Subject {
    Session(SessionId),
    User(UserId, ChangeKind),
    Everyone,
}

/// Changes to write again together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LostBatch {
    /// The changes, in the order in which they were seen.
    pub changes: Vec<LoggedChange>,
    /// The number of the last one.
    last: u64,
}

impl Default for SeenChanges {
    fn default() -> Self {
        Self::with_room_for(CHANGES_MAX)
    }
}

impl SeenChanges {
    fn with_room_for(changes_max: usize) -> Self {
        Self {
            changes: BTreeMap::new(),
            latest: HashMap::new(),
            next: 0,
            unwritten_from: 0,
            dropped: Position::ZERO,
            changes_max,
        }
    }

    /// Keeps a change that was seen at `now`.
    pub(super) fn note(&mut self, change: &LoggedChange, now: BootTime) {
        let Some(subject) = subject(&change.entry) else { return };
        match self.latest.get(&subject) {
            // A session ends once, whatever else is said of it later; the reason stays.
            Some(_) if matches!(subject, Subject::Session(_)) => return,
            Some(before) => drop(self.changes.remove(before)),
            None => {}
        }
        self.latest.insert(subject, self.next);
        self.changes.insert(self.next, Seen { change: change.clone(), at: now });
        self.next += 1;
        self.drop_surplus(now);
    }

    /// Forgets everything, and what was dropped as well: the log is another one.
    pub(super) fn clear(&mut self) {
        *self = Self::with_room_for(self.changes_max);
    }

    /// Forgets all but that users were disabled or deleted.
    pub(super) fn keep_disabled_users(&mut self) {
        let is_disabled =
            |seen: &Seen| matches!(seen.change.kind(), ChangeKind::UserDisabled | ChangeKind::UserDeleted);
        self.changes.retain(|_, seen| is_disabled(seen));
        self.latest.retain(|_, number| self.changes.contains_key(number));
    }

    /// Some of the changes were lost, so each has to be written again.
    pub(super) fn unwrite(&mut self) {
        self.unwritten_from = 0;
    }

    /// The next changes to write again, at most `limit`.
    pub(super) fn unwritten(&self, limit: usize) -> Option<LostBatch> {
        let batch: Vec<_> = self.changes.range(self.unwritten_from..).take(limit.max(1)).collect();
        let (last, _) = *batch.last()?;
        let changes = batch.iter().map(|(_, seen)| seen.change.clone()).collect();
        Some(LostBatch { changes, last: *last })
    }

    /// The batch was written again. A change that was seen anew meanwhile has another number, and is written once more.
    pub(super) fn wrote(&mut self, batch: &LostBatch) {
        self.unwritten_from = self.unwritten_from.max(batch.last + 1);
    }

    /// How many changes are kept.
    pub(super) fn len(&self) -> usize {
        self.changes.len()
    }

    /// How many positions above `head` had changes that are no longer kept, at most. Where the database lost them, this
    /// node cannot write them again.
    pub(super) fn dropped_above(&self, head: Position) -> u64 {
        u64::try_from(self.dropped.as_i64().saturating_sub(head.as_i64())).unwrap_or(0)
    }

    /// Positions are given anew above `head`.
    pub(super) fn rewind(&mut self, head: Position) {
        self.dropped = self.dropped.min(head);
    }

    fn drop_surplus(&mut self, now: BootTime) {
        while let Some(first) = self.changes.first_entry() {
            let is_old = now.since(first.get().at) > SEEN_AGE_MAX;
            if !is_old && self.latest.len() <= self.changes_max {
                break;
            }
            let change = first.remove().change;
            if let Some(subject) = subject(&change.entry) {
                self.latest.remove(&subject);
            }
            self.dropped = self.dropped.max(change.position);
        }
    }
}

fn subject(entry: &LogEntry) -> Option<Subject> {
    Some(match *entry {
        LogEntry::SessionEnded { session, .. } | LogEntry::SessionMisused { session, .. } => {
            Subject::Session(session)
        }
        LogEntry::UserSessionsEnded { user, .. }
        | LogEntry::PasswordChanged { user, .. }
        | LogEntry::UserChanged { user, .. }
        | LogEntry::UserDisabled { user, .. }
        | LogEntry::UserDeleted { user, .. } => Subject::User(user, entry.kind()),
        LogEntry::EveryoneEnded { .. } => Subject::Everyone,
        LogEntry::TokenKeyAdded { .. } | LogEntry::TokenKeyForgotten { .. } => return None,
    })
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::super::samples::*;
    use super::*;
    use crate::domain::id::Epoch;

    fn user(number: u128) -> UserId {
        UserId::from_uuid(Uuid::from_u128(number))
    }

    fn session_ended(position: i64, session: u128) -> LoggedChange {
        let session = SessionId::from_uuid(Uuid::from_u128(session));
        LoggedChange { entry: LogEntry::SessionEnded { user: user(1), session }, ..row(position) }
    }

    fn user_ended(position: i64, number: u128) -> LoggedChange {
        let epoch = Epoch::from_i64(position);
        let entry = LogEntry::UserSessionsEnded { user: user(number), epoch, kept: None };
        LoggedChange { entry, ..row(position) }
    }

    fn positions(seen: &SeenChanges) -> Vec<i64> {
        let all = seen.unwritten(usize::MAX).map_or_else(Vec::new, |batch| batch.changes);
        all.iter().map(|change| change.position.as_i64()).collect()
    }

    #[test]
    fn a_row_counts_once_and_a_later_change_of_a_user_replaces_the_earlier_one() {
        let mut seen = SeenChanges::default();
        let disabled = LogEntry::UserDisabled { user: user(1), epoch: Epoch::from_i64(3) };
        let rows = [
            session_ended(1, 1),
            user_ended(2, 1),
            LoggedChange { entry: disabled, ..row(3) },
            user_ended(4, 1),
            user_ended(5, 2),
            row(6),
            row(7),
        ];
        // Each is heard of twice: by the node that wrote it from its commit and from the log.
        for change in rows.iter().flat_map(|row| [row, row]) {
            seen.note(change, millis(0));
        }
        seen.note(&session_ended(8, 1), millis(0));
        assert_eq!(positions(&seen), [1, 3, 4, 5, 7], "one for each subject, and the first end of a session");
        assert_eq!(seen.dropped_above(at(0)), 0, "nothing was lost by that");
    }

    #[test]
    fn age_and_number_are_bounded_and_what_was_dropped_is_known() {
        let mut seen = SeenChanges::with_room_for(3);
        for position in 1..=5 {
            seen.note(&session_ended(position, position.unsigned_abs().into()), millis(0));
        }
        assert_eq!((positions(&seen), seen.len()), (vec![3, 4, 5], 3));
        assert_eq!((seen.dropped_above(at(0)), seen.dropped_above(at(2))), (2, 0));
        let late = BootTime::default().plus(SEEN_AGE_MAX);
        seen.note(&session_ended(6, 6), late);
        assert_eq!(positions(&seen), [4, 5, 6]);
        seen.note(&session_ended(7, 7), late.plus(Duration::from_millis(1)));
        assert_eq!((positions(&seen), seen.latest.len()), (vec![6, 7], 2), "an hour is over");
        assert_eq!(seen.dropped_above(at(2)), 3);
        seen.rewind(at(4));
        assert_eq!(seen.dropped_above(at(4)), 0, "these positions mean something else now");
    }

    #[test]
    fn what_was_written_again_is_not_written_again_until_it_is_lost_again() {
        let mut seen = SeenChanges::default();
        for position in 1..=5 {
            seen.note(&user_ended(position, position.unsigned_abs().into()), millis(0));
        }
        let first = seen.unwritten(2).expect("a batch");
        // While the batch is written, the first of them is heard of anew.
        seen.note(&user_ended(6, 1), millis(1));
        seen.wrote(&first);
        assert_eq!(positions(&seen), [3, 4, 5, 6]);
        let rest = seen.unwritten(usize::MAX).expect("a batch");
        seen.wrote(&rest);
        assert_eq!(seen.unwritten(2), None);
        seen.unwrite();
        assert_eq!(positions(&seen), [2, 3, 4, 5, 6]);
    }

    #[test]
    fn the_stated_bytes_hold_the_changes() {
        let (change, index) = (size_of::<(u64, Seen)>(), size_of::<(Subject, u64)>() + 1);
        // A node of the tree is at least half full, a table of the index 7/16.
        assert!(2 * change + index * 16 / 7 <= CHANGE_BYTES, "{change} and {index} bytes");
    }
}
